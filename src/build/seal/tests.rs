use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::script::Order;
use super::*;
use crate::build::event::tests::Kept;
use crate::build::provisioner::tests::local_guest::LocalGuest;
use crate::build::secrets::Masks;

const OWN: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOwnOwnOwnOwnOwnOwnOwnOwnOwnOwnOwnOwnOwnOwnO qimg";
const FOREIGN: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIForeignForeignForeignForeignForeignForeignForei";
const HOST: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHostHostHostHostHostHostHostHostHostHostHostH root@x";

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

fn own() -> Own {
    Own {
        keys: vec![OWN.to_owned()],
        password_users: vec!["debian".to_owned()],
        host_keys: vec![HOST.to_owned()],
        instance_id: Some("qimg-1234".to_owned()),
        created_users: vec!["packer".to_owned()],
        sudo_password: None,
    }
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.at(path)).ok()
    }

    fn gone(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_err()
    }

    fn debian() -> Self {
        let tree = Self::new();
        tree.file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
             debian:x:1000:1000:Debian:/home/debian:/bin/bash\npacker:x:1001:1001::/home/packer:/bin/sh\n\
             ann:x:1002:1002::/home/ann:/bin/sh\n",
        )
        .file(
            "etc/shadow",
            "root:*:1:0:99999:7:::\ndebian:$y$j9T$abc:1:0:99999:7:::\npacker:!$6$x:1::::::\n\
             ann:$6$abc:1::::::\neve::1::::::\n",
        )
        .file("etc/shadow-", "debian:$y$old:1::::::\n")
        .file("etc/group", "packer:x:1001:\nsudo:x:27:debian\n")
        .file(
            "root/.ssh/authorized_keys",
            &format!("no-pty,command=\"echo 'Please login as debian'\" {OWN}\n"),
        )
        .file(
            "home/debian/.ssh/authorized_keys",
            &format!("# a comment\n{OWN}\nfrom=\"10.0.0.0/8\" ssh-ed25519 {FOREIGN} ann@home with words\n"),
        )
        .file("home/packer/.ssh/authorized_keys", OWN)
        .file("home/debian/.bash_history", "secret\n")
        .file("root/.lesshst", "x")
        .file("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        .file("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")
        .file("usr/bin/cloud-init", "")
        .file("var/lib/cloud/instances/qimg-1234/user-data.txt", "key")
        .file("var/lib/cloud/data/instance-id", "qimg-1234")
        .file("var/lib/cloud/sem/config_scripts_per_once.once", "")
        .file("etc/ssh/ssh_host_ed25519_key", "private")
        .file("etc/ssh/ssh_host_ed25519_key.pub", HOST)
        .file("etc/ssh/sshd_config", "#PasswordAuthentication yes\n  PasswordAuthentication no\n")
        .file("etc/sudoers.d/90-cloud-init-users", "# User rules for debian\ndebian ALL=(ALL) NOPASSWD:ALL\n\n# User rules for packer\npacker ALL=(ALL) NOPASSWD:ALL\n")
        .file("var/log/syslog", "line\n")
        .file("var/log/apt/history.log.1.gz", "x")
        .file("var/log/journal/0123/system.journal", "x")
        .file("var/log/empty", "")
        .file("var/lib/apt/lists/mirror_Packages", "x")
        .file("var/lib/apt/lists/lock", "")
        .file("var/cache/apt/archives/a.deb", "x")
        .file("var/cache/dnf/x/y", "x")
        .file("var/lib/systemd/random-seed", "x")
        .file("var/lib/dhcp/dhclient.eth0.leases", "x")
        .file("etc/netplan/50-cloud-init.yaml", "network:")
        .file("tmp/a b/c", "x")
        .file("var/tmp/.hidden", "x")
        .file("var/tmp/outside", "x");
        std::fs::remove_file(tree.at("var/tmp/outside")).unwrap();
        symlink("/etc/hostname", tree.at("var/tmp/outside")).unwrap();
        symlink(
            "/var/lib/cloud/instances/qimg-1234",
            tree.at("var/lib/cloud/instance"),
        )
        .unwrap();
        let owned = tree.at("home/debian/.ssh/authorized_keys");
        std::fs::set_permissions(owned, std::fs::Permissions::from_mode(0o600)).unwrap();
        tree
    }

    /// Runs the script on the tree by `shell`.
    fn run(&self, shell: &[&str], order: &Order<'_>) -> SealReport {
        let order = Order {
            root: self.0.path().to_str().unwrap(),
            ..*order
        };
        let script = order.compose().unwrap();
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-s")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{shell:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell:?}");
        SealReport::parse(&String::from_utf8(output.stdout).unwrap())
    }
}

fn sealing<'a>(steps: &'a [Step], own: &'a Own) -> Order<'a> {
    Order {
        steps,
        uninject: false,
        own,
        shutdown: None,
        root: "",
    }
}

#[test]
fn every_shell_seals_a_guest() {
    for shell in SHELLS {
        let tree = Tree::debian();
        let own = own();
        let report = tree.run(shell, &sealing(&Step::ALL, &own));
        assert!(report.complete && !report.shutdown_begun);
        assert_eq!(report.failed().count(), 0, "{report:?}");
        let names: Vec<_> = report.steps.iter().map(|step| step.name.as_str()).collect();
        // The build's own user goes last: it is who runs all of this.
        let expected: Vec<_> = Step::ALL
            .map(Step::name)
            .into_iter()
            .chain(["injected-users"])
            .collect();
        assert_eq!(names, expected);
        let without_work: Vec<_> = report
            .steps
            .iter()
            .filter(|step| step.state != StepState::Done)
            .map(|step| step.name.as_str())
            .collect();
        assert_eq!(without_work, ["fstrim"], "{report:?}");
        for path in [
            "root/.ssh/authorized_keys",
            "home/packer/.ssh",
            "home/debian/.bash_history",
            "root/.lesshst",
            "var/lib/cloud/instance",
            "var/lib/cloud/instances",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "var/log/apt/history.log.1.gz",
            "var/log/journal/0123/system.journal",
            "var/lib/apt/lists/mirror_Packages",
            "var/cache/apt/archives/a.deb",
            "var/cache/dnf/x/y",
            "var/lib/systemd/random-seed",
            "var/lib/dhcp/dhclient.eth0.leases",
            "etc/netplan/50-cloud-init.yaml",
            "tmp/a b",
            "var/tmp/.hidden",
            "var/tmp/outside",
        ] {
            assert!(tree.gone(path), "{shell:?}: {path}");
        }
        for path in [
            "etc/machine-id",
            "var/log/syslog",
            "var/log/empty",
            "var/lib/apt/lists/lock",
        ] {
            assert_eq!(tree.read(path).as_deref(), Some(""), "{shell:?}: {path}");
        }
        let link = std::fs::read_link(tree.at("var/lib/dbus/machine-id")).unwrap();
        assert_eq!(link, Path::new("/etc/machine-id"));
        let keys = tree.read("home/debian/.ssh/authorized_keys").unwrap();
        assert_eq!(
            keys,
            format!("# a comment\nfrom=\"10.0.0.0/8\" ssh-ed25519 {FOREIGN} ann@home with words\n")
        );
        let mode = tree
            .at("home/debian/.ssh/authorized_keys")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            tree.read("etc/shadow")
                .unwrap()
                .contains("\ndebian:*:1:0:99999:7:::\n")
        );
        assert_eq!(tree.read("etc/shadow-").unwrap(), "debian:*:1::::::\n");
        assert!(Path::new("/etc/hostname").exists());
        assert_eq!(
            report.remains,
            Remains {
                authorized_keys: vec![AuthorizedKey {
                    user: "debian".to_owned(),
                    path: "/home/debian/.ssh/authorized_keys".to_owned(),
                    kind: "ssh-ed25519".to_owned(),
                    comment: "ann@home with words".to_owned(),
                }],
                host_keys: Vec::new(),
                machine_id: MachineId::Empty,
                password_users: vec![
                    PasswordUser {
                        user: "ann".to_owned(),
                        empty: false
                    },
                    PasswordUser {
                        user: "eve".to_owned(),
                        empty: true
                    },
                ],
                cloud_init_instances: Vec::new(),
                ssh_password_login: PasswordLogin::No,
            },
            "{shell:?}"
        );
        // Once more there is nothing to do.
        let again = tree.run(shell, &sealing(&Step::ALL, &own));
        assert!(
            again
                .steps
                .iter()
                .all(|step| step.state == StepState::Absent),
            "{again:?}"
        );
    }
}

#[test]
fn host_keys_stay_where_nothing_makes_new_ones() {
    let own = Own::default();
    let steps = [Step::SshHostKeys];
    let tree = Tree::debian();
    // cloud-init takes the next start for one of the same machine.
    let report = tree.run(&["dash"], &sealing(&steps, &own));
    assert_eq!(report.steps[0].state, StepState::Kept);
    assert_eq!(report.remains.host_keys.len(), 1);
    assert_eq!(report.remains.cloud_init_instances, ["qimg-1234"]);
    assert_eq!(report.remains.machine_id, MachineId::Set);
    tree.file(
        "lib/systemd/system/ssh.service",
        "[Service]\n# ssh-keygen -A\nExecStart=/usr/sbin/sshd -D\n",
    );
    assert_eq!(
        tree.run(&["dash"], &sealing(&steps, &own)).steps[0].state,
        StepState::Kept
    );
    tree.file(
        "usr/lib/systemd/system/sshd-keygen.service",
        "[Service]\nExecStart=/usr/bin/ssh-keygen -A\n",
    );
    let report = tree.run(&["dash"], &sealing(&steps, &own));
    assert_eq!(report.steps[0].state, StepState::Done);
    assert!(report.steps[0].note.contains("sshd-keygen.service"));
    assert!(tree.gone("etc/ssh/ssh_host_ed25519_key"));
}

#[test]
fn what_the_build_brought_goes_and_the_rest_stays() {
    for shell in SHELLS {
        let own = own();
        let order = Order {
            uninject: true,
            ..sealing(&[], &own)
        };
        let tree = Tree::debian();
        let report = tree.run(shell, &order);
        assert_eq!(report.failed().count(), 0, "{report:?}");
        for path in [
            "var/lib/cloud/instance",
            "var/lib/cloud/instances/qimg-1234",
            "var/lib/cloud/data/instance-id",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "root/.ssh/authorized_keys",
            "home/packer",
        ] {
            assert!(tree.gone(path), "{shell:?}: {path}");
        }
        assert!(!tree.read("etc/passwd").unwrap().contains("packer"));
        assert!(!tree.read("etc/shadow").unwrap().contains("packer"));
        assert_eq!(tree.read("etc/group").unwrap(), "sudo:x:27:debian\n");
        let sudoers = tree.read("etc/sudoers.d/90-cloud-init-users").unwrap();
        assert!(sudoers.contains("debian ALL") && !sudoers.contains("packer"));
        for path in [
            "etc/netplan/50-cloud-init.yaml",
            "home/debian/.bash_history",
            "var/log/syslog",
            "var/lib/dbus/machine-id",
        ] {
            assert!(!tree.gone(path), "{shell:?}: {path}");
        }
        // Keys and data of others.
        let tree = Tree::debian();
        tree.file("var/lib/cloud/instances/i-other/x", "")
            .file("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAother");
        tree.run(shell, &order);
        assert!(
            tree.gone("var/lib/cloud/instance")
                && !tree.gone("var/lib/cloud/sem/config_scripts_per_once.once")
        );
        assert!(!tree.gone("etc/ssh/ssh_host_ed25519_key"));
    }
}

#[test]
fn an_empty_guest_is_no_trouble() {
    for shell in SHELLS {
        let tree = Tree::new();
        let own = own();
        for uninject in [false, true] {
            let order = Order {
                uninject,
                ..sealing(&Step::ALL, &own)
            };
            let report = tree.run(shell, &order);
            assert!(report.complete);
            assert!(
                report
                    .steps
                    .iter()
                    .all(|step| step.state == StepState::Absent),
                "{report:?}"
            );
            assert_eq!(report.remains.machine_id, MachineId::Absent);
        }
    }
}

#[test]
fn nothing_that_is_named_becomes_a_command() {
    let bad = |own: &Own| sealing(&Step::ALL, own).compose().unwrap_err();
    for name in ["", "a b", "x;reboot", "$(id)", "-x", "a/b", "root\nx"] {
        bad(&Own {
            password_users: vec![name.to_owned()],
            ..Own::default()
        });
        bad(&Own {
            created_users: vec![name.to_owned()],
            ..Own::default()
        });
    }
    for key in [
        "",
        "ssh-rsa",
        "ssh-rsa AAAA",
        "ssh-rsa AAAA';reboot;'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        bad(&Own {
            keys: vec![key.to_owned()],
            ..Own::default()
        });
    }
    for id in ["a/b", "..", "x y", "'"] {
        bad(&Own {
            instance_id: Some(id.to_owned()),
            ..Own::default()
        });
    }
    assert!(Step::named("logs").is_ok());
    let error = Step::named("log").unwrap_err();
    assert!(error.remedy().unwrap().contains("logs, fstrim"));
}

/// Runs [`seal`] with nothing to remove; what was asked of the guest.
fn through(
    guest: &LocalGuest,
    own: &Own,
    shutdown: Option<&str>,
) -> (Result<SealReport>, Vec<String>) {
    let kept = Kept::default();
    let reporter = Reporter::new("deb", Arc::new(Masks::none()), &kept);
    let way = Way {
        guest,
        timeout: Duration::from_secs(20),
        shutdown,
        reporter: &reporter,
        stop: &|| false,
    };
    (seal(&[], own, &way), guest.calls())
}

fn program(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn root_is_reached_by_whatever_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let guest = || {
        let mut guest = LocalGuest::new(directory.path());
        guest.path = format!("{}:/usr/bin:/bin", directory.path().display());
        guest
    };
    let (report, calls) = through(&guest(), &Own::default(), None);
    assert!(report.unwrap().complete);
    assert_eq!(calls[1], "exec sh -s");
    program(directory.path(), "id", "echo 1000");
    program(directory.path(), "sudo", "exit 1");
    program(directory.path(), "doas", "exit 1");
    let (error, calls) = through(&guest(), &Own::default(), None);
    assert!(error.unwrap_err().remedy().unwrap().contains("sudo"));
    assert_eq!(calls.len(), 1);
    program(directory.path(), "doas", "shift; exec \"$@\"");
    let (report, calls) = through(&guest(), &Own::default(), None);
    assert!(report.unwrap().complete);
    assert_eq!(calls[1], "exec doas -n sh -s");
    // A sudo that wants the password, and takes no byte more.
    let with_password = Own {
        sudo_password: Some("it's".to_owned()),
        ..Own::default()
    };
    program(directory.path(), "doas", "exit 1");
    program(
        directory.path(),
        "sudo",
        "[ \"$1\" = -S ] || exit 1; read -r p; [ \"$p\" = \"it's\" ] || exit 1; shift 4; exec \"$@\"",
    );
    let (report, calls) = through(&guest(), &with_password, None);
    assert!(report.unwrap().complete);
    assert!(!calls.concat().contains("it's"));
    program(directory.path(), "sudo", "shift; exec \"$@\"");
    let (report, calls) = through(&guest(), &with_password, Some("echo off >off; exit 3"));
    let report = report.unwrap();
    assert_eq!(calls[1], "exec sudo -n sh -s");
    assert_eq!(
        (report.shutdown_begun, report.shutdown_code),
        (true, Some(3))
    );
    assert!(directory.path().join("off").exists());
    // A guest that is gone before it has said that it is done.
    let (error, _) = through(
        &guest().answer("sh -s", Ok(Exit::Disconnected)),
        &Own::default(),
        None,
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Connection);
    // A shell that is killed by what it runs has done all the rest.
    let (report, _) = through(&guest(), &Own::default(), Some("kill -9 $PPID"));
    let report = report.unwrap();
    assert!(report.complete && report.shutdown_code.is_none());
}

#[test]
fn answers_of_a_hostile_guest_are_bounded() {
    let mut text = String::new();
    for _ in 0..5000 {
        text.push_str("qimg-seal step x done 99999999999999999999 \x1b[2J");
        text.push_str(&"y".repeat(3000));
        text.push('\n');
        text.push_str("qimg-seal remains authorized-key\ta\tb\tc\td\te\tf\n");
        text.push_str("qimg-seal remains nonsense\t\n qimg-seal end\nqimg-seal step\nqimg-seal \n");
    }
    let report = SealReport::parse(&text);
    assert!(!report.complete);
    assert_eq!(
        (report.steps.len(), report.remains.authorized_keys.len()),
        (500, 500)
    );
    assert_eq!(report.steps[0].count, 0);
    assert!(report.steps[0].note.chars().count() <= 1000 && !report.steps[0].note.contains('\x1b'));
    assert_eq!(
        report.remains.authorized_keys[0].comment,
        "d\te\tf".replace('\t', "")
    );
    let json = serde_json::to_value(&report.remains.authorized_keys[0]).unwrap();
    assert_eq!(json["kind"], "c");
}

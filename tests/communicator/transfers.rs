//! Files by scp, sftp and the shell, byte for byte, and what guests say against them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use qimg::ErrorKind;
use qimg::communicator::Communicator;
use qimg::communicator::ssh::{Notice, Options, Ssh, Transfer};

use crate::servers::{Dropbear, Ends, Sshd, connect, connect_noting, mode, noise};

/// A guest with all ways, one for each of them.
fn guests(sshd: &Sshd) -> Vec<(&'static str, Ssh)> {
    let mut options = sshd.options();
    options.transfer = Transfer::Scp;
    let scp = connect(options.clone());
    options.transfer = Transfer::Sftp;
    vec![("scp", scp), ("sftp", connect(options))]
}

/// A server whose commands find no scp, and which has no sftp.
fn bare() -> (Sshd, Options) {
    let sshd = Sshd::start("PermitUserEnvironment no\nSetEnv PATH=/nowhere");
    let config = fs::read_to_string(sshd.at("config")).unwrap();
    let config = config.replace("Subsystem sftp internal-sftp\n", "");
    fs::write(sshd.at("config"), config).unwrap();
    // The shell's own commands, `cat`, `chmod` and no more.
    let tools = sshd.at("tools");
    fs::create_dir(&tools).unwrap();
    for tool in ["cat", "chmod", "umask", "sh"] {
        let there = ["/bin", "/usr/bin"].map(|directory| Path::new(directory).join(tool));
        if let Some(there) = there.iter().find(|there| there.exists()) {
            std::os::unix::fs::symlink(there, tools.join(tool)).unwrap();
        }
    }
    let config = fs::read_to_string(sshd.at("config")).unwrap();
    let config = config.replace("PATH=/nowhere", &format!("PATH={}", tools.display()));
    fs::write(sshd.at("config"), config).unwrap();
    let options = sshd.options();
    (sshd, options)
}

fn round_trip(name: &str, guest: &Ssh, directory: &Path) {
    let names = [
        "plain",
        "with space",
        "it's",
        "-rf",
        "$HOME `id` \"x\" \\ ;&|<>*?[a]",
        "ünïcödé",
        "~",
    ];
    for file in names {
        let path = directory.join(file);
        let to = path.to_str().unwrap();
        let bytes = noise(1000);
        guest.upload(&mut &bytes[..], 1000, to, 0o640).unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "{name}: {file}");
        assert_eq!(mode(&path), 0o640, "{name}: {file}");
        let mut got = Vec::new();
        guest.download(to, &mut got).unwrap();
        assert!(got == bytes, "{name}: {file}");
    }
    for (length, bits) in [
        (0, 0o600),
        (1, 0o4755),
        (32_768, 0o777),
        (10_000_001, 0o444),
    ] {
        let path = directory.join(format!("{length} bytes"));
        let to = path.to_str().unwrap();
        let bytes = noise(length);
        guest
            .upload(&mut &bytes[..], length as u64, to, bits)
            .unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "{name}: {length}");
        assert_eq!(mode(&path), bits, "{name}: {length}");
        let mut got = Vec::new();
        guest.download(to, &mut got).unwrap();
        assert!(got == bytes, "{name}: {length}");
    }
    // What is there is replaced, also by something shorter.
    let path = directory.join("plain");
    let to = path.to_str().unwrap();
    guest.upload(&mut &b"short"[..], 5, to, 0o600).unwrap();
    assert_eq!(
        (fs::read(&path).unwrap(), mode(&path)),
        (b"short".to_vec(), 0o600)
    );
}

#[test]
fn files_go_both_ways_byte_for_byte() {
    let sshd = Sshd::start("");
    for (name, guest) in guests(&sshd) {
        let directory = sshd.at(name);
        fs::create_dir(&directory).unwrap();
        round_trip(name, &guest, &directory);
    }
}

#[test]
fn an_sftp_server_is_kept_and_replaced_when_it_ends() {
    let sshd = Sshd::start("");
    let config = fs::read_to_string(sshd.at("config")).unwrap();
    let config = config.replace("internal-sftp", "/usr/lib/openssh/sftp-server");
    fs::write(sshd.at("config"), config).unwrap();
    let mut options = sshd.options();
    options.transfer = Transfer::Sftp;
    let (guest, notices) = connect_noting(options);
    let to = sshd.at("file");
    let send = || {
        guest
            .upload(&mut &b"bytes"[..], 5, to.to_str().unwrap(), 0o600)
            .unwrap();
        let (_, out, _) = crate::servers::output(&guest, "pgrep -P $PPID sftp-server");
        out
    };
    let first = send();
    assert_eq!((first.len(), &send()), (1, &first));
    let kill = format!("kill {}", first[0]);
    crate::servers::output(&guest, &kill);
    let second = send();
    assert!(second.len() == 1 && second != first);
    guest.disconnect();
    assert_eq!(send().len(), 1);
    assert!(notices.lock().unwrap().is_empty());
}

#[test]
fn a_guest_with_nothing_but_a_shell_takes_files_too() {
    let (sshd, mut options) = bare();
    for transfer in [Transfer::Scp, Transfer::Sftp] {
        options.transfer = transfer;
        let (guest, notices) = connect_noting(options.clone());
        let directory = sshd.at(&format!("{transfer:?}"));
        fs::create_dir(&directory).unwrap();
        round_trip("shell", &guest, &directory);
        // Each missing way is found out once.
        let notices = notices.lock().unwrap();
        let used: Vec<_> = notices
            .iter()
            .map(|notice| match notice {
                Notice::TransferReplaced { missing, used, .. } => (*missing, *used),
                notice => panic!("{notice:?}"),
            })
            .collect();
        assert_eq!(used.len(), 2, "{notices:?}");
        assert_eq!(used[1].1, "shell");
    }
}

#[test]
fn dropbear_takes_files() {
    let sshd = Sshd::start("");
    let dropbear = Dropbear::start(&sshd);
    let options = dropbear.options(&sshd);
    round_trip("dropbear", &connect(options), dropbear.directory.path());
}

#[test]
fn guests_that_talk_by_themselves_take_files_all_the_same() {
    // As a .bashrc does that prints something.
    let sshd = Sshd::start("ForceCommand echo 'Welcome!'; eval \"$SSH_ORIGINAL_COMMAND\"");
    let config = fs::read_to_string(sshd.at("config")).unwrap();
    let config = config.replace("internal-sftp", "/bin/sh -c 'echo Welcome; exit 1'");
    fs::write(sshd.at("config"), config).unwrap();
    let (guest, notices) = connect_noting(sshd.options());
    let to = sshd.at("file");
    guest
        .upload(&mut &b"bytes"[..], 5, to.to_str().unwrap(), 0o600)
        .unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"bytes");
    let mut got = Vec::new();
    guest.download(to.to_str().unwrap(), &mut got).unwrap();
    assert_eq!(got, b"bytes");
    let notices = format!("{:?}", notices.lock().unwrap());
    assert!(notices.contains("Welcome"), "{notices}");
}

#[test]
fn what_the_guest_says_against_a_file_is_passed_on() {
    let sshd = Sshd::start("");
    let (bare_sshd, bare_options) = bare();
    let mut guests = guests(&sshd);
    guests.push(("shell", connect(bare_options)));
    for (name, guest) in &guests {
        for (to, words) in [
            ("/nowhere/at/all", "o such file"),
            ("/nowhere", ""),
            ("/proc/version", ""),
            (sshd.directory.path().to_str().unwrap(), ""),
            ("/dev/full", "o space left"),
        ] {
            if to == "/nowhere" {
                continue;
            }
            let error = guest
                .upload(&mut &noise(100_000)[..], 100_000, to, 0o600)
                .unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Guest, "{name} {to}: {text}");
            assert!(text.contains(to), "{name} {to}: {text}");
            // OpenSSH's sftp server has no word but `Failure` for this.
            let known = *name != "sftp" || to != "/dev/full";
            assert!(!known || text.contains(words), "{name} {to}: {text}");
        }
        for from in ["/nowhere", "/etc"] {
            let mut got = Vec::new();
            let error = guest.download(from, &mut got).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Guest, "{name} {from}: {error}");
            assert!(error.to_string().contains(from), "{name}: {error}");
            assert!(got.is_empty());
        }
        // All that is no reason to lose the connection.
        let to = sshd.at("after");
        guest
            .upload(&mut &b"x"[..], 1, to.to_str().unwrap(), 0o600)
            .unwrap();
    }
    drop(bare_sshd);
}

#[test]
fn a_source_that_ends_early_is_an_error() {
    let sshd = Sshd::start("");
    let (_bare_sshd, bare_options) = bare();
    let mut guests = guests(&sshd);
    guests.push(("shell", connect(bare_options)));
    for (name, guest) in &guests {
        let to = sshd.at("early");
        let error = guest
            .upload(&mut Ends(70_000), 100_000, to.to_str().unwrap(), 0o600)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{name}");
        assert!(
            error.to_string().contains("70000 of 100000"),
            "{name}: {error}"
        );
        guest
            .upload(&mut &b"x"[..], 1, to.to_str().unwrap(), 0o600)
            .unwrap();
    }
}

#[test]
fn a_target_that_fails_ends_a_download() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sshd = Sshd::start("");
    fs::write(sshd.at("file"), noise(1_000_000)).unwrap();
    for (name, guest) in guests(&sshd) {
        let from = sshd.at("file");
        let error = guest
            .download(from.to_str().unwrap(), &mut Full)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{name}: {error}");
        let mut got = Vec::new();
        guest.download(from.to_str().unwrap(), &mut got).unwrap();
        assert_eq!(got.len(), 1_000_000);
    }
}

#[test]
fn names_that_are_none_are_refused_here() {
    let sshd = Sshd::start("");
    for (name, guest) in guests(&sshd) {
        for to in ["/tmp/", "", "/tmp/..", "a\0b"] {
            let error = guest.upload(&mut &b"x"[..], 1, to, 0o600).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Usage | ErrorKind::Guest),
                "{name} {to:?}: {error}"
            );
        }
        // Line breaks are part of names, whatever the way makes of them.
        let to = sshd.at("a\nb");
        guest
            .upload(&mut &b"x"[..], 1, to.to_str().unwrap(), 0o600)
            .unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"x", "{name}");
        fs::remove_file(&to).unwrap();
    }
}

#[test]
fn paths_may_begin_at_home() {
    let sshd = Sshd::start("");
    let home = std::env::var("HOME").unwrap();
    for (name, guest) in guests(&sshd) {
        let file = format!(".qimg-test-{}-{name}", std::process::id());
        let to = format!("~/{file}");
        guest.upload(&mut &b"home"[..], 4, &to, 0o600).unwrap();
        let mut got = Vec::new();
        guest.download(&to, &mut got).unwrap();
        let path = Path::new(&home).join(file);
        let there = fs::read(&path);
        let _ = fs::remove_file(&path);
        assert_eq!(
            (there.unwrap(), got),
            (b"home".to_vec(), b"home".to_vec()),
            "{name}"
        );
    }
}

#[test]
fn a_file_that_may_not_be_read_stays_unread() {
    if !nix::unistd::geteuid().is_root() {
        let sshd = Sshd::start("");
        let path = sshd.at("secret");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        for (name, guest) in guests(&sshd) {
            let error = guest
                .download(path.to_str().unwrap(), &mut Vec::new())
                .unwrap_err();
            assert!(
                error.to_string().contains("ermission denied"),
                "{name}: {error}"
            );
        }
    }
}

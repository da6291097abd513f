//! Machines to look around in: those of images, and those that failed builds left.

use crate::world::{World, small};

#[test]
fn a_machine_is_entered_listed_and_ended_and_its_image_is_as_before() {
    let world = World::new();
    let base = small().join("small.qcow2");
    std::fs::copy(base, world.at("disk.qcow2")).unwrap();
    let before = std::fs::read(world.at("disk.qcow2")).unwrap();
    let said = world.qimg(&[
        "run",
        "--detach",
        "--json",
        "--accelerator",
        "tcg",
        "--memory",
        "256M",
        "disk.qcow2",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let details: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(details["ready"], true, "{details}");
    for name in [
        "run", "host", "port", "user", "key", "pid", "qemu-pid", "console",
    ] {
        assert!(!details[name].is_null(), "{name}: {details}");
    }
    let key = details["key"].as_str().unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = world.qimg(&["ps"]);
    assert!(
        listed.out.contains("runs") && listed.out.contains("disk.qcow2"),
        "{}",
        listed.out
    );
    let said = world.qimg(&[
        "ssh",
        "--",
        "echo in as $(id -un); echo x > /root/x; exit 7",
    ]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(7), "in as root"),
        "{}",
        said.err
    );
    let said = world.qimg(&["kill"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(world.qimg(&["ps", "--all"]).out.is_empty());
    assert!(!std::path::Path::new(key).exists());
    let process = details["qemu-pid"].as_u64().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    assert!(std::fs::read(world.at("disk.qcow2")).unwrap() == before);
    let said = world.qimg(&["kill"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("no machine runs"), "{}", said.err);
}

#[test]
fn the_machine_of_a_failed_build_is_started_again_on_its_disk() {
    let world = World::new();
    world.template(
        "web",
        "steps = false",
        "[[provision]]\nshell = \"echo made > /root/made; sync; exit 3\"\n",
    );
    let said = world.qimg(&["build", "--keep", "web.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.out);
    assert!(said.out.contains("The machine stays in"), "{}", said.out);
    let listed = world.qimg(&["ps", "--all"]);
    assert!(
        listed.out.contains("failed") && listed.out.contains("web.toml"),
        "{}",
        listed.out
    );
    assert!(world.qimg(&["ps"]).out.is_empty());
    let all: serde_json::Value =
        serde_json::from_str(&world.qimg(&["ps", "--all", "--json"]).out).unwrap();
    let console = std::path::PathBuf::from(all[0]["console"].as_str().unwrap());
    let directory = console.parent().unwrap();
    for name in [
        "console.log",
        "screen.png",
        "qemu-command",
        "kept-disk-0.qcow2",
        "run.json",
    ] {
        assert!(directory.join(name).exists(), "{name}");
    }
    // What is changed there is there the next time.
    let said = world.qimg(&[
        "ssh",
        "web",
        "--",
        "cat /root/made; echo again > /root/again; sync",
    ]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), "made"),
        "{}",
        said.err
    );
    let said = world.qimg(&["ssh", "web", "--", "cat /root/again"]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), "again"),
        "{}",
        said.err
    );
}

/// The machine of a build that failed, as `qimg ps` tells of it, and the directory where it was kept.
fn kept(world: &World) -> (serde_json::Value, std::path::PathBuf) {
    let all: serde_json::Value =
        serde_json::from_str(&world.qimg(&["ps", "--all", "--json"]).out).unwrap();
    let console = std::path::PathBuf::from(all[0]["console"].as_str().unwrap());
    (all[0].clone(), console.parent().unwrap().to_owned())
}

/// Nobody types the password: neither while the build runs, nor when its machine is started again.
#[test]
fn a_machine_that_lets_in_by_a_password_alone_is_entered_by_ssh() {
    let world = World::new();
    let visit = format!(
        "[[provision]]\nlocal = \"{} ssh -- 'echo visited > /root/visited; sync'; exit 3\"\n",
        env!("CARGO_BIN_EXE_qimg")
    );
    world.template("web", "steps = false", &visit);
    world.change(
        "web",
        "root=/dev/vda1",
        "root=/dev/vda1 small.password=sesame-one",
    );
    world.change(
        "web",
        "username = \"root\"",
        "username = \"root\"\npassword = \"sesame-one\"",
    );
    let said = world.qimg(&["build", "--keep", "web.toml"]);
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    assert!(!said.out.contains("sesame-one"), "{}", said.out);
    let (run, directory) = kept(&world);
    assert!(!run.to_string().contains("sesame-one"), "{run}");
    let said = world.qimg(&["ssh", "web", "--", "id -un; cat /root/visited"]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), "root\nvisited"),
        "{}",
        said.err
    );
    use std::os::unix::fs::PermissionsExt;
    let mut secret = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let holds = |bytes: Vec<u8>| bytes.windows(10).any(|part| part == b"sesame-one");
        // The guest's disk and console hold what the guest writes there.
        let ours =
            !path.ends_with("console.log") && path.extension().is_none_or(|end| end != "qcow2");
        if path.is_file() && ours && std::fs::read(&path).is_ok_and(holds) {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path:?}");
            secret.push(path.file_name().unwrap().to_owned());
        }
    }
    secret.sort();
    assert_eq!(
        secret,
        [
            "kept-password",
            "qemu-command",
            "qemu-command-of-build",
            "run.json"
        ]
    );
}

/// The names of disks begin alike; and what the guest wrote last, QEMU may have in memory only.
#[test]
fn a_machine_with_further_disks_and_a_tpm_is_started_again_on_all_of_them() {
    let world = World::new();
    world.template(
        "web",
        "steps = false",
        "[disk]\nadditional = [\"16M\", \"16M\"]\n\
         [[provision]]\nshell = \"echo second > /dev/vdb; echo third > /dev/vdc; sync; exit 3\"\n",
    );
    world.change("web", "cpus = 1", "cpus = 1\ntpm = true");
    // Beside a TPM a kernel that QEMU starts finds no ACPI, and so hears no power button.
    world.boots_by_itself("web");
    let said = world.qimg(&["build", "--keep", "web.toml"]);
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    let (_, directory) = kept(&world);
    for name in ["kept-disk-1.qcow2", "kept-disk-2.qcow2"] {
        assert!(directory.join(name).exists(), "{name}");
    }
    let command = std::fs::read_to_string(directory.join("qemu-command")).unwrap();
    assert!(command.contains("swtpm socket"), "{command}");
    let said = world.qimg(&[
        "ssh",
        "web",
        "--",
        "dd if=/dev/vdb bs=7 count=1; dd if=/dev/vdc bs=5 count=1",
    ]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), "second\nthird"),
        "{}",
        said.err
    );
}

/// Whoever is inside is put out: a visit ends as it is told to.
#[test]
fn a_visit_with_somebody_inside_is_ended() {
    let world = World::new();
    world.template(
        "web",
        "steps = false",
        "[[provision]]\nshell = \"sync; exit 3\"\n",
    );
    let said = world.qimg(&["build", "--keep", "web.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.out);
    let visit = world
        .command(&["ssh", "web", "--", "echo inside > /dev/console; sleep 600"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (_, directory) = kept(&world);
    let console = directory.join("again/console.log");
    let started = std::time::Instant::now();
    while !std::fs::read_to_string(&console).is_ok_and(|text| text.contains("inside")) {
        assert!(started.elapsed().as_secs() < 120);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let listed = world.qimg(&["ps"]);
    assert!(listed.out.contains("  runs  "), "{}", listed.out);
    let started = std::time::Instant::now();
    let said = world.qimg(&["kill", "web"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    let ended = visit.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(words.contains("again/console.log"), "{words}");
    assert_eq!(world.qimg(&["forget", "web"]).code, Some(0));
}

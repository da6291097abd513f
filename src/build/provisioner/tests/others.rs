//! Restarts, and programs of others.

use std::os::unix::fs::PermissionsExt;

use super::super::custom::{Given, Made, post_process};
use super::*;

fn reboot(command: &str, timeout: Option<Duration>) -> Provisioner {
    provisioner(Action::Reboot {
        command: Text(command.to_owned()),
        timeout,
    })
}

/// A guest whose boot id is in a file.
fn with_boot_id(world: &World) -> LocalGuest {
    let file = world.directory.path().join("boot_id");
    std::fs::write(&file, "one\n").unwrap();
    let programs = world.directory.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let cat = programs.join("cat");
    let script = format!("#!/bin/sh\nexec /bin/cat {}\n", file.display());
    std::fs::write(&cat, script).unwrap();
    std::fs::set_permissions(&cat, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut guest = world.guest();
    guest.path = format!("{}:/usr/bin:/bin", programs.display());
    guest
}

#[test]
fn a_restart_is_over_when_the_boot_id_is_another() {
    let world = World::new();
    let guest = with_boot_id(&world);
    // It answers twice while it goes down, then not at all, then again.
    let command = "(sleep 1; echo two >boot_id) >/dev/null 2>&1 &";
    let gone = || Err(Error::new(ErrorKind::Connection, "no banner"));
    let guest = guest
        .answer("probe", Ok(Exit::Code(0)))
        .answer("probe", gone());
    world.run(&guest, &reboot(command, None)).unwrap();
    assert!(guest.calls().iter().filter(|call| *call == "probe").count() > 2);
    assert!(
        world
            .kept
            .texts()
            .last()
            .unwrap()
            .starts_with("# The guest is back after")
    );
}

#[test]
fn a_guest_that_does_not_restart_is_told_from_one_that_does_not_come_back() {
    let world = World::new();
    let guest = with_boot_id(&world);
    let error = world
        .run(&guest, &reboot("true", Some(Duration::from_millis(800))))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        with_cause(&error).contains("has not restarted"),
        "{error:?}"
    );
    let mut guest = guest;
    for _ in 0..100 {
        guest = guest.answer("probe", Err(Error::new(ErrorKind::Connection, "no banner")));
    }
    let error = world
        .run(&guest, &reboot("true", Some(Duration::from_millis(800))))
        .unwrap_err();
    assert!(with_cause(&error).contains("no banner"), "{error:?}");
}

#[test]
fn who_may_not_restart_the_guest_is_told_soon() {
    let world = World::new();
    let guest = with_boot_id(&world);
    let started = Instant::now();
    let command = "echo not allowed >&2; exit 1";
    let error = world.run(&guest, &reboot(command, None)).unwrap_err();
    assert!(
        with_cause(&error).contains("(exit code 1): not allowed"),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(15));
}

fn install(world: &mut World, name: &str, script: &str) {
    let directory = world.directory.path().join("bin");
    std::fs::create_dir_all(&directory).unwrap();
    let program = directory.join(name);
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.display());
    world.host.environment = vec![("PATH".into(), path.into())];
}

fn custom(name: &str, options: &str) -> Provisioner {
    provisioner(Action::Custom {
        name: name.to_owned(),
        options: options.to_owned(),
    })
}

#[test]
fn programs_of_others_get_all_on_standard_input() {
    let mut world = World::new();
    install(
        &mut world,
        "qimg-provisioner-tell",
        "#!/bin/sh\ncat; echo; echo $# $PACKER_BUILD_NAME ${QIMG_RESULT-unset} >&2\n",
    );
    world.facts.connection = Some(Connection {
        host: "127.0.0.1".to_owned(),
        port: 40022,
        user: "debian".to_owned(),
        password: Some("hidden-value".to_owned()),
        private_key: Some("/run/key".into()),
        host_key: None,
    });
    let guest = world.guest();
    world
        .run(&guest, &custom("tell", r#"{"b": [1], "a": "x"}"#))
        .unwrap();
    let said = world.kept.texts();
    assert!(said.contains(&"0 deb unset".to_owned()), "{said:?}");
    let json: serde_json::Value =
        serde_json::from_str(said.iter().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "protocol": 1, "kind": "provisioner", "name": "tell",
            "build": {"name": "deb", "type": "qemu"},
            "options": {"a": "x", "b": [1]},
            "connection": {"host": "127.0.0.1", "port": 40022, "user": "debian", "password": "<sensitive>",
                "private-key": "/run/key", "host-key": null},
            "http": {"ip": "10.0.2.2", "port": 8123},
        })
    );
    install(&mut world, "qimg-provisioner-fail", "#!/bin/sh\nexit 7\n");
    let error = world.run(&guest, &custom("fail", "")).unwrap_err();
    assert!(with_cause(&error).contains("exit code 7"), "{error:?}");
    let error = world.run(&guest, &custom("none", "")).unwrap_err();
    assert!(
        error.remedy().unwrap().contains("qimg-provisioner-none"),
        "{error:?}"
    );
    world.run(&guest, &custom("../evil", "")).unwrap_err();
}

#[test]
fn post_processors_of_others_may_make_an_artifact() {
    let mut world = World::new();
    install(
        &mut world,
        "qimg-post-processor-none",
        "#!/bin/sh\ncat >/dev/null\n",
    );
    install(
        &mut world,
        "qimg-post-processor-some",
        "#!/bin/sh\ncat >&2\necho '{\"files\": [\"/etc/passwd\"], \"keep-input\": true}' >$QIMG_RESULT\n",
    );
    install(
        &mut world,
        "qimg-post-processor-bad",
        "#!/bin/sh\necho '{\"files\": 3}' >$QIMG_RESULT\n",
    );
    install(
        &mut world,
        "qimg-post-processor-lie",
        "#!/bin/sh\necho '{\"files\": [\"/no/such\"]}' >$QIMG_RESULT\n",
    );
    let given = Given {
        id: "VM".to_owned(),
        builder_id: "qimg".to_owned(),
        files: vec!["/x/disk.qcow2".into()],
    };
    world.with(None, |context| {
        assert_eq!(post_process("none", "{}", &given, context).unwrap(), None);
        let made = post_process("some", "{}", &given, context).unwrap();
        assert_eq!(
            made,
            Some(Made {
                files: vec!["/etc/passwd".into()],
                id: None,
                keep_input: Some(true)
            })
        );
        post_process("bad", "{}", &given, context).unwrap_err();
        let error = post_process("lie", "{}", &given, context).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
    });
    let said = world.kept.texts().concat();
    assert!(
        said.contains(r#""connection":null"#) && said.contains(r#""files":["/x/disk.qcow2"]"#),
        "{said}"
    );
}

#[test]
fn the_example_works_as_documented() {
    let mut world = World::new();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/plugins/qimg-provisioner-motd");
    install(
        &mut world,
        "qimg-provisioner-motd",
        &std::fs::read_to_string(example).unwrap(),
    );
    // In the place of ssh, which shows what it was called with and what it was told.
    install(&mut world, "ssh", "#!/bin/sh\necho \"$@\"; cat\n");
    world.facts.connection = Some(Connection {
        host: "127.0.0.1".to_owned(),
        port: 40022,
        user: "debian".to_owned(),
        password: None,
        private_key: Some("/run/key".into()),
        host_key: Some("ssh-ed25519 AAAAxyz".to_owned()),
    });
    world
        .run(
            &world.guest(),
            &custom("motd", r#"{"text": "Built today"}"#),
        )
        .unwrap();
    let said = world.kept.texts().join("\n");
    for part in [
        "-p 40022",
        "-i /run/key",
        "debian@127.0.0.1",
        "Built today",
        "StrictHostKeyChecking=yes",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

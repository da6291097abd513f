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

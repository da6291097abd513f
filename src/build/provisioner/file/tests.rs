use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::build::provisioner::tests::local_guest::LocalGuest;
use crate::build::provisioner::tests::{World, provisioner, texts};
use crate::build::provisioner::with_cause;
use crate::error::Result;
use crate::template::model::{Action, Direction, FileTransfer, Text};

fn transfer(direction: Direction, sources: &[&str], destination: &str) -> FileTransfer {
    FileTransfer {
        sources: texts(sources),
        content: None,
        destination: Text(destination.to_owned()),
        direction,
        generated: false,
    }
}

fn upload(world: &World, guest: &LocalGuest, sources: &[&str], to: &str) -> Result<()> {
    let transfer = transfer(Direction::Upload, sources, to);
    world.run(guest, &provisioner(Action::File(transfer)))
}

fn download(world: &World, guest: &LocalGuest, sources: &[&str], to: &str) -> Result<()> {
    let transfer = transfer(Direction::Download, sources, to);
    world.run(guest, &provisioner(Action::File(transfer)))
}

/// Files and directories below, with modes and contents.
fn tree(directory: &Path) -> Vec<String> {
    let output = std::process::Command::new("sh")
        .args(["-c", "find . -mindepth 1 -type d -printf '%P/ %m\\n' -o -type f -printf '%P %m ' -exec cat {} \\; | sort"])
        .current_dir(directory)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn sample(host: &Path) {
    write(&host.join("dir/a.sh"), "a", 0o755);
    write(&host.join("dir/sub/b c"), "b", 0o600);
    write(&host.join("one.txt"), "1", 0o640);
    write(&host.join("two.txt"), "2", 0o644);
    std::fs::create_dir(host.join("dir/empty")).unwrap();
    std::fs::set_permissions(host.join("dir/sub"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::set_permissions(
        host.join("dir/empty"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    std::os::unix::fs::symlink("a.sh", host.join("dir/link")).unwrap();
}

#[test]
fn files_go_where_they_are_told_to() {
    let world = World::new();
    let host = tempfile::tempdir().unwrap();
    sample(host.path());
    let at = |name: &str| host.path().join(name).to_str().unwrap().to_owned();
    let guest = world.guest();
    upload(&world, &guest, &[&at("one.txt")], "x").unwrap();
    std::fs::create_dir(world.directory.path().join("d")).unwrap();
    upload(&world, &guest, &[&at("*.txt")], "d/").unwrap();
    upload(&world, &guest, &[&at("two.txt")], "d").unwrap();
    let dir = tree(world.directory.path());
    assert_eq!(
        dir,
        ["d/ 755", "d/one.txt 640 1", "d/two.txt 644 2", "x 640 1"]
    );
    let error = upload(&world, &guest, &[&at("*.txt")], "new").unwrap_err();
    assert!(with_cause(&error).contains("2 files"), "{error:?}");
    let error = upload(&world, &guest, &[&at("*.none")], "d/").unwrap_err();
    assert!(with_cause(&error).contains("no file matches"), "{error:?}");
    let error = upload(&world, &guest, &[&at("none")], "d/").unwrap_err();
    assert!(with_cause(&error).contains("none"), "{error:?}");
    let mut content = transfer(Direction::Upload, &[], "text");
    content.content = Some(Text("some text".to_owned()));
    world
        .run(&guest, &provisioner(Action::File(content.clone())))
        .unwrap();
    assert_eq!(
        std::fs::read(world.directory.path().join("text")).unwrap(),
        b"some text"
    );
    content.destination = Text("d".to_owned());
    world
        .run(&guest, &provisioner(Action::File(content)))
        .unwrap_err();
}

#[test]
fn directories_follow_the_rule_of_the_slash() {
    let host = tempfile::tempdir().unwrap();
    sample(host.path());
    let source = host.path().join("dir").to_str().unwrap().to_owned();
    let below = [
        "a.sh 755 a",
        "empty/ 755",
        "link 755 a",
        "sub/ 750",
        "sub/b c 600 b",
    ];
    for with_tar in [true, false] {
        let world = World::new();
        let mut guest = world.guest();
        if !with_tar {
            let programs = tempfile::tempdir().unwrap().keep();
            for name in ["sh", "mkdir", "chmod", "cat"] {
                std::os::unix::fs::symlink(format!("/bin/{name}"), programs.join(name)).unwrap();
            }
            guest.path = programs.to_str().unwrap().to_owned();
            guest.shell = vec!["/bin/dash"];
        }
        let guest_dir = world.directory.path();
        for name in ["there", "contents"] {
            std::fs::create_dir(guest_dir.join(name)).unwrap();
        }
        upload(&world, &guest, &[&source], "there").unwrap();
        upload(&world, &guest, &[&format!("{source}/")], "contents").unwrap();
        upload(&world, &guest, &[&source], "new").unwrap();
        upload(&world, &guest, &[&format!("{source}/")], "newer/").unwrap();
        for (name, prefix) in [
            ("there", "dir/"),
            ("contents", ""),
            ("new", ""),
            ("newer", ""),
        ] {
            let found = tree(&guest_dir.join(name).join(prefix));
            let modes = |line: &str| match (with_tar, line) {
                // Without tar the modes of directories are the guest's.
                (false, "sub/ 750") => "sub/ 755".to_owned(),
                (_, line) => line.to_owned(),
            };
            let expected: Vec<_> = below.iter().map(|line| modes(line)).collect();
            assert_eq!(found, expected, "{name} {with_tar}");
        }
    }
}

#[test]
fn a_directory_within_itself_ends() {
    let world = World::new();
    let host = tempfile::tempdir().unwrap();
    sample(host.path());
    std::os::unix::fs::symlink("..", host.path().join("dir/sub/up")).unwrap();
    let source = host.path().join("dir").to_str().unwrap().to_owned();
    let error = upload(&world, &world.guest(), &[&source], "x").unwrap_err();
    assert!(with_cause(&error).contains("within itself"), "{error:?}");
}

#[test]
fn what_the_guest_cannot_unpack_is_told_in_its_words() {
    let world = World::new();
    let host = tempfile::tempdir().unwrap();
    sample(host.path());
    let source = host.path().join("dir").to_str().unwrap().to_owned();
    std::fs::write(world.directory.path().join("x"), "").unwrap();
    let error = upload(&world, &world.guest(), &[&format!("{source}/")], "x").unwrap_err();
    assert!(with_cause(&error).contains("x"), "{error:?}");
    std::fs::create_dir_all(world.directory.path().join("y/a.sh/full")).unwrap();
    let error = upload(&world, &world.guest(), &[&format!("{source}/")], "y").unwrap_err();
    assert!(with_cause(&error).contains("a.sh"), "{error:?}");
}

#[test]
fn downloads_land_where_they_are_told_to() {
    let world = World::new();
    let guest_dir = world.directory.path();
    sample(guest_dir);
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name).to_str().unwrap().to_owned();
    let guest = world.guest();
    download(&world, &guest, &["one.txt"], &at("deep/er/x")).unwrap();
    download(&world, &guest, &["*.txt"], &at("all/")).unwrap();
    download(&world, &guest, &["one.txt"], &at("all/two.txt")).unwrap();
    download(&world, &guest, &["dir"], &at("new")).unwrap();
    std::fs::create_dir(host.path().join("there")).unwrap();
    // Again, into what is there.
    for _ in 0..2 {
        download(&world, &guest, &["dir"], &at("there")).unwrap();
        download(&world, &guest, &["dir/"], &at("contents")).unwrap();
    }
    let below = [
        "a.sh 755 a",
        "empty/ 755",
        "link 755 a",
        "sub/ 755",
        "sub/b c 644 b",
    ];
    for name in ["new", "there/dir", "contents"] {
        assert_eq!(tree(&host.path().join(name)), below, "{name}");
    }
    assert_eq!(
        tree(&host.path().join("all")),
        ["one.txt 644 1", "two.txt 644 1"]
    );
    assert_eq!(tree(&host.path().join("deep")), ["er/ 755", "er/x 644 1"]);
    let error = download(&world, &guest, &["none"], &at("n")).unwrap_err();
    assert!(with_cause(&error).contains("none"), "{error:?}");
    assert!(!host.path().join("n").exists());
    download(&world, &guest, &["*.txt"], &at("new/one")).unwrap_err();
}

#[test]
fn a_hostile_guest_writes_nowhere_else() {
    let world = World::new();
    let programs = world.directory.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    // A listing that names what lies outside, and what leads there.
    let find = programs.join("find");
    let listing = r"d\0.\0f\0../escaped\0f\0/tmp/escaped\0f\0./a/../../escaped\0f\0./link/x\0d\0./..\0f\0./ok\0f\0\0";
    std::fs::write(&find, format!("#!/bin/sh\nprintf '{listing}'\n")).unwrap();
    std::fs::set_permissions(&find, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(world.directory.path().join("dir")).unwrap();
    std::fs::write(world.directory.path().join("dir/ok"), "ok").unwrap();
    std::fs::create_dir(world.directory.path().join("dir/link")).unwrap();
    std::fs::write(world.directory.path().join("dir/link/x"), "x").unwrap();
    let mut guest = world.guest();
    guest.path = format!("{}:/usr/bin:/bin", programs.display());
    let host = tempfile::tempdir().unwrap();
    let destination = host.path().join("in");
    std::fs::create_dir_all(&destination).unwrap();
    std::os::unix::fs::symlink("..", destination.join("link")).unwrap();
    let to = destination.to_str().unwrap();
    download(&world, &guest, &["dir/"], to).unwrap();
    assert!(
        world
            .kept
            .texts()
            .iter()
            .any(|text| text.contains("Not downloaded") && text.contains("link/x"))
    );
    let mut names: Vec<_> = std::fs::read_dir(host.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["in"]);
    assert!(destination.join("ok").is_file());
}

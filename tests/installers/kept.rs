//! What is kept of installations that fail: a machine that its disk starts, and no installer.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::shop::{Shop, append, cache};

/// For QEMU to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The one directory where a machine was kept.
fn kept(shop: &Shop, build: &str) -> PathBuf {
    let runs: Vec<PathBuf> = std::fs::read_dir(shop.runs())
        .unwrap()
        .map(|entry| entry.unwrap().path().join(build))
        .collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

fn read(path: &Path) -> String {
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{path:?}");
    std::fs::read_to_string(path).unwrap()
}

/// Starts the machine as a person would, and ends it by its monitor's key.
#[track_caller]
fn starts_by_hand(command: &Path) {
    let mut child = Command::new("sh")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = child.stdin.take().unwrap();
    let started = Instant::now();
    let status = loop {
        // One that has ended takes no keys.
        let _ = keys.write_all(b"\x01x").and_then(|()| keys.flush());
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(started.elapsed() < PATIENCE),
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    let mut words = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut words).unwrap();
    assert!(status.success(), "{words}");
}

#[test]
fn an_installation_from_a_cd_that_fails_is_kept_without_its_installer() {
    let shop = Shop::new();
    shop.write("installer.iso", vec![0; 1 << 20]);
    let text = "name = \"cd\"\n[base]\niso = \"installer.iso\"\nchecksum = \"none\"\n\
         [boot]\nwait = \"0s\"\ncommand = [\"<waitfor \\\"no such words\\\" 2s>\"]\n\
         [cd]\ncontent = { answers = \"x\" }\n[floppy]\ncontent = { answers = \"x\" }\n\
         [disk]\nsize = \"16M\"\nadditional = [\"16M\"]\n\
         [machine]\naccelerator = \"tcg\"\nmemory = \"64M\"\ntpm = true\n\
         [ssh]\nusername = \"root\"\npassword = \"sesame-one\"\n\
         [output]\ndirectory = \"output\"\n";
    let ended = shop.build("cd.toml", text, &["--keep"]);
    assert_eq!(ended.code, 2, "{}", ended.said);
    ended
        .has("The machine stays in")
        .has("it was never entered by SSH")
        .has("starts it from its disk and tries once more")
        .has_not("sesame-one");
    let directory = kept(&shop, "cd");
    let command = directory.join("qemu-command");
    let line = read(&command);
    assert!(line.contains("-boot c"), "{line}");
    for gone in ["once=d", "installer", "qimg-work"] {
        assert!(!line.contains(gone), "{gone}: {line}");
    }
    for name in ["kept-files.iso", "kept-floppy.img", "kept-password"] {
        let mode = directory
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let built = read(&directory.join("qemu-command-of-build"));
    assert!(built.contains("once=d"), "{built}");
    starts_by_hand(&command);
}

#[test]
fn an_installation_by_a_kernel_that_fails_does_not_begin_again_on_its_disk() {
    let shop = Shop::new();
    let at = cache();
    let text = format!(
        "name = \"auto\"\n[boot]\nkernel = {:?}\ninitrd = {:?}\nappend = \"{} small.ssh=off\"\n\
         wait = \"0s\"\ncommand = [\"<waitfor \\\"no such words\\\" 2s>\"]\n\
         [seed]\nhttp = true\nuser-data = \"#cloud-config\\nhostname: served\\n\"\n\
         [disk]\nsize = \"16M\"\n[machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\n\
         [ssh]\ncommunicator = \"none\"\n[output]\ndirectory = \"output\"\n",
        at.join("small/vmlinux"),
        at.join("small/initrd"),
        append(),
    );
    let ended = shop.build("auto.toml", &text, &["--keep"]);
    assert_eq!(ended.code, 2, "{}", ended.said);
    ended
        .has("there is no way in by SSH")
        .has("qemu-command` starts it")
        .has_not("qimg ssh");
    let directory = kept(&shop, "auto");
    let command = directory.join("qemu-command");
    let line = read(&command);
    for gone in ["-kernel", "-initrd", "-append", "-no-reboot", "http://"] {
        assert!(!line.contains(gone), "{gone}: {line}");
    }
    assert!(line.contains("kept-seed.img"), "{line}");
    assert!(read(&directory.join("qemu-command-of-build")).contains("-kernel"));
    starts_by_hand(&command);
    let ended = shop.qimg(&["ssh", "auto"]);
    assert_eq!(ended.code, 1, "{}", ended.said);
    ended
        .has("its template says of no way in by SSH")
        .has("qemu-command")
        .has_not("build with --keep");
}

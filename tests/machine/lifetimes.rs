//! Whatever ends qimg ends QEMU.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use qimg::machine::Accelerator;

use crate::small_guest::{arguments, is_gone, start, state_of, wait_until};

/// A process of its own that owns a guest, and the number of that guest's QEMU.
///
/// It is this test program once more, in [`owner`].
fn owned(directory: &std::path::Path) -> (Child, i32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetimes::owner", "--nocapture"])
        .env("QIMG_TEST_OWNER", directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("owned QEMU ")?.1.parse().ok())
        .expect("the owner tells of its QEMU");
    (child, id)
}

/// Only something to do when started by [`owned`].
#[test]
fn owner() {
    if std::env::var_os("QIMG_TEST_OWNER").is_none() {
        return;
    }
    let guest = start("small.hang=1");
    use std::io::Write;
    writeln!(std::io::stdout(), "owned QEMU {}", guest.running.id()).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn kill_9_of_the_owner_leaves_no_qemu() {
    let directory = tempfile::tempdir().unwrap();
    let (mut owner, qemu) = owned(directory.path());
    assert!(!is_gone(qemu));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("QEMU ends with its owner", Duration::from_secs(2), || {
        is_gone(qemu)
    });
}

#[test]
fn ctrl_c_on_the_terminal_does_not_reach_qemu() {
    let directory = tempfile::tempdir().unwrap();
    let (mut owner, qemu) = owned(directory.path());
    // What a terminal sends goes to a group of processes; the owner leads one here.
    let stat = std::fs::read_to_string(format!("/proc/{qemu}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (group, session) = (fields[2], fields[3]);
    assert_eq!(
        (group, session),
        (qemu.to_string().as_str(), qemu.to_string().as_str())
    );
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("QEMU ends with its owner", Duration::from_secs(2), || {
        is_gone(qemu)
    });
}

#[test]
fn a_dropped_machine_is_gone_and_reaped() {
    let guest = start("small.hang=1");
    let id = guest.running.id();
    drop(guest.running);
    assert_eq!(state_of(id), None);
    let mut names: Vec<String> = guest
        .directory
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "screen.png")
        .collect();
    names.sort();
    assert_eq!(names, ["console.log", "main.raw", "qemu.log"]);
}

#[test]
fn a_launcher_whose_parent_is_gone_starts_nothing() {
    // The parent that it is told of is not its own.
    let output = Command::new(env!("CARGO_BIN_EXE_qimg"))
        .args(["__supervised", "1", "/bin/echo", "started"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "qimg: the parent has ended\n"
    );
}

#[test]
fn a_wrapper_that_starts_qemu_as_a_child_leaves_none_when_dropped() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let wrapper = directory.path().join("qemu-wrapper");
    let pid = directory.path().join("pid");
    let text = format!(
        "#!/bin/bash\nqemu-system-x86_64 \"$@\" <&0 &\necho $! >{0}.new; mv {0}.new {0}\nwait\n",
        pid.display()
    );
    std::fs::write(&wrapper, text).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let launcher = crate::small_guest::launcher();
    let start = qimg::machine::Start {
        launcher: &launcher,
        qemu: &wrapper,
        arguments: arguments(directory.path(), "small.hang=1", &[], &Accelerator::Tcg),
        run_directory: directory.path(),
        vnc_password: None,
    };
    let running = qimg::machine::Running::start(&start, crate::small_guest::NEVER).unwrap();
    let qemu: i32 = std::fs::read_to_string(&pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(!is_gone(qemu) && qemu != running.id());
    drop(running);
    wait_until("the wrapper's QEMU is gone", Duration::from_secs(2), || {
        is_gone(qemu)
    });
}

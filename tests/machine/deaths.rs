//! A machine that is lost says so within a second, and why.

use std::time::{Duration, Instant};

use qimg::machine::console::Sign;
use qimg::machine::{Accelerator, Death, Ended, Running, Start};

use crate::small_guest::{
    NEVER, arguments, is_gone, launcher, qemu, signal, start, start_with, wait_until,
};

#[test]
fn qemu_that_is_killed_mid_run_is_noticed_within_a_second() {
    let guest = start("");
    guest.wait_until_up();
    let killed = Instant::now();
    signal(guest.running.id(), "KILL");
    let death = guest.running.wait(Duration::from_secs(5), NEVER).unwrap();
    assert!(
        killed.elapsed() < Duration::from_secs(1),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(death, Some(Death::Ended(Ended::Signal(9))));
    let report = guest.running.report();
    assert!(
        report.console.iter().any(|line| line.contains("small: up")),
        "{report:#?}"
    );
    assert!(is_gone(guest.running.id()));
}

#[test]
fn a_panic_is_noticed_at_once_by_the_device() {
    let guest = start("small.panic=1");
    let death = guest.running.wait(Duration::from_secs(120), NEVER).unwrap();
    assert_eq!(
        death,
        Some(Death::GuestPanicked),
        "{:#?}",
        guest.running.report()
    );
    wait_until("the console tells, too", Duration::from_secs(5), || {
        guest
            .running
            .signs()
            .iter()
            .any(|seen| seen.sign == Sign::KernelPanic)
    });
    // The machine stands still, to be looked at.
    wait_until("QEMU stops it", Duration::from_secs(5), || {
        guest.running.status().unwrap() == "guest-panicked"
    });
    let report = guest.running.report();
    // On a busy host more lines follow than a report has: of what was interrupted, too.
    assert!(
        guest
            .running
            .console()
            .tail(500)
            .iter()
            .any(|line| line.contains("Kernel panic")),
        "{report:#?}"
    );
    assert!(report.screenshot.is_some());
}

#[test]
fn a_panic_is_noticed_at_once_by_the_console_alone() {
    let guest = start_with(
        "small.panic=1 small.pvpanic=off",
        &[("-device", "virtio-net,netdev=user.0")],
        &Accelerator::Tcg,
    );
    let death = guest.running.wait(Duration::from_secs(120), NEVER).unwrap();
    assert_eq!(
        death,
        Some(Death::GuestPanicked),
        "{:#?}",
        guest.running.report()
    );
}

#[test]
fn a_guest_that_waits_for_repair_is_noticed() {
    let guest = start("small.emergency=1");
    wait_until("emergency mode is seen", Duration::from_secs(120), || {
        !guest.running.signs().is_empty()
    });
    assert_eq!(guest.running.signs()[0].sign, Sign::EmergencyMode);
    // Not yet the end of it: somebody may know better.
    assert_eq!(guest.running.death(), None);
}

#[test]
fn a_machine_without_a_system_is_noticed_by_its_screen() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = arguments(directory.path(), "", &[], &Accelerator::Tcg);
    for switch in ["-kernel", "-initrd", "-append"] {
        let at = all.iter().position(|word| word == switch).unwrap();
        all.drain(at..at + 2);
    }
    // Without a network card there is no boot from the network to be waited for.
    all.extend(["-boot".to_owned(), "strict=on".to_owned()]);
    let (launcher, qemu) = (launcher(), qemu());
    let start = Start {
        launcher: &launcher,
        qemu: &qemu,
        arguments: all,
        run_directory: directory.path(),
        vnc_password: None,
    };
    let running = Running::start(&start, NEVER).unwrap();
    wait_until("the firmware gives up", Duration::from_secs(60), || {
        running
            .signs()
            .iter()
            .any(|seen| seen.sign == Sign::NoBootableDevice)
    });
    assert!(
        running
            .report()
            .screen
            .iter()
            .any(|line| line.contains("No bootable device"))
    );
}

#[test]
fn qemu_that_does_not_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = arguments(directory.path(), "", &[], &Accelerator::Tcg);
    all.extend(["-device".to_owned(), "no-such-device".to_owned()]);
    let (launcher, qemu) = (launcher(), qemu());
    let start = Start {
        launcher: &launcher,
        qemu: &qemu,
        arguments: all,
        run_directory: directory.path(),
        vnc_password: None,
    };
    let error = Running::start(&start, NEVER).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("'no-such-device' is not a valid device model name"),
        "{error}"
    );
}

#[test]
fn a_qemu_that_is_not_there_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let launcher = launcher();
    let start = Start {
        launcher: &launcher,
        qemu: std::path::Path::new("/nowhere/qemu"),
        arguments: Vec::new(),
        run_directory: directory.path(),
        vnc_password: None,
    };
    let error = Running::start(&start, NEVER).unwrap_err();
    assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
}

#[test]
fn a_guest_that_powers_itself_off_is_told_from_a_crash() {
    let guest = start("");
    guest.wait_for("small login:");
    // There is no password; the kernel takes the key for it.
    guest
        .running
        .qmp()
        .execute(
            "system_powerdown",
            &serde_json::Value::Null,
            Duration::from_secs(5),
        )
        .unwrap();
    let death = guest.running.wait(Duration::from_secs(60), NEVER).unwrap();
    assert_eq!(
        death,
        Some(Death::PoweredOff),
        "{:#?}",
        guest.running.report()
    );
}

//! KVM is taken where guests run in it, and left where they do not.

use std::path::Path;
use std::time::{Duration, Instant};

use qimg::machine::accelerator::{Host, Outcome, choose, probe};
use qimg::machine::{Accelerator, Death, Running, Start, Why};

use crate::small_guest::{NEVER, arguments, launcher, qemu};

#[test]
fn the_probe_runs_where_guests_run() {
    let limit = Duration::from_secs(60);
    let outcome = probe(&qemu(), &Accelerator::Tcg, "max", &launcher(), limit, NEVER).unwrap();
    assert_eq!(outcome, Outcome::Runs);
}

#[test]
fn a_probe_that_gets_nowhere_ends_at_its_limit() {
    // Stopped, QEMU says nothing.
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("qemu-system-x86_64");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 100\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = Instant::now();
    let limit = Duration::from_millis(500);
    let outcome = probe(
        &program,
        &Accelerator::Kvm,
        "host",
        &launcher(),
        limit,
        NEVER,
    )
    .unwrap();
    assert_eq!(outcome, Outcome::Hangs(limit));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn auto_falls_back_to_tcg_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Host {
        kvm: directory.path().join("kvm"),
        ..Host::default()
    };
    let choice = choose(None, None, &qemu(), &launcher(), &missing, NEVER).unwrap();
    assert_eq!(
        (choice.accelerator, choice.why),
        (Accelerator::Tcg, Why::Missing)
    );

    let here = choose(
        Some("auto"),
        None,
        &qemu(),
        &launcher(),
        &Host::default(),
        NEVER,
    )
    .unwrap();
    match here.why {
        Why::GuestsRun => assert_eq!(here.accelerator, Accelerator::Kvm),
        why => {
            assert_eq!(here.accelerator, Accelerator::Tcg);
            assert!(why.to_string().contains("/dev/kvm"), "{why}");
        }
    }

    let other = choose(
        None,
        None,
        Path::new("/usr/bin/qemu-system-s390x"),
        &launcher(),
        &Host::default(),
        NEVER,
    )
    .unwrap();
    assert_eq!(
        (other.accelerator, other.why),
        (Accelerator::Tcg, Why::OtherArchitecture)
    );

    let asked = choose(Some("kvm"), None, &qemu(), &launcher(), &missing, NEVER).unwrap();
    assert_eq!(
        (asked.accelerator, asked.why),
        (Accelerator::Kvm, Why::Asked)
    );
}

/// A QEMU whose KVM gives up under a running guest: the real one in TCG, whose words and state are those of such a one.
#[test]
fn a_kvm_that_gives_up_during_the_boot_is_noticed_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("qemu-system-x86_64");
    let text = "#!/bin/sh\n(sleep 2; echo 'KVM internal error. Suberror: 1' >&2) &\nexec qemu-system-x86_64 \"$@\"\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let launcher = launcher();
    let start = Start {
        launcher: &launcher,
        qemu: &program,
        arguments: arguments(directory.path(), "small.hang=1", &[], &Accelerator::Tcg),
        run_directory: directory.path(),
        vnc_password: None,
    };
    let running = Running::start(&start, NEVER).unwrap();
    let death = running.wait(Duration::from_secs(10), NEVER).unwrap();
    assert_eq!(death, Some(Death::KvmInternalError));
}

/// The real thing, on a machine where `/dev/kvm` opens and guests die in it: nothing to see on others.
#[test]
fn a_guest_that_really_dies_in_kvm_is_noticed_at_once() {
    let here = choose(None, None, &qemu(), &launcher(), &Host::default(), NEVER).unwrap();
    if !matches!(here.why, Why::GuestsDie(_) | Why::GuestsHang(_)) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let firmware = [("-bios", "/usr/share/ovmf/OVMF.fd"), ("-cpu", "qemu64")];
    let launcher = launcher();
    let start = Start {
        launcher: &launcher,
        qemu: &qemu(),
        arguments: arguments(directory.path(), "", &firmware, &Accelerator::Kvm),
        run_directory: directory.path(),
        vnc_password: None,
    };
    let started = Instant::now();
    let death = match Running::start(&start, NEVER) {
        Ok(running) => running.wait(Duration::from_secs(20), NEVER).unwrap(),
        // It may be over before QEMU has said a word.
        Err(error) => {
            assert!(error.to_string().contains("KVM internal error"), "{error}");
            return;
        }
    };
    assert_eq!(death, Some(Death::KvmInternalError));
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}

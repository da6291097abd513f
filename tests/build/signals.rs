//! Ctrl-C, at each stage: the build ends soon, with the exit code that shells expect, and nothing is left.

use std::time::{Duration, Instant};

use crate::workshop::{Native, Workshop, is_nightly};

/// From the signal to the end.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn interrupted(workshop: &Workshop, template: &Native, at: &str, signal: &str) {
    let mut building = workshop.start(template, &[]);
    building.wait_for(at);
    let sent = Instant::now();
    building.signal(signal);
    let ended = building.end();
    assert!(sent.elapsed() < SOON, "{at}: {:?}", sent.elapsed());
    let code = if signal == "INT" { 130 } else { 143 };
    ended.failed(code, &["was interrupted"]);
    assert!(!workshop.path("output").exists(), "{at}");
    workshop.assert_tidy();
}

#[test]
fn before_the_guest_answers() {
    let workshop = Workshop::new();
    let silent = Native::default().told("small.net=off");
    interrupted(&workshop, &silent, "Getting the base image", "INT");
    interrupted(&workshop, &silent, "Disk: 128 MiB", "TERM");
    interrupted(&workshop, &silent, "the port accepts, no banner", "INT");
    let mut auto = silent;
    auto.rest = "[build.other.machine]\naccelerator = \"auto\"\n".to_owned();
    interrupted(&workshop, &auto, "Getting the base image", "TERM");
}

#[test]
fn while_the_guest_configures_itself() {
    let workshop = Workshop::new();
    let template = Native::default().told("small.cloudinit=stuck");
    interrupted(
        &workshop,
        &template,
        "cloud-init: its stage modules-final",
        "INT",
    );
}

#[test]
fn while_the_guest_is_provisioned() {
    let workshop = Workshop::new();
    let template = Native::with("[[provision]]\nshell = \"echo begun; sleep 1000\"\n");
    interrupted(&workshop, &template, ": begun", "TERM");
}

#[test]
fn while_the_guest_goes_down() {
    if !is_nightly() {
        return;
    }
    let workshop = Workshop::new();
    let template = Native::default().told("small.poweroff=ignore");
    interrupted(&workshop, &template, "Shutting the guest down", "INT");
}

#[test]
fn while_the_image_is_made() {
    let workshop = Workshop::new();
    let template = Native {
        output: "compression = \"zstd\"\nlevel = 22\n".to_owned(),
        ..Native::default()
    };
    interrupted(&workshop, &template, "Making disk.qcow2", "INT");
}

#[test]
fn while_the_host_works() {
    let workshop = Workshop::new();
    let template = Native::quick("[[provision]]\nlocal = \"echo begun; sleep 1000 & wait\"\n");
    interrupted(&workshop, &template, ": begun", "INT");
    let template = Native::quick("[[provision]]\nsleep = \"1000s\"\n");
    interrupted(&workshop, &template, "Sleeping for", "TERM");
    let template = Native::quick("[[provision]]\nlocal = \"true\"\npause-before = \"1000s\"\n");
    interrupted(&workshop, &template, "Pausing", "INT");
}

#[test]
fn an_artifact_that_is_there_stays_when_its_post_processor_is_interrupted() {
    let workshop = Workshop::new();
    let template = Native::quick("[[post]]\nlocal = \"echo begun; sleep 1000\"\n");
    let mut building = workshop.start(&template, &[]);
    building.wait_for(": begun");
    building.signal("INT");
    building.end().failed(130, &["was interrupted"]);
    assert!(workshop.path("output/disk.qcow2").exists());
    workshop.assert_tidy();
}

#[test]
fn a_second_signal_ends_it_at_once_and_qemu_with_it() {
    let workshop = Workshop::new();
    let template = Native::quick("[[provision]]\nlocal = \"echo begun; sleep 30\"\n");
    let mut building = workshop.start(&template, &[]);
    building.wait_for(": begun");
    building.signal("INT");
    building.signal("INT");
    let ended = building.end();
    assert_eq!(ended.code, 130, "{}", ended.said);
    workshop.wait_until_no_qemu(Duration::from_secs(5));
}

//! Guests that do not answer, let nobody in, or die: each is told in words of its own.

use std::process::Command;
use std::time::Duration;

use crate::workshop::{Native, Workshop, is_nightly, signal};

#[test]
fn a_guest_that_never_brings_up_its_network_is_told_with_what_was_seen() {
    let workshop = Workshop::new();
    let template = Native::default()
        .told("small.net=off")
        .ssh("username = \"root\"\ntimeout = \"30s\"");
    let ended = workshop.build(&template, &["-color=false"]);
    assert!(ended.took > Duration::from_secs(30));
    let ended = ended.failed(
        2,
        &[
            "Waiting for SSH, for 30 s at most",
            "What was seen of SSH, since the guest was started:",
            "the port accepts, no banner",
            "its network is not up",
            "A picture of its screen: ",
            "console.log",
        ],
    );
    // On a very busy host it has said nothing yet.
    let console = std::fs::read_to_string(workshop.runs()[0].join("build/console.log")).unwrap();
    for line in console.lines().filter(|line| line.starts_with("small:")) {
        ended.has("The last lines on the guest's console");
        ended.has(&format!("  | {}", line.trim_end()));
    }
    workshop.assert_tidy();
}

fn new_key(workshop: &Workshop, name: &str) -> String {
    let key = workshop.beside("home").join(name);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f"])
        .arg(&key)
        .status();
    assert!(status.unwrap().success());
    key.to_str().unwrap().to_owned()
}

#[test]
fn a_key_that_the_guest_does_not_have_is_told_with_what_it_would_take() {
    let workshop = Workshop::new();
    let key = new_key(&workshop, "key");
    let template = Native::default().ssh(&format!(
        "username = \"root\"\nprivate-key = {key:?}\nattempts = 3"
    ));
    let ended = workshop.build(&template, &[]);
    ended.failed(
        2,
        &[
            "login of root refused, offered: publickey",
            "the key is not in the guest",
        ],
    );
    workshop.assert_tidy();
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    if !is_nightly() {
        return;
    }
    let workshop = Workshop::new();
    let template = Native::default()
        .told("small.password=right-one")
        .ssh("username = \"root\"\npassword = \"wrong-one\"\nattempts = 2");
    let ended = workshop.build(&template, &["--json"]);
    ended
        .failed(2, &["the password is refused for root"])
        .has_not("wrong-one");
    workshop.assert_tidy();
}

#[test]
fn a_guest_that_panics_before_it_answers_is_told_at_once() {
    let workshop = Workshop::new();
    let template = Native::default().told("small.panic=0 small.ssh=off");
    let ended = workshop.build(&template, &[]);
    ended.failed(
        2,
        &["the guest's kernel panicked", "Kernel panic - not syncing"],
    );
    workshop.assert_tidy();
}

#[test]
fn a_guest_that_panics_under_a_provisioner_is_no_fault_of_the_provisioner() {
    let workshop = Workshop::new();
    let template = Native::with(
        "[[provision]]\nshell = \"echo begun; sync; echo c >/proc/sysrq-trigger; sleep 1000\"\n",
    );
    let ended = workshop.build(&template, &[]);
    ended.failed(2, &["begun", "the guest's kernel panicked"]);
    workshop.assert_tidy();
}

#[test]
fn a_guest_that_stops_answering_ends_the_step_at_its_time_limit() {
    let workshop = Workshop::new();
    let template = Native::with(
        "[[provision]]\nshell = \"echo begun; kill -STOP -1; sleep 1000\"\ntimeout = \"10s\"\n",
    );
    let ended = workshop.build(&template, &[]);
    ended.failed(
        3,
        &[
            "begun",
            "provisioner shell (line",
            "took longer than its time limit of 10 s",
        ],
    );
    workshop.assert_tidy();
}

#[test]
fn a_guest_that_goes_down_under_a_provisioner_is_told() {
    if !is_nightly() {
        return;
    }
    let workshop = Workshop::new();
    let template = Native::with("[[provision]]\nshell = \"poweroff; sleep 1000\"\n");
    let ended = workshop.build(&template, &[]);
    ended.failed(2, &["the guest has powered off"]);
    workshop.assert_tidy();
}

#[test]
fn qemu_that_is_killed_under_a_provisioner_is_told_at_once() {
    let workshop = Workshop::new();
    let template = Native::with("[[provision]]\nshell = \"echo begun; sleep 1000\"\n");
    let mut building = workshop.start(&template, &[]);
    building.wait_for(": begun");
    let qemus = workshop.qemus();
    assert_eq!(qemus.len(), 1);
    signal(qemus[0], "KILL");
    let killed = std::time::Instant::now();
    let ended = building.end();
    assert!(killed.elapsed() < Duration::from_secs(20));
    ended.failed(2, &["QEMU was ended by signal 9"]);
    workshop.assert_tidy();
}

#[test]
fn qemu_that_is_killed_while_the_guest_goes_down_leaves_no_image() {
    let workshop = Workshop::new();
    let mut building = workshop.start(&Native::default().told("small.poweroff=ignore"), &[]);
    building.wait_for("Shutting the guest down");
    std::thread::sleep(Duration::from_millis(500));
    signal(workshop.qemus()[0], "KILL");
    building.end().failed(2, &["QEMU was ended by signal 9"]);
    assert!(!workshop.path("output").exists());
    workshop.assert_tidy();
}

#[test]
fn qemu_that_is_killed_before_the_guest_answers_is_told_at_once() {
    let workshop = Workshop::new();
    let mut building = workshop.start(&Native::default().told("small.net=off"), &[]);
    building.wait_for("the port accepts, no banner");
    signal(workshop.qemus()[0], "KILL");
    building.end().failed(2, &["QEMU was ended by signal 9"]);
    workshop.assert_tidy();
}

#[test]
fn cloud_init_that_fails_ends_a_native_build() {
    let workshop = Workshop::new();
    let ended = workshop.build(&Native::default().told("small.cloudinit=error"), &[]);
    ended.failed(2, &["cloud-init in the guest had errors: it went wrong"]);
    workshop.assert_tidy();
}

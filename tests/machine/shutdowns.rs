//! Each way to end a machine, and the next where one does not work.

use std::time::Duration;

use qimg::machine::{Ended, Ladder, Rung};

use crate::small_guest::{NEVER, signal, start, state_of};

const LADDER: Ladder = Ladder {
    command: None,
    power_button: Some(Duration::from_secs(60)),
    quit: Some(Duration::from_secs(10)),
};

fn rungs(shutdown: &qimg::machine::Shutdown) -> Vec<(Rung, bool)> {
    shutdown
        .steps
        .iter()
        .map(|step| (step.rung, step.ended))
        .collect()
}

#[test]
fn the_power_button_ends_a_guest_that_listens_to_it() {
    let mut guest = start("");
    guest.wait_until_up();
    let shutdown = guest.running.shut_down(&LADDER, NEVER).unwrap();
    assert_eq!(
        rungs(&shutdown),
        [(Rung::PowerButton, true)],
        "{shutdown:?}"
    );
    assert!(shutdown.is_clean());
    let said = guest.running.console().tail(20);
    assert!(
        said.iter().any(|line| line.contains("small: going down")),
        "{said:?}"
    );
    assert_eq!(state_of(guest.running.id()), None);
}

#[test]
fn a_guest_that_ignores_the_power_button_is_quit() {
    let mut guest = start("small.poweroff=ignore");
    guest.wait_until_up();
    let ladder = Ladder {
        command: Some(Duration::from_millis(200)),
        power_button: Some(Duration::from_secs(1)),
        ..LADDER
    };
    let shutdown = guest.running.shut_down(&ladder, NEVER).unwrap();
    let expected = [
        (Rung::Command, false),
        (Rung::PowerButton, false),
        (Rung::Quit, true),
    ];
    assert_eq!(rungs(&shutdown), expected, "{shutdown:?}");
    assert_eq!(shutdown.ended, Ended::Code(0));
    assert!(!shutdown.is_clean());
}

#[test]
fn a_qemu_that_does_not_answer_is_killed() {
    let mut guest = start("small.hang=1");
    signal(guest.running.id(), "STOP");
    let ladder = Ladder {
        command: None,
        power_button: None,
        quit: Some(Duration::from_secs(1)),
    };
    let shutdown = guest.running.shut_down(&ladder, NEVER).unwrap();
    assert_eq!(
        rungs(&shutdown),
        [(Rung::Quit, false), (Rung::Kill, true)],
        "{shutdown:?}"
    );
    assert!(shutdown.steps[0].failure.is_some());
    assert_eq!(shutdown.ended, Ended::Signal(9));
}

#[test]
fn a_stop_while_it_is_waited_for_ends_the_wait() {
    let mut guest = start("small.poweroff=ignore small.hang=1");
    let error = guest.running.shut_down(&LADDER, &|| true).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Cancelled);
    assert_eq!(guest.running.ended(), None);
}

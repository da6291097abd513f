//! Keys for the guest.
//!
//! Knows how QEMU takes keys, and how a PC tells whether its guest has taken them: the keyboard controller's port 0x64
//! says so, and reading it changes nothing; and where a BIOS keeps what a boot loader has not read yet. So no key is sent
//! while the one before waits somewhere, however slow the guest is. Must not know what is typed, or why.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::keyboard::KeyEvent;

use super::qmp::SOON;
use super::running::Running;

/// Between two looks whether the guest has taken a key.
const LOOK: Duration = Duration::from_millis(5);

/// For a guest to take a key: one that does not read its keyboard at all is not waited for without end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Status of the keyboard controller, and its bit that says that something waits to be read.
const STATUS: u16 = 0x64;
const FULL: u8 = 1;

/// Where a BIOS keeps the places of the first key that was not read, and behind the last one; and between which they lie.
const BIOS_KEYS: u64 = 0x41a;
const BIOS_PLACES: std::ops::Range<u16> = 0x1e..0x3e;

/// What became of a stroke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The guest has read it.
    Yes,
    /// The guest has not read it in time; it may be lost.
    No,
    /// The machine has no such keyboard: nobody can tell.
    Unknown,
}

impl Running {
    /// Sends the keys of one stroke, all at once, and waits until the guest has read them.
    ///
    /// # Errors
    /// QEMU knows no such key, or does not answer; the machine is lost; `stop` says so.
    pub fn strike(&self, keys: &[KeyEvent], stop: &Stop) -> Result<Taken> {
        self.wait_for_bios(stop)?;
        let event = |event: &KeyEvent| json!({"type": "key", "data": {"down": event.down, "key": {"type": "qcode", "data": event.key}}});
        let events: Vec<Value> = keys.iter().map(event).collect();
        self.qmp()
            .execute("input-send-event", &json!({ "events": events }), SOON)?;
        let started = Instant::now();
        loop {
            match self.read_port(STATUS)? {
                // A port that nothing listens to.
                None | Some(0xff) => return Ok(Taken::Unknown),
                Some(status) if status & FULL == 0 => return Ok(Taken::Yes),
                Some(_) if started.elapsed() > PATIENCE => return Ok(Taken::No),
                Some(_) => {}
            }
            self.pass(LOOK, stop)?;
        }
    }

    /// Waits until a boot loader has read what its BIOS keeps for it, which are 15 keys at most: more are lost. Once no
    /// BIOS is there any more, what stands in its memory does not change, and is not waited for again.
    fn wait_for_bios(&self, stop: &Stop) -> Result<()> {
        let mut started = Instant::now();
        let mut seen = None;
        loop {
            let said = self.qmp().human(&format!("xp /2hx {BIOS_KEYS:#x}"))?;
            let Some(places) = bios_places(&said) else {
                return Ok(());
            };
            let mut stale = self
                .stale_keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if places.0 == places.1 || *stale == Some(places) {
                return Ok(());
            }
            if seen != Some(places) {
                seen = Some(places);
                started = Instant::now();
            } else if started.elapsed() > PATIENCE {
                *stale = Some(places);
                return Ok(());
            }
            drop(stale);
            self.pass(LOOK, stop)?;
        }
    }

    /// Lets `time` pass.
    ///
    /// # Errors
    /// The machine is lost meanwhile; `stop` says so.
    pub fn pass(&self, time: Duration, stop: &Stop) -> Result<()> {
        match self.wait(time, stop)? {
            None => Ok(()),
            Some(death) => Err(Error::new(ErrorKind::Guest, death.to_string())),
        }
    }

    /// Reads an I/O port of a PC; `None`: the machine has none.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub(super) fn read_port(&self, port: u16) -> Result<Option<u8>> {
        let said = self.qmp().human(&format!("i /b {port:#x}"))?;
        Ok(port_value(&said))
    }
}

/// The value in `portb[0x0064] = 0x1c`.
pub(super) fn port_value(said: &str) -> Option<u8> {
    let (_, value) = said.trim().split_once(" = 0x")?;
    u8::from_str_radix(value.trim(), 16).ok()
}

/// The places in `000000000000041a: 0x001e 0x0020`; `None`: no BIOS has written them.
fn bios_places(said: &str) -> Option<(u16, u16)> {
    let (_, values) = said.trim().split_once(':')?;
    let mut values = values.split_whitespace().map(|value| {
        let value = u16::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
        BIOS_PLACES.contains(&value).then_some(value)
    });
    Some((values.next()??, values.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_bios_keeps_are_between_two_places() {
        let of = |values: &str| bios_places(&format!("000000000000041a: {values}\r\n"));
        assert_eq!(of("0x001e 0x0020"), Some((0x1e, 0x20)));
        assert_eq!(of("0x0000 0x0000"), None);
        assert_eq!(of("0x001e"), None);
        assert_eq!(bios_places("Cannot access memory"), None);
    }

    #[test]
    fn a_port_is_read_as_the_monitor_shows_it() {
        assert_eq!(port_value("portb[0x0064] = 0x1c\r\n"), Some(0x1c));
        assert_eq!(port_value("unknown command: 'i'\r\n"), None);
        assert_eq!(port_value("portb[0x0064] = 0x1cc"), None);
    }
}

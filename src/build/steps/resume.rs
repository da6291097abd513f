//! A machine that goes on from a state.
//!
//! Knows what of a state a build needs before and after its machine is started, and what in a guest is of the past then:
//! its clock, and its supply of chance. Must not know how a machine is started.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shelf::{disk_name, file_name};
use super::{Steps, memory};
use crate::build::access::Access;
use crate::build::disk::Origin;
use crate::build::event::Reporter;
use crate::build::output::OutputDirectory;
use crate::communicator::{Communicator, Exit};
use crate::error::{Error, Result};
use crate::image::Format;
use crate::store::{read_file, remove_file, write_secret};

/// Firmware has no more variables.
const LARGEST_ASIDE: u64 = 64 << 20;

/// For a guest to set its clock.
const SETTING: Duration = Duration::from_secs(30);

impl Steps {
    /// Steps that need not be run, if the build goes on from a state.
    pub(in crate::build) fn done(&self) -> Option<usize> {
        self.now
            .borrow()
            .found
            .as_ref()
            .map(|found| found.record.steps)
    }

    /// The guest goes on as it was, without a boot.
    pub(in crate::build) fn keeps_memory(&self) -> bool {
        let now = self.now.borrow();
        now.found.as_ref().is_some_and(|found| found.from_memory)
    }

    /// The disks that the machine's are overlays of, in order.
    pub(in crate::build) fn origins(&self) -> Option<Vec<Origin>> {
        let now = self.now.borrow();
        let found = now.found.as_ref()?;
        let disks = found.record.disks.iter().enumerate();
        Some(
            disks
                .map(|(number, layer)| Origin {
                    path: found.directory.join(disk_name(number)),
                    format: Format::Qcow2,
                    virtual_size: layer.virtual_size,
                })
                .collect(),
        )
    }

    /// What lets into the guest, below `directory`, where the build goes on from a state.
    ///
    /// # Errors
    /// It is not there, or not what it was.
    pub(in crate::build) fn access(&self, directory: &Path) -> Result<Option<Access>> {
        let now = self.now.borrow();
        let Some(found) = &now.found else {
            return Ok(None);
        };
        let id = found.record.instance_id.clone();
        let user = found.record.created_user.clone();
        Access::restore(&found.directory, id, user, directory).map(Some)
    }

    /// Puts back the small files that the machine writes.
    ///
    /// # Errors
    /// They are not there.
    pub(in crate::build) fn put_back(&self, output: &OutputDirectory) -> Result<()> {
        let now = self.now.borrow();
        let Some(found) = &now.found else {
            return Ok(());
        };
        for (number, aside) in found.record.files.iter().enumerate() {
            let directory = if aside.of_artifact {
                output.artifact()
            } else {
                output.work().to_owned()
            };
            let to = directory.join(&aside.name);
            let bytes = read_file(found.directory.join(file_name(number)), LARGEST_ASIDE)?;
            remove_file(&to)?;
            write_secret(&to, &bytes)?;
        }
        Ok(())
    }

    /// The file with the machine's memory, unpacked into `directory`, where the guest goes on as it was.
    ///
    /// # Errors
    /// It is damaged; the host's own; cancelled.
    pub(in crate::build) fn memory(&self, directory: &Path) -> Result<Option<PathBuf>> {
        let now = self.now.borrow();
        let Some(found) = now.found.as_ref().filter(|found| found.from_memory) else {
            return Ok(None);
        };
        let to = directory.join("memory");
        memory::unpack(&found.directory.join("memory.zst"), &to, &*self.stop)?;
        Ok(Some(to))
    }

    /// Says from where the build goes on.
    pub(in crate::build) fn tell(&self, reporter: &Reporter<'_>) {
        let now = self.now.borrow();
        if let Some(found) = &now.found {
            let how = if found.from_memory {
                "disk and memory"
            } else {
                "the disk, after a reboot: what only was in memory or /tmp is gone"
            };
            let saves = Duration::from_millis(found.record.saves);
            reporter.step(&format!(
                "Going on from the state after {} ({how}); it saves {}",
                found.record.after,
                crate::build::provisioner::in_words(saves)
            ));
        }
    }

    /// The build begins from the beginning. `of_no_use`: so will every build that begins with this state, so it goes.
    ///
    /// # Errors
    /// The host refuses to remove it.
    pub(in crate::build) fn give_up(&self, of_no_use: bool) -> Result<()> {
        let mut now = self.now.borrow_mut();
        let found = now.found.take();
        now.below = None;
        now.holds.clear();
        now.before = Duration::ZERO;
        match found {
            Some(found) if of_no_use => self.shelf.remove(&[found.key]),
            _ => Ok(()),
        }
    }
}

/// Brings the guest into the present: its clock, and something that no other guest of the same state has.
///
/// # Errors
/// The connection is lost; cancelled.
pub(in crate::build) fn into_the_present(
    guest: &dyn Communicator,
    chance: &str,
    reporter: &Reporter<'_>,
) -> Result<()> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let script = present_script(seconds, chance);
    let mut words = String::new();
    let exit = guest.run(&script, Some(SETTING), &mut |_, line| {
        if words.len() < 200 {
            words.push_str(line.trim());
            words.push(' ');
        }
    })?;
    match exit {
        Exit::Code(0) => {
            reporter.note("The guest's clock is set");
            Ok(())
        }
        Exit::Code(_) => {
            reporter.warn(&format!(
                "The guest's clock is that of the state it goes on from, and cannot be set: {}",
                words.trim()
            ));
            Ok(())
        }
        Exit::Signal(_) | Exit::Disconnected => Err(Error::new(
            crate::error::ErrorKind::Connection,
            "the guest did not take the time",
        )),
    }
}

/// As root, or by sudo where that asks for nothing; GNU's and busybox's way to write a time, then that of the BSDs.
fn present_script(seconds: u64, chance: &str) -> String {
    format!(
        "echo {chance} > /dev/urandom 2>/dev/null || :; \
         if [ \"$(id -u)\" = 0 ]; then q=; elif command -v sudo >/dev/null 2>&1; then q='sudo -n'; \
         elif command -v doas >/dev/null 2>&1; then q='doas -n'; else echo 'neither root nor sudo'; exit 1; fi; \
         $q date -u -s @{seconds} >/dev/null 2>&1 || $q date -u {} >/dev/null",
        bsd_time(seconds)
    )
}

/// `yyyymmddHHMM.SS`, in UTC.
fn bsd_time(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970_u64;
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length || year >= 9999 {
            break;
        }
        days -= length;
        year += 1;
    }
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if days < length || month == 12 {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year:04}{month:02}{:02}{:02}{:02}.{:02}",
        days + 1,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_bsds_is_that_of_date() {
        for (seconds, text) in [
            (0, "197001010000.00"),
            (951_782_400, "200002290000.00"),
            (1_709_251_199, "202402292359.59"),
            (1_798_761_600, "202701010000.00"),
        ] {
            assert_eq!(bsd_time(seconds), text);
        }
    }
}

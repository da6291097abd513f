//! Restarting the guest, and knowing that it has.
//!
//! Knows that a kernel makes a new boot id each time it starts. A login alone proves nothing: a guest that is still going
//! down answers, too.

use std::time::{Duration, Instant};

use super::{Context, Watch, cloud_init, in_words, with_cause};
use crate::communicator::{Communicator, Exit, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::template::model::Text;

/// For the guest to come back, where the template says nothing and nothing is emulated.
const USUAL: Duration = Duration::from_secs(300);

/// For the command to end the connection, or to end.
const COMMAND: Duration = Duration::from_secs(30);

/// For the guest to begin to go down after the command has failed.
const DOUBT: Duration = Duration::from_secs(5);

/// For one question.
const QUESTION: Duration = Duration::from_secs(15);

/// Between two looks at a guest that does not answer; its own waits come on top.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Longest boot id that is one.
const LONGEST_ID: usize = 200;

/// By what the kernel tells, and where there is no such file, by when it says it was started.
const BOOT_ID: &str =
    "cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime 2>/dev/null";

/// By whatever works. The connection ends while it runs, or soon after.
const REBOOT: &str = "exec sh -c '\
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; \
if [ \"$(id -u)\" = 0 ]; then as=; \
elif sudo -n true >/dev/null 2>&1; then as=\"sudo -n\"; \
elif doas -n true >/dev/null 2>&1; then as=\"doas -n\"; \
else echo \"only root may restart this guest, and neither sudo nor doas lets us\" >&2; exit 1; fi; \
$as reboot || $as systemctl reboot || $as shutdown -r now || $as busybox reboot'";

/// Restarts the guest and waits for it.
pub(super) fn run(
    command: &Text,
    timeout: Option<Duration>,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let guest = context.guest()?;
    let timeout = timeout.unwrap_or(USUAL.saturating_mul(context.patience.max(1)));
    let before = boot_id(guest, watch)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Guest,
            "the guest does not tell when it was started",
        )
        .with_remedy("use a shell provisioner with expect_disconnect instead")
    })?;
    let command = context.texts.render(command, &[])?;
    let command = if command.trim().is_empty() {
        REBOOT
    } else {
        &command
    };
    context.reporter.step("Restarting the guest");
    let started = Instant::now();
    let watch = watch.within(timeout);
    let mut output = context.reporter.output("reboot");
    let mut words = String::new();
    let exit = guest.run(
        command,
        Some(watch.at_most(COMMAND)),
        &mut |stream, line| {
            if stream == Stream::Err && words.len() + line.len() < 1000 {
                words = format!("{words} {}", line.trim());
            }
            output.line(stream, line);
        },
    );
    drop(output);
    let failed = match exit {
        Ok(Exit::Code(code)) if code != 0 => Some(code),
        // It may hang with a connection that nobody ends any more.
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Connection) => None,
        Err(error) => return Err(error),
    };
    guest.disconnect();
    let mut seen = "it still runs".to_owned();
    loop {
        watch
            .check()
            .map_err(|error| too_late(error, timeout, &seen))?;
        match look(guest, &watch) {
            Ok(Some(now)) if now != before => break,
            Ok(_) => "it still runs, and has not restarted".clone_into(&mut seen),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => seen = with_cause(&error),
        }
        if let Some(code) = failed
            && started.elapsed() > DOUBT
            && seen.starts_with("it still runs")
        {
            let message = format!("the guest cannot be restarted (exit code {code}):{words}");
            return Err(Error::new(ErrorKind::Guest, message));
        }
        context
            .reporter
            .waiting("the guest to restart", &seen, started.elapsed());
        let slept = watch.sleep(BETWEEN_LOOKS);
        slept.map_err(|error| too_late(error, timeout, &seen))?;
    }
    let text = format!("The guest is back after {}", in_words(started.elapsed()));
    context.reporter.note(&text);
    // What follows finds a system that is up as a whole, as the first step did. Errors were told at the first start.
    let patient = watch.left().unwrap_or(timeout);
    match cloud_init::wait(guest, patient, context.reporter, watch.stop()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            context.reporter.warn(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn too_late(error: Error, timeout: Duration, seen: &str) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    let message = format!(
        "the guest did not restart within {}: at last {seen}",
        in_words(timeout)
    );
    Error::new(ErrorKind::TimedOut, message)
        .with_remedy("give the reboot a longer timeout, or look at the guest's console")
}

/// The boot id by a new connection.
fn look(guest: &dyn Communicator, watch: &Watch<'_>) -> Result<Option<String>> {
    guest.probe(watch.at_most(QUESTION))?;
    let found = boot_id(guest, watch);
    // What was answered by a guest that goes down leaves a connection that will never end.
    guest.disconnect();
    found
}

fn boot_id(guest: &dyn Communicator, watch: &Watch<'_>) -> Result<Option<String>> {
    let mut id = String::new();
    let exit = guest.run(
        BOOT_ID,
        Some(watch.at_most(QUESTION)),
        &mut |stream, line| {
            if stream == Stream::Out && id.is_empty() {
                id = line.trim().chars().take(LONGEST_ID).collect();
            }
        },
    )?;
    match exit {
        Exit::Code(0) if !id.is_empty() => Ok(Some(id)),
        Exit::Disconnected => Err(Error::new(
            ErrorKind::Connection,
            "the connection was lost while the guest was asked for its boot id",
        )),
        _ => Ok(None),
    }
}

//! What happens to a machine as a whole: a reboot, a move to another QEMU, its end; and what it says on its console.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bench::{Bench, Machine};
use super::inside::seconds;
use crate::communicator::ssh::Ssh;
use crate::communicator::{Communicator, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::goss::facts::Fact;
use crate::goss::matcher::Actual;
use crate::goss::run::commands;
use crate::machine::{Accelerator, Ladder};
use crate::store::read_file;

/// Between two looks.
const POLL: Duration = Duration::from_millis(200);
/// For one command of ours.
const SHORT: Duration = Duration::from_secs(60);
/// Bytes of the console that are looked at.
const LONGEST: u64 = 64 << 20;
/// What a path of a socket has at most.
const LONGEST_SOCKET: usize = 100;

fn is(value: bool) -> Actual {
    Actual::Value(Value::Bool(value))
}

fn pause(stop: &Stop) -> Result<()> {
    if stop() {
        return Err(Error::cancelled());
    }
    std::thread::sleep(POLL);
    Ok(())
}

fn boot_id(guest: &dyn Communicator) -> Result<String> {
    let said = commands(
        guest,
        &[("cat /proc/sys/kernel/random/boot_id", SHORT)],
        true,
    )?;
    let id = said
        .first()
        .map(|said| said.out.trim().to_owned())
        .unwrap_or_default();
    if id.is_empty() {
        return Err(Error::new(ErrorKind::Guest, "the guest has no boot id"));
    }
    Ok(id)
}

/// What came of a reboot.
#[derive(Debug, Clone)]
pub(super) struct Reboot {
    changed: bool,
    kept: bool,
    took: Duration,
}

impl Reboot {
    pub(super) fn fact(&self, property: &str) -> Fact {
        Ok(match property {
            "boot-id-changed" => is(self.changed),
            "data-kept" => is(self.kept),
            _ => seconds(self.took),
        })
    }
}

/// Reboots the guest of a machine, and waits until it answers again.
pub(super) fn reboot_of(
    machine: &Machine,
    ssh: &Ssh,
    limit: Duration,
    stop: &Stop,
) -> Result<Reboot> {
    let known = machine.running.signs().len();
    let bad_sign = || {
        let signs = machine.running.signs();
        let seen = signs.get(known)?;
        let words = seen.sign.words();
        Some(format!("after its reboot the guest {words}: {}", seen.line))
    };
    machine.watched(stop, || reboot(&bad_sign, ssh, limit, stop))
}

/// Reboots a guest, and waits until it answers again, or until there is a bad sign.
pub(super) fn reboot(
    bad_sign: &dyn Fn() -> Option<String>,
    ssh: &Ssh,
    limit: Duration,
    stop: &Stop,
) -> Result<Reboot> {
    let before = boot_id(ssh)?;
    let mark = format!(
        "echo {before} >/var/tmp/qimg-test-kept || echo {before} >/root/qimg-test-kept; sync"
    );
    commands(ssh, &[(mark.as_str(), SHORT)], true)?;
    let started = Instant::now();
    // It goes down after the answer is out.
    commands(
        ssh,
        &[(
            "(sleep 1; reboot || systemctl reboot || shutdown -r now) >/dev/null 2>&1 </dev/null &",
            SHORT,
        )],
        true,
    )?;
    loop {
        pause(stop)?;
        if let Some(words) = bad_sign() {
            return Err(Error::new(ErrorKind::Guest, words));
        }
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "the guest did not come back within {} s of its reboot",
                    limit.as_secs()
                ),
            ));
        }
        // The old system still answers for a moment, and not every answer is whole.
        if ssh.probe(left.min(Duration::from_secs(10))).is_err() {
            continue;
        }
        match boot_id(ssh) {
            Ok(now) if now != before => break,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            _ => ssh.disconnect(),
        }
    }
    let took = started.elapsed();
    let said = commands(
        ssh,
        &[(
            "cat /var/tmp/qimg-test-kept /root/qimg-test-kept 2>/dev/null; rm -f /var/tmp/qimg-test-kept /root/qimg-test-kept",
            SHORT,
        )],
        true,
    )?;
    let kept = said.first().is_some_and(|said| said.out.contains(&before));
    Ok(Reboot {
        changed: true,
        kept,
        took,
    })
}

/// What came of a migration.
#[derive(Debug, Clone)]
pub(super) struct Migration {
    same: bool,
    answers: bool,
    took: Duration,
}

impl Migration {
    pub(super) fn fact(&self, property: &str) -> Fact {
        Ok(match property {
            "answers" => is(self.answers),
            "boot-id-kept" => is(self.same),
            _ => seconds(self.took),
        })
    }
}

/// Moves the guest to another QEMU on this host, where it goes on; its old machine is gone then.
pub(super) fn migrate(
    bench: &Bench<'_>,
    machine: &mut Machine,
    ssh: &Ssh,
    accelerator: &Accelerator,
    limit: Duration,
) -> Result<(Migration, Ssh)> {
    let stop = &*bench.request.stop;
    let before = boot_id(ssh)?;
    let socket = bench.directory.join("move");
    let path = socket_path(&socket)?;
    let started = Instant::now();
    let target = bench.start(
        "target",
        accelerator,
        &["-incoming".to_owned(), format!("unix:{path}")],
    )?;
    let qmp = machine.running.qmp();
    qmp.execute(
        "migrate",
        &json!({"uri": format!("unix:{path}")}),
        Duration::from_secs(10),
    )?;
    loop {
        pause(stop)?;
        let state = qmp.execute("query-migrate", &Value::Null, Duration::from_secs(10))?;
        match state["status"].as_str() {
            Some("completed") => break,
            Some(word @ ("failed" | "cancelled")) => {
                let why = state["error-desc"]
                    .as_str()
                    .unwrap_or("QEMU does not say why");
                return Err(Error::new(
                    ErrorKind::Guest,
                    format!("the migration is {word}: {why}"),
                ));
            }
            _ if target.running.death().is_some() => {
                let words = target.running.stderr_tail(3).join("; ");
                return Err(Error::new(
                    ErrorKind::Guest,
                    format!("the other QEMU has ended: {words}"),
                ));
            }
            _ if started.elapsed() > limit => {
                let text = format!("the migration did not end within {} s", limit.as_secs());
                return Err(Error::new(ErrorKind::TimedOut, text));
            }
            _ => {}
        }
    }
    let user = bench.access.users.first().map_or("root", String::as_str);
    let way = bench.way_in(&target, user, None)?;
    machine.running.kill();
    let left = limit.saturating_sub(started.elapsed()).max(SHORT);
    let answered = target.wait(&way, left, stop, &|_| ());
    if let Err(error) = &answered
        && error.kind() == ErrorKind::Cancelled
    {
        return Err(Error::cancelled());
    }
    let now = answered.and_then(|_| boot_id(&way));
    let _ = crate::store::remove_file(&socket);
    *machine = target;
    let migration = Migration {
        same: now.as_ref().is_ok_and(|now| *now == before),
        answers: now.is_ok(),
        took: started.elapsed(),
    };
    Ok((migration, way))
}

fn socket_path(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .filter(|text| text.len() <= LONGEST_SOCKET && !text.contains(','));
    text.map(str::to_owned).ok_or_else(|| {
        Error::unsupported(format!(
            "the path of a socket has at most {LONGEST_SOCKET} bytes, and no comma"
        ))
        .at_path(path)
        .with_remedy("set XDG_STATE_HOME to a directory with a shorter name")
    })
}

/// What came of the power button.
#[derive(Debug, Clone)]
pub(super) struct End {
    clean: bool,
    took: Duration,
}

impl End {
    pub(super) fn fact(&self, property: &str) -> Fact {
        Ok(match property {
            "clean" => is(self.clean),
            _ => seconds(self.took),
        })
    }
}

/// Presses the power button; whatever comes of it, the machine has ended afterwards.
pub(super) fn shut_down(machine: &mut Machine, limit: Duration, stop: &Stop) -> Result<End> {
    let started = Instant::now();
    let ladder = Ladder {
        command: None,
        power_button: Some(limit),
        quit: Some(Duration::from_secs(10)),
    };
    let done = machine.running.shut_down(&ladder, stop)?;
    Ok(End {
        clean: done.is_clean() && !done.steps.is_empty(),
        took: started.elapsed(),
    })
}

/// All that the guest has said on its console, without its control characters.
pub(super) fn console(log: &Path) -> Result<String> {
    let bytes = read_file(log, LONGEST)?;
    let mut cleaner = crate::machine::console::Cleaner::default();
    let mut text = String::new();
    cleaner.push(&bytes, &mut |line| {
        text.push_str(line);
        text.push('\n');
    });
    text.push_str(&cleaner.unfinished());
    Ok(text)
}

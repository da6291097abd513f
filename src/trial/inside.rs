//! What only the first boot of an image tells: its time, failed units, the kernel's log, cloud-init, a root that grew.
//!
//! Knows commands of systemd and of kernels, and what busybox has instead.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::build::event::{Event, Reporter};
use crate::build::provisioner::cloud_init::{self, CloudInit, State};
use crate::build::secrets::Masks;
use crate::communicator::{Communicator, Stop};
use crate::error::Result;
use crate::goss::facts::Fact;
use crate::goss::matcher::Actual;
use crate::goss::run::commands;

/// What the first boot left behind.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    /// From the start of the machine to the first login.
    pub(super) ssh_after: Duration,
    failed_units: Option<String>,
    kernel_log: Option<String>,
}

/// Waits until the guest has booted, and looks at what happened.
pub(super) fn boot(guest: &dyn Communicator, ssh_after: Duration, patience: u32) -> Result<Boot> {
    let short = Duration::from_secs(30) * patience;
    let said = commands(
        guest,
        &[
            (
                "[ ! -d /run/systemd/system ] || { timeout -s KILL 100 systemctl is-system-running --wait >/dev/null 2>&1; \
                 systemctl list-units --failed --plain --no-legend --no-pager; }",
                Duration::from_secs(110) * patience,
            ),
            (
                "dmesg 2>/dev/null || journalctl -k -b -o cat --no-pager",
                short,
            ),
        ],
        true,
    )?;
    let text = |number: usize| {
        let said = said.get(number)?;
        (said.code == Some(0)).then(|| said.out.clone())
    };
    Ok(Boot {
        ssh_after,
        failed_units: text(0),
        kernel_log: text(1),
    })
}

impl Boot {
    pub(super) fn fact(&self, property: &str) -> Fact {
        let said = |text: &Option<String>, what: &str| {
            text.clone()
                .map(Actual::Text)
                .ok_or_else(|| format!("the guest does not tell {what}"))
        };
        match property {
            "seconds" => Ok(seconds(self.ssh_after)),
            "failed-units" => said(&self.failed_units, "its units"),
            _ => said(&self.kernel_log, "its kernel's log: it needs root for that"),
        }
    }
}

/// Seconds with a tenth.
pub(super) fn seconds(time: Duration) -> Actual {
    let tenths = u64::try_from(time.as_millis() / 100).unwrap_or(u64::MAX);
    Actual::Value(Value::from(tenths as f64 / 10.0))
}

/// Waits for the guest's cloud-init.
pub(super) fn cloud_init(
    guest: &dyn Communicator,
    limit: Duration,
    stop: &Stop,
) -> Result<CloudInit> {
    let nobody = |_: &Event| ();
    let masks = Arc::new(Masks::new(Vec::<String>::new())?);
    let reporter = Reporter::new("test", masks, &nobody);
    cloud_init::wait(guest, limit, &reporter, stop)
}

/// What is known of cloud-init.
pub(super) fn of_cloud_init(known: &CloudInit, property: &str) -> Fact {
    let lines = |lines: &[String]| Actual::Text(lines.join("\n"));
    let status = match known.state {
        State::Absent => "absent",
        State::Disabled => "disabled",
        State::Done if known.errors.is_empty() => "done",
        State::Done => "error",
    };
    match property {
        "status" => Ok(Actual::Value(Value::from(status))),
        _ if known.state == State::Absent => Err("the guest has no cloud-init".to_owned()),
        "datasource" => {
            let found = known.datasource.clone();
            Ok(Actual::Value(Value::from(
                found.ok_or("the guest does not tell its datasource")?,
            )))
        }
        "errors" => Ok(lines(&known.errors)),
        _ => Ok(lines(&known.complaints)),
    }
}

/// Bytes of the root filesystem, as the guest's kernel counts them.
pub(super) fn root_size(guest: &dyn Communicator) -> Result<Option<u64>> {
    let said = commands(
        guest,
        &[(
            "stat -f -c '%S %b' / || stat -f -c '%s %b' /",
            Duration::from_secs(60),
        )],
        true,
    )?;
    let words: Vec<u64> = { said.iter() }
        .flat_map(|said| said.out.split_whitespace())
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(match words.as_slice() {
        [size, blocks, ..] => size.checked_mul(*blocks),
        _ => None,
    })
}

//! What is known of a machine beside the answers of its guest, which checks ask for it, and how both are joined to results.
//!
//! Must not know how anything is found out.

use super::inside::{self, Boot};
use super::journey::{End, Migration, Reboot};
use super::logins::Logins;
use super::sealed::Sealed;
use crate::build::provisioner::cloud_init::CloudInit;
use crate::error::{ErrorKind, Result};
use crate::goss::facts::Fact;
use crate::goss::matcher::Actual;
use crate::goss::outcome::judge;
use crate::goss::{Check, Kind, Outcome, State};

/// What was asked, and what is known; `None`: nobody looked.
pub(super) type Asked<T> = Option<Result<T, String>>;

/// All that is known beside the answers of the guest.
#[derive(Default)]
pub(super) struct Known {
    pub(super) sealed: Asked<Sealed>,
    pub(super) boot: Asked<Boot>,
    pub(super) cloud_init: Asked<CloudInit>,
    /// Bytes of the root, and of the image's disk and the machine's.
    pub(super) grow: Asked<(u64, u64, u64)>,
    pub(super) reboot: Asked<Reboot>,
    pub(super) migration: Asked<Migration>,
    pub(super) end: Asked<End>,
    pub(super) console: Asked<String>,
    pub(super) logins: Logins,
}

fn from<T>(asked: &Asked<T>, fact: impl FnOnce(&T) -> Fact) -> Fact {
    match asked {
        None => Err("nobody looked".to_owned()),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(known)) => fact(known),
    }
}

impl Known {
    pub(super) fn fact(&self, check: &Check, property: &str) -> Fact {
        match check.kind {
            Kind::Sealed => from(&self.sealed, |known| known.fact(property)),
            Kind::Boot => from(&self.boot, |known| known.fact(property)),
            Kind::CloudInit => from(&self.cloud_init, |known| {
                inside::of_cloud_init(known, property)
            }),
            Kind::Grow => from(&self.grow, |(root, image, disk)| {
                if property == "root-size" {
                    return Ok(Actual::Value((*root).into()));
                }
                // A filesystem counts what is left after its own tables.
                let needed = image.saturating_add(disk.saturating_sub(*image) / 4);
                Ok(Actual::Value(
                    (disk > image && *root >= needed.min(*disk)).into(),
                ))
            }),
            Kind::Login => self.logins.fact(&check.subject, property),
            Kind::Reboot => from(&self.reboot, |known| known.fact(property)),
            Kind::Migrate => from(&self.migration, |known| known.fact(property)),
            Kind::Shutdown => from(&self.end, |known| known.fact(property)),
            Kind::Serial => from(&self.console, |text| Ok(Actual::Text(text.clone()))),
            _ => Err("only a guest can tell".to_owned()),
        }
    }

    /// Everything that depends on a guest that cannot be reached.
    pub(super) fn unknown(&mut self, wanted: &Wanted<'_>, why: &str) {
        self.boot = Some(Err(why.to_owned()));
        self.cloud_init = Some(Err(why.to_owned()));
        self.grow = Some(Err(why.to_owned()));
        self.reboot = Some(Err(why.to_owned()));
        self.migration = Some(Err(why.to_owned()));
        self.end = Some(Err(why.to_owned()));
        for user in wanted.users(&["key"]) {
            self.logins.note(&user, "key", Err(why.to_owned()));
        }
    }
}

/// Keeps a failure as a reason; a wish to stop ends all.
pub(super) fn kept<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Which checks there are that are not skipped.
pub(super) struct Wanted<'a>(pub(super) &'a [Check]);

impl Wanted<'_> {
    pub(super) fn of(&self, kind: Kind) -> Option<&Check> {
        { self.0.iter() }.find(|check| check.kind == kind && !check.skip)
    }

    pub(super) fn any(&self, kind: Kind) -> bool {
        self.of(kind).is_some()
    }

    pub(super) fn guest(&self) -> bool {
        { self.0.iter() }
            .any(|check| !check.kind.is_of_image() && check.kind != Kind::Matching && !check.skip)
    }

    /// Whether somebody has to log in; the console alone tells when a guest without SSH is up.
    pub(super) fn ssh(&self) -> bool {
        let inside = [
            Kind::Boot,
            Kind::CloudInit,
            Kind::Grow,
            Kind::Migrate,
            Kind::Reboot,
        ];
        self.guest()
            || inside.into_iter().any(|kind| self.any(kind))
            || !self.users(&["key"]).is_empty()
            || (self.any(Kind::Shutdown) && !self.any(Kind::Serial))
    }

    pub(super) fn machine(&self) -> bool {
        self.ssh() || self.any(Kind::Serial) || self.any(Kind::Shutdown)
    }

    /// Users of checks of logins that ask for one of `properties`.
    pub(super) fn users(&self, properties: &[&str]) -> Vec<String> {
        let mut users: Vec<String> = { self.0.iter() }
            .filter(|check| check.kind == Kind::Login && !check.skip)
            .filter(|check| properties.iter().any(|property| check.asks(property)))
            .map(|check| check.subject.clone())
            .collect();
        users.dedup();
        users
    }
}

/// Results in the order of the checks; those of the guest are brought.
pub(super) fn joined(checks: &[Check], of_guest: Vec<Outcome>, known: &Known) -> Vec<Outcome> {
    let mut of_guest = of_guest.into_iter();
    let mut outcomes = Vec::new();
    for check in checks {
        if check.kind.is_of_image() {
            outcomes.extend(judge(check, &mut |property| known.fact(check, property)));
        } else {
            outcomes.extend(of_guest.by_ref().take(check.properties.len()));
        }
    }
    outcomes
}

/// Results as [`joined`] makes them, of a machine that cannot be asked everything: what `tells` does not know is skipped. Also
/// how many checks were left out.
pub(super) fn joined_in_part(
    checks: &[Check],
    of_guest: Vec<Outcome>,
    known: &Known,
    tells: &dyn Fn(Kind, &str) -> bool,
) -> (Vec<Outcome>, usize) {
    let mut outcomes = joined(checks, of_guest, known);
    let mut left_out = std::collections::BTreeSet::new();
    for outcome in &mut outcomes {
        if outcome.kind.is_of_image() && !tells(outcome.kind, &outcome.property) {
            if outcome.state != State::Skipped {
                left_out.insert(outcome.place.clone());
            }
            outcome.state = State::Skipped;
            outcome.error = None;
            outcome.verdict = None;
        }
    }
    let left_out = left_out.len();
    (outcomes, left_out)
}

/// What is to be said of checks that were left out.
pub(super) fn left_out_of(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("a check needs an image, and was skipped".to_owned()),
        count => Some(format!("{count} checks need an image, and were skipped")),
    }
}

pub(super) fn unreachable(checks: &[Check], why: &str) -> Vec<Outcome> {
    { checks.iter() }
        .filter(|check| !check.kind.is_of_image())
        .flat_map(|check| {
            judge(check, &mut |_| match check.kind {
                Kind::Matching => Ok(Actual::Value(
                    check.settings.get("content").cloned().unwrap_or_default(),
                )),
                _ => Err(why.to_owned()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_smaller_than_its_image_has_not_grown() {
        let check = Check {
            kind: Kind::Grow,
            ..Check::of_command("x", std::time::Duration::ZERO)
        };
        // A cloud may say any size of its template.
        for (image, disk) in [(u64::MAX, 0), (10 << 30, 1 << 30), (0, u64::MAX)] {
            let known = Known {
                grow: Some(Ok((1 << 30, image, disk))),
                ..Known::default()
            };
            let found = known.fact(&check, "grown").unwrap();
            assert!(matches!(found, Actual::Value(value) if value == false));
        }
    }
}

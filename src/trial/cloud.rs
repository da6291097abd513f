//! A template of a cloud: an instance is made of it, asked, and destroyed, whatever comes of it.
//!
//! Knows what of the checks an instance can tell. Must not know how a cloud is asked for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inside;
use super::journey;
use super::known::{Known, Wanted, joined_in_part, kept, left_out_of, unreachable};
use super::request::{Evidence, GuestWork, Kept, Report};
use super::seed::{Access, Password};
use super::up::wait;
use crate::build::Surroundings;
use crate::build::runs::RunDirectory;
use crate::communicator::ssh::{Limits, Options, Ssh};
use crate::communicator::{Communicator, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::HttpOptions;
use crate::goss::{self, Check, Kind, RunOptions};
use crate::publish::Event;
use crate::publish::exoscale::instance::{
    self, InstanceRequest, Known as Template, Rented, Running,
};
use crate::publish::exoscale::{Account, Means, Polling};
use crate::seed::{Part, join_parts};
use crate::store::remove_tree;
use crate::units::ByteSize;

/// For the guest to answer, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is to be made of which template, and how it is asked.
pub struct CloudRequest<'a> {
    /// Who asks the cloud.
    pub account: Account,
    /// Where.
    pub zone: String,
    /// The template's id.
    pub template: String,
    /// As the cloud names it: `standard.small`.
    pub instance_type: String,
    /// GiB of the disk; `None`: as large as the template's, or what `grow` asks for.
    pub disk_gib: Option<u64>,
    /// Groups that are there; none: one is made that lets in SSH alone.
    pub security_groups: Vec<String>,
    /// Who logs in; `None`: as the template says.
    pub user: Option<String>,
    /// The port of SSH.
    pub port: u16,
    /// For the guest to answer; `None`: five minutes.
    pub ssh_timeout: Option<Duration>,
    /// A further part of user-data.
    pub user_data: Option<Vec<u8>>,
    /// How operations of the cloud are waited for.
    pub polling: Polling,
    /// How the cloud is reached.
    pub http: &'a HttpOptions,
    /// Seconds since 1970.
    pub clock: &'a (dyn Fn() -> u64 + Sync),
    /// The checks.
    pub checks: &'a [Check],
    /// How they are made.
    pub run: &'a RunOptions,
    /// The host.
    pub surroundings: &'a Surroundings,
    /// Twelve random bytes at each call.
    pub random: &'a (dyn Fn() -> [u8; 12] + Sync),
    /// Takes what is being done, in one line.
    pub tell: &'a (dyn Fn(&str) + Sync),
    /// Called with the guest as soon as it has booted.
    pub with_guest: Option<&'a GuestWork<'a>>,
    /// Called with the machine when all is done, where it is kept until that returns.
    pub keep: Option<&'a (dyn Fn(&Kept) + Sync)>,
    /// Whether to stop.
    pub stop: Arc<Stop>,
}

impl std::fmt::Debug for CloudRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudRequest")
            .field("account", &self.account)
            .field("template", &self.template)
            .finish_non_exhaustive()
    }
}

/// What of the checks of an image an instance can tell.
fn tells(kind: Kind, property: &str) -> bool {
    match kind {
        Kind::Boot | Kind::CloudInit | Kind::Grow | Kind::Reboot => true,
        Kind::Login => property != "password-change",
        _ => false,
    }
}

/// Makes an instance of a template, asks it, and destroys it.
///
/// # Errors
/// There is no such template; the cloud refuses or does not answer; cancelled. What was made is destroyed then as well; where
/// that fails, the error says what is left.
pub fn cloud(request: &CloudRequest<'_>) -> Result<Report> {
    let started = Instant::now();
    let host = request.surroundings;
    let stop = &*request.stop;
    let means = Means {
        http: request.http,
        clock: request.clock,
        stop,
    };
    let mut told = |event: Event| match event {
        Event::Doing(text) | Event::Note(text) => (request.tell)(&text),
        Event::Progress { .. } => {}
    };
    let journal = host
        .publish
        .as_ref()
        .and_then(|access| access.journal.clone());
    if let Some(journal) = &journal {
        instance::sweep(
            &request.account,
            journal,
            request.polling,
            &means,
            &mut told,
        )?;
    }
    let (account, zone) = (&request.account, &request.zone);
    let template = instance::look_at_template(account, zone, &request.template, &means, &mut told)?;
    let user = { request.user.clone() }.or_else(|| template.default_user.clone());
    let user = user.ok_or_else(|| {
        Error::usage(format!(
            "template {} does not say who logs in",
            request.template
        ))
        .with_remedy("name the user: --user debian")
    })?;
    let name = "instance";
    let _run = RunDirectory::make(&host.runs, &host.run, name, stop)?;
    let directory = host.runs.join(&host.run).join(name);
    let access = Access::new(vec![user.clone()], &directory)?;
    let by_cloud = template.takes_key && request.user.is_none();
    let token = (request.random)();
    let wanted = InstanceRequest {
        account: account.clone(),
        zone: zone.clone(),
        template: request.template.clone(),
        instance_type: request.instance_type.clone(),
        disk_gib: disk_gib(request, &template)?,
        security_groups: request.security_groups.clone(),
        port: request.port,
        token: { token.iter() }.map(|byte| format!("{byte:02x}")).collect(),
        public_key: access.key.public_line(),
        key_by_cloud: by_cloud,
        user_data: user_data(request, &access, by_cloud)?,
        polling: request.polling,
        journal,
    };
    let rented = instance::rent(&wanted)?;
    let done = on_instance(
        request, &wanted, &template, &rented, &access, &means, &mut told,
    );
    let over = rented.give_back(&means, &mut told);
    drop(access);
    // Nothing to look at is in it.
    let _ = remove_tree(&directory);
    let mut report = match (done, over) {
        (Ok(report), Ok(())) => report,
        (Ok(_), Err(left)) => return Err(left),
        (Err(error), Ok(())) => return Err(error),
        // Who has asked to stop is told what costs money.
        (Err(error), Err(left)) => {
            let text = format!("{error}; {left}");
            return Err(Error::new(left.kind(), text).with_source(left));
        }
    };
    report.firmware = match template.boot_mode.as_deref() {
        Some("uefi") => Some("uefi"),
        Some("legacy") => Some("bios"),
        _ => None,
    };
    report.took = started.elapsed();
    Ok(report)
}

/// As asked for, or larger where it is to be seen whether the root grows.
fn disk_gib(request: &CloudRequest<'_>, template: &Template) -> Result<Option<u64>> {
    const GIB: u64 = 1 << 30;
    let wanted = Wanted(request.checks);
    let Some(grow) = wanted.of(Kind::Grow) else {
        return Ok(request.disk_gib);
    };
    if request.disk_gib.is_some() {
        return Ok(request.disk_gib);
    }
    if let Some(text) = grow.text("disk") {
        let size: ByteSize = text.parse().map_err(|error: Error| {
            Error::usage(format!("line {}: {error}", grow.line)).at_path(&grow.file)
        })?;
        return Ok(Some(size.0.div_ceil(GIB)));
    }
    let has = template.size.unwrap_or(0).div_ceil(GIB).max(10);
    Ok(Some(has + has / 2))
}

/// What the guest is told: the host key that it shows, and the key, where the cloud does not put that in.
fn user_data(request: &CloudRequest<'_>, access: &Access, by_cloud: bool) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    if let Some(bytes) = &request.user_data {
        parts.push(Part {
            name: "user-data".to_owned(),
            bytes: bytes.clone(),
        });
    }
    parts.push(access.part_of_cloud(by_cloud, request.user.as_deref())?);
    join_parts(&parts)
}

fn on_instance(
    request: &CloudRequest<'_>,
    wanted: &InstanceRequest,
    template: &Template,
    rented: &Rented,
    access: &Access,
    means: &Means<'_>,
    told: &mut dyn FnMut(Event),
) -> Result<Report> {
    let (checks, stop, tell) = (request.checks, &*request.stop, request.tell);
    let running = instance::launch(wanted, template, rented, means, told)?;
    let up = Instant::now();
    let guest = Guest {
        request,
        access,
        running: &running,
    };
    let user = access.users.first().map_or("", String::as_str);
    tell(&format!(
        "instance {} answers at {}: waiting for SSH",
        running.id, running.address
    ));
    let ssh = guest.way_in(user, None)?;
    let limits = Limits {
        timeout: Some(request.ssh_timeout.unwrap_or(TIMEOUT)),
        attempts: None,
    };
    let mut known = Known::default();
    let mut notes = Vec::new();
    let asks = Wanted(checks);
    let of_guest = match kept(wait(&ssh, &limits, stop))? {
        Err(why) if request.with_guest.is_some() => {
            return Err(Error::new(ErrorKind::Connection, why));
        }
        Err(why) => {
            known.unknown(&asks, &why);
            for user in asks.users(&["password"]) {
                known.logins.note(&user, "password", Err(why.clone()));
            }
            unreachable(checks, &why)
        }
        Ok(()) => {
            let after = up.elapsed();
            tell(&format!(
                "logged in as {user} after {:.1} s",
                after.as_secs_f64()
            ));
            let limit = asks.of(Kind::CloudInit).map_or(TIMEOUT, Check::timeout);
            let cloud_init = kept(inside::cloud_init(&ssh, limit, stop))?;
            notes.extend(cloud_init.as_ref().err().cloned());
            known.cloud_init = Some(cloud_init);
            if let Some(work) = request.with_guest {
                work(&ssh)?;
            }
            if asks.any(Kind::Boot) {
                known.boot = Some(kept(inside::boot(&ssh, after, 1))?);
            }
            tell("asking the guest");
            let done = goss::run(checks, &ssh, request.run, stop, &mut |round, failures| {
                tell(&format!("round {round}: {failures} failed"));
            });
            let of_guest = match kept(done)? {
                Ok(done) => {
                    if done.as_root == Some(false) {
                        notes.push(format!("{user} is not root, and cannot become it without a password: the guest was asked as {user}"));
                    }
                    done.outcomes
                }
                Err(why) => unreachable(checks, &why),
            };
            if asks.any(Kind::Grow) {
                let root = kept(inside::root_size(&ssh))?;
                known.grow = Some(root.and_then(|root| {
                    let root = root.ok_or("the guest does not tell the size of its root")?;
                    let has = template.size.ok_or("the template does not tell its size")?;
                    Ok((root, has, running.disk_gib.saturating_mul(1 << 30)))
                }));
            }
            logins(&guest, wanted, template, &asks, &mut known, means, told)?;
            if let Some(check) = asks.of(Kind::Reboot) {
                tell("rebooting");
                let done = journey::reboot(&|| None, &ssh, check.timeout(), stop);
                known.reboot = Some(kept(done)?);
            }
            if let Some(keep) = request.keep {
                keep(&Kept {
                    host: running.address.to_string(),
                    port: request.port,
                    user: user.to_owned(),
                    key_file: access.key_file.clone(),
                });
            }
            ssh.disconnect();
            of_guest
        }
    };
    let (outcomes, left_out) = joined_in_part(checks, of_guest, &known, &tells);
    notes.extend(left_out_of(left_out));
    Ok(Report {
        subject: format!("exoscale:{} ({})", request.template, request.zone),
        firmware: None,
        sha256: None,
        outcomes,
        notes,
        evidence: Evidence::default(),
        took: up.elapsed(),
    })
}

/// The instance, and the ways in.
struct Guest<'a> {
    request: &'a CloudRequest<'a>,
    access: &'a Access,
    running: &'a Running,
}

impl Guest<'_> {
    fn way_in(&self, user: &str, password: Option<&Password>) -> Result<Ssh> {
        let address = self.running.address.to_string();
        let mut options = Options::new(&address, self.request.port, user);
        self.access.prove(&mut options, password);
        Ssh::new(options, Arc::clone(&self.request.stop), None)
    }

    /// Whether `user` gets in.
    fn lets_in(
        &self,
        user: &str,
        password: Option<&Password>,
        stop: &Stop,
    ) -> Result<Result<bool, String>> {
        let ssh = self.way_in(user, password)?;
        let limits = Limits {
            timeout: Some(Duration::from_secs(60)),
            attempts: Some(1),
        };
        let waited = ssh.wait(&limits, stop, &mut |_| ());
        ssh.disconnect();
        match waited {
            Ok(_) => Ok(Ok(true)),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) if error.kind() == ErrorKind::Connection => Ok(Ok(false)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// Logins by the key, and by the password that the cloud has made.
fn logins(
    guest: &Guest<'_>,
    wanted: &InstanceRequest,
    template: &Template,
    asks: &Wanted<'_>,
    known: &mut Known,
    means: &Means<'_>,
    told: &mut dyn FnMut(Event),
) -> Result<()> {
    for user in asks.users(&["key"]) {
        let result = guest.lets_in(&user, None, means.stop)?;
        known.logins.note(&user, "key", result);
    }
    let users = asks.users(&["password"]);
    if users.is_empty() {
        return Ok(());
    }
    let found = match template.has_password {
        true => kept(instance::password(wanted, &guest.running.id, means, told))?,
        false => Ok(None),
    };
    for user in users {
        let result = match &found {
            Ok(Some(password)) => {
                guest.lets_in(&user, Some(&Password(password.clone())), means.stop)?
            }
            // Without one, there is none that lets in.
            Ok(None) => Ok(false),
            Err(why) => Err(why.clone()),
        };
        known.logins.note(&user, "password", result);
    }
    Ok(())
}

//! Templates of Exoscale's: an image is put into its object store, registered, and copied to further zones; instances are made
//! of them for tests.
//!
//! Knows the order of these steps, and which of them are done already. Must not know where an image comes from.
//!
//! What is known of the service is what its vendor publishes. The tests run against a server made of that; nothing here has
//! been run against the service itself.

mod api;
pub mod instance;
mod memo;
pub mod preflight;
pub mod signature;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

#[cfg(fuzzing)]
pub use api::read_all;
pub use api::{Account, Loose, Polling, Registration, Template};
pub use preflight::preflight;

use super::attend::{Event, Work, attended};
use super::courier::Courier;
use super::original::Original;
use super::s3::{self, Credentials, Style, Target};
use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::HttpOptions;
use crate::fetch::source::shown;
use api::{Api, is_id};
use memo::Memo;

/// How long the cloud has for reading the image by a link.
const LINK: Duration = Duration::from_secs(24 * 3600);

/// How the cloud gets at the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// By a link that holds for a day: nobody else can read it.
    #[default]
    Link,
    /// As everybody can: the object is public.
    Public,
}

/// Where objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStore {
    /// The bucket, which exists.
    pub bucket: String,
    /// Its zone; `None`: the template's first one.
    pub zone: Option<String>,
    /// Instead of `https://sos-ZONE.exo.io`.
    pub endpoint: Option<String>,
    /// The object's name; `None`: the file's.
    pub key: Option<String>,
}

/// What is to become of an image.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub account: Account,
    /// Zones, of which the first one registers; at least one.
    pub zones: Vec<String>,
    /// Where the image waits.
    pub store: ObjectStore,
    /// What the template is called, and all that is said of it; its URL and checksum are those of the image.
    pub registration: Registration,
    /// How the cloud reads it.
    pub reading: Reading,
    /// Leave the object where it is.
    pub keep_object: bool,
    /// How operations are waited for.
    pub polling: Polling,
    /// Where uploads and operations that are going on are remembered.
    pub journal: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    /// The template's id.
    pub template: String,
    /// Its name.
    pub name: String,
    /// Zones that have it.
    pub zones: Vec<String>,
    /// MD5 of the image, in hexadecimal digits.
    pub checksum: String,
    /// Where the object is or was, without a signature.
    pub url: String,
    /// The object is there.
    pub object_kept: bool,
    /// A template of this name with this checksum was there, and none was registered.
    pub was_there: bool,
}

/// What is to be released.
#[derive(Debug, Clone)]
pub struct Release {
    /// Id of the template.
    pub template: String,
    /// Where it is.
    pub from: Account,
    /// Where it goes.
    pub to: Account,
    /// Zones there, of which the first one registers; none: those of the template.
    pub zones: Vec<String>,
    /// The zone that is asked for the template.
    pub from_zone: String,
    /// What its object is signed with and removed by, where it lies in the vendor's store or in this one.
    pub store_endpoint: Option<String>,
    /// Leave the object where it is.
    pub keep_object: bool,
    /// How operations are waited for.
    pub polling: Polling,
    /// Where operations that are going on are remembered.
    pub journal: Option<PathBuf>,
}

/// What clocks and servers everything is done with.
pub struct Means<'a> {
    /// How servers are talked to.
    pub http: &'a HttpOptions,
    /// Seconds since 1970.
    pub clock: &'a (dyn Fn() -> u64 + Sync),
    /// Whether to stop.
    pub stop: &'a Stop,
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means")
            .field("http", self.http)
            .finish_non_exhaustive()
    }
}

/// Publishes `original` as a template. One of the same name and checksum that is there already is only copied to zones that
/// lack it.
///
/// # Errors
/// Fields that the service does not take; a server that does not answer or refuses; [`Cancelled`](ErrorKind::Cancelled). What
/// was done stays done: the same call goes on with it.
pub fn publish(
    original: &Original,
    request: &Request,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Published> {
    check(&request.registration, &request.zones)?;
    let checksum = original.md5().hex();
    let mut registration = request.registration.clone();
    registration.checksum.clone_from(&checksum);
    let home = request.zones.first().cloned().unwrap_or_default();
    let target = object(original, request, &home);
    let memo = Memo::new(
        request.journal.as_deref(),
        &request.account.environment,
        &home,
        &registration,
    );
    let there = attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.account, &courier, means);
        work.begin(
            format!("look for template '{}' in {home}", registration.name),
            0,
        );
        find(&api, &home, &registration, &memo, request.polling, work)
    })?;
    let was_there = there.is_some();
    let url = target.url()?;
    let credentials = Credentials {
        key: request.account.key.clone(),
        secret: request.account.secret.clone(),
        token: None,
    };
    let template = match there {
        Some(template) => template,
        None => {
            s3::upload(
                original,
                &target,
                &credentials,
                means.http,
                means.stop,
                tell,
            )?;
            registration.url = match request.reading {
                Reading::Public => url.clone(),
                Reading::Link => s3::link(&target, &credentials, LINK)?,
            };
            attended(means.stop, tell, |work| {
                let courier = Courier::new(means.http, work)?;
                let api = api(&request.account, &courier, means);
                register(&api, &home, &registration, &memo, request.polling, work)
            })?
        }
    };
    let zones = attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.account, &courier, means);
        spread(&api, &template, &request.zones, request.polling, work)
    })?;
    if !request.keep_object {
        tell(Event::Doing(format!("remove {}", target.shown())));
        s3::remove(&target, &credentials, means.http, means.stop)?;
    }
    Ok(Published {
        template,
        name: registration.name,
        zones,
        checksum,
        url,
        object_kept: request.keep_object,
        was_there,
    })
}

/// Registers a template of one environment in another one, from the same object.
///
/// # Errors
/// There is no such template, or it does not say where its image is; as [`publish`].
pub fn release(
    request: &Release,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Published> {
    if !is_id(&request.template) {
        return Err(Error::usage(format!(
            "'{}' is no template's id",
            request.template
        )));
    }
    let (template, registration, target) = attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.from, &courier, means);
        work.begin(format!("read template {}", request.template), 0);
        let found = api.template(&request.from_zone, &request.template)?;
        let template = found.ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "there is no template {} in {}",
                    request.template, request.from.environment
                ),
            )
            .with_remedy("check the id, the environment it is in and the zone: --from, --zone")
        })?;
        let registration = again(&template)?;
        let target = own_object(&registration.url, request);
        Ok((template, registration, target))
    })?;
    let zones = match request.zones.is_empty() {
        true if template.zones.is_empty() => vec![request.from_zone.clone()],
        true => template.zones.clone(),
        false => request.zones.clone(),
    };
    let mut registration = registration;
    check(&registration, &zones)?;
    let home = zones.first().cloned().unwrap_or_default();
    let url = shown(&registration.url).trim_end_matches("?...").to_owned();
    let credentials = Credentials {
        key: request.to.key.clone(),
        secret: request.to.secret.clone(),
        token: None,
    };
    let was_signed = registration.url.contains("X-Amz-Signature=");
    if let (true, Some(target)) = (was_signed, &target) {
        // The link that is on record may be over by now.
        registration.url = s3::link(target, &credentials, LINK)?;
    }
    let memo = Memo::new(
        request.journal.as_deref(),
        &request.to.environment,
        &home,
        &registration,
    );
    let (id, was_there, zones) = attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.to, &courier, means);
        let there = find(&api, &home, &registration, &memo, request.polling, work)?;
        let was_there = there.is_some();
        let id = match there {
            Some(id) => id,
            None => register(&api, &home, &registration, &memo, request.polling, work)?,
        };
        let zones = spread(&api, &id, &zones, request.polling, work)?;
        Ok((id, was_there, zones))
    })?;
    let removed = match (&target, request.keep_object) {
        (Some(target), false) => {
            tell(Event::Doing(format!("remove {}", target.shown())));
            s3::remove(target, &credentials, means.http, means.stop)?;
            true
        }
        (None, false) => {
            tell(Event::Note(format!(
                "{url} is not in the account's object store, and stays"
            )));
            false
        }
        _ => false,
    };
    Ok(Published {
        template: id,
        name: registration.name,
        zones,
        checksum: registration.checksum,
        url,
        object_kept: !removed,
        was_there,
    })
}

fn api<'a>(account: &'a Account, courier: &'a Courier<'a>, means: &Means<'a>) -> Api<'a> {
    Api {
        account,
        courier,
        clock: means.clock,
    }
}

/// What the service documents of the fields.
fn check(registration: &Registration, zones: &[String]) -> Result<()> {
    let length = registration.name.chars().count();
    if !(1..=255).contains(&length) {
        return Err(Error::usage("a template's name has 1 to 255 characters"));
    }
    if registration
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > 255)
    {
        return Err(Error::usage(
            "a template's description has 255 characters at most",
        ));
    }
    if let Some(mode) = registration
        .boot_mode
        .as_deref()
        .filter(|mode| !["legacy", "uefi"].contains(mode))
    {
        return Err(Error::usage(format!("there is no boot mode '{mode}'"))
            .with_remedy("there is legacy, and uefi"));
    }
    if zones.is_empty() {
        return Err(Error::usage("a template needs a zone").with_remedy("name one: ch-gva-2"));
    }
    let is_zone = |zone: &&String| {
        zone.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !zone.is_empty()
    };
    match zones.iter().find(|zone| !is_zone(zone)) {
        Some(zone) => {
            Err(Error::usage(format!("'{zone}' is no zone")).with_remedy("name one: ch-gva-2"))
        }
        None => Ok(()),
    }
}

fn object(original: &Original, request: &Request, home: &str) -> Target {
    let store = &request.store;
    let zone = store.zone.as_deref().unwrap_or(home);
    let endpoint = store
        .endpoint
        .clone()
        .unwrap_or_else(|| format!("https://sos-{zone}.exo.io"));
    let key = store.key.clone().unwrap_or_else(|| original.name());
    let mut target = Target::new(&endpoint, zone, &store.bucket, &key);
    target.acl = (request.reading == Reading::Public).then(|| "public-read".to_owned());
    target.journal.clone_from(&request.journal);
    target
}

/// The object that a template was made of, if it is in the account's store.
fn own_object(url: &str, request: &Release) -> Option<Target> {
    let plain = url.split(['?', '#']).next()?;
    let (zone, endpoint, path) = match &request.store_endpoint {
        Some(endpoint) => {
            let endpoint = endpoint.trim_end_matches('/');
            (
                request.from_zone.as_str(),
                endpoint.to_owned(),
                plain.strip_prefix(endpoint)?.strip_prefix('/')?,
            )
        }
        None => {
            let (zone, path) = plain.strip_prefix("https://sos-")?.split_once(".exo.io/")?;
            (zone, format!("https://sos-{zone}.exo.io"), path)
        }
    };
    let (bucket, key) = path.split_once('/')?;
    let key = unescaped(key)?;
    let mut target = Target::new(&endpoint, zone, bucket, &key);
    target.style = Style::Path;
    Some(target)
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind.get(2..)?;
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()
}

/// What it takes to register a template once more.
fn again(template: &Template) -> Result<Registration> {
    let known = template.registration.clone();
    let lacks = |what: &str| {
        Error::new(
            ErrorKind::Io,
            format!("template {} does not say its {what}", template.id),
        )
        .with_remedy("publish the image itself: qimg publish")
    };
    Ok(Registration {
        name: known.name.ok_or_else(|| lacks("name"))?,
        url: known
            .url
            .filter(|url| !url.is_empty())
            .ok_or_else(|| lacks("URL"))?,
        checksum: known
            .checksum
            .filter(|sum| !sum.is_empty())
            .ok_or_else(|| lacks("checksum"))?,
        password_enabled: known.password_enabled.unwrap_or(true),
        ssh_key_enabled: known.ssh_key_enabled.unwrap_or(true),
        boot_mode: known.boot_mode,
        default_user: known.default_user,
        description: known.description,
        maintainer: known.maintainer,
        version: known.version,
        build: known.build,
        size: known.size,
        application_consistent_snapshot_enabled: known.application_consistent_snapshot_enabled,
    })
}

/// The template that is there already: registered by an earlier run that was interrupted, or before.
fn find(
    api: &Api<'_>,
    zone: &str,
    registration: &Registration,
    memo: &Memo,
    polling: Polling,
    work: &Work,
) -> Result<Option<String>> {
    if let Some(id) = memo.read()?
        && let Some(operation) = api.operation(zone, &id)?
        && !matches!(operation.state.as_str(), "failure" | "timeout")
    {
        work.note("an earlier run has asked for it already".to_owned());
        let done = api.wait(
            zone,
            operation,
            &format!("register template '{}'", registration.name),
            polling,
        )?;
        memo.forget()?;
        if let Some(id) = done.reference_id() {
            return Ok(Some(id.to_owned()));
        }
    }
    let templates = api.templates(zone)?;
    let same = templates.into_iter().rev().find(|template| {
        let known = &template.registration;
        known.name.as_deref() == Some(&registration.name)
            && known
                .checksum
                .as_deref()
                .is_some_and(|sum| sum.eq_ignore_ascii_case(&registration.checksum))
            && known.version.as_deref().unwrap_or_default()
                == registration.version.as_deref().unwrap_or_default()
            && is_id(&template.id)
    });
    Ok(same.map(|template| {
        work.note(format!(
            "template {} has this name and checksum already",
            template.id
        ));
        template.id
    }))
}

fn register(
    api: &Api<'_>,
    zone: &str,
    registration: &Registration,
    memo: &Memo,
    polling: Polling,
    work: &Work,
) -> Result<String> {
    let what = format!("register template '{}'", registration.name);
    work.begin(format!("{what} in {zone}"), 0);
    let operation = api.register(zone, registration)?;
    memo.write(&operation.id)?;
    let done = api.wait(zone, operation, &what, polling);
    if done
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Io)
    {
        memo.forget()?;
    }
    let done = done?;
    let id = done.reference_id().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::Io,
            format!("cannot {what}: Exoscale does not say its id"),
        )
        .with_remedy("run the same command again: it looks for the template")
    })?;
    memo.forget()?;
    Ok(id)
}

/// Copies a template to all zones that lack it; the zones that have it.
fn spread(
    api: &Api<'_>,
    id: &str,
    zones: &[String],
    polling: Polling,
    work: &Work,
) -> Result<Vec<String>> {
    let Some((home, further)) = zones.split_first() else {
        return Ok(Vec::new());
    };
    let there = match further.is_empty() {
        true => Vec::new(),
        false => api
            .template(home, id)?
            .map(|template| template.zones)
            .unwrap_or_default(),
    };
    let mut have = vec![home.clone()];
    for zone in further {
        if !have.contains(zone) {
            if !there.contains(zone) {
                let what = format!("copy template {id} to {zone}");
                work.begin(what.clone(), 0);
                let operation = api.copy(home, id, zone)?;
                api.wait(home, operation, &what, polling)?;
            }
            have.push(zone.clone());
        }
    }
    Ok(have)
}

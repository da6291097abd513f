//! Artifacts that go to an object store or a cloud.
//!
//! Joins what a template says with what the host has: keys, proxies, and a place to remember what was interrupted.

use std::time::Duration;

use super::{Context, Event};
use crate::build::artifact::Artifact;
use crate::error::{Error, Result};
use crate::publish::exoscale::preflight::Severity;
use crate::publish::exoscale::{self, Account, Means, ObjectStore, Polling, Reading, Registration};
use crate::publish::s3::{self, Credentials, Target};
use crate::publish::{self, Access, Original};
use crate::template::model::{ExoscaleImport, Keys, S3Upload, Text};

/// What Packer's plugin calls what it makes.
const EXOSCALE: &str = "packer.post-processor.exoscale-import";

/// Uploads all files of an artifact, the main one first.
pub(super) fn s3(
    job: &S3Upload,
    artifact: &Artifact,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Artifact> {
    let access = access(context)?;
    let said = Said { context };
    let found = access.s3(said.of(job.profile.as_ref())?.as_deref());
    let credentials = match said.keys(&job.keys)? {
        Some(credentials) => credentials,
        None => found.credentials.clone().ok_or_else(publish::no_s3_keys)?,
    };
    let region = said.of(job.region.as_ref())?.or(found.region);
    let endpoint = said.of(job.endpoint.as_ref())?.or(found.endpoint);
    let (endpoint, region, style) = publish::s3_place(endpoint, region, job.virtual_host);
    let bucket = said.text(&job.bucket)?;
    let key = said.text(&job.key)?;
    let single = !key.is_empty() && !key.ends_with('/');
    let files = artifact
        .files
        .iter()
        .take(if single { 1 } else { usize::MAX });
    let mut id = Vec::new();
    for file in files {
        let place = context.place(file);
        let name = place
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let key = if single {
            key.clone()
        } else {
            format!("{key}{name}")
        };
        let mut target = Target::new(&endpoint, &region, &bucket, &key);
        target.style = style;
        target.acl = said.of(job.acl.as_ref())?;
        target.content_type = said.of(job.content_type.as_ref())?;
        target.storage_class = said.of(job.storage_class.as_ref())?;
        target.journal.clone_from(&access.journal);
        let mut tell = |event| told(event, tell);
        let length = crate::store::look(&place)?.map_or(0, |seen| seen.length);
        let part = s3::part_size(length, job.part_size)?;
        let original = Original::read(&place, part, context.stop, &mut tell)?;
        let done = s3::upload(
            &original,
            &target,
            &credentials,
            &access.http,
            context.stop,
            &mut tell,
        )?;
        tell(publish::Event::Note(format!(
            "{} is at {}",
            target.shown(),
            done.url
        )));
        id.push(target.shown());
    }
    Ok(Artifact {
        id: id.join(","),
        ..Artifact::of_post_processor("s3", artifact.files.clone())
    })
}

/// Makes a template of the main file of an artifact.
pub(super) fn exoscale(
    job: &ExoscaleImport,
    artifact: &Artifact,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Artifact> {
    let access = access(context)?;
    let said = Said { context };
    let credentials = match said.keys(&job.keys)? {
        Some(credentials) => credentials,
        None => access.exoscale().ok_or_else(publish::no_exoscale_keys)?,
    };
    // Beside the disk there may be variables of firmware, which are no image.
    let file = artifact
        .files
        .iter()
        .find(|file| file.extension().is_none_or(|end| end != "fd"));
    let file = file.ok_or_else(|| Error::usage("the artifact has no image"))?;
    let place = context.place(file);
    let findings = exoscale::preflight(&place, &job.boot_mode)?;
    for finding in &findings {
        tell(Event::Note(&format!(
            "{}: {} ({})",
            place.display(),
            finding.what,
            finding.remedy
        )));
    }
    if let (false, Some(first)) = (
        job.force,
        findings
            .iter()
            .find(|finding| finding.severity == Severity::Error),
    ) {
        return Err(Error::refused(first.what.clone(), first.remedy.clone()).at_path(file));
    }
    let request = exoscale::Request {
        account: Account {
            key: credentials.key,
            secret: credentials.secret,
            environment: said.text(&job.environment)?,
            endpoint: match said.of(job.api_endpoint.as_ref())? {
                Some(endpoint) => Some(endpoint),
                None => access.variable("EXOSCALE_API_ENDPOINT"),
            },
        },
        zones: job
            .zones
            .iter()
            .map(|zone| said.text(zone))
            .collect::<Result<_>>()?,
        store: ObjectStore {
            bucket: said.text(&job.bucket)?,
            zone: said.of(job.image_zone.as_ref())?,
            endpoint: said.of(job.store_endpoint.as_ref())?,
            key: said.of(job.key.as_ref())?,
        },
        registration: Registration {
            name: said.text(&job.name)?,
            password_enabled: !job.disable_password,
            ssh_key_enabled: !job.disable_ssh_key,
            boot_mode: Some(job.boot_mode.clone()),
            default_user: said.of(job.username.as_ref())?,
            description: said.of(job.description.as_ref())?,
            maintainer: said.of(job.maintainer.as_ref())?,
            version: said.of(job.version.as_ref())?,
            build: said.of(job.build.as_ref())?,
            ..Registration::default()
        },
        reading: if job.public {
            Reading::Public
        } else {
            Reading::Link
        },
        keep_object: job.keep_object,
        polling: Polling {
            timeout: Duration::from_secs(job.timeout.into()),
            ..Polling::default()
        },
        journal: access.journal.clone(),
    };
    let mut tell = |event| told(event, tell);
    let length = crate::store::look(&place)?.map_or(0, |seen| seen.length);
    let part = s3::part_size(length, None)?;
    let original = Original::read(&place, part, context.stop, &mut tell)?;
    let means = Means {
        http: &access.http,
        clock: access.clock,
        stop: context.stop,
    };
    let done = exoscale::publish(&original, &request, &means, &mut tell)?;
    tell(publish::Event::Note(format!(
        "template {} is in {}",
        done.template,
        done.zones.join(", ")
    )));
    Ok(Artifact {
        builder_id: EXOSCALE.to_owned(),
        id: done.template,
        files: Vec::new(),
        directory: None,
    })
}

fn access<'a>(context: &Context<'a>) -> Result<&'a Access> {
    context
        .access
        .ok_or_else(|| Error::unsupported("nothing is published here"))
}

fn told(event: publish::Event, tell: &mut dyn FnMut(Event<'_>)) {
    match event {
        publish::Event::Doing(text) | publish::Event::Note(text) => tell(Event::Note(&text)),
        publish::Event::Progress { done, total } => tell(Event::Progress { done, total }),
    }
}

/// Texts of the template, filled in.
struct Said<'a> {
    context: &'a Context<'a>,
}

impl Said<'_> {
    fn text(&self, text: &Text) -> Result<String> {
        let values = [
            ("BuildName", self.context.build_name),
            ("BuilderType", self.context.builder_type),
        ];
        (self.context.fill)(text, &values)
    }

    fn of(&self, text: Option<&Text>) -> Result<Option<String>> {
        let text = text.map(|text| self.text(text)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn keys(&self, keys: &Keys) -> Result<Option<Credentials>> {
        let (Some(key), Some(secret)) =
            (self.of(keys.key.as_ref())?, self.of(keys.secret.as_ref())?)
        else {
            return Ok(None);
        };
        Ok(Some(Credentials {
            key,
            secret,
            token: self.of(keys.token.as_ref())?,
        }))
    }
}

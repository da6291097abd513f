//! `qimg publish` and `qimg release`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use qimg::communicator::Stop;
use qimg::image::{Format, Image, OpenOptions};
use qimg::publish::exoscale::preflight::Severity;
use qimg::publish::exoscale::{self, Account, Means, ObjectStore, Polling, Reading, Registration};
use qimg::publish::s3::{self, Target, Verify};
use qimg::publish::{self, Access, Event, Original, directory, packed, put};
use qimg::store::look;
use qimg::{Error, Result};
use serde::Serialize;

use super::{Failure, Status, progress_wish, surroundings};
use crate::args::{ProgressMode, PublishArgs, PublishForm, ReleaseArgs, WaitArgs};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

/// Where it goes.
enum Destination {
    S3 { bucket: String, key: String },
    Exoscale,
    Put(String),
    Directory(PathBuf),
}

/// What became of it, as JSON has it.
#[derive(Serialize)]
#[serde(untagged)]
enum Report {
    S3 {
        #[serde(flatten)]
        uploaded: s3::Uploaded,
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<String>,
    },
    Exoscale(exoscale::Published),
    Put(put::Sent),
    Directory(directory::Published),
}

pub(super) fn run(
    args: &PublishArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let access = surroundings::access()?;
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop = move || flag.load(Ordering::Relaxed);
    if look(&args.artifact)?.is_none() {
        return Err(Error::usage("is not there").at_path(&args.artifact).into());
    }
    // Before anything is read that may be long.
    let (name, destination) = destination(args)?;
    if matches!(destination, Destination::Exoscale) && !preflight(args, console)? {
        return Ok(2);
    }
    let scratch = tempfile::Builder::new();
    let quiet = args.report.quiet;
    let report = {
        let wish = progress_wish(mode, args.progress, args.report.quiet);
        let mut meter = Meter::new(console, "publish", wish);
        let mut tell = |event: Event| match event {
            Event::Progress { done, total } => meter.update(done, total),
            Event::Doing(_) => {}
            Event::Note(text) if !quiet => meter.note(&text),
            Event::Note(_) => {}
        };
        let packed = args
            .form
            .map(|PublishForm::TarGz| pack(args, &scratch, &stop, &mut tell))
            .transpose()
            .map_err(|error| interrupt.failure(error))?;
        let file = packed.as_ref().map_or(&*args.artifact, |(_, path)| path);
        let done = send(args, &destination, &name, file, &access, &stop, &mut tell);
        if done.is_ok() {
            meter.finish();
        }
        done
    };
    let report = report.map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else if !args.report.quiet {
        let out = &mut console.out;
        match &report {
            Report::S3 { uploaded, link } => {
                human::publish::uploaded(out, uploaded, link.as_deref())?;
            }
            Report::Exoscale(published) => human::publish::template(out, published)?,
            Report::Put(sent) => human::publish::sent(out, sent)?,
            Report::Directory(published) => human::publish::version(out, published)?,
        }
    }
    Ok(0)
}

/// The name it has there, and where that is.
fn destination(args: &PublishArgs) -> Result<(String, Destination)> {
    let own = args
        .artifact
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let own = match args.form {
        Some(PublishForm::TarGz) => {
            let stem = Path::new(&*own).file_stem().unwrap_or_default();
            format!("{}.tar.gz", stem.to_string_lossy())
        }
        None => own.into_owned(),
    };
    let to = args.to.as_str();
    if to == "exoscale" {
        if args.form.is_some() {
            return Err(
                Error::usage("Exoscale takes qcow2 images alone").with_remedy("leave out --as")
            );
        }
        return Ok((own, Destination::Exoscale));
    }
    let name = args.name.clone().unwrap_or(own);
    let lower = to.to_ascii_lowercase();
    let destination = if to.starts_with("s3://") {
        let (bucket, key) = s3::parse(to, &name)?;
        Destination::S3 { bucket, key }
    } else if lower.starts_with("http://") || lower.starts_with("https://") {
        let slash = if to.ends_with('/') { name.as_str() } else { "" };
        Destination::Put(format!("{to}{slash}"))
    } else if let Some((scheme, _)) = to.split_once("://") {
        let text = format!("nothing is published by {scheme}");
        return Err(Error::unsupported(text).with_remedy(
            "there is s3://BUCKET/KEY, exoscale, http(s)://HOST/PATH, and a directory",
        ));
    } else {
        Destination::Directory(PathBuf::from(to))
    };
    Ok((name, destination))
}

/// Whether the cloud would take it.
fn preflight(args: &PublishArgs, console: &mut Console<'_>) -> Result<bool, Failure> {
    let template = &args.template;
    let findings = exoscale::preflight(&args.artifact, &template.boot_mode)?;
    human::publish::findings(console.err, &args.artifact, &findings)?;
    let breaks = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    Ok(!breaks || template.force)
}

fn pack(
    args: &PublishArgs,
    scratch: &tempfile::Builder<'_, '_>,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(tempfile::TempDir, PathBuf)> {
    let raw = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = match args
        .artifact
        .extension()
        .is_some_and(|end| end == "raw" || end == "img")
    {
        true => Image::open(&args.artifact, &raw)?,
        false => Image::open(&args.artifact, &OpenOptions::default())?,
    };
    let directory = scratch
        .tempdir()
        .map_err(|error| Error::io("make a temporary directory", error))?;
    let path = directory.path().join("disk.tar.gz");
    packed::pack(&image, &path, stop, tell)?;
    Ok((directory, path))
}

fn send(
    args: &PublishArgs,
    destination: &Destination,
    name: &str,
    file: &Path,
    access: &Access,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Report> {
    let length = look(file)?.map_or(0, |seen| seen.length);
    let part_size = s3::part_size(length, args.store.part_size.map(|size| size.0))?;
    match destination {
        Destination::S3 { bucket, key } => {
            let store = &args.store;
            let found = access.s3(store.profile.as_deref());
            let credentials = found.credentials.ok_or_else(publish::no_s3_keys)?;
            let (endpoint, region, style) = publish::s3_place(
                store.endpoint.clone().or(found.endpoint),
                store.region.clone().or(found.region),
                store.virtual_host,
            );
            let target = Target {
                style,
                acl: store.acl.clone(),
                content_type: store.content_type.clone(),
                storage_class: store.storage_class.clone(),
                at_once: store.parallel.get(),
                verify: if args.verify {
                    Verify::Always
                } else {
                    Verify::IfNeeded
                },
                journal: access.journal.clone(),
                ..Target::new(&endpoint, &region, bucket, key)
            };
            let link = store
                .link
                .map(|seconds| s3::link(&target, &credentials, Duration::from_secs(seconds)))
                .transpose()?;
            let original = Original::read(file, part_size, stop, tell)?;
            let uploaded = s3::upload(&original, &target, &credentials, &access.http, stop, tell)?;
            Ok(Report::S3 { uploaded, link })
        }
        Destination::Exoscale => {
            let request = template(args, access)?;
            let original = Original::read(file, part_size, stop, tell)?;
            let means = Means {
                http: &access.http,
                clock: access.clock,
                stop,
            };
            exoscale::publish(&original, &request, &means, tell).map(Report::Exoscale)
        }
        Destination::Put(url) => {
            let request = put::Request {
                url: url.clone(),
                authorization: access.variable("QIMG_PUT_AUTHORIZATION"),
                content_type: args.store.content_type.clone(),
                read_back: args.verify,
            };
            let original = Original::read(file, part_size, stop, tell)?;
            put::send(&original, &request, &access.http, stop, tell).map(Report::Put)
        }
        Destination::Directory(place) => {
            let time = surroundings::now().as_secs();
            let stamp = human::date::seconds(i64::try_from(time).unwrap_or(0));
            let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
            let request = directory::Request {
                directory: place.clone(),
                name: name.to_owned(),
                version: args.version_name.clone(),
                default_version: digits,
                time,
                keep: args.directory.keep.map(std::num::NonZeroUsize::get),
            };
            let original = Original::read(file, part_size, stop, tell)?;
            directory::publish(&original, &request, stop, tell).map(Report::Directory)
        }
    }
}

fn template(args: &PublishArgs, access: &Access) -> Result<exoscale::Request> {
    let typed = &args.template;
    let wanted = |what: &str, option: &str| {
        Error::usage(format!("a template needs {what}")).with_remedy(format!("give {option}"))
    };
    let bucket = typed
        .bucket
        .clone()
        .ok_or_else(|| wanted("a bucket where its image waits", "--bucket"))?;
    let name = args
        .name
        .clone()
        .ok_or_else(|| wanted("a name", "--name"))?;
    if typed.zones.is_empty() {
        return Err(wanted("a zone", "--zone"));
    }
    Ok(exoscale::Request {
        account: account(
            access,
            &typed.environment,
            "EXOSCALE_API_KEY",
            "EXOSCALE_API_SECRET",
        )?,
        zones: typed.zones.clone(),
        store: ObjectStore {
            bucket,
            zone: typed.image_zone.clone(),
            endpoint: args.store.endpoint.clone(),
            key: None,
        },
        registration: Registration {
            name,
            password_enabled: !typed.disable_password,
            ssh_key_enabled: !typed.disable_ssh_key,
            boot_mode: Some(typed.boot_mode.clone()),
            default_user: typed.username.clone(),
            description: typed.description.clone(),
            maintainer: typed.maintainer.clone(),
            version: args.version_name.clone(),
            build: typed.build_name.clone(),
            application_consistent_snapshot_enabled: typed.consistent_snapshots.then_some(true),
            ..Registration::default()
        },
        reading: if typed.public {
            Reading::Public
        } else {
            Reading::Link
        },
        keep_object: typed.keep_object,
        polling: polling(&typed.wait)?,
        journal: access.journal.clone(),
    })
}

pub(super) fn polling(typed: &WaitArgs) -> Result<Polling> {
    let pause = Duration::try_from_secs_f64(typed.poll)
        .ok()
        .filter(|pause| !pause.is_zero())
        .ok_or_else(|| Error::usage("--poll takes a number of seconds above 0"))?;
    Ok(Polling {
        pause,
        timeout: Duration::from_secs(typed.timeout),
    })
}

pub(super) fn account(
    access: &Access,
    environment: &str,
    key: &str,
    secret: &str,
) -> Result<Account> {
    let (Some(key), Some(secret)) = (access.variable(key), access.variable(secret)) else {
        return Err(publish::no_exoscale_keys());
    };
    Ok(Account {
        key,
        secret,
        environment: environment.to_owned(),
        endpoint: access.variable("EXOSCALE_API_ENDPOINT"),
    })
}

pub(super) fn release(args: &ReleaseArgs, console: &mut Console<'_>) -> Status {
    let access = surroundings::access()?;
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop = move || flag.load(Ordering::Relaxed);
    let to = account(&access, &args.to, "EXOSCALE_API_KEY", "EXOSCALE_API_SECRET")?;
    let from = match access.variable("EXOSCALE_FROM_API_KEY") {
        Some(_) => account(
            &access,
            &args.from,
            "EXOSCALE_FROM_API_KEY",
            "EXOSCALE_FROM_API_SECRET",
        )?,
        None => account(
            &access,
            &args.from,
            "EXOSCALE_API_KEY",
            "EXOSCALE_API_SECRET",
        )?,
    };
    let first = args.zones.first().cloned().unwrap_or_default();
    let request = exoscale::Release {
        template: args.template.clone(),
        from,
        to,
        zones: args.zones.clone(),
        from_zone: args.from_zone.clone().unwrap_or(first),
        store_endpoint: args.endpoint.clone(),
        keep_object: args.keep_object,
        polling: polling(&args.wait)?,
        journal: access.journal.clone(),
    };
    let means = Means {
        http: &access.http,
        clock: access.clock,
        stop: &stop,
    };
    let mut notes = Vec::new();
    let released = exoscale::release(&request, &means, &mut |event| {
        if let Event::Note(text) = event {
            notes.push(text);
        }
    });
    if !args.report.quiet {
        for note in &notes {
            human::publish::note(console.err, note)?;
        }
    }
    let released = released.map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &released)?;
    } else if !args.report.quiet {
        human::publish::template(&mut console.out, &released)?;
    }
    Ok(0)
}

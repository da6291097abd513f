//! `qimg build --all`: a directory with many images, of which those are built that have changed.
//!
//! Knows which folders are images, what Git says of their files, and which base each was built from the last time. Must not
//! know how an image is built.
//!
//! Git is asked by its program: whoever has a checkout has it, in the version that wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use qimg::communicator::Stop;
use qimg::fetch;
use qimg::store::{look, names_in, read_file, write_file};
use qimg::{Error, Result};
use serde::Serialize;

use super::{Failure, Status, build, surroundings, template};
use crate::args::{BuildArgs, ImagesArgs};
use crate::render::{Console, json};
use crate::signals::Interrupt;

/// Files that make a folder an image.
const TEMPLATES: [&str; 2] = ["image.toml", "template.json"];

/// The digests of bases are not longer.
const MOST_BASES: u64 = 16 << 20;

const BASES: &str = "bases.json";

/// An image that would be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Image {
    name: String,
    template: PathBuf,
    /// Its place among all.
    index: usize,
    /// In words.
    reason: String,
}

/// Digests of the bases of each image at its last build.
type Bases = BTreeMap<String, Vec<String>>;

pub(super) fn run(args: &BuildArgs, directory: &Path, console: &mut Console<'_>) -> Status {
    let wanted = &args.images;
    let bases_path = wanted
        .bases
        .clone()
        .unwrap_or_else(|| directory.join(BASES));
    let mut bases = read_bases(&bases_path)?;
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop = move || flag.load(Ordering::Relaxed);
    let all = found(directory)?;
    let chosen = chosen(all, wanted, directory)?;
    let changed = match &wanted.changed_since {
        Some(since) => {
            let files = changed_files(directory, since)?;
            changed(args, directory, &bases_path, &bases, chosen, &files, &stop)
                .map_err(|error| interrupt.failure(error))?
        }
        None => chosen,
    };
    if wanted.list {
        if args.output.json {
            json::print(&mut console.out, &changed)?;
        } else {
            for image in &changed {
                writeln!(console.out, "{}", image.name)?;
            }
        }
        return Ok(0);
    }
    if changed.is_empty() && !args.output.json && !args.output.machine_readable {
        writeln!(console.out, "Nothing has changed.")?;
    }
    let mut worst = 0;
    for image in &changed {
        if !args.output.json && !args.output.machine_readable {
            writeln!(console.out, "Image {}: {}", image.name, image.reason)?;
        }
        // What its base is now: asked before it is built, so that a change meanwhile counts the next time.
        let digests = (!args.plan)
            .then(|| bases_of(args, &image.template, &stop))
            .transpose();
        let ended = digests
            .map_err(|error| interrupt.failure(error))
            .and_then(|digests| {
                let code = build::one(args, &image.template, &format!("-{}", image.name), console)?;
                Ok((code, digests))
            });
        match ended {
            Ok((0, digests)) => {
                // A base of which nobody knows the digest is another one each time.
                if let Some(digests) = digests.flatten() {
                    bases.insert(image.name.clone(), digests);
                    write_bases(&bases_path, &bases)?;
                }
            }
            Ok((code, _)) if worst == 0 => worst = code,
            Ok(_) => {}
            Err(failure) if stop() => return Err(failure),
            Err(Failure { error, code }) => {
                crate::render::error::failure(console.err, &error)?;
                if worst == 0 {
                    worst = code;
                }
            }
        }
    }
    Ok(worst)
}

/// All images, by name.
fn found(directory: &Path) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for folder in names_in(directory)? {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut templates = Vec::new();
        for file in TEMPLATES {
            let path = folder.join(file);
            if look(&path).ok().flatten().is_some() {
                templates.push(path);
            }
        }
        match templates.as_slice() {
            [] => {}
            [template] => images.push(Image {
                name,
                template: template.clone(),
                index: images.len(),
                reason: "all are built".to_owned(),
            }),
            _ => {
                return Err(Error::usage("has two templates")
                    .with_remedy("leave image.toml or template.json, not both")
                    .at_path(folder));
            }
        }
    }
    if images.is_empty() {
        return Err(Error::usage("holds no image")
            .with_remedy("an image is a folder in it with an image.toml or a template.json")
            .at_path(directory));
    }
    Ok(images)
}

fn chosen(all: Vec<Image>, wanted: &ImagesArgs, directory: &Path) -> Result<Vec<Image>> {
    let names: Vec<String> = all.iter().map(|image| image.name.clone()).collect();
    if let Some(unknown) = wanted.chosen.iter().find(|name| !names.contains(name)) {
        return Err(Error::usage(format!("there is no image '{unknown}'"))
            .with_remedy(format!("there is {}", names.join(", ")))
            .at_path(directory));
    }
    let by_name = |image: &Image| wanted.chosen.is_empty() || wanted.chosen.contains(&image.name);
    let by_place = |image: &Image| wanted.index.is_none_or(|index| index == image.index);
    let chosen: Vec<Image> = all.into_iter().filter(by_name).filter(by_place).collect();
    if let (Some(index), true) = (wanted.index, chosen.is_empty()) {
        return Err(Error::usage(format!("there is no image at place {index}"))
            .with_remedy(format!("there are {}, from 0 on", names.len()))
            .at_path(directory));
    }
    Ok(chosen)
}

/// Those that have changed, with the reason.
fn changed(
    args: &BuildArgs,
    directory: &Path,
    bases_path: &Path,
    bases: &Bases,
    images: Vec<Image>,
    files: &BTreeSet<PathBuf>,
    stop: &Stop,
) -> Result<Vec<Image>> {
    let folders: BTreeSet<String> = found(directory)?
        .into_iter()
        .map(|image| image.name)
        .collect();
    let own = bases_path.strip_prefix(directory).ok();
    let first = |path: &Path| {
        path.iter()
            .next()
            .map(|name| name.to_string_lossy().into_owned())
    };
    // What is in no image's folder may be used by any of them.
    let shared = files.iter().find(|path| {
        Some(path.as_path()) != own && first(path).is_none_or(|name| !folders.contains(&name))
    });
    let mut changed = Vec::new();
    for image in images {
        let file = files
            .iter()
            .find(|path| first(path).as_ref() == Some(&image.name));
        let reason = match file.or(shared) {
            Some(path) => Some(format!("{} has changed", path.display())),
            None => match (
                bases_of(args, &image.template, stop)?,
                bases.get(&image.name),
            ) {
                (None, _) => {
                    Some("nobody knows whether its base has changed: it has no checksum".to_owned())
                }
                (Some(_), None) => Some("it was never built".to_owned()),
                (Some(now), Some(then)) if now != *then => Some("its base has changed".to_owned()),
                _ => None,
            },
        };
        changed.extend(reason.map(|reason| Image { reason, ..image }));
    }
    Ok(changed)
}

/// What the bases of a template come to now; `None`: of one of them, nobody knows.
fn bases_of(args: &BuildArgs, template: &Path, stop: &Stop) -> Result<Option<Vec<String>>> {
    let loaded = template::loaded(template, &args.values)?;
    loaded.usable().map_err(|error| error.at_path(template))?;
    let options = surroundings::fetching(&surroundings::cache(args.cache.as_deref())?);
    let directory = surroundings::directory()?;
    let mut digests = Vec::new();
    for build in &loaded.template.builds {
        let request = fetch::Request::of(&build.base, &directory);
        match fetch::expected(&request, &options, stop, &mut |_| {})? {
            Some(digest) => digests.push(format!("{}={digest}", build.name)),
            None => return Ok(None),
        }
    }
    Ok(Some(digests))
}

fn read_bases(path: &Path) -> Result<Bases> {
    if look(path)?.is_none() {
        return Ok(Bases::new());
    }
    let bytes = read_file(path, MOST_BASES)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::usage("does not hold digests of bases")
            .with_source(error)
            .with_remedy("remove it: every image then counts as never built")
            .at_path(path)
    })
}

fn write_bases(path: &Path, bases: &Bases) -> Result<()> {
    let text = serde_json::to_string_pretty(bases).unwrap_or_default() + "\n";
    write_file(path, text.as_bytes())
}

/// Files below `directory`, by paths from there, that differ from what they were when HEAD and `since` parted; those
/// that Git does not know yet count, too, unless it ignores them.
fn changed_files(directory: &Path, since: &str) -> Result<BTreeSet<PathBuf>> {
    if since.starts_with('-') || since.is_empty() {
        return Err(Error::usage(format!("'{since}' is no commit")));
    }
    let commit = format!("{since}^{{commit}}");
    let known = git(directory, &["rev-parse", "--verify", "--quiet", &commit]).map_err(|error| {
        error.with_remedy("name a commit that is here: a checkout in CI may be shallow, and needs its whole history")
    })?;
    let known = String::from_utf8_lossy(&known).trim().to_owned();
    let parted = git(directory, &["merge-base", &known, "HEAD"]).map_err(|error| {
        error.with_remedy("fetch the whole history: a checkout in CI may be shallow")
    })?;
    let parted = String::from_utf8_lossy(&parted).trim().to_owned();
    let mut files = BTreeSet::new();
    for arguments in [
        &[
            "diff",
            "--name-only",
            "-z",
            "--no-renames",
            "--relative",
            &parted,
            "--",
            ".",
        ][..],
        &[
            "ls-files",
            "--others",
            "--exclude-standard",
            "-z",
            "--",
            ".",
        ][..],
    ] {
        let listed = git(directory, arguments)?;
        let names = listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty());
        files.extend(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())));
    }
    Ok(files)
}

fn git(directory: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .output()
        .map_err(|error| {
            Error::io("run git", error)
                .with_remedy("install it: --changed-since asks Git which files have changed")
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim();
    let colon = if said.is_empty() { "" } else { ": " };
    let command = arguments.first().unwrap_or(&"");
    Err(Error::usage(format!("git {command} fails{colon}{said}")).at_path(directory))
}

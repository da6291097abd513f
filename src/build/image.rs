//! The stage that makes the artifact: one pass from the machine's disks to images, which appear together.

use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::artifact::Artifact;
use super::disk;
use super::event::Unit;
use super::prepared::Prepared;
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, Result};
use crate::fetch::cache::pins::Pins;
use crate::store::{HostFile, Locking, SequentialReader, move_file, names_in};
use crate::units::ByteSize;

/// What the manifest says that is written last.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest<'a> {
    build: &'a str,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    name: String,
    size: u64,
    sha256: String,
}

/// Makes the images and lets them appear.
///
/// # Errors
/// A disk cannot be read, an image cannot be written; cancelled. Nothing has appeared then.
pub(super) fn make(prepared: Prepared<'_>) -> Result<Artifact> {
    let (request, reporter) = (prepared.request, prepared.reporter);
    let (build, host) = (request.build, request.surroundings);
    let output = &build.output;
    let directory = prepared.output.artifact();
    let mut disks = vec![(prepared.disk.clone(), output.name.clone())];
    for drive in &prepared.additional {
        let name = drive
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        disks.push((drive.path.clone(), name));
    }
    for (from, name) in &disks {
        let to = directory.join(name);
        if build.disk.keep_backing_file {
            reporter.step(&format!("{name} stays an overlay of its base"));
            if *from != to {
                move_file(from, &to)?;
            }
            continue;
        }
        reporter.step(&format!(
            "Making {name}: flattened, without what the guest does not use, compressed as asked"
        ));
        // The machine's disk may stand where the image will be.
        let made = prepared.output.work().join(format!("{name}.image"));
        let finished = disk::finish(
            from,
            &made,
            build.disk.format,
            output,
            host.threads,
            &*request.stop,
            &mut |done, total| reporter.progress("image", done, Some(total), Unit::Bytes),
        )?;
        move_file(&made, &to)?;
        reporter.note(&format!(
            "{name}: {} of {}",
            ByteSize(finished.disk_size),
            ByteSize(finished.virtual_size)
        ));
    }
    let mut names: Vec<String> = disks.into_iter().map(|(_, name)| name).collect();
    // What else a machine leaves: variables of its firmware.
    let others: Vec<String> = names_in(&directory)?
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !names.contains(name) && !name.starts_with('.'))
        .collect();
    names.extend(others);
    let mut files = Vec::new();
    for name in &names {
        let (size, sha256) = digest(&directory.join(name), request.stop.as_ref())?;
        reporter.note(&format!("SHA-256 of {name}: {sha256}"));
        files.push(File {
            name: name.clone(),
            size,
            sha256,
        });
    }
    let manifest = Manifest {
        build: &build.name,
        files,
    };
    let manifest = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::io("write the manifest", error.into()))?;
    prepared.output.finish(&manifest)?;
    let place = &build.output.directory;
    if let (true, Some(origin)) = (build.disk.keep_backing_file, &prepared.origin) {
        let overlay = host.directory.join(place).join(&output.name);
        let who = format!("{}, which is an overlay of it", overlay.display());
        let pins = Pins::of(host.fetch.cache.directory());
        if let Err(error) = pins.pin(&overlay, &who, std::slice::from_ref(&origin.path)) {
            reporter.warn(&format!(
                "Its base is not kept for it: {}",
                super::provisioner::with_cause(&error)
            ));
        }
    }
    Ok(Artifact::of_machine(
        names.iter().map(|name| place.join(name)).collect(),
        place.clone(),
    ))
}

/// Length and SHA-256 of a file, which was written just now.
fn digest(path: &Path, stop: &Stop) -> Result<(u64, String)> {
    let mut reader = SequentialReader::new(HostFile::open_read(path, Locking::Check)?)?;
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    let mut buffer = vec![0; 1 << 20];
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Error::io("read", error).at_path(path))?;
        match buffer.get(..read) {
            None | Some([]) => break,
            Some(bytes) => digester.update(bytes),
        }
    }
    let sha256 = digester
        .finish()
        .first()
        .map(Digest::hex)
        .unwrap_or_default();
    Ok((reader.position(), sha256))
}

//! Files of the host into the guest.
//!
//! A directory goes as one stream of tar where the guest has it, else file by file.

use std::io::{Cursor, PipeWriter, Write, pipe, sink};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{HostReader, Meter, join, last_name, means_contents};
use crate::build::provisioner::watch::WatchedReader;
use crate::build::provisioner::{Context, Watch};
use crate::communicator::{Communicator, Exit, Stream, quote, tree};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{HostFile, Locking, ReadAt};

/// Directories within each other at most.
const MOST_DEPTH: usize = 128;

/// Files and directories of one source at most.
const MOST_FILES: usize = 1 << 20;

/// The guest has no tar.
const NO_TAR: i32 = 77;

/// Words of the guest that an error repeats.
const MOST_WORDS: usize = 2000;

/// A file made of text.
pub(super) fn content(
    guest: &dyn Communicator,
    content: &[u8],
    destination: &str,
    context: &Context<'_>,
) -> Result<()> {
    if destination.ends_with('/') || tree::is_directory(guest, destination)? {
        return Err(
            Error::usage(format!("the destination {destination} is a directory"))
                .with_remedy("content has no name of its own: name a file"),
        );
    }
    context
        .reporter
        .step(&format!("Uploading content to {destination}"));
    guest.upload(
        &mut Cursor::new(content),
        content.len() as u64,
        destination,
        0o644,
    )
}

/// Files and directories.
pub(super) fn run(
    guest: &dyn Communicator,
    sources: &[String],
    destination: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(expand(source)?);
    }
    // Asked once for all: what the first source makes of it is not asked about again.
    let is_directory = destination.ends_with('/') || tree::is_directory(guest, destination)?;
    let all_contents = found.iter().all(|source| means_contents(source));
    if found.len() > 1 && !is_directory && !all_contents {
        let message = format!(
            "there are {} files to upload, but the destination {destination} is no directory of the guest",
            found.len()
        );
        return Err(Error::usage(message).with_remedy("end the destination with /"));
    }
    for source in &found {
        watch.check()?;
        context
            .reporter
            .step(&format!("Uploading {source} to {destination}"));
        let path = Path::new(source);
        let metadata = path
            .metadata()
            .map_err(|error| Error::io("find the file to upload", error).at_path(path))?;
        if metadata.is_dir() {
            let there = is_directory && tree::is_directory(guest, destination)?;
            let target = match (means_contents(source), there, host_name(source)) {
                (false, true, Some(name)) => join(destination, &name),
                _ => destination.to_owned(),
            };
            directory(guest, path, &target, context, watch)?;
        } else if metadata.is_file() {
            let target = match (is_directory, host_name(source)) {
                (true, Some(name)) => join(destination, &name),
                _ => destination.to_owned(),
            };
            let mut reader = HostReader::open(path, context, *watch)?;
            let length = reader.length();
            let mode = metadata.permissions().mode() & 0o777;
            guest.upload(&mut reader, length, &target, mode)?;
        } else {
            return Err(Error::usage("is neither a file nor a directory").at_path(path));
        }
    }
    Ok(())
}

/// The name that a source has, also where it is written as `..`.
fn host_name(source: &str) -> Option<String> {
    match last_name(source) {
        Some(name) => Some(name.to_owned()),
        None => {
            let whole = Path::new(source).canonicalize().ok()?;
            Some(whole.file_name()?.to_str()?.to_owned())
        }
    }
}

/// The files that a source names: itself, or those that match it.
fn expand(source: &str) -> Result<Vec<String>> {
    if !source.contains(['*', '?', '[']) || Path::new(source).exists() {
        return Ok(vec![source.to_owned()]);
    }
    let paths = glob::glob(source)
        .map_err(|error| Error::usage(format!("the pattern {source} is none: {error}")))?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            Error::io("look for files to upload", error.into()).at_path(path)
        })?;
        let name = path
            .to_str()
            .ok_or_else(|| Error::usage("its name is not in UTF-8").at_path(&path))?;
        found.push(name.to_owned());
    }
    if found.is_empty() {
        return Err(Error::usage(format!("no file matches {source}")));
    }
    Ok(found)
}

/// Gives `take` everything that an upload of `source` brings into the guest: names, modes and bytes.
///
/// # Errors
/// There is no such file, or it cannot be read.
pub(crate) fn uploaded(
    source: &str,
    watch: &Watch<'_>,
    take: &mut dyn FnMut(&str, &[u8]),
) -> Result<()> {
    for source in expand(source)? {
        let path = Path::new(&source);
        let metadata = path
            .metadata()
            .map_err(|error| Error::io("find the file to upload", error).at_path(path))?;
        // Where it lies on the host is nothing to the guest.
        take("source", host_name(&source).unwrap_or_default().as_bytes());
        take("contents", &[u8::from(means_contents(&source))]);
        if metadata.is_dir() {
            for entry in walk(path, watch)? {
                take("name", entry.name.as_os_str().as_encoded_bytes());
                take("mode", &entry.mode.to_le_bytes());
                if !entry.is_directory {
                    bytes(&entry.path, watch, take)?;
                }
            }
        } else {
            let mode = metadata.permissions().mode() & 0o777;
            take("mode", &mode.to_le_bytes());
            bytes(path, watch, take)?;
        }
    }
    Ok(())
}

fn bytes(path: &Path, watch: &Watch<'_>, take: &mut dyn FnMut(&str, &[u8])) -> Result<()> {
    let file = HostFile::open_read(path, Locking::Ignore)?;
    let length = file.len()?;
    take("length", &length.to_le_bytes());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        watch.check()?;
        let piece = usize::try_from(length - at).unwrap_or(usize::MAX);
        let piece = piece.min(buffer.len());
        let wanted = buffer.get_mut(..piece).unwrap_or_default();
        file.read_exact_at(wanted, at)?;
        take("bytes", wanted);
        at += piece as u64;
    }
    Ok(())
}

/// A file or directory below the one that is sent.
struct Entry {
    /// From that directory on.
    name: PathBuf,
    path: PathBuf,
    is_directory: bool,
    mode: u32,
    length: u64,
}

/// Everything below `directory`, each directory before what is in it, in the order of names. Links are followed.
fn walk(directory: &Path, watch: &Watch<'_>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let top = directory
        .metadata()
        .map_err(|error| Error::io("read the directory", error).at_path(directory))?;
    let mut left = vec![(
        PathBuf::new(),
        directory.to_owned(),
        vec![(top.dev(), top.ino())],
    )];
    while let Some((name, directory, above)) = left.pop() {
        watch.check()?;
        let failed = |error| Error::io("list the directory", error).at_path(&directory);
        let mut names = Vec::new();
        for entry in directory.read_dir().map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        let mut below = Vec::new();
        for last in names {
            let path = directory.join(&last);
            let metadata = path
                .metadata()
                .map_err(|error| Error::io("find the file to upload", error).at_path(&path))?;
            let entry = Entry {
                name: name.join(&last),
                path,
                is_directory: metadata.is_dir(),
                mode: metadata.permissions().mode() & 0o777,
                length: metadata.len(),
            };
            if entry.is_directory {
                let identity = (metadata.dev(), metadata.ino());
                if above.contains(&identity) || above.len() >= MOST_DEPTH {
                    return Err(Error::usage("is a directory within itself").at_path(&entry.path));
                }
                let mut above = above.clone();
                above.push(identity);
                below.push((entry.name.clone(), entry.path.clone(), above));
            } else if !metadata.is_file() {
                return Err(Error::usage("is neither a file nor a directory")
                    .with_remedy("leave it out")
                    .at_path(&entry.path));
            }
            entries.push(entry);
            if entries.len() > MOST_FILES {
                return Err(
                    Error::usage(format!("holds more than {MOST_FILES} files")).at_path(&directory)
                );
            }
        }
        below.reverse();
        left.extend(below);
    }
    Ok(entries)
}

/// Everything in `source` into the directory `target`, which is made.
fn directory(
    guest: &dyn Communicator,
    source: &Path,
    target: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let entries = walk(source, watch)?;
    tree::make_directory(guest, target)?;
    if entries.is_empty() || as_tar(guest, &entries, target, context, watch)? {
        return Ok(());
    }
    context
        .reporter
        .note("The guest has no tar: sending file by file");
    for entry in &entries {
        watch.check()?;
        let name = entry
            .name
            .to_str()
            .ok_or_else(|| Error::usage("its name is not in UTF-8").at_path(&entry.path))?;
        let to = join(target, name);
        if entry.is_directory {
            tree::make_directory(guest, &to)?;
        } else {
            let mut reader = HostReader::open(&entry.path, context, *watch)?;
            let length = reader.length();
            guest.upload(&mut reader, length, &to, entry.mode)?;
        }
    }
    Ok(())
}

/// Whether the guest took it: not without tar.
fn as_tar(
    guest: &dyn Communicator,
    entries: &[Entry],
    target: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<bool> {
    let command = format!(
        "command -v tar >/dev/null 2>&1 || exit {NO_TAR}; exec tar -xmpf - -C {}",
        quote::path(target)
    );
    let (reader, writer) = pipe().map_err(|error| Error::io("make a pipe", error))?;
    let mut words = String::new();
    let (exit, written) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_tar(writer, entries, context, watch));
        let mut input = WatchedReader {
            inner: reader,
            watch: *watch,
        };
        let exit = guest.pipe(&command, &mut input, &mut sink(), &mut |stream, line| {
            if stream == Stream::Err && words.len() + line.len() < MOST_WORDS {
                words.push_str(if words.is_empty() { "" } else { "; " });
                words.push_str(line.trim());
            }
        });
        // A writer that still writes learns that nobody reads.
        drop(input);
        (exit, writing.join())
    });
    let written = written.unwrap_or_else(|_| Err(Error::usage("a file could not be packed")));
    match (exit, written) {
        (Ok(Exit::Code(0)), written) => written.map(|()| true),
        (Ok(Exit::Code(NO_TAR)), _) => Ok(false),
        // The guest ends early because the host did.
        (_, Err(error)) if error.path().is_some() || error.kind() == ErrorKind::Cancelled => {
            Err(error)
        }
        (Err(error), _) => Err(error),
        (Ok(Exit::Disconnected), _) => Err(Error::new(
            ErrorKind::Connection,
            "the connection was lost while files were sent",
        )),
        (Ok(exit), _) => {
            let words = match (words.is_empty(), exit) {
                (true, Exit::Code(code)) => format!("exit code {code}"),
                (true, _) => "it was killed".to_owned(),
                (false, _) => words,
            };
            let message = format!("the guest cannot unpack files into {target}: {words}");
            Err(Error::new(ErrorKind::Guest, message))
        }
    }
}

fn write_tar(
    writer: PipeWriter,
    entries: &[Entry],
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let total = entries.iter().filter(|entry| !entry.is_directory);
    let total = total.fold(0u64, |sum, entry| sum.saturating_add(entry.length));
    let mut meter = Meter::new(context.reporter, "upload".to_owned(), Some(total));
    let sending = |error| Error::io("send files", error);
    let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 16, writer));
    for entry in entries {
        watch.check()?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if entry.is_directory {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            archive
                .append_data(&mut header, &entry.name, std::io::empty())
                .map_err(sending)?;
        } else {
            let mut reader = HostReader::open(&entry.path, context, *watch)?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(reader.length());
            archive
                .append_data(&mut header, &entry.name, &mut reader)
                .map_err(sending)?;
            meter.add(reader.length());
        }
    }
    let mut writer = archive.into_inner().map_err(sending)?;
    writer.flush().map_err(sending)
}

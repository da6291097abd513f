//! Files to and from the guest, as Packer's file provisioner sends them.
//!
//! Knows which file goes where: a directory with `/` at its end means what is in it; a directory without goes into a
//! directory that is there, else becomes the destination, as with `scp -r`. Must not know how bytes travel. What comes out
//! of the guest is hostile: it stays where it belongs.

mod download;
mod upload;

pub(crate) use upload::uploaded;

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Context, Watch};
use crate::build::event::{Reporter, Unit};
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::store::{HostFile, Locking, ReadAt};
use crate::template::model::{Direction, FileTransfer};

/// Between two words about progress.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Sends or fetches all that `transfer` names.
pub(super) fn run(transfer: &FileTransfer, context: &Context<'_>, watch: &Watch<'_>) -> Result<()> {
    let guest = context.guest()?;
    let destination = context.texts.render(&transfer.destination, &[])?;
    if destination.is_empty() {
        return Err(Error::usage("a file provisioner has no destination"));
    }
    let mut sources = Vec::new();
    for source in &transfer.sources {
        sources.push(context.texts.render(source, &[])?);
    }
    match (transfer.direction, &transfer.content) {
        (Direction::Download, _) => download::run(guest, &sources, &destination, context, watch),
        (Direction::Upload, Some(content)) => {
            let content = context.texts.render(content, &[])?;
            upload::content(guest, content.as_bytes(), &destination, context)
        }
        (Direction::Upload, None) => upload::run(guest, &sources, &destination, context, watch),
    }
}

/// Sends files and directories, as a file provisioner does.
pub(super) fn uploads(
    guest: &dyn Communicator,
    sources: &[String],
    destination: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    upload::run(guest, sources, destination, context, watch)
}

/// Whether a path means what is in the directory rather than itself.
fn means_contents(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// The last name in a path; none of `/`, `.` and `..`.
fn last_name(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!["", ".", ".."].contains(&name)).then_some(name)
}

/// `name` in `directory`.
fn join(directory: &str, name: &str) -> String {
    if directory.ends_with('/') {
        format!("{directory}{name}")
    } else {
        format!("{directory}/{name}")
    }
}

/// Tells from time to time how far a file is.
struct Meter<'a> {
    reporter: &'a Reporter<'a>,
    task: String,
    done: u64,
    total: Option<u64>,
    told: Instant,
}

impl<'a> Meter<'a> {
    fn new(reporter: &'a Reporter<'a>, task: String, total: Option<u64>) -> Self {
        Self {
            reporter,
            task,
            done: 0,
            total,
            told: Instant::now(),
        }
    }

    fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.reporter
                .progress(&self.task, self.done, self.total, Unit::Bytes);
        }
    }
}

/// A file of the host, read from its beginning, until it is to stop.
pub(super) struct HostReader<'a> {
    file: HostFile,
    length: u64,
    at: u64,
    watch: Watch<'a>,
    meter: Meter<'a>,
}

impl<'a> HostReader<'a> {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// There is none, or it is no regular file.
    pub(super) fn open(path: &Path, context: &'a Context<'_>, watch: Watch<'a>) -> Result<Self> {
        let file = HostFile::open_read(path, Locking::Ignore)?;
        let length = file.len()?;
        let task = format!("upload {}", path.display());
        Ok(Self {
            file,
            length,
            at: 0,
            watch,
            meter: Meter::new(context.reporter, task, Some(length)),
        })
    }

    /// Its bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Read for HostReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.watch.check().map_err(std::io::Error::other)?;
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let wanted = buffer.get_mut(..length).unwrap_or_default();
        self.file
            .read_exact_at(wanted, self.at)
            .map_err(std::io::Error::other)?;
        self.at += length as u64;
        self.meter.add(length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;

//! Files of the guest onto the host.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Meter, join, last_name, means_contents};
use crate::build::provisioner::{Context, Watch};
use crate::communicator::{Communicator, tree};
use crate::error::{Error, Result};
use crate::store::Sync;
use crate::store::extraction::{
    Attributes, Contents, KeptTree, Obstacle, SingleFile, make_directories,
};

/// Names that a message tells of those that were left out.
const MOST_TOLD: usize = 20;

/// Fetches all that `sources` name.
pub(super) fn run(
    guest: &dyn Communicator,
    sources: &[String],
    destination: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut found = Vec::new();
    for source in sources {
        if source.contains(['*', '?', '[']) {
            let matching = tree::glob(guest, source)?;
            if matching.is_empty() {
                return Err(Error::usage(format!(
                    "no file of the guest matches {source}"
                )));
            }
            found.extend(matching);
        } else {
            found.push(source.clone());
        }
    }
    let is_directory = destination.ends_with('/') || Path::new(destination).is_dir();
    if found.len() > 1 && !is_directory {
        let message = format!(
            "there are {} files to download, but the destination {destination} is no directory",
            found.len()
        );
        return Err(Error::usage(message).with_remedy("end the destination with /"));
    }
    for source in &found {
        watch.check()?;
        context
            .reporter
            .step(&format!("Downloading {source} to {destination}"));
        let name = last_name(source);
        if tree::is_directory(guest, source)? {
            let target = match (means_contents(source), is_directory, name) {
                (false, true, Some(name)) if Path::new(destination).is_dir() => {
                    join(destination, name)
                }
                _ => destination.to_owned(),
            };
            directory(guest, source, Path::new(&target), context, watch)?;
        } else {
            let target = match (is_directory, name) {
                (true, Some(name)) => join(destination, name),
                (true, None) => return Err(Error::usage(format!("{source} names no file"))),
                (false, _) => destination.to_owned(),
            };
            file(guest, source, Path::new(&target), context, watch)?;
        }
    }
    Ok(())
}

fn file(
    guest: &dyn Communicator,
    source: &str,
    target: &Path,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    if let Some(parent) = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        make_directories(parent)?;
    }
    let single = SingleFile::create(target, true)?;
    let mut into = Into::new(single.contents(), source, context, watch);
    let fetched = guest.download(source, &mut into);
    let length = into.end(fetched)?;
    let ended = single.contents().finish(length, &attributes(false));
    ended.map_err(|obstacle| in_words(obstacle, target))?;
    single.commit(Sync::None)
}

fn directory(
    guest: &dyn Communicator,
    source: &str,
    target: &Path,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let entries = tree::list(guest, source)?;
    let into = KeptTree::open(target)?;
    let mut left_out = Vec::new();
    for entry in &entries {
        watch.check()?;
        if entry.path.is_empty() {
            continue;
        }
        let names: Vec<&[u8]> = entry.path.split('/').map(str::as_bytes).collect();
        let done = match entry.kind {
            tree::Kind::Directory => into.directory(&names),
            tree::Kind::File { executable } => {
                let from = join(source, &entry.path);
                into.file(&names).and_then(|file| {
                    let mut writer = Into::new(file.contents(), &from, context, watch);
                    let fetched = guest.download(&from, &mut writer);
                    let length = writer.end(fetched).map_err(Obstacle::Failed)?;
                    file.commit(length, &attributes(executable))
                })
            }
            tree::Kind::Other => Err(Obstacle::Name("it is neither a file nor a directory")),
        };
        match done {
            Ok(()) => {}
            Err(Obstacle::Failed(error)) => return Err(error),
            Err(obstacle) => {
                let path = PathBuf::from(&entry.path);
                left_out.push(in_words(obstacle, &path).to_string());
            }
        }
    }
    if !left_out.is_empty() {
        let more = match left_out.len().saturating_sub(MOST_TOLD) {
            0 => String::new(),
            more => format!("\nand {more} more"),
        };
        left_out.truncate(MOST_TOLD);
        let text = format!("Not downloaded:\n{}{more}", left_out.join("\n"));
        context.reporter.warn(&text);
    }
    Ok(())
}

fn attributes(executable: bool) -> Attributes {
    Attributes {
        permissions: if executable { 0o755 } else { 0o644 },
        accessed: None,
        modified: None,
    }
}

fn in_words(obstacle: Obstacle, path: &Path) -> Error {
    match obstacle {
        Obstacle::Name(why) => Error::usage(why).at_path(path),
        Obstacle::Taken => Error::usage("something else has that name").at_path(path),
        Obstacle::Unfit(error) | Obstacle::Failed(error) => error,
    }
}

/// Writes into a file of the host, until it is to stop.
struct Into<'a> {
    contents: &'a Contents,
    at: u64,
    watch: &'a Watch<'a>,
    meter: Meter<'a>,
    /// Why it could not be written.
    failed: Option<Error>,
}

impl<'a> Into<'a> {
    fn new(
        contents: &'a Contents,
        source: &str,
        context: &'a Context<'_>,
        watch: &'a Watch<'a>,
    ) -> Self {
        Self {
            contents,
            at: 0,
            watch,
            meter: Meter::new(context.reporter, format!("download {source}"), None),
            failed: None,
        }
    }

    /// The bytes written; the host's own reason comes before what the guest's side made of it.
    fn end(self, fetched: Result<()>) -> Result<u64> {
        match self.failed {
            Some(error) => Err(error),
            None => fetched.map(|()| self.at),
        }
    }
}

impl Write for Into<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.watch.check().and_then(|()| {
            self.contents
                .write_at(bytes, self.at)
                .map_err(|obstacle| in_words(obstacle, Path::new("")))
        });
        if let Err(error) = written {
            let shown = error.to_string();
            self.failed = Some(error);
            return Err(io::Error::other(shown));
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        self.meter.add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

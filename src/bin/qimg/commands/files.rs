//! `qimg ls`, `cat` and `stat`.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use qimg::browse::{Browser, Listed, Location, list};
use qimg::fs::path::LastLink;
use qimg::fs::tree::{FileKind, Node, Piece, Tree};
use qimg::image::{Chain, Depth, Image};
use qimg::volume::Volume;
use qimg::{Error, Result};

use super::{Failure, Status};
use crate::args::{BrowseArgs, CatArgs, GuestPath, LsArgs, StatArgs};
use crate::render::{Console, human, json};

/// Names of one directory at most.
const MOST_NAMES: usize = 1 << 20;
/// Directories within each other at most: what a path may hold.
const MOST_DEPTH: usize = 2048;
/// Zeros that are printed at a time.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// An image whose guest's files are looked at.
pub(super) struct Opened {
    image: Image,
    chain: Chain,
    part: Option<qimg::survey::Selector>,
    pub(super) path: Vec<u8>,
}

impl Opened {
    pub(super) fn new(path: &GuestPath, args: &BrowseArgs) -> Result<Self> {
        let (image, part, path) = path.split();
        if part.is_some() && args.partition.is_some() {
            return Err(Error::usage(
                "the part is named twice, with the path and with --partition",
            ));
        }
        let image = Image::open(&image, &args.input.open_options())?;
        let chain = image.chain(Depth::Chain, args.snapshot.as_deref())?;
        Ok(Self {
            image,
            chain,
            part: part.or_else(|| args.partition.clone()),
            path,
        })
    }

    pub(super) fn browser(&self) -> Result<Browser<'_>> {
        let disk = Volume::whole(&self.chain);
        Browser::open(&disk, self.part.as_ref()).map_err(|error| self.name(error))
    }

    /// Nobody means to replace what is read by a file out of it: the image, or any file behind it. A symlink that leads
    /// there is not replaced either, since the image may be found by that name.
    pub(super) fn refuse_destination(&self, destination: &Path) -> Result<()> {
        self.chain
            .refuse_destination(destination)
            .map_err(|error| error.with_remedy("copy to another file"))
    }

    /// Says which image failed.
    pub(super) fn name(&self, error: Error) -> Error {
        error.at_path(self.image.path())
    }
}

pub(super) fn ls(args: &LsArgs, console: &mut Console<'_>) -> Status {
    let opened = Opened::new(&args.path, &args.browse)?;
    let browser = opened.browser()?;
    let named = |error| opened.name(error);
    let last = if args.long {
        LastLink::Keep
    } else {
        LastLink::Follow
    };
    let mut location = browser.locate(&opened.path, last).map_err(named)?;
    // A link to a directory, named with a slash behind it, is that directory.
    if opened.path.ends_with(b"/") {
        location = browser
            .locate(&opened.path, LastLink::Follow)
            .map_err(named)?;
    }
    let mut listing = human::files::Listing::new(args.long, args.report.json());
    if location.found.metadata.kind == FileKind::Directory {
        let walk = Walk {
            tree: location.tree,
            recursive: args.recursive,
        };
        let prefix = if args.recursive {
            opened.path.as_slice()
        } else {
            b""
        };
        walk.directory(
            location.found.node,
            prefix,
            &mut BTreeSet::new(),
            0,
            &mut |path, listed| Ok(listing.entry(&mut console.out, path, listed)?),
        )
        .map_err(|failure| Failure::new(opened.name(failure.error), failure.code))?;
    } else {
        let name = opened.path.clone();
        let listed = Listed {
            name: name.clone(),
            found: location.found,
            target: target(&location).map_err(named)?,
        };
        listing.entry(&mut console.out, &name, &listed)?;
    }
    listing.end(&mut console.out)?;
    Ok(0)
}

fn target(location: &Location<'_>) -> Result<Option<Vec<u8>>> {
    match location.found.metadata.kind {
        FileKind::Symlink => location.tree.read_link(location.found.node).map(Some),
        _ => Ok(None),
    }
}

/// Gets the path of a name and what it names.
type EachListed<'a> = &'a mut dyn FnMut(&[u8], &Listed) -> std::result::Result<(), Failure>;

struct Walk<'a> {
    tree: &'a dyn Tree,
    recursive: bool,
}

impl Walk<'_> {
    /// Calls `each` with the path and what is there, for every name in `directory`, and below it. `seen` are the
    /// directories that were listed: a hostile filesystem may hold one twice, or within itself.
    fn directory(
        &self,
        directory: Node,
        prefix: &[u8],
        seen: &mut BTreeSet<Node>,
        depth: usize,
        each: EachListed<'_>,
    ) -> std::result::Result<(), Failure> {
        if depth >= MOST_DEPTH || !seen.insert(directory) {
            return Err(
                Error::corrupt("the directory tree", "a directory has more than one name").into(),
            );
        }
        for listed in list(self.tree, directory, MOST_NAMES)? {
            let mut path = prefix.to_vec();
            if !path.is_empty() && !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(&listed.name);
            each(&path, &listed)?;
            if self.recursive && listed.found.metadata.kind == FileKind::Directory {
                self.directory(listed.found.node, &path, seen, depth + 1, each)?;
            }
        }
        Ok(())
    }
}

pub(super) fn cat(args: &CatArgs, console: &mut Console<'_>) -> Status {
    let opened = Opened::new(&args.path, &args.browse)?;
    let browser = opened.browser()?;
    let named = |error| opened.name(error);
    let location = browser
        .locate(&opened.path, LastLink::Follow)
        .map_err(named)?;
    let metadata = location.found.metadata;
    if metadata.kind != FileKind::File {
        return Err(named(Error::usage(format!(
            "'{}' is {}, not a file",
            qimg::error::Escaped(&String::from_utf8_lossy(&opened.path)),
            human::files::kind_words(metadata.kind)
        )))
        .into());
    }
    let mut printed = Ok(());
    let out = &mut console.out;
    location
        .tree
        .read_file(location.found.node, 0..metadata.size, &mut |piece| {
            printed = match piece {
                Piece::Data { bytes, .. } => out.write_all(bytes),
                Piece::Hole { length, .. } => zeros(out, length),
            };
            if printed.is_err() || out.is_closed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(named)?;
    printed?;
    Ok(0)
}

fn zeros(out: &mut crate::render::Output<'_>, length: u64) -> std::io::Result<()> {
    let mut left = length;
    while left > 0 && !out.is_closed() {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        out.write_all(ZEROS.get(..now).unwrap_or_default())?;
        left -= now as u64;
    }
    Ok(())
}

pub(super) fn stat(args: &StatArgs, console: &mut Console<'_>) -> Status {
    let opened = Opened::new(&args.path, &args.browse)?;
    let browser = opened.browser()?;
    let last = if args.dereference {
        LastLink::Follow
    } else {
        LastLink::Keep
    };
    let named = |error| opened.name(error);
    let location = browser.locate(&opened.path, last).map_err(named)?;
    let target = target(&location).map_err(named)?;
    let report = human::files::Stat::new(
        &opened.path,
        &location.part,
        location.tree.format(),
        &location.found.metadata,
        target.as_deref(),
    );
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else {
        report.print(&mut console.out)?;
    }
    Ok(0)
}

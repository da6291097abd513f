//! An image as `disk.raw` in a tar.gz, the form in which some clouds import disks.
//!
//! Knows that form alone: one member of that name, in GNU's old format, whose size is a whole number of GiB. Must not know
//! where it goes.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::attend::{Event, Work, attended};
use crate::communicator::Stop;
use crate::error::Result;
use crate::image::{Depth, Image};
use crate::source::Source;
use crate::store::{SequentialWriter, Staged, Sync, recovered};

/// What those clouds count disks in.
const UNIT: u64 = 1 << 30;

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// Writes the guest's disk of `image` to `destination`, which appears complete or not at all. The same image gives the same
/// bytes.
///
/// # Errors
/// The image or the host; [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn pack(
    image: &Image,
    destination: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<()> {
    attended(stop, tell, |work| {
        let chain = image.chain(Depth::Chain, None)?;
        let size = chain.virtual_size();
        work.begin(format!("pack {}", destination.display()), size);
        let staged = Staged::create(destination)?;
        let writer = SequentialWriter::new(staged.file(), false);
        let read = |buffer: &mut [u8], at: u64| chain.reader().read_at(at, buffer);
        let disk = Disk {
            read: &read,
            size,
            padded: size.next_multiple_of(UNIT),
            at: 0,
            work,
        };
        let writer = archive(disk, writer).map_err(|error| recovered("pack the disk", error))?;
        writer.finish()?;
        staged.commit(Sync::Full)
    })
}

fn archive<W: Write>(disk: Disk<'_>, writer: W) -> io::Result<W> {
    // No time and no name: they would differ from one run to another.
    let gzip = GzBuilder::new().write(writer, Compression::default());
    let mut archive = Builder::new(gzip);
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(disk.padded);
    archive.append_data(&mut header, "disk.raw", disk)?;
    archive.into_inner()?.finish()
}

/// The guest's disk, and zeros behind it.
struct Disk<'a> {
    read: &'a dyn Fn(&mut [u8], u64) -> Result<()>,
    size: u64,
    padded: u64,
    at: u64,
    work: &'a Work,
}

impl Read for Disk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.work.go_on().map_err(io::Error::other)?;
        let end = if self.at < self.size {
            self.size
        } else {
            self.padded
        };
        let most = (end - self.at).min(PIECE);
        let most = usize::try_from(most).map_or(buf.len(), |most| most.min(buf.len()));
        let Some(buf) = buf.get_mut(..most) else {
            return Ok(0);
        };
        if self.at < self.size {
            (self.read)(buf, self.at).map_err(io::Error::other)?;
            self.work.advance(most as u64);
        } else {
            buf.fill(0);
        }
        self.at += most as u64;
        Ok(most)
    }
}

//! Images that are published packed: told by their first bytes, and unpacked.
//!
//! Knows codecs of single files, and how much may come out of one. Must not know where the file came from.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Event, Hashing, Step};
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, OpenOptions};
use crate::store::{
    HostFile, Locking, ReadAt, SequentialReader, SequentialWriter, WriteAt, free_bytes, recovered,
    remove_file,
};

/// What is unpacked at once.
const PIECE: usize = 1 << 20;

/// Enough to see whether it is an archive.
const HEAD: usize = 512;

/// Name of the image in a Vagrant box for libvirt.
const BOX_IMAGE: &[u8] = b"box.img";

/// Files of an archive that are looked at.
const MOST_MEMBERS: usize = 1000;

/// Memory that an xz file may ask for: its own highest setting takes 65 MiB, other writers take more.
const XZ_MEMORY: u64 = 1 << 30;

/// The longest window of zstd, as a power of two: what its program takes without being asked twice.
const ZSTD_WINDOW: u32 = 27;

/// A guest's disk is not larger, packed or not.
const MOST: u64 = 64 << 40;

/// Space that stays free.
const RESERVE: u64 = 64 << 20;

/// After so many bytes the space is looked at again.
const LOOK_EVERY: u64 = 64 << 20;

/// A codec of single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
}

impl Packing {
    /// The codec's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        }
    }

    /// How the file that begins with `head` is packed, if it is.
    pub fn of(head: &[u8]) -> Option<Self> {
        let zstd_skippable = |head: &[u8]| {
            head.len() >= 4 && (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18]
        };
        if head.starts_with(&[0x1f, 0x8b, 0x08]) {
            Some(Self::Gzip)
        } else if head.starts_with(b"\xfd7zXZ\0") {
            Some(Self::Xz)
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || zstd_skippable(head) {
            Some(Self::Zstd)
        } else if head.starts_with(b"BZh")
            && head.get(3).is_some_and(u8::is_ascii_digit)
            && head.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59")
        {
            Some(Self::Bzip2)
        } else {
            None
        }
    }

    fn reader<'a>(self, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
                Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(packed)),
        })
    }
}

/// How the file at `path` is packed, if it is.
///
/// # Errors
/// It cannot be read.
pub fn packing_of(path: &Path) -> Result<Option<Packing>> {
    let file = HostFile::open_read(path, Locking::Check)?;
    let mut head = [0; 16];
    file.read_zero_filled(&mut head, 0)?;
    Ok(Packing::of(&head))
}

/// Unpacks the file at `packed` into a new file at `to`, synced; the SHA-256 of what came out.
///
/// # Errors
/// The file is damaged or cut off; more comes out than a disk may hold, or than the host has space for. Nothing is left
/// at `to` then.
pub fn unpack(
    packing: Packing,
    packed: &Path,
    to: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Digest> {
    remove_file(to)?;
    let result = unpack_to(packing, packed, to, stop, tell);
    if result.is_err() {
        // What came out is of no use; the failure tells more than a second one would.
        let _ = remove_file(to);
    }
    result
}

fn unpack_to(
    packing: Packing,
    packed: &Path,
    to: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Digest> {
    let source = HostFile::open_read(packed, Locking::Check)?;
    let total = source.len()?;
    let position = std::cell::Cell::new(0);
    let counted = Counted {
        reader: SequentialReader::new(&source)?,
        position: &position,
    };
    let name = packing.name();
    let failed = |error: io::Error| {
        let error = match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::new(
                ErrorKind::Corrupt,
                format!("ends in the middle of its {name} data"),
            ),
            _ => recovered(&format!("unpack its {name} data"), error),
        };
        error.at_path(packed)
    };
    let mut reader = packing
        .reader(io::BufReader::with_capacity(PIECE, counted))
        .map_err(failed)?;
    let mut head = vec![0; HEAD];
    let filled = fill(&mut reader, &mut head).map_err(failed)?;
    head.truncate(filled);
    let is_archive = head.get(257..262) == Some(b"ustar");
    let whole = io::Cursor::new(head).chain(reader);
    let mut archive;
    let mut reader: Box<dyn Read> = if is_archive {
        archive = tar::Archive::new(whole);
        Box::new(image_of_box(&mut archive, packed, &failed)?)
    } else {
        Box::new(whole)
    };
    let mut writer = SequentialWriter::new(HostFile::create_new(to)?, true);
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    let mut most = MOST;
    let mut looked = 0;
    let mut told = Instant::now();
    let mut piece = vec![0; PIECE];
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let filled = fill(&mut reader, &mut piece).map_err(failed)?;
        digester.update(&piece[..filled]);
        writer
            .write_all(&piece[..filled])
            .map_err(|error| recovered("write what was unpacked", error))?;
        if writer.position() == filled as u64 {
            most = limit(to);
        }
        if writer.position() > most {
            return Err(Error::refused(
                format!("more than {most} bytes come out of it, which is no image of its size"),
                "unpack it by hand, and look at it",
            )
            .at_path(packed));
        }
        if writer.position() - looked >= LOOK_EVERY {
            looked = writer.position();
            if free_bytes(to)? < RESERVE {
                return Err(Error::new(ErrorKind::Io, "there is no space to unpack it")
                    .at_path(packed)
                    .with_remedy("make space, prune the cache, or put it elsewhere"));
            }
        }
        let last = filled < piece.len();
        if last || told.elapsed() >= Duration::from_millis(100) {
            told = Instant::now();
            tell(Event::Progress {
                step: Step::Unpack,
                done: position.get(),
                total: Some(total),
            });
        }
        if last {
            break;
        }
    }
    writer.finish()?.sync()?;
    let digests = digester.finish();
    digests
        .into_iter()
        .next()
        .ok_or_else(|| Error::usage("no digest was made"))
}

/// What may come out, as soon as the first piece has: a qcow2 image is not much longer than the disk in it.
fn limit(unpacked: &Path) -> u64 {
    let Ok(image) = Image::open(
        unpacked,
        &OpenOptions {
            locking: Locking::Ignore,
            ..OpenOptions::default()
        },
    ) else {
        return MOST;
    };
    match (image.cluster_size(), image.virtual_size()) {
        // With all its tables, and snapshots that hold it several times over.
        (Some(_), Ok(size)) => size.saturating_mul(8).saturating_add(1 << 30).min(MOST),
        _ => MOST,
    }
}

/// The image of a Vagrant box for libvirt. In any other archive, which of its files is the image is not for qimg to say.
fn image_of_box<'a, R: Read>(
    archive: &'a mut tar::Archive<R>,
    packed: &Path,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<tar::Entry<'a, R>> {
    for (number, entry) in archive.entries().map_err(failed)?.enumerate() {
        let entry = entry.map_err(failed)?;
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        if name == BOX_IMAGE && entry.header().entry_type().is_file() {
            return Ok(entry);
        }
        if number >= MOST_MEMBERS {
            break;
        }
    }
    Err(
        Error::unsupported("holds a tar archive, not an image alone, and is no Vagrant box for libvirt: there is no box.img in it")
            .with_remedy("unpack it beforehand, and name the image in it")
            .at_path(packed),
    )
}

fn fill(reader: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Tells how far the packed file was read.
struct Counted<'a, R> {
    reader: R,
    position: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.position.set(self.position.get() + read as u64);
        Ok(read)
    }
}

/// Digests of the file at `path`, read once.
pub(super) fn hash(
    path: &Path,
    kinds: &[DigestKind],
    why: Hashing,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Digest>> {
    let file = HostFile::open_read(path, Locking::Check)?;
    let total = file.len()?;
    let mut reader = SequentialReader::new(&file)?;
    let mut digester = Digester::new(kinds);
    let mut piece = vec![0; PIECE];
    let mut told = Instant::now();
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let filled = fill(&mut reader, &mut piece).map_err(|error| recovered("read", error))?;
        if filled == 0 {
            return Ok(digester.finish());
        }
        digester.update(&piece[..filled]);
        if told.elapsed() >= Duration::from_millis(100) {
            told = Instant::now();
            tell(Event::Progress {
                step: Step::Hash(why),
                done: reader.position(),
                total: Some(total),
            });
        }
    }
}

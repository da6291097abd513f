//! Where a new image goes: a staged file, or what exists already.
//!
//! Knows destinations and the options of what is created there. Must not know
//! where the contents come from.

use std::path::Path;
use std::sync::Arc;

use super::backing::{directory_of, is_protocol};
use super::options::{Preallocation, Qcow2Options};
use super::qcow2::format::features;
use super::qcow2::{self, Qcow2File};
use super::raw::RawWriter;
use super::{Depth, Format, Image, OpenOptions};
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::source::Source as _;
use crate::store::{Discard, HostFile, Locking, ReadAt, Staged, Sync, WriteAt, same_file};
use crate::writer::{ImageWriter, Written};
use crate::zero::is_zero;

/// Bytes that are looked at in one go.
const PIECE: usize = 1 << 20;

/// What is written, and where.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// The new image's format.
    pub format: Format,
    /// Options of a qcow2 image; of a raw one its preallocation alone counts.
    pub qcow2: Qcow2Options,
    /// Write into the image or block device that is there, which keeps its own options.
    pub existing: bool,
    /// What must have happened before the result is called done.
    pub sync: Sync,
    /// Whether another process that uses the destination is an obstacle.
    pub locking: Locking,
}

/// An image that is being written.
#[derive(Debug)]
pub struct Target {
    writer: Writer,
    staged: Vec<Staged>,
    /// Written in place.
    existing: Option<Arc<HostFile>>,
    sync: Sync,
    store: Arc<dyn WriteAt>,
}

#[derive(Debug)]
enum Writer {
    Raw(RawWriter),
    Qcow2(Box<qcow2::Writer>),
}

impl Target {
    /// Begins an image of `virtual_size` bytes at `path`. `compresses` says that most of its clusters will be.
    ///
    /// # Errors
    /// Options that contradict each other; a destination that cannot be written, is in use, or is too small.
    pub fn create(
        path: &Path,
        virtual_size: u64,
        options: &TargetOptions,
        compresses: bool,
    ) -> Result<Self> {
        if options.format == Format::Qcow2 {
            refuse_itself_below(path, &options.qcow2)?;
        }
        if options.existing {
            return Self::open_existing(path, virtual_size, options, compresses);
        }
        if options.format == Format::Qcow2 {
            options.qcow2.validate()?;
        }
        let staged = Staged::create_with(path, options.locking)?;
        let store = staged.file();
        Self::begin(staged, store, path, virtual_size, options, compresses)
    }

    /// Begins an image in `store`, which is the file that `staged` gives its name.
    fn begin(
        staged: Staged,
        store: Arc<dyn WriteAt>,
        path: &Path,
        virtual_size: u64,
        options: &TargetOptions,
        compresses: bool,
    ) -> Result<Self> {
        let mut target = Self {
            writer: Writer::Raw(RawWriter::new(Arc::clone(&store), 0, false)?),
            staged: vec![staged],
            existing: None,
            sync: options.sync,
            store,
        };
        match options.format {
            Format::Raw => target.begin_raw(virtual_size, options.qcow2.preallocation)?,
            Format::Qcow2 => target.begin_qcow2(path, virtual_size, &options.qcow2, compresses)?,
        }
        Ok(target)
    }

    /// A target that takes everything and keeps nothing, to learn how large an image would become.
    ///
    /// # Errors
    /// Options that contradict each other; a format other than qcow2.
    pub(crate) fn imagine(virtual_size: u64, options: &TargetOptions) -> Result<Self> {
        let store: Arc<dyn WriteAt> = Arc::new(Discard::default());
        let writer = qcow2::Writer::new(
            Arc::clone(&store),
            None,
            virtual_size,
            &options.qcow2,
            true,
            true,
        )?;
        Ok(Self {
            writer: Writer::Qcow2(Box::new(writer.trusting_digests())),
            staged: Vec::new(),
            existing: None,
            sync: Sync::None,
            store,
        })
    }

    /// Begins an image of `virtual_size` bytes in `store`, which reads as zeros and holds nothing else.
    ///
    /// # Errors
    /// Options that contradict each other, or that ask for what is not a place in `store`: something that exists, an
    /// external data file.
    pub fn in_store(
        store: Arc<dyn WriteAt>,
        virtual_size: u64,
        options: &TargetOptions,
        compresses: bool,
    ) -> Result<Self> {
        if options.existing || options.qcow2.data_file.is_some() {
            return Err(Error::usage("an image in a store is one new file"));
        }
        let mut target = Self {
            writer: Writer::Raw(RawWriter::new(Arc::clone(&store), 0, false)?),
            staged: Vec::new(),
            existing: None,
            sync: options.sync,
            store,
        };
        match options.format {
            Format::Raw => target.begin_raw(virtual_size, options.qcow2.preallocation)?,
            // Without a data file the path counts for nothing.
            Format::Qcow2 => {
                target.begin_qcow2(Path::new("."), virtual_size, &options.qcow2, compresses)?;
            }
        }
        Ok(target)
    }

    fn begin_raw(&mut self, virtual_size: u64, preallocation: Preallocation) -> Result<()> {
        let writer = RawWriter::new(Arc::clone(&self.store), virtual_size, true)?;
        match preallocation {
            Preallocation::Off => {}
            Preallocation::Metadata => {
                return Err(Error::usage("raw images have no metadata to preallocate")
                    .with_remedy("preallocation takes off, falloc or full"));
            }
            Preallocation::Falloc => self.store.preallocate(0..virtual_size)?,
            Preallocation::Full => qcow2::write_zero_bytes(&*self.store, 0..virtual_size)?,
        }
        self.writer = Writer::Raw(writer);
        Ok(())
    }

    fn begin_qcow2(
        &mut self,
        path: &Path,
        virtual_size: u64,
        options: &Qcow2Options,
        compresses: bool,
    ) -> Result<()> {
        let data: Option<Arc<dyn WriteAt>> = match &options.data_file {
            None => None,
            Some(name) => {
                let staged = Staged::create(directory_of(path).join(name))?;
                let file = staged.file();
                // The data file takes its name first: an image never names what is not there.
                self.staged.insert(0, staged);
                Some(file)
            }
        };
        let store = Arc::clone(&self.store);
        let mut writer = qcow2::Writer::new(store, data, virtual_size, options, true, compresses)?;
        writer.preallocate(options.effective_preallocation())?;
        self.writer = Writer::Qcow2(Box::new(writer));
        Ok(())
    }

    /// Size of the virtual disk that is at `path` already, for a target that is written into it.
    ///
    /// # Errors
    /// It cannot be opened, is in use, or is no image of the format that is asked for.
    pub fn existing_size(path: &Path, options: &TargetOptions) -> Result<Option<u64>> {
        if !options.existing {
            return Ok(None);
        }
        let file = Arc::new(HostFile::open_read(path, options.locking)?);
        image_there(file, path, options.format)?
            .virtual_size()
            .map(Some)
    }

    fn open_existing(
        path: &Path,
        virtual_size: u64,
        options: &TargetOptions,
        compresses: bool,
    ) -> Result<Self> {
        let file = Arc::new(HostFile::open_write(path, options.locking)?);
        let image = image_there(Arc::clone(&file) as Arc<dyn ReadAt>, path, options.format)?;
        let size = image.virtual_size()?;
        if size < virtual_size {
            return Err(Error::usage(format!(
                "is smaller ({size} bytes) than the image to be written ({virtual_size} bytes)"
            ))
            .at_path(path));
        }
        let store: Arc<dyn WriteAt> = Arc::clone(&file) as Arc<dyn WriteAt>;
        let writer = match image.qcow2() {
            None => Writer::Raw(RawWriter::new(Arc::clone(&store), virtual_size, false)?),
            Some(qcow2) => {
                let own = options_of(qcow2).map_err(|error| error.at_path(path))?;
                refuse_unlike(qcow2, options, compresses).map_err(|error| error.at_path(path))?;
                refuse_behind(&image, virtual_size..size)?;
                let options = own;
                let is_device = matches!(
                    file.identity(),
                    Some(crate::store::FileId::BlockDevice { .. })
                );
                if !is_device {
                    // An image file is replaced as a whole rather than overwritten piece by piece.
                    drop(file);
                    let fresh = TargetOptions {
                        format: Format::Qcow2,
                        qcow2: options,
                        existing: false,
                        sync: Sync::Full,
                        locking: Locking::Check,
                    };
                    drop((image, store));
                    return Self::create(path, size, &fresh, compresses);
                }
                let store = Arc::clone(&store);
                let writer = qcow2::Writer::new(store, None, size, &options, false, compresses)?;
                Writer::Qcow2(Box::new(writer))
            }
        };
        Ok(Self {
            writer,
            staged: Vec::new(),
            existing: Some(file),
            sync: options.sync,
            store,
        })
    }

    /// Whether the host can share blocks of `from` with this target; leaves an unwritten target as it is.
    ///
    /// # Errors
    /// The host fails to query the target.
    pub fn shares_blocks_with(&self, from: &dyn ReadAt) -> Result<bool> {
        match (self.staged.last(), from.as_host_file()) {
            (Some(staged), Some(from)) => staged.shares_blocks_with(from),
            _ => Ok(false),
        }
    }

    /// What takes the guest contents.
    pub fn writer(&mut self) -> &mut dyn ImageWriter {
        match &mut self.writer {
            Writer::Raw(writer) => writer,
            Writer::Qcow2(writer) => &mut **writer,
        }
    }

    /// Carries the persistent bitmaps of `source` over; call when all contents are written.
    ///
    /// # Errors
    /// A format without bitmaps; an inconsistent bitmap, unless `skip_broken`.
    pub(crate) fn add_bitmaps(&mut self, source: &Qcow2File, skip_broken: bool) -> Result<()> {
        let Writer::Qcow2(writer) = &mut self.writer else {
            return Err(Error::usage("only qcow2 images hold bitmaps"));
        };
        let mut total = 0;
        for entry in source.bitmap_directory()? {
            match source.read_bitmap(&entry) {
                Ok(bitmap) => {
                    total += bitmap.bits.len() as u64;
                    // All of them are in memory at once, and a small file may describe terabytes of them.
                    if total > qcow2::bitmaps::MAX_BITS_BYTES {
                        return Err(Error::unsupported(
                            "the persistent bitmaps together exceed 512 MiB",
                        )
                        .with_remedy("leave them behind, or remove some with `qemu-img bitmap`"));
                    }
                    writer.add_bitmap(bitmap);
                }
                Err(error) if skip_broken && error.kind() == crate::ErrorKind::Refused => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Completes the image: tables, header, sync, name. The length and allocated bytes of its file come back.
    ///
    /// # Errors
    /// The host fails to write, sync or rename: the destination is then what it was.
    pub fn finish(mut self) -> Result<(Written, u64)> {
        let written = self.writer().finish()?;
        let allocated = self.store.allocated_bytes()?;
        for staged in self.staged {
            staged.commit(self.sync)?;
        }
        if let (Some(file), Sync::Full) = (self.existing, self.sync) {
            file.sync()?;
        }
        Ok((written, allocated))
    }
}

/// Refuses an image that would be below itself: nobody could open it, and what it was would be gone.
fn refuse_itself_below(path: &Path, options: &Qcow2Options) -> Result<()> {
    let backing = options.backing.as_ref().map(|(name, _)| name);
    for name in backing.into_iter().chain(&options.data_file) {
        if is_protocol(name) {
            continue;
        }
        // A name out of an image is looked at, and not opened.
        let below = directory_of(path).join(name);
        let same = match HostFile::open_read(path, Locking::Ignore) {
            Ok(file) => same_file(&file, &below).unwrap_or(false),
            Err(_) => below == path,
        };
        if same {
            return Err(Error::usage(format!(
                "would be its own {}",
                match backing == Some(name) {
                    true => "backing file",
                    false => "data file",
                }
            ))
            .with_remedy("write to another file")
            .at_path(path));
        }
    }
    Ok(())
}

/// Refuses to write into an image what does not go with its own options, which stay.
fn refuse_unlike(file: &Qcow2File, options: &TargetOptions, compresses: bool) -> Result<()> {
    let remedy = "write to a new image instead of using -n";
    let header = &file.header;
    if header.has(features::CORRUPT) || header.has(features::DIRTY) {
        return Err(Error::refused(
            "is marked corrupt, or was not closed",
            "run `qemu-img check -r all` on it, or write to a new image instead of using -n",
        ));
    }
    let wanted = options.qcow2.compression_type;
    let has = file.options().compression_type;
    if compresses && wanted != has {
        return Err(Error::usage(format!(
            "is an image whose compressed clusters are {has}, not {wanted}"
        ))
        .with_remedy(format!("say --codec {has}, or {remedy}")));
    }
    if let Some((name, _)) = &options.qcow2.backing {
        return Err(Error::usage(format!(
            "has no backing file, and what is written needs '{name}' below it"
        ))
        .with_remedy(format!(
            "merge both (compress --flatten, or convert without -B), or {remedy}"
        )));
    }
    Ok(())
}

/// Refuses to replace an image that holds something in `behind`, where nothing is written.
fn refuse_behind(image: &Image, behind: std::ops::Range<u64>) -> Result<()> {
    let chain = image.chain(Depth::Chain, None)?;
    let mut reader = chain.reader();
    let mut piece = vec![0; PIECE];
    let mut at = behind.start;
    while at < behind.end {
        let extent = chain.extent_at(at..behind.end)?;
        let stored = matches!(extent.kind, ExtentKind::Data | ExtentKind::Compressed(_));
        let end = extent.end();
        while at < end && stored {
            let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let piece = piece.get_mut(..length).unwrap_or_default();
            reader.read_at(at, piece)?;
            if !is_zero(piece) {
                return Err(Error::refused(
                    format!("is larger than what is written, and holds data behind it, at {at}"),
                    "shrink it with `qimg resize --shrink`, or write to a new image instead of using -n",
                )
                .at_path(image.path()));
            }
            at += length as u64;
        }
        at = end;
    }
    Ok(())
}

/// The image in `store`, which is opened and locked already.
fn image_there(store: Arc<dyn ReadAt>, path: &Path, format: Format) -> Result<Image> {
    let open = OpenOptions {
        format: Some(format),
        locking: Locking::Ignore,
        ..OpenOptions::default()
    };
    Image::from_store(store, path, &open)
}

/// The options with which an existing image was made.
fn options_of(file: &Qcow2File) -> Result<Qcow2Options> {
    let header = &file.header;
    let refuse = |what: &str| {
        Err(Error::refused(
            format!("has {what}, which writing into it would lose"),
            "write to a new image instead of using -n",
        ))
    };
    if header.backing_file.is_some() {
        return refuse("a backing file");
    }
    if header.nb_snapshots > 0 {
        return refuse("internal snapshots");
    }
    if header.bitmaps.is_some() {
        return refuse("persistent bitmaps");
    }
    if header.data_file.is_some() || header.geometry().external_data {
        return refuse("an external data file");
    }
    if file.encryption().is_some() {
        return refuse("encryption");
    }
    Ok(file.options())
}

/// Fails when one of `stores` is the file that `path` names.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) when a source would be its own destination.
pub(crate) fn refuse_same_file<'a>(
    stores: impl Iterator<Item = &'a Arc<dyn ReadAt>>,
    path: &Path,
) -> Result<()> {
    for store in stores {
        if same_file(&**store, path)? {
            return Err(
                Error::usage("is read from and cannot be written to at the same time")
                    .with_remedy("write to another file, or use `qimg compress --in-place`")
                    .at_path(path),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Disk images: opening them, whatever their format.
//!
//! Knows formats, policies and chains. Must not know what is done with an
//! image: operations see [`Image`], [`Chain`] and
//! [`ImageWriter`](crate::writer::ImageWriter) alone.

mod backing;
pub mod check;
mod in_place;
pub mod info;
pub mod map;
pub mod measure;
pub mod options;
mod probe;
mod qcow2;
mod raw;
mod target;
mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) use backing::is_protocol;
pub use backing::{BackingPolicy, Chain, MAX_CHAIN};
pub use in_place::{EditOptions, InPlace, PunchOptions, PunchProgress, Punched};
pub use info::{ImageInfo, backing_chain_info};
pub use map::{MapEntry, map};
pub use probe::Format;
#[cfg(fuzzing)]
pub(crate) use qcow2::format as qcow2_format;
pub use qcow2::{Census, DeflateWindow, Subclusters};
pub use target::{Target, TargetOptions};

use crate::codec::CompressionType;
use crate::error::{Error, Result};
use crate::store::{HostFile, Locking, ReadAt};
use backing::{Layer, Role, refuse_cycle};
use qcow2::Qcow2File;

/// How an image is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// The format; probed when absent.
    pub format: Option<Format>,
    /// What the image may have opened.
    pub backing: BackingPolicy,
    /// Whether another process that writes to the image is an obstacle.
    pub locking: Locking,
}

/// An opened image file; no file that it names is open yet.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    store: Arc<dyn ReadAt>,
    options: OpenOptions,
    driver: Driver,
    /// The external data file, where it is open already.
    data: Option<Arc<dyn ReadAt>>,
}

#[derive(Debug)]
enum Driver {
    Raw,
    Qcow2(Box<Qcow2File>),
}

/// How far a view of an image reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The image and everything behind it.
    Chain,
    /// This image's own layer; reading through to a backing file is refused.
    Top,
}

impl Image {
    /// Opens the image file at `path` for reading.
    ///
    /// # Errors
    /// The file cannot be opened or is held by a writer; its format is not supported; its header is corrupt.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let store: Arc<dyn ReadAt> = Arc::new(HostFile::open_read(path, options.locking)?);
        Self::from_store(store, path, options)
    }

    /// Takes an opened store for an image; `path` is what its relative names refer to.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn from_store(
        store: Arc<dyn ReadAt>,
        path: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let format = match options.format {
            Some(format) => format,
            None => probe::probe(&*store)?,
        };
        let driver = match format {
            Format::Raw => Driver::Raw,
            Format::Qcow2 => Driver::Qcow2(Box::new(Qcow2File::open(Arc::clone(&store))?)),
        };
        Ok(Self {
            path: path.as_ref().to_owned(),
            store,
            options: *options,
            driver,
            data: None,
        })
    }

    /// The file's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub fn store(&self) -> &Arc<dyn ReadAt> {
        &self.store
    }

    /// The image's format.
    pub fn format(&self) -> Format {
        match self.driver {
            Driver::Raw => Format::Raw,
            Driver::Qcow2(_) => Format::Qcow2,
        }
    }

    /// Size of the active virtual disk in bytes.
    ///
    /// # Errors
    /// The host cannot tell a raw file's length.
    pub fn virtual_size(&self) -> Result<u64> {
        match &self.driver {
            Driver::Raw => Ok(raw::virtual_size(self.store.len()?)),
            Driver::Qcow2(file) => Ok(file.header.virtual_size()),
        }
    }

    /// Bytes of a cluster, for formats that have them.
    pub fn cluster_size(&self) -> Option<u64> {
        self.qcow2().map(|file| file.header.cluster_bits.size())
    }

    /// The backing file's name and format as recorded in the image.
    pub fn backing_file(&self) -> Option<(&str, Option<&str>)> {
        let header = &self.qcow2()?.header;
        Some((
            header.backing_file.as_deref()?,
            header.backing_format.as_deref(),
        ))
    }

    /// How compressed clusters are encoded, for formats that have them.
    pub fn compression_type(&self) -> Option<CompressionType> {
        self.qcow2().map(Qcow2File::compression_type)
    }

    /// Number of internal snapshots.
    pub fn snapshot_count(&self) -> usize {
        self.qcow2().map_or(0, |file| file.snapshots.len())
    }

    /// Whether an internal snapshot holds the state of a running machine.
    pub fn has_vm_state(&self) -> bool {
        self.qcow2().is_some_and(|file| {
            file.snapshots
                .iter()
                .any(|snapshot| snapshot.vm_state_size > 0)
        })
    }

    /// Number of persistent bitmaps.
    pub fn bitmap_count(&self) -> u32 {
        self.qcow2()
            .and_then(|file| file.header.bitmaps)
            .map_or(0, |bitmaps| bitmaps.nb_bitmaps)
    }

    /// The policy that the image was opened with.
    pub fn backing_policy(&self) -> BackingPolicy {
        self.options.backing
    }

    /// Fails where a new image made of this one must not take its place: what is wrong with it would be made to last.
    ///
    /// # Errors
    /// It has errors, was not closed, is marked corrupt, or is encrypted; it could not be checked; cancelled.
    pub fn refuse_replacement(&self, threads: usize, cancel: &AtomicBool) -> Result<()> {
        let Some(file) = self.qcow2() else {
            return Ok(());
        };
        qcow2::punch::refuse(file)
            .and_then(|()| qcow2::edit::refuse_errors(file, threads, cancel))
            .map_err(|error| error.at_path(&self.path))
    }

    /// Options that would make an image like this one, for formats that have them.
    pub fn qcow2_options(&self) -> Option<options::Qcow2Options> {
        self.qcow2().map(Qcow2File::options)
    }

    pub(crate) fn qcow2(&self) -> Option<&Qcow2File> {
        match &self.driver {
            Driver::Raw => None,
            Driver::Qcow2(file) => Some(file),
        }
    }

    /// The guest's view: of the active disk, or of the internal snapshot called by id or name.
    ///
    /// # Errors
    /// No such snapshot; a file that must be opened and may not; a chain that is too long or circular.
    pub fn chain(&self, depth: Depth, snapshot: Option<&str>) -> Result<Chain> {
        let mut seen = Vec::new();
        refuse_cycle(&mut seen, &*self.store, &self.path)?;
        let mut chain = Chain::new();
        self.push_layer(&mut chain, snapshot)?;
        let mut below = self.backing_file().map(|(name, format)| {
            (
                self.path.clone(),
                name.to_owned(),
                format.map(ToOwned::to_owned),
            )
        });
        while let Some((by, name, format)) = below {
            if depth == Depth::Top {
                chain.end_unopened(&by, name);
                break;
            }
            let backing = self.open_backing(&by, &name, format.as_deref())?;
            refuse_cycle(&mut seen, &*backing.store, &backing.path)?;
            if seen.len() > MAX_CHAIN {
                return Err(Error::unsupported(format!(
                    "the backing chain is longer than {MAX_CHAIN} images"
                ))
                .at_path(&backing.path));
            }
            backing.push_layer(&mut chain, None)?;
            below = backing.backing_file().map(|(name, format)| {
                (
                    backing.path.clone(),
                    name.to_owned(),
                    format.map(ToOwned::to_owned),
                )
            });
        }
        Ok(chain)
    }

    /// Opens the next image of the chain, if there is one, under the policy this image was opened with.
    ///
    /// # Errors
    /// As [`Image::chain`].
    pub fn open_next(&self) -> Result<Option<Self>> {
        self.backing_file()
            .map(|(name, format)| self.open_backing(&self.path, name, format))
            .transpose()
    }

    fn open_backing(&self, by: &Path, name: &str, format: Option<&str>) -> Result<Self> {
        let policy = self.options.backing;
        let store = policy.open(Role::Backing, name, by, self.options.locking)?;
        // Probing here would let a guest choose the format of its own disk (CVE-2008-2004 and its kin).
        let format = format.filter(|format| !format.is_empty()).ok_or_else(|| {
            Error::refused(
                format!("the format of its backing file '{name}' is not recorded"),
                "record it with `qemu-img rebase -u -F FORMAT -b NAME`",
            )
            .at_path(by)
        })?;
        let format: Format = format.parse().map_err(|error: Error| error.at_path(by))?;
        let path = store
            .path()
            .map_or_else(|| PathBuf::from(name), Path::to_owned);
        let options = OpenOptions {
            format: Some(format),
            ..self.options
        };
        Self::from_store(store, path, &options)
    }

    fn push_layer(&self, chain: &mut Chain, snapshot: Option<&str>) -> Result<()> {
        let mut stores = vec![Arc::clone(&self.store)];
        let layer = match &self.driver {
            Driver::Raw if snapshot.is_some() => {
                return Err(Error::usage("a raw image has no snapshots").at_path(&self.path));
            }
            Driver::Raw => Layer::Raw(raw::RawLayer::new(Arc::clone(&self.store))?),
            Driver::Qcow2(file) => {
                let data = self.open_data_file(file)?;
                stores.extend(data.clone());
                Layer::Qcow2(file.layer(snapshot, data)?)
            }
        };
        chain.push(layer, stores, &self.path, self.format());
        Ok(())
    }

    /// What the image calls its external data file, where it has one.
    fn named_data_file<'a>(&self, file: &'a Qcow2File) -> Result<Option<&'a str>> {
        if !file.header.geometry().external_data {
            return Ok(None);
        }
        let name = file.header.data_file.as_deref().ok_or_else(|| {
            Error::corrupt(
                "the external data file has no name",
                "the data file extension is missing from the header",
            )
            .at_path(&self.path)
        })?;
        Ok(Some(name))
    }

    /// The external data file, where the image has one.
    fn open_data_file(&self, file: &Qcow2File) -> Result<Option<Arc<dyn ReadAt>>> {
        if let Some(store) = &self.data {
            return Ok(Some(Arc::clone(store)));
        }
        let Some(name) = self.named_data_file(file)? else {
            return Ok(None);
        };
        let store =
            self.options
                .backing
                .open(Role::DataFile, name, &self.path, self.options.locking)?;
        Ok(Some(store))
    }
}

//! Files that an image names: whether they may be opened, and the chain of
//! layers that comes out.
//!
//! A name found inside an image is hostile data. It is opened only here, only
//! under a [`BackingPolicy`], and never as anything but a plain path.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Format, qcow2, raw};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::source::{Reader, Source, Stream};
use crate::store::{FileId, HostFile, Locking, ReadAt};

/// Longest chain: the image and all files behind it. External snapshots that a management program takes every day, and a
/// build's states, come to dozens; each file is one that the host holds open.
pub const MAX_CHAIN: usize = 256;

/// Layers that may keep as many tables in memory as an image without a chain.
const SHALLOW: usize = 16;

/// Raw images have no clusters; they are read in pieces of this size.
const RAW_UNIT: u64 = 1 << 16;

/// Which files an image may name, and have opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackingPolicy {
    /// None. The default: an image from elsewhere decides nothing about this host's files.
    #[default]
    Deny,
    /// Files below the directory of the image that names them; no symbolic link leads out.
    Beside,
    /// Any path.
    Any,
}

impl std::str::FromStr for BackingPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "deny" => Ok(Self::Deny),
            "beside" => Ok(Self::Beside),
            "any" => Ok(Self::Any),
            _ => Err(Error::usage(format!("'{text}' is not deny, beside or any"))),
        }
    }
}

/// What a file is to the image that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Backing,
    DataFile,
}

impl Role {
    fn noun(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::DataFile => "external data file",
        }
    }
}

impl BackingPolicy {
    /// Opens the file that the image at `by` calls `name`, if this policy allows it.
    ///
    /// # Errors
    /// Refused by policy; a pseudo-protocol name; a file that cannot be opened.
    pub(crate) fn open(
        self,
        role: Role,
        name: &str,
        by: &Path,
        locking: Locking,
    ) -> Result<Arc<HostFile>> {
        self.open_with(
            role,
            name,
            by,
            |path| HostFile::open_read(path, locking),
            |directory, relative| HostFile::open_beneath(directory, relative, locking),
        )
    }

    /// As [`BackingPolicy::open`], for writing in place.
    ///
    /// # Errors
    /// As [`BackingPolicy::open`].
    pub(crate) fn open_write(
        self,
        role: Role,
        name: &str,
        by: &Path,
        locking: Locking,
    ) -> Result<Arc<HostFile>> {
        self.open_with(
            role,
            name,
            by,
            |path| HostFile::open_write(path, locking),
            |directory, relative| HostFile::open_write_beneath(directory, relative, locking),
        )
    }

    fn open_with(
        self,
        role: Role,
        name: &str,
        by: &Path,
        open: impl FnOnce(&Path) -> Result<HostFile>,
        open_beneath: impl FnOnce(&Path, &Path) -> Result<HostFile>,
    ) -> Result<Arc<HostFile>> {
        let noun = role.noun();
        if self == Self::Deny {
            let remedy = if is_protocol(name) {
                "it is a pseudo-protocol name, which qimg never follows: convert the image with qemu-img first"
            } else {
                "allow that with --backing beside (same directory) or --backing any"
            };
            return Err(Error::refused(
                format!("its {noun} '{name}' would have to be opened"),
                remedy,
            )
            .at_path(by));
        }
        if is_protocol(name) {
            return Err(Error::unsupported(format!(
                "its {noun} '{name}' is a pseudo-protocol name, which qimg never follows"
            ))
            .at_path(by));
        }
        let directory = directory_of(by);
        let opened = if self == Self::Any {
            open(&directory.join(name))
        } else {
            let named = Path::new(name);
            let relative = named.strip_prefix(&directory).unwrap_or(named);
            open_beneath(&directory, relative).map_err(|error| {
                error.with_remedy(format!(
                    "--backing beside opens a {noun} only below {}; --backing any opens any path",
                    Path::new(".").join(&directory).display()
                ))
            })
        };
        opened.map(Arc::new)
    }
}

/// The directory that relative names in the image at `path` refer to, as `path` spells it: empty for the current one.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Whether QEMU would take `name` for `protocol:something`: a colon before any slash.
pub(crate) fn is_protocol(name: &str) -> bool {
    name.find([':', '/'])
        .is_some_and(|at| name.as_bytes()[at] == b':')
}

/// One layer of a chain.
#[derive(Debug)]
pub(crate) enum Layer {
    Raw(raw::RawLayer),
    Qcow2(qcow2::Layer),
}

impl Layer {
    pub(crate) fn virtual_size(&self) -> u64 {
        match self {
            Self::Raw(layer) => layer.virtual_size(),
            Self::Qcow2(layer) => layer.virtual_size(),
        }
    }

    fn cluster_size(&self) -> u64 {
        match self {
            Self::Raw(_) => RAW_UNIT,
            Self::Qcow2(layer) => layer.cluster_size(),
        }
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        match self {
            Self::Raw(layer) => layer.extent_at(range),
            Self::Qcow2(layer) => layer.extent_at(range),
        }
    }
}

/// An image and the files behind it, as the guest sees them.
#[derive(Debug)]
pub struct Chain {
    layers: Vec<Layer>,
    /// Named but not opened: reading through to it is refused with this name.
    unopened: Option<(PathBuf, String)>,
    paths: Vec<(PathBuf, Format)>,
    /// All files that are read.
    stores: Vec<Arc<dyn ReadAt>>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self {
            layers: Vec::new(),
            unopened: None,
            paths: Vec::new(),
            stores: Vec::new(),
        }
    }

    /// Leaves the backing file `name` of the image at `by` unopened.
    pub(crate) fn end_unopened(&mut self, by: &Path, name: String) {
        self.unopened = Some((by.to_owned(), name));
    }

    /// Adds the layer behind those that are there; `stores` are the files it reads.
    pub(crate) fn push(
        &mut self,
        mut layer: Layer,
        stores: Vec<Arc<dyn ReadAt>>,
        path: &Path,
        format: Format,
    ) {
        if self.layers.len() >= SHALLOW
            && let Layer::Qcow2(layer) = &mut layer
        {
            layer.keep_few_tables();
        }
        self.layers.push(layer);
        self.stores.extend(stores);
        self.paths.push((path.to_owned(), format));
    }

    /// Fails when `path` names a file of this chain: it would be overwritten while it is read.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) naming it.
    pub fn refuse_destination(&self, path: &Path) -> Result<()> {
        super::target::refuse_same_file(self.stores.iter(), path)
    }

    /// Fails when one of the images is encrypted, also when it holds nothing yet.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), with the image's path.
    pub fn refuse_encrypted(&self) -> Result<()> {
        let paths = self.paths.iter().map(|(path, _)| path);
        for (layer, path) in self.layers.iter().zip(paths) {
            if let Layer::Qcow2(layer) = layer
                && layer.is_encrypted()
            {
                return Err(Error::unsupported("is encrypted: its data cannot be read")
                    .with_remedy("decrypt it with `qemu-img convert` and its secret")
                    .at_path(path));
            }
        }
        Ok(())
    }

    /// The opened files, the image itself first.
    pub fn paths(&self) -> impl Iterator<Item = (&Path, Format)> {
        self.paths
            .iter()
            .map(|(path, format)| (path.as_path(), *format))
    }

    /// The layers behind [`Chain::paths`].
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether ranges may be left to a backing file that is not open.
    pub fn is_partial(&self) -> bool {
        self.unopened.is_some()
    }

    /// Whether the host can share the blocks of all files of this chain with `target`.
    ///
    /// # Errors
    /// The host fails to query the target.
    pub fn all_shared_with(&self, target: &super::Target) -> Result<bool> {
        for store in &self.stores {
            if !target.shares_blocks_with(&**store)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fails when what is at `guest` is left to a backing file that is not open.
    pub(crate) fn refuse_unopened(&self, guest: u64) -> Result<()> {
        let Some((by, name)) = &self.unopened else {
            return Ok(());
        };
        Err(Error::refused(
            format!("its backing file '{name}' would have to be opened"),
            "allow that with --backing beside (same directory) or --backing any",
        )
        .at_path(by)
        .at_guest(guest))
    }
}

impl Source for Chain {
    fn virtual_size(&self) -> u64 {
        self.layers[0].virtual_size()
    }

    fn cluster_size(&self) -> u64 {
        self.layers
            .iter()
            .map(Layer::cluster_size)
            .max()
            .unwrap_or(RAW_UNIT)
    }

    fn cluster_size_at(&self, depth: u32) -> u64 {
        self.layers
            .get(depth as usize)
            .map_or(RAW_UNIT, Layer::cluster_size)
    }

    fn data_store(&self, depth: u32) -> Option<&dyn ReadAt> {
        match self.layers.get(depth as usize)? {
            Layer::Raw(layer) => Some(&**layer.store()),
            Layer::Qcow2(layer) => (!layer.is_encrypted()).then(|| &**layer.data_store()),
        }
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let mut range = range;
        let mut depth = 0;
        loop {
            let layer = &self.layers[depth];
            let number = u32::try_from(depth).unwrap_or(u32::MAX);
            if range.start >= layer.virtual_size() {
                // Past a shorter backing file everything reads as zeros, as if written there.
                return Ok(Extent {
                    start: range.start,
                    length: range.end - range.start,
                    kind: ExtentKind::Zero,
                    host: None,
                    depth: number,
                });
            }
            let until = range.end.min(layer.virtual_size());
            let mut extent = layer.extent_at(range.start..until)?;
            extent.depth = number;
            if extent.kind != ExtentKind::Unallocated || depth + 1 == self.layers.len() {
                return Ok(extent);
            }
            range.end = extent.end();
            depth += 1;
        }
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let layers = self.layers.iter().map(|layer| match layer {
            Layer::Raw(layer) => LayerReader::Raw(layer),
            Layer::Qcow2(layer) => LayerReader::Qcow2(Box::new(layer.reader())),
        });
        Box::new(ChainReader {
            chain: self,
            layers: layers.collect(),
        })
    }
}

enum LayerReader<'a> {
    Raw(&'a raw::RawLayer),
    Qcow2(Box<qcow2::LayerReader<'a>>),
}

struct ChainReader<'a> {
    chain: &'a Chain,
    layers: Vec<LayerReader<'a>>,
}

impl Reader for ChainReader<'_> {
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> Result<()> {
        let end = guest + buf.len() as u64;
        let mut rest = buf;
        let mut at = guest;
        while at < end {
            let extent = self.chain.extent_at(at..end)?;
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(length);
            if extent.kind == ExtentKind::Unallocated {
                self.chain.refuse_unopened(at)?;
            }
            match &mut self.layers[extent.depth as usize] {
                LayerReader::Raw(layer) if extent.kind == ExtentKind::Data => {
                    layer.read(at, part)?;
                }
                LayerReader::Raw(_) => part.fill(0),
                LayerReader::Qcow2(layer) => layer.read_extent(&extent, part)?,
            }
            rest = tail;
            at = extent.end();
        }
        Ok(())
    }

    fn read_streams(
        &mut self,
        guest: Range<u64>,
        out: &mut Vec<u8>,
        streams: &mut Vec<Stream>,
    ) -> Result<()> {
        let extent = self.chain.extent_at(guest.clone())?;
        match &mut self.layers[extent.depth as usize] {
            LayerReader::Raw(_) => Ok(()),
            LayerReader::Qcow2(layer) => layer.read_streams(guest, out, streams),
        }
    }
}

/// Fails when `store` is already part of a chain.
pub(crate) fn refuse_cycle(seen: &mut Vec<FileId>, store: &dyn ReadAt, path: &Path) -> Result<()> {
    let Some(identity) = store.identity() else {
        return Ok(());
    };
    if seen.contains(&identity) {
        return Err(Error::corrupt(
            "the backing chain leads back to this file",
            "a backing chain must end",
        )
        .at_path(path));
    }
    seen.push(identity);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_protocols_are_told_from_paths() {
        for name in [
            "json:{}",
            "nbd://host/export",
            "file:a.qcow2",
            "fat:rw:/",
            ":x",
        ] {
            assert!(is_protocol(name), "{name}");
        }
        for name in ["a.qcow2", "./a:b", "/srv/a:b", "dir/json:x"] {
            assert!(!is_protocol(name), "{name}");
        }
    }
}

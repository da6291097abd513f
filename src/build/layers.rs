//! What the disks of a machine that was kept rest on: a base, and states in the cache.
//!
//! Knows whether all of it is there, and is what it was. Must not know why the machine was kept.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::leave::by_hand;
use super::register::Run;
use crate::error::{Error, Result};
use crate::image::{BackingPolicy, Depth, Format, Image, OpenOptions};
use crate::store::{Locking, look};

/// A file that a disk rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layer {
    /// It; absolute.
    pub path: PathBuf,
    /// Length in bytes.
    pub length: u64,
    /// When it was written last: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
}

/// All files that `disks` are overlays of, the topmost first.
///
/// # Errors
/// One cannot be opened, or lies in `work`, which goes with the build.
pub(super) fn below(disks: &[PathBuf], work: &Path) -> Result<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::new();
    let work = work.canonicalize().unwrap_or_else(|_| work.to_owned());
    for disk in disks {
        let options = OpenOptions {
            format: Some(Format::Qcow2),
            // The only names in it are those that were put there for this build; a guest cannot change them.
            backing: BackingPolicy::Any,
            locking: Locking::Ignore,
        };
        let chain = Image::open(disk, &options)?.chain(Depth::Chain, None)?;
        for (path, _) in chain.paths().skip(1) {
            if layers.iter().any(|layer| layer.path == path) {
                continue;
            }
            let real = path.canonicalize();
            if real.is_ok_and(|real| real.starts_with(&work)) {
                let message =
                    "is below its disk, and goes with the build: the cache had no room for it";
                return Err(Error::usage(message).at_path(path));
            }
            let seen = look(path)?
                .ok_or_else(|| Error::usage("went away while it was kept").at_path(path))?;
            layers.push(Layer {
                path: path.to_owned(),
                length: seen.length,
                modified: seen.modified,
            });
        }
    }
    Ok(layers)
}

/// Why the machine of `run`, which was kept, cannot be started any more; `None`: it can.
pub fn lost(run: &Run) -> Option<Error> {
    let left = run.left.as_ref()?;
    let forget = format!("`qimg forget {}` removes what is left of it", run.run);
    for disk in &left.disks {
        if !matches!(look(disk), Ok(Some(_))) {
            let message = format!("{} has lost its disk {}", run.run, disk.display());
            return Some(Error::usage(message).with_remedy(forget));
        }
    }
    for layer in &left.layers {
        let path = layer.path.display();
        let Ok(Some(seen)) = look(&layer.path) else {
            let message = format!(
                "{} cannot be started any more: its disk rests on {path}, which is gone",
                run.run
            );
            return Some(Error::usage(message).with_remedy(forget));
        };
        if (seen.length, seen.modified) != (layer.length, layer.modified) {
            let message = format!(
                "{} is not started: its disk holds only what differs from {path}, and that was written since",
                run.run
            );
            return Some(Error::usage(message).with_remedy(format!(
                "put the file back as it was; {} all the same; {forget}",
                by_hand(run)
            )));
        }
    }
    None
}

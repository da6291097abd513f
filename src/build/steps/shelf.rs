//! States on the host: one directory for each, below `steps` in the cache.
//!
//! Knows the files of a state, who uses them, whether they are what they were, and which go first when there is no room.
//! Must not know machines, nor what a state is a state of.
//!
//! ```text
//! steps/KEY/record.json   written last: with it the state is there, without it there is none
//!          /disk-0.qcow2  what was written to the disk since the state before; its backing file is that state's, or the base
//!          /memory.zst    QEMU's memory and devices
//!          /file-0        variables of firmware
//!          /key           what opens the guest; also host-key and seed.img
//! steps/KEY.lock          held by all who use it, and alone by who removes it
//! steps/KEY.making        held by who makes it
//! ```
//!
//! Disks that something rests on without being a process are left where they are, whatever becomes of the state.
//!
//! Only the user reads any of it: a disk and a memory hold what the guest holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::communicator::Stop;
use crate::digest::DigestKind;
use crate::error::{Error, Result};
use crate::fetch::Hashing;
use crate::fetch::cache::pins::Pins;
use crate::fetch::cache::{State, hash_file, read_record, write_record};
use crate::image::{BackingPolicy, Format, Image, OpenOptions};
use crate::store::{
    Attempt, Hold, Locking, Share, look, make_private_directory, mark_used, names_in, remove_file,
    remove_tree,
};

/// Tries to take part in a state, and the time between two of them.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// What is known of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Name of the build.
    pub build: String,
    /// The template.
    pub template: PathBuf,
    /// After what, in words.
    pub after: String,
    /// Steps that are done.
    pub steps: usize,
    /// Milliseconds of work that need not be done again.
    pub saves: u64,
    /// The state whose disks are below; none: the base is.
    pub below: Option<String>,
    pub disks: Vec<Layer>,
    pub files: Vec<Aside>,
    pub memory: Option<Memory>,
    /// Why there is no memory.
    pub no_memory: Option<String>,
    pub instance_id: Option<String>,
    /// The user that the seed has made.
    pub created_user: Option<String>,
}

/// A disk of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// SHA-256.
    pub digest: String,
    pub virtual_size: u64,
    /// The file when the digest was made.
    pub state: Option<State>,
}

/// A small file that the machine writes besides its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    /// Belongs to the artifact; else to the work of a build.
    pub of_artifact: bool,
    pub name: String,
}

/// The memory of a state, and the only machine that takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub machine: Identity,
    /// Bytes of the packed file.
    pub length: u64,
    /// Bytes unpacked.
    pub unpacked: u64,
}

/// What a machine must have in common with the one whose memory it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub accelerator: String,
    pub qemu: String,
    /// The host's processor, where the guest sees it.
    pub processor: Option<String>,
}

impl Identity {
    /// Why a machine like `self` does not take the memory of one like `other`.
    pub(super) fn differs_from(&self, other: &Self) -> Option<String> {
        if self.accelerator != other.accelerator {
            return Some(format!(
                "it is that of a guest run by {}, and this one is run by {}",
                other.accelerator, self.accelerator
            ));
        }
        if self.qemu != other.qemu {
            return Some(format!(
                "it is that of QEMU {}, and this is {}",
                other.qemu, self.qemu
            ));
        }
        (self.processor != other.processor)
            .then(|| "it is that of a guest on another processor of the host".to_owned())
    }
}

/// Where states are.
#[derive(Debug, Clone)]
pub struct Shelf {
    pub(super) directory: PathBuf,
    pub(super) pins: Pins,
}

/// A state that is there, sound, and not removed while this lives; and all states below it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) directory: PathBuf,
    pub(super) holds: Vec<Hold>,
}

/// What is to be said of a state that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) after: String,
    pub(super) why: String,
}

impl Shelf {
    /// States of the cache in `cache`.
    pub fn of(cache: &Path) -> Self {
        Self {
            directory: cache.join("steps"),
            pins: Pins::of(cache),
        }
    }

    pub(super) fn place(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    pub(super) fn lock(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.lock"))
    }

    pub(super) fn record(&self, key: &str) -> Option<Record> {
        read_record(&self.place(key).join("record.json"))
    }

    /// The state `key`, if it is there. One that is not what it was is removed.
    ///
    /// # Errors
    /// The host's own; cancelled.
    pub(super) fn find(&self, key: &str, stop: &Stop) -> Result<Option<Result<Found, Damaged>>> {
        let Some(record) = self.record(key) else {
            return Ok(None);
        };
        let mut holds = Vec::new();
        let mut next = Some(key.to_owned());
        let mut used = Vec::new();
        let damaged = |why: String| {
            Ok(Some(Err(Damaged {
                after: record.after.clone(),
                why,
            })))
        };
        while let Some(key) = next {
            let Some(hold) = self.share(&key, stop)? else {
                return Ok(None);
            };
            holds.push(hold);
            // Only now nobody removes it.
            let Some(one) = self.record(&key) else {
                drop(holds);
                self.remove(&used)?;
                return damaged("what is below it was removed".to_owned());
            };
            if used.contains(&key) {
                return damaged("it has no end".to_owned());
            }
            used.push(key.clone());
            if let Some(why) = self.unsound(&key, &one, stop)? {
                drop(holds);
                self.remove(&used)?;
                return damaged(why);
            }
            next = one.below;
        }
        // What is below is used as well, and longer.
        for key in &used {
            mark_used(self.place(key).join("record.json"));
        }
        Ok(Some(Ok(Found {
            record,
            directory: self.place(key),
            holds,
        })))
    }

    /// Takes part in a state. Who only looks whether anybody does is waited for; who removes it is not.
    fn share(&self, key: &str, stop: &Stop) -> Result<Option<Hold>> {
        for _ in 0..TRIES {
            if let Attempt::Held(hold) = Hold::attempt(self.lock(key), Share::Shared)? {
                return Ok(Some(hold));
            }
            if stop() {
                return Err(Error::cancelled());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// What is wrong with the files of a state.
    fn unsound(&self, key: &str, record: &Record, stop: &Stop) -> Result<Option<String>> {
        let place = self.place(key);
        let mut record = record.clone();
        let mut read = false;
        for (number, layer) in record.disks.iter_mut().enumerate() {
            let path = place.join(disk_name(number));
            let Some(seen) = look(&path)? else {
                return Ok(Some(format!("its disk {} is missing", path.display())));
            };
            if layer.state == Some(State::of(&seen)) {
                continue;
            }
            let kinds = [DigestKind::Sha256];
            let (digests, seen) = hash_file(&path, &kinds, Hashing::Verify, stop, &mut |_| {})?;
            if digests.iter().all(|digest| digest.hex() != layer.digest) {
                return Ok(Some(format!(
                    "its disk {} is not what it was",
                    path.display()
                )));
            }
            layer.state = Some(State::of(&seen));
            read = true;
        }
        if let Some(why) = self.elsewhere(key, &record)? {
            return Ok(Some(why));
        }
        if read {
            write_record(&place.join("record.json"), &record)?;
        }
        let memory = place.join("memory.zst");
        match &record.memory {
            Some(memory_of) if look(&memory)?.map(|seen| seen.length) != Some(memory_of.length) => {
                Ok(Some("its memory is missing or cut off".to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// The disk that is not on top of the one of the state below: a cache that was copied names the files of the other.
    fn elsewhere(&self, key: &str, record: &Record) -> Result<Option<String>> {
        let Some(below) = &record.below else {
            return Ok(None);
        };
        for number in 0..record.disks.len() {
            let path = self.place(key).join(disk_name(number));
            let options = OpenOptions {
                format: Some(Format::Qcow2),
                backing: BackingPolicy::Deny,
                locking: Locking::Ignore,
            };
            let Ok(image) = Image::open(&path, &options) else {
                return Ok(Some(format!("its disk {} is no image", path.display())));
            };
            let wanted = self.place(below).join(disk_name(number));
            let named = image.backing_file().map(|(name, _)| PathBuf::from(name));
            let same = match (&named, look(&wanted)?) {
                (Some(named), _) if *named == wanted => true,
                (Some(named), Some(seen)) => {
                    look(named)?.is_some_and(|named| named.identity == seen.identity)
                }
                _ => false,
            };
            if !same {
                return Ok(Some(format!(
                    "its disk {} is on top of one elsewhere, not of this cache's",
                    path.display()
                )));
            }
        }
        Ok(None)
    }

    /// Removes states that nobody uses.
    pub(super) fn remove(&self, keys: &[String]) -> Result<()> {
        for key in keys {
            if let Attempt::Held(hold) = Hold::attempt(self.lock(key), Share::Alone)? {
                self.clear(key)?;
                hold.remove()?;
            }
        }
        Ok(())
    }

    /// Removes the files of a state; its lock must be held alone.
    pub(super) fn clear(&self, key: &str) -> Result<()> {
        let place = self.place(key);
        // Without its record it is none; then the rest goes.
        remove_file(place.join("record.json"))?;
        if self.pins.of_part(&place)?.is_none() {
            return remove_tree(place);
        }
        for path in names_in(place)? {
            if !is_disk(&path) {
                remove_file(path)?;
            }
        }
        Ok(())
    }

    /// A directory for the state `key`, if nobody else makes it or has made it.
    pub(super) fn begin(&self, key: &str) -> Result<Option<Begun>> {
        make_private_directory(&self.directory)?;
        let making = self.directory.join(format!("{key}.making"));
        let Attempt::Held(making) = Hold::attempt(making, Share::Alone)? else {
            return Ok(None);
        };
        let place = self.place(key);
        if look(&place)?.is_some() {
            let Attempt::Held(alone) = Hold::attempt(self.lock(key), Share::Alone)? else {
                making.remove()?;
                return Ok(None);
            };
            if self.record(key).is_some() {
                making.remove()?;
                return Ok(None);
            }
            // What a killed build left.
            self.clear(key)?;
            drop(alone);
            if look(&place)?.is_some() {
                // Something rests on the disks of one that was there.
                making.remove()?;
                return Ok(None);
            }
        }
        let Attempt::Held(hold) = Hold::attempt(self.lock(key), Share::Shared)? else {
            making.remove()?;
            return Ok(None);
        };
        make_private_directory(&place)?;
        Ok(Some(Begun {
            directory: place,
            making,
            hold,
        }))
    }
}

/// A state that is being made.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) directory: PathBuf,
    pub(super) making: Hold,
    pub(super) hold: Hold,
}

pub(super) fn disk_name(number: usize) -> String {
    format!("disk-{number}.qcow2")
}

fn is_disk(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("disk-"))
}

pub(super) fn file_name(number: usize) -> String {
    format!("file-{number}")
}

/// A file that was put into a state: what it comes to.
pub(super) fn layer(path: &Path, virtual_size: u64, stop: &Stop) -> Result<Layer> {
    let kinds = [DigestKind::Sha256];
    let (digests, seen) = hash_file(path, &kinds, Hashing::Verify, stop, &mut |_| {})?;
    let digest = digests
        .first()
        .ok_or_else(|| Error::usage("has no digest").at_path(path))?;
    Ok(Layer {
        digest: digest.hex(),
        virtual_size,
        state: Some(State::of(&seen)),
    })
}

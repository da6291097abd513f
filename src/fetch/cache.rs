//! Images that were downloaded once, kept under the digest of what was downloaded.
//!
//! Knows the cache's directory: what is complete, what is in use, when it was used last, what may go. Must not know how
//! files are downloaded, nor what is in them.
//!
//! ```text
//! entries/HEX.lock        shared by whoever uses the entry
//! entries/HEX/image       the image: as it was downloaded, or unpacked
//! entries/HEX/entry.json  what it is, and by its time of modification when it was used last; an entry without is none
//! downloads/KEY.lock      held by whoever downloads
//! downloads/KEY.part      what has come so far
//! downloads/KEY.json      of which state of the file that is
//! urls/KEY.json           which entry a URL had when it was asked last
//! files/KEY.json          digests of a file outside, for as long as nobody writes it
//! pins/KEY.json           what rests on entries without being a process
//! ```
//!
//! HEX is the SHA-256 of what was downloaded, so an entry never changes. A file takes its final name only when it is
//! whole; a process that is killed leaves a part, which the next one goes on with.

pub(crate) mod pins;
mod prune;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use prune::{Item, Prune, Pruned};

use super::http::Validators;
use super::source::{Source, shown};
use super::{Event, Hashing};
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, Result};
use crate::store::{
    FileId, Hold, Seen, Share, look, make_directory, mark_used, move_file, names_in, read_file,
    remove_file, write_file,
};

/// A record of the cache is not longer.
const MAX_RECORD: u64 = 1 << 20;

/// A file that was written so shortly before it was read may be written again without its times changing.
const SETTLED: Duration = Duration::from_secs(2);

/// The directory.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
}

/// A complete image in the cache. It is not pruned while this lives.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    record: Record,
    _hold: Hold,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where it came from, as messages may say it.
    pub url: String,
    /// What was downloaded comes to; SHA-256 is among them.
    pub digests: Vec<String>,
    /// SHA-256 of the file in the cache.
    pub content: String,
    /// How it was packed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<String>,
    /// The file when the digest was made.
    pub state: State,
}

/// By what a file shows that it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    length: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    pub(crate) fn of(seen: &Seen) -> Self {
        let (device, inode) = match seen.identity {
            FileId::Inode { dev, ino } => (dev, ino),
            FileId::BlockDevice { rdev } => (rdev, 0),
        };
        Self {
            length: seen.length,
            device,
            inode,
            modified: seen.modified,
            changed: seen.changed,
        }
    }
}

/// What a URL had when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// As messages may say it.
    pub url: String,
    /// SHA-256 of what was downloaded.
    pub digest: String,
    #[serde(flatten)]
    pub validators: Validators,
}

/// Digests of a file outside the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    path: String,
    digests: Vec<String>,
    state: State,
}

/// The files of one download.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub lock: PathBuf,
    pub part: PathBuf,
    pub record: PathBuf,
}

impl Place {
    /// Where the part is unpacked to.
    pub fn unpacked(&self) -> PathBuf {
        self.record.with_extension("unpacked")
    }
}

impl Cache {
    /// The cache in `directory`, which is made when something is kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn entry_path(&self, hex: &str) -> PathBuf {
        self.directory.join("entries").join(hex)
    }

    fn pointer_path(&self, key: &str) -> PathBuf {
        self.directory.join("urls").join(format!("{key}.json"))
    }

    fn known_path(&self, path: &Path) -> PathBuf {
        let key = key_of(&path.as_os_str().to_string_lossy());
        self.directory.join("files").join(format!("{key}.json"))
    }

    /// Where `key` is downloaded to. The directory is made.
    pub(super) fn place(&self, key: &str) -> Result<Place> {
        let directory = self.directory.join("downloads");
        make_directory(&directory)?;
        let at = |ending: &str| directory.join(format!("{key}.{ending}"));
        Ok(Place {
            lock: at("lock"),
            part: at("part"),
            record: at("json"),
        })
    }

    /// The entry whose download comes to `digest`, if there is one that is sound.
    ///
    /// A file that shows no sign of having been written is believed; `verify` reads it all the same.
    pub(super) fn find(
        &self,
        digest: &Digest,
        verify: bool,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Entry>> {
        for hex in self.candidates(digest)? {
            if let Some(entry) = self.open(&hex, verify, stop, tell)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Entries whose records name `digest`.
    fn candidates(&self, digest: &Digest) -> Result<Vec<String>> {
        if digest.kind() == DigestKind::Sha256 {
            return Ok(vec![digest.hex()]);
        }
        let wanted = digest.to_string();
        let mut found = Vec::new();
        for path in names_in(self.directory.join("entries"))? {
            let record: Option<Record> = read_record(&path.join("entry.json"));
            if record.is_some_and(|record| record.digests.contains(&wanted)) {
                found.extend(path.file_name().map(|name| name.to_string_lossy().into()));
            }
        }
        Ok(found)
    }

    fn open(
        &self,
        hex: &str,
        verify: bool,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Entry>> {
        let directory = self.entry_path(hex);
        let record_path = directory.join("entry.json");
        if look(&record_path)?.is_none() {
            return Ok(None);
        }
        let hold = self.hold(hex, stop, tell)?;
        let path = directory.join("image");
        // Only now nobody removes it.
        let (Some(mut record), Some(seen)) = (read_record::<Record>(&record_path), look(&path)?)
        else {
            return Ok(None);
        };
        if verify || State::of(&seen) != record.state {
            let kinds = [DigestKind::Sha256];
            let (digests, seen) = hash_file(&path, &kinds, Hashing::Verify, stop, tell)?;
            if digests
                .iter()
                .all(|digest| digest.to_string() != record.content)
            {
                tell(Event::Damaged { path: &path });
                return Ok(None);
            }
            record.state = State::of(&seen);
            write_record(&record_path, &record)?;
        }
        mark_used(&record_path);
        Ok(Some(Entry {
            path,
            record,
            _hold: hold,
        }))
    }

    fn hold(&self, hex: &str, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Result<Hold> {
        make_directory(self.directory.join("entries"))?;
        let lock = self.directory.join("entries").join(format!("{hex}.lock"));
        Hold::wait(lock, Share::Shared, stop, &mut |process| {
            tell(Event::Waiting { process });
        })
    }

    /// Makes `file`, which is whole, synced and compared, the image of the entry of what was downloaded.
    pub(super) fn keep(
        &self,
        file: &Path,
        mut record: Record,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Entry> {
        let digest = record
            .sha256()
            .ok_or_else(|| Error::usage("an entry of the cache needs its SHA-256"))?;
        let directory = self.entry_path(&digest.hex());
        let hold = self.hold(&digest.hex(), stop, tell)?;
        make_directory(&directory)?;
        let path = directory.join("image");
        move_file(file, &path)?;
        let seen = look(&path)?
            .ok_or_else(|| Error::usage("went away while it was kept").at_path(&path))?;
        record.state = State::of(&seen);
        write_record(&directory.join("entry.json"), &record)?;
        Ok(Entry {
            path,
            record,
            _hold: hold,
        })
    }

    /// What `url` had when it was asked last.
    pub(super) fn pointer(&self, key: &str) -> Option<Pointer> {
        read_record(&self.pointer_path(key))
    }

    /// Remembers what a URL has.
    pub(super) fn point(&self, key: &str, pointer: &Pointer) -> Result<()> {
        make_directory(self.directory.join("urls"))?;
        write_record(&self.pointer_path(key), pointer)
    }

    /// Digests of a file outside the cache, by reading it, or from memory if it shows no sign of having been written.
    pub(crate) fn digests_of(
        &self,
        path: &Path,
        kinds: &[DigestKind],
        verify: bool,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Digest>> {
        let record_path = self.known_path(path);
        let seen = look(path)?
            .ok_or_else(|| Error::io("open", std::io::ErrorKind::NotFound.into()).at_path(path))?;
        if !verify
            && let Some(known) = read_record::<Known>(&record_path)
            && known.path == path.to_string_lossy()
            && known.state == State::of(&seen)
        {
            let digests: Vec<Digest> = parsed(&known.digests);
            if kinds
                .iter()
                .all(|kind| digests.iter().any(|digest| digest.kind() == *kind))
            {
                return Ok(digests);
            }
        }
        let (digests, seen) = hash_file(path, kinds, Hashing::Local, stop, tell)?;
        if is_settled(&seen) {
            let known = Known {
                path: path.to_string_lossy().into_owned(),
                digests: digests.iter().map(ToString::to_string).collect(),
                state: State::of(&seen),
            };
            // A cache that cannot be written costs time, no more.
            let _ = make_directory(self.directory.join("files"))
                .and_then(|()| write_record(&record_path, &known));
        }
        Ok(digests)
    }
}

impl Entry {
    /// The image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was downloaded comes to.
    pub fn digests(&self) -> Vec<Digest> {
        parsed(&self.record.digests)
    }

    /// How what was downloaded was packed, if it was.
    pub fn unpacked(&self) -> Option<&str> {
        self.record.unpacked.as_deref()
    }
}

impl Record {
    /// A record of a file that is about to be kept.
    pub fn new(source: &Source, digests: &[Digest], content: &Digest) -> Self {
        Self {
            url: source.to_string(),
            digests: digests.iter().map(ToString::to_string).collect(),
            content: content.to_string(),
            unpacked: None,
            state: State {
                length: 0,
                device: 0,
                inode: 0,
                modified: (0, 0),
                changed: (0, 0),
            },
        }
    }

    fn sha256(&self) -> Option<Digest> {
        parsed(&self.digests)
            .into_iter()
            .find(|digest| digest.kind() == DigestKind::Sha256)
    }
}

impl Pointer {
    /// What `url` has now.
    pub fn new(url: &str, digest: &Digest, validators: Validators) -> Self {
        Self {
            url: shown(url),
            digest: digest.to_string(),
            validators,
        }
    }
}

/// A name for files of the cache that stand for `text`.
pub(super) fn key_of(text: &str) -> String {
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    digester.update(text.as_bytes());
    let digests = digester.finish();
    digests[0].hex()[..40].to_owned()
}

/// Digests of a file, read from its beginning to its end, and the look at it that they hold for.
pub(crate) fn hash_file(
    path: &Path,
    kinds: &[DigestKind],
    why: Hashing,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(Vec<Digest>, Seen)> {
    let changed = || Error::new(crate::ErrorKind::Io, "changed while it was read").at_path(path);
    let before = look(path)?.ok_or_else(changed)?;
    let digests = super::unpack::hash(path, kinds, why, stop, tell)?;
    let after = look(path)?.ok_or_else(changed)?;
    if State::of(&before) != State::of(&after) {
        return Err(changed());
    }
    Ok((digests, after))
}

fn is_settled(seen: &Seen) -> bool {
    let Ok(seconds) = u64::try_from(seen.changed.0) else {
        return false;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age >= SETTLED)
}

fn parsed(digests: &[String]) -> Vec<Digest> {
    digests
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// A record that cannot be read is as good as none: all of them can be made anew.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_file(path, MAX_RECORD).ok()?).ok()
}

pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let bytes = serde_json::to_vec(record)
        .map_err(|error| Error::io("write the record", error.into()).at_path(path))?;
    write_file(path, &bytes)
}

/// Removes a download that nobody goes on with.
pub(super) fn forget(place: &Place) -> Result<()> {
    remove_file(&place.record)?;
    remove_file(place.unpacked())?;
    remove_file(&place.part)
}

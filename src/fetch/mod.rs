//! Getting the image that a build starts from: found, downloaded, compared, unpacked, checked.
//!
//! Knows sources, checksums, signatures and the cache of downloads. Must not know what the image is for; asks nothing of
//! the environment: proxies, certificates and the cache's directory come from the caller.
//!
//! ```text
//! urls + checksum -> list of checksums (signature) -> cache | download -> digest -> unpack -> check -> Fetched
//! ```

pub mod cache;
pub(crate) mod check_base;
pub mod checksum;
pub(crate) mod http;
mod list_file;
mod signature;
pub(crate) mod source;
mod transfer;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use cache::{Cache, Entry, Item, Prune, Pruned};
pub use check_base::{Checked, NamedFiles, check_base};
pub use checksum::Checksum;
pub use http::{HttpOptions, Proxies};
pub use signature::{Signature, SignedText, signed_text, verify};
pub use source::Source;
pub use unpack::{Packing, packing_of, unpack};

use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Format;
use crate::store::{Hold, Kind, Share, look, move_file, remove_file};
use crate::template::model::Base;
use cache::{Place, Pointer, Record, forget, key_of};
use http::{Client, Validators};
use list_file::Lists;
use transfer::{Order, Outcome, download, mismatch};

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Paths, `file:` and http(s) URLs of the same image, tried in order.
    pub urls: &'a [String],
    /// `sha256:HEX`, bare digits, `file:PATH-OR-URL`, `none` or empty.
    pub checksum: &'a str,
    /// A file with the keys of which one must have signed the file of checksums.
    pub signature_key: Option<&'a Path>,
    /// Where a download is kept, instead of the cache.
    pub target_path: Option<&'a Path>,
    /// What relative paths start from.
    pub directory: &'a Path,
    /// Whether a local image may name other files; a downloaded one never may.
    pub named: NamedFiles,
}

impl<'a> Request<'a> {
    /// What a build starts from; relative paths start from `directory`.
    pub fn of(base: &'a Base, directory: &'a Path) -> Self {
        Self {
            urls: &base.urls,
            checksum: &base.checksum,
            signature_key: base.signature_key.as_deref(),
            target_path: base.target_path.as_deref(),
            directory,
            named: NamedFiles::Refuse,
        }
    }
}

/// How images are got.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where downloads are kept.
    pub cache: Cache,
    /// How servers are talked to.
    pub http: HttpOptions,
    /// Read what is in the cache once more, even if it shows no sign of having been written.
    pub verify: bool,
    /// An image is not longer, in bytes.
    pub most: u64,
}

impl Options {
    /// The defaults, with this cache.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            http: HttpOptions::default(),
            verify: false,
            most: 1 << 40,
        }
    }
}

/// The image, ready for use.
#[derive(Debug)]
pub struct Fetched {
    /// The file. It is not to be written.
    pub path: PathBuf,
    /// Which of the sources it is from, as messages may say it.
    pub source: String,
    /// Its format, by its contents.
    pub format: Format,
    /// Size of the disk in it, in bytes.
    pub virtual_size: u64,
    /// What was got comes to; SHA-256 is always among them.
    pub digests: Vec<Digest>,
    /// The digest it was compared with.
    pub expected: Option<Digest>,
    /// What is known of the file of checksums.
    pub signature: Signature,
    /// It was there already.
    pub cached: bool,
    /// How it was packed, if it was.
    pub unpacked: Option<String>,
    /// Keeps the image in the cache for as long as this lives.
    pub entry: Option<Entry>,
}

impl Fetched {
    /// SHA-256 of what was got.
    pub fn sha256(&self) -> Option<&Digest> {
        self.digests
            .iter()
            .find(|digest| digest.kind() == DigestKind::Sha256)
    }
}

/// Why a file is read for its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// It is outside the cache.
    Local,
    /// It is in the cache, and shall be verified or shows signs of having been written.
    Verify,
    /// It is the part of a download that there is already.
    Resume,
}

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes come from a server.
    Download,
    /// Bytes of a file are read for their digest.
    Hash(Hashing),
    /// A packed image is unpacked: bytes of the packed file.
    Unpack,
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// So much is done.
    Progress {
        /// Of what.
        step: Step,
        /// In bytes.
        done: u64,
        /// In bytes, if it is known.
        total: Option<u64>,
    },
    /// Another process downloads the same, or prunes the cache: it is waited for.
    Waiting {
        /// Its id, if it is known.
        process: Option<u32>,
    },
    /// Something failed that is not the end.
    Failed {
        /// Where.
        source: &'a str,
        /// Why.
        error: &'a Error,
        /// The same is tried again after so long; `None`: the next source is.
        again: Option<Duration>,
    },
    /// A file of the cache is not what it was: it is got anew.
    Damaged {
        /// The file.
        path: &'a Path,
    },
    /// Without a checksum, and the server does not answer: what it had the last time is taken.
    Stale {
        /// Where.
        source: &'a str,
        /// Why it could not be asked.
        error: &'a Error,
    },
}

/// Gets the image.
///
/// # Errors
/// All sources failed: that of the only one, or one that names all; [`Refused`](ErrorKind::Refused): it does not come to
/// its checksum, the signature does not hold, or it names other files;
/// [`Cancelled`](ErrorKind::Cancelled) when `stop` says so.
pub fn fetch(
    request: &Request<'_>,
    options: &Options,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Fetched> {
    watched(stop, |stopped| {
        Fetcher::new(request, options, stop, stopped).and_then(|mut fetcher| fetcher.any(tell))
    })
}

/// What the image has to come to, by the first source, without getting it: a digest of a template, of a file of
/// checksums, or of a file of this host. `None`: nobody knows before it is there.
///
/// # Errors
/// The file of checksums cannot be had, or does not name the image; its signature does not hold; the file of this host
/// cannot be read; [`Cancelled`](ErrorKind::Cancelled) when `stop` says so.
pub fn expected(
    request: &Request<'_>,
    options: &Options,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Digest>> {
    watched(stop, |stopped| {
        let mut fetcher = Fetcher::new(request, options, stop, stopped)?;
        let Some(source) = fetcher.sources.first().cloned() else {
            return Ok(None);
        };
        let client = &fetcher.client;
        let (expected, _) = fetcher
            .lists
            .expected(&source, client, options, stop, tell)?;
        match (expected, &source) {
            (Some(digest), _) => Ok(Some(digest)),
            (None, Source::Path(path)) => {
                let kinds = [DigestKind::Sha256];
                let cache = &options.cache;
                let digests = cache.digests_of(path, &kinds, options.verify, stop, tell)?;
                Ok(digests.into_iter().next())
            }
            (None, Source::Http(_)) => Ok(None),
        }
    })
}

/// Does `work` with a flag that is set as soon as `stop` says so.
fn watched<T>(stop: &Stop, work: impl FnOnce(&Arc<AtomicBool>) -> Result<T>) -> Result<T> {
    let stopped = Arc::new(AtomicBool::new(false));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Sockets look at a flag; who sets it is asked here.
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if stop() {
                    stopped.store(true, Ordering::Relaxed);
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let result = work(&stopped);
        over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        result
    })
}

struct Fetcher<'a> {
    request: &'a Request<'a>,
    options: &'a Options,
    stop: &'a Stop,
    client: Client,
    sources: Vec<Source>,
    lists: Lists<'a>,
}

/// An image in its place, before it is checked.
struct Got {
    path: PathBuf,
    digests: Vec<Digest>,
    cached: bool,
    entry: Option<Entry>,
}

impl Got {
    fn of(entry: Entry, cached: bool) -> Self {
        Self {
            path: entry.path().to_owned(),
            digests: entry.digests(),
            cached,
            entry: Some(entry),
        }
    }
}

impl<'a> Fetcher<'a> {
    fn new(
        request: &'a Request<'a>,
        options: &'a Options,
        stop: &'a Stop,
        stopped: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let parse = |url: &String| Source::parse(url, request.directory);
        let sources = request.urls.iter().map(parse).collect::<Result<Vec<_>>>()?;
        if sources.is_empty() {
            return Err(Error::usage("no URL of an image is given"));
        }
        let checksum = Checksum::parse(request.checksum, request.directory)?;
        Ok(Self {
            request,
            options,
            stop,
            client: Client::new(&options.http, stopped)?,
            sources,
            lists: Lists::new(checksum, request.signature_key)?,
        })
    }

    fn any(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<Fetched> {
        let sources = self.sources.clone();
        let mut failed: Vec<(String, Error)> = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            match self.one(source, tell) {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    if at + 1 < sources.len() {
                        tell(Event::Failed {
                            source: &source.to_string(),
                            error: &error,
                            again: None,
                        });
                    }
                    failed.push((source.to_string(), error));
                }
            }
        }
        Err(all_failed(failed))
    }

    fn one(&mut self, source: &Source, tell: &mut dyn FnMut(Event<'_>)) -> Result<Fetched> {
        let (expected, signature) =
            self.lists
                .expected(source, &self.client, self.options, self.stop, tell)?;
        let expected = expected.as_ref();
        let (got, named) = match source {
            Source::Path(path) => (
                self.local(source, path, expected, tell)?,
                self.request.named,
            ),
            Source::Http(url) => {
                let got = match self.request.target_path {
                    Some(target) => self.to_target(source, url, target, expected, tell)?,
                    None => self.to_cache(source, url, expected, tell)?,
                };
                (got, NamedFiles::Refuse)
            }
        };
        let checked = check_base(&got.path, named)?;
        Ok(Fetched {
            path: got.path,
            source: source.to_string(),
            format: checked.format,
            virtual_size: checked.virtual_size,
            digests: got.digests,
            expected: expected.cloned(),
            signature,
            cached: got.cached,
            unpacked: got
                .entry
                .as_ref()
                .and_then(|entry| entry.unpacked().map(ToOwned::to_owned)),
            entry: got.entry,
        })
    }

    fn hold(&self, place: &Place, tell: &mut dyn FnMut(Event<'_>)) -> Result<Hold> {
        Hold::wait(&place.lock, Share::Alone, self.stop, &mut |process| {
            tell(Event::Waiting { process });
        })
    }

    fn find(
        &self,
        digest: &Digest,
        verify: bool,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Entry>> {
        self.options.cache.find(digest, verify, self.stop, tell)
    }

    /// A file of this host, in its place; unpacked into the cache if it is packed.
    fn local(
        &self,
        source: &Source,
        path: &Path,
        expected: Option<&Digest>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Got> {
        let cache = &self.options.cache;
        let kinds = kinds(expected);
        let packing = packing_of(path)?;
        let digests = cache.digests_of(path, &kinds, self.options.verify, self.stop, tell)?;
        if let Some(expected) = expected
            && !digests.contains(expected)
        {
            return Err(mismatch(&source.to_string(), expected, &digests));
        }
        let Some(packing) = packing else {
            return Ok(Got {
                path: path.to_owned(),
                digests,
                cached: true,
                entry: None,
            });
        };
        let sha256 = sha256_of(&digests)?;
        if let Some(entry) = self.find(&sha256, self.options.verify, tell)? {
            return Ok(Got::of(entry, true));
        }
        let place = cache.place(&key_of(&format!("unpacked {sha256}")))?;
        let hold = self.hold(&place, tell)?;
        if let Some(entry) = self.find(&sha256, false, tell)? {
            return Ok(Got::of(entry, true));
        }
        let content = unpack(packing, path, &place.unpacked(), self.stop, tell)?;
        let mut record = Record::new(source, &digests, &content);
        record.unpacked = Some(packing.name().to_owned());
        let entry = cache.keep(&place.unpacked(), record, self.stop, tell)?;
        hold.remove()?;
        Ok(Got::of(entry, false))
    }

    fn to_cache(
        &self,
        source: &Source,
        url: &str,
        expected: Option<&Digest>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Got> {
        let cache = &self.options.cache;
        if let Some(expected) = expected
            && let Some(entry) = self.find(expected, self.options.verify, tell)?
        {
            return Ok(Got::of(entry, true));
        }
        let key = key_of(url);
        let place = cache.place(&key)?;
        let hold = self.hold(&place, tell)?;
        // Whoever held it may have got just this.
        let known = match expected {
            Some(expected) => {
                if let Some(entry) = self.find(expected, false, tell)? {
                    return Ok(Got::of(entry, true));
                }
                None
            }
            None => self.known(&key, tell)?,
        };
        let nothing = Validators::default();
        let unless = known
            .as_ref()
            .map_or(&nothing, |(_, pointer)| &pointer.validators);
        let kinds = kinds(expected);
        let order = Order {
            url,
            place: &place,
            expected,
            kinds: &kinds,
            most: self.options.most,
            unless,
        };
        let outcome = download(&self.client, &self.options.http, &order, self.stop, tell);
        let (digests, validators) = match (outcome, known) {
            (
                Ok(Outcome::Whole {
                    digests,
                    validators,
                }),
                _,
            ) => (digests, validators),
            (Ok(Outcome::Unchanged), Some((entry, _))) => return Ok(Got::of(entry, true)),
            (Ok(Outcome::Unchanged), None) => {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "cannot get {source}: the server says that it has not changed, unasked"
                    ),
                ));
            }
            (Err(error), Some((entry, _))) if error.kind() == ErrorKind::Io => {
                tell(Event::Stale {
                    source: &source.to_string(),
                    error: &error,
                });
                return Ok(Got::of(entry, true));
            }
            (Err(error), _) => return Err(error),
        };
        let sha256 = sha256_of(&digests)?;
        let entry = self.keep(source, &place, &digests, &sha256, tell)?;
        if !validators.is_empty() {
            cache.point(&key, &Pointer::new(url, &sha256, validators))?;
        }
        forget(&place)?;
        hold.remove()?;
        Ok(Got::of(entry, false))
    }

    /// What the URL had when it was asked last, if that is still there.
    fn known(
        &self,
        key: &str,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<(Entry, Pointer)>> {
        let Some(pointer) = self.options.cache.pointer(key) else {
            return Ok(None);
        };
        let Ok(digest) = pointer.digest.parse() else {
            return Ok(None);
        };
        let entry = self.find(&digest, self.options.verify, tell)?;
        Ok(entry.map(|entry| (entry, pointer)))
    }

    fn keep(
        &self,
        source: &Source,
        place: &Place,
        digests: &[Digest],
        sha256: &Digest,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Entry> {
        let cache = &self.options.cache;
        let Some(packing) = packing_of(&place.part)? else {
            let record = Record::new(source, digests, sha256);
            return cache.keep(&place.part, record, self.stop, tell);
        };
        let content = unpack(packing, &place.part, &place.unpacked(), self.stop, tell)?;
        let mut record = Record::new(source, digests, &content);
        record.unpacked = Some(packing.name().to_owned());
        cache.keep(&place.unpacked(), record, self.stop, tell)
    }

    /// Downloads to a path of the user's; from there on it is a local file.
    fn to_target(
        &self,
        source: &Source,
        url: &str,
        target: &Path,
        expected: Option<&Digest>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Got> {
        let cache = &self.options.cache;
        let mut target = self.request.directory.join(target);
        if look(&target)?.is_some_and(|seen| seen.kind == Kind::Directory) {
            let name = source.file_name().ok_or_else(|| {
                Error::usage("is a directory, and the URL names no file").at_path(&target)
            })?;
            target.push(name);
        }
        let key = key_of(&format!("{url}\n{}", target.display()));
        let mut place = cache.place(&key)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        place.part = target.with_file_name(format!(".{name}.qimg-part"));
        let hold = self.hold(&place, tell)?;
        let kinds = kinds(expected);
        let mut unless = Validators::default();
        if look(&target)?.is_some() {
            let digests =
                cache.digests_of(&target, &kinds, self.options.verify, self.stop, tell)?;
            match (expected, cache.pointer(&key)) {
                (Some(expected), _) if digests.contains(expected) => {
                    return self.local(source, &target, Some(expected), tell);
                }
                (None, Some(pointer)) if pointer.digest == sha256_of(&digests)?.to_string() => {
                    unless = pointer.validators;
                }
                _ => {}
            }
        }
        let order = Order {
            url,
            place: &place,
            expected,
            kinds: &kinds,
            most: self.options.most,
            unless: &unless,
        };
        let mut cached = true;
        let outcome = download(&self.client, &self.options.http, &order, self.stop, tell)?;
        if let Outcome::Whole {
            digests,
            validators,
        } = outcome
        {
            cached = false;
            move_file(&place.part, &target)?;
            remove_file(&place.record)?;
            if !validators.is_empty() {
                cache.point(&key, &Pointer::new(url, &sha256_of(&digests)?, validators))?;
            }
        }
        hold.remove()?;
        let got = self.local(source, &target, expected, tell)?;
        Ok(Got { cached, ..got })
    }
}

fn kinds(expected: Option<&Digest>) -> Vec<DigestKind> {
    let mut kinds = vec![DigestKind::Sha256];
    kinds.extend(expected.map(Digest::kind));
    kinds
}

fn sha256_of(digests: &[Digest]) -> Result<Digest> {
    let found = digests
        .iter()
        .find(|digest| digest.kind() == DigestKind::Sha256);
    found
        .cloned()
        .ok_or_else(|| Error::usage("the SHA-256 was not made"))
}

/// Of one source, its own failure; of several, one that names them all.
fn all_failed(mut failed: Vec<(String, Error)>) -> Error {
    if failed.len() == 1 {
        let (_, error) = failed.remove(0);
        return error;
    }
    let kind = failed
        .last()
        .map_or(ErrorKind::Io, |(_, error)| error.kind());
    let told: Vec<String> = failed
        .iter()
        .map(|(source, error)| {
            let cause = std::error::Error::source(error);
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            let error = format!("{error}{cause}");
            if error.contains(source.as_str()) {
                error
            } else {
                format!("{source}: {error}")
            }
        })
        .collect();
    let error = Error::new(
        kind,
        format!(
            "none of the {} sources of the image could be used: {}",
            told.len(),
            told.join("; ")
        ),
    );
    match failed.iter().rev().find_map(|(_, error)| error.remedy()) {
        Some(remedy) => error.with_remedy(remedy.to_owned()),
        None => error,
    }
}

//! Getting images: servers good and bad, lists of checksums and their signatures, the cache, packed images.

mod caches;
mod downloads;
mod lists;
#[path = "../oracle_tools/mod.rs"]
mod oracle_tools;
mod packed;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use qimg::Result;
use qimg::communicator::Stop;
use qimg::digest::{Digest, DigestKind, Digester};
use qimg::fetch::{Cache, Event, Fetched, HttpOptions, NamedFiles, Options, Request, fetch};

/// A directory for one test, and what to ask for in it.
struct Bench {
    directory: tempfile::TempDir,
    options: Options,
    urls: Vec<String>,
    checksum: String,
    key: Option<PathBuf>,
    target: Option<PathBuf>,
    named: NamedFiles,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new(Cache::new(directory.path().join("cache")));
        options.http = HttpOptions {
            connect_timeout: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(2),
            retry_pause: Duration::from_millis(10),
            retries: 3,
            ..HttpOptions::default()
        };
        Self {
            directory,
            options,
            urls: Vec::new(),
            checksum: String::new(),
            key: None,
            target: None,
            named: NamedFiles::Refuse,
        }
    }

    /// As [`Bench::new`], for this URL.
    fn of(url: impl Into<String>) -> Self {
        let mut bench = Self::new();
        bench.urls.push(url.into());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn expecting(mut self, bytes: &[u8]) -> Self {
        self.checksum = sha256(bytes).to_string();
        self
    }

    fn fetch(&self) -> Result<Fetched> {
        self.fetch_telling(&mut Vec::new())
    }

    /// Also what happened meanwhile, but for progress.
    fn fetch_telling(&self, told: &mut Vec<String>) -> Result<Fetched> {
        self.fetch_with(&|| false, &mut |event| match event {
            Event::Progress { .. } => {}
            Event::Failed {
                source,
                error,
                again,
            } => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                told.push(format!(
                    "failed {source}: {error} {} again={}",
                    cause.unwrap_or_default(),
                    again.is_some()
                ));
            }
            other => told.push(format!("{other:?}")),
        })
    }

    fn fetch_with(&self, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Result<Fetched> {
        let request = Request {
            urls: &self.urls,
            checksum: &self.checksum,
            signature_key: self.key.as_deref(),
            target_path: self.target.as_deref(),
            directory: self.directory.path(),
            named: self.named,
        };
        fetch(&request, &self.options, stop, tell)
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    digester.update(bytes);
    digester.finish().remove(0)
}

/// Bytes that no codec makes much smaller, and that are no image but a raw one.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

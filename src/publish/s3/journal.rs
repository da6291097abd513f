//! What is remembered of an upload between two runs: a small file.
//!
//! Knows which upload it was and what the server said of each part. Must not know requests: a server that still has an
//! upload lists it by itself, and this file only saves asking, or stands in for servers that do not list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Target;
use crate::digest::{DigestKind, Digester};
use crate::error::Result;
use crate::publish::Original;
use crate::store::{look, make_directory, read_file, remove_file, write_file};

/// Ten thousand parts fit.
const MOST: u64 = 1 << 20;

/// An upload that began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    upload: String,
    sha256: String,
    part_size: u64,
    /// What the server called each part that arrived.
    parts: BTreeMap<u16, String>,
    #[serde(skip)]
    path: Option<PathBuf>,
}

impl Journal {
    pub fn upload(&self) -> &str {
        &self.upload
    }

    pub fn parts(&self) -> &BTreeMap<u16, String> {
        &self.parts
    }

    /// The file, in `directory`, for this original at this place.
    fn file(directory: &Path, target: &Target) -> PathBuf {
        let mut digester = Digester::new(&[DigestKind::Sha256]);
        for part in [&target.endpoint, &target.bucket, &target.key] {
            digester.update(part.as_bytes());
            digester.update(b"\0");
        }
        let digests = digester.finish();
        let name: String = digests.iter().map(crate::digest::Digest::hex).collect();
        directory.join(format!("{}.json", name.get(..32).unwrap_or(&name)))
    }

    /// Begins one.
    pub fn new(directory: Option<&Path>, target: &Target, original: &Original, id: &str) -> Self {
        Self {
            upload: id.to_owned(),
            sha256: original.sha256().hex(),
            part_size: original.part_size(),
            parts: BTreeMap::new(),
            path: directory.map(|directory| Self::file(directory, target)),
        }
    }

    /// The one of an earlier run, if it was for the same bytes in the same parts.
    pub fn of_earlier_run(
        directory: Option<&Path>,
        target: &Target,
        original: &Original,
    ) -> Result<Option<Self>> {
        let Some(path) = directory.map(|directory| Self::file(directory, target)) else {
            return Ok(None);
        };
        if look(&path)?.is_none() {
            return Ok(None);
        }
        // What cannot be read is as nothing.
        let read = read_file(&path, MOST).ok();
        let found: Option<Self> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(found
            .filter(|found| {
                found.sha256 == original.sha256().hex() && found.part_size == original.part_size()
            })
            .map(|found| Self {
                path: Some(path),
                ..found
            }))
    }

    /// Remembers a part that arrived.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn arrived(&mut self, number: u16, etag: &str) -> Result<()> {
        self.parts.insert(number, etag.to_owned());
        self.write()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        if let Some(directory) = path.parent() {
            make_directory(directory)?;
        }
        let text = serde_json::to_vec(self).unwrap_or_default();
        write_file(path, &text)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match &self.path {
            Some(path) if look(path)?.is_some() => remove_file(path),
            _ => Ok(()),
        }
    }
}

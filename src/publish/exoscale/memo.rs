//! The operation that an interrupted run has begun: a small file.
//!
//! Without it, a second run could not tell a template that is still being registered from none at all.

use std::path::{Path, PathBuf};

use super::api::{Registration, is_id};
use crate::digest::{DigestKind, Digester};
use crate::error::Result;
use crate::store::{look, make_directory, read_file, remove_file, write_file};

/// Where the id of an operation is written.
#[derive(Debug)]
pub(super) struct Memo {
    path: Option<PathBuf>,
}

impl Memo {
    pub fn new(
        directory: Option<&Path>,
        environment: &str,
        zone: &str,
        registration: &Registration,
    ) -> Self {
        let version = registration.version.as_deref().unwrap_or_default();
        let mut digester = Digester::new(&[DigestKind::Sha256]);
        for part in [
            environment,
            zone,
            &registration.name,
            &registration.checksum,
            version,
        ] {
            digester.update(part.as_bytes());
            digester.update(b"\0");
        }
        let name: String = digester
            .finish()
            .iter()
            .map(crate::digest::Digest::hex)
            .collect();
        let name = format!("operation-{}", name.get(..32).unwrap_or(&name));
        Self {
            path: directory.map(|directory| directory.join(name)),
        }
    }

    pub fn read(&self) -> Result<Option<String>> {
        match &self.path {
            Some(path) if look(path)?.is_some() => {
                let id = read_file(path, 256)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok());
                Ok(id.map(|id| id.trim().to_owned()).filter(|id| is_id(id)))
            }
            _ => Ok(None),
        }
    }

    pub fn write(&self, id: &str) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        if let Some(directory) = path.parent() {
            make_directory(directory)?;
        }
        write_file(path, id.as_bytes())
    }

    pub fn forget(&self) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), remove_file)
    }
}

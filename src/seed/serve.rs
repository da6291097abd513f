//! A seed over HTTP, for guests that are told its address by their kernel's command line or by SMBIOS.
//!
//! Knows which files cloud-init asks for. How they are served, [`crate::serve`] knows.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use super::File;
use crate::error::Result;
use crate::serve::{self, Found, Site};

pub use crate::serve::Answered;

const VENDOR_DATA: &str = "vendor-data";

/// The files of a seed, as a site.
#[derive(Debug, Clone)]
pub struct Files(Vec<File>);

impl Files {
    /// Where no vendor-data is given, an empty one is there: cloud-init asks for it ten times, a second apart, when there
    /// is none.
    pub fn new(mut files: Vec<File>) -> Self {
        if files.iter().all(|file| file.name != VENDOR_DATA) {
            files.push(File {
                name: VENDOR_DATA.to_owned(),
                bytes: Vec::new(),
            });
        }
        Self(files)
    }
}

impl Site for Files {
    fn find(&self, path: &str) -> Found {
        let name = path.trim_start_matches('/');
        match self.0.iter().find(|file| file.name == name) {
            Some(file) => Found::Bytes(file.bytes.clone(), "text/plain; charset=utf-8"),
            None => Found::Missing(None),
        }
    }
}

/// Serves the files of a seed.
#[derive(Debug)]
pub struct Server {
    server: serve::Server,
    files: Files,
}

impl Server {
    /// Listens at `address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// The address is in use, or not this host's.
    pub fn bind(address: SocketAddr, files: Vec<File>) -> Result<Self> {
        Ok(Self {
            server: serve::Server::bind(address)?,
            files: Files::new(files),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The URL under which a guest reaches it: through QEMU's user networking where it listens on loopback, or everywhere.
    pub fn guest_url(&self) -> String {
        self.server.guest_url()
    }

    /// Answers until `stop` is raised, or `enough` says so after an answer; calls `told` for each answer.
    ///
    /// # Errors
    /// The host fails to accept connections.
    pub fn run(&self, stop: &AtomicBool, told: &(dyn Fn(&Answered) -> bool + Sync)) -> Result<()> {
        self.server.run(&self.files, stop, told)
    }
}

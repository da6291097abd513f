//! Where the paths of a template lead.
//!
//! In qimg's own language inputs lie beside the template; in Packer's all paths start at the current directory. Results
//! always do.

use std::path::{Path, PathBuf};

use crate::template::go;
use crate::template::model::Text;

/// How paths are read.
#[derive(Debug)]
pub(super) struct Paths<'a> {
    /// The directory of the template, where inputs start there.
    pub(super) beside: Option<&'a Path>,
    /// The current directory.
    pub(super) directory: &'a Path,
    /// For `~`.
    pub(super) home: Option<&'a str>,
    /// Directories of programs, as PATH names them.
    pub(super) programs: &'a str,
}

impl Paths<'_> {
    fn prefix(&self) -> Option<&Path> {
        self.beside.filter(|path| !path.as_os_str().is_empty())
    }

    /// A path that is read.
    pub(super) fn input(&self, path: &Path) -> PathBuf {
        match self.prefix() {
            Some(prefix) => prefix.join(path),
            None => path.to_owned(),
        }
    }

    /// A path or an address.
    pub(super) fn url(&self, text: &str) -> String {
        if text.contains("://") {
            return text.to_owned();
        }
        match text.strip_prefix("file:") {
            Some(path) => format!("file:{}", self.glob(path)),
            None => self.glob(text),
        }
    }

    /// A path with wildcards.
    pub(super) fn glob(&self, text: &str) -> String {
        match self.prefix() {
            Some(prefix) if !text.starts_with('/') => format!("{}/{text}", prefix.display()),
            _ => text.to_owned(),
        }
    }

    /// The path of a key, in which `~` is the user's directory.
    pub(super) fn private(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) if !home.is_empty() => Path::new(home).join(rest),
            _ => self.input(Path::new(text)),
        }
    }

    /// A path that is filled in late.
    pub(super) fn late(&self, text: &Text) -> Text {
        // One that begins with an action may well be absolute.
        match self.prefix() {
            Some(prefix) if !text.0.starts_with('/') && !text.0.starts_with("{{") => {
                let prefix = go::escape(&prefix.display().to_string());
                Text(format!("{prefix}/{}", text.0))
            }
            _ => text.clone(),
        }
    }

    /// Where the host finds it.
    pub(super) fn host(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// Whether it is there.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.host(path).exists()
    }

    /// What to say when it is not.
    pub(super) fn advice(&self) -> &'static str {
        match self.beside {
            Some(_) => "relative paths start at the directory of the template",
            None => "relative paths start at the current directory",
        }
    }
}

//! Where the paths of a template lead.
//!
//! In qimg's own language inputs lie beside the template; in Packer's all paths start at the current directory. Results
//! always do.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::template::model::Text;
use crate::template::reader::Table;
use crate::template::{go, plain};

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

/// Bytes of the name of a file at most.
const LONGEST_NAME: usize = 255;

/// The directory of results and the name of the disk in it, as far as they are given.
pub(super) fn output(
    table: &Table<'_, '_>,
    paths: &Paths<'_>,
) -> Result<(Option<String>, Option<String>)> {
    let directory = table
        .text_at("directory")?
        .filter(|(directory, _)| !directory.is_empty());
    if let Some((directory, node)) = &directory {
        // A build makes its directory, and takes it away when it fails.
        let is_own = !paths
            .directory
            .starts_with(plain(&paths.host(directory.as_ref())));
        if !is_own || directory.contains('\0') {
            let text = format!("'{directory}' can be no directory of a build's own");
            let error = table.error("directory", node, &text);
            table.tell(error.with_remedy("name one that is not there yet, such as \"output\""));
        }
    }
    let name = table.text_at("name")?.filter(|(name, _)| !name.is_empty());
    if let Some((name, node)) = &name {
        let is_name = !name.contains(['/', '\0']) && name != "." && name != "..";
        if !is_name {
            let error = table.error("name", node, &format!("'{name}' is no name of a file"));
            table.tell(error.with_remedy("name the directory apart from it"));
        } else if name.len() > LONGEST_NAME {
            let text = format!("a name of {} bytes is too long for a file", name.len());
            let error = table.error("name", node, &text);
            table.tell(error.with_remedy(format!("take {LONGEST_NAME} at most")));
        }
    }
    Ok((
        directory.map(|(directory, _)| directory),
        name.map(|(name, _)| name),
    ))
}

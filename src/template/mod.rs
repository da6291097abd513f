//! Templates: what a build is, read from a file.
//!
//! Two languages lead to the same [`model`]: Packer's legacy JSON, unmodified, and qimg's own TOML ([`native`]).
//!
//! | module | knows |
//! |---|---|
//! | `document`, `json` | text as a tree in which everything has a place |
//! | `go` | the template language of Go's text/template |
//! | `functions`, `variables` | Packer's functions and variables |
//! | [`native`] | the keys of TOML, and what each means |
//! | `packer` | the keys of Packer's JSON, and which of TOML's each is |
//! | [`check`] | silent traps |
//! | [`convert`] | the tree of a Packer template as TOML |
//! | [`late`] | texts that are filled in when they are used |
//!
//! Nothing here asks for the time, chance or the environment: all of it comes with the [`LoadRequest`], so the same
//! request gives the same template.

pub mod check;
pub mod convert;
mod document;
mod functions;
pub(crate) mod go;
mod json;
pub mod late;
pub mod model;
pub mod native;
mod packer;
mod reader;
mod variables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use check::{Finding, Findings, Severity};
use document::{Node, Source};
use functions::Surroundings;
use model::{Dialect, Template};

use crate::error::{Error, Result};
use crate::units::duration;

/// Bytes of a template at most.
const LONGEST: u64 = 4 << 20;

/// A file that was given, with its bytes where they are known already.
#[derive(Debug, Clone, Default)]
pub struct GivenFile {
    /// Where it is; its end tells its language.
    pub path: PathBuf,
    /// What is in it; `None`: it is read.
    pub bytes: Option<Vec<u8>>,
}

impl GivenFile {
    fn bytes(&self, most: u64) -> Result<Vec<u8>> {
        match &self.bytes {
            Some(bytes) if bytes.len() as u64 > most => {
                Err(Error::usage(format!("is longer than {most} bytes")).at_path(&self.path))
            }
            Some(bytes) => Ok(bytes.clone()),
            None => crate::store::read_file(&self.path, most),
        }
    }
}

/// A template to be loaded, and all that it may ask for.
#[derive(Clone)]
pub struct LoadRequest<'a> {
    /// Where the template is; its end tells its language.
    pub path: PathBuf,
    /// What is in it; `None`: it is read.
    pub bytes: Option<Vec<u8>>,
    /// Files of variables; the last one counts.
    pub var_files: Vec<GivenFile>,
    /// Single variables, which beat those files; the last one counts.
    pub variables: Vec<(String, String)>,
    /// Names of builds to be made; empty: all.
    pub only: Vec<String>,
    /// Names of builds and post-processors to be left out.
    pub except: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The current directory, absolute.
    pub directory: PathBuf,
    /// When the process started, since 1970.
    pub started: Duration,
    /// Twelve random bytes at each call.
    pub random: &'a dyn Fn() -> [u8; 12],
}

impl std::fmt::Debug for LoadRequest<'_> {
    /// Without values of variables and of the environment: some are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadRequest")
            .field("path", &self.path)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What to build.
    pub template: Template,
    /// What is wrong with it, in the order of places.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// The findings that forbid a build, as one error: the first, and how many there are.
    ///
    /// # Errors
    /// There are some.
    pub fn usable(&self) -> Result<()> {
        let mut errors = self
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        let Some(first) = errors.next() else {
            return Ok(());
        };
        let more = match errors.count() {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        let place = match first.line {
            0 => String::new(),
            line => format!("line {line}, column {}: ", first.column),
        };
        let error = Error::usage(format!("{place}{}{more}", first.message)).at_path(&first.file);
        Err(match first.remedy.is_empty() {
            true => error,
            false => error.with_remedy(first.remedy.clone()),
        })
    }
}

/// In which language the file at `path` is written.
///
/// # Errors
/// One that is not there.
pub fn dialect(path: &Path) -> Result<Dialect> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let refused = |what: &str, remedy: &str| {
        Err(Error::unsupported(what.to_owned())
            .at_path(path)
            .with_remedy(remedy.to_owned()))
    };
    if name.ends_with(".pkr.hcl") || name.ends_with(".pkr.json") || name.ends_with(".hcl") {
        return refused(
            "is written in HCL2, which is not read",
            "write it as TOML; from a legacy JSON template, `qimg template convert` does so",
        );
    }
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        return refused(
            "is YAML, which is no language of templates",
            "write it as TOML, or as a Packer template in JSON",
        );
    }
    if name.ends_with(".toml") {
        return Ok(Dialect::Native);
    }
    Ok(Dialect::Packer)
}

/// The template's text, and its tree as the native language has it.
fn read(path: &Path, bytes: Option<&Vec<u8>>) -> Result<(Source, Dialect, Node)> {
    let dialect = dialect(path)?;
    let file = GivenFile {
        path: path.to_owned(),
        bytes: bytes.cloned(),
    };
    let source = Source::new(path, file.bytes(LONGEST)?)?;
    let node = match dialect {
        Dialect::Native => document::toml(&source)?,
        Dialect::Packer => json::parse(&source)?,
    };
    Ok((source, dialect, node))
}

/// Whether the file is a template in its language, whatever its keys mean.
///
/// # Errors
/// It cannot be read, it is no JSON or TOML, or a key stands twice.
pub fn syntax_only(path: &Path, bytes: Option<&Vec<u8>>) -> Result<()> {
    let (source, dialect, node) = read(path, bytes)?;
    if dialect == Dialect::Packer {
        let findings = Findings::default();
        packer::root_keys(&source, &node, &findings)?;
        return match findings.finish().1.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        };
    }
    Ok(())
}

/// What a look at a template found.
#[derive(Debug)]
pub struct Examined {
    /// What to build; the first mistake, if there are any.
    ///
    /// [`Usage`](crate::ErrorKind::Usage): a fault of the template or of what was given with it, with its file, line
    /// and column. [`Unsupported`](crate::ErrorKind::Unsupported): something that Packer has and qimg has not.
    pub template: Result<Template>,
    /// All that is wrong with it, mistakes among them, in the order of places.
    pub findings: Vec<Finding>,
}

/// Reads a template, fills in what is known, and looks it over. Nothing is fetched, nothing runs. What is independent
/// of a mistake is read all the same.
pub fn examine(request: &LoadRequest<'_>) -> Examined {
    let findings = Findings::default();
    let template = findings.keep(looked_over(request, &findings));
    let (findings, mistakes) = findings.finish();
    let first = mistakes.into_iter().next();
    let template = match (first, template) {
        (None, Some(template)) => Ok(template),
        (Some(error), _) => Err(error),
        (None, None) => Err(Error::usage("is no template").at_path(&request.path)),
    };
    Examined { template, findings }
}

/// Reads a template as [`examine`] does.
///
/// # Errors
/// The first mistake.
pub fn load(request: &LoadRequest<'_>) -> Result<Loaded> {
    let Examined { template, findings } = examine(request);
    Ok(Loaded {
        template: template?,
        findings,
    })
}

fn looked_over(request: &LoadRequest<'_>, findings: &Findings) -> Result<Template> {
    let (source, dialect, node) = read(&request.path, request.bytes.as_ref())?;
    let beside = request.path.parent().unwrap_or(Path::new(""));
    let surroundings = Surroundings {
        template_directory: plain(&request.directory.join(beside)).display().to_string(),
        directory: &request.directory,
        started: request.started,
        random: request.random,
        environment: &request.environment,
    };
    let node = match dialect {
        Dialect::Native => node,
        Dialect::Packer => packer::translate(&source, &node, findings)?,
    };
    native::decode(&source, &node, dialect, request, &surroundings, findings)
}

/// Without `.` and, where that needs no look at the disk, `..`.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The word that was meant.
fn near<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // What has but a letter or two is near to everything.
    (word.chars().count() > 2)
        .then(|| crate::seed::nearest(word, known))
        .flatten()
}

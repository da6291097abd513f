//! A directory with a stream of versions, as a mirror or a web server hands it out.
//!
//! Knows the index, the lists of checksums and the link to the latest version. Must not know what the files are.
//!
//! ```text
//! DIRECTORY/index.json              all versions, the oldest first, with each file's size and digests
//! DIRECTORY/SHA256SUMS              of all files: `sha256sum -c SHA256SUMS`
//! DIRECTORY/VERSION/FILE
//! DIRECTORY/VERSION/SHA256SUMS      of this version's files
//! DIRECTORY/latest -> VERSION
//! ```
//!
//! A version has its name when all of it is there, the index names what has a name, and the link is last: whoever reads
//! sees the state before or the one after. Those that publish to the same directory wait for one another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attend::{Event, Work, attended};
use super::original::Original;
use crate::communicator::Stop;
use crate::digest::{DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    Attempt, Hold, Kind, ReadAt, Share, Staged, Sync, WriteAt, look, make_directory, move_file,
    names_in, point_to, read_file, remove_tree, write_file,
};

/// An index is not longer.
const MOST: u64 = 64 << 20;

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

const INDEX: &str = "index.json";
const SUMS: &str = "SHA256SUMS";
const LATEST: &str = "latest";
const LOCK: &str = ".lock";
/// What is being made has this in front of its name.
const UNFINISHED: &str = ".unfinished-";

/// What is to be published where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The directory; made if need be.
    pub directory: PathBuf,
    /// Name of the file there.
    pub name: String,
    /// The version, if it was asked for: what is there with the same digest counts for nothing then.
    pub version: Option<String>,
    /// The version where none was asked for.
    pub default_version: String,
    /// Seconds since 1970, for the index.
    pub time: u64,
    /// Versions that stay, the latest ones; `None`: all.
    pub keep: Option<usize>,
}

/// The index of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Of this file's form: 1.
    pub format: u32,
    /// The version that `latest` leads to.
    pub latest: String,
    /// All, the oldest first.
    pub versions: Vec<Version>,
}

/// A version with its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name, which is its directory's.
    pub version: String,
    /// When its first file was published, in seconds since 1970.
    pub published: u64,
    /// Its files, by name.
    pub files: Vec<File>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    /// In hexadecimal digits.
    pub md5: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    /// The version.
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    /// It was there already.
    pub was_there: bool,
    /// Versions that went.
    pub removed: Vec<String>,
}

/// Publishes `original` to a directory, unless a version holds it already.
///
/// # Errors
/// The host refuses; the version is there with something else; the index is none;
/// [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn publish(
    original: &Original,
    request: &Request,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Published> {
    for (what, name) in [
        (
            "version",
            request.version.as_ref().unwrap_or(&request.default_version),
        ),
        ("file's name", &request.name),
    ] {
        check_name(what, name)?;
    }
    attended(stop, tell, |work| within(original, request, work))
}

/// Names become paths, and lines of lists.
fn check_name(what: &str, name: &str) -> Result<()> {
    let reserved = [INDEX, SUMS, LATEST];
    let bad = name.is_empty()
        || name.len() > 200
        || name.starts_with('.')
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control)
        || reserved.contains(&name);
    if bad {
        return Err(
            Error::usage(format!("'{name}' cannot be a {what}")).with_remedy(
                "take letters, digits, '-', '_', '+' and '.', which does not come first",
            ),
        );
    }
    Ok(())
}

fn within(original: &Original, request: &Request, work: &Work) -> Result<Published> {
    let directory = &request.directory;
    make_directory(directory)?;
    let _held = hold(directory, work)?;
    for path in names_in(directory)? {
        // Whoever made it is gone: it would hold the lock.
        if file_name(&path).starts_with(UNFINISHED) {
            remove_tree(&path)?;
        }
    }
    let mut index = read_index(directory)?;
    let file = File {
        name: request.name.clone(),
        size: original.length(),
        sha256: original.sha256().hex(),
        md5: original.md5().hex(),
    };
    let same = |version: &&Version| {
        request
            .version
            .as_ref()
            .is_none_or(|asked| *asked == version.version)
            && version.files.contains(&file)
            && matches!(look(directory.join(&version.version).join(&file.name)), Ok(Some(seen)) if seen.length == file.size)
    };
    let known = index
        .versions
        .iter()
        .rev()
        .find(same)
        .map(|version| version.version.clone());
    let was_there = known.is_some();
    let version = match known {
        Some(version) => {
            work.note(format!(
                "version {version} holds it already, with the same digest"
            ));
            version
        }
        None => {
            let version = request
                .version
                .as_ref()
                .unwrap_or(&request.default_version)
                .clone();
            add(original, request, &mut index, &version, &file, work)?;
            version
        }
    };
    let removed = request.keep.map_or_else(Vec::new, |keep| {
        let surplus = index.versions.len().saturating_sub(keep.max(1));
        index
            .versions
            .drain(..surplus)
            .map(|version| version.version)
            .collect()
    });
    finish(directory, &mut index)?;
    for version in &removed {
        remove_tree(directory.join(version))?;
    }
    Ok(Published {
        path: directory.join(&version).join(&file.name),
        version,
        size: file.size,
        sha256: file.sha256,
        was_there,
        removed,
    })
}

fn hold(directory: &Path, work: &Work) -> Result<Hold> {
    let mut told = false;
    loop {
        match Hold::attempt(directory.join(LOCK), Share::Alone)? {
            Attempt::Held(hold) => return Ok(hold),
            Attempt::Busy { process } => {
                if !told {
                    told = true;
                    let who =
                        process.map_or_else(String::new, |process| format!(" (process {process})"));
                    work.note(format!(
                        "waiting for another publish to {}{who}",
                        directory.display()
                    ));
                }
                work.pause(Duration::from_millis(50))?;
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn read_index(directory: &Path) -> Result<Index> {
    let path = directory.join(INDEX);
    if look(&path)?.is_none() {
        return Ok(Index {
            format: 1,
            ..Index::default()
        });
    }
    let bytes = read_file(&path, MOST)?;
    parse_index(&bytes).map_err(|error| error.at_path(&path))
}

/// Reads an index.
///
/// # Errors
/// It is none, of another form, or names what no directory has.
pub fn parse_index(bytes: &[u8]) -> Result<Index> {
    let remedy =
        "name another directory, or move the file away: the versions in it are then published anew";
    let index: Index = serde_json::from_slice(bytes).map_err(|error| {
        Error::usage("is not the index of a stream of versions")
            .with_source(error)
            .with_remedy(remedy)
    })?;
    if index.format != 1 {
        return Err(Error::unsupported(format!(
            "is an index of the form {}, not 1",
            index.format
        )));
    }
    for version in &index.versions {
        check_name("version", &version.version)?;
        for file in &version.files {
            check_name("file's name", &file.name)?;
        }
    }
    Ok(index)
}

/// Adds a file to a version, which may have to be made.
fn add(
    original: &Original,
    request: &Request,
    index: &mut Index,
    version: &str,
    file: &File,
    work: &Work,
) -> Result<()> {
    let place = request.directory.join(version);
    let listed = index
        .versions
        .iter()
        .position(|known| known.version == version);
    let there = look(&place)?;
    let taken = |text: &str| {
        Error::new(ErrorKind::Refused, format!("version {version} {text}"))
            .with_remedy("a version stays what it is: give this one another name")
            .at_path(&place)
    };
    if let Some(seen) = &there
        && seen.kind != Kind::Directory
    {
        return Err(taken("is there, and is no directory"));
    }
    let mut files = match listed.and_then(|at| index.versions.get(at)) {
        Some(known) => known.files.clone(),
        None => Vec::new(),
    };
    let same_name = files
        .iter()
        .any(|known| known.name == file.name && known != file);
    if same_name {
        return Err(taken("is there, with another file of this name"));
    }
    files.retain(|known| known.name != file.name);
    files.push(file.clone());
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if there.is_some() {
        let path = place.join(&file.name);
        // One that an interrupted publish has left, and no index names.
        if let Some(seen) = look(&path)?
            && listed.is_none()
            && (seen.length != file.size || sha256_of(&path, work)? != file.sha256)
        {
            return Err(taken("is there, with another file of this name"));
        }
        copy(original, &path, work)?;
        write_file(
            place.join(SUMS),
            sums(files.iter().map(|file| (file, String::new()))).as_bytes(),
        )?;
    } else {
        let unfinished = request.directory.join(format!("{UNFINISHED}{version}"));
        make_directory(&unfinished)?;
        let made = copy(original, &unfinished.join(&file.name), work).and_then(|()| {
            let text = sums(files.iter().map(|file| (file, String::new())));
            write_file(unfinished.join(SUMS), text.as_bytes())?;
            move_file(&unfinished, &place)
        });
        if let Err(error) = made {
            // What failed before is what counts.
            let _ = remove_tree(&unfinished);
            return Err(error);
        }
    }
    match listed.and_then(|at| index.versions.get_mut(at)) {
        Some(known) => known.files = files,
        None => index.versions.push(Version {
            version: version.to_owned(),
            published: request.time,
            files,
        }),
    }
    Ok(())
}

/// Lines as `sha256sum -c` reads them.
fn sums<'a>(files: impl Iterator<Item = (&'a File, String)>) -> String {
    files
        .map(|(file, before)| format!("{}  {before}{}\n", file.sha256, file.name))
        .collect()
}

/// Everything but the versions themselves.
fn finish(directory: &Path, index: &mut Index) -> Result<()> {
    let Some(latest) = index.versions.last().map(|version| version.version.clone()) else {
        return Ok(());
    };
    index.latest.clone_from(&latest);
    let all = index.versions.iter().flat_map(|version| {
        version
            .files
            .iter()
            .map(move |file| (file, format!("{}/", version.version)))
    });
    let all = sums(all);
    let text = serde_json::to_string_pretty(index).unwrap_or_default() + "\n";
    write_file(directory.join(SUMS), all.as_bytes())?;
    write_file(directory.join(INDEX), text.as_bytes())?;
    point_to(directory.join(LATEST), &latest)
}

/// Copies all bytes, sharing blocks where the file system can, and compares what was written.
fn copy(original: &Original, to: &Path, work: &Work) -> Result<()> {
    let (store, length) = (original.store(), original.length());
    work.begin(format!("copy to {}", to.display()), length);
    let staged = Staged::create(to)?;
    let file = staged.file();
    let mut at = 0;
    let mut in_kernel = true;
    let mut buffer = vec![0; PIECE];
    while at < length {
        work.go_on()?;
        let left = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let mut copied = 0;
        if in_kernel {
            // As much as the kernel likes to do at once, but not so much that nobody can stop it.
            copied = file.copy_from(store, at, at, (length - at).min(64 << 20))?;
            in_kernel = copied > 0;
        }
        if copied == 0 {
            let Some(bytes) = buffer.get_mut(..left) else {
                break;
            };
            store.read_exact_at(bytes, at)?;
            file.write_all_at(bytes, at)?;
            copied = left as u64;
        }
        at += copied;
        work.advance(copied);
    }
    file.set_len(length)?;
    if digest(&*file, length, work)? != original.sha256().hex() {
        return Err(
            Error::new(ErrorKind::Io, "has changed while it was being published")
                .with_remedy("publish it again when nobody writes it")
                .at_path(original.path()),
        );
    }
    staged.commit(Sync::Full)
}

fn sha256_of(path: &Path, work: &Work) -> Result<String> {
    let file = crate::store::HostFile::open_read(path, crate::store::Locking::Check)?;
    let length = file.len()?;
    digest(&file, length, work)
}

fn digest(file: &dyn ReadAt, length: u64, work: &Work) -> Result<String> {
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        work.go_on()?;
        let left = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let Some(bytes) = buffer.get_mut(..left) else {
            break;
        };
        file.read_exact_at(bytes, at)?;
        digester.update(bytes);
        at += left as u64;
    }
    Ok(digester
        .finish()
        .iter()
        .map(crate::digest::Digest::hex)
        .collect())
}

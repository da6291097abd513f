//! Media that a build makes for its guest: a CD and a floppy disk.
//!
//! Knows which of the template's files go where on them, as Packer has it. Must not know ISO 9660 or FAT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::request::BuildRequest;
use crate::communicator::Stop;
use crate::error::{Error, Escaped, Result};
use crate::fat::{self, Options, Size, Tree};
use crate::iso9660;
use crate::store::{HostFile, Locking, Memory, ReadAt, WriteAt, names_in};

/// The label of both, as Packer's.
const LABEL: &str = "packer";
/// Bytes of a floppy disk.
const FLOPPY: u64 = 1440 << 10;
/// Levels of directories that are gone into.
const DEEPEST: usize = 16;
/// Files of a medium at most.
const MOST: usize = 60_000;
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// Contents by their path on the medium.
type Contents = BTreeMap<String, Arc<dyn ReadAt>>;

/// The media of a build, as files in `directory`; where there is nothing to be on one, there is none.
///
/// # Errors
/// A file is not there, or cannot be read; a name or a label that the medium cannot hold; the floppy disk is full.
pub(super) fn make(
    request: &BuildRequest<'_>,
    directory: &Path,
) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    let media = &request.build.media;
    let mut cd = Contents::new();
    for pattern in &media.cd_files {
        for path in matches(request, pattern)? {
            let name = name_of(&path)?;
            add(&mut cd, &path, &name, DEEPEST)?;
        }
    }
    add_texts(&mut cd, &media.cd_content);
    let mut floppy = Contents::new();
    for pattern in &media.floppy_files {
        for path in matches(request, pattern)? {
            if path.is_dir() {
                // Its files, without what lies deeper.
                for inside in names_in(&path)?.iter().filter(|inside| inside.is_file()) {
                    add(&mut floppy, inside, &name_of(inside)?, 0)?;
                }
            } else {
                add(&mut floppy, &path, &name_of(&path)?, 0)?;
            }
        }
    }
    for pattern in &media.floppy_directories {
        for path in matches(request, pattern.trim_end_matches('/'))? {
            // With a slash at its end it is what is in it.
            let inside = pattern.ends_with('/') && path.is_dir();
            let name = if inside {
                String::new()
            } else {
                name_of(&path)?
            };
            add(&mut floppy, &path, &name, DEEPEST)?;
        }
    }
    add_texts(&mut floppy, &media.floppy_content);
    let cd = (!cd.is_empty()).then(|| {
        let path = directory.join("files.iso");
        let label = media.cd_label.as_deref().unwrap_or(LABEL);
        write_cd(&path, label, &cd, &*request.stop).map(|()| path)
    });
    let floppy = (!floppy.is_empty()).then(|| {
        let path = directory.join("floppy.img");
        let label = media.floppy_label.as_deref().unwrap_or(LABEL);
        write_floppy(&path, label, &floppy).map(|()| path)
    });
    Ok((cd.transpose()?, floppy.transpose()?))
}

/// The files and directories that `pattern` means, in order.
fn matches(request: &BuildRequest<'_>, pattern: &str) -> Result<Vec<PathBuf>> {
    let directory = &request.surroundings.directory;
    let whole = directory.join(pattern);
    // A name with signs of patterns in it may be meant as it is.
    if whole.exists() {
        return Ok(vec![whole]);
    }
    let text = whole
        .to_str()
        .ok_or_else(|| Error::unsupported("a pattern that is no Unicode").at_path(&whole))?;
    let wrong = |what: String| {
        Error::usage(what)
            .at_path(&request.template.path)
            .with_remedy("name files that are there when the build begins")
    };
    let paths = glob::glob(text)
        .map_err(|error| wrong(format!("'{}' is no pattern: {error}", Escaped(pattern))))?;
    let found: std::result::Result<Vec<PathBuf>, _> = paths.take(MOST).collect();
    let mut found = found.map_err(|error| {
        let path = error.path().to_owned();
        Error::io("read the directory", error.into()).at_path(path)
    })?;
    found.sort();
    if found.is_empty() {
        return Err(wrong(format!("nothing matches '{}'", Escaped(pattern))));
    }
    Ok(found)
}

fn name_of(path: &Path) -> Result<String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Error::usage("has no name for a medium").at_path(path))
}

/// A file, or a directory with all that is in it down to `levels`, at `name`.
fn add(contents: &mut Contents, path: &Path, name: &str, levels: usize) -> Result<()> {
    if contents.len() >= MOST {
        return Err(Error::usage(format!("a medium has {MOST} files at most")).at_path(path));
    }
    if !path.is_dir() {
        let file = HostFile::open_read(path, Locking::Ignore)?;
        contents.insert(name.to_owned(), Arc::new(file));
        return Ok(());
    }
    if levels == 0 {
        return Err(Error::usage(format!(
            "has more than {DEEPEST} directories in one another"
        ))
        .at_path(path)
        .with_remedy("a link may lead back up: take it out"));
    }
    for inside in names_in(path)? {
        let own = name_of(&inside)?;
        let below = if name.is_empty() {
            own
        } else {
            format!("{name}/{own}")
        };
        add(contents, &inside, &below, levels - 1)?;
    }
    Ok(())
}

fn add_texts(contents: &mut Contents, texts: &BTreeMap<String, String>) {
    for (path, text) in texts {
        let path = path.trim_start_matches('/').to_owned();
        let bytes = Memory::from(text.clone().into_bytes());
        contents.insert(path, Arc::new(bytes));
    }
}

fn write_cd(path: &Path, label: &str, contents: &Contents, stop: &Stop) -> Result<()> {
    let mut files = Vec::new();
    for (name, content) in contents {
        files.push((name.as_str(), content.len()?));
    }
    // The same files make the same medium.
    let plan = iso9660::plan(label, &files, 0)?;
    let out = HostFile::create_new(path)?;
    out.write_all_at(&plan.head, 0)?;
    let mut piece = vec![0; PIECE];
    for (content, (start, (_, length))) in contents.values().zip(plan.starts.iter().zip(&files)) {
        let mut at = 0;
        while at < *length {
            if stop() {
                return Err(Error::cancelled());
            }
            let most = usize::try_from(*length - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = piece.get_mut(..most).unwrap_or_default();
            content.read_exact_at(piece, at)?;
            out.write_all_at(piece, start + at)?;
            at += most as u64;
        }
    }
    out.set_len(plan.size)
}

fn write_floppy(path: &Path, label: &str, contents: &Contents) -> Result<()> {
    let mut tree = Tree::new();
    for (name, content) in contents {
        tree.add_file(name, Arc::clone(content))?;
    }
    let options = Options {
        size: Size::Fixed(FLOPPY),
        kind: Some(fat::Kind::Fat12),
        label: Some(label.to_owned()),
        ..Options::default()
    };
    let volume = fat::plan(&tree, &options).map_err(|error| {
        Error::new(
            error.kind(),
            format!("the floppy disk cannot be made: {error}"),
        )
        .with_remedy(
            "a floppy disk holds 1.44 MB: give larger files on a CD (cd_files) or over HTTP",
        )
    })?;
    let out = HostFile::create_new(path)?;
    out.set_len(FLOPPY)?;
    volume.write_to(&out, 0)
}

//! Digests of an artifact's files, in files beside it.
//!
//! Knows how lines are written. Each file is read once, whatever kinds of digest are asked for.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Context, Event};
use crate::build::artifact::Artifact;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, Result};
use crate::store::{
    HostFile, Locking, ReadAt, SequentialReader, look, read_file, recovered, write_file,
};
use crate::template::model::{Dialect, Text};

/// A file of checksums is not longer.
const MAX_LIST: u64 = 16 << 20;

/// What is read at once.
const PIECE: usize = 1 << 20;

/// Writes the digests of all files, and adds those files to the artifact; also tells which they are.
pub(super) fn checksum(
    kinds: &[String],
    output: &Text,
    coreutils: bool,
    artifact: &Artifact,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(Artifact, Vec<PathBuf>)> {
    let kinds: Vec<DigestKind> = kinds
        .iter()
        .map(|kind| kind.parse())
        .collect::<Result<_>>()?;
    if kinds.is_empty() {
        return Err(Error::usage("no kind of checksum is given"));
    }
    let mut lists: Vec<(DigestKind, PathBuf)> = Vec::new();
    for kind in &kinds {
        let list = context.output(output, &[("ChecksumType", kind.name())])?;
        refuse_own(&list, artifact, context)?;
        lists.push((*kind, list));
    }
    let mut total = 0;
    for file in &artifact.files {
        total += look(context.place(file))?.map_or(0, |seen| seen.length);
    }
    let mut done = 0;
    let mut found = Vec::new();
    for file in &artifact.files {
        let digests = digests(file, &kinds, &mut done, total, context, tell)?;
        found.push((file, digests));
    }
    // Several kinds may share a list.
    let mut texts: BTreeMap<&Path, String> = BTreeMap::new();
    for (kind, list) in &lists {
        let text = texts.entry(list).or_default();
        for (file, digests) in &found {
            let digest = digests.iter().find(|digest| digest.kind() == *kind);
            if let Some(digest) = digest {
                text.push_str(&line(digest, file, list, coreutils)?);
            }
        }
    }
    // Packer adds a list that was there before to no artifact.
    let mut added = Vec::new();
    for (list, text) in &texts {
        context.make_room(list)?;
        if context.dialect == Dialect::Native || look(context.place(list))?.is_none() {
            added.push(list.to_path_buf());
        }
        append(&context.place(list), text, coreutils).map_err(|error| error.at_path(list))?;
    }
    let mut files = artifact.files.clone();
    let mut written: Vec<PathBuf> = Vec::new();
    for (_, list) in lists {
        if !written.contains(&list) {
            files.extend(added.contains(&list).then(|| list.clone()));
            written.push(list);
        }
    }
    Ok((Artifact::of_post_processor("checksum", files), written))
}

fn refuse_own(list: &Path, artifact: &Artifact, context: &Context<'_>) -> Result<()> {
    let place = context.place(list);
    if artifact
        .files
        .iter()
        .any(|file| context.place(file) == place)
    {
        return Err(
            Error::usage("is a file of the artifact, and cannot hold its checksums")
                .with_remedy("give the output another name")
                .at_path(list),
        );
    }
    Ok(())
}

fn digests(
    path: &Path,
    kinds: &[DigestKind],
    done: &mut u64,
    total: u64,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Digest>> {
    let file = HostFile::open_read(context.place(path), Locking::Check)?;
    let mut digester = Digester::new(kinds);
    let mut reader = SequentialReader::new(&file as &dyn ReadAt)?;
    let mut piece = vec![0; PIECE];
    loop {
        context.go_on()?;
        let read = reader
            .read(&mut piece)
            .map_err(|error| recovered("read", error))?;
        if read == 0 {
            return Ok(digester.finish());
        }
        digester.update(&piece[..read]);
        *done += read as u64;
        tell(Event::Progress {
            done: *done,
            total: total.max(*done),
        });
    }
}

/// Packer's lines name the file alone, behind a tab; `sha256sum -c` wants two blanks, and a path from where it is run,
/// which is taken to be where the list is.
fn line(digest: &Digest, file: &Path, list: &Path, coreutils: bool) -> Result<String> {
    let name = file
        .file_name()
        .ok_or_else(|| Error::usage("has no name").at_path(file))?;
    if !coreutils {
        return Ok(format!("{}\t{}\n", digest.hex(), name.to_string_lossy()));
    }
    let directory = list.parent().unwrap_or(Path::new(""));
    let relative = file.strip_prefix(directory).unwrap_or(Path::new(name));
    let relative = relative.to_str().ok_or_else(|| {
        Error::unsupported("has a name that is not in UTF-8, which a list of checksums cannot hold")
            .at_path(file)
    })?;
    let escaped = relative
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    let mark = if escaped == relative { "" } else { "\\" };
    Ok(format!("{mark}{}  {escaped}\n", digest.hex()))
}

/// Adds lines to a list, which is written as a whole. Packer's keeps all that there was; the other one keeps no second
/// line of a file, of which one would have to be wrong.
fn append(list: &Path, text: &str, coreutils: bool) -> Result<()> {
    let mut whole = match look(list)? {
        Some(_) => read_file(list, MAX_LIST)?,
        None => Vec::new(),
    };
    if coreutils {
        let name = |line: &[u8]| {
            let at = line.windows(2).position(|pair| pair == b"  ")?;
            Some((at, line[at..].to_vec()))
        };
        let new: Vec<_> = text
            .lines()
            .filter_map(|line| name(line.as_bytes()))
            .collect();
        let kept: Vec<&[u8]> = whole
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                name(line).is_none_or(|name| !new.contains(&name))
            })
            .collect();
        whole = kept.concat();
    }
    if whole.last().is_some_and(|last| *last != b'\n') {
        whole.push(b'\n');
    }
    whole.extend_from_slice(text.as_bytes());
    write_file(list, &whole)
}

//! An artifact packed: its image by the engine, a file by a codec, several files in an archive.
//!
//! Knows which name asks for which packing, and levels. No byte depends on the number of threads, on times, or on who runs
//! it.

use std::cell::RefCell;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::archive::{tar, zip};
use super::packer::{Codec, Packer};
use super::{Context, Event};
use crate::build::artifact::Artifact;
use crate::codec::CompressionType;
use crate::compress::{CompressRequest, Effort};
use crate::error::{Error, Result};
use crate::image::{BackingPolicy, Image, OpenOptions};
use crate::store::{
    HostFile, Locking, ReadAt, SequentialReader, SequentialWriter, Staged, Sync, recovered,
};
use crate::template::model::Dialect;

/// What is carried at once.
const PIECE: usize = 1 << 20;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub output: &'a Path,
    /// Instead of the name's ending.
    pub format: Option<&'a str>,
    pub level: Option<i32>,
}

/// What becomes of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// The image, its clusters encoded anew.
    Image,
    /// One file.
    File(Codec),
    /// All files.
    Tar(Option<Codec>),
    /// All files.
    Zip,
}

/// Endings of names, and what they ask for.
const ENDINGS: &[(&str, Packing)] = &[
    ("qcow2", Packing::Image),
    ("gz", Packing::File(Codec::Gzip)),
    ("zst", Packing::File(Codec::Zstd)),
    ("xz", Packing::File(Codec::Xz)),
    ("bz2", Packing::File(Codec::Bzip2)),
    ("bzip2", Packing::File(Codec::Bzip2)),
    ("lz4", Packing::File(Codec::Lz4)),
    ("tar", Packing::Tar(None)),
    ("tgz", Packing::Tar(Some(Codec::Gzip))),
    ("tzst", Packing::Tar(Some(Codec::Zstd))),
    ("txz", Packing::Tar(Some(Codec::Xz))),
    ("tbz2", Packing::Tar(Some(Codec::Bzip2))),
    ("zip", Packing::Zip),
];

/// Packs the artifact into a file, which appears when it is complete.
pub(super) fn compress(
    order: &Order<'_>,
    artifact: &Artifact,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Artifact> {
    if artifact.files.is_empty() {
        return Err(Error::usage("the artifact has no files"));
    }
    let packing = packing(order, context, tell)?;
    match packing {
        Packing::Image => image(order, single(artifact, order)?, context, tell)?,
        Packing::File(codec) => {
            let file = std::slice::from_ref(single(artifact, order)?);
            let level = level(order, codec.levels(), context, tell)?;
            staged(order, file, context, tell, |inputs, output| {
                let length = Some(inputs.total);
                let mut packer = Packer::new(codec, output, level, context.threads, length)?;
                for input in inputs.open() {
                    carry(&mut input?.reader, &mut packer)?;
                }
                packer.end()
            })?;
        }
        Packing::Tar(None) => {
            staged(order, &artifact.files, context, tell, |inputs, output| {
                tar(inputs.open(), output)
            })?;
        }
        Packing::Tar(Some(codec)) => {
            let level = level(order, codec.levels(), context, tell)?;
            staged(order, &artifact.files, context, tell, |inputs, output| {
                let packer = Packer::new(codec, output, level, context.threads, None)?;
                tar(inputs.open(), packer)?.end()
            })?;
        }
        Packing::Zip => {
            let level = level(order, Codec::Gzip.levels(), context, tell)?;
            staged(order, &artifact.files, context, tell, |inputs, output| {
                zip(inputs.open(), output, level)
            })?;
        }
    }
    Ok(Artifact::of_post_processor(
        "compress",
        vec![order.output.to_owned()],
    ))
}

/// What the name of the output, or the format, asks for.
fn packing(
    order: &Order<'_>,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Packing> {
    let name = order
        .output
        .file_name()
        .ok_or_else(|| Error::usage("names no file").at_path(order.output))?;
    let mut name = name.to_string_lossy().to_lowercase();
    if let Some(format) = order.format.filter(|format| !format.is_empty()) {
        name = format!("{name}.{}", format.to_lowercase());
    }
    let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
    if ending == "bgzf" {
        return Err(Error::unsupported("blocked gzip (bgzf) is not written")
            .with_remedy("end the name in .gz, which the same programs read")
            .at_path(order.output));
    }
    let known = ENDINGS.iter().find(|(known, _)| *known == ending);
    match known {
        Some((_, Packing::File(codec))) if stem.ends_with(".tar") => Ok(Packing::Tar(Some(*codec))),
        Some((_, packing)) => Ok(*packing),
        // As Packer does it, whatever the name says.
        None if context.dialect == Dialect::Packer => {
            if !ending.is_empty() {
                let said = format!(
                    "{}: no packing is called '{ending}'; it will be a .tar.gz",
                    order.output.display()
                );
                tell(Event::Note(&said));
            }
            Ok(Packing::Tar(Some(Codec::Gzip)))
        }
        None => {
            let endings: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
            Err(Error::usage("its name does not say how to pack it")
                .with_remedy(format!(
                    "let it end in one of {}, or in .tar and one of them",
                    endings.join(", ")
                ))
                .at_path(order.output))
        }
    }
}

fn single<'a>(artifact: &'a Artifact, order: &Order<'_>) -> Result<&'a PathBuf> {
    match &artifact.files[..] {
        [file] => Ok(file),
        files => {
            let names: Vec<String> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            Err(Error::usage(format!(
                "can hold one file, and the artifact has {}: {}",
                files.len(),
                names.join(", ")
            ))
            .with_remedy("let its name end in .tar.gz, .tar.zst, .tar.xz, .tar or .zip")
            .at_path(order.output))
        }
    }
}

/// The level to use: in Packer's templates one out of range means the nearest, as ever.
fn level(
    order: &Order<'_>,
    (lowest, usual, highest): (i32, i32, i32),
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<i32> {
    let Some(level) = order.level else {
        return Ok(usual);
    };
    if (lowest..=highest).contains(&level) {
        return Ok(level);
    }
    if context.dialect == Dialect::Native {
        return Err(Error::usage(format!(
            "there is no level {level}: it goes from {lowest} to {highest}"
        ))
        .at_path(order.output));
    }
    let nearest = level.clamp(lowest, highest);
    let said = format!("there is no level {level}; {nearest} is taken");
    tell(Event::Note(&said));
    Ok(nearest)
}

/// The engine encodes the clusters of a qcow2 image anew.
fn image(
    order: &Order<'_>,
    file: &Path,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    let options = OpenOptions {
        // The image is the build's own.
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let image = Image::open(context.place(file), &options)?;
    let codec = image.compression_type().unwrap_or(CompressionType::Zlib);
    let highest = match codec {
        CompressionType::Zlib => 12,
        CompressionType::Zstd => 22,
    };
    let effort = match order.level {
        None => Effort::Default,
        Some(_) => {
            let level = level(order, (1, 6, highest), context, tell)?;
            Effort::Level(u8::try_from(level).unwrap_or(6))
        }
    };
    let output = context.place(order.output);
    let request = CompressRequest {
        source: &image,
        free: None,
        destination: Some(&output),
        codec,
        effort,
        window: None,
        cluster_size: None,
        flatten: false,
        drop_snapshots: false,
        drop_bitmaps: false,
        existing: false,
        threads: context.threads.max(1),
        sync: Sync::Full,
    };
    let cancel = AtomicBool::new(false);
    crate::compress::compress(&request, &cancel, &mut |progress, total| {
        if (context.stop)() {
            cancel.store(true, Ordering::Relaxed);
        }
        tell(Event::Progress {
            done: progress.stats.stored_bytes,
            total,
        });
    })
    .map(drop)
}

/// The files that are packed.
pub(super) struct Inputs<'a> {
    files: Vec<(String, HostFile)>,
    total: u64,
    done: RefCell<u64>,
    context: &'a Context<'a>,
    tell: RefCell<&'a mut dyn FnMut(Event<'_>)>,
}

/// One of them.
pub(super) struct Input<'a> {
    /// Without directories.
    pub name: String,
    /// In bytes.
    pub length: u64,
    pub reader: Watched<'a>,
}

impl Inputs<'_> {
    fn open(&self) -> impl Iterator<Item = io::Result<Input<'_>>> {
        self.files.iter().map(|(name, file)| {
            let reader = SequentialReader::new(file).map_err(io::Error::other)?;
            Ok(Input {
                name: name.clone(),
                length: file.len().map_err(io::Error::other)?,
                reader: Watched {
                    reader,
                    inputs: self,
                },
            })
        })
    }
}

/// In large pieces: holes are long.
fn carry(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            read => to.write_all(&piece[..read])?,
        }
    }
}

/// Reads, tells how far it is, and ends when the caller wants that.
pub(super) struct Watched<'a> {
    reader: SequentialReader<&'a HostFile>,
    inputs: &'a (dyn Watcher + 'a),
}

trait Watcher {
    fn go_on(&self) -> Result<()>;
    fn read(&self, bytes: usize);
}

impl Watcher for Inputs<'_> {
    fn go_on(&self) -> Result<()> {
        self.context.go_on()
    }

    fn read(&self, bytes: usize) {
        let mut done = self.done.borrow_mut();
        *done += bytes as u64;
        (self.tell.borrow_mut())(Event::Progress {
            done: *done,
            total: self.total,
        });
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inputs.go_on().map_err(io::Error::other)?;
        let read = self.reader.read(buf)?;
        self.inputs.read(read);
        Ok(read)
    }
}

/// Where packed bytes go.
pub(super) type Output = BufWriter<SequentialWriter<Staged>>;

/// Packs files under the names that they get into an archive of tar and gzip.
pub(super) fn packed(
    order: &Order<'_>,
    files: &[(String, PathBuf)],
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    let level = level(order, Codec::Gzip.levels(), context, tell)?;
    staged_as(order, files, context, tell, |inputs, output| {
        let packer = Packer::new(Codec::Gzip, output, level, context.threads, None)?;
        tar(inputs.open(), packer)?.end()
    })
}

/// Writes the output by `pack`, as a whole or not at all.
fn staged(
    order: &Order<'_>,
    files: &[PathBuf],
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
    pack: impl FnOnce(&Inputs<'_>, Output) -> io::Result<Output>,
) -> Result<()> {
    let named: Result<Vec<(String, PathBuf)>> = files
        .iter()
        .map(|path| {
            let name = path
                .file_name()
                .ok_or_else(|| Error::usage("has no name").at_path(path))?;
            Ok((name.to_string_lossy().into_owned(), path.clone()))
        })
        .collect();
    staged_as(order, &named?, context, tell, pack)
}

fn staged_as(
    order: &Order<'_>,
    files: &[(String, PathBuf)],
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
    pack: impl FnOnce(&Inputs<'_>, Output) -> io::Result<Output>,
) -> Result<()> {
    let mut opened: Vec<(String, HostFile)> = Vec::new();
    let mut total = 0;
    for (name, path) in files {
        let name = name.clone();
        if opened.iter().any(|(known, _)| *known == name) {
            return Err(Error::usage(format!(
                "two files of the artifact are called {name}, and an archive can hold one"
            ))
            .at_path(path));
        }
        let file = HostFile::open_read(context.place(path), Locking::Check)?;
        total += file.len()?;
        opened.push((name, file));
    }
    let inputs = Inputs {
        files: opened,
        total,
        done: RefCell::new(0),
        context,
        tell: RefCell::new(tell),
    };
    let output = context.place(order.output);
    let failed = |error| recovered("pack", error).at_path(order.output);
    let staged = Staged::create(&output)?;
    let writer = BufWriter::with_capacity(PIECE, SequentialWriter::new(staged, false));
    let writer = pack(&inputs, writer).map_err(failed)?;
    let writer = writer
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    writer.finish()?.commit(Sync::Full)
}

//! `create`'s line, and the options of new images.

use std::io::{self, Write};

use qimg::create::{CreateRequest, Created};
use qimg::error::Escaped;
use qimg::image::Format;
use qimg::image::options::Preallocation;
use serde::Serialize;

use crate::args::OptionList;

/// What was created, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    filename: String,
    format: String,
    virtual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<String>,
}

impl Report {
    pub(crate) fn new(request: &CreateRequest, created: &Created) -> Self {
        let target = &request.target;
        let (name, format) = target.qcow2.backing.clone().unzip();
        Self {
            filename: request.path.to_string_lossy().into_owned(),
            format: target.format.to_string(),
            virtual_size: created.virtual_size,
            cluster_size: (target.format == Format::Qcow2).then_some(target.qcow2.cluster_size),
            backing_filename: name,
            backing_filename_format: format,
        }
    }
}

/// `Formatting 'a.qcow2', fmt=qcow2 ...` with the options in qemu-img's order.
pub(crate) fn line(
    out: &mut dyn Write,
    request: &CreateRequest,
    created: &Created,
    list: &OptionList,
) -> io::Result<()> {
    let options = &request.target.qcow2;
    let name = request.path.to_string_lossy();
    // The size as asked for, where it was: what is created is whole sectors.
    let size = request.size.unwrap_or(created.virtual_size);
    write!(
        out,
        "Formatting '{}', fmt={}",
        Escaped(&name),
        request.target.format
    )?;
    if request.target.format == Format::Raw {
        write!(out, " size={size}")?;
        if list.value("preallocation").is_some() {
            write!(
                out,
                " preallocation={}",
                preallocation(options.preallocation)
            )?;
        }
        return writeln!(out);
    }
    let on = |on: bool| if on { "on" } else { "off" };
    write!(
        out,
        " cluster_size={} extended_l2={}",
        options.cluster_size,
        on(options.extended_l2)
    )?;
    if list.value("preallocation").is_some() {
        write!(
            out,
            " preallocation={}",
            preallocation(options.preallocation)
        )?;
    }
    write!(
        out,
        " compression_type={} size={size}",
        options.compression_type
    )?;
    if let Some(compat) = list.value("compat") {
        write!(out, " compat={compat}")?;
    }
    if let Some((name, format)) = &options.backing {
        write!(
            out,
            " backing_file={} backing_fmt={}",
            value(name),
            value(format)
        )?;
    }
    if let Some(name) = &options.data_file {
        write!(out, " data_file={}", value(name))?;
    }
    if list.value("data_file_raw").is_some() {
        write!(out, " data_file_raw={}", on(options.data_file_raw))?;
    }
    writeln!(
        out,
        " lazy_refcounts={} refcount_bits={}",
        on(options.lazy_refcounts),
        options.refcount_bits
    )
}

/// As -o would take it again.
fn value(text: &str) -> String {
    Escaped(text).to_string().replace(',', ",,")
}

fn preallocation(preallocation: Preallocation) -> &'static str {
    match preallocation {
        Preallocation::Off => "off",
        Preallocation::Metadata => "metadata",
        Preallocation::Falloc => "falloc",
        Preallocation::Full => "full",
    }
}

const OPTIONS: [(&str, &str); 11] = [
    ("backing_file=<str>", "File name of a base image"),
    ("backing_fmt=<str>", "Image format of the base image"),
    ("cluster_size=<size>", "Bytes of a cluster, 512 to 2M"),
    (
        "compat=<str>",
        "Compatibility level (v2 [0.10] or v3 [1.1])",
    ),
    (
        "compression_type=<str>",
        "Compression of clusters (zlib, zstd)",
    ),
    ("data_file=<str>", "File name of an external data file"),
    (
        "data_file_raw=<bool (on/off)>",
        "The external data file must stay valid as a raw image",
    ),
    ("extended_l2=<bool (on/off)>", "Extended L2 tables"),
    (
        "lazy_refcounts=<bool (on/off)>",
        "Postpone refcount updates",
    ),
    (
        "preallocation=<str>",
        "Allocated at once (off, metadata, falloc, full)",
    ),
    ("refcount_bits=<num>", "Width of a reference count, 1 to 64"),
];

/// The answer to `-o help`.
pub(crate) fn options(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Options of qcow2 (raw has size and preallocation alone):"
    )?;
    for (option, meaning) in OPTIONS {
        writeln!(out, "  {option:<31}- {meaning}")?;
    }
    writeln!(out, "  {:<31}- Virtual disk size", "size=<size>")
}

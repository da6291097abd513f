//! `info` in qemu-img's words and order.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::image::Census;
use qimg::image::info::{ChildInfo, FormatSpecific, ImageInfo, SnapshotInfo};
use qimg::units::ByteSize;
use serde::Serialize;
use serde_json::Value;

/// What qemu-img tells of an image, and what was asked for beyond.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    info: ImageInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clusters: Option<Census>,
}

impl From<ImageInfo> for Report {
    fn from(info: ImageInfo) -> Self {
        Self {
            info,
            clusters: None,
        }
    }
}

/// The images of a chain, or one alone.
pub(crate) fn images(out: &mut dyn Write, reports: &[Report]) -> io::Result<()> {
    for (number, report) in reports.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        image(out, &report.info)?;
        if let Some(clusters) = &report.clusters {
            census(out, clusters)?;
        }
    }
    Ok(())
}

fn census(out: &mut dyn Write, census: &Census) -> io::Result<()> {
    writeln!(out, "Clusters:")?;
    for (kind, count) in [
        ("total", census.total),
        ("data", census.data),
        ("compressed", census.compressed),
        ("zero", census.zero_plain),
        ("zero, preallocated", census.zero_preallocated),
        ("unallocated", census.unallocated),
    ] {
        writeln!(out, "    {kind}: {count}")?;
    }
    if let Some(kinds) = &census.subclusters {
        writeln!(out, "    mixed: {}", census.mixed)?;
        writeln!(
            out,
            "    their subclusters: {} data, {} zero, {} zero and preallocated, {} unallocated",
            kinds.data, kinds.zero_plain, kinds.zero_preallocated, kinds.unallocated
        )?;
    }
    if census.compressed > 0 {
        let (guest, streams) = (
            census.compressed_guest_bytes,
            census.compressed_stream_bytes,
        );
        writeln!(
            out,
            "    compressed size: {} of {}, {:.1} %",
            ByteSize(streams),
            ByteSize(guest),
            streams as f64 * 100.0 / guest as f64
        )?;
    }
    match &census.deflate_window {
        None => Ok(()),
        Some(window) => writeln!(
            out,
            "    deflate window: {} bytes in {} samples{}",
            window.greatest_distance,
            window.samples,
            match window.unsound {
                0 => String::new(),
                unsound => format!(", {unsound} of them damaged"),
            }
        ),
    }
}

fn image(out: &mut dyn Write, info: &ImageInfo) -> io::Result<()> {
    writeln!(out, "image: {}", Escaped(&info.filename))?;
    writeln!(out, "file format: {}", info.format)?;
    let size = info.virtual_size;
    writeln!(out, "virtual size: {} ({size} bytes)", ByteSize(size))?;
    writeln!(out, "disk size: {}", ByteSize(info.actual_size))?;
    if info.encrypted {
        writeln!(out, "encrypted: yes")?;
    }
    if let Some(size) = info.cluster_size {
        writeln!(out, "cluster_size: {size}")?;
    }
    if info.dirty_flag {
        writeln!(out, "cleanly shut down: no")?;
    }
    if let Some(name) = &info.backing_filename {
        write!(out, "backing file: {}", Escaped(name))?;
        match &info.full_backing_filename {
            None => write!(out, " (cannot determine actual path)")?,
            Some(full) if full != name => write!(out, " (actual path: {})", Escaped(full))?,
            Some(_) => {}
        }
        writeln!(out)?;
    }
    if let Some(format) = &info.backing_filename_format {
        writeln!(out, "backing file format: {}", Escaped(format))?;
    }
    if !info.snapshots.is_empty() {
        snapshots(out, &info.snapshots)?;
    }
    if let Some(FormatSpecific::Qcow2(specific)) = &info.format_specific {
        writeln!(out, "Format specific information:")?;
        members(out, &serde_json::to_value(specific)?, 1)?;
    }
    info.children.iter().try_for_each(|node| child(out, node))
}

fn child(out: &mut dyn Write, child: &ChildInfo) -> io::Result<()> {
    let info = &child.info;
    writeln!(out, "Child node '/{}':", Escaped(&child.name))?;
    writeln!(out, "    filename: {}", Escaped(&info.filename))?;
    writeln!(out, "    protocol type: {}", info.format)?;
    let length = info.virtual_size;
    writeln!(
        out,
        "    file length: {} ({length} bytes)",
        ByteSize(length)
    )?;
    writeln!(out, "    disk size: {}", ByteSize(info.actual_size))
}

fn snapshots(out: &mut dyn Write, snapshots: &[SnapshotInfo]) -> io::Result<()> {
    writeln!(out, "Snapshot list:")?;
    writeln!(
        out,
        "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}",
        "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"
    )?;
    for snapshot in snapshots {
        let seconds = snapshot.vm_clock_sec;
        let clock = format!(
            "{:04}:{:02}:{:02}.{:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            snapshot.vm_clock_nsec / 1_000_000
        );
        writeln!(
            out,
            "{:<7} {:<16} {:>8} {:>19} {clock:>15} {:>10}",
            Escaped(&snapshot.id).to_string(),
            Escaped(&snapshot.name).to_string(),
            ByteSize(snapshot.vm_state_size).to_string(),
            super::date::seconds(i64::try_from(snapshot.date_sec).unwrap_or(i64::MAX)),
            snapshot
                .icount
                .map_or_else(String::new, |count| count.to_string()),
        )?;
    }
    Ok(())
}

/// qemu-img prints members in the order of its hash table; this is that order, written down.
const ORDER: [&str; 25] = [
    "compat",
    "compression-type",
    "lazy-refcounts",
    "flags",
    "bitmaps",
    "refcount-bits",
    "data-file",
    "encrypt",
    "data-file-raw",
    "corrupt",
    "extended-l2",
    "name",
    "granularity",
    "active",
    "iters",
    "key-offset",
    "stripes",
    "ivgen-alg",
    "detached-header",
    "hash-alg",
    "cipher-alg",
    "uuid",
    "ivgen-hash-alg",
    "format",
    "cipher-mode",
];

fn members(out: &mut dyn Write, value: &Value, depth: usize) -> io::Result<()> {
    let Value::Object(object) = value else {
        return Ok(());
    };
    let rank = |key: &str| {
        ORDER
            .iter()
            .position(|known| *known == key)
            .unwrap_or(ORDER.len())
    };
    let mut members: Vec<(&String, &Value)> = object.iter().collect();
    // What has no rank follows: slots, payload-offset, master-key-iters.
    members.sort_by_key(|(key, _)| (rank(key), std::cmp::Reverse(key.as_str())));
    for (key, value) in members {
        labelled(out, &key.replace('-', " "), value, depth)?;
    }
    Ok(())
}

fn labelled(out: &mut dyn Write, label: &str, value: &Value, depth: usize) -> io::Result<()> {
    write!(out, "{:width$}{label}:", "", width = depth * 4)?;
    match value {
        Value::Object(_) => {
            writeln!(out)?;
            members(out, value, depth + 1)
        }
        Value::Array(items) => {
            writeln!(out)?;
            items.iter().enumerate().try_for_each(|(number, item)| {
                labelled(out, &format!("[{number}]"), item, depth + 1)
            })
        }
        Value::String(text) => writeln!(out, " {}", Escaped(text)),
        scalar => writeln!(out, " {scalar}"),
    }
}

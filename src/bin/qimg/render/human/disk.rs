//! What `disk` and `resize` say when they are done.

use std::io::{self, Write};

use qimg::disk::{AddedEsp, Created, FatReport, Grown};
use qimg::error::Escaped;
use qimg::partition::Partition;
use qimg::resize::Resized;
use qimg::units::ByteSize;

pub(crate) fn created(out: &mut dyn Write, created: &Created) -> io::Result<()> {
    let size = ByteSize(created.virtual_size);
    let held = ByteSize(created.disk_size);
    writeln!(out, "disk: {size}, {held} on the host, {}", created.uuid)?;
    for partition in &created.partitions {
        let filesystem = created
            .filesystems
            .iter()
            .find(|filesystem| filesystem.partition == partition.number);
        line(out, partition, filesystem)?;
    }
    Ok(())
}

pub(crate) fn resized(out: &mut dyn Write, resized: &Resized) -> io::Result<()> {
    sizes(out, resized.virtual_size_before, resized.virtual_size)?;
    for note in &resized.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

pub(crate) fn grown(out: &mut dyn Write, grown: &Grown) -> io::Result<()> {
    sizes(out, grown.virtual_size_before, grown.virtual_size)?;
    for partition in &grown.partitions {
        if Some(partition.number) == grown.grown {
            line(out, partition, None)?;
        }
    }
    Ok(())
}

pub(crate) fn added(out: &mut dyn Write, added: &AddedEsp) -> io::Result<()> {
    if added.virtual_size != added.virtual_size_before {
        sizes(out, added.virtual_size_before, added.virtual_size)?;
    }
    line(out, &added.partition, Some(&added.filesystem))
}

fn sizes(out: &mut dyn Write, before: u64, now: u64) -> io::Result<()> {
    writeln!(out, "disk: {} -> {}", ByteSize(before), ByteSize(now))
}

fn line(
    out: &mut dyn Write,
    partition: &Partition,
    filesystem: Option<&FatReport>,
) -> io::Result<()> {
    write!(
        out,
        "{:>3}  {}  at {}, {}",
        partition.number,
        Escaped(&partition.kind.name()),
        ByteSize(partition.range.start),
        ByteSize(partition.size())
    )?;
    if let Some(label) = &partition.label {
        write!(out, ", '{}'", Escaped(label))?;
    }
    if let Some(filesystem) = filesystem {
        let used = ByteSize(filesystem.used);
        let capacity = ByteSize(filesystem.capacity);
        write!(out, ", {}, {used} of {capacity} used", filesystem.kind)?;
    }
    writeln!(out)
}

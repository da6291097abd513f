//! `inspect` for people.

use std::io::{self, Write};
use std::path::Path;

use qimg::error::Escaped;
use qimg::inspect::{Inspection, System};
use qimg::units::ByteSize;

use super::parts;

/// Prints what is on a disk.
pub(crate) fn print(out: &mut dyn Write, path: &Path, inspection: &Inspection) -> io::Result<()> {
    let survey = &inspection.survey;
    write!(
        out,
        "{}: {}, {}",
        Escaped(&path.to_string_lossy()),
        ByteSize(survey.size),
        survey.table.kind
    )?;
    if let Some(uuid) = &survey.table.uuid {
        write!(out, " {}", Escaped(uuid))?;
    }
    writeln!(out, "\n")?;
    parts::table(out, survey, false)?;
    writeln!(out)?;
    for found in &inspection.systems {
        system(out, found)?;
    }
    if inspection.systems.is_empty() {
        writeln!(out, "system:      none found")?;
    }
    let boot = &inspection.boot;
    writeln!(
        out,
        "boots with:  {} ({})",
        boot.mode(),
        Escaped(&boot.bios_detail)
    )?;
    for file in &boot.efi_files {
        writeln!(
            out,
            "             part {}: {}",
            Escaped(&file.part),
            Escaped(&file.path)
        )?;
    }
    writeln!(
        out,
        "least size:  {} ({} bytes)",
        ByteSize(inspection.least_size),
        inspection.least_size
    )
}

fn system(out: &mut dyn Write, system: &System) -> io::Result<()> {
    let name = system.name.as_deref().unwrap_or(&system.id);
    write!(out, "system:      {}", Escaped(name))?;
    if let Some(architecture) = system.architecture {
        write!(out, ", {architecture}")?;
    }
    writeln!(out, ", on part {}", Escaped(&system.part))?;
    let fields = [
        ("hostname", system.hostname.clone()),
        (
            "kernels",
            (!system.kernels.is_empty()).then(|| system.kernels.join(", ")),
        ),
        ("cloud-init", system.cloud_init.clone()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            writeln!(out, "{:<12} {}", format!("{name}:"), Escaped(&value))?;
        }
    }
    Ok(())
}

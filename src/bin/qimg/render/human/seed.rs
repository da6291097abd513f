//! Seeds: what was made, what is in one, what is wrong, what was served.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::seed::check::{Finding, Severity};
use qimg::seed::read::SeedContents;
use qimg::seed::serve::{Answered, Server};
use qimg::seed::{File, FileFacts, Layout, Seed, SeedRequest};
use serde::Serialize;

use crate::args::SeedMakeArgs;

/// What was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report<'a> {
    filename: String,
    written: bool,
    format: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
    size: u64,
    files: Vec<FileFacts>,
    findings: &'a [Finding],
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        args: &SeedMakeArgs,
        request: &'a SeedRequest,
        seed: &'a Seed,
        findings: &'a [Finding],
        passes: bool,
    ) -> Self {
        let filesystem = match request.layout {
            Layout::Iso => Some("iso9660"),
            Layout::Vfat => Some("vfat"),
            Layout::Tar | Layout::TarLocal | Layout::TarNet => None,
        };
        Self {
            filename: args.output.to_string_lossy().into_owned(),
            written: passes && !args.dry_run,
            format: args.disk_format.to_string(),
            filesystem,
            label: filesystem.map(|_| request.label.as_str()),
            instance_id: seed.instance_id.as_deref(),
            size: seed.bytes.len() as u64,
            files: facts(&seed.files),
            findings,
        }
    }

    /// `seed.img: iso9660 volume of 64 KiB: user-data, meta-data; instance-id qimg-0123456789ab`.
    pub(crate) fn print(&self, out: &mut dyn Write, dry_run: bool) -> io::Result<()> {
        let what = match self.filesystem {
            Some(filesystem) => format!("{filesystem} volume"),
            None => "archive".to_owned(),
        };
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        write!(
            out,
            "{}: {}{what} of {} KiB ({}): {}",
            Escaped(&self.filename),
            if dry_run { "would be an " } else { "" },
            self.size / 1024,
            self.format,
            Escaped(&names.join(", "))
        )?;
        match self.instance_id {
            Some(id) => writeln!(out, "; instance-id {}", Escaped(id)),
            None => writeln!(out),
        }
    }
}

fn facts(files: &[File]) -> Vec<FileFacts> {
    files
        .iter()
        .map(|file| FileFacts {
            name: file.name.clone(),
            size: file.bytes.len() as u64,
        })
        .collect()
}

/// `qimg: user-data:3:5: warning: ...`, one line each, with what can be done below it.
pub(crate) fn findings(err: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        write!(err, "qimg: {}", Escaped(&finding.file))?;
        for number in [finding.line, finding.column].into_iter().flatten() {
            write!(err, ":{number}")?;
        }
        let severity = match finding.severity {
            Severity::Note => "note",
            // Nothing fails by it unless it is to: then the end says so.
            Severity::Warning | Severity::Error => "warning",
        };
        writeln!(err, ": {severity}: {}", Escaped(&finding.message))?;
        if let Some(remedy) = &finding.remedy {
            writeln!(err, "  hint: {}", Escaped(remedy))?;
        }
    }
    Ok(())
}

/// Why nothing was done.
pub(crate) fn strict(err: &mut dyn Write) -> io::Result<()> {
    writeln!(err, "qimg: --strict: something was found")
}

/// A warning of the program itself.
pub(crate) fn warning(err: &mut dyn Write, message: &str, remedy: &str) -> io::Result<()> {
    writeln!(err, "qimg: warning: {message}\n  hint: {remedy}")
}

/// What is in a seed.
pub(crate) fn contents(out: &mut dyn Write, seed: &SeedContents) -> io::Result<()> {
    let text = |text: &Option<String>| {
        text.as_deref()
            .map_or_else(|| "-".to_owned(), |text| Escaped(text).to_string())
    };
    writeln!(
        out,
        "Filesystem:  {}, label {}, part {}",
        seed.filesystem,
        text(&seed.label),
        Escaped(&seed.part)
    )?;
    writeln!(out, "Instance-id: {}", text(&seed.instance_id))?;
    writeln!(out, "Hostname:    {}", text(&seed.hostname))?;
    match &seed.user_data {
        None => writeln!(out, "User-data:   -")?,
        Some(data) => {
            write!(out, "User-data:   {}", data.header)?;
            if let Some(inner) = data.compressed {
                write!(out, " of {inner}")?;
            }
            if !data.parts.is_empty() {
                write!(out, ": {}", Escaped(&data.parts.join(", ")))?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out, "Files:")?;
    for file in &seed.files {
        writeln!(out, "{:>10}  {}", file.size, Escaped(&file.name))?;
    }
    Ok(())
}

/// How a guest finds what is served.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Served {
    address: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    files: Vec<FileFacts>,
    /// For the kernel's command line.
    kernel_argument: String,
    old_kernel_argument: String,
    /// For QEMU's.
    smbios: String,
    old_smbios: String,
}

impl Served {
    pub(crate) fn new(server: &Server, files: &[File], instance_id: Option<String>) -> Self {
        let url = server.guest_url();
        let current = format!("ds=nocloud;s={url}");
        let old = format!("ds=nocloud-net;s={url}");
        // A comma would end the value for QEMU; no URL here has one.
        let smbios = |argument: &str| format!("type=1,serial={argument}");
        Self {
            address: server.address().to_string(),
            files: facts(files),
            smbios: smbios(&current),
            old_smbios: smbios(&old),
            kernel_argument: current,
            old_kernel_argument: old,
            url,
            instance_id,
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        write!(
            out,
            "Serving http://{}/: {}",
            self.address,
            Escaped(&names.join(", "))
        )?;
        if let Some(id) = &self.instance_id {
            write!(out, "; instance-id {}", Escaped(id))?;
        }
        writeln!(
            out,
            "\nUntil Ctrl-C. A guest under QEMU's user networking finds it at {}\n",
            self.url
        )?;
        writeln!(
            out,
            "cloud-init before 23.2, as in Debian 12 and older; later ones read it, too:"
        )?;
        writeln!(out, "  kernel:  '{}'", self.old_kernel_argument)?;
        writeln!(out, "  QEMU:    -smbios '{}'\n", self.old_smbios)?;
        writeln!(out, "cloud-init 23.2 and later:")?;
        writeln!(out, "  kernel:  '{}'", self.kernel_argument)?;
        writeln!(out, "  QEMU:    -smbios '{}'", self.smbios)
    }
}

/// `127.0.0.1:40000 GET /user-data HTTP/1.1: 200, 14 bytes`.
pub(crate) fn answered(err: &mut dyn Write, answered: &Answered) -> io::Result<()> {
    writeln!(
        err,
        "{} {}: {}, {} bytes",
        answered.client,
        Escaped(&answered.request),
        answered.status,
        answered.length
    )
}

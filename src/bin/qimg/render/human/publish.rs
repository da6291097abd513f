//! What was published, in words.

use std::io::{self, Write};
use std::path::Path;

use qimg::error::Escaped;
use qimg::publish::directory::Published;
use qimg::publish::exoscale;
use qimg::publish::exoscale::preflight::{Finding, Severity};
use qimg::publish::put::Sent;
use qimg::publish::s3::Uploaded;
use qimg::units::ByteSize;

/// Something the user may want to know.
pub(crate) fn note(err: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(err, "qimg: note: {}", Escaped(text))
}

pub(crate) fn findings(err: &mut dyn Write, path: &Path, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        let name = path.to_string_lossy();
        let severity = match finding.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        writeln!(
            err,
            "qimg: {severity}{}: {}",
            Escaped(&name),
            Escaped(&finding.what)
        )?;
        writeln!(err, "  hint: {}", Escaped(&finding.remedy))?;
    }
    Ok(())
}

fn line(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<9} {}", Escaped(value))
}

fn was_there(yes: bool) -> &'static str {
    if yes { " (there already)" } else { "" }
}

pub(crate) fn uploaded(out: &mut dyn Write, done: &Uploaded, link: Option<&str>) -> io::Result<()> {
    line(
        out,
        "object",
        &format!(
            "s3://{}/{}{}",
            done.bucket,
            done.key,
            was_there(done.was_there)
        ),
    )?;
    line(out, "url", &done.url)?;
    line(out, "size", &ByteSize(done.size).to_string())?;
    line(out, "sha256", &done.sha256)?;
    line(out, "md5", &done.md5)?;
    if done.resumed_parts > 0 {
        line(
            out,
            "parts",
            &format!(
                "{}, {} of them from an earlier run",
                done.parts, done.resumed_parts
            ),
        )?;
    }
    // As it is: a link that is broken over lines, or escaped, leads nowhere.
    link.map_or(Ok(()), |link| line(out, "link", link))
}

pub(crate) fn template(out: &mut dyn Write, done: &exoscale::Published) -> io::Result<()> {
    line(
        out,
        "template",
        &format!("{}{}", done.template, was_there(done.was_there)),
    )?;
    line(out, "name", &done.name)?;
    line(out, "zones", &done.zones.join(", "))?;
    line(out, "checksum", &done.checksum)?;
    let kept = if done.object_kept { "" } else { " (removed)" };
    line(out, "object", &format!("{}{kept}", done.url))
}

pub(crate) fn sent(out: &mut dyn Write, done: &Sent) -> io::Result<()> {
    line(out, "url", &done.url)?;
    line(out, "size", &ByteSize(done.size).to_string())?;
    line(out, "sha256", &done.sha256)?;
    line(out, "md5", &done.md5)
}

pub(crate) fn version(out: &mut dyn Write, done: &Published) -> io::Result<()> {
    line(
        out,
        "version",
        &format!("{}{}", done.version, was_there(done.was_there)),
    )?;
    line(out, "file", &done.path.to_string_lossy())?;
    line(out, "size", &ByteSize(done.size).to_string())?;
    line(out, "sha256", &done.sha256)?;
    match done.removed.is_empty() {
        true => Ok(()),
        false => line(out, "removed", &done.removed.join(", ")),
    }
}

//! What is wrong with a template.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::template::check::{Finding, Severity};

/// One line each, with the place, and what can be done.
pub(crate) fn findings(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let file = finding.file.to_string_lossy();
        write!(out, "{}", Escaped(&file))?;
        if finding.line > 0 {
            write!(out, ":{}:{}", finding.line, finding.column)?;
        }
        writeln!(out, ": {severity}: {}", Escaped(&finding.message))?;
        if !finding.remedy.is_empty() {
            writeln!(out, "  hint: {}", Escaped(&finding.remedy))?;
        }
    }
    Ok(())
}

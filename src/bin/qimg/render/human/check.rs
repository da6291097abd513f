//! `check` in qemu-img's words.

use std::io::{self, Write};

use qimg::image::Image;
use qimg::image::check::{CheckReport, Finding, Severity};
use serde::Serialize;

/// What a check found, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    filename: String,
    format: String,
    #[serde(flatten)]
    report: CheckReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Graded>,
}

/// A finding with its weight, which JSON tells too.
#[derive(Debug, Serialize)]
struct Graded {
    severity: Severity,
    #[serde(flatten)]
    finding: Finding,
}

impl Report {
    pub(crate) fn new(image: &Image, report: CheckReport) -> Self {
        let findings = report.findings.iter().map(|finding| Graded {
            severity: finding.severity(),
            finding: finding.clone(),
        });
        Self {
            filename: image.path().to_string_lossy().into_owned(),
            format: image.format().to_string(),
            findings: findings.collect(),
            report,
        }
    }

    /// A line for each finding; they hold numbers only, nothing to escape.
    pub(crate) fn print_findings(&self, err: &mut dyn Write) -> io::Result<()> {
        for Graded { finding, .. } in &self.findings {
            writeln!(err, "{finding}")?;
        }
        let listed = self.findings.len() as u64;
        match self.report.findings_total.saturating_sub(listed) {
            0 => Ok(()),
            more => writeln!(err, "... and {more} more"),
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let found = &self.report;
        if found.corruptions == 0 && found.leaks == 0 && found.check_errors == 0 {
            writeln!(out, "No errors were found on the image.")?;
        }
        if found.corruptions > 0 {
            writeln!(
                out,
                "\n{} errors were found on the image.\n\
                 Data may be corrupted, or further writes to the image may corrupt it.",
                found.corruptions
            )?;
        }
        if found.leaks > 0 {
            writeln!(
                out,
                "\n{} leaked clusters were found on the image.\n\
                 This means waste of disk space, but no harm to data.",
                found.leaks
            )?;
        }
        if found.check_errors > 0 {
            writeln!(
                out,
                "\n{} internal errors have occurred during the check.",
                found.check_errors
            )?;
        }
        let (total, allocated) = (found.total_clusters, found.allocated_clusters);
        if total > 0 && allocated > 0 {
            let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
            writeln!(
                out,
                "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
                percent(allocated, total),
                percent(found.fragmented_clusters, allocated),
                percent(found.compressed_clusters, allocated),
            )?;
        }
        match found.image_end_offset {
            0 => Ok(()),
            offset => writeln!(out, "Image end offset: {offset}"),
        }
    }
}

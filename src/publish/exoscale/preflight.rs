//! Whether Exoscale would take an image, before anything is sent.
//!
//! Knows the cloud's rules for images and what mends a breach. Must not know its API.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::image::{Depth, Format, Image, OpenOptions};
use crate::inspect::inspect;
use crate::survey::SurveyRequest;
use crate::volume::Volume;

/// Bytes of a guest's disk at least.
pub const LEAST_SIZE: u64 = 10 << 30;

/// Bytes of a guest's disk at most.
pub const MOST_SIZE: u64 = 100 << 30;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It would be refused, or not start.
    Error,
    /// It may be meant.
    Warning,
}

/// A rule that the image does not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// What mends it.
    pub remedy: String,
}

/// Compares the image `path` with the rules; `boot_mode` is `legacy` or `uefi`.
///
/// # Errors
/// It is no image, or cannot be read.
pub fn preflight(path: &Path, boot_mode: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let name = path.display();
    let mut find = |severity, what: String, remedy: String| {
        findings.push(Finding {
            severity,
            what,
            remedy,
        });
    };
    let options = OpenOptions {
        format: None,
        ..OpenOptions::default()
    };
    let image = match Image::open(path, &options) {
        // Only qcow2 is told from its bytes: anything else may still be a disk.
        Err(error)
            if error.kind() == crate::ErrorKind::Refused
                || error.kind() == crate::ErrorKind::NotAnImage =>
        {
            Image::open(
                path,
                &OpenOptions {
                    format: Some(Format::Raw),
                    ..options
                },
            )?
        }
        image => image?,
    };
    if image.format() != Format::Qcow2 {
        find(
            Severity::Error,
            "is no qcow2 image".to_owned(),
            format!("qimg convert -O qcow2 {name} {name}.qcow2 makes one"),
        );
    }
    if let Some((backing, _)) = image.backing_file() {
        find(
            Severity::Error,
            format!("needs the file {backing}, which the cloud does not have"),
            format!("qimg compress --backing follow {name} {name}.whole.qcow2 puts both together"),
        );
        return Ok(findings);
    }
    if image.snapshot_count() > 0 || image.has_vm_state() {
        find(
            Severity::Error,
            "holds snapshots".to_owned(),
            format!("qimg compress {name} {name}.now.qcow2 writes its present state alone"),
        );
    }
    let size = image.virtual_size()?;
    if size < LEAST_SIZE {
        let shown = size.div_ceil(1 << 20);
        find(
            Severity::Error,
            format!("has a disk of {shown} MiB; the least is 10 GiB"),
            format!("qimg resize {name} 10G makes the disk larger, not the file"),
        );
    }
    if size > MOST_SIZE {
        find(
            Severity::Error,
            format!(
                "has a disk of {} GiB; the most is 100 GiB",
                size.div_ceil(1 << 30)
            ),
            "build it on a smaller disk: instances grow it when they start".to_owned(),
        );
    }
    let chain = image.chain(Depth::Chain, None)?;
    let request = SurveyRequest {
        vm_state: image.has_vm_state(),
        ..SurveyRequest::default()
    };
    let inspection =
        inspect(&Volume::whole(&chain), &request).map_err(|error| error.at_path(path))?;
    let boot = &inspection.boot;
    match boot_mode {
        "uefi" if !boot.uefi => find(
            Severity::Error,
            "has nothing that UEFI firmware starts, and is to boot by UEFI".to_owned(),
            if boot.bios {
                "say --boot-mode legacy, or add files for UEFI: qimg disk add-esp".to_owned()
            } else {
                "install a boot loader; qimg inspect shows what is on the disk".to_owned()
            },
        ),
        "legacy" if !boot.bios => find(
            Severity::Error,
            format!(
                "has nothing that a BIOS starts ({}), and is to boot by BIOS",
                boot.bios_detail
            ),
            if boot.uefi {
                "say --boot-mode uefi".to_owned()
            } else {
                "install a boot loader; qimg inspect shows what is on the disk".to_owned()
            },
        ),
        _ => {}
    }
    match inspection.systems.as_slice() {
        [] => find(
            Severity::Warning,
            "holds no system that is known here: cloud-init is not looked for".to_owned(),
            "make sure that it takes its keys and network from the cloud".to_owned(),
        ),
        systems if systems.iter().all(|system| system.cloud_init.is_none()) => find(
            Severity::Error,
            "has no cloud-init: nobody could log in".to_owned(),
            "install cloud-init 19.3 or later while it is built; --force publishes it all the same"
                .to_owned(),
        ),
        _ => {}
    }
    Ok(findings)
}

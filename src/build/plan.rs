//! What a build would do, told without doing it.
//!
//! Looks at the host, boots nothing but the small guest that tells whether KVM works, and writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::boot_command;
use super::firmware_choice::find_firmware;
use super::prepared::{filled_in, kernel_arguments, path_of};
use super::request::BuildRequest;
use super::texts::Texts;
use crate::error::Result;
use crate::machine::accelerator;
use crate::machine::command_line::{Drive, Forward, Spec, wishes};
use crate::machine::{command_line, launcher};

/// What would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Name of the build.
    pub build: String,
    /// What would run the guest.
    pub accelerator: String,
    /// Why.
    pub because: String,
    /// QEMU and its arguments.
    pub command: Vec<String>,
    /// What would be said of it.
    pub warnings: Vec<String>,
    /// All that would happen, in order.
    pub steps: Vec<String>,
}

/// Plans a build.
///
/// # Errors
/// There is no QEMU; the template's texts cannot be filled in.
pub fn plan(request: &BuildRequest<'_>) -> Result<Plan> {
    let (build, host) = (request.build, request.surroundings);
    let path = path_of(&host.host.environment);
    let remedy = format!("install {} (Debian: qemu-system-x86)", build.machine.qemu);
    let qemu = launcher::find_program(Path::new(&build.machine.qemu), path, remedy)?;
    let choice = accelerator::choose(
        build.machine.accelerator.as_deref(),
        build.machine.cpu_model.as_deref(),
        &qemu,
        &host.launcher,
        &host.kvm,
        &*request.stop,
    )?;
    let texts = Texts::default();
    for (name, value) in [
        ("OutputDir", build.output.directory.display().to_string()),
        ("Name", build.output.name.clone()),
        ("HTTPIP", "10.0.2.2".to_owned()),
        ("HTTPPort", "PORT".to_owned()),
        ("HTTPDir", String::new()),
        ("SSHHostPort", "PORT".to_owned()),
        ("SSHPublicKey", "KEY".to_owned()),
    ] {
        texts.field(name, value);
    }
    let mut qemu_args = filled_in(request, &texts)?;
    // What cannot be typed is told before anything is fetched.
    boot_command::prepare(request, &texts)?;
    qemu_args.extend(kernel_arguments(request, &texts)?);
    let firmware = find_firmware(request)?;
    let mut cds = Vec::new();
    if !build.base.is_disk
        && let Some(url) = build.base.urls.first()
    {
        cds.push(url.rsplit('/').next().unwrap_or(url).into());
    }
    if build.media.has_cd() {
        cds.push("files.iso".into());
    }
    let floppy = { build.media.has_floppy() }.then_some(Path::new("floppy.img"));
    let main = host
        .directory
        .join(&build.output.directory)
        .join(&build.output.name);
    let additional: Vec<Drive> = (1..=build.additional_disks.len())
        .map(|number| {
            let mut path = main.as_os_str().to_owned();
            path.push(format!("-{number}"));
            Drive {
                path: path.into(),
                format: "qcow2".to_owned(),
            }
        })
        .collect();
    let wish = wishes(&qemu_args, &main, &host.directory);
    let copies: BTreeMap<PathBuf, PathBuf> = wish
        .firmware
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            let copy = main.with_file_name(name);
            (path, copy)
        })
        .collect();
    let line = command_line(&Spec {
        name: &build.output.name,
        machine: &build.machine,
        disk: &build.disk,
        qemu_args: &qemu_args,
        main: Drive {
            path: main.clone(),
            format: "qcow2".to_owned(),
        },
        main_by_template: &main,
        directory: &host.directory,
        additional: &additional,
        boots_from_disk: build.base.is_disk,
        cds: &cds,
        floppy,
        network_boot: build.boot.network.as_ref(),
        seed: None,
        forward: build.communicator.as_ref().map(|ssh| Forward {
            host: 0,
            guest: ssh.port,
        }),
        accelerator: &choice.accelerator,
        boot: firmware.as_ref(),
        tpm: build.machine.tpm.as_ref().map(|_| Path::new("tpm.sock")),
        has_display: host.has_display,
        copies: &copies,
    })?;
    let qemu = qemu.display().to_string();
    let masks = super::masks(request)?;
    let masked = |text: &String| masks.mask(text).into_owned();
    Ok(Plan {
        build: build.name.clone(),
        accelerator: choice.accelerator.to_string(),
        because: choice.why.to_string(),
        command: { std::iter::once(&qemu) }
            .chain(line.all())
            .map(masked)
            .collect(),
        warnings: line.warnings.iter().map(masked).collect(),
        steps: steps(request).iter().map(masked).collect(),
    })
}

fn steps(request: &BuildRequest<'_>) -> Vec<String> {
    let build = request.build;
    let mut steps = Vec::new();
    if !build.base.urls.is_empty() {
        steps.push(format!("get {}", build.base.urls.join(", or ")));
    }
    steps.push(if build.base.is_disk {
        "make an overlay of it".to_owned()
    } else {
        "make an empty disk".to_owned()
    });
    if build.seed.is_some() {
        steps.push("make a seed of the template's NoCloud data".to_owned());
    }
    let media = &build.media;
    if let Some(directory) = &media.http_directory {
        steps.push(format!("serve {} over HTTP", directory.display()));
    } else if !media.http_content.is_empty() {
        let paths: Vec<&str> = media.http_content.keys().map(String::as_str).collect();
        steps.push(format!("serve over HTTP: {}", paths.join(", ")));
    }
    if media.has_cd() {
        steps.push("make a CD of the template's files".to_owned());
    }
    if media.has_floppy() {
        steps.push("make a floppy disk of the template's files".to_owned());
    }
    if build.machine.tpm.is_some() {
        steps.push("start a TPM in software".to_owned());
    }
    steps.push(match (&build.boot.kernel, &build.boot.network) {
        (Some(kernel), _) => format!("start the machine with {}", kernel.kernel.display()),
        (None, Some(network)) => format!("start the machine from the network: {}", network.file),
        (None, None) => "start the machine".to_owned(),
    });
    if !build.boot.steps.is_empty() {
        let wait = boot_command::wait_of(request).as_secs_f64();
        steps.push(format!("wait {wait} s, then type the boot command"));
    }
    if let Some(ssh) = &build.communicator {
        steps.push(format!(
            "wait for SSH as {}, then for cloud-init",
            ssh.username
        ));
    }
    for provisioner in &build.provisioners {
        let place = match provisioner.line {
            0 => String::new(),
            line => format!(" (line {line})"),
        };
        steps.push(format!("provision with {}{place}", provisioner.kind));
    }
    if !build.seal.steps.is_empty() {
        steps.push(format!("seal: {}", build.seal.steps.join(", ")));
    }
    steps.push(match &build.communicator {
        Some(_) => "shut the guest down".to_owned(),
        None => "wait for the guest to power off".to_owned(),
    });
    steps.push(format!(
        "make {} in {}",
        build.output.name,
        build.output.directory.display()
    ));
    for chain in &build.post_processors {
        let names: Vec<&str> = chain.iter().map(|job| job.name.as_str()).collect();
        steps.push(format!("post-process: {}", names.join(", then ")));
    }
    steps
}

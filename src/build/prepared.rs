//! The first stage: everything that a machine needs is there, and nothing runs yet.
//!
//! Claims the output directory, gets the base, makes disk, seed and keys, chooses what runs the guest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::access::Access;
use super::accounts::{self, Account};
use super::disk::{self, Origin};
use super::event::{Reporter, Unit};
use super::late::RenderText;
use super::output::OutputDirectory;
use super::request::{BuildRequest, OnError};
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::fetch::{self, Hashing, Signature, Step};
use crate::machine::accelerator::{self, Choice};
use crate::machine::command_line::{Boot, Drive, Forward, Spec, wishes};
use crate::machine::{Accelerator, CommandLine, command_line, firmware, launcher};
use crate::template::model::{Dialect, Firmware};

/// Values of `qemuargs`, filled in.
pub(super) type QemuArgs = Vec<(String, Vec<String>)>;

/// A machine that could be started.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) request: &'a BuildRequest<'a>,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) texts: &'a Texts,
    pub(super) access: Access,
    pub(super) origin: Option<Origin>,
    pub(super) choice: Choice,
    pub(super) qemu: PathBuf,
    pub(super) run_directory: PathBuf,
    /// The machine's main disk.
    pub(super) disk: PathBuf,
    pub(super) additional: Vec<Drive>,
    pub(super) qemu_args: QemuArgs,
    cds: Vec<PathBuf>,
    boot: Option<Boot>,
    copies: BTreeMap<PathBuf, PathBuf>,
    port: u16,
    // Last: all files lie in it.
    pub(super) output: OutputDirectory,
    // The base stays in the cache for as long as it is needed.
    _base: Option<fetch::Fetched>,
}

impl<'a> Prepared<'a> {
    /// Gets and makes everything.
    ///
    /// # Errors
    /// The output directory is there already or in use; the base cannot be got, or is none; the host has no QEMU, or no
    /// firmware; cancelled.
    pub(super) fn new(
        request: &'a BuildRequest<'a>,
        reporter: &'a Reporter<'a>,
        texts: &'a Texts,
    ) -> Result<Self> {
        let (build, host) = (request.build, request.surroundings);
        refuse_what_comes_later(request)?;
        let at = |path: &Path| host.directory.join(path);
        let directory = at(&build.output.directory);
        let main = directory.join(&build.output.name);
        texts.field("OutputDir", build.output.directory.display().to_string());
        texts.field("Name", build.output.name.clone());
        texts.field("HTTPIP", "");
        texts.field("HTTPPort", "0");
        let port = port(request)?;
        texts.field("SSHHostPort", port.to_string());
        let qemu_args = filled_in(request, texts)?;
        let wish = wishes(&qemu_args, &main, &host.directory);
        if wish.main_format.as_deref() == Some("raw") {
            return Err(Error::unsupported(
                "-drive in qemuargs says that the main disk is raw, but a machine runs on an overlay, which is qcow2",
            )
            .with_remedy("leave format=raw out of that -drive: the artifact's format is what `format` says"));
        }

        let qemu = launcher::find_program(
            Path::new(&build.machine.qemu),
            path_of(&host.host.environment),
            format!(
                "install {} (Debian: qemu-system-x86), or name another with qemu_binary",
                build.machine.qemu
            ),
        )?;
        let output = OutputDirectory::claim(&directory, request.options.force, wish.names_main)?;
        let run_directory = host.runs.join(&host.run).join(&build.name);

        let base = fetched_base(request, reporter)?;
        let origin = build.base.is_disk.then(|| Origin {
            path: base.path.clone(),
            format: base.format,
            virtual_size: base.virtual_size,
        });
        let cds = if build.base.is_disk {
            Vec::new()
        } else {
            vec![base.path.clone()]
        };
        let account = match (&origin, &build.communicator) {
            (Some(origin), Some(ssh)) => accounts::look_for(&ssh.username, origin),
            _ => Account::Unknown,
        };
        let access = Access::prepare(build, account, &run_directory)?;
        let mut copies = BTreeMap::new();
        for path in wish.firmware {
            let name = path.file_name().unwrap_or(path.as_os_str());
            let copy = output.artifact().join(name);
            firmware::copy_variables(&at(&path), &copy)?;
            copies.insert(path, copy);
        }
        let boot = choose_firmware(request, &output)?;
        let wanted = wish
            .accelerator
            .as_deref()
            .or(build.machine.accelerator.as_deref());
        let choice = accelerator::choose(
            wanted,
            build.machine.cpu_model.as_deref(),
            &qemu,
            &host.launcher,
            &host.kvm,
            &*request.stop,
        )?;
        reporter.step(&format!(
            "Accelerator: {} ({})",
            choice.accelerator, choice.why
        ));
        let mut this = Self {
            request,
            reporter,
            texts,
            access,
            origin,
            choice,
            qemu,
            run_directory,
            disk: if wish.names_main {
                main
            } else {
                output.work().join(&build.output.name)
            },
            additional: Vec::new(),
            qemu_args,
            cds,
            boot,
            copies,
            port,
            output,
            _base: Some(base),
        };
        if matches!(
            request.options.on_error,
            OnError::Abort | OnError::RunCleanupProvisioner
        ) {
            this.keep_files();
        }
        this.make_disks()?;
        Ok(this)
    }

    /// Makes the machine's disks, as they are before it was ever started.
    pub(super) fn make_disks(&mut self) -> Result<()> {
        let build = self.request.build;
        let size = disk::make(&self.disk, self.origin.as_ref(), build.disk.size)?;
        let of = if self.origin.is_some() {
            "an overlay of the base"
        } else {
            "empty"
        };
        self.reporter
            .note(&format!("Disk: {}, {of}", crate::units::ByteSize(size)));
        self.additional.clear();
        for (index, size) in build.additional_disks.iter().enumerate() {
            let path = self
                .output
                .work()
                .join(format!("{}-{}", build.output.name, index + 1));
            disk::make(&path, None, Some(*size))?;
            self.additional.push(Drive {
                path,
                format: "qcow2".to_owned(),
            });
        }
        Ok(())
    }

    /// The command line of a QEMU that `accelerator` runs.
    pub(super) fn command_line(&self, accelerator: &Accelerator) -> Result<CommandLine> {
        let (build, host) = (self.request.build, self.request.surroundings);
        let main_by_template = host
            .directory
            .join(&build.output.directory)
            .join(&build.output.name);
        let forward = build
            .communicator
            .as_ref()
            .filter(|ssh| {
                ssh.host.is_none()
                    && build.machine.net_bridge.is_none()
                    && !build.machine.skip_nat_mapping
            })
            .map(|ssh| Forward {
                host: self.port,
                guest: ssh.port,
            });
        command_line(&Spec {
            name: &build.output.name,
            machine: &build.machine,
            disk: &build.disk,
            qemu_args: &self.qemu_args,
            main: Drive {
                path: self.disk.clone(),
                format: "qcow2".to_owned(),
            },
            main_by_template: &main_by_template,
            directory: &host.directory,
            additional: &self.additional,
            boots_from_disk: build.base.is_disk,
            cds: &self.cds,
            floppy: None,
            seed: self.access.seed.as_deref(),
            forward,
            accelerator,
            boot: self.boot.as_ref(),
            tpm: None,
            has_display: host.has_display,
            copies: &self.copies,
        })
    }

    /// Leaves all files where they are if the build fails.
    pub(super) fn keep_files(&self) {
        self.output.keep();
        let place = self.output.work();
        self.reporter.note(&format!(
            "If the build fails, its files stay in {}",
            place.display()
        ));
    }

    /// The host's port that leads to the guest's SSH, as far as it is known before QEMU runs; else 0.
    pub(super) fn template_port(&self) -> u16 {
        self.port
    }
}

/// What a build is refused for until it can be done.
fn refuse_what_comes_later(request: &BuildRequest<'_>) -> Result<()> {
    let build = request.build;
    let media = &build.media;
    let asked = [
        (!build.boot.steps.is_empty(), "boot_command"),
        (
            media.http_directory.is_some() || !media.http_content.is_empty(),
            "http_directory",
        ),
        (
            !media.cd_files.is_empty() || !media.cd_content.is_empty(),
            "cd_files",
        ),
        (
            !media.floppy_files.is_empty()
                || !media.floppy_directories.is_empty()
                || !media.floppy_content.is_empty(),
            "floppy_files",
        ),
        (build.machine.tpm.is_some(), "vtpm"),
        (build.machine.net_bridge.is_some(), "net_bridge"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, name)) => Err(Error::unsupported(format!("{name} is not there yet"))
            .with_remedy("builds start from cloud images for now: disk_image, and a seed")
            .at_path(&request.template.path)),
    }
}

/// Where programs of the host are.
pub(super) fn path_of(
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Option<&std::ffi::OsString> {
    environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value)
}

/// The host's port that leads to the guest's SSH; 0: the kernel chooses.
fn port(request: &BuildRequest<'_>) -> Result<u16> {
    let build = request.build;
    let wants_number = build
        .machine
        .qemu_args
        .iter()
        .flat_map(|(switch, values)| std::iter::once(switch).chain(values))
        .any(|text| text.0.contains("SSHHostPort"));
    let range = match (build.machine.host_ports, wants_number) {
        (Some((first, last)), _) => first..=last,
        // A template that writes the port down must know it before QEMU does.
        (None, true) => 0..=0,
        (None, false) => return Ok(0),
    };
    for port in range.clone() {
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            let address = listener
                .local_addr()
                .map_err(|error| Error::io("find a free port", error))?;
            return Ok(address.port());
        }
    }
    Err(Error::usage(format!(
        "no port from {} to {} of this host is free",
        range.start(),
        range.end()
    ))
    .with_remedy(
        "widen host_port_min and host_port_max, or leave them out: the kernel finds one then",
    ))
}

/// The template's arguments for QEMU, filled in.
pub(super) fn filled_in(request: &BuildRequest<'_>, texts: &Texts) -> Result<QemuArgs> {
    request
        .build
        .machine
        .qemu_args
        .iter()
        .map(|(switch, values)| {
            let values: Result<Vec<String>> = values
                .iter()
                .map(|value| texts.render(value, &[]))
                .collect();
            Ok((texts.render(switch, &[])?, values?))
        })
        .collect()
}

fn fetched_base(request: &BuildRequest<'_>, reporter: &Reporter<'_>) -> Result<fetch::Fetched> {
    let host = request.surroundings;
    let base = &request.build.base;
    if base.checksum.is_empty() || base.checksum == "none" {
        reporter.warn("The base image is not compared with any checksum");
    }
    reporter.step(&format!(
        "Getting the base image {}",
        base.urls.join(", or ")
    ));
    let order = fetch::Request::of(base, &host.directory);
    let fetched = fetch::fetch(
        &order,
        &host.fetch,
        &*request.stop,
        &mut |event| match event {
            fetch::Event::Progress { step, done, total } => {
                let task = match step {
                    Step::Download => "download",
                    Step::Hash(Hashing::Local | Hashing::Verify | Hashing::Resume) => "checksum",
                    Step::Unpack => "unpack",
                };
                reporter.progress(task, done, total, Unit::Bytes);
            }
            fetch::Event::Waiting { process } => {
                let by =
                    process.map_or_else(String::new, |process| format!(" (process {process})"));
                reporter.note(&format!("Waiting for another download of the same{by}"));
            }
            fetch::Event::Failed {
                source,
                error,
                again,
            } => {
                let then = again.map_or("the next source", |_| "once more");
                reporter.warn(&format!("{source}: {error}; trying {then}"));
            }
            fetch::Event::Damaged { path } => {
                reporter.warn(&format!(
                    "{} is not what it was: it is got anew",
                    path.display()
                ));
            }
            fetch::Event::Stale { source, error } => {
                reporter.warn(&format!(
                    "{source} does not answer ({error}): what it had the last time is taken"
                ));
            }
        },
    )?;
    let digest = fetched
        .sha256()
        .map_or_else(String::new, |digest| format!(", {digest}"));
    let from = if fetched.cached {
        "from the cache"
    } else {
        "new"
    };
    reporter.note(&format!(
        "{}: {}, {}, {from}{digest}",
        fetched.source,
        fetched.format,
        crate::units::ByteSize(fetched.virtual_size)
    ));
    match &fetched.signature {
        Signature::NoList => {}
        Signature::Unsigned => reporter.note("The list of checksums is not signed"),
        Signature::Unverified => {
            reporter
                .note("The list of checksums is signed, but no key was given to verify it with");
        }
        Signature::Verified { fingerprint, user } => {
            let by = user.as_deref().unwrap_or("nobody by name");
            reporter.note(&format!(
                "The list of checksums is signed by {by}, {fingerprint}"
            ));
        }
    }
    Ok(fetched)
}

fn choose_firmware(request: &BuildRequest<'_>, output: &OutputDirectory) -> Result<Option<Boot>> {
    let (machine, host) = (&request.build.machine, request.surroundings);
    match &machine.firmware {
        Firmware::Default => Ok(None),
        Firmware::File { path, flash: false } => Ok(Some(Boot::Bios(path.clone()))),
        Firmware::File { path, flash: true } => Ok(Some(Boot::OneFlash(path.clone()))),
        Firmware::Efi {
            code,
            variables,
            secure,
            drop_variables,
        } => {
            let found = match code {
                Some(code) => firmware::named(code, variables.as_deref(), &host.firmware)?,
                None => {
                    let binary = Path::new(&machine.qemu)
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy();
                    let wanted = firmware::Wanted {
                        architecture: binary.strip_prefix("qemu-system-").unwrap_or("x86_64"),
                        machine_type: machine.machine_type.as_deref(),
                        secure: *secure,
                    };
                    firmware::find(&wanted, &host.firmware)?
                }
            };
            let directory = if *drop_variables {
                output.work().to_owned()
            } else {
                output.artifact()
            };
            Ok(Some(Boot::Flash(
                found.with_copy(&directory.join("efivars.fd"))?,
            )))
        }
    }
}

/// Whether a dialect's own defaults hold where the template says nothing.
pub(super) fn is_native(request: &BuildRequest<'_>) -> bool {
    request.template.dialect == Dialect::Native
}

//! The first stage: everything that a machine needs is there, and nothing runs yet.
//!
//! Claims the output directory, gets the base, makes disk, seed and keys, chooses what runs the guest.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::Access;
use super::accounts::{self, Account};
use super::boot_command;
use super::disk::{self, Origin};
use super::event::{Reporter, Unit};
use super::firmware_choice::{self, choose_firmware};
use super::http::{self, Serving};
use super::late::RenderText;
use super::media;
use super::output::OutputDirectory;
use super::parts::Parts;
use super::password::PasswordFile;
use super::register::{Purpose, Registered, Run};
use super::request::{BuildRequest, OnError};
use super::steps::{Made, Steps};
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::fetch::{self, Hashing, Signature, Step};
use crate::machine::accelerator::{self, Choice};
use crate::machine::command_line::{Boot, Drive, Forward, Spec, wishes};
use crate::machine::{Accelerator, CommandLine, command_line, firmware, launcher};
use crate::template::model::{Dialect, NetworkBoot};

/// States that are tried before a build begins at its beginning.
const MOST_TRIES: usize = 3;

/// Values of `qemuargs`, filled in.
pub(super) type QemuArgs = Vec<(String, Vec<String>)>;

/// A machine that could be started.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) request: &'a BuildRequest<'a>,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) texts: &'a Texts,
    pub(super) access: Access,
    pub(super) registered: Registered,
    /// States of the machine, where they are kept.
    pub(super) steps: Option<Steps>,
    pub(super) origin: Option<Origin>,
    pub(super) choice: Choice,
    pub(super) qemu: PathBuf,
    pub(super) run_directory: PathBuf,
    /// The machine's main disk.
    pub(super) disk: PathBuf,
    pub(super) additional: Vec<Drive>,
    /// Virtual sizes of all disks in bytes, the main one's first.
    pub(super) sizes: Vec<u64>,
    pub(super) qemu_args: QemuArgs,
    /// What is typed while the guest comes up.
    pub(super) boot_command: Vec<boot_command::Step>,
    /// What the guest may fetch.
    pub(super) serving: Option<Arc<Serving>>,
    /// The template's password, for `qimg ssh`.
    pub(super) password: Option<PasswordFile>,
    /// Arguments for a kernel that QEMU starts.
    pub(super) kernel: QemuArgs,
    pub(super) network_boot: Option<NetworkBoot>,
    /// The medium that installs.
    pub(super) medium: Option<PathBuf>,
    /// A CD of the template's files.
    pub(super) cd: Option<PathBuf>,
    pub(super) floppy: Option<PathBuf>,
    pub(super) boot: Option<Boot>,
    pub(super) copies: BTreeMap<PathBuf, PathBuf>,
    account: Account,
    /// States that were tried and of no use.
    tries: usize,
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
        refuse_bridge_without_host(request)?;
        let at = |path: &Path| host.directory.join(path);
        let directory = at(&build.output.directory);
        let main = directory.join(&build.output.name);
        texts.field("OutputDir", build.output.directory.display().to_string());
        texts.field("Name", build.output.name.clone());
        let serving = Serving::new(request)?.map(Arc::new);
        let (address, http_port) = match &serving {
            Some(serving) => serving.as_seen(),
            None => (
                http::guest_address(request, Ipv4Addr::UNSPECIFIED.into()),
                0,
            ),
        };
        texts.field("HTTPIP", address.clone());
        texts.field("HTTPPort", http_port.to_string());
        let directory_served = build.media.http_directory.as_deref();
        let shown = directory_served.map(|directory| at(directory).display().to_string());
        texts.field("HTTPDir", shown.unwrap_or_default());
        for (name, value) in [
            ("PackerHTTPAddr", format!("{address}:{http_port}")),
            ("PackerHTTPIP", address),
            ("PackerHTTPPort", http_port.to_string()),
        ] {
            texts.of_build(name, value);
        }
        let port = port(request)?;
        texts.field("SSHHostPort", port.to_string());
        let qemu_args = filled_in(request, texts)?;
        let wish = wishes(&qemu_args, &main, &host.directory);

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

        let base = match build.base.urls.is_empty() {
            true => None,
            false => Some(fetched_base(request, reporter)?),
        };
        let disk_base = base.as_ref().filter(|_| build.base.is_disk);
        let origin = disk_base.map(|base| Origin {
            path: base.path.clone(),
            format: base.format,
            virtual_size: base.virtual_size,
        });
        let medium = base.as_ref().filter(|_| !build.base.is_disk);
        let medium = medium.map(|base| base.path.clone());
        let (cd, floppy) = media::make(request, output.work())?;
        let made_media: Vec<PathBuf> = [&cd, &floppy].into_iter().flatten().cloned().collect();
        let account = match (&origin, &build.communicator) {
            (Some(origin), Some(ssh)) => accounts::look_for(&ssh.username, origin),
            _ => Account::Unknown,
        };
        let kernel = kernel_arguments(request, texts)?;
        let boot = choose_firmware(request, &output)?;
        let mut copies = BTreeMap::new();
        for path in wish.firmware {
            // Where Packer has its copy of the variables: that is the machine's own, under the name it has there.
            if let Some(Boot::Flash(flash)) = &boot
                && at(&path) == directory.join(firmware_choice::VARIABLES)
            {
                copies.insert(path, flash.variables.clone());
                continue;
            }
            let name = path.file_name().unwrap_or(path.as_os_str());
            let copy = output.artifact().join(name);
            firmware::copy_variables(&at(&path), &copy)?;
            copies.insert(path, copy);
        }
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
        let made = base.as_ref().map(|base| Made {
            base,
            qemu_args: &qemu_args,
            boot: boot.as_ref(),
            media: &made_media,
        });
        let steps = Steps::open(request, reporter, made.as_ref(), &choice.accelerator, &qemu)?;
        let mut this = Self {
            request,
            reporter,
            texts,
            access: Access::default(),
            registered: Registered::enter(Run {
                run: format!("{}/{}", host.run, build.name),
                purpose: Purpose::Build,
                of: request.template.path.clone(),
                process: 0,
                born: None,
                started: host.time,
                qemu: None,
                console: run_directory.join("console.log"),
                entrance: None,
                left: None,
                directory: run_directory.clone(),
            })?,
            steps,
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
            sizes: Vec::new(),
            qemu_args,
            boot_command: Vec::new(),
            serving,
            password: None,
            kernel,
            network_boot: build.boot.network.as_ref().map(|network| NetworkBoot {
                directory: at(&network.directory),
                file: network.file.clone(),
            }),
            medium,
            cd,
            floppy,
            boot,
            copies,
            account,
            tries: 0,
            port,
            output,
            _base: base,
        };
        if matches!(
            request.options.on_error,
            OnError::Abort | OnError::RunCleanupProvisioner
        ) {
            this.keep_files();
        }
        if this.goes_on()
            && let Err(error) = this.take_up()
        {
            this.begin_anew(&error)?;
        }
        if !this.goes_on() {
            this.access = Access::prepare(build, account, &this.run_directory)?;
            this.make_disks()?;
        }
        let password = build
            .communicator
            .as_ref()
            .and_then(|ssh| ssh.password.as_deref());
        this.password = password
            .map(|password| PasswordFile::write(&this.run_directory, password))
            .transpose()?;
        this.announce_access();
        this.boot_command = boot_command::prepare(request, texts)?;
        Ok(this)
    }

    /// Says of the way in what texts and the guest are to know.
    fn announce_access(&self) {
        if let (Some(serving), Some(files)) = (&self.serving, &self.access.served) {
            serving.give_seed(files.clone());
        }
        let public = self.access.key.as_ref().map(|key| key.public_line());
        self.texts.field("SSHPublicKey", public.unwrap_or_default());
    }

    /// Makes the machine's disks, as they are before it was ever started; or as they are in the state it goes on from.
    pub(super) fn make_disks(&mut self) -> Result<()> {
        let build = self.request.build;
        let kept = self.steps.as_ref().and_then(Steps::origins);
        let size = match kept.as_ref().and_then(|kept| kept.first()) {
            Some(kept) => disk::make(&self.disk, Some(kept), None)?,
            None => disk::make(&self.disk, self.origin.as_ref(), build.disk.size)?,
        };
        self.sizes = vec![size];
        let of = if kept.is_some() {
            "an overlay of a state that was kept"
        } else if self.origin.is_some() {
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
            let below = kept.as_ref().and_then(|kept| kept.get(index + 1));
            let size = disk::make(&path, below, below.is_none().then_some(*size))?;
            self.sizes.push(size);
            self.additional.push(Drive {
                path,
                format: "qcow2".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the machine goes on from a state.
    pub(super) fn goes_on(&self) -> bool {
        self.steps
            .as_ref()
            .is_some_and(|steps| steps.done().is_some())
    }

    /// Makes everything as it is in the state that the machine goes on from.
    fn take_up(&mut self) -> Result<()> {
        let Some(steps) = &self.steps else {
            return Ok(());
        };
        steps.put_back(&self.output)?;
        if let Some(access) = steps.access(&self.run_directory)? {
            self.access = access;
        }
        self.make_disks()
    }

    /// The state that the machine was to go on from is of no use: another one is taken, or none.
    pub(super) fn begin_anew(&mut self, error: &Error) -> Result<()> {
        let (request, reporter) = (self.request, self.reporter);
        // What the host has no room for says nothing of the state; another one would not fit either.
        let of_no_use = !has_no_room(error);
        let is = if of_no_use {
            "is of no use"
        } else {
            "cannot be taken now"
        };
        reporter.warn(&format!(
            "The state that was kept {is}: {}",
            super::provisioner::with_cause(error)
        ));
        self.tries += 1;
        if let Some(steps) = &self.steps {
            steps.give_up(of_no_use)?;
            // One before it may be sound; but what no state helps against is not tried again and again.
            if of_no_use && self.tries < MOST_TRIES {
                steps.look(reporter)?;
            }
        }
        for (original, copy) in &self.copies {
            let original = request.surroundings.directory.join(original);
            firmware::copy_variables(&original, copy)?;
        }
        self.boot = choose_firmware(request, &self.output)?;
        // The files of the one before go first.
        self.access = Access::default();
        if self.goes_on() {
            return match self.take_up() {
                Ok(()) => Ok(()),
                Err(error) => self.begin_anew(&error),
            };
        }
        self.access = Access::prepare(request.build, self.account, &self.run_directory)?;
        self.pin_files();
        self.make_disks()
    }

    /// All files that the machine writes as disks.
    pub(super) fn disks(&self) -> Vec<PathBuf> {
        let additional = self.additional.iter().map(|drive| drive.path.clone());
        std::iter::once(self.disk.clone())
            .chain(additional)
            .collect()
    }

    /// After the machine's end: its disks are those that it has written last.
    pub(super) fn settle(&mut self) {
        let Some(steps) = &self.steps else {
            return;
        };
        let mut disks = steps.disks(self.reporter).into_iter();
        if let Some(main) = disks.next() {
            self.disk = main;
        }
        for (drive, path) in self.additional.iter_mut().zip(disks) {
            drive.path = path;
        }
    }

    /// The machine is first started with a kernel, which installs what it is started with from then on.
    pub(super) fn installs_by_kernel(&self) -> bool {
        !self.kernel.is_empty() && self.origin.is_none()
    }

    /// The command line of a QEMU that `accelerator` runs, with `parts`.
    pub(super) fn command_line(
        &self,
        accelerator: &Accelerator,
        tpm: Option<&Path>,
        parts: &Parts,
    ) -> Result<CommandLine> {
        let (build, host) = (self.request.build, self.request.surroundings);
        let cds: Vec<PathBuf> = parts.medium.iter().chain(&parts.cd).cloned().collect();
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
            qemu_args: &parts.qemu_args,
            main: Drive {
                path: parts.main.clone(),
                format: "qcow2".to_owned(),
            },
            main_by_template: &main_by_template,
            directory: &host.directory,
            additional: &parts.additional,
            boots_from_disk: parts.boots_from_disk,
            cds: &cds,
            floppy: parts.floppy.as_deref(),
            network_boot: parts.network_boot.as_ref(),
            seed: parts.seed.as_deref(),
            forward,
            accelerator,
            boot: parts.boot.as_ref(),
            tpm,
            has_display: host.has_display,
            copies: &parts.copies,
        })
    }

    /// Where the state of the machine's TPM is.
    pub(super) fn tpm_directory(&self) -> PathBuf {
        self.run_directory.join("tpm")
    }

    /// Leaves all files where they are if the build fails.
    pub(super) fn keep_files(&self) {
        self.output.keep();
        let place = self.output.work();
        self.reporter.note(&format!(
            "If the build fails, its files stay in {}",
            place.display()
        ));
        self.pin_files();
    }

    /// The host's port that leads to the guest's SSH, as far as it is known before QEMU runs; else 0.
    pub(super) fn template_port(&self) -> u16 {
        self.port
    }
}

/// Whether the host refused to write for a reason that has nothing to do with what was to be written.
fn has_no_room(error: &Error) -> bool {
    use std::io::ErrorKind::{
        FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| {
        matches!(
            source.kind(),
            StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem | PermissionDenied
        )
    })
}

/// On a bridge of the host nothing tells which address is the guest's.
fn refuse_bridge_without_host(request: &BuildRequest<'_>) -> Result<()> {
    let build = request.build;
    let no_host = build
        .communicator
        .as_ref()
        .is_some_and(|ssh| ssh.host.is_none());
    if build.machine.net_bridge.is_some() && no_host {
        return Err(
            Error::usage("on a bridge (net_bridge) the guest's address is not known")
                .with_remedy("name it: ssh_host, or host in [ssh]")
                .at_path(&request.template.path),
        );
    }
    if build.machine.net_bridge.is_some() && build.boot.network.is_some() {
        return Err(Error::usage(
            "on a bridge (net-bridge) nothing serves the files of tftp to the guest",
        )
        .with_remedy("leave out net-bridge, or tftp and have a server of that network serve them")
        .at_path(&request.template.path));
    }
    Ok(())
}

/// Arguments for the kernel that QEMU is to start by itself.
pub(super) fn kernel_arguments(request: &BuildRequest<'_>, texts: &Texts) -> Result<QemuArgs> {
    let Some(kernel) = &request.build.boot.kernel else {
        return Ok(Vec::new());
    };
    let path = |path: &Path| -> Result<Vec<String>> {
        let path = request.surroundings.directory.join(path);
        let text = path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::unsupported("a name that is no Unicode cannot be given to QEMU").at_path(&path)
        })?;
        Ok(vec![text])
    };
    let mut arguments = vec![("-kernel".to_owned(), path(&kernel.kernel)?)];
    if let Some(initrd) = &kernel.initrd {
        arguments.push(("-initrd".to_owned(), path(initrd)?));
    }
    let append = texts.render(&kernel.append, &[])?;
    if !append.is_empty() {
        arguments.push(("-append".to_owned(), vec![append]));
    }
    if !request.build.base.is_disk {
        // When it restarts the machine it has installed what is started from then on.
        arguments.push(("-no-reboot".to_owned(), Vec::new()));
    }
    Ok(arguments)
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
    let from = match (&fetched.entry, fetched.cached) {
        (None, _) => "read where it is",
        (Some(_), true) => "from the cache",
        (Some(_), false) => "new",
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

/// Whether a dialect's own defaults hold where the template says nothing.
pub(super) fn is_native(request: &BuildRequest<'_>) -> bool {
    request.template.dialect == Dialect::Native
}

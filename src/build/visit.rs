//! Visits: a machine that is started for somebody to look around in, and stays until they go.
//!
//! Knows how an image that nothing else is known of gets a machine, a seed and a key; and how a machine that a failed
//! build left is started once more. Must not know who looks around.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::access::Access;
use super::accounts;
use super::disk::{self, Origin};
use super::failure::of_death;
use super::guest::while_watched;
use super::layers::lost;
use super::leave::{cannot_be_entered, gone};
use super::prepared::path_of;
use super::register::{Entrance, Left, LeftTpm, Purpose, Registered, Run};
use super::request::Surroundings;
use super::runs::{KNOWN_HOSTS, LOCK, RunDirectory};
use crate::communicator::ssh::{Limits, Options, Ssh};
use crate::communicator::{Communicator as _, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Depth, Format, Image, OpenOptions};
use crate::machine::command_line::{Boot, Drive, Forward, Spec};
use crate::machine::tpm::TpmProcess;
use crate::machine::{
    Ladder, Launcher, Running, Start, accelerator, command_line, firmware, launcher,
};
use crate::store::{
    Hold, Share, make_directory, make_private_directory, read_file, remove_file, write_file,
};
use crate::template::model::{
    Disk, DiskFormat, Firmware, Machine, Seed, Ssh as SshModel, Transfer,
};

/// For the guest to answer, where it runs on the host's processor.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How much longer things take where it is emulated.
const PATIENCE: u32 = 4;
/// Between two looks at a machine.
const LOOK: Duration = Duration::from_millis(100);
/// For a guest whose disk is kept to shut itself down.
const SHUTTING_DOWN: Duration = Duration::from_secs(60);
/// Longest password, in bytes.
const LONGEST_PASSWORD: u64 = 64 << 10;
/// The guest's port of SSH.
const SSH_PORT: u16 = 22;

/// What is wanted of a visit.
#[derive(Clone)]
pub struct Visit<'a> {
    /// The image; absolute.
    pub image: &'a Path,
    /// How it is opened, and which files it may name.
    pub open: OpenOptions,
    /// The guest writes to the image itself; else to an overlay that goes with the visit.
    pub write: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors, at least 1.
    pub cpus: u32,
    /// The firmware.
    pub firmware: Firmware,
    /// `kvm`, `tcg`; `None`: the best that works.
    pub accelerator: Option<&'a str>,
    /// `qemu-system-x86_64`, or a path.
    pub qemu: &'a str,
    /// Bus of the disk: `virtio`, `ide`, ...
    pub interface: &'a str,
    /// Who logs in.
    pub user: &'a str,
    /// The text of user-data.
    pub user_data: Option<Vec<u8>>,
    /// Public keys that let in besides qimg's own, one line each.
    pub keys: Vec<String>,
    /// For the guest to answer; `None`: five minutes, and more where it is emulated.
    pub wait: Option<Duration>,
    /// The host.
    pub surroundings: &'a Surroundings,
    /// Whether to stop.
    pub stop: Arc<Stop>,
}

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Told {
    /// Something to be said.
    Note(String),
    /// The machine runs; its guest is waited for.
    Started(Run),
    /// What is seen of the guest's SSH.
    Waiting(String),
    /// The guest lets in.
    Ready(Run),
    /// It does not, and the machine stays all the same: why.
    Closed(Run, Error),
}

/// Starts a machine for `visit` and stays until somebody wants it to stop, or the guest ends.
///
/// # Errors
/// The image cannot be opened, or names files that it may not; the host has no QEMU or firmware; QEMU does not start, or
/// the machine is lost.
pub fn visit(visit: &Visit<'_>, tell: &mut (dyn FnMut(Told) + Send)) -> Result<()> {
    let host = visit.surroundings;
    let image = Image::open(visit.image, &visit.open)?;
    // Only to see that all is there that the image names, and that it may.
    image.chain(Depth::Chain, None)?;
    let origin = Origin {
        path: visit.image.to_owned(),
        format: image.format(),
        virtual_size: image.virtual_size()?,
    };
    drop(image);
    let qemu = launcher::find_program(
        Path::new(visit.qemu),
        path_of(&host.host.environment),
        format!("install {} (Debian: qemu-system-x86)", visit.qemu),
    )?;
    let choice = accelerator::choose(
        visit.accelerator,
        None,
        &qemu,
        &host.launcher,
        &host.kvm,
        &*visit.stop,
    )?;
    tell(Told::Note(format!(
        "Accelerator: {} ({})",
        choice.accelerator, choice.why
    )));
    let place = Place::make(host, "machine", &*visit.stop)?;
    let main = if visit.write {
        Drive {
            path: origin.path.clone(),
            format: origin.format.to_string(),
        }
    } else {
        let path = place.path.join("disk.qcow2");
        disk::make(&path, Some(&origin), None)?;
        Drive {
            path,
            format: Format::Qcow2.to_string(),
        }
    };
    let ssh = ssh_of(visit.user);
    let account = accounts::look_for(visit.user, &origin);
    let seed = Seed {
        user_data: visit.user_data.clone(),
        ..Seed::default()
    };
    let access = Access::with_keys(&ssh, &seed, &visit.keys, account, &place.path)?;
    let boot = boot_of(visit, &place.path)?;
    let line = command_line(&Spec {
        network_boot: None,
        name: "qimg-run",
        machine: &machine_of(visit),
        disk: &disk_of(visit.interface),
        qemu_args: &[],
        main_by_template: &main.path.clone(),
        main,
        directory: &host.directory,
        additional: &[],
        boots_from_disk: true,
        cds: &[],
        floppy: None,
        seed: access.seed.as_deref(),
        forward: Some(Forward {
            host: 0,
            guest: SSH_PORT,
        }),
        accelerator: &choice.accelerator,
        boot: boot.as_ref(),
        tpm: None,
        has_display: false,
        copies: &BTreeMap::new(),
    })?;
    for warning in line.warnings.iter().cloned() {
        tell(Told::Note(warning));
    }
    let registered = Registered::enter(Run {
        run: format!("{}/machine", host.run),
        purpose: Purpose::Visit,
        of: visit.image.to_owned(),
        process: 0,
        born: None,
        started: host.time,
        qemu: None,
        console: place.path.join("console.log"),
        entrance: None,
        left: None,
        directory: place.path.clone(),
    })?;
    let mut guest = Guest::start(
        &Begin {
            launcher: &host.launcher,
            qemu: &qemu,
            arguments: line.all().cloned().collect(),
            directory: &place.path,
            port: Some(SSH_PORT),
            emulated: !choice.accelerator.is_hardware(),
            agent: None,
        },
        &registered,
        &ssh,
        &access,
        &visit.stop,
    )?;
    tell(Told::Started(registered.run()));
    guest.wait(visit.wait, &visit.stop, &registered, tell)?;
    guest.stay(visit.write, &visit.stop)
}

/// Starts the machine that a failed build left once more, on the disk it had; `inside` is called when it lets in, and the
/// guest is shut down after that. What was changed is there the next time.
///
/// # Errors
/// Nothing is left of it, or what it rests on is gone, or somebody else has it; it is not entered by SSH; QEMU does not
/// start; the guest does not answer; what `inside` says.
pub fn revisit(
    run: &Run,
    surroundings: &Surroundings,
    stop: &Arc<Stop>,
    tell: &mut (dyn FnMut(Told) + Send),
    inside: &mut dyn FnMut(&Run) -> Result<()>,
) -> Result<()> {
    let left = run.left.as_ref().ok_or_else(|| gone(run))?;
    let entrance = run
        .entrance
        .as_ref()
        .ok_or_else(|| cannot_be_entered(run))?;
    // Nobody sweeps it meanwhile.
    let _hold = match run.directory.parent() {
        Some(whole) => Some(Hold::wait(
            whole.join(LOCK),
            Share::Shared,
            &**stop,
            &mut |_| {},
        )?),
        None => None,
    };
    if let Some(error) = lost(run) {
        return Err(error);
    }
    let registered = Registered::enter(run.clone())?;
    let directory = run.directory.join("again");
    make_private_directory(&directory)?;
    registered.change(|run| run.console = directory.join("console.log"));
    let ssh = ssh_to(entrance, surroundings.agent.is_some())?;
    // Ends after the machine that it is a part of.
    let _tpm = start_tpm(left, &surroundings.launcher, stop)?;
    let mut guest = Guest::start(
        &Begin {
            launcher: &surroundings.launcher,
            qemu: &left.qemu,
            arguments: left.arguments.clone(),
            directory: &directory,
            port: left.port,
            emulated: left.emulated,
            agent: surroundings.agent.as_deref(),
        },
        &registered,
        &ssh,
        &Access::default(),
        stop,
    )?;
    tell(Told::Started(registered.run()));
    let mut closed = None;
    guest.wait(None, stop, &registered, &mut |told| match told {
        Told::Closed(_, error) => closed = Some(error),
        other => tell(other),
    })?;
    if let Some(error) = closed {
        return Err(does_not_let_in(run, error));
    }
    let result = inside(&registered.run());
    guest.shut_down()?;
    registered.change(|again| {
        again.qemu = None;
        again.console.clone_from(&run.console);
    });
    result
}

/// How one gets in by `entrance`.
fn ssh_to(entrance: &Entrance, has_agent: bool) -> Result<SshModel> {
    let mut ssh = ssh_of(&entrance.user);
    ssh.private_key.clone_from(&entrance.key);
    ssh.password = match &entrance.password {
        Some(file) => {
            let text = read_file(file, LONGEST_PASSWORD)?;
            let text = String::from_utf8(text)
                .map_err(|_| Error::usage("is no password").at_path(file))?;
            Some(text)
        }
        None => None,
    };
    ssh.agent = has_agent && ssh.private_key.is_none() && ssh.password.is_none();
    Ok(ssh)
}

fn start_tpm(left: &Left, launcher: &Launcher, stop: &Arc<Stop>) -> Result<Option<TpmProcess>> {
    let Some(LeftTpm {
        program,
        directory,
        version_1,
    }) = &left.tpm
    else {
        return Ok(None);
    };
    make_directory(directory)?;
    TpmProcess::start(launcher, program, directory, *version_1, &**stop).map(Some)
}

/// A machine that was kept, and was started in vain.
fn does_not_let_in(run: &Run, error: Error) -> Error {
    Error::new(error.kind(), format!("{} does not let in", run.run))
        .with_remedy(format!(
            "{} has what it said; {}",
            run.console.display(),
            super::leave::by_hand(run)
        ))
        .with_source(error)
}

/// The directory of a visit. What was made in it goes with it; the console's log stays.
struct Place {
    path: PathBuf,
    _run: RunDirectory,
}

impl Place {
    fn make(host: &Surroundings, name: &str, stop: &Stop) -> Result<Self> {
        let run = RunDirectory::make(&host.runs, &host.run, name, stop)?;
        Ok(Self {
            path: host.runs.join(&host.run).join(name),
            _run: run,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // There is nobody to tell.
        for name in ["disk.qcow2", "efivars.fd", KNOWN_HOSTS] {
            let _ = remove_file(self.path.join(name));
        }
    }
}

/// How a guest is started.
struct Begin<'a> {
    launcher: &'a Launcher,
    qemu: &'a Path,
    arguments: Vec<String>,
    directory: &'a Path,
    /// The guest's port that one of the host leads to.
    port: Option<u16>,
    emulated: bool,
    /// The socket of the user's agent.
    agent: Option<&'a Path>,
}

/// A guest that somebody looks around in.
struct Guest {
    ssh: Ssh,
    /// Raised when the machine is lost.
    lost: Arc<AtomicBool>,
    running: Running,
    patience: u32,
}

impl Guest {
    fn start(
        begin: &Begin<'_>,
        registered: &Registered,
        template: &SshModel,
        access: &Access,
        stop: &Arc<Stop>,
    ) -> Result<Self> {
        let running = Running::start(
            &Start {
                launcher: begin.launcher,
                qemu: begin.qemu,
                arguments: begin.arguments.clone(),
                run_directory: begin.directory,
                vnc_password: None,
            },
            &**stop,
        )?;
        let known = registered.run().entrance;
        let (mut host, mut port) = ("127.0.0.1".to_owned(), 0);
        if let Some(known) = &known {
            host.clone_from(&known.host);
            port = known.port;
        }
        if let Some(guest) = begin.port {
            port = running.forwarded_port(guest)?.unwrap_or(port);
        }
        let mut options =
            Options::from_template(template, &host, port, begin.agent, access.key.as_ref())?;
        options
            .host_keys
            .extend(access.host_key.as_ref().map(|key| key.public_line()));
        let known_hosts = access
            .host_key
            .as_ref()
            .map(|key| known_hosts(begin.directory, &host, port, &key.public_line()))
            .transpose()?;
        let entrance = Entrance {
            host,
            port,
            user: template.username.clone(),
            key: access
                .key_file
                .clone()
                .or_else(|| template.private_key.clone()),
            password: known.and_then(|known| known.password),
            known_hosts,
        };
        let qemu = running.id();
        registered.change(|run| {
            run.entrance = Some(entrance);
            run.qemu = Some(qemu);
        });
        let lost = Arc::new(AtomicBool::new(false));
        let (asked, raised) = (Arc::clone(stop), Arc::clone(&lost));
        let ends: Arc<Stop> = Arc::new(move || asked() || raised.load(Ordering::Relaxed));
        let ssh = Ssh::new(options, ends, None)?;
        Ok(Self {
            ssh,
            lost,
            running,
            patience: if begin.emulated { PATIENCE } else { 1 },
        })
    }

    /// Waits until the guest lets in.
    fn wait(
        &mut self,
        limit: Option<Duration>,
        stop: &Arc<Stop>,
        registered: &Registered,
        tell: &mut (dyn FnMut(Told) + Send),
    ) -> Result<()> {
        let limits = Limits {
            timeout: Some(limit.unwrap_or(TIMEOUT * self.patience)),
            attempts: None,
        };
        let started = Instant::now();
        let result = while_watched(&self.running, &self.lost, || {
            self.ssh.wait(&limits, &**stop, &mut |seen| {
                tell(Told::Waiting(format!(
                    "{} ({:.1} s)",
                    seen.state,
                    started.elapsed().as_secs_f64()
                )));
            })
        });
        match (result, self.running.death()) {
            (Ok(_), _) => tell(Told::Ready(registered.run())),
            (Err(_), _) if stop() => return Err(Error::cancelled()),
            (Err(_), Some(death)) => return Err(of_death(&death, &self.running.report())),
            (Err(error), None) => tell(Told::Closed(registered.run(), error)),
        }
        Ok(())
    }

    /// Until somebody wants it to stop, or the guest ends by itself.
    fn stay(&mut self, keeps: bool, stop: &Arc<Stop>) -> Result<()> {
        loop {
            match self.running.wait(LOOK, &**stop) {
                Ok(None) => {}
                Ok(Some(crate::machine::running::Death::PoweredOff)) => return Ok(()),
                Ok(Some(death)) => return Err(of_death(&death, &self.running.report())),
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return if keeps { self.shut_down() } else { Ok(()) };
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn shut_down(&mut self) -> Result<()> {
        self.ssh.disconnect();
        let ladder = Ladder {
            command: None,
            power_button: Some(SHUTTING_DOWN * self.patience),
            quit: Some(SHUTTING_DOWN),
        };
        // Who stopped the visit wants the guest to end well all the same.
        self.running.shut_down(&ladder, &|| false).map(drop)
    }
}

/// A file by which OpenSSH knows the guest.
pub(super) fn known_hosts(directory: &Path, host: &str, port: u16, key: &str) -> Result<PathBuf> {
    let file = directory.join(KNOWN_HOSTS);
    let name = match port {
        SSH_PORT => host.to_owned(),
        port => format!("[{host}]:{port}"),
    };
    let mut words = key.split_whitespace();
    let (kind, base64) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    write_file(&file, format!("{name} {kind} {base64}\n").as_bytes())?;
    Ok(file)
}

fn boot_of(visit: &Visit<'_>, directory: &Path) -> Result<Option<Boot>> {
    let Firmware::Efi { secure, .. } = &visit.firmware else {
        return Ok(None);
    };
    let binary = Path::new(visit.qemu)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let wanted = firmware::Wanted {
        architecture: binary.strip_prefix("qemu-system-").unwrap_or("x86_64"),
        machine_type: None,
        secure: *secure,
    };
    let found = firmware::find(&wanted, &visit.surroundings.firmware)?;
    let copy = directory.join("efivars.fd");
    Ok(Some(Boot::Flash(found.with_copy(&copy)?)))
}

fn machine_of(visit: &Visit<'_>) -> Machine {
    Machine {
        qemu: visit.qemu.to_owned(),
        accelerator: None,
        machine_type: None,
        cpu_model: None,
        cpus: visit.cpus,
        topology: [None; 3],
        memory_mib: visit.memory_mib,
        net_device: "virtio-net".to_owned(),
        net_bridge: None,
        host_ports: None,
        skip_nat_mapping: false,
        headless: true,
        display: None,
        vga: None,
        vnc: None,
        cdrom_interface: None,
        firmware: visit.firmware.clone(),
        tpm: None,
        qmp_socket: None,
        qemu_args: Vec::new(),
    }
}

fn disk_of(interface: &str) -> Disk {
    Disk {
        size: None,
        format: DiskFormat::Qcow2,
        interface: interface.to_owned(),
        cache: "writeback".to_owned(),
        discard: "unmap".to_owned(),
        detect_zeroes: None,
        keep_backing_file: false,
    }
}

fn ssh_of(user: &str) -> SshModel {
    SshModel {
        host: None,
        port: SSH_PORT,
        username: user.to_owned(),
        password: None,
        private_key: None,
        certificate: None,
        agent: false,
        forward_agent: false,
        timeout: None,
        attempts: None,
        pty: false,
        keep_alive: None,
        transfer: Transfer::default(),
        bastion: None,
        pause_before_connecting: None,
        clear_authorized_keys: false,
        temporary_key: None,
        ciphers: Vec::new(),
        key_exchanges: Vec::new(),
    }
}

//! A machine made of an image: an overlay that goes again, a seed, and the ways into the guest.
//!
//! Knows how the machine is described and started. Must not know what is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::exoscale;
use super::origin::Origin;
use super::request::{Datasource, Evidence, TrialRequest};
use super::seed::{Access, Password, has_volume};
use crate::build::alongside::alongside;
use crate::build::disk;
use crate::build::runs::{DISK, SEED};
use crate::communicator::ssh::{Limits, Options, Ssh};
use crate::communicator::{Stop, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::accelerator::{self, Choice};
use crate::machine::command_line::{Boot, Drive, Forward, Spec};
use crate::machine::{Accelerator, Death, Running, Start, command_line, firmware, launcher};
use crate::store::{make_private_directory, remove_file, remove_tree};
use crate::template::model;

/// For the guest to answer, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How much longer things take where the guest is emulated.
const PATIENCE: u32 = 4;

/// What a machine is made of.
pub(super) struct Bench<'a> {
    pub(super) request: &'a TrialRequest<'a>,
    pub(super) origin: &'a Origin,
    pub(super) access: Access,
    pub(super) directory: PathBuf,
    pub(super) choice: Choice,
    /// Bytes of the main disk.
    pub(super) size: u64,
    qemu: PathBuf,
    boot: Option<Boot>,
    disk: PathBuf,
    additional: Vec<Drive>,
    seed: Option<PathBuf>,
    service: Option<exoscale::Service>,
}

/// A machine that runs.
pub(super) struct Machine {
    pub(super) running: Running,
    /// Raised when the machine is lost.
    lost: Arc<AtomicBool>,
    directory: PathBuf,
    pub(super) patience: u32,
}

impl<'a> Bench<'a> {
    /// Makes a disk, keys and a seed in `directory`, for `users` to log in, by `password` as well where there is one.
    pub(super) fn new(
        request: &'a TrialRequest<'a>,
        origin: &'a Origin,
        directory: &Path,
        users: Vec<String>,
        password: Option<&Password>,
        size: Option<u64>,
    ) -> Result<Self> {
        let made = Self::make(request, origin, directory.to_owned(), users, password, size);
        if made.is_err() {
            // There is nothing in it to look at, and nobody to tell.
            let _ = remove_tree(directory);
        }
        made
    }

    fn make(
        request: &'a TrialRequest<'a>,
        origin: &'a Origin,
        directory: PathBuf,
        users: Vec<String>,
        password: Option<&Password>,
        size: Option<u64>,
    ) -> Result<Self> {
        let (options, host) = (request.options, request.surroundings);
        make_private_directory(&directory)?;
        let path = { host.host.environment.iter() }
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value);
        let qemu = launcher::find_program(
            Path::new("qemu-system-x86_64"),
            path,
            "install qemu-system-x86_64 (Debian: qemu-system-x86)".to_owned(),
        )?;
        let choice = accelerator::choose(
            options.accelerator.as_deref(),
            None,
            &qemu,
            &host.launcher,
            &host.kvm,
            &*request.stop,
        )?;
        let boot = if options.uefi {
            let wanted = firmware::Wanted {
                architecture: "x86_64",
                machine_type: None,
                secure: false,
            };
            let found = firmware::find(&wanted, &host.firmware)?;
            Some(Boot::Flash(found.with_copy(&directory.join("efivars.fd"))?))
        } else {
            None
        };
        let disk = directory.join(DISK);
        remove_file(&disk)?;
        let size = disk::make(&disk, Some(&origin.disk), size)?;
        let mut additional = Vec::new();
        for (number, size) in options.disks.iter().enumerate() {
            let path = directory.join(format!("disk-{}.qcow2", number + 1));
            disk::make(&path, None, Some(*size))?;
            additional.push(Drive {
                path,
                format: "qcow2".to_owned(),
            });
        }
        let mut bench = Self {
            access: Access::new(users, &directory)?,
            request,
            origin,
            directory,
            choice,
            size,
            qemu,
            boot,
            disk,
            additional,
            seed: None,
            service: None,
        };
        bench.tell_guest("qimg-test-1", password)?;
        Ok(bench)
    }

    /// Makes the main disk as it was before any start.
    pub(super) fn renew_disk(&self) -> Result<()> {
        remove_file(&self.disk)?;
        disk::make(&self.disk, Some(&self.origin.disk), Some(self.size)).map(drop)
    }

    /// Makes what the guest is told anew, as the instance `instance`.
    pub(super) fn tell_guest(&mut self, instance: &str, password: Option<&Password>) -> Result<()> {
        let options = self.request.options;
        let parts = self.access.user_data(
            &self.origin.disk,
            password.filter(|_| has_volume(options.datasource)),
            options.user_data.as_deref(),
        )?;
        match options.datasource {
            Datasource::NoCloud => {
                let file = self.directory.join(SEED);
                self.access.volume(parts, instance, &file)?;
                self.seed = Some(file);
            }
            Datasource::Exoscale => {
                let told = exoscale::Told {
                    instance,
                    public_key: &self.access.key.public_line(),
                    user_data: &parts,
                    password: password.map(|password| password.0.as_str()),
                };
                self.service = Some(exoscale::Service::make(&self.directory, &told)?);
            }
        }
        Ok(())
    }

    fn machine(&self) -> model::Machine {
        let options = self.request.options;
        model::Machine {
            qemu: self.qemu.display().to_string(),
            accelerator: options.accelerator.clone(),
            machine_type: None,
            cpu_model: None,
            cpus: options.cpus.max(1),
            topology: [None; 3],
            memory_mib: options.memory_mib,
            net_device: "virtio-net".to_owned(),
            net_bridge: None,
            host_ports: None,
            skip_nat_mapping: false,
            headless: true,
            display: None,
            vga: None,
            vnc: None,
            cdrom_interface: None,
            firmware: model::Firmware::Default,
            tpm: None,
            qmp_socket: None,
            qemu_args: Vec::new(),
        }
    }

    fn arguments(&self, accelerator: &Accelerator) -> Result<Vec<String>> {
        let machine = self.machine();
        let disk = model::Disk {
            size: None,
            format: model::DiskFormat::Qcow2,
            interface: "virtio".to_owned(),
            cache: "writeback".to_owned(),
            discard: "unmap".to_owned(),
            detect_zeroes: None,
            keep_backing_file: false,
        };
        // Where the service is, the guest's network has to be.
        let qemu_args = match &self.service {
            Some(service) => vec![("-netdev".to_owned(), vec![service.network()?])],
            None => Vec::new(),
        };
        let line = command_line(&Spec {
            network_boot: None,
            name: "qimg-test",
            machine: &machine,
            disk: &disk,
            qemu_args: &qemu_args,
            main: Drive {
                path: self.disk.clone(),
                format: "qcow2".to_owned(),
            },
            main_by_template: &self.disk,
            directory: &self.directory,
            additional: &self.additional,
            boots_from_disk: true,
            cds: &[],
            floppy: None,
            seed: self.seed.as_deref(),
            forward: Some(Forward { host: 0, guest: 22 }),
            accelerator,
            boot: self.boot.as_ref(),
            tpm: None,
            has_display: false,
            copies: &BTreeMap::new(),
        })?;
        let mut arguments = line.arguments;
        for (number, model) in self.request.options.networks.iter().enumerate() {
            let id = number + 1;
            arguments.extend([
                "-netdev".to_owned(),
                format!("user,id=user.{id},net=10.0.{}.0/24", id + 2),
                "-device".to_owned(),
                format!("{model},netdev=user.{id}"),
            ]);
        }
        if self.service.is_some() {
            arguments.extend(exoscale::PRODUCT.map(str::to_owned));
        }
        arguments.extend(line.supervision);
        Ok(arguments)
    }

    /// Starts the machine; `more` are further arguments, `name` that of its directory for logs.
    ///
    /// # Errors
    /// QEMU does not start; cancelled.
    pub(super) fn start(
        &self,
        name: &str,
        accelerator: &Accelerator,
        more: &[String],
    ) -> Result<Machine> {
        let directory = self.directory.join(name);
        make_private_directory(&directory)?;
        let mut arguments = self.arguments(accelerator)?;
        arguments.extend(more.iter().cloned());
        let running = Running::start(
            &Start {
                launcher: &self.request.surroundings.launcher,
                qemu: &self.qemu,
                arguments,
                run_directory: &directory,
                vnc_password: None,
            },
            &*self.request.stop,
        )?;
        Ok(Machine {
            running,
            lost: Arc::default(),
            directory,
            patience: if accelerator.is_hardware() {
                1
            } else {
                PATIENCE
            },
        })
    }

    /// For the guest to answer.
    pub(super) fn patience(&self, machine: &Machine) -> Duration {
        self.request.options.ssh_timeout.unwrap_or(TIMEOUT) * machine.patience
    }

    /// A way into the guest as `user`: by the key, or by `password`.
    pub(super) fn way_in(
        &self,
        machine: &Machine,
        user: &str,
        password: Option<&Password>,
    ) -> Result<Ssh> {
        let port = machine.running.forwarded_port(22)?.unwrap_or(0);
        let mut options = Options::new("127.0.0.1", port, user);
        self.access.prove(&mut options, password);
        let (stop, lost) = (Arc::clone(&self.request.stop), Arc::clone(&machine.lost));
        let stop: Arc<Stop> = Arc::new(move || stop() || lost.load(Ordering::Relaxed));
        Ssh::new(options, stop, None)
    }

    /// Removes the disks and what lets in; logs and pictures stay.
    pub(super) fn clear(self) {
        for file in { self.additional.iter() }
            .map(|drive| &drive.path)
            .chain([&self.disk])
        {
            let _ = remove_file(file);
        }
        let _ = remove_file(self.directory.join("efivars.fd"));
        if let Some(service) = &self.service {
            let _ = remove_tree(service.directory());
        }
    }
}

impl Machine {
    /// Does `work`; what talks to the guest ends when the machine is lost.
    pub(super) fn watched<T>(&self, stop: &Stop, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let look = || {
            let dead = self.running.death().is_some();
            if dead {
                self.lost.store(true, Ordering::Relaxed);
            }
            dead
        };
        let result = alongside(look, work);
        match (result, self.running.death()) {
            (Err(_), _) if stop() => Err(Error::cancelled()),
            (Err(error), Some(death)) => Err(of_death(&death).with_source(error)),
            (result, _) => result,
        }
    }

    /// Waits until `ssh` lets us in, for `limit` at most.
    pub(super) fn wait(
        &self,
        ssh: &Ssh,
        limit: Duration,
        stop: &Stop,
        tell: &dyn Fn(&str),
    ) -> Result<Duration> {
        let limits = Limits {
            timeout: Some(limit),
            attempts: None,
        };
        let started = Instant::now();
        let mut seen = String::new();
        // Only the thread that waits tells, and it is this one.
        let told = std::sync::Mutex::new(&mut seen);
        let result = self.watched(stop, || {
            ssh.wait(&limits, stop, &mut |seen| {
                if let Ok(mut told) = told.lock() {
                    **told = seen.state.to_string();
                }
            })
        });
        match result {
            Ok(_) => Ok(self.running.age()),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                tell(&format!(
                    "no SSH after {:.0} s: {seen}",
                    started.elapsed().as_secs_f64()
                ));
                Err(explained(error))
            }
        }
    }

    /// What there is to look at.
    pub(super) fn evidence(&self) -> Evidence {
        let report = self.running.report();
        Evidence {
            console_log: Some(self.directory.join("console.log")),
            screenshot: report.screenshot,
            console: report.console,
        }
    }
}

/// The error of a machine that is lost.
fn of_death(death: &Death) -> Error {
    Error::new(ErrorKind::Connection, death.to_string())
        .with_remedy("look at the console's log; more memory may help")
}

/// An error of waiting with its most likely cause.
pub(super) fn explained(error: Error) -> Error {
    let cause = std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<wait::Report>())
        .map(wait::Report::cause);
    match cause {
        Some(cause) => Error::new(error.kind(), format!("{error}: {cause}")),
        None => error,
    }
}

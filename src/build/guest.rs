//! The second stage: the guest runs and has let us in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::alongside::alongside;
use super::boot_command;
use super::failure::{of_death, of_wait, tell_evidence, tell_wait};
use super::leave::Last;
use super::prepared::{Prepared, is_native, path_of};
use super::provisioner::{Connection, Facts, cloud_init};
use super::register::Entrance;
use super::steps::{Steps, into_the_present};
use super::visit::known_hosts;
use crate::communicator::Communicator as _;
use crate::communicator::ssh::{Limits, Notice, Options, Ssh};
use crate::communicator::{Stop, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::running::Death;
use crate::machine::tpm::TpmProcess;
use crate::machine::{Accelerator, Running, Start, launcher};
use crate::store::{make_directory, remove_file};

/// For the guest to answer, where the template does not say.
const TIMEOUT: Duration = Duration::from_secs(300);
/// For a guest to write what it has in memory.
const SYNCING: Duration = Duration::from_secs(60);
/// For a machine to end after its guest's last word.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// For a guest that goes on as it was to answer.
const GOING_ON: Duration = Duration::from_secs(30);
/// How much longer things take where the guest is emulated.
const PATIENCE: u32 = 4;

/// A guest that runs and lets us in.
pub(super) struct Connected<'a> {
    /// `None`: the template wants no way in.
    pub(super) ssh: Option<Ssh>,
    pub(super) facts: Facts,
    pub(super) running: Running,
    /// Raised when the machine is lost.
    lost: Arc<AtomicBool>,
    notices: Arc<Mutex<Vec<String>>>,
    pub(super) patience: u32,
    accelerator: Accelerator,
    /// What a kernel installed runs.
    again: bool,
    // Ends after the machine that it is a part of.
    _tpm: Option<TpmProcess>,
    pub(super) prepared: Prepared<'a>,
}

impl<'a> Connected<'a> {
    /// Starts the machine and waits for SSH, and for the guest's cloud-init.
    ///
    /// # Errors
    /// QEMU does not start; the machine is lost; nobody answers in time; cancelled.
    pub(super) fn boot(mut prepared: Prepared<'a>) -> Result<Self> {
        let (request, reporter) = (prepared.request, prepared.reporter);
        let asked = request.build.machine.accelerator.as_deref();
        let may_change = asked.and_then(Accelerator::named).is_none();
        let mut accelerator = prepared.choice.accelerator.clone();
        let mut again = false;
        loop {
            if let Some(steps) = &prepared.steps {
                steps.begin(prepared.disks(), &accelerator.to_string());
                steps.tell(reporter);
            }
            match try_once(&prepared, &accelerator, again) {
                Err(lost) if prepared.goes_on() && !(request.stop)() => {
                    prepared.begin_anew(&lost.error)?;
                }
                Err(Lost {
                    death: Some(Death::KvmInternalError),
                    ..
                }) if may_change && accelerator == Accelerator::Kvm => {
                    reporter.warn(
                        "KVM cannot run this guest: it is started once more, emulated by TCG",
                    );
                    accelerator = Accelerator::Tcg;
                    prepared.make_disks()?;
                }
                Err(Lost {
                    death: Some(Death::PoweredOff),
                    ..
                }) if prepared.installs_by_kernel() && !again => {
                    reporter.step("The installer is done: what it installed is started");
                    again = true;
                }
                Err(lost) => {
                    let last = Last {
                        accelerator: &accelerator,
                        again,
                        entered: false,
                    };
                    prepared.leave(&lost.error, &last);
                    return Err(lost.error);
                }
                Ok(answer) => {
                    return Ok(Self {
                        ssh: answer.ssh,
                        facts: answer.facts,
                        running: answer.running,
                        lost: answer.lost,
                        notices: answer.notices,
                        patience: answer.patience,
                        accelerator,
                        again,
                        _tpm: answer.tpm,
                        prepared,
                    });
                }
            }
        }
    }

    /// Does `work`; if it fails, the machine is ended, and kept where that is wanted.
    pub(super) fn or_left(mut self, work: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        match work(&self) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.leave(&error);
                Err(error)
            }
        }
    }

    /// Ends the machine of a build that failed with `error`, and keeps it where that is wanted.
    pub(super) fn leave(&mut self, error: &Error) {
        self.running.screenshot();
        let stays = self.prepared.request.options.keep || self.prepared.output.keeps();
        // What the guest has in memory only would be missing on the disk that is looked at; one that is lost is not asked.
        if stays
            && error.kind() != ErrorKind::Connection
            && let Some(ssh) = &self.ssh
        {
            let _ = ssh.run("sync", Some(SYNCING), &mut |_, _| {});
        }
        self.prepared.end(&mut self.running);
        let last = Last {
            accelerator: &self.accelerator,
            again: self.again,
            entered: self.ssh.is_some(),
        };
        self.prepared.leave(error, &last);
    }

    /// Runs `work` while the machine is watched: when it is lost, what talks to the guest ends, and the error says why.
    pub(super) fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = while_watched(&self.running, &self.lost, work);
        let request = self.prepared.request;
        // A connection that ends may be the first that is seen of a machine that does.
        if let Err(error) = &result
            && error.kind() == ErrorKind::Connection
        {
            self.running
                .wait(LAST_WORDS * self.patience, &*request.stop)?;
        }
        match (result, self.running.death()) {
            (Err(error), Some(death)) if !(request.stop)() => {
                let report = self.running.report();
                tell_evidence(self.prepared.reporter, &report);
                Err(of_death(&death, &report).with_source(error))
            }
            (result, _) => result,
        }
    }
}

/// Runs `work`; raises `lost` as soon as the machine is.
pub(super) fn while_watched<T>(
    running: &Running,
    lost: &AtomicBool,
    work: impl FnOnce() -> T,
) -> T {
    let look = || {
        let dead = running.death().is_some();
        if dead {
            lost.store(true, Ordering::Relaxed);
        }
        dead
    };
    alongside(look, work)
}

/// A guest that answered.
struct Answered {
    ssh: Option<Ssh>,
    facts: Facts,
    running: Running,
    lost: Arc<AtomicBool>,
    notices: Arc<Mutex<Vec<String>>>,
    patience: u32,
    tpm: Option<TpmProcess>,
}

/// A guest that did not.
struct Lost {
    death: Option<Death>,
    error: Error,
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self { death: None, error }
    }
}

fn try_once(
    prepared: &Prepared<'_>,
    accelerator: &Accelerator,
    again: bool,
) -> Result<Answered, Lost> {
    let (request, reporter) = (prepared.request, prepared.reporter);
    let build = request.build;
    let patience = if accelerator.is_hardware() {
        1
    } else {
        PATIENCE
    };
    let tpm = start_tpm(prepared)?;
    let socket = tpm.as_ref().map(TpmProcess::socket);
    let line = prepared.command_line(accelerator, socket, &prepared.parts(again))?;
    for warning in &line.warnings {
        reporter.warn(warning);
    }
    if !line.has_main {
        let error = Error::usage(
            "the machine would run without its main disk: -drive in qemuargs replaces it",
        )
        .with_remedy("add a -drive for it, or leave -drive out of qemuargs")
        .at_path(&request.template.path);
        return Err(error.into());
    }
    reporter.step("Starting the machine");
    let vnc = build.machine.vnc.as_ref();
    let memory = match &prepared.steps {
        Some(steps) => steps.memory(&prepared.run_directory)?,
        None => None,
    };
    let running = Running::start_from(
        &Start {
            launcher: &request.surroundings.launcher,
            qemu: &prepared.qemu,
            arguments: line.all().cloned().collect(),
            run_directory: &prepared.run_directory,
            vnc_password: vnc.and_then(|vnc| vnc.password.as_deref()),
        },
        memory.as_deref(),
        &*request.stop,
    );
    if let Some(memory) = &memory {
        remove_file(memory)?;
    }
    let mut running = running?;
    let lost = Arc::new(AtomicBool::new(false));
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut facts = Facts {
        name: build.name.clone(),
        kind: build.kind.clone(),
        http: prepared.serving.as_ref().map(|serving| serving.as_seen()),
        connection: None,
    };
    // A guest that goes on is past what is typed while it starts.
    if !again && !prepared.goes_on() {
        let typed = while_watched(&running, &lost, || {
            boot_command::type_in(prepared, &running, patience)
        });
        if let Err(error) = typed {
            let lost = lost_by(prepared, &running, error);
            prepared.end(&mut running);
            return Err(lost);
        }
    }
    let Some(template) = &build.communicator else {
        return Ok(Answered {
            ssh: None,
            facts,
            running,
            lost,
            notices,
            patience,
            tpm,
        });
    };
    let host = template
        .host
        .clone()
        .unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = match (&template.host, prepared.template_port()) {
        (Some(_), _) => template.port,
        // Without a forwarded port of ours, the template's own arguments lead to the guest.
        (None, wanted) => running.forwarded_port(template.port)?.unwrap_or(wanted),
    };
    let mut options = Options::from_template(
        template,
        &host,
        port,
        request.surroundings.agent.as_deref(),
        prepared.access.key.as_ref(),
    )?;
    options.patience = options.patience.saturating_mul(patience);
    options.host_keys.extend(
        prepared
            .access
            .host_key
            .as_ref()
            .map(|key| key.public_line()),
    );
    tell_build(prepared, &host, port);
    register(prepared, &running, &host, port)?;
    let (stop, raised) = (Arc::clone(&request.stop), Arc::clone(&lost));
    let stop: Arc<Stop> = Arc::new(move || stop() || raised.load(Ordering::Relaxed));
    let heard = Arc::clone(&notices);
    let hear = move |notice: &Notice| {
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(in_words(notice));
    };
    let ssh = Ssh::new(options, stop, Some(Arc::new(hear)))?;
    if let Err(lost) = wait_for_ssh(prepared, &ssh, &running, &lost, patience) {
        prepared.end(&mut running);
        return Err(lost);
    }
    facts.connection = Some(Connection {
        host,
        port,
        user: template.username.clone(),
        password: template.password.clone(),
        private_key: prepared
            .access
            .key_file
            .clone()
            .or_else(|| template.private_key.clone()),
        host_key: ssh.host_key().or_else(|| {
            prepared
                .access
                .host_key
                .as_ref()
                .map(|key| key.public_line())
        }),
    });
    Ok(Answered {
        ssh: Some(ssh),
        facts,
        running,
        lost,
        notices,
        patience,
        tpm,
    })
}

/// Enters how the guest is reached into the register.
fn register(prepared: &Prepared<'_>, running: &Running, host: &str, port: u16) -> Result<()> {
    let access = &prepared.access;
    let known_hosts = match &access.host_key {
        Some(key) => Some(known_hosts(
            &prepared.run_directory,
            host,
            port,
            &key.public_line(),
        )?),
        None => None,
    };
    let ssh = prepared.request.build.communicator.as_ref();
    let entrance = Entrance {
        host: host.to_owned(),
        port,
        user: ssh.map_or_else(String::new, |ssh| ssh.username.clone()),
        key: access
            .key_file
            .clone()
            .or_else(|| ssh.and_then(|ssh| ssh.private_key.clone())),
        password: prepared
            .password
            .as_ref()
            .map(|file| file.path().to_owned()),
        known_hosts,
    };
    let qemu = running.id();
    prepared.registered.change(|run| {
        run.qemu = Some(qemu);
        run.entrance = Some(entrance);
    });
    Ok(())
}

fn start_tpm(prepared: &Prepared<'_>) -> Result<Option<TpmProcess>> {
    let (request, reporter) = (prepared.request, prepared.reporter);
    let Some(tpm) = &request.build.machine.tpm else {
        return Ok(None);
    };
    let host = request.surroundings;
    let swtpm = swtpm(prepared)?;
    let directory = prepared.tpm_directory();
    make_directory(&directory)?;
    let stop = &*request.stop;
    let process = TpmProcess::start(&host.launcher, &swtpm, &directory, tpm.version_1, stop)?;
    reporter.note("A TPM in software is a part of the machine");
    Ok(Some(process))
}

/// The host's swtpm.
pub(super) fn swtpm(prepared: &Prepared<'_>) -> Result<PathBuf> {
    launcher::find_program(
        Path::new("swtpm"),
        path_of(&prepared.request.surroundings.host.environment),
        "install swtpm, or leave out vtpm (tpm in [machine])".to_owned(),
    )
}

/// What is said and known of a guest that did not do what it was to do.
fn lost_by(prepared: &Prepared<'_>, running: &Running, error: Error) -> Lost {
    let (request, reporter) = (prepared.request, prepared.reporter);
    if (request.stop)() {
        return Error::cancelled().into();
    }
    let report = running.report();
    let death = running.death();
    let installed = death == Some(Death::PoweredOff) && prepared.installs_by_kernel();
    if !installed {
        tell_evidence(reporter, &report);
    }
    if let Some(seen) =
        std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<wait::Report>())
        && !installed
    {
        tell_wait(reporter, seen, &report);
    }
    match death {
        Some(death) => Lost {
            error: of_death(&death, &report),
            death: Some(death),
        },
        None => of_wait(error, &report.signs).into(),
    }
}

/// What ``{{ build `NAME` }}`` stands for from now on.
fn tell_build(prepared: &Prepared<'_>, host: &str, port: u16) {
    let (texts, request) = (prepared.texts, prepared.request);
    texts.field("SSHHostPort", port.to_string());
    for (name, value) in [
        ("ID", "VM".to_owned()),
        ("Host", host.to_owned()),
        ("Port", port.to_string()),
        ("ConnType", "ssh".to_owned()),
        ("PackerRunUUID", request.surroundings.run_uuid.clone()),
    ] {
        texts.of_build(name, value);
    }
    if let Some(ssh) = &request.build.communicator {
        texts.of_build("User", ssh.username.clone());
        texts.of_build("Password", ssh.password.clone().unwrap_or_default());
    }
    if let Some(key) = &prepared.access.key {
        texts.of_build("SSHPublicKey", key.public_line());
        if let Ok(private) = key.private_text() {
            texts.of_build("SSHPrivateKey", private);
        }
    }
    if let Some(file) = &prepared.access.key_file {
        texts.of_build("SSHPrivateKeyFile", file.display().to_string());
    }
}

fn wait_for_ssh(
    prepared: &Prepared<'_>,
    ssh: &Ssh,
    running: &Running,
    lost: &AtomicBool,
    patience: u32,
) -> Result<(), Lost> {
    let (request, reporter) = (prepared.request, prepared.reporter);
    let Some(template) = &request.build.communicator else {
        return Ok(());
    };
    let limits = Limits {
        timeout: Some(template.timeout.unwrap_or(TIMEOUT * patience)),
        attempts: template.attempts,
    };
    let limits = match prepared.steps.as_ref().is_some_and(Steps::keeps_memory) {
        // It need not boot; if it does not answer, there is another way.
        true => Limits {
            timeout: Some(limits.timeout.unwrap_or(GOING_ON).min(GOING_ON) * patience),
            ..limits
        },
        false => limits,
    };
    reporter.step(&match limits.timeout {
        Some(timeout) => format!("Waiting for SSH, for {} s at most", timeout.as_secs()),
        None => "Waiting for SSH".to_owned(),
    });
    let started = Instant::now();
    let result = while_watched(running, lost, || {
        ssh.wait(&limits, &*request.stop, &mut |seen| {
            reporter.waiting("SSH", &seen.state.to_string(), started.elapsed());
        })
    });
    let error = match result {
        Ok(report) => {
            reporter.step(&format!(
                "Connected by SSH after {:.1} s",
                report.took.as_secs_f64()
            ));
            return Ok(());
        }
        Err(error) => error,
    };
    Err(lost_by(prepared, running, error))
}

impl Connected<'_> {
    /// Tells what the way into the guest had to say since the last time.
    pub(super) fn tell_notices(&self) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in notices.drain(..) {
            self.prepared.reporter.note(&notice);
        }
    }

    /// Waits until the guest's cloud-init is done. Errors of it fail a native build, and are told in any other.
    ///
    /// # Errors
    /// It is not done in time, or it had errors.
    pub(super) fn wait_for_cloud_init(&self) -> Result<()> {
        let (request, reporter) = (self.prepared.request, self.prepared.reporter);
        if self
            .prepared
            .steps
            .as_ref()
            .is_some_and(Steps::keeps_memory)
        {
            // It was done before.
            let chance = format!("{}{}", request.surroundings.run_uuid, (request.numbers)());
            return match &self.ssh {
                Some(ssh) => into_the_present(ssh, &chance, reporter),
                None => Ok(()),
            };
        }
        let (Some(ssh), Some(template)) = (&self.ssh, &request.build.communicator) else {
            return Ok(());
        };
        let whole = template.timeout.unwrap_or(TIMEOUT * self.patience);
        let left = whole
            .saturating_sub(self.running.age())
            .max(Duration::from_secs(30) * self.patience);
        let done = cloud_init::wait(ssh, left, reporter, &*request.stop)?;
        for complaint in &done.complaints {
            reporter.note(&format!("cloud-init: {complaint}"));
        }
        if done.errors.is_empty() {
            return Ok(());
        }
        let words = done.errors.join("; ");
        if is_native(request) {
            return Err(Error::new(
                ErrorKind::Guest,
                format!("cloud-init in the guest had errors: {words}"),
            )
            .with_remedy(
                "mend the user-data; /var/log/cloud-init.log in the guest has the details",
            ));
        }
        reporter.warn(&format!("cloud-init in the guest had errors: {words}"));
        Ok(())
    }
}

/// What the way into the guest has to say, in words.
fn in_words(notice: &Notice) -> Option<String> {
    Some(match notice {
        Notice::HostKeyChanged { now, .. } => {
            format!("The guest shows another host key now: {now}")
        }
        Notice::TransferReplaced { missing, used, why } => {
            format!("The guest has no {missing} ({why}): files go by {used}")
        }
        Notice::Reconnected { why } => format!("Connected again; the connection was lost: {why}"),
    })
}

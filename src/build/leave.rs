//! What stays of a build that failed, for somebody to look at: everything its machine needs to be started once more.
//!
//! Knows which files those are, and how a person gets at the machine. Must not know why the build failed.
//!
//! The machine is started from its disk, never by the installer that the build may have been in: that would write over
//! what is to be looked at. How the build itself started it is written down beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guest::swtpm;
use super::layers::below;
use super::prepared::Prepared;
use super::register::{Entrance, Left, LeftTpm, RECORD, Run};
use super::steps::Steps;
use crate::communicator::quote::{path, word};
use crate::error::{Error, Result};
use crate::fetch::cache::pins::Pins;
use crate::machine::tpm::TpmProcess;
use crate::machine::{Accelerator, Ladder, Running};
use crate::store::{remove_file, write_secret};

/// Names in the directory of a run. A key of that name is not swept: what it opens was kept on purpose.
const KEY: &str = "kept-key";
const PASSWORD: &str = "kept-password";
const SEED: &str = "kept-seed.img";
/// Starts the machine that was kept.
const COMMAND: &str = "qemu-command";
/// What the build ran.
const BUILT_BY: &str = "qemu-command-of-build";

/// For QEMU to write out its disks and end.
const QUITTING: Duration = Duration::from_secs(30);

/// How the machine was started last.
pub(super) struct Last<'a> {
    pub(super) accelerator: &'a Accelerator,
    /// What a kernel installed ran.
    pub(super) again: bool,
    /// It was entered by SSH.
    pub(super) entered: bool,
}

impl Prepared<'_> {
    /// Ends QEMU. Where its machine is kept it first writes out what it has of its disks in memory: killed, it would lose
    /// what the guest wrote last.
    pub(super) fn end(&self, running: &mut Running) {
        if self.request.options.keep {
            let ladder = Ladder {
                command: None,
                power_button: None,
                quit: Some(QUITTING),
            };
            // Whoever wants the build to stop wants no machine.
            let _ = running.shut_down(&ladder, &*self.request.stop);
        }
        running.kill();
    }

    /// Keeps the machine of a build that failed with `error`, if that is wanted; QEMU has ended. What cannot be kept is
    /// told.
    pub(super) fn leave(&mut self, error: &Error, last: &Last<'_>) {
        let cancelled = error.kind() == crate::ErrorKind::Cancelled;
        if !self.request.options.keep || cancelled {
            return;
        }
        self.settle();
        match self.left(error, last) {
            Ok(()) => {
                let run = self.registered.run();
                self.reporter.step(&in_words(&run, last.entered));
            }
            Err(error) => self.reporter.warn(&format!(
                "The machine cannot be kept: {}",
                super::provisioner::with_cause(&error)
            )),
        }
    }

    fn left(&self, error: &Error, last: &Last<'_>) -> Result<()> {
        let accelerator = last.accelerator;
        let tpm = match &self.request.build.machine.tpm {
            Some(tpm) => Some(LeftTpm {
                program: swtpm(self)?,
                directory: self.tpm_directory(),
                version_1: tpm.version_1,
            }),
            None => None,
        };
        let socket = tpm
            .as_ref()
            .map(|tpm| TpmProcess::socket_in(&tpm.directory));
        let to = &self.run_directory;
        let built = self.command_line(accelerator, socket.as_deref(), &self.parts(last.again))?;
        let (mut parts, all) = self.parts_afterwards().kept(to);
        let served = self.access.served_volume.as_ref();
        if let Some(bytes) = served.filter(|_| parts.seed.is_none()) {
            let kept = to.join(SEED);
            write_secret(&kept, bytes)?;
            parts.seed = Some(kept);
        }
        let line = self.command_line(accelerator, socket.as_deref(), &parts)?;
        if !line.has_main {
            return Err(Error::usage("it has no main disk"));
        }
        let layers = below(&self.disks(), self.output.work())?;
        let paths: Vec<PathBuf> = layers.iter().map(|layer| layer.path.clone()).collect();
        let run = self.registered.run().run;
        self.pin(
            &to.join(RECORD),
            &format!("the machine {run}, which was kept (`qimg forget {run}` removes it)"),
            &paths,
        )?;
        for keeping in &all {
            keeping.keep()?;
        }
        let built: Vec<&String> = built.all().collect();
        write_anew(&to.join(BUILT_BY), &(words(&self.qemu, built) + "\n"))?;
        let starts = shell(&self.qemu, &line.arguments, tpm.as_ref());
        write_anew(&to.join(COMMAND), &starts)?;
        let entrance = self.way_in()?;
        let ssh = self.request.build.communicator.as_ref();
        let left = Left {
            why: self.reporter.masked(&error.to_string()),
            qemu: self.qemu.clone(),
            arguments: line.all().cloned().collect(),
            port: ssh.filter(|ssh| ssh.host.is_none()).map(|ssh| ssh.port),
            emulated: !accelerator.is_hardware(),
            tpm,
            disks: parts.disks(),
            layers,
        };
        self.registered.change(|run| {
            run.qemu = None;
            run.entrance = entrance;
            run.left = Some(left);
        });
        Ok(())
    }

    /// Keeps what is below the machine's disks in the cache for as long as its files stay, where they stay.
    pub(super) fn pin_files(&self) {
        if !self.output.keeps() {
            return;
        }
        let work = self.output.work();
        let mut paths: Vec<PathBuf> = self.steps.iter().flat_map(Steps::below).collect();
        paths.extend(self.origin.iter().map(|origin| origin.path.clone()));
        let who = format!("what a build that failed left in {}", work.display());
        if let Err(error) = self.pin(work, &who, &paths) {
            self.reporter.warn(&format!(
                "What its files rest on is not kept: {}",
                super::provisioner::with_cause(&error)
            ));
        }
    }

    fn pin(&self, holder: &Path, who: &str, paths: &[PathBuf]) -> Result<()> {
        let cache = &self.request.surroundings.fetch.cache;
        Pins::of(cache.directory()).pin(holder, who, paths)
    }

    /// How the machine that was kept is entered, where there is a way; what proves who enters is kept, too.
    fn way_in(&self) -> Result<Option<Entrance>> {
        let communicator = self.request.build.communicator.as_ref();
        // `qimg ssh` knows no way through another host.
        let Some(ssh) = communicator.filter(|ssh| ssh.bastion.is_none()) else {
            return Ok(None);
        };
        let to = &self.run_directory;
        let key = match &self.access.key {
            Some(key) => {
                let kept = to.join(KEY);
                key.write(&kept)?;
                Some(kept)
            }
            None => ssh.private_key.clone(),
        };
        let password = match &ssh.password {
            Some(password) => {
                let kept = to.join(PASSWORD);
                write_secret(&kept, password.as_bytes())?;
                Some(kept)
            }
            None => None,
        };
        let port = match &ssh.host {
            Some(_) => ssh.port,
            None => self.template_port(),
        };
        Ok(Some(Entrance {
            host: ssh.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
            port,
            user: ssh.username.clone(),
            key,
            password,
            known_hosts: None,
        }))
    }
}

/// Nothing of a machine was kept.
pub(super) fn gone(run: &Run) -> Error {
    Error::usage(format!(
        "nothing is left of {} that could be started",
        run.run
    ))
    .with_remedy("build with --keep: then the machine of a build that failed stays")
}

/// A machine was kept, but its template knows no way in.
pub(super) fn cannot_be_entered(run: &Run) -> Error {
    let message = format!(
        "{} is kept, but its template says of no way in by SSH",
        run.run
    );
    Error::usage(message).with_remedy(by_hand(run))
}

/// How a person starts a machine that was kept.
pub(super) fn by_hand(run: &Run) -> String {
    format!(
        "`sh {}` starts it in this terminal",
        path(&run.directory.join(COMMAND).to_string_lossy())
    )
}

fn in_words(run: &Run, entered: bool) -> String {
    let stays = format!("The machine stays in {}", run.directory.display());
    let name = &run.run;
    match (&run.entrance, entered) {
        (Some(_), true) => {
            format!("{stays}: `qimg ssh {name}` starts it again from its disk and enters it")
        }
        (Some(_), false) => format!(
            "{stays}; it was never entered by SSH: `qimg ssh {name}` starts it from its disk and tries once more, {}",
            by_hand(run)
        ),
        (None, _) => format!(
            "{stays}; there is no way in by SSH: {} from its disk",
            by_hand(run)
        ),
    }
}

/// What a shell starts the machine by, without qimg: its console and QEMU's monitor are on the terminal.
fn shell(qemu: &Path, arguments: &[String], tpm: Option<&LeftTpm>) -> String {
    let mut text = String::from(
        "# Ctrl-A X ends the machine, Ctrl-A C leads to QEMU's monitor: `info usernet` there tells its ports.\n",
    );
    if let Some(tpm) = tpm {
        let state = format!("dir={}", tpm.directory.display());
        let socket = TpmProcess::socket_in(&tpm.directory);
        let control = format!("type=unixio,path={}", socket.display());
        let mut arguments: Vec<String> = [
            "socket",
            "--tpmstate",
            &state,
            "--ctrl",
            &control,
            "--terminate",
            "--daemon",
        ]
        .map(str::to_owned)
        .to_vec();
        if !tpm.version_1 {
            arguments.push("--tpm2".to_owned());
        }
        text.push_str(&words(&tpm.program, &arguments));
        text.push_str(" &&\n");
    }
    let own = ["-serial".to_owned(), "mon:stdio".to_owned()];
    text.push_str(&words(qemu, arguments.iter().chain(&own)));
    text.push('\n');
    text
}

/// A command for a shell.
fn words<'a>(program: &Path, arguments: impl IntoIterator<Item = &'a String>) -> String {
    let program = program.display().to_string();
    let arguments = arguments.into_iter().map(|argument| word(argument));
    let all: Vec<String> = std::iter::once(word(&program)).chain(arguments).collect();
    all.join(" ")
}

/// A template's arguments may hold its secrets.
fn write_anew(path: &PathBuf, text: &str) -> Result<()> {
    remove_file(path)?;
    write_secret(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_shell_starts_what_was_kept() {
        let line = arguments(&["-name", "a b", "-drive", "file=/x,,y,if=virtio"]);
        let text = shell(Path::new("/usr/bin/qemu"), &line, None);
        let (comment, command) = text.split_once('\n').unwrap();
        assert!(comment.starts_with("# "));
        assert_eq!(
            command,
            "/usr/bin/qemu -name 'a b' -drive file=/x,,y,if=virtio -serial mon:stdio\n"
        );
        let tpm = LeftTpm {
            program: PathBuf::from("/usr/bin/swtpm"),
            directory: PathBuf::from("/runs/1/d/tpm"),
            version_1: false,
        };
        let text = shell(Path::new("/usr/bin/qemu"), &line, Some(&tpm));
        let swtpm = text.lines().nth(1).unwrap();
        assert_eq!(
            swtpm,
            "/usr/bin/swtpm socket --tpmstate dir=/runs/1/d/tpm --ctrl type=unixio,path=/runs/1/d/tpm/tpm.sock \
             --terminate --daemon --tpm2 &&"
        );
    }
}

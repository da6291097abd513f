//! The third and fourth stage: what the template wants of the guest is done, what the build brought is gone, and the guest
//! is shut down.

use std::time::Duration;

use super::failure::{of_death, tell_evidence};
use super::guest::Connected;
use super::late::RenderText;
use super::prepared::{Prepared, is_native};
use super::provisioner::{self, Context};
use super::request::OnError;
use super::seal::{self, MachineId, Own, SealReport, Step, StepState, Way};
use crate::communicator::{Communicator, Exit};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::{Death, Ended, Ladder, Rung};
use crate::template::model::Provisioner;

/// For what is removed from the guest.
const SEALING: Duration = Duration::from_secs(300);
/// For QEMU to write out its disks and end.
const QUITTING: Duration = Duration::from_secs(30);

/// What to do about a step that failed.
enum Then {
    Fail,
    Again,
}

impl<'a> Connected<'a> {
    /// Runs all provisioners.
    ///
    /// # Errors
    /// One failed, and nobody wants it to be tried again; the machine is lost; cancelled.
    pub(super) fn provision(&self) -> Result<()> {
        let build = self.prepared.request.build;
        for provisioner in &build.provisioners {
            self.pause_for_debug(&format!("Next: {}", provisioner.kind))?;
            loop {
                let result = self.watched(|| self.run(provisioner));
                self.tell_notices();
                let Err(error) = result else { break };
                match self.after_failure(&error)? {
                    Then::Again => {}
                    Then::Fail => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn run(&self, provisioner: &Provisioner) -> Result<()> {
        self.prepared
            .reporter
            .step(&format!("Provisioning with {}", provisioner.kind));
        let request = self.prepared.request;
        provisioner::run(
            provisioner,
            &Context {
                facts: &self.facts,
                host: &request.surroundings.host,
                communicator: self.ssh.as_ref().map(|ssh| ssh as &dyn Communicator),
                reporter: self.prepared.reporter,
                texts: self.prepared.texts,
                numbers: request.numbers,
                ask: request.ask,
                patience: self.patience,
                stop: &*request.stop,
            },
        )
    }

    fn pause_for_debug(&self, what: &str) -> Result<()> {
        let request = self.prepared.request;
        match request.ask.filter(|_| request.options.debug) {
            Some(ask) => ask
                .ask(&format!("{what}. Press enter to continue."), &*request.stop)
                .map(drop),
            None => Ok(()),
        }
    }

    /// The template's own cleanup, and what the user wants.
    fn after_failure(&self, error: &Error) -> Result<Then> {
        let request = self.prepared.request;
        if error.kind() == ErrorKind::Cancelled || self.running.death().is_some() {
            return Ok(Then::Fail);
        }
        if request.options.on_error == OnError::Ask
            && let Some(ask) = request.ask
        {
            self.prepared.reporter.failure(error);
            let question = "[c]lean up and exit, [a]bort without cleanup, or [r]etry the step?";
            match ask.ask(question, &*request.stop)?.as_deref().map(str::trim) {
                Some("r" | "retry") => return Ok(Then::Again),
                Some("a" | "abort") => {
                    self.prepared.keep_files();
                    return Ok(Then::Fail);
                }
                _ => {}
            }
        }
        if let Some(cleanup) = request
            .build
            .cleanup
            .as_ref()
            .filter(|_| request.options.on_error != OnError::Abort)
        {
            self.prepared
                .reporter
                .step("Running the cleanup provisioner");
            if let Err(error) = self.run(cleanup) {
                self.prepared
                    .reporter
                    .warn(&format!("The cleanup provisioner failed: {error}"));
            }
        }
        Ok(Then::Fail)
    }

    /// Removes what the image must not take along, and shuts the guest down.
    ///
    /// # Errors
    /// What the build brought cannot be removed; the guest does not end in time, in no way; cancelled.
    pub(super) fn shut_down(mut self) -> Result<Prepared<'a>> {
        let (request, reporter) = (self.prepared.request, self.prepared.reporter);
        let shutdown = &request.build.shutdown;
        let command = self.prepared.texts.render(&shutdown.command, &[])?;
        let command = Some(command).filter(|command| !command.trim().is_empty());
        let mut begun = false;
        if self.ssh.is_some() {
            self.watched(|| self.seal(command.as_deref(), &mut begun))?;
        }
        let commanded = command.is_some() && begun || shutdown.disabled;
        reporter.step("Shutting the guest down");
        let patient = shutdown.timeout;
        let ladder = Ladder {
            command: commanded.then_some(patient),
            power_button: (!shutdown.disabled).then_some(patient),
            quit: (!shutdown.disabled).then_some(QUITTING),
        };
        let done = self.running.shut_down(&ladder, &*request.stop)?;
        let killed = done.steps.iter().any(|step| step.rung == Rung::Kill);
        match self.running.death() {
            None | Some(Death::PoweredOff) => {}
            Some(Death::Ended(Ended::Code(0))) => {}
            Some(Death::Ended(_)) if killed => {}
            // What is on its disk is not what the guest wanted to be there.
            Some(death) => {
                let report = self.running.report();
                tell_evidence(reporter, &report);
                return Err(of_death(&death, &report));
            }
        }
        for step in &done.steps {
            let name = match step.rung {
                Rung::Command => "the shutdown command",
                Rung::PowerButton => "the power button",
                Rung::Quit => "QEMU's quit",
                Rung::Kill => "killing QEMU",
            };
            let waited = step.waited.as_secs_f64();
            match (&step.failure, step.ended) {
                (Some(failure), _) => reporter.warn(&format!("{name} failed: {failure}")),
                (None, true) => reporter.note(&format!("Ended by {name} after {waited:.1} s")),
                (None, false) => {
                    reporter.warn(&format!("{name} had no effect within {waited:.0} s"));
                }
            }
        }
        if !done.is_clean() {
            if commanded && is_native(request) {
                return Err(Error::new(
                    ErrorKind::Guest,
                    "the guest did not shut down by itself: its filesystems are not clean",
                )
                .with_remedy(
                    "give it more time: [shutdown] timeout; or look at its console's log",
                ));
            }
            reporter.warn("The guest did not shut down by itself: its filesystems may not be clean, and nothing of them is dropped then");
        }
        drop(self.ssh);
        drop(self.running);
        Ok(self.prepared)
    }

    /// The seal, or at least the removal of what the build brought; then the command that shuts the guest down.
    fn seal(&self, command: Option<&str>, begun: &mut bool) -> Result<()> {
        let (request, reporter) = (self.prepared.request, self.prepared.reporter);
        let build = request.build;
        let (Some(ssh), Some(template)) = (&self.ssh, &build.communicator) else {
            return Ok(());
        };
        let access = &self.prepared.access;
        let own = Own {
            keys: access.key.iter().map(|key| key.public_line()).collect(),
            password_users: template
                .password
                .iter()
                .filter(|_| is_native(request))
                .map(|_| template.username.clone())
                .collect(),
            host_keys: access
                .host_key
                .iter()
                .map(|key| key.public_line())
                .collect(),
            instance_id: access.instance_id.clone(),
            created_users: access.created_user.iter().cloned().collect(),
            sudo_password: template.password.clone(),
        };
        let way = Way {
            guest: ssh,
            timeout: SEALING * self.patience,
            shutdown: command,
            reporter,
            stop: &*request.stop,
        };
        let report = if !build.seal.steps.is_empty() {
            reporter.step("Sealing the guest");
            let steps: Result<Vec<Step>> = build
                .seal
                .steps
                .iter()
                .map(|name| Step::named(name))
                .collect();
            seal::seal(&steps?, &own, &way)?
        } else if access.key.is_some() {
            reporter.step("Removing what the build brought into the guest");
            seal::uninject(&own, &way)?
        } else {
            return self.run_shutdown(ssh, command, begun);
        };
        *begun = report.shutdown_begun;
        self.tell(&report);
        Ok(())
    }

    /// The command may end the connection before its own end is known.
    fn run_shutdown(
        &self,
        ssh: &dyn Communicator,
        command: Option<&str>,
        begun: &mut bool,
    ) -> Result<()> {
        let Some(command) = command else {
            return Ok(());
        };
        let reporter = self.prepared.reporter;
        reporter.step("Running the shutdown command");
        *begun = true;
        let mut output = reporter.output("shutdown");
        let timeout = self.prepared.request.build.shutdown.timeout;
        match ssh.run(command, Some(timeout), &mut |stream, line| {
            output.line(stream, line);
        }) {
            Ok(Exit::Code(code)) if code != 0 => {
                reporter.note(&format!("The shutdown command ended with exit code {code}"));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // The guest may have gone before it could answer.
            Err(error) => {
                reporter.note(&format!(
                    "The connection ended with the shutdown command: {error}"
                ));
                Ok(())
            }
        }
    }

    fn tell(&self, report: &SealReport) {
        let reporter = self.prepared.reporter;
        for step in &report.steps {
            let note = match step.note.as_str() {
                "" => String::new(),
                note => format!(" ({note})"),
            };
            match step.state {
                StepState::Done => {
                    reporter.note(&format!("{}: removed {}{note}", step.name, step.count));
                }
                StepState::Absent => reporter.note(&format!("{}: nothing to remove", step.name)),
                StepState::Kept => reporter.note(&format!("{}: kept{note}", step.name)),
                StepState::Failed => {
                    reporter.warn(&format!("{}: could not be removed{note}", step.name));
                }
            }
        }
        let remains = &report.remains;
        for key in &remains.authorized_keys {
            reporter.note(&format!(
                "Remains: a key that lets in as {}: {} {} ({})",
                key.user, key.kind, key.comment, key.path
            ));
        }
        for key in &remains.host_keys {
            reporter.note(&format!(
                "Remains: the host key {} {}",
                key.path, key.fingerprint
            ));
        }
        if remains.machine_id == MachineId::Set {
            reporter.note("Remains: the machine's id, which all copies will share");
        }
        for user in &remains.password_users {
            let kind = if user.empty {
                "an empty password"
            } else {
                "a password"
            };
            reporter.note(&format!("Remains: {kind} of {}", user.user));
        }
        for instance in &remains.cloud_init_instances {
            reporter.note(&format!(
                "Remains: cloud-init's data of the instance {instance}"
            ));
        }
    }
}

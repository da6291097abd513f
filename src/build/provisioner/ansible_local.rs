//! Ansible in the guest: playbooks and what belongs to them are sent there and run there.
//!
//! Knows the directory they are sent to and what stands where in it. Must not know what a playbook does. Ansible itself must
//! be in the guest.

use std::path::Path;

use super::file::uploads;
use super::{Context, Watch};
use crate::communicator::{Communicator, Exit, quote, tree};
use crate::error::{Error, ErrorKind, Result};
use crate::template::model::{AnsibleLocal, Text};

/// Runs the playbooks in the guest.
pub(super) fn run(ansible: &AnsibleLocal, context: &Context<'_>, watch: &Watch<'_>) -> Result<()> {
    let staging = match &ansible.staging_directory {
        Some(directory) => directory.trim_end_matches('/').to_owned(),
        None => format!(
            "/tmp/packer-provisioner-ansible-local/{:08x}",
            (context.numbers)() & 0xffff_ffff
        ),
    };
    let work = Work {
        ansible,
        context,
        watch,
        guest: context.guest()?,
        staging,
    };
    work.send()?;
    let result = work.galaxy().and_then(|()| work.play());
    if ansible.clean {
        let command = format!("rm -rf {}", quote::path(&work.staging));
        work.command(&command, "remove what was sent")
            .or_else(|error| {
                let text = format!("{} stays in the guest: {error}", work.staging);
                context.reporter.warn(&text);
                Ok(())
            })?;
    }
    result
}

struct Work<'a> {
    ansible: &'a AnsibleLocal,
    context: &'a Context<'a>,
    watch: &'a Watch<'a>,
    guest: &'a dyn Communicator,
    staging: String,
}

impl Work<'_> {
    fn filled(&self, text: &Text) -> Result<String> {
        self.context.texts.render(text, &[])
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.staging)
    }

    /// Sends `source` into the directory `to` of the guest, or with `/` at its end what is in it.
    fn upload(&self, source: String, to: &str) -> Result<()> {
        tree::make_directory(self.guest, to)?;
        uploads(
            self.guest,
            &[source],
            &format!("{to}/"),
            self.context,
            self.watch,
        )
    }

    fn send(&self) -> Result<()> {
        let ansible = self.ansible;
        self.context.reporter.step("Sending playbooks to the guest");
        tree::make_directory(self.guest, &self.staging)?;
        if let Some(directory) = &ansible.playbook_dir {
            self.upload(contents(&self.filled(directory)?), &self.staging)?;
        } else {
            for playbook in &ansible.playbooks {
                self.upload(self.filled(playbook)?, &self.staging)?;
            }
        }
        match &ansible.inventory_file {
            Some(file) => self.upload(self.filled(file)?, &self.staging)?,
            None => {
                let mut text = String::new();
                if ansible.inventory_groups.is_empty() {
                    text.push_str("127.0.0.1\n");
                }
                for group in &ansible.inventory_groups {
                    text.push_str(&format!("[{group}]\n127.0.0.1\n"));
                }
                let length = text.len() as u64;
                let to = self.place("qimg-inventory");
                self.guest
                    .upload(&mut text.as_bytes(), length, &to, 0o644)?;
            }
        }
        if let Some(file) = &ansible.galaxy_file {
            self.upload(self.filled(file)?, &self.staging)?;
        }
        for (directory, name) in [
            (&ansible.group_vars, "group_vars"),
            (&ansible.host_vars, "host_vars"),
        ] {
            if let Some(directory) = directory {
                self.upload(contents(&self.filled(directory)?), &self.place(name))?;
            }
        }
        for (paths, name) in [
            (&ansible.role_paths, "roles"),
            (&ansible.collection_paths, "collections"),
            (&ansible.playbook_paths, "."),
        ] {
            for path in paths {
                let path = self.filled(path)?;
                let path = path.trim_end_matches('/').to_owned();
                self.upload(path, &self.place(name))?;
            }
        }
        Ok(())
    }

    fn galaxy(&self) -> Result<()> {
        let Some(file) = &self.ansible.galaxy_file else {
            return Ok(());
        };
        let file = self.place(&last_name(&self.filled(file)?)?);
        self.context
            .reporter
            .step("Getting Ansible's roles in the guest");
        let command = format!(
            "cd {} && {} install -r {} -p {}",
            quote::path(&self.staging),
            self.ansible.galaxy_command,
            quote::path(&file),
            quote::path(&self.place("roles"))
        );
        self.command(&command, "ansible-galaxy")
    }

    fn play(&self) -> Result<()> {
        let facts = self.context.facts;
        let mut extra = format!(
            "packer_build_name={} packer_builder_type={}",
            quote::word(&facts.name),
            quote::word(&facts.kind)
        );
        if let Some((address, port)) = &facts.http {
            extra.push_str(&format!(" packer_http_addr={address}:{port}"));
        }
        let mut more = String::new();
        // They are the user's own words for the guest's shell, as Packer takes them.
        for argument in &self.ansible.extra_arguments {
            more.push(' ');
            more.push_str(&self.filled(argument)?);
        }
        let inventory = match &self.ansible.inventory_file {
            Some(file) => self.place(&last_name(&self.filled(file)?)?),
            None => self.place("qimg-inventory"),
        };
        for playbook in &self.ansible.playbooks {
            self.watch.check()?;
            let playbook = match &self.ansible.playbook_dir {
                // Its place in the directory, where it is there.
                Some(directory) => {
                    let (directory, playbook) = (self.filled(directory)?, self.filled(playbook)?);
                    let inside = Path::new(&playbook).strip_prefix(&directory);
                    let inside = inside.ok().and_then(Path::to_str).map(str::to_owned);
                    self.place(&match inside {
                        Some(inside) => inside,
                        None => last_name(&playbook)?,
                    })
                }
                None => self.place(&last_name(&self.filled(playbook)?)?),
            };
            let text = format!("Running ansible-playbook in the guest: {playbook}");
            self.context.reporter.step(&text);
            let command = format!(
                "cd {} && {} {} -e {}{more} -c local -i {}",
                quote::path(&self.staging),
                self.ansible.command,
                quote::path(&playbook),
                quote::word(&extra),
                quote::path(&inventory),
            );
            self.command(&command, "ansible-playbook")?;
        }
        Ok(())
    }

    fn command(&self, command: &str, what: &str) -> Result<()> {
        let mut output = self.context.reporter.output("ansible");
        let exit = self
            .guest
            .run(command, self.watch.left(), &mut |stream, line| {
                output.line(stream, line);
            })?;
        drop(output);
        let failed = |how: String| {
            Err(Error::new(
                ErrorKind::Guest,
                format!("{what} in the guest {how}"),
            ))
        };
        match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(127) => failed("is not there".to_owned()).map_err(|error| {
                error.with_remedy("install Ansible in the guest by a step before this one")
            }),
            Exit::Code(code) => failed(format!("ended with exit code {code}")),
            Exit::Signal(signal) => failed(format!("was ended by signal {signal}")),
            Exit::Disconnected => failed("lost its connection".to_owned()),
        }
    }
}

/// The path by which what is in a directory is meant.
fn contents(directory: &str) -> String {
    format!("{}/", directory.trim_end_matches('/'))
}

fn last_name(path: &str) -> Result<String> {
    Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("{path} has no name")))
}

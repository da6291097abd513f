//! Ansible on the host: the user's `ansible-playbook`, led into the guest.
//!
//! Knows its inventory, its SSH options and its environment. Must not know what a playbook does.
//!
//! Ansible enters the guest by the host's own `ssh`, on the port, by the key and with the host key that qimg knows: no proxy
//! stands in between, as Packer's does by default (`use_proxy`). Where there is a password only, Ansible needs `sshpass`; the
//! password stands in the inventory, which nobody else reads and which goes with the step.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Connection, Context, Watch};
use crate::build::local::{self, Ended, Program};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{read_file, write_secret};
use crate::template::model::{Ansible, Text};

/// A file of roles is not longer.
const LONGEST: u64 = 16 << 20;

/// Bytes of a socket's path, as Linux has it.
const LONGEST_SOCKET: usize = 107;

/// Bytes of the name that Ansible and ssh give to the socket of a connection: `/`, ten digits, `.` and sixteen characters.
const SOCKET_NAME: usize = 28;

/// Runs the playbook.
pub(super) fn run(ansible: &Ansible, context: &Context<'_>, watch: &Watch<'_>) -> Result<()> {
    let connection = context.facts.connection.as_ref().ok_or_else(|| {
        Error::usage("there is no way into the guest for Ansible")
            .with_remedy("give the build a communicator, or leave this provisioner out")
    })?;
    let failed = |error| Error::io("make a directory for Ansible", error);
    let place = tempfile::Builder::new()
        .prefix("ansible")
        .rand_bytes(4)
        .tempdir_in(&context.host.temporary)
        .map_err(failed)?;
    let work = Work {
        ansible,
        context,
        watch,
        connection,
        place: place.path(),
    };
    work.galaxy()?;
    work.play()
}

struct Work<'a> {
    ansible: &'a Ansible,
    context: &'a Context<'a>,
    watch: &'a Watch<'a>,
    connection: &'a Connection,
    /// A directory that only the user reads.
    place: &'a Path,
}

impl Work<'_> {
    fn filled(&self, text: &Text) -> Result<String> {
        self.context.texts.render(text, &[])
    }

    /// Gets roles and collections.
    fn galaxy(&self) -> Result<()> {
        let Some(file) = &self.ansible.galaxy_file else {
            return Ok(());
        };
        let file = self.filled(file)?;
        let text = read_file(&file, LONGEST)?;
        let text = String::from_utf8_lossy(&text);
        let has = |word: &str| text.lines().any(|line| line.trim_end() == word);
        let collections = has("collections:");
        let mut jobs = Vec::new();
        // An old file is a plain list of roles.
        if has("roles:") || !collections {
            jobs.push(("role", &self.ansible.roles_path));
        }
        if collections {
            jobs.push(("collection", &self.ansible.collections_path));
        }
        for (kind, path) in jobs {
            let mut arguments: Vec<OsString> =
                vec![kind.into(), "install".into(), "-r".into(), (&file).into()];
            if let Some(path) = path {
                arguments.extend(["-p".into(), self.filled(path)?.into()]);
            }
            if self.ansible.galaxy_force {
                arguments.push("-f".into());
            }
            let text = format!("Getting Ansible's {kind}s of {file}");
            self.context.reporter.step(&text);
            self.run(&self.ansible.galaxy_command, arguments)?;
        }
        Ok(())
    }

    fn play(&self) -> Result<()> {
        let facts = self.context.facts;
        let inventory = match &self.ansible.inventory_file {
            Some(file) => PathBuf::from(self.filled(file)?),
            None => self.inventory()?,
        };
        let mut extra = vec![
            format!("packer_build_name={}", facts.name),
            format!("packer_builder_type={}", facts.kind),
        ];
        if let Some((address, port)) = &facts.http {
            extra.push(format!("packer_http_addr={address}:{port}"));
        }
        let mut arguments: Vec<OsString> = Vec::new();
        for value in extra {
            arguments.extend(["-e".into(), value.into()]);
        }
        if let Some(key) = &self.connection.private_key {
            arguments.extend(["--private-key".into(), absolute(key)?.into()]);
        }
        arguments.extend(["-i".into(), inventory.clone().into()]);
        for argument in &self.ansible.extra_arguments {
            arguments.push(self.filled(argument)?.into());
        }
        for playbook in &self.ansible.playbooks {
            arguments.push(self.filled(playbook)?.into());
        }
        self.context
            .reporter
            .step("Running ansible-playbook on the host");
        let result = self.run(&self.ansible.command, arguments);
        if self.ansible.keep_inventory && self.ansible.inventory_file.is_none() {
            let kept = PathBuf::from(format!("qimg-inventory-{}", facts.name));
            let bytes = read_file(&inventory, LONGEST)?;
            crate::store::remove_file(&kept)?;
            write_secret(&kept, &bytes)?;
            let text = format!("The inventory stays as {}", kept.display());
            self.context.reporter.note(&text);
        }
        if self.ansible.inventory_file.is_none() {
            // It may lie in a directory of the user's.
            crate::store::remove_file(&inventory)?;
        }
        result
    }

    /// One host in all groups.
    fn inventory(&self) -> Result<PathBuf> {
        let ansible = self.ansible;
        let user = match &ansible.user {
            Some(user) => self.filled(user)?,
            None => self.connection.user.clone(),
        };
        let alias = &ansible.host_alias;
        let port = self.connection.port.to_string();
        let mut line = match &ansible.inventory_template {
            Some(template) => self.context.texts.render(
                template,
                &[
                    ("HostAlias", alias),
                    ("Host", &self.connection.host),
                    ("Port", &port),
                    ("User", &user),
                ],
            )?,
            None => format!(
                "{alias} ansible_host={} ansible_port={port} ansible_user={user}",
                self.connection.host
            ),
        };
        line.truncate(line.trim_end().len());
        if let (Some(password), None) = (&self.connection.password, &self.connection.private_key) {
            line.push_str(&format!(" ansible_password={}", quoted(password)));
        }
        let mut text = line + "\n";
        for group in &ansible.groups {
            text.push_str(&format!("[{group}]\n{alias}\n"));
        }
        for group in &ansible.empty_groups {
            text.push_str(&format!("[{group}]\n"));
        }
        // What lies beside an inventory, variables of groups, counts with it.
        let directory = match &ansible.inventory_directory {
            Some(directory) => tempfile::Builder::new()
                .prefix("qimg-inventory")
                .tempfile_in(self.filled(directory)?)
                .and_then(|file| file.into_temp_path().keep().map_err(|error| error.error))
                .map_err(|error| Error::io("write the inventory", error))?,
            None => self.place.join("inventory"),
        };
        crate::store::remove_file(&directory)?;
        write_secret(&directory, text.as_bytes())?;
        Ok(directory)
    }

    fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let sockets = self.place.to_string_lossy().into_owned();
        // With a path that is too long for a socket, ssh would not start at all: then it connects anew for each task.
        let mut options = match sockets.len() <= LONGEST_SOCKET - SOCKET_NAME {
            true => "-o ControlMaster=auto -o ControlPersist=60s".to_owned(),
            false => "-o ControlMaster=no".to_owned(),
        };
        let known = self.place.join("known_hosts");
        match &self.connection.host_key {
            Some(key) => {
                let name = format!("[{}]:{}", self.connection.host, self.connection.port);
                let name = match self.connection.port {
                    22 => self.connection.host.clone(),
                    _ => name,
                };
                let words: Vec<&str> = key.split_whitespace().take(2).collect();
                crate::store::remove_file(&known)?;
                write_secret(&known, format!("{name} {}\n", words.join(" ")).as_bytes())?;
                options.push_str(&format!(
                    " -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes",
                    known.display()
                ));
            }
            None => {
                options.push_str(" -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no");
            }
        }
        if self.connection.private_key.is_some() {
            options.push_str(" -o IdentitiesOnly=yes");
        }
        let mut environment = self.context.host.environment.clone();
        for (name, value) in [
            ("ANSIBLE_SSH_ARGS", options.as_str()),
            ("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets.as_str()),
            ("ANSIBLE_FORCE_COLOR", "0"),
            ("ANSIBLE_NOCOWS", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ] {
            environment.push((name.into(), value.into()));
        }
        for (name, value) in &self.ansible.environment {
            environment.push((name.into(), self.filled(value)?.into()));
        }
        Ok(environment)
    }

    fn run(&self, command: &str, arguments: Vec<OsString>) -> Result<()> {
        let program = Program {
            program: command.into(),
            arguments,
            environment: self.environment()?,
            directory: None,
            input: Vec::new(),
        };
        let mut output = self.context.reporter.output("ansible");
        let ended = local::run(
            &program,
            self.watch.left(),
            self.watch.stop(),
            &mut |stream, line| output.line(stream, line),
        );
        drop(output);
        let failed = |how: String| Error::new(ErrorKind::Guest, format!("{command} {how}"));
        match ended {
            Ok(Ended::Code(0)) => Ok(()),
            Ok(Ended::Code(code)) => Err(failed(format!("ended with exit code {code}"))),
            Ok(Ended::Signal(signal)) => Err(failed(format!("was ended by signal {signal}"))),
            Err(error) if ![ErrorKind::Cancelled, ErrorKind::TimedOut].contains(&error.kind()) => {
                Err(error
                    .with_remedy("install Ansible on this host, or name its program with command"))
            }
            Err(error) => Err(error),
        }
    }
}

/// A value in an inventory.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("find the key", error).at_path(path))
}

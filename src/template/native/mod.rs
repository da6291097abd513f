//! qimg's own language for templates: TOML.
//!
//! ```toml
//! name = "web"                        # the build; the file's name where there is none
//! paths = "template"                  # inputs start beside the template; "current": at the current directory
//! sensitive = ["token"]               # values that no output shows
//!
//! [variables]
//! release = "12"                      # a default; -var and -var-file beat it
//! token = { required = true, sensitive = true }
//! user = "{{env `USER`}}"             # the environment is asked here, and nowhere else
//!
//! [base]
//! image = "https://cloud.example/debian-{{user `release`}}.qcow2"   # or several, or iso = for an installer
//! checksum = "file:https://cloud.example/SHA512SUMS"                # sha256:HEX, bare hex, none
//! signature-key = "keys/debian.asc"
//!
//! [disk]
//! size = "10G"                        # that of the base where there is none
//!
//! [machine]
//! memory = "2G"
//! cpus = 2
//! boot = "uefi"                       # secure = true besides
//!
//! [seed]
//! user-data-file = "user-data"        # user-data = """...""" inline; meta-data, vendor-data, network-config alike
//!
//! [ssh]
//! username = "debian"
//!
//! [[provision]]
//! shell = "apt-get -y install nginx"
//! sudo = true
//!
//! [[provision]]
//! upload = "site/"
//! to = "/tmp/site"
//!
//! [seal]
//! disable = ["logs"]
//!
//! [output]
//! compression = "zstd"
//!
//! [[post]]
//! checksum = ["sha256"]
//! ```
//!
//! | table | keys |
//! |---|---|
//! | (top) | `name` `description` `paths` `sensitive` `variables` `build` `provision` `cleanup` `post`, and all that follow |
//! | `base` | `image` or `iso`, `checksum` `signature-key` `target` `disk-image` |
//! | `disk` | `size` `format` `interface` `cache` `discard` `detect-zeroes` `additional` `keep-size` `keep-backing-file` |
//! | `machine` | `qemu` `accelerator` `type` `cpu` `cpus` `sockets` `cores` `threads` `memory` `net-device` `net-bridge` `host-ports` `skip-nat-mapping` `headless` `display` `vga` `vnc` `cdrom-interface` `boot` `secure` `firmware-code` `firmware-variables` `drop-variables` `firmware` `firmware-flash` `tpm` `tpm-device` `tpm-version` `qmp-socket` `qemu-args` |
//! | `seed` | `user-data` `meta-data` `vendor-data` `network-config`, each also with `-file`; `http = true` serves them over HTTP instead of on a volume |
//! | `boot` | `wait` `command` or `steps`, `key-interval` `group-interval` `keyboard`; `kernel` `initrd` `append`; `tftp` and `tftp-file` |
//! | `http` | `directory` or `content`, `ports` `address` |
//! | `cd`, `floppy` | `files` `content` `label`; `floppy` also `directories` |
//! | `ssh` | `username` `password` `private-key` `certificate` `agent` `forward-agent` `host` `port` `timeout` `attempts` `pty` `keep-alive` `transfer` `bastion` `pause-before-connecting` `clear-authorized-keys` `temporary-key` `temporary-key-bits` `ciphers` `key-exchanges`, `communicator = "none"` for a guest that is not entered |
//! | `[[provision]]`, `cleanup` | one of `shell` `scripts` `upload` `content` `download` `local` `local-scripts` `sleep` `reboot` `breakpoint` `ansible` `ansible-local` `custom`, with its options; `only` `except` `override` `pause-before` `max-retries` `timeout` `cache` |
//! | `seal` | `steps`, or `disable` for names of the usual ones, or `enabled = false` |
//! | `shutdown` | `command` `timeout` `disabled` |
//! | `cache` | `steps` (true), `resume` (`"memory"`, or `"disk"` where that cannot be had), `after` (`"5s"`), `limit` (`"20G"`) |
//! | `output` | `directory` `name` `compression` `level` `compact` `sparsify` |
//! | `[[post]]` | one of `compress` `checksum` `manifest` `local` `local-scripts` `artifice` `vagrant` `custom`, with its options; `name` `keep-input` `only` `except`, and `then` for what takes its result |
//!
//! Several builds are tables `[build.NAME]`, each with the tables above; what stands at the top is for all of them, key
//! by key. Strings hold actions of the template language of Packer's JSON. Values of other kinds may be strings, too,
//! so that variables can give them. Lengths of time carry their unit.
//!
//! Packer's JSON is first made into the same tree, so this module reads both; it must not know Packer's keys.

mod ansible;
mod boot;
mod foreign;
mod machine;
mod paths;
mod post;
mod publishing;
mod selection;
mod ssh;
mod step;

use paths::Paths;
use selection::{builds, choose, declared, undeclared};

use std::path::Path;
use std::time::Duration;

use super::LoadRequest;
use super::check::{Findings, Severity};
use super::document::{Entry, Kind, Node, Source};
use super::functions::{Packer, Part, Surroundings};
use super::model::{
    Build, Codec, Dialect, Disk, DiskFormat, Output, PostProcessor, Provisioner, Seal, Shutdown,
    Template,
};
use super::reader::{Reader, Table, unknown_key};
use super::variables;
use crate::error::Result;

/// What is removed from a guest unless a template says otherwise, in this order.
pub const SEAL_STEPS: [&str; 12] = [
    "cloud-init",
    "machine-id",
    "ssh-host-keys",
    "authorized-keys",
    "passwords",
    "logs",
    "package-caches",
    "shell-history",
    "random-seed",
    "leases",
    "temporary-files",
    "fstrim",
];

/// Tables that are for one build, or at the top for all of them.
pub(super) const SECTIONS: [&str; 13] = [
    "base", "disk", "machine", "seed", "boot", "http", "cd", "floppy", "ssh", "seal", "shutdown",
    "cache", "output",
];

/// Reads the tree of a template.
pub(super) fn decode(
    source: &Source,
    root: &Node,
    dialect: Dialect,
    request: &LoadRequest<'_>,
    surroundings: &Surroundings<'_>,
    findings: &Findings,
) -> Result<Template> {
    let Kind::Table(entries) = &root.kind else {
        return Err(source.error(root.at, "expected a table"));
    };
    findings.begin(source, root.at);
    known_keys(source, entries, findings);
    let (declared, mut sensitive) = declared(source, root)?;
    let variables = variables::resolve(source, &declared, request, surroundings)?;
    undeclared(source, &declared, &variables, dialect, findings);
    let outside = Reader {
        source,
        dialect,
        packer: Packer::new(surroundings, Part::Outside, &variables.values),
        held: &variables.held,
        secrets: &[],
        findings,
    };
    let top = Table::new(&outside, root, "")?;
    sensitive.extend(top.texts("sensitive")?);
    let hidden: Vec<String> = sensitive
        .iter()
        .filter_map(|name| variables.values.get(name))
        .filter(|value| !value.is_empty())
        .cloned()
        .collect();
    let paths = Paths {
        beside: match top.word("paths", &["template", "current"])?.as_deref() {
            Some("current") => None,
            _ => Some(request.path.parent().unwrap_or(Path::new(""))),
        },
        directory: &request.directory,
        home: request.environment.get("HOME").map(String::as_str),
        programs: request.environment.get("PATH").map_or("", String::as_str),
    };
    let builds = builds(&top, &request.path)?;
    let names: Vec<String> = builds.iter().map(|(name, _)| name.clone()).collect();
    let mut secrets = hidden.clone();
    let chosen = choose(&outside, root, &builds, request)?;
    let mut made = Vec::new();
    for (name, own) in &builds {
        if !chosen.contains(name) {
            continue;
        }
        let part = |steps| Part::Build {
            name,
            kind: "qemu",
            steps,
        };
        let reader = |steps| Reader {
            source,
            dialect,
            packer: Packer::new(surroundings, part(steps), &variables.values),
            held: &variables.held,
            secrets: &hidden,
            findings,
        };
        let parts = Parts {
            machine: &reader(false),
            steps: &reader(true),
            root,
            own: *own,
            name,
            names: &names,
            except: &request.except,
            paths: &paths,
        };
        made.extend(parts.build(&mut secrets));
    }
    secrets.sort();
    secrets.dedup();
    Ok(Template {
        path: request.path.clone(),
        dialect,
        builds: made,
        secrets,
    })
}

fn known_keys(source: &Source, entries: &[Entry], findings: &Findings) {
    let mut known = vec![
        "name",
        "description",
        "paths",
        "sensitive",
        "variables",
        "build",
        "provision",
        "cleanup",
        "post",
    ];
    known.extend(SECTIONS);
    let is_known = |entry: &&Entry| known.contains(&entry.key.as_str());
    for entry in entries.iter().filter(|entry| !is_known(entry)) {
        findings.mistake(unknown_key(source, entry, "", &known));
    }
}

/// A range of ports: two numbers, where either may be missing.
fn range_of(
    table: &Table<'_, '_>,
    key: &'static str,
    default: (u16, u16),
) -> Result<Option<(u16, u16)>> {
    let Some(node) = table.node(key) else {
        return Ok(None);
    };
    let nodes = match &node.kind {
        Kind::Int(_) => vec![node, node],
        _ => table.items_of(key, node)?,
    };
    let [first, last] = nodes.as_slice() else {
        return Err(table.error(key, node, "expected the first and the last port"));
    };
    let port = |node: &Node, default: u16| -> Result<u16> {
        match table.int_of(key, node)? {
            None | Some(0) => Ok(default),
            Some(port) => u16::try_from(port)
                .map_err(|_| table.error(key, node, &format!("{port} is no port"))),
        }
    };
    let range = (port(first, default.0)?, port(last, default.1)?);
    if range.0 > range.1 {
        let text = format!(
            "the first port, {}, is above the last, {}",
            range.0, range.1
        );
        return Err(table.error(key, node, &text));
    }
    Ok(Some(range))
}

/// Provisioners and post-processors of a build.
#[derive(Default)]
struct Steps {
    provisioners: Vec<Provisioner>,
    cleanup: Option<Provisioner>,
    post_processors: Vec<Vec<PostProcessor>>,
}

/// What a build is read from.
struct Parts<'a, 'r> {
    machine: &'r Reader<'a>,
    steps: &'r Reader<'a>,
    root: &'r Node,
    own: Option<&'r Node>,
    name: &'r str,
    names: &'r [String],
    except: &'r [String],
    paths: &'r Paths<'a>,
}

impl<'a, 'r> Parts<'a, 'r> {
    /// The table `key` of the build, on top of the one that is for all.
    fn section(&self, key: &'static str) -> Result<Table<'a, 'r>> {
        let mut entries: Vec<&Entry> = Vec::new();
        let mut at = self.own.unwrap_or(self.root).at;
        let mut what = key.to_owned();
        for node in [Some(self.root), self.own].into_iter().flatten() {
            let Kind::Table(tables) = &node.kind else {
                continue;
            };
            let Some(entry) = tables.iter().find(|entry| entry.key == key) else {
                continue;
            };
            let Kind::Table(own) = &entry.node.kind else {
                let text = format!("{key}: expected a table, found {}", entry.node.what());
                return Err(self.machine.error(entry.at, text));
            };
            at = entry.node.at;
            entry.shown().clone_into(&mut what);
            entries.retain(|entry| !own.iter().any(|over| over.key == entry.key));
            entries.extend(own);
        }
        if self.names.len() > 1 {
            what = match what.is_empty() {
                true => format!("build '{}'", self.name),
                false => format!("build '{}', {what}", self.name),
            };
        } else if what.is_empty() {
            what = format!("build '{}'", self.name);
        }
        Ok(Table::of(self.machine, at, entries, what))
    }

    /// Tables of a list at the top.
    fn list(&self, key: &'static str) -> Vec<&'r Node> {
        match self.root.member(key) {
            None => Vec::new(),
            Some(Node {
                kind: Kind::List(items),
                ..
            }) => items.iter().collect(),
            Some(node) => {
                let text = format!("{key}: expected a list of tables, found {}", node.what());
                let error = self.machine.error(node.at, text);
                let findings = self.machine.findings;
                findings.mistake(error.with_remedy(format!("write [[{key}]]")));
                Vec::new()
            }
        }
    }

    /// What a part of the build is read from, read; `None`: it is a mistake.
    fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Table<'a, 'r>) -> Result<T>,
    ) -> Option<T> {
        let findings = self.machine.findings;
        let table = findings.keep(self.section(key))?;
        findings.begin(self.machine.source, table.at);
        let read = findings.keep(read(&table))?;
        table.finish();
        Some(read)
    }

    /// `None`: it holds mistakes, which are told.
    fn build(&self, secrets: &mut Vec<String>) -> Option<Build> {
        let findings = self.machine.findings;
        if let Some(node) = self.own {
            let what = format!("build '{}'", self.name);
            let table = findings.keep(Table::new(self.machine, node, what))?;
            findings.begin(self.machine.source, node.at);
            for key in SECTIONS {
                table.entry(key);
            }
            table.finish();
        }
        let otherwise = ["kernel", "tftp"];
        let otherwise =
            { otherwise.iter() }.any(|key| self.section("boot").is_ok_and(|boot| boot.has(key)));
        let base = self.read("base", |table| machine::base(table, self.paths, otherwise));
        let disk = self.read("disk", |table| machine::disk(table, base.as_ref()));
        let mut arguments = None;
        let machine = self.read("machine", |table| {
            let vnc_disabled = table.flag("vnc-disabled")?.unwrap_or(false);
            let mut machine = machine::machine(table, self.paths)?;
            if vnc_disabled {
                machine.vnc = None;
            }
            arguments = table.node("qemu-args");
            Ok((machine, vnc_disabled))
        });
        let vnc = { machine.iter() }.filter_map(|(machine, _)| machine.vnc.as_ref());
        secrets.extend(
            vnc.filter_map(|vnc| vnc.password.clone())
                .filter(|password| password.len() >= 8),
        );
        let seed = self.read("seed", |table| machine::seed(table, self.paths));
        let vnc_disabled = machine.as_ref().is_some_and(|(_, disabled)| *disabled);
        let boot = self.read("boot", |table| boot::boot(table, vnc_disabled, self.paths));
        let media = self.read("http", |http| {
            let media = self.read("cd", |cd| {
                let media = self.read("floppy", |floppy| boot::media(http, cd, floppy, self.paths));
                Ok(media)
            });
            Ok(media.flatten())
        });
        let communicator = self.read("ssh", |table| ssh::ssh(table, self.paths, secrets));
        let output = self.read("output", |table| {
            self.output(table, disk.as_ref().map(|(disk, _)| disk))
        });
        let seal = self.read("seal", seal);
        let entered = communicator.as_ref().is_none_or(Option::is_some);
        let shutdown = self.read("shutdown", |table| self.shutdown(table, entered));
        let cache = self.read("cache", machine::cache);
        let steps = self.steps();
        let (disk, additional_disks) = disk?;
        let build = Build {
            name: self.name.to_owned(),
            kind: "qemu".to_owned(),
            base: base?,
            disk,
            additional_disks,
            machine: machine?.0,
            seed: seed?,
            boot: boot?,
            media: media.flatten()?,
            communicator: communicator?,
            provisioners: steps.provisioners,
            cleanup: steps.cleanup,
            seal: seal?,
            shutdown: shutdown?,
            cache: cache?,
            output: output?,
            post_processors: steps.post_processors,
        };
        if let Some(node) = arguments {
            self.judge_arguments(node, &build);
        }
        Some(build)
    }

    /// Provisioners and post-processors; those that hold mistakes are told and left out.
    fn steps(&self) -> Steps {
        let findings = self.steps.findings;
        let of = |key: &str, number: usize| match self.steps.dialect {
            Dialect::Packer => format!(
                "{} {number}",
                if key == "post" {
                    "post-processor"
                } else {
                    "provisioner"
                }
            ),
            Dialect::Native => format!("{key} {number}"),
        };
        let step = |node: &'r Node, what: &str| -> Result<Option<Provisioner>> {
            findings.begin(self.steps.source, node.at);
            // Stands for what has been told already.
            if node.kind == Kind::Null {
                return Ok(None);
            }
            let chosen = step::choose(self.steps, node, what, self.name, self.names)?;
            chosen
                .map(|chosen| step::step(self.steps, node, what, chosen, self.paths))
                .transpose()
        };
        let mut steps = Steps::default();
        for (number, node) in self.list("provision").into_iter().enumerate() {
            let step = findings.keep(step(node, &of("provision", number + 1)));
            steps.provisioners.extend(step.flatten());
        }
        if let Some(node) = self.root.member("cleanup") {
            steps.cleanup = findings.keep(step(node, "the cleanup")).flatten();
        }
        for (number, node) in self.list("post").into_iter().enumerate() {
            findings.begin(self.steps.source, node.at);
            let chain = post::chain(
                self.steps,
                node,
                &of("post", number + 1),
                self.name,
                self.names,
                self.except,
                self.paths,
            );
            let chain = findings.keep(chain);
            steps
                .post_processors
                .extend(chain.filter(|chain| !chain.is_empty()));
        }
        steps
    }

    fn judge_arguments(&self, node: &Node, build: &Build) {
        let arguments: Vec<(String, String)> = { build.machine.qemu_args.iter() }
            .map(|(switch, values)| {
                let values: String = values.iter().map(|value| value.0.as_str()).collect();
                (switch.0.clone(), values)
            })
            .collect();
        let defaults = super::check::Defaults {
            directory: &build.output.directory.display().to_string(),
            name: &build.output.name,
            installs: !build.base.is_disk,
            interface: &build.disk.interface,
            forwards: build.communicator.is_some()
                && build.machine.net_bridge.is_none()
                && !build.machine.skip_nat_mapping,
        };
        for (switch, what, remedy) in super::check::dropped(&arguments, &defaults) {
            let shown = match self.machine.dialect {
                Dialect::Packer => "qemuargs",
                Dialect::Native => "qemu-args",
            };
            let message = format!(
                "{shown}: {switch} takes the place of all that is given for it, and so drops {what}"
            );
            self.machine
                .find(Severity::Warning, node.at, &message, &remedy);
        }
    }

    fn output(&self, table: &Table<'_, '_>, disk: Option<&Disk>) -> Result<Output> {
        let raw = disk.is_some_and(|disk| disk.format == DiskFormat::Raw);
        let keeps_backing = disk.is_some_and(|disk| disk.keep_backing_file);
        let codec = match table
            .word("compression", &["none", "zlib", "zstd"])?
            .as_deref()
        {
            Some("none") => Codec::None,
            Some("zstd") => Codec::Zstd,
            _ => Codec::Zlib,
        };
        let codec = match table.flag("compress")? {
            _ if raw => Codec::None,
            Some(false) => Codec::None,
            Some(true) if codec == Codec::None => Codec::Zlib,
            _ => codec,
        };
        let skip = table.flag("skip-compaction")?.unwrap_or(false) || keeps_backing;
        let compact = table
            .flag("compact")?
            .unwrap_or(!(skip && codec == Codec::None) || raw);
        let end = if raw { "raw" } else { "qcow2" };
        let (directory, name) = paths::output(table, self.paths)?;
        Ok(Output {
            directory: directory
                .unwrap_or_else(|| format!("output-{}", self.name))
                .into(),
            name: name.unwrap_or_else(|| format!("{}.{end}", self.name)),
            codec,
            level: table.number("level", -22, 22)?,
            compact,
            sparsify: table.flag("sparsify")?.unwrap_or(compact),
        })
    }

    fn shutdown(&self, table: &Table<'_, '_>, entered: bool) -> Result<Shutdown> {
        let command = table.late("command", false)?.unwrap_or_default();
        let disabled = table.flag("disabled")?.unwrap_or(false);
        if command.0.is_empty() && !disabled && entered && self.machine.dialect == Dialect::Packer {
            let message = format!(
                "{}: there is no shutdown_command: Packer kills the machine, which may lose what was written last; qimg \
                 presses the power button",
                table.what
            );
            let remedy = "add \"shutdown_command\": \"sudo shutdown -P now\"";
            self.machine
                .find(Severity::Note, table.at, &message, remedy);
        }
        Ok(Shutdown {
            command,
            timeout: table
                .duration("timeout")?
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(Duration::from_secs(300)),
            disabled,
        })
    }
}

fn seal(table: &Table<'_, '_>) -> Result<Seal> {
    let enabled = table.flag("enabled")?.unwrap_or(true);
    let list = |key: &'static str| -> Result<Option<Vec<String>>> {
        let Some(items) = table.items(key)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        for item in items {
            let name = table.text_of(key, item)?;
            if !SEAL_STEPS.contains(&name.as_str()) {
                let error = table.error(key, item, &format!("there is no step '{name}'"));
                return Err(error.with_remedy(match super::near(&name, SEAL_STEPS) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("there is {}", SEAL_STEPS.join(", ")),
                }));
            }
            names.push(name);
        }
        Ok(Some(names))
    };
    let steps = list("steps")?;
    let disable = list("disable")?.unwrap_or_default();
    let mut steps = steps.unwrap_or_else(|| SEAL_STEPS.map(str::to_owned).to_vec());
    steps.retain(|step| enabled && !disable.contains(step));
    Ok(Seal { steps })
}

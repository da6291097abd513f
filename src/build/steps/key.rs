//! Names of states: digests of everything that a state depends on.
//!
//! Knows what a machine and its guest depend on before the first step, and that each step depends on those before it. Must
//! not know where states are kept.
//!
//! What is not in a key: the host's port, directories of this run, times and tries, windows and pictures. Key and host key
//! of the guest are made for a state and kept with it; who knows how they are made is in the key.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::build::event::Reporter;
use crate::build::late::RenderText;
use crate::build::provisioner::contents::contents;
use crate::build::provisioner::{Watch, uploaded};
use crate::build::request::BuildRequest;
use crate::build::texts::Texts;
use crate::digest::{DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::Fetched;
use crate::machine::command_line::{Boot, Options, plain};
use crate::store::{Kind, look, read_file};
use crate::template::model::{Firmware, Machine, Provisioner, Ssh};

/// Changes whenever states of before cannot be used any more.
const FORMAT: &str = "qimg step 2";

/// Longest key of a template.
const LONGEST_KEY: u64 = 1 << 20;

/// Switches that join the guest with what nobody can bring back.
const JOINING: [&str; 4] = ["-virtfs", "-virtfs_synth", "-fsdev", "-incoming"];

/// Switches that name files which QEMU writes for people.
const WRITTEN: [&str; 11] = [
    "-serial",
    "-parallel",
    "-debugcon",
    "-chardev",
    "-monitor",
    "-mon",
    "-qmp",
    "-D",
    "-pidfile",
    "-trace",
    "-vnc",
];

/// Keys of all states that a build can go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    /// After the guest is up, after the first step, after the second, ...
    pub(super) all: Vec<String>,
    /// Why the step after the last of them is run every time, if there is one.
    pub(super) ended: Option<String>,
}

/// What is made for a machine before it is started.
pub(in crate::build) struct Made<'a> {
    pub(in crate::build) base: &'a Fetched,
    pub(in crate::build) qemu_args: &'a [(String, Vec<String>)],
    pub(in crate::build) boot: Option<&'a Boot>,
    /// CDs and the floppy disk that are made of the template's files.
    pub(in crate::build) media: &'a [PathBuf],
}

struct Hasher(Digester);

impl Hasher {
    fn new() -> Self {
        Self(Digester::new(&[DigestKind::Sha256]))
    }

    /// A piece can only be itself: its name and length go first.
    fn take(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn shown(&mut self, name: &str, value: &dyn std::fmt::Debug) {
        self.take(name, format!("{value:?}").as_bytes());
    }

    fn finish(self) -> String {
        let digests = self.0.finish();
        digests
            .first()
            .map(|digest| digest.hex())
            .unwrap_or_default()
            .chars()
            .take(40)
            .collect()
    }
}

/// Keys of the states of `request`'s build; words instead, where no state of it can be used again.
///
/// # Errors
/// A file cannot be read; cancelled.
pub(super) fn keys(
    request: &BuildRequest<'_>,
    made: &Made<'_>,
    reporter: &Reporter<'_>,
) -> Result<Result<Keys, String>> {
    let mut hasher = Hasher::new();
    if let Some(why) = machine(request, made, reporter, &mut hasher)? {
        return Ok(Err(why));
    }
    guest(request, &mut hasher)?;
    let mut last = hasher.finish();
    let mut keys = Keys {
        all: vec![last.clone()],
        ended: None,
    };
    for step in &request.build.provisioners {
        match one_step(request, step, &last)? {
            Ok(key) => {
                keys.all.push(key.clone());
                last = key;
            }
            Err(why) => {
                keys.ended = Some(format!("{} (line {}): {why}", step.kind, step.line));
                break;
            }
        }
    }
    Ok(Ok(keys))
}

fn machine(
    request: &BuildRequest<'_>,
    made: &Made<'_>,
    reporter: &Reporter<'_>,
    hasher: &mut Hasher,
) -> Result<Option<String>> {
    let (build, host) = (request.build, request.surroundings);
    hasher.take("format", FORMAT.as_bytes());
    hasher.take("qimg", env!("CARGO_PKG_VERSION").as_bytes());
    hasher.shown("base", &made.base.sha256().map(|digest| digest.hex()));
    hasher.shown("path", &made.base.path);
    hasher.shown("size", &(made.base.format, made.base.virtual_size));
    hasher.shown(
        "disk",
        &(&build.base.is_disk, &build.disk, &build.additional_disks),
    );
    // Nothing of these is seen by the guest; its accelerator is a matter of its memory.
    let seen = Machine {
        accelerator: None,
        host_ports: None,
        headless: true,
        display: None,
        vnc: None,
        qmp_socket: None,
        qemu_args: Vec::new(),
        firmware: Firmware::Default,
        ..build.machine.clone()
    };
    hasher.shown("machine", &seen);
    // Its texts without what differs from run to run.
    let texts = [texts(request, "1"), texts(request, "2")];
    for (switch, values) in &build.machine.qemu_args {
        for text in std::iter::once(switch).chain(values) {
            hasher.take("argument", texts[0].render(text, &[])?.as_bytes());
        }
    }
    let output = host.directory.join(&build.output.directory);
    for (switch, values) in made.qemu_args {
        let value = values.concat();
        if JOINING.contains(&plain(switch)) || value.contains("fat:") {
            return Ok(Some(format!(
                "{switch} in qemuargs joins the guest with files of the host"
            )));
        }
        if WRITTEN.contains(&plain(switch)) {
            continue;
        }
        for path in named_files(&value, &host.directory) {
            if path.starts_with(&output) {
                // The build makes it.
                continue;
            }
            hasher.shown("names", &path);
            file(request, &path, reporter, hasher)?;
        }
    }
    for medium in made.media {
        file(request, medium, reporter, hasher)?;
    }
    hasher.shown("firmware", &build.machine.firmware);
    let code = match made.boot {
        None => Vec::new(),
        Some(Boot::Flash(flash)) => vec![&flash.code, &flash.variables],
        Some(Boot::Bios(path) | Boot::OneFlash(path)) => vec![path],
    };
    for code in code {
        file(request, code, reporter, hasher)?;
    }
    Ok(None)
}

/// Files that a value of an argument names, as far as they are there. Whatever could be a name is looked for: one that is
/// missed would leave a state in use that does not fit any more.
fn named_files(value: &str, directory: &Path) -> Vec<PathBuf> {
    let mut names = vec![value.to_owned()];
    if let Ok(described) = serde_json::from_str::<Value>(value) {
        texts_in(&described, &mut names);
    } else {
        let options = Options::parse(value);
        for word in options.words() {
            names.push(word.to_owned());
            // As in `-drive file=json:{...}`.
            let described = word.strip_prefix("json:");
            if let Some(Ok(described)) = described.map(serde_json::from_str::<Value>) {
                texts_in(&described, &mut names);
            }
        }
    }
    let mut files: Vec<PathBuf> = names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(|name| directory.join(name.strip_prefix("file:").unwrap_or(&name)))
        .filter(|path| matches!(look(path), Ok(Some(seen)) if seen.kind == Kind::File))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// All texts in a value of JSON.
fn texts_in(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts_in(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| texts_in(value, texts)),
        _ => {}
    }
}

fn file(
    request: &BuildRequest<'_>,
    path: &Path,
    reporter: &Reporter<'_>,
    hasher: &mut Hasher,
) -> Result<()> {
    let cache = &request.surroundings.fetch.cache;
    let kinds = [DigestKind::Sha256];
    let digests = cache.digests_of(path, &kinds, false, &*request.stop, &mut |_| {
        reporter.progress("checksum", 0, None, crate::build::event::Unit::Bytes);
    })?;
    for digest in digests {
        if digest.kind() == DigestKind::Sha256 {
            hasher.take("file", digest.bytes());
        }
    }
    Ok(())
}

/// What the guest gets while it starts, and how it is entered.
fn guest(request: &BuildRequest<'_>, hasher: &mut Hasher) -> Result<()> {
    let build = request.build;
    let watch = Watch::new(&*request.stop, None);
    hasher.shown(
        "name",
        &(&build.name, &build.kind, request.template.dialect),
    );
    hasher.shown("seed", &build.seed);
    hasher.shown("boot", &build.boot);
    // What is on media that are made is in those; the server's port and address differ from run to run anyway.
    hasher.shown("served", &build.media.http_content);
    if let Some(directory) = &build.media.http_directory {
        let directory = request.surroundings.directory.join(directory);
        let contents = format!("{}/", directory.display());
        uploaded(&contents, &watch, &mut |name, bytes| {
            hasher.take(name, bytes);
        })?;
    }
    if let Some(ssh) = &build.communicator {
        // How long, how often and by which ciphers is nothing to the guest.
        let seen = Ssh {
            timeout: None,
            attempts: None,
            keep_alive: None,
            ciphers: Vec::new(),
            key_exchanges: Vec::new(),
            private_key: None,
            certificate: None,
            ..ssh.clone()
        };
        hasher.shown("ssh", &seen);
        if let Some(key) = &ssh.private_key {
            let key = request.surroundings.directory.join(key);
            hasher.take("key", &read_file(key, LONGEST_KEY)?);
        }
    }
    Ok(())
}

/// The key of the state after `step`; words instead, where it is run every time.
fn one_step(
    request: &BuildRequest<'_>,
    step: &Provisioner,
    before: &str,
) -> Result<Result<String, String>> {
    let watch = Watch::new(&*request.stop, None);
    let mut keys = Vec::new();
    // Once more with other values of what differs from run to run: whether it depends on them.
    for variant in ["1", "2"] {
        let mut hasher = Hasher::new();
        hasher.take("before", before.as_bytes());
        let why = contents(
            step,
            &texts(request, variant),
            &watch,
            &mut |name, bytes| {
                hasher.take(name, bytes);
            },
        );
        match why {
            Ok(None) => keys.push(hasher.finish()),
            Ok(Some(why)) => return Ok(Err(why.to_owned())),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // Running it tells better what is wrong with it.
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    match keys.as_slice() {
        [one, other] if one == other => Ok(Ok(one.clone())),
        [_, _] => Ok(Err(
            "it is filled in with what differs from run to run: a port, a time, an id".to_owned(),
        )),
        _ => Err(Error::usage("a step has no key")),
    }
}

/// What texts of a template are filled in with, before a machine runs. What differs from run to run is `variant`.
fn texts(request: &BuildRequest<'_>, variant: &str) -> Texts {
    let build = request.build;
    let texts = Texts::default();
    for (name, value) in [
        ("OutputDir", build.output.directory.display().to_string()),
        ("Name", build.output.name.clone()),
        // A guest that fetched something has it; what there is to be fetched is in the key.
        ("HTTPIP", "\0address".to_owned()),
        ("HTTPPort", "\0port".to_owned()),
        ("HTTPDir", "\0directory".to_owned()),
        ("SSHHostPort", variant.to_owned()),
    ] {
        texts.field(name, value);
    }
    let ssh = build.communicator.as_ref();
    for (name, value) in [
        ("ID", "VM"),
        (
            "Host",
            ssh.and_then(|ssh| ssh.host.as_deref())
                .unwrap_or("127.0.0.1"),
        ),
        ("ConnType", "ssh"),
        ("User", ssh.map_or("", |ssh| &ssh.username)),
        (
            "Password",
            ssh.and_then(|ssh| ssh.password.as_deref())
                .unwrap_or_default(),
        ),
        // They are kept with the state.
        ("SSHPublicKey", "\0public"),
        ("SSHPrivateKey", "\0private"),
        ("SSHPrivateKeyFile", variant),
        ("Port", variant),
        ("PackerRunUUID", variant),
    ] {
        texts.of_build(name, value);
    }
    texts
}

#[cfg(test)]
mod tests;

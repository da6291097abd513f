//! The state of a machine: its disks set aside, its memory and devices in a file, and a machine that goes on from there.
//!
//! Knows QEMU's commands for that. Must not know what the state is kept for, nor where.
//!
//! The guest is held for as long as it takes: what it had written becomes a file that nobody writes any more, and it goes
//! on with a new overlay of that. QEMU is not started anew.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

use super::launcher::{Launcher, Streams};
use super::qmp::SOON;
use super::running::Running;

/// For QEMU to hold its guest and flush its disks.
const FLUSHING: Duration = Duration::from_secs(120);

/// For a machine's memory to be written or read.
const MOVING: Duration = Duration::from_secs(900);

/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(5);

/// Longest word about a version.
const LONGEST_VERSION: u64 = 4096;

/// Longest table of the host's processors.
const LONGEST_TABLE: u64 = 16 << 20;

/// Bytes a second, more than any host has: there is no reason to be slow.
const BANDWIDTH: u64 = 1 << 50;

/// A disk or medium that the machine may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// QEMU's name of the device; empty where it has none.
    pub device: String,
    /// QEMU's name of the topmost node.
    pub node: String,
    /// The file.
    pub file: PathBuf,
}

/// An overlay that takes a disk's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The file that the machine writes now.
    pub of: PathBuf,
    /// A qcow2 image without contents, of the same size, whose backing file is the one before it.
    pub file: PathBuf,
}

/// What became of a machine that was held.
#[derive(Debug)]
pub struct Held {
    /// The guest stood still for so long.
    pub stood: Duration,
    /// Why there is no file with its memory, if there is none.
    pub no_memory: Option<Error>,
}

/// What `qemu` says of itself: its version and its distributor's.
///
/// # Errors
///
/// When it cannot be started, or says nothing.
pub fn version(qemu: &Path, launcher: &Launcher, stop: &Stop) -> Result<String> {
    let refused = |cause| Error::io("ask QEMU for its version", cause);
    let (said, says) = std::io::pipe().map_err(refused)?;
    let streams = Streams {
        input: Stdio::null(),
        output: Stdio::from(says),
        errors: Stdio::null(),
        directory: None,
    };
    let process = launcher.start(qemu, &["--version".into()], streams)?;
    if process.wait(SOON, stop)?.is_none() {
        return Err(Error::new(
            ErrorKind::TimedOut,
            "QEMU does not tell its version",
        ));
    }
    let mut words = String::new();
    said.take(LONGEST_VERSION)
        .read_to_string(&mut words)
        .map_err(refused)?;
    let first = words.lines().next().unwrap_or_default().trim();
    let first = first
        .strip_prefix("QEMU emulator version ")
        .unwrap_or(first);
    if first.is_empty() {
        return Err(Error::unsupported("this QEMU has no version").at_path(qemu));
    }
    Ok(first.to_owned())
}

/// The host's processor as a guest sees it that is given it as it is; empty, where the host does not tell.
pub fn processor() -> String {
    let table = crate::store::read_file("/proc/cpuinfo", LONGEST_TABLE).unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let first = table.split("\n\n").next().unwrap_or_default();
    let tells = [
        "vendor_id",
        "cpu family",
        "model",
        "stepping",
        "microcode",
        "flags",
        "Features",
    ];
    first
        .lines()
        .filter(|line| {
            let name = line.split(':').next().unwrap_or_default().trim();
            tells.contains(&name) || name == "model name"
        })
        .collect::<Vec<_>>()
        .join("\n")
}

impl Running {
    /// All files that the machine may write as disks, media or flash.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn written_files(&self) -> Result<Vec<Written>> {
        let answer = self.qmp().execute("query-block", &Value::Null, SOON)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let devices = answer.as_array().cloned().unwrap_or_default();
        let overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(devices
            .iter()
            .filter(|device| device["inserted"].is_object() && device["inserted"]["ro"] != true)
            .map(|device| {
                let node = text(&device["inserted"]["node-name"]);
                // QEMU cuts off the description of a chain that is long.
                let known = overlays.get(&node).cloned();
                Written {
                    device: text(&device["device"]),
                    file: known.unwrap_or_else(|| file_of(&text(&device["inserted"]["file"]))),
                    node,
                }
            })
            .collect())
    }

    /// Why this machine's memory cannot be had, in QEMU's words; none, where nothing is in the way.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn memory_is_blocked(&self) -> Result<Option<String>> {
        let answer = self.qmp().execute("query-migrate", &Value::Null, SOON)?;
        let reasons = answer["blocked-reasons"].as_array();
        let reasons: Vec<&str> = reasons
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }

    /// Holds the guest, has it go on with `overlays`, and lets it go on; with `memory`, its memory and devices are in that
    /// file then. `meanwhile` is called while nothing is written.
    ///
    /// # Errors
    ///
    /// When QEMU refuses, or `meanwhile` fails: then all is as before. When the guest cannot go on: then the machine is lost.
    pub fn hold(
        &self,
        overlays: &[Overlay],
        memory: Option<&Path>,
        meanwhile: &mut dyn FnMut() -> Result<()>,
        stop: &Stop,
    ) -> Result<Held> {
        let started = Instant::now();
        let written = self.written_files()?;
        let mut actions = Vec::new();
        let mut named = BTreeMap::new();
        let so_many = self
            .overlays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        for (number, overlay) in (so_many..).zip(overlays) {
            let device = written
                .iter()
                .find(|written| written.file == overlay.of)
                .ok_or_else(|| {
                    Error::unsupported("the machine does not have this disk under its own name")
                        .at_path(&overlay.of)
                })?;
            let (key, name) = if device.device.is_empty() {
                ("node-name", &device.node)
            } else {
                ("device", &device.device)
            };
            let file = overlay.file.to_str().ok_or_else(|| {
                Error::usage("has a name that is not UTF-8").at_path(&overlay.file)
            })?;
            let own = format!("qimg-overlay-{number}");
            actions.push(json!({
                "type": "blockdev-snapshot-sync",
                "data": {key: name, "snapshot-file": file, "snapshot-node-name": own, "format": "qcow2", "mode": "existing"},
            }));
            named.insert(own, overlay.file.clone());
        }
        self.qmp()
            .execute_unless("stop", &Value::Null, FLUSHING, &|| false)?;
        let result = meanwhile().and_then(|()| {
            self.qmp()
                .execute("transaction", &json!({ "actions": actions }), FLUSHING)
        });
        if result.is_ok() {
            self.overlays
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&mut named);
        }
        let no_memory = match (&result, memory) {
            (Ok(_), Some(file)) => self.write_memory(file, stop).err(),
            _ => None,
        };
        // Whatever failed, the guest goes on; a machine that is lost is noticed by those who watch it.
        self.qmp().execute("cont", &Value::Null, FLUSHING)?;
        result?;
        let stood = started.elapsed();
        Ok(Held { stood, no_memory })
    }

    /// Writes into the overlay `file`, which the machine has, that the disk below it is the file `below`.
    ///
    /// # Errors
    ///
    /// The machine has no such overlay; QEMU cannot write it.
    pub fn name_below(&self, file: &Path, below: &Path) -> Result<()> {
        let written = self.written_files()?;
        let device = written
            .iter()
            .find(|written| written.file == file)
            .ok_or_else(|| Error::unsupported("the machine has no such overlay").at_path(file))?;
        let root = if device.device.is_empty() {
            &device.node
        } else {
            &device.device
        };
        let below = below
            .to_str()
            .ok_or_else(|| Error::usage("has a name that is not UTF-8").at_path(below))?;
        let arguments =
            json!({"device": root, "image-node-name": device.node, "backing-file": below});
        self.qmp()
            .execute("change-backing-file", &arguments, FLUSHING)
            .map(drop)
    }

    fn write_memory(&self, file: &Path, stop: &Stop) -> Result<()> {
        self.qmp().execute(
            "migrate-set-parameters",
            &json!({ "max-bandwidth": BANDWIDTH }),
            SOON,
        )?;
        let uri = uri(file)?;
        self.qmp()
            .execute("migrate", &json!({ "uri": uri }), FLUSHING)?;
        let result = self.moved(stop);
        if result.is_err() {
            let _ = self.qmp().execute("migrate_cancel", &Value::Null, SOON);
            // Only when that is over the guest can go on.
            let _ = self.moved(&|| false);
        }
        result
    }

    /// The guest is as it was when `file` was written, and stands still.
    pub(super) fn take_state(&self, file: &Path, stop: &Stop) -> Result<()> {
        let uri = uri(file)?;
        self.qmp()
            .execute("migrate-incoming", &json!({ "uri": uri }), FLUSHING)?;
        self.moved(stop)
    }

    fn moved(&self, stop: &Stop) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = self
                .qmp()
                .execute("query-migrate", &Value::Null, FLUSHING)?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let words = answer["error-desc"].as_str().unwrap_or("no reason given");
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("QEMU cannot move the machine's state: {words}"),
                    ));
                }
                _ => {}
            }
            if stop() {
                return Err(Error::cancelled());
            }
            if started.elapsed() > MOVING {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "QEMU does not get done with the machine's state",
                ));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The file in QEMU's word for one: where its backing file has another name than is written in it, QEMU shows all there is
/// as JSON.
fn file_of(shown: &str) -> PathBuf {
    let described = shown
        .strip_prefix("json:")
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let name = described.as_ref().and_then(|value| {
        value["file"]["filename"]
            .as_str()
            .or(value["filename"].as_str())
    });
    PathBuf::from(name.unwrap_or(shown))
}

fn uri(file: &Path) -> Result<String> {
    let name = file
        .to_str()
        .ok_or_else(|| Error::usage("has a name that is not UTF-8").at_path(file))?;
    Ok(format!("file:{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_however_qemu_shows_it() {
        let shown = r#"json:{"backing": {"driver": "qcow2", "file": {"driver": "file", "filename": "/a/below"}}, "driver": "qcow2", "file": {"driver": "file", "filename": "/a/disk"}}"#;
        assert_eq!(file_of(shown), Path::new("/a/disk"));
        assert_eq!(file_of("/a/json:b"), Path::new("/a/json:b"));
        assert_eq!(file_of("json:{"), Path::new("json:{"));
        assert_eq!(file_of("json:[1]"), Path::new("json:[1]"));
    }
}

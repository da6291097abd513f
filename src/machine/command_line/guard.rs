//! What a template's `qemuargs` may not take away: the control channel, the log of the console, supervision; and the
//! files that they would write.
//!
//! Knows which switches of QEMU meet with those of the supervision. Must not know Packer's rule of replacing.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::error::Result;

use super::super::accelerator::Accelerator;
use super::options::escaped;
use super::{Argument, Boot, Drive, Options, Spec};

/// Standard input and output of QEMU are the two channels to it.
const CONTROL: &str = "socket,id=qimg-control,fd=0";
const CONSOLE: &str = "socket,id=qimg-console,fd=1";

/// Serial ports that a PC can have.
const SERIAL_PORTS: usize = 4;

/// Where firmware files of the system lie: nothing there is a guest's to write.
const SYSTEM: &[&str] = &[
    "/usr",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/snap",
];

/// What `qemuargs` speak of that must be known before a command line is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// They attach the main disk.
    pub names_main: bool,
    /// Files of firmware that they would write, as written there: each needs a private copy.
    pub firmware: Vec<PathBuf>,
    /// The accelerator they ask for.
    pub accelerator: Option<String>,
}

/// Looks through `qemuargs`; `main` is the name of the main disk in them, relative names start from `directory`.
pub fn wishes(qemu_args: &[(String, Vec<String>)], main: &Path, directory: &Path) -> Wish {
    let mut wish = Wish::default();
    let mut firmware = BTreeSet::new();
    for (switch, values) in qemu_args {
        let value = values.concat();
        match plain(switch) {
            "-drive" => {
                let options = Options::parse(&value);
                let Some(file) = options.value("file") else {
                    continue;
                };
                if same(directory, Path::new(file), main) {
                    wish.names_main = true;
                } else if writes_firmware(&options, file, directory) {
                    firmware.insert(PathBuf::from(file));
                }
            }
            "-hda" | "-hdb" | "-hdc" | "-hdd" => {
                wish.names_main |= same(directory, Path::new(&value), main);
            }
            "-pflash" => {
                firmware.insert(PathBuf::from(&value));
            }
            "-blockdev" => {
                let options = Options::parse(&value);
                let Some(file) = options.value("filename").or(options.value("file.filename"))
                else {
                    continue;
                };
                wish.names_main |= same(directory, Path::new(file), main);
                if !options.is_on("read-only") && is_system(file, directory) {
                    firmware.insert(PathBuf::from(file));
                }
            }
            "-enable-kvm" => wish.accelerator = Some("kvm".to_owned()),
            "-accel" => {
                let options = Options::parse(&value);
                wish.accelerator = options.kind().or(options.value("accel")).map(str::to_owned);
            }
            "-machine" | "-M" => {
                if let Some(accelerator) = Options::parse(&value).value("accel") {
                    wish.accelerator = Some(accelerator.to_owned());
                }
            }
            _ => {}
        }
    }
    wish.firmware = firmware.into_iter().collect();
    wish
}

fn writes_firmware(options: &Options, file: &str, directory: &Path) -> bool {
    let read_only = options.is_on("readonly") || options.is_on("read-only");
    let flash = options.value("if") == Some("pflash");
    !read_only && (flash || is_system(file, directory))
}

fn is_system(file: &str, directory: &Path) -> bool {
    let file = normal(directory, Path::new(file));
    SYSTEM.iter().any(|place| file.starts_with(place))
        && file.extension().is_some_and(|end| end == "fd")
}

/// A switch with one dash: QEMU takes two for one.
pub fn plain(switch: &str) -> &str {
    match switch.strip_prefix("--") {
        Some(rest) if !rest.is_empty() => &switch[1..],
        _ => switch,
    }
}

fn normal(directory: &Path, path: &Path) -> PathBuf {
    let whole = directory.join(path);
    whole
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

fn same(directory: &Path, one: &Path, other: &Path) -> bool {
    normal(directory, one) == normal(directory, other)
}

/// `model` as this accelerator can have it.
pub(super) fn cpu(model: &str, accelerator: &Accelerator) -> String {
    let rest = model
        .strip_prefix("host")
        .filter(|rest| rest.is_empty() || rest.starts_with(','));
    match rest {
        Some(rest) if !accelerator.is_hardware() => format!("max{rest}"),
        _ => model.to_owned(),
    }
}

/// What became of `qemuargs`.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    pub(super) arguments: Vec<Argument>,
    pub(super) supervision: Vec<Argument>,
    pub(super) names_main: bool,
    /// Files of qimg's disks that they attach.
    pub(super) attached: Vec<PathBuf>,
    pub(super) accelerator_given: bool,
    pub(super) display_given: bool,
}

pub(super) fn guard(spec: &Spec<'_>, warnings: &mut Vec<String>) -> Result<Guarded> {
    let mut guard = Guard {
        spec,
        warnings,
        result: Guarded::default(),
        serial: Vec::new(),
        has_monitor: false,
        has_panic_device: false,
        has_panic_action: false,
    };
    if let Some(model) = &spec.machine.cpu_model {
        guard.tell_cpu(model);
    }
    if !spec.machine.headless && !spec.has_display {
        guard.warn("there is no display here: the machine has no window");
    }
    for (switch, values) in spec.qemu_args {
        if !switch.is_empty() {
            guard.take(switch, values.concat())?;
        }
    }
    guard.supervise();
    Ok(guard.result)
}

struct Guard<'a, 'b> {
    spec: &'a Spec<'a>,
    warnings: &'b mut Vec<String>,
    result: Guarded,
    serial: Vec<String>,
    has_monitor: bool,
    has_panic_device: bool,
    has_panic_action: bool,
}

impl Guard<'_, '_> {
    fn warn(&mut self, words: impl Into<String>) {
        let words = words.into();
        if !self.warnings.contains(&words) {
            self.warnings.push(words);
        }
    }

    fn keep(&mut self, switch: &str, value: impl Into<String>) {
        self.result
            .arguments
            .push((switch.to_owned(), value.into()));
    }

    fn take(&mut self, switch: &str, value: String) -> Result<()> {
        match plain(switch) {
            "-serial" => self.serial.push(value),
            "-nographic" => {
                // What it means, less the console on standard output: that one is in the log.
                self.keep("-machine", "graphics=off");
                self.display("none".to_owned());
            }
            "-display" => self.display(value),
            "-sdl" | "-curses" => self.display(plain(switch)[1..].to_owned()),
            "-monitor" | "-qmp" | "-qmp-pretty" | "-parallel" | "-debugcon" | "-gdb" => {
                self.has_monitor |= plain(switch) == "-monitor";
                if is_stdio(&value) {
                    self.warn(format!(
                        "{switch} {value} in qemuargs is left out: qimg reads QEMU's output itself"
                    ));
                    if plain(switch) == "-monitor" {
                        self.keep(switch, "none");
                    }
                } else {
                    self.keep(switch, value);
                }
            }
            "-chardev" => {
                let mut options = Options::parse(&value);
                if options.kind() == Some("stdio") {
                    self.warn(format!("-chardev {value} in qemuargs leads nowhere: qimg reads QEMU's output itself"));
                    options.set_kind("null");
                }
                self.keep(switch, options.to_string());
            }
            "-daemonize" => {
                self.warn("-daemonize in qemuargs is left out: QEMU must end with qimg");
            }
            "-S" => self.warn("-S in qemuargs is left out: qimg starts the machine"),
            "-snapshot" => {
                self.warn("-snapshot in qemuargs: what the guest writes is thrown away");
                self.keep(switch, value);
            }
            "-action" => {
                self.has_panic_action |= Options::parse(&value).value("panic").is_some();
                self.keep(switch, value);
            }
            "-device" => {
                let kind = Options::parse(&value);
                let kind = kind.kind().or(kind.value("driver")).unwrap_or_default();
                self.has_panic_device |= kind.starts_with("pvpanic");
                self.keep(switch, value);
            }
            "-cpu" => {
                self.tell_cpu(&value);
                let value = cpu(&value, self.spec.accelerator);
                self.keep(switch, value);
            }
            "-enable-kvm" | "-accel" => self.accelerator(switch, value),
            "-machine" | "-M" => self.machine(switch, &value),
            "-drive" => self.drive(switch, &value)?,
            "-pflash" => {
                let value = match self.spec.copies.get(Path::new(&value)) {
                    Some(copy) => {
                        self.tell_copy(&value, copy);
                        super::path_text(copy)?.to_owned()
                    }
                    None => value,
                };
                self.keep(switch, value);
            }
            "-blockdev" => self.blockdev(switch, value)?,
            "-hda" | "-hdb" | "-hdc" | "-hdd" => match self.attach(&value) {
                Some(disk) => self.keep(switch, super::path_text(&disk.path)?),
                None => self.keep(switch, value),
            },
            "-netdev" | "-nic" | "-net" => {
                self.tell_open_ports(switch, &value);
                self.keep(switch, value);
            }
            "-vnc" => {
                let host = value.split(':').next().unwrap_or_default();
                if matches!(host, "" | "0.0.0.0" | "[") && value.contains(':') {
                    self.warn(format!(
                        "-vnc {value} in qemuargs lets other machines see this one"
                    ));
                }
                self.keep(switch, value);
            }
            _ => self.keep(switch, value),
        }
        Ok(())
    }

    fn tell_cpu(&mut self, model: &str) {
        let has = cpu(model, self.spec.accelerator);
        if has != model {
            self.warn(format!(
                "-cpu {model} needs KVM: the machine has -cpu {has}"
            ));
        }
    }

    fn display(&mut self, value: String) {
        let options = Options::parse(&value);
        let kind = options.kind().unwrap_or_default();
        let windowless = matches!(kind, "none" | "egl-headless" | "dbus" | "vnc");
        // One on a terminal would write into what qimg reads.
        let possible = windowless || (self.spec.has_display && kind != "curses");
        if !possible {
            self.warn(format!(
                "-display {value} in qemuargs cannot be had here: the machine has no window"
            ));
        }
        self.result.display_given = true;
        self.keep("-display", if possible { value } else { "none".to_owned() });
    }

    fn accelerator(&mut self, switch: &str, value: String) {
        self.result.accelerator_given = true;
        let options = Options::parse(&value);
        let wanted = match plain(switch) {
            "-enable-kvm" => "kvm",
            _ => options
                .kind()
                .or(options.value("accel"))
                .unwrap_or_default(),
        };
        if wanted == "kvm" && *self.spec.accelerator == Accelerator::Tcg {
            self.warn(format!("{switch} {value} in qemuargs: there is no usable KVM here, the machine runs with TCG").replace("  ", " "));
            if let Some(value) = self.spec.accelerator.argument() {
                self.keep("-accel", value);
            }
        } else {
            self.keep(switch, value);
        }
    }

    fn machine(&mut self, switch: &str, value: &str) {
        let mut options = Options::parse(value);
        if let Some(wanted) = options.value("accel") {
            self.result.accelerator_given = true;
            let first = wanted.split(':').next();
            if first == Some("kvm") && *self.spec.accelerator == Accelerator::Tcg {
                if wanted == "kvm" {
                    self.warn(format!("{switch} {value} in qemuargs: there is no usable KVM here, the machine runs with TCG"));
                }
                options.set("accel", "tcg");
            }
        }
        self.keep(switch, options.to_string());
    }

    fn is_main(&self, file: &str) -> bool {
        same(
            self.spec.directory,
            Path::new(file),
            self.spec.main_by_template,
        )
    }

    /// The disk that the template means by `file`: the main one, or one of the further ones, which are called like it
    /// with their number behind, from 1 on.
    fn own_disk(&self, file: &str) -> Option<&Drive> {
        let spec = self.spec;
        if self.is_main(file) {
            return Some(&spec.main);
        }
        let numbered = |number: usize| {
            let mut name = spec.main_by_template.as_os_str().to_owned();
            name.push(format!("-{number}"));
            PathBuf::from(name)
        };
        let mut further = (1..).zip(spec.additional);
        further
            .find(|(number, _)| same(spec.directory, Path::new(file), &numbered(*number)))
            .map(|(_, drive)| drive)
    }

    /// The disk that `file` means, from now on one that the template attaches.
    fn attach(&mut self, file: &str) -> Option<Drive> {
        let drive = self.own_disk(file)?.clone();
        self.result.names_main |= self.is_main(file);
        self.result.attached.push(drive.path.clone());
        Some(drive)
    }

    fn drive(&mut self, switch: &str, value: &str) -> Result<()> {
        let mut options = Options::parse(value);
        let file = options.value("file").unwrap_or_default().to_owned();
        if let Some(disk) = self.attach(&file) {
            set_path(&mut options, "file", &disk.path)?;
            if let Some(format) = options
                .value("format")
                .filter(|&format| format != disk.format)
            {
                self.warn(format!("{switch} {value} in qemuargs: format={format} becomes format={}, which the disk has", disk.format));
            }
            options.set("format", &disk.format);
            // After a power loss nobody needs this disk: flushes of the guest's need not reach the host's.
            let cache = options.value("cache").unwrap_or("writeback");
            if cache == "writeback" && options.value("cache.no-flush").is_none() {
                options.set("cache.no-flush", "on");
            }
        } else if let Some(copy) = self.spec.copies.get(Path::new(&file)) {
            self.tell_copy(&file, copy);
            set_path(&mut options, "file", copy)?;
        } else {
            self.keep(switch, value);
            return Ok(());
        }
        self.keep(switch, options.to_string());
        Ok(())
    }

    fn blockdev(&mut self, switch: &str, value: String) -> Result<()> {
        let mut options = Options::parse(&value);
        for key in ["filename", "file.filename"] {
            let Some(file) = options.value(key).map(str::to_owned) else {
                continue;
            };
            if let Some(disk) = self.attach(&file) {
                set_path(&mut options, key, &disk.path)?;
                // Format and file in one node: this one is the disk's own.
                if key == "file.filename" && options.value("driver") == Some("raw") {
                    self.warn(format!("{switch} {value} in qemuargs: driver=raw becomes driver={}, which the disk has", disk.format));
                    options.set("driver", &disk.format);
                }
            } else if let Some(copy) = self.spec.copies.get(Path::new(&file)) {
                self.tell_copy(&file, copy);
                set_path(&mut options, key, copy)?;
            } else {
                continue;
            }
            self.keep(switch, options.to_string());
            return Ok(());
        }
        self.keep(switch, value);
        Ok(())
    }

    fn tell_copy(&mut self, file: &str, copy: &Path) {
        // The machine's own variables are a copy whatever the template says.
        if matches!(self.spec.boot, Some(Boot::Flash(flash)) if flash.variables == copy) {
            return;
        }
        self.warn(format!(
            "qemuargs would have the guest write {file}: it writes a copy"
        ));
    }

    fn tell_open_ports(&mut self, switch: &str, value: &str) {
        let options = Options::parse(value);
        for rule in options.values("hostfwd") {
            // tcp:ADDRESS:PORT-...; without an address it is all of them.
            let address = rule.split(':').nth(1).unwrap_or_default();
            if matches!(address, "" | "0.0.0.0") {
                self.warn(format!(
                    "{switch} in qemuargs lets other machines reach the guest: hostfwd={rule}"
                ));
            }
        }
    }

    /// The first serial port is the log of the console; theirs come after it, or take part in it.
    fn supervise(&mut self) {
        let serial = std::mem::take(&mut self.serial);
        let mut console = CONSOLE.to_owned();
        let mut others = Vec::new();
        for (number, value) in serial.into_iter().enumerate() {
            let first = number == 0;
            if let Some(file) = value.strip_prefix("file:").filter(|_| first) {
                // QEMU writes both.
                console = format!("{CONSOLE},logfile={},logappend=off", escaped(file));
            } else if first
                && matches!(
                    value.as_str(),
                    "none" | "null" | "vc" | "stdio" | "mon:stdio"
                )
            {
                // All of these are what the log is there for, or less.
            } else if is_stdio(&value) {
                self.warn(format!(
                    "-serial {value} in qemuargs leads nowhere: qimg reads QEMU's output itself"
                ));
                others.push("null".to_owned());
            } else {
                if first {
                    self.warn(format!("-serial {value} in qemuargs becomes the second serial port: the first one is qimg's log"));
                }
                others.push(value);
            }
        }
        while others.len() >= SERIAL_PORTS {
            if let Some(value) = others.pop() {
                self.warn(format!(
                    "-serial {value} in qemuargs is left out: there are {SERIAL_PORTS} serial ports"
                ));
            }
        }
        let result = &mut self.result.supervision;
        let mut add =
            |switch: &str, value: &str| result.push((switch.to_owned(), value.to_owned()));
        add("-chardev", CONTROL);
        add("-mon", "chardev=qimg-control,mode=control");
        add("-chardev", &console);
        add("-serial", "chardev:qimg-console");
        for value in &others {
            add("-serial", value);
        }
        if !self.has_monitor {
            add("-monitor", "none");
        }
        if !self.has_panic_device && has_isa(self.spec) {
            add("-device", "pvpanic");
        }
        if !self.has_panic_action {
            // It stays to be looked at.
            add("-action", "panic=pause");
        }
        add("-S", "");
    }
}

fn set_path(options: &mut Options, key: &str, path: &Path) -> Result<()> {
    options.set(key, super::path_text(path)?);
    Ok(())
}

fn is_stdio(value: &str) -> bool {
    matches!(
        value,
        "stdio" | "mon:stdio" | "chardev:stdio" | "/dev/stdin" | "/dev/stdout" | "file:/dev/stdout"
    )
}

/// Whether the machine has an ISA bus, where the panic device sits.
fn has_isa(spec: &Spec<'_>) -> bool {
    let mut kind = spec.machine.machine_type.clone().unwrap_or_default();
    for (switch, values) in spec.qemu_args {
        if matches!(plain(switch), "-machine" | "-M") {
            let options = Options::parse(&values.concat());
            if let Some(given) = options.kind().or(options.value("type")) {
                given.clone_into(&mut kind);
            }
        }
    }
    let program = Path::new(&spec.machine.qemu)
        .file_name()
        .and_then(|name| name.to_str());
    let other = program
        .and_then(|name| name.strip_prefix("qemu-system-"))
        .is_some_and(|architecture| !matches!(architecture, "x86_64" | "i386"));
    !other && ["", "pc", "q35"].contains(&kind.as_str()) || kind.starts_with("pc-")
}

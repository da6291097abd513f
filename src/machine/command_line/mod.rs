//! The command line of a QEMU: from a machine's description, what a template changes of it, and what supervision needs.
//!
//! Knows Packer's default arguments and its rule for `qemuargs`: a switch that is given replaces all default values of
//! that switch. Pure: it looks at no file and asks no host. Same input, same words in the same order.

mod guard;
mod options;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::template::model::{Disk, Machine, NetworkBoot};

use super::accelerator::Accelerator;
use super::firmware::Flash;
pub use guard::{Wish, plain, wishes};
pub use options::Options;
pub(in crate::machine) use options::path_value;
use options::{escaped, path_text};

/// A disk or medium of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The file.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// The forwarded port that leads to the guest's SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On the loopback address; 0: the kernel chooses, and [`super::Running::forwarded_port`] tells.
    pub host: u16,
    /// The guest's.
    pub guest: u16,
}

/// Firmware other than the machine type's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// UEFI in flash. The variables are a private copy.
    Flash(Flash),
    /// `-bios`.
    Bios(PathBuf),
    /// One read-only flash.
    OneFlash(PathBuf),
}

/// All that a command line is made of.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// Name of the machine.
    pub name: &'a str,
    /// The machine as described; its `qemu_args` are not looked at.
    pub machine: &'a Machine,
    /// How the main disk is attached.
    pub disk: &'a Disk,
    /// `qemuargs` with everything filled in.
    pub qemu_args: &'a [(String, Vec<String>)],
    /// The file of the main disk.
    pub main: Drive,
    /// The name under which `qemuargs` may speak of the main disk: its place in the output directory.
    pub main_by_template: &'a Path,
    /// Directory that relative names in `qemuargs` start from.
    pub directory: &'a Path,
    /// Further disks.
    pub additional: &'a [Drive],
    /// The main disk holds a system: the machine boots from it.
    pub boots_from_disk: bool,
    /// Installation media and other CDs, in order.
    pub cds: &'a [PathBuf],
    /// A floppy disk.
    pub floppy: Option<&'a Path>,
    /// What QEMU's user network has for a boot from it; the directory is absolute.
    pub network_boot: Option<&'a NetworkBoot>,
    /// qimg's own seed; survives whatever `qemuargs` say.
    pub seed: Option<&'a Path>,
    /// The way to the guest's SSH; `None`: no port is forwarded.
    pub forward: Option<Forward>,
    /// What runs the guest.
    pub accelerator: &'a Accelerator,
    /// Firmware, if not the machine type's own.
    pub boot: Option<&'a Boot>,
    /// Socket of a software TPM.
    pub tpm: Option<&'a Path>,
    /// There is a display to show a window on.
    pub has_display: bool,
    /// Files that `qemuargs` would write, and what they write instead ([`wishes`] tells which).
    pub copies: &'a BTreeMap<PathBuf, PathBuf>,
}

/// The words, and what is to be said of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Arguments that make the machine.
    pub arguments: Vec<String>,
    /// Arguments by which qimg supervises it; come after the others.
    pub supervision: Vec<String>,
    /// What somebody should know: what `qemuargs` dropped, what was changed in them.
    pub warnings: Vec<String>,
    /// `qemuargs` attach the main disk.
    pub main_by_template: bool,
    /// The machine has the main disk at all.
    pub has_main: bool,
}

impl CommandLine {
    /// All arguments.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.arguments.iter().chain(&self.supervision)
    }
}

/// One switch with its value; empty: it has none.
type Argument = (String, String);

/// The command line of `spec`.
///
/// # Errors
///
/// When a path is no Unicode.
pub fn command_line(spec: &Spec<'_>) -> Result<CommandLine> {
    let mut warnings = Vec::new();
    let guarded = guard::guard(spec, &mut warnings)?;
    let replaced = |switch: &str| {
        let same = |(given, _): &(String, Vec<String>)| given == switch;
        spec.qemu_args.iter().any(same)
    };
    let mentions_nic = spec
        .qemu_args
        .iter()
        .filter(|(switch, _)| switch == "-device")
        .any(|(_, values)| values.concat().contains(&spec.machine.net_device));
    let mut arguments: Vec<Argument> = Vec::new();
    let mut dropped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut has_main = guarded.names_main;
    for default in defaults(spec, guarded.accelerator_given, guarded.display_given)? {
        let Default { argument, role } = default;
        let (switch, value) = argument;
        let keeps_nic = role == Role::Nic && !mentions_nic;
        if replaced(&switch) && !keeps_nic {
            let given = |(other, values): &(String, Vec<String>)| {
                *other == switch && values.concat() == value
            };
            let by_template = match role {
                Role::Disk(file) => guarded.attached.iter().any(|attached| attached == file),
                Role::Plain | Role::Nic => false,
            };
            if !by_template && !spec.qemu_args.iter().any(given) {
                dropped.entry(switch).or_default().push(value);
            }
            continue;
        }
        if let Role::Disk(file) = role {
            // Attached twice, it could not be locked.
            if guarded.attached.iter().any(|attached| attached == file) {
                continue;
            }
            has_main |= file == spec.main.path;
        }
        arguments.push((switch, value));
    }
    for (switch, values) in dropped {
        let values: Vec<String> = values
            .iter()
            .map(|value| {
                if value.is_empty() {
                    switch.clone()
                } else {
                    format!("{switch} {value}")
                }
            })
            .collect();
        warnings.push(format!(
            "{switch} in qemuargs replaces what qimg gives by itself: {}",
            values.join(", ")
        ));
    }
    if !has_main {
        warnings.push(format!(
            "-drive in qemuargs leaves the machine without its main disk; to keep it, add a -drive with file={}",
            spec.main_by_template.display()
        ));
    }
    arguments.extend(guarded.arguments);
    if let Some(seed) = spec.seed {
        arguments.push(("-drive".to_owned(), seed_drive(spec, seed)?));
    }
    Ok(CommandLine {
        arguments: words(arguments),
        supervision: words(guarded.supervision),
        warnings,
        main_by_template: guarded.names_main,
        has_main,
    })
}

fn words(arguments: Vec<Argument>) -> Vec<String> {
    arguments
        .into_iter()
        .flat_map(|(switch, value)| [Some(switch), (!value.is_empty()).then_some(value)])
        .flatten()
        .collect()
}

/// What a default argument is there for, where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role<'a> {
    Plain,
    Nic,
    /// It attaches the disk in this file.
    Disk(&'a Path),
}

struct Default<'a> {
    argument: Argument,
    role: Role<'a>,
}

fn defaults<'a>(
    spec: &'a Spec<'_>,
    accelerator_given: bool,
    display_given: bool,
) -> Result<Vec<Default<'a>>> {
    let machine = spec.machine;
    let mut all = Vec::new();
    let mut add = |switch: &str, value: String, role: Role<'a>| {
        let argument = (switch.to_owned(), value);
        all.push(Default { argument, role });
    };
    add("-name", escaped(spec.name), Role::Plain);
    add("-machine", machine_value(spec), Role::Plain);
    if !accelerator_given && let Some(value) = spec.accelerator.argument() {
        add("-accel", value, Role::Plain);
    }
    let cpu = machine
        .cpu_model
        .as_deref()
        .or(spec.accelerator.default_cpu());
    if let Some(cpu) = cpu {
        add("-cpu", guard::cpu(cpu, spec.accelerator), Role::Plain);
    }
    add("-smp", smp(machine), Role::Plain);
    add("-m", format!("{}M", machine.memory_mib), Role::Plain);
    match spec.boot {
        Some(Boot::Flash(flash)) => {
            for value in flash.drives()? {
                add("-drive", value, Role::Plain);
            }
            for &(switch, value) in flash.switches() {
                add(switch, value.to_owned(), Role::Plain);
            }
        }
        Some(Boot::Bios(path)) => add("-bios", path_text(path)?.to_owned(), Role::Plain),
        Some(Boot::OneFlash(path)) => add(
            "-drive",
            format!(
                "if=pflash,unit=0,format=raw,readonly=on,file={}",
                path_value(path)?
            ),
            Role::Plain,
        ),
        None => {}
    }
    let boot_files = match spec.network_boot {
        Some(network) => format!(
            ",tftp={},bootfile={}",
            path_value(&network.directory)?,
            escaped(&network.file)
        ),
        None => String::new(),
    };
    let net = match (&machine.net_bridge, spec.forward) {
        (Some(bridge), _) => format!("bridge,id=user.0,br={}", escaped(bridge)),
        (None, Some(Forward { host, guest })) => {
            format!("user,id=user.0,hostfwd=tcp:127.0.0.1:{host}-:{guest}{boot_files}")
        }
        (None, None) => format!("user,id=user.0{boot_files}"),
    };
    add("-netdev", net, Role::Plain);
    add(
        "-device",
        format!("{},netdev=user.0", machine.net_device),
        Role::Nic,
    );
    let drives = std::iter::once(&spec.main).chain(spec.additional);
    for (number, drive) in drives.enumerate() {
        let (devices, value) = disk(spec.disk, drive, number)?;
        for device in devices {
            add("-device", device, Role::Plain);
        }
        add("-drive", value, Role::Disk(&drive.path));
    }
    for (number, cd) in spec.cds.iter().enumerate() {
        let (devices, value) = cdrom(machine.cdrom_interface.as_deref(), cd, number)?;
        for device in devices {
            add("-device", device, Role::Plain);
        }
        add("-drive", value, Role::Plain);
    }
    if let Some(floppy) = spec.floppy {
        add("-fda", path_text(floppy)?.to_owned(), Role::Plain);
    }
    let is_flash = matches!(spec.boot, Some(Boot::Flash(_)));
    if !is_flash {
        let order = match (spec.boots_from_disk, spec.network_boot) {
            (_, Some(_)) => "once=n",
            (true, None) => "c",
            (false, None) => "once=d",
        };
        add("-boot", order.to_owned(), Role::Plain);
    }
    if let (Some(socket), Some(tpm)) = (spec.tpm, &machine.tpm) {
        add(
            "-chardev",
            format!("socket,id=vtpm,path={}", path_value(socket)?),
            Role::Plain,
        );
        add(
            "-tpmdev",
            "emulator,id=tpm0,chardev=vtpm".to_owned(),
            Role::Plain,
        );
        add(
            "-device",
            format!("{},tpmdev=tpm0", tpm.device),
            Role::Plain,
        );
    }
    if let Some(vga) = &machine.vga {
        add("-vga", vga.clone(), Role::Plain);
    }
    if let Some(vnc) = &machine.vnc {
        // QEMU itself takes the first free one of the range.
        let first = vnc.ports.0.saturating_sub(5900);
        let last = vnc.ports.1.saturating_sub(5900).max(first);
        let password = if vnc.password.is_some() {
            ",password=on"
        } else {
            ""
        };
        let to = if last > first {
            format!(",to={last}")
        } else {
            String::new()
        };
        add(
            "-vnc",
            format!("{}:{first}{to}{password}", escaped(&vnc.address)),
            Role::Plain,
        );
    }
    if let Some(path) = &machine.qmp_socket {
        add(
            "-qmp",
            format!("unix:{},server=on,wait=off", path_value(path)?),
            Role::Plain,
        );
    }
    if !display_given && let Some(display) = display(machine, spec.has_display) {
        add("-display", display, Role::Plain);
    }
    Ok(all)
}

/// A window where one is wanted and can be; `None`: whatever this QEMU takes by itself.
fn display(machine: &Machine, has_display: bool) -> Option<String> {
    if machine.headless || !has_display {
        return Some("none".to_owned());
    }
    machine.display.clone()
}

fn machine_value(spec: &Spec<'_>) -> String {
    let secure = matches!(spec.boot, Some(Boot::Flash(flash)) if flash.needs_smm);
    let kind = match &spec.machine.machine_type {
        Some(kind) => kind,
        None if secure => "q35",
        None => "pc",
    };
    let smm = if secure { ",smm=on" } else { "" };
    format!("type={kind}{smm}")
}

fn smp(machine: &Machine) -> String {
    let mut value = machine.cpus.to_string();
    for (name, count) in ["sockets", "cores", "threads"].iter().zip(machine.topology) {
        if let Some(count) = count {
            value.push_str(&format!(",{name}={count}"));
        }
    }
    value
}

/// Devices, and the value of `-drive`.
fn disk(how: &Disk, drive: &Drive, number: usize) -> Result<(Vec<String>, String)> {
    let file = path_value(&drive.path)?;
    let mut cache = format!("cache={},discard={}", how.cache, how.discard);
    if let Some(zeroes) = how
        .detect_zeroes
        .as_deref()
        .filter(|&zeroes| zeroes != "off")
    {
        cache.push_str(&format!(",detect-zeroes={zeroes}"));
    }
    let format = &drive.format;
    let controller = match how.interface.as_str() {
        "virtio-scsi" => Some(("virtio-scsi-pci", "scsi", "scsi-hd", ".0")),
        // What these words mean, as QEMU has no `if=` for them any more.
        "scsi" => Some(("lsi53c895a", "scsi", "scsi-hd", ".0")),
        "sata" => Some(("ahci", "sata", "ide-hd", "")),
        _ => None,
    };
    Ok(match controller {
        Some((controller, bus, device, end)) => {
            let end = if end.is_empty() {
                format!(".{number}")
            } else {
                end.to_owned()
            };
            let mut devices = Vec::new();
            if number == 0 {
                devices.push(format!("{controller},id={bus}0"));
            }
            devices.push(format!("{device},bus={bus}0{end},drive=drive{number}"));
            (
                devices,
                format!("if=none,file={file},id=drive{number},{cache},format={format}"),
            )
        }
        None => (
            Vec::new(),
            format!("file={file},if={},{cache},format={format}", how.interface),
        ),
    })
}

fn cdrom(interface: Option<&str>, path: &Path, number: usize) -> Result<(Vec<String>, String)> {
    let file = path_value(path)?;
    Ok(match interface {
        None | Some("") => (Vec::new(), format!("file={file},media=cdrom")),
        Some("virtio-scsi") => {
            let mut devices = vec![format!("scsi-cd,bus=cdscsi.0,drive=cdrom{number}")];
            if number == 0 {
                devices.insert(0, "virtio-scsi-pci,id=cdscsi".to_owned());
            }
            (
                devices,
                format!("file={file},if=none,id=cdrom{number},media=cdrom"),
            )
        }
        Some("virtio") => (
            Vec::new(),
            format!("file={file},if=virtio,format=raw,readonly=on"),
        ),
        Some(interface) => (
            Vec::new(),
            format!("file={file},if={interface},media=cdrom"),
        ),
    })
}

/// A drive of its own kind that the guest can read when it can read its main disk; the last one of all.
fn seed_drive(spec: &Spec<'_>, seed: &Path) -> Result<String> {
    let file = path_value(seed)?;
    Ok(match spec.disk.interface.as_str() {
        "virtio" | "virtio-scsi" => format!("file={file},if=virtio,format=raw,readonly=on"),
        _ => format!("file={file},media=cdrom,format=raw,readonly=on"),
    })
}

#[cfg(test)]
mod tests;

//! UEFI firmware of the host: pairs of code and variables.
//!
//! Knows QEMU's descriptors (`docs/interop/firmware.json`) and where distributions put their files. Must not know
//! templates. Variables are always written as a copy: the host's own are nobody's to change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{read_file, write_file};

use super::command_line::path_value;

/// Longest descriptor, in bytes.
const LONGEST_DESCRIPTOR: u64 = 256 << 10;

/// Largest file of variables, in bytes.
const LARGEST_VARIABLES: u64 = 64 << 20;

/// Most descriptors of one directory that are looked at.
const MOST_DESCRIPTORS: usize = 1000;

/// A pair for the two flashes of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flash {
    /// Code; the machine reads it only.
    pub code: PathBuf,
    /// Its format: `raw` or `qcow2`.
    pub code_format: String,
    /// Variables: the template, until [`Flash::with_copy`].
    pub variables: PathBuf,
    /// Their format.
    pub variables_format: String,
    /// It needs system management mode, and so q35.
    pub needs_smm: bool,
}

impl Flash {
    /// Copies the variables to `to`, which the machine then writes.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written.
    pub fn with_copy(self, to: &Path) -> Result<Self> {
        copy_variables(&self.variables, to)?;
        let variables = to.to_owned();
        Ok(Self { variables, ..self })
    }

    /// Values of `-drive`.
    pub(super) fn drives(&self) -> Result<[String; 2]> {
        Ok([
            format!(
                "if=pflash,unit=0,format={},readonly=on,file={}",
                self.code_format,
                path_value(&self.code)?
            ),
            format!(
                "if=pflash,unit=1,format={},file={}",
                self.variables_format,
                path_value(&self.variables)?
            ),
        ])
    }

    /// Switches that go with it.
    pub(super) fn switches(&self) -> &'static [(&'static str, &'static str)] {
        if self.needs_smm {
            // Only in that mode may the variables be written, or secure boot protects nothing.
            &[("-global", "driver=cfi.pflash01,property=secure,value=on")]
        } else {
            &[]
        }
    }
}

/// Copies a file of variables.
///
/// # Errors
///
/// When it cannot be read or written, or is larger than 64 MiB.
pub fn copy_variables(from: &Path, to: &Path) -> Result<()> {
    write_file(to, &read_file(from, LARGEST_VARIABLES)?)
}

/// What firmware is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// QEMU's name of the architecture: `x86_64`, `aarch64`, ...
    pub architecture: &'a str,
    /// The machine type; `None`: the default, and q35 with secure boot.
    pub machine_type: Option<&'a str>,
    /// With secure boot, keys enrolled.
    pub secure: bool,
}

/// Where firmware is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Directories of descriptors: a file of an earlier one hides those of its name in later ones.
    pub descriptors: Vec<PathBuf>,
    /// Put before every known path: `/`, or a tree in tests.
    pub root: PathBuf,
}

impl Places {
    /// Those of this host. `user_configuration` is `~/.config` or what stands for it.
    pub fn of_host(user_configuration: Option<&Path>) -> Self {
        let user = user_configuration.map(|directory| directory.join("qemu/firmware"));
        let system = [
            "/etc/qemu/firmware",
            "/usr/local/share/qemu/firmware",
            "/usr/share/qemu/firmware",
            "/opt/homebrew/share/qemu/firmware",
            "/run/current-system/sw/share/qemu/firmware",
        ];
        Self {
            descriptors: user.into_iter().chain(system.map(PathBuf::from)).collect(),
            root: PathBuf::from("/"),
        }
    }
}

/// Pairs where no descriptor tells of them: architecture, secure boot, code, variables.
const KNOWN: &[(&str, bool, &str, &str)] = &[
    // Debian and Ubuntu.
    (
        "x86_64",
        false,
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        "usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "x86_64",
        true,
        "usr/share/OVMF/OVMF_CODE_4M.ms.fd",
        "usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "x86_64",
        false,
        "usr/share/OVMF/OVMF_CODE.fd",
        "usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "x86_64",
        true,
        "usr/share/OVMF/OVMF_CODE.ms.fd",
        "usr/share/OVMF/OVMF_VARS.ms.fd",
    ),
    (
        "aarch64",
        false,
        "usr/share/AAVMF/AAVMF_CODE.fd",
        "usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    // Fedora.
    (
        "x86_64",
        false,
        "usr/share/edk2/ovmf/OVMF_CODE.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "x86_64",
        true,
        "usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ),
    (
        "aarch64",
        false,
        "usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
    // Arch.
    (
        "x86_64",
        false,
        "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "x86_64",
        false,
        "usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        "usr/share/edk2-ovmf/x64/OVMF_VARS.fd",
    ),
    // openSUSE.
    (
        "x86_64",
        false,
        "usr/share/qemu/ovmf-x86_64-code.bin",
        "usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
    (
        "x86_64",
        true,
        "usr/share/qemu/ovmf-x86_64-smm-ms-code.bin",
        "usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin",
    ),
    // Homebrew, and QEMU's own.
    (
        "x86_64",
        false,
        "opt/homebrew/share/qemu/edk2-x86_64-code.fd",
        "opt/homebrew/share/qemu/edk2-i386-vars.fd",
    ),
    (
        "aarch64",
        false,
        "opt/homebrew/share/qemu/edk2-aarch64-code.fd",
        "opt/homebrew/share/qemu/edk2-arm-vars.fd",
    ),
    (
        "x86_64",
        false,
        "usr/local/share/qemu/edk2-x86_64-code.fd",
        "usr/local/share/qemu/edk2-i386-vars.fd",
    ),
    (
        "x86_64",
        false,
        "usr/share/qemu/edk2-x86_64-code.fd",
        "usr/share/qemu/edk2-i386-vars.fd",
    ),
    (
        "aarch64",
        false,
        "usr/share/qemu/edk2-aarch64-code.fd",
        "usr/share/qemu/edk2-arm-vars.fd",
    ),
];

/// The pair of this host that fits best.
///
/// # Errors
///
/// When there is none, with what to install.
pub fn find(wanted: &Wanted<'_>, places: &Places) -> Result<Flash> {
    for descriptor in descriptors(places) {
        if descriptor.fits(wanted)
            && places.has(&descriptor.flash.code)
            && places.has(&descriptor.flash.variables)
        {
            let mut flash = descriptor.flash;
            flash.code = places.inside(&flash.code);
            flash.variables = places.inside(&flash.variables);
            return Ok(flash);
        }
    }
    for (architecture, secure, code, variables) in KNOWN {
        let (code, variables) = (places.root.join(code), places.root.join(variables));
        if *architecture == wanted.architecture
            && *secure == wanted.secure
            && code.is_file()
            && variables.is_file()
        {
            return Ok(raw(code, variables, *secure));
        }
    }
    let kind = if wanted.secure {
        " with secure boot and its keys"
    } else {
        ""
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("no UEFI firmware{kind} for {} on this host", wanted.architecture),
    )
    .with_remedy("install it (Debian, Ubuntu: ovmf; Fedora: edk2-ovmf), or name its files: efi_firmware_code, efi_firmware_vars"))
}

/// The pair for files that a template names, of which one may be missing.
///
/// # Errors
///
/// When a file is not there, or the variables that belong to the code are not known.
pub fn named(code: &Path, variables: Option<&Path>, places: &Places) -> Result<Flash> {
    let missing = |path: &Path| {
        Error::new(ErrorKind::Unsupported, "the firmware is not there")
            .at_path(path)
            .with_remedy(
                "leave the paths out of the template: qimg finds the host's firmware by itself",
            )
    };
    if !code.is_file() {
        return Err(missing(code));
    }
    let described = descriptors(places)
        .into_iter()
        .map(|descriptor| descriptor.flash);
    let mut same_code = described.filter(|flash| flash.code == code);
    let found = same_code.next();
    if let Some(variables) = variables {
        if !variables.is_file() {
            return Err(missing(variables));
        }
        let mut flash = raw(code.to_owned(), variables.to_owned(), false);
        if let Some(found) = found {
            flash.needs_smm = found.needs_smm;
            flash.code_format = found.code_format;
        } else {
            flash.needs_smm = named_secure(code);
        }
        return Ok(flash);
    }
    if let Some(found) = found {
        return Ok(found);
    }
    // OVMF_CODE_4M.fd goes with OVMF_VARS_4M.fd, and so on.
    let name = code
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let guesses = [
        name.replace("CODE", "VARS"),
        name.replace("CODE", "VARS").replace(".secboot", ""),
        name.replace("code", "vars"),
    ];
    let guess = guesses
        .iter()
        .filter(|guess| *guess != name)
        .map(|guess| code.with_file_name(guess))
        .find(|guess| guess.is_file());
    match guess {
        Some(variables) => Ok(raw(code.to_owned(), variables, named_secure(code))),
        None => Err(
            Error::usage("the variables that belong to this firmware are not known")
                .at_path(code)
                .with_remedy("name them: efi_firmware_vars"),
        ),
    }
}

/// What the usual names say of system management mode.
fn named_secure(code: &Path) -> bool {
    let name = code
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    [".secboot", ".ms.", "-smm-", ".snakeoil"]
        .iter()
        .any(|part| name.contains(part))
}

fn raw(code: PathBuf, variables: PathBuf, needs_smm: bool) -> Flash {
    Flash {
        code,
        code_format: "raw".to_owned(),
        variables,
        variables_format: "raw".to_owned(),
        needs_smm,
    }
}

impl Places {
    fn has(&self, path: &Path) -> bool {
        self.inside(path).is_file()
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// One kind of firmware as its descriptor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its files.
    pub flash: Flash,
    /// Architectures and the patterns of their machine types.
    targets: Vec<(String, Vec<String>)>,
    secure_boot: bool,
    enrolled_keys: bool,
    /// It is for machines whose memory is kept from the host, only.
    confidential: bool,
}

/// Understands a descriptor; `None`: of no use here (another interface, no flash, no variables).
pub fn parse_descriptor(text: &[u8]) -> Option<Descriptor> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let strings = |value: &Value| -> Vec<String> {
        let array = value.as_array().map(Vec::as_slice).unwrap_or_default();
        array
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    if !strings(&value["interface-types"])
        .iter()
        .any(|kind| kind == "uefi")
    {
        return None;
    }
    let mapping = &value["mapping"];
    let has_variables = mapping["mode"].as_str().is_none_or(|mode| mode == "split");
    if mapping["device"].as_str() != Some("flash") || !has_variables {
        return None;
    }
    let file = |part: &str| {
        let name = mapping[part]["filename"].as_str()?;
        let format = mapping[part]["format"].as_str().unwrap_or("raw");
        matches!(format, "raw" | "qcow2").then(|| (PathBuf::from(name), format.to_owned()))
    };
    let (code, code_format) = file("executable")?;
    let (variables, variables_format) = file("nvram-template")?;
    let features = strings(&value["features"]);
    let has = |feature: &str| features.iter().any(|other| other == feature);
    let target = |target: &Value| {
        let architecture = target["architecture"].as_str()?.to_owned();
        Some((architecture, strings(&target["machines"])))
    };
    let targets = value["targets"]
        .as_array()?
        .iter()
        .filter_map(target)
        .collect();
    Some(Descriptor {
        flash: Flash {
            code,
            code_format,
            variables,
            variables_format,
            needs_smm: has("requires-smm"),
        },
        targets,
        secure_boot: has("secure-boot"),
        enrolled_keys: has("enrolled-keys"),
        confidential: has("amd-sev-es-only") || has("intel-tdx") || has("amd-sev-snp"),
    })
}

impl Descriptor {
    /// Whether it is what is wanted.
    pub fn fits(&self, wanted: &Wanted<'_>) -> bool {
        let machine = match wanted.machine_type {
            Some("pc") | None if !wanted.secure => "pc-i440fx-0.0",
            Some("q35") | None => "pc-q35-0.0",
            Some(other) => other,
        };
        let machine = match (wanted.architecture, machine) {
            ("x86_64" | "i386", machine) => machine,
            (_, "virt" | "pc-i440fx-0.0" | "pc-q35-0.0") => "virt-0.0",
            (_, machine) => machine,
        };
        let runs = self.targets.iter().any(|(architecture, machines)| {
            architecture == wanted.architecture
                && machines.iter().any(|pattern| matches(pattern, machine))
        });
        let secure = if wanted.secure {
            self.secure_boot && self.enrolled_keys
        } else {
            !self.flash.needs_smm && !self.enrolled_keys
        };
        runs && secure && !self.confidential
    }
}

/// Whether `text` is of `pattern`, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// All descriptors in the order of their names, which is that of preference.
fn descriptors(places: &Places) -> Vec<Descriptor> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in &places.descriptors {
        let Ok(entries) = places.inside(directory).read_dir() else {
            continue;
        };
        for entry in entries.flatten().take(MOST_DESCRIPTORS) {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "json") {
                files.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    files
        .values()
        // One that is empty hides those of its name.
        .filter_map(|path| parse_descriptor(&read_file(path, LONGEST_DESCRIPTOR).ok()?))
        .collect()
}

#[cfg(test)]
mod tests;

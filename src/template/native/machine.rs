//! The parts of a build that are about the machine: base, disk, machine, seed, firmware.

use std::path::PathBuf;

use super::{Paths, range_of};
use crate::error::Result;
use crate::seed::check as seed_check;
use crate::template::check::Severity;
use crate::template::document::{Kind, Node};
use crate::template::model::{
    Base, Dialect, Disk, DiskFormat, Firmware, Machine, Seed, StepCache, Text, Tpm, Vnc,
};
use crate::template::reader::Table;
use crate::units::ByteSize;

const INTERFACES: [&str; 6] = ["virtio", "ide", "scsi", "virtio-scsi", "sd", "sata"];
const CACHES: [&str; 5] = ["writethrough", "writeback", "none", "unsafe", "directsync"];
const ACCELERATORS: [&str; 9] = [
    "auto", "none", "kvm", "tcg", "xen", "hax", "hvf", "whpx", "nvmm",
];
/// Bytes of a file of a seed at most.
const SEED_FILE: u64 = 8 << 20;

/// Schemes that are fetched by tools that qimg is not.
const GETTERS: [(&str, &str); 7] = [
    ("git", "clone it before, and name the file"),
    ("hg", "clone it before, and name the file"),
    (
        "s3",
        "use the https address of the object, or fetch it before",
    ),
    (
        "gcs",
        "use the https address of the object, or fetch it before",
    ),
    ("smb", "mount the share, and name the file"),
    ("ftp", "use an https address, or fetch it before"),
    ("sftp", "fetch it before, and name the file"),
];

/// `boots_otherwise`: the machine boots from something that is named elsewhere.
pub(super) fn base(
    table: &Table<'_, '_>,
    paths: &Paths<'_>,
    boots_otherwise: bool,
) -> Result<Base> {
    let images = table.items("image")?;
    let isos = table.items("iso")?;
    let (key, items, is_disk) = match (images, isos) {
        (Some(items), None) => ("image", items, true),
        (None, Some(items)) => ("iso", items, false),
        (Some(_), Some(items)) => {
            let at = items.first().map_or(table.at, |item| item.at);
            let text = "a build starts from an image or from an iso, not from both";
            let error = table.reader.error(at, text);
            table.tell(error.with_remedy("keep one of them"));
            ("iso", items, false)
        }
        (None, None) => ("image", Vec::new(), true),
    };
    let mut urls = Vec::new();
    for item in items {
        let url = table.reader.keep(table.text_of(key, item));
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            continue;
        };
        let scheme = url.split("::").next().unwrap_or("");
        let scheme = match scheme.len() < url.len() {
            true => scheme,
            false => url
                .split("://")
                .next()
                .filter(|scheme| scheme.len() < url.len())
                .unwrap_or(""),
        };
        if let Some((scheme, remedy)) = GETTERS.iter().find(|(known, _)| *known == scheme) {
            let text = format!("nothing is fetched by {scheme}");
            table.tell(table.error(key, item, &text).with_remedy(*remedy));
        } else if !["", "http", "https", "file"].contains(&scheme) && scheme.len() > 1 {
            let text = format!("'{scheme}' is no way to fetch an image");
            let remedy = "write a path, or an address of http, https or file";
            table.tell(table.error(key, item, &text).with_remedy(remedy));
        }
        urls.push(paths.url(&url));
    }
    if urls.is_empty() && boots_otherwise {
        return Ok(Base {
            urls,
            checksum: String::new(),
            signature_key: None,
            target_path: None,
            is_disk: false,
        });
    }
    if urls.is_empty() {
        let error = table.reader.error(
            table.at,
            format!("{}: there is nothing to start from", table.what),
        );
        table.tell(error.with_remedy(match table.reader.dialect {
            Dialect::Packer => "add \"iso_url\": \"...\", and disk_image if that is a disk",
            Dialect::Native => "add image = \"...\" for a disk, or iso = \"...\" for an installer",
        }));
    }
    let checksum = table
        .reader
        .keep(checksum(table, paths))
        .unwrap_or_default();
    Ok(Base {
        urls,
        checksum,
        signature_key: table.path("signature-key")?.map(|path| paths.input(&path)),
        target_path: table.path("target")?,
        is_disk: table.flag("disk-image")?.unwrap_or(is_disk),
    })
}

/// As written, but known to be a checksum at all.
fn checksum(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<String> {
    let Some((text, node)) = table.text_at("checksum")? else {
        let required = table.flag("checksum-required")?.unwrap_or(false);
        if required {
            let error = table
                .reader
                .error(table.at, format!("{}: there is no checksum", table.what));
            return Err(error.with_remedy(
                "add \"iso_checksum\": \"sha256:...\", \"file:...\" for a file of checksums, or \"none\"",
            ));
        }
        table.reader.find(
            Severity::Warning,
            table.at,
            "the base has no checksum: what is fetched is taken as it is",
            "add checksum = \"sha256:...\", or \"file:...\" for a file of checksums",
        );
        return Ok(String::new());
    };
    let required = table.flag("checksum-required")?.unwrap_or(false);
    if text == "none" || text.starts_with("none:") {
        table.reader.find(
            Severity::Warning,
            node.at,
            "the checksum is none: what is fetched is taken as it is",
            "write sha256:..., or file:... for a file of checksums",
        );
        return Ok("none".to_owned());
    }
    if text.is_empty() && !required {
        return Ok(text);
    }
    if let Some(file) = text.strip_prefix("file:") {
        let path = file.strip_prefix("//").unwrap_or(file);
        if path.trim().is_empty() {
            let error = table.error("checksum", node, "'file:' names no file of checksums");
            return Err(error.with_remedy("write file:PATH-OR-URL"));
        }
        return Ok(format!("file:{}", paths.url(file)));
    }
    let (kind, digits) = text.split_once(':').unwrap_or(("", &text));
    let length = match kind.to_ascii_lowercase().as_str() {
        "md5" => Some(32),
        "sha1" => Some(40),
        "sha224" => Some(56),
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        "" => [32, 40, 56, 64, 96, 128]
            .into_iter()
            .find(|length| *length == digits.len()),
        _ => {
            let error = table.error(
                "checksum",
                node,
                &format!("there is no checksum of the kind '{kind}'"),
            );
            return Err(
                error.with_remedy("there is md5, sha1, sha224, sha256, sha384, sha512, and file:")
            );
        }
    };
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || length != Some(digits.len()) {
        let error = table.error("checksum", node, &format!("'{text}' is no checksum"));
        return Err(error.with_remedy(
            "write its hexadecimal digits, as in sha256:HEX; file:PATH-OR-URL for a file of checksums",
        ));
    }
    Ok(text)
}

/// A size of a disk. Packer counts a bare number in MiB.
fn size(table: &Table<'_, '_>, key: &str, node: &Node) -> Result<Option<u64>> {
    let text = match node.kind {
        Kind::Int(number) => number.to_string(),
        _ => table.text_of(key, node)?,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        table
            .error(key, node, &format!("'{text}' is no size of a disk"))
            .with_remedy("write a whole number with K, M, G or T; without, it counts MiB")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !whole || unit.len() > 1 || !"bBkKmMgGtT".contains(unit) {
        return Err(wrong());
    }
    let unit = if unit.is_empty() { "M" } else { unit };
    let bytes = ByteSize::parse(&format!("{digits}{unit}")).map_err(|_| wrong())?;
    Ok(Some(bytes.0))
}

/// States of the machine that are kept.
pub(super) fn cache(table: &Table<'_, '_>) -> Result<StepCache> {
    let usual = StepCache::default();
    let limit = match table.node("limit") {
        Some(node) => table.reader.keep(size(table, "limit", node)).flatten(),
        None => None,
    };
    Ok(StepCache {
        enabled: table.flag("steps")?.unwrap_or(usual.enabled),
        from_disk: table.word("resume", &["memory", "disk"])?.as_deref() == Some("disk"),
        after: table.duration("after")?.unwrap_or(usual.after),
        limit: limit.unwrap_or(usual.limit),
    })
}

pub(super) fn disk(table: &Table<'_, '_>, base: Option<&Base>) -> Result<(Disk, Vec<u64>)> {
    let format = match table.word("format", &["qcow2", "raw"])?.as_deref() {
        Some("raw") => DiskFormat::Raw,
        _ => DiskFormat::Qcow2,
    };
    let mut bytes = match table.node("size") {
        Some(node) => table.reader.keep(size(table, "size", node)).flatten(),
        None => None,
    };
    let keep_size = table.flag("keep-size")?.unwrap_or(false);
    let keep_backing_file = table.flag("keep-backing-file")?.unwrap_or(false);
    let is_disk = base.is_none_or(|base| base.is_disk);
    let wrong = |message: &str, remedy: &str| {
        let text = format!("{}: {message}", table.what);
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy(remedy.to_owned()));
    };
    if keep_backing_file && !(is_disk && format == DiskFormat::Qcow2) {
        wrong(
            "only a qcow2 disk that starts from a disk keeps a backing file",
            "set disk_image to true and format to qcow2, or leave out use_backing_file",
        );
    }
    if keep_size && !is_disk {
        wrong(
            "a disk that starts empty has no size to keep",
            "leave out skip_resize_disk, or set disk_image to true",
        );
    }
    if keep_size {
        bytes = None;
    } else if bytes.is_none() && !is_disk {
        wrong("an empty disk needs a size", "add size = \"40G\"");
    }
    let mut additional = Vec::new();
    for item in table.items("additional")?.unwrap_or_default() {
        let size = table.reader.keep(size(table, "additional", item));
        additional.extend(size.flatten());
    }
    let or = |word: Option<String>, default: &str| word.unwrap_or_else(|| default.to_owned());
    let disk = Disk {
        size: bytes,
        format,
        interface: or(table.word("interface", &INTERFACES)?, "virtio"),
        cache: or(table.word("cache", &CACHES)?, "unsafe"),
        discard: or(table.word("discard", &["unmap", "ignore"])?, "unmap"),
        detect_zeroes: table.word("detect-zeroes", &["on", "off", "unmap"])?,
        keep_backing_file,
    };
    Ok((disk, additional))
}

/// Memory in MiB: a number, or a size.
fn memory(table: &Table<'_, '_>) -> Result<u64> {
    let Some(node) = table.node("memory") else {
        return Ok(1024);
    };
    let text = match &node.kind {
        Kind::Int(number) => number.to_string(),
        _ => table.text_of("memory", node)?,
    };
    let size = match text.ends_with(|c: char| "kKmMgGtT".contains(c)) {
        true => ByteSize::parse(&text).ok().map(|size| size.0 >> 20),
        false => match table.int_of("memory", node)? {
            None => return Ok(1024),
            Some(number) => u64::try_from(number).ok(),
        },
    };
    let Some(size) = size.filter(|size| *size <= 64 << 20) else {
        let error = table.error("memory", node, &format!("'{text}' is no size of memory"));
        return Err(error.with_remedy("write MiB as a number, or a size such as \"2G\""));
    };
    Ok(size)
}

pub(super) fn machine(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Machine> {
    let topology = [
        table.number("sockets", 0, 1024)?,
        table.number("cores", 0, 1024)?,
        table.number("threads", 0, 1024)?,
    ];
    let cpus: Option<u32> = table.number("cpus", 0, 4096)?;
    let mut qemu_args: Vec<(Text, Vec<Text>)> = Vec::new();
    for item in table.items("qemu-args")?.unwrap_or_default() {
        let mut words = table
            .items_of("qemu-args", item)?
            .into_iter()
            .map(|word| table.late_of("qemu-args", word, true))
            .collect::<Result<Vec<Text>>>()?;
        if !words.is_empty() {
            let switch = words.remove(0);
            qemu_args.push((switch, words));
        }
    }
    Ok(Machine {
        qemu: table
            .filled("qemu")?
            .unwrap_or_else(|| "qemu-system-x86_64".to_owned()),
        accelerator: table.word("accelerator", &ACCELERATORS)?,
        // What UEFI firmware is made for; a template of Packer's has what Packer gives it.
        machine_type: match table.filled("type")? {
            None if table.word("boot", &["bios", "uefi"])?.as_deref() == Some("uefi") => {
                Some("q35".to_owned())
            }
            kind => kind,
        },
        cpu_model: table.filled("cpu")?,
        cpus: cpus.unwrap_or(2).max(1),
        topology: topology.map(|count: Option<u32>| count.filter(|count| *count > 0)),
        memory_mib: table.reader.keep(memory(table)).unwrap_or_default(),
        net_device: table
            .filled("net-device")?
            .unwrap_or_else(|| "virtio-net".to_owned()),
        net_bridge: table.filled("net-bridge")?,
        host_ports: range_of(table, "host-ports", (2222, 4444))?,
        skip_nat_mapping: table.flag("skip-nat-mapping")?.unwrap_or(false),
        headless: table.flag("headless")?.unwrap_or(true),
        display: display(table)?,
        vga: table.filled("vga")?,
        vnc: vnc(table)?,
        cdrom_interface: table.filled("cdrom-interface")?,
        firmware: firmware(table, paths)?,
        tpm: tpm(table)?,
        qmp_socket: table.path("qmp-socket")?,
        qemu_args,
    })
}

/// Packer's word for leaving the choice to QEMU is none.
fn display(table: &Table<'_, '_>) -> Result<Option<String>> {
    let display = table.filled("display")?.filter(|display| display != "none");
    let default = table.flag("default-display")?.unwrap_or(false);
    Ok(display.filter(|_| !default))
}

fn vnc(machine: &Table<'_, '_>) -> Result<Option<Vnc>> {
    if machine.node("vnc").is_none() {
        return Ok(None);
    }
    let table = machine.table("vnc")?;
    let enabled = table.flag("enabled")?.unwrap_or(true);
    let with_password = table.flag("with-password")?;
    let password = table.filled("password")?;
    let ports = range_of(&table, "ports", (5900, 6000))?.unwrap_or((5900, 6000));
    if ports.0 < 5900 {
        let text = format!("{}: VNC ports begin at 5900", table.name("ports"));
        table.tell(table.reader.error(table.at, text));
    }
    let vnc = Vnc {
        address: table
            .filled("address")?
            .unwrap_or_else(|| "127.0.0.1".to_owned()),
        ports,
        password: match (with_password, password) {
            (Some(false), _) => None,
            (Some(true), None) => Some(String::new()),
            (_, password) => password,
        },
    };
    table.finish();
    Ok(enabled.then_some(vnc))
}

fn tpm(table: &Table<'_, '_>) -> Result<Option<Tpm>> {
    let device = table.filled("tpm-device")?;
    let version = table.word("tpm-version", &["1.2", "2.0"])?;
    let old = table.flag("tpm-1")?.unwrap_or(false) || version.as_deref() == Some("1.2");
    Ok(table.flag("tpm")?.unwrap_or(false).then(|| Tpm {
        device: device.unwrap_or_else(|| "tpm-tis".to_owned()),
        version_1: old,
    }))
}

fn firmware(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Firmware> {
    let path = |path: PathBuf| paths.input(&path);
    let code = table.path("firmware-code")?.map(path);
    let variables = table.path("firmware-variables")?.map(path);
    let secure = table.flag("secure")?.unwrap_or(false);
    let drop_variables = table.flag("drop-variables")?.unwrap_or(false);
    let file = table.path("firmware")?.map(path);
    let flash = table.flag("firmware-flash")?.unwrap_or(false);
    let word = table.word("boot", &["bios", "uefi"])?;
    let efi = table.flag("efi")?.unwrap_or(false) || word.as_deref() == Some("uefi");
    let efi = efi || code.is_some() || variables.is_some() || (secure && word.is_none());
    if let Some(file) = file {
        if efi {
            let text = format!(
                "{}: one file of firmware and a pair for UEFI are given",
                table.what
            );
            let error = table.reader.error(table.at, text);
            table.tell(error.with_remedy("keep one of them"));
        }
        return Ok(Firmware::File { path: file, flash });
    }
    if secure && !efi {
        let text = format!("{}: secure boot needs UEFI", table.name("secure"));
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("write boot = \"uefi\""));
    }
    if !efi {
        return Ok(Firmware::Default);
    }
    Ok(Firmware::Efi {
        code,
        variables,
        secure,
        drop_variables,
    })
}

pub(super) fn seed(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Option<Seed>> {
    let part =
        |inline: &'static str, file: &'static str, judge: Judge| -> Result<Option<Vec<u8>>> {
            match (table.text_at(inline)?, table.text_at(file)?) {
                (Some(_), Some((_, node))) => {
                    let error = table.error(file, node, &format!("{inline} is given, too"));
                    Err(error.with_remedy("keep one of them"))
                }
                (Some((text, node)), None) => {
                    judged(table, node, inline, &judge(inline, text.as_bytes()));
                    Ok(Some(text.into_bytes()))
                }
                (None, Some((path, node))) => {
                    let path = paths.input(path.as_ref());
                    let bytes = crate::store::read_file(paths.host(&path), SEED_FILE);
                    let bytes = bytes.map_err(|cause| {
                        let text = format!("'{}' cannot be read: {cause}", path.display());
                        table.error(file, node, &text)
                    })?;
                    let name = path.display().to_string();
                    judged(table, node, &name, &judge(&name, &bytes));
                    Ok(Some(bytes))
                }
                (None, None) => Ok(None),
            }
        };
    let seed = Seed {
        user_data: part("user-data", "user-data-file", seed_check::check_user_data)?,
        meta_data: part("meta-data", "meta-data-file", seed_check::check_meta_data)?,
        vendor_data: part(
            "vendor-data",
            "vendor-data-file",
            seed_check::check_user_data,
        )?,
        network_config: part(
            "network-config",
            "network-config-file",
            seed_check::check_network_config,
        )?,
        over_http: table.flag("http")?.unwrap_or(false),
    };
    Ok((seed != Seed::default()).then_some(seed))
}

type Judge = fn(&str, &[u8]) -> Vec<seed_check::Finding>;

/// Passes on what cloud-init would not like.
fn judged(table: &Table<'_, '_>, node: &Node, name: &str, findings: &[seed_check::Finding]) {
    for finding in findings {
        let severity = match finding.severity {
            seed_check::Severity::Note => Severity::Note,
            seed_check::Severity::Warning => Severity::Warning,
            seed_check::Severity::Error => Severity::Error,
        };
        let line = finding
            .line
            .map_or(String::new(), |line| format!(", line {line}"));
        let text = format!("{name}{line}: {}", finding.message);
        let remedy = finding.remedy.as_deref().unwrap_or("");
        table.reader.find(severity, node.at, &text, remedy);
    }
}

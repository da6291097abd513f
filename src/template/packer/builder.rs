//! The options of Packer's qemu builder, in old spellings and new.

use super::super::check::{Findings, Severity};
use super::super::document::{Entry, Kind, Node, Source};
use super::weak::{Object, Take};
use super::{Made, missing, text};
use crate::error::Result;

/// What is where: Packer's key, the table, the key there. A key that is given later in this list is an older spelling.
const KEYS: &[(&str, &str, &str, Take)] = &[
    ("iso_target_path", "base", "target", Take::Text),
    ("disk_image", "base", "disk-image", Take::Flag),
    ("skip_resize_disk", "disk", "keep-size", Take::Flag),
    ("use_backing_file", "disk", "keep-backing-file", Take::Flag),
    ("format", "disk", "format", Take::Text),
    ("disk_interface", "disk", "interface", Take::Text),
    ("disk_cache", "disk", "cache", Take::Text),
    ("disk_discard", "disk", "discard", Take::Text),
    ("disk_detect_zeroes", "disk", "detect-zeroes", Take::Text),
    ("disk_additional_size", "disk", "additional", Take::Texts),
    ("disk_compression", "output", "compress", Take::Flag),
    ("skip_compaction", "output", "skip-compaction", Take::Flag),
    ("qemu_binary", "machine", "qemu", Take::Text),
    ("accelerator", "machine", "accelerator", Take::Text),
    ("machine_type", "machine", "type", Take::Text),
    ("cpu_model", "machine", "cpu", Take::Text),
    ("cpus", "machine", "cpus", Take::Int),
    ("sockets", "machine", "sockets", Take::Int),
    ("cores", "machine", "cores", Take::Int),
    ("threads", "machine", "threads", Take::Int),
    ("net_device", "machine", "net-device", Take::Text),
    ("net_bridge", "machine", "net-bridge", Take::Text),
    (
        "skip_nat_mapping",
        "machine",
        "skip-nat-mapping",
        Take::Flag,
    ),
    (
        "ssh_skip_nat_mapping",
        "machine",
        "skip-nat-mapping",
        Take::Flag,
    ),
    ("headless", "machine", "headless", Take::Flag),
    ("display", "machine", "display", Take::Text),
    (
        "use_default_display",
        "machine",
        "default-display",
        Take::Flag,
    ),
    ("vga", "machine", "vga", Take::Text),
    ("disable_vnc", "machine", "vnc-disabled", Take::Flag),
    ("cdrom_interface", "machine", "cdrom-interface", Take::Text),
    ("efi_boot", "machine", "efi", Take::Flag),
    ("efi_firmware_code", "machine", "firmware-code", Take::Text),
    (
        "efi_firmware_vars",
        "machine",
        "firmware-variables",
        Take::Text,
    ),
    ("efi_drop_efivars", "machine", "drop-variables", Take::Flag),
    ("firmware", "machine", "firmware", Take::Text),
    ("use_pflash", "machine", "firmware-flash", Take::Flag),
    ("vtpm", "machine", "tpm", Take::Flag),
    ("use_tpm1", "machine", "tpm-1", Take::Flag),
    ("tpm_device_type", "machine", "tpm-device", Take::Text),
    ("qemuargs", "machine", "qemu-args", Take::Lists),
    ("boot_wait", "boot", "wait", Take::Span),
    ("boot_command", "boot", "command", Take::Texts),
    ("boot_steps", "boot", "steps", Take::Lists),
    ("boot_key_interval", "boot", "key-interval", Take::Span),
    (
        "boot_keygroup_interval",
        "boot",
        "group-interval",
        Take::Span,
    ),
    ("http_directory", "http", "directory", Take::Text),
    ("http_content", "http", "content", Take::Map),
    ("http_bind_address", "http", "address", Take::Text),
    ("cd_files", "cd", "files", Take::Texts),
    ("cd_content", "cd", "content", Take::Map),
    ("cd_label", "cd", "label", Take::Text),
    ("floppy_files", "floppy", "files", Take::Texts),
    ("floppy_dirs", "floppy", "directories", Take::Texts),
    ("floppy_content", "floppy", "content", Take::Map),
    ("floppy_label", "floppy", "label", Take::Text),
    ("communicator", "ssh", "communicator", Take::Text),
    (
        "pause_before_connecting",
        "ssh",
        "pause-before-connecting",
        Take::Span,
    ),
    ("ssh_host", "ssh", "host", Take::Text),
    ("ssh_port", "ssh", "port", Take::Int),
    ("ssh_username", "ssh", "username", Take::Text),
    ("ssh_password", "ssh", "password", Take::Text),
    ("ssh_private_key_file", "ssh", "private-key", Take::Text),
    ("ssh_key_path", "ssh", "private-key", Take::Text),
    ("ssh_certificate_file", "ssh", "certificate", Take::Text),
    ("ssh_agent_auth", "ssh", "agent", Take::Flag),
    ("ssh_timeout", "ssh", "timeout", Take::Span),
    ("ssh_wait_timeout", "ssh", "timeout", Take::Span),
    ("ssh_handshake_attempts", "ssh", "attempts", Take::Int),
    ("ssh_pty", "ssh", "pty", Take::Flag),
    ("ssh_keep_alive_interval", "ssh", "keep-alive", Take::Span),
    ("ssh_file_transfer_method", "ssh", "transfer", Take::Text),
    (
        "ssh_clear_authorized_keys",
        "ssh",
        "clear-authorized-keys",
        Take::Flag,
    ),
    (
        "temporary_key_pair_type",
        "ssh",
        "temporary-key",
        Take::Text,
    ),
    (
        "temporary_key_pair_bits",
        "ssh",
        "temporary-key-bits",
        Take::Int,
    ),
    ("ssh_ciphers", "ssh", "ciphers", Take::Texts),
    (
        "ssh_key_exchange_algorithms",
        "ssh",
        "key-exchanges",
        Take::Texts,
    ),
    ("ssh_bastion_host", "bastion", "host", Take::Text),
    ("ssh_bastion_port", "bastion", "port", Take::Int),
    ("ssh_bastion_username", "bastion", "username", Take::Text),
    ("ssh_bastion_password", "bastion", "password", Take::Text),
    (
        "ssh_bastion_private_key_file",
        "bastion",
        "private-key",
        Take::Text,
    ),
    (
        "ssh_bastion_certificate_file",
        "bastion",
        "certificate",
        Take::Text,
    ),
    ("ssh_bastion_agent_auth", "bastion", "agent", Take::Flag),
    (
        "ssh_bastion_interactive",
        "bastion",
        "interactive",
        Take::Flag,
    ),
    ("vnc_bind_address", "vnc", "address", Take::Text),
    ("vnc_use_password", "vnc", "with-password", Take::Flag),
    ("vnc_password", "vnc", "password", Take::Text),
    ("shutdown_command", "shutdown", "command", Take::Text),
    ("shutdown_timeout", "shutdown", "timeout", Take::Span),
];

/// Pairs of ports: the table, the key there, the first and the last, and their older spellings.
const PORTS: &[(&str, &str, [&str; 2])] = &[
    ("machine", "host-ports", ["host_port_min", "host_port_max"]),
    (
        "machine",
        "host-ports",
        ["ssh_host_port_min", "ssh_host_port_max"],
    ),
    ("http", "ports", ["http_port_min", "http_port_max"]),
    ("vnc", "ports", ["vnc_port_min", "vnc_port_max"]),
];

/// Keys that have no meaning here, and why.
const IGNORED: &[(&str, &str)] = &[
    (
        "qemu_img_args",
        "qimg makes and converts disks itself: it has no arguments for qemu-img",
    ),
    ("iso_skip_cache", "a download always goes through the cache"),
    (
        "iso_target_extension",
        "a download keeps its name in the cache",
    ),
    (
        "http_interface",
        "the server listens where the guest of the user network finds it",
    ),
    (
        "http_network_protocol",
        "the server speaks whatever its address asks for",
    ),
    (
        "ssh_read_write_timeout",
        "the wait for a command has the step's own timeout",
    ),
    ("ssh_interface", "there is one way to the guest"),
    ("ssh_ip_version", "there is one way to the guest"),
    ("ssh_keypair_name", "it belongs to builders of clouds"),
    (
        "temporary_key_pair_name",
        "it belongs to builders of clouds",
    ),
    ("run_once", "it has no effect"),
    ("vm_disk_controller", "it has no effect"),
];

/// Keys that are refused, and the nearest way.
const REFUSED: &[(&str, &str)] = &[
    (
        "ssh_proxy_host",
        "go through a machine by SSH: ssh_bastion_host",
    ),
    (
        "ssh_proxy_port",
        "go through a machine by SSH: ssh_bastion_host",
    ),
    (
        "ssh_proxy_username",
        "go through a machine by SSH: ssh_bastion_host",
    ),
    (
        "ssh_proxy_password",
        "go through a machine by SSH: ssh_bastion_host",
    ),
    (
        "ssh_local_tunnels",
        "fetch what the guest needs by http_directory or a file provisioner",
    ),
    (
        "ssh_remote_tunnels",
        "fetch what the guest needs by http_directory or a file provisioner",
    ),
    (
        "winrm_username",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_password",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_host",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_port",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_timeout",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_use_ssl",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_insecure",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_use_ntlm",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
    (
        "winrm_no_proxy",
        "only SSH leads into a guest: communicator \"ssh\"",
    ),
];

/// What Packer takes where nothing is given, as far as it is not what qimg takes.
const DEFAULTS: &[(&str, &str, Kind)] = &[
    ("base", "disk-image", Kind::Bool(false)),
    ("base", "checksum-required", Kind::Bool(true)),
    ("machine", "headless", Kind::Bool(false)),
    ("machine", "memory", Kind::Int(512)),
    ("machine", "cpus", Kind::Int(1)),
    ("output", "compress", Kind::Bool(false)),
    ("ssh", "timeout-unlimited", Kind::Bool(true)),
    ("seal", "enabled", Kind::Bool(false)),
    ("cache", "steps", Kind::Bool(false)),
];
const WORDS: &[(&str, &str, &str)] = &[
    ("disk", "size", "40960M"),
    ("disk", "discard", "ignore"),
    ("output", "directory", "output-{{build_name}}"),
    ("output", "name", "packer-{{build_name}}"),
];

/// A builder that is not there. Templates name those of many a hypervisor, of which one build has one.
fn other_builder(source: &Source, at: usize, kind: &str) -> Result<Node> {
    let known = [
        "qemu",
        "null",
        "file",
        "docker",
        "virtualbox-iso",
        "virtualbox-ovf",
        "vmware-iso",
        "vmware-vmx",
        "parallels-iso",
        "hyperv-iso",
        "amazon-ebs",
        "googlecompute",
        "azure-arm",
        "openstack",
        "lxc",
        "lxd",
        "vagrant",
        "digitalocean",
        "proxmox",
        "vsphere-iso",
        "exoscale",
    ];
    if !known.contains(&kind)
        && let Some("qemu") = super::near(kind, known)
    {
        let error = source.error(at, format!("there is no builder '{kind}'"));
        return Err(error.with_remedy("did you mean 'qemu'?"));
    }
    Ok(missing(
        at,
        format!("the builder '{kind}' is not there: images are made by the qemu builder"),
        "write it as \"type\": \"qemu\" with iso_url, or keep Packer for this builder",
    ))
}

/// The builder `node` as a build: its name, as a template, and its tables.
pub(super) fn builder(
    source: &Source,
    notes: &Findings,
    node: &Node,
    number: usize,
) -> Result<(String, Entry)> {
    let mut object = Object::new(source, notes, node, format!("builder {number}"))?;
    let Some((kind, kind_at)) = object.text("type")? else {
        return Err(object
            .error(node.at, "there is no type")
            .with_remedy("add \"type\": \"qemu\""));
    };
    if kind != "qemu" {
        let missing = other_builder(source, kind_at, &kind)?;
        let name = object.text("name")?.map_or(kind, |(name, _)| name);
        let mut entry = text(&name, "", node.at, "");
        entry.shown = None;
        entry.node = missing;
        return Ok((name, entry));
    }
    let name = object.text("name")?.map_or(kind, |(name, _)| name);
    object.what = format!("builder '{name}'");
    let mut made = Made::default();
    let communicator = object.text("communicator")?;
    let winrm = communicator.filter(|(word, _)| word == "winrm");
    if let Some((_, at)) = &winrm {
        let error = object.error(*at, "communicator: WinRM is not supported");
        object.tell(error.with_remedy(
            "guests are entered by SSH, which Windows has, too: write \"ssh\", with ssh_username",
        ));
    }
    for (key, remedy) in REFUSED {
        let entry = object.take(key);
        // What belongs to a way that there is not is no mistake of its own.
        let told = winrm.is_some() && key.starts_with("winrm_");
        if let Some(entry) = entry.filter(|_| !told) {
            let error = source.error(entry.at, format!("{}: {key} is not supported", object.what));
            object.tell(error.with_remedy(*remedy));
        }
    }
    for (key, why) in IGNORED {
        let said = object.take(key).filter(|entry| !is_empty(&entry.node));
        if let Some(entry) = said {
            let text = format!("{}: {key} is not used: {why}", object.what);
            notes.add(Severity::Warning, source, entry.at, &text, "take it out");
        }
    }
    base(&mut object, &mut made)?;
    for (key, table, to, take) in KEYS {
        if let Some(entry) = object.moved(key, to, *take)? {
            made.add(notes, source, &object.what, table, entry);
        }
    }
    for (table, key, keys) in PORTS {
        ports(&mut object, &mut made, table, key, *keys)?;
    }
    if let Some((size, at)) = object.text("disk_size")? {
        let entry = text("size", "disk_size", at, &size);
        made.add(notes, source, &object.what, "disk", entry);
    }
    memory(&mut object, &mut made)?;
    let directory = object.text("output_directory")?;
    let vm_name = object.text("vm_name")?;
    for (value, key, shown) in [
        (&directory, "directory", "output_directory"),
        (&vm_name, "name", "vm_name"),
    ] {
        if let Some((value, at)) = value {
            made.add(
                notes,
                source,
                &object.what,
                "output",
                text(key, shown, *at, value),
            );
        }
    }
    monitor(&mut object, &mut made, directory.as_ref(), vm_name.as_ref())?;
    // Only who says so has the agent forwarded: it opens the user's other machines to the guest.
    if let Some(node) = object.value("ssh_disable_agent_forwarding", Take::Flag)?
        && node.kind == Kind::Bool(false)
    {
        let mut entry = text("forward-agent", "ssh_disable_agent_forwarding", node.at, "");
        entry.node.kind = Kind::Bool(true);
        made.add(notes, source, &object.what, "ssh", entry);
    }
    for (table, key, kind) in DEFAULTS {
        made.fallback(node.at, table, key, kind.clone());
    }
    for (table, key, word) in WORDS {
        made.fallback(node.at, table, key, Kind::Text((*word).to_owned()));
    }
    made.nest("vnc", "machine");
    made.nest("bastion", "ssh");
    object.finish();
    let entry = Entry {
        at: node.at,
        key: name.clone(),
        shown: None,
        node: made.node(node.at),
    };
    Ok((name, entry))
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Null | Kind::Bool(false) => true,
        Kind::Text(text) => text.is_empty(),
        Kind::List(items) => items.is_empty(),
        Kind::Table(entries) => entries.is_empty(),
        _ => false,
    }
}

/// What it starts from, and its checksum.
fn base(object: &mut Object<'_>, made: &mut Made) -> Result<()> {
    let one = object.text("iso_url")?;
    let several = object
        .moved("iso_urls", "image", Take::Texts)?
        .filter(|entry| !is_empty(&entry.node));
    let entry = match (one, several) {
        (Some(_), Some(entry)) => {
            let error = object.error(entry.at, "iso_url and iso_urls exclude one another");
            object.tell(error.with_remedy("keep one of them"));
            Some(entry)
        }
        (Some((url, at)), None) => Some(text("image", "iso_url", at, &url)),
        (None, several) => several,
    };
    if let Some(entry) = entry {
        made.put("base", entry);
    }
    let plain = object.text("iso_checksum")?;
    let kind = object.text("iso_checksum_type")?;
    let url = object.text("iso_checksum_url")?;
    let mut found = match (url, kind, plain) {
        (Some((url, at)), _, _) => Some((format!("file:{url}"), at, "iso_checksum_url")),
        (None, Some((kind, at)), _) if kind == "none" => Some((kind, at, "iso_checksum_type")),
        (None, Some((kind, _)), Some((sum, at))) if !sum.contains(':') => {
            Some((format!("{kind}:{sum}"), at, "iso_checksum"))
        }
        (None, _, Some((sum, at))) => Some((sum, at, "iso_checksum")),
        (None, Some((_, at)), None) => {
            let error = object.error(at, "iso_checksum_type is there, but no iso_checksum");
            object.tell(error.with_remedy("add iso_checksum or iso_checksum_url"));
            None
        }
        (None, None, None) => None,
    };
    for (key, kind) in [
        ("iso_md5", "md5"),
        ("iso_sha1", "sha1"),
        ("iso_sha256", "sha256"),
        ("iso_sha512", "sha512"),
    ] {
        if let Some((sum, at)) = object.text(key)?
            && found.is_none()
        {
            found = Some((format!("{kind}:{sum}"), at, key));
        }
    }
    if let Some((sum, at, shown)) = found {
        made.put("base", text("checksum", shown, at, &sum));
    }
    Ok(())
}

fn ports(
    object: &mut Object<'_>,
    made: &mut Made,
    table: &str,
    key: &str,
    keys: [&'static str; 2],
) -> Result<()> {
    let first = object.value(keys[0], Take::Int)?;
    let last = object.value(keys[1], Take::Int)?;
    let Some(at) = first.as_ref().or(last.as_ref()).map(|node| node.at) else {
        return Ok(());
    };
    let none = || Node {
        at,
        kind: Kind::Int(0),
    };
    let pair = vec![first.unwrap_or_else(none), last.unwrap_or_else(none)];
    let mut entry = text(key, &format!("{} and {}", keys[0], keys[1]), at, "");
    entry.node.kind = Kind::List(pair);
    made.add(object.notes, object.source, &object.what, table, entry);
    Ok(())
}

fn memory(object: &mut Object<'_>, made: &mut Made) -> Result<()> {
    let Some(mut entry) = object.moved("memory", "memory", Take::Int)? else {
        return Ok(());
    };
    match &entry.node.kind {
        Kind::Text(text) if text.is_empty() => return Ok(()),
        Kind::Int(number) if *number < 10 => entry.node.kind = Kind::Int(512),
        _ => {}
    }
    made.put("machine", entry);
    Ok(())
}

/// The socket that tools of the template's own expect.
fn monitor(
    object: &mut Object<'_>,
    made: &mut Made,
    directory: Option<&(String, usize)>,
    name: Option<&(String, usize)>,
) -> Result<()> {
    let enabled = object.value("qmp_enable", Take::Flag)?;
    if let Some((path, at)) = object.text("qmp_socket_path")? {
        made.put("machine", text("qmp-socket", "qmp_socket_path", at, &path));
        return Ok(());
    }
    let Some(node) = enabled else {
        return Ok(());
    };
    let said = match &node.kind {
        Kind::Bool(value) => *value,
        Kind::Text(text) => ["1", "t", "T", "true", "TRUE", "True"].contains(&text.as_str()),
        _ => false,
    };
    if said {
        let directory = directory.map_or("output-{{build_name}}", |(text, _)| text);
        let name = name.map_or("packer-{{build_name}}", |(text, _)| text);
        let path = format!("{directory}/{name}.monitor");
        made.put("machine", text("qmp-socket", "qmp_enable", node.at, &path));
    }
    Ok(())
}

//! A file of checks that a guest passes as it is: what it listens on, runs, mounts, and who its users are.
//!
//! Asks twice: for names, and for what belongs to them, which is then written down. The file is a start for people to cut.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::facts::fact;
use super::facts::net::listening;
use super::load::Check;
use super::matcher::Actual;
use super::probe::{ScriptOptions, script};
use super::run::ask;
use super::shape::Kind;
use crate::communicator::Communicator;
use crate::error::Result;

/// Names that are asked for beyond what every round knows.
const NAMES: &str = r#"
ask_names() {
    ask_globals net users mounts
    {
        if [ -d /run/systemd/system ] && has systemctl; then
            systemctl list-unit-files --type=service --state=enabled --no-legend --no-pager 2>/dev/null | awk '{ print $1 }' |
                sed 's/\.service$//' | grep -v '@$'
            systemctl list-units --type=service --state=running --no-legend --no-pager --plain 2>/dev/null | awk '{ print $1 }' |
                sed 's/\.service$//' | grep -v '@'
        fi
        for link in /etc/runlevels/*/*; do [ ! -e "$link" ] || echo "${link##*/}"; done
    } | sort -u | put g services 262144
    for link in /sys/class/net/*; do [ ! -e "$link" ] || echo "${link##*/}"; done | put g interfaces 65536
    {
        if [ -f /lib/apk/db/installed ]; then
            sed -n 's/^P://p' /lib/apk/db/installed
        elif has dpkg-query; then
            dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' | awk '$2 ~ /^[ih]i/ { print $1 }'
        elif has rpm; then
            rpm -qa --nosignature --nodigest --qf '%{NAME}\n'
        elif has pacman; then
            pacman -Qq
        fi
    } 2>/dev/null | sort -u | put g packages 1048576
    say g end 1
}
ask_names </dev/null
"#;

/// What of a type is written down.
fn written(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Port => &["listening", "ip"],
        Kind::Service => &["enabled", "running"],
        Kind::User => &["exists", "uid", "gid", "groups", "home", "shell"],
        Kind::Mount => &["exists", "source", "filesystem"],
        Kind::Interface => &["exists", "mtu"],
        Kind::File => &["exists", "mode", "owner", "group", "filetype"],
        Kind::Package => &["installed", "versions"],
        Kind::KernelParam => &["value"],
        _ => &[],
    }
}

/// Types that can be written down, by default those that tell most.
pub const KINDS: [Kind; 8] = [
    Kind::File,
    Kind::Interface,
    Kind::KernelParam,
    Kind::Mount,
    Kind::Package,
    Kind::Port,
    Kind::Service,
    Kind::User,
];

/// Makes the text of a file of checks of `kinds` from what `guest` is now.
///
/// # Errors
/// The guest cannot be asked.
pub fn generate(guest: &dyn Communicator, kinds: &[Kind], sudo: bool) -> Result<String> {
    let prelude = script(&[], ScriptOptions { max_concurrent: 1 });
    let start = prelude.find("most_jobs=").unwrap_or(prelude.len());
    let names = format!("{}{NAMES}", prelude.get(..start).unwrap_or_default());
    let said = ask(guest, &names, sudo, 0)?;
    let global = |name: &str| said.global_text(name).unwrap_or_default();
    let lines = |name: &str| -> Vec<String> { global(name).lines().map(str::to_owned).collect() };
    let mut found: Vec<(Kind, String)> = Vec::new();
    for kind in kinds {
        let ids = match kind {
            Kind::File => [
                "/etc/passwd",
                "/etc/shadow",
                "/etc/ssh/sshd_config",
                "/etc/sudoers",
                "/root",
                "/tmp",
            ]
            .map(str::to_owned)
            .to_vec(),
            Kind::Interface => lines("interfaces"),
            Kind::KernelParam => vec!["kernel.ostype".to_owned(), "net.ipv4.ip_forward".to_owned()],
            Kind::Mount => mount_points(&global("mounts")),
            Kind::Package => lines("packages"),
            Kind::Port => ports(&global),
            Kind::Service => lines("services"),
            Kind::User => { lines("passwd").into_iter() }
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split(':').collect();
                    let uid: u32 = fields.get(2)?.parse().ok()?;
                    (uid == 0 || (1000..65000).contains(&uid))
                        .then(|| fields.first().map(|name| (*name).to_owned()))?
                })
                .collect(),
            _ => Vec::new(),
        };
        found.extend(ids.into_iter().map(|id| (*kind, id)));
    }
    let place: Arc<Path> = Arc::from(Path::new("-"));
    let checks: Vec<Check> = { found.into_iter() }
        .filter(|(_, id)| !id.is_empty() && !id.chars().any(char::is_control))
        .map(|(kind, id)| Check {
            kind,
            subject: id.clone(),
            id,
            title: None,
            meta: Map::new(),
            skip: false,
            file: Arc::clone(&place),
            line: 0,
            properties: Vec::new(),
            settings: BTreeMap::new(),
        })
        .collect();
    let references: Vec<&Check> = checks.iter().collect();
    let asked = script(&references, ScriptOptions { max_concurrent: 10 });
    let answers = ask(guest, &asked, sudo, checks.len())?;
    let mut text = String::from("# Made from a machine as it was; cut it to what has to be so.\n");
    let mut last = None;
    for (number, check) in checks.iter().enumerate() {
        let mut attributes = Vec::new();
        for property in written(check.kind) {
            if let Ok(Actual::Value(value)) = fact(check, number, property, &answers) {
                let is_absent = value == Value::Bool(false) && attributes.is_empty();
                if is_absent && check.kind != Kind::Service {
                    break;
                }
                attributes.push((property, value));
            }
        }
        if attributes.is_empty() {
            continue;
        }
        if last != Some(check.kind) {
            let _ = writeln!(text, "{}:", check.kind.name());
            last = Some(check.kind);
        }
        // JSON's quoting is YAML's, too.
        let _ = writeln!(text, "  {}:", Value::String(check.id.clone()));
        for (property, value) in attributes {
            let _ = writeln!(text, "    {property}: {value}");
        }
    }
    Ok(text)
}

fn ports(global: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for (protocol, is_udp) in [("tcp", false), ("udp", true)] {
        for version in ["", "6"] {
            for (address, port) in listening(&global(&format!("net-{protocol}{version}")), is_udp) {
                // Ports of clients, and what only the machine itself reaches by UDP, change from boot to boot.
                if port == 0 || (is_udp && (address.is_loopback() || port >= 32_768)) {
                    continue;
                }
                let protocol = if version == "6" && !address.is_unspecified() {
                    format!("{protocol}6")
                } else {
                    protocol.to_owned()
                };
                found.insert((protocol, port));
            }
        }
    }
    { found.into_iter() }
        .map(|(protocol, port)| format!("{protocol}:{port}"))
        .collect()
}

/// Where filesystems with a device are mounted.
fn mount_points(said: &str) -> Vec<String> {
    let mut found: Vec<String> = { said.lines() }
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let source = after.split(' ').nth(1)?;
            let point = before.split(' ').nth(4)?;
            (source.starts_with("/dev/") && !point.contains('\\')).then(|| point.to_owned())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

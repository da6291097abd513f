//! Packer's provisioners and post-processors.

use super::super::check::{Findings, Severity};
use super::super::document::{Entry, Kind, Node, Source};
use super::weak::{Object, Take};
use super::{missing, text};
use crate::error::Result;

type Keys = &'static [(&'static str, &'static str, Take)];

const COMMON: Keys = &[
    ("only", "only", Take::Texts),
    ("except", "except", Take::Texts),
    ("pause_before", "pause-before", Take::Span),
    ("max_retries", "max-retries", Take::Int),
    ("timeout", "timeout", Take::Span),
];
const SHELL: Keys = &[
    ("environment_vars", "environment", Take::Texts),
    ("env", "env", Take::Map),
    ("env_var_format", "environment-format", Take::Text),
    ("use_env_var_file", "environment-file", Take::Flag),
    ("execute_command", "execute-command", Take::Text),
    ("inline_shebang", "shebang", Take::Text),
    ("remote_folder", "remote-folder", Take::Text),
    ("remote_file", "remote-file", Take::Text),
    ("remote_path", "remote-path", Take::Text),
    ("binary", "binary", Take::Flag),
    ("start_retry_timeout", "start-retry-timeout", Take::Span),
    ("expect_disconnect", "expect-disconnect", Take::Flag),
    ("valid_exit_codes", "valid-exit-codes", Take::Ints),
    ("pause_after", "pause-after", Take::Span),
    ("skip_clean", "skip-clean", Take::Flag),
];
const LOCAL: Keys = &[
    ("environment_vars", "environment", Take::Texts),
    ("env", "env", Take::Map),
    ("env_var_format", "environment-format", Take::Text),
    ("execute_command", "execute-command", Take::Texts),
    ("inline_shebang", "shebang", Take::Text),
    ("only_on", "only-on", Take::Texts),
    ("tempfile_extension", "tempfile-extension", Take::Text),
    ("valid_exit_codes", "valid-exit-codes", Take::Ints),
];
const FILE: Keys = &[
    ("content", "content", Take::Text),
    ("destination", "to", Take::Text),
    ("generated", "generated", Take::Flag),
];
const SLEEP: Keys = &[("duration", "sleep", Take::Span)];
const BREAKPOINT: Keys = &[
    ("note", "breakpoint", Take::Text),
    ("disable", "disabled", Take::Flag),
];
const ANSIBLE: Keys = &[
    ("playbook_file", "ansible", Take::Texts),
    ("command", "command", Take::Text),
    ("extra_arguments", "extra-arguments", Take::Texts),
    ("ansible_env_vars", "environment", Take::Texts),
    ("groups", "groups", Take::Texts),
    ("empty_groups", "empty-groups", Take::Texts),
    ("host_alias", "host-alias", Take::Text),
    ("user", "user", Take::Text),
    ("inventory_file", "inventory", Take::Text),
    ("inventory_directory", "inventory-directory", Take::Text),
    ("inventory_file_template", "inventory-template", Take::Text),
    ("keep_inventory_file", "keep-inventory", Take::Flag),
    ("galaxy_file", "galaxy-file", Take::Text),
    ("galaxy_command", "galaxy-command", Take::Text),
    ("galaxy_force_install", "galaxy-force", Take::Flag),
    ("roles_path", "roles-path", Take::Text),
    ("collections_path", "collections-path", Take::Text),
    // Of the proxy that stands between Ansible and the guest in Packer.
    ("use_proxy", "use-proxy", Take::Flag),
    ("use_sftp", "use-sftp", Take::Flag),
    ("sftp_command", "sftp-command", Take::Text),
    ("local_port", "local-port", Take::Int),
    ("ssh_host_key_file", "proxy-host-key", Take::Text),
    (
        "ssh_authorized_key_file",
        "proxy-authorized-key",
        Take::Text,
    ),
    ("skip_version_check", "skip-version-check", Take::Flag),
];
const ANSIBLE_LOCAL: Keys = &[
    ("command", "command", Take::Text),
    ("extra_arguments", "extra-arguments", Take::Texts),
    ("group_vars", "group-vars", Take::Text),
    ("host_vars", "host-vars", Take::Text),
    ("playbook_dir", "playbook-dir", Take::Text),
    ("playbook_paths", "playbook-paths", Take::Texts),
    ("role_paths", "role-paths", Take::Texts),
    ("collection_paths", "collection-paths", Take::Texts),
    ("staging_directory", "staging-directory", Take::Text),
    ("clean_staging_directory", "clean", Take::Flag),
    ("inventory_file", "inventory", Take::Text),
    ("inventory_groups", "groups", Take::Texts),
    ("galaxy_file", "galaxy-file", Take::Text),
    ("galaxy_command", "galaxy-command", Take::Text),
];
const COMPRESS: Keys = &[
    ("output", "compress", Take::Text),
    ("format", "format", Take::Text),
    ("compression_level", "level", Take::Int),
];
const CHECKSUM: Keys = &[
    ("checksum_types", "checksum", Take::Texts),
    ("output", "to", Take::Text),
];
const MANIFEST: Keys = &[
    ("output", "manifest", Take::Text),
    ("strip_path", "strip-path", Take::Flag),
    ("strip_time", "strip-time", Take::Flag),
    ("custom_data", "custom-data", Take::Map),
];
const VAGRANT: Keys = &[
    ("output", "vagrant", Take::Text),
    ("compression_level", "level", Take::Int),
    ("include", "include", Take::Texts),
    ("vagrantfile_template", "vagrantfile", Take::Text),
];
/// What a box is made for, by Vagrant's name.
const PROVIDER: &str = "libvirt";
/// Keys of a box that have no meaning here, and why.
const UNUSED_OF_BOXES: &[(&str, &str)] = &[(
    "vagrantfile_template_generated",
    "whether a Vagrantfile is there is seen when the box is made",
)];
/// The same of scripts on the host.
const UNUSED_OF_SCRIPTS: &[(&str, &str)] = &[("use_linux_pathing", "it belongs to Windows")];
const ARTIFICE: Keys = &[("files", "artifice", Take::Texts)];

/// What is not there, and the nearest way. Entered here until it is.
const REFUSED: &[(&str, &str)] = &[
    (
        "powershell",
        "guests are entered by SSH; run it by a shell provisioner with execute_command",
    ),
    (
        "windows-shell",
        "guests are entered by SSH; run it by a shell provisioner with execute_command",
    ),
    ("windows-restart", "use the provisioner reboot"),
    (
        "chef-client",
        "send the cookbooks by a file provisioner and run chef-client by a shell provisioner",
    ),
    (
        "chef-solo",
        "send the cookbooks by a file provisioner and run chef-solo by a shell provisioner",
    ),
    (
        "puppet-masterless",
        "send the manifests by a file provisioner and run puppet apply by a shell provisioner",
    ),
    ("puppet-server", "run puppet agent by a shell provisioner"),
    (
        "salt-masterless",
        "send the states by a file provisioner and run salt-call by a shell provisioner",
    ),
    ("inspec", "run it by shell-local"),
    ("converge", "run it by a shell provisioner"),
];
const REFUSED_POSTS: &[(&str, &str)] = &[
    (
        "amazon-import",
        "images of clouds are imported by their own tools: shell-local",
    ),
    (
        "googlecompute-import",
        "images of clouds are imported by their own tools: shell-local",
    ),
    (
        "digitalocean-import",
        "images of clouds are imported by their own tools: shell-local",
    ),
    ("docker-import", "use shell-local"),
    ("docker-push", "use shell-local"),
    ("docker-save", "use shell-local"),
    ("docker-tag", "use shell-local"),
    ("vsphere", "use shell-local"),
    ("vagrant-cloud", "use shell-local"),
];

/// A step or job that is not there: which builds have it is told all the same, for only those are hindered.
fn refused(
    object: &mut Object<'_>,
    at: usize,
    what: &str,
    kind: &str,
    remedy: &str,
) -> Result<Node> {
    let mut entries = vec![text("type", "type", at, kind)];
    for (key, take) in [
        ("name", Take::Text),
        ("only", Take::Texts),
        ("except", Take::Texts),
    ] {
        entries.extend(object.moved(key, key, take)?);
    }
    let mut entry = text("missing", "type", at, "");
    entry.node = missing(at, format!("{what}: '{kind}' is not there"), remedy);
    entries.push(entry);
    Ok(Node {
        at,
        kind: Kind::Table(entries),
    })
}

/// A provisioner as a step.
pub(super) fn provisioner(
    source: &Source,
    notes: &Findings,
    node: &Node,
    what: &str,
) -> Result<Node> {
    let mut object = Object::new(source, notes, node, what)?;
    let Some((kind, at)) = object.text("type")? else {
        return Err(object
            .error(node.at, "there is no type")
            .with_remedy("add \"type\": \"shell\""));
    };
    if let Some((_, remedy)) = REFUSED.iter().find(|(known, _)| *known == kind) {
        return refused(&mut object, at, what, &kind, remedy);
    }
    object.what = format!("{what} ({kind})");
    let over = object.take("override");
    let mut entries = vec![text("type", "type", at, &kind)];
    entries.extend(options(&mut object, &kind, true)?);
    common(&mut object, &mut entries)?;
    object.finish();
    if let Some(over) = over {
        entries.push(overridden(source, notes, over, what, &kind)?);
    }
    complete(&kind, at, &mut entries);
    Ok(Node {
        at: node.at,
        kind: Kind::Table(entries),
    })
}

fn overridden(
    source: &Source,
    notes: &Findings,
    over: &Entry,
    what: &str,
    kind: &str,
) -> Result<Entry> {
    let Kind::Table(builds) = &over.node.kind else {
        let text = format!(
            "{what}: override: expected an object, found {}",
            over.node.what()
        );
        return Err(source.error(over.node.at, text));
    };
    let mut all = Vec::new();
    for build in builds {
        let what = format!("{what}, override '{}'", build.key);
        let mut object = Object::new(source, notes, &build.node, what)?;
        let mut entries = options(&mut object, kind, false)?;
        common(&mut object, &mut entries)?;
        object.finish();
        all.push(Entry {
            node: Node {
                at: build.node.at,
                kind: Kind::Table(entries),
            },
            ..build.clone()
        });
    }
    Ok(Entry {
        at: over.at,
        key: "override".to_owned(),
        shown: None,
        node: Node {
            at: over.node.at,
            kind: Kind::Table(all),
        },
    })
}

fn common(object: &mut Object<'_>, entries: &mut Vec<Entry>) -> Result<()> {
    for (key, to, take) in COMMON {
        entries.extend(object.moved(key, to, *take)?);
    }
    Ok(())
}

/// The options that a type has of its own. `whole`: of a program of somebody else's, all there are.
fn options(object: &mut Object<'_>, kind: &str, whole: bool) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let keys = match kind {
        "shell" => {
            scripts(object, &mut entries, ["shell", "scripts"])?;
            SHELL
        }
        "shell-local" => {
            if let Some(entry) = object
                .moved("command", "local", Take::Texts)?
                .filter(|entry| has(&entry.node))
            {
                entries.push(entry);
            }
            scripts(object, &mut entries, ["local", "local-scripts"])?;
            unused(object, UNUSED_OF_SCRIPTS);
            LOCAL
        }
        "file" => {
            files(object, &mut entries)?;
            FILE
        }
        "ansible" => ANSIBLE,
        "ansible-local" => {
            // One playbook or several.
            let one = object.moved("playbook_file", "ansible-local", Take::Texts)?;
            let several = object.moved("playbook_files", "ansible-local", Take::Texts)?;
            if let (Some(one), Some(_)) = (&one, &several) {
                let text = "playbook_file and playbook_files exclude one another";
                let error = object.error(one.at, text);
                object.tell(error.with_remedy("keep playbook_files"));
            }
            entries.extend(one.or(several));
            ANSIBLE_LOCAL
        }
        "sleep" => SLEEP,
        "breakpoint" => BREAKPOINT,
        "reboot" => &[
            ("command", "reboot", Take::Text),
            ("reboot_timeout", "reboot-timeout", Take::Span),
        ],
        _ => {
            let known: Vec<&str> = COMMON.iter().map(|(key, _, _)| *key).collect();
            let rest = foreign(object, &known, whole);
            entries.extend(rest);
            return Ok(entries);
        }
    };
    for (key, to, take) in keys {
        entries.extend(object.moved(key, to, *take)?);
    }
    Ok(entries)
}

/// Takes keys that have no meaning here, and says so.
fn unused(object: &mut Object<'_>, keys: &[(&'static str, &str)]) {
    for (key, why) in keys {
        let said = object.take(key);
        if let Some(entry) = said.filter(|entry| entry.node.kind != Kind::Bool(false)) {
            warn(object, entry, &format!("{key} is not used: {why}"));
        }
    }
}

fn warn(object: &Object<'_>, entry: &Entry, text: &str) {
    let text = format!("{}: {text}", object.what);
    object.notes.add(
        Severity::Warning,
        object.source,
        entry.at,
        &text,
        "take it out",
    );
}

/// What a template says of boxes for one provider alone, put over what it says of all; only that of ours counts.
fn provider(object: &mut Object<'_>, entries: &mut Vec<Entry>) -> Result<()> {
    unused(object, UNUSED_OF_BOXES);
    if let Some((name, at)) = object.text("provider_override")?
        && name != PROVIDER
    {
        let text = format!("provider_override: there are no boxes for '{name}'");
        let error = object.error(at, &text);
        return Err(error.with_remedy("write \"libvirt\", or leave it out"));
    }
    let Some(over) = object.take("override") else {
        return Ok(());
    };
    let Kind::Table(providers) = &over.node.kind else {
        let text = format!("override: expected an object, found {}", over.node.what());
        return Err(object.error(over.node.at, &text));
    };
    for of_one in providers {
        if of_one.key != PROVIDER {
            let text = format!(
                "override of '{}' is not used: the box is for {PROVIDER}",
                of_one.key
            );
            warn(object, of_one, &text);
            continue;
        }
        let what = format!("{}, override '{PROVIDER}'", object.what);
        let mut own = Object::new(object.source, object.notes, &of_one.node, what)?;
        for (key, to, take) in VAGRANT {
            if let Some(entry) = own.moved(key, to, *take)? {
                entries.retain(|known| known.key != entry.key);
                entries.push(entry);
            }
        }
        own.finish();
    }
    Ok(())
}

/// Options of a program of somebody else's, as they are; those in `known` are everybody's.
fn foreign(object: &mut Object<'_>, known: &[&str], whole: bool) -> Option<Entry> {
    let at = object.at;
    let own: Vec<Entry> = object
        .rest_but(known)
        .into_iter()
        .filter_map(without_null)
        .collect();
    if own.is_empty() && !whole {
        return None;
    }
    Some(Entry {
        at,
        key: "options".to_owned(),
        shown: Some(String::new()),
        node: Node {
            at,
            kind: Kind::Table(own),
        },
    })
}

/// Null is as nothing; qimg's own language has none.
fn without_null(mut entry: Entry) -> Option<Entry> {
    entry.node = stripped(entry.node)?;
    Some(entry)
}

fn stripped(mut node: Node) -> Option<Node> {
    node.kind = match node.kind {
        Kind::Null => return None,
        Kind::List(items) => Kind::List(items.into_iter().filter_map(stripped).collect()),
        Kind::Table(entries) => Kind::Table(entries.into_iter().filter_map(without_null).collect()),
        kind => kind,
    };
    Some(node)
}

/// What makes a step what it is although its type alone would do.
fn complete(kind: &str, at: usize, entries: &mut Vec<Entry>) {
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    let missing = match kind {
        "sleep" if !has("sleep") => text("sleep", "duration", at, "0s"),
        "breakpoint" if !has("breakpoint") => text("breakpoint", "note", at, ""),
        "reboot" if !has("reboot") => text("reboot", "command", at, ""),
        "shell" | "file" | "shell-local" | "ansible" | "ansible-local" | "sleep" | "breakpoint"
        | "reboot" => return,
        _ => text("custom", "type", at, kind),
    };
    entries.push(missing);
}

fn has(node: &Node) -> bool {
    match &node.kind {
        Kind::List(items) => items.iter().any(|item| item.as_text() != Some("")),
        _ => false,
    }
}

/// `inline`, `script` and `scripts`, of which one is given.
fn scripts(object: &mut Object<'_>, entries: &mut Vec<Entry>, to: [&str; 2]) -> Result<()> {
    let inline = object
        .moved("inline", to[0], Take::Texts)?
        .filter(|entry| has(&entry.node));
    let one = object
        .moved("script", to[1], Take::Texts)?
        .filter(|entry| has(&entry.node));
    let several = object
        .moved("scripts", to[1], Take::Texts)?
        .filter(|entry| has(&entry.node));
    let mut given: Vec<Entry> = [inline, one, several].into_iter().flatten().collect();
    given.append(entries);
    if let [first, second, ..] = given.as_slice() {
        let text = format!(
            "{} and {} exclude one another",
            first.shown(),
            second.shown()
        );
        let error = object.error(second.at.max(first.at), &text);
        object.tell(error.with_remedy("make two provisioners of it"));
        given.truncate(1);
    }
    entries.extend(given);
    Ok(())
}

fn files(object: &mut Object<'_>, entries: &mut Vec<Entry>) -> Result<()> {
    let direction = object.text("direction")?;
    let to = match direction.as_ref().map(|(text, _)| text.as_str()) {
        None | Some("upload") => "upload",
        Some("download") => "download",
        Some(other) => {
            let at = direction.as_ref().map_or(object.at, |(_, at)| *at);
            let error = object.error(at, &format!("there is no direction '{other}'"));
            object.tell(error.with_remedy("write \"upload\" or \"download\""));
            "upload"
        }
    };
    let one = object
        .moved("source", to, Take::Texts)?
        .filter(|entry| has(&entry.node));
    let several = object
        .moved("sources", to, Take::Texts)?
        .filter(|entry| has(&entry.node));
    let merged = match (one, several) {
        (Some(mut one), Some(several)) => {
            if let (Kind::List(items), Kind::List(more)) = (&mut one.node.kind, several.node.kind) {
                items.extend(more);
            }
            Some(one)
        }
        (one, several) => one.or(several),
    };
    entries.extend(merged);
    Ok(())
}

/// One element of `post-processors` as a job, with those that take its result under `then`.
pub(super) fn chain(source: &Source, notes: &Findings, node: &Node, number: usize) -> Option<Node> {
    let members: Vec<&Node> = match &node.kind {
        Kind::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut jobs = Vec::new();
    for (place, member) in members.into_iter().enumerate() {
        let what = format!("post-processor {number}.{}", place + 1);
        notes.begin(source, member.at);
        jobs.push(read_on(notes, member, post(source, notes, member, &what)));
    }
    if jobs.is_empty() {
        return None;
    }
    let mut first = jobs.remove(0);
    if let (false, Kind::Table(entries)) = (jobs.is_empty(), &mut first.kind) {
        entries.push(Entry {
            at: node.at,
            key: "then".to_owned(),
            shown: None,
            node: Node {
                at: node.at,
                kind: Kind::List(jobs),
            },
        });
    }
    Some(first)
}

/// The step or job that was read; of a mistake its place alone, so that those behind it keep their numbers.
pub(super) fn read_on(notes: &Findings, node: &Node, read: Result<Node>) -> Node {
    notes.keep(read).unwrap_or(Node {
        at: node.at,
        kind: Kind::Null,
    })
}

fn post(source: &Source, notes: &Findings, node: &Node, what: &str) -> Result<Node> {
    let alone;
    let node = match &node.kind {
        Kind::Text(kind) => {
            let kind = Kind::Table(vec![text("type", "type", node.at, kind)]);
            alone = Node { at: node.at, kind };
            &alone
        }
        Kind::Table(_) => node,
        _ => {
            let text = format!(
                "{what}: expected a name or an object, found {}",
                node.what()
            );
            return Err(source.error(node.at, text));
        }
    };
    let mut object = Object::new(source, notes, node, what)?;
    let Some((kind, at)) = object.text("type")? else {
        return Err(object
            .error(node.at, "there is no type")
            .with_remedy("add \"type\": \"checksum\""));
    };
    if let Some((_, remedy)) = REFUSED_POSTS.iter().find(|(known, _)| *known == kind) {
        return refused(&mut object, at, what, &kind, remedy);
    }
    object.what = format!("{what} ({kind})");
    let mut entries = vec![text("type", "type", at, &kind)];
    if let Some(entry) = object.take("keep_input_artifact") {
        if !matches!(entry.node.kind, Kind::Bool(_)) {
            let text = format!(
                "keep_input_artifact: expected true or false, found {}",
                entry.node.what()
            );
            object.tell(object.error(entry.node.at, &text));
        }
        entries.push(Entry {
            key: "keep-input".to_owned(),
            shown: Some("keep_input_artifact".to_owned()),
            ..entry.clone()
        });
    }
    for (key, take) in [
        ("name", Take::Text),
        ("only", Take::Texts),
        ("except", Take::Texts),
    ] {
        entries.extend(object.moved(key, key, take)?);
    }
    let default = |entries: &mut Vec<Entry>, key: &str, kind: Kind| {
        let empty = |entry: &Entry| {
            entry.key == key
                && (entry.node.as_text() == Some("") || entry.node.kind == Kind::List(Vec::new()))
        };
        entries.retain(|entry| !empty(entry));
        if !entries.iter().any(|entry| entry.key == key) {
            let mut entry = text(key, "", node.at, "");
            entry.node.kind = kind;
            entries.push(entry);
        }
    };
    let word = |word: &str| Kind::Text(word.to_owned());
    let keys = match kind.as_str() {
        "compress" => COMPRESS,
        "checksum" => CHECKSUM,
        "manifest" => MANIFEST,
        "artifice" => ARTIFICE,
        "vagrant" => VAGRANT,
        "s3" => super::publishing::S3,
        "exoscale-import" => super::publishing::EXOSCALE,
        "shell-local" => {
            entries.extend(options(&mut object, "shell-local", true)?);
            &[]
        }
        _ => {
            entries.push(text("custom", "type", at, &kind));
            entries.extend(foreign(&mut object, &[], true));
            &[]
        }
    };
    for (key, to, take) in keys {
        entries.extend(object.moved(key, to, *take)?);
    }
    match kind.as_str() {
        "compress" => default(
            &mut entries,
            "compress",
            word("packer_{{.BuildName}}_{{.BuilderType}}"),
        ),
        "checksum" => {
            let md5 = Node {
                at: node.at,
                kind: word("md5"),
            };
            default(&mut entries, "checksum", Kind::List(vec![md5]));
            let output = "packer_{{.BuildName}}_{{.BuilderType}}_{{.ChecksumType}}.checksum";
            default(&mut entries, "to", word(output));
            default(&mut entries, "coreutils", Kind::Bool(false));
        }
        "manifest" => default(&mut entries, "manifest", word("packer-manifest.json")),
        "vagrant" => {
            provider(&mut object, &mut entries)?;
            default(
                &mut entries,
                "vagrant",
                word("packer_{{.BuildName}}_{{.Provider}}.box"),
            );
        }
        "exoscale-import" => {
            if let Some(entry) = object.moved("template_zone", "zones", Take::Texts)?
                && !entries.iter().any(|entry| entry.key == "zones")
            {
                entries.push(entry);
            }
            // As the vendor's plugin: everybody can read the object while it is there.
            let link = entries.iter().find(|entry| entry.key == "link");
            let link = link.is_some_and(|entry| entry.node.kind == Kind::Bool(true));
            entries.retain(|entry| entry.key != "link");
            default(&mut entries, "exoscale", word(""));
            default(&mut entries, "public", Kind::Bool(!link));
        }
        "s3" => default(&mut entries, "s3", word("")),
        _ => {}
    }
    if kind == "artifice" && !entries.iter().any(|entry| entry.key == "artifice") {
        let error = object.error(node.at, "there are no files");
        object.tell(error.with_remedy("name the files that take the artifact's place"));
    }
    object.finish();
    Ok(Node {
        at: node.at,
        kind: Kind::Table(entries),
    })
}

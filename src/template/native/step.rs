//! Steps of a build: provisioners.

use std::time::Duration;

use super::foreign::{self, Part};
use super::{Paths, ansible};
use crate::error::Result;
use crate::template::check::{self, Severity};
use crate::template::document::{Entry, Kind, Node};
use crate::template::model::{
    Action, Direction, FileTransfer, Provisioner, Scripts, Shell, ShellLocal, Text,
};
use crate::template::reader::{Reader, Table};

/// Keys by which a step says what it is.
const KINDS: [&str; 12] = [
    "shell",
    "scripts",
    "upload",
    "content",
    "download",
    "local",
    "local-scripts",
    "sleep",
    "reboot",
    "breakpoint",
    "ansible",
    "ansible-local",
];
const EXECUTE: &str = "chmod +x {{.Path}}; {{.Vars}} {{.Path}}";
const EXECUTE_BY_FILE: &str = "chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}";
const EXECUTE_AS_ROOT: &str = "chmod +x {{.Path}}; sudo env {{.Vars}} {{.Path}}";

/// What a step has in common with every other.
pub(super) struct Chosen<'n> {
    /// Its entries, those of the build put over the others.
    pub(super) entries: Vec<&'n Entry>,
}

/// The step `node` as `build` has it; `None`: it has none of it. `builds` are all names there are.
pub(super) fn choose<'n>(
    reader: &Reader<'_>,
    node: &'n Node,
    what: &str,
    build: &str,
    builds: &[String],
) -> Result<Option<Chosen<'n>>> {
    let Kind::Table(entries) = &node.kind else {
        let text = format!("{what}: expected an object, found {}", node.what());
        return Err(reader.error(node.at, text));
    };
    let names = |key: &str| -> Result<Option<Vec<String>>> {
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
            return Ok(None);
        };
        let list = Table::of(reader, node.at, vec![entry], what.to_owned());
        let mut names = Vec::new();
        for item in list.items_of(key, &entry.node)? {
            let name = list.text_of(key, item)?;
            if !builds.contains(&name) {
                return Err(no_build(reader, item.at, what, key, &name, builds));
            }
            names.push(name);
        }
        Ok(Some(names).filter(|names| !names.is_empty()))
    };
    let chosen = match (names("only")?, names("except")?) {
        (Some(_), Some(_)) => {
            let text = format!("{what}: only and except exclude one another");
            return Err(reader.error(node.at, text).with_remedy("keep one of them"));
        }
        (Some(only), None) => only.iter().any(|name| name == build),
        (None, Some(except)) => !except.iter().any(|name| name == build),
        (None, None) => true,
    };
    let mut merged: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !["only", "except", "override"].contains(&entry.key.as_str()))
        .collect();
    let over = entries.iter().find(|entry| entry.key == "override");
    if let Some(over) = over {
        let Kind::Table(by_build) = &over.node.kind else {
            let text = format!("{what}: override: expected an object by build");
            return Err(reader.error(over.at, text));
        };
        for of_build in by_build {
            if !builds.contains(&of_build.key) {
                let name = &of_build.key;
                return Err(no_build(
                    reader,
                    of_build.at,
                    what,
                    "override",
                    name,
                    builds,
                ));
            }
            let Kind::Table(own) = &of_build.node.kind else {
                let text = format!(
                    "{what}: override: expected an object, found {}",
                    of_build.node.what()
                );
                return Err(reader.error(of_build.node.at, text));
            };
            if of_build.key == build {
                merged.retain(|entry| !own.iter().any(|over| over.key == entry.key));
                merged.extend(own);
            }
        }
    }
    Ok(chosen.then_some(Chosen { entries: merged }))
}

fn no_build(
    reader: &Reader<'_>,
    at: usize,
    what: &str,
    key: &str,
    name: &str,
    builds: &[String],
) -> crate::Error {
    let error = reader.error(
        at,
        format!("{what}: {key} names the build '{name}', which there is not"),
    );
    let near = crate::template::near(name, builds.iter().map(String::as_str));
    error.with_remedy(match near {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("there is {}", builds.join(", ")),
    })
}

/// Reads a step.
pub(super) fn step<'r>(
    reader: &'r Reader<'_>,
    node: &'r Node,
    what: &str,
    chosen: Chosen<'r>,
    paths: &Paths<'_>,
) -> Result<Provisioner> {
    if let Some(missing) = node.missing() {
        return Err(reader.source.missing(missing));
    }
    let table = Table::of(reader, node.at, chosen.entries, what.to_owned());
    let kind = table.text("type")?;
    let custom = table.text_at("custom")?;
    let found: Vec<&str> = KINDS.into_iter().filter(|key| table.has(key)).collect();
    let action = match (&custom, found.first().copied()) {
        (Some((name, node)), None) => {
            foreign::look_for(&table, node, name, Part::Provisioner, paths);
            custom_action(&table, name)?
        }
        (None, Some("shell" | "scripts")) => Action::Shell(shell(&table, paths)?),
        (None, Some("upload" | "content" | "download")) => Action::File(file(&table, paths)?),
        (None, Some("local" | "local-scripts")) => Action::ShellLocal(local(&table, paths)?),
        (None, Some("ansible")) => Action::Ansible(ansible::on_host(&table, paths)?),
        (None, Some("ansible-local")) => Action::AnsibleLocal(ansible::in_guest(&table, paths)?),
        (None, Some("sleep")) => Action::Sleep(table.duration("sleep")?.unwrap_or_default()),
        (None, Some("reboot")) => reboot(&table)?,
        (None, Some("breakpoint")) => Action::Breakpoint {
            note: table.text("breakpoint")?.unwrap_or_default(),
            disabled: table.flag("disabled")?.unwrap_or(false),
        },
        _ => {
            // What a Packer template leaves out has a name there.
            let missing = match kind.as_deref() {
                Some("shell") => "either inline, script or scripts must be given",
                Some("file") => "there is no source",
                Some("shell-local") => "one of command, inline, script and scripts must be given",
                _ => "there is nothing to be done",
            };
            let error = reader.error(node.at, format!("{what}: {missing}"));
            return Err(match kind {
                Some(_) => error,
                None => table.misspelt(&KINDS).unwrap_or_else(|| {
                    error.with_remedy(format!("add one of {}, custom", KINDS.join(", ")))
                }),
            });
        }
    };
    let kind = kind.unwrap_or_else(|| match &action {
        Action::Shell(_) => "shell".to_owned(),
        Action::File(_) => "file".to_owned(),
        Action::ShellLocal(_) => "shell-local".to_owned(),
        Action::Ansible(_) => "ansible".to_owned(),
        Action::AnsibleLocal(_) => "ansible-local".to_owned(),
        Action::Sleep(_) => "sleep".to_owned(),
        Action::Reboot { .. } => "reboot".to_owned(),
        Action::Breakpoint { .. } => "breakpoint".to_owned(),
        Action::Custom { name, .. } => name.clone(),
    });
    let step = Provisioner {
        kind,
        line: reader.source.place(node.at).line,
        pause_before: table.duration("pause-before")?.unwrap_or_default(),
        max_retries: table
            .number("max-retries", -1, 1000)?
            .map_or(0, |count: i64| u32::try_from(count).unwrap_or(0)),
        timeout: table
            .duration("timeout")?
            .filter(|timeout| !timeout.is_zero()),
        cache: table.flag("cache")?,
        action,
    };
    table.finish();
    Ok(step)
}

/// The scripts of a step: inline, or files that must be there.
fn scripts(
    table: &Table<'_, '_>,
    paths: &Paths<'_>,
    inline: &'static str,
    files: &'static str,
) -> Result<Scripts> {
    let lines = table.lates(inline, false)?.unwrap_or_default();
    let files: Vec<_> = table
        .lates(files, false)?
        .unwrap_or_default()
        .into_iter()
        .filter(|(text, _)| !text.0.is_empty())
        .collect();
    if !lines.is_empty() && !files.is_empty() {
        let text = format!(
            "{}: scripts inline and scripts in files exclude one another",
            table.what
        );
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("make two steps of it"));
    }
    if lines.is_empty() && files.is_empty() {
        let text = format!("{}: there is no script", table.what);
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("add one, inline or as a file"));
    }
    if files.is_empty() {
        return Ok(Scripts::Inline(
            lines.into_iter().map(|(text, _)| text).collect(),
        ));
    }
    let mut all = Vec::new();
    for (text, node) in files {
        let text = paths.late(&text);
        if let Some(path) = text.as_literal()
            && !paths.exists(path.as_ref())
        {
            let message = format!("{}: there is no script '{path}'", table.what);
            table
                .reader
                .find(Severity::Error, node.at, &message, paths.advice());
        }
        all.push(text);
    }
    Ok(Scripts::Files(all))
}

/// `NAME=VALUE` in a list, then those of a table.
pub(super) fn environment(table: &Table<'_, '_>) -> Result<Vec<(String, Text)>> {
    let mut all = Vec::new();
    for (text, node) in table.lates("environment", false)?.unwrap_or_default() {
        match text.0.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, value)) => all.push((name.to_owned(), Text(value.to_owned()))),
            None => {
                let text = format!(
                    "{}: '{}' is not in the form NAME=VALUE",
                    table.name("environment"),
                    text.0
                );
                table.tell(table.reader.error(node.at, text));
            }
        }
    }
    let own = table.map("env", false)?;
    all.extend(own.into_iter().map(|(name, value, _)| (name, value)));
    Ok(all)
}

fn shell(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Shell> {
    let environment = environment(table)?;
    let environment_file = table.flag("environment-file")?.unwrap_or(false);
    let sudo = table.flag("sudo")?.unwrap_or(false);
    let given = table
        .late("execute-command", true)?
        .filter(|text| !text.0.is_empty());
    if sudo && given.is_some() {
        let text = format!(
            "{}: sudo and execute-command exclude one another",
            table.what
        );
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("keep one of them"));
    }
    if let (Some(command), Some(node)) = (&given, table.node("execute-command"))
        && !environment.is_empty()
        && check::drops_environment(&command.0)
    {
        let message = format!(
            "{}: the environment of this step never gets to its scripts: the command does not hold {{{{.Vars}}}}",
            table.name("execute-command")
        );
        let remedy =
            "write {{.Vars}} before the last {{.Path}}; with sudo: sudo env {{.Vars}} {{.Path}}";
        table
            .reader
            .find(Severity::Warning, node.at, &message, remedy);
    }
    let codes = exit_codes(table)?;
    Ok(Shell {
        scripts: scripts(table, paths, "shell", "scripts")?,
        inline_shebang: table
            .text("shebang")?
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "/bin/sh -e".to_owned()),
        environment,
        environment_format: table.filled("environment-format")?,
        environment_file,
        execute_command: given.unwrap_or_else(|| {
            let command = match (sudo, environment_file) {
                (true, _) => EXECUTE_AS_ROOT,
                (false, true) => EXECUTE_BY_FILE,
                (false, false) => EXECUTE,
            };
            Text(command.to_owned())
        }),
        remote_folder: table
            .filled("remote-folder")?
            .unwrap_or_else(|| "/tmp".to_owned()),
        remote_file: table.filled("remote-file")?,
        remote_path: table.filled("remote-path")?,
        binary: table.flag("binary")?.unwrap_or(false),
        start_retry_timeout: table
            .duration("start-retry-timeout")?
            .filter(|time| !time.is_zero())
            .unwrap_or(Duration::from_secs(300)),
        expect_disconnect: table.flag("expect-disconnect")?.unwrap_or(false),
        valid_exit_codes: codes,
        pause_after: table.duration("pause-after")?.unwrap_or_default(),
        skip_clean: table.flag("skip-clean")?.unwrap_or(false),
    })
}

fn exit_codes(table: &Table<'_, '_>) -> Result<Vec<i32>> {
    let Some(node) = table.node("valid-exit-codes") else {
        return Ok(vec![0]);
    };
    let nodes: Vec<&Node> = match &node.kind {
        Kind::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut codes = Vec::new();
    for node in nodes {
        let code = table.reader.keep(table.int_of("valid-exit-codes", node));
        let code = code.flatten().unwrap_or(0);
        match i32::try_from(code) {
            Ok(code) => codes.push(code),
            Err(_) => table.tell(table.error("valid-exit-codes", node, "no program ends so")),
        }
    }
    Ok(if codes.is_empty() { vec![0] } else { codes })
}

pub(super) fn local(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<ShellLocal> {
    const SYSTEMS: [&str; 6] = [
        "darwin", "freebsd", "linux", "openbsd", "solaris", "windows",
    ];
    let only_on = table.texts("only-on")?;
    if let Some(unknown) = only_on
        .iter()
        .find(|name| !SYSTEMS.contains(&name.as_str()))
    {
        let text = format!("{}: there is no system '{unknown}'", table.name("only-on"));
        let remedy = format!("there is {}", SYSTEMS.join(", "));
        table.tell(table.reader.error(table.at, text).with_remedy(remedy));
    }
    let given = table.lates("execute-command", true)?.unwrap_or_default();
    let execute_command = match given.is_empty() {
        true => ["/bin/sh", "-c", "{{.Vars}} {{.Script}}"]
            .map(|word| Text(word.to_owned()))
            .to_vec(),
        false => given.into_iter().map(|(text, _)| text).collect(),
    };
    let environment = environment(table)?;
    let joined: String = execute_command.iter().map(|text| text.0.as_str()).collect();
    if let Some(node) = table.node("execute-command")
        && !environment.is_empty()
        && check::drops_environment(&joined)
    {
        let message = format!(
            "{}: the environment of this step never gets to its scripts",
            table.name("execute-command")
        );
        table.reader.find(
            Severity::Warning,
            node.at,
            &message,
            "write {{.Vars}} before {{.Script}}",
        );
    }
    Ok(ShellLocal {
        scripts: scripts(table, paths, "local", "local-scripts")?,
        inline_shebang: table
            .text("shebang")?
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "/bin/sh -e".to_owned()),
        environment,
        environment_format: table.filled("environment-format")?,
        execute_command,
        only_on,
        tempfile_extension: table.text("tempfile-extension")?.unwrap_or_default(),
        valid_exit_codes: exit_codes(table)?,
    })
}

fn file(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<FileTransfer> {
    let generated = table.flag("generated")?.unwrap_or(false);
    let uploads = table.lates("upload", false)?.unwrap_or_default();
    let downloads = table.lates("download", false)?.unwrap_or_default();
    let content = table.late("content", false)?;
    let given = [
        !uploads.is_empty(),
        !downloads.is_empty(),
        content.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let text = format!(
            "{}: a step sends files, or sends content, or fetches files",
            table.what
        );
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("give one of upload, content and download"));
    }
    let destination = table.late("to", false)?.unwrap_or_default();
    if destination.0.is_empty() {
        let text = format!("{}: there is no destination", table.what);
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("say where the file is to go"));
    }
    let direction = if downloads.is_empty() {
        Direction::Upload
    } else {
        Direction::Download
    };
    let mut sources = Vec::new();
    for (text, node) in uploads {
        let text = paths.late(&text);
        if let Some(path) = text.as_literal()
            && !generated
            && !paths.exists(path.as_ref())
            && !path.contains(['*', '?', '['])
        {
            let message = format!("{}: there is no file '{path}'", table.what);
            table
                .reader
                .find(Severity::Error, node.at, &message, paths.advice());
        }
        sources.push(text);
    }
    sources.extend(downloads.into_iter().map(|(text, _)| text));
    Ok(FileTransfer {
        sources,
        content,
        destination,
        direction,
        generated,
    })
}

fn reboot(table: &Table<'_, '_>) -> Result<Action> {
    let command = match table.node("reboot").map(|node| &node.kind) {
        Some(Kind::Bool(true)) | None => Text::default(),
        Some(Kind::Bool(false)) => {
            let text = format!("{}: a step that reboots and does not", table.what);
            return Err(table
                .reader
                .error(table.at, text)
                .with_remedy("take the step out"));
        }
        Some(_) => table.late("reboot", false)?.unwrap_or_default(),
    };
    Ok(Action::Reboot {
        command,
        timeout: table
            .duration("reboot-timeout")?
            .filter(|timeout| !timeout.is_zero()),
    })
}

fn custom_action(table: &Table<'_, '_>, name: &str) -> Result<Action> {
    Ok(Action::Custom {
        name: name.to_owned(),
        options: options(table)?,
    })
}

/// Options of a program of somebody else's, as JSON text whose strings are filled in as far as can be now.
pub(super) fn options(table: &Table<'_, '_>) -> Result<String> {
    fn value(table: &Table<'_, '_>, node: &Node) -> Result<serde_json::Value> {
        use serde_json::Value;
        Ok(match &node.kind {
            Kind::Null | Kind::Missing(_) => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::from(*number),
            Kind::Float(number) => Value::from(*number),
            Kind::Text(text) => {
                let folded = table
                    .reader
                    .fold(node, text, &table.name("options"), false)?;
                Value::String(folded.as_literal().unwrap_or(folded.0))
            }
            Kind::List(items) => Value::Array(
                items
                    .iter()
                    .map(|item| value(table, item))
                    .collect::<Result<_>>()?,
            ),
            Kind::Table(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| Ok((entry.key.clone(), value(table, &entry.node)?)))
                    .collect::<Result<_>>()?,
            ),
        })
    }
    let json = match table.node("options") {
        Some(node) if matches!(node.kind, Kind::Table(_)) => value(table, node)?,
        Some(node) => return Err(table.error("options", node, "expected an object")),
        None => serde_json::Value::Object(serde_json::Map::new()),
    };
    Ok(json.to_string())
}

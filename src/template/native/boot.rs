//! The parts of a build that are about how the guest comes up: keys, kernels, the network, and files it may fetch.

use super::{Paths, range_of};
use crate::error::Result;
use crate::fat;
use crate::iso9660;
use crate::keyboard::Layout;
use crate::template::check::{self, Severity};
use crate::template::document::Node;
use crate::template::model::{Boot, Kernel, Media, NetworkBoot, Text};
use crate::template::reader::Table;

pub(super) fn boot(table: &Table<'_, '_>, vnc_disabled: bool, paths: &Paths<'_>) -> Result<Boot> {
    let keyboard = keyboard(table)?;
    let layout = Layout::named(&keyboard).unwrap_or(Layout::us());
    let judge = |at, text: &str| judge(table, at, text, layout);
    let mut steps = Vec::new();
    let command = table.lates("command", true)?.unwrap_or_default();
    if !command.is_empty() {
        let joined: String = command.iter().map(|(text, _)| text.0.as_str()).collect();
        // One string may begin what the next one ends.
        for (text, node) in &command {
            let whole = command.len() == 1 || !text.0.contains(['<', '>']);
            if whole || balanced(&text.0) {
                judge(node.at, &text.0)?;
            }
        }
        let at = command.first().map_or(table.at, |(_, node)| node.at);
        if command.iter().any(|(text, _)| !balanced(&text.0)) {
            judge(at, &joined)?;
        }
        steps.push((Text(joined), None));
    }
    let grouped = table.items("steps")?.unwrap_or_default();
    if !grouped.is_empty() && !steps.is_empty() {
        let text = format!("{}: command and steps exclude one another", table.what);
        return Err(table
            .reader
            .error(table.at, text)
            .with_remedy("keep one of them"));
    }
    for item in grouped {
        let words = table.items_of("steps", item)?;
        let (Some(first), true) = (words.first(), words.len() <= 2) else {
            return Err(table.error("steps", item, "a step is a command and what it is for"));
        };
        let text = table.late_of("steps", first, true)?;
        judge(first.at, &text.0)?;
        let note = words
            .get(1)
            .map(|word| table.text_of("steps", word))
            .transpose()?;
        steps.push((text, note));
    }
    if vnc_disabled && !steps.is_empty() {
        let text = format!(
            "{}: a boot command cannot be used when VNC is disabled",
            table.what
        );
        return Err(table
            .reader
            .error(table.at, text)
            .with_remedy("leave out disable_vnc"));
    }
    let boot = Boot {
        wait: table.duration("wait")?,
        steps,
        key_interval: table.duration("key-interval")?,
        group_interval: table.duration("group-interval")?,
        keyboard,
        kernel: kernel(table, paths)?,
        network: network(table, paths)?,
    };
    if boot.steps.is_empty()
        && let (Some(node), Some(wait)) = (table.node("wait"), boot.wait)
        && !wait.is_zero()
    {
        table.reader.find(
            Severity::Warning,
            node.at,
            &format!(
                "{}: there is no boot command to wait for: Packer waits anyway, qimg does not",
                table.name("wait")
            ),
            "leave it out",
        );
    }
    Ok(boot)
}

fn keyboard(table: &Table<'_, '_>) -> Result<String> {
    let Some((name, node)) = table.text_at("keyboard")? else {
        return Ok(String::new());
    };
    match Layout::named(&name) {
        Some(layout) => Ok(layout.name().to_owned()),
        None if name.is_empty() => Ok(name),
        None => {
            let names: Vec<&str> = Layout::names().collect();
            let error = table.error(
                "keyboard",
                node,
                &format!("there is no keyboard layout '{name}'"),
            );
            Err(error.with_remedy(format!("there is {}", names.join(", "))))
        }
    }
}

/// Whether no word in angle brackets is cut at the end of this string.
fn balanced(text: &str) -> bool {
    match (text.rfind('<'), text.rfind('>')) {
        (Some(open), Some(close)) => open < close,
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// What Packer refuses, too, and what cannot be typed, are errors; what is typed though it looks like a key is a trap.
fn judge(table: &Table<'_, '_>, at: usize, command: &str, layout: &Layout) -> Result<()> {
    for bad in check::boot_command(command, layout) {
        let text = format!("{}: {}", table.name("command"), bad.message);
        if bad.refused {
            return Err(table.reader.error(at, text).with_remedy(bad.remedy));
        }
        table.reader.trap(at, &text, &bad.remedy);
    }
    Ok(())
}

fn kernel(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Option<Kernel>> {
    let kernel = there(table, "kernel", paths)?;
    let initrd = there(table, "initrd", paths)?;
    let append = table.late("append", true)?.unwrap_or_default();
    let Some(kernel) = kernel else {
        if initrd.is_some() || !append.0.is_empty() {
            let text = format!("{}: initrd and append belong to a kernel", table.what);
            let error = table.reader.error(table.at, text);
            return Err(error.with_remedy("add kernel = \"...\""));
        }
        return Ok(None);
    };
    Ok(Some(Kernel {
        kernel,
        initrd,
        append,
    }))
}

fn network(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Option<NetworkBoot>> {
    let directory = there(table, "tftp", paths)?;
    let file = table.text_at("tftp-file")?;
    match (directory, file) {
        (None, None) => Ok(None),
        (Some(directory), Some((file, node))) => {
            if !paths.exists(&directory.join(&file)) {
                let text = format!("there is no '{file}' in '{}'", directory.display());
                return Err(table.error("tftp-file", node, &text));
            }
            Ok(Some(NetworkBoot { directory, file }))
        }
        _ => {
            let text = format!(
                "{}: a boot from the network needs tftp and tftp-file",
                table.what
            );
            Err(table
                .reader
                .error(table.at, text)
                .with_remedy("write tftp = \"DIRECTORY\" and tftp-file = \"pxelinux.0\""))
        }
    }
}

/// A file or directory that has to be there.
fn there(
    table: &Table<'_, '_>,
    key: &'static str,
    paths: &Paths<'_>,
) -> Result<Option<std::path::PathBuf>> {
    let Some((text, node)) = table.text_at(key)?.filter(|(text, _)| !text.is_empty()) else {
        return Ok(None);
    };
    let path = paths.input(text.as_ref());
    if !paths.exists(&path) {
        let text = format!("there is no '{}'", path.display());
        return Err(table.error(key, node, &text).with_remedy(paths.advice()));
    }
    Ok(Some(path))
}

/// A list of paths; the first that matches nothing is told of.
fn inputs(table: &Table<'_, '_>, key: &'static str, paths: &Paths<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for item in table.items(key)?.unwrap_or_default() {
        let text = table.text_of(key, item)?;
        if text.is_empty() {
            continue;
        }
        let path = paths.glob(&text);
        if !path.contains(['*', '?', '[']) && !paths.exists(path.as_ref()) {
            note_missing(table, key, item, &path, paths);
        }
        found.push(path);
    }
    Ok(found)
}

/// It may be made before the build begins.
fn note_missing(table: &Table<'_, '_>, key: &str, node: &Node, path: &str, paths: &Paths<'_>) {
    let text = format!("{}: there is no '{path}' yet", table.name(key));
    table
        .reader
        .find(Severity::Warning, node.at, &text, paths.advice());
}

/// Refuses a label that the medium cannot hold.
fn judge_label(
    table: &Table<'_, '_>,
    label: Option<&str>,
    check: fn(&str) -> Result<()>,
) -> Result<()> {
    let (Some(label), Some(node)) = (label, table.node("label")) else {
        return Ok(());
    };
    check(label).map_err(|error| {
        let own = table.error("label", node, &error.to_string());
        match error.remedy() {
            Some(remedy) => own.with_remedy(remedy.to_owned()),
            None => own,
        }
    })
}

pub(super) fn media(
    http: &Table<'_, '_>,
    cd: &Table<'_, '_>,
    floppy: &Table<'_, '_>,
    paths: &Paths<'_>,
) -> Result<Media> {
    let directory = http
        .text_at("directory")?
        .filter(|(text, _)| !text.is_empty());
    let media = Media {
        http_directory: directory
            .as_ref()
            .map(|(text, _)| paths.input(text.as_ref())),
        http_content: http.filled_map("content")?,
        http_ports: range_of(http, "ports", (8000, 9000))?,
        http_address: http.filled("address")?,
        cd_files: inputs(cd, "files", paths)?,
        cd_content: cd.filled_map("content")?,
        cd_label: cd.filled("label")?,
        floppy_files: inputs(floppy, "files", paths)?,
        floppy_directories: inputs(floppy, "directories", paths)?,
        floppy_content: floppy.filled_map("content")?,
        floppy_label: floppy.filled("label")?,
    };
    if media.has_cd() {
        judge_label(cd, media.cd_label.as_deref(), iso9660::check_label)?;
    }
    if media.has_floppy() {
        judge_label(floppy, media.floppy_label.as_deref(), fat::check_label)?;
    }
    if let (Some((_, node)), Some(path)) = (&directory, &media.http_directory)
        && !paths.exists(path)
    {
        let shown = path.display().to_string();
        note_missing(http, "directory", node, &shown, paths);
    }
    if media.http_directory.is_some() && !media.http_content.is_empty() {
        let text = format!(
            "{}: a directory and contents exclude one another",
            http.what
        );
        return Err(http
            .reader
            .error(http.at, text)
            .with_remedy("keep one of them"));
    }
    if let Some(address) = &media.http_address
        && address.parse::<std::net::IpAddr>().is_err()
    {
        let text = format!("{}: '{address}' is no address", http.name("address"));
        return Err(http
            .reader
            .error(http.at, text)
            .with_remedy("write one of this host's, such as 127.0.0.1"));
    }
    Ok(media)
}

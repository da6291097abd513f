//! `qimg cp`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use qimg::error::Escaped;
use qimg::extract::{ExtractRequest, extract};
use qimg::fs::path::LastLink;
use qimg::fs::tree::FileKind;
use qimg::store::Sync;
use qimg::{Error, Result};

use super::Status;
use super::files::Opened;
use crate::args::{CpArgs, ProgressMode, host_name};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(args: &CpArgs, mode: Option<ProgressMode>, console: &mut Console<'_>) -> Status {
    let opened = Opened::new(&args.path, &args.browse)?;
    let browser = opened.browser()?;
    let named = |error| opened.name(error);
    // As cp does with what it is given by name; links further down stay links.
    let location = browser
        .locate(&opened.path, LastLink::Follow)
        .map_err(named)?;
    let metadata = location.found.metadata;
    check_kind(args, &opened.path, metadata.kind).map_err(named)?;
    let destination = destination(
        &args.destination,
        &opened.path,
        metadata.kind == FileKind::Directory,
    )?;
    opened.refuse_destination(&destination)?;

    let interrupt = Interrupt::watch()?;
    let started = Instant::now();
    let quiet = args.report.quiet;
    let mut meter = Meter::new(console, "cp", (mode, false, quiet));
    let request = ExtractRequest {
        tree: location.tree,
        node: location.found.node,
        metadata,
        destination: &destination,
        replace: args.force,
        sync: Sync::Full,
    };
    let extracted = extract(&request, interrupt.flag(), &mut |step| {
        // How much is in a directory is not known before the end.
        meter.update(step.bytes, step.total.unwrap_or(0));
    })
    .map_err(|error| interrupt.failure(opened.name(error)))?;
    meter.finish();

    let code = u8::from(extracted.skipped > 0);
    let report = human::copy::Report {
        source: args.path.text(),
        destination: destination.to_string_lossy(),
        extracted,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else {
        if !quiet {
            report.print(&mut console.out)?;
        }
        // Nobody is left to tell when stderr fails, too.
        let _ = report.print_skipped(console.err);
    }
    Ok(code)
}

fn check_kind(args: &CpArgs, path: &[u8], kind: FileKind) -> Result<()> {
    let name = String::from_utf8_lossy(path);
    match kind {
        FileKind::Directory if !args.recursive => {
            Err(Error::usage(format!("'{}' is a directory", Escaped(&name)))
                .with_remedy("copy it and all that is in it with -r"))
        }
        FileKind::Directory => Ok(()),
        FileKind::File if path.ends_with(b"/") => Err(Error::usage(format!(
            "'{}' is a file, not a directory",
            Escaped(&name)
        ))),
        FileKind::File => Ok(()),
        _ => Err(Error::usage(format!(
            "'{}' is {}, which cannot be copied",
            Escaped(&name),
            human::files::kind_words(kind)
        ))),
    }
}

/// The name that the copy gets: `typed` itself, or one in it, where it is a directory.
fn destination(typed: &Path, path: &[u8], directory: bool) -> Result<PathBuf> {
    if typed.is_dir() {
        return match last_name(path) {
            Some(name) => Ok(typed.join(host_name(name))),
            None => Err(Error::usage(
                "is there already, and what is copied into it has no name of its own",
            )
            .with_remedy("name a directory that is to be made")
            .at_path(typed)),
        };
    }
    if typed.as_os_str().as_bytes().ends_with(b"/") && !directory {
        return Err(Error::usage("is not a directory")
            .with_remedy("create the directory first")
            .at_path(typed));
    }
    // Without slashes at the end.
    Ok(typed.components().as_path().to_owned())
}

/// What cp would call the copy.
fn last_name(path: &[u8]) -> Option<&[u8]> {
    let name = path
        .split(|&byte| byte == b'/')
        .rfind(|name| !name.is_empty())?;
    (name != b"." && name != b"..").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_what_cp_makes_of_it() {
        let there = tempfile::tempdir().unwrap();
        let there = there.path();
        let made = |typed: &str, path: &str, directory| {
            let made = destination(&there.join(typed), path.as_bytes(), directory);
            made.ok()
                .map(|made| made.strip_prefix(there).unwrap().to_owned())
        };
        let is = |name: &str| Some(PathBuf::from(name));
        assert_eq!(made("", "/etc/fstab", false), is("fstab"));
        assert_eq!(made("", "/etc//", true), is("etc"));
        assert_eq!(made("./", "/etc/./", true), None);
        assert_eq!(made("", "/", true), None);
        assert_eq!(made("", "/etc/..", true), None);
        assert_eq!(made("new", "/", true), is("new"));
        assert_eq!(made("new/", "/var/log", true), is("new"));
        assert_eq!(made("new/", "/etc/fstab", false), None);
        assert_eq!(made("new", "/etc/fstab", false), is("new"));
        let odd = destination(there, b"/a/\xff", false).unwrap();
        assert_eq!(odd.file_name(), Some(std::ffi::OsStr::from_bytes(b"\xff")));
    }
}

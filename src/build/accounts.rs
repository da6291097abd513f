//! Users of the base image, before anything was started: whom a build finds there, and whom it brings.
//!
//! Knows `/etc/passwd`, `/etc/shadow` and the user that cloud-init makes by itself; reads them without the guest. Must not
//! know what a seed says.

use super::disk::Origin;
use crate::browse::{Browser, list};
use crate::error::Result;
use crate::fs::path::LastLink;
use crate::fs::tree::read_start;
use crate::image::{BackingPolicy, Depth, Image, OpenOptions};
use crate::seed::default_user;
use crate::volume::Volume;

/// Bytes of each file that are looked at.
const LONGEST: usize = 1 << 20;
/// Files of settings at most.
const MOST_FILES: usize = 1000;

/// A user of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// It is there.
    There {
        /// Nobody logs in by a password.
        locked: bool,
    },
    /// It is not there, but cloud-init makes it at any first start.
    Default,
    /// It is not there, and nobody would make it.
    Missing,
    /// The base cannot be read.
    Unknown,
}

/// Looks for the user `name`.
pub(crate) fn look_for(name: &str, origin: &Origin) -> Account {
    find(name, origin).unwrap_or(Account::Unknown)
}

fn find(name: &str, origin: &Origin) -> Result<Account> {
    let options = OpenOptions {
        format: Some(origin.format),
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let image = Image::open(&origin.path, &options)?;
    let chain = image.chain(Depth::Chain, None)?;
    let browser = Browser::open(&Volume::whole(&chain), None)?;
    let read = |path: &[u8]| -> Result<Vec<u8>> {
        let at = browser.locate(path, LastLink::Follow)?;
        read_start(at.tree, at.found.node, LONGEST)
    };
    if field(&read(b"/etc/passwd")?, name, 0).is_some() {
        let locked = read(b"/etc/shadow")
            .ok()
            .and_then(|shadow| field(&shadow, name, 1))
            .is_some_and(|password| password.starts_with(['!', '*']));
        return Ok(Account::There { locked });
    }
    Ok(match default_of(&browser)? {
        Some(default) if default == name => Account::Default,
        _ => Account::Missing,
    })
}

/// The user that the image's cloud-init makes by itself, as far as it can be read.
pub(crate) fn default_user_of(origin: &Origin) -> Option<String> {
    let options = OpenOptions {
        format: Some(origin.format),
        ..OpenOptions::default()
    };
    let image = Image::open(&origin.path, &options).ok()?;
    let chain = image.chain(Depth::Chain, None).ok()?;
    let browser = Browser::open(&Volume::whole(&chain), None).ok()?;
    default_of(&browser).ok().flatten()
}

fn default_of(browser: &Browser<'_>) -> Result<Option<String>> {
    let read = |path: &[u8]| -> Result<Vec<u8>> {
        let at = browser.locate(path, LastLink::Follow)?;
        read_start(at.tree, at.found.node, LONGEST)
    };
    let mut default = read(b"/etc/cloud/cloud.cfg")
        .ok()
        .and_then(|text| default_user(&text));
    // A later file beats an earlier one.
    if let Ok(directory) = browser.locate(b"/etc/cloud/cloud.cfg.d", LastLink::Follow) {
        for entry in list(directory.tree, directory.found.node, MOST_FILES)? {
            if entry.name.ends_with(b".cfg")
                && let Ok(text) = read_start(directory.tree, entry.found.node, LONGEST)
            {
                default = default_user(&text).or(default);
            }
        }
    }
    Ok(default)
}

/// The field of a line `name:...`, counted from the one behind the name.
fn field(text: &[u8], name: &str, number: usize) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| {
        line.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'))
    })?;
    line.split(':')
        .nth(number.saturating_sub(1))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_that_of_the_whole_name() {
        let shadow = b"root:*:1:0\nrooter:$6$x:2:0\ndeb:!:3\n";
        assert_eq!(field(shadow, "rooter", 1).as_deref(), Some("$6$x"));
        assert_eq!(field(shadow, "root", 1).as_deref(), Some("*"));
        assert_eq!(field(shadow, "de", 1), None);
    }
}

//! A file inside an image, as a user names it: `IMAGE:/path`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::Args;
use qimg::survey::Selector;

use super::{InputArgs, typed};

/// What was typed; the image is told from the path when it is used, because only files that are there decide it.
#[derive(Debug, Clone)]
pub(crate) struct GuestPath(OsString);

impl From<OsString> for GuestPath {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl GuestPath {
    /// The image, a part of its disk, and the path there; `/` when there is no path.
    ///
    /// An image's own name may hold colons: the first one counts that follows the name of a file that exists.
    pub(crate) fn split(&self) -> (PathBuf, Option<Selector>, Vec<u8>) {
        let bytes = self.0.as_bytes();
        if Path::new(&self.0).exists() {
            return (PathBuf::from(&self.0), None, b"/".to_vec());
        }
        let image =
            |end: usize| PathBuf::from(OsStr::from_bytes(bytes.get(..end).unwrap_or(bytes)));
        let colons = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b':');
        let colons: Vec<usize> = colons.map(|(at, _)| at).collect();
        let at = colons
            .iter()
            .copied()
            .find(|&at| image(at).exists())
            .or_else(|| colons.first().copied());
        let Some(at) = at else {
            return (PathBuf::from(&self.0), None, b"/".to_vec());
        };
        let rest = bytes.get(at + 1..).unwrap_or_default();
        // `IMAGE:2:/path`
        if !rest.starts_with(b"/")
            && let Some(colon) = rest.iter().position(|&byte| byte == b':')
            && let Some(part) = rest
                .get(..colon)
                .and_then(|part| std::str::from_utf8(part).ok())
            && let Ok(selector) = part.parse::<Selector>()
        {
            let path = rest.get(colon + 1..).unwrap_or_default();
            return (image(at), Some(selector), rooted(path));
        }
        (image(at), None, rooted(rest))
    }

    /// As typed.
    pub(crate) fn text(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

fn rooted(path: &[u8]) -> Vec<u8> {
    let mut rooted = path.to_vec();
    if !rooted.starts_with(b"/") {
        rooted.insert(0, b'/');
    }
    rooted
}

/// Bytes of a guest's name as the host has them.
pub(crate) fn host_name(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

/// Where files are looked for.
#[derive(Debug, Args)]
pub(crate) struct BrowseArgs {
    /// Part of the disk: a number (3), a device (sda3), a logical volume (vg/lv), LABEL=, UUID=, PARTLABEL=, PARTUUID= or
    /// disk [default: the one that holds the system's root, with what its fstab mounts below it]
    #[arg(long, visible_short_alias = 'P', value_name = "PART", value_parser = typed::<Selector>,
          help_heading = "Reading")]
    pub(crate) partition: Option<Selector>,

    /// Internal snapshot to read, by id or name
    #[arg(long, value_name = "SNAPSHOT", help_heading = "Reading")]
    pub(crate) snapshot: Option<String>,

    #[command(flatten)]
    pub(crate) input: InputArgs,
}

//! What an image must not hold, read from its filesystems: whatever of it is shared by all machines made of it.
//!
//! Knows where systems keep keys, ids and state. Boots nothing.

use crate::browse::{Browser, list};
use crate::error::{ErrorKind, Result};
use crate::fs::path::LastLink;
use crate::fs::tree::{FileKind, read_start};
use crate::goss::facts::Fact;
use crate::goss::matcher::Actual;
use crate::image::{Depth, Image, OpenOptions};
use crate::volume::Volume;

use super::origin::Origin;

/// Bytes of a file that are looked at.
const LONGEST: usize = 1 << 20;
/// Names of a directory.
const MOST_NAMES: usize = 10_000;
/// Users whose homes are looked at.
const MOST_HOMES: usize = 1000;

/// What was found, a line each.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    authorized_keys: Vec<String>,
    host_keys: Vec<String>,
    machine_id: Vec<String>,
    cloud_init: Vec<String>,
    random_seed: Vec<String>,
}

impl Sealed {
    pub(super) fn fact(&self, property: &str) -> Fact {
        let lines = match property {
            "authorized-keys" => &self.authorized_keys,
            "host-keys" => &self.host_keys,
            "machine-id" => &self.machine_id,
            "cloud-init-state" => &self.cloud_init,
            _ => &self.random_seed,
        };
        Ok(Actual::Text(lines.join("\n")))
    }
}

/// Looks into the image.
///
/// # Errors
/// Its filesystems cannot be read.
pub(super) fn look(origin: &Origin) -> Result<Sealed> {
    let options = OpenOptions {
        format: Some(origin.disk.format),
        ..OpenOptions::default()
    };
    let image = Image::open(&origin.disk.path, &options)?;
    let chain = image.chain(Depth::Chain, None)?;
    let browser = Browser::open(&Volume::whole(&chain), None)
        .map_err(|error| error.at_path(&origin.disk.path))?;
    let place = Place { browser: &browser };
    let mut sealed = Sealed::default();

    let passwd = place.text("/etc/passwd")?.unwrap_or_default();
    let mut homes: Vec<&str> = { passwd.lines() }
        .filter_map(|line| line.split(':').nth(5))
        .filter(|home| home.starts_with('/'))
        .take(MOST_HOMES)
        .collect();
    homes.push("/root");
    homes.sort_unstable();
    homes.dedup();
    for home in homes {
        for name in ["authorized_keys", "authorized_keys2"] {
            place.keys(
                &format!("{}/.ssh/{name}", home.trim_end_matches('/')),
                &mut sealed.authorized_keys,
            )?;
        }
    }
    for name in place.names("/etc/ssh/authorized_keys.d")? {
        place.keys(
            &format!("/etc/ssh/authorized_keys.d/{name}"),
            &mut sealed.authorized_keys,
        )?;
    }
    for directory in ["/etc/ssh", "/etc/dropbear"] {
        for name in place.names(directory)? {
            let is_key = (name.starts_with("ssh_host_") && name.ends_with("_key"))
                || (name.starts_with("dropbear_") && name.ends_with("_host_key"));
            if is_key {
                sealed.host_keys.push(format!("{directory}/{name}"));
            }
        }
    }
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        // A link to the other file is that one's.
        if let Some(text) = place.text(path)?
            && !matches!(text.trim(), "" | "uninitialized")
        {
            sealed.machine_id.push(format!(
                "{path}: {}",
                text.trim().chars().take(64).collect::<String>()
            ));
        }
    }
    for name in place.names("/var/lib/cloud/instances")? {
        sealed
            .cloud_init
            .push(format!("/var/lib/cloud/instances/{name}"));
    }
    for path in ["/var/lib/cloud/instance", "/var/lib/cloud/data/instance-id"] {
        if place.is_there(path)? {
            sealed.cloud_init.push(path.to_owned());
        }
    }
    for path in [
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
        "/var/lib/random-seed",
        "/var/lib/seedrng/seed.credit",
        "/boot/efi/loader/random-seed",
        "/efi/loader/random-seed",
    ] {
        if place.is_there(path)? {
            sealed.random_seed.push(path.to_owned());
        }
    }
    Ok(sealed)
}

struct Place<'a, 'b> {
    browser: &'b Browser<'a>,
}

impl Place<'_, '_> {
    /// What is not there is nothing; what cannot be read is an error: it might be there.
    fn found(&self, path: &str, last: LastLink) -> Result<Option<crate::browse::Location<'_>>> {
        match self.browser.locate(path.as_bytes(), last) {
            Ok(location) => Ok(Some(location)),
            Err(error) if error.kind() == ErrorKind::Usage => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_there(&self, path: &str) -> Result<bool> {
        Ok(self.found(path, LastLink::Keep)?.is_some())
    }

    fn text(&self, path: &str) -> Result<Option<String>> {
        let Some(location) = self.found(path, LastLink::Follow)? else {
            return Ok(None);
        };
        if location.found.metadata.kind != FileKind::File {
            return Ok(None);
        }
        let bytes = read_start(location.tree, location.found.node, LONGEST)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let Some(location) = self.found(path, LastLink::Follow)? else {
            return Ok(Vec::new());
        };
        if location.found.metadata.kind != FileKind::Directory {
            return Ok(Vec::new());
        }
        Ok(list(location.tree, location.found.node, MOST_NAMES)?
            .into_iter()
            .map(|listed| String::from_utf8_lossy(&listed.name).into_owned())
            .filter(|name| name != "." && name != "..")
            .collect())
    }

    /// The keys in a file, without their digits.
    fn keys(&self, path: &str, into: &mut Vec<String>) -> Result<()> {
        let text = self.text(path)?.unwrap_or_default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line
                .split_whitespace()
                .filter(|word| word.len() < 60)
                .collect();
            let shown: String = words.join(" ").chars().take(200).collect();
            into.push(format!("{path}: {shown}"));
        }
        Ok(())
    }
}

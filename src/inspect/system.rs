//! Operating systems: what their own files say.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::fields::Fields;
use crate::fs::path::{LastLink, resolve};
use crate::fs::tree::{FileKind, Tree, read_start};
use crate::survey::Place;

/// Most bytes of a text file that are looked at.
const TEXT: usize = 64 << 10;
/// Most names of a directory that are looked at.
const NAMES: usize = 10_000;

/// An operating system on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct System {
    /// The part that holds its root.
    pub part: String,
    /// `ID` of os-release(5): `debian`.
    pub id: String,
    /// `VERSION_ID`: `12`.
    pub version: Option<String>,
    /// `PRETTY_NAME`.
    pub name: Option<String>,
    /// The machine that its programs run on: `x86_64`.
    pub architecture: Option<&'static str>,
    /// What its host is called.
    pub hostname: Option<String>,
    /// Versions of its kernels.
    pub kernels: Vec<String>,
    /// The version of cloud-init.
    pub cloud_init: Option<String>,
}

/// Finds the systems that `trees` hold.
pub(super) fn find(trees: &[(&Place<'_>, Box<dyn Tree + '_>)]) -> Vec<System> {
    let mut systems = Vec::new();
    for (place, tree) in trees {
        let tree = &**tree;
        let Some(release) = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| text(tree, path))
        else {
            continue;
        };
        let field = |key: &str| assignment(&release, key);
        systems.push(System {
            part: place.name(),
            id: field("ID").unwrap_or_else(|| "linux".to_owned()),
            version: field("VERSION_ID"),
            name: field("PRETTY_NAME"),
            architecture: architecture(tree),
            hostname: text(tree, "/etc/hostname")
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty()),
            kernels: kernels(tree),
            cloud_init: cloud_init(tree),
        });
    }
    // A boot partition of its own.
    if let [system] = systems.as_mut_slice()
        && system.kernels.is_empty()
    {
        let kernels = trees
            .iter()
            .flat_map(|(_, tree)| images(&**tree, "/"))
            .collect::<BTreeSet<_>>();
        system.kernels = kernels.into_iter().collect();
    }
    systems
}

fn text(tree: &dyn Tree, path: &str) -> Option<String> {
    let found = resolve(tree, path.as_bytes(), LastLink::Follow).ok()??;
    if found.metadata.kind != FileKind::File {
        return None;
    }
    let bytes = read_start(tree, found.node, TEXT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The names in the directory at `path`.
fn names(tree: &dyn Tree, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(found)) = resolve(tree, path.as_bytes(), LastLink::Follow)
        && found.metadata.kind == FileKind::Directory
    {
        // What was read before an error stands.
        let _ = tree.read_dir(found.node, &mut |entry| {
            if let Ok(name) = std::str::from_utf8(entry.name) {
                names.push(name.to_owned());
            }
            if names.len() < NAMES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
    }
    names
}

/// The value of a shell assignment, as os-release(5) allows it.
fn assignment(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(key)?.strip_prefix('=')?.trim();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let inner = match quote {
            Some(quote) => value.strip_prefix(quote)?.strip_suffix(quote)?,
            None => value,
        };
        let mut plain = String::new();
        let mut escaped = false;
        for c in inner.chars() {
            if c == '\\' && !escaped && quote != Some('\'') {
                escaped = true;
            } else {
                plain.push(c);
                escaped = false;
            }
        }
        Some(plain)
    })
}

/// Kernels below /boot, or those whose modules are there.
fn kernels(tree: &dyn Tree) -> Vec<String> {
    let mut versions: BTreeSet<String> = images(tree, "/boot").into_iter().collect();
    if versions.is_empty() {
        let modules = names(tree, "/usr/lib/modules").into_iter();
        let modules = modules.chain(names(tree, "/lib/modules"));
        versions = modules
            .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
            .collect();
    }
    versions.into_iter().collect()
}

fn images(tree: &dyn Tree, directory: &str) -> Vec<String> {
    names(tree, directory)
        .into_iter()
        .filter_map(|name| {
            let version = ["vmlinuz-", "vmlinux-", "Image-", "kernel-"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))?;
            (!version.ends_with(".old")).then(|| version.to_owned())
        })
        .collect()
}

/// cloud-init's own word, in a file that every distribution installs with it.
fn cloud_init(tree: &dyn Tree) -> Option<String> {
    let mut directories = vec!["/usr/lib/python3/dist-packages".to_owned()];
    for lib in ["/usr/lib", "/usr/lib64", "/usr/local/lib"] {
        let pythons = names(tree, lib).into_iter();
        directories.extend(
            pythons
                .filter(|name| name.starts_with("python3."))
                .map(|name| format!("{lib}/{name}/site-packages")),
        );
    }
    directories.iter().find_map(|directory| {
        let source = text(tree, &format!("{directory}/cloudinit/version.py"))?;
        let value = |key: &str| {
            source.lines().find_map(|line| {
                let value = line.strip_prefix(key)?.trim().strip_prefix('=')?.trim();
                let value = value.trim_matches(|c| c == '"' || c == '\'');
                (!value.is_empty() && !value.contains('@')).then(|| value.to_owned())
            })
        };
        value("_PACKAGED_VERSION").or_else(|| value("__VERSION__"))
    })
}

/// The machine of a program that every system has (`e_machine`, elf(5)).
fn architecture(tree: &dyn Tree) -> Option<&'static str> {
    [
        "/usr/bin/sh",
        "/bin/sh",
        "/sbin/init",
        "/usr/lib/systemd/systemd",
    ]
    .iter()
    .find_map(|path| {
        let found = resolve(tree, path.as_bytes(), LastLink::Follow).ok()??;
        let bytes = read_start(tree, found.node, 20).ok()?;
        let header = Fields(&bytes);
        if header.array::<4>(0) != *b"\x7fELF" {
            return None;
        }
        let little = header.u8(5) == 1;
        let machine = if little {
            header.le16(18)
        } else {
            header.be16(18)
        };
        Some(match (machine, header.u8(4), little) {
            (62, ..) => "x86_64",
            (3, ..) => "i686",
            (183, ..) => "aarch64",
            (40, ..) => "arm",
            (243, 2, _) => "riscv64",
            (21, _, true) => "ppc64le",
            (21, ..) => "ppc64",
            (22, ..) => "s390x",
            (258, ..) => "loongarch64",
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::assignment;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        let text = "# comment\nNAME='Debian GNU/Linux'\nID=debian\nPRETTY_NAME=\"A \\\"B\\\" \\$C\"\nID_LIKE=x\n";
        assert_eq!(assignment(text, "ID").as_deref(), Some("debian"));
        assert_eq!(
            assignment(text, "NAME").as_deref(),
            Some("Debian GNU/Linux")
        );
        assert_eq!(
            assignment(text, "PRETTY_NAME").as_deref(),
            Some("A \"B\" $C")
        );
        assert_eq!(assignment(text, "VERSION_ID"), None);
    }
}

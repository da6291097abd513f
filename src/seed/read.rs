//! What is in a seed, whoever made it.
//!
//! Knows where a seed may lie on a disk, and which of its files say what. Must not know image formats.

use std::ops::ControlFlow;

use serde::Serialize;

use super::check::{self, Finding, Severity};
use super::{File, FileFacts, Header, LABEL};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::probe::{identify, open_tree};
use crate::fs::tree::{FileKind, Node, Tree, read_start};
use crate::survey::Layout;
use crate::volume::Volume;

/// Bytes of a file that are read at most.
const MAX_FILE: usize = 64 << 20;
/// Names in the root that are listed at most.
const MAX_NAMES: usize = 1000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeedContents {
    /// The part of the disk that holds it.
    pub part: String,
    /// Its format, as blkid names it.
    pub filesystem: String,
    /// Its label.
    pub label: Option<String>,
    /// Everything in its root, in order of names.
    pub files: Vec<FileFacts>,
    /// What its user-data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// What its meta-data calls the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// What its meta-data calls the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// The four files that cloud-init reads, as far as they are there.
    #[serde(skip)]
    pub contents: Vec<File>,
}

/// What user-data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserData {
    /// Its kind.
    pub header: Header,
    /// What is in it when it is gzip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed: Option<Header>,
    /// The kinds of its parts when it is MIME.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
}

/// The seed on `disk`.
///
/// # Errors
/// Nothing on the disk is a seed, or looks like one; the image cannot be read.
pub fn read(disk: &Volume<'_>) -> Result<SeedContents> {
    let layout = Layout::read(disk)?;
    let mut fallback = None;
    for place in &layout.places {
        let identities = identify(&place.volume)?;
        let Some(identity) = identities
            .iter()
            .find(|found| ["vfat", "iso9660"].contains(&found.kind))
        else {
            continue;
        };
        let tree = match open_tree(&place.volume) {
            Ok(Some(tree)) => tree,
            Ok(None) => continue,
            Err(error) => {
                fallback = fallback.or(Some(Err(error)));
                continue;
            }
        };
        let labelled = identity.label.as_deref().is_some_and(is_seed_label);
        let found = || contents(&*tree, place.name(), identity.label.clone());
        if labelled {
            return found();
        }
        // A volume with the right files and a wrong label is a seed that no guest finds.
        if tree.lookup(tree.root(), b"user-data")?.is_some() {
            fallback = fallback.or_else(|| Some(found()));
        }
    }
    fallback.unwrap_or_else(|| {
        Err(Error::new(
            ErrorKind::NotAnImage,
            "holds no seed: no FAT or ISO9660 volume labelled cidata, and none with user-data",
        ))
    })
}

/// The two spellings that cloud-init looks for.
fn is_seed_label(label: &str) -> bool {
    label == LABEL || label == "CIDATA"
}

fn contents(tree: &dyn Tree, part: String, label: Option<String>) -> Result<SeedContents> {
    let mut names: Vec<(Vec<u8>, Node)> = Vec::new();
    tree.read_dir(tree.root(), &mut |entry| {
        names.push((entry.name.to_vec(), entry.node));
        if names.len() >= MAX_NAMES {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    names.sort();
    let (mut files, mut contents) = (Vec::new(), Vec::new());
    for (name, node) in names {
        let name = String::from_utf8_lossy(&name).into_owned();
        let metadata = tree.metadata(node)?;
        if metadata.kind == FileKind::File && READ.contains(&name.as_str()) {
            let bytes = read_start(tree, node, MAX_FILE)?;
            contents.push(File {
                name: name.clone(),
                bytes,
            });
        }
        files.push(FileFacts {
            name,
            size: metadata.size,
        });
    }
    let bytes = |name: &str| {
        contents
            .iter()
            .find(|file: &&File| file.name == name)
            .map(|file| file.bytes.as_slice())
    };
    let mut findings = Vec::new();
    if !label.as_deref().is_some_and(is_seed_label) {
        findings.push(missing(
            &part,
            "has not the label cidata, by which cloud-init finds a seed",
        ));
    }
    for name in ["user-data", "meta-data"] {
        if bytes(name).is_none() {
            findings.push(missing(
                name,
                "is not there: cloud-init takes no seed without it, be it empty",
            ));
        }
    }
    let user_data = bytes("user-data").map(|bytes| {
        findings.extend(check::check_user_data("user-data", bytes));
        user_data(bytes)
    });
    let mut meta = None;
    if let Some(bytes) = bytes("meta-data") {
        findings.extend(check::check_meta_data("meta-data", bytes));
        meta = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| super::yaml::load(text).ok());
    }
    if let Some(bytes) = bytes("network-config") {
        findings.extend(check::check_network_config("network-config", bytes));
    }
    if let Some(bytes) = bytes("vendor-data") {
        findings.extend(check::check_user_data("vendor-data", bytes));
    }
    let field = |name: &str| Some(meta.as_ref()?.root.field(name)?.key_text());
    Ok(SeedContents {
        part,
        filesystem: tree.format().to_owned(),
        label,
        files,
        user_data,
        instance_id: field("instance-id"),
        hostname: field("local-hostname").or_else(|| field("hostname")),
        findings,
        contents,
    })
}

/// What cloud-init reads.
const READ: [&str; 4] = ["user-data", "meta-data", "vendor-data", "network-config"];

fn missing(file: &str, message: &str) -> Finding {
    let mut finding = Finding::new(Severity::Error, message);
    file.clone_into(&mut finding.file);
    finding
}

/// What `bytes` are as user-data.
pub fn user_data(bytes: &[u8]) -> UserData {
    let header = Header::of(bytes);
    let inner = match header {
        Header::Gzip => super::gunzip(bytes, check::MAX_TEXT),
        _ => None,
    };
    let text = inner.as_deref().unwrap_or(bytes);
    let compressed = inner.as_deref().map(Header::of);
    let parts = match compressed.unwrap_or(header) {
        Header::Multipart => part_types(&String::from_utf8_lossy(text)),
        _ => Vec::new(),
    };
    UserData {
        header,
        compressed,
        parts,
    }
}

/// Content types in the order of the parts, without those of containers.
fn part_types(message: &str) -> Vec<String> {
    message
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kind = value.split(';').next()?.trim().to_ascii_lowercase();
            let counts =
                name.eq_ignore_ascii_case("content-type") && !kind.starts_with("multipart/");
            counts.then_some(kind)
        })
        .take(100)
        .collect()
}

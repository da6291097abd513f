//! The manifest of builds, as Packer writes it.
//!
//! Knows its JSON to the byte. A manifest that is there is added to, whoever wrote it; several processes may do so at once.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Context;
use crate::build::artifact::Artifact;
use crate::error::{Error, Result};
use crate::store::{Hold, Share, look, read_file, write_file};
use crate::template::model::Text;

/// A manifest is not longer.
const MAX_MANIFEST: u64 = 64 << 20;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub output: &'a Path,
    pub strip_path: bool,
    pub strip_time: bool,
    pub custom_data: &'a BTreeMap<String, Text>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Manifest {
    #[serde(deserialize_with = "list")]
    builds: Vec<Entry>,
    last_run_uuid: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    name: String,
    builder_type: String,
    #[serde(skip_serializing_if = "is_zero")]
    build_time: i64,
    files: Option<Vec<File>>,
    artifact_id: String,
    packer_run_uuid: String,
    custom_data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    name: String,
    size: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// An empty list is written as `null` by programs in Go.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Adds the artifact to the manifest.
pub(super) fn add(order: &Order<'_>, artifact: &Artifact, context: &Context<'_>) -> Result<()> {
    let entry = entry(order, artifact, context)?;
    let place = context.place(order.output);
    let name = place
        .file_name()
        .ok_or_else(|| Error::usage("names no file").at_path(order.output))?;
    // Builds side by side add to the same manifest, and each reads what it replaces.
    let lock = place.with_file_name(format!(".{}.lock", name.to_string_lossy()));
    let hold = Hold::wait(lock, Share::Alone, context.stop, &mut |_| {})?;
    let added = add_entry(&place, entry, order, context);
    hold.remove()?;
    added
}

fn add_entry(place: &Path, entry: Entry, order: &Order<'_>, context: &Context<'_>) -> Result<()> {
    let mut manifest = match look(place)? {
        Some(seen) if seen.length > 0 => {
            let bytes = read_file(place, MAX_MANIFEST)?;
            serde_json::from_slice::<Manifest>(&bytes).map_err(|error| {
                Error::usage(format!("is no manifest that could be added to: {error}"))
                    .with_remedy("move it away, or name another output")
                    .at_path(order.output)
            })?
        }
        _ => Manifest::default(),
    };
    if context.force && manifest.last_run_uuid != context.run_uuid {
        manifest.builds.clear();
    }
    manifest.builds.push(entry);
    context.run_uuid.clone_into(&mut manifest.last_run_uuid);
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::io("write the manifest", error.into()).at_path(order.output))?;
    write_file(place, escaped(&text).as_bytes())
}

fn entry(order: &Order<'_>, artifact: &Artifact, context: &Context<'_>) -> Result<Entry> {
    let mut files = Vec::new();
    for file in &artifact.files {
        let seen = look(context.place(file))?.ok_or_else(|| {
            Error::usage("is part of the artifact, and is not there").at_path(file)
        })?;
        let name = match (order.strip_path, file.file_name()) {
            (true, Some(name)) => name.to_string_lossy(),
            _ => file.to_string_lossy(),
        };
        files.push(File {
            name: name.into_owned(),
            size: i64::try_from(seen.length).unwrap_or(i64::MAX),
        });
    }
    let mut custom_data = BTreeMap::new();
    for (name, value) in order.custom_data {
        custom_data.insert(name.clone(), (context.fill)(value, &[])?);
    }
    Ok(Entry {
        name: context.build_name.to_owned(),
        builder_type: context.builder_type.to_owned(),
        build_time: if order.strip_time {
            0
        } else {
            i64::try_from((context.clock)()).unwrap_or(i64::MAX)
        },
        files: Some(files).filter(|files| !files.is_empty()),
        artifact_id: artifact.id.clone(),
        packer_run_uuid: context.run_uuid.to_owned(),
        custom_data: Some(custom_data).filter(|data| !data.is_empty()),
    })
}

/// Signs that programs in Go escape, for the sake of JSON inside of HTML. None stands outside of strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            letter => text.push(letter),
        }
    }
    text
}

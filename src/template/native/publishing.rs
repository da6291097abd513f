//! Artifacts that go somewhere: object stores and clouds.

use super::post::FIELDS;
use crate::error::Result;
use crate::template::model::{ExoscaleImport, Job, Keys, S3Upload, Text};
use crate::template::reader::Table;
use crate::units::ByteSize;

/// The least part that object stores take.
const LEAST_PART: u64 = 5 << 20;

fn filled(table: &Table<'_, '_>, key: &'static str) -> Result<Option<Text>> {
    Ok(table
        .late_by(key, &FIELDS)?
        .filter(|text| !text.0.is_empty()))
}

/// One that must be there.
fn wanted(table: &Table<'_, '_>, key: &'static str, what: &str, remedy: &str) -> Result<Text> {
    filled(table, key)?.ok_or_else(|| {
        let text = format!("{}: there is no {what}", table.name(key));
        table
            .reader
            .error(table.at, text)
            .with_remedy(remedy.to_owned())
    })
}

fn keys(
    table: &Table<'_, '_>,
    names: [&'static str; 2],
    token: Option<&'static str>,
) -> Result<Keys> {
    let [key, secret] = names;
    let keys = Keys {
        key: filled(table, key)?,
        secret: filled(table, secret)?,
        token: match token {
            Some(token) => filled(table, token)?,
            None => None,
        },
    };
    if keys.key.is_some() != keys.secret.is_some() {
        let text = format!("{}: a key and its secret come together", table.name(secret));
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("give both, or neither: then the environment has them"));
    }
    Ok(keys)
}

pub(super) fn s3(table: &Table<'_, '_>) -> Result<Job> {
    let part_size = match table.text_at("part-size")? {
        Some((text, node)) if !text.is_empty() => {
            let size = text
                .parse::<ByteSize>()
                .map_err(|error| table.error("part-size", node, &error.to_string()))?;
            if size.0 < LEAST_PART {
                let error = table.error("part-size", node, "servers take parts of 5 MiB at least");
                return Err(error.with_remedy("make them larger"));
            }
            Some(size.0)
        }
        _ => None,
    };
    Ok(Job::S3(Box::new(S3Upload {
        bucket: wanted(table, "s3", "bucket", "name one that exists")?,
        key: table.late_by("key", &FIELDS)?.unwrap_or_default(),
        endpoint: filled(table, "endpoint")?,
        region: filled(table, "region")?,
        virtual_host: table.flag("virtual-host")?,
        acl: filled(table, "acl")?,
        content_type: filled(table, "content-type")?,
        storage_class: filled(table, "storage-class")?,
        profile: filled(table, "profile")?,
        keys: keys(table, ["access-key", "secret-key"], Some("token"))?,
        part_size,
    })))
}

pub(super) fn exoscale(table: &Table<'_, '_>) -> Result<Job> {
    let zones: Vec<Text> = table
        .lates("zones", true)?
        .unwrap_or_default()
        .into_iter()
        .map(|(text, node)| {
            table.judge_fields("zones", node, &text, &FIELDS);
            text
        })
        .filter(|text| !text.0.is_empty())
        .collect();
    if zones.is_empty() {
        let text = format!("{}: there is no zone", table.name("zones"));
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("name one: ch-gva-2"));
    }
    let boot_mode = match table.text_at("boot-mode")? {
        Some((text, node)) if !["", "legacy", "uefi"].contains(&text.as_str()) => {
            let error = table.error(
                "boot-mode",
                node,
                &format!("there is no boot mode '{text}'"),
            );
            return Err(error.with_remedy("there is legacy, and uefi"));
        }
        Some((text, _)) if !text.is_empty() => text,
        _ => "legacy".to_owned(),
    };
    let flag = |key| Ok::<_, crate::Error>(table.flag(key)?.unwrap_or(false));
    Ok(Job::Exoscale(Box::new(ExoscaleImport {
        name: wanted(table, "exoscale", "name for the template", "name it")?,
        bucket: wanted(table, "bucket", "bucket", "name one that exists")?,
        key: filled(table, "key")?,
        zones,
        image_zone: filled(table, "image-zone")?,
        store_endpoint: filled(table, "store-endpoint")?,
        api_endpoint: filled(table, "api-endpoint")?,
        environment: filled(table, "environment")?.unwrap_or_else(|| Text("api".to_owned())),
        timeout: table.number("timeout", 1, 7 * 24 * 3600)?.unwrap_or(3600),
        description: filled(table, "description")?,
        username: filled(table, "username")?,
        boot_mode,
        disable_password: flag("disable-password")?,
        disable_ssh_key: flag("disable-ssh-key")?,
        maintainer: filled(table, "maintainer")?,
        version: filled(table, "version")?,
        build: filled(table, "build")?,
        keys: keys(table, ["api-key", "api-secret"], None)?,
        keep_object: flag("keep-object")?,
        public: flag("public")?,
        force: flag("force")?,
    })))
}

//! The files of NoCloud: which there are, and the meta-data that is made up.
//!
//! Knows names and keys of the data source. Must not know where the files go.

use sha2::{Digest, Sha256};

use super::emit::{self, Item};
use super::{Dsmode, Encoded, File, MetaData, SeedRequest, multipart};
use crate::error::{Error, Result};

/// The files of a seed: user-data and meta-data, without which a guest finds no seed; then what else is given.
pub(super) fn files(request: &SeedRequest) -> Result<(Vec<File>, Option<String>)> {
    let mut user_data = multipart::join(&request.user_data)?;
    if request.gzip {
        user_data = super::gzip(&user_data);
    }
    let (meta_data, instance_id) = meta_data(request, &user_data);
    let mut files = vec![
        File {
            name: "user-data".to_owned(),
            bytes: user_data,
        },
        File {
            name: "meta-data".to_owned(),
            bytes: meta_data,
        },
    ];
    for (name, bytes) in [
        ("network-config", &request.network_config),
        ("vendor-data", &request.vendor_data),
    ] {
        if let Some(bytes) = bytes {
            files.push(File {
                name: name.to_owned(),
                bytes: bytes.clone(),
            });
        }
    }
    for file in &request.files {
        if files.iter().any(|other| other.name == file.name) {
            return Err(Error::usage(format!("'{}' is there twice", file.name)));
        }
        files.push(file.clone());
    }
    Ok((files, instance_id))
}

/// What was given, or YAML of the fields; and the instance-id in it, where it is known.
fn meta_data(request: &SeedRequest, user_data: &[u8]) -> (Vec<u8>, Option<String>) {
    let (instance_id, hostname, dsmode) = match &request.meta_data {
        MetaData::Given(bytes) => {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let document = super::yaml::load(text).ok();
            let id =
                document.and_then(|document| Some(document.root.field("instance-id")?.key_text()));
            return (bytes.clone(), id);
        }
        MetaData::Made {
            instance_id,
            hostname,
            dsmode,
        } => (instance_id, hostname, dsmode),
    };
    let instance_id = instance_id
        .clone()
        .unwrap_or_else(|| digest(request, user_data));
    let mut entries = vec![("instance-id", Item::Text(instance_id.clone()))];
    if let Some(hostname) = hostname {
        entries.push(("local-hostname", Item::Text(hostname.clone())));
    }
    if let Some(dsmode) = dsmode {
        entries.push(("dsmode", Item::Text(dsmode.to_string())));
    }
    (emit::document(&entries).into_bytes(), Some(instance_id))
}

/// `qimg-` and twelve digits of a digest of everything that a guest is told: another seed is another instance, so that
/// cloud-init applies it; the same seed again is the same instance, so that it does not.
fn digest(request: &SeedRequest, user_data: &[u8]) -> String {
    let mut digest = Sha256::new();
    let mut part = |name: &str, bytes: Option<&[u8]>| {
        let Some(bytes) = bytes else { return };
        // Lengths keep the end of one part from passing for the start of the next.
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name.as_bytes());
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part("user-data", Some(user_data));
    part("network-config", request.network_config.as_deref());
    part("vendor-data", request.vendor_data.as_deref());
    if let MetaData::Made {
        hostname, dsmode, ..
    } = &request.meta_data
    {
        part("local-hostname", hostname.as_deref().map(str::as_bytes));
        part("dsmode", dsmode.map(Dsmode::word).map(str::as_bytes));
    }
    for file in &request.files {
        part(&file.name, Some(&file.bytes));
    }
    let digest = digest.finalize();
    let mut id = "qimg-".to_owned();
    id.extend(
        digest
            .iter()
            .take(6)
            .map(|byte| Encoded(*byte))
            .map(|byte| byte.to_string()),
    );
    id
}

//! What qimg brings into the guest so that it gets in: a key, a host key, and the seed that carries them.
//!
//! Knows what a template brings by itself, and cloud-init's words for keys. Must not know how the seed reaches the guest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::accounts::Account;
use super::runs::{KEY, SEED};
use crate::communicator::keys::{KeyPair, Kind};
use crate::error::{Error, Result};
use crate::seed::{self, MetaData, Part, SeedRequest};
use crate::store::{look, read_file, remove_file, write_file, write_secret};
use crate::template::model::{Build, Seed, Ssh};

/// The comment of a key that qimg brings: sealing finds it by that.
pub const KEY_COMMENT: &str = "qimg-build-key";

/// Names of what is kept with a state of the machine.
const KEPT_KEY: &str = "key";
const KEPT_HOST_KEY: &str = "host-key";
const KEPT_SEED: &str = "seed.img";

/// Longest key, in bytes.
const LARGEST_KEY: u64 = 64 << 10;

/// Largest seed, in bytes.
const LARGEST_SEED: u64 = 1 << 30;

/// What qimg brings.
#[derive(Debug, Default)]
pub struct Access {
    /// The key that logs in.
    pub key: Option<KeyPair>,
    /// The key the guest shows.
    pub host_key: Option<KeyPair>,
    /// The seed volume.
    pub seed: Option<PathBuf>,
    /// The files of the seed, where they are served instead.
    pub served: Option<Vec<seed::File>>,
    /// The volume that these files would be, for a machine that nobody serves any more.
    pub served_volume: Option<Vec<u8>>,
    /// Id of the instance that the seed makes of the guest.
    pub instance_id: Option<String>,
    /// Public lines of keys that let in besides it.
    others: Vec<String>,
    /// The file with the private key, for programs of others.
    pub key_file: Option<PathBuf>,
    /// The user that the seed makes, and that nobody else would have made.
    pub created_user: Option<String>,
}

impl Access {
    /// Makes what `build` needs and does not bring; files lie in `directory`. `account` is who logs in, as the base has it.
    ///
    /// # Errors
    /// The host's own; a key of a kind that there is not.
    pub(super) fn prepare(build: &Build, account: Account, directory: &Path) -> Result<Self> {
        Self::made(
            Self::default(),
            build.communicator.as_ref(),
            build.seed.as_ref(),
            account,
            directory,
        )
    }

    /// For a guest that is entered by `ssh`, gets `seed`, and lets `keys` in as well; files lie in `directory`.
    ///
    /// # Errors
    /// As [`Access::prepare`].
    pub(super) fn with_keys(
        ssh: &Ssh,
        seed: &Seed,
        keys: &[String],
        account: Account,
        directory: &Path,
    ) -> Result<Self> {
        let mut access = Self::default();
        access.others = keys.to_vec();
        Self::made(access, Some(ssh), Some(seed), account, directory)
    }

    fn made(
        mut access: Self,
        ssh: Option<&Ssh>,
        seed: Option<&Seed>,
        account: Account,
        directory: &Path,
    ) -> Result<Self> {
        if let Some(ssh) = ssh.filter(|ssh| !has_proof(ssh)) {
            let kind = match &ssh.temporary_key {
                Some((kind, bits)) => Kind::parse(kind, *bits)?,
                None => Kind::parse("ed25519", None)?,
            };
            let key = KeyPair::generate(kind, KEY_COMMENT)?;
            let file = directory.join(KEY);
            key.write(&file)?;
            access.key_file = Some(file);
            access.key = Some(key);
            access.host_key = Some(KeyPair::generate(
                Kind::parse("ed25519", None)?,
                "qimg-build",
            )?);
        }
        if let Some(volume) = access.seed_volume(ssh, seed, account)? {
            if seed.is_some_and(|seed| seed.over_http) {
                access.served = Some(volume.files);
                access.served_volume = Some(volume.bytes);
            } else {
                let file = directory.join(SEED);
                write_file(&file, &volume.bytes)?;
                access.seed = Some(file);
            }
            access.instance_id = volume.instance_id;
        }
        Ok(access)
    }

    /// Writes down in `directory` what is needed to bring it back.
    ///
    /// # Errors
    /// The host's own.
    pub fn keep(&self, directory: &Path) -> Result<()> {
        for (name, key) in [(KEPT_KEY, &self.key), (KEPT_HOST_KEY, &self.host_key)] {
            if let Some(key) = key {
                key.write(directory.join(name))?;
            }
        }
        match &self.seed {
            Some(seed) => write_secret(directory.join(KEPT_SEED), &read_file(seed, LARGEST_SEED)?),
            None => Ok(()),
        }
    }

    /// What was kept in `kept`; files lie in `directory`.
    ///
    /// # Errors
    /// It is not what it was; the host's own.
    pub(super) fn restore(
        kept: &Path,
        instance_id: Option<String>,
        created_user: Option<String>,
        directory: &Path,
    ) -> Result<Self> {
        let mut access = Self::default();
        access.instance_id = instance_id;
        access.created_user = created_user;
        let key = |name: &str| -> Result<Option<KeyPair>> {
            let path = kept.join(name);
            if look(&path)?.is_none() {
                return Ok(None);
            }
            let text = String::from_utf8(read_file(&path, LARGEST_KEY)?)
                .map_err(|_| Error::usage("is no private key").at_path(&path))?;
            KeyPair::from_private_text(&text)
                .map(Some)
                .map_err(|error| error.at_path(&path))
        };
        access.host_key = key(KEPT_HOST_KEY)?;
        if let Some(key) = key(KEPT_KEY)? {
            let file = directory.join(KEY);
            key.write(&file)?;
            access.key_file = Some(file);
            access.key = Some(key);
        }
        let seed = kept.join(KEPT_SEED);
        if look(&seed)?.is_some() {
            let file = directory.join(SEED);
            write_file(&file, &read_file(&seed, LARGEST_SEED)?)?;
            access.seed = Some(file);
        }
        Ok(access)
    }

    /// The bytes of the seed, where there is something to be said.
    fn seed_volume(
        &mut self,
        ssh: Option<&Ssh>,
        given: Option<&Seed>,
        account: Account,
    ) -> Result<Option<seed::Seed>> {
        // What a template boots without a key may be an installer: a volume too many does no harm there, either.
        let given = match given {
            Some(seed) => seed.clone(),
            None if self.key.is_some() => Seed::default(),
            None => return Ok(None),
        };
        let mut user_data = Vec::new();
        if let Some(bytes) = given.user_data {
            user_data.push(Part {
                name: "user-data".to_owned(),
                bytes,
            });
        }
        if let (Some(key), Some(host_key), Some(ssh)) = (&self.key, &self.host_key, ssh) {
            // Whom the template's own part speaks of is the template's.
            if account == Account::Missing
                && !user_data.iter().any(|part| names(part, &ssh.username))
            {
                self.created_user = Some(ssh.username.clone());
            }
            user_data.push(Part {
                name: "qimg".to_owned(),
                bytes: cloud_config(&ssh.username, account, key, &self.others, host_key)?
                    .into_bytes(),
            });
        }
        let request = SeedRequest {
            user_data,
            meta_data: given
                .meta_data
                .map_or_else(MetaData::default, MetaData::Given),
            network_config: given.network_config,
            vendor_data: given.vendor_data,
            ..SeedRequest::default()
        };
        seed::build(&request).map(Some)
    }
}

impl Drop for Access {
    /// What lets in goes with the build; the log of its console and the pictures stay.
    fn drop(&mut self) {
        for file in [&self.key_file, &self.seed].into_iter().flatten() {
            // There is nobody to tell; the key opens nothing any more.
            let _ = remove_file(file);
        }
    }
}

/// Whether the template brings a way to log in.
fn has_proof(ssh: &Ssh) -> bool {
    ssh.private_key.is_some() || ssh.password.is_some() || ssh.agent
}

/// Whether the text holds `user` as a word. What is packed or encoded counts as if it did.
fn names(part: &Part, user: &str) -> bool {
    match std::str::from_utf8(&part.bytes) {
        Ok(text) => text
            .split(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)))
            .any(|word| word == user),
        Err(_) => true,
    }
}

/// A part of user-data that adds to all others, whatever they say: the user, its key, and the host key.
pub(crate) fn cloud_config(
    user: &str,
    account: Account,
    key: &KeyPair,
    others: &[String],
    host_key: &KeyPair,
) -> Result<String> {
    let mut text = String::from(
        "#cloud-config\n\
         merge_how:\n\
         - {name: list, settings: [append]}\n\
         - {name: dict, settings: [no_replace, recurse_list]}\n",
    );
    let lines: Vec<String> = std::iter::once(key.public_line())
        .chain(others.iter().cloned())
        .map(|line| quoted(&line))
        .collect();
    let line = lines.join(", ");
    let _ = writeln!(text, "ssh_authorized_keys: [{line}]");
    if user == "root" {
        text.push_str("disable_root: false\n");
    }
    let _ = write!(
        text,
        "users:\n\
         - default\n\
         - name: {}\n",
        quoted(user)
    );
    match account {
        // As it is: cloud-init would lock a password that is not mentioned.
        Account::There { locked } => {
            let _ = writeln!(text, "  lock_passwd: {locked}");
        }
        _ if user == "root" => {}
        // Its shell and all else are the distribution's.
        Account::Default => {
            text.push_str("  sudo: 'ALL=(ALL) NOPASSWD:ALL'\n  lock_passwd: true\n");
        }
        _ => text
            .push_str("  sudo: 'ALL=(ALL) NOPASSWD:ALL'\n  shell: /bin/sh\n  lock_passwd: true\n"),
    }
    let _ = writeln!(text, "  ssh_authorized_keys: [{line}]");
    text.push_str(&self::host_key(host_key)?);
    Ok(text)
}

/// The lines of a cloud-config that make `key` the key that the guest shows.
pub(crate) fn host_key(key: &KeyPair) -> Result<String> {
    let mut text = String::from("ssh_keys:\n  ed25519_private: |\n");
    for line in key.private_text()?.lines() {
        let _ = writeln!(text, "    {line}");
    }
    let public = quoted(&key.public_line());
    let _ = writeln!(text, "  ed25519_public: {public}");
    Ok(text)
}

/// A YAML scalar in double quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

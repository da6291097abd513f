//! Who may log in, and the seed that tells the guest.
//!
//! Knows cloud-init's words for users, keys and passwords. Must not know how the guest reads them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::request::Datasource;
use crate::build::access::{cloud_config, host_key};
use crate::build::accounts::{Account, look_for};
use crate::build::disk::Origin;
use crate::build::runs::KEY;
use crate::communicator::keys::{KeyPair, Kind};
use crate::communicator::ssh::{Key, Options};
use crate::error::Result;
use crate::seed::{self, MetaData, Part, SeedRequest};
use crate::store::{remove_file, write_file};

/// The comment of the key: what is found in an image afterwards is known by it.
const KEY_COMMENT: &str = "qimg-test-key";

/// What lets us in.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) users: Vec<String>,
    pub(super) key: KeyPair,
    pub(super) host_key: KeyPair,
    pub(super) key_file: PathBuf,
    /// Files to be removed.
    files: Vec<PathBuf>,
}

/// A password for users.
#[derive(Clone)]
pub(super) struct Password(pub(super) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Access {
    /// Makes keys for `users`, in `directory`.
    pub(super) fn new(users: Vec<String>, directory: &Path) -> Result<Self> {
        let kind = || Kind::parse("ed25519", None);
        let key = KeyPair::generate(kind()?, KEY_COMMENT)?;
        let host_key = KeyPair::generate(kind()?, "qimg-test")?;
        let key_file = directory.join(KEY);
        key.write(&key_file)?;
        Ok(Self {
            users,
            key,
            host_key,
            files: vec![key_file.clone()],
            key_file,
        })
    }

    /// The parts of user-data that let `users` in, by key and, where there is one, by password.
    pub(super) fn user_data(
        &self,
        origin: &Origin,
        password: Option<&Password>,
        given: Option<&[u8]>,
    ) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        if let Some(bytes) = given {
            parts.push(Part {
                name: "user-data".to_owned(),
                bytes: bytes.to_vec(),
            });
        }
        for user in &self.users {
            let account = match look_for(user, origin) {
                // Nobody knows: a new user with a shell and sudo does where it is not there.
                Account::Unknown => Account::Missing,
                account => account,
            };
            parts.push(Part {
                name: format!("qimg-{user}"),
                bytes: cloud_config(user, account, &self.key, &[], &self.host_key)?.into_bytes(),
            });
        }
        if let Some(Password(password)) = password {
            let lines: Vec<String> = { self.users.iter() }
                .map(|user| format!("    {user}:{password}\n"))
                .collect();
            // The form that all versions of cloud-init know.
            let text = format!(
                "#cloud-config\nmerge_how:\n- {{name: list, settings: [append]}}\n- {{name: dict, settings: [no_replace, recurse_list]}}\n\
                 ssh_pwauth: true\nchpasswd:\n  expire: false\n  list: |\n{}",
                lines.concat()
            );
            parts.push(Part {
                name: "qimg-password".to_owned(),
                bytes: text.into_bytes(),
            });
        }
        Ok(parts)
    }

    /// The part of user-data of an instance whose cloud puts the key in by itself, for its default user; or which does not, or
    /// not for `user`.
    pub(super) fn part_of_cloud(&self, by_cloud: bool, user: Option<&str>) -> Result<Part> {
        let name = "qimg".to_owned();
        if let Some(user) = user {
            let text = cloud_config(user, Account::Missing, &self.key, &[], &self.host_key)?;
            return Ok(Part {
                name,
                bytes: text.into_bytes(),
            });
        }
        let mut text = String::from(
            "#cloud-config\nmerge_how:\n- {name: list, settings: [append]}\n- {name: dict, settings: [no_replace, recurse_list]}\n",
        );
        if !by_cloud {
            let _ = writeln!(
                text,
                "ssh_authorized_keys: [\"{}\"]",
                self.key.public_line()
            );
        }
        text.push_str(&host_key(&self.host_key)?);
        Ok(Part {
            name,
            bytes: text.into_bytes(),
        })
    }

    /// Ways in with `options`: by the key, or by `password`; the guest has to show the host key that the seed gave it.
    pub(super) fn prove(&self, options: &mut Options, password: Option<&Password>) {
        let credentials = &mut options.guest.credentials;
        match password {
            Some(password) => credentials.password = Some(password.0.clone()),
            None => credentials.keys.push(Key::from(&self.key)),
        }
        options.host_keys.push(self.host_key.public_line());
    }

    /// Makes a seed at `file` of `parts`.
    pub(super) fn volume(&mut self, parts: Vec<Part>, instance: &str, file: &Path) -> Result<()> {
        let request = SeedRequest {
            user_data: parts,
            meta_data: MetaData::Made {
                instance_id: Some(instance.to_owned()),
                hostname: None,
                dsmode: None,
            },
            ..SeedRequest::default()
        };
        let volume = seed::build(&request)?;
        remove_file(file)?;
        write_file(file, &volume.bytes)?;
        self.files.push(file.to_owned());
        Ok(())
    }
}

impl Drop for Access {
    /// What lets in goes with the trial.
    fn drop(&mut self) {
        for file in &self.files {
            // There is nobody to tell; the key opens nothing any more.
            let _ = remove_file(file);
        }
    }
}

/// Whether the guest is told by a volume.
pub(super) fn has_volume(datasource: Datasource) -> bool {
    datasource == Datasource::NoCloud
}

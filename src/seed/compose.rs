//! A cloud-config made of single wishes: a user, keys, packages, commands, files.

use super::check::ssh_key_complaint;
use super::emit::{self, Item};
use super::{Part, base64};
use crate::error::{Error, Result};

/// What a cloud-config is composed of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Composition {
    /// The user to make, with sudo and a shell; without, keys go to the image's own user.
    pub user: Option<String>,
    /// Lines of authorized_keys.
    pub ssh_keys: Vec<String>,
    /// A hash as in shadow(5), for the user.
    pub password_hash: Option<String>,
    /// Packages to install.
    pub packages: Vec<String>,
    /// Commands for a shell, at the end of the first boot.
    pub run: Vec<String>,
    /// Files to write.
    pub write_files: Vec<WriteFile>,
    /// The time zone.
    pub timezone: Option<String>,
}

/// A file that the guest is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFile {
    /// Where in the guest; from the root on.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Octal digits.
    pub permissions: Option<String>,
}

impl Composition {
    /// Whether nothing is wished for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As a part of user-data.
    ///
    /// # Errors
    /// A password that is no hash, or is nobody's; a key that is none; a path that does not begin at the root.
    pub fn compose(&self) -> Result<Part> {
        for key in &self.ssh_keys {
            if let Some(complaint) = ssh_key_complaint(key) {
                return Err(Error::usage(format!("'{}' {complaint}", shortened(key))));
            }
        }
        let mut entries = Vec::new();
        let text = |text: &String| Item::Text(text.clone());
        let texts = |texts: &[String]| Item::List(texts.iter().map(text).collect());
        match &self.user {
            Some(user) => {
                if user.is_empty() || user.contains([':', '/', ' ', '\n']) {
                    return Err(Error::usage(format!("'{user}' is no name for a user")));
                }
                let mut fields = vec![
                    ("name", text(user)),
                    ("sudo", Item::Text("ALL=(ALL) NOPASSWD:ALL".to_owned())),
                    ("shell", Item::Text("/bin/bash".to_owned())),
                    ("lock_passwd", Item::Bool(self.password_hash.is_none())),
                ];
                if let Some(hash) = &self.password_hash {
                    fields.push(("passwd", Item::Text(checked_hash(hash)?)));
                }
                if !self.ssh_keys.is_empty() {
                    fields.push(("ssh_authorized_keys", texts(&self.ssh_keys)));
                }
                entries.push(("users", Item::List(vec![Item::Map(fields)])));
            }
            None if self.password_hash.is_some() => {
                return Err(Error::usage("a password hash without its user")
                    .with_remedy("name the user with --user"));
            }
            None if !self.ssh_keys.is_empty() => {
                entries.push(("ssh_authorized_keys", texts(&self.ssh_keys)));
            }
            None => {}
        }
        if let Some(timezone) = &self.timezone {
            entries.push(("timezone", text(timezone)));
        }
        if !self.packages.is_empty() {
            entries.push(("package_update", Item::Bool(true)));
            entries.push(("packages", texts(&self.packages)));
        }
        if !self.write_files.is_empty() {
            let files = self
                .write_files
                .iter()
                .map(write_file)
                .collect::<Result<_>>()?;
            entries.push(("write_files", Item::List(files)));
        }
        if !self.run.is_empty() {
            entries.push(("runcmd", texts(&self.run)));
        }
        let text = format!("#cloud-config\n{}", emit::document(&entries));
        Ok(Part {
            name: "qimg.yaml".to_owned(),
            bytes: text.into_bytes(),
        })
    }
}

fn checked_hash(hash: &str) -> Result<String> {
    if hash.starts_with('$') && hash.matches('$').count() >= 3 && !hash.contains([':', '\n']) {
        return Ok(hash.to_owned());
    }
    Err(Error::usage("the password is no hash of crypt(3)")
        .with_remedy("make one, as with `openssl passwd -6`"))
}

fn write_file(file: &WriteFile) -> Result<Item> {
    if !file.path.starts_with('/') {
        return Err(Error::usage(format!(
            "'{}': a file in the guest is named from '/' on",
            file.path
        )));
    }
    let mut fields = vec![("path", Item::Text(file.path.clone()))];
    if let Some(permissions) = &file.permissions {
        fields.push(("permissions", Item::Text(permissions.clone())));
    }
    match std::str::from_utf8(&file.bytes) {
        Ok(text) if !text.contains('\0') => fields.push(("content", Item::Text(text.to_owned()))),
        _ => {
            fields.push(("encoding", Item::Text("b64".to_owned())));
            fields.push(("content", Item::Text(base64::encode(&file.bytes))));
        }
    }
    Ok(Item::Map(fields))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

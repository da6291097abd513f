//! Where post-processors bring artifacts.

use std::fmt;

use super::Text;

/// An artifact's files in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Upload {
    /// The bucket, which exists.
    pub bucket: Text,
    /// The object's name; empty or with `/` at its end: each file's own name behind it.
    pub key: Text,
    /// `https://HOST[:PORT]`; `None`: as AWS's tools find it.
    pub endpoint: Option<Text>,
    /// For the signature.
    pub region: Option<Text>,
    /// The bucket is part of the host's name.
    pub virtual_host: Option<bool>,
    /// Who else may read it: `public-read`.
    pub acl: Option<Text>,
    /// MIME type.
    pub content_type: Option<Text>,
    /// As the server names it.
    pub storage_class: Option<Text>,
    /// Section of the files of keys.
    pub profile: Option<Text>,
    /// Who asks; `None`: as AWS's tools find it.
    pub keys: Keys,
    /// Bytes of a part.
    pub part_size: Option<u64>,
}

/// A template of Exoscale's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExoscaleImport {
    /// The template's name.
    pub name: Text,
    /// The bucket where the image waits, which exists.
    pub bucket: Text,
    /// The object's name; `None`: the file's.
    pub key: Option<Text>,
    /// The zones, of which the first one registers.
    pub zones: Vec<Text>,
    /// The bucket's zone; `None`: the first one.
    pub image_zone: Option<Text>,
    /// Instead of `https://sos-ZONE.exo.io`.
    pub store_endpoint: Option<Text>,
    /// Instead of `https://ENVIRONMENT-ZONE.exoscale.com`.
    pub api_endpoint: Option<Text>,
    /// `api`; `ppapi` for preproduction.
    pub environment: Text,
    /// For an operation to end, in seconds.
    pub timeout: u32,
    /// Of the template.
    pub description: Option<Text>,
    /// Who logs in.
    pub username: Option<Text>,
    /// `legacy` or `uefi`.
    pub boot_mode: String,
    /// The cloud makes no password.
    pub disable_password: bool,
    /// The cloud puts no key in.
    pub disable_ssh_key: bool,
    /// Who cares for it.
    pub maintainer: Option<Text>,
    /// Of the template.
    pub version: Option<Text>,
    /// Of the template.
    pub build: Option<Text>,
    /// Who asks; `None`: `EXOSCALE_API_KEY` and `EXOSCALE_API_SECRET`.
    pub keys: Keys,
    /// Leave the object in the store.
    pub keep_object: bool,
    /// Everybody may read the object while it is there, instead of who has a link.
    pub public: bool,
    /// Publish what breaks the cloud's rules.
    pub force: bool,
}

/// A key and its secret, where the template has them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Which key: no secret.
    pub key: Option<Text>,
    /// The secret.
    pub secret: Option<Text>,
    /// For keys that are lent for a while.
    pub token: Option<Text>,
}

impl Keys {
    /// What nobody may see.
    pub fn secrets(&self) -> impl Iterator<Item = &Text> {
        self.secret.iter().chain(&self.token)
    }
}

/// Without secrets.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("key", &self.key)
            .field("secret", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

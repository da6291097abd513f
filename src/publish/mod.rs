//! Artifacts brought to where others take them from: object stores, a cloud's templates, directories, any server.
//!
//! Knows how a file gets somewhere else unchanged: digests on the way, tries again, goes on where an earlier run was
//! interrupted, and publishes nothing twice. Must not know templates or builds, and never reads the environment: secrets
//! and directories are handed in.
//!
//! What is published is only read. However a publish ends, the artifact is as it was, and the same call goes on.
//!
//! | module | where to |
//! |---|---|
//! | [`s3`] | an object store that speaks S3 |
//! | [`exoscale`] | a template of Exoscale's, by way of its object store |
//! | [`directory`] | a directory with a stream of versions |
//! | [`put`] | a server that takes HTTP PUT |
//! | [`packed`] | no place: `disk.raw` in a tar.gz, as some clouds want it |

mod attend;
mod courier;
pub mod directory;
pub mod exoscale;
pub mod original;
pub mod packed;
pub mod put;
pub mod s3;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use attend::Event;
pub use original::Original;

#[cfg(fuzzing)]
pub use exoscale::read_all as api_answer;
#[cfg(fuzzing)]
pub use s3::answer::read_all as store_answer;

use crate::error::Error;
use crate::fetch::HttpOptions;
use s3::{Credentials, Found, Style};

/// What the host has: variables, files of keys, proxies. The program gathers it.
#[derive(Clone)]
pub struct Access {
    /// Variables, also with keys in them.
    pub environment: BTreeMap<String, String>,
    /// Text of `~/.aws/credentials`; empty: there is none.
    pub credentials_file: String,
    /// Text of `~/.aws/config`; empty: there is none.
    pub config_file: String,
    /// How servers are talked to.
    pub http: HttpOptions,
    /// Where uploads and operations that are going on are remembered.
    pub journal: Option<PathBuf>,
    /// Seconds since 1970.
    pub clock: &'static (dyn Fn() -> u64 + Sync + Send),
}

/// Without anything secret.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("http", &self.http)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// A variable that is not empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    /// What object stores need, by a profile or by whatever is found.
    pub fn s3(&self, profile: Option<&str>) -> Found {
        s3::find(
            &self.environment,
            profile,
            &self.credentials_file,
            &self.config_file,
        )
    }

    /// The key of `EXOSCALE_API_KEY` and `EXOSCALE_API_SECRET`.
    pub fn exoscale(&self) -> Option<Credentials> {
        Some(Credentials {
            key: self.variable("EXOSCALE_API_KEY")?,
            secret: self.variable("EXOSCALE_API_SECRET")?,
            token: None,
        })
    }
}

/// Where a bucket is, where not all of it is said: AWS names buckets in hosts, others in paths.
pub fn s3_place(
    endpoint: Option<String>,
    region: Option<String>,
    virtual_host: Option<bool>,
) -> (String, String, Style) {
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let at_aws = endpoint
        .as_ref()
        .is_none_or(|endpoint| endpoint.contains(".amazonaws.com"));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let style = match virtual_host.unwrap_or(at_aws) {
        true => Style::VirtualHost,
        false => Style::Path,
    };
    (endpoint, region, style)
}

/// Nobody has said who asks an object store.
pub fn no_s3_keys() -> Error {
    Error::usage("there is no key for the object store").with_remedy(
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/credentials",
    )
}

/// Nobody has said who asks Exoscale.
pub fn no_exoscale_keys() -> Error {
    Error::usage("there is no key for Exoscale")
        .with_remedy("set EXOSCALE_API_KEY and EXOSCALE_API_SECRET")
}

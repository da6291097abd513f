//! Objects in stores that speak S3: uploaded in parts, compared, and gone on with after an interruption.
//!
//! Knows buckets, keys, signatures and parts. Must not know what an object is for.
//!
//! Each part is sent with its MD5, which the server must find in what it got, and says back. When all are there, the
//! server's digest of the whole is compared; where it names none that is known here, the object is read back. The SHA-256 of
//! the whole stays with the object as `x-amz-meta-sha256`: what is there already is not sent again.

pub(crate) mod answer;
mod credentials;
mod journal;
mod requests;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use credentials::{Credentials, Found, find};

use super::attend::{Event, attended};
use super::courier::Courier;
use super::original::Original;
use crate::communicator::Stop;
use crate::error::{Error, Result};
use crate::fetch::HttpOptions;
use requests::Store;

/// The smallest part that servers take, but for the last.
pub const LEAST_PART: u64 = 5 << 20;

/// The parts that are made where nobody says otherwise.
pub const PART: u64 = 16 << 20;

/// Parts of one object at most.
pub const MOST_PARTS: u64 = 10_000;

/// The longest time that a signature may hold.
pub const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How a bucket is named in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// `https://HOST/BUCKET/KEY`.
    #[default]
    Path,
    /// `https://BUCKET.HOST/KEY`.
    VirtualHost,
}

/// When an object is read back as a whole, to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// If the server's digest says nothing.
    #[default]
    IfNeeded,
    /// Always.
    Always,
}

/// Where an object goes, and how it is kept there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `https://HOST[:PORT]`.
    pub endpoint: String,
    /// For the signature.
    pub region: String,
    /// How the bucket is named.
    pub style: Style,
    /// The bucket, which exists.
    pub bucket: String,
    /// The object's name in it.
    pub key: String,
    /// Who else may read it: `public-read`; nothing: the bucket's own default.
    pub acl: Option<String>,
    /// `application/octet-stream` where nobody says otherwise.
    pub content_type: Option<String>,
    /// `STANDARD_IA`, as the server names it.
    pub storage_class: Option<String>,
    /// Parts that are sent at the same time, at least 1.
    pub at_once: usize,
    /// When it is read back.
    pub verify: Verify,
    /// Where uploads that are going on are remembered; without, the server alone is asked.
    pub journal: Option<PathBuf>,
}

impl Target {
    /// An object of this name; everything else by default.
    pub fn new(endpoint: &str, region: &str, bucket: &str, key: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            style: Style::default(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            acl: None,
            content_type: None,
            storage_class: None,
            at_once: 4,
            verify: Verify::default(),
            journal: None,
        }
    }

    /// As messages name it.
    pub fn shown(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Its URL, for whoever may read it without a signature.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn url(&self) -> Result<String> {
        Store::url(self)
    }
}

/// The bucket and key of `s3://BUCKET/KEY`. A key that is empty, or ends in `/`, gets `name` behind it.
///
/// # Errors
/// It is written in another way.
pub fn parse(text: &str, name: &str) -> Result<(String, String)> {
    let bad = || {
        Error::usage(format!("'{text}' is no place in an object store"))
            .with_remedy("write s3://BUCKET/KEY, or s3://BUCKET/DIRECTORY/")
    };
    let rest = text.strip_prefix("s3://").ok_or_else(bad)?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
        return Err(bad());
    }
    let key = match key.is_empty() || key.ends_with('/') {
        true => format!("{key}{name}"),
        false => key.to_owned(),
    };
    Ok((bucket.to_owned(), key))
}

/// The size of parts for `length` bytes: `asked`, or larger if there were too many.
///
/// # Errors
/// Servers do not take so small ones.
pub fn part_size(length: u64, asked: Option<u64>) -> Result<u64> {
    if asked.is_some_and(|asked| asked < LEAST_PART) {
        return Err(Error::usage("servers do not take parts of less than 5 MiB")
            .with_remedy("make them larger"));
    }
    let least = length.div_ceil(MOST_PARTS).next_multiple_of(1 << 20);
    Ok(asked.unwrap_or(PART).max(least))
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uploaded {
    /// Without a signature.
    pub url: String,
    /// The bucket.
    pub bucket: String,
    /// The object's name in it.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    /// In hexadecimal digits.
    pub md5: String,
    /// As the server names it.
    pub etag: Option<String>,
    /// It was there already, and nothing was sent.
    pub was_there: bool,
    /// Parts that an earlier run had sent.
    pub resumed_parts: usize,
    /// All parts; 1: sent as a whole.
    pub parts: usize,
    /// It was read back as a whole.
    pub read_back: bool,
}

/// Uploads `original`, unless it is there already.
///
/// # Errors
/// The server does not answer or refuses; what arrived is not what was sent; [`Cancelled`](crate::ErrorKind::Cancelled). Parts
/// that arrived stay there: the same call goes on with them.
pub fn upload(
    original: &Original,
    target: &Target,
    credentials: &Credentials,
    http: &HttpOptions,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Uploaded> {
    attended(stop, tell, |work| {
        let courier = Courier::new(http, work)?;
        let store = Store::new(target, credentials, &courier)?;
        upload::upload(original, target, &store, work)
    })
}

/// Removes an object; one that is not there is as well.
///
/// # Errors
/// The server does not answer, or refuses; [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn remove(
    target: &Target,
    credentials: &Credentials,
    http: &HttpOptions,
    stop: &Stop,
) -> Result<()> {
    attended(stop, &mut |_| {}, |work| {
        let courier = Courier::new(http, work)?;
        Store::new(target, credentials, &courier)?.remove()
    })
}

/// A URL by which anybody can read the object for so long. It is as good as a key: not for logs.
///
/// # Errors
/// Longer than servers allow; the endpoint is no URL.
pub fn link(target: &Target, credentials: &Credentials, holds: Duration) -> Result<String> {
    if holds > LONGEST_LINK || holds.is_zero() {
        return Err(Error::usage("a link holds for 1 second to 7 days"));
    }
    Store::link(target, credentials, holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_get_the_files_name_where_they_have_none() {
        let parse = |text| parse(text, "d.qcow2");
        assert_eq!(parse("s3://b").unwrap(), ("b".into(), "d.qcow2".into()));
        assert_eq!(parse("s3://b/").unwrap().1, "d.qcow2");
        assert_eq!(parse("s3://b/x/").unwrap().1, "x/d.qcow2");
        assert_eq!(parse("s3://b/x").unwrap().1, "x");
        for text in ["s3:///x", "s3://", "http://b/x", "s3://u@b/x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_grow_so_that_there_are_not_too_many() {
        assert_eq!(part_size(1, None).unwrap(), PART);
        assert_eq!(part_size(1, Some(LEAST_PART)).unwrap(), LEAST_PART);
        assert!(part_size(1, Some(LEAST_PART - 1)).is_err());
        let length = 1 << 40;
        let size = part_size(length, None).unwrap();
        assert!(length.div_ceil(size) <= MOST_PARTS);
    }

    #[test]
    fn links_and_both_styles_name_the_object() {
        let mut target = Target::new("https://s3.example:9000/base", "r", "b", "a key/ü");
        assert_eq!(
            target.url().unwrap(),
            "https://s3.example:9000/base/b/a%20key/%C3%BC"
        );
        target.style = Style::VirtualHost;
        assert_eq!(
            target.url().unwrap(),
            "https://b.s3.example:9000/base/a%20key/%C3%BC"
        );
        let credentials = Credentials {
            key: "k".into(),
            secret: "hidden".into(),
            token: None,
        };
        let link = |time| link(&target, &credentials, time);
        let url = link(Duration::from_secs(60)).unwrap();
        assert!(url.contains("X-Amz-Expires=60"), "{url}");
        assert!(!url.contains("hidden"));
        assert!(link(LONGEST_LINK + Duration::from_secs(1)).is_err());
        target.endpoint = "ftp://x".into();
        assert!(target.url().is_err());
    }
}

//! What an image must come to, as templates say it.
//!
//! Knows the spellings of a checksum. Where a file of checksums is named, [`list`] reads it. Must not fetch anything.

pub mod list;

use std::path::Path;

use super::source::Source;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A file of checksums that is longer is none.
pub const MAX_LIST: u64 = 16 << 20;

/// What an image is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing.
    None,
    /// This digest.
    Digest(Digest),
    /// The digest that this file has beside the image's name.
    File(Source),
}

impl Checksum {
    /// Reads `KIND:HEX`, bare digits, `file:PATH-OR-URL`, `none` or nothing; relative paths start from `directory`.
    ///
    /// # Errors
    /// Anything else; a file that is not fetched here.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        let bad = |error: Error| {
            match error.remedy() {
            Some(_) => error,
            None => error.with_remedy(
                "a checksum is sha256:HEX (or md5, sha1, sha224, sha384, sha512), the digits alone, \
                 file:PATH-OR-URL, or none",
            ),
        }
        };
        if let Some(place) = text
            .get(..5)
            .filter(|start| start.eq_ignore_ascii_case("file:"))
            .map(|start| &text[start.len()..])
        {
            return Ok(Self::File(list_source(place.trim(), directory)?));
        }
        text.parse().map(Self::Digest).map_err(bad)
    }
}

/// What stands behind `file:`: itself a URL, or a path, which may begin with the slashes of a `file:` URL.
fn list_source(place: &str, directory: &Path) -> Result<Source> {
    if place.starts_with("//") {
        return Source::parse(&format!("file:{place}"), directory);
    }
    if place.is_empty() {
        return Err(Error::usage("the checksum 'file:' names no file"));
    }
    Source::parse(place, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_checksums() {
        let parse = |text: &str| Checksum::parse(text, Path::new("/base"));
        assert_eq!(parse("").unwrap(), Checksum::None);
        assert_eq!(parse("NONE").unwrap(), Checksum::None);
        let path = |path: &str| Checksum::File(Source::Path(path.into()));
        assert_eq!(parse("file:SHA256SUMS").unwrap(), path("/base/SHA256SUMS"));
        assert_eq!(
            parse("file:///a/SHA256SUMS").unwrap(),
            path("/a/SHA256SUMS")
        );
        assert_eq!(
            parse("file:./SHA256SUMS").unwrap(),
            path("/base/./SHA256SUMS")
        );
        assert_eq!(
            parse("file:https://host/SHA256SUMS").unwrap(),
            Checksum::File(Source::Http("https://host/SHA256SUMS".into()))
        );
        assert_eq!(parse("file:file:/a/b").unwrap(), path("/a/b"));
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        assert!(matches!(parse(md5).unwrap(), Checksum::Digest(_)));
        assert!(matches!(
            parse(&format!("MD5: {md5}")).unwrap(),
            Checksum::Digest(_)
        ));
        for text in [
            "sha256:xyz",
            "sha1:",
            "crc32:00",
            "file:",
            "file:s3://x",
            "é:",
            "ficlé:",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.remedy().is_some() || text == "file:",
                "{text}: {error}"
            );
        }
    }
}

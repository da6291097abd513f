//! What kind of user-data a text is, by how it begins.
//!
//! Knows the first words that cloud-init tells kinds by. Must not know what the rest means.

use std::fmt;

use serde::Serialize;

/// A kind of user-data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Header {
    /// `#cloud-config`.
    CloudConfig,
    /// `#cloud-config-archive`: a list of parts.
    CloudConfigArchive,
    /// `#cloud-config-jsonp`: patches to a cloud-config.
    CloudConfigJsonp,
    /// `#include`.
    Include,
    /// `#include-once`.
    IncludeOnce,
    /// `#!`.
    Script,
    /// `#cloud-boothook`.
    Boothook,
    /// `#part-handler`.
    PartHandler,
    /// `## template: jinja`, with the true header in the second line.
    Jinja,
    /// MIME, with parts of any kind.
    Multipart,
    /// Compressed by gzip.
    Gzip,
    /// Nothing at all.
    Empty,
    /// None of these: cloud-init ignores it.
    Unknown,
}

/// First words in lower case, the longer of two that begin alike first.
const STARTS: [(&str, Header); 9] = [
    ("#cloud-config-archive", Header::CloudConfigArchive),
    ("#cloud-config-jsonp", Header::CloudConfigJsonp),
    ("#cloud-config", Header::CloudConfig),
    ("#include-once", Header::IncludeOnce),
    ("#include", Header::Include),
    ("#!", Header::Script),
    ("#cloud-boothook", Header::Boothook),
    ("#part-handler", Header::PartHandler),
    ("## template: jinja", Header::Jinja),
];

impl Header {
    /// The kind of `bytes`, as cloud-init sees it.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"\x1f\x8b") {
            return Self::Gzip;
        }
        let start = bytes.trim_ascii_start();
        if start.is_empty() {
            return Self::Empty;
        }
        let line: Vec<u8> = start.iter().take(128).map(u8::to_ascii_lowercase).collect();
        if line.starts_with(b"content-type:") || line.starts_with(b"mime-version:") {
            return Self::Multipart;
        }
        let found = STARTS
            .iter()
            .find(|(word, _)| line.starts_with(word.as_bytes()));
        found.map_or(Self::Unknown, |(_, header)| *header)
    }

    /// As the kind of a part in MIME; `None` for what is no part of its own.
    pub(super) fn content_type(self) -> Option<&'static str> {
        Some(match self {
            Self::CloudConfig => "text/cloud-config",
            Self::CloudConfigArchive => "text/cloud-config-archive",
            Self::CloudConfigJsonp => "text/cloud-config-jsonp",
            Self::Include => "text/x-include-url",
            Self::IncludeOnce => "text/x-include-once-url",
            Self::Script => "text/x-shellscript",
            Self::Boothook => "text/cloud-boothook",
            Self::PartHandler => "text/part-handler",
            Self::Jinja => "text/jinja2",
            Self::Gzip => "application/gzip",
            Self::Multipart | Self::Empty | Self::Unknown => return None,
        })
    }

    /// The words that user-data begins with.
    pub(super) fn words() -> impl Iterator<Item = &'static str> {
        STARTS.iter().map(|(word, _)| *word)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloudConfig => "cloud-config",
            Self::CloudConfigArchive => "cloud-config archive",
            Self::CloudConfigJsonp => "cloud-config JSON patch",
            Self::Include => "list of URLs to include",
            Self::IncludeOnce => "list of URLs to include once",
            Self::Script => "script",
            Self::Boothook => "boothook",
            Self::PartHandler => "part handler",
            Self::Jinja => "jinja template",
            Self::Multipart => "MIME multipart",
            Self::Gzip => "gzip",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_first_words() {
        for (text, header) in [
            ("#cloud-config\na: 1\n", Header::CloudConfig),
            ("\n #Cloud-Config\n", Header::CloudConfig),
            ("#cloud-config-archive\n", Header::CloudConfigArchive),
            ("# cloud-config\n", Header::Unknown),
            ("\u{feff}#cloud-config\n", Header::Unknown),
            ("#!/bin/sh\n", Header::Script),
            ("#include-once\n", Header::IncludeOnce),
            ("## template: jinja\n#cloud-config\n", Header::Jinja),
            ("MIME-Version: 1.0\n", Header::Multipart),
            ("\x1f\u{8b}", Header::Unknown),
            (" \n", Header::Empty),
            ("users: []\n", Header::Unknown),
        ] {
            assert_eq!(Header::of(text.as_bytes()), header, "{text:?}");
        }
        assert_eq!(Header::of(b"\x1f\x8b\x08"), Header::Gzip);
    }
}

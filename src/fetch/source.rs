//! Where an image or a file of checksums is: a path, a `file:` URL or an http(s) URL.
//!
//! Knows spellings, and which kinds are not fetched here. Must not open or request anything.

use std::path::{Path, PathBuf};

use ureq::http::Uri;

use crate::error::{Error, Result};

/// Kinds of sources that templates may name and qimg does not fetch, as they begin.
const FOREIGN: &[(&str, &str)] = &[
    ("git", "git"),
    ("git+ssh", "git"),
    ("ssh", "ssh"),
    ("hg", "Mercurial"),
    ("s3", "S3"),
    ("gcs", "Google Cloud Storage"),
    ("gs", "Google Cloud Storage"),
    ("smb", "SMB"),
    ("cifs", "SMB"),
    ("nfs", "NFS"),
    ("ftp", "FTP"),
    ("ftps", "FTP"),
    ("sftp", "SFTP"),
    ("scp", "SCP"),
    ("rsync", "rsync"),
];

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this host.
    Path(PathBuf),
    /// An http or https URL, without fragment.
    Http(String),
}

impl Source {
    /// Reads a path, a `file:` URL or an http(s) URL; relative paths start from `directory`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for other kinds of URL, by name;
    /// [`Usage`](crate::ErrorKind::Usage) for one that is none.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage("the URL of the image is empty"));
        }
        if let Some((getter, _)) = text.split_once("::")
            && is_scheme(getter)
        {
            return Err(foreign(getter, text));
        }
        let Some((scheme, rest)) = text.split_once(':').filter(|(name, _)| is_scheme(name)) else {
            return Ok(Self::Path(directory.join(text)));
        };
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "file" => Ok(Self::Path(directory.join(file_path(rest, text)?))),
            "http" | "https" => http(text),
            _ if rest.starts_with("//") || FOREIGN.iter().any(|(name, _)| *name == scheme) => {
                Err(foreign(&scheme, text))
            }
            // A colon is a letter like others in the name of a file.
            _ => Ok(Self::Path(directory.join(text))),
        }
    }

    /// The name of the file: the last part of the path, with `%XX` decoded.
    pub fn file_name(&self) -> Option<String> {
        match self {
            Self::Path(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            Self::Http(url) => {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                let (_, path) = path.split_once("//")?;
                let (_, name) = path.rsplit_once('/')?;
                let name = percent_decoded(name).unwrap_or_else(|| name.to_owned());
                Some(name).filter(|name| !name.is_empty())
            }
        }
    }

    /// The same place, but for the last part of its path, which becomes `name`.
    ///
    /// An http URL loses its query: what is beside a file is not found by the file's own query.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        match self {
            Self::Path(path) => Self::Path(path.with_file_name(name)),
            Self::Http(url) => {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                let directory = path
                    .rsplit_once('/')
                    .map_or(path, |(directory, _)| directory);
                Self::Http(format!("{directory}/{name}"))
            }
        }
    }

    /// The same place with `suffix` after the name of the file.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        match self {
            Self::Path(path) => {
                let mut path = path.clone().into_os_string();
                path.push(suffix);
                Self::Path(path.into())
            }
            Self::Http(url) => {
                let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
                Self::Http(format!("{path}{suffix}{query}"))
            }
        }
    }

    /// The path of this place as seen from the directory of `other`, if it lies in or below that.
    pub fn relative_to(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Path(this), Self::Path(other)) => {
                let relative = this.strip_prefix(other.parent()?).ok()?;
                Some(relative.to_string_lossy().into_owned())
            }
            (Self::Http(this), Self::Http(other)) => {
                let plain = |url: &str| url.split(['?', '#']).next().unwrap_or_default().to_owned();
                let (this, other) = (plain(this), plain(other));
                let (directory, _) = other.rsplit_once('/')?;
                let relative = this.strip_prefix(directory)?.strip_prefix('/')?;
                percent_decoded(relative)
            }
            _ => None,
        }
    }
}

/// As in messages: without a password, and without a query, which may hold a signature.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Http(url) => f.write_str(&shown(url)),
        }
    }
}

/// A URL as messages may name it.
pub(crate) fn shown(url: &str) -> String {
    let (plain, query) = match url.find(['?', '#']) {
        Some(at) => (&url[..at], "?..."),
        None => (url, ""),
    };
    let Some((scheme, rest)) = plain.split_once("://") else {
        return format!("{plain}{query}");
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

fn is_scheme(text: &str) -> bool {
    // One letter is a drive on other systems, and nobody's scheme.
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn foreign(scheme: &str, text: &str) -> Error {
    let known = FOREIGN
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(scheme));
    let what = known.map_or(scheme, |(_, what)| what);
    Error::unsupported(format!(
        "'{}' is not fetched: qimg has no {what} client",
        shown(text)
    ))
    .with_remedy("give a path, or a file:, http: or https: URL; download anything else beforehand")
}

fn http(text: &str) -> Result<Source> {
    let bad = |why: &str| {
        Error::usage(format!("'{}' is not a URL: {why}", shown(text)))
            .with_remedy("write signs that a URL must not hold as %XX, a space as %20")
    };
    let url = text.split('#').next().unwrap_or_default();
    let uri: Uri = url
        .parse()
        .map_err(|error: ureq::http::uri::InvalidUri| bad(&error.to_string()))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    Ok(Source::Http(url.to_owned()))
}

/// The path in a `file:` URL, after the colon.
fn file_path(rest: &str, text: &str) -> Result<PathBuf> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => match rest.split_once('/') {
            Some(("" | "localhost", _)) => &rest[rest.find('/').unwrap_or(0)..],
            // Not by the letter of any standard, but written all the same.
            Some(("." | "..", _)) => rest,
            _ => {
                return Err(
                    Error::usage(format!("'{text}' names a file of another host")).with_remedy(
                        "write file:/ABSOLUTE/PATH or file:///ABSOLUTE/PATH, or file:RELATIVE/PATH",
                    ),
                );
            }
        },
    };
    let decoded = percent_decoded(path).filter(|path| !path.is_empty());
    decoded
        .map(PathBuf::from)
        .ok_or_else(|| Error::usage(format!("'{text}' is not a file: URL")))
}

/// `%XX` as the byte it means, if all comes out as text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn parse(text: &str) -> Result<Source> {
        Source::parse(text, Path::new("/base"))
    }

    #[test]
    fn paths_and_file_urls_are_paths() {
        for (text, path) in [
            ("disk.img", "/base/disk.img"),
            ("/abs/disk.img", "/abs/disk.img"),
            ("a:b.img", "/base/a:b.img"),
            ("file:disk.img", "/base/disk.img"),
            ("file:/abs/d%20k.img", "/abs/d k.img"),
            ("file:///abs/disk.img", "/abs/disk.img"),
            ("FILE://localhost/abs/disk.img", "/abs/disk.img"),
            ("file://./disk.img", "/base/./disk.img"),
            ("debian:12.img", "/base/debian:12.img"),
        ] {
            assert_eq!(parse(text).unwrap(), Source::Path(path.into()), "{text}");
        }
        assert!(parse("file://server/disk.img").is_err());
        assert!(parse("file:").is_err());
        assert!(parse("file:a%00b").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for (text, name) in [
            ("git::https://user:secret@host/x", "git"),
            ("s3::https://s3.example/x", "S3"),
            ("gcs://bucket/x", "Google Cloud Storage"),
            ("hg::http://host/x", "Mercurial"),
            ("smb://host/share/x", "SMB"),
            ("ftp://user:secret@host/x", "FTP"),
            ("gopher://host/x", "gopher"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(name), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(parse("http:///x").is_err());
        assert!(parse("http://host/a b").is_err());
    }

    #[test]
    fn names_and_neighbours_of_urls() {
        let url = parse("https://user:secret@host/a/b%2Bc.qcow2?token=secret#x").unwrap();
        assert_eq!(url.file_name().as_deref(), Some("b+c.qcow2"));
        assert_eq!(url.to_string(), "https://host/a/b%2Bc.qcow2?...");
        assert_eq!(
            url.beside("SHA256SUMS"),
            Source::Http("https://user:secret@host/a/SHA256SUMS".into())
        );
        let sums = parse("http://host/a/SHA256SUMS").unwrap();
        assert_eq!(
            sums.with_suffix(".gpg").to_string(),
            "http://host/a/SHA256SUMS.gpg"
        );
        let image = parse("http://host/a/x/disk.img").unwrap();
        assert_eq!(image.relative_to(&sums).as_deref(), Some("x/disk.img"));
        assert_eq!(sums.relative_to(&image), None);
        assert_eq!(parse("http://host").unwrap().file_name(), None);
    }
}

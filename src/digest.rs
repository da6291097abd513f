//! Digests of bytes: which kinds there are, how they are written, several of them in one pass.
//!
//! Knows algorithms and hexadecimal digits. Must not know where the bytes come from, or which digest was expected.

use std::fmt;
use std::str::FromStr;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

use crate::error::{Error, Result};

/// Which algorithm makes a digest, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestKind {
    /// MD5: detects accidents alone.
    Md5,
    /// SHA-1: detects accidents alone.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestKind {
    /// All kinds, from the weakest to the strongest.
    pub const ALL: [Self; 6] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// Bytes of a digest.
    pub fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The kind whose digests have so many hexadecimal digits.
    pub fn of_digits(digits: usize) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.length() * 2 == digits)
    }

    /// The name, in lower case and without a hyphen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for DigestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DigestKind {
    type Err = Error;

    /// Upper or lower case; with or without `-`; `SHA2-256` as OpenSSL writes it.
    fn from_str(text: &str) -> Result<Self> {
        let plain: String = text
            .chars()
            .filter(|c| *c != '-')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let plain = match plain.strip_prefix("sha2") {
            // OpenSSL's names for the second family of SHA.
            Some(bits @ ("224" | "256" | "384" | "512")) => format!("sha{bits}"),
            _ => plain,
        };
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == plain)
            .ok_or_else(|| {
                Error::unsupported(format!("'{text}' is no kind of digest that is known here"))
                    .with_remedy("known are md5, sha1, sha224, sha256, sha384 and sha512")
            })
    }
}

/// A digest of some bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    kind: DigestKind,
    bytes: Vec<u8>,
}

impl Digest {
    /// A digest of `kind`, written as hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage): another number of digits, or no digits.
    pub fn from_hex(kind: DigestKind, digits: &str) -> Result<Self> {
        let bytes = unhex(digits).ok_or_else(|| {
            Error::usage(format!(
                "'{}' is not written in hexadecimal digits",
                shortened(digits)
            ))
        })?;
        if bytes.len() != kind.length() {
            return Err(Error::usage(format!(
                "a {kind} digest has {} hexadecimal digits, not {}",
                kind.length() * 2,
                digits.len()
            )));
        }
        Ok(Self { kind, bytes })
    }

    /// A digest alone: the number of digits tells the kind.
    pub fn from_bare_hex(digits: &str) -> Option<Self> {
        let kind = DigestKind::of_digits(digits.len())?;
        Some(Self {
            kind,
            bytes: unhex(digits)?,
        })
    }

    /// Which algorithm made it.
    pub fn kind(&self) -> DigestKind {
        self.kind
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as hexadecimal digits in lower case.
    pub fn hex(&self) -> String {
        self.bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// `sha256:HEX`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `sha256:HEX`, or the digits alone.
impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((kind, digits)) => Self::from_hex(kind.trim().parse()?, digits.trim()),
            None => Self::from_bare_hex(text.trim()).ok_or_else(|| {
                Error::usage(format!("'{}' is not a digest", shortened(text))).with_remedy(
                    "write the kind before it, as in sha256:HEX, or the hexadecimal digits alone",
                )
            }),
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

/// As much of a text as a message can bear.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

/// Digests in the making: bytes go in, in order; all kinds come out.
#[derive(Debug, Clone)]
pub struct Digester {
    parts: Vec<(DigestKind, State)>,
}

#[derive(Clone)]
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Digester {
    /// Makes digests of these kinds, each once.
    pub fn new(kinds: &[DigestKind]) -> Self {
        let mut parts: Vec<(DigestKind, State)> = Vec::new();
        for kind in kinds {
            if parts.iter().any(|(known, _)| known == kind) {
                continue;
            }
            let state = match kind {
                DigestKind::Md5 => State::Md5(Md5::new()),
                DigestKind::Sha1 => State::Sha1(Sha1::new()),
                DigestKind::Sha224 => State::Sha224(Sha224::new()),
                DigestKind::Sha256 => State::Sha256(Sha256::new()),
                DigestKind::Sha384 => State::Sha384(Sha384::new()),
                DigestKind::Sha512 => State::Sha512(Sha512::new()),
            };
            parts.push((*kind, state));
        }
        Self { parts }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for (_, state) in &mut self.parts {
            match state {
                State::Md5(state) => state.update(bytes),
                State::Sha1(state) => state.update(bytes),
                State::Sha224(state) => state.update(bytes),
                State::Sha256(state) => state.update(bytes),
                State::Sha384(state) => state.update(bytes),
                State::Sha512(state) => state.update(bytes),
            }
        }
    }

    /// The digests of all bytes that went in, in the order in which the kinds were named.
    pub fn finish(self) -> Vec<Digest> {
        self.parts
            .into_iter()
            .map(|(kind, state)| Digest {
                kind,
                bytes: match state {
                    State::Md5(state) => state.finalize().to_vec(),
                    State::Sha1(state) => state.finalize().to_vec(),
                    State::Sha224(state) => state.finalize().to_vec(),
                    State::Sha256(state) => state.finalize().to_vec(),
                    State::Sha384(state) => state.finalize().to_vec(),
                    State::Sha512(state) => state.finalize().to_vec(),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_abc_are_those_of_the_standards() {
        let mut digester = Digester::new(&DigestKind::ALL);
        digester.update(b"a");
        digester.update(b"bc");
        let digests: Vec<_> = digester.finish().iter().map(Digest::hex).collect();
        assert_eq!(digests[0], "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(digests[1], "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            digests[2],
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"
        );
        assert_eq!(
            digests[3],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(digests[4].starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(digests[5].starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn spellings_of_digests_are_read() {
        let digits = "BA7816BF8F01CFEA414140DE5DAE2223b00361a396177a9cb410ff61f20015ad";
        for text in [
            digits.to_owned(),
            format!("sha256:{digits}"),
            format!("SHA-256:{digits}"),
            format!("SHA2-256: {digits}"),
        ] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(
                digest.to_string(),
                format!("sha256:{}", digits.to_lowercase())
            );
        }
        for text in [
            "",
            "sha256:",
            "sha256:ab",
            "sha3:ab",
            "xyz",
            "sha2:00",
            "md5:é",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        for kind in DigestKind::ALL {
            assert_eq!(kind.name().parse::<DigestKind>().unwrap(), kind);
            assert_eq!(DigestKind::of_digits(kind.length() * 2), Some(kind));
        }
    }
}

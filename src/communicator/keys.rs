//! Key pairs: the temporary one that opens the guest, and the host key that the guest shows.
//!
//! Knows kinds of keys and OpenSSH's forms of them. Must not know guests, seeds or connections.
//! No message, log or `Debug` ever has a private part in it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey};

use crate::error::{Error, ErrorKind, Result};
use crate::store;

/// Kinds of keys that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519: small, and made in no time.
    Ed25519,
    /// ECDSA on a NIST curve of this many bits: 256, 384 or 521.
    Ecdsa(u32),
    /// RSA of this many bits: 2048 to 8192. Takes seconds.
    Rsa(u32),
}

impl Kind {
    /// By the names of templates: `ed25519`, `ecdsa`, `rsa`; `bits` where they are given.
    ///
    /// # Errors
    /// There is no such kind, or not of so many bits.
    pub fn parse(name: &str, bits: Option<u32>) -> Result<Self> {
        match (name, bits) {
            ("ed25519", None | Some(0 | 256)) => Ok(Self::Ed25519),
            ("ecdsa", None | Some(0)) => Ok(Self::Ecdsa(256)),
            ("ecdsa", Some(bits @ (256 | 384 | 521))) => Ok(Self::Ecdsa(bits)),
            ("rsa", None | Some(0)) => Ok(Self::Rsa(4096)),
            ("rsa", Some(bits @ 2048..=8192)) => Ok(Self::Rsa(bits)),
            ("ed25519" | "ecdsa" | "rsa", Some(bits)) => {
                let fits = match name {
                    "ed25519" => "always has 256",
                    "ecdsa" => "has 256, 384 or 521",
                    _ => "has 2048 to 8192",
                };
                Err(Error::usage(format!(
                    "a key of kind {name} cannot have {bits} bits: it {fits}"
                )))
            }
            ("dsa", _) => Err(Error::unsupported(
                "keys of kind dsa are not made: no server of today takes them",
            )
            .with_remedy("leave the kind out, or use ed25519")),
            _ => Err(Error::usage(format!("there is no kind of key {name}"))
                .with_remedy("use ed25519, ecdsa or rsa")),
        }
    }
}

/// A private key and its public part.
#[derive(Clone)]
pub struct KeyPair(Arc<PrivateKey>);

impl KeyPair {
    /// Makes a new pair by the host's source of randomness. `comment` ends its public line.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn generate(kind: Kind, comment: &str) -> Result<Self> {
        let mut random = safe_rng();
        let failed = |cause: russh::keys::ssh_key::Error| {
            Error::new(ErrorKind::Io, "cannot make a key").with_source(cause)
        };
        let mut key = match kind {
            Kind::Ed25519 => PrivateKey::random(&mut random, Algorithm::Ed25519).map_err(failed)?,
            Kind::Ecdsa(bits) => {
                let curve = match bits {
                    384 => EcdsaCurve::NistP384,
                    521 => EcdsaCurve::NistP521,
                    _ => EcdsaCurve::NistP256,
                };
                PrivateKey::random(&mut random, Algorithm::Ecdsa { curve }).map_err(failed)?
            }
            Kind::Rsa(bits) => {
                let pair = RsaKeypair::random(&mut random, bits as usize).map_err(failed)?;
                PrivateKey::new(KeypairData::from(pair), "").map_err(failed)?
            }
        };
        key.set_comment(comment);
        Ok(Self(Arc::new(key)))
    }

    /// The pair in what [`KeyPair::private_text`] gave.
    ///
    /// # Errors
    /// It is no such text.
    pub fn from_private_text(text: &str) -> Result<Self> {
        let key = PrivateKey::from_openssh(text)
            .map_err(|cause| Error::usage("is no private key").with_source(cause))?;
        Ok(Self(Arc::new(key)))
    }

    /// The private part as OpenSSH's text, with its last line's end: a secret.
    ///
    /// # Errors
    /// The key has no such form.
    pub fn private_text(&self) -> Result<String> {
        let text = self.0.to_openssh(LineEnding::LF);
        let text = text.map_err(|cause| {
            Error::new(ErrorKind::Io, "cannot write the key down").with_source(cause)
        })?;
        Ok(text.to_string())
    }

    /// The public part as one line without its end: kind, base64, comment.
    #[must_use]
    pub fn public_line(&self) -> String {
        line(self.0.public_key())
    }

    /// `SHA256:...` of the public part, as `ssh-keygen -l` has it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.public_key())
    }

    /// The kind as servers call it: `ssh-ed25519`.
    #[must_use]
    pub fn algorithm(&self) -> String {
        self.0.algorithm().to_string()
    }

    /// Writes the private part to a new file that nobody but its owner can read.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        store::write_secret(path, self.private_text()?.as_bytes())
    }

    pub(super) fn private(&self) -> &Arc<PrivateKey> {
        &self.0
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint())
    }
}

/// A public key as one line without its end.
pub(super) fn line(key: &PublicKey) -> String {
    // Every key that could be read or made has this form.
    key.to_openssh().unwrap_or_default().trim_end().to_owned()
}

pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A public key from its line.
pub(super) fn public(line: &str) -> Result<PublicKey> {
    PublicKey::from_openssh(line.trim())
        .map_err(|cause| Error::usage("the host key is no public key of SSH").with_source(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_in_templates() {
        assert_eq!(Kind::parse("rsa", None).unwrap(), Kind::Rsa(4096));
        assert_eq!(Kind::parse("ecdsa", Some(521)).unwrap(), Kind::Ecdsa(521));
        assert_eq!(Kind::parse("ed25519", Some(0)).unwrap(), Kind::Ed25519);
        for (name, bits) in [("rsa", 512), ("ecdsa", 255), ("ed25519", 4096)] {
            let error = Kind::parse(name, Some(bits)).unwrap_err();
            assert!(error.to_string().contains(&bits.to_string()), "{error}");
        }
        assert_eq!(
            Kind::parse("dsa", None).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_private_key_is_shown_nowhere() {
        let pair = KeyPair::generate(Kind::Ed25519, "build of debian").unwrap();
        let text = pair.private_text().unwrap();
        assert!(text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(text.ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
        let public = pair.public_line();
        assert!(public.starts_with("ssh-ed25519 AAAA") && public.ends_with(" build of debian"));
        assert_eq!(
            format!("{pair:?}"),
            format!("KeyPair({})", pair.fingerprint())
        );
    }
}

//! Whom to connect to, as whom, and by which keys: all that an SSH connection needs to know before it begins.
//!
//! Knows key files and what of a template concerns SSH. Must not know connections.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, decode_secret_key};
use russh::{Preferred, cipher, compression, kex, mac};

use super::super::keys::{KeyPair, fingerprint, public};
use crate::error::{Error, Result};
use crate::store::read_file;
use crate::template::model;

pub use model::Transfer;

/// Larger key files are none.
const LONGEST_KEY: u64 = 256 * 1024;

/// A key to log in with, its certificate, and the name it has in messages.
#[derive(Clone)]
pub struct Key {
    pub(super) private: Arc<PrivateKey>,
    pub(super) certificate: Option<Certificate>,
    origin: String,
}

impl Key {
    /// Reads a private key file (OpenSSH, PKCS#1, PKCS#8 or SEC1) and the certificate for it.
    ///
    /// # Errors
    /// A file cannot be read, holds no key or an encrypted one; or the certificate is of another key.
    pub fn read(path: &Path, certificate: Option<&Path>) -> Result<Self> {
        let text = read_file(path, LONGEST_KEY)?;
        let text = String::from_utf8_lossy(&text);
        let mut key =
            Self::parse(&text, &path.to_string_lossy()).map_err(|error| error.at_path(path))?;
        if let Some(path) = certificate {
            let text = read_file(path, LONGEST_KEY)?;
            let text = String::from_utf8_lossy(&text);
            key.certify(&text).map_err(|error| error.at_path(path))?;
        }
        Ok(key)
    }

    /// A key from its text; `origin` names it in messages.
    ///
    /// # Errors
    /// It is no private key, or an encrypted one.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        use russh::keys::Error as Cause;
        let encrypted = || {
            Error::unsupported("the private key is encrypted").with_remedy(
                "give a key without a passphrase, or load it into ssh-agent and ask for the agent",
            )
        };
        let private = match decode_secret_key(text, None) {
            Ok(key) if key.is_encrypted() => return Err(encrypted()),
            Ok(key) => key,
            Err(Cause::KeyIsEncrypted) => return Err(encrypted()),
            Err(_) if text.contains("ENCRYPTED") => return Err(encrypted()),
            // The cause may quote what it read: it is not passed on.
            Err(_) => {
                return Err(
                    Error::usage("is no private key that SSH can use").with_remedy(
                        "give the private file of a pair made by ssh-keygen, not the .pub one",
                    ),
                );
            }
        };
        Ok(Self {
            private: Arc::new(private),
            certificate: None,
            origin: origin.to_owned(),
        })
    }

    fn certify(&mut self, text: &str) -> Result<()> {
        let certificate = Certificate::from_openssh(text.trim())
            .map_err(|cause| Error::usage("is no certificate of SSH").with_source(cause))?;
        if certificate.public_key() != self.private.public_key().key_data() {
            return Err(Error::usage(format!(
                "is the certificate of another key than {}",
                self.origin
            )));
        }
        self.certificate = Some(certificate);
        Ok(())
    }

    /// For messages: kind, fingerprint and origin.
    pub(super) fn name(&self) -> String {
        let public = self.private.public_key();
        format!(
            "{} {} ({})",
            public.algorithm(),
            fingerprint(public),
            self.origin
        )
    }
}

impl From<&KeyPair> for Key {
    fn from(pair: &KeyPair) -> Self {
        Self {
            private: Arc::clone(pair.private()),
            certificate: None,
            origin: "made for this build".to_owned(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name())
    }
}

/// How to prove who logs in, tried in this order.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Keys at hand.
    pub keys: Vec<Key>,
    /// The socket of an agent whose keys may be used.
    pub agent: Option<PathBuf>,
    /// Password, also the answer to every question of keyboard-interactive.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("keys", &self.keys)
            .field("agent", &self.agent)
            .field("password", &self.password.is_some())
            .finish()
    }
}

/// An SSH server and who logs in there.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login name.
    pub username: String,
    /// Proofs.
    pub credentials: Credentials,
}

/// Everything about a connection into the guest.
#[derive(Debug, Clone)]
pub struct Options {
    /// The guest.
    pub guest: Destination,
    /// Another server that the connection goes through.
    pub bastion: Option<Destination>,
    /// Public lines of the host keys of which the guest must show one; empty: the first it shows is remembered.
    pub host_keys: Vec<String>,
    /// The socket of the agent that commands in the guest may use.
    pub forward_agent: Option<PathBuf>,
    /// Commands get a terminal: standard error comes as standard output then.
    pub pty: bool,
    /// Between two signs of life; after a minute, but at least three, without an answer the connection is lost.
    pub keep_alive: Option<Duration>,
    /// How files are sent, where the guest has it.
    pub transfer: Transfer,
    /// Ciphers, if limited, by their names in SSH.
    pub ciphers: Vec<String>,
    /// Key exchange algorithms, if limited, by their names in SSH.
    pub key_exchanges: Vec<String>,
    /// For one connection, from its start to the login; also for a session to begin.
    pub patience: Duration,
}

impl Options {
    /// A connection to `host` as `username`, with nothing else said.
    #[must_use]
    pub fn new(host: &str, port: u16, username: &str) -> Self {
        Self {
            guest: Destination {
                host: host.to_owned(),
                port,
                username: username.to_owned(),
                credentials: Credentials::default(),
            },
            bastion: None,
            host_keys: Vec::new(),
            forward_agent: None,
            pty: false,
            keep_alive: Some(Duration::from_secs(5)),
            transfer: Transfer::default(),
            ciphers: Vec::new(),
            key_exchanges: Vec::new(),
            patience: Duration::from_secs(60),
        }
    }

    /// What a template asks for: key files are read here. `host` and `port` are where the guest is reached from
    /// here, `agent` is the socket of the user's agent (`SSH_AUTH_SOCK`), `made` the key that was made for this
    /// build.
    ///
    /// # Errors
    /// As [`Key::read`]; or the agent is asked for and there is none, or an algorithm is not known.
    pub fn from_template(
        ssh: &model::Ssh,
        host: &str,
        port: u16,
        agent: Option<&Path>,
        made: Option<&KeyPair>,
    ) -> Result<Self> {
        let asked = |wanted: bool| match (wanted, agent) {
            (false, _) => Ok(None),
            (true, Some(socket)) => Ok(Some(socket.to_owned())),
            (true, None) => Err(
                Error::usage("the SSH agent is asked for, but there is none").with_remedy(
                    "start ssh-agent, so that SSH_AUTH_SOCK is set, or give a key file",
                ),
            ),
        };
        let mut keys: Vec<Key> = made.map(Key::from).into_iter().collect();
        if let Some(path) = &ssh.private_key {
            keys.push(Key::read(path, ssh.certificate.as_deref())?);
        }
        let bastion = match &ssh.bastion {
            None => None,
            Some(bastion) => {
                let file = bastion.private_key.as_ref().or(ssh.private_key.as_ref());
                let key = match file {
                    Some(path) => Some(Key::read(path, bastion.certificate.as_deref())?),
                    None => None,
                };
                Some(Destination {
                    host: bastion.host.clone(),
                    port: bastion.port,
                    username: bastion.username.clone(),
                    credentials: Credentials {
                        keys: key.into_iter().collect(),
                        agent: asked(bastion.agent)?,
                        password: bastion.password.clone(),
                    },
                })
            }
        };
        let options = Self {
            guest: Destination {
                host: host.to_owned(),
                port,
                username: ssh.username.clone(),
                credentials: Credentials {
                    keys,
                    agent: asked(ssh.agent)?,
                    password: ssh.password.clone(),
                },
            },
            bastion,
            forward_agent: asked(ssh.forward_agent)?,
            pty: ssh.pty,
            keep_alive: ssh.keep_alive,
            transfer: ssh.transfer,
            ciphers: ssh.ciphers.clone(),
            key_exchanges: ssh.key_exchanges.clone(),
            ..Self::new(host, port, &ssh.username)
        };
        options.check()?;
        Ok(options)
    }

    /// Whether all names of algorithms and all host keys are such.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<()> {
        self.preferred(None)?;
        for line in &self.host_keys {
            public(line)?;
        }
        Ok(())
    }

    /// What is offered to a server, most wanted first; `shown` is the host key it is known to have.
    pub(super) fn preferred(&self, shown: Option<&Algorithm>) -> Result<Preferred> {
        let mut offered = Preferred {
            kex: Cow::Owned(self.offered_key_exchanges()?),
            cipher: Cow::Owned(self.offered_ciphers()?),
            mac: Cow::Borrowed(MACS),
            // Compressed data costs the guest more than the way is long; and nobody can send us a bomb.
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        };
        if let Some(shown) = shown {
            let family = |other: &Algorithm| match (shown, other) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (shown, other) => shown == other,
            };
            let mut algorithms = offered.key.to_vec();
            algorithms.sort_by_key(|other| !family(other));
            offered.key = Cow::Owned(algorithms);
        }
        Ok(offered)
    }

    fn offered_ciphers(&self) -> Result<Vec<cipher::Name>> {
        if self.ciphers.is_empty() {
            return Ok(CIPHERS.to_vec());
        }
        named(&self.ciphers, "cipher", CIPHERS, |name| {
            let usable = name != cipher::CLEAR.as_ref() && name != cipher::NONE.as_ref();
            cipher::Name::try_from(name).ok().filter(|_| usable)
        })
    }

    fn offered_key_exchanges(&self) -> Result<Vec<kex::Name>> {
        let mut offered = if self.key_exchanges.is_empty() {
            KEY_EXCHANGES.to_vec()
        } else {
            named(
                &self.key_exchanges,
                "key exchange algorithm",
                KEY_EXCHANGES,
                |name| {
                    let usable = name != kex::NONE.as_ref()
                        && !name.starts_with("ext-info")
                        && !name.starts_with("kex-strict");
                    kex::Name::try_from(name).ok().filter(|_| usable)
                },
            )?
        };
        offered.push(kex::EXTENSION_SUPPORT_AS_CLIENT);
        offered.push(kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT);
        Ok(offered)
    }
}

/// Most wanted first; what is old comes last, for guests that have nothing else. The first one is quick in guests
/// that have no instructions for AES, as those without an accelerator.
const CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

const KEY_EXCHANGES: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::MLKEM768X25519_SHA256,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
    kex::DH_G14_SHA1,
];

const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
    mac::HMAC_SHA1_ETM,
    mac::HMAC_SHA1,
];

fn named<T: AsRef<str>>(
    names: &[String],
    what: &str,
    known: &[T],
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>> {
    let one = |name: &String| {
        find(name).ok_or_else(|| {
            let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            Error::usage(format!("there is no {what} {name}"))
                .with_remedy(format!("choose from {}", known.join(", ")))
        })
    };
    names.iter().map(one).collect()
}

/// The hashes to sign with, for a key of this algorithm: `told` is what the server said it takes.
pub(super) fn hashes(algorithm: &Algorithm, told: Option<Option<HashAlg>>) -> Vec<Option<HashAlg>> {
    match (algorithm, told) {
        (Algorithm::Rsa { .. }, Some(hash)) => vec![hash],
        // Servers that tell nothing are old, or very old.
        (Algorithm::Rsa { .. }, None) => vec![Some(HashAlg::Sha256), None],
        _ => vec![None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_can_be_limited_to_such_as_there_are() {
        let mut options = Options::new("h", 22, "u");
        options.ciphers = vec!["aes128-ctr".to_owned()];
        options.key_exchanges = vec!["curve25519-sha256".to_owned()];
        let offered = options.preferred(None).unwrap();
        assert_eq!(offered.cipher.as_ref(), [cipher::AES_128_CTR]);
        assert_eq!(offered.kex[0], kex::CURVE25519);
        assert_eq!(offered.kex.len(), 3);
        for wrong in ["none", "clear", "rot13"] {
            options.ciphers = vec![wrong.to_owned()];
            let error = options.check().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
            assert!(error.remedy().unwrap().contains("aes256-gcm@openssh.com"));
        }
        options.ciphers.clear();
        options.key_exchanges = vec!["ext-info-c".to_owned()];
        assert!(options.check().is_err());
    }

    #[test]
    fn the_kind_of_the_known_host_key_is_asked_for_first() {
        let options = Options::new("h", 22, "u");
        let rsa = Algorithm::Rsa { hash: None };
        let offered = options.preferred(Some(&rsa)).unwrap();
        assert!(matches!(offered.key[0], Algorithm::Rsa { hash: Some(_) }));
        assert_eq!(offered.key.len(), Preferred::DEFAULT.key.len());
    }

    #[test]
    fn what_is_no_key_is_not_quoted() {
        let error = Key::parse("hunter2", "x").unwrap_err();
        let told = format!("{error:?} {:?}", error.remedy());
        assert!(!told.contains("hunter2"), "{told}");
    }
}

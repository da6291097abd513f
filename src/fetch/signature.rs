//! Signatures of files of checksums, by OpenPGP: in the file (clearsigned), or beside it.
//!
//! Knows which text is signed, and which keys may sign: a key counts if its owner bound it, and nobody revoked it. Must
//! not know whom the user trusts: a file of keys says that, and nothing else does.

use std::fmt::Write as _;
use std::io::Cursor;
use std::time::SystemTime;

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature as Packet, SignatureType};
use pgp::types::{KeyDetails, Tag, Timestamp};

use crate::error::{Error, ErrorKind, Result};

const BEGIN_TEXT: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// Signatures in one file, and keys of one keyring, at most.
const MAX_SIGNATURES: usize = 64;
const MAX_KEYS: usize = 4096;

/// What is known of whoever published the checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// There is no file of checksums.
    NoList,
    /// No key was given, and the file holds no signature; what lies beside it was not looked for.
    Unsigned,
    /// The file holds a signature, and no key was given that it could be compared with.
    Unverified,
    /// One of the given keys signed it.
    Verified {
        /// Fingerprint of the certificate, in hexadecimal digits.
        fingerprint: String,
        /// Its first user id.
        user: Option<String>,
    },
}

/// A clearsigned text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedText {
    /// What is signed, its lines ended by a line feed.
    pub text: String,
    /// The signature, armored.
    pub signature: String,
}

impl SignedText {
    /// The bytes that are signed: without blanks at the ends of lines, without the last line's end.
    pub fn canonical(&self) -> Vec<u8> {
        let lines: Vec<&str> = self
            .text
            .lines()
            .map(|line| line.trim_end_matches([' ', '\t', '\r']))
            .collect();
        lines.join("\r\n").into_bytes()
    }
}

/// The clearsigned text in a file, if there is one. What stands before and behind it is not signed.
///
/// # Errors
/// [`Usage`](ErrorKind::Usage): it is cut off or malformed, or there are several.
pub fn signed_text(file: &str) -> Result<Option<SignedText>> {
    let bad = |why: &str| Error::usage(format!("is not properly signed: {why}"));
    let mut rest = file.lines();
    if !rest.by_ref().any(|line| line.trim_end() == BEGIN_TEXT) {
        return Ok(None);
    }
    loop {
        let line = rest.next().ok_or_else(|| bad("the text is missing"))?;
        if line.trim_end().is_empty() {
            break;
        }
        // A line that is neither would look signed and be none of it.
        if !line.starts_with("Hash:") {
            return Err(bad(
                "there is a line before the text that belongs to neither",
            ));
        }
    }
    let mut text = String::new();
    let mut signature = String::new();
    loop {
        let line = rest.next().ok_or_else(|| bad("the signature is missing"))?;
        if line.trim_end() == BEGIN_SIGNATURE {
            let _ = writeln!(signature, "{BEGIN_SIGNATURE}");
            break;
        }
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => return Err(bad("a line of the text begins with '-'")),
            None => line,
        };
        text.push_str(line);
        text.push('\n');
    }
    loop {
        let line = rest.next().ok_or_else(|| bad("the signature is cut off"))?;
        let _ = writeln!(signature, "{}", line.trim_end());
        if line.trim_end() == END_SIGNATURE {
            break;
        }
    }
    if rest.any(|line| line.trim_end() == BEGIN_TEXT) {
        return Err(bad("it holds several signed texts"));
    }
    Ok(Some(SignedText { text, signature }))
}

/// Checks that one of `keys` (armored or not, any number of them) made one of the signatures in `signature` over `data`.
///
/// # Errors
/// [`Refused`](ErrorKind::Refused): none did, with the closest miss; [`Usage`](ErrorKind::Usage): there are no keys or
/// signatures in these bytes.
pub fn verify(keys: &[u8], signature: &[u8], data: &[u8]) -> Result<Signature> {
    let certificates = certificates(keys)?;
    let signatures = signatures(signature)?;
    let mut miss: Option<String> = None;
    for signature in &signatures {
        match verify_one(&certificates, signature, data) {
            Ok(certificate) => {
                return Ok(Signature::Verified {
                    fingerprint: format!("{:X}", certificate.primary_key.fingerprint()),
                    user: first_user(certificate),
                });
            }
            Err(why) => miss = miss.or(Some(why)),
        }
    }
    Err(Error::new(
        ErrorKind::Refused,
        miss.unwrap_or_else(|| "there is no signature".to_owned()),
    ))
}

fn first_user(certificate: &SignedPublicKey) -> Option<String> {
    let user = certificate.details.users.first()?;
    Some(String::from_utf8_lossy(user.id.id()).into_owned())
}

fn certificates(keys: &[u8]) -> Result<Vec<SignedPublicKey>> {
    let none = || {
        Error::usage("the file of keys holds no public key")
            .with_remedy("export it with `gpg --export --armor KEY`")
    };
    let mut found = Vec::new();
    // A file may hold one armored block after another.
    for block in blocks(keys) {
        let Ok((certificates, _)) = SignedPublicKey::from_reader_many(Cursor::new(block)) else {
            continue;
        };
        found.extend(
            certificates
                .take(MAX_KEYS)
                .filter_map(std::result::Result::ok),
        );
    }
    if found.is_empty() {
        return Err(none());
    }
    Ok(found)
}

/// Armored blocks one by one; all of it, where there are none.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    let starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(at, window)| *window == BEGIN && (*at == 0 || bytes[at - 1] == b'\n'))
        .map(|(at, _)| at)
        .take(MAX_KEYS)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &bytes[*start..end])
        .collect()
}

fn signatures(bytes: &[u8]) -> Result<Vec<Packet>> {
    let none = || Error::usage("there is no signature in what should be one");
    let (found, _) = DetachedSignature::from_reader_many(Cursor::new(bytes)).map_err(|_| none())?;
    let found: Vec<Packet> = found
        .take(MAX_SIGNATURES)
        .filter_map(std::result::Result::ok)
        .map(|signature| signature.signature)
        .collect();
    if found.is_empty() {
        return Err(none());
    }
    Ok(found)
}

/// The certificate whose key made the signature, or why none did.
fn verify_one<'a>(
    certificates: &'a [SignedPublicKey],
    signature: &Packet,
    data: &[u8],
) -> std::result::Result<&'a SignedPublicKey, String> {
    if !matches!(
        signature.typ(),
        Some(SignatureType::Binary | SignatureType::Text)
    ) {
        return Err("it is no signature of a file".to_owned());
    }
    let sound = matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha224
                | HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    );
    if !sound {
        return Err(
            "it rests on a digest that can be forged (MD5, SHA-1 or RIPEMD-160)".to_owned(),
        );
    }
    let created = signature
        .created()
        .ok_or("it does not say when it was made")?;
    if let Some(lifetime) = signature.signature_expiration_time()
        && lifetime.as_secs() > 0
        && is_past(created, lifetime.as_secs())
    {
        return Err("it has expired".to_owned());
    }
    let mut miss = None;
    for certificate in certificates {
        let primary = &certificate.primary_key;
        if is_issuer(signature, primary) {
            match signature.verify(primary, data) {
                Ok(()) => match primary_may_sign(certificate, created) {
                    Ok(()) => return Ok(certificate),
                    Err(why) => miss = Some(why),
                },
                Err(_) => miss = Some(changed(primary)),
            }
        }
        for subkey in &certificate.public_subkeys {
            if !is_issuer(signature, &subkey.key) {
                continue;
            }
            match signature.verify(&subkey.key, data) {
                Ok(()) => match subkey_may_sign(certificate, subkey, created) {
                    Ok(()) => return Ok(certificate),
                    Err(why) => miss = Some(why),
                },
                Err(_) => miss = Some(changed(&subkey.key)),
            }
        }
    }
    Err(miss.unwrap_or_else(|| match issuer(signature) {
        Some(issuer) => format!("it was made by key {issuer}, which is not among them"),
        None => "it was made by none of them".to_owned(),
    }))
}

fn changed(key: &impl KeyDetails) -> String {
    format!(
        "what it signs is not what key {} signed",
        key.legacy_key_id()
    )
}

fn issuer(signature: &Packet) -> Option<String> {
    let fingerprint = signature.issuer_fingerprint();
    let id = signature.issuer_key_id();
    fingerprint
        .first()
        .map(|fingerprint| format!("{fingerprint:X}"))
        .or_else(|| id.first().map(|id| format!("{id}")))
}

/// Whether a signature may be of this key; one that does not say whose it is may be of any.
fn is_issuer(signature: &Packet, key: &impl KeyDetails) -> bool {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    if fingerprints.is_empty() && ids.is_empty() {
        return true;
    }
    fingerprints
        .iter()
        .any(|fingerprint| **fingerprint == key.fingerprint())
        || ids.iter().any(|id| **id == key.legacy_key_id())
}

fn is_past(from: Timestamp, seconds: u32) -> bool {
    let end = u64::from(from.as_secs()) + u64::from(seconds);
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .is_ok_and(|now| now.as_secs() > end)
}

/// The newest signature by which the owner says what the primary key is for.
fn newest_self_signature(certificate: &SignedPublicKey) -> Option<&Packet> {
    let primary = &certificate.primary_key;
    let users = certificate.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && is_issuer(signature, primary)
                && signature
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        });
    users
        .chain(direct)
        .max_by_key(|signature| signature.created().map(Timestamp::as_secs))
}

/// Whether the primary key is its owner's, not revoked, and was not out of date at `when`.
fn primary_is_sound(
    certificate: &SignedPublicKey,
    when: Timestamp,
) -> std::result::Result<&Packet, String> {
    let primary = &certificate.primary_key;
    let id = primary.legacy_key_id();
    let revoked = certificate
        .details
        .revocation_signatures
        .iter()
        .any(|signature| signature.verify_key(primary).is_ok());
    if revoked {
        return Err(format!("key {id} is revoked"));
    }
    let own = newest_self_signature(certificate)
        .ok_or_else(|| format!("key {id} is not signed by its owner"))?;
    in_time(primary, own, when)?;
    Ok(own)
}

fn primary_may_sign(
    certificate: &SignedPublicKey,
    when: Timestamp,
) -> std::result::Result<(), String> {
    let own = primary_is_sound(certificate, when)?;
    let flags = own.key_flags();
    // Without any flags it is an old key, made when all could sign.
    let says_nothing = !flags.certify()
        && !flags.sign()
        && !flags.encrypt_comms()
        && !flags.encrypt_storage()
        && !flags.authentication();
    if flags.sign() || says_nothing {
        return Ok(());
    }
    Err(format!(
        "key {} is not meant for signing",
        certificate.primary_key.legacy_key_id()
    ))
}

fn subkey_may_sign(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    when: Timestamp,
) -> std::result::Result<(), String> {
    primary_is_sound(certificate, when)?;
    let primary = &certificate.primary_key;
    let id = subkey.key.legacy_key_id();
    let bound = |kind: SignatureType| {
        subkey.signatures.iter().filter(move |signature| {
            signature.typ() == Some(kind)
                && signature
                    .verify_subkey_binding(primary, &subkey.key)
                    .is_ok()
        })
    };
    if bound(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(format!("key {id} is revoked"));
    }
    let binding = bound(SignatureType::SubkeyBinding)
        .max_by_key(|signature| signature.created().map(Timestamp::as_secs))
        .ok_or_else(|| format!("key {id} is not bound to its certificate"))?;
    // Else anybody could claim another's key as one of his own.
    let agrees = binding.embedded_signature().is_some_and(|back| {
        back.verify_primary_key_binding(&subkey.key, primary)
            .is_ok()
    });
    if !binding.key_flags().sign() || !agrees {
        return Err(format!("key {id} is not meant for signing"));
    }
    in_time(&subkey.key, binding, when)
}

fn in_time(
    key: &impl KeyDetails,
    binding: &Packet,
    when: Timestamp,
) -> std::result::Result<(), String> {
    let created = u64::from(key.created_at().as_secs());
    let when = u64::from(when.as_secs());
    if when < created {
        return Err(format!(
            "it claims to be older than key {}",
            key.legacy_key_id()
        ));
    }
    match binding.key_expiration_time() {
        Some(lifetime)
            if lifetime.as_secs() > 0 && when > created + u64::from(lifetime.as_secs()) =>
        {
            Err(format!(
                "key {} had expired when it was made",
                key.legacy_key_id()
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_signed_counts() {
        let file = "before\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a comment\nline  \n- - dashed\n\n\
                    -----BEGIN PGP SIGNATURE-----\n\nabc=\n-----END PGP SIGNATURE-----\nbehind\n";
        let signed = signed_text(file).unwrap().unwrap();
        assert_eq!(signed.text, "# a comment\nline  \n- dashed\n\n");
        assert_eq!(signed.canonical(), b"# a comment\r\nline\r\n- dashed\r\n");
        assert_eq!(
            signed.signature,
            "-----BEGIN PGP SIGNATURE-----\n\nabc=\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(signed_text("plain\n").unwrap(), None);
        assert!(signed_text(&format!("{file}{file}")).is_err());
        assert!(signed_text(&file.replace("Hash: SHA256", "Comment: x")).is_err());
        assert!(signed_text(&file.replace("- - dashed", "-dashed")).is_err());
        assert!(signed_text(&file[..file.len() - 20]).is_err());
        assert!(signed_text("-----BEGIN PGP SIGNED MESSAGE-----").is_err());
    }
}

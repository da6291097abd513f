//! Public keys of SSH: a type, its bytes in base64, a comment; options may stand before them.

use crate::seed::base64;

/// Key types of OpenSSH.
const TYPES: [&str; 15] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed25519-cert-v01@openssh.com",
    "ssh-rsa-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
];

/// What is wrong with a line of authorized_keys(5), if anything.
pub fn complaint(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if line.contains("PRIVATE KEY") {
        return Some(
            "is a private key, which nobody else should see: the public one is in the file that ends with .pub",
        );
    }
    if line.contains('\n') {
        return Some("has more than one line: each key is an entry of its own");
    }
    let Some((kind, rest)) = key_type(line) else {
        return Some("is no public key of SSH: none begins like that");
    };
    let Some(encoded) = rest.split_whitespace().next() else {
        return Some("is a key's type without the key");
    };
    let Some(bytes) = base64::decode(encoded) else {
        return Some("is no public key of SSH: its middle is no base64");
    };
    // RFC 4253, 6.6: the type again, with its length before it.
    let named = bytes.split_at_checked(4).and_then(|(length, rest)| {
        let length = u32::from_be_bytes(length.try_into().ok()?);
        rest.get(..usize::try_from(length).ok()?)
    });
    match named {
        Some(name) if name == kind.as_bytes() && bytes.len() > kind.len() + 8 => None,
        Some(name) if name == kind.as_bytes() => Some("is cut off"),
        _ => Some("is no public key of SSH: its bytes are not those of its type"),
    }
}

/// The type, and what follows it; options with quoted spaces may precede it.
fn key_type(line: &str) -> Option<(&'static str, &str)> {
    let mut quoted = false;
    let mut start = 0;
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        if c == '"' {
            quoted = !quoted;
        }
        if !quoted && c.is_whitespace() {
            let word = line.get(start..at)?;
            if let Some(kind) = TYPES.iter().find(|kind| **kind == word) {
                return Some((kind, line.get(at..)?));
            }
            // Only one word of options, and then the type.
            if start > 0 {
                return None;
            }
            start = at + c.len_utf8();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1vZGVsS2V5TW9kZWxLZXlNb2RlbEtleU1vZGVsS2V5";

    #[test]
    fn keys_are_told_from_what_is_none() {
        assert_eq!(complaint(KEY), None);
        assert_eq!(complaint(&format!("{KEY} me@home")), None);
        assert_eq!(
            complaint(&format!("from=\"10.0.0.0/8\",command=\"echo hi\" {KEY} me")),
            None
        );
        for wrong in [
            "ssh-ed25519",
            "ssh-ed25519 me@home",
            "AAAAC3NzaC1lZDI1NTE5AAAAIE1v",
            "/home/me/.ssh/id_ed25519.pub",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            &KEY.replace("ssh-ed25519", "ssh-rsa"),
        ] {
            assert!(complaint(wrong).is_some(), "{wrong}");
        }
    }
}

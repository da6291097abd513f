//! Key pairs as OpenSSH sees them.

use std::process::Command;

use qimg::communicator::keys::{KeyPair, Kind};

use crate::servers::{mode, run};

#[test]
fn openssh_reads_the_keys_that_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let kinds = [
        (Kind::Ed25519, "256", "ED25519"),
        (Kind::Ecdsa(256), "256", "ECDSA"),
        (Kind::Ecdsa(384), "384", "ECDSA"),
        (Kind::Ecdsa(521), "521", "ECDSA"),
        (Kind::Rsa(2048), "2048", "RSA"),
    ];
    for (number, (kind, bits, name)) in kinds.into_iter().enumerate() {
        let pair = KeyPair::generate(kind, "qimg build").unwrap();
        let path = directory.path().join(number.to_string());
        pair.write(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let error = pair.write(&path).unwrap_err();
        assert_eq!(error.path().unwrap(), path, "nothing is written over");
        let public = run(Command::new("ssh-keygen").arg("-yf").arg(&path));
        let public = String::from_utf8(public.stdout).unwrap();
        assert_eq!(public.trim(), pair.public_line(), "{kind:?}");
        let listed = run(Command::new("ssh-keygen").arg("-lf").arg(&path));
        let listed = String::from_utf8(listed.stdout).unwrap();
        let expected = format!("{bits} {} qimg build ({name})\n", pair.fingerprint());
        assert_eq!(listed, expected);
    }
}

#[test]
fn two_keys_are_never_the_same() {
    let make = || KeyPair::generate(Kind::Ed25519, "").unwrap().public_line();
    assert_ne!(make(), make());
}

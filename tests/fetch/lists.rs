//! Lists of checksums as programs and distributions write them, and signatures that GnuPG makes.

use std::path::Path;

use qimg::ErrorKind;
use qimg::fetch::Signature;

use super::oracle_tools::{must, run};
use super::server::{Server, file, status};
use super::{Bench, noise, sha256};

const IMAGE: &str = "debian-12-generic.img";

/// A bench with an image of its own, beside a list of its checksums.
fn bench_with(list: impl AsRef<[u8]>) -> (Bench, Vec<u8>) {
    let bytes = noise(5000);
    let mut bench = Bench::of(format!("images/{IMAGE}"));
    bench.write(&format!("images/{IMAGE}"), &bytes);
    bench.write("images/LIST", list);
    bench.checksum = "file:images/LIST".into();
    (bench, bytes)
}

#[test]
fn lists_of_coreutils_and_others_are_read() {
    let (bench, bytes) = bench_with("");
    let images = bench.path("images");
    bench.write("images/two words\\and more", "x");
    let names = [IMAGE, "two words\\and more"];
    for tool in [
        "md5sum",
        "sha1sum",
        "sha224sum",
        "sha256sum",
        "sha384sum",
        "sha512sum",
    ] {
        for options in [&[][..], &["--binary"], &["--tag"]] {
            let list = must(&images, tool, &[options, &names].concat());
            bench.write("images/LIST", &list.stdout);
            let fetched = bench.fetch().unwrap();
            let expected = fetched.expected.unwrap();
            assert!(tool.starts_with(expected.kind().name()), "{tool}");
            assert_eq!(fetched.signature, Signature::Unsigned);
        }
    }
    for algorithm in ["-md5", "-sha256", "-sha512"] {
        let list = must(&images, "openssl", &["dgst", algorithm, IMAGE]);
        bench.write("images/LIST", &list.stdout);
        assert!(bench.fetch().unwrap().expected.is_some());
    }
    bench.write("images/LIST", sha256(&bytes).hex());
    assert!(bench.fetch().is_ok());
    bench.write(
        "images/LIST",
        format!("{}  ./{IMAGE}\n", sha256(b"other").hex()),
    );
    assert_eq!(bench.fetch().unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn lists_that_cannot_be_meant_are_refused_with_their_place() {
    let other = sha256(b"other").hex();
    let too_long = vec![b'a'; (16 << 20) + 1];
    let none = format!("{other}  other.img\n");
    let two = format!("{other}  a/{IMAGE}\n{}  b/{IMAGE}\n", sha256(b"more").hex());
    let cases: [(&[u8], &str); 5] = [
        (b"", "no checksum"),
        (b"\xff\xfe\x00", "no text"),
        (&too_long, "longer than"),
        (two.as_bytes(), "two checksums"),
        (none.as_bytes(), "no checksum of debian-12-generic.img"),
    ];
    for (list, part) in cases {
        let (mut bench, bytes) = bench_with(list);
        let error = bench.fetch().unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(part) && message.contains("LIST"),
            "{message}"
        );
        let served = list.to_vec();
        let server = Server::new(move |request, wire| match request.path.as_str() {
            "/LIST" => file(request, wire, &served, None),
            _ => file(request, wire, &bytes, None),
        });
        bench.checksum = format!("file:{}", server.url("LIST"));
        let error = bench.fetch().unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(part) && message.contains("LIST"),
            "{message}"
        );
    }
}

#[test]
fn a_list_lies_on_a_server_as_well() {
    let bytes = noise(5000);
    let list = format!("{}  pool/{IMAGE}\n", sha256(&bytes).hex());
    let served = bytes.clone();
    let server = Server::new(move |request, wire| match request.path.as_str() {
        "/x/SHA256SUMS" if request.number == 0 => status(wire, "502 Bad Gateway"),
        "/x/SHA256SUMS" => file(request, wire, list.as_bytes(), None),
        _ => file(request, wire, &served, None),
    });
    let mut bench = Bench::of(server.url(&format!("x/pool/{IMAGE}?mirror=1")));
    bench.checksum = format!("file:{}", server.url("x/SHA256SUMS"));
    let mut told = Vec::new();
    let fetched = bench.fetch_telling(&mut told).unwrap();
    assert_eq!(fetched.expected, Some(sha256(&bytes)));
    assert!(told[0].contains("502"), "{told:?}");
    bench.checksum = format!("file:{}", server.url("x/none")).replace("http", "HTTP");
    assert!(bench.fetch().is_err());
}

/// Keys of its own for one test.
struct Gpg<'a> {
    bench: &'a Bench,
}

impl<'a> Gpg<'a> {
    fn new(bench: &'a Bench) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let home = bench.path("gnupg");
        std::fs::create_dir(&home).unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { bench }
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let home = self.bench.path("gnupg");
        let mut all = vec![
            "--homedir",
            home.to_str().unwrap(),
            "--batch",
            "--yes",
            "--quiet",
        ];
        all.extend(["--pinentry-mode", "loopback", "--passphrase", ""]);
        all.extend(arguments);
        must(self.bench.directory.path(), "gpg", &all).stdout
    }

    fn key(&self, user: &str, kind: &str) {
        self.run(&["--quick-generate-key", user, kind, "sign", "never"]);
    }

    fn fingerprint(&self, user: &str) -> String {
        let listed = self.run(&["--with-colons", "--list-keys", user]);
        let listed = String::from_utf8(listed).unwrap();
        let line = listed
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    fn export(&self, user: &str, name: &str) {
        let armored = self.run(&["--armor", "--export", user]);
        self.bench.write(name, armored);
    }
}

impl Drop for Gpg<'_> {
    fn drop(&mut self) {
        let home = self.bench.path("gnupg");
        run(
            Path::new("/"),
            "gpgconf",
            &["--homedir", home.to_str().unwrap(), "--kill", "all"],
        );
    }
}

fn verified(fingerprint: &str, user: &str) -> Signature {
    Signature::Verified {
        fingerprint: fingerprint.to_owned(),
        user: Some(user.to_owned()),
    }
}

#[test]
fn a_clearsigned_list_counts_as_far_as_it_is_signed() {
    let (mut bench, bytes) = bench_with("");
    let (good, evil) = (sha256(&bytes).hex(), sha256(b"evil").hex());
    let list = format!("# comment\n- dash\nSHA256 ({IMAGE}) = {good}   \n\n");
    bench.write("images/PLAIN", &list);
    let gpg = Gpg::new(&bench);
    for (user, kind) in [
        ("rsa@example", "rsa2048"),
        ("ed@example", "ed25519"),
        ("nist@example", "nistp256"),
    ] {
        gpg.key(user, kind);
        gpg.run(&[
            "--local-user",
            user,
            "--output",
            "images/LIST",
            "--clearsign",
            "images/PLAIN",
        ]);
        gpg.export(user, "key.asc");
        let fingerprint = gpg.fingerprint(user);
        let signed = String::from_utf8(super::read(&bench.path("images/LIST"))).unwrap();
        let with_key = |list: &str, key: Option<&str>| {
            bench.write("images/LIST", list);
            let key = key.map(|key| bench.path(key));
            let request = qimg::fetch::Request {
                urls: &bench.urls,
                checksum: &bench.checksum,
                signature_key: key.as_deref(),
                target_path: None,
                directory: bench.directory.path(),
                named: bench.named,
            };
            qimg::fetch::fetch(&request, &bench.options, &|| false, &mut |_| {})
        };
        assert_eq!(
            with_key(&signed, None).unwrap().signature,
            Signature::Unverified
        );
        let fetched = with_key(&signed, Some("key.asc")).unwrap();
        assert_eq!(fetched.signature, verified(&fingerprint, user));
        // Line ends of another system change nothing that is signed.
        assert!(with_key(&signed.replace('\n', "\r\n"), Some("key.asc")).is_ok());
        // What stands outside is not signed, whether or not there is a key.
        let around = format!("{evil}  {IMAGE}\n{signed}\n{evil}  {IMAGE}\n");
        assert!(with_key(&around, Some("key.asc")).is_ok());
        assert!(with_key(&around, None).is_ok());
        let forged = signed.replace(&good, &evil);
        let error = with_key(&forged, Some("key.asc")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("does not hold"), "{error}");
        assert!(with_key(&signed.replace("- dash", "- dashes"), Some("key.asc")).is_err());
        assert!(
            with_key(&list, Some("key.asc"))
                .unwrap_err()
                .to_string()
                .contains("is not signed")
        );
    }
    // Of several keys in a file one suffices, and none of another one.
    let all = gpg.run(&["--export"]);
    bench.write("all.gpg", all);
    let armored = ["rsa@example", "ed@example", "nist@example"]
        .map(|user| gpg.run(&["--armor", "--export", user]));
    bench.write("all.asc", armored.concat());
    gpg.export("ed@example", "other.asc");
    gpg.run(&[
        "--local-user",
        "rsa@example",
        "--output",
        "images/LIST",
        "--clearsign",
        "images/PLAIN",
    ]);
    let mut results = Vec::new();
    for key in ["all.gpg", "all.asc", "other.asc", "images/PLAIN"] {
        let key = bench.path(key);
        let request = qimg::fetch::Request {
            urls: &bench.urls,
            checksum: &bench.checksum,
            signature_key: Some(&key),
            target_path: None,
            directory: bench.directory.path(),
            named: bench.named,
        };
        results.push(qimg::fetch::fetch(
            &request,
            &bench.options,
            &|| false,
            &mut |_| {},
        ));
    }
    assert!(results[0].is_ok() && results[1].is_ok(), "{results:?}");
    assert!(
        results[2]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("not among them")
    );
    assert!(
        results[3]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("no public key")
    );
    drop(gpg);
    bench.key = Some(bench.path("other.asc"));
    bench.checksum = sha256(&bytes).to_string();
    assert!(
        bench
            .fetch()
            .unwrap_err()
            .to_string()
            .contains("no file of checksums")
    );
}

#[test]
fn a_signature_beside_the_list_is_found_under_the_usual_names() {
    let (mut bench, bytes) = bench_with("");
    let list = format!("{}  {IMAGE}\n", sha256(&bytes).hex());
    bench.write("images/LIST", &list);
    let gpg = Gpg::new(&bench);
    gpg.key("who@example", "ed25519");
    gpg.export("who@example", "key.asc");
    let fingerprint = gpg.fingerprint("who@example");
    let armored = gpg.run(&["--armor", "--detach-sign", "--output", "-", "images/LIST"]);
    let binary = gpg.run(&["--detach-sign", "--output", "-", "images/LIST"]);
    let weak = gpg.run(&[
        "--digest-algo",
        "SHA1",
        "--detach-sign",
        "--output",
        "-",
        "images/LIST",
    ]);
    gpg.run(&[
        "--quick-generate-key",
        "sub@example",
        "ed25519",
        "cert",
        "never",
    ]);
    let primary = gpg.fingerprint("sub@example");
    gpg.run(&["--quick-add-key", &primary, "rsa2048", "sign", "never"]);
    let by_subkey = gpg.run(&[
        "--local-user",
        "sub@example",
        "--detach-sign",
        "--output",
        "-",
        "images/LIST",
    ]);
    gpg.export("sub@example", "sub.asc");
    // Not even its owner says what this key is for.
    gpg.run(&[
        "--faked-system-time",
        "20200101T000000!",
        "--quick-generate-key",
        "old@example",
        "ed25519",
        "sign",
        "1d",
    ]);
    let late = run(bench.directory.path(), "true", &[]);
    assert!(late.status.success());
    let in_time = gpg.run(&[
        "--faked-system-time",
        "20200101T010000!",
        "--local-user",
        "old@example",
        "--detach-sign",
        "--output",
        "-",
        "images/LIST",
    ]);
    gpg.export("old@example", "old.asc");
    drop(gpg);
    bench.key = Some(bench.path("key.asc"));
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("is not signed"), "{error}");
    for (name, signature) in [
        ("LIST.sign", &armored),
        ("LIST.gpg", &binary),
        ("LIST.asc", &armored),
        ("LIST.sig", &binary),
    ] {
        let path = bench.write(&format!("images/{name}"), signature);
        assert_eq!(
            bench.fetch().unwrap().signature,
            verified(&fingerprint, "who@example")
        );
        std::fs::remove_file(path).unwrap();
    }
    bench.write("images/LIST.sign", &weak);
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("forged"), "{error}");
    bench.write("images/LIST.sign", b"nonsense");
    assert!(bench.fetch().is_err());
    bench.write("images/LIST.sign", &by_subkey);
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("not among them"), "{error}");
    bench.key = Some(bench.path("sub.asc"));
    assert_eq!(
        bench.fetch().unwrap().signature,
        verified(&primary, "sub@example")
    );
    bench.write("images/LIST", format!("{list}# more\n"));
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("not what key"), "{error}");
    bench.write("images/LIST", &list);
    // A key that is out of date by now was not then.
    bench.write("images/LIST.sign", &in_time);
    bench.key = Some(bench.path("old.asc"));
    assert!(bench.fetch().is_ok());

    let served = list.into_bytes();
    let image = bytes.clone();
    let server = Server::new(move |request, wire| match request.path.as_str() {
        "/x/SHA256SUMS" => file(request, wire, &served, None),
        "/x/SHA256SUMS.sign" => file(request, wire, &armored, None),
        path if path.ends_with(".img") => file(request, wire, &image, None),
        _ => status(wire, "404 Not Found"),
    });
    bench.urls = vec![server.url(&format!("x/{IMAGE}"))];
    bench.checksum = format!("file:{}", server.url("x/SHA256SUMS"));
    bench.key = Some(bench.path("key.asc"));
    assert_eq!(
        bench.fetch().unwrap().signature,
        verified(&fingerprint, "who@example")
    );
}

#[test]
fn a_revoked_key_signs_nothing() {
    let (mut bench, bytes) = bench_with("");
    bench.write(
        "images/LIST",
        format!("{}  {IMAGE}\n", sha256(&bytes).hex()),
    );
    let gpg = Gpg::new(&bench);
    gpg.key("gone@example", "ed25519");
    let fingerprint = gpg.fingerprint("gone@example");
    gpg.run(&[
        "--detach-sign",
        "--output",
        "images/LIST.gpg",
        "images/LIST",
    ]);
    gpg.export("gone@example", "key.asc");
    let certificate = bench.path(&format!("gnupg/openpgp-revocs.d/{fingerprint}.rev"));
    let text = std::fs::read_to_string(certificate).unwrap();
    // It comes with a colon in front, so that nobody uses it by mistake.
    bench.write("revoke.asc", text.replace(":-----BEGIN", "-----BEGIN"));
    gpg.run(&["--import", "revoke.asc"]);
    gpg.export("gone@example", "revoked.asc");
    drop(gpg);
    bench.key = Some(bench.path("key.asc"));
    assert!(bench.fetch().is_ok());
    bench.key = Some(bench.path("revoked.asc"));
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("is revoked"), "{error}");
}

//! Exoscale as its guests see it: the product's name, metadata at 169.254.169.254, and the password service on port 8080.
//!
//! Knows the paths that cloud-init's datasource Exoscale asks for. QEMU's user network hands each connection to a shell
//! script, which has nothing but the files of one directory to answer with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::communicator::quote::word;
use crate::error::{Error, Result};
use crate::seed::{Part, join_parts};
use crate::store::{make_private_directory, remove_tree, write_file};

/// Arguments by which the guest knows where it is.
pub(super) const PRODUCT: [&str; 2] = [
    "-smbios",
    "type=1,manufacturer=Exoscale,product=Exoscale Compute Platform",
];

/// What the guest is told.
pub(super) struct Told<'a> {
    pub(super) instance: &'a str,
    pub(super) public_key: &'a str,
    pub(super) user_data: &'a [Part],
    pub(super) password: Option<&'a str>,
}

/// The services of one machine.
#[derive(Debug)]
pub(super) struct Service {
    directory: PathBuf,
}

/// Answers one request; `$1` is `metadata` or `password`.
const SCRIPT: &str = r#"
cr=$(printf '\r')
IFS=' ' read -r method path rest || exit 0
asked=
while IFS= read -r line; do
    line=${line%"$cr"}
    [ -n "$line" ] || break
    case $line in
    [Dd]om[Uu]_[Rr]equest:*) asked=${line#*:} ;;
    esac
done
answer() { printf 'HTTP/1.0 %s\r\nContent-Type: text/plain\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' "$1" "$2"; }
give() { answer '200 OK' "$(wc -c <"$1" | tr -d ' ')"; cat "$1"; }
if [ "$1" = password ]; then
    case $asked in
    *send_my_password*) if [ -f password ] && [ ! -f saved ]; then give password; else give saved_password; fi ;;
    *saved_password*) : >saved; give saved_password ;;
    *) answer '400 Bad Request' 0 ;;
    esac
    exit 0
fi
path=${path%%\?*}
path=${path%/}
case $path in
"") give versions ;;
/1.0 | /latest) give top ;;
/1.0/user-data | /latest/user-data) give user-data ;;
/1.0/meta-data | /latest/meta-data) give meta-data ;;
/1.0/meta-data/* | /latest/meta-data/*)
    name=${path##*/meta-data/}
    case $name in
    *[!a-z0-9/-]*) answer '404 Not Found' 0 ;;
    *)
        file=meta.$(printf '%s' "$name" | tr / .)
        if [ -f "$file" ]; then give "$file"; else answer '404 Not Found' 0; fi
        ;;
    esac
    ;;
*) answer '404 Not Found' 0 ;;
esac
"#;

impl Service {
    /// Writes what the services answer with, below `directory`.
    pub(super) fn make(directory: &Path, told: &Told<'_>) -> Result<Self> {
        let own = directory.join("metadata");
        remove_tree(&own)?;
        make_private_directory(&own)?;
        let file = |name: &str, bytes: &[u8]| write_file(own.join(name), bytes);
        let values = [
            ("instance-id", told.instance),
            ("local-hostname", "qimg-test"),
            ("public-hostname", "qimg-test"),
            ("local-ipv4", "169.254.0.15"),
            ("public-ipv4", "169.254.0.15"),
            ("availability-zone", "test"),
            ("service-offering", "test"),
            ("vm-id", told.instance),
        ];
        let mut names = String::new();
        for (name, value) in values {
            let _ = writeln!(names, "{name}");
            file(&format!("meta.{name}"), value.as_bytes())?;
        }
        names.push_str("public-keys\n");
        file("meta-data", names.as_bytes())?;
        file(
            "meta.public-keys",
            format!("{}\n", told.public_key).as_bytes(),
        )?;
        file("versions", b"1.0\nlatest\n")?;
        file("top", b"meta-data\nuser-data\n")?;
        file("user-data", &join_parts(told.user_data)?)?;
        file("saved_password", b"saved_password")?;
        if let Some(password) = told.password {
            file("password", password.as_bytes())?;
        }
        let start = format!("cd {} || exit 1\n", word(&text_of(&own)?));
        file("serve.sh", format!("{start}{SCRIPT}").as_bytes())?;
        Ok(Self { directory: own })
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The value of `-netdev`: the services are in the guest's own network, or it would send what is meant for them away.
    pub(super) fn network(&self) -> Result<String> {
        let script = text_of(&self.directory.join("serve.sh"))?;
        // Words as a shell has them, in a value of QEMU's.
        let script = word(&script).replace(',', ",,");
        let forward = |port: u16, what: &str| {
            format!("guestfwd=tcp:169.254.169.254:{port}-cmd:/bin/sh {script} {what}")
        };
        Ok(format!(
            "user,id=user.0,net=169.254.0.0/16,dhcpstart=169.254.0.15,hostfwd=tcp:127.0.0.1:0-:22,{},{}",
            forward(80, "metadata"),
            forward(8080, "password")
        ))
    }
}

fn text_of(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Error::usage("has a name that is not UTF-8, which QEMU cannot be told").at_path(path)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn ask(script: &Path, what: &str, request: &str) -> String {
        let mut child = Command::new("/bin/sh")
            .arg(script)
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(request.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn each_path_of_the_datasource_is_answered_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let part = Part {
            name: "x".to_owned(),
            bytes: b"#cloud-config\n".to_vec(),
        };
        let told = Told {
            instance: "i-1",
            public_key: "ssh-ed25519 AAAA me",
            user_data: &[part],
            password: Some("s3cret"),
        };
        let service = Service::make(directory.path(), &told).unwrap();
        let script = service.directory().join("serve.sh");
        let path = |path: &str| {
            ask(
                &script,
                "metadata",
                &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
            )
        };
        assert!(path("/1.0/meta-data/instance-id").ends_with("\r\n\r\ni-1"));
        assert!(
            path("/1.0/meta-data/").contains("\ninstance-id\nlocal-hostname\n")
                || path("/1.0/meta-data/").contains("instance-id\nlocal-hostname\n")
        );
        assert!(path("/1.0/meta-data/public-keys").ends_with("ssh-ed25519 AAAA me\n"));
        assert!(path("/1.0/user-data").ends_with("#cloud-config\n"));
        for wrong in [
            "/1.0/meta-data/../serve.sh",
            "/etc/passwd",
            "/1.0/meta-data/x;ls",
            "/1.0/meta-data/none",
        ] {
            assert!(path(wrong).starts_with("HTTP/1.0 404"), "{wrong}");
        }
        let password = |what: &str| {
            ask(
                &script,
                "password",
                &format!("GET / HTTP/1.1\r\nDomU_Request: {what}\r\n\r\n"),
            )
        };
        assert!(password("send_my_password").ends_with("\r\n\r\ns3cret"));
        assert!(password("saved_password").ends_with("saved_password"));
        assert!(password("send_my_password").ends_with("\r\n\r\nsaved_password"));
        assert!(
            service
                .network()
                .unwrap()
                .contains("guestfwd=tcp:169.254.169.254:80-cmd:/bin/sh ")
        );
    }
}

//! Proofs that real servers take: keys of every kind and form, certificates, the agent, a bastion.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use qimg::ErrorKind;
use qimg::communicator::keys::{KeyPair, Kind};
use qimg::communicator::ssh::{Destination, Key, Limits, Notice, Options, Transfer};
use qimg::communicator::wait::{Outcome, State};
use qimg::communicator::{Communicator, Exit};
use qimg::template::model;

use crate::servers::{
    Sshd, connect, connect_noting, fail, keygen, output, run, user, wait, within,
};

const ONCE: Limits = Limits {
    timeout: Some(std::time::Duration::from_secs(30)),
    attempts: Some(1),
};

/// An agent of our own.
pub struct Agent {
    child: Child,
    directory: tempfile::TempDir,
}

impl Agent {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..100 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { child, directory }
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("agent")
    }

    pub fn add(&self, key: &Path) {
        run(Command::new("ssh-add")
            .env("SSH_AUTH_SOCK", self.socket())
            .arg(key));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn keys_of_all_kinds_and_forms_open_the_guest() {
    let sshd = Sshd::start("");
    let mut kinds: Vec<Vec<&str>> = vec![
        vec!["-t", "ed25519"],
        vec!["-t", "ecdsa", "-b", "256"],
        vec!["-t", "ecdsa", "-b", "384"],
        vec!["-t", "ecdsa", "-b", "521"],
        vec!["-t", "rsa", "-b", "2048"],
    ];
    for form in ["PEM", "PKCS8"] {
        kinds.push(vec!["-t", "ecdsa", "-b", "256", "-m", form]);
        kinds.push(vec!["-t", "rsa", "-b", "2048", "-m", form]);
    }
    for (number, kind) in kinds.iter().enumerate() {
        let path = sshd.at(&format!("key{number}"));
        let mut arguments = kind.clone();
        arguments.push("-f");
        keygen(&arguments, &path, "");
        fs::copy(path.with_extension("pub"), sshd.at("authorized")).unwrap();
        let mut options = sshd.options();
        options.guest.credentials.keys = vec![Key::read(&path, None).unwrap()];
        let ssh = connect(options);
        wait(&ssh);
        assert_eq!(output(&ssh, "echo in").1, ["in"], "{kind:?}");
    }
}

#[test]
fn keys_that_were_made_open_the_guest() {
    let sshd = Sshd::start("");
    for kind in [
        Kind::Ed25519,
        Kind::Ecdsa(256),
        Kind::Ecdsa(384),
        Kind::Ecdsa(521),
    ] {
        let pair = KeyPair::generate(kind, "made").unwrap();
        fs::write(sshd.at("authorized"), pair.public_line()).unwrap();
        let mut options = sshd.options();
        options.guest.credentials.keys = vec![Key::from(&pair)];
        let ssh = connect(options);
        wait(&ssh);
        assert_eq!(output(&ssh, "true").0, Exit::Code(0), "{kind:?}");
    }
}

#[test]
fn an_encrypted_key_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    for form in ["RFC4716", "PEM", "PKCS8"] {
        let path = directory.path().join(form);
        keygen(
            &["-t", "rsa", "-b", "2048", "-m", form, "-f"],
            &path,
            "secret",
        );
        let error = Key::read(&path, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{form}: {error}");
        assert!(error.to_string().contains("encrypted"), "{form}: {error}");
        assert!(error.remedy().unwrap().contains("ssh-agent"));
        assert_eq!(error.path().unwrap(), path);
    }
    let public = directory.path().join("PEM.pub");
    let error = Key::read(&public, None).unwrap_err();
    assert!(error.to_string().contains("no private key"), "{error}");
}

#[test]
fn certificates_open_the_guest_also_those_of_rsa_keys() {
    let ca = tempfile::tempdir().unwrap();
    let ca_key = ca.path().join("ca");
    keygen(&["-t", "ed25519", "-f"], &ca_key, "");
    let lines = format!(
        "TrustedUserCAKeys {}",
        ca_key.with_extension("pub").display()
    );
    let sshd = Sshd::start(&lines);
    fs::write(sshd.at("authorized"), "").unwrap();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = sshd.at(kind);
        keygen(&["-t", kind, "-f"], &path, "");
        run(Command::new("ssh-keygen")
            .arg("-qs")
            .arg(&ca_key)
            .args(["-I", "tester", "-n", &user()])
            .arg(path.with_extension("pub")));
        let certificate = sshd.at(&format!("{kind}-cert.pub"));
        let mut options = sshd.options();
        options.guest.credentials.keys = vec![Key::read(&path, Some(&certificate)).unwrap()];
        let ssh = connect(options);
        wait(&ssh);
        assert_eq!(output(&ssh, "true").0, Exit::Code(0), "{kind}");
    }
    let error = Key::read(&sshd.at("rsa"), Some(&sshd.at("ecdsa-cert.pub"))).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
}

#[test]
fn the_agent_is_asked_only_where_it_is_wanted() {
    let sshd = Sshd::start("");
    let agent = Agent::start();
    let other = sshd.at("other");
    keygen(&["-t", "ecdsa", "-f"], &other, "");
    let rsa = sshd.at("rsa");
    keygen(&["-t", "rsa", "-b", "2048", "-f"], &rsa, "");
    agent.add(&other);
    agent.add(&rsa);
    fs::copy(rsa.with_extension("pub"), sshd.at("authorized")).unwrap();

    let mut options = sshd.options();
    options.guest.credentials.keys.clear();
    let (_, report) = fail(&connect(options.clone()), &ONCE);
    assert!(report.cause().contains("no key or password"), "{report}");

    options.guest.credentials.agent = Some(agent.socket());
    let ssh = connect(options.clone());
    wait(&ssh);
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));

    options.guest.credentials.agent = Some(sshd.at("nowhere"));
    let (_, report) = fail(&connect(options), &ONCE);
    assert!(report.cause().contains("the agent"), "{report}");
}

#[test]
fn a_refused_key_is_told_with_all_that_was_tried() {
    let sshd = Sshd::start("Banner none");
    let mut options = sshd.options();
    let pair = KeyPair::generate(Kind::Ed25519, "x").unwrap();
    options.guest.credentials.keys = vec![Key::from(&pair)];
    options.guest.credentials.password = Some("hunter2".to_owned());
    let (error, report) = fail(&connect(options), &ONCE);
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("refused once"), "{error}");
    let Some(State::Refused {
        tried,
        offered,
        username,
        ..
    }) = report.last()
    else {
        panic!("{report:?}");
    };
    assert_eq!(*username, user());
    assert_eq!(*offered, ["publickey"]);
    assert!(tried[0].key.as_ref().unwrap().contains(&pair.fingerprint()));
    assert_eq!(tried[0].outcome, Outcome::Refused);
    assert!(
        tried[1..]
            .iter()
            .all(|tried| tried.outcome == Outcome::NotAsked),
        "{tried:?}"
    );
    assert!(
        report.cause().starts_with("publickey refused for"),
        "{report}"
    );
    assert!(!format!("{error:?} {report:?}").contains("hunter2"));
}

#[test]
fn a_pinned_host_key_lets_only_that_machine_answer() {
    let sshd = Sshd::start("");
    let host = fs::read_to_string(sshd.at("host.pub")).unwrap();
    let mut options = sshd.options();
    options.host_keys = vec![host];
    wait(&connect(options.clone()));

    let other = KeyPair::generate(Kind::Ed25519, "other").unwrap();
    options.host_keys = vec![other.public_line()];
    let (_, report) = fail(&connect(options), &within(2));
    let Some(State::HostKeyDiffers { expected, shown }) = report.last() else {
        panic!("{report:?}");
    };
    assert_eq!(*expected, [other.public_line()]);
    assert!(shown.starts_with("ssh-ed25519 "));
    assert!(report.cause().contains("another machine"), "{report}");
}

#[test]
fn a_host_key_that_changes_is_told_where_none_is_pinned() {
    let sshd = Sshd::start("");
    let (ssh, notices) = connect_noting(sshd.options());
    wait(&ssh);
    let before = ssh.host_key().unwrap();
    ssh.disconnect();
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    assert!(notices.lock().unwrap().is_empty());

    ssh.disconnect();
    fs::remove_file(sshd.at("host")).unwrap();
    keygen(&["-t", "rsa", "-b", "2048", "-f"], &sshd.at("host"), "");
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    let notices = notices.lock().unwrap();
    let [Notice::HostKeyChanged { before: was, now }] = &notices[..] else {
        panic!("{notices:?}");
    };
    assert_eq!(*was, before);
    assert!(now.starts_with("ssh-rsa "));
}

#[test]
fn the_way_may_lead_through_a_bastion() {
    let bastion = Sshd::start("");
    let sshd = Sshd::start("");
    let mut options = sshd.options();
    options.bastion = Some(bastion.options().guest);
    let ssh = connect(options.clone());
    wait(&ssh);
    assert_eq!(output(&ssh, "echo $SSH_CONNECTION").0, Exit::Code(0));
    assert!(bastion.log().contains("direct-tcpip"), "{}", bastion.log());
    let bytes = crate::servers::noise(1_000_000);
    let to = sshd.at("sent");
    ssh.upload(
        &mut &bytes[..],
        bytes.len() as u64,
        to.to_str().unwrap(),
        0o600,
    )
    .unwrap();
    assert_eq!(fs::read(&to).unwrap(), bytes);

    // Its own proofs are its own.
    let pair = KeyPair::generate(Kind::Ed25519, "x").unwrap();
    options.bastion = Some(Destination {
        credentials: qimg::communicator::ssh::Credentials {
            keys: vec![Key::from(&pair)],
            ..Default::default()
        },
        ..bastion.options().guest
    });
    let (_, report) = fail(&connect(options.clone()), &ONCE);
    assert!(
        report.cause().starts_with("the bastion: publickey refused"),
        "{report}"
    );

    // What it cannot reach is told as such.
    options.bastion = Some(bastion.options().guest);
    options.guest.port = 1;
    let (_, report) = fail(&connect(options), &within(2));
    assert_eq!(report.last(), Some(&State::NotListening), "{report:?}");
}

#[test]
fn ciphers_and_key_exchanges_can_be_limited() {
    let sshd = Sshd::start(
        "Ciphers aes128-ctr,chacha20-poly1305@openssh.com\nKexAlgorithms ecdh-sha2-nistp256",
    );
    let mut options = sshd.options();
    options.ciphers = vec!["aes128-ctr".to_owned()];
    options.key_exchanges = vec!["ecdh-sha2-nistp256".to_owned()];
    wait(&connect(options.clone()));
    assert!(sshd.log().contains("aes128-ctr"), "{}", sshd.log());

    options.ciphers = vec!["aes256-gcm@openssh.com".to_owned()];
    let (_, report) = fail(&connect(options.clone()), &within(2));
    let cause = report.cause();
    assert!(cause.contains("no cipher in common"), "{cause}");
    assert!(cause.contains("chacha20-poly1305@openssh.com"), "{cause}");

    options.ciphers.clear();
    options.key_exchanges = vec!["curve25519-sha256".to_owned()];
    let (_, report) = fail(&connect(options), &within(2));
    assert!(
        report
            .cause()
            .contains("no key exchange algorithm in common"),
        "{report}"
    );
}

#[test]
fn every_cipher_and_key_exchange_that_is_offered_works() {
    let sshd = Sshd::start("");
    let list = |what: &str| {
        let output = run(Command::new("ssh").args(["-Q", what]));
        String::from_utf8(output.stdout).unwrap()
    };
    let (ciphers, kexes) = (list("cipher"), list("kex"));
    let mut options = sshd.options();
    let mut tried = 0;
    for cipher in ciphers.lines() {
        options.ciphers = vec![cipher.to_owned()];
        if options.check().is_ok() && !cipher.contains("cbc") {
            let ssh = connect(options.clone());
            wait(&ssh);
            assert_eq!(output(&ssh, "echo x").1, ["x"], "{cipher}");
            tried += 1;
        }
    }
    options.ciphers.clear();
    for kex in kexes.lines().filter(|kex| !kex.contains("sha1")) {
        options.key_exchanges = vec![kex.to_owned()];
        if options.check().is_ok() {
            let ssh = connect(options.clone());
            wait(&ssh);
            assert_eq!(output(&ssh, "echo x").1, ["x"], "{kex}");
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

fn template() -> model::Ssh {
    model::Ssh {
        host: None,
        port: 22,
        username: user(),
        password: None,
        private_key: None,
        certificate: None,
        agent: false,
        forward_agent: false,
        timeout: None,
        attempts: None,
        pty: false,
        keep_alive: None,
        transfer: Transfer::Sftp,
        bastion: None,
        pause_before_connecting: None,
        clear_authorized_keys: false,
        temporary_key: None,
        ciphers: Vec::new(),
        key_exchanges: Vec::new(),
    }
}

#[test]
fn a_template_says_all_that_is_needed() {
    let sshd = Sshd::start("");
    let port = sshd.listener.port;
    let mut ssh = template();
    ssh.private_key = Some(sshd.at("user"));
    ssh.bastion = Some(model::Bastion {
        host: "127.0.0.1".to_owned(),
        port,
        username: user(),
        password: None,
        private_key: None,
        certificate: None,
        agent: false,
    });
    let options = Options::from_template(&ssh, "127.0.0.1", port, None, None).unwrap();
    let guest = connect(options);
    wait(&guest);
    assert_eq!(output(&guest, "true").0, Exit::Code(0));

    ssh.agent = true;
    let error = Options::from_template(&ssh, "127.0.0.1", port, None, None).unwrap_err();
    assert!(error.remedy().unwrap().contains("SSH_AUTH_SOCK"), "{error}");
    ssh.agent = false;
    ssh.private_key = Some(sshd.at("nowhere"));
    let error = Options::from_template(&ssh, "127.0.0.1", port, None, None).unwrap_err();
    assert_eq!(error.path().unwrap(), sshd.at("nowhere"));
    ssh.private_key = None;
    ssh.bastion = None;
    ssh.ciphers = vec!["rot13".to_owned()];
    let error = Options::from_template(&ssh, "127.0.0.1", port, None, None).unwrap_err();
    assert!(error.to_string().contains("rot13"), "{error}");
}

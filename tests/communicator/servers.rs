//! Servers to log in to. Each connection gets a server process of its own (`sshd -i`, `dropbear -i`), so that no
//! port has to be guessed and nothing listens that is not ours.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use qimg::communicator::ssh::{Key, Limits, Notice, Options, Ssh};
use qimg::communicator::{Communicator, Exit, Stop, Stream};
use tempfile::TempDir;

/// A listener that hands every connection to `serve` on a thread of its own.
pub struct Listener {
    pub port: u16,
    pub accepted: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU32::new(0));
        let thread = {
            let (ended, accepted) = (Arc::clone(&ended), Arc::clone(&accepted));
            let serve = Arc::new(serve);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        break;
                    }
                    accepted.fetch_add(1, Ordering::AcqRel);
                    let serve = Arc::clone(&serve);
                    std::thread::spawn(move || serve(stream.unwrap()));
                }
            })
        };
        Self {
            port,
            accepted,
            ended,
            thread: Some(thread),
        }
    }

    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Gives a connection to a server process and waits for that.
fn serve_by(command: &mut Command, connection: TcpStream) {
    let input = OwnedFd::from(connection.try_clone().unwrap());
    let mut child = command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(connection)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // The connection belongs to the server alone: when that ends, so does it.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    child.wait().unwrap();
}

/// OpenSSH's server.
pub struct Sshd {
    pub directory: TempDir,
    pub listener: Listener,
}

impl Sshd {
    /// With a user key in place, and these further lines of configuration.
    pub fn start(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        keygen(&["-t", "ed25519", "-f"], &at("host"), "");
        keygen(&["-t", "ed25519", "-f"], &at("user"), "");
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        let here = directory.path().display();
        let text = format!(
            "{lines}\nHostKey {here}/host\nAuthorizedKeysFile {here}/authorized\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             KbdInteractiveAuthentication no\nUseDNS no\nPrintMotd no\nLogLevel DEBUG1\n\
             Subsystem sftp internal-sftp\n"
        );
        fs::write(at("config"), text).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let (config, log) = (at("config"), at("log"));
        let listener = Listener::start(move |stream| {
            let mut sshd = Command::new("/usr/sbin/sshd");
            sshd.arg("-i").arg("-f").arg(&config).arg("-E").arg(&log);
            serve_by(&mut sshd, stream);
        });
        Self {
            directory,
            listener,
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Options that will do to log in.
    pub fn options(&self) -> Options {
        let mut options = Options::new("127.0.0.1", self.listener.port, &user());
        options.guest.credentials.keys = vec![Key::read(&self.at("user"), None).unwrap()];
        options
    }

    pub fn ssh(&self) -> Ssh {
        connect(self.options())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }
}

/// Dropbear, which has neither scp nor sftp of its own. Its only user is `tester`, who lives in `directory`.
pub struct Dropbear {
    pub directory: TempDir,
    pub listener: Listener,
}

/// The password of dropbear's user, and what of it stands in a list of users.
pub const PASSWORD: &str = "correct horse";
const HASH: &str = "$6$qimgtest$UnjiEK9y/8BXJgNt8cHtf71iLSPQXskkcxaVQ58mMvi7iJSUIM8Cu2QDdVFrt2049WpxNEn1P/u5GKkpfMMpP1";

impl Dropbear {
    /// Lets in whoever has the key of `sshd`, or the password.
    pub fn start(sshd: &Sshd) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        run(Command::new("dropbearkey")
            .args(["-t", "ed25519", "-f"])
            .arg(at("host")));
        fs::create_dir(at(".ssh")).unwrap();
        fs::copy(sshd.at("authorized"), at(".ssh/authorized_keys")).unwrap();
        for (name, mode) in [(".ssh", 0o700), (".ssh/authorized_keys", 0o600)] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let home = directory.path().display();
        let line = format!("tester:{HASH}:{uid}:{gid}:tester:{home}:/bin/sh\n");
        fs::write(at("passwd"), line).unwrap();
        fs::write(at("group"), format!("tester:x:{gid}:\n")).unwrap();
        let (host, passwd, group) = (at("host"), at("passwd"), at("group"));
        let listener = Listener::start(move |stream| {
            let mut dropbear = Command::new("/usr/sbin/dropbear");
            dropbear.args(["-i", "-r"]).arg(&host);
            dropbear.env("LD_PRELOAD", "libnss_wrapper.so");
            dropbear.env("NSS_WRAPPER_PASSWD", &passwd);
            dropbear.env("NSS_WRAPPER_GROUP", &group);
            serve_by(&mut dropbear, stream);
        });
        Self {
            directory,
            listener,
        }
    }

    /// Options that will do to log in, by the key of `sshd`.
    pub fn options(&self, sshd: &Sshd) -> Options {
        let mut options = sshd.options();
        options.guest.port = self.listener.port;
        options.guest.username = "tester".to_owned();
        options
    }
}

pub fn keygen(arguments: &[&str], path: &Path, passphrase: &str) {
    run(Command::new("ssh-keygen")
        .arg("-q")
        .args(["-N", passphrase])
        .args(arguments)
        .arg(path));
}

pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

pub fn user() -> String {
    let output = run(Command::new("id").arg("-un"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn never() -> Arc<Stop> {
    Arc::new(|| false)
}

pub fn connect(options: Options) -> Ssh {
    Ssh::new(options, never(), None).unwrap()
}

/// With the notices it gives.
pub fn connect_noting(options: Options) -> (Ssh, Arc<std::sync::Mutex<Vec<Notice>>>) {
    let notices = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&notices);
    let note = move |notice: &Notice| kept.lock().unwrap().push(notice.clone());
    (
        Ssh::new(options, never(), Some(Arc::new(note))).unwrap(),
        notices,
    )
}

/// Runs a command; its exit, standard output and standard error.
pub fn output(guest: &dyn Communicator, command: &str) -> (Exit, Vec<String>, Vec<String>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = guest
        .run(command, None, &mut |stream, line| match stream {
            Stream::Out => out.push(line.to_owned()),
            Stream::Err => err.push(line.to_owned()),
        })
        .unwrap();
    (exit, out, err)
}

pub fn within(seconds: u64) -> Limits {
    Limits {
        timeout: Some(Duration::from_secs(seconds)),
        attempts: None,
    }
}

/// Waits for a login that has to come.
pub fn wait(ssh: &Ssh) -> qimg::communicator::wait::Report {
    let limits = Limits {
        attempts: Some(1),
        ..within(30)
    };
    ssh.wait(&limits, &|| false, &mut |_| ()).unwrap()
}

/// Waits for a login that must not come; the error and what was seen.
pub fn fail(ssh: &Ssh, limits: &Limits) -> (qimg::Error, qimg::communicator::wait::Report) {
    let error = ssh.wait(limits, &|| false, &mut |_| ()).unwrap_err();
    let report = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<qimg::communicator::wait::Report>())
        .unwrap_or_else(|| panic!("{error:?}"))
        .clone();
    (error, report)
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Bytes that repeat nowhere soon.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect()
}

/// Fails after some bytes.
pub struct Ends(pub usize);

impl io::Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.min(buffer.len());
        self.0 -= length;
        buffer[..length].fill(b'x');
        Ok(length)
    }
}

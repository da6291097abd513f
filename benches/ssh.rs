//! Files sent to and fetched from a real sshd on loopback, beside OpenSSH's own `scp` and `sftp`.
//!
//! `--test` moves little and compares nothing.

#[path = "../tests/communicator/servers.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod servers;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use qimg::communicator::Communicator;
use qimg::communicator::ssh::{Options, Transfer};
use servers::{Sshd, connect, noise, run, wait};

const RUNS: usize = 3;

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let length = if test { 2_000_000 } else { 200_000_000 };
    let sshd = Sshd::start("");
    let bytes = noise(length);
    let source = sshd.at("source");
    std::fs::write(&source, &bytes).unwrap();
    let target = sshd.at("target");
    let path = target.to_str().unwrap();

    let mut lines = Vec::new();
    let mut note = |name: &str, job: &mut dyn FnMut()| {
        let mut times: Vec<Duration> = (0..if test { 1 } else { RUNS })
            .map(|_| {
                let _ = std::fs::remove_file(&target);
                let started = Instant::now();
                job();
                started.elapsed()
            })
            .collect();
        times.sort();
        let time = times[times.len() / 2].as_secs_f64();
        let rate = length as f64 / 1e6 / time;
        lines.push(format!("{name:<32} {time:>7.2} s {rate:>8.0} MB/s"));
    };

    let with = |transfer, cipher: &str| {
        let mut options: Options = sshd.options();
        options.transfer = transfer;
        options.ciphers = vec![cipher.to_owned()];
        let ssh = connect(options);
        wait(&ssh);
        ssh
    };
    for cipher in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let short = cipher.split('-').next().unwrap();
        for transfer in [Transfer::Scp, Transfer::Sftp] {
            let ssh = with(transfer, cipher);
            note(&format!("up, {transfer:?}, {short}"), &mut || {
                ssh.upload(&mut &bytes[..], length as u64, path, 0o600)
                    .unwrap();
            });
            note(&format!("down, {transfer:?}, {short}"), &mut || {
                let mut got = Vec::with_capacity(length);
                ssh.download(source.to_str().unwrap(), &mut got).unwrap();
                assert_eq!(got.len(), length);
            });
        }
        for (name, flags) in [("scp", ["-O"]), ("sftp", ["-s"])] {
            note(&format!("up, OpenSSH's {name}, {short}"), &mut || {
                by_openssh(&sshd, cipher, &flags, &source, &target);
            });
        }
    }
    let small = with(Transfer::Sftp, "aes256-gcm@openssh.com");
    let files = if test { 10 } else { 300 };
    for (name, ssh) in [
        ("scp", with(Transfer::Scp, "aes256-gcm@openssh.com")),
        ("sftp", small),
    ] {
        let started = Instant::now();
        for _ in 0..files {
            ssh.upload(&mut &b"small"[..], 5, path, 0o600).unwrap();
        }
        let each = started.elapsed().as_secs_f64() * 1000.0 / f64::from(files);
        lines.push(format!("a small file, {name:<18} {each:>7.1} ms"));
    }
    lines.push(String::new());
    let text = lines.join("\n");
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

fn by_openssh(sshd: &Sshd, cipher: &str, flags: &[&str], source: &Path, target: &Path) {
    let user = servers::user();
    run(Command::new("scp")
        .args(flags)
        .args(["-q", "-c", cipher, "-P"])
        .arg(sshd.listener.port.to_string())
        .arg("-i")
        .arg(sshd.at("user"))
        .args(["-F", "none", "-o", "StrictHostKeyChecking=no"])
        .args(["-o", "UserKnownHostsFile=/dev/null"])
        .arg(source)
        .arg(format!("{user}@127.0.0.1:{}", target.display())));
}

//! The way into the guest.

use std::path::Path;
use std::time::Duration;

use super::Paths;
use crate::error::Result;
use crate::template::check::Severity;
use crate::template::model::{Bastion, Ssh, Transfer, is_secret};
use crate::template::reader::Table;

/// Longer than any build: as good as no limit.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Bytes of a file with a key at most.
const LONGEST_KEY: u64 = 1 << 20;
/// What each file with a private key holds, one of them.
const KEY_MARKS: [&str; 2] = ["PRIVATE KEY-----", "PuTTY-User-Key-File-"];

/// `None`: the guest is not entered.
pub(super) fn ssh(
    table: &Table<'_, '_>,
    paths: &Paths<'_>,
    secrets: &mut Vec<String>,
) -> Result<Option<Ssh>> {
    let communicator = table.text_at("communicator")?;
    let enabled =
        match communicator
            .as_ref()
            .map(|(word, node)| (word.as_str(), node))
        {
            None | Some(("" | "ssh", _)) => true,
            Some(("none", _)) => false,
            Some(("winrm", node)) => {
                let error = table.error("communicator", node, "WinRM is not supported");
                table.tell(error.with_remedy(
                    "guests are entered by SSH, which Windows has, too: write \"ssh\"",
                ));
                false
            }
            Some((other, node)) => {
                let error = table.error("communicator", node, &format!("there is no '{other}'"));
                table.tell(error.with_remedy("write \"ssh\" or \"none\""));
                false
            }
        };
    let username = table.filled("username")?;
    if enabled && username.is_none() {
        let text = format!("{}: there is no username for SSH", table.what);
        table.tell(table.reader.error(table.at, text).with_remedy(
            "add a username (ssh_username in a Packer template); \"debian\", \"ubuntu\", \"root\" are usual ones",
        ));
    }
    let key = table
        .text_at("private-key")?
        .filter(|(path, _)| !path.is_empty());
    let key = key.map(|(path, node)| (paths.private(&path), node));
    if let Some((path, node)) = &key
        && let Some((what, remedy)) = no_key(path, paths)
    {
        let text = format!("{}: {what}", table.name("private-key"));
        table.reader.find(Severity::Error, node.at, &text, remedy);
    }
    let password = table.filled("password")?;
    secrets.extend(
        password
            .iter()
            .filter(|password| is_secret(password))
            .cloned(),
    );
    let timeout = table.duration("timeout")?;
    let attempts: Option<u32> = table.number("attempts", 0, 1_000_000)?;
    let unlimited = table.flag("timeout-unlimited")?.unwrap_or(false);
    let attempts = attempts.filter(|attempts| *attempts > 0);
    // Packer's defaults come together or not at all: attempts alone mean no limit of time.
    let (timeout, attempts) = match (timeout.filter(|timeout| !timeout.is_zero()), attempts) {
        (None, None) if unlimited => (None, Some(10)),
        (None, Some(attempts)) if unlimited => (Some(FOREVER), Some(attempts)),
        both => both,
    };
    let keep_alive = match table.span("keep-alive")? {
        None | Some(0) => Some(Duration::from_secs(5)),
        Some(span) => u64::try_from(span).ok().map(Duration::from_nanos),
    };
    let kinds = ["ed25519", "ecdsa", "rsa", "dsa"];
    let kind = table.word("temporary-key", &kinds)?;
    let bits: Option<u32> = table.number("temporary-key-bits", 0, 16384)?;
    if kind.as_deref() == Some("dsa") {
        let text = format!(
            "{}: keys of the kind dsa are no longer taken by any guest",
            table.name("temporary-key")
        );
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("write ed25519"));
    }
    let transfer = match table.word("transfer", &["scp", "sftp"])?.as_deref() {
        Some("sftp") => Transfer::Sftp,
        _ => Transfer::Scp,
    };
    let ssh = Ssh {
        host: table.filled("host")?,
        port: table
            .number("port", 0, 65535)?
            .filter(|port| *port > 0)
            .unwrap_or(22),
        username: username.unwrap_or_default(),
        password,
        private_key: key.map(|(path, _)| path),
        certificate: table
            .text("certificate")?
            .filter(|path| !path.is_empty())
            .map(|path| paths.private(&path)),
        agent: table.flag("agent")?.unwrap_or(false),
        forward_agent: table.flag("forward-agent")?.unwrap_or(false),
        timeout,
        attempts,
        pty: table.flag("pty")?.unwrap_or(false),
        keep_alive,
        transfer,
        bastion: bastion(table, paths, secrets)?,
        pause_before_connecting: table
            .duration("pause-before-connecting")?
            .filter(|pause| !pause.is_zero()),
        clear_authorized_keys: table.flag("clear-authorized-keys")?.unwrap_or(false),
        temporary_key: match (kind, bits.filter(|bits| *bits > 0)) {
            (None, None) => None,
            // Bits alone speak of the kind that has a choice of them.
            (kind, bits) => Some((kind.unwrap_or_else(|| "rsa".to_owned()), bits)),
        },
        ciphers: table.texts("ciphers")?,
        key_exchanges: table.texts("key-exchanges")?,
    };
    Ok(enabled.then_some(ssh))
}

/// Why the file at `path` is no private key, and what can be done; `None`: it looks like one.
fn no_key(path: &Path, paths: &Paths<'_>) -> Option<(String, &'static str)> {
    let shown = path.display();
    if !paths.exists(path) {
        return Some((format!("there is no file '{shown}'"), paths.advice()));
    }
    let bytes = match crate::store::read_file(paths.host(path), LONGEST_KEY) {
        Ok(bytes) => bytes,
        Err(cause) => {
            let text = format!("'{shown}' cannot be read: {cause}");
            return Some((text, "give a file that may be read"));
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let is_key = KEY_MARKS.iter().any(|mark| text.contains(mark));
    (!is_key).then(|| {
        let text = format!("'{shown}' is no private key that SSH can use");
        let remedy = "give the private file of a pair made by ssh-keygen, not the .pub one";
        (text, remedy)
    })
}

fn bastion(
    ssh: &Table<'_, '_>,
    paths: &Paths<'_>,
    secrets: &mut Vec<String>,
) -> Result<Option<Bastion>> {
    if ssh.node("bastion").is_none() {
        return Ok(None);
    }
    let table = ssh.table("bastion")?;
    let password = table.filled("password")?;
    secrets.extend(
        password
            .iter()
            .filter(|password| password.len() >= 8)
            .cloned(),
    );
    let host = table.filled("host")?;
    let bastion = Bastion {
        host: host.clone().unwrap_or_default(),
        port: table.port("port")?.unwrap_or(22),
        username: table.filled("username")?.unwrap_or_default(),
        password,
        private_key: table
            .filled("private-key")?
            .map(|path| paths.private(&path)),
        certificate: table
            .filled("certificate")?
            .map(|path| paths.private(&path)),
        agent: table.flag("agent")?.unwrap_or(false),
    };
    // Packer asks at the terminal, too; a build does not.
    table.flag("interactive")?;
    table.finish();
    if host.is_none() {
        return Ok(None);
    }
    if bastion.username.is_empty() {
        let text = format!(
            "{}: there is no username for the machine between",
            table.what
        );
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("add its username"));
    }
    Ok(Some(bastion))
}

//! All questions of a round as one script, and the guest's answers to them.
//!
//! The script is POSIX sh: nothing is installed or left in the guest, and no bash, python or perl has to be there. It does
//! nothing before it is there as a whole. What the guest sends back is counted, and read as nothing but answers to what was
//! asked.

pub mod answer;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::load::Check;
use super::shape::Kind;
use crate::communicator::quote::{path, word};

pub use answer::{Answers, Collector};

/// The functions of the script.
const PRELUDE: &str = include_str!("prelude.sh");

/// Bytes of a file, of a command's output or of a page that are looked at; one more tells that there are more.
pub const MOST_CONTENTS: usize = 4 << 20;

/// How the script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptOptions {
    /// Commands and requests at the same time, at least 1.
    pub max_concurrent: usize,
}

/// The script that asks for all that `checks` compare; the numbers in its answers are places in `checks`.
#[must_use]
pub fn script(checks: &[&Check], options: ScriptOptions) -> String {
    let mut script = String::from(PRELUDE);
    let _ = writeln!(
        script,
        "most_jobs={}\nask_all() {{",
        options.max_concurrent.max(1)
    );
    let globals: BTreeSet<&str> = checks
        .iter()
        .filter_map(|check| global(check.kind))
        .collect();
    let globals: Vec<&str> = globals.into_iter().collect();
    let _ = writeln!(script, "ask_globals {}", globals.join(" "));
    for (number, check) in checks.iter().enumerate() {
        if !check.skip {
            question(&mut script, number, check);
        }
    }
    script.push_str(
        "wait\nfor answers in \"$T\"/answer.*; do [ ! -f \"$answers\" ] || cat \"$answers\"; done\nsay g end 1\n}\nask_all </dev/null\n",
    );
    script
}

/// The command that takes the script on its standard input.
#[must_use]
pub fn command(sudo: bool) -> &'static str {
    if sudo {
        "exec sh -c 'if [ \"$(id -u)\" != 0 ] && sudo -n true 2>/dev/null; then exec sudo -n sh -s; else exec sh -s; fi'"
    } else {
        "exec sh -s"
    }
}

/// What is asked once for all checks of a type.
fn global(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Port => "net",
        Kind::Process => "processes",
        Kind::User | Kind::Group => "users",
        Kind::Mount => "mounts",
        _ => return None,
    })
}

fn seconds(check: &Check) -> u128 {
    check.timeout().as_millis().div_ceil(1000).max(1)
}

fn question(script: &mut String, number: usize, check: &Check) {
    let subject = &check.subject;
    let name = word(subject);
    let limit = MOST_CONTENTS + 1;
    let seconds = seconds(check);
    let _ = match check.kind {
        Kind::File => {
            let wanted: Vec<&str> = ["contents", "md5", "sha256", "sha512"]
                .into_iter()
                .filter(|name| check.asks(name))
                .collect();
            let name = path(subject);
            writeln!(
                script,
                "ask_file {number} {name} {limit} {}",
                wanted.join(" ")
            )
        }
        // A name that a package manager would take for an option is none of a package.
        Kind::Package if subject.starts_with('-') => Ok(()),
        Kind::Package => writeln!(script, "ask_package {number} {name}"),
        Kind::Service if subject.starts_with('-') || subject.contains('/') => Ok(()),
        Kind::Service => writeln!(script, "ask_service {number} {name}"),
        Kind::Mount if check.asks("usage") => {
            writeln!(script, "ask_usage {number} {} {seconds}", path(subject))
        }
        Kind::KernelParam => writeln!(
            script,
            "ask_parameter {number} {}",
            word(&parameter(subject))
        ),
        Kind::Interface if subject.contains('/') => Ok(()),
        Kind::Interface => writeln!(script, "ask_interface {number} {name}"),
        Kind::Command => {
            writeln!(
                script,
                "aside {number} ask_command {number} {seconds} {limit} {name}"
            )
        }
        Kind::Addr => match address(subject) {
            Some((host, port)) => {
                let source = word(check.text("local-address").unwrap_or_default());
                let host = word(&host);
                writeln!(
                    script,
                    "aside {number} ask_address {number} {host} {port} {seconds} {source}"
                )
            }
            None => Ok(()),
        },
        Kind::Http => {
            let (configuration, is_plain) = curl(check, seconds);
            let plain = u8::from(is_plain);
            writeln!(
                script,
                "printf '%s' {} >\"$T/{number}.curl\"\naside {number} ask_url {number} {seconds} {limit} {name} {plain}",
                word(&configuration)
            )
        }
        Kind::Dns => {
            let (record, host) = record(subject);
            let (server, port) = server(check.text("server").unwrap_or_default());
            let record = word(record.unwrap_or_default());
            writeln!(
                script,
                "aside {number} ask_name {number} {seconds} {} {record} {} {port}",
                word(host),
                word(server)
            )
        }
        _ => Ok(()),
    };
}

/// The path below /proc/sys of a parameter, as sysctl(8) has it: whichever of dot and slash comes first separates.
fn parameter(name: &str) -> String {
    let path: String = match name.find(['.', '/']).and_then(|at| name.get(at..=at)) {
        Some(".") => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    };
    // Nothing outside is a parameter.
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".." && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

/// Host and port of `tcp://HOST:PORT`.
pub(crate) fn address(text: &str) -> Option<(String, u16)> {
    let rest = ["tcp://", "tcp4://", "tcp6://"]
        .iter()
        .find_map(|start| text.strip_prefix(start))?;
    let (host, port) = rest.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    let is_host = !host.is_empty() && !host.starts_with('-') && host.chars().all(fits);
    is_host.then(|| (host.to_owned(), port))
}

/// The type of record before a name, if there is one, and the name.
pub(crate) fn record(subject: &str) -> (Option<&str>, &str) {
    const TYPES: [&str; 9] = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"];
    match subject.split_once(':') {
        Some((record, name)) if TYPES.contains(&record) => {
            (Some(record), name.trim_start_matches('-'))
        }
        _ => (None, subject.trim_start_matches('-')),
    }
}

/// Address and port of a name server.
fn server(text: &str) -> (&str, u16) {
    let text = text.trim_start_matches(['-', '@']);
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().unwrap_or(53)),
        _ => (text, 53),
    }
}

/// The configuration of curl, which no other process of the guest can read; and whether any client would do.
fn curl(check: &Check, seconds: u128) -> (String, bool) {
    let mut lines = format!("silent\nshow-error\ngloboff\nmax-time = {seconds}\n");
    let mut is_plain = true;
    let quoted = |text: &str| {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        quoted
    };
    if check.flag("no-follow-redirects") {
        is_plain = false;
    } else {
        lines.push_str("location\n");
    }
    if check.flag("allow-insecure") {
        lines.push_str("insecure\n");
        is_plain = false;
    }
    if let Some(method) = check.text("method") {
        is_plain &= method.eq_ignore_ascii_case("get");
        let method = method.to_uppercase();
        if method == "HEAD" {
            lines.push_str("head\n");
        } else {
            let _ = writeln!(lines, "request = {}", quoted(&method));
        }
    }
    let headers = check
        .settings
        .get("request-headers")
        .and_then(Value::as_array);
    for header in headers.into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(lines, "header = {}", quoted(header));
        is_plain = false;
    }
    if let Some(name) = check.text("username").filter(|name| !name.is_empty()) {
        let password = check.text("password").unwrap_or_default();
        let _ = writeln!(lines, "user = {}", quoted(&format!("{name}:{password}")));
        is_plain = false;
    }
    for (setting, option) in [
        ("request-body", "data-raw"),
        ("ca-file", "cacert"),
        ("cert-file", "cert"),
        ("key-file", "key"),
        ("proxy", "proxy"),
    ] {
        if let Some(value) = check.text(setting).filter(|value| !value.is_empty()) {
            let _ = writeln!(lines, "{option} = {}", quoted(value));
            is_plain = false;
        }
    }
    (lines, is_plain)
}

#[cfg(test)]
mod tests;

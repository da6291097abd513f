//! The one script that does all steps, put together from their parts.
//!
//! Knows the shell of POSIX, as dash and busybox have it. Must not know how the script gets into the guest. What goes into it
//! besides its own parts is checked: no name or key can become a command.

use std::fmt::Write;

use super::{Own, Step};
use crate::communicator::quote;
use crate::error::{Error, Result};

/// What the script shall do.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) steps: &'a [Step],
    /// Undo what a seed of the build's own brought.
    pub(super) uninject: bool,
    pub(super) own: &'a Own,
    /// Run when all is done.
    pub(super) shutdown: Option<&'a str>,
    /// Put before every path; empty, but for tests.
    pub(super) root: &'a str,
}

impl Order<'_> {
    /// The script. It does nothing before it was read as a whole.
    pub(super) fn compose(&self) -> Result<String> {
        let own = self.own;
        let keys = blobs(&own.keys)?;
        let host_keys = blobs(&own.host_keys)?;
        for name in own.password_users.iter().chain(&own.created_users) {
            if !is_user(name) {
                return Err(Error::usage(format!("\"{name}\" is the name of no user")));
            }
        }
        let instance = own.instance_id.as_deref().unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !instance.chars().all(fits) || instance.starts_with('.') {
            return Err(Error::usage(format!(
                "\"{instance}\" is the id of no instance"
            )));
        }
        let mut script = String::new();
        for (name, value) in [
            ("R", self.root),
            ("own_keys", &keys),
            ("own_host_keys", &host_keys),
            ("own_users", &own.password_users.join(" ")),
            ("own_created", &own.created_users.join(" ")),
            ("own_instance", instance),
        ] {
            let _ = writeln!(script, "{name}={}", quote::word(value));
        }
        script.push_str(include_str!("prelude.sh"));
        script.push_str(include_str!("remains.sh"));
        let mut calls = String::new();
        let mut steps = self.steps.to_vec();
        steps.sort_unstable();
        steps.dedup();
        let mut last = Vec::new();
        if self.uninject || !own.created_users.is_empty() {
            script.push_str(include_str!("steps/injected.sh"));
            last.push("    step injected-users seal_injected_users\n");
        }
        if self.uninject {
            calls.push_str("    step injected-instance seal_injected_instance\n");
            calls.push_str("    step injected-host-keys seal_injected_host_keys\n");
            steps.extend([Step::Passwords, Step::AuthorizedKeys]);
            steps.sort_unstable();
            steps.dedup();
        }
        for step in steps {
            script.push_str(step.script());
            let function = step.name().replace('-', "_");
            let _ = writeln!(calls, "    step {} seal_{function}", step.name());
        }
        calls.extend(last);
        let shutdown = match self.shutdown.map(str::trim) {
            None | Some("") => String::new(),
            Some(command) => format!(
                "    say shutdown\n    sync\n    sh -c {}\n    say ended $?\n",
                quote::word(command)
            ),
        };
        // Descriptor 3 is the caller's; whatever else is printed is no answer.
        let _ = write!(
            script,
            "seal_guest() {{\n    await_cloud_init\n    look_at_sshd\n{calls}    look_at_remains\n    say end\n{shutdown}}}\n\
             seal_guest 3>&1 1>&2 </dev/null\nexit 0\n"
        );
        Ok(script)
    }
}

/// The base64 of public keys, a line each.
fn blobs(keys: &[String]) -> Result<String> {
    let mut blobs = Vec::new();
    for key in keys {
        let found = key
            .split_ascii_whitespace()
            .find(|word| word.starts_with("AAAA"));
        let fits = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        // Shorter ones would match others' keys.
        match found {
            Some(blob) if blob.len() >= 40 && blob.chars().all(fits) => blobs.push(blob),
            _ => {
                return Err(
                    Error::usage("a key to remove from the guest is no public key of SSH")
                        .with_remedy(
                            "give it as it stands in authorized_keys: type, base64, comment",
                        ),
                );
            }
        }
    }
    Ok(blobs.join("\n"))
}

/// Names that useradd takes, and no more.
fn is_user(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.len() <= 32
        && name.starts_with(first)
        && name
            .chars()
            .all(|c| first(c) || c.is_ascii_digit() || c == '-')
}

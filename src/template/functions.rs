//! Packer's functions, and where each may be called.
//!
//! Knows what a template can ask of its surroundings, all of which was given: no clock, no chance, no environment is
//! looked at here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::go::{Functions, Moment, Param, Refusal, Value, layout, strftime};

/// The version of Packer whose templates these are.
pub(super) const PACKER_VERSION: &str = "1.6.6";

/// Names of values that are known only while a build runs.
pub(super) const BUILD_VALUES: [&str; 13] = [
    "ID",
    "Host",
    "Port",
    "User",
    "Password",
    "ConnType",
    "PackerRunUUID",
    "PackerHTTPAddr",
    "PackerHTTPIP",
    "PackerHTTPPort",
    "SSHPublicKey",
    "SSHPrivateKey",
    "SSHPrivateKeyFile",
];

/// What does not change within one load.
pub(super) struct Surroundings<'a> {
    /// Directory of the template, absolute.
    pub(super) template_directory: String,
    /// The current directory.
    pub(super) directory: &'a Path,
    /// The process's start, since 1970.
    pub(super) started: Duration,
    /// Twelve random bytes at each call.
    pub(super) random: &'a dyn Fn() -> [u8; 12],
    /// The environment, for `env`.
    pub(super) environment: &'a BTreeMap<String, String>,
}

/// Which part of a template is being filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// The values of variables.
    Variables,
    /// A build's name, or anything that belongs to no build.
    Outside,
    /// A build: its name and kind.
    Build {
        name: &'a str,
        kind: &'a str,
        /// Steps of it, which may ask for what is known only then.
        steps: bool,
    },
}

/// Packer's functions in one part of a template.
pub(super) struct Packer<'a> {
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) part: Part<'a>,
    /// Values of variables.
    pub(super) variables: &'a BTreeMap<String, String>,
    /// Names of variables that were asked for and are not there.
    pub(super) undefined: RefCell<BTreeSet<String>>,
    /// Names that were asked of the environment and are not there.
    pub(super) absent: RefCell<BTreeSet<String>>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        surroundings: &'a Surroundings<'a>,
        part: Part<'a>,
        variables: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            surroundings,
            part,
            variables,
            undefined: RefCell::default(),
            absent: RefCell::default(),
        }
    }

    fn user(&self, name: &str) -> Result<String, Refusal> {
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        if self.part == Part::Variables {
            return Err(Refusal {
                message: format!("the variable '{name}' is not set"),
                remedy: Some("a variable that others ask for must be defined".to_owned()),
                unset: Some(name.to_owned()),
            });
        }
        self.undefined.borrow_mut().insert(name.to_owned());
        Ok(String::new())
    }

    fn build(&self, name: &str) -> Result<String, Refusal> {
        if !BUILD_VALUES.contains(&name) {
            return Err(Refusal {
                message: format!("a build knows no '{name}'"),
                remedy: Some(format!("it knows {}", BUILD_VALUES.join(", "))),
                unset: None,
            });
        }
        Err(Refusal {
            message: format!("'{name}' of a build is known only when it runs"),
            remedy: Some("ask for it in provisioners and post-processors".to_owned()),
            unset: None,
        })
    }

    fn of_build(&self, function: &str) -> Result<String, Refusal> {
        match (self.part, function) {
            (Part::Build { name, .. }, "build_name") => Ok(name.to_owned()),
            (Part::Build { kind, .. }, "build_type") => Ok(kind.to_owned()),
            _ => Err(Refusal {
                message: format!("{function} is not available here"),
                remedy: Some("it is known within a build".to_owned()),
                unset: None,
            }),
        }
    }

    fn uuid(&self) -> String {
        // The time comes first, so that they sort by it.
        let seconds = u32::try_from(self.surroundings.started.as_secs() & 0xffff_ffff).unwrap_or(0);
        let random = (self.surroundings.random)();
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        format!(
            "{seconds:08x}-{}-{}-{}-{}",
            hex(&random[..2]),
            hex(&random[2..4]),
            hex(&random[4..6]),
            hex(&random[6..])
        )
    }

    fn elsewhere(&self, function: &str, arguments: &[Value]) -> Refusal {
        let name = arguments.first().and_then(Value::as_text).unwrap_or("NAME");
        let what = match function {
            "consul_key" => "Consul",
            "vault" => "Vault",
            _ => "AWS Secrets Manager",
        };
        let message = if self.part == Part::Variables {
            format!("{function}: {what} is not asked: a template needs nothing but its files")
        } else {
            format!("{function} is allowed only in variables")
        };
        Refusal {
            message,
            remedy: Some(format!(
                "set a variable from the environment ({{{{env `{}`}}}}) or by -var-file, and fetch the value before",
                environment_name(name)
            )),
            unset: None,
        }
    }
}

fn environment_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let name: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .take(40)
        .collect();
    name
}

/// Functions that need nothing but their arguments; `None`: it is not one of them.
fn pure(name: &str, arguments: &[Value]) -> Option<Result<String, Refusal>> {
    let text = |number: usize| arguments.get(number).and_then(Value::as_text).unwrap_or("");
    let int = |number: usize| arguments.get(number).and_then(Value::as_int).unwrap_or(0);
    Some(match name {
        // Letter by letter, as Go does: none becomes two.
        "upper" => Ok(text(0)
            .chars()
            .map(|c| single(c, c.to_uppercase()))
            .collect()),
        "lower" => Ok(text(0)
            .chars()
            .map(|c| single(c, c.to_lowercase()))
            .collect()),
        "split" => split(text(0), text(1), int(2)),
        "replace" => replace(text(3), text(0), text(1), int(2)),
        "replace_all" => replace(text(2), text(0), text(1), -1),
        "clean_resource_name" => Err(Refusal {
            message: "clean_resource_name belongs to builders of clouds".to_owned(),
            remedy: Some("use lower, replace and replace_all".to_owned()),
            unset: None,
        }),
        "sed" => Err(Refusal {
            message: "sed is no longer there".to_owned(),
            remedy: Some("use replace or replace_all".to_owned()),
            unset: None,
        }),
        _ => return None,
    })
}

fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

fn split(text: &str, separator: &str, number: i64) -> Result<String, Refusal> {
    let parts: Vec<String> = if separator.is_empty() {
        text.chars().map(String::from).collect()
    } else {
        text.split(separator).map(str::to_owned).collect()
    };
    let found = usize::try_from(number).ok().and_then(|at| parts.get(at));
    found.cloned().ok_or_else(|| {
        let count = parts.len();
        Refusal::from(format!(
            "split: there is no part {number}: '{separator}' makes {count} of it, counted from 0"
        ))
    })
}

fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, Refusal> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(old).count(),
    };
    let grows = found.min(count).saturating_mul(new.len());
    if grows.saturating_add(text.len()) > 16 << 20 {
        return Err("replace makes a text that is too long".into());
    }
    if count == usize::MAX {
        return Ok(text.replace(old, new));
    }
    Ok(text.replacen(old, new, count))
}

const TEXT: &[Param] = &[Param::Text];

/// What a function of Packer's takes.
fn signature(name: &str) -> Option<(&'static [Param], bool)> {
    use Param::{Int, Text};
    Some(match name {
        "build_name" | "build_type" | "pwd" | "packer_version" | "template_dir" | "timestamp"
        | "uuid" => (&[], false),
        "build"
        | "clean_resource_name"
        | "consul_key"
        | "env"
        | "lower"
        | "strftime"
        | "upper"
        | "user" => (TEXT, false),
        "isotime" => (TEXT, true),
        "split" => (&[Text, Text, Int], false),
        "replace" => (&[Text, Text, Int, Text], false),
        "replace_all" => (&[Text, Text, Text], false),
        "sed" | "vault" => (&[Text, Text], false),
        "aws_secretsmanager" => (&[Text, Text], true),
        _ => return None,
    })
}

const NAMES: [&str; 22] = [
    "aws_secretsmanager",
    "build",
    "build_name",
    "build_type",
    "clean_resource_name",
    "consul_key",
    "env",
    "isotime",
    "lower",
    "packer_version",
    "pwd",
    "replace",
    "replace_all",
    "sed",
    "split",
    "strftime",
    "template_dir",
    "timestamp",
    "upper",
    "user",
    "uuid",
    "vault",
];

impl Functions for Packer<'_> {
    fn signature(&self, name: &str) -> Option<(&'static [Param], bool)> {
        signature(name)
    }

    fn names(&self) -> Vec<&'static str> {
        NAMES.to_vec()
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<String, Refusal> {
        if let Some(result) = pure(name, arguments) {
            return result;
        }
        let text = |number: usize| arguments.get(number).and_then(Value::as_text).unwrap_or("");
        let moment = || Moment::new(self.surroundings.started);
        match name {
            "user" => self.user(text(0)),
            "env" if self.part == Part::Variables => {
                let value = self.surroundings.environment.get(text(0));
                if value.is_none() {
                    self.absent.borrow_mut().insert(text(0).to_owned());
                }
                Ok(value.cloned().unwrap_or_default())
            }
            "env" => Err(Refusal {
                message: "env is allowed only in variables".to_owned(),
                remedy: Some(format!(
                    "write \"variables\": {{\"x\": \"{{{{env `{}`}}}}\"}} and ask for {{{{user `x`}}}}",
                    text(0)
                )),
                unset: None,
            }),
            "build" => self.build(text(0)),
            "build_name" | "build_type" => self.of_build(name),
            "uuid" => Ok(self.uuid()),
            "timestamp" => Ok(self.surroundings.started.as_secs().to_string()),
            "isotime" if arguments.len() > 1 => Err("isotime takes one layout at most".into()),
            "isotime" => {
                let format = match arguments.is_empty() {
                    true => "2006-01-02T15:04:05Z07:00",
                    false => text(0),
                };
                Ok(layout(&moment(), format))
            }
            "strftime" => Ok(strftime(&moment(), text(0))),
            "template_dir" => Ok(self.surroundings.template_directory.clone()),
            "pwd" => Ok(self.surroundings.directory.display().to_string()),
            "packer_version" => Ok(PACKER_VERSION.to_owned()),
            "consul_key" | "vault" | "aws_secretsmanager" => Err(self.elsewhere(name, arguments)),
            _ => Err(format!("there is no function '{name}'").into()),
        }
    }
}

/// The functions that are left when a text is filled in at last.
pub(super) struct LateFunctions<'a> {
    /// What `build` knows.
    pub(super) build: &'a BTreeMap<String, String>,
}

impl Functions for LateFunctions<'_> {
    fn signature(&self, name: &str) -> Option<(&'static [Param], bool)> {
        signature(name)
    }

    fn names(&self) -> Vec<&'static str> {
        NAMES.to_vec()
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<String, Refusal> {
        if let Some(result) = pure(name, arguments) {
            return result;
        }
        let text = arguments.first().and_then(Value::as_text).unwrap_or("");
        match name {
            "build" => self.build.get(text).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.build.keys().map(String::as_str).collect();
                Refusal {
                    message: format!("the build knows no '{text}' here"),
                    remedy: Some(match known.is_empty() {
                        true => "nothing of a build is known here".to_owned(),
                        false => format!("it knows {}", known.join(", ")),
                    }),
                    unset: None,
                }
            }),
            "env" => Err("env is allowed only in variables".into()),
            _ => Err(format!("{name} takes nothing here that is known only now").into()),
        }
    }
}

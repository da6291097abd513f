//! What the guest's answers say of each property that is compared.
//!
//! Knows the forms in which systems tell: stat, mountinfo, package managers, name servers. Must not know scripts or verdicts.

pub(crate) mod net;
mod network;
mod system;

use serde_json::Value;

use super::load::Check;
use super::matcher::Actual;
use super::probe::MOST_CONTENTS;
use super::probe::answer::Answers;
use super::shape::Kind;

/// What is known of a property; an error says why nothing is.
pub type Fact = Result<Actual, String>;

/// What `answers` say of a property of the check at `number`.
pub fn fact(check: &Check, number: usize, property: &str, answers: &Answers) -> Fact {
    let known = Known {
        check,
        number,
        answers,
    };
    match check.kind {
        Kind::File => known.file(property),
        Kind::Package => known.package(property),
        Kind::Service => known.service(property),
        Kind::Port => known.port(property),
        Kind::Process => Ok(known.process()),
        Kind::User => known.user(property),
        Kind::Group => known.group(property),
        Kind::Mount => known.mount(property),
        Kind::KernelParam => known.parameter(),
        Kind::Interface => known.interface(property),
        Kind::Command => known.command(property),
        Kind::Addr => known.address(),
        Kind::Http => known.url(property),
        Kind::Dns => known.name(property),
        Kind::Matching => Ok(known.content()),
        _ => Err("only an image and its machine can tell".to_owned()),
    }
}

/// A check and what was said.
struct Known<'a> {
    check: &'a Check,
    number: usize,
    answers: &'a Answers,
}

/// A boolean.
fn is(value: bool) -> Actual {
    Actual::Value(Value::Bool(value))
}

/// Text without a type of its own.
fn text(text: impl Into<String>) -> Actual {
    Actual::Value(Value::String(text.into()))
}

/// Texts.
fn list(items: impl IntoIterator<Item = String>) -> Actual {
    Actual::Value(Value::Array(items.into_iter().map(Value::String).collect()))
}

impl Known<'_> {
    fn said(&self, name: &str) -> Option<String> {
        self.answers.text(self.number, name)
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        self.answers
            .flag(self.number, name)
            .ok_or_else(|| "the guest said nothing of it".to_owned())
    }

    fn needs(&self, name: &str) -> Result<String, String> {
        self.said(name)
            .ok_or_else(|| "the guest said nothing of it".to_owned())
    }

    /// Contents or output, unless there is more than is looked at.
    fn lines(&self, name: &str) -> Fact {
        let bytes = self
            .answers
            .bytes(self.number, name)
            .ok_or("the guest said nothing of it")?;
        if bytes.len() > MOST_CONTENTS {
            return Err(format!(
                "there are more than the {MOST_CONTENTS} bytes that are looked at"
            ));
        }
        Ok(Actual::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn content(&self) -> Actual {
        let content = self.check.settings.get("content");
        Actual::Value(content.cloned().unwrap_or(Value::Null))
    }

    fn command(&self, property: &str) -> Fact {
        let exit: i64 = self
            .needs("exit")?
            .parse()
            .map_err(|_| "the guest told no exit code".to_owned())?;
        let took: u64 = self
            .said("took")
            .and_then(|took| took.parse().ok())
            .unwrap_or(0);
        let limit = self.check.timeout();
        if [137, 143].contains(&exit) && took.saturating_add(1) >= limit.as_secs() {
            return Err(format!(
                "the command took longer than {} ms",
                limit.as_millis()
            ));
        }
        match property {
            "exit-status" => Ok(Actual::Value(Value::from(exit))),
            "stdout" => self.lines("out"),
            _ => self.lines("err"),
        }
    }
}

#[cfg(test)]
mod tests;

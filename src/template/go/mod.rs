//! The template language of Go's text/template, as far as templates of builds use it.
//!
//! Knows its grammar, its comparisons and its printing; knows no function of Packer's: those come in by [`Functions`].
//! An evaluator of qimg's own: templates come from anywhere, so nesting, steps and the size of all values together are
//! bounded here, and a fault names the place in the text. The crates that there are bound nesting and loops, but let a
//! template of 600 bytes double a text until memory ends; nor do they fill in a part of a template and leave the rest.
//! What templates never meet is not there: complex numbers and methods.

mod builtin;
mod fold;
mod format;
mod lex;
mod parse;
mod run;
mod time;
mod tree;
mod value;

pub(crate) use fold::{asked, escape, fold, needs};
pub(crate) use format::print_one;
pub(crate) use time::{Moment, layout, strftime};
pub(crate) use value::Value;

/// Levels of blocks and parentheses at most.
const DEEPEST: usize = 60;
/// Evaluated nodes at most.
const MOST_STEPS: usize = 200_000;
/// Bytes of all values and the output together at most.
const MOST_BYTES: usize = 32 << 20;
/// Bytes of a template at most.
const LONGEST: usize = 8 << 20;

/// Why a template gives nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte of the template's text.
    pub at: usize,
    /// In lower case.
    pub message: String,
    /// What can be done.
    pub remedy: Option<String>,
    /// The variable that has no value yet, where it is that.
    pub unset: Option<String>,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            remedy: None,
            unset: None,
        }
    }
}

/// What a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Param {
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// Whatever comes.
    Any,
}

/// A function that did not work: why, and what can be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In lower case.
    pub message: String,
    /// What can be done.
    pub remedy: Option<String>,
    /// The variable that has no value yet, where it is that.
    pub unset: Option<String>,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }
}

impl From<&str> for Refusal {
    fn from(message: &str) -> Self {
        Self::from(message.to_owned())
    }
}

/// Functions beside the language's own.
pub(crate) trait Functions {
    /// The parameters of `name`, and whether the last may come any number of times; `None`: there is no such function.
    fn signature(&self, name: &str) -> Option<(&'static [Param], bool)>;

    /// Names, for advice.
    fn names(&self) -> Vec<&'static str>;

    /// Calls `name` with arguments that fit its signature.
    fn call(&self, name: &str, arguments: &[Value]) -> Result<String, Refusal>;

    /// Calls `name` where its result may be more than text.
    fn value(&self, name: &str, arguments: &[Value]) -> Result<Value, Refusal> {
        self.call(name, arguments).map(|text| Value::text(&text))
    }
}

/// Fills in `text`; `dot` is what fields are looked up in.
pub(crate) fn render(text: &str, functions: &dyn Functions, dot: &Value) -> Result<String, Fault> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let program = parse::parse(text, functions)?;
    run::run(&program, functions, dot)
}

#[cfg(test)]
mod tests;

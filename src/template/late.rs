//! Texts that are filled in when they are used.
//!
//! Knows nothing of who asks: the fields and the build's values come with the call.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::functions::LateFunctions;
use super::go::{self, Value};
use super::model::Text;
use crate::error::{Error, Result};

/// Fields that every text of a build knows from the machine's start on.
pub const LATE_FIELDS: [&str; 7] = [
    "OutputDir",
    "Name",
    "HTTPIP",
    "HTTPPort",
    "HTTPDir",
    "SSHHostPort",
    "SSHPublicKey",
];

/// What is known when a text is filled in.
#[derive(Debug, Clone, Default)]
pub struct Late {
    /// Values of `{{ .NAME }}`.
    pub fields: BTreeMap<String, String>,
    /// Values of ``{{ build `NAME` }}``.
    pub build: BTreeMap<String, String>,
}

impl Late {
    /// With these fields, and no values of a build.
    pub fn of<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let fields = fields.into_iter();
        Self {
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            build: BTreeMap::new(),
        }
    }

    /// Fills in `text`.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage): it asks for what is not known here. The message shows the place, never a value.
    pub fn render(&self, text: &Text) -> Result<String> {
        let functions = LateFunctions { build: &self.build };
        let dot = Value::Fields(Rc::new(self.fields.clone()));
        go::render(&text.0, &functions, &dot).map_err(|fault| {
            let error = Error::usage(fault.message);
            match fault.remedy {
                Some(remedy) => error.with_remedy(remedy),
                None => error,
            }
        })
    }
}

impl Text {
    /// A text that means itself, whatever stands in it.
    pub fn literal(text: &str) -> Self {
        Self(go::escape(text))
    }

    /// The text, if nothing in it is filled in late.
    pub fn as_literal(&self) -> Option<String> {
        let build = BTreeMap::new();
        let functions = LateFunctions { build: &build };
        match go::needs(&self.0, &functions, &["build"]) {
            Ok(false) => go::render(&self.0, &functions, &Value::Nil).ok(),
            _ => None,
        }
    }
}

//! Texts of a template that are filled in while it is built.
//!
//! Joins the template language with what the running build knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::late::RenderText;
use crate::error::Result;
use crate::template::late::Late;
use crate::template::model::Text;

/// Fills in texts with what is known so far.
#[derive(Debug, Default)]
pub struct Texts {
    fields: Mutex<BTreeMap<String, String>>,
    build: Mutex<BTreeMap<String, String>>,
}

impl Texts {
    /// Makes `{{ .NAME }}` known.
    pub fn field(&self, name: &str, value: impl Into<String>) {
        let mut fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        fields.insert(name.to_owned(), value.into());
    }

    /// Makes ``{{ build `NAME` }}`` known.
    pub fn of_build(&self, name: &str, value: impl Into<String>) {
        let mut build = self.build.lock().unwrap_or_else(PoisonError::into_inner);
        build.insert(name.to_owned(), value.into());
    }
}

impl RenderText for Texts {
    fn render(&self, text: &Text, fields: &[(&str, &str)]) -> Result<String> {
        let known = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late = Late {
            fields: known.clone(),
            build: BTreeMap::new(),
        };
        drop(known);
        let build = self.build.lock().unwrap_or_else(PoisonError::into_inner);
        late.build.clone_from(&build);
        drop(build);
        for (name, value) in fields {
            late.fields.insert((*name).to_owned(), (*value).to_owned());
        }
        late.render(text)
    }
}

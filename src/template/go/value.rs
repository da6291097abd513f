//! Values of the template language.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A value while a template is filled in.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::template) enum Value {
    /// Nothing: what an unknown field gives when there are no fields at all.
    Nil,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A fraction.
    Float(f64),
    /// Text.
    Text(Rc<str>),
    /// The dot of a text that is filled in late: fields by name.
    Fields(Rc<BTreeMap<String, String>>),
}

impl Value {
    /// Text.
    pub(in crate::template) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What messages call its kind, in Go's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Fields(_) => "fields",
        }
    }

    /// Go's idea of truth.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            // A struct is always true.
            Self::Fields(_) => true,
        }
    }

    /// The text, if it is one.
    pub(in crate::template) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one.
    pub(in crate::template) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Bytes it holds on to.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 8,
        }
    }
}

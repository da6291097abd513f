//! Values of the template language.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A value while a template is filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
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
    /// Values in order.
    List(Rc<Bounded<Vec<Value>>>),
    /// Values by name.
    Map(Rc<Bounded<BTreeMap<String, Value>>>),
}

/// A list or map, and what it would be with nothing shared: a value may hold another one many times.
#[derive(Debug, PartialEq)]
pub(crate) struct Bounded<T> {
    items: T,
    weight: usize,
    depth: usize,
}

impl<T> std::ops::Deref for Bounded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.items
    }
}

/// Bytes of a list or map written out at most.
const HEAVIEST: usize = 4 << 20;
/// Lists and maps within each other at most.
const DEEPEST: usize = 60;

fn bounded<T>(items: T, weight: usize, depth: usize) -> Result<Rc<Bounded<T>>, String> {
    if weight > HEAVIEST || depth > DEEPEST {
        return Err("makes a list or map that is too large".to_owned());
    }
    Ok(Rc::new(Bounded {
        items,
        weight,
        depth,
    }))
}

impl Value {
    /// Text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A list.
    ///
    /// # Errors
    /// It is too large, or nested too deep.
    pub(crate) fn list(items: Vec<Self>) -> Result<Self, String> {
        let weight = items
            .iter()
            .fold(8, |sum: usize, item| sum.saturating_add(item.weight()));
        let depth = items.iter().map(Self::depth).max().unwrap_or(0) + 1;
        bounded(items, weight, depth).map(Self::List)
    }

    /// A map.
    ///
    /// # Errors
    /// It is too large, or nested too deep.
    pub(crate) fn map(items: BTreeMap<String, Self>) -> Result<Self, String> {
        let weight = items.iter().fold(8, |sum: usize, (name, item)| {
            sum.saturating_add(item.weight())
                .saturating_add(name.len() + 8)
        });
        let depth = items.values().map(Self::depth).max().unwrap_or(0) + 1;
        bounded(items, weight, depth).map(Self::Map)
    }

    /// Bytes of it written out, about.
    fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len().saturating_add(16),
            Self::List(list) => list.weight,
            Self::Map(map) => map.weight,
            _ => 24,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// What messages call its kind, in Go's words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Fields(_) => "fields",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// Go's idea of truth.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            // A struct is always true.
            Self::Fields(_) => true,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Bytes it holds on to.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.len().saturating_mul(16),
            Self::Map(map) => map.len().saturating_mul(32),
            _ => 8,
        }
    }
}

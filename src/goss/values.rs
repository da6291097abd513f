//! Values of files as values of templates, and back.

use serde_json::Value;

use crate::template::go;

/// For a template.
pub(super) fn to_template(value: &Value) -> Result<go::Value, String> {
    Ok(match value {
        Value::Null => go::Value::Nil,
        Value::Bool(value) => go::Value::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => go::Value::Int(whole),
            (None, Some(fraction)) => go::Value::Float(fraction),
            (None, None) => go::Value::text(&number.to_string()),
        },
        Value::String(text) => go::Value::text(text),
        Value::Array(items) => {
            let items: Result<Vec<go::Value>, String> = items.iter().map(to_template).collect();
            go::Value::list(items?)?
        }
        Value::Object(map) => {
            let mut entries = std::collections::BTreeMap::new();
            for (name, value) in map {
                entries.insert(name.clone(), to_template(value)?);
            }
            go::Value::map(entries)?
        }
    })
}

/// From a template.
pub(super) fn from_template(value: &go::Value) -> Value {
    match value {
        go::Value::Nil => Value::Null,
        go::Value::Bool(value) => Value::Bool(*value),
        go::Value::Int(number) => Value::from(*number),
        go::Value::Float(number) => Value::from(*number),
        go::Value::Text(text) => Value::String(text.to_string()),
        go::Value::Fields(fields) => fields
            .iter()
            .map(|(name, text)| (name.clone(), Value::String(text.clone())))
            .collect(),
        go::Value::List(list) => Value::Array(list.iter().map(from_template).collect()),
        go::Value::Map(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), from_template(value)))
            .collect(),
    }
}

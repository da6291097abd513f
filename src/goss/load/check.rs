//! One check from its attributes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::matcher::{Matcher, Wrong, plain};
use super::super::shape::{Kind, Setting, Shape};
use super::Check;
use crate::seed::nearest;
use crate::seed::yaml::{Mark, Node};

/// Attributes of all types.
const OF_ALL: [&str; 3] = ["title", "meta", "skip"];

/// A day: no timeout is longer.
const LONGEST: u64 = 86_400_000;

/// Reads one.
pub(super) fn read(kind: Kind, key: &Node, node: &Node, file: &Arc<Path>) -> Result<Check, Wrong> {
    let shape = kind.shape();
    let id = key.key_text();
    let mut check = Check {
        kind,
        subject: id.clone(),
        id,
        title: None,
        meta: Map::new(),
        skip: false,
        file: Arc::clone(file),
        line: key.mark.line,
        properties: Vec::new(),
        settings: BTreeMap::new(),
    };
    let nothing = || {
        let list = shape.properties.join(", ");
        Wrong::new(
            key.mark,
            format!("{} '{}' asserts nothing", shape.name, key.key_text()),
        )
        .or(format!("say what is expected of {list}"))
    };
    let Some(entries) = node.map() else {
        return Err(match plain(node)? {
            Value::Null => nothing(),
            _ => Wrong::new(node.mark, "attributes and their values belong here"),
        });
    };
    for (name, value) in entries {
        attribute(shape, &mut check, &name.key_text(), name.mark, value)?;
    }
    let order = |name: &str| shape.properties.iter().position(|known| *known == name);
    check.properties.sort_by_key(|(name, _)| order(name));
    if check.properties.is_empty() {
        return Err(nothing());
    }
    sound(&check, key.mark)?;
    Ok(check)
}

fn attribute(
    shape: &Shape,
    check: &mut Check,
    name: &str,
    mark: Mark,
    value: &Node,
) -> Result<(), Wrong> {
    let text = || match plain(value)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Wrong::new(value.mark, format!("{name} is text"))),
    };
    let flag = || match plain(value)? {
        Value::Bool(value) => Ok(value),
        _ => Err(Wrong::new(value.mark, format!("{name} is true or false"))),
    };
    match name {
        "title" => {
            check.title = Some(text()?);
            return Ok(());
        }
        "meta" => {
            let Value::Object(map) = plain(value)? else {
                return Err(Wrong::new(value.mark, "meta is a map"));
            };
            check.meta = map;
            return Ok(());
        }
        "skip" => {
            check.skip = flag()?;
            return Ok(());
        }
        _ => {}
    }
    if name == shape.key {
        check.subject = text()?;
        return Ok(());
    }
    if let Some(known) = shape.properties.iter().find(|known| **known == name) {
        let matcher = Matcher::parse(value)?;
        if *known == "mode" && matcher.written().is_number() {
            return Err(Wrong::new(
                value.mark,
                "a mode is text: YAML reads 0644 as another number",
            )
            .or("quote it: mode: \"0644\""));
        }
        check.properties.push((known, matcher));
        return Ok(());
    }
    let Some((known, setting)) = shape.settings.iter().find(|(known, _)| *known == name) else {
        return Err(unknown(shape, name, mark));
    };
    let value = match setting {
        Setting::Text => Value::String(text()?),
        Setting::Flag => Value::Bool(flag()?),
        Setting::Any => plain(value)?,
        Setting::Number => {
            let number = plain(value)?.as_u64();
            let number = number.filter(|number| (1..=LONGEST).contains(number));
            let wrong = || {
                Wrong::new(
                    value.mark,
                    format!("{name} is a number of milliseconds, 1 to {LONGEST}"),
                )
            };
            Value::from(number.ok_or_else(wrong)?)
        }
        Setting::Lines => {
            let plain = plain(value)?;
            let items = plain.as_array();
            if items.is_none_or(|items| !items.iter().all(Value::is_string)) {
                return Err(Wrong::new(value.mark, format!("{name} is a list of texts")));
            }
            plain
        }
    };
    check.settings.insert(known, value);
    Ok(())
}

fn unknown(shape: &Shape, name: &str, mark: Mark) -> Wrong {
    let wrong = Wrong::new(mark, format!("{} has no attribute '{name}'", shape.name));
    if shape.kind == Kind::File && name == "contains" {
        return wrong.or("it is called contents");
    }
    let settings = shape.settings.iter().map(|(name, _)| *name);
    let key = Some(shape.key).filter(|key| !key.is_empty());
    let known = { shape.properties.iter().copied() }
        .chain(settings)
        .chain(key)
        .chain(OF_ALL);
    match nearest(name, known.clone()) {
        Some(near) => wrong.or(format!("did you mean {near}?")),
        None => wrong.or(format!("it has {}", known.collect::<Vec<_>>().join(", "))),
    }
}

/// What one attribute alone does not tell.
fn sound(check: &Check, mark: Mark) -> Result<(), Wrong> {
    let wrong = |message: String| Wrong::new(mark, message);
    let subject = &check.subject;
    if subject.contains('\0') || subject.is_empty() {
        return Err(wrong(
            "the name is empty, or has a zero byte in it".to_owned(),
        ));
    }
    match check.kind {
        Kind::Port => {
            crate::goss::facts::net::Port::parse(subject).ok_or_else(|| {
                wrong(format!("'{subject}' is no port"))
                    .or("write tcp:22, tcp4:22, tcp6:22, udp:53, udp4:53 or udp6:53")
            })?;
        }
        Kind::Addr => {
            crate::goss::probe::address(subject).ok_or_else(|| {
                wrong(format!("'{subject}' is no address"))
                    .or("write tcp://HOST:PORT; whether a UDP port is open cannot be seen")
            })?;
        }
        Kind::Matching if !check.settings.contains_key("content") => {
            return Err(wrong("there is no content to be compared".to_owned()));
        }
        Kind::Dns => {
            let (record, _) = crate::goss::probe::record(subject);
            if record.is_some() && check.text("server").is_none() {
                return Err(wrong(format!("'{subject}' needs a server to be asked"))
                    .or("add server: 192.0.2.1"));
            }
        }
        Kind::Http => {
            let url = subject.to_lowercase();
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(wrong(format!("'{subject}' is no URL of HTTP")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The name or pattern of an include, and whether it is left out.
pub(super) fn include(key: &Node, node: &Node) -> Result<(String, bool), Wrong> {
    let mut name = key.key_text();
    let mut skip = false;
    let entries = match (node.map(), plain(node)?) {
        (Some(entries), _) => entries,
        (None, Value::Null) => &[],
        _ => {
            return Err(Wrong::new(
                node.mark,
                "file and skip belong here, or nothing",
            ));
        }
    };
    for (attribute, value) in entries {
        match (attribute.key_text().as_str(), plain(value)?) {
            ("file", Value::String(file)) => name = file,
            ("skip", Value::Bool(value)) => skip = value,
            ("file" | "skip", _) => {
                return Err(Wrong::new(
                    value.mark,
                    "file is text, skip is true or false",
                ));
            }
            ("title" | "meta", _) => {}
            (other, _) => {
                return Err(Wrong::new(
                    attribute.mark,
                    format!("gossfile has no attribute '{other}'"),
                )
                .or("it has file and skip"));
            }
        }
    }
    if name.is_empty() || name.contains('\0') {
        return Err(Wrong::new(key.mark, "the name of the file is empty"));
    }
    Ok((name, skip))
}

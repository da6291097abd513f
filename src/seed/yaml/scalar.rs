//! What a scalar is: the implicit types of YAML 1.1 by the patterns that PyYAML resolves with.
//!
//! Knows words and tags. Must not know events.

use saphyr_parser::Tag;

use super::Value;

/// The value of a scalar; an explicit tag decides, else a plain word's look, else it is text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(if plain {
            implicit(text)
        } else {
            Value::Text(text.to_owned())
        });
    };
    if tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(Value::Text(text.to_owned()));
    }
    let typed = |wanted: fn(&Value) -> bool| {
        let value = implicit(text);
        if wanted(&value) {
            Ok(value)
        } else {
            Err(format!("this is no {}", tag.suffix))
        }
    };
    if !tag.is_yaml_core_schema() {
        return Err("a tag that cloud-init does not load".to_owned());
    }
    match tag.suffix.as_str() {
        "str" => Ok(Value::Text(text.to_owned())),
        "binary" => Ok(Value::Binary),
        "null" => Ok(Value::Null),
        "bool" => typed(|value| matches!(value, Value::Bool(_))),
        "int" => typed(|value| matches!(value, Value::Int(_))),
        "float" => typed(|value| matches!(value, Value::Float(_) | Value::Int(_))),
        "timestamp" => typed(|value| matches!(value, Value::Timestamp)),
        "python/unicode" => Ok(Value::Text(text.to_owned())),
        _ => Err("a tag that cloud-init does not load".to_owned()),
    }
}

/// What a plain word is.
pub(crate) fn implicit(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if let Some(value) = integer(digits) {
        let value = value.and_then(|value| {
            if negative {
                value.checked_neg()
            } else {
                Some(value)
            }
        });
        return Value::Int(value);
    }
    if is_float(digits, text) {
        let value = text.replace('_', "").parse();
        return Value::Float(value.unwrap_or(f64::NAN));
    }
    if is_timestamp(text) {
        return Value::Timestamp;
    }
    Value::Text(text.to_owned())
}

/// What a plain word is by the core schema of YAML 1.2.
#[cfg(feature = "build")]
pub(super) fn core(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = [("0x", 16), ("0o", 8)].into_iter();
    for (prefix, radix) in radix {
        if let Some(rest) = text.strip_prefix(prefix)
            && !rest.is_empty()
            && rest.chars().all(|c| c.is_digit(radix))
        {
            return Value::Int(i64::from_str_radix(rest, radix).ok());
        }
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Value::Int(text.parse().ok());
    }
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
            return Value::Float(f64::INFINITY * sign);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let fraction = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match text.parse() {
        Ok(value) if fraction => Value::Float(value),
        _ => Value::Text(text.to_owned()),
    }
}

/// An integer without its sign: binary, octal, decimal, hexadecimal or in base 60. The inner `None` is one beyond 64 bits.
fn integer(text: &str) -> Option<Option<i64>> {
    let only = |text: &str, wanted: fn(char) -> bool| {
        !text.is_empty() && text.chars().all(|c| c == '_' || wanted(c))
    };
    let parse = |text: &str, radix| Some(i64::from_str_radix(&text.replace('_', ""), radix).ok());
    if let Some(rest) = text.strip_prefix("0b") {
        return only(rest, |c| matches!(c, '0' | '1')).then(|| parse(rest, 2))?;
    }
    if let Some(rest) = text.strip_prefix("0x") {
        return only(rest, |c| c.is_ascii_hexdigit()).then(|| parse(rest, 16))?;
    }
    if text == "0" {
        return Some(Some(0));
    }
    if let Some(rest) = text.strip_prefix('0') {
        return only(rest, |c| matches!(c, '0'..='7')).then(|| parse(rest, 8))?;
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut parts = text.split(':');
    let first = parts.next()?;
    if !only(first, |c| c.is_ascii_digit()) {
        return None;
    }
    let mut value = parse(first, 10)?;
    for part in parts {
        if !is_sixtieth(part) {
            return None;
        }
        let more = part.parse::<i64>().ok()?;
        value = value.and_then(|value| value.checked_mul(60)?.checked_add(more));
    }
    Some(value)
}

/// `[0-5]?[0-9]`.
fn is_sixtieth(part: &str) -> bool {
    match part.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [tens, digit] => (b'0'..=b'5').contains(tens) && digit.is_ascii_digit(),
        _ => false,
    }
}

fn is_float(unsigned: &str, whole: &str) -> bool {
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(whole, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    // The sign of an exponent is not optional.
    let exponent_fits = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['+', '-'])
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    });
    let Some((before, after)) = mantissa.split_once('.') else {
        return false;
    };
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    if !exponent_fits || !digits(after) {
        return false;
    }
    if before.is_empty() {
        return unsigned == whole && after.starts_with(|c: char| c.is_ascii_digit());
    }
    let mut parts = before.split(':');
    let first = parts.next().unwrap_or_default();
    let sixtieths: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && sixtieths.iter().all(|part| is_sixtieth(part))
        && (sixtieths.is_empty() || exponent.is_none())
}

/// `2001-12-14`, or a date and a time with what may stand behind it.
fn is_timestamp(text: &str) -> bool {
    let number = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (date, time) = match text.find(['T', 't', ' ', '\t']) {
        Some(at) => (&text[..at], Some(text[at + 1..].trim_start())),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some(time) = time else {
        return number(year, 4, 4) && number(month, 2, 2) && number(day, 2, 2);
    };
    if !(number(year, 4, 4) && number(month, 1, 2) && number(day, 1, 2)) {
        return false;
    }
    let clock_end = time
        .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
        .unwrap_or(time.len());
    let (clock, zone) = time.split_at(clock_end);
    let clock = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let mut parts = clock.split(':');
    let (Some(hour), Some(minute), Some(second), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let zone = zone.trim_start();
    let zone_fits = zone.is_empty()
        || zone == "Z"
        || zone
            .strip_prefix(['+', '-'])
            .is_some_and(|zone| match zone.split_once(':') {
                Some((hours, minutes)) => number(hours, 1, 2) && number(minutes, 2, 2),
                None => number(zone, 1, 2),
            });
    number(hour, 1, 2) && number(minute, 2, 2) && number(second, 2, 2) && zone_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_are_what_pyyaml_takes_them_for() {
        for (text, value) in [
            ("0644", Value::Int(Some(0o644))),
            ("0o644", Value::Text("0o644".into())),
            ("1_000", Value::Int(Some(1000))),
            ("-0x1f", Value::Int(Some(-31))),
            ("12:30:45", Value::Int(Some(45_045))),
            ("089", Value::Text("089".into())),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Text("1e3".into())),
            ("1.0e+3", Value::Float(1000.0)),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("on", Value::Bool(true)),
            ("y", Value::Text("y".into())),
            ("", Value::Null),
            ("2012-09-01", Value::Timestamp),
            ("2012-9-1", Value::Text("2012-9-1".into())),
            ("2012-9-1T10:20:30Z", Value::Timestamp),
            ("99999999999999999999", Value::Int(None)),
            (
                "52:54:00:12:34:00",
                Value::Int(Some(((((52 * 60 + 54) * 60) * 60 + 12) * 60 + 34) * 60)),
            ),
            ("-", Value::Text("-".into())),
        ] {
            assert_eq!(implicit(text), value, "{text}");
        }
    }
}

//! Values as text: what Go's fmt prints for them.

use super::value::Value;

/// Width and precision at most; Go draws the same line.
const WIDEST: i64 = 1_000_000;

/// One value, as `{{ . }}` prints it.
pub(crate) fn print_one(value: &Value) -> String {
    match value {
        Value::Nil => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => general(*value, None, false),
        Value::Text(text) => text.to_string(),
        Value::Fields(fields) => {
            let values: Vec<&str> = fields.values().map(String::as_str).collect();
            format!("{{{}}}", values.join(" "))
        }
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(print_one).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(name, item)| format!("{name}:{}", print_one(item)))
                .collect();
            format!("map[{}]", items.join(" "))
        }
    }
}

/// Values side by side, with a space between two of which none is text.
pub(super) fn print(values: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        let is_text = |value: &Value| value.as_text().is_some();
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            text.push(' ');
        }
        text.push_str(&print_one(value));
        before = Some(value);
    }
    text
}

/// Shortest or given precision, with an exponent where the number is small or large.
fn general(value: f64, precision: Option<usize>, alternate: bool) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".to_owned()
        } else {
            (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
        };
    }
    let scientific = match precision {
        None => format!("{value:e}"),
        Some(precision) => format!("{:.*e}", precision.max(1) - 1, value),
    };
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = match precision {
        None => 6,
        Some(precision) => i32::try_from(precision.max(1)).unwrap_or(i32::MAX),
    };
    let strip = |text: String| {
        if alternate || !text.contains('.') {
            return text;
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if exponent < -4 || exponent >= limit {
        return format!("{}{}", strip(digits.to_owned()), exponent_text(exponent));
    }
    match precision {
        None => format!("{value}"),
        Some(precision) => {
            let places = i32::try_from(precision.max(1)).unwrap_or(i32::MAX) - 1 - exponent;
            strip(format!(
                "{:.*}",
                usize::try_from(places).unwrap_or(0),
                value
            ))
        }
    }
}

/// Go writes two digits of an exponent at least.
fn exponent_text(exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("e{sign}{:02}", exponent.unsigned_abs())
}

#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Spec {
    fn pad(&self, text: &str, numeric: bool) -> String {
        let length = text.chars().count();
        let Some(missing) = self.width.and_then(|width| width.checked_sub(length)) else {
            return text.to_owned();
        };
        if self.minus {
            return format!("{text}{}", " ".repeat(missing));
        }
        if self.zero {
            // Zeros go between the sign and the digits.
            let sign = numeric && text.starts_with(['+', '-']);
            let (sign, digits) = text.split_at(usize::from(sign));
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        format!("{}{text}", " ".repeat(missing))
    }

    fn signed(&self, text: String) -> String {
        if text.starts_with(['-', '+']) {
            return text;
        }
        if self.plus {
            format!("+{text}")
        } else if self.space {
            format!(" {text}")
        } else {
            text
        }
    }

    fn int(&self, value: i64, verb: char) -> Option<String> {
        let magnitude = value.unsigned_abs();
        let (digits, prefix) = match verb {
            'd' | 'v' => (magnitude.to_string(), ""),
            'b' => (format!("{magnitude:b}"), "0b"),
            'o' => (format!("{magnitude:o}"), "0"),
            'O' => (format!("0o{magnitude:o}"), ""),
            'x' => (format!("{magnitude:x}"), "0x"),
            'X' => (format!("{magnitude:X}"), "0X"),
            'c' => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                return Some(self.pad(&c.unwrap_or('\u{fffd}').to_string(), false));
            }
            'U' => return Some(self.pad(&format!("U+{magnitude:04X}"), false)),
            'q' => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                return Some(self.pad(&quote(&c.unwrap_or('\u{fffd}').to_string(), '\''), false));
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 's' | 't' => return None,
            _ => return None,
        };
        let missing = self.precision.unwrap_or(0).saturating_sub(digits.len());
        let mut text = format!("{}{digits}", "0".repeat(missing));
        if self.precision == Some(0) && value == 0 {
            text.clear();
        }
        if self.sharp {
            text = format!("{prefix}{text}");
        }
        if value < 0 {
            text = format!("-{text}");
        }
        let plain = Self {
            zero: self.zero && self.precision.is_none(),
            ..*self
        };
        Some(plain.pad(&self.signed(text), true))
    }

    fn float(&self, value: f64, verb: char) -> Option<String> {
        let text = match verb {
            'e' | 'E' => {
                let text = format!("{:.*e}", self.precision.unwrap_or(6), value);
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                format!("{digits}{}", exponent_text(exponent.parse().unwrap_or(0)))
            }
            'f' | 'F' => format!("{:.*}", self.precision.unwrap_or(6), value),
            'g' | 'G' | 'v' => general(value, self.precision, self.sharp),
            _ => return None,
        };
        let text = if verb.is_ascii_uppercase() && verb != 'F' {
            text.to_uppercase()
        } else {
            text
        };
        Some(self.pad(&self.signed(text), true))
    }

    fn text(&self, value: &str, verb: char) -> Option<String> {
        let cut: String = match self.precision {
            Some(most) => value.chars().take(most).collect(),
            None => value.to_owned(),
        };
        let text = match verb {
            's' | 'v' => cut,
            'q' if self.sharp && !cut.contains('`') && !cut.contains(char::is_control) => {
                format!("`{cut}`")
            }
            'q' => quote(&cut, '"'),
            'x' | 'X' => {
                let most = self.precision.unwrap_or(usize::MAX);
                let bytes = value.bytes().take(most);
                let mut words: Vec<String> = bytes
                    .map(|byte| match verb {
                        'x' => format!("{byte:02x}"),
                        _ => format!("{byte:02X}"),
                    })
                    .collect();
                let prefix = if verb == 'x' { "0x" } else { "0X" };
                if self.sharp && self.space {
                    words.iter_mut().for_each(|word| word.insert_str(0, prefix));
                } else if self.sharp && !words.is_empty() {
                    words.insert(0, prefix.to_owned());
                }
                words.join(if self.space { " " } else { "" })
            }
            _ => return None,
        };
        Some(self.pad(&text, false))
    }

    fn value(&self, value: &Value, verb: char) -> String {
        let text = match (value, verb) {
            (Value::Nil, 'v') => Some(self.pad("<nil>", false)),
            (_, 'T') => Some(self.pad(value.kind(), false)),
            (Value::Bool(value), 't' | 'v') => Some(self.pad(&value.to_string(), false)),
            (Value::Int(value), _) => self.int(*value, verb),
            (Value::Float(value), _) => self.float(*value, verb),
            (Value::Text(text), _) => self.text(text, verb),
            (Value::Fields(_) | Value::List(_) | Value::Map(_), _) => Some(print_one(value)),
            _ => None,
        };
        text.unwrap_or_else(|| match value {
            Value::Nil => format!("%!{verb}(<nil>)"),
            value => format!("%!{verb}({}={})", value.kind(), print_one(value)),
        })
    }
}

/// A string or character in Go's quotes.
fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            c if c == mark => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c < ' ' || c == '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}

/// Text in Go's double quotes.
pub(super) fn quoted(text: &str) -> String {
    quote(text, '"')
}

/// `format` with its verbs filled in; more than `most` bytes are refused.
pub(super) fn printf(format: &str, values: &[Value], most: usize) -> Result<String, String> {
    let mut output = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0usize;
    let mut reordered = false;
    while let Some(c) = chars.next() {
        if output.len() > most {
            return Err("makes a text that is too long".to_owned());
        }
        if c != '%' {
            output.push(c);
            continue;
        }
        let mut spec = Spec::default();
        let mut bad_index = false;
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            match flag {
                '-' => {
                    spec.minus = true;
                    spec.zero = false;
                }
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                _ => spec.zero = !spec.minus,
            }
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
                      next: &mut usize,
                      output: &mut String,
                      what: &str|
         -> Option<i64> {
            if chars.next_if_eq(&'*').is_some() {
                let value = values.get(*next);
                *next += 1;
                return match value {
                    Some(Value::Int(value)) if value.abs() <= WIDEST => Some(*value),
                    _ => {
                        output.push_str(&format!("%!(BAD{what})"));
                        None
                    }
                };
            }
            let mut found = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                let value = found.unwrap_or(0) * 10 + i64::from(digit);
                found = Some(value.min(WIDEST + 1));
            }
            found.filter(|value| *value <= WIDEST)
        };
        reordered |= argument_number(&mut chars, &mut next, values.len(), &mut bad_index);
        if let Some(width) = number(&mut chars, &mut next, &mut output, "WIDTH") {
            spec.minus |= width < 0;
            spec.zero &= width >= 0;
            spec.width = usize::try_from(width.unsigned_abs()).ok();
        }
        if chars.next_if_eq(&'.').is_some() {
            reordered |= argument_number(&mut chars, &mut next, values.len(), &mut bad_index);
            let precision = number(&mut chars, &mut next, &mut output, "PREC").unwrap_or(0);
            spec.precision = usize::try_from(precision).ok();
        }
        reordered |= argument_number(&mut chars, &mut next, values.len(), &mut bad_index);
        if spec.width.unwrap_or(0).max(spec.precision.unwrap_or(0)) > most {
            return Err("makes a text that is too long".to_owned());
        }
        let Some(verb) = chars.next() else {
            output.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            output.push('%');
        } else if bad_index {
            output.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = values.get(next) {
            output.push_str(&spec.value(value, verb));
            next += 1;
        } else {
            output.push_str(&format!("%!{verb}(MISSING)"));
        }
    }
    if !reordered && next < values.len() {
        let words: Vec<String> = values[next..]
            .iter()
            .map(|value| match value {
                Value::Nil => "<nil>".to_owned(),
                value => format!("{}={}", value.kind(), print_one(value)),
            })
            .collect();
        output.push_str(&format!("%!(EXTRA {})", words.join(", ")));
    }
    Ok(output)
}

/// `[n]`: which argument comes next.
fn argument_number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    next: &mut usize,
    count: usize,
    bad: &mut bool,
) -> bool {
    if chars.peek() != Some(&'[') {
        return false;
    }
    let ahead: String = chars.clone().skip(1).take_while(|c| *c != ']').collect();
    let closed = chars.clone().any(|c| c == ']');
    if !closed {
        chars.next();
        *bad = true;
        return true;
    }
    for _ in 0..ahead.chars().count() + 2 {
        chars.next();
    }
    match ahead.parse::<usize>() {
        Ok(number) if (1..=count).contains(&number) => *next = number - 1,
        _ => *bad = true,
    }
    true
}

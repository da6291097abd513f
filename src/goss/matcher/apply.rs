//! Matchers applied: by which type a value is compared, and what is told of it.

use serde_json::Value;

use super::pairs::pair;
use super::versions::version;
use super::{Actual, Matcher, Order, Rule, Verdict};

/// Comparisons of one list of matchers with one list at most.
const MOST_PAIRS: usize = 4_000_000;

/// Characters of a long text in what is told.
const SHOWN: usize = 2000;

impl Matcher {
    /// Compares.
    ///
    /// # Errors
    /// The value is of no type that can be compared.
    pub fn compare(&self, actual: &Actual) -> Result<Verdict, String> {
        let mut verdict = self.judge(actual)?;
        let raw = shown(actual);
        if !verdict.transform_chain.is_empty() && raw != verdict.actual {
            verdict.raw = Some(raw);
        }
        Ok(verdict)
    }

    fn judge(&self, actual: &Actual) -> Result<Verdict, String> {
        let told = |passed, actual: Value, message: &str, expected: Value| Verdict {
            passed,
            actual,
            message: message.to_owned(),
            expected,
            missing_elements: Vec::new(),
            extra_elements: Vec::new(),
            transform_chain: Vec::new(),
            raw: None,
        };
        let inner = || match &self.written {
            Value::Object(map) => map.values().next().cloned().unwrap_or(Value::Null),
            other => other.clone(),
        };
        Ok(match &self.rule {
            Rule::Text(expected) => {
                let (text, chain) = to_text(actual);
                let mut verdict = told(text == *expected, short(&text), "to equal", inner());
                verdict.transform_chain = chain;
                verdict
            }
            Rule::Bool(expected) => {
                let passed = *actual == Actual::Value(Value::Bool(*expected));
                told(passed, shown(actual), "to equal", inner())
            }
            Rule::Number(expected) => {
                let (number, chain) = to_number(actual)?;
                let mut verdict = told(
                    same(number, *expected),
                    plain_number(number),
                    "to equal",
                    inner(),
                );
                verdict.transform_chain = chain;
                verdict
            }
            Rule::List(matchers, patterns) => match (actual, patterns) {
                (Actual::Text(text), Some(patterns)) => has_patterns(patterns, text, &self.written),
                _ => contains(matchers, actual, &self.written)?,
            },
            Rule::Patterns(patterns) => {
                let (text, _) = to_text(actual);
                has_patterns(patterns, &text, &inner())
            }
            Rule::Equal => {
                let expected = inner();
                let found = match actual {
                    Actual::Value(value) => value.clone(),
                    Actual::Text(text) => Value::String(text.clone()),
                };
                told(
                    equal(&found, &expected),
                    shown(actual),
                    "to equal",
                    expected,
                )
            }
            Rule::Prefix(part) => on_text(actual, "to have prefix", inner(), |text| {
                text.starts_with(part)
            }),
            Rule::Suffix(part) => on_text(actual, "to have suffix", inner(), |text| {
                text.ends_with(part)
            }),
            Rule::Substring(part) => on_text(actual, "to contain substring", inner(), |text| {
                text.contains(part)
            }),
            Rule::Regexp(expression) => {
                on_text(actual, "to match regular expression", inner(), |text| {
                    expression.is_match(text)
                })
            }
            Rule::Length(matcher) => {
                let length = match actual {
                    Actual::Text(text) => text.len(),
                    Actual::Value(Value::String(text)) => text.len(),
                    Actual::Value(Value::Array(list)) => list.len(),
                    Actual::Value(Value::Object(map)) => map.len(),
                    Actual::Value(other) => {
                        return Err(format!("{other} has no length"));
                    }
                };
                let inside = matcher.judge(&Actual::Value(Value::from(length)))?;
                told(inside.passed, shown(actual), "to have length", inner())
            }
            Rule::Key(matcher) => {
                let map = object(actual)?;
                let keys = map.keys().cloned().map(Value::String);
                let passed = any(matcher, keys);
                told(passed, shown(actual), "to have key matching", inner())
            }
            Rule::KeyWithValue(pairs) => {
                let map = object(actual)?;
                let passed = pairs.iter().all(|(key, matcher)| {
                    map.get(key)
                        .is_some_and(|value| any(matcher, std::iter::once(value.clone())))
                });
                told(passed, shown(actual), "to have key with value", inner())
            }
            Rule::Element(matcher) => {
                let (items, chain) = to_list(actual)?;
                let passed = any(matcher, items.iter().cloned());
                let mut verdict = told(
                    passed,
                    short_list(&items),
                    "to contain element matching",
                    inner(),
                );
                verdict.transform_chain = chain;
                verdict
            }
            Rule::Elements(matchers) => contains(matchers, actual, &inner())?,
            Rule::ConsistOf(matchers) => consists(matchers, actual, &inner())?,
            Rule::Not(matcher) => {
                let mut verdict = matcher.judge(actual)?;
                verdict.passed = !verdict.passed;
                verdict.message = match verdict.message.strip_prefix("not ") {
                    Some(rest) => rest.to_owned(),
                    None => format!("not {}", verdict.message),
                };
                verdict.missing_elements.clear();
                verdict.extra_elements.clear();
                verdict
            }
            Rule::And(matchers) => {
                let mut last = None;
                for matcher in matchers {
                    let verdict = matcher.judge(actual)?;
                    if !verdict.passed {
                        return Ok(verdict);
                    }
                    last = Some(verdict);
                }
                let passed = last.is_some();
                told(passed, shown(actual), "to satisfy all of", inner())
            }
            Rule::Or(matchers) => {
                let mut error = None;
                for matcher in matchers {
                    match matcher.judge(actual) {
                        Ok(verdict) if verdict.passed => {
                            return Ok(told(
                                true,
                                verdict.actual,
                                "to satisfy at least one of",
                                inner(),
                            ));
                        }
                        Ok(_) => {}
                        Err(why) => error = Some(why),
                    }
                }
                match error {
                    Some(error) if matchers.len() == 1 => return Err(error),
                    _ => told(false, shown(actual), "to satisfy at least one of", inner()),
                }
            }
            Rule::Numeric(order, expected) => {
                let (number, chain) = to_number(actual)?;
                let (passed, message) = match order {
                    Order::Gt => (number > *expected, "to be >"),
                    Order::Ge => (number >= *expected, "to be >="),
                    Order::Lt => (number < *expected, "to be <"),
                    Order::Le => (number <= *expected, "to be <="),
                };
                let mut verdict = told(passed, plain_number(number), message, inner());
                verdict.transform_chain = chain;
                verdict
            }
            Rule::Semver(constraint) => {
                let items = match actual {
                    Actual::Value(Value::Array(items)) => items.clone(),
                    Actual::Value(Value::String(text)) => vec![Value::String(text.clone())],
                    Actual::Text(text) => vec![Value::String(text.trim_end().to_owned())],
                    Actual::Value(other) => return Err(format!("{other} is no semantic version")),
                };
                let mut passed = !items.is_empty();
                for item in &items {
                    let text = item
                        .as_str()
                        .map_or_else(|| item.to_string(), str::to_owned);
                    passed &= constraint.holds(&version(&text)?);
                }
                told(
                    passed,
                    shown(actual),
                    "to satisfy semver constraint",
                    inner(),
                )
            }
            Rule::Gjson(paths) => {
                let (text, _) = to_text(actual);
                let root: Value = match actual {
                    Actual::Value(value @ (Value::Object(_) | Value::Array(_))) => value.clone(),
                    _ => serde_json::from_str(&text)
                        .map_err(|error| format!("this is no JSON: {error}"))?,
                };
                for (path, matcher) in paths {
                    let found = path
                        .find(&root)
                        .ok_or_else(|| format!("path not found: {}", path.written))?;
                    let mut verdict = matcher.judge(&Actual::Value(found))?;
                    if !verdict.passed {
                        verdict
                            .transform_chain
                            .insert(0, format!("gjson {}", path.written));
                        return Ok(verdict);
                    }
                }
                told(true, shown(actual), "to have in its JSON", inner())
            }
        })
    }
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a - b).abs() == 0.0
}

/// Equality without a change of types, but for the two kinds of numbers.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| same(a, b))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn object(actual: &Actual) -> Result<serde_json::Map<String, Value>, String> {
    match actual {
        Actual::Value(Value::Object(map)) => Ok(map.clone()),
        _ => Err("this is no map".to_owned()),
    }
}

/// Whether one of `items` is as the matcher wants it; what it cannot be compared with is not.
fn any(matcher: &Matcher, mut items: impl Iterator<Item = Value>) -> bool {
    items.any(|item| {
        matcher
            .judge(&Actual::Value(item))
            .is_ok_and(|verdict| verdict.passed)
    })
}

fn on_text(
    actual: &Actual,
    message: &str,
    expected: Value,
    holds: impl Fn(&str) -> bool,
) -> Verdict {
    let (text, transform_chain) = to_text(actual);
    Verdict {
        passed: holds(&text),
        actual: short(&text),
        message: message.to_owned(),
        expected,
        missing_elements: Vec::new(),
        extra_elements: Vec::new(),
        transform_chain,
        raw: None,
    }
}

fn has_patterns(patterns: &[super::Pattern], text: &str, expected: &Value) -> Verdict {
    let missing: Vec<Value> = patterns
        .iter()
        .filter(|pattern| !pattern.holds(text))
        .map(|pattern| Value::String(pattern.written.clone()))
        .collect();
    Verdict {
        passed: missing.is_empty(),
        actual: short(text),
        message: "to have patterns".to_owned(),
        expected: expected.clone(),
        missing_elements: missing,
        extra_elements: Vec::new(),
        transform_chain: Vec::new(),
        raw: None,
    }
}

/// Which matcher fits which item.
fn table(matchers: &[Matcher], items: &[Value]) -> Result<Vec<Vec<bool>>, String> {
    if matchers.len().saturating_mul(items.len()) > MOST_PAIRS {
        return Err("the list is too long to be compared".to_owned());
    }
    Ok(matchers
        .iter()
        .map(|matcher| {
            let fits = |item: &Value| any(matcher, std::iter::once(item.clone()));
            items.iter().map(fits).collect()
        })
        .collect())
}

fn contains(matchers: &[Matcher], actual: &Actual, expected: &Value) -> Result<Verdict, String> {
    let (items, transform_chain) = to_list(actual)?;
    let takes = pair(&table(matchers, &items)?, items.len());
    let missing: Vec<Value> = takes
        .iter()
        .zip(matchers)
        .filter(|(takes, _)| takes.is_none())
        .map(|(_, matcher)| matcher.written.clone())
        .collect();
    Ok(Verdict {
        passed: missing.is_empty(),
        actual: short_list(&items),
        message: "to contain elements matching".to_owned(),
        expected: expected.clone(),
        missing_elements: missing,
        extra_elements: Vec::new(),
        transform_chain,
        raw: None,
    })
}

fn consists(matchers: &[Matcher], actual: &Actual, expected: &Value) -> Result<Verdict, String> {
    let mut verdict = contains(matchers, actual, expected)?;
    let (items, _) = to_list(actual)?;
    let takes = pair(&table(matchers, &items)?, items.len());
    verdict.extra_elements = items
        .iter()
        .enumerate()
        .filter(|(at, _)| !takes.contains(&Some(*at)))
        .map(|(_, item)| item.clone())
        .collect();
    verdict.passed = verdict.missing_elements.is_empty() && verdict.extra_elements.is_empty();
    verdict.message = "to consist of".to_owned();
    Ok(verdict)
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() => plain_number(float).to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn to_text(actual: &Actual) -> (String, Vec<String>) {
    let changed = || vec!["to-string".to_owned()];
    match actual {
        Actual::Text(text) => (text.clone(), Vec::new()),
        Actual::Value(Value::String(text)) => (text.clone(), Vec::new()),
        Actual::Value(Value::Array(items)) => {
            let lines: Vec<String> = items.iter().map(scalar_text).collect();
            (lines.join("\n"), changed())
        }
        Actual::Value(other) => (scalar_text(other), changed()),
    }
}

fn to_number(actual: &Actual) -> Result<(f64, Vec<String>), String> {
    if let Actual::Value(Value::Number(number)) = actual {
        return number
            .as_f64()
            .map(|number| (number, Vec::new()))
            .ok_or_else(|| format!("{number} is no number that can be compared"));
    }
    if let Actual::Value(other @ (Value::Bool(_) | Value::Null | Value::Object(_))) = actual {
        return Err(format!("{other} is no number"));
    }
    let (text, _) = to_text(actual);
    let parsed: Option<f64> = text.trim().parse().ok();
    match parsed {
        Some(number) if !number.is_nan() => Ok((number, vec!["to-numeric".to_owned()])),
        _ => Err(format!("{} is no number", short(&text))),
    }
}

fn to_list(actual: &Actual) -> Result<(Vec<Value>, Vec<String>), String> {
    let split = |text: &str| -> (Vec<Value>, Vec<String>) {
        let lines = text.split('\n').map(|line| Value::String(line.to_owned()));
        (lines.collect(), vec!["to-array".to_owned()])
    };
    match actual {
        Actual::Text(text) => Ok(split(text.strip_suffix('\n').unwrap_or(text))),
        Actual::Value(Value::String(text)) => Ok(split(text)),
        Actual::Value(Value::Array(items)) => Ok((items.clone(), Vec::new())),
        Actual::Value(Value::Object(_)) => Err("this is a map, not a list".to_owned()),
        Actual::Value(other) => Ok((vec![other.clone()], vec!["to-array".to_owned()])),
    }
}

/// A whole number without a fraction.
fn plain_number(number: f64) -> Value {
    let text = format!("{number}");
    match text.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => serde_json::Number::from_f64(number).map_or(Value::String(text), Value::Number),
    }
}

/// Text, its beginning where it is long.
fn short(text: &str) -> Value {
    match text.char_indices().nth(SHOWN) {
        None => Value::String(text.to_owned()),
        Some((end, _)) => {
            let rest = text.len() - end;
            let start = text.get(..end).unwrap_or_default();
            Value::String(format!("{start}... ({rest} more bytes)"))
        }
    }
}

fn short_list(items: &[Value]) -> Value {
    let mut left = SHOWN;
    let mut shown = Vec::new();
    for item in items {
        let length = item.to_string().len();
        if length > left {
            shown.push(Value::String(format!(
                "... ({} more)",
                items.len() - shown.len()
            )));
            break;
        }
        left -= length;
        shown.push(item.clone());
    }
    Value::Array(shown)
}

fn shown(actual: &Actual) -> Value {
    match actual {
        Actual::Text(text) | Actual::Value(Value::String(text)) => short(text),
        Actual::Value(Value::Array(items)) => short_list(items),
        Actual::Value(other) => {
            let text = other.to_string();
            if text.len() > SHOWN {
                short(&text)
            } else {
                other.clone()
            }
        }
    }
}

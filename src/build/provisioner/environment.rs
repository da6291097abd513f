//! Variables that a script sees, as Packer gives them.
//!
//! Knows names, order and quoting. Must not know where a script runs.

use std::collections::BTreeMap;

use super::Context;
use crate::error::Result;
use crate::template::model::Text;

/// How a variable stands before a command.
pub(super) const BEFORE_COMMAND: &str = "%s='%s' ";

/// How a variable stands in a file that is read by a shell.
pub(super) const IN_FILE: &str = "export %s='%s'\n";

/// Packer's own variables and those of the template, which win; sorted by name.
pub(super) fn variables(
    environment: &[(String, Text)],
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>> {
    let facts = context.facts;
    let mut variables = BTreeMap::from([
        ("PACKER_BUILD_NAME".to_owned(), facts.name.clone()),
        ("PACKER_BUILDER_TYPE".to_owned(), facts.kind.clone()),
    ]);
    if let Some((address, port)) = &facts.http {
        variables.insert("PACKER_HTTP_ADDR".to_owned(), format!("{address}:{port}"));
        variables.insert("PACKER_HTTP_IP".to_owned(), address.clone());
        variables.insert("PACKER_HTTP_PORT".to_owned(), port.to_string());
    }
    for (name, value) in environment {
        variables.insert(name.clone(), context.texts.render(value, &[])?);
    }
    Ok(variables)
}

/// All of them in one text: `format` holds `%s` for the name and again for the value, in which `'` is written as
/// `'"'"'`.
pub(super) fn flattened(variables: &BTreeMap<String, String>, format: &str) -> String {
    let one =
        |(name, value): (&String, &String)| fill(format, name, &value.replace('\'', r#"'"'"'"#));
    variables.iter().map(one).collect()
}

/// As [`flattened`], but with what a shell reads the values by from its own environment: they themselves are not in it.
pub(super) fn referring(variables: &BTreeMap<String, String>, format: &str) -> String {
    // Between single quotes nothing is read from anywhere.
    let format = format.replace("'%s'", "\"%s\"");
    let quoted = format
        .rsplit_once("%s")
        .is_some_and(|(before, _)| before.ends_with('"'));
    let names = variables.keys().filter(|name| is_name(name));
    names
        .map(|name| {
            let value = if quoted {
                format!("${name}")
            } else {
                format!("\"${name}\"")
            };
            fill(&format, name, &value)
        })
        .collect()
}

/// `format` with `%s` replaced by name and value, and `%%` by `%`.
fn fill(format: &str, name: &str, value: &str) -> String {
    let mut values = [name, value].into_iter();
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = after;
        if let Some(behind) = after.strip_prefix('%') {
            out.push('%');
            rest = behind;
        } else if let Some(behind) = after.strip_prefix('s') {
            out.push_str(values.next().unwrap_or("%s"));
            rest = behind;
        } else {
            out.push('%');
        }
    }
    out.push_str(rest);
    out
}

/// Whether a shell can have a variable of this name.
fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, String> {
        [("B", "it's"), ("A", "1 $x"), ("a-b", "odd")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn variables_are_sorted_and_quoted() {
        assert_eq!(
            flattened(&sample(), BEFORE_COMMAND),
            r#"A='1 $x' B='it'"'"'s' a-b='odd' "#
        );
        assert_eq!(
            flattened(&sample(), "set %s=%s%%\n"),
            "set A=1 $x%\nset B=it'\"'\"'s%\nset a-b=odd%\n"
        );
    }

    #[test]
    fn what_refers_to_values_does_not_hold_them() {
        for format in [BEFORE_COMMAND, "export %s='%s'; ", "%s=\"%s\" ", "%s=%s "] {
            let text = referring(&sample(), format);
            assert!(!text.contains("it") && !text.contains("odd"), "{text}");
            let script = format!("{text} sh -c 'printf %s \"$A/$B\"'");
            let output = std::process::Command::new("dash")
                .args(["-c", &script])
                .env_clear()
                .envs([("PATH", "/usr/bin:/bin"), ("A", "1 $x"), ("B", "it's")])
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                "1 $x/it's",
                "{format}"
            );
        }
    }
}

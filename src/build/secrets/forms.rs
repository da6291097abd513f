//! How programs print a value: quoted for a shell, escaped for JSON, in base64, in a URL.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::SHORTEST;
use crate::seed::base64;

/// Lines of a value of several lines that are shorter say too little to be masked wherever they stand.
const SHORTEST_LINE: usize = 6;

/// Base64 digits that must stand for nothing but the value: fewer are met by chance.
const FEWEST_DIGITS: usize = 4;

/// Columns at which programs break base64: OpenSSL and PEM, coreutils and MIME.
const COLUMNS: [usize; 2] = [64, 76];

/// Adds `value`, of [`SHORTEST`] bytes at least, in every form, and its lines, if there are several.
pub(super) fn add(value: &str, forms: &mut BTreeSet<String>) {
    one(value, forms);
    if value.contains(['\n', '\r']) {
        let lines = value.split(['\n', '\r']).map(str::trim);
        for line in lines.filter(|line| line.len() >= SHORTEST_LINE) {
            one(line, forms);
        }
    }
}

fn one(value: &str, forms: &mut BTreeSet<String>) {
    let mut all = vec![value.to_owned()];
    all.extend(quoted(value));
    all.extend(escaped(value));
    all.extend(in_url(value));
    all.extend(in_base64(value.as_bytes()));
    forms.extend(all.into_iter().filter(|form| form.len() >= SHORTEST));
}

/// As shells write it, by themselves or for others.
fn quoted(value: &str) -> [String; 5] {
    let mut backslashes = String::new();
    for c in value.chars() {
        let plain = c.is_alphanumeric() || "%+-./:=@_".contains(c);
        if !plain {
            backslashes.push('\\');
        }
        backslashes.push(c);
    }
    // bash's printf %q leaves commas and tildes alone inside of words, or does not.
    let fewer = backslashes.replace("\\,", ",").replace("\\~", "~");
    let mut double = String::new();
    for c in value.chars() {
        if "\"$`\\".contains(c) {
            double.push('\\');
        }
        double.push(c);
    }
    [
        value.replace('\'', r#"'"'"'"#),
        value.replace('\'', r"'\''"),
        backslashes,
        fewer,
        double,
    ]
}

/// As in strings of JSON (also of those who escape more than they must), C, Python and XML.
fn escaped(value: &str) -> [String; 7] {
    let json = |html: bool, ascii: bool, slash: bool| {
        let mut out = String::new();
        let mut units = [0; 2];
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '/' if slash => out.push_str("\\/"),
                c if c < ' ' || (html && "<>&".contains(c)) || (ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out
    };
    let xml = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    [
        json(false, false, false),
        json(true, false, false),
        json(false, true, false),
        json(false, true, true),
        xml.replace('\'', "&#39;"),
        xml.replace('\'', "&#x27;"),
        xml,
    ]
}

/// Percent-encoded by everybody's idea of what needs it.
fn in_url(value: &str) -> Vec<String> {
    // RFC 3986's unreserved signs; JavaScript's components; Python's paths; Go's and others' paths; HTML forms.
    const KEPT: [&str; 5] = ["-._~", "-._~!*'()", "-._~/", "-._~$&+,/:;=@", "-._*"];
    let mut forms = Vec::new();
    for (kept, upper) in KEPT.iter().flat_map(|kept| [(kept, true), (kept, false)]) {
        let mut out = String::new();
        for byte in value.bytes() {
            let c = char::from(byte);
            if c.is_ascii_alphanumeric() || kept.contains(c) {
                out.push(c);
            } else if upper {
                let _ = write!(out, "%{byte:02X}");
            } else {
                let _ = write!(out, "%{byte:02x}");
            }
        }
        if out.contains("%20") {
            forms.push(out.replace("%20", "+"));
        }
        forms.push(out);
    }
    forms
}

/// What of any base64 that holds `value` is certain, whatever stands around it; and that of `value` alone, in lines.
fn in_base64(value: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value);
        let padded = base64::encode(&bytes);
        // A digit holds 6 bits: those that also hold bits of what stands before or behind are unknown.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for end in [last, padded.len()] {
            if let Some(digits) = padded.get(first..end)
                && last.saturating_sub(first) >= FEWEST_DIGITS
            {
                forms.push(digits.to_owned());
            }
        }
        if before == 0 {
            for columns in COLUMNS
                .into_iter()
                .filter(|columns| *columns < padded.len())
            {
                let lines = padded.as_bytes().chunks(columns);
                forms.extend(
                    lines
                        .filter(|line| line.len() >= 16)
                        .map(|line| String::from_utf8_lossy(line).into_owned()),
                );
            }
        }
    }
    let unpadded = forms
        .iter()
        .map(|form| form.trim_end_matches('=').to_owned());
    let mut all: Vec<String> = unpadded.collect();
    all.extend(forms);
    let in_urls: Vec<String> = all
        .iter()
        .map(|form| form.replace('+', "-").replace('/', "_"))
        .collect();
    all.extend(in_urls);
    all
}

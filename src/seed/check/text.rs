//! What can be said of a text before it is parsed: bytes, line ends, first lines, names.

use super::near::nearest;
use super::{Finding, MAX_TEXT, Severity};
use crate::seed::Header;

/// The text of `bytes`, and what is odd about it.
pub(super) fn decode(bytes: &[u8]) -> Result<(&str, Vec<Finding>), Finding> {
    let mut findings = Vec::new();
    if bytes.len() > MAX_TEXT {
        return Err(Finding::new(Severity::Note, "is too large to be checked"));
    }
    for (mark, name) in [(&b"\xff\xfe"[..], "UTF-16"), (b"\xfe\xff", "UTF-16")] {
        if bytes.starts_with(mark) {
            return Err(Finding::new(
                Severity::Error,
                format!("is {name}: cloud-init reads UTF-8"),
            )
            .with_remedy("save it as UTF-8 without a byte order mark"));
        }
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut finding = Finding::new(Severity::Error, "is no UTF-8 text");
        finding.line = Some(line);
        finding
    })?;
    if text.starts_with('\u{feff}') {
        findings.push(
            Finding::new(
                Severity::Error,
                "begins with a byte order mark, so that cloud-init does not know the first line",
            )
            .with_remedy("save it as UTF-8 without a byte order mark"),
        );
    }
    // A MIME message has such line ends by its standard.
    let crlf = text.lines().count() > 0 && text.contains("\r\n");
    if crlf && Header::of(bytes) != Header::Multipart {
        let script = matches!(Header::of(bytes), Header::Script | Header::Boothook);
        let (severity, text) = if script {
            (
                Severity::Error,
                "has the line ends of Windows: no interpreter has the name that the first line ends with",
            )
        } else {
            (
                Severity::Warning,
                "has the line ends of Windows, which come through in files that it writes",
            )
        };
        findings.push(Finding::new(severity, text).with_remedy("convert it, as with dos2unix"));
    }
    Ok((text, findings))
}

/// A text that begins like nothing that cloud-init knows.
pub(super) fn unknown_header(text: &str) -> Finding {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim();
    let mut finding = Finding::new(
        Severity::Error,
        "begins like no user-data that cloud-init knows, which ignores it then",
    );
    finding.line = Some(1);
    let squeezed: String = first
        .chars()
        .take(80)
        .filter(|c| !c.is_whitespace())
        .collect();
    let near = Header::words().find(|word| squeezed.to_lowercase() == *word);
    let near = near.or_else(|| nearest(&squeezed, Header::words()));
    finding.with_remedy(match near {
        Some(near) => format!("did you mean '{near}'?"),
        None if first.contains(':') || first == "---" => {
            "put '#cloud-config' into the first line".to_owned()
        }
        None => "begin it with '#cloud-config', or with '#!' for a script".to_owned(),
    })
}

/// A jinja template: the second line has the header, the rest is no YAML before it is rendered.
pub(super) fn template(text: &str) -> Vec<Finding> {
    let rest = text
        .trim_start()
        .split_once('\n')
        .map_or("", |(_, rest)| rest);
    match Header::of(rest.as_bytes()) {
        Header::CloudConfig if !rest.contains("{{") && !rest.contains("{%") => {
            let mut findings = super::cloud_config::check(rest);
            let before = text.lines().count().saturating_sub(rest.lines().count());
            for finding in &mut findings {
                finding.line = finding.line.map(|line| line + before);
            }
            findings
        }
        Header::CloudConfig | Header::Script | Header::Boothook => Vec::new(),
        _ => {
            let mut finding = Finding::new(
                Severity::Error,
                "is a template without a header of its own in the second line",
            );
            finding.line = Some(2);
            vec![finding.with_remedy("put '#cloud-config' there, or '#!'")]
        }
    }
}

/// A script needs an interpreter.
pub(super) fn script(text: &str) -> Vec<Finding> {
    let first = text.lines().next().unwrap_or_default();
    let Some(interpreter) = first.strip_prefix("#!") else {
        if text.trim_start().starts_with("#!") {
            let mut finding = Finding::new(
                Severity::Error,
                "has something before '#!', so that it cannot be run",
            );
            finding.line = Some(1);
            return vec![finding];
        }
        return Vec::new();
    };
    if interpreter.trim().starts_with('/') {
        return Vec::new();
    }
    let mut finding = Finding::new(
        Severity::Error,
        "names no interpreter by its path in the first line",
    );
    finding.line = Some(1);
    vec![finding.with_remedy("begin it with '#!/bin/sh'")]
}

/// A MIME message has parts only between boundaries.
pub(super) fn multipart(text: &str) -> Vec<Finding> {
    let (head, body) = text
        .split_once("\n\n")
        .or_else(|| text.split_once("\r\n\r\n"))
        .unwrap_or((text, ""));
    let unfolded = head
        .replace("\r\n", "\n")
        .replace("\n ", " ")
        .replace("\n\t", " ");
    let lower = unfolded.to_ascii_lowercase();
    if !lower.contains("content-type: multipart/") && !lower.contains("content-type:multipart/") {
        return Vec::new();
    }
    let boundary = lower
        .find("boundary=")
        .and_then(|at| unfolded.get(at + 9..))
        .map(|rest| match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => rest
                .split(|c: char| c == ';' || c.is_whitespace())
                .next()
                .unwrap_or_default(),
        });
    let missing = match boundary {
        None | Some("") => "is MIME multipart without a boundary",
        Some(boundary) if !body.contains(&format!("--{boundary}")) => {
            "is MIME multipart, and its boundary occurs nowhere in it"
        }
        Some(_) => return Vec::new(),
    };
    vec![Finding::new(Severity::Error, missing)]
}

/// A name that a guest can have: labels of letters, digits and hyphens (RFC 1123).
pub(super) fn hostname(name: &str) -> Option<Finding> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let fits = name.len() <= 253 && name.split('.').all(label);
    (!fits).then(|| {
        Finding::new(Severity::Warning, format!("'{name}' is no host name"))
            .with_remedy("letters, digits and hyphens, with dots between them")
    })
}

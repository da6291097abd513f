//! Several parts of user-data in one: MIME multipart, as cloud-init takes it apart.

use sha2::{Digest, Sha256};

use super::{Encoded, Header, Part, base64};
use crate::error::{Error, Result};

/// Longest line that a part may have as it is (RFC 5322, 2.1.1).
const MAX_LINE: usize = 998;

/// The only part as it is; more than one as a MIME message, in order.
pub(crate) fn join(parts: &[Part]) -> Result<Vec<u8>> {
    let parts: Vec<&Part> = match parts {
        [] => return Ok(Vec::new()),
        [only] => return Ok(only.bytes.clone()),
        parts => parts.iter().collect(),
    };
    let boundary = boundary(&parts);
    let mut message =
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n")
            .into_bytes();
    for part in parts {
        message.extend_from_slice(format!("--{boundary}\n").as_bytes());
        append(&mut message, part)?;
    }
    message.extend_from_slice(format!("--{boundary}--\n").as_bytes());
    Ok(message)
}

fn append(message: &mut Vec<u8>, part: &Part) -> Result<()> {
    let header = Header::of(&part.bytes);
    if header == Header::Multipart {
        // It brings its own head.
        message.extend_from_slice(part.bytes.trim_ascii_start());
        if !part.bytes.ends_with(b"\n") {
            message.push(b'\n');
        }
        return Ok(());
    }
    let content_type = header.content_type().ok_or_else(|| {
        Error::usage(format!(
            "'{}' begins like no user-data, so that its kind as one of several parts is not known",
            part.name
        ))
        .with_remedy("begin it with '#cloud-config', or with '#!' for a script")
    })?;
    let plain = part.bytes.is_ascii()
        && !part.bytes.contains(&b'\r')
        && part.bytes.ends_with(b"\n")
        && part
            .bytes
            .split(|&byte| byte == b'\n')
            .all(|line| line.len() <= MAX_LINE);
    let (charset, encoding) = match (plain, header) {
        (true, _) => ("; charset=\"us-ascii\"", "7bit"),
        (false, Header::Gzip) => ("", "base64"),
        (false, _) => ("; charset=\"utf-8\"", "base64"),
    };
    let name = file_name(&part.name);
    let head = format!(
        "Content-Type: {content_type}{charset}\nMIME-Version: 1.0\nContent-Transfer-Encoding: {encoding}\n\
         Content-Disposition: attachment; filename=\"{name}\"\n\n"
    );
    message.extend_from_slice(head.as_bytes());
    if plain {
        message.extend_from_slice(&part.bytes);
    } else {
        let text = base64::encode(&part.bytes);
        // RFC 2045, 6.8: lines of 76 digits.
        for line in text.as_bytes().chunks(76) {
            message.extend_from_slice(line);
            message.push(b'\n');
        }
    }
    // The line end before a boundary belongs to the boundary: the part keeps its own.
    if plain {
        message.push(b'\n');
    }
    Ok(())
}

/// Made of the parts alone, and in none of them.
fn boundary(parts: &[&Part]) -> String {
    let mut salt = 0u32;
    loop {
        let mut digest = Sha256::new();
        digest.update(salt.to_be_bytes());
        for part in parts {
            digest.update((part.bytes.len() as u64).to_be_bytes());
            digest.update(&part.bytes);
        }
        let hex: String = digest
            .finalize()
            .iter()
            .take(12)
            .map(|byte| Encoded(*byte).to_string())
            .collect();
        let boundary = format!("===qimg-{hex}===");
        let taken = parts.iter().any(|part| {
            part.bytes
                .windows(boundary.len())
                .any(|window| window == boundary.as_bytes())
        });
        if !taken {
            return boundary;
        }
        salt = salt.wrapping_add(1);
    }
}

/// The last name of a path, with nothing that a header would have to quote: cloud-init stores parts under it.
fn file_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = last.chars().map(safe).take(100).collect();
    if name.is_empty() {
        "part".to_owned()
    } else {
        name
    }
}

//! The head of a request, as text.
//!
//! Knows the request line of HTTP/1.1 (RFC 9112) and percent-encoding (RFC 3986). Pure.

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A path: without what stands before it and behind it, decoded. `head`: its length is enough.
    Path {
        /// Begins with `/`.
        path: String,
        /// HEAD.
        head: bool,
    },
    /// Another method.
    Method,
    /// No request of HTTP/1.x.
    Nothing,
}

/// Understands a request by the first line of its head.
pub fn understand(head: &[u8]) -> Asked {
    let first = first_line(head);
    let first = String::from_utf8_lossy(first);
    let mut words = first.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let known =
        version.is_some_and(|version| version.starts_with("HTTP/1.")) && words.next().is_none();
    match (method, target) {
        (Some(method @ ("GET" | "HEAD")), Some(target)) if known => match path_of(target) {
            Some(path) => Asked::Path {
                path,
                head: method == "HEAD",
            },
            None => Asked::Nothing,
        },
        (Some(_), Some(_)) if known => Asked::Method,
        _ => Asked::Nothing,
    }
}

/// The first line, without its end.
pub(super) fn first_line(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b'\r' || byte == b'\n')
        .next()
        .unwrap_or_default()
}

/// The path of a target: `/a%20b?x#y` or `http://HOST/a`. Slashes at its begin are one.
fn path_of(target: &str) -> Option<String> {
    let path = match target.strip_prefix("http://") {
        Some(absolute) => absolute.split_once('/').map_or("", |(_, path)| path),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let decoded = decoded(path.trim_start_matches('/'))?;
    Some(format!("/{}", decoded.trim_start_matches('/')))
}

/// `None`: it is no text, or holds what no name of a file can.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_the_request_line_names() {
        for (line, wanted) in [
            ("GET /user-data HTTP/1.1", Some("/user-data")),
            ("GET //user-data?x=1 HTTP/1.0", Some("/user-data")),
            ("HEAD /a/b%20c#d HTTP/1.1", Some("/a/b c")),
            ("GET http://10.0.2.2:80/ks.cfg HTTP/1.1", Some("/ks.cfg")),
            ("GET http://10.0.2.2 HTTP/1.1", Some("/")),
            ("GET /../etc/passwd HTTP/1.1", Some("/../etc/passwd")),
            ("GET /%2e%2e/x HTTP/1.1", Some("/../x")),
            ("GET /%2fetc HTTP/1.1", Some("/etc")),
            ("GET /%00 HTTP/1.1", None),
            ("GET /% HTTP/1.1", None),
            ("GET /%+1 HTTP/1.1", None),
            ("GET /%ff HTTP/1.1", None),
            ("GET /x", None),
            ("\x16\x03\x01", None),
            ("", None),
        ] {
            let asked = understand(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
            match (asked, wanted) {
                (Asked::Path { path, head }, Some(wanted)) => {
                    assert_eq!((path.as_str(), head), (wanted, line.starts_with("HEAD")));
                }
                (Asked::Nothing, None) => {}
                (asked, _) => panic!("{line}: {asked:?}"),
            }
        }
        assert_eq!(understand(b"POST /x HTTP/1.1\r\n\r\n"), Asked::Method);
    }
}

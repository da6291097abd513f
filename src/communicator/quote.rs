//! Words for the guest's shell: any text as one word, whatever is in it.
//!
//! Knows what a POSIX shell takes for special. Must not know what the words are for.

/// `text` as one word: in single quotes, unless it needs none.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A path as one word that no program takes for an option; a leading `~` or `~name` is left to the shell.
#[must_use]
pub fn path(path: &str) -> String {
    let (home, rest) = split_home(path);
    if !home.is_empty() {
        return match rest {
            "" => home.to_owned(),
            rest => format!("{home}/{}", word(rest)),
        };
    }
    if path.starts_with('-') {
        return format!("./{}", word(path));
    }
    word(path)
}

/// A pattern: `*`, `?` and `[...]` are left to the shell, all else is quoted.
#[must_use]
pub fn pattern(pattern: &str) -> String {
    let (home, rest) = split_home(pattern);
    let mut quoted = String::new();
    if !home.is_empty() {
        quoted.push_str(home);
        quoted.push('/');
    } else if pattern.starts_with('-') {
        quoted.push_str("./");
    }
    let mut literal = String::new();
    for c in rest.chars() {
        if "*?[]".contains(c) {
            flush(&mut literal, &mut quoted);
            quoted.push(c);
        } else {
            literal.push(c);
        }
    }
    flush(&mut literal, &mut quoted);
    quoted
}

fn flush(literal: &mut String, quoted: &mut String) {
    if !literal.is_empty() {
        // Inside of [...] quoted characters mean themselves, but for the range's dash and the leading `!`.
        let plain = literal
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "!%+,-./:=@_^".contains(c));
        if plain {
            quoted.push_str(literal);
        } else {
            quoted.push_str(&word(literal));
        }
        literal.clear();
    }
}

/// `~` or `~name` and what stands after its slash; empty and all of it where there is none.
fn split_home(path: &str) -> (&str, &str) {
    if !path.starts_with('~') {
        return ("", path);
    }
    let (home, rest) = path.split_once('/').unwrap_or((path, ""));
    let name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if home[1..].chars().all(name) {
        (home, rest)
    } else {
        ("", path)
    }
}

/// Directory and name of a path: `.` where it has no directory.
pub(crate) fn parent_and_name(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => (".", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_themselves() {
        assert_eq!(word("/tmp/a-b_c.sh"), "/tmp/a-b_c.sh");
        assert_eq!(word(""), "''");
        assert_eq!(word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(word("~x"), "'~x'");
    }

    #[test]
    fn paths_are_no_options_and_may_begin_at_home() {
        assert_eq!(path("-rf"), "./-rf");
        assert_eq!(path("-r f"), "./'-r f'");
        assert_eq!(path("~/a b"), "~/'a b'");
        assert_eq!(path("~"), "~");
        assert_eq!(path("~bob/x"), "~bob/x");
        assert_eq!(path("~$(id)/x"), "'~$(id)/x'");
    }

    #[test]
    fn only_wildcards_of_patterns_reach_the_shell() {
        assert_eq!(pattern("/var/log/*.log"), "/var/log/*.log");
        assert_eq!(pattern("/a b/[a-c]?"), "'/a b/'[a-c]?");
        assert_eq!(pattern("/x;reboot/*"), "'/x;reboot/'*");
        assert_eq!(pattern("~/*"), "~/*");
    }

    #[test]
    fn a_path_has_a_directory_and_a_name() {
        assert_eq!(parent_and_name("/a"), ("/", "a"));
        assert_eq!(parent_and_name("a/b"), ("a", "b"));
        assert_eq!(parent_and_name("a"), (".", "a"));
        assert_eq!(parent_and_name("a/"), ("a", ""));
    }
}

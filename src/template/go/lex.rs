//! The text of a template as tokens: pieces of text, and the words of actions.

use super::Fault;

/// A token and the byte it begins at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// Outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// White space inside of an action: it separates arguments.
    Space,
    /// A string, already read.
    Quoted(String),
    /// A number, as written.
    Number(String),
    /// A character.
    Char(String, i64),
    /// `.name`
    Field(String),
    /// `$name`
    Variable(String),
    /// A name.
    Name(String),
    /// `( ) | , . := =`
    Sign(&'static str),
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const DECIMAL: [char; 11] = ['_', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// Tokens of `text`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer {
        text,
        at: 0,
        tokens: Vec::new(),
    };
    let mut trim = false;
    loop {
        let rest = lexer.rest();
        let open = rest.find(OPEN);
        let start = lexer.at;
        let mut piece = &rest[..open.unwrap_or(rest.len())];
        if trim {
            piece = piece.trim_start_matches(SPACES);
        }
        let Some(open) = open else {
            lexer.text_piece(start, piece);
            return Ok(lexer.tokens);
        };
        lexer.at += open + OPEN.len();
        let opened = lexer.at - OPEN.len();
        let trims_before = trim_marker(lexer.rest());
        if trims_before {
            piece = piece.trim_end_matches(SPACES);
            lexer.at += 2;
        }
        lexer.text_piece(start, piece);
        trim = if lexer.rest().starts_with("/*") {
            lexer.comment(opened)?
        } else {
            lexer.action(opened)?
        };
    }
}

/// `- ` at the start of an action.
fn trim_marker(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('-') && chars.next().is_some_and(|c| SPACES.contains(&c))
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn push(&mut self, at: usize, kind: TokenKind) {
        self.tokens.push(Token { at, kind });
    }

    fn text_piece(&mut self, at: usize, piece: &str) {
        if !piece.is_empty() {
            self.push(at, TokenKind::Text(piece.to_owned()));
        }
    }

    /// Skips a comment; whether it trims what follows.
    fn comment(&mut self, opened: usize) -> Result<bool, Fault> {
        let Some(end) = self.rest().find("*/") else {
            return Err(Fault::new(opened, "unclosed comment"));
        };
        self.at += end + 2;
        let rest = self.rest();
        if let Some(after) = rest.strip_prefix(CLOSE) {
            self.at = self.text.len() - after.len();
            return Ok(false);
        }
        let marker = rest.strip_prefix(SPACES);
        if let Some(after) = marker.and_then(|rest| rest.strip_prefix("-}}")) {
            self.at = self.text.len() - after.len();
            return Ok(true);
        }
        Err(Fault::new(
            opened,
            "a comment ends before its action does: nothing may stand behind */",
        ))
    }

    /// Reads an action to its end; whether it trims what follows.
    fn action(&mut self, opened: usize) -> Result<bool, Fault> {
        self.push(opened, TokenKind::Open);
        let mut depth = 0usize;
        loop {
            let start = self.at;
            let rest = self.rest();
            let mut after = rest.strip_prefix(CLOSE).map(|after| (after, false));
            if let Some(marked) = rest
                .strip_prefix(SPACES)
                .and_then(|rest| rest.strip_prefix("-}}"))
            {
                after = Some((marked, true));
            }
            if let Some((after, trims)) = after {
                if depth > 0 {
                    return Err(Fault::new(start, "unclosed left parenthesis"));
                }
                self.push(start, TokenKind::Close);
                self.at = self.text.len() - after.len();
                return Ok(trims);
            }
            let Some(c) = rest.chars().next() else {
                return Err(Fault::new(opened, "unclosed action"));
            };
            match c {
                ' ' | '\t' | '\r' | '\n' => self.spaces(start),
                '"' => self.quoted(start)?,
                '`' => self.raw(start)?,
                '\'' => self.character(start)?,
                '(' => {
                    depth += 1;
                    self.sign(start, "(");
                }
                ')' => {
                    let Some(less) = depth.checked_sub(1) else {
                        return Err(Fault::new(start, "unexpected right parenthesis"));
                    };
                    depth = less;
                    self.sign(start, ")");
                }
                '|' => self.sign(start, "|"),
                ',' => self.sign(start, ","),
                '=' => self.sign(start, "="),
                ':' if rest.starts_with(":=") => self.sign(start, ":="),
                ':' => return Err(Fault::new(start, "expected :=")),
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.at += 1;
                    let name = self.name();
                    if name.is_empty() {
                        self.push(start, TokenKind::Sign("."));
                    } else {
                        self.push(start, TokenKind::Field(name));
                        self.terminated()?;
                    }
                }
                '$' => {
                    self.at += 1;
                    let name = format!("${}", self.name());
                    self.push(start, TokenKind::Variable(name));
                    self.terminated()?;
                }
                '+' | '-' | '.' | '0'..='9' => self.number(start)?,
                c if is_letter(c) => {
                    let name = self.name();
                    self.push(start, TokenKind::Name(name));
                    self.terminated()?;
                }
                c => {
                    let shown = c.escape_default();
                    return Err(Fault::new(
                        start,
                        format!("unexpected '{shown}' in an action"),
                    ));
                }
            }
        }
    }

    fn sign(&mut self, start: usize, sign: &'static str) {
        self.at += sign.len();
        self.push(start, TokenKind::Sign(sign));
    }

    fn spaces(&mut self, start: usize) {
        // The space of a trim marker belongs to the marker.
        while self.rest().starts_with(SPACES) && !self.rest()[1..].starts_with("-}}") {
            self.at += 1;
        }
        if self.at > start {
            self.push(start, TokenKind::Space);
        }
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !is_letter(c)).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    /// What may stand behind a name.
    fn terminated(&self) -> Result<(), Fault> {
        let rest = self.rest();
        let fits = rest.is_empty()
            || rest.starts_with(CLOSE)
            || rest.starts_with([' ', '\t', '\r', '\n', '.', ',', '|', ':', ')', '(', '=']);
        if fits {
            return Ok(());
        }
        let shown = rest.chars().next().unwrap_or(' ').escape_default();
        Err(Fault::new(self.at, format!("unexpected '{shown}'")))
    }

    fn number(&mut self, start: usize) -> Result<(), Fault> {
        let rest = self.rest();
        let mut end = 0;
        let mut digits: &[char] = &DECIMAL;
        let hexadecimal: Vec<char> = "0123456789abcdefABCDEF_".chars().collect();
        let accept = |end: &mut usize, set: &[char]| {
            let found = rest[*end..].starts_with(set);
            *end += usize::from(found);
            found
        };
        accept(&mut end, &['+', '-']);
        let mut exponent: &[char] = &['e', 'E'];
        if accept(&mut end, &['0']) {
            if accept(&mut end, &['x', 'X']) {
                digits = &hexadecimal;
                exponent = &['p', 'P'];
            } else if accept(&mut end, &['o', 'O']) {
                digits = &['0', '1', '2', '3', '4', '5', '6', '7', '_'];
            } else if accept(&mut end, &['b', 'B']) {
                digits = &['0', '1', '_'];
            }
        }
        while accept(&mut end, digits) {}
        if accept(&mut end, &['.']) {
            while accept(&mut end, digits) {}
        }
        if accept(&mut end, exponent) {
            accept(&mut end, &['+', '-']);
            while accept(&mut end, &DECIMAL) {}
        }
        let text = &rest[..end];
        if rest[end..].starts_with(is_letter) {
            let shown: String = rest.chars().take(end + 1).collect();
            return Err(Fault::new(start, format!("'{shown}' is no number")));
        }
        self.at += end;
        self.push(start, TokenKind::Number(text.to_owned()));
        Ok(())
    }

    fn raw(&mut self, start: usize) -> Result<(), Fault> {
        let body = &self.rest()[1..];
        let Some(end) = body.find('`') else {
            return Err(Fault::new(start, "unterminated raw quoted string"));
        };
        // As in Go, a raw string holds no carriage return.
        let text = body[..end].replace('\r', "");
        self.at += end + 2;
        self.push(start, TokenKind::Quoted(text));
        Ok(())
    }

    fn quoted(&mut self, start: usize) -> Result<(), Fault> {
        let body = &self.rest()[1..];
        let mut bytes = Vec::new();
        let mut at = 0;
        loop {
            let Some(c) = body[at..].chars().next().filter(|&c| c != '\n') else {
                return Err(Fault::new(start, "unterminated quoted string"));
            };
            if c == '"' {
                break;
            }
            let length = unescape(&body[at..], '"', &mut bytes)
                .ok_or_else(|| Fault::new(start, "a string with an unknown escape"))?;
            at += length;
        }
        self.at += at + 2;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.push(start, TokenKind::Quoted(text));
        Ok(())
    }

    fn character(&mut self, start: usize) -> Result<(), Fault> {
        let fault = || Fault::new(start, "malformed character constant");
        let body = &self.rest()[1..];
        let mut bytes = Vec::new();
        if body.starts_with(['\'', '\n']) {
            return Err(fault());
        }
        let length = unescape(body, '\'', &mut bytes).ok_or_else(fault)?;
        if !body[length..].starts_with('\'') {
            return Err(fault());
        }
        let value = match std::str::from_utf8(&bytes) {
            Ok(text) => i64::from(text.chars().next().map_or(0, u32::from)),
            Err(_) => bytes.first().copied().map_or(0, i64::from),
        };
        let written = self.rest()[..length + 2].to_owned();
        self.at += length + 2;
        self.push(start, TokenKind::Char(written, value));
        Ok(())
    }
}

/// Letters, digits and underscores.
pub(super) fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Reads one character of a string in Go's spelling; how many bytes it took.
fn unescape(text: &str, quote: char, into: &mut Vec<u8>) -> Option<usize> {
    let mut chars = text.chars();
    let c = chars.next()?;
    let mut push = |c: char| into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    if c != '\\' {
        push(c);
        return Some(c.len_utf8());
    }
    let escaped = chars.next()?;
    let plain = match escaped {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        c if c == quote => c,
        'x' | 'u' | 'U' => {
            let length = match escaped {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let digits = text.get(2..2 + length)?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let value = u32::from_str_radix(digits, 16).ok()?;
            if escaped == 'x' {
                into.push(u8::try_from(value).ok()?);
            } else {
                push(char::from_u32(value)?);
            }
            return Some(2 + length);
        }
        '0'..='7' => {
            let digits = text.get(1..4)?;
            if !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
                return None;
            }
            let value = u32::from_str_radix(digits, 8).ok()?;
            into.push(u8::try_from(value).ok()?);
            return Some(4);
        }
        _ => return None,
    };
    push(plain);
    Some(2)
}

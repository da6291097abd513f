//! Tokens as a tree.
//!
//! Knows which functions there are and which variables are in sight; calls nothing.

use super::lex::{Token, TokenKind, tokens};
use super::tree::{Branch, BranchKind, Command, Node, Number, Pipeline, Program, Word, WordKind};
use super::{DEEPEST, Fault, Functions, LONGEST, builtin};

/// Reads `text`.
pub(super) fn parse(text: &str, functions: &dyn Functions) -> Result<Program, Fault> {
    if text.len() > LONGEST {
        return Err(Fault::new(
            0,
            format!("a template of more than {LONGEST} bytes"),
        ));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        end: text.len(),
        functions,
        variables: vec!["$".to_owned()],
        defined: Vec::new(),
        depth: 0,
        loops: 0,
    };
    let (body, end) = parser.list(true)?;
    match end {
        End::Text => Ok(Program {
            body,
            defined: parser.defined,
        }),
        End::Closed(at) => Err(Fault::new(at, "unexpected {{end}}")),
        End::Else(at) => Err(Fault::new(at, "unexpected {{else}}")),
    }
}

/// What a list of nodes ended with.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Text,
    Closed(usize),
    /// Behind the word `else`.
    Else(usize),
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    /// Length of the text.
    end: usize,
    functions: &'a dyn Functions,
    variables: Vec<String>,
    defined: Vec<(String, Vec<Node>)>,
    depth: usize,
    loops: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&TokenKind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// Where the next token stands.
    fn here(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |token| token.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&TokenKind::Space) {
            self.at += 1;
        }
    }

    fn sign(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(&TokenKind::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn close(&mut self, of: &str) -> Result<(), Fault> {
        self.skip_space();
        if self.peek() == Some(&TokenKind::Close) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(of))
    }

    fn unexpected(&self, place: &str) -> Fault {
        let what = match self.peek() {
            None => "end of the template".to_owned(),
            Some(TokenKind::Text(_)) => "text".to_owned(),
            Some(TokenKind::Open) => "{{".to_owned(),
            Some(TokenKind::Close) => "}}".to_owned(),
            Some(TokenKind::Space) => "space".to_owned(),
            Some(TokenKind::Quoted(_)) => "a string".to_owned(),
            Some(TokenKind::Number(text) | TokenKind::Char(text, _)) => format!("'{text}'"),
            Some(TokenKind::Field(name)) => format!("'.{name}'"),
            Some(TokenKind::Variable(name) | TokenKind::Name(name)) => format!("'{name}'"),
            Some(TokenKind::Sign(sign)) => format!("'{sign}'"),
        };
        Fault::new(self.here(), format!("unexpected {what} in {place}"))
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let text = format!("more than {DEEPEST} blocks or parentheses within one another");
            return Err(Fault::new(at, text));
        }
        Ok(())
    }

    /// Nodes up to what ends them.
    fn list(&mut self, top: bool) -> Result<(Vec<Node>, End), Fault> {
        let mut nodes = Vec::new();
        loop {
            let Some(token) = self.next() else {
                return Ok((nodes, End::Text));
            };
            if let TokenKind::Text(text) = token.kind {
                nodes.push(Node::Text(text));
                continue;
            }
            let at = token.at;
            self.skip_space();
            let word = match self.peek() {
                Some(TokenKind::Name(name)) => name.clone(),
                _ => String::new(),
            };
            let keyword = ["if", "with", "range"].contains(&word.as_str());
            if keyword
                || [
                    "end", "else", "define", "block", "template", "break", "continue",
                ]
                .contains(&word.as_str())
            {
                self.at += 1;
            }
            match word.as_str() {
                "end" => {
                    self.close("end")?;
                    return Ok((nodes, End::Closed(at)));
                }
                "else" => return Ok((nodes, End::Else(at))),
                "if" => nodes.push(self.branch(at, BranchKind::If)?),
                "with" => nodes.push(self.branch(at, BranchKind::With)?),
                "range" => nodes.push(self.branch(at, BranchKind::Range)?),
                "define" if top => self.define(at)?,
                "define" => return Err(Fault::new(at, "unexpected {{define}} within a block")),
                "block" => nodes.push(self.block(at)?),
                "template" => nodes.push(self.template(at)?),
                "break" | "continue" => {
                    if self.loops == 0 {
                        return Err(Fault::new(
                            at,
                            format!("{{{{{word}}}}} outside {{{{range}}}}"),
                        ));
                    }
                    self.close(&word)?;
                    nodes.push(match word.as_str() {
                        "break" => Node::Break(at),
                        _ => Node::Continue(at),
                    });
                }
                _ => {
                    let pipeline = self.pipeline("command", false, at)?;
                    self.close("command")?;
                    nodes.push(Node::Action(pipeline));
                }
            }
        }
    }

    fn branch(&mut self, at: usize, kind: BranchKind) -> Result<Node, Fault> {
        self.deeper(at)?;
        let known = self.variables.len();
        let place = match kind {
            BranchKind::If => "if",
            BranchKind::With => "with",
            BranchKind::Range => "range",
        };
        let pipeline = self.pipeline(place, kind == BranchKind::Range, at)?;
        self.close(place)?;
        self.loops += usize::from(kind == BranchKind::Range);
        let (body, end) = self.list(false)?;
        self.loops -= usize::from(kind == BranchKind::Range);
        let otherwise = match end {
            End::Text => {
                return Err(Fault::new(
                    at,
                    format!("{{{{{place}}}}} without {{{{end}}}}"),
                ));
            }
            End::Closed(_) => None,
            End::Else(place) => Some(self.otherwise(kind, place)?),
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(Node::Branch(Branch {
            at,
            kind,
            pipeline,
            body,
            otherwise,
        }))
    }

    fn otherwise(&mut self, kind: BranchKind, at: usize) -> Result<Vec<Node>, Fault> {
        self.skip_space();
        // `else if` is an `if` in the `else`, which share their `end`.
        let chained = match (self.peek(), kind) {
            (Some(TokenKind::Name(name)), BranchKind::If) if name == "if" => true,
            (Some(TokenKind::Name(name)), BranchKind::With) if name == "with" => true,
            _ => false,
        };
        if chained {
            self.at += 1;
            return Ok(vec![self.branch(at, kind)?]);
        }
        self.close("else")?;
        match self.list(false)? {
            (nodes, End::Closed(_)) => Ok(nodes),
            (_, End::Else(at)) => Err(Fault::new(at, "a second {{else}}")),
            (_, End::Text) => Err(Fault::new(at, "{{else}} without {{end}}")),
        }
    }

    fn quoted(&mut self, of: &str) -> Result<String, Fault> {
        self.skip_space();
        match self.peek() {
            Some(TokenKind::Quoted(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected(of)),
        }
    }

    /// The body of a template with a name, which sees no variables of others.
    fn body(&mut self, at: usize, of: &str) -> Result<Vec<Node>, Fault> {
        self.deeper(at)?;
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.list(false)?;
        self.variables = variables;
        self.loops = loops;
        self.depth -= 1;
        match end {
            End::Closed(_) => Ok(body),
            End::Else(at) => Err(Fault::new(at, format!("unexpected {{{{else}}}} in {of}"))),
            End::Text => Err(Fault::new(at, format!("{{{{{of}}}}} without {{{{end}}}}"))),
        }
    }

    fn define(&mut self, at: usize) -> Result<(), Fault> {
        let name = self.quoted("define clause")?;
        self.close("define clause")?;
        let body = self.body(at, "define")?;
        self.add(at, name, body)
    }

    fn add(&mut self, at: usize, name: String, body: Vec<Node>) -> Result<(), Fault> {
        if self.defined.iter().any(|(known, _)| *known == name) {
            return Err(Fault::new(at, format!("'{name}' is defined twice")));
        }
        self.defined.push((name, body));
        Ok(())
    }

    fn block(&mut self, at: usize) -> Result<Node, Fault> {
        let name = self.quoted("block clause")?;
        let dot = self.pipeline("block clause", false, at)?;
        self.close("block clause")?;
        let body = self.body(at, "block")?;
        self.add(at, name.clone(), body)?;
        Ok(Node::Template {
            at,
            name,
            dot: Some(dot),
        })
    }

    fn template(&mut self, at: usize) -> Result<Node, Fault> {
        let name = self.quoted("template clause")?;
        self.skip_space();
        let dot = match self.peek() {
            Some(TokenKind::Close) => None,
            _ => Some(self.pipeline("template clause", false, at)?),
        };
        self.close("template clause")?;
        Ok(Node::Template { at, name, dot })
    }

    /// Up to, not including, what ends it: `}}` or `)`.
    fn pipeline(&mut self, place: &str, range: bool, at: usize) -> Result<Pipeline, Fault> {
        let mut pipeline = Pipeline {
            at,
            ..Pipeline::default()
        };
        self.skip_space();
        self.declaration(range, &mut pipeline)?;
        loop {
            self.skip_space();
            if let Some(TokenKind::Close | TokenKind::Sign(")")) | None = self.peek() {
                break;
            }
            let command = self.command()?;
            pipeline.commands.push(command);
            // As in Go, a pipe may well lead to nothing.
            if !self.sign("|") {
                break;
            }
        }
        if pipeline.commands.is_empty() {
            return Err(Fault::new(at, format!("missing value for {place}")));
        }
        for (number, command) in pipeline.commands.iter().enumerate().skip(1) {
            let runs = command.words.first().is_some_and(|word| {
                !matches!(
                    word.kind,
                    WordKind::Bool(_)
                        | WordKind::Dot
                        | WordKind::Nil
                        | WordKind::Number(_)
                        | WordKind::Text(_)
                )
            });
            if !runs {
                let text = format!("stage {} of a pipeline is no function", number + 1);
                return Err(Fault::new(command.at, text));
            }
        }
        Ok(pipeline)
    }

    /// `$x :=`, `$x =`, and for a range `$i, $x :=`.
    fn declaration(&mut self, range: bool, pipeline: &mut Pipeline) -> Result<(), Fault> {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(TokenKind::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
            self.skip_space();
            if self.sign(":=") {
                pipeline.variables = names;
                self.variables.extend(pipeline.variables.iter().cloned());
                return Ok(());
            }
            if self.sign("=") {
                pipeline.variables = names;
                pipeline.assigns = true;
                return Ok(());
            }
            if !self.sign(",") {
                break;
            }
            if !range || names.len() > 1 {
                return Err(Fault::new(self.here(), "too many declarations"));
            }
            self.skip_space();
        }
        self.at = start;
        Ok(())
    }

    fn command(&mut self) -> Result<Command, Fault> {
        let at = self.here();
        let mut words = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(TokenKind::Close | TokenKind::Sign(")" | "|")) => break,
                _ => words.push(self.operand()?),
            }
            match self.peek() {
                Some(TokenKind::Space) => {}
                Some(TokenKind::Close | TokenKind::Sign(")" | "|")) => break,
                _ => return Err(self.unexpected("operand")),
            }
        }
        if words.is_empty() {
            return Err(Fault::new(at, "empty command"));
        }
        Ok(Command { at, words })
    }

    fn operand(&mut self) -> Result<Word, Fault> {
        let at = self.here();
        let kind = match self.next().map(|token| token.kind) {
            Some(TokenKind::Name(name)) => match name.as_str() {
                "true" => WordKind::Bool(true),
                "false" => WordKind::Bool(false),
                "nil" => WordKind::Nil,
                _ => self.function(at, name)?,
            },
            Some(TokenKind::Sign(".")) => WordKind::Dot,
            Some(TokenKind::Quoted(text)) => WordKind::Text(text),
            Some(TokenKind::Number(text)) => WordKind::Number(number(at, text)?),
            Some(TokenKind::Char(text, value)) => WordKind::Number(Number {
                text,
                int: Some(value),
                float: None,
                is_float: false,
            }),
            Some(TokenKind::Field(name)) => WordKind::Field(vec![name]),
            Some(TokenKind::Variable(name)) => {
                if !self.variables.contains(&name) {
                    return Err(Fault::new(at, format!("undefined variable '{name}'")));
                }
                WordKind::Variable(name, Vec::new())
            }
            Some(TokenKind::Sign("(")) => {
                self.deeper(at)?;
                let pipeline = self.pipeline("parenthesized pipeline", false, at)?;
                self.depth -= 1;
                self.skip_space();
                if !self.sign(")") {
                    return Err(self.unexpected("parentheses"));
                }
                WordKind::Group(Box::new(pipeline), Vec::new())
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected("operand"));
            }
        };
        let mut word = Word { at, kind };
        while let Some(TokenKind::Field(name)) = self.peek() {
            let name = name.clone();
            match &mut word.kind {
                WordKind::Field(names)
                | WordKind::Variable(_, names)
                | WordKind::Group(_, names) => names.push(name),
                // The field of what a function without arguments gives.
                WordKind::Function(_) => {
                    let command = Command {
                        at,
                        words: vec![word.clone()],
                    };
                    let pipeline = Pipeline {
                        at,
                        commands: vec![command],
                        ..Pipeline::default()
                    };
                    word.kind = WordKind::Group(Box::new(pipeline), vec![name]);
                }
                _ => return Err(Fault::new(self.here(), "a field of what has none")),
            }
            self.at += 1;
        }
        Ok(word)
    }

    fn function(&self, at: usize, name: String) -> Result<WordKind, Fault> {
        if builtin::is_one(&name) || self.functions.signature(&name).is_some() {
            return Ok(WordKind::Function(name));
        }
        let mut known = self.functions.names();
        known.extend(builtin::NAMES);
        let mut fault = Fault::new(at, format!("there is no function '{name}'"));
        fault.remedy = crate::template::near(&name, known)
            .map(|near| format!("did you mean '{near}'?"))
            .or_else(|| Some("a variable of the template is {{user `NAME`}}".to_owned()));
        Err(fault)
    }
}

/// A number in Go's spelling.
fn number(at: usize, text: String) -> Result<Number, Fault> {
    let fault = || Fault::new(at, format!("'{text}' is no number"));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let underscores = lower.contains("__") || lower.ends_with('_') || lower.starts_with('_');
    if underscores {
        return Err(fault());
    }
    let plain = lower.replace('_', "");
    let prefixed = |prefix: &str, radix: u32| {
        let digits = plain.strip_prefix(prefix)?;
        Some(i128::from_str_radix(digits, radix).ok())
    };
    let is_hexadecimal = plain.starts_with("0x");
    let whole = prefixed("0x", 16)
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0b", 2))
        .or_else(|| {
            let octal = plain.len() > 1 && plain.starts_with('0');
            let radix = if octal { 8 } else { 10 };
            Some(i128::from_str_radix(&plain, radix).ok())
        })
        .flatten()
        .map(|value| if negative { -value } else { value });
    let is_float = !is_hexadecimal && plain.contains(['.', 'e']);
    let decimal = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let float = if is_hexadecimal && plain.contains(['.', 'p']) {
        return Err(Fault::new(
            at,
            format!("'{text}': hexadecimal fractions are not supported"),
        ));
    } else if decimal && !is_hexadecimal && !plain.starts_with("0b") && !plain.starts_with("0o") {
        plain.parse::<f64>().ok().filter(|value| value.is_finite())
    } else {
        None
    };
    let float = float.map(|value| if negative { -value } else { value });
    let from_float = float
        .filter(|value| is_float && value.fract() == 0.0 && value.abs() < 9.2e18)
        .map(|value| value as i64);
    let int = match whole {
        Some(value) => {
            // Beyond what a machine word holds it is no number at all.
            if value > i128::from(u64::MAX) || value < i128::from(i64::MIN) {
                return Err(fault());
            }
            i64::try_from(value).ok()
        }
        None => from_float,
    };
    if whole.is_none() && float.is_none() {
        return Err(fault());
    }
    Ok(Number {
        text,
        int,
        float,
        is_float,
    })
}

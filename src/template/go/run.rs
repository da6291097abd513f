//! A tree filled in.
//!
//! Every step and every byte of a value is counted, so that any template ends soon.

use super::builtin;
use super::format::print_one;
use super::tree::{Branch, BranchKind, Command, Node, Number, Pipeline, Program, Word, WordKind};
use super::value::Value;
use super::{Fault, Functions, MOST_BYTES, MOST_STEPS, Param};

/// Blocks and templates within one another, while running.
const MOST_LISTS: usize = 200;

/// Runs `program` from its start.
pub(super) fn run(
    program: &Program,
    functions: &dyn Functions,
    dot: &Value,
) -> Result<String, Fault> {
    let mut runner = Runner::new(program, functions, dot.clone());
    runner.list(&program.body, dot)?;
    Ok(runner.output)
}

/// Evaluates one pipeline that knows nothing of its surroundings.
pub(super) fn evaluate(pipeline: &Pipeline, functions: &dyn Functions) -> Result<Value, Fault> {
    let program = Program::default();
    Runner::new(&program, functions, Value::Nil).pipeline(pipeline, &Value::Nil)
}

/// Where a list goes on.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Runner<'a> {
    program: &'a Program,
    functions: &'a dyn Functions,
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
    bytes: usize,
    depth: usize,
}

impl<'a> Runner<'a> {
    fn new(program: &'a Program, functions: &'a dyn Functions, dot: Value) -> Self {
        Self {
            program,
            functions,
            variables: vec![("$".to_owned(), dot)],
            output: String::new(),
            steps: 0,
            bytes: 0,
            depth: 0,
        }
    }

    fn step(&mut self, at: usize) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Fault::new(
                at,
                format!("takes more than {MOST_STEPS} steps"),
            ));
        }
        Ok(())
    }

    fn charge(&mut self, at: usize, bytes: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MOST_BYTES {
            return Err(Fault::new(
                at,
                format!("makes more than {MOST_BYTES} bytes"),
            ));
        }
        Ok(())
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        self.depth += 1;
        if self.depth > MOST_LISTS {
            let text = format!("more than {MOST_LISTS} blocks and templates within one another");
            return Err(Fault::new(0, text));
        }
        let flow = self.nodes(nodes, dot)?;
        self.depth -= 1;
        Ok(flow)
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => {
                    self.charge(0, text.len())?;
                    self.output.push_str(text);
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        let text = match value {
                            Value::Nil => "<no value>".to_owned(),
                            value => print_one(&value),
                        };
                        self.charge(pipeline.at, text.len())?;
                        self.output.push_str(&text);
                    }
                }
                Node::Branch(branch) => {
                    let known = self.variables.len();
                    let flow = self.branch(branch, dot)?;
                    self.variables.truncate(known);
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::Template {
                    at,
                    name,
                    dot: given,
                } => self.template(*at, name, given.as_ref(), dot)?,
                Node::Break(at) => {
                    self.step(*at)?;
                    return Ok(Flow::Break);
                }
                Node::Continue(at) => {
                    self.step(*at)?;
                    return Ok(Flow::Continue);
                }
            }
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Fault> {
        if branch.kind == BranchKind::Range {
            return self.range(branch, dot);
        }
        let value = self.pipeline(&branch.pipeline, dot)?;
        if value.is_true() {
            let inner = match branch.kind {
                BranchKind::With => &value,
                _ => dot,
            };
            return self.list(&branch.body, inner);
        }
        match &branch.otherwise {
            Some(nodes) => self.list(nodes, dot),
            None => Ok(Flow::Next),
        }
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Fault> {
        let names = &branch.pipeline.variables;
        let mut pipeline = branch.pipeline.clone();
        pipeline.variables.clear();
        // Key and value of each round.
        let rounds: Vec<(Value, Value)> = match self.pipeline(&pipeline, dot)? {
            Value::Nil => Vec::new(),
            Value::Int(count) => {
                let count = count.clamp(0, i64::try_from(MOST_STEPS).unwrap_or(i64::MAX) + 1);
                (0..count)
                    .map(|number| (Value::Int(number), Value::Int(number)))
                    .collect()
            }
            Value::List(list) => (0..).map(Value::Int).zip(list.iter().cloned()).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(name, value)| (Value::text(name), value.clone()))
                .collect(),
            other => {
                let text = format!("range can't iterate over a {}", other.kind());
                return Err(Fault::new(branch.at, text));
            }
        };
        if rounds.is_empty() {
            return match &branch.otherwise {
                Some(nodes) => self.list(nodes, dot),
                None => Ok(Flow::Next),
            };
        }
        let known = self.variables.len();
        for (key, value) in rounds {
            self.step(branch.at)?;
            self.variables.truncate(known);
            for (place, name) in names.iter().enumerate() {
                // One variable takes the value, the first of two the key.
                let value = match (place, names.len()) {
                    (0, 2) => key.clone(),
                    _ => value.clone(),
                };
                if branch.pipeline.assigns {
                    self.assign(branch.at, name, value)?;
                } else {
                    self.variables.push((name.clone(), value));
                }
            }
            if self.list(&branch.body, &value)? == Flow::Break {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(Flow::Next)
    }

    fn template(
        &mut self,
        at: usize,
        name: &str,
        given: Option<&Pipeline>,
        dot: &Value,
    ) -> Result<(), Fault> {
        self.step(at)?;
        let program = self.program;
        let Some((_, body)) = program.defined.iter().find(|(known, _)| known == name) else {
            return Err(Fault::new(at, format!("no template '{name}' is defined")));
        };
        let inner = match given {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        let own = vec![("$".to_owned(), inner.clone())];
        let variables = std::mem::replace(&mut self.variables, own);
        self.list(body, &inner)?;
        self.variables = variables;
        Ok(())
    }

    fn assign(&mut self, at: usize, name: &str, value: Value) -> Result<(), Fault> {
        let known = self.variables.iter_mut().rev();
        match { known }.find(|(known, _)| known == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(Fault::new(at, format!("undefined variable '{name}'"))),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            let value = self.command(command, dot, last.take())?;
            self.charge(command.at, value.size())?;
            last = Some(value);
        }
        let value = last.unwrap_or(Value::Nil);
        for name in &pipeline.variables {
            if pipeline.assigns {
                self.assign(pipeline.at, name, value.clone())?;
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        self.step(command.at)?;
        let Some((first, arguments)) = command.words.split_first() else {
            return Ok(Value::Nil);
        };
        if let WordKind::Function(name) = &first.kind {
            return self.call(first.at, name, arguments, dot, last);
        }
        let has_arguments = !arguments.is_empty() || last.is_some();
        if has_arguments && *dot == Value::Nil && matches!(first.kind, WordKind::Field(_)) {
            // Go does not come to look at them.
            return Ok(Value::Nil);
        }
        if has_arguments {
            return Err(Fault::new(
                first.at,
                "what is no function takes no arguments",
            ));
        }
        if first.kind == WordKind::Nil {
            return Err(Fault::new(first.at, "nil is not a command"));
        }
        self.word(first, dot)
    }

    fn word(&mut self, word: &Word, dot: &Value) -> Result<Value, Fault> {
        self.step(word.at)?;
        match &word.kind {
            WordKind::Dot => Ok(dot.clone()),
            WordKind::Nil => Ok(Value::Nil),
            WordKind::Bool(value) => Ok(Value::Bool(*value)),
            WordKind::Text(text) => Ok(Value::text(text)),
            WordKind::Number(number) => ideal(word.at, number),
            WordKind::Field(names) => fields(word.at, dot.clone(), names),
            WordKind::Variable(name, names) => {
                let known = self.variables.iter().rev();
                let found = { known }.find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => fields(word.at, value.clone(), names),
                    None => Err(Fault::new(word.at, format!("undefined variable '{name}'"))),
                }
            }
            WordKind::Function(name) => self.call(word.at, name, &[], dot, None),
            WordKind::Group(pipeline, names) => {
                let value = self.pipeline(pipeline, dot)?;
                fields(word.at, value, names)
            }
        }
    }

    fn call(
        &mut self,
        at: usize,
        name: &str,
        words: &[Word],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        if builtin::is_one(name) {
            return self.call_builtin(at, name, words, dot, last);
        }
        let Some((params, variadic)) = self.functions.signature(name) else {
            return Err(Fault::new(at, format!("there is no function '{name}'")));
        };
        let given = words.len() + usize::from(last.is_some());
        let fits = if variadic {
            given + 1 >= params.len()
        } else {
            given == params.len()
        };
        if !fits {
            let (least, wanted) = if variadic {
                ("at least ", params.len().saturating_sub(1))
            } else {
                ("", params.len())
            };
            let text = format!("{name} takes {least}{wanted} arguments, not {given}");
            return Err(Fault::new(at, text));
        }
        let mut arguments = Vec::new();
        let param = |number: usize| params.get(number).or(params.last()).copied();
        for (number, word) in words.iter().enumerate() {
            let value = match (&word.kind, param(number)) {
                // `1.0` is a whole number for who wants one.
                (WordKind::Number(number), Some(Param::Int)) if number.int.is_some() => {
                    self.step(word.at)?;
                    number.int.map_or(Value::Nil, Value::Int)
                }
                _ => self.word(word, dot)?,
            };
            arguments.push((word.at, value));
        }
        arguments.extend(last.map(|value| (at, value)));
        for (number, (place, value)) in arguments.iter().enumerate() {
            let wanted = match param(number) {
                Some(Param::Text) if value.as_text().is_none() => "string",
                Some(Param::Int) if value.as_int().is_none() => "integer",
                _ => continue,
            };
            let text = format!("{name}: expected {wanted}; found {}", value.kind());
            return Err(Fault::new(*place, text));
        }
        let arguments: Vec<Value> = arguments.into_iter().map(|(_, value)| value).collect();
        let result = self.functions.value(name, &arguments);
        result.map_err(|refusal| Fault {
            at,
            message: refusal.message,
            remedy: refusal.remedy,
            unset: refusal.unset,
        })
    }

    fn call_builtin(
        &mut self,
        at: usize,
        name: &str,
        words: &[Word],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        // The only two that do not look at all of their arguments.
        if name == "and" || name == "or" {
            let mut value = None;
            for word in words {
                let next = self.word(word, dot)?;
                let decided = next.is_true() == (name == "or");
                value = Some(next);
                if decided {
                    return Ok(value.unwrap_or(Value::Nil));
                }
            }
            return last
                .or(value)
                .ok_or_else(|| Fault::new(at, format!("{name} takes at least 1 argument, not 0")));
        }
        let mut arguments = Vec::new();
        for word in words {
            arguments.push(self.word(word, dot)?);
        }
        arguments.extend(last);
        let left = MOST_BYTES - self.bytes.min(MOST_BYTES);
        builtin::call(name, &arguments, left).map_err(|message| Fault::new(at, message))
    }
}

/// A number where any kind is welcome.
fn ideal(at: usize, number: &Number) -> Result<Value, Fault> {
    if number.is_float
        && let Some(value) = number.float
    {
        return Ok(Value::Float(value));
    }
    match number.int {
        Some(value) => Ok(Value::Int(value)),
        None => Err(Fault::new(at, format!("{} overflows int", number.text))),
    }
}

fn fields(at: usize, value: Value, names: &[String]) -> Result<Value, Fault> {
    let mut value = value;
    for name in names {
        value = match &value {
            Value::Nil => Value::Nil,
            Value::Fields(known) => match known.get(name) {
                Some(text) => Value::text(text),
                None => {
                    let list: Vec<String> = known.keys().map(|name| format!(".{name}")).collect();
                    let mut fault = Fault::new(at, format!("there is no .{name} here"));
                    fault.remedy = Some(match list.is_empty() {
                        true => "nothing can be asked for here".to_owned(),
                        false => format!("there is {}", list.join(", ")),
                    });
                    return Err(fault);
                }
            },
            Value::Map(known) => match known.get(name) {
                Some(value) => value.clone(),
                None => {
                    let list: Vec<String> = known
                        .keys()
                        .take(20)
                        .map(|name| format!(".{name}"))
                        .collect();
                    let mut fault = Fault::new(at, format!("there is no .{name} here"));
                    fault.remedy = Some(match list.is_empty() {
                        true => "nothing is known here".to_owned(),
                        false => format!("there is {}", list.join(", ")),
                    });
                    return Err(fault);
                }
            },
            other => {
                let text = format!("can't evaluate field {name} in type {}", other.kind());
                return Err(Fault::new(at, text));
            }
        };
    }
    Ok(value)
}

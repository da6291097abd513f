//! A template of which some is known now, and the rest later.
//!
//! What can be said now is put in as text; what is left is a template again, which needs no variables of Packer's.

use super::format::{print_one, quoted};
use super::tree::{Branch, BranchKind, Command, Node, Pipeline, Word, WordKind};
use super::value::Value;
use super::{Fault, Functions, builtin, parse, run};

/// Text that means itself.
pub(crate) fn escape(text: &str) -> String {
    text.replace("{{", "{{\"{{\"}}")
}

/// What is left of `text` when all calls are made that need neither the dot nor one of the functions `later`.
///
/// A call that fails now is left: it may never be reached. A variable whose own value is a template for later, as
/// `template_of` tells by its name, is put in as such where it stands alone.
pub(crate) fn fold(
    text: &str,
    functions: &dyn Functions,
    later: &[&str],
    template_of: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Fault> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let mut program = parse::parse(text, functions)?;
    let folder = Folder {
        functions,
        later,
        template_of,
    };
    folder.nodes(&mut program.body);
    let mut output = String::new();
    for (name, body) in &mut program.defined {
        folder.nodes(body);
        output.push_str(&format!("{{{{define {}}}}}", quoted(name)));
        write_nodes(body, &mut output);
        output.push_str("{{end}}");
    }
    write_nodes(&program.body, &mut output);
    Ok(output)
}

/// Whether `text` asks for its dot, or for one of `functions`; `None`: it is no template.
pub(crate) fn needs(text: &str, functions: &dyn Functions, later: &[&str]) -> Result<bool, Fault> {
    if !text.contains("{{") {
        return Ok(false);
    }
    let program = parse::parse(text, functions)?;
    let bodies = program.defined.iter().map(|(_, body)| body);
    Ok(bodies
        .chain([&program.body])
        .any(|nodes| nodes_need(nodes, later)))
}

fn nodes_need(nodes: &[Node], later: &[&str]) -> bool {
    nodes.iter().any(|node| match node {
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => false,
        Node::Action(pipeline) => pipeline_needs(pipeline, later),
        Node::Branch(branch) => {
            pipeline_needs(&branch.pipeline, later)
                || nodes_need(&branch.body, later)
                || branch
                    .otherwise
                    .as_ref()
                    .is_some_and(|nodes| nodes_need(nodes, later))
        }
        Node::Template { dot, .. } => dot
            .as_ref()
            .is_some_and(|pipeline| pipeline_needs(pipeline, later)),
    })
}

fn pipeline_needs(pipeline: &Pipeline, later: &[&str]) -> bool {
    let words = pipeline.commands.iter().flat_map(|command| &command.words);
    { words }.any(|word| match &word.kind {
        WordKind::Dot | WordKind::Field(_) => true,
        WordKind::Variable(name, _) => name == "$",
        WordKind::Function(name) => later.contains(&name.as_str()),
        WordKind::Group(pipeline, _) => pipeline_needs(pipeline, later),
        _ => false,
    })
}

/// Names that `text` asks its dot for. What stands where the dot is another, or in a template of its own, is not looked at.
pub(crate) fn asked(text: &str, functions: &dyn Functions) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    if text.contains("{{") {
        nodes_ask(&parse::parse(text, functions)?.body, true, &mut names);
    }
    Ok(names)
}

/// `whole`: the dot is the one at the start.
fn nodes_ask(nodes: &[Node], whole: bool, names: &mut Vec<String>) {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
            Node::Action(pipeline) => pipeline_asks(pipeline, whole, names),
            Node::Branch(branch) => {
                pipeline_asks(&branch.pipeline, whole, names);
                let same = whole && branch.kind == BranchKind::If;
                nodes_ask(&branch.body, same, names);
                if let Some(nodes) = &branch.otherwise {
                    nodes_ask(nodes, whole, names);
                }
            }
            Node::Template { dot, .. } => {
                if let Some(pipeline) = dot {
                    pipeline_asks(pipeline, whole, names);
                }
            }
        }
    }
}

fn pipeline_asks(pipeline: &Pipeline, whole: bool, names: &mut Vec<String>) {
    for word in pipeline.commands.iter().flat_map(|command| &command.words) {
        match &word.kind {
            WordKind::Field(fields) if whole => names.extend(fields.first().cloned()),
            WordKind::Variable(name, fields) if name == "$" => {
                names.extend(fields.first().cloned());
            }
            WordKind::Group(pipeline, _) => pipeline_asks(pipeline, whole, names),
            _ => {}
        }
    }
}

struct Folder<'a> {
    functions: &'a dyn Functions,
    later: &'a [&'a str],
    template_of: &'a dyn Fn(&str) -> Option<String>,
}

impl Folder<'_> {
    fn nodes(&self, nodes: &mut Vec<Node>) {
        let mut folded = Vec::with_capacity(nodes.len());
        for mut node in nodes.drain(..) {
            match &mut node {
                Node::Action(pipeline) => {
                    if let Some(nodes) = self.template(pipeline) {
                        folded.extend(nodes);
                        continue;
                    }
                    self.pipeline(pipeline);
                    if let ([Command { words, .. }], true) =
                        (pipeline.commands.as_slice(), pipeline.variables.is_empty())
                        && let [
                            Word {
                                kind: WordKind::Text(text),
                                ..
                            },
                        ] = words.as_slice()
                    {
                        node = Node::Text(text.clone());
                    }
                }
                Node::Branch(branch) => {
                    self.pipeline(&mut branch.pipeline);
                    self.nodes(&mut branch.body);
                    if let Some(nodes) = &mut branch.otherwise {
                        self.nodes(nodes);
                    }
                }
                Node::Template {
                    dot: Some(pipeline),
                    ..
                } => self.pipeline(pipeline),
                _ => {}
            }
            folded.push(node);
        }
        *nodes = folded;
    }

    /// The nodes of a variable that is a template for later.
    fn template(&self, pipeline: &Pipeline) -> Option<Vec<Node>> {
        let [Command { words, .. }] = pipeline.commands.as_slice() else {
            return None;
        };
        let [function, name] = words.as_slice() else {
            return None;
        };
        let (WordKind::Function(function), WordKind::Text(name)) = (&function.kind, &name.kind)
        else {
            return None;
        };
        if function != "user" || !pipeline.variables.is_empty() {
            return None;
        }
        let text = (self.template_of)(name)?;
        let program = parse::parse(&text, self.functions).ok()?;
        program.defined.is_empty().then_some(program.body)
    }

    fn pipeline(&self, pipeline: &mut Pipeline) {
        for command in &mut pipeline.commands {
            for (number, word) in command.words.iter_mut().enumerate() {
                match &mut word.kind {
                    WordKind::Group(inner, fields) => {
                        self.pipeline(inner);
                        if fields.is_empty()
                            && let [Command { words, .. }] = inner.commands.as_slice()
                            && let [only] = words.as_slice()
                            && is_known(only)
                        {
                            word.kind = only.kind.clone();
                        }
                    }
                    // A function as an argument is called without any.
                    WordKind::Function(name) if number > 0 && self.is_ours(name) => {
                        let call = Command {
                            at: word.at,
                            words: vec![word.clone()],
                        };
                        if let Some(kind) = self.evaluate(vec![call]) {
                            word.kind = kind;
                        }
                    }
                    _ => {}
                }
            }
        }
        // From the start on, as much as possible at once: later stages take what earlier ones give.
        let mut known = 0;
        while pipeline
            .commands
            .get(known)
            .is_some_and(|command| self.can_run(command))
        {
            known += 1;
        }
        for count in (1..=known).rev() {
            // What is known already needs no call.
            let commands = pipeline.commands[..count].to_vec();
            let plain = count == 1
                && commands
                    .iter()
                    .all(|c| c.words.len() == 1 && is_known(&c.words[0]));
            if plain {
                break;
            }
            if let Some(kind) = self.evaluate(commands) {
                let at = pipeline.at;
                let word = Word { at, kind };
                let command = Command {
                    at,
                    words: vec![word],
                };
                pipeline.commands.splice(..count, [command]);
                break;
            }
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        !self.later.contains(&name)
            && (builtin::is_one(name) || self.functions.signature(name).is_some())
    }

    fn can_run(&self, command: &Command) -> bool {
        let Some((first, rest)) = command.words.split_first() else {
            return false;
        };
        let starts = match &first.kind {
            WordKind::Function(name) => self.is_ours(name),
            _ => is_known(first),
        };
        starts && rest.iter().all(is_known)
    }

    fn evaluate(&self, commands: Vec<Command>) -> Option<WordKind> {
        let pipeline = Pipeline {
            commands,
            ..Pipeline::default()
        };
        let value = run::evaluate(&pipeline, self.functions).ok()?;
        match value {
            Value::Text(text) => Some(WordKind::Text(text.to_string())),
            Value::Bool(value) => Some(WordKind::Bool(value)),
            _ => None,
        }
    }
}

/// A constant.
fn is_known(word: &Word) -> bool {
    matches!(
        word.kind,
        WordKind::Text(_) | WordKind::Number(_) | WordKind::Bool(_)
    )
}

fn write_nodes(nodes: &[Node], output: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => {
                // A brace at the end and what comes behind it could open an action.
                let escaped = escape(text);
                match escaped.strip_suffix('{') {
                    Some(start) => {
                        output.push_str(start);
                        output.push_str("{{\"{\"}}");
                    }
                    None => output.push_str(&escaped),
                }
            }
            Node::Action(pipeline) => {
                output.push_str("{{");
                write_pipeline(pipeline, output);
                output.push_str("}}");
            }
            Node::Branch(branch) => write_branch(branch, output),
            Node::Template { name, dot, .. } => {
                output.push_str(&format!("{{{{template {}", quoted(name)));
                if let Some(dot) = dot {
                    output.push(' ');
                    write_pipeline(dot, output);
                }
                output.push_str("}}");
            }
            Node::Break(_) => output.push_str("{{break}}"),
            Node::Continue(_) => output.push_str("{{continue}}"),
        }
    }
}

fn write_branch(branch: &Branch, output: &mut String) {
    output.push_str(match branch.kind {
        BranchKind::If => "{{if ",
        BranchKind::With => "{{with ",
        BranchKind::Range => "{{range ",
    });
    write_pipeline(&branch.pipeline, output);
    output.push_str("}}");
    write_nodes(&branch.body, output);
    if let Some(nodes) = &branch.otherwise {
        output.push_str("{{else}}");
        write_nodes(nodes, output);
    }
    output.push_str("{{end}}");
}

fn write_pipeline(pipeline: &Pipeline, output: &mut String) {
    if !pipeline.variables.is_empty() {
        output.push_str(&pipeline.variables.join(", "));
        output.push_str(if pipeline.assigns { " = " } else { " := " });
    }
    for (number, command) in pipeline.commands.iter().enumerate() {
        if number > 0 {
            output.push_str(" | ");
        }
        for (number, word) in command.words.iter().enumerate() {
            if number > 0 {
                output.push(' ');
            }
            write_word(word, output);
        }
    }
}

fn write_word(word: &Word, output: &mut String) {
    let fields =
        |names: &[String]| -> String { names.iter().map(|name| format!(".{name}")).collect() };
    match &word.kind {
        WordKind::Dot => output.push('.'),
        WordKind::Nil => output.push_str("nil"),
        WordKind::Bool(value) => output.push_str(&print_one(&Value::Bool(*value))),
        WordKind::Number(number) => output.push_str(&number.text),
        WordKind::Text(text) => output.push_str(&quoted(text)),
        WordKind::Field(names) => output.push_str(&fields(names)),
        WordKind::Variable(name, names) => {
            output.push_str(name);
            output.push_str(&fields(names));
        }
        WordKind::Function(name) => output.push_str(name),
        WordKind::Group(pipeline, names) => {
            output.push('(');
            write_pipeline(pipeline, output);
            output.push(')');
            output.push_str(&fields(names));
        }
    }
}

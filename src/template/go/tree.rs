//! A template as it was read.

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// As it is.
    Text(String),
    /// `{{ pipeline }}`.
    Action(Pipeline),
    /// `if`, `with`, `range`.
    Branch(Branch),
    /// `{{template "name" pipeline}}`.
    Template {
        /// Where.
        at: usize,
        /// Which.
        name: String,
        /// Its dot.
        dot: Option<Pipeline>,
    },
    /// `{{break}}`.
    Break(usize),
    /// `{{continue}}`.
    Continue(usize),
}

/// What a branch does with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BranchKind {
    /// Looks whether it is true.
    If,
    /// Makes it the dot.
    With,
    /// Goes through it.
    Range,
}

/// `{{if}} ... {{else}} ... {{end}}` and its like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub(super) at: usize,
    pub(super) kind: BranchKind,
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Option<Vec<Node>>,
}

/// Commands, each of which takes the result of the one before as its last argument.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// Variables that take the result, with their `$`.
    pub(super) variables: Vec<String>,
    /// `=` and not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or value, and its arguments; never empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) words: Vec<Word>,
}

/// One operand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) kind: WordKind,
}

/// What an operand is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum WordKind {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// A number or character.
    Number(Number),
    /// Either kind of string.
    Text(String),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    /// A function's name.
    Function(String),
    /// `( ... ).a.b`
    Group(Box<Pipeline>, Vec<String>),
}

/// A number as written; which kind it is depends on who takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    /// As written.
    pub(super) text: String,
    /// As a whole number, where it is one that fits.
    pub(super) int: Option<i64>,
    /// As a fraction, where it is one.
    pub(super) float: Option<f64>,
    /// Written as a fraction: taken as one where both are welcome.
    pub(super) is_float: bool,
}

/// A whole template.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Program {
    pub(super) body: Vec<Node>,
    /// By `define` and `block`.
    pub(super) defined: Vec<(String, Vec<Node>)>,
}

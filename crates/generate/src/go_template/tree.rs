//! A template as it was read.

use std::collections::HashMap;

/// The parsed template and those it defines.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub root: Vec<Node>,
    pub defined: HashMap<String, Vec<Node>>,
    /// Every name that follows a dot, once.
    pub fields: Vec<String>,
}

/// Text or an action.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// Written, unless it sets variables.
    Show(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipe>, usize),
    Break,
    Continue,
}

/// Commands, each of which gets the result of the one before as its last argument.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    /// Variables that take the result.
    pub sets: Vec<String>,
    /// Whether they are new.
    pub declares: bool,
    pub commands: Vec<Vec<Operand>>,
    pub line: usize,
}

/// A word of a command.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Constant(serde_json::Value),
    /// `.` with the fields after it.
    Dot(Vec<String>),
    /// `$name` with the fields after it; `$` has the name "".
    Variable(String, Vec<String>),
    /// Parentheses with the fields after them.
    Pipe(Box<Pipe>, Vec<String>),
    Function(&'static super::functions::Function),
}

impl Tree {
    /// Whether the template asks for this field.
    pub fn asks_for(&self, field: &str) -> bool {
        self.fields.iter().any(|name| name == field)
    }
}

impl Pipe {
    /// Whether it asks for this field of the data.
    pub fn asks_for(&self, field: &str) -> bool {
        self.commands.iter().flatten().any(|operand| match operand {
            Operand::Dot(fields) => fields.first().is_some_and(|name| name == field),
            Operand::Variable(name, fields) => name.is_empty() && fields.first().is_some_and(|n| n == field),
            Operand::Pipe(pipe, _) => pipe.asks_for(field),
            Operand::Constant(_) | Operand::Function(_) => false,
        })
    }
}

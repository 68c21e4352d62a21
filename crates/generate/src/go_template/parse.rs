//! Tokens become a tree.

use super::DEPTH_MAX;
use super::functions::{FUNCTIONS, Function};
use super::lex::{Kind, Token, at, lex};
use super::tree::{Node, Operand, Pipe, Tree};
use serde_json::json;

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Tree, String> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        tokens: &tokens,
        tree: Tree::default(),
        variables: vec![String::new()],
        depth: 0,
        n_ranges: 0,
        n_open: 0,
    };
    let (root, end) = parser.list()?;
    if let Some((word, line)) = end {
        return Err(at(line, &format!("unexpected {{{{ {word} }}}}")));
    }
    parser.tree.root = root;
    Ok(parser.tree)
}

struct Parser<'a> {
    tokens: &'a [Token],
    tree: Tree,
    /// The variables in sight.
    variables: Vec<String>,
    depth: usize,
    /// How many ranges are around.
    n_ranges: usize,
    /// How many parentheses are open.
    n_open: usize,
}

/// The word that ended a list, `end` or `else`, and its line; its action is open for `else`.
type End = Option<(&'static str, usize)>;

impl<'a> Parser<'a> {
    fn list(&mut self) -> Result<(Vec<Node>, End), String> {
        let mut nodes = Vec::new();
        while let Some(token) = self.next() {
            let line = token.line;
            match &token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text.clone())),
                _ => match self.peek_word() {
                    Some("end") => {
                        self.next();
                        self.close(line)?;
                        return Ok((nodes, Some(("end", line))));
                    }
                    Some("else") => {
                        self.next();
                        return Ok((nodes, Some(("else", line))));
                    }
                    _ => nodes.extend(self.action(line)?),
                },
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, line: usize) -> Result<Option<Node>, String> {
        let Some(word) = self.peek_word() else {
            let pipe = self.pipe(line)?;
            self.close(line)?;
            return Ok(Some(Node::Show(pipe)));
        };
        match word {
            "if" | "with" | "range" => {
                self.next();
                self.controlled(word, line).map(Some)
            }
            "define" | "block" => {
                self.next();
                let name = self.string(line)?;
                let pipe = if word == "block" { Some(self.pipe(line)?) } else { None };
                self.close(line)?;
                let (outside, n_ranges) =
                    (std::mem::replace(&mut self.variables, vec![String::new()]), self.n_ranges);
                self.n_ranges = 0;
                let body = self.body(word, line)?;
                (self.variables, self.n_ranges) = (outside, n_ranges);
                self.tree.defined.insert(name.clone(), body);
                Ok(pipe.map(|pipe| Node::Template(name, Some(pipe), line)))
            }
            "template" => {
                self.next();
                let name = self.string(line)?;
                let is_closed = matches!(self.tokens.first(), Some(Token { kind: Kind::Close, .. }));
                let pipe = if is_closed { None } else { Some(self.pipe(line)?) };
                self.close(line)?;
                Ok(Some(Node::Template(name, pipe, line)))
            }
            "break" | "continue" => {
                self.next();
                self.close(line)?;
                if self.n_ranges == 0 {
                    return Err(at(line, &format!("{{{{ {word} }}}} outside {{{{ range }}}}")));
                }
                Ok(Some(if word == "break" { Node::Break } else { Node::Continue }))
            }
            _ => {
                let pipe = self.pipe(line)?;
                self.close(line)?;
                Ok(Some(Node::Show(pipe)))
            }
        }
    }

    /// What follows `if`, `with` or `range`, up to its `end`.
    fn controlled(&mut self, word: &'static str, line: usize) -> Result<Node, String> {
        self.deeper(line)?;
        let n_variables = self.variables.len();
        let pipe = self.pipe(line)?;
        self.close(line)?;
        self.n_ranges += usize::from(word == "range");
        let (then, end) = self.list()?;
        self.n_ranges -= usize::from(word == "range");
        let otherwise = match end {
            None => return Err(at(line, &format!("{{{{ {word} }}}} has no {{{{ end }}}}"))),
            Some(("else", line)) => match self.peek_word() {
                // `else if` and `else with` share the end of the one that they follow.
                Some(next @ ("if" | "with")) => {
                    self.next();
                    vec![self.controlled(next, line)?]
                }
                _ => {
                    self.close(line)?;
                    self.variables.truncate(n_variables + pipe.sets.len());
                    self.body(word, line)?
                }
            },
            Some(_) => Vec::new(),
        };
        self.variables.truncate(n_variables);
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    /// A list that `end` must end.
    fn body(&mut self, word: &str, line: usize) -> Result<Vec<Node>, String> {
        self.deeper(line)?;
        let (nodes, end) = self.list()?;
        self.depth -= 1;
        match end {
            Some(("end", _)) => Ok(nodes),
            Some((other, line)) => Err(at(line, &format!("unexpected {{{{ {other} }}}}"))),
            None => Err(at(line, &format!("{{{{ {word} }}}} has no {{{{ end }}}}"))),
        }
    }

    /// A pipeline, up to the end of the action or of its parentheses, which stay.
    fn pipe(&mut self, line: usize) -> Result<Pipe, String> {
        self.deeper(line)?;
        let (sets, declares) = self.declaration();
        for name in sets.iter().filter(|_| !declares) {
            self.seen(name, line)?;
        }
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            let is_call = matches!(command.first(), Some(Operand::Function(_)));
            if command.is_empty() {
                return Err(at(line, "the action is empty"));
            }
            if !is_call && (command.len() > 1 || !commands.is_empty()) {
                return Err(at(line, "only a function can take arguments"));
            }
            commands.push(command);
            match self.tokens.first().map(|token| &token.kind) {
                Some(Kind::Sign("|")) => self.tokens = &self.tokens[1..],
                _ => break,
            }
        }
        if declares {
            self.variables.extend(sets.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { sets, declares, commands, line })
    }

    /// `$a :=`, `$a, $b :=` or `$a =` in front of a pipeline.
    fn declaration(&mut self) -> (Vec<String>, bool) {
        let kinds: Vec<&Kind> = self.tokens.iter().take(4).map(|token| &token.kind).collect();
        let (sets, declares, n) = match kinds.as_slice() {
            [Kind::Variable(a), Kind::Sign(sign @ (":=" | "=")), ..] => (vec![a.clone()], *sign == ":=", 2),
            [Kind::Variable(a), Kind::Sign(","), Kind::Variable(b), Kind::Sign(sign @ (":=" | "="))] => {
                (vec![a.clone(), b.clone()], *sign == ":=", 4)
            }
            _ => (Vec::new(), false, 0),
        };
        self.tokens = &self.tokens[n..];
        (sets, declares)
    }

    fn command(&mut self) -> Result<Vec<Operand>, String> {
        let mut operands = Vec::new();
        while let Some(token) = self.tokens.first() {
            let line = token.line;
            let operand = match &token.kind {
                Kind::Close | Kind::Sign("|") => break,
                Kind::Sign(")") if self.n_open > 0 => break,
                Kind::Sign("(") => {
                    self.tokens = &self.tokens[1..];
                    self.n_open += 1;
                    let pipe = self.pipe(line)?;
                    self.n_open -= 1;
                    match self.next().map(|token| &token.kind) {
                        Some(Kind::Sign(")")) => {}
                        _ => return Err(at(line, "a parenthesis is not closed")),
                    }
                    operands.push(Operand::Pipe(Box::new(pipe), self.fields()));
                    continue;
                }
                Kind::Variable(name) => {
                    self.seen(name, line)?;
                    self.tokens = &self.tokens[1..];
                    operands.push(Operand::Variable(name.clone(), self.fields()));
                    continue;
                }
                Kind::Field(name) => {
                    self.tokens = &self.tokens[1..];
                    self.tree.note(name);
                    let mut fields = vec![name.clone()];
                    fields.extend(self.fields());
                    operands.push(Operand::Dot(fields));
                    continue;
                }
                Kind::Dot => Operand::Dot(Vec::new()),
                Kind::Quoted(text) => Operand::Constant(json!(text)),
                Kind::Int(int) => Operand::Constant(json!(int)),
                Kind::Float(float) => Operand::Constant(json!(float)),
                Kind::Word(word) => match word.as_str() {
                    "true" => Operand::Constant(json!(true)),
                    "false" => Operand::Constant(json!(false)),
                    "nil" => Operand::Constant(json!(null)),
                    name => Operand::Function(function(name, line)?),
                },
                Kind::Sign(sign) => return Err(at(line, &format!("unexpected {sign:?}"))),
                Kind::Open | Kind::Text(_) => return Err(at(line, "the action is not closed")),
            };
            self.tokens = &self.tokens[1..];
            operands.push(operand);
        }
        Ok(operands)
    }

    /// The fields that follow without white space.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while let Some(Token { kind: Kind::Field(name), is_apart: false, .. }) = self.tokens.first() {
            self.tree.note(name);
            fields.push(name.clone());
            self.tokens = &self.tokens[1..];
        }
        fields
    }

    fn seen(&self, name: &str, line: usize) -> Result<(), String> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(at(line, &format!("undefined variable ${name}")))
    }

    fn string(&mut self, line: usize) -> Result<String, String> {
        match self.next().map(|token| &token.kind) {
            Some(Kind::Quoted(text)) => Ok(text.clone()),
            _ => Err(at(line, "the name of a template is expected, in quotes")),
        }
    }

    fn close(&mut self, line: usize) -> Result<(), String> {
        match self.next() {
            Some(Token { kind: Kind::Close, .. }) => Ok(()),
            Some(Token { kind: Kind::Sign(sign), line, .. }) => {
                Err(at(*line, &format!("unexpected {sign:?}")))
            }
            _ => Err(at(line, "the end of the action is expected")),
        }
    }

    fn deeper(&mut self, line: usize) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(at(line, &format!("actions stand more than {DEPTH_MAX} deep inside one another")));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn peek_word(&self) -> Option<&'static str> {
        let Some(Token { kind: Kind::Word(word), .. }) = self.tokens.first() else { return None };
        super::lex::KEYWORDS.iter().copied().find(|keyword| keyword == word)
    }
}

fn function(name: &str, line: usize) -> Result<&'static Function, String> {
    let found = FUNCTIONS.iter().find(|function| function.name == name);
    found.ok_or_else(|| at(line, &format!("there is no function {name:?}")))
}

impl Tree {
    fn note(&mut self, field: &str) {
        if !self.asks_for(field) {
            self.fields.push(field.to_string());
        }
    }
}

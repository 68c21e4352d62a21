//! A tree and data become text.

use super::tree::{Node, Operand, Pipe};
use super::value::Value;
use super::{DEPTH_MAX, GoTemplate, OUTPUT_MAX, STEPS_MAX, print};
use serde_json::Value as Json;

/// What follows after a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
    /// Nothing: the text ends here.
    End,
}

/// How a template is run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunOptions {
    /// What the clock says, in seconds since 1970.
    pub now: i64,
    /// Ends the text behind the first action that shows `.Response`.
    pub ends_at_response: bool,
}

impl GoTemplate {
    /// Renders `data` at the beginning of 1970.
    #[cfg(test)]
    pub fn run(&self, data: &Json) -> Result<String, String> {
        self.run_with(data, RunOptions::default())
    }

    /// Renders `data`; the error names the line.
    pub(super) fn run_with(&self, data: &Json, options: RunOptions) -> Result<String, String> {
        let root = Value::borrowed(data);
        let mut run = Run {
            template: self,
            options,
            out: String::new(),
            steps: 0,
            depth: 0,
            variables: vec![(String::new(), root.clone())],
        };
        run.list(&self.tree.root, &root)?;
        Ok(run.out)
    }
}

struct Run<'t, 'a> {
    template: &'t GoTemplate,
    options: RunOptions,
    out: String,
    steps: usize,
    depth: usize,
    variables: Vec<(String, Value<'a>)>,
}

impl<'a> Run<'_, 'a> {
    fn list(&mut self, nodes: &[Node], dot: &Value<'a>) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// A list with variables of its own.
    fn block(&mut self, nodes: &[Node], dot: &Value<'a>, n_variables: usize) -> Result<Flow, String> {
        let flow = self.list(nodes, dot);
        self.variables.truncate(n_variables);
        flow
    }

    fn node(&mut self, node: &Node, dot: &Value<'a>) -> Result<Flow, String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("the template takes more than {STEPS_MAX} steps"));
        }
        let n_variables = self.variables.len();
        let ends = |pipe: &Pipe| self.options.ends_at_response && pipe.asks_for("Response");
        match node {
            Node::Text(text) => {
                self.write(text)?;
                Ok(Flow::Next)
            }
            Node::Show(pipe) => {
                let is_end = ends(pipe);
                let value = self.pipe(pipe, dot)?;
                if pipe.sets.is_empty() {
                    self.write(&print::show(&value))?;
                }
                Ok(if is_end { Flow::End } else { Flow::Next })
            }
            Node::If(pipe, then, otherwise) | Node::With(pipe, then, otherwise) => {
                let is_end = ends(pipe);
                let value = self.pipe(pipe, dot)?;
                let (nodes, inner) = match (value.is_true(), node) {
                    (true, Node::With(..)) => (then, &value),
                    (true, _) => (then, dot),
                    (false, _) => (otherwise, dot),
                };
                let flow = self.block(nodes, inner, n_variables)?;
                Ok(if is_end { Flow::End } else { flow })
            }
            Node::Range(pipe, each, otherwise) => self.range(pipe, each, otherwise, dot),
            Node::Template(name, pipe, line) => {
                let at = |what: String| Err(format!("line {line}: {what}"));
                let Some(nodes) = self.template.tree.defined.get(name) else {
                    return at(format!("there is no template {name:?}"));
                };
                let value = match pipe {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Value::of(()),
                };
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return at(format!("templates stand more than {DEPTH_MAX} deep inside one another"));
                }
                let outside = std::mem::replace(&mut self.variables, vec![(String::new(), value.clone())]);
                let flow = self.list(nodes, &value)?;
                self.variables = outside;
                self.depth -= 1;
                Ok(flow)
            }
            Node::Break => Ok(Flow::Break),
            Node::Continue => Ok(Flow::Continue),
        }
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        each: &[Node],
        otherwise: &[Node],
        dot: &Value<'a>,
    ) -> Result<Flow, String> {
        let n_variables = self.variables.len();
        let value = self.evaluate(pipe, dot)?;
        let pairs: Vec<(Value<'a>, Value<'a>)> =
            match (value.items(), value.as_i64(), value.json().as_object()) {
                (Some(items), ..) => {
                    items.into_iter().enumerate().map(|(i, v)| (Value::of(i as u64), v)).collect()
                }
                (_, Some(n), _) if n > STEPS_MAX as i64 => {
                    return Err(format!("line {}: range: {n} is more than {STEPS_MAX}", pipe.line));
                }
                (_, Some(n), _) => (0..n).map(|i| (Value::of(i), Value::of(i))).collect(),
                (.., Some(map)) => {
                    let mut keys: Vec<&String> = map.keys().collect();
                    keys.sort();
                    keys.into_iter().map(|key| (Value::of(key.as_str()), value.field(key))).collect()
                }
                _ if !value.is_true() => Vec::new(),
                _ => return Err(format!("line {}: range: {} has no items", pipe.line, value.kind())),
            };
        if pairs.is_empty() {
            let flow = self.block(otherwise, dot, n_variables);
            return flow;
        }
        for (key, item) in pairs {
            match pipe.sets.as_slice() {
                [one] => self.set(one, item.clone(), pipe.declares),
                [first, second] => {
                    self.set(first, key, pipe.declares);
                    self.set(second, item.clone(), pipe.declares);
                }
                _ => {}
            }
            match self.block(each, &item, n_variables)? {
                Flow::Next | Flow::Continue => {}
                Flow::Break => break,
                Flow::End => return Ok(Flow::End),
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a pipeline, after its variables are set.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let value = self.evaluate(pipe, dot)?;
        for name in &pipe.sets {
            self.set(name, value.clone(), pipe.declares);
        }
        Ok(value)
    }

    fn evaluate(&mut self, pipe: &Pipe, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let mut piped: Option<Value<'a>> = None;
        for command in &pipe.commands {
            let value = self.command(command, piped.take(), dot, pipe.line)?;
            piped = Some(value);
        }
        Ok(piped.unwrap_or_else(|| Value::of(())))
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value<'a>>,
        dot: &Value<'a>,
        line: usize,
    ) -> Result<Value<'a>, String> {
        let Some((Operand::Function(function), rest)) = operands.split_first() else {
            return self.operand(&operands[0], dot);
        };
        let is_short = matches!(function.name, "and" | "or");
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            let value = self.operand(operand, dot)?;
            if is_short && value.is_true() == (function.name == "or") {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(piped);
        let called = match args.last() {
            Some(last) if is_short => Ok(last.clone()),
            _ => function.call(&args, self.options.now),
        };
        let value = called.map_err(|error| format!("line {line}: {error}"))?;
        if value.as_str().is_some_and(|text| text.len() > OUTPUT_MAX) {
            return Err(format!("line {line}: a text has more than {OUTPUT_MAX} bytes"));
        }
        Ok(value)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value<'a>) -> Result<Value<'a>, String> {
        let (value, fields) = match operand {
            Operand::Constant(json) => return Ok(Value::of(json.clone())),
            Operand::Function(function) => {
                return function.call(&[], self.options.now);
            }
            Operand::Dot(fields) => (dot.clone(), fields),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                (found.map_or_else(|| Value::of(()), |(_, value)| value.clone()), fields)
            }
            Operand::Pipe(pipe, fields) => (self.pipe(pipe, dot)?, fields),
        };
        Ok(fields.iter().fold(value, |value, field| value.field(field)))
    }

    fn set(&mut self, name: &str, value: Value<'a>, declares: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known {
            Some((_, old)) if !declares => *old = value,
            _ => self.variables.push((name.to_string(), value)),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        self.out.push_str(text);
        if self.out.len() > OUTPUT_MAX {
            return Err(format!("the template writes more than {OUTPUT_MAX} bytes"));
        }
        Ok(())
    }
}

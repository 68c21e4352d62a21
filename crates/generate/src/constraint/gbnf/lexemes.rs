//! Cuts a GBNF grammar into lexemes and rules, and writes both in Lark.

use super::ambiguity;
use super::class::Class;
use super::parse::{Node, Rules};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// Different lexemes that a grammar may have.
const LEXEMES_MAX: usize = 400;

/// Characters and rules that a lexeme may unfold to.
const UNFOLDED_MAX: usize = 20_000;

/// What a rule of the result is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    /// The lexeme of this number.
    Lexeme(usize),
    /// The rule of this number.
    Rule(usize),
}

/// A rule of the result.
#[derive(Debug)]
pub(super) enum Body {
    /// One of these sequences.
    Alternatives(Vec<Vec<Symbol>>),
    /// From so many to so many times.
    Repeat(Symbol, u32, Option<u32>),
}

/// A grammar over lexemes.
#[derive(Debug)]
pub(super) struct Cut<'a> {
    rules: &'a Rules,
    /// By rule of the source: whether it never leads back to itself, nor to one that does.
    regular: &'a [bool],
    /// By rule that is regular: what it unfolds to.
    sizes: &'a [usize],
    /// Nodes that are not to be one lexeme.
    apart: &'a HashSet<Node>,
    /// What each lexeme matches; none matches the empty text.
    pub lexemes: Vec<Node>,
    numbers: HashMap<Node, usize>,
    pub bodies: Vec<Body>,
    known: HashMap<Node, Symbol>,
}

/// The same language in Lark.
pub(super) fn to_lark(rules: &Rules) -> Result<String, String> {
    let regular = regular(rules);
    let sizes = sizes(rules, &regular);
    let mut apart = HashSet::new();
    loop {
        let mut cut = Cut {
            rules,
            regular: &regular,
            sizes: &sizes,
            apart: &apart,
            lexemes: Vec::new(),
            numbers: HashMap::new(),
            bodies: Vec::new(),
            known: HashMap::new(),
        };
        let start = cut.symbol(&Node::Rule(rules.root));
        if cut.lexemes.len() > LEXEMES_MAX {
            return Err(format!("it has more than {LEXEMES_MAX} different lexemes"));
        }
        let clashes = ambiguity::find(rules, &cut, start)?;
        if clashes.is_empty() {
            return Ok(cut.write(start));
        }
        let nodes: Vec<Node> = clashes.into_iter().map(|lexeme| cut.lexemes[lexeme].clone()).collect();
        apart.extend(nodes);
    }
}

/// By rule: whether no rule that it reaches reaches itself.
fn regular(rules: &Rules) -> Vec<bool> {
    fn uses(node: &Node, found: &mut Vec<usize>) {
        match node {
            Node::Class(_) => {}
            Node::Rule(rule) => found.push(*rule),
            Node::Seq(nodes) | Node::Alt(nodes) => nodes.iter().for_each(|node| uses(node, found)),
            Node::Repeat(node, _, _) => uses(node, found),
        }
    }
    let direct = |body: &Node| {
        let mut found = Vec::new();
        uses(body, &mut found);
        found
    };
    let direct: Vec<Vec<usize>> = rules.bodies.iter().map(direct).collect();
    let reach = |from: usize| {
        let mut seen = vec![false; direct.len()];
        let mut open = direct[from].clone();
        while let Some(rule) = open.pop() {
            if !std::mem::replace(&mut seen[rule], true) {
                open.extend(&direct[rule]);
            }
        }
        seen
    };
    let reached: Vec<Vec<bool>> = (0..direct.len()).map(reach).collect();
    let loops = |rule: usize| reached[rule][rule];
    (0..direct.len())
        .map(|rule| !loops(rule) && (0..direct.len()).all(|other| !reached[rule][other] || !loops(other)))
        .collect()
}

/// How many characters and repetitions a node unfolds to, those of rules given; no more than `usize::MAX`.
fn size(node: &Node, of_rule: &mut dyn FnMut(usize) -> usize) -> usize {
    match node {
        Node::Class(_) => 1,
        Node::Rule(rule) => of_rule(*rule),
        Node::Seq(nodes) | Node::Alt(nodes) => {
            nodes.iter().fold(1, |sum: usize, node| sum.saturating_add(size(node, of_rule)))
        }
        Node::Repeat(node, _, _) => size(node, of_rule).saturating_add(1),
    }
}

/// By rule: what it unfolds to, if it is regular.
fn sizes(rules: &Rules, regular: &[bool]) -> Vec<usize> {
    fn of(rule: usize, rules: &Rules, known: &mut Vec<usize>) -> usize {
        if known[rule] == 0 {
            known[rule] = size(&rules.bodies[rule], &mut |rule| of(rule, rules, known));
        }
        known[rule]
    }
    // A rule of no known size has at least one character.
    let mut known = vec![0; rules.bodies.len()];
    for rule in (0..regular.len()).filter(|&rule| regular[rule]) {
        of(rule, rules, &mut known);
    }
    known
}

/// Whether a node that leads to no loop matches the empty text.
pub(super) fn is_nullable(rules: &Rules, node: &Node, known: &mut HashMap<usize, bool>) -> bool {
    match node {
        Node::Class(_) => false,
        Node::Rule(rule) => match known.get(rule) {
            Some(&is_nullable) => is_nullable,
            None => {
                let found = is_nullable(rules, &rules.bodies[*rule], known);
                known.insert(*rule, found);
                found
            }
        },
        Node::Seq(nodes) => nodes.iter().all(|node| is_nullable(rules, node, known)),
        Node::Alt(nodes) => nodes.iter().any(|node| is_nullable(rules, node, known)),
        Node::Repeat(node, min, max) => *min == 0 || *max == Some(0) || is_nullable(rules, node, known),
    }
}

/// Whether a node matches nothing but the empty text.
fn is_empty(rules: &Rules, node: &Node) -> bool {
    match node {
        Node::Class(_) => false,
        Node::Rule(rule) => is_empty(rules, &rules.bodies[*rule]),
        Node::Seq(nodes) | Node::Alt(nodes) => nodes.iter().all(|node| is_empty(rules, node)),
        Node::Repeat(node, _, max) => *max == Some(0) || is_empty(rules, node),
    }
}

impl Cut<'_> {
    fn is_regular(&self, node: &Node) -> bool {
        match node {
            Node::Class(_) => true,
            Node::Rule(rule) => self.regular[*rule],
            Node::Seq(nodes) | Node::Alt(nodes) => nodes.iter().all(|node| self.is_regular(node)),
            Node::Repeat(node, _, _) => self.is_regular(node),
        }
    }

    fn lexeme(&mut self, node: &Node) -> Symbol {
        let next = self.lexemes.len();
        let number = *self.numbers.entry(node.clone()).or_insert(next);
        if number == next {
            self.lexemes.push(node.clone());
        }
        Symbol::Lexeme(number)
    }

    fn rule(&mut self, node: &Node, body: impl FnOnce(&mut Self) -> Body) -> Symbol {
        let number = self.bodies.len();
        self.bodies.push(Body::Alternatives(Vec::new()));
        self.known.insert(node.clone(), Symbol::Rule(number));
        self.bodies[number] = body(self);
        Symbol::Rule(number)
    }

    /// The symbol that stands for `node`.
    fn symbol(&mut self, node: &Node) -> Symbol {
        if let Some(&symbol) = self.known.get(node) {
            return symbol;
        }
        let is_regular = self.is_regular(node);
        let is_small = || size(node, &mut |rule| self.sizes[rule]) <= UNFOLDED_MAX;
        if is_regular && is_small() && !self.apart.contains(node) {
            if !is_nullable(self.rules, node, &mut HashMap::new()) {
                return self.lexeme(node);
            }
            let is_empty = is_empty(self.rules, node);
            return self.rule(node, |cut| {
                let full = if is_empty { None } else { Some(vec![cut.lexeme(node)]) };
                Body::Alternatives(full.into_iter().chain([Vec::new()]).collect())
            });
        }
        match node {
            Node::Class(_) => self.lexeme(node),
            Node::Rule(rule) => {
                let body = &self.rules.bodies[*rule];
                self.rule(node, |cut| Body::Alternatives(vec![vec![cut.symbol(body)]]))
            }
            Node::Repeat(inner, min, max) => {
                self.rule(node, |cut| Body::Repeat(cut.symbol(inner), *min, *max))
            }
            Node::Seq(nodes) => self.rule(node, |cut| {
                // Neighbours that are regular are one lexeme.
                let mut symbols = Vec::new();
                let mut run: Vec<Node> = Vec::new();
                for node in nodes {
                    if !is_regular && cut.is_regular(node) {
                        run.push(node.clone());
                        continue;
                    }
                    symbols.extend(cut.run(&mut run, Node::Seq));
                    symbols.push(cut.symbol(node));
                }
                symbols.extend(cut.run(&mut run, Node::Seq));
                Body::Alternatives(vec![symbols])
            }),
            Node::Alt(nodes) => self.rule(node, |cut| {
                let merges = |cut: &Self, node: &&Node| !is_regular && cut.is_regular(node);
                let mut run: Vec<Node> = nodes.iter().filter(|node| merges(cut, node)).cloned().collect();
                let mut options: Vec<Vec<Symbol>> =
                    cut.run(&mut run, Node::Alt).into_iter().map(|symbol| vec![symbol]).collect();
                for node in nodes {
                    if !merges(cut, &node) {
                        options.push(vec![cut.symbol(node)]);
                    }
                }
                Body::Alternatives(options)
            }),
        }
    }

    /// The symbol of nodes that stand together, which are taken.
    fn run(&mut self, run: &mut Vec<Node>, join: fn(Vec<Node>) -> Node) -> Option<Symbol> {
        let mut nodes = std::mem::take(run);
        match nodes.len() {
            0 => None,
            1 => Some(self.symbol(&nodes.remove(0))),
            _ => Some(self.symbol(&join(nodes))),
        }
    }

    fn write(&self, start: Symbol) -> String {
        let name = |symbol: Symbol| match symbol {
            Symbol::Lexeme(number) => format!("L{number}"),
            Symbol::Rule(number) => format!("r{number}"),
        };
        let mut lark = format!("start: {}\n", name(start));
        for (number, body) in self.bodies.iter().enumerate() {
            let text = match body {
                Body::Alternatives(options) => {
                    let option = |symbols: &Vec<Symbol>| match symbols.is_empty() {
                        true => "\"\"".to_string(),
                        false => symbols.iter().map(|&symbol| name(symbol)).collect::<Vec<_>>().join(" "),
                    };
                    options.iter().map(option).collect::<Vec<_>>().join(" | ")
                }
                Body::Repeat(symbol, min, max) => repeated(&name(*symbol), *min, *max),
            };
            writeln!(lark, "r{number}: {text}").expect("a string takes all");
        }
        let mut terminals = Terminals { rules: self.rules, known: HashMap::new(), text: String::new() };
        for (number, node) in self.lexemes.iter().enumerate() {
            let atom = terminals.atom(node);
            let rest = if is_nullable(self.rules, node, &mut HashMap::new()) { " & /(?s:.+)/" } else { "" };
            writeln!(lark, "L{number}: {atom}{rest}").expect("a string takes all");
        }
        lark + &terminals.text
    }
}

/// `atom` from `min` to `max` times, in Lark.
fn repeated(atom: &str, min: u32, max: Option<u32>) -> String {
    match (min, max) {
        (0, None) => format!("{atom}*"),
        (1, None) => format!("{atom}+"),
        (0, Some(1)) => format!("{atom}?"),
        (_, Some(0)) => "\"\"".to_string(),
        (min, None) => format!("{atom}{{{min},}}"),
        (min, Some(max)) => format!("{atom}{{{min},{max}}}"),
    }
}

/// Writes regular nodes as terminals of Lark, each of them once.
struct Terminals<'a> {
    rules: &'a Rules,
    known: HashMap<Node, String>,
    text: String,
}

impl Terminals<'_> {
    fn atom(&mut self, node: &Node) -> String {
        if let Some(known) = self.known.get(node) {
            return known.clone();
        }
        let text = match node {
            Node::Class(class) => return format!("/{}/", class.regex()),
            Node::Rule(rule) => {
                let atom = self.atom(&self.rules.bodies[*rule]);
                self.known.insert(node.clone(), atom.clone());
                return atom;
            }
            Node::Repeat(inner, min, max) => repeated(&self.atom(inner), *min, *max),
            Node::Seq(nodes) => self.sequence(nodes),
            Node::Alt(nodes) => nodes.iter().map(|node| self.atom(node)).collect::<Vec<_>>().join(" | "),
        };
        let name = format!("T{}", self.known.len());
        writeln!(self.text, "{name}: {text}").expect("a string takes all");
        self.known.insert(node.clone(), name.clone());
        name
    }

    /// A sequence whose single characters are put together to literals.
    fn sequence(&mut self, nodes: &[Node]) -> String {
        let mut atoms = Vec::new();
        let mut literal = String::new();
        let single = |node: &Node| if let Node::Class(class) = node { Class::single(class) } else { None };
        for node in nodes {
            match single(node) {
                Some(c) => literal.push(c),
                None => {
                    atoms.extend(quoted(&mut literal));
                    atoms.push(self.atom(node));
                }
            }
        }
        atoms.extend(quoted(&mut literal));
        if atoms.is_empty() { "\"\"".to_string() } else { atoms.join(" ") }
    }
}

/// The literal as Lark has it, unless it is empty; it is taken.
fn quoted(literal: &mut String) -> Option<String> {
    if literal.is_empty() {
        return None;
    }
    let mut quoted = String::from('"');
    for c in std::mem::take(literal).chars() {
        match c {
            ' '..='~' if c != '"' && c != '\\' => quoted.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(quoted, "\\u{unit:04x}").expect("a string takes all");
                }
            }
        }
    }
    quoted.push('"');
    Some(quoted)
}

//! Finds lexemes that would swallow what belongs to the next one.
//!
//! The lexer reads on as long as any lexeme that may stand here can go on. Where lexeme A could end and what follows it
//! could also continue a lexeme B that may stand in the same place, reading on may be wrong; where there is no such pair,
//! the longest match is the only one.

use super::class::Class;
use super::lexemes::{Body, Cut, Symbol, is_nullable};
use super::parse::{Node, Rules};
use llguidance::derivre::{ExprRef, RegexAst, RegexBuilder};
use std::collections::HashMap;

/// Work that one question about two lexemes may cost; without an answer they count as ambiguous.
const FUEL: u64 = 50_000;

/// A set of lexemes.
#[derive(Debug, Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(n: usize) -> Set {
        Set(vec![0; n.div_ceil(64)])
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    /// Adds what `other` has; true if that is more.
    fn add(&mut self, other: &Set) -> bool {
        let mut has_grown = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            has_grown |= *b & !*a != 0;
            *a |= b;
        }
        has_grown
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn all(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * 64).filter(|&i| self.has(i))
    }
}

/// The lexemes that may begin each rule, those that may follow each lexeme, and those that begin a text.
struct Neighbours {
    follow: Vec<Set>,
    start: Set,
}

impl Neighbours {
    fn of(cut: &Cut<'_>, start: Symbol) -> Neighbours {
        let n = cut.lexemes.len();
        // More than one repetition is read as `x self | nothing`, which allows more neighbours, never fewer.
        let productions: Vec<(usize, Vec<Symbol>)> = cut
            .bodies
            .iter()
            .enumerate()
            .flat_map(|(rule, body)| match body {
                Body::Alternatives(options) => options.iter().map(|o| (rule, o.clone())).collect(),
                Body::Repeat(symbol, _, Some(0 | 1)) => vec![(rule, vec![*symbol]), (rule, Vec::new())],
                Body::Repeat(symbol, _, _) => {
                    vec![(rule, vec![*symbol, Symbol::Rule(rule)]), (rule, Vec::new())]
                }
            })
            .collect();
        let mut first = vec![Set::new(n); cut.bodies.len()];
        let mut is_nullable = vec![false; cut.bodies.len()];
        let single = |lexeme| {
            let mut set = Set::new(n);
            set.insert(lexeme);
            set
        };
        let mut has_grown = true;
        while has_grown {
            has_grown = false;
            for (rule, symbols) in &productions {
                let mut is_open = true;
                for symbol in symbols {
                    let (own, ends) = match *symbol {
                        Symbol::Lexeme(lexeme) => (single(lexeme), true),
                        Symbol::Rule(other) => (first[other].clone(), !is_nullable[other]),
                    };
                    has_grown |= first[*rule].add(&own);
                    if ends {
                        is_open = false;
                        break;
                    }
                }
                has_grown |= is_open && !std::mem::replace(&mut is_nullable[*rule], true);
            }
        }
        let mut follow = vec![Set::new(n); n];
        let mut after_rule = vec![Set::new(n); cut.bodies.len()];
        has_grown = true;
        while has_grown {
            has_grown = false;
            for (rule, symbols) in &productions {
                let mut after = after_rule[*rule].clone();
                for symbol in symbols.iter().rev() {
                    match *symbol {
                        Symbol::Lexeme(lexeme) => {
                            has_grown |= follow[lexeme].add(&after);
                            after = single(lexeme);
                        }
                        Symbol::Rule(other) => {
                            has_grown |= after_rule[other].add(&after);
                            let own = first[other].clone();
                            if is_nullable[other] {
                                after.add(&own);
                            } else {
                                after = own;
                            }
                        }
                    }
                }
            }
        }
        let start = match start {
            Symbol::Lexeme(lexeme) => single(lexeme),
            Symbol::Rule(rule) => first[rule].clone(),
        };
        Neighbours { follow, start }
    }
}

/// The lexemes that must be cut smaller; empty if the longest match is always the right one.
pub(super) fn find(rules: &Rules, cut: &Cut<'_>, start: Symbol) -> Result<Vec<usize>, String> {
    let n = cut.lexemes.len();
    let neighbours = Neighbours::of(cut, start);
    let mut languages = Languages::of(rules, cut)?;
    let following: Vec<Class> = (0..n)
        .map(|lexeme| {
            let first = &languages.first;
            let all = neighbours.follow[lexeme].all();
            all.fold(Class::default(), |class, next| class.union(&first[next])).widened()
        })
        .collect();
    // Pairs that may stand in the same place: those that begin a text, and those that follow a pair which both match the
    // same text.
    let mut together = vec![Set::new(n); n];
    let mut open: Vec<Set> = vec![neighbours.start.clone()];
    let mut clashes = Set::new(n);
    while let Some(set) = open.pop() {
        for a in set.all() {
            let before = together[a].clone();
            if !together[a].add(&set) {
                continue;
            }
            for b in set.all().filter(|&b| !before.has(b)) {
                if languages.swallows(b, a, &following[a]) {
                    clashes.insert(b);
                }
                if a <= b && (a == b || languages.overlap(a, b)) {
                    let mut after = neighbours.follow[a].clone();
                    after.add(&neighbours.follow[b]);
                    open.push(after);
                }
            }
        }
    }
    Ok(clashes.all().collect())
}

/// The lexemes as regular expressions.
struct Languages {
    builder: RegexBuilder,
    expressions: Vec<ExprRef>,
    /// By lexeme: the characters that it may begin with.
    first: Vec<Class>,
    /// By lexeme: whether it is a single character.
    is_single: Vec<bool>,
}

impl Languages {
    fn of(rules: &Rules, cut: &Cut<'_>) -> Result<Languages, String> {
        let mut builder = RegexBuilder::new();
        let (mut nullable, mut begun, mut built) = (HashMap::new(), HashMap::new(), HashMap::new());
        let full = make(&mut builder, &RegexAst::Regex("(?s:.+)".to_string()))?;
        let mut expressions = Vec::new();
        let mut first = Vec::new();
        for node in &cut.lexemes {
            let expression = expression(rules, node, &mut builder, &mut built)?;
            expressions.push(match is_nullable(rules, node, &mut nullable) {
                false => expression,
                true => {
                    let both = vec![RegexAst::ExprRef(expression), RegexAst::ExprRef(full)];
                    make(&mut builder, &RegexAst::And(both))?
                }
            });
            first.push(begins(rules, node, &mut nullable, &mut begun));
        }
        let is_single = cut.lexemes.iter().map(|node| matches!(node, Node::Class(_))).collect();
        Ok(Languages { builder, expressions, first, is_single })
    }

    /// Whether both match a text; true also if that is too hard to tell.
    fn overlap(&mut self, a: usize, b: usize) -> bool {
        let both = [a, b].map(|i| RegexAst::ExprRef(self.expressions[i])).to_vec();
        self.first[a].meets(&self.first[b]) && self.has_text(RegexAst::And(both))
    }

    /// Whether a text of `b` begins with one of `a` and goes on with one of `following`.
    fn swallows(&mut self, b: usize, a: usize, following: &Class) -> bool {
        if self.is_single[b] || following.is_empty() || !self.first[a].meets(&self.first[b]) {
            return false;
        }
        let longer = RegexAst::Concat(vec![
            RegexAst::ExprRef(self.expressions[a]),
            RegexAst::Regex(following.regex()),
            RegexAst::Regex("(?s:.*)".to_string()),
        ]);
        self.has_text(RegexAst::And(vec![longer, RegexAst::ExprRef(self.expressions[b])]))
    }

    fn has_text(&mut self, ast: RegexAst) -> bool {
        let Ok(expression) = self.builder.mk(&ast) else { return true };
        match self.builder.to_regex_limited(expression, FUEL) {
            Ok(mut regex) => !regex.always_empty(),
            Err(_) => true,
        }
    }
}

fn make(builder: &mut RegexBuilder, ast: &RegexAst) -> Result<ExprRef, String> {
    builder.mk(ast).map_err(|error| crate::constraint::in_short(&error))
}

/// A regular node as an expression; those of rules are built once.
fn expression(
    rules: &Rules,
    node: &Node,
    builder: &mut RegexBuilder,
    built: &mut HashMap<usize, ExprRef>,
) -> Result<ExprRef, String> {
    let mut inner = |node: &Node| Ok(RegexAst::ExprRef(expression(rules, node, builder, built)?));
    let ast = match node {
        Node::Class(class) => RegexAst::Regex(class.regex()),
        Node::Seq(nodes) => RegexAst::Concat(nodes.iter().map(inner).collect::<Result<_, String>>()?),
        Node::Alt(nodes) => RegexAst::Or(nodes.iter().map(inner).collect::<Result<_, String>>()?),
        Node::Repeat(node, min, max) => {
            RegexAst::Repeat(Box::new(inner(node)?), *min, max.unwrap_or(u32::MAX))
        }
        Node::Rule(rule) => {
            if let Some(&known) = built.get(rule) {
                return Ok(known);
            }
            let found = expression(rules, &rules.bodies[*rule], builder, built)?;
            built.insert(*rule, found);
            return Ok(found);
        }
    };
    make(builder, &ast)
}

/// The characters that a regular node may begin with.
fn begins(
    rules: &Rules,
    node: &Node,
    nullable: &mut HashMap<usize, bool>,
    begun: &mut HashMap<usize, Class>,
) -> Class {
    match node {
        Node::Class(class) => class.clone(),
        Node::Rule(rule) => match begun.get(rule) {
            Some(known) => known.clone(),
            None => {
                let found = begins(rules, &rules.bodies[*rule], nullable, begun);
                begun.insert(*rule, found.clone());
                found
            }
        },
        Node::Repeat(_, _, Some(0)) => Class::default(),
        Node::Repeat(node, _, _) => begins(rules, node, nullable, begun),
        Node::Alt(nodes) => nodes
            .iter()
            .fold(Class::default(), |class, node| class.union(&begins(rules, node, nullable, begun))),
        Node::Seq(nodes) => {
            let mut class = Class::default();
            for node in nodes {
                class = class.union(&begins(rules, node, nullable, begun));
                if !is_nullable(rules, node, nullable) {
                    break;
                }
            }
            class
        }
    }
}

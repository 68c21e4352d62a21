//! GBNF means what a naive reader of it finds.

use super::class::Class;
use super::parse::{Node, Rules, parse};
use super::to_lark;
use crate::Rng;
use crate::constraint::{Grammars, State};
use crate::engine_tests::letters;
use rhetor_lm::Constraint;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a match of `node` that begins at `from` may end, if those of rules are as in `known`.
fn ends(node: &Node, text: &[char], from: usize, known: &[Vec<BTreeSet<usize>>]) -> BTreeSet<usize> {
    let after = |node: &Node, starts: &BTreeSet<usize>| -> BTreeSet<usize> {
        starts.iter().flat_map(|&start| ends(node, text, start, known)).collect()
    };
    match node {
        Node::Class(class) => {
            text.get(from).filter(|c| class.has(**c)).map(|_| from + 1).into_iter().collect()
        }
        Node::Rule(rule) => known[*rule][from].clone(),
        Node::Seq(nodes) => nodes.iter().fold(BTreeSet::from([from]), |starts, node| after(node, &starts)),
        Node::Alt(nodes) => nodes.iter().flat_map(|node| ends(node, text, from, known)).collect(),
        Node::Repeat(node, min, max) => {
            let mut found = BTreeSet::new();
            let mut starts = BTreeSet::from([from]);
            // As many times as the text has characters, and once more for the empty text, finds all.
            for n in 0..=max.unwrap_or(u32::MAX).min(min + text.len() as u32 + 1) {
                if n >= *min {
                    found.extend(&starts);
                }
                starts = after(node, &starts);
            }
            found
        }
    }
}

/// Whether the grammar derives `text`.
fn derives(rules: &Rules, text: &[char]) -> bool {
    let mut known = vec![vec![BTreeSet::new(); text.len() + 1]; rules.bodies.len()];
    loop {
        let mut next = known.clone();
        for (rule, body) in rules.bodies.iter().enumerate() {
            for (from, found) in next[rule].iter_mut().enumerate() {
                found.extend(ends(body, text, from, &known));
            }
        }
        if next == known {
            return known[rules.root][0].contains(&text.len());
        }
        known = next;
    }
}

/// Compares the grammar with the naive reader on every text of `signs` of up to `len` characters; returns how many texts
/// it has.
fn compare(source: &str, signs: &[char], len: usize) -> usize {
    let rules = parse(source).unwrap();
    let constraint = Constraint::Gbnf(source.to_string());
    let tokenizer = letters();
    let grammar = Grammars::new(&tokenizer).unwrap().compile(&constraint).unwrap_or_else(|error| {
        panic!("{source}\n{error}\n{}", to_lark(source).unwrap());
    });
    let ids: Vec<u32> = signs.iter().map(|c| tokenizer.id(&c.to_string()).unwrap()).collect();
    let mut n_texts = 0;
    let mut open: Vec<(Vec<char>, State)> = vec![(Vec::new(), grammar.begin(Arc::from([1]), None))];
    while let Some((text, mut state)) = open.pop() {
        let mask = state.mask();
        let lark = || to_lark(source).unwrap();
        let found = mask.as_ref().is_ok_and(|mask| mask.allows(1));
        assert_eq!(found, derives(&rules, &text), "{text:?} of\n{source}\n{mask:?}\n{}", lark());
        n_texts += usize::from(found);
        for (&c, &id) in signs.iter().zip(&ids) {
            let longer = [&text[..], &[c]].concat();
            if mask.as_ref().is_ok_and(|mask| mask.allows(id)) {
                if longer.len() <= len {
                    let mut next = state.clone();
                    next.commit(id).unwrap();
                    open.push((longer, next));
                }
            } else if longer.len() <= len {
                // What is refused here begins no text; two more characters are tried.
                for &d in signs {
                    for text in [vec![], vec![d], vec![d, c], vec![d, d]] {
                        let text = [&longer[..], &text].concat();
                        assert!(!derives(&rules, &text), "{text:?} is refused by\n{source}\n{}", lark());
                    }
                }
            }
        }
    }
    n_texts
}

struct Maker {
    rng: Rng,
    n_rules: usize,
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        (self.rng.uniform() * n as f64) as usize
    }

    fn node(&mut self, depth: usize) -> String {
        let word = |maker: &mut Maker| -> String {
            let len = 1 + maker.below(3);
            (0..len).map(|_| ['a', 'b', 'c'][maker.below(3)]).collect()
        };
        match self.below(if depth == 0 { 4 } else { 9 }) {
            0 => format!("\"{}\"", word(self)),
            1 => format!("[{}]", word(self)),
            2 | 3 => format!("r{}", self.below(self.n_rules)),
            4 | 5 => format!("{} {}", self.node(depth - 1), self.node(depth - 1)),
            6 => format!("({} | {})", self.node(depth - 1), self.node(depth - 1)),
            7 => format!("({} | )", self.node(depth - 1)),
            _ => {
                let times = ["*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"][self.below(7)];
                format!("({}){times}", self.node(depth - 1))
            }
        }
    }
}

#[test]
fn random_grammars_derive_the_same_texts_as_a_naive_reader_finds() {
    let mut n_texts = 0;
    for seed in 0..150 {
        let mut maker = Maker { rng: Rng::new(seed, 0), n_rules: 1 + seed as usize % 4 };
        let mut source = "root ::= r0 | \"c\" r0\n".to_string();
        for rule in 0..maker.n_rules {
            // A rule that could not end would derive nothing.
            let (left, right) = (maker.node(3), maker.node(2));
            source += &format!("r{rule} ::= {left} | {right} | \"b\"\n");
        }
        n_texts += compare(&source, &['a', 'b', 'c'], 4);
    }
    assert!(n_texts > 2000, "{n_texts}");
}

#[test]
fn lexemes_that_could_swallow_each_other_are_cut() {
    let sources = [
        // The longest match is the wrong one in each.
        "root ::= root \"ab\" | \"a\" | \"abb\"",
        "root ::= \"(\" root \")\" | [a-c]+ \"c\"",
        "root ::= item (\"b\" root)?\nitem ::= [ab]+ | \"(\" root \")\"",
        "root ::= ws | \"(\" ws root \")\" ws \"a\"\nws ::= [ab]*",
        "root ::= \"a\" root \"a\" | \"\"",
    ];
    for source in sources {
        assert!(compare(source, &['a', 'b', 'c', '(', ')'], 5) > 0, "{source}");
    }
}

/// llama.cpp, grammars/json.gbnf.
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

/// llama.cpp, grammars/arithmetic.gbnf.
const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] ws term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;

#[test]
fn the_grammars_that_come_with_llama_cpp_work_and_that_of_json_in_large_lexemes() {
    let lark = to_lark(JSON).unwrap();
    let lexemes = lark.lines().filter(|line| line.starts_with('L')).count();
    assert!(lexemes < 15, "a string is one lexeme:\n{lark}");
    let tokenizer = letters();
    let grammars = Grammars::new(&tokenizer).unwrap();
    let cases = [
        (JSON, "{\"a\": [1, -2.5e3, {\"b\":\n  null}], \"c\\\"\": \"d\"}", true),
        (JSON, "{\"a\": 01}", false),
        (JSON, "{\"a\": 1,}", false),
        (JSON, "[1]", false),
        (ARITHMETIC, "a+b*(c - 1)=d\n", true),
        (ARITHMETIC, "x=1\ny + 1 =x \n\n", true),
        (ARITHMETIC, "x=1", false),
        (ARITHMETIC, "x=1+2\n", false),
        (ARITHMETIC, "x+=1\n", false),
    ];
    for (source, text, is_in) in cases {
        let rules = parse(source).unwrap();
        assert_eq!(derives(&rules, &text.chars().collect::<Vec<_>>()), is_in, "{text:?}");
        let grammar = grammars.compile(&Constraint::Gbnf(source.to_string())).unwrap();
        let mut state = grammar.begin(Arc::from([1]), None);
        let ids = tokenizer.encode(text, rhetor_tokenizer::Special::Literal);
        let goes_on = |id: &&u32| state.mask().unwrap().allows(**id) && state.commit(**id).is_ok();
        let n = ids.iter().take_while(goes_on).count();
        let found = n == ids.len() && state.mask().unwrap().allows(1);
        assert_eq!(found, is_in, "{text:?} after {n}\n{}", to_lark(source).unwrap());
    }
}

#[test]
fn a_grammar_that_leads_to_no_loop_is_a_single_lexeme() {
    let lark =
        to_lark("root ::= a{2} \"-\" a\na ::= [0-9]{3} | b\nb ::= \"x\\\"\\u00e9\\U0001F600\"").unwrap();
    let lexemes: Vec<&str> = lark.lines().filter(|line| line.starts_with('L')).collect();
    assert_eq!(lexemes.len(), 1, "{lark}");
    assert!(lark.contains(r#""x\u0022\u00e9\ud83d\ude00""#), "{lark}");
    assert_eq!(Class::of('a').regex(), r"[\u{61}]");
}

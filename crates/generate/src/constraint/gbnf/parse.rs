//! Reads GBNF.

use super::class::Class;
use std::collections::HashMap;

/// What a rule stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// One character of a set.
    Class(Class),
    /// The rule of this number.
    Rule(usize),
    /// One after the other; none = the empty text.
    Seq(Vec<Node>),
    /// One of these.
    Alt(Vec<Node>),
    /// From so many to so many times; `None` = without end.
    Repeat(Box<Node>, u32, Option<u32>),
}

/// A grammar: rules by number, of which `root` is where a text begins.
#[derive(Debug)]
pub(super) struct Rules {
    pub bodies: Vec<Node>,
    pub root: usize,
}

/// Rules that a grammar may have.
const RULES_MAX: usize = 2000;

/// Brackets within each other.
const DEPTH_MAX: usize = 100;

/// The greatest number of repetitions, as in llama.cpp.
const REPEATS_MAX: u32 = 2000;

/// Reads a grammar. An error names line and column.
pub(super) fn parse(text: &str) -> Result<Rules, String> {
    let mut parser = Parser { text, at: 0, names: Vec::new(), numbers: HashMap::new(), bodies: Vec::new() };
    let read = parser.rules();
    read.map_err(|reason| {
        let before = &text[..parser.at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        format!("line {line}, column {column}: {reason}")
    })?;
    let Parser { names, numbers, bodies, .. } = parser;
    let missing = bodies.iter().position(Option::is_none).map(|rule| &names[rule]);
    if let Some(name) = missing {
        return Err(format!("the rule `{name}` is used and not defined"));
    }
    let root = *numbers.get("root").ok_or("no rule is called `root`")?;
    Ok(Rules { bodies: bodies.into_iter().flatten().collect(), root })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    bodies: Vec<Option<Node>>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(text);
        self.at += if is_there { text.len() } else { 0 };
        is_there
    }

    /// Skips blanks and comments, and line ends if these mean nothing here.
    fn space(&mut self, over_lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n' && c != '\r') {
                        self.next();
                    }
                }
                ' ' | '\t' => {
                    self.next();
                }
                '\r' | '\n' if over_lines => {
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&str> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        self.at += len;
        (len > 0).then(|| &rest[..len])
    }

    fn number_of(&mut self, name: &str) -> Result<usize, String> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(number);
        }
        let number = self.names.len();
        if number == RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules"));
        }
        self.names.push(name.to_string());
        self.numbers.insert(name.to_string(), number);
        self.bodies.push(None);
        Ok(number)
    }

    fn rules(&mut self) -> Result<(), String> {
        self.space(true);
        while self.peek().is_some() {
            let name = self.name().ok_or("here a rule's name is expected")?.to_string();
            let rule = self.number_of(&name)?;
            self.space(false);
            if !self.eat("::=") {
                return Err(format!("after `{name}`, `::=` is expected"));
            }
            self.space(true);
            if self.bodies[rule].is_some() {
                return Err(format!("the rule `{name}` is defined twice"));
            }
            self.bodies[rule] = Some(self.alternatives(0)?);
            if self.peek().is_some_and(|c| c != '\n' && c != '\r') {
                return Err("this does not belong to the rule; a new line or its end is expected".to_string());
            }
            self.space(true);
        }
        Ok(())
    }

    fn alternatives(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} brackets within each other"));
        }
        let mut options = vec![self.sequence(depth)?];
        while self.eat("|") {
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(if options.len() == 1 { options.remove(0) } else { Node::Alt(options) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, String> {
        let is_nested = depth > 0;
        let mut items = Vec::new();
        loop {
            let literal = items.len();
            match self.peek() {
                Some('"') => self.literal(&mut items)?,
                Some('[') => items.push(Node::Class(self.class()?)),
                Some('.') => {
                    self.next();
                    items.push(Node::Class(Class::default().negated()));
                }
                Some('(') => {
                    self.next();
                    self.space(true);
                    items.push(self.alternatives(depth + 1)?);
                    if !self.eat(")") {
                        return Err("here `)` is expected".to_string());
                    }
                }
                Some('<' | '!') => {
                    return Err("tokens (`<...>`) are not supported; write their text".to_string());
                }
                Some(c) if is_name(c) => {
                    let name = self.name().expect("it begins with a sign of names").to_string();
                    items.push(Node::Rule(self.number_of(&name)?));
                }
                _ => break,
            }
            self.space(is_nested);
            while let Some((min, max)) = self.repetition()? {
                // It repeats the item before it: a literal as a whole.
                let item = items.split_off(literal.min(items.len()));
                let item = if item.len() == 1 { item.into_iter().next() } else { Some(Node::Seq(item)) };
                items.push(Node::Repeat(Box::new(item.expect("one item")), min, max));
                self.space(is_nested);
            }
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Node::Seq(items) })
    }

    fn repetition(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let bounds = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.next();
                self.space(false);
                let min = self.count()?.ok_or("a number is expected after `{`")?;
                self.space(false);
                let max = if self.eat(",") {
                    self.space(false);
                    self.count()?
                } else {
                    Some(min)
                };
                self.space(false);
                if self.peek() != Some('}') {
                    return Err("here `}` is expected".to_string());
                }
                if max.is_some_and(|max| max < min) {
                    return Err("the greater number of repetitions comes second".to_string());
                }
                (min, max)
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(bounds))
    }

    fn count(&mut self) -> Result<Option<u32>, String> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.at += len;
        match rest[..len].parse::<u32>() {
            _ if len == 0 => Ok(None),
            Ok(n) if n <= REPEATS_MAX => Ok(Some(n)),
            _ => Err(format!("more than {REPEATS_MAX} repetitions")),
        }
    }

    fn literal(&mut self, items: &mut Vec<Node>) -> Result<(), String> {
        self.next();
        loop {
            match self.peek() {
                None => return Err("a literal has no end".to_string()),
                Some('"') => {
                    self.next();
                    return Ok(());
                }
                Some(_) => items.push(Node::Class(Class::of(self.sign()?))),
            }
        }
    }

    fn class(&mut self) -> Result<Class, String> {
        self.next();
        let is_negated = self.eat("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                None => return Err("a set of characters has no end".to_string()),
                Some(']') => break,
                Some(_) => {}
            }
            let from = self.sign()?;
            let rest = &self.text[self.at..];
            let to = if rest.starts_with('-') && !rest.starts_with("-]") {
                self.next();
                if self.peek().is_none() {
                    return Err("a set of characters has no end".to_string());
                }
                self.sign()?
            } else {
                from
            };
            if to < from {
                return Err(format!("the range {from:?}-{to:?} goes backwards"));
            }
            ranges.push((from as u32, to as u32));
        }
        self.next();
        let class = Class::new(ranges);
        let class = if is_negated { class.negated() } else { class };
        if class.is_empty() { Err("a set without characters".to_string()) } else { Ok(class) }
    }

    /// A character, or what stands for one.
    fn sign(&mut self) -> Result<char, String> {
        let c = self.next().expect("the caller has seen one");
        if c != '\\' {
            return Ok(c);
        }
        let escape = self.next().ok_or("nothing follows the backslash")?;
        match escape {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            '\\' | '"' | '[' | ']' => Ok(escape),
            'x' => self.hexadecimal(2),
            'u' => self.hexadecimal(4),
            'U' => self.hexadecimal(8),
            _ => Err(format!("`\\{escape}` is no escape")),
        }
    }

    fn hexadecimal(&mut self, len: usize) -> Result<char, String> {
        let digits = self.text[self.at..].get(..len).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| format!("{len} hexadecimal digits are expected"))?;
        let code = u32::from_str_radix(digits, 16).expect("hexadecimal digits");
        self.at += len;
        char::from_u32(code).ok_or_else(|| format!("{code:X} is no character"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).map(|rules| rules.bodies).unwrap_err()
    }

    #[test]
    fn rules_may_go_over_lines_in_brackets_and_after_bars() {
        let text =
            "# a comment\nroot ::= a-1 | # or\n  (\"x\"\n | [a-c\\]\\x41]{2,3}) \"yz\"*\n\na-1 ::= .\n";
        let rules = parse(text).unwrap();
        let one = |c| Node::Class(Class::of(c));
        let class = Class::new(vec![(97, 99), (93, 93), (65, 65)]);
        let expected = Node::Alt(vec![
            Node::Rule(1),
            Node::Seq(vec![
                Node::Alt(vec![one('x'), Node::Repeat(Box::new(Node::Class(class)), 2, Some(3))]),
                Node::Repeat(Box::new(Node::Seq(vec![one('y'), one('z')])), 0, None),
            ]),
        ]);
        assert_eq!(rules.bodies[rules.root], expected);
        assert_eq!(rules.bodies[1], Node::Class(Class::default().negated()));
        let empty = parse("root ::= \"\" | ()").unwrap();
        assert_eq!(empty.bodies[0], Node::Alt(vec![Node::Seq(vec![]), Node::Seq(vec![])]));
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_column() {
        for (text, expected) in [
            ("", "no rule is called `root`"),
            ("root ::= a", "the rule `a` is used and not defined"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 10: the rule `root` is defined twice"),
            ("root = \"a\"", "line 1, column 6: after `root`, `::=` is expected"),
            ("root ::= (\"a\"\n", "line 2, column 1: here `)` is expected"),
            ("root ::= \"a", "line 1, column 12: a literal has no end"),
            ("root ::= [a", "a set of characters has no end"),
            ("root ::= [z-a]", "line 1, column 14: the range 'z'-'a' goes backwards"),
            ("root ::= []", "a set without characters"),
            ("root ::= \"\\q\"", "`\\q` is no escape"),
            ("root ::= \"\\ud800\"", "D800 is no character"),
            ("root ::= \"\\u12\"", "4 hexadecimal digits"),
            ("root ::= \"a\"{3,2}", "the greater number"),
            ("root ::= \"a\"{2001}", "more than 2000 repetitions"),
            ("root ::= \"a\"{", "a number is expected"),
            ("root ::= <think>", "tokens (`<...>`) are not supported"),
            ("root ::= \"a\" }", "line 1, column 14: this does not belong to the rule"),
            ("root ::= \"a\"\n  | \"b\"", "line 2, column 3: here a rule's name is expected"),
        ] {
            let reason = refusal(text);
            assert!(reason.contains(expected), "{text:?}: {reason}");
        }
        assert!(refusal(&format!("root ::= {}", "(".repeat(1000))).contains("brackets"));
        let many: String = (0..3000).map(|i| format!("r{i} ::= \"a\"\n")).collect();
        assert!(refusal(&many).contains("more than 2000 rules"));
    }
}

//! Tokens that are found in the text before everything else: control tokens and user-defined ones.
//!
//! Matching is leftmost-longest, as in Hugging Face's `tokenizers`. Control tokens are found only where the caller
//! says that the text may hold them ([`Special::Parse`]): what a user typed must never become one.

use crate::unicode_class::{Class, class_of};
use crate::{Special, TokenId};

/// A token that is found as it is in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddedToken {
    pub text: String,
    pub id: TokenId,
    /// Found only with [`Special::Parse`].
    pub is_control: bool,
    /// Swallows white space on its left.
    pub strips_left: bool,
    /// Swallows white space on its right.
    pub strips_right: bool,
    /// Is no match inside a word.
    pub single_word: bool,
}

impl AddedToken {
    /// A token without any stripping.
    pub fn new(text: &str, id: TokenId, is_control: bool) -> AddedToken {
        let text = text.to_string();
        AddedToken { text, id, is_control, strips_left: false, strips_right: false, single_word: false }
    }
}

/// A stretch of text between added tokens, or one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    Text(&'t str),
    Token(TokenId),
}

/// All added tokens of a vocabulary, as a trie over bytes.
#[derive(Debug, Clone)]
pub(crate) struct AddedTokens {
    tokens: Vec<AddedToken>,
    nodes: Vec<Node>,
    /// The node for each first byte, 0 if none.
    roots: Box<[u32; 256]>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Bytes and nodes, sorted by byte.
    children: Vec<(u8, u32)>,
    /// Indices into `tokens`: with control tokens allowed, and without.
    any: Option<u32>,
    literal: Option<u32>,
}

impl AddedTokens {
    /// Builds the trie; empty texts are left out, since they would match everywhere.
    pub fn new(tokens: Vec<AddedToken>) -> AddedTokens {
        let tokens: Vec<AddedToken> = tokens.into_iter().filter(|token| !token.text.is_empty()).collect();
        // Node 0 is never a child, so that 0 can mean none.
        let mut added = AddedTokens { tokens, nodes: vec![Node::default()], roots: Box::new([0; 256]) };
        for i in 0..added.tokens.len() {
            added.insert(i);
        }
        added
    }

    fn insert(&mut self, token: usize) {
        let text = self.tokens[token].text.clone();
        let mut bytes = text.bytes();
        let Some(first) = bytes.next() else { return };
        let mut at = self.roots[first as usize] as usize;
        if at == 0 {
            at = self.push_node();
            self.roots[first as usize] = at as u32;
        }
        for byte in bytes {
            at = match self.nodes[at].children.binary_search_by_key(&byte, |child| child.0) {
                Ok(i) => self.nodes[at].children[i].1 as usize,
                Err(i) => {
                    let node = self.push_node();
                    self.nodes[at].children.insert(i, (byte, node as u32));
                    node
                }
            };
        }
        let node = &mut self.nodes[at];
        node.any.get_or_insert(token as u32);
        if !self.tokens[token].is_control {
            node.literal.get_or_insert(token as u32);
        }
    }

    fn push_node(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// Calls `each` with the fragments of `text`, in order; none is empty.
    pub fn split<'t>(&self, text: &'t str, special: Special, mut each: impl FnMut(Fragment<'t>)) {
        let bytes = text.as_bytes();
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            let Some(token) = self.longest_at(text, at, special) else {
                at += 1;
                continue;
            };
            let (mut left, mut right) = (at, at + token.text.len());
            if token.strips_left {
                left = start + text[start..at].trim_end().len();
            }
            if token.strips_right {
                right = text.len() - text[right..].trim_start().len();
            }
            if left > start {
                each(Fragment::Text(&text[start..left]));
            }
            each(Fragment::Token(token.id));
            (start, at) = (right, right);
        }
        if start < text.len() {
            each(Fragment::Text(&text[start..]));
        }
    }

    /// The text of token `id`.
    pub fn text_of(&self, id: TokenId) -> Option<&str> {
        self.tokens.iter().find(|token| token.id == id).map(|token| token.text.as_str())
    }

    fn longest_at(&self, text: &str, at: usize, special: Special) -> Option<&AddedToken> {
        let bytes = text.as_bytes();
        let mut node = self.roots[bytes[at] as usize] as usize;
        let (mut end, mut found) = (at + 1, None);
        while node != 0 {
            let Node { children, any, literal } = &self.nodes[node];
            let token = if special == Special::Parse { *any } else { *literal };
            if let Some(token) = token.map(|token| &self.tokens[token as usize]) {
                if !(token.single_word && (ends_in_word(&text[..at]) || starts_with_word(&text[end..]))) {
                    found = Some(token);
                }
            }
            let Some(&byte) = bytes.get(end) else { break };
            node = match children.binary_search_by_key(&byte, |child| child.0) {
                Ok(i) => children[i].1 as usize,
                Err(_) => break,
            };
            end += 1;
        }
        found
    }
}

/// Whether a word character is the last of `text`.
fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

/// Whether a word character is the first of `text`.
fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

/// What `\w` matches: alphabetic characters, marks, decimal digits, connectors and joiners.
fn is_word(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(class_of(c), Class::MarkNonspacing | Class::MarkOther)
        || matches!(c, '_' | '\u{203F}' | '\u{2040}' | '\u{2054}' | '\u{200C}' | '\u{200D}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[(&str, &str)], special: Special, text: &str, expected: &str) {
        let tokens = tokens.iter().enumerate().map(|(id, (text, flags))| AddedToken {
            is_control: flags.contains('c'),
            strips_left: flags.contains('l'),
            strips_right: flags.contains('r'),
            single_word: flags.contains('w'),
            ..AddedToken::new(text, id as TokenId, false)
        });
        let mut got = String::new();
        AddedTokens::new(tokens.collect()).split(text, special, |fragment| match fragment {
            Fragment::Text(text) => got.push_str(&format!("[{text}]")),
            Fragment::Token(id) => got.push_str(&format!("{id}")),
        });
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn the_leftmost_then_the_longest_token_wins() {
        let tokens = [("ab", ""), ("abc", ""), ("bcd", ""), ("", "")];
        check(&tokens, Special::Literal, "xabcdabbcd", "[x]1[d]02");
        check(&tokens, Special::Literal, "", "");
        check(&tokens, Special::Literal, "ab", "0");
    }

    #[test]
    fn a_control_token_is_text_where_the_user_types_it() {
        let tokens = [("<s>", "c"), ("<s>!", "")];
        check(&tokens, Special::Parse, "a<s>b<s>!", "[a]0[b]1");
        check(&tokens, Special::Literal, "a<s>b<s>!", "[a<s>b]1");
    }

    #[test]
    fn white_space_is_stripped_where_the_token_says_so() {
        check(&[("<m>", "l")], Special::Parse, "a \n<m> b", "[a]0[ b]");
        check(&[("<m>", "r")], Special::Parse, "a <m>\u{3000} b", "[a ]0[b]");
        check(&[("<m>", "lr")], Special::Parse, " <m> <m> ", "00");
    }

    #[test]
    fn a_single_word_token_is_no_part_of_a_word() {
        check(&[("the", "w")], Special::Parse, "the theme, bathe (the)", "0[ theme, bathe (]0[)]");
        check(&[("the", "w"), ("he", "")], Special::Parse, "thes", "[t]1[s]");
    }
}

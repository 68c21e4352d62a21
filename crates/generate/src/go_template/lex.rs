//! A template's text becomes tokens.

/// Words that begin an action which is no pipeline.
pub(super) const KEYWORDS: [&str; 11] =
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue", "nil"];

/// A token with its line, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub line: usize,
    /// Whether white space stands before it.
    pub is_apart: bool,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside actions.
    Text(String),
    /// `{{`.
    Open,
    /// `}}`.
    Close,
    /// A keyword, a function or a constant.
    Word(String),
    /// `.name`.
    Field(String),
    /// `.` alone.
    Dot,
    /// `$name`.
    Variable(String),
    /// A string.
    Quoted(String),
    Int(i64),
    Float(f64),
    /// One of `( ) | , = :=`.
    Sign(&'static str),
}

/// Cuts a template into tokens.
pub(super) fn lex(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let (mut rest, mut line, mut trims) = (source, 1, false);
    loop {
        let open = rest.find("{{");
        let mut text = &rest[..open.unwrap_or(rest.len())];
        let (text_line, text_lines) = (line, lines(text));
        if std::mem::take(&mut trims) {
            text = text.trim_start();
        }
        let Some(open) = open else {
            push_text(&mut tokens, text, text_line);
            return Ok(tokens);
        };
        line += text_lines;
        rest = &rest[open + 2..];
        // A dash trims if white space follows: `{{-3}}` is a number.
        if rest.starts_with('-') && rest[1..].starts_with(char::is_whitespace) {
            text = text.trim_end();
            rest = &rest[1..];
        }
        push_text(&mut tokens, text, text_line);
        let inner = rest.trim_start();
        if let Some(comment) = inner.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| at(line, "the comment is not closed"))?;
            let after = comment[end + 2..].trim_start();
            let (after, is_trim) = match after.strip_prefix('-') {
                Some(after) => (after, true),
                None => (after, false),
            };
            let after =
                after.strip_prefix("}}").ok_or_else(|| at(line, "a comment stands alone in its action"))?;
            line += lines(&rest[..rest.len() - after.len()]);
            (rest, trims) = (after, is_trim);
            continue;
        }
        tokens.push(Token { kind: Kind::Open, line, is_apart: true });
        (rest, trims) = action(rest, &mut line, &mut tokens)?;
    }
}

/// Cuts one action into tokens; returns what follows it, and whether white space is trimmed there.
fn action<'a>(
    mut rest: &'a str,
    line: &mut usize,
    tokens: &mut Vec<Token>,
) -> Result<(&'a str, bool), String> {
    loop {
        let trimmed = rest.trim_start();
        let is_apart = trimmed.len() < rest.len();
        *line += lines(&rest[..rest.len() - trimmed.len()]);
        rest = trimmed;
        let mut push = |kind, line| tokens.push(Token { kind, line, is_apart });
        if let Some(after) = rest.strip_prefix("}}") {
            push(Kind::Close, *line);
            return Ok((after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}").filter(|_| is_apart) {
            push(Kind::Close, *line);
            return Ok((after, true));
        }
        let Some(c) = rest.chars().next() else { return Err(at(*line, "the action is not closed")) };
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word_len = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (kind, len) = match c {
            '"' | '\'' => quoted(rest, c).ok_or_else(|| at(*line, "a string is not closed"))?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| at(*line, "a string is not closed"))?;
                (Kind::Quoted(rest[1..=end].to_string()), end + 2)
            }
            '$' => {
                let len = word_len(&rest[1..]);
                (Kind::Variable(rest[1..=len].to_string()), len + 1)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => match word_len(&rest[1..]) {
                0 => (Kind::Dot, 1),
                len => (Kind::Field(rest[1..=len].to_string()), len + 1),
            },
            '(' => (Kind::Sign("("), 1),
            ')' => (Kind::Sign(")"), 1),
            '|' => (Kind::Sign("|"), 1),
            ',' => (Kind::Sign(","), 1),
            '=' => (Kind::Sign("="), 1),
            ':' if rest.starts_with(":=") => (Kind::Sign(":="), 2),
            c if c.is_ascii_digit() || "+-.".contains(c) => {
                let is_number = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
                let len = 1 + rest[1..].find(|c| !is_number(c)).unwrap_or(rest.len() - 1);
                let digits = rest[..len].replace('_', "");
                let kind = match digits.parse::<i64>() {
                    Ok(int) => Kind::Int(int),
                    Err(_) => match digits.parse::<f64>() {
                        Ok(float) if float.is_finite() => Kind::Float(float),
                        _ => return Err(at(*line, &format!("{:?} is no number", &rest[..len]))),
                    },
                };
                (kind, len)
            }
            c if is_word(c) => {
                let len = word_len(rest);
                (Kind::Word(rest[..len].to_string()), len)
            }
            c => return Err(at(*line, &format!("unexpected {:?}", c.to_string()))),
        };
        push(kind, *line);
        *line += lines(&rest[..len]);
        rest = &rest[len..];
    }
}

/// A string in double quotes, or a character in single ones, which is its number.
fn quoted(text: &str, quote: char) -> Option<(Kind, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '\n' => return None,
            c if c == quote => {
                let kind = match quote {
                    '"' => Kind::Quoted(out),
                    _ => Kind::Int(i64::from(u32::from(out.chars().next()?))),
                };
                return Some((kind, i + 1));
            }
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                digits @ ('x' | 'u' | 'U') => {
                    let n = match digits {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let hex: String = chars.by_ref().take(n).map(|(_, c)| c).collect();
                    out.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

fn push_text(tokens: &mut Vec<Token>, text: &str, line: usize) {
    if !text.is_empty() {
        tokens.push(Token { kind: Kind::Text(text.to_string()), line, is_apart: true });
    }
}

fn lines(text: &str) -> usize {
    text.matches('\n').count()
}

/// An error with its line.
pub(super) fn at(line: usize, what: &str) -> String {
    format!("line {line}: {what}")
}

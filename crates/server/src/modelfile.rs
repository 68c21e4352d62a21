//! Modelfiles: how Ollama's users write down what a model is made of.
//!
//! ```text
//! FROM ./model.gguf
//! PARAMETER temperature 0.2
//! SYSTEM """You are brief,
//! and kind."""
//! ```
//!
//! A value ends with its line, or, if it begins with `"` or `"""`, at the end of the first line that ends with the same.
//! There are no escapes. Source: Ollama, parser/parser.go and docs/modelfile.md. Where it differs: characters that do not
//! print stay where they are.

use std::fmt;

/// The commands there are.
pub const COMMANDS: [&str; 11] = [
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "parameter",
    "message",
    "requires",
    "draft",
    "renderer",
    "parser",
];

/// A Modelfile that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modelfile {
    /// Its commands, in order.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// One of [`COMMANDS`].
    pub name: &'static str,
    /// The parameter's name, or the message's role; empty for other commands.
    pub key: String,
    /// What follows.
    pub value: String,
    /// The line that it begins in, counted from 1.
    pub line: usize,
}

/// Why a text is no Modelfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("(line {line}): {reason}")]
pub struct ModelfileError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Modelfile {
    /// Reads a Modelfile from its bytes: UTF-8, or UTF-16 with a byte order mark.
    pub fn read(bytes: &[u8]) -> Result<Modelfile, ModelfileError> {
        let wrong = |reason: &str| ModelfileError { line: 1, reason: reason.to_string() };
        let units = |bytes: &[u8], read: fn([u8; 2]) -> u16| -> Result<String, ModelfileError> {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| read([pair[0], pair[1]])).collect();
            String::from_utf16(&units).map_err(|_| wrong("the text is not UTF-16"))
        };
        let text = match bytes {
            [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes)?,
            [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes)?,
            [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
                String::from_utf8(rest.to_vec()).map_err(|_| wrong("the text is not UTF-8"))?
            }
        };
        Modelfile::parse(&text)
    }

    /// Reads a Modelfile.
    pub fn parse(text: &str) -> Result<Modelfile, ModelfileError> {
        let mut commands = Vec::new();
        let mut reader = Reader { text, at: 0 };
        while let Some(command) = reader.command()? {
            commands.push(command);
        }
        if !commands.iter().any(|command: &Command| command.name == "from") {
            return Err(ModelfileError { line: reader.line(), reason: "no FROM line".to_string() });
        }
        Ok(Modelfile { commands })
    }

    /// The values of the commands of this name, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.name == name)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn command(&mut self) -> Result<Option<Command>, ModelfileError> {
        loop {
            self.skip(char::is_whitespace);
            if !self.rest().starts_with('#') {
                break;
            }
            self.skip(|c| !is_end(c));
        }
        if self.rest().is_empty() {
            return Ok(None);
        }
        let line = self.line();
        let word = self.skip(|c| !c.is_whitespace()).to_lowercase();
        let Some(name) = COMMANDS.into_iter().find(|name| *name == word) else {
            let known = COMMANDS.map(|name| format!("{name:?}")).join(", ");
            return Err(self.wrong(line, format!("command must be one of {known}; got {word:?}")));
        };
        let mut key = "";
        if matches!(name, "parameter" | "message") {
            self.skip(is_blank);
            key = self.skip(|c| !c.is_whitespace());
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name == "parameter" && (key.is_empty() || !key.chars().all(is_name)) {
            return Err(self.wrong(line, format!("{key:?} is no name of a parameter")));
        }
        if name == "message" && !["system", "user", "assistant"].contains(&key) {
            let reason = r#"message role must be one of "system", "user", or "assistant""#;
            return Err(self.wrong(line, reason.to_string()));
        }
        self.skip(is_blank);
        let value = self.value(line)?;
        if value.is_empty() && !self.text[..self.at].ends_with('"') {
            return Err(self.wrong(line, format!("{} has no value", name.to_uppercase())));
        }
        Ok(Some(Command { name, key: key.to_string(), value, line }))
    }

    fn value(&mut self, line: usize) -> Result<String, ModelfileError> {
        let rest = self.rest();
        let quote = ["\"\"\"", "\""].into_iter().find(|quote| rest.starts_with(quote));
        let Some(quote) = quote else {
            return Ok(self.skip(|c| !is_end(c)).trim_end().to_string());
        };
        // Every end of a line may be the end of the value.
        let ends = rest.char_indices().filter(|(_, c)| is_end(*c)).map(|(i, _)| i).chain([rest.len()]);
        for end in ends {
            let read = rest[..end].trim_end();
            if read.len() >= 2 * quote.len() && read.ends_with(quote) {
                self.at += read.len();
                return Ok(read[quote.len()..read.len() - quote.len()].to_string());
            }
        }
        Err(self.wrong(line, format!("unexpected EOF: a value that begins with {quote} never ends")))
    }

    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !is_skipped(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn wrong(&self, line: usize, reason: String) -> ModelfileError {
        ModelfileError { line, reason }
    }
}

fn is_end(c: char) -> bool {
    c == '\n' || c == '\r'
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// A command as a line of a Modelfile; one whose value no Modelfile can hold, as a comment that says so.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_uppercase();
        let key = if self.key.is_empty() { String::new() } else { format!("{} ", self.key) };
        match quoted(&self.value) {
            Some(value) => write!(f, "{name} {key}{value}"),
            None => write!(f, "# {name} {key}has a value that cannot be written here"),
        }
    }
}

impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
    }
}

/// `value` in as few quotes as it needs; none if it has a line that would end it too early.
fn quoted(value: &str) -> Option<String> {
    let is_plain =
        !value.is_empty() && value.trim() == value && !value.contains(is_end) && !value.starts_with('"');
    if is_plain {
        return Some(value.to_string());
    }
    if !value.contains('"') {
        return Some(format!("\"{value}\""));
    }
    let quote = "\"\"\"";
    let mut lines: Vec<&str> = value.split(is_end).collect();
    lines.pop();
    if lines.iter().any(|line| line.trim_end().ends_with(quote)) {
        return None;
    }
    Some(format!("{quote}{value}{quote}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match Modelfile::parse(text) {
            Ok(file) => {
                let show = |c: &Command| {
                    format!(
                        "{} {}{:?}",
                        c.name,
                        if c.key.is_empty() { String::new() } else { format!("{} ", c.key) },
                        c.value
                    )
                };
                file.commands.iter().map(show).collect::<Vec<_>>().join(" | ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn commands_are_read_in_any_case_and_values_as_they_stand() {
        check("FROM m\n# x\n\nfrom n # y", r##"from "m" | from "n # y""##);
        check("FROM m\r\nSYSTEM  two words \t\r\n", r#"from "m" | system "two words""#);
        check(
            "FROM m\nparameter stop \"<|a|>\"\nPARAMETER num_ctx 10",
            r#"from "m" | parameter stop "<|a|>" | parameter num_ctx "10""#,
        );
        check("FROM m\nMESSAGE user Hi there", r#"from "m" | message user "Hi there""#);
        check(
            "FROM m\nSYSTEM \"\"\"a\n\"b\" \"\"\" c\nd\"\"\"\nREQUIRES 1.2.3",
            r#"from "m" | system "a\n\"b\" \"\"\" c\nd" | requires "1.2.3""#,
        );
        check("FROM m\nSYSTEM \" a\nb \"", r#"from "m" | system " a\nb ""#);
        check("FROM m\nSYSTEM \"\"", r#"from "m" | system """#);
        check("FROM m\nSYSTEM say \"hi\"", r#"from "m" | system "say \"hi\"""#);
    }

    #[test]
    fn errors_name_their_line() {
        check("", "(line 1): no FROM line");
        check("# only\nSYSTEM x\n", "(line 3): no FROM line");
        check(
            "FROM m\nSYSTEM \"\"\"a\nb",
            "(line 2): unexpected EOF: a value that begins with \"\"\" never ends",
        );
        check(
            "FROM m\n\nMESSAGE tool x",
            r#"(line 3): message role must be one of "system", "user", or "assistant""#,
        );
        check("FROM m\nPARAMETER a-b 1", r#"(line 2): "a-b" is no name of a parameter"#);
        check("FROM\n", "(line 1): FROM has no value");
        assert!(
            Modelfile::parse("FROM m\nFRUM x")
                .unwrap_err()
                .to_string()
                .starts_with("(line 2): command must be one of \"from\"")
        );
    }

    #[test]
    fn utf_16_is_read_by_its_byte_order_mark() {
        let text = "FROM m\nSYSTEM é";
        let le: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let be: Vec<u8> =
            [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(Modelfile::read(&le), Modelfile::read(text.as_bytes()));
        assert_eq!(Modelfile::read(&be), Modelfile::read(text.as_bytes()));
        assert!(Modelfile::read(b"FROM \xff").is_err());
    }

    /// Values of every length up to five out of what quotes and lines are made of.
    #[test]
    fn what_is_written_is_read_again() {
        let letters = ["a", "\"", "\"\"\"", "\n", " ", "\r", "#", "é"];
        let mut values = vec![String::new()];
        let (mut n_written, mut begin) = (0, 0);
        for _ in 0..5 {
            let end = values.len();
            for i in begin..end {
                values.extend(letters.map(|letter| values[i].clone() + letter));
            }
            begin = end;
        }
        for value in &values {
            let command = |value: &str| Command {
                name: "system",
                key: String::new(),
                value: value.to_string(),
                line: 2,
            };
            let from = Command { name: "from", value: "m".to_string(), line: 1, ..command("") };
            let after = Command { name: "message", key: "user".to_string(), ..command("end") };
            let file = Modelfile { commands: vec![from, command(value), after] };
            let text = file.to_string();
            if text.contains("cannot be written") {
                continue;
            }
            n_written += 1;
            let read = Modelfile::parse(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let plain = |file: &Modelfile| -> Vec<_> {
                file.commands.iter().map(|c| (c.name, c.key.clone(), c.value.clone())).collect()
            };
            assert_eq!(plain(&read), plain(&file), "{text:?}");
        }
        assert!(n_written * 5 > values.len() * 4, "{n_written} of {}", values.len());
    }
}

//! How files are read: what is refused, what is counted, what bytes and instructions become.

use super::row::Row;
use rhetor_lm::Message;

/// What happens to a row that is not what its format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WrongRows {
    /// It ends the reading.
    #[default]
    Refuse,
    /// It is left out and counted.
    Drop,
}

/// What a line of bytes is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8; other bytes end the reading.
    #[default]
    Utf8,
    /// UTF-8, or ISO 8859-1 where a line is no UTF-8; the report counts such lines.
    Utf8OrLatin1,
}

/// What becomes of `\r\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnds {
    /// It becomes `\n`, and the report counts it.
    #[default]
    Unix,
    /// It stays.
    Keep,
}

/// What an instruction with its output becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// A conversation: the instruction (a blank line, the input) and the output.
    #[default]
    Chat,
    /// A completion of Alpaca's prompt, for models without a chat template.
    AlpacaPrompt,
}

impl Instructions {
    pub(crate) fn row(self, instruction: &str, input: Option<&str>, output: String) -> Row {
        let (task, has_input) = match input {
            Some(_) => (", paired with an input that provides further context", true),
            None => ("", false),
        };
        match self {
            Instructions::Chat => {
                let user = match input {
                    Some(input) => format!("{instruction}\n\n{input}"),
                    None => instruction.to_string(),
                };
                Row::Chat(vec![Message::user(user), Message::assistant(output)])
            }
            // The wording of tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT.
            Instructions::AlpacaPrompt => {
                let given = if has_input {
                    format!("### Input:\n{}\n\n", input.unwrap_or_default())
                } else {
                    String::new()
                };
                let prompt = format!(
                    "Below is an instruction that describes a task{task}. Write a response that appropriately \
                     completes the request.\n\n### Instruction:\n{instruction}\n\n{given}### Response:"
                );
                Row::Completion { prompt, completion: output }
            }
        }
    }
}

/// How files are read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The name of a format; none = by the ending of each file's name.
    pub format: Option<String>,
    /// What happens to wrong rows.
    pub wrong_rows: WrongRows,
    /// What bytes are taken for, in all formats that are read line by line. Files named `*.latin1.*` are ISO
    /// 8859-1.
    pub encoding: Encoding,
    /// What becomes of `\r\n` in plain text.
    pub line_ends: LineEnds,
    /// What an instruction becomes.
    pub instructions: Instructions,
    /// Fields to be renamed: (name in the file, name in [`super::SHAPES`]).
    pub fields: Vec<(String, String)>,
    /// The most bytes of a document that are held at once; a longer one comes in pieces, cut at the ends of
    /// lines.
    pub piece_bytes_max: usize,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            format: None,
            wrong_rows: WrongRows::default(),
            encoding: Encoding::default(),
            line_ends: LineEnds::default(),
            instructions: Instructions::default(),
            fields: Vec::new(),
            piece_bytes_max: 16 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpaca_prompts_are_those_of_its_training() {
        let row = Instructions::AlpacaPrompt.row("Add.", Some("1 2"), "3".into());
        let Row::Completion { prompt, completion } = row else { panic!("{row:?}") };
        assert!(
            prompt.starts_with("Below is an instruction that describes a task, paired with an input that")
        );
        assert!(prompt.ends_with("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"), "{prompt}");
        assert_eq!(completion, "3");
    }
}

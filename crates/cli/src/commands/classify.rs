//! `rhetor classify`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::reading::{self, ReaderArgs, TextArgs};
use crate::session::Session;
use rhetor_encode::{Class, Reader, Text};
use rhetor_models::Task;
use rhetor_tokenizer::Special;
use serde_json::{Value, json};

/// Tell the class of texts, with probabilities
///
/// What a single number means is the model's affair: without `problem_type` in its config.json it goes through a sigmoid, as
/// transformers has it. A model for choices takes a text and, after it, what there is to choose from.
#[derive(Debug, clap::Args)]
pub struct Classify {
    /// Name, reference or path of a model with a head for sequences, for the next sentence, or for choices
    model: String,

    #[command(flatten)]
    texts: TextArgs,

    /// Texts are pairs: the first with the second, the third with the fourth
    #[arg(long)]
    pair: bool,

    #[command(flatten)]
    reader: ReaderArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run for Classify {
    const NAME: &str = "classify";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let reader = reading::reader(session, &self.model, self.reader)?;
        let texts = self.texts.read()?;
        if reader.model().config().head.task == Task::Choice {
            return choose(&reader, &texts, self.json);
        }
        let encoded: Vec<Text> = match self.pair {
            true if texts.len() % 2 == 1 => {
                return Err(Failure::input(format!("{} texts are no pairs", texts.len())));
            }
            true => texts.chunks(2).map(|pair| reader.pair(&pair[0], &pair[1])).collect::<Result<_, _>>()?,
            false => texts.iter().map(|text| reader.text(text, Special::Literal)).collect(),
        };
        reading::warn_of_cuts(reading::cuts(&encoded), reader.max_len());
        let found = reader.classify(&encoded, reader.normalization())?;
        if self.json {
            let class = |class: &Class| json!({ "label": class.label, "score": class.score });
            let list = found.iter().zip(&encoded).enumerate().map(|(i, (classes, encoded))| {
                let text: Value = if self.pair { json!(texts[2 * i..2 * i + 2]) } else { json!(texts[i]) };
                let classes: Vec<Value> = classes.iter().map(class).collect();
                json!({ "text": text, "classes": classes, "tokens_left_out": encoded.n_cut })
            });
            output::json(&list.collect())?;
            return Ok(Exit::Done);
        }
        for classes in found {
            let shown: Vec<String> =
                classes.iter().map(|class| format!("{} {:.4}", class.label, class.score)).collect();
            output::line(&shown.join("  "))?;
        }
        Ok(Exit::Done)
    }
}

fn choose(reader: &Reader, texts: &[String], as_json: bool) -> Result<Exit, Failure> {
    let [text, choices @ ..] = texts else { return Err(Failure::input("there is no text")) };
    if choices.is_empty() {
        return Err(Failure::input("a model for choices takes a text and at least one choice after it"));
    }
    let scores = reader.choose(text, choices)?;
    let mut found = choices.iter().zip(scores);
    if as_json {
        let list: Vec<Value> =
            found.map(|(choice, score)| json!({ "choice": choice, "score": score })).collect();
        output::json(&json!({ "text": text, "choices": list }))?;
    } else {
        found.try_for_each(|(choice, score)| output::line(&format!("{score:.4}  {choice}")))?;
    }
    Ok(Exit::Done)
}

//! What an engine can be asked, and what a request becomes before it is encoded.

use crate::answer::Form;
use crate::engine::Engine;
use crate::infill::InfillTemplate;
use rhetor_lm::{Error, Prompt, Request, ToolChoice};

/// How well a model knows tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolSupport {
    /// Its chat template shows tools, calls and results.
    Native,
    /// Tools are described to it in words.
    Generic,
    /// It holds no conversations.
    No,
}

/// What a model can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Conversations: it has a chat template.
    pub chat: bool,
    /// Calls of tools.
    pub tools: ToolSupport,
    /// Thoughts before the answer.
    pub thinking: bool,
    /// Texts with a hole.
    pub infill: bool,
    /// Pictures.
    pub vision: bool,
}

impl Engine {
    /// What it can be asked.
    pub fn capabilities(&self) -> Capabilities {
        let manner = self.template.as_ref().ok().map(|(_, manner)| manner);
        Capabilities {
            chat: manner.is_some(),
            tools: match manner {
                Some(manner) if manner.is_native => ToolSupport::Native,
                Some(_) => ToolSupport::Generic,
                None => ToolSupport::No,
            },
            thinking: manner.is_some_and(|manner| manner.thinking.is_some()),
            infill: InfillTemplate::of(self.tokenizer()).is_some(),
            vision: self.has_eyes(),
        }
    }

    /// The text that a request's prompt becomes, up to where the answer begins, with nothing dropped; what a message
    /// spells of control tokens stands there as it was written.
    pub fn render(&self, request: &Request) -> Result<String, Error> {
        match (&request.prompt, self.form(request)?) {
            (Prompt::Chat(messages), Some(form)) => Ok(form.render(messages, &form.tools)?.text),
            (Prompt::Chat(messages), None) => Ok(messages[0].content.clone()),
            (Prompt::Text { text, .. }, _) => Ok(text.clone()),
            (Prompt::Infill { .. } | Prompt::Ids(_), _) => {
                let ids = self.encode(&request.prompt)?;
                Ok(self.tokenizer().decode(&ids, rhetor_tokenizer::ControlTokens::Show))
            }
        }
    }

    /// How the request's conversation is put; `None` for prompts of other kinds, and for the one message that a
    /// text-to-text model reads as it is.
    pub(crate) fn form(&self, request: &Request) -> Result<Option<Form<'_>>, Error> {
        let Prompt::Chat(messages) = &request.prompt else {
            let has_tools = !request.tools.offered.is_empty() || request.tools.choice != ToolChoice::Auto;
            let asks = [(has_tools, "tools"), (request.think == Some(true), "think")];
            return match asks.into_iter().find(|(is_set, _)| *is_set) {
                Some((_, option)) => {
                    Err(Error::InvalidOption { option, reason: "it needs a conversation".to_string() })
                }
                None => Ok(None),
            };
        };
        match &self.template {
            Ok((template, manner)) => Form::of(template, *manner, request, self.now()).map(Some),
            Err(_) if self.decoder_start().is_some() && messages.len() == 1 => {
                match request.tools.offered.is_empty() && request.think != Some(true) {
                    true => Ok(None),
                    false => {
                        Err(self.unsupported("call tools or think: it has no chat template".to_string()))
                    }
                }
            }
            Err(reason) => Err(Error::Template { reason: reason.clone() }),
        }
    }

    /// Control tokens that are heard in an answer: those that mark calls and thoughts, with their spellings.
    pub(crate) fn marks(&self, form: &Form<'_>) -> Vec<(u32, String)> {
        let mut marks = Vec::new();
        for text in form.spellings() {
            for range in self.controls().find(text) {
                let spelling = &text[range];
                if let Some(id) = self.tokenizer().id(spelling) {
                    marks.push((id, spelling.to_string()));
                }
            }
        }
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

//! How models mark what they think before they speak.

/// The tags around a thought.
#[derive(Debug, PartialEq, Eq)]
pub struct Thinking {
    /// Before it.
    pub open: &'static str,
    /// After it.
    pub close: &'static str,
}

/// Every pair of tags; a template that has both makes its model one that thinks.
pub const THINKING: &[Thinking] = &[
    // DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM-4.5, Nemotron, Granite 3.3.
    Thinking { open: "<think>", close: "</think>" },
    // Magistral, Ministral 3.
    Thinking { open: "[THINK]", close: "[/THINK]" },
    // Seed-OSS.
    Thinking { open: "<seed:think>", close: "</seed:think>" },
    // Command A and R7B.
    Thinking { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
    // Gemma 4.
    Thinking { open: "<|channel>thought", close: "<channel|>" },
    // Kimi-VL.
    Thinking { open: "◁think▷", close: "◁/think▷" },
];

impl Thinking {
    /// The tags that a template's source has.
    pub(crate) fn of(source: &str) -> Option<&'static Thinking> {
        THINKING.iter().find(|tags| source.contains(tags.open) && source.contains(tags.close))
    }

    /// Whether a text that was begun ends inside a thought; `None` if it has neither tag.
    pub(crate) fn open_in(&self, text: &str) -> Option<bool> {
        match (text.rfind(self.open), text.rfind(self.close)) {
            (None, None) => None,
            (open, close) => Some(open > close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thought_is_open_until_it_is_closed() {
        let tags = &THINKING[0];
        let found = ["a", "<think>a", "<think>a</think>b", "</think>"].map(|text| tags.open_in(text));
        assert_eq!(found, [None, Some(true), Some(false), Some(false)]);
        assert_eq!(Thinking::of("x <think> y"), None);
    }
}

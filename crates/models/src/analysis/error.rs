//! What can be wrong with a question about a model.

/// Why a model cannot be looked into in this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// There is no causal attention, or it reads an encoder's source.
    #[error("{family} is no decoder with attention heads of its own")]
    NotADecoder {
        /// The model's family.
        family: &'static str,
    },
    /// Random sequences need tokens to choose from.
    #[error("{got} different tokens to choose from; a random segment of {expected} needs as many")]
    VocabularyTooSmall {
        /// Tokens of a segment.
        expected: usize,
        /// Tokens there are.
        got: usize,
    },
    /// A sequence does not fit.
    #[error("{got} tokens in a context of {context}")]
    ContextTooShort {
        /// Tokens of the sequence.
        got: usize,
        /// Positions of the model.
        context: usize,
    },
    /// A text without tokens.
    #[error("the text has no tokens")]
    NoTokens,
    /// Patching puts position upon position.
    #[error("the clean prompt has {clean} tokens and the corrupted one {corrupt}; they must have as many")]
    Lengths {
        /// Tokens of the clean prompt.
        clean: usize,
        /// Tokens of the corrupted prompt.
        corrupt: usize,
    },
    /// There is nothing to recover.
    #[error("both prompts have the same logit difference {difference}: there is nothing to recover")]
    NoDifference {
        /// What both have.
        difference: String,
    },
}

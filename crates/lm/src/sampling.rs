//! How the next token is chosen: plain values; the methods themselves are the table `SAMPLING` in `generate`.

/// How the next token is chosen. The default is greedy.
///
/// Each field that is at its neutral value (named in its comment) switches its method off.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 = greedy: the most likely token, ties to the lowest id.
    pub temperature: f32,
    /// Keeps the `top_k` most likely tokens; 0 = all.
    pub top_k: usize,
    /// Keeps the smallest set of tokens whose probability reaches `top_p`; 1 = all.
    pub top_p: f32,
    /// Drops tokens less likely than `min_p` times the most likely; 0 = none.
    pub min_p: f32,
    /// Locally typical sampling: the mass kept; 1 = all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen (prompt included); 1 = off.
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence among generated tokens; 0 = off.
    pub frequency_penalty: f32,
    /// Subtracted once if a token was generated at all; 0 = off.
    pub presence_penalty: f32,
    /// How many of the last tokens `repetition_penalty` looks at; 0 = all.
    pub penalty_last_n: usize,
    /// DRY: strength of the penalty on continuing a repeated sequence; 0 = off.
    pub dry_multiplier: f32,
    /// DRY: base of the exponential growth with the length of the repeat.
    pub dry_base: f32,
    /// DRY: repeats up to this many tokens are free.
    pub dry_allowed_length: usize,
    /// XTC: chance that the top choices are excluded at a step; 0 = off.
    pub xtc_probability: f32,
    /// XTC: tokens at least this likely count as top choices.
    pub xtc_threshold: f32,
    /// Mirostat 2: target surprise in bits; 0 = off (replaces the truncating methods when on).
    pub mirostat_tau: f32,
    /// Mirostat 2: learning rate.
    pub mirostat_eta: f32,
    /// Added to the logit of a token, by token id as text callers learnt from `tokenize`; −∞ forbids.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: 0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat_tau: 0.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
        }
    }
}

//! Which type each tensor of a model gets in a mix such as `q4_k_m`.
//!
//! A mix stores most weights in one type and spends more bits where errors hurt most: the output matrix, the values of
//! attention, the second matrix of the feed-forward network in the outer layers. The decisions are those of
//! `llama-quantize`, so that a file made here has the size and the quality that its name promises elsewhere.
//! The types that are not read here (IQ1 to IQ3, ternary, MXFP4) have no mix. Nothing is quantised in this file.
//!
//! Source: llama.cpp (MIT), `src/llama-quant.cpp`, `llama_tensor_get_type`; names of tensors as in GGUF files.

use rhetor_kernels::DType;

/// A way to spread types over the tensors of a model, by the name that users give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Mix {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Iq4Nl,
    Q2K,
    Q3KS,
    Q3KM,
    Q3KL,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
}

/// One row of the table: mix, name, the type of most tensors, `general.file_type` in GGUF files.
type Row = (Mix, &'static str, DType, u32);

const TABLE: &[Row] = &[
    (Mix::F32, "f32", DType::F32, 0),
    (Mix::F16, "f16", DType::F16, 1),
    (Mix::BF16, "bf16", DType::BF16, 32),
    (Mix::Q8_0, "q8_0", DType::Q8_0, 7),
    (Mix::Q4_0, "q4_0", DType::Q4_0, 2),
    (Mix::Q4_1, "q4_1", DType::Q4_1, 3),
    (Mix::Q5_0, "q5_0", DType::Q5_0, 8),
    (Mix::Q5_1, "q5_1", DType::Q5_1, 9),
    (Mix::Iq4Nl, "iq4_nl", DType::Iq4Nl, 25),
    (Mix::Q2K, "q2_k", DType::Q2K, 10),
    (Mix::Q3KS, "q3_k_s", DType::Q3K, 11),
    (Mix::Q3KM, "q3_k_m", DType::Q3K, 12),
    (Mix::Q3KL, "q3_k_l", DType::Q3K, 13),
    (Mix::Q4KS, "q4_k_s", DType::Q4K, 14),
    (Mix::Q4KM, "q4_k_m", DType::Q4K, 15),
    (Mix::Q5KS, "q5_k_s", DType::Q5K, 16),
    (Mix::Q5KM, "q5_k_m", DType::Q5K, 17),
    (Mix::Q6K, "q6_k", DType::Q6K, 18),
];

/// What the decisions need to know of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelFacts<'a> {
    /// `general.architecture`, such as `llama`.
    pub architecture: &'a str,
    /// Transformer layers.
    pub n_layers: usize,
    /// Query heads of a layer.
    pub n_heads: usize,
    /// Key-value heads of a layer.
    pub n_kv_heads: usize,
    /// Experts of a layer; 0 for a dense model.
    pub n_experts: usize,
    /// Whether the file has its own `output.weight`; otherwise the embeddings are the output matrix too.
    pub has_output: bool,
    /// Whether the importance of columns is known.
    pub has_importance: bool,
}

impl Mix {
    /// Every mix, in the order of the table.
    pub fn all() -> impl Iterator<Item = Mix> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Lower-case name, as in `q4_k_m`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The mix called `name`, in any case; `q3_k`, `q4_k` and `q5_k` mean their `_m`.
    pub fn from_name(name: &str) -> Option<Mix> {
        let is = |row: &&Row| {
            row.1.eq_ignore_ascii_case(name)
                || row.1.strip_suffix("_m").is_some_and(|short| short.eq_ignore_ascii_case(name))
        };
        TABLE.iter().find(is).map(|row| row.0)
    }

    /// The type of most tensors.
    pub fn base(self) -> DType {
        self.row().2
    }

    /// The number of the mix in GGUF files, `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.row().3
    }

    /// The type for the tensor called `name` (as in GGUF files) of `shape`, outermost first.
    ///
    /// Vectors, norms, routers and whatever else is small and fragile stay F32. A row that is no whole number of
    /// blocks falls back to a type of shorter blocks.
    pub fn dtype_for(self, name: &str, shape: &[usize], facts: &ModelFacts) -> DType {
        if !may_be_narrowed(name, shape) {
            return DType::F32;
        }
        let row_len = shape.last().copied().unwrap_or(0);
        match self.base() {
            base @ (DType::F32 | DType::F16 | DType::BF16) => base,
            _ => fitting(row_len, self.wanted(name, row_len, facts)),
        }
    }

    /// The type that the place in the model deserves, whether or not its blocks fit.
    fn wanted(self, name: &str, row_len: usize, facts: &ModelFacts) -> DType {
        let place = Place::of(name);
        let layer = layer_of(name).unwrap_or(0);
        match place {
            Place::Output => self.output(row_len, facts),
            Place::Embedding if !facts.has_output => self.output(row_len, facts),
            Place::AttentionValue => self.attention_value(layer, facts),
            Place::AttentionKey if facts.n_experts == 8 => DType::Q8_0,
            Place::FfnDown if facts.architecture == "falcon" => self.ffn_down_falcon(layer, facts),
            Place::FfnDown => self.ffn_down(layer, facts),
            Place::AttentionOutput => self.attention_output(facts),
            Place::Embedding | Place::AttentionKey | Place::Other => self.base(),
        }
    }

    fn output(self, row_len: usize, facts: &ModelFacts) -> DType {
        let base = self.base();
        if base == DType::Q8_0 || facts.architecture == "falcon" || !row_len.is_multiple_of(base.block_len())
        {
            DType::Q8_0
        } else {
            DType::Q6K
        }
    }

    fn attention_value(self, layer: usize, facts: &ModelFacts) -> DType {
        if facts.n_experts == 8 {
            return DType::Q8_0;
        }
        // Few heads share these weights among many queries: they are small, and their errors spread.
        let is_shared_widely = facts.n_heads.checked_div(facts.n_kv_heads).unwrap_or(0) >= 4;
        let dtype = match self {
            Mix::Q2K if is_shared_widely => DType::Q4K,
            Mix::Q2K => DType::Q3K,
            Mix::Q3KM if layer < 2 => DType::Q5K,
            Mix::Q3KM => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            Mix::Iq4Nl if is_shared_widely => DType::Q5K,
            Mix::Q4KM | Mix::Q5KM if deserves_more_bits(layer, facts.n_layers) => DType::Q6K,
            Mix::Q4KS if layer < 4 => DType::Q5K,
            _ => self.base(),
        };
        match dtype {
            DType::Q3K | DType::Q4K if is_70b(facts) => DType::Q5K,
            dtype => dtype,
        }
    }

    fn ffn_down(self, layer: usize, facts: &ModelFacts) -> DType {
        let is_early = layer < facts.n_layers / 8;
        match self {
            Mix::Q2K => DType::Q3K,
            Mix::Q3KM if layer < facts.n_layers / 16 => DType::Q5K,
            Mix::Q3KM => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            Mix::Q4KM | Mix::Q5KM if deserves_more_bits(layer, facts.n_layers) => DType::Q6K,
            Mix::Q4KS if is_early => DType::Q5K,
            Mix::Iq4Nl if is_early && !facts.has_importance => DType::Q5K,
            // Importance makes a search for scales out of Q4_0's plain rule, which can fail badly in the first layers.
            Mix::Q4_0 if is_early && facts.has_importance => DType::Q4_1,
            Mix::Q5_0 if is_early && facts.has_importance => DType::Q5_1,
            _ => self.base(),
        }
    }

    fn ffn_down_falcon(self, layer: usize, facts: &ModelFacts) -> DType {
        let more_bits = deserves_more_bits(layer, facts.n_layers);
        match self {
            Mix::Q3KM if layer < facts.n_layers / 16 => DType::Q5K,
            Mix::Q3KM if more_bits => DType::Q4K,
            Mix::Q3KM => DType::Q3K,
            Mix::Q3KL => DType::Q4K,
            Mix::Q4KM if layer < facts.n_layers / 16 => DType::Q6K,
            Mix::Q4KM if more_bits => DType::Q5K,
            Mix::Q4KM | Mix::Q4KS => DType::Q4K,
            _ => self.ffn_down(layer, facts),
        }
    }

    fn attention_output(self, facts: &ModelFacts) -> DType {
        match self {
            Mix::Q3KL if facts.architecture == "falcon" => DType::Q4K,
            _ if facts.architecture == "falcon" => self.base(),
            Mix::Q2K | Mix::Q3KS | Mix::Q3KM | Mix::Iq4Nl | Mix::Q4KS | Mix::Q4KM if facts.n_experts == 8 => {
                DType::Q5K
            }
            _ if facts.n_experts == 8 => self.base(),
            Mix::Q2K => DType::Q3K,
            Mix::Q3KM => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            _ => self.base(),
        }
    }
}

/// The places in a model that mixes treat differently.
enum Place {
    Output,
    Embedding,
    /// Also the joint matrix of queries, keys and values.
    AttentionValue,
    AttentionKey,
    AttentionOutput,
    FfnDown,
    Other,
}

impl Place {
    fn of(name: &str) -> Place {
        match name {
            "output.weight" => Place::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Place::Embedding,
            _ if ["attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"]
                .iter()
                .any(|part| name.contains(part)) =>
            {
                Place::AttentionValue
            }
            _ if name.contains("attn_k.weight") => Place::AttentionKey,
            _ if name.contains("attn_output.weight") => Place::AttentionOutput,
            _ if name.contains("ffn_down") => Place::FfnDown,
            _ => Place::Other,
        }
    }
}

/// Parts of names whose matrices are small or fragile, and stay F32.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd",
    "token_types.weight",
    "attn_rel_b.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
];

fn may_be_narrowed(name: &str, shape: &[usize]) -> bool {
    let is_matrix = shape.split_last().is_some_and(|(_, outer)| outer.iter().any(|&n| n > 1));
    is_matrix && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

/// `3` of `blk.3.attn_v.weight`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The first and the last eighth of the layers, and every third between.
fn deserves_more_bits(layer: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}

/// The shape of LLaMA 2 70B and its like, whose value matrices are an eighth of the query matrices.
fn is_70b(facts: &ModelFacts) -> bool {
    facts.n_layers == 80
        && match facts.architecture {
            "llama" => facts.n_heads != facts.n_kv_heads,
            "qwen2" | "olmo" | "deci" => true,
            _ => false,
        }
}

/// `dtype`, or the nearest type of blocks that `row_len` is a multiple of.
fn fitting(row_len: usize, dtype: DType) -> DType {
    let fits = |dtype: DType| row_len.is_multiple_of(dtype.block_len());
    let shorter = match dtype {
        _ if fits(dtype) => return dtype,
        DType::Q2K | DType::Q3K => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        _ => DType::F16,
    };
    if fits(shorter) { shorter } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Mix::from_name(row.1), Some(row.0));
        }
        assert_eq!(Mix::from_name("Q4_K"), Some(Mix::Q4KM));
        assert_eq!(Mix::from_name("q4"), None);
    }

    /// `key=value` pairs after the first word of a line.
    fn fields(line: &str) -> impl Iterator<Item = (&str, &str)> {
        line.split(' ').skip(1).map(|field| field.split_once('=').unwrap())
    }

    fn facts(line: &str) -> ModelFacts<'_> {
        let text = |key| fields(line).find(|field| field.0 == key).unwrap().1;
        let number = |key| text(key).parse::<usize>().unwrap();
        ModelFacts {
            architecture: text("architecture"),
            n_layers: number("n_layers"),
            n_heads: number("n_heads"),
            n_kv_heads: number("n_kv_heads"),
            n_experts: number("n_experts"),
            has_output: number("tied") == 0,
            has_importance: number("weighted") == 1,
        }
    }

    /// `fixtures/quant_mix/make.py` says what the golden file is and makes it anew.
    #[test]
    fn every_tensor_gets_the_type_that_llama_quantize_gives_it() {
        let mut lines = include_str!("../fixtures/quant_mix/golden.txt").lines();
        let mixes: Vec<_> =
            lines.next().unwrap().split(' ').skip(1).map(|n| Mix::from_name(n).unwrap()).collect();
        assert!(mixes.iter().copied().eq(Mix::all()));
        let letters = lines.next().unwrap();
        let dtype_of = |letter: char| {
            let name = fields(letters).find(|field| field.0.starts_with(letter)).unwrap().1;
            DType::from_name(name).unwrap()
        };
        let (mut model, mut n_tensors) = ("", 0);
        for line in lines {
            if line.starts_with("model ") {
                model = line;
                continue;
            }
            let [name, shape, types] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let shape: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
            for (mix, letter) in mixes.iter().zip(types.chars()) {
                let ours = mix.dtype_for(name, &shape, &facts(model));
                assert_eq!(ours, dtype_of(letter), "{} of {name} {shape:?}, {model}", mix.name());
            }
            n_tensors += 1;
        }
        assert!(n_tensors > 1000);
    }

    #[test]
    fn what_is_small_stays_f32() {
        let facts =
            facts("model architecture=llama n_layers=2 n_heads=4 n_kv_heads=4 n_experts=0 tied=1 weighted=0");
        for (name, shape) in [
            ("output_norm.weight", &[256][..]),
            ("blk.0.attn_q.bias", &[256]),
            ("blk.0.attn_q_norm.weight", &[4, 64]),
            ("blk.1.ffn_gate_inp.weight", &[8, 256]),
            ("blk.1.attn_q.weight", &[1, 256]),
            ("rope_freqs.weight", &[32]),
            ("odd.weight", &[]),
        ] {
            for mix in Mix::all() {
                assert_eq!(mix.dtype_for(name, shape, &facts), DType::F32, "{name}");
            }
        }
    }
}

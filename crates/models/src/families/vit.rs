//! ViT: encoder of pictures; square patches become rows, and a class row stands before them.
//!
//! CLIP's tower has a norm before the blocks and quick GELU; EVA-CLIP, which BLIP-2 and MiniGPT-4 look with, has fused
//! queries, keys and values whose keys have no bias; DINOv2 scales what each sublayer adds.
//! Source: ViT, arXiv:2010.11929, section 3.1; CLIP, arXiv:2103.00020, section 2.4; EVA-CLIP, arXiv:2303.15389, section 2;
//! DINOv2, arXiv:2304.07193, section 4; LayerScale, arXiv:2103.17239, section 2.

use rhetor_catalog::{About, Source};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::kv::KvPages;
use rhetor_tensor::{Tensor, Vector, ops};
use std::sync::Arc;

use super::{BASE, Family, Licence, published};
use crate::config::{Keys, ModelConfig};
use crate::head::Task;
use crate::kv_cache::KvCache;
use crate::layers::{Active, Attention, Block, FeedForward, LayerNorm, Linear, Pass, Patches, Training};
use crate::load::{LoadError, Weights};
use crate::model::{Network, Sight};
use crate::names::{Stored, TensorName, name};

pub const CLIP_VISION: Family = Family {
    about: About {
        name: "clip-vision",
        summary: "the vision tower of CLIP: a picture becomes rows, the first of which stands for all",
        source: Source::Paper {
            title: "Learning Transferable Visual Models From Natural Language Supervision",
            id: "arXiv:2103.00020",
            section: "§2.4",
        },
        options: &[],
    },
    model_type: "clip_vision_model",
    architectures: &[("CLIPVisionModel", Task::Hidden)],
    prefix: "vision_model.",
    config: |keys| sizes(keys, "clip-vision", "quick_gelu", 1e-5),
    tensors: CLIP_TENSORS,
    build,
    published: &[
        published("clip-vit-base-patch32", 87_456_000, 50, Licence::Open),
        published("clip-vit-base-patch16", 85_799_424, 197, Licence::Open),
        published("clip-vit-large-patch14", 303_179_776, 257, Licence::Open),
    ],
    ..BASE
};

pub const EVA_CLIP: Family = Family {
    about: About {
        name: "eva-clip",
        summary: "EVA-CLIP as BLIP-2 and MiniGPT-4 look with it",
        source: Source::Paper {
            title: "EVA-CLIP: Improved Training Techniques for CLIP at Scale",
            id: "arXiv:2303.15389",
            section: "§2",
        },
        options: &[],
    },
    model_type: "blip_2_vision_model",
    architectures: &[("Blip2VisionModel", Task::Hidden)],
    prefix: "vision_model.",
    config: |keys| sizes(keys, "eva-clip", "gelu", 1e-6),
    tensors: EVA_TENSORS,
    other_names: names_of_minigpt4,
    build,
    // Without its last block, and without the biases of keys, which are 0.
    published: &[published("eva-clip-g", 985_897_344, 257, Licence::Open)],
    ..BASE
};

pub const DINOV2: Family = Family {
    about: About {
        name: "dinov2",
        summary: "DINOv2, which has learnt to see without texts; pictures of any size",
        source: Source::Paper {
            title: "DINOv2: Learning Robust Visual Features without Supervision",
            id: "arXiv:2304.07193",
            section: "§4",
        },
        options: &[],
    },
    model_type: "dinov2",
    architectures: &[("Dinov2Model", Task::Hidden)],
    prefix: "dinov2.",
    config: |keys| match keys.switch_or("use_swiglu_ffn", false)? {
        true => Err(keys.refuse("", "use_swiglu_ffn", true, "false")),
        false if keys.are_shapes() => sizes_of_graph(keys),
        false => sizes(keys, "dinov2", "gelu", 1e-6),
    },
    tensors: DINOV2_TENSORS,
    other_names: |name| vec![format!("{GRAPH_PREFIX}{name}")],
    build,
    known_by: &["backbone.embeddings.cls_token", "backbone.encoder.layer.0.layer_scale1.lambda1"],
    beside: &["decoder."],
    // Without the row that hides patches in training.
    published: &[
        published("dinov2-small", 22_056_192, 1370, Licence::Open),
        published("dinov2-base", 86_579_712, 1370, Licence::Open),
        published("dinov2-large", 304_367_616, 1370, Licence::Open),
    ],
    ..BASE
};

/// What the names of DINOv2's tensors begin with in a graph that builds a decoder upon it.
const GRAPH_PREFIX: &str = "backbone.";

const CLIP_TENSORS: &[TensorName] = &[
    name("v.class_embd", "embeddings.class_embedding|", "1 D").folded(),
    name("v.patch_embd", "embeddings.patch_embedding", "D 3*p*p").folded(),
    name("v.position_embd", "embeddings.position_embedding", "P D"),
    name("v.pre_ln", "pre_layrnorm", "D").biased(),
    name("v.blk.{i}.ln1", "encoder.layers.{i}.layer_norm1", "D").biased(),
    name("v.blk.{i}.attn_q", "encoder.layers.{i}.self_attn.q_proj", "D D").biased(),
    name("v.blk.{i}.attn_k", "encoder.layers.{i}.self_attn.k_proj", "D D").biased(),
    name("v.blk.{i}.attn_v", "encoder.layers.{i}.self_attn.v_proj", "D D").biased(),
    name("v.blk.{i}.attn_out", "encoder.layers.{i}.self_attn.out_proj", "D D").biased(),
    name("v.blk.{i}.ln2", "encoder.layers.{i}.layer_norm2", "D").biased(),
    name("v.blk.{i}.ffn_up", "encoder.layers.{i}.mlp.fc1", "F D").biased(),
    name("v.blk.{i}.ffn_down", "encoder.layers.{i}.mlp.fc2", "D F").biased(),
    name("v.post_ln", "post_layernorm", "D").biased(),
];

/// What MiniGPT-4 calls a tensor of transformers' tower.
fn names_of_minigpt4(name: &str) -> Vec<String> {
    let name = name.strip_prefix("vision_model.").unwrap_or(name);
    if let Some(suffix) = name.strip_prefix("post_layernorm") {
        return vec![format!("ln_vision{suffix}")];
    }
    let pairs = [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("encoder.layers", "blocks"),
        ("self_attn.projection", "attn.proj"),
        ("self_attn", "attn"),
        ("layer_norm", "norm"),
    ];
    let renamed = pairs.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to));
    vec![format!("visual_encoder.{renamed}")]
}

const EVA_TENSORS: &[TensorName] = &[
    name("v.class_embd", "embeddings.class_embedding|", "1 D").folded(),
    name("v.patch_embd", "embeddings.patch_embedding", "D 3*p*p").folded().biased(),
    name("v.position_embd", "embeddings.position_embedding|", "P D").folded(),
    name("v.blk.{i}.ln1", "encoder.layers.{i}.layer_norm1", "D").biased(),
    name("v.blk.{i}.attn_qkv", "encoder.layers.{i}.self_attn.qkv", "3*D D"),
    name("v.blk.{i}.attn_q", "|encoder.layers.{i}.self_attn.q_bias", "D").stored(Stored::OnlyBias),
    name("v.blk.{i}.attn_v", "|encoder.layers.{i}.self_attn.v_bias", "D").stored(Stored::OnlyBias),
    name("v.blk.{i}.attn_out", "encoder.layers.{i}.self_attn.projection", "D D").biased(),
    name("v.blk.{i}.ln2", "encoder.layers.{i}.layer_norm2", "D").biased(),
    name("v.blk.{i}.ffn_up", "encoder.layers.{i}.mlp.fc1", "F D").biased(),
    name("v.blk.{i}.ffn_down", "encoder.layers.{i}.mlp.fc2", "D F").biased(),
    name("v.post_ln", "post_layernorm", "D").biased(),
];

const DINOV2_TENSORS: &[TensorName] = &[
    name("v.class_embd", "embeddings.cls_token|", "1 D").folded(),
    name("v.patch_embd", "embeddings.patch_embeddings.projection", "D 3*p*p").folded().biased(),
    name("v.position_embd", "embeddings.position_embeddings|", "P D").folded(),
    name("v.blk.{i}.ln1", "encoder.layer.{i}.norm1", "D").biased(),
    name("v.blk.{i}.attn_q", "encoder.layer.{i}.attention.attention.query", "D D").biased(),
    name("v.blk.{i}.attn_k", "encoder.layer.{i}.attention.attention.key", "D D").biased(),
    name("v.blk.{i}.attn_v", "encoder.layer.{i}.attention.attention.value", "D D").biased(),
    name("v.blk.{i}.attn_out", "encoder.layer.{i}.attention.output.dense", "D D").biased(),
    name("v.blk.{i}.ls1", "encoder.layer.{i}.layer_scale1.lambda1|", "D"),
    name("v.blk.{i}.ln2", "encoder.layer.{i}.norm2", "D").biased(),
    name("v.blk.{i}.ffn_up", "encoder.layer.{i}.mlp.fc1", "F D").biased(),
    name("v.blk.{i}.ffn_down", "encoder.layer.{i}.mlp.fc2", "D F").biased(),
    name("v.blk.{i}.ls2", "encoder.layer.{i}.layer_scale2.lambda1|", "D"),
    name("v.post_ln", "layernorm", "D").biased(),
];

/// The sizes of a tower, whose keys are the same in all of these families.
fn sizes(keys: &Keys, family: &'static str, activation: &str, eps: f32) -> Result<ModelConfig, LoadError> {
    let hidden_size = keys.size("", "hidden_size")?;
    let n_heads = keys.size("", "num_attention_heads")?;
    let (side, patch) = (keys.size("", "image_size")?, keys.size("", "patch_size")?);
    // Where a tower looks at larger pictures than it has learnt with.
    let table_side = keys.size_or("", "pretrained_image_size", side)?;
    let n_channels = keys.size_or("", "num_channels", 3)?;
    let divides = |key, divisor: usize, number: usize| match number % divisor {
        0 => Ok(()),
        _ => Err(keys.refuse("", key, divisor, &format!("a divisor of {number}"))),
    };
    divides("num_attention_heads", n_heads, hidden_size)?;
    divides("patch_size", patch, side)?;
    divides("patch_size", patch, table_side)?;
    if n_channels != 3 {
        return Err(keys.refuse("", "num_channels", n_channels, "3"));
    }
    // DINOv2 writes down a size too, and does not mean it.
    let ffn_size = match family {
        "dinov2" => (hidden_size as f32 * keys.number_or("", "mlp_ratio", 4.0)?) as usize,
        _ => keys.size("", "intermediate_size")?,
    };
    let norm_eps = keys.number_or("", "layer_norm_eps", eps)?;
    let rows = |side: usize| (side / patch) * (side / patch) + 1;
    let head_dim = hidden_size / n_heads;
    // The authors of MiniGPT-4 end the tower with a norm of their own.
    let post_eps = if keys.has_tensors("ln_vision.") { 1e-5 } else { norm_eps };
    Ok(ModelConfig {
        family,
        hidden_size,
        n_layers: keys.size("", "num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        ffn_size,
        context_len: rows(side),
        position_len: rows(table_side),
        norm_eps,
        activation: keys.activation("hidden_act", activation)?,
        attention_scale: (head_dim as f32).powf(-0.5),
        is_encoder: true,
        own: vec![("p", patch as f64), ("side", side as f64), ("post_eps", f64::from(post_eps))],
        ..ModelConfig::default()
    })
}

/// The sizes of a DINOv2 that stands in a graph without keys: its tensors say most, and all that are published have heads
/// of 64, exact GELU and 1e-6 in their norms. Source: DINOv2, arXiv:2304.07193, table 17; its `vision_transformer.py`.
fn sizes_of_graph(keys: &Keys) -> Result<ModelConfig, LoadError> {
    const HEAD_DIM: usize = 64;
    let shape = |name: &str, n| keys.shape(&format!("{GRAPH_PREFIX}{name}"), n);
    let (weight, table) = ("embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings");
    let (patches, positions) = (shape(weight, 4)?, shape(table, 3)?);
    let (hidden_size, patch, position_len) = (patches[0], patches[2], positions[1]);
    let has_layer = |i: &usize| keys.has(&format!("{GRAPH_PREFIX}encoder.layer.{i}.norm1.weight"));
    if hidden_size % HEAD_DIM != 0 {
        return Err(keys.refuse("", "D", hidden_size, "a multiple of 64, the width of a head"));
    }
    let grid = (position_len - 1).isqrt();
    if grid == 0 || grid * grid + 1 != position_len {
        return Err(keys.refuse("", "P", position_len, "a square of patches and one row more"));
    }
    let norm_eps = 1e-6;
    let n_heads = hidden_size / HEAD_DIM;
    Ok(ModelConfig {
        family: "dinov2",
        hidden_size,
        n_layers: (0..).take_while(has_layer).count(),
        n_heads,
        n_kv_heads: n_heads,
        head_dim: HEAD_DIM,
        ffn_size: shape("encoder.layer.0.mlp.fc1.bias", 1)?[0],
        context_len: position_len,
        position_len,
        norm_eps,
        activation: Activation::Gelu,
        attention_scale: (HEAD_DIM as f32).powf(-0.5),
        is_encoder: true,
        own: vec![("p", patch as f64), ("side", (grid * patch) as f64), ("post_eps", f64::from(norm_eps))],
        ..ModelConfig::default()
    })
}

/// A tower, whichever family it is of.
pub(super) struct Vit {
    patches: Patches,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Arc<dyn Block>>,
    post_norm: LayerNorm,
    /// There is none: what a tower gives are its rows.
    output: Linear,
    side: usize,
}

struct VitBlock {
    attn_norm: LayerNorm,
    attn: Attention,
    attn_scale: Option<Vector>,
    ffn_norm: LayerNorm,
    ffn: FeedForward,
    ffn_scale: Option<Vector>,
}

fn build(weights: &mut Weights) -> Result<Box<dyn Network>, LoadError> {
    Ok(Box::new(vit(weights)?))
}

/// Loads a tower.
pub(super) fn vit(weights: &mut Weights) -> Result<Vit, LoadError> {
    let config = weights.config;
    let patches = Patches {
        patch_embd: weights.linear(&["v.patch_embd"], 0)?,
        class_embd: weights.embedding("v.class_embd")?,
        position_embd: weights.embedding("v.position_embd")?,
        side: config.own_size("p"),
    };
    let is_clip = config.family == "clip-vision";
    let pre_norm = if is_clip { Some(weights.layer_norm("v.pre_ln", 0)?) } else { None };
    let blocks = (0..config.n_layers)
        .map(|i| Ok(Arc::new(block(weights, i)?) as Arc<dyn Block>))
        .collect::<Result<_, LoadError>>()?;
    let post_norm = LayerNorm { eps: config.own("post_eps") as f32, ..weights.layer_norm("v.post_ln", 0)? };
    let output = Linear::identity();
    Ok(Vit { patches, pre_norm, blocks, post_norm, output, side: config.own_size("side") })
}

fn block(weights: &mut Weights, i: usize) -> Result<VitBlock, LoadError> {
    let family = weights.config.family;
    let qkv: &[&str] = match family {
        "eva-clip" => &["v.blk.{i}.attn_qkv"],
        _ => &["v.blk.{i}.attn_q", "v.blk.{i}.attn_k", "v.blk.{i}.attn_v"],
    };
    let mut attn = weights.attention(qkv, "v.blk.{i}.attn_out", i)?;
    if family == "eva-clip" && weights.is_in_file("v.blk.{i}.attn_q", i, ".bias") {
        let q = weights.required_vector("v.blk.{i}.attn_q", i, ".bias")?;
        let v = weights.required_vector("v.blk.{i}.attn_v", i, ".bias")?;
        let k = Vector::Fixed(Tensor::from_vec(vec![0.0; q.len()], [q.len()]));
        attn.qkv.bias = crate::load::join(vec![q, k, v]);
    }
    let scale = |weights: &mut Weights, ours| match family {
        "dinov2" => weights.required_vector(ours, i, ".weight").map(Some),
        _ => Ok(None),
    };
    Ok(VitBlock {
        attn_norm: weights.layer_norm("v.blk.{i}.ln1", i)?,
        attn,
        attn_scale: scale(weights, "v.blk.{i}.ls1")?,
        ffn_norm: weights.layer_norm("v.blk.{i}.ln2", i)?,
        ffn: FeedForward {
            up: weights.linear(&["v.blk.{i}.ffn_up"], i)?,
            down: weights.linear(&["v.blk.{i}.ffn_down"], i)?,
            activation: weights.config.activation,
        },
        ffn_scale: scale(weights, "v.blk.{i}.ls2")?,
    })
}

impl Block for VitBlock {
    fn forward(&self, x: Tensor, pass: &Pass, cache: Option<&mut KvPages>) -> Tensor {
        let scaled = |y: Tensor, scale: &Option<Vector>| match scale {
            Some(scale) => ops::columns::scale_columns(y, 0, scale, None),
            None => y,
        };
        let y = self.attn.forward(&self.attn_norm.forward(&x), pass, cache);
        let x = scaled(y, &self.attn_scale) + x;
        scaled(self.ffn.forward(&self.ffn_norm.forward(&x), pass), &self.ffn_scale) + x
    }
}

impl Network for Vit {
    fn blocks(&self, _tokens: &[u32], _pass: &Pass, _cache: Option<&mut KvCache>) -> Tensor {
        panic!("a vision tower reads no tokens")
    }

    fn before_output(&self, x: &Tensor, _pass: &Pass) -> Tensor {
        self.post_norm.forward(x)
    }

    fn output(&self) -> &Linear {
        &self.output
    }

    fn sight(&self) -> Option<Sight> {
        let grid = self.side / self.patches.side;
        Some(Sight { side: self.side, patch: self.patches.side, n_rows: grid * grid + 1 })
    }

    fn see(&self, planes: &[f32], size: [usize; 2], training: Option<Training>) -> Tensor {
        let n = planes.len() / (3 * size[0] * size[1]);
        let pass = Pass::full(vec![self.patches.n_rows(size); n], Active::All, training);
        let mut x = self.patches.forward(planes, size, &pass); // [n·P, D]
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x);
        }
        for block in &self.blocks {
            x = block.forward(x, &pass, None);
        }
        self.before_output(&x, &pass)
    }
}

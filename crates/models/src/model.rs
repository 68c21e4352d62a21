//! A loaded model: finds its family, loads its weights, runs its network.

use rhetor_formats::Checkpoint;
use rhetor_kernels::attention::Span;
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::rope::RopeScaling;
use rhetor_tensor::ops::mixture::Balance;
use rhetor_tensor::{Parameter, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::adapters::{Adapter, AdapterError};
use crate::config::{Keys, ModelConfig, Part};
use crate::families::Family;
use crate::four_bit::Nf4;
use crate::head::{NewHead, Task, head_of};
use crate::kv_cache::KvCache;
use crate::layers::{Active, Embedded, Embedding, Linear, Pass, Probe, Source, SourceTokens, Training};
use crate::load::{LoadError, Weights};
use crate::tree::TokenTree;

/// What the user chooses when a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Positions to prepare for; `None` = what the model was made for. More than that is refused.
    pub context: Option<usize>,
    /// Of products with trained weights, and of gradients that pass frozen ones. Frozen weights
    /// are multiplied as they are stored.
    pub precision: Precision,
    /// Turns every frozen weight of a linear layer but the output layer into NF4; `None` = weights stay as they are
    /// stored. With LoRA this is QLoRA.
    pub quantize: Option<Nf4>,
    /// The head that the model is to have; `None` = that of the file.
    pub head: Option<NewHead>,
    /// Whether frozen linear layers of 32 bits are held in bfloat16: products then take both factors in 8 bits of precision and
    /// half the memory, and are faster where the CPU has instructions for it.
    pub in_bf16: bool,
    /// What the file is read for, if it has more than the head that its class names: BERT's second task, the pooler,
    /// the hidden states. Nothing is drawn: a tensor that is not there is an error.
    pub task: Option<Task>,
}

/// Some rows of tokens of one or more sequences, to be run in one forward pass.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The tokens of all sequences, one sequence after another. `[T]`
    pub tokens: Vec<u32>,
    /// Where each sequence's tokens stand; their lengths add up to T.
    pub spans: Vec<SequenceSpan>,
    /// The rows of `tokens` whose logits are wanted, ascending.
    pub outputs: Vec<usize>,
    /// The segment (0 or 1) of each token, for encoders that were trained with pairs; empty = all 0. `[T]`
    pub segments: Vec<u8>,
    /// Rows that are given in the place of the embeddings of their tokens, such as what [`Model::see`] makes of pictures.
    pub embedded: Vec<Embedded>,
    /// What an encoder reads for the sequences, where there is one and no cache: with a cache,
    /// [`Model::read`] has read it before.
    pub source: Option<Arc<SourceTokens>>,
    /// Which of the model's adapters are on.
    pub adapters: Active,
    /// What only training has: dropout, and what the tape keeps.
    pub training: Option<Training>,
    /// Counts how evenly the experts of mixtures are used, and sends its gradient back.
    pub balance: Option<Arc<Balance>>,
}

/// The part of one sequence that a batch holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SequenceSpan {
    /// The sequence's pages in the cache, enough for `start + len` tokens. Empty without a cache.
    pub pages: Vec<u32>,
    /// Position of the first token.
    pub start: usize,
    /// Tokens of this sequence in the batch.
    pub len: usize,
    /// Its first tokens that see each other in both directions: 0 = a causal model, `len` = an encoder. Only without
    /// a cache.
    pub prefix_len: usize,
    /// Pages that hold what was read of the sequence's source, if it has one. Empty without a cache.
    pub source_pages: Vec<u32>,
    /// Tokens of that source.
    pub source_len: usize,
    /// The tree that its tokens form, each at the position of its depth after `start`; its keys and values stand in the
    /// cache in the order of the tokens until [`KvCache::keep`]. `None` = each token follows the one before. Only with
    /// a cache.
    pub tree: Option<Arc<TokenTree>>,
}

impl SequenceSpan {
    /// The position of each of its tokens.
    fn positions(&self) -> impl Iterator<Item = usize> {
        let depth = |i| self.tree.as_ref().map_or(i, |tree| tree.depths()[i]);
        (0..self.len).map(move |i| self.start + depth(i))
    }
}

impl Batch {
    /// One whole sequence without a cache, all logits wanted.
    pub fn whole(tokens: &[u32]) -> Batch {
        Batch {
            tokens: tokens.to_vec(),
            spans: vec![SequenceSpan { len: tokens.len(), ..SequenceSpan::default() }],
            outputs: (0..tokens.len()).collect(),
            ..Batch::default()
        }
    }
}

impl Batch {
    /// What the layers of a model of these sizes know of the batch.
    ///
    /// Panics if the batch contradicts itself.
    pub(crate) fn pass(
        &self,
        config: &ModelConfig,
        has_cache: bool,
        probe: Option<Arc<dyn Probe>>,
    ) -> Pass<'_> {
        let prefix_lens = self.spans.iter().map(|span| match config.is_encoder {
            true => span.len,
            false => span.prefix_len,
        });
        let prefix_lens: Vec<usize> = prefix_lens.collect();
        assert!(
            !has_cache || prefix_lens.iter().all(|&n| n == 0),
            "a prefix seen from both sides with a cache"
        );
        let n_rows: usize = self.spans.iter().map(|span| span.len).sum();
        assert_eq!(n_rows, self.tokens.len(), "lengths of the spans against the number of tokens");
        for tree in self.spans.iter().filter_map(|span| Some((span.len, span.tree.as_ref()?.n_nodes()))) {
            assert!(has_cache && tree.0 == tree.1, "a tree needs a cache, and a token for each node");
        }
        let positions: Vec<usize> = self.spans.iter().flat_map(SequenceSpan::positions).collect();
        let last = positions.iter().max().copied().unwrap_or(0);
        assert!(last < config.context_len, "position {last} in a context of {}", config.context_len);
        let spans: Vec<Span> = (self.spans.iter())
            .map(|span| Span {
                table: &span.pages,
                start: span.start,
                len: span.len,
                tree: span.tree.as_ref().map(|tree| tree.mask()),
            })
            .collect();
        Pass {
            of_row: Cow::Owned(positions),
            spans: Cow::Owned(spans),
            prefix_lens: Cow::Owned(prefix_lens),
            segments: Cow::Borrowed(&self.segments),
            embedded: Cow::Borrowed(&self.embedded),
            source: match &self.source {
                Some(tokens) => {
                    assert_eq!(tokens.passages.len(), self.spans.len(), "sources against sequences");
                    Source::Tokens(tokens.clone())
                }
                None if has_cache && config.has_encoder() => {
                    let spans = self.spans.iter();
                    Source::Pages(spans.map(|span| (&*span.source_pages, span.source_len)).collect())
                }
                None => Source::None,
            },
            adapters: self.adapters.clone(),
            training: self.training,
            balance: self.balance.clone(),
            probe,
        }
    }
}

impl Batch {
    /// The same with a placeholder at each of `n` virtual positions before each sequence, whose logits are not wanted.
    ///
    /// The spans are whole sequences without a cache.
    pub fn with_virtual(&self, n: usize) -> Batch {
        let (mut tokens, mut segments) = (Vec::new(), Vec::new());
        let (mut first, mut outputs) = (0, self.outputs.iter().peekable());
        let mut shifted = Vec::with_capacity(self.outputs.len());
        let mut embedded = self.embedded.clone();
        for (i, span) in self.spans.iter().enumerate() {
            let end = first + span.len;
            tokens.extend(std::iter::repeat_n(0, n).chain(self.tokens[first..end].iter().copied()));
            if !self.segments.is_empty() {
                segments.extend(std::iter::repeat_n(0, n).chain(self.segments[first..end].iter().copied()));
            }
            while let Some(row) = outputs.next_if(|row| **row < end) {
                shifted.push(row + (i + 1) * n);
            }
            for (new, old) in embedded.iter_mut().zip(&self.embedded) {
                if (first..end).contains(&old.first) {
                    new.first = old.first + (i + 1) * n;
                }
            }
            first = end;
        }
        let longer = |span: &SequenceSpan| SequenceSpan {
            len: span.len + n,
            prefix_len: if span.prefix_len > 0 { span.prefix_len + n } else { 0 },
            ..span.clone()
        };
        Batch {
            tokens,
            spans: self.spans.iter().map(longer).collect(),
            outputs: shifted,
            segments,
            embedded,
            source: self.source.clone(),
            adapters: self.adapters.clone(),
            training: self.training,
            balance: self.balance.clone(),
        }
    }
}

/// What a family builds: its blocks in order.
pub trait Network: Send + Sync {
    /// tokens: [T], at their positions → hidden states [T, D] before what precedes the output layer.
    fn blocks(&self, tokens: &[u32], pass: &Pass, cache: Option<&mut KvCache>) -> Tensor;

    /// What stands between the blocks and the output layer: a norm, BERT's pooler. x: [N, D] → [N, D]
    fn before_output(&self, x: &Tensor, pass: &Pass) -> Tensor;

    /// The output layer, [V, D], or [C, D] of another head.
    fn output(&self) -> &Linear;

    /// Whether it decodes token by token with a cache, where its head is over the vocabulary.
    fn generates(&self) -> bool {
        true
    }

    /// The table of embeddings, if there is one for all tokens.
    fn embedding(&self) -> Option<&Embedding> {
        None
    }

    /// Encodes sources and writes what cross attention sees of them to the cache: for each its pages and its tokens.
    /// `pass` is the encoder's: each passage is a sequence.
    fn read(&self, _source: &SourceTokens, _tables: &[(&[u32], usize)], _pass: &Pass, _cache: &mut KvCache) {
        panic!("a model without an encoder reads no source");
    }

    /// What it takes and gives, if it has eyes.
    fn sight(&self) -> Option<Sight> {
        None
    }

    /// What it makes of pictures of `[height, width]` pixels. planes: [n, 3, height, width] → [n·R, D]
    fn see(&self, _planes: &[f32], _size: [usize; 2], _training: Option<Training>) -> Tensor {
        panic!("a model without eyes sees no picture");
    }
}

/// What a network with eyes takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// S: pixels along each side of the pictures that it was made for.
    pub side: usize,
    /// Pixels along each side of a patch.
    pub patch: usize,
    /// Rows that such a picture becomes.
    pub n_rows: usize,
}

/// Keeps the residual stream at some depths.
struct Kept {
    depths: Vec<usize>,
    found: Mutex<HashMap<usize, Tensor>>,
}

impl Probe for Kept {
    fn residual(&self, depth: usize, x: Tensor) -> Tensor {
        if self.depths.contains(&depth) {
            self.found.lock().expect("nobody panics while keeping").insert(depth, x.clone());
        }
        x
    }
}

/// A loaded model.
pub struct Model {
    config: ModelConfig,
    family: &'static Family,
    network: Box<dyn Network>,
    n_parameters: usize,
    n_bytes: usize,
    parameters: Vec<Parameter>,
    adapters: Vec<AttachedAdapter>,
    beside: Vec<String>,
}

/// What a model knows of an adapter that is attached to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedAdapter {
    /// The method.
    pub method: &'static str,
    /// Virtual positions that it puts before each sequence.
    pub n_virtual: usize,
    /// Whether it has put tensors in the place of the base's, so that it cannot be switched off.
    pub is_fixed: bool,
}

impl AttachedAdapter {
    /// Whether these of a model's adapters can run together, and the others be off.
    pub fn check(attached: &[AttachedAdapter], active: &Active) -> Result<(), AdapterError> {
        let refuse = |what, got: String, expected: &str| {
            Err(AdapterError::Refused { method: "adapters", what, got, expected: expected.to_string() })
        };
        if let Active::Only(numbers) = active
            && let Some(number) = numbers.iter().find(|&&number| number >= attached.len())
        {
            return refuse("number", number.to_string(), "an adapter of this model");
        }
        let is_on = |i: usize| active.has(i);
        let n_prompts = (0..attached.len()).filter(|&i| is_on(i) && attached[i].n_virtual > 0).count();
        if n_prompts > 1 {
            let expected = "one: each would take the first positions of a sequence";
            return refuse("prompts and prefixes at once", n_prompts.to_string(), expected);
        }
        match attached.iter().enumerate().find(|(i, adapter)| adapter.is_fixed && !is_on(*i)) {
            Some((i, _)) => {
                let expected = "to be on: it replaces tensors of the base";
                refuse("switching", format!("adapter {i} off"), expected)
            }
            None => Ok(()),
        }
    }
}

impl Model {
    /// Loads the weights of `checkpoint`, checked and packed for this CPU.
    pub fn load(checkpoint: &Checkpoint, options: LoadOptions) -> Result<Model, LoadError> {
        Model::load_adapted(checkpoint, options, &mut [])
    }

    /// As [`load`](Model::load), with `adapters` attached; each is known by its number from then on.
    pub fn load_adapted(
        checkpoint: &Checkpoint,
        options: LoadOptions,
        adapters: &mut [Box<dyn Adapter>],
    ) -> Result<Model, LoadError> {
        let family = Family::of(checkpoint)?;
        let mut config = Model::config_of(checkpoint)?;
        for adapter in adapters.iter_mut() {
            adapter.prepare(&mut config)?;
            let speaks = |part: &&mut Part| part.config.vocab_size > 0;
            if let Some(part) = config.parts.iter_mut().find(speaks) {
                adapter.prepare(&mut part.config)?;
            }
        }
        if let Some(context) = options.context {
            if context == 0 || context > config.context_len {
                return Err(LoadError::ContextTooLong { asked: context, trained: config.context_len });
            }
            config.context_len = context;
        }
        let asked = match (options.head, options.task) {
            (Some(NewHead { head, .. }), _) => Some(head),
            (None, Some(task)) => Some(head_of(checkpoint, task)?),
            (None, None) => None,
        };
        if let Some(head) = asked {
            if !family.has_head(head.task) {
                let (file, family) = (checkpoint.path().to_path_buf(), family.about.name);
                return Err(LoadError::NoHead { file, family, task: head.task });
            }
            config.head = head;
        }
        let mut weights = Weights::new(checkpoint, family, &config, adapters, options)?;
        let network = (family.build)(&mut weights)?;
        let account = weights.finish()?;
        if let Some(adapter) = adapters.iter().find(|adapter| config.has_encoder() && adapter.n_virtual() > 0)
        {
            let expected = "a model without an encoder: virtual positions stand before a decoder's text";
            return Err(LoadError::Adapter(AdapterError::Refused {
                method: adapter.about().name,
                what: "model",
                got: config.family.to_string(),
                expected: expected.to_string(),
            }));
        }
        let mut parameters = account.parameters;
        adapters.iter().for_each(|adapter| parameters.extend(adapter.parameters()));
        let (n_parameters, n_bytes) = (account.n_parameters, account.n_bytes);
        let adapters = adapters.iter().map(|adapter| AttachedAdapter {
            method: adapter.about().name,
            n_virtual: adapter.n_virtual(),
            is_fixed: adapter.replaces_base(),
        });
        let adapters = adapters.collect();
        let beside = account.beside;
        Ok(Model { config, family, network, n_parameters, n_bytes, parameters, adapters, beside })
    }

    /// The sizes that a checkpoint claims, without loading its weights.
    pub fn config_of(checkpoint: &Checkpoint) -> Result<ModelConfig, LoadError> {
        let (family, task) = Family::and_task_of(checkpoint)?;
        let mut config = (family.config)(&Keys::new(checkpoint, family.gguf))?;
        config.head = head_of(checkpoint, task)?;
        if let Some(rope) = &mut config.rope
            && let RopeScaling::DynamicNtk { factor, original_context } = rope.scaling
        {
            // Such files say what the model was trained on, not how far its positions reach.
            rope.context = rope.context.max((original_context as f32 * factor) as usize);
            config.context_len = rope.context;
        }
        for &n_kv_heads in config.layer_kv_heads.iter().chain([&config.n_kv_heads]) {
            if config.n_heads % n_kv_heads != 0 {
                return Err(LoadError::Heads { n_heads: config.n_heads, n_kv_heads });
            }
        }
        Ok(config)
    }

    /// Sizes and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether it writes text, token by token with a cache: a decoder with its vocabulary.
    pub fn generates(&self) -> bool {
        let writes = !self.config.is_encoder && !self.config.is_recurrent && self.network.generates();
        writes && self.config.head.task == Task::Vocabulary
    }

    /// The family's entry in the table.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// Elements of all weights, tied ones counted once.
    pub fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    /// Bytes of all weights as they are held in memory.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The names of the tensors that the file builds upon the model, and that are not part of it: a graph's decoder.
    pub fn beside(&self) -> &[String] {
        &self.beside
    }

    /// The trained tensors: of the base first, by their Hugging Face names, then of each adapter.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The adapters, by number.
    pub fn adapters(&self) -> &[AttachedAdapter] {
        &self.adapters
    }

    /// Virtual positions at the head of every sequence that runs with these adapters.
    pub fn n_virtual(&self, active: &Active) -> usize {
        let on = self.adapters.iter().enumerate().filter(|(i, _)| active.has(*i));
        on.map(|(_, adapter)| adapter.n_virtual).sum()
    }

    /// Whether these adapters can run together, and the others be off.
    pub fn check_active(&self, active: &Active) -> Result<(), AdapterError> {
        AttachedAdapter::check(&self.adapters, active)
    }

    /// The output layer, [V, D] or [C, D], which [`hidden`](Model::hidden) states go through to become logits.
    pub fn output(&self) -> &Linear {
        self.network.output()
    }

    /// Encodes the sources of some sequences and writes what their decoder sees of them to the cache, at the pages of each
    /// source: enough for its tokens. Spans that name these pages read them from then on.
    ///
    /// Panics if the model has no encoder, or if there are not as many tables as sequences.
    pub fn read(&self, source: &SourceTokens, tables: &[&[u32]], adapters: &Active, cache: &mut KvCache) {
        let lens = source.lens();
        assert_eq!(tables.len(), lens.len(), "tables of pages against sources");
        let tables: Vec<(&[u32], usize)> = tables.iter().copied().zip(lens).collect();
        self.network.read(source, &tables, &source.pass(adapters.clone(), None), cache);
    }

    /// What it takes and gives, if it has eyes.
    pub fn sight(&self) -> Option<Sight> {
        self.network.sight()
    }

    /// What it makes of pictures of `[height, width]` pixels: of a vision tower its rows after the last norm, the class row
    /// first; of a model that speaks the rows that stand for the picture among its words. planes: [n, 3, height, width] →
    /// [n·R, D]
    ///
    /// A picture's rows do not depend on those beside it. Panics if it has no [`sight`](Model::sight), or if a side is no
    /// multiple of a patch.
    pub fn see(&self, planes: &[f32], size: [usize; 2], training: Option<Training>) -> Tensor {
        self.network.see(planes, size, training)
    }

    /// Logits of the wanted rows. → [N, V], or [N, C] with another head
    ///
    /// With a cache, each span continues its sequence: keys and values of all positions before `start` must be there, and those of the
    /// span are added. Without, each span must be a whole sequence from position 0. A row's logits do not depend on what else is in the batch.
    ///
    /// Where an adapter has [virtual positions](Model::n_virtual), they come before the tokens. With a cache they are
    /// positions of the sequence like others, and its first tokens are placeholders for them; without, they are put there
    /// by this function.
    ///
    /// An encoder has no cache, and its rows all see each other whatever `prefix_len` says.
    ///
    /// Panics if the batch contradicts itself: lengths that do not add up, pages too few, a token outside the vocabulary.
    pub fn forward(&self, batch: &Batch, cache: Option<&mut KvCache>) -> Tensor {
        self.run(batch, cache, None, |x, pass| self.network.output().forward(&x, pass))
    }

    /// As [`forward`](Model::forward) without a cache, with `probe` looking on.
    pub fn forward_probed(&self, batch: &Batch, probe: Arc<dyn Probe>) -> Tensor {
        self.run(batch, None, Some(probe), |x, pass| self.network.output().forward(&x, pass))
    }

    /// What the end of the network makes of rows of the residual stream: last norm and output layer. x: [N, D] → [N, V]
    pub fn read_out(&self, x: &Tensor) -> Tensor {
        let pass = SourceTokens::default().pass(Active::All, None);
        self.network.output().forward(&self.network.before_output(x, &pass), &pass)
    }

    /// What goes into the output layer: the normed hidden states of the wanted rows. → [N, D]
    ///
    /// Otherwise as [`forward`](Model::forward).
    pub fn hidden(&self, batch: &Batch, cache: Option<&mut KvCache>) -> Tensor {
        self.run(batch, cache, None, |x, _| x)
    }

    /// As [`hidden`](Model::hidden), with the residual stream of the wanted rows at some depths: at 0 the embeddings, at i
    /// what goes into layer i. → [N, D], and one [N, D] for each of `depths`
    ///
    /// Draft heads read them ([`eagle`](crate::eagle)). Panics if the network has no such depth.
    pub fn features(
        &self,
        batch: &Batch,
        cache: Option<&mut KvCache>,
        depths: &[usize],
    ) -> (Tensor, Vec<Tensor>) {
        let kept = Arc::new(Kept { depths: depths.to_vec(), found: Mutex::default() });
        let hidden = self.run(batch, cache, Some(kept.clone()), |x, _| x);
        let mut found = kept.found.lock().expect("nobody panics while keeping");
        let take = |depth: &usize| {
            let x = found.remove(depth).unwrap_or_else(|| panic!("a network without a depth {depth}"));
            rhetor_tensor::ops::rows::rows(&x, &batch.outputs)
        };
        let features = depths.iter().map(take).collect();
        (hidden, features)
    }

    /// The table of embeddings, if the network has but one.
    pub(crate) fn embedding(&self) -> Option<&Embedding> {
        self.network.embedding()
    }

    /// Runs the network up to the output layer; `end` takes the normed hidden states of the wanted rows, [N, D].
    fn run(
        &self,
        batch: &Batch,
        cache: Option<&mut KvCache>,
        probe: Option<Arc<dyn Probe>>,
        end: impl FnOnce(Tensor, &Pass) -> Tensor,
    ) -> Tensor {
        let longer;
        let n_virtual = self.n_virtual(&batch.adapters);
        let batch = if n_virtual > 0 && cache.is_none() {
            longer = batch.with_virtual(n_virtual);
            &longer
        } else {
            batch
        };
        assert!(cache.is_none() || !self.config.is_encoder, "an encoder has no cache");
        let n_rows = batch.tokens.len();
        let pass = batch.pass(&self.config, cache.is_some(), probe);
        let x = self.network.blocks(&batch.tokens, &pass, cache); // [T, D]
        let x = if batch.outputs.len() == n_rows {
            x
        } else {
            rhetor_tensor::ops::rows::rows(&x, &batch.outputs)
        };
        end(self.network.before_output(&x, &pass), &pass)
    }
}

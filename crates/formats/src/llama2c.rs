//! llama2.c's `.bin` files, version 0: seven integers, then every weight in f32, in a fixed order, without names.
//!
//! It is shown as the GGUF file of the same model would be: the same tensor names, the same metadata keys. Queries and
//! keys are in the interleaved order of pairs, as in GGUF files of `llama`. The file has no magic number, so it is
//! recognized by a header that explains its length to the byte. Versions 1 and 2 (magic `ak42`) are refused by name.
//! Source: llama2.c, `run.c`, `memory_map_weights`.

use std::path::Path;

use rhetor_kernels::DType;

use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::{Error, TensorEntry};

/// `ak42` as a little-endian word.
pub(crate) const MAGIC_V1: &[u8] = b"24ka";

const HEADER_BYTES: usize = 7 * 4;

/// The seven integers.
struct Header {
    hidden_size: usize,
    ffn_size: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    context_len: usize,
    /// The sign of the vocabulary's size says it.
    head_is_tied: bool,
}

/// Whether the bytes are such a file.
pub(crate) fn recognize(bytes: &[u8]) -> bool {
    let Ok(header) = Header::read(&mut Reader::new(Path::new(""), bytes)) else { return false };
    header.is_some_and(|header| header.n_bytes() == Some(bytes.len()))
}

/// Reads `bytes`, the whole of `file`, after [`recognize`] has said yes.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<(Metadata, Vec<TensorEntry>), Error> {
    let mut reader = Reader::new(file, bytes);
    let Some(header) = Header::read(&mut reader)? else {
        return Err(reader.invalid(
            0,
            &"header",
            "seven positive sizes",
            format!("{:?}", &bytes[..HEADER_BYTES]),
        ));
    };
    let mut tensors = Vec::new();
    for (name, shape) in header.layout() {
        let n_bytes = 4 * shape.iter().product::<usize>();
        let offset = reader.at();
        reader.take(n_bytes, &format_args!("data of tensor `{name}`"))?;
        if !name.is_empty() {
            tensors.push(TensorEntry { name, dtype: DType::F32.into(), shape, file: 0, offset, n_bytes });
        }
    }
    Ok((header.metadata(file), tensors))
}

impl Header {
    /// `None` if the integers cannot be the sizes of a model.
    fn read(reader: &mut Reader) -> Result<Option<Header>, Error> {
        let mut sizes = [0usize; 7];
        let mut head_is_tied = true;
        for (i, size) in sizes.iter_mut().enumerate() {
            let value = reader.i32(&"header")?;
            if i == 5 && value < 0 {
                head_is_tied = false;
            } else if value <= 0 {
                return Ok(None);
            }
            *size = value.unsigned_abs() as usize;
        }
        let [hidden_size, ffn_size, n_layers, n_heads, n_kv_heads, vocab_size, context_len] = sizes;
        let divides = hidden_size % (2 * n_heads) == 0 && n_heads % n_kv_heads == 0;
        let header = Header {
            hidden_size,
            ffn_size,
            n_layers,
            n_heads,
            n_kv_heads,
            vocab_size,
            context_len,
            head_is_tied,
        };
        Ok(divides.then_some(header))
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    /// The length of the file; `None` if it overflows.
    fn n_bytes(&self) -> Option<usize> {
        let product = |factors: &[usize]| factors.iter().try_fold(1usize, |n, factor| n.checked_mul(*factor));
        let (d, f) = (self.hidden_size, self.ffn_size);
        let kv_size = self.head_dim() * self.n_kv_heads;
        let layer =
            [product(&[2, d])?, product(&[2, d, d])?, product(&[2, d, kv_size])?, product(&[3, d, f])?];
        let layer = layer.iter().try_fold(0usize, |sum, part| sum.checked_add(*part))?;
        let n_heads = if self.head_is_tied { 1 } else { 2 };
        let parts = [
            product(&[n_heads, self.vocab_size, d])?,
            product(&[self.n_layers, layer])?,
            d,
            product(&[self.context_len, self.head_dim()])?,
        ];
        let n = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(*part))?;
        n.checked_mul(4)?.checked_add(HEADER_BYTES)
    }

    /// Every tensor in the order of the file. Those without a name are tables of sines that nobody needs.
    fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.ffn_size);
        let kv_size = self.head_dim() * self.n_kv_heads;
        let layers: [(&str, Vec<usize>); 9] = [
            ("attn_norm", vec![d]),
            ("attn_q", vec![d, d]),
            ("attn_k", vec![kv_size, d]),
            ("attn_v", vec![kv_size, d]),
            ("attn_output", vec![d, d]),
            ("ffn_norm", vec![d]),
            ("ffn_gate", vec![f, d]),
            ("ffn_down", vec![d, f]),
            ("ffn_up", vec![f, d]),
        ];
        let mut layout = vec![("token_embd.weight".to_owned(), vec![self.vocab_size, d])];
        for (name, shape) in layers {
            layout.extend((0..self.n_layers).map(|i| (format!("blk.{i}.{name}.weight"), shape.clone())));
        }
        layout.push(("output_norm.weight".to_owned(), vec![d]));
        layout.push((String::new(), vec![self.context_len, self.head_dim()]));
        if !self.head_is_tied {
            layout.push(("output.weight".to_owned(), vec![self.vocab_size, d]));
        }
        layout
    }

    fn metadata(&self, file: &Path) -> Metadata {
        let mut metadata = Metadata::new(file);
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        metadata.set("general.architecture", "llama");
        metadata.set("general.name", name);
        metadata.set("general.file_type", 0u32);
        metadata.set("llama.vocab_size", self.vocab_size as u32);
        metadata.set("llama.context_length", self.context_len as u32);
        metadata.set("llama.embedding_length", self.hidden_size as u32);
        metadata.set("llama.block_count", self.n_layers as u32);
        metadata.set("llama.feed_forward_length", self.ffn_size as u32);
        metadata.set("llama.attention.head_count", self.n_heads as u32);
        metadata.set("llama.attention.head_count_kv", self.n_kv_heads as u32);
        metadata.set("llama.rope.dimension_count", self.head_dim() as u32);
        // Constants of run.c.
        metadata.set("llama.rope.freq_base", 10000f32);
        metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of width 4 with 2 heads, 1 KV head, 2 layers; `vocab_size` negative for a head of its own.
    fn tiny(vocab_size: i32) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            [4i32, 6, 2, 2, 1, vocab_size, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
        let layer = 4 + 16 + 8 + 8 + 16 + 4 + 3 * 24;
        let heads = if vocab_size < 0 { 2 } else { 1 };
        let n = heads * 5 * 4 + 2 * layer + 4 + 3 * 2;
        bytes.extend((0..n).flat_map(|i| (i as f32).to_le_bytes()));
        bytes
    }

    #[test]
    fn tensors_have_the_names_and_shapes_of_gguf() {
        for (vocab_size, n_tensors) in [(5, 20), (-5, 21)] {
            let bytes = tiny(vocab_size);
            assert!(recognize(&bytes));
            let (metadata, tensors) = read(Path::new("dir/tiny.bin"), &bytes).unwrap();
            assert_eq!(metadata.require_str("general.name").unwrap(), "tiny");
            assert_eq!(metadata.require_u64("llama.attention.head_count_kv").unwrap(), 1);
            assert_eq!(tensors.len(), n_tensors);
            let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
            assert_eq!(find("blk.1.attn_k.weight").unwrap().shape, [2, 4]);
            // 20 of the embedding, 8 of the norms, then the queries of layer 0.
            assert_eq!(find("blk.1.attn_q.weight").unwrap().offset, HEADER_BYTES + 4 * (20 + 8 + 16));
            assert_eq!(find("output.weight").is_some(), vocab_size < 0);
            assert!(find("output.weight").is_none_or(|head| head.offset + head.n_bytes == bytes.len()));
        }
    }

    #[test]
    fn a_header_that_does_not_explain_the_length_is_not_recognized() {
        let bytes = tiny(5);
        assert!(!recognize(&bytes[..bytes.len() - 1]));
        assert!(!recognize(&bytes[..10]));
        let mut huge = bytes.clone();
        huge[..28].copy_from_slice(&[0x7f; 28]);
        assert!(!recognize(&huge));
        let mut zero = bytes;
        zero[4..8].fill(0);
        assert!(!recognize(&zero));
    }
}

"""Writes a GGUF with the shape of TinyLlama-1.1B and random weights: speed depends on the shape, not on the values.

    python benches/make_tinyllama.py VOCABULARY.gguf OUT.gguf

Needs numpy and gguf. VOCABULARY.gguf gives the tokenizer: any GGUF whose vocabulary has 32000 SentencePiece tokens, such
as `ggml-vocab-llama-spm.gguf` in the sources of llama.cpp. Matrices are F16, N(0, 0.02); norms are 1.
`llama-quantize OUT.gguf OUT-q4_k_m.gguf Q4_K_M` makes the other types.
"""
import sys

import gguf
import numpy as np

N_LAYERS, HIDDEN, FFN, N_HEADS, N_KV_HEADS, VOCAB, CONTEXT = 22, 2048, 5632, 32, 4, 32000, 8192


def main(vocabulary: str, out: str) -> None:
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name("TinyLlama-1.1B shape, random weights")
    writer.add_context_length(CONTEXT)
    writer.add_block_count(N_LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // N_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    copy_tokenizer(vocabulary, writer)

    def matrix(name: str, rows: int, cols: int) -> None:
        values = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(0.02)
        writer.add_tensor(name, values.astype(np.float16))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))

    kv = N_KV_HEADS * HIDDEN // N_HEADS
    matrix("token_embd.weight", VOCAB, HIDDEN)
    for i in range(N_LAYERS):
        ones(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", HIDDEN, HIDDEN)
        matrix(f"blk.{i}.attn_k.weight", kv, HIDDEN)
        matrix(f"blk.{i}.attn_v.weight", kv, HIDDEN)
        matrix(f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN)
        ones(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", FFN, HIDDEN)
        matrix(f"blk.{i}.ffn_up.weight", FFN, HIDDEN)
        matrix(f"blk.{i}.ffn_down.weight", HIDDEN, FFN)
    ones("output_norm.weight")
    matrix("output.weight", VOCAB, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def copy_tokenizer(vocabulary: str, writer: gguf.GGUFWriter) -> None:
    """Copies every `tokenizer.*` key as it is."""
    for key, field in gguf.GGUFReader(vocabulary).fields.items():
        if not key.startswith("tokenizer."):
            continue
        kind, sub = field.types[0], field.types[-1]
        writer.add_key_value(key, field.contents(), kind, sub if kind == gguf.GGUFValueType.ARRAY else None)


if __name__ == "__main__":
    main(*sys.argv[1:])

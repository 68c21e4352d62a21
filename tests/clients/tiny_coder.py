"""A model of a few thousand random weights whose vocabulary has the tokens for filling holes."""

import hashlib
import json
import os
import random
import struct

NAME = "tiny-coder"
FIM = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"]


def byte_letters():
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(plain))
    return [letters[byte] for byte in range(256)]


def write(home):
    """Puts the model into the store at `home`."""
    vocabulary = {letter: i for i, letter in enumerate(byte_letters() + FIM)}
    hidden, inner, heads, layers = 32, 64, 4, 1
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(vocabulary),
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
        "eos_token_id": vocabulary["<|endoftext|>"], "bos_token_id": vocabulary["<|endoftext|>"],
    }
    special = [
        {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for token in FIM
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                  "merges": []},
    }
    square = {"q_proj": [hidden, hidden], "k_proj": [hidden, hidden], "v_proj": [hidden, hidden],
              "o_proj": [hidden, hidden]}
    shapes = {"model.embed_tokens.weight": [len(vocabulary), hidden], "lm_head.weight": [len(vocabulary), hidden],
              "model.norm.weight": [hidden]}
    for i in range(layers):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{name}.weight": shape for name, shape in square.items()}
        shapes |= {f"{layer}mlp.{name}.weight": [inner, hidden] for name in ("gate_proj", "up_proj")}
        shapes |= {f"{layer}mlp.down_proj.weight": [hidden, inner]}
        shapes |= {f"{layer}{name}.weight": [hidden] for name in ("input_layernorm", "post_attention_layernorm")}
    folder = os.path.join(home, "models", NAME)
    os.makedirs(folder)
    files = {"config.json": json.dumps(config).encode(), "tokenizer.json": json.dumps(tokenizer).encode(),
             "model.safetensors": safetensors(shapes)}
    listed = []
    for path, content in files.items():
        with open(os.path.join(folder, path), "wb") as file:
            file.write(content)
        listed.append({"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest = {"schema": 1, "name": NAME, "source": "a test", "licence": None, "licence_terms": None, "pulled_at": 1,
                "made_by": "a test", "files": listed}
    os.makedirs(os.path.join(home, "manifests"))
    with open(os.path.join(home, "manifests", NAME + ".json"), "w") as file:
        json.dump(manifest, file)


def safetensors(shapes):
    """Random tensors of these shapes; norms are 1."""
    random.seed(7)
    header, data = {}, bytearray()
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * n if len(shape) == 1 else [random.gauss(0, 0.3) for _ in range(n)]
        begin = len(data)
        data += struct.pack(f"<{n}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(data)

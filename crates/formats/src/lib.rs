//! Model files: GGUF, safetensors, PyTorch, llama2.c, Hugging Face directories.
#![forbid(unsafe_code)]

#![no_main]
//! The GGUF reader, on everything that begins with its magic.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| rhetor_fuzz::open([b"GGUF", data].concat()));

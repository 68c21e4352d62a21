#![no_main]
//! The reader of `tokenizer.json`; what it accepts must encode and decode a text without panic.

use libfuzzer_sys::fuzz_target;
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};

const TEXT: &str = "Hello, wörld 中文 \u{1f600}\n\n  12345 <s> it's\u{0}";

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json_bytes(data) else { return };
    for special in [Special::Parse, Special::Literal] {
        let ids = tokenizer.encode(TEXT, special);
        tokenizer.decode(&ids, ControlTokens::Show);
    }
});

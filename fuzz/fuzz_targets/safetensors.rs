#![no_main]
//! The safetensors reader: two bytes say where the header ends, so that the fuzzer need not find out.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let length = u64::from(u16::from_le_bytes(*length)).to_le_bytes();
    rhetor_fuzz::open([&length, rest].concat());
});

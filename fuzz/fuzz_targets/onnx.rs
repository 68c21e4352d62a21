#![no_main]
//! The ONNX reader: the file begins as one, so that the fuzzer need not find out.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    rhetor_fuzz::open([&[0x08, 0x07, 0x3a], data].concat());
});

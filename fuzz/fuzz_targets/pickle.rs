#![no_main]
//! The PyTorch reader: a zip archive as it is, anything else as root, keys and storages of the older layout.

use libfuzzer_sys::fuzz_target;

/// Magic, version and system, as `torch.save` writes them.
const HEAD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\0\0\0little_endian\x88s.";

fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"PK\x03\x04") {
        rhetor_fuzz::open(data.to_vec());
    } else {
        rhetor_fuzz::open([HEAD, data].concat());
    }
});

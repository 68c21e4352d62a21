//! What every fuzz target of a file format does with its bytes.

use std::path::Path;

use rhetor_formats::Checkpoint;

/// Opens the bytes; if they are accepted, touches everything that was promised. Neither may panic.
pub fn open(bytes: Vec<u8>) {
    let len = bytes.len();
    match Checkpoint::from_bytes(Path::new("fuzzed"), bytes) {
        Ok(checkpoint) => {
            for tensor in checkpoint.tensors() {
                assert!(tensor.n_bytes <= len, "a tensor is larger than its file");
                assert_eq!(checkpoint.bytes(tensor).len(), tensor.n_bytes);
                assert_eq!(tensor.dtype.bytes_of(&tensor.shape), Some(tensor.n_bytes));
                assert!(checkpoint.find(&tensor.name).is_some());
            }
            for (key, value) in checkpoint.metadata().iter() {
                assert!(checkpoint.metadata().contains(key));
                assert!(!value.to_string().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

//! Whatever the bytes: an error or a checkpoint whose every tensor has its bytes, and no panic.

mod onnx;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use rhetor_formats::{Array, Checkpoint, Kind, Metadata, Strings, TensorToWrite, gguf, safetensors};
use rhetor_kernels::DType;

/// Opens `bytes` and, if they are accepted, touches everything that was promised. Returns whether they were.
fn accepts(bytes: &[u8]) -> bool {
    match Checkpoint::from_bytes(Path::new("model"), bytes.to_vec()) {
        Ok(checkpoint) => {
            for tensor in checkpoint.tensors() {
                assert_eq!(checkpoint.bytes(tensor).len(), tensor.n_bytes);
                assert_eq!(tensor.dtype.bytes_of(&tensor.shape), Some(tensor.n_bytes));
                assert_eq!(checkpoint.find(&tensor.name), Some(tensor));
            }
            checkpoint.metadata().iter().for_each(|(_, value)| assert!(!value.to_string().is_empty()));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Small whole files of the five formats.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds);

fn seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", "llama");
    metadata.set("tokens", ["a", "bc"].into_iter().collect::<Strings>());
    metadata.set("nested", Array::Arrays(vec![Array::F32(vec![1.0])]));
    let tensors = [("a", vec![2, 3]), ("b", vec![4])].map(|(name, shape)| TensorToWrite {
        name: name.to_owned(),
        dtype: DType::F32.into(),
        shape,
    });
    gguf::write(&path, &metadata, &tensors, |i, out| out.write_all(&vec![1; [24, 16][i]])).unwrap();
    let gguf = fs::read(&path).unwrap();
    safetensors::write(&path, &[("format", "pt")], &tensors, |i, out| out.write_all(&vec![1; [24, 16][i]]))
        .unwrap();
    let safetensors = fs::read(&path).unwrap();
    let mut llama2c: Vec<u8> = [2i32, 1, 1, 1, 1, 1, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    llama2c.extend(vec![0; 4 * (2 + (4 + 8 + 8 + 6) + 2 + 2)]);
    // A legacy pickle: magic, version, system, an empty dict, no storages.
    let mut pickle = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    pickle.extend_from_slice(
        b"\x80\x02}X\x0d\0\0\0little_endian\x88s.\x80\x02ccollections\nOrderedDict\n)R.\x80\x02].",
    );
    vec![gguf, safetensors, llama2c, pickle, onnx::graph()]
}

#[test]
fn the_seeds_are_whole() {
    assert!(SEEDS.iter().all(|seed| accepts(seed)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0usize..6) {
        let magic: &[u8] = [&b""[..], b"\x08\x07\x3a", b"GGUF\x03\0\0\0", b"\x40\0\0\0\0\0\0\0{\"", b"\x80\x02", b"PK\x03\x04"][which];
        accepts(&[magic, &bytes].concat());
    }

    #[test]
    fn whole_files_with_changed_bytes_never_panic(
        which in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = SEEDS[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        accepts(&bytes);
    }
}

proptest! {
    // Every case syncs a file to the disk.
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_as_gguf_is_read_back(
        pairs in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
        dims in prop::collection::vec(prop::collection::vec(0usize..5, 0..5), 0..5),
    ) {
        let mut metadata = Metadata::default();
        for (key, value) in pairs {
            metadata.set(key, value);
        }
        let tensors: Vec<_> = dims
            .into_iter()
            .enumerate()
            .map(|(i, shape)| TensorToWrite { name: format!("t{i}"), dtype: DType::BF16.into(), shape })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let bytes = |i: usize| vec![i as u8; tensors[i].dtype.bytes_of(&tensors[i].shape).unwrap()];
        gguf::write(&path, &metadata, &tensors, |i, out| out.write_all(&bytes(i))).unwrap();
        let read = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(read.kind(), Kind::Gguf);
        prop_assert_eq!(read.metadata(), &metadata);
        for (i, (entry, tensor)) in read.tensors().iter().zip(&tensors).enumerate() {
            prop_assert_eq!((&entry.name, &entry.shape), (&tensor.name, &tensor.shape));
            prop_assert_eq!(read.bytes(entry), bytes(i));
        }
    }
}

fn value() -> impl Strategy<Value = rhetor_formats::TypedValue> {
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<i16>().prop_map(Into::into),
        any::<u32>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9f32..1e9).prop_map(Into::into),
        (-1e99f64..1e99).prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(|items| Array::U64(items).into()),
        prop::collection::vec(".{0,9}", 0..5)
            .prop_map(|items| Array::Strings(items.iter().map(String::as_str).collect()).into()),
    ]
}

#[test]
fn the_real_model_of_llama2c_opens_with_the_names_of_gguf() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260K/stories260K.bin");
    // A worktree lies one directory deeper than the main checkout.
    let deeper =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/stories260K/stories260K.bin");
    let Some(path) = [path, deeper].into_iter().find(|path| path.exists()) else {
        println!("skipped: ../shared/data/stories260K is missing");
        return;
    };
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.kind(), Kind::Llama2C);
    assert_eq!(checkpoint.metadata().require_u64("llama.block_count").unwrap(), 5);
    assert_eq!(checkpoint.find("token_embd.weight").unwrap().shape, [512, 64]);
    assert_eq!(checkpoint.find("blk.4.ffn_down.weight").unwrap().shape, [64, 172]);
    assert!(checkpoint.find("output.weight").is_none());
    let n: usize = checkpoint.tensors().iter().map(|tensor| tensor.n_bytes / 4).sum();
    assert_eq!(n, 260_032);
}

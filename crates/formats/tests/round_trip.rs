//! What is written is read back: metadata with its exact types, tensors with their bytes.

use std::fs;
use std::path::Path;

use rhetor_formats::{
    Array, Checkpoint, ElementType, Error, Kind, Metadata, Strings, TensorToWrite, gguf, safetensors,
};
use rhetor_kernels::DType;

fn tensor(name: &str, dtype: DType, shape: &[usize]) -> TensorToWrite {
    TensorToWrite { name: name.to_owned(), dtype: dtype.into(), shape: shape.to_vec() }
}

/// Distinct bytes for tensor `i`.
fn bytes_of(i: usize, tensor: &TensorToWrite) -> Vec<u8> {
    let n = tensor.dtype.bytes_of(&tensor.shape).unwrap();
    (0..n).map(|at| (at * 7 + i * 31) as u8).collect()
}

fn every_type() -> Metadata {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", "llama");
    metadata.set("u8", u8::MAX);
    metadata.set("i8", i8::MIN);
    metadata.set("u16", u16::MAX);
    metadata.set("i16", i16::MIN);
    metadata.set("u32", u32::MAX);
    metadata.set("i32", i32::MIN);
    metadata.set("u64", u64::MAX);
    metadata.set("i64", i64::MIN);
    metadata.set("f32", 1e-5f32);
    metadata.set("f64", 1e-300f64);
    metadata.set("bool", true);
    metadata.set("text", "café 中文");
    metadata.set("tokens", ["a", "", "中"].into_iter().collect::<Strings>());
    for (i, array) in [
        Array::U8(vec![1]),
        Array::I8(vec![-1]),
        Array::U16(vec![1, 2]),
        Array::I16(vec![-1]),
        Array::U32(vec![7]),
        Array::I32(vec![-7]),
        Array::U64(vec![u64::MAX]),
        Array::I64(vec![i64::MIN]),
        Array::F32(vec![0.5]),
        Array::F64(vec![]),
        Array::Bool(vec![true, false]),
        Array::Arrays(vec![Array::U8(vec![1]), Array::Arrays(vec![Array::Bool(vec![])])]),
    ]
    .into_iter()
    .enumerate()
    {
        metadata.set(format!("array.{i}"), array);
    }
    metadata
}

#[test]
fn a_gguf_file_keeps_every_metadata_type_and_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for alignment in [None, Some(8), Some(4096)] {
        let mut metadata = every_type();
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", alignment as u32);
        }
        let tensors = [
            tensor("token_embd.weight", DType::Q4K, &[3, 512]),
            tensor("blk.0.attn_norm.weight", DType::F32, &[5]),
            tensor("scalar", DType::F16, &[]),
            TensorToWrite { name: "ids".into(), dtype: ElementType::Other("i64"), shape: vec![2, 1, 3, 1] },
        ];
        gguf::write(&path, &metadata, &tensors, |i, out| out.write_all(&bytes_of(i, &tensors[i]))).unwrap();
        let read = Checkpoint::open(&path).unwrap();
        assert_eq!(read.kind(), Kind::Gguf);
        assert_eq!(*read.metadata(), metadata);
        assert_eq!(read.tensors().len(), tensors.len());
        for (i, (entry, tensor)) in read.tensors().iter().zip(&tensors).enumerate() {
            assert_eq!((&entry.name, entry.dtype, &entry.shape), (&tensor.name, tensor.dtype, &tensor.shape));
            assert_eq!(entry.offset % alignment.unwrap_or(32), 0);
            assert_eq!(read.bytes(entry), bytes_of(i, tensor));
            read.release(entry);
            assert_eq!(read.bytes(read.find(&tensor.name).unwrap()), bytes_of(i, tensor));
        }
    }
}

#[test]
fn a_safetensors_file_keeps_its_strings_and_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let tensors = [
        tensor("b", DType::BF16, &[3, 4]),
        tensor("a", DType::F32, &[]),
        tensor("empty", DType::F32, &[0, 4]),
        TensorToWrite { name: "mask".into(), dtype: ElementType::Other("bool"), shape: vec![9] },
    ];
    safetensors::write(&path, &[("format", "pt")], &tensors, |i, out| {
        out.write_all(&bytes_of(i, &tensors[i]))
    })
    .unwrap();
    let read = Checkpoint::open(&path).unwrap();
    assert_eq!(read.kind(), Kind::Safetensors);
    assert_eq!(read.metadata().require_str("format").unwrap(), "pt");
    for (i, tensor) in tensors.iter().enumerate() {
        let entry = read.find(&tensor.name).unwrap();
        assert_eq!((entry.dtype, &entry.shape), (tensor.dtype, &tensor.shape));
        assert_eq!(read.bytes(entry), bytes_of(i, tensor));
    }
}

#[test]
fn a_directory_with_shards_and_a_config_is_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, name: &str| {
        let tensors = [tensor(name, DType::F32, &[2])];
        safetensors::write(&dir.path().join(file), &[], &tensors, |_, out| out.write_all(name.as_bytes()))
            .unwrap();
    };
    write("model-00001-of-00002.safetensors", "a-tensor");
    write("model-00002-of-00002.safetensors", "b-tensor");
    let index = r#"{"metadata": {"total_size": 16}, "weight_map": {
        "a-tensor": "model-00001-of-00002.safetensors", "b-tensor": "model-00002-of-00002.safetensors"}}"#;
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    fs::write(dir.path().join("config.json"), r#"{"model_type": "llama", "rope_scaling": {"factor": 8}}"#)
        .unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"add_bos_token": true}"#).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("model.safetensors.index.json")] {
        let read = Checkpoint::open(&path).unwrap();
        assert_eq!(read.kind(), Kind::HuggingFace);
        assert_eq!(read.metadata().require_u64("rope_scaling.factor").unwrap(), 8);
        assert_eq!(read.bytes(read.find("b-tensor").unwrap()), b"b-tensor");
        assert_eq!(read.json("tokenizer_config.json").unwrap().unwrap()["add_bos_token"], true);
        assert!(read.file("tokenizer.json").is_none() && read.json("tokenizer.json").unwrap().is_none());
        assert!(read.file("../config.json").is_none());
    }
}

#[test]
fn a_directory_with_one_gguf_file_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    gguf::write(&dir.path().join("any.gguf"), &every_type(), &[], |_, _| Ok(())).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().kind(), Kind::Gguf);
    gguf::write(&dir.path().join("other.gguf"), &every_type(), &[], |_, _| Ok(())).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Directory { got, .. } if got == "any.gguf, other.gguf"));
}

#[test]
fn a_gguf_model_in_several_files_is_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let part = |i: u16| dir.path().join(format!("m-{:05}-of-00002.gguf", i + 1));
    let write_of = |total: i32, i: u16, path: &Path, name: &str| {
        let mut metadata = Metadata::default();
        metadata.set("split.no", i);
        metadata.set("split.count", 2u16);
        metadata.set("split.tensors.count", total);
        if i == 0 {
            metadata.set("general.architecture", "llama");
        }
        let tensors = [tensor(name, DType::F32, &[2])];
        gguf::write(path, &metadata, &tensors, |_, out| out.write_all(name.as_bytes())).unwrap();
    };
    let write = |i, path: &Path, name: &str| write_of(2, i, path, name);
    write(0, &part(0), "a-tensor");
    assert!(matches!(Checkpoint::open(&part(0)), Err(Error::Io { file, .. }) if file == part(1)));
    write(1, &part(1), "a-tensor");
    assert!(matches!(Checkpoint::open(&part(0)), Err(Error::Duplicate { .. })));
    write(0, &part(1), "b-tensor");
    assert!(matches!(Checkpoint::open(&part(0)), Err(Error::Invalid { got, .. }) if got == "part 0 of 2"));
    write(1, &part(1), "b-tensor");
    write_of(3, 0, &part(0), "a-tensor");
    assert!(matches!(Checkpoint::open(&part(0)), Err(Error::Invalid { got, .. }) if got == "2"));
    write(0, &part(0), "a-tensor");
    for path in [dir.path(), &part(0), &part(1)] {
        let read = Checkpoint::open(path).unwrap();
        assert_eq!(read.metadata().require_str("general.architecture").unwrap(), "llama");
        assert!(!read.metadata().contains("split.count"));
        assert_eq!(read.bytes(read.find("a-tensor").unwrap()), b"a-tensor");
        assert_eq!(read.bytes(read.find("b-tensor").unwrap()), b"b-tensor");
    }
    let renamed = dir.path().join("renamed.gguf");
    fs::rename(part(0), &renamed).unwrap();
    assert!(matches!(Checkpoint::open(&renamed), Err(Error::Invalid { .. })));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, "old").unwrap();
    let tensors = [tensor("t", DType::F32, &[2])];
    let error =
        gguf::write(&path, &Metadata::default(), &tensors, |_, out| out.write_all(&[0; 7])).unwrap_err();
    assert!(matches!(error, Error::WrongSize { expected: 8, got: 7, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_a_format_cannot_store_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let none = |_: usize, _: &mut dyn std::io::Write| Ok(());
    let quantized = [tensor("t", DType::Q8_0, &[32])];
    assert!(matches!(safetensors::write(&path, &[], &quantized, none), Err(Error::UnknownType { .. })));
    let cut = [tensor("t", DType::Q8_0, &[2, 16])];
    assert!(matches!(gguf::write(&path, &Metadata::default(), &cut, none), Err(Error::Invalid { .. })));
    let twice = [tensor("t", DType::F32, &[0]), tensor("t", DType::F32, &[0])];
    assert!(matches!(gguf::write(&path, &Metadata::default(), &twice, none), Err(Error::Duplicate { .. })));
    assert!(matches!(safetensors::write(&path, &[], &twice, none), Err(Error::Duplicate { .. })));
    let deep = [tensor("t", DType::F32, &[1, 1, 1, 1, 1])];
    assert!(matches!(gguf::write(&path, &Metadata::default(), &deep, none), Err(Error::Invalid { .. })));
    let mut mixed = Metadata::default();
    mixed.set("list", Array::Mixed(vec![]));
    assert!(matches!(gguf::write(&path, &mixed, &[], none), Err(Error::Invalid { .. })));
    assert!(matches!(gguf::write(Path::new("/"), &Metadata::default(), &[], none), Err(Error::Io { .. })));
    assert!(!path.exists());
}

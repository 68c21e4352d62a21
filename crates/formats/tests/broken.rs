//! A corpus of broken files, each refused with the error that names what is wrong and where.

use std::fs;
use std::path::Path;

use rhetor_formats::{Array, Checkpoint, Error, Metadata, TensorToWrite, gguf, safetensors};
use rhetor_kernels::DType;

fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::from_bytes(Path::new("model"), bytes.to_vec())
}

/// The message after the path.
fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err().to_string();
    error.strip_prefix("model: ").unwrap_or(&error).to_owned()
}

fn check(bytes: &[u8], expected: &str) {
    let got = refusal(bytes);
    assert_eq!(got, expected);
}

/// Writes GGUF by hand, right or wrong.
#[derive(Clone)]
struct Gguf(Vec<u8>);

impl Gguf {
    fn new(n_tensors: u64, n_pairs: u64) -> Gguf {
        Gguf(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
    }

    fn raw(mut self, bytes: &[u8]) -> Gguf {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, n: u32) -> Gguf {
        self.raw(&n.to_le_bytes())
    }

    fn u64(self, n: u64) -> Gguf {
        self.raw(&n.to_le_bytes())
    }

    fn text(self, text: &[u8]) -> Gguf {
        self.u64(text.len() as u64).raw(text)
    }

    /// A row of the table, dimensions in the order of the file.
    fn tensor(self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Gguf {
        let row = self.text(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(row, |row, dim| row.u64(*dim)).u32(dtype).u64(offset)
    }

    /// Aligns and appends `n` bytes of data.
    fn data(mut self, n: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 1);
        self.0
    }
}

/// A whole file with every structure in it.
fn whole_gguf() -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", "llama");
    metadata.set("n", 7u32);
    metadata.set("flag", true);
    metadata.set("tokens", ["a", "b"].into_iter().collect::<rhetor_formats::Strings>());
    metadata.set("nested", Array::Arrays(vec![Array::F32(vec![1.0]), Array::Bool(vec![true])]));
    let tensors = [("a", DType::F32, vec![3, 2]), ("b", DType::Q8_0, vec![32])]
        .map(|(name, dtype, shape)| TensorToWrite { name: name.to_owned(), dtype: dtype.into(), shape });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole");
    gguf::write(&path, &metadata, &tensors, |i, out| out.write_all(&vec![7; [24, 34][i]])).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_gguf_file_cut_anywhere_is_refused() {
    let whole = whole_gguf();
    // The padding after the last tensor may be missing: older writers left it out.
    let end = whole.len().next_multiple_of(32) - 32 + 2;
    assert!(open(&whole).is_ok() && open(&whole[..end]).is_ok());
    for len in 4..end {
        let error = open(&whole[..len]).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { .. } | Error::TooLarge { .. }),
            "cut to {len} bytes: {error}"
        );
    }
}

#[test]
fn gguf_versions_that_are_not_read_are_named() {
    let version = |bytes: [u8; 4]| [&b"GGUF"[..], &bytes, &[0; 16]].concat();
    let expected = "version at offset 4: unsupported: expected little-endian GGUF 2 or 3, got ";
    check(&version([0, 0, 0, 3]), &format!("{expected}a big-endian file"));
    check(
        &version([1, 0, 0, 0]),
        &format!("{expected}version 1 (32-bit lengths, 2023); convert the model anew"),
    );
    check(&version([4, 0, 0, 0]), &format!("{expected}version 4"));
    assert!(open(&version([2, 0, 0, 0])).is_ok());
}

#[test]
fn gguf_counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    check(
        &Gguf::new(u64::MAX, 0).0,
        "tensor count at offset 8: too large: expected at most 0, got 18446744073709551615",
    );
    check(
        &Gguf::new(0, 1 << 60).0,
        "metadata count at offset 16: too large: expected at most 0, got 1152921504606846976",
    );
    let key = Gguf::new(0, 1).u64(u64::MAX).raw(&[0; 20]);
    check(&key.0, "metadata key 0 at offset 24: too large: expected at most 20, got 18446744073709551615");
    for (item_type, size) in [(0u32, 1), (4, 4), (7, 1), (8, 8), (9, 12), (10, 8), (12, 8)] {
        let list = Gguf::new(0, 1).text(b"k").u32(9).u32(item_type).u64(1 << 40).raw(&[0; 24]);
        let most = 24 / size;
        let message = format!(
            "length of metadata key `k` at offset 41: too large: expected at most {most}, got 1099511627776"
        );
        check(&list.0, &message);
    }
}

#[test]
fn gguf_metadata_that_breaks_the_rules_is_refused() {
    let pair = |key: &[u8]| Gguf::new(0, 1).text(key);
    check(
        &pair(b"k").u32(13).u64(0).0,
        "type of metadata key `k` at offset 33: unknown type: expected 0 to 12, got 13",
    );
    check(
        &pair(b"k").u32(9).u32(99).u64(0).0,
        "item type of metadata key `k` at offset 37: unknown type: expected 0 to 12, got 99",
    );
    check(&pair(b"k").u32(7).raw(&[2]).0, "metadata key `k` at offset 37: expected 0 or 1, got 2");
    check(
        &pair(b"\xff\xfe").u32(7).raw(&[1]).0,
        "metadata key 0 at offset 32: expected UTF-8, got \u{fffd}\u{fffd}",
    );
    check(
        &pair(b"k").u32(8).text(b"ab\x80").0,
        "metadata key `k` at offset 45: expected UTF-8, got ab\u{fffd}",
    );
    // The second string is wrong by itself; the two halves of a character are right only together.
    let strings = pair(b"k").u32(9).u32(8).u64(2);
    check(
        &strings.clone().text(b"ok").text(b"\xff").0,
        "item 1 of metadata key `k` at offset 67: expected UTF-8, got \u{fffd}",
    );
    check(
        &strings.text(b"\xc3").text(b"\xa9").0,
        "item 0 of metadata key `k` at offset 57: expected UTF-8, got \u{fffd}",
    );
    let twice = Gguf::new(0, 2).text(b"k").u32(7).raw(&[1]).text(b"k").u32(7).raw(&[1]);
    check(&twice.0, "metadata key at offset 38: expected unique names, got `k` twice");
    // A list of one list of one list ...: as near to a cycle as a file can come.
    let deep = (0..1000).fold(pair(b"k").u32(9), |list, _| list.u32(9).u64(1));
    check(&deep.0, "metadata key `k` at offset 133: nested too deeply: expected at most 8 levels");
    for (alignment, got) in [(0, "0"), (24, "24"), (u32::MAX, "4294967295")] {
        let file = pair(b"general.alignment").u32(4).u32(alignment);
        check(
            &file.0,
            &format!("general.alignment at offset 0: expected a power of two up to 2^30, got {got}"),
        );
    }
    let text = pair(b"general.alignment").u32(8).text(b"32");
    check(&text.0, "metadata key `general.alignment`: expected a non-negative integer, got \"32\"");
}

#[test]
fn gguf_tensors_that_break_the_rules_are_refused() {
    let one = |dims: &[u64], dtype, offset| Gguf::new(1, 0).tensor("t", dims, dtype, offset).data(64);
    assert!(open(&one(&[4, 4], 0, 0)).is_ok());
    check(&one(&[1; 5], 0, 0), "shape of tensor `t` at offset 33: expected at most 4 dimensions, got 5");
    check(
        &one(&[4], 4, 0),
        "type of tensor `t` at offset 45: unknown type: expected a ggml type that is still in use, 0 to 39, got 4",
    );
    check(
        &one(&[33], 8, 0),
        "shape of tensor `t` at offset 33: expected rows of whole blocks (q8_0: 32) and no overflow, got [33]",
    );
    let overflow =
        "shape of tensor `t` at offset 33: expected rows of whole blocks (f32: 1) and no overflow, got ";
    check(&one(&[1 << 32, 1 << 32], 0, 0), &format!("{overflow}[4294967296, 4294967296]"));
    check(&one(&[0, 1 << 63, 4], 0, 0), &format!("{overflow}[4, 9223372036854775808, 0]"));
    check(&one(&[1 << 62], 0, 0), &format!("{overflow}[4611686018427387904]"));
    check(
        &one(&[4], 0, 7),
        "offset of tensor `t` at offset 49: expected a multiple of the alignment 32, got 7",
    );
    check(
        &one(&[4], 0, u64::MAX - 31),
        "offset of tensor `t` at offset 49: too large: expected at most 128, got 18446744073709551584",
    );
    check(
        &one(&[17], 0, 0),
        "data of tensor `t` at offset 64: the file is cut off: expected 68 bytes, got 64",
    );
    check(
        &one(&[4], 0, 1 << 40),
        "data of tensor `t` at offset 1099511627840: the file is cut off: expected 16 bytes, got 0",
    );
    let twice = Gguf::new(2, 0).tensor("t", &[4], 0, 0).tensor("t", &[4], 0, 32).data(64);
    check(&twice, "tensor name at offset 57: expected unique names, got `t` twice");
    let overlapping = Gguf::new(2, 0).tensor("t", &[9], 0, 0).tensor("u", &[8], 0, 32).data(64);
    check(
        &overlapping,
        "data of tensor `u` at offset 128: expected data of its own, got bytes that belong to `t`",
    );
    let name = Gguf::new(1, 0).text(b"\xc3").u32(0).u32(0).u64(0);
    check(&name.0, "name of tensor 0 at offset 32: expected UTF-8, got \u{fffd}");
}

fn safetensors_with(header: &str, n_data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &vec![0; n_data]].concat()
}

#[test]
fn safetensors_headers_that_break_the_rules_are_refused() {
    let json = |header: &str, expected: &str| {
        let error = open(&safetensors_with(header, 4)).unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && error.to_string().contains(expected), "{error}");
    };
    let row = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    assert!(open(&safetensors_with(&format!(r#"{{"t": {row}}}"#), 4)).is_ok());
    json(r#"{"t": 1}"#, "invalid type: integer `1`");
    json("{not json", "header at offset 9: expected an object of tensors");
    json(&row.replace("4]}", "4], \"extra\": 1}}").replacen('{', "{\"t\": {", 1), "unknown field `extra`");
    json(r#"{"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#, "invalid value: integer `-1`");
    json(
        r#"{"t": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}"#,
        "invalid type: floating point",
    );
    json(r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}"#, "at line 1");
    json(r#"{"t": {"dtype": "F32", "dtype": "F16"}}"#, "duplicate field `dtype`");
    json(r#"{"t": {"dtype": "F32", "shape": [1]}}"#, "missing field `data_offsets`");
    json(r#"{"__metadata__": {"a": 1}}"#, "invalid type: integer `1`, expected a string");
    json(r#"{"__metadata__": {"a": "1", "a": "2"}}"#, "key `a` twice");
    json(r#"{"__metadata__": {}, "__metadata__": {}}"#, "duplicate field `__metadata__`");
    // JSON bombs: deep where depth is allowed nowhere, and a number that is none.
    json(&format!(r#"{{"t": {}"#, "[".repeat(100_000)), "invalid type: sequence");
    json(&format!(r#"{{"t": {}"#, "{\"a\":".repeat(100_000)), "unknown field `a`");
    json(r#"{"t": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}"#, "number out of range");
}

#[test]
fn safetensors_that_break_the_rules_are_refused() {
    let row = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{start}, {end}]}}"#)
    };
    let one = |dtype, shape, start, end| {
        safetensors_with(&format!("{{{}}}", row("t", dtype, shape, start, end)), 8)
    };
    assert!(open(&one("F32", "[2]", 0, 8)).is_ok());
    check(
        &one("Q4", "[2]", 0, 8),
        "header of tensor `t` at offset 8: unknown type: expected F64, F32, F16, BF16, F8_*, I64 to I8, U64 to U8, \
         BOOL or C64, got Q4",
    );
    check(
        &one("F32", "[3]", 0, 8),
        "header of tensor `t` at offset 8: expected 12 bytes for f32 [3], got data_offsets [0, 8]",
    );
    check(
        &one("F32", "[2]", 8, 0),
        "header of tensor `t` at offset 8: expected 8 bytes for f32 [2], got data_offsets [8, 0]",
    );
    check(
        &one("F32", "[4294967296, 4294967296]", 0, 8),
        "header of tensor `t` at offset 8: expected a shape without overflow, got [4294967296, 4294967296]",
    );
    check(
        &one("F32", "[0]", u64::MAX, u64::MAX),
        "data of tensor `t` at offset 18446744073709551615: the file is cut off: expected 0 bytes, got 0",
    );
    check(
        &one("F32", "[4]", 0, 16),
        "data of tensor `t` at offset 70: the file is cut off: expected 16 bytes, got 8",
    );
    check(
        &one("F32", "[1]", 0, 4),
        "end of data at offset 73: expected the end of the file, got 4 bytes that belong to no tensor",
    );
    check(
        &one("F32", "[1]", 4, 8),
        "data of tensor `t` at offset 73: expected data from offset 69, got a hole of 4 bytes before it",
    );
    let two = |a, b| safetensors_with(&format!("{{{a}, {b}}}"), 8);
    let twice = two(row("t", "F32", "[1]", 0, 4), row("t", "F32", "[1]", 4, 8));
    check(&twice, "header at offset 8: expected unique names, got `t` twice");
    let overlapping = two(row("t", "F32", "[2]", 0, 8), row("u", "F32", "[1]", 4, 8));
    check(
        &overlapping,
        "data of tensor `u` at offset 134: expected data of its own, got bytes that belong to `t`",
    );
    let mut long = one("F32", "[2]", 0, 8);
    long[..8].copy_from_slice(&100_000_001u64.to_le_bytes());
    check(&long, "header length at offset 0: too large: expected at most 100000000, got 100000001");
    long[..8].copy_from_slice(&1000u64.to_le_bytes());
    check(&long, "header at offset 8: the file is cut off: expected 1000 bytes, got 69");
    let mut not_text = one("F32", "[2]", 0, 8);
    not_text[10] = 0xff;
    assert!(matches!(open(&not_text), Err(Error::Json { .. })));
}

#[test]
fn a_safetensors_file_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole");
    let tensors = [TensorToWrite { name: "t".to_owned(), dtype: DType::F32.into(), shape: vec![2] }];
    safetensors::write(&path, &[("format", "pt")], &tensors, |_, out| out.write_all(&[0; 8])).unwrap();
    let whole = fs::read(path).unwrap();
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "cut to {len} bytes");
    }
}

/// A directory with an index and one good shard.
fn directory(index: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tensors = [TensorToWrite { name: "t".to_owned(), dtype: DType::F32.into(), shape: vec![1] }];
    let shard = dir.path().join("shard.safetensors");
    safetensors::write(&shard, &[], &tensors, |_, out| out.write_all(&[0; 4])).unwrap();
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    dir
}

#[test]
fn an_index_that_leads_elsewhere_or_lies_is_refused() {
    let open = |index: &str| Checkpoint::open(directory(index).path());
    assert!(open(r#"{"weight_map": {"t": "shard.safetensors"}}"#).is_ok());
    for name in [
        "../shard.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "..",
        ".",
        "",
        "c:x",
        "./shard.safetensors",
        "a\\u0000",
    ] {
        let error = open(&format!(r#"{{"weight_map": {{"t": "{name}"}}}}"#)).unwrap_err();
        assert!(matches!(error, Error::UnsafePath { .. }), "{name}: {error}");
    }
    let missing = open(r#"{"weight_map": {"t": "other.safetensors"}}"#).unwrap_err();
    assert!(matches!(missing, Error::Io { file, .. } if file.ends_with("other.safetensors")));
    let error = open(r#"{"weight_map": {"t": "shard.safetensors", "u": "shard.safetensors"}}"#).unwrap_err();
    assert!(
        error.to_string().ends_with("expected tensor `u` in `shard.safetensors`, got no such tensor"),
        "{error}"
    );
    let error = open(r#"{"weight_map": {"t": "shard.safetensors", "t": "shard.safetensors"}}"#).unwrap_err();
    assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("key `t` twice"));
    assert!(matches!(open("{}"), Err(Error::Json { .. })));
    assert!(matches!(open(&"[".repeat(1 << 20)), Err(Error::Json { .. })));
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = directory(r#"{"weight_map": {"t": "shard.safetensors", "u": "copy.safetensors"}}"#);
    fs::copy(dir.path().join("shard.safetensors"), dir.path().join("copy.safetensors")).unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(Error::Duplicate { got, .. }) if got == "t"));
}

#[test]
fn a_broken_config_is_refused() {
    let dir = directory(r#"{"weight_map": {"t": "shard.safetensors"}}"#);
    let with = |config: &[u8]| {
        fs::write(dir.path().join("config.json"), config).unwrap();
        Checkpoint::open(dir.path()).unwrap_err()
    };
    assert!(matches!(with(b"{"), Error::Json { .. }));
    assert!(matches!(with(b"[1]"), Error::Json { .. }));
    assert!(matches!(with(b"{\"a\": \"\xff\"}"), Error::Utf8 { place, .. } if place.offset == 7));
    assert!(matches!(with("{\"a\":".repeat(1 << 20).as_bytes()), Error::Json { .. }));
    assert!(matches!(with(b"{\"a.b\": 1, \"a\": {\"b\": 1}}"), Error::Duplicate { .. }));
    let large = fs::File::create(dir.path().join("config.json")).unwrap();
    large.set_len(1 << 40).unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(Error::TooLarge { .. })));
}

#[test]
fn what_is_often_saved_in_place_of_a_model_has_its_own_message() {
    assert!(matches!(open(b""), Err(Error::Empty { .. })));
    assert!(matches!(open(b"\n <!DOCTYPE html><html>"), Err(Error::WebPage { .. })));
    assert!(matches!(open(b"<?xml version='1.0'?><Error>"), Err(Error::WebPage { .. })));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 98362432\n";
    let error = open(pointer).unwrap_err();
    assert!(matches!(&error, Error::LfsPointer { got, .. } if got == "98362432 bytes"), "{error}");
    for magic in [&b"lmgg"[..], b"fmgg", b"tjgg", b"algg", b"24ka"] {
        assert!(matches!(open(&[magic, &[1; 60]].concat()), Err(Error::Unsupported { .. })));
    }
    let error = open(b"\x89PNG\r\n\x1a\n....").unwrap_err().to_string();
    assert!(error.ends_with("got first bytes \"\\x89PNG\\r\\n\\x1a\\n\""), "{error}");
    assert!(matches!(open(b"{\"a\": 1}"), Err(Error::Unrecognized { .. })));
    assert!(matches!(Checkpoint::open(Path::new("no/such/file")), Err(Error::Io { action: "open", .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(empty.path()), Err(Error::Directory { .. })));
}

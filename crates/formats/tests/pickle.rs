//! PyTorch checkpoints: read as `torch.save` writes them, and nothing else.

use std::io::{Cursor, Write};
use std::path::Path;

use rhetor_formats::{Checkpoint, ElementType, Error, Kind};
use rhetor_kernels::DType;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes opcodes of protocol 2 as Python's pickler does, without the memo, which nobody must use.
#[derive(Clone, Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    fn raw(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    fn int(self, n: i32) -> Pickle {
        self.raw(b"J").raw(&n.to_le_bytes())
    }

    fn text(self, text: &str) -> Pickle {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    fn global(self, module: &str, name: &str) -> Pickle {
        self.raw(b"c").raw(format!("{module}\n{name}\n").as_bytes())
    }

    fn ints(self, values: &[i32]) -> Pickle {
        values.iter().fold(self.raw(b"("), |pickle, n| pickle.int(*n)).raw(b"t")
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())`.
    fn tensor(self, storage: (&str, &str, i32), offset: i32, shape: &[i32], strides: &[i32]) -> Pickle {
        let (class, key, n) = storage;
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", class)
            .text(key)
            .text("cpu")
            .int(n)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    /// `OrderedDict` of what `fill` puts between MARK and SETITEMS, with the `_metadata` that `state_dict()` adds.
    fn dict(self, fill: impl FnOnce(Pickle) -> Pickle) -> Pickle {
        let pickle = fill(self.global("collections", "OrderedDict").raw(b")R(")).raw(b"u");
        pickle.raw(b"}").text("_metadata").global("collections", "OrderedDict").raw(b")Rsb")
    }

    fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

type Part<'a> = (&'a str, &'a [u8]);

fn zip(parts: &[Part], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in parts {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn stored(pickle: &[u8], storages: &[Part]) -> Vec<u8> {
    let mut parts = vec![("archive/data.pkl", pickle), ("archive/byteorder", b"little")];
    parts.extend_from_slice(storages);
    zip(&parts, CompressionMethod::Stored)
}

fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::from_bytes(Path::new("pytorch_model.bin"), bytes.to_vec())
}

fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err().to_string();
    error.split_once("pytorch_model.bin: ").map_or(error.clone(), |(_, rest)| rest.to_owned())
}

const FOUR: &[u8] = &[1, 0, 2, 0, 3, 0, 4, 0];

#[test]
fn a_zip_of_torch_save_gives_its_tensors_in_place_or_in_order() {
    let half = ("HalfStorage", "0", 4);
    let pickle = Pickle::new().dict(|pickle| {
        let pickle = pickle.text("a").tensor(half, 0, &[2, 2], &[2, 1]);
        let pickle = pickle.text("transposed").tensor(half, 0, &[2, 2], &[1, 2]);
        let pickle = pickle.text("last").tensor(half, 3, &[1, 1], &[7, 9]);
        let pickle = pickle.text("none").tensor(half, 0, &[0, 5], &[5, 1]);
        let pickle = pickle.text("every_second").tensor(half, 1, &[2], &[2]);
        let pickle = pickle.text("ids").tensor(("LongStorage", "1", 1), 0, &[], &[]);
        // nn.Parameter, as models saved whole have them.
        let pickle = pickle.text("parameter").global("torch._utils", "_rebuild_parameter").raw(b"(");
        let pickle = pickle.tensor(half, 0, &[4], &[1]).raw(b"\x88").global("collections", "OrderedDict");
        pickle.raw(b")RtR").text("epoch").int(3)
    });
    let checkpoint =
        open(&stored(&pickle.stop(), &[("archive/data/0", FOUR), ("archive/data/1", &[9; 8])])).unwrap();
    assert_eq!(checkpoint.kind(), Kind::PyTorch);
    assert_eq!(checkpoint.metadata().require_u64("epoch").unwrap(), 3);
    let bytes = |name: &str| checkpoint.bytes(checkpoint.find(name).unwrap());
    assert_eq!(bytes("a"), FOUR);
    assert_eq!(bytes("transposed"), [1, 0, 3, 0, 2, 0, 4, 0]);
    assert_eq!(bytes("last"), [4, 0]);
    assert!(bytes("none").is_empty());
    assert_eq!(bytes("every_second"), [2, 0, 4, 0]);
    assert_eq!(bytes("parameter"), FOUR);
    let ids = checkpoint.find("ids").unwrap();
    assert_eq!((ids.dtype, checkpoint.bytes(ids)), (ElementType::Other("i64"), &[9u8; 8][..]));
    assert_eq!(checkpoint.find("a").unwrap().dtype, ElementType::Known(DType::F16));
}

#[test]
fn the_dict_state_dict_is_read_and_what_lies_beside_it_is_not() {
    let inner = |pickle: Pickle| pickle.text("w").tensor(("FloatStorage", "0", 2), 0, &[2], &[1]);
    let pickle = Pickle::new().raw(b"}(").text("state_dict").dict(inner).text("optimizer").raw(b"]u").stop();
    let checkpoint = open(&stored(&pickle, &[("archive/data/0", FOUR)])).unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    assert_eq!(checkpoint.bytes(checkpoint.find("w").unwrap()), FOUR);
    let pickle = Pickle::new().raw(b"}(").text("model").dict(inner).raw(b"u").stop();
    let checkpoint = open(&stored(&pickle, &[("archive/data/0", FOUR)])).unwrap();
    assert!(checkpoint.find("model.w").is_some());
}

/// The layout before PyTorch 1.6.
fn legacy(root: Pickle, keys: &[&str], storages: &[u8]) -> Vec<u8> {
    let magic =
        Pickle::new().raw(&[0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]).stop();
    let version = Pickle::new().int(1001).stop();
    let system = Pickle::new().raw(b"}").text("little_endian").raw(b"\x88s").stop();
    let keys = keys.iter().fold(Pickle::new().raw(b"]("), |pickle, key| pickle.text(key)).raw(b"e").stop();
    [magic, version, system, root.stop(), keys, storages.to_vec()].concat()
}

#[test]
fn a_file_of_before_zip_archives_is_read_too() {
    let root = Pickle::new().dict(|pickle| pickle.text("w").tensor(("FloatStorage", "94", 2), 0, &[2], &[1]));
    let storages = [&2u64.to_le_bytes()[..], FOUR].concat();
    let checkpoint = open(&legacy(root.clone(), &["94"], &storages)).unwrap();
    assert_eq!(checkpoint.bytes(checkpoint.find("w").unwrap()), FOUR);
    let cut = legacy(root.clone(), &["94"], &storages[..12]);
    assert_eq!(refusal(&cut).split(" at").next(), Some("storage 94"));
    assert!(
        refusal(&legacy(root.clone(), &["95"], &storages))
            .contains("expected a key that a tensor uses, got \"95\"")
    );
    assert!(refusal(&legacy(root, &[], &[])).contains("expected a storage `94`, got none"));
    assert!(
        refusal(&Pickle::new().int(5).stop()).contains("expected what torch.save writes, got a pickle of 5")
    );
}

#[test]
fn a_pickle_that_would_run_code_is_refused_by_name() {
    let system = Pickle::new().global("posix", "system").raw(b"(").text("true").raw(b"tR").stop();
    let check = |pickle: Vec<u8>, expected: &str| {
        let bytes = stored(&pickle, &[("archive/data/0", FOUR)]);
        assert!(matches!(open(&bytes), Err(Error::Forbidden { .. })));
        assert!(refusal(&bytes).contains(expected), "{}", refusal(&bytes));
    };
    check(system, "the global `posix.system`; refused, since loading it would run code");
    check(Pickle::new().global("builtins", "eval").stop(), "`builtins.eval`");
    check(Pickle::new().text("os").text("system").raw(b"\x93").stop(), "`os.system`");
    check(
        Pickle::new().global("numpy.core.multiarray", "_reconstruct").stop(),
        "`numpy.core.multiarray._reconstruct`",
    );
    check(Pickle::new().raw(b"(ios\nsystem\n").stop(), "opcode INST");
    check(Pickle::new().global("torch", "Size").raw(b")\x81").stop(), "opcode NEWOBJ");
    check(Pickle::new().raw(b"\x82\x01").stop(), "opcode EXT");
    check(Pickle::new().text("f").raw(b")R").stop(), "a call of \"f\"");
    check(
        Pickle::new().global("torch", "Size").raw(b"}b").stop(),
        "a state (a dict of 0) for the global Size",
    );
    check(Pickle::new().raw(b"I01\n").stop(), "opcode of protocol 0");
}

#[test]
fn a_pickle_that_lies_about_its_tensors_is_refused() {
    let with = |storage, offset, shape: &[i32], strides: &[i32]| {
        let pickle =
            Pickle::new().dict(|pickle| pickle.text("w").tensor(storage, offset, shape, strides)).stop();
        refusal(&stored(&pickle, &[("archive/data/0", FOUR)]))
    };
    let half = ("HalfStorage", "0", 4);
    assert!(with(half, 0, &[5], &[1]).contains("expected at most 4, got 5"));
    assert!(with(half, 1, &[4], &[1]).contains("expected at most 4, got 5"));
    assert!(with(half, i32::MAX, &[0], &[1]).contains("expected at most 4, got 2147483647"));
    assert!(with(half, -1, &[1], &[1]).contains("expected the arguments of torch.save"));
    assert!(with(half, 0, &[2], &[1, 1]).contains("expected the arguments of torch.save"));
    assert!(with(half, 0, &[1; 17], &[1; 17]).contains("expected the arguments of torch.save"));
    assert!(with(half, 0, &[i32::MAX; 4], &[0; 4]).contains("a shape without overflow"));
    assert!(with(half, 0, &[1 << 30], &[0]).contains("expected elements of its own, got [1073741824]"));
    assert!(
        with(("HalfStorage", "0", 5), 0, &[1], &[1])
            .contains("expected 5 elements of f16 in its storage, got 8 bytes")
    );
    assert!(
        with(("HalfStorage", "7", 4), 0, &[1], &[1]).contains("expected an entry `archive/data/7`, got none")
    );
    assert!(with(("HalfStorage", "../x", 4), 0, &[1], &[1]).contains("got none"));
    assert!(with(("QUInt8Storage", "0", 4), 0, &[1], &[1]).contains("the global `torch.QUInt8Storage`"));
}

#[test]
fn a_broken_pickle_is_refused_at_its_offset() {
    let check = |pickle: Vec<u8>, expected: &str| {
        let got = refusal(&stored(&pickle, &[]));
        assert!(got.contains(expected), "{got}");
    };
    check(Pickle::new().0, "opcode at offset");
    check(Pickle::new().stop(), "an object on the stack");
    check(Pickle::new().raw(b"h\x05").stop(), "expected a number that was memoized, got 5");
    check(Pickle::new().raw(b"t").stop(), "an object on the stack");
    check(Pickle::new().raw(b"N(0").stop(), "an object on the stack");
    check(Pickle::new().raw(b"NN\x87").stop(), "an object on the stack");
    check(Pickle::new().raw(b"N(\x85").stop(), "an object on the stack");
    check(Pickle::new().raw(b"}(Nu").stop(), "expected pairs of key and value, got 1 objects");
    check(Pickle::new().raw(b"NNa").stop(), "expected a list to append to, got None");
    check(Pickle::new().raw(b"X\xff\xff\xff\xff").stop(), "cut off: expected 4294967295 bytes");
    check(Pickle::new().raw(b"X\x01\0\0\0\xff").stop(), "expected UTF-8");
    check(Pickle::new().raw(b"c").raw(&[b'a'; 300]).stop(), "a name of at most 256 bytes");
    check(vec![0x80, 9, b'.'], "expected protocol 2 to 5, got protocol 9");
    check(Pickle::new().raw(b"]").stop(), "expected a dict of tensors, got a list of 0");
    check(Pickle::new().raw(b"}").int(1).raw(b"Ns").stop(), "expected text, got 1");
    check(Pickle::new().raw(b"}").text("a").raw(b"]s").stop(), "got a list of 0");
    check(Pickle::new().raw(b"}").text("a").raw(b"Ns.").stop(), "got None");
    check(
        Pickle::new().raw(b"}").text("a").int(1).raw(b"s").text("a").int(2).raw(b"s").stop(),
        "got `a` twice",
    );
}

#[test]
fn a_dict_that_holds_itself_or_grows_without_end_is_refused() {
    // d = {}; d["a"] = d
    let cyclic = Pickle::new().raw(b"}q\0").text("a").raw(b"h\0s").stop();
    assert!(matches!(open(&stored(&cyclic, &[])), Err(Error::TooDeep { .. })));
    // Seven levels, each holding the one below thirty times: 30^7 names.
    let mut bomb = Pickle::new().raw(b"}q\0").text("x").int(1).raw(b"s0");
    for level in 0..7u8 {
        bomb = bomb.raw(&[b'}', b'q', level + 1, b'(']);
        for i in 0..30 {
            bomb = bomb.text(&i.to_string()).raw(&[b'h', level]);
        }
        bomb = bomb.raw(b"u0");
    }
    let bomb = bomb.raw(b"h\x07").stop();
    assert!(matches!(open(&stored(&bomb, &[])), Err(Error::TooLarge { .. })));
    let objects = Pickle::new().raw(&b")0".repeat(5_000_000)).raw(b"}").stop();
    assert!(matches!(open(&stored(&objects, &[])), Err(Error::TooLarge { .. })));
}

#[test]
fn an_archive_that_could_grow_or_is_no_checkpoint_is_refused() {
    let pickle =
        Pickle::new().dict(|pickle| pickle.text("w").tensor(("FloatStorage", "0", 2), 0, &[2], &[1])).stop();
    let parts: [Part; 2] = [("archive/data.pkl", &pickle), ("archive/data/0", FOUR)];
    assert!(
        refusal(&zip(&parts, CompressionMethod::Deflated))
            .contains("plain entries, as of torch.save, got Deflated")
    );
    assert!(refusal(&zip(&parts[1..], CompressionMethod::Stored)).contains("expected `data.pkl` of PyTorch"));
    let big_endian = [parts[0], parts[1], ("archive/byteorder", b"big")];
    assert!(refusal(&zip(&big_endian, CompressionMethod::Stored)).contains("expected little, got big"));
    let whole = zip(&parts, CompressionMethod::Stored);
    for len in 4..whole.len() {
        assert!(open(&whole[..len]).is_err(), "cut to {len} bytes");
    }
    assert!(refusal(&whole[..whole.len() / 2]).contains("is the download complete?"));
}

/// Found by fuzzing: an empty entry whose local header claims a name longer than the file.
#[test]
fn an_empty_entry_that_begins_beyond_the_file_is_refused() {
    let mut bytes = stored(b"", &[]);
    // The high byte of the length of the name in the first local header.
    bytes[27] = 0x80;
    assert!(refusal(&bytes).contains("cut off: expected 0 bytes, got 0"), "{}", refusal(&bytes));
}

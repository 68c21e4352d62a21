//! All types against ggml's bytes, and against bytes that no one should trust.

use super::*;
use proptest::prelude::*;

/// One record of `fixtures/quant/golden.bin`; the README beside it describes the file.
struct Record {
    dtype: DType,
    weighted: bool,
    bytes: Vec<u8>,
    hash: u64,
}

struct Golden {
    values: Vec<f32>,
    importance: Vec<f32>,
    records: Vec<Record>,
}

fn golden() -> Golden {
    let mut rest = &include_bytes!("../../fixtures/quant/golden.bin")[..];
    let mut take = |n: usize| rest.split_off(..n).unwrap();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let floats =
        |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>();
    let (n_rows, row_len) = (word(take(4)) as usize, word(take(4)) as usize);
    let (values, importance) = (floats(take(4 * n_rows * row_len)), floats(take(4 * row_len)));
    let records = (0..26)
        .map(|_| {
            let dtype = DType::from_ggml_id(word(take(4))).unwrap();
            let weighted = word(take(4)) == 1;
            let n_bytes = word(take(4)) as usize;
            let bytes = take(n_bytes).to_vec();
            Record { dtype, weighted, bytes, hash: u64::from_le_bytes(take(8).try_into().unwrap()) }
        })
        .collect();
    assert!(rest.is_empty());
    Golden { values, importance, records }
}

fn fnv1a(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(14_695_981_039_346_656_037, |hash, b| (hash ^ u64::from(b)).wrapping_mul(1_099_511_628_211))
}

#[test]
fn every_type_has_its_place_in_the_table() {
    assert!(CODECS.iter().map(|codec| codec.dtype).eq(DType::all()));
}

#[test]
fn quantised_bytes_are_those_of_ggml() {
    let golden = golden();
    for record in &golden.records {
        let importance = record.weighted.then_some(&golden.importance[..]);
        let mut bytes = vec![0xaa; record.bytes.len()];
        quantize(record.dtype, &golden.values, importance, &mut bytes);
        let size = record.dtype.block_bytes();
        for (i, (ours, theirs)) in bytes.chunks(size).zip(record.bytes.chunks(size)).enumerate() {
            let len = record.dtype.block_len();
            let values = &golden.values[i * len..(i + 1) * len];
            assert_eq!(
                ours, theirs,
                "block {i} of {} (weighted: {}): {values:?}",
                record.dtype, record.weighted
            );
        }
    }
}

#[test]
fn dequantised_values_are_those_of_ggml_to_the_bit() {
    let golden = golden();
    let mut values = vec![0.0; golden.values.len()];
    for record in &golden.records {
        dequantize(record.dtype, &record.bytes, &mut values);
        assert_eq!(fnv1a(&values), record.hash, "{} (weighted: {})", record.dtype, record.weighted);
    }
}

#[test]
fn every_instruction_set_makes_the_same_blocks() {
    // Straight calls of the paths: forcing an instruction set would change it for other tests.
    fn check<const LEN: usize, B: Block<LEN>>(golden: &Golden, record: &Record) {
        let importance = record.weighted.then_some(&golden.importance[..]);
        let mut bytes = vec![0; record.bytes.len()];
        quantize_rows(&golden.values, importance, blocks_mut::<LEN, B>(&mut bytes));
        assert_eq!(bytes, record.bytes, "scalar {}", record.dtype);
        #[cfg(target_arch = "x86_64")]
        if Isa::Avx2.is_available() {
            // SAFETY: the CPU has AVX2.
            unsafe { quantize_avx2(&golden.values, importance, blocks_mut::<LEN, B>(&mut bytes)) };
            assert_eq!(bytes, record.bytes, "AVX2 {}", record.dtype);
        }
    }
    let golden = golden();
    for record in &golden.records {
        match record.dtype {
            DType::F32 | DType::F16 | DType::BF16 => {}
            DType::Q4_0 => check::<32, BlockQ4_0>(&golden, record),
            DType::Q4_1 => check::<32, BlockQ4_1>(&golden, record),
            DType::Q5_0 => check::<32, BlockQ5_0>(&golden, record),
            DType::Q5_1 => check::<32, BlockQ5_1>(&golden, record),
            DType::Q8_0 => check::<32, BlockQ8_0>(&golden, record),
            DType::Q2K => check::<256, BlockQ2K>(&golden, record),
            DType::Q3K => check::<256, BlockQ3K>(&golden, record),
            DType::Q4K => check::<256, BlockQ4K>(&golden, record),
            DType::Q5K => check::<256, BlockQ5K>(&golden, record),
            DType::Q6K => check::<256, BlockQ6K>(&golden, record),
            DType::Iq4Nl => check::<32, BlockIq4Nl>(&golden, record),
        }
    }
}

#[test]
fn an_empty_tensor_is_no_work() {
    for dtype in DType::all() {
        quantize(dtype, &[], None, &mut []);
        quantize(dtype, &[], Some(&[]), &mut []);
        dequantize(dtype, &[], &mut []);
    }
}

#[test]
#[should_panic(expected = "bytes of 256 values of q4_k")]
fn a_buffer_of_the_wrong_size_is_named() {
    dequantize(DType::Q4K, &[0; 143], &mut [0.0; 256]);
}

#[test]
#[should_panic(expected = "a row of 48 values cuts a block of q8_0")]
fn importance_that_cuts_a_block_is_named() {
    quantize(DType::Q8_0, &[0.0; 96], Some(&[1.0; 48]), &mut [0; 102]);
}

/// Floats of any bits, half of them special.
fn hostile_float() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        prop::sample::select(vec![
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            1e-45,
            0.0,
            -0.0
        ]),
    ]
}

proptest! {
    #[test]
    fn any_bytes_dequantise_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 1024)) {
        for dtype in DType::all() {
            let n_blocks = bytes.len() / dtype.block_bytes();
            let mut values = vec![0.0; n_blocks * dtype.block_len()];
            dequantize(dtype, &bytes[..n_blocks * dtype.block_bytes()], &mut values);
        }
    }

    #[test]
    fn any_values_quantise_without_a_panic(values in prop::collection::vec(hostile_float(), 512)) {
        for dtype in DType::all() {
            let mut bytes = vec![0; dtype.bytes_of(values.len()).unwrap()];
            quantize(dtype, &values, None, &mut bytes);
            quantize(dtype, &values, Some(&values[..256]), &mut bytes);
        }
    }

    #[test]
    fn quantised_values_are_within_a_level_of_the_values(values in prop::collection::vec(-1f32..1.0, 256)) {
        // Half the distance of levels over a range of 2, and as much again for quantised scales.
        let bounds = [
            (DType::F16, 0.0005), (DType::BF16, 0.004), (DType::Q8_0, 0.0045), (DType::Q6K, 0.04), (DType::Q5_1, 0.04),
            (DType::Q5_0, 0.07), (DType::Q4_1, 0.07), (DType::Q4_0, 0.13), (DType::Q5K, 0.08), (DType::Q4K, 0.15),
            (DType::Iq4Nl, 0.2), (DType::Q3K, 0.35), (DType::Q2K, 0.7),
        ];
        for (dtype, bound) in bounds {
            let mut bytes = vec![0; dtype.bytes_of(values.len()).unwrap()];
            quantize(dtype, &values, None, &mut bytes);
            let mut back = vec![0.0; values.len()];
            dequantize(dtype, &bytes, &mut back);
            for (x, y) in values.iter().zip(&back) {
                prop_assert!((x - y).abs() <= bound, "{dtype}: {x} became {y}");
            }
        }
    }
}

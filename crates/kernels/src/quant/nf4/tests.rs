//! NF4 against what bitsandbytes wrote.

use super::*;
use crate::isa::Isa;
use crate::testing::noise;

/// Tensors of `fixtures/nf4/nf4.safetensors`; the README beside it names them.
pub(crate) struct Golden {
    header: &'static str,
    data: &'static [u8],
}

pub(crate) fn golden() -> Golden {
    let file: &'static [u8] = include_bytes!("../../../fixtures/nf4/nf4.safetensors");
    let (len, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    Golden { header: std::str::from_utf8(header).unwrap(), data }
}

impl Golden {
    /// The bytes of a tensor, found by the plain form that the file's header has.
    pub(crate) fn bytes(&self, name: &str) -> &'static [u8] {
        let (_, entry) =
            self.header.split_once(&format!("\"{name}\":{{")).unwrap_or_else(|| panic!("no {name}"));
        let (_, offsets) = entry.split_once("\"data_offsets\":[").unwrap();
        let (offsets, _) = offsets.split_once(']').unwrap();
        let (start, end) = offsets.split_once(',').unwrap();
        &self.data[start.parse().unwrap()..end.parse().unwrap()]
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

const CASES: [&str; 4] = ["grid", "randn", "odd", "zeros"];

#[test]
fn the_codes_are_those_of_bitsandbytes() {
    assert!(golden().floats("nf4.code") == NF4);
    assert!(golden().floats("fp4.code").iter().zip(FP4).all(|(a, b)| a.to_bits() == b.to_bits() || *a == b));
}

#[test]
fn indices_scales_and_values_are_those_of_bitsandbytes_to_the_bit() {
    let golden = golden();
    for case in CASES {
        let values = golden.floats(&format!("{case}.input"));
        for block_len in [64, 128] {
            let name = |what: &str| format!("{case}.bs{block_len}.sq.{what}");
            let blocks = quantize(&values, block_len);
            assert_eq!(blocks.indices(), golden.bytes(&name("packed")), "{case} {block_len}");
            assert_eq!(*blocks.scales(), Scales::Plain(golden.floats(&name("absmax"))), "{case} {block_len}");
            let mut out = vec![9.0; values.len()];
            blocks.dequantize(&mut out);
            assert_eq!(out, golden.floats(&name("dequant")), "{case} {block_len}");
        }
    }
}

#[test]
fn double_quantised_scales_are_those_of_bitsandbytes() {
    let golden = golden();
    for case in CASES {
        let values = golden.floats(&format!("{case}.input"));
        for block_len in [64, 128] {
            let name = |what: &str| format!("{case}.bs{block_len}.dq.{what}");
            let theirs = Scales::Double {
                codes: golden.bytes(&name("absmax")).to_vec(),
                nested: golden.floats(&name("nested_absmax")),
                offset: golden.floats(&name("offset"))[0],
            };
            let blocks = quantize(&values, block_len).double_quantized();
            let (Scales::Double { codes, nested, offset }, Scales::Double { codes: c, nested: n, offset: o }) =
                (blocks.scales(), &theirs)
            else {
                panic!("scales are quantised");
            };
            // Means are summed in another order.
            assert!((offset - o).abs() <= 1e-7 * o.abs().max(1.0), "{case} {block_len}: {offset} {o}");
            assert!(
                (nested[0] - n[0]).abs() <= 2e-7 * o.abs().max(1.0),
                "{case} {block_len}: {nested:?} {n:?}"
            );
            // Of a single block nothing is left but the mean; its code is any.
            assert!(codes == c || n[0] < 1e-6, "{case} {block_len}: {codes:?} {c:?}");
            // Their bytes are read to the bit.
            let indices = golden.bytes(&name("packed")).to_vec();
            let read = Nf4Blocks::new(FourBitCode::Nf4, values.len(), block_len, indices, theirs);
            let mut out = vec![9.0; values.len()];
            read.dequantize(&mut out);
            assert_eq!(out, golden.floats(&name("dequant")), "{case} {block_len}");
        }
    }
}

#[test]
fn fp4_is_read_to_the_bit() {
    let golden = golden();
    let expected = golden.floats("fp4.grid.dequant");
    let scales = Scales::Plain(golden.floats("grid.bs64.sq.absmax"));
    let indices = golden.bytes("fp4.grid.packed").to_vec();
    let blocks = Nf4Blocks::new(FourBitCode::Fp4, expected.len(), 64, indices, scales);
    let mut out = vec![9.0; expected.len()];
    blocks.dequantize(&mut out);
    assert_eq!(out, expected);
}

#[test]
fn every_instruction_set_reads_any_part_and_writes_the_same_bytes() {
    let values = noise(1003, 1);
    let blocks = quantize(&values, 64).double_quantized();
    let mut all = vec![9.0; values.len()];
    blocks.dequantize(&mut all);
    for isa in Isa::available() {
        for (first, n) in
            [(0, 0), (0, 1), (1, 1), (63, 2), (1, 1002), (64, 64), (65, 200), (130, 31), (7, 33)]
        {
            let mut out = vec![9.0; n];
            read_values(isa, &blocks, first, &mut out);
            assert!(out == all[first..first + n], "{} {first} {n}", isa.name());
        }
        let (mut indices, mut scales) = (vec![0x77; 502], vec![0.0; 16]);
        quantize_blocks(isa, &values, 64, &mut indices, &mut scales);
        assert!(indices == blocks.indices());
    }
}

#[test]
fn a_weight_takes_4127_thousandths_of_a_bit_and_its_rows_cut_blocks() {
    let weight = Nf4::quantize(512, 1024, &noise(512 * 1024, 1));
    let bits = weight.blocks().n_bytes() as f64 * 8.0 / (512.0 * 1024.0);
    assert!((bits - 4.127).abs() < 1e-3, "{bits}");
    let values = noise(9 * 37, 2);
    let weight = Nf4::quantize(9, 37, &values);
    let mut all = vec![0.0; values.len()];
    weight.blocks().dequantize(&mut all);
    for row in 0..9 {
        let mut out = vec![9.0; 37];
        weight.read(row, &mut out);
        assert_eq!(out, all[row * 37..][..37]);
    }
    // The widest gap of the code is 0.304 of a block's scale.
    assert!(values.iter().zip(&all).all(|(x, y)| (x - y).abs() < 0.153 * 2.0 + 0.05));
}

#[test]
fn numbers_that_are_none_do_not_panic() {
    let mut values = noise(130, 1);
    (values[3], values[70], values[129]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let mut out = vec![0.0; 130];
    quantize(&values, 64).double_quantized().dequantize(&mut out);
    quantize(&[], 64).double_quantized().dequantize(&mut []);
}

//! The loop in which a prompt spends its time, in assembly: [`unpacked_sums`](crate::matmul::kernel::unpacked_sums) for
//! two groups and six tokens (four, where a block has two scales).
//!
//! It says no more than the generic function and gives the same bits; but here every sum keeps its register and the
//! products of a step stand together. Compilers spill some and mix the steps, which costs a fifth of the speed.
//!
//! Registers of `whole`: 0..12 integer sums (group 0: 0..6), 12..24 float sums, 24 and 25 weights, scales or minima of
//! the two groups, 26 an activation. Of `halves`: 0..8, 8..16 products of the block, 16..24 float sums, the rest alike.

use crate::matmul::kernel::{Pair, UNPACKED_CODES, UNPACKED_FACTORS, WIDTH};

/// Loads the two groups' vectors at an offset from a pair of pointers.
macro_rules! load_pair {
    ($at:literal, $next:literal, $offset:expr) => {
        concat!(
            "vmovups zmm24, [",
            $at,
            " + ",
            $offset,
            "]\n",
            "vmovups zmm25, [",
            $at,
            " + ",
            $next,
            " + ",
            $offset,
            "]\n",
        )
    };
}

/// One vector of codes times four bytes of each token.
macro_rules! step {
    ($j:literal, $(($t:literal $p:literal $q:literal))*) => {
        concat!(
            load_pair!("{codes}", "{next_codes}", concat!("64*", $j)),
            $(
                "vpbroadcastd zmm26, dword ptr [{acts} + 32*", $t, " + 4*", $j, "]\n",
                "vpdpbusd zmm", $p, ", zmm24, zmm26\n",
                "vpdpbusd zmm", $q, ", zmm25, zmm26\n",
            )*
        )
    };
}

/// Integer sums begin with the offset's part, or, where there are minima, with nothing.
macro_rules! begin {
    (offsets $at:literal, $(($t:literal $p:literal $q:literal))*) => {
        concat!($(
            "vpbroadcastd zmm", $p, ", dword ptr [{factors} + ", $at, " + 4*", $t, "]\n",
            "vmovdqa64 zmm", $q, ", zmm", $p, "\n",
        )*)
    };
    (zeros $at:literal, $(($t:literal $p:literal $q:literal))*) => {
        concat!($(
            "vpxord zmm", $p, ", zmm", $p, ", zmm", $p, "\n",
            "vpxord zmm", $q, ", zmm", $q, ", zmm", $q, "\n",
        )*)
    };
}

/// Float sums plus minima times the sums of activations.
macro_rules! minima {
    ($scales:literal, $factors:literal, $(($t:literal $p:literal $q:literal))*) => {
        concat!(
            load_pair!("{scales}", "{next_scales}", $scales),
            $(
                "vbroadcastss zmm26, dword ptr [{factors} + ", $factors, " + 4*", $t, "]\n",
                "vfmadd231ps zmm", $p, ", zmm24, zmm26\n",
                "vfmadd231ps zmm", $q, ", zmm25, zmm26\n",
            )*
        )
    };
}

/// Zeros, the loop over the blocks, and the stores.
macro_rules! kernel {
    ($name:ident, [$($block:expr),* $(,)?], [$($sum:literal)*]) => {
        /// Writes the sums of group 0 for each token, then those of group 1.
        ///
        /// # Safety
        /// The pointers of `pair` cover what its count says, `out` has room, and the CPU has AVX-512 and VNNI.
        #[target_feature(enable = "avx512f,avx512vnni")]
        pub(super) unsafe fn $name(pair: &Pair, out: *mut f32) {
            // SAFETY: the caller's promise; every vector register that is written is declared.
            unsafe {
                std::arch::asm!(
                    $(concat!("vpxord zmm", $sum, ", zmm", $sum, ", zmm", $sum),)*
                    "2:",
                    $($block,)*
                    "add {codes}, {codes_step}",
                    "add {scales}, {scales_step}",
                    "add {acts}, {acts_step}",
                    "add {factors}, {factors_step}",
                    "dec {n}",
                    "jnz 2b",
                    $(concat!("vmovups [{out}], zmm", $sum, "\nadd {out}, 64"),)*
                    codes = inout(reg) pair.codes[0] => _,
                    next_codes = in(reg) pair.codes[1] as usize - pair.codes[0] as usize,
                    scales = inout(reg) pair.scales[0] => _,
                    next_scales = in(reg) pair.scales[1] as usize - pair.scales[0] as usize,
                    acts = inout(reg) pair.acts => _,
                    factors = inout(reg) pair.factors => _,
                    n = inout(reg) pair.n_steps => _,
                    out = inout(reg) out => _,
                    codes_step = const UNPACKED_CODES,
                    scales_step = const UNPACKED_FACTORS,
                    acts_step = const 32 * WIDTH,
                    factors_step = const 12 * WIDTH,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                    out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _,
                    out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _,
                    out("zmm22") _, out("zmm23") _, out("zmm24") _, out("zmm25") _, out("zmm26") _,
                    options(nostack)
                );
            }
        }
    };
}

/// The eight steps of a block with one scale, and its part of the float sums.
macro_rules! whole_block {
    ($begin:ident) => {
        concat!(
            begin!($begin "48", (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(0, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(1, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(2, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(3, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(4, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(5, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(6, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            step!(7, (0 0 6)(1 1 7)(2 2 8)(3 3 9)(4 4 10)(5 5 11)),
            load_pair!("{scales}", "{next_scales}", "0"),
            scaled!((0 0 6 12 18)(1 1 7 13 19)(2 2 8 14 20)(3 3 9 15 21)(4 4 10 16 22)(5 5 11 17 23)),
        )
    };
}

/// Float sums plus integer sums times the scales of weights and activations.
macro_rules! scaled {
    ($(($t:literal $p:literal $q:literal $x:literal $y:literal))*) => {
        concat!($(
            "vbroadcastss zmm26, dword ptr [{factors} + 4*", $t, "]\n",
            "vcvtdq2ps zmm", $p, ", zmm", $p, "\n",
            "vcvtdq2ps zmm", $q, ", zmm", $q, "\n",
            "vmulps zmm", $p, ", zmm", $p, ", zmm24\n",
            "vmulps zmm", $q, ", zmm", $q, ", zmm25\n",
            "vfmadd231ps zmm", $x, ", zmm", $p, ", zmm26\n",
            "vfmadd231ps zmm", $y, ", zmm", $q, ", zmm26\n",
        )*)
    };
}

kernel!(whole, [whole_block!(offsets)], [12 13 14 15 16 17 18 19 20 21 22 23]);
kernel!(
    whole_mins,
    [whole_block!(zeros), minima!("128", "48", (0 12 18)(1 13 19)(2 14 20)(3 15 21)(4 16 22)(5 17 23))],
    [12 13 14 15 16 17 18 19 20 21 22 23]
);

/// The eight steps of a block with two scales, and its part of the float sums.
macro_rules! halves_block {
    ($begin:ident) => {
        concat!(
            begin!($begin "48", (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(0, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(1, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(2, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(3, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            load_pair!("{scales}", "{next_scales}", "0"),
            first_half!((0 8 24)(1 9 24)(2 10 24)(3 11 24)(4 12 25)(5 13 25)(6 14 25)(7 15 25)),
            begin!($begin "96", (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(4, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(5, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(6, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            step!(7, (0 0 4)(1 1 5)(2 2 6)(3 3 7)),
            load_pair!("{scales}", "{next_scales}", "64"),
            second_half!((0 8 24)(1 9 24)(2 10 24)(3 11 24)(4 12 25)(5 13 25)(6 14 25)(7 15 25)),
            products!((0 8 12 16 20)(1 9 13 17 21)(2 10 14 18 22)(3 11 15 19 23)),
        )
    };
}

/// Products of the first half: integer sums times scales.
macro_rules! first_half {
    ($(($i:literal $p:literal $scale:literal))*) => {
        concat!($(
            "vcvtdq2ps zmm", $p, ", zmm", $i, "\n",
            "vmulps zmm", $p, ", zmm", $p, ", zmm", $scale, "\n",
        )*)
    };
}

/// Plus those of the second half.
macro_rules! second_half {
    ($(($i:literal $p:literal $scale:literal))*) => {
        concat!($(
            "vcvtdq2ps zmm", $i, ", zmm", $i, "\n",
            "vfmadd231ps zmm", $p, ", zmm", $i, ", zmm", $scale, "\n",
        )*)
    };
}

/// Float sums plus products times the scales of activations.
macro_rules! products {
    ($(($t:literal $p:literal $q:literal $x:literal $y:literal))*) => {
        concat!($(
            "vbroadcastss zmm26, dword ptr [{factors} + 4*", $t, "]\n",
            "vfmadd231ps zmm", $x, ", zmm", $p, ", zmm26\n",
            "vfmadd231ps zmm", $y, ", zmm", $q, ", zmm26\n",
        )*)
    };
}

kernel!(halves, [halves_block!(offsets)], [16 17 18 19 20 21 22 23]);
kernel!(
    halves_mins,
    [
        halves_block!(zeros),
        minima!("128", "48", (0 16 20)(1 17 21)(2 18 22)(3 19 23)),
        minima!("192", "96", (0 16 20)(1 17 21)(2 18 22)(3 19 23)),
    ],
    [16 17 18 19 20 21 22 23]
);

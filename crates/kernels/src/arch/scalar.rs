//! Portable Rust: sixteen lanes in arrays.

use super::Simd;
use crate::half::{bf16_to_f32, f16_to_f32};

/// Sixteen lanes without any instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline]
fn each<T: Copy, U: Copy + Default>(x: [T; 16], f: impl Fn(T) -> U) -> [U; 16] {
    std::array::from_fn(|i| f(x[i]))
}

#[inline]
fn zip<T: Copy, U: Copy>(x: [T; 16], y: [U; 16], f: impl Fn(T, U) -> T) -> [T; 16] {
    std::array::from_fn(|i| f(x[i], y[i]))
}

// SAFETY of the pointers: the trait's contract says how many bytes may be read and written.
impl Simd for Scalar {
    type I = [u32; 16];
    type F = [f32; 16];
    const LANES: usize = 16;

    #[inline]
    unsafe fn load(from: *const u8) -> [u32; 16] {
        // SAFETY: 64 bytes may be read.
        unsafe { from.cast::<[u32; 16]>().read_unaligned() }
    }

    #[inline]
    unsafe fn load_i8(from: *const u8) -> [u32; 16] {
        // SAFETY: 16 bytes may be read.
        each(unsafe { from.cast::<[i8; 16]>().read_unaligned() }, |x| i32::from(x) as u32)
    }

    #[inline]
    unsafe fn load_f16(from: *const u8) -> [f32; 16] {
        // SAFETY: 32 bytes may be read.
        each(unsafe { from.cast::<[u16; 16]>().read_unaligned() }, f16_to_f32)
    }

    #[inline]
    unsafe fn load_f32(from: *const u8) -> [f32; 16] {
        // SAFETY: 64 bytes may be read.
        unsafe { from.cast::<[f32; 16]>().read_unaligned() }
    }

    #[inline]
    unsafe fn store(to: *mut u8, x: [u32; 16]) {
        // SAFETY: 64 bytes may be written.
        unsafe { to.cast::<[u32; 16]>().write_unaligned(x) }
    }

    #[inline]
    unsafe fn store_f32(to: *mut f32, x: [f32; 16]) {
        // SAFETY: 64 bytes may be written.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(x) }
    }

    #[inline]
    unsafe fn load_table(from: *const u8) -> [u32; 16] {
        // SAFETY: 16 bytes may be read.
        let table = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
        std::array::from_fn(|i| table[i % 4])
    }

    #[inline]
    unsafe fn splat(x: u32) -> [u32; 16] {
        [x; 16]
    }

    #[inline]
    unsafe fn splat_f32(x: f32) -> [f32; 16] {
        [x; 16]
    }

    #[inline]
    unsafe fn and(x: [u32; 16], y: [u32; 16]) -> [u32; 16] {
        zip(x, y, |x, y| x & y)
    }

    #[inline]
    unsafe fn add_i32(x: [u32; 16], y: [u32; 16]) -> [u32; 16] {
        zip(x, y, u32::wrapping_add)
    }

    #[inline]
    unsafe fn or_masked(x: [u32; 16], y: [u32; 16], mask: [u32; 16]) -> [u32; 16] {
        std::array::from_fn(|i| x[i] | y[i] & mask[i])
    }

    #[inline]
    unsafe fn shl<const N: u32>(x: [u32; 16]) -> [u32; 16] {
        each(x, |x| x << N)
    }

    #[inline]
    unsafe fn shr<const N: u32>(x: [u32; 16]) -> [u32; 16] {
        each(x, |x| x >> N)
    }

    #[inline]
    unsafe fn look_up(table: [u32; 16], index: [u32; 16]) -> [u32; 16] {
        let byte = |i: u8| table[usize::from(i) / 4].to_le_bytes()[usize::from(i) % 4];
        each(index, |index| u32::from_le_bytes(index.to_le_bytes().map(|i| byte(i & 15))))
    }

    #[inline]
    unsafe fn dot(sum: [u32; 16], w: [u32; 16], a: *const u8) -> [u32; 16] {
        // SAFETY: 4 bytes may be read.
        let a = unsafe { a.cast::<[i8; 4]>().read() };
        zip(sum, w, |sum, w| {
            let w = w.to_le_bytes();
            (0..4).fold(sum, |sum, i| sum.wrapping_add((i32::from(w[i]) * i32::from(a[i])) as u32))
        })
    }

    #[inline]
    unsafe fn dot_wide(sum: [u32; 16], w: [u32; 16], a: *const u8) -> [u32; 16] {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, w, a) }
    }

    #[inline]
    unsafe fn dot_bf16(sum: [f32; 16], w: [u32; 16], a: *const u8) -> [f32; 16] {
        // SAFETY: 4 bytes may be read.
        let a = unsafe { a.cast::<[u16; 2]>().read_unaligned() }.map(bf16_to_f32);
        zip(sum, w, |sum, w| sum + f32::from_bits(w << 16) * a[0] + f32::from_bits(w & 0xffff_0000) * a[1])
    }

    #[inline]
    unsafe fn to_f32(x: [u32; 16]) -> [f32; 16] {
        each(x, |x| x as i32 as f32)
    }

    #[inline]
    unsafe fn mul(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        zip(x, y, |x, y| x * y)
    }

    #[inline]
    unsafe fn add(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        zip(x, y, |x, y| x + y)
    }

    #[inline]
    unsafe fn mul_add(x: [f32; 16], y: [f32; 16], z: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| x[i] * y[i] + z[i])
    }

    #[inline]
    unsafe fn prefetch(_at: *const u8) {}
}

crate::matmul::entries!(Scalar, features: [], packed: [1], unpacked: [1], halves: [1], dense: [1]);

//! A vector of f32 lanes as operations see it, and the one dispatch that compiles a body for each instruction set.
//!
//! A body is a function generic over [`Vector`]. [`per_isa!`] makes a function of it that takes an [`Isa`] and
//! runs the body inside a function with that set's target features, where everything is inlined. Lanes are
//! independent in all but the `reduce` operations, so an element's result depends neither on its lane nor on
//! the number of lanes.
//!
//! [`Isa`]: crate::isa::Isa

/// `LANES` numbers of type f32.
///
/// # Safety
///
/// Every method may only be called where the CPU has the implementing type's instructions; [`per_isa!`] sees to
/// that, and nothing else calls bodies.
pub(crate) unsafe trait Vector: Copy {
    /// Numbers in the vector; a power of two, at most 16.
    const LANES: usize;
    /// All lanes `x`.
    fn splat(x: f32) -> Self;
    /// Reads `LANES` numbers at `p`.
    ///
    /// # Safety
    ///
    /// `p` points to that many readable numbers, at any alignment.
    unsafe fn load(p: *const f32) -> Self;
    /// Reads `LANES` f16 numbers at `p`, exactly.
    ///
    /// # Safety
    ///
    /// As for `load`.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Reads `LANES` bytes with sign at `p`, exactly.
    ///
    /// # Safety
    ///
    /// As for `load`.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// Reads `LANES` bytes at `p` as twice as many indices of `table`, each byte's high half first.
    ///
    /// # Safety
    ///
    /// As for `load`.
    unsafe fn look_up_nibbles(table: &[f32; 16], p: *const u8) -> [Self; 2];
    /// Writes `LANES` numbers to `p`.
    ///
    /// # Safety
    ///
    /// `p` points to that many writable numbers, at any alignment.
    unsafe fn store(self, p: *mut f32);
    /// Swaps rows and columns of the first `LANES` vectors.
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        let mut lanes = [[0f32; 16]; 16];
        // SAFETY: LANES is at most 16.
        unsafe {
            (0..Self::LANES).for_each(|i| rows[i].store(lanes[i].as_mut_ptr()));
            for (i, row) in rows.iter_mut().enumerate().take(Self::LANES) {
                let column: [f32; 16] = std::array::from_fn(|j| lanes[j][i]);
                *row = Self::load(column.as_ptr());
            }
        }
    }
    /// Asks for the cache line at `p`, whatever it points to.
    fn prefetch(p: *const u8);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// `self * b + c`; rounded once where the set has FMA.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self > other ? self : other`: `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`: `other` if either is NaN.
    fn min(self, other: Self) -> Self;
    /// Rounded to the nearest integer, ties to even.
    fn round(self) -> Self;
    /// 2^n for lanes that are integers in -126..=127; anything for others.
    fn exp2_of_integer(self) -> Self;
    /// |self|.
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copy_sign(self, sign: Self) -> Self;
    /// Where `self < limit`, `a`, elsewhere (NaN too) `b`.
    fn select_less(self, limit: Self, a: Self, b: Self) -> Self;
    /// The sum of the lanes, neighbours at distance LANES/2 first, then LANES/4 and so on.
    fn reduce_add(self) -> f32;
    /// The greatest lane.
    fn reduce_max(self) -> f32;

    /// Reads from the front of `x`; lanes past its end are `fill`.
    #[inline(always)]
    fn load_slice(x: &[f32], fill: f32) -> Self {
        if x.len() >= Self::LANES {
            // SAFETY: the slice holds LANES numbers.
            unsafe { Self::load(x.as_ptr()) }
        } else {
            let mut lanes = [fill; 16];
            lanes[..x.len()].copy_from_slice(x);
            // SAFETY: LANES is at most 16.
            unsafe { Self::load(lanes.as_ptr()) }
        }
    }

    /// Writes to the front of `x`, as many lanes as it has room for.
    #[inline(always)]
    fn store_slice(self, x: &mut [f32]) {
        if x.len() >= Self::LANES {
            // SAFETY: the slice holds LANES numbers.
            unsafe { self.store(x.as_mut_ptr()) }
        } else {
            let mut lanes = [0f32; 16];
            // SAFETY: LANES is at most 16.
            unsafe { self.store(lanes.as_mut_ptr()) };
            x.copy_from_slice(&lanes[..x.len()]);
        }
    }
}

/// The lanes of `x` from `i` on; those past its end are 0.
#[inline(always)]
pub(crate) fn at<V: Vector>(x: &[f32], i: usize) -> V {
    V::load_slice(&x[i..], 0.0)
}

/// Eight lanes in portable Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Portable(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn reduce(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let x = self.0;
        let x = [f(x[0], x[4]), f(x[1], x[5]), f(x[2], x[6]), f(x[3], x[7])];
        f(f(x[0], x[2]), f(x[1], x[3]))
    }
}

// SAFETY: needs no instruction that the CPU could lack.
unsafe impl Vector for Portable {
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Portable(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Portable(unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(crate::half::f16_to_f32))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller's promise.
        Portable(unsafe { p.cast::<[i8; 8]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn look_up_nibbles(table: &[f32; 16], p: *const u8) -> [Self; 2] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { p.cast::<[u8; 8]>().read_unaligned() };
        let half = |i: usize| table[usize::from((bytes[i / 2] >> (4 * (1 - i % 2))) & 15)];
        [Portable(std::array::from_fn(half)), Portable(std::array::from_fn(|i| half(i + 8)))]
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn prefetch(_p: *const u8) {}
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        self.map(|n| f32::from_bits((((n as i32).clamp(-127, 128) + 127) as u32) << 23))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        self.zip(sign, f32::copysign)
    }
    #[inline(always)]
    fn select_less(self, limit: Self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| if self.0[i] < limit.0[i] { a.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        self.reduce(|a, b| a + b)
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        self.reduce(|a, b| if a > b { a } else { b })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use super::{vector_avx2::Avx2, vector_avx512::Avx512};

/// Makes a function `name(isa, arguments...)` of the body `body::<V: Vector>(arguments...)`.
///
/// Panics if the CPU lacks `isa`, which neither `isa::active` nor `Isa::available` ever gives.
macro_rules! per_isa {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name(isa: $crate::isa::Isa, $($argument: $type),*) $(-> $result)? {
            use $crate::{arch::vector as v, isa::Isa};
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                $body::<v::Avx512>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                $body::<v::Avx2>($($argument),*)
            }
            debug_assert!(isa.is_available(), "this CPU has no {}", isa.name());
            match isa {
                // SAFETY: the caller took `isa` from `active` or `available`, which give only what the CPU has.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 | Isa::Avx2Vnni => unsafe { avx2($($argument),*) },
                _ => $body::<v::Portable>($($argument),*),
            }
        }
    };
}
pub(crate) use per_isa;

/// The sums of the terms, an array of so many vectors, for i = 0, LANES, 2 · LANES, .. below `n`, over all
/// lanes.
///
/// A macro, since a closure that is called in several places would not be inlined, and its vectors no
/// registers.
macro_rules! sums {
    ($vector:ident, $count:literal, $n:expr, |$i:ident| $terms:expr) => {{
        let n: usize = $n;
        let mut chains = [[$vector::splat(0.0); $count]; 4];
        let mut begin = 0;
        while begin + 4 * $vector::LANES <= n {
            for (k, chain) in chains.iter_mut().enumerate() {
                let $i = begin + k * $vector::LANES;
                let terms = $terms;
                for (sum, term) in chain.iter_mut().zip(terms) {
                    *sum = $vector::add(*sum, term);
                }
            }
            begin += 4 * $vector::LANES;
        }
        while begin < n {
            let $i = begin;
            let terms = $terms;
            for (sum, term) in chains[0].iter_mut().zip(terms) {
                *sum = $vector::add(*sum, term);
            }
            begin += $vector::LANES;
        }
        let [a, b, c, d] = chains;
        std::array::from_fn::<f32, $count, _>(|j| a[j].add(b[j]).add(c[j].add(d[j])).reduce_add())
    }};
}
pub(crate) use sums;

//! Which instruction set the kernels use, chosen once at start from what the CPU has.

use std::sync::atomic::{AtomicU8, Ordering};

/// The instruction sets that kernels are written for, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with AVX-VNNI (`vpdpbusd` on 256 bits).
    Avx2Vnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI and BF16.
    Avx512Vnni,
}

const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx2Vnni, Isa::Avx512, Isa::Avx512Vnni];

/// 255 = not chosen yet.
static ACTIVE: AtomicU8 = AtomicU8::new(255);

impl Isa {
    /// Name as the user types it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx2Vnni => "avx2-vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match self {
                Isa::Scalar => true,
                Isa::Avx2 => avx2,
                Isa::Avx2Vnni => avx2 && has!("avxvnni"),
                Isa::Avx512 => avx512,
                Isa::Avx512Vnni => avx512 && has!("avx512vnni") && has!("avx512bf16"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Scalar
        }
    }

    /// Every instruction set that this CPU can run, weakest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        ALL.into_iter().filter(|isa| isa.is_available())
    }
}

/// The instruction set in use: the strongest available, unless [`force`] chose another.
pub fn active() -> Isa {
    match ACTIVE.load(Ordering::Relaxed) {
        255 => {
            let best = Isa::available().last().unwrap_or(Isa::Scalar);
            ACTIVE.store(best as u8, Ordering::Relaxed);
            best
        }
        index => ALL[index as usize],
    }
}

/// Chooses `isa` for the whole process; false if this CPU cannot run it. Call it before any weight is packed.
pub fn force(isa: Isa) -> bool {
    let available = isa.is_available();
    if available {
        ACTIVE.store(isa as u8, Ordering::Relaxed);
    }
    available
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_sets() {
        for (i, isa) in ALL.into_iter().enumerate() {
            assert_eq!(isa as usize, i);
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert!(Isa::Scalar.is_available());
    }
}

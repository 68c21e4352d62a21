//! First values of an adapter's parameters: a pure function of seed, name and element.

/// A number for `name`, to tell the random numbers of one place from those of another (FNV-1a, 64 bits).
pub(crate) fn place(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Word `i` of a stream (SplitMix64: Steele et al., "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
fn word(stream: u64, i: u64) -> u64 {
    let mut z = stream.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn stream(seed: u64, name: &str) -> u64 {
    word(seed, 0) ^ place(name)
}

/// In 0..1, 53 bits.
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// `n` numbers, uniform in −bound..bound.
pub(crate) fn uniform(seed: u64, name: &str, n: usize, bound: f32) -> Vec<f32> {
    let stream = stream(seed, name);
    (0..n as u64).map(|i| ((unit(word(stream, i)) * 2.0 - 1.0) * f64::from(bound)) as f32).collect()
}

/// `n` numbers, normal with mean 0 (the method of Box and Muller, 1958).
pub(crate) fn normal(seed: u64, name: &str, n: usize, deviation: f32) -> Vec<f32> {
    let stream = stream(seed, name);
    let draw = |i: u64| {
        let radius = (-2.0 * (1.0 - unit(word(stream, 2 * i))).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(word(stream, 2 * i + 1));
        (radius * angle.cos() * f64::from(deviation)) as f32
    };
    (0..n as u64).map(draw).collect()
}

/// `n` indices below `below`.
pub(crate) fn indices(seed: u64, name: &str, n: usize, below: usize) -> Vec<usize> {
    let stream = stream(seed, name);
    (0..n as u64).map(|i| (unit(word(stream, i)) * below as f64) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_and_name_alone_and_have_the_moments_asked_for() {
        assert_eq!(uniform(1, "a", 8, 1.0), uniform(1, "a", 8, 1.0));
        assert_ne!(uniform(1, "a", 8, 1.0), uniform(2, "a", 8, 1.0));
        assert_ne!(uniform(1, "a", 8, 1.0), uniform(1, "b", 8, 1.0));
        let moments = |x: &[f32]| {
            let n = x.len() as f32;
            let mean = x.iter().sum::<f32>() / n;
            (mean, (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n).sqrt())
        };
        let (mean, deviation) = moments(&normal(3, "n", 20_000, 0.5));
        assert!(mean.abs() < 0.02 && (deviation - 0.5).abs() < 0.01, "{mean} {deviation}");
        let (mean, deviation) = moments(&uniform(3, "u", 20_000, 0.5));
        assert!(mean.abs() < 0.02 && (deviation - 0.5 / 3f32.sqrt()).abs() < 0.01, "{mean} {deviation}");
        assert!(uniform(3, "u", 20_000, 0.5).iter().all(|x| x.abs() <= 0.5));
    }
}

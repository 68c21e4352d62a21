//! Resizing as Pillow does it: two passes with weights in fixed point, wide enough to see every pixel when shrinking.
//!
//! Source: Pillow's `src/libImaging/Resample.c`, `precompute_coeffs` and `ImagingResampleHorizontal_8bpc`.

use crate::Picture;

/// How far a pixel is seen, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A tent, one pixel to each side.
    Bilinear,
    /// Keys' cubic with a = -0.5, two pixels to each side.
    Bicubic,
}

impl Filter {
    /// Pixels to each side, where nothing shrinks.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The weight of a pixel at distance `x`.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0),
            Filter::Bicubic => 0.0,
        }
    }
}

/// Binary digits of a weight after the point.
const PRECISION: u32 = 22;

/// What one pixel of the result is made of: pixels from `first` on, each with its weight.
struct Mix {
    first: usize,
    weights: Vec<i32>,
}

/// The weights of all pixels of a line of `n_out`, made of `n_in`.
fn mixes(filter: Filter, n_in: usize, n_out: usize) -> Vec<Mix> {
    let scale = n_in as f64 / n_out as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.support() * filter_scale;
    let mix = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(n_in);
        let weights: Vec<f64> =
            (first..end).map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / filter_scale))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| {
            let fixed = weight / sum * f64::from(1 << PRECISION);
            (fixed + 0.5f64.copysign(fixed)) as i32
        };
        Mix { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..n_out).map(mix).collect()
}

/// `picture` in `width` x `height` pixels, both at least 1, each channel by itself.
///
/// Lines come before columns, unless lines grow and columns shrink. Levels are rounded in between, so that where Pillow
/// chooses the other order (older ones never do) a level may differ by 1.
/// Panics if one of them is 0.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    assert!(width > 0 && height > 0, "a picture of {width} x {height} pixels");
    if width > picture.width && height < picture.height {
        return across(&down(picture, height, filter), width, filter);
    }
    down(&across(picture, width, filter), height, filter)
}

/// Each line in `width` pixels.
fn across(picture: &Picture, width: usize, filter: Filter) -> Picture {
    if width == picture.width {
        return picture.clone();
    }
    let mixes = mixes(filter, picture.width, width);
    let lines = picture.pixels.chunks_exact(3 * picture.width);
    let pixels = lines.flat_map(|line| mixes.iter().flat_map(|mix| blend(mix, line, 3))).collect();
    Picture { width, height: picture.height, pixels }
}

/// Each column in `height` pixels.
fn down(picture: &Picture, height: usize, filter: Filter) -> Picture {
    let (width, from) = (picture.width, &picture.pixels);
    if height == picture.height {
        return picture.clone();
    }
    let line = |mix| (0..width).flat_map(move |x| blend(mix, &from[3 * x..], 3 * width));
    let pixels = mixes(filter, picture.height, height).iter().flat_map(line).collect();
    Picture { width, height, pixels }
}

/// One pixel, of those that stand `stride` numbers apart in `line`.
fn blend(mix: &Mix, line: &[u8], stride: usize) -> [u8; 3] {
    let mut sums = [1i32 << (PRECISION - 1); 3];
    for (i, weight) in mix.weights.iter().enumerate() {
        let pixel = &line[(mix.first + i) * stride..][..3];
        sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += weight * i32::from(value));
    }
    sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The picture that `fixtures/vision/make.py` draws too.
    fn drawn(width: usize, height: usize) -> Picture {
        let pixel = |x: usize, y: usize| {
            let rings = (x * x + 3 * y * y) % 256;
            [(x * 37 + y * 11) % 256, rings, if (x / 3 + y / 2).is_multiple_of(2) { 255 } else { 0 }]
        };
        let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
        Picture { width, height, pixels: rows.map(|value| value as u8).collect() }
    }

    #[test]
    fn pixels_are_those_of_pillow() {
        let text = include_str!("../../../fixtures/vision/resize.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(text).expect("the golden is JSON");
        assert!(cases.len() >= 8, "{} cases only", cases.len());
        for case in cases {
            let size = |key: &str, i: usize| case[key][i].as_u64().expect("a size") as usize;
            let filter = match case["filter"].as_str().expect("a filter") {
                "bilinear" => Filter::Bilinear,
                _ => Filter::Bicubic,
            };
            let from = drawn(size("from", 0), size("from", 1));
            let picture = resize(&from, size("to", 0), size("to", 1), filter);
            let expected: Vec<u8> = serde_json::from_value(case["pixels"].clone()).expect("pixels are bytes");
            assert_eq!(picture.pixels, expected, "{} {}", case["from"], case["to"]);
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let picture = drawn(7, 5);
        assert_eq!(resize(&picture, 7, 5, Filter::Bicubic), picture);
    }

    #[test]
    fn one_pixel_is_spread_evenly() {
        let picture = Picture { width: 1, height: 1, pixels: vec![3, 100, 255] };
        assert_eq!(resize(&picture, 2, 2, Filter::Bicubic).pixels, [3, 100, 255].repeat(4));
    }
}

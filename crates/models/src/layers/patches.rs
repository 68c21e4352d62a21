//! A picture as rows: its patches, each with its place, after a class row.

use rhetor_tensor::{Tensor, ops};

use super::{Embedding, Linear, Pass};

/// Patches of a picture as rows, ViT, arXiv:2010.11929, eq. 1: a convolution whose stride is its width is a product over
/// unfolded patches.
pub struct Patches {
    /// [D, 3·p·p]
    pub patch_embd: Linear,
    /// [1, D]
    pub class_embd: Embedding,
    /// The class row's place, then those of a square of patches: [1 + s·s, D]. Other rectangles are interpolated.
    pub position_embd: Embedding,
    /// p: pixels along a side of a patch.
    pub side: usize,
}

impl Patches {
    /// Rows of a picture of `[height, width]` pixels, the class row included.
    pub fn n_rows(&self, [height, width]: [usize; 2]) -> usize {
        (height / self.side) * (width / self.side) + 1
    }

    /// planes: [n, 3, height, width] → [n·P, D]
    ///
    /// Panics if a side is no multiple of p, or if the planes are not of whole pictures.
    pub fn forward(&self, planes: &[f32], [height, width]: [usize; 2], pass: &Pass) -> Tensor {
        let p = self.side;
        let is_whole = height > 0 && width > 0 && height % p == 0 && width % p == 0;
        assert!(is_whole, "a picture of {height} x {width} pixels in patches of {p}");
        assert_eq!(planes.len() % (3 * height * width), 0, "planes of {height} x {width} pixels");
        let n = planes.len() / (3 * height * width);
        let n_patches = (height / p) * (width / p);
        let unfolded = unfold(planes, [height, width], p);
        let patches = self.patch_embd.forward(&unfolded, pass); // [n·(P - 1), D]
        let x = self.class_embd.forward(&vec![0; n * (n_patches + 1)], pass); // [n·P, D]
        let rows = (0..n * n_patches).map(|i| (i / n_patches * (n_patches + 1) + 1 + i % n_patches, i));
        let x = ops::rows::replace(x, 0, &rows.collect::<Vec<_>>(), &patches);
        x + self.positions([height / p, width / p], n, pass)
    }

    /// The places of `n` pictures of `grid` patches. → [n·P, D]
    fn positions(&self, grid: [usize; 2], n: usize, pass: &Pass) -> Tensor {
        let table = &self.position_embd.weight;
        let n_rows = grid[0] * grid[1] + 1;
        let side = (table.n_out() - 1).isqrt();
        if grid == [side; 2] {
            let ids: Vec<u32> = (0..n).flat_map(|_| 0..n_rows as u32).collect();
            return self.position_embd.forward(&ids, pass);
        }
        let width = table.n_in();
        let mut rows = vec![vec![0.0; width]; table.n_out()];
        rows.iter_mut().enumerate().for_each(|(i, row)| table.row(i, row));
        let mut places = rows[0].clone();
        places.extend(interpolated(&rows[1..], side, grid));
        Tensor::from_vec(places.repeat(n), [n * n_rows, width])
    }
}

/// The patches of pictures as rows. [n, 3, height, width] → [n·h·w, 3·p·p]
fn unfold(planes: &[f32], [height, width]: [usize; 2], p: usize) -> Tensor {
    let (h, w) = (height / p, width / p);
    let n_lines = planes.len() / width;
    Tensor::build([planes.len() / (3 * p * p), 3 * p * p], |out| {
        let patches = out.chunks_exact_mut(3 * p * p).enumerate();
        for (i, patch) in patches {
            let (picture, y, x) = (i / (h * w), i / w % h, i % w);
            for (line, out) in patch.chunks_exact_mut(p).enumerate() {
                let (channel, dy) = (line / p, line % p);
                let from = (picture * 3 + channel) * height + y * p + dy;
                debug_assert!(from < n_lines);
                out.copy_from_slice(&planes[from * width + x * p..][..p]);
            }
        }
    })
}

/// A square of `side` x `side` rows brought to `grid`, bicubic with a = -0.75 as PyTorch's `interpolate` does it with
/// `align_corners=False` and no antialias. → `[h, w, D]`
fn interpolated(rows: &[Vec<f32>], side: usize, grid: [usize; 2]) -> Vec<f32> {
    let taps = |n: usize| -> Vec<[(usize, f32); 4]> { (0..n).map(|i| taps(i, side, n)).collect() };
    let (down, across) = (taps(grid[0]), taps(grid[1]));
    let mut out = Vec::with_capacity(grid[0] * grid[1] * rows[0].len());
    for down in &down {
        for across in &across {
            let mut sum = vec![0.0f32; rows[0].len()];
            for (y, wy) in down {
                for (x, wx) in across {
                    let row = &rows[y * side + x];
                    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += wy * wx * value);
                }
            }
            out.extend(sum);
        }
    }
    out
}

/// The four places, of `n_in`, that place `i` of `n_out` is made of, with their weights.
fn taps(i: usize, n_in: usize, n_out: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let at = (i as f32 + 0.5) * (n_in as f32 / n_out as f32) - 0.5;
    let t = at - at.floor();
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    [0, 1, 2, 3].map(|tap| {
        let place = (at.floor() as isize + tap as isize - 1).clamp(0, n_in as isize - 1);
        (place as usize, weights[tap])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_read_channel_by_channel_and_line_by_line() {
        let planes: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let unfolded = unfold(&planes, [2, 4], 2);
        assert_eq!(unfolded.shape(), [2, 12]);
        let second = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23].map(|i| i as f32);
        assert_eq!(unfolded.row(1), second);
    }

    #[test]
    fn the_weights_of_a_place_add_up_to_one() {
        for (n_in, n_out) in [(4, 4), (4, 7), (9, 2)] {
            for i in 0..n_out {
                let sum: f32 = taps(i, n_in, n_out).iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{i} of {n_out}: {sum}");
            }
        }
        assert_eq!(taps(2, 4, 4)[1], (2, 1.0));
    }
}

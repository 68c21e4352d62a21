//! Several LoRA adapters become one, without their base: the weighted combinations of PEFT.
//!
//! Source: PEFT 0.21, `tuners/lora/model.py`, `add_weighted_adapter`, and `utils/merge_utils.py`; TIES: arXiv:2306.01708,
//! §3; DARE: arXiv:2311.03099, §3.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::peft_config::{Config, LORA_REFUSED};
use super::stored::{SavedTensor, Stored};
use super::targets::Patterns;
use super::{AdapterError, init, peft};

/// How adapters are combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combination {
    /// Sums of the As and of the Bs, each weighed by the root of the weight: not the sum of the products. Equal ranks.
    Linear,
    /// As and Bs side by side: the weighted sum of the products, with the sum of the ranks.
    Cat,
    /// The best approximation of the weighted sum of the products that has this rank.
    Svd {
        /// Rank of the result.
        rank: usize,
    },
    /// Linear, of the largest elements of each.
    MagnitudePrune {
        /// Part of the elements that are kept.
        density: f64,
    },
    /// Of the largest elements of each, those that have the sign of the majority, averaged (TIES).
    Ties {
        /// Part of the elements that are kept.
        density: f64,
    },
    /// Linear, of random elements scaled up (DARE).
    DareLinear {
        /// Part of the elements that are kept.
        density: f64,
        /// Of the choice.
        seed: u64,
    },
    /// TIES, of random elements scaled up.
    DareTies {
        /// Part of the elements that are kept.
        density: f64,
        /// Of the choice.
        seed: u64,
    },
}

/// One adapter's pair of matrices of a module, and what its product counts.
struct Pair {
    /// [r, in]
    a: Vec<f32>,
    /// [out, r]
    b: Vec<f32>,
    rank: usize,
    /// Weight times scale.
    factor: f64,
}

/// Combines the LoRA adapters of `sources`, each with its weight, and writes the result to the directory `out`.
///
/// Modules that only some of them change are combined of those. The scale of the result is 1.
pub fn combine(sources: &[(&Path, f64)], how: Combination, out: &Path) -> Result<(), AdapterError> {
    let mut modules: BTreeMap<(String, bool), Vec<Pair>> = BTreeMap::new();
    let mut first: Option<Config> = None;
    for (dir, weight) in sources {
        let config = Config::open(&dir.join(peft::CONFIG))?;
        read(dir, &config, *weight, &mut modules)?;
        first.get_or_insert(config);
    }
    let Some(first) = first else {
        let (what, reason) = ("no adapters".to_string(), "at least one is needed".to_string());
        return Err(AdapterError::NotCombinable { what, reason });
    };
    let mut tensors = Vec::new();
    let mut ranks = BTreeMap::new();
    for ((module, is_embedding), pairs) in &modules {
        let (rank, a, b) = combined(module, pairs, how)?;
        let (n_in, n_out) = (a.len() / rank, b.len() / rank);
        let (a_end, b_end) = ends(*is_embedding);
        tensors.push(SavedTensor::new(format!("{module}{a_end}"), &[rank, n_in], a));
        tensors.push(SavedTensor::new(format!("{module}{b_end}"), &[n_out, rank], b));
        ranks.insert(module.strip_prefix(super::base_tensors::PREFIX).unwrap_or(module), rank);
    }
    let rank = ranks.values().copied().max().unwrap_or(1);
    let others = || ranks.iter().filter(|(_, other)| **other != rank);
    let exact = |name: &str| name.replace('.', r"\.");
    let rank_pattern: Map<String, Value> =
        others().map(|(name, rank)| (exact(name), Value::from(*rank))).collect();
    let mut config = first.keys.clone();
    let names: BTreeSet<&str> = ranks.keys().copied().collect();
    config.insert("target_modules".to_string(), names.into_iter().collect());
    config.insert("exclude_modules".to_string(), Value::Null);
    config.insert("layers_to_transform".to_string(), Value::Null);
    config.insert("r".to_string(), rank.into());
    config.insert("lora_alpha".to_string(), rank.into());
    config.insert("alpha_pattern".to_string(), rank_pattern.clone().into());
    config.insert("rank_pattern".to_string(), rank_pattern.into());
    config.insert("use_rslora".to_string(), false.into());
    peft::write(out, config, tensors)
}

fn ends(is_embedding: bool) -> (&'static str, &'static str) {
    if is_embedding {
        (".lora_embedding_A", ".lora_embedding_B")
    } else {
        (".lora_A.weight", ".lora_B.weight")
    }
}

/// Adds the pairs of one adapter to `modules`.
fn read(
    dir: &Path,
    config: &Config,
    weight: f64,
    modules: &mut BTreeMap<(String, bool), Vec<Pair>>,
) -> Result<(), AdapterError> {
    if config.word("peft_type") != Some("LORA") {
        return Err(config.wrong("peft_type", "LORA: only such adapters can be combined"));
    }
    config.refuse_if_set(LORA_REFUSED)?;
    config.refuse_if_set(&["use_dora", "lora_bias", "modules_to_save", super::longlora::KEY])?;
    if config.word("bias").is_some_and(|bias| bias != "none") {
        return Err(config.wrong("bias", "none: biases cannot be combined"));
    }
    let rank_pattern = Patterns::new(&config.ranks("rank_pattern")?)?;
    let alpha_pattern = Patterns::new(&config.alphas("alpha_pattern")?)?;
    let (rank, alpha) = (config.size_or("r", 8)?, config.number_or("lora_alpha", 8.0)?);
    let is_rank_stabilised = config.switch("use_rslora")?;
    let mut stored = peft::open_tensors(dir)?;
    let keys: Vec<String> = stored.names().map(str::to_string).collect();
    for is_embedding in [false, true] {
        let (a_end, b_end) = ends(is_embedding);
        for module in keys.iter().filter_map(|key| key.strip_suffix(a_end)) {
            let name = module.strip_prefix(super::base_tensors::PREFIX).unwrap_or(module);
            let rank = rank_pattern.find(name).unwrap_or(rank);
            let alpha = alpha_pattern.find(name).unwrap_or(alpha);
            let by = if is_rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
            let extents =
                |key: &str, stored: &Stored| stored.shape(key).map(<[usize]>::to_vec).unwrap_or_default();
            let (a_key, b_key) = (format!("{module}{a_end}"), format!("{module}{b_end}"));
            let n_in = extents(&a_key, &stored).last().copied().unwrap_or(1);
            let n_out = extents(&b_key, &stored).first().copied().unwrap_or(1);
            let a = stored.require(&a_key, &[rank, n_in])?;
            let b = stored.require(&b_key, &[n_out, rank])?;
            let pair = Pair { a, b, rank, factor: weight * alpha / by };
            let pairs = modules.entry((module.to_string(), is_embedding)).or_default();
            if pairs.first().is_some_and(|other| {
                (other.a.len() / other.rank, other.b.len() / other.rank) != (n_in, n_out)
            }) {
                let reason = "they belong to bases of different sizes".to_string();
                return Err(AdapterError::NotCombinable { what: format!("adapters of `{name}`"), reason });
            }
            pairs.push(pair);
        }
    }
    let rest: Vec<String> =
        stored.names().filter(|key| !key.contains(".base_layer.")).map(str::to_string).collect();
    match rest.first() {
        Some(name) => {
            Err(AdapterError::UnexpectedTensor { file: dir.join(peft::TENSORS), name: name.clone() })
        }
        None => Ok(()),
    }
}

/// Rank, A and B of one module.
fn combined(
    module: &str,
    pairs: &[Pair],
    how: Combination,
) -> Result<(usize, Vec<f32>, Vec<f32>), AdapterError> {
    match how {
        Combination::Cat => Ok(side_by_side(pairs)),
        Combination::Svd { rank } => {
            let (total, a, b) = side_by_side(pairs);
            let rank = rank.clamp(1, total);
            let (a, b) = approximated(&a, &b, total, rank);
            Ok((rank, a, b))
        }
        _ => {
            let rank = pairs[0].rank;
            if let Some(other) = pairs.iter().find(|pair| pair.rank != rank) {
                let reason = format!("of ranks {rank} and {}: such adapters need cat or svd", other.rank);
                return Err(AdapterError::NotCombinable { what: format!("adapters of `{module}`"), reason });
            }
            // The sign goes to one side only: on both it would cancel.
            let roots: Vec<f64> = pairs.iter().map(|pair| pair.factor.abs().sqrt()).collect();
            let signed = pairs.iter().zip(&roots).map(|(pair, root)| root * pair.factor.signum()).collect();
            let tensors =
                |part: fn(&Pair) -> &Vec<f32>| pairs.iter().map(|pair| part(pair).clone()).collect();
            let a = mixed(tensors(|pair| &pair.a), signed, how, &format!("{module}.a"));
            let b = mixed(tensors(|pair| &pair.b), roots, how, &format!("{module}.b"));
            Ok((rank, a, b))
        }
    }
}

/// The weighted sum of what is left of `tensors`.
fn mixed(mut tensors: Vec<Vec<f32>>, weights: Vec<f64>, how: Combination, name: &str) -> Vec<f32> {
    for (i, tensor) in tensors.iter_mut().enumerate() {
        match how {
            Combination::MagnitudePrune { density } | Combination::Ties { density } => {
                keep_largest(tensor, density)
            }
            Combination::DareLinear { density, seed } | Combination::DareTies { density, seed } => {
                keep_random(tensor, density, seed, &format!("{name}.{i}"))
            }
            _ => {}
        }
    }
    let n = tensors[0].len();
    let elects = matches!(how, Combination::Ties { .. } | Combination::DareTies { .. });
    let element = |j: usize| {
        let values = tensors.iter().zip(&weights).map(|(tensor, weight)| (f64::from(tensor[j]), weight));
        if !elects {
            return values.map(|(value, weight)| value * weight).sum::<f64>() as f32;
        }
        let majority =
            if tensors.iter().map(|tensor| f64::from(tensor[j])).sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
        let elected = values.filter(|(value, _)| *value != 0.0 && value.signum() == majority);
        let (sum, count) = elected.fold((0.0, 0), |(sum, n), (value, weight)| (sum + value * weight, n + 1));
        (sum / f64::from(count.max(1))) as f32
    };
    (0..n).map(element).collect()
}

/// Sets all but the largest elements to zero.
fn keep_largest(tensor: &mut [f32], density: f64) {
    let n_kept = (density.clamp(0.0, 1.0) * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|&i, &j| tensor[j].abs().total_cmp(&tensor[i].abs()).then(i.cmp(&j)));
    order[n_kept..].iter().for_each(|&i| tensor[i] = 0.0);
}

/// Keeps each element with this probability and divides it by that.
fn keep_random(tensor: &mut [f32], density: f64, seed: u64, name: &str) {
    let draws = init::uniform(seed, name, tensor.len(), 0.5);
    for (value, draw) in tensor.iter_mut().zip(draws) {
        *value = if f64::from(draw) + 0.5 < density { (f64::from(*value) / density) as f32 } else { 0.0 };
    }
}

/// As weighed and Bs, one after another: [R, in] and [out, R].
fn side_by_side(pairs: &[Pair]) -> (usize, Vec<f32>, Vec<f32>) {
    let rank: usize = pairs.iter().map(|pair| pair.rank).sum();
    let a = pairs.iter().flat_map(|pair| pair.a.iter().map(|&x| (f64::from(x) * pair.factor) as f32));
    let n_out = pairs[0].b.len() / pairs[0].rank;
    let b = (0..n_out).flat_map(|i| {
        pairs.iter().flat_map(move |pair| pair.b[i * pair.rank..][..pair.rank].iter().copied())
    });
    (rank, a.collect(), b.collect())
}

/// The factors of the best approximation of rank `rank` of B A. a: [n, in], b: [out, n] → [rank, in], [out, rank]
///
/// Aᵀ = Q T by Gram and Schmidt, twice; then B Tᵀ = U Σ Vᵀ by Jacobi's one-sided rotations, which make its columns
/// orthogonal (Golub and Van Loan, Matrix Computations, 4th ed., §8.6.3).
fn approximated(a: &[f32], b: &[f32], n: usize, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let (n_in, n_out) = (a.len() / n, b.len() / n);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let rows: Vec<Vec<f64>> =
        a.chunks_exact(n_in).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    let mut q: Vec<Vec<f64>> = Vec::new();
    let mut t = vec![vec![0.0; n]; n];
    for (j, row) in rows.iter().enumerate() {
        let mut rest = row.clone();
        for _ in 0..2 {
            for (i, q) in q.iter().enumerate() {
                let along = dot(q, &rest);
                t[i][j] += along;
                rest.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let norm = dot(&rest, &rest).sqrt();
        let is_new = norm > 1e-12 * dot(row, row).sqrt();
        t[j][j] = if is_new { norm } else { 0.0 };
        q.push(rest.iter().map(|x| if is_new { x / norm } else { 0.0 }).collect());
    }
    // Columns of B Tᵀ, and of V.
    let column = |i: usize| {
        let of_row = |row: &[f32]| (0..n).map(|j| f64::from(row[j]) * t[i][j]).sum::<f64>();
        b.chunks_exact(n).map(of_row).collect::<Vec<f64>>()
    };
    let mut c: Vec<Vec<f64>> = (0..n).map(column).collect();
    let mut v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..60 {
        let mut is_done = true;
        for i in 0..n {
            for j in i + 1..n {
                let (p, q, r) = (dot(&c[i], &c[i]), dot(&c[j], &c[j]), dot(&c[i], &c[j]));
                if r.abs() <= 1e-15 * (p * q).sqrt() {
                    continue;
                }
                is_done = false;
                let zeta = (q - p) / (2.0 * r);
                let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                let sine = cosine * tangent;
                for matrix in [&mut c, &mut v] {
                    let (left, right) = matrix.split_at_mut(j);
                    for (x, y) in left[i].iter_mut().zip(right[0].iter_mut()) {
                        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
                    }
                }
            }
        }
        if is_done {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| dot(&c[j], &c[j]).total_cmp(&dot(&c[i], &c[i])).then(i.cmp(&j)));
    order.truncate(rank);
    let a = order.iter().flat_map(|&i| {
        let (q, v) = (&q, &v[i]);
        (0..n_in).map(move |k| (0..n).map(|j| v[j] * q[j][k]).sum::<f64>() as f32)
    });
    let b = (0..n_out).flat_map(|k| order.iter().map(|&i| c[i][k] as f32).collect::<Vec<_>>());
    (a.collect(), b.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
        let n_in = a.len() / n;
        let row = |row: &[f32]| {
            (0..n_in).map(|k| (0..n).map(|j| row[j] * a[j * n_in + k]).sum()).collect::<Vec<f32>>()
        };
        b.chunks_exact(n).flat_map(row).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    }

    #[test]
    fn the_best_approximation_of_full_rank_is_exact_and_of_lower_rank_drops_the_smallest_part() {
        // Two orthogonal products of norms 5 and 2, and a copy of the first: rank 2 in 3.
        let a = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        let b = [2.0, 0.0, 3.0, 0.0, 2.0, 0.0];
        let whole = product(&a, &b, 3);
        for rank in [2, 3] {
            let (a, b) = approximated(&a, &b, 3, rank);
            assert!(distance(&product(&a, &b, rank), &whole) < 1e-6);
        }
        let (a, b) = approximated(&a, &b, 3, 1);
        assert!((distance(&product(&a, &b, 1), &whole) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn random_pruning_keeps_the_sum_on_average() {
        let mut tensor = vec![1.0; 10_000];
        keep_random(&mut tensor, 0.25, 1, "x");
        let n_kept = tensor.iter().filter(|&&x| x != 0.0).count();
        assert!((2300..2700).contains(&n_kept), "{n_kept}");
        assert!(tensor.iter().all(|&x| x == 0.0 || x == 4.0));
    }
}

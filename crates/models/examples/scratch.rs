use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_models::*;
use std::path::Path;
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "parity" {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
        for dir in std::fs::read_dir(root).unwrap() {
            let dir = dir.unwrap().path();
            if !dir.is_dir() {
                continue;
            }
            let c = Checkpoint::open(&dir).unwrap();
            let m = match Model::load(&c, LoadOptions::default()) {
                Ok(m) => m,
                Err(e) => {
                    println!("{}: {e}", dir.display());
                    continue;
                }
            };
            let Ok(e) = Checkpoint::open(&dir.join("expected.safetensors")) else { continue };
            for t in e.tensors() {
                let Some(i) = t.name.strip_prefix("input_ids.").or(t.name.strip_prefix("tokens.")) else {
                    continue;
                };
                let ids: Vec<u32> = e
                    .bytes(t)
                    .chunks(t.n_bytes / t.shape.iter().product::<usize>())
                    .map(|b| u32::from_le_bytes(b[..4].try_into().unwrap()))
                    .collect();
                let l = e.find(&format!("logits.{i}")).unwrap();
                let want: Vec<f32> =
                    e.bytes(l).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                let d =
                    |got: &[f32]| got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
                let mut cache = KvCache::new(m.config(), KvType::F32, 8);
                let n = ids.len();
                if n > m.config().context_len {
                    println!("skip {}", dir.display());
                    continue;
                }
                let pages: Vec<u32> = (0..n.div_ceil(PAGE_LEN) as u32).collect();
                let b = Batch {
                    tokens: ids.clone(),
                    spans: vec![SequenceSpan { pages: pages.clone(), start: 0, len: n }],
                    outputs: (0..n).collect(),
                };
                let whole = m.forward(&Batch::whole(&ids), None);
                let cached = m.forward(&b, Some(&mut cache));
                println!(
                    "{} {i}: {n} tokens max {:.3} whole {:.2e} cached {:.2e}",
                    dir.file_name().unwrap().to_str().unwrap(),
                    want.iter().fold(0.0f32, |a, b| a.max(b.abs())),
                    d(whole.data()),
                    d(cached.data())
                );
            }
        }
        return;
    }
    let t = Instant::now();
    let c = Checkpoint::open(Path::new(&args[1])).unwrap();
    println!("open {:?}", t.elapsed());
    let m = Model::load(&c, LoadOptions::default()).unwrap();
    println!("load {:?} {:?}", t.elapsed(), m.config());
    let mut cache = KvCache::new(m.config(), KvType::F16, 256);
    let ids: Vec<u32> = (0..512u32).map(|i| (i * 7919) % 30000).collect();
    let pages: Vec<u32> = (0..32).collect();
    let t = Instant::now();
    let b = Batch {
        tokens: ids.clone(),
        spans: vec![SequenceSpan { pages: pages.clone(), start: 0, len: 512 }],
        outputs: vec![511],
    };
    let l = m.forward(&b, Some(&mut cache));
    println!("pp512 {:.1} tok/s {:?}", 512.0 / t.elapsed().as_secs_f64(), l);
    let t = Instant::now();
    for i in 0..64 {
        let b = Batch {
            tokens: vec![5],
            spans: vec![SequenceSpan { pages: pages.clone(), start: 512 + i, len: 1 }],
            outputs: vec![0],
        };
        m.forward(&b, Some(&mut cache));
    }
    println!("tg64 {:.1} tok/s", 64.0 / t.elapsed().as_secs_f64());
}

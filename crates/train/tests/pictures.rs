//! A model with eyes learns from pictures: drawn shapes and colours, which it must name on pictures it has not seen.

use image::{Rgb, RgbImage};
use rhetor_formats::Checkpoint;
use rhetor_generate::{ChatTemplate, Engine, EngineOptions};
use rhetor_lm::{LanguageModel, Message, Prompt, Request};
use rhetor_models::{LoadOptions, Model, init};
use rhetor_tokenizer::Tokenizer;
use rhetor_tokenizer::train::{Kind, TrainOptions, train as learn_vocabulary};
use rhetor_train::data::split::Validation;
use rhetor_train::{Alone, Recipe, Resolved, Run, data};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const COLOURS: [(&str, [u8; 3]); 3] =
    [("red", [220, 40, 40]), ("green", [40, 200, 60]), ("blue", [50, 70, 230])];
const SHAPES: [&str; 3] = ["disc", "frame", "bar"];

/// Picture number `i`, and what stands on it. Place, size, brightness and background differ from one to the next.
fn drawn(i: u32) -> (Vec<u8>, String) {
    let random =
        |n: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(n * 40_503)).wrapping_mul(0x9e37_79b9) >> 16;
    let (colour, rgb) = COLOURS[random(1) as usize % 3];
    let shape = SHAPES[random(2) as usize % 3];
    let (x, y) = (12 + (random(3) % 7) as i32 - 3, 12 + (random(4) % 7) as i32 - 3);
    let (size, back) = (6 + (random(5) % 3) as i32, (random(6) % 50) as u8);
    let is_inside = |dx: i32, dy: i32| match shape {
        "disc" => dx * dx + dy * dy <= size * size,
        "frame" => dx.abs().max(dy.abs()) <= size && dx.abs().max(dy.abs()) >= size - 1,
        _ => dx.abs() <= size + 2 && dy.abs() <= 2,
    };
    let picture = RgbImage::from_fn(24, 24, |px, py| match is_inside(px as i32 - x, py as i32 - y) {
        true => Rgb(rgb.map(|level| level.saturating_sub((random(7) % 30) as u8))),
        false => Rgb([back; 3]),
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a small picture is written");
    (bytes.into_inner(), format!("{colour} {shape}"))
}

/// A new model of 16 patches, which become 4 rows among the words of a small decoder; and its vocabulary of characters.
fn base(dir: &Path) -> Arc<Tokenizer> {
    let specials = vec!["<unk>".to_string()];
    let options = TrainOptions { kind: Kind::Characters, vocab_size: 100, specials, min_frequency: 1 };
    let texts: Vec<String> =
        (0..40).map(|i| drawn(i).1).chain(["###Human: <Img></Img> What?###Assistant: ".into()]).collect();
    let tokenizer = learn_vocabulary(&options, texts.iter()).expect("a small vocabulary");
    let config = json!({
        "model_type": "minigpt4",
        "initializer_range": 0.15,
        "vision": {"model_type": "blip_2_vision_model", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 4},
        "language_model": {"model_type": "llama", "vocab_size": tokenizer.n_tokens(), "hidden_size": 32,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 128},
    });
    std::fs::create_dir_all(dir).expect("a folder");
    std::fs::write(dir.join("config.json"), config.to_string()).expect("the configuration");
    init::write(dir, 1).expect("random weights");
    Arc::new(tokenizer)
}

fn run(recipe: &str, dir: &Path, from: &Path, tokenizer: &Arc<Tokenizer>, out: &str) -> Run {
    let template = ChatTemplate::of(tokenizer, "minigpt4").expect("it is in the table");
    let resolved = Resolved {
        recipe: Recipe::from_toml(recipe).expect("a good recipe"),
        base: from.to_path_buf(),
        base_name: from.display().to_string(),
        teacher: None,
        tokenizer: tokenizer.clone(),
        template: Some(Arc::new(template)),
        new_template: None,
        data: vec![(
            vec![data::Source::of(dir.join("rows.jsonl").to_str().expect("a plain path"))],
            data::ReadOptions::default(),
            1.0,
        )],
        validation: Validation::Off,
        out: dir.join(out),
        now: 0,
    };
    Run::prepare(resolved, &Alone).expect("the run is ready")
}

fn finish(run: Run) {
    run.go(&Alone, &mut |_, _| Ok(ControlFlow::Continue(()))).expect("the run ends well");
}

#[test]
fn shapes_and_colours_are_named_on_pictures_not_seen_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("base");
    let tokenizer = base(&from);
    let mut lines = String::new();
    for i in 0..900 {
        let (picture, answer) = drawn(i);
        std::fs::write(dir.path().join(format!("{i}.png")), picture).expect("the picture is written");
        lines +=
            &(json!({"image": format!("{i}.png"), "prompt": "What?", "answer": answer}).to_string() + "\n");
    }
    // A row whose picture is none is counted and left out.
    lines += &(json!({"image": "rows.jsonl", "caption": "nothing"}).to_string() + "\n");
    std::fs::write(dir.path().join("rows.jsonl"), lines).expect("the rows are written");
    let recipe = "objective = 'sft'\nsteps = 600\nbatch-size = 16\nlearning-rate = 2e-3\nseq-len = 100\n\
                  warmup = 0.1\nschedule = 'cosine'\npacking = false\n";
    let learning = run(recipe, dir.path(), &from, &tokenizer, "out");
    assert_eq!(learning.tally.n_skipped(), 1, "{:?}", learning.tally);
    finish(learning);

    let model =
        Model::load(&Checkpoint::open(&dir.path().join("out")).expect("it is whole"), LoadOptions::default());
    let mut engine =
        Engine::new("eyes", model.expect("it loads"), (*tokenizer).clone(), EngineOptions::default())
            .expect("it speaks");
    engine.set_template("minigpt4").expect("it is in the table");
    let n = 100;
    let is_right = |i: &u32| {
        let (picture, answer) = drawn(10_000 + i);
        let prompt = Prompt::Chat(vec![Message::user("What?")]);
        let request =
            Request { pictures: vec![picture.into()], max_tokens: Some(16), ..Request::new(prompt) };
        let said = engine.generate(&request, &mut |_| ControlFlow::Continue(())).expect("it answers");
        said[0].text.trim() == answer
    };
    let n_right = (0..n).filter(is_right).count();
    println!("{n_right} of {n} answers are right");
    assert!(n_right >= 95, "{n_right} of {n}");

    // As in MiniGPT-4's own stages, the projection alone can learn while all else is frozen.
    let recipe = "objective = 'sft'\nadapter = 'full'\ntargets = 'llama_proj'\nsteps = 2\nbatch-size = 4\n\
                  learning-rate = 1e-3\nseq-len = 100\npacking = false\n";
    let stage = run(recipe, dir.path(), &dir.path().join("out"), &tokenizer, "stage");
    let names: Vec<&str> = stage.model().parameters().iter().map(|parameter| parameter.name()).collect();
    assert_eq!(names, ["llama_proj.weight", "llama_proj.bias"]);
    finish(stage);
}

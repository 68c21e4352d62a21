//! Real data sets, read whole, where they are there: in `../shared/data` beside the repository, or in
//! `RHETOR_DATA`.
#![forbid(unsafe_code)]

use rhetor_generate::{ChatTemplate, TEMPLATES};
use rhetor_lm::Role;
use rhetor_tokenizer::train::{Kind, TrainOptions, train};
use rhetor_tokenizer::{ControlTokens, Tokenizer};
use rhetor_train::data::{
    Built, DATA_SETS, DataSet, Found, ReadOptions, ReadReport, Row, TokenCacheOptions, find, open_or_build,
    pack::{DocumentMask, Windows},
    read_all,
    split::n_before_tail,
};
use rhetor_train::examples::preference::Preferences;
use rhetor_train::examples::question_answering::{Questions, WindowOptions};
use rhetor_train::examples::sft::Sft;
use rhetor_train::{IGNORE, Label, Tally};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn data() -> PathBuf {
    let beside = ["../shared/data", "../../shared/data"].map(|path| root().join(path));
    let found = beside.iter().find(|path| path.exists()).unwrap_or(&beside[0]).clone();
    std::env::var_os("RHETOR_DATA").map_or(found, PathBuf::from)
}

/// The folder of a data set, if it is there.
fn folder(name: &str) -> Option<PathBuf> {
    match find(name, &[data()]).expect("the name is in the table") {
        Found::Path(path) => Some(path),
        Found::Missing(set) => {
            println!("skipped: {} is not in {}", set.folder, data().display());
            None
        }
    }
}

fn read_set(name: &str) -> Option<(Vec<Row>, ReadReport)> {
    let (set, folder) = (DataSet::named(name).unwrap(), folder(name)?);
    Some(read_all(&set.sources(&folder), &set.options()).unwrap_or_else(|error| panic!("{error}")))
}

/// SmolLM2's own vocabulary and template, if the model was pulled.
fn smollm2() -> Option<Tokenizer> {
    let home = std::env::var_os("RHETOR_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/rhetor")))?;
    let path = home.join("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("skipped: SmolLM2 was not pulled");
        return None;
    }
    Some(Tokenizer::from_file(&path).expect("the vocabulary loads"))
}

#[test]
fn every_data_set_is_read_whole() {
    // Rows, and the kinds of those that are left out.
    let expected: BTreeMap<&str, (usize, usize)> = [
        ("tinyshakespeare", (1, 0)),
        ("gutenberg-books", (6, 0)),
        ("wikitext-2", (2, 0)),
        ("self-instruct-seeds", (175, 0)),
        ("user-oriented-instructions", (252, 0)),
        ("gsm8k-test", (1319, 0)),
        ("sentence-polarity", (10_662, 0)),
        ("hh-harmless", (2312, 0)),
        ("squad", (1190, 0)),
        ("drcd", (3524, 0)),
        ("tang-poems", (3000, 0)),
        ("inaugural-addresses", (59, 1)),
        ("shakespeare-plays", (8, 0)),
    ]
    .into();
    for set in DATA_SETS {
        let Some((rows, report)) = read_set(set.name) else { continue };
        println!("{}: {report}", set.name);
        let n_dropped: u64 = report.dropped.values().map(|dropped| dropped.n).sum();
        assert_eq!((rows.len(), n_dropped as usize), expected[set.name], "{}: {report}", set.name);
        for file in set.files {
            let bytes = std::fs::read(folder(set.name).unwrap().join(file.path)).unwrap();
            let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sha256, file.sha256, "{}/{}", set.folder, file.path);
        }
    }
}

#[test]
fn tinyshakespeare_is_tokenized_once_and_divided_as_nano_gpt_divides_it() {
    let Some(folder) = folder("tinyshakespeare") else { return };
    let text = std::fs::read_to_string(folder.join("tinyshakespeare.txt")).unwrap();
    let options =
        TrainOptions { kind: Kind::Characters, vocab_size: 100, specials: vec![], min_frequency: 1 };
    let tokenizer = train(&options, [&text].into_iter()).unwrap();
    let options = TokenCacheOptions { read: ReadOptions::default(), before: None, after: None, part: None };
    let sources = DataSet::named("tinyshakespeare").unwrap().sources(&folder);
    let out = tempfile::tempdir().unwrap();
    let open = || {
        open_or_build(&out.path().join("tokens"), &sources, &tokenizer, &options, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap()
    };
    assert!(matches!(open().1, Built::New { .. }));
    let (file, built) = open();
    assert_eq!((built, file.n_tokens(), file.n_documents()), (Built::Reused, 1_115_394, 1));
    let n_train = n_before_tail(file.n_tokens(), 0.1);
    assert_eq!((n_train, file.n_tokens() - n_train), (1_003_854, 111_540), "nanoGPT's two files");
    assert_eq!(tokenizer.decode(&file.tokens(0..14), ControlTokens::Show), "First Citizen:");
    let windows = Windows::new(&file, 0..n_train, 256, DocumentMask::Off);
    assert_eq!(windows.n(), 3921);
}

#[test]
fn answers_of_real_instructions_are_learnt_to_their_last_token() {
    let (Some((rows, _)), Some(tokenizer)) = (read_set("user-oriented-instructions"), smollm2()) else {
        return;
    };
    let own = tokenizer.chat_template().expect("SmolLM2 has a template").to_string();
    let sources = [own.as_str()].into_iter().chain(TEMPLATES.iter().map(|template| template.about.name));
    for source in sources {
        let [bos, eos] = [tokenizer.bos(), tokenizer.eos()].map(|id| tokenizer.piece(id.unwrap()).unwrap());
        let template = ChatTemplate::new(source, bos, eos).unwrap();
        let sft = Sft::new(&tokenizer, Some(&template), 100_000, 0);
        let mut tally = Tally::default();
        for row in &rows {
            let Row::Chat(messages) = row else { panic!("{row:?}") };
            let answer = messages.iter().find(|message| message.role == Role::Assistant).unwrap();
            for example in tally.count(sft.examples(row)) {
                let sequence = &example.sequences[0];
                let learnt: Vec<u32> =
                    sequence.targets.iter().copied().filter(|&target| target != IGNORE).collect();
                let text = tokenizer.decode(&learnt, ControlTokens::Show);
                assert!(text.trim_start().starts_with(answer.content.trim()), "{source}: {text}");
                let rest = text.trim_start()[answer.content.trim().len()..].trim();
                assert!(
                    !rest.is_empty() && rest.len() < 20,
                    "{source}: the end is learnt, and no more: {rest:?}"
                );
            }
        }
        println!("{}: {tally:?}", source.lines().next().unwrap_or_default());
        assert_eq!(tally.n_kept + tally.n_skipped(), 252);
        assert!(tally.n_kept >= 250, "{source}: {tally:?}");
    }
}

#[test]
fn real_preferences_share_their_prompt() {
    let (Some((rows, _)), Some(tokenizer)) = (read_set("hh-harmless"), smollm2()) else { return };
    let template = ChatTemplate::new(tokenizer.chat_template().unwrap(), "", "").unwrap();
    let preferences = Preferences { sft: Sft::new(&tokenizer, Some(&template), 512, 0), max_len: 512 };
    let mut tally = Tally::default();
    for row in &rows {
        for example in tally.count(preferences.examples(row)) {
            let [chosen, rejected] = &example.sequences[..] else { panic!("two sequences") };
            let n_prompt = |targets: &[u32]| targets.iter().position(|&target| target != IGNORE).unwrap() + 1;
            let n = n_prompt(&chosen.targets);
            assert_eq!(n, n_prompt(&rejected.targets));
            assert_eq!(chosen.tokens[..n], rejected.tokens[..n]);
        }
    }
    println!("{tally:?}");
    assert!(tally.n_kept > 2200 && tally.n_kept + tally.n_skipped() == rows.len() as u64, "{tally:?}");
}

#[test]
fn answers_of_real_questions_are_found_in_their_windows() {
    let tokenizer = Tokenizer::from_file(&root().join("fixtures/tokenizer/vocab.txt")).unwrap();
    let questions = Questions::new(&tokenizer, WindowOptions::default()).unwrap();
    for name in ["squad", "drcd"] {
        let Some((rows, _)) = read_set(name) else { continue };
        let (mut n_found, mut n_exact) = (0, 0);
        for row in &rows {
            let Row::Question { context, answers, .. } = row else { panic!("{row:?}") };
            let windows = questions.windows(row, &tokenizer).unwrap_or_else(|skip| panic!("{skip}: {row:?}"));
            let found = windows.iter().find_map(|window| match window.example.label {
                Label::Span { start, end } if start > 0 => {
                    let [start, end] = [start, end].map(|row| window.places[row as usize].clone().unwrap());
                    Some(&context[start.start..end.end])
                }
                _ => None,
            });
            n_found += usize::from(found.is_some());
            n_exact += usize::from(found == Some(answers[0].text.trim()));
        }
        println!("{name}: {} questions, {n_found} answers in a window, {n_exact} to the letter", rows.len());
        assert!(n_found * 100 >= rows.len() * 98 && n_exact * 100 >= rows.len() * 96, "{name}");
    }
}

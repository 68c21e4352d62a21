//! Texts tokenized once: [`open_or_build`] gives the mapped ids of a data set, made anew where they are
//! missing, stale or damaged.

use super::files::{DataFile, Source, files};
use super::options::ReadOptions;
use super::readers::read;
use super::report::ReadReport;
use super::row::Row;
use super::split::{Part, part_by_hash};
use super::token_formats::{HEADER, KEY, VERSION};
use super::token_writer::{Writer, absorb};
use super::{Place, TokenFile};
use crate::Error;
use rhetor_tokenizer::{Special, Tokenizer};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

/// What goes into a token file besides the data and the tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenCacheOptions {
    /// How the files are read; rows must be texts or completions.
    pub read: ReadOptions,
    /// Put before each document, such as BOS.
    pub before: Option<u32>,
    /// Put after each document, such as EOS.
    pub after: Option<u32>,
    /// Only the documents of that part, the validation part being that share of all by hash.
    pub part: Option<(Part, f64)>,
}

/// Where a token file came from.
#[derive(Debug, Clone, PartialEq)]
pub enum Built {
    /// It was there, made from the same data, tokenizer and options.
    Reused,
    /// It was made; `notice` says why the file that was there was not used.
    New {
        /// What was read.
        report: Box<ReadReport>,
        /// Why an old file was thrown away.
        notice: Option<String>,
    },
}

/// The token file at `path`, reused if it is whole and was made from just this, made anew otherwise.
///
/// What it was made from is told by a digest of all bytes of the data, of the tokenizer and of the options.
/// `on_bytes` hears how many bytes of text were tokenized, and may break off. The new file replaces the old
/// one in one step; a build that is broken off leaves the old one.
pub fn open_or_build(
    path: &Path,
    sources: &[Source],
    tokenizer: &Tokenizer,
    options: &TokenCacheOptions,
    on_bytes: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(TokenFile, Built), Error> {
    let key = key(sources, tokenizer, options)?;
    let notice = match stored_key(path) {
        None => None,
        Some(stored) if stored[..] == key[..] => match TokenFile::open_cache(path) {
            Ok(file) => return Ok((file, Built::Reused)),
            Err(error) => Some(error.to_string()),
        },
        Some(_) => {
            Some(format!("{}: made from other data, another tokenizer or other options", path.display()))
        }
    };
    if let Some(notice) = &notice {
        tracing::warn!("{notice}; it is made anew");
    }
    let report = Box::new(build(path, &key, sources, tokenizer, options, on_bytes)?);
    Ok((TokenFile::open_cache(path)?, Built::New { report, notice }))
}

/// The key in the header of a file that may be damaged; nothing if there is no file.
fn stored_key(path: &Path) -> Option<Vec<u8>> {
    let mut header = Vec::new();
    File::open(path).ok()?.take(HEADER as u64).read_to_end(&mut header).ok()?;
    // A file too short for a key is a file with a wrong one.
    Some(header.get(KEY).unwrap_or_default().to_vec())
}

/// The digest of everything that ids depend on.
fn key(sources: &[Source], tokenizer: &Tokenizer, options: &TokenCacheOptions) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    hash.update(format!("{VERSION} {options:?}\n"));
    for source in sources {
        hash.update(format!("{:?}\n", source.member));
        let all = files(source)?;
        let mut last: Option<&DataFile> = None;
        for file in &all {
            let name = file.shown();
            hash.update(format!("{:?}\n", name.file_name()));
            // An archive is hashed once, not once for each member.
            if last.is_none_or(|last| last.path != file.path) {
                let mut bytes = File::open(&file.path).map_err(Error::io(&file.path))?;
                absorb(&mut bytes, &mut hash).map_err(Error::io(&file.path))?;
            }
            last = Some(file);
        }
    }
    hash.update(tokenizer_digest(tokenizer));
    Ok(hash.finalize().into())
}

/// A digest of a tokenizer: all its tokens, and what it makes of a text with everything on which tokenizers
/// differ.
pub(crate) fn tokenizer_digest(tokenizer: &Tokenizer) -> [u8; 32] {
    const PROBE: &str = "The  quick\tbrown FOX isn't 12345.678, naïve café;\r\n\n    indent <|im_end|> </s> \u{4f60}\
        \u{597d}\u{ff0c}\u{4e16}\u{754c} \u{1f600}\u{200d}\u{1f525} e\u{301} \u{fb01} don't we'll I'D __init__(self): x+=1 \
        https://example.org/a?b=c&d=%20 \u{440}\u{443}\u{441}\u{441}\u{43a}\u{438}\u{439} \u{65e5}\u{672c}\u{8a9e} \u{0}\u{7f}";
    let mut hash = Sha256::new();
    for id in 0..tokenizer.n_tokens() as u32 {
        let piece = tokenizer.piece(id).unwrap_or_default();
        hash.update((piece.len() as u64).to_le_bytes());
        hash.update(piece);
        hash.update([u8::from(tokenizer.is_special(id))]);
    }
    for id in tokenizer.encode(PROBE, Special::Literal) {
        hash.update(id.to_le_bytes());
    }
    hash.finalize().into()
}

/// Writes the token file beside its place, and puts it there when it is whole.
fn build(
    path: &Path,
    key: &[u8; 32],
    sources: &[Source],
    tokenizer: &Tokenizer,
    options: &TokenCacheOptions,
    on_bytes: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<ReadReport, Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let built = (|| {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&part);
        let mut writer = Writer::new(file.map_err(Error::io(path))?, tokenizer);
        let report = fill(&mut writer, path, sources, tokenizer, options, on_bytes)?;
        writer.finish(key).map_err(Error::io(path))?;
        fs::rename(&part, path).map_err(Error::io(path))?;
        Ok(report)
    })();
    if built.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    built
}

fn fill(
    writer: &mut Writer,
    path: &Path,
    sources: &[Source],
    tokenizer: &Tokenizer,
    options: &TokenCacheOptions,
    on_bytes: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<ReadReport, Error> {
    let mut failed = None;
    let mut n_bytes = 0;
    let mut is_wanted = true;
    let report = read(sources, &options.read, &mut |row, place| {
        let written = text_of(row, place).and_then(|text| {
            if !place.continues {
                is_wanted = options.part.is_none_or(|(part, share)| part_by_hash(&text, share) == part);
            }
            n_bytes += text.len() as u64;
            if on_bytes(n_bytes).is_break() {
                return Err(Error::Cancelled);
            }
            if !is_wanted {
                return Ok(());
            }
            let ids = tokenizer.encode(&text, Special::Literal);
            writer.document(&ids, place.continues, options).map_err(Error::io(path))
        });
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut report = report?;
    if writer.starts.is_empty() {
        let data = sources.iter().map(Source::to_string).collect::<Vec<_>>().join(", ");
        report.drop("documents of the other part only", || data.clone());
        return Err(Error::NoRows { data, report: Box::new(report) });
    }
    writer.end(options).map_err(Error::io(path))?;
    Ok(report)
}

/// The text that is learnt of a row.
fn text_of(row: Row, place: &Place) -> Result<String, Error> {
    match row {
        Row::Text(text) => Ok(text),
        // The texts of a task are what its language model is tuned on (arXiv:1801.06146, section 3.2).
        Row::Classified { text, text_pair: None, .. } => Ok(text),
        Row::Classified { text, text_pair: Some(pair), .. } => Ok(text + "\n" + &pair),
        Row::Completion { prompt, completion } => Ok(prompt + &completion),
        other => Err(Error::Row {
            place: place.clone(),
            expected: "a text".to_string(),
            got: format!("a row of the kind {}", other.kind()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::token_formats::CHECKSUM;
    use super::*;
    use crate::examples::fixtures::{characters, word_pieces};
    use rhetor_tokenizer::ControlTokens;
    use std::path::PathBuf;

    struct Case {
        folder: tempfile::TempDir,
        options: TokenCacheOptions,
        tokenizer: Tokenizer,
    }

    fn case() -> Case {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "one two").unwrap();
        std::fs::write(folder.path().join("b.txt"), "three").unwrap();
        let tokenizer = characters();
        let options = TokenCacheOptions {
            read: ReadOptions { piece_bytes_max: 1 << 20, ..ReadOptions::default() },
            before: None,
            after: tokenizer.id("</s>"),
            part: None,
        };
        Case { folder, options, tokenizer }
    }

    impl Case {
        fn path(&self) -> PathBuf {
            self.folder.path().join("cache/tokens")
        }

        fn open(&self) -> (TokenFile, Built) {
            std::fs::create_dir_all(self.path().parent().unwrap()).unwrap();
            let sources = ["a.txt", "b.txt"].map(|name| Source::of(self.folder.path().join(name)));
            open_or_build(&self.path(), &sources, &self.tokenizer, &self.options, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap()
        }

        fn notice(&self) -> Option<String> {
            match self.open().1 {
                Built::Reused => None,
                Built::New { notice, .. } => Some(notice.unwrap_or_default()),
            }
        }

        fn text(&self, file: &TokenFile) -> String {
            self.tokenizer.decode(&file.tokens(0..file.n_tokens()), ControlTokens::Show)
        }
    }

    #[test]
    fn documents_are_tokenized_once_with_a_separator_after_each() {
        let case = case();
        let (file, built) = case.open();
        assert!(matches!(built, Built::New { report, notice: None } if report.n_rows == 2));
        assert_eq!(case.text(&file), "one two</s>three</s>");
        assert_eq!((file.n_documents(), file.document(0), file.document(1)), (2, 0..8, 8..14));
        let (file, built) = case.open();
        assert_eq!((built, case.text(&file).as_str()), (Built::Reused, "one two</s>three</s>"));
        let left: Vec<_> = std::fs::read_dir(case.path().parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn a_stale_file_is_made_anew_with_a_notice() {
        let mut case = case();
        assert_eq!(case.notice().as_deref(), Some(""), "there was none");
        std::fs::write(case.folder.path().join("b.txt"), "four").unwrap();
        assert!(case.notice().unwrap().contains("made from other data"));
        assert_eq!(case.text(&case.open().0), "one two</s>four</s>");
        case.options.after = None;
        assert!(case.notice().unwrap().contains("made from other data"));
        assert_eq!(case.text(&case.open().0), "one twofour");
        case.tokenizer = word_pieces();
        assert!(case.notice().unwrap().contains("another tokenizer"));
        assert_eq!(case.notice(), None);
    }

    #[test]
    fn a_damaged_file_is_never_trusted() {
        let case = case();
        case.open();
        let whole = std::fs::read(case.path()).unwrap();
        for (at, what) in [(0, "begin with RHTOKENS"), (8, "version"), (12, "ids of"), (16, "do not hold")] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(case.path(), &damaged).unwrap();
            let notice = case.notice().unwrap();
            assert!(notice.contains(what), "{notice}");
        }
        for at in [HEADER - 1, HEADER, HEADER + 3, whole.len() - 1, CHECKSUM.start] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(case.path(), &damaged).unwrap();
            let notice = case.notice().unwrap();
            assert!(notice.contains("checksum"), "{at}: {notice}");
        }
        for len in [0, 10, HEADER, whole.len() - 1] {
            std::fs::write(case.path(), &whole[..len]).unwrap();
            assert!(case.notice().is_some(), "{len}");
            assert_eq!(std::fs::read(case.path()).unwrap(), whole);
        }
    }

    #[test]
    fn a_document_in_pieces_stays_one_document() {
        let mut case = case();
        std::fs::write(case.folder.path().join("a.txt"), "one\ntwo\nthree\n").unwrap();
        let whole = case.open().0;
        case.options.read.piece_bytes_max = 4;
        let pieces = case.open().0;
        assert_eq!(case.text(&pieces), case.text(&whole));
        assert_eq!(pieces.document(0), whole.document(0));
    }

    #[test]
    fn both_parts_together_are_all_documents() {
        let mut case = case();
        let lines: String = (0..100).map(|i| format!("line {i}\n")).collect();
        std::fs::write(case.folder.path().join("a.txt"), &lines).unwrap();
        case.options.read.format = Some("lines".to_string());
        let n_all = case.open().0.n_documents();
        let n = [Part::Train, Part::Validation].map(|part| {
            case.options.part = Some((part, 0.2));
            case.open().0.n_documents()
        });
        assert!(n[0] + n[1] == n_all && n[1] > 5 && n[1] < 40, "{n:?} of {n_all}");
    }

    #[test]
    fn a_build_that_is_broken_off_leaves_the_old_file() {
        let mut case = case();
        case.open();
        let old = std::fs::read(case.path()).unwrap();
        case.options.after = None;
        let sources = [Source::of(case.folder.path().join("a.txt"))];
        let broken = open_or_build(&case.path(), &sources, &case.tokenizer, &case.options, &mut |_| {
            ControlFlow::Break(())
        });
        assert!(matches!(broken, Err(Error::Cancelled)));
        assert_eq!(std::fs::read(case.path()).unwrap(), old);
        assert_eq!(std::fs::read_dir(case.path().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn rows_that_are_no_text_are_refused_with_their_place() {
        let mut case = case();
        std::fs::write(case.folder.path().join("a.txt"), "{\"tokens\": [\"a\"], \"tags\": [\"X\"]}\n")
            .unwrap();
        case.options.read.format = Some("jsonl".to_string());
        let sources = [Source::of(case.folder.path().join("a.txt"))];
        let path = case.folder.path().join("tokens");
        let refused =
            open_or_build(
                &path,
                &sources,
                &case.tokenizer,
                &case.options,
                &mut |_| ControlFlow::Continue(()),
            )
            .unwrap_err();
        assert!(refused.to_string().ends_with("line 1: expected a text; got a row of the kind tagged words"));
        assert_eq!(std::fs::read_dir(case.folder.path()).unwrap().count(), 2, "no temporary file is left");
    }
}

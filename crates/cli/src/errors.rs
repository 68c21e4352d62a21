//! How an error of any crate reaches the person: message, hint, exit code.

use crate::exit::Exit;
use std::fmt::Display;
use std::io;
use std::path::Path;

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened; empty if nothing is to be said.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl Failure {
    /// What was given cannot be used.
    pub fn input(message: impl Display) -> Failure {
        Failure { exit: Exit::WrongInput, message: message.to_string(), hint: None }
    }

    /// What was asked cannot be done.
    pub fn refused(message: impl Display) -> Failure {
        Failure { exit: Exit::Refused, message: message.to_string(), hint: None }
    }

    /// The person broke it off.
    pub fn interrupted() -> Failure {
        Failure { exit: Exit::Interrupted, message: String::new(), hint: None }
    }

    /// Adds what may help.
    pub fn hint(self, hint: impl Display) -> Failure {
        Failure { hint: Some(hint.to_string()), ..self }
    }

    /// A file of the user's that cannot be read or written.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Failure {
        move |error| match error.kind() {
            io::ErrorKind::NotFound => Failure::input(format!("{} does not exist", path.display())),
            _ => Failure::refused(format!("{}: {error}", path.display())),
        }
    }

    /// Prints message and hint to stderr.
    pub fn print(&self) {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }
}

/// Writing to stdout failed. A reader that went away, as in `rhetor ... | head`, is no error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { exit: Exit::Done, message: String::new(), hint: None },
            _ => Failure::refused(format!("the output cannot be written: {error}")),
        }
    }
}

impl From<rhetor_store::Error> for Failure {
    fn from(error: rhetor_store::Error) -> Failure {
        use rhetor_store::Error as E;
        let message = error.to_string();
        let (exit, hint) = match &error {
            E::Reference { .. } => {
                (Exit::WrongInput, Some("see `rhetor pull --help` for what a reference is"))
            }
            E::NoFile { path } => {
                let text = path.to_string_lossy();
                let is_like_hub = text.matches('/').count() == 1 && !text.starts_with(['.', '/', '~']);
                let hint = format!("a model of the Hugging Face hub is written `hf:{text}`");
                let failure = Failure::input(message);
                return if is_like_hub { failure.hint(hint) } else { failure };
            }
            E::UnknownModel { .. } => {
                (Exit::WrongInput, Some("`rhetor list --catalogue` shows the models with short names"))
            }
            E::NotFound { .. }
            | E::FileName { .. }
            | E::Insecure { .. }
            | E::Digest { .. }
            | E::NoBlob { .. } => (Exit::WrongInput, None),
            E::NotPulled { name, .. } => {
                let hint = format!("`rhetor pull {name}` fetches it");
                return Failure::input(message).hint(hint);
            }
            E::Offline { .. } => {
                (Exit::Refused, Some("leave out --offline, or unset RHETOR_OFFLINE, to allow it"))
            }
            E::Status { status: 401 | 403, .. } => {
                (Exit::Refused, Some("the hub wants a token for some models: set RHETOR_HUB_TOKEN"))
            }
            E::Connection { .. } | E::Status { .. } => {
                (Exit::Refused, Some("what has arrived is kept: run the same command again to continue"))
            }
            E::Space { .. } | E::DiskFull { .. } => {
                (Exit::Refused, Some("free some space, or choose another disk with --home"))
            }
            E::Manifest { .. } => (Exit::Refused, Some("remove that file and pull the model again")),
            E::Cancelled => (Exit::Interrupted, None),
            E::Hash { .. } => (Exit::Refused, Some("the source and what is pinned differ; nothing was kept")),
            E::Protocol { .. } | E::Archive { .. } | E::Io { .. } => (Exit::Refused, None),
        };
        Failure { exit, message, hint: hint.map(str::to_string) }
    }
}

impl From<rhetor_formats::Error> for Failure {
    fn from(error: rhetor_formats::Error) -> Failure {
        Failure::input(error)
    }
}

impl From<rhetor_lm::Error> for Failure {
    fn from(error: rhetor_lm::Error) -> Failure {
        use rhetor_lm::Error as E;
        let hint = match &error {
            E::ContextOverflow { .. } => {
                Some("raise --context, lower --max-tokens, or allow --overflow truncate-oldest")
            }
            E::Template { .. } => Some("--raw continues the text without a chat template"),
            E::EmptyPrompt
            | E::InvalidOption { .. }
            | E::Constraint { .. }
            | E::Busy { .. }
            | E::Unsupported { .. } => None,
        };
        let exit = if matches!(error, E::Unsupported { .. } | E::Busy { .. }) {
            Exit::Refused
        } else {
            Exit::WrongInput
        };
        Failure { exit, message: error.to_string(), hint: hint.map(str::to_string) }
    }
}

impl From<rhetor_tokenizer::Error> for Failure {
    fn from(error: rhetor_tokenizer::Error) -> Failure {
        Failure::input(error)
    }
}

impl From<rhetor_models::LoadError> for Failure {
    fn from(error: rhetor_models::LoadError) -> Failure {
        Failure::input(error)
    }
}

impl From<rhetor_models::analysis::AnalysisError> for Failure {
    fn from(error: rhetor_models::analysis::AnalysisError) -> Failure {
        use rhetor_models::analysis::AnalysisError as E;
        match error {
            E::NotADecoder { .. } | E::VocabularyTooSmall { .. } => Failure::refused(error),
            E::Lengths { .. } => Failure::input(error).hint("`rhetor tokenize` shows the tokens of a text"),
            E::ContextTooShort { .. } | E::NoTokens | E::NoDifference { .. } => Failure::input(error),
        }
    }
}

impl From<rhetor_train::Error> for Failure {
    fn from(error: rhetor_train::Error) -> Failure {
        use rhetor_train::Error as E;
        let mut chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let io = chain.find_map(|error| error.downcast_ref::<io::Error>());
        let hint = match (&error, io) {
            (E::NotFinite { .. }, _) => Some(
                "the last checkpoint is intact: go on from it with --resume and a lower learning rate, or clip more",
            ),
            // A file that is not there was named wrongly.
            (_, Some(io)) if io.kind() != io::ErrorKind::NotFound => {
                Some("checkpoints that were complete are intact; --resume goes on from the newest")
            }
            (E::Checkpoint { .. }, _) => {
                Some("the same recipe, data and flags go on with a run; others begin a new one")
            }
            _ => return Failure::input(error),
        };
        let exit = if matches!(error, E::Checkpoint { .. }) { Exit::WrongInput } else { Exit::Refused };
        Failure { exit, message: error.to_string(), hint: hint.map(str::to_string) }
    }
}

impl From<rhetor_encode::Error> for Failure {
    fn from(error: rhetor_encode::Error) -> Failure {
        Failure::input(error)
    }
}

impl From<rhetor_generate::Error> for Failure {
    fn from(error: rhetor_generate::Error) -> Failure {
        Failure::input(error)
    }
}

impl From<rhetor_server::Error> for Failure {
    fn from(error: rhetor_server::Error) -> Failure {
        use rhetor_server::Error as E;
        match &error {
            E::Open { .. } => {
                Failure::input(error).hint("set --api-key, or say --insecure if everybody may use it")
            }
            E::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Failure::refused(error).hint("another server is there; --listen :PORT chooses another port")
            }
            E::Listen { .. } => Failure::refused(error),
            E::Pem { .. } => {
                Failure::input(error).hint("--tls-cert and --tls-key want PEM files: `-----BEGIN ...`")
            }
            E::Tls { .. } => Failure::input(error).hint("do certificate and key belong together?"),
            E::Key { .. } => Failure::input(error),
        }
    }
}

impl From<rhetor_models::convert::ConvertError> for Failure {
    fn from(error: rhetor_models::convert::ConvertError) -> Failure {
        match error {
            rhetor_models::convert::ConvertError::Io { .. } => Failure::refused(error),
            _ => Failure::input(error),
        }
    }
}

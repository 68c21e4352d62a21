//! The program in a folder of its own, with something small to learn.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program in a folder of its own, with nothing of the person's environment.
pub struct Shell {
    folder: tempfile::TempDir,
}

/// What a command did.
pub struct Done {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

/// A recipe for a model of 20,000 parameters from random weights, which learns `text.txt`.
pub const TINY: &str = r#"
data = ["text.txt"]
validation = "tail 10%"
tokenizer = "train characters"
windows = "anywhere"
seq-len = 32
batch-size = 8
steps = 24
learning-rate = 5e-3
warmup = 2
validate-every = 6
save-every = 5
[config]
architectures = ["LlamaForCausalLM"]
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 64
rms_norm_eps = 1e-6
tie_word_embeddings = true
"#;

impl Shell {
    /// A folder with `text.txt`, `chat.jsonl` and the recipe [`TINY`] as `tiny.toml`.
    pub fn new() -> Shell {
        let shell = Shell { folder: tempfile::tempdir().unwrap() };
        let line = |i: usize| {
            let (animal, sound) = [("cat", "meow"), ("dog", "woof"), ("cow", "moo")][i % 3];
            format!("The {animal} says {sound}, {sound}, and {} times {sound}.\n", i % 7 + 2)
        };
        shell.write("text.txt", &(0..120).map(line).collect::<String>());
        let question = |i: usize| {
            let turn = |role: &str, content: String| serde_json::json!({ "role": role, "content": content });
            let messages = [
                turn("user", format!("What is {i}?")),
                turn("assistant", format!("{} and nothing more", "one ".repeat(i % 5 + 1).trim())),
            ];
            serde_json::json!({ "messages": messages }).to_string() + "\n"
        };
        shell.write("chat.jsonl", &(0..30).map(question).collect::<String>());
        shell.write("tiny.toml", TINY);
        shell
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder.path()).env("RHETOR_HOME", self.path("home"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RHETOR_OFFLINE", "1");
        command
    }

    pub fn run(&self, args: &[&str]) -> Done {
        done(self.command(program(), args).output().unwrap())
    }

    /// Runs a line of arguments that hold no blanks.
    pub fn says(&self, line: &str) -> Done {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Begins a training and kills it when it has made `step`; a run that was quicker is begun again.
    pub fn kill_after(&self, step: u64, line: &str, out: &str) {
        for _ in 0..5 {
            let args: Vec<&str> = line.split_whitespace().chain(["--json", "--out", out]).collect();
            let mut command = self.command(program(), &args);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
                if event["step"]["step"] == step {
                    child.kill().unwrap();
                }
            }
            if child.wait().unwrap().code().is_none() {
                return;
            }
            fs::remove_dir_all(self.path(out)).unwrap();
        }
        panic!("the run ended before it could be killed");
    }

    /// The lines of a run's metrics, without what differs from run to run: the time.
    pub fn metrics(&self, out: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap();
        let line = |line: &str| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("seconds");
            value
        };
        text.lines().map(line).collect()
    }

    /// One number of each line of a kind.
    pub fn numbers(&self, out: &str, kind: &str, name: &str) -> Vec<f64> {
        let lines = self.metrics(out).into_iter().filter(|line| line["kind"] == kind);
        lines.map(|line| line[name].as_f64().unwrap()).collect()
    }

    /// Fails unless both runs left the same bytes: weights, checkpoint, metrics.
    #[track_caller]
    pub fn check_same(&self, a: &str, b: &str) {
        let read = |out: &str, name: &str| fs::read(self.path(out).join(name)).ok();
        let newest = newest_checkpoint(&self.path(a)).unwrap();
        let step = newest.file_name().unwrap().to_str().unwrap();
        let files = ["model.safetensors".to_string(), "adapter_model.safetensors".to_string()];
        let state = ["trainer.safetensors", "trainer.json"].map(|file| format!("checkpoints/{step}/{file}"));
        let mut n_same = 0;
        for file in files.iter().chain(&state) {
            assert!(read(a, file) == read(b, file), "{file} of {a} and {b} differ");
            n_same += usize::from(read(a, file).is_some());
        }
        assert_eq!(n_same, 3, "weights, the trainer's state, its counts");
        assert_eq!(self.metrics(a), self.metrics(b));
    }
}

/// The folder of the newest checkpoint of a run.
pub fn newest_checkpoint(out: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(out.join("checkpoints")).ok()?.flatten();
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    entries.map(|entry| entry.path()).filter(|path| step(path).is_some()).max_by_key(step)
}

impl Done {
    #[track_caller]
    pub fn fails(&self, code: i32, message: &str) {
        assert!(self.stderr.contains(message), "stderr: {}\nexpected: {message}", self.stderr);
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    #[track_caller]
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        &self.stdout
    }
}

pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_rhetor")
}

fn done(output: Output) -> Done {
    Done {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// A tiny chat model that knows two answers.
pub fn speaker() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("fixtures/models/llama-speaker").to_str().unwrap().to_string()
}

//! A create or a pull that is killed leaves the store intact: what is in it is whole, and the next one finishes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Moments at which a process is killed, in steps of a few milliseconds from its start.
const MOMENTS: u64 = 24;

fn rhetor(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhetor"));
    command.arg("--home").arg(home).env("RHETOR_THREADS", "1").stdin(Stdio::null());
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    rhetor(home).args(args).output().expect("the program runs")
}

fn succeed(home: &Path, args: &[&str]) {
    let output = run(home, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts the program and kills it after a while; true if it was still at work.
fn kill_after(home: &Path, args: &[&str], millis: u64) -> bool {
    let mut command = rhetor(home);
    let mut child =
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(millis));
    let was_at_work = child.try_wait().expect("it can be asked").is_none();
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    was_at_work
}

/// The names of the models in a store, each of which must be whole.
fn whole_models(home: &Path) -> Vec<String> {
    let listed = run(home, &["list", "--json"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let manifests = std::fs::read_dir(home.join("manifests")).into_iter().flatten().flatten();
    let mut names = Vec::new();
    for entry in manifests.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")) {
        let text = std::fs::read_to_string(entry.path()).expect("a manifest is text");
        let manifest: serde_json::Value = serde_json::from_str(&text).expect("a manifest is whole");
        let name = manifest["name"].as_str().expect("it has a name").to_string();
        succeed(home, &["verify", &name]);
        names.push(name);
    }
    names.sort();
    names
}

/// A server, stopped when dropped.
struct Serving {
    child: Child,
    host: String,
}

impl Serving {
    fn start(home: &Path) -> Serving {
        let mut command = rhetor(home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listens on ")).expect("it says where it listens");
        let address = line.split("listens on http://").nth(1).expect("an address follows");
        let host =
            address.split_whitespace().next().expect("an address follows").trim_end_matches('/').to_string();
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.count());
        Serving { child, host }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

#[test]
fn a_create_that_is_killed_leaves_the_old_model_or_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    let modelfile = home.path().join("Modelfile");
    std::fs::write(&modelfile, "FROM builtin\nSYSTEM one\n").unwrap();
    let path = modelfile.to_str().unwrap().to_string();
    succeed(home.path(), &["create", "m", "-f", &path]);
    let mut n_killed = 0;
    for moment in 0..MOMENTS {
        // Other files each time, so that the folder of the model changes too.
        let file = if moment % 2 == 0 { "FROM builtin\nSYSTEM a\n" } else { "FROM ./two\nSYSTEM b\n" };
        let two = home.path().join("two");
        std::fs::create_dir_all(&two).unwrap();
        std::fs::copy(home.path().join("builtin/builtin.gguf"), two.join("model.gguf")).unwrap();
        std::fs::write(&modelfile, file).unwrap();
        n_killed += u64::from(kill_after(home.path(), &["create", "m", "-f", &path], moment * 4));
        assert_eq!(whole_models(home.path()), ["m"]);
    }
    assert!(n_killed > 0, "every run ended before it was killed");
    succeed(home.path(), &["create", "m", "-f", &path]);
    succeed(home.path(), &["verify", "m"]);
    succeed(home.path(), &["rm", "m"]);
    assert!(whole_models(home.path()).is_empty());
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_that_looks_whole_and_the_next_one_finishes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let modelfile = from.path().join("Modelfile");
    std::fs::write(&modelfile, "FROM builtin\nSYSTEM far away\nPARAMETER temperature 0\n").unwrap();
    succeed(from.path(), &["create", "far", "-f", modelfile.to_str().unwrap()]);
    let serving = Serving::start(from.path());
    let name = format!("{}/library/far", serving.host);
    let mut n_killed = 0;
    for moment in 0..MOMENTS {
        n_killed += u64::from(kill_after(to.path(), &["pull", &name], moment * 4));
        let there = whole_models(to.path());
        assert!(there.is_empty() || there == std::slice::from_ref(&name), "{there:?}");
        if !there.is_empty() && moment % 2 == 0 {
            succeed(to.path(), &["rm", &name]);
        }
    }
    assert!(n_killed > 0, "every run ended before it was killed");
    succeed(to.path(), &["pull", &name]);
    assert_eq!(whole_models(to.path()), std::slice::from_ref(&name));
    let shown = run(to.path(), &["show", "--modelfile", &name]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("SYSTEM far away"));
}

//! Training in several processes over MPI. Needs the feature `mpi` and `mpirun`.
#![forbid(unsafe_code)]

#[allow(dead_code)]
mod learning;

use learning::{Shell, program};

/// Runs `line` in two processes.
fn two(shell: &Shell, line: &str) -> (Option<i32>, String) {
    let start = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2", program()];
    let args: Vec<&str> = start.into_iter().chain(line.split_whitespace()).collect();
    let output = shell.command("mpirun", &args).output().expect("mpirun is there");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn two_processes_learn_as_one_with_twice_the_batch() {
    let shell = Shell::new();
    shell.says("train tiny.toml --batch-size 8 --out one").succeeds();
    let (code, stderr) = two(&shell, "train tiny.toml --batch-size 4 --threads 1 --out two");
    assert_eq!(code, Some(0), "{stderr}");
    for kind in ["step", "validation"] {
        let (one, two) = (shell.numbers("one", kind, "loss"), shell.numbers("two", kind, "loss"));
        assert_eq!(one.len(), two.len());
        for (one, two) in one.iter().zip(&two) {
            assert!((one - two).abs() < 1e-4 * one, "{one} and {two}");
        }
    }
    let (code, stderr) = two(&shell, "train tiny.toml --batch-size 4 --threads 1 --out again");
    assert_eq!(code, Some(0), "{stderr}");
    shell.check_same("two", "again");
}

#[test]
fn if_one_process_fails_all_end() {
    let shell = Shell::new();
    let (code, stderr) =
        two(&shell, "train tiny.toml --learning-rate 1e38 --set clip=0 --threads 1 --out two");
    assert!(stderr.contains("are not finite"), "{stderr}");
    assert_eq!(code, Some(1), "{stderr}");
    let (code, stderr) = two(&shell, "train tiny.toml --objective luck --threads 1 --out three");
    assert!(stderr.contains("there is no objective `luck`"), "{stderr}");
    assert_eq!(code, Some(2), "{stderr}");
}

//! The `rhetor` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rhetor::run(std::env::args_os()).into()
}

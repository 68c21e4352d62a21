//! What every command shares: the global flags, settled.

use crate::errors::Failure;
use crate::range::range;
use rhetor_kernels::isa::{self, Isa};
use rhetor_kernels::threads;
use rhetor_store::{Network, Proxy, PullOptions, Store};
use std::path::PathBuf;

/// Flags that every command takes. Each has a twin in the environment and may stand in `rhetor.toml`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Folder of the model store [default: rhetor in the user's data folder]
    #[arg(long, env = "RHETOR_HOME", global = true, value_name = "DIR", hide_env_values = true)]
    pub home: Option<PathBuf>,

    /// Threads that compute; `bench` compares several, as in 1,2 [default: one for each CPU]
    #[arg(long, env = "RHETOR_THREADS", global = true, value_name = "N", hide_env_values = true,
          value_delimiter = ',', value_parser = range(1usize, 1024))]
    pub threads: Vec<usize>,

    /// Instruction set of the kernels: scalar, avx2, avx2-vnni, avx512, avx512-vnni [default: the best there is]
    #[arg(long, env = "RHETOR_ISA", global = true, value_name = "ISA", hide_env_values = true,
          value_parser = parse_isa)]
    pub isa: Option<Isa>,

    /// Never touch the network
    #[arg(long, env = "RHETOR_OFFLINE", global = true, hide_env_values = true,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub offline: bool,

    /// What to log on stderr: off, error, warn, info, debug, trace, or a filter such as rhetor_generate=debug
    #[arg(
        long,
        env = "RHETOR_LOG",
        global = true,
        value_name = "FILTER",
        hide_env_values = true,
        default_value = "warn"
    )]
    pub log: String,

    /// Log more, whatever --log says: -v info, -vv debug, -vvv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count,
          env = "RHETOR_VERBOSE", hide_env_values = true)]
    pub verbose: u8,

    /// Colour in messages
    #[arg(
        long,
        env = "RHETOR_COLOR",
        global = true,
        value_name = "WHEN",
        hide_env_values = true,
        default_value = "auto"
    )]
    pub color: Color,

    /// Python package index that `pypi:` and the catalogue ask
    #[arg(
        long,
        env = "RHETOR_INDEX_URL",
        global = true,
        value_name = "URL",
        hide_env_values = true,
        default_value = "https://pypi.org/simple"
    )]
    pub index_url: String,

    /// Hugging Face hub that `hf:` asks; its token is read from RHETOR_HUB_TOKEN or HF_TOKEN
    #[arg(
        long,
        env = "RHETOR_HUB_URL",
        global = true,
        value_name = "URL",
        hide_env_values = true,
        default_value = "https://huggingface.co"
    )]
    pub hub_url: String,
}

/// When messages are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// If stderr is a terminal and NO_COLOR is not set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether stderr gets colour.
    pub fn on_stderr(self) -> bool {
        use std::io::IsTerminal;
        match self {
            Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            Color::Always => true,
            Color::Never => false,
        }
    }
}

/// The global flags, settled.
#[derive(Debug, Clone)]
pub struct Session {
    /// The models on this machine.
    pub store: Store,
    /// How the network is asked.
    pub pull_options: PullOptions,
    /// Numbers of threads that compute: one, or several to be compared.
    pub thread_counts: Vec<usize>,
    /// When messages are coloured.
    pub color: Color,
}

impl Session {
    /// Settles the global flags: starts logging and chooses the instruction set. Reads no file, asks no network.
    pub fn begin(args: GlobalArgs) -> Result<Session, Failure> {
        start_log(&args)?;
        if let Some(isa) = args.isa
            && !isa::force(isa)
        {
            let have: Vec<_> = Isa::available().map(Isa::name).collect();
            return Err(Failure::input(format!(
                "this CPU cannot run {}; it has {}",
                isa.name(),
                have.join(", ")
            )));
        }
        let n_cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let token = ["RHETOR_HUB_TOKEN", "HF_TOKEN"].into_iter().find_map(|name| std::env::var(name).ok());
        let pull_options = PullOptions {
            network: if args.offline { Network::Offline } else { Network::Allowed },
            index_url: args.index_url,
            hub_url: args.hub_url,
            hub_token: token.filter(|token| !token.is_empty()),
            proxy: Proxy::try_from_env(),
            ..PullOptions::default()
        };
        let home = match args.home.filter(|home| !home.as_os_str().is_empty()) {
            Some(home) => home,
            None => data_folder().ok_or_else(|| {
                Failure::input("there is no home folder to keep models in").hint("name a folder with --home")
            })?,
        };
        Ok(Session {
            store: Store::open(&home),
            pull_options,
            thread_counts: if args.threads.is_empty() { vec![n_cpus] } else { args.threads },
            color: args.color,
        })
    }

    /// The number of threads that compute.
    pub fn n_threads(&self) -> usize {
        self.thread_counts[0]
    }

    /// Starts the threads that compute; commands that compute nothing never do.
    pub fn start_threads(&self) -> Result<(), Failure> {
        if self.thread_counts.len() > 1 {
            return Err(Failure::input("only `rhetor bench` compares several --threads"));
        }
        threads::set_threads(self.n_threads());
        Ok(())
    }
}

fn start_log(args: &GlobalArgs) -> Result<(), Failure> {
    let filter = match args.verbose {
        0 => args.log.as_str(),
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|e| Failure::input(format!("`--log {filter}` is no filter: {e}")))?;
    // Fails only if a log was started before, as in a test that runs two commands.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(args.color.on_stderr())
        .with_target(false)
        .try_init();
    Ok(())
}

fn parse_isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name)
        .ok_or_else(|| "it must be one of scalar, avx2, avx2-vnni, avx512, avx512-vnni".to_string())
}

/// `rhetor` in the folder for data of programs.
pub fn data_folder() -> Option<PathBuf> {
    user_folder("XDG_DATA_HOME", "LOCALAPPDATA", ".local/share")
}

/// `rhetor` in the folder for settings of programs.
pub fn config_folder() -> Option<PathBuf> {
    user_folder("XDG_CONFIG_HOME", "APPDATA", ".config")
}

fn user_folder(xdg: &str, windows: &str, below_home: &str) -> Option<PathBuf> {
    // The XDG base directory specification has relative paths ignored.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match absolute(xdg) {
        Some(base) => base,
        None if cfg!(windows) => absolute(windows)?,
        None => std::env::home_dir().filter(|home| home.is_absolute())?.join(below_home),
    };
    Some(base.join("rhetor"))
}

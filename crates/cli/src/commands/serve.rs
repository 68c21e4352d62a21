use super::Run;
use crate::amounts;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::interrupt;
use crate::listen;
use crate::range::range;
use crate::session::Session;
use crate::speculation::SpeculationArgs;
use rhetor_kernels::kv::KvType;
use rhetor_server::{App, Config, Server};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Serve the APIs of OpenAI and Ollama, and a web page
///
/// Listens on this machine alone unless told otherwise; other addresses need --api-key. Ctrl-C ends it: running requests
/// may go on for the time of --grace, a second Ctrl-C ends it at once.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where to listen: HOST, HOST:PORT or :PORT [default: OLLAMA_HOST, or 127.0.0.1:11434]
    #[arg(long, value_name = "ADDRESS", env = "RHETOR_LISTEN", hide_env_values = true, value_parser = listen::address)]
    listen: Option<SocketAddr>,

    #[command(flatten)]
    access: Access,

    #[command(flatten)]
    models: Models,

    #[command(flatten)]
    limits: Limits,

    /// A folder of training runs, which the web page draws
    #[arg(long, value_name = "DIR", env = "RHETOR_RUNS", hide_env_values = true)]
    runs: Option<PathBuf>,

    /// Warn of fields that are unknown or unsupported, in `warnings` of the reply, instead of refusing the request
    #[arg(long, env = "RHETOR_LENIENT", hide_env_values = true,
          value_parser = clap::builder::BoolishValueParser::new())]
    lenient: bool,

    #[command(flatten)]
    speculation: SpeculationArgs,
}

/// Who may enter, and from where.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
struct Access {
    /// A key that requests must show as `Authorization: Bearer KEY`, or its argon2 hash; may be repeated
    #[arg(long = "api-key", value_name = "KEY", env = "RHETOR_API_KEY", hide_env_values = true)]
    api_keys: Vec<String>,

    /// A file with keys, one a line; unlike --api-key it shows in no list of processes
    #[arg(long, value_name = "FILE", env = "RHETOR_API_KEY_FILE", hide_env_values = true)]
    api_key_file: Option<PathBuf>,

    /// Let everybody use it who can reach a --listen address beyond this machine
    #[arg(long)]
    insecure: bool,

    /// Certificate chain in PEM, for HTTPS
    #[arg(long, value_name = "FILE", env = "RHETOR_TLS_CERT", hide_env_values = true, requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's key in PEM
    #[arg(long, value_name = "FILE", env = "RHETOR_TLS_KEY", hide_env_values = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// An origin whose pages may call this server, such as https://example.org, or * for all; may be repeated
    #[arg(
        long = "origin",
        value_name = "ORIGIN",
        env = "RHETOR_ORIGINS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    origins: Vec<String>,

    /// A name besides localhost by which this server may be called, as behind a proxy; may be repeated
    #[arg(
        long = "host",
        value_name = "NAME",
        env = "RHETOR_HOSTS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    hosts: Vec<String>,

    /// Hosts from which pictures in requests may be fetched; without it they come in `data:` URLs only
    #[arg(
        long = "allow-image-hosts",
        value_name = "HOST",
        env = "RHETOR_IMAGE_HOSTS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    image_hosts: Vec<String>,
}

/// What may be used, and what stays in memory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Models")]
struct Models {
    /// Models and adapters that may be used [default: all of the store]
    #[arg(long, value_name = "NAME", env = "RHETOR_MODELS", hide_env_values = true, value_delimiter = ',')]
    models: Vec<String>,

    /// An adapter that requests choose by NAME: it is attached when its BASE is loaded; may be repeated
    #[arg(long = "adapter", value_name = "NAME=BASE=DIR", value_parser = adapter)]
    adapters: Vec<(String, String, PathBuf)>,

    /// Tokens of the context [default: what each model was made for, within memory]
    #[arg(long, value_name = "N", env = "RHETOR_CONTEXT", hide_env_values = true,
          value_parser = range(1usize, 1 << 30))]
    context: Option<usize>,

    /// Type of keys and values: f16, f32, q8
    #[arg(long, value_name = "TYPE", default_value = "f16", env = "RHETOR_KV", hide_env_values = true,
          value_parser = kv)]
    kv: KvType,

    /// Sequences that a model's cache has room for at once
    #[arg(long, value_name = "N", default_value_t = 64, env = "RHETOR_PARALLEL", hide_env_values = true,
          value_parser = range(1usize, 4096))]
    parallel: usize,

    /// Requests that may wait for a model; one more is told to come back later
    #[arg(long, value_name = "N", default_value_t = 512, env = "RHETOR_QUEUE", hide_env_values = true,
          value_parser = range(0usize, 1 << 20))]
    queue: usize,

    /// A folder where beginnings of prompts (256 tokens or more) are kept, for the next start to read; its files may
    /// be removed at any time
    #[arg(long, value_name = "DIR", env = "RHETOR_CACHE_DIR", hide_env_values = true)]
    cache_dir: Option<PathBuf>,

    /// Bytes of that folder; what was used longest ago goes first
    #[arg(long, value_name = "SIZE", default_value = "4GiB", env = "RHETOR_CACHE_SIZE", hide_env_values = true,
          value_parser = amounts::size, requires = "cache_dir")]
    cache_size: u64,

    /// Bytes that loaded models may take together, as in 8GiB [default: three quarters of the memory]
    #[arg(long, value_name = "SIZE", env = "RHETOR_MEMORY", hide_env_values = true, value_parser = amounts::size)]
    memory: Option<u64>,

    /// How long a model stays loaded after its last request; -1 = for ever
    #[arg(long, value_name = "TIME", default_value = "5m", env = "RHETOR_KEEP_ALIVE", hide_env_values = true,
          allow_hyphen_values = true, value_parser = KeepAlive::parse)]
    keep_alive: KeepAlive,
}

/// How much at once, and for how long.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// The largest body of a request; uploads of model files are not bounded by it
    #[arg(long, value_name = "SIZE", default_value = "32MiB", env = "RHETOR_BODY_SIZE", hide_env_values = true,
          value_parser = amounts::size)]
    body_size: u64,

    /// Connections that may be open at once; more are closed when they come
    #[arg(long, value_name = "N", default_value_t = 1000, env = "RHETOR_CONNECTIONS", hide_env_values = true,
          value_parser = range(1usize, 1 << 20))]
    connections: usize,

    /// How long a connection may be silent
    #[arg(long, value_name = "TIME", default_value = "60s", env = "RHETOR_IDLE_TIME", hide_env_values = true,
          value_parser = amounts::time)]
    idle_time: Duration,

    /// The longest time that a request may take
    #[arg(long, value_name = "TIME", default_value = "10m", env = "RHETOR_REQUEST_TIME", hide_env_values = true,
          value_parser = amounts::time)]
    request_time: Duration,

    /// How long running requests may go on once the server is told to stop
    #[arg(long, value_name = "TIME", default_value = "30s", env = "RHETOR_GRACE", hide_env_values = true,
          value_parser = amounts::time)]
    grace: Duration,
}

/// A time, or for ever.
#[derive(Debug, Clone, Copy)]
struct KeepAlive(Option<Duration>);

impl KeepAlive {
    fn parse(text: &str) -> Result<KeepAlive, String> {
        amounts::time_or_forever(text).map(KeepAlive)
    }
}

fn adapter(text: &str) -> Result<(String, String, PathBuf), String> {
    let mut parts = text.splitn(3, '=');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(base), Some(dir)) if ![name, base, dir].contains(&"") => {
            Ok((name.to_string(), base.to_string(), PathBuf::from(dir)))
        }
        _ => Err("expected NAME=BASE=DIR, as in pirate=smollm2-135m-instruct=runs/pirate".to_string()),
    }
}

fn kv(text: &str) -> Result<KvType, String> {
    KvType::from_name(text).ok_or_else(|| "there are f16, f32 and q8".to_string())
}

impl Serve {
    fn config(self, session: &Session) -> Result<Config, Failure> {
        let Serve { listen, access, models, limits, speculation, runs, lenient } = self;
        let listen = match (listen, std::env::var("OLLAMA_HOST")) {
            (Some(address), _) => address,
            (None, Ok(host)) if !host.is_empty() => {
                listen::address(&host).map_err(|reason| Failure::input(format!("OLLAMA_HOST: {reason}")))?
            }
            (None, _) => Config::default().listen,
        };
        let mut api_keys = access.api_keys;
        if let Some(file) = &access.api_key_file {
            let text = std::fs::read_to_string(file).map_err(Failure::file(file))?;
            let before = api_keys.len();
            api_keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string));
            if api_keys.len() == before {
                return Err(Failure::input(format!("{} has no key", file.display())));
            }
        }
        for (name, _, dir) in &models.adapters {
            if !dir.is_dir() {
                let message = format!("the adapter {name}: {} is no folder", dir.display());
                return Err(Failure::input(message));
            }
        }
        Ok(Config {
            listen,
            api_keys: api_keys.into_iter().map(Into::into).collect(),
            insecure: access.insecure,
            tls: access.tls_cert.zip(access.tls_key),
            origins: access.origins,
            hosts: access.hosts,
            image_hosts: access.image_hosts,
            lenient,
            runs,
            models: models.models,
            adapters: models.adapters,
            context: models.context,
            kv: models.kv,
            drafter: speculation.drafter(session)?,
            parallel: models.parallel,
            queue: models.queue,
            cache_dir: models.cache_dir,
            cache_bytes: models.cache_size,
            memory: models.memory,
            keep_alive: models.keep_alive.0,
            body_bytes: limits.body_size as usize,
            connections: limits.connections,
            idle_time: limits.idle_time,
            request_time: limits.request_time,
            grace: limits.grace,
        })
    }
}

impl Run for Serve {
    const NAME: &str = "serve";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        session.start_threads()?;
        let config = self.config(session)?;
        let is_open = config.api_keys.is_empty() && !config.listen.ip().is_loopback();
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        // A request has a thread while it waits for its model or listens to it, for two models at least.
        let n_blocking = 2 * (config.parallel + config.queue) + 64;
        let app = App::new(config, session.store.clone(), session.pull_options.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(n_blocking)
            .enable_all()
            .build()
            .map_err(|error| Failure::refused(format!("no threads for a server: {error}")))?;
        let farewell = runtime.block_on(async {
            let server = Server::listen(app).await?;
            eprintln!("rhetor listens on {scheme}://{}", server.address());
            if is_open {
                eprintln!("warning: --insecure: everybody who can reach this address may use it");
            }
            server.run(interrupt::stopped()).await
        })?;
        // What was broken off and does not end by itself is not waited for.
        runtime.shutdown_timeout(Duration::from_millis(100));
        let (finished, cut) = (farewell.n_finished, farewell.n_cut);
        if finished + cut > 0 {
            eprintln!(
                "rhetor stops; of the requests that were running {finished} were finished, {cut} broken off"
            );
        }
        Ok(Exit::Done)
    }
}

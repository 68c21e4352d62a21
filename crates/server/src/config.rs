//! How a server is set up.

use crate::doors::ApiKey;
use rhetor_generate::DrafterOptions;
use rhetor_kernels::kv::KvType;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server is set up. The command line has a flag for each field.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Keys of which one must be shown; empty = none is wanted, which is allowed on loopback only.
    pub api_keys: Vec<ApiKey>,
    /// Listen on other addresses than loopback without a key.
    pub insecure: bool,
    /// Certificate chain and key in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Origins besides the server's own whose pages may call it, as `https://example.org`; `*` = all.
    pub origins: Vec<String>,
    /// Names besides loopback's by which the server may be called in `Host`.
    pub hosts: Vec<String>,
    /// Warn of unknown and unsupported fields instead of refusing them.
    pub lenient: bool,
    /// Models that may be used; empty = all of the store.
    pub models: Vec<String>,
    /// Adapters that requests may choose: the name they use, the base model, the folder.
    pub adapters: Vec<(String, String, PathBuf)>,
    /// Tokens of the context; `None` = what each model was made for, within memory.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub kv: KvType,
    /// What guesses tokens ahead for every model that writes; a model for which it cannot is not loaded.
    pub drafter: Option<DrafterOptions>,
    /// Sequences that a model answers at once.
    pub parallel: usize,
    /// Requests that may wait for a model; more are told to come back later.
    pub queue: usize,
    /// Bytes that loaded models may take together; `None` = three quarters of the machine's memory.
    pub memory: Option<u64>,
    /// How long a model stays loaded after its last request; `None` = for ever.
    pub keep_alive: Option<Duration>,
    /// Where prefixes of prompts are kept across restarts; `None` = nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of that.
    pub cache_bytes: u64,
    /// A folder of training runs that the page may draw.
    pub runs: Option<PathBuf>,
    /// Hosts from which pictures may be fetched; empty = pictures come in the request only.
    pub image_hosts: Vec<String>,
    /// The largest body of a request, in bytes; uploads of model files have no limit but the disk.
    pub body_bytes: usize,
    /// Connections that may be open at once; more are closed when they come.
    pub connections: usize,
    /// How long a connection may be silent: before and in the midst of a head, and between pieces of a body.
    pub idle_time: Duration,
    /// The longest time that a request may take.
    pub request_time: Duration,
    /// How long running requests may go on once the server is told to stop.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 11434)),
            api_keys: Vec::new(),
            insecure: false,
            tls: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            lenient: false,
            models: Vec::new(),
            adapters: Vec::new(),
            context: None,
            kv: KvType::F16,
            drafter: None,
            parallel: 64,
            queue: 512,
            memory: None,
            keep_alive: Some(Duration::from_secs(300)),
            cache_dir: None,
            cache_bytes: 4 << 30,
            runs: None,
            image_hosts: Vec::new(),
            body_bytes: 32 << 20,
            connections: 1000,
            idle_time: Duration::from_secs(60),
            request_time: Duration::from_secs(600),
            grace: Duration::from_secs(30),
        }
    }
}

//! What every route shares.

use crate::config::Config;
use crate::embed_queue::EmbedQueue;
use crate::residents::Residents;
use rhetor_store::{PullOptions, Store};
use std::sync::Arc;

/// What every route shares.
pub struct App {
    /// How the server is set up.
    pub config: Config,
    /// The models on this machine.
    pub store: Store,
    /// How the network is asked.
    pub pull_options: PullOptions,
    /// The models in memory.
    pub(crate) residents: Residents,
    /// Texts that wait for their vectors.
    pub(crate) embed_queue: Arc<EmbedQueue>,
}

impl App {
    /// A server's insides, with no model loaded.
    pub fn new(config: Config, store: Store, pull_options: PullOptions) -> App {
        let residents = Residents::new(config.memory, config.keep_alive);
        App { config, store, pull_options, residents, embed_queue: Arc::default() }
    }
}

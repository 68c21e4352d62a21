//! What every route shares.

use crate::config::Config;
use crate::details::KnownDetails;
use crate::doors::Bodies;
use crate::embed_queue::EmbedQueue;
use crate::metrics::Metrics;
use crate::residents::Residents;
use crate::response_store::ResponseStore;
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
    /// What is known of models without loading them.
    pub(crate) details: KnownDetails,
    /// Texts that wait for their vectors.
    pub(crate) embed_queue: Arc<EmbedQueue>,
    /// Responses that may be asked for again.
    pub(crate) responses: ResponseStore,
    /// What has been done so far.
    pub(crate) metrics: Arc<Metrics>,
    /// Room for the bodies of requests.
    pub(crate) bodies: Bodies,
}

impl App {
    /// A server's insides, with no model loaded.
    pub fn new(config: Config, store: Store, pull_options: PullOptions) -> App {
        let metrics = Arc::new(Metrics::default());
        let residents = Residents::new(&config, metrics.clone());
        let bodies = Bodies::new(config.body_bytes);
        let embed_queue = Arc::default();
        let responses = ResponseStore::default();
        let details = KnownDetails::default();
        App { config, store, pull_options, residents, details, embed_queue, responses, metrics, bodies }
    }
}

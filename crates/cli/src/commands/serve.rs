use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::interrupt;
use crate::session::Session;
use rhetor_server::{App, Config, Server};
use std::net::SocketAddr;

/// Serve the APIs of OpenAI and Ollama, and a web page
///
/// Listens on this machine alone unless told otherwise; other addresses need --api-key.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:11434")]
    listen: SocketAddr,

    /// A key that requests must show as `Authorization: Bearer KEY`; may be repeated
    #[arg(
        long = "api-key",
        value_name = "KEY",
        env = "RHETOR_API_KEY",
        hide_env_values = true,
        value_delimiter = ','
    )]
    api_keys: Vec<String>,
}

impl Run for Serve {
    const NAME: &str = "serve";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        session.start_threads()?;
        let config = Config {
            listen: self.listen,
            api_keys: self.api_keys.into_iter().map(Into::into).collect(),
            ..Config::default()
        };
        let app = App::new(config, session.store.clone(), session.pull_options.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::refused(format!("no threads for a server: {error}")))?;
        runtime.block_on(async {
            let server = Server::listen(app).await?;
            eprintln!("rhetor listens on http://{}", server.address());
            server.run(interrupt::stopped()).await?;
            Ok(Exit::Done)
        })
    }
}

//! Accepts connections and answers them until told to stop.

use crate::app::App;
use crate::doors;
use crate::error::Error;
use crate::routes::ROUTES;
use axum::Router;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// All routes behind the doors.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.methods)());
    }
    doors::guard(router.with_state(app.clone()), &app)
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
}

impl Server {
    /// Begins to listen; nothing is answered before [`Server::run`].
    pub async fn listen(app: App) -> Result<Server, Error> {
        let address = app.config.listen;
        if !address.ip().is_loopback() && app.config.api_keys.is_empty() && !app.config.insecure {
            return Err(Error::Open { address });
        }
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Server { listener, app: Arc::new(app) })
    }

    /// Where it listens; the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.app.config.listen)
    }

    /// Answers requests until `stop` is done.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let address = self.address();
        axum::serve(self.listener, router(self.app))
            .with_graceful_shutdown(stop)
            .await
            .map_err(|source| Error::Listen { address, source })
    }
}

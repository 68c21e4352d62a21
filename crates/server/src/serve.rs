//! Accepts connections and answers them until told to stop.
//!
//! HTTP/1.1 over TCP or TLS. A connection that is one too many is closed at once; one that is silent for too long, in the
//! midst of a head or between requests, is closed too. Once told to stop, nothing new is accepted, running requests go on
//! for the time of grace, then they are broken off: streams still say how they ended.

use crate::app::App;
use crate::doors;
use crate::error::Error;
use crate::refusal::Refusal;
use crate::routes::ROUTES;
use crate::tls;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, StatusCode, Uri};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Headers of one request.
const HEADERS: usize = 100;
/// Bytes of one request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long broken off requests have for their last words.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// All routes behind the doors.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.methods)());
    }
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    doors::guard(router.with_state(app.clone()), &app)
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no route {method} {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is no method of {}", uri.path()))
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Arc<App>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Farewell {
    /// Requests that were running when it was told to stop, and came to their own end.
    pub n_finished: u64,
    /// Requests that were broken off when the time of grace was over.
    pub n_cut: u64,
}

impl Server {
    /// Begins to listen; nothing is answered before [`Server::run`].
    pub async fn listen(app: App) -> Result<Server, Error> {
        let config = &app.config;
        let address = config.listen;
        if let Some(reason) = config.api_keys.iter().find_map(doors::ApiKey::fault) {
            return Err(Error::Key { reason });
        }
        if !address.ip().is_loopback() && config.api_keys.is_empty() && !config.insecure {
            return Err(Error::Open { address });
        }
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Server { listener, tls, app: Arc::new(app) })
    }

    /// Where it listens; the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.app.config.listen)
    }

    /// What its routes share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Answers requests until `stop` is done, and those that run then for the time of grace.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<Farewell, Error> {
        let Server { listener, tls, app } = self;
        let router = router(app.clone());
        let room = Arc::new(Semaphore::new(app.config.connections));
        let (tell, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
                // Ended ones are forgotten.
                Some(_) = connections.join_next() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    // No more files, for instance: others must end first.
                    if !is_of_one_connection(&error) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    continue;
                }
            };
            let Ok(place) = room.clone().try_acquire_owned() else {
                app.metrics.connections_refused.fetch_add(1, Relaxed);
                continue;
            };
            let one = Connection {
                app: app.clone(),
                router: router.clone(),
                tls: tls.clone(),
                stopping: stopping.clone(),
            };
            connections.spawn(async move {
                let _open = (place, one.app.metrics.connect());
                one.answer(stream).await;
            });
        }
        drop(listener);
        let n_running = app.metrics.n_in_flight();
        tracing::info!(n_running, "stop");
        tell.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        let mut all = pin!(all);
        if tokio::time::timeout(app.config.grace, &mut all).await.is_ok() {
            return Ok(Farewell { n_finished: n_running, n_cut: 0 });
        }
        let n_cut = app.metrics.n_in_flight();
        app.residents.cancel_all();
        // What does not end even then ends with the runtime.
        let _ = tokio::time::timeout(LAST_WORDS, &mut all).await;
        Ok(Farewell { n_finished: n_running.saturating_sub(n_cut), n_cut })
    }
}

/// Whether accepting failed because of the one who called, who has gone again.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused)
}

/// What answers one connection.
struct Connection {
    app: Arc<App>,
    router: Router,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn answer(&self, stream: TcpStream) {
        // Tokens are small and wanted at once.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.serve(stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "handshake"),
                Err(_) => tracing::debug!("handshake: too slow"),
            },
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = self.router.clone().map_request(|request: hyper::Request<_>| request.map(Body::new));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            // Counts from the end of the last reply too, so that silent connections end.
            .header_read_timeout(self.app.config.idle_time)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        let mut stopping = self.stopping.clone();
        let told = async { drop(stopping.wait_for(|stopping| *stopping).await) };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection");
        }
    }
}

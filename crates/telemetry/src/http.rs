//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, `/api/status`, `/api/history`, `/api/tables`, and a live page
//! at `/`.
//!
//! It only reads. Every answer is computed from the [`Board`] when it is asked for.

mod ask;
mod listen;
mod listener;
mod page;
mod tls;
mod token;
mod watched;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::listen::{Socketed, listen_at};
use self::listener::LimitedListener;
use self::tls::Tls;
use self::token::Token;
use self::watched::Watched;
use crate::{Board, ReadyRules, TelemetryError};

pub use self::ask::ask;
pub use self::listen::{Entrance, Listen, NoPlace, TlsFiles};

/// The text format's version, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nothing is ever uploaded.
const BODY_LIMIT_BYTES: usize = 16 << 10;

/// The page loads from here and nowhere else, and nobody may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How the server judges.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// After how long without a heartbeat of the main loop `/healthz` fails.
    pub max_heartbeat_age: Duration,
    /// When `/readyz` succeeds.
    pub ready: ReadyRules,
    /// How long open connections may take to end at shutdown.
    pub shutdown_grace: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_heartbeat_age: Duration::from_secs(60),
            ready: ReadyRules::default(),
            shutdown_grace: Duration::from_secs(1),
        }
    }
}

/// A server that listens and does not answer yet.
pub struct HttpServer {
    socket: Socketed,
    tls: Option<Tls>,
    token: Option<Arc<Watched<Token>>>,
    place: Listen,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("place", &self.place).finish_non_exhaustive()
    }
}

struct Shared {
    board: Arc<Board>,
    options: HttpOptions,
}

type Reader = State<Arc<Shared>>;

impl HttpServer {
    /// Listens on `address` (`HOST:PORT`; port 0 picks a free one), without TLS, for whoever gets there.
    ///
    /// # Errors
    /// [`TelemetryError::Listen`], with the address and the way out.
    pub async fn bind(address: &str) -> Result<Self, TelemetryError> {
        let listen = |source| TelemetryError::listen(address, source);
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let place = Listen::Tcp(listener.local_addr().map_err(listen)?);
        Ok(Self { socket: Socketed::Tcp(listener), tls: None, token: None, place })
    }

    /// Listens at an entrance. Certificates, keys and tokens are read now, and again whenever their files change.
    ///
    /// # Errors
    /// [`TelemetryError::Listen`] and [`TelemetryError::File`], with the way out.
    pub async fn open(entrance: &Entrance) -> Result<Self, TelemetryError> {
        // Files first: who listens answers.
        let tls = entrance.tls.as_ref().map(Tls::new).transpose()?;
        let token = entrance.token_file.as_deref().map(Token::watch).transpose()?;
        let server = match &entrance.listen {
            Listen::Tcp(address) => Self::bind(&address.to_string()).await?,
            Listen::Unix(path) => {
                let place = entrance.listen.clone();
                Self { socket: listen_at(path)?, tls: None, token: None, place }
            }
        };
        Ok(Self { tls, token, ..server })
    }

    /// Where it listens.
    #[must_use]
    pub fn place(&self) -> &Listen {
        &self.place
    }

    /// The TCP address that it listens on; `None`: on a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        }
    }

    /// Answers until `shutdown` completes, then lets open connections end, within the grace.
    pub async fn serve(
        self,
        board: Arc<Board>,
        options: HttpOptions,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let grace = options.shutdown_grace;
        let app = token::protect(router(Arc::new(Shared { board, options })), self.token);
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let server = axum::serve(LimitedListener::new(self.socket, self.tls), app).with_graceful_shutdown(
            async move {
                shutdown.await;
                stopping.cancel();
            },
        );
        let late = async {
            stopped.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            // It cannot fail; axum's signature only says that it might.
            result = server => if let Err(error) = result { debug!("the HTTP server ended: {error}") },
            () = late => debug!("connections to the HTTP server were cut off at shutdown"),
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(page::routes())
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/status", get(status))
        .route("/api/history", get(history))
        .route("/api/tables", get(tables))
        .fallback(any(async || {
            let paths =
                ["/", "/metrics", "/healthz", "/readyz", "/api/status", "/api/history", "/api/tables"];
            (StatusCode::NOT_FOUND, Json(json!({ "error": "there is nothing here", "paths": paths })))
        }))
        .method_not_allowed_fallback(async || {
            let error = "this server only answers GET and HEAD";
            (StatusCode::METHOD_NOT_ALLOWED, Json(json!({ "error": error })))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(map_response(with_headers))
        .with_state(shared)
}

/// What every answer carries.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn metrics(State(shared): Reader) -> Response {
    match shared.board.render_metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(failure) => {
            error!("the metrics cannot be written: {failure}");
            let body = Json(json!({ "error": "the metrics cannot be written; the log says why" }));
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
    }
}

/// Whether the main loop goes round. A flow that has failed is alive: restarting it would not mend it.
async fn healthz(State(shared): Reader) -> Response {
    let age = shared.board.beat_age_seconds();
    let alive = age <= shared.options.max_heartbeat_age.as_secs_f64();
    let body = Json(json!({ "alive": alive, "heartbeat_age_seconds": age }));
    (if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body).into_response()
}

async fn readyz(State(shared): Reader) -> Response {
    let reasons = shared.board.not_ready(&shared.options.ready);
    let ready = reasons.is_empty();
    let body = Json(json!({ "ready": ready, "reasons": reasons }));
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body).into_response()
}

async fn status(State(shared): Reader) -> Response {
    Json(shared.board.snapshot()).into_response()
}

async fn history(State(shared): Reader) -> Response {
    Json(shared.board.history()).into_response()
}

async fn tables(State(shared): Reader) -> Response {
    Json(shared.board.tables()).into_response()
}

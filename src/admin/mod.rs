//! The HTTP side: health, metrics, counters over HTTP, an API to look inside, and a page.
//!
//! It has a thread and a runtime of its own: whatever a browser does, it does not hold up a
//! session. Counters take the way of a client's request ([`session::ask`](crate::session::ask)),
//! so that they share its table, its lanes and its promises. Everything else only reads.
//!
//! ```text
//!  admin thread: sampler (once a second) ──> board ──> API, stream of events ──> page
//!                POST /visit/{id}, GET /visits/{id} ──> ask ──> table, lane
//! ```

mod api;
mod board;
mod connection;
mod guard;
mod health;
mod page;
mod reload;
mod sampler;
mod trends;
mod view;
mod visits;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, middleware};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Changes, Faults};
use crate::session::{Answer, Shared, ask};
use crate::telemetry::clock::now;
use board::Board;
use connection::{Listener, Peer};

/// The thread of the HTTP side.
pub struct Admin {
    state: Arc<State>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

/// What all requests share.
struct State {
    shared: Shared,
    /// Whether clients can connect.
    serving: Arc<AtomicBool>,
    board: Mutex<Board>,
    /// The last event of the stream.
    reload: Reload,
    events: watch::Sender<Arc<str>>,
    streams: Arc<Semaphore>,
    /// Milliseconds from the start to the last look at a counter.
    looked_ms: AtomicU64,
}

/// Reads the configuration anew and applies what can change.
pub type Reload = Box<dyn Fn() -> Result<Changes, Faults> + Send + Sync>;

/// Serves `listener`, if there is one, on a thread of its own until [`Admin::end`]. Without it the
/// thread watches keys all the same, for `TALLY HOTKEYS`.
///
/// # Errors
///
/// No thread, no runtime.
pub fn start(listener: Option<TcpListener>, shared: Shared, reload: Reload) -> io::Result<Admin> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    shared.stats.seen.watch();
    let state = Arc::new(State {
        board: Mutex::new(Board::new(shared.router.nodes().len())),
        events: watch::Sender::new(Arc::from("{}")),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        looked_ms: AtomicU64::new(0),
        serving: Arc::new(AtomicBool::new(false)),
        reload,
        shared,
    });
    let served = serve(listener, Arc::clone(&state), stop.clone());
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(served) {
                tracing::error!(%error, "the HTTP side ended");
            }
        })?;
    Ok(Admin {
        state,
        stop,
        thread,
    })
}

impl Admin {
    /// To be set when clients can connect: from then on `/readyz` says so too.
    pub fn serving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.state.serving)
    }

    /// Ends the thread, and with it every request.
    pub fn end(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the thread of the HTTP side panicked");
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

async fn serve(
    listener: Option<TcpListener>,
    state: Arc<State>,
    stop: CancellationToken,
) -> io::Result<()> {
    let Some(listener) = listener else {
        tokio::select! {
            () = sampler::run(&state) => {}
            () = stop.cancelled() => {}
        }
        return Ok(());
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let listener = Listener::new(listener, Arc::clone(&state));
    tracing::info!(address = %listener.address()?, "HTTP");
    let service = routes(Arc::clone(&state)).into_make_service_with_connect_info::<Peer>();
    let served = async { axum::serve(listener, service).await };
    tokio::select! {
        served = served => served,
        () = sampler::run(&state) => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/visit/{page_id}", post(visits::record))
        .route("/visits/{page_id}", get(visits::count))
        .route("/api/v1/summary", get(api::summary))
        .route("/api/v1/nodes", get(api::nodes))
        .route("/api/v1/counters", get(api::counters))
        .route("/api/v1/counters/{key}", get(api::counter))
        .route("/api/v1/hotkeys", get(api::hot_keys))
        .route("/api/v1/slowlog", get(api::slow_log))
        .route("/api/v1/limits", get(api::limits))
        .route("/api/v1/series", get(api::series))
        .route("/api/v1/stream", get(api::stream))
        .route("/api/v1/reload", post(reload::reload))
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "there is no such page"))
        .method_not_allowed_fallback(async || {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(middleware::from_fn_with_state(
            Arc::clone(&state),
            guard::guard,
        ))
        .with_state(state)
}

impl State {
    /// Notes that somebody looks at counters: the sampler asks for values that are not known here.
    fn look(&self) {
        let elapsed = now().saturating_duration_since(self.shared.started);
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.looked_ms.store(ms, Ordering::Relaxed);
    }

    fn is_looked_at(&self) -> bool {
        let elapsed = now().saturating_duration_since(self.shared.started);
        let looked = Duration::from_millis(self.looked_ms.load(Ordering::Relaxed));
        !looked.is_zero() && elapsed.saturating_sub(looked) < LOOKED_FOR
    }

    /// Asks as a client would, but not for ever.
    async fn ask(
        &self,
        database: u32,
        request: &[&[u8]],
        counted: bool,
    ) -> Result<Answer, Failure> {
        let bound = self.shared.live().upstream.hard_timeout;
        let answer = ask(&self.shared, database, request, counted);
        tokio::time::timeout(bound, answer).await.map_err(|_| {
            let text = format!("the node has no room within {bound:?}");
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }
}

/// What went wrong, as JSON: `{"status":"error","message":...}`.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// What the error reply `text` of a command means: the node is away, or it refused the command.
    fn of_reply(text: &[u8]) -> Self {
        let away = text.starts_with(b"ERR node ");
        let status = if away {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::CONFLICT
        };
        let text = String::from_utf8_lossy(text);
        Self::new(status, text.trim_end())
    }
}

/// The path can not be understood.
impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// The query can not be understood.
impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            status: &'static str,
            message: String,
        }
        let body = Body {
            status: "error",
            message: self.message,
        };
        (self.status, Json(body)).into_response()
    }
}

/// Pages open at once; each costs a connection and an event a second.
const MAX_STREAMS: usize = 32;

/// For how long after the last look at counters their values are asked for.
const LOOKED_FOR: Duration = Duration::from_secs(10);

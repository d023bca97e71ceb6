//! The HTTP room: one router, every surface in it, each in its own words. A surface is a row of [`DIALECTS`]; it
//! translates requests into control's verbs and views into its own JSON, and never decides anything. What all share
//! stands here: request ids, the envelope by path, 405, 413, HEAD, OPTIONS and the net under a panic (CONTRACT 0.1
//! to 0.4).

pub mod admin;
pub mod agent_tools;
pub mod claude_phone;
pub mod door;
pub mod download;
pub mod fault;
pub mod fields;
pub mod gate;
pub mod hamming;
pub mod idempotency;
pub mod kaphila;
pub mod metrics;
pub mod openapi;
pub mod phony;
pub mod traffic;
pub mod voxforge;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::clock;
use crate::control::admission::Admission;
use crate::control::idempotency::Idempotency;
use crate::control::{Calls, Rooms};
use crate::relay;
use crate::webhook::{Figures, Format};

use fault::Fault;
use openapi::Routes;
use traffic::Traffic;

/// What every handler is given.
#[derive(Clone)]
pub struct App {
    /// The rooms below, for reads.
    pub rooms: Rooms,
    /// Who may ask.
    pub admission: Arc<Admission>,
    /// The verbs.
    pub calls: Arc<Calls>,
    /// What was done before.
    pub idempotency: Idempotency,
    /// How many WebSockets each key has.
    pub sockets: phony::sockets::Places,
    /// What relay sessions are held with.
    pub relay: relay::Desk,
    /// When this process began to serve.
    pub started: Instant,
    /// What was asked of it so far.
    pub traffic: Arc<Traffic>,
    /// What became of webhooks so far.
    pub deliveries: Arc<Figures>,
}

impl App {
    /// Control over these rooms, ready to be asked.
    pub fn new(rooms: Rooms, means: relay::Means) -> Self {
        let admission = Arc::new(Admission::new(Arc::clone(&rooms.config), rooms.db.clone()));
        let idempotency = Idempotency::new(rooms.db.clone());
        let calls = Arc::new(Calls::new(rooms.clone()));
        let (sockets, started) = (phony::sockets::Places::default(), clock::now().mono);
        let relay = relay::Desk::new(rooms.clone(), Arc::clone(&calls), means);
        let (traffic, deliveries) = (Arc::default(), Arc::default());
        Self { rooms, admission, calls, idempotency, sockets, relay, started, traffic, deliveries }
    }

    /// The same, which can tell of the webhooks of this worker.
    #[must_use]
    pub fn telling_of(self, deliveries: Arc<Figures>) -> Self {
        Self { deliveries, ..self }
    }

    /// Refuses new calls from here on; what is live goes on.
    pub fn drain(&self) {
        self.calls.drain();
    }
}

/// One HTTP surface.
pub struct Dialect {
    /// Its name.
    pub name: &'static str,
    /// Where its routes hang; empty: at the top.
    pub mounts: &'static [&'static str],
    /// Paths that begin so wear its envelope; the longest match wins. The first row also has every other path.
    pub prefixes: &'static [&'static str],
    /// Its routes, relative to its mounting point, each with its documentation.
    pub routes: fn(&App) -> Routes,
    /// Its words for what went wrong.
    pub envelope: fn(&Fault) -> Response,
    /// Its webhooks, if it sends any.
    pub format: Option<&'static dyn Format>,
}

/// Every surface that is served.
pub const DIALECTS: &[Dialect] = &[
    kaphila::DIALECT,
    phony::DIALECT,
    hamming::DIALECT,
    claude_phone::DIALECT,
    voxforge::DIALECT,
    admin::DIALECT,
];

/// The webhook forms of all surfaces, for the journal and the webhook worker.
pub const FORMATS: &[&dyn Format] = &[
    &kaphila::events::Kaphila,
    &hamming::events::Hamming,
    &claude_phone::events::ClaudePhone,
    &voxforge::events::VoxForge,
];

/// Carries each response's id, for support and for the logs.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The whole HTTP service. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: address lists of
/// keys are judged by the peer.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    let mut document = openapi::document();
    for dialect in DIALECTS {
        let (routes, documented) = (dialect.routes)(&app).into_parts();
        openapi::include(&mut document, documented, dialect.mounts.first().copied().unwrap_or_default());
        for mount in dialect.mounts {
            let routes = routes.clone();
            router = if mount.is_empty() { router.merge(routes) } else { router.nest(mount, routes) };
        }
    }
    let (figures, documented) = metrics::routes(&app).into_parts();
    openapi::include(&mut document, documented, "");
    wrapped(router.merge(figures).merge(openapi::routes(&document)), &app.traffic).with_state(app)
}

/// What stands around the routes of all surfaces, from the inside out. Bodies are bounded by the gate.
fn wrapped<S: Clone + Send + Sync + 'static>(routes: Router<S>, traffic: &Arc<Traffic>) -> Router<S> {
    routes
        .fallback(|| async { Fault::UnknownPath })
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(traffic), edge))
}

/// The dialect whose envelope a path wears.
fn dialect_of(path: &str) -> &'static Dialect {
    let under = |mount: &str| {
        let rest = path.strip_prefix(mount).filter(|_| !mount.is_empty());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounted = |d: &&Dialect| d.mounts.iter().any(|mount| under(mount));
    if let Some(dialect) = DIALECTS.iter().find(mounted) {
        return dialect;
    }
    let length = |d: &Dialect| d.prefixes.iter().filter(|p| path.starts_with(**p)).map(|p| p.len()).max();
    let longest = DIALECTS.iter().filter_map(|d| length(d).map(|len| (len, d))).max_by_key(|(len, _)| *len);
    longest.map_or(&DIALECTS[0], |(_, dialect)| dialect)
}

/// The outermost layer: gives faults their words, answers OPTIONS, and puts an id on every response.
async fn edge(State(traffic): State<Arc<Traffic>>, request: Request, next: Next) -> Response {
    let begun = clock::now().mono;
    let dialect = dialect_of(request.uri().path());
    let (method, route) = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
    let options = method == Method::OPTIONS;
    let mut response = next.run(request).await;
    let mut fault = response.extensions_mut().remove::<Fault>();
    if fault.is_none() && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        if options {
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().remove(header::CONTENT_LENGTH);
        } else {
            fault = Some(Fault::MethodNotAllowed);
        }
    }
    if let Some(fault) = fault {
        traffic.refused(&fault);
        response = worded(dialect, &fault, &response);
    }
    let took = clock::now().mono.duration_since(begun);
    traffic.count(&method, route.as_ref(), response.status().as_u16(), took);
    response.headers_mut().insert(REQUEST_ID, request_id());
    response
}

/// The dialect's words in place of a bare response, whose headers (Allow, rate windows) stay.
fn worded(dialect: &Dialect, fault: &Fault, bare: &Response) -> Response {
    let mut response = (dialect.envelope)(fault);
    for (name, value) in bare.headers() {
        if *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().extend(fault.headers());
    response
}

/// `req_` and 32 hex digits.
fn request_id() -> HeaderValue {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return HeaderValue::from_static("req_unknown");
    }
    let text = format!("req_{:032x}", u128::from_be_bytes(bytes));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("req_unknown"))
}

/// A panic in a handler is a bug with an alert; the client is told no more than that something broke.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request handler panicked");
    Fault::Broken.into_response()
}

/// A JSON response, `application/json; charset=utf-8`.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let Ok(bytes) = serde_json::to_vec(body) else {
        // Only maps with keys that are no text fail here, and the surfaces have none.
        tracing::error!("a response could not be written as JSON");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;

//! The gate in front of every route that needs a key: size of the body, key, origin and scope, then the rate window
//! (CONTRACT 0.3). What passes carries its [`Caller`] and its whole body.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use super::App;
use super::fault::Fault;
use crate::clock;
use crate::control::admission::{Counted, Credentials};
use crate::control::rate::Rate;
use crate::control::{Caller, Failure, Refusal};
use crate::model::Now;

/// A body must have arrived in this time.
const BODY_WITHIN: Duration = Duration::from_secs(15);

/// A request waits no longer than this for its note in the database.
const TOUCH_WITHIN: Duration = Duration::from_millis(100);

/// Of a body that is too large the largest that would do and this much more is read and dropped, so that a client
/// that writes before it reads still gets its answer. What is larger has its connection closed.
const DRAIN_MAX_BYTES: usize = 1024 * 1024;

/// And no longer than this.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// The gate of one group of routes.
#[derive(Clone)]
pub struct Gate {
    /// What is behind it.
    pub app: App,
    /// The surface that must be enabled for the key; `None` for what is no customer's surface.
    pub surface: Option<&'static str>,
    /// What the key must be for.
    pub scope: Option<&'static str>,
    /// The window in which a request counts.
    pub counted: Counted,
    /// Largest body, bytes, where it is not the configured one.
    pub body_max: Option<usize>,
}

/// Put on a request by a door before the gate: whoever sends it needs no key, and acts in this key's name.
#[derive(Clone, Copy, Debug)]
pub struct StandIn(
    /// The key's public id.
    pub &'static str,
);

/// The middleware of a [`Gate`].
pub async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let now = clock::now();
    let (mut parts, body) = request.into_parts();
    let max = gate.body_max.unwrap_or(gate.app.rooms.config.http.max_body_bytes);
    let body = match read_body(&parts.method, &parts.headers, body, max).await {
        Ok(body) => body,
        Err(fault) => return fault.into_response(),
    };
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let shown = credentials(&parts.headers, peer);
    let admission = &gate.app.admission;
    let identified = match parts.extensions.get::<StandIn>() {
        Some(StandIn(key)) => admission.stand_in(key, &shown, gate.surface, gate.scope, now).await,
        None => admission.identify(&shown, gate.surface, gate.scope, now).await,
    };
    let caller = match identified {
        Ok(caller) => caller,
        Err(failure) => return Fault::from(failure).into_response(),
    };
    touch(&gate.app, &caller, now).await;
    let rate = match gate.app.admission.count(gate.counted, &caller, now).await {
        Ok(rate) => rate,
        Err(failure) => return Fault::from(failure).into_response(),
    };
    let mut response = match rate {
        Some(rate) if !rate.allowed => {
            Fault::Refused(Refusal::RateLimited { retry_after_s: rate.retry_after_s() }).into_response()
        }
        _ => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
    };
    if let Some(rate) = rate {
        response.headers_mut().extend(rate_headers(rate, now));
    }
    response
}

/// Notes when the key was last used. A note that cannot be made is no reason to refuse.
async fn touch(app: &App, caller: &Caller, now: Now) {
    let (db, key) = (app.rooms.db.clone(), caller.key.id);
    let noting = tokio::spawn(async move {
        if let Err(error) = db.touch_key(key, now.wall).await {
            tracing::warn!(error = %Failure::from(error), "the key's last use could not be noted");
        }
    });
    // It is written all the same when it takes longer, as it may while another program holds the database.
    let _ = tokio::time::timeout(TOUCH_WITHIN, noting).await;
}

/// What a request shows of its sender.
pub(super) fn credentials(headers: &HeaderMap, peer: Option<SocketAddr>) -> Credentials<'_> {
    let authorization = headers.get_all(header::AUTHORIZATION).iter().map(|v| v.to_str().ok()).collect();
    let forwarded = headers.get_all("x-forwarded-for").iter();
    // A hop that is no text is kept as one that is no address.
    let forwarded_for = forwarded.map(|v| v.to_str().unwrap_or("?")).collect();
    Credentials { authorization, peer, forwarded_for }
}

fn rate_headers(rate: Rate, now: Now) -> [(HeaderName, HeaderValue); 3] {
    let resets_ms = i64::try_from(rate.resets_in.as_millis()).unwrap_or(i64::MAX);
    let reset = now.wall.plus_ms(resets_ms).plus_ms(999).seconds();
    [
        (HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(rate.limit)),
        (HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(rate.remaining)),
        (HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(reset)),
    ]
}

/// The whole body, at most `max` bytes. The bodies of GET and HEAD mean nothing and are not read.
///
/// # Errors
/// [`Fault::TooLarge`], [`Fault::TooSlow`], or a body that broke off.
pub(super) async fn read_body(
    method: &Method,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Vec<u8>, Fault> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Vec::new());
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let mut body = body;
    if announced.is_some_and(|bytes| bytes > max) {
        // A client that waits for "100 Continue" has not begun to send.
        if !headers.contains_key(header::EXPECT) {
            drain(body, max).await;
        }
        return Err(Fault::TooLarge);
    }
    match tokio::time::timeout(BODY_WITHIN, collect(&mut body, max)).await {
        Ok(Err(Fault::TooLarge)) => {
            drain(body, max).await;
            Err(Fault::TooLarge)
        }
        Ok(read) => read,
        Err(_) => Err(Fault::TooSlow),
    }
}

async fn collect(body: &mut Body, max: usize) -> Result<Vec<u8>, Fault> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Bad("Request body could not be read".into()))?;
        if let Some(data) = frame.data_ref() {
            if kept.len() + data.len() > max {
                return Err(Fault::TooLarge);
            }
            kept.extend_from_slice(data);
        }
    }
    Ok(kept)
}

async fn drain(mut body: Body, max: usize) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > max.saturating_add(DRAIN_MAX_BYTES) {
                return;
            }
        }
    };
    if tokio::time::timeout(DRAIN_WITHIN, reading).await.is_err() {
        tracing::debug!("a body that is too large was not read to its end");
    }
}

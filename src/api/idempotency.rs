//! The `Idempotency-Key` header of routes that make something (CONTRACT 0.5). It stands behind the gate, so that a
//! repeat counts in the rate window like any request.

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http_body_util::{BodyExt, Collected};

use super::App;
use super::fault::{self, Fault};
use crate::clock;
use crate::control::Caller;
use crate::control::idempotency::{Begun, Claim};
use crate::store::idempotency::{KeptAnswer, RequestName};

/// Longest value of the header.
const NAME_MAX_CHARS: usize = 128;

/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The layer of one surface's routes.
#[derive(Clone)]
pub struct Once {
    /// What is behind it.
    pub app: App,
    /// The surface's words: refusals are kept as they were worded.
    pub envelope: fn(&Fault) -> Response,
}

impl Once {
    /// A handler whose repeats are given the first answer.
    pub fn around(&self, making: MethodRouter<App>) -> MethodRouter<App> {
        making.route_layer(middleware::from_fn_with_state(self.clone(), pass))
    }
}

/// The middleware of [`Once`]. A request without the header passes untouched.
pub async fn pass(
    State(once): State<Once>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match begin(&once, &caller, request).await {
        Ok((request, None)) => next.run(request).await,
        Ok((request, Some(Begun::First(claim)))) => {
            // A task of its own: who hangs up and asks again shall find the answer, not a second call.
            let doing = tokio::spawn(async move {
                let response = next.run(request).await;
                keep(&claim, response, once.envelope).await
            });
            doing.await.unwrap_or_else(|error| fault::broken("a request", &error).into_response())
        }
        Ok((_, Some(Begun::Repeat(answer)))) => repeated(answer),
        Err(fault) => fault.into_response(),
    }
}

/// The request with what it turns out to be; nothing where it has no name.
async fn begin(once: &Once, caller: &Caller, request: Request) -> Result<(Request, Option<Begun>), Fault> {
    let Some(name) = name(request.headers())? else { return Ok((request, None)) };
    let (parts, body) = request.into_parts();
    // The gate has read the body already; this copies nothing that could fail.
    let unreadable = |_| Fault::Bad("Request body could not be read".into());
    let body = body.collect().await.map_err(unreadable)?.to_bytes();
    let request = RequestName { key: caller.key.id, path: path(&parts), name };
    let begun = once.app.idempotency.begin(request, &body, clock::now().wall).await?;
    Ok((Request::from_parts(parts, Body::from(body)), Some(begun)))
}

/// The path as the document has it, whichever way a surface was reached. What is left of it where it is mounted would
/// not do: two surfaces may both have a `/tenants`.
fn path(parts: &Parts) -> String {
    let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(whole)| whole);
    let mount = super::dialect_of(whole.path()).mounts.first().copied().unwrap_or_default();
    format!("{mount}{}", parts.uri.path())
}

/// The header's value, if it is there.
fn name(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible = |text: &&str| {
        (1..=NAME_MAX_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let only = values.next().is_none();
    let text = value.to_str().ok().filter(visible).filter(|_| only);
    let bad = || Fault::Bad("Idempotency-Key must be 1 to 128 visible ASCII characters".into());
    text.map(|text| Some(text.to_owned())).ok_or_else(bad)
}

/// Keeps an answer, unless it is one that may be another the next time. One that cannot be kept is given all the
/// same: what it tells of has been done.
async fn keep(claim: &Claim, response: Response, envelope: fn(&Fault) -> Response) -> Response {
    let worded = response.extensions().get::<Fault>().map(envelope);
    let status = worded.as_ref().unwrap_or(&response).status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes) else {
        return Fault::Broken.into_response();
    };
    let told = match worded {
        Some(worded) => worded.into_body().collect().await.map(Collected::to_bytes).ok(),
        None => Some(body.clone()),
    };
    if let Some(text) = told.and_then(|bytes| String::from_utf8(bytes.into()).ok())
        && let Err(error) = claim.keep(status.as_u16(), text, clock::now().wall).await
    {
        tracing::error!(%error, "an answer could not be kept for repeats");
    }
    Response::from_parts(parts, Body::from(body))
}

fn repeated(answer: KeptAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[&[u8]]) -> Result<Option<String>, Fault> {
        let value = |bytes: &&[u8]| HeaderValue::from_bytes(bytes).unwrap();
        let pairs = values.iter().map(|bytes| (HeaderName::from_static("idempotency-key"), value(bytes)));
        name(&pairs.collect())
    }

    #[test]
    fn a_name_is_one_word_of_visible_characters() {
        assert_eq!(named(&[]), Ok(None));
        let longest = "x".repeat(128);
        for fine in ["a", "!", "~", "\"quoted\"", "0b5c-3f_2/4", &longest] {
            assert_eq!(named(&[fine.as_bytes()]), Ok(Some(fine.to_owned())));
        }
        let too_long = "x".repeat(129);
        let bad: [&[&[u8]]; 7] = [
            &[b""],
            &[b"a b"],
            &[b"a\tb"],
            &["é".as_bytes()],
            &[b"\xff"],
            &[too_long.as_bytes()],
            &[b"a", b"a"],
        ];
        for values in bad {
            assert!(matches!(named(values), Err(Fault::Bad(_))), "{values:?}");
        }
    }
}

//! Requests to the services that the operator has configured: voices, recognisers, language models.
//!
//! This room owns the HTTP client and the WebSocket ([`socket`]) to them, their time limits, the one repetition of a
//! request that may have been unlucky, and the words for what went wrong. It never knows what a service says, and
//! never logs a body, a text or a key. Addresses are the operator's own and are believed; redirects are not followed,
//! for a key must not travel on.

pub mod bench;
pub mod socket;

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, timeout, timeout_at};

/// Time for name, TCP and TLS.
pub const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Time for the first byte of an answer.
pub const FIRST_BYTE_TIME: Duration = Duration::from_secs(5);
/// Longest pause within an answer.
pub const STALL_TIME: Duration = Duration::from_secs(5);
/// How long the second attempt waits after a refusal that may pass.
const AGAIN_AFTER: Duration = Duration::from_millis(150);
/// A service that wants a longer pause than this is not asked again.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// Why a service gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection: name, network, TLS.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long to begin, paused for too long, or did not come to an end.
    #[error("it took too long")]
    Late,
    /// It refused, with this HTTP status.
    #[error("it answered with status {0}")]
    Status(u16),
    /// Its answer is not what it should be; what is wrong, never the answer itself.
    #[error("it answered {0}")]
    Answer(&'static str),
    /// The connection broke within an answer.
    #[error("the connection broke")]
    Broken,
    /// The setting that leads to it makes no request.
    #[error("its settings make no request: {0}")]
    Settings(&'static str),
}

/// The client. Clones share its connections, which are kept warm for a minute.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// One request. Holds keys, so it is never printed.
#[derive(Clone)]
pub struct Order {
    /// Where to.
    pub url: String,
    /// Headers; all values are treated as secret.
    pub headers: Vec<(&'static str, String)>,
    /// The body, POSTed.
    pub body: Bytes,
}

/// An answer with a status of success, whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    response: reqwest::Response,
}

impl Client {
    /// A client with the limits of this room.
    ///
    /// # Errors
    /// [`Trouble::Settings`] where TLS cannot be set up.
    pub fn new() -> Result<Self, Trouble> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(Duration::from_secs(60))
            .build();
        client.map(Self).map_err(|_| Trouble::Settings("TLS cannot be set up"))
    }

    /// Sends a request and waits for the head of its answer, `within` in all. A refusal that may pass (429, 5xx) and
    /// a connection that was not made are tried once more, since nothing has been answered yet.
    ///
    /// # Errors
    /// [`Trouble`], also for each status that is not 2xx.
    pub async fn send(&self, order: &Order, within: Duration) -> Result<Answer, Trouble> {
        let until = Instant::now() + within;
        let first = match self.attempt(order, until).await {
            Err((trouble, Some(pause))) if Instant::now() + pause < until => {
                tokio::time::sleep(pause).await;
                tracing::debug!(%trouble, "a service is asked once more");
                self.attempt(order, until).await
            }
            other => other,
        };
        first.map_err(|(trouble, _)| trouble)
    }

    /// One attempt; with a failure, how long to wait for another, if one makes sense.
    async fn attempt(&self, order: &Order, until: Instant) -> Result<Answer, (Trouble, Option<Duration>)> {
        let mut request = self.0.post(&order.url).body(order.body.clone());
        for (name, value) in &order.headers {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| (Trouble::Settings("a header cannot hold its value"), None))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        match timeout_at(until, request.send()).await {
            Err(_) => Err((Trouble::Late, None)),
            Ok(Err(error)) if error.is_builder() => Err((Trouble::Settings("its address"), None)),
            Ok(Err(error)) if error.is_timeout() => Err((Trouble::Unreachable, None)),
            Ok(Err(error)) if error.is_connect() => Err((Trouble::Unreachable, Some(AGAIN_AFTER))),
            // A kept connection may close under a request.
            Ok(Err(_)) => Err((Trouble::Broken, Some(Duration::ZERO))),
            Ok(Ok(response)) if response.status().is_success() => Ok(Answer { response }),
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let passes = status == 429 || status >= 500;
                Err((Trouble::Status(status), passes.then(|| pause(&response)).flatten()))
            }
        }
    }
}

/// How long to wait: what `Retry-After` says in seconds (RFC 9110 §10.2.3), unless that is long.
fn pause(response: &reqwest::Response) -> Option<Duration> {
    let Some(said) = response.headers().get(RETRY_AFTER) else { return Some(AGAIN_AFTER) };
    let seconds = said.to_str().ok().and_then(|text| text.trim().parse().ok());
    seconds.map(Duration::from_secs).filter(|pause| *pause <= AGAIN_AFTER_MAX)
}

impl Answer {
    /// The media type without its parameters, in lower case; empty where none is given.
    pub fn kind(&self) -> String {
        let given = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        given.and_then(|value| value.split(';').next()).unwrap_or("").trim().to_ascii_lowercase()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`Trouble::Late`] after a pause of [`STALL_TIME`], [`Trouble::Broken`] for a body cut short.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        self.chunk_within(STALL_TIME).await
    }

    /// The same for whoever waits so long.
    ///
    /// # Errors
    /// [`Trouble::Late`] after that time, [`Trouble::Broken`] for a body cut short.
    pub async fn chunk_within(&mut self, within: Duration) -> Result<Option<Bytes>, Trouble> {
        match timeout(within, self.response.chunk()).await {
            Err(_) => Err(Trouble::Late),
            Ok(chunk) => chunk.map_err(|_| Trouble::Broken),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Trouble`]; [`Trouble::Answer`] for one of more than `most` bytes.
    pub async fn whole(mut self, most: usize) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > most {
                return Err(Trouble::Answer("too much"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// `base` and `path` with one slash between them.
pub fn joined(base: &str, path: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'))
}

/// The header that shows a key in the common way; none where there is no key.
pub fn bearer(key: &str) -> Option<(&'static str, String)> {
    (!key.is_empty()).then(|| ("authorization", format!("Bearer {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_with_one_slash() {
        for base in ["http://h/v1", "http://h/v1/"] {
            assert_eq!(joined(base, "/audio"), "http://h/v1/audio");
            assert_eq!(joined(base, "audio"), "http://h/v1/audio");
        }
        assert_eq!(bearer(""), None);
        assert_eq!(bearer("k"), Some(("authorization", "Bearer k".to_owned())));
    }
}

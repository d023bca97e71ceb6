//! One attempt: body and secrets read, URL checked, request signed and sent, answer read away. What follows from it is
//! decided elsewhere. Nothing of an answer is kept but its status and its `Retry-After`.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};

use super::guard::{self, Resolver, UrlRefused};
use super::{Format, Outcome, WorkerError, sign};
use crate::clock;
use crate::config::Webhooks;
use crate::model::Timestamp;
use crate::store::Db;
use crate::store::outbox::{Content, Delivery};

/// Bytes of a receiver's answer that are read (and thrown away) so that its connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;

/// Time for reading them: a receiver that drips must not hold its lane.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Time for name, TCP and TLS. Shorter than any dialect's total, so that a receiver that never accepts counts as
/// unreachable and not as slow.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// Idle connections are closed before common servers close theirs (5 s), because an event that runs into a closing
/// connection may or may not have been processed.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// An HTTP client for addresses that customers name: no redirects, no proxies, no retries of its own, names only through
/// the guard.
///
/// # Errors
/// A setting that cannot be read; no TLS.
pub fn client(config: &Webhooks) -> Result<reqwest::Client, WorkerError> {
    let server = match config.resolver.trim() {
        "" => None,
        text => {
            let wrong = || WorkerError::ResolverAddress(text.to_owned());
            let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| (ip, 53).into()));
            Some(address.map_err(|_| wrong())?)
        }
    };
    let resolver = Resolver::new(server, guard::allowed(config)?);
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(config.max_concurrent_per_host)
        .dns_resolver(resolver)
        .build()?;
    Ok(client)
}

/// What one attempt needs.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) db: Db,
    pub(super) client: reqwest::Client,
    pub(super) config: Webhooks,
}

/// What came of one attempt, and how long it took.
pub(super) struct Made {
    pub(super) outcome: Outcome,
    pub(super) at: Timestamp,
    /// To the end of the answer's headers, or to the failure.
    pub(super) took: Duration,
}

impl Attempt {
    /// `None`: the database could not be read, nothing was sent.
    pub(super) async fn make(
        &self,
        delivery: &Delivery,
        format: Option<&'static dyn Format>,
    ) -> Option<Made> {
        let begun = clock::now();
        let at = begun.wall;
        let done = |outcome| Made { outcome, at, took: clock::now().mono.duration_since(begun.mono) };
        let Some(format) = format else { return Some(done(Outcome::Refused)) };
        let Content { body, endpoint, secrets } = self.db.delivery_content(delivery.id, at).await.ok()??;
        let secrets = match &endpoint {
            Some(endpoint) => self.db.endpoint_secrets(endpoint, at).await.ok()?,
            None => secrets,
        };
        if endpoint.is_some() && secrets.is_empty() {
            // It was deleted while this waited.
            return Some(done(Outcome::Refused));
        }
        let url = match guard::check_url(&delivery.url, &self.config) {
            Ok(url) => url,
            Err(refused) => {
                note(delivery, &refused);
                return Some(done(Outcome::Refused));
            }
        };
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, format.user_agent())
            .header("webhook-id", &delivery.event_id)
            .header("webhook-timestamp", at.seconds())
            .header("x-webhook-attempt", delivery.attempts + 1);
        if let Some(signed) = sign::signatures(&secrets, &delivery.event_id, at.seconds(), body.as_bytes()) {
            request = request.header("webhook-signature", signed);
        }
        let own = secrets.first().and_then(|newest| format.own_signature(newest, body.as_bytes()));
        if let Some((name, value)) = own {
            request = request.header(name, value);
        }
        let sent = tokio::time::timeout(format.timeout(), request.body(body).send()).await;
        let made = match sent {
            Err(_) => done(Outcome::TimedOut),
            Ok(Err(error)) => done(outcome_of(&error)),
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let retry_after = retry_after(response.headers(), at);
                let made = done(Outcome::Answered { status, retry_after });
                // An answer that is not read to its end costs the connection and nothing else.
                let _ = tokio::time::timeout(ANSWER_TIME, read_away(response)).await;
                made
            }
        };
        let result = made.outcome.describe();
        tracing::debug!(event = %delivery.event_id, host = %delivery.host, result, "webhook");
        Some(made)
    }
}

fn note(delivery: &Delivery, refused: &UrlRefused) {
    tracing::warn!(event = %delivery.event_id, host = %delivery.host, %refused, "webhook not sent");
}

async fn read_away(mut response: reqwest::Response) {
    let mut left = ANSWER_MAX;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn outcome_of(error: &reqwest::Error) -> Outcome {
    if guard::is_forbidden(error) {
        Outcome::Refused
    } else if error.is_connect() {
        Outcome::Unreachable
    } else if error.is_timeout() {
        Outcome::TimedOut
    } else {
        Outcome::Broken
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let ms = date.timestamp().as_millisecond().saturating_sub(now.0);
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        headers
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = Timestamp(784_111_777_000);
        assert_eq!(retry_after(&headers("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:50:37 GMT"), now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:00:00 GMT"), now), Some(Duration::ZERO));
        for text in ["", "-5", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(&headers(text), now), None, "{text}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let with = |resolver: &str| Webhooks { resolver: resolver.into(), ..Webhooks::default() };
        assert!(client(&with("127.0.0.1")).is_ok());
        assert!(client(&with("[::1]:5353")).is_ok());
        assert!(matches!(client(&with("dns.example")), Err(WorkerError::ResolverAddress(_))));
        let cidrs = Webhooks { allow_cidrs: vec!["10/8".into()], ..Webhooks::default() };
        assert!(matches!(client(&cidrs), Err(WorkerError::Cidr(_))));
    }
}

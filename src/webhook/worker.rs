//! The worker: the thin shell that claims due rows, sends them and writes down what `schedule` decides. One task
//! claims and settles, one short task for each attempt talks to the receiver. What is under way is known in memory
//! alone: after a crash those rows are simply due again, under the same `webhook-id`.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::guard::{self, Resolver, UrlRefused};
use super::schedule::{After, UnderWay, outlived};
use super::{Format, Outcome, sign};
use crate::clock;
use crate::config::Webhooks;
use crate::model::Timestamp;
use crate::model::cidr::NotCidr;
use crate::store::outbox::{Delivery, Settled, Settlement};
use crate::store::{Db, StoreError};

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

/// The pause after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// The longest sleep: a guard against a lost wake-up, not a rhythm.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How long [`WorkerHandle::stop`] waits for attempts under way.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Why the worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// `webhooks.allow_cidrs`.
    #[error("webhooks.allow_cidrs: {0}")]
    Cidr(#[from] NotCidr),
    /// `webhooks.resolver`.
    #[error("webhooks.resolver: {0:?} is not an address like 127.0.0.1:53")]
    ResolverAddress(String),
    /// `webhooks.time_scale`.
    #[error("webhooks.time_scale must be a number from 0 up")]
    TimeScale,
    /// The HTTP client.
    #[error("webhook client: {0}")]
    Client(#[from] reqwest::Error),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl WorkerHandle {
    /// Begins no more attempts, waits a few seconds for those under way and returns. What is left waits in the
    /// outbox for the next start.
    pub async fn stop(self) {
        // An error means that the task is gone already.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// An attempt that is over. Without an outcome it was never made, because the database could not be read.
struct Finished {
    delivery: Delivery,
    outcome: Option<Outcome>,
}

/// Sends what the outbox holds.
pub struct Worker {
    db: Db,
    formats: Vec<&'static dyn Format>,
    config: Webhooks,
    client: reqwest::Client,
    under_way: UnderWay,
    finished: Vec<Finished>,
    chance: ChaCha8Rng,
}

impl Worker {
    /// Starts the worker. `wake` is told when rows were enqueued.
    pub fn start(
        db: Db,
        formats: Vec<&'static dyn Format>,
        config: &Webhooks,
        wake: Arc<Notify>,
    ) -> Result<WorkerHandle, WorkerError> {
        if !(config.time_scale.is_finite() && config.time_scale >= 0.0) {
            return Err(WorkerError::TimeScale);
        }
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|_| WorkerError::Random)?;
        let worker = Self {
            db,
            formats,
            config: config.clone(),
            client: client(config)?,
            under_way: UnderWay::new(config.max_concurrent, config.max_concurrent_per_host),
            finished: Vec::new(),
            chance: ChaCha8Rng::from_seed(seed),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.run(wake, stopped));
        Ok(WorkerHandle { stop, task })
    }

    async fn run(mut self, wake: Arc<Notify>, mut stopped: oneshot::Receiver<()>) {
        let (done, mut results) = mpsc::channel(self.config.max_concurrent.max(1));
        loop {
            let sleep = self.turn(&done).await;
            tokio::select! {
                _ = &mut stopped => break,
                _ = results.recv_many(&mut self.finished, self.config.max_concurrent.max(1)) => {}
                () = wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
        let finish = async {
            // The last events of a call wait behind one another: each that is delivered lets the next one go.
            loop {
                self.turn(&done).await;
                if self.under_way.is_empty() {
                    break;
                }
                if results.recv_many(&mut self.finished, self.config.max_concurrent.max(1)).await == 0 {
                    break;
                }
            }
        };
        if tokio::time::timeout(STOP_TIME, finish).await.is_err() {
            tracing::warn!("webhook attempts were cut off by the stop; they are due again at the next start");
        }
    }

    /// Writes down what is over, begins what may begin, and says how long nothing more is due.
    async fn turn(&mut self, done: &mpsc::Sender<Finished>) -> Duration {
        let unread = self.finished.iter().any(|finished| finished.outcome.is_none());
        let result = match self.settle().await {
            Ok(()) if unread => return DATABASE_PAUSE,
            Ok(()) => self.fill(done).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::error!(%error, "the webhook worker cannot use the database; it tries again");
                DATABASE_PAUSE
            }
        }
    }

    /// One transaction for all attempts that are over. On an error nothing is forgotten.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.finished.is_empty() {
            return Ok(());
        }
        let now = clock::now().wall;
        let mut tx = self.db.begin().await?;
        for Finished { delivery, outcome } in &self.finished {
            let Some(outcome) = outcome else { continue };
            let call_ended = tx.call_ended(delivery.call).await?;
            let chance = f64::from(self.chance.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
            let time_scale = self.config.time_scale;
            let after = After { delivery, outcome, call_ended, now, time_scale, chance };
            let settlement = match format_of(&self.formats, &delivery.dialect) {
                Some(format) => after.settlement(format),
                None => Settlement::Failed,
            };
            tx.settle(&settled(delivery, settlement, outcome), now).await?;
        }
        tx.commit().await?;
        for finished in self.finished.drain(..) {
            self.under_way.end(finished.delivery.id);
        }
        Ok(())
    }

    /// Begins attempts until nothing more is due or a cap is reached.
    async fn fill(&mut self, done: &mpsc::Sender<Finished>) -> Result<Duration, StoreError> {
        let mut now = clock::now().wall;
        while !self.under_way.is_full() {
            now = clock::now().wall;
            let full_hosts = self.under_way.full_hosts();
            let due = self.db.claim(now, self.under_way.page(), &full_hosts).await?;
            let (old, due): (Vec<_>, Vec<_>) = due.into_iter().partition(outlived);
            let moved_on = self.drop_outlived(&old, now).await?;
            let begun = due.into_iter().filter(|delivery| self.begin(delivery, done)).count();
            if begun == 0 && !moved_on {
                break;
            }
        }
        // After the moment of the last look, not after this one: what fell due in between was not seen.
        let next = self.db.next_due(now).await?;
        Ok(next.map_or(LONGEST_SLEEP, |next| sleep_until(now, next)))
    }

    /// Live events that failed before their call ended make room for the rest of their lane.
    async fn drop_outlived(&self, old: &[Delivery], now: Timestamp) -> Result<bool, StoreError> {
        let idle: Vec<_> = old.iter().filter(|delivery| !self.under_way.contains(delivery.id)).collect();
        if idle.is_empty() {
            return Ok(false);
        }
        let mut tx = self.db.begin().await?;
        for delivery in &idle {
            let mut settled = settled(delivery, Settlement::Dropped, &Outcome::Unreachable);
            settled.attempts = delivery.attempts;
            settled.result = "the call ended first".to_owned();
            tx.settle(&settled, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    fn begin(&mut self, delivery: &Delivery, done: &mpsc::Sender<Finished>) -> bool {
        if !self.under_way.begin(delivery) {
            return false;
        }
        let format = format_of(&self.formats, &delivery.dialect);
        let attempt =
            Attempt { db: self.db.clone(), client: self.client.clone(), config: self.config.clone() };
        let (delivery, done) = (delivery.clone(), done.clone());
        tokio::spawn(async move {
            let outcome = attempt.make(&delivery, format).await;
            // The worker has stopped: the row is due again at the next start.
            let _ = done.send(Finished { delivery, outcome }).await;
        });
        true
    }
}

/// The one HTTP client: no redirects, no proxies, no retries of its own, names only through the guard.
fn client(config: &Webhooks) -> Result<reqwest::Client, WorkerError> {
    let server = match config.resolver.trim() {
        "" => None,
        text => {
            let wrong = || WorkerError::ResolverAddress(text.to_owned());
            let address = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| (ip, 53).into()));
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
struct Attempt {
    db: Db,
    client: reqwest::Client,
    config: Webhooks,
}

impl Attempt {
    /// `None`: the database could not be read, nothing was sent.
    async fn make(&self, delivery: &Delivery, format: Option<&'static dyn Format>) -> Option<Outcome> {
        let Some(format) = format else { return Some(Outcome::Refused) };
        let now = clock::now().wall;
        let body = self.db.delivery_body(delivery.id).await.ok()??;
        let secrets = self.db.webhook_secrets(delivery.key, now).await.ok()?;
        let url = match guard::check_url(&delivery.url, &self.config) {
            Ok(url) => url,
            Err(refused) => {
                note(delivery, &refused);
                return Some(Outcome::Refused);
            }
        };
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, format.user_agent())
            .header("webhook-id", &delivery.event_id)
            .header("webhook-timestamp", now.seconds())
            .header("x-webhook-attempt", delivery.attempts + 1);
        if let Some(signed) = sign::signatures(&secrets, &delivery.event_id, now.seconds(), body.as_bytes()) {
            request = request.header("webhook-signature", signed);
        }
        let sent = tokio::time::timeout(format.timeout(), request.body(body).send()).await;
        let outcome = match sent {
            Err(_) => Outcome::TimedOut,
            Ok(Err(error)) => outcome_of(&error),
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let retry_after = retry_after(response.headers(), now);
                // An answer that is not read to its end costs the connection and nothing else.
                let _ = tokio::time::timeout(ANSWER_TIME, read_away(response)).await;
                Outcome::Answered { status, retry_after }
            }
        };
        tracing::debug!(event = %delivery.event_id, host = %delivery.host, result = outcome.describe(), "webhook");
        Some(outcome)
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

fn format_of(formats: &[&'static dyn Format], dialect: &str) -> Option<&'static dyn Format> {
    formats.iter().find(|format| format.name() == dialect).copied()
}

fn settled(delivery: &Delivery, settlement: Settlement, outcome: &Outcome) -> Settled {
    Settled {
        id: delivery.id,
        call: delivery.call,
        url: delivery.url.clone(),
        attempts: delivery.attempts + 1,
        settlement,
        status: outcome.status(),
        result: outcome.describe(),
    }
}

fn sleep_until(now: Timestamp, next: Timestamp) -> Duration {
    let ms = u64::try_from(next.0.saturating_sub(now.0)).unwrap_or(0);
    Duration::from_millis(ms).min(LONGEST_SLEEP)
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

//! A customer's webhook receiver that writes everything down and answers as told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::until;

/// One delivery as it came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) wall: Timestamp,
    pub(crate) method: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) json: Value,
}

impl Delivery {
    /// The event's name.
    pub(crate) fn event(&self) -> &str {
        self.json["event"].as_str().unwrap_or_default()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// How to answer a delivery, given it and the number of deliveries before it.
pub(crate) type Rule = fn(&Value, usize) -> (u16, Duration);

/// Answers everything at once with 200.
pub(crate) fn at_once(_: &Value, _: usize) -> (u16, Duration) {
    (200, Duration::ZERO)
}

/// A running receiver.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Delivery>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Delivery>>>,
    rule: Rule,
}

impl Receiver {
    /// Starts one that is content with everything.
    pub(crate) async fn start() -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), at_once).await
    }

    /// Starts one that answers by a rule.
    pub(crate) async fn ruled(rule: Rule) -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), rule).await
    }

    /// Starts one at an address.
    pub(crate) async fn on(addr: SocketAddr, rule: Rule) -> Self {
        // One that was dropped a moment ago may still hold the port.
        let listener = until(5.0, "the port is free", async || TcpListener::bind(addr).await.ok()).await;
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Shared { seen: Arc::default(), rule };
        let seen = shared.seen.clone();
        let router = Router::new().fallback(take).with_state(shared);
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the receiver serves");
        });
        Self { addr, seen, task }
    }

    /// Where to send.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks/calls", self.addr)
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.seen.lock().expect("no test panics here").clone()
    }

    /// The events' names so far.
    pub(crate) fn events(&self) -> Vec<String> {
        self.all().iter().map(|delivery| delivery.event().to_owned()).collect()
    }

    /// How often an event came.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.all().iter().filter(|delivery| delivery.event() == event).count()
    }

    /// Waits for an event.
    pub(crate) async fn wait(&self, event: &str) -> Delivery {
        self.wait_nth(event, 1).await
    }

    /// Waits until an event has come `n` times; the last of them.
    pub(crate) async fn wait_nth(&self, event: &str, n: usize) -> Delivery {
        let deadline = Instant::now() + Duration::from_secs(25);
        until(30.0, &format!("webhook {event} no. {n}"), async || {
            let found = self.all().into_iter().filter(|delivery| delivery.event() == event).nth(n - 1);
            assert!(
                found.is_some() || Instant::now() < deadline,
                "no {event} no. {n}, only {:?}",
                self.events()
            );
            found
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(shared): State<Shared>, method: Method, headers: HeaderMap, body: Bytes) -> StatusCode {
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let before = {
        let mut seen = shared.seen.lock().expect("no test panics here");
        let delivery = Delivery {
            at: Instant::now(),
            wall: Timestamp::now(),
            method: method.to_string(),
            headers,
            body: body.to_vec(),
            json: json.clone(),
        };
        seen.push(delivery);
        seen.len() - 1
    };
    let (status, delay) = (shared.rule)(&json, before);
    tokio::time::sleep(delay).await;
    StatusCode::from_u16(status).expect("a status")
}

/// Verifies a delivery by the words of the Standard Webhooks specification: one of the space-separated signatures
/// is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` under the decoded secret.
pub(crate) fn genuine(secret: &str, delivery: &Delivery, body: &[u8]) -> bool {
    let Some(encoded) = secret.strip_prefix("whsec_") else { return false };
    let key = STANDARD.decode(encoded).expect("the secret is base64");
    assert_eq!(key.len(), 32);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
    let signed =
        [delivery.header("webhook-id").as_bytes(), delivery.header("webhook-timestamp").as_bytes(), body];
    mac.update(&signed.join(&b'.'));
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    delivery.header("webhook-signature").split(' ').any(|given| given == expected)
}

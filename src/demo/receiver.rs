//! The customer's webhook URL: an HTTP server that verifies each delivery as any Standard Webhooks library would
//! and hands the bodies on in the order of their arrival.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock;
use crate::model::Timestamp;

/// Deliveries waiting to be looked at.
const WAITING_MAX: usize = 256;
/// How far a delivery's own time may be off, seconds (Standard Webhooks, "Verifying webhook authenticity").
const TOLERANCE_S: i64 = 300;

/// One webhook as it arrived.
#[derive(Debug)]
pub(super) struct Delivery {
    /// When it arrived.
    pub(super) at: Timestamp,
    /// Its body; null if it was no JSON.
    pub(super) body: Value,
    /// Its signature is right and its time is now.
    pub(super) genuine: bool,
}

/// The running receiver; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The URL to be given to the server.
    pub(super) url: String,
    deliveries: mpsc::Receiver<Delivery>,
    server: JoinHandle<io::Result<()>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Door {
    secret: Vec<u8>,
    deliveries: mpsc::Sender<Delivery>,
}

impl Receiver {
    /// Listens on a free port of the loopback; `secret` is the key's `whsec_…`.
    pub(super) async fn listen(secret: &str) -> io::Result<Self> {
        let wrong = || io::Error::other("the webhook secret is not whsec_ and base64");
        let secret = secret.strip_prefix("whsec_").ok_or_else(wrong)?;
        let secret = BASE64_STANDARD.decode(secret).map_err(|_| wrong())?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}/hooks/calls", listener.local_addr()?);
        let (sender, deliveries) = mpsc::channel(WAITING_MAX);
        let app = Router::new()
            .route("/hooks/calls", post(received))
            .with_state(Door { secret, deliveries: sender });
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, deliveries, server })
    }

    /// The next delivery.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }
}

async fn received(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let at = clock::now().wall;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = Signed {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signatures: header("webhook-signature"),
    };
    let genuine = signed.is_genuine(&door.secret, &body, at);
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match door.deliveries.try_send(Delivery { at, body, genuine }) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The three headers of Standard Webhooks 1.0.
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: &'a str,
}

impl Signed<'_> {
    fn is_genuine(&self, secret: &[u8], body: &[u8], now: Timestamp) -> bool {
        let fresh = self.timestamp.parse::<i64>().is_ok_and(|at| (now.seconds() - at).abs() <= TOLERANCE_S);
        fresh
            && self.signatures.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
                let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
                mac.update(format!("{}.{}.", self.id, self.timestamp).as_bytes());
                mac.update(body);
                BASE64_STANDARD.decode(one).is_ok_and(|signature| mac.verify_slice(&signature).is_ok())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries' own tests.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const AT: Timestamp = Timestamp(1_614_265_330_000);

    fn signed(signatures: &str) -> Signed<'_> {
        Signed { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: "1614265330", signatures }
    }

    #[test]
    fn a_genuine_delivery_is_told_from_an_altered_one() {
        let secret = BASE64_STANDARD.decode(SECRET).unwrap();
        assert!(signed(SIGNATURE).is_genuine(&secret, BODY, AT));
        let two = format!("v1,AAAA {SIGNATURE}");
        assert!(signed(&two).is_genuine(&secret, BODY, AT), "one of two signatures is enough");
        assert!(!signed(SIGNATURE).is_genuine(&secret, b"{\"test\": 2432232315}", AT));
        assert!(!signed(SIGNATURE).is_genuine(b"other", BODY, AT));
        assert!(!signed(SIGNATURE).is_genuine(&secret, BODY, AT.plus_ms(301_000)), "a replay");
        assert!(!signed("").is_genuine(&secret, BODY, AT));
    }
}

//! A customer's side of the HTTP surface: a key, its requests, and what came back.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::until;

/// One client for all: no proxy, no redirects.
pub(crate) static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.timeout(Duration::from_secs(30)).build().expect("a client can be made")
});

/// An API key on a server.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) key_id: String,
    pub(crate) webhook_secret: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: HTTP {} {text}", self.status))
    }

    /// The body, if the status is this one.
    pub(crate) fn expect(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        self.json()
    }

    /// Checks that it is this status in Kaphila's envelope of errors, and gives the text.
    pub(crate) fn refused(&self, status: u16) -> String {
        let body = self.expect(status);
        assert_eq!(body["success"], false, "{body}");
        let kind = self.header("content-type");
        assert_eq!(kind, "application/json; charset=utf-8", "{body}");
        body["error"].as_str().unwrap_or_else(|| panic!("no error text: {body}")).to_owned()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request as it stands.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let started = Instant::now();
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.expect("the answer is whole").to_vec();
    Answer { status, headers, body, took: started.elapsed() }
}

/// A request without a key.
pub(crate) fn bare(server: SocketAddr, method: Method, path: &str) -> RequestBuilder {
    CLIENT.request(method, format!("http://{server}{path}"))
}

impl Key {
    /// From what `keys create --json` prints.
    pub(crate) fn new(server: SocketAddr, made: &Value) -> Self {
        let text = |name: &str| {
            let value = made[name].as_str();
            value.unwrap_or_else(|| panic!("keys create printed no {name}: {made}")).to_owned()
        };
        let webhook_secret = text("webhookSecret");
        Self { base: format!("http://{server}"), key: text("key"), key_id: text("keyId"), webhook_secret }
    }

    /// A request of any kind.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        CLIENT.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let text = body.to_string();
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        send(request.body(text)).await
    }

    /// POST of any bytes.
    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        send(request.body(body)).await
    }

    /// Places a call, which must be accepted; its id.
    pub(crate) async fn call(&self, body: &Value) -> String {
        let placed = self.post("/makecall", body).await.expect(200);
        call_id(&placed)
    }

    /// Places a call and waits until it is answered and its recording runs, which begins a moment later.
    pub(crate) async fn answered_call(&self, body: &Value) -> String {
        let id = self.call(body).await;
        self.wait_recorded(&id).await;
        id
    }

    /// Waits until a live call is recorded.
    pub(crate) async fn wait_recorded(&self, id: &str) {
        self.wait_live(id, "recorded", |call| call["recording"]["active"] == true).await;
    }

    /// Waits until a live call has this status.
    pub(crate) async fn wait_status(&self, id: &str, status: &str) -> Value {
        self.wait_live(id, status, |call| call["status"] == status).await
    }

    async fn wait_live(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/calls/{id}");
        until(15.0, &format!("call {id} is {what}"), async || {
            let answer = self.get(&path).await;
            if answer.status != 200 {
                panic!("call {id} has ended before it was {what}: {}", self.wait_ended(id).await);
            }
            Some(answer.json()).filter(&is)
        })
        .await
    }

    /// Waits until a call has ended; its row of the log.
    pub(crate) async fn wait_ended(&self, id: &str) -> Value {
        until(20.0, &format!("call {id} has ended"), async || {
            let logs = self.post("/api/call-logs", &json!({"page_size": 100})).await.expect(200);
            let row = logs["logs"].as_array()?.iter().find(|row| row["call_id"] == id)?.clone();
            (row["status"] != "ringing" && row["status"] != "answered").then_some(row)
        })
        .await
    }

    /// Hangs up, which must work.
    pub(crate) async fn hang_up(&self, id: &str) {
        self.post("/hangup", &json!({"callId": id})).await.expect(200);
    }

    /// The balance.
    pub(crate) async fn credits(&self) -> i64 {
        let me = self.get("/api/me").await.expect(200);
        me["apiKey"]["credits"].as_i64().unwrap_or_else(|| panic!("no credits: {me}"))
    }
}

/// The `callId` of an answer.
pub(crate) fn call_id(placed: &Value) -> String {
    placed["callId"].as_str().unwrap_or_else(|| panic!("no callId: {placed}")).to_owned()
}

/// Sends raw HTTP/1.1 and reads to the end: for paths and bodies that a client library would put right.
pub(crate) async fn raw(server: SocketAddr, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(server).await.expect("the server takes connections");
    // The server may refuse and close before it has read everything; what it says counts.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server neither answers nor closes");
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), answer)
}

/// The lines of a raw GET with a key.
pub(crate) fn raw_get(path: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    )
    .into()
}

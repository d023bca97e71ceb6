//! A WebSocket client for the tests, and a ConversationRelay application and platform made of it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// No frame is awaited longer.
const LONGEST: Duration = Duration::from_secs(20);

/// An open WebSocket.
pub(crate) struct Ws(WebSocketStream<TcpStream>);

/// What came last.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    /// A frame.
    Json(Value),
    /// The end, with its code.
    Closed(u16),
}

impl Ws {
    /// Opens one; the HTTP status where that is refused.
    pub(crate) async fn open(server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{server}{path}").into_client_request().expect("a URL");
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().expect("a name");
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        let stream = TcpStream::connect(server).await.expect("the server takes connections");
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Takes one connection of a listener's; the path that was asked for and its signature header.
    pub(crate) async fn accept(listener: &tokio::net::TcpListener) -> (Self, String) {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut path = String::new();
        type Asked = tokio_tungstenite::tungstenite::handshake::server::Request;
        type Answer = tokio_tungstenite::tungstenite::handshake::server::Response;
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let look = |request: &Asked, answer: Answer| {
            path = request.uri().to_string();
            Ok(answer)
        };
        let socket = accept_hdr_async(stream, look).await.expect("a WebSocket");
        (Self(socket), path)
    }

    /// Sends JSON.
    pub(crate) async fn send(&mut self, body: &Value) {
        self.send_text(&body.to_string()).await;
    }

    /// Sends text.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).await.expect("it is taken");
    }

    /// The next frame, or the end.
    pub(crate) async fn next(&mut self) -> Came {
        let reading = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Came::Json(serde_json::from_str(&text).expect("JSON"));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Came::Closed(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Came::Closed(1006),
                }
            }
        };
        tokio::time::timeout(LONGEST, reading).await.expect("a frame comes in time")
    }

    /// The next frame.
    pub(crate) async fn json(&mut self) -> Value {
        match self.next().await {
            Came::Json(body) => body,
            Came::Closed(code) => panic!("closed with {code}"),
        }
    }

    /// Reads on until a frame of this type; those before it are lost.
    pub(crate) async fn wait(&mut self, kind: &str) -> Value {
        loop {
            let body = self.json().await;
            if body["type"] == kind {
                return body;
            }
        }
    }

    /// Reads on until the end; its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Came::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Closes.
    pub(crate) async fn close(mut self) {
        self.0.close(None).await.expect("it can be closed");
        self.closed().await;
    }
}

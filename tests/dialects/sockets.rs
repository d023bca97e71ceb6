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

    /// Opens one as [`Ws::open`], with so little room for what is sent to it that a sender soon has to wait.
    pub(crate) async fn open_slow(server: SocketAddr, path: &str, authorization: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("there are sockets");
        socket.set_recv_buffer_size(4096).expect("it is only a wish");
        let mut request = format!("ws://{server}{path}").into_client_request().expect("a URL");
        request.headers_mut().insert("authorization", authorization.parse().expect("a value"));
        let stream = socket.connect(server).await.expect("the server takes connections");
        Self(client_async(request, stream).await.expect("it may come in").0)
    }

    /// Takes one connection of a listener's; the path that was asked for.
    pub(crate) async fn accept(listener: &tokio::net::TcpListener) -> (Self, String) {
        let (socket, path, _) = Self::accept_signed(listener).await;
        (socket, path)
    }

    /// The same, with what the signature's header says.
    pub(crate) async fn accept_signed(listener: &tokio::net::TcpListener) -> (Self, String, Option<String>) {
        let (stream, _) = tokio::time::timeout(LONGEST, listener.accept())
            .await
            .expect("somebody comes in time")
            .expect("a connection");
        let (mut path, mut signature) = (String::new(), None);
        type Asked = tokio_tungstenite::tungstenite::handshake::server::Request;
        type Answer = tokio_tungstenite::tungstenite::handshake::server::Response;
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let look = |request: &Asked, answer: Answer| {
            path = request.uri().to_string();
            let shown = request.headers().get("x-twilio-signature");
            signature = shown.and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(answer)
        };
        let socket = accept_hdr_async(stream, look).await.expect("a WebSocket");
        (Self(socket), path, signature)
    }

    /// Sends JSON.
    pub(crate) async fn send(&mut self, body: &Value) {
        self.send_text(&body.to_string()).await;
    }

    /// Sends text.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).await.expect("it is taken");
    }

    /// Sends text, as far as it is taken within a second.
    pub(crate) async fn try_send_text(&mut self, text: &str) -> Result<(), ()> {
        let sending = self.0.send(Message::Text(text.into()));
        match tokio::time::timeout(Duration::from_secs(1), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    /// Sends bytes that are no text.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.send(Message::Binary(bytes.to_vec().into())).await.expect("it is taken");
    }

    /// Asks whether the other side lives, and waits until it says so; frames before that are lost.
    pub(crate) async fn ping(&mut self) {
        self.0.send(Message::Ping(b"well?".to_vec().into())).await.expect("it is taken");
        let pong = async {
            loop {
                let frame = self.0.next().await.expect("it is open").expect("it is whole");
                if matches!(&frame, Message::Pong(bytes) if bytes.as_ref() == b"well?") {
                    return;
                }
            }
        };
        tokio::time::timeout(LONGEST, pong).await.expect("it is answered in time");
    }

    /// Closes with a code.
    pub(crate) async fn close_with(mut self, code: u16) {
        let frame =
            tokio_tungstenite::tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() };
        self.0.send(Message::Close(Some(frame))).await.expect("it is taken");
        self.closed().await;
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

//! A WebSocket, whichever side opened it: one that was served here, or one that we opened to an application. Both are
//! read and written a frame at a time. Opening one passes the guard of customers' addresses; nothing is decided here.

use std::time::Duration;

use axum::extract::ws;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error};

use crate::config::Config;

/// Largest frame, bytes.
pub const FRAME_MAX: usize = 64 * 1024;
/// A frame that is not taken in this time is taken never.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// An application must have accepted in this time.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text.
    Text(String),
    /// The peer lives.
    Pong,
    /// Something that is no text.
    Other,
    /// Larger than it may be.
    TooLarge,
}

/// A frame that could not be sent: the peer is gone, or does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// An open WebSocket.
pub enum Socket {
    /// Somebody came to us.
    Served(Box<ws::WebSocket>),
    /// We went to somebody.
    Opened(Box<WebSocketStream<reqwest::Upgraded>>),
}

impl Socket {
    /// The next frame; `None` once the peer has closed or is gone. Nothing is lost when the wait is given up.
    pub async fn receive(&mut self) -> Option<Frame> {
        match self {
            Self::Served(socket) => match socket.recv().await? {
                Ok(ws::Message::Text(text)) => Some(Frame::Text(text.to_string())),
                Ok(ws::Message::Pong(_)) => Some(Frame::Pong),
                Ok(ws::Message::Ping(_) | ws::Message::Binary(_)) => Some(Frame::Other),
                Ok(ws::Message::Close(_)) => None,
                Err(error) => is_too_large(&error).then_some(Frame::TooLarge),
            },
            Self::Opened(socket) => match socket.next().await? {
                Ok(Message::Text(text)) => Some(Frame::Text(text.to_string())),
                Ok(Message::Pong(_)) => Some(Frame::Pong),
                Ok(Message::Ping(_) | Message::Binary(_) | Message::Frame(_)) => Some(Frame::Other),
                Ok(Message::Close(_)) => None,
                Err(Error::Capacity(_)) => Some(Frame::TooLarge),
                Err(_) => None,
            },
        }
    }

    /// Sends text.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&mut self, text: String) -> Result<(), Gone> {
        match self {
            Self::Served(socket) => in_time(socket.send(ws::Message::Text(text.into()))).await,
            Self::Opened(socket) => in_time(socket.send(Message::Text(text.into()))).await,
        }
    }

    /// Asks whether the peer lives.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn ping(&mut self) -> Result<(), Gone> {
        match self {
            Self::Served(socket) => in_time(socket.send(ws::Message::Ping(Vec::new().into()))).await,
            Self::Opened(socket) => in_time(socket.send(Message::Ping(Vec::new().into()))).await,
        }
    }

    /// Closes, with a code and a reason.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let closing = async {
            match &mut self {
                Self::Served(socket) => {
                    let frame = ws::CloseFrame { code, reason: reason.into() };
                    // The peer may be gone: then there is nothing to close.
                    let _ = socket.send(ws::Message::Close(Some(frame))).await;
                    while socket.recv().await.is_some_and(|frame| frame.is_ok()) {}
                }
                Self::Opened(socket) => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    while socket.next().await.is_some_and(|frame| frame.is_ok()) {}
                }
            }
        };
        // The peer's own closing is waited for, but not for ever.
        let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if matches!(
            error.downcast_ref::<Error>(),
            Some(Error::Capacity(error::CapacityError::MessageTooLong { .. }))
        ) {
            return true;
        }
        next = error.source();
    }
    false
}

async fn in_time<E>(sending: impl Future<Output = Result<(), E>>) -> Result<(), Gone> {
    match tokio::time::timeout(SEND_WITHIN, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

/// Twilio's signature of a URL without parameters: HMAC-SHA1 in base64 (FIELD 3.1).
pub fn signature(token: &str, url: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether a signature is that of a URL; takes as long for a wrong one as for a right one.
pub fn is_signed(token: &str, url: &str, shown: &str) -> bool {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    STANDARD.decode(shown).is_ok_and(|shown| mac.verify_slice(&shown).is_ok())
}

/// Why an application could not be reached, in words for the log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The guard, or the form of the URL.
    #[error(transparent)]
    Refused(#[from] crate::webhook::guard::UrlRefused),
    /// The network, TLS, or HTTP.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// It answered something else.
    #[error("it does not speak WebSocket (HTTP {0})")]
    NoWebSocket(u16),
    /// It took too long.
    #[error("it did not answer in time")]
    Late,
    /// No random bits.
    #[error("the system gives no random numbers")]
    Random,
}

/// Opens a WebSocket to an application (RFC 6455 §4.1).
///
/// # Errors
/// [`OpenError`].
pub async fn open(client: &reqwest::Client, url: &str, config: &Config) -> Result<Socket, OpenError> {
    let target = super::check_url(url, &config.webhooks)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| OpenError::Random)?;
    let key = STANDARD.encode(nonce);
    let mut request = client
        .get(target)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", &key);
    let token = &config.twilio.auth_token.0;
    if !token.is_empty() {
        request = request.header("x-twilio-signature", signature(token, url));
    }
    let response = tokio::time::timeout(OPEN_WITHIN, request.send()).await.map_err(|_| OpenError::Late)??;
    let status = response.status().as_u16();
    let accepted = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
    if status != 101 || accepted != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(OpenError::NoWebSocket(status));
    }
    let stream = response.upgrade().await?;
    let limits = WebSocketConfig::default().max_message_size(Some(FRAME_MAX)).max_frame_size(Some(FRAME_MAX));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await;
    Ok(Socket::Opened(Box::new(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_one_url_and_token() {
        let url = "wss://example.com/relay/ws";
        let signed = signature("token", url);
        assert!(is_signed("token", url, &signed));
        assert!(!is_signed("other", url, &signed) && !is_signed("token", "wss://example.com/", &signed));
        assert!(!is_signed("token", url, "") && !is_signed("token", url, "???"));
        // HMAC-SHA1 as RFC 2202 §3 has it, test case 2.
        assert_eq!(signature("Jefe", "what do ya want for nothing?"), "7/zfauXrL6LSdBbV8YTfnCWafHk=");
    }
}

//! A WebSocket, whichever side opened it: one that was served here, or one that we opened to an application. Both are
//! read a frame at a time; what is sent waits in a bounded queue, which a task of the socket's own empties, so that a
//! peer that does not read holds nobody up. Opening one passes the guard of customers' addresses; nothing is decided
//! here.
//!
//! The libraries answer a peer's pings by themselves (RFC 6455 §5.5.2) while a socket is read.

use std::time::Duration;

use axum::extract::ws;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::SplitStream;
use futures_util::{Sink, SinkExt, StreamExt};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error};

use crate::config::Config;

/// Largest frame, bytes.
pub const FRAME_MAX: usize = 64 * 1024;
/// Frames that may wait for a peer in a conversation.
pub const QUEUE: usize = 256;
/// A frame that is not taken in this time is taken never.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// An application must have accepted in this time.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// The peer's own closing is waited for so long.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Of a connection that broke, as RFC 6455 §7.4.1 has it.
const BROKEN: u16 = 1006;
/// Of a closing without a code.
const NO_CODE: u16 = 1005;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text.
    Text(String),
    /// The peer asks whether we live; it is answered already.
    Ping,
    /// The peer lives.
    Pong,
    /// Something that is no text.
    Other,
    /// Larger than it may be.
    TooLarge,
    /// The end, with the peer's code: 1005 where it gave none, 1006 where the connection broke.
    Closed(u16),
}

/// Why a frame could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The connection is no more.
    Broken,
    /// The peer does not read, and as much waits as may.
    Slow,
}

enum Reader {
    Served(SplitStream<ws::WebSocket>),
    Opened(SplitStream<WebSocketStream<reqwest::Upgraded>>),
}

enum Out {
    Text(String),
    Ping,
    Close(u16, &'static str),
}

/// An open WebSocket. Dropping it cuts the connection.
pub struct Socket {
    reader: Reader,
    queue: mpsc::Sender<Out>,
    /// Closes past everything that waits.
    at_once: Option<oneshot::Sender<(u16, &'static str)>>,
    /// Ends when the queue has been emptied, or nothing is taken any more.
    written: oneshot::Receiver<()>,
}

impl Socket {
    /// One that somebody opened to us, with room for so many frames.
    pub fn served(socket: ws::WebSocket, waiting: usize) -> Self {
        let (sink, stream) = socket.split();
        Self::over(Reader::Served(stream), sink, waiting, |out| match out {
            Out::Text(text) => ws::Message::Text(text.into()),
            Out::Ping => ws::Message::Ping(Vec::new().into()),
            Out::Close(code, reason) => {
                ws::Message::Close(Some(ws::CloseFrame { code, reason: reason.into() }))
            }
        })
    }

    fn opened(socket: WebSocketStream<reqwest::Upgraded>) -> Self {
        let (sink, stream) = socket.split();
        Self::over(Reader::Opened(stream), sink, QUEUE, |out| match out {
            Out::Text(text) => Message::Text(text.into()),
            Out::Ping => Message::Ping(Vec::new().into()),
            Out::Close(code, reason) => {
                Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
            }
        })
    }

    fn over<S, M>(reader: Reader, sink: S, waiting: usize, as_message: fn(Out) -> M) -> Self
    where
        S: Sink<M> + Send + Unpin + 'static,
        M: Send + 'static,
    {
        let (queue, outgoing) = mpsc::channel(waiting);
        let (at_once, hurry) = oneshot::channel();
        let (done, written) = oneshot::channel();
        tokio::spawn(async move {
            write(sink, outgoing, hurry, as_message).await;
            // Nobody may wait for it.
            let _ = done.send(());
        });
        Self { reader, queue, at_once: Some(at_once), written }
    }

    /// The next frame; after [`Frame::Closed`] there is none. Nothing is lost when the wait is given up.
    pub async fn receive(&mut self) -> Frame {
        match &mut self.reader {
            Reader::Served(socket) => match socket.next().await {
                Some(Ok(ws::Message::Text(text))) => Frame::Text(text.to_string()),
                Some(Ok(ws::Message::Ping(_))) => Frame::Ping,
                Some(Ok(ws::Message::Pong(_))) => Frame::Pong,
                Some(Ok(ws::Message::Binary(_))) => Frame::Other,
                Some(Ok(ws::Message::Close(frame))) => {
                    Frame::Closed(frame.map_or(NO_CODE, |frame| frame.code))
                }
                Some(Err(error)) if is_too_large(&error) => Frame::TooLarge,
                Some(Err(_)) | None => Frame::Closed(BROKEN),
            },
            Reader::Opened(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => Frame::Text(text.to_string()),
                Some(Ok(Message::Ping(_))) => Frame::Ping,
                Some(Ok(Message::Pong(_))) => Frame::Pong,
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => Frame::Other,
                Some(Ok(Message::Close(frame))) => {
                    Frame::Closed(frame.map_or(NO_CODE, |frame| frame.code.into()))
                }
                Some(Err(Error::Capacity(_))) => Frame::TooLarge,
                Some(Err(_)) | None => Frame::Closed(BROKEN),
            },
        }
    }

    /// Sends text, where there is room for it now.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn send(&self, text: String) -> Result<(), Gone> {
        self.queue.try_send(Out::Text(text)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Gone::Slow,
            mpsc::error::TrySendError::Closed(_) => Gone::Broken,
        })
    }

    /// Sends text, and waits for room.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send_patiently(&self, text: String) -> Result<(), Gone> {
        match timeout(SEND_WITHIN, self.queue.send(Out::Text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone::Broken),
            Err(_) => Err(Gone::Slow),
        }
    }

    /// Asks whether the peer lives.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn ping(&self) -> Result<(), Gone> {
        match self.queue.try_send(Out::Ping) {
            // Whoever has much to read is asked later.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Gone::Broken),
        }
    }

    /// Closes, with a code and a reason, behind what waits; where too much waits, past it. Returns at once: the peer's
    /// own closing is waited for elsewhere.
    pub fn close(mut self, code: u16, reason: &'static str) {
        let mut within = CLOSE_WITHIN;
        if self.queue.try_send(Out::Close(code, reason)).is_err()
            && let Some(at_once) = self.at_once.take()
        {
            // Who has not read for so long may need a while to see it.
            within = SEND_WITHIN;
            let _ = at_once.send((code, reason));
        }
        tokio::spawn(async move {
            let closing = async {
                // A peer that is gone needs no closing.
                let _ = (&mut self.written).await;
                while !matches!(self.receive().await, Frame::Closed(_)) {}
            };
            let _ = timeout(within, closing).await;
        });
    }
}

/// Empties a socket's queue until it is closed, its owner is gone, or the peer takes nothing.
async fn write<S, M>(
    mut sink: S,
    mut queue: mpsc::Receiver<Out>,
    mut hurry: oneshot::Receiver<(u16, &'static str)>,
    as_message: fn(Out) -> M,
) where
    S: Sink<M> + Unpin,
{
    loop {
        let sending = async {
            let Some(out) = queue.recv().await else { return false };
            let last = matches!(out, Out::Close(..));
            matches!(timeout(SEND_WITHIN, sink.send(as_message(out))).await, Ok(Ok(()))) && !last
        };
        tokio::select! {
            more = sending => if !more { return },
            hurried = &mut hurry => {
                // What was begun to be sent goes out before it. The peer may be gone, and so may the owner.
                if let Ok((code, reason)) = hurried {
                    let _ = timeout(SEND_WITHIN, sink.send(as_message(Out::Close(code, reason)))).await;
                }
                return;
            }
        }
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
    let response = timeout(OPEN_WITHIN, request.send()).await.map_err(|_| OpenError::Late)?;
    // The address may hold secrets of the application's, and errors are logged.
    let response = response.map_err(reqwest::Error::without_url)?;
    let status = response.status().as_u16();
    let accepted = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
    if status != 101 || accepted != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(OpenError::NoWebSocket(status));
    }
    let stream = response.upgrade().await.map_err(reqwest::Error::without_url)?;
    let limits = WebSocketConfig::default().max_message_size(Some(FRAME_MAX)).max_frame_size(Some(FRAME_MAX));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await;
    Ok(Socket::opened(socket))
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

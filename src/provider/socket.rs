//! WebSockets to services (RFC 6455), over TCP or TLS. Owns connecting, time limits and pings; what is said on them is
//! for others to know.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use url::Url;

use super::{CONNECT_TIME, FIRST_BYTE_TIME, Trouble};

/// Largest message that is taken, bytes.
const MESSAGE_MAX: usize = 1024 * 1024;
/// A peer that takes nothing for so long is gone.
const SEND_TIME: Duration = Duration::from_secs(5);

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open connection.
pub struct Socket(WebSocketStream<Box<dyn Wire>>);

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// Anything else that shows that the peer is there.
    Sign,
}

impl Socket {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`Trouble`]: a refusal has its HTTP status.
    pub async fn open(url: &Url, headers: &[(&'static str, String)]) -> Result<Self, Trouble> {
        let wire = timeout(CONNECT_TIME, dial(url)).await.map_err(|_| Trouble::Unreachable)??;
        let mut request = url.as_str().into_client_request().map_err(|_| Trouble::Settings("its address"))?;
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Trouble::Settings("a header cannot hold its value"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            .max_write_buffer_size(MESSAGE_MAX);
        let shake = tokio_tungstenite::client_async_with_config(request, wire, Some(config));
        match timeout(FIRST_BYTE_TIME, shake).await {
            Err(_) => Err(Trouble::Late),
            Ok(Err(Error::Http(response))) => Err(Trouble::Status(response.status().as_u16())),
            Ok(Err(_)) => Err(Trouble::Broken),
            Ok(Ok((socket, _))) => Ok(Self(socket)),
        }
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`Trouble::Broken`], [`Trouble::Late`].
    pub async fn text(&mut self, text: String) -> Result<(), Trouble> {
        self.send(Message::text(text)).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// [`Trouble::Broken`], [`Trouble::Late`].
    pub async fn binary(&mut self, bytes: Bytes) -> Result<(), Trouble> {
        self.send(Message::Binary(bytes)).await
    }

    /// Sends a ping, which the peer must answer (RFC 6455 §5.5.2).
    ///
    /// # Errors
    /// [`Trouble::Broken`], [`Trouble::Late`].
    pub async fn ping(&mut self) -> Result<(), Trouble> {
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Trouble> {
        match timeout(SEND_TIME, self.0.send(message)).await {
            Err(_) => Err(Trouble::Late),
            Ok(sent) => sent.map_err(|_| Trouble::Broken),
        }
    }

    /// What comes next; `None` when the peer has closed in order. Nothing is lost when this future is dropped.
    ///
    /// # Errors
    /// [`Trouble::Broken`].
    pub async fn next(&mut self) -> Result<Option<Incoming>, Trouble> {
        match self.0.next().await {
            None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) => Ok(None),
            Some(Ok(Message::Text(text))) => Ok(Some(Incoming::Text(text.to_string()))),
            Some(Ok(_)) => Ok(Some(Incoming::Sign)),
            Some(Err(_)) => Err(Trouble::Broken),
        }
    }

    /// Says goodbye; what becomes of it does not matter.
    pub async fn close(mut self) {
        // The peer may be gone already.
        let _ = timeout(Duration::from_millis(500), self.0.close(None)).await;
    }
}

async fn dial(url: &Url) -> Result<Box<dyn Wire>, Trouble> {
    let host = url.host_str().ok_or(Trouble::Settings("its address"))?;
    let port = url.port_or_known_default().ok_or(Trouble::Settings("its address"))?;
    // An IPv6 address stands in brackets in a URL only.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(|_| Trouble::Unreachable)?;
    // Frames of 20 ms must not wait for one another; a system that cannot is slower, not wrong.
    let _ = stream.set_nodelay(true);
    if url.scheme() != "wss" {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(name.to_owned()).map_err(|_| Trouble::Settings("its address"))?;
    let stream = tls()?.connect(name, stream).await.map_err(|_| Trouble::Unreachable)?;
    Ok(Box::new(stream))
}

/// What TLS is spoken with. The system's authorities are read once.
fn tls() -> Result<TlsConnector, Trouble> {
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    if let Some(connector) = CONNECTOR.get() {
        return Ok(connector.clone());
    }
    let mut roots = RootCertStore::empty();
    // One odd certificate of the system's is no reason to believe none of the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Trouble::Settings("TLS cannot be set up"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONNECTOR.get_or_init(|| TlsConnector::from(Arc::new(config))).clone())
}

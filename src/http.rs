//! The HTTP listener: sockets, TLS, and how long a connection may take for what (RFC 9112). It owns every HTTP
//! connection from accept to close, hands requests to a router it knows nothing about, and bounds what a peer can
//! hold: connections at once, time for a request's head, idle time between requests, time without progress while an
//! answer is written. Bodies are bounded by the routes that read them.

mod paced;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::config;
use paced::{Pace, Paced, Requests};
use tls::Certificates;
pub use tls::TlsError;

/// A TLS handshake must be over in this time.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// An answer of which the peer takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(60);

/// Largest head of a request, bytes.
const HEAD_MAX: usize = 64 * 1024;

/// Pause after the system refused a connection, for want of file descriptors for instance.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address that cannot be listened on.
    #[error("cannot listen on HTTP {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Sockets that are bound and not yet served.
pub struct Listener {
    sockets: Vec<(TcpListener, SocketAddr)>,
    shared: Shared,
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    pace: Pace,
    room: Arc<Semaphore>,
    most: u32,
    tls: Option<Arc<Certificates>>,
}

/// A listener that serves.
pub struct Serving {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    room: Arc<Semaphore>,
    most: u32,
}

impl Listener {
    /// Binds every address and reads the certificate, where one is configured.
    ///
    /// # Errors
    /// Names the address or the file at fault.
    pub async fn bind(config: &config::Http) -> Result<Self, ListenError> {
        let tls = match (&config.tls_cert, &config.tls_key) {
            (cert, key) if cert.as_os_str().is_empty() && key.as_os_str().is_empty() => None,
            (cert, key) => Some(Arc::new(Certificates::load(cert, key)?)),
        };
        let mut sockets = Vec::new();
        for address in &config.listen {
            let refused = |source| ListenError::Bind { address: *address, source };
            let socket = TcpListener::bind(address).await.map_err(refused)?;
            let bound = socket.local_addr().map_err(refused)?;
            sockets.push((socket, bound));
        }
        let pace = Pace {
            head: Duration::from_secs(config.header_timeout_s.into()),
            idle: Duration::from_secs(config.idle_timeout_s.into()),
            stall: STALL,
        };
        let most = config.max_connections;
        let room = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX)));
        Ok(Self { sockets, shared: Shared { pace, room, most, tls } })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(_, address)| *address).collect()
    }

    /// Serves until [`Serving::stop`].
    pub fn serve(self, router: &Router) -> Serving {
        let (stop, stopped) = watch::channel(false);
        let Shared { room, most, tls, .. } = self.shared.clone();
        let accepting = self.sockets.into_iter().map(|(socket, _)| {
            tokio::spawn(accept(socket, router.clone(), self.shared.clone(), stopped.clone()))
        });
        let mut tasks: Vec<_> = accepting.collect();
        if let Some(certificates) = tls {
            tasks.push(tokio::spawn(certificates.watch(stopped)));
        }
        Serving { stop, tasks, room, most }
    }
}

impl Serving {
    /// Takes no more connections, lets requests under way be answered for at most `within`, and ends.
    pub async fn stop(self, within: Duration) {
        // Nobody listens any more where every task has ended by itself.
        let _ = self.stop.send(true);
        for task in self.tasks {
            if task.await.is_err() {
                tracing::error!("the HTTP listener had died");
            }
        }
        if tokio::time::timeout(within, self.room.acquire_many(self.most)).await.is_err() {
            tracing::debug!("HTTP connections are cut off");
        }
    }
}

async fn accept(socket: TcpListener, router: Router, shared: Shared, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        // Where all room is taken the next ones wait in the system's queue; whoever holds a place without using it
        // loses it soon.
        let place = tokio::select! {
            place = Arc::clone(&shared.room).acquire_owned() => place,
            _ = stopped.changed() => return,
        };
        let (router, shared, stopped) = (router.clone(), shared.clone(), stopped.clone());
        tokio::spawn(async move {
            connection(stream, peer, router, &shared, stopped).await;
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    shared: &Shared,
    stopped: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(certificates) = &shared.tls else {
        return serve(stream, peer, router, shared.pace, stopped).await;
    };
    let handshake = TlsAcceptor::from(certificates.config()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => serve(stream, peer, router, shared.pace, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, router: Router, pace: Pace, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Requests::default();
    let io = TokioIo::new(Paced::new(stream, pace, requests.clone()));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = requests.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let (answer, requests) = (router.call(request), requests.clone());
        async move {
            let answer = answer.await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
                requests.switch();
            }
            drop(under_way);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(pace.idle)
        .max_buf_size(HEAD_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Peers go away and time runs out all day long.
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

#[cfg(test)]
mod tests;

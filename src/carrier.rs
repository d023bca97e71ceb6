//! The built-in far end (CONTRACT 0.9): persons, voicemails, faxes and broken lines by the last four digits dialled,
//! over real sockets, for trials and tests. It is made of the same `sip` and `media` as the server, in a process of
//! its own. This file owns the socket, the clocks and the signals; what happens in a call is decided in `callee`,
//! what the numbers mean in `script`. It places no calls, registers nobody and knows no customer.

mod callee;
mod deaf;
mod exchange;
mod line;
#[cfg(test)]
mod live_tests;
mod record;
mod script;
mod sounds;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::{EventReceiver, Media, MediaConfig};
use sip::tokio::UdpTransport;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::clock;
use crate::config;
use crate::speech::Speech;
use exchange::{Exchange, Setup};
use record::Records;
use sounds::Sounds;

/// The largest UDP datagram, bytes.
const DATAGRAM_MAX: usize = 65_535;
/// How long calls have to end after a signal to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// The longest sleep when nothing is due; nothing depends on its length.
const IDLE: Duration = Duration::from_secs(3600);

/// How the far end is started.
#[derive(Clone, Debug, clap::Args)]
pub struct CarrierOptions {
    /// The UDP address for SIP; RTP ports are bound on the same IP.
    #[arg(long, default_value = "127.0.0.1:5070")]
    pub listen: SocketAddr,
    /// The folder that gets what each call heard as a WAV, and a line per call in calls.jsonl.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// Why the far end cannot run.
#[derive(Debug, Error)]
pub enum CarrierError {
    /// The SIP socket cannot be had.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address wanted.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The folder for recordings cannot be used.
    #[error("cannot record into {}: {source}", folder.display())]
    Record {
        /// The folder wanted.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Threads, signals, randomness or the open socket: the system refuses.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Runs the far end until Ctrl-C or SIGTERM, then hangs up what is left.
///
/// # Errors
/// [`CarrierError`]; nothing is left running then.
pub async fn run(options: CarrierOptions) -> Result<(), CarrierError> {
    let transport = UdpTransport::bind(options.listen)
        .await
        .map_err(|source| CarrierError::Listen { listen: options.listen, source })?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(transport, options.record, voice(), stop).await
}

/// Serves on a bound socket until `stop` is done.
async fn serve(
    transport: UdpTransport,
    record: Option<PathBuf>,
    voice: Option<Speech>,
    stop: impl Future<Output = ()>,
) -> Result<(), CarrierError> {
    let records = record
        .map(|folder| Records::open(&folder).map_err(|source| CarrierError::Record { folder, source }))
        .transpose()?;
    let listen = transport.local_addr()?;
    let wake = Arc::new(Notify::new());
    let (media, mut heard) = start_media(&wake)?;
    let sounds = Sounds::make(voice.as_ref()).await;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let local = SocketAddr::new(reachable(listen.ip()), listen.port());
    let mut exchange = Exchange::new(Setup { local, bind: listen.ip(), media, sounds, records, seed });
    tracing::info!(
        "far end: SIP on udp {listen}; the last four digits choose what answers: the table is in README.md"
    );

    let mut datagram = vec![0; DATAGRAM_MAX];
    let mut stopping: Option<Instant> = None;
    let mut stop = pin!(stop);
    loop {
        while let Some(transmit) = exchange.poll_transmit() {
            if let Err(error) = transport.try_send(&transmit) {
                tracing::debug!(to = %transmit.to.addr, "not sent: {error}");
                if error.kind() != io::ErrorKind::WouldBlock {
                    exchange.unreachable(clock::now(), transmit.to);
                }
            }
        }
        let now = clock::now().mono;
        if stopping.is_some_and(|at| at <= now || exchange.is_idle()) {
            return Ok(());
        }
        let due = exchange.poll_timeout().into_iter().chain(stopping).min().unwrap_or(now + IDLE);
        tokio::select! {
            received = transport.recv(&mut datagram) => {
                let (length, from) = received?;
                exchange.datagram(clock::now(), from, &datagram[..length]);
            }
            () = wake.notified() => {}
            () = tokio::time::sleep_until(due.into()) => exchange.timeout(clock::now()),
            () = &mut stop, if stopping.is_none() => stopping = Some(close(&mut exchange)),
        }
        while let Some(event) = heard.try_recv() {
            exchange.heard(clock::now(), &event);
        }
    }
}

/// Hangs up every call; the far end is done at the moment returned at the latest.
fn close(exchange: &mut Exchange) -> Instant {
    let now = clock::now();
    tracing::info!("far end: stopping");
    exchange.close(now);
    now.mono + STOP_PATIENCE
}

fn start_media(wake: &Arc<Notify>) -> io::Result<(Media, EventReceiver)> {
    let wake = Arc::clone(wake);
    Media::start(MediaConfig {
        workers: 1,
        wake: Some(Box::new(move || wake.notify_one())),
        ..MediaConfig::default()
    })
}

/// The server's own voice, if there is one.
fn voice() -> Option<Speech> {
    Speech::new(&config::Speech::default()).inspect_err(|error| tracing::warn!("no voice: {error}")).ok()
}

/// The address others can answer to: the one listened on, or for a wildcard that of the interface with the default
/// route. Connecting a UDP socket sends nothing.
fn reachable(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr())
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

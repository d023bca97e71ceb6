//! One connection, TCP or TLS alike: bytes to messages and back (RFC 3261 §18, RFC 5626 §3.5.1, §4.4.1).
//!
//! Owns one task per connection with its time limits: a peer that sends half a message and waits, that never says anything, or
//! that does not read what it is sent, loses its connection. Never trusts a length and never looks into a message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::Peer;
use crate::frame::Framer;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1_024;
/// How long a connection lives on after its stream could not be read any further, so that its sender is told why.
const LAST_WORD: Duration = Duration::from_millis(500);
const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

/// The limits of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most connections, both ways.
    pub connections: usize,
    /// Most connections that one address may open to us.
    pub per_address: usize,
    /// How long TCP may take to connect.
    pub connect: Duration,
    /// How long TLS may take to shake hands.
    pub handshake: Duration,
    /// How long a message may take from its first byte to its last, and a new connection until its first message.
    pub message: Duration,
    /// How long a connection may be silent, pings and pongs counted.
    pub idle: Duration,
    /// How long the peer may take to read one message.
    pub write: Duration,
    /// How often we send a ping on connections that we opened; zero: never.
    pub ping: Duration,
}

impl Default for StreamLimits {
    /// 1,024 connections, 64 by one address; 1.5 s to connect, 5 s to shake hands, 10 s a message, 2 h of silence, 10 s to
    /// read; a ping every 60 s.
    fn default() -> Self {
        Self {
            connections: 1_024,
            per_address: 64,
            connect: Duration::from_millis(1_500),
            handshake: Duration::from_secs(5),
            message: Duration::from_secs(10),
            idle: Duration::from_secs(2 * 3_600),
            write: Duration::from_secs(10),
            ping: Duration::from_secs(60),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Could not be opened, or its certificate was not good.
    NotOpened,
    /// Closed by them, or broken.
    Closed,
    /// Closed by us.
    Dropped,
    /// A message that took too long, or silence.
    Slow,
    /// Their stream cannot be cut into messages.
    Unreadable,
    /// They do not read.
    Stalled,
    /// They answered pings and then did not.
    NoPong,
}

/// What a connection tells.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A whole message, or the headers of one that has no readable length.
    Message(Peer, Bytes),
    /// The end of connection `id`.
    Closed { peer: Peer, id: u64, why: Ended },
}

/// One end of a connection, as its task has it.
pub(super) struct Link {
    pub(super) peer: Peer,
    /// We opened it.
    pub(super) ours: bool,
    pub(super) limits: StreamLimits,
    pub(super) outbound: mpsc::Receiver<Bytes>,
    pub(super) events: mpsc::Sender<StreamEvent>,
}

/// What the reading half tells the writing half of the same connection.
#[derive(Default)]
struct Shared {
    /// A ping came: a pong is due.
    pinged: Notify,
    /// A pong has come since the last ping.
    ponged: AtomicBool,
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
    Instant::now()
}

/// Carries a connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(stream: S, mut link: Link) -> Ended {
    let (read_half, mut write_half) = tokio::io::split(stream);
    let shared = Shared::default();
    let Link { peer, ours, limits, outbound, events } = &mut link;
    let ended = {
        let writer = write(&mut write_half, outbound, &shared, limits, *ours);
        tokio::pin!(writer);
        let ended = tokio::select! {
            ended = read(read_half, *peer, events, &shared, limits, *ours) => ended,
            ended = &mut writer => ended,
        };
        if ended == Ended::Unreadable {
            // What comes of it does not matter: the connection ends either way.
            let _ = timeout(LAST_WORD, writer).await;
        }
        ended
    };
    // A peer that is gone needs no farewell.
    let _ = timeout(LAST_WORD, write_half.shutdown()).await;
    ended
}

async fn read<R: AsyncRead + Unpin>(
    mut half: R,
    peer: Peer,
    events: &mpsc::Sender<StreamEvent>,
    shared: &Shared,
    limits: &StreamLimits,
    ours: bool,
) -> Ended {
    let mut framer = Framer::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut heard = ours;
    let mut began = (!ours).then(now);
    loop {
        let wait = match began {
            Some(began) => (began + limits.message).saturating_duration_since(now()),
            None => limits.idle,
        };
        let count = match timeout(wait, half.read(&mut buffer)).await {
            Err(_) => return Ended::Slow,
            Ok(Err(_) | Ok(0)) => return Ended::Closed,
            Ok(Ok(count)) => count,
        };
        framer.push(&buffer[..count]);
        loop {
            match framer.next_message() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    (heard, began) = (true, None);
                    if events.send(StreamEvent::Message(peer, message)).await.is_err() {
                        return Ended::Dropped;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.addr, %error, "a stream cannot be read");
                    let head = framer.lost_head();
                    if !head.is_empty() && events.send(StreamEvent::Message(peer, head)).await.is_err() {
                        return Ended::Dropped;
                    }
                    return Ended::Unreadable;
                }
            }
        }
        keep_alive(framer.take_line_ends(), ours, shared);
        if framer.is_partial() {
            began.get_or_insert_with(now);
        } else if heard {
            began = None;
        }
    }
}

/// Two line ends are a ping, to be answered; on a connection of ours one is the answer to a ping of ours.
fn keep_alive(line_ends: usize, ours: bool, shared: &Shared) {
    if ours && line_ends > 0 {
        shared.ponged.store(true, Ordering::Relaxed);
    }
    if line_ends >= 2 {
        shared.pinged.notify_one();
    }
}

async fn write<W: AsyncWrite + Unpin>(
    half: &mut W,
    outbound: &mut mpsc::Receiver<Bytes>,
    shared: &Shared,
    limits: &StreamLimits,
    ours: bool,
) -> Ended {
    let pings = ours && !limits.ping.is_zero();
    let mut next_ping = now() + limits.ping;
    // Only a peer that has answered a ping can be missed: others take no notice of them.
    let (mut answers, mut waits) = (false, false);
    loop {
        let bytes = tokio::select! {
            bytes = outbound.recv() => match bytes {
                Some(bytes) => bytes,
                None => return Ended::Dropped,
            },
            () = shared.pinged.notified(), if !ours => Bytes::from_static(PONG),
            () = tokio::time::sleep_until(next_ping.into()), if pings => {
                next_ping = now() + limits.ping;
                let ponged = shared.ponged.swap(false, Ordering::Relaxed);
                if waits && answers && !ponged {
                    return Ended::NoPong;
                }
                (answers, waits) = (answers || (waits && ponged), true);
                Bytes::from_static(PING)
            }
        };
        let sent = async {
            half.write_all(&bytes).await?;
            half.flush().await
        };
        match timeout(limits.write, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Closed,
            Err(_) => return Ended::Stalled,
        }
    }
}

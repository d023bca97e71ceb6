//! The far end of the benches of whole calls, on a thread and a socket of its own: answers each INVITE at once, sends
//! sound for as long as the call lasts, and hangs up when it has lasted that long. When an INVITE arrived is the
//! kernel's word.

#![expect(unsafe_code, reason = "the standard library does not say when a datagram arrived")]

use std::collections::{BTreeMap, VecDeque};
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::rtp::{self, Packet};
use media::{Codec, FRAME};
use sip::{Config, Endpoint, Inbound, Invite, Peer, SessionEvent, SessionId, TerminationCause, Transmit};

use super::Failed;
use crate::kernel;

/// Phases of 20 ms in which calls send.
const PHASES: u64 = 20;
/// SIP messages taken before sound gets its turn.
const ROUND: usize = 256;

/// What the far end does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers, sends sound, hangs up after a second.
    Talks,
    /// The same without sound.
    Silent,
    /// Answers on hold and lets the call stand.
    Holds,
    /// Rings.
    Rings,
}

/// One call as the far end saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// When its INVITE arrived, nanoseconds of the wall.
    pub(crate) invited: u64,
    /// When the answer to it was handed to the kernel.
    pub(crate) answered: u64,
    /// It ended by a BYE that was answered.
    pub(crate) over: bool,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    manner: AtomicU8,
    packets: AtomicU64,
    seen: Mutex<BTreeMap<usize, Seen>>,
}

/// The far end.
pub(crate) struct Far {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Far {
    /// Starts it on core 1.
    pub(crate) fn start() -> Result<Self, Failed> {
        let shared = Arc::<Shared>::default();
        let mut line = Line::open(Arc::clone(&shared))?;
        let address = line.address;
        let thread = std::thread::spawn(move || {
            kernel::pin(1);
            while !line.shared.stop.load(Ordering::Relaxed) {
                line.round();
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// What it does with calls from here on.
    pub(crate) fn behave(&self, manner: Manner) {
        self.shared.manner.store(manner as u8, Ordering::Relaxed);
    }

    /// Packets of sound that came, ever.
    pub(crate) fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Relaxed)
    }

    /// Looks at the calls, by the number that was dialled.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut BTreeMap<usize, Seen>) -> T) -> Result<T, Failed> {
        Ok(look(&mut *self.shared.seen.lock().map_err(|_| "the far end panicked")?))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A far end that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

/// One datagram into `bytes`, if one waits: its length, its sender and when it arrived.
fn receive_one(socket: &UdpSocket, bytes: &mut [u8]) -> Option<(usize, SocketAddr, u64)> {
    let mut control = [0_u64; kernel::CONTROL / 8];
    // SAFETY: an address and a header of zeros are valid values; name, vector and control buffer outlive the call.
    unsafe {
        let mut name: libc::sockaddr_in = zeroed();
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut header: libc::msghdr = zeroed();
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = kernel::CONTROL as _;
        let got = usize::try_from(libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT));
        let ip = u32::from_be(name.sin_addr.s_addr).to_be_bytes();
        let from = SocketAddr::from((ip, u16::from_be(name.sin_port)));
        Some((got.ok()?, from, kernel::arrival(&header).unwrap_or(0)))
    }
}

/// A call that lasts.
struct Call {
    number: usize,
    /// Where its sound goes; nowhere: it has none.
    sound: Option<SocketAddr>,
    frames: u32,
}

struct Line {
    shared: Arc<Shared>,
    address: SocketAddr,
    signals: UdpSocket,
    sound: UdpSocket,
    endpoint: Endpoint,
    buffer: Vec<u8>,
    batch: kernel::Batch,
    calls: BTreeMap<SessionId, Call>,
    /// Calls by the phase in which they send.
    phases: Vec<Vec<SessionId>>,
    begun: u64,
    /// Who is hung up when.
    due: VecDeque<(Instant, SessionId)>,
    phase: u64,
    phase_at: Instant,
}

impl Line {
    fn open(shared: Arc<Shared>) -> Result<Self, Failed> {
        let signals = kernel::timestamped_socket()?;
        let sound = kernel::timestamped_socket()?;
        let address = signals.local_addr()?;
        let config = Config {
            inbound: Inbound::Anyone,
            max_sessions: 200_000,
            max_transactions: 2_000_000,
            ..Config::new(address)
        };
        Ok(Self {
            shared,
            address,
            signals,
            sound,
            endpoint: Endpoint::new(config, [7; 32]),
            buffer: vec![0; sip::parse::MAX_MESSAGE],
            batch: kernel::Batch::new(),
            calls: BTreeMap::new(),
            phases: vec![Vec::new(); PHASES as usize],
            begun: 0,
            due: VecDeque::new(),
            phase: 0,
            phase_at: now(),
        })
    }

    fn round(&mut self) {
        let mut busy = false;
        for _ in 0..ROUND {
            let Some((length, from, at)) = receive_one(&self.signals, &mut self.buffer) else { break };
            busy = true;
            self.endpoint.handle_datagram(now(), Peer::udp(from), &self.buffer[..length]);
            self.drain(at);
        }
        let time = now();
        if self.endpoint.poll_timeout().is_some_and(|at| at <= time) {
            self.endpoint.handle_timeout(time);
        }
        while self.due.front().is_some_and(|(at, _)| *at <= time) {
            if let Some((_, id)) = self.due.pop_front()
                && let Some(mut session) = self.endpoint.session(id)
            {
                session.hang_up(time, None);
            }
        }
        self.drain(0);
        if time >= self.phase_at {
            self.talk();
            self.phase_at += Duration::from_millis(1);
            let packets = &self.shared.packets;
            self.batch.receive(&self.sound, |_, _| {
                packets.fetch_add(1, Ordering::Relaxed);
            });
        } else if !busy {
            #[expect(clippy::disallowed_methods, reason = "an idle end lets the others have the core")]
            std::thread::sleep((self.phase_at - time).min(Duration::from_micros(200)));
        }
    }

    /// Performs what the endpoint wants; `at`: when the datagram arrived that made it want it.
    fn drain(&mut self, at: u64) {
        let mut invited = None;
        while let Some((id, event)) = self.endpoint.poll_event() {
            match event {
                SessionEvent::Invited(invite) => invited = self.invited(id, &invite, at),
                SessionEvent::Confirmed { .. } if self.calls.get(&id).is_some_and(Call::ends) => {
                    self.due.push_back((now() + Duration::from_secs(1), id));
                }
                SessionEvent::Terminated(end) => self.over(id, end.cause == TerminationCause::Bye),
                _ => {}
            }
        }
        while let Some(Transmit { to, bytes }) = self.endpoint.poll_transmit() {
            // What the kernel does not take is lost, and repeated.
            let _ = self.signals.send_to(&bytes, to.addr);
        }
        if let Some(number) = invited
            && let Ok(mut seen) = self.shared.seen.lock()
            && let Some(seen) = seen.get_mut(&number)
        {
            seen.answered = kernel::wall_nanos();
        }
    }

    fn invited(&mut self, id: SessionId, invite: &Invite, at: u64) -> Option<usize> {
        // Whatever the trunk puts before it.
        let user = invite.request_uri.user()?;
        let number = user.get(user.len().checked_sub(10)?..)?.parse().ok()?;
        let manner = self.shared.manner.load(Ordering::Relaxed);
        let is = |wanted: Manner| manner == wanted as u8;
        if let Ok(mut seen) = self.shared.seen.lock() {
            seen.entry(number).or_insert(Seen { invited: at, answered: 0, over: false });
        }
        let at = self.sound.local_addr().ok()?;
        let local = media::sdp::Local { address: at.ip(), port: at.port(), session_id: id.0, version: 1 };
        let direction =
            if is(Manner::Holds) { media::sdp::Direction::Inactive } else { media::sdp::Direction::SendRecv };
        let config = media::sdp::OfferConfig { codecs: vec![Codec::Pcmu], ..Default::default() };
        let (sdp, remote) = media::sdp::answer(&local, &config, invite.sdp.as_deref()?, direction).ok()?;
        let mut session = self.endpoint.session(id)?;
        if is(Manner::Rings) {
            session.ring(now(), 180, None);
        } else {
            session.answer(now(), Bytes::from(sdp));
        }
        let sound = is(Manner::Talks).then_some(remote.address);
        if sound.is_some() {
            let phases = self.phases.len() as u64;
            self.phases[(self.begun % phases) as usize].push(id);
            self.begun += 1;
        }
        let frames = if is(Manner::Talks) || is(Manner::Silent) { 0 } else { u32::MAX };
        self.calls.insert(id, Call { number, sound, frames });
        Some(number)
    }

    fn over(&mut self, id: SessionId, well: bool) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let Ok(mut seen) = self.shared.seen.lock()
            && let Some(seen) = seen.get_mut(&call.number)
        {
            seen.over = well;
        }
    }

    /// Sends the sound of one phase.
    fn talk(&mut self) {
        let payload = [0x90; FRAME];
        let mut datagram = [0; 200];
        let phase = (self.phase % PHASES) as usize;
        self.phase += 1;
        let calls = &mut self.calls;
        let sound = &self.sound;
        self.phases[phase].retain(|id| {
            let Some(call) = calls.get_mut(id) else { return false };
            let Some(to) = call.sound else { return false };
            let packet = Packet {
                payload_type: 0,
                marker: call.frames == 0,
                sequence: call.frames as u16,
                timestamp: call.frames.wrapping_mul(160),
                ssrc: call.number as u32 + 1,
                payload: &payload,
            };
            call.frames += 1;
            let len = rtp::write(&packet, &mut datagram).unwrap_or_default();
            // A packet the kernel does not take is missed by the other side, which says so.
            let _ = sound.send_to(&datagram[..len], to);
            true
        });
    }
}

impl Call {
    /// It is hung up after its second.
    fn ends(&self) -> bool {
        self.frames != u32::MAX
    }
}

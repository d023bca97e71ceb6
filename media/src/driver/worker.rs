//! One worker thread: its bridges, their sockets, its slots.
//!
//! A frame of 20 ms is cut into four slots of 5 ms, and each bridge belongs to one of them, so that sends and
//! wake-ups spread. In its slot a bridge takes all datagrams that wait, makes its frame and sends it. Slots are
//! absolute: a late one is made up for, up to three frames; beyond that slots are left out and counted, and the time
//! lines of streams and recordings go on as if they had been.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::clock;
use super::events::EventSender;
use super::metrics::Counters;
use super::writer;
use crate::{Bridge, BridgeId, Command, Heard, LegId, RecordFault};

/// Slots in one frame.
const SLOTS: usize = 4;
/// How long one slot is.
const SLOT: Duration = Duration::from_millis(5);
/// A worker this late leaves slots out instead of making up for them: three frames.
const BEHIND_MAX: Duration = Duration::from_millis(60);
/// Datagrams taken from one socket in one frame: far more than a far end sends, so that a flood from elsewhere does
/// not push its packets out of the socket's buffer.
const DATAGRAMS_MAX: usize = 256;
/// The longest datagram of interest; a longer one is cut, which makes it garbage or harmless.
const DATAGRAM_BYTES: usize = 1500;
/// What the system may keep for one socket: some 30 datagrams.
const RECEIVE_BUFFER: libc::c_int = 64 * 1024;
/// Commands taken between two slots.
const COMMANDS_PER_SLOT: usize = 512;

/// A bridge with its sockets.
struct Member {
    bridge: Bridge,
    sockets: Vec<(LegId, UdpSocket)>,
}

/// See the module's words.
pub(super) struct Worker {
    /// Workers there are: only bridges of the same remainder come here.
    count: u64,
    commands: Receiver<Command>,
    recordings: SyncSender<writer::Job>,
    events: EventSender,
    metrics: Arc<Counters>,
    stop: Arc<AtomicBool>,
    /// The bridges of each slot, by id.
    slots: [Vec<Member>; SLOTS],
    buffer: Box<[u8; DATAGRAM_BYTES]>,
}

impl Worker {
    pub(super) fn new(
        count: u64,
        commands: Receiver<Command>,
        recordings: SyncSender<writer::Job>,
        events: EventSender,
        metrics: Arc<Counters>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let slots = [const { Vec::new() }; SLOTS];
        let buffer = Box::new([0; DATAGRAM_BYTES]);
        Self { count, commands, recordings, events, metrics, stop, slots, buffer }
    }

    /// The thread: until told to stop.
    pub(super) fn run(mut self, pin: Option<usize>) {
        if let Some(core) = pin {
            clock::pin(core);
        }
        let mut due = clock::now();
        let mut slot = 0;
        while !self.stop.load(Ordering::Relaxed) {
            clock::sleep_until(due);
            let now = clock::now();
            let late = now.saturating_duration_since(due);
            if late > BEHIND_MAX {
                due += self.leave_out(now, late);
            } else {
                self.metrics.late(late.as_micros() as u64);
            }
            self.take_commands(now);
            self.serve(now, slot);
            self.events.flush();
            due += SLOT;
            slot = (slot + 1) % SLOTS;
        }
        self.close_all();
    }

    /// Leaves out whole frames, so that each slot keeps its bridges; returns how much time that is.
    fn leave_out(&mut self, now: Instant, late: Duration) -> Duration {
        let frame = SLOT * SLOTS as u32;
        let frames = (late.as_millis() / frame.as_millis()) as u32;
        self.metrics.skipped.fetch_add(u64::from(frames) * SLOTS as u64, Ordering::Relaxed);
        for member in self.slots.iter_mut().flatten() {
            member.bridge.skip(now, frames);
        }
        frame * frames
    }

    fn place(&self, id: BridgeId) -> (usize, Result<usize, usize>) {
        let slot = (id.0 / self.count % SLOTS as u64) as usize;
        (slot, self.slots[slot].binary_search_by_key(&id, |member| member.bridge.id()))
    }

    fn take_commands(&mut self, now: Instant) {
        for _ in 0..COMMANDS_PER_SLOT {
            let Ok(command) = self.commands.try_recv() else { break };
            self.command(now, command);
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        let id = command.bridge();
        let (slot, found) = self.place(id);
        let at = match (found, &command) {
            (Ok(at), _) => at,
            (Err(at), Command::Open { .. }) => {
                self.slots[slot].insert(at, Member { bridge: Bridge::new(id), sockets: Vec::new() });
                at
            }
            (Err(_), _) => return self.answer_for_nobody(id, &command),
        };
        let member = &mut self.slots[slot][at];
        let done = catch_unwind(AssertUnwindSafe(|| {
            member.command(now, command, &mut self.events);
            member.report(&mut self.events, &self.recordings);
        }));
        self.settle(slot, at, done.is_ok());
    }

    /// A bridge that does not exist owes these answers all the same, or somebody waits for ever.
    fn answer_for_nobody(&mut self, id: BridgeId, command: &Command) {
        match *command {
            Command::Play { playback, .. } => {
                self.events.send(id, Heard::PlaybackEnded { playback, completed: false, played_ms: 0 });
            }
            Command::Record { recording, .. } => {
                let reason = "there is no such bridge".to_owned();
                self.events.send(id, Heard::never_recorded(recording, RecordFault::Refused, reason));
            }
            Command::Close { .. } => self.events.send(id, Heard::Closed { stats: Vec::new() }),
            _ => {}
        }
    }

    fn serve(&mut self, now: Instant, slot: usize) {
        let mut at = 0;
        while let Some(member) = self.slots[slot].get_mut(at) {
            let done = catch_unwind(AssertUnwindSafe(|| {
                member.receive(now, &mut self.buffer[..]);
                member.bridge.tick(now);
                member.send(&self.metrics);
                member.report(&mut self.events, &self.recordings);
            }));
            self.metrics.ticks.fetch_add(1, Ordering::Relaxed);
            at += usize::from(self.settle(slot, at, done.is_ok()));
        }
    }

    /// Forgets a bridge that was closed. One that panicked is ended as well: a fault costs one call, not all. False
    /// when it is gone.
    fn settle(&mut self, slot: usize, at: usize, sound: bool) -> bool {
        if sound && !self.slots[slot][at].bridge.is_closed() {
            return true;
        }
        let member = self.slots[slot].remove(at);
        if !sound {
            self.metrics.faults.fetch_add(1, Ordering::Relaxed);
            let id = member.bridge.id();
            let leg = member.sockets.first().map_or(LegId(0), |(leg, _)| *leg);
            tracing::error!(bridge = id.0, "a fault in the media of a call; the call is given up");
            self.events.send(id, Heard::Failed { leg, error: "internal fault".to_owned() });
            self.events.send(id, Heard::Closed { stats: Vec::new() });
        }
        false
    }

    fn close_all(&mut self) {
        let now = clock::now();
        let ids: Vec<BridgeId> = self.slots.iter().flatten().map(|member| member.bridge.id()).collect();
        for bridge in ids {
            self.command(now, Command::Close { bridge });
        }
        self.events.flush();
    }
}

impl Member {
    fn command(&mut self, now: Instant, command: Command, events: &mut EventSender) {
        if let Command::Open { bridge, leg, local, .. } = &command {
            match open(*local) {
                Ok(socket) if !self.sockets.iter().any(|(open, _)| open == leg) => {
                    self.sockets.push((*leg, socket));
                }
                // The bridge itself says that this leg is open already.
                Ok(_) => {}
                Err(error) => {
                    let error = format!("cannot open {local} for RTP: {error}");
                    return events.send(*bridge, Heard::Failed { leg: *leg, error });
                }
            }
        }
        self.bridge.command(now, command);
    }

    fn receive(&mut self, now: Instant, buffer: &mut [u8]) {
        for (leg, socket) in &self.sockets {
            for _ in 0..DATAGRAMS_MAX {
                match socket.recv_from(buffer) {
                    Ok((len, from)) => self.bridge.handle_packet(now, *leg, from, &buffer[..len]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn send(&mut self, metrics: &Counters) {
        while let Some((leg, to, datagram)) = self.bridge.poll_transmit() {
            let socket = self.sockets.iter().find(|(open, _)| *open == leg);
            if socket.is_none_or(|(_, socket)| socket.send_to(datagram, to).is_err()) {
                metrics.send_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Hands on what happened, and recordings that began.
    fn report(&mut self, events: &mut EventSender, recordings: &SyncSender<writer::Job>) {
        let bridge = self.bridge.id();
        while let Some(started) = self.bridge.poll_recording() {
            let recording = started.recording;
            if recordings.try_send(writer::Job { bridge, started }).is_err() {
                let reason = "too many recordings begin at once".to_owned();
                events.send(bridge, Heard::never_recorded(recording, RecordFault::Refused, reason));
            }
        }
        while let Some(heard) = self.bridge.poll_event() {
            events.send(bridge, heard);
        }
    }
}

/// The socket of a leg.
fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    if local.port() == 0 || local.port() % 2 == 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the port is not even"));
    }
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    clock::bound_receive_buffer(&socket, RECEIVE_BUFFER);
    Ok(socket)
}

//! One call's mixing room: its legs, what is played into it, what is recorded of it.
//!
//! Owns the order of a tick: every leg is heard once, the sum is made once, every leg gets the sum without itself. It
//! is pure: datagrams and commands go in, datagrams and events come out, time is an argument, randomness a seed. It
//! allocates while it takes commands, never while it takes packets or ticks. It never touches a socket or a file:
//! [`crate::driver`] does, and the file of a recording is written by whoever takes [`Bridge::poll_recording`].

mod keys;
mod leg;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::amd::Amd;
use crate::mixer::Mix;
use crate::playback::Player;
use crate::recorder::{self, Channels, RingWriter};
use crate::talk::Talk;
use crate::tone::Tone;
use crate::{
    BridgeId, Command, FRAME, Frame, Heard, LegId, PlayTo, PlaybackId, RecordFault, RecordWhat, RecordingId,
};
use leg::Leg;

/// Legs in one bridge.
pub const LEGS_MAX: usize = 16;
/// Recordings of one bridge at a time.
pub const RECORDINGS_MAX: usize = 4;
/// A frame of nothing.
const SILENCE: Frame = [0; FRAME];
/// Events kept without allocating; one tick makes far fewer.
const EVENTS_USUAL: usize = 32;

/// Where legs leave what they have to say.
#[derive(Debug)]
struct Room {
    events: VecDeque<Heard>,
}

impl Room {
    fn say(&mut self, heard: Heard) {
        self.events.push_back(heard);
    }
}

/// Whether a recording takes what is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hush {
    /// It does.
    Off,
    /// It is paused: it takes silence.
    On,
    /// The pause is over, and so many frames that arrived during it are still to be heard.
    Ending(u32),
}

#[derive(Debug)]
struct Recording {
    id: RecordingId,
    what: RecordWhat,
    ring: RingWriter,
    hush: Hush,
}

/// A mixing room. See the module's words.
#[derive(Debug)]
pub struct Bridge {
    id: BridgeId,
    legs: Vec<Leg>,
    player: Player,
    recordings: Vec<Recording>,
    started: VecDeque<recorder::Started>,
    room: Room,
    /// The leg whose datagrams are fetched next.
    polling: usize,
    closed: bool,
}

impl Bridge {
    /// An empty room.
    pub fn new(id: BridgeId) -> Self {
        Self {
            id,
            legs: Vec::new(),
            player: Player::new(),
            recordings: Vec::new(),
            started: VecDeque::new(),
            room: Room { events: VecDeque::with_capacity(EVENTS_USUAL) },
            polling: 0,
            closed: false,
        }
    }

    /// Its name.
    pub fn id(&self) -> BridgeId {
        self.id
    }

    /// [`Command::Close`] was taken: nothing more will happen here.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Does what is asked. The socket of [`Command::Open`] is the caller's business; commands for a leg that is not
    /// here do nothing.
    pub fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Open { leg, settings, seed, .. } => {
                if self.legs.len() >= LEGS_MAX || self.leg(leg).is_some() {
                    let error = "too many legs, or this one is open".to_owned();
                    return self.room.say(Heard::Failed { leg, error });
                }
                self.legs.push(Leg::new(now, leg, settings, seed));
                self.room.say(Heard::Opened { leg });
            }
            Command::Connect { leg, remote, .. } => self.with(leg, |leg| leg.connect(now, remote)),
            Command::Play { playback, clip, to, looped, .. } => {
                let player = match to {
                    PlayTo::Bridge => Some(&mut self.player),
                    PlayTo::Leg(id) => {
                        self.legs.iter_mut().find(|leg| leg.id == id).map(|leg| &mut leg.player)
                    }
                };
                if !player.is_some_and(|player| player.push(playback, clip, looped)) {
                    self.room.say(Heard::PlaybackEnded { playback, completed: false, played_ms: 0 });
                }
            }
            Command::StopPlayback { playback, .. } => self.stop_playback(playback),
            Command::PausePlayback { on, .. } => self.player.pause(on),
            Command::Listen { leg, tap, .. } => self.with(leg, |leg| leg.tap = tap),
            Command::Echo { leg, on, .. } => self.with(leg, |leg| leg.echo = on),
            Command::Tone { leg, tone, .. } => {
                self.with(leg, |leg| leg.tone = tone.map(|tone| Tone::new(&tone.parts)));
            }
            Command::Mute { leg, on, .. } => self.with(leg, |leg| leg.muted = on),
            Command::ListenAmd { leg, config, .. } => {
                self.with(leg, |leg| leg.amd = Some(Amd::new(config)));
            }
            Command::StopAmd { leg, .. } => self.with(leg, |leg| leg.amd = None),
            Command::ListenTalk { leg, on, .. } => {
                self.with(leg, |leg| leg.talk = on.then(Talk::new));
            }
            Command::SendDigits { leg: id, digits, mode, on_ms, gap_ms, .. } => {
                let Some(leg) = self.leg(id) else { return };
                if !leg.keys.request(&digits, mode, on_ms, gap_ms) {
                    self.room.say(Heard::DigitsSent { leg: id });
                }
            }
            Command::Record { recording, path, what, .. } => self.record(recording, path, what),
            Command::PauseRecording { recording, on, .. } => self.pause(recording, on),
            Command::StopRecording { recording, .. } => {
                // Dropping the ring's end is the end of the recording; its reader says the rest.
                self.recordings.retain(|active| active.id != recording);
            }
            Command::Hold { leg, on, .. } => self.with(leg, |leg| leg.hold(now, on)),
            Command::Close { .. } => self.close(),
        }
    }

    fn leg(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.id == id)
    }

    fn with(&mut self, id: LegId, act: impl FnOnce(&mut Leg)) {
        if let Some(leg) = self.leg(id) {
            act(leg);
        }
    }

    fn stop_playback(&mut self, playback: Option<PlaybackId>) {
        let Self { legs, player, room, .. } = self;
        player.stop(playback, |heard| room.say(heard));
        for leg in legs {
            leg.player.stop(playback, |heard| room.say(heard));
        }
    }

    fn record(&mut self, recording: RecordingId, path: std::path::PathBuf, what: RecordWhat) {
        if self.recordings.len() >= RECORDINGS_MAX || self.recordings.iter().any(|r| r.id == recording) {
            let reason = "too many recordings, or this one runs".to_owned();
            return self.room.say(Heard::never_recorded(recording, RecordFault::Refused, reason));
        }
        let channels = match what {
            RecordWhat::Mix | RecordWhat::Heard(_) => Channels::Mono,
            RecordWhat::Sides(_) => Channels::Stereo,
        };
        let (ring, reader) = recorder::ring(channels);
        self.recordings.push(Recording { id: recording, what, ring, hush: Hush::Off });
        self.started.push_back(recorder::Started { recording, path, reader });
    }

    /// What waits in the jitter buffers at the end of a pause was said during it.
    fn pause(&mut self, recording: RecordingId, on: bool) {
        let waiting = self.legs.iter().map(Leg::waiting).max().unwrap_or_default();
        let Some(recording) = self.recordings.iter_mut().find(|active| active.id == recording) else {
            return;
        };
        recording.hush = match (on, recording.hush) {
            (true, _) => Hush::On,
            (false, Hush::On) => Hush::Ending(waiting),
            (false, going_on) => going_on,
        };
    }

    fn close(&mut self) {
        let Self { legs, player, room, .. } = self;
        player.abandon(|heard| room.say(heard));
        for leg in legs.iter_mut() {
            leg.player.abandon(|heard| room.say(heard));
            if let Some(verdict) = leg.amd.as_mut().and_then(Amd::hangup) {
                room.say(Heard::Amd { leg: leg.id, verdict });
            }
        }
        self.recordings.clear();
        let stats = self.legs.iter().map(|leg| (leg.id, leg.stats())).collect();
        self.legs.clear();
        self.closed = true;
        self.room.say(Heard::Closed { stats });
    }

    /// A datagram came to the socket of a leg.
    pub fn handle_packet(&mut self, now: Instant, leg: LegId, from: SocketAddr, datagram: &[u8]) {
        if let Some(leg) = self.legs.iter_mut().find(|known| known.id == leg) {
            leg.receive(now, from, datagram, &mut self.room);
        }
    }

    /// One frame of 20 ms for the whole room. Fetch [`Bridge::poll_transmit`] afterwards: what is left when the next
    /// tick comes is lost.
    pub fn tick(&mut self, now: Instant) {
        let Self { legs, player, room, recordings, .. } = self;
        let mut total = Mix::new();
        for leg in legs.iter_mut() {
            leg.listen(now, room);
            if leg.sounds {
                total.add(&leg.heard);
            }
            if let Some(tap) = &leg.tap {
                tap.push(if leg.sounds { &leg.heard } else { &SILENCE });
            }
        }
        // Nothing is played into an empty room: what is asked for before the far end is there begins when it is.
        let mut frame = [0; FRAME];
        let attended = legs.iter().any(Leg::is_connected);
        if attended && player.read(&mut frame, |heard| room.say(heard)) {
            total.add(&frame);
        }
        write_recordings(recordings, legs, &total);
        for leg in legs.iter_mut() {
            leg.speak(&total, room);
        }
        self.polling = 0;
    }

    /// So many ticks were skipped because the worker was late: timestamps and recordings go on as if they had been.
    pub fn skip(&mut self, now: Instant, ticks: u32) {
        for leg in &mut self.legs {
            leg.skip(now, ticks);
        }
        for recording in &mut self.recordings {
            recording.ring.skip(ticks);
        }
    }

    /// The next datagram of this tick: from the socket of which leg, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(LegId, SocketAddr, &[u8])> {
        while let Some(leg) = self.legs.get(self.polling) {
            if leg.has_datagram() {
                let leg = &mut self.legs[self.polling];
                let id = leg.id;
                return leg.poll().map(|(to, datagram)| (id, to, datagram));
            }
            self.polling += 1;
        }
        None
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Heard> {
        self.room.events.pop_front()
    }

    /// The next recording that was begun: its file is to be written.
    pub fn poll_recording(&mut self) -> Option<recorder::Started> {
        self.started.pop_front()
    }
}

fn write_recordings(recordings: &mut Vec<Recording>, legs: &[Leg], total: &Mix) {
    if recordings.is_empty() {
        return;
    }
    recordings.retain(|recording| !recording.ring.is_abandoned());
    // Sound made up for a gap resembles what was before it, which may have been in a pause.
    let made_up = legs.iter().any(|leg| leg.made_up);
    for recording in recordings {
        if recording.hushed(made_up) {
            recording.ring.push(&SILENCE);
            continue;
        }
        let said = |id| legs.iter().find(|leg| leg.id == id);
        match recording.what {
            RecordWhat::Mix => {
                let mut mixed = SILENCE;
                total.write(&mut mixed);
                recording.ring.push(&mixed);
            }
            RecordWhat::Heard(id) => recording.ring.push(said(id).map_or(&SILENCE, |leg| &leg.heard)),
            RecordWhat::Sides(id) => {
                let mut others = total.clone();
                let said = said(id).filter(|leg| leg.sounds).map(|leg| &leg.heard);
                if let Some(said) = said {
                    others.take(said);
                }
                let mut right = SILENCE;
                others.write(&mut right);
                recording.ring.push_pair(said.unwrap_or(&SILENCE), &right);
            }
        }
    }
}

impl Recording {
    /// Whether the frame of this tick is left out; counts the last ones of a pause.
    fn hushed(&mut self, made_up: bool) -> bool {
        let (hushed, then) = match self.hush {
            Hush::Off => (false, Hush::Off),
            Hush::On => (true, Hush::On),
            Hush::Ending(0) if !made_up => (false, Hush::Off),
            Hush::Ending(left) => (true, Hush::Ending(left.saturating_sub(1))),
        };
        self.hush = then;
        hushed
    }
}

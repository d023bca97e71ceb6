//! One leg of a bridge: what comes in from its far end, what is heard in it, and what goes out.

use std::net::SocketAddr;
use std::time::Instant;

use super::Room;
use super::keys::{KeyTick, Keys};
use crate::amd::Amd;
use crate::codec::Codec;
use crate::dtmf::{Dedup, DigitSource, EventReceiver, InbandDetector};
use crate::jitter::{JitterBuffer, Popped};
use crate::latch::Source;
use crate::mixer::Mix;
use crate::playback::Player;
use crate::rtp::{self, Packet};
use crate::sdp::Remote;
use crate::srtp::Opener;
use crate::stream::Outgoing;
use crate::talk::Talk;
use crate::tap::Tap;
use crate::tone::Tone;
use crate::{FRAME, Frame, Heard, InbandMode, LegId, LegSettings, LegStats};

/// The payload type we offer for telephone events; a far end that answers with another one may use either.
const OFFERED_EVENTS: u8 = 101;
/// Comfort noise (RFC 3389): a sign of life, no sound of ours.
const COMFORT_NOISE: u8 = 13;

/// The longest sealed datagram of interest; none that carries sound comes near.
const SEALED_MAX: usize = 1500;

/// What a payload type means on a leg.
enum Payload {
    Audio(Codec),
    Events,
    ComfortNoise,
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    settings: LegSettings,
    remote: Option<Remote>,
    source: Source,
    /// Opens what comes, where the far end agreed on keys; then nothing else is heard.
    opener: Option<Opener>,
    out: Outgoing,
    jitter: JitterBuffer,
    /// What the far end says in the current tick.
    pub(super) heard: Frame,
    /// Something came from it; otherwise `heard` is silence.
    pub(super) sounds: bool,
    /// It was made up for a gap.
    pub(super) made_up: bool,
    pub(super) player: Player,
    pub(super) echo: bool,
    pub(super) tone: Option<Tone>,
    pub(super) muted: bool,
    pub(super) keys: Keys,
    pub(super) amd: Option<Amd>,
    pub(super) talk: Option<Talk>,
    pub(super) tap: Option<Tap>,
    held: bool,
    events: EventReceiver,
    inband: InbandDetector,
    dedup: Dedup,
    /// The watchdog counts from here: the last packet, or when it was last paused.
    alive: Instant,
    timed_out: bool,
    stats: LegStats,
}

impl Leg {
    pub(super) fn new(now: Instant, id: LegId, settings: LegSettings, seed: u64) -> Self {
        Self {
            id,
            source: Source::new(settings.symmetric),
            opener: None,
            out: Outgoing::new(seed, id),
            jitter: JitterBuffer::new(settings.jitter),
            settings,
            remote: None,
            heard: [0; FRAME],
            sounds: false,
            made_up: false,
            player: Player::new(),
            echo: false,
            tone: None,
            muted: false,
            keys: Keys::default(),
            amd: None,
            talk: None,
            tap: None,
            held: false,
            events: EventReceiver::new(),
            inband: InbandDetector::new(),
            dedup: Dedup::new(),
            alive: now,
            timed_out: false,
            stats: LegStats::default(),
        }
    }

    pub(super) fn connect(&mut self, now: Instant, remote: Remote) {
        self.source.declare(now, remote.address);
        self.out.protect(remote.srtp.as_ref());
        match &remote.srtp {
            Some(keys)
                if self.opener.as_ref().is_some_and(|opener| opener.is_for(keys.suite, &keys.theirs)) => {}
            keys => self.opener = keys.as_ref().map(|keys| Opener::new(keys.suite, keys.theirs)),
        }
        self.remote = Some(remote);
        self.watch_anew(now);
    }

    pub(super) fn hold(&mut self, now: Instant, on: bool) {
        self.held = on;
        self.watch_anew(now);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.remote.is_some()
    }

    /// Frames that have arrived and are not heard yet.
    pub(super) fn waiting(&self) -> u32 {
        self.jitter.waiting()
    }

    fn watch_anew(&mut self, now: Instant) {
        self.alive = now;
        self.timed_out = false;
    }

    fn payload(&self, payload_type: u8) -> Option<Payload> {
        let remote = self.remote.as_ref()?;
        if payload_type == remote.payload_type {
            Some(Payload::Audio(remote.codec))
        } else if payload_type == Codec::Pcmu.payload_type() {
            Some(Payload::Audio(Codec::Pcmu))
        } else if payload_type == Codec::Pcma.payload_type() {
            Some(Payload::Audio(Codec::Pcma))
        } else if payload_type == COMFORT_NOISE {
            Some(Payload::ComfortNoise)
        } else {
            let theirs = remote.event_payload_type?;
            (payload_type == theirs || payload_type == OFFERED_EVENTS).then_some(Payload::Events)
        }
    }

    /// One datagram from the leg's socket.
    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8], room: &mut Room) {
        if self.remote.is_none() || looks_like_rtcp(datagram) {
            return;
        }
        let mut opened = [0; SEALED_MAX];
        let plain = match &mut self.opener {
            Some(opener) => open(opener, datagram, &mut opened),
            None => Some(datagram),
        };
        let Some(packet) = plain.and_then(rtp::parse) else {
            self.stats.garbage += 1;
            return;
        };
        let Some(payload) = self.payload(packet.payload_type) else {
            self.stats.garbage += 1;
            return;
        };
        if !self.source.admit(now, from, packet.ssrc, packet.sequence) {
            self.stats.strangers += 1;
            return;
        }
        if self.stats.packets_in == 0 {
            room.say(Heard::FirstPacket { leg: self.id });
        }
        self.stats.packets_in += 1;
        self.stats.bytes_in += datagram.len() as u64;
        self.watch_anew(now);
        self.take(now, &payload, &packet, room);
    }

    fn take(&mut self, now: Instant, payload: &Payload, packet: &Packet<'_>, room: &mut Room) {
        match payload {
            Payload::Audio(codec) => self.jitter.push(now, packet, *codec),
            Payload::Events => {
                self.jitter.note(now, packet);
                if let Some(digit) = self.events.packet(now, packet) {
                    self.press(now, digit, DigitSource::Rfc4733, room);
                }
            }
            Payload::ComfortNoise => self.jitter.note(now, packet),
        }
    }

    fn press(&mut self, now: Instant, digit: char, source: DigitSource, room: &mut Room) {
        if self.dedup.accept(now, digit, source) {
            room.say(Heard::Digit { leg: self.id, digit, source });
        }
    }

    /// The first half of a tick: takes what the far end says and listens to it.
    pub(super) fn listen(&mut self, now: Instant, room: &mut Room) {
        let kind = self.jitter.pop(now, &mut self.heard);
        self.sounds = kind != Popped::Silence;
        self.made_up = kind == Popped::Concealed;
        if !self.sounds {
            self.heard.fill(0);
        }
        self.events.timeout(now);
        let inband = match self.settings.detect_inband {
            InbandMode::Auto => self.remote.as_ref().is_some_and(|r| r.event_payload_type.is_none()),
            InbandMode::Always => true,
            InbandMode::Never => false,
        };
        if inband && let Some(digit) = self.inband.frame(&self.heard, kind == Popped::Concealed) {
            self.press(now, digit, DigitSource::Inband, room);
        }
        if let Some(verdict) = self.amd.as_mut().and_then(|amd| amd.hear(&self.heard, kind)) {
            self.amd = None;
            room.say(Heard::Amd { leg: self.id, verdict });
        }
        if let Some(change) = self.talk.as_mut().and_then(|talk| talk.hear(&self.heard)) {
            room.say(Heard::Talk { leg: self.id, change });
        }
        self.watch(now, room);
    }

    fn watch(&mut self, now: Instant, room: &mut Room) {
        let Some(limit) = self.settings.media_timeout else { return };
        let awaited = !self.held && self.remote.as_ref().is_some_and(|remote| remote.direction.sends());
        if !awaited {
            self.alive = now;
        } else if !self.timed_out && now.saturating_duration_since(self.alive) >= limit {
            self.timed_out = true;
            room.say(Heard::MediaTimeout { leg: self.id });
        }
    }

    /// The second half: sends the room without the leg's own sound, and what is meant for this leg alone.
    pub(super) fn speak(&mut self, total: &Mix, room: &mut Room) {
        self.out.advance(1);
        let mut mix = total.clone();
        if self.sounds && !self.echo {
            mix.take(&self.heard);
        }
        let mut frame = [0; FRAME];
        if self.is_connected() && self.player.read(&mut frame, |heard| room.say(heard)) {
            mix.add(&frame);
        }
        if let Some(tone) = &mut self.tone {
            tone.fill(&mut frame);
            mix.add(&frame);
        }
        let Some(remote) = self.remote.as_ref().filter(|remote| remote.direction.receives() && !self.muted)
        else {
            self.out.rest();
            return;
        };
        mix.write(&mut frame);
        let (id, events) = (self.id, remote.event_payload_type);
        let sent = || room.say(Heard::DigitsSent { leg: id });
        match self.keys.tick(self.out.timestamp(), events.is_some(), &mut frame, sent) {
            KeyTick::Event { payload, timestamp, marker, copies } => {
                let payload_type = events.unwrap_or(OFFERED_EVENTS);
                self.out.event(payload_type, marker, timestamp, payload, copies);
            }
            KeyTick::Audio | KeyTick::Tone => {
                let mut payload = [0; FRAME];
                remote.codec.encode(&frame, &mut payload);
                self.out.audio(remote.payload_type, &payload);
            }
        }
    }

    /// Ticks that were skipped: time goes on, and the sound of that time is let go, or it would be heard late for the
    /// rest of the call.
    pub(super) fn skip(&mut self, now: Instant, ticks: u32) {
        self.out.advance(ticks);
        for _ in 0..ticks.min(50) {
            self.jitter.pop(now, &mut self.heard);
        }
    }

    /// [`Leg::poll`] has something.
    pub(super) fn has_datagram(&self) -> bool {
        self.source.destination().is_some() && self.out.has_datagram()
    }

    /// The next datagram of this tick, and where it goes.
    pub(super) fn poll(&mut self) -> Option<(SocketAddr, &[u8])> {
        let to = self.source.destination()?;
        let datagram = self.out.poll()?;
        self.stats.packets_out += 1;
        self.stats.bytes_out += datagram.len() as u64;
        Some((to, datagram))
    }

    pub(super) fn stats(&self) -> LegStats {
        let jitter = self.jitter.stats();
        LegStats {
            lost: jitter.lost,
            concealed: jitter.concealed,
            late: jitter.late,
            jitter_ms: jitter.jitter_ms.round() as u32,
            ..self.stats
        }
    }
}

/// What was sealed in a datagram, if it is authentic.
fn open<'a>(opener: &mut Opener, datagram: &[u8], room: &'a mut [u8; SEALED_MAX]) -> Option<&'a [u8]> {
    let copy = room.get_mut(..datagram.len())?;
    copy.copy_from_slice(datagram);
    opener.open(copy)
}

/// RTCP that came to the RTP port: packet types 200 to 204 where RTP has marker and payload type (RFC 5761 §4).
fn looks_like_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|byte| (200..=204).contains(byte))
}

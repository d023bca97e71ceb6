//! A bridge in virtual time, and far ends made of packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::recorder::RingReader;
use media::rtp::{self, Packet};
use media::sdp::{Direction, Remote};
use media::*;

pub(crate) const BRIDGE: BridgeId = BridgeId(1);
pub(crate) const A: LegId = LegId(0);
pub(crate) const B: LegId = LegId(1);
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// A packet the bridge sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) leg: LegId,
    pub(crate) to: SocketAddr,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) datagram: Vec<u8>,
}

/// A bridge, its clock, and all it said and sent.
pub(crate) struct Room {
    pub(crate) bridge: Bridge,
    pub(crate) now: Instant,
    pub(crate) heard: Vec<Heard>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) ticks: u32,
}

pub(crate) fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    Instant::now()
}

pub(crate) fn address(leg: LegId) -> SocketAddr {
    format!("192.0.2.{}:4000", leg.0 + 1).parse().unwrap()
}

pub(crate) fn remote(leg: LegId) -> Remote {
    Remote {
        address: address(leg),
        codec: Codec::Pcmu,
        payload_type: 0,
        event_payload_type: Some(101),
        direction: Direction::SendRecv,
        ptime_ms: 20,
        srtp: None,
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { bridge: Bridge::new(BRIDGE), now: origin(), heard: vec![], sent: vec![], ticks: 0 }
    }

    /// A room with these legs, connected.
    pub(crate) fn with(legs: &[LegId]) -> Self {
        let mut room = Self::new();
        for leg in legs {
            room.open(*leg, LegSettings::default());
            room.connect(remote(*leg), *leg);
        }
        room
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.bridge.command(self.now, command);
        self.listen();
    }

    pub(crate) fn open(&mut self, leg: LegId, settings: LegSettings) {
        let local = "127.0.0.1:4000".parse().unwrap();
        self.command(Command::Open { bridge: BRIDGE, leg, local, settings, seed: 7 });
    }

    pub(crate) fn connect(&mut self, remote: Remote, leg: LegId) {
        self.command(Command::Connect { bridge: BRIDGE, leg, remote });
    }

    pub(crate) fn play(&mut self, id: u64, samples: Vec<i16>, to: PlayTo) {
        let clip = Arc::new(Clip::from_samples(samples));
        self.command(Command::Play { bridge: BRIDGE, playback: PlaybackId(id), clip, to, looped: false });
    }

    pub(crate) fn record(&mut self, id: u64, what: RecordWhat) -> RingReader {
        self.command(Command::Record {
            bridge: BRIDGE,
            recording: RecordingId(id),
            path: "unused".into(),
            what,
        });
        self.bridge.poll_recording().unwrap().reader
    }

    fn listen(&mut self) {
        // That legs open is each test's first step, not its finding.
        let all = std::iter::from_fn(|| self.bridge.poll_event());
        self.heard.extend(all.filter(|heard| !matches!(heard, Heard::Opened { .. })));
    }

    /// One tick; what was sent in it.
    pub(crate) fn tick(&mut self) -> Vec<Sent> {
        self.now += TICK;
        self.ticks += 1;
        self.bridge.tick(self.now);
        self.listen();
        let mut sent = vec![];
        while let Some((leg, to, datagram)) = self.bridge.poll_transmit() {
            let p = rtp::parse(datagram).unwrap();
            sent.push(Sent {
                leg,
                to,
                payload_type: p.payload_type,
                marker: p.marker,
                sequence: p.sequence,
                timestamp: p.timestamp,
                ssrc: p.ssrc,
                payload: p.payload.to_vec(),
                datagram: datagram.to_vec(),
            });
        }
        self.sent.extend(sent.iter().cloned());
        sent
    }

    pub(crate) fn ticks(&mut self, n: usize) {
        for _ in 0..n {
            self.tick();
        }
    }

    /// What was sent to a leg as sound.
    pub(crate) fn sound(&self, leg: LegId) -> Vec<i16> {
        let mut sound = vec![];
        for sent in self.sent.iter().filter(|sent| sent.leg == leg && sent.payload.len() == FRAME) {
            let mut frame = [0; FRAME];
            Codec::Pcmu.decode(&sent.payload, &mut frame);
            sound.extend(frame);
        }
        sound
    }

    pub(crate) fn digits(&self) -> String {
        self.heard
            .iter()
            .filter_map(|h| if let Heard::Digit { digit, .. } = h { Some(*digit) } else { None })
            .collect()
    }

    /// Forgets what was sent and heard so far.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
        self.heard.clear();
    }
}

/// A far end: numbers its packets.
pub(crate) struct Far {
    pub(crate) leg: LegId,
    pub(crate) from: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

impl Far {
    pub(crate) fn new(leg: LegId) -> Self {
        Self {
            leg,
            from: address(leg),
            ssrc: 1000 + u32::from(leg.0),
            sequence: 65_530,
            timestamp: u32::MAX - 700,
        }
    }

    /// A frame of audio whose every octet is `code`.
    pub(crate) fn say(&mut self, room: &mut Room, code: u8) {
        self.send(room, 0, &[code; FRAME]);
    }

    /// One packet of 20 ms.
    pub(crate) fn send(&mut self, room: &mut Room, payload_type: u8, payload: &[u8]) {
        let mut datagram = [0; 200];
        let packet = Packet {
            payload_type,
            marker: false,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload,
        };
        let len = rtp::write(&packet, &mut datagram).unwrap();
        self.lose();
        room.bridge.handle_packet(room.now, self.leg, self.from, &datagram[..len]);
        room.listen();
    }

    /// A packet that never arrives.
    pub(crate) fn lose(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
    }
}

/// What a µ-law octet sounds like.
pub(crate) fn linear(code: u8) -> i16 {
    let mut out = [0];
    Codec::Pcmu.decode(&[code], &mut out);
    out[0]
}

/// All that was recorded so far, as samples.
pub(crate) fn recorded(reader: &mut RingReader) -> Vec<i16> {
    let mut bytes = vec![];
    reader.read(&mut bytes, u64::MAX);
    bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Frames that consist of one value each, as these values.
pub(crate) fn values(sound: &[i16]) -> Vec<i16> {
    sound.chunks(FRAME).filter(|frame| frame.iter().all(|s| *s == frame[0])).map(|frame| frame[0]).collect()
}

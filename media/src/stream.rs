//! The two directions of one RTP stream: how ours is numbered, and whose we believe.
//!
//! Owns SSRC, sequence numbers, timestamps and marker of what is sent (RFC 3550 §5.1, RFC 3551 §4.1), and the rule
//! which source address is listened to and sent to. It never touches a socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::rtp::{self, Packet};
use crate::{FRAME, LegId};

/// A source other than the session description's may be learned for this long after it came.
const LEARNING: Duration = Duration::from_secs(5);
/// Packets in a row that a new source must show.
const PROBATION: u8 = 3;
/// Datagrams one leg may send in one tick: the end of a key is sent three times.
const PER_TICK: usize = 3;
/// A frame of G.711 behind the fixed RTP header.
const DATAGRAM_MAX: usize = 12 + FRAME;

#[derive(Clone, Copy, Debug)]
struct Datagram {
    bytes: [u8; DATAGRAM_MAX],
    len: usize,
}

/// The stream we send, with the datagrams of the current tick.
#[derive(Debug)]
pub struct Outgoing {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// Nothing was sent in the last tick: the next audio packet begins a talk spurt.
    resting: bool,
    datagrams: [Datagram; PER_TICK],
    ready: usize,
    polled: usize,
}

impl Outgoing {
    /// A stream whose SSRC, first sequence number and first timestamp come from the seed. Two legs of one seed still
    /// differ.
    pub fn new(seed: u64, leg: LegId) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(leg.0.into());
        Self {
            ssrc: rng.next_u32(),
            sequence: rng.next_u32() as u16,
            timestamp: rng.next_u32(),
            resting: true,
            datagrams: [Datagram { bytes: [0; DATAGRAM_MAX], len: 0 }; PER_TICK],
            ready: 0,
            polled: 0,
        }
    }

    /// The timestamp of the current tick.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// A new tick: the clock of the stream goes on by so many frames, whether or not anything was sent, and what was
    /// not fetched is gone.
    pub fn advance(&mut self, frames: u32) {
        self.timestamp = self.timestamp.wrapping_add(frames.wrapping_mul(FRAME as u32));
        self.ready = 0;
        self.polled = 0;
    }

    /// One frame of encoded audio. The marker is set only where sound begins again (RFC 3551 §4.1).
    pub fn audio(&mut self, payload_type: u8, payload: &[u8; FRAME]) {
        let marker = std::mem::take(&mut self.resting);
        self.put(payload_type, marker, self.timestamp, payload);
    }

    /// A telephone event in place of audio, `copies` times (RFC 4733 §2.5.1.4), with the timestamp of its beginning.
    pub fn event(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: [u8; 4], copies: u8) {
        self.resting = false;
        for _ in 0..copies {
            self.put(payload_type, marker, timestamp, &payload);
        }
    }

    /// Nothing is sent in this tick.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    fn put(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8]) {
        let Some(datagram) = self.datagrams.get_mut(self.ready) else { return };
        let sequence = self.sequence;
        let packet = Packet { payload_type, marker, sequence, timestamp, ssrc: self.ssrc, payload };
        if let Some(len) = rtp::write(&packet, &mut datagram.bytes) {
            datagram.len = len;
            self.ready += 1;
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// [`Outgoing::poll`] has something.
    pub fn has_datagram(&self) -> bool {
        self.polled < self.ready
    }

    /// The next datagram of this tick.
    pub fn poll(&mut self) -> Option<&[u8]> {
        if self.polled == self.ready {
            return None;
        }
        let datagram = &self.datagrams[self.polled];
        self.polled += 1;
        Some(&datagram.bytes[..datagram.len])
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: SocketAddr,
    ssrc: u32,
    packets: u8,
}

/// Whose RTP we take and where we send: the address of the session description, or one learned.
///
/// Something else is learned only when the leg is symmetric, after three packets in a row from one address with one
/// SSRC and none from the believed address between them; and only within 5 s of the session description while its own
/// address is silent, or, at any time, when the known SSRC moves to another port of the same host. Everybody else is
/// a stranger.
#[derive(Debug)]
pub struct Source {
    symmetric: bool,
    /// What the session description said, and when.
    declared: Option<(SocketAddr, Instant)>,
    /// Whom we believe.
    believed: Option<SocketAddr>,
    /// The declared address has sent since it was declared.
    confirmed: bool,
    ssrc: Option<u32>,
    candidate: Option<Candidate>,
}

impl Source {
    /// Believes nobody yet.
    pub fn new(symmetric: bool) -> Self {
        Self { symmetric, declared: None, believed: None, confirmed: false, ssrc: None, candidate: None }
    }

    /// A session description came. Learning is open again; what was learned stays while the address is the same, as
    /// it is in a refresh of a session behind NAT. An address that cannot be sent to (`0.0.0.0`, port 0: the old
    /// form of hold, RFC 3264 §8.4) changes nothing.
    pub fn declare(&mut self, now: Instant, address: SocketAddr) {
        if address.ip().is_unspecified() || address.port() == 0 {
            return;
        }
        if self.declared.is_none_or(|(declared, _)| declared != address) {
            self.believed = Some(address);
            self.ssrc = None;
        }
        self.declared = Some((address, now));
        self.confirmed = false;
        self.candidate = None;
    }

    /// Where to send.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.believed
    }

    /// Whether a packet, valid and of a payload type agreed to, comes from the far end.
    pub fn admit(&mut self, now: Instant, from: SocketAddr, ssrc: u32) -> bool {
        let Some((declared, since)) = self.declared else { return false };
        if from == declared {
            self.confirmed = true;
        } else if self.believed != Some(from) && !self.learn(now, since, from, ssrc) {
            return false;
        }
        self.believed = Some(from);
        self.ssrc = Some(ssrc);
        self.candidate = None;
        true
    }

    fn learn(&mut self, now: Instant, since: Instant, from: SocketAddr, ssrc: u32) -> bool {
        let open = !self.confirmed && now.saturating_duration_since(since) < LEARNING;
        let moved = self.believed.is_some_and(|known| known.ip() == from.ip()) && self.ssrc == Some(ssrc);
        if !self.symmetric || !(open || moved) {
            return false;
        }
        let before = self.candidate.filter(|c| c.address == from && c.ssrc == ssrc).map_or(0, |c| c.packets);
        self.candidate = Some(Candidate { address: from, ssrc, packets: before + 1 });
        before + 1 >= PROBATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        Instant::now()
    }

    /// Whether each of `n` packets from there was admitted.
    fn packets(source: &mut Source, now: Instant, from: &str, ssrc: u32, n: usize) -> Vec<bool> {
        (0..n).map(|_| source.admit(now, address(from), ssrc)).collect()
    }

    const FAR: &str = "192.0.2.1:4000";
    const NAT: &str = "198.51.100.7:61000";

    fn declared(symmetric: bool) -> (Source, Instant) {
        let (mut source, now) = (Source::new(symmetric), start());
        assert!(!source.admit(now, address(FAR), 1), "nobody is believed before the session description");
        source.declare(now, address(FAR));
        (source, now)
    }

    #[test]
    fn a_far_end_behind_nat_is_learned_after_three_packets() {
        let (mut source, now) = declared(true);
        assert_eq!(source.destination(), Some(address(FAR)));
        assert_eq!(packets(&mut source, now, NAT, 9, 4), [false, false, true, true]);
        assert_eq!(source.destination(), Some(address(NAT)));
        // A second one within the same 5 s needs the same, and the first must be silent meanwhile.
        assert_eq!(packets(&mut source, now, "203.0.113.5:7", 3, 2), [false, false]);
        assert_eq!(packets(&mut source, now, NAT, 9, 1), [true]);
        assert_eq!(packets(&mut source, now, "203.0.113.5:7", 3, 2), [false, false]);
        assert_eq!(source.destination(), Some(address(NAT)));
    }

    #[test]
    fn probation_wants_one_address_and_one_ssrc() {
        let (mut source, now) = declared(true);
        for ssrc in 1..9 {
            assert_eq!(packets(&mut source, now, NAT, ssrc, 2), [false, false]);
        }
    }

    #[test]
    fn a_stranger_is_never_learned_once_the_far_end_spoke_or_when_late_or_when_not_symmetric() {
        let (mut source, now) = declared(true);
        assert!(source.admit(now, address(FAR), 1));
        assert_eq!(packets(&mut source, now, NAT, 9, 5), [false; 5]);
        assert_eq!(packets(&mut source, now, "192.0.2.1:4002", 9, 5), [false; 5]);

        let (mut source, now) = declared(true);
        assert_eq!(packets(&mut source, now + LEARNING, NAT, 9, 5), [false; 5]);

        let (mut source, now) = declared(false);
        assert_eq!(packets(&mut source, now, NAT, 9, 5), [false; 5]);
        assert_eq!(source.destination(), Some(address(FAR)));
    }

    #[test]
    fn the_known_ssrc_may_move_to_another_port_of_its_host() {
        let (mut source, now) = declared(true);
        assert!(source.admit(now, address(FAR), 1));
        let later = now + Duration::from_secs(60);
        assert_eq!(packets(&mut source, later, "192.0.2.1:4002", 1, 2), [false, false]);
        assert!(source.admit(later, address(FAR), 1), "while the old port still sends, it stays");
        assert_eq!(packets(&mut source, later, "192.0.2.1:4002", 1, 3), [false, false, true]);
        assert_eq!(source.destination(), Some(address("192.0.2.1:4002")));
        assert!(source.admit(later, address(FAR), 1), "the declared address is always believed");
    }

    #[test]
    fn a_new_session_description_opens_learning_again() {
        let (mut source, now) = declared(true);
        assert_eq!(packets(&mut source, now, NAT, 9, 3), [false, false, true]);
        let later = now + Duration::from_secs(600);
        // A refresh with the same address keeps what was learned; hold with 0.0.0.0 as well.
        source.declare(later, address(FAR));
        source.declare(later, address("0.0.0.0:4000"));
        assert_eq!(source.destination(), Some(address(NAT)));
        assert_eq!(packets(&mut source, later, "198.51.100.7:61002", 9, 3), [false, false, true]);
        source.declare(later, address("192.0.2.77:5000"));
        assert_eq!(source.destination(), Some(address("192.0.2.77:5000")));
        assert_eq!(packets(&mut source, later, NAT, 9, 3), [false, false, true]);
    }

    #[test]
    fn numbering_goes_on_through_rests_and_the_marker_is_rare() {
        let mut out = Outgoing::new(7, LegId(0));
        let mut seen = Vec::new();
        let mut send = |out: &mut Outgoing, act: &dyn Fn(&mut Outgoing)| {
            out.advance(1);
            act(out);
            while let Some(datagram) = out.poll() {
                let packet = rtp::parse(datagram).unwrap();
                seen.push((
                    packet.payload_type,
                    packet.marker,
                    packet.sequence,
                    packet.timestamp,
                    packet.ssrc,
                ));
            }
        };
        let audio = |out: &mut Outgoing| out.audio(0, &[0xff; FRAME]);
        send(&mut out, &audio);
        send(&mut out, &audio);
        send(&mut out, &Outgoing::rest);
        send(&mut out, &audio);
        send(&mut out, &|out| out.event(101, true, out.timestamp(), [1, 0x80, 0, 160], 3));
        send(&mut out, &audio);
        let (_, _, sequence, timestamp, ssrc) = seen[0];
        let at = |n: u16, payload_type, marker, ticks: u32| {
            (payload_type, marker, sequence.wrapping_add(n), timestamp.wrapping_add(ticks * 160), ssrc)
        };
        let expected = [
            at(0, 0, true, 0),
            at(1, 0, false, 1),
            at(2, 0, true, 3),
            at(3, 101, true, 4),
            at(4, 101, true, 4),
            at(5, 101, true, 4),
            at(6, 0, false, 5),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn seeds_and_legs_make_different_streams() {
        let stream = |seed, leg| {
            let out = Outgoing::new(seed, LegId(leg));
            (out.ssrc, out.sequence, out.timestamp)
        };
        assert_eq!(stream(1, 0), stream(1, 0));
        assert_ne!(stream(1, 0), stream(1, 1));
        assert_ne!(stream(1, 0), stream(2, 0));
    }
}

//! The stream we send: SSRC, sequence numbers, timestamps and marker (RFC 3550 §5.1, RFC 3551 §4.1). Whose stream is
//! listened to is [`crate::latch`]'s. It never touches a socket.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::rtp::{self, Packet};
use crate::srtp::{Keys, Sealer, TAG_MAX};
use crate::{FRAME, LegId};

/// Datagrams one leg may send in one tick: the end of a key is sent three times.
const PER_TICK: usize = 3;
/// A frame of G.711 behind the fixed RTP header, and the tag of one that is sealed.
const DATAGRAM_MAX: usize = rtp::HEADER + FRAME + TAG_MAX;

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
    /// Seals each packet, where the far end agreed on keys.
    sealer: Option<Sealer>,
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
            sealer: None,
            datagrams: [Datagram { bytes: [0; DATAGRAM_MAX], len: 0 }; PER_TICK],
            ready: 0,
            polled: 0,
        }
    }

    /// From now on packets are sealed with these keys, or are not. The same keys again change nothing.
    pub fn protect(&mut self, keys: Option<&Keys>) {
        match keys {
            Some(keys)
                if self.sealer.as_ref().is_some_and(|sealer| sealer.is_for(keys.suite, &keys.ours)) => {}
            keys => self.sealer = keys.map(|keys| Sealer::new(keys.suite, keys.ours)),
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
        let written = rtp::write(&packet, &mut datagram.bytes).and_then(|len| match &mut self.sealer {
            Some(sealer) => sealer.seal(&mut datagram.bytes, len),
            None => Some(len),
        });
        if let Some(len) = written {
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

#[cfg(test)]
mod tests {
    use super::*;

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

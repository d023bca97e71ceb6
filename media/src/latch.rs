//! Whose RTP is believed, and where ours goes: the address of the session description, or one learned from what comes
//! in, as it must be for far ends behind NAT (RFC 4961; FIELD need 2). It never touches a socket.
//!
//! Anybody can send to an open port, so a new source is on probation: several packets of one SSRC, numbered without
//! large gaps, at the pace of speech. A sprayer that floods the port fails the pace, one that guesses fails the
//! numbers, and neither hinders the far end's own probation. Who sends under more SSRCs at once than there are places on
//! probation can push the far end out of its place and so keep it from being learned; never be learned in its stead.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A source other than the session description's may be learned for this long after it came.
const LEARNING: Duration = Duration::from_secs(5);
/// Packets that a new source must show.
const PROBATION: u32 = 3;
/// Over no less than this: two packets of 20 ms, less what the network bunches.
const PROBATION_SPAN: Duration = Duration::from_millis(30);
/// No faster than this, beyond the first packets: half of the shortest packets in use, 10 ms.
const PACE: Duration = Duration::from_millis(5);
/// Sequence numbers that may be missing between two packets of one source.
const GAP_MAX: u16 = 10;
/// A source that was believed and has sent nothing for so long may have moved.
const SILENT: Duration = Duration::from_secs(1);
/// Sources on probation at once.
const CANDIDATES: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: SocketAddr,
    ssrc: u32,
    sequence: u16,
    packets: u32,
    since: Instant,
    latest: Instant,
}

impl Candidate {
    /// Whether it has shown enough to be believed.
    fn convinces(&self, now: Instant) -> bool {
        let span = now.saturating_duration_since(self.since);
        let paced = PACE.saturating_mul(self.packets.saturating_sub(PROBATION)) <= span;
        self.packets >= PROBATION && span >= PROBATION_SPAN && paced
    }
}

/// The source of one leg.
///
/// Something other than the address of the session description is learned only when the leg is symmetric, after a
/// probation, and only within 5 s of the session description while its own address is silent; or, at any time, when
/// the known SSRC comes from another port of the same host, or from elsewhere after a second of silence (a NAT that
/// has forgotten its binding, a telephone that changed networks). Everybody else is a stranger.
#[derive(Debug)]
pub struct Source {
    symmetric: bool,
    /// What the session description said, and when.
    declared: Option<(SocketAddr, Instant)>,
    /// Whom we believe.
    believed: Option<SocketAddr>,
    /// When we last heard them.
    heard: Option<Instant>,
    /// The declared address has sent since it was declared.
    confirmed: bool,
    ssrc: Option<u32>,
    candidates: [Option<Candidate>; CANDIDATES],
}

impl Source {
    /// Believes nobody yet.
    pub fn new(symmetric: bool) -> Self {
        let (declared, believed, heard, ssrc) = (None, None, None, None);
        Self { symmetric, declared, believed, heard, confirmed: false, ssrc, candidates: [None; CANDIDATES] }
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
        self.candidates = [None; CANDIDATES];
    }

    /// Where to send.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.believed
    }

    /// Whether a packet, valid and of a payload type agreed to, comes from the far end.
    pub fn admit(&mut self, now: Instant, from: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let Some((declared, since)) = self.declared else { return false };
        if from == declared {
            self.confirmed = true;
        } else if self.believed != Some(from) {
            if !self.may_learn(now, since, from, ssrc) || !self.on_probation(now, from, ssrc, sequence) {
                return false;
            }
            self.candidates = [None; CANDIDATES];
        }
        self.believed = Some(from);
        self.heard = Some(now);
        self.ssrc = Some(ssrc);
        true
    }

    fn may_learn(&self, now: Instant, since: Instant, from: SocketAddr, ssrc: u32) -> bool {
        // While somebody is being heard, the first who came stays.
        let silent = self.heard.is_none_or(|at| now.saturating_duration_since(at) >= SILENT);
        let open = !self.confirmed && now.saturating_duration_since(since) < LEARNING;
        let unheard = self.heard.is_none_or(|at| at < since) || silent;
        let same_host = self.believed.is_some_and(|known| known.ip() == from.ip());
        let moved = self.ssrc == Some(ssrc) && (same_host || silent);
        self.symmetric && ((open && unheard) || moved)
    }

    fn on_probation(&mut self, now: Instant, from: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let new = Candidate { address: from, ssrc, sequence, packets: 1, since: now, latest: now };
        let of_it = |slot: &&mut Option<Candidate>| slot.is_some_and(|c| c.address == from && c.ssrc == ssrc);
        let Some(slot) = self.candidates.iter_mut().find(of_it) else {
            // The one that has been quiet longest makes room.
            let oldest = self.candidates.iter_mut().min_by_key(|slot| slot.map(|c| c.latest));
            if let Some(slot) = oldest {
                *slot = Some(new);
            }
            return false;
        };
        let Some(candidate) = slot else { return false };
        let step = sequence.wrapping_sub(candidate.sequence);
        if step == 0 || step > GAP_MAX {
            *candidate = new;
            return false;
        }
        candidate.sequence = sequence;
        candidate.packets += 1;
        candidate.latest = now;
        candidate.convinces(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: &str = "192.0.2.1:4000";
    const NAT: &str = "198.51.100.7:61000";
    const TICK: Duration = Duration::from_millis(20);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A leg, a moment, and the next sequence number of everybody.
    struct Bed {
        source: Source,
        now: Instant,
        sequence: u16,
    }

    impl Bed {
        fn new(symmetric: bool) -> Self {
            #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
            let now = Instant::now();
            let mut source = Source::new(symmetric);
            assert!(
                !source.admit(now, address(FAR), 1, 1),
                "nobody is believed before the session description"
            );
            source.declare(now, address(FAR));
            Self { source, now, sequence: 65_533 }
        }

        fn packet(&mut self, from: &str, ssrc: u32) -> bool {
            self.sequence = self.sequence.wrapping_add(1);
            self.source.admit(self.now, address(from), ssrc, self.sequence)
        }

        /// Whether each of `n` packets, 20 ms apart, was admitted.
        fn packets(&mut self, from: &str, ssrc: u32, n: usize) -> Vec<bool> {
            let mut taken = Vec::new();
            for _ in 0..n {
                taken.push(self.packet(from, ssrc));
                self.now += TICK;
            }
            taken
        }

        fn later(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }
    }

    #[test]
    fn a_far_end_behind_nat_is_learned_after_three_packets() {
        let mut bed = Bed::new(true);
        assert_eq!(bed.source.destination(), Some(address(FAR)));
        assert_eq!(bed.packets(NAT, 9, 4), [false, false, true, true]);
        assert_eq!(bed.source.destination(), Some(address(NAT)));
        assert_eq!(bed.packets("203.0.113.5:7", 3, 9), [false; 9], "one who is heard is not replaced");
        assert_eq!(bed.packets(NAT, 9, 1), [true]);
    }

    #[test]
    fn probation_wants_one_address_and_one_ssrc_and_its_numbers_in_order() {
        let mut bed = Bed::new(true);
        for ssrc in 1..9 {
            assert_eq!(bed.packets(NAT, ssrc, 2), [false, false]);
        }
        for _ in 0..20 {
            bed.sequence = bed.sequence.wrapping_add(5000);
            assert_eq!(bed.packets(NAT, 7, 2), [false, false], "numbers that jump begin anew");
            bed.sequence = bed.sequence.wrapping_sub(1);
            assert_eq!(bed.packets(NAT, 7, 1), [false], "so does a packet sent twice");
        }
    }

    #[test]
    fn a_flood_is_not_learned_and_does_not_hinder_the_far_end() {
        let mut bed = Bed::new(true);
        let (mut flood, mut learned) = (0_u16, Vec::new());
        for _ in 0..100 {
            for _ in 0..40 {
                flood = flood.wrapping_add(1);
                let taken = bed.source.admit(bed.now, address("203.0.113.5:7"), 3, flood);
                assert!(!taken, "two thousand packets a second are no speech");
            }
            learned.extend(bed.packets(NAT, 9, 1));
        }
        assert_eq!(learned.iter().filter(|taken| **taken).count(), 98);
        assert_eq!(bed.source.destination(), Some(address(NAT)));
    }

    #[test]
    fn many_who_guess_leave_room_for_one_who_is_steady() {
        let mut bed = Bed::new(true);
        for n in 0..3_u16 {
            assert!(!bed.source.admit(bed.now, address("203.0.113.5:7"), u32::from(n) + 50, n));
        }
        assert_eq!(bed.packets(NAT, 9, 3), [false, false, true]);
    }

    #[test]
    fn a_stranger_is_never_learned_once_the_far_end_spoke_or_when_late_or_when_not_symmetric() {
        let mut bed = Bed::new(true);
        assert!(bed.packet(FAR, 1));
        assert_eq!(bed.packets(NAT, 9, 5), [false; 5]);
        assert_eq!(bed.packets("192.0.2.1:4002", 9, 5), [false; 5]);
        bed.later(3000);
        assert_eq!(bed.packets(NAT, 9, 5), [false; 5], "silence alone opens nothing to another SSRC");

        let mut bed = Bed::new(true);
        bed.later(5000);
        assert_eq!(bed.packets(NAT, 9, 5), [false; 5]);

        let mut bed = Bed::new(false);
        assert_eq!(bed.packets(NAT, 9, 5), [false; 5]);
        assert_eq!(bed.source.destination(), Some(address(FAR)));
    }

    #[test]
    fn the_known_ssrc_may_move_to_another_port_of_its_host() {
        let mut bed = Bed::new(true);
        assert!(bed.packet(FAR, 1));
        bed.later(60_000);
        assert_eq!(bed.packets("192.0.2.1:4002", 1, 3), [false, false, true]);
        assert_eq!(bed.source.destination(), Some(address("192.0.2.1:4002")));
        assert!(bed.packet(FAR, 1), "the declared address is always believed");
    }

    #[test]
    fn the_known_ssrc_may_come_from_elsewhere_after_a_silence() {
        let mut bed = Bed::new(true);
        assert!(bed.packet(FAR, 1));
        bed.later(500);
        assert_eq!(bed.packets(NAT, 1, 5), [false; 5], "half a second is no silence");
        bed.later(1000);
        assert_eq!(bed.packets(NAT, 1, 4), [false, false, true, true]);
        assert_eq!(bed.source.destination(), Some(address(NAT)));
    }

    #[test]
    fn a_new_session_description_opens_learning_again() {
        let mut bed = Bed::new(true);
        assert_eq!(bed.packets(NAT, 9, 3), [false, false, true]);
        bed.later(600_000);
        // A refresh with the same address keeps what was learned; hold with 0.0.0.0 as well.
        bed.source.declare(bed.now, address(FAR));
        bed.source.declare(bed.now, address("0.0.0.0:4000"));
        assert_eq!(bed.source.destination(), Some(address(NAT)));
        assert_eq!(bed.packets("198.51.100.7:61002", 9, 3), [false, false, true]);
        bed.source.declare(bed.now, address("192.0.2.77:5000"));
        assert_eq!(bed.source.destination(), Some(address("192.0.2.77:5000")));
        bed.later(20);
        assert_eq!(bed.packets(NAT, 9, 3), [false, false, true]);
    }
}

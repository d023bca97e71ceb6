//! What waits to be read: what belongs to calls first, what would begin something new after it, both bounded.
//!
//! Owns the order in which an overloaded endpoint spends its time (RFC 3261 §21.5.4; RFC 6357 for why in-dialog traffic goes
//! first: a call given up under load costs more than one refused). Reads no more of a message than it needs to tell the
//! two apart, and never waits.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Peer;

/// Messages of calls that are under way: what comes beyond is lost, as on a full network.
const KNOWN_MAX: usize = 4_096;
/// Requests that would begin something: what comes beyond is refused.
const NEW_MAX: usize = 1_024;

/// What to do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Give it to [`crate::Endpoint::handle_datagram`].
    Take(Peer, Bytes),
    /// There is no time for it: give it to [`crate::Endpoint::handle_excess`].
    Refuse(Peer, Bytes),
}

/// Messages that have come in and were not read yet.
#[derive(Debug)]
pub struct Intake {
    known: VecDeque<(Peer, Bytes)>,
    new: VecDeque<(Peer, Bytes)>,
    excess: VecDeque<(Peer, Bytes)>,
    known_max: usize,
    new_max: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(KNOWN_MAX, NEW_MAX)
    }
}

impl Intake {
    /// An empty one that holds at most so many messages of calls, and so many others.
    pub fn new(known_max: usize, new_max: usize) -> Self {
        Self { known: VecDeque::new(), new: VecDeque::new(), excess: VecDeque::new(), known_max, new_max }
    }

    /// Takes a message in.
    pub fn push(&mut self, from: Peer, bytes: Bytes) {
        let (queue, max) = if is_known(&bytes) && !self.overtakes(from, &bytes) {
            (&mut self.known, self.known_max)
        } else if self.new.len() < self.new_max {
            (&mut self.new, self.new_max)
        } else {
            (&mut self.excess, self.new_max)
        };
        if queue.len() < max {
            queue.push_back((from, bytes));
        }
    }

    /// Whether it is a CANCEL whose INVITE may still wait: that one must be known before it can be given up
    /// (RFC 3261 §9.2).
    fn overtakes(&self, from: Peer, bytes: &[u8]) -> bool {
        begins_with(bytes, b"CANCEL ")
            && self.new.len() < self.new_max
            && self.new.iter().any(|(peer, _)| *peer == from)
    }

    /// The next message of any kind, in the order of what matters most.
    pub fn take(&mut self) -> Option<Turn> {
        let known = self.known.pop_front().map(|(from, bytes)| Turn::Take(from, bytes));
        let excess = || self.excess.pop_front().map(|(from, bytes)| Turn::Refuse(from, bytes));
        known.or_else(excess).or_else(|| self.new.pop_front().map(|(from, bytes)| Turn::Take(from, bytes)))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.new.is_empty() && self.excess.is_empty()
    }

    /// Whether streams should stop being read until some of it is worked off: their senders can wait.
    pub fn is_full(&self) -> bool {
        self.known.len() >= self.known_max || self.excess.len() >= self.new_max
    }
}

/// Whether a message belongs to something that is under way: a response, the end of something, or a request with a
/// tag in its `To` (RFC 3261 §12.2.2). It is a guess for the order only; nothing else relies on it.
pub fn is_known(bytes: &[u8]) -> bool {
    let always: [&[u8]; 5] = [b"SIP/", b"ACK ", b"BYE ", b"CANCEL ", b"PRACK "];
    if always.iter().any(|word| begins_with(bytes, word)) {
        return true;
    }
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    let bytes = &bytes[start..];
    for line in bytes.split(|b| *b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return false;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = line[..colon].trim_ascii_end();
        if name.eq_ignore_ascii_case(b"To") || name.eq_ignore_ascii_case(b"t") {
            return line[colon..].windows(5).any(|word| word.eq_ignore_ascii_case(b";tag="));
        }
    }
    false
}

/// Whether a message begins with this, behind any empty lines.
fn begins_with(bytes: &[u8], word: &[u8]) -> bool {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    bytes[start..].get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer::udp(([192, 0, 2, 1], port).into())
    }

    fn invite(tag: &str) -> Bytes {
        format!("INVITE sip:a@b SIP/2.0\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>{tag}\r\n\r\n").into()
    }

    #[test]
    fn what_is_under_way_is_told_from_what_is_new() {
        for (text, known) in [
            ("SIP/2.0 200 OK\r\n\r\n", true),
            ("\r\nBYE sip:a@b SIP/2.0\r\n\r\n", true),
            ("CANCEL sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\n\r\n", true),
            ("INVITE sip:a@b SIP/2.0\r\nt : <sip:a@b> ;Tag=1\r\n\r\n", true),
            ("INVITE sip:a@b SIP/2.0\r\nt : <sip:a@b>;Tag=1\r\n\r\n", true),
            ("INVITE sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\n\r\nTo: x;tag=2\r\n", false),
            ("OPTIONS sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\nX: ;tag=\r\n\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_known(text.as_bytes()), known, "{text:?}");
        }
    }

    #[test]
    fn a_caller_that_gives_up_does_not_overtake_its_own_call() {
        let mut intake = Intake::new(9, 9);
        let cancel = || Bytes::from_static(b"CANCEL sip:a@b SIP/2.0\r\n\r\n");
        intake.push(peer(1), invite(""));
        intake.push(peer(1), cancel());
        intake.push(peer(2), cancel());
        let order = std::iter::from_fn(|| match intake.take()? {
            Turn::Take(from, bytes) => Some((from.addr.port(), bytes.starts_with(b"CANCEL"))),
            Turn::Refuse(..) => None,
        });
        assert_eq!(order.collect::<Vec<_>>(), [(2, true), (1, false), (1, true)]);
        intake.push(peer(1), cancel());
        assert!(matches!(intake.take(), Some(Turn::Take(from, _)) if from == peer(1)));
    }

    #[test]
    fn calls_under_way_go_before_new_ones_and_what_is_too_much_is_refused() {
        let mut intake = Intake::new(2, 2);
        for port in 1..=6 {
            intake.push(peer(port), invite(""));
        }
        for port in 7..=9 {
            intake.push(peer(port), invite(";tag=2"));
        }
        assert!(intake.is_full());
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        while let Some(turn) = intake.take() {
            match turn {
                Turn::Take(from, _) => taken.push(from.addr.port()),
                Turn::Refuse(from, _) => refused.push(from.addr.port()),
            }
        }
        assert_eq!((taken, refused), (vec![7, 8, 1, 2], vec![3, 4]));
        assert!(intake.is_empty() && !intake.is_full());
    }
}

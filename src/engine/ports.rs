//! The engine's free list of RTP ports. Ports are even (RFC 3550 §11) and rest after use, so that late packets of
//! an ended call never reach a new one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a port rests after its call.
const REST: Duration = Duration::from_secs(2);

/// Free ports, the longest unused first.
#[derive(Debug)]
pub(super) struct Ports {
    fresh: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
}

impl Ports {
    /// The even ports of `min..=max`.
    pub(super) fn new(min: u16, max: u16) -> Self {
        Self { fresh: (min..=max).filter(|port| port % 2 == 0).collect(), resting: VecDeque::new() }
    }

    /// A port, or `None` while all are used or resting.
    pub(super) fn take(&mut self, now: Instant) -> Option<u16> {
        if let Some(port) = self.fresh.pop_front() {
            return Some(port);
        }
        let (ready, port) = *self.resting.front()?;
        if ready > now {
            return None;
        }
        self.resting.pop_front();
        Some(port)
    }

    /// Gives a port back when its call's sockets are closed.
    pub(super) fn give_back(&mut self, now: Instant, port: u16) {
        self.resting.push_back((now + REST, port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn ports_are_even_and_rest_before_they_are_used_again() {
        let now = Instant::now();
        let mut ports = Ports::new(10_001, 10_005);
        assert_eq!(ports.take(now), Some(10_002));
        assert_eq!(ports.take(now), Some(10_004));
        assert_eq!(ports.take(now), None);
        ports.give_back(now, 10_002);
        assert_eq!(ports.take(now + Duration::from_millis(1999)), None);
        assert_eq!(ports.take(now + REST), Some(10_002));
    }
}

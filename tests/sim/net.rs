//! A network in virtual time that loses, delays, duplicates and so reorders datagrams, all from one seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

/// One datagram under way.
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// How bad the network is.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss_percent: u32,
    pub(crate) duplicate_percent: u32,
    pub(crate) delay_max_ms: u32,
}

pub(crate) struct Net {
    weather: Weather,
    flying: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
}

impl Net {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { weather, flying: BTreeMap::new(), sent: 0 }
    }

    pub(crate) fn send(&mut self, rng: &mut ChaCha8Rng, now: Instant, packet: &Packet) {
        let copies = if chance(rng, self.weather.duplicate_percent) { 2 } else { 1 };
        for _ in 0..copies {
            if chance(rng, self.weather.loss_percent) {
                continue;
            }
            let delay = Duration::from_millis(1 + u64::from(below(rng, self.weather.delay_max_ms.max(1))));
            self.sent += 1;
            let copy = Packet { from: packet.from, to: packet.to, bytes: packet.bytes.clone() };
            self.flying.insert((now + delay, self.sent), copy);
        }
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn arrive(&mut self, now: Instant) -> Option<Packet> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// True in `percent` of a hundred cases.
pub(crate) fn chance(rng: &mut ChaCha8Rng, percent: u32) -> bool {
    below(rng, 100) < percent
}

/// A number from 0 to `bound - 1`.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
    rng.next_u32() % bound
}

//! Sending telephone events (RFC 4733 §2.5.1): a queue of keys, and for every tick what is sent in place of audio.
//!
//! Owns the timing only. Sequence numbers, the SSRC and the socket are the stream's; the audio timestamp goes on while a
//! key is held, as if audio had flowed.

use super::digit_event;

const QUEUE: usize = 64;
/// The entry of the queue that is a pause and no key.
const PAUSE: u8 = 0xFF;
/// `w` waits half a second.
const PAUSE_TICKS: u16 = 25;
const TICK_MS: u16 = 20;
/// Units of the 8 kHz clock in a tick.
const TICK_UNITS: u16 = 160;
/// Volume: -10 dBm0 (RFC 4733 §2.3.4).
const VOLUME: u8 = 10;
const END: u8 = 0x80;
/// The end of a key is sent three times (RFC 4733 §2.5.1.4).
const END_COPIES: u8 = 3;

/// What a tick sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventTick {
    /// Nothing queued: audio as ever.
    Idle,
    /// The pause after a key: audio as ever, or better silence, so that the far end can tell two keys apart.
    Gap,
    /// A telephone event instead of audio.
    Event {
        /// The payload (RFC 4733 §2.3).
        payload: [u8; 4],
        /// The RTP timestamp of the packet: that of the beginning of the key.
        event_timestamp: u32,
        /// Whether the marker bit is set: on the first packet of a key.
        marker: bool,
        /// How many packets of this content, each with a sequence number of its own: 1, or 3 for the end of a key.
        copies: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Now {
    Idle,
    Key { event: u8, started: u32, sent: u16, ticks: u16 },
    Gap { left: u16 },
}

/// The keys one leg has still to send.
#[derive(Clone, Debug)]
pub struct DigitSender {
    queue: [u8; QUEUE],
    first: usize,
    queued: usize,
    now: Now,
    on_ticks: u16,
    gap_ticks: u16,
}

impl Default for DigitSender {
    fn default() -> Self {
        Self::new(100, 100)
    }
}

impl DigitSender {
    /// Nothing to send; keys last `on_ms` (40 to 8000) with `gap_ms` (40 to 8000) after each, in whole ticks of 20 ms.
    pub fn new(on_ms: u16, gap_ms: u16) -> Self {
        let mut sender =
            Self { queue: [0; QUEUE], first: 0, queued: 0, now: Now::Idle, on_ticks: 0, gap_ticks: 0 };
        sender.set_timing(on_ms, gap_ms);
        sender
    }

    /// Sets how long the keys that begin from now on last, as in [`DigitSender::new`].
    pub fn set_timing(&mut self, on_ms: u16, gap_ms: u16) {
        // A duration has 16 bits, which is 8.19 s; longer keys would need segments.
        self.on_ticks = on_ms.clamp(40, 8000).div_ceil(TICK_MS);
        self.gap_ticks = gap_ms.clamp(40, 8000).div_ceil(TICK_MS);
    }

    /// Queues keys (`0-9 * # A-D`, and `w` for a pause of half a second). All or nothing: `false` when one of the
    /// characters is none of these or the queue of 64 has no room for all.
    pub fn queue(&mut self, digits: &str) -> bool {
        if digits.chars().count() > QUEUE - self.queued || !digits.chars().all(|c| entry(c).is_some()) {
            return false;
        }
        for entry in digits.chars().filter_map(entry) {
            self.queue[(self.first + self.queued) % QUEUE] = entry;
            self.queued += 1;
        }
        true
    }

    /// Whether a key is being sent or waits.
    pub fn active(&self) -> bool {
        self.queued > 0 || !matches!(self.now, Now::Idle)
    }

    /// Forgets what waits; a key that has begun is ended properly.
    pub fn clear(&mut self) {
        self.queued = 0;
    }

    /// What this tick sends. To be called once every 20 ms with the audio clock's timestamp of the tick.
    pub fn tick(&mut self, timestamp: u32) -> EventTick {
        if matches!(self.now, Now::Idle) {
            self.now = match self.take() {
                None => return EventTick::Idle,
                Some(PAUSE) => Now::Gap { left: PAUSE_TICKS },
                Some(event) => Now::Key { event, started: timestamp, sent: 0, ticks: self.on_ticks },
            };
        }
        match &mut self.now {
            Now::Idle => EventTick::Idle,
            Now::Gap { left } => {
                *left -= 1;
                if *left == 0 {
                    self.now = Now::Idle;
                }
                EventTick::Gap
            }
            Now::Key { event, started, sent, ticks } => {
                *sent += 1;
                let last = sent >= ticks;
                let [high, low] = (*sent * TICK_UNITS).to_be_bytes();
                let sends = EventTick::Event {
                    payload: [*event, VOLUME | if last { END } else { 0 }, high, low],
                    event_timestamp: *started,
                    marker: *sent == 1,
                    copies: if last { END_COPIES } else { 1 },
                };
                if last {
                    self.now = Now::Gap { left: self.gap_ticks };
                }
                sends
            }
        }
    }

    fn take(&mut self) -> Option<u8> {
        if self.queued == 0 {
            return None;
        }
        let entry = self.queue[self.first];
        self.first = (self.first + 1) % QUEUE;
        self.queued -= 1;
        Some(entry)
    }
}

fn entry(c: char) -> Option<u8> {
    if c.eq_ignore_ascii_case(&'w') { Some(PAUSE) } else { digit_event(c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_five_ticks_and_five_of_pause() {
        let mut sender = DigitSender::default();
        assert!(sender.queue("5"));
        let mut sent = Vec::new();
        for tick in 0..11u32 {
            sent.push(sender.tick(1000 + tick * 160));
        }
        let event = |units: u16, end: bool| EventTick::Event {
            payload: [5, if end { 0x8A } else { 0x0A }, units.to_be_bytes()[0], units.to_be_bytes()[1]],
            event_timestamp: 1000,
            marker: units == 160,
            copies: if end { 3 } else { 1 },
        };
        let keys =
            [event(160, false), event(320, false), event(480, false), event(640, false), event(800, true)];
        assert_eq!(sent[..5], keys);
        assert_eq!(sent[5..10], [EventTick::Gap; 5]);
        assert_eq!(sent[10], EventTick::Idle);
        assert!(!sender.active());
    }

    #[test]
    fn the_queue_is_bounded_and_takes_all_or_nothing() {
        let mut sender = DigitSender::default();
        assert!(!sender.queue("12x"));
        assert!(!sender.active());
        assert!(sender.queue(&"7".repeat(64)));
        assert!(!sender.queue("1"));
        sender.clear();
        assert!(!sender.active());
        assert!(sender.queue("12#w*d"));
    }

    #[test]
    fn a_pause_is_half_a_second() {
        let mut sender = DigitSender::new(40, 40);
        assert!(sender.queue("w1"));
        let first = (0..100).position(|tick| matches!(sender.tick(tick * 160), EventTick::Event { .. }));
        assert_eq!(first, Some(25));
    }

    #[test]
    fn the_longest_key_fits_its_duration() {
        let mut sender = DigitSender::new(u16::MAX, 0);
        assert!(sender.queue("0"));
        let mut longest = 0;
        for tick in 0..500u32 {
            if let EventTick::Event { payload, .. } = sender.tick(tick.wrapping_mul(160)) {
                let units = u16::from_be_bytes([payload[2], payload[3]]);
                assert!(units > longest);
                longest = units;
            }
        }
        assert_eq!(longest, 64_000);
    }
}

//! Receiving telephone events (RFC 4733 §2.5.2).
//!
//! A press is known by SSRC, timestamp and event number. It is a digit at its first packet, whichever of its packets
//! that is: a lost beginning, a lost marker or a lost end changes nothing. All comparisons are modular, so that neither
//! sequence number nor timestamp may surprise when they wrap.

use std::time::{Duration, Instant};

use super::event_digit;
use crate::rtp::Packet;

/// Without an update for this long a key is taken for released, though its end was not heard.
const RELEASED_AFTER: Duration = Duration::from_millis(150);
/// After this long without any event, order is no longer judged by the last one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);
/// Packets that far behind the last one are late and not a new count.
const MAX_DISORDER: i16 = 50;
/// Packets of one press may be lost in such numbers before a changed timestamp is a new press.
const MAX_LOST: i16 = 4;
/// The longest packet interval believed, in timestamp units: 60 ms.
const MAX_INTERVAL: u32 = 480;
/// From this duration on a press may go on in a new segment (RFC 4733 §2.5.1.3).
const SEGMENT_FULL: u16 = 0xF000;

/// The last press heard.
#[derive(Clone, Copy, Debug)]
struct Press {
    ssrc: u32,
    timestamp: u32,
    event: u8,
    sequence: u16,
    duration: u16,
    /// The end bit was heard.
    ended: bool,
    /// No more packets came, end bit or not.
    released: bool,
    heard: Instant,
}

/// What a payload says (RFC 4733 §2.3).
#[derive(Clone, Copy)]
struct Report {
    event: u8,
    end: bool,
    duration: u16,
}

fn read(payload: &[u8]) -> Option<Report> {
    let &[event, flags, high, low, ..] = payload else { return None };
    Some(Report { event, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
}

/// Turns the telephone events of one leg into digits.
#[derive(Clone, Debug, Default)]
pub struct EventReceiver {
    last: Option<Press>,
}

impl EventReceiver {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet of the negotiated event payload type. Answers the digit at the first packet of a press, `None` for
    /// every further packet of it, for late ones, for events that are no keys and for payloads that are too short.
    pub fn packet(&mut self, now: Instant, p: &Packet<'_>) -> Option<char> {
        let report = read(p.payload)?;
        let digit = event_digit(report.event)?;
        if let Some(last) = &mut self.last {
            if last.ssrc == p.ssrc && last.timestamp == p.timestamp && last.event == report.event {
                last.update(now, p, report);
                return None;
            }
            if last.goes_on(p, report) {
                last.timestamp = p.timestamp;
                last.duration = 0;
                last.update(now, p, report);
                return None;
            }
            if last.precedes(now, p) {
                return None;
            }
        }
        self.last = Some(Press {
            ssrc: p.ssrc,
            timestamp: p.timestamp,
            event: report.event,
            sequence: p.sequence,
            duration: report.duration,
            ended: report.end,
            released: report.end,
            heard: now,
        });
        Some(digit)
    }

    /// Lets go of a key whose end was lost. To be called about once a tick: without speech no packet may come.
    pub fn timeout(&mut self, now: Instant) {
        if let Some(last) = &mut self.last
            && now.saturating_duration_since(last.heard) >= RELEASED_AFTER
        {
            last.released = true;
        }
    }

    /// The key that is held down now.
    pub fn pressed(&self) -> Option<char> {
        self.last.filter(|press| !press.released).and_then(|press| event_digit(press.event))
    }
}

impl Press {
    fn update(&mut self, now: Instant, p: &Packet<'_>, report: Report) {
        if p.sequence.wrapping_sub(self.sequence).cast_signed() > 0 {
            self.sequence = p.sequence;
        }
        self.duration = self.duration.max(report.duration);
        self.ended |= report.end;
        self.released = self.ended;
        self.heard = now;
    }

    /// Whether a packet with another timestamp is still this press: from a phone that moves the timestamp with every
    /// packet, or as the next segment of a press longer than 65,535 units.
    fn goes_on(&self, p: &Packet<'_>, report: Report) -> bool {
        let step = p.sequence.wrapping_sub(self.sequence).cast_signed();
        let moved = p.timestamp.wrapping_sub(self.timestamp);
        if p.ssrc != self.ssrc || report.event != self.event || !(1..=MAX_LOST).contains(&step) {
            return false;
        }
        if self.ended {
            return report.end
                && report.duration == self.duration
                && moved <= MAX_INTERVAL * u32::from(step.unsigned_abs());
        }
        if p.marker {
            return false;
        }
        let counts_on = report.duration > self.duration || (report.end && report.duration == self.duration);
        let follows = moved <= MAX_INTERVAL * u32::from(step.unsigned_abs());
        let next_segment =
            self.duration >= SEGMENT_FULL && (u32::from(self.duration)..=0xFFFF).contains(&moved);
        (counts_on && follows) || next_segment
    }

    /// Whether a packet of another press was sent before this one: late, and its press is over.
    fn precedes(&self, now: Instant, p: &Packet<'_>) -> bool {
        let behind = self.sequence.wrapping_sub(p.sequence).cast_signed();
        p.ssrc == self.ssrc
            && (0..=MAX_DISORDER).contains(&behind)
            && now.saturating_duration_since(self.heard) < FORGOTTEN_AFTER
    }
}

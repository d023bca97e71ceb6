//! Receive statistics: sequence numbers unwrapped from 16 to 64 bits (RFC 3550 Appendix A.1), duplicates, losses, and
//! the interarrival jitter of RFC 3550 §6.4.1. It decides nothing about playing.

use std::time::Instant;

use crate::rtp::Packet;

/// A sequence number further off than this is a new count and not a loss (RFC 3550 Appendix A.1).
const MAX_DROPOUT: i64 = 3000;
const MAX_DISORDER: i64 = 100;
/// A transit time that leaps by more than this (1 s) belongs to a new timestamp base and is left out of the jitter.
const TRANSIT_LEAP: f64 = 8000.0;

/// Counters of one receive direction, since its buffer was made.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct JitterStats {
    /// Packets taken, duplicates left out.
    pub received: u64,
    /// Packets that should have come and did not, by sequence number.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets of a length nobody can play.
    pub malformed: u64,
    /// Frames made up.
    pub concealed: u64,
    /// Frames by which the delay grew.
    pub stretched: u64,
    /// Frames left out to make the delay smaller.
    pub left_out: u64,
    /// Samples thrown away because too many came at once.
    pub skipped: u64,
    /// New sources, leaps of the timestamp, and pauses after which the delay was set anew.
    pub restarts: u64,
    /// Interarrival jitter in ms (RFC 3550 §6.4.1).
    pub jitter_ms: f32,
    /// Sound waiting to be played now, in ms.
    pub delay_ms: u32,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    first: i64,
    highest: i64,
    /// Which of the 64 numbers up to the highest have come.
    recent: u64,
    received: u64,
    arrived: Instant,
    timestamp: u32,
}

/// What a packet is to the count of its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Noted {
    /// The next one, or the first of a new count.
    Ahead,
    /// Overtaken by others.
    Behind,
    /// Seen before.
    Duplicate,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    source: Option<Source>,
    /// Jitter in timestamp units.
    jitter: f64,
    lost_before: u64,
    counted: JitterStats,
}

impl Source {
    fn new(now: Instant, p: &Packet<'_>) -> Self {
        let sequence = i64::from(p.sequence);
        Self {
            ssrc: p.ssrc,
            first: sequence,
            highest: sequence,
            recent: 1,
            received: 1,
            arrived: now,
            timestamp: p.timestamp,
        }
    }

    fn lost(&self) -> u64 {
        ((self.highest - self.first + 1).unsigned_abs()).saturating_sub(self.received)
    }

    /// Counts a sequence number; `None` when it begins a new count.
    fn take(&mut self, sequence: u16) -> Option<Noted> {
        let step = i64::from(sequence.wrapping_sub(self.highest as u16).cast_signed());
        if !(-MAX_DISORDER..=MAX_DROPOUT).contains(&step) {
            return None;
        }
        if step > 0 {
            self.recent = self.recent.checked_shl(step as u32).unwrap_or(0) | 1;
            self.highest += step;
        } else if step > -64 {
            let bit = 1 << -step;
            if self.recent & bit != 0 {
                return Some(Noted::Duplicate);
            }
            self.recent |= bit;
            self.first = self.first.min(self.highest + step);
        }
        self.received += 1;
        Some(if step > 0 { Noted::Ahead } else { Noted::Behind })
    }
}

impl Arrivals {
    /// Counts a packet that arrived at `now`.
    pub(super) fn note(&mut self, now: Instant, p: &Packet<'_>) -> Noted {
        let known = self.source.as_mut().filter(|source| source.ssrc == p.ssrc).and_then(|source| {
            let noted = source.take(p.sequence)?;
            if noted != Noted::Duplicate {
                let since = now.saturating_duration_since(source.arrived).as_secs_f64() * 8000.0;
                let stamped = f64::from(p.timestamp.wrapping_sub(source.timestamp).cast_signed());
                let transit = (since - stamped).abs();
                if transit < TRANSIT_LEAP {
                    self.jitter += (transit - self.jitter) / 16.0;
                }
                source.arrived = now;
                source.timestamp = p.timestamp;
            }
            Some(noted)
        });
        let noted = known.unwrap_or_else(|| {
            self.lost_before += self.source.as_ref().map_or(0, Source::lost);
            self.source = Some(Source::new(now, p));
            Noted::Ahead
        });
        match noted {
            Noted::Ahead | Noted::Behind => self.counted.received += 1,
            Noted::Duplicate => self.counted.duplicates += 1,
        }
        noted
    }

    pub(super) fn malformed(&mut self) {
        self.counted.malformed += 1;
    }

    pub(super) fn late(&mut self) {
        self.counted.late += 1;
    }

    pub(super) fn concealed(&mut self) {
        self.counted.concealed += 1;
    }

    pub(super) fn stretched(&mut self) {
        self.counted.stretched += 1;
    }

    pub(super) fn unstretched(&mut self) {
        self.counted.stretched = self.counted.stretched.saturating_sub(1);
    }

    pub(super) fn left_out(&mut self) {
        self.counted.left_out += 1;
    }

    pub(super) fn skipped(&mut self, samples: i64) {
        self.counted.skipped += samples.max(0).unsigned_abs();
    }

    pub(super) fn restarted(&mut self) {
        self.counted.restarts += 1;
    }

    pub(super) fn stats(&self, delay: i64) -> JitterStats {
        JitterStats {
            lost: self.lost_before + self.source.as_ref().map_or(0, Source::lost),
            jitter_ms: (self.jitter / 8.0) as f32,
            delay_ms: u32::try_from(delay / 8).unwrap_or(0),
            ..self.counted
        }
    }
}

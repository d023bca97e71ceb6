//! The jitter buffer: packets as they come in, 20 ms frames as the clock wants them.
//!
//! Owns a ring of decoded samples addressed by RTP timestamp, the delay between arrival and playing, the concealment of
//! gaps, and the receive statistics of RFC 3550 §6.4.1. It never reads a clock (arrival times are arguments), never
//! allocates after it was made, and trusts nothing in a packet: a timestamp that leaps only moves its base.
//!
//! The delay grows at once when the buffer runs dry: the frame is concealed and the playing point stays where it is, so
//! that what comes late is still played. If it turns out that the packet was lost and not late, the playing point leaps
//! over the hole and the delay is what it was. The delay shrinks by leaving out frames of silence.

mod ring;
mod stats;

use std::time::Instant;

use crate::codec::Codec;
use crate::conceal::Concealer;
use crate::rtp::Packet;
use crate::{FRAME, Frame};
use ring::Ring;
pub use stats::JitterStats;
use stats::{Arrivals, Noted};

const STEP: i64 = FRAME as i64;
/// A leap of the timestamp by more than this is a new stream: 1 s.
const LEAP: i64 = 8000;
/// The longest packet that is taken: 120 ms.
const MAX_PACKET: usize = 960;
/// How far ahead of the highest allowed delay a packet may lie before old sound is thrown away: 60 ms.
const SLACK_OVER: i64 = 480;
/// Ticks over which the spread of arrivals is watched: twice this is about 5 s.
const WINDOW: u16 = 125;
/// Frames without a packet after which a marker begins a new talk spurt.
const PAUSE: i64 = 3;
/// Ticks between two frames that are left out.
const SHRINK_EVERY: u16 = 10;
/// Mean |sample| under which a frame may be left out.
const QUIET: u32 = 200;
/// Packets too late in one window before the delay grows for them.
const LATE_TOLERATED: u8 = 3;

/// How long packets wait. All values are rounded up to whole 20 ms frames and bounded by 20..=400 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JitterConfig {
    /// Delay at the start, in ms.
    pub start_ms: u16,
    /// The delay never shrinks below this, in ms.
    pub min_ms: u16,
    /// The delay never grows beyond this, in ms.
    pub max_ms: u16,
    /// Whether the delay follows the network. Off, it stays at `start_ms` and a late packet is a lost one.
    pub adaptive: bool,
}

impl Default for JitterConfig {
    fn default() -> Self {
        Self { start_ms: 40, min_ms: 20, max_ms: 200, adaptive: true }
    }
}

/// What a [`JitterBuffer::pop`] put into the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Popped {
    /// Sound that was received, at least in part.
    Audio,
    /// Sound made up for a gap.
    Concealed,
    /// Zeros: nothing was received yet, or nothing for longer than the highest delay.
    Silence,
}

/// Receives one RTP stream of one leg.
#[derive(Clone, Debug)]
pub struct JitterBuffer {
    adaptive: bool,
    min: i64,
    max: i64,
    /// The delay, in samples, with which a stream is started.
    target: i64,
    ring: Ring,
    concealer: Concealer,
    arrivals: Arrivals,
    stream: Option<Stream>,
}

/// The stream being played. Positions are timestamps unwrapped to 64 bits.
#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    /// The last accepted timestamp, as it came and unwrapped.
    newest: (u32, i64),
    /// The next sample to be played.
    play: i64,
    /// Where the stream begins; before it there is silence and not a gap.
    start: i64,
    /// The end of the latest packet.
    head: i64,
    /// Frames made up without moving `play`, in this gap.
    stretched: i64,
    /// Nothing came for so long that the next packet starts anew.
    idle: bool,
    /// Samples between `play` and arriving packets: lowest and highest, in this and in the last window.
    slack: [(i64, i64); 2],
    window_ticks: u16,
    shrink_wait: u16,
    late: u8,
}

const NO_SLACK: (i64, i64) = (i64::MAX, i64::MIN);

impl Stream {
    fn at(ssrc: u32, timestamp: u32, delay: i64) -> Self {
        // Far from zero, so that a stream may go back a little without turning negative.
        let at = 1 << 40;
        Self {
            ssrc,
            newest: (timestamp, at),
            play: at - delay,
            start: at,
            head: at,
            stretched: 0,
            idle: false,
            slack: [NO_SLACK; 2],
            window_ticks: 0,
            shrink_wait: SHRINK_EVERY,
            late: 0,
        }
    }

    fn unwrap(&self, timestamp: u32) -> i64 {
        self.newest.1 + i64::from(timestamp.wrapping_sub(self.newest.0).cast_signed())
    }

    fn lowest_slack(&self) -> i64 {
        self.slack[0].0.min(self.slack[1].0)
    }

    fn note_slack(&mut self, slack: i64) {
        self.slack[0] = (self.slack[0].0.min(slack), self.slack[0].1.max(slack));
    }

    /// The playing point moved against the stream: what was measured moves with it.
    fn shift_slack(&mut self, by: i64) {
        for (low, high) in self.slack.iter_mut().filter(|(low, high)| low <= high) {
            *low += by;
            *high += by;
        }
    }
}

fn samples(ms: u16) -> i64 {
    i64::from(ms.clamp(20, 400).div_ceil(20)) * STEP
}

impl JitterBuffer {
    /// An empty buffer. Odd configurations (start below min, max below start) are put in order.
    pub fn new(config: JitterConfig) -> Self {
        let min = samples(config.min_ms);
        let max = samples(config.max_ms).max(min);
        Self {
            adaptive: config.adaptive,
            min,
            max,
            target: samples(config.start_ms).clamp(min, max),
            ring: Ring::new(),
            concealer: Concealer::new(),
            arrivals: Arrivals::default(),
            stream: None,
        }
    }

    /// Takes an audio packet of 10 to 120 ms, decoded with `codec`, that arrived at `now`.
    pub fn push(&mut self, now: Instant, p: &Packet<'_>, codec: Codec) {
        if p.payload.is_empty() || p.payload.len() > MAX_PACKET {
            self.arrivals.malformed();
            return;
        }
        let noted = self.arrivals.note(now, p);
        if noted == Noted::Duplicate || (noted == Noted::Behind && self.came_too_late(p)) {
            return;
        }
        let mut pcm = [0; MAX_PACKET];
        let pcm = &mut pcm[..p.payload.len()];
        codec.decode(p.payload, pcm);
        let mut stream = self.placed(p);
        let at = stream.unwrap(p.timestamp);
        let end = at + pcm.len() as i64;
        if at >= stream.head {
            stream.newest = (p.timestamp, at);
            stream.note_slack(at - stream.play);
        }
        // Packets that overtook each other at the very beginning of a stream.
        stream.start = stream.start.min(at.max(stream.play));
        if end <= stream.play {
            self.arrivals.late();
            stream.late = stream.late.saturating_add(1);
        } else {
            let first = at.max(stream.play);
            self.ring.write(first, &pcm[(first - at) as usize..]);
            stream.head = stream.head.max(end);
        }
        self.stream = Some(stream);
    }

    /// Whether an overtaken packet belongs to a time that was played already. However old it is, it is no leap.
    fn came_too_late(&mut self, p: &Packet<'_>) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ssrc == p.ssrc) else {
            return false;
        };
        let late = stream.unwrap(p.timestamp) + p.payload.len() as i64 <= stream.play;
        if late {
            self.arrivals.late();
            stream.late = stream.late.saturating_add(1);
        }
        late
    }

    /// Counts a packet of the stream that carries no sound to be played (telephone events, comfort noise), so that its
    /// sequence number is not taken for a loss.
    pub fn note(&mut self, now: Instant, p: &Packet<'_>) {
        self.arrivals.note(now, p);
    }

    /// The stream with its playing point as the packet needs it: kept, begun anew, or led over a flood of old sound.
    fn placed(&mut self, p: &Packet<'_>) -> Stream {
        let Some(mut stream) = self.stream.filter(|stream| stream.ssrc == p.ssrc) else {
            return self.begin(p);
        };
        let at = stream.unwrap(p.timestamp);
        let leapt = (at - stream.head).abs() > LEAP;
        // Some phones set the marker on every packet, so it counts only where a pause can be seen as well.
        let paused = at - stream.head >= PAUSE * STEP || stream.stretched >= PAUSE;
        let spurt = p.marker && stream.head <= stream.play && paused;
        if leapt || (at >= stream.head && (stream.idle || spurt)) {
            return self.begin(p);
        }
        if at - stream.play > self.max + SLACK_OVER {
            let play = at - self.target;
            self.arrivals.skipped(play - stream.play);
            stream.shift_slack(stream.play - play);
            self.ring.clear(stream.play, play);
            stream.play = play;
            stream.stretched = 0;
        }
        stream
    }

    fn begin(&mut self, p: &Packet<'_>) -> Stream {
        if self.stream.is_some() {
            self.arrivals.restarted();
        }
        self.ring = Ring::new();
        Stream::at(p.ssrc, p.timestamp, self.target)
    }

    /// Puts the next 20 ms into `out`. To be called once a tick, whether or not anything arrived.
    pub fn pop(&mut self, _now: Instant, out: &mut Frame) -> Popped {
        let Some(mut stream) = self.stream.filter(|stream| !stream.idle) else {
            out.fill(0);
            return Popped::Silence;
        };
        self.turn_window(&mut stream);
        let popped = self.play(&mut stream, out);
        match popped {
            Popped::Audio => self.concealer.good(out),
            Popped::Concealed => self.arrivals.concealed(),
            Popped::Silence => {}
        }
        self.stream = Some(stream);
        popped
    }

    fn play(&mut self, stream: &mut Stream, out: &mut Frame) -> Popped {
        if stream.play + STEP <= stream.start {
            stream.play += STEP;
            out.fill(0);
            return Popped::Silence;
        }
        let mut present = self.ring.present(stream.play, FRAME);
        if present == 0 && stream.stretched > 0 && stream.head >= stream.play + STEP {
            self.leap_over_loss(stream);
            present = self.ring.present(stream.play, FRAME);
        }
        if present < FRAME && stream.head < stream.play + STEP {
            return self.run_dry(stream, out);
        }
        stream.stretched = 0;
        if present == 0 {
            if stream.late > LATE_TOLERATED && self.may_grow(stream) {
                // Packets come, only too late: this gap is a good place to wait for them.
                stream.late = 0;
                stream.shift_slack(STEP);
                self.arrivals.stretched();
            } else {
                self.advance(stream);
            }
            self.concealer.conceal(out);
            return Popped::Concealed;
        }
        if present == FRAME {
            self.ring.read(stream.play, out);
            self.advance(stream);
            self.leave_out(stream, out);
        } else {
            self.patch(stream.play, out);
            self.advance(stream);
        }
        Popped::Audio
    }

    fn advance(&mut self, stream: &mut Stream) {
        self.ring.clear(stream.play, stream.play + STEP);
        stream.play += STEP;
    }

    /// A frame of which only some samples are there: the rest is made up.
    fn patch(&mut self, play: i64, out: &mut Frame) {
        let mut made = *out;
        self.concealer.clone().conceal(&mut made);
        for (index, sample) in out.iter_mut().enumerate() {
            *sample = self.ring.get(play + index as i64).unwrap_or(made[index]);
        }
    }

    /// What was waited for did not come, but what follows did: it was lost, and the waiting has already stood in for it.
    fn leap_over_loss(&mut self, stream: &mut Stream) {
        while stream.stretched > 0
            && self.ring.present(stream.play, FRAME) == 0
            && stream.head >= stream.play + STEP
        {
            stream.play += STEP;
            stream.stretched -= 1;
            stream.shift_slack(-STEP);
            self.arrivals.unstretched();
        }
    }

    /// Nothing to play: make something up and wait, if waiting is still allowed.
    fn run_dry(&mut self, stream: &mut Stream, out: &mut Frame) -> Popped {
        if stream.stretched * STEP >= self.max {
            stream.idle = true;
            self.concealer = Concealer::new();
            out.fill(0);
            return Popped::Silence;
        }
        stream.stretched += 1;
        if self.may_grow(stream) || self.ring.present(stream.play, FRAME) > 0 {
            stream.shift_slack(STEP);
            self.arrivals.stretched();
        } else {
            // Beyond the highest delay time goes on without the packet.
            self.advance(stream);
        }
        self.concealer.conceal(out);
        Popped::Concealed
    }

    fn may_grow(&self, stream: &Stream) -> bool {
        let highest = stream.slack[0].1.max(stream.slack[1].1);
        self.adaptive && (highest == i64::MIN || highest < self.max)
    }

    /// Leaves out a frame where packets have long come earlier than needed: in silence, or when there is no more room.
    fn leave_out(&mut self, stream: &mut Stream, out: &mut Frame) {
        stream.shrink_wait = stream.shrink_wait.saturating_sub(1);
        let spare = stream.lowest_slack();
        let watched = stream.slack[1].0 <= stream.slack[1].1;
        if !self.adaptive || stream.shrink_wait > 0 || !watched || spare < self.min + STEP {
            return;
        }
        if self.ring.present(stream.play, FRAME) < FRAME {
            return;
        }
        let mut next = [0; FRAME];
        self.ring.read(stream.play, &mut next);
        let in_silence = quiet(out) && quiet(&next);
        if !in_silence && spare < self.max {
            return;
        }
        for (index, sample) in out.iter_mut().enumerate() {
            let weight = ((index as i32 + 1) * 4).min(FRAME as i32);
            let mixed = i32::from(*sample) * (FRAME as i32 - weight) + i32::from(next[index]) * weight;
            *sample = (mixed / FRAME as i32) as i16;
        }
        self.advance(stream);
        stream.shift_slack(-STEP);
        stream.shrink_wait = SHRINK_EVERY;
        self.arrivals.left_out();
    }

    /// Every 2.5 s: the spread of the last two windows is the delay a new stream is started with.
    fn turn_window(&mut self, stream: &mut Stream) {
        stream.window_ticks += 1;
        if stream.window_ticks < WINDOW {
            return;
        }
        let low = stream.lowest_slack();
        let high = stream.slack[0].1.max(stream.slack[1].1);
        if self.adaptive && low <= high {
            let wanted = (high - low).max(0) + self.min;
            self.target = ((wanted + STEP - 1) / STEP * STEP).clamp(self.min, self.max);
        }
        stream.slack = [NO_SLACK, stream.slack[0]];
        stream.window_ticks = 0;
        stream.late = 0;
    }

    /// Frames from the playing point to the end of the latest packet, begun ones included.
    pub fn waiting(&self) -> u32 {
        let samples =
            self.stream.filter(|stream| !stream.idle).map_or(0, |stream| (stream.head - stream.play).max(0));
        u32::try_from((samples + STEP - 1) / STEP).unwrap_or(u32::MAX)
    }

    /// The counters since the buffer was made.
    pub fn stats(&self) -> JitterStats {
        let delay =
            self.stream.filter(|stream| !stream.idle).map_or(0, |stream| (stream.head - stream.play).max(0));
        self.arrivals.stats(delay)
    }
}

fn quiet(frame: &Frame) -> bool {
    frame.iter().map(|sample| u32::from(sample.unsigned_abs())).sum::<u32>() < QUIET * FRAME as u32
}

#[cfg(test)]
mod tests;

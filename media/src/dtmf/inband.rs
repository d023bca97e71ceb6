//! Hearing keys by their tones (ITU-T Q.24).
//!
//! Blocks of 102 samples, each overlapping half of the one before. A block votes for a key when row and column tone
//! carry most of its energy with an allowed twist; a key is a digit after five such votes (about 40 ms) whose phases,
//! followed from block to block, show both frequencies within tolerance. A digit is over after six blocks without it,
//! so that breaks of up to 20 ms are bridged and pauses of 40 ms are not. Lost frames are not listened to: the detector
//! stands still, because a concealed frame says nothing about the key.

use std::f32::consts::{PI, TAU};

use super::{COLUMNS, KEYPAD, ROWS};
use crate::tone::mean_square_dbm0;
use crate::{Frame, RATE};

const BLOCK: usize = 102;
const HOP: usize = 51;
/// Rows, columns, and the two parts of a North American dial tone.
const TONES: usize = 10;
const DIAL_TONE: [f32; 2] = [350.0, 440.0];

/// The weakest tone that is heard, in dBm0 (Q.24: silent below -55 dBm0).
const WEAKEST: f32 = -42.0;
/// Row over column: 10 dB; column over row: 7.5 dB.
const NORMAL_TWIST: f32 = 10.0;
const REVERSE_TWIST: f32 = 5.62;
/// Each other row or column at least 5 dB weaker; the phases decide what is left open.
const OTHERS: f32 = 0.316;
/// Share of the energy of a block that is in the two tones.
const SHARE: f32 = 0.6;
/// The same, as the mean of all votes of a digit: speech comes close for a block, not for a digit.
const MEAN_SHARE: f32 = 0.7;
/// Votes that make a digit, and blocks in between that may fail.
const VOTES: u8 = 5;
const FAILED: u8 = 1;
/// Blocks without the key that end it.
const RELEASE: u8 = 6;
/// A vote this much weaker than the loudest of the digit is its echo: -7 dB.
const ECHO: f32 = 0.2;
/// Deviation from the nominal frequency: 2.5 % and 1 Hz (Q.24: accept 1.5 % and 2 Hz, refuse 3.5 %).
const DEVIATION: f32 = 0.025;
const DEVIATION_HZ: f32 = 1.0;
/// Lost frames in a row after which a held digit is over.
const MAX_LOST: u8 = 3;

/// A complex number: the phase of a tone in a block.
#[derive(Clone, Copy, Debug, Default)]
struct Phasor {
    re: f32,
    im: f32,
}

impl Phasor {
    /// How far the phase went from `before` to `self`, weighted with both levels.
    fn since(self, before: Self) -> Self {
        Self { re: self.re * before.re + self.im * before.im, im: self.im * before.re - self.re * before.im }
    }

    fn add(&mut self, other: Self) {
        self.re += other.re;
        self.im += other.im;
    }
}

/// What a block says.
#[derive(Clone, Copy, Debug)]
struct Vote {
    row: usize,
    column: usize,
    share: f32,
    /// Mean square of both tones together.
    power: f32,
}

/// A key that may become a digit.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    row: usize,
    column: usize,
    votes: u8,
    failed: u8,
    share: f32,
    power: f32,
    /// The phases of the last block, if it voted for this key and is next to the one to come.
    last: Option<[Phasor; 2]>,
    turned: [Phasor; 2],
}

/// The digit that is being heard.
#[derive(Clone, Copy, Debug)]
struct Digit {
    row: usize,
    column: usize,
    power: f32,
    misses: u8,
}

/// Listens to one leg. Frames must come in order, one every 20 ms.
#[derive(Clone, Debug)]
pub struct InbandDetector {
    coefficients: [f32; TONES],
    window: [f32; BLOCK],
    block: [f32; BLOCK],
    filled: usize,
    candidate: Option<Candidate>,
    digit: Option<Digit>,
    lost: u8,
}

impl Default for InbandDetector {
    fn default() -> Self {
        Self::new()
    }
}

fn frequency(tone: usize) -> f32 {
    match tone {
        0..4 => ROWS[tone],
        4..8 => COLUMNS[tone - 4],
        _ => DIAL_TONE[tone - 8],
    }
}

impl InbandDetector {
    /// A detector that has heard nothing.
    pub fn new() -> Self {
        Self {
            coefficients: std::array::from_fn(|tone| 2.0 * (TAU * frequency(tone) / RATE as f32).cos()),
            window: std::array::from_fn(|at| 0.5 - 0.5 * (TAU * (at as f32 + 0.5) / BLOCK as f32).cos()),
            block: [0.0; BLOCK],
            filled: 0,
            candidate: None,
            digit: None,
            lost: 0,
        }
    }

    /// Listens to 20 ms and answers a digit once it has lasted about 40 ms. `lost` says that the frame was made up for a
    /// missing packet and must not be listened to.
    pub fn frame(&mut self, pcm: &Frame, lost: bool) -> Option<char> {
        if lost {
            self.skip();
            return None;
        }
        self.lost = 0;
        let mut found = None;
        for &sample in pcm {
            self.block[self.filled] = f32::from(sample);
            self.filled += 1;
            if self.filled == BLOCK {
                found = self.judge().or(found);
                self.block.copy_within(HOP.., 0);
                self.filled = BLOCK - HOP;
            }
        }
        found
    }

    /// The key that is held down now.
    pub fn pressed(&self) -> Option<char> {
        self.digit.map(|digit| KEYPAD[digit.row][digit.column])
    }

    fn skip(&mut self) {
        // What comes after the hole does not join what came before it.
        self.filled = 0;
        self.lost = self.lost.saturating_add(1);
        if let Some(candidate) = &mut self.candidate {
            candidate.last = None;
        }
        if self.lost > MAX_LOST {
            self.candidate = None;
            self.digit = None;
        }
    }

    fn judge(&mut self) -> Option<char> {
        let vote = self.vote();
        if let Some(digit) = &mut self.digit {
            let held = vote.filter(|vote| {
                vote.row == digit.row && vote.column == digit.column && vote.power >= digit.power * ECHO
            });
            if let Some(vote) = held {
                digit.power = digit.power.max(vote.power);
                digit.misses = 0;
                self.candidate = None;
                return None;
            }
            digit.misses += 1;
            let echo = vote.is_some_and(|vote| vote.row == digit.row && vote.column == digit.column);
            if digit.misses >= RELEASE {
                self.digit = None;
            }
            if echo {
                return None;
            }
        }
        self.consider(vote)
    }

    /// Counts a vote for or against the candidate and answers the digit it has become.
    fn consider(&mut self, vote: Option<Vote>) -> Option<char> {
        let Some(vote) = vote else {
            self.candidate = self.candidate.take().and_then(|candidate| {
                let failed = candidate.failed + 1;
                (failed <= FAILED).then_some(Candidate { failed, last: None, ..candidate })
            });
            return None;
        };
        let phases = [self.phase(vote.row), self.phase(4 + vote.column)];
        let known =
            self.candidate.take().filter(|known| known.row == vote.row && known.column == vote.column);
        let mut candidate = known.unwrap_or(Candidate {
            row: vote.row,
            column: vote.column,
            votes: 0,
            failed: 0,
            share: 0.0,
            power: 0.0,
            last: None,
            turned: [Phasor::default(); 2],
        });
        candidate.votes = candidate.votes.saturating_add(1);
        candidate.share += vote.share;
        candidate.power = candidate.power.max(vote.power);
        if let Some(last) = candidate.last {
            for ((turned, now), before) in candidate.turned.iter_mut().zip(phases).zip(last) {
                turned.add(now.since(before));
            }
        }
        candidate.last = Some(phases);
        if candidate.votes < VOTES {
            self.candidate = Some(candidate);
            return None;
        }
        if !candidate.pure() {
            // Something whistles near a key. Its count begins again, so that the start of a real key is not missed.
            return None;
        }
        self.digit =
            Some(Digit { row: candidate.row, column: candidate.column, power: candidate.power, misses: 0 });
        Some(KEYPAD[candidate.row][candidate.column])
    }

    /// The powers of all tones in the block, and what they say.
    fn vote(&self) -> Option<Vote> {
        let mut last = [0.0f32; TONES];
        let mut before = [0.0f32; TONES];
        let mut energy = 0.0;
        for &sample in &self.block {
            energy += sample * sample;
            for tone in 0..TONES {
                let next = sample + self.coefficients[tone] * last[tone] - before[tone];
                before[tone] = last[tone];
                last[tone] = next;
            }
        }
        let length = BLOCK as f32;
        // Mean square of the sine found, so that it compares with the mean square of the block.
        let power: [f32; TONES] = std::array::from_fn(|tone| {
            let squared = last[tone] * last[tone] + before[tone] * before[tone]
                - self.coefficients[tone] * last[tone] * before[tone];
            2.0 * squared / (length * length)
        });
        let (row, column) = (loudest(&power[..4]), loudest(&power[4..8]));
        let (low, high) = (power[row], power[4 + column]);
        let weak = mean_square_dbm0(low.min(high)) < WEAKEST;
        if weak || low > high * NORMAL_TWIST || high > low * REVERSE_TWIST {
            return None;
        }
        if !alone(&power[..4], row) || !alone(&power[4..8], column) {
            return None;
        }
        let share = (low + high) / heard(energy / length, low + high, &power[8..]);
        (share >= SHARE).then_some(Vote { row, column, share: share.min(1.0), power: low + high })
    }

    /// The phase of a tone in the block, through a Hann window that keeps the other tone out.
    fn phase(&self, tone: usize) -> Phasor {
        let coefficient = self.coefficients[tone];
        let (mut last, mut before) = (0.0f32, 0.0f32);
        for (sample, weight) in self.block.iter().zip(self.window) {
            let next = sample * weight + coefficient * last - before;
            before = last;
            last = next;
        }
        let angle = TAU * frequency(tone) / RATE as f32;
        // Scaled down so that products of two phases stay far from the limits of the type.
        Phasor { re: (last - before * angle.cos()) / 32768.0, im: before * angle.sin() / 32768.0 }
    }
}

impl Candidate {
    /// Both frequencies within tolerance, and little beside them.
    fn pure(&self) -> bool {
        self.share / f32::from(self.votes) >= MEAN_SHARE
            && on_frequency(self.turned[0], ROWS[self.row])
            && on_frequency(self.turned[1], COLUMNS[self.column])
    }
}

/// Whether a phase that turned so far in half a block belongs to the nominal frequency.
fn on_frequency(turned: Phasor, nominal: f32) -> bool {
    if turned.re == 0.0 && turned.im == 0.0 {
        return false;
    }
    let expected = TAU * nominal * HOP as f32 / RATE as f32;
    let off = (turned.im.atan2(turned.re) - expected + PI).rem_euclid(TAU) - PI;
    (off * RATE as f32 / (TAU * HOP as f32)).abs() <= nominal * DEVIATION + DEVIATION_HZ
}

fn loudest(power: &[f32]) -> usize {
    (1..power.len()).fold(0, |best, at| if power[at] > power[best] { at } else { best })
}

fn alone(power: &[f32], best: usize) -> bool {
    power.iter().enumerate().all(|(at, &other)| at == best || other <= power[best] * OTHERS)
}

/// The mean square of a block without its dial tone. Only where both parts of one are there and make up most of what is
/// not the key: in speech they never do.
fn heard(total: f32, tones: f32, dial: &[f32]) -> f32 {
    let rest = total - tones;
    let dialled: f32 = dial.iter().sum();
    let both = dial.iter().all(|&part| part > 0.2 * rest);
    if rest > 0.0 && both && dialled > 0.75 * rest { (total - dialled).max(tones) } else { total }
}

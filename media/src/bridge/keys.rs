//! Keys being sent to one leg: one request after the other, as telephone events or as tones.
//!
//! Owns the order of the requests and the timing of tones; the timing of events is [`DigitSender`]'s. One of the two
//! replaces the leg's audio while a key is down, never both (RFC 4733 §2.1).

use std::collections::VecDeque;

use crate::dtmf::{DigitSender, EventTick, digit_event};
use crate::tone::{Tone, dtmf_tone};
use crate::{DigitMode, FRAME_MS, Frame};

/// Requests that may wait.
const REQUESTS_MAX: usize = 8;
/// Keys in one request.
const KEYS_MAX: usize = 64;
/// Stands for half a second of silence among the keys.
const PAUSE: char = 'w';
const PAUSE_FRAMES: u32 = 25;
/// The events of keys: 0 to 15 (RFC 4733 §3.2).
const KEY_EVENTS: u8 = 15;

#[derive(Debug)]
struct Request {
    digits: String,
    mode: DigitMode,
    on_ms: u16,
    gap_ms: u16,
}

/// Keys as tones: each for some frames, then silence for some.
#[derive(Debug)]
struct Tones {
    digits: String,
    next: usize,
    on: u32,
    gap: u32,
    tone: Option<Tone>,
    /// Frames into the current key, and how many it has.
    at: u32,
    length: u32,
}

impl Tones {
    /// Overwrites the frame with the tone or the pause; false when all keys were sent.
    fn fill(&mut self, out: &mut Frame) -> bool {
        if self.at == self.length {
            let Some(key) = self.digits.as_bytes().get(self.next) else { return false };
            self.tone = dtmf_tone(char::from(*key));
            self.length = if self.tone.is_some() { self.on + self.gap } else { PAUSE_FRAMES };
            self.next += 1;
            self.at = 0;
        }
        out.fill(0);
        if let Some(tone) = self.tone.as_mut().filter(|_| self.at < self.on) {
            tone.fill(out);
        }
        self.at += 1;
        true
    }
}

#[derive(Debug)]
enum Sending {
    Events(DigitSender),
    Tones(Tones),
}

/// What the keys want of this tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyTick {
    /// Nothing: send the audio.
    Audio,
    /// The frame was overwritten with a tone or a pause between tones: send it in place of the audio.
    Tone,
    /// Send this telephone event instead.
    Event { payload: [u8; 4], timestamp: u32, marker: bool, copies: u8 },
}

/// The keys of one leg.
#[derive(Debug, Default)]
pub(super) struct Keys {
    waiting: VecDeque<Request>,
    sending: Option<Sending>,
}

impl Keys {
    /// Takes a request; false when too many wait or none of its characters is a key.
    pub(super) fn request(&mut self, digits: &str, mode: DigitMode, on_ms: u16, gap_ms: u16) -> bool {
        let is_key = |c: &char| *c == PAUSE || digit_event(*c).is_some_and(|event| event <= KEY_EVENTS);
        let upper = |c: char| if c == PAUSE { c } else { c.to_ascii_uppercase() };
        let digits: String = digits.chars().map(upper).filter(is_key).take(KEYS_MAX).collect();
        let taken = !digits.is_empty() && self.waiting.len() < REQUESTS_MAX;
        if taken {
            self.waiting.push_back(Request { digits, mode, on_ms, gap_ms });
        }
        taken
    }

    /// One tick at the given timestamp of the audio stream. `events` says whether the far end takes telephone
    /// events. `sent` is called when a request is done.
    pub(super) fn tick(
        &mut self,
        timestamp: u32,
        events: bool,
        out: &mut Frame,
        mut sent: impl FnMut(),
    ) -> KeyTick {
        let Some(sending) = &mut self.sending else {
            // One frame of audio always lies between two requests.
            self.sending = self.waiting.pop_front().map(|request| begin(request, events));
            return KeyTick::Audio;
        };
        match sending {
            Sending::Events(sender) => match sender.tick(timestamp) {
                EventTick::Event { payload, event_timestamp, marker, copies } => {
                    return KeyTick::Event { payload, timestamp: event_timestamp, marker, copies };
                }
                EventTick::Gap => return KeyTick::Audio,
                EventTick::Idle => {}
            },
            Sending::Tones(tones) => {
                if tones.fill(out) {
                    return KeyTick::Tone;
                }
            }
        }
        self.sending = None;
        sent();
        KeyTick::Audio
    }
}

fn begin(request: Request, events: bool) -> Sending {
    if events && request.mode == DigitMode::Rfc4733 {
        let mut sender = DigitSender::new(request.on_ms, request.gap_ms);
        sender.queue(&request.digits);
        return Sending::Events(sender);
    }
    let frames = |ms: u16| u32::from(ms).div_ceil(FRAME_MS).max(1);
    let (on, gap) = (frames(request.on_ms), frames(request.gap_ms));
    Sending::Tones(Tones { digits: request.digits, next: 0, on, gap, tone: None, at: 0, length: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FRAME;

    /// What each tick wants until all is sent: `t`one, `e`vent, `E`nd of an event, `-` a pause between tones,
    /// `a`udio; `!` where a request is done.
    fn send(keys: &mut Keys, events: bool) -> String {
        let mut seen = String::new();
        for tick in 0..200 {
            let mut frame = [7; FRAME];
            let mut done = false;
            seen.push(match keys.tick(tick * 160, events, &mut frame, || done = true) {
                KeyTick::Audio => 'a',
                KeyTick::Tone if frame == [0; FRAME] => '-',
                KeyTick::Tone => 't',
                KeyTick::Event { copies: 1, .. } => 'e',
                KeyTick::Event { .. } => 'E',
            });
            if done {
                seen.push('!');
            }
        }
        seen.trim_end_matches('a').to_owned()
    }

    #[test]
    fn tones_keep_their_times_and_a_pause_lasts_half_a_second() {
        let mut keys = Keys::default();
        assert!(keys.request("1w#", DigitMode::Rfc4733, 100, 41));
        let pause = "-".repeat(25);
        assert_eq!(send(&mut keys, false), format!("attttt---{pause}ttttt---a!"));
    }

    #[test]
    fn requests_follow_each_other_each_in_its_own_way() {
        let mut keys = Keys::default();
        assert!(keys.request("1", DigitMode::Rfc4733, 60, 40));
        assert!(keys.request("d", DigitMode::Inband, 40, 40));
        assert_eq!(send(&mut keys, true), "aeeEaaa!att--a!");
    }

    #[test]
    fn what_is_no_key_is_left_out_and_too_much_is_refused() {
        let mut keys = Keys::default();
        for nonsense in ["", "xyz", "é"] {
            assert!(!keys.request(nonsense, DigitMode::Inband, 40, 40));
        }
        assert!((0..REQUESTS_MAX).all(|_| keys.request("1-800", DigitMode::Inband, 20, 20)));
        assert!(!keys.request("1", DigitMode::Inband, 40, 40));
        assert_eq!(send(&mut keys, true), "at-t-t-t-a!".repeat(REQUESTS_MAX));
    }
}

//! What is being played to one destination: clips one after the other.
//!
//! Owns the queue, its order and its ends. It never mixes and never waits for anything: a frame is asked for every
//! 20 ms. Adding a clip may allocate, reading a frame never does.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clip::samples_ms;
use crate::{Clip, FRAME, Frame, Heard, PlaybackId};

/// Playbacks that may run and wait for one destination.
pub const QUEUE_MAX: usize = 64;
/// A stopped playback fades out over this many samples (5 ms), which is heard as an end and not as a click.
const FADE: usize = FRAME / 4;

#[derive(Debug)]
struct Item {
    id: PlaybackId,
    clip: Arc<Clip>,
    looped: bool,
    /// The next sample of the clip.
    at: usize,
    /// Samples played, over all rounds.
    played: u64,
    started: bool,
    stopping: bool,
}

impl Item {
    fn ended(&self, completed: bool) -> Heard {
        Heard::PlaybackEnded { playback: self.id, completed, played_ms: samples_ms(self.played) }
    }

    /// Fills the frame; false when the clip is at its end.
    fn fill(&mut self, out: &mut [i16]) -> bool {
        let samples = self.clip.samples();
        let mut filled = 0;
        while filled < out.len() {
            if self.at == samples.len() {
                if !self.looped || samples.is_empty() {
                    break;
                }
                self.at = 0;
            }
            let n = (out.len() - filled).min(samples.len() - self.at);
            out[filled..filled + n].copy_from_slice(&samples[self.at..self.at + n]);
            self.at += n;
            filled += n;
        }
        out[filled..].fill(0);
        self.played += filled as u64;
        self.at < samples.len() || (self.looped && !samples.is_empty())
    }
}

/// The clips of one destination, first come, first played.
#[derive(Debug)]
pub struct Player {
    queue: VecDeque<Item>,
    pause: Pause,
}

/// A pause of everything, with a fade at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Off,
    Beginning,
    On,
    Ending,
}

impl Default for Player {
    fn default() -> Self {
        Self::new()
    }
}

impl Player {
    /// Plays nothing yet.
    pub fn new() -> Self {
        Self { queue: VecDeque::new(), pause: Pause::Off }
    }

    /// Nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a clip at the end of the queue; false when [`QUEUE_MAX`] are there.
    pub fn push(&mut self, id: PlaybackId, clip: Arc<Clip>, looped: bool) -> bool {
        let room = self.queue.len() < QUEUE_MAX;
        if room {
            self.queue.push_back(Item {
                id,
                clip,
                looped,
                at: 0,
                played: 0,
                started: false,
                stopping: false,
            });
        }
        room
    }

    /// Holds what runs where it is, and all behind it, or lets it go on; fades of 5 ms are heard as neither.
    pub fn pause(&mut self, on: bool) {
        let running = self.queue.front().is_some_and(|item| item.started);
        self.pause = match (on, self.pause) {
            (true, Pause::Off | Pause::Ending) if running => Pause::Beginning,
            (true, Pause::Beginning) => Pause::Beginning,
            (true, Pause::Off | Pause::On | Pause::Ending) => Pause::On,
            (false, Pause::On) => Pause::Ending,
            (false, Pause::Beginning | Pause::Off) => Pause::Off,
            (false, Pause::Ending) => Pause::Ending,
        };
    }

    /// Stops one playback, or all. What waits ends here and is said to `ended`; what runs fades out with the next
    /// frame and ends there.
    pub fn stop(&mut self, which: Option<PlaybackId>, mut ended: impl FnMut(Heard)) {
        self.queue.retain_mut(|item| {
            if which.is_some_and(|id| id != item.id) {
                return true;
            }
            if item.started {
                item.stopping = true;
            } else {
                ended(item.ended(false));
            }
            item.started
        });
    }

    /// Ends everything at once, without a fade: nobody listens any more.
    pub fn abandon(&mut self, mut ended: impl FnMut(Heard)) {
        for item in self.queue.drain(..) {
            ended(item.ended(false));
        }
    }

    /// The next frame; false (and an untouched frame) when there is nothing to play. The beginning and the end of a
    /// playback are said to `say`.
    pub fn read(&mut self, out: &mut Frame, mut say: impl FnMut(Heard)) -> bool {
        let pause = self.pause;
        let Some(item) = self.queue.front_mut() else { return false };
        if pause == Pause::On {
            // Nothing of it is heard: what was stopped meanwhile ends here.
            if item.stopping {
                say(item.ended(false));
                self.queue.pop_front();
            }
            return false;
        }
        if !item.started {
            item.started = true;
            say(Heard::PlaybackStarted { playback: item.id });
        }
        if item.stopping {
            fade_out(item, out);
            say(item.ended(false));
            self.queue.pop_front();
            if pause == Pause::Beginning {
                // This was its fade, too: what comes next is held from its first sample.
                self.pause = Pause::On;
            }
        } else if pause == Pause::Beginning {
            fade_out(item, out);
            self.pause = Pause::On;
        } else {
            let more = item.fill(out);
            if pause == Pause::Ending {
                for (i, sample) in out[..FADE].iter_mut().enumerate() {
                    *sample = (i32::from(*sample) * i as i32 / FADE as i32) as i16;
                }
                self.pause = Pause::Off;
            }
            if !more {
                say(item.ended(true));
                self.queue.pop_front();
            }
        }
        true
    }
}

/// The next 5 ms, falling to silence, and silence.
fn fade_out(item: &mut Item, out: &mut Frame) {
    item.fill(&mut out[..FADE]);
    out[FADE..].fill(0);
    for (i, sample) in out[..FADE].iter_mut().enumerate() {
        *sample = (i32::from(*sample) * (FADE - i) as i32 / FADE as i32) as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(samples: Vec<i16>) -> Arc<Clip> {
        Arc::new(Clip::from_samples(samples))
    }

    fn read(player: &mut Player) -> (Option<Frame>, Vec<Heard>) {
        let mut frame = [77; FRAME];
        let mut heard = Vec::new();
        let played = player.read(&mut frame, |event| heard.push(event));
        (played.then_some(frame), heard)
    }

    fn ended(id: u64, completed: bool, played_ms: u32) -> Heard {
        Heard::PlaybackEnded { playback: PlaybackId(id), completed, played_ms }
    }

    fn started(id: u64) -> Heard {
        Heard::PlaybackStarted { playback: PlaybackId(id) }
    }

    #[test]
    fn clips_play_in_order_to_their_last_sample() {
        let mut player = Player::new();
        assert!(player.push(PlaybackId(1), clip(vec![5; 200]), false));
        assert!(player.push(PlaybackId(2), clip(vec![6; 160]), false));
        assert_eq!(read(&mut player), (Some([5; FRAME]), vec![started(1)]));
        let (frame, heard) = read(&mut player);
        assert_eq!(frame.unwrap()[..41], [[5; 40].as_slice(), &[0]].concat());
        assert_eq!(heard, [ended(1, true, 25)]);
        assert_eq!(read(&mut player), (Some([6; FRAME]), vec![started(2), ended(2, true, 20)]));
        assert_eq!(read(&mut player), (None, vec![]));
    }

    #[test]
    fn a_stopped_clip_fades_and_the_next_one_plays() {
        let mut player = Player::new();
        player.push(PlaybackId(1), clip(vec![4000; 1600]), false);
        player.push(PlaybackId(2), clip(vec![6; 160]), false);
        read(&mut player);
        player.stop(Some(PlaybackId(1)), |_| panic!("a running one ends with its fade"));
        let (frame, heard) = read(&mut player);
        let frame = frame.unwrap();
        assert_eq!((frame[0], frame[20], frame[39], frame[40]), (4000, 2000, 100, 0));
        assert!(frame.windows(2).all(|pair| pair[0] >= pair[1]));
        assert_eq!(heard, [ended(1, false, 25)]);
        assert_eq!(read(&mut player).1, [started(2), ended(2, true, 20)]);
    }

    #[test]
    fn stopping_all_ends_what_waits_at_once() {
        let mut player = Player::new();
        for id in 1..=3 {
            player.push(PlaybackId(id), clip(vec![9; 1600]), false);
        }
        read(&mut player);
        let mut heard = Vec::new();
        player.stop(None, |event| heard.push(event));
        assert_eq!(heard, [ended(2, false, 0), ended(3, false, 0)]);
        assert_eq!(read(&mut player).1, [ended(1, false, 25)]);
        assert!(player.is_idle());
    }

    #[test]
    fn a_loop_has_no_seam() {
        let mut player = Player::new();
        let samples: Vec<i16> = (0..100).collect();
        player.push(PlaybackId(1), clip(samples), true);
        let mut expected = 0..;
        for _ in 0..20 {
            let (frame, heard) = read(&mut player);
            assert!(heard.iter().all(|event| *event == started(1)));
            for sample in frame.unwrap() {
                assert_eq!(i32::from(sample), expected.next().unwrap() % 100);
            }
        }
        player.stop(None, |_| ());
        assert_eq!(read(&mut player).1, [ended(1, false, 405)]);
    }

    #[test]
    fn an_empty_clip_ends_even_when_looped() {
        let mut player = Player::new();
        player.push(PlaybackId(1), clip(vec![]), true);
        assert_eq!(read(&mut player), (Some([0; FRAME]), vec![started(1), ended(1, true, 0)]));
        assert!(player.is_idle());
    }

    #[test]
    fn a_pause_holds_the_place_and_fades_at_both_ends() {
        let mut player = Player::new();
        player.push(PlaybackId(1), clip(vec![4000; 1600]), false);
        read(&mut player);
        player.pause(true);
        player.pause(true);
        let frame = read(&mut player).0.unwrap();
        assert_eq!((frame[0], frame[39], frame[40]), (4000, 100, 0));
        assert_eq!(read(&mut player), (None, vec![]));
        player.pause(false);
        let frame = read(&mut player).0.unwrap();
        assert_eq!((frame[0], frame[20], frame[40], frame[159]), (0, 2000, 4000, 4000));
        // One frame, the fade, one frame: 200 + 160 samples are gone of the 1600.
        let mut left = 0;
        while let (Some(frame), _) = read(&mut player) {
            left += frame.iter().filter(|sample| **sample != 0).count();
        }
        assert_eq!(left, 1600 - 160 - 40 - 160);
    }

    #[test]
    fn what_is_stopped_in_a_pause_is_not_heard_again() {
        let mut player = Player::new();
        player.push(PlaybackId(1), clip(vec![4000; 1600]), false);
        read(&mut player);
        player.pause(true);
        read(&mut player);
        player.push(PlaybackId(2), clip(vec![7; 160]), false);
        player.stop(Some(PlaybackId(1)), |_| ());
        assert_eq!(read(&mut player), (None, vec![ended(1, false, 25)]));
        assert_eq!(read(&mut player), (None, vec![]), "the pause is not over");
        player.pause(false);
        assert_eq!(read(&mut player).1, [started(2), ended(2, true, 20)]);
    }

    #[test]
    fn what_is_stopped_as_a_pause_begins_lets_nothing_through() {
        let mut player = Player::new();
        player.push(PlaybackId(1), clip(vec![4000; 1600]), false);
        player.push(PlaybackId(2), clip(vec![7; 160]), false);
        read(&mut player);
        player.pause(true);
        player.stop(Some(PlaybackId(1)), |_| ());
        assert_eq!(read(&mut player).1, [ended(1, false, 25)]);
        assert_eq!(read(&mut player), (None, vec![]), "the next one does not begin");
        player.pause(false);
        assert_eq!(read(&mut player).1, [started(2), ended(2, true, 20)]);
    }

    #[test]
    fn a_pause_of_nothing_holds_what_comes() {
        let mut player = Player::new();
        player.pause(true);
        player.push(PlaybackId(1), clip(vec![9; 160]), false);
        assert_eq!(read(&mut player), (None, vec![]));
        player.pause(false);
        assert_eq!(read(&mut player).1, [started(1), ended(1, true, 20)]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut player = Player::new();
        let clip = clip(vec![0; 160]);
        assert!((0..QUEUE_MAX as u64).all(|id| player.push(PlaybackId(id), clip.clone(), false)));
        assert!(!player.push(PlaybackId(99), clip, false));
        let mut ended = 0;
        player.abandon(|_| ended += 1);
        assert_eq!(ended, QUEUE_MAX);
    }
}

//! The media of simulated calls: answers the engine's commands as workers do, in virtual time and without sound.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use media::{BridgeId, Command, Event, Heard, LegId, PlaybackId, RecordingId};
use rand_chacha::ChaCha8Rng;

use crate::net::{below, chance};

const LEG: LegId = LegId(0);

#[derive(Default)]
struct Room {
    queue: VecDeque<(PlaybackId, Duration)>,
    generation: u64,
    recording: Option<RecordingId>,
}

enum Due {
    Say(Heard),
    /// The head of the queue is heard out, unless the queue has changed since.
    Played(u64),
}

#[derive(Default)]
pub(crate) struct Ears {
    rooms: BTreeMap<BridgeId, Room>,
    due: BTreeMap<(Instant, u64), (BridgeId, Due)>,
    counter: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
}

impl Ears {
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    fn later(&mut self, at: Instant, bridge: BridgeId, due: Due) {
        self.counter += 1;
        self.due.insert((at, self.counter), (bridge, due));
    }

    fn say(&mut self, at: Instant, bridge: BridgeId, heard: Heard) {
        self.later(at, bridge, Due::Say(heard));
    }

    pub(crate) fn command(&mut self, rng: &mut ChaCha8Rng, now: Instant, command: Command) {
        let tick = now + Duration::from_millis(20);
        match command {
            Command::Open { bridge, .. } => {
                if self.rooms.insert(bridge, Room::default()).is_none() {
                    self.opened += 1;
                }
                // Some other program holds a port now and then.
                let taken = chance(rng, 3);
                let opened = Heard::Opened { leg: LEG };
                let failed = Heard::Failed { leg: LEG, error: "address in use".to_owned() };
                self.say(tick, bridge, if taken { failed } else { opened });
                // Keys are pressed whenever people like, answered or not.
                for _ in 0..below(rng, 6) {
                    let at = now + Duration::from_millis(u64::from(below(rng, 60_000)));
                    let digit = char::from(b'0' + u8::try_from(below(rng, 10)).expect("a digit"));
                    let source = media::DigitSource::Rfc4733;
                    self.say(at, bridge, Heard::Digit { leg: LEG, digit, source });
                }
            }
            Command::Play { bridge, playback, clip, .. } => {
                let Some(room) = self.rooms.get_mut(&bridge) else { return };
                room.queue.push_back((playback, Duration::from_millis(u64::from(clip.duration_ms()))));
                if room.queue.len() == 1 {
                    self.play_head(now, bridge);
                }
            }
            Command::StopPlayback { bridge, playback } => self.cut(tick, bridge, playback),
            Command::ListenAmd { bridge, .. } => {
                let status = [media::AmdStatus::Human, media::AmdStatus::Machine][below(rng, 2) as usize];
                let cause = media::AmdCause::Human;
                let verdict = media::Verdict { status, cause, confidence: 0.5, latency_ms: 900 };
                let at = now + Duration::from_millis(u64::from(500 + below(rng, 4500)));
                if chance(rng, 95) {
                    self.say(at, bridge, Heard::Amd { leg: LEG, verdict });
                }
            }
            Command::Record { bridge, recording, .. } => {
                if let Some(room) = self.rooms.get_mut(&bridge) {
                    room.recording = Some(recording);
                }
                self.say(tick, bridge, Heard::RecordingStarted { recording });
            }
            Command::StopRecording { bridge, recording } => {
                if let Some(room) = self.rooms.get_mut(&bridge) {
                    room.recording = None;
                }
                self.say(tick, bridge, recorded(recording));
            }
            Command::Close { bridge } => {
                self.closed += 1;
                if let Some(recording) = self.rooms.remove(&bridge).and_then(|room| room.recording) {
                    self.say(tick + Duration::from_millis(30), bridge, recorded(recording));
                }
                self.say(tick, bridge, Heard::Closed { stats: Vec::new() });
            }
            Command::Connect { .. } | Command::Hold { .. } => {}
            other => panic!("the engine has no business with {other:?}"),
        }
    }

    fn play_head(&mut self, now: Instant, bridge: BridgeId) {
        let Some(room) = self.rooms.get_mut(&bridge) else { return };
        room.generation += 1;
        if let Some((_, length)) = room.queue.front() {
            let (at, generation) = (now + *length, room.generation);
            self.later(at, bridge, Due::Played(generation));
        }
    }

    fn cut(&mut self, at: Instant, bridge: BridgeId, playback: Option<PlaybackId>) {
        let Some(room) = self.rooms.get_mut(&bridge) else { return };
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            room.queue.drain(..).partition(|(id, _)| playback.is_none_or(|one| one == *id));
        room.queue = kept;
        for (playback, _) in gone {
            self.say(at, bridge, Heard::PlaybackEnded { playback, completed: false, played_ms: 0 });
        }
        self.play_head(at, bridge);
    }

    pub(crate) fn hear(&mut self, now: Instant) -> Option<Event> {
        loop {
            let first = self.due.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            let (bridge, due) = first.remove();
            match due {
                Due::Say(heard) => return Some(Event { bridge, heard }),
                Due::Played(generation) => {
                    let Some(room) = self.rooms.get_mut(&bridge).filter(|r| r.generation == generation)
                    else {
                        continue;
                    };
                    let Some((playback, length)) = room.queue.pop_front() else { continue };
                    self.play_head(now, bridge);
                    let played_ms = u32::try_from(length.as_millis()).expect("a short clip");
                    let heard = Heard::PlaybackEnded { playback, completed: true, played_ms };
                    return Some(Event { bridge, heard });
                }
            }
        }
    }
}

fn recorded(recording: RecordingId) -> Heard {
    Heard::RecordingEnded { recording, bytes: 44, duration_ms: 0, degraded_ms: 0, sha256: [7; 32] }
}

//! One scripted far end, as a pure machine: inputs are moments and what was heard, outputs are [`Step`]s for the
//! user agent and the media. It knows no socket and no clock, so a minute of a call is tested in no time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::script::{Act, Keys, Script, Sound};

/// The shortest talk that counts as a prompt.
const PROMPT_MIN: Duration = Duration::from_millis(600);
/// The silence after a prompt that makes a person press a key.
const PROMPT_SILENCE: Duration = Duration::from_millis(800);

/// What a callee wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// 180.
    Ring,
    /// 183 with an answer; media flows from here.
    EarlyMedia,
    /// 200; media flows from here, if it does not yet.
    Answer,
    /// A final refusal; `retry_after_s` 0 means no such header.
    Refuse { code: u16, retry_after_s: u32 },
    /// Play, over and over if `looped`; the end of a sound that is not looped is told by [`Callee::played`].
    Play { sound: Sound, looped: bool },
    /// End what is playing.
    Quiet,
    /// Press keys.
    Press { digits: &'static str, keys: Keys },
    /// Send back what is heard.
    Echo,
    /// The endless tone.
    Milliwatt,
    /// Send nothing.
    Mute,
    /// Re-INVITE, sendonly if `true`.
    Hold(bool),
    /// BYE.
    HangUp,
}

/// What the script waits for.
#[derive(Debug, PartialEq, Eq)]
enum Waiting {
    Until(Instant),
    Sound,
    Prompt,
    Cancel,
    /// The script is over; the call goes on until someone hangs up.
    Done,
}

/// Tells when a first prompt is over: speech may pause between words, so spurts are added up until a real silence.
#[derive(Debug, Default)]
struct Prompt {
    spoken: Duration,
    silent_at: Option<Instant>,
    over: bool,
}

impl Prompt {
    fn talk_started(&mut self) {
        self.silent_at = None;
    }

    fn talk_stopped(&mut self, now: Instant, spoke: Duration, silent: Duration) {
        self.spoken += spoke;
        self.silent_at = Some(now + PROMPT_SILENCE.saturating_sub(silent));
    }

    /// The silence was long enough: either the prompt is over, or it was only a noise.
    fn timeout(&mut self, now: Instant) {
        if self.silent_at.is_some_and(|at| at <= now) {
            self.silent_at = None;
            self.over |= self.spoken >= PROMPT_MIN;
            self.spoken = Duration::ZERO;
        }
    }
}

/// One far end of one call.
#[derive(Debug)]
pub(super) struct Callee {
    acts: &'static [Act],
    next: usize,
    waiting: Waiting,
    prompt: Prompt,
    steps: VecDeque<Step>,
}

impl Callee {
    /// A far end whose INVITE has just come; its first steps are ready.
    pub(super) fn new(now: Instant, script: &Script) -> Self {
        let mut callee = Self {
            acts: script.acts,
            next: 0,
            waiting: Waiting::Done,
            prompt: Prompt::default(),
            steps: VecDeque::new(),
        };
        callee.run(now);
        callee
    }

    /// The sound of the last [`Step::Play`] that was not looped has ended.
    pub(super) fn played(&mut self, now: Instant) {
        if self.waiting == Waiting::Sound {
            self.run(now);
        }
    }

    /// The caller began to talk.
    pub(super) fn talk_started(&mut self) {
        self.prompt.talk_started();
    }

    /// The caller has talked for `spoke` and has been silent for `silent` already.
    pub(super) fn talk_stopped(&mut self, now: Instant, spoke: Duration, silent: Duration) {
        self.prompt.talk_stopped(now, spoke, silent);
    }

    /// A CANCEL has been received. True if the script answers it with a 200 for the INVITE.
    pub(super) fn cancelled(&mut self, now: Instant) -> bool {
        let answers = self.waiting == Waiting::Cancel;
        if answers {
            self.run(now);
        }
        answers
    }

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Instant) {
        self.prompt.timeout(now);
        match self.waiting {
            Waiting::Until(at) if at <= now => self.run(now),
            Waiting::Prompt if self.prompt.over => self.run(now),
            Waiting::Until(_) | Waiting::Prompt | Waiting::Sound | Waiting::Cancel | Waiting::Done => {}
        }
    }

    /// When [`Callee::timeout`] is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let act = match self.waiting {
            Waiting::Until(at) => Some(at),
            Waiting::Sound | Waiting::Prompt | Waiting::Cancel | Waiting::Done => None,
        };
        act.into_iter().chain(self.prompt.silent_at).min()
    }

    /// The next step to be done.
    pub(super) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Acts until the script has to wait.
    fn run(&mut self, now: Instant) {
        while let Some(act) = self.acts.get(self.next) {
            self.next += 1;
            let step = match *act {
                Act::Wait(ms) => {
                    return self.waiting = Waiting::Until(now + Duration::from_millis(ms.into()));
                }
                Act::AwaitPrompt if self.prompt.over => continue,
                Act::AwaitPrompt => return self.waiting = Waiting::Prompt,
                Act::AwaitCancel => return self.waiting = Waiting::Cancel,
                Act::Play(sound) => {
                    self.steps.push_back(Step::Play { sound, looped: false });
                    return self.waiting = Waiting::Sound;
                }
                Act::Begin(sound) => Step::Play { sound, looped: false },
                Act::Repeat(sound) => Step::Play { sound, looped: true },
                Act::Ring => Step::Ring,
                Act::EarlyMedia => Step::EarlyMedia,
                Act::Answer => Step::Answer,
                Act::Refuse(code, retry_after_s) => Step::Refuse { code, retry_after_s },
                Act::Quiet => Step::Quiet,
                Act::Press(digits, keys) => Step::Press { digits, keys },
                Act::Echo => Step::Echo,
                Act::Milliwatt => Step::Milliwatt,
                Act::Mute => Step::Mute,
                Act::Hold => Step::Hold(true),
                Act::Resume => Step::Hold(false),
                Act::HangUp => Step::HangUp,
            };
            self.steps.push_back(step);
        }
        self.waiting = Waiting::Done;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any start will do")]
mod tests {
    use super::super::script::script_of;
    use super::*;

    /// A callee in virtual time: every sound lasts one second, steps are noted with their milliseconds.
    struct Trial {
        start: Instant,
        now: Instant,
        callee: Callee,
        sound_ends: Option<Instant>,
        done: Vec<(u64, Step)>,
    }

    impl Trial {
        fn dial(digits: &str) -> Self {
            let start = Instant::now();
            let callee = Callee::new(start, &script_of(digits));
            let mut trial = Self { start, now: start, callee, sound_ends: None, done: Vec::new() };
            trial.drain();
            trial
        }

        fn drain(&mut self) {
            while let Some(step) = self.callee.poll_step() {
                if matches!(step, Step::Play { looped: false, .. }) {
                    self.sound_ends = Some(self.now + Duration::from_secs(1));
                }
                self.done.push((u64::try_from((self.now - self.start).as_millis()).unwrap(), step));
            }
        }

        /// Goes from deadline to deadline up to `ms` after the start.
        fn until(&mut self, ms: u64) {
            let end = self.start + Duration::from_millis(ms);
            while let Some(at) = self.callee.poll_timeout().into_iter().chain(self.sound_ends).min() {
                if at > end {
                    break;
                }
                self.now = at;
                if self.sound_ends == Some(at) {
                    self.sound_ends = None;
                    self.callee.played(at);
                }
                self.callee.timeout(at);
                self.drain();
            }
            self.now = end;
        }

        /// The caller talks for `ms` from now; the detector needs 200 ms of silence to notice the end.
        fn prompt(&mut self, ms: u64) {
            self.callee.talk_started();
            let end = u64::try_from((self.now - self.start).as_millis()).unwrap() + ms + 200;
            self.until(end);
            self.callee.talk_stopped(self.now, Duration::from_millis(ms), Duration::from_millis(200));
        }
    }

    const HELLO: Step = Step::Play { sound: Sound::Hello, looped: false };
    const ONE: Step = Step::Press { digits: "1", keys: Keys::Events };

    #[test]
    fn a_person_rings_answers_and_says_hello() {
        let mut trial = Trial::dial("0100");
        trial.until(60_000);
        assert_eq!(trial.done, [(0, Step::Ring), (1000, Step::Answer), (1500, HELLO)]);
        assert_eq!(trial.callee.poll_timeout(), None);
    }

    #[test]
    fn keys_are_pressed_800_ms_after_the_first_prompt() {
        let mut trial = Trial::dial("0101");
        trial.until(4000);
        assert_eq!(trial.done.len(), 3, "nothing is pressed without a prompt");
        trial.prompt(2000);
        trial.until(60_000);
        assert_eq!(trial.done[3..], [(6800, ONE)]);
    }

    #[test]
    fn pauses_between_words_do_not_end_a_prompt() {
        let mut trial = Trial::dial("0101");
        trial.until(3000);
        trial.prompt(500);
        trial.until(4000);
        trial.prompt(500);
        trial.until(60_000);
        assert_eq!(trial.done[3..], [(5300, ONE)], "two spurts of 0.5 s, 0.5 s apart, are one prompt");
    }

    #[test]
    fn a_short_noise_is_not_a_prompt() {
        let mut trial = Trial::dial("0101");
        trial.until(3000);
        trial.prompt(300);
        trial.until(10_000);
        trial.prompt(500);
        trial.until(20_000);
        assert_eq!(trial.done.len(), 3, "what was heard before a real silence does not add up");
        trial.prompt(600);
        trial.until(60_000);
        assert_eq!(trial.done[3..], [(21_400, ONE)]);
    }

    #[test]
    fn a_prompt_heard_during_hello_counts() {
        let mut trial = Trial::dial("0101");
        trial.until(1000);
        trial.prompt(650);
        trial.until(60_000);
        assert_eq!(trial.done[2..], [(1500, HELLO), (2500, ONE)]);
    }

    #[test]
    fn keys_are_pressed_once() {
        let mut trial = Trial::dial("0109");
        trial.until(3000);
        trial.prompt(1000);
        trial.until(8000);
        trial.prompt(1000);
        trial.until(60_000);
        assert_eq!(trial.done.iter().filter(|(_, step)| matches!(step, Step::Press { .. })).count(), 1);
    }

    #[test]
    fn refusals_come_at_once() {
        for (digits, code, retry_after_s) in [
            ("0300", 486, 0),
            ("0301", 603, 0),
            ("0302", 404, 0),
            ("0304", 480, 0),
            ("0305", 503, 5),
            ("0306", 500, 0),
        ] {
            assert_eq!(Trial::dial(digits).done, [(0, Step::Refuse { code, retry_after_s })], "{digits}");
        }
    }

    #[test]
    fn some_never_answer() {
        for (digits, steps) in [("0303", 1), ("0307", 0), ("0308", 0)] {
            let mut trial = Trial::dial(digits);
            trial.until(600_000);
            assert_eq!(trial.done.len(), steps, "{digits}");
            assert!(!trial.callee.cancelled(trial.now), "{digits}: a CANCEL is obeyed");
        }
    }

    #[test]
    fn one_answers_when_it_is_cancelled() {
        let mut trial = Trial::dial("0504");
        trial.until(5000);
        assert_eq!(trial.done, [(0, Step::Ring)]);
        assert!(trial.callee.cancelled(trial.now));
        trial.drain();
        assert_eq!(trial.done[1..], [(5000, Step::Answer)]);
    }

    #[test]
    fn early_media_comes_before_the_answer_or_the_refusal() {
        let mut trial = Trial::dial("0310");
        trial.until(60_000);
        let ringback = Step::Play { sound: Sound::Ringback, looped: true };
        assert_eq!(
            trial.done,
            [(0, Step::EarlyMedia), (0, ringback), (3000, Step::Quiet), (3000, Step::Answer), (3500, HELLO)]
        );
        let mut trial = Trial::dial("0311");
        trial.until(60_000);
        let announcement = Step::Play { sound: Sound::NotInService, looped: false };
        let refusal = Step::Refuse { code: 404, retry_after_s: 0 };
        assert_eq!(trial.done, [(0, Step::EarlyMedia), (200, announcement), (1200, refusal)]);
    }

    #[test]
    fn the_others_keep_their_times() {
        for (digits, at, step) in [
            ("0400", 2000, Step::HangUp),
            ("0403", 4000, Step::HangUp),
            ("0503", 3000, Step::Hold(true)),
            ("0503", 5000, Step::Hold(false)),
            ("0120", 3100, Step::Play { sound: Sound::John, looped: false }),
            ("0202", 5000, Step::Play { sound: Sound::LongGreeting, looped: false }),
            ("0202", 6300, Step::Play { sound: Sound::Beep, looped: false }),
            ("0502", 1000, Step::Mute),
            ("0500", 1000, Step::Echo),
            ("0501", 1000, Step::Milliwatt),
        ] {
            let mut trial = Trial::dial(digits);
            trial.until(60_000);
            assert!(trial.done.contains(&(at, step)), "{digits}: {:?}", trial.done);
        }
    }

    #[test]
    fn nothing_is_sent_before_muting() {
        let mut trial = Trial::dial("0502");
        trial.until(60_000);
        let mute = trial.done.iter().position(|(_, step)| *step == Step::Mute);
        let answer = trial.done.iter().position(|(_, step)| *step == Step::Answer);
        assert!(mute < answer);
    }
}

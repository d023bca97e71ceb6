//! What each number does: one row per line of the published table of test numbers (CONTRACT 0.9), each row a short
//! list of acts that [`super::callee::Callee`] performs. Data only; the table is the whole behaviour of the far end.

/// Something to be heard from the far end; [`super::sounds`] knows how each one sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sound {
    /// A person answering: "Hello?"
    Hello,
    /// The same person, after a moment: "John speaking."
    John,
    /// A business greeting by a person, 2.5 s.
    Business,
    /// A voicemail greeting of 6 s.
    LongGreeting,
    /// A voicemail greeting of 1.8 s.
    ShortGreeting,
    /// The beep after a voicemail greeting.
    Beep,
    /// A called fax machine's answer tone (CED, ITU-T T.30 §4.3.3).
    FaxAnswer,
    /// Special information tones (ITU-T E.180 §7.3) and "not in service".
    NotInService,
    /// North American ringback.
    Ringback,
}

impl Sound {
    /// All of them, in the order in which they are made ready.
    pub(super) const ALL: &'static [Self] = &[
        Self::Hello,
        Self::John,
        Self::Beep,
        Self::FaxAnswer,
        Self::Ringback,
        Self::Business,
        Self::ShortGreeting,
        Self::NotInService,
        Self::LongGreeting,
    ];
}

/// How keys are pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// RFC 4733 telephone-events.
    Events,
    /// Tones in the audio.
    Tones,
}

/// One act of a script. They are done in order; the waits say when to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Goes on after this many milliseconds.
    Wait(u32),
    /// Goes on once a first prompt of at least 0.6 s has been followed by 0.8 s of silence.
    AwaitPrompt,
    /// Goes on once a CANCEL has been received.
    AwaitCancel,
    /// 180 without a body.
    Ring,
    /// 183 with an answer: what is played from here on is early media (RFC 3960 §3.1).
    EarlyMedia,
    /// 200.
    Answer,
    /// A final refusal, with `Retry-After` where the last is not 0 (seconds).
    Refuse(u16, u32),
    /// Plays a sound and goes on at its end.
    Play(Sound),
    /// Plays a sound and goes on at once.
    Begin(Sound),
    /// Plays a sound over and over and goes on at once.
    Repeat(Sound),
    /// Ends what is playing.
    Quiet,
    /// Presses keys, 100 ms each, 300 ms from one to the next.
    Press(&'static str, Keys),
    /// Sends back what is heard.
    Echo,
    /// Sends 1004 Hz at -16 dBm0 for the rest of the call.
    Milliwatt,
    /// Sends no RTP at all from here on.
    Mute,
    /// Re-INVITE with `a=sendonly`.
    Hold,
    /// Re-INVITE with `a=sendrecv`.
    Resume,
    /// BYE.
    HangUp,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// The last four digits dialled.
    pub(super) digits: &'static str,
    /// What the log says of it.
    pub(super) about: &'static str,
    /// What it does.
    pub(super) acts: &'static [Act],
    /// Its SDP offers telephone-event.
    pub(super) telephone_event: bool,
    /// It answers nothing at all: its datagrams are dropped before the user agent sees them.
    pub(super) deaf: bool,
}

use Act::*;

/// Up to "Hello?": the beginning of every person's script, spelt out per row because const slices cannot be joined.
const PERSON: &[Act] = &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::Hello)];

/// A person who presses keys after the first prompt.
macro_rules! presses {
    ($digits:literal, $keys:expr) => {
        &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::Hello), AwaitPrompt, Press($digits, $keys)]
    };
}

const fn row(digits: &'static str, about: &'static str, acts: &'static [Act]) -> Script {
    Script { digits, about, acts, telephone_event: true, deaf: false }
}

/// What any number that is not listed reaches.
pub(super) const DEFAULT: Script = row("0100", "a person", PERSON);

/// The published numbers. This table does not change: callers' tests depend on it.
pub(super) const TABLE: &[Script] = &[
    DEFAULT,
    row("0101", "a person who presses 1", presses!("1", Keys::Events)),
    row("0102", "a person who presses 2", presses!("2", Keys::Events)),
    row("0109", "a person who presses 9", presses!("9", Keys::Events)),
    row("0110", "a person who presses 1 2 3 4", presses!("1234", Keys::Events)),
    row("0111", "a person who presses 1 2 3 4 #", presses!("1234#", Keys::Events)),
    Script {
        telephone_event: false,
        ..row("0112", "a person who presses 5 in band", presses!("5", Keys::Tones))
    },
    row(
        "0120",
        "a person who answers twice",
        &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::Hello), Wait(600), Play(Sound::John)],
    ),
    row("0121", "a business", &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::Business)]),
    row(
        "0200",
        "a voicemail, 6 s",
        &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::LongGreeting), Wait(300), Play(Sound::Beep)],
    ),
    row(
        "0201",
        "a voicemail, 1.8 s",
        &[Ring, Wait(1000), Answer, Wait(500), Play(Sound::ShortGreeting), Wait(300), Play(Sound::Beep)],
    ),
    row(
        "0202",
        "a voicemail after 4 s of silence",
        &[Ring, Wait(1000), Answer, Wait(4000), Play(Sound::LongGreeting), Wait(300), Play(Sound::Beep)],
    ),
    row("0210", "a fax machine", &[Ring, Wait(1000), Answer, Wait(300), Play(Sound::FaxAnswer)]),
    row("0211", "a number not in service", &[Ring, Wait(1000), Answer, Wait(300), Play(Sound::NotInService)]),
    row("0300", "busy", &[Refuse(486, 0)]),
    row("0301", "declines", &[Refuse(603, 0)]),
    row("0302", "not found", &[Refuse(404, 0)]),
    row("0303", "rings for ever", &[Ring]),
    row("0304", "not there", &[Refuse(480, 0)]),
    row("0305", "out of service for 5 s", &[Refuse(503, 5)]),
    row("0306", "broken", &[Refuse(500, 0)]),
    Script { deaf: true, ..row("0307", "answers nothing", &[]) },
    row("0308", "trying for ever", &[]),
    row(
        "0310",
        "ringback as early media, then a person",
        &[EarlyMedia, Repeat(Sound::Ringback), Wait(3000), Quiet, Answer, Wait(500), Play(Sound::Hello)],
    ),
    row(
        "0311",
        "an announcement as early media, then not found",
        &[EarlyMedia, Wait(200), Play(Sound::NotInService), Refuse(404, 0)],
    ),
    row("0400", "hangs up after 1 s", &[Ring, Wait(1000), Answer, Wait(1000), HangUp]),
    row("0403", "hangs up after 3 s", &[Ring, Wait(1000), Answer, Wait(3000), HangUp]),
    row("0500", "an echo", &[Ring, Wait(1000), Echo, Answer]),
    row("0501", "a tone of 1004 Hz", &[Ring, Wait(1000), Milliwatt, Answer]),
    row("0502", "sends no RTP", &[Ring, Wait(1000), Mute, Answer]),
    row(
        "0503",
        "holds and resumes",
        &[Ring, Wait(1000), Answer, Wait(500), Begin(Sound::Hello), Wait(1500), Hold, Wait(2000), Resume],
    ),
    row("0504", "answers when cancelled", &[Ring, AwaitCancel, Answer]),
];

/// The script of a dialled number, by its last four digits.
pub(super) fn script_of(user: &str) -> Script {
    TABLE.iter().find(|row| user.ends_with(row.digits)).copied().unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_four_digits_choose() {
        assert_eq!(script_of("0014155550101").digits, "0101");
        assert_eq!(script_of("+14155550503").digits, "0503");
        assert_eq!(script_of("0300").digits, "0300");
        for unlisted in ["0014155551234", "", "300", "alice", "0014155550100"] {
            assert_eq!(script_of(unlisted).digits, "0100", "{unlisted:?}");
        }
    }

    #[test]
    fn every_published_number_has_its_row_once() {
        let published = [
            "0100", "0101", "0102", "0109", "0110", "0111", "0112", "0120", "0121", "0200", "0201", "0202",
            "0210", "0211", "0300", "0301", "0302", "0303", "0304", "0305", "0306", "0307", "0308", "0310",
            "0311", "0400", "0403", "0500", "0501", "0502", "0503", "0504",
        ];
        assert_eq!(TABLE.iter().map(|row| row.digits).collect::<Vec<_>>(), published);
    }
}

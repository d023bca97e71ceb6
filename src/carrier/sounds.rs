//! How the far ends sound: persons through the speech room, machines and the network as tones. Everything is made
//! once, before the first call, so that a call never waits for a voice.

use std::collections::BTreeMap;
use std::sync::Arc;

use media::Clip;
use media::tone::Tone;

use super::script::Sound;
use crate::speech::Speech;

/// Samples of 8 kHz sound in a millisecond.
const PER_MS: usize = 8;
/// The voice of persons, and of the businesses' and voicemails' greetings.
const PERSON: &str = "en-US-Neural2-D";
const GREETING: &str = "en-US-Neural2-F";

/// Frequencies in Hz with levels in dBm0, sounding together for so many milliseconds; none is silence.
type Burst = (&'static [(f32, f32)], u32);

/// What is spoken: the text, the voice, and the length in milliseconds where the table of numbers promises one
/// (0: as it comes).
fn spoken(sound: Sound) -> Option<(&'static str, &'static str, u32)> {
    match sound {
        Sound::Hello => Some(("Hello?", PERSON, 0)),
        Sound::John => Some(("John speaking.", PERSON, 0)),
        Sound::Business => Some(("Good morning, Harbour Books, how can I help you?", GREETING, 2500)),
        Sound::ShortGreeting => Some(("Please leave a message after the tone.", GREETING, 1800)),
        Sound::LongGreeting => Some((
            "Hello, you have reached the voicemail of John Miller. I cannot take your call right now. \
             Please leave a message after the tone.",
            GREETING,
            6000,
        )),
        Sound::NotInService => {
            Some(("The number you have dialled is not in service. Please check the number.", GREETING, 0))
        }
        Sound::Beep | Sound::FaxAnswer | Sound::Ringback => None,
    }
}

/// What is sounded, before the speech where there is any.
fn sounded(sound: Sound) -> &'static [Burst] {
    match sound {
        Sound::Beep => &[(&[(1000.0, -12.0)], 400)],
        // ITU-T T.30: 2100 Hz for 2.6 to 4 s.
        Sound::FaxAnswer => &[(&[(2100.0, -12.0)], 3000)],
        // ITU-T E.180: three tones in rising order; the lengths are those of an unassigned number.
        Sound::NotInService => {
            &[(&[(950.0, -14.0)], 330), (&[(1400.0, -14.0)], 330), (&[(1800.0, -14.0)], 330), (&[], 300)]
        }
        Sound::Ringback => &[(&[(440.0, -19.0), (480.0, -19.0)], 2000), (&[], 4000)],
        Sound::Hello | Sound::John | Sound::Business | Sound::ShortGreeting | Sound::LongGreeting => &[],
    }
}

/// Speech is slowed and hurried at most so far: beyond, it would not sound like speech.
const SLOWEST: f64 = 0.8;
const FASTEST: f64 = 1.25;
/// How long the stand-in for speech of no promised length is, milliseconds.
const STAND_IN_MS: u32 = 600;

/// All sounds, ready to be played.
#[derive(Debug)]
pub(super) struct Sounds {
    clips: BTreeMap<Sound, Arc<Clip>>,
}

impl Sounds {
    /// Makes every sound. Without a voice (none installed, none built in) bursts of tone stand in for the words,
    /// and the log says so once: the far ends' timing stays the same.
    pub(super) async fn make(speech: Option<&Speech>) -> Self {
        let mut clips = BTreeMap::new();
        let mut mute = speech.is_none();
        for &sound in Sound::ALL {
            let mut samples = bursts(sounded(sound));
            if let Some((text, voice, length_ms)) = spoken(sound) {
                let words = match speech {
                    Some(speech) => speech.say(text, voice).await.ok(),
                    None => None,
                };
                mute |= words.is_none();
                let stand_in_ms = if length_ms == 0 { STAND_IN_MS } else { length_ms };
                let words =
                    words.map_or_else(|| syllables(stand_in_ms), |clip| fit(trim(clip.samples()), length_ms));
                samples.extend(words);
            }
            clips.insert(sound, Arc::new(Clip::from_samples(samples)));
        }
        if mute {
            tracing::warn!("no voice is available: tones stand in for the words of persons and voicemails");
        }
        Self { clips }
    }

    /// The sound as a clip.
    pub(super) fn clip(&self, sound: Sound) -> Option<Arc<Clip>> {
        self.clips.get(&sound).cloned()
    }
}

fn bursts(parts: &[Burst]) -> Vec<i16> {
    let mut samples = Vec::new();
    for (tones, ms) in parts {
        let start = samples.len();
        samples.resize(start + *ms as usize * PER_MS, 0);
        if !tones.is_empty() {
            Tone::new(tones).fill(&mut samples[start..]);
        }
    }
    samples
}

/// Bursts at the pace of syllables, for want of a voice.
fn syllables(ms: u32) -> Vec<i16> {
    const SYLLABLE: &[Burst] = &[(&[(220.0, -22.0), (660.0, -24.0), (1320.0, -28.0)], 150), (&[], 30)];
    let length = ms as usize * PER_MS;
    bursts(SYLLABLE).into_iter().cycle().take(length).collect()
}

/// Drops the silence before and after the words, so that a promised length is a length of speech.
fn trim(samples: &[i16]) -> &[i16] {
    const QUIET: u16 = 160;
    let first = samples.iter().position(|s| s.unsigned_abs() > QUIET).unwrap_or(0);
    let last = samples.iter().rposition(|s| s.unsigned_abs() > QUIET).map_or(samples.len(), |at| at + 1);
    samples.get(first..last).unwrap_or(samples)
}

/// Speech of exactly `ms` milliseconds, slowed or hurried by linear interpolation within a band in which it stays
/// speech; beyond that cut, or followed by silence. 0 leaves it as it is.
fn fit(samples: &[i16], ms: u32) -> Vec<i16> {
    let wanted = ms as usize * PER_MS;
    if wanted == 0 || samples.len() < 2 {
        return samples.to_vec();
    }
    let rate = (samples.len() as f64 / wanted as f64).clamp(SLOWEST, FASTEST);
    let value = |index: usize| {
        let position = index as f64 * rate;
        let left = position as usize;
        let here = f64::from(*samples.get(left)?);
        let next = samples.get(left + 1).map_or(here, |s| f64::from(*s));
        Some((here + (next - here) * (position - left as f64)) as i16)
    };
    (0..wanted).map(|index| value(index).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use media::tone::{level_dbm0, power_at};

    use super::*;

    #[tokio::test]
    async fn without_a_voice_every_sound_is_there_all_the_same() {
        let sounds = Sounds::make(None).await;
        for &sound in Sound::ALL {
            let clip = sounds.clip(sound).unwrap();
            assert!(level_dbm0(clip.samples()) > -35.0, "{sound:?} can be heard");
        }
        for (sound, ms) in
            [(Sound::Business, 2500), (Sound::ShortGreeting, 1800), (Sound::LongGreeting, 6000)]
        {
            assert_eq!(sounds.clip(sound).unwrap().samples().len(), ms * PER_MS, "{sound:?}");
        }
    }

    #[cfg(feature = "embedded-voice")]
    #[tokio::test]
    async fn greetings_are_written_for_their_promised_length() {
        let speech = Speech::new(&crate::config::Speech::default()).unwrap();
        let mut wrong = Vec::new();
        for (text, voice, ms) in
            Sound::ALL.iter().filter_map(|sound| spoken(*sound)).filter(|words| words.2 > 0)
        {
            let clip = speech.say(text, voice).await.unwrap();
            let natural = trim(clip.samples()).len() / PER_MS;
            let rate = natural as f64 / f64::from(ms);
            if !(SLOWEST..FASTEST).contains(&rate) {
                wrong.push(format!("{text:?} takes {natural} ms where {ms} are promised"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn tones_have_their_pitch() {
        let sit = bursts(sounded(Sound::NotInService));
        for (index, hz) in [950.0, 1400.0, 1800.0].into_iter().enumerate() {
            let start = index * 330 * PER_MS;
            assert!(power_at(&sit[start..start + 320 * PER_MS], hz) > -17.0, "{hz} Hz");
        }
        assert!(power_at(&bursts(sounded(Sound::FaxAnswer)), 2100.0) > -15.0);
    }

    #[test]
    fn words_take_the_promised_time() {
        let words: Vec<i16> = (0..8000).map(|n| if n % 2 == 0 { 4000 } else { 3000 }).collect();
        for ms in [1, 800, 1000, 1200, 5000] {
            assert_eq!(fit(&words, ms).len(), ms as usize * PER_MS);
        }
        assert_eq!(fit(&words, 0), words);
        assert_eq!(fit(&words, 5000).last(), Some(&0), "what cannot be stretched is followed by silence");
    }

    #[test]
    fn silence_around_words_is_dropped() {
        assert_eq!(trim(&[0, 3, 900, 0, -900, 2, 0]), [900, 0, -900]);
        assert_eq!(trim(&[0, 0]), [0, 0]);
        assert_eq!(trim(&[]), [0i16; 0]);
    }
}

//! Names of voices, and what they stand for here.
//!
//! Customers send the names of the services they know (`en-US-Neural2-A`, `alloy`). Each maps to one local voice,
//! always the same: language by prefix, gender by letter, and manner (pitch and pace) by the whole name, so that two
//! names sound different. A name nobody knows is a voice all the same; no call fails for it.

use std::fmt;

use super::{SpeechError, TEXT_MAX};

/// The voice where a request names none, or one that nobody knows.
pub const DEFAULT_VOICE: &str = "en-US-Neural2-A";

/// Longest word, in characters; a longer one is spoken as several. The embedded voice cannot speak a word of a
/// hundred syllables.
const WORD_MAX: usize = 40;

/// A speaker's gender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gender {
    /// Lower.
    Male,
    /// Higher.
    Female,
}

/// A local voice. Prints as `en-us+f2`: language, gender, variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// In espeak's words, e.g. `en-us`.
    pub language: &'static str,
    /// Whose voice.
    pub gender: Gender,
    /// Which of that gender: male 1 to 7, female 1 to 5.
    pub variant: u8,
    /// 0 to 100, 50 in the middle.
    pub pitch: u8,
    /// Words a minute.
    pub pace: u16,
    /// Whether name and language were known; otherwise it is the nearest that there is.
    pub known: bool,
}

/// Language prefixes to espeak's names; the first that fits counts.
const LANGUAGES: &[(&str, &str)] = &[
    ("en-US", "en-us"),
    ("en-GB", "en-gb"),
    ("en-AU", "en-gb"),
    ("en-IN", "en-gb"),
    ("en-NZ", "en-gb"),
    ("en-IE", "en-gb"),
    ("en-ZA", "en-gb"),
    ("en", "en-us"),
    ("es-ES", "es"),
    ("es", "es-419"),
    ("pt-BR", "pt-br"),
    ("pt", "pt"),
    ("fr", "fr-fr"),
    ("de", "de"),
    ("it", "it"),
    ("nl", "nl"),
    ("pl", "pl"),
    ("ru", "ru"),
    ("uk", "uk"),
    ("cs", "cs"),
    ("sk", "sk"),
    ("hu", "hu"),
    ("ro", "ro"),
    ("bg", "bg"),
    ("el", "el"),
    ("tr", "tr"),
    ("sv", "sv"),
    ("da", "da"),
    ("nb", "nb"),
    ("no", "nb"),
    ("fi", "fi"),
    ("ca", "ca"),
    ("ar", "ar"),
    ("he", "he"),
    ("fa", "fa"),
    ("hi", "hi"),
    ("bn", "bn"),
    ("ta", "ta"),
    ("te", "te"),
    ("id", "id"),
    ("ms", "ms"),
    ("vi", "vi"),
    ("ja", "ja"),
    ("ko", "ko"),
    ("cmn", "cmn"),
    ("zh", "cmn"),
    ("yue", "yue"),
];

/// Names without a language: those of other services.
const NAMES: &[(&str, Gender, u8)] = &[
    ("alloy", Gender::Female, 1),
    ("ash", Gender::Male, 2),
    ("ballad", Gender::Male, 4),
    ("coral", Gender::Female, 2),
    ("echo", Gender::Male, 1),
    ("fable", Gender::Male, 5),
    ("jennifer", Gender::Female, 2),
    ("morpheus", Gender::Male, 6),
    ("nova", Gender::Female, 3),
    ("onyx", Gender::Male, 3),
    ("sage", Gender::Female, 4),
    ("shimmer", Gender::Female, 5),
    ("verse", Gender::Male, 7),
];

/// Which letters are men, in their order; the rest are women (the American voices of Google's catalogue).
const MEN: &[u8] = b"ADIJB";
const WOMEN: &[u8] = b"CEFGH";
const MALE_VARIANTS: u8 = 7;
const FEMALE_VARIANTS: u8 = 5;

impl Voice {
    /// The voice that a name stands for.
    pub fn named(name: &str) -> Self {
        let hash = hash(name);
        // The middle of the range: far off, the formant voices lose their vowels on a telephone.
        let pitch = 44 + u8::try_from(hash % 13).expect("below 13");
        let pace = 160 + u16::try_from(hash / 13 % 21).expect("below 21");
        let alias = NAMES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
        if let Some(&(_, gender, variant)) = alias {
            return Self { language: "en-us", gender, variant, pitch, pace, known: true };
        }
        let language = LANGUAGES.iter().find(|(prefix, _)| begins_with_language(name, prefix));
        let (gender, variant) = speaker(name, hash);
        let known = language.is_some();
        let language = language.map_or("en-us", |(_, language)| *language);
        Self { language, gender, variant, pitch, pace, known }
    }

    /// The same speaker in English, for voices that have no other language.
    pub(super) fn in_english(self) -> Self {
        if self.language.starts_with("en-") {
            return self;
        }
        Self { language: "en-us", known: false, ..self }
    }

    /// What [`fmt::Display`] leaves out.
    pub(super) fn manner(&self) -> String {
        format!("{}/{}", self.pitch, self.pace)
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gender = match self.gender {
            Gender::Male => 'm',
            Gender::Female => 'f',
        };
        write!(f, "{}+{gender}{}", self.language, self.variant)
    }
}

/// `en-US-…` begins with `en-US` and with `en`; `enormous` with neither (BCP 47 tags end at a hyphen).
fn begins_with_language(name: &str, prefix: &str) -> bool {
    let Some((head, rest)) = name.split_at_checked(prefix.len()) else { return false };
    head.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('-'))
}

fn speaker(name: &str, hash: u64) -> (Gender, u8) {
    let last = name.rsplit('-').next().unwrap_or("").as_bytes();
    let place = |letters: &[u8], letter: u8| letters.iter().position(|known| *known == letter);
    let nth = |place: usize| u8::try_from(place + 1).unwrap_or(1);
    if let [letter] = last {
        let letter = letter.to_ascii_uppercase();
        if let Some(place) = place(MEN, letter) {
            return (Gender::Male, nth(place));
        }
        let other = letter % FEMALE_VARIANTS + 1;
        return (Gender::Female, place(WOMEN, letter).map_or(other, nth));
    }
    let any = |variants: u8| u8::try_from(hash / 1000 % u64::from(variants)).map_or(1, |n| n + 1);
    if hash.is_multiple_of(2) {
        (Gender::Female, any(FEMALE_VARIANTS))
    } else {
        (Gender::Male, any(MALE_VARIANTS))
    }
}

/// The language and region that a name begins with, as BCP 47 writes them: `de-DE` of `de-de-Neural2-A`.
pub(super) fn tag(name: &str) -> Option<String> {
    let mut parts = name.split('-');
    let (language, region) = (parts.next()?, parts.next()?);
    let letters = |text: &str| text.bytes().all(|b| b.is_ascii_alphabetic());
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let known = (2..=3).contains(&language.len()) && letters(language);
    let region_known = (region.len() == 2 && letters(region)) || (region.len() == 3 && digits(region));
    (known && region_known)
        .then(|| format!("{}-{}", language.to_ascii_lowercase(), region.to_ascii_uppercase()))
}

/// The families of Google's voices.
const GOOGLE: [&str; 10] =
    ["Standard", "Wavenet", "Neural2", "Studio", "Polyglot", "News", "Casual", "Journey", "Chirp", "Chirp3"];

/// Whether a name is one of Google's: language, region, family, letter or name (`en-US-Chirp3-HD-Aoede`).
pub(super) fn is_google(name: &str) -> bool {
    let mut parts = name.split('-').skip(2);
    tag(name).is_some()
        && parts.next().is_some_and(|family| GOOGLE.contains(&family))
        && parts.next().is_some_and(|letter| !letter.is_empty())
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Every name that the documents of the surfaces show, and the usual ones of the services they come from: these are
/// listed, while any other name is taken too.
pub(super) fn catalogue() -> Vec<String> {
    let google = [
        ("Standard", "ABCDEFGHIJ"),
        ("Wavenet", "ABCDEFGHIJ"),
        ("Neural2", "ACDEFGHIJ"),
        ("News", "KLN"),
        ("Studio", "OQ"),
    ];
    let american = google
        .into_iter()
        .flat_map(|(family, letters)| letters.chars().map(move |letter| format!("en-US-{family}-{letter}")));
    let british = "ABCDF".chars().map(|letter| format!("en-GB-Neural2-{letter}"));
    let others = ["de-DE", "es-ES", "es-US", "fr-FR", "it-IT", "ja-JP", "pt-BR"];
    let others = others.into_iter().map(|language| format!("{language}-Neural2-A"));
    let named = NAMES.iter().map(|(name, _, _)| (*name).to_owned());
    american.chain(british).chain(others).chain(named).collect()
}

/// FNV-1a, 64 bits: the same on every machine and in every version, unlike the standard library's.
fn hash(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    // The low bits of FNV mix poorly.
    hash ^ (hash >> 32)
}

/// The text as voices take it: control characters become blanks (espeak takes commands in them), doubled brackets
/// are parted (it takes phonemes in them), and what a reader would not see is gone from the ends.
///
/// # Errors
/// [`SpeechError::Empty`] and [`SpeechError::TooLong`].
pub(super) fn spoken_form(text: &str) -> Result<String, SpeechError> {
    if text.chars().take(TEXT_MAX + 1).count() > TEXT_MAX {
        return Err(SpeechError::TooLong);
    }
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut plain = plain.trim().to_owned();
    while plain.contains("[[") {
        plain = plain.replace("[[", "[ [");
    }
    if plain.is_empty() { Err(SpeechError::Empty) } else { Ok(with_short_words(&plain)) }
}

fn with_short_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = 0;
    for c in text.chars() {
        run = if c.is_whitespace() { 0 } else { run + 1 };
        if run > WORD_MAX {
            out.push(' ');
            run = 1;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn letters_tell_the_gender() {
        for letter in ["A", "D", "I", "J"] {
            assert_eq!(Voice::named(&format!("en-US-Neural2-{letter}")).gender, Gender::Male, "{letter}");
        }
        for letter in ["C", "E", "F", "G", "H"] {
            assert_eq!(Voice::named(&format!("en-US-Neural2-{letter}")).gender, Gender::Female, "{letter}");
        }
        assert_eq!(Voice::named("en-US-Neural2-A").to_string(), "en-us+m1");
        assert_eq!(Voice::named("en-GB-Wavenet-C").to_string(), "en-gb+f1");
    }

    #[test]
    fn different_names_sound_different_and_each_always_the_same() {
        let mut names = vec!["alloy".to_owned(), "nova".into(), "onyx".into(), "jennifer".into()];
        for family in ["Standard", "Wavenet", "Neural2", "News", "Studio"] {
            names.extend("ABCDEFGHIJ".chars().map(|letter| format!("en-US-{family}-{letter}")));
        }
        let manner = |voice: Voice| format!("{voice}/{}", voice.manner());
        let heard: BTreeSet<String> = names.iter().map(|name| manner(Voice::named(name))).collect();
        assert_eq!(heard.len(), names.len());
        assert_eq!(Voice::named("en-US-Neural2-F"), Voice::named("en-US-Neural2-F"));
    }

    #[test]
    fn any_name_is_a_voice() {
        for (name, language, known) in [
            ("de-DE-Neural2-B", "de", true),
            ("cmn-CN-Wavenet-A", "cmn", true),
            ("pt-BR-Standard-A", "pt-br", true),
            ("es-MX-Standard-A", "es-419", true),
            ("en", "en-us", true),
            ("EN-gb-x", "en-gb", true),
            ("enormous", "en-us", false),
            ("xx-YY-Neural2-A", "en-us", false),
            ("", "en-us", false),
            ("-", "en-us", false),
            ("é-é", "en-us", false),
        ] {
            let voice = Voice::named(name);
            assert_eq!((voice.language, voice.known), (language, known), "{name}");
            let most = if voice.gender == Gender::Male { 7 } else { 5 };
            assert!((1..=most).contains(&voice.variant), "{name}: {voice}");
        }
        let english = Voice::named("de-DE-Neural2-B").in_english();
        assert_eq!((english.language, english.known), ("en-us", false));
    }

    #[test]
    fn languages_and_families_are_read() {
        for (name, tag) in [
            ("de-de-Neural2-A", Some("de-DE")),
            ("cmn-CN-Wavenet-A", Some("cmn-CN")),
            ("es-419-x", Some("es-419")),
            ("alloy", None),
            ("af_bella", None),
            ("en", None),
            ("é-é", None),
        ] {
            assert_eq!(super::tag(name).as_deref(), tag, "{name}");
        }
        assert!(is_google("en-US-Chirp3-HD-Aoede") && is_google("en-US-Studio-O"));
        for name in ["en-US-JennyNeural", "en-US-Neural2", "en-US-Neural2-", "en-US-Neural2-A\"", "alloy"] {
            assert!(!is_google(name), "{name}");
        }
    }

    #[test]
    fn the_catalogue_has_what_documents_show_once_each() {
        let names = catalogue();
        for name in ["en-US-Neural2-A", "en-US-Standard-C", "alloy", "nova", "jennifer"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| Voice::named(name).known));
    }

    #[test]
    fn every_letter_has_a_variant_that_exists() {
        for letter in ' '..='~' {
            let voice = Voice::named(&format!("en-US-Neural2-{letter}"));
            let most = if voice.gender == Gender::Male { MALE_VARIANTS } else { FEMALE_VARIANTS };
            assert!((1..=most).contains(&voice.variant), "{letter}: {voice}");
        }
    }

    #[test]
    fn text_is_only_text() {
        assert_eq!(spoken_form("  a\u{1}200S\tb\n").unwrap(), "a 200S b");
        assert_eq!(spoken_form("<speak>hi</speak>").unwrap(), "<speak>hi</speak>");
        assert_eq!(spoken_form("[[[h@l'oU]]]").unwrap(), "[ [ [h@l'oU]]]");
        assert_eq!(spoken_form(""), Err(SpeechError::Empty));
        assert_eq!(spoken_form(" \u{0}\r\n"), Err(SpeechError::Empty));
        assert_eq!(
            spoken_form(&"x".repeat(81)).unwrap().split(' ').map(str::len).collect::<Vec<_>>(),
            [40, 40, 1]
        );
        assert!(spoken_form(&"é".repeat(5000)).is_ok());
        assert_eq!(spoken_form(&"é".repeat(5001)), Err(SpeechError::TooLong));
    }
}

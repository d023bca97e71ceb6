//! How a session is held, by the names that TwiML's `<ConversationRelay>` has for it (FIELD 3.1.3). An application gives
//! them in the query of its address, where it connects to us and where we connect to it. Pure.

use super::frames::{Interruptible, is_language};

/// Hints that are taken, and the longest of them in bytes.
const HINTS_MAX: usize = 100;
const HINT_MAX: usize = 100;

/// How soon somebody who speaks interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// At the first sound.
    High,
    /// At the first word that was understood.
    Medium,
    /// At the second.
    Low,
}

/// What an application is told beside the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Who speaks and who falls silent.
    pub speakers: bool,
    /// What of its text was heard.
    pub tokens: bool,
    /// How long a round trip takes.
    pub round_trip: bool,
}

/// A session's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of what is said, BCP 47; `None`: as the voice has it.
    pub speech_language: Option<String>,
    /// Of what is heard; `None`: as the agent has it.
    pub hearing_language: Option<String>,
    /// The voice; `None`: as the agent has it.
    pub voice: Option<String>,
    /// What may interrupt where a frame does not say.
    pub interruptible: Interruptible,
    /// Whether the next turn may take a turn's place where a frame does not say.
    pub preemptible: bool,
    /// How soon speech interrupts.
    pub sensitivity: Sensitivity,
    /// What is told of the caller while the agent says something that it may not interrupt.
    pub report: Interruptible,
    /// Keys are told.
    pub dtmf: bool,
    /// What is being said is told before it is said to its end.
    pub partial: bool,
    /// Words that are likely.
    pub hints: Vec<String>,
    /// What is told beside.
    pub info: Info,
}

impl Default for Options {
    /// As TwiML has them, but that keys are told.
    fn default() -> Self {
        Self {
            speech_language: None,
            hearing_language: None,
            voice: None,
            interruptible: Interruptible::ANY,
            preemptible: false,
            sensitivity: Sensitivity::High,
            report: Interruptible::NONE,
            dtmf: true,
            partial: false,
            hints: Vec::new(),
            info: Info::default(),
        }
    }
}

impl Options {
    /// Reads the names that it knows out of a query; others are the application's own.
    ///
    /// # Errors
    /// The name of the first that has a value which it cannot have.
    pub fn read<'a>(query: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, &'static str> {
        let mut options = Self::default();
        let mut both = None;
        for (name, value) in query {
            match name {
                "language" => both = Some(language(value).ok_or("language")?),
                "ttsLanguage" => options.speech_language = Some(language(value).ok_or("ttsLanguage")?),
                "transcriptionLanguage" => {
                    options.hearing_language = Some(language(value).ok_or("transcriptionLanguage")?);
                }
                "voice" => options.voice = Some(value.to_owned()).filter(|voice| !voice.is_empty()),
                "interruptible" => {
                    options.interruptible = Interruptible::from_word(value).ok_or("interruptible")?;
                }
                "reportInputDuringAgentSpeech" => {
                    options.report = Interruptible::from_word(value).ok_or("reportInputDuringAgentSpeech")?;
                }
                "interruptSensitivity" => {
                    options.sensitivity = sensitivity(value).ok_or("interruptSensitivity")?;
                }
                "preemptible" => options.preemptible = flag(value).ok_or("preemptible")?,
                "dtmfDetection" => options.dtmf = flag(value).ok_or("dtmfDetection")?,
                "partialPrompts" => options.partial = flag(value).ok_or("partialPrompts")?,
                "hints" => options.hints = hints(value),
                "debug" | "events" => options.info = info(value).ok_or("debug")?,
                _ => {}
            }
        }
        options.speech_language = options.speech_language.or_else(|| both.clone());
        options.hearing_language = options.hearing_language.or(both);
        Ok(options)
    }
}

fn language(value: &str) -> Option<String> {
    is_language(value).then(|| value.to_owned())
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn sensitivity(value: &str) -> Option<Sensitivity> {
    match value {
        "high" => Some(Sensitivity::High),
        "medium" => Some(Sensitivity::Medium),
        "low" => Some(Sensitivity::Low),
        _ => None,
    }
}

fn hints(value: &str) -> Vec<String> {
    let words = value.split(',').map(str::trim).filter(|word| !word.is_empty() && word.len() <= HINT_MAX);
    words.take(HINTS_MAX).map(str::to_owned).collect()
}

/// Words between blanks or commas: `debugging speaker-events tokens-played`.
fn info(value: &str) -> Option<Info> {
    let mut info = Info::default();
    for word in value.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word {
            "debugging" => info.round_trip = true,
            "speaker-events" => info.speakers = true,
            "tokens-played" => info.tokens = true,
            _ => return None,
        }
    }
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Options, &'static str> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Options::read(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn names_that_are_not_known_mean_nothing() {
        assert_eq!(read("call_sid=CA1&api_key=x&theme=dark"), Ok(Options::default()));
    }

    #[test]
    fn every_name_is_read() {
        let options = read(
            "language=de-DE&ttsLanguage=fr-FR&voice=onyx&interruptible=dtmf&interruptSensitivity=low&preemptible=true\
             &reportInputDuringAgentSpeech=any&dtmfDetection=false&partialPrompts=true&hints=K%C3%B6ln,%20Bonn\
             &debug=debugging+speaker-events+tokens-played",
        );
        let expected = Options {
            speech_language: Some("fr-FR".into()),
            hearing_language: Some("de-DE".into()),
            voice: Some("onyx".into()),
            interruptible: Interruptible { speech: false, dtmf: true },
            preemptible: true,
            sensitivity: Sensitivity::Low,
            report: Interruptible::ANY,
            dtmf: false,
            partial: true,
            hints: vec!["Köln".into(), "Bonn".into()],
            info: Info { speakers: true, tokens: true, round_trip: true },
        };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        for (query, name) in [
            ("language=%20", "language"),
            ("interruptible=maybe", "interruptible"),
            ("interruptSensitivity=none", "interruptSensitivity"),
            ("partialPrompts=yes", "partialPrompts"),
            ("debug=everything", "debug"),
        ] {
            assert_eq!(read(query), Err(name), "{query}");
        }
    }
}

//! Voices that are services. Each has a file of its own that knows its voices and its request; what they have in
//! common is here: names to voices, sending, and reading the answer as it comes.

use std::time::Duration;

use super::reader::{Form, Reader};
use super::voices::{self, Gender, Voice};
use super::{SpeechError, azure, elevenlabs, google, openai, polly};
use crate::clock;
use crate::config;
use crate::provider::{Answer, Client, FIRST_BYTE_TIME, Order, Trouble};

/// A whole prompt must be there in this time, whoever still waits for it.
pub(super) const WHOLE_TIME: Duration = Duration::from_secs(30);

/// A language, and its women's and men's voices.
pub(super) type Pair = (&'static str, &'static [&'static str], &'static [&'static str]);

/// A voice in a service's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    /// The voice.
    pub(super) voice: String,
    /// BCP 47; empty where the voice says it, or the text.
    pub(super) language: String,
}

#[derive(Debug)]
enum Service {
    Google(config::speech::Google),
    OpenAi(config::speech::OpenAi),
    Azure(config::speech::Azure),
    ElevenLabs(config::speech::ElevenLabs),
    Polly(config::speech::Polly),
}

/// A service that speaks.
#[derive(Debug)]
pub(super) struct Remote {
    service: Service,
    client: Client,
}

/// An answer that is being read.
pub(super) struct Coming {
    answer: Answer,
    /// `None` once the end was read.
    reader: Option<Reader>,
}

fn failed(trouble: &Trouble) -> SpeechError {
    match trouble {
        Trouble::Late => SpeechError::Late,
        other => SpeechError::Failed(other.to_string()),
    }
}

impl Remote {
    /// The service that the configuration calls `name`; `None` where that is none.
    ///
    /// # Errors
    /// What is missing, for the operator.
    pub(super) fn open(name: &str, config: &config::Speech) -> Option<Result<Self, String>> {
        let needed = |key: &str| key.is_empty().then_some("its api_key is not set");
        let (service, missing) = match name {
            "google" => (Service::Google(config.google.clone()), needed(&config.google.api_key.0)),
            // A server of one's own may need none.
            "openai" => (Service::OpenAi(config.openai.clone()), None),
            "azure" => (Service::Azure(config.azure.clone()), needed(&config.azure.api_key.0)),
            "elevenlabs" => {
                (Service::ElevenLabs(config.elevenlabs.clone()), needed(&config.elevenlabs.api_key.0))
            }
            "polly" => (Service::Polly(config.polly.clone()), needed(&config.polly.secret_key.0)),
            _ => return None,
        };
        if let Some(missing) = missing {
            return Some(Err(missing.to_owned()));
        }
        let client = Client::new().map_err(|trouble| trouble.to_string());
        Some(client.map(|client| Self { service, client }))
    }

    /// The configuration's word for it.
    pub(super) fn name(&self) -> &'static str {
        match &self.service {
            Service::Google(_) => "google",
            Service::OpenAi(_) => "openai",
            Service::Azure(_) => "azure",
            Service::ElevenLabs(_) => "elevenlabs",
            Service::Polly(_) => "polly",
        }
    }

    /// What makes the same voice another: where it is and which model.
    pub(super) fn version(&self) -> String {
        match &self.service {
            Service::Google(google) => google.base_url.clone(),
            Service::OpenAi(openai) => format!("{} {}", openai.base_url, openai.tts_model),
            Service::Azure(azure) => format!("{} {}", azure.base_url, azure.region),
            Service::ElevenLabs(eleven) => format!("{} {}", eleven.base_url, eleven.model),
            Service::Polly(polly) => format!("{} {} {}", polly.base_url, polly.region, polly.engine),
        }
    }

    /// The voice that a name stands for here. `own`: the name was given as one of this service's.
    pub(super) fn cast(&self, name: &str, own: bool) -> Cast {
        if own {
            let language = voices::tag(name).unwrap_or_else(|| "en-US".to_owned());
            return Cast { voice: name.to_owned(), language };
        }
        match &self.service {
            Service::Google(_) => google::cast(name),
            Service::OpenAi(_) => openai::cast(name),
            Service::Azure(_) => azure::cast(name),
            Service::ElevenLabs(eleven) => elevenlabs::cast(eleven, name),
            Service::Polly(_) => polly::cast(name),
        }
    }

    fn order(&self, text: &str, cast: &Cast) -> Result<(Order, Form), SpeechError> {
        match &self.service {
            Service::Google(google) => google::order(google, text, cast),
            Service::OpenAi(openai) => openai::order(openai, text, cast),
            Service::Azure(azure) => azure::order(azure, text, cast),
            Service::ElevenLabs(eleven) => elevenlabs::order(eleven, text, cast),
            Service::Polly(polly) => polly::order(polly, text, cast, clock::now().wall),
        }
    }

    /// Asks for a text; the answer's head has come when this returns.
    pub(super) async fn begin(&self, text: &str, cast: &Cast) -> Result<Coming, SpeechError> {
        let (order, form) = self.order(text, cast)?;
        let answer = self.client.send(&order, FIRST_BYTE_TIME).await.map_err(|trouble| failed(&trouble))?;
        let reader = Reader::new(form, &answer.kind()).map_err(|trouble| failed(&trouble))?;
        Ok(Coming { answer, reader: Some(reader) })
    }

    /// A whole text: samples and their rate.
    pub(super) async fn whole(&self, text: &str, cast: &Cast) -> Result<(Vec<f32>, u32), SpeechError> {
        let work = async {
            let mut coming = self.begin(text, cast).await?;
            let (mut samples, mut rate) = (Vec::new(), super::RATE);
            while let Some((piece, at)) = coming.next().await? {
                samples.extend(piece);
                rate = at;
            }
            Ok((samples, rate))
        };
        tokio::time::timeout(WHOLE_TIME, work).await.unwrap_or(Err(SpeechError::Late))
    }
}

impl Coming {
    /// The next samples and their rate, which does not change once there are any; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<f32>, u32)>, SpeechError> {
        while let Some(reader) = &mut self.reader {
            let Some(bytes) = self.answer.chunk().await.map_err(|trouble| failed(&trouble))? else {
                let last = self.reader.take().map(Reader::finish).transpose()?;
                return Ok(last.filter(|(samples, _)| !samples.is_empty()));
            };
            let samples = reader.push(&bytes).map_err(|trouble| failed(&trouble))?;
            if !samples.is_empty() {
                return Ok(Some((samples, reader.rate())));
            }
        }
        Ok(None)
    }
}

/// The language and the voice of a table for a name: the same language and region, or else the same language, or
/// else the first.
pub(super) fn of_table(table: &'static [Pair], name: &str) -> (&'static str, &'static str) {
    let tag = voices::tag(name).unwrap_or_else(|| name.to_owned());
    let language = tag.split('-').next().unwrap_or_default();
    let same = |row: &&Pair| row.0.split('-').next() == Some(language);
    let row = table.iter().find(|row| row.0 == tag).or_else(|| table.iter().find(same));
    let Some((language, women, men)) = row.or_else(|| table.first()) else { return ("", "") };
    let voice = Voice::named(name);
    let voices = match voice.gender {
        Gender::Female => women,
        Gender::Male => men,
    };
    (language, voices[usize::from(voice.variant - 1) % voices.len()])
}

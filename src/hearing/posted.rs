//! OpenAI's `POST /audio/transcriptions`, and every server that takes the same form: one WAV file for each utterance.

use bytes::Bytes;
use media::Channels;
use serde::Deserialize;

use super::Listening;
use crate::config::speech::OpenAi;
use crate::provider::{Client, FIRST_BYTE_TIME, Order, Trouble, bearer, joined};

/// Between the parts of the form (RFC 7578 §4.1): no sound and no word holds it.
const BOUNDARY: &str = "----trunkline-bVx3Rr9kQd7wTz5mHn2LcJ8y";
/// Longest answer, bytes.
const ANSWER_MAX: usize = 256 * 1024;

/// The service.
#[derive(Debug)]
pub(super) struct Posted {
    client: Client,
    config: OpenAi,
}

#[derive(Deserialize)]
struct Transcription {
    text: String,
}

impl Posted {
    /// The service of these settings.
    pub(super) fn new(client: Client, config: OpenAi) -> Self {
        Self { client, config }
    }

    /// What an utterance (8 kHz samples) says; empty where it says nothing.
    pub(super) async fn transcribe(&self, sound: &[i16], listening: &Listening) -> Result<String, Trouble> {
        let order = self.order(sound, listening);
        // The service works before it answers.
        let answer = self.client.send(&order, FIRST_BYTE_TIME * 2).await?;
        if answer.kind() != "application/json" {
            return Err(Trouble::Answer("something else than JSON"));
        }
        let body = answer.whole(ANSWER_MAX).await?;
        let said: Transcription = serde_json::from_slice(&body).map_err(|_| Trouble::Answer("other JSON"))?;
        Ok(said.text)
    }

    fn order(&self, sound: &[i16], listening: &Listening) -> Order {
        let mut body = Vec::with_capacity(sound.len() * 2 + 1024);
        let mut field = |name: &str, value: &str| {
            // A value of the operator's or the application's must not end its part.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            let part =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        };
        field("model", &self.config.stt_model);
        field("response_format", "json");
        // ISO 639-1: the language without its region.
        let language = listening.language.split('-').next().unwrap_or_default();
        if !language.is_empty() {
            field("language", &language.to_ascii_lowercase());
        }
        if !listening.hints.is_empty() {
            field("prompt", &listening.hints.join(", "));
        }
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&wav(sound));
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let mut headers = vec![("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))];
        headers.extend(bearer(&self.config.api_key.0));
        let url = joined(&self.config.base_url, "audio/transcriptions");
        Order { url, headers, body: Bytes::from(body) }
    }
}

/// A WAV file of 8 kHz mono.
fn wav(sound: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = sound.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let head = media::wav::header(Channels::Mono, data.len() as u64);
    head.into_iter().chain(data).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_form_holds_what_openai_documents() {
        let config = OpenAi { api_key: Secret("k".into()), ..OpenAi::default() };
        let posted = Posted::new(Client::new().unwrap(), config);
        let listening = Listening { language: "de-DE".into(), hints: vec!["Köln".into(), "a\r\nb".into()] };
        let order = posted.order(&[1000; 80], &listening);
        assert_eq!(order.url, "https://api.openai.com/v1/audio/transcriptions");
        assert!(order.headers.contains(&("authorization", "Bearer k".to_owned())));
        let text = String::from_utf8_lossy(&order.body).into_owned();
        for (name, value) in
            [("model", "whisper-1"), ("response_format", "json"), ("language", "de"), ("prompt", "Köln, ab")]
        {
            assert!(text.contains(&format!("name=\"{name}\"\r\n\r\n{value}\r\n")), "{name}");
        }
        let at = order.body.windows(4).position(|four| four == b"RIFF").unwrap();
        let end = order.body.windows(8).rposition(|eight| eight == b"\r\n------").unwrap();
        let mut reader = hound::WavReader::new(&order.body[at..end]).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (8000, 1));
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(samples, [1000; 80]);
    }
}

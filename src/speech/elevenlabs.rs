//! ElevenLabs, `POST /v1/text-to-speech/{voice}/stream`; streamed as headerless PCM of 16 kHz.

use serde_json::json;

use super::SpeechError;
use super::reader::Form;
use super::remote::Cast;
use super::voices::{Gender, Voice};
use crate::config::speech::ElevenLabs;
use crate::provider::{Order, joined};

/// Length of a voice's id.
const ID: usize = 20;

/// Whether this is a voice's id.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == ID && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// An id stands for itself; any other name for the configured voice of its gender.
pub(super) fn cast(config: &ElevenLabs, name: &str) -> Cast {
    let voice = match Voice::named(name).gender {
        _ if is_id(name) => name,
        Gender::Female => &config.voice_female,
        Gender::Male => &config.voice_male,
    };
    Cast { voice: voice.to_owned(), language: String::new() }
}

/// The request for a text.
pub(super) fn order(config: &ElevenLabs, text: &str, cast: &Cast) -> Result<(Order, Form), SpeechError> {
    // It is a part of the address.
    let voice: String =
        cast.voice.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    let path = format!("v1/text-to-speech/{voice}/stream?output_format=pcm_16000");
    let order = Order {
        url: joined(&config.base_url, &path),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("xi-api-key", config.api_key.0.clone()),
        ],
        body: json!({"text": text, "model_id": config.model}).to_string().into(),
    };
    Ok((order, Form::Pcm(16_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_request_is_what_elevenlabs_documents() {
        let config = ElevenLabs { api_key: Secret("k".into()), ..ElevenLabs::default() };
        let (order, form) = order(&config, "Hi", &cast(&config, "jennifer")).unwrap();
        let url =
            "https://api.elevenlabs.io/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream?output_format=pcm_16000";
        assert_eq!((order.url.as_str(), form), (url, Form::Pcm(16_000)));
        assert!(order.headers.contains(&("xi-api-key", "k".to_owned())));
        let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
        assert_eq!(body, json!({"text": "Hi", "model_id": "eleven_flash_v2_5"}));
        assert_eq!(cast(&config, "en-US-Neural2-D").voice, config.voice_male);
        assert_eq!(cast(&config, "EXAVITQu4vr4xnSDxMaL").voice, "EXAVITQu4vr4xnSDxMaL");
        let odd = Cast { voice: "../x?y".into(), language: String::new() };
        assert!(super::order(&config, "Hi", &odd).unwrap().0.url.contains("/text-to-speech/xy/stream?"));
    }
}

//! OpenAI's `POST /audio/speech`, and every server that takes the same body (Kokoro-FastAPI, openedai-speech, …).
//! Streamed as headerless PCM of 24 kHz.

use serde_json::json;

use super::SpeechError;
use super::reader::Form;
use super::remote::Cast;
use super::voices::{Gender, Voice};
use crate::config::speech::OpenAi;
use crate::provider::{Order, bearer, joined};

/// Longest text, characters.
const TEXT_MAX: usize = 4096;
/// Its voices; a server of one's own may have others, which `openai:NAME` asks for.
pub(super) const VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
    "verse",
];
/// Those that every model has.
const WOMEN: [&str; 4] = ["nova", "shimmer", "coral", "sage"];
const MEN: [&str; 4] = ["onyx", "echo", "ash", "fable"];

/// A name of OpenAI's stands for itself; others for a voice of the same gender. The text decides the language.
pub(super) fn cast(name: &str) -> Cast {
    let own = VOICES.iter().find(|own| own.eq_ignore_ascii_case(name));
    let voice = own.copied().unwrap_or_else(|| {
        let voice = Voice::named(name);
        let nth = usize::from(voice.variant - 1);
        match voice.gender {
            Gender::Female => WOMEN[nth % WOMEN.len()],
            Gender::Male => MEN[nth % MEN.len()],
        }
    });
    Cast { voice: voice.to_owned(), language: String::new() }
}

/// The request for a text.
pub(super) fn order(config: &OpenAi, text: &str, cast: &Cast) -> Result<(Order, Form), SpeechError> {
    if text.chars().count() > TEXT_MAX {
        return Err(SpeechError::TooLong);
    }
    let body = json!({
        "model": config.tts_model,
        "input": text,
        "voice": cast.voice,
        "response_format": "pcm",
    });
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(bearer(&config.api_key.0));
    let order =
        Order { url: joined(&config.base_url, "audio/speech"), headers, body: body.to_string().into() };
    Ok((order, Form::Pcm(24_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_request_is_what_openai_documents() {
        let config = OpenAi { api_key: Secret("k".into()), ..OpenAi::default() };
        let (order, form) = order(&config, "Hi", &cast("NOVA")).unwrap();
        assert_eq!((order.url.as_str(), form), ("https://api.openai.com/v1/audio/speech", Form::Pcm(24_000)));
        assert!(order.headers.contains(&("authorization", "Bearer k".to_owned())));
        let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
        let expected = json!({"model": "tts-1", "input": "Hi", "voice": "nova", "response_format": "pcm"});
        assert_eq!(body, expected);
        assert!(super::order(&config, &"x".repeat(4097), &cast("nova")).is_err());
    }

    #[test]
    fn other_names_keep_their_gender() {
        assert_eq!(cast("en-US-Neural2-A").voice, "onyx");
        assert_eq!(cast("en-US-Neural2-D").voice, "echo");
        assert_eq!(cast("en-US-Neural2-C").voice, "nova");
        assert_eq!(cast("en-US-Neural2-F").voice, "coral");
        assert!(WOMEN.contains(&cast("jennifer").voice.as_str()));
    }
}

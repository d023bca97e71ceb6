//! Google Cloud Text-to-Speech, `text:synthesize` (v1). Not streamed; the answer is JSON with a WAV file in it.

use serde_json::json;

use super::reader::Form;
use super::remote::Cast;
use super::voices::{self, Gender, Voice};
use super::{RATE, SpeechError};
use crate::config::speech::Google;
use crate::provider::{Order, joined};

/// Longest text, bytes.
const TEXT_MAX: usize = 5000;
/// The letters of the Neural2 voices of `en-US`.
const WOMEN: [char; 5] = ['C', 'E', 'F', 'G', 'H'];
const MEN: [char; 4] = ['A', 'D', 'I', 'J'];

/// A Google name stands for itself; others for a voice of the same language and gender.
pub(super) fn cast(name: &str) -> Cast {
    if voices::is_google(name) {
        return Cast { voice: name.to_owned(), language: voices::tag(name).unwrap_or_default() };
    }
    let voice = Voice::named(name);
    let language = voices::tag(name).unwrap_or_else(|| "en-US".to_owned());
    let nth = usize::from(voice.variant - 1);
    let voice = match (language.as_str(), voice.gender) {
        ("en-US", Gender::Female) => format!("en-US-Neural2-{}", WOMEN[nth % WOMEN.len()]),
        ("en-US", Gender::Male) => format!("en-US-Neural2-{}", MEN[nth % MEN.len()]),
        // Google picks one.
        (_, Gender::Female) => "FEMALE".to_owned(),
        (_, Gender::Male) => "MALE".to_owned(),
    };
    Cast { voice, language }
}

/// The request for a text.
pub(super) fn order(config: &Google, text: &str, cast: &Cast) -> Result<(Order, Form), SpeechError> {
    if text.len() > TEXT_MAX {
        return Err(SpeechError::TooLong);
    }
    let mut voice = json!({"languageCode": cast.language});
    let which = if cast.voice.contains('-') { "name" } else { "ssmlGender" };
    voice[which] = json!(cast.voice);
    let body = json!({
        "input": {"text": text},
        "voice": voice,
        "audioConfig": {"audioEncoding": "LINEAR16", "sampleRateHertz": RATE},
    });
    let order = Order {
        url: joined(&config.base_url, "v1/text:synthesize"),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("x-goog-api-key", config.api_key.0.clone()),
        ],
        body: body.to_string().into(),
    };
    Ok((order, Form::Google))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_request_is_what_google_documents() {
        let config = Google { api_key: Secret("k".into()), ..Google::default() };
        let (order, form) = order(&config, "Hi \"you\"", &cast("de-DE-Wavenet-B")).unwrap();
        assert_eq!(order.url, "https://texttospeech.googleapis.com/v1/text:synthesize");
        assert_eq!(form, Form::Google);
        assert!(order.headers.contains(&("x-goog-api-key", "k".to_owned())));
        let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
        assert_eq!(body["input"]["text"], "Hi \"you\"");
        assert_eq!(body["voice"], json!({"languageCode": "de-DE", "name": "de-DE-Wavenet-B"}));
        assert_eq!(body["audioConfig"], json!({"audioEncoding": "LINEAR16", "sampleRateHertz": 8000}));
        assert!(super::order(&config, &"é".repeat(2501), &cast("alloy")).is_err());
    }

    #[test]
    fn other_names_find_a_voice() {
        for (name, voice, language) in [
            ("en-US-Neural2-F", "en-US-Neural2-F", "en-US"),
            ("en-US-Chirp3-HD-Aoede", "en-US-Chirp3-HD-Aoede", "en-US"),
            ("alloy", "en-US-Neural2-C", "en-US"),
            ("onyx", "en-US-Neural2-I", "en-US"),
            ("fr-FR", "MALE", "fr-FR"),
        ] {
            let cast = cast(name);
            if voice == "MALE" {
                assert!(["MALE", "FEMALE"].contains(&cast.voice.as_str()));
            } else {
                assert_eq!(cast.voice, voice, "{name}");
            }
            assert_eq!(cast.language, language, "{name}");
        }
    }
}

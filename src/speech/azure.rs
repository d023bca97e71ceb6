//! Azure's text to speech, `POST /cognitiveservices/v1` with SSML; streamed as headerless PCM of 8 kHz.

use super::reader::Form;
use super::remote::{Cast, Pair, of_table};
use super::{RATE, SpeechError, voices};
use crate::config::speech::Azure;
use crate::provider::{Order, joined};

/// A woman's and a man's voices of each language; the first language is for names of none that is here.
const VOICES: &[Pair] = &[
    ("en-US", &["Jenny", "Aria", "Sara", "Nancy", "Jane"], &["Guy", "Davis", "Tony", "Jason", "Brandon"]),
    ("en-GB", &["Sonia", "Libby"], &["Ryan", "Thomas"]),
    ("en-AU", &["Natasha"], &["William"]),
    ("en-IN", &["Neerja"], &["Prabhat"]),
    ("de-DE", &["Katja", "Amala"], &["Conrad", "Killian"]),
    ("fr-FR", &["Denise", "Eloise"], &["Henri"]),
    ("es-ES", &["Elvira"], &["Alvaro"]),
    ("es-MX", &["Dalia"], &["Jorge"]),
    ("it-IT", &["Elsa", "Isabella"], &["Diego"]),
    ("pt-BR", &["Francisca"], &["Antonio"]),
    ("pt-PT", &["Raquel"], &["Duarte"]),
    ("nl-NL", &["Colette", "Fenna"], &["Maarten"]),
    ("pl-PL", &["Zofia", "Agnieszka"], &["Marek"]),
    ("ru-RU", &["Svetlana"], &["Dmitry"]),
    ("tr-TR", &["Emel"], &["Ahmet"]),
    ("sv-SE", &["Sofie"], &["Mattias"]),
    ("da-DK", &["Christel"], &["Jeppe"]),
    ("nb-NO", &["Pernille"], &["Finn"]),
    ("fi-FI", &["Selma"], &["Harri"]),
    ("cs-CZ", &["Vlasta"], &["Antonin"]),
    ("ja-JP", &["Nanami"], &["Keita"]),
    ("ko-KR", &["SunHi"], &["InJoon"]),
    ("zh-CN", &["Xiaoxiao"], &["Yunxi"]),
    ("hi-IN", &["Swara"], &["Madhur"]),
    ("ar-SA", &["Zariyah"], &["Hamed"]),
];

/// A name of Azure's (`de-DE-KatjaNeural`) stands for itself; others for a voice of their language and gender.
pub(super) fn cast(name: &str) -> Cast {
    if let Some(language) = voices::tag(name).filter(|_| name.ends_with("Neural")) {
        return Cast { voice: name.to_owned(), language };
    }
    let (language, voice) = of_table(VOICES, name);
    Cast { voice: format!("{language}-{voice}Neural"), language: language.to_owned() }
}

/// The request for a text.
pub(super) fn order(config: &Azure, text: &str, cast: &Cast) -> Result<(Order, Form), SpeechError> {
    let base = match config.base_url.as_str() {
        "" => format!("https://{}.tts.speech.microsoft.com", config.region),
        base => base.to_owned(),
    };
    let ssml = format!(
        "<speak version=\"1.0\" xml:lang=\"{}\"><voice name=\"{}\">{}</voice></speak>",
        escaped(&cast.language),
        escaped(&cast.voice),
        escaped(text)
    );
    let order = Order {
        url: joined(&base, "cognitiveservices/v1"),
        headers: vec![
            ("content-type", "application/ssml+xml".to_owned()),
            ("x-microsoft-outputformat", "raw-8khz-16bit-mono-pcm".to_owned()),
            ("ocp-apim-subscription-key", config.api_key.0.clone()),
        ],
        body: ssml.into(),
    };
    Ok((order, Form::Pcm(RATE)))
}

/// Text as XML holds it (XML 1.0 §2.4): markup in it is spoken, not obeyed. Characters that XML cannot hold are left
/// out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn the_request_is_what_azure_documents() {
        let config = Azure { region: "westeurope".into(), api_key: Secret("k".into()), ..Azure::default() };
        let (order, form) = order(&config, "a < b & 'c'", &cast("alloy")).unwrap();
        assert_eq!(order.url, "https://westeurope.tts.speech.microsoft.com/cognitiveservices/v1");
        assert_eq!(form, Form::Pcm(8000));
        assert!(order.headers.contains(&("ocp-apim-subscription-key", "k".to_owned())));
        assert!(order.headers.contains(&("x-microsoft-outputformat", "raw-8khz-16bit-mono-pcm".to_owned())));
        assert_eq!(
            std::str::from_utf8(&order.body).unwrap(),
            "<speak version=\"1.0\" xml:lang=\"en-US\"><voice name=\"en-US-JennyNeural\">\
             a &lt; b &amp; &apos;c&apos;</voice></speak>"
        );
    }

    #[test]
    fn names_find_a_voice_of_their_language() {
        for (name, voice) in [
            ("fr-FR-DeniseNeural", "fr-FR-DeniseNeural"),
            ("de-DE-Neural2-C", "de-DE-KatjaNeural"),
            ("de-AT-Wavenet-A", "de-DE-ConradNeural"),
            ("en-US-Neural2-D", "en-US-DavisNeural"),
            ("xx-YY-Standard-A", "en-US-GuyNeural"),
        ] {
            assert_eq!(cast(name).voice, voice, "{name}");
        }
        // A name may hold anything, and the document stays a document.
        assert!(!escaped(&cast("en-US-\"><x>Neural").voice).contains(['<', '"']));
    }
}

//! Amazon Polly, `POST /v1/speech`, signed by Signature Version 4; streamed as headerless PCM of 8 kHz.

use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::reader::Form;
use super::remote::{Cast, Pair, of_table};
use super::{RATE, SpeechError};
use crate::config::speech::Polly;
use crate::model::Timestamp;
use crate::provider::{Order, joined};

/// Longest text, characters.
const TEXT_MAX: usize = 3000;

/// Voices of each language; the first language is for names of none that is here.
const VOICES: &[Pair] = &[
    ("en-US", &["Joanna", "Kendra", "Kimberly", "Salli", "Ruth"], &["Matthew", "Joey", "Stephen", "Gregory"]),
    ("en-GB", &["Amy", "Emma"], &["Brian", "Arthur"]),
    ("en-AU", &["Olivia"], &["Olivia"]),
    ("en-IN", &["Kajal"], &["Kajal"]),
    ("de-DE", &["Vicki"], &["Daniel"]),
    ("fr-FR", &["Lea"], &["Remi"]),
    ("es-ES", &["Lucia"], &["Sergio"]),
    ("es-MX", &["Mia"], &["Andres"]),
    ("it-IT", &["Bianca"], &["Adriano"]),
    ("pt-BR", &["Camila", "Vitoria"], &["Thiago"]),
    ("nl-NL", &["Laura"], &["Laura"]),
    ("pl-PL", &["Ola"], &["Ola"]),
    ("sv-SE", &["Elin"], &["Elin"]),
    ("da-DK", &["Sofie"], &["Sofie"]),
    ("nb-NO", &["Ida"], &["Ida"]),
    ("fi-FI", &["Suvi"], &["Suvi"]),
    ("tr-TR", &["Burcu"], &["Burcu"]),
    ("ja-JP", &["Kazuha", "Tomoko"], &["Takumi"]),
    ("ko-KR", &["Seoyeon"], &["Seoyeon"]),
    ("cmn-CN", &["Zhiyu"], &["Zhiyu"]),
    ("hi-IN", &["Kajal"], &["Kajal"]),
    ("ar-AE", &["Hala"], &["Zayd"]),
];

/// Whether this is one of Polly's names.
pub(super) fn is_own(name: &str) -> bool {
    VOICES.iter().any(|(_, women, men)| women.contains(&name) || men.contains(&name))
}

/// A name of Polly's stands for itself; others for a voice of their language and gender.
pub(super) fn cast(name: &str) -> Cast {
    if is_own(name) {
        return Cast { voice: name.to_owned(), language: String::new() };
    }
    let (language, voice) = of_table(VOICES, name);
    Cast { voice: voice.to_owned(), language: language.to_owned() }
}

/// The request for a text, signed for this moment.
pub(super) fn order(
    config: &Polly,
    text: &str,
    cast: &Cast,
    now: Timestamp,
) -> Result<(Order, Form), SpeechError> {
    if text.chars().count() > TEXT_MAX {
        return Err(SpeechError::TooLong);
    }
    let base = match config.base_url.as_str() {
        "" => format!("https://polly.{}.amazonaws.com", config.region),
        base => base.to_owned(),
    };
    let url = joined(&base, "v1/speech");
    let body = json!({
        "Engine": config.engine,
        "OutputFormat": "pcm",
        "SampleRate": RATE.to_string(),
        "Text": text,
        "TextType": "text",
        "VoiceId": cast.voice,
    })
    .to_string();
    let parsed = url::Url::parse(&url).map_err(|_| SpeechError::Failed("its address is none".to_owned()))?;
    let host = parsed.host_str().unwrap_or_default();
    let host = parsed.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let date = stamp(now);
    let kind = "application/json".to_owned();
    let signed = [("content-type", kind.as_str()), ("host", host.as_str()), ("x-amz-date", date.as_str())];
    let what = Signed {
        method: "POST",
        path: parsed.path(),
        headers: &signed,
        body: body.as_bytes(),
        region: &config.region,
        service: "polly",
    };
    let authorization = what.authorization(&config.access_key.0, &config.secret_key.0);
    let headers = vec![("content-type", kind), ("x-amz-date", date), ("authorization", authorization)];
    Ok((Order { url, headers, body: body.into() }, Form::Pcm(RATE)))
}

/// `20150830T123600Z`.
fn stamp(now: Timestamp) -> String {
    let iso = now.iso_ms();
    let seconds = iso.split('.').next().unwrap_or_default();
    let digits: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{digits}Z")
}

/// What is signed. Headers are in order of their names, which are lower case; one is `x-amz-date`.
struct Signed<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    region: &'a str,
    service: &'a str,
}

impl Signed<'_> {
    /// The value of the header `authorization`.
    fn authorization(&self, access_key: &str, secret_key: &str) -> String {
        let date = self.headers.iter().find(|(name, _)| *name == "x-amz-date").map_or("", |(_, date)| *date);
        let day = date.get(..8).unwrap_or_default();
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let body = hex(&Sha256::digest(self.body));
        let request = format!("{}\n{}\n\n{headers}\n{names}\n{body}", self.method, self.path);
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let request = hex(&Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request}");
        let mut key = keyed(format!("AWS4{secret_key}").as_bytes(), day);
        for part in [self.region, self.service, "aws4_request"] {
            key = keyed(&key, part);
        }
        let signature = hex(&keyed(&key, &text));
        format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
    }
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    /// `get-vanilla` and `post-vanilla` of Amazon's test suite for Signature Version 4.
    #[test]
    fn signatures_are_amazons() {
        for (method, signature) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let signed = Signed {
                method,
                path: "/",
                headers: &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")],
                body: b"",
                region: "us-east-1",
                service: "service",
            };
            let said = signed.authorization("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
            let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
            );
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn the_request_is_what_amazon_documents() {
        let config =
            Polly { access_key: Secret("AK".into()), secret_key: Secret("hush".into()), ..Polly::default() };
        let now = Timestamp::from_iso("2026-11-21T19:00:00Z").unwrap();
        let (order, form) = order(&config, "Hi", &cast("en-US-Neural2-A"), now).unwrap();
        assert_eq!(order.url, "https://polly.us-east-1.amazonaws.com/v1/speech");
        assert_eq!(form, Form::Pcm(8000));
        let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
        assert_eq!((&body["VoiceId"], &body["SampleRate"]), (&json!("Matthew"), &json!("8000")));
        let headers: Vec<String> =
            order.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert!(headers.contains(&"x-amz-date: 20261121T190000Z".to_owned()));
        assert!(headers.iter().any(|header| header.contains("SignedHeaders=content-type;host;x-amz-date")));
        assert!(!headers.iter().any(|header| header.contains("hush")));
        assert!(super::order(&config, &"x".repeat(3001), &cast("Joanna"), now).is_err());
    }

    #[test]
    fn names_find_a_voice_of_their_language() {
        for (name, voice) in
            [("Joanna", "Joanna"), ("de-DE-Neural2-C", "Vicki"), ("alloy", "Joanna"), ("ja-JP-x-B", "Takumi")]
        {
            assert_eq!(cast(name).voice, voice, "{name}");
        }
    }
}

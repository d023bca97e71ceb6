//! Each service's own request and answer, from end to end.

use base64::Engine as _;
use trunkline::config;
use trunkline::model::Secret;
use trunkline::speech::Speech;

use crate::server::{Server, answer};
use crate::speech::{purity, tone};

async fn said(config: &config::Speech, voice: &str) {
    let speech = Speech::new(config).unwrap();
    let clip = speech.say("Hello", voice).await.unwrap();
    assert!(purity(&clip.samples()[800..4000], 440.0) > 0.95, "{:?}", config.tts);
    let mut stream = speech.stream("Hello again", voice).await.unwrap();
    let mut samples = Vec::new();
    while let Some(piece) = stream.next().await {
        samples.extend_from_slice(piece.unwrap().samples());
    }
    assert_eq!(samples.len(), 8000, "{:?}", config.tts);
}

fn key() -> Secret {
    Secret("hush".into())
}

fn of(name: &str) -> config::Speech {
    config::Speech { tts: vec![name.to_owned()], ..config::Speech::default() }
}

#[tokio::test]
async fn google_answers_json_with_a_wav_file_in_it() {
    let server = Server::start(|_, _| {
        let data = tone(1000, 8000);
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(8000_u32.to_le_bytes());
        wav.extend(16_000_u32.to_le_bytes());
        wav.extend(b"\x02\0\x10\0data");
        wav.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        wav.extend(data);
        let body = base64::engine::general_purpose::STANDARD.encode(wav);
        answer(200, "application/json; charset=UTF-8", format!("{{\"audioContent\":\"{body}\"}}").as_bytes())
    })
    .await;
    let mut config = of("google");
    config.google = config::speech::Google { base_url: server.url(""), api_key: key() };
    said(&config, "en-US-Neural2-F").await;
    let request = &server.seen()[0];
    assert_eq!(request.path, "/v1/text:synthesize");
    assert!(request.head.contains("x-goog-api-key: hush\r\n"));
    assert_eq!(request.json()["voice"]["name"], "en-US-Neural2-F");
}

#[tokio::test]
async fn azure_answers_raw_sound() {
    let server = Server::start(|_, _| answer(200, "audio/basic", &tone(1000, 8000))).await;
    let mut config = of("azure");
    config.azure = config::speech::Azure { base_url: server.url("/"), region: String::new(), api_key: key() };
    said(&config, "alloy").await;
    let request = &server.seen()[0];
    assert_eq!(request.path, "/cognitiveservices/v1");
    assert!(request.head.contains("ocp-apim-subscription-key: hush\r\n"));
    assert!(request.head.contains("user-agent: trunkline/"));
}

#[tokio::test]
async fn elevenlabs_answers_raw_sound() {
    let server = Server::start(|_, _| answer(200, "audio/pcm", &tone(1000, 16_000))).await;
    let mut config = of("elevenlabs");
    config.elevenlabs.base_url = server.url("");
    config.elevenlabs.api_key = key();
    said(&config, "jennifer").await;
    let request = &server.seen()[0];
    assert_eq!(request.path, "/v1/text-to-speech/21m00tcm4tlvdq8ikwam/stream?output_format=pcm_16000");
    assert!(request.head.contains("xi-api-key: hush\r\n"));
}

#[tokio::test]
async fn polly_is_asked_with_a_signature() {
    let server = Server::start(|_, _| answer(200, "audio/pcm", &tone(1000, 8000))).await;
    let mut config = of("polly");
    config.polly.base_url = server.url("");
    config.polly.access_key = Secret("AK".into());
    config.polly.secret_key = key();
    said(&config, "Matthew").await;
    let request = &server.seen()[0];
    assert_eq!((request.path.as_str(), &request.json()["VoiceId"]), ("/v1/speech", &"Matthew".into()));
    assert!(request.head.contains("authorization: aws4-hmac-sha256 credential=ak/"));
    assert!(request.head.contains(&format!("host: {}\r\n", server.addr)));
    assert!(!request.head.contains("hush"));
}

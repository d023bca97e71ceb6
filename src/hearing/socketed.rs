//! Recognisers over a WebSocket: what each is told at the beginning and the end, how sound is sent to it, and what its
//! messages mean. Pure; the connection is `session`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use media::{Codec, Frame};
use serde_json::{Value, json};
use url::Url;

use super::{HearingEvent, Listening, told};
use crate::config::speech::{Deepgram, OpenAi};
use crate::provider::{Trouble, bearer};

/// Frames in one message: 100 ms, for some answer each message.
const BATCH: usize = 5;
/// Most hints that are passed on.
const HINTS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// OpenAI's realtime transcription.
    Realtime,
    /// Deepgram's `/v1/listen`.
    Deepgram,
    /// vosk-server.
    Vosk,
}

/// A recogniser over a WebSocket.
#[derive(Debug)]
pub(super) struct Socketed {
    kind: Kind,
    url: Url,
    model: String,
    headers: Vec<(&'static str, String)>,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// As text.
    Text(String),
    /// As bytes.
    Binary(Bytes),
}

/// One conversation with it.
#[derive(Debug)]
pub(super) struct Dialogue {
    kind: Kind,
    frames: Vec<Frame>,
    /// The parts of an utterance that are certain, and the item that they belong to.
    certain: String,
    item: String,
}

impl Socketed {
    /// OpenAI, or a server like it; `url` is the base with a WebSocket's scheme.
    pub(super) fn realtime(base: Url, config: &OpenAi) -> Self {
        let mut url = base;
        let path = format!("{}/realtime", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.query_pairs_mut().append_pair("intent", "transcription");
        let headers = bearer(&config.api_key.0).into_iter().collect();
        Self { kind: Kind::Realtime, url, model: config.realtime_model.clone(), headers }
    }

    /// Deepgram.
    pub(super) fn deepgram(url: Url, config: &Deepgram) -> Self {
        let headers = vec![("authorization", format!("Token {}", config.api_key.0))];
        Self { kind: Kind::Deepgram, url, model: config.model.clone(), headers }
    }

    /// A vosk-server.
    pub(super) fn vosk(url: Url) -> Self {
        Self { kind: Kind::Vosk, url, model: String::new(), headers: Vec::new() }
    }

    /// The configuration's word for it.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Realtime => "openai-realtime",
            Kind::Deepgram => "deepgram",
            Kind::Vosk => "vosk",
        }
    }

    /// What shows who asks.
    pub(super) fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// Where to connect.
    pub(super) fn address(&self, listening: &Listening) -> Url {
        let mut url = self.url.clone();
        if self.kind != Kind::Deepgram {
            return url;
        }
        let mut query = url.query_pairs_mut();
        for (name, value) in [
            ("encoding", "linear16"),
            ("sample_rate", "8000"),
            ("channels", "1"),
            ("model", &self.model),
            ("interim_results", "true"),
            ("smart_format", "true"),
            ("endpointing", "300"),
            ("utterance_end_ms", "1000"),
            ("vad_events", "true"),
        ] {
            query.append_pair(name, value);
        }
        if !listening.language.is_empty() {
            query.append_pair("language", &listening.language);
        }
        for hint in listening.hints.iter().take(HINTS_MAX) {
            query.append_pair("keyterm", hint);
        }
        drop(query);
        url
    }

    /// What is said first.
    pub(super) fn opening(&self, listening: &Listening) -> Option<Outgoing> {
        match self.kind {
            Kind::Deepgram => None,
            Kind::Vosk => {
                let mut config = json!({"sample_rate": media::RATE});
                if !listening.hints.is_empty() {
                    config["phrase_list"] = json!(listening.hints);
                }
                Some(Outgoing::Text(json!({"config": config}).to_string()))
            }
            Kind::Realtime => {
                let mut transcription = json!({"model": self.model});
                let language = listening.language.split('-').next().unwrap_or_default();
                if !language.is_empty() {
                    transcription["language"] = json!(language.to_ascii_lowercase());
                }
                if !listening.hints.is_empty() {
                    transcription["prompt"] = json!(listening.hints.join(", "));
                }
                let turns = json!({"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
                    "silence_duration_ms": 500});
                let input = json!({"format": {"type": "audio/pcmu"}, "transcription": transcription,
                    "turn_detection": turns});
                let session = json!({"type": "transcription", "audio": {"input": input}});
                let update = json!({"type": "session.update", "session": session});
                Some(Outgoing::Text(update.to_string()))
            }
        }
    }

    /// A new conversation.
    pub(super) fn dialogue(&self) -> Dialogue {
        Dialogue {
            kind: self.kind,
            frames: Vec::with_capacity(BATCH),
            certain: String::new(),
            item: String::new(),
        }
    }
}

impl Dialogue {
    /// Sound; a message when there is enough for one.
    pub(super) fn hear(&mut self, frame: &Frame) -> Option<Outgoing> {
        self.frames.push(*frame);
        if self.frames.len() < BATCH { None } else { self.flush() }
    }

    fn flush(&mut self) -> Option<Outgoing> {
        if self.frames.is_empty() {
            return None;
        }
        let samples: Vec<i16> = self.frames.drain(..).flatten().collect();
        if self.kind == Kind::Realtime {
            let mut bytes = vec![0; samples.len()];
            Codec::Pcmu.encode(&samples, &mut bytes);
            let append = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(bytes)});
            return Some(Outgoing::Text(append.to_string()));
        }
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Some(Outgoing::Binary(bytes.into()))
    }

    /// What keeps a connection alive on which no sound flows.
    pub(super) fn keepalive(&self) -> Option<Outgoing> {
        (self.kind == Kind::Deepgram).then(|| Outgoing::Text("{\"type\":\"KeepAlive\"}".to_owned()))
    }

    /// What is said last: the rest of the sound, and that it is the end.
    pub(super) fn closing(&mut self) -> Vec<Outgoing> {
        let end = match self.kind {
            Kind::Realtime => "{\"type\":\"input_audio_buffer.commit\"}",
            Kind::Deepgram => "{\"type\":\"CloseStream\"}",
            // The server compares the text, blank included.
            Kind::Vosk => "{\"eof\" : 1}",
        };
        let rest = self.flush();
        rest.into_iter().chain([Outgoing::Text(end.to_owned())]).collect()
    }

    /// Whether nothing more comes after this, once it was said that it is the end. Others close the connection.
    pub(super) fn is_last(&self, event: Option<&HearingEvent>) -> bool {
        self.kind == Kind::Realtime && matches!(event, Some(HearingEvent::Final { .. }))
    }

    /// What a message means.
    ///
    /// # Errors
    /// [`Trouble::Answer`] for what it cannot mean, and for an error that it tells.
    pub(super) fn read(&mut self, text: &str) -> Result<Option<HearingEvent>, Trouble> {
        let message: Value = serde_json::from_str(text).map_err(|_| Trouble::Answer("no JSON"))?;
        match self.kind {
            Kind::Realtime => self.realtime(&message),
            Kind::Deepgram => self.deepgram(&message),
            Kind::Vosk => Ok(vosk(&message)),
        }
    }

    fn realtime(&mut self, message: &Value) -> Result<Option<HearingEvent>, Trouble> {
        let field = |name: &str| message[name].as_str().unwrap_or_default();
        match field("type") {
            "conversation.item.input_audio_transcription.delta" => {
                if self.item != field("item_id") {
                    self.item = field("item_id").to_owned();
                    self.certain.clear();
                }
                self.add(field("delta"), "");
                Ok(told(&self.certain).map(|text| HearingEvent::Partial { text }))
            }
            "conversation.item.input_audio_transcription.completed" => {
                self.certain.clear();
                Ok(told(field("transcript")).map(|text| HearingEvent::Final { text }))
            }
            "error" => match message["error"]["code"].as_str() {
                // The last word was said before the end was.
                Some("input_audio_buffer_commit_empty") => Ok(None),
                _ => Err(Trouble::Answer("an error")),
            },
            _ => Ok(None),
        }
    }

    fn deepgram(&mut self, message: &Value) -> Result<Option<HearingEvent>, Trouble> {
        match message["type"].as_str().unwrap_or_default() {
            "Results" => {
                let text = message["channel"]["alternatives"][0]["transcript"].as_str().unwrap_or_default();
                if message["is_final"] != true {
                    let whole = format!("{} {text}", self.certain);
                    let partial = told(&whole).filter(|_| !text.is_empty());
                    return Ok(partial.map(|text| HearingEvent::Partial { text }));
                }
                self.add(text, " ");
                let ended = message["speech_final"] == true || message["from_finalize"] == true;
                Ok(if ended {
                    self.end()
                } else {
                    told(&self.certain).map(|text| HearingEvent::Partial { text })
                })
            }
            // Metadata comes when the stream is closed.
            "UtteranceEnd" | "Metadata" => Ok(self.end()),
            "Error" => Err(Trouble::Answer("an error")),
            _ => Ok(None),
        }
    }

    fn add(&mut self, text: &str, between: &str) {
        if !self.certain.is_empty() && !text.is_empty() {
            self.certain.push_str(between);
        }
        // What is told is bounded; what is kept must be, too.
        if self.certain.len() < super::TEXT_MAX {
            self.certain.push_str(text);
        }
    }

    fn end(&mut self) -> Option<HearingEvent> {
        told(&std::mem::take(&mut self.certain)).map(|text| HearingEvent::Final { text })
    }
}

fn vosk(message: &Value) -> Option<HearingEvent> {
    if let Some(text) = message["text"].as_str() {
        return told(text).map(|text| HearingEvent::Final { text });
    }
    // With alternatives asked for, the first is the best.
    if let Some(text) = message["alternatives"][0]["text"].as_str() {
        return told(text).map(|text| HearingEvent::Final { text });
    }
    told(message["partial"].as_str().unwrap_or_default()).map(|text| HearingEvent::Partial { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn partial(text: &str) -> Option<HearingEvent> {
        Some(HearingEvent::Partial { text: text.into() })
    }

    fn last(text: &str) -> Option<HearingEvent> {
        Some(HearingEvent::Final { text: text.into() })
    }

    fn listening() -> Listening {
        Listening { language: "de-DE".into(), hints: vec!["Köln".into()] }
    }

    #[test]
    fn vosk_is_spoken() {
        let vosk = Socketed::vosk("ws://h:2700".parse().unwrap());
        let Some(Outgoing::Text(text)) = vosk.opening(&listening()) else { panic!("no opening") };
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config, json!({"config": {"sample_rate": 8000, "phrase_list": ["Köln"]}}));
        let mut dialogue = vosk.dialogue();
        for _ in 1..BATCH {
            assert_eq!(dialogue.hear(&[1; 160]), None);
        }
        assert!(matches!(dialogue.hear(&[1; 160]), Some(Outgoing::Binary(bytes)) if bytes.len() == 1600));
        dialogue.hear(&[1; 160]);
        let closing = dialogue.closing();
        assert!(matches!(&closing[0], Outgoing::Binary(bytes) if bytes.len() == 320));
        assert_eq!(closing[1], Outgoing::Text("{\"eof\" : 1}".into()));
        assert_eq!(dialogue.read("{\"partial\" : \"hel\"}"), Ok(partial("hel")));
        assert_eq!(dialogue.read("{\"partial\" : \"\"}"), Ok(None));
        assert_eq!(dialogue.read("{\"text\" : \"hello\", \"result\": []}"), Ok(last("hello")));
        assert_eq!(dialogue.read("{\"text\" : \"\"}"), Ok(None));
        assert!(dialogue.read("hello").is_err());
    }

    #[test]
    fn deepgram_is_spoken() {
        let config = Deepgram { api_key: Secret("k".into()), ..Deepgram::default() };
        let deepgram = Socketed::deepgram(config.url.parse().unwrap(), &config);
        assert_eq!(deepgram.headers(), [("authorization", "Token k".to_owned())]);
        let url = deepgram.address(&listening());
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (name, value) in
            [("encoding", "linear16"), ("sample_rate", "8000"), ("language", "de-DE"), ("keyterm", "Köln")]
        {
            assert!(query.contains(&(name.into(), value.into())), "{name}");
        }
        let mut dialogue = deepgram.dialogue();
        let result = |text: &str, is_final: bool, speech_final: bool| {
            let channel = json!({"alternatives": [{"transcript": text}]});
            json!({"type": "Results", "channel": channel, "is_final": is_final, "speech_final": speech_final})
                .to_string()
        };
        assert_eq!(dialogue.read(&result("I", false, false)), Ok(partial("I")));
        assert_eq!(dialogue.read(&result("I want", true, false)), Ok(partial("I want")));
        assert_eq!(dialogue.read(&result("two", false, false)), Ok(partial("I want two")));
        assert_eq!(dialogue.read(&result("two tickets", true, true)), Ok(last("I want two tickets")));
        assert_eq!(dialogue.read(&result("", true, true)), Ok(None));
        assert_eq!(dialogue.read(&result("bye", true, false)), Ok(partial("bye")));
        assert_eq!(dialogue.read("{\"type\":\"UtteranceEnd\"}"), Ok(last("bye")));
        assert_eq!(dialogue.read("{\"type\":\"SpeechStarted\"}"), Ok(None));
        assert!(dialogue.keepalive().is_some());
    }

    #[test]
    fn openai_realtime_is_spoken() {
        let config = OpenAi { api_key: Secret("k".into()), ..OpenAi::default() };
        let realtime = Socketed::realtime("wss://h/v1".parse().unwrap(), &config);
        assert_eq!(realtime.address(&listening()).as_str(), "wss://h/v1/realtime?intent=transcription");
        let Some(Outgoing::Text(text)) = realtime.opening(&listening()) else { panic!("no opening") };
        let update: Value = serde_json::from_str(&text).unwrap();
        let input = &update["session"]["audio"]["input"];
        assert_eq!(input["format"]["type"], "audio/pcmu");
        assert_eq!(input["transcription"]["language"], "de");
        let mut dialogue = realtime.dialogue();
        let sent = (0..BATCH).find_map(|_| dialogue.hear(&[0; 160]));
        let Some(Outgoing::Text(text)) = sent else { panic!("nothing sent") };
        let append: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(STANDARD.decode(append["audio"].as_str().unwrap()).unwrap(), [0xff; 800]);
        let event = |kind: &str, name: &str, text: &str| {
            let kind = format!("conversation.item.input_audio_transcription.{kind}");
            json!({"type": kind, "item_id": "i1", name: text}).to_string()
        };
        assert_eq!(dialogue.read(&event("delta", "delta", "Hel")), Ok(partial("Hel")));
        assert_eq!(dialogue.read(&event("delta", "delta", "lo")), Ok(partial("Hello")));
        assert_eq!(dialogue.read(&event("completed", "transcript", "Hello.")), Ok(last("Hello.")));
        assert_eq!(dialogue.read("{\"type\":\"session.created\"}"), Ok(None));
        let empty = "{\"type\":\"error\",\"error\":{\"code\":\"input_audio_buffer_commit_empty\"}}";
        assert_eq!(dialogue.read(empty), Ok(None));
        assert!(dialogue.read("{\"type\":\"error\",\"error\":{\"code\":\"invalid\"}}").is_err());
    }
}

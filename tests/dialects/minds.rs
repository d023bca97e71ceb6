//! A recogniser, a language model and a voice behind one address, in the wire formats of the real ones and as slow as
//! they are. What is understood and said is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::services::{self, Request, Step};

/// How long they take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    /// From an utterance to its text.
    pub(crate) hearing: Duration,
    /// From a question to the first word, and from each word to the next.
    pub(crate) first_word: Duration,
    pub(crate) word: Duration,
    /// From a clause to its first sound.
    pub(crate) voice: Duration,
}

/// What services on the network take.
pub(crate) const REAL: Delays = Delays {
    hearing: Duration::from_millis(150),
    first_word: Duration::from_millis(200),
    word: Duration::from_millis(20),
    voice: Duration::from_millis(120),
};

/// What the model says next.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// A text, word by word.
    Text(String),
    /// It calls a function with these arguments.
    Call(&'static str, Value),
    /// A text, and then a function.
    Both(String, &'static str),
}

/// What the customer's function answers.
pub(crate) const BOOKED: &str = r#"{"booked":true}"#;
/// What is said of every conversation.
pub(crate) const SUMMARY: &str = "A table was booked.";

/// Sound of a clause: 60 ms a character, at a pitch of the test's choice.
fn sound(text: &str, hertz: f64) -> Vec<u8> {
    let samples = text.chars().count() * 24_000 * 6 / 100;
    let sample = |n: usize| {
        let at = n as f64 / 24_000.0 * hertz * std::f64::consts::TAU;
        ((at.sin() * 9000.0) as i16).to_le_bytes()
    };
    (0..samples).flat_map(sample).collect()
}

fn delta(delta: &Value) -> Step {
    let event = json!({ "choices": [{ "index": 0, "delta": delta }] });
    Step::Write(format!("data: {event}\n\n").into_bytes())
}

fn words(text: &str, delays: Delays) -> Vec<Step> {
    let word = |word: &str| [delta(&json!({ "content": word })), Step::Pause(delays.word)];
    text.split_inclusive(' ').flat_map(word).collect()
}

fn call(name: &str, arguments: &Value) -> Step {
    let function = json!({ "name": name, "arguments": arguments.to_string() });
    delta(&json!({ "tool_calls": [{ "index": 0, "id": format!("call_{name}"), "type": "function",
                                    "function": function }] }))
}

fn answer(says: Says, delays: Delays) -> Vec<Step> {
    let mut steps = vec![services::head(200, "text/event-stream"), Step::Pause(delays.first_word)];
    match says {
        Says::Text(text) => steps.extend(words(&text, delays)),
        Says::Call(name, arguments) => steps.push(call(name, &arguments)),
        Says::Both(text, name) => {
            steps.extend(words(&text, delays));
            steps.push(call(name, &json!({})));
        }
    }
    steps.push(Step::Write(b"data: [DONE]\n\n".to_vec()));
    steps
}

/// Starts them. The recogniser understands `heard` of the nth utterance, the model says `says` to the nth question,
/// which is the answer to so many things that the caller has said, and a text has the pitch that `hertz` gives it. `/tool`
/// is a customer's function.
pub(crate) async fn start(
    delays: Delays,
    heard: impl Fn(usize) -> String + Send + Sync + 'static,
    says: impl Fn(usize, usize) -> Says + Send + Sync + 'static,
    hertz: impl Fn(&str) -> f64 + Send + Sync + 'static,
) -> services::Server {
    let (utterances, questions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    services::Server::start(move |_, request: &Request| {
        if request.path.ends_with("/audio/transcriptions") {
            let text = heard(utterances.fetch_add(1, Ordering::Relaxed));
            let body = json!({ "text": text }).to_string();
            let pause = Step::Pause(delays.hearing);
            return std::iter::once(pause)
                .chain(services::answer(200, "application/json", body.as_bytes()))
                .collect();
        }
        if request.path.ends_with("/audio/speech") {
            let text = request.json()["input"].as_str().unwrap_or_default().to_owned();
            let sound = sound(&text, hertz(&text));
            return vec![Step::Pause(delays.voice), services::head(200, "audio/pcm"), Step::Write(sound)];
        }
        if request.path.ends_with("/tool") {
            return services::answer(200, "application/json", BOOKED.as_bytes());
        }
        let asked = request.json();
        let system = asked["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        if system.contains("transcript of a telephone call") {
            let said = json!({ "summary": SUMMARY, "sentiment": "positive" }).to_string();
            return answer(Says::Text(said), delays);
        }
        let messages = asked["messages"].as_array().into_iter().flatten();
        let said = messages.filter(|message| message["role"] == "user").count();
        answer(says(questions.fetch_add(1, Ordering::Relaxed), said), delays)
    })
    .await
}

/// The settings of a server that asks them.
pub(crate) fn settings(base: &str) -> Vec<(&str, &str)> {
    vec![
        ("SPEECH__TTS", "openai"),
        ("SPEECH__STT", "openai"),
        ("SPEECH__OPENAI__BASE_URL", base),
        ("SPEECH__OPENAI__API_KEY", "test"),
        ("LLM__BASE_URL", base),
        ("LLM__MODEL", "test"),
    ]
}

/// The messages of the model's questions so far.
pub(crate) fn questions(minds: &services::Server) -> Vec<Vec<Value>> {
    let asked = minds.seen().into_iter().filter(|request| request.path.ends_with("/chat/completions"));
    asked.filter_map(|request| request.json()["messages"].as_array().cloned()).collect()
}

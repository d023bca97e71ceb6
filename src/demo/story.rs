//! The call itself, as a customer lives it: placed, answered, asked for a digit, spoken to, hung up, downloaded,
//! paid; each step done for real and checked before the next.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::Sound;
use super::receiver::Receiver;
use super::stage::Stage;
use super::timeline::{Lane, Timeline};
use super::{Failure, check};
use crate::clock;
use crate::model::Timestamp;

/// The person who presses 1 after a first prompt.
const NUMBER: &str = "14155550101";
const CREDITS: i64 = 10;
const QUESTION: &str = "Welcome to trunkline. Please press one to continue.";
const REPLY: &str = "Thank you. You pressed one. Goodbye.";
/// How long any single webhook is waited for.
const WEBHOOK_WAIT: Duration = Duration::from_secs(20);
/// How long the far end takes to write down a call that is over.
const RECORD_WAIT: Duration = Duration::from_secs(5);
/// How long one HTTP request may take.
const HTTP_WAIT: Duration = Duration::from_secs(15);
/// The least likeness of what we recorded and what the far end heard, from the first prompt on.
const LIKENESS_MIN: f32 = 0.7;
/// By how much the recording may be longer or shorter than the talk, seconds.
const LENGTH_TOLERANCE_S: f64 = 0.3;

/// What is told at the end.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) call_id: String,
    pub(super) amd: String,
    pub(super) digits: String,
    pub(super) filename: String,
    pub(super) recording: Vec<u8>,
    pub(super) seconds: f64,
    pub(super) level_dbm0: f32,
    pub(super) likeness: f32,
    pub(super) credits: (i64, i64),
    pub(super) webhooks: usize,
}

/// Runs the whole call.
pub(super) async fn tell(stage: &mut Stage, timeline: &mut Timeline) -> Result<Summary, Failure> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(HTTP_WAIT)
        .build()
        .map_err(|error| Failure(format!("no HTTP client: {error}")))?;
    let far_end = stage.start_far_end().await?;
    timeline.step(now(), Lane::FarEnd, format!("carrier up, SIP on {far_end}"), json!({ "sip": far_end }));
    stage.start_server(&http).await?;
    let server = stage.http;
    timeline.step(
        now(),
        Lane::Trunkline,
        format!("server up and healthy on http://{server}"),
        json!({ "http": server }),
    );
    let key = stage.create_key(CREDITS).await?;
    let receiver = Receiver::listen(&text(&key, "webhookSecret")?)
        .await
        .map_err(|error| Failure(format!("the webhook receiver: {error}")))?;
    let key_id = text(&key, "keyId")?;
    timeline.step(
        now(),
        Lane::You,
        format!("made API key {key_id}, {CREDITS} credits"),
        json!({ "keyId": key_id }),
    );
    let customer = Customer { http, base: format!("http://{server}"), key: text(&key, "key")? };
    let mut call = Call { customer, receiver, timeline, id: String::new(), bodies: Vec::new() };

    let before = call.place().await?;
    let amd = call.answered().await?;
    let asked_at = now();
    let digits = call.ask().await?;
    call.reply().await?;
    call.hang_up().await?;
    let after = call.credits().await?;
    let (filename, recording) = call.download().await?;
    let call_id = call.id.clone();
    let webhooks = call.bodies.len();
    let far = FarEnd::read(stage, timeline).await?;
    let heard = measure(&recording, &far, asked_at, timeline)?;
    let likeness = heard.likeness;
    check(after == before - 1, || format!("{before} credits became {after}: one answered call costs one"))?;
    Ok(Summary {
        call_id,
        amd,
        digits,
        filename,
        recording,
        seconds: heard.seconds,
        level_dbm0: heard.level_dbm0,
        likeness,
        credits: (before, after),
        webhooks,
    })
}

fn now() -> Timestamp {
    clock::now().wall
}

fn text(body: &Value, field: &str) -> Result<String, Failure> {
    let text = body.get(field).and_then(Value::as_str);
    text.map(ToOwned::to_owned).ok_or_else(|| Failure(format!("no text `{field}` in {body}")))
}

fn integer(body: &Value, field: &str) -> Result<i64, Failure> {
    body.get(field).and_then(Value::as_i64).ok_or_else(|| Failure(format!("no integer `{field}` in {body}")))
}

/// Whoever holds the key.
struct Customer {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Customer {
    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>, Failure> {
        let failed = |error: reqwest::Error| Failure(format!("{what}: {error}"));
        let answer = request.bearer_auth(&self.key).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        check(status == 200, || format!("{what} answered {status}: {}", String::from_utf8_lossy(&body)))?;
        Ok(body.to_vec())
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.send(self.http.get(format!("{}{path}", self.base)), &format!("GET {path}")).await
    }

    async fn get_json(&self, path: &str) -> Result<Value, Failure> {
        json_of(&self.get(path).await?, path)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let answer = json_of(&self.send(request, &format!("POST {path}")).await?, path)?;
        check(answer.get("success") == Some(&Value::Bool(true)), || {
            format!("POST {path} without success: {answer}")
        })?;
        Ok(answer)
    }
}

fn json_of(bytes: &[u8], path: &str) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|_| Failure(format!("{path} answered no JSON")))
}

/// The live call.
struct Call<'a> {
    customer: Customer,
    receiver: Receiver,
    timeline: &'a mut Timeline,
    id: String,
    bodies: Vec<Value>,
}

impl Call<'_> {
    async fn place(&mut self) -> Result<i64, Failure> {
        let body = json!({ "number": NUMBER, "webhookUrl": self.receiver.url, "useAmd": true });
        self.you(format!("POST /makecall: {NUMBER}, a person who presses 1; useAmd"), body.clone());
        let answer = self.customer.post("/makecall", &body).await?;
        self.id = text(&answer, "callId")?;
        let (trunk, credits) = (text(&answer, "trunk")?, integer(&answer, "credits")?);
        self.server(format!("call {} is ringing by {trunk}; {credits} credits", self.id), answer);
        Ok(credits)
    }

    async fn answered(&mut self) -> Result<String, Failure> {
        let body = self.webhook("call.answered").await?;
        let verdict = body.pointer("/amd/status").and_then(Value::as_str).unwrap_or_default().to_owned();
        check(verdict == "HUMAN", || format!("a person answered, but the verdict is {body}"))?;
        Ok(verdict)
    }

    async fn ask(&mut self) -> Result<String, Failure> {
        let body = json!({ "callId": self.id, "text": QUESTION, "numDigits": 1, "timeout": 12000 });
        self.you(format!("POST /gather: \"{QUESTION}\""), body.clone());
        let answer = self.customer.post("/gather", &body).await?;
        self.server(text(&answer, "message")?, answer);
        let complete = self.webhook("gather.complete").await?;
        let digits = text(&complete, "digits")?;
        check(digits == "1", || format!("the person pressed 1, but the digits are {digits:?}"))?;
        Ok(digits)
    }

    async fn reply(&mut self) -> Result<(), Failure> {
        let body = json!({ "callId": self.id, "text": REPLY });
        self.you(format!("POST /voice: \"{REPLY}\""), body.clone());
        let answer = self.customer.post("/voice", &body).await?;
        let playback = text(&answer, "playbackId")?;
        self.server(text(&answer, "message")?, answer);
        let played = self.webhook("tts.played").await?;
        let whole =
            played.get("completed") == Some(&Value::Bool(true)) && text(&played, "playbackId")? == playback;
        check(whole, || format!("the reply was not spoken to its end: {played}"))
    }

    async fn hang_up(&mut self) -> Result<(), Failure> {
        let body = json!({ "callId": self.id });
        self.you("POST /hangup".to_owned(), body.clone());
        let answer = self.customer.post("/hangup", &body).await?;
        self.server(text(&answer, "message")?, answer);
        let ended = self.webhook("call.ended").await?;
        check(text(&ended, "endReason")? == "api_hangup", || {
            format!("the call did not end by the API: {ended}")
        })?;
        self.webhook("recording.completed").await?;
        let order: Vec<Option<i64>> = self.bodies.iter().map(|body| body.get("sequence")?.as_i64()).collect();
        let right = order.iter().zip(1..).all(|(have, want)| *have == Some(want));
        check(right, || format!("the webhooks' sequence is not 1, 2, 3, …: {order:?}"))
    }

    async fn credits(&mut self) -> Result<i64, Failure> {
        let me = self.customer.get_json("/api/me").await?;
        let credits = me.pointer("/apiKey/credits").and_then(Value::as_i64);
        let credits = credits.ok_or_else(|| Failure(format!("no credits in {me}")))?;
        self.server(format!("GET /api/me: {credits} credits left"), me);
        Ok(credits)
    }

    async fn download(&mut self) -> Result<(String, Vec<u8>), Failure> {
        let about = self.customer.get_json(&format!("/recordings/{}", self.id)).await?;
        let filename = text(&about, "filename")?;
        let plain = filename.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        check(plain, || format!("{filename:?} is no plain file name"))?;
        let recording = self.customer.get(&format!("/recordings/{}/download", self.id)).await?;
        self.server(format!("recording {filename}, {} bytes", recording.len()), about);
        Ok((filename, recording))
    }

    /// Waits for an event, noting all that come before it; one that has come already is taken at once.
    async fn webhook(&mut self, event: &str) -> Result<Value, Failure> {
        let named = |body: &&Value| body.get("event").and_then(Value::as_str) == Some(event);
        if let Some(body) = self.bodies.iter().find(named) {
            return Ok(body.clone());
        }
        loop {
            let next = tokio::time::timeout(WEBHOOK_WAIT, self.receiver.next()).await;
            let Ok(Some(delivery)) = next else {
                return Err(Failure(format!("no {event} within {} s", WEBHOOK_WAIT.as_secs())));
            };
            let name = text(&delivery.body, "event")?;
            check(delivery.genuine, || format!("the signature of {name} is wrong"))?;
            check(text(&delivery.body, "callId")? == self.id, || format!("{name} is of another call"))?;
            let words = webhook_words(&name, &delivery.body);
            self.timeline.step(delivery.at, Lane::Webhook, words, delivery.body.clone());
            self.bodies.push(delivery.body.clone());
            if name == event {
                return Ok(delivery.body);
            }
            check(name != "call.ended", || format!("the call ended before {event}: {}", delivery.body))?;
        }
    }

    fn you(&mut self, words: String, body: Value) {
        self.timeline.step(now(), Lane::You, words, body);
    }

    fn server(&mut self, words: String, body: Value) {
        self.timeline.step(now(), Lane::Trunkline, words, body);
    }
}

/// The name of an event and the fact in it that a reader wants.
fn webhook_words(name: &str, body: &Value) -> String {
    let fact = |pointer: &str| match body.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    match name {
        "call.initiated" => format!("{name} by {}", fact("/trunk")),
        "call.answered" => {
            format!(
                "{name} by a {} ({}, confidence {})",
                fact("/amd/status"),
                fact("/amd/cause"),
                fact("/amd/confidence")
            )
        }
        "recording.started" => format!("{name}: {}", fact("/recording/filename")),
        "dtmf.received" => format!("{name}: {}", fact("/digit")),
        "gather.started" => format!("{name}: {} digit wanted", fact("/expectedDigits")),
        "gather.progress" | "gather.complete" => format!("{name}: {}", fact("/digits")),
        "call.ended" => format!("{name}: {} after {} s", fact("/endReason"), fact("/callDuration")),
        "recording.completed" => format!("{name}: {} bytes", fact("/size")),
        _ => name.to_owned(),
    }
}

/// What the far end wrote down.
struct FarEnd {
    answered_at: Timestamp,
    talk_s: f64,
    heard: Sound,
}

impl FarEnd {
    /// Waits for the line of the call, which is written when its WAV is closed, and puts its steps on the timeline.
    async fn read(stage: &Stage, timeline: &mut Timeline) -> Result<Self, Failure> {
        let path = stage.far_end_folder().join("calls.jsonl");
        let pause = Duration::from_millis(50);
        let written = async {
            loop {
                let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
                if let Some((line, _)) = text.split_once('\n') {
                    return serde_json::from_str::<Value>(line);
                }
                tokio::time::sleep(pause).await;
            }
        };
        let line = tokio::time::timeout(RECORD_WAIT, written)
            .await
            .map_err(|_| Failure("the far end wrote no line of the call".into()))?
            .map_err(|error| Failure(format!("the far end's line is no JSON: {error}")))?;
        let at = |field: &str| -> Result<Timestamp, Failure> {
            let time: jiff::Timestamp = text(&line, field)?
                .parse()
                .map_err(|_| Failure(format!("`{field}` is no time in {line}")))?;
            Ok(Timestamp(time.as_millisecond()))
        };
        let (answered_at, ended_at) = (at("answeredAt")?, at("endedAt")?);
        let to = text(&line, "to")?;
        timeline.step(at("invitedAt")?, Lane::FarEnd, format!("INVITE received for {to}"), Value::Null);
        timeline.step(at("ringingAt")?, Lane::FarEnd, "180 Ringing", Value::Null);
        timeline.step(
            answered_at,
            Lane::FarEnd,
            "200 OK: the person picks up and says \"Hello?\"",
            Value::Null,
        );
        timeline.step(ended_at, Lane::FarEnd, "BYE received", line.clone());
        check(text(&line, "endedBy")? == "them", || format!("the far end was not hung up by us: {line}"))?;
        let (received, sent) = (integer(&line, "packetsIn")?, integer(&line, "packetsOut")?);
        check(received > 0 && sent > 0, || format!("{received} RTP packets received, {sent} sent"))?;
        let wav = text(&line, "wav")?;
        let bytes = tokio::fs::read(&wav).await.map_err(|error| Failure(format!("{wav}: {error}")))?;
        let heard =
            Sound::read(&bytes).map_err(|wrong| Failure(format!("what the far end heard: {wrong}")))?;
        Ok(Self { answered_at, talk_s: (ended_at.0 - answered_at.0) as f64 / 1000.0, heard })
    }
}

/// What the two recordings show.
struct Measured {
    seconds: f64,
    level_dbm0: f32,
    likeness: f32,
}

/// Before the first prompt only the person can have spoken; from then on the words are ours.
fn measure(
    bytes: &[u8],
    far: &FarEnd,
    asked_at: Timestamp,
    timeline: &mut Timeline,
) -> Result<Measured, Failure> {
    let ours = Sound::read(bytes).map_err(|wrong| Failure(format!("the recording: {wrong}")))?;
    let seconds = ours.seconds();
    check((seconds - far.talk_s).abs() <= LENGTH_TOLERANCE_S, || {
        format!("the recording has {seconds:.2} s, the talk had {:.2} s", far.talk_s)
    })?;
    let level_dbm0 = ours.active_level_dbm0().ok_or_else(|| Failure("the recording is silent".into()))?;
    let asked = asked_at.0 - far.answered_at.0;
    let person = ours.speech_ms(0, asked);
    check(person >= 100, || {
        format!("the person's \"Hello?\" is not on the recording ({person} ms of speech)")
    })?;
    let early = far.heard.speech_ms(0, asked);
    check(early == 0, || format!("the far end heard {early} ms of sound before anything was said"))?;
    let (ours_ms, theirs_ms) = (ours.speech_ms(asked, i64::MAX), far.heard.speech_ms(asked, i64::MAX));
    check(ours_ms >= 1500, || format!("only {ours_ms} ms of our words are on the recording"))?;
    check(theirs_ms >= 1500, || format!("the far end heard only {theirs_ms} ms of our words"))?;
    let likeness = ours.likeness(&far.heard, asked);
    check(likeness >= LIKENESS_MIN, || {
        format!("what was recorded is not what was heard (likeness {likeness:.2})")
    })?;
    let words = format!("measured: {person} ms of the person, {ours_ms} ms of our words, both sides there");
    let data = json!({
        "seconds": seconds, "levelDbm0": level_dbm0, "personMs": person, "wordsMs": ours_ms,
        "heardByFarEndMs": theirs_ms, "likeness": likeness,
    });
    timeline.step(now(), Lane::You, words, data);
    Ok(Measured { seconds, level_dbm0, likeness })
}

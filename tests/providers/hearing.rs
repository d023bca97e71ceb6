//! Recognition: utterances posted, sound streamed, connections made anew, and the next recogniser's turn.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use media::Frame;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use trunkline::config;
use trunkline::hearing::{Ears, Hearing, HearingError, HearingEvent, Listening, Words};
use trunkline::model::Secret;
use trunkline::provider::Trouble;

use crate::server::{Gate, Server, Step, answer, head};

fn config(stt: &[&str]) -> config::Speech {
    config::Speech { stt: stt.iter().map(|name| (*name).to_owned()).collect(), ..config::Speech::default() }
}

fn with_openai(stt: &[&str], server: &Server) -> config::Speech {
    let mut config = config(stt);
    config.openai.base_url = server.url("/v1");
    config
}

/// Loud or silent frames.
fn say(ears: &mut Ears, ms: usize, loud: bool) {
    let sample = |n: usize| if loud { (8000.0 * (n as f32 * 0.25).sin()) as i16 } else { 0 };
    let frame: Frame = std::array::from_fn(sample);
    for _ in 0..ms / 20 {
        assert!(ears.hear(&frame));
    }
}

/// A word of 0.8 s with silence around it.
fn say_word(ears: &mut Ears) {
    say(ears, 300, false);
    say(ears, 800, true);
    say(ears, 900, false);
}

async fn next(words: &mut Words) -> Option<HearingEvent> {
    tokio::time::timeout(Duration::from_secs(20), words.next()).await.unwrap()
}

fn last(text: &str) -> Option<HearingEvent> {
    Some(HearingEvent::Final { text: text.into() })
}

const STARTED: Option<HearingEvent> = Some(HearingEvent::SpeechStarted);

/// The heads of the requests that opened connections.
type Heads = Arc<Mutex<Vec<String>>>;

/// A WebSocket server; each connection is given to `talk` with its number.
async fn sockets<F, R>(talk: F) -> SocketAddr
where
    F: Fn(usize, WebSocketStream<TcpStream>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    sockets_with_heads(talk).await.0
}

async fn sockets_with_heads<F, R>(talk: F) -> (SocketAddr, Heads)
where
    F: Fn(usize, WebSocketStream<TcpStream>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Heads::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        let mut nth = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.peek(&mut head).await.unwrap_or(0);
            seen.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).to_lowercase());
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                tokio::spawn(talk(nth, socket));
                nth += 1;
            }
        }
    });
    (addr, heads)
}

/// A vosk-server: answers each message, and ends an utterance after half a second of silence. `words` are what it
/// understands, one after another; after `messages` it breaks the connection.
async fn vosk(mut socket: WebSocketStream<TcpStream>, words: &[&str], messages: usize) {
    let mut words = words.iter();
    let (mut loud, mut silent, mut count) = (0, 0, 0);
    while let Some(Ok(message)) = socket.next().await {
        let text = match message {
            Message::Text(text) if text.as_str() == "{\"eof\" : 1}" => {
                let last = if loud > 0 { words.next().copied() } else { None };
                let text = format!("{{\"text\" : \"{}\"}}", last.unwrap_or_default());
                let _ = socket.send(Message::text(text)).await;
                let _ = socket.close(None).await;
                return;
            }
            Message::Binary(bytes) => {
                count += 1;
                if count > messages {
                    return;
                }
                let voice = bytes.iter().any(|byte| *byte != 0);
                (loud, silent) = if voice { (loud + 1, 0) } else { (loud, silent + 1) };
                if loud > 0 && silent >= 5 {
                    loud = 0;
                    format!("{{\"text\" : \"{}\"}}", words.next().copied().unwrap_or_default())
                } else {
                    format!("{{\"partial\" : \"{}\"}}", if loud > 0 { "hm" } else { "" })
                }
            }
            _ => continue,
        };
        let _ = socket.send(Message::text(text)).await;
    }
}

/// The events but for partial ones.
async fn certain(words: &mut Words) -> Option<HearingEvent> {
    loop {
        match next(words).await {
            Some(HearingEvent::Partial { .. }) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn utterances_are_posted_one_by_one() {
    let server = Server::start(|nth, request| {
        assert_eq!(request.path, "/v1/audio/transcriptions");
        let text = ["Hello.", " ", "Good bye."][nth];
        answer(200, "application/json", format!("{{\"text\":\"{text}\"}}").as_bytes())
    })
    .await;
    let hearing = Hearing::new(&with_openai(&["openai"], &server)).unwrap();
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    say_word(&mut ears);
    assert_eq!((next(&mut words).await, next(&mut words).await), (STARTED, last("Hello.")));
    // What says nothing is not told.
    say_word(&mut ears);
    assert_eq!(next(&mut words).await, STARTED);
    // The call ends within a word.
    say(&mut ears, 1000, true);
    drop(ears);
    assert_eq!((next(&mut words).await, next(&mut words).await), (STARTED, last("Good bye.")));
    assert_eq!(next(&mut words).await, None);
    // 0.8 s of sound, up to 0.3 s before, 0.3 s after; two bytes a sample.
    let length = server.seen()[0].body.len();
    assert!((16_000..24_000).contains(&length), "{length}");
}

#[tokio::test]
async fn speech_is_noticed_while_the_service_still_works() {
    let gate = Gate::shut();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        let body = Step::Write(b"{\"text\":\"yes\"}".to_vec());
        vec![Step::Wait(held.clone()), head(200, "application/json"), body]
    })
    .await;
    let hearing = Hearing::new(&with_openai(&["openai"], &server)).unwrap();
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    say_word(&mut ears);
    assert_eq!(next(&mut words).await, STARTED);
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    say_word(&mut ears);
    assert_eq!(next(&mut words).await, STARTED);
    gate.open();
    assert_eq!((next(&mut words).await, next(&mut words).await), (last("yes"), last("yes")));
}

#[tokio::test]
async fn a_vosk_server_is_understood() {
    let addr = sockets(|_, socket| vosk(socket, &["one", "two"], usize::MAX)).await;
    let mut config = config(&["vosk"]);
    config.vosk.url = format!("ws://{addr}");
    let hearing = Hearing::new(&config).unwrap();
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    say_word(&mut ears);
    assert_eq!(next(&mut words).await, STARTED);
    assert_eq!(next(&mut words).await, Some(HearingEvent::Partial { text: "hm".into() }));
    assert_eq!(certain(&mut words).await, last("one"));
    say(&mut ears, 500, true);
    drop(ears);
    assert_eq!(certain(&mut words).await, STARTED);
    assert_eq!(certain(&mut words).await, last("two"));
    assert_eq!(next(&mut words).await, None);
}

#[tokio::test]
async fn deepgram_is_asked_with_its_key_and_flushed_at_the_end() {
    let (addr, heads) = sockets_with_heads(|_, mut socket| async move {
        let mut bytes = 0;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(sound) => bytes += sound.len(),
                Message::Text(text) if text.as_str() == "{\"type\":\"CloseStream\"}" => {
                    let text = format!(
                        "{{\"type\":\"Results\",\"is_final\":true,\"speech_final\":false,\
                         \"channel\":{{\"alternatives\":[{{\"transcript\":\"{bytes} bytes\"}}]}}}}"
                    );
                    let _ = socket.send(Message::text(text)).await;
                    let _ = socket.send(Message::text("{\"type\":\"Metadata\"}")).await;
                    let _ = socket.close(None).await;
                }
                _ => {}
            }
        }
    })
    .await;
    let mut config = config(&["deepgram"]);
    config.deepgram.url = format!("ws://{addr}/v1/listen");
    config.deepgram.api_key = Secret("hush".into());
    let listening = Listening { language: "en-US".into(), hints: Vec::new() };
    let (mut ears, mut words) = Hearing::new(&config).unwrap().listen(listening).unwrap();
    // 21 frames: the last of them is not a whole message.
    say(&mut ears, 420, false);
    drop(ears);
    assert_eq!(certain(&mut words).await, last("6720 bytes"));
    assert_eq!(next(&mut words).await, None);
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("get /v1/listen?encoding=linear16&sample_rate=8000&"), "{head}");
    assert!(head.contains("authorization: token hush\r\n") && head.contains("language=en-us"), "{head}");
}

#[tokio::test]
async fn openai_realtime_hears_the_last_word() {
    let (addr, heads) = sockets_with_heads(|_, mut socket| async move {
        let mut appended = 0;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let message: serde_json::Value = serde_json::from_str(text.as_str()).unwrap();
            let kind = message["type"].as_str().unwrap();
            appended += usize::from(kind == "input_audio_buffer.append");
            let said = format!("{appended} times");
            let events = match kind {
                "session.update" => vec![json!({"type": "session.updated"})],
                "input_audio_buffer.commit" => {
                    let kind = "conversation.item.input_audio_transcription";
                    vec![
                        json!({"type": format!("{kind}.delta"), "item_id": "a", "delta": "4"}),
                        json!({"type": format!("{kind}.completed"), "item_id": "a", "transcript": said}),
                    ]
                }
                _ => Vec::new(),
            };
            for event in events {
                let _ = socket.send(Message::text(event.to_string())).await;
            }
        }
    })
    .await;
    let mut config = config(&["openai-realtime"]);
    config.openai.base_url = format!("http://{addr}/v1");
    config.openai.api_key = Secret("hush".into());
    let (mut ears, mut words) = Hearing::new(&config).unwrap().listen(Listening::default()).unwrap();
    say(&mut ears, 400, false);
    drop(ears);
    assert_eq!(next(&mut words).await, Some(HearingEvent::Partial { text: "4".into() }));
    assert_eq!(next(&mut words).await, last("4 times"));
    // The server does not hang up; we do.
    assert_eq!(next(&mut words).await, None);
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("get /v1/realtime?intent=transcription "), "{head}");
    assert!(head.contains("authorization: bearer hush\r\n"), "{head}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew() {
    // The first breaks before it understood anything, the second holds.
    let second = Gate::shut();
    let told = second.clone();
    let addr = sockets(move |nth, socket| {
        let told = told.clone();
        async move {
            if nth > 0 {
                told.open();
            }
            vosk(socket, &["again"], if nth == 0 { 1 } else { usize::MAX }).await;
        }
    })
    .await;
    let mut config = config(&["vosk"]);
    config.vosk.url = format!("ws://{addr}");
    let hearing = Hearing::new(&config).unwrap();
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    say(&mut ears, 400, false);
    second.pass().await;
    say_word(&mut ears);
    assert_eq!(certain(&mut words).await, STARTED);
    assert_eq!(certain(&mut words).await, last("again"));
}

#[tokio::test]
async fn the_next_recogniser_hears_what_the_first_did_not_understand() {
    let server = Server::start(|_, _| answer(400, "application/json", b"{}")).await;
    let addr = sockets(|_, socket| vosk(socket, &["second"], usize::MAX)).await;
    let mut config = with_openai(&["openai", "vosk"], &server);
    config.vosk.url = format!("ws://{addr}");
    let hearing = Hearing::new(&config).unwrap();
    assert_eq!(hearing.providers(), ["openai", "vosk"]);
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    say_word(&mut ears);
    assert_eq!(certain(&mut words).await, STARTED);
    assert_eq!(certain(&mut words).await, last("second"));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn where_nobody_is_left_it_is_said_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let mut config = config(&["vosk"]);
    config.vosk.url = format!("ws://{addr}");
    let hearing = Hearing::new(&config).unwrap();
    let (mut ears, mut words) = hearing.listen(Listening::default()).unwrap();
    let error = HearingError::Service { name: "vosk", trouble: Trouble::Unreachable };
    assert_eq!(next(&mut words).await, Some(HearingEvent::Failed { error }));
    assert_eq!(next(&mut words).await, None);
    assert!(!ears.hear(&[0; 160]) && ears.is_over());
    assert_eq!(ears.lost(), 1);
    let none = Hearing::new(&self::config(&[])).unwrap();
    assert_eq!(none.listen(Listening::default()).err(), Some(HearingError::None));
}

#[tokio::test]
async fn a_session_that_nobody_reads_ends() {
    let (came, gone) = (Gate::shut(), Gate::shut());
    let told = (came.clone(), gone.clone());
    let addr = sockets(move |_, mut socket| {
        let told = told.clone();
        async move {
            told.0.open();
            while let Some(Ok(_)) = socket.next().await {}
            told.1.open();
        }
    })
    .await;
    let mut config = config(&["vosk"]);
    config.vosk.url = format!("ws://{addr}");
    let (mut ears, words) = Hearing::new(&config).unwrap().listen(Listening::default()).unwrap();
    say(&mut ears, 200, true);
    tokio::time::timeout(Duration::from_secs(10), came.pass()).await.unwrap();
    drop(words);
    tokio::time::timeout(Duration::from_secs(10), gone.pass()).await.unwrap();
}

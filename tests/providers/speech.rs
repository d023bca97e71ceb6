//! Voices that are services: what they stream is heard at once, and what they fail at is said by the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline::config;
use trunkline::speech::Speech;

use crate::server::{Gate, Server, Step, answer, head};

/// Half a second and more of a tone at 24 kHz, 16 bits.
pub(crate) fn tone(ms: usize, rate: usize) -> Vec<u8> {
    let sample = |n: usize| (9000.0 * (n as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin()) as i16;
    (0..rate * ms / 1000).flat_map(|n| sample(n).to_le_bytes()).collect()
}

/// How strong this tone is in a sound at 8 kHz, against all of it: near 1 for the tone alone.
pub(crate) fn purity(samples: &[i16], hz: f64) -> f64 {
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let (sin, cos) = (n as f64 * hz * std::f64::consts::TAU / 8000.0).sin_cos();
        re += f64::from(*sample) * cos;
        im += f64::from(*sample) * sin;
        all += f64::from(*sample).powi(2);
    }
    2.0 * (re * re + im * im) / (all * samples.len() as f64)
}

fn speech(server: &Server, tts: &[&str]) -> Speech {
    let openai = config::speech::OpenAi { base_url: server.url("/v1"), ..config::speech::OpenAi::default() };
    let tts = tts.iter().map(|name| (*name).to_owned()).collect();
    Speech::new(&config::Speech { tts, openai, ..config::Speech::default() }).unwrap()
}

#[tokio::test]
async fn a_text_is_said_by_the_service() {
    let server =
        Server::start(|_, _| vec![head(200, "audio/pcm"), Step::Pieces(tone(1000, 24_000), 997)]).await;
    let speech = speech(&server, &["openai"]);
    let clip = speech.say("Hello", "nova").await.unwrap();
    assert!((1000..1200).contains(&clip.duration_ms()), "{clip:?}");
    assert!(purity(&clip.samples()[800..8000], 440.0) > 0.95);
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/v1/audio/speech"));
    assert_eq!((&seen[0].json()["voice"], &seen[0].json()["input"]), (&"nova".into(), &"Hello".into()));
    // Remembered.
    assert!(Arc::ptr_eq(&clip, &speech.say("Hello", "nova").await.unwrap()));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_first_piece_is_there_before_the_last_is_made() {
    let gate = Gate::shut();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        let sound = tone(2000, 24_000);
        let (first, rest) = sound.split_at(24_001);
        let wait = Step::Wait(held.clone());
        vec![head(200, "audio/pcm"), Step::Write(first.to_vec()), wait, Step::Write(rest.to_vec())]
    })
    .await;
    let speech = speech(&server, &["openai"]);
    let mut stream = speech.stream("Hello", "nova").await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.duration_ms(), 100);
    gate.open();
    let mut samples = first.samples().to_vec();
    while let Some(piece) = stream.next().await {
        samples.extend_from_slice(piece.unwrap().samples());
    }
    assert_eq!(samples.len(), 16_000);
    assert!(purity(&samples[400..], 440.0) > 0.95);
}

#[tokio::test]
async fn a_stream_that_nobody_hears_ends_its_request() {
    let gone = Gate::shut();
    let told = gone.clone();
    let server = Server::start(move |_, _| {
        vec![head(200, "audio/pcm"), Step::Write(tone(500, 24_000)), Step::Gone(told.clone())]
    })
    .await;
    let stream = speech(&server, &["openai"]).stream("Hello", "nova").await.unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), gone.pass()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_after_what_it_gave() {
    let server = Server::start(|_, _| {
        let head = b"HTTP/1.1 200 X\r\ncontent-type: audio/pcm\r\ncontent-length: 1000000\r\n\r\n".to_vec();
        vec![Step::Write(head), Step::Write(tone(500, 24_000))]
    })
    .await;
    let mut stream = speech(&server, &["openai"]).stream("Hello", "nova").await.unwrap();
    let mut last = None;
    let mut heard = 0;
    while let Some(piece) = stream.next().await {
        heard += usize::from(piece.is_ok());
        last = Some(piece);
    }
    assert!(heard >= 1 && last.unwrap().is_err());
}

#[tokio::test]
async fn what_may_pass_is_tried_once_more() {
    for refusal in [429, 500, 503] {
        let server = Server::start(move |nth, _| match nth {
            0 => answer(refusal, "application/json", b"{}"),
            _ => answer(200, "audio/pcm", &tone(600, 24_000)),
        })
        .await;
        let clip = speech(&server, &["openai"]).say("Hello", "nova").await.unwrap();
        assert!(purity(&clip.samples()[800..4000], 440.0) > 0.95, "{refusal}");
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn what_will_not_pass_is_not_asked_again() {
    let pause = b"HTTP/1.1 429 X\r\nretry-after: 30\r\nconnection: close\r\n\r\n".to_vec();
    let refusals: [Vec<Step>; 5] = [
        answer(401, "application/json", b"{}"),
        answer(302, "text/plain", b""),
        vec![Step::Write(pause)],
        answer(200, "application/json", b"{\"error\":\"quota\"}"),
        answer(200, "audio/pcm", b"<html>"),
    ];
    for refusal in refusals {
        let steps = refusal.clone();
        let server = Server::start(move |_, _| steps.clone()).await;
        let speech = speech(&server, &["openai"]);
        // The built-in voice says it.
        let clip = speech.say("Hello there", "nova").await.unwrap();
        assert!(purity(clip.samples(), 440.0) < 0.5, "{refusal:?}");
        assert!(speech.stream("Hello you", "nova").await.unwrap().next().await.unwrap().is_ok());
        assert_eq!(server.seen().len(), 2, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_service_that_pauses_costs_its_share_of_the_time_only() {
    let gate = Gate::shut();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        vec![head(200, "audio/pcm"), Step::Wait(held.clone()), Step::Write(tone(700, 24_000))]
    })
    .await;
    let speech = speech(&server, &["openai"]);
    let begun = Instant::now();
    let spoken = speech.say("Hello there", "nova").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(3500), "{:?}", begun.elapsed());
    assert!(purity(spoken.samples(), 440.0) < 0.5);
    // What came too late is not lost: the next one who wants it waits for the same request.
    gate.open();
    let clip = speech.say("Hello there", "nova").await.unwrap();
    assert!(purity(&clip.samples()[800..4000], 440.0) > 0.95);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_service_that_fails_again_and_again_is_left_alone() {
    let server = Server::start(|_, _| answer(403, "text/plain", b"no")).await;
    let speech = speech(&server, &["openai"]);
    for text in ["one", "two", "three", "four", "five"] {
        speech.say(text, "nova").await.unwrap();
    }
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn many_who_want_one_text_make_one_request() {
    let gate = Gate::shut();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        vec![Step::Wait(held.clone()), head(200, "audio/pcm"), Step::Write(tone(600, 24_000))]
    })
    .await;
    let speech = speech(&server, &["openai"]);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let speech = speech.clone();
            tokio::spawn(async move { speech.say("Hello", "nova").await.unwrap() })
        })
        .collect();
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut clips = Vec::new();
    for task in tasks {
        clips.push(task.await.unwrap());
    }
    assert!(clips.iter().all(|clip| Arc::ptr_eq(clip, &clips[0])));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_no_silence() {
    let server = Server::start(|_, _| Vec::new()).await;
    let speech = speech(&server, &["openai"]);
    drop(server);
    assert!(speech.say("Hello there", "nova").await.unwrap().duration_ms() > 300);
}

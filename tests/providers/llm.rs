//! The language model: answers cut anywhere, refusals, pauses, and requests that are given up.

use std::time::Duration;

use serde_json::json;
use trunkline::config;
use trunkline::llm::{Ask, Finish, Llm, LlmError, Message, Piece, Reply};
use trunkline::model::Secret;
use trunkline::provider::{STALL_TIME, Trouble};
use trunkline::speech::Clauses;

use crate::server::{Gate, Server, Step, answer, head};

const EVENTS: &str = "text/event-stream; charset=utf-8";

fn llm(server: &Server) -> Llm {
    let config = config::Llm {
        base_url: server.url("/v1"),
        api_key: Secret("hush".into()),
        model: "m".into(),
        first_token_timeout_ms: 500,
        timeout_s: 1,
    };
    Llm::new(&config).unwrap().unwrap()
}

fn ask() -> Ask {
    Ask { messages: vec![Message::User("Hello".into())], ..Ask::default() }
}

fn event(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}))
}

async fn all(mut reply: Reply) -> (String, Result<Finish, LlmError>) {
    let mut text = String::new();
    loop {
        match reply.next().await {
            Some(Ok(Piece::Text(piece))) => text.push_str(&piece),
            Some(Ok(Piece::Done(finish))) => {
                assert_eq!(reply.next().await, None);
                return (text, Ok(finish));
            }
            Some(Err(error)) => {
                assert_eq!(reply.next().await, None);
                return (text, Err(error));
            }
            other => panic!("{other:?} after {text}"),
        }
    }
}

#[tokio::test]
async fn a_reply_may_be_cut_anywhere() {
    let words = ["Grüße", " 😀, ", "this is", " it."];
    let body: String = words.iter().map(|word| event(word)).collect();
    let body = format!(": open\n\n{body}data: [DONE]\n\n");
    for size in [1, 2, 3, 5, 64, 4096] {
        let body = body.clone();
        let server =
            Server::start(move |_, _| vec![head(200, EVENTS), Step::Pieces(body.clone().into(), size)]).await;
        let reply = llm(&server).ask(&ask()).await.unwrap();
        assert_eq!(all(reply).await, (words.concat(), Ok(Finish::Stop)), "{size}");
        let request = &server.seen()[0];
        assert_eq!(request.path, "/v1/chat/completions");
        assert!(request.head.contains("authorization: bearer hush\r\n"));
        assert_eq!((&request.json()["model"], &request.json()["stream"]), (&json!("m"), &json!(true)));
    }
}

#[tokio::test]
async fn the_first_clause_can_be_spoken_before_the_last_is_written() {
    let gate = Gate::shut();
    let held = gate.clone();
    let server = Server::start(move |_, _| {
        let first = event("Good morning. How");
        let rest = event(" are you?") + "data: [DONE]\n\n";
        let wait = Step::Wait(held.clone());
        vec![head(200, EVENTS), Step::Write(first.into()), wait, Step::Write(rest.into())]
    })
    .await;
    let mut reply = llm(&server).ask(&ask()).await.unwrap();
    let mut clauses = Clauses::new();
    let Some(Ok(Piece::Text(text))) = reply.next().await else { panic!("no text") };
    assert_eq!(clauses.push(&text), ["Good morning. "]);
    gate.open();
    let (rest, finish) = all(reply).await;
    assert!(clauses.push(&rest).is_empty());
    assert_eq!((clauses.finish().as_deref(), finish), (Some("How are you?"), Ok(Finish::Stop)));
}

#[tokio::test]
async fn a_reply_that_is_dropped_ends_its_request() {
    let gone = Gate::shut();
    let told = gone.clone();
    let server = Server::start(move |_, _| {
        vec![head(200, EVENTS), Step::Write(event("Well").into()), Step::Gone(told.clone())]
    })
    .await;
    let mut reply = llm(&server).ask(&ask()).await.unwrap();
    assert_eq!(reply.next().await, Some(Ok(Piece::Text("Well".into()))));
    drop(reply);
    tokio::time::timeout(Duration::from_secs(10), gone.pass()).await.unwrap();
}

#[tokio::test]
async fn words_that_do_not_come_are_not_waited_for() {
    let never = Gate::shut();
    let held = never.clone();
    // No head, a head without words, and words without an end.
    let server = Server::start(move |nth, _| {
        let wait = Step::Wait(held.clone());
        match nth {
            0 => vec![wait],
            1 => vec![head(200, EVENTS), Step::Write(b": wait\n\n".to_vec()), wait],
            _ => vec![head(200, EVENTS), Step::Write(event("Well,").into()), wait],
        }
    })
    .await;
    let llm = llm(&server);
    assert_eq!(llm.ask(&ask()).await.err(), Some(LlmError::NoFirstWord));
    let reply = llm.ask(&ask()).await.unwrap();
    assert_eq!(all(reply).await, (String::new(), Err(LlmError::NoFirstWord)));
    let reply = llm.ask(&ask()).await.unwrap();
    assert_eq!(all(reply).await, ("Well,".into(), Err(LlmError::NoEnd)));
}

#[tokio::test]
async fn a_first_word_may_take_longer_than_a_pause_within_an_answer() {
    let server = Server::start(move |_, _| {
        let late = event("Well.") + "data: [DONE]\n\n";
        let pause = Step::Pause(STALL_TIME + Duration::from_millis(300));
        vec![head(200, EVENTS), pause, Step::Write(late.into())]
    })
    .await;
    let config = config::Llm {
        base_url: server.url("/v1"),
        model: "m".into(),
        first_token_timeout_ms: 20_000,
        timeout_s: 30,
        ..config::Llm::default()
    };
    let reply = Llm::new(&config).unwrap().unwrap().ask(&ask()).await.unwrap();
    let heard = all(reply).await;
    assert_eq!(heard, ("Well.".into(), Ok(Finish::Stop)));
}

#[tokio::test]
async fn refusals_and_nonsense_are_told_apart() {
    let status = |status| LlmError::Service(Trouble::Status(status));
    let wrong = |what| LlmError::Service(Trouble::Answer(what));
    for (steps, error, requests) in [
        (answer(401, "application/json", b"{}"), status(401), 1),
        (answer(429, "application/json", b"{}"), status(429), 2),
        (answer(500, "text/plain", b""), status(500), 2),
        (answer(200, "text/html", b"<html>"), wrong("neither events nor JSON"), 1),
    ] {
        let server = Server::start(move |_, _| steps.clone()).await;
        assert_eq!(llm(&server).ask(&ask()).await.err(), Some(error.clone()));
        assert_eq!(server.seen().len(), requests, "{error}");
    }
    for (body, error) in [
        ("data: {\"error\":{\"message\":\"full\"}}\n\n", wrong("an error")),
        ("data: hello\n\n", wrong("other JSON")),
        ("data: [DONE]\n\n", LlmError::Silent),
        ("", LlmError::Silent),
    ] {
        let server = Server::start(move |_, _| answer(200, EVENTS, body.as_bytes())).await;
        let reply = llm(&server).ask(&ask()).await.unwrap();
        assert_eq!(all(reply).await, (String::new(), Err(error)), "{body}");
    }
    let server = Server::start(|_, _| {
        let head =
            b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n".to_vec();
        vec![Step::Write(head), Step::Write(event("Well").into())]
    })
    .await;
    let reply = llm(&server).ask(&ask()).await.unwrap();
    assert_eq!(all(reply).await, ("Well".into(), Err(LlmError::Service(Trouble::Broken))));
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_heard_too() {
    let body = "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hi.\"},\"finish_reason\":\"stop\"}]}";
    let server = Server::start(move |_, _| answer(200, "application/json", body.as_bytes())).await;
    let reply = llm(&server).ask(&ask()).await.unwrap();
    assert_eq!(all(reply).await, ("Hi.".into(), Ok(Finish::Stop)));
    assert!(Llm::new(&config::Llm::default()).unwrap().is_none());
}

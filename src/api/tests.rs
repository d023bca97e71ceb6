//! The surface from a client's side, without a socket: every status, envelope and header that needs no far end.

mod campaigns;
mod history;
mod idempotency;
mod kaphila;
mod limits;
mod metrics;
mod openapi;
mod transfer;
mod world;

use std::io::Cursor;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tokio_util::io::ReaderStream;
use tower::ServiceExt;

use world::{World, rings};

#[tokio::test]
async fn unknown_paths_and_methods_wear_the_envelope() {
    let world = World::new(rings).await;
    let key = world.key("A", &[], |_| {}).await;
    for path in ["/", "/nothing", "/calls/", "/recordings/file//etc/passwd.wav/download", "/kaphila/nothing"]
    {
        let answer = world.get(path, &key).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::NOT_FOUND, r#"{"success":false,"error":"Not found"}"#)
        );
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(world.ask(Method::GET, path, None, "").await.status, StatusCode::NOT_FOUND);
    }
    for (method, path, allow) in [
        (Method::GET, "/makecall", "POST"),
        (Method::DELETE, "/calls", "GET,HEAD"),
        (Method::GET, "/kaphila/hangup", "POST"),
        (Method::GET, "/recordings/1.2/stop", "POST"),
        (Method::POST, "/api/me", "GET,HEAD"),
    ] {
        let answer = world.ask(method, path, None, "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.text(), r#"{"success":false,"error":"Method not allowed"}"#);
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
}

#[test]
fn whoever_sends_webhooks_is_asked_for_them() {
    let senders = super::DIALECTS.iter().filter(|dialect| dialect.format.is_some());
    let names: Vec<&str> = senders.map(|dialect| dialect.name).collect();
    let formats: Vec<&str> = super::FORMATS.iter().map(|format| format.name()).collect();
    assert_eq!(names, formats);
}

#[tokio::test]
async fn every_response_has_an_id_of_its_own() {
    let world = World::new(rings).await;
    let first = world.ask(Method::GET, "/health", None, "").await;
    let second = world.ask(Method::GET, "/nothing", None, "").await;
    let (first, second) = (first.header("x-request-id").unwrap(), second.header("x-request-id").unwrap());
    assert_ne!(first, second);
    assert!(first.starts_with("req_") && first.len() == 36, "{first}");
}

#[tokio::test]
async fn a_panic_is_an_internal_error() {
    let routes: axum::Router = axum::Router::new().route("/panics", axum::routing::get(panics));
    let request = Request::get("/panics").body(Body::empty()).unwrap();
    let answer = super::wrapped(routes, &Arc::default()).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.headers().contains_key("x-request-id"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"success":false,"error":"Internal server error"}"#);
}

async fn panics() -> StatusCode {
    panic!("a handler's bug")
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let world = World::new(rings).await;
    let head = world.ask(Method::HEAD, "/health", None, "").await;
    assert_eq!((head.status, head.bytes.len()), (StatusCode::OK, 0));
    let options = world.ask(Method::OPTIONS, "/makecall", None, "").await;
    assert_eq!((options.status, options.bytes.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(options.header("allow"), Some("POST"));
    assert_eq!(world.ask(Method::OPTIONS, "/nothing", None, "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bodies_that_are_too_large_are_cut() {
    let world = World::with(rings, |config| config.http.max_body_bytes = 1000).await;
    let key = world.key("A", &[], |_| {}).await;
    for (size, status) in [(1000, StatusCode::BAD_REQUEST), (1001, StatusCode::PAYLOAD_TOO_LARGE)] {
        let body = " ".repeat(size);
        let announced = Request::post("/makecall")
            .header("authorization", format!("Bearer {key}"))
            .header("content-length", size)
            .body(Body::from(body.clone()))
            .unwrap();
        assert_eq!(world.send(announced).await.status, status);
        let stream = ReaderStream::new(Cursor::new(body.into_bytes()));
        let chunked = Request::post("/makecall")
            .header("authorization", format!("Bearer {key}"))
            .body(Body::from_stream(stream))
            .unwrap();
        assert_eq!(world.send(chunked).await.status, status);
    }
    // The size comes before the key: nobody's large body is read to look at a header.
    let answer = world.ask(Method::POST, "/makecall", None, &" ".repeat(1001)).await;
    assert_eq!(answer.text(), r#"{"success":false,"error":"Request body too large"}"#);
}

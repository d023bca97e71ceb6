//! `GET /metrics`: who may read it, and what it says.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode};

use super::world::{World, answers, rings};
use crate::model::call::{Amd, AmdStatus, EndReason};
use crate::model::event::{CallEvent, Fault};

async fn asked(world: &World, peer: &str, headers: &[(&str, &str)]) -> super::world::Answer {
    let mut request = Request::get("/metrics").header("host", "localhost:3000");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer: SocketAddr = peer.parse().unwrap();
    world.send(request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn figures_are_for_operators_and_this_machine() {
    let world = World::with(rings, |config| config.metrics.allow_cidrs = vec!["192.0.2.7/32".into()]).await;
    let customer = world.key("A", &[], |_| {}).await;
    let admin = world.key("B", &[], |new| new.scopes = vec!["admin".into()]).await;
    for (peer, status) in [
        ("127.0.0.1:5", StatusCode::OK),
        ("[::1]:5", StatusCode::OK),
        ("192.0.2.7:5", StatusCode::OK),
        ("192.0.2.8:5", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(asked(&world, peer, &[]).await.status, status, "{peer}");
    }
    let through_a_proxy = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(asked(&world, "127.0.0.1:5", &through_a_proxy).await.status, StatusCode::UNAUTHORIZED);
    let far = "203.0.113.1:5";
    for (key, status) in [
        (customer.as_str(), StatusCode::FORBIDDEN),
        (&admin, StatusCode::OK),
        ("x", StatusCode::UNAUTHORIZED),
    ] {
        let shown = format!("Bearer {key}");
        assert_eq!(asked(&world, far, &[("authorization", shown.as_str())]).await.status, status);
    }

    let off = World::with(rings, |config| config.metrics.enabled = false).await;
    assert_eq!(asked(&off, "127.0.0.1:5", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn calls_requests_and_webhooks_are_counted() {
    let world = World::new(answers).await;
    let key = world.key("A", &["one"], |new| new.max_concurrent = 2).await;
    let body = r#"{"number":"14155550100","useAmd":true}"#;
    assert_eq!(world.post("/makecall", &key, body).await.status, StatusCode::OK);
    let amd = Amd { status: AmdStatus::Human, cause: "SHORT_GREETING".into(), confidence: 0.9 };
    world.happens(CallEvent::Screened(amd)).await;
    world.happens(CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, sip_code: None }).await;
    let failed = CallEvent::AttemptFailed {
        trunk: "one-endpoint".into(),
        code: 503,
        reason: "Service Unavailable".into(),
        elapsed_ms: 3,
        retry_after_s: None,
        fault: Fault::Trunk,
    };
    assert_eq!(world.post("/makecall", &key, body).await.status, StatusCode::OK);
    world.happens(failed).await;
    assert_eq!(world.ask(Method::GET, "/recordings/nothing-here", None, "").await.status.as_u16(), 401);
    assert_eq!(world.ask(Method::GET, "/such/a/path/14155550100", None, "").await.status.as_u16(), 404);

    let answer = asked(&world, "127.0.0.1:5", &[]).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    for line in [
        r#"trunkline_calls_ended_total{reason="normal_hangup",trunk="one-endpoint"} 1"#,
        r#"trunkline_attempts_total{trunk="one-endpoint",code="200"} 2"#,
        r#"trunkline_attempts_total{trunk="one-endpoint",code="503"} 1"#,
        r#"trunkline_amd_verdicts_total{verdict="HUMAN"} 1"#,
        "trunkline_calls_begun_total 2",
        "trunkline_calls_answered_total 2",
        "trunkline_journal_lag_events 0",
        "trunkline_database_errors_total 0",
        r#"trunkline_http_requests_total{method="POST",route="/makecall",status="200"} 2"#,
        r#"trunkline_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"trunkline_http_request_seconds_count{method="POST",route="/makecall"} 2"#,
        r#"trunkline_refusals_total{reason="missing_key"} 1"#,
        "trunkline_webhook_lanes_waiting 0",
        "trunkline_media_overruns_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for secret in ["14155550100", key.as_str(), "nothing-here", "default"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

/// Each line is one that Prometheus can read, and belongs to the figure whose head stands before it.
#[tokio::test]
async fn the_text_is_well_formed() {
    let world = World::new(answers).await;
    let key = world.key("A", &["one"], |_| {}).await;
    world.call(&key).await;
    let text = asked(&world, "127.0.0.1:5", &[]).await.text().to_owned();
    let (mut figure, mut seen) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(!seen.contains(&name.to_owned()), "{name} twice");
            seen.push(name.to_owned());
            figure = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&figure), "{line} under {figure}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
}

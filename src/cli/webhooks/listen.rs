//! `trunkline webhooks listen`: a receiver for trials on this machine. It checks the Standard Webhooks signature, says
//! plainly why it refused one, prints a line for each delivery and answers. What callers typed is masked.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use clap::Args;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::cli::CliError;
use crate::clock;
use crate::model::{Secret, Timestamp};
use crate::webhook::verify::{NotGenuine, Signed, verify};

/// Largest body that is read.
const BODY_MAX: usize = 256 * 1024;

/// Characters of a body that are printed, and of a header.
const SHOWN: usize = 300;
const HEADER_SHOWN: usize = 64;

/// Ids that are remembered, to tell a repeat from a new event.
const REMEMBERED: usize = 1000;

/// How to receive.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ListenArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3999")]
    listen: SocketAddr,
    /// The key's webhook secret, `whsec_…`; twice while it is being rotated. Without one nothing is checked.
    #[arg(long, value_parser = secret)]
    secret: Vec<Secret>,
    /// Answer with this status.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Answer so much later, milliseconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=120_000))]
    delay_ms: u64,
}

fn secret(text: &str) -> Result<Secret, String> {
    let wrong = || "a webhook secret is whsec_ and base64".to_owned();
    let secret = Secret(text.to_owned());
    let probe = Signed { id: Some("x"), timestamp: Some("0"), signature: Some("v1,") };
    match verify(std::slice::from_ref(&secret), probe, b"", 0) {
        Err(NotGenuine::Secret) => Err(wrong()),
        Ok(()) | Err(_) => Ok(secret),
    }
}

/// What the handler is given.
struct Receiver {
    args: ListenArgs,
    seen: Mutex<VecDeque<String>>,
}

/// Receives until interrupted.
pub(in crate::cli) async fn listen(args: ListenArgs) -> Result<(), CliError> {
    let refused = |error| CliError::Listen(args.listen, error);
    let listener = TcpListener::bind(args.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let checked = if args.secret.is_empty() {
        "signatures are not checked: give --secret"
    } else {
        "signatures are checked"
    };
    say(&format!(
        "listening on http://{address}/ ({checked}); the server needs webhooks.allow_http and allow_cidrs"
    ))?;
    let stop = async {
        // Where interrupts cannot be heard the process is ended all the same.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, router(args)).with_graceful_shutdown(stop).await?;
    Ok(())
}

fn router(args: ListenArgs) -> Router {
    let receiver = Arc::new(Receiver { args, seen: Mutex::default() });
    Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(receiver)
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let now = clock::now().wall;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed = Signed {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
    };
    let secrets = &receiver.args.secret;
    let verdict = (!secrets.is_empty()).then(|| verify(secrets, signed, &body, now.seconds()));
    let repeat = receiver.repeat(signed.id);
    let line = line(now, &body, signed.id, header("x-webhook-attempt"), verdict.as_ref(), repeat);
    // A closed standard output is no reason not to answer.
    let _ = say(&line);
    if let Some(Err(why)) = verdict {
        return (StatusCode::UNAUTHORIZED, why.to_string());
    }
    tokio::time::sleep(Duration::from_millis(receiver.args.delay_ms)).await;
    (StatusCode::from_u16(receiver.args.status).unwrap_or(StatusCode::OK), String::new())
}

impl Receiver {
    /// Whether an id has come before; it is remembered.
    fn repeat(&self, id: Option<&str>) -> bool {
        let Some(id) = id else { return false };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|known| known == id) {
            return true;
        }
        seen.push_back(id.to_owned());
        if seen.len() > REMEMBERED {
            seen.pop_front();
        }
        false
    }
}

/// One delivery in one line.
fn line(
    now: Timestamp,
    body: &[u8],
    id: Option<&str>,
    attempt: Option<&str>,
    verdict: Option<&Result<(), NotGenuine>>,
    repeat: bool,
) -> String {
    let mut value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    mask(&mut value);
    let event = value.get("event").and_then(Value::as_str).unwrap_or("(no event)");
    let verdict = match verdict {
        None => "not checked".to_owned(),
        Some(Ok(())) => "ok".to_owned(),
        Some(Err(why)) => format!("REFUSED ({why})"),
    };
    let again = if repeat { "  repeat" } else { "" };
    let (id, attempt) =
        (printable(id.unwrap_or("-"), HEADER_SHOWN), printable(attempt.unwrap_or("-"), HEADER_SHOWN));
    let event = printable(event, HEADER_SHOWN);
    let text =
        if value.is_null() { format!("{} bytes that are no JSON", body.len()) } else { value.to_string() };
    let text = printable(&text, SHOWN);
    format!("{}  {event}  {id}  attempt {attempt}{again}  signature {verdict}  {text}", now.iso_ms())
}

/// What callers typed becomes stars.
fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name.to_ascii_lowercase().contains("digit") => {
                        *text = "*".repeat(text.chars().count());
                    }
                    value => mask(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// At most `most` characters, none of which moves the cursor.
fn printable(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut shown: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::sign;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use tower::ServiceExt;

    const BODY: &str =
        r#"{"event":"gather.complete","digits":"4711","nested":[{"digit":"9"}],"callId":"1.1"}"#;

    fn secret_of(byte: u8) -> Secret {
        Secret(format!("whsec_{}", STANDARD.encode([byte; 32])))
    }

    fn args(status: u16) -> ListenArgs {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        ListenArgs { listen, secret: vec![secret_of(1)], status, delay_ms: 0 }
    }

    async fn answer(status: u16, signer: &Secret, body: &'static str) -> (StatusCode, String) {
        let now = clock::now().wall.seconds();
        let signed = sign::signatures(std::slice::from_ref(signer), "evt_1", now, BODY.as_bytes()).unwrap();
        let request = Request::post("/any/path")
            .header("webhook-id", "evt_1")
            .header("webhook-timestamp", now)
            .header("webhook-signature", signed)
            .body(Body::from(body))
            .unwrap();
        let response = router(args(status)).oneshot(request).await.unwrap();
        let status = response.status();
        let text = to_bytes(response.into_body(), 1000).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn genuine_deliveries_get_the_chosen_answer_and_others_are_refused_in_words() {
        assert_eq!(answer(200, &secret_of(1), BODY).await.0, StatusCode::OK);
        assert_eq!(answer(503, &secret_of(1), BODY).await.0, StatusCode::SERVICE_UNAVAILABLE);
        for (signer, body) in [(secret_of(2), BODY), (secret_of(1), "{}")] {
            let (status, why) = answer(200, &signer, body).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(why.contains("another secret"), "{why}");
        }
    }

    #[test]
    fn digits_are_masked_and_nothing_moves_the_cursor() {
        let line = line(Timestamp(0), BODY.as_bytes(), Some("evt_\u{1b}[2J"), Some("2"), Some(&Ok(())), true);
        assert!(line.starts_with(
            "1970-01-01T00:00:00.000Z  gather.complete  evt_?[2J  attempt 2  repeat  signature ok"
        ));
        assert!(!line.contains("4711") && !line.contains("\"9\"") && line.contains("****"), "{line}");
        let refused = super::line(Timestamp(0), b"x\n", None, None, Some(&Err(NotGenuine::Old(400))), false);
        assert!(refused.contains("REFUSED (webhook-timestamp is 400 s old") && refused.contains("no JSON"));
        assert_eq!(printable(&"x".repeat(400), 300).chars().count(), 301);
    }

    #[test]
    fn a_repeat_is_told_and_memory_is_bounded() {
        let receiver = Receiver { args: args(200), seen: Mutex::default() };
        assert!(!receiver.repeat(Some("a")) && receiver.repeat(Some("a")) && !receiver.repeat(None));
        for index in 0..REMEMBERED {
            assert!(!receiver.repeat(Some(&index.to_string())));
        }
        assert!(!receiver.repeat(Some("a")), "forgotten by now");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_at_once() {
        assert!(secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        assert!(secret("hunter2").is_err() && secret("whsec_%%").is_err());
    }
}

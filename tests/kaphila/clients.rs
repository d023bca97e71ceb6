//! The programs that the Kaphila document prints, run as they stand: the small ones, the Flask application, the
//! Express application, and the curl commands. A proxy between them and the server writes down what they ask.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::{CLIENT, Key};
use crate::harness::{Process, free_port, go, home, number, run_folder, until, world};
use crate::receiver::{Delivery, Receiver};

/// The base URL, key and id that the document prints.
const PRINTED_BASE: &str = "http://72.60.206.114:3000";
const PRINTED_NUMBER: &str = "14155550100";
const PRINTED_CALL: &str = "1720012345.88";
const PRINTED_FILE: &str = "call-1720012345.88-1739781234567.wav";

#[derive(Clone, Debug)]
struct Asked {
    path: String,
    body: Value,
    status: u16,
}

/// A reverse proxy that writes down requests.
struct Proxy {
    base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    asked: Arc<Mutex<Vec<Asked>>>,
    server: String,
}

impl Proxy {
    async fn start(server: &str) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let shared = Shared { asked: asked.clone(), server: server.to_owned() };
        let router = Router::new().fallback(forward).with_state(shared);
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the proxy serves");
        });
        Self { base, asked, task }
    }

    /// What was asked about one call, in order.
    fn about(&self, call: &str) -> Vec<Asked> {
        let asked = self.asked.lock().expect("no test panics here");
        asked.iter().filter(|request| request.body["callId"] == call).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut request = CLIENT.request(method, format!("{}{uri}", shared.server)).body(body.clone());
    for name in ["authorization", "content-type"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.expect("the server answers");
    let status = answer.status();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Asked { path: uri.path().to_owned(), body, status: status.as_u16() };
    shared.asked.lock().expect("no test panics here").push(asked);
    let bytes = answer.bytes().await.expect("the answer is whole");
    let builder = Response::builder().status(StatusCode::from_u16(status.as_u16()).expect("a status"));
    builder.header("content-type", "application/json").body(Body::from(bytes)).expect("a response")
}

fn installed() -> PathBuf {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    let there = clients.join("venv/bin/python").exists() && clients.join("node_modules/express").exists();
    assert!(there, "{} lacks the clients' libraries; run tests/run", clients.display());
    clients
}

/// A printed program with some of its words replaced, each of which must be there, in a place where its libraries
/// are found.
fn program(name: &str, replace: &[(&str, &str)]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kaphila").join(name);
    let mut text =
        std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    for (from, to) in replace {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let own = home("client").file_name().expect("a name").to_owned();
    let folder = run_folder(&installed().join("run")).join(own);
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let path = folder.join(source.file_name().expect("a name"));
    std::fs::write(&path, text).expect("the target folder can be written");
    path
}

/// The command that runs a program, by its ending. No proxy of the environment is used.
fn runner(path: &Path) -> Command {
    let mut command = match path.extension().and_then(|ending| ending.to_str()) {
        Some("py") => Command::new(installed().join("venv/bin/python")),
        Some("mjs") => Command::new("node"),
        _ => Command::new("bash"),
    };
    command.arg(path).current_dir(path.parent().expect("a folder"));
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    command
}

async fn run(path: PathBuf) -> Output {
    let output = spawn_blocking(move || runner(&path).output().expect("the program starts; run tests/run"));
    output.await.expect("no panic")
}

async fn printed(path: PathBuf) -> String {
    let output = run(path.clone()).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{out}{err}", path.display(), output.status);
    out.into_owned()
}

/// What the Standard Webhooks library of PyPI says of a delivery.
async fn judged(secret: &str, timestamp: &str, delivery: &Delivery, body: &str) -> String {
    let mut command = Command::new(installed().join("venv/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/verify.py"));
    command.args([secret, delivery.header("webhook-id"), timestamp]);
    command.args([delivery.header("webhook-signature"), body]);
    let output = spawn_blocking(move || command.output().expect("python starts; run tests/run"));
    let output = output.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn t81_x14_a_library_that_is_not_ours_takes_genuine_deliveries_only() {
    go(async {
        let key = world().await.key("10");
        let hooks = Receiver::start().await;
        key.call(&json!({"number": number("0300"), "webhookUrl": hooks.url()})).await;
        let ended = hooks.wait("call.ended").await;
        let (secret, timestamp) = (key.webhook_secret.as_str(), ended.header("webhook-timestamp"));
        let body = String::from_utf8(ended.body.clone()).expect("JSON is UTF-8");
        assert_eq!(judged(secret, timestamp, &ended, &body).await, "genuine");
        let altered = body.replace("busy", "BUSY");
        assert_ne!(altered, body);
        assert!(judged(secret, timestamp, &ended, &altered).await.starts_with("refused"));
        let seconds: i64 = timestamp.parse().expect("unix seconds");
        let old = (seconds - 301).to_string();
        let replayed = judged(secret, &old, &ended, &body).await;
        assert!(replayed.contains("too old"), "{replayed}");
    });
}

#[test]
fn the_small_programs_run() {
    go(async {
        let key = world().await.key("10");
        for name in ["me.py", "me.mjs"] {
            let path = program(name, &[(PRINTED_BASE, &key.base), ("ak_live_123456", &key.key)]);
            let out = printed(path).await;
            assert!(out.contains(&key.key_id), "{name}: {out}");
        }
        for name in ["helper.py", "helper.mjs"] {
            let to = number("0304");
            let path =
                program(name, &[(PRINTED_BASE, &key.base), ("ak_live_123", &key.key), (PRINTED_NUMBER, &to)]);
            let out = printed(path).await;
            assert!(out.contains("ringing") && out.contains("carrier-endpoint"), "{name}: {out}");
        }
        assert_eq!(key.credits().await, 10);
    });
}

/// Four digits dialled, and what an application must have asked on that call after `/makecall`: paths and texts.
type Branch = (&'static str, &'static [(&'static str, &'static str)]);

const BRANCHES: [Branch; 4] = [
    (
        "0101",
        &[
            ("/gather", "Press 1 for sales, press 2 for support."),
            ("/voice", "Connecting you to sales shortly."),
        ],
    ),
    (
        "0102",
        &[
            ("/gather", "Press 1 for sales, press 2 for support."),
            ("/voice", "Connecting you to support shortly."),
        ],
    ),
    (
        "0109",
        &[
            ("/gather", "Press 1 for sales, press 2 for support."),
            ("/voice", "Invalid input. Goodbye."),
            ("/hangup", ""),
        ],
    ),
    (
        "0200",
        &[("/voice", "Hello. This is a reminder call from Kaphila. Please call us back at 1-800-555-0100.")],
    ),
];

/// Starts an application as printed (on another port than 5000 only where that is taken) and takes it through all
/// its branches at once.
async fn application(name: &str, printed_port: &str) {
    let key = world().await.key("20");
    let proxy = Proxy::start(&key.base).await;
    // Another run of the tests may be about to take it too: who holds the port below may.
    let lock = TcpListener::bind((Ipv4Addr::LOCALHOST, 4999));
    let free = lock.is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5000)).is_ok();
    let port = if free { 5000 } else { free_port() };
    let path = program(name, &[(printed_port, &printed_port.replace("5000", &port.to_string()))]);
    let mut command = runner(&path);
    command.env("KAPHILA_BASE_URL", &proxy.base).env("KAPHILA_API_KEY", &key.key);
    let mut app = Process::start_group(name, &mut command, path.with_extension("log"));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    until(20.0, "the application listens", async || {
        app.must_run();
        tokio::net::TcpStream::connect(addr).await.ok()
    })
    .await;
    let bad = CLIENT
        .post(format!("http://{addr}/start-call"))
        .json(&json!({}))
        .send()
        .await
        .expect("the application answers");
    assert_eq!(bad.status(), 400);

    let [sales, support, wrong, voicemail] = BRANCHES.map(|expected| branch(&key, &proxy, addr, expected));
    tokio::join!(sales, support, wrong, voicemail);
    assert_eq!(key.credits().await, 16);
    drop(lock);
}

async fn branch(key: &Key, proxy: &Proxy, app: SocketAddr, (digits, expected): Branch) {
    let body = json!({"number": number(digits), "webhookUrl": format!("http://{app}/webhooks/kaphila")});
    let answer = CLIENT
        .post(format!("http://{app}/start-call"))
        .json(&body)
        .send()
        .await
        .expect("the application answers");
    let started: Value = answer.json().await.expect("JSON");
    assert_eq!(started["ok"], true, "{started}");
    let call = crate::api::call_id(&started["call"]);
    let asked = until(45.0, &format!("all is asked on {digits}"), async || {
        Some(proxy.about(&call)).filter(|asked| asked.len() >= expected.len())
    })
    .await;
    let seen: Vec<_> =
        asked.iter().map(|ask| (ask.path.as_str(), ask.body["text"].as_str().unwrap_or_default())).collect();
    assert_eq!(seen, expected, "{digits}");
    assert!(asked.iter().all(|ask| ask.status == 200), "{digits}: {asked:?}");
    if digits != "0109" {
        key.hang_up(&call).await;
    }
    assert_eq!(key.wait_ended(&call).await["status"], "completed", "{digits}");
    assert_eq!(proxy.about(&call).len(), expected.len(), "{digits}: nothing is asked twice");
}

#[test]
fn the_flask_and_the_express_application_reach_all_their_branches() {
    go(async {
        application("flask_app.py", "port=5000").await;
        application("express_app.mjs", "app.listen(5000").await;
    });
}

/// One printed curl command with the test's own words in place of the printed ones.
fn command(name: &str, key: &Key, more: &[(&str, &str)]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/clients/kaphila/curl/{name}.sh"));
    let text = std::fs::read_to_string(source).expect("the command is there");
    // One printed key is the beginning of the other.
    let printed_key = if text.contains("ak_live_123456") { "ak_live_123456" } else { "ak_live_123" };
    let mut replace = vec![(PRINTED_BASE, key.base.as_str())];
    if text.contains(printed_key) {
        replace.push((printed_key, key.key.as_str()));
    }
    replace.extend(more);
    program(&format!("curl/{name}.sh"), &replace)
}

/// Runs one; what it prints.
async fn curl(name: &str, key: &Key, more: &[(&str, &str)]) -> String {
    printed(command(name, key, more)).await
}

/// Runs one that saves a WAV, which must be one.
async fn curl_saves(name: &str, key: &Key, more: &[(&str, &str)]) {
    let path = command(name, key, more);
    printed(path.clone()).await;
    let saved = std::fs::read(path.with_file_name("call.wav")).expect("the command saves call.wav");
    assert!(saved.starts_with(b"RIFF"), "{name}: {}", String::from_utf8_lossy(&saved));
}

fn read(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn the_printed_curl_commands_work() {
    go(async {
        let world = world().await;
        let key = world.key("20");
        assert_eq!(read(&curl("health", &key, &[]).await)["status"], "healthy");
        assert_eq!(read(&curl("me", &key, &[]).await)["apiKey"]["keyId"], *key.key_id);
        let to = number("0501");
        let placed = read(&curl("makecall", &key, &[(PRINTED_NUMBER, &to)]).await);
        assert_eq!((&placed["success"], &placed["amdEnabled"]), (&json!(true), &json!(true)));
        let call = crate::api::call_id(&placed);
        key.wait_recorded(&call).await;
        let about = key.get(&format!("/recordings/{call}")).await.expect(200);
        let file = about["filename"].as_str().expect("a name").to_owned();
        let on_call = [(PRINTED_CALL, call.as_str())];
        for name in ["voice", "play", "gather", "call", "recording", "stop"] {
            assert_eq!(read(&curl(name, &key, &on_call).await)["success"], true, "{name}");
        }
        assert_eq!(read(&curl("calls", &key, &[]).await)["totalCalls"], 1);
        assert_eq!(read(&curl("recordings", &key, &[]).await)["success"], true);
        curl_saves("download", &key, &on_call).await;
        curl_saves("download_file", &key, &[(PRINTED_FILE, &file)]).await;
        assert_eq!(read(&curl("hangup", &key, &on_call).await)["success"], true);
        key.wait_ended(&call).await;
        let logs = read(&curl("call_logs", &key, &[]).await);
        assert_eq!(logs["logs"][0]["call_id"], *call);
        for (name, printed_number) in
            [("batchcall", "14155550123"), ("workflow", PRINTED_NUMBER), ("test_flow", PRINTED_NUMBER)]
        {
            let placed = read(&curl(name, &key, &[(printed_number, &number("0304"))]).await);
            assert_eq!(placed["status"], "ringing", "{name}: {placed}");
        }
    });
}

//! How fast the HTTP surface answers while calls are up: the release server on one pinned core with 200 live calls
//! (far end and client on the other), then `/calls`, `/voice`, `/gather` and `/makecall` one after another from a few
//! clients, and authenticated reads as fast as they go. Of `/makecall` the time between the arrival of its INVITE at the
//! trunk and the trunk's 180 is taken off: what is printed is the server's own.
//!
//! `cargo bench --bench api -- [--calls N] [--database postgres://…]`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The anchor: Asterisk 22 over ARI on a machine like this, REST to INVITE, milliseconds.
const ASTERISK_P50_MS: f64 = 0.8;
const ASTERISK_P99_MS: f64 = 3.6;
/// Requests of one kind.
const REQUESTS: usize = 2000;
/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// Clients that read as fast as they can, and for how long.
const READERS: usize = 32;
const READING: Duration = Duration::from_secs(5);

type Failed = Box<dyn Error + Send + Sync>;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

/// A program of ours on one core, ended when dropped.
struct Program(Child);

impl Program {
    fn start(
        core: u32,
        arguments: &[&str],
        settings: &[(String, String)],
        home: &Path,
    ) -> Result<Self, Failed> {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), env!("CARGO_BIN_EXE_trunkline")]).args(arguments);
        command.envs(settings.iter().cloned()).current_dir(home);
        Ok(Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A key on the server.
#[derive(Clone)]
struct Key {
    client: Client,
    base: String,
    key: String,
}

impl Key {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failed> {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await?))
    }

    /// The same, which must succeed; how long it took.
    async fn timed(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Duration, Failed> {
        let began = now();
        let (status, body) = self.ask(method, path, body).await?;
        if status == 200 { Ok(began.elapsed()) } else { Err(format!("{path}: {status} {body}").into()) }
    }
}

/// How long the far end took to answer an INVITE, by the number that was dialled.
type Rung = Arc<Mutex<BTreeMap<String, Duration>>>;

/// A far end that rings at once and answers nothing more; the little time that it takes is written down.
fn ring(socket: &UdpSocket, rung: &Rung) {
    let mut datagram = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        let came = now();
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        let status = match text.split(' ').next() {
            Some("INVITE") => "180 Ringing",
            Some("CANCEL") => "200 OK",
            _ => continue,
        };
        let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let lines = text.split("\r\n").filter(|line| kept.iter().any(|name| line.starts_with(name)));
        let lines: Vec<String> = lines
            .map(|line| if line.starts_with("To:") { format!("{line};tag=far") } else { line.to_owned() })
            .collect();
        let answer = format!("SIP/2.0 {status}\r\n{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"));
        // A datagram that the kernel does not take is asked for again.
        let _ = socket.send_to(answer.as_bytes(), from);
        let number = text.strip_prefix("INVITE sip:").and_then(|rest| rest.split('@').next());
        if let (Some(number), Ok(mut rung)) = (number, rung.lock()) {
            // Whatever the trunk puts before it.
            let at = number.len().saturating_sub(10);
            rung.entry(number.get(at..).unwrap_or_default().to_owned()).or_insert(came.elapsed());
        }
    }
}

/// Runs requests from a few clients and prints how long they took, sorted.
async fn measure<F>(what: &str, count: usize, request: impl Fn(usize) -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<Duration, Failed>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut took = Vec::with_capacity(count);
    for index in 0..count {
        if tasks.len() >= CLIENTS
            && let Some(done) = tasks.join_next().await
        {
            took.push(done??);
        }
        tasks.spawn(request(index));
    }
    while let Some(done) = tasks.join_next().await {
        took.push(done??);
    }
    took.sort();
    let ms = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    let (p50, p99) = (ms(0.5), ms(0.99));
    println!(
        "{what:10} {count} requests: p50 {p50:.2} ms ({:.2} x the anchor's), p99 {p99:.2} ms ({:.2} x), max {:.2} ms",
        p50 / ASTERISK_P50_MS,
        p99 / ASTERISK_P99_MS,
        ms(1.0)
    );
    Ok(())
}

async fn read_as_fast_as_it_goes(key: &Key) -> Result<(), Failed> {
    let until = now() + READING;
    let read = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        let (key, read) = (key.clone(), read.clone());
        tasks.spawn(async move {
            while now() < until {
                key.timed(Method::GET, "/api/me", None).await?;
                read.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failed>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = read.load(Ordering::Relaxed) as f64 / READING.as_secs_f64();
    println!("/api/me    {READERS} clients: {rate:.0} authenticated reads a second");
    Ok(())
}

/// The server with its key, and the far ends.
struct Stage {
    key: Key,
    home: PathBuf,
    rung: Rung,
    _programs: Vec<Program>,
}

async fn set_up(database: Option<&str>) -> Result<Stage, Failed> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-api");
    // What the last run left.
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    let (http, sip, far) = (free_port()?, free_port()?, free_port()?);
    let ringing = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let rings_at = ringing.local_addr()?;
    let rung = Rung::default();
    let written = rung.clone();
    std::thread::spawn(move || ring(&ringing, &written));
    let sqlite = format!("sqlite://{}/trunkline.db", home.display());
    let settings: Vec<(String, String)> = [
        ("HTTP__LISTEN", format!("127.0.0.1:{http}")),
        ("SIP__UDP", format!("127.0.0.1:{sip}")),
        ("RTP__BIND", "127.0.0.1".to_owned()),
        ("DATABASE__URL", database.unwrap_or(&sqlite).to_owned()),
        ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "1000000".to_owned()),
    ]
    .map(|(name, value)| (format!("TRUNKLINE_{name}"), value))
    .into();
    let listen = format!("127.0.0.1:{far}");
    let carrier = Program::start(1, &["carrier", "--listen", &listen], &[], &home)?;
    let server = Program::start(0, &["serve"], &settings, &home)?;
    let cli = |arguments: &[&str]| -> Result<Value, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        let output = command.args(arguments).arg("--json").envs(settings.iter().cloned()).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let client = Client::builder().no_proxy().build()?;
    let base = format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, http)));
    while client.get(format!("{base}/health")).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cli(&["trunks", "add", "far", "--proxy", &format!("sip:{listen}")])?;
    cli(&["trunks", "add", "ringing", "--proxy", &format!("sip:{rings_at}")])?;
    let options = ["--rate-limit", "1000000", "--max-concurrent", "10000", "--recording", "always"];
    let mut make = vec!["keys", "create", "bench", "--trunks", "far"];
    make.extend(options);
    let made = cli(&make)?;
    let key = made["key"].as_str().ok_or("no key was printed")?.to_owned();
    let stage = Stage { key: Key { client, base, key }, home, rung, _programs: vec![carrier, server] };
    make[2] = "ringing";
    make[4] = "ringing";
    let made = cli(&make)?;
    std::fs::write(stage.home.join("ringing.key"), made["key"].as_str().unwrap_or_default())?;
    Ok(stage)
}

async fn live_calls(key: &Key, count: usize) -> Result<Vec<String>, Failed> {
    let mut calls = Vec::new();
    for index in 0..count {
        let order = json!({"number": format!("1{:06}0500", index)});
        let (status, placed) = key.ask(Method::POST, "/makecall", Some(&order)).await?;
        let call = placed["callId"].as_str().ok_or_else(|| format!("/makecall: {status} {placed}"))?;
        calls.push(call.to_owned());
    }
    loop {
        let (_, live) = key.ask(Method::GET, "/calls", None).await?;
        let answered = live["calls"].as_array().into_iter().flatten().filter(|c| c["status"] == "answered");
        if answered.count() == count {
            return Ok(calls);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run(calls: usize, database: Option<&str>) -> Result<(), Failed> {
    let stage = set_up(database).await?;
    let key = &stage.key;
    let calls = Arc::new(live_calls(key, calls).await?);
    println!("{} live calls, recorded; the server on one core; {CLIENTS} clients", calls.len());
    measure("/calls", REQUESTS / 4, |_| {
        let key = key.clone();
        async move { key.timed(Method::GET, "/calls", None).await }
    })
    .await?;
    for (path, body) in [
        ("/voice", json!({"text": "Thank you."})),
        ("/gather", json!({"text": "Please press a key.", "replace": true})),
    ] {
        // The first of its text is synthesised; the others are what is measured.
        let mut first = body.clone();
        first["callId"] = json!(calls[0]);
        key.timed(Method::POST, path, Some(&first)).await?;
        let (key, calls) = (key.clone(), calls.clone());
        measure(path, REQUESTS.min(calls.len() * 10), move |index| {
            let (key, mut body) = (key.clone(), body.clone());
            body["callId"] = json!(calls[index % calls.len()]);
            async move { key.timed(Method::POST, path, Some(&body)).await }
        })
        .await?;
    }
    let ringing = std::fs::read_to_string(stage.home.join("ringing.key"))?;
    let rings = Key { key: ringing, ..key.clone() };
    measure("/makecall", REQUESTS / 4, |index| {
        let (rings, rung) = (rings.clone(), stage.rung.clone());
        async move {
            let number = format!("1{index:09}");
            let order = json!({"number": number, "ringTimeout": 5});
            let took = rings.timed(Method::POST, "/makecall", Some(&order)).await?;
            let own = rung.lock().map_err(|_| "the far end panicked")?.get(&number).copied();
            // What is left is ours: the goal is 5 ms.
            Ok(took.saturating_sub(own.ok_or("a call that never rang")?))
        }
    })
    .await?;
    read_as_fast_as_it_goes(key).await
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let calls = option("--calls").and_then(|text| text.parse().ok()).unwrap_or(200);
    let database = option("--database").map(String::as_str);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(calls, database))
}

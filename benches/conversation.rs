//! Conversations between two servers of ours: one has an agent, whose recogniser, language model and voice are as slow as
//! real ones, and the other calls it and plays questions by a script; some of them go into the middle of an answer. What
//! is measured stands in the caller's recordings (the agent on the left, the questions on the right) and, turn by turn,
//! in the agent's own figures.
//!
//! `cargo bench --bench conversation -- [--calls N] [--turns N]`: one conversation of 20 turns unless said.

#![expect(clippy::unwrap_used, reason = "the services are those of the tests")]
#![expect(dead_code, reason = "the services are shared with the tests, and this uses its own part of them")]

#[path = "../tests/dialects/minds.rs"]
mod minds;
#[path = "../tests/providers/server.rs"]
mod services;

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use minds::{REAL, Says};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// From one question to the next, seconds: time for the answer, but for the long ones.
const PERIOD_S: f64 = 5.0;
/// Before the first one: time for the greeting.
const GREETING_S: f64 = 2.5;
/// Each so many-th answer is long, and the next question goes into it.
const LONG_EVERY: usize = 5;
/// A question.
const QUESTION_S: f64 = 1.0;
/// Silence by which the recogniser's sound is cut: the caller is done.
const DONE_MS: f64 = 600.0;
/// Words of an answer before the one that makes its first clause whole.
const WORDS: f64 = 5.0;
/// Samples of a frame, and a frame's length.
const FRAME: usize = 160;
const FRAME_MS: f64 = 20.0;
/// Mean square above which a frame is heard.
const HEARD: f64 = 200.0 * 200.0;
/// A pause within an answer is shorter than this, frames.
const PAUSE: usize = 10;
/// Calls are placed so far apart.
const APART: Duration = Duration::from_millis(40);

type Failed = Box<dyn Error + Send + Sync>;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

/// A server of ours, ended when dropped.
struct Server {
    child: Child,
    settings: Vec<(String, String)>,
    http: u16,
    sip: u16,
    home: PathBuf,
    client: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16, Failed> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

impl Server {
    async fn start(name: &str, rtp: (u16, u16), more: &[(&str, &str)]) -> Result<Self, Failed> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-conversation-{name}"));
        // What the last run left.
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(home.join("sounds/custom"))?;
        let (http, sip) = (free_port()?, free_port()?);
        let own = [
            ("HTTP__LISTEN", format!("127.0.0.1:{http}")),
            ("SIP__UDP", format!("127.0.0.1:{sip}")),
            ("RTP__BIND", "127.0.0.1".to_owned()),
            ("RTP__PORT_MIN", rtp.0.to_string()),
            ("RTP__PORT_MAX", rtp.1.to_string()),
            ("DATABASE__URL", format!("sqlite://{}/trunkline.db", home.display())),
            ("PATHS__SOUNDS", format!("{}/sounds", home.display())),
            ("PATHS__RECORDINGS", format!("{}/recordings", home.display())),
            ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "100000".to_owned()),
            ("RATELIMIT__PHONY_PER_MINUTE", "100000".to_owned()),
            ("RATELIMIT__PHONY_PER_HOUR", "100000".to_owned()),
        ];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = own.into_iter().chain(more).map(|(name, value)| (format!("TRUNKLINE_{name}"), value));
        let settings: Vec<(String, String)> = settings.collect();
        let log = std::fs::File::create(home.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .arg("serve")
            .envs(settings.iter().cloned())
            .current_dir(&home)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let client = Client::builder().no_proxy().build()?;
        let server = Self { child, settings, http, sip, home, client };
        while server.client.get(server.url("/health")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    fn cli(&self, arguments: &[&str]) -> Result<Value, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(arguments).arg("--json").envs(self.settings.iter().cloned()).current_dir(&self.home);
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn key(&self, options: &[&str]) -> Result<String, Failed> {
        let mut arguments = vec!["keys", "create", "bench"];
        arguments.extend_from_slice(options);
        Ok(self.cli(&arguments)?["key"].as_str().ok_or("no key was printed")?.to_owned())
    }

    async fn ask(&self, key: &str, method: Method, path: &str, body: &Value) -> Result<Value, Failed> {
        let request = self.client.request(method, self.url(path)).bearer_auth(key);
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.header("content-type", "application/json").send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            return Ok(serde_json::from_str(&text)?);
        }
        Err(format!("{path}: {status} {text}").into())
    }
}

/// A question as a file.
fn question() -> Vec<u8> {
    let samples = (8000.0 * QUESTION_S) as u32;
    let sample = |n: u32| (9000.0 * (f64::from(n) * 300.0 / 8000.0 * std::f64::consts::TAU).sin()) as i16;
    let data: Vec<u8> = (0..samples).flat_map(|n| sample(n).to_le_bytes()).collect();
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + 2 * samples).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(8000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend((2 * samples).to_le_bytes());
    wav.extend(data);
    wav
}

/// Where each frame of a stereo recording is heard: the agent's, the questions'.
fn heard(wav: &[u8]) -> Result<[Vec<bool>; 2], Failed> {
    let at = wav.windows(4).position(|four| four == b"data").ok_or("no sound")? + 8;
    let samples: Vec<f64> =
        wav[at..].chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]]))).collect();
    let side = |side: usize| {
        samples
            .chunks_exact(2 * FRAME)
            .map(|frame| {
                let power: f64 = frame.iter().skip(side).step_by(2).map(|s| s * s).sum();
                power / FRAME as f64 > HEARD
            })
            .collect()
    };
    Ok([side(0), side(1)])
}

/// What stands in one recording, milliseconds.
#[derive(Default)]
struct Measured {
    /// From a question's last sound to the first of its answer.
    answers: Vec<f64>,
    /// From a question into an answer to that answer's last sound.
    stops: Vec<f64>,
    /// Frames of each answer that was stopped which were heard after that, before the next one could have begun.
    late: Vec<f64>,
}

fn measure(wav: &[u8]) -> Result<Measured, Failed> {
    let [agent, caller] = heard(wav)?;
    let mut measured = Measured::default();
    let mut at = 0;
    while let Some(begin) = caller[at..].iter().position(|heard| *heard).map(|ahead| at + ahead) {
        let quiet =
            |from: usize, side: &[bool]| side[from..side.len().min(from + PAUSE)].iter().all(|on| !on);
        let end = (begin..caller.len()).find(|frame| quiet(*frame, &caller)).unwrap_or(caller.len());
        // A few frames earlier it is not known yet that anybody speaks.
        if agent[begin.saturating_sub(3)..begin].iter().any(|on| *on) {
            let stop = (begin..agent.len()).find(|frame| quiet(*frame, &agent)).unwrap_or(agent.len());
            measured.stops.push((stop - begin) as f64 * FRAME_MS);
            // Until the question is over and understood nothing may be said.
            measured.late.push(agent[stop.min(end)..end].iter().filter(|on| **on).count() as f64);
        }
        let first = agent[end.min(agent.len())..].iter().position(|on| *on);
        if let Some(ahead) = first {
            measured.answers.push(ahead as f64 * FRAME_MS);
        }
        at = end;
    }
    Ok(measured)
}

fn show(what: &str, mut figures: Vec<f64>) {
    if figures.is_empty() {
        return println!("{what}: nothing was measured");
    }
    figures.sort_by(f64::total_cmp);
    let at = |part: f64| figures[((figures.len() - 1) as f64 * part).round() as usize];
    println!(
        "{what}: p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, max {:.0} ms ({} of them)",
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
        figures.len()
    );
}

/// One call: its questions at their times, then the end; its recording.
async fn converse(caller: &Server, key: &str, number: usize, turns: usize) -> Result<Vec<u8>, Failed> {
    let order =
        json!({ "number": format!("1415555{:04}", 7000 + number % 1000), "recordChannels": "stereo" });
    let placed = caller.ask(key, Method::POST, "/makecall", &order).await?;
    let id = placed["callId"].as_str().ok_or("no call was placed")?.to_owned();
    loop {
        let shown = caller.ask(key, Method::GET, &format!("/calls/{id}"), &Value::Null).await?;
        if shown.to_string().contains("answered") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let begun = now();
    for turn in 0..turns {
        let at = Duration::from_secs_f64(GREETING_S + PERIOD_S * turn as f64);
        tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
        let play = json!({ "callId": id, "file": "custom/question" });
        caller.ask(key, Method::POST, "/play", &play).await?;
    }
    tokio::time::sleep(Duration::from_secs_f64(PERIOD_S)).await;
    // The agent may have hung up.
    let _ = caller.ask(key, Method::POST, "/hangup", &json!({ "callId": id })).await;
    for _ in 0..200 {
        let path = format!("/recordings/{id}/download");
        let answer = caller.client.get(caller.url(&path)).bearer_auth(key).send().await?;
        if answer.status().is_success() {
            return Ok(answer.bytes().await?.to_vec());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("call {id} left no recording").into())
}

/// The agent's own account of all its calls.
async fn own_account(agent: &Server, key: &str, admin: &str) -> Result<(), Failed> {
    let past = agent.ask(key, Method::GET, "/api/calls/history?limit=1000", &Value::Null).await?;
    let mut parts: Vec<(&str, Vec<f64>)> =
        ["totalMs", "hearingMs", "modelMs", "voiceMs", "ownMs"].map(|name| (name, Vec::new())).into();
    for call in past["calls"].as_array().into_iter().flatten() {
        let path = format!("/admin/v1/calls/{}/turns", call["call_sid"].as_str().unwrap_or_default());
        let list = agent.ask(admin, Method::GET, &path, &Value::Null).await?;
        for turn in list["turns"].as_array().into_iter().flatten() {
            for (name, figures) in &mut parts {
                figures.extend(turn[*name].as_f64());
            }
        }
    }
    println!("by the agent's own account:");
    for (name, figures) in parts {
        show(&format!("  {name}"), figures);
    }
    Ok(())
}

async fn run(calls: usize, turns: usize) -> Result<(), Failed> {
    let story = "It is a large box with a red label that came with the first van of the day. ".repeat(2);
    let long = format!("This is a very long story. {story}");
    let says = move |_, said: usize| match said % LONG_EVERY {
        0 => Says::Text(long.clone()),
        _ => Says::Text("This is what there is now. ".into()),
    };
    let services = minds::start(REAL, |_| "And then?".into(), says, |_| 440.0).await;
    let base = services.url("/v1");
    let agent = Server::start("agent", (20_000, 23_998), &minds::settings(&base)).await?;
    let caller = Server::start("caller", (24_000, 27_998), &[]).await?;
    std::fs::write(caller.home.join("sounds/custom/question.wav"), question())?;
    agent.cli(&["trunks", "add", "caller", "--proxy", &format!("sip:127.0.0.1:{}", caller.sip)])?;
    caller.cli(&["trunks", "add", "agent", "--proxy", &format!("sip:127.0.0.1:{}", agent.sip)])?;
    let many = ["--max-concurrent", "2000", "--rate-limit", "1000000"];
    let key = agent.key(&[&["--trunks", "caller"][..], &many].concat())?;
    let admin = agent.key(&["--admin"])?;
    let calling = caller.key(&[&["--trunks", "agent", "--recording", "always"][..], &many].concat())?;
    let about = json!({ "name": "Bench", "type": "inbound", "system_prompt": "Be brief.", "record": false,
                        "first_message": "Hello." });
    let made = agent.ask(&key, Method::POST, "/api/agents", &about).await?;
    let id = made["id"].as_str().ok_or("no agent was made")?.to_owned();
    for number in 0..calls.min(1000) {
        agent.cli(&["numbers", "add", &format!("+1415555{:04}", 7000 + number), "--agent", &id])?;
    }
    println!("{calls} conversations of {turns} turns at once");
    let (agent, caller) = (std::sync::Arc::new(agent), std::sync::Arc::new(caller));
    let mut tasks = JoinSet::new();
    for number in 0..calls {
        let (caller, calling) = (caller.clone(), calling.clone());
        tasks.spawn(async move { converse(&caller, &calling, number, turns).await });
        tokio::time::sleep(APART).await;
    }
    let mut all = Measured::default();
    while let Some(done) = tasks.join_next().await {
        let measured = measure(&done??)?;
        all.answers.extend(measured.answers);
        all.stops.extend(measured.stops);
        all.late.extend(measured.late);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let waits = DONE_MS + ms(REAL.hearing) + ms(REAL.first_word) + ms(REAL.word) * WORDS + ms(REAL.voice);
    println!("in the caller's recordings (with the jitter buffers and frames of both servers):");
    let shares = all.answers.iter().filter(|total| **total < 4000.0).map(|total| total - waits).collect();
    show("  from a question's last sound to the answer's first", all.answers);
    show("  the same without what others took", shares);
    show("  from speaking into an answer to its last sound", all.stops);
    let most = all.late.iter().copied().fold(0.0, f64::max);
    println!("  frames of an answer that were heard after it had stopped: at most {most}");
    own_account(&agent, &key, &admin).await?;
    let metrics = agent.client.get(agent.url("/metrics")).bearer_auth(&admin).send().await?;
    let metrics = metrics.error_for_status()?.text().await?;
    let told = ["ticks", "overruns", "skipped", "lateness"].map(|name| format!("trunkline_media_{name}"));
    for line in metrics.lines().filter(|line| told.iter().any(|name| line.starts_with(name))) {
        println!("agent: {line}");
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str, unless: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(unless)
    };
    let (calls, turns) = (option("--calls", 1), option("--turns", 20));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(calls, turns))
}

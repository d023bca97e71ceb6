//! How late webhooks arrive: a worker on a database file, a crowd of receivers on loopback of which one in a hundred is
//! dead, and a steady stream of events; then how long a claim takes behind queues of different lengths.
//!
//! `cargo bench --bench webhooks -- [--rate EVENTS_PER_SECOND] [--seconds S]`

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use trunkline::config::Webhooks;
use trunkline::model::call::{CallOrder, CallView, Surface};
use trunkline::model::purpose::Purpose;
use trunkline::model::{CallId, PhoneNumber};
use trunkline::store::Db;
use trunkline::store::accounts::NewKey;
use trunkline::store::outbox::NewDelivery;
use trunkline::webhook::Worker;
use trunkline::{api, clock};

const RECEIVERS: u8 = 100;
const CALLS: u128 = 400;
/// Events written in one transaction, as the journal groups them.
const GROUP_EVERY: Duration = Duration::from_millis(10);

type Failure = Box<dyn Error + Send + Sync>;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn option(name: &str, default: u64) -> u64 {
    let words: Vec<String> = std::env::args().collect();
    let found = words.windows(2).find(|pair| pair[0] == name).and_then(|pair| pair[1].parse().ok());
    found.unwrap_or(default)
}

fn main() -> Result<(), Failure> {
    let (rate, seconds) = (option("--rate", 500), option("--seconds", 10));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = std::env::temp_dir().join(format!("trunkline-bench-webhooks-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let scratch = Scratch(folder);
    runtime.block_on(stream(&scratch.0, rate, seconds))?;
    for queued in [100, 1000, 10_000] {
        runtime.block_on(claim(&scratch.0, queued))?;
    }
    Ok(())
}

/// Delays from the event to the receiver, milliseconds.
type Delays = Arc<Mutex<Vec<i64>>>;

async fn receiver(last: u8, delays: Delays) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 11, last), 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, delays.clone()));
        }
    });
    Ok(address)
}

/// Answers every request at once; a body is the moment of its event.
async fn serve(mut stream: TcpStream, delays: Delays) -> Option<()> {
    let mut held = Vec::new();
    loop {
        let mut chunk = [0_u8; 4096];
        let len = stream.read(&mut chunk).await.ok().filter(|len| *len > 0)?;
        held.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&held);
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        if body.len() < 13 {
            continue;
        }
        let at: i64 = body.trim().parse().ok()?;
        delays.lock().ok()?.push(clock::now().wall.0 - at);
        held.clear();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}

async fn database(folder: &Path, name: &str, calls: u128) -> Result<(Db, i64), Failure> {
    let db = Db::open(&format!("sqlite://{}", folder.join(name).display())).await?;
    let now = clock::now().wall;
    let key = db.create_key(NewKey::named("bench"), now).await?.key.id;
    let mut tx = db.begin().await?;
    for call in 1..=calls {
        tx.hold_credit(key).await?;
        tx.insert_call(&CallView::new(Arc::new(order(key, call)?))).await?;
    }
    tx.commit().await?;
    Ok((db, key))
}

fn order(key: i64, call: u128) -> Result<CallOrder, Failure> {
    let to = PhoneNumber::parse_lenient("+14155550100").ok_or("no number")?;
    Ok(CallOrder {
        id: CallId(call),
        kaphila_id: format!("1771322520.{call}"),
        surface: Surface::Kaphila,
        purpose: Purpose::default(),
        key,
        tenant: "default".into(),
        submitted_number: to.e164(),
        to,
        from: None,
        trunks: Vec::new(),
        redials_ms: Vec::new(),
        ring_timeout_ms: 30_000,
        max_duration_ms: 3_600_000,
        use_amd: false,
        record: false,
        record_channels: media::Channels::Mono,
        voice_name: String::new(),
        webhook_url: None,
        created_at: clock::now().wall,
    })
}

fn event(key: i64, call: u128, url: &str) -> NewDelivery {
    let at = clock::now().wall;
    let (url, body) = (url.to_owned(), at.0.to_string().into_bytes());
    NewDelivery {
        call: CallId(call),
        key,
        dialect: "kaphila",
        event: "dtmf.received",
        terminal: false,
        url,
        body,
        at,
    }
}

async fn stream(folder: &Path, rate: u64, seconds: u64) -> Result<(), Failure> {
    let delays = Delays::default();
    let mut urls = Vec::new();
    for last in 1..RECEIVERS {
        urls.push(format!("http://{}/", receiver(last, delays.clone()).await?));
    }
    // Nobody listens on port 9 of this address.
    urls.push("http://127.0.11.254:9/".to_owned());
    let (db, key) = database(folder, "stream.db", CALLS).await?;
    let config =
        Webhooks { allow_http: true, allow_cidrs: vec!["127.0.0.0/8".into()], ..Webhooks::default() };
    let wake = Arc::new(Notify::new());
    let worker = Worker::start(db.clone(), api::FORMATS.to_vec(), &config, wake.clone())?;
    let each = u128::from(rate) * GROUP_EVERY.as_millis() / 1000;
    let (mut next, mut healthy) = (0_u128, 0);
    let mut ticks = tokio::time::interval(GROUP_EVERY);
    for _ in 0..u128::from(seconds) * 1000 / GROUP_EVERY.as_millis() {
        ticks.tick().await;
        let mut tx = db.begin().await?;
        for _ in 0..each {
            let call = next % CALLS + 1;
            let to = usize::try_from(call % u128::from(RECEIVERS))?;
            healthy += usize::from(to + 1 != usize::from(RECEIVERS));
            tx.enqueue(&event(key, call, &urls[to])).await?;
            next += 1;
        }
        tx.commit().await?;
        wake.notify_one();
    }
    let count = || delays.lock().map_or(0, |delays| delays.len());
    for _ in 0..1000 {
        if count() == healthy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop().await;
    db.close().await;
    let mut delays = delays.lock().map_err(|_| "poisoned")?.clone();
    delays.sort_unstable();
    let part = |of: usize| delays.get(delays.len() * of / 1000).copied().unwrap_or(-1);
    println!(
        "{rate} events/s for {seconds} s to {RECEIVERS} receivers, one dead: {} of {healthy} arrived; \
         delay p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
        delays.len(),
        part(500),
        part(900),
        part(990),
        part(999),
        delays.last().copied().unwrap_or(-1),
    );
    Ok(())
}

/// A claim while so many rows wait for a dead receiver and sixteen for others.
async fn claim(folder: &Path, queued: u128) -> Result<(), Failure> {
    let (db, key) = database(folder, &format!("claim-{queued}.db"), queued).await?;
    let mut tx = db.begin().await?;
    let mut dead = Vec::new();
    for call in 1..=queued {
        dead.push(tx.enqueue(&event(key, call, "http://dead.example/")).await?);
    }
    for chunk in dead.chunks(500) {
        tx.set_aside(chunk, "receiver:dead").await?;
    }
    for call in 1..=16 {
        tx.enqueue(&event(key, call, "http://quick.example/")).await?;
    }
    tx.commit().await?;
    let now = clock::now().wall;
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let begun: Instant = clock::now().mono;
        let rows = db.claim(now, 512).await?;
        best = best.min(clock::now().mono.duration_since(begun));
        if rows.len() != 16 {
            return Err(format!("{} rows claimed", rows.len()).into());
        }
    }
    println!("claim behind {queued} queued rows: {} us", best.as_micros());
    db.close().await;
    Ok(())
}

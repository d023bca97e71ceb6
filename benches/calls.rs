//! Whole calls through the front door: the release server as a process on core 0; far end, client and receivers of
//! webhooks on core 1. Each call is `POST /makecall`, INVITE, 200, ACK, a second of sound both heard and recorded, BYE,
//! and all its webhooks (`call.initiated`, `call.answered`, `recording.started`, `recording.stopped`,
//! `recording.completed`, `call.ended`).
//!
//! `cargo bench --bench calls` climbs a ladder of rates; further arguments:
//! `--rate N` (one rate), `--seconds S` (of placing), `--silent` (the far end sends no sound), `--no-recording`,
//! `--no-webhooks`, `--workers N` (media threads), `--database postgres://…`, and `--standing`: what one more call
//! costs beside 100, 5,000 and 20,000 calls that stand.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

mod kernel;
mod load;

use load::far::{Far, Manner};
use load::hooks::Hooks;
use load::program::Program;
use load::{Failed, part_of};

/// The goals, by which the printed figures are judged, and what Asterisk does over ARI on a machine like this.
const GOAL_CALLS: f64 = 800.0;
const GOAL_INVITE_P50_MS: f64 = 2.0;
const GOAL_INVITE_P99_MS: f64 = 10.0;
const GOAL_REST_MS: f64 = 5.0;
const ASTERISK_CALLS: f64 = 80.0;
const LADDER: [usize; 8] = [50, 100, 200, 300, 400, 500, 650, 800];
const STANDING: [usize; 3] = [100, 5_000, 20_000];
/// The first number dialled, after the country's 1.
const FIRST_NUMBER: usize = 2_010_000_000;
/// What is over is waited for so long after the last call was placed.
const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

/// The arguments.
#[derive(Clone, Debug)]
struct Options {
    rate: Option<usize>,
    seconds: usize,
    manner: Manner,
    recording: bool,
    webhooks: bool,
    workers: String,
    database: Option<String>,
    standing: bool,
}

impl Options {
    fn read() -> Result<Self, Failed> {
        let mut options = Self {
            rate: None,
            seconds: 8,
            manner: Manner::Talks,
            recording: true,
            webhooks: true,
            workers: "1".to_owned(),
            database: None,
            standing: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} wants a value"));
            match name.as_str() {
                "--rate" => options.rate = Some(value()?.parse()?),
                "--seconds" => options.seconds = value()?.parse()?,
                "--workers" => options.workers = value()?,
                "--database" => options.database = Some(value()?),
                "--silent" => options.manner = Manner::Silent,
                "--no-recording" => options.recording = false,
                "--no-webhooks" => options.webhooks = false,
                "--standing" => options.standing = true,
                // What cargo itself adds.
                "--bench" => {}
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(options)
    }
}

/// What the client saw of one call.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// When it was due, when its request was sent and when the answer was there, nanoseconds of the wall.
    due: u64,
    sent: u64,
    answered: u64,
    status: u16,
}

/// A client with as many connections as it needs.
struct Client {
    server: std::net::SocketAddr,
    key: String,
    idle: Mutex<Vec<TcpStream>>,
}

impl Client {
    /// One request, and the status of its answer.
    async fn place(&self, number: usize, hook: Option<String>, due: u64) -> Result<Placed, Failed> {
        let hook = hook.map_or_else(String::new, |url| format!(r#","webhookUrl":"{url}""#));
        let body = format!(r#"{{"number":"1{number}","ringTimeout":120{hook}}}"#);
        let request = format!(
            "POST /makecall HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let idle = self.idle.lock().map_err(|_| "a client panicked")?.pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect(self.server).await?,
        };
        let sent = kernel::wall_nanos();
        stream.write_all(request.as_bytes()).await?;
        let mut held = Vec::with_capacity(2048);
        let status = loop {
            if stream.read_buf(&mut held).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let text = String::from_utf8_lossy(&held);
            let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if rest.len() >= length.unwrap_or(0) {
                break head.get(9..12).and_then(|status| status.parse().ok()).ok_or("no status")?;
            }
        };
        let answered = kernel::wall_nanos();
        self.idle.lock().map_err(|_| "a client panicked")?.push(stream);
        Ok(Placed { due, sent, answered, status })
    }
}

/// The server with its key, the far end and the receivers.
struct Stage {
    options: Options,
    server: Program,
    far: Far,
    hooks: Hooks,
    client: Arc<Client>,
    next: usize,
}

impl Stage {
    async fn set_up(options: Options) -> Result<Self, Failed> {
        let far = Far::start()?;
        let hooks = Hooks::start().await?;
        let settings = [
            ("RTP__WORKERS", options.workers.as_str()),
            ("RTP__PORT_MIN", "2000"),
            ("RTP__PORT_MAX", "65534"),
            ("LIMITS__MAX_CALLS", "30000"),
            ("LIMITS__MEDIA_TIMEOUT_S", "3600"),
        ];
        let server = Program::start("bench-calls", options.database.as_deref(), &settings)?;
        while TcpStream::connect(server.http).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.cli(&["trunks", "add", "far", "--proxy", &format!("sip:{}", far.address)])?;
        let recording = if options.recording { "always" } else { "off" };
        let limits = ["--rate-limit", "100000000", "--max-concurrent", "100000", "--recording", recording];
        let mut make = vec!["keys", "create", "bench", "--trunks", "far"];
        make.extend(limits);
        let made = server.cli(&make)?;
        let key = made["key"].as_str().ok_or("no key was printed")?.to_owned();
        let client = Arc::new(Client { server: server.http, key, idle: Mutex::default() });
        Ok(Self { options, server, far, hooks, client, next: FIRST_NUMBER })
    }

    /// Places calls at a steady rate, whatever becomes of them, and waits for the answers.
    async fn place(&mut self, rate: usize, count: usize) -> Result<BTreeMap<usize, Placed>, Failed> {
        let begun = (now(), kernel::wall_nanos());
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let after = Duration::from_secs_f64(index as f64 / rate as f64);
            tokio::time::sleep_until((begun.0 + after).into()).await;
            let number = self.next;
            self.next += 1;
            let hook = self.options.webhooks.then(|| self.hooks.url(number));
            let (client, due) = (Arc::clone(&self.client), begun.1 + after.as_nanos() as u64);
            tasks.spawn(async move { (number, client.place(number, hook, due).await) });
        }
        let mut placed = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let (number, answer) = done?;
            placed.insert(number, answer?);
        }
        Ok(placed)
    }

    /// Waits until all calls are over and all is told of them, or patience is.
    async fn wait_for(&self, calls: usize) -> Result<(), Failed> {
        let until = now() + PATIENCE;
        while now() < until {
            let over = self.far.look(|seen| seen.values().filter(|call| call.over).count())?;
            let told = self.hooks.look(|heard| heard.ended.len())?;
            let recorded = self.hooks.look(|heard| heard.events.get("recording.completed").copied())?;
            let recorded = !self.options.recording || recorded.unwrap_or(0) >= calls as u64;
            if over >= calls && (!self.options.webhooks || (told >= calls && recorded)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whole calls at a rate; what came of them is printed. Whether the server kept up.
    async fn climb(&mut self, rate: usize) -> Result<bool, Failed> {
        self.far.behave(self.options.manner);
        self.far.look(BTreeMap::clear)?;
        self.hooks.look(|heard| *heard = load::hooks::Heard::default())?;
        let count = rate * self.options.seconds;
        let (began, before, packets) = (now(), self.server.usage(), self.far.packets());
        let placed = self.place(rate, count).await?;
        let placing = began.elapsed().as_secs_f64();
        self.wait_for(placed.values().filter(|call| call.status == 200).count()).await?;
        let lasted = began.elapsed().as_secs_f64();
        let after = self.server.usage();
        let usage = after.since(&before);
        let kept_up = self.report(rate, &placed, lasted)?;
        let cpu: f64 = usage.values().sum();
        let threads: Vec<String> = usage
            .iter()
            .filter(|(_, seconds)| **seconds > 0.01 * cpu)
            .map(|(name, seconds)| format!("{name} {:.3}", seconds * 1000.0 / count as f64))
            .collect();
        println!(
            "      server {:.3} ms CPU a call ({}), {:.0} % of its core while placing; {:.0} KiB a call under way; {} packets of sound came",
            cpu * 1000.0 / count as f64,
            threads.join(", "),
            cpu / placing.max(lasted - 1.0) * 100.0,
            after.resident.saturating_sub(before.resident) as f64 / 1024.0 / rate as f64,
            self.far.packets() - packets,
        );
        Ok(kept_up)
    }

    fn report(&self, rate: usize, placed: &BTreeMap<usize, Placed>, lasted: f64) -> Result<bool, Failed> {
        let seen = self.far.look(|seen| seen.clone())?;
        let good = placed.iter().filter(|(_, call)| call.status == 200);
        let calls: Vec<_> = good.filter_map(|(number, call)| Some((call, seen.get(number)?))).collect();
        let sorted = |part: &dyn Fn(&Placed, &load::far::Seen) -> f64| {
            let mut all: Vec<f64> = calls.iter().map(|(call, seen)| part(call, seen)).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let ms = |from: u64, to: u64| (to as f64 - from as f64) / 1e6;
        let invite = sorted(&|call, seen| ms(call.sent, seen.invited));
        let own = sorted(&|call, seen| ms(call.sent, call.answered) - ms(seen.invited, seen.answered));
        let late = sorted(&|call, _| ms(call.due, call.sent));
        let over = calls.iter().filter(|(_, seen)| seen.over).count();
        let (events, ended, twice, last) = self.hooks.look(|heard| {
            let last = heard.ended.values().max().copied();
            (heard.events.clone(), heard.ended.len(), heard.twice, last)
        })?;
        let began = placed.values().map(|call| call.due).min().unwrap_or(0);
        let whole = last.map_or(lasted, |last| ms(began, last) / 1000.0) - 1.0;
        let done = over as f64 / whole;
        let kept_up = done > 0.9 * rate as f64 && over == placed.len();
        println!(
            "{rate:5}/s {}: {done:.0} whole calls a second ({:.1} of Asterisk's, goal {GOAL_CALLS}); {} placed, {} refused, {} unfinished",
            if kept_up { "held" } else { "NOT held" },
            done / ASTERISK_CALLS,
            placed.len(),
            placed.values().filter(|call| call.status != 200).count(),
            calls.len() - over,
        );
        println!(
            "      REST to INVITE p50 {:.2} ms, p99 {:.2} ms, max {:.2} (goals {GOAL_INVITE_P50_MS}, {GOAL_INVITE_P99_MS} at half the most); \
             answer beyond the trunk's own time p50 {:.2}, p99 {:.2} (goal {GOAL_REST_MS}); client late p99 {:.2}",
            part_of(&invite, 0.5),
            part_of(&invite, 0.99),
            part_of(&invite, 1.0),
            part_of(&own, 0.5),
            part_of(&own, 0.99),
            part_of(&late, 0.99),
        );
        let told: Vec<String> = events.iter().map(|(event, count)| format!("{event} {count}")).collect();
        println!(
            "      webhooks: {} ends told, {twice} twice; {}; {} files of recordings",
            ended,
            told.join(", "),
            self.server.recordings()
        );
        Ok(kept_up)
    }

    /// What one more call costs beside calls that stand.
    async fn beside(&mut self) -> Result<(), Failed> {
        let (mut standing, rate, count) = (0, 50, 500);
        let mut costs = Vec::new();
        for many in STANDING {
            self.far.behave(Manner::Holds);
            let (before, new) = (self.server.usage(), many - standing);
            let placed = self.place(250, new).await?;
            standing += placed.values().filter(|call| call.status == 200).count();
            tokio::time::sleep(Duration::from_secs(8)).await;
            let idle = self.server.usage();
            let memory = idle.resident.saturating_sub(before.resident) as f64 / 1024.0 / new as f64;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let quiet: f64 = self.server.usage().since(&idle).values().sum::<f64>() / 5.0;
            self.far.behave(Manner::Silent);
            let (began, busy) = (now(), self.server.usage());
            let placed = self.place(rate, count).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let spent: f64 = self.server.usage().since(&busy).values().sum();
            let each = (spent - quiet * began.elapsed().as_secs_f64()) * 1000.0 / count as f64;
            let mut rest: Vec<f64> =
                placed.values().map(|call| (call.answered - call.sent) as f64 / 1e6).collect();
            rest.sort_by(f64::total_cmp);
            println!(
                "beside {standing:>6}: {each:.3} ms CPU a call, answered p50 {:.2} ms, p99 {:.2} ms; standing they take {:.1} % of the core, {memory:.0} KiB each",
                part_of(&rest, 0.5),
                part_of(&rest, 0.99),
                quiet * 100.0
            );
            costs.push(each);
        }
        let (least, most) = costs.iter().fold((f64::MAX, 0.0_f64), |(l, m), c| (l.min(*c), m.max(*c)));
        println!("flat: {:.2} times the least", most / least);
        Ok(())
    }
}

async fn run(options: Options) -> Result<(), Failed> {
    println!("server on core 0, all else on core 1: {options:?}");
    let mut stage = Stage::set_up(options.clone()).await?;
    // What is made at the first call of all is not what is measured.
    stage.far.behave(Manner::Silent);
    stage.place(20, 20).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    if options.standing {
        return stage.beside().await;
    }
    for rate in options.rate.map_or(LADDER.to_vec(), |rate| vec![rate]) {
        if !stage.climb(rate).await? {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    kernel::raise_file_limit();
    kernel::pin(1);
    let options = Options::read()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(options))
}

//! A campaign with all kinds of outcomes whose server is killed again and again, alone or as one of two that share a
//! PostgreSQL. The far end lives on and is the witness: nobody is called twice for one attempt, and never too many at
//! once; the server's own books must say the same. `CONTACTS=10000` asks for a larger one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::Key;
use crate::carrier::Carrier;
use crate::database;
use crate::harness::postgres::Database;
use crate::harness::{Server, go_within, home, number, until};

/// Contacts in one run of the tests, and crashes.
const CONTACTS: usize = 600;
const CRASHES: usize = 5;

/// Calls at once.
const MOST: i64 = 50;

/// Of a hundred contacts so many have a number that ends in these digits. The rest talks: answers and hangs up after 1 s.
const OUTCOMES: &[(usize, &str)] =
    &[(15, "0300"), (8, "0302"), (6, "0301"), (5, "0304"), (2, "0306"), (1, "0303")];
const TALKS: &str = "0400";
/// These fail by their trunk.
const BROKEN: &str = "0306";

fn contacts() -> usize {
    std::env::var("CONTACTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CONTACTS)
}

/// Numbers of all kinds, well mixed.
fn people(count: usize) -> Vec<String> {
    let kind = |n: usize| {
        let mut place = n * 37 % 100;
        for (share, digits) in OUTCOMES {
            if place < *share {
                return *digits;
            }
            place -= share;
        }
        TALKS
    };
    (0..count).map(|n| number(kind(n))).collect()
}

/// When a server was killed.
struct Crash {
    sip: SocketAddr,
    at: Timestamp,
}

/// What is true of a campaign at its end.
struct Books {
    /// By number, without the plus.
    members: BTreeMap<String, Value>,
    /// Every call of the log.
    calls: Vec<Value>,
}

/// An answer, or nothing where the server is gone.
async fn ask(key: &Key, path: &str) -> Option<Value> {
    let answer = key.request(Method::GET, path).timeout(Duration::from_secs(10)).send().await.ok()?;
    let fine = answer.status() == 200;
    let body = answer.json().await.ok()?;
    fine.then_some(body)
}

/// Makes the campaign, paused and without contacts; the key and the campaign's id.
async fn prepare(server: &Server, carrier: &Carrier) -> (Key, String) {
    server.trunk("carrier", carrier.addr, &[]);
    let key = server.key(&["--tenant", "outreach", "--trunks", "carrier", "--rate-limit", "1000000"]);
    let agent = json!({"name": "A", "systemPrompt": "P", "firstMessage": "Hello.", "record": false});
    let agent = key.post("/api/v1/agents", &agent).await.expect(201)["id"].clone();
    server.cli(&["numbers", "add", &format!("+{}", number("7777")), "--tenant", "outreach"]);
    let numbers = key.get("/api/v1/phone-numbers").await.expect(200);
    let campaign = json!({
        "name": "All of them", "agentId": agent, "phoneNumberId": numbers[0]["id"], "status": "paused",
        "maxConcurrentCalls": MOST, "callsPerSecond": 100, "maxAttempts": 2, "retryDelaySeconds": 1
    });
    let id = key.post("/api/v1/campaigns", &campaign).await.expect(201)["id"].as_str().unwrap().to_owned();
    (key, id)
}

/// Brings the contacts as a file, and lets the campaign begin.
async fn begin(key: &Key, campaign: &str, people: &[String]) {
    let path = format!("/api/v1/campaigns/{campaign}");
    let rows: String = people.iter().map(|number| format!("+{number}\n")).collect();
    let list = key.request(Method::POST, &format!("{path}/contacts")).header("content-type", "text/csv");
    let brought = crate::api::send(list.body(format!("phone\n{rows}"))).await.expect(200);
    assert_eq!(brought["imported"], people.len());
    let active = key.request(Method::PATCH, &path).header("content-type", "application/json");
    crate::api::send(active.body(r#"{"status":"active"}"#)).await.expect(200);
}

/// Kills the servers in turn while the campaign goes on, each at a moment of its own.
async fn crash_on_the_way(servers: &mut [Server], keys: &[Key], campaign: &str, count: usize) -> Vec<Crash> {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let path = format!("/api/v1/campaigns/{campaign}");
    let mut crashes = Vec::new();
    for n in 0..CRASHES {
        let so_far = i64::try_from(count * (n + 1) / (CRASHES + 2)).unwrap();
        until(900.0, &format!("{so_far} contacts are finished"), async || {
            let shown = ask(&keys[0], &path).await?;
            (shown["callsCompleted"].as_i64()? >= so_far).then_some(())
        })
        .await;
        sleep(Duration::from_millis(u64::from(random.next_u32() % 1200))).await;
        let server = &mut servers[n % keys.len()];
        server.crash();
        // What it sent last has arrived by then.
        sleep(Duration::from_millis(300)).await;
        crashes.push(Crash { sip: server.sip, at: Timestamp::now() });
        sleep(Duration::from_millis(u64::from(random.next_u32() % 2000))).await;
        server.start_again().await;
    }
    crashes
}

/// Waits for the campaign's end and reads the books of it.
async fn books(key: &Key, campaign: &str, longest_s: f64) -> Books {
    let path = format!("/api/v1/campaigns/{campaign}");
    let over = until(longest_s, "everybody was called", async || {
        let shown = ask(key, &path).await?;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    println!("{}", over["progress"]);
    let mut members = BTreeMap::new();
    for offset in (0..).step_by(1000) {
        let page = ask(key, &format!("{path}/contacts?limit=1000&offset={offset}")).await.unwrap();
        let rows = page["contacts"].as_array().unwrap();
        members.extend(
            rows.iter()
                .map(|row| (row["phone"].as_str().unwrap().trim_start_matches('+').to_owned(), row.clone())),
        );
        if rows.is_empty() {
            break;
        }
    }
    let mut calls = Vec::new();
    for offset in (0..).step_by(200) {
        let path = format!("/api/v1/calls?campaignId={campaign}&limit=200&offset={offset}");
        let page = ask(key, &path).await.unwrap();
        let rows = page["calls"].as_array().unwrap();
        calls.extend(rows.iter().cloned());
        if rows.is_empty() {
            assert_eq!(page["total"], calls.len());
            break;
        }
    }
    assert_eq!(over["callsTotal"], over["callsCompleted"]);
    Books { members, calls }
}

/// How many calls the far end had at once, those of a dead server not counted from its death on.
fn most_at_once(lines: &[Value], crashes: &[Crash]) -> i64 {
    let moment =
        |line: &Value, name: &str| line[name].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let mut steps = Vec::new();
    for line in lines {
        let begin = moment(line, "invitedAt").unwrap();
        let source: SocketAddr = line["source"].as_str().unwrap().parse().unwrap();
        let death =
            crashes.iter().filter(|crash| crash.sip == source && crash.at >= begin).map(|crash| crash.at);
        let end = moment(line, "endedAt").unwrap();
        steps.push((begin, 1));
        steps.push((death.min().map_or(end, |death| death.min(end)).max(begin), -1));
    }
    steps.sort_unstable();
    let mut open = 0;
    let opened = steps.into_iter().map(|(_, step)| {
        open += step;
        open
    });
    opened.max().unwrap_or(0)
}

/// What must hold of everybody.
fn all_is_well(people: &[String], books: &Books, lines: &[Value], crashes: &[Crash]) {
    let mut dialled: BTreeMap<&str, i64> = BTreeMap::new();
    let mut by_call_id: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        *dialled.entry(line["to"].as_str().unwrap().trim_start_matches("00")).or_default() += 1;
        *by_call_id.entry(line["callId"].as_str().unwrap()).or_default() += 1;
    }
    assert!(by_call_id.values().all(|times| *times == 1));
    let mut logged: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for call in &books.calls {
        logged.entry(call["to"].as_str().unwrap().trim_start_matches('+')).or_default().push(call);
    }
    assert_eq!(books.members.len(), people.len());
    let (mut lost, mut late) = (0, 0);
    for number in people {
        let row = &books.members[number];
        let calls = logged.get(&**number).map_or(&[][..], Vec::as_slice);
        let far = dialled.get(&**number).copied().unwrap_or(0);
        let told = format!("{row} {calls:?}, dialled {far} times");
        let attempts = row["attempts"].as_i64().unwrap();
        let state = row["state"].as_str().unwrap();
        assert!(matches!(state, "done" | "failed"), "not final: {told}");
        assert_eq!(calls.len() as i64, attempts, "the log knows other calls: {told}");
        assert!((1..=2).contains(&attempts), "{told}");
        assert!(far <= attempts, "dialled twice for one attempt: {told}");
        let completed = calls.iter().filter(|call| call["status"] == "completed").count();
        assert_eq!(completed, usize::from(state == "done"), "{told}");
        // Of a call that a crash cut off nobody knows whether the telephone rang.
        if row["lastOutcome"] == "engine_restart" {
            lost += 1;
            continue;
        }
        let (outcome, digits) = (row["lastOutcome"].as_str().unwrap(), &number[number.len() - 4..]);
        // The far end did not respond in time: this machine has other things to do, too.
        if outcome == "trunk_failure" && digits != BROKEN {
            late += 1;
            continue;
        }
        assert!(far >= 1, "never dialled: {told}");
        match digits {
            TALKS => assert_eq!(outcome, "completed", "{told}"),
            "0300" => assert_eq!((outcome, attempts), ("busy", 2), "{told}"),
            "0303" => assert_eq!(outcome, "no_answer", "{told}"),
            "0302" => assert_eq!(outcome, "not_found", "{told}"),
            _ => assert_eq!(state, "failed", "{told}"),
        }
    }
    let most = most_at_once(lines, crashes);
    println!(
        "{} contacts, {} calls in the log, {} at the far end, at most {most} at once; {} crashes cut {lost} calls off; \
         {late} responses came too late",
        people.len(),
        books.calls.len(),
        lines.len(),
        crashes.len(),
    );
    assert!(most <= MOST && most > MOST / 2, "{most} calls at once");
    assert!(late <= people.len() / 20, "the far end is too slow: {late} responses came too late");
}

/// Time for so many contacts.
fn longest(count: usize) -> Duration {
    Duration::from_secs(200 + u64::try_from(count).unwrap() / 4)
}

#[test]
fn a_campaign_whose_server_is_killed_calls_everybody_and_nobody_twice() {
    let count = contacts();
    go_within(longest(count), async {
        let begun = Instant::now();
        let carrier = Carrier::start(&home("campaign-carrier"), false).await;
        let server = Server::start("campaign", &[]).await;
        let (key, campaign) = prepare(&server, &carrier).await;
        let people = people(count);
        begin(&key, &campaign, &people).await;
        let mut servers = [server];
        let crashes = crash_on_the_way(&mut servers, std::slice::from_ref(&key), &campaign, count).await;
        let books = books(&key, &campaign, longest(count).as_secs_f64()).await;
        println!("{:.0} s", begun.elapsed().as_secs_f64());
        all_is_well(&people, &books, &carrier.lines(), &crashes);
    });
}

#[test]
fn two_servers_share_a_campaign_and_may_both_be_killed() {
    let count = contacts();
    let _alone = database::alone();
    go_within(longest(count), async {
        let begun = Instant::now();
        let database = Database::new();
        let url = database.url();
        let recordings = home("campaign-recordings");
        let settings = [("DATABASE__URL", url.as_str()), ("PATHS__RECORDINGS", recordings.to_str().unwrap())];
        let carrier = Carrier::start(&home("campaign-carrier"), false).await;
        let mut servers =
            [Server::start("campaign-a", &settings).await, Server::start("campaign-b", &settings).await];
        let (key, campaign) = prepare(&servers[0], &carrier).await;
        let other = Key { base: format!("http://{}", servers[1].http), ..key.clone() };
        let people = people(count);
        // The contacts come by one server, and the campaign is watched through both.
        begin(&other, &campaign, &people).await;
        let keys = [key, other];
        let crashes = crash_on_the_way(&mut servers, &keys, &campaign, count).await;
        let books = books(&keys[1], &campaign, longest(count).as_secs_f64()).await;
        println!("{:.0} s", begun.elapsed().as_secs_f64());
        let lines = carrier.lines();
        all_is_well(&people, &books, &lines, &crashes);
        for server in &servers {
            let own = lines.iter().filter(|line| line["source"] == json!(server.sip)).count();
            println!("{own} calls by {}", server.sip);
            assert!(own > 0, "one server did all the work");
        }
    });
}

//! A PostgreSQL that crashes in the middle of calls and comes back: calls and what is said in them go on, new calls are
//! refused in words, nothing is told before it is written, and afterwards everything is written, once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::api::bare;
use crate::customers::Customers;
use crate::harness::postgres::Database;
use crate::harness::{Server, go, go_within, number, until};
use crate::invariants::{every_end_arrives, money_is_exact, no_torn_file, one_end_each, settled};
use crate::receiver::Receiver;
use crate::uas::{Script, Uas};

/// There is one PostgreSQL for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// Has it for a test alone: taken outside of the time that the test is given, for the others may need all of theirs.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    // A test that failed with it has left nothing behind that a later one minds.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// PostgreSQL is not there until this is dropped.
struct Outage(PathBuf);

impl Outage {
    /// Ends it as a crash does: sessions are cut, transactions under way are lost.
    async fn begin(database: &Database) -> Self {
        let url = database.url();
        let home = Path::new(url.split("host=").nth(1).expect("it is spoken to by a socket in its folder"));
        let down = home.join("down");
        File::create(&down).expect("its folder can be written");
        let status = std::fs::read_to_string(home.join("data/postmaster.pid")).expect("it runs");
        let pid = status.lines().next().expect("its number comes first").to_owned();
        let sent = Command::new("kill").args(["-s", "QUIT", &pid]).status().expect("kill can be run");
        assert!(sent.success());
        until(10.0, "PostgreSQL is gone", async || (!Path::new("/proc").join(&pid).exists()).then_some(()))
            .await;
        Self(down)
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        // Where that fails the tests that wait for it say so.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The status of the health page and what it says of itself.
async fn health(server: &Server) -> Option<(u16, String)> {
    let answer = bare(server.http, Method::GET, "/health").send().await.ok()?;
    let code = answer.status().as_u16();
    let body: serde_json::Value = answer.json().await.ok()?;
    Some((code, body["status"].as_str().unwrap_or_default().to_owned()))
}

async fn is_well(server: &Server) {
    let well = Some((200, "healthy".to_owned()));
    until(30.0, "the health page is content again", async || (health(server).await == well).then_some(()))
        .await;
}

#[test]
fn a_database_server_that_crashes_holds_up_no_call_and_loses_none() {
    let _alone = alone();
    go(async {
        let database = Database::new();
        let url = database.url();
        let server = Server::start("cut", &[("DATABASE__URL", &url)]).await;
        let (staying, leaving) = (Uas::answering().await, Uas::answering().await);
        let (key, _) = server.key_on("10", &[staying.addr, leaving.addr]);
        let hooks = Receiver::start().await;
        let order = json!({"number": number("0100"), "webhookUrl": hooks.url()});
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(key.answered_call(&order).await);
        }
        let text = "This sentence is said while the database is away. ".repeat(8);
        key.post("/voice", &json!({"callId": calls[0], "text": text})).await.expect(200);
        let sound = staying.sound().await;
        until(10.0, "the text is heard", async || sound.last_heard()).await;

        let outage = Outage::begin(&database).await;
        let began = Instant::now();
        until(20.0, "the health page says what is wrong", async || {
            (health(&server).await?.0 == 500).then_some(())
        })
        .await;
        let refused = key.post("/makecall", &order).await;
        assert_eq!(refused.refused(500), "Internal server error");
        leaving.bye().await;
        until(5.0, "the end of a call is answered at once", async || {
            let answered = |text: &str| text.starts_with("SIP/2.0 200") && text.contains("7 BYE");
            leaving.log().iter().any(|message| answered(&message.text)).then_some(())
        })
        .await;
        until(20.0, "what was being said goes on", async || {
            sound.last_heard().filter(|last| *last > began + Duration::from_secs(2))
        })
        .await;
        assert_eq!(hooks.count("call.ended"), 0, "nothing is told that is not written down");

        drop(outage);
        is_well(&server).await;
        hooks.wait("call.ended").await;
        key.post("/voice", &json!({"callId": calls[0], "text": "Still here."})).await.expect(200);
        let fourth = key.answered_call(&order).await;
        for call in [&calls[0], &calls[2], &fourth] {
            key.hang_up(call).await;
        }
        let past = settled(&key).await;
        assert_eq!(past.len(), 4, "what was refused is no call");
        one_end_each(&past);
        money_is_exact(&key, 10, &past).await;
        every_end_arrives(&key, &hooks, &past).await;
        assert!(no_torn_file(&server.home.join("recordings")) > 0);
    });
}

/// Credits of the busy key: more than can be spent.
const CREDITS: i64 = 100_000;

/// Crashes of the database in the busy run.
const CRASHES: u32 = 4;

#[test]
fn a_database_server_that_crashes_again_and_again_loses_nothing_and_counts_nothing_twice() {
    let _alone = alone();
    go_within(Duration::from_secs(240), async {
        let database = Database::new();
        let url = database.url();
        let settings = [
            ("DATABASE__URL", url.as_str()),
            ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "100000"),
            ("RATELIMIT__KAPHILA_WINDOW_S", "1"),
        ];
        let server = Server::start("crashes", &settings).await;
        let answering = Uas::start(Script::Answer(Duration::from_millis(30))).await;
        let busy = Uas::start(Script::Final("486 Busy Here", "")).await;
        let (key, _) = server.key_on(&CREDITS.to_string(), &[answering.addr, busy.addr]);
        let hooks = Receiver::start().await;
        let customers = Customers::start(6, &key, &hooks.url());
        let seed = u64::from(std::process::id());
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut wait = async |least: u32, most: u32| {
            let ms = least + random.next_u32() % (most - least);
            tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
        };
        for _ in 0..CRASHES {
            wait(300, 1500).await;
            let outage = Outage::begin(&database).await;
            wait(0, 2500).await;
            drop(outage);
            is_well(&server).await;
        }
        let promised = customers.stop().await;
        // Customers whose hanging up was refused have gone away; the calls have not.
        let live = key.get("/calls").await.expect(200);
        for call in live["calls"].as_array().expect("a list") {
            let body = json!({"callId": call["callId"]});
            let over = key.post("/hangup", &body).await.status;
            assert!(matches!(over, 200 | 404), "{over}");
        }
        let past = settled(&key).await;
        let answered = past.iter().filter(|call| call.answered()).count();
        println!(
            "seed {seed}: {} calls asked for, {} accepted, {} in the log, {answered} answered",
            promised.asked(),
            promised.calls().len(),
            past.len(),
        );
        assert!(answered > 0);
        for call in promised.calls() {
            assert!(past.iter().any(|known| known.id == call), "a promised call is not known: {call}");
        }
        one_end_each(&past);
        money_is_exact(&key, CREDITS, &past).await;
        every_end_arrives(&key, &hooks, &past).await;
        assert!(no_torn_file(&server.home.join("recordings")) > 0);
    });
}

//! `kill -9` at random moments of a busy run, again and again on the same database.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::customers::Customers;
use crate::harness::{Server, go_within};
use crate::invariants::{every_end_arrives, money_is_exact, no_torn_file, one_end_each, settled};
use crate::receiver::Receiver;
use crate::uas::{Script, Uas};

/// Kills in one run of the tests; `KILLS` asks for more.
const KILLS: u32 = 20;

/// Credits of the key: more than can be spent.
const CREDITS: i64 = 100_000;

fn kills() -> u32 {
    std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

#[test]
fn a_server_killed_at_any_moment_loses_nothing_and_counts_nothing_twice() {
    let kills = kills();
    go_within(Duration::from_secs(120 + 5 * u64::from(kills)), async {
        let settings =
            [("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "100000"), ("RATELIMIT__KAPHILA_WINDOW_S", "1")];
        let mut server = Server::start("kills", &settings).await;
        let answering = Uas::start(Script::Answer(Duration::from_millis(30))).await;
        let busy = Uas::start(Script::Final("486 Busy Here", "")).await;
        let (key, _) = server.key_on(&CREDITS.to_string(), &[answering.addr, busy.addr]);
        let hooks = Receiver::start().await;
        let customers = Customers::start(6, &key, &hooks.url());
        let seed = u64::from(std::process::id());
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..kills {
            tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 700))).await;
            server.crash();
            server.start_again().await;
        }
        let promised = customers.stop().await;
        let past = settled(&key).await;
        println!(
            "seed {seed}: {kills} kills, {} calls asked for, {} accepted, {} in the log, {} of them answered",
            promised.asked(),
            promised.calls().len(),
            past.len(),
            past.iter().filter(|call| call.answered()).count(),
        );
        for call in promised.calls() {
            assert!(
                past.iter().any(|known| known.id == call),
                "a call that was promised is not known: {call}"
            );
        }
        one_end_each(&past);
        money_is_exact(&key, CREDITS, &past).await;
        every_end_arrives(&key, &hooks, &past).await;
        assert!(no_torn_file(&server.home.join("recordings")) > 0);
    });
}

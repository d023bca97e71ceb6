//! Credits: taken once when a call is answered, at no other time, and never more than there are.

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{go, number, world};
use crate::receiver::Receiver;
use crate::sipp::Sipp;

#[test]
fn t29_a_credit_is_taken_at_the_answer() {
    go(async {
        let world = world().await;
        let key = world.key("10");
        let hooks = Receiver::start().await;
        let call = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        assert_eq!(key.get(&format!("/calls/{call}")).await.expect(200)["status"], "ringing");
        assert_eq!(key.credits().await, 10);
        hooks.wait("call.answered").await;
        assert_eq!(key.credits().await, 9);
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        assert_eq!(key.credits().await, 9);
        let me = key.get("/api/me").await.expect(200);
        assert_eq!((&me["apiKey"]["totalCalls"], &me["apiKey"]["successfulCalls"]), (&json!(1), &json!(1)));
    });
}

#[test]
fn t30_an_unanswered_call_costs_nothing() {
    go(async {
        let mut far = Sipp::start("not_available", 1).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let call = key.call(&json!({"number": number("0100")})).await;
        assert_eq!(key.wait_ended(&call).await["status"], "no_answer");
        far.went_well().await;
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn an_unlimited_key_shows_minus_one() {
    go(async {
        let key = world().await.key("unlimited");
        let placed = key.post("/makecall", &json!({"number": number("0304")})).await.expect(200);
        assert_eq!(placed["credits"], -1);
        assert_eq!(key.credits().await, -1);
    });
}

#[test]
fn x19_the_last_credit_is_not_sold_twice() {
    go(async {
        let world = world().await;
        for (credits, requests) in [(1, 2), (5, 50)] {
            let key = world.key(&credits.to_string());
            let mut tasks = JoinSet::new();
            for _ in 0..requests {
                let (key, body) = (key.clone(), json!({"number": number("0400")}));
                tasks.spawn(async move { key.post("/makecall", &body).await });
            }
            let answers = tasks.join_all().await;
            let placed: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
            let refused = answers.iter().filter(|answer| answer.status == 402).count();
            assert_eq!((placed.len(), refused), (credits, requests - credits));
            for answer in placed {
                let ended = key.wait_ended(&crate::api::call_id(&answer.json())).await;
                assert_eq!(ended["status"], "completed");
            }
            assert_eq!(key.credits().await, 0);
            key.post("/makecall", &json!({"number": number("0100")})).await.refused(402);
        }
    });
}

#[test]
fn a_released_hold_can_be_used_again() {
    go(async {
        let key = world().await.key("1");
        for _ in 0..3 {
            let call = key.call(&json!({"number": number("0303")})).await;
            key.post("/makecall", &json!({"number": number("0303")})).await.refused(402);
            key.hang_up(&call).await;
            assert_eq!(key.wait_ended(&call).await["status"], "canceled");
        }
        assert_eq!(key.credits().await, 1);
    });
}

//! Crashes and orderly stops: what was promised before is kept after.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::audio::{RATE, read_wav};
use crate::harness::{Server, free_port, go, number, until, world};
use crate::receiver::{Receiver, at_once, genuine};
use crate::recordings::finished;
use crate::uas::{Script, Uas};

#[test]
fn t164_a_crash_closes_calls_settles_money_once_and_keeps_the_recording() {
    go(async {
        let mut server = Server::start("crash", &[]).await;
        let (talking, ringing) = (Uas::answering().await, Uas::start(Script::Ring).await);
        let (key, _) = server.key_on("10", &[talking.addr, ringing.addr]);
        let hooks = Receiver::start().await;
        let answered = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let waiting = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        hooks.wait("recording.started").await;
        talking.sound().await.say(&crate::audio::chirp(1.0));
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.crash();
        server.start_again().await;

        hooks.wait_nth("call.ended", 2).await;
        for (call, was_answered) in [(&answered, true), (&waiting, false)] {
            let all = hooks.all();
            let ends: Vec<_> =
                all.iter().filter(|d| d.event() == "call.ended" && d.json["callId"] == **call).collect();
            assert_eq!(ends.len(), 1);
            let end = &ends[0].json;
            assert_eq!(
                (&end["endReason"], &end["status"]),
                (&json!("engine_restart"), &json!("failed")),
                "{end}"
            );
            assert_eq!(
                (&end["hangupCause"], &end["wasAnswered"]),
                (&json!("41"), &json!(was_answered)),
                "{end}"
            );
            assert!(genuine(&key.webhook_secret, ends[0], &ends[0].body));
            assert_eq!(key.wait_ended(call).await["status"], "failed");
            key.get(&format!("/calls/{call}")).await.refused(404);
        }
        assert_eq!(key.credits().await, 9, "the answered call is paid, the other is not");
        hooks.wait("recording.completed").await;
        let wav = finished(&key, &answered).await;
        let seconds = read_wav(&wav).len() as f64 / RATE as f64;
        assert!((0.5..4.0).contains(&seconds), "{seconds} s saved");

        server.crash();
        server.start_again().await;
        assert_eq!(key.credits().await, 9);
        let (after, _) = server.key_on("1", &[talking.addr]);
        let call = after.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        assert!(call != answered && call != waiting, "ids are not used again");
        after.hang_up(&call).await;
        hooks.wait_nth("call.ended", 3).await;
        assert_eq!(hooks.count("call.ended"), 3, "nothing is told twice");
    });
}

#[test]
fn x13_webhooks_that_could_not_be_sent_are_sent_after_a_crash() {
    go(async {
        let mut server = Server::start("pending", &[]).await;
        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let url = format!("http://{addr}/hooks/calls");
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": url})).await;
        key.wait_ended(&call).await;
        finished(&key, &call).await;
        server.crash();
        let hooks = Receiver::on(addr, at_once).await;
        server.start_again().await;
        hooks.wait("recording.completed").await;
        assert_eq!(hooks.events(), ["call.ended", "recording.completed"], "live events are not told late");
        for delivery in hooks.all() {
            assert!(genuine(&key.webhook_secret, &delivery, &delivery.body));
        }
        assert_eq!(hooks.all()[0].json["endReason"], "normal_hangup");
    });
}

#[test]
fn t166_sigterm_ends_calls_and_tells_it() {
    go(async {
        let mut server = Server::start("term", &[("LIMITS__DRAIN_S", "2")]).await;
        let (far, ringing) = (Uas::answering().await, Uas::start(Script::Ring).await);
        let (key, _) = server.key_on("10", &[far.addr, ringing.addr]);
        let hooks = Receiver::start().await;
        let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        key.call(&json!({"number": number("0100")})).await;
        let asked = Instant::now();
        server.process.signal("TERM");
        until(1.5, "new calls are refused", async || {
            let answer = key.post("/makecall", &json!({"number": number("0100")})).await;
            (answer.status == 503).then(|| assert!(!answer.header("retry-after").is_empty()))
        })
        .await;
        assert_eq!(far.count("BYE"), 0, "live calls have a while");
        far.wait("BYE").await;
        ringing.wait("CANCEL").await;
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["endReason"], &ended["callId"]), (&json!("shutdown"), &json!(call)));
        let status = server.process.exited(35.0).await;
        assert!(status.success(), "{status}");
        assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());

        server.start_again().await;
        read_wav(&finished(&key, &call).await);
        assert_eq!(key.credits().await, 9);
        hooks.wait("recording.completed").await;
        assert_eq!((hooks.count("call.ended"), hooks.count("recording.completed")), (1, 1));
    });
}

#[test]
fn sigterm_without_calls_is_quick() {
    go(async {
        let mut server = Server::start("idle", &[]).await;
        server.process.signal("TERM");
        assert!(server.process.exited(5.0).await.success());
    });
}

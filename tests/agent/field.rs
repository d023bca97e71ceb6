//! Defects that other engines really shipped, one test each, as far as no other file has them: ports, holds, places, and
//! callers who change their minds.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::audio::{chirp, heard_seconds, likeness};
use crate::harness::{Server, free_port, go, number, until};
use crate::receiver::Receiver;
use crate::rtp::Sound;
use crate::sipp::Sipp;
use crate::uac::{Uac, status};
use crate::uas::{Script, Uas};

/// A server that takes calls to this number from the loopback address and says back what it hears.
async fn echo(name: &str, settings: &[(&str, &str)]) -> (Server, String) {
    let server = Server::start(name, settings).await;
    server.trunk("carrier", "127.0.0.1:9".parse().expect("an address"), &[]);
    server.key(&["--trunks", "carrier"]);
    let number = number("0070");
    server.cli(&["numbers", "add", &format!("+{number}"), "--echo"]);
    (server, number)
}

/// The sound of a far end at an odd port: nobody who follows RFC 3550 §11 chooses one, and some do.
async fn odd() -> Arc<Sound> {
    loop {
        let sound = Sound::open(101).await;
        let answer = sound.answer();
        let port = answer.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        if port.is_some_and(|port: u16| !port.is_multiple_of(2)) {
            return sound;
        }
    }
}

/// 5.26, 5.33: sound follows a port that moves, to an odd one, too.
#[test]
fn a_port_that_moves_is_followed() {
    go(async {
        let (server, number) = echo("moved", &[]).await;
        let uac = Uac::to(server.sip).await;
        let dialog = uac.answered(&number, "").await;
        until(5.0, "sound flows", async || (dialog.sound.heard().len() > 5).then_some(())).await;
        let moved = odd().await;
        dialog.sound.mute();
        let answer = dialog.reinvite(2, &moved.answer()).await;
        assert_eq!(status(&answer), "200 OK");
        moved.connect(answer.body());
        until(5.0, "sound flows to the new port", async || (moved.heard().len() > 5).then_some(())).await;
        let since = Instant::now();
        let wanted: Vec<f64> = chirp(1.0).into_iter().map(f64::from).collect();
        let mut said: Option<Instant> = None;
        until(15.0, "what was said comes back to the new port", async || {
            // Said again where a busy machine has torn it.
            let start = *match &mut said {
                Some(start) if start.elapsed() < Duration::from_secs(4) => start,
                again => {
                    moved.say(&chirp(1.0));
                    again.insert(Instant::now())
                }
            };
            (likeness(&wanted, &moved.samples_since(start)) > 0.9).then_some(())
        })
        .await;
        assert!(heard_seconds(&dialog.sound.samples_since(since)) < 0.1, "the old port hears it, too");
        dialog.bye().await;
    });
}

/// 5.12: who is on hold is silent, and that is no fault; who is silent afterwards is gone.
#[test]
fn a_hold_outlasts_the_time_limit_for_sound() {
    go(async {
        let (server, number) = echo("held", &[("LIMITS__MEDIA_TIMEOUT_S", "1")]).await;
        let uac = Uac::to(server.sip).await;
        let dialog = uac.answered(&number, "").await;
        until(5.0, "sound flows", async || (dialog.sound.heard().len() > 5).then_some(())).await;
        let talking = dialog.sound.answer();
        let held = dialog.reinvite(2, &talking.replace("a=sendrecv", "a=inactive")).await;
        assert!(held.body().contains("a=inactive"), "{}", held.text);
        dialog.sound.mute();
        let since = Instant::now();
        let limit = Duration::from_millis(2500);
        until(5.0, "more than the limit is over", async || (since.elapsed() > limit).then_some(())).await;
        assert!(uac.log().iter().all(|message| message.method() != "BYE"), "hung up while on hold");
        let back = dialog.reinvite(3, &talking).await;
        assert!(back.body().contains("a=sendrecv"), "{}", back.text);
        dialog.bye_comes().await;
    });
}

/// 5.9: without a port for its sound a call is refused in words that say that it may be tried again.
#[test]
fn calls_beyond_the_ports_are_refused_for_a_while() {
    go(async {
        let free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        let first = loop {
            let port = free_port() & !1;
            if [port, port + 1, port + 2].into_iter().all(free) {
                break port;
            }
        };
        let ports = [first, first + 3].map(|port| port.to_string());
        let settings = [("RTP__PORT_MIN", ports[0].as_str()), ("RTP__PORT_MAX", ports[1].as_str())];
        let (server, number) = echo("ports", &settings).await;
        let far = Uas::answering().await;
        let (key, _) = server.key_on("5", &[far.addr]);
        let uac = Uac::to(server.sip).await;
        let one = uac.answered(&number, "").await;
        let two = uac.answered(&number, "").await;
        let (_, refused) = uac.call(&number, "").await;
        assert_eq!(status(&refused), "503 Service Unavailable");
        assert_eq!(refused.header("Retry-After"), "5");
        let refused = key.post("/makecall", &json!({"number": number})).await;
        assert_eq!(refused.status, 503);
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!((far.count("INVITE"), key.credits().await), (0, 5));
        one.bye().await;
        until(10.0, "a port is free again", async || {
            (key.post("/makecall", &json!({"number": number})).await.status == 200).then_some(())
        })
        .await;
        two.bye().await;
    });
}

/// 5.37: the address that is told for sound is not told for signalling.
#[test]
fn what_is_told_of_sound_stays_out_of_contact() {
    go(async {
        let server = Server::start("leak", &[("RTP__EXTERNAL_ADDRESS", "203.0.113.9")]).await;
        let far = Uas::start(Script::Ring).await;
        let (key, _) = server.key_on("5", &[far.addr]);
        key.call(&json!({"number": number("0100")})).await;
        let invite = far.wait("INVITE").await;
        assert!(invite.body().contains("c=IN IP4 203.0.113.9"), "{}", invite.text);
        let head = invite.text.split("\r\n\r\n").next().unwrap_or_default();
        assert!(!head.contains("203.0.113.9"), "{head}");
    });
}

/// 5.48: whatever becomes of a call, its place is free afterwards, and its end is told once.
#[test]
fn every_end_gives_its_place_back_and_is_told_once() {
    go(async {
        let server = Server::start("places", &[]).await;
        let hooks = Receiver::start().await;
        let scripts = [
            Script::Final("480 Temporarily Unavailable", ""),
            Script::Final("486 Busy Here", ""),
            Script::Final("603 Decline", ""),
            Script::Final("404 Not Found", ""),
            Script::Ring,
        ];
        let mut ends = 0;
        for script in scripts {
            let rings = matches!(script, Script::Ring);
            let far = Uas::start(script).await;
            server.trunk("far", far.addr, &["--max-calls", "1"]);
            let key = server.key(&["--trunks", "far", "--max-concurrent", "1", "--rate-limit", "10000"]);
            for _ in 0..2 {
                let call = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
                if rings {
                    key.hang_up(&call).await;
                }
                key.wait_ended(&call).await;
                ends += 1;
                hooks.wait_nth("call.ended", ends).await;
            }
        }
        assert_eq!(hooks.count("call.ended"), ends);
    });
}

/// A caller who gives up before anything is answered: 487, and nothing is left. The server is held while both come, so
/// that it finds them together.
#[test]
fn a_caller_that_gives_up_at_once_is_told_so() {
    go(async {
        let (server, number) = echo("cancel", &[]).await;
        // Known to the engine already.
        let uac = Uac::to(server.sip).await;
        uac.answered(&number, "").await.bye().await;
        server.process.signal("STOP");
        let mut caller = Sipp::call("uac_cancel", server.sip, &number).await;
        caller.said("CSeq: 1 CANCEL").await;
        server.process.signal("CONT");
        caller.went_well().await;
        let admin = server.key(&["--admin"]);
        until(10.0, "no call is left", async || {
            let health = admin.get("/health").await.expect(200);
            (health["stats"]["activeCalls"] == 0).then_some(())
        })
        .await;
        uac.answered(&number, "").await.bye().await;
    });
}

/// A number may be an agent's. Without a language model it says its first words by itself.
#[test]
fn an_agent_speaks_first_on_its_number() {
    go(async {
        let (server, _) = echo("number-agent", &[]).await;
        let key = server.key(&["--trunks", "carrier"]);
        let about = json!({
            "name": "Reception", "type": "inbound", "system_prompt": "You answer.",
            "first_message": "Good morning, this is the reception of the town hall.",
        });
        let agent =
            key.post("/api/agents", &about).await.expect(201)["id"].as_str().expect("an id").to_owned();
        let number = number("0071");
        server.cli(&["numbers", "add", &format!("+{number}"), "--agent", &agent]);
        let uac = Uac::to(server.sip).await;
        let since = Instant::now();
        let dialog = uac.answered(&number, "").await;
        until(15.0, "the caller hears a sentence", async || {
            (heard_seconds(&dialog.sound.samples_since(since)) > 1.5).then_some(())
        })
        .await;
        let active = key.get("/api/calls/active").await.expect(200);
        assert!(active.to_string().contains(&agent), "{active}");
        dialog.bye().await;
        until(10.0, "the call is in the history", async || {
            (key.get("/api/calls/history").await.expect(200)["total"] == 1).then_some(())
        })
        .await;
    });
}

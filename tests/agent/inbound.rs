//! Calls that come in: each thing that can happen on a number, sound both ways, who is let in and who is not. The callers
//! are SIPp, and a telephone of the tests' own.

use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::Key;
use crate::audio::{chirp, heard_seconds, likeness, read_wav, split_tone, tone};
use crate::harness::{Server, go, number, until};
use crate::receiver::Receiver;
use crate::rtp::Sound;
use crate::sipp::Sipp;
use crate::uac::{Uac, status};

/// A server that takes calls from the loopback address, and a key on it.
async fn stage(name: &str, trunk: &[&str], settings: &[(&str, &str)]) -> (Server, Key) {
    let server = Server::start(name, settings).await;
    // Nobody listens there; calls come from other ports of the same address.
    server.trunk("carrier", "127.0.0.1:9".parse().unwrap(), trunk);
    let key = server.key(&["--credits", "10", "--trunks", "carrier", "--rate-limit", "10000"]);
    (server, key)
}

fn add(server: &Server, number: &str, options: &[&str]) {
    let e164 = format!("+{number}");
    let mut arguments = vec!["numbers", "add", e164.as_str()];
    arguments.extend_from_slice(options);
    server.cli(&arguments);
}

fn samples(of: &[i16]) -> Vec<f64> {
    of.iter().map(|sample| f64::from(*sample)).collect()
}

#[test]
fn an_application_drives_a_call_that_comes_in() {
    go(async {
        let (server, key) = stage("inbound-webhook", &[], &[]).await;
        server.put_sound("custom/chirp.wav", &chirp(1.0));
        let (hooks, number) = (Receiver::start().await, number("0001"));
        add(&server, &number, &["--webhook", &hooks.url(), "--key", &key.key_id]);
        let (uac, proxy) = (Uac::to(server.sip).await, Uac::to(server.sip).await);
        let route = format!("Record-Route: <sip:{};lr>\r\n", proxy.addr);
        let dialog = uac.answered(&format!("+{number}"), &route).await;

        let incoming = hooks.wait("call.incoming").await.json;
        for (field, value) in [
            ("status", "ringing"),
            ("direction", "inbound"),
            ("from", "+14155550123"),
            ("number", "+14155550123"),
            ("to", &format!("+{number}")),
            ("trunk", "carrier-endpoint"),
        ] {
            assert_eq!(incoming[field], value, "{incoming}");
        }
        let answered = hooks.wait("call.answered").await.json;
        assert_eq!((incoming["sequence"].as_i64(), answered["sequence"].as_i64()), (Some(1), Some(2)));
        let call = incoming["callId"].as_str().expect("an id").to_owned();
        assert_eq!(key.get("/calls").await.expect(200)["activeCalls"], 1);

        // We to them, they to us.
        let since = Instant::now();
        let body = json!({"callId": call, "file": "custom/chirp", "playTo": "channel"});
        key.post("/play", &body).await.expect(200);
        let heard = dialog.listen(since, 1.4).await;
        let alike = likeness(&samples(&chirp(1.0)), &heard);
        assert!(alike > 0.9, "the caller hears something else: {alike:.3}");
        let first = dialog.sound.next_sequence();
        dialog.sound.say(&tone(440.0, 2.0, 8000.0));
        let gather = json!({"callId": call, "text": "Press.", "numDigits": 2, "playTo": "channel"});
        key.post("/gather", &gather).await.expect(200);
        let said = || dialog.sound.next_sequence().wrapping_sub(first) > 100;
        until(10.0, "the tone is said to its end", async || said().then_some(())).await;
        for digit in ['4', '2'] {
            dialog.sound.press(digit, 3);
        }
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "42");

        key.hang_up(&call).await;
        // The caller's proxy is in the path and has asked to stay there.
        let bye = dialog.bye_comes_to(&proxy).await;
        assert!(bye.text.starts_with(&format!("BYE sip:uac@{} ", uac.addr)), "{}", bye.text);
        assert_eq!(bye.header("Route"), format!("<sip:{};lr>", proxy.addr));
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["endReason"], &ended["wasAnswered"]), (&json!("api_hangup"), &json!(true)));
        hooks.wait("recording.completed").await;
        let recording = key.get(&format!("/recordings/{call}/download")).await;
        let kept = read_wav(&recording.body);
        let tones: Vec<_> = kept
            .chunks_exact(1600)
            .filter(|part| {
                let (level, rest) = split_tone(part, 440.0);
                level > -20.0 && level > rest + 20.0
            })
            .collect();
        assert!(tones.len() >= 7, "{} of 10 windows hold the caller's tone", tones.len());
        let me = key.get("/api/me").await.expect(200);
        assert_eq!(me["apiKey"]["credits"], 10, "no credit is taken");
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        assert_eq!(logs["logs"][0]["number"], "+14155550123", "{logs}");
        assert_eq!(logs["logs"][0]["status"], "completed", "{logs}");
    });
}

#[test]
fn a_sound_is_played_and_the_call_hung_up() {
    go(async {
        let (server, _key) = stage("inbound-play", &[], &[]).await;
        server.put_sound("custom/chirp.wav", &chirp(1.0));
        let number = number("0002");
        add(&server, &number, &["--play", "custom/chirp"]);
        let uac = Uac::to(server.sip).await;
        let since = Instant::now();
        let dialog = uac.answered(&number, "").await;
        dialog.bye_comes().await;
        let alike = likeness(&samples(&chirp(1.0)), &dialog.sound.samples_since(since));
        assert!(alike > 0.9, "the caller hears something else: {alike:.3}");
    });
}

/// The INVITE without an offer: ours is in the 200, theirs in the ACK (RFC 3261 §13.2.1).
#[test]
fn what_is_said_is_said_back_whoever_offers() {
    go(async {
        let (server, _key) = stage("inbound-echo", &[], &[]).await;
        let number = number("0003");
        add(&server, &number, &["--echo"]);
        let uac = Uac::to(server.sip).await;
        for offered in [true, false] {
            let dialog = if offered {
                uac.answered(&number, "").await
            } else {
                let (mut dialog, answer) = uac.call_with(&number, "", "", Sound::open(101).await).await;
                assert_eq!(status(&answer), "200 OK");
                dialog.sound = Sound::start(answer.body()).await;
                dialog.acknowledge(&answer, "z9hG4bKlate", &dialog.sound.answer()).await;
                dialog
            };
            let packets = async || (dialog.sound.heard().len() >= 5).then_some(());
            until(10.0, "sound flows", packets).await;
            let since = Instant::now();
            dialog.sound.say(&chirp(1.0));
            let heard = dialog.listen(since, 1.5).await;
            let alike = likeness(&samples(&chirp(1.0)), &heard);
            assert!(alike > 0.9, "offered: {offered}, likeness {alike:.3}");
            dialog.bye().await;
        }
    });
}

#[test]
fn numbers_that_nobody_answers_have_each_their_status() {
    go(async {
        let (server, key) = stage("inbound-refused", &["--country-code", "1"], &[]).await;
        let hooks = Receiver::start().await;
        let [nothing, webhook, silent, suspended, elsewhere] =
            ["0011", "0012", "0013", "0014", "0015"].map(number);
        add(&server, &nothing, &[]);
        add(&server, &webhook, &["--webhook", &hooks.url(), "--key", &key.key_id]);
        add(&server, &silent, &["--play", "custom/no-such-sound"]);
        add(&server, &suspended, &["--echo", "--tenant", "acme"]);
        server.key(&["--tenant", "acme"]);
        server.trunk("other", "127.0.0.3:9".parse().unwrap(), &[]);
        add(&server, &elsewhere, &["--echo", "--trunk", "other"]);
        let uac = Uac::to(server.sip).await;
        assert_eq!(uac.refused(&nothing).await, "480 Temporarily Unavailable");
        assert_eq!(uac.refused("19995550100").await, "404 Not Found");
        assert_eq!(uac.refused("nobody").await, "404 Not Found");
        assert_eq!(uac.refused(&silent).await, "480 Temporarily Unavailable");
        assert_eq!(uac.refused(&elsewhere).await, "404 Not Found", "it is another trunk's");
        // As it is dialled within the country.
        uac.answered(&webhook[1..], "").await.bye().await;
        uac.answered(&suspended, "").await.bye().await;
        server.cli(&["tenants", "suspend", "acme"]);
        assert_eq!(uac.refused(&suspended).await, "603 Decline");
        server.cli(&["keys", "revoke", &key.key_id]);
        assert_eq!(uac.refused(&webhook).await, "480 Temporarily Unavailable");
        let told: Vec<_> = hooks.events();
        assert!(told.iter().all(|event| event != "call.initiated"), "{told:?}");
    });
}

#[test]
fn limits_of_trunk_key_and_engine_hold_for_calls_that_come_in() {
    go(async {
        let (server, key) = stage("inbound-limits", &["--max-calls", "2"], &[]).await;
        let one = server.key(&["--max-concurrent", "1", "--tenant", "small"]);
        let [number, small] = ["0021", "0022"].map(number);
        let hooks = Receiver::start().await;
        add(&server, &number, &["--webhook", &hooks.url(), "--key", &key.key_id]);
        add(&server, &small, &["--webhook", &hooks.url(), "--key", &one.key_id, "--tenant", "small"]);
        let uac = Uac::to(server.sip).await;
        let first = uac.answered(&small, "").await;
        assert_eq!(uac.refused(&small).await, "486 Busy Here");
        let second = uac.answered(&number, "").await;
        let (_, third) = uac.call(&number, "").await;
        assert_eq!((status(&third), third.header("Retry-After")), ("503 Service Unavailable", "5"));
        first.bye().await;
        uac.answered(&number, "").await.bye().await;
        second.bye().await;
        // A description that cannot be answered costs nothing and nobody a place.
        let wrong = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n";
        for _ in 0..3 {
            let (_, answer) = uac.call_with(&number, "", wrong, Sound::open(101).await).await;
            assert_eq!(status(&answer), "488 Not Acceptable Here");
        }
        uac.answered(&number, "").await.bye().await;
    });
}

#[test]
fn a_caller_that_hangs_up_ends_the_call() {
    go(async {
        let (server, key) = stage("inbound-bye", &[], &[]).await;
        let (hooks, number) = (Receiver::start().await, number("0031"));
        add(&server, &number, &["--webhook", &hooks.url(), "--key", &key.key_id]);
        let uac = Uac::to(server.sip).await;
        let anonymous = "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=uac\r\n\
                         P-Asserted-Identity: <sip:+14155550199@carrier>\r\nPrivacy: Id\r\n";
        let dialog = uac.answered(&number, anonymous).await;
        assert_eq!(hooks.wait("call.incoming").await.json["from"], "anonymous");
        let since = Instant::now();
        until(5.0, "a whole second is over", async || (since.elapsed().as_millis() > 1100).then_some(()))
            .await;
        dialog.bye().await;
        let longest = since.elapsed().as_secs() + 2;
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["endReason"], &ended["hangupCause"]), (&json!("normal_hangup"), &json!("16")));
        assert_eq!(ended["number"], "anonymous");
        let duration = ended["callDuration"].as_u64().expect("whole seconds");
        assert!((1..=longest).contains(&duration), "{duration} s, not 1 to {longest}");
        let asserted = "P-Asserted-Identity: <tel:+1-415-555-0199>\r\n";
        let dialog = uac.answered(&number, asserted).await;
        assert_eq!(hooks.wait_nth("call.incoming", 2).await.json["from"], "+14155550199");
        dialog.bye().await;
    });
}

#[test]
fn a_caller_shows_the_trunks_password() {
    go(async {
        let credentials = ["--username", "alice", "--password", "opensesame", "--auth-inbound"];
        let (server, _key) = stage("inbound-digest", &credentials, &[]).await;
        let number = number("0041");
        add(&server, &number, &["--echo"]);
        // The trunk is known to the engine as soon as somebody is asked for a password.
        let uac = Uac::to(server.sip).await;
        let (_, asked) = uac.call(&number, "").await;
        assert_eq!(status(&asked), "401 Unauthorized");
        assert!(
            asked.text.contains("algorithm=SHA-256") && asked.text.contains("algorithm=MD5"),
            "{}",
            asked.text
        );
        let mut caller = Sipp::call("uac_password", server.sip, &number).await;
        caller.went_well().await;
        let mut liar = Sipp::call("uac_wrong_password", server.sip, &number).await;
        liar.went_well().await;
    });
}

/// Kilobytes of memory that a process has.
fn resident_kb(server: &Server) -> u64 {
    let id = server.process.id();
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the server runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// X26, FIELD 15: strangers get no answer, not even many of them, and calls that are up do not notice.
#[test]
fn strangers_are_not_answered_and_leave_nothing_behind() {
    go(async {
        let (server, key) = stage("inbound-strangers", &[], &[]).await;
        let number = number("0051");
        add(&server, &number, &["--echo"]);
        let uac = Uac::to(server.sip).await;
        let dialog = uac.answered(&number, "").await;
        let stranger = Uac::on(Ipv4Addr::new(127, 0, 0, 2), server.sip).await;
        let offer = dialog.sound.answer();
        let burst = async |count: u32| {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            for _ in 0..count / 10 {
                tick.tick().await;
                for _ in 0..10 {
                    let (invite, ..) = stranger.invite(&number, "", &offer);
                    stranger.send(invite.as_bytes()).await;
                }
            }
        };
        burst(1000).await;
        let before = resident_kb(&server);
        let since = Instant::now();
        dialog.sound.say(&chirp(2.0));
        burst(3000).await;
        let grown = resident_kb(&server).saturating_sub(before);
        assert!(grown < 4_000, "{grown} kB for 3000 INVITEs of strangers");
        let heard = dialog.listen(since, 0.0).await;
        let seconds = heard_seconds(&heard);
        assert!(seconds > 1.8, "the live call heard {seconds:.2} of 2 s");
        assert_eq!(stranger.log().len(), 0, "{}", stranger.log()[0].text);
        assert_eq!(key.get("/calls").await.expect(200)["activeCalls"], 1);
        let log = std::fs::read_to_string(&server.process.log).expect("the log can be read");
        let about = |line: &&str| line.contains("nobody's trunk") && line.contains("127.0.0.2");
        assert_eq!(log.lines().filter(about).count(), 1, "{log}");
        dialog.bye().await;
        let calls = key.post("/api/call-logs", &json!({})).await.expect(200);
        assert_eq!(calls["total_count"], 1, "{calls}");
    });
}

/// Waits until the log of a key's calls holds so many.
async fn logged(key: &Key, count: i64) -> Value {
    until(10.0, "the calls are written down", async || {
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        (logs["total_count"] == count).then_some(logs)
    })
    .await
}

/// What is drained takes no more calls, and what a crash cut off is told.
#[test]
fn a_call_that_came_in_survives_in_the_books_when_the_server_dies() {
    go(async {
        let (mut server, key) = stage("inbound-crash", &[], &[]).await;
        let (hooks, number) = (Receiver::start().await, number("0061"));
        add(&server, &number, &["--webhook", &hooks.url(), "--key", &key.key_id]);
        let uac = Uac::to(server.sip).await;
        let _dialog = uac.answered(&number, "").await;
        hooks.wait("call.answered").await;
        server.crash();
        server.start_again().await;
        assert_eq!(hooks.wait("call.ended").await.json["endReason"], "engine_restart");
        assert_eq!(logged(&key, 1).await["logs"][0]["status"], "failed");
        let health = key.request(Method::GET, "/health").send().await.expect("the server answers");
        assert_eq!(health.status(), 200);
    });
}

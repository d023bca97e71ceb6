//! Trunks from outside: what benches them and brings them back, their limits, what they are told of callers, who may
//! speak for them. The far ends are the built-in carrier and the tests' own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::{Answer, Key, call_id, send};
use crate::carrier::Carrier;
use crate::harness::{Server, go, home, number, unique, until};
use crate::uas::{Message, Script, Uas, response};

/// A server whose trunks are benched for two seconds.
async fn server(name: &str) -> Server {
    Server::start(name, &[("LIMITS__TRUNK_BENCH_S", "2")]).await
}

async fn trunk(admin: &Key, name: &str) -> Value {
    admin.get(&format!("/admin/v1/trunks/{name}")).await.expect(200)
}

/// A call's record, once this is true of it.
async fn record(key: &Key, call: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(10.0, &format!("the record of {call} is as awaited"), async || {
        let shown = key.get(&format!("/api/call-logs/{call}")).await.expect(200);
        Some(shown["call"].clone()).filter(&is)
    })
    .await
}

/// Says nothing at all while this is set.
static DEAD: AtomicBool = AtomicBool::new(false);
/// Whom the far end that dies has rung, by the branch of the INVITE: one that is repeated rings once.
static RUNG: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

fn rings_while_alive(invite: &Message) -> Vec<Vec<u8>> {
    if DEAD.load(Ordering::SeqCst) {
        return Vec::new();
    }
    let (via, to) = (invite.header("Via"), invite.dialled().trim_start_matches("00").to_owned());
    let branch = via.split_once("branch=").map_or(via, |(_, rest)| rest.split(';').next().unwrap_or(rest));
    RUNG.lock().expect("no test panics here").insert(branch.to_owned(), to);
    vec![response(invite, invite.from, "180 Ringing", "", "").into_bytes()]
}

async fn ring_and_hang_up(key: Key, to: String) -> (Answer, String) {
    let answer = key.post("/makecall", &json!({"number": to})).await;
    let placed = answer.expect(200);
    key.hang_up(&call_id(&placed)).await;
    (answer, to)
}

#[test]
fn one_of_three_trunks_dies_in_the_middle_of_200_calls() {
    go(async {
        let server = server("dies").await;
        let folder = home("dies-carriers");
        let (first, third) =
            (Carrier::start(&folder.join("a"), false).await, Carrier::start(&folder.join("c"), false).await);
        let mortal = Uas::start(Script::Raw(rings_while_alive)).await;
        let names = ["a", "b", "c"];
        for (name, far) in names.iter().zip([first.addr, mortal.addr, third.addr]) {
            server.trunk(name, far, &["--no-response-timeout-ms", "1000"]);
        }
        let options = ["--trunks", "a,b,c", "--rate-limit", "10000", "--max-concurrent", "500"];
        let key = server.key(&options);
        let admin = server.key(&["--admin"]);

        let mut calls = JoinSet::new();
        let mut benched = false;
        for at in 0..200 {
            match at {
                60 => DEAD.store(true, Ordering::SeqCst),
                110..160 if !benched && at % 10 == 0 => {
                    benched = trunk(&admin, "b").await["health"]["state"] == "benched";
                }
                160 => DEAD.store(false, Ordering::SeqCst),
                _ => {}
            }
            calls.spawn(ring_and_hang_up(key.clone(), number("0303")));
            sleep(Duration::from_millis(40)).await;
        }
        let mut placed = Vec::new();
        while let Some(done) = calls.join_next().await {
            placed.push(done.expect("no call's task panics"));
        }
        assert!(benched, "the dead trunk was never benched");
        let late = placed.iter().map(|(answer, _)| answer.took).max().unwrap_or_default();
        assert!(late < Duration::from_millis(1000 + 2000), "one call waited {late:?}");

        // Everybody's telephone has rung, and nobody's twice.
        let times = |to: &String| {
            let rung = RUNG.lock().expect("no test panics here");
            let by_mortal = rung.values().filter(|dialled| *dialled == to).count();
            by_mortal + first.calls_to(to) + third.calls_to(to)
        };
        until(15.0, "every call has been written down where it rang", async || {
            placed.iter().all(|(_, to)| times(to) > 0).then_some(())
        })
        .await;
        for (_, to) in &placed {
            assert_eq!(times(to), 1, "how often {to} was rung");
        }
        let rung = RUNG.lock().expect("no test panics here").len();
        // A third of the calls in its dead time would be 33.
        let vain = mortal.count("INVITE") - rung;
        assert!((5..28).contains(&vain), "{vain} INVITEs went to the dead trunk");

        // It comes back by itself.
        until(15.0, "the trunk that was dead has a call again", async || {
            let (_, to) = ring_and_hang_up(key.clone(), number("0303")).await;
            let rung = RUNG.lock().expect("no test panics here");
            rung.values().any(|dialled| *dialled == to).then_some(())
        })
        .await;
        let health = trunk(&admin, "b").await["health"].clone();
        assert_eq!((&health["state"], &health["faultsInARow"]), (&json!("healthy"), &json!(0)), "{health}");
        assert!(health["why"].as_str().is_some_and(|why| why.contains("faults in a row")), "{health}");
    });
}

#[test]
fn retry_after_keeps_calls_away_and_the_record_says_so() {
    go(async {
        let server = server("retry").await;
        let tired = Uas::start(Script::Final("503 Service Unavailable", "Retry-After: 3\r\n")).await;
        let well = Uas::start(Script::Ring).await;
        let (key, names) = server.key_on("10", &[tired.addr, well.addr]);
        let first = key.post("/makecall", &json!({"number": number("0100")})).await.expect(200);
        assert_eq!((&first["trunkAttempts"], &first["totalTrunks"]), (&json!(2), &json!(2)));
        let shown = record(&key, &call_id(&first), |call| call["attempts"][1]["trunk"] == *names[1]).await;
        let attempt = &shown["attempts"][0];
        assert_eq!((&attempt["trunk"], &attempt["code"]), (&json!(names[0]), &json!(503)));
        assert_eq!((&attempt["retry_after_s"], &shown["passed_over"]), (&json!(3), &json!([])));

        // The cursor would begin with the second, then with the first.
        for _ in 0..4 {
            let placed = key.post("/makecall", &json!({"number": number("0100")})).await.expect(200);
            assert_eq!((&placed["trunk"], &placed["trunkAttempts"]), (&json!(names[1]), &json!(1)));
            assert_eq!(placed["totalTrunks"], 2);
            let passed = |call: &Value| call["passed_over"].as_array().is_some_and(|rows| !rows.is_empty());
            let shown = record(&key, &call_id(&placed), passed).await;
            let row = json!({"trunk": names[0], "reason": "benched: it asked for 3 s (503)"});
            assert_eq!(shown["passed_over"], json!([row]));
        }
        assert_eq!(tired.count("INVITE"), 1);
        let admin = server.key(&["--admin"]);
        let name = names[0].trim_end_matches("-endpoint");
        until(10.0, "its time is over", async || {
            (trunk(&admin, name).await["health"]["state"] != "benched").then_some(())
        })
        .await;
        for _ in 0..2 {
            key.post("/makecall", &json!({"number": number("0100")})).await.expect(200);
        }
        assert_eq!(tired.count("INVITE"), 2);
    });
}

#[test]
fn trunks_at_their_limit_are_never_tried() {
    go(async {
        let server = server("full").await;
        let far = Uas::start(Script::Ring).await;
        let broken = Uas::start(Script::Final("500 Server Internal Error", "")).await;
        let (small, other, bad) = (unique("t"), unique("t"), unique("t"));
        server.trunk(&small, far.addr, &["--max-calls", "1"]);
        server.trunk(&other, far.addr, &["--max-calls", "1"]);
        server.trunk(&bad, broken.addr, &[]);
        let key = server.key(&["--credits", "10", "--trunks", &format!("{small},{other}")]);
        let place = async |key: &Key| key.post("/makecall", &json!({"number": number("0100")})).await;
        let held = call_id(&place(&key).await.expect(200));
        call_id(&place(&key).await.expect(200));
        let busy = place(&key).await.expect(503);
        let words = json!({"success": false, "error": "All trunks are busy", "code": "TRUNKS_BUSY"});
        assert_eq!((busy, far.count("INVITE")), (words, 2));
        assert_eq!(key.credits().await, 10);
        // Fail-over does not try it either.
        let both = server.key(&["--credits", "10", "--trunks", &format!("{bad},{small}")]);
        let failed = place(&both).await.expect(500);
        assert_eq!(failed["attemptedTrunks"], json!([format!("{bad}-endpoint")]));
        assert_eq!(far.count("INVITE"), 2);
        key.hang_up(&held).await;
        key.wait_ended(&held).await;
        place(&key).await.expect(200);
    });
}

#[test]
fn calls_of_one_second_are_counted() {
    go(async {
        let server = server("pace").await;
        let far = Uas::start(Script::Ring).await;
        let name = unique("t");
        server.trunk(&name, far.addr, &["--calls-per-second", "2"]);
        let key = server.key(&["--trunks", &name, "--rate-limit", "10000"]);
        let mut calls = JoinSet::new();
        for _ in 0..6 {
            let key = key.clone();
            calls
                .spawn(async move { key.post("/makecall", &json!({"number": number("0100")})).await.status });
        }
        let mut answers = calls.join_all().await;
        answers.sort_unstable();
        assert_eq!((answers, far.count("INVITE")), (vec![200, 200, 503, 503, 503, 503], 2));
        until(5.0, "the next second begins", async || {
            let answer = key.post("/makecall", &json!({"number": number("0100")})).await;
            (answer.status == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn the_trunk_is_told_callers_and_numbers_as_it_wants() {
    go(async {
        let server = server("identity").await;
        let far = Uas::start(Script::Ring).await;
        let name = unique("t");
        let options = [
            "--number-format",
            "0{national}",
            "--country-code",
            "44",
            "--caller-id-format",
            "plus",
            "--from-user",
            "account7",
            "--from-domain",
            "carrier.example",
            "--identity",
            "pai,rpid",
            "--diversion",
            "442071838750",
            "--external-address",
            "203.0.113.5",
            "--media-address",
            "203.0.113.6",
            "--caller-id",
            "442071838700",
        ];
        server.trunk(&name, far.addr, &options);
        let key = server.key(&["--trunks", &name]);
        let body = json!({"number": "+44 20 7183 8751", "callerId": "442071838799"});
        key.call(&body).await;
        let invite = far.wait("INVITE").await;
        assert_eq!(invite.dialled(), "02071838751");
        assert!(invite.header("From").contains("<sip:account7@carrier.example>"), "{}", invite.text);
        assert_eq!(invite.header("P-Asserted-Identity"), "<sip:+442071838799@carrier.example>");
        assert!(
            invite.header("Remote-Party-ID").starts_with("<sip:+442071838799@carrier.example>;party=calling")
        );
        assert_eq!(invite.header("Diversion"), "<sip:+442071838750@carrier.example>;reason=unconditional");
        assert!(invite.header("Contact").contains("@203.0.113.5:"), "{}", invite.text);
        assert!(invite.header("Via").starts_with("SIP/2.0/UDP 203.0.113.5:"), "{}", invite.text);
        assert!(invite.body().contains("c=IN IP4 203.0.113.6"), "{}", invite.text);

        let far = Uas::start(Script::Ring).await;
        server.trunk(&name, far.addr, &[&options[..], &["--dtmf", "inband"]].concat());
        key.call(&json!({"number": "4915112345678", "callerId": "anonymous"})).await;
        let invite = far.wait("INVITE").await;
        assert_eq!(invite.dialled(), "004915112345678");
        assert!(invite.header("From").starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>"));
        assert_eq!(invite.header("Privacy"), "id");
        assert_eq!(invite.header("P-Asserted-Identity"), "<sip:+442071838700@carrier.example>");
        assert!(!invite.body().contains("telephone-event"), "{}", invite.text);
    });
}

/// A BYE for the call of this INVITE from any socket.
async fn bye_from(socket: &UdpSocket, invite: &Message) -> String {
    let contact = invite.header("Contact");
    let target = contact.split(['<', '>']).nth(1).unwrap_or(contact);
    let local = socket.local_addr().expect("a bound socket has an address");
    let text = format!(
        "BYE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKs{}\r\nMax-Forwards: 70\r\n\
         From: {};tag=far-end\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n",
        local.port(),
        invite.header("To"),
        invite.header("From"),
        invite.header("Call-ID"),
    );
    socket.send_to(text.as_bytes(), invite.from).await.expect("loopback takes it");
    let mut buffer = vec![0; 4096];
    let answered = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
    let length = answered.expect("the server answers").expect("loopback delivers");
    String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn only_the_trunks_own_networks_speak_for_it() {
    go(async {
        let server = server("sources").await;
        let far = Uas::answering().await;
        let name = unique("t");
        let key = server.key(&["--trunks", "all"]);
        let stranger = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 5), 0)).await.expect("loopback is wide");
        server.trunk(&name, far.addr, &[]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let invite = far.wait("INVITE").await;
        assert_eq!(bye_from(&stranger, &invite).await, "SIP/2.0 481 Call/Transaction Does Not Exist");
        key.wait_status(&call, "answered").await;
        key.hang_up(&call).await;

        let far = Uas::answering().await;
        server.trunk(&name, far.addr, &["--source-cidrs", "192.0.2.0/24,127.0.0.4/30"]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        assert_eq!(bye_from(&stranger, &far.wait("INVITE").await).await, "SIP/2.0 200 OK");
        assert_eq!(key.wait_ended(&call).await["status"], "completed");
    });
}

#[test]
fn priority_and_weight_choose_the_first_trunk() {
    go(async {
        let server = server("policy").await;
        let far = Uas::start(Script::Ring).await;
        let (low, high) = (unique("t"), unique("t"));
        server.trunk(&low, far.addr, &["--priority", "9", "--weight", "0"]);
        server.trunk(&high, far.addr, &["--priority", "1", "--weight", "3"]);
        let key = server.key(&["--trunks", &format!("{low},{high}"), "--rate-limit", "10000"]);
        for policy in ["priority", "weighted"] {
            server.cli(&["trunks", "policy", &key.key_id, policy]);
            for _ in 0..3 {
                let placed = key.post("/makecall", &json!({"number": number("0100")})).await.expect(200);
                assert_eq!(placed["trunk"], format!("{high}-endpoint"), "{policy}");
            }
        }
    });
}

#[test]
fn trunks_are_managed_and_tested_over_http_and_by_command() {
    go(async {
        let server = server("managed").await;
        let far = Uas::start(Script::Ring).await;
        let (admin, plain) = (server.key(&["--admin"]), server.key(&["--trunks", "all"]));
        let ask = async |method: Method, path: &str, body: Value| {
            send(admin.request(method, path).body(body.to_string())).await
        };
        plain.get("/admin/v1/trunks").await.expect(403);
        let new = json!({
            "name": "http", "proxy": format!("sip:{}", far.addr), "username": "u", "password": "open sesame",
            "maxCalls": 3, "numberFormat": "plus",
        });
        let made = ask(Method::POST, "/admin/v1/trunks", new.clone()).await;
        let text = String::from_utf8_lossy(&made.body).into_owned();
        let made = made.expect(201);
        assert!(!text.contains("sesame"), "{text}");
        assert_eq!((&made["maxCalls"], &made["hasPassword"]), (&json!(3), &json!(true)));
        assert_eq!(
            (&made["health"]["state"], &made["endpoint"]),
            (&json!("healthy"), &json!("http-endpoint"))
        );
        ask(Method::POST, "/admin/v1/trunks", new).await.expect(409);
        for (wrong, word) in [
            (json!({"srtp": "sometimes"}), "srtp"),
            (json!({"maxCalls": "3"}), "max_calls"),
            (json!({"dtmf": "tones"}), "dtmf"),
            (json!({"name": "other"}), "name"),
        ] {
            let refused = ask(Method::PATCH, "/admin/v1/trunks/http", wrong).await.expect(400);
            assert!(refused["error"].as_str().is_some_and(|text| text.starts_with(word)), "{refused}");
        }
        plain.call(&json!({"number": "14155550100"})).await;
        assert_eq!(far.wait("INVITE").await.dialled(), "+14155550100");
        assert_eq!(trunk(&admin, "http").await["health"]["activeCalls"], 1);
        let tested = ask(Method::POST, "/admin/v1/trunks/http/test", json!({})).await.expect(200);
        assert_eq!((&tested["alive"], &tested["code"]), (&json!(true), &json!(200)), "{tested}");
        assert_eq!(server.cli(&["trunks", "test", "http"])["code"], 200);

        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, crate::harness::free_port()));
        let moved = json!({"proxy": format!("sip:{closed}"), "enabled": false, "maxCalls": null});
        let changed = ask(Method::PATCH, "/admin/v1/trunks/http", moved).await.expect(200);
        assert_eq!((&changed["enabled"], &changed["maxCalls"]), (&json!(false), &json!(0)));
        plain.post("/makecall", &json!({"number": "14155550100"})).await.expect(503);
        let tested = ask(Method::POST, "/admin/v1/trunks/http/test", json!({})).await.expect(200);
        assert_eq!(tested["words"], format!("nothing listens at {closed}"));
        assert_eq!(ask(Method::DELETE, "/admin/v1/trunks/http", json!({})).await.status, 204);
        ask(Method::DELETE, "/admin/v1/trunks/http", json!({})).await.expect(404);
        let audit = admin.get("/admin/v1/audit?subject=http").await;
        let text = String::from_utf8_lossy(&audit.body).into_owned();
        for action in ["trunk.create", "trunk.change", "trunk.remove"] {
            assert!(text.contains(action), "{text}");
        }
        assert!(!text.contains("sesame"), "{text}");
    });
}

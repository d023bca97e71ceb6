//! Claude Phone (CONTRACT 1.5) from outside: who may come without a key, what becomes of calls, what is told.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, bare, raw, send};
use crate::audio::heard_seconds;
use crate::carrier::Carrier;
use crate::harness::{Server, free_port, go, home, number, unique, until};
use crate::receiver::{Receiver, genuine};
use crate::uas::{Script, Uas};

/// A server with a trunk to a carrier of its own.
struct World {
    server: Server,
    carrier: Carrier,
}

impl World {
    async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(name, settings).await;
        let carrier = Carrier::start(&server.home.join("carrier"), false).await;
        server.trunk("carrier", carrier.addr, &[]);
        Self { server, carrier }
    }
}

/// POST of JSON without a key.
async fn post(server: SocketAddr, path: &str, body: &Value) -> Answer {
    let request = bare(server, Method::POST, path).header("content-type", "application/json");
    send(request.body(body.to_string())).await
}

async fn get(server: SocketAddr, path: &str) -> Answer {
    send(bare(server, Method::GET, path)).await
}

/// Places a call, which must be accepted; its id.
async fn place(server: SocketAddr, body: &Value) -> String {
    let placed = post(server, "/api/outbound-call", body).await.expect(200);
    id_of(&placed)
}

fn id_of(placed: &Value) -> String {
    placed["callId"].as_str().unwrap_or_else(|| panic!("no callId: {placed}")).to_owned()
}

async fn shown(server: SocketAddr, id: &str) -> Value {
    get(server, &format!("/api/call/{id}")).await.expect(200)
}

/// Waits until a call has one of these states.
async fn wait_state(server: SocketAddr, id: &str, states: &[&str]) -> Value {
    until(25.0, &format!("call {id} is {states:?}"), async || {
        let call = shown(server, id).await;
        states.iter().any(|state| call["state"] == *state).then_some(call)
    })
    .await
}

async fn wait_over(server: SocketAddr, id: &str) -> Value {
    wait_state(server, id, &["completed", "failed"]).await
}

#[test]
fn t151_a_program_of_this_machine_calls_without_a_key() {
    go(async {
        let world = World::start("alert", &[]).await;
        let (http, to) = (world.server.http, number("0100"));
        let body = json!({"to": format!("+{to}"), "message": "Your backup job completed successfully."});
        let placed = post(http, "/api/outbound-call", &body).await.expect(200);
        let id = id_of(&placed);
        let expected =
            json!({"success": true, "callId": id, "status": "queued", "message": "Call initiated"});
        assert_eq!(placed, expected);
        let dashes: Vec<_> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), dashes, id.as_bytes()[14]), (36, vec![8, 13, 18, 23], b'4'), "{id}");
        let far = world.carrier.call(&to).await;
        assert_eq!(far.line["endedBy"], "them", "{}", far.line);
        let heard = heard_seconds(&far.heard());
        assert!((1.0..8.0).contains(&heard), "{heard} s of speech");
        let call = wait_over(http, &id).await;
        assert_eq!(
            (&call["state"], &call["mode"], &call["to"]),
            (&json!("completed"), &json!("announce"), &body["to"])
        );
        // The same below the surface's own name, and for HEAD.
        assert_eq!(get(http, &format!("/claude-phone/api/call/{id}")).await.expect(200)["callId"], id);
        assert_eq!(send(bare(http, Method::HEAD, &format!("/api/call/{id}"))).await.status, 200);
    });
}

#[test]
fn t152_t153_t154_what_is_wrong_is_said_in_the_documents_words() {
    go(async {
        let server = Server::start("words", &[]).await;
        let refused = async |body: Value| post(server.http, "/api/outbound-call", &body).await.refused(400);
        let number = "Invalid phone number format";
        assert_eq!(refused(json!({})).await, number);
        assert_eq!(refused(json!({"to": "5551234567", "mode": "chat"})).await, number);
        let to = "+15551234567";
        assert_eq!(refused(json!({"to": to, "mode": "chat"})).await, "Message is required");
        assert_eq!(refused(json!({"to": to, "message": "x".repeat(1001)})).await, "Message too long");
        // Accepted as far as the fields go: there is no trunk.
        let longest = json!({"to": to, "message": "x".repeat(1000)});
        assert_eq!(
            post(server.http, "/api/outbound-call", &longest).await.refused(503),
            "service_unavailable"
        );
        let mode = json!({"to": to, "message": "Hi", "mode": "chat"});
        assert_eq!(refused(mode).await, "mode must be announce or conversation");
        for seconds in [4, 121] {
            let body = json!({"to": to, "message": "Hi", "timeoutSeconds": seconds});
            assert_eq!(refused(body).await, "timeoutSeconds must be between 5 and 120");
        }
        for id in ["abc123-uuid", "00000000-0000-4000-8000-000000000000", "%ff"] {
            let path = format!("/api/call/{id}");
            assert_eq!(get(server.http, &path).await.refused(404), "Call not found", "{id}");
            let hang_up = post(server.http, &format!("{path}/hangup"), &json!({})).await;
            assert_eq!(hang_up.refused(404), "Call not found", "{id}");
        }
        let wrong = get(server.http, "/api/outbound-call").await;
        assert_eq!((wrong.refused(405).as_str(), wrong.header("allow")), ("Method not allowed", "POST"));
        let broken =
            bare(server.http, Method::POST, "/api/outbound-call").header("content-type", "application/json");
        assert_eq!(send(broken.body("{\"to\":")).await.refused(400), "Invalid JSON body");
        // Kaphila's path begins alike and stays Kaphila's.
        let logs = post(server.http, "/api/call-logs", &json!({})).await;
        assert_eq!(logs.refused(401), "Missing API key");
    });
}

#[test]
fn t155_states_come_in_order_and_times_agree() {
    go(async {
        let world = World::start("states", &[]).await;
        let (http, far) = (world.server.http, Uas::answering().await);
        world.server.cli(&["trunks", "remove", "carrier"]);
        world.server.trunk(&unique("t"), far.addr, &[]);
        let id = place(http, &json!({"to": "+15551234567", "message": "One. Two. Three."})).await;
        let order = ["queued", "dialing", "playing", "completed"];
        let mut seen: Vec<String> = Vec::new();
        let call = until(20.0, "the call is over", async || {
            let call = shown(http, &id).await;
            let state = call["state"].as_str().unwrap_or_default().to_owned();
            if seen.last() != Some(&state) {
                seen.push(state.clone());
            }
            (state == "completed" || state == "failed").then_some(call)
        })
        .await;
        let places: Vec<_> = seen.iter().map(|state| order.iter().position(|known| known == state)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{seen:?}");
        assert!(
            seen.contains(&"playing".to_owned()) && seen.last().is_some_and(|s| s == "completed"),
            "{seen:?}"
        );
        let time = |name: &str| {
            let text = call[name].as_str().unwrap_or_else(|| panic!("no {name}: {call}"));
            assert_eq!((text.len(), text.ends_with('Z')), (24, true), "{text}");
            text.parse::<jiff::Timestamp>().expect("a moment").as_millisecond()
        };
        let (created, answered, ended) = (time("createdAt"), time("answeredAt"), time("endedAt"));
        assert!(created <= answered && answered <= ended, "{call}");
        assert_eq!(call["duration"], (ended - answered) / 1000, "{call}");
        assert!(call.get("reason").is_none(), "{call}");
    });
}

#[test]
fn t156_each_failure_has_its_reason() {
    go(async {
        let world = World::start("reasons", &[]).await;
        let http = world.server.http;
        let cases = [
            ("0300", "busy"),
            ("0301", "rejected"),
            ("0302", "not_found"),
            ("0303", "no_answer"),
            ("0304", "no_answer"),
            ("0305", "service_unavailable"),
        ];
        for group in cases.chunks(3) {
            let mut placed = Vec::new();
            for (digits, reason) in group {
                let to = format!("+{}", number(digits));
                let body = json!({"to": to, "message": "Hi", "timeoutSeconds": 5});
                placed.push((place(http, &body).await, *reason));
            }
            for (id, reason) in placed {
                let call = wait_over(http, &id).await;
                assert_eq!((&call["state"], &call["reason"]), (&json!("failed"), &json!(reason)), "{call}");
                assert_eq!((&call["duration"], &call["answeredAt"]), (&json!(0), &Value::Null), "{call}");
            }
        }
    });
}

#[test]
fn t157_each_change_of_state_is_told_in_order() {
    go(async {
        let world = World::start("told", &[]).await;
        let receiver = Receiver::start().await;
        // The key's secret is known to nobody until it is rotated.
        let secret = world.server.cli(&["keys", "rotate", "local"])["webhookSecret"].clone();
        let (http, to) = (world.server.http, format!("+{}", number("0100")));
        let body = json!({"to": to, "message": "Hello from your server", "webhookUrl": receiver.url()});
        let id = place(http, &body).await;
        let told = async |count: usize| {
            let all = async || Some(receiver.all()).filter(|all| all.len() >= count);
            until(20.0, "webhooks", all).await
        };
        let all = told(4).await;
        let states: Vec<_> = all.iter().map(|delivery| delivery.json["state"].clone()).collect();
        assert_eq!(states, ["queued", "dialing", "playing", "completed"]);
        let call = wait_over(http, &id).await;
        for (place, delivery) in all.iter().enumerate() {
            let told = &delivery.json;
            assert_eq!((&told["callId"], &told["to"]), (&json!(id), &json!(to)), "{told}");
            assert_eq!(told["sequence"], place + 1, "{told}");
            assert_eq!(told["timestamp"].as_str().map(str::len), Some(24), "{told}");
            assert!(genuine(secret.as_str().expect("a secret"), delivery, &delivery.body), "{told}");
        }
        assert_eq!(
            (&all[3].json["duration"], &all[3].json["timestamp"]),
            (&call["duration"], &call["endedAt"])
        );
        assert_eq!(all[0].json["duration"], 0);

        let busy =
            json!({"to": format!("+{}", number("0300")), "message": "Hi", "webhookUrl": receiver.url()});
        place(http, &busy).await;
        let last = told(7).await.pop().expect("seven").json;
        assert_eq!((&last["state"], &last["reason"]), (&json!("failed"), &json!("busy")));
    });
}

#[test]
fn t158_the_list_holds_active_calls_of_this_surface_alone() {
    go(async {
        let world = World::start("list", &[]).await;
        let http = world.server.http;
        let key = world.server.key(&["--trunks", "carrier"]);
        let kaphila = key.call(&json!({"number": number("0303")})).await;
        let over = place(http, &json!({"to": format!("+{}", number("0300")), "message": "Hi"})).await;
        wait_over(http, &over).await;
        let mut placed = BTreeSet::new();
        for _ in 0..2 {
            let body = json!({"to": format!("+{}", number("0303")), "message": "Hi", "timeoutSeconds": 60});
            placed.insert(place(http, &body).await);
        }
        for id in &placed {
            wait_state(http, id, &["dialing"]).await;
        }
        let list = get(http, "/api/calls").await.expect(200);
        let calls = list["calls"].as_array().expect("a list");
        let listed: BTreeSet<_> = calls.iter().map(id_of).collect();
        assert_eq!((&list["count"], listed), (&json!(2), placed.clone()), "{list}");
        assert!(calls.iter().all(|call| call["state"] == "dialing" && call["to"].is_string()), "{list}");
        // With another key there is another list, and others' calls are as unknown as those that never were.
        let own = key.get("/api/calls").await.expect(200);
        assert_eq!(own, json!({"success": true, "count": 0, "calls": []}));
        let first = placed.first().expect("two");
        assert_eq!(key.get(&format!("/api/call/{first}")).await.refused(404), "Call not found");
        key.hang_up(&kaphila).await;
    });
}

#[test]
fn t159_a_call_is_hung_up_once() {
    go(async {
        let world = World::start("hangup", &[]).await;
        let (http, to) = (world.server.http, number("0303"));
        let id = place(http, &json!({"to": format!("+{to}"), "message": "Hi"})).await;
        wait_state(http, &id, &["dialing"]).await;
        let path = format!("/api/call/{id}/hangup");
        // As the document shows it: without a body or its type.
        let answer = send(bare(http, Method::POST, &path)).await.expect(200);
        assert_eq!(answer, json!({"success": true, "message": "Call hangup initiated", "callId": id}));
        assert_eq!(send(bare(http, Method::POST, &path)).await.refused(404), "Call not found");
        let call = wait_over(http, &id).await;
        assert_eq!((&call["state"], &call["reason"]), (&json!("failed"), &json!("cancelled")));
        assert_eq!(world.carrier.call(&to).await.line["cancelled"], true);
    });
}

/// An address of this machine that is not loopback.
fn outer_address() -> std::net::IpAddr {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    probe.connect(("192.0.2.1", 9)).expect("this machine has a network");
    probe.local_addr().expect("a bound socket has an address").ip()
}

#[test]
fn t160_who_is_not_on_this_machine_needs_a_key() {
    go(async {
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port())).to_string();
        let server = Server::start("outside", &[("HTTP__LISTEN", &listen)]).await;
        let outside = SocketAddr::new(outer_address(), server.http.port());
        let key = server.key(&[]);
        for path in ["/api/calls", "/api/call/abc", "/claude-phone/api/calls"] {
            let refused = get(outside, path).await;
            assert_eq!(refused.refused(401), "unauthorized", "{path}");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
        let body = json!({"to": "+15551234567", "message": "Hi"});
        assert_eq!(post(outside, "/api/outbound-call", &body).await.refused(401), "unauthorized");
        let with = |address, path: &str| bare(address, Method::GET, path);
        assert_eq!(send(with(outside, "/api/calls").bearer_auth(&key.key)).await.expect(200)["count"], 0);
        assert_eq!(
            send(with(server.http, "/api/calls").bearer_auth("ak_wrong")).await.refused(401),
            "unauthorized"
        );
        for header in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
            let forwarded = with(server.http, "/api/calls").header(header, "127.0.0.1");
            assert_eq!(send(forwarded).await.refused(401), "unauthorized", "{header}");
        }
        let elsewhere = server.key(&["--surfaces", "kaphila"]);
        assert_eq!(elsewhere.get("/api/calls").await.refused(403), "forbidden");
        // The key that stands in for nobody's is good on no other surface.
        let local = server.cli(&["keys", "rotate", "local"])["key"].clone();
        let local = local.as_str().expect("a key").to_owned();
        assert_eq!(send(with(outside, "/api/calls").bearer_auth(&local)).await.status, 200);
        assert_eq!(send(with(server.http, "/calls").bearer_auth(&local)).await.refused(403), "Forbidden");
        // Once it is revoked, nobody comes in without one.
        server.cli(&["keys", "revoke", "local"]);
        assert_eq!(get(server.http, "/api/calls").await.refused(401), "unauthorized");
    });
}

#[test]
fn named_networks_need_no_key_and_a_closed_surface_has_no_routes() {
    go(async {
        let outer = outer_address();
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port())).to_string();
        let settings =
            [("HTTP__LISTEN", listen.as_str()), ("CLAUDE_PHONE__ALLOW_CIDRS", &format!("{outer}/32"))];
        let server = Server::start("network", &settings).await;
        let outside = SocketAddr::new(outer, server.http.port());
        assert_eq!(get(outside, "/api/calls").await.expect(200)["count"], 0);

        let closed = Server::start("closed", &[("CLAUDE_PHONE__ENABLED", "false")]).await;
        let body = json!({"to": "+15551234567", "message": "Hi"});
        assert_eq!(post(closed.http, "/api/outbound-call", &body).await.refused(404), "Not found");
        for path in ["/api/calls", "/api/call/abc", "/claude-phone/api/calls"] {
            assert_eq!(get(closed.http, path).await.refused(404), "Not found", "{path}");
        }
        let keys = closed.cli(&["keys", "list"]);
        assert!(!keys.to_string().contains("\"local\""), "{keys}");
    });
}

#[test]
fn t161_a_conversation_ends_when_nobody_speaks() {
    go(async {
        let settings = [("AGENT__SILENCE_S", "2"), ("AGENT__SILENCE_REPEATS", "2")];
        let world = World::start("silence", &settings).await;
        let (http, to) = (world.server.http, number("0100"));
        let body = json!({"to": format!("+{to}"), "message": "Shall I go on?", "mode": "conversation"});
        let id = place(http, &body).await;
        wait_state(http, &id, &["playing"]).await;
        assert!(world.server.process.said("without a recogniser"));
        let far = world.carrier.call(&to).await;
        assert_eq!(far.line["endedBy"], "them", "{}", far.line);
        let heard = far.heard();
        let last = crate::audio::bursts(&heard).last().map_or(0, |burst| burst.end);
        let silence = (heard.len() - last) as f64 / 8000.0;
        assert!((3.5..6.5).contains(&silence), "two silences of 2 s, heard {silence} s");
        let call = wait_over(http, &id).await;
        assert_eq!((&call["state"], &call["mode"]), (&json!("completed"), &json!("conversation")));
    });
}

#[test]
fn t162_nothing_is_promised_that_cannot_be_tried() {
    go(async {
        let mut server = Server::start("unavailable", &[]).await;
        let body =
            json!({"to": "+15551230500", "message": "Hi", "mode": "conversation", "timeoutSeconds": 5});
        let none = post(server.http, "/api/outbound-call", &body).await;
        assert_eq!(none.refused(503), "service_unavailable");

        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        server.trunk("nobody", nobody, &[]);
        let id = place(server.http, &body).await;
        let call = wait_over(server.http, &id).await;
        assert_eq!((&call["state"], &call["reason"]), (&json!("failed"), &json!("service_unavailable")));
        server.cli(&["trunks", "remove", "nobody"]);

        let far = Uas::start(Script::Answer(Duration::from_millis(100))).await;
        server.trunk("far", far.addr, &[]);
        let id = place(server.http, &body).await;
        wait_state(server.http, &id, &["playing"]).await;
        server.process.signal("TERM");
        let refused = until(5.0, "calls are refused", async || {
            let answer = post(server.http, "/api/outbound-call", &body).await;
            if answer.status == 200 {
                let path = format!("/api/call/{}/hangup", id_of(&answer.json()));
                post(server.http, &path, &json!({})).await;
                return None;
            }
            Some(answer)
        })
        .await;
        assert_eq!(refused.refused(503), "service_unavailable");
        assert_ne!(refused.header("retry-after"), "");
        far.bye().await;
        server.process.exited(20.0).await;
    });
}

#[test]
fn the_local_key_has_five_calls_at_once_and_repeats_are_one_call() {
    go(async {
        let world = World::start("five", &[]).await;
        let http = world.server.http;
        let body = || json!({"to": format!("+{}", number("0303")), "message": "Hi", "timeoutSeconds": 60});
        let repeated = body();
        let once = || {
            let request =
                bare(http, Method::POST, "/api/outbound-call").header("content-type", "application/json");
            send(request.header("idempotency-key", "one").body(repeated.to_string()))
        };
        let first = once().await.expect(200);
        let again = once().await;
        assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", first));
        for _ in 0..4 {
            place(http, &body()).await;
        }
        assert_eq!(post(http, "/api/outbound-call", &body()).await.refused(429), "rate_limited");
        assert_eq!(get(http, "/api/calls").await.expect(200)["count"], 5);
    });
}

#[test]
fn x28_pages_of_other_hosts_place_no_calls() {
    go(async {
        let world = World::start("browser", &[]).await;
        let (http, to) = (world.server.http, number("0100"));
        let body = json!({"to": format!("+{to}"), "message": "Hi"}).to_string();
        let ask = async |headers: &[(&str, &str)]| {
            let mut request = bare(http, Method::POST, "/api/outbound-call");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            send(request.body(body.clone())).await
        };
        let json = ("content-type", "application/json");
        let plain = ("content-type", "text/plain");
        let wrong = "Content-Type must be application/json";
        assert_eq!(ask(&[plain]).await.refused(400), wrong);
        assert_eq!(ask(&[]).await.refused(400), wrong);
        assert_eq!(ask(&[("origin", "https://evil"), plain]).await.refused(403), "forbidden");
        assert_eq!(ask(&[("origin", "https://evil"), json]).await.refused(403), "forbidden");
        assert_eq!(ask(&[("origin", "null"), json]).await.refused(403), "forbidden");
        assert_eq!(ask(&[("host", "evil.com"), json]).await.refused(403), "forbidden");
        for path in ["/api/calls", "/api/call/abc"] {
            let rebound = bare(http, Method::GET, path).header("host", "evil.com");
            assert_eq!(send(rebound).await.refused(403), "forbidden", "{path}");
        }
        let simple =
            format!("POST /api/outbound-call HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(raw(http, simple.as_bytes()).await.0, 403, "no Host at all");
        assert_eq!(get(http, "/api/calls").await.expect(200)["count"], 0);
        assert_eq!(world.carrier.calls_to(&to), 0);
    });
}

/// A printed program on another base URL, and what it prints.
async fn run(name: &str, replace: &[(&str, &str)]) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/claude_phone");
    let mut text =
        std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (from, to) in replace {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let path = home("client").join(name);
    std::fs::write(&path, text).expect("the target folder can be written");
    let program = if name.ends_with(".mjs") { "node" } else { "bash" };
    let mut command = tokio::process::Command::new(program);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    let output = command.arg(&path).output().await.expect("the program starts; run tests/run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{err}");
    out.into_owned()
}

/// As Home Assistant's `rest_command` sends it.
async fn home_assistant(server: SocketAddr) -> Value {
    let file = include_str!("../clients/claude_phone/home_assistant.yaml");
    let setting = |name: &str| {
        let line =
            file.lines().find_map(|line| line.trim().strip_prefix(name)).expect("the setting is there");
        line.trim().trim_matches(['"', '\'']).to_owned()
    };
    let body = setting("payload:").replace("{{ message }}", "The garage door is open.");
    let (host, path) =
        setting("url:").strip_prefix("http://").and_then(|rest| rest.split_once('/')).map_or_else(
            || panic!("no URL"),
            |(host, path)| (host.replace("3000", &server.port().to_string()), path.to_owned()),
        );
    let request = format!(
        "{} /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: HomeAssistant/2025.1.0 aiohttp/3.11.11 Python/3.13\r\n\
         Content-Type: {}\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        setting("method:"),
        setting("content_type:"),
        body.len(),
    );
    let (status, answer) = raw(server, request.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap_or_default()).expect("JSON")
}

#[test]
fn the_documents_own_programs_run_as_they_stand() {
    go(async {
        let settings = [
            ("CLAUDE_PHONE__ALLOW_HOSTS", "VOICE_SERVER"),
            ("AGENT__SILENCE_S", "1"),
            ("WEBHOOKS__RESOLVER", "127.0.0.1:9"),
        ];
        let world = World::start("programs", &settings).await;
        let http = world.server.http;
        let base = ("http://localhost:3000", format!("http://localhost:{}", http.port()));
        let base = (base.0, base.1.as_str());
        let mut last = String::new();
        for name in ["announce.sh", "alert.sh", "shell.sh", "conversation.sh", "webhook.sh"] {
            let placed: Value = serde_json::from_str(&run(name, &[base]).await).expect("JSON");
            assert_eq!((&placed["success"], &placed["status"]), (&json!(true), &json!("queued")), "{name}");
            last = id_of(&placed);
            assert_eq!(wait_over(http, &last).await["state"], "completed", "{name}");
        }
        let assistant = home_assistant(http).await;
        assert_eq!(wait_over(http, &id_of(&assistant)).await["state"], "completed");
        let status = run("status.sh", &[base, ("abc123-uuid", &last)]).await;
        let printed: Vec<Value> =
            serde_json::Deserializer::from_str(&status).into_iter().collect::<Result<_, _>>().expect("JSON");
        assert_eq!((&printed[0]["callId"], &printed[1]["count"]), (&json!(last), &json!(0)));
        let workflow: Value = serde_json::from_str(&run("n8n.mjs", &[base]).await).expect("JSON");
        assert_eq!(workflow["state"], "completed");
        assert_eq!(world.carrier.calls_to("15551234567"), 7);
    });
}

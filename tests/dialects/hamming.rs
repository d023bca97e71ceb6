//! Hamming Phone (CONTRACT 1.4) from outside: starting calls, what is told of them, their recordings, and the receiver
//! that the document describes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::{Instant, sleep};

use crate::api::{Answer, Key, bare, send};
use crate::audio::{heard_seconds, read_wav};
use crate::carrier::{Carrier, seconds};
use crate::harness::{Server, go, number, until};
use crate::receiver::{Receiver, genuine};
use crate::uas::{Message, Script, Uas, response};

/// A little more than the time between two calls.
const APART: Duration = Duration::from_millis(520);

/// A server with a carrier, a key on it and a receiver.
struct World {
    server: Server,
    carrier: Carrier,
    key: Key,
    receiver: Receiver,
}

impl World {
    async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(name, settings).await;
        let carrier = Carrier::start(&server.home.join("carrier"), false).await;
        server.trunk("carrier", carrier.addr, &[]);
        let key = server.key(&["--trunks", "carrier"]);
        Self { server, carrier, key, receiver: Receiver::start().await }
    }

    fn body(&self, to: &str) -> Value {
        body(to, &self.receiver.url())
    }

    async fn begin(&self, to: &str) -> String {
        id_of(&self.key.post("/start-call", &self.body(to)).await)
    }

    /// Waits until so many callbacks of a call have come; their bodies.
    async fn told(&self, id: &str, count: usize) -> Vec<Value> {
        told(&self.receiver, id, count).await
    }
}

fn body(to: &str, url: &str) -> Value {
    json!({"phone_number": format!("+{to}"), "prompt": "You are kind.", "webhook_url": url})
}

fn id_of(started: &Answer) -> String {
    let body = started.expect(200);
    assert_eq!(body["status"], "initiated", "{body}");
    body["id"].as_str().unwrap_or_else(|| panic!("no id: {body}")).to_owned()
}

async fn told(receiver: &Receiver, id: &str, count: usize) -> Vec<Value> {
    until(25.0, &format!("{count} callbacks of {id}"), async || {
        let all = receiver.all();
        let own: Vec<_> = all.iter().map(|one| one.json.clone()).filter(|body| body["id"] == id).collect();
        (own.len() >= count).then_some(own)
    })
    .await
}

fn statuses(told: &[Value]) -> Vec<&str> {
    told.iter().map(|body| body["status"].as_str().unwrap_or_default()).collect()
}

/// The text of an error, whose envelope must be the document's.
fn refused(answer: &Answer, status: u16) -> String {
    let body = answer.expect(status);
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(
        (&body["error"]["status"], body.as_object().map(serde_json::Map::len)),
        (&json!(status), Some(1)),
        "{body}"
    );
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {body}")).to_owned()
}

#[test]
fn t144_what_is_wrong_is_said_in_the_envelope() {
    go(async {
        let world = World::start("hm-words", &[]).await;
        let http = world.server.http;
        let keyless = send(bare(http, Method::POST, "/start-call").body("{}")).await;
        assert_eq!(
            (refused(&keyless, 401).as_str(), keyless.header("www-authenticate")),
            ("Authentication failed", "Bearer")
        );
        let start = async |body: Value| refused(&world.key.post("/start-call", &body).await, 400);
        let url = world.receiver.url();
        assert_eq!(
            start(json!({"phone_number": "+14155550100", "webhook_url": url})).await,
            "prompt is required"
        );
        let other = json!({"number": "+14155550100", "prompt": "x", "webhook_url": url});
        assert_eq!(start(other).await, "phone_number is required");
        assert_eq!(
            start(json!({"phone_number": "+14155550100", "prompt": "x"})).await,
            "webhook_url is required"
        );
        let forbidden =
            json!({"phone_number": "+14155550100", "prompt": "x", "webhook_url": "http://10.0.0.1/"});
        assert_eq!(start(forbidden).await, "webhook_url must be an https URL");
        assert_eq!(refused(&world.key.get("/start-call").await, 405), "Method not allowed");
        assert_eq!(refused(&world.key.get("/hamming/nothing").await, 404), "Not found");
        assert_eq!(refused(&world.key.post("/start-call", &json!([])).await, 400), "Invalid JSON body");
        let nowhere = world.server.key(&[]);
        assert_eq!(
            refused(&nowhere.post("/start-call", &world.body("14155550100")).await, 500),
            "No outbound route"
        );
    });
}

#[test]
fn t145_callbacks_come_in_their_order_and_are_signed() {
    go(async {
        let world = World::start("hm-told", &[("AGENT__SILENCE_S", "1")]).await;
        let to = number("0100");
        let id = world.begin(&to).await;
        assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
        let all = world.told(&id, 6).await;
        let order = [
            "initiated",
            "event_phone_call_connected",
            "in-progress",
            "event_phone_call_ended",
            "completed",
            "event_recording",
        ];
        assert_eq!(statuses(&all), order);
        for (place, body) in all.iter().enumerate() {
            assert_eq!(body["recording_available"], json!(place == 5), "{body}");
            assert_eq!(body["sequence"], place + 1, "{body}");
        }
        let deliveries = world.receiver.all();
        assert!(deliveries.iter().all(|one| genuine(&world.key.webhook_secret, one, &one.body)));
        // The agent has nobody to think for it and says so.
        let heard = heard_seconds(&world.carrier.call(&to).await.heard());
        assert!((1.0..8.0).contains(&heard), "{heard} s of speech");

        sleep(APART).await;
        let busy = world.begin(&number("0300")).await;
        assert_eq!(statuses(&world.told(&busy, 2).await), ["initiated", "failed"]);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(world.told(&busy, 2).await.len(), 2, "nothing more is told");
    });
}

#[test]
fn t146_a_recording_is_waited_for_and_is_its_keys_own() {
    go(async {
        let world = World::start("hm-media", &[]).await;
        let id = world.begin(&number("0403")).await;
        let path = format!("/media/exercise?id={id}");
        // The call is up for three more seconds.
        let answer = world.key.get(&path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "audio/wav"));
        assert_eq!(&answer.body[..4], b"RIFF");
        let length = read_wav(&answer.body).len() as f64 / 8000.0;
        assert!((2.5..3.8).contains(&length), "{length} s");
        assert_eq!(refused(&world.key.get("/media/exercise").await, 400), "id is required");
        for unknown in ["abc", "00000000-0000-4000-8000-000000000000"] {
            let answer = world.key.get(&format!("/media/exercise?id={unknown}")).await;
            assert_eq!(refused(&answer, 404), "Recording not found");
        }
        let other = world.server.key(&["--trunks", "carrier"]);
        assert_eq!(refused(&other.get(&path).await, 404), "Recording not found");
        let busy = world.begin(&number("0300")).await;
        world.told(&busy, 2).await;
        let none = world.key.get(&format!("/hamming/media/exercise?id={busy}")).await;
        assert_eq!((refused(&none, 404).as_str(), none.header("retry-after")), ("Recording not found", ""));
    });
}

#[test]
fn t147_calls_are_half_a_second_apart_and_twenty_at_once() {
    go(async {
        let world = World::start("hm-pace", &[]).await;
        let start = async || world.key.post("/start-call", &world.body(&number("0303"))).await;
        let mut live = 0;
        let early = loop {
            let begun = Instant::now();
            id_of(&start().await);
            let early = start().await;
            live += 1;
            if early.status == 429 {
                break early;
            }
            // So slow a machine that the time between them had passed.
            id_of(&early);
            assert!(begun.elapsed() >= Duration::from_millis(500), "two calls at once");
            live += 1;
            assert!(live < 18, "never quick enough to be refused");
            sleep(APART).await;
        };
        assert_eq!(
            (refused(&early, 429).as_str(), early.header("retry-after")),
            ("Calls must be at least 500 ms apart", "1")
        );
        // A bad body is one whatever the pace.
        assert_eq!(
            refused(&world.key.post("/start-call", &json!({})).await, 400),
            "phone_number is required"
        );
        for _ in live..20 {
            sleep(APART).await;
            id_of(&start().await);
        }
        sleep(APART).await;
        assert_eq!(refused(&start().await, 429), "Concurrent call limit reached");
        // Another key has a pace of its own.
        let other = world.server.key(&["--trunks", "carrier"]);
        id_of(&other.post("/start-call", &world.body(&number("0303"))).await);
    });
}

#[test]
fn t148_the_longest_call_is_hung_up_and_completed() {
    go(async {
        let world = World::start("hm-longest", &[("LIMITS__MAX_CALL_DURATION_S", "2")]).await;
        let to = number("0500");
        let id = world.begin(&to).await;
        let all = world.told(&id, 6).await;
        assert_eq!(statuses(&all)[3..], ["event_phone_call_ended", "completed", "event_recording"]);
        let far = world.carrier.call(&to).await;
        let length = seconds(far.time("answeredAt"), far.time("endedAt"));
        assert!((1.7..2.6).contains(&length), "{length} s");
        assert_eq!(far.line["endedBy"], "them");
    });
}

/// Out of order for three INVITEs, then a far end that answers.
fn mended(invite: &Message) -> Vec<Vec<u8>> {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let uri = invite.text.split(' ').nth(1).unwrap_or_default();
    let own = uri.rsplit('@').next().unwrap_or_default().split(';').next().unwrap_or_default();
    let own: SocketAddr = own.parse().expect("the trunk's own address");
    let answer = |status: &str, body: &str| response(invite, own, status, "", body).into_bytes();
    if SEEN.fetch_add(1, Ordering::Relaxed) < 3 {
        return vec![answer("503 Service Unavailable", "")];
    }
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39998 RTP/AVP 0\r\n";
    vec![answer("180 Ringing", ""), answer("200 OK", sdp)]
}

/// When INVITEs came, retransmissions once.
fn invites(far: &Uas) -> Vec<Instant> {
    let mut branches = Vec::new();
    let mut times = Vec::new();
    for message in far.log().iter().filter(|message| message.method() == "INVITE") {
        let branch = message.header("Via").to_owned();
        if !branches.contains(&branch) {
            branches.push(branch);
            times.push(message.at);
        }
    }
    times
}

#[test]
fn t149_a_trunk_out_of_order_is_dialled_again_under_one_id() {
    go(async {
        let world = World::start("hm-redial", &[]).await;
        let far = Uas::start(Script::Raw(mended)).await;
        let (key, _) = world.server.key_on("unlimited", &[far.addr]);
        let id = id_of(&key.post("/start-call", &world.body("14155550100")).await);
        let all = world.told(&id, 3).await;
        assert_eq!(statuses(&all), ["initiated", "event_phone_call_connected", "in-progress"]);
        let times = invites(&far);
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        assert_eq!(gaps.len(), 3, "{gaps:?}");
        for (gap, expected) in gaps.iter().zip([1.0, 2.0, 4.0]) {
            // Not before; how long after is the machine's affair, but not the next step's.
            assert!((expected - 0.05..2.0 * expected + 0.8).contains(gap), "{gaps:?}");
        }
        let busy = Uas::start(Script::Final("486 Busy Here", "")).await;
        let (key, _) = world.server.key_on("unlimited", &[busy.addr]);
        let id = id_of(&key.post("/start-call", &world.body("14155550100")).await);
        assert_eq!(statuses(&world.told(&id, 2).await), ["initiated", "failed"]);
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(invites(&busy).len(), 1);
    });
}

#[test]
fn three_calls_that_no_trunk_took_open_the_circuit() {
    go(async {
        let world = World::start("hm-circuit", &[]).await;
        let far = Uas::start(Script::Final("503 Service Unavailable", "")).await;
        let (key, _) = world.server.key_on("unlimited", &[far.addr]);
        let start = async || key.post("/start-call", &world.body("14155550100")).await;
        for _ in 0..3 {
            let id = id_of(&start().await);
            assert_eq!(statuses(&world.told(&id, 2).await), ["initiated", "failed"]);
        }
        let open = start().await;
        assert_eq!(refused(&open, 429), "Circuit open");
        let wait: u32 = open.header("retry-after").parse().expect("seconds");
        assert!((20..=30).contains(&wait), "{wait}");
        // Other keys' calls are not concerned.
        id_of(&world.key.post("/start-call", &world.body(&number("0300"))).await);
    });
}

#[test]
fn a_callback_is_tried_four_times_and_the_others_wait_behind_it() {
    go(async {
        let world = World::start("hm-retry", &[]).await;
        let receiver =
            Receiver::ruled(|_, before| (if before < 3 { 410 } else { 204 }, Duration::ZERO)).await;
        let id = id_of(&world.key.post("/start-call", &body(&number("0300"), &receiver.url())).await);
        let all = told(&receiver, &id, 5).await;
        assert_eq!(statuses(&all), ["initiated", "initiated", "initiated", "initiated", "failed"]);
        let ids: Vec<_> = receiver.all().iter().map(|one| one.header("webhook-id").to_owned()).collect();
        assert!(ids[..4].iter().all(|id| *id == ids[0]) && ids[4] != ids[0], "{ids:?}");
    });
}

#[test]
fn t150_the_receiver_takes_callbacks_and_shows_them_to_operators() {
    go(async {
        let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
        let world = World::start("hm-inbox", &[("HAMMING__CALLBACK_SECRET", &secret)]).await;
        let http = world.server.http;
        let good = json!({"id": "call-1", "status": "event_recording", "recording_available": true});
        let post = |body: &Value| bare(http, Method::POST, "/webhook/callback").body(body.to_string());
        for _ in 0..2 {
            assert_eq!(send(post(&good)).await.expect(200), json!({"received": true}));
        }
        for (field, value) in [
            ("id", json!("")),
            ("id", Value::Null),
            ("status", json!("foo")),
            ("recording_available", json!("true")),
            ("recording_available", Value::Null),
        ] {
            let mut body = good.clone();
            body[field] = value;
            let text = refused(&send(post(&body)).await, 400);
            assert!(text.starts_with(field), "{text}");
        }
        assert_eq!(
            refused(&send(post(&good).header("x-forwarded-for", "10.0.0.1")).await, 401),
            "Authentication failed"
        );
        assert_eq!(refused(&send(post(&good).header("origin", "https://evil")).await, 403), "Forbidden");
        assert_eq!(refused(&send(post(&good).bearer_auth("ak_wrong")).await, 401), "Authentication failed");
        world.key.post("/webhook/callback", &good).await.expect(200);

        let stamp = jiff::Timestamp::now().as_second().to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("any length");
        mac.update(format!("evt_1.{stamp}.{good}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let signed = |body: &Value| {
            let request = post(body).header("webhook-id", "evt_1").header("webhook-timestamp", &stamp);
            request.header("webhook-signature", &signature).header("x-forwarded-for", "10.0.0.1")
        };
        send(signed(&good)).await.expect(200);
        let altered = json!({"id": "call-2", "status": "completed", "recording_available": true});
        assert_eq!(refused(&send(signed(&altered)).await, 401), "Authentication failed");

        let admin = world.server.key(&["--admin"]);
        let inbox = admin.get("/admin/v1/callbacks?limit=3").await.expect(200);
        assert_eq!(inbox["total"], 4, "{inbox}");
        let rows = inbox["callbacks"].as_array().expect("a list");
        let senders: Vec<_> = rows.iter().map(|row| row["sender"].as_str().unwrap_or_default()).collect();
        assert_eq!(senders, ["signature", world.key.key_id.as_str(), "loopback"]);
        assert_eq!((&rows[0]["call"], &rows[0]["recordingAvailable"]), (&json!("call-1"), &json!(true)));
        assert_eq!(admin.get("/admin/v1/callbacks?call=call-2").await.expect(200)["total"], 0);
        assert_eq!(world.key.get("/admin/v1/callbacks").await.status, 403);
    });
}

#[test]
fn a_recording_that_a_callback_tells_of_is_fetched_and_kept() {
    go(async {
        // Another such system, with a call of its own that was recorded.
        let other = World::start("hm-other", &[]).await;
        let id = other.begin(&number("0400")).await;
        other.told(&id, 6).await;
        let sent = send(other.key.request(Method::GET, &format!("/media/exercise?id={id}"))).await;
        assert_eq!(sent.status, 200);
        let base = format!("http://{}", other.server.http);
        let settings =
            [("HAMMING__RECORDINGS_BASE", base.as_str()), ("HAMMING__RECORDINGS_KEY", &other.key.key)];
        let server = Server::start("hm-fetch", &settings).await;
        let admin = server.key(&["--admin"]);
        let tell = async |call: &str, status: &str, available: bool| {
            let body = json!({"id": call, "status": status, "recording_available": available});
            let request = bare(server.http, Method::POST, "/webhook/callback").body(body.to_string());
            send(request).await.expect(200);
            let rows = admin.get("/admin/v1/callbacks?limit=1").await.expect(200);
            rows["callbacks"][0]["id"].as_i64().expect("a number")
        };
        let row = async |id: i64| {
            let rows = admin.get("/admin/v1/callbacks").await.expect(200);
            rows["callbacks"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone()
        };
        let settled = async |id: i64| {
            until(30.0, "the recording is fetched or not", async || {
                Some(row(id).await).filter(|row| row["recording"] != "fetching")
            })
            .await
        };
        let fetched = tell(&id, "event_recording", true).await;
        let about = settled(fetched).await;
        assert_eq!(
            (&about["recording"], &about["recordingSize"]),
            (&json!("stored"), &json!(sent.body.len()))
        );
        let path = |id: i64| format!("/admin/v1/callbacks/{id}/recording");
        let kept = send(admin.request(Method::GET, &path(fetched))).await;
        assert_eq!((kept.status, kept.header("content-type")), (200, "audio/wav"));
        assert!(kept.body == sent.body, "the very same file");
        assert_eq!(other.key.request(Method::GET, "/media/exercise").send().await.unwrap().status(), 400);
        // A call that is unknown there, a status that tells of none, and one that says there is none.
        let unknown = tell("../../etc/passwd", "event_recording", true).await;
        let (early, without) =
            (tell(&id, "completed", true).await, tell(&id, "event_recording", false).await);
        for id in [early, without] {
            assert_eq!(row(id).await["recording"], Value::Null);
        }
        assert_eq!(settled(unknown).await["recording"], "failed");
        for id in [unknown, early, 999] {
            assert_eq!(admin.get(&path(id)).await.refused(404), "Recording not found");
        }
        let files = std::fs::read_dir(server.home.join("recordings/callbacks")).unwrap();
        assert_eq!(files.count(), 1);
    });
}

#[test]
fn a_recording_is_not_fetched_from_where_webhooks_may_not_go() {
    go(async {
        let far = Receiver::start().await;
        let settings =
            [("HAMMING__RECORDINGS_BASE", far.url()), ("WEBHOOKS__ALLOW_CIDRS", "10.9.9.9/32".to_owned())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let server = Server::start("hm-guard", &settings).await;
        let admin = server.key(&["--admin"]);
        let body = json!({"id": "call-1", "status": "event_recording", "recording_available": true});
        send(bare(server.http, Method::POST, "/webhook/callback").body(body.to_string())).await.expect(200);
        until(30.0, "it is given up", async || {
            let rows = admin.get("/admin/v1/callbacks").await.expect(200);
            (rows["callbacks"][0]["recording"] == "failed").then_some(())
        })
        .await;
        assert!(far.all().is_empty(), "nobody was asked");
    });
}

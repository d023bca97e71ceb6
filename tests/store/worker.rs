//! The webhook worker against receivers of every temper.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::sync::Notify;
use trunkline::clock;
use trunkline::config::Webhooks;
use trunkline::journal::Recorder;
use trunkline::model::CallId;
use trunkline::model::call::{CallView, EndReason};
use trunkline::model::event::{CallEvent, Stamped};
use trunkline::store::Db;
use trunkline::store::outbox::DeliveryLog;
use trunkline::webhook::{Worker, WorkerHandle};

use crate::receiver::{Receiver, Temper, dns_server};
use crate::{Scratch, digit, ended, eventually, formats, key, order, place};

pub(crate) const OK: Temper = Temper::Answer(200, "");

pub(crate) struct World {
    _scratch: Scratch,
    pub(crate) db: Db,
    recorder: Recorder,
    wake: Arc<Notify>,
    pub(crate) key: i64,
}

impl World {
    pub(crate) async fn new() -> Self {
        let scratch = Scratch::new();
        let db = scratch.db().await;
        let key = key(&db, None).await.id;
        let recorder = Recorder::new(db.clone(), formats());
        Self { _scratch: scratch, db, recorder, wake: Arc::new(Notify::new()), key }
    }

    pub(crate) async fn place(&self, id: u128, url: &str) {
        assert!(place(&self.db, &order(self.key, id, Some(url))).await);
    }

    /// Writes events as the journal does, now.
    pub(crate) async fn tell(&self, call: u128, events: impl IntoIterator<Item = CallEvent>) {
        let mut view: CallView = self.db.call(CallId(call)).await.unwrap().unwrap();
        let at = clock::now().wall;
        let mut batch = Vec::new();
        for event in events {
            view.apply(at, &event);
            batch.push((Stamped { call: CallId(call), at, event }, Some(Arc::new(view.clone()))));
        }
        self.recorder.write(&batch).await.unwrap();
        self.wake.notify_one();
    }

    pub(crate) fn work(&self, config: &Webhooks) -> WorkerHandle {
        Worker::start(self.db.clone(), formats(), config, self.wake.clone()).unwrap()
    }

    pub(crate) async fn log(&self, call: u128) -> Vec<DeliveryLog> {
        self.db.deliveries(CallId(call)).await.unwrap()
    }

    /// Waits until the last row of a call is settled, and returns all rows.
    pub(crate) async fn settled(&self, call: u128) -> Vec<DeliveryLog> {
        let settled = async || self.log(call).await.last().is_some_and(|row| row.state != "waiting");
        eventually("the last row is settled", settled).await;
        self.log(call).await
    }
}

/// Loopback permitted, retry delays a hundredth.
pub(crate) fn config() -> Webhooks {
    Webhooks {
        allow_http: true,
        allow_cidrs: vec!["127.0.0.0/8".into()],
        time_scale: 0.01,
        ..Webhooks::default()
    }
}

pub(crate) fn states(rows: &[DeliveryLog]) -> Vec<(&str, &str, u32)> {
    rows.iter().map(|row| (row.event.as_str(), row.state.as_str(), row.attempts)).collect()
}

#[tokio::test]
async fn events_arrive_in_order_with_the_documented_headers() {
    let world = World::new().await;
    let receiver = Receiver::local(&[OK]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world
        .tell(1, [CallEvent::Ringing, CallEvent::Answered, digit('1'), ended(EndReason::NormalHangup)])
        .await;
    world.settled(1).await;
    worker.stop().await;
    assert_eq!(receiver.events(), ["ringing", "answered", "digit", "ended"]);
    let secret = world.db.webhook_secrets(world.key, clock::now().wall).await.unwrap().remove(0);
    let mut ids = Vec::new();
    for (sequence, request) in (1..).zip(receiver.requests()) {
        let header = |name: &str| request.header(name).unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("user-agent"), "Plain/1.0");
        assert_eq!(header("x-webhook-attempt"), "1");
        assert!(request.body.ends_with(&format!("\"sequence\":{sequence}}}")), "{}", request.body);
        let (id, stamp) = (header("webhook-id"), header("webhook-timestamp"));
        let age = clock::now().wall.seconds() - stamp.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age}");
        let bytes = STANDARD.decode(secret.0.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&bytes).unwrap();
        mac.update(format!("{id}.{stamp}.{}", request.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(header("webhook-signature"), expected);
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 4, "each event has its own id");
}

#[tokio::test]
async fn a_terminal_event_is_tried_again_under_the_same_id() {
    let world = World::new().await;
    let receiver = Receiver::local(&[
        Temper::Answer(500, ""),
        Temper::Close,
        Temper::Answer(302, "Location: /x\r\n"),
        OK,
    ])
    .await;
    world.place(1, &receiver.url()).await;
    // 30 s, 5 min, 30 min become 3, 30, 180 ms.
    let worker = world.work(&Webhooks { time_scale: 0.0001, ..config() });
    world.tell(1, [ended(EndReason::NormalHangup)]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    assert_eq!(states(&rows), [("ended", "delivered", 4)]);
    let requests = receiver.requests();
    let attempts: Vec<_> =
        requests.iter().map(|request| request.header("x-webhook-attempt").unwrap()).collect();
    assert_eq!(attempts, ["1", "2", "3", "4"], "the redirect was not followed");
    for request in &requests {
        assert_eq!(request.header("webhook-id"), Some(rows[0].event_id.as_str()));
        assert_eq!(request.body, rows[0].body);
    }
}

#[tokio::test]
async fn live_events_are_not_repeated_where_they_may_have_been_processed() {
    let world = World::new().await;
    let script = [Temper::Answer(500, ""), Temper::Close, Temper::Hang, Temper::Answer(503, ""), OK];
    let receiver = Receiver::local(&script).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world.tell(1, [digit('1'), digit('2'), digit('3'), digit('4'), digit('5')]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    let wanted = [
        ("digit", "dropped", 1),
        ("digit", "dropped", 1),
        ("digit", "dropped", 1),
        ("digit", "delivered", 2),
        ("digit", "delivered", 1),
    ];
    assert_eq!(states(&rows), wanted);
    assert_eq!(rows[2].last_result, "timed out");
}

#[tokio::test]
async fn the_end_of_the_call_drops_only_what_has_failed() {
    let world = World::new().await;
    let receiver = Receiver::local(&[Temper::Answer(503, ""), OK]).await;
    world.place(1, &receiver.url()).await;
    // A live retry would come after a hundred seconds and hold the others back.
    let worker = world.work(&Webhooks { time_scale: 100.0, ..config() });
    world.tell(1, [CallEvent::Ringing, digit('1'), digit('2')]).await;
    eventually("the first has failed", async || world.log(1).await[0].attempts == 1).await;
    world.tell(1, [ended(EndReason::NormalHangup)]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    let wanted = [
        ("ringing", "dropped", 1),
        ("digit", "delivered", 1),
        ("digit", "delivered", 1),
        ("ended", "delivered", 1),
    ];
    assert_eq!(states(&rows), wanted);
    assert_eq!(receiver.events(), ["ringing", "digit", "digit", "ended"]);
}

#[tokio::test]
async fn gone_stops_the_rest_of_the_call() {
    let world = World::new().await;
    let receiver = Receiver::local(&[Temper::Answer(410, "")]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing, digit('1')]).await;
    world.settled(1).await;
    world.tell(1, [ended(EndReason::NormalHangup)]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    assert_eq!(states(&rows), [("ringing", "gone", 1), ("digit", "dropped", 0), ("ended", "dropped", 0)]);
    assert_eq!(receiver.events(), ["ringing"]);
}

#[tokio::test]
async fn answers_that_never_end_are_cut_off() {
    let world = World::new().await;
    let dripping = Receiver::local(&[Temper::Drip]).await;
    let huge = Receiver::local(&[Temper::Huge]).await;
    let endless = Receiver::local(&[Temper::EndlessHeaders]).await;
    world.place(1, &dripping.url()).await;
    world.place(2, &huge.url()).await;
    world.place(3, &endless.url()).await;
    let worker = world.work(&config());
    for call in 1..=3 {
        world.tell(call, [CallEvent::Ringing]).await;
    }
    assert_eq!(states(&world.settled(1).await), [("ringing", "delivered", 1)]);
    assert_eq!(states(&world.settled(2).await), [("ringing", "delivered", 1)]);
    assert_eq!(world.settled(3).await[0].state, "dropped");
    worker.stop().await;
    // What the kernel's buffers take in is not read by us.
    assert!(huge.written() < 9_000_000, "{}", huge.written());
    assert!(endless.written() < 9_000_000, "{}", endless.written());
}

#[tokio::test]
async fn a_slow_host_does_not_delay_another() {
    let world = World::new().await;
    let slow = Receiver::local(&[Temper::Hang]).await;
    let quick = Receiver::new(Ipv4Addr::new(127, 0, 0, 2), &[OK]).await;
    for call in 1..=40 {
        world.place(call, &slow.url()).await;
        world.tell(call, [CallEvent::Ringing]).await;
    }
    world.place(99, &quick.url()).await;
    world.tell(99, [CallEvent::Ringing]).await;
    let worker = world.work(&Webhooks { max_concurrent_per_host: 2, ..config() });
    assert_eq!(states(&world.settled(99).await), [("ringing", "delivered", 1)]);
    assert!(slow.requests().len() <= 2, "the cap on one host holds");
    drop(worker);
}

#[tokio::test]
async fn names_that_lead_to_forbidden_addresses_are_not_dialled() {
    let world = World::new().await;
    let receiver = Receiver::local(&[OK]).await;
    let resolver = dns_server(Ipv4Addr::LOCALHOST).await.to_string();
    let url = format!("http://rebound.example:{}/hooks", receiver.address.port());
    world.place(1, &url).await;
    world.place(2, &receiver.url()).await;
    let closed = Webhooks { allow_cidrs: Vec::new(), resolver: resolver.clone(), ..config() };
    let worker = world.work(&closed);
    for call in [1, 2] {
        world.tell(call, [CallEvent::Ringing]).await;
        let rows = world.settled(call).await;
        assert_eq!((rows[0].state.as_str(), rows[0].last_result.as_str()), ("dropped", "forbidden address"));
    }
    worker.stop().await;
    assert_eq!(receiver.connections(), 0);

    world.place(3, &url).await;
    let worker = world.work(&Webhooks { resolver, ..config() });
    world.tell(3, [CallEvent::Ringing]).await;
    assert_eq!(states(&world.settled(3).await), [("ringing", "delivered", 1)]);
    worker.stop().await;
    assert_eq!(receiver.requests().len(), 1, "the same name with the exception");
}

#[tokio::test]
async fn nobody_listening_is_tried_again_and_then_dropped() {
    let world = World::new().await;
    let closed = Receiver::local(&[OK]).await.address;
    let nobody = format!("http://127.0.0.3:{}/hooks", closed.port());
    world.place(1, &nobody).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    assert_eq!(states(&rows), [("ringing", "dropped", 4)]);
    assert_eq!(rows[0].last_result, "no connection");
}

#[tokio::test]
async fn what_was_promised_is_sent_after_a_restart() {
    let world = World::new().await;
    let receiver = Receiver::local(&[OK]).await;
    world.place(1, &receiver.url()).await;
    world.tell(1, [CallEvent::Ringing, ended(EndReason::NormalHangup)]).await;
    let first = world.work(&Webhooks { allow_cidrs: Vec::new(), time_scale: 0.001, ..config() });
    eventually("the first worker has failed once", async || {
        world.log(1).await.iter().any(|row| row.event == "ended" && row.attempts > 0)
    })
    .await;
    first.stop().await;
    let second = world.work(&Webhooks { time_scale: 0.001, ..config() });
    let rows = world.settled(1).await;
    second.stop().await;
    assert_eq!(rows[1].state, "delivered");
    assert_eq!(receiver.events(), ["ended"]);
}

#[tokio::test]
async fn stopping_waits_for_attempts_under_way() {
    let world = World::new().await;
    let receiver = Receiver::local(&[Temper::Drip]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing]).await;
    eventually("the attempt is under way", async || receiver.requests().len() == 1).await;
    tokio::time::timeout(Duration::from_secs(5), worker.stop()).await.unwrap();
    assert_eq!(states(&world.log(1).await), [("ringing", "delivered", 1)]);
}

#[tokio::test]
async fn a_broken_handshake_counts_as_no_connection() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}/hooks", listener.local_addr().unwrap());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    world.place(1, &url).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing]).await;
    let rows = world.settled(1).await;
    worker.stop().await;
    assert_eq!(states(&rows), [("ringing", "dropped", 4)], "tried again: nobody can have acted on it");
    assert_eq!(rows[0].last_result, "no connection");
}

//! The webhook worker under the worst of receivers: dead for an hour, half dead, lying, or many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use trunkline::clock;
use trunkline::config::Webhooks;
use trunkline::model::CallId;
use trunkline::model::call::{CallView, EndReason};
use trunkline::model::event::CallEvent;
use trunkline::store::audit::By;
use trunkline::store::deliveries::{DeliveryFilter, Redelivered};
use trunkline::store::outbox::NewDelivery;

use crate::receiver::{Receiver, Temper, dns_script};
use crate::worker::{OK, World, config, states};
use crate::{digit, ended, eventually, eventually_within, order};

/// An address on which nobody listens: a port that was free, of a loopback address that no other test uses.
async fn nobody(last: u8) -> SocketAddr {
    Receiver::new(Ipv4Addr::new(127, 0, 9, last), &[OK]).await.gone().await
}

#[tokio::test]
async fn a_receiver_that_was_down_for_an_hour_gets_every_terminal_event_once_and_in_order() {
    let world = World::new().await;
    let address = nobody(1).await;
    let url = format!("http://{address}/hooks");
    // An hour is 1.8 s.
    let worker = world.work(&Webhooks { time_scale: 0.0005, ..config() });
    for call in 1..=20 {
        world.place(call, &url).await;
        world.tell(call, [CallEvent::Ringing, digit('1'), ended(EndReason::NormalHangup)]).await;
    }
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let receiver = Receiver::at(address, &[OK]).await;
    for call in 1..=20 {
        let settled = async || world.log(call).await.iter().all(|row| row.state != "waiting");
        eventually_within("all is settled", Duration::from_secs(30), settled).await;
        assert_eq!(world.log(call).await[2].state, "delivered");
    }
    worker.stop().await;
    let mut ended = BTreeSet::new();
    for request in receiver.requests().iter().filter(|request| request.body.contains("\"ended\"")) {
        assert!(ended.insert(request.header("webhook-id").unwrap().to_owned()), "came twice");
    }
    assert_eq!(ended.len(), 20);
}

#[tokio::test]
async fn a_dead_receiver_is_left_alone_and_its_events_keep_their_attempts() {
    let world = World::new().await;
    let address = nobody(2).await;
    let quick = Receiver::new(Ipv4Addr::new(127, 0, 9, 2), &[OK]).await;
    // Delays of seconds stay seconds: the circuit is open for 30 s.
    let worker = world.work(&Webhooks { time_scale: 1.0, max_concurrent_per_host: 2, ..config() });
    for call in 1..=40 {
        world.place(call, &format!("http://{address}/hooks")).await;
        world.tell(call, [ended(EndReason::NormalHangup)]).await;
    }
    eventually("the circuit is open", async || {
        let mut tried = 0;
        for call in 1..=40 {
            tried += world.log(call).await[0].attempts;
        }
        tried >= 5
    })
    .await;
    // The same host on another port is another receiver, and is served at once.
    world.place(99, &quick.url()).await;
    world.tell(99, [ended(EndReason::NormalHangup)]).await;
    assert_eq!(states(&world.settled(99).await), [("ended", "delivered", 1)]);
    worker.stop().await;
    let mut tried = 0;
    for call in 1..=40 {
        let row = world.log(call).await.remove(0);
        assert_eq!(row.state, "waiting");
        tried += row.attempts;
    }
    assert!((5..=6).contains(&tried), "five to open it, one more under way: {tried}");
}

#[tokio::test]
async fn a_probe_finds_a_receiver_that_is_back() {
    let world = World::new().await;
    let address = nobody(3).await;
    // The circuit is open for 300 ms, a first retry comes after 300 ms.
    let worker = world.work(&config());
    for call in 1..=30 {
        world.place(call, &format!("http://{address}/hooks")).await;
        world.tell(call, [ended(EndReason::NormalHangup)]).await;
    }
    eventually("the circuit is open", async || {
        world.log(30).await[0].attempts == 0 && world.log(1).await[0].attempts > 0
    })
    .await;
    let receiver = Receiver::at(address, &[OK]).await;
    for call in 1..=30 {
        assert_eq!(world.settled(call).await[0].state, "delivered");
    }
    worker.stop().await;
    assert_eq!(receiver.requests().len(), 30);
}

#[tokio::test]
async fn a_receiver_that_never_comes_back_ends_its_rows_without_their_attempts() {
    let world = World::new().await;
    let address = nobody(4).await;
    // A terminal schedule lasts 0.94 s and five time-outs of 1.2 s; the circuit opens for 3 ms at a time.
    let worker = world.work(&Webhooks { time_scale: 0.0001, max_concurrent_per_host: 1, ..config() });
    for call in 1..=60 {
        world.place(call, &format!("http://{address}/hooks")).await;
        world.tell(call, [CallEvent::Ringing, ended(EndReason::NormalHangup)]).await;
    }
    for call in 1..=60 {
        let settled = async || world.log(call).await.iter().all(|row| row.state != "waiting");
        eventually_within("it is given up", Duration::from_secs(40), settled).await;
        let rows = world.log(call).await;
        assert_eq!((rows[0].state.as_str(), rows[1].state.as_str()), ("dropped", "failed"), "{rows:?}");
        assert!(rows[1].attempts <= 5, "{rows:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_head_that_drips_is_timed_out_and_every_attempt_is_in_the_log() {
    let world = World::new().await;
    let receiver = Receiver::local(&[Temper::DripHead, Temper::Answer(503, ""), OK]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&Webhooks { time_scale: 0.0001, ..config() });
    world.tell(1, [ended(EndReason::NormalHangup)]).await;
    world.settled(1).await;
    worker.stop().await;
    let rows = world.db.list_deliveries(&DeliveryFilter::default(), 10, None).await.unwrap();
    let (row, attempts) = world.db.delivery(rows[0].id).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.attempts), ("delivered", 3));
    let told: Vec<_> = attempts.iter().map(|row| (row.number, row.status, row.result.as_str())).collect();
    assert_eq!(told, [(1, None, "timed out"), (2, Some(503), "status 503"), (3, Some(200), "status 200")]);
    assert!((1200..8000).contains(&attempts[0].took_ms), "{attempts:?}");
    assert!(attempts[2].at > attempts[0].at, "{attempts:?}");
}

#[tokio::test]
async fn a_redirect_into_the_loopback_is_not_followed() {
    let world = World::new().await;
    let inside = Receiver::new(Ipv4Addr::new(127, 0, 9, 5), &[OK]).await;
    let location: &'static str = Box::leak(format!("Location: {}\r\n", inside.url()).into_boxed_str());
    for (call, status) in [(1, 301), (2, 302), (3, 303), (4, 307), (5, 308)] {
        let receiver = Receiver::local(&[Temper::Answer(status, location)]).await;
        world.place(call, &receiver.url()).await;
        let worker = world.work(&Webhooks { time_scale: 0.0001, ..config() });
        world.tell(call, [ended(EndReason::NormalHangup)]).await;
        let rows = world.settled(call).await;
        worker.stop().await;
        assert_eq!(states(&rows), [("ended", "failed", 5)]);
        assert_eq!(rows[0].last_result, format!("status {status}"));
        assert_eq!(receiver.requests().len(), 5);
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_after_the_check_gains_nothing() {
    let world = World::new().await;
    let outside =
        Receiver::new(Ipv4Addr::new(127, 0, 9, 6), &[Temper::Answer(200, "Connection: close\r\n")]).await;
    let port = outside.address.port();
    let inside = Receiver::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &[OK]).await;
    // The first question is answered with the permitted address, every later one with the forbidden one.
    let dns = dns_script(&[Ipv4Addr::new(127, 0, 9, 6), Ipv4Addr::LOCALHOST]).await;
    let config =
        Webhooks { allow_cidrs: vec!["127.0.9.6/32".into()], resolver: dns.address.to_string(), ..config() };
    world.place(1, &format!("http://rebound.example:{port}/hooks")).await;
    let worker = world.work(&config);
    world.tell(1, [CallEvent::Ringing]).await;
    assert_eq!(states(&world.settled(1).await), [("ringing", "delivered", 1)]);
    assert_eq!(dns.questions(), 1, "what was checked is what was dialled: nobody asks twice");
    world.tell(1, [ended(EndReason::NormalHangup)]).await;
    eventually("it is refused", async || world.log(1).await[1].attempts > 0).await;
    assert_eq!(world.log(1).await[1].last_result, "forbidden address");
    worker.stop().await;
    assert_eq!((outside.requests().len(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn a_redelivery_keeps_its_id_and_comes_after_the_end() {
    let world = World::new().await;
    let receiver = Receiver::local(&[OK, OK, OK, Temper::Answer(503, ""), OK]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing, digit('1'), ended(EndReason::NormalHangup)]).await;
    world.settled(1).await;
    let rows = world.db.list_deliveries(&DeliveryFilter::default(), 10, None).await.unwrap();
    let first = rows.last().unwrap().id;
    // As the command line does it: nobody wakes the worker.
    let by = By::cli(clock::now().wall);
    assert_eq!(world.db.redeliver(first, &by).await.unwrap(), Redelivered::Queued);
    eventually("it came again", async || receiver.requests().len() == 5).await;
    let through = async || world.db.delivery(first).await.unwrap().unwrap().0.redelivery.is_none();
    eventually("it is through", through).await;
    worker.stop().await;
    let requests = receiver.requests();
    let told = |index: usize, name: &str| requests[index].header(name).unwrap().to_owned();
    for (index, attempt) in [(3, "2"), (4, "3")] {
        assert_eq!(told(index, "webhook-id"), told(0, "webhook-id"));
        assert_eq!(told(index, "x-webhook-attempt"), attempt);
        assert_eq!(requests[index].body, requests[0].body);
    }
    let (row, attempts) = world.db.delivery(first).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.attempts), ("delivered", 3));
    assert_eq!(attempts.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_replay_goes_in_order_beside_what_is_still_queued() {
    let world = World::new().await;
    let receiver = Receiver::local(&[OK]).await;
    world.place(1, &receiver.url()).await;
    let worker = world.work(&config());
    world.tell(1, [CallEvent::Ringing, digit('1'), digit('2')]).await;
    world.settled(1).await;
    worker.stop().await;
    let all = DeliveryFilter { state: Some("delivered".into()), ..DeliveryFilter::default() };
    let replayed = world.db.replay(&all, 100, &By::cli(clock::now().wall)).await.unwrap();
    assert_eq!((replayed.matched, replayed.queued), (3, 3));
    world.tell(1, [digit('3'), ended(EndReason::NormalHangup)]).await;
    let worker = world.work(&config());
    eventually("all came", async || receiver.requests().len() == 8).await;
    worker.stop().await;
    let sequences: Vec<u64> = receiver.requests().iter().map(|request| request.number("sequence")).collect();
    let (first, again): (Vec<_>, Vec<_>) = (
        sequences.iter().enumerate().filter(|(at, n)| *at < 3 || **n > 3).map(|(_, n)| *n).collect(),
        sequences.iter().enumerate().filter(|(at, n)| *at >= 3 && **n <= 3).map(|(_, n)| *n).collect(),
    );
    assert_eq!((first, again), (vec![1, 2, 3, 4, 5], vec![1, 2, 3]), "{sequences:?}");
}

/// Calls of the crowd, events of each, and receivers, the last of which is dead.
const CALLS: u128 = 2500;
const EVENTS: u32 = 4;
const RECEIVERS: u128 = 100;

/// Enqueues the whole crowd at once, call by call.
async fn crowd(world: &World, urls: &[String]) {
    let mut tx = world.db.begin().await.unwrap();
    let at = clock::now().wall;
    for call in 1..=CALLS {
        let url = &urls[usize::try_from(call % RECEIVERS).unwrap()];
        assert!(tx.hold_credit(world.key).await.unwrap());
        let mut view = CallView::new(std::sync::Arc::new(order(world.key, call, Some(url))));
        tx.insert_call(&view).await.unwrap();
        view.apply(at, &ended(EndReason::NormalHangup));
        tx.save_call(&view).await.unwrap();
        for sequence in 1..=EVENTS {
            let terminal = sequence == EVENTS;
            let body = format!(r#"{{"callId":"{call}","event":"x","sequence":{sequence}}}"#);
            let new = NewDelivery {
                call: CallId(call),
                key: world.key,
                dialect: "kaphila",
                event: if terminal { "ended" } else { "ringing" },
                terminal,
                url: url.clone(),
                body: body.into_bytes(),
                at,
            };
            tx.enqueue(&new).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_deliveries_arrive_once_and_in_order_though_a_receiver_is_dead() {
    let world = World::new().await;
    let dead = nobody(7).await;
    let mut receivers = Vec::new();
    let mut urls = Vec::new();
    for index in 1..RECEIVERS {
        let receiver = Receiver::new(Ipv4Addr::new(127, 0, 10, u8::try_from(index).unwrap()), &[OK]).await;
        urls.push(receiver.url());
        receivers.push(receiver);
    }
    urls.push(format!("http://{dead}/hooks"));
    crowd(&world, &urls).await;
    // An hour is 36 s, so the dead one's rows outlast the test.
    let worker = world.work(&config());
    let healthy = (CALLS - CALLS / RECEIVERS) * u128::from(EVENTS);
    let came = async || receivers.iter().map(|r| r.count() as u128).sum::<u128>() == healthy;
    eventually_within("all of the healthy have theirs", Duration::from_secs(90), came).await;
    let patient = world.db.claim(clock::now().wall, 10_000).await.unwrap();
    assert!(patient.len() <= 512, "{} rows of a dead receiver stand in the way", patient.len());
    let back = Receiver::at(dead, &[OK]).await;
    receivers.push(back);
    let waiting = DeliveryFilter { state: Some("waiting".into()), ..DeliveryFilter::default() };
    let none_waits = async || world.db.list_deliveries(&waiting, 1, None).await.unwrap().is_empty();
    eventually_within("nothing waits", Duration::from_secs(60), none_waits).await;
    worker.stop().await;

    let mut ids = BTreeSet::new();
    let mut calls: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for request in receivers.iter().flat_map(Receiver::requests) {
        assert!(ids.insert(request.header("webhook-id").unwrap().to_owned()), "came twice");
        calls.entry(request.number("callId")).or_default().push(request.number("sequence"));
    }
    assert_eq!(calls.len() as u128, CALLS);
    for (call, sequences) in &calls {
        let in_order = sequences.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order && sequences.last() == Some(&u64::from(EVENTS)), "{call}: {sequences:?}");
    }
}

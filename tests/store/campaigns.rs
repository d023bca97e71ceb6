//! Campaigns' contacts and tenants' endpoints in the database: who takes a contact, what becomes of it, and who is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Map;
use trunkline::api::voxforge::events::VoxForge;
use trunkline::control::rate::Minutes;
use trunkline::journal::Recorder;
use trunkline::model::agent::{AgentKind, AgentSettings, Voicemail};
use trunkline::model::call::{CallOrder, CallView, EndReason};
use trunkline::model::event::{CallEvent, Stamped};
use trunkline::model::purpose::Purpose;
use trunkline::model::{CallId, PhoneNumber};
use trunkline::store::Db;
use trunkline::store::agents::MadeAgent;
use trunkline::store::campaign_contacts::{CampaignContact, Untaken};
use trunkline::store::campaigns::{Campaign, CampaignSettings, Status};
use trunkline::store::contacts::NewContact;
use trunkline::store::endpoints::{EndpointSettings, MadeEndpoint};

use crate::{PLAIN, Scratch, T0, at, dialing, digit, ended, eventually, key, order, place};

fn contact(n: usize) -> NewContact {
    NewContact {
        phone: PhoneNumber::from_digits(&format!("1555{n:07}")).unwrap(),
        name: format!("N{n}"),
        variables: Map::new(),
        timezone: String::new(),
        dnc: false,
    }
}

async fn campaign(db: &Db, key: i64, max_concurrent: u32, max_attempts: u32) -> Campaign {
    let settings = AgentSettings {
        name: "A".into(),
        kind: AgentKind::Outbound,
        active: true,
        system_prompt: "P".into(),
        first_message: None,
        voice: "jennifer".into(),
        language: "en-US".into(),
        max_call_duration_s: None,
        record: false,
        context: Map::new(),
        relay_url: None,
        relay_keeps: false,
        voicemail: Voicemail::default(),
        tools: Vec::new(),
    };
    let MadeAgent::Made(agent) = db.create_agent("default", settings, None, T0).await.unwrap() else {
        panic!("there is no limit");
    };
    let about = CampaignSettings {
        name: "C".into(),
        agent: agent.id,
        number: "num_1".into(),
        starts_at: T0,
        timezone: "UTC".into(),
        span: None,
        days: 0x7f,
        max_concurrent,
        calls_per_second: 10,
        max_attempts,
        retry_s: 60,
        number_per_day: None,
        opt_out_key: None,
    };
    db.create_campaign(("default", key), about, Status::Active, T0).await.unwrap()
}

fn call_of(key: i64, id: u128, campaign: &str, contact: &CampaignContact) -> CallOrder {
    let purpose = Purpose {
        campaign: Some(campaign.to_owned()),
        contact: Some(contact.contact.clone()),
        ..Purpose::default()
    };
    CallOrder { purpose, to: contact.phone.clone(), ..order(key, id, None) }
}

/// Inserts a call that takes its contact, or nothing.
async fn claim(db: &Db, order: CallOrder, ms: i64) -> bool {
    untaken(db, order, ms).await.is_none()
}

/// The same; why it took nothing.
async fn untaken(db: &Db, order: CallOrder, ms: i64) -> Option<Untaken> {
    let view = CallView::new(Arc::new(CallOrder { created_at: T0.plus_ms(ms), ..order }));
    let mut tx = db.begin().await.unwrap();
    tx.insert_call(&view).await.unwrap();
    let untaken = tx.claim_contact(&view, T0.plus_ms(ms)).await.unwrap();
    if untaken.is_none() {
        tx.commit().await.unwrap();
    }
    untaken
}

/// Sets what a campaign may do.
async fn set(db: &Db, campaign: &str, change: impl Fn(&mut Campaign)) {
    let change = |campaign: &mut Campaign| {
        change(campaign);
        Ok::<(), ()>(())
    };
    db.change_campaign("default", campaign, change, T0).await.unwrap().unwrap().unwrap();
}

async fn states(db: &Db, campaign: &str) -> Vec<(String, i64, String)> {
    let (rows, _) = db.campaign_contacts(campaign, 100, 0).await.unwrap();
    rows.into_iter().map(|row| (row.state, row.attempts, row.last_outcome.unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_contact_is_taken_once_and_never_too_many() {
    let scratch = Scratch::new();
    let both = [scratch.db().await, scratch.db().await];
    let key = key(&both[0], None).await.id;
    let campaign = campaign(&both[0], key, 3, 1).await;
    let contacts: Vec<NewContact> = (0..6).map(contact).collect();
    both[0].add_contacts(&campaign, &contacts, T0).await.unwrap();
    let due = both[0].due_contacts(&campaign.id, T0, false, 100).await.unwrap();
    assert_eq!(due.len(), 6);
    let tries: Vec<_> = (0..24_u128)
        .map(|n| {
            let order = call_of(key, n + 1, &campaign.id, &due[usize::try_from(n % 6).unwrap()]);
            let db = both[usize::from(n % 2 == 1)].clone();
            tokio::spawn(async move { claim(&db, order.clone(), 0).await.then_some(order) })
        })
        .collect();
    let mut taken = Vec::new();
    for one in tries {
        taken.extend(one.await.unwrap());
    }
    assert_eq!(taken.len(), 3);
    let people: BTreeSet<_> = taken.iter().map(|order| order.purpose.contact.clone()).collect();
    assert_eq!(people.len(), 3);
    assert_eq!(both[1].dialing(&[&campaign.id]).await.unwrap()[&campaign.id], 3);
    // One is over: there is room for one more, of those that nobody has.
    let recorder = Recorder::new(both[1].clone(), vec![&PLAIN]);
    let call = taken[0].id;
    let over = Stamped { call, at: T0, event: ended(EndReason::NotFound) };
    recorder.write(&[(over, None)]).await.unwrap();
    let free: Vec<_> = due.iter().filter(|one| !people.contains(&Some(one.contact.clone()))).collect();
    assert!(claim(&both[0], call_of(key, 90, &campaign.id, free[0]), 0).await);
    assert!(!claim(&both[0], call_of(key, 91, &campaign.id, free[0]), 0).await);
    assert!(!claim(&both[1], call_of(key, 92, &campaign.id, free[1]), 0).await);
    // Paused: nobody is taken whatever is over.
    let pause = |campaign: &mut Campaign| {
        campaign.status = Status::Paused;
        Ok::<(), ()>(())
    };
    both[0].change_campaign("default", &campaign.id, pause, T0).await.unwrap();
    let over = Stamped { call: taken[1].id, at: T0, event: ended(EndReason::NotFound) };
    recorder.write(&[(over, None)]).await.unwrap();
    assert!(!claim(&both[1], call_of(key, 93, &campaign.id, free[1]), 0).await);
}

#[tokio::test]
async fn what_becomes_of_a_contact_is_written_with_its_calls_end() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let campaign = campaign(&db, key, 10, 2).await;
    let contacts: Vec<NewContact> = (0..5).map(contact).collect();
    db.add_contacts(&campaign, &contacts, T0).await.unwrap();
    let due = db.due_contacts(&campaign.id, T0, false, 100).await.unwrap();
    let recorder = Recorder::new(db.clone(), vec![&PLAIN]);
    for (n, end) in [
        (1, vec![CallEvent::Answered, ended(EndReason::NormalHangup)]),
        (2, vec![ended(EndReason::Busy)]),
        (3, vec![ended(EndReason::Shutdown)]),
        (4, vec![ended(EndReason::EngineRestart)]),
        (5, vec![ended(EndReason::Rejected)]),
    ] {
        let order = call_of(key, n, &campaign.id, &due[usize::try_from(n - 1).unwrap()]);
        assert!(claim(&db, order, 0).await);
        for event in std::iter::once(dialing()).chain(end) {
            recorder.write(&[(at(n, 0, event), None)]).await.unwrap();
        }
    }
    let row = |state: &str, attempts, outcome: &str| (state.to_owned(), attempts, outcome.to_owned());
    let after = [
        row("done", 1, "completed"),
        row("pending", 1, "busy"),
        row("pending", 0, "shutdown"),
        row("failed", 1, "engine_restart"),
        row("failed", 1, "rejected"),
    ];
    assert_eq!(states(&db, &campaign.id).await, after);
    // Not before its time; then once more, and no third time.
    assert!(db.due_contacts(&campaign.id, T0.plus_ms(59_999), false, 9).await.unwrap().is_empty());
    assert!(!claim(&db, call_of(key, 6, &campaign.id, &due[1]), 59_999).await);
    assert!(claim(&db, call_of(key, 6, &campaign.id, &due[1]), 60_000).await);
    assert!(!db.complete_campaign(&campaign.id, T0).await.unwrap());
    recorder.write(&[(at(6, 60_000, ended(EndReason::NoAnswer)), None)]).await.unwrap();
    assert_eq!(states(&db, &campaign.id).await[1], row("failed", 2, "no_answer"));
    // Who asked not to be called is not, even where the dialler has not seen it.
    let about = NewContact { dnc: true, ..contact(2) };
    db.create_contact("default", about, T0).await.unwrap();
    assert!(!claim(&db, call_of(key, 7, &campaign.id, &due[2]), 60_000).await);
    db.skip_contact(&campaign.id, due[2].position, "dnc").await.unwrap();
    assert!(db.complete_campaign(&campaign.id, T0).await.unwrap());
    assert!(!db.complete_campaign(&campaign.id, T0).await.unwrap());
    let counts = db.campaign_counts(&[&campaign.id]).await.unwrap()[&campaign.id];
    assert_eq!((counts.total(), counts.finished(), counts.done, counts.skipped), (5, 5, 1, 1));
}

#[tokio::test]
async fn contacts_are_added_once() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let campaign = campaign(&db, key, 1, 1).await;
    let known = db.create_contact("default", contact(3), T0).await.unwrap();
    db.create_contact("default", NewContact { dnc: true, ..contact(4) }, T0).await.unwrap();
    let many: Vec<NewContact> = (0..1200).map(contact).collect();
    let added = db.add_contacts(&campaign, &many, T0).await.unwrap().unwrap();
    assert_eq!((added.imported, added.duplicates), (1200, 0));
    let more: Vec<NewContact> = (1100..1300).map(contact).collect();
    let added = db.add_contacts(&campaign, &more, T0).await.unwrap().unwrap();
    assert_eq!((added.imported, added.duplicates), (100, 100));
    let (rows, total) = db.campaign_contacts(&campaign.id, 1000, 0).await.unwrap();
    assert_eq!((rows.len(), total), (1000, 1300));
    assert_eq!((rows[3].contact.as_str(), rows[4].state.as_str()), (known.id.as_str(), "skipped"));
    let (_, contacts) = db.contacts("default", 1, 0).await.unwrap();
    assert_eq!(contacts, 1300);
    let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
    assert_eq!(positions, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_changed_their_number_is_not_called_by_the_old_one() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let campaign = campaign(&db, key, 5, 1).await;
    db.add_contacts(&campaign, &[contact(0)], T0).await.unwrap();
    let due = db.due_contacts(&campaign.id, T0, false, 10).await.unwrap();
    let other = CampaignContact { phone: contact(1).phone, ..due[0].clone() };
    assert_eq!(untaken(&db, call_of(key, 1, &campaign.id, &other), 0).await, Some(Untaken::Elsewhere));
    assert_eq!(untaken(&db, call_of(key, 2, &campaign.id, &due[0]), 0).await, None);
    assert_eq!(untaken(&db, call_of(key, 3, &campaign.id, &due[0]), 0).await, Some(Untaken::Elsewhere));
}

/// Two nodes in one program; by the database's clock, where it is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_calls_begin_in_a_second_than_may() {
    let scratch = Scratch::new();
    let both = [scratch.db().await, scratch.db().await];
    let key = key(&both[0], None).await.id;
    let campaign = campaign(&both[0], key, 100, 1).await;
    set(&both[0], &campaign.id, |campaign| campaign.about.calls_per_second = 4).await;
    let contacts: Vec<NewContact> = (0..20).map(contact).collect();
    both[0].add_contacts(&campaign, &contacts, T0).await.unwrap();
    let due = both[0].due_contacts(&campaign.id, T0, false, 100).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "what a second allows is counted in real seconds")]
    let begun = std::time::Instant::now();
    let tries: Vec<_> = due
        .iter()
        .enumerate()
        .map(|(n, contact)| {
            let order = call_of(key, n as u128 + 1, &campaign.id, contact);
            let db = both[n % 2].clone();
            tokio::spawn(async move { untaken(&db, order, 0).await })
        })
        .collect();
    let mut taken = 0;
    for one in tries {
        match one.await.unwrap() {
            None => taken += 1,
            why => assert_eq!(why, Some(Untaken::Shut)),
        }
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(taken >= 4 && taken <= 4 * (seconds + 1), "{taken} in {seconds} s and a bit");
    // The next second has room again.
    if !both[0].is_shared() {
        let order = |id| call_of(key, id, &campaign.id, &due[19]);
        assert_eq!(untaken(&both[1], order(90), 999).await, Some(Untaken::Shut));
        assert_eq!(untaken(&both[1], order(91), 1000).await, None);
    }
}

/// Two nodes in one program, and two campaigns that share nothing but the number.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_number_is_not_called_more_often_a_day_than_may_be_whoever_calls() {
    let scratch = Scratch::new();
    let both = [scratch.db().await, scratch.db().await];
    let mut tries = Vec::new();
    let mut people = Vec::new();
    for n in 0..6_u128 {
        let db = both[usize::from(n % 2 == 1)].clone();
        let key = key(&db, None).await.id;
        let campaign = campaign(&db, key, 5, 1).await;
        set(&db, &campaign.id, |campaign| campaign.about.number_per_day = Some(2)).await;
        db.add_contacts(&campaign, &[contact(0)], T0).await.unwrap();
        let due = db.due_contacts(&campaign.id, T0, false, 10).await.unwrap().remove(0);
        people.push((db, call_of(key, n + 1, &campaign.id, &due)));
    }
    for (db, order) in people.clone() {
        tries.push(tokio::spawn(async move { untaken(&db, order, 0).await }));
    }
    let mut refused = Vec::new();
    for (one, (db, order)) in tries.into_iter().zip(people) {
        match one.await.unwrap() {
            None => {}
            Some(Untaken::TooOften(until)) => refused.push((db, order, until)),
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(refused.len(), 4);
    const DAY_MS: i64 = 86_400_000;
    let (db, order, until) = refused.remove(0);
    assert_eq!(until, T0.plus_ms(DAY_MS));
    assert_eq!(untaken(&db, order.clone(), DAY_MS - 1).await, Some(Untaken::TooOften(until)));
    assert_eq!(untaken(&db, order, DAY_MS).await, None);
}

#[tokio::test]
async fn who_asks_by_key_is_called_by_no_campaign_any_more() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let mut campaigns = Vec::new();
    for _ in 0..3 {
        let campaign = campaign(&db, key, 5, 3).await;
        db.add_contacts(&campaign, &[contact(0), contact(1)], T0).await.unwrap();
        campaigns.push(campaign);
    }
    set(&db, &campaigns[0].id, |campaign| campaign.about.opt_out_key = Some('9')).await;
    set(&db, &campaigns[2].id, |campaign| campaign.status = Status::Cancelled).await;
    for contact in db.contacts("default", 10, 0).await.unwrap().0 {
        // Also where nobody knows the contact any more.
        assert!(db.delete_contact("default", &contact.id).await.unwrap());
    }
    let recorder = Recorder::new(db.clone(), vec![&PLAIN]);
    let due = db.due_contacts(&campaigns[0].id, T0, false, 10).await.unwrap();
    assert!(claim(&db, call_of(key, 1, &campaigns[0].id, &due[0]), 0).await);
    for event in [dialing(), CallEvent::Answered, digit('8')] {
        recorder.write(&[(at(1, 0, event), None)]).await.unwrap();
    }
    assert_eq!(db.contacts("default", 10, 0).await.unwrap().1, 0, "another key asks nothing");
    recorder.write(&[(at(1, 1, digit('9')), None)]).await.unwrap();
    let (contacts, _) = db.contacts("default", 10, 0).await.unwrap();
    assert_eq!((contacts.len(), contacts[0].about.dnc, &contacts[0].about.phone), (1, true, &due[0].phone));
    let row = |state: &str, attempts, outcome: &str| (state.to_owned(), attempts, outcome.to_owned());
    let waiting = row("pending", 0, "");
    assert_eq!(states(&db, &campaigns[0].id).await, [row("dialing", 1, "opted_out"), waiting.clone()]);
    assert_eq!(states(&db, &campaigns[1].id).await, [row("skipped", 0, "dnc"), waiting.clone()]);
    assert_eq!(states(&db, &campaigns[2].id).await, [waiting.clone(), waiting.clone()], "it is over");
    recorder.write(&[(at(1, 2, ended(EndReason::ApiHangup)), None)]).await.unwrap();
    assert_eq!(states(&db, &campaigns[0].id).await, [row("done", 1, "opted_out"), waiting]);
    // A list that brings the number once more changes nothing.
    let again = campaign(&db, key, 5, 1).await;
    db.add_contacts(&again, &[contact(0)], T0).await.unwrap();
    assert_eq!(states(&db, &again.id).await, [row("skipped", 0, "dnc")]);
}

#[tokio::test]
async fn a_campaign_that_is_over_takes_nobody_any_more() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let campaign = campaign(&db, key, 5, 1).await;
    set(&db, &campaign.id, |campaign| campaign.status = Status::Paused).await;
    assert!(db.add_contacts(&campaign, &[contact(0)], T0).await.unwrap().is_some());
    for over in [Status::Completed, Status::Cancelled] {
        set(&db, &campaign.id, |campaign| campaign.status = over).await;
        assert!(db.add_contacts(&campaign, &[contact(1)], T0).await.unwrap().is_none());
    }
    assert_eq!(db.campaign_contacts(&campaign.id, 10, 0).await.unwrap().1, 1);
}

#[tokio::test]
async fn every_call_of_a_tenant_is_promised_to_its_endpoints() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let other = scratch.db().await;
    let key = key(&db, None).await.id;
    let recorder = Recorder::new(db.clone(), vec![&PLAIN, &VoxForge]);
    let order_of = |id| order(key, id, Some("https://example.com/own"));
    assert!(place(&db, &order_of(1)).await);
    recorder.write(&[(at(1, 0, dialing()), None)]).await.unwrap();
    assert_eq!(db.deliveries(CallId(1)).await.unwrap().len(), 1);
    let about = EndpointSettings {
        url: "https://example.com/all".into(),
        events: vec!["call.started".into(), "call.failed".into()],
        active: true,
    };
    let made = db.create_endpoint("default", about, T0).await.unwrap();
    let MadeEndpoint::Made(endpoint, secret) = made else { panic!("there is room") };
    assert_eq!(db.endpoint_secrets(&endpoint.id, T0).await.unwrap(), std::slice::from_ref(&secret));
    eventually("the other process sees the endpoint", async || {
        other.subscribed().await.unwrap().of("default").len() == 1 || !db.is_shared()
    })
    .await;
    assert!(place(&db, &order_of(2)).await);
    for event in [dialing(), CallEvent::Ringing, ended(EndReason::Busy)] {
        recorder.write(&[(at(2, 0, event), None)]).await.unwrap();
    }
    let names = |rows: &[(trunkline::store::deliveries::DeliveryRow, CallId)]| {
        rows.iter().map(|(row, _)| row.event.clone()).collect::<Vec<_>>()
    };
    let sent = db.endpoint_deliveries(&endpoint.id, 10, 0).await.unwrap();
    assert_eq!(names(&sent), ["call.failed", "call.started"]);
    assert!(sent.iter().all(|(row, call)| *call == CallId(2) && row.state == "waiting"));
    // Changed and deleted it is seen at once in the process that did it.
    let off = |about: &mut EndpointSettings| about.active = false;
    db.change_endpoint("default", &endpoint.id, off, T0).await.unwrap().unwrap();
    assert!(db.subscribed().await.unwrap().of("default").is_empty());
    assert!(place(&db, &order_of(3)).await);
    recorder.write(&[(at(3, 0, dialing()), None)]).await.unwrap();
    assert_eq!(db.endpoint_delivery_count(&endpoint.id).await.unwrap(), 2);
    assert!(db.delete_endpoint("default", &endpoint.id, T0).await.unwrap());
    let sent = db.endpoint_deliveries(&endpoint.id, 10, 0).await.unwrap();
    assert!(sent.iter().all(|(row, _)| row.state == "dropped"), "{sent:?}");
    assert!(db.endpoint_secrets(&endpoint.id, T0).await.unwrap().is_empty());
    // What its own webhook waits for is untouched.
    let own = db.deliveries(CallId(2)).await.unwrap();
    assert_eq!(own.iter().filter(|row| row.state == "waiting").count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn minutes_are_counted_by_all_processes_together() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let other = if db.is_shared() { scratch.db().await } else { db.clone() };
    let one = Arc::new(Minutes::new(db.clone()));
    let both = [Arc::clone(&one), if db.is_shared() { Arc::new(Minutes::new(other)) } else { one }];
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let minutes = Arc::clone(&both[n % 2]);
            tokio::spawn(async move { minutes.take(key, 15, T0).await.unwrap() })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        let rate = task.await.unwrap();
        assert!(rate.resets_in.as_secs() <= 61, "{rate:?}");
        taken += usize::from(rate.allowed);
    }
    assert_eq!(taken, 15);
    if !db.is_shared() {
        // The window ends on a whole second and the next begins with the request after.
        assert!(!both[0].take(key, 15, T0.plus_ms(59_999)).await.unwrap().allowed);
        let next = both[0].take(key, 15, T0.plus_ms(60_000)).await.unwrap();
        assert!(next.allowed && next.remaining == 14);
        let ends = T0.plus_ms(120_500);
        let odd = both[0].take(key, 15, ends).await.unwrap();
        assert_eq!(ends.plus_ms(i64::try_from(odd.resets_in.as_millis()).unwrap()).0 % 1000, 0);
    }
}

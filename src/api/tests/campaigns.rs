//! Campaigns by a clock that the test sets, over the nights in which clocks are changed: who is called in which minute,
//! through the surface, the driver and the database.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::{World, rings};
use crate::campaigns::driver::Watch;
use crate::clock;
use crate::model::call::{CallOrder, CommandError, EndReason};
use crate::model::event::CallEvent;
use crate::model::{PhoneNumber, Timestamp};
use crate::store::numbers::{NewNumber, OnCall};

const MINUTE_MS: i64 = 60_000;

/// A call that is answered and over at once.
fn talks(order: &CallOrder) -> Result<Vec<CallEvent>, CommandError> {
    let mut events = rings(order)?;
    let over = CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, sip_code: None };
    events.extend([CallEvent::Answered, over]);
    Ok(events)
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_iso(text).unwrap()
}

/// The minutes of these spans; the end is not within.
fn minutes(spans: &[(&str, &str)]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (from, to) in spans {
        let mut minute = at(from);
        while minute < at(to) {
            all.insert(minute.iso_ms());
            minute = minute.plus_ms(MINUTE_MS);
        }
    }
    all
}

/// Has a campaign with these hours in this zone, whose contacts live in that zone (empty: its own), call one contact a
/// minute between those moments. The minutes in which it did.
async fn called(window: (&str, &str), zones: (&str, &str), (from, to): (&str, &str)) -> BTreeSet<String> {
    clock::set::to(at(from).plus_ms(-MINUTE_MS));
    let world = World::new(talks).await;
    let key = world.key("A", &["t"], |_| {}).await;
    let agent = json!({"name": "A", "systemPrompt": "P", "firstMessage": "Hello.", "record": false});
    let agent = world.post("/api/v1/agents", &key, &agent.to_string()).await.json();
    let new = NewNumber {
        number: PhoneNumber::from_digits("14155550177").unwrap(),
        tenant: "default".into(),
        friendly_name: String::new(),
        trunk: None,
        on_call: OnCall::Nothing,
    };
    world.db.add_number(&new, clock::now().wall).await.unwrap();
    let numbers = world.get("/api/v1/phone-numbers", &key).await.json();
    let contact = |n: usize| json!({"phone": format!("+1415555{n:04}"), "timezone": zones.1});
    let campaign = json!({
        "name": "Night", "agentId": agent["id"], "phoneNumberId": numbers[0]["id"], "timezone": zones.0,
        "callWindow": {"start": window.0, "end": window.1}, "maxConcurrentCalls": 1, "callsPerSecond": 1,
        "contacts": (1000..1300).map(contact).collect::<Vec<Value>>()
    });
    let made = world.post("/api/v1/campaigns", &key, &campaign.to_string()).await;
    assert_eq!(made.json()["import"]["imported"], 300, "{}", made.text());
    let mut watch = Watch::default();
    let mut now = at(from);
    while now < at(to) {
        clock::set::to(now);
        watch.look(&world.app.rooms, &world.app.calls).await.unwrap();
        watch.settle().await;
        world.journal.flush().await;
        now = now.plus_ms(MINUTE_MS);
    }
    let orders = world.orders.lock().unwrap();
    let people: BTreeSet<_> = orders.iter().map(|order| order.to.e164()).collect();
    assert_eq!(people.len(), orders.len(), "somebody was called twice");
    orders.iter().map(|order| order.created_at.iso_ms()).collect()
}

/// The hours of a campaign are its own, whether its contacts say where they live or not.
const BOTH: [(&str, &str); 2] = [("America/New_York", ""), ("UTC", "America/New_York")];

#[tokio::test]
async fn the_hour_that_is_left_out_in_spring_is_left_out() {
    // 2025-03-09: 02:00 to 03:00 does not exist in New York, which changes at 07:00 UTC.
    let night = ("2025-03-09T05:30:00Z", "2025-03-09T09:00:00Z");
    for zones in BOTH {
        let open = minutes(&[("2025-03-09T06:30:00Z", "2025-03-09T07:30:00Z")]);
        assert_eq!(called(("01:30", "03:30"), zones, night).await, open, "{zones:?}");
        // A start that does not exist is the first moment after.
        let open = minutes(&[("2025-03-09T07:00:00Z", "2025-03-09T08:00:00Z")]);
        assert_eq!(called(("02:30", "04:00"), zones, night).await, open, "{zones:?}");
    }
}

#[tokio::test]
async fn the_hour_that_comes_twice_in_autumn_comes_twice() {
    // 2025-11-02: 01:00 to 02:00 comes twice in New York, at 05:00 and at 06:00 UTC.
    let night = ("2025-11-02T04:30:00Z", "2025-11-02T08:30:00Z");
    for zones in BOTH {
        let open = minutes(&[
            ("2025-11-02T05:30:00Z", "2025-11-02T06:00:00Z"),
            ("2025-11-02T06:30:00Z", "2025-11-02T07:30:00Z"),
        ]);
        assert_eq!(called(("01:30", "02:30"), zones, night).await, open, "{zones:?}");
        let open = minutes(&[("2025-11-02T05:00:00Z", "2025-11-02T07:00:00Z")]);
        assert_eq!(called(("01:00", "02:00"), zones, night).await, open, "{zones:?}");
    }
}

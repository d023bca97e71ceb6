//! VoxForge's campaigns (CONTRACT 1.3, 3 S17 to S20) from outside: whom they call, when, how many at once, and what a
//! crash leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, send};
use crate::carrier::Carrier;
use crate::harness::{Server, go, home, number, until, world};
use crate::receiver::Receiver;
use crate::voxforge::{delete, id_of, patch, refused};
use crate::voxforge_calls::Customer;

impl Customer {
    /// What `POST /api/v1/campaigns` wants, with these contacts.
    fn campaign(&self, numbers: &[String]) -> Value {
        let contacts: Vec<Value> = numbers.iter().map(|to| json!({"phone": format!("+{to}")})).collect();
        json!({
            "name": "February Outreach", "agentId": self.agent, "phoneNumberId": self.number,
            "maxConcurrentCalls": 5, "contacts": contacts
        })
    }

    /// Makes a campaign; its id.
    async fn start(&self, body: &Value) -> String {
        id_of(&self.key.post("/api/v1/campaigns", body).await.expect(201))
    }

    async fn shown(&self, campaign: &str) -> Value {
        self.key.get(&format!("/api/v1/campaigns/{campaign}")).await.expect(200)
    }

    /// Waits until a campaign is as wanted.
    async fn until(&self, campaign: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(60.0, &format!("the campaign {what}"), async || {
            let shown = self.shown(campaign).await;
            is(&shown).then_some(shown)
        })
        .await
    }

    /// Lets another campaign run from its start to its end: one task looks after all of them, so whatever one would have
    /// done in the meantime it has done.
    async fn see_another_through(&self) {
        let mut body = self.campaign(&[number("0300")]);
        body["maxAttempts"] = json!(1);
        let id = self.start(&body).await;
        self.until(&id, "beside it is completed", |shown| shown["status"] == "completed").await;
    }

    /// What has come of each number.
    async fn members(&self, campaign: &str) -> BTreeMap<String, Value> {
        let list = self.key.get(&format!("/api/v1/campaigns/{campaign}/contacts")).await.expect(200);
        let rows = list["contacts"].as_array().unwrap().iter();
        rows.map(|row| (row["phone"].as_str().unwrap().trim_start_matches('+').to_owned(), row.clone()))
            .collect()
    }

    async fn set(&self, campaign: &str, body: Value) -> Answer {
        patch(&self.key, &format!("/api/v1/campaigns/{campaign}"), &body).await
    }

    async fn csv(&self, campaign: &str, body: impl Into<reqwest::Body>) -> Answer {
        let path = format!("/api/v1/campaigns/{campaign}/contacts");
        send(
            self.key
                .request(Method::POST, &path)
                .header("content-type", "text/csv; charset=utf-8")
                .body(body),
        )
        .await
    }
}

/// Numbers of their own with these last four digits.
fn numbers(count: usize, last_four: &str) -> Vec<String> {
    (0..count).map(|_| number(last_four)).collect()
}

#[test]
fn t128_campaigns_are_made() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let sample = json!({
            "name": "February Outreach",
            "agentId": customer.agent,
            "phoneNumberId": customer.number,
            "scheduledStart": "2025-02-01T09:00:00Z",
            "timezone": "America/New_York",
            "callWindow": {"start": "09:00", "end": "17:00"},
            "maxConcurrentCalls": 3
        });
        let made = customer.key.post("/api/v1/campaigns", &sample).await.expect(201);
        let id = id_of(&made);
        assert_eq!(
            (&made["status"], &made["callsTotal"], &made["callsCompleted"]),
            (&json!("active"), &json!(0), &json!(0))
        );
        for field in ["name", "agentId", "phoneNumberId", "timezone", "callWindow", "maxConcurrentCalls"] {
            assert_eq!(made[field], sample[field], "{field}");
        }
        assert_eq!(customer.shown(&id).await, made);
        let list = customer.key.get("/api/v1/campaigns").await.expect(200);
        let names: Vec<&str> = list[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["callsCompleted", "callsTotal", "createdAt", "id", "name", "status"]);
        for (field, value, status, code) in [
            ("agentId", json!("clx"), 404, "NOT_FOUND"),
            ("phoneNumberId", json!("clx"), 404, "NOT_FOUND"),
            ("callWindow", json!({"start": "9:00", "end": "17:00"}), 400, "BAD_REQUEST"),
            ("callWindow", json!({"start": "09:00", "end": "09:00"}), 400, "BAD_REQUEST"),
            ("callWindow", json!({"start": "09:00"}), 400, "BAD_REQUEST"),
            ("timezone", json!("Mars/X"), 400, "BAD_REQUEST"),
            ("days", json!(["monday"]), 400, "BAD_REQUEST"),
            ("maxConcurrentCalls", json!(0), 400, "BAD_REQUEST"),
            ("maxConcurrentCalls", json!(101), 400, "BAD_REQUEST"),
            ("maxAttempts", json!(6), 400, "BAD_REQUEST"),
            ("scheduledStart", json!("soon"), 400, "BAD_REQUEST"),
            ("name", Value::Null, 400, "BAD_REQUEST"),
        ] {
            let mut body = sample.clone();
            body[field] = value;
            refused(&customer.key.post("/api/v1/campaigns", &body).await, status, code);
        }
        let agent = format!("/api/v1/agents/{}", customer.agent);
        refused(&delete(&customer.key, &agent).await, 400, "BAD_REQUEST");
        let stranger = Customer::shared(&[]).await;
        refused(&stranger.key.get(&format!("/api/v1/campaigns/{id}")).await, 404, "NOT_FOUND");
    });
}

#[test]
fn t129_a_campaign_changes_until_it_is_over() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let id = customer.start(&customer.campaign(&[])).await;
        refused(&customer.set(&id, json!({"status": "foo"})).await, 400, "BAD_REQUEST");
        for status in ["paused", "active", "paused", "cancelled"] {
            assert_eq!(customer.set(&id, json!({"status": status})).await.expect(200)["status"], status);
        }
        refused(&customer.set(&id, json!({"status": "active"})).await, 400, "BAD_REQUEST");
        refused(&customer.set(&id, json!({"name": "x"})).await, 400, "BAD_REQUEST");
        refused(&customer.csv(&id, "phone\n+15551234567\n").await, 400, "BAD_REQUEST");
    });
}

#[test]
fn t130_everybody_is_called_and_never_too_many_at_once() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let receiver = Receiver::start().await;
        customer.subscribe(&receiver, &["call.started", "call.ended", "call.failed"]).await;
        let mut numbers = numbers(4, "0400");
        numbers.push(number("0300"));
        let mut body = customer.campaign(&numbers);
        body["maxConcurrentCalls"] = json!(2);
        let id = customer.start(&body).await;
        let over = customer.until(&id, "is completed", |shown| shown["status"] == "completed").await;
        assert_eq!((&over["callsTotal"], &over["callsCompleted"]), (&json!(5), &json!(5)));
        assert_eq!((&over["progress"]["done"], &over["progress"]["failed"]), (&json!(4), &json!(1)));
        let members = customer.members(&id).await;
        assert_eq!(members[&numbers[4]]["lastOutcome"], "busy");
        assert!(members.values().all(|row| row["attempts"] == 1), "{members:?}");
        // By the far end's clock: an INVITE begins, the end of the call ends.
        let mut moments = Vec::new();
        for to in &numbers {
            let far = world().await.carrier.call(to).await;
            moments.push((far.time("invitedAt"), 1));
            moments.push((far.time("endedAt"), -1));
            assert_eq!(world().await.carrier.calls_to(to), 1);
        }
        moments.sort_unstable();
        let mut open = 0;
        for (_, step) in moments {
            open += step;
            assert!(open <= 2, "more than two at once");
        }
        let calls = customer.key.get(&format!("/api/v1/calls?campaignId={id}")).await.expect(200);
        assert_eq!(calls["total"], 5);
        let ended = receiver.wait_nth("call.ended", 4).await;
        assert_eq!(
            (&ended.json["data"]["campaignId"], &ended.json["data"]["agentId"]),
            (&json!(id), &json!(customer.agent))
        );
    });
}

#[test]
fn t131_nobody_is_called_outside_of_the_hours() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        let at = |hours: i64| {
            now.checked_add(jiff::Span::new().hours(hours)).unwrap().strftime("%H:%M").to_string()
        };
        // Shut at home; somebody lives where it is open, half the world away.
        let home = numbers(1, "0400");
        let away = number("0400");
        let mut body = customer.campaign(&home);
        body["callWindow"] = json!({"start": at(2), "end": at(4)});
        let zones: BTreeMap<i64, &str> = BTreeMap::from([(3, "Etc/GMT-3")]);
        body["contacts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"phone": format!("+{away}"), "timezone": zones[&3]}));
        let id = customer.start(&body).await;
        customer.until(&id, "has called who is awake", |shown| shown["progress"]["done"] == 1).await;
        let members = customer.members(&id).await;
        assert_eq!(
            (&members[&away]["state"], &members[&home[0]]["state"]),
            (&json!("done"), &json!("pending"))
        );
        let preflight = customer.key.get(&format!("/api/v1/campaigns/{id}/preflight")).await.expect(200);
        assert_eq!((&preflight["willCall"], &preflight["total"]), (&json!(1), &json!(2)));
        assert!(preflight["opensAt"].as_str().unwrap() > jiff::Timestamp::now().to_string().as_str());
        assert_eq!(world().await.carrier.calls_to(&home[0]), 0);
        // Not yet begun, and on no day but today's.
        let later = numbers(1, "0400");
        let mut body = customer.campaign(&later);
        body["scheduledStart"] =
            json!(now.checked_add(jiff::Span::new().hours(1)).unwrap().timestamp().to_string());
        let waiting = customer.start(&body).await;
        // Opened: who waited is called.
        customer.set(&id, json!({"callWindow": {"start": at(-1), "end": at(1)}})).await.expect(200);
        customer.until(&id, "is completed", |shown| shown["status"] == "completed").await;
        assert_eq!(world().await.carrier.calls_to(&later[0]), 0);
        customer.set(&waiting, json!({"status": "cancelled"})).await.expect(200);
    });
}

#[test]
fn t132_paused_it_calls_nobody_more_and_cancelled_it_hangs_up() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let mut numbers = numbers(2, "0100");
        numbers.extend(self::numbers(3, "0303"));
        let mut body = customer.campaign(&numbers);
        body["maxConcurrentCalls"] = json!(2);
        let id = customer.start(&body).await;
        let live = async |status: &str| {
            let calls =
                customer.key.get(&format!("/api/v1/calls?campaignId={id}&status={status}")).await.expect(200);
            calls["calls"].as_array().unwrap().iter().map(id_of).collect::<BTreeSet<_>>()
        };
        until(20.0, "two are answered", async || (live("in-progress").await.len() == 2).then_some(())).await;
        customer.set(&id, json!({"status": "paused"})).await.expect(200);
        let up = live("in-progress").await;
        customer.see_another_through().await;
        assert_eq!(live("in-progress").await, up, "live calls go on");
        let shown = customer.shown(&id).await;
        assert_eq!((&shown["callsTotal"], &shown["progress"]["pending"]), (&json!(5), &json!(3)));
        // Two hang up, and still nobody is called; then it goes on, and what rings is cancelled.
        let calls = customer.key.get("/calls").await.expect(200);
        for call in calls["calls"].as_array().unwrap() {
            customer.key.hang_up(call["callId"].as_str().unwrap()).await;
        }
        customer.until(&id, "has two done", |shown| shown["callsCompleted"] == 2).await;
        customer.see_another_through().await;
        assert_eq!(customer.shown(&id).await["progress"]["pending"], 3);
        customer.set(&id, json!({"status": "active"})).await.expect(200);
        until(20.0, "two ring", async || (live("queued").await.len() == 2).then_some(())).await;
        customer.set(&id, json!({"status": "cancelled"})).await.expect(200);
        let off = customer.until(&id, "has hung up", |shown| shown["progress"]["dialing"] == 0).await;
        assert_eq!((&off["status"], &off["progress"]["pending"]), (&json!("cancelled"), &json!(1)));
        let rang = customer.members(&id).await;
        assert_eq!(rang.values().filter(|row| row["lastOutcome"] == "canceled").count(), 2, "{rang:?}");
    });
}

#[test]
fn who_does_not_answer_is_tried_again_and_who_must_not_be_called_is_not() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let (busy, private, premium) = (number("0300"), number("0100"), "19005550100".to_owned());
        let contact = json!({"phone": format!("+{private}"), "dnc": true});
        customer.key.post("/api/v1/contacts", &contact).await.expect(201);
        let mut body = customer.campaign(&[busy.clone(), private.clone(), premium.clone()]);
        (body["maxAttempts"], body["retryDelaySeconds"]) = (json!(2), json!(1));
        body["status"] = json!("paused");
        let id = customer.start(&body).await;
        let preflight = customer.key.get(&format!("/api/v1/campaigns/{id}/preflight")).await.expect(200);
        let reasons = json!([{"reason": "dnc", "count": 1}, {"reason": "not_allowed", "count": 1}]);
        assert_eq!((&preflight["skipped"], &preflight["willCall"]), (&reasons, &json!(1)));
        assert_eq!(preflight["problems"], json!([]));
        customer.set(&id, json!({"status": "active"})).await.expect(200);
        customer.until(&id, "is completed", |shown| shown["status"] == "completed").await;
        let members = customer.members(&id).await;
        assert_eq!((&members[&busy]["attempts"], &members[&busy]["state"]), (&json!(2), &json!("failed")));
        assert_eq!(
            (&members[&private]["lastOutcome"], &members[&private]["state"]),
            (&json!("dnc"), &json!("skipped"))
        );
        assert_eq!(members[&premium]["lastOutcome"], "not_allowed");
        assert_eq!(world().await.carrier.calls_to(&private), 0);
        // As often as a number may be called in a day it was: nobody calls it today.
        let mut body = customer.campaign(std::slice::from_ref(&busy));
        body["maxCallsPerNumberPerDay"] = json!(2);
        let often = customer.start(&body).await;
        let preflight = customer.key.get(&format!("/api/v1/campaigns/{often}/preflight")).await.expect(200);
        assert_eq!(preflight["skipped"], json!([{"reason": "too_often", "count": 1}]));
        customer.see_another_through().await;
        assert_eq!(customer.members(&often).await[&busy]["attempts"], 0);
        customer.set(&often, json!({"status": "cancelled"})).await.expect(200);
    });
}

#[test]
fn who_asks_by_key_is_thanked_and_never_called_again() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let agent = format!("/api/v1/agents/{}", customer.agent);
        let words =
            json!({"firstMessage": "Good morning. Press nine if you do not want to be called again."});
        patch(&customer.key, &agent, &words).await.expect(200);
        let (asks, presses_another) = (number("0109"), number("0102"));
        let mut body = customer.campaign(&[asks.clone(), presses_another.clone()]);
        for wrong in [json!("10"), json!("a"), json!(9)] {
            body["optOutKey"] = wrong;
            refused(&customer.key.post("/api/v1/campaigns", &body).await, 400, "BAD_REQUEST");
        }
        body["optOutKey"] = json!("9");
        let id = customer.start(&body).await;
        // Hung up by us, after the words.
        let far = world().await.carrier.call(&asks).await;
        assert_eq!(far.line["endedBy"], "them");
        let calls = customer.key.get(&format!("/api/v1/calls?campaignId={id}")).await.expect(200);
        let call = calls["calls"].as_array().unwrap().iter().find(|call| call["to"] == format!("+{asks}"));
        let call = customer.key.get(&format!("/api/v1/calls/{}", id_of(call.unwrap()))).await.expect(200);
        let said: Vec<&str> = call["transcript"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|turn| turn["role"] == "agent")
            .filter_map(|turn| turn["text"].as_str())
            .collect();
        assert_eq!(said.last(), Some(&"You will not be called again."), "{call}");
        let member = async |number: &str| customer.members(&id).await[number].clone();
        let done = until(5.0, "the contact is final", async || {
            Some(member(&asks).await).filter(|row| row["state"] == "done")
        })
        .await;
        assert_eq!(done["lastOutcome"], "opted_out");
        // Another key asks for nothing.
        assert_eq!(member(&presses_another).await["state"], "dialing");
        customer.set(&id, json!({"status": "cancelled"})).await.expect(200);
        for call in customer.key.get("/calls").await.expect(200)["calls"].as_array().unwrap() {
            customer.key.hang_up(call["callId"].as_str().unwrap()).await;
        }
        let contacts = customer.key.get("/api/v1/contacts").await.expect(200);
        let dnc = |number: &str| {
            let contact =
                contacts.as_array().unwrap().iter().find(|row| row["phone"] == format!("+{number}"));
            contact.unwrap()["dnc"].clone()
        };
        assert_eq!((dnc(&asks), dnc(&presses_another)), (json!(true), json!(false)));
        let again = customer.start(&customer.campaign(std::slice::from_ref(&asks))).await;
        customer.until(&again, "is completed", |shown| shown["status"] == "completed").await;
        let row = customer.members(&again).await[&asks].clone();
        assert_eq!((&row["state"], &row["lastOutcome"]), (&json!("skipped"), &json!("dnc")));
        assert_eq!(world().await.carrier.calls_to(&asks), 1);
    });
}

#[test]
fn a_campaign_whose_agent_is_off_is_paused() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let agent = format!("/api/v1/agents/{}", customer.agent);
        patch(&customer.key, &agent, &json!({"isActive": false})).await.expect(200);
        let to = numbers(1, "0400");
        let id = customer.start(&customer.campaign(&to)).await;
        customer.until(&id, "is paused", |shown| shown["status"] == "paused").await;
        assert_eq!(world().await.carrier.calls_to(&to[0]), 0);
    });
}

#[test]
fn x35_lists_are_read_row_by_row() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let mut body = customer.campaign(&[]);
        body["status"] = json!("paused");
        let id = customer.start(&body).await;
        let many: Vec<Value> = (0..100_001).map(|n| json!({"phone": format!("+1555{n:07}")})).collect();
        body["contacts"] = json!(many);
        refused(&customer.key.post("/api/v1/campaigns", &body).await, 400, "BAD_REQUEST");
        let text = "\u{feff}phone,name,plan,note\r\n+15551234567,\"Lovelace, Ada\",gold,\"two\nlines\"\r\n=1+1,F,,\r\n\
                    +1 (555) 123-4567,Again,,\r\n+15551234569,=cmd(),silver,\"a \"\"b\"\"\"\r\n";
        let taken = customer.csv(&id, text).await.expect(200);
        assert_eq!((&taken["imported"], &taken["duplicates"]), (&json!(2), &json!(1)));
        assert_eq!((&taken["errors"][0]["row"], taken["errors"].as_array().unwrap().len()), (&json!(2), 1));
        let units = std::iter::once(0xfeff).chain("phone,name\n+15551234570,Zoë\n".encode_utf16());
        let utf16: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        assert_eq!(customer.csv(&id, utf16).await.expect(200)["imported"], 1);
        let again = customer.csv(&id, text).await.expect(200);
        assert_eq!((&again["imported"], &again["duplicates"]), (&json!(0), &json!(3)));
        let members = customer.members(&id).await;
        assert_eq!(members["15551234570"]["name"], "Zoë");
        assert_eq!(members.len(), 3);
        for wrong in ["", "name\nAda\n"] {
            refused(&customer.csv(&id, wrong).await, 400, "BAD_REQUEST");
        }
        // Twenty thousand in one list.
        let large = "phone,name\n".to_owned()
            + &(0..20_000).map(|n| format!("+1666{n:07},N{n}\n")).collect::<String>();
        let taken = customer.csv(&id, large).await;
        assert!(taken.took < Duration::from_secs(25), "{:?}", taken.took);
        assert_eq!(taken.expect(200)["imported"], 20_000);
        assert_eq!(customer.shown(&id).await["callsTotal"], 20_003);
    });
}

/// Killed again and again in the middle, nobody is called twice, and everybody is accounted for.
#[test]
fn x36_a_crash_calls_nobody_twice() {
    go(async {
        let folder = home("vf-crash");
        let carrier = Carrier::start(&folder, false).await;
        let mut server = Server::start("vf-crash", &[]).await;
        server.trunk("carrier", carrier.addr, &[]);
        let customer = Customer::new(&server, "carrier", &[]).await;
        let numbers = numbers(200, "0400");
        let mut body = customer.campaign(&numbers);
        (body["maxConcurrentCalls"], body["callsPerSecond"]) = (json!(40), json!(40));
        let id = customer.start(&body).await;
        for part in 1..=4 {
            customer
                .until(&id, "has come so far", |shown| shown["callsCompleted"].as_u64() >= Some(part * 25))
                .await;
            server.crash();
            server.start_again().await;
        }
        let over = customer.until(&id, "is completed", |shown| shown["status"] == "completed").await;
        assert_eq!((&over["callsTotal"], &over["callsCompleted"]), (&json!(200), &json!(200)));
        let members = customer.members(&id).await;
        for to in &numbers {
            assert_eq!(members[to]["attempts"], 1, "{}", members[to]);
            if members[to]["state"] == "done" {
                // Waits: what the far end still had of the last run ends there by itself.
                carrier.call(to).await;
            }
        }
        for to in &numbers {
            assert!(carrier.calls_to(to) <= 1, "{to} was called twice");
        }
        // One row a call, written before its INVITE: none has a second.
        let mut called = BTreeSet::new();
        for offset in [0, 200] {
            let path = format!("/api/v1/calls?campaignId={id}&limit=200&offset={offset}");
            let page = customer.key.get(&path).await.expect(200);
            assert_eq!(page["total"], 200);
            for call in page["calls"].as_array().unwrap() {
                assert!(called.insert(call["to"].as_str().unwrap().to_owned()), "{call}");
            }
        }
        let done = members.values().filter(|row| row["state"] == "done").count();
        assert!(done > 20, "only {done} were talked to");
    });
}

//! What must hold after everything has settled, whatever happened before: each call has one end, its row is the fold
//! of its events, money moved once for each answer and never else, each webhook that had to arrive arrived, in order,
//! and no recording is torn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::api::Key;
use crate::audio;
use crate::harness::until;
use crate::receiver::{Receiver, genuine};

/// A call of the log with its events.
pub(crate) struct Past {
    pub(crate) id: String,
    pub(crate) row: Value,
    events: Vec<Value>,
}

impl Past {
    fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event["type"] == kind).count()
    }

    /// Whether each recording that was begun has come to its end.
    fn recorded(&self) -> bool {
        let over = self.count("recording_completed") + self.count("recording_failed");
        self.count("recording_started") == over
    }

    /// Whether it was answered, by its events.
    pub(crate) fn answered(&self) -> bool {
        self.count("answered") > 0
    }
}

/// Every call of a key, by the log, with all events.
async fn history(key: &Key) -> Vec<Past> {
    let mut past = Vec::new();
    for page in 1.. {
        let logs = key.post("/api/call-logs", &json!({"page": page, "page_size": 100})).await.expect(200);
        let rows = logs["logs"].as_array().expect("logs are a list").clone();
        if rows.is_empty() {
            return past;
        }
        for row in rows {
            let id = row["call_id"].as_str().expect("a call has an id").to_owned();
            let events = key.get(&format!("/calls/{id}/events?limit=1000")).await.expect(200);
            let events = events["events"].as_array().expect("events are a list").clone();
            past.push(Past { id, row, events });
        }
    }
    past
}

/// Waits until no call is up any more, the log says so too and every recording is done; all calls then.
pub(crate) async fn settled(key: &Key) -> Vec<Past> {
    until(30.0, "every call has ended", async || {
        let live = key.get("/calls").await.expect(200);
        if live["totalCalls"] != 0 {
            return None;
        }
        let mut open = 0;
        for status in ["ringing", "answered"] {
            let body = json!({"status": status, "page_size": 1});
            open += key.post("/api/call-logs", &body).await.expect(200)["total_count"].as_i64()?;
        }
        (open == 0).then_some(())
    })
    .await;
    until(30.0, "every recording is done", async || {
        let past = history(key).await;
        past.iter().all(Past::recorded).then_some(past)
    })
    .await
}

/// Each call has one end and its row says what its events say.
pub(crate) fn one_end_each(past: &[Past]) {
    let mut ids = BTreeSet::new();
    for call in past {
        let told = format!("{} {:?}", call.row, call.events);
        assert!(ids.insert(&call.id), "listed twice: {told}");
        assert_eq!(call.count("ended"), 1, "{told}");
        assert!(call.count("answered") <= 1, "{told}");
        for (index, event) in call.events.iter().enumerate() {
            assert_eq!(event["sequence"], json!(index + 1), "a gap in the events: {told}");
        }
        let status = call.row["status"].as_str().unwrap_or_default();
        assert!(!matches!(status, "ringing" | "answered" | ""), "not final: {told}");
        assert!(status != "completed" || call.answered(), "{told}");
        assert!(call.recorded(), "{told}");
    }
}

/// One credit for each answered call, none for any other.
pub(crate) async fn money_is_exact(key: &Key, given: i64, past: &[Past]) {
    let answered = past.iter().filter(|call| call.answered()).count();
    let balance = key.credits().await;
    assert_eq!(
        balance,
        given - i64::try_from(answered).expect("few calls"),
        "{answered} calls were answered"
    );
}

/// Each call that told its customer anything told its end, once by id and in order; waits until it has.
pub(crate) async fn every_end_arrives(key: &Key, hooks: &Receiver, past: &[Past]) {
    let due: BTreeSet<&str> = past.iter().map(|call| call.id.as_str()).collect();
    until(90.0, "call.ended of every call has arrived", async || {
        let all = hooks.all();
        let ends = all.iter().filter(|delivery| delivery.event() == "call.ended");
        let told: BTreeSet<_> = ends.filter_map(|delivery| delivery.json["callId"].as_str()).collect();
        due.is_subset(&told).then_some(())
    })
    .await;
    let mut first_by_call: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for delivery in hooks.all() {
        assert!(genuine(&key.webhook_secret, &delivery, &delivery.body));
        let id = delivery.header("webhook-id").to_owned();
        if seen.insert(id.clone()) {
            let call = delivery.json["callId"].as_str().unwrap_or_default().to_owned();
            let sequence = delivery.json["sequence"].as_i64().expect("every body has its sequence");
            first_by_call.entry(call).or_default().push((sequence, delivery.event().to_owned()));
        }
    }
    for (call, told) in first_by_call {
        assert!(due.contains(call.as_str()), "a webhook of a call that nobody knows: {call}");
        assert!(told.is_sorted_by(|a, b| a.0 < b.0), "{call}: out of order or told twice: {told:?}");
        assert_eq!(told.iter().filter(|(_, event)| event == "call.ended").count(), 1, "{call}: {told:?}");
    }
}

/// Every recording in the folder opens, and its header says its size. What was not even named when the server died is
/// no recording; with a database of its own the server removes it when it starts again.
pub(crate) fn no_torn_file(recordings: &Path) -> usize {
    let mut files = 0;
    for file in std::fs::read_dir(recordings).expect("the recordings' folder can be read") {
        let path = file.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "part") && postgres() {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a recording can be read");
        assert!(bytes.len() >= 44, "{} has no header", path.display());
        let (riff, data, begins) = audio::wav_sizes(&bytes);
        assert_eq!((riff + 8, begins + data), (bytes.len(), bytes.len()), "{}", path.display());
        files += 1;
    }
    files
}

/// Whether the servers under test share a PostgreSQL, and so may share the folder.
fn postgres() -> bool {
    std::env::var("TEST_DATABASE").is_ok_and(|database| database == "postgres")
}

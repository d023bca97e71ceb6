//! Customers that keep the server busy and take every failure calmly: they place calls, speak into them, hang some
//! up and leave others to their far end. They remember which calls they were promised.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::api::Key;
use crate::harness::number;

/// What the customers were told.
#[derive(Default)]
pub(crate) struct Promised {
    calls: Mutex<Vec<String>>,
    asked: AtomicUsize,
    enough: AtomicBool,
}

impl Promised {
    /// Ids of the calls that were accepted.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("no customer panics").clone()
    }

    /// Calls asked for, whatever came of it.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Customers at work.
pub(crate) struct Customers {
    promised: Arc<Promised>,
    tasks: Vec<JoinHandle<()>>,
}

impl Customers {
    /// As many as this, all with one key.
    pub(crate) fn start(count: usize, key: &Key, hooks: &str) -> Self {
        let promised = Arc::<Promised>::default();
        let tasks =
            (0..count).map(|_| tokio::spawn(live(key.clone(), hooks.to_owned(), promised.clone()))).collect();
        Self { promised, tasks }
    }

    /// Lets each finish what it is at, so that no request is left on its way; what they were told.
    pub(crate) async fn stop(self) -> Arc<Promised> {
        self.promised.enough.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no customer panics");
        }
        self.promised
    }
}

/// The answer to a request, or nothing where the server is gone.
async fn ask(key: &Key, path: &str, body: &Value) -> Option<Value> {
    let request = key.request(Method::POST, path).body(body.to_string()).timeout(Duration::from_secs(2));
    let answer = request.send().await.ok()?;
    let fine = answer.status() == 200;
    let body = answer.json().await.ok()?;
    fine.then_some(body)
}

async fn live(key: Key, hooks: String, promised: Arc<Promised>) {
    while !promised.enough.load(Ordering::Relaxed) {
        promised.asked.fetch_add(1, Ordering::Relaxed);
        let order = json!({"number": number("0100"), "webhookUrl": hooks});
        let Some(placed) = ask(&key, "/makecall", &order).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Some(call) = placed["callId"].as_str().map(str::to_owned) else { continue };
        promised.calls.lock().expect("no customer panics").push(call.clone());
        tokio::time::sleep(Duration::from_millis(60)).await;
        // Each of these may come too late: the far end may have hung up, or the server may be gone.
        let _ = ask(&key, "/voice", &json!({"callId": call, "text": "Yes."})).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        let _ = ask(&key, "/hangup", &json!({"callId": call})).await;
    }
}

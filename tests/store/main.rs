//! The database, the journal and the webhook worker on real databases and real sockets. The tests are built twice:
//! under the name of this folder they run on SQLite, under the name `store_postgres` on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod admin;
mod analyses;
mod calls;
mod campaigns;
mod deliveries;
mod group;
mod history;
mod idempotency;
mod journal;
mod money;
mod outbox;
mod postgres;
mod receiver;
mod recordings;
mod recover;
mod several;
mod torture;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection;
use trunkline::model::account::ApiKey;
use trunkline::model::call::{CallOrder, CallView, EndReason, Surface, TrunkPlan};
use trunkline::model::event::{CallEvent, Stamped};
use trunkline::model::purpose::Purpose;
use trunkline::model::{CallId, PhoneNumber, Secret, Timestamp};
use trunkline::store::Db;
use trunkline::store::accounts::NewKey;
use trunkline::webhook::{Format, Outcome, Rendered};

/// Where the tests' time begins.
const T0: Timestamp = Timestamp(1_771_322_520_000);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A folder and a database that go when the test ends.
struct Scratch {
    path: PathBuf,
    /// `None`: SQLite.
    postgres: Option<postgres::Database>,
}

impl Scratch {
    /// With the database that this build of the tests is for.
    fn new() -> Self {
        Self::with(env!("CARGO_CRATE_NAME").ends_with("_postgres"))
    }

    fn with(postgres: bool) -> Self {
        let name = format!("trunkline-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self { path, postgres: postgres.then(postgres::Database::new) }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn url(&self) -> String {
        match &self.postgres {
            Some(database) => database.url(),
            None => format!("sqlite://{}", self.path.join("test.db").display()),
        }
    }

    /// Opens it. What is opened twice is, to the database, as two processes, if both have [`Db::claim_for_serving`] done:
    /// tests that speak of two have two nodes in this one program.
    async fn db(&self) -> Db {
        Db::open(&self.url()).await.unwrap()
    }

    /// Makes every statement fail from here on that inserts into `table`, where `when` is true of the NEW row.
    async fn break_inserts(&self, table: &str, when: &str) {
        if let Some(database) = &self.postgres {
            return psql(
                database,
                &format!(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'injected'; END $$; \
                 CREATE TRIGGER broken BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse()"
                ),
            );
        }
        self.sqlite(format!(
            "CREATE TRIGGER broken BEFORE INSERT ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'injected'); END"
        ))
        .await;
    }

    /// Undoes [`Scratch::break_inserts`].
    async fn mend_inserts(&self, table: &str) {
        match &self.postgres {
            Some(database) => psql(database, &format!("DROP TRIGGER broken ON {table}")),
            None => self.sqlite("DROP TRIGGER broken".to_owned()).await,
        }
    }

    /// Cuts every connection to a PostgreSQL.
    async fn cut_connections(&self) {
        psql(
            self.postgres.as_ref().unwrap(),
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    }

    /// All that the database holds, as bytes.
    fn bytes(&self) -> Vec<u8> {
        if let Some(database) = &self.postgres {
            return postgres::run(postgres::program("pg_dump", &database.name), "").unwrap();
        }
        let file = |name| std::fs::read(self.path.join(name)).unwrap();
        [file("test.db"), file("test.db-wal")].concat()
    }

    async fn sqlite(&self, text: String) {
        let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Runs statements past our own code.
fn psql(database: &postgres::Database, text: &str) {
    postgres::run(postgres::program("psql", &database.name), text).unwrap();
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

async fn key(db: &Db, credits: Option<i64>) -> ApiKey {
    db.create_key(NewKey { credits, ..NewKey::named("test") }, T0).await.unwrap().key
}

fn order(key: i64, id: u128, url: Option<&str>) -> CallOrder {
    let trunk = TrunkPlan {
        endpoint: "a-endpoint".into(),
        host: "127.0.0.1".into(),
        port: Some(5070),
        hops: vec![trunkline::model::call::Hop::udp("127.0.0.1:5070".parse().unwrap())],
        username: String::new(),
        password: Secret::default(),
        dial_prefix: "00".into(),
        codecs: vec!["PCMU".into(), "PCMA".into()],
        caller_id: None,
        no_response_timeout_ms: 2000,
        profile: Arc::default(),
    };
    CallOrder {
        id: CallId(id),
        kaphila_id: format!("1771322520.{id}"),
        surface: Surface::Kaphila,
        purpose: Purpose::default(),
        key,
        tenant: "default".into(),
        submitted_number: "+1 415 555 0100".into(),
        to: PhoneNumber::parse_lenient("+14155550100").unwrap(),
        from: None,
        trunks: vec![trunk],
        redials_ms: Vec::new(),
        ring_timeout_ms: 30_000,
        max_duration_ms: 3_600_000,
        use_amd: false,
        record: true,
        record_channels: media::Channels::Mono,
        voice_name: "en-US-Neural2-A".into(),
        webhook_url: url.map(str::to_owned),
        created_at: T0,
    }
}

/// Holds a credit and inserts the call in one transaction; `false` if there was no credit.
async fn place(db: &Db, order: &CallOrder) -> bool {
    let mut tx = db.begin().await.unwrap();
    if !tx.hold_credit(order.key).await.unwrap() {
        return false;
    }
    tx.insert_call(&CallView::new(Arc::new(order.clone()))).await.unwrap();
    tx.commit().await.unwrap();
    true
}

fn at(call: u128, ms: i64, event: CallEvent) -> Stamped {
    Stamped { call: CallId(call), at: T0.plus_ms(ms), event }
}

fn dialing() -> CallEvent {
    CallEvent::Dialing { trunk: "a-endpoint".into(), attempt: 1 }
}

fn ended(reason: EndReason) -> CallEvent {
    CallEvent::Ended { reason, q850: 16, sip_code: None }
}

fn digit(digit: char) -> CallEvent {
    CallEvent::Digit { digit, source: trunkline::model::event::DigitSource::Rfc4733 }
}

/// A dialect of the tests: every event is a webhook of its own name, ends and recordings are terminal, delays are
/// Kaphila's (CONTRACT 0.6).
struct Plain;

static PLAIN: Plain = Plain;

fn formats() -> Vec<&'static dyn Format> {
    vec![&PLAIN]
}

impl Format for Plain {
    fn name(&self) -> &'static str {
        "kaphila"
    }

    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered> {
        let name = event.event.name();
        let call = &view.order.kaphila_id;
        let body = format!(r#"{{"callId":"{call}","event":"{name}","sequence":{sequence}}}"#);
        let told = name != "queued";
        told.then(|| Rendered { event: name, body: body.into_bytes() }).into_iter().collect()
    }

    fn terminal(&self, event: &str) -> bool {
        matches!(event, "ended" | "recording_stopped" | "recording_completed" | "recording_failed")
    }

    fn user_agent(&self) -> &'static str {
        "Plain/1.0"
    }

    fn retry_after(&self, event: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        let table: &[u64] = if self.terminal(event) { &[30, 300, 1800, 7200] } else { &[1, 3, 10] };
        if !self.terminal(event) && !outcome.cannot_have_been_processed() {
            return None;
        }
        let delay = table.get(usize::try_from(failures).ok()?.checked_sub(1)?)?;
        Some(Duration::from_secs(*delay))
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(1200)
    }
}

/// Asks until the answer is yes, for at most ten seconds.
async fn eventually(what: &str, ask: impl AsyncFnMut() -> bool) {
    eventually_within(what, Duration::from_secs(10), ask).await;
}

/// Asks until the answer is yes, for at most that long.
async fn eventually_within(what: &str, longest: Duration, mut ask: impl AsyncFnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < longest, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

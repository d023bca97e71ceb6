//! The database: every SQL statement of the server and the two things that everybody is given, [`Db`] to read
//! and [`Tx`] to change. It is SQLite for one process, or PostgreSQL for any number of them.
//!
//! With SQLite one connection writes and in-process writers queue for it, so that nobody ever meets "database is
//! locked"; readers have their own connections and see what is committed. With PostgreSQL transactions are READ
//! COMMITTED: whoever decides on what was read locks the row first ([`Tx::lock_key`], [`Tx::lock_calls`]), keys before
//! calls and each in ascending order, so that nobody waits in a circle. Each serving process is a node ([`nodes`]), and
//! calls, webhooks and requests under way carry the node that has them. Processes that share a database share the
//! folder of recordings too, because the one that cleans up after a dead one repairs its files.
//!
//! This room knows no business rule beyond what a single statement must guarantee (a balance never falls below
//! what is held; an end is final). It owns no clock and never logs a secret. The SQL keeps to what SQLite and
//! PostgreSQL share: `$1` places, TEXT ids, BIGINT milliseconds, `RETURNING`, `ON CONFLICT`. What only PostgreSQL knows
//! (locks, its clock) is used where only several processes need it.

pub mod accounts;
pub mod agents;
pub mod analyses;
pub mod appointments;
pub mod audit;
pub mod backup;
pub mod callbacks;
pub mod calls;
pub mod campaign_contacts;
pub mod campaigns;
pub mod caps;
pub mod contacts;
pub mod deliveries;
pub mod endpoints;
mod group;
pub mod history;
pub mod idempotency;
mod ids;
pub mod keys;
mod migrate;
pub mod nodes;
pub mod numbers;
pub mod outbox;
pub mod past;
mod pools;
pub mod rates;
pub mod recordings;
pub mod rows;
mod sql;
pub mod tenant_calls;
pub mod tenants;
pub mod trunks;
pub mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use sqlx::{PgPool, Postgres, Sqlite, Transaction};

use self::pools::Pools;
use self::sql::{Connection, Pooled, Row, Statement, in_time, sql};
use crate::model::CallId;

use pools::private;
pub use pools::without_password;

/// How long a database that is well needs at most for [`Db::ping`].
const PING_WITHIN: Duration = Duration::from_secs(2);

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database that this program can open.
    #[error(
        "database url {0:?} is not supported: use sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    Url(String),
    /// The database itself.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration that is already applied differs from the one in this program, or is unknown to it.
    #[error("database schema: {0}")]
    Schema(String),
    /// A row holds what no version of this program writes.
    #[error("unreadable value in the database: {0}")]
    Unreadable(&'static str),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// Trunks that do not exist.
    #[error("unknown trunk: {}", .0.join(", "))]
    UnknownTrunks(Vec<String>),
    /// A key id that does not exist or is revoked.
    #[error("no such key: {0}")]
    UnknownKey(String),
    /// Credits cannot be added to a key that has no limit.
    #[error("key {0} has unlimited credits")]
    UnlimitedCredits(String),
    /// The balance would fall below what calls under way hold.
    #[error("credits of {0} would fall below what its calls hold")]
    BelowHeld(String),
    /// A tenant that does not exist.
    #[error("no such tenant: {0}")]
    UnknownTenant(String),
    /// An agent that the tenant does not have.
    #[error("no such agent: {0}")]
    UnknownAgent(String),
    /// A key would suspend its own tenant, and nobody could undo that over HTTP.
    #[error("A key cannot suspend its own tenant")]
    OwnTenant,
    /// A number that is not ours.
    #[error("no such number: {0}")]
    UnknownNumber(String),
    /// A name that somebody else has; the first says what it names.
    #[error("{0} {1} is taken")]
    Taken(&'static str, String),
    /// A credit was held and no call was inserted for it; nothing was committed.
    #[error("a credit was held without a call")]
    HoldWithoutCall,
    /// A webhook body that is no UTF-8 text.
    #[error("a webhook body is not UTF-8")]
    Body,
    /// The database took a question and gave no answer; what was asked may have been done.
    #[error("the database does not answer")]
    Late,
    /// The transaction that this was written in was not committed, as far as is known.
    #[error("the transaction was not committed")]
    NotCommitted,
    /// Another server serves from this database.
    #[error("another trunkline serves from {0}")]
    InUse(String),
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pools: Pools,
    /// When each key's `last_used` was last written, so that busy keys are not written at every request.
    touched: Arc<DashMap<i64, i64>>,
    /// Whose webhooks go to endpoints of their own.
    subscribers: Arc<endpoints::Subscribers>,
    /// This process's node; 0: none, it does not serve or is the only one.
    node: Arc<AtomicI64>,
    /// Statements and transactions that failed.
    errors: Arc<AtomicU64>,
    /// The transaction that several share.
    group: Arc<group::Group>,
}

/// One transaction. Dropped without [`Tx::commit`] it leaves no trace.
#[derive(Debug)]
pub struct Tx {
    inner: Begun,
    /// The key whose credit was held for a call that is still to be inserted.
    held: Option<i64>,
    /// The node that writes.
    node: i64,
    /// Where counters are kept, if not in this transaction.
    counters: Option<PgPool>,
    /// Calls that are locked already.
    locked: BTreeSet<CallId>,
    /// Where failures are counted.
    errors: Arc<AtomicU64>,
    /// The lane that was looked at last, until something is put into it.
    lane: Option<(CallId, String, outbox::Lane)>,
}

/// A transaction of either kind.
#[derive(Debug)]
enum Begun {
    /// Of the one writer.
    Sqlite(Transaction<'static, Sqlite>),
    /// Of a connection of its own.
    Postgres(Transaction<'static, Postgres>),
}

impl Db {
    /// Opens `sqlite://FILE` (and makes the file where it is missing) or `postgres://…` and brings the schema up to
    /// date. `sslmode` and the other parameters of a PostgreSQL URL are those of libpq.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let pools = Pools::open(url).await?;
        let db = Self {
            pools,
            touched: Arc::default(),
            subscribers: Arc::default(),
            node: Arc::default(),
            errors: Arc::default(),
            group: Arc::default(),
        };
        migrate::run(db.begin().await?).await?;
        Ok(db)
    }

    /// Begins a transaction. With SQLite it waits for the writer and takes the write lock at once, so nothing that
    /// was read inside can have changed at the commit. With PostgreSQL it is READ COMMITTED: a decision made on
    /// what was read holds only if its row was locked before.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let counters = match &self.pools {
            Pools::Sqlite { .. } => None,
            Pools::Postgres { counters, .. } => Some(counters.clone()),
        };
        let inner = self.pools.begin().await.inspect_err(|_| count_one(&self.errors))?;
        let errors = Arc::clone(&self.errors);
        Ok(Tx { inner, held: None, node: self.node(), counters, locked: BTreeSet::new(), errors, lane: None })
    }

    /// Whether other processes may serve from this database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.pools, Pools::Postgres { .. })
    }

    /// This process's node, 0 where it has none.
    fn node(&self) -> i64 {
        self.node.load(Ordering::Relaxed)
    }

    /// A connection to read by.
    async fn reader(&self) -> Result<Pooled, StoreError> {
        self.pools.reader().await
    }

    /// One statement that must work, and soon, while the database is well.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = self.one(sql("SELECT value FROM counters WHERE name = 'calls'"));
        tokio::time::timeout(PING_WITHIN, asked).await.map_err(|_| StoreError::Late)?.map(drop)
    }

    /// Statements and transactions that failed since the start.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Closes all connections; used at the very end, so that SQLite's write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.pools.close().await;
    }
}

fn count_one(errors: &AtomicU64) {
    errors.fetch_add(1, Ordering::Relaxed);
}

impl Tx {
    /// Makes everything done so far last, on the disk.
    pub async fn commit(self) -> Result<(), StoreError> {
        if self.held.is_some() {
            return Err(StoreError::HoldWithoutCall);
        }
        let done = match self.inner {
            Begun::Sqlite(inner) => inner.commit().await.map_err(StoreError::from),
            Begun::Postgres(inner) => in_time(inner.commit()).await,
        };
        done.inspect_err(|_| count_one(&self.errors))
    }

    /// Keeps everybody else's decisions about these keys out until the end of the transaction. Before calls are
    /// locked, and once.
    pub async fn lock_keys(&mut self, keys: impl IntoIterator<Item = i64>) -> Result<(), StoreError> {
        let keys: Vec<i64> = keys.into_iter().collect();
        if keys.is_empty() || !self.is_shared() {
            return Ok(());
        }
        let mut rows = sql("SELECT id FROM api_keys WHERE id IN ");
        rows.push_list(keys).push(" ORDER BY id FOR NO KEY UPDATE");
        self.all(rows).await.map(drop)
    }

    /// [`Tx::lock_keys`] for one.
    pub async fn lock_key(&mut self, key: i64) -> Result<(), StoreError> {
        self.lock_keys([key]).await
    }

    /// Keeps everybody else out of what belongs to these calls (their rows, the order of their webhooks) until the
    /// end of the transaction. All that a transaction needs at once, else two may wait for each other.
    pub async fn lock_calls(&mut self, calls: impl IntoIterator<Item = CallId>) -> Result<(), StoreError> {
        let new: Vec<CallId> = calls.into_iter().filter(|call| !self.locked.contains(call)).collect();
        self.locked_calls(new).await.map(drop)
    }

    /// The rows (`id`, `node`) of these calls, locked. Without other processes: none, and nothing is asked.
    async fn locked_calls(
        &mut self,
        calls: impl IntoIterator<Item = CallId>,
    ) -> Result<Vec<Row>, StoreError> {
        let calls: BTreeSet<CallId> = calls.into_iter().collect();
        if calls.is_empty() || !self.is_shared() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = calls.iter().map(|call| call.hex()).collect();
        self.locked.extend(calls);
        let mut rows = sql("SELECT id, node FROM calls WHERE id IN ");
        rows.push_list(ids).push(" ORDER BY id FOR NO KEY UPDATE");
        self.all(rows).await
    }

    /// Whether other processes may write at the same time.
    fn is_shared(&self) -> bool {
        matches!(self.inner, Begun::Postgres(_))
    }

    /// Adds `text` where other processes may write at the same time.
    fn shared(&self, mut statement: Statement, text: &'static str) -> Statement {
        if self.is_shared() {
            statement.push(text);
        }
        statement
    }

    /// The connection, for one statement.
    fn lend(&mut self) -> Connection<'_> {
        match &mut self.inner {
            Begun::Sqlite(inner) => Connection::Sqlite(inner),
            Begun::Postgres(inner) => Connection::Postgres(inner),
        }
    }

    /// The next value of a persisted counter, from 1 and in the order of asking; never given twice. With PostgreSQL it
    /// is taken outside this transaction, so that nobody waits for another's commit, and a transaction that is dropped
    /// leaves a gap.
    async fn count(&mut self, counter: &str) -> Result<i64, StoreError> {
        let next = sql("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value").bind(counter);
        let Some(counters) = &self.counters else { return self.one(next).await?.first() };
        let mut connection = in_time(counters.acquire()).await?;
        Connection::Postgres(&mut connection).one(next).await?.first()
    }
}

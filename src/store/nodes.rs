//! Who serves from the database. With SQLite one process at a time may, and holds a lock on a file beside it. With
//! PostgreSQL any number may: each is a node, a row of `nodes` with an advisory lock that one connection of its own
//! holds for as long as the process lives. Nobody has to believe a clock: a process that dies loses its connection
//! and with it the lock, and then others may take over what it had ([`Db::take_over`]).
//!
//! A node whose connection is cut while it lives takes its lock again at once. If another process was quicker, the
//! node's calls are closed already: it becomes a new node, is told so ([`Serving::keep`]), and the journal drops what
//! still comes of the calls that were taken from it ([`Tx::taken_away`]).
//!
//! This file decides who is dead and nothing about what becomes of their calls.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::Notify;

use super::pools::{Pools, private};
use super::recordings::RecordingRow;
use super::sql::{Connection, Row, column, flag, in_time, sql};
use super::{Db, StoreError, Tx};
use crate::model::call::CallView;
use crate::model::{CallId, Timestamp};

/// First half of the advisory locks' names: nodes. The second is the node's number.
pub(super) const NODE_LOCKS: i64 = 0x7472_6e6b;

/// First half of the other locks' names.
const OTHER_LOCKS: i64 = 0x7472_6e6c;

/// The lock of the one process that takes over.
const TAKING_OVER: i64 = 1;

/// How often a node looks whether it still has its connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long that connection's answer may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// After a start of the database nodes have this long to take the locks again that they had before.
const GRACE_MS: i64 = 20_000;

/// The right to serve from a database; dropped, it is given back.
#[derive(Debug)]
pub struct Serving {
    inner: Held,
}

#[derive(Debug)]
enum Held {
    /// SQLite's: a locked file.
    File { _file: File },
    /// PostgreSQL's: a node.
    Node(Node),
}

/// A node and the connection that holds its lock.
#[derive(Debug)]
struct Node {
    db: Db,
    pool: PgPool,
    id: i64,
    /// `None` while it is lost.
    connection: Option<PgConnection>,
}

/// Nodes that looked dead at an earlier look.
#[derive(Debug, Default)]
pub struct Suspects(BTreeSet<i64>);

/// What dead processes left behind. While it lives no other process takes over anything.
#[derive(Debug)]
pub struct TakenOver {
    /// Calls that are still to be ended, oldest first.
    pub calls: Vec<CallView>,
    /// Recordings that were never finished, oldest first.
    pub recordings: Vec<RecordingRow>,
    /// Holds the lock.
    _alone: Option<Tx>,
}

impl Db {
    /// The database is this process's to serve from until what is returned is dropped or the process ends. Set-up
    /// commands work beside it without. Calls placed from here on are this node's.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another server has it; not with PostgreSQL.
    pub async fn claim_for_serving(&self) -> Result<Serving, StoreError> {
        let file = match &self.pools {
            Pools::Sqlite { file, .. } => file,
            Pools::Postgres { pool, .. } => {
                let node = Node::register(self.clone(), pool.clone()).await?;
                return Ok(Serving { inner: Held::Node(node) });
            }
        };
        let mut name = file.as_os_str().to_owned();
        name.push(".serving");
        let claim =
            private().open(&name).map_err(|_| StoreError::Url(name.to_string_lossy().into_owned()))?;
        match claim.try_lock() {
            Ok(()) => Ok(Serving { inner: Held::File { _file: claim } }),
            Err(_) => Err(StoreError::InUse(file.display().to_string())),
        }
    }

    /// Takes everything that dead processes left behind; with SQLite, everything there is, so only before calls are
    /// placed. With `suspects` a node is dead once it has looked so twice, which a look now and then wants; without,
    /// at once, as at a start.
    ///
    /// # Errors
    /// The database, too where another process is taking over for long.
    pub async fn take_over(&self, suspects: Option<&mut Suspects>) -> Result<TakenOver, StoreError> {
        let mut alone = self.begin().await?;
        if !alone.is_shared() {
            alone.run(sql("UPDATE deliveries SET claimed_by = 0 WHERE claimed_by <> 0")).await?;
            alone.commit().await?;
            let (calls, recordings) = (self.open_calls().await?, self.open_recordings().await?);
            return Ok(TakenOver { calls, recordings, _alone: None });
        }
        // It stays idle while the calls are closed one by one.
        let lock = sql("SELECT pg_advisory_xact_lock(CAST($1 AS INTEGER), CAST($2 AS INTEGER)), \
             set_config('idle_in_transaction_session_timeout', '0', true)");
        alone.run(lock.bind(OTHER_LOCKS).bind(TAKING_OVER)).await?;
        let mut dead = alone.dead_nodes().await?;
        if let Some(suspects) = suspects {
            let seen = std::mem::replace(&mut suspects.0, dead.clone());
            dead.retain(|node| seen.contains(node));
        }
        let mut tx = self.begin().await?;
        tx.take_from(&dead).await?;
        tx.commit().await?;
        let (calls, recordings) = (self.calls_of_nobody().await?, self.recordings_of_nobody().await?);
        Ok(TakenOver { calls, recordings, _alone: Some(alone) })
    }
}

impl Db {
    /// Lets go of calls of this node that were placed before `before` and are not among `known`: those whose commit
    /// was done and its answer lost, so that nobody here has ever heard of them.
    pub(crate) async fn disown(&self, known: &BTreeSet<CallId>, before: Timestamp) -> Result<(), StoreError> {
        let mine = sql(
            "SELECT id FROM calls WHERE state <> 'ended' AND node = $1 AND node <> 0 AND created_at < $2",
        );
        let known: BTreeSet<String> = known.iter().map(|call| call.hex()).collect();
        for row in self.all(mine.bind(self.node()).bind(before.0)).await? {
            let id: String = column(&row, "id")?;
            if known.contains(&id) {
                continue;
            }
            let mut tx = self.begin().await?;
            tx.run(sql("UPDATE calls SET node = 0 WHERE id = $1 AND state <> 'ended'").bind(id)).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Nodes whose lock is free; in this transaction they stay dead. Locks that went with the database itself do not
    /// count until those who had them could take them again.
    async fn dead_nodes(&mut self) -> Result<BTreeSet<i64>, StoreError> {
        let free =
            sql("SELECT id, CAST(CASE WHEN locked_at > started OR now_ms - started > $2 THEN 1 ELSE 0 END \
             AS BIGINT) AS settled, CAST(CASE WHEN pg_try_advisory_xact_lock(CAST($1 AS INTEGER), \
             CAST(id AS INTEGER)) THEN 1 ELSE 0 END AS BIGINT) AS free FROM nodes, (SELECT \
             CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000 AS BIGINT) AS started, \
             CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms) AS times ORDER BY id");
        let rows = self.all(free.bind(NODE_LOCKS).bind(GRACE_MS)).await?;
        let mut dead = BTreeSet::new();
        for row in &rows {
            if flag(row, "free")? && flag(row, "settled")? {
                dead.insert(column(row, "id")?);
            }
        }
        Ok(dead)
    }

    /// Makes nobody's what these nodes had, and forgets them.
    async fn take_from(&mut self, dead: &BTreeSet<i64>) -> Result<(), StoreError> {
        // A call may carry a node that is forgotten already: it was placed while its process was taken for dead.
        let mut calls = sql("UPDATE calls SET node = 0 WHERE node <> 0 AND (state <> 'ended' OR id IN \
             (SELECT call FROM recordings WHERE state IN ('active', 'finalising'))) \
             AND (node NOT IN (SELECT id FROM nodes)");
        if !dead.is_empty() {
            calls.push(" OR node IN ").push_list(dead);
        }
        calls.push(")");
        self.run(calls).await?;
        if dead.is_empty() {
            return Ok(());
        }
        for text in [
            "UPDATE deliveries SET claimed_by = 0 WHERE claimed_by IN ",
            "DELETE FROM idempotency_running WHERE node IN ",
            "DELETE FROM nodes WHERE id IN ",
        ] {
            let mut statement = sql(text);
            statement.push_list(dead);
            self.run(statement).await?;
        }
        Ok(())
    }

    /// Of these calls, those that another process has taken because it took this one for dead. The rows stay locked,
    /// so none can be taken before the end of the transaction. A process that is no node had none.
    pub async fn taken_away(&mut self, calls: BTreeSet<CallId>) -> Result<BTreeSet<CallId>, StoreError> {
        let mut taken = BTreeSet::new();
        for row in self.locked_calls(calls).await? {
            if self.node != 0 && column::<i64>(&row, "node")? == 0 {
                let id = CallId::from_hex(&column::<String>(&row, "id")?);
                taken.insert(id.ok_or(StoreError::Unreadable("calls.id"))?);
            }
        }
        Ok(taken)
    }
}

impl Serving {
    /// Keeps the right. Never returns; `lost` is told each time that this process was taken for dead and all its
    /// calls are somebody else's. Dropping the future keeps what there is.
    pub async fn keep(&mut self, lost: &Notify) {
        let Held::Node(node) = &mut self.inner else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if node.has_connection().await {
                continue;
            }
            match node.register_again().await {
                Ok(true) => {}
                Ok(false) => lost.notify_one(),
                Err(error) => tracing::error!(%error, "this node is not registered with the database"),
            }
        }
    }
}

impl Node {
    async fn register(db: Db, pool: PgPool) -> Result<Self, StoreError> {
        let mut node = Self { db, pool, id: 0, connection: None };
        node.register_anew().await?;
        Ok(node)
    }

    /// A node that nobody knew before.
    async fn register_anew(&mut self) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let id = tx.count("nodes").await?;
        drop(tx);
        let mut connection = self.connect().await?;
        let row = take_lock(&mut connection, id).await?;
        if !flag(&row, "taken")? {
            return Err(StoreError::Unreadable("nodes"));
        }
        let new = sql("INSERT INTO nodes (id, locked_at) \
             VALUES ($1, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))");
        Connection::Postgres(&mut connection).run(new.bind(id)).await?;
        self.id = id;
        self.connection = Some(connection);
        self.db.node.store(id, Ordering::Relaxed);
        tracing::info!(node = id, "registered with the database");
        Ok(())
    }

    /// The same node on a new connection: `true`. If it has been taken for dead, another one: `false`.
    async fn register_again(&mut self) -> Result<bool, StoreError> {
        let mut connection = self.connect().await?;
        if !flag(&take_lock(&mut connection, self.id).await?, "taken")? {
            // The server has not seen yet that the old connection is gone, or somebody is taking over.
            return Ok(true);
        }
        let still =
            sql("UPDATE nodes SET locked_at = CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) \
             WHERE id = $1");
        if Connection::Postgres(&mut connection).run(still.bind(self.id)).await? > 0 {
            tracing::warn!(node = self.id, "the connection to the database was lost and is back");
            self.connection = Some(connection);
            return Ok(true);
        }
        tracing::error!(
            node = self.id,
            "this process was taken for dead, and its calls were closed by another"
        );
        self.register_anew().await?;
        Ok(false)
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let options = self.pool.connect_options();
        in_time(PgConnection::connect_with(&options)).await
    }

    /// Whether the connection that holds the lock is there.
    async fn has_connection(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let answer = connection.execute("SELECT 1");
        let well = matches!(tokio::time::timeout(LOOK_WITHIN, answer).await, Ok(Ok(_)));
        if !well {
            self.connection = None;
        }
        well
    }
}

/// Takes a node's lock for as long as the connection lives, if it is free.
async fn take_lock(connection: &mut PgConnection, node: i64) -> Result<Row, StoreError> {
    let lock = sql("SELECT CAST(CASE WHEN pg_try_advisory_lock(CAST($1 AS INTEGER), CAST($2 AS INTEGER)) \
         THEN 1 ELSE 0 END AS BIGINT) AS taken");
    Connection::Postgres(connection).one(lock.bind(NODE_LOCKS).bind(node)).await
}

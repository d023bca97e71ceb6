//! The database: every SQL statement of the server and the two things that everybody is given, [`Db`] to read
//! and [`Tx`] to change. One connection writes and in-process writers queue for it, so that nobody ever meets
//! "database is locked"; readers have their own connections and see what is committed.
//!
//! This room knows no business rule beyond what a single statement must guarantee (a balance never falls below
//! what is held; an end is final). It owns no clock and never logs a secret. The SQL keeps to what SQLite and
//! PostgreSQL share: `$1` places, TEXT ids, BIGINT milliseconds, `RETURNING`, `ON CONFLICT`.

pub mod accounts;
pub mod calls;
pub mod history;
pub mod idempotency;
mod ids;
mod migrate;
pub mod outbox;
pub mod recordings;
pub mod rows;
pub mod trunks;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};

/// Connections that only read.
const READERS: u32 = 4;

/// How long a writer waits for another process, the command line for instance.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a task waits for its turn to write or to read.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database that this program can open.
    #[error("database url {0:?} is not supported: use sqlite://FILE")]
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
    /// A credit was held and no call was inserted for it; nothing was committed.
    #[error("a credit was held without a call")]
    HoldWithoutCall,
    /// A webhook body that is no UTF-8 text.
    #[error("a webhook body is not UTF-8")]
    Body,
    /// Another server serves from this database.
    #[error("another trunkline serves from {0}")]
    InUse(String),
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    readers: SqlitePool,
    writer: SqlitePool,
    /// When each key's `last_used` was last written, so that busy keys are not written at every request.
    touched: Arc<DashMap<i64, i64>>,
    /// The database's file.
    file: Arc<Path>,
}

/// One transaction of the one writer. Dropped without [`Tx::commit`] it leaves no trace.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Sqlite>,
    /// The key whose credit was held for a call that is still to be inserted.
    held: Option<i64>,
}

/// Files that no other user of the machine may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
}

impl Db {
    /// Opens `sqlite://FILE`, makes the file where it is missing and brings its schema up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let refused = || StoreError::Url(url.to_owned());
        if !url.starts_with("sqlite:") || url.contains(":memory:") || url.contains("mode=memory") {
            return Err(refused());
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| refused())?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let file: Arc<Path> = options.get_filename().into();
        // Trunk passwords and what callers typed are in it. What cannot be made here is said better by the next line.
        drop(private().open(&file));
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        migrate::run(&writer).await?;
        let read_only = options.pragma("query_only", "ON");
        let readers = pool().max_connections(READERS).connect_with(read_only).await?;
        Ok(Self { readers, writer, touched: Arc::default(), file })
    }

    /// The database is this process's to serve from until the returned file is dropped or the process ends.
    /// Set-up commands work beside it without.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another server has it.
    pub fn claim_for_serving(&self) -> Result<File, StoreError> {
        let mut name = self.file.as_os_str().to_owned();
        name.push(".serving");
        let claim =
            private().open(&name).map_err(|_| StoreError::Url(name.to_string_lossy().into_owned()))?;
        match claim.try_lock() {
            Ok(()) => Ok(claim),
            Err(_) => Err(StoreError::InUse(self.file.display().to_string())),
        }
    }

    /// Waits for the writer and begins. The write lock is taken at once, so nothing that was read inside can
    /// have changed at the commit.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Tx { inner: self.writer.begin_with("BEGIN IMMEDIATE").await?, held: None })
    }

    /// One statement that must work while the database is well.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT value FROM counters WHERE name = 'calls'").fetch_one(&self.readers).await?;
        Ok(())
    }

    /// Closes all connections; used at the very end, so that the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Tx {
    /// Makes everything done so far last, on the disk.
    pub async fn commit(self) -> Result<(), StoreError> {
        if self.held.is_some() {
            return Err(StoreError::HoldWithoutCall);
        }
        self.inner.commit().await?;
        Ok(())
    }

    /// The next value of a persisted counter, from 1; never given twice, unless the transaction is dropped.
    async fn count(&mut self, counter: &str) -> Result<i64, StoreError> {
        let row = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
            .bind(counter)
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(row.try_get(0)?)
    }
}

/// Reads one column, for the code that turns rows into values.
fn column<'r, T>(row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    Ok(row.try_get(name)?)
}

/// Reads a 0/1 column.
fn flag(row: &SqliteRow, name: &str) -> Result<bool, StoreError> {
    Ok(column::<i64>(row, name)? != 0)
}

/// Words joined for one TEXT column; none of our lists hold a comma.
fn join(words: &[String]) -> String {
    words.join(",")
}

/// Reads [`join`] back.
fn split(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

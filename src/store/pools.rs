//! The connections: how each kind of database is opened, and what a reader and a writer are given.
//!
//! SQLite has one connection that writes, in whose queue all writers of this process wait, and some that only read.
//! PostgreSQL has one bounded pool for everything and a small one for counters, whose statements wait for nobody and
//! can therefore be made while a transaction is under way. Nobody waits for ever: for a connection, for a lock or
//! for an answer. A connection that broke is replaced by the next that is asked for.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, SqlitePool};

use super::sql::{Pooled, in_time};
use super::{Begun, StoreError};

/// SQLite connections that only read.
const READERS: u32 = 4;

/// How long a SQLite writer waits for another process, the command line for instance.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a task waits for its turn with SQLite.
const SQLITE_TURN: Duration = Duration::from_secs(30);

/// PostgreSQL connections of one process at most, without those for counters and for its registration.
const POSTGRES_CONNECTIONS: u32 = 16;

/// Connections for counters.
const COUNTER_CONNECTIONS: u32 = 2;

/// How long a task waits for a PostgreSQL connection.
const POSTGRES_TURN: Duration = Duration::from_secs(8);

/// What each PostgreSQL session is told. Milliseconds and seconds as PostgreSQL counts them; the keep-alive makes the
/// server notice within half a minute that a process is gone whose machine cannot say so any more.
const SESSION: &[(&str, &str)] = &[
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "30000"),
    ("lock_timeout", "15000"),
    ("idle_in_transaction_session_timeout", "60000"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// The connections.
#[derive(Clone, Debug)]
pub(super) enum Pools {
    /// One that writes, some that read, and the file's name.
    Sqlite {
        /// They see what is committed.
        readers: SqlitePool,
        /// The one.
        writer: SqlitePool,
        /// The database's file.
        file: Arc<Path>,
    },
    /// All of one kind.
    Postgres {
        /// For reading and writing.
        pool: PgPool,
        /// For counters.
        counters: PgPool,
    },
}

/// Files that no other user of the machine may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
}

/// A URL as it may be shown: without user and password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = before_query.rsplit_once('@').map_or(before_query, |(_, place)| place);
    // A password may stand among the parameters, too.
    let secret = query.to_ascii_lowercase().contains("password");
    let query = if query.is_empty() || secret { String::new() } else { format!("?{query}") };
    format!("{scheme}://{place}{query}")
}

impl Pools {
    /// Opens the database of a URL; its schema is still to be brought up to date.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::postgres(url).await
        } else {
            Self::sqlite(url).await
        }
    }

    async fn sqlite(url: &str) -> Result<Self, StoreError> {
        let refused = || StoreError::Url(without_password(url));
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
                .acquire_timeout(SQLITE_TURN)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        // A full disk ends a transaction behind the driver's back, which then takes the connection for one that is
        // in it for ever: such a connection is given up for a new one.
        let writer = pool().max_connections(1).before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        });
        let writer = writer.connect_with(options.clone()).await?;
        let readers = pool()
            .max_connections(READERS)
            .min_connections(0)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self::Sqlite { readers, writer, file })
    }

    async fn postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url(without_password(url)))?
            .application_name("trunkline")
            .options(SESSION.iter().copied());
        let pool = |size| {
            PgPoolOptions::new()
                .max_connections(size)
                .min_connections(0)
                .acquire_timeout(POSTGRES_TURN)
                .test_before_acquire(true)
        };
        // A counter that a crash of the database sets back was in no transaction that survived it: what is committed
        // after it is also behind it in the write-ahead log.
        let counting = options.clone().options([("synchronous_commit", "off")]);
        let counters = pool(COUNTER_CONNECTIONS).connect_lazy_with(counting);
        let pool = pool(POSTGRES_CONNECTIONS).connect_with(options).await?;
        Ok(Self::Postgres { pool, counters })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Begun, StoreError> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Begun::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres { pool, .. } => Begun::Postgres(in_time(pool.begin()).await?),
        })
    }

    /// A connection to read by.
    pub(super) async fn reader(&self) -> Result<Pooled, StoreError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Pooled::Sqlite(readers.acquire().await?),
            Self::Postgres { pool, .. } => Pooled::Postgres(in_time(pool.acquire()).await?),
        })
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { readers, writer, .. } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres { pool, counters } => {
                // What is still lent to a task that hangs is cut off by the end of the process.
                let closing = async { tokio::join!(pool.close(), counters.close()) };
                drop(tokio::time::timeout(POSTGRES_TURN, closing).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_password() {
        for (url, shown) in [
            (
                "postgres://me:pa@ss@db.example:5432/calls?sslmode=require",
                "postgres://db.example:5432/calls?sslmode=require",
            ),
            ("postgres://db/calls?password=x&sslmode=require", "postgres://db/calls"),
            ("postgresql://db/calls", "postgresql://db/calls"),
            ("sqlite://trunkline.db", "sqlite://trunkline.db"),
            ("mysql://u:p@h/d", "mysql://h/d"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}

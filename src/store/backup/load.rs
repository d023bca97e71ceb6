//! Writing: an empty schema, every row, and a check that all of them fit together, in one transaction.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufRead;
use std::str::FromStr;

use serde_json::{Map, Value};
use sqlx::postgres::PgConnection;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, Sqlite};

use super::{Applied, BackupError, MIGRATIONS_TABLE, PAGE, TELLING, composed, quoted, tables_of, texts_of};
use crate::store::migrate::{self, MIGRATIONS, digest};
use crate::store::nodes::NODE_LOCKS;
use crate::store::{Db, StoreError, private};

/// Longest row, bytes.
const ROW_MAX: usize = 64 * 1024 * 1024;

/// Most text given to PostgreSQL at once, bytes.
const BATCH_MAX: usize = 1024 * 1024;

/// A database that is being written anew. Dropped before [`Loader::finish`], it is as it was.
pub struct Loader {
    connection: Open,
    url: String,
    tables: BTreeSet<String>,
    /// With SQLite: no server may serve from the file meanwhile.
    _claim: Option<File>,
}

enum Open {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Loader {
    /// Opens the database, which must be empty unless `force`, and gives it the empty schema of these migrations.
    ///
    /// # Errors
    /// [`BackupError::NotEmpty`]; [`BackupError::Schema`] for a schema newer than this program;
    /// [`StoreError::InUse`] while a server runs on it.
    pub async fn open(url: &str, applied: &[Applied], force: bool) -> Result<Self, BackupError> {
        let texts = texts_of(applied)?;
        let (mut connection, claim) = if url.starts_with("sqlite:") {
            let (connection, claim) = open_sqlite(url).await?;
            (Open::Sqlite(connection), Some(claim))
        } else {
            (Open::Postgres(open_postgres(url).await?), None)
        };
        let all = tables_of(&MIGRATIONS.iter().map(|(version, _, _)| *version).collect());
        if !force {
            connection.must_be_empty().await?;
        }
        for table in all.iter().rev().map(String::as_str).chain([MIGRATIONS_TABLE]) {
            connection.drop_table(table).await?;
        }
        connection.run(migrate::TABLE.to_owned()).await?;
        for (version, name, text) in &texts {
            connection.run((*text).to_owned()).await?;
            let row = format!(
                "INSERT INTO migrations (version, name, digest) VALUES ({version}, '{name}', '{}')",
                digest(text)
            );
            connection.run(row).await?;
        }
        let made = tables_of(&texts.iter().map(|(version, _, _)| *version).collect());
        // Rows that migrations bring along come back with the backup's.
        for table in made.iter().rev() {
            connection.run(format!("DELETE FROM {}", quoted(table))).await?;
        }
        Ok(Self { connection, url: url.to_owned(), tables: made.into_iter().collect(), _claim: claim })
    }

    /// Inserts the rows of one table, as [`super::Saver::save`] wrote them.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] for what are no rows of that table.
    pub async fn load(&mut self, table: &str, from: &mut impl BufRead) -> Result<u64, BackupError> {
        if !self.tables.contains(table) {
            return Err(BackupError::Damaged(format!("there is no table {table}")));
        }
        let columns = self.connection.columns(table).await?;
        let mut rows = 0;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((row, length)) = next_row(from, table, &columns)? {
            batch.push(row);
            bytes += length;
            rows += 1;
            if batch.len() >= PAGE || bytes >= BATCH_MAX {
                self.connection.insert(table, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.connection.insert(table, batch).await?;
        Ok(rows)
    }

    /// Checks that all rows fit together, commits, and brings the schema up to this program's.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] for a row that refers to one that is not there.
    pub async fn finish(mut self) -> Result<(), BackupError> {
        self.connection.check().await?;
        self.connection.run("COMMIT".to_owned()).await?;
        match self.connection {
            Open::Sqlite(connection) => connection.close().await?,
            Open::Postgres(connection) => connection.close().await?,
        }
        Db::open(&self.url).await?.close().await;
        Ok(())
    }
}

/// The file's one writer, with the references unchecked until the end.
async fn open_sqlite(url: &str) -> Result<(SqliteConnection, File), BackupError> {
    let refused = || StoreError::Url(url.to_owned());
    let options = SqliteConnectOptions::from_str(url).map_err(|_| refused())?;
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).foreign_keys(false);
    let file = options.get_filename().to_owned();
    drop(private().open(&file)?);
    let mut name = file.as_os_str().to_owned();
    name.push(".serving");
    let claim = private().open(&name)?;
    if claim.try_lock().is_err() {
        return Err(StoreError::InUse(file.display().to_string()).into());
    }
    let mut connection = options.connect().await?;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await?;
    Ok((connection, claim))
}

/// A transaction on a database that no node serves from. A server that starts meanwhile waits for its end: it begins
/// with the lock of the migrations, which is taken here.
async fn open_postgres(url: &str) -> Result<PgConnection, BackupError> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(migrate::MIGRATING);
    lock.execute(&mut connection).await?;
    // A lock named by two numbers has the subject 2, the first number as its class.
    let text = "SELECT COUNT(*), current_database()::text FROM pg_locks WHERE locktype = 'advisory' AND granted \
                AND classid::bigint = $1 AND objsubid = 2 \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let (nodes, name): (i64, String) =
        sqlx::query_as(text).bind(NODE_LOCKS).fetch_one(&mut connection).await?;
    if nodes > 0 { Err(StoreError::InUse(name).into()) } else { Ok(connection) }
}

/// A row and the bytes of its line.
type Line = (Map<String, Value>, usize);

/// One line as a row whose members are columns of the table.
fn next_row(
    from: &mut impl BufRead,
    table: &str,
    columns: &BTreeSet<String>,
) -> Result<Option<Line>, BackupError> {
    let mut line = Vec::new();
    let length = std::io::Read::take(&mut *from, ROW_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Ok(None);
    }
    let damaged = || BackupError::Damaged(format!("a row of {table} that is none"));
    let row: Map<String, Value> = serde_json::from_slice(&line).map_err(|_| damaged())?;
    if row.is_empty() || !row.keys().all(|name| columns.contains(name)) || length > ROW_MAX {
        return Err(damaged());
    }
    Ok(Some((row, length)))
}

impl Open {
    async fn run(&mut self, text: String) -> Result<(), BackupError> {
        let text = sqlx::raw_sql(composed(text));
        match self {
            Self::Sqlite(on) => text.execute(on).await.map(|_| ())?,
            Self::Postgres(on) => text.execute(on).await.map(|_| ())?,
        }
        Ok(())
    }

    async fn drop_table(&mut self, table: &str) -> Result<(), BackupError> {
        let rest = if matches!(self, Self::Postgres(_)) { " CASCADE" } else { "" };
        self.run(format!("DROP TABLE IF EXISTS {}{rest}", quoted(table))).await
    }

    async fn exists(&mut self, table: &str) -> Result<bool, BackupError> {
        Ok(!self.columns(table).await?.is_empty())
    }

    async fn columns(&mut self, table: &str) -> Result<BTreeSet<String>, BackupError> {
        let names: Vec<(String,)> = match self {
            Self::Sqlite(on) => {
                sqlx::query_as("SELECT name FROM pragma_table_info($1)").bind(table).fetch_all(on).await?
            }
            Self::Postgres(on) => {
                let text = "SELECT column_name::text FROM information_schema.columns \
                            WHERE table_schema = current_schema() AND table_name = $1";
                sqlx::query_as(text).bind(table).fetch_all(on).await?
            }
        };
        Ok(names.into_iter().map(|(name,)| name).collect())
    }

    async fn must_be_empty(&mut self) -> Result<(), BackupError> {
        for table in TELLING {
            if !self.exists(table).await? {
                continue;
            }
            // The key that every server makes for itself is nobody's.
            let own = if table == "api_keys" { " WHERE key_id <> 'local'" } else { "" };
            let text = composed(format!("SELECT COUNT(*) FROM {}{own}", quoted(table)));
            let (rows,): (i64,) = match self {
                Self::Sqlite(on) => sqlx::query_as(text).fetch_one(on).await?,
                Self::Postgres(on) => sqlx::query_as(text).fetch_one(on).await?,
            };
            if rows > 0 {
                return Err(BackupError::NotEmpty);
            }
        }
        Ok(())
    }

    async fn insert(&mut self, table: &str, rows: Vec<Map<String, Value>>) -> Result<(), BackupError> {
        if rows.is_empty() {
            return Ok(());
        }
        let name = quoted(table);
        match self {
            Self::Sqlite(on) => {
                for row in rows {
                    let names: Vec<String> = row.keys().map(|name| quoted(name)).collect();
                    let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
                    let text =
                        format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), places.join(", "));
                    let query = row.into_values().try_fold(sqlx::query(composed(text)), bind)?;
                    query.execute(&mut *on).await?;
                }
            }
            Self::Postgres(on) => {
                let text = format!(
                    "INSERT INTO {name} SELECT * FROM json_populate_recordset(NULL::{name}, $1::json)"
                );
                let rows = Value::Array(rows.into_iter().map(Value::Object).collect()).to_string();
                sqlx::query(composed(text)).bind(rows).execute(on).await?;
            }
        }
        Ok(())
    }

    /// Whether every reference leads somewhere. PostgreSQL has looked at each row already.
    async fn check(&mut self) -> Result<(), BackupError> {
        let Self::Sqlite(on) = self else { return Ok(()) };
        let text = "SELECT DISTINCT \"table\", parent FROM pragma_foreign_key_check";
        let lost: Vec<(String, String)> = sqlx::query_as(text).fetch_all(on).await?;
        match lost.first() {
            None => Ok(()),
            Some((from, to)) => {
                Err(BackupError::Damaged(format!("a row of {from} refers to one of {to} that is not there")))
            }
        }
    }
}

type Inserting = Query<'static, Sqlite, SqliteArguments>;

fn bind(query: Inserting, value: Value) -> Result<Inserting, BackupError> {
    Ok(match value {
        Value::Null => query.bind(None::<String>),
        Value::String(text) => query.bind(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => query.bind(whole),
            (None, Some(real)) => query.bind(real),
            (None, None) => return Err(BackupError::Damaged("a number that is none".to_owned())),
        },
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(BackupError::Damaged("a value that is neither number nor text".to_owned()));
        }
    })
}

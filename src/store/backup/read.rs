//! Reading: every row of every table as of one moment.

use std::collections::BTreeSet;
use std::io::Write;
use std::str::FromStr;

use serde_json::{Map, Number, Value};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Column, ConnectOptions, Connection, Row, TypeInfo, ValueRef};

use super::{Applied, BackupError, MIGRATIONS_TABLE, PAGE, composed, in_order, quoted, tables_of, texts_of};
use crate::store::StoreError;

/// A database as of the moment it was opened at. Changes nothing and holds up nobody.
pub struct Saver {
    connection: Open,
    applied: Vec<Applied>,
    tables: Vec<String>,
}

enum Open {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Saver {
    /// Opens it. The moment is now, whatever is written meanwhile.
    ///
    /// # Errors
    /// A database that cannot be read; a schema that is not this program's.
    pub async fn open(url: &str) -> Result<Self, BackupError> {
        let mut connection = if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(|_| StoreError::Url(url.to_owned()))?;
            let mut connection =
                options.create_if_missing(false).pragma("query_only", "ON").connect().await?;
            sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
            Open::Sqlite(connection)
        } else {
            let mut connection = PgConnection::connect(url).await?;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            sqlx::raw_sql(begin).execute(&mut connection).await?;
            Open::Postgres(connection)
        };
        // The first statement fixes the moment.
        let applied = connection.applied().await?;
        texts_of(&applied)?;
        let tables = tables_of(&applied.iter().map(|(version, _)| *version).collect::<BTreeSet<_>>());
        let tables = tables.into_iter().filter(|table| table != MIGRATIONS_TABLE).collect();
        let refers = connection.refers().await?;
        Ok(Self { connection, applied, tables: in_order(tables, &refers) })
    }

    /// The migrations that made its schema.
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// Its tables, each after those it refers to.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// Writes every row of a table, one JSON object a line, and shows each to `look`.
    ///
    /// # Errors
    /// The database, or the writer.
    pub async fn save(
        &mut self,
        table: &str,
        into: &mut impl Write,
        mut look: impl FnMut(&Map<String, Value>),
    ) -> Result<u64, BackupError> {
        let mut rows = 0;
        let mut after = i64::MIN;
        self.connection.begin(table).await?;
        loop {
            let page = self.connection.page(table, &mut after).await?;
            for row in &page {
                look(row);
                serde_json::to_writer(&mut *into, row).map_err(std::io::Error::from)?;
                into.write_all(b"\n")?;
            }
            rows += u64::try_from(page.len()).unwrap_or(u64::MAX);
            if page.len() < PAGE {
                self.connection.end().await?;
                return Ok(rows);
            }
        }
    }
}

impl Open {
    async fn applied(&mut self) -> Result<Vec<Applied>, BackupError> {
        let text = "SELECT version, digest FROM migrations ORDER BY version";
        let mut applied = Vec::new();
        match self {
            Self::Sqlite(on) => {
                for row in sqlx::query(text).fetch_all(on).await? {
                    applied.push((row.try_get(0)?, row.try_get(1)?));
                }
            }
            Self::Postgres(on) => {
                for row in sqlx::query(text).fetch_all(on).await? {
                    applied.push((row.try_get(0)?, row.try_get(1)?));
                }
            }
        }
        Ok(applied)
    }

    /// Which table refers to which.
    async fn refers(&mut self) -> Result<Vec<(String, String)>, BackupError> {
        Ok(match self {
            Self::Sqlite(on) => {
                let text = "SELECT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f \
                            WHERE m.type = 'table'";
                sqlx::query_as(text).fetch_all(on).await?
            }
            Self::Postgres(on) => {
                let text = "SELECT a.relname::text, b.relname::text FROM pg_constraint c \
                            JOIN pg_class a ON a.oid = c.conrelid JOIN pg_class b ON b.oid = c.confrelid \
                            WHERE c.contype = 'f'";
                sqlx::query_as(text).fetch_all(on).await?
            }
        })
    }

    async fn begin(&mut self, table: &str) -> Result<(), BackupError> {
        let Self::Postgres(on) = self else { return Ok(()) };
        let name = quoted(table);
        let text = format!("DECLARE rows NO SCROLL CURSOR FOR SELECT row_to_json(t)::text FROM {name} t");
        sqlx::raw_sql(composed(text)).execute(on).await?;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BackupError> {
        if let Self::Postgres(on) = self {
            sqlx::raw_sql("CLOSE rows").execute(on).await?;
        }
        Ok(())
    }

    /// The next rows, in the order they were inserted in where the database knows it.
    async fn page(&mut self, table: &str, after: &mut i64) -> Result<Vec<Map<String, Value>>, BackupError> {
        match self {
            Self::Sqlite(on) => {
                let name = quoted(table);
                let text = format!(
                    "SELECT rowid AS \"rowid\", * FROM {name} WHERE rowid > $1 ORDER BY rowid LIMIT {PAGE}"
                );
                let rows = sqlx::query(composed(text)).bind(*after).fetch_all(on).await?;
                if let Some(last) = rows.last() {
                    *after = last.try_get(0)?;
                }
                rows.iter().map(object).collect()
            }
            Self::Postgres(on) => {
                let text = format!("FETCH {PAGE} FROM rows");
                let rows: Vec<(String,)> = sqlx::query_as(composed(text)).fetch_all(on).await?;
                let unreadable = |_| StoreError::Unreadable("a row that is no JSON").into();
                rows.iter().map(|(row,)| serde_json::from_str(row).map_err(unreadable)).collect()
            }
        }
    }
}

/// A row of SQLite, without its number.
fn object(row: &SqliteRow) -> Result<Map<String, Value>, BackupError> {
    let mut members = Map::new();
    for column in row.columns().iter().skip(1) {
        let raw = row.try_get_raw(column.ordinal())?;
        let kind = raw.type_info();
        let value = match kind.name() {
            _ if raw.is_null() => Value::Null,
            "INTEGER" => Value::from(row.try_get::<i64, _>(column.ordinal())?),
            "REAL" => {
                let number = Number::from_f64(row.try_get(column.ordinal())?);
                number.map_or(Value::Null, Value::Number)
            }
            "TEXT" => Value::from(row.try_get::<String, _>(column.ordinal())?),
            _ => return Err(StoreError::Unreadable("a value that is neither number nor text").into()),
        };
        members.insert(column.name().to_owned(), value);
    }
    Ok(members)
}

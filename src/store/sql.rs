//! Statements, and how they run on either database. A [`Statement`] is text with `$1` places and the values that go
//! into them; [`Db`] runs it on a connection that reads, [`Tx`] inside its transaction. What comes back is a
//! [`Row`], read by column name. This is the only file that tells SQLite's driver from PostgreSQL's once a connection
//! is open; it knows no table.
//!
//! Text is made of literals only: [`Statement::push`] takes `&'static str`, and everything that was not known at
//! compile time goes through [`Statement::push_bind`]. Statements are prepared once a connection and text.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ColumnIndex, Postgres, Row as _, Sqlite};

use super::{Db, StoreError, Tx, count_one};

/// A value for one place of a statement. NULL keeps its type, which PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// BIGINT.
    Int(Option<i64>),
    /// DOUBLE PRECISION.
    Real(Option<f64>),
    /// TEXT.
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<&i64> for Value {
    fn from(value: &i64) -> Self {
        Self::Int(Some(*value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<Option<u32>> for Value {
    fn from(value: Option<u32>) -> Self {
        Self::Int(value.map(i64::from))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(Some(value))
    }
}

impl From<Option<f64>> for Value {
    fn from(value: Option<f64>) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

/// SQL text and the values of its places.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement of this text, whose places `$1`, `$2`, … are still to be bound in order.
pub(super) fn sql(text: &'static str) -> Statement {
    Statement { text: Cow::Borrowed(text), values: Vec::new() }
}

impl Statement {
    /// The value of the next place.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Puts more text behind what is there.
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Puts a new place behind the text, and its value. Goes together with earlier [`Statement::bind`]s.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let place = format!("${}", self.values.len());
        self.text.to_mut().push_str(&place);
        self
    }

    /// Puts `(value, value, …)` behind the text.
    pub(super) fn push_list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        self.push("(");
        for (index, value) in values.into_iter().enumerate() {
            self.push(if index == 0 { "" } else { ", " }).push_bind(value);
        }
        self.push(")")
    }

    /// All of them as one text with the values of all. Where a place names its value by number, as all ours do, each is
    /// numbered on behind those of the statements before.
    fn joined(all: Vec<Self>) -> Self {
        let mut whole = Self { text: Cow::Owned(String::new()), values: Vec::new() };
        for Self { text, values } in all {
            let (out, before) = (whole.text.to_mut(), whole.values.len());
            let mut parts = text.split('$');
            out.push_str(parts.next().unwrap_or_default());
            for part in parts {
                let digits = part.bytes().take_while(u8::is_ascii_digit).count();
                let place = part[..digits].parse::<usize>().unwrap_or(0) + before;
                out.push('$');
                out.push_str(&place.to_string());
                out.push_str(&part[digits..]);
            }
            out.push_str("; ");
            whole.values.extend(values);
        }
        whole
    }

    fn sqlite(self) -> Query<'static, Sqlite, SqliteArguments> {
        // Safe: `sql` and `push` take literals only, `push_bind` adds nothing but `$` and a number.
        let query = sqlx::query(AssertSqlSafe(self.text));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Int(value) => query.bind(value),
            Value::Real(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
        })
    }

    fn postgres(self) -> Query<'static, Postgres, PgArguments> {
        // Safe for the reason given in `sqlite`.
        let query = sqlx::query(AssertSqlSafe(self.text));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Int(value) => query.bind(value),
            Value::Real(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
        })
    }
}

/// How long an answer of PostgreSQL may take; the server itself gives a statement up before ([`super::pools`]).
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// Waits for PostgreSQL's answer, but not for ever: a network that swallows everything gives none.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Late),
    }
}

/// An open connection of either kind, lent for one statement.
pub(super) enum Connection<'c> {
    /// SQLite's.
    Sqlite(&'c mut SqliteConnection),
    /// PostgreSQL's.
    Postgres(&'c mut PgConnection),
}

impl Connection<'_> {
    /// Every row.
    pub(super) async fn all(self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => {
                statement.sqlite().fetch_all(on).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(on) => {
                let rows = in_time(statement.postgres().fetch_all(on)).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row, if there is one.
    pub(super) async fn optional(self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => statement.sqlite().fetch_optional(on).await?.map(Row::Sqlite),
            Self::Postgres(on) => in_time(statement.postgres().fetch_optional(on)).await?.map(Row::Postgres),
        })
    }

    /// The first row; none is an error.
    pub(super) async fn one(self, statement: Statement) -> Result<Row, StoreError> {
        self.optional(statement).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    /// How many rows were changed.
    pub(super) async fn run(self, statement: Statement) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => statement.sqlite().execute(on).await?.rows_affected(),
            Self::Postgres(on) => in_time(statement.postgres().execute(on)).await?.rows_affected(),
        })
    }

    /// Runs a text of several statements without values, a migration for instance.
    pub(super) async fn script(self, text: &'static str) -> Result<(), StoreError> {
        let text = sqlx::raw_sql(text);
        match self {
            Self::Sqlite(on) => text.execute(on).await.map(|_| ())?,
            Self::Postgres(on) => in_time(text.execute(on)).await.map(|_| ())?,
        }
        Ok(())
    }
}

/// A connection taken from the pool for one statement.
pub(super) enum Pooled {
    /// SQLite's.
    Sqlite(PoolConnection<Sqlite>),
    /// PostgreSQL's.
    Postgres(PoolConnection<Postgres>),
}

impl Pooled {
    /// Lends it.
    pub(super) fn lend(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(connection) => Connection::Sqlite(connection),
            Self::Postgres(connection) => Connection::Postgres(connection),
        }
    }
}

impl Db {
    /// Every row, as committed.
    pub(super) async fn all(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let asked = async { self.reader().await?.lend().all(statement).await };
        asked.await.inspect_err(|_| count_one(&self.errors))
    }

    /// The first row, if there is one.
    pub(super) async fn optional(&self, statement: Statement) -> Result<Option<Row>, StoreError> {
        let asked = async { self.reader().await?.lend().optional(statement).await };
        asked.await.inspect_err(|_| count_one(&self.errors))
    }

    /// The first row; none is an error.
    pub(super) async fn one(&self, statement: Statement) -> Result<Row, StoreError> {
        let asked = async { self.reader().await?.lend().one(statement).await };
        asked.await.inspect_err(|_| count_one(&self.errors))
    }
}

impl Tx {
    /// Every row, as this transaction sees it.
    pub(super) async fn all(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let asked = self.lend().all(statement).await;
        asked.inspect_err(|_| count_one(&self.errors))
    }

    /// The first row, if there is one.
    pub(super) async fn optional(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        let asked = self.lend().optional(statement).await;
        asked.inspect_err(|_| count_one(&self.errors))
    }

    /// The first row; none is an error.
    pub(super) async fn one(&mut self, statement: Statement) -> Result<Row, StoreError> {
        let asked = self.lend().one(statement).await;
        asked.inspect_err(|_| count_one(&self.errors))
    }

    /// How many rows were changed.
    pub(super) async fn run(&mut self, statement: Statement) -> Result<u64, StoreError> {
        let asked = self.lend().run(statement).await;
        asked.inspect_err(|_| count_one(&self.errors))
    }

    /// Runs statements in order of whose results only the last's first row is wanted, if it has one. To SQLite, which
    /// works on a thread of its own, they go together: most cost less than the way there and back.
    pub(super) async fn together(
        &mut self,
        mut statements: Vec<Statement>,
    ) -> Result<Option<Row>, StoreError> {
        if !self.is_shared() {
            return self.optional(Statement::joined(statements)).await;
        }
        let last = statements.pop();
        for statement in statements {
            self.run(statement).await?;
        }
        match last {
            Some(last) => self.optional(last).await,
            None => Ok(None),
        }
    }
}

/// One row of an answer.
pub(super) enum Row {
    /// SQLite's.
    Sqlite(SqliteRow),
    /// PostgreSQL's.
    Postgres(PgRow),
}

/// What a column can be read as: `i64`, `f64`, `String` and `Option`s of them.
pub(super) trait Readable: OfSqlite + OfPostgres {}
impl<T: OfSqlite + OfPostgres> Readable for T {}

/// What SQLite's driver can read.
pub(super) trait OfSqlite: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> {}
impl<T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>> OfSqlite for T {}

/// What PostgreSQL's driver can read.
pub(super) trait OfPostgres: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> {}
impl<T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>> OfPostgres for T {}

impl Row {
    /// The only column of a row that has but one, a count for instance.
    pub(super) fn first<T: Readable>(&self) -> Result<T, StoreError> {
        self.at(0)
    }

    fn at<T: Readable>(
        &self,
        column: impl ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    ) -> Result<T, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

/// Reads one column.
pub(super) fn column<T: Readable>(row: &Row, name: &str) -> Result<T, StoreError> {
    row.at(name)
}

/// Reads a 0/1 column.
pub(super) fn flag(row: &Row, name: &str) -> Result<bool, StoreError> {
    Ok(column::<i64>(row, name)? != 0)
}

/// Words joined for one TEXT column; none of our lists hold a comma.
pub(super) fn join(words: &[String]) -> String {
    words.join(",")
}

/// Reads [`join`] back.
pub(super) fn split(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_in_the_order_of_their_values() {
        let mut statement = sql("SELECT 1 FROM t WHERE a = $1").bind(7_i64);
        statement.push(" AND b IN ").push_list(["x", "y"]).push(" LIMIT ").push_bind(3_i64);
        assert_eq!(statement.text, "SELECT 1 FROM t WHERE a = $1 AND b IN ($2, $3) LIMIT $4");
        let text = |word: &str| Value::Text(Some(word.to_owned()));
        assert_eq!(statement.values, [Value::Int(Some(7)), text("x"), text("y"), Value::Int(Some(3))]);
    }

    #[test]
    fn statements_that_go_together_keep_their_values_apart() {
        let mut second = sql("UPDATE t SET b = $2 WHERE c = $1").bind("x").bind(5_i64);
        second.push(" AND d = ").push_bind(6_i64);
        let whole =
            Statement::joined(vec![sql("DELETE FROM t WHERE a = $1").bind(7_i64), second, sql("SELECT 1")]);
        assert_eq!(
            whole.text,
            "DELETE FROM t WHERE a = $1; UPDATE t SET b = $3 WHERE c = $2 AND d = $4; SELECT 1; "
        );
        let text = |word: &str| Value::Text(Some(word.to_owned()));
        assert_eq!(whole.values, [Value::Int(Some(7)), text("x"), Value::Int(Some(5)), Value::Int(Some(6))]);
    }

    #[test]
    fn lists_survive_their_text_form() {
        assert_eq!(split(&join(&["a".to_owned(), "b".to_owned()])), ["a", "b"]);
        assert!(split("").is_empty());
    }
}

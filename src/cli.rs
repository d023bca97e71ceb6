//! The set-up commands `keys …` and `trunks …` (CONTRACT 0.8). They work on the configured database, beside a
//! running server, whose next request sees what they did. A key's secret is printed when it is made and never again.
//!
//! This room parses arguments and prints; what it may change is decided by the store.

mod keys;
mod trunks;

use std::io::Write;

use crate::clock;
use crate::config::Config;
use crate::store::trunks::TrunkInvalid;
use crate::store::{Db, StoreError};

pub use keys::KeysArgs;
pub use trunks::TrunksArgs;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The database, or what it refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A trunk setting.
    #[error(transparent)]
    Trunk(#[from] TrunkInvalid),
    /// No trunk of that name.
    #[error("unknown trunk: {0}")]
    UnknownTrunk(String),
    /// Standard output is closed.
    #[error("cannot print: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs `trunkline keys …` and prints its result.
pub async fn keys(args: KeysArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = keys::run(args, &db, clock::now().wall).await;
    db.close().await;
    print(&text?)
}

/// Runs `trunkline trunks …` and prints its result.
pub async fn trunks(args: TrunksArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = trunks::run(args, &db).await;
    db.close().await;
    print(&text?)
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()?;
    Ok(())
}

/// Rows of text in columns, each as wide as its widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["KEY".to_owned(), "NAME".to_owned()], vec!["key_1".to_owned(), "é".to_owned()]];
        assert_eq!(table(&rows), "KEY    NAME\nkey_1  é");
        assert_eq!(table(&[]), "");
    }
}

//! The commands beside `serve` (CONTRACT 0.8): `keys …`, `trunks …`, `tenants …`, `numbers …`, `webhooks …`, `backup`,
//! `restore`, `speech …` and `doctor`. They work on the configured database, beside a
//! running server, whose next request sees what they did. A key's secret is printed when it is made and never again.
//!
//! This room parses arguments and prints; what it may change is decided by the store.

mod backup;
mod doctor;
mod keys;
mod numbers;
mod speech;
mod tenants;
mod trunks;
mod webhooks;

use std::io::Write;

use crate::clock;
use crate::config::Config;
use crate::store::backup::BackupError;
use crate::store::trunks::TrunkInvalid;
use crate::store::{Db, StoreError};

pub use backup::{BackupArgs, RestoreArgs};
pub use doctor::{DoctorArgs, unreadable};
pub use keys::KeysArgs;
pub use numbers::NumbersArgs;
pub use speech::SpeechArgs;
pub use tenants::TenantsArgs;
pub use trunks::TrunksArgs;
pub use webhooks::WebhooksArgs;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The database, or what it refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A trunk setting.
    #[error(transparent)]
    Trunk(#[from] TrunkInvalid),
    /// What is no backup, or cannot be brought back.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A question was answered with no, in words.
    #[error("{0}")]
    Failed(String),
    /// No policy of that name.
    #[error("unknown policy {0}: there are round_robin, priority and weighted")]
    UnknownPolicy(String),
    /// No key of that id.
    #[error("no such key: {0}")]
    UnknownKey(String),
    /// No trunk of that name.
    #[error("unknown trunk: {0}")]
    UnknownTrunk(String),
    /// A URL that webhooks may not go to.
    #[error("--webhook must be an https URL")]
    WebhookUrl,
    /// No delivery of that number or id.
    #[error("unknown delivery: {0}")]
    UnknownDelivery(String),
    /// As many redeliveries wait as may.
    #[error("too many redeliveries are waiting")]
    RedeliveriesFull,
    /// The receiver for trials cannot listen there.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// A file, or standard output.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

/// Runs `trunkline keys …` and prints its result.
pub async fn keys(args: KeysArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = keys::run(args, &db, clock::now().wall).await;
    db.close().await;
    print(&text?)
}

/// Runs `trunkline tenants …` and prints its result.
pub async fn tenants(args: TenantsArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = tenants::run(args, &db, clock::now().wall).await;
    db.close().await;
    print(&text?)
}

/// Runs `trunkline numbers …` and prints its result.
pub async fn numbers(args: NumbersArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = numbers::run(args, &db, &config.webhooks, clock::now().wall).await;
    db.close().await;
    print(&text?)
}

/// Runs `trunkline trunks …` and prints its result.
pub async fn trunks(args: TrunksArgs, config: &Config) -> Result<(), CliError> {
    let db = Db::open(&config.database.url).await?;
    let text = trunks::run(args, &db, clock::now().wall).await;
    db.close().await;
    print(&text?)
}

/// Runs `trunkline speech …` and prints its result.
pub async fn speech(args: SpeechArgs, config: &Config) -> Result<(), CliError> {
    print(&speech::run(args, config).await?)
}

/// Runs `trunkline backup` and prints its result.
pub async fn backup(args: BackupArgs, config: &Config) -> Result<(), CliError> {
    print(&backup::backup(&args, config, clock::now().wall).await?)
}

/// Runs `trunkline restore` and prints its result.
pub async fn restore(args: RestoreArgs, config: &Config) -> Result<(), CliError> {
    print(&backup::restore(&args, config).await?)
}

/// Runs `trunkline doctor` and prints what it found; whether nothing is broken. `voices` is what there is to speak
/// with, or why there is nothing.
pub async fn doctor(
    args: DoctorArgs,
    config: &Config,
    voices: Result<String, String>,
) -> Result<bool, CliError> {
    let (well, text) = doctor::run(&args, config, voices, clock::now().wall).await;
    print(&text)?;
    Ok(well)
}

/// Runs `trunkline webhooks …` and prints its result; `listen` goes on until it is interrupted.
pub async fn webhooks(args: WebhooksArgs, config: &Config) -> Result<(), CliError> {
    if let webhooks::WebhooksCommand::Listen(args) = args.command {
        return webhooks::listen(args).await;
    }
    let db = Db::open(&config.database.url).await?;
    let text = webhooks::run(args, &db, clock::now().wall).await;
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

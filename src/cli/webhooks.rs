//! `trunkline webhooks list|show|redeliver|replay|listen`: what has become of webhooks, sending them again, and a
//! receiver for trials. What is ordered here a running server sees within a second.

mod listen;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, table};
use crate::model::Timestamp;
use crate::store::Db;
use crate::store::audit::By;
use crate::store::deliveries::{AttemptRow, DeliveryFilter, DeliveryRow, REPLAY_MAX, Redelivered, STATES};

pub(super) use listen::{ListenArgs, listen};

/// Webhooks: what became of them.
#[derive(Clone, Debug, Args)]
pub struct WebhooksArgs {
    #[command(subcommand)]
    pub(super) command: WebhooksCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Print deliveries, the newest first.
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Print one delivery and its attempts.
    Show {
        /// Its number, or `evt_…`
        delivery: String,
    },
    /// Send one delivery again, under the same webhook-id.
    Redeliver {
        /// Its number, or `evt_…`
        delivery: String,
    },
    /// Send again what the filter meets, the oldest first; without --state what has failed.
    Replay {
        #[command(flatten)]
        filter: FilterArgs,
        /// At most so many.
        #[arg(long, default_value_t = REPLAY_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLAY_MAX)))]
        limit: u32,
    },
    /// Receive webhooks for a trial: check their signatures and print a line for each.
    Listen(ListenArgs),
}

/// Which deliveries.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Of this key: `key_…`
    #[arg(long)]
    key: Option<String>,
    /// Of this call.
    #[arg(long)]
    call: Option<String>,
    /// Of this event, for example call.ended.
    #[arg(long)]
    event: Option<String>,
    /// In this state.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// To this host.
    #[arg(long)]
    host: Option<String>,
    /// Of events not before this moment or day (ISO 8601).
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// Of events before this moment or day (ISO 8601).
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_iso(text).ok_or_else(|| "must be an ISO 8601 moment or day".to_owned())
}

impl From<FilterArgs> for DeliveryFilter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { key, call, event, state, host, from, to } = args;
        Self { key, call, event, state, host: host.map(|host| host.to_ascii_lowercase()), from, to }
    }
}

/// Does what was asked and returns what is to be printed. `listen` has its own way.
pub(super) async fn run(args: WebhooksArgs, db: &Db, now: Timestamp) -> Result<String, CliError> {
    let json = args.json;
    match args.command {
        WebhooksCommand::List { filter, limit } => {
            let rows = db.list_deliveries(&filter.into(), limit, None).await?;
            Ok(if json { Value::Array(rows.iter().map(describe).collect()).to_string() } else { list(&rows) })
        }
        WebhooksCommand::Show { delivery } => {
            let id = named(db, &delivery).await?;
            let found = db.delivery(id).await?;
            let (row, attempts) = found.ok_or(CliError::UnknownDelivery(delivery))?;
            Ok(if json { whole(&row, &attempts).to_string() } else { show(&row, &attempts) })
        }
        WebhooksCommand::Redeliver { delivery } => {
            let id = named(db, &delivery).await?;
            let text = match db.redeliver(id, &By::cli(now)).await? {
                Redelivered::Unknown => return Err(CliError::UnknownDelivery(delivery)),
                Redelivered::Full => return Err(CliError::RedeliveriesFull),
                Redelivered::Queued => "is sent again",
                Redelivered::Hurried => "was waiting; its next attempt is due now",
            };
            Ok(if json {
                json!({ "id": id, "queued": true }).to_string()
            } else {
                format!("delivery {id} {text}")
            })
        }
        WebhooksCommand::Replay { filter, limit } => {
            let replayed = db.replay(&filter.into(), limit, &By::cli(now)).await?;
            let (matched, queued) = (replayed.matched, replayed.queued);
            let text = format!("{queued} of {matched} deliveries are sent again");
            Ok(if json { json!({ "matched": matched, "queued": queued }).to_string() } else { text })
        }
        WebhooksCommand::Listen(_) => Ok(String::new()),
    }
}

async fn named(db: &Db, name: &str) -> Result<i64, CliError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    db.delivery_of_event(name).await?.ok_or_else(|| CliError::UnknownDelivery(name.to_owned()))
}

/// What a row waits for, or what became of it.
fn state(row: &DeliveryRow) -> String {
    match row.redelivery {
        Some(_) => format!("{} (again)", row.state),
        None => row.state.clone(),
    }
}

fn list(rows: &[DeliveryRow]) -> String {
    if rows.is_empty() {
        return "no deliveries".to_owned();
    }
    let head = ["ID", "AT", "EVENT", "CALL", "STATE", "ATTEMPTS", "LAST", "HOST"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.created_at.iso_ms(),
            row.event.clone(),
            row.call.clone(),
            state(row),
            row.attempts.to_string(),
            row.last_result.clone(),
            host(&row.url),
        ]
    }));
    table(&lines)
}

/// The host of a URL; the rest of it may hold what only its receiver should know.
fn host(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    parsed.as_ref().and_then(url::Url::host_str).unwrap_or("?").to_owned()
}

fn show(row: &DeliveryRow, attempts: &[AttemptRow]) -> String {
    let next = row.next_at.map_or_else(|| "none".to_owned(), Timestamp::iso_ms);
    let about = [
        ("delivery", row.id.to_string()),
        ("webhook-id", row.event_id.clone()),
        ("event", format!("{} at {}", row.event, row.created_at.iso_ms())),
        ("call", row.call.clone()),
        ("key", row.key.clone()),
        ("url", row.url.clone()),
        ("state", state(row)),
        ("next attempt", next),
    ];
    let mut lines: Vec<_> = about.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect();
    let mut text = table(&lines);
    lines.clear();
    lines.push(["ATTEMPT", "AT", "TOOK", "RESULT"].map(str::to_owned).to_vec());
    lines.extend(attempts.iter().map(|attempt| {
        let took = format!("{} ms", attempt.took_ms);
        vec![attempt.number.to_string(), attempt.at.iso_ms(), took, attempt.result.clone()]
    }));
    text.push_str("\n\n");
    text.push_str(&if attempts.is_empty() { "no attempts yet".to_owned() } else { table(&lines) });
    text
}

fn describe(row: &DeliveryRow) -> Value {
    json!({
        "id": row.id,
        "eventId": row.event_id,
        "callId": row.call,
        "keyId": row.key,
        "surface": row.dialect,
        "event": row.event,
        "state": row.state,
        "url": row.url,
        "attempts": row.attempts,
        "lastStatusCode": row.last_status,
        "lastResult": row.last_result,
        "nextAttemptAt": row.next_at.map(Timestamp::iso_ms),
        "createdAt": row.created_at.iso_ms(),
        "settledAt": row.settled_at.map(Timestamp::iso_ms),
        "redelivery": row.redelivery.is_some(),
    })
}

fn whole(row: &DeliveryRow, attempts: &[AttemptRow]) -> Value {
    let log = attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number,
            "at": attempt.at.iso_ms(),
            "tookMs": attempt.took_ms,
            "statusCode": attempt.status,
            "result": attempt.result,
        })
    });
    let mut all = describe(row);
    all["attemptLog"] = log.collect();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        webhooks: WebhooksArgs,
    }

    fn parse(words: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from(["webhooks"].iter().chain(words))
    }

    #[test]
    fn filters_are_read() {
        let line =
            parse(&["list", "--state", "failed", "--host", "A.example", "--from", "2026-02-17"]).unwrap();
        let WebhooksCommand::List { filter, limit } = line.webhooks.command else { panic!("not list") };
        let filter = DeliveryFilter::from(filter);
        assert_eq!((filter.state.as_deref(), filter.host.as_deref()), (Some("failed"), Some("a.example")));
        assert_eq!((filter.from, limit), (Timestamp::from_iso("2026-02-17T00:00:00Z"), 50));
        for wrong in [
            ["list", "--state", "lost"],
            ["list", "--to", "soon"],
            ["list", "--limit", "0"],
            ["replay", "--limit", "1001"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_shows_hosts_and_not_what_a_url_may_hide() {
        let row = DeliveryRow {
            id: 7,
            event_id: "evt_1".into(),
            call: "1771322520.1".into(),
            key: "key_1".into(),
            dialect: "kaphila".into(),
            event: "call.ended".into(),
            state: "failed".into(),
            url: "https://a.example/hooks?token=hush".into(),
            attempts: 5,
            next_at: None,
            last_status: Some(500),
            last_result: "status 500".into(),
            created_at: Timestamp(0),
            settled_at: Some(Timestamp(1)),
            redelivery: None,
        };
        let text = list(std::slice::from_ref(&row));
        assert!(text.contains("a.example") && !text.contains("hush"), "{text}");
        let attempt = AttemptRow {
            number: 5,
            at: Timestamp(0),
            took_ms: 12,
            status: Some(500),
            result: "status 500".into(),
        };
        let shown = show(&row, std::slice::from_ref(&attempt));
        assert!(shown.ends_with("ATTEMPT  AT                        TOOK   RESULT\n5        1970-01-01T00:00:00.000Z  12 ms  status 500"), "{shown}");
        assert_eq!(whole(&row, &[attempt])["attemptLog"][0]["tookMs"], 12);
    }
}

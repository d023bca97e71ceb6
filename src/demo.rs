//! One real call, shown step by step: starts the server and the far end as processes of their own, acts as a
//! customer over HTTP and as the receiver of the webhooks, and checks everything that it shows. It knows the server
//! only by its command line, its HTTP and its webhooks: nothing here reaches inside.

mod measure;
mod receiver;
mod stage;
mod story;
mod timeline;

use std::io;
use std::time::Duration;

use serde_json::json;
use thiserror::Error;

use crate::clock;
use stage::Stage;
use story::Summary;
use timeline::Timeline;

/// The whole demo, from the first process to the last check.
const DEADLINE: Duration = Duration::from_secs(60);
/// Log lines shown when a step fails.
const LOG_LINES: usize = 15;

/// How the demo is shown.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct DemoOptions {
    /// One JSON object per line instead of a timeline for people.
    #[arg(long)]
    pub json: bool,
}

/// Why the demo could not even begin.
#[derive(Debug, Error)]
pub enum DemoError {
    /// No folder, port or process to work with.
    #[error("the demo cannot be set up: {0}")]
    Setup(#[from] io::Error),
}

/// A step that did not happen, in words for whoever reads the timeline.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
struct Failure(String);

/// A [`Failure`] unless `held`.
fn check(held: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if held { Ok(()) } else { Err(Failure(otherwise())) }
}

/// Runs the demo; true if every step happened.
pub async fn run(options: DemoOptions) -> Result<bool, DemoError> {
    let mut timeline = Timeline::start(options.json, clock::now().wall);
    let mut stage = Stage::build()?;
    let told = tokio::select! {
        told = tokio::time::timeout(DEADLINE, story::tell(&mut stage, &mut timeline)) => told
            .unwrap_or_else(|_| Err(Failure(format!("the demo took longer than {} s", DEADLINE.as_secs())))),
        _ = tokio::signal::ctrl_c() => Err(Failure("interrupted".into())),
    };
    stage.stop().await;
    timeline.print();
    match told {
        Ok(summary) => {
            let kept = stage.keep(&summary.filename, &summary.recording);
            timeline.conclude(&concluded(&summary, &kept, &timeline), &lines(&summary, &kept));
            stage.clear();
            Ok(true)
        }
        Err(failure) => {
            let log = stage.last_log_lines(LOG_LINES);
            let json = json!({ "type": "summary", "ok": false, "error": failure.to_string(), "log": log });
            let mut lines = vec![format!("FAILED: {failure}")];
            if !log.is_empty() {
                lines.push("The last log lines:".into());
                lines.extend(log.iter().map(|line| format!("  {line}")));
            }
            lines.push(format!("The files are left in {}", stage.folder().display()));
            timeline.conclude(&json, &lines);
            Ok(false)
        }
    }
}

fn concluded(summary: &Summary, kept: &Option<std::path::PathBuf>, timeline: &Timeline) -> serde_json::Value {
    json!({
        "type": "summary",
        "ok": true,
        "callId": summary.call_id,
        "amd": summary.amd,
        "digits": summary.digits,
        "recording": kept,
        "recordingSeconds": summary.seconds,
        "levelDbm0": summary.level_dbm0,
        "likeness": summary.likeness,
        "creditsBefore": summary.credits.0,
        "creditsAfter": summary.credits.1,
        "webhooks": summary.webhooks,
        "steps": timeline.len(),
    })
}

fn lines(summary: &Summary, kept: &Option<std::path::PathBuf>) -> Vec<String> {
    let place =
        kept.as_ref().map_or_else(|| "could not be kept".to_owned(), |path| path.display().to_string());
    vec![
        format!("recording  {place}"),
        format!(
            "           {:.1} s, 8 kHz mono, {:.1} dBm0 while someone speaks; both sides are on it",
            summary.seconds, summary.level_dbm0
        ),
        format!("far end    heard our words as recorded (likeness {:.2} of 1)", summary.likeness),
        format!("webhooks   {}, every signature verified, none missing", summary.webhooks),
        format!("credits    {} before, {} after", summary.credits.0, summary.credits.1),
        "All steps happened.".to_owned(),
    ]
}

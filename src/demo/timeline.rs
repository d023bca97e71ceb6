//! What is shown: steps with their times and lanes, sorted when the call is over because the far end tells its part
//! only then. While the call is up, a terminal shows one line of progress.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use crate::model::Timestamp;

/// Whose step it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The customer's requests.
    You,
    /// The server's answers.
    Trunkline,
    /// The carrier's and the callee's.
    FarEnd,
    /// What the customer's URL received.
    Webhook,
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Self::You => "you",
            Self::Trunkline => "trunkline",
            Self::FarEnd => "far end",
            Self::Webhook => "webhook",
        }
    }

    /// ANSI SGR colour.
    fn colour(self) -> &'static str {
        match self {
            Self::You => "36",
            Self::Trunkline => "32",
            Self::FarEnd => "33",
            Self::Webhook => "35",
        }
    }
}

#[derive(Debug)]
struct Entry {
    at: Timestamp,
    lane: Lane,
    text: String,
    data: Value,
}

/// The steps so far and the way they are shown.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Timestamp,
    json: bool,
    terminal: bool,
    colours: bool,
    entries: Vec<Entry>,
}

impl Timeline {
    /// A timeline whose zero is `start`.
    pub(super) fn start(json: bool, start: Timestamp) -> Self {
        let terminal = !json && io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        let timeline = Self { start, json, terminal, colours, entries: Vec::new() };
        if !json {
            say("trunkline demo: one real call over SIP and RTP, on this machine alone\n");
        }
        timeline
    }

    /// Notes a step that has happened, with its facts for machines.
    pub(super) fn step(&mut self, at: Timestamp, lane: Lane, text: impl Into<String>, data: Value) {
        let text = text.into();
        self.progress(at, &format!("{}: {text}", lane.name()));
        self.entries.push(Entry { at, lane, text, data });
    }

    /// Steps noted.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Replaces the line of progress on a terminal.
    fn progress(&self, at: Timestamp, text: &str) {
        if self.terminal {
            let line: String = format!("  {:>6.1} s  {text}", self.seconds(at)).chars().take(78).collect();
            say(&format!("\r\x1b[2K{line}"));
        }
    }

    /// Shows all steps in the order of their times.
    pub(super) fn print(&mut self) {
        self.entries.sort_by_key(|entry| entry.at);
        let mut text = if self.terminal { "\r\x1b[2K\n".to_owned() } else { "\n".to_owned() };
        if self.json {
            text.clear();
        }
        for entry in &self.entries {
            if self.json {
                let at_ms = entry.at.0 - self.start.0;
                let (lane, words) = (entry.lane.name(), &entry.text);
                let line =
                    json!({ "type": "step", "atMs": at_ms, "lane": lane, "text": words, "data": entry.data });
                text.push_str(&format!("{line}\n"));
            } else {
                let lane = self.painted(entry.lane.colour(), &format!("{:<9}", entry.lane.name()));
                text.push_str(&format!("  {:>7.3}  {lane}  {}\n", self.seconds(entry.at), entry.text));
            }
        }
        say(&text);
    }

    /// The last words.
    pub(super) fn conclude(&self, summary: &Value, lines: &[String]) {
        if self.json {
            say(&format!("{summary}\n"));
        } else {
            say(&format!("\n{}\n", lines.join("\n")));
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn seconds(&self, at: Timestamp) -> f64 {
        (at.0 - self.start.0) as f64 / 1000.0
    }
}

/// Writes to standard output; a reader that has gone away is no reason to stop a call.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

//! What a far end remembers of each call: one line of `calls.jsonl` (CONTRACT 0.9), written once everything about
//! the call is known, its WAV closed included.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::Serializer;

use crate::model::Timestamp;

/// Digits kept of one call; a caller cannot make the line grow without end.
const DIGITS_MAX: usize = 1000;

fn iso<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_str(&at.iso_ms()),
        None => serializer.serialize_none(),
    }
}

/// A key press that was heard.
#[derive(Debug, Serialize)]
pub(super) struct HeardDigit {
    digit: char,
    #[serde(serialize_with = "iso")]
    at: Option<Timestamp>,
    source: &'static str,
}

/// One call, as its line says it. Times are ISO with milliseconds, or null for what never happened.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The Call-ID header.
    pub(super) call_id: String,
    /// The user part of From.
    pub(super) from: String,
    /// The user part dialled.
    pub(super) to: String,
    /// Where the INVITE came from; null for one that was never taken up.
    pub(super) source: Option<SocketAddr>,
    /// The INVITE came.
    #[serde(serialize_with = "iso")]
    pub(super) invited_at: Option<Timestamp>,
    /// 18x sent.
    #[serde(serialize_with = "iso")]
    pub(super) ringing_at: Option<Timestamp>,
    /// 200 sent.
    #[serde(serialize_with = "iso")]
    pub(super) answered_at: Option<Timestamp>,
    /// Over.
    #[serde(serialize_with = "iso")]
    pub(super) ended_at: Option<Timestamp>,
    /// `us` is the far end itself, `them` the caller; null if the call died of silence.
    pub(super) ended_by: Option<&'static str>,
    /// A CANCEL was received, whatever became of it.
    pub(super) cancelled: bool,
    /// The final status sent.
    pub(super) final_code: Option<u16>,
    /// Keys heard.
    pub(super) dtmf: Vec<HeardDigit>,
    /// RTP packets received.
    pub(super) packets_in: u64,
    /// RTP packets sent.
    pub(super) packets_out: u64,
    /// Where what was heard is kept.
    pub(super) wav: Option<PathBuf>,
}

impl Record {
    /// Notes a key press.
    pub(super) fn heard(&mut self, digit: char, at: Timestamp, source: &'static str) {
        if self.dtmf.len() < DIGITS_MAX {
            self.dtmf.push(HeardDigit { digit, at: Some(at), source });
        }
    }
}

/// The folder of WAVs and lines.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    lines: File,
}

impl Records {
    /// Opens the folder, making it where it is missing; lines are appended to those of earlier runs.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let lines = OpenOptions::new().create(true).append(true).open(folder.join("calls.jsonl"))?;
        Ok(Self { folder, lines })
    }

    /// The WAV of a call. A Call-ID is a stranger's text: all but plain characters become `_`, so that it names a
    /// file of this folder and no other.
    pub(super) fn wav(&self, call_id: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '@') { c } else { '_' };
        let name: String = call_id.chars().take(200).map(plain).collect();
        self.folder.join(format!("{}.wav", name.trim_start_matches('.')))
    }

    /// Writes a call's line in one piece.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_string(record).map_err(io::Error::other)?;
        line.push('\n');
        self.lines.write_all(line.as_bytes())?;
        self.lines.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_field() {
        let mut record = Record { call_id: "a@b".into(), to: "000101".into(), ..Record::default() };
        record.invited_at = Some(Timestamp(1_771_322_520_007));
        record.heard('5', Timestamp(1_771_322_521_000), "rfc4733");
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            serde_json::json!({
                "callId": "a@b", "from": "", "to": "000101", "source": null, "invitedAt": "2026-02-17T10:02:00.007Z",
                "ringingAt": null, "answeredAt": null, "endedAt": null, "endedBy": null, "cancelled": false,
                "finalCode": null, "dtmf": [{"digit": "5", "at": "2026-02-17T10:02:01.000Z", "source": "rfc4733"}],
                "packetsIn": 0, "packetsOut": 0, "wav": null
            })
        );
    }

    #[test]
    fn a_call_id_never_leaves_the_folder() {
        let folder = std::env::temp_dir().join(format!("trunkline-records-{}", std::process::id()));
        let mut records = Records::open(&folder).unwrap();
        for id in ["../../etc/passwd", "/etc/passwd", "a\0b", "..", "", "a/b\\c"] {
            assert_eq!(records.wav(id).parent(), Some(records.folder.as_path()), "{id:?}");
        }
        assert_eq!(records.wav("Abc-1@host.example"), records.folder.join("Abc-1@host.example.wav"));
        records.write(&Record::default()).unwrap();
        records.write(&Record::default()).unwrap();
        let text = std::fs::read_to_string(records.folder.join("calls.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

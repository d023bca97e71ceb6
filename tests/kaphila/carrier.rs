//! The built-in far end as a far end: a process of its own, and what it wrote down of each call.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::audio;
use crate::harness::{Process, TRUNKLINE, free_port, until, wait_bound};

/// A running `trunkline carrier`.
pub(crate) struct Carrier {
    _process: Process,
    pub(crate) addr: SocketAddr,
    folder: PathBuf,
}

/// One line of `calls.jsonl`.
#[derive(Debug)]
pub(crate) struct FarCall {
    pub(crate) line: Value,
    folder: PathBuf,
}

impl Carrier {
    /// Starts one that records into `folder`.
    pub(crate) async fn start(folder: &Path, shared: bool) -> Self {
        std::fs::create_dir_all(folder).expect("the target folder can be written");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(TRUNKLINE);
        command.args(["carrier", "--listen", &addr.to_string(), "--record"]).arg(folder);
        let log = folder.with_extension("log");
        let mut process = if shared {
            Process::start_shared("carrier", &command, log)
        } else {
            Process::start("carrier", &mut command, log)
        };
        wait_bound(addr, &mut process).await;
        Self::running(process, addr, folder)
    }

    /// A carrier that runs already.
    pub(crate) fn running(process: Process, addr: SocketAddr, folder: &Path) -> Self {
        Self { _process: process, addr, folder: folder.into() }
    }

    /// Every call that is over and written down.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("calls.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Calls to a number that are over.
    pub(crate) fn calls_to(&self, number: &str) -> usize {
        let to = format!("00{number}");
        self.lines().iter().filter(|line| line["to"] == *to).count()
    }

    /// Waits until the call to this number is over and written down.
    pub(crate) async fn call(&self, number: &str) -> FarCall {
        let to = format!("00{number}");
        let find = async || self.lines().into_iter().find(|line| line["to"] == *to);
        let line = until(20.0, &format!("the far end has written down the call to {to}"), find).await;
        FarCall { line, folder: self.folder.clone() }
    }
}

impl FarCall {
    /// One of its times.
    pub(crate) fn time(&self, name: &str) -> Timestamp {
        let text = self.line[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.line));
        text.parse().unwrap_or_else(|error| panic!("{name} {text}: {error}"))
    }

    /// What the far end heard, from answer to end.
    pub(crate) fn heard(&self) -> Vec<f64> {
        let name = self.line["wav"].as_str().unwrap_or_else(|| panic!("no wav: {}", self.line));
        let path = Path::new(name);
        let path =
            if path.exists() { path.to_owned() } else { self.folder.join(path.file_name().expect("a name")) };
        audio::read_wav_file(&path)
    }
}

/// Seconds from one moment to another.
pub(crate) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

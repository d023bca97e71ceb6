//! The server as a process of its own on core 0, with a fresh database, and what the system says of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::Failed;
use crate::kernel;

/// The server's process, ended when dropped.
pub(crate) struct Program {
    child: Child,
    home: PathBuf,
    settings: Vec<(String, String)>,
    /// Where HTTP is served.
    pub(crate) http: SocketAddr,
}

/// What the system says of a process at a moment.
pub(crate) struct Usage {
    /// Seconds on a core, by the names of its threads.
    pub(crate) seconds: BTreeMap<String, f64>,
    /// Memory, bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Seconds since an earlier moment, by kind of thread.
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let mut kinds = BTreeMap::new();
        for (name, seconds) in &self.seconds {
            let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
            *kinds.entry(kind).or_insert(0.0) += seconds - before.seconds.get(name).unwrap_or(&0.0);
        }
        kinds
    }
}

fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Program {
    /// Starts the server on core 0 with a fresh folder of this name.
    pub(crate) fn start(name: &str, database: Option<&str>, extra: &[(&str, &str)]) -> Result<Self, Failed> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What the last run left.
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home)?;
        let (http, sip) = (free_port()?, free_port()?);
        let sqlite = format!("sqlite://{}/trunkline.db", home.display());
        let own = [
            ("HTTP__LISTEN", format!("127.0.0.1:{http}")),
            ("SIP__UDP", format!("127.0.0.1:{sip}")),
            ("RTP__BIND", "127.0.0.1".to_owned()),
            ("DATABASE__URL", database.unwrap_or(&sqlite).to_owned()),
            ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "1000000".to_owned()),
            ("WEBHOOKS__ALLOW_HTTP", "true".to_owned()),
            ("WEBHOOKS__ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        ];
        let extra = extra.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings: Vec<(String, String)> =
            own.into_iter().chain(extra).map(|(name, value)| (format!("TRUNKLINE_{name}"), value)).collect();
        let log = std::fs::File::create(home.join("server.log"))?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_trunkline"), "serve"]);
        command.envs(settings.iter().cloned()).current_dir(&home);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, home, settings, http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), http) })
    }

    /// A command beside the server; what it prints as JSON.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<Value, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(arguments).arg("--json").envs(self.settings.iter().cloned()).current_dir(&self.home);
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let process = self.child.id().to_string();
        Usage { seconds: kernel::thread_seconds(&process), resident: kernel::resident_bytes(&process) }
    }

    /// The files of finished recordings.
    pub(crate) fn recordings(&self) -> usize {
        std::fs::read_dir(self.home.join("recordings")).map_or(0, Iterator::count)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The processes of the demo: the server and the far end, started from this very binary in a folder of their own,
//! with their logs, and ended whatever happens.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::Failure;
use crate::clock;

/// Log lines remembered of each process.
const LOG_MAX: usize = 200;
/// RTP ports of the server, which carries one call.
const RTP_PORTS: u16 = 40;
/// How long a question to a starting process waits for its answer, and how often one is put.
const PATIENCE: Duration = Duration::from_millis(200);
const TRIES: u32 = 100;

/// The lines a process has written.
type Log = Arc<Mutex<VecDeque<String>>>;

/// The folder, the addresses and the processes.
#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
    /// The server's HTTP address.
    pub(super) http: SocketAddr,
    /// The server's SIP address.
    sip: SocketAddr,
    /// The far end's SIP address.
    far_end: SocketAddr,
    children: Vec<Child>,
    log: Log,
}

impl Stage {
    /// Makes the folder and its configuration, and finds free ports. Nothing is started yet.
    pub(super) fn build() -> io::Result<Self> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let unique = format!("trunkline-demo-{}-{}", std::process::id(), clock::now().wall.0);
        let folder = std::env::temp_dir().join(unique);
        for part in ["sounds", "recordings", "far-end"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        // All are held until all are known, so that none is given twice.
        let (http, sip, far_end, rtp) = (
            TcpListener::bind(loopback)?,
            UdpSocket::bind(loopback)?,
            UdpSocket::bind(loopback)?,
            UdpSocket::bind(loopback)?,
        );
        let rtp = rtp.local_addr()?.port().min(u16::MAX - RTP_PORTS - 1) & !1;
        let stage = Self {
            http: http.local_addr()?,
            sip: sip.local_addr()?,
            far_end: far_end.local_addr()?,
            folder,
            children: Vec::new(),
            log: Log::default(),
        };
        std::fs::write(stage.config(), stage.settings(rtp))?;
        Ok(stage)
    }

    /// Everything the server needs to know for one call to the far end.
    fn settings(&self, rtp: u16) -> String {
        let folder = |part: &str| Value::from(self.folder.join(part).display().to_string());
        let database = Value::from(format!("sqlite://{}", self.folder.join("demo.db").display()));
        format!(
            "[http]\nlisten = \"{}\"\n\n[sip]\nudp = \"{}\"\n\n\
             [rtp]\nbind = \"127.0.0.1\"\nport_min = {rtp}\nport_max = {}\n\n[database]\nurl = {database}\n\n\
             [paths]\nsounds = {}\nrecordings = {}\n\n\
             [webhooks]\nallow_http = true\nallow_cidrs = [\"127.0.0.1/32\"]\n\n\
             [[trunk]]\nname = \"demo\"\nproxy = \"sip:{};transport=udp\"\n",
            self.http,
            self.sip,
            rtp + RTP_PORTS,
            folder("sounds"),
            folder("recordings"),
            self.far_end,
        )
    }

    fn config(&self) -> PathBuf {
        self.folder.join("trunkline.toml")
    }

    /// Where the far end writes its calls.
    pub(super) fn far_end_folder(&self) -> PathBuf {
        self.folder.join("far-end")
    }

    /// The demo's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the far end and waits until it answers.
    pub(super) async fn start_far_end(&mut self) -> Result<SocketAddr, Failure> {
        let mut command = self.trunkline()?;
        command
            .args(["carrier", "--listen", &self.far_end.to_string(), "--record"])
            .arg(self.far_end_folder());
        self.start(command)?;
        let setup = |error: io::Error| Failure(format!("the far end cannot be asked: {error}"));
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(setup)?;
        let own = socket.local_addr().map_err(setup)?;
        for attempt in 0..TRIES {
            self.all_alive()?;
            // A port that nobody listens on yet is reported as an error by either call: asked again like silence.
            let sent =
                socket.send_to(options_request(own, self.far_end, attempt).as_bytes(), self.far_end).await;
            let mut answer = [0; 2048];
            match tokio::time::timeout(PATIENCE, socket.recv_from(&mut answer)).await {
                Ok(Ok((length, _))) if answer[..length].starts_with(b"SIP/2.0 200") => {
                    return Ok(self.far_end);
                }
                Ok(Err(_)) => tokio::time::sleep(PATIENCE / 4).await,
                Ok(Ok(_)) | Err(_) => drop(sent),
            }
        }
        Err(Failure("the far end does not answer OPTIONS".into()))
    }

    /// Starts the server and waits until it is healthy.
    pub(super) async fn start_server(&mut self, http: &reqwest::Client) -> Result<(), Failure> {
        let mut command = self.trunkline()?;
        command.args(["serve", "--config"]).arg(self.config());
        self.start(command)?;
        let health = format!("http://{}/health", self.http);
        let mut last = String::new();
        for _ in 0..TRIES {
            self.all_alive()?;
            match http.get(&health).send().await {
                Ok(answer) if answer.status() == 200 => {
                    let body: Value = answer.json().await.unwrap_or_default();
                    if body.get("status").and_then(Value::as_str) == Some("healthy") {
                        return Ok(());
                    }
                    last = body.to_string();
                }
                Ok(answer) => last = format!("HTTP {}", answer.status()),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(PATIENCE / 2).await;
        }
        Err(Failure(format!("the server does not become healthy: {last}")))
    }

    /// Runs `trunkline keys create`, and gives what it printed.
    pub(super) async fn create_key(&self, credits: i64) -> Result<Value, Failure> {
        let mut command = self.trunkline()?;
        command.args([
            "keys",
            "create",
            "demo",
            "--trunks",
            "all",
            "--json",
            "--credits",
            &credits.to_string(),
        ]);
        command.arg("--config").arg(self.config()).stdin(Stdio::null());
        let output = command.output().await.map_err(|error| Failure(format!("keys create: {error}")))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            Failure(format!("keys create printed no JSON ({}): {}", output.status, said.trim()))
        })
    }

    /// This binary, with nothing of the caller's environment that would change its settings.
    fn trunkline(&self) -> Result<Command, Failure> {
        let binary =
            std::env::current_exe().map_err(|error| Failure(format!("this program's own file: {error}")))?;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRUNKLINE_") {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.folder).env("NO_COLOR", "1").kill_on_drop(true);
        Ok(command)
    }

    fn start(&mut self, mut command: Command) -> Result<(), Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| Failure(format!("a process cannot be started: {error}")))?;
        if let Some(out) = child.stdout.take() {
            tokio::spawn(keep_lines(out, Arc::clone(&self.log)));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(keep_lines(err, Arc::clone(&self.log)));
        }
        self.children.push(child);
        Ok(())
    }

    fn all_alive(&mut self) -> Result<(), Failure> {
        let over = self.children.iter_mut().find_map(|child| child.try_wait().ok().flatten());
        over.map_or(Ok(()), |status| Err(Failure(format!("a process of the demo ended by itself: {status}"))))
    }

    /// Ends all processes.
    pub(super) async fn stop(&mut self) {
        for child in &mut self.children {
            // One that has ended already cannot be killed, which is just as well.
            let _ = child.kill().await;
        }
    }

    /// The last lines that the processes have logged.
    pub(super) fn last_log_lines(&self, count: usize) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().skip(log.len().saturating_sub(count)).cloned().collect()
    }

    /// Puts the call's recording where it stays: `./recordings` where that is a folder, else the folder for
    /// temporary files. `None` if neither can be written.
    pub(super) fn keep(&self, filename: &str, bytes: &[u8]) -> Option<PathBuf> {
        let here =
            std::env::current_dir().map(|here| here.join("recordings")).ok().filter(|folder| folder.is_dir());
        let places = here.into_iter().chain([std::env::temp_dir()]);
        places.map(|folder| folder.join(filename)).find(|path| std::fs::write(path, bytes).is_ok())
    }

    /// Removes the demo's folder.
    pub(super) fn clear(&self) {
        // What cannot be removed from the folder for temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn keep_lines(output: impl AsyncRead + Unpin, log: Log) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_back(line);
        if log.len() > LOG_MAX {
            log.pop_front();
        }
    }
}

/// A question that every SIP user agent answers (RFC 3261 §11).
fn options_request(own: SocketAddr, far_end: SocketAddr, attempt: u32) -> String {
    format!(
        "OPTIONS sip:{far_end} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKdemo{attempt};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:demo@{own}>;tag=demo{attempt}\r\nTo: <sip:{far_end}>\r\n\
         Call-ID: demo-{attempt}-{}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        own.port()
    )
}

//! `trunkline doctor` (CONTRACT 0.8): looks at everything that a server needs, one check after another, and says in
//! plain words what is well, what is doubtful and what is broken. A database or a folder that is not there yet is no
//! fault, for the server makes it; neither is made here. A database of an older version is brought up to date, as by
//! every command.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Config;
use crate::control::admission::LOCAL_KEY;
use crate::control::trunks::probe::probe;
use crate::model::Timestamp;
use crate::model::account::ApiKey;
use crate::store::backup::Saver;
use crate::store::{Db, StoreError, without_password};

/// Less free space than this is doubtful, bytes.
const FREE_MIN: u64 = 512 * 1024 * 1024;

/// How long a database or another server may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Check the configuration, the database, folders, sockets, trunks, voices and keys.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    Well,
    Doubtful,
    Broken,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    what: String,
    finding: Finding,
    detail: String,
}

#[derive(Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, what: &str, finding: Finding, detail: impl Into<String>) {
        self.0.push(Check { what: what.to_owned(), finding, detail: detail.into() });
    }

    fn well(&mut self, what: &str, detail: impl Into<String>) {
        self.add(what, Finding::Well, detail);
    }

    fn is_well(&self) -> bool {
        self.0.iter().all(|check| check.finding != Finding::Broken)
    }

    fn told(&self, json: bool) -> String {
        if json {
            let text = serde_json::json!({"ok": self.is_well(), "checks": self.0});
            return text.to_string();
        }
        let mut out = String::new();
        for Check { what, finding, detail } in &self.0 {
            let mark = match finding {
                Finding::Well => "well    ",
                Finding::Doubtful => "doubtful",
                Finding::Broken => "BROKEN  ",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{mark}  {what}: {detail}");
        }
        out.push_str(if self.is_well() { "All is well enough to serve." } else { "Something is broken." });
        out
    }
}

/// Looks at everything; whether nothing is broken, and what to print. `voices` is what there is to speak with, or why
/// there is nothing.
pub(super) async fn run(
    args: &DoctorArgs,
    config: &Config,
    voices: Result<String, String>,
    now: Timestamp,
) -> (bool, String) {
    let mut report = Report::default();
    report.well("configuration", "read, and every value makes sense");
    sockets(&mut report, config).await;
    folders(&mut report, config);
    match voices {
        Ok(name) => report.well("voice", name),
        Err(error) => report.add("voice", Finding::Broken, error),
    }
    database(&mut report, config, now).await;
    (report.is_well(), report.told(args.json))
}

/// What a report says where the configuration itself cannot be read.
pub fn unreadable(args: &DoctorArgs, error: &dyn std::error::Error) -> String {
    let mut report = Report::default();
    report.add("configuration", Finding::Broken, error.to_string());
    report.told(args.json)
}

/// Whether a server runs, or could.
async fn sockets(report: &mut Report, config: &Config) {
    let mut serving = false;
    for address in &config.http.listen {
        let what = format!("HTTP {address}");
        match TcpListener::bind(address).await {
            Ok(_) => report.well(&what, "free; no server runs here"),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let tls = !config.http.tls_cert.as_os_str().is_empty();
                match health(*address, tls).await {
                    Ok(said) => {
                        serving = true;
                        report.well(&what, format!("a server answers: {said}"));
                    }
                    Err(error) => {
                        report.add(&what, Finding::Broken, format!("taken by another program ({error})"));
                    }
                }
            }
            Err(error) => report.add(&what, Finding::Broken, format!("cannot be listened on: {error}")),
        }
    }
    let what = format!("SIP udp {}", config.sip.udp);
    match (UdpSocket::bind(config.sip.udp), serving) {
        (Ok(_), false) => report.well(&what, "free"),
        (Ok(_), true) => report.add(&what, Finding::Broken, "free, although a server answers HTTP"),
        (Err(_), true) => report.well(&what, "taken, by the server that answers HTTP"),
        (Err(error), false) => report.add(&what, Finding::Broken, format!("cannot be bound: {error}")),
    }
    let ports = u32::from(config.rtp.port_max - config.rtp.port_min).div_ceil(2);
    let calls = config.limits.max_calls;
    let enough = usize::try_from(ports).unwrap_or(usize::MAX) >= calls;
    let finding = if enough { Finding::Well } else { Finding::Doubtful };
    report.add("RTP ports", finding, format!("{ports} for at most {calls} calls"));
}

/// What a running server says of itself. Over TLS it is enough that somebody listens.
async fn health(address: SocketAddr, tls: bool) -> io::Result<String> {
    let asking = async {
        let mut address = address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        if tls {
            TcpStream::connect(address).await?;
            return Ok("it speaks TLS and was not asked further".to_owned());
        }
        let client = reqwest::Client::builder().no_proxy().build().map_err(io::Error::other)?;
        let answer = client.get(format!("http://{address}/health")).send().await.map_err(io::Error::other)?;
        let body: serde_json::Value = answer.json().await.map_err(io::Error::other)?;
        let status = body["status"].as_str().ok_or_else(|| io::Error::other("no trunkline"))?.to_owned();
        let problems = body["problems"].as_array().map_or(&[][..], Vec::as_slice);
        let problems: Vec<&str> = problems.iter().filter_map(serde_json::Value::as_str).collect();
        Ok(if problems.is_empty() { status } else { format!("{status}: {}", problems.join(", ")) })
    };
    tokio::time::timeout(WITHIN, asking).await.map_err(|_| io::Error::other("it does not answer"))?
}

fn folders(report: &mut Report, config: &Config) {
    for (what, folder, written) in
        [("recordings", &config.paths.recordings, true), ("sounds", &config.paths.sounds, false)]
    {
        match folder_is_well(folder, written) {
            Ok(free) => {
                let finding = if written && free < FREE_MIN { Finding::Doubtful } else { Finding::Well };
                let megabytes = free / (1024 * 1024);
                report.add(what, finding, format!("{}, {megabytes} MiB free", folder.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                report.well(what, format!("{} is not there yet; the server makes it", folder.display()));
            }
            Err(error) => report.add(what, Finding::Broken, format!("{}: {error}", folder.display())),
        }
    }
}

/// Free bytes of a folder that can be used.
fn folder_is_well(folder: &Path, written: bool) -> io::Result<u64> {
    if !std::fs::metadata(folder)?.is_dir() {
        return Err(io::Error::other("is no folder"));
    }
    if written {
        let probe = folder.join(format!(".doctor-{}", std::process::id()));
        std::fs::write(&probe, b"x")?;
        std::fs::remove_file(&probe)?;
    } else {
        std::fs::read_dir(folder)?;
    }
    media::driver::free_bytes(folder)
}

async fn database(report: &mut Report, config: &Config, now: Timestamp) {
    let url = &config.database.url;
    let shown = without_password(url);
    // Looked at without a change first: opening it for good would bring its schema up to date.
    if let Err(error) = tokio::time::timeout(WITHIN, Saver::open(url))
        .await
        .map_err(|_| "no answer".to_owned())
        .and_then(|opened| opened.map(drop).map_err(|error| error.to_string()))
    {
        let file = url.strip_prefix("sqlite://").map(|rest| rest.split('?').next().unwrap_or(rest));
        if file.is_some_and(|file| !Path::new(file).exists()) {
            report.well("database", format!("{shown} is not there yet; the server makes it"));
            report.add(
                "keys",
                Finding::Doubtful,
                "none yet: `trunkline keys create NAME --trunks all` makes one",
            );
        } else {
            report.add("database", Finding::Broken, format!("{shown}: {error}"));
        }
        return;
    }
    let opened = tokio::time::timeout(WITHIN, Db::open(url)).await;
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(error)) => return report.add("database", Finding::Broken, format!("{shown}: {error}")),
        Err(_) => return report.add("database", Finding::Broken, format!("{shown}: no answer")),
    };
    report.well("database", format!("{shown} answers"));
    if let Err(error) = rows(report, &db, now).await {
        report.add("database", Finding::Broken, error.to_string());
    }
    db.close().await;
}

async fn rows(report: &mut Report, db: &Db, now: Timestamp) -> Result<(), StoreError> {
    let keys = db.keys().await?;
    // The key that the server makes for itself serves nobody who was given one.
    let good = |key: &&ApiKey| {
        key.key_id != LOCAL_KEY && key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now)
    };
    let usable = keys.iter().filter(good);
    match usable.count() {
        0 => {
            report.add(
                "keys",
                Finding::Doubtful,
                "none: `trunkline keys create NAME --trunks all` makes one",
            );
        }
        usable => report.well("keys", format!("{usable} can be used")),
    }
    let trunks = db.trunks().await?;
    if trunks.is_empty() {
        let none = "none: `trunkline trunks add NAME --proxy sip:HOST` adds one";
        report.add("trunks", Finding::Doubtful, none);
    }
    for trunk in trunks {
        let what = format!("trunk {}", trunk.name);
        if !trunk.enabled {
            report.well(&what, "switched off");
            continue;
        }
        let found = probe(&trunk).await;
        report.add(&what, if found.alive { Finding::Well } else { Finding::Doubtful }, found.words);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_thing_is_enough() {
        let mut report = Report::default();
        report.well("a", "b");
        report.add("c", Finding::Doubtful, "d");
        assert!(report.is_well());
        assert!(report.told(false).contains("doubtful  c: d"));
        report.add("e", Finding::Broken, "f");
        assert!(!report.is_well());
        let told: serde_json::Value = serde_json::from_str(&report.told(true)).unwrap();
        assert_eq!(
            (told["ok"].as_bool(), told["checks"][2]["finding"].as_str()),
            (Some(false), Some("broken"))
        );
    }
}

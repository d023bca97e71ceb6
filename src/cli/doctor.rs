//! `trunkline doctor` (CONTRACT 0.8): looks at everything that a server needs, one check after another, and says in
//! plain words what is well, what is doubtful and what is broken. It changes nothing; a database or a folder that is
//! not there yet is no fault, for the server makes it.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Config;
use crate::model::Timestamp;
use crate::store::backup::Saver;
use crate::store::{Db, StoreError};

/// Less free space than this is doubtful, bytes.
const FREE_MIN: u64 = 512 * 1024 * 1024;

/// How long a trunk may take to answer.
const TRUNK_WITHIN: Duration = Duration::from_secs(3);

/// How long anything else may take.
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
    free_bytes(folder)
}

#[expect(unsafe_code, reason = "statvfs has no safe form in the standard library")]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends in NUL and the structure is the one statvfs fills in; it is read after success only.
    let stats = unsafe {
        if libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stats.assume_init()
    };
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

async fn database(report: &mut Report, config: &Config, now: Timestamp) {
    let url = &config.database.url;
    let shown = shown(url);
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
    let usable =
        keys.iter().filter(|key| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now));
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
        match options(&trunk.proxy).await {
            Ok(said) => report.well(&what, said),
            Err(error) => report.add(&what, Finding::Doubtful, error),
        }
    }
    Ok(())
}

/// Asks a trunk whether it is there (RFC 3261 §11). Any answer is one.
async fn options(proxy: &str) -> Result<String, String> {
    let (place, udp) = place(proxy);
    let found = tokio::time::timeout(WITHIN, tokio::net::lookup_host(&place)).await;
    let found = found.map_err(|_| format!("{place} is not resolved in time"))?;
    let address = found.map_err(|error| format!("{place} is not resolved: {error}"))?.next();
    let address = address.ok_or_else(|| format!("{place} has no address"))?;
    if !udp {
        let connected = tokio::time::timeout(TRUNK_WITHIN, TcpStream::connect(address)).await;
        let connected = connected.map_err(|_| format!("{address}: no connection in time"))?;
        return connected
            .map(|_| format!("{address} takes connections"))
            .map_err(|e| format!("{address}: {e}"));
    }
    let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let asking = async {
        let socket = tokio::net::UdpSocket::bind(local).await?;
        socket.connect(address).await?;
        let local = socket.local_addr()?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let token = format!("{:016x}", u64::from_be_bytes(random));
        let request = format!(
            "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{token};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:doctor@{local}>;tag={token}\r\nTo: <sip:{address}>\r\n\
             Call-ID: {token}\r\nCSeq: 1 OPTIONS\r\nContact: <sip:doctor@{local}>\r\nContent-Length: 0\r\n\r\n"
        );
        let mut datagram = [0; 2048];
        // UDP loses a packet now and then (RFC 3261 §17.1.2.2: T1 is 500 ms).
        for _ in 0..5 {
            socket.send(request.as_bytes()).await?;
            let read = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut datagram)).await;
            if let Ok(length) = read {
                let text = String::from_utf8_lossy(&datagram[..length?]).into_owned();
                return Ok(text.lines().next().unwrap_or_default().to_owned());
            }
        }
        Err(io::Error::other("no answer to OPTIONS"))
    };
    let answered = tokio::time::timeout(TRUNK_WITHIN, asking).await;
    match answered.unwrap_or_else(|_| Err(io::Error::other("no answer to OPTIONS"))) {
        Ok(line) => match line.strip_prefix("SIP/2.0 ") {
            Some(status) => Ok(format!("{address} answers {status}")),
            None => Err(format!("{address} answers something that is not SIP")),
        },
        Err(error) => Err(format!("{address}: {error}")),
    }
}

/// Host and port of a `sip:` URI, and whether it is spoken to over UDP.
fn place(proxy: &str) -> (String, bool) {
    let secure = proxy.starts_with("sips:");
    let rest = proxy.split_once(':').map_or(proxy, |(_, rest)| rest);
    let (place, parameters) = rest.split_once(';').unwrap_or((rest, ""));
    let transport = parameters.split(';').find_map(|parameter| parameter.strip_prefix("transport="));
    let transport = transport.map_or(if secure { "tls" } else { "udp" }.to_owned(), str::to_ascii_lowercase);
    let port = if transport == "tls" { 5061 } else { 5060 };
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let bare = place.starts_with('[') && place.ends_with(']');
    let place = if has_port && !bare { place.to_owned() } else { format!("{place}:{port}") };
    (place, transport == "udp")
}

/// A database's URL without its password.
fn shown(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // A URL that has a password can have another.
            let _ = parsed.set_password(Some("…"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let text = shown("postgres://user:hush@db.example/calls");
        assert!(text.starts_with("postgres://user:") && !text.contains("hush"), "{text}");
        assert_eq!(shown("sqlite://a.db"), "sqlite://a.db");
    }

    #[test]
    fn proxies_are_places() {
        for (proxy, expected) in [
            ("sip:127.0.0.1:5070;transport=udp", ("127.0.0.1:5070", true)),
            ("sip:carrier.example", ("carrier.example:5060", true)),
            ("sip:[::1]", ("[::1]:5060", true)),
            ("sip:[::1]:5071;transport=TCP", ("[::1]:5071", false)),
            ("sip:carrier.example;transport=tls", ("carrier.example:5061", false)),
        ] {
            assert_eq!(place(proxy), (expected.0.to_owned(), expected.1), "{proxy}");
        }
    }

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

    #[tokio::test]
    async fn a_trunk_is_asked() {
        let there = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("sip:{};transport=udp", there.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let mut datagram = [0; 2048];
            let (length, from) = there.recv_from(&mut datagram).await.unwrap();
            assert!(datagram[..length].starts_with(b"OPTIONS sip:"));
            there.send_to(b"SIP/2.0 404 Not Found\r\n\r\n", from).await.unwrap();
        });
        assert!(options(&proxy).await.unwrap().ends_with(" answers 404 Not Found"));
        answering.await.unwrap();
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("sip:{}", silent.local_addr().unwrap());
        assert!(options(&proxy).await.unwrap_err().ends_with("no answer to OPTIONS"));
    }
}

//! Every setting and every limit, with its default and its unit last in the name. The only room that knows the
//! environment ([`load`]). An unknown setting is an error that names it.

pub mod load;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::model::Secret;

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP.
    pub http: Http,
    /// SIP.
    pub sip: Sip,
    /// RTP.
    pub rtp: Rtp,
    /// Database.
    pub database: Database,
    /// Folders.
    pub paths: Paths,
    /// Outgoing webhooks.
    pub webhooks: Webhooks,
    /// Rate windows.
    pub ratelimit: RateLimit,
    /// Bounds of everything.
    pub limits: Limits,
    /// Answering-machine detection.
    pub amd: Amd,
    /// Voices.
    pub speech: Speech,
    /// Trunks that are upserted at start.
    pub trunk: Vec<TrunkConfig>,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// One address.
    pub listen: SocketAddr,
    /// Peers whose `X-Forwarded-For` is believed (CIDRs).
    pub trusted_proxies: Vec<String>,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
}

/// `[sip]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    /// The UDP socket.
    pub udp: SocketAddr,
    /// What others are told to send to (Via, Contact); empty: the interface that routes to the trunk.
    pub external_address: String,
}

/// `[rtp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtp {
    /// Sockets are bound here.
    pub bind: IpAddr,
    /// First port, even.
    pub port_min: u16,
    /// Last port.
    pub port_max: u16,
    /// What the SDP says; empty: the interface that routes to the trunk.
    pub external_address: String,
    /// Media threads; 0: one per core.
    pub workers: usize,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite://FILE`.
    pub url: String,
}

/// `[paths]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Sound files.
    pub sounds: PathBuf,
    /// Recordings.
    pub recordings: PathBuf,
}

/// `[webhooks]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Permit `http://`.
    pub allow_http: bool,
    /// Networks that the guard lets through although they are private.
    pub allow_cidrs: Vec<String>,
    /// Multiplies every retry delay.
    pub time_scale: f64,
    /// A DNS server's address, else the system's.
    pub resolver: String,
    /// Deliveries under way at once.
    pub max_concurrent: usize,
    /// Of these to one host.
    pub max_concurrent_per_host: usize,
}

/// `[ratelimit]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Kaphila's window, seconds.
    pub kaphila_window_s: u64,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Live calls of the whole engine.
    pub max_calls: usize,
    /// Longest call, seconds.
    pub max_call_duration_s: u32,
    /// Without RTP for this long an answered call ends, seconds.
    pub media_timeout_s: u32,
    /// Requests a second by one key, whatever the route.
    pub requests_per_second_per_key: u32,
    /// Playbacks queued on one call.
    pub playback_queue_max: usize,
    /// How long SIGTERM waits for calls, seconds.
    pub drain_s: u32,
    /// Events the journal may be behind before new calls are refused.
    pub journal_lag_max: usize,
}

/// `[amd]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amd {
    /// Verdict on initial silence: `machine`, `human` or `unknown`.
    pub initial_silence: String,
}

/// `[speech]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Speech {
    /// Tried in order: `embedded`, `espeak`, `flite`.
    pub tts: Vec<String>,
    /// Prompt cache in memory, bytes.
    pub cache_bytes: usize,
}

/// `[[trunk]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrunkConfig {
    /// Name.
    pub name: String,
    /// `sip:host[:port][;transport=udp]`.
    pub proxy: String,
    /// Digest user.
    pub username: String,
    /// Digest password.
    #[serde(deserialize_with = "load::secret")]
    pub password: Secret,
    /// Before the number.
    pub dial_prefix: String,
    /// Default caller id.
    pub caller_id: String,
    /// SDP names in order.
    pub codecs: Vec<String>,
    /// No response in this time: next trunk, milliseconds.
    pub no_response_timeout_ms: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            trusted_proxies: Vec::new(),
            max_body_bytes: 256 * 1024,
        }
    }
}

impl Default for Sip {
    fn default() -> Self {
        Self { udp: SocketAddr::from(([0, 0, 0, 0], 5060)), external_address: String::new() }
    }
}

impl Default for Rtp {
    fn default() -> Self {
        let bind = IpAddr::from([0, 0, 0, 0]);
        Self { bind, port_min: 10_000, port_max: 20_000, external_address: String::new(), workers: 0 }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: "sqlite://trunkline.db".into() }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { sounds: "sounds".into(), recordings: "recordings".into() }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            allow_http: false,
            allow_cidrs: Vec::new(),
            time_scale: 1.0,
            resolver: String::new(),
            max_concurrent: 512,
            max_concurrent_per_host: 16,
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { kaphila_window_s: 3600 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_calls: 2000,
            max_call_duration_s: 3600,
            media_timeout_s: 30,
            requests_per_second_per_key: 500,
            playback_queue_max: 20,
            drain_s: 30,
            journal_lag_max: 20_000,
        }
    }
}

impl Default for Amd {
    fn default() -> Self {
        Self { initial_silence: "machine".into() }
    }
}

impl Default for Speech {
    fn default() -> Self {
        Self { tts: vec!["embedded".into()], cache_bytes: 64 * 1024 * 1024 }
    }
}

impl Default for TrunkConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            proxy: String::new(),
            username: String::new(),
            password: Secret::default(),
            dial_prefix: "00".into(),
            caller_id: String::new(),
            codecs: vec!["PCMU".into(), "PCMA".into()],
            no_response_timeout_ms: 2000,
        }
    }
}

//! Every setting and every limit, with its default and its unit last in the name. The only room that knows the
//! environment ([`load`]). An unknown setting is an error that names it.

pub mod load;
mod metrics;
pub mod speech;
pub mod trunk;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::model::Secret;

pub use metrics::Metrics;
pub use speech::{Llm, Speech};

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
    /// What becomes of recordings.
    pub recordings: Recordings,
    /// Outgoing webhooks.
    pub webhooks: Webhooks,
    /// Rate windows.
    pub ratelimit: RateLimit,
    /// Who may seem to call.
    pub callerid: CallerIds,
    /// Bounds of everything.
    pub limits: Limits,
    /// What keys of each plan may do on VoxForge.
    pub plans: Plans,
    /// Agents' ways.
    pub agent: Agent,
    /// Twilio's platform as a peer.
    pub twilio: Twilio,
    /// Answering-machine detection.
    pub amd: Amd,
    /// Voices and recognisers.
    pub speech: Speech,
    /// The language model.
    pub llm: Llm,
    /// Who may use Claude Phone without a key.
    pub claude_phone: ClaudePhone,
    /// The server's figures.
    pub metrics: Metrics,
    /// Who may tell of calls elsewhere.
    pub hamming: Hamming,
    /// Trunks that are upserted at start.
    pub trunk: Vec<TrunkConfig>,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// One address or several.
    pub listen: Vec<SocketAddr>,
    /// The certificate chain (PEM); with it, HTTPS is spoken instead of HTTP.
    pub tls_cert: PathBuf,
    /// Its private key (PEM).
    pub tls_key: PathBuf,
    /// Connections at once.
    pub max_connections: u32,
    /// From a request's first byte to the end of its head, seconds.
    pub header_timeout_s: u32,
    /// How long a connection may idle between requests, seconds.
    pub idle_timeout_s: u32,
    /// Peers whose `X-Forwarded-For` is believed (CIDRs).
    pub trusted_proxies: Vec<String>,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
}

/// `[sip]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    /// The UDP socket. `[::]` takes IPv4 as well.
    pub udp: SocketAddr,
    /// Where TCP connections are accepted; empty: nowhere.
    pub tcp: String,
    /// Where TLS connections are accepted; empty: nowhere.
    pub tls: String,
    /// Our certificate with its chain, PEM. Needed for `tls`; shown to carriers that ask for one.
    pub tls_cert: PathBuf,
    /// Its private key, PEM.
    pub tls_key: PathBuf,
    /// The authorities whose certificates are believed, PEM; empty: those of the system.
    pub tls_ca: PathBuf,
    /// What others are told to send to (Via, Contact); empty: the interface that routes to the trunk.
    pub external_address: String,
    /// The same for IPv6 trunks, where `udp` is `[::]`; empty: likewise.
    pub external_ipv6: String,
    /// Networks (CIDR) whose hosts are told our own address whatever the external ones are, for SIP and RTP.
    pub local_nets: Vec<String>,
    /// Callers who must log in are offered SHA-256 beside MD5. A few old telephones give up at the sight of it.
    pub inbound_sha256: bool,
    /// A DNS server's address for the names of trunks, else the system's.
    pub resolver: String,
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
    /// `sqlite://FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`.
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

/// `[recordings]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recordings {
    /// Days that they are kept where their key says nothing; 0: for ever.
    pub retention_days: u32,
    /// No recording begins on a disk with less room, bytes.
    pub min_free_bytes: u64,
    /// What links to recordings begin with, e.g. `https://calls.example.com`; empty: the host that was asked.
    pub link_base: String,
    /// Where they are uploaded to.
    pub upload: Upload,
}

/// `[recordings.upload]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upload {
    /// `s3://BUCKET[/PREFIX]` or `file:///FOLDER`; empty: nowhere.
    pub url: String,
    /// An S3 server's own address; empty: Amazon's.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// Access key id.
    #[serde(deserialize_with = "load::secret")]
    pub access_key: Secret,
    /// Secret access key.
    #[serde(deserialize_with = "load::secret")]
    pub secret_key: Secret,
    /// Delete the file here once it lies there.
    pub delete_local: bool,
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
    /// Days that deliveries and events are kept after their call's end; 0: for ever.
    pub keep_days: u32,
}

/// `[ratelimit]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Kaphila's window, seconds.
    pub kaphila_window_s: u64,
    /// Requests of one key to Phony in any 60 s.
    pub phony_per_minute: u32,
    /// The same in any hour.
    pub phony_per_hour: u32,
}

/// `[callerid]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallerIds {
    /// A caller id that a request names must be a number of the key's tenant or on the key's list.
    pub enforce: bool,
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
    /// Frames that may wait for the reader of a WebSocket.
    pub ws_queue_frames: usize,
    /// Playbacks queued on one call.
    pub playback_queue_max: usize,
    /// How long SIGTERM waits for calls, seconds.
    pub drain_s: u32,
    /// Events the journal may be behind before new calls are refused.
    pub journal_lag_max: usize,
    /// How long five faults in a row keep calls from a trunk, seconds.
    pub trunk_bench_s: u32,
}

/// `[plans]` (CONTRACT 0.8). What a plan does not say is as it is by default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plans {
    /// `[plans.starter]`
    pub starter: Plan,
    /// `[plans.professional]`
    pub professional: Plan,
    /// `[plans.business]`
    pub business: Plan,
    /// `[plans.enterprise]`
    pub enterprise: Plan,
}

/// One plan; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Requests of one key in a window of 60 s.
    pub requests_per_minute: Option<u32>,
    /// Agents of one tenant.
    pub max_agents: Option<u32>,
    /// Live calls of one key.
    pub max_concurrent_calls: Option<u32>,
}

/// What a plan allows; `None`: anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Requests of one key in a window of 60 s.
    pub requests_per_minute: Option<u32>,
    /// Agents of one tenant.
    pub max_agents: Option<u32>,
    /// Live calls of one key.
    pub max_concurrent_calls: Option<u32>,
}

impl Default for Plans {
    fn default() -> Self {
        let plan = |requests_per_minute, max_agents, max_concurrent_calls| Plan {
            requests_per_minute: Some(requests_per_minute),
            max_agents: Some(max_agents),
            max_concurrent_calls: Some(max_concurrent_calls),
        };
        Self {
            starter: plan(60, 3, 2),
            professional: plan(300, 10, 10),
            business: plan(600, 50, 50),
            enterprise: plan(0, 0, 0),
        }
    }
}

impl Plans {
    /// What the plan of this name allows. A plan that nobody knows allows what the smallest does.
    pub fn limits(&self, plan: &str) -> PlanLimits {
        let (set, [requests, agents, calls]) = match plan {
            "enterprise" => (self.enterprise, [0, 0, 0]),
            "business" => (self.business, [600, 50, 50]),
            "professional" => (self.professional, [300, 10, 10]),
            _ => (self.starter, [60, 3, 2]),
        };
        let limit = |set: Option<u32>, own: u32| Some(set.unwrap_or(own)).filter(|most| *most > 0);
        PlanLimits {
            requests_per_minute: limit(set.requests_per_minute, requests),
            max_agents: limit(set.max_agents, agents),
            max_concurrent_calls: limit(set.max_concurrent_calls, calls),
        }
    }
}

/// `[twilio]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Twilio {
    /// Checks who connects to `/relay/ws`, and signs where we connect to an application; empty: neither.
    #[serde(deserialize_with = "load::secret")]
    pub auth_token: Secret,
}

/// `[agent]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Nobody speaks for so long, seconds: one silence.
    pub silence_s: u32,
    /// So many silences in a row end the call.
    pub silence_repeats: u8,
    /// Said where an agent has nothing of its own to say.
    pub fallback_text: String,
    /// Said after a silence that does not end the call yet.
    pub nudge_text: String,
    /// Said when a call has lasted as long as it may.
    pub farewell_text: String,
    /// Conversations are summed up by the language model when they are over.
    pub analysis: bool,
}

/// `[amd]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amd {
    /// Verdict on initial silence: `machine`, `human` or `unknown`.
    pub initial_silence: String,
}

/// `[claude_phone]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaudePhone {
    /// Its routes are served.
    pub enabled: bool,
    /// Peers that need no key, beside this machine's own programs (CIDRs).
    pub allow_cidrs: Vec<String>,
    /// Names of this server that requests without a key may be sent to, beside `localhost` and addresses.
    pub allow_hosts: Vec<String>,
}

/// `[hamming]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hamming {
    /// The `whsec_…` that signs what comes to `/webhook/callback`; empty: none.
    #[serde(deserialize_with = "load::secret")]
    pub callback_secret: Secret,
    /// Where the recordings are that callbacks tell of: `BASE/media/exercise?id=…`; empty: they are not fetched.
    pub recordings_base: String,
    /// The key that is shown there.
    #[serde(deserialize_with = "load::secret")]
    pub recordings_key: Secret,
}

/// `[[trunk]]`
#[derive(Clone, Debug, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(rename_all = "camelCase")]
pub struct TrunkConfig {
    /// Name.
    pub name: String,
    /// `sip:host[:port][;transport=udp]`.
    pub proxy: String,
    /// Digest user.
    pub username: String,
    /// Digest password.
    #[serde(deserialize_with = "load::secret")]
    #[schema(value_type = String, default = "")]
    pub password: Secret,
    /// Before the number.
    pub dial_prefix: String,
    /// Default caller id.
    pub caller_id: String,
    /// SDP names in order.
    pub codecs: Vec<String>,
    /// No response in this time: next trunk, milliseconds.
    pub no_response_timeout_ms: u32,
    /// Calls at once; 0: no limit.
    pub max_calls: u32,
    /// INVITEs in any second; 0: no limit.
    pub calls_per_second: u32,
    /// Further networks of the carrier's signalling (CIDRs).
    pub source_cidrs: Vec<String>,
    /// Keep a registration at the proxy.
    pub register: bool,
    /// Lifetime asked for, seconds.
    pub register_expires_s: u32,
    /// Calls that come in must show the trunk's credentials.
    pub auth_inbound: bool,
    /// Encryption of the sound: `never` is all there is.
    pub srtp: String,
    /// How digits travel: `auto`, `rfc4733`, `info` or `inband`.
    pub dtmf: String,
    /// How the callee's number is written: `prefix`, `e164`, `plus` or a template.
    pub number_format: String,
    /// The trunk's country code, for `{national}`.
    pub country_code: String,
    /// How the caller's number is written: likewise; empty: as given.
    pub caller_id_format: String,
    /// User part of From in place of the caller id.
    pub from_user: String,
    /// Host of From in place of our address.
    pub from_domain: String,
    /// Headers that tell who calls: `pai`, `ppi`, `rpid`.
    pub identity: Vec<String>,
    /// Number in a Diversion header.
    pub diversion: String,
    /// Lower comes first for keys of that policy.
    pub priority: u32,
    /// Share of first places for keys of that policy.
    pub weight: u32,
    /// What Via and Contact say to this trunk; empty: as `sip.external_address`.
    pub external_address: String,
    /// What the SDP says to this trunk; empty: as `rtp.external_address`.
    pub media_address: String,
    /// Follow a 3xx to hosts of the trunk's own networks.
    pub allow_redirects: bool,
    /// Seconds between OPTIONS; 0: none.
    pub options_interval_s: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 3000))],
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            max_connections: 4096,
            header_timeout_s: 10,
            idle_timeout_s: 75,
            trusted_proxies: Vec::new(),
            max_body_bytes: 256 * 1024,
        }
    }
}

impl Default for Sip {
    fn default() -> Self {
        Self {
            udp: SocketAddr::from(([0, 0, 0, 0], 5060)),
            tcp: String::new(),
            tls: String::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_ca: PathBuf::new(),
            external_address: String::new(),
            external_ipv6: String::new(),
            local_nets: Vec::new(),
            inbound_sha256: true,
            resolver: String::new(),
        }
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

impl Default for Recordings {
    fn default() -> Self {
        let min_free_bytes = 256 * 1024 * 1024;
        Self { retention_days: 30, min_free_bytes, link_base: String::new(), upload: Upload::default() }
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
            keep_days: 30,
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { kaphila_window_s: 3600, phony_per_minute: 50, phony_per_hour: 1000 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_calls: 2000,
            max_call_duration_s: 3600,
            media_timeout_s: 30,
            requests_per_second_per_key: 500,
            ws_queue_frames: 1000,
            playback_queue_max: 20,
            drain_s: 30,
            journal_lag_max: 20_000,
            trunk_bench_s: 30,
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        let fallback_text = "I am sorry, I cannot help with that right now.".to_owned();
        let nudge_text = "Are you still there?".to_owned();
        let farewell_text = "I am sorry, our time is up. Goodbye.".to_owned();
        Self { silence_s: 30, silence_repeats: 2, fallback_text, nudge_text, farewell_text, analysis: true }
    }
}

impl Default for Amd {
    fn default() -> Self {
        Self { initial_silence: "machine".into() }
    }
}

impl Default for ClaudePhone {
    fn default() -> Self {
        Self { enabled: true, allow_cidrs: Vec::new(), allow_hosts: Vec::new() }
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
            max_calls: 0,
            calls_per_second: 0,
            source_cidrs: Vec::new(),
            register: false,
            register_expires_s: 300,
            auth_inbound: false,
            srtp: "never".into(),
            dtmf: "auto".into(),
            number_format: "prefix".into(),
            country_code: String::new(),
            caller_id_format: String::new(),
            from_user: String::new(),
            from_domain: String::new(),
            identity: Vec::new(),
            diversion: String::new(),
            priority: 0,
            weight: 1,
            external_address: String::new(),
            media_address: String::new(),
            allow_redirects: false,
            options_interval_s: 0,
        }
    }
}

//! Who pays, and by what trunks: the rows that keys, tenants and trunks are read into.

use super::trunk::TrunkProfile;
use super::{CallerId, Secret, Timestamp};

/// Whether a key's calls are recorded (CONTRACT 3 S1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingMode {
    /// Each call.
    Always,
    /// None.
    Off,
    /// Where the request says `record: true`.
    OnRequest,
}

impl RecordingMode {
    /// The word of the command line and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Off => "off",
            Self::OnRequest => "on_request",
        }
    }

    /// Reads [`RecordingMode::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Always, Self::Off, Self::OnRequest].into_iter().find(|m| m.as_str() == text)
    }
}

/// What a key's calls may cost and where they may go (CONTRACT 3 S42). The default closes premium-rate and emergency
/// numbers and limits nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Country calling codes, or longer leading digits, of the numbers it may call; empty: any.
    pub countries: Vec<String>,
    /// It may call premium-rate numbers.
    pub premium: bool,
    /// It may call emergency numbers.
    pub emergency: bool,
    /// Credits that its calls of one UTC day may take; `None`: as many as there are.
    pub daily_credits: Option<u32>,
    /// Calls it may place in any 60 s; `None`: no limit.
    pub calls_per_minute: Option<u32>,
}

/// One API key as the server sees it; the key itself is stored only as a hash.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    /// Row id, the `id` of `/api/me`.
    pub id: i64,
    /// `key_` and ten hex digits.
    pub key_id: String,
    /// Given by the operator.
    pub name: String,
    /// The owner.
    pub tenant: String,
    /// The tenant is suspended: the key is good and may do nothing.
    pub suspended: bool,
    /// Live calls at once of all the tenant's keys together; `None`: no limit.
    pub tenant_calls: Option<u32>,
    /// The first characters of the key itself, for telling keys apart.
    pub prefix: String,
    /// What it may do: words of CONTRACT 0.2.
    pub scopes: Vec<String>,
    /// Surfaces that are enabled for it, by name; empty: all.
    pub surfaces: Vec<String>,
    /// CIDRs it may come from; empty: anywhere.
    pub ip_allow: Vec<String>,
    /// Balance, `None` for unlimited. Holds are not subtracted.
    pub credits: Option<i64>,
    /// Credits held by calls not yet answered.
    pub held: i64,
    /// Requests an hour on Kaphila's six routes; `None`: 100.
    pub rate_limit: Option<u32>,
    /// `starter`, `professional`, `business` or `enterprise`.
    pub plan: String,
    /// Live calls at once.
    pub max_concurrent: u32,
    /// What its calls may cost and where they may go.
    pub policy: Policy,
    /// Record its calls.
    pub recording: RecordingMode,
    /// Days that its recordings are kept, 0 for ever; `None`: as the configuration says.
    pub keep_days: Option<u32>,
    /// Caller ids it may show; empty: any.
    pub caller_ids: Vec<CallerId>,
    /// `whsec_…`, the secret of its per-call webhooks.
    pub webhook_secret: Secret,
    /// Calls placed.
    pub total_calls: i64,
    /// Calls answered and completed.
    pub successful_calls: i64,
    /// Made.
    pub created_at: Timestamp,
    /// Last accepted request.
    pub last_used: Option<Timestamp>,
    /// Not accepted from here on.
    pub expires_at: Option<Timestamp>,
    /// No longer accepted from here on.
    pub revoked_at: Option<Timestamp>,
}

/// A carrier that calls are dialled through.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// Row id.
    pub id: i64,
    /// The operator's name for it; customers see `<name>-endpoint`.
    pub name: String,
    /// `sip:host[:port][;transport=udp]`.
    pub proxy: String,
    /// Digest user; empty: none.
    pub username: String,
    /// Digest password.
    pub password: Secret,
    /// Put before the number.
    pub dial_prefix: String,
    /// Shown where the call has no caller id.
    pub caller_id: Option<CallerId>,
    /// SDP names in order.
    pub codecs: Vec<String>,
    /// No response in this time: next trunk.
    pub no_response_timeout_ms: u32,
    /// How it wants to be dialled.
    pub profile: TrunkProfile,
    /// May be used.
    pub enabled: bool,
}

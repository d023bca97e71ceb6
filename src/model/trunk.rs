//! How a trunk wants to be dialled, beyond its address and password: limits, number formats, identity, preference,
//! health checks. Plain values with the few pure questions that they answer; whether a text may become one of them
//! is decided where it is read. Knows no SIP message and no clock.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::call::Hop;
use super::cidr::Cidr;
use super::{CallerId, PhoneNumber, Secret};

/// What became of a trunk apart from any call: its registration (RFC 3261 §10) and the OPTIONS that ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrunkNews {
    /// The registrar took us for this many seconds.
    Registered {
        /// Seconds from now.
        for_s: u32,
    },
    /// The registrar did not take us.
    RegisterFailed {
        /// Its status; 0: none came.
        code: u16,
        /// Its phrase, or our own words.
        reason: String,
        /// Seconds until the next try.
        again_in_s: u32,
    },
    /// We have left the registrar.
    Unregistered,
    /// OPTIONS was answered, whatever the status: the trunk is there.
    Pinged {
        /// The status.
        code: u16,
        /// How long it took.
        elapsed_ms: u32,
    },
    /// OPTIONS was not answered.
    PingMissed,
}

/// A trunk that is registered at, or asked for now and then, while it carries no call.
#[derive(Clone, Debug, PartialEq)]
pub struct TrunkWatch {
    /// `<name>-endpoint`.
    pub endpoint: String,
    /// Host of the request URI.
    pub host: String,
    /// Its port, where one was configured.
    pub port: Option<u16>,
    /// Where requests go.
    pub hop: Hop,
    /// Digest user.
    pub username: String,
    /// Digest password.
    pub password: Secret,
    /// Keep a registration.
    pub register: bool,
    /// Lifetime asked for, seconds.
    pub register_expires_s: u32,
    /// Seconds between OPTIONS; 0: none.
    pub options_interval_s: u32,
    /// What Via and Contact say to it; `None`: as for all.
    pub external_address: Option<IpAddr>,
}

/// How digits travel on a trunk (CONTRACT 0.8 `dtmf`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtmf {
    /// RFC 4733 is offered; what comes by any way is heard, one press once.
    #[default]
    Auto,
    /// RFC 4733 alone: tones in the audio and SIP INFO mean nothing.
    Rfc4733,
    /// SIP INFO alone; no telephone-event is offered.
    Info,
    /// Tones in the audio alone; no telephone-event is offered.
    Inband,
}

/// Every [`Dtmf`] with its word.
pub const DTMF_WORDS: &[(Dtmf, &str)] =
    &[(Dtmf::Auto, "auto"), (Dtmf::Rfc4733, "rfc4733"), (Dtmf::Info, "info"), (Dtmf::Inband, "inband")];

impl Dtmf {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        DTMF_WORDS.iter().find(|(dtmf, _)| *dtmf == self).map_or("auto", |(_, word)| word)
    }

    /// Reads [`Dtmf::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        DTMF_WORDS.iter().find(|(_, word)| *word == text).map(|(dtmf, _)| *dtmf)
    }
}

/// Whether sound is encrypted on a trunk, by SRTP with keys in the session description (CONTRACT 0.8 `srtp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Srtp {
    /// It is not.
    #[default]
    Never,
    /// Where the far end can.
    Optional,
    /// Always; a call that cannot be is given up.
    Required,
}

/// Every [`Srtp`] with its word.
pub const SRTP_WORDS: &[(Srtp, &str)] =
    &[(Srtp::Never, "never"), (Srtp::Optional, "optional"), (Srtp::Required, "required")];

impl Srtp {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        SRTP_WORDS.iter().find(|(srtp, _)| *srtp == self).map_or("never", |(_, word)| word)
    }

    /// Reads [`Srtp::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        SRTP_WORDS.iter().find(|(_, word)| *word == text).map(|(srtp, _)| *srtp)
    }
}

/// A header that tells the trunk who calls, beside From.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// `P-Asserted-Identity` (RFC 3325 §9.1).
    Pai,
    /// `P-Preferred-Identity` (RFC 3325 §9.2).
    Ppi,
    /// `Remote-Party-ID`, the draft that older switches read.
    Rpid,
}

/// Every [`Identity`] with its word.
pub const IDENTITY_WORDS: &[(Identity, &str)] =
    &[(Identity::Pai, "pai"), (Identity::Ppi, "ppi"), (Identity::Rpid, "rpid")];

impl Identity {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        IDENTITY_WORDS.iter().find(|(identity, _)| *identity == self).map_or("pai", |(_, word)| word)
    }

    /// Reads [`Identity::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        IDENTITY_WORDS.iter().find(|(_, word)| *word == text).map(|(identity, _)| *identity)
    }
}

/// Which of a key's trunks comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each call starts one trunk further (CONTRACT 1.1).
    #[default]
    RoundRobin,
    /// The lowest `priority` first; equals take turns.
    Priority,
    /// First places in proportion to `weight`; a weight of 0 is for fail-over only.
    Weighted,
}

/// Every [`Policy`] with its word.
pub const POLICY_WORDS: &[(Policy, &str)] =
    &[(Policy::RoundRobin, "round_robin"), (Policy::Priority, "priority"), (Policy::Weighted, "weighted")];

impl Policy {
    /// The word of the command line and the database.
    pub fn as_str(self) -> &'static str {
        POLICY_WORDS.iter().find(|(policy, _)| *policy == self).map_or("round_robin", |(_, word)| word)
    }

    /// Reads [`Policy::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        POLICY_WORDS.iter().find(|(_, word)| *word == text).map(|(policy, _)| *policy)
    }
}

/// How a trunk writes numbers, in one of three words or a template: `prefix` is the dial prefix and the digits in
/// international form, `e164` the bare digits, `plus` these with a plus. A template holds `{number}` (international
/// digits) or `{national}` (without `country_code`); a number of another country falls back to `prefix` then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NumberFormat(String);

impl Default for NumberFormat {
    fn default() -> Self {
        Self("prefix".to_owned())
    }
}

impl NumberFormat {
    /// Reads the setting; empty means `prefix`. Templates hold one place and at most 16 of `0-9 + * #` beside it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text.is_empty() { "prefix" } else { text };
        let word = matches!(text, "prefix" | "e164" | "plus");
        let frame = text.replacen("{number}", "", 1);
        let frame = if frame.len() == text.len() { text.replacen("{national}", "", 1) } else { frame };
        let template = frame.len() < text.len()
            && frame.len() <= 16
            && frame.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b));
        (word || template).then(|| Self(text.to_owned()))
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a country code is needed to apply it.
    pub fn is_national(&self) -> bool {
        self.0.contains("{national}")
    }

    /// The user part for international digits.
    pub fn apply(&self, digits: &str, dial_prefix: &str, country_code: &str) -> String {
        match self.0.as_str() {
            "e164" => digits.to_owned(),
            "plus" => format!("+{digits}"),
            template if template.contains("{number}") => template.replacen("{number}", digits, 1),
            template if self.is_national() => match digits.strip_prefix(country_code) {
                Some(national) if !country_code.is_empty() => template.replacen("{national}", national, 1),
                _ => format!("{dial_prefix}{digits}"),
            },
            _ => format!("{dial_prefix}{digits}"),
        }
    }
}

/// Everything about a trunk that is not its address, its password or its codecs. Stored as one JSON text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrunkProfile {
    /// Calls at once; 0: no limit.
    pub max_calls: u32,
    /// INVITEs in any second; 0: no limit.
    pub calls_per_second: u32,
    /// Further networks of the carrier's signalling, beside the proxy's addresses.
    pub source_cidrs: Vec<String>,
    /// Keep a registration at the proxy.
    pub register: bool,
    /// Lifetime asked for, seconds.
    pub register_expires_s: u32,
    /// Calls that come in must show the trunk's credentials.
    pub auth_inbound: bool,
    /// Whether sound is encrypted.
    pub srtp: Srtp,
    /// How digits travel.
    pub dtmf: Dtmf,
    /// How the callee's number is written.
    pub number_format: NumberFormat,
    /// The trunk's country, for national forms; empty: none.
    pub country_code: String,
    /// How the caller's number is written; `None`: as it was given.
    pub caller_id_format: Option<NumberFormat>,
    /// User part of From in place of the caller id, which then stands in the identity headers.
    pub from_user: String,
    /// Host of From in place of our address.
    pub from_domain: String,
    /// Headers that tell who calls.
    pub identity: Vec<Identity>,
    /// Number in a `Diversion` header (RFC 5806) with the reason `unconditional`; empty: none.
    pub diversion: String,
    /// Lower comes first with [`Policy::Priority`].
    pub priority: u32,
    /// Share of first places with [`Policy::Weighted`].
    pub weight: u32,
    /// What Via and Contact say to this trunk; `None`: as for all.
    pub external_address: Option<IpAddr>,
    /// What the session description says to this trunk; `None`: as for all.
    pub media_address: Option<IpAddr>,
    /// Follow a 3xx to hosts of the trunk's own networks.
    pub allow_redirects: bool,
    /// Seconds between OPTIONS; 0: none.
    pub options_interval_s: u32,
}

impl Default for TrunkProfile {
    fn default() -> Self {
        Self {
            max_calls: 0,
            calls_per_second: 0,
            source_cidrs: Vec::new(),
            register: false,
            register_expires_s: 300,
            auth_inbound: false,
            srtp: Srtp::default(),
            dtmf: Dtmf::Auto,
            number_format: NumberFormat::default(),
            country_code: String::new(),
            caller_id_format: None,
            from_user: String::new(),
            from_domain: String::new(),
            identity: Vec::new(),
            diversion: String::new(),
            priority: 0,
            weight: 1,
            external_address: None,
            media_address: None,
            allow_redirects: false,
            options_interval_s: 0,
        }
    }
}

impl TrunkProfile {
    /// The networks of `source_cidrs`; lines that are none let nobody in.
    pub fn networks(&self) -> Vec<Cidr> {
        self.source_cidrs.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// The user part of the request URI for a callee.
    pub fn dialled(&self, to: &PhoneNumber, dial_prefix: &str) -> String {
        self.number_format.apply(to.digits(), dial_prefix, &self.country_code)
    }

    /// How the trunk is shown a caller id.
    pub fn caller(&self, caller: &CallerId) -> String {
        let shown = caller.user();
        match (caller, &self.caller_id_format) {
            (CallerId::Number(number), Some(format)) => {
                let digits = number.trim_start_matches('+');
                format.apply(digits, "", &self.country_code)
            }
            (CallerId::Number(_) | CallerId::Anonymous, _) => shown.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_their_text_form() {
        for (dtmf, word) in DTMF_WORDS {
            assert_eq!((Dtmf::from_text(word), dtmf.as_str()), (Some(*dtmf), *word));
        }
        for (identity, word) in IDENTITY_WORDS {
            assert_eq!((Identity::from_text(word), identity.as_str()), (Some(*identity), *word));
        }
        for (policy, word) in POLICY_WORDS {
            assert_eq!((Policy::from_text(word), policy.as_str()), (Some(*policy), *word));
        }
        assert_eq!(Dtmf::from_text("AUTO"), None);
    }

    #[test]
    fn numbers_are_written_as_the_trunk_wants_them() {
        for (format, prefix, country, dialled) in [
            ("", "00", "", "00442071838750"),
            ("prefix", "1234#", "", "1234#442071838750"),
            ("e164", "00", "", "442071838750"),
            ("plus", "00", "", "+442071838750"),
            ("9{number}#", "00", "", "9442071838750#"),
            ("0{national}", "00", "44", "02071838750"),
            ("0{national}", "00", "49", "00442071838750"),
            ("{national}", "", "44", "2071838750"),
        ] {
            let format = NumberFormat::parse(format).unwrap();
            assert_eq!(format.apply("442071838750", prefix, country), dialled, "{format:?}");
        }
        for wrong in ["x", "{number}@evil", "{number}{number}", "{number}\r\n", "{e164}", "+"] {
            assert_eq!(NumberFormat::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn caller_ids_follow_their_own_format() {
        let given = CallerId::parse("+442071838750").unwrap();
        let mut profile = TrunkProfile::default();
        assert_eq!(profile.caller(&given), "+442071838750");
        profile.caller_id_format = NumberFormat::parse("e164");
        assert_eq!(profile.caller(&given), "442071838750");
        (profile.caller_id_format, profile.country_code) = (NumberFormat::parse("0{national}"), "44".into());
        assert_eq!(profile.caller(&given), "02071838750");
        assert_eq!(profile.caller(&CallerId::Anonymous), "anonymous");
    }

    #[test]
    fn a_profile_survives_its_text_form_and_grows() {
        let profile = TrunkProfile {
            max_calls: 7,
            identity: vec![Identity::Pai],
            external_address: "192.0.2.1".parse().ok(),
            caller_id_format: NumberFormat::parse("plus"),
            ..TrunkProfile::default()
        };
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<TrunkProfile>(&text).unwrap(), profile);
        assert_eq!(serde_json::from_str::<TrunkProfile>("{}").unwrap(), TrunkProfile::default());
    }
}

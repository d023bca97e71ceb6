//! Whether the values of a configuration make sense. Says which setting does not, and why; changes nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::ConfigError;
use crate::config::{Amd, Config, Http, Limits, Rtp, Speech, TrunkConfig, Webhooks};
use crate::model::CallerId;
use crate::model::cidr::Cidr;

/// The voices that exist.
const TTS: [&str; 3] = ["embedded", "espeak", "flite"];
/// The verdicts that exist.
const INITIAL_SILENCE: [&str; 3] = ["machine", "human", "unknown"];
/// The codecs of calls, by their SDP names (RFC 3551 §6).
const CODECS: [&str; 2] = ["PCMU", "PCMA"];

/// Refuses the first value that makes no sense.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    http(&config.http)?;
    address("sip.external_address", &config.sip.external_address)?;
    rtp(&config.rtp)?;
    let url = config.database.url.as_str();
    must("database.url", url.starts_with("sqlite:"), "must begin with sqlite://")?;
    must("paths.sounds", !config.paths.sounds.as_os_str().is_empty(), "must not be empty")?;
    must("paths.recordings", !config.paths.recordings.as_os_str().is_empty(), "must not be empty")?;
    webhooks(&config.webhooks)?;
    let window = config.ratelimit.kaphila_window_s;
    must("ratelimit.kaphila_window_s", (1..=86_400).contains(&window), "must be 1 to 86400")?;
    limits(&config.limits)?;
    amd(&config.amd)?;
    speech(&config.speech)?;
    trunks(&config.trunk)
}

fn must(setting: &str, holds: bool, reason: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Invalid { setting: setting.to_owned(), reason: reason.to_owned() })
}

fn http(http: &Http) -> Result<(), ConfigError> {
    networks("http.trusted_proxies", &http.trusted_proxies)?;
    let body = (1024..=64 * 1024 * 1024).contains(&http.max_body_bytes);
    must("http.max_body_bytes", body, "must be 1024 to 67108864")
}

fn rtp(rtp: &Rtp) -> Result<(), ConfigError> {
    must("rtp.port_min", rtp.port_min >= 2 && rtp.port_min.is_multiple_of(2), "must be even (RFC 3550 §11)")?;
    must("rtp.port_max", rtp.port_max > rtp.port_min, "must be above rtp.port_min")?;
    must("rtp.workers", rtp.workers <= 256, "must be at most 256")?;
    address("rtp.external_address", &rtp.external_address)
}

fn webhooks(webhooks: &Webhooks) -> Result<(), ConfigError> {
    networks("webhooks.allow_cidrs", &webhooks.allow_cidrs)?;
    let scale = webhooks.time_scale;
    must("webhooks.time_scale", (0.0..=1000.0).contains(&scale), "must be 0 to 1000")?;
    let resolver = webhooks.resolver.as_str();
    let named =
        resolver.is_empty() || resolver.parse::<IpAddr>().is_ok() || resolver.parse::<SocketAddr>().is_ok();
    must("webhooks.resolver", named, "must be an IP address, with or without a port, or empty")?;
    let all = (1..=65_536).contains(&webhooks.max_concurrent);
    must("webhooks.max_concurrent", all, "must be 1 to 65536")?;
    let one = (1..=webhooks.max_concurrent).contains(&webhooks.max_concurrent_per_host);
    must("webhooks.max_concurrent_per_host", one, "must be 1 to webhooks.max_concurrent")
}

fn limits(limits: &Limits) -> Result<(), ConfigError> {
    let day = 86_400;
    must("limits.max_calls", (1..=100_000).contains(&limits.max_calls), "must be 1 to 100000")?;
    let duration = (1..=day).contains(&limits.max_call_duration_s);
    must("limits.max_call_duration_s", duration, "must be 1 to 86400")?;
    let media = (1..=day).contains(&limits.media_timeout_s);
    must("limits.media_timeout_s", media, "must be 1 to 86400")?;
    let requests = limits.requests_per_second_per_key >= 1;
    must("limits.requests_per_second_per_key", requests, "must be at least 1")?;
    let queue = (1..=1000).contains(&limits.playback_queue_max);
    must("limits.playback_queue_max", queue, "must be 1 to 1000")?;
    must("limits.drain_s", limits.drain_s <= day, "must be at most 86400")?;
    must("limits.journal_lag_max", limits.journal_lag_max >= 1, "must be at least 1")
}

fn amd(amd: &Amd) -> Result<(), ConfigError> {
    let known = INITIAL_SILENCE.contains(&amd.initial_silence.as_str());
    must("amd.initial_silence", known, "must be machine, human or unknown")
}

fn speech(speech: &Speech) -> Result<(), ConfigError> {
    must("speech.tts", !speech.tts.is_empty(), "must name a voice: embedded, espeak or flite")?;
    let known = speech.tts.iter().all(|name| TTS.contains(&name.as_str()));
    must("speech.tts", known, "knows only embedded, espeak and flite")
}

fn trunks(trunks: &[TrunkConfig]) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    for (row, trunk) in trunks.iter().enumerate() {
        let must =
            |setting: &str, holds, reason: &str| must(&format!("trunk.{row}.{setting}"), holds, reason);
        must("name", is_name(&trunk.name), "must be 1 to 64 letters, digits, `-`, `_` or `.`")?;
        must("name", names.insert(trunk.name.as_str()), "is used twice")?;
        must("proxy", is_proxy(&trunk.proxy), "must be sip:host[:port][;transport=udp]")?;
        must(
            "username",
            is_plain(&trunk.username, 128),
            "must be printable ASCII without quotes, at most 128",
        )?;
        let prefix = trunk.dial_prefix.as_str();
        let dialled = prefix.len() <= 16 && prefix.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b));
        must("dial_prefix", dialled, "must be at most 16 of 0-9 + * #")?;
        let caller = trunk.caller_id.is_empty() || CallerId::parse(&trunk.caller_id).is_some();
        must("caller_id", caller, "must be 3 to 15 digits, with or without a plus, or `anonymous`")?;
        let codecs = !trunk.codecs.is_empty() && trunk.codecs.iter().all(|c| CODECS.contains(&c.as_str()));
        must("codecs", codecs, "must name PCMU, PCMA or both")?;
        let wait = (1..=60_000).contains(&trunk.no_response_timeout_ms);
        must("no_response_timeout_ms", wait, "must be 1 to 60000")?;
    }
    Ok(())
}

/// A trunk's name appears in URLs, logs and answers.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// What may stand in a quoted header parameter as it is.
fn is_plain(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\')
}

/// Whether a text is a SIP URI that calls can be sent to; transports other than UDP are not built.
fn is_proxy(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("sip:") else { return false };
    let mut parts = rest.split(';');
    let place = parts.next().unwrap_or("");
    let udp = parts.all(|parameter| parameter.eq_ignore_ascii_case("transport=udp"));
    udp && is_host_and_port(place)
}

fn is_host_and_port(place: &str) -> bool {
    if place.starts_with('[') {
        return place.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0)
            || place
                .strip_prefix('[')
                .and_then(|p| p.strip_suffix(']'))
                .is_some_and(|p| p.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    let named = (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn address(setting: &str, text: &str) -> Result<(), ConfigError> {
    must(setting, text.is_empty() || text.parse::<IpAddr>().is_ok(), "must be an IP address or empty")
}

fn networks(setting: &str, texts: &[String]) -> Result<(), ConfigError> {
    let known = texts.iter().all(|text| text.parse::<Cidr>().is_ok());
    must(setting, known, "must hold networks such as 10.0.0.0/8")
}

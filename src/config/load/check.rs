//! Whether the values of a configuration make sense. Says which setting does not, and why; changes nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::ConfigError;
use crate::config::{
    Agent, Amd, Config, Http, Limits, Llm, Recordings, Rtp, Sip, Speech, TrunkConfig, Webhooks,
};
use crate::model::CallerId;
use crate::model::cidr::Cidr;
use crate::model::proxy::Proxy;

/// The voices that exist.
const TTS: [&str; 8] = ["embedded", "espeak", "flite", "google", "openai", "azure", "elevenlabs", "polly"];
/// The recognisers that exist.
const STT: [&str; 4] = ["openai", "openai-realtime", "deepgram", "vosk"];
/// What Polly calls its engines.
const POLLY_ENGINES: [&str; 4] = ["standard", "neural", "long-form", "generative"];
/// The verdicts that exist.
const INITIAL_SILENCE: [&str; 3] = ["machine", "human", "unknown"];
/// The codecs of calls, by their SDP names (RFC 3551 §6).
const CODECS: [&str; 2] = ["PCMU", "PCMA"];

/// Refuses the first value that makes no sense.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    http(&config.http)?;
    sip(&config.sip)?;
    rtp(&config.rtp)?;
    let url = config.database.url.as_str();
    let known = ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    must("database.url", known, "must begin with sqlite:// or postgres://")?;
    must("paths.sounds", !config.paths.sounds.as_os_str().is_empty(), "must not be empty")?;
    must("paths.recordings", !config.paths.recordings.as_os_str().is_empty(), "must not be empty")?;
    recordings(&config.recordings)?;
    webhooks(&config.webhooks)?;
    let window = config.ratelimit.kaphila_window_s;
    must("ratelimit.kaphila_window_s", (1..=86_400).contains(&window), "must be 1 to 86400")?;
    let most = 1..=1_000_000;
    must(
        "ratelimit.phony_per_minute",
        most.contains(&config.ratelimit.phony_per_minute),
        "must be 1 to 1000000",
    )?;
    must(
        "ratelimit.phony_per_hour",
        most.contains(&config.ratelimit.phony_per_hour),
        "must be 1 to 1000000",
    )?;
    limits(&config.limits)?;
    agent(&config.agent)?;
    amd(&config.amd)?;
    speech(&config.speech)?;
    llm(&config.llm)?;
    let (phone, metrics) = (&config.claude_phone, &config.metrics);
    door("claude_phone", &phone.allow_cidrs, &phone.allow_hosts)?;
    door("metrics", &metrics.allow_cidrs, &metrics.allow_hosts)?;
    let base = config.hamming.recordings_base.as_str();
    let fine = base.is_empty() || web(base) && !base.contains(['?', '#']);
    must("hamming.recordings_base", fine, "must begin with https:// or http://, or be empty")?;
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
    must("http.max_body_bytes", body, "must be 1024 to 67108864")?;
    must("http.listen", (1..=16).contains(&http.listen.len()), "must be 1 to 16 addresses")?;
    let both = http.tls_cert.as_os_str().is_empty() == http.tls_key.as_os_str().is_empty();
    must("http.tls_key", both, "goes with http.tls_cert: give both or neither")?;
    must("http.max_connections", (1..=1_000_000).contains(&http.max_connections), "must be 1 to 1000000")?;
    must("http.header_timeout_s", (1..=300).contains(&http.header_timeout_s), "must be 1 to 300")?;
    must("http.idle_timeout_s", (1..=3600).contains(&http.idle_timeout_s), "must be 1 to 3600")
}

fn sip(sip: &Sip) -> Result<(), ConfigError> {
    address("sip.external_address", &sip.external_address)?;
    let version = |text: &str, wrong: fn(&IpAddr) -> bool| !text.parse().is_ok_and(|ip: IpAddr| wrong(&ip));
    address("sip.external_ipv6", &sip.external_ipv6)?;
    must("sip.external_ipv6", version(&sip.external_ipv6, IpAddr::is_ipv4), "must be an IPv6 address")?;
    let networks = sip.local_nets.len() <= 64 && sip.local_nets.iter().all(|net| net.parse::<Cidr>().is_ok());
    must("sip.local_nets", networks, "must be at most 64 networks like 10.0.0.0/8")?;
    for (setting, text) in [("sip.tcp", &sip.tcp), ("sip.tls", &sip.tls)] {
        let good = text.is_empty() || text.parse::<SocketAddr>().is_ok();
        must(setting, good, "must be an address with a port, or empty")?;
    }
    let (cert, key) = (!sip.tls_cert.as_os_str().is_empty(), !sip.tls_key.as_os_str().is_empty());
    must("sip.tls_key", cert == key, "must be set together with sip.tls_cert")?;
    must("sip.tls", sip.tls.is_empty() || cert, "needs sip.tls_cert and sip.tls_key")?;
    let resolver = sip.resolver.as_str();
    let named =
        resolver.is_empty() || resolver.parse::<IpAddr>().is_ok() || resolver.parse::<SocketAddr>().is_ok();
    must("sip.resolver", named, "must be an IP address, with or without a port, or empty")
}

fn rtp(rtp: &Rtp) -> Result<(), ConfigError> {
    must("rtp.port_min", rtp.port_min >= 2 && rtp.port_min.is_multiple_of(2), "must be even (RFC 3550 §11)")?;
    must("rtp.port_max", rtp.port_max > rtp.port_min, "must be above rtp.port_min")?;
    must("rtp.workers", rtp.workers <= 256, "must be at most 256")?;
    address("rtp.external_address", &rtp.external_address)
}

fn recordings(recordings: &Recordings) -> Result<(), ConfigError> {
    must("recordings.retention_days", recordings.retention_days <= 36_500, "must be at most 36500")?;
    let floor = recordings.min_free_bytes <= 1 << 50;
    must("recordings.min_free_bytes", floor, "must be at most 2^50")?;
    let base = recordings.link_base.as_str();
    must(
        "recordings.link_base",
        base.is_empty() || web(base),
        "must begin with https:// or http://, or be empty",
    )?;
    let upload = &recordings.upload;
    if upload.url.is_empty() {
        return Ok(());
    }
    let bucket = upload.url.strip_prefix("s3://").map(|rest| rest.split('/').next().unwrap_or_default());
    let folder = upload.url.strip_prefix("file:///").is_some_and(|rest| !rest.is_empty());
    let named = folder || bucket.is_some_and(|bucket| !bucket.is_empty());
    must("recordings.upload.url", named, "must be s3://BUCKET/PREFIX or file:///FOLDER")?;
    let endpoint = upload.endpoint.as_str();
    must("recordings.upload.endpoint", endpoint.is_empty() || web(endpoint), "must be a URL or empty")?;
    let keys = folder || !(upload.access_key.0.is_empty() || upload.secret_key.0.is_empty());
    must("recordings.upload.access_key", keys, "and recordings.upload.secret_key are needed for s3://")
}

/// An address with `http://` or `https://` and a host.
fn web(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
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
    must("webhooks.max_concurrent_per_host", one, "must be 1 to webhooks.max_concurrent")?;
    must("webhooks.keep_days", webhooks.keep_days <= 36_500, "must be 0 to 36500")
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
    let frames = (1..=100_000).contains(&limits.ws_queue_frames);
    must("limits.ws_queue_frames", frames, "must be 1 to 100000")?;
    must("limits.drain_s", limits.drain_s <= day, "must be at most 86400")?;
    must("limits.trunk_bench_s", (1..=3600).contains(&limits.trunk_bench_s), "must be 1 to 3600")?;
    must("limits.journal_lag_max", limits.journal_lag_max >= 1, "must be at least 1")
}

fn agent(agent: &Agent) -> Result<(), ConfigError> {
    must("agent.silence_s", (1..=3600).contains(&agent.silence_s), "must be 1 to 3600")?;
    must("agent.silence_repeats", (1..=100).contains(&agent.silence_repeats), "must be 1 to 100")?;
    for (name, text) in [
        ("agent.fallback_text", &agent.fallback_text),
        ("agent.nudge_text", &agent.nudge_text),
        ("agent.farewell_text", &agent.farewell_text),
    ] {
        let length = text.trim().chars().count();
        must(name, (1..=1000).contains(&length), "must be 1 to 1000 characters")?;
    }
    Ok(())
}

fn amd(amd: &Amd) -> Result<(), ConfigError> {
    let known = INITIAL_SILENCE.contains(&amd.initial_silence.as_str());
    must("amd.initial_silence", known, "must be machine, human or unknown")
}

fn speech(speech: &Speech) -> Result<(), ConfigError> {
    must("speech.tts", !speech.tts.is_empty(), "must name a voice, such as embedded")?;
    let known = speech.tts.iter().all(|name| TTS.contains(&name.as_str()));
    must("speech.tts", known, &format!("knows only {}", TTS.join(", ")))?;
    let known = speech.stt.iter().all(|name| STT.contains(&name.as_str()));
    must("speech.stt", known, &format!("knows only {}", STT.join(", ")))?;
    let pair = |text: &String| {
        text.split_once('=').is_some_and(|(name, other)| !name.trim().is_empty() && !other.trim().is_empty())
    };
    let pairs = speech.voices.len() <= 1000 && speech.voices.iter().all(pair);
    must("speech.voices", pairs, "must hold at most 1000 pairs such as alloy=openai:nova")?;
    for (setting, url) in [
        ("speech.google.base_url", &speech.google.base_url),
        ("speech.openai.base_url", &speech.openai.base_url),
        ("speech.elevenlabs.base_url", &speech.elevenlabs.base_url),
    ] {
        must(setting, web(url), "must begin with https:// or http://")?;
    }
    for (setting, url) in
        [("speech.azure.base_url", &speech.azure.base_url), ("speech.polly.base_url", &speech.polly.base_url)]
    {
        must(setting, url.is_empty() || web(url), "must begin with https:// or http://, or be empty")?;
    }
    for (setting, url) in
        [("speech.deepgram.url", &speech.deepgram.url), ("speech.vosk.url", &speech.vosk.url)]
    {
        let socket =
            url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host());
        must(setting, socket, "must begin with wss:// or ws://")?;
    }
    let region = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    must("speech.azure.region", region(&speech.azure.region), "must be a name such as westeurope")?;
    must("speech.polly.region", region(&speech.polly.region), "must be a name such as us-east-1")?;
    let engine = POLLY_ENGINES.contains(&speech.polly.engine.as_str());
    must("speech.polly.engine", engine, "must be standard, neural, long-form or generative")?;
    speech_keys(speech)
}

/// A service that is named needs what it asks for.
fn speech_keys(speech: &Speech) -> Result<(), ConfigError> {
    let speaks = |name: &str| speech.tts.iter().any(|known| known == name);
    let hears = |name: &str| speech.stt.iter().any(|known| known == name);
    let public = speech.openai.base_url.starts_with("https://api.openai.com/");
    let openai = public && (speaks("openai") || hears("openai") || hears("openai-realtime"));
    let azure = !speech.azure.base_url.is_empty() || !speech.azure.region.is_empty();
    must("speech.azure.region", !speaks("azure") || azure, "is needed where speech.tts names azure")?;
    for (setting, used, key) in [
        ("speech.google.api_key", speaks("google"), &speech.google.api_key),
        ("speech.openai.api_key", openai, &speech.openai.api_key),
        ("speech.azure.api_key", speaks("azure"), &speech.azure.api_key),
        ("speech.elevenlabs.api_key", speaks("elevenlabs"), &speech.elevenlabs.api_key),
        ("speech.polly.access_key", speaks("polly"), &speech.polly.access_key),
        ("speech.polly.secret_key", speaks("polly"), &speech.polly.secret_key),
        ("speech.deepgram.api_key", hears("deepgram"), &speech.deepgram.api_key),
    ] {
        must(setting, !used || !key.0.is_empty(), "is needed, because [speech] names its service")?;
        // Keys travel in headers.
        let plain = key.0.bytes().all(|b| b.is_ascii_graphic());
        must(setting, plain, "must be printable ASCII without blanks")?;
    }
    Ok(())
}

fn llm(llm: &Llm) -> Result<(), ConfigError> {
    let url = llm.base_url.as_str();
    must("llm.base_url", url.is_empty() || web(url), "must begin with https:// or http://, or be empty")?;
    must("llm.model", url.is_empty() || !llm.model.is_empty(), "is needed where llm.base_url is set")?;
    let plain = llm.api_key.0.bytes().all(|b| b.is_ascii_graphic());
    must("llm.api_key", plain, "must be printable ASCII without blanks")?;
    let first = (100..=120_000).contains(&llm.first_token_timeout_ms);
    must("llm.first_token_timeout_ms", first, "must be 100 to 120000")?;
    must("llm.timeout_s", (1..=600).contains(&llm.timeout_s), "must be 1 to 600")
}

/// Whom a door lets in without a key.
fn door(section: &str, allow_cidrs: &[String], allow_hosts: &[String]) -> Result<(), ConfigError> {
    networks(&format!("{section}.allow_cidrs"), allow_cidrs)?;
    let name = |name: &String| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (1..=253).contains(&name.len()) && name.bytes().all(legal)
    };
    let names = allow_hosts.iter().all(name);
    must(&format!("{section}.allow_hosts"), names, "must hold host names, without a port")
}

fn trunks(trunks: &[TrunkConfig]) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    for (row, trunk) in trunks.iter().enumerate() {
        let must =
            |setting: &str, holds, reason: &str| must(&format!("trunk.{row}.{setting}"), holds, reason);
        must("name", is_name(&trunk.name), "must be 1 to 64 letters, digits, `-`, `_` or `.`")?;
        must("name", names.insert(trunk.name.as_str()), "is used twice")?;
        must(
            "proxy",
            is_proxy(&trunk.proxy),
            "must be sip:host[:port][;transport=udp|tcp|tls] or sips:host[:port]",
        )?;
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
        trunk.profile().map_or_else(|error| must(error.setting, false, error.reason), |_| Ok(()))?;
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

/// The form only; the name in it is resolved when a call is placed.
fn is_proxy(text: &str) -> bool {
    Proxy::read(text).is_some()
}

fn address(setting: &str, text: &str) -> Result<(), ConfigError> {
    must(setting, text.is_empty() || text.parse::<IpAddr>().is_ok(), "must be an IP address or empty")
}

fn networks(setting: &str, texts: &[String]) -> Result<(), ConfigError> {
    let known = texts.iter().all(|text| text.parse::<Cidr>().is_ok());
    must(setting, known, "must hold networks such as 10.0.0.0/8")
}

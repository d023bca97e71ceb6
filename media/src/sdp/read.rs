//! Reading a peer's description: from untrusted octets to a [`Remote`]. Only the lines that matter here are looked at, so
//! that a peer's strange bandwidth or time line never costs a call.

use std::net::{IpAddr, SocketAddr};

use sdp_types::{Media, Session};

use super::crypto::{self, Crypto};
use super::{DEFAULT_PTIME, Direction, EVENT_CLOCK, EVENT_NAME, OfferConfig, Remote, SdpError, Security};
use crate::codec::{CODECS, Codec};

const MAX_SIZE: usize = 16 * 1024;
const MAX_LINES: usize = 16;
const MAX_FORMATS: usize = 64;
const PLAIN: [&str; 2] = ["RTP/AVP", "RTP/AVPF"];
const SECURE: [&str; 2] = ["RTP/SAVP", "RTP/SAVPF"];

/// Parses what is needed: version, connection, media and attribute lines, ended by CR LF or LF.
pub(super) fn session(sdp: &[u8]) -> Result<Session, SdpError> {
    if sdp.len() > MAX_SIZE {
        return Err(SdpError::TooLarge);
    }
    let mut kept = Vec::with_capacity(sdp.len() + 2);
    for line in sdp.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line, [b'v' | b'c' | b'm' | b'a', b'=', ..]) {
            kept.extend_from_slice(line.trim_ascii_end());
            kept.extend_from_slice(b"\r\n");
        }
    }
    let session = Session::parse(&kept).map_err(|_| SdpError::Syntax)?;
    if session.medias.len() > MAX_LINES { Err(SdpError::TooLarge) } else { Ok(session) }
}

/// Whether a line is audio over RTP that was not refused; over secure RTP only where we have a key.
pub(super) fn usable(media: &Media, config: &OfferConfig) -> bool {
    let over = |protos: [&str; 2]| protos.iter().any(|proto| media.proto.eq_ignore_ascii_case(proto));
    let secure = config.security != Security::Never && over(SECURE);
    media.media.eq_ignore_ascii_case("audio") && (over(PLAIN) || secure) && media.port != 0
}

/// What a line of audio says, with the first of its codecs that is one of ours, and the line that agrees on keys.
pub(super) fn remote(
    session: &Session,
    media: &Media,
    config: &OfferConfig,
) -> Result<(Remote, Option<Crypto>), SdpError> {
    let formats = || media.fmt.split_ascii_whitespace().filter_map(|fmt| fmt.parse().ok()).take(MAX_FORMATS);
    let (payload_type, codec) = formats()
        .find_map(|fmt| {
            codec(media, fmt).filter(|codec| config.codecs.contains(codec)).map(|codec| (fmt, codec))
        })
        .ok_or(SdpError::NoCodec)?;
    let event_payload_type = formats().find(|&fmt| config.telephone_event && is_event(media, fmt));
    let ip = address(session, media)?;
    let stated = direction(session, media);
    let agreed = crypto::agreed(media, config.security);
    let secure = SECURE.iter().any(|proto| media.proto.eq_ignore_ascii_case(proto));
    if agreed.is_none() && (secure || matches!(config.security, Security::Required(_))) {
        return Err(SdpError::Encryption);
    }
    let remote = Remote {
        address: SocketAddr::new(ip, media.port),
        codec,
        payload_type,
        event_payload_type,
        direction: Direction::new(stated.sends(), stated.receives() && !ip.is_unspecified()),
        ptime_ms: ptime(media),
        srtp: agreed.map(|(_, keys)| keys),
    };
    Ok((remote, agreed.map(|(crypto, _)| crypto)))
}

/// The name and clock of a dynamic or static payload type, as `a=rtpmap` gives them (RFC 8866 §6.6).
fn mapped(media: &Media, payload_type: u8) -> Option<(&str, u32)> {
    media.attributes.iter().filter(|attribute| attribute.attribute.eq_ignore_ascii_case("rtpmap")).find_map(
        |attribute| {
            let (number, encoding) = attribute.value.as_deref()?.trim().split_once(char::is_whitespace)?;
            if number.parse() != Ok(payload_type) {
                return None;
            }
            let mut parts = encoding.trim().split('/');
            let name = parts.next()?;
            let clock = parts.next()?.parse().ok()?;
            // One channel, said or unsaid.
            parts.next().is_none_or(|channels| channels == "1").then_some((name, clock))
        },
    )
}

fn has_map(media: &Media, payload_type: u8) -> bool {
    media.attributes.iter().any(|attribute| {
        let value = attribute.value.as_deref().unwrap_or_default().trim();
        attribute.attribute.eq_ignore_ascii_case("rtpmap")
            && value.split_whitespace().next().and_then(|number| number.parse().ok()) == Some(payload_type)
    })
}

fn codec(media: &Media, payload_type: u8) -> Option<Codec> {
    match mapped(media, payload_type) {
        Some((name, clock)) => CODECS
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name) && row.clock == clock)
            .map(|row| row.codec),
        None if has_map(media, payload_type) => None,
        None => Codec::from_payload_type(payload_type),
    }
}

/// Telephone events on the clock of the audio: another clock would need conversion and belongs to another codec.
fn is_event(media: &Media, payload_type: u8) -> bool {
    mapped(media, payload_type)
        .is_some_and(|(name, clock)| name.eq_ignore_ascii_case(EVENT_NAME) && clock == EVENT_CLOCK)
}

fn address(session: &Session, media: &Media) -> Result<IpAddr, SdpError> {
    let connection = media.connections.first().or(session.connection.as_ref()).ok_or(SdpError::Address)?;
    let text = connection.connection_address.as_str();
    let ip: IpAddr = text.split('/').next().unwrap_or_default().parse().map_err(|_| SdpError::Address)?;
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_multicast() || broadcast { Err(SdpError::Address) } else { Ok(ip) }
}

/// The line's own direction, else the session's, else both ways (RFC 8866 §6.7).
fn direction(session: &Session, media: &Media) -> Direction {
    [&media.attributes, &session.attributes]
        .into_iter()
        .find_map(|attributes| {
            attributes.iter().find_map(|attribute| Direction::from_name(attribute.attribute.trim()))
        })
        .unwrap_or_default()
}

fn ptime(media: &Media) -> u8 {
    let stated = media.attributes.iter().find(|attribute| attribute.attribute.eq_ignore_ascii_case("ptime"));
    let value = stated.and_then(|attribute| attribute.value.as_deref()?.trim().parse::<u8>().ok());
    // Whole tens, because that is what a frame can be cut into.
    value.map_or(DEFAULT_PTIME, |ms| (ms / 10 * 10).clamp(10, 60))
}

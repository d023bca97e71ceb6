//! Session descriptions: offer and answer (RFC 3264) for one line of audio, written and read with `sdp-types` (RFC 8866).
//!
//! Owns the choice of codec, payload types and direction. It never opens a port, never counts versions (the caller does:
//! `o=` keeps its session id, and its version grows by one with every change) and keeps no state between two
//! descriptions. Whatever a peer sends, the worst result is an [`SdpError`].

mod crypto;
mod read;

use std::net::{IpAddr, SocketAddr};

use sdp_types::{Connection, Media, MediaType, Origin, Session, Time, TransportProto};
use thiserror::Error;

use crate::codec::Codec;
use crate::srtp::{Keys, MasterKey};
use crypto::Crypto;

/// The payload type under which telephone events are offered.
pub const EVENT_PAYLOAD_TYPE: u8 = 101;

const DEFAULT_PTIME: u8 = 20;
const EVENT_NAME: &str = "telephone-event";
const EVENT_CLOCK: u32 = 8000;

/// Which way media flows, seen from whoever states it (RFC 3264 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// The speaker only sends: hold.
    SendOnly,
    /// The speaker only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The direction of a side that sends and receives as said.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The same flow seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// Whether the one who states it sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the one who states it receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The attribute name, such as `sendrecv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The direction of that attribute name; capitals do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.as_str().eq_ignore_ascii_case(name))
    }

    /// What may be answered to an offer of `self` by someone who wants `want` (RFC 3264 §6.1).
    fn answered(self, want: Self) -> Self {
        Self::new(self.receives() && want.sends(), self.sends() && want.receives())
    }
}

/// Our side of a description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// The address media is to be sent to.
    pub address: IpAddr,
    /// The RTP port.
    pub port: u16,
    /// The session id of `o=`: one for the whole dialog.
    pub session_id: u64,
    /// The version of `o=`: one more with every change, the same when nothing changed.
    pub version: u64,
}

/// Whether sound is encrypted by keys in the description (SDES, RFC 4568), with our key for what we send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Security {
    /// It is not: keys are neither offered nor taken.
    #[default]
    Never,
    /// Where the far end can: keys are offered beside plain RTP (`RTP/AVP` with `a=crypto`).
    Optional(MasterKey),
    /// Always: `RTP/SAVP`, and no call without.
    Required(MasterKey),
}

impl Security {
    fn key(self) -> Option<MasterKey> {
        match self {
            Self::Never => None,
            Self::Optional(key) | Self::Required(key) => Some(key),
        }
    }
}

/// What we are able to speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferConfig {
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Whether telephone events (RFC 4733) are spoken.
    pub telephone_event: bool,
    /// Whether sound is encrypted.
    pub security: Security,
}

impl Default for OfferConfig {
    fn default() -> Self {
        Self { codecs: vec![Codec::Pcmu, Codec::Pcma], telephone_event: true, security: Security::Never }
    }
}

/// What is agreed with the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where media is to be sent.
    pub address: SocketAddr,
    /// The codec of both directions.
    pub codec: Codec,
    /// The payload type under which they want to receive it.
    pub payload_type: u8,
    /// The payload type under which they want to receive telephone events, if they do.
    pub event_payload_type: Option<u8>,
    /// Their direction as they state it; an unspecified address counts as not receiving (RFC 3264 §8.4).
    pub direction: Direction,
    /// The packet length they want to receive, 10 to 60 ms.
    pub ptime_ms: u8,
    /// The keys of both directions; `None`: plain RTP.
    pub srtp: Option<Keys>,
}

/// Why a description cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SdpError {
    /// Longer, or with more media lines, than anyone needs.
    #[error("the session description is too large")]
    TooLarge,
    /// Not a session description.
    #[error("the session description cannot be read")]
    Syntax,
    /// No line of audio over RTP, or only refused ones.
    #[error("the session description has no usable line of audio")]
    NoAudio,
    /// Encryption that one side demands and the other does not offer in a form both know.
    #[error("no encryption in common")]
    Encryption,
    /// None of our codecs.
    #[error("no codec in common")]
    NoCodec,
    /// No address, or one nothing can be sent to: a name, a multicast group.
    #[error("the session description has no usable address")]
    Address,
}

/// Writes an offer of one line of audio in that direction.
pub fn offer(local: &Local, config: &OfferConfig, direction: Direction) -> Vec<u8> {
    let formats: Vec<Format> = config
        .codecs
        .iter()
        .map(|codec| Format {
            payload_type: codec.payload_type(),
            name: codec.name(),
            clock: codec.info().clock,
        })
        .chain(config.telephone_event.then_some(Format {
            payload_type: EVENT_PAYLOAD_TYPE,
            name: EVENT_NAME,
            clock: EVENT_CLOCK,
        }))
        .collect();
    let proto = match config.security {
        Security::Required(_) => TransportProto::RtpSavp,
        Security::Never | Security::Optional(_) => TransportProto::RtpAvp,
    };
    let crypto = config.security.key().map(Crypto::offered);
    describe(local, vec![audio_line(local, proto.as_str(), &formats, crypto, direction)])
}

/// Reads the answer to an offer made with `offered`.
///
/// # Errors
///
/// Any [`SdpError`]; [`SdpError::NoAudio`] also when the line was refused with port 0.
pub fn read_answer(offered: &OfferConfig, sdp: &[u8]) -> Result<Remote, SdpError> {
    let session = read::session(sdp)?;
    let line = session.medias.iter().find(|media| read::usable(media, offered)).ok_or(SdpError::NoAudio)?;
    Ok(read::remote(&session, line, offered)?.0)
}

/// Answers an offer: the first usable line of audio is taken with the first codec of theirs that is one of ours, every
/// other line is refused with port 0, and the number and order of lines are kept (RFC 3264 §6). Payload types and
/// transport are those of the offer. `want` is our own wish, cut down to what the offer allows.
///
/// # Errors
///
/// Any [`SdpError`]: the offer is to be refused with 488 (RFC 3261 §21.4.26), or with 400 for [`SdpError::Syntax`].
pub fn answer(
    local: &Local,
    config: &OfferConfig,
    offer: &[u8],
    want: Direction,
) -> Result<(Vec<u8>, Remote), SdpError> {
    let session = read::session(offer)?;
    let mut failure = SdpError::NoAudio;
    let mut taken = None;
    for (index, media) in session.medias.iter().enumerate().filter(|(_, media)| read::usable(media, config)) {
        match read::remote(&session, media, config) {
            Ok((remote, crypto)) => {
                taken = Some((index, remote, crypto));
                break;
            }
            Err(error) => failure = error,
        }
    }
    let (chosen, remote, crypto) = taken.ok_or(failure)?;
    let mut formats = vec![Format {
        payload_type: remote.payload_type,
        name: remote.codec.name(),
        clock: remote.codec.info().clock,
    }];
    formats.extend(remote.event_payload_type.map(|payload_type| Format {
        payload_type,
        name: EVENT_NAME,
        clock: EVENT_CLOCK,
    }));
    let direction = remote.direction.answered(want);
    let lines = session.medias.iter().enumerate().map(|(index, media)| {
        if index == chosen {
            audio_line(local, &media.proto, &formats, crypto, direction)
        } else {
            refused(media)
        }
    });
    Ok((describe(local, lines.collect()), remote))
}

/// A payload type and what it stands for.
struct Format {
    payload_type: u8,
    name: &'static str,
    clock: u32,
}

fn audio_line(
    local: &Local,
    proto: &str,
    formats: &[Format],
    crypto: Option<Crypto>,
    direction: Direction,
) -> Media {
    let list: Vec<String> = formats.iter().map(|format| format.payload_type.to_string()).collect();
    let proto = TransportProto::Other(proto.to_owned());
    let mut media = Media::new(MediaType::Audio, local.port, proto, list.join(" "));
    if let Some(crypto) = crypto {
        media.add_attribute_with_value("crypto", crypto);
    }
    for Format { payload_type, name, clock } in formats {
        media.add_attribute_with_value("rtpmap", format!("{payload_type} {name}/{clock}"));
        if *name == EVENT_NAME {
            media.add_attribute_with_value("fmtp", format!("{payload_type} 0-16"));
        }
    }
    media.add_attribute_with_value("ptime", DEFAULT_PTIME);
    media.add_attribute_from_str(direction.as_str());
    media
}

/// The same line with port 0 and nothing else (RFC 3264 §6).
fn refused(media: &Media) -> Media {
    Media {
        port: 0,
        num_ports: None,
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
        ..media.clone()
    }
}

fn describe(local: &Local, medias: Vec<Media>) -> Vec<u8> {
    let mut session = Session::new(Origin::with_ip_addr(local.session_id, local.version, local.address), "-");
    session.connection = Some(Connection::from_ip_addr(local.address));
    session.times = vec![Time::new(0, 0)];
    session.medias = medias;
    let mut out = Vec::with_capacity(512);
    session.write(&mut out).expect("writing into memory cannot fail");
    out
}

#[cfg(test)]
mod tests;

//! One call at the far end: its script, its offer and answer, and what is still awaited before its line can be
//! written. Plain state; [`super::exchange`] moves it.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use media::codec::Codec;
use media::sdp::{self, Direction, Local, OfferConfig, Remote, Security};
use media::srtp::MasterKey;

use super::callee::Callee;
use super::record::Record;
use super::script::Script;

/// One call.
#[derive(Debug)]
pub(super) struct Line {
    /// The far end's script; none once the call is over.
    pub(super) callee: Option<Callee>,
    /// What its line will say.
    pub(super) record: Record,
    /// Our side of the session description.
    pub(super) terms: Terms,
    /// Media was connected.
    pub(super) connected: bool,
    /// The last playback started.
    pub(super) playback: u64,
    /// The call is ended by us at this moment, whatever its script says.
    pub(super) latest: Instant,
    /// The dialog is over; the line is written at this moment at the latest.
    pub(super) over: Option<Instant>,
    /// The media has not been closed yet.
    pub(super) open: bool,
    /// The WAV has not been closed yet.
    pub(super) recording: bool,
}

impl Line {
    /// Everything about the call is known, or has been waited for long enough.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.over.is_some_and(|latest| latest <= now || !(self.open || self.recording))
    }

    /// When time alone changes something.
    pub(super) fn poll_timeout(&self) -> Instant {
        let call = self.over.unwrap_or(self.latest);
        self.callee.as_ref().and_then(Callee::poll_timeout).map_or(call, |act| act.min(call))
    }
}

/// Offer and answer of one call (RFC 3264): at most one of them is under way at a time.
#[derive(Debug)]
pub(super) struct Terms {
    local: Local,
    config: OfferConfig,
    /// What goes into the 183 and the 200.
    body: Bytes,
    /// Agreed with the caller; none while our own first offer is unanswered.
    remote: Option<Remote>,
}

impl Terms {
    /// Answers the INVITE's offer, or prepares one of our own where it had none. `None` if nothing can be agreed.
    pub(super) fn begin(
        address: IpAddr,
        port: u16,
        id: u64,
        script: &Script,
        offer: Option<&[u8]>,
        key: MasterKey,
    ) -> Option<Self> {
        let local = Local { address, port, session_id: id, version: 1 };
        let config = OfferConfig {
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            telephone_event: script.telephone_event,
            security: Security::Optional(key),
        };
        let (body, remote) = match offer {
            Some(offer) => {
                let (body, remote) = sdp::answer(&local, &config, offer, Direction::SendRecv).ok()?;
                (body, Some(remote))
            }
            None => (sdp::offer(&local, &config, Direction::SendRecv), None),
        };
        Some(Self { local, config, body: body.into(), remote })
    }

    /// Where our RTP socket is.
    pub(super) fn port(&self) -> u16 {
        self.local.port
    }

    /// Where the caller's media is, once that is agreed.
    pub(super) fn remote(&self) -> Option<Remote> {
        self.remote.clone()
    }

    /// The body of our 183 and 200.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// A new offer of ours: the caller is held, or no longer.
    pub(super) fn offer(&mut self, direction: Direction) -> Bytes {
        self.local.version += 1;
        sdp::offer(&self.local, &self.config, direction).into()
    }

    /// The answer to our offer. `None` if it cannot be read; what was agreed before stays.
    pub(super) fn answered(&mut self, answer: &[u8]) -> Option<Remote> {
        let remote = sdp::read_answer(&self.config, answer).ok()?;
        self.remote = Some(remote.clone());
        Some(remote)
    }

    /// The caller's new offer: the body of our answer and what is agreed. `None` if nothing can be.
    pub(super) fn reoffered(&mut self, offer: &[u8]) -> Option<(Bytes, Remote)> {
        let local = Local { version: self.local.version + 1, ..self.local };
        let (body, remote) = sdp::answer(&local, &self.config, offer, Direction::SendRecv).ok()?;
        self.local = local;
        self.remote = Some(remote.clone());
        Some((body.into(), remote))
    }
}

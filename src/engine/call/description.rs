//! What one leg of ours says of itself in session descriptions (RFC 3264 §5, §6, §8): one session id, and a version that
//! grows with each change. Owns our latest words; never sends them, and keeps nothing of what the far end said.

use std::net::IpAddr;

use bytes::Bytes;
use media::sdp::{self, Direction, Local, OfferConfig, Remote, SdpError};

use crate::engine::Settings;
use crate::model::call::TrunkPlan;

/// Where a leg's sound is to be sent: our address and port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    address: IpAddr,
    port: u16,
}

impl Place {
    /// As a trunk is told it, where its requests go to (or come from) this peer.
    pub(super) fn told(
        settings: &Settings,
        plan: Option<&TrunkPlan>,
        peer: Option<IpAddr>,
        port: u16,
    ) -> Self {
        let own = plan.and_then(|plan| plan.profile.media_address);
        let towards = || peer.map(|peer| settings.media_address_for(peer));
        Self { address: own.or_else(towards).unwrap_or(settings.media_address), port }
    }
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Description {
    session_id: u64,
    version: u64,
    /// What was said last.
    text: Bytes,
}

impl Description {
    /// A leg that has said nothing yet.
    pub(super) fn new(session_id: u64) -> Self {
        Self { session_id, version: 1, text: Bytes::new() }
    }

    /// The offer of an INVITE of ours. Each attempt is a dialog of its own, so the version need not grow.
    pub(super) fn offer(&mut self, place: Place, config: &OfferConfig) -> Bytes {
        self.text = sdp::offer(&self.local(place), config, Direction::SendRecv).into();
        self.text.clone()
    }

    /// What was said last, for an INVITE that says the same.
    pub(super) fn again(&self) -> Bytes {
        self.text.clone()
    }

    /// Our words to an offer, or our offer where none came; with what the far end said of itself. The version grows only
    /// when it says something new: some far ends set all media up again when the version moves.
    ///
    /// # Errors
    /// The offer cannot be answered.
    pub(super) fn reply(
        &mut self,
        place: Place,
        config: &OfferConfig,
        offer: Option<&[u8]>,
    ) -> Result<(Bytes, Option<Remote>), SdpError> {
        let write = |local: &Local| match offer {
            None => Ok((sdp::offer(local, config, Direction::SendRecv), None)),
            Some(offer) => sdp::answer(local, config, offer, Direction::SendRecv)
                .map(|(ours, remote)| (ours, Some(remote))),
        };
        let (mut ours, remote) = write(&self.local(place))?;
        if !self.text.is_empty() && ours != self.text {
            self.version += 1;
            (ours, _) = write(&self.local(place))?;
        }
        self.text = ours.into();
        Ok((self.text.clone(), remote))
    }

    fn local(&self, place: Place) -> Local {
        let Place { address, port } = place;
        Local { address, port, session_id: self.session_id, version: self.version }
    }
}

//! A call that is answered and hears nothing: said in words after a few seconds, because nobody sees packets that do
//! not come (FIELD need 2). Nothing follows from it; the media timeout ends such calls.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Call, Ctx, Phase};
use crate::model::event::CallEvent;

/// After the answer.
const EXPECTED_WITHIN: Duration = Duration::from_secs(5);

impl Call {
    /// The call is answered; the far end said that it is at this address, and whether it will send.
    pub(super) fn expect_sound(&mut self, ctx: &Ctx<'_>, from: SocketAddr, sends: bool) {
        self.told_address = Some(from);
        let expected = sends && !self.heard_anything;
        self.timers.unheard = expected.then(|| ctx.now.mono + EXPECTED_WITHIN);
    }

    pub(super) fn sound_came(&mut self) {
        self.heard_anything = true;
        self.timers.unheard = None;
    }

    pub(super) fn unheard(&mut self, ctx: &mut Ctx<'_>) {
        let Some(address) = self.told_address.filter(|_| self.phase == Phase::Answered) else { return };
        let words = why(address);
        tracing::warn!(call = %self.order.id, "{words}");
        ctx.event(CallEvent::Unheard { words });
    }
}

fn why(address: SocketAddr) -> String {
    let seconds = EXPECTED_WITHIN.as_secs();
    let begin =
        format!("no sound has come in {seconds} s; ours goes to {address} as the session description says");
    if is_private(address.ip()) {
        format!(
            "{begin}, a private address: the far end is behind a router and has sent nothing that would show where, \
             or what it was told of our address is wrong (rtp.external_address, the trunk's media_address)"
        )
    } else {
        format!(
            "{begin}: what it was told of our address may be wrong (rtp.external_address), or a firewall drops it"
        )
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_address_is_called_one() {
        for (address, private) in [
            ("10.0.3.4:40012", true),
            ("192.168.1.2:4000", true),
            ("[fd00::1]:4000", true),
            ("203.0.113.5:4000", false),
            ("[2001:db8::1]:4000", false),
        ] {
            let words = why(address.parse().unwrap());
            assert!(words.contains(address), "{words}");
            assert_eq!(words.contains("a private address"), private, "{words}");
        }
    }
}

//! What an INVITE says: whom it dials, who calls, and how the trunk wants to be told so (FIELD 3.2.2 "Identity",
//! "Number format"). Pure: an order and a trunk's plan in, a [`sip::Target`] out. Never picks a trunk.

use std::net::SocketAddr;
use std::time::Duration;

use super::Settings;
use crate::model::CallerId;
use crate::model::call::{CallOrder, TrunkPlan};
use crate::model::trunk::{Identity, TrunkProfile};

/// The SIP port where none is written (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// Who is said to call where nobody is.
const NOBODY: &str = "trunkline";

/// The INVITE of one attempt: by which of the trunk's ways, and where to if it was redirected. `None` where the order
/// has no such trunk or way.
pub(super) fn target(
    order: &CallOrder,
    trunk: usize,
    (hop, redirect): (usize, Option<&sip::Uri>),
    settings: &Settings,
) -> Option<sip::Target> {
    let plan = order.trunks.get(trunk)?;
    let hop = plan.hops.get(hop)?;
    let our_address = settings.sip_address_for(hop.address.ip());
    let profile = &plan.profile;
    let ours = sip::Host::Addr(profile.external_address.unwrap_or(our_address));
    let domain = if profile.from_domain.is_empty() { ours } else { host(&profile.from_domain) };
    let caller = order.from.as_ref().or(plan.caller_id.as_ref());
    let anonymous = matches!(caller, Some(CallerId::Anonymous));
    let from = match (anonymous, caller) {
        (true, _) => sip::Uri::sip_at("anonymous", sip::Host::Name("anonymous.invalid".to_owned()), None),
        (false, _) if !profile.from_user.is_empty() => {
            sip::Uri::sip_at(&profile.from_user, domain.clone(), None)
        }
        (false, Some(caller)) => sip::Uri::sip_at(&profile.caller(caller), domain.clone(), None),
        (false, None) => sip::Uri::sip_at(NOBODY, domain.clone(), None),
    };
    let credentials = (!plan.username.is_empty())
        .then(|| sip::Credentials { username: plan.username.clone(), password: plan.password.0.clone() });
    let dialled = || {
        let user = profile.dialled(&order.to, &plan.dial_prefix);
        sip::Uri::sip_at(&user, host(&plan.host), plan.port)
    };
    let redirected = redirect.and_then(sip::Uri::as_sip);
    let address = redirected.and_then(|uri| Some((uri.host.ip()?, uri.port.unwrap_or(SIP_PORT)).into()));
    let address: SocketAddr = address.unwrap_or(hop.address);
    Some(sip::Target {
        uri: redirect.cloned().unwrap_or_else(dialled),
        from,
        from_display: anonymous.then(|| "Anonymous".to_owned()),
        peer: sip::Peer::new(hop.transport, address),
        server_name: hop.server_name.clone(),
        credentials,
        headers: identity(plan, caller, anonymous, &domain),
        no_response_timeout: Duration::from_millis(plan.no_response_timeout_ms.into()),
        sources: sources(plan),
    })
}

/// Where requests inside the call may come from beside the address that was dialled (CONTRACT 3 S33a).
pub(super) fn sources(plan: &TrunkPlan) -> Vec<sip::Network> {
    let networks = plan.profile.networks().into_iter();
    let networks = networks.map(|n| sip::Network { base: n.base(), prefix: n.prefix() });
    plan.hops.iter().map(|hop| sip::Network::from(hop.address.ip())).chain(networks).collect()
}

/// The headers that tell who calls. A caller that wants not to be known is anonymous in From and told to the trunk
/// alone, by the trunk's own number (RFC 3323 §4.1, RFC 3325 §9.3).
fn identity(
    plan: &TrunkPlan,
    caller: Option<&CallerId>,
    anonymous: bool,
    domain: &sip::Host,
) -> Vec<(String, String)> {
    let profile: &TrunkProfile = &plan.profile;
    let mut headers = Vec::new();
    if anonymous {
        headers.push(("Privacy".to_owned(), "id".to_owned()));
    }
    let real = caller.filter(|_| !anonymous).or(plan.caller_id.as_ref());
    if let Some(real @ CallerId::Number(_)) = real {
        let uri = sip::Uri::sip_at(&profile.caller(real), domain.clone(), None);
        headers.extend(profile.identity.iter().map(|identity| match identity {
            Identity::Pai => ("P-Asserted-Identity".to_owned(), format!("<{uri}>")),
            Identity::Ppi => ("P-Preferred-Identity".to_owned(), format!("<{uri}>")),
            Identity::Rpid => {
                let privacy = if anonymous { "full" } else { "off" };
                let value = format!("<{uri}>;party=calling;screen=yes;privacy={privacy}");
                ("Remote-Party-ID".to_owned(), value)
            }
        }));
    }
    if let Some(diverting) = CallerId::parse(&profile.diversion) {
        let uri = sip::Uri::sip_at(&profile.caller(&diverting), domain.clone(), None);
        headers.push(("Diversion".to_owned(), format!("<{uri}>;reason=unconditional")));
    }
    headers
}

/// A host as the trunk's proxy has it: a name, or an address (IPv6 in brackets).
pub(super) fn host(text: &str) -> sip::Host {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_or_else(|_| sip::Host::Name(text.to_owned()), sip::Host::Addr)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::call::{Hop, Surface};
    use crate::model::purpose::Purpose;
    use crate::model::trunk::NumberFormat;
    use crate::model::{CallId, PhoneNumber, Secret, Timestamp};

    fn settings() -> Settings {
        Settings {
            sip_address: "192.0.2.9".parse().unwrap(),
            sip_address_other: None,
            media_address: "192.0.2.9".parse().unwrap(),
            media_address_other: None,
            local_nets: Vec::new(),
            rtp_bind: "192.0.2.9".parse().unwrap(),
            rtp_ports: (10_000, 10_100),
            leg: media::LegSettings::default(),
            recordings: "rec".into(),
            playback_queue_max: 2,
            max_calls: 1,
            amd: media::AmdConfig::default(),
        }
    }

    fn dialled(from: Option<&str>, own: Option<&str>, profile: TrunkProfile) -> sip::Target {
        let plan = TrunkPlan {
            endpoint: "a-endpoint".into(),
            host: "sbc.example".into(),
            port: Some(5070),
            hops: vec![Hop::udp("192.0.2.1:5070".parse().unwrap())],
            username: String::new(),
            password: Secret::default(),
            dial_prefix: "00".into(),
            codecs: Vec::new(),
            caller_id: own.and_then(CallerId::parse),
            no_response_timeout_ms: 2000,
            profile: Arc::new(profile),
        };
        let order = CallOrder {
            id: CallId(1),
            kaphila_id: "1.1".into(),
            surface: Surface::Kaphila,
            purpose: Purpose::default(),
            key: 1,
            tenant: "default".into(),
            submitted_number: "14155550100".into(),
            to: PhoneNumber::parse_lenient("14155550100").unwrap(),
            from: from.and_then(CallerId::parse),
            trunks: vec![plan],
            redials_ms: Vec::new(),
            ring_timeout_ms: 30_000,
            max_duration_ms: 600_000,
            use_amd: false,
            record: false,
            record_channels: media::Channels::Mono,
            voice_name: String::new(),
            webhook_url: None,
            created_at: Timestamp(0),
        };
        let settings = settings();
        let none =
            [(1, 0), (0, 1)].map(|(trunk, hop)| target(&order, trunk, (hop, None), &settings).is_none());
        assert_eq!(none, [true, true]);
        let elsewhere = "sip:gw7@192.0.2.8:5099".parse().unwrap();
        let redirected = target(&order, 0, (0, Some(&elsewhere)), &settings).unwrap();
        assert_eq!((redirected.uri, redirected.peer.addr), (elsewhere, "192.0.2.8:5099".parse().unwrap()));
        target(&order, 0, (0, None), &settings).unwrap()
    }

    #[test]
    fn a_plain_trunk_is_told_the_caller_id_and_nothing_else() {
        let target = dialled(Some("+4930123456"), Some("14155550199"), TrunkProfile::default());
        assert_eq!(target.uri.to_string(), "sip:0014155550100@sbc.example:5070");
        assert_eq!(target.from.to_string(), "sip:+4930123456@192.0.2.9");
        assert!(target.headers.is_empty() && target.from_display.is_none());
        let target = dialled(None, Some("14155550199"), TrunkProfile::default());
        assert_eq!(target.from.to_string(), "sip:14155550199@192.0.2.9");
        let target = dialled(None, None, TrunkProfile::default());
        assert_eq!(target.from.to_string(), "sip:trunkline@192.0.2.9");
    }

    #[test]
    fn numbers_and_identity_follow_the_profile() {
        let profile = TrunkProfile {
            number_format: NumberFormat::parse("plus").unwrap(),
            caller_id_format: NumberFormat::parse("e164"),
            from_user: "account7".into(),
            from_domain: "carrier.example".into(),
            identity: vec![Identity::Pai, Identity::Ppi, Identity::Rpid],
            diversion: "+14155550177".into(),
            external_address: "203.0.113.5".parse().ok(),
            source_cidrs: vec!["198.51.100.0/24".into()],
            ..TrunkProfile::default()
        };
        let target = dialled(Some("+4930123456"), None, profile);
        assert_eq!(target.uri.to_string(), "sip:+14155550100@sbc.example:5070");
        assert_eq!(target.from.to_string(), "sip:account7@carrier.example");
        let header = |name: &str| {
            let found = target.headers.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        assert_eq!(header("P-Asserted-Identity"), "<sip:4930123456@carrier.example>");
        assert_eq!(header("P-Preferred-Identity"), "<sip:4930123456@carrier.example>");
        let rpid = "<sip:4930123456@carrier.example>;party=calling;screen=yes;privacy=off";
        assert_eq!(header("Remote-Party-ID"), rpid);
        assert_eq!(header("Diversion"), "<sip:14155550177@carrier.example>;reason=unconditional");
        let from = |ip: &str| target.sources.iter().any(|n| n.contains(ip.parse().unwrap()));
        assert!(from("192.0.2.1") && from("198.51.100.77") && !from("192.0.2.2") && !from("198.51.101.1"));
    }

    #[test]
    fn an_anonymous_caller_is_known_to_the_trunk_alone() {
        let profile =
            TrunkProfile { identity: vec![Identity::Pai, Identity::Rpid], ..TrunkProfile::default() };
        let target = dialled(Some("anonymous"), Some("14155550199"), profile);
        assert_eq!(target.from.to_string(), "sip:anonymous@anonymous.invalid");
        assert_eq!(target.from_display.as_deref(), Some("Anonymous"));
        let expected = [
            ("Privacy", "id"),
            ("P-Asserted-Identity", "<sip:14155550199@192.0.2.9>"),
            ("Remote-Party-ID", "<sip:14155550199@192.0.2.9>;party=calling;screen=yes;privacy=full"),
        ];
        let headers: Vec<_> = target.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(headers, expected);
        let target = dialled(Some("anonymous"), None, TrunkProfile::default());
        assert_eq!(target.headers, [("Privacy".to_owned(), "id".to_owned())]);
    }
}

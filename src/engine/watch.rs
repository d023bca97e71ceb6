//! Trunks apart from any call: registrations that are kept and OPTIONS that are sent now and then. Owns which errand
//! of the endpoint belongs to which trunk; what a registration does next is `sip`'s, what is made of the news is told
//! to others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sip::register::{RegisterEvent, Registrar};
use sip::{Endpoint, ErrandEvent, ErrandId};

use super::target::host;
use crate::model::call::Hop;
use crate::model::trunk::{TrunkNews, TrunkWatch};

/// Trunks watched at most.
const WATCHES_MAX: usize = 1000;
/// A registration that could not begin, because the endpoint was full, is tried again so long after.
const BEGIN_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Watched {
    wish: TrunkWatch,
    registration: Option<ErrandId>,
    /// When one that could not begin is tried again.
    register_at: Option<Instant>,
    ping: Option<ErrandId>,
    ping_at: Option<Instant>,
}

/// The trunks that are watched. See the module's words.
#[derive(Debug, Default)]
pub(super) struct Watches {
    trunks: BTreeMap<String, Watched>,
    /// Whose errand it is; those of trunks that are gone stay until their last event.
    errands: BTreeMap<ErrandId, String>,
    /// The first of all that is due.
    next: Option<Instant>,
}

impl Watched {
    /// Begins to be registered, or tries again later.
    fn register(&mut self, now: Instant, endpoint: &mut Endpoint, errands: &mut BTreeMap<ErrandId, String>) {
        let wish = &self.wish;
        let credentials =
            sip::Credentials { username: wish.username.clone(), password: wish.password.0.clone() };
        let registrar = Registrar {
            uri: sip::Uri::sip_at("", host(&wish.host), wish.port),
            address: sip::Uri::sip_at(&wish.username, host(&wish.host), None),
            peer: peer(endpoint, &wish.hop),
            credentials: Some(credentials),
            expires_s: wish.register_expires_s,
        };
        self.registration = endpoint.register(now, registrar).ok();
        match self.registration {
            Some(id) => {
                errands.insert(id, wish.endpoint.clone());
            }
            None => self.register_at = Some(now + BEGIN_AGAIN),
        }
    }
}

impl Watches {
    /// From here on these are watched and no others. What has not changed goes on undisturbed.
    pub(super) fn set(&mut self, now: Instant, endpoint: &mut Endpoint, list: Vec<TrunkWatch>) {
        let mut before = std::mem::take(&mut self.trunks);
        for wish in list.into_iter().take(WATCHES_MAX) {
            let known = before.remove(&wish.endpoint);
            let next = self.adopt(now, endpoint, known, wish);
            self.trunks.insert(next.wish.endpoint.clone(), next);
        }
        for gone in before.into_values() {
            if let Some(registration) = gone.registration {
                endpoint.unregister(now, registration);
            }
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        let due = |watched: &Watched| [watched.ping_at, watched.register_at];
        self.next = self.trunks.values().flat_map(due).flatten().min();
    }

    fn adopt(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        known: Option<Watched>,
        wish: TrunkWatch,
    ) -> Watched {
        let interval = |wish: &TrunkWatch| (wish.options_interval_s > 0).then_some(now);
        let mut next = match known {
            Some(known) if known.wish == wish => return known,
            Some(known) => {
                let same = same_registration(&known.wish, &wish);
                if let Some(old) = known.registration.filter(|_| !same) {
                    endpoint.unregister(now, old);
                }
                let registration = known.registration.filter(|_| same);
                Watched { registration, register_at: None, ping: None, ping_at: interval(&wish), wish }
            }
            None => {
                Watched { registration: None, register_at: None, ping: None, ping_at: interval(&wish), wish }
            }
        };
        endpoint.advertise(next.wish.hop.address.ip(), next.wish.external_address);
        if next.wish.register && next.registration.is_none() {
            next.register(now, endpoint, &mut self.errands);
        }
        next
    }

    /// When [`Watches::timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Sends the OPTIONS that are due, and begins registrations that could not begin. OPTIONS that are still unanswered when
    /// the next are due were missed.
    pub(super) fn timeout(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        ours: IpAddr,
    ) -> Vec<(String, TrunkNews)> {
        let mut news = Vec::new();
        if self.next.is_none_or(|next| next > now) {
            return news;
        }
        for (name, watched) in &mut self.trunks {
            if watched.register_at.take_if(|at| *at <= now).is_some() {
                watched.register(now, endpoint, &mut self.errands);
            }
            if watched.ping_at.is_none_or(|at| at > now) {
                continue;
            }
            let wish = &watched.wish;
            watched.ping_at = Some(now + Duration::from_secs(wish.options_interval_s.into()));
            if let Some(missed) = watched.ping.take() {
                self.errands.remove(&missed);
                news.push((name.clone(), TrunkNews::PingMissed));
            }
            let uri = sip::Uri::sip_at("", host(&wish.host), wish.port);
            let from = sip::Uri::sip_at("trunkline", sip::Host::Addr(ours), None);
            let to = peer(endpoint, &wish.hop);
            if let Ok(id) = endpoint.options(now, uri, from, to) {
                self.errands.insert(id, name.clone());
                watched.ping = Some(id);
            }
        }
        self.find_next();
        news
    }

    /// What an event means, and for which trunk.
    pub(super) fn heard(&mut self, id: ErrandId, event: ErrandEvent) -> Option<(String, TrunkNews)> {
        let over = match &event {
            ErrandEvent::Answered { .. } | ErrandEvent::Unanswered => true,
            ErrandEvent::Registration(event) => *event == RegisterEvent::Unregistered,
        };
        let name = if over { self.errands.remove(&id)? } else { self.errands.get(&id)?.clone() };
        let watched = self.trunks.get_mut(&name);
        let news = match event {
            ErrandEvent::Answered { code, after, .. } => {
                let elapsed_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
                TrunkNews::Pinged { code, elapsed_ms }
            }
            ErrandEvent::Unanswered => TrunkNews::PingMissed,
            ErrandEvent::Registration(RegisterEvent::Registered { for_s }) => TrunkNews::Registered { for_s },
            ErrandEvent::Registration(RegisterEvent::Failed { code, reason, again_in_s }) => {
                TrunkNews::RegisterFailed { code, reason, again_in_s }
            }
            ErrandEvent::Registration(RegisterEvent::Unregistered) => {
                // The old registration of a trunk that has a new one says nothing of that.
                if watched.as_ref().is_some_and(|w| w.registration.is_some_and(|new| new != id)) {
                    return None;
                }
                TrunkNews::Unregistered
            }
        };
        if let Some(watched) = watched {
            watched.ping.take_if(|ping| *ping == id);
        }
        Some((name, news))
    }
}

fn peer(endpoint: &mut Endpoint, hop: &Hop) -> sip::Peer {
    let peer = sip::Peer::new(hop.transport, hop.address);
    match &hop.server_name {
        Some(name) => endpoint.named(peer, name),
        None => peer,
    }
}

fn same_registration(a: &TrunkWatch, b: &TrunkWatch) -> bool {
    let asked = |w: &TrunkWatch| (w.register, w.register_expires_s, w.port, w.external_address);
    asked(a) == asked(b)
        && a.hop == b.hop
        && a.host == b.host
        && a.username == b.username
        && a.password == b.password
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn wish(name: &str) -> TrunkWatch {
        TrunkWatch {
            endpoint: name.into(),
            host: "192.0.2.1".into(),
            port: None,
            hop: Hop::udp("192.0.2.1:5060".parse().unwrap()),
            username: "alice".into(),
            password: Secret("secret".into()),
            register: true,
            register_expires_s: 60,
            options_interval_s: 10,
            external_address: None,
        }
    }

    struct Bed {
        watches: Watches,
        endpoint: Endpoint,
        now: Instant,
    }

    impl Bed {
        #[expect(clippy::disallowed_methods, reason = "any start will do")]
        fn new() -> Self {
            let config = sip::Config::new("192.0.2.9:5060".parse().unwrap());
            let endpoint = Endpoint::new(config, [7; 32]);
            Self { watches: Watches::default(), endpoint, now: Instant::now() }
        }

        fn set(&mut self, list: Vec<TrunkWatch>) {
            self.watches.set(self.now, &mut self.endpoint, list);
        }

        fn sent(&mut self) -> Vec<String> {
            let sent = std::iter::from_fn(|| self.endpoint.poll_transmit());
            sent.map(|transmit| String::from_utf8(transmit.bytes.to_vec()).unwrap()).collect()
        }

        fn answer(&mut self, request: &str, status: &str, more: &str) -> Option<(String, TrunkNews)> {
            let line = |name: &str| {
                request.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
            };
            let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].map(line).join("\r\n");
            let text = format!("SIP/2.0 {status}\r\n{names}\r\n{more}Content-Length: 0\r\n\r\n");
            let peer = sip::Peer::udp("192.0.2.1:5060".parse().unwrap());
            self.endpoint.handle_datagram(self.now, peer, text.as_bytes());
            let (id, event) = self.endpoint.poll_errand()?;
            self.watches.heard(id, event)
        }

        fn due(&mut self) -> Vec<(String, TrunkNews)> {
            self.watches.timeout(self.now, &mut self.endpoint, [192, 0, 2, 9].into())
        }
    }

    #[test]
    fn a_registration_is_kept_and_given_up() {
        let mut bed = Bed::new();
        bed.set(vec![wish("a")]);
        let first = bed.sent().remove(0);
        assert!(first.starts_with("REGISTER sip:192.0.2.1 SIP/2.0\r\n"), "{first}");
        assert!(first.contains("Contact: <sip:alice@192.0.2.9:5060>\r\n"), "{first}");
        let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n";
        assert_eq!(bed.answer(&first, "401 Unauthorized", challenge), None);
        let second = bed.sent().remove(0);
        assert!(second.contains("Authorization: Digest username=\"alice\""), "{second}");
        let told = bed.answer(&second, "200 OK", "Expires: 60\r\n");
        assert_eq!(told, Some(("a".to_owned(), TrunkNews::Registered { for_s: 60 })));

        // The same again disturbs nothing; another password begins anew.
        bed.set(vec![wish("a")]);
        bed.set(vec![TrunkWatch { options_interval_s: 0, ..wish("a") }]);
        assert!(bed.sent().is_empty());
        bed.set(vec![TrunkWatch { password: Secret("other".into()), ..wish("a") }]);
        let sent = bed.sent();
        assert!(sent[0].contains("Expires: 0\r\n") && sent[1].contains("Expires: 60\r\n"), "{sent:?}");
        assert_eq!(bed.answer(&sent[0], "200 OK", ""), None);
        bed.answer(&sent[1], "200 OK", "Expires: 60\r\n");
        bed.set(Vec::new());
        let last = bed.sent().remove(0);
        let told = bed.answer(&last, "200 OK", "");
        assert_eq!(told, Some(("a".to_owned(), TrunkNews::Unregistered)));
        assert!(bed.watches.errands.is_empty());
    }

    #[test]
    fn a_registration_that_could_not_begin_is_tried_again() {
        let mut bed = Bed::new();
        // So full that nothing more can begin.
        let full = sip::Config { max_transactions: 0, ..sip::Config::new("192.0.2.9:5060".parse().unwrap()) };
        let room = std::mem::replace(&mut bed.endpoint, Endpoint::new(full, [7; 32]));
        bed.set(vec![TrunkWatch { options_interval_s: 0, ..wish("a") }]);
        assert!(bed.sent().is_empty());
        bed.endpoint = room;
        let due = bed.watches.deadline().unwrap();
        bed.due();
        assert!(bed.sent().is_empty(), "not before its time");
        bed.now = due;
        bed.due();
        assert!(bed.sent().remove(0).starts_with("REGISTER "));
        assert_eq!(bed.watches.deadline(), None);
    }

    #[test]
    fn options_are_sent_in_time_and_missed() {
        let mut bed = Bed::new();
        bed.set(vec![TrunkWatch { register: false, ..wish("a") }]);
        assert_eq!((bed.watches.deadline(), bed.due()), (Some(bed.now), Vec::new()));
        let first = bed.sent().remove(0);
        assert!(first.starts_with("OPTIONS sip:192.0.2.1 SIP/2.0\r\n"), "{first}");
        bed.now += Duration::from_millis(7);
        let told = bed.answer(&first, "404 Not Found", "");
        assert_eq!(told, Some(("a".to_owned(), TrunkNews::Pinged { code: 404, elapsed_ms: 7 })));
        assert!(bed.due().is_empty());
        bed.now += Duration::from_secs(10);
        assert!(bed.due().is_empty());
        let second = bed.sent().remove(0);
        bed.now += Duration::from_secs(10);
        assert_eq!(bed.due(), [("a".to_owned(), TrunkNews::PingMissed)]);
        // Too late.
        assert_eq!(bed.answer(&second, "200 OK", ""), None);
    }
}

//! Keeping a registration: REGISTER, its digest, its refresh, its failures and its end (RFC 3261 §10.2, RFC 5626 §4.5).
//!
//! Owns what is to be sent next and when; pure. Never sends, draws no randomness (a random number and the client nonce are
//! arguments) and is no registrar.

use std::time::{Duration, Instant};

use crate::Peer;
use crate::auth::{self, Answered, Asker, Credentials, Logins};
use crate::headers::{CSeq, NameAddr, read_number};
use crate::message::{Method, Request, Response};
use crate::uri::Uri;

/// Longest lifetime that is asked for or believed, in seconds.
const MAX_EXPIRES_S: u32 = 86_400;
/// The wait after the first failure; it doubles with each (RFC 5626 §4.5).
const RETRY_MIN_S: u32 = 30;
/// The longest wait between two tries.
const RETRY_MAX_S: u32 = 1_800;
/// How often one REGISTER is sent again with credentials or a longer lifetime.
const MAX_TRIES: u8 = 4;

/// A registration that we want to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrar {
    /// The Request-URI: the registrar's domain, without a user.
    pub uri: Uri,
    /// `To` and `From`: the address that is registered.
    pub address: Uri,
    /// Where the requests go.
    pub peer: Peer,
    /// What challenges are answered with.
    pub credentials: Option<Credentials>,
    /// Lifetime asked for, in seconds.
    pub expires_s: u32,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterEvent {
    /// We are registered from now on for this many seconds; it is refreshed before they are over.
    Registered {
        /// What the registrar granted.
        for_s: u32,
    },
    /// The registrar refused, or did not answer.
    Failed {
        /// Its status; 0: none came.
        code: u16,
        /// Its phrase, or our own words.
        reason: String,
        /// When the next try is made, in seconds.
        again_in_s: u32,
    },
    /// We are not registered any more, by our own wish. The last event.
    Unregistered,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait.
    Nothing,
    /// Send [`Registration::request`] again, now.
    Again,
    /// Tell.
    Tell(RegisterEvent),
}

/// The life of one registration.
#[derive(Debug)]
pub(crate) struct Registration {
    target: Registrar,
    call_id: String,
    tag: String,
    contact: String,
    seq: u32,
    logins: Logins,
    /// The `Authorization` of the latest request, to know whether a challenge is news.
    sent: Vec<(&'static str, String)>,
    tries: u8,
    failures: u32,
    expires_s: u32,
    /// The registrar has, or may have, a binding of ours.
    bound: bool,
    leaving: bool,
    /// When the next REGISTER is due; `None` while one is under way, and at the end.
    due: Option<Instant>,
}

impl Registration {
    /// A registration whose first REGISTER is due at once. `contact` is our address as a header value.
    pub(crate) fn new(
        now: Instant,
        target: Registrar,
        call_id: String,
        tag: String,
        contact: String,
    ) -> Self {
        let expires_s = target.expires_s.clamp(1, MAX_EXPIRES_S);
        Self {
            target,
            call_id,
            tag,
            contact,
            seq: 0,
            logins: Logins::default(),
            sent: Vec::new(),
            tries: 0,
            failures: 0,
            expires_s,
            bound: false,
            leaving: false,
            due: Some(now),
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.target.peer
    }

    /// When [`Registration::request`] is wanted.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// The next REGISTER with its sequence number. `cnonce` is a fresh client nonce.
    pub(crate) fn request(&mut self, cnonce: &str) -> (Request, u32) {
        self.due = None;
        self.seq += 1;
        let mut request = Request::new(Method::Register, self.target.uri.clone());
        let address = NameAddr::new(self.target.address.clone());
        let headers = &mut request.headers;
        headers.push("Max-Forwards", "70");
        headers.push("From", address.clone().with_tag(&self.tag).to_string());
        headers.push("To", address.to_string());
        headers.push("Call-ID", self.call_id.clone());
        headers.push("CSeq", CSeq { seq: self.seq, method: Method::Register }.to_string());
        headers.push("Contact", self.contact.clone());
        let expires = if self.leaving { 0 } else { self.expires_s };
        headers.push("Expires", expires.to_string());
        if let Some(credentials) = &self.target.credentials {
            let uri = request.uri.to_string();
            let answered = Answered { method: "REGISTER", uri: &uri, body: &[] };
            self.sent = self.logins.headers(credentials, &answered, cnonce);
            for (name, value) in &self.sent {
                request.headers.push(name, value.clone());
            }
        }
        self.bound |= !self.leaving;
        (request, self.seq)
    }

    /// A final answer. `random` spreads the next try.
    pub(crate) fn answered(&mut self, now: Instant, response: &Response, random: u32) -> Next {
        match response.code {
            ..200 => Next::Nothing,
            200..300 if self.leaving => self.left(),
            200..300 => self.granted(now, response, random),
            401 | 407 if self.login(response) => Next::Again,
            423 if !self.leaving && self.longer(response) => Next::Again,
            _ if self.leaving => self.left(),
            code => {
                let asked = response.headers.get("Retry-After").and_then(|value| {
                    read_number(value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default())
                });
                self.refused(now, (code, response.reason.clone()), asked, random)
            }
        }
    }

    /// No answer came, or the request could not be sent.
    pub(crate) fn failed(&mut self, now: Instant, why: &str, random: u32) -> Next {
        if self.leaving {
            return self.left();
        }
        self.refused(now, (0, why.to_owned()), None, random)
    }

    /// We want to be registered no longer. [`Next::Again`]: the registrar must be told.
    pub(crate) fn leave(&mut self) -> Next {
        self.leaving = true;
        (self.due, self.tries) = (None, 0);
        if self.bound { Next::Again } else { self.left() }
    }

    fn left(&mut self) -> Next {
        (self.bound, self.due) = (false, None);
        Next::Tell(RegisterEvent::Unregistered)
    }

    fn granted(&mut self, now: Instant, response: &Response, random: u32) -> Next {
        let for_s = self.lifetime(response);
        if for_s == 0 {
            return self.refused(now, (response.code, "granted no time".to_owned()), None, random);
        }
        (self.failures, self.tries) = (0, 0);
        self.logins.accepted();
        // Between half and two thirds, so that many that began together do not stay together.
        let share = u64::from(500 + random % 167);
        self.due = Some(now + Duration::from_millis((u64::from(for_s) * share).max(1_000)));
        Next::Tell(RegisterEvent::Registered { for_s })
    }

    /// How long the binding holds: our contact's own parameter, else the header, else what was asked (RFC 3261 §10.2.4).
    fn lifetime(&self, response: &Response) -> u32 {
        let ours = self.contact.parse::<NameAddr>().ok().map(|contact| contact.uri);
        let contacts: Vec<NameAddr> =
            response.headers.list("Contact").filter_map(|contact| contact.parse().ok()).collect();
        let own = contacts.iter().find(|contact| same_place(Some(&contact.uri), ours.as_ref()));
        // Some registrars write what they see in place of what we said: one binding alone is ours.
        let own = own.or(if contacts.len() == 1 { contacts.first() } else { None });
        let said = own.and_then(|contact| contact.params.get("expires")).and_then(read_number);
        let said = said.or_else(|| response.headers.get("Expires").and_then(read_number));
        said.unwrap_or(self.expires_s).min(MAX_EXPIRES_S)
    }

    fn login(&mut self, response: &Response) -> bool {
        let Some(asker) = Asker::of(response.code) else { return false };
        if self.target.credentials.is_none() || self.tries >= MAX_TRIES {
            return false;
        }
        let Some(challenge) = auth::strongest(response.headers.get_all(asker.challenge_header())) else {
            return false;
        };
        let name = asker.answer_header();
        let sent: Vec<&str> =
            self.sent.iter().filter(|(sent, _)| *sent == name).map(|(_, value)| value.as_str()).collect();
        let shown = (!sent.is_empty()).then(|| sent.join(", "));
        self.tries += 1;
        self.logins.challenged(asker, challenge, shown.as_deref())
    }

    /// 423: the registrar wants longer lifetimes (RFC 3261 §10.2.8).
    fn longer(&mut self, response: &Response) -> bool {
        let least = response.headers.get("Min-Expires").and_then(read_number).unwrap_or(0);
        let news = least > self.expires_s && least <= MAX_EXPIRES_S && self.tries < MAX_TRIES;
        if news {
            self.tries += 1;
            self.expires_s = least;
        }
        news
    }

    fn refused(
        &mut self,
        now: Instant,
        (code, reason): (u16, String),
        asked_s: Option<u32>,
        random: u32,
    ) -> Next {
        self.failures = self.failures.saturating_add(1);
        self.tries = 0;
        let most = RETRY_MIN_S.saturating_mul(1 << (self.failures - 1).min(10)).min(RETRY_MAX_S);
        let spread = u64::from(most) * u64::from(500 + random % 501) / 1000;
        let wait_s = u32::try_from(spread).unwrap_or(most).max(asked_s.unwrap_or(0).min(RETRY_MAX_S));
        self.due = Some(now + Duration::from_secs(wait_s.into()));
        Next::Tell(RegisterEvent::Failed { code, reason, again_in_s: wait_s })
    }
}

/// Whether two addresses name the same user at the same host and port.
fn same_place(a: Option<&Uri>, b: Option<&Uri>) -> bool {
    let place = |uri: Option<&Uri>| {
        let sip = uri?.as_sip()?;
        Some((sip.user.clone(), sip.host.to_string().to_ascii_lowercase(), sip.port.unwrap_or(5060)))
    };
    place(a).is_some_and(|a| Some(a) == place(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        registration: Registration,
        now: Instant,
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn bed() -> Bed {
        let now = Instant::now();
        let target = Registrar {
            uri: "sip:carrier.example".parse().unwrap(),
            address: "sip:alice@carrier.example".parse().unwrap(),
            peer: Peer::udp("192.0.2.1:5060".parse().unwrap()),
            credentials: Some(Credentials { username: "alice".into(), password: "secret".into() }),
            expires_s: 300,
        };
        let contact = "<sip:alice@192.0.2.9:5060>".to_owned();
        Bed { registration: Registration::new(now, target, "call".into(), "tag".into(), contact), now }
    }

    fn response(code: u16, headers: &[(&str, &str)]) -> Response {
        let mut response = Response::new(code);
        for (name, value) in headers {
            response.headers.push(name, *value);
        }
        response
    }

    impl Bed {
        fn sent(&mut self) -> Request {
            self.registration.request("cnonce").0
        }

        fn gets(&mut self, code: u16, headers: &[(&str, &str)]) -> Next {
            self.registration.answered(self.now, &response(code, headers), 0)
        }

        fn due_in(&self) -> Duration {
            self.registration.deadline().unwrap() - self.now
        }
    }

    const CHALLENGE: (&str, &str) = ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n1\", qop=\"auth\"");

    #[test]
    fn a_challenge_is_answered_and_the_grant_refreshed_in_time() {
        let mut bed = bed();
        assert_eq!(bed.due_in(), Duration::ZERO);
        let first = bed.sent();
        assert_eq!(first.headers.get("Expires"), Some("300"));
        assert_eq!(first.headers.get("CSeq"), Some("1 REGISTER"));
        assert!(first.headers.get("Authorization").is_none() && bed.registration.deadline().is_none());
        assert_eq!(bed.gets(401, &[CHALLENGE]), Next::Again);
        let second = bed.sent();
        let shown = second.headers.get("Authorization").unwrap();
        assert!(shown.contains("nc=00000001") && !shown.contains("secret"), "{shown}");
        assert_eq!(second.headers.get("Call-ID"), first.headers.get("Call-ID"));
        let contact = ("Contact", "<sip:other@h>;expires=9, <sip:alice@192.0.2.9>;expires=120");
        assert_eq!(
            bed.gets(200, &[contact, ("Expires", "7")]),
            Next::Tell(RegisterEvent::Registered { for_s: 120 })
        );
        assert_eq!(bed.due_in(), Duration::from_secs(60));
        // A refresh shows the known nonce with its next count.
        let shown = bed.sent().headers.get("Authorization").unwrap().to_owned();
        assert!(shown.contains("nc=00000002"), "{shown}");
        // An old nonce is news without `stale`, once.
        let news = ("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n2\", qop=\"auth\"");
        assert_eq!(bed.gets(401, &[news]), Next::Again);
        assert!(bed.sent().headers.get("Authorization").unwrap().contains("nonce=\"n2\""));
        assert_eq!(bed.gets(200, &[]), Next::Tell(RegisterEvent::Registered { for_s: 300 }));
    }

    #[test]
    fn a_wrong_password_is_not_tried_twice() {
        let mut bed = bed();
        bed.sent();
        assert_eq!(bed.gets(401, &[CHALLENGE]), Next::Again);
        bed.sent();
        let again_in_s = 15;
        let failed = RegisterEvent::Failed { code: 401, reason: "Unauthorized".into(), again_in_s };
        assert_eq!(bed.gets(401, &[CHALLENGE]), Next::Tell(failed));
    }

    #[test]
    fn waits_grow_with_failures_and_end_with_success() {
        let mut bed = bed();
        let mut waits = Vec::new();
        for _ in 0..9 {
            bed.sent();
            bed.registration.failed(bed.now, "no answer", 500);
            waits.push(bed.due_in().as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
        bed.sent();
        bed.gets(200, &[("Expires", "600")]);
        assert_eq!(bed.due_in(), Duration::from_secs(300));
        bed.sent();
        bed.gets(503, &[("Retry-After", "90 (maintenance)")]);
        assert_eq!(bed.due_in(), Duration::from_secs(90));
    }

    #[test]
    fn a_longer_lifetime_is_asked_for_once() {
        let mut bed = bed();
        bed.sent();
        assert_eq!(bed.gets(423, &[("Min-Expires", "3600")]), Next::Again);
        assert_eq!(bed.sent().headers.get("Expires"), Some("3600"));
        assert!(matches!(bed.gets(423, &[("Min-Expires", "3600")]), Next::Tell(_)));
        for least in ["0", "x", "999999"] {
            bed.sent();
            assert!(matches!(bed.gets(423, &[("Min-Expires", least)]), Next::Tell(_)), "{least}");
        }
    }

    #[test]
    fn a_grant_of_nothing_is_a_failure() {
        let mut bed = bed();
        bed.sent();
        assert!(matches!(
            bed.gets(200, &[("Expires", "0")]),
            Next::Tell(RegisterEvent::Failed { code: 200, .. })
        ));
    }

    #[test]
    fn leaving_tells_the_registrar_if_it_may_know_us() {
        let mut new = bed();
        assert_eq!(new.registration.leave(), Next::Tell(RegisterEvent::Unregistered));
        let mut bed = bed();
        bed.sent();
        bed.gets(200, &[]);
        assert_eq!(bed.registration.leave(), Next::Again);
        assert_eq!(bed.sent().headers.get("Expires"), Some("0"));
        assert_eq!(bed.gets(401, &[CHALLENGE]), Next::Again);
        bed.sent();
        assert_eq!(bed.gets(200, &[]), Next::Tell(RegisterEvent::Unregistered));
        assert_eq!(bed.registration.deadline(), None);
        bed.sent();
        assert_eq!(bed.registration.failed(bed.now, "no answer", 0), Next::Tell(RegisterEvent::Unregistered));
    }
}

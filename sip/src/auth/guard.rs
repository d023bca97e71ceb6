//! The side that asks: challenges for those who call us, and whether their answers are right (RFC 7616 §3.3 to §3.7, RFC 8760,
//! RFC 3261 §22.1).
//!
//! Keeps nothing between challenge and answer: a nonce carries its moment and proves by a keyed hash that we gave it to this
//! address for this call. A nonce that was overheard is of no use from elsewhere, in another call, or a minute later.

use std::net::IpAddr;

use super::{Credentials, Hash};
use crate::headers::{quote, split_list, unquote};

/// How long a nonce is good, in seconds.
const NONCE_LIVES_S: u64 = 60;
/// The algorithms asked for. MD5 stands first: many who know nothing else look no further, and who knows better chooses the
/// stronger of several (RFC 8760 §2.4).
const ASKED: [(Hash, &str); 2] = [(Hash::Md5, "MD5"), (Hash::Sha256, "SHA-256")];
/// Most answers of one request that are looked at.
const MAX_ANSWERS: usize = 8;
/// Longest answer that is looked at, bytes.
const MAX_ANSWER: usize = 2048;

/// Asks callers who they are.
pub struct Guard {
    key: [u8; 32],
    realm: String,
    /// SHA-256 is asked for, too.
    sha256: bool,
}

/// The request that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its `Call-ID`.
    pub call_id: &'a str,
    /// Where it came from.
    pub from: IpAddr,
    /// Seconds on any clock that does not run backwards by much.
    pub at_s: u64,
}

/// What a caller showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// No answer to a challenge of ours.
    Missing,
    /// A nonce that is too old, or was given for another call: to be asked once more, with `stale`.
    Stale,
    /// A wrong name or password.
    Wrong,
    /// The credentials at this place of the list.
    Right(usize),
}

/// An `Authorization` value taken apart.
struct Answer {
    params: Vec<(String, String)>,
}

impl Answer {
    fn read(value: &str) -> Option<Self> {
        let value = value.trim();
        let (scheme, rest) = value.split_once(char::is_whitespace)?;
        if value.len() > MAX_ANSWER || !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let pair = |piece: &str| {
            let (name, raw) = piece.split_once('=')?;
            let raw = raw.trim();
            let value = unquote(raw).unwrap_or_else(|| raw.to_owned());
            Some((name.trim().to_ascii_lowercase(), value))
        };
        Some(Self { params: split_list(rest).filter_map(pair).collect() })
    }

    fn get(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The response that these credentials would have given; `None` for an algorithm or a protection not asked for.
    fn expected(&self, method: &str, realm: &str, known: &Credentials) -> Option<String> {
        let algorithm = match self.get("algorithm") {
            "" => "MD5",
            named => named,
        };
        let (hash, _) = ASKED.iter().find(|(_, name)| algorithm.eq_ignore_ascii_case(name))?;
        let hex = |text: String| hash.hex(text.as_bytes());
        let a1 = hex(format!("{}:{realm}:{}", known.username, known.password));
        let a2 = hex(format!("{method}:{}", self.get("uri")));
        let nonce = self.get("nonce");
        match self.get("qop") {
            // Those of RFC 2069 do not know it.
            "" => Some(hex(format!("{a1}:{nonce}:{a2}"))),
            "auth" => {
                let (count, cnonce) = (self.get("nc"), self.get("cnonce"));
                Some(hex(format!("{a1}:{nonce}:{count}:{cnonce}:auth:{a2}")))
            }
            _ => None,
        }
    }
}

impl Guard {
    /// A guard of a realm, whose nonces nobody makes who has not this key.
    pub fn new(key: [u8; 32], realm: &str) -> Self {
        Self { key, realm: realm.to_owned(), sha256: true }
    }

    /// Asks for MD5 alone: some who know nothing else give up where they see anything else.
    pub fn md5_alone(self) -> Self {
        Self { sha256: false, ..self }
    }

    /// The values of `WWW-Authenticate`, each for a header of its own.
    pub fn challenges(&self, asked: &Presented<'_>, stale: bool) -> Vec<String> {
        let nonce = self.nonce(asked, asked.at_s);
        let stale = if stale { ", stale=true" } else { "" };
        let challenge = |(_, name): &(Hash, &str)| {
            let realm = quote(&self.realm);
            format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={name}, qop=\"auth\"{stale}")
        };
        ASKED.iter().filter(|(hash, _)| self.sha256 || *hash == Hash::Md5).map(challenge).collect()
    }

    /// Whether one of a request's `Authorization` values is right by one of these credentials.
    pub fn check<'a>(
        &self,
        asked: &Presented<'_>,
        answers: impl Iterator<Item = &'a str>,
        known: &[Credentials],
    ) -> Login {
        let mut found = Login::Missing;
        for answer in answers.take(MAX_ANSWERS).filter_map(Answer::read) {
            if answer.get("realm") != self.realm {
                continue;
            }
            if !self.is_fresh(asked, answer.get("nonce")) {
                found = Login::Stale;
                continue;
            }
            let right = |known: &Credentials| {
                let expected = answer.expected(asked.method, &self.realm, known);
                let named = answer.get("username") == known.username;
                expected.is_some_and(|expected| same(&expected, answer.get("response"))) && named
            };
            match known.iter().position(right) {
                Some(place) => return Login::Right(place),
                None => found = Login::Wrong,
            }
        }
        found
    }

    /// The moment in hex, and the proof of it.
    fn nonce(&self, asked: &Presented<'_>, at_s: u64) -> String {
        let said = format!("{at_s:x} {} {}", asked.from.to_canonical(), asked.call_id);
        // Of this function nobody can lengthen what was hashed, as they could with its longer kin.
        let proof = Hash::Sha512t256.hex(&[self.key.as_slice(), said.as_bytes()].concat());
        format!("{at_s:016x}{}", proof.get(..32).unwrap_or_default())
    }

    fn is_fresh(&self, asked: &Presented<'_>, nonce: &str) -> bool {
        let at_s = nonce.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        at_s.is_some_and(|at_s| {
            let age = asked.at_s.saturating_sub(at_s);
            age <= NONCE_LIVES_S && at_s <= asked.at_s && same(&self.nonce(asked, at_s), nonce)
        })
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::super::{Answered, Challenge, strongest};
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn guard() -> Guard {
        Guard::new([7; 32], "trunkline")
    }

    fn asked(call_id: &str, at_s: u64) -> Presented<'_> {
        Presented { method: "INVITE", call_id, from: FROM, at_s }
    }

    fn user(name: &str, password: &str) -> Credentials {
        Credentials { username: name.into(), password: password.into() }
    }

    fn answer(challenge: &str, as_user: &Credentials) -> String {
        let request = Answered { method: "INVITE", uri: "sip:1@192.0.2.1", body: b"" };
        Challenge::read(challenge).unwrap().answer(as_user, &request, 1, "c0ffee")
    }

    fn check(asked: &Presented<'_>, answer: &str) -> Login {
        let known = [user("carrier", "secret"), user("other", "word")];
        guard().check(asked, std::iter::once(answer), &known)
    }

    #[test]
    fn the_right_answer_is_right_by_every_algorithm_and_names_who() {
        let now = asked("call", 1_000);
        for challenge in guard().challenges(&now, false) {
            assert_eq!(check(&now, &answer(&challenge, &user("carrier", "secret"))), Login::Right(0));
            assert_eq!(check(&now, &answer(&challenge, &user("other", "word"))), Login::Right(1));
            assert_eq!(check(&now, &answer(&challenge, &user("other", "secret"))), Login::Wrong);
            assert_eq!(check(&now, &answer(&challenge, &user("nobody", "word"))), Login::Wrong);
            let old = challenge.replace(", qop=\"auth\"", "");
            assert_eq!(check(&now, &answer(&old, &user("carrier", "secret"))), Login::Right(0), "RFC 2069");
        }
        let chosen = strongest(guard().challenges(&now, false).iter().map(String::as_str)).unwrap();
        assert_eq!(chosen.hash, Hash::Sha256);
    }

    #[test]
    fn a_nonce_is_good_for_one_call_from_one_place_for_a_minute() {
        let first = asked("call", 1_000);
        let right = answer(&guard().challenges(&first, false)[0], &user("carrier", "secret"));
        for (presented, login) in [
            (asked("call", 1_060), Login::Right(0)),
            (asked("call", 1_061), Login::Stale),
            (asked("call", 999), Login::Stale),
            (asked("another call", 1_000), Login::Stale),
            (Presented { from: "192.0.2.8".parse().unwrap(), ..first }, Login::Stale),
            (Presented { from: "::ffff:192.0.2.7".parse().unwrap(), ..first }, Login::Right(0)),
            (Presented { method: "REGISTER", ..first }, Login::Wrong),
        ] {
            assert_eq!(check(&presented, &right), login, "{presented:?}");
        }
        let stranger = Guard::new([8; 32], "trunkline").challenges(&first, false);
        assert_eq!(check(&first, &answer(&stranger[0], &user("carrier", "secret"))), Login::Stale);
        assert!(guard().challenges(&first, true)[0].contains("stale=true"));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let now = asked("call", 1_000);
        let challenge = &guard().challenges(&now, false)[0];
        let right = answer(challenge, &user("carrier", "secret"));
        for (text, login) in [
            (String::new(), Login::Missing),
            ("Basic abc".into(), Login::Missing),
            ("Digest".into(), Login::Missing),
            ("Digest ".into(), Login::Missing),
            (right.replace("trunkline", "elsewhere"), Login::Missing),
            (format!("{right}{}", " ".repeat(MAX_ANSWER)), Login::Right(0)),
            (format!("{right}, x=\"{}\"", "y".repeat(MAX_ANSWER)), Login::Missing),
            (right.replace("algorithm=MD5", "algorithm=SHA-512-256"), Login::Wrong),
            (right.replace("qop=auth", "qop=auth-int"), Login::Wrong),
            (right.replace("nonce=\"", "nonce=\"é"), Login::Stale),
            ("Digest realm=\"trunkline\", nonce=\"\", response=\"\"".into(), Login::Stale),
        ] {
            assert_eq!(check(&now, &text), login, "{text}");
        }
    }
}

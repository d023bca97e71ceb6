//! Digest: from a challenge to an answer (RFC 7616, RFC 8760, RFC 3261 §22), and, in `guard`, back.
//!
//! Owns the choice among challenges, the arithmetic, and the nonce counts of one session. Never draws randomness (the client
//! nonce is an argument) and never shows a password.

mod guard;

pub use guard::{Guard, Login, Presented};

use std::fmt;

use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

use crate::headers::{quote, split_list, unquote};

/// What we log in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &"***").finish()
    }
}

/// Most challenges looked at in one response.
const MAX_CHALLENGES: usize = 16;

/// A hash function, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// MD5, the default when a challenge names none.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-512/256.
    Sha512t256,
}

impl Hash {
    fn hex(self, text: &[u8]) -> String {
        fn hex(bytes: &[u8]) -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        match self {
            Self::Md5 => hex(&Md5::digest(text)),
            Self::Sha256 => hex(&Sha256::digest(text)),
            Self::Sha512t256 => hex(&Sha512_256::digest(text)),
        }
    }
}

/// Quality of protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    /// None offered: RFC 2069's form.
    Legacy,
    Auth,
    AuthInt,
}

/// One `WWW-Authenticate` or `Proxy-Authenticate` value that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// As written, to be given back as written.
    algorithm: Option<String>,
    hash: Hash,
    sess: bool,
    qop: Qop,
    userhash: bool,
    /// The credentials were right, only the nonce was old.
    pub stale: bool,
}

impl Challenge {
    /// Reads a challenge; `None` when it is not Digest, lacks a part, or wants an algorithm that we do not know.
    pub fn read(value: &str) -> Option<Self> {
        let value = value.trim();
        let (scheme, rest) = value.split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let params: Vec<(String, String)> = split_list(rest)
            .filter_map(|piece| piece.split_once('='))
            .map(|(name, raw)| {
                let raw = raw.trim();
                (name.trim().to_ascii_lowercase(), unquote(raw).unwrap_or_else(|| raw.to_owned()))
            })
            .collect();
        let get = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let algorithm = get("algorithm");
        let upper = algorithm.as_deref().unwrap_or("MD5").to_ascii_uppercase();
        let (base, sess) = upper.strip_suffix("-SESS").map_or((upper.as_str(), false), |base| (base, true));
        let hash = match base {
            "MD5" => Hash::Md5,
            "SHA-256" => Hash::Sha256,
            "SHA-512-256" => Hash::Sha512t256,
            _ => return None,
        };
        let qop = match get("qop") {
            None => Qop::Legacy,
            Some(list) => {
                let offers = |word: &str| list.split(',').any(|q| q.trim().eq_ignore_ascii_case(word));
                match (offers("auth"), offers("auth-int")) {
                    (true, _) => Qop::Auth,
                    (false, true) => Qop::AuthInt,
                    (false, false) if list.trim().is_empty() => Qop::Legacy,
                    (false, false) => return None,
                }
            }
        };
        let says_true = |name: &str| get(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let (stale, userhash) = (says_true("stale"), says_true("userhash"));
        Some(Self {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            algorithm,
            hash,
            sess,
            qop,
            userhash,
            stale,
        })
    }

    /// The realm that asks.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The value of `Authorization` or `Proxy-Authorization`. `count` is how often the nonce has been used, this time included.
    pub fn answer(
        &self,
        credentials: &Credentials,
        request: &Answered<'_>,
        count: u32,
        cnonce: &str,
    ) -> String {
        let hex = |text: &str| self.hash.hex(text.as_bytes());
        let Credentials { username, password } = credentials;
        let Self { realm, nonce, .. } = self;
        let mut a1 = hex(&format!("{username}:{realm}:{password}"));
        if self.sess {
            a1 = hex(&format!("{a1}:{nonce}:{cnonce}"));
        }
        let mut a2 = format!("{}:{}", request.method, request.uri);
        if self.qop == Qop::AuthInt {
            a2 = format!("{a2}:{}", self.hash.hex(request.body));
        }
        let a2 = hex(&a2);
        let qop = match self.qop {
            Qop::Legacy => None,
            Qop::Auth => Some("auth"),
            Qop::AuthInt => Some("auth-int"),
        };
        let response = match qop {
            None => hex(&format!("{a1}:{nonce}:{a2}")),
            Some(qop) => hex(&format!("{a1}:{nonce}:{count:08x}:{cnonce}:{qop}:{a2}")),
        };
        let shown = if self.userhash { hex(&format!("{username}:{realm}")) } else { username.clone() };
        let mut out = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quote(&shown),
            quote(realm),
            quote(nonce),
            quote(request.uri)
        );
        if let Some(algorithm) = &self.algorithm {
            out.push_str(&format!(", algorithm={algorithm}"));
        }
        if let Some(opaque) = &self.opaque {
            out.push_str(&format!(", opaque={}", quote(opaque)));
        }
        if let Some(qop) = qop {
            out.push_str(&format!(", qop={qop}, nc={count:08x}, cnonce=\"{cnonce}\""));
        } else if self.sess {
            out.push_str(&format!(", cnonce=\"{cnonce}\""));
        }
        if self.userhash {
            out.push_str(", userhash=true");
        }
        out
    }
}

/// The request that an answer is made for.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI as written.
    pub uri: &'a str,
    /// Its body, for `auth-int`.
    pub body: &'a [u8],
}

/// The strongest challenge that we can answer (RFC 8760 §2.4); the first of equals.
pub fn strongest<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let readable =
        values.flat_map(split_challenges).take(MAX_CHALLENGES).filter_map(|value| Challenge::read(&value));
    readable.reduce(|best, next| if next.hash > best.hash { next } else { best })
}

/// Several challenges may stand in one header line: a piece that begins with `scheme name=` begins the next.
fn split_challenges(line: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for piece in split_list(line) {
        let head = piece.split('=').next().unwrap_or("").trim();
        match out.last_mut() {
            Some(last) if !head.contains(char::is_whitespace) => {
                last.push_str(", ");
                last.push_str(piece);
            }
            _ => out.push(piece.to_owned()),
        }
    }
    out
}

/// Who asks: a server or a proxy. They have different headers and are answered beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Server,
    Proxy,
}

impl Asker {
    pub(crate) fn of(code: u16) -> Option<Self> {
        match code {
            401 => Some(Self::Server),
            407 => Some(Self::Proxy),
            _ => None,
        }
    }

    pub(crate) fn challenge_header(self) -> &'static str {
        match self {
            Self::Server => "WWW-Authenticate",
            Self::Proxy => "Proxy-Authenticate",
        }
    }

    pub(crate) fn answer_header(self) -> &'static str {
        match self {
            Self::Server => "Authorization",
            Self::Proxy => "Proxy-Authorization",
        }
    }
}

/// A challenge that has been met, and what became of it.
#[derive(Debug)]
struct Known {
    asker: Asker,
    challenge: Challenge,
    count: u32,
    /// An answer to it was accepted: a further challenge means an old nonce rather than wrong credentials.
    proven: bool,
}

/// The logins of one session: at most [`Logins::MAX`] realms, each with its nonce and count.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    known: Vec<Known>,
}

impl Logins {
    const MAX: usize = 4;

    /// Takes the challenge of a response. `sent` tells whether the refused request had an answer for that realm and nonce:
    /// then the credentials are wrong, unless the nonce was only stale. True when the request is worth sending again.
    pub(crate) fn challenged(&mut self, asker: Asker, challenge: Challenge, sent: Option<&str>) -> bool {
        let tried = sent.is_some_and(|sent| sent.contains(&format!("realm={}", quote(&challenge.realm))));
        let same = |known: &Known| known.asker == asker && known.challenge.realm == challenge.realm;
        let aged = |known: &Known| same(known) && known.proven && known.challenge.nonce != challenge.nonce;
        if tried && !challenge.stale && !self.known.iter().any(aged) {
            return false;
        }
        if let Some(known) = self.known.iter_mut().find(|known| same(known)) {
            if known.challenge.nonce != challenge.nonce {
                known.count = 0;
            }
            (known.challenge, known.proven) = (challenge, false);
            return true;
        }
        let room = self.known.len() < Self::MAX;
        if room {
            self.known.push(Known { asker, challenge, count: 0, proven: false });
        }
        room
    }

    /// A request with these answers was accepted.
    pub(crate) fn accepted(&mut self) {
        for known in &mut self.known {
            known.proven |= known.count > 0;
        }
    }

    /// The headers that answer all that has been asked so far.
    pub(crate) fn headers(
        &mut self,
        credentials: &Credentials,
        request: &Answered<'_>,
        cnonce: &str,
    ) -> Vec<(&'static str, String)> {
        let answer = |known: &mut Known| {
            known.count += 1;
            (known.asker.answer_header(), known.challenge.answer(credentials, request, known.count, cnonce))
        };
        self.known.iter_mut().map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa() -> Credentials {
        Credentials { username: "Mufasa".into(), password: "Circle of Life".into() }
    }

    const GET: Answered<'static> = Answered { method: "GET", uri: "/dir/index.html", body: b"" };
    const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    fn challenge(algorithm: &str) -> String {
        format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"{NONCE}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        )
    }

    #[test]
    fn the_examples_of_rfc_7616_section_3_9_1() {
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let answer = Challenge::read(&challenge(algorithm)).unwrap().answer(&mufasa(), &GET, 1, CNONCE);
            assert!(answer.contains(&format!("response=\"{response}\"")), "{answer}");
            assert!(answer.contains("opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""));
            assert!(answer.contains("qop=auth, nc=00000001"));
        }
    }

    #[test]
    fn the_case_of_rfc_7616_section_3_9_2_with_the_true_sha_512_256() {
        // The RFC's own figures there come from a truncated SHA-512; these were computed apart from this code. The hashed
        // user name is the one of the RFC's erratum.
        let credentials =
            Credentials { username: "J\u{e4}s\u{f8}n Doe".into(), password: "Secret, or not?".into() };
        let value = "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
                     nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", userhash=true";
        let request = Answered { method: "GET", uri: "/doe.json", body: b"" };
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm";
        let answer = Challenge::read(value).unwrap().answer(&credentials, &request, 1, cnonce);
        for part in [
            "username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\"",
            "response=\"7a4e1192babbba02e91182d2895bfdbf7adafc6e48d4e517ca301974843d840c\"",
            "userhash=true",
        ] {
            assert!(answer.contains(part), "{answer}");
        }
    }

    #[test]
    fn sha_512_256_is_the_function_of_fips_180_4() {
        assert_eq!(
            Hash::Sha512t256.hex(b"abc"),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
        );
    }

    #[test]
    fn the_strongest_is_chosen_and_the_unknown_skipped() {
        let values =
            [challenge("MD5"), challenge("SHA-256"), challenge("SHA-1024"), "Basic realm=\"x\"".to_owned()];
        let chosen = strongest(values.iter().map(String::as_str)).unwrap();
        assert_eq!(chosen.hash, Hash::Sha256);
        let one_line = format!("{}, {}", challenge("MD5"), challenge("SHA-512-256-sess"));
        let chosen = strongest(std::iter::once(one_line.as_str())).unwrap();
        assert_eq!((chosen.hash, chosen.sess), (Hash::Sha512t256, true));
        assert!(strongest(std::iter::once("Negotiate abc")).is_none());
        let bare = strongest(std::iter::once("digest realm=\"r\",nonce=\"n\"")).unwrap();
        assert_eq!((bare.hash, bare.qop), (Hash::Md5, Qop::Legacy));
        let only_int = strongest(std::iter::once("Digest realm=r, nonce=n, qop=auth-int")).unwrap();
        assert_eq!(only_int.qop, Qop::AuthInt);
    }

    #[test]
    fn session_variants_and_integrity_follow_the_definition() {
        let value = "Digest realm=\"r\", nonce=\"n\", algorithm=MD5-sess, qop=\"auth-int\"";
        let request = Answered { method: "INVITE", uri: "sip:x@y", body: b"body" };
        let answer = Challenge::read(value).unwrap().answer(&mufasa(), &request, 10, "c");
        let md5 = |text: String| Hash::Md5.hex(text.as_bytes());
        let a1 = md5(format!("{}:n:c", md5("Mufasa:r:Circle of Life".to_owned())));
        let a2 = md5(format!("INVITE:sip:x@y:{}", Hash::Md5.hex(b"body")));
        assert!(answer.contains(&md5(format!("{a1}:n:0000000a:c:auth-int:{a2}"))));
        assert!(answer.contains("nc=0000000a") && answer.contains("algorithm=MD5-sess"));
    }

    #[test]
    fn counts_rise_with_a_nonce_and_quotes_are_escaped() {
        let mut logins = Logins::default();
        let value = "Digest realm=\"a\\\"b\", nonce=\"n\\\\1\", qop=auth";
        assert!(logins.challenged(Asker::Proxy, Challenge::read(value).unwrap(), None));
        let first = logins.headers(&mufasa(), &GET, "c").remove(0);
        let second = logins.headers(&mufasa(), &GET, "c").remove(0);
        assert_eq!(first.0, "Proxy-Authorization");
        assert!(first.1.contains("realm=\"a\\\"b\", nonce=\"n\\\\1\"") && first.1.contains("nc=00000001"));
        assert!(second.1.contains("nc=00000002"));
        // Refused although answered: wrong password. Refused as stale: once more with the new nonce.
        assert!(!logins.challenged(Asker::Proxy, Challenge::read(value).unwrap(), Some(&second.1)));
        let stale = "Digest realm=\"a\\\"b\", nonce=\"n2\", qop=auth, stale=true";
        assert!(logins.challenged(Asker::Proxy, Challenge::read(stale).unwrap(), Some(&second.1)));
        assert!(logins.headers(&mufasa(), &GET, "c").remove(0).1.contains("nc=00000001"));
    }

    #[test]
    fn a_nonce_that_was_good_may_grow_old_without_a_word() {
        let mut logins = Logins::default();
        let value = |nonce: &str| Challenge::read(&format!("Digest realm=\"r\", nonce=\"{nonce}\"")).unwrap();
        assert!(logins.challenged(Asker::Server, value("1"), None));
        let sent = logins.headers(&mufasa(), &GET, "c").remove(0).1;
        assert!(!logins.challenged(Asker::Server, value("2"), Some(&sent)));
        logins.accepted();
        assert!(logins.challenged(Asker::Server, value("2"), Some(&sent)));
        // Only once: the answer to the new one was refused too.
        assert!(!logins.challenged(Asker::Server, value("3"), Some(&sent)));
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", mufasa()).contains("Circle"));
    }
}

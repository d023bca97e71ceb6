//! Keys in a description: the lines `a=crypto` (RFC 4568), read from untrusted octets and written.
//!
//! A line is taken only where all of it is understood: a suite of ours, one key, no master key index, and no session
//! parameter that would change how packets look.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sdp_types::Media;

use super::Security;
use crate::srtp::{Keys, MASTER, MasterKey, SUITES, Suite};

/// Lines looked at; more are nobody's.
const LINES_MAX: usize = 16;

/// One line: what we say of our key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crypto {
    tag: u32,
    suite: Suite,
    key: MasterKey,
}

impl Crypto {
    /// The line of an offer.
    pub(super) fn offered(key: MasterKey) -> Self {
        Self { tag: 1, suite: SUITES[0], key }
    }

    /// Reads `1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^31`; `None` for what is not for us.
    fn read(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next()?.parse().ok()?;
        let suite = Suite::from_name(words.next()?)?;
        let key = master(words.next()?)?;
        // "-" marks a parameter that may be passed over (RFC 4568 §6.3.7); a hint of the window is one as well.
        let harmless = |word: &str| word.starts_with('-') || word.starts_with("WSH=");
        words.all(harmless).then_some(Self { tag, suite, key })
    }
}

impl fmt::Display for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} inline:{}", self.tag, self.suite.name(), STANDARD.encode(self.key.0))
    }
}

/// One key with its lifetime at most; several, or one with an index that packets would carry, are not for us.
fn master(word: &str) -> Option<MasterKey> {
    let (method, info) = word.split_once(':')?;
    if !method.eq_ignore_ascii_case("inline") || word.contains(';') {
        return None;
    }
    let mut parts = info.split('|');
    let text = parts.next()?.trim_end_matches('=');
    if parts.any(|part| part.contains(':')) {
        return None;
    }
    let octets: [u8; MASTER] = STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(MasterKey(octets))
}

/// The first line of theirs that is for us, as the line that answers it and the keys of both directions.
pub(super) fn agreed(media: &Media, security: Security) -> Option<(Crypto, Keys)> {
    let ours = security.key()?;
    let lines =
        media.attributes.iter().filter(|attribute| attribute.attribute.eq_ignore_ascii_case("crypto"));
    let theirs = lines.take(LINES_MAX).find_map(|line| Crypto::read(line.value.as_deref()?))?;
    let keys = Keys { suite: theirs.suite, ours, theirs: theirs.key };
    Some((Crypto { key: ours, ..theirs }, keys))
}

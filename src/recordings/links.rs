//! Links that let somebody without a key fetch one recording for a while: the recording's id and the second at which
//! the link ends, under an HMAC-SHA256 (RFC 2104) of both. The secret is the server's own, lies in the database, and
//! is the same for all processes that share it. Nothing is stored for a link; whether its recording and the key that
//! the recording belongs to are still there is asked when it is followed.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::RecordingsError;
use crate::model::event::Checksum;
use crate::model::{Secret, Timestamp};
use crate::store::Db;

/// The name of the secret in the database.
const SECRET: &str = "recording_links";
/// What the signed text begins with, so that no other signature of this secret can be taken for a link's.
const PURPOSE: &str = "trunkline recording link\n";

/// Signs links and knows its own.
#[derive(Debug)]
pub struct Links {
    secret: Secret,
}

/// The part of a link that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The second at which it ends, since 1970.
    pub expires: i64,
    /// 64 hex digits.
    pub signature: String,
}

impl Links {
    /// With the database's secret, made now where there is none.
    pub(super) async fn open(db: &Db) -> Result<Self, RecordingsError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| RecordingsError::Random)?;
        let fresh = Secret(Checksum(bytes).hex());
        Ok(Self { secret: db.server_secret(SECRET, &fresh).await? })
    }

    fn mac(&self, recording: &str, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.0.as_bytes())
            .expect("HMAC takes a key of any length (RFC 2104 §2)");
        mac.update(PURPOSE.as_bytes());
        mac.update(expires.to_string().as_bytes());
        mac.update(b"\n");
        mac.update(recording.as_bytes());
        mac
    }

    /// Signs a recording's id until so many seconds after `now`.
    pub fn sign(&self, recording: &str, now: Timestamp, seconds: u32) -> Signed {
        let expires = now.0.div_euclid(1000) + i64::from(seconds);
        let signature = Checksum(self.mac(recording, expires).finalize().into_bytes().into()).hex();
        Signed { expires, signature }
    }

    /// Whether the link was made here for this recording and has not ended at `now`. Takes as long for a signature
    /// that is nearly right as for any other.
    pub fn is_good(&self, recording: &str, link: &Signed, now: Timestamp) -> bool {
        let Some(Checksum(signature)) = Checksum::from_hex(&link.signature) else { return false };
        let ours = self.mac(recording, link.expires).verify_slice(&signature).is_ok();
        ours && now.0.div_euclid(1000) < link.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_771_322_520_500);

    fn links(secret: &str) -> Links {
        Links { secret: Secret(secret.into()) }
    }

    #[test]
    fn a_link_is_good_for_its_recording_until_it_ends() {
        let link = links("s").sign("call-1-2", NOW, 60);
        assert_eq!(link.expires, 1_771_322_580);
        assert!(links("s").is_good("call-1-2", &link, NOW));
        assert!(links("s").is_good("call-1-2", &link, NOW.plus_ms(59_499)));
        assert!(!links("s").is_good("call-1-2", &link, NOW.plus_ms(59_500)));
        assert!(!links("s").is_good("call-1-3", &link, NOW));
        assert!(!links("t").is_good("call-1-2", &link, NOW));
    }

    #[test]
    fn whatever_is_changed_spoils_it() {
        let links = links("s");
        let link = links.sign("call-1-2", NOW, 60);
        assert!(!links.is_good("call-1-2", &Signed { expires: link.expires + 1, ..link.clone() }, NOW));
        for (at, digit) in link.signature.char_indices() {
            let mut changed = link.signature.clone();
            changed.replace_range(at..=at, if digit == '0' { "1" } else { "0" });
            assert!(!links.is_good("call-1-2", &Signed { signature: changed, ..link }, NOW));
        }
        for signature in [String::new(), "zz".repeat(32), link.signature[..62].to_owned()] {
            assert!(!links.is_good("call-1-2", &Signed { signature, ..link }, NOW));
        }
        // The boundary between the two signed values cannot be moved.
        let short = links.sign("call-1-2", Timestamp(0), 60);
        assert!(!links.is_good("0\ncall-1-2", &Signed { expires: 6, ..short }, Timestamp(0)));
    }
}

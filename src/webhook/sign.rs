//! Signatures of webhooks by Standard Webhooks 1.0: HMAC-SHA256 over `{id}.{timestamp}.{raw body}` with the decoded
//! bytes of the secret (CONTRACT 0.7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::model::Secret;

/// What stands before a secret's base64.
const SECRET_PREFIX: &str = "whsec_";

/// The `webhook-signature` header: one `v1,<base64>` for each readable secret, newest first, with a space between.
/// `timestamp_s` is the unix time of this attempt. `None` if no secret can be read.
pub fn signatures(secrets: &[Secret], id: &str, timestamp_s: i64, body: &[u8]) -> Option<String> {
    let all: Vec<String> =
        secrets.iter().filter_map(|secret| signature(secret, id, timestamp_s, body)).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// One `v1,<base64>`.
fn signature(secret: &Secret, id: &str, timestamp_s: i64, body: &[u8]) -> Option<String> {
    let mac = mac(secret, id, timestamp_s, body)?;
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Whether a code is the right one, in constant time.
pub(super) fn equal(mac: Hmac<Sha256>, code: &[u8]) -> bool {
    mac.verify_slice(code).is_ok()
}

/// The authentication code of one delivery, before it is read out. `None` if the secret cannot be read.
pub(super) fn mac(secret: &Secret, id: &str, timestamp_s: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    let key = STANDARD.decode(secret.0.strip_prefix(SECRET_PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest;

    /// HMAC by its definition (RFC 2104 §2), so that the test does not lean on the crate under test.
    fn hmac_by_hand(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut block = [0_u8; 64];
        if key.len() > 64 {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let inner: Vec<u8> = block.iter().map(|b| b ^ 0x36).chain(message.iter().copied()).collect();
        let outer: Vec<u8> = block.iter().map(|b| b ^ 0x5c).chain(Sha256::digest(&inner)).collect();
        Sha256::digest(&outer).to_vec()
    }

    #[test]
    fn the_signature_is_the_specifications_formula() {
        let secret = Secret(format!("whsec_{}", STANDARD.encode([7_u8; 32])));
        let body = br#"{"event":"call.ended"}"#;
        let by_hand = hmac_by_hand(&[7; 32], b"evt_1.1700000000.{\"event\":\"call.ended\"}");
        let expected = format!("v1,{}", STANDARD.encode(by_hand));
        assert_eq!(signatures(&[secret], "evt_1", 1_700_000_000, body), Some(expected));
    }

    #[test]
    fn the_published_example_verifies() {
        // Standard Webhooks 1.0, the example of its libraries' tests.
        let secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let signed =
            signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn two_secrets_sign_while_one_is_rotated() {
        let secret = |byte: u8| Secret(format!("whsec_{}", STANDARD.encode([byte; 32])));
        let both = signatures(&[secret(2), secret(1)], "evt_1", 5, b"{}").unwrap();
        let newest = signatures(&[secret(2)], "evt_1", 5, b"{}").unwrap();
        let oldest = signatures(&[secret(1)], "evt_1", 5, b"{}").unwrap();
        assert_eq!(both, format!("{newest} {oldest}"));
        assert_ne!(newest, oldest);
    }

    #[test]
    fn an_unreadable_secret_signs_nothing() {
        assert_eq!(signatures(&[Secret("abc".into())], "evt_1", 5, b"{}"), None);
        assert_eq!(signatures(&[], "evt_1", 5, b"{}"), None);
    }
}

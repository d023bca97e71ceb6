//! The receiver's side of a signature (Standard Webhooks 1.0, CONTRACT 0.7): what `webhooks listen` checks and what a
//! customer's program should. Pure; the time is an argument.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::sign;
use crate::model::Secret;

/// How far a delivery's timestamp may be from the receiver's clock, seconds. Older ones are replays.
pub const TOLERANCE_S: i64 = 300;

/// The three headers as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signed<'a> {
    /// `webhook-id`
    pub id: Option<&'a str>,
    /// `webhook-timestamp`
    pub timestamp: Option<&'a str>,
    /// `webhook-signature`
    pub signature: Option<&'a str>,
}

/// Why a delivery was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGenuine {
    /// A header that every delivery carries.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// No unix seconds.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// Sent long ago.
    #[error("webhook-timestamp is {0} s old, more than 300: a replay, or this clock is ahead")]
    Old(i64),
    /// Sent in the future.
    #[error(
        "webhook-timestamp is {0} s ahead, more than 300: this clock is behind, or the header was changed"
    )]
    Early(i64),
    /// The header holds no signature of the one version that a secret can check.
    #[error("webhook-signature holds no v1 signature")]
    NoVersion,
    /// `whsec_` and base64 it must be.
    #[error("the secret is not whsec_ and base64")]
    Secret,
    /// None of them is right.
    #[error(
        "none of its {0} v1 signatures fits: another secret, or the id, the timestamp or the body was changed"
    )]
    Mismatch(usize),
}

/// Checks a delivery against every secret that may have signed it; two while one is being rotated. Compares in constant
/// time.
///
/// # Errors
/// [`NotGenuine`] says what does not fit.
pub fn verify(secrets: &[Secret], signed: Signed<'_>, body: &[u8], now_s: i64) -> Result<(), NotGenuine> {
    let id = signed.id.ok_or(NotGenuine::Missing("webhook-id"))?;
    let timestamp = signed.timestamp.ok_or(NotGenuine::Missing("webhook-timestamp"))?;
    let signature = signed.signature.ok_or(NotGenuine::Missing("webhook-signature"))?;
    let sent: i64 = timestamp.parse().map_err(|_| NotGenuine::Timestamp)?;
    let age = now_s.saturating_sub(sent);
    if age > TOLERANCE_S {
        return Err(NotGenuine::Old(age));
    }
    if age < -TOLERANCE_S {
        return Err(NotGenuine::Early(age.saturating_neg()));
    }
    let offered: Vec<Vec<u8>> = signature
        .split_ascii_whitespace()
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .collect();
    if offered.is_empty() {
        return Err(NotGenuine::NoVersion);
    }
    for secret in secrets {
        let mac = sign::mac(secret, id, sent, body).ok_or(NotGenuine::Secret)?;
        if offered.iter().any(|one| sign::equal(mac.clone(), one)) {
            return Ok(());
        }
    }
    Err(NotGenuine::Mismatch(offered.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"event":"call.ended"}"#;

    fn secret(byte: u8) -> Secret {
        Secret(format!("whsec_{}", STANDARD.encode([byte; 32])))
    }

    fn header(secrets: &[Secret]) -> String {
        sign::signatures(secrets, "evt_1", NOW, BODY).unwrap()
    }

    fn check(secrets: &[Secret], signature: &str, body: &[u8], now_s: i64) -> Result<(), NotGenuine> {
        let stamp = NOW.to_string();
        let signed = Signed { id: Some("evt_1"), timestamp: Some(&stamp), signature: Some(signature) };
        verify(secrets, signed, body, now_s)
    }

    #[test]
    fn what_we_sign_is_believed() {
        let header = header(&[secret(1)]);
        for age in [0, 300, -300] {
            assert_eq!(check(&[secret(1)], &header, BODY, NOW + age), Ok(()));
        }
        assert_eq!(check(&[secret(2), secret(1)], &header, BODY, NOW), Ok(()), "the receiver knows two");
    }

    #[test]
    fn the_published_example_is_believed() {
        // Standard Webhooks 1.0, the example of its libraries' tests.
        let secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let signed = Signed {
            id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            timestamp: Some("1614265330"),
            signature: Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        };
        assert_eq!(verify(&[secret], signed, br#"{"test": 2432232314}"#, 1_614_265_330), Ok(()));
    }

    #[test]
    fn both_signatures_of_a_rotation_are_believed() {
        let header = header(&[secret(2), secret(1)]);
        assert_eq!(check(&[secret(1)], &header, BODY, NOW), Ok(()));
        assert_eq!(check(&[secret(2)], &header, BODY, NOW), Ok(()));
        assert_eq!(check(&[secret(3)], &header, BODY, NOW), Err(NotGenuine::Mismatch(2)));
        let others = format!("v1a,xyz {header} v2,AAAA");
        assert_eq!(check(&[secret(1)], &others, BODY, NOW), Ok(()), "other versions are passed over");
    }

    #[test]
    fn whatever_was_changed_is_noticed() {
        let header = header(&[secret(1)]);
        assert_eq!(check(&[secret(1)], &header, b"{}", NOW), Err(NotGenuine::Mismatch(1)));
        assert_eq!(check(&[secret(1)], &header, BODY, NOW + 301), Err(NotGenuine::Old(301)));
        assert_eq!(check(&[secret(1)], &header, BODY, NOW - 301), Err(NotGenuine::Early(301)));
        assert_eq!(check(&[secret(1)], "", BODY, NOW), Err(NotGenuine::NoVersion));
        assert_eq!(check(&[secret(1)], "v1,%%%", BODY, NOW), Err(NotGenuine::NoVersion));
        assert_eq!(check(&[secret(1)], "v1,", BODY, NOW), Err(NotGenuine::Mismatch(1)));
        assert_eq!(check(&[Secret("plain".into())], &header, BODY, NOW), Err(NotGenuine::Secret));
        let stamp = (NOW + 1).to_string();
        for signed in [
            Signed { id: Some("evt_2"), timestamp: Some("1700000000"), signature: Some(&header) },
            Signed { id: Some("evt_1"), timestamp: Some(&stamp), signature: Some(&header) },
        ] {
            assert_eq!(verify(&[secret(1)], signed, BODY, NOW), Err(NotGenuine::Mismatch(1)));
        }
    }

    #[test]
    fn missing_headers_are_named() {
        let whole = Signed { id: Some("evt_1"), timestamp: Some("1700000000"), signature: Some("v1,AA==") };
        for (signed, name) in [
            (Signed { id: None, ..whole }, "webhook-id"),
            (Signed { timestamp: None, ..whole }, "webhook-timestamp"),
            (Signed { signature: None, ..whole }, "webhook-signature"),
        ] {
            assert_eq!(verify(&[secret(1)], signed, BODY, NOW), Err(NotGenuine::Missing(name)));
        }
        let soon = Signed { timestamp: Some("soon"), ..whole };
        assert_eq!(verify(&[secret(1)], soon, BODY, NOW), Err(NotGenuine::Timestamp));
    }
}

//! Random names and secrets, and how keys are hashed. The system's random source is read here and nowhere else in
//! the store; nothing of it is logged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::model::Secret;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `prefix` and `len` characters of base62, each equally likely.
pub(super) fn base62(prefix: &str, len: usize) -> Result<String, StoreError> {
    let mut text = prefix.to_owned();
    while text.len() < prefix.len() + len {
        let mut bytes = [0_u8; 64];
        getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
        // Bytes from 248 on are thrown away, else the first eight characters would come more often.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let wanted = prefix.len() + len - text.len();
        text.extend(fair.take(wanted).map(|byte| char::from(BASE62[usize::from(byte % 62)])));
    }
    Ok(text)
}

/// A new API key: `ak_` and 32 characters of base62 (CONTRACT 0.2).
pub(super) fn api_key() -> Result<String, StoreError> {
    base62("ak_", 32)
}

/// A new public name of a key: `key_` and ten hex digits (CONTRACT 1.1 `/api/me`).
pub(super) fn key_id() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(format!("key_{}", hex(&bytes)))
}

/// A new webhook secret: `whsec_` and 32 random bytes in base64 (CONTRACT 0.7).
pub(super) fn webhook_secret() -> Result<Secret, StoreError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(Secret(format!("whsec_{}", STANDARD.encode(bytes))))
}

/// A new event id: `evt_` and 24 characters of base62; holds no dot (Standard Webhooks 1.0).
pub(super) fn event_id() -> Result<String, StoreError> {
    base62("evt_", 24)
}

/// A new public name: the prefix and `bytes` random bytes in hex.
pub(super) fn hex_name(prefix: &str, bytes: usize) -> Result<String, StoreError> {
    let mut random = vec![0_u8; bytes];
    getrandom::fill(&mut random).map_err(|_| StoreError::Random)?;
    Ok(format!("{prefix}{}", hex(&random)))
}

/// A new cuid-like name, `^c[a-z0-9]{24}$` (CONTRACT 1.3).
pub(super) fn cuid() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(crate::model::id::cuid(u128::from_be_bytes(bytes) >> 4))
}

/// What is stored of a key: SHA-256 in hex. A key has 190 random bits, so no slow hash is needed.
pub(super) fn key_hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that does not depend on where the two differ.
pub(super) fn equal_in_constant_time(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differing, (x, y)| differing | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_documented_form() {
        let key = api_key().unwrap();
        assert_eq!(key.len(), 35);
        assert!(key.strip_prefix("ak_").unwrap().bytes().all(|b| b.is_ascii_alphanumeric()));
        let id = key_id().unwrap();
        assert!(id.len() == 14 && id[4..].bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        let event = event_id().unwrap();
        assert!(event.len() == 28 && !event.contains('.'), "{event}");
        let secret = webhook_secret().unwrap();
        assert_eq!(STANDARD.decode(secret.0.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
        assert_ne!(api_key().unwrap(), key);
    }

    #[test]
    fn comparison_is_exact() {
        assert!(equal_in_constant_time("abc", "abc"));
        assert!(!equal_in_constant_time("abc", "abd"));
        assert!(!equal_in_constant_time("abc", "ab"));
    }

    #[test]
    fn keys_are_hashed_with_sha_256() {
        // FIPS 180-4, the example of "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key_hash("abc"), expected);
    }
}

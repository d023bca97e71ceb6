//! Ids of calls, one value in the form of each surface (CONTRACT 2.1 C1, 3 S13), and the ids that look like them.

use std::fmt;

use sha2::{Digest, Sha256};

/// Digits of a cuid behind its `c`.
const CUID_DIGITS: usize = 24;

const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The version and variant bits of a random UUID (RFC 9562 §5.4).
const UUID_FIXED: u128 = 0x0000_0000_0000_4000_8000_0000_0000_0000;
const UUID_MASK: u128 = 0x0000_0000_0000_f000_c000_0000_0000_0000;

/// One call's identity, 128 bits. Those made by [`CallId::random`] are UUIDs of version 4, so that every surface's
/// form of it can be read back; Kaphila's `<seconds>.<counter>` is kept beside it, see
/// [`super::call::CallOrder::kaphila_id`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u128);

impl CallId {
    /// An id of these random bits.
    pub fn random(bits: u128) -> Self {
        Self((bits & !UUID_MASK) | UUID_FIXED)
    }

    /// The 32 lower-case hex digits that the database stores.
    pub fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads [`CallId::hex`] back.
    pub fn from_hex(text: &str) -> Option<Self> {
        let plain =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if plain { u128::from_str_radix(text, 16).ok().map(Self) } else { None }
    }

    /// Claude Phone's and Hamming's form: `8-4-4-4-12` hex digits.
    pub fn uuid(self) -> String {
        let hex = self.hex();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Reads [`CallId::uuid`] back, in either case (RFC 9562 §4).
    pub fn from_uuid(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23];
        if text.len() != 36 || !text.bytes().enumerate().all(|(at, b)| dashes.contains(&at) == (b == b'-')) {
            return None;
        }
        Self::from_hex(&text.replace('-', "").to_ascii_lowercase())
    }

    /// Phony's form: `CA` and 32 hex digits.
    pub fn call_sid(self) -> String {
        format!("CA{}", self.hex())
    }

    /// Reads [`CallId::call_sid`] back.
    pub fn from_call_sid(text: &str) -> Option<Self> {
        Self::from_hex(text.strip_prefix("CA")?)
    }

    /// VoxForge's form: `c` and 24 digits of base 36, which hold the 122 bits that are not fixed.
    pub fn cuid(self) -> String {
        let low = self.0 & ((1 << 62) - 1);
        let middle = (self.0 >> 64) & 0xfff;
        let high = self.0 >> 80;
        cuid((high << 74) | (middle << 62) | low)
    }

    /// Reads [`CallId::cuid`] back.
    pub fn from_cuid(text: &str) -> Option<Self> {
        let bits = cuid_bits(text).filter(|bits| bits >> 122 == 0)?;
        let (high, middle, low) = (bits >> 74, (bits >> 62) & 0xfff, bits & ((1 << 62) - 1));
        Some(Self((high << 80) | (middle << 64) | low | UUID_FIXED))
    }
}

/// VoxForge's form of an agent's id. It follows from the row's id, so that whoever has the one can tell the other, and
/// says nothing of how many agents there are.
pub fn agent_cuid(row: i64) -> String {
    let digest = Sha256::digest(format!("trunkline agent {row}"));
    let bits = digest.iter().take(16).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    cuid(bits >> 6)
}

/// The number that [`cuid`] wrote.
pub fn cuid_bits(text: &str) -> Option<u128> {
    let digits = text.strip_prefix('c').filter(|digits| digits.len() == CUID_DIGITS)?;
    let mut bits: u128 = 0;
    for digit in digits.bytes() {
        let value = BASE36.iter().position(|known| *known == digit)?;
        bits = bits.checked_mul(36)?.checked_add(u128::try_from(value).ok()?)?;
    }
    Some(bits)
}

/// `c` and 24 digits of base 36, of bits below 36^24.
pub fn cuid(bits: u128) -> String {
    let mut text = [b'0'; CUID_DIGITS];
    let mut rest = bits;
    for digit in text.iter_mut().rev() {
        *digit = BASE36[usize::try_from(rest % 36).unwrap_or_default()];
        rest /= 36;
    }
    let digits = text.iter().map(|digit| char::from(*digit));
    std::iter::once('c').chain(digits).collect()
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: u128 = 0x0123_4567_89ab_cdef_0000_1111_2222_3333;

    #[test]
    fn ids_survive_every_text_form() {
        for bits in [SOME, 0, u128::MAX, SOME << 60, !SOME] {
            let id = CallId::random(bits);
            assert_eq!(CallId::from_hex(&id.hex()), Some(id));
            assert_eq!(CallId::from_uuid(&id.uuid()), Some(id));
            assert_eq!(CallId::from_uuid(&id.uuid().to_uppercase()), Some(id));
            assert_eq!(CallId::from_call_sid(&id.call_sid()), Some(id));
            assert_eq!(CallId::from_cuid(&id.cuid()), Some(id));
            assert_eq!(id.cuid().len(), 25, "{}", id.cuid());
            assert_eq!((id.uuid().as_bytes()[14], id.uuid().len()), (b'4', 36));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in
            ["", "xyz", "CA", "c", "é", &"z".repeat(25), &format!("c{}", "z".repeat(24)), &"+".repeat(32)]
        {
            assert_eq!(CallId::from_hex(text), None, "{text}");
            assert_eq!(CallId::from_uuid(text), None, "{text}");
            assert_eq!(CallId::from_call_sid(text), None, "{text}");
            assert_eq!(CallId::from_cuid(text), None, "{text}");
        }
        assert_eq!(CallId::from_uuid("0123456789abcdef-0000-1111-2222-3333"), None);
        assert_eq!(CallId::from_uuid("é123456-89ab-4def-8000-111122223333"), None);
    }
}

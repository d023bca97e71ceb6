//! Numbers that are never dialled: emergency services and premium-rate ranges (CONTRACT 3 S42). A program that
//! calls by itself must not be able to call an ambulance, nor to run up a bill that no customer expects.

use crate::model::PhoneNumber;

/// Emergency numbers; the whole number must be one of these.
const EMERGENCY: &[&str] = &["911", "112", "999", "000", "110", "119"];

/// Premium-rate ranges: leading digits, and how many digits a whole number has.
const PREMIUM: &[(&str, usize)] = &[("1900", 11)];

/// Whether `number` may be dialled.
pub fn may_be_dialled(number: &PhoneNumber) -> bool {
    let digits = number.digits();
    // Zeros in front change nothing for a carrier that takes them for its own prefix.
    let bare = digits.trim_start_matches('0');
    let premium = PREMIUM.iter().any(|(prefix, len)| bare.len() == *len && bare.starts_with(prefix));
    !EMERGENCY.contains(&digits) && !EMERGENCY.contains(&bare) && !premium
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emergency_and_premium_numbers_are_never_dialled() {
        for (text, allowed) in [
            ("911", false),
            ("112", false),
            ("00112", false),
            ("+00112", false),
            ("+0019005550100", false),
            ("000019005550100", false),
            ("+112", false),
            ("1 1 0", false),
            ("999", false),
            ("119", false),
            ("+1 900 555 0100", false),
            ("0019005550100", false),
            ("+19005550", true),
            ("14155550911", true),
            ("9112", true),
            ("190055501000", true),
        ] {
            let number = PhoneNumber::parse_lenient(text).unwrap();
            assert_eq!(may_be_dialled(&number), allowed, "{text}");
        }
        // Three noughts are read as an exit code and one digit, which is no number at all.
        assert_eq!(PhoneNumber::parse_lenient("000"), None);
    }
}

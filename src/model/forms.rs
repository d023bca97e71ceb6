//! The forms of what operators type: names, subdomains, leading digits, addresses. Pure checks that the command line
//! and the surfaces share, so that what one takes the other takes too.

use super::PhoneNumber;

/// Characters of a name for people.
const LABEL_MAX: usize = 100;

/// A name for people: 1 to 100 characters, no control characters, not blank.
pub fn is_label(text: &str) -> bool {
    let length = (1..=LABEL_MAX).contains(&text.chars().count());
    length && !text.chars().any(char::is_control) && !text.trim().is_empty()
}

/// What names a tenant on the command line: 1 to 64 of `A-Z a-z 0-9 - _` (CONTRACT 0.8 `--tenant`).
pub fn is_tenant(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

/// `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, a label of a host name (RFC 1035 §2.3.1, CONTRACT 1.2 tenants).
pub fn is_subdomain(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    (1..=63).contains(&text.len()) && text.bytes().all(legal) && edges
}

/// Leading digits of numbers: a country calling code (ITU-T E.164 §6.2.1), or one with the first digits of an area
/// that shares it, 1 to 7 digits, not beginning with 0.
pub fn is_leading_digits(text: &str) -> bool {
    (1..=7).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}

/// Something at something, without blanks: whether mail arrives is not for a form to say.
pub fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && text.bytes().all(|b| b.is_ascii_graphic());
    plain && text.split_once('@').is_some_and(|(who, host)| !who.is_empty() && host.contains('.'))
}

/// A number that can be called from anywhere: E.164 as people write it, not beginning with 0 (ITU-T E.164 §6.2.1).
pub fn public_number(text: &str) -> Option<PhoneNumber> {
    PhoneNumber::parse_lenient(text).filter(|number| !number.digits().starts_with('0'))
}

/// A number that can be called from anywhere, with its plus and nothing that could stand for an exit code, as people
/// write it: what is dialled for many is not guessed at.
pub fn e164(text: &str) -> Option<PhoneNumber> {
    public_number(text).filter(|_| text.trim_start().starts_with('+'))
}

/// The form of a language's tag (BCP 47, RFC 5646 §2.1): words of letters and digits, the first of letters.
pub fn is_language(text: &str) -> bool {
    let word = |word: &str| (1..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let first = text.split('-').next().unwrap_or_default();
    let letters = (2..=8).contains(&first.len()) && first.bytes().all(|b| b.is_ascii_alphabetic());
    text.len() <= 35 && letters && text.split('-').all(word)
}

/// The name of a sound: `^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`, at most 128 (CONTRACT 1.1 `/play`).
pub fn is_sound(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    text.len() <= 128 && text.split('/').all(|part| !part.is_empty() && part.bytes().all(legal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_kept_to() {
        for (form, good, bad) in [
            (is_label as fn(&str) -> bool, &["a", "é ß"][..], &["", " ", "a\nb"][..]),
            (is_tenant, &["TA", "a-b_c"], &["", "a b", "a/b"]),
            (is_subdomain, &["a", "a-b", "0"], &["", "-a", "a-", "A", "a.b"]),
            (is_leading_digits, &["1", "44", "1876"], &["", "0", "+44", "12345678", "4a"]),
            (is_email, &["a@b.c"], &["", "a", "@b.c", "a@b", "a b@c.d", "a@b.c\r\n"]),
            (is_sound, &["a", "custom/welcome", "A_-1/b"], &["", "/a", "a/", "a//b", "../a", "a.wav"]),
        ] {
            for text in good {
                assert!(form(text), "{text:?}");
            }
            for text in bad {
                assert!(!form(text), "{text:?}");
            }
        }
        assert!(["en", "en-US", "zh-Hans-CN"].into_iter().all(is_language));
        assert!(
            ["", "e", "1en", "en_US", "en-", "-en", "en-123456789"].into_iter().all(|tag| !is_language(tag))
        );
        assert_eq!(e164(" +1 (415) 555-0100").unwrap().e164(), "+14155550100");
        assert!(
            ["14155550100", "0014155550100", "+0014155550100", "=+1", ""]
                .iter()
                .all(|text| e164(text).is_none())
        );
        assert_eq!(public_number("+1 415 555 0100").unwrap().e164(), "+14155550100");
        assert_eq!((public_number("+0014155550100"), public_number("me")), (None, None));
        assert!(!is_label(&"a".repeat(101)) && !is_tenant(&"a".repeat(65)) && !is_subdomain(&"a".repeat(64)));
        assert!(!is_email(&format!("{}@b.c", "a".repeat(254))) && !is_sound(&"a".repeat(129)));
    }
}

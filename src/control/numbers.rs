//! What kind of number a number is: an emergency service, a premium-rate service, or anybody (CONTRACT 3 S42). Two
//! tables of main countries and nothing else; who may call what is decided in [`super::policy`]. Tables grow old: they
//! keep a program from calling an ambulance and from the usual frauds, and stand in for no contract with a carrier.

use crate::model::PhoneNumber;

/// What answers at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Police, ambulance, fire brigade.
    Emergency,
    /// Calls cost far more than a call.
    Premium,
    /// Anybody else.
    Ordinary,
}

/// Emergency short codes as they are dialled inside a country; the whole number must be one of these. 112 and 911 by
/// ITU-T E.161.1, the others by the numbering plans that countries have notified under ITU-T E.129.
const EMERGENCY: &[&str] = &[
    "000", "100", "101", "102", "103", "104", "108", "110", "111", "112", "113", "114", "115", "116", "117",
    "118", "119", "120", "122", "123", "133", "144", "155", "156", "158", "190", "191", "192", "193", "194",
    "195", "197", "198", "199", "911", "995", "997", "998", "999", "10111", "10177",
];

/// Emergency short codes with the country calling code in front, as some carriers take them.
const EMERGENCY_ABROAD: &[(&str, &[&str])] = &[
    ("1", &["911"]),
    ("7", &["101", "102", "103", "112"]),
    ("27", &["112", "10111", "10177"]),
    ("31", &["112"]),
    ("32", &["100", "101", "112"]),
    ("33", &["112", "114", "115"]),
    ("34", &["112"]),
    ("39", &["112", "113", "115", "118"]),
    ("41", &["112", "117", "118", "144"]),
    ("43", &["112", "122", "133", "144"]),
    ("44", &["112", "999"]),
    ("45", &["112"]),
    ("46", &["112"]),
    ("47", &["110", "112", "113"]),
    ("48", &["112", "997", "998", "999"]),
    ("49", &["110", "112"]),
    ("52", &["911"]),
    ("55", &["190", "192", "193"]),
    ("61", &["000", "112"]),
    ("64", &["111"]),
    ("65", &["995", "999"]),
    ("81", &["110", "119"]),
    ("82", &["112", "119"]),
    ("86", &["110", "119", "120"]),
    ("91", &["100", "101", "102", "108", "112"]),
    ("353", &["112", "999"]),
    ("852", &["999"]),
];

/// A premium-rate range: leading digits in international form, fewest and most digits of a whole number.
type Range = (&'static str, usize, usize);

/// Premium-rate ranges by the national numbering plans: of the ITU itself (E.169.2), then by calling code.
const PREMIUM: &[Range] = &[
    // International premium rate service.
    ("979", 11, 12),
    // North America: area code 900 (NANPA).
    ("1900", 11, 11),
    // Russia: 809 (national plan).
    ("7809", 11, 11),
    // Greece: 90x (EETT).
    ("3090", 11, 12),
    // Netherlands: 0900, 0906, 0909 (ACM).
    ("31900", 9, 12),
    ("31906", 9, 12),
    ("31909", 9, 12),
    // Belgium: 090x (BIPT).
    ("3290", 10, 10),
    // France: 089x (ARCEP).
    ("3389", 11, 11),
    // Spain: 803, 806, 807, 905, 907 (CNMC).
    ("34803", 11, 11),
    ("34806", 11, 11),
    ("34807", 11, 11),
    ("34905", 11, 11),
    ("34907", 11, 11),
    // Ireland: 15xx (ComReg).
    ("35315", 11, 13),
    // Portugal: 601, 607, 608, 646, 648, 76x (ANACOM).
    ("351601", 12, 12),
    ("351607", 12, 12),
    ("351608", 12, 12),
    ("351646", 12, 12),
    ("351648", 12, 12),
    ("35176", 12, 12),
    // Finland: 0600, 0700 (Traficom).
    ("358600", 9, 13),
    ("358700", 9, 13),
    // Hungary: 0690, 0691 (NMHH).
    ("3690", 10, 10),
    ("3691", 10, 10),
    // Italy: 892, 894, 895, 899 (AGCOM).
    ("39892", 8, 12),
    ("39894", 8, 12),
    ("39895", 8, 12),
    ("39899", 8, 12),
    // Switzerland: 0900, 0901, 0906 (OFCOM).
    ("41900", 11, 11),
    ("41901", 11, 11),
    ("41906", 11, 11),
    // Czechia: 900, 906, 909 (CTU).
    ("420900", 12, 12),
    ("420906", 12, 12),
    ("420909", 12, 12),
    // Austria: 0900, 0901, 0930, 0931 (RTR).
    ("43900", 8, 13),
    ("43901", 8, 13),
    ("43930", 8, 13),
    ("43931", 8, 13),
    // United Kingdom: 09, and 0871 to 0873 (Ofcom).
    ("449", 12, 12),
    ("44871", 12, 12),
    ("44872", 12, 12),
    ("44873", 12, 12),
    // Denmark: 90 (SDFI).
    ("4590", 10, 10),
    // Sweden: 0900, 0939, 0944 (PTS).
    ("46900", 9, 12),
    ("46939", 9, 12),
    ("46944", 9, 12),
    // Norway: 82x (Nkom).
    ("4782", 10, 10),
    // Poland: 70x (UKE).
    ("4870", 11, 11),
    // Germany: 0900 (BNetzA).
    ("49900", 11, 13),
    // Mexico: 900 (IFT).
    ("52900", 12, 12),
    // Brazil: 0900 (Anatel).
    ("55900", 9, 12),
    // Australia: 190x (ACMA).
    ("61190", 9, 12),
    // New Zealand: 0900 (NAD).
    ("64900", 9, 11),
    // Singapore: 1900 (IMDA).
    ("651900", 12, 13),
    // Turkey: 900 (BTK).
    ("90900", 12, 12),
];

/// What answers at a number.
pub fn kind(number: &PhoneNumber) -> Kind {
    let digits = number.digits();
    // Zeros in front change nothing for a carrier that takes them for its own prefix.
    let bare = digits.trim_start_matches('0');
    let abroad =
        |(code, short): &(&str, &[&str])| bare.strip_prefix(code).is_some_and(|rest| short.contains(&rest));
    if EMERGENCY.contains(&digits) || EMERGENCY.contains(&bare) || EMERGENCY_ABROAD.iter().any(abroad) {
        return Kind::Emergency;
    }
    let within = |(prefix, min, max): &Range| bare.starts_with(prefix) && (*min..=*max).contains(&bare.len());
    if PREMIUM.iter().any(within) { Kind::Premium } else { Kind::Ordinary }
}

/// Whether a number begins with one of these leading digits; no list means any number.
pub fn leads_to(number: &PhoneNumber, countries: &[String]) -> bool {
    let bare = number.digits().trim_start_matches('0');
    countries.is_empty() || countries.iter().any(|code| bare.starts_with(code.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        for (text, expected) in [
            ("911", Kind::Emergency),
            ("112", Kind::Emergency),
            ("00112", Kind::Emergency),
            ("+00112", Kind::Emergency),
            ("+112", Kind::Emergency),
            ("1 1 0", Kind::Emergency),
            ("999", Kind::Emergency),
            ("119", Kind::Emergency),
            ("+1 911", Kind::Emergency),
            ("0044 999", Kind::Emergency),
            ("+61 000", Kind::Emergency),
            ("+0019005550100", Kind::Premium),
            ("000019005550100", Kind::Premium),
            ("+1 900 555 0100", Kind::Premium),
            ("0019005550100", Kind::Premium),
            ("+44 909 879 0000", Kind::Premium),
            ("+49 900 1 123456", Kind::Premium),
            ("+33 899 12 34 56", Kind::Premium),
            ("+19005550", Kind::Ordinary),
            ("14155550911", Kind::Ordinary),
            ("9112", Kind::Ordinary),
            ("190055501000", Kind::Ordinary),
            ("+44 20 7946 0000", Kind::Ordinary),
            ("+44 7911 123456", Kind::Ordinary),
            ("+49 30 901820", Kind::Ordinary),
            ("+33 1 89 00 00 00", Kind::Ordinary),
        ] {
            let number = PhoneNumber::parse_lenient(text).unwrap();
            assert_eq!(kind(&number), expected, "{text}");
        }
        // Three noughts are read as an exit code and one digit, which is no number at all.
        assert_eq!(PhoneNumber::parse_lenient("000"), None);
    }

    #[test]
    fn ranges_are_written_as_numbers_are() {
        for (prefix, min, max) in PREMIUM {
            assert!(min <= max && *max <= 15 && prefix.len() < *min, "{prefix}");
            assert!(prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with('0'), "{prefix}");
        }
    }

    #[test]
    fn countries_are_leading_digits() {
        let leads = |text: &str, codes: &[&str]| {
            let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
            leads_to(&PhoneNumber::parse_lenient(text).unwrap(), &codes)
        };
        assert!(leads("+14155550100", &[]));
        assert!(leads("+14155550100", &["49", "1"]));
        assert!(leads("00 49 30 123456", &["49"]));
        assert!(leads("+0049 30 123456", &["49"]));
        assert!(leads("+18765550100", &["1876"]));
        assert!(!leads("+14155550100", &["1876"]));
        assert!(!leads("+4930123456", &["1", "44"]));
    }
}

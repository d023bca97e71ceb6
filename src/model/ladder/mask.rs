//! What of a SIP message may be shown: all but credentials (RFC 3261 §20.7, §20.28), passwords in URIs (§19.1.1), keys of
//! encrypted sound (RFC 4568 §6, RFC 8866 §5.12), and the keys that somebody pressed (a PIN, a card's number). Works
//! line by line on whatever came, so that nothing malformed slips by.

/// What stands in the place of what may not be shown.
const MASKED: &str = "[masked]";

/// Headers whose value is a secret, but for the first word (the scheme).
const SECRET: &[&str] = &["authorization", "proxy-authorization", "authentication-info", "cookie"];

/// A header with one of these in its name may hold a secret, too.
const SUSPECT: &[&str] = &["password", "passwd", "secret", "token", "api-key", "apikey"];

/// Bodies of these kinds hold keys that were pressed.
const KEYS: &[&str] = &["dtmf", "digit", "kpml"];

/// What begins a line of a session description that holds a key, up to where the secret begins.
const KEY_LINES: &[(&str, &str)] = &[("a=crypto:", "inline:"), ("k=", "k="), ("a=ice-pwd:", "a=ice-pwd:")];

/// The text of a message, masked.
pub(super) fn masked(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let end = ["\r\n\r\n", "\n\n"].iter().filter_map(|blank| Some(text.find(blank)? + blank.len())).min();
    let (head, body) = text.split_at(end.unwrap_or(text.len()));
    let mut out = String::with_capacity(text.len());
    lines(head, &mut out);
    if holds_keys(head) && !body.is_empty() {
        out.push_str(MASKED);
    } else {
        lines(body, &mut out);
    }
    out
}

/// An INFO tells keys whatever its body is called, unless it is one that is known to be something else.
fn holds_keys(head: &str) -> bool {
    let named = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let is_kind = name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("c");
        is_kind.then(|| value.trim().to_ascii_lowercase())
    };
    let kind = head.lines().find_map(named).unwrap_or_default();
    let harmless = kind.starts_with("application/sdp") || kind.starts_with("application/media_control");
    KEYS.iter().any(|word| kind.contains(word)) || (head.starts_with("INFO ") && !harmless)
}

fn lines(text: &str, out: &mut String) {
    let mut hidden = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let end = &line[bare.len()..];
        if bare.starts_with([' ', '\t']) && hidden {
            // The rest of a secret that was folded.
            continue;
        }
        let secret = secret(bare);
        hidden = secret.is_some();
        match secret {
            Some(shown) => {
                out.push_str(&shown);
                out.push_str(MASKED);
            }
            None => without_passwords(bare, end.is_empty(), out),
        }
        out.push_str(end);
    }
}

/// What may be shown of a line that holds a secret.
fn secret(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let at = |&(begin, before): &(&str, &str)| {
        lower.starts_with(begin).then(|| lower.find(before).map(|at| at + before.len())).flatten()
    };
    if let Some(shown) = KEY_LINES.iter().find_map(at) {
        return line.get(..shown).map(str::to_owned);
    }
    let (name, value) = line.split_once(':')?;
    let known = name.trim().to_ascii_lowercase();
    if SECRET.contains(&known.as_str()) {
        let scheme =
            value.split_whitespace().next().filter(|word| word.bytes().all(|b| b.is_ascii_alphabetic()));
        return Some(match scheme {
            Some(scheme) => format!("{name}: {scheme} "),
            None => format!("{name}: "),
        });
    }
    let is_name = known.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_name && SUSPECT.iter().any(|word| known.contains(word))).then(|| format!("{name}: "))
}

/// A line with every `sip:user:password@` masked; in a line that was cut off, also what may have been one.
fn without_passwords(line: &str, cut: bool, out: &mut String) {
    let lower = line.to_ascii_lowercase();
    let mut done = 0;
    while let Some(found) = next_scheme(&lower, done) {
        out.push_str(&line[done..found]);
        done = found;
        let rest = &line[found..];
        let stop = rest.find(['@', ' ', '\t', '<', '>', '"']).unwrap_or(rest.len());
        let Some((user, password)) = rest[..stop].split_once(':') else { continue };
        let is_one = rest[stop..].starts_with('@') || (cut && stop == rest.len());
        if is_one && !password.is_empty() {
            out.push_str(user);
            out.push(':');
            out.push_str(MASKED);
            done = found + stop;
        }
    }
    out.push_str(&line[done..]);
}

/// Where the next `sip:` or `sips:` ends.
fn next_scheme(lower: &str, from: usize) -> Option<usize> {
    let rest = lower.get(from..)?;
    let ends = ["sip:", "sips:"].iter().filter_map(|scheme| Some(rest.find(scheme)? + scheme.len()));
    ends.min().map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let message = "INVITE sip:alice:hunter2@b;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060\r\n\
             From: \"A\" <sips:bob:hunter2@c>, sip:d:hunter2@e;tag=1\r\n\
             Authorization: Digest username=\"alice\", response=\"hunter2\"\r\n\
             proxy-authorization : Basic hunter2\r\n\thunter2,\r\n hunter2\r\n\
             Authorization:\r\n hunter2\r\n\
             X-Api-Key: hunter2\r\nContact: <sip:alice@10.0.0.1:5060>\r\nCSeq: 1 INVITE\r\n\
             Content-Type: application/sdp\r\n\r\n\
             v=0\r\nk=clear:hunter2\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:hunter2|2^20\r\n\
             a=ice-pwd:hunter2\r\na=rtpmap:0 PCMU/8000\r\n";
        let shown = masked(message.as_bytes());
        assert!(!shown.contains("hunter2"), "{shown}");
        for kept in [
            "INVITE sip:alice:[masked]@b;x=1 SIP/2.0\r\n",
            "Via: SIP/2.0/UDP 10.0.0.1:5060\r\n",
            "<sips:bob:[masked]@c>, sip:d:[masked]@e;tag=1\r\n",
            "Authorization: Digest [masked]\r\nproxy-authorization : Basic [masked]\r\n",
            "Contact: <sip:alice@10.0.0.1:5060>\r\nCSeq: 1 INVITE\r\n",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:[masked]\r\n",
            "a=rtpmap:0 PCMU/8000\r\n",
        ] {
            assert!(shown.contains(kept), "{kept:?} in {shown}");
        }
        // Cut anywhere it shows no more.
        for at in 0..message.len() {
            let shown = masked(&message.as_bytes()[..at]);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn keys_that_were_pressed_are_not_shown() {
        for (line, kind) in [
            ("INFO sip:a SIP/2.0", "application/dtmf-relay"),
            ("INFO sip:a SIP/2.0", "application/x-unheard-of"),
            ("NOTIFY sip:a SIP/2.0", "application/kpml-response+xml"),
            ("MESSAGE sip:a SIP/2.0", "application/vnd.nortelnetworks.digits"),
        ] {
            let shown = masked(format!("{line}\r\nc: {kind}\r\n\r\nSignal=7\r\n").as_bytes());
            assert!(shown.ends_with("\r\n\r\n[masked]"), "{shown}");
        }
        let other = "INFO sip:a SIP/2.0\r\nContent-Type: application/media_control+xml\r\n\r\n<picture/>";
        assert_eq!(masked(other.as_bytes()), other);
    }

    #[test]
    fn bytes_of_any_kind_are_shown_somehow() {
        for bytes in [&b""[..], b"\xff\xfe\r\n\r\n\x00", b"sip:", b"sip:@", b"sip::@", "ſip:é:ü@".as_bytes()]
        {
            masked(bytes);
        }
    }
}

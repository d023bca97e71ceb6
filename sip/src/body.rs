//! Finding the SDP in a body (RFC 3261 §7.4, RFC 5621, RFC 2046 §5.1).
//!
//! Owns the decision whether a body is one that we can take. Never reads the SDP itself.

use bytes::Bytes;

use crate::headers::{content_type, unquote};
use crate::message::Headers;

/// Deepest nesting of multipart bodies looked into.
const MAX_DEPTH: usize = 3;
/// Most parts looked at in one multipart body.
const MAX_PARTS: usize = 16;

/// The body cannot be taken: 415 (RFC 3261 §8.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsupported;

/// The session description of a message: `None` when it has no body, or one that it calls optional.
pub(crate) fn session_description(headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, Unsupported> {
    if body.is_empty() {
        return Ok(None);
    }
    let encoded =
        headers.get("Content-Encoding").is_some_and(|e| !e.is_empty() && !e.eq_ignore_ascii_case("identity"));
    let kind = headers.get("Content-Type").unwrap_or("application/sdp");
    let found = if encoded { None } else { find(kind, body, MAX_DEPTH) };
    match found {
        Some(sdp) => Ok(Some(sdp)),
        None if headers.get("Content-Disposition").is_some_and(is_optional) => Ok(None),
        None => Err(Unsupported),
    }
}

fn is_optional(disposition: &str) -> bool {
    content_type(disposition)
        .1
        .get("handling")
        .is_some_and(|handling| handling.eq_ignore_ascii_case("optional"))
}

fn find(kind: &str, body: &Bytes, depth: usize) -> Option<Bytes> {
    let (kind, params) = content_type(kind);
    if kind == "application/sdp" {
        return Some(body.clone());
    }
    if !kind.starts_with("multipart/") || depth == 0 {
        return None;
    }
    let raw = params.get("boundary")?;
    let boundary = format!("--{}", unquote(raw).unwrap_or_else(|| raw.to_owned()));
    parts(body, boundary.as_bytes()).into_iter().take(MAX_PARTS).find_map(|part| {
        let (kind, content) = open_part(&part)?;
        find(&kind, &content, depth - 1)
    })
}

/// The parts between boundary lines, without the line end that belongs to the boundary.
fn parts(body: &Bytes, boundary: &[u8]) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() {
        let end = body[at..].iter().position(|b| *b == b'\n').map_or(body.len(), |n| at + n + 1);
        let line = body[at..end].trim_ascii_end();
        let closing = line.strip_prefix(boundary).is_some_and(|rest| rest == b"--");
        if line == boundary || closing {
            if let Some(start) = start {
                let content = &body[start..at];
                let content = content.strip_suffix(b"\n").unwrap_or(content);
                let content = content.strip_suffix(b"\r").unwrap_or(content);
                out.push(body.slice_ref(content));
            }
            start = (!closing).then_some(end);
            if closing || out.len() >= MAX_PARTS {
                break;
            }
        }
        at = end;
    }
    out
}

/// Splits a part into its type and content. A part without headers is plain text.
fn open_part(part: &Bytes) -> Option<(String, Bytes)> {
    let mut kind = "text/plain".to_owned();
    let mut at = 0;
    while at < part.len() {
        let end = part[at..].iter().position(|b| *b == b'\n').map(|n| at + n + 1)?;
        let line = part[at..end].trim_ascii();
        at = end;
        if line.is_empty() {
            return Some((kind, part.slice(at..)));
        }
        if let Some((name, value)) = String::from_utf8_lossy(line).split_once(':')
            && (name.trim().eq_ignore_ascii_case("Content-Type") || name.trim() == "c")
        {
            value.trim().clone_into(&mut kind);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, body: &str) -> Result<Option<Bytes>, Unsupported> {
        let mut headers = Headers::new();
        if !kind.is_empty() {
            headers.push("Content-Type", kind);
        }
        session_description(&headers, &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn sdp_is_found_alone_and_among_parts() {
        assert_eq!(of("application/sdp", ""), Ok(None));
        assert_eq!(of("Application/SDP; charset=utf-8", "v=0"), Ok(Some(Bytes::from("v=0"))));
        assert_eq!(of("", "v=0"), Ok(Some(Bytes::from("v=0"))));
        let mixed = "preamble\r\n--x y\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x y\r\n\
                     content-type : application/sdp\r\nContent-ID: 1\r\n\r\nv=0\r\no=-\r\n\r\n--x y--\r\n";
        assert_eq!(of("multipart/mixed; boundary=\"x y\"", mixed), Ok(Some(Bytes::from("v=0\r\no=-\r\n"))));
        assert_eq!(of("multipart/mixed;boundary=zzz", mixed), Err(Unsupported));
        assert_eq!(of("multipart/mixed", mixed), Err(Unsupported));
        assert_eq!(of("text/html", "v=0"), Err(Unsupported));
    }

    #[test]
    fn an_optional_body_is_passed_over() {
        let mut headers = Headers::new();
        headers.push("Content-Type", "application/isup");
        headers.push("Content-Disposition", "signal;handling=optional");
        assert_eq!(session_description(&headers, &Bytes::from("x")), Ok(None));
    }
}

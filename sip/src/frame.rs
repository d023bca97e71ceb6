//! Cutting a byte stream into messages (RFC 3261 §18.3).
//!
//! Owns the bytes of one TCP or TLS connection until they make a whole message. On a stream only `Content-Length` says where
//! a message ends, so a connection on which it is unreadable is lost. Never reads more meaning than that length.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::headers::read_number;
use crate::parse::MAX_MESSAGE;

/// Why a stream cannot be cut any further; the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Headers or body beyond [`MAX_MESSAGE`].
    #[error("message too large")]
    TooLarge,
    /// A length that is no number, or two that differ.
    #[error("unreadable Content-Length")]
    Length,
}

/// The bytes of one connection that are not yet a message.
#[derive(Debug, Default)]
pub struct Framer {
    held: BytesMut,
    /// How far the end of the headers has been looked for, so that slow senders cost no repeated searches.
    searched: usize,
}

impl Framer {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the connection gave.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message, without the line ends of keep-alives before it; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`], after which the connection is of no more use.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.searched == 0 {
            let idle = self.held.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.held.advance(idle);
        }
        let Some(head) = self.head_end() else {
            return if self.held.len() > MAX_MESSAGE { Err(FrameError::TooLarge) } else { Ok(None) };
        };
        let total = head.saturating_add(content_length(&self.held[..head])?);
        if total > MAX_MESSAGE {
            return Err(FrameError::TooLarge);
        }
        if self.held.len() < total {
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(self.held.split_to(total).freeze()))
    }

    fn head_end(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(3);
        for at in from..self.held.len() {
            if self.held[at] != b'\n' {
                continue;
            }
            match &self.held[at + 1..] {
                [b'\n', ..] => return Some(at + 2),
                [b'\r', b'\n', ..] => return Some(at + 3),
                _ => {}
            }
        }
        self.searched = self.held.len();
        None
    }
}

fn content_length(head: &[u8]) -> Result<usize, FrameError> {
    let mut found = None;
    for line in head.split(|b| *b == b'\n') {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = line[..colon].trim_ascii();
        if !name.eq_ignore_ascii_case(b"Content-Length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let value =
            std::str::from_utf8(&line[colon + 1..]).ok().and_then(read_number).ok_or(FrameError::Length)?;
        if found.replace(value).is_some_and(|before| before != value) {
            return Err(FrameError::Length);
        }
    }
    Ok(found.unwrap_or(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        let stream = b"\r\n\r\nA sip:a SIP/2.0\r\nl : 3\r\n\r\nabcB sip:b SIP/2.0\nX: y\n\n\r\n";
        for piece in 1..stream.len() {
            let mut framer = Framer::new();
            let mut out = Vec::new();
            for bytes in stream.chunks(piece) {
                framer.push(bytes);
                while let Some(message) = framer.next_message().unwrap() {
                    out.push(message);
                }
            }
            assert_eq!(
                out,
                [&b"A sip:a SIP/2.0\r\nl : 3\r\n\r\nabc"[..], b"B sip:b SIP/2.0\nX: y\n\n"],
                "{piece}"
            );
        }
    }

    #[test]
    fn an_unreadable_length_loses_the_connection() {
        for (text, error) in [
            ("A\r\nContent-Length: -1\r\n\r\n", FrameError::Length),
            ("A\r\nl: 1\r\nl: 2\r\n\r\n", FrameError::Length),
            ("A\r\nl: 99999\r\n\r\n", FrameError::TooLarge),
        ] {
            let mut framer = Framer::new();
            framer.push(text.as_bytes());
            assert_eq!(framer.next_message(), Err(error), "{text}");
        }
        let mut framer = Framer::new();
        framer.push(&vec![b'a'; MAX_MESSAGE + 1]);
        assert_eq!(framer.next_message(), Err(FrameError::TooLarge));
    }
}

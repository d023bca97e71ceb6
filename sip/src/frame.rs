//! Cutting a byte stream into messages (RFC 3261 §18.3) and the line ends between them (RFC 5626 §3.5.1).
//!
//! Owns the bytes of one TCP or TLS connection until they make a whole message. On a stream only `Content-Length` says where
//! a message ends, so a connection on which it is missing or unreadable is lost; the headers that came are kept, so that
//! the sender can be told why. Never reads more meaning than that length.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::headers::read_number;
use crate::parse::MAX_MESSAGE;

/// Largest start line and headers, in bytes; far more than [`crate::parse`] takes apart.
pub const MAX_HEAD: usize = 32 * 1_024;

/// Why a stream cannot be cut any further; the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Headers beyond [`MAX_HEAD`], or a whole beyond [`MAX_MESSAGE`].
    #[error("message too large")]
    TooLarge,
    /// A length that is no number, or two that differ.
    #[error("unreadable Content-Length")]
    Length,
    /// No length at all.
    #[error("no Content-Length")]
    NoLength,
}

/// The bytes of one connection that are not yet a message.
#[derive(Debug, Default)]
pub struct Framer {
    held: BytesMut,
    /// How far the end of the headers has been looked for, so that slow senders cost no repeated searches.
    searched: usize,
    /// Where the headers end and the whole message does, once known.
    known: Option<(usize, usize)>,
    /// Line ends passed over since they were last asked for.
    line_ends: usize,
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

    /// The next whole message, without the line ends before it; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`], after which the connection is of no more use.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.searched == 0 && self.known.is_none() {
            self.pass_line_ends();
            // Half a line end is not the beginning of a message yet.
            if matches!(&self.held[..], [] | [b'\r']) {
                return Ok(None);
            }
        }
        if self.known.is_none() {
            let Some(head) = self.head_end() else {
                return if self.held.len() > MAX_HEAD { Err(FrameError::TooLarge) } else { Ok(None) };
            };
            if head > MAX_HEAD {
                return Err(FrameError::TooLarge);
            }
            let length = content_length(&self.held[..head])?;
            self.known = Some((head, head.saturating_add(length)));
        }
        let Some((_, total)) = self.known else { return Ok(None) };
        if total > MAX_MESSAGE {
            return Err(FrameError::TooLarge);
        }
        if self.held.len() < total {
            return Ok(None);
        }
        (self.searched, self.known) = (0, None);
        Ok(Some(self.held.split_to(total).freeze()))
    }

    /// How many line ends stood between messages since this was last asked: one is a pong, two are a ping.
    pub fn take_line_ends(&mut self) -> usize {
        std::mem::take(&mut self.line_ends)
    }

    /// Whether a message has begun that is not whole yet.
    pub fn is_partial(&self) -> bool {
        !matches!(&self.held[..], [] | [b'\r'])
    }

    /// The headers at which cutting failed, for an answer to their sender; empty when they had no end.
    pub fn lost_head(&mut self) -> Bytes {
        let end = match self.known {
            Some((head, _)) => Some(head),
            None => {
                self.searched = 0;
                self.head_end().filter(|head| *head <= MAX_HEAD)
            }
        };
        end.map_or_else(Bytes::new, |end| self.held.split_to(end).freeze())
    }

    fn pass_line_ends(&mut self) {
        loop {
            match &self.held[..] {
                [b'\r', b'\n', ..] => self.held.advance(2),
                [b'\n', ..] => self.held.advance(1),
                // A lone return is half a line end, or the rest has to follow it.
                [b'\r', other, ..] if *other != b'\n' => {
                    self.held.advance(1);
                    continue;
                }
                _ => return,
            }
            self.line_ends = self.line_ends.saturating_add(1);
        }
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
        let name = line[..colon].trim_ascii_end();
        if !name.eq_ignore_ascii_case(b"Content-Length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let value =
            std::str::from_utf8(&line[colon + 1..]).ok().and_then(read_number).ok_or(FrameError::Length)?;
        if found.replace(value).is_some_and(|before| before != value) {
            return Err(FrameError::Length);
        }
    }
    found.map(|length| length as usize).ok_or(FrameError::NoLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        let stream = b"\r\n\r\nA sip:a SIP/2.0\r\nl : 3\r\n\r\nabcB sip:b SIP/2.0\nX: y\nl:0\n\n\r\n";
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
                [&b"A sip:a SIP/2.0\r\nl : 3\r\n\r\nabc"[..], b"B sip:b SIP/2.0\nX: y\nl:0\n\n"],
                "{piece}"
            );
            assert_eq!(framer.take_line_ends(), 3);
            assert!(!framer.is_partial());
        }
    }

    #[test]
    fn an_unreadable_length_loses_the_connection_and_leaves_the_headers() {
        for (text, error) in [
            ("A\r\nContent-Length: -1\r\n\r\n", FrameError::Length),
            ("A\r\nl: 1\r\nl: 2\r\n\r\n", FrameError::Length),
            ("A\r\nX: 1\r\n\r\n", FrameError::NoLength),
            // A folded line that looks like a length is part of the header above it.
            ("A\r\nX: 1\r\n l: 3\r\n\r\n", FrameError::NoLength),
            ("A\r\nl: 99999\r\n\r\n", FrameError::TooLarge),
            ("A\r\nl: 4294967295\r\n\r\n", FrameError::TooLarge),
        ] {
            let mut framer = Framer::new();
            framer.push(text.as_bytes());
            assert_eq!(framer.next_message(), Err(error), "{text}");
            assert_eq!(framer.lost_head(), text.as_bytes());
        }
        let mut framer = Framer::new();
        framer.push(&vec![b'a'; MAX_HEAD + 1]);
        assert_eq!(framer.next_message(), Err(FrameError::TooLarge));
        assert!(framer.lost_head().is_empty());
    }
}

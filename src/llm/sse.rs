//! Server-sent events (WHATWG HTML §9.2), as far as language models use them: the data of each event. Pure; bytes may
//! be cut anywhere, also within a character.

use crate::provider::Trouble;

/// Longest event, bytes.
const EVENT_MAX: usize = 1024 * 1024;

/// Cuts bytes into the data of events.
#[derive(Debug)]
pub(super) struct Lines {
    /// The answer is one JSON document and no stream of events.
    whole: bool,
    rest: Vec<u8>,
    data: String,
}

impl Lines {
    /// For a stream of events, or for one whole document.
    pub(super) fn new(whole: bool) -> Self {
        Self { whole, rest: Vec::new(), data: String::new() }
    }

    /// The events that end in these bytes.
    ///
    /// # Errors
    /// [`Trouble::Answer`] for an event without end, or one that is no UTF-8.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, Trouble> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        if !self.whole {
            // Lines end in LF or CR LF; the lone CR that the standard also permits is used by nobody.
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).take(end).collect();
                self.line(line.strip_suffix(b"\r").unwrap_or(&line), &mut events)?;
            }
        }
        if self.rest.len() + self.data.len() > EVENT_MAX {
            return Err(Trouble::Answer("too much"));
        }
        Ok(events)
    }

    /// The end of the answer.
    ///
    /// # Errors
    /// As [`Lines::push`].
    pub(super) fn finish(&mut self) -> Result<Vec<String>, Trouble> {
        let mut events = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        if self.whole {
            let text = String::from_utf8(rest).map_err(|_| Trouble::Answer("no UTF-8"))?;
            events.push(text);
            return Ok(events);
        }
        self.line(&rest, &mut events)?;
        self.line(b"", &mut events)?;
        Ok(events)
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<String>) -> Result<(), Trouble> {
        if line.is_empty() {
            if !self.data.is_empty() {
                events.push(std::mem::take(&mut self.data));
            }
            return Ok(());
        }
        // Comments and other fields say nothing here.
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.strip_prefix(b" ").unwrap_or(data);
        let data = std::str::from_utf8(data).map_err(|_| Trouble::Answer("no UTF-8"))?;
        if !self.data.is_empty() {
            self.data.push('\n');
        }
        self.data.push_str(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(body: &[u8], size: usize) -> Vec<String> {
        let mut lines = Lines::new(false);
        let mut events = Vec::new();
        for piece in body.chunks(size) {
            events.extend(lines.push(piece).unwrap());
        }
        events.extend(lines.finish().unwrap());
        events
    }

    #[test]
    fn events_may_be_cut_anywhere() {
        let body = ": a comment\r\n\r\ndata: {\"a\":\"é😀\"}\n\nevent: x\nid: 1\ndata:two\ndata: lines\n\n\n\
                    data: [DONE]\r\n\r\n";
        for size in 1..body.len() {
            assert_eq!(events(body.as_bytes(), size), ["{\"a\":\"é😀\"}", "two\nlines", "[DONE]"], "{size}");
        }
    }

    #[test]
    fn the_last_event_needs_no_end() {
        assert_eq!(events(b"data: a\n\ndata: b", 3), ["a", "b"]);
        assert_eq!(events(b"", 1), Vec::<String>::new());
    }

    #[test]
    fn a_whole_document_is_one_event() {
        let mut lines = Lines::new(true);
        assert!(lines.push(b"{\n\n").unwrap().is_empty());
        assert!(lines.push(b"}").unwrap().is_empty());
        assert_eq!(lines.finish().unwrap(), ["{\n\n}"]);
    }

    #[test]
    fn what_has_no_end_or_no_meaning_is_refused() {
        let mut lines = Lines::new(false);
        let long = vec![b'x'; EVENT_MAX / 2];
        assert!(lines.push(&long).is_ok() && lines.push(&long).is_ok());
        assert_eq!(lines.push(b"x"), Err(Trouble::Answer("too much")));
        assert_eq!(Lines::new(false).push(b"data: \xff\n"), Err(Trouble::Answer("no UTF-8")));
    }
}

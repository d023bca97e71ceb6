//! Calls that are answered by nothing at all: noted when they are first heard, so that their lines can be written
//! when their callers must have given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::record::Record;
use crate::model::Now;

/// RFC 3261 timer B: an INVITE that got no response is given up after 64 * T1.
const GIVEN_UP: Duration = Duration::from_secs(32);
/// Calls remembered at once; more are not noted.
const NOTED_MAX: usize = 1000;

/// Everyone who is being ignored.
#[derive(Debug, Default)]
pub(super) struct Deaf {
    noted: BTreeMap<String, (Instant, Record)>,
    closing: bool,
}

impl Deaf {
    /// A request came; the first of each call is noted, retransmissions change nothing.
    pub(super) fn heard(&mut self, now: Now, record: Record) {
        if self.noted.len() < NOTED_MAX {
            let record = Record { invited_at: Some(now.wall), ..record };
            self.noted.entry(record.call_id.clone()).or_insert((now.mono + GIVEN_UP, record));
        }
    }

    /// When [`Deaf::done`] has something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.noted.values().map(|(at, _)| *at).min()
    }

    /// All are done now.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// The calls that have been given up.
    pub(super) fn done(&mut self, now: Instant) -> Vec<Record> {
        let closing = self.closing;
        self.noted.extract_if(.., |_, (at, _)| closing || *at <= now).map(|(_, (_, record))| record).collect()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any start will do")]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn call(id: usize) -> Record {
        Record { call_id: format!("c{id}"), ..Record::default() }
    }

    #[test]
    fn each_call_is_written_once_when_its_caller_has_given_up() {
        let now = Now { mono: Instant::now(), wall: Timestamp(5) };
        let mut deaf = Deaf::default();
        deaf.heard(now, call(1));
        deaf.heard(now.plus(Duration::from_secs(1)), call(1));
        assert_eq!(deaf.poll_timeout(), Some(now.mono + GIVEN_UP));
        assert!(deaf.done(now.mono).is_empty());
        let done = deaf.done(now.mono + GIVEN_UP);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].invited_at, Some(Timestamp(5)));
        assert_eq!(deaf.poll_timeout(), None);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let mut deaf = Deaf::default();
        (0..2 * NOTED_MAX).for_each(|id| deaf.heard(now, call(id)));
        assert_eq!(deaf.noted.len(), NOTED_MAX);
        deaf.close();
        assert_eq!(deaf.done(now.mono).len(), NOTED_MAX);
    }
}

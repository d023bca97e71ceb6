//! What was said about each call: its SIP messages, both ways, over every trunk tried and for the second party of a
//! transfer, while it is up and for a while after. Owns how much of it is kept and until when; looks at nothing of a
//! message but its `Call-ID`. Messages of nobody's call are not kept, so strangers cannot push anything out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::model::ladder::{CallName, Ladder, Rung};
use crate::model::{CallId, Now, Timestamp};

/// Messages kept of one call: the latest.
const RUNGS_MAX: usize = 64;
/// Bytes kept of one message.
const RUNG_MAX_BYTES: usize = 2048;
/// Dialogs of one call.
const DIALOGS_MAX: usize = 32;
/// A repetition is known again among so many messages before it.
const LOOKED_AT: usize = 8;
/// How long the messages of a call are kept after its end.
const KEPT: Duration = Duration::from_secs(600);
/// And those of a caller of whom nothing has come yet: a login takes two INVITEs.
const UNTAKEN: Duration = Duration::from_secs(64);
/// Calls that are over.
const OVER_MAX: usize = 20_000;
/// Bytes of all.
const MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Kept {
    /// Whose; nobody's yet for a caller who waits at the desk.
    call: Option<(CallId, String)>,
    dialogs: Vec<Bytes>,
    rungs: VecDeque<Rung>,
    left_out: u32,
    /// When it is forgotten; `None` for a call that is up.
    until: Option<Instant>,
}

/// See the module's words.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    kept: BTreeMap<u64, Kept>,
    /// By `Call-ID`.
    dialogs: BTreeMap<Bytes, u64>,
    calls: BTreeMap<CallId, u64>,
    /// By Kaphila's form of the id.
    names: BTreeMap<String, u64>,
    ending: BTreeSet<(Instant, u64)>,
    /// The latest INVITE of a dialog that is not known.
    fresh: Option<(Bytes, Rung)>,
    next: u64,
    bytes: usize,
    /// The time of what is sent now.
    wall: Timestamp,
}

impl Ladders {
    /// It is so late.
    pub(super) fn at(&mut self, now: Now) {
        self.wall = now.wall;
        while let Some((until, place)) = self.ending.first().copied()
            && until <= now.mono
        {
            self.forget(place);
        }
    }

    /// A message came in.
    pub(super) fn came(&mut self, now: Now, from: sip::Peer, message: &[u8]) {
        self.fresh = None;
        let Some(dialog) = call_id(message) else { return };
        let known = self.dialogs.get(dialog).copied();
        if known.is_none() && !message.starts_with(b"INVITE ") {
            return;
        }
        let head = Bytes::copy_from_slice(&message[..message.len().min(RUNG_MAX_BYTES)]);
        let rung = Rung::new(now.wall, false, from, message.len(), head);
        match known {
            Some(place) => self.add(place, rung),
            None => self.fresh = Some((Bytes::copy_from_slice(dialog), rung)),
        }
    }

    /// A message goes out.
    pub(super) fn goes(&mut self, transmit: &sip::Transmit) {
        let place = call_id(&transmit.bytes).and_then(|dialog| self.dialogs.get(dialog).copied());
        if let Some(place) = place {
            let head = transmit.bytes.slice(..transmit.bytes.len().min(RUNG_MAX_BYTES));
            let rung = Rung::new(self.wall, true, transmit.to, transmit.bytes.len(), head);
            self.add(place, rung);
        }
    }

    /// The INVITE that has just come in is one of somebody who may call.
    pub(super) fn knocked(&mut self, now: Now, dialog: &str) {
        let Some((known, rung)) = self.fresh.take_if(|(fresh, _)| *fresh == dialog.as_bytes()) else {
            return;
        };
        let place = self.begin();
        self.join(place, known);
        self.ends(place, now.mono + UNTAKEN);
        self.add(place, rung);
    }

    /// A dialog is one of this call's.
    pub(super) fn own(&mut self, call: CallId, kaphila_id: &str, dialog: &str) {
        let dialog = Bytes::copy_from_slice(dialog.as_bytes());
        let nobodys = |place: &u64| self.kept.get(place).is_some_and(|kept| kept.call.is_none());
        let waiting = self.dialogs.get(&dialog).copied().filter(nobodys);
        let place = match self.calls.get(&call).copied().or(waiting) {
            Some(place) => place,
            None => self.begin(),
        };
        self.join(place, dialog);
        self.calls.insert(call, place);
        self.names.insert(kaphila_id.to_owned(), place);
        if let Some(kept) = self.kept.get_mut(&place) {
            kept.call = Some((call, kaphila_id.to_owned()));
            if let Some(until) = kept.until.take() {
                self.ending.remove(&(until, place));
            }
        }
    }

    /// A call is over.
    pub(super) fn over(&mut self, now: Now, call: CallId) {
        if let Some(place) = self.calls.get(&call).copied() {
            self.ends(place, now.mono + KEPT);
        }
    }

    /// What was said about a call.
    pub(super) fn of(&self, name: &CallName) -> Option<Ladder> {
        let place = match name {
            CallName::Id(call) => self.calls.get(call),
            CallName::Kaphila(name) => self.names.get(name),
        };
        let kept = self.kept.get(place?)?;
        let (call, kaphila_id) = kept.call.clone()?;
        let rungs = kept.rungs.iter().cloned().collect();
        Some(Ladder { call, kaphila_id, live: kept.until.is_none(), left_out: kept.left_out, rungs })
    }

    fn begin(&mut self) -> u64 {
        self.next += 1;
        self.kept.insert(self.next, Kept::default());
        self.next
    }

    fn join(&mut self, place: u64, dialog: Bytes) {
        let Some(kept) = self.kept.get_mut(&place) else { return };
        if kept.dialogs.len() < DIALOGS_MAX && !kept.dialogs.contains(&dialog) {
            self.bytes += dialog.len();
            kept.dialogs.push(dialog.clone());
            self.dialogs.insert(dialog, place);
        }
    }

    fn ends(&mut self, place: u64, until: Instant) {
        let Some(kept) = self.kept.get_mut(&place) else { return };
        if let Some(before) = kept.until.replace(until) {
            self.ending.remove(&(before, place));
        }
        self.ending.insert((until, place));
        self.make_room(0);
    }

    fn add(&mut self, place: u64, rung: Rung) {
        let Some(kept) = self.kept.get_mut(&place) else { return };
        let mut latest = kept.rungs.iter_mut().rev().take(LOOKED_AT);
        if let Some(same) = latest.find(|known| known.is_alike(&rung)) {
            same.again = same.again.saturating_add(1);
            same.last_at = rung.at;
            return;
        }
        let weight = rung.weight();
        let room = self.make_room(weight);
        // It may have been its own that made room.
        let Some(kept) = self.kept.get_mut(&place) else { return };
        if room {
            self.bytes += weight;
            kept.rungs.push_back(rung);
        }
        if kept.rungs.len() > RUNGS_MAX
            && let Some(oldest) = kept.rungs.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            kept.left_out = kept.left_out.saturating_add(1);
        } else if !room {
            kept.left_out = kept.left_out.saturating_add(1);
        }
    }

    /// Forgets those that end first until there is room for so many bytes; whether there is.
    fn make_room(&mut self, bytes: usize) -> bool {
        while (self.ending.len() > OVER_MAX || self.bytes + bytes > MAX_BYTES)
            && let Some((_, place)) = self.ending.first().copied()
        {
            self.forget(place);
        }
        self.bytes + bytes <= MAX_BYTES
    }

    fn forget(&mut self, place: u64) {
        let Some(kept) = self.kept.remove(&place) else { return };
        if let Some(until) = kept.until {
            self.ending.remove(&(until, place));
        }
        let weight: usize = kept.rungs.iter().map(Rung::weight).sum();
        self.bytes = self.bytes.saturating_sub(weight);
        for dialog in kept.dialogs {
            self.bytes = self.bytes.saturating_sub(dialog.len());
            // It may be another's by now.
            if self.dialogs.get(&dialog) == Some(&place) {
                self.dialogs.remove(&dialog);
            }
        }
        if let Some((call, name)) = kept.call {
            self.calls.remove(&call);
            self.names.remove(&name);
        }
    }
}

/// The `Call-ID` of a message (RFC 3261 §20.8), found without reading the rest.
fn call_id(message: &[u8]) -> Option<&[u8]> {
    for line in message.split(|byte| *byte == b'\n').skip(1) {
        match line.first()? {
            b'\r' => return None,
            b'c' | b'C' | b'i' | b'I' => {}
            _ => continue,
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = line[..colon].trim_ascii();
        if name.eq_ignore_ascii_case(b"call-id") || name.eq_ignore_ascii_case(b"i") {
            return Some(line[colon + 1..].trim_ascii()).filter(|id| !id.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests;

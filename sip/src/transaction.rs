//! Transactions (RFC 3261 §17, RFC 6026, RFC 4320): what names them, their timers, and the table of live ones.
//!
//! Owns matching a message to the exchange it belongs to, sending again what was lost, and forgetting in time. The four
//! machines in [`client`] and [`server`] know only time and status codes; this file gives them messages. Never decides what a
//! request means: that is the session's part.

pub(crate) mod client;
pub(crate) mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::message::{Method, Request};
use crate::parse::Core;
use crate::{Peer, SessionId};

/// The base timers (RFC 3261 §17.1.1.1, Table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip estimate; first retransmission interval over UDP. 500 ms.
    pub t1: Duration,
    /// Longest retransmission interval of non-INVITE requests and of 2xx. 4 s.
    pub t2: Duration,
    /// How long a message may linger in the network. 5 s.
    pub t4: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) }
    }
}

impl Timers {
    /// `64*T1`: timers B, D (at least), F, H, J, L and M.
    pub fn patience(&self) -> Duration {
        self.t1 * 64
    }
}

/// Names a transaction within this endpoint; never used twice.
pub(crate) type TxId = u64;

/// What makes a response ours (RFC 3261 §17.1.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientKey {
    pub(crate) branch: String,
    pub(crate) method: Method,
}

/// What makes a request belong to a transaction that we serve (RFC 3261 §17.2.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerKey {
    /// By branch and sent-by.
    Branch { branch: String, sent_by: String, method: Method },
    /// As RFC 2543 had it, for requests whose branch promises nothing.
    Classic { call_id: String, from_tag: String, seq: u32, via: String, method: Method },
}

impl ServerKey {
    /// The key of a request; an ACK and, when asked for, a CANCEL have the key of the INVITE that they are about.
    pub(crate) fn of(core: &Core, method: &Method) -> Self {
        let method = if *method == Method::Ack { Method::Invite } else { method.clone() };
        let via = &core.via;
        match via.branch().filter(|_| via.has_magic_branch()) {
            Some(branch) => Self::Branch {
                branch: branch.to_owned(),
                sent_by: format!("{}:{}", via.host, via.port.unwrap_or(5060)).to_ascii_lowercase(),
                method,
            },
            None => Self::Classic {
                call_id: core.call_id.clone(),
                from_tag: core.from.tag().unwrap_or("").to_owned(),
                seq: core.cseq.seq,
                via: via.to_string(),
                method,
            },
        }
    }
}

/// A request of ours that waits for its end.
#[derive(Debug)]
pub(crate) struct ClientTx {
    pub(crate) key: ClientKey,
    pub(crate) machine: client::Client,
    pub(crate) peer: Peer,
    /// It went by TCP only because it is large, so that UDP remains to be tried (RFC 3261 §18.1.1).
    pub(crate) by_size: bool,
    /// With our `Via` on top; retries, CANCEL and ACK are made from it.
    pub(crate) request: Request,
    pub(crate) wire: Bytes,
    pub(crate) ack: Option<Bytes>,
    pub(crate) owner: SessionId,
    /// The CSeq number.
    pub(crate) seq: u32,
}

/// A request of the other side that we serve.
#[derive(Debug)]
pub(crate) struct ServerTx {
    pub(crate) key: ServerKey,
    pub(crate) machine: server::Server,
    pub(crate) peer: Peer,
    /// Without its body: kept for the headers that a response repeats.
    pub(crate) request: Request,
    /// The last response, for retransmissions of the request.
    pub(crate) last: Option<Bytes>,
    pub(crate) owner: SessionId,
}

/// Names in a table that also can be looked up by key. Both maps change together.
#[derive(Debug)]
pub(crate) struct Table<K, T> {
    live: BTreeMap<TxId, T>,
    by_key: BTreeMap<K, TxId>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, T> Table<K, T> {
    pub(crate) fn insert(&mut self, id: TxId, key: K, tx: T) {
        self.by_key.insert(key, id);
        self.live.insert(id, tx);
    }

    pub(crate) fn find(&self, key: &K) -> Option<TxId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, id: TxId) -> Option<&T> {
        self.live.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: TxId) -> Option<&mut T> {
        self.live.get_mut(&id)
    }

    /// Removes a transaction; the key goes with it unless another has taken it over.
    pub(crate) fn remove(&mut self, id: TxId, key_of: impl Fn(&T) -> &K) -> Option<T> {
        let tx = self.live.remove(&id)?;
        let key = key_of(&tx);
        if self.by_key.get(key) == Some(&id) {
            self.by_key.remove(key);
        }
        Some(tx)
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }
}

/// Deadlines by owner: the earliest is at hand without a search, and each owner has at most one.
#[derive(Debug)]
pub(crate) struct Timetable<K> {
    order: BTreeSet<(Instant, K)>,
    of: BTreeMap<K, Instant>,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), of: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timetable<K> {
    /// Sets, moves or (with `None`) removes the deadline of an owner.
    pub(crate) fn set(&mut self, owner: K, at: Option<Instant>) {
        if self.of.get(&owner).copied() == at {
            return;
        }
        if let Some(before) = self.of.remove(&owner) {
            self.order.remove(&(before, owner));
        }
        if let Some(at) = at {
            self.of.insert(owner, at);
            self.order.insert((at, owner));
        }
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first owner whose time has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let (at, owner) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, owner));
        self.of.remove(&owner);
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timetable_gives_the_earliest_and_forgets_the_replaced() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut table = Timetable::default();
        table.set(1, Some(at(30)));
        table.set(2, Some(at(20)));
        table.set(1, Some(at(10)));
        table.set(3, Some(at(5)));
        table.set(3, None);
        assert_eq!(table.first(), Some(at(10)));
        assert_eq!(table.pop(at(9)), None);
        assert_eq!((table.pop(at(25)), table.pop(at(25)), table.pop(at(99))), (Some(1), Some(2), None));
        assert_eq!(table.first(), None);
    }
}

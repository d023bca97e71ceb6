//! The SIP messages of one call in their order, for whoever has to find out why it went as it did. Plain values: the engine
//! collects them, the surfaces show them. Owns what may be shown: secrets and keys are masked before any text leaves.

mod mask;

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::{CallId, Timestamp};

/// A call by any of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallName {
    /// The id, in whichever surface's form it was written.
    Id(CallId),
    /// Kaphila's `<seconds>.<counter>`.
    Kaphila(String),
}

impl CallName {
    /// Reads a name in any form; what is none of them may be Kaphila's.
    pub fn read(text: &str) -> Self {
        let id = CallId::from_hex(text)
            .or_else(|| CallId::from_uuid(text))
            .or_else(|| CallId::from_call_sid(text))
            .or_else(|| CallId::from_cuid(text));
        id.map_or_else(|| Self::Kaphila(text.to_owned()), Self::Id)
    }
}

/// One message.
#[derive(Clone)]
pub struct Rung {
    /// When it went out or came in.
    pub at: Timestamp,
    /// We sent it.
    pub sent: bool,
    /// By which transport.
    pub transport: sip::Transport,
    /// To whom, or from whom.
    pub peer: SocketAddr,
    /// Its length on the wire, bytes.
    pub size: usize,
    /// How often it was repeated.
    pub again: u32,
    /// When it was repeated last; `at` where it was not.
    pub last_at: Timestamp,
    /// Its beginning as it was on the wire. Never shown as it is.
    head: Bytes,
}

impl fmt::Debug for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rung").field("sent", &self.sent).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Rung {
    /// A message of `size` bytes that begins so, at this time.
    pub fn new(at: Timestamp, sent: bool, peer: sip::Peer, size: usize, head: Bytes) -> Self {
        let (transport, peer) = (peer.transport, peer.addr);
        Self { at, sent, transport, peer, size, again: 0, last_at: at, head }
    }

    /// Whether the other is the same message on the same way.
    pub fn is_alike(&self, other: &Self) -> bool {
        let way = |rung: &Self| (rung.sent, rung.transport, rung.peer, rung.size);
        way(self) == way(other) && self.head == other.head
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        self.head.len()
    }

    /// The message as far as it was kept, with secrets and keys masked.
    pub fn text(&self) -> String {
        mask::masked(&self.head)
    }

    /// It in a few words: `INVITE sip:…`, or `200 OK (INVITE)`.
    pub fn summary(&self) -> String {
        let text = self.text();
        let first = text.lines().next().unwrap_or_default();
        match first.strip_prefix("SIP/2.0 ") {
            Some(status) => {
                let method = header(&text, "CSeq").and_then(|cseq| cseq.split_whitespace().nth(1));
                method.map_or_else(|| status.to_owned(), |method| format!("{status} ({method})"))
            }
            None => first.trim_end_matches(" SIP/2.0").to_owned(),
        }
    }

    /// Its `Call-ID`, empty where it has none.
    pub fn dialog(&self) -> String {
        let text = self.text();
        header(&text, "Call-ID").or_else(|| header(&text, "i")).unwrap_or_default().to_owned()
    }

    /// Whether it carries a session description.
    pub fn describes(&self) -> bool {
        self.head.windows(4).any(|four| four == b"\nv=0")
    }
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.trim_end().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The messages of one call, the oldest first.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// The call.
    pub call: CallId,
    /// Kaphila's form of its id.
    pub kaphila_id: String,
    /// It has not ended.
    pub live: bool,
    /// Messages that were not kept, because there were too many of this call or of all.
    pub left_out: u32,
    /// The others.
    pub rungs: Vec<Rung>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(text: &str) -> Rung {
        let peer = sip::Peer::udp("192.0.2.1:5060".parse().unwrap());
        Rung::new(Timestamp(0), true, peer, text.len(), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_message_in_a_few_words() {
        let invite = rung("INVITE sip:1@b SIP/2.0\r\nCall-ID: x@y\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n");
        assert_eq!((invite.summary().as_str(), invite.dialog().as_str()), ("INVITE sip:1@b", "x@y"));
        assert!(invite.describes());
        let answer = rung("SIP/2.0 486 Busy Here\r\ni: z\r\nCSeq: 7 INVITE\r\n\r\n");
        assert_eq!((answer.summary().as_str(), answer.dialog().as_str()), ("486 Busy Here (INVITE)", "z"));
        assert!(!answer.describes() && !answer.is_alike(&invite) && answer.is_alike(&answer.clone()));
        assert_eq!(rung("").summary(), "");
        assert!(!format!("{invite:?}").contains("INVITE"));
    }

    #[test]
    fn every_form_of_an_id_is_a_name() {
        let id = CallId::random(77);
        for text in [id.hex(), id.uuid(), id.call_sid(), id.cuid()] {
            assert_eq!(CallName::read(&text), CallName::Id(id), "{text}");
        }
        assert_eq!(CallName::read("1800000000.1"), CallName::Kaphila("1800000000.1".into()));
    }
}

//! A SIP user agent without sockets, clocks or randomness of its own (RFC 3261 and the RFCs that mend it).
//!
//! [`Endpoint`] turns datagrams into sessions and sessions into datagrams. It has five verbs:
//!
//! | verb | meaning |
//! |---|---|
//! | `handle_*` | something came in: [`Endpoint::handle_datagram`], [`Endpoint::handle_transport_error`] |
//! | `handle_timeout` | time has passed |
//! | `poll_transmit` | what is to be sent |
//! | `poll_event` | what happened to a session |
//! | `poll_timeout` | when `handle_timeout` wants to be called |
//!
//! The one invariant of use: one input, then drain all outputs, then the next input. Every session that is made, by
//! [`Endpoint::invite`] or by [`SessionEvent::Invited`], ends with [`SessionEvent::Terminated`] exactly once, and nothing
//! follows that. The same seed and the same inputs give the same outputs, bit for bit.
//!
//! SDP is opaque here, and so is every address scheme but `sip:` and `sips:`.

pub mod auth;
mod body;
mod dialog;
mod endpoint;
pub mod frame;
pub mod headers;
pub mod message;
pub mod parse;
mod session;
mod stack;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transaction;
pub mod uri;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

pub use auth::Credentials;
pub use endpoint::{Counts, Endpoint};
pub use headers::{NameAddr, Q850};
pub use message::{Headers, Message, Method, Request, Response, reason_phrase};
pub use session::Session;
pub use transaction::Timers;
pub use uri::{Host, SipUri, Uri, UriError};

/// What a request is not answered with before it is understood: the methods that we take (RFC 3261 §20.5).
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY";

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// An encrypted stream.
    Tls,
}

impl Transport {
    /// Whether the transport itself repeats what was lost.
    pub fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// The name in a `Via`.
    pub(crate) fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// One hop away: who is at the other end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub addr: SocketAddr,
}

impl Peer {
    /// A peer that is spoken to in datagrams.
    pub fn udp(addr: SocketAddr) -> Self {
        Self { transport: Transport::Udp, addr }
    }
}

/// Bytes to be sent: one datagram, or one message on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: Peer,
    /// The message.
    pub bytes: Bytes,
}

/// Names a session within its endpoint; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whose INVITEs are taken. Those of others are dropped without an answer, so that scanners learn nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Inbound {
    /// Nobody's.
    #[default]
    Nobody,
    /// Everybody's.
    Anyone,
    /// Those from these addresses.
    From(BTreeSet<IpAddr>),
}

/// How an endpoint is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address at which others reach us: goes into `Via` and `Contact`.
    pub local: SocketAddr,
    /// `User-Agent` and `Server`, such as `trunkline/0.1`.
    pub user_agent: String,
    /// The base timers.
    pub timers: Timers,
    /// Whose INVITEs are taken.
    pub inbound: Inbound,
    /// Most sessions at a time; an INVITE beyond is answered 503 with `Retry-After`.
    pub max_sessions: usize,
    /// Most transactions at a time, of ours and of others; what would begin one beyond is refused.
    pub max_transactions: usize,
}

impl Config {
    /// The defaults for an address: nobody may call in, 5,000 sessions, 50,000 transactions.
    pub fn new(local: SocketAddr) -> Self {
        Self {
            local,
            user_agent: "trunkline/0.1".to_owned(),
            timers: Timers::default(),
            inbound: Inbound::Nobody,
            max_sessions: 5_000,
            max_transactions: 50_000,
        }
    }
}

/// One call that we make.
#[derive(Debug, Clone)]
pub struct Target {
    /// Request-URI and `To`.
    pub uri: Uri,
    /// `From`, without a tag.
    pub from: Uri,
    /// Display name of `From`.
    pub from_display: Option<String>,
    /// Where the first request goes.
    pub peer: Peer,
    /// What challenges are answered with.
    pub credentials: Option<Credentials>,
    /// Further headers of the INVITE.
    pub headers: Vec<(String, String)>,
    /// Without any response within this, the session ends with [`TerminationCause::NoResponse`].
    pub no_response_timeout: Duration,
    /// Further addresses from which requests inside the dialog are taken, beside the peer's and those of the dialog itself.
    pub sources: Vec<IpAddr>,
}

impl Target {
    /// A call without credentials, further headers and sources; 10 s without any response end it.
    pub fn new(uri: Uri, from: Uri, peer: Peer) -> Self {
        let no_response_timeout = Duration::from_secs(10);
        Self {
            uri,
            from,
            from_display: None,
            peer,
            credentials: None,
            headers: Vec::new(),
            no_response_timeout,
            sources: Vec::new(),
        }
    }
}

/// Why no call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InviteError {
    /// `max_sessions` or `max_transactions` is reached.
    #[error("too many sessions")]
    Busy,
    /// A header or display name has a line break or control character, a name that is none, or one that is ours to write.
    #[error("bad header {0}")]
    Header(usize),
    /// The display name has a line break or another control character.
    #[error("bad display name")]
    Display,
    /// The request would not fit in a datagram.
    #[error("request too large")]
    TooLarge,
}

/// Why a session cannot do that now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// Not answered yet, or over.
    #[error("the session is not confirmed")]
    NotConfirmed,
    /// An offer of either side is still unanswered.
    #[error("an offer is pending")]
    Pending,
    /// Too many transactions at a time.
    #[error("too many transactions")]
    Busy,
    /// A value with a line break or another control character.
    #[error("bad value")]
    Value,
}

/// Tells apart the early dialogs of one call of ours: each far end that a proxy forked to has its own (RFC 3261 §12.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EarlyId(pub u8);

/// An INVITE that came in.
#[derive(Debug, Clone)]
pub struct Invite {
    /// What was dialled.
    pub request_uri: Uri,
    /// Who calls.
    pub from: NameAddr,
    /// Who was called first.
    pub to: NameAddr,
    /// Who sent it to us.
    pub peer: Peer,
    /// Their offer; `None` when we are to make one.
    pub sdp: Option<Bytes>,
    /// The `Call-ID`.
    pub call_id: String,
    /// All headers.
    pub headers: Headers,
}

/// What happened to a session.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// Our INVITE has arrived somewhere (100). At most once.
    Trying,
    /// A provisional response, 101 to 199.
    Progress {
        /// The status.
        code: u16,
        /// Its phrase.
        reason: String,
        /// Which of the far ends.
        dialog: EarlyId,
        /// Early media.
        sdp: Option<Bytes>,
    },
    /// Our INVITE was accepted; the ACK is on its way.
    Answered {
        /// Their answer.
        sdp: Option<Bytes>,
    },
    /// Someone calls. The first event of a session that we did not make.
    Invited(Box<Invite>),
    /// The ACK for our 200 came.
    Confirmed {
        /// Their answer, when the INVITE had no offer.
        sdp: Option<Bytes>,
    },
    /// They want to change the session: `answer_offer` or `reject` is due.
    Offer {
        /// Their offer; `None` when our 200 is to carry one.
        sdp: Option<Bytes>,
    },
    /// Our re-INVITE was accepted, or the ACK brought the answer to the offer that we made in a 200.
    OfferAnswered {
        /// Their answer.
        sdp: Option<Bytes>,
    },
    /// Our re-INVITE was refused; the session goes on as before.
    OfferRefused {
        /// The status. A 408, a 481 and silence are no refusals: they end the session.
        code: u16,
    },
    /// An INFO, answered 200 already.
    Info {
        /// Its `Content-Type` as written; empty when there was none.
        content_type: String,
        /// Its body.
        body: Bytes,
    },
    /// The end. Exactly once, and last.
    Terminated(Termination),
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We did.
    Us,
    /// They did.
    Them,
    /// Time or transport did.
    Nobody,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminationCause {
    /// A final response of 400 and above, theirs or ours.
    Rejected {
        /// The status.
        code: u16,
        /// Its phrase.
        reason: String,
    },
    /// A 3xx.
    Redirected {
        /// The status.
        code: u16,
        /// Where to.
        contacts: Vec<Uri>,
    },
    /// The caller gave up before the answer.
    Cancelled,
    /// A BYE.
    Bye,
    /// No response at all within the target's `no_response_timeout`.
    NoResponse,
    /// A transaction timed out: timer B, F or H, or an ACK that never came.
    TimedOut,
    /// The transport could not reach the peer.
    Transport,
    /// A limit of ours.
    Internal,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Who ended it.
    pub by: Side,
    /// How.
    pub cause: TerminationCause,
    /// The Q.850 cause that the far end gave (RFC 3326); none when it gave none that can be read.
    pub q850: Option<u16>,
    /// When to try again (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Headers of the final response that no RFC governs (`X-…`), and `Warning` and `Error-Info`: at most 16.
    pub headers: Vec<(String, String)>,
}

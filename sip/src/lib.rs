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
pub mod intake;
pub mod message;
pub mod parse;
pub mod register;
mod route;
mod session;
mod stack;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transaction;
pub mod uri;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

pub use auth::Credentials;
pub use endpoint::{Counts, Endpoint, ErrandEvent, ErrandId};
pub use headers::{NameAddr, Q850};
pub use message::{Headers, Message, Method, Request, Response, reason_phrase};
pub use session::Session;
pub use transaction::Timers;
pub use uri::{Host, SipUri, Uri, UriError};

/// What a request is not answered with before it is understood: the methods that we take (RFC 3261 §20.5).
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK, UPDATE, NOTIFY";
/// The extensions that we know, as `Supported` says them (RFC 3262, RFC 4028).
pub const SUPPORTED: &str = "100rel, timer";

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub base: IpAddr,
    /// At most 32 or 128; more means all.
    pub prefix: u8,
}

impl From<IpAddr> for Network {
    fn from(base: IpAddr) -> Self {
        Self { base, prefix: 128 }
    }
}

impl Network {
    /// Whether an address lies in it. IPv4 addresses mapped into IPv6 count as IPv4 (RFC 4291 §2.5.5.2).
    pub fn contains(&self, ip: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.base.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

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

/// A host name by its number in one endpoint: see [`Endpoint::named`]. The default is no name: a certificate must then
/// show the address itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NameId(u16);

/// One hop away: who is at the other end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The transport.
    pub transport: Transport,
    /// The address. On a connection that they opened, the one that they opened it from.
    pub addr: SocketAddr,
    /// The name that a certificate must show (RFC 5922); means nothing but on [`Transport::Tls`].
    pub name: NameId,
}

impl Peer {
    /// A peer without a name of its own.
    pub fn new(transport: Transport, addr: SocketAddr) -> Self {
        Self { transport, addr, name: NameId::default() }
    }

    /// A peer that is spoken to in datagrams.
    pub fn udp(addr: SocketAddr) -> Self {
        Self::new(Transport::Udp, addr)
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
    From(Sources),
}

/// Addresses and networks. Single addresses are found without looking at the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    hosts: BTreeSet<IpAddr>,
    networks: Vec<Network>,
}

impl Sources {
    /// Whether an address is one of these, or in one of the networks.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.hosts.contains(&ip.to_canonical()) || self.networks.iter().any(|network| network.contains(ip))
    }
}

impl FromIterator<Network> for Sources {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        let mut sources = Self::default();
        for network in networks {
            let base = network.base.to_canonical();
            if network.prefix >= if base.is_ipv4() { 32 } else { 128 } {
                sources.hosts.insert(base);
            } else {
                sources.networks.push(Network { base, ..network });
            }
        }
        sources
    }
}

/// How an endpoint is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address at which others reach us: goes into `Via` and `Contact`.
    pub local: SocketAddr,
    /// Our address of the other IP version, told to peers of that version; none when there are no such peers.
    pub local_other: Option<IpAddr>,
    /// What single peers are told, see [`Endpoint::advertise`]; `None`: `local`'s address, whatever their network is told.
    pub told: BTreeMap<IpAddr, Option<IpAddr>>,
    /// What peers of these networks are told in place of `local`'s address; the first that holds one counts.
    pub told_networks: Vec<(Network, IpAddr)>,
    /// Our port for TCP connections; that of `local` unless said.
    pub tcp_port: Option<u16>,
    /// Our port for TLS connections; 5061 unless said.
    pub tls_port: Option<u16>,
    /// Whether a request of more than 1300 bytes goes to a UDP peer by TCP first (RFC 3261 §18.1.1); only for a driver that
    /// has TCP.
    pub large_by_tcp: bool,
    /// `User-Agent` and `Server`, such as `trunkline/0.1`.
    pub user_agent: String,
    /// The base timers.
    pub timers: Timers,
    /// Whose INVITEs are taken.
    pub inbound: Inbound,
    /// Whether callers who must log in are asked for SHA-256 beside MD5 ([`auth::Guard`]).
    pub inbound_sha256: bool,
    /// Most sessions at a time; an INVITE beyond is answered 503 with `Retry-After`.
    pub max_sessions: usize,
    /// Most transactions at a time, of ours and of others; what would begin one beyond is refused.
    pub max_transactions: usize,
    /// How long a session lives without a refresh, as we propose it (RFC 4028 §4): whole seconds; zero proposes none.
    pub session_expires: Duration,
    /// The shortest such time that we accept from a caller (`Min-SE`, at least 90 s by RFC 4028 §5).
    pub min_session_expires: Duration,
}

impl Config {
    /// The defaults for an address: UDP alone, nobody may call in, 5,000 sessions, 50,000 transactions,
    /// sessions refreshed within 1,800 s.
    pub fn new(local: SocketAddr) -> Self {
        Self {
            local,
            local_other: None,
            told: BTreeMap::new(),
            told_networks: Vec::new(),
            tcp_port: None,
            tls_port: None,
            large_by_tcp: false,
            user_agent: "trunkline/0.1".to_owned(),
            timers: Timers::default(),
            inbound: Inbound::Nobody,
            inbound_sha256: true,
            max_sessions: 5_000,
            max_transactions: 50_000,
            session_expires: Duration::from_secs(1_800),
            min_session_expires: Duration::from_secs(90),
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
    /// The name that the peer's certificate must show on TLS; its address when there is none.
    pub server_name: Option<String>,
    /// What challenges are answered with.
    pub credentials: Option<Credentials>,
    /// Further headers of the INVITE.
    pub headers: Vec<(String, String)>,
    /// Without any response within this, the session ends with [`TerminationCause::NoResponse`].
    pub no_response_timeout: Duration,
    /// Further addresses from which requests inside the dialog are taken, beside the peer's and those of the dialog itself.
    pub sources: Vec<Network>,
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
            server_name: None,
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
    /// The far end has said that it does not take that method.
    #[error("the far end does not take that")]
    Unsupported,
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
    /// Our re-INVITE or UPDATE was accepted, or an ACK or PRACK brought the answer to the offer that we made in a
    /// response. A refresh of the session timer by re-INVITE is told in this way, too.
    OfferAnswered {
        /// Their answer.
        sdp: Option<Bytes>,
    },
    /// Our re-INVITE or UPDATE was refused; the session goes on as before.
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
    /// What became of the transfer that [`Session::refer`] asked for.
    Transfer(Transfer),
    /// The end. Exactly once, and last.
    Terminated(Termination),
}

/// How a transfer goes on (RFC 3515 §2.4). The call itself stands until one side says BYE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// They will try (202).
    Accepted,
    /// They will not. Nothing follows.
    Refused {
        /// The status of the REFER; 408 when no answer came.
        code: u16,
    },
    /// What they hear from the new far end (a NOTIFY with a `message/sipfrag`, RFC 3420).
    Progress {
        /// A status of 100 to 199.
        code: u16,
        /// Its phrase, at most 128 bytes.
        reason: String,
    },
    /// The outcome. Nothing follows.
    Finished {
        /// The new far end's final status; none when they ended the reports without one.
        code: Option<u16>,
    },
}

/// Names an established dialog, so that another call can take its place (RFC 3891): the attended transfer of RFC 5589 §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// The `Call-ID`.
    pub call_id: String,
    /// The tag of the side at which the dialog is replaced.
    pub to_tag: String,
    /// The tag of the side whose place is taken.
    pub from_tag: String,
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
    /// A transaction timed out: timer B, F or H, or an ACK or PRACK that never came.
    TimedOut,
    /// Nobody refreshed the session in time (RFC 4028 §10).
    Expired,
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

//! The front desk: who calls in, by which trunk, and whether they are who they say (CONTRACT 0.8, 3 S23, X26). It owns
//! the calls that wait for the answer of the rooms above, and the memory of strangers; whether a number is known and what
//! happens on a call to it is decided above. Strangers are given no answer, and at most one line of the log a minute each.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip::auth::{Guard, Login, Presented};
use sip::{Invite, NameAddr, SessionEvent, SessionId, Uri};

use super::call::{Call, Called};
use super::{Engine, Output};
use crate::model::Now;
use crate::model::call::{CommandError, TrunkPlan};
use crate::model::incoming::{Directory, Incoming, Reception};

/// Calls that may wait for the answer of the rooms above.
const WAITING_MAX: usize = 256;
/// How long one waits.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
/// When to try again where there is no room, seconds.
const RETRY_AFTER_S: u32 = 5;
/// What callers log in to.
const REALM: &str = "trunkline";

/// Strangers remembered at a time. Of those beyond nothing is written down.
const STRANGERS_MAX: usize = 64;
/// How long one is remembered, and so how seldom it is written down.
const STRANGER_KEPT: Duration = Duration::from_secs(60);

/// Longest text taken from a header for a number.
const USER_MAX_CHARS: usize = 64;
/// Places of an INVITE that may say what was dialled.
const DIALLED_MAX: usize = 4;

/// A call that waits.
#[derive(Debug)]
struct Waiting {
    offer: Option<bytes::Bytes>,
    peer: IpAddr,
}

/// See the module's words.
pub(super) struct Desk {
    guard: Guard,
    directory: Arc<Directory>,
    /// Nobody is let in any more.
    closed: bool,
    waiting: BTreeMap<SessionId, Waiting>,
    /// Until when they wait, in the order in which they came.
    until: VecDeque<(Instant, SessionId)>,
    strangers: Strangers,
}

impl Desk {
    /// A desk that knows no trunk yet. Nonces are made with the key.
    pub(super) fn new(nonce_key: [u8; 32], sha256: bool) -> Self {
        let guard = Guard::new(nonce_key, REALM);
        Self {
            guard: if sha256 { guard } else { guard.md5_alone() },
            directory: Arc::default(),
            closed: false,
            waiting: BTreeMap::new(),
            until: VecDeque::new(),
            strangers: Strangers::default(),
        }
    }

    /// Takes one of those that wait away.
    fn take(&mut self, session: SessionId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&session)?;
        self.until.retain(|(_, other)| *other != session);
        Some(waiting)
    }

    /// When the first of those that wait has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.front().map(|(until, _)| *until)
    }
}

/// Who called without being known, and how often.
#[derive(Debug, Default)]
struct Strangers {
    seen: BTreeMap<IpAddr, Instant>,
    /// INVITEs of strangers since the last line of the log.
    untold: u64,
}

impl Strangers {
    /// Counts an INVITE; the count since the last line if it is time for one about this stranger.
    fn came(&mut self, now: Instant, ip: IpAddr) -> Option<u64> {
        self.untold += 1;
        let recent = |seen: &Instant| now.saturating_duration_since(*seen) < STRANGER_KEPT;
        if self.seen.get(&ip).is_some_and(recent) {
            return None;
        }
        if self.seen.len() >= STRANGERS_MAX {
            self.seen.retain(|_, seen| recent(seen));
        }
        if self.seen.len() >= STRANGERS_MAX {
            return None;
        }
        self.seen.insert(ip, now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// Why a call is not let in.
enum No {
    /// This status, and when to try again.
    Status(u16, Option<u32>),
    /// The caller must show credentials.
    Challenge(Vec<String>),
}

const NO_ROOM: No = No::Status(503, Some(RETRY_AFTER_S));

impl Engine {
    /// The trunks that may bring calls from here on. Calls that wait or are up are not touched.
    pub fn direct(&mut self, directory: Arc<Directory>) {
        self.endpoint.advertise_in(self.settings.told_networks(&directory));
        for trunk in directory.trunks() {
            self.advertise(trunk);
        }
        let sources = directory.sources().into_iter().collect();
        self.endpoint.take_calls(sip::Inbound::From(sources));
        self.desk.directory = directory;
    }

    /// Lets nobody in from here on, nor those who wait: 503.
    pub fn close_doors(&mut self, now: Now) {
        self.desk.closed = true;
        self.desk.until.clear();
        for session in std::mem::take(&mut self.desk.waiting).into_keys() {
            self.turn_away(now, session, &NO_ROOM);
        }
        self.pump(now);
    }

    /// What becomes of a call that came in ([`Output::Incoming`]).
    ///
    /// # Errors
    /// [`CommandError::UnknownCall`]: the caller is gone. [`CommandError::Unavailable`]: there is no room for it, and it
    /// was refused.
    pub fn receive(&mut self, now: Now, ticket: SessionId, reception: Reception) -> Result<(), CommandError> {
        let waiting = self.desk.take(ticket).ok_or(CommandError::UnknownCall)?;
        let received = match reception {
            Reception::Refuse { code, retry_after_s } => {
                self.turn_away(now, ticket, &No::Status(code, retry_after_s));
                Ok(())
            }
            Reception::Answer { order, echo } => {
                let Waiting { offer, peer } = waiting;
                self.let_in(now, ticket, order, Called { offer, echo, peer })
            }
        };
        self.pump(now);
        received
    }

    fn let_in(
        &mut self,
        now: Now,
        session: SessionId,
        order: Arc<crate::model::call::CallOrder>,
        called: Called,
    ) -> Result<(), CommandError> {
        let id = order.id;
        let trunk = order.trunks.first().cloned().filter(|_| !self.desk.closed);
        let Some(trunk) = trunk.filter(|trunk| self.gates.enter(now.mono, trunk).is_ok()) else {
            self.turn_away(now, session, &NO_ROOM);
            return Err(CommandError::Unavailable);
        };
        let ordered = Arc::clone(&order);
        let mut call = match self.new_call(now, order) {
            Ok(call) => call,
            Err(error) => {
                self.gates.leave(&trunk.endpoint);
                self.turn_away(now, session, &NO_ROOM);
                return Err(error);
            }
        };
        call.came_in(called);
        if let Some(mut session) = self.endpoint.session(session) {
            session.trust(super::target::sources(&trunk));
        }
        self.calls.insert(id, call);
        self.sessions.insert(session, id);
        self.current.insert(id, session);
        self.note_dialog(&ordered, session);
        self.with_call(now, id, Call::start);
        Ok(())
    }

    /// Events of sessions that belong to no call: those that knock, and those that wait.
    pub(super) fn at_the_door(&mut self, now: Now, session: SessionId, event: SessionEvent) {
        match event {
            SessionEvent::Invited(invite) => {
                self.ladders.knocked(now, &invite.call_id);
                if let Err(no) = self.knocked(now, session, *invite) {
                    self.turn_away(now, session, &no);
                }
            }
            SessionEvent::Terminated(_) => {
                self.desk.take(session);
            }
            // Nothing else happens before an answer that matters to one who has none.
            _ => {}
        }
    }

    fn knocked(&mut self, now: Now, session: SessionId, invite: Invite) -> Result<(), No> {
        let full = self.live + self.desk.waiting.len() >= self.settings.max_calls;
        if full || self.desk.closed || self.desk.waiting.len() >= WAITING_MAX {
            return Err(NO_ROOM);
        }
        let trunks = self.desk.directory.of(invite.peer.addr);
        let trunks = known(&self.desk.guard, now, &invite, trunks)?;
        let open = |trunk: &Arc<TrunkPlan>| self.gates.has_room(now.mono, trunk);
        let (open, busy): (Vec<_>, Vec<_>) = trunks.into_iter().partition(open);
        if open.is_empty() {
            // No trunk at all: it was taken out of the directory a moment ago.
            return Err(if busy.is_empty() { No::Status(403, None) } else { NO_ROOM });
        }
        let (caller, anonymous) = caller(&invite);
        let dialled = dialled(&invite);
        let peer = invite.peer.addr.ip();
        let incoming = Incoming { ticket: session, trunks: open, dialled, caller, anonymous };
        self.desk.waiting.insert(session, Waiting { offer: invite.sdp, peer });
        self.desk.until.push_back((now.mono + ANSWERED_WITHIN, session));
        self.outputs.push_back(Output::Incoming(incoming));
        Ok(())
    }

    /// Those for whom the rooms above had no answer in time.
    pub(super) fn refuse_forgotten(&mut self, now: Now) {
        while let Some((until, session)) = self.desk.until.front().copied()
            && until <= now.mono
        {
            self.desk.until.pop_front();
            self.desk.waiting.remove(&session);
            self.turn_away(now, session, &NO_ROOM);
        }
    }

    /// Counts those who called and may not.
    pub(super) fn note_strangers(&mut self, now: Now) {
        if let Some(peer) = self.endpoint.poll_stranger()
            && let Some(count) = self.desk.strangers.came(now.mono, peer.addr.ip().to_canonical())
        {
            let from: SocketAddr = peer.addr;
            tracing::info!(%from, count, "INVITEs from nobody's trunk were left without an answer");
        }
    }

    fn turn_away(&mut self, now: Now, session: SessionId, no: &No) {
        let Some(mut session) = self.endpoint.session(session) else { return };
        match no {
            No::Status(code, retry_after_s) => {
                let header = retry_after_s.map(|seconds| ("Retry-After", seconds.to_string()));
                session.reject(now.mono, *code, header.as_slice());
            }
            No::Challenge(values) => {
                let headers: Vec<_> =
                    values.iter().map(|value| ("WWW-Authenticate", value.clone())).collect();
                session.reject(now.mono, 401, &headers);
            }
        }
    }
}

/// Those of the trunks that the caller is known by: without a password where one of them asks for none.
fn known(
    guard: &Guard,
    now: Now,
    invite: &Invite,
    trunks: Vec<Arc<TrunkPlan>>,
) -> Result<Vec<Arc<TrunkPlan>>, No> {
    let (asking, open): (Vec<_>, Vec<_>) = trunks.into_iter().partition(|trunk| trunk.profile.auth_inbound);
    if asking.is_empty() || !open.is_empty() {
        return Ok(open);
    }
    let credentials: Vec<sip::Credentials> = asking
        .iter()
        .map(|trunk| sip::Credentials {
            username: trunk.username.clone(),
            password: trunk.password.0.clone(),
        })
        .collect();
    let presented = Presented {
        method: "INVITE",
        call_id: &invite.call_id,
        from: invite.peer.addr.ip(),
        at_s: u64::try_from(now.wall.seconds()).unwrap_or(0),
    };
    match guard.check(&presented, invite.headers.get_all("Authorization"), &credentials) {
        Login::Right(place) => Ok(asking.get(place).cloned().into_iter().collect()),
        Login::Stale => Err(No::Challenge(guard.challenges(&presented, true))),
        Login::Missing | Login::Wrong => Err(No::Challenge(guard.challenges(&presented, false))),
    }
}

/// What an INVITE says was dialled: its Request-URI, where a carrier puts the number, and the places where it stands when
/// the Request-URI is the contact that we registered.
fn dialled(invite: &Invite) -> Vec<String> {
    let called = invite.headers.get("P-Called-Party-ID").and_then(|text| text.parse::<NameAddr>().ok());
    let uris = [Some(&invite.request_uri), called.as_ref().map(|name| &name.uri), Some(&invite.to.uri)];
    let mut texts: Vec<String> = Vec::new();
    for text in uris.into_iter().flatten().map(user).filter(|text| !text.is_empty()) {
        if texts.len() < DIALLED_MAX && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// Who calls, and whether it may be told. A trunk that is known is believed what it asserts (RFC 3325 §8).
fn caller(invite: &Invite) -> (String, bool) {
    let asserted = invite.headers.list("P-Asserted-Identity").find_map(|text| text.parse::<NameAddr>().ok());
    let from = user(&invite.from.uri);
    let mut wishes = invite.headers.get_all("Privacy").flat_map(|text| text.split([';', ',', ' ']));
    let hidden = wishes.any(|word| {
        ["id", "user", "header", "full"].iter().any(|known| word.trim().eq_ignore_ascii_case(known))
    });
    let caller = asserted.map(|name| user(&name.uri)).filter(|text| !text.is_empty());
    let anonymous = hidden || from.eq_ignore_ascii_case("anonymous");
    (caller.unwrap_or(from), anonymous)
}

/// The user part of a `sip:` address or the number of a `tel:` one (RFC 3966), without parameters, and no longer than a
/// number could be.
fn user(uri: &Uri) -> String {
    let text = match uri {
        Uri::Sip(_) => uri.user().unwrap_or_default(),
        Uri::Other { rest, .. } => rest.clone(),
    };
    let bare = text.split(';').next().unwrap_or_default().trim();
    bare.chars().filter(char::is_ascii_graphic).take(USER_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests;

//! All calls of the far end: moves each [`Line`] by what the user agent and the media report, and does the steps its
//! script asks for. Everything it is told comes with its moment; sockets and clocks are the caller's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use media::dtmf::DigitSource;
use media::sdp::{Direction, Remote};
use media::srtp::{MASTER, MasterKey};
use media::{
    BridgeId, Command, DigitMode, Event, Heard, LegId, LegSettings, LegStats, Media, PlayTo, PlaybackId,
};
use media::{RecordWhat, RecordingId, TalkChange, ToneSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use sip::{
    Config, Endpoint, Inbound, Invite, Message, Method, Peer, SessionEvent, SessionId, Side, Termination,
};
use sip::{TerminationCause, Timers, Transmit};

use super::callee::{Callee, Step};
use super::deaf::Deaf;
use super::line::{Line, Terms};
use super::record::{Record, Records};
use super::script::{Keys, script_of};
use super::sounds::Sounds;
use crate::model::Now;

/// The only party of every bridge: the caller.
const CALLER: LegId = LegId(0);
/// The only recording of every bridge.
const HEARD: RecordingId = RecordingId(1);
/// RTP ports, the even ones from here to there.
const PORT_MIN: u16 = 30_000;
const PORT_MAX: u16 = 39_998;
/// Calls at once.
const CALLS_MAX: usize = 2000;
/// SIP transactions at once.
const TRANSACTIONS_MAX: usize = 20_000;
/// The longest call, ringing included: a caller that died without a word does not keep its line for ever.
const CALL_MAX: Duration = Duration::from_secs(3 * 3600);
/// How long the last words of the media are waited for after a call.
const CLOSING_MAX: Duration = Duration::from_secs(3);
/// A key is held, and the pause after it: 300 ms from key to key.
const KEY_ON_MS: u16 = 100;
const KEY_GAP_MS: u16 = 200;

/// What an exchange is made of.
#[derive(Debug)]
pub(super) struct Setup {
    /// The address that callers reach us at.
    pub(super) local: SocketAddr,
    /// Where RTP sockets are bound.
    pub(super) bind: IpAddr,
    /// The media workers.
    pub(super) media: Media,
    /// Every sound, made ready.
    pub(super) sounds: Sounds,
    /// Where calls are written down, if anywhere.
    pub(super) records: Option<Records>,
    /// All randomness.
    pub(super) seed: [u8; 32],
}

/// The far end as a whole.
pub(super) struct Exchange {
    endpoint: Endpoint,
    local: SocketAddr,
    bind: IpAddr,
    media: Media,
    sounds: Sounds,
    records: Option<Records>,
    random: ChaCha8Rng,
    next_port: u16,
    lines: BTreeMap<SessionId, Line>,
    deaf: Deaf,
}

impl Exchange {
    /// A far end without calls.
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { local, bind, media, sounds, records, seed } = setup;
        let mut random = ChaCha8Rng::from_seed(seed);
        let mut endpoint_seed = [0; 32];
        random.fill_bytes(&mut endpoint_seed);
        let config = Config {
            user_agent: concat!("trunkline-carrier/", env!("CARGO_PKG_VERSION")).to_owned(),
            timers: Timers::default(),
            inbound: Inbound::Anyone,
            max_sessions: CALLS_MAX,
            max_transactions: TRANSACTIONS_MAX,
            ..Config::new(local)
        };
        // Several far ends on one machine start at different ports.
        let pairs = u32::from(PORT_MAX - PORT_MIN) / 2 + 1;
        let next_port = PORT_MIN + 2 * u16::try_from(random.next_u32() % pairs).unwrap_or(0);
        let endpoint = Endpoint::new(config, endpoint_seed);
        Self {
            endpoint,
            local,
            bind,
            media,
            sounds,
            records,
            random,
            next_port,
            lines: BTreeMap::new(),
            deaf: Deaf::default(),
        }
    }

    /// One datagram.
    pub(super) fn datagram(&mut self, now: Now, from: Peer, bytes: &[u8]) {
        match request(bytes) {
            Some((_, record)) if script_of(&record.to).deaf => return self.deaf.heard(now, record),
            Some((Method::Cancel, record)) => self.cancelled(now, &record.call_id),
            Some(_) | None => {}
        }
        self.endpoint.handle_datagram(now.mono, from, bytes);
        self.drain(now);
    }

    /// A datagram could not be sent.
    pub(super) fn unreachable(&mut self, now: Now, to: Peer) {
        self.endpoint.handle_transport_error(now.mono, to);
        self.drain(now);
    }

    /// Something the media heard.
    pub(super) fn heard(&mut self, now: Now, event: &Event) {
        let session = SessionId(event.bridge.0);
        if let Some(line) = self.lines.get_mut(&session) {
            note(line, now, &event.heard);
            if let Heard::Failed { error, .. } = &event.heard {
                tracing::warn!("no RTP port for a call: {error}");
                self.refuse(now, session, 503);
            }
            self.act(now, session);
        }
        self.drain(now);
    }

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Now) {
        self.endpoint.handle_timeout(now.mono);
        let due: Vec<SessionId> = self
            .lines
            .iter()
            .filter(|(_, line)| line.poll_timeout() <= now.mono)
            .map(|(id, _)| *id)
            .collect();
        for session in due {
            let Some(line) = self.lines.get_mut(&session) else { continue };
            if let Some(callee) = &mut line.callee {
                callee.timeout(now.mono);
            }
            if line.over.is_none() && line.latest <= now.mono {
                // Said once; the session reports its end in bounded time.
                line.latest = now.mono + CALL_MAX;
                self.hang_up(now, session);
            }
            self.act(now, session);
        }
        self.drain(now);
    }

    /// When [`Exchange::timeout`] is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let lines = self.lines.values().map(Line::poll_timeout);
        self.endpoint.poll_timeout().into_iter().chain(lines).chain(self.deaf.poll_timeout()).min()
    }

    /// The next datagram to be sent.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// Hangs up everything.
    pub(super) fn close(&mut self, now: Now) {
        let all: Vec<SessionId> = self.lines.keys().copied().collect();
        for session in all {
            self.hang_up(now, session);
        }
        self.deaf.close();
        self.drain(now);
    }

    /// No call is left and every line is written.
    pub(super) fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes all that the user agent reports, then writes down the calls about which everything is known.
    fn drain(&mut self, now: Now) {
        while let Some((session, event)) = self.endpoint.poll_event() {
            self.signalled(now, session, event);
            self.act(now, session);
        }
        let done: Vec<SessionId> =
            self.lines.iter().filter(|(_, line)| line.is_done(now.mono)).map(|(id, _)| *id).collect();
        let records = done.iter().filter_map(|session| self.lines.remove(session)).map(|line| line.record);
        let records: Vec<Record> = records.chain(self.deaf.done(now.mono)).collect();
        records.iter().for_each(|record| self.write(record));
    }

    fn write(&mut self, record: &Record) {
        if let Some(Err(error)) = self.records.as_mut().map(|records| records.write(record)) {
            tracing::error!(call = record.call_id, "the call's line cannot be written: {error}");
        }
    }

    fn signalled(&mut self, now: Now, session: SessionId, event: SessionEvent) {
        match event {
            SessionEvent::Invited(invite) => self.invited(now, session, &invite),
            SessionEvent::Confirmed { sdp } | SessionEvent::OfferAnswered { sdp } => {
                let line = self.lines.get_mut(&session);
                let remote = line.zip(sdp).and_then(|(line, sdp)| line.terms.answered(&sdp));
                if let Some(remote) = remote {
                    self.connect(session, remote);
                }
            }
            SessionEvent::Offer { sdp } => self.reoffered(now, session, sdp.as_deref()),
            SessionEvent::OfferRefused { code } => {
                tracing::info!("the caller refused a re-INVITE with {code}");
            }
            SessionEvent::Info { content_type, body } => {
                let digit = info_digit(&content_type, &body);
                if let Some((line, digit)) = self.lines.get_mut(&session).zip(digit) {
                    line.record.heard(digit, now.wall, "info");
                }
            }
            SessionEvent::Terminated(termination) => self.terminated(now, session, &termination),
            // Of calls that we place, which the far end never does.
            SessionEvent::Trying
            | SessionEvent::Progress { .. }
            | SessionEvent::Answered { .. }
            | SessionEvent::Transfer(_) => {}
        }
    }

    fn invited(&mut self, now: Now, session: SessionId, invite: &Invite) {
        let to = invite.request_uri.user().unwrap_or_default();
        let from = invite.from.uri.user().unwrap_or_default();
        let script = script_of(&to);
        tracing::info!(call = invite.call_id, "call to {to}: {}", script.about);
        let call_id = invite.call_id.clone();
        let (source, invited_at) = (Some(invite.peer.addr), Some(now.wall));
        let record = Record { call_id, from, to, source, invited_at, ..Record::default() };
        let id = self.random.next_u64() >> 2;
        let address = self.local.ip();
        let Some(port) = self.free_port() else { return self.unserved(now, session, record, 503) };
        let mut key = MasterKey([0; MASTER]);
        self.random.fill_bytes(&mut key.0);
        let Some(terms) = Terms::begin(address, port, id, &script, invite.sdp.as_deref(), key) else {
            return self.unserved(now, session, record, 488);
        };
        let bridge = BridgeId(session.0);
        let settings = LegSettings { media_timeout: None, ..LegSettings::default() };
        let local = SocketAddr::new(self.bind, port);
        let seed = self.random.next_u64();
        self.order(Command::Open { bridge, leg: CALLER, local, settings, seed });
        self.order(Command::ListenTalk { bridge, leg: CALLER, on: true });
        let line = Line {
            callee: Some(Callee::new(now.mono, &script)),
            record,
            terms,
            connected: false,
            playback: 0,
            latest: now.mono + CALL_MAX,
            over: None,
            open: true,
            recording: false,
        };
        self.lines.insert(session, line);
    }

    /// A call without media: refused and written down at once.
    fn unserved(&mut self, now: Now, session: SessionId, record: Record, code: u16) {
        self.with_session(session, |call| call.reject(now.mono, code, &[]));
        let (ended_at, ended_by) = (Some(now.wall), Some("us"));
        self.write(&Record { ended_at, ended_by, final_code: Some(code), ..record });
    }

    /// The caller changes the terms: holds the call, resumes it, moves its media.
    fn reoffered(&mut self, now: Now, session: SessionId, offer: Option<&[u8]>) {
        let Some(line) = self.lines.get_mut(&session) else { return };
        let Some(offer) = offer else {
            let body = line.terms.offer(Direction::SendRecv);
            return self.with_session(session, |call| call.answer_offer(now.mono, body));
        };
        match line.terms.reoffered(offer) {
            Some((body, remote)) => {
                self.with_session(session, |call| call.answer_offer(now.mono, body));
                self.connect(session, remote);
            }
            None => self.refuse(now, session, 488),
        }
    }

    fn cancelled(&mut self, now: Now, call_id: &str) {
        let line =
            self.lines.iter_mut().find(|(_, line)| line.record.call_id == call_id && line.over.is_none());
        let Some((session, line)) = line else { return };
        let session = *session;
        line.record.cancelled = true;
        if line.callee.as_mut().is_some_and(|callee| callee.cancelled(now.mono)) {
            // The 200 for the INVITE goes out before the CANCEL is looked at, which then has no effect (§9.2).
            self.act(now, session);
        }
    }

    fn terminated(&mut self, now: Now, session: SessionId, termination: &Termination) {
        let Some(line) = self.lines.get_mut(&session) else { return };
        line.callee = None;
        line.over = Some(now.mono + CLOSING_MAX);
        let record = &mut line.record;
        record.ended_at = Some(now.wall);
        record.ended_by = match termination.by {
            Side::Us => Some("us"),
            Side::Them => Some("them"),
            Side::Nobody => None,
        };
        if matches!(termination.cause, TerminationCause::Cancelled) {
            record.cancelled = true;
        }
        if record.cancelled {
            record.final_code.get_or_insert(487);
        }
        tracing::info!(
            call = record.call_id,
            code = record.final_code,
            "call over, by {}",
            record.ended_by.unwrap_or("nobody")
        );
        self.order(Command::Close { bridge: BridgeId(session.0) });
    }

    /// Does what the script of a line asks for.
    fn act(&mut self, now: Now, session: SessionId) {
        loop {
            let Some(line) = self.lines.get_mut(&session) else { return };
            let Some(step) = line.callee.as_mut().and_then(Callee::poll_step) else { return };
            self.step(now, session, step);
        }
    }

    fn step(&mut self, now: Now, session: SessionId, step: Step) {
        let Some(line) = self.lines.get_mut(&session) else { return };
        let bridge = BridgeId(session.0);
        match step {
            Step::Ring => {
                line.record.ringing_at.get_or_insert(now.wall);
                self.with_session(session, |call| call.ring(now.mono, 180, None));
            }
            Step::EarlyMedia => {
                line.record.ringing_at.get_or_insert(now.wall);
                let (body, remote) = (line.terms.body(), line.terms.remote());
                self.with_session(session, |call| call.ring(now.mono, 183, Some(body)));
                remote.into_iter().for_each(|remote| self.connect(session, remote));
            }
            Step::Answer => self.answer(now, session),
            Step::Refuse { code, retry_after_s } => {
                line.record.final_code = Some(code);
                let seconds = retry_after_s.to_string();
                let headers = [("Retry-After", seconds)];
                let headers = if retry_after_s == 0 { &[] } else { headers.as_slice() };
                self.with_session(session, |call| call.reject(now.mono, code, headers));
            }
            Step::Play { sound, looped } => {
                line.playback += 1;
                let playback = PlaybackId(line.playback);
                if let Some(clip) = self.sounds.clip(sound) {
                    self.order(Command::Play { bridge, playback, clip, to: PlayTo::Leg(CALLER), looped });
                }
            }
            Step::Quiet => self.order(Command::StopPlayback { bridge, playback: None }),
            Step::Press { digits, keys } => self.order(Command::SendDigits {
                bridge,
                leg: CALLER,
                digits: digits.to_owned(),
                mode: match keys {
                    Keys::Events => DigitMode::Rfc4733,
                    Keys::Tones => DigitMode::Inband,
                },
                on_ms: KEY_ON_MS,
                gap_ms: KEY_GAP_MS,
            }),
            Step::Echo => self.order(Command::Echo { bridge, leg: CALLER, on: true }),
            Step::Milliwatt => {
                let tone = Some(ToneSpec { parts: vec![(1004.0, -16.0)] });
                self.order(Command::Tone { bridge, leg: CALLER, tone });
            }
            Step::Mute => self.order(Command::Mute { bridge, leg: CALLER, on: true }),
            Step::Hold(on) => {
                let offer = line.terms.offer(if on { Direction::SendOnly } else { Direction::SendRecv });
                if let Some(Err(error)) =
                    self.endpoint.session(session).map(|mut call| call.reinvite(now.mono, offer))
                {
                    tracing::warn!("no re-INVITE: {error}");
                }
            }
            Step::HangUp => self.hang_up(now, session),
        }
    }

    fn answer(&mut self, now: Now, session: SessionId) {
        let Some(line) = self.lines.get_mut(&session) else { return };
        line.record.answered_at = Some(now.wall);
        line.record.final_code = Some(200);
        let (body, remote) = (line.terms.body(), line.terms.remote());
        let connected = line.connected;
        if let Some(records) = &self.records {
            let path = records.wav(&line.record.call_id);
            line.recording = true;
            line.record.wav = Some(path.clone());
            let what = RecordWhat::Heard(CALLER);
            self.order(Command::Record { bridge: BridgeId(session.0), recording: HEARD, path, what });
        }
        self.with_session(session, |call| call.answer(now.mono, body));
        if let Some(remote) = remote.filter(|_| !connected) {
            self.connect(session, remote);
        }
    }

    fn connect(&mut self, session: SessionId, remote: Remote) {
        if let Some(line) = self.lines.get_mut(&session) {
            line.connected = true;
            self.order(Command::Connect { bridge: BridgeId(session.0), leg: CALLER, remote });
        }
    }

    /// Refuses what is pending: the INVITE, a re-INVITE's offer, or an answered call as a whole.
    fn refuse(&mut self, now: Now, session: SessionId, code: u16) {
        if let Some(line) = self.lines.get_mut(&session) {
            if line.record.answered_at.is_some() && code != 488 {
                return self.hang_up(now, session);
            }
            line.record.final_code.get_or_insert(code);
        }
        self.with_session(session, |call| call.reject(now.mono, code, &[]));
    }

    fn hang_up(&mut self, now: Now, session: SessionId) {
        if let Some(line) = self.lines.get_mut(&session).filter(|line| line.over.is_none()) {
            line.callee = None;
        }
        self.with_session(session, |call| call.hang_up(now.mono, None));
    }

    fn with_session(&mut self, session: SessionId, act: impl FnOnce(&mut sip::Session<'_>)) {
        if let Some(mut call) = self.endpoint.session(session) {
            act(&mut call);
        }
    }

    fn order(&self, command: Command) {
        if self.media.send(command).is_err() {
            tracing::error!("the media worker is too far behind: a command is lost");
        }
    }

    /// A port that no call of ours has and that can be bound now. The probe is closed again before the media opens
    /// its own socket; another program that comes between is reported by the media and refused like a full range.
    fn free_port(&mut self) -> Option<u16> {
        for _ in 0..=(PORT_MAX - PORT_MIN) / 2 {
            let port = self.next_port;
            self.next_port = if port >= PORT_MAX { PORT_MIN } else { port + 2 };
            let taken = self.lines.values().any(|line| line.open && line.terms.port() == port);
            if !taken && UdpSocket::bind((self.bind, port)).is_ok() {
                return Some(port);
            }
        }
        None
    }
}

/// What the media says about one line.
fn note(line: &mut Line, now: Now, heard: &Heard) {
    let callee = line.callee.as_mut();
    match heard {
        Heard::Digit { digit, source, .. } => {
            let source = match source {
                DigitSource::Rfc4733 => "rfc4733",
                DigitSource::Inband => "inband",
                DigitSource::Info => "info",
            };
            line.record.heard(*digit, now.wall, source);
        }
        Heard::Talk { change: TalkChange::Started, .. } => callee.into_iter().for_each(Callee::talk_started),
        Heard::Talk { change: TalkChange::Stopped { spoke_ms, silent_ms }, .. } => {
            let (spoke, silent) = (ms(*spoke_ms), ms(*silent_ms));
            callee.into_iter().for_each(|callee| callee.talk_stopped(now.mono, spoke, silent));
        }
        Heard::PlaybackEnded { playback, .. } if playback.0 == line.playback => {
            callee.into_iter().for_each(|callee| callee.played(now.mono));
        }
        Heard::RecordingEnded { .. } => line.recording = false,
        Heard::RecordingFailed { reason, .. } => {
            tracing::warn!(call = line.record.call_id, "what was heard cannot be kept: {reason}");
            line.recording = false;
        }
        Heard::Failed { .. } => line.open = false,
        Heard::Closed { stats } => {
            line.open = false;
            let sum = |count: fn(&LegStats) -> u64| stats.iter().map(|(_, stats)| count(stats)).sum();
            line.record.packets_in = sum(|stats| stats.packets_in);
            line.record.packets_out = sum(|stats| stats.packets_out);
        }
        Heard::Opened { .. }
        | Heard::FirstPacket { .. }
        | Heard::Amd { .. }
        | Heard::PlaybackStarted { .. }
        | Heard::PlaybackEnded { .. }
        | Heard::DigitsSent { .. }
        | Heard::MediaTimeout { .. }
        | Heard::RecordingStarted { .. } => {}
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// The method of a request about an INVITE, and the beginning of its record; `None` for everything else. Only
/// numbers that leave the rules of SIP need this look past the user agent.
fn request(bytes: &[u8]) -> Option<(Method, Record)> {
    let concerned =
        [b"INVITE ".as_slice(), b"CANCEL ", b"ACK "].iter().any(|method| bytes.starts_with(method));
    if !concerned {
        return None;
    }
    let Ok(Message::Request(request)) = sip::parse::parse(bytes) else { return None };
    let from = request.headers.get("From").and_then(|from| from.parse::<sip::NameAddr>().ok());
    let record = Record {
        call_id: request.headers.get("Call-ID")?.to_owned(),
        from: from.and_then(|from| from.uri.user()).unwrap_or_default(),
        to: request.uri.user().unwrap_or_default(),
        ..Record::default()
    };
    Some((request.method, record))
}

/// The key of a SIP INFO: `Signal=5` of `application/dtmf-relay`, or the bare key of `application/dtmf`.
fn info_digit(content_type: &str, body: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(body).ok()?;
    let kind = content_type.split(';').next()?.trim();
    let key = if kind.eq_ignore_ascii_case("application/dtmf-relay") {
        let signal = text.lines().find_map(|line| line.trim().strip_prefix("Signal"))?;
        signal.trim_start().strip_prefix('=')?
    } else if kind.eq_ignore_ascii_case("application/dtmf") {
        text
    } else {
        return None;
    };
    let digit = key.trim().chars().next()?.to_ascii_uppercase();
    matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D').then_some(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_info_are_read() {
        for (kind, body, digit) in [
            ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", Some('5')),
            ("application/dtmf-relay; x=y", "Duration=160\nSignal = #\n", Some('#')),
            ("Application/DTMF", " 9\r\n", Some('9')),
            ("application/dtmf-relay", "Duration=160", None),
            ("application/dtmf", "x", None),
            ("text/plain", "5", None),
        ] {
            assert_eq!(info_digit(kind, body.as_bytes()), digit, "{kind} {body:?}");
        }
        assert_eq!(info_digit("application/dtmf", &[0xff, 0xfe]), None);
    }

    #[test]
    fn the_number_is_read_past_the_user_agent() {
        let invite = b"INVITE sip:0014155550307@127.0.0.1:5070 SIP/2.0\r\n\
            Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\nFrom: \"A\" <sip:100@127.0.0.1>;tag=1\r\n\
            To: <sip:0014155550307@127.0.0.1:5070>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
        let (method, record) = request(invite).unwrap();
        assert_eq!(method, Method::Invite);
        assert_eq!((record.call_id.as_str(), record.from.as_str()), ("c1", "100"));
        assert!(script_of(&record.to).deaf);
        assert!(request(b"OPTIONS sip:x SIP/2.0\r\n\r\n").is_none());
        assert!(request(b"INVITE \xff\xff").is_none());
    }
}

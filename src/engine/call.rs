//! One call: the state machine of what was ordered. It takes what the signalling, the media and the application
//! say, and answers with [`Step`]s; it performs nothing, so a whole call runs in a test without a socket.
//! Its shape and its answer live here; which trunk is dialled in [`dial`], how a call that came in is answered in
//! [`called`], what happens on the line in [`line`], how it ends in [`ending`].

mod called;
mod description;
mod dial;
mod ending;
mod line;
mod second;
mod seeds;
#[cfg(test)]
mod tests;
mod unheard;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::sdp::{self, Direction, OfferConfig, Remote};
use media::{BridgeId, LegId};
use sip::{SessionEvent, Termination};

pub(super) use seeds::Seeds;

use super::Settings;
use super::gates::Gates;
use super::gather::Gather;
use super::opening::Opening;
use super::outcome::cause;
use crate::model::Now;
use crate::model::call::{self, CallOrder, EndReason, Overheard, TrunkPlan};
use crate::model::event::{CallEvent, DigitSource, Fault, PlayTo};
use crate::model::trunk::Dtmf;
use description::{Description, Place};

pub(super) use called::Called;

pub(super) use second::{Second, SecondStep};

/// The callee's leg.
pub(super) const CALLEE: LegId = LegId(0);

/// Without any provisional in this time the call is given up (CONTRACT 1.1: documented clients wait 15 s).
const PLACEMENT_CEILING: Duration = Duration::from_secs(10);
/// A trunk that has said 100 and nothing else for this long has the call.
const PROCEEDING_AFTER: Duration = Duration::from_secs(4);

/// Sound that may wait on one call, milliseconds: clips are held in memory until they are heard.
const QUEUED_MAX_MS: u32 = 15 * 60 * 1000;
/// Key presses remembered, to know them again when they come by a second way.
const PRESSES_KEPT: usize = 8;
/// RTP ports tried for one call before it is given up.
const PORTS_TRIED_MAX: u8 = 8;

/// What the engine does for a call.
#[derive(Debug)]
pub(super) enum Step {
    /// INVITE by the trunk at this place of the order.
    Invite(usize, Bytes),
    /// CANCEL or BYE, whatever is right, with this Q.850 cause.
    HangUp(u16),
    /// Answer the call that came in.
    PickUp(Bytes),
    /// Answer the re-INVITE that waits.
    AnswerOffer(Bytes),
    /// Refuse it, or the call that came in.
    RefuseOffer(u16),
    /// Take another RTP port and open that.
    NextPort,
    /// For the second party.
    Second(SecondStep),
    /// For whoever attends the call.
    Overheard(Overheard),
    /// For the media worker.
    Media(media::Command),
    /// It happened.
    Event(CallEvent),
}

/// What a call's methods are given.
pub(super) struct Ctx<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) gates: &'a mut Gates,
    pub(super) steps: &'a mut VecDeque<Step>,
}

impl Ctx<'_> {
    fn event(&mut self, event: CallEvent) {
        self.steps.push_back(Step::Event(event));
    }

    fn media(&mut self, command: media::Command) {
        self.steps.push_back(Step::Media(command));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The RTP socket is being bound.
    Opening,
    Dialing,
    Answered,
    Over,
}

/// The attempt under way.
#[derive(Debug)]
struct Dial {
    trunk: usize,
    /// Which of the trunk's ways.
    hop: usize,
    /// Where a 3xx of the trunk sent this attempt, and how many did.
    redirected: Option<(sip::Uri, u8)>,
    /// It holds one of the trunk's places.
    placed: bool,
    started: Instant,
    /// Any 1xx.
    provisional: bool,
    /// Any 18x.
    rang: bool,
    /// The session description of a provisional, should the 200 have none.
    early: Option<Remote>,
}

impl Dial {
    /// An attempt that begins.
    fn new(trunk: usize, placed: bool, started: Instant) -> Self {
        let (provisional, rang, redirected, early) = (false, false, None, None);
        Self { trunk, hop: 0, placed, started, provisional, rang, redirected, early }
    }
}

/// Every timer a call can have.
#[derive(Debug, Default)]
struct Timers {
    placement: Option<Instant>,
    /// No attempt is under way; then all trunks are tried again.
    redial: Option<Instant>,
    proceeding: Option<Instant>,
    ring: Option<Instant>,
    max_duration: Option<Instant>,
    amd: Option<Instant>,
    drain: Option<Instant>,
    closing: Option<Instant>,
    unheard: Option<Instant>,
}

/// A playback that the media worker has been given and has not ended.
#[derive(Debug)]
struct Playback {
    id: media::PlaybackId,
    length_ms: u32,
    kind: PlaybackKind,
}

#[derive(Debug)]
enum PlaybackKind {
    /// `/voice` or `/play`: its end is an event.
    Told { playback: String, text: Option<String>, file: Option<String>, to: PlayTo },
    /// A gather's prompt.
    Prompt,
}

#[derive(Debug, PartialEq, Eq)]
enum Recording {
    None,
    /// Asked for; the file is not open yet.
    Opening(String),
    Active(String),
    /// Stopped by command or by the call's end; the file is being finished.
    Finishing(String),
    Settled,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) order: Arc<CallOrder>,
    /// Of a call that came in: what it came with.
    called: Option<Called>,
    pub(super) bridge: BridgeId,
    pub(super) port: u16,
    /// Our session descriptions.
    described: Description,
    seeds: Seeds,
    ports_tried: u8,
    phase: Phase,
    dial: Dial,
    placed: bool,
    /// Redials of the order that were begun or wait.
    redials: usize,
    /// INVITEs so far.
    tried: u8,
    timers: Timers,
    amd_pending: bool,
    gather: Option<(Gather, media::PlaybackId)>,
    /// What is to be done at the answer.
    waiting_opening: Option<call::Opening>,
    opening: Option<Opening>,
    playbacks: VecDeque<Playback>,
    next_playback: u64,
    recording: Recording,
    recording_paused: bool,
    /// The latest key presses, at most [`PRESSES_KEPT`].
    presses: VecDeque<(char, Instant, DigitSource)>,
    /// Somebody hears what happens on the line and speaks in the call's place.
    attended: bool,
    pub(super) second: Option<Second>,
    /// The second leg's port, and whether the leg is open; it stays so until the call ends.
    pub(super) second_port: Option<u16>,
    second_ready: bool,
    /// Its session descriptions, of which it has one line for all who are dialled on it.
    second_described: Description,
    media_closed: bool,
    /// Where the far end says that its sound comes from.
    told_address: Option<SocketAddr>,
    /// Any RTP came.
    heard_anything: bool,
}

impl Call {
    /// A call that has been accepted, with its bridge and port, not yet dialled.
    pub(super) fn new(now: Now, order: Arc<CallOrder>, bridge: BridgeId, port: u16, seeds: Seeds) -> Self {
        let started = now.mono;
        let dial = Dial::new(0, false, started);
        Self {
            order,
            called: None,
            bridge,
            port,
            described: Description::new(seeds.sdp_session),
            seeds,
            ports_tried: 1,
            phase: Phase::Opening,
            dial,
            placed: false,
            redials: 0,
            tried: 0,
            timers: Timers::default(),
            amd_pending: false,
            gather: None,
            waiting_opening: None,
            opening: None,
            playbacks: VecDeque::new(),
            next_playback: 0,
            recording: Recording::None,
            recording_paused: false,
            presses: VecDeque::new(),
            attended: false,
            second: None,
            second_port: None,
            second_ready: false,
            second_described: Description::new(seeds.sdp_session ^ 1),
            media_closed: false,
            told_address: None,
            heard_anything: false,
        }
    }

    /// Opens the media; the first trunk is dialled when that has succeeded.
    pub(super) fn start(&mut self, ctx: &mut Ctx<'_>) {
        ctx.event(CallEvent::Queued);
        ctx.media(self.open(ctx.settings));
        self.timers.placement = Some(ctx.now.mono + PLACEMENT_CEILING);
    }

    /// Nothing more is awaited: the call may be forgotten.
    pub(super) fn finished(&self) -> bool {
        self.phase == Phase::Over
            && self.media_closed
            && matches!(self.recording, Recording::None | Recording::Settled)
    }

    /// Still counts as a call (it has not ended).
    pub(super) fn live(&self) -> bool {
        self.phase != Phase::Over
    }

    /// A port that some other program holds is not worth a call; anything later is.
    fn media_failed(&mut self, ctx: &mut Ctx<'_>, error: &str) {
        tracing::warn!(call = %self.order.id, %error, "the media of a call failed");
        if self.phase == Phase::Opening && self.ports_tried < PORTS_TRIED_MAX {
            self.ports_tried += 1;
            ctx.steps.push_back(Step::NextPort);
        } else {
            self.fail(ctx);
        }
    }

    /// Asks the media worker for the call's socket.
    pub(super) fn open(&self, settings: &Settings) -> media::Command {
        media::Command::Open {
            bridge: self.bridge,
            leg: CALLEE,
            local: (settings.rtp_bind, self.port).into(),
            settings: settings.leg.clone(),
            seed: self.seeds.media,
        }
    }

    /// The earliest timer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gather = self.gather.as_ref().and_then(|(gather, _)| gather.deadline());
        let t = &self.timers;
        let opening = self.opening.as_ref().and_then(Opening::deadline);
        let second = self.second.as_ref().and_then(Second::deadline);
        [
            t.placement,
            t.redial,
            t.proceeding,
            t.ring,
            t.max_duration,
            t.amd,
            t.unheard,
            t.drain,
            t.closing,
            gather,
            opening,
            second,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Some timer is due.
    pub(super) fn timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.redial) {
            self.redial(ctx);
        }
        if due(&mut self.timers.proceeding) {
            self.proceed(ctx);
        }
        if due(&mut self.timers.placement) {
            self.placement_over(ctx);
        }
        if due(&mut self.timers.ring) {
            self.rang_out(ctx);
        }
        if due(&mut self.timers.amd) {
            self.no_verdict(ctx);
        }
        if due(&mut self.timers.unheard) {
            self.unheard(ctx);
        }
        if due(&mut self.timers.drain) {
            self.end(ctx, EndReason::ApiHangup, cause::NORMAL);
        }
        if due(&mut self.timers.max_duration) {
            self.end(ctx, EndReason::MaxDuration, cause::TIMER);
        }
        if due(&mut self.timers.closing) {
            self.closing_over(ctx);
        }
        self.gather_timeout(ctx);
        self.opening_timeout(ctx);
        self.second_timeout(ctx);
    }

    /// The trunk of the attempt under way.
    pub(super) fn trunk(&self) -> Option<&TrunkPlan> {
        self.order.trunks.get(self.dial.trunk)
    }

    /// Where that trunk has redirected the attempt to.
    pub(super) fn redirect(&self) -> Option<&sip::Uri> {
        self.dial.redirected.as_ref().map(|(uri, _)| uri)
    }

    /// Which of that trunk's ways is tried.
    pub(super) fn hop(&self) -> usize {
        self.dial.hop
    }

    /// Where our sound is to be sent, as the far end is told it.
    fn place(&self, settings: &Settings) -> Place {
        let hop = self.trunk().and_then(|trunk| trunk.hops.get(self.dial.hop));
        let peer = self.called.as_ref().map(|called| called.peer).or(hop.map(|hop| hop.address.ip()));
        Place::told(settings, self.trunk(), peer, self.port)
    }

    /// How digits travel on the present trunk.
    fn dtmf(&self) -> Dtmf {
        self.trunk().map(|trunk| trunk.profile.dtmf).unwrap_or_default()
    }

    fn offer_config(&self) -> OfferConfig {
        self.seeds.offer_config(self.trunk(), self.dial.trunk as u64)
    }

    /// What the session of the present attempt reports.
    pub(super) fn signalled(&mut self, ctx: &mut Ctx<'_>, event: SessionEvent) {
        if self.timers.redial.is_some() {
            // The last words of an attempt that was given up.
            return;
        }
        match event {
            SessionEvent::Trying => self.trying(ctx),
            SessionEvent::Progress { sdp, .. } => self.ringing(ctx, sdp.as_deref()),
            SessionEvent::Answered { sdp } => self.answered(ctx, sdp.as_deref()),
            SessionEvent::Offer { sdp } => self.offered(ctx, sdp.as_deref()),
            SessionEvent::Confirmed { sdp: Some(sdp) } | SessionEvent::OfferAnswered { sdp: Some(sdp) } => {
                self.reconnect(ctx, &sdp);
            }
            SessionEvent::Info { content_type, body } => self.info(ctx, &content_type, &body),
            SessionEvent::Terminated(termination) => self.terminated(ctx, &termination),
            SessionEvent::Confirmed { sdp: None }
            | SessionEvent::OfferAnswered { sdp: None }
            | SessionEvent::OfferRefused { .. }
            | SessionEvent::Transfer(_)
            | SessionEvent::Invited(_) => {}
        }
    }

    fn trying(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Dialing {
            self.dial.provisional = true;
            if !self.placed {
                self.timers.proceeding = Some(ctx.now.mono + PROCEEDING_AFTER);
            }
        }
    }

    fn ringing(&mut self, ctx: &mut Ctx<'_>, sdp: Option<&[u8]>) {
        if self.phase != Phase::Dialing {
            return;
        }
        self.dial.provisional = true;
        if !self.dial.rang {
            self.dial.rang = true;
            self.placed();
            ctx.event(CallEvent::Ringing);
        }
        // Early media is received (and our side's first packets open NAT bindings), but not recorded.
        if let Some(Ok(remote)) = sdp.map(|sdp| sdp::read_answer(&self.offer_config(), sdp)) {
            self.dial.early = Some(remote.clone());
            ctx.media(media::Command::Connect { bridge: self.bridge, leg: CALLEE, remote });
        }
    }

    fn placed(&mut self) {
        self.placed = true;
        self.timers.placement = None;
        self.timers.proceeding = None;
    }

    fn proceed(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Dialing && !self.placed {
            self.placed();
            ctx.event(CallEvent::Proceeding);
        }
    }

    fn placement_over(&mut self, ctx: &mut Ctx<'_>) {
        match self.phase {
            Phase::Opening => self.fail(ctx),
            Phase::Dialing if self.dial.provisional => self.proceed(ctx),
            Phase::Dialing if !self.placed => {
                self.attempt_failed(ctx, 0, "no response in time", None, Fault::Trunk);
                ctx.steps.push_back(Step::HangUp(cause::FAILURE));
                self.walk_over(ctx, cause::FAILURE, None);
            }
            Phase::Dialing | Phase::Answered | Phase::Over => {}
        }
    }

    fn rang_out(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Dialing {
            self.attempt_failed(ctx, 0, "ring timeout", None, Fault::Nobody);
            self.end(ctx, EndReason::NoAnswer, cause::NO_ANSWER);
        }
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, sdp: Option<&[u8]>) {
        if self.phase != Phase::Dialing {
            return;
        }
        let remote = match sdp {
            Some(sdp) => sdp::read_answer(&self.offer_config(), sdp).ok(),
            None => self.dial.early.take(),
        };
        let Some(remote) = remote else {
            self.attempt_failed(ctx, 200, "unusable session description", None, Fault::Media);
            self.end(ctx, EndReason::TrunkFailure, cause::FAILURE);
            return;
        };
        self.placed();
        self.timers.ring = None;
        self.phase = Phase::Answered;
        ctx.event(CallEvent::Answered);
        self.connect(ctx, remote);
        self.begin_talking(ctx);
    }

    /// A re-INVITE or UPDATE: hold, resume, a moved port (RFC 3264 §8).
    fn offered(&mut self, ctx: &mut Ctx<'_>, offer: Option<&[u8]>) {
        let (place, config) = (self.place(ctx.settings), self.offer_config());
        match self.described.reply(place, &config, offer) {
            Ok((ours, remote)) => {
                ctx.steps.push_back(Step::AnswerOffer(ours));
                if let Some(remote) = remote {
                    self.connect_again(ctx, remote);
                }
            }
            Err(_) => ctx.steps.push_back(Step::RefuseOffer(488)),
        }
    }

    /// An answer to an offer of ours. The first one of a call that came in without an offer is where its sound begins.
    fn reconnect(&mut self, ctx: &mut Ctx<'_>, sdp: &[u8]) {
        let Ok(remote) = sdp::read_answer(&self.offer_config(), sdp) else { return };
        if self.told_address.is_none() && self.phase == Phase::Answered {
            self.connect(ctx, remote);
        } else {
            self.connect_again(ctx, remote);
        }
    }

    fn connect_again(&mut self, ctx: &mut Ctx<'_>, remote: Remote) {
        if self.phase != Phase::Over {
            self.connect_leg(ctx, CALLEE, remote);
        }
    }

    /// Sound goes there from here on, or rests as that side wishes.
    fn connect_leg(&self, ctx: &mut Ctx<'_>, leg: LegId, remote: Remote) {
        let on = remote.direction != Direction::SendRecv;
        ctx.media(media::Command::Connect { bridge: self.bridge, leg, remote });
        ctx.media(media::Command::Hold { bridge: self.bridge, leg, on });
    }

    fn terminated(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        match self.phase {
            Phase::Opening if self.called.is_some() => self.given_up(ctx, termination),
            Phase::Opening | Phase::Over => {}
            Phase::Answered => self.end_by_far_end(ctx, termination),
            Phase::Dialing => self.attempt_over(ctx, termination),
        }
    }
}

//! Placing a call: one transaction that takes its credit, its place and its id, then the engine. [`Calls::queue`]
//! answers when the engine has the call, [`Calls::place`] when it has come to something.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::calls::Calls;
use super::policy::{self, Ownership};
use super::routing::{self, Preference};
use super::trunks::Reserved;
use super::trunks::health::{Candidate, Choice};
use super::{Caller, Failure, Refusal};
use crate::clock;
use crate::model::account::{RecordingMode, Trunk};
use crate::model::call::{
    CallOrder, CallState, CallView, Command, EndReason, Opening, Surface, Then, TrunkPlan,
};
use crate::model::event::{CallEvent, Stamped};
use crate::model::purpose::{Mode, Purpose};
use crate::model::trunk::{Policy, TrunkProfile};
use crate::model::{CallId, CallerId, Now, PhoneNumber, Timestamp};
use crate::store::Tx;

/// An answer to a placing waits no longer than this; the engine itself gives up at 10 s (CONTRACT 1.1).
const PLACE_WITHIN: Duration = Duration::from_millis(10_200);

/// Finding the addresses of all trunks takes no longer than this, or those not found yet are left out.
const ROUTE_WITHIN: Duration = Duration::from_secs(3);

/// The words of a script must be sound in this time.
const SCRIPT_WITHIN: Duration = Duration::from_secs(20);

/// A call as asked for, with every field read and in its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceCall {
    /// Where it was asked for; its webhooks are in that surface's form.
    pub surface: Surface,
    /// The number exactly as submitted.
    pub submitted_number: String,
    /// The number read.
    pub to: PhoneNumber,
    /// Who the callee shall see.
    pub caller_id: Option<CallerId>,
    /// Where the call's events go; has passed the guard's check of its form.
    pub webhook_url: Option<String>,
    /// Screen the answerer.
    pub use_amd: bool,
    /// The voice's name.
    pub voice_name: String,
    /// Seconds, 5 to 120.
    pub ring_timeout_s: u32,
    /// Seconds from answer to BYE; `None`, or more than the engine allows: what that allows.
    pub max_duration_s: Option<u32>,
    /// Whether it is recorded.
    pub record: Record,
    /// How many sounds the recording keeps apart.
    pub record_channels: media::Channels,
    /// Who talks and why.
    pub purpose: Purpose,
    /// What it does by itself once it is answered.
    pub script: Option<Script>,
}

/// Whether a call is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// As the key says; keys that leave it to the request record what was asked for.
    AsKey(Option<bool>),
    /// As the surface says, whatever the key does.
    As(bool),
}

/// What a call says by itself, and what then.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Spoken in the call's voice.
    pub text: String,
    /// Then.
    pub then: Then,
}

/// A call that was taken, and is with the engine.
#[derive(Clone, Debug)]
pub struct Queued {
    /// What was true of it then. Already over where none of the trunks can be reached.
    pub view: Arc<CallView>,
    /// Enabled trunks of the key.
    pub total_trunks: usize,
    /// All of them, by endpoint, where none could be tried.
    unreachable: Vec<String>,
    /// Trunks passed over before the engine had the call.
    passed: usize,
}

/// A call that was placed.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What is true of it at the moment of the answer.
    pub view: Arc<CallView>,
    /// Enabled trunks of the key.
    pub total_trunks: usize,
}

/// What the placing transaction decided.
struct Admitted {
    view: CallView,
    total_trunks: usize,
    passed: Vec<CallEvent>,
}

/// A trunk of the key, and where its INVITE would go.
struct Route {
    trunk: Trunk,
    plan: Option<TrunkPlan>,
}

impl Calls {
    /// Places a call and waits until a trunk has it, it is over, or no trunk is left.
    ///
    /// # Errors
    /// As [`Calls::queue`]; then [`Refusal::OriginationFailed`] where every trunk was tried in vain.
    pub async fn place(self: &Arc<Self>, caller: Caller, asked: PlaceCall) -> Result<Placed, Failure> {
        // A task of its own: a client that goes away does not change what becomes of the call.
        let this = Arc::clone(self);
        let placing = tokio::spawn(async move {
            let queued = this.queue_whole(&caller, asked).await?;
            this.placed(queued).await
        });
        placing.await.unwrap_or(Err(Failure::Panicked))
    }

    /// Takes a call and hands it to the engine; what becomes of it is told by its events.
    ///
    /// # Errors
    /// Refusals in the order of CONTRACT 0.3: number, caller id, pace, concurrency, credits, trunks, engine.
    pub async fn queue(self: &Arc<Self>, caller: Caller, asked: PlaceCall) -> Result<Queued, Failure> {
        // A task of its own: a client that hangs up in the middle must not leave a held credit without a call.
        let this = Arc::clone(self);
        let queueing = tokio::spawn(async move { this.queue_whole(&caller, asked).await });
        queueing.await.unwrap_or(Err(Failure::Panicked))
    }

    async fn queue_whole(self: &Arc<Self>, caller: &Caller, mut asked: PlaceCall) -> Result<Queued, Failure> {
        policy::may_call(&caller.key.policy, &asked.to)?;
        let ownership = self.ownership(caller, asked.caller_id.as_ref()).await?;
        let from = policy::caller_id(&caller.key.caller_ids, asked.caller_id.as_ref(), ownership)?;
        let now = clock::now();
        // Where agents talk themselves they say their first words, too.
        let converses =
            self.rooms.converses && matches!(asked.purpose.mode, Mode::Agent | Mode::Conversation);
        let script = asked.script.take().filter(|_| !converses);
        let trunks = self.rooms.db.key_trunks(caller.key.id).await?;
        let policy = self.rooms.db.trunk_policy(caller.key.id).await?;
        let routes = self.routes(&trunks, now).await;
        let routes = trunks.iter().cloned().zip(routes).map(|(trunk, plan)| Route { trunk, plan }).collect();
        let Admitted { view, total_trunks, passed } =
            self.admit(caller, asked, from, (policy, routes), now).await?;
        let order = Arc::clone(&view.order);
        let id = order.id;
        let mut queued = Queued {
            view: Arc::new(view.clone()),
            total_trunks,
            unreachable: Vec::new(),
            passed: passed.len(),
        };
        self.rooms.live.admit(view);
        for event in passed {
            self.rooms.journal.record(Stamped { call: id, at: now.wall, event });
        }
        if order.trunks.is_empty() {
            // Trunks there are, but none whose address can be found: the call is over before it began.
            queued.unreachable = trunks.iter().map(routing::endpoint).collect();
            self.rooms.journal.record(Stamped { call: id, at: now.wall, event: CallEvent::Queued });
            self.end_unplaced(id, EndReason::TrunkFailure, now.wall);
            return Ok(queued);
        }
        if let Err(error) = self.rooms.engine.originate(Arc::clone(&order)).await {
            self.end_unplaced(id, EndReason::TrunkFailure, clock::now().wall);
            return Err(error.into());
        }
        if let Some(script) = script {
            tokio::spawn(Arc::clone(self).prepare(order, script));
        }
        Ok(queued)
    }

    /// Makes the words of a script into sound, while the telephone rings where it does, and gives them to the call.
    pub(super) async fn prepare(self: Arc<Self>, order: Arc<CallOrder>, script: Script) {
        let spoken =
            tokio::time::timeout(SCRIPT_WITHIN, self.rooms.speech.say(&script.text, &order.voice_name));
        let clip = match spoken.await {
            Ok(Ok(clip)) => clip,
            // Nobody is left on a line on which nothing will ever be said.
            failed => {
                let error = failed.map_or_else(
                    |late| late.to_string(),
                    |said| said.err().map_or_else(String::new, |e| e.to_string()),
                );
                tracing::error!(call = %order.id, %error, "the words of a call could not be spoken; it is hung up");
                let hang_up = Command::HangUp { drain: false };
                let _ = self.rooms.engine.command(order.id, hang_up).await;
                return;
            }
        };
        let playback = self.playback_id("tts", &order.kaphila_id);
        let opening = Opening { playback, clip, text: Some(script.text), file: None, then: script.then };
        if let Err(error) = self.rooms.engine.command(order.id, Command::Open(opening)).await {
            tracing::debug!(call = %order.id, %error, "the call was over before its words were ready");
        }
    }

    /// Waits for what a call comes to.
    async fn placed(&self, queued: Queued) -> Result<Placed, Failure> {
        if !queued.unreachable.is_empty() {
            let (attempted, total) = (queued.unreachable, queued.total_trunks);
            return Err(Refusal::OriginationFailed { attempted, total }.into());
        }
        let watching = self.rooms.live.subscribe(queued.view.order.id);
        let Some(watching) = watching else { return Err(Refusal::Unavailable.into()) };
        self.watch_placing(watching, queued.total_trunks, queued.passed).await
    }

    /// Where a caller id must come from, and whether this one does.
    async fn ownership(&self, caller: &Caller, asked: Option<&CallerId>) -> Result<Ownership, Failure> {
        if !self.rooms.config.callerid.enforce {
            return Ok(Ownership::ListIfAny);
        }
        let owned = match asked.and_then(policy::shown_number) {
            Some(number) => self.rooms.db.owns_number(&caller.key.tenant, &number).await?,
            None => false,
        };
        Ok(Ownership::Enforced { owned })
    }

    /// Where each trunk's INVITE would go, in the key's order; `None` for one that cannot be found in time.
    async fn routes(&self, trunks: &[Trunk], now: Now) -> Vec<Option<TrunkPlan>> {
        // All at once: a name that nobody answers for must not take the time of a trunk that is well.
        let mut asked = JoinSet::new();
        for (place, trunk) in trunks.iter().cloned().enumerate() {
            let resolver = Arc::clone(&self.rooms.resolver);
            asked.spawn(async move { (place, resolver.plan(&trunk, now.mono).await) });
        }
        let mut routes = vec![None; trunks.len()];
        let finding = async {
            while let Some(found) = asked.join_next().await {
                if let Ok((place, plan)) = found {
                    routes[place] = plan;
                }
            }
        };
        if tokio::time::timeout(ROUTE_WITHIN, finding).await.is_err() {
            tracing::warn!("the trunks' addresses could not all be found in time");
        }
        routes
    }

    /// The trunks by which a second party of a live call is dialled, in the order of the key's policy.
    ///
    /// # Errors
    /// [`Refusal::NoTrunks`], [`Refusal::TrunksBusy`], [`Refusal::Unavailable`].
    pub(super) async fn ways(&self, caller: &Caller) -> Result<Vec<TrunkPlan>, Failure> {
        let now = clock::now();
        let trunks = self.rooms.db.key_trunks(caller.key.id).await?;
        if trunks.is_empty() {
            return Err(Refusal::NoTrunks.into());
        }
        if self.is_draining() {
            return Err(Refusal::Unavailable.into());
        }
        let policy = self.rooms.db.trunk_policy(caller.key.id).await?;
        let plans = self.routes(&trunks, now).await;
        let routes = trunks.into_iter().zip(plans).map(|(trunk, plan)| Route { trunk, plan }).collect();
        let mut tx = self.rooms.db.begin().await?;
        let turn = tx.next_trunk_cursor(caller.key.id).await?;
        tx.commit().await?;
        // Nothing is kept of the place that choosing reserves: the engine counts it when it dials. It is reserved under an
        // id of its own, so that giving it back leaves the place of the call that is up alone.
        let (choice, routes, _reserved) = self.choose(random_call_id()?, policy, turn, routes, now);
        let walk: Vec<TrunkPlan> =
            choice.walk.iter().filter_map(|place| routes.get(*place)?.plan.clone()).collect();
        if walk.is_empty() { Err(Refusal::TrunksBusy.into()) } else { Ok(walk) }
    }

    /// The one transaction of placing: nothing of it stays if any step refuses.
    async fn admit(
        &self,
        caller: &Caller,
        asked: PlaceCall,
        from: Option<CallerId>,
        routes: (Policy, Vec<Route>),
        now: Now,
    ) -> Result<Admitted, Failure> {
        let id = CallId::random(random_u128()?);
        let admitting = |mut tx| async move {
            let admitted = self.admit_in(&mut tx, (id, caller, asked, from), routes, now).await;
            (tx, admitted)
        };
        let (admitted, reserved) = self.rooms.db.write(admitting).await?;
        reserved.keep();
        Ok(admitted)
    }

    async fn admit_in(
        &self,
        tx: &mut Tx,
        (id, caller, asked, from): (CallId, &Caller, PlaceCall, Option<CallerId>),
        (policy, routes): (Policy, Vec<Route>),
        now: Now,
    ) -> Result<(Admitted, Reserved<'_>), Failure> {
        let key = &caller.key;
        policy::caps(tx, key, asked.surface, now.wall).await?;
        if routes.is_empty() {
            return Err(Refusal::NoTrunks.into());
        }
        let limits = &self.rooms.config.limits;
        let full = self.rooms.engine.live_calls() >= limits.max_calls;
        let behind = self.rooms.journal.lag() > limits.journal_lag_max;
        if full || behind || self.is_draining() || !self.rooms.engine.is_alive() {
            return Err(Refusal::Unavailable.into());
        }
        let turn = tx.next_trunk_cursor(key.id).await?;
        let counter = tx.next_call_counter().await?;
        let total_trunks = routes.len();
        let (choice, routes, reserved) = self.choose(id, policy, turn, routes, now);
        if choice.busy {
            return Err(Refusal::TrunksBusy.into());
        }
        let passed = passed_over(&choice, &routes);
        let order = CallOrder {
            id,
            kaphila_id: format!("{}.{counter}", now.wall.seconds()),
            surface: asked.surface,
            key: key.id,
            tenant: key.tenant.clone(),
            submitted_number: asked.submitted_number,
            to: asked.to,
            from,
            trunks: choice.walk.iter().filter_map(|place| routes.get(*place)?.plan.clone()).collect(),
            redials_ms: policy::redials_ms(asked.surface).to_vec(),
            ring_timeout_ms: asked.ring_timeout_s.saturating_mul(1000),
            max_duration_ms: longest(asked.max_duration_s, limits.max_call_duration_s),
            use_amd: asked.use_amd,
            record: asked.record.decided(key.recording),
            record_channels: asked.record_channels,
            voice_name: asked.voice_name,
            webhook_url: asked.webhook_url,
            purpose: asked.purpose,
            created_at: now.wall,
        };
        let view = CallView::new(Arc::new(order));
        tx.insert_call(&view).await?;
        // The contact of a campaign is this call's from here on, or the call is not placed.
        if let Some(why) = tx.claim_contact(&view, now.wall).await? {
            return Err(Failure::Untaken(why));
        }
        Ok((Admitted { view, total_trunks, passed }, reserved))
    }

    /// Which of the key's trunks are tried, in which order. The first has a place for the call until it ends, or
    /// until what is given back is dropped.
    fn choose(
        &self,
        call: CallId,
        policy: Policy,
        turn: u64,
        routes: Vec<Route>,
        now: Now,
    ) -> (Choice, Vec<Route>, Reserved<'_>) {
        let liked = |route: &Route| {
            let TrunkProfile { priority, weight, .. } = route.trunk.profile;
            Preference { priority, weight }
        };
        let routes = routing::order(routes, policy, turn, liked);
        let endpoints: Vec<String> = routes.iter().map(|route| routing::endpoint(&route.trunk)).collect();
        let candidate = |(route, endpoint)| {
            let (Route { trunk, plan }, endpoint): (&Route, &String) = (route, endpoint);
            let TrunkProfile { max_calls, calls_per_second, .. } = trunk.profile;
            Candidate { endpoint, max_calls, calls_per_second, reachable: plan.is_some() }
        };
        let candidates: Vec<Candidate<'_>> = routes.iter().zip(&endpoints).map(candidate).collect();
        let (choice, reserved) = self.rooms.fleet.choose(now.mono, call, &candidates);
        (choice, routes, reserved)
    }

    /// Ends a call that the engine never took, so that its hold is released with its row.
    pub(super) fn end_unplaced(&self, call: CallId, reason: EndReason, at: Timestamp) {
        let ended = Stamped { call, at, event: CallEvent::Ended { reason, q850: 41, sip_code: None } };
        self.rooms.fleet.heard(&ended);
        self.rooms.journal.record(ended);
    }

    async fn watch_placing(
        &self,
        mut watching: watch::Receiver<Arc<CallView>>,
        total_trunks: usize,
        passed: usize,
    ) -> Result<Placed, Failure> {
        let decided =
            async { watching.wait_for(|view| view.placed || view.state == CallState::Ended).await.is_ok() };
        let in_time = tokio::time::timeout(PLACE_WITHIN, decided).await.is_ok();
        let view = Arc::clone(&watching.borrow());
        let answer = judge_placing(&view, total_trunks, passed);
        if !in_time && answer.is_err() {
            // Nobody waits for this call any longer; whether it was already over changes nothing.
            let hang_up = Command::HangUp { drain: false };
            if let Err(error) = self.rooms.engine.command(view.order.id, hang_up).await {
                tracing::debug!(call = %view.order.id, %error, "hanging up a call that came to nothing");
            }
        }
        answer?;
        Ok(Placed { view, total_trunks })
    }
}

/// What a placing came to, by the view at the moment of the answer. `TrunkFailure` without a trunk that ever took
/// the call is the one end that is told at once; every other end is told by the call's own events. `passed`: trunks
/// passed over before the engine had the call.
fn judge_placing(view: &CallView, total: usize, passed: usize) -> Result<(), Refusal> {
    if view.placed {
        return Ok(());
    }
    match view.end.map(|end| end.reason) {
        // Between the placing and the INVITE others took the last places.
        Some(EndReason::TrunkFailure) if view.attempts.is_empty() && view.passed.len() > passed => {
            Err(Refusal::TrunksBusy)
        }
        Some(EndReason::TrunkFailure) | None => {
            let attempted = view.attempts.iter().map(|attempt| attempt.trunk.clone()).collect();
            Err(Refusal::OriginationFailed { attempted, total })
        }
        Some(EndReason::Shutdown | EndReason::EngineRestart) => Err(Refusal::Unavailable),
        Some(
            EndReason::NormalHangup
            | EndReason::ApiHangup
            | EndReason::NoAnswer
            | EndReason::Busy
            | EndReason::Rejected
            | EndReason::NotFound
            | EndReason::Canceled
            | EndReason::MaxDuration
            | EndReason::MediaTimeout
            | EndReason::InsufficientCredits,
        ) => Ok(()),
    }
}

/// What is told of the trunks that are not tried.
fn passed_over(choice: &Choice, routes: &[Route]) -> Vec<CallEvent> {
    let event = |(place, reason): &(usize, String)| {
        let trunk = routing::endpoint(&routes.get(*place)?.trunk);
        Some(CallEvent::PassedOver { trunk, reason: reason.clone() })
    };
    choice.passed.iter().filter_map(event).collect()
}

/// The shorter of what was asked for and what is allowed, seconds to milliseconds.
pub(super) fn longest(asked: Option<u32>, allowed: u32) -> u32 {
    asked.map_or(allowed, |asked| asked.min(allowed)).saturating_mul(1000)
}

impl Record {
    pub(super) fn decided(self, mode: RecordingMode) -> bool {
        match (self, mode) {
            (Self::As(on), _) => on,
            (Self::AsKey(_), RecordingMode::Always) => true,
            (Self::AsKey(_), RecordingMode::Off) => false,
            (Self::AsKey(asked), RecordingMode::OnRequest) => asked.unwrap_or(false),
        }
    }
}

/// An id that nobody has.
pub(super) fn random_call_id() -> Result<CallId, Failure> {
    Ok(CallId::random(random_u128()?))
}

fn random_u128() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::Random)?;
    Ok(u128::from_le_bytes(bytes))
}

//! The verbs: place a call, say, play, gather, stop or pause the recording, hang up. Each checks what may be checked here,
//! hands one order or command to the engine and returns; what then happens is told by events.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::policy::{self, Ownership};
use super::routing::{self, Preference};
use super::trunks::Reserved;
use super::trunks::health::{Candidate, Choice};
use super::{Caller, Failure, Refusal, Rooms};
use crate::clock;
use crate::model::account::{RecordingMode, Trunk};
use crate::model::call::{
    Accepted, CallOrder, CallState, CallView, Command, EndReason, GatherOrder, Surface, TrunkPlan,
};
use crate::model::event::{CallEvent, PlayTo, Stamped};
use crate::model::trunk::{Policy, TrunkProfile};
use crate::model::{CallId, CallerId, Now, PhoneNumber, Timestamp};
use crate::speech::SoundError;

/// An answer to a placing waits no longer than this; the engine itself gives up at 10 s (CONTRACT 1.1).
const PLACE_WITHIN: Duration = Duration::from_millis(10_200);

/// Finding the addresses of all trunks takes no longer than this, or those not found yet are left out.
const ROUTE_WITHIN: Duration = Duration::from_secs(3);

/// Speech must be ready in this time (CONTRACT 1.1 `/voice`).
const SPEECH_WITHIN: Duration = Duration::from_secs(4);

/// A call as asked for, with every field read and in its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceCall {
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
    /// Record it, for keys that leave that to the request.
    pub record: Option<bool>,
    /// How many sounds the recording keeps apart.
    pub record_channels: media::Channels,
}

/// A call that was placed.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What is true of it at the moment of the answer.
    pub view: Arc<CallView>,
    /// Enabled trunks of the key.
    pub total_trunks: usize,
}

/// Digits to collect, with every field in its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// Spoken first.
    pub text: String,
    /// Who hears it.
    pub to: PlayTo,
    /// 1 to 32.
    pub num_digits: u8,
    /// 1000 to 120000.
    pub timeout_ms: u32,
    /// A key that ends it early.
    pub finish_on_key: Option<char>,
    /// Take the place of a running one.
    pub replace: bool,
}

/// The verbs, over the rooms that carry them out.
pub struct Calls {
    rooms: Rooms,
    last_playback_ms: AtomicI64,
    draining: AtomicBool,
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
    /// The verbs over these rooms.
    pub fn new(rooms: Rooms) -> Self {
        Self { rooms, last_playback_ms: AtomicI64::new(0), draining: AtomicBool::new(false) }
    }

    /// Refuses to place calls from here on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Places a call and waits until a trunk has it, it is over, or no trunk is left.
    ///
    /// # Errors
    /// Refusals in the order of CONTRACT 0.3: number, caller id, pace, concurrency, credits, trunks, engine; then
    /// [`Refusal::OriginationFailed`] where every trunk was tried in vain.
    pub async fn place(self: &Arc<Self>, caller: Caller, asked: PlaceCall) -> Result<Placed, Failure> {
        // A task of its own: a client that hangs up in the middle must not leave a held credit without a call.
        let this = Arc::clone(self);
        let placing = tokio::spawn(async move { this.place_whole(&caller, asked).await });
        placing.await.unwrap_or(Err(Failure::Panicked))
    }

    async fn place_whole(&self, caller: &Caller, asked: PlaceCall) -> Result<Placed, Failure> {
        policy::may_call(&caller.key.policy, &asked.to)?;
        let ownership = self.ownership(caller, asked.caller_id.as_ref()).await?;
        let from = policy::caller_id(&caller.key.caller_ids, asked.caller_id.as_ref(), ownership)?;
        let now = clock::now();
        let trunks = self.rooms.db.key_trunks(caller.key.id).await?;
        let policy = self.rooms.db.trunk_policy(caller.key.id).await?;
        let routes = self.routes(&trunks, now).await;
        let routes = trunks.iter().cloned().zip(routes).map(|(trunk, plan)| Route { trunk, plan }).collect();
        let admitted = self.admit(caller, asked, from, (policy, routes), now).await?;
        let order = Arc::clone(&admitted.view.order);
        let id = order.id;
        let passed = admitted.passed.len();
        self.rooms.live.admit(admitted.view);
        for event in admitted.passed {
            self.rooms.journal.record(Stamped { call: id, at: now.wall, event });
        }
        if order.trunks.is_empty() {
            // Trunks there are, but none whose address can be found: the call is over before it began.
            self.end_unplaced(id, EndReason::TrunkFailure, now.wall);
            let attempted = trunks.iter().map(routing::endpoint).collect();
            return Err(Refusal::OriginationFailed { attempted, total: trunks.len() }.into());
        }
        let watching = self.rooms.live.subscribe(id);
        if let Err(error) = self.rooms.engine.originate(order).await {
            self.end_unplaced(id, EndReason::TrunkFailure, clock::now().wall);
            return Err(error.into());
        }
        let Some(watching) = watching else { return Err(Refusal::Unavailable.into()) };
        self.watch_placing(watching, admitted.total_trunks, passed).await
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

    /// The one transaction of placing: nothing of it stays if any step refuses.
    async fn admit(
        &self,
        caller: &Caller,
        asked: PlaceCall,
        from: Option<CallerId>,
        (policy, routes): (Policy, Vec<Route>),
        now: Now,
    ) -> Result<Admitted, Failure> {
        let key = &caller.key;
        let id = CallId(random_u128()?);
        let mut tx = self.rooms.db.begin().await?;
        policy::caps(&mut tx, key, now.wall).await?;
        if routes.is_empty() {
            return Err(Refusal::NoTrunks.into());
        }
        let limits = &self.rooms.config.limits;
        let full = self.rooms.engine.live_calls() >= limits.max_calls;
        let behind = self.rooms.journal.lag() > limits.journal_lag_max;
        if full || behind || self.draining.load(Ordering::Relaxed) || !self.rooms.engine.is_alive() {
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
            surface: Surface::Kaphila,
            key: key.id,
            tenant: key.tenant.clone(),
            submitted_number: asked.submitted_number,
            to: asked.to,
            from,
            trunks: choice.walk.iter().filter_map(|place| routes.get(*place)?.plan.clone()).collect(),
            ring_timeout_ms: asked.ring_timeout_s.saturating_mul(1000),
            max_duration_ms: limits.max_call_duration_s.saturating_mul(1000),
            use_amd: asked.use_amd,
            record: shall_record(key.recording, asked.record),
            record_channels: asked.record_channels,
            voice_name: asked.voice_name,
            webhook_url: asked.webhook_url,
            created_at: now.wall,
        };
        let view = CallView::new(Arc::new(order));
        tx.insert_call(&view).await?;
        tx.commit().await?;
        reserved.keep();
        Ok(Admitted { view, total_trunks, passed })
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
    fn end_unplaced(&self, call: CallId, reason: EndReason, at: Timestamp) {
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

    /// Speaks into a call; returns the playback's id once the speech is queued.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`], [`Refusal::NotAnswered`], [`Refusal::QueueFull`]; speech that fails or is late.
    pub async fn say(&self, caller: &Caller, call: &str, text: &str, to: PlayTo) -> Result<String, Failure> {
        let view = self.answered(caller, call)?;
        let clip = in_time(self.rooms.speech.say(text, &view.order.voice_name)).await?;
        let playback = self.playback_id("tts", call);
        let text = Some(text.to_owned());
        let play = Command::Play { playback: playback.clone(), clip, text, file: None, to };
        self.rooms.engine.command(view.order.id, play).await?;
        Ok(playback)
    }

    /// Plays a sound file into a call; returns the playback's id once it is queued.
    ///
    /// # Errors
    /// As [`Calls::say`]; [`Refusal::SoundNotFound`], [`Refusal::InvalidSound`]; a file that cannot be decoded.
    pub async fn play(&self, caller: &Caller, call: &str, file: &str, to: PlayTo) -> Result<String, Failure> {
        let view = self.answered(caller, call)?;
        let clip = match self.rooms.sounds.load(Some(&caller.key.key_id), file).await {
            Ok(clip) => clip,
            Err(SoundError::Invalid) => return Err(Refusal::InvalidSound.into()),
            Err(SoundError::NotFound) => return Err(Refusal::SoundNotFound.into()),
            Err(error @ (SoundError::Undecodable(_) | SoundError::TooLong)) => {
                return Err(Failure::Sound(error.to_string()));
            }
        };
        let playback = self.playback_id("play", call);
        let file = Some(file.to_owned());
        let play = Command::Play { playback: playback.clone(), clip, text: None, file, to };
        self.rooms.engine.command(view.order.id, play).await?;
        Ok(playback)
    }

    /// Speaks a prompt and collects digits; returns once the gather runs.
    ///
    /// # Errors
    /// As [`Calls::say`]; [`Refusal::GatherInProgress`] where one runs and is not to be replaced.
    pub async fn gather(&self, caller: &Caller, call: &str, asked: Gather) -> Result<(), Failure> {
        let view = self.answered(caller, call)?;
        if view.gather.is_some() && !asked.replace {
            return Err(Refusal::GatherInProgress.into());
        }
        let prompt = in_time(self.rooms.speech.say(&asked.text, &view.order.voice_name)).await?;
        let order = GatherOrder {
            prompt,
            to: asked.to,
            num_digits: asked.num_digits,
            timeout_ms: asked.timeout_ms,
            finish_on_key: asked.finish_on_key,
            replace: asked.replace,
        };
        self.rooms.engine.command(view.order.id, Command::Gather(order)).await?;
        Ok(())
    }

    /// Ends a call; with `drain` after what is queued has been played.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`] also for calls that are over.
    pub async fn hang_up(&self, caller: &Caller, call: &str, drain: bool) -> Result<(), Failure> {
        let view = self.live(caller, call)?;
        self.rooms.engine.command(view.order.id, Command::HangUp { drain }).await?;
        Ok(())
    }

    /// Stops a call's running recording; returns its id.
    ///
    /// # Errors
    /// [`Refusal::NoActiveRecording`] where none runs, and where there is no such call.
    pub async fn stop_recording(&self, caller: &Caller, call: &str) -> Result<String, Failure> {
        let view = self.live(caller, call).map_err(|_| Refusal::NoActiveRecording)?;
        self.recording_command(&view, Command::StopRecording).await
    }

    /// Puts silence into a call's running recording, or sound again; returns its id. Asking twice is asking once.
    ///
    /// # Errors
    /// [`Refusal::NoActiveRecording`] where none runs, and where there is no such call.
    pub async fn pause_recording(&self, caller: &Caller, call: &str, on: bool) -> Result<String, Failure> {
        let view = self.live(caller, call).map_err(|_| Refusal::NoActiveRecording)?;
        self.recording_command(&view, Command::PauseRecording { on }).await
    }

    async fn recording_command(&self, view: &CallView, command: Command) -> Result<String, Failure> {
        match self.rooms.engine.command(view.order.id, command).await.map_err(Refusal::from) {
            Ok(Accepted::RecordingStopped { recording } | Accepted::RecordingPaused { recording }) => {
                Ok(recording)
            }
            Ok(Accepted::Done) | Err(Refusal::UnknownCall | Refusal::NotAnswered) => {
                Err(Refusal::NoActiveRecording.into())
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The caller's own call of that id, while it lives. Another key's call is as unknown as one that never was.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`].
    pub fn live(&self, caller: &Caller, call: &str) -> Result<Arc<CallView>, Refusal> {
        let view = self.rooms.live.by_kaphila(call).ok_or(Refusal::UnknownCall)?;
        let own = view.order.key == caller.key.id && view.state != CallState::Ended;
        if own { Ok(view) } else { Err(Refusal::UnknownCall) }
    }

    fn answered(&self, caller: &Caller, call: &str) -> Result<Arc<CallView>, Refusal> {
        let view = self.live(caller, call)?;
        if view.state == CallState::Answered { Ok(view) } else { Err(Refusal::NotAnswered) }
    }

    /// `<kind>-<call>-<13-digit ms>`; two in one millisecond are a millisecond apart in name.
    fn playback_id(&self, kind: &str, call: &str) -> String {
        let now = clock::now().wall.0;
        let next = |last: i64| Some(now.max(last + 1));
        let last = self.last_playback_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let ms = now.max(last.unwrap_or(now) + 1);
        format!("{kind}-{call}-{ms:013}")
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

fn shall_record(mode: RecordingMode, asked: Option<bool>) -> bool {
    match mode {
        RecordingMode::Always => true,
        RecordingMode::Off => false,
        RecordingMode::OnRequest => asked.unwrap_or(false),
    }
}

async fn in_time<T, E>(speech: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    match tokio::time::timeout(SPEECH_WITHIN, speech).await {
        Ok(spoken) => Ok(spoken?),
        Err(_) => Err(Failure::SpeechTooSlow),
    }
}

fn random_u128() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::Random)?;
    Ok(u128::from_le_bytes(bytes))
}

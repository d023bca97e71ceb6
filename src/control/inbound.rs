//! Calls that come in: which number was called, whose it is, and what happens then (CONTRACT 0.8, 3 S23, S48). The engine
//! has let the caller in and waits; here the call gets its row in one transaction, as one that is placed does, and the engine
//! is told to answer or to refuse. Inbound calls take no credit. Nothing of a refused call stays.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::admission::LOCAL_KEY;
use super::calls::Calls;
use super::placing::{self, Record};
use super::{Failure, Refusal, agents, policy};
use crate::clock;
use crate::model::account::{ApiKey, RecordingMode};
use crate::model::agent::Agent;
use crate::model::call::{
    CallOrder, CallView, Command, CommandError, EndReason, Opening, Surface, Then, TrunkPlan,
};
use crate::model::incoming::{Incoming, Reception};
use crate::model::purpose::{Direction, Mode, Purpose};
use crate::model::{CallerId, Now, PhoneNumber};
use crate::store::StoreError;
use crate::store::agents::AgentName;
use crate::store::numbers::{Number, OnCall};
use crate::store::tenants::SUSPENDED;

/// Calls that are looked after at a time; the others wait.
const AT_ONCE: usize = 64;
/// Calls that wait to be looked after.
const QUEUED_MAX: usize = 256;

/// The voice of a call for which nobody named one (CONTRACT 1.1).
const VOICE: &str = "en-US-Neural2-A";

/// After its sound a call is ended at once, but for what is still on its way.
const LAST_WORDS_MS: u32 = 200;

/// Where the engine puts calls that came in, and where they are taken from.
pub fn queue() -> (mpsc::Sender<Incoming>, mpsc::Receiver<Incoming>) {
    mpsc::channel(QUEUED_MAX)
}

/// Starts the task that looks after calls that come in; it ends when the engine is gone.
pub fn start(calls: Arc<Calls>, mut waiting: mpsc::Receiver<Incoming>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(incoming) = waiting.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                calls.incoming(incoming).await;
                drop(place);
            });
        }
    })
}

/// Why a call is not taken, as SIP says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct No {
    code: u16,
    retry_after_s: Option<u32>,
}

/// No such number.
const UNKNOWN_NUMBER: No = No { code: 404, retry_after_s: None };
/// Nobody is there to answer.
const NOBODY_THERE: No = No { code: 480, retry_after_s: None };
/// As many calls are up as may be.
const BUSY: No = No { code: 486, retry_after_s: None };
/// There is no room, or something broke.
const NO_ROOM: No = No { code: 503, retry_after_s: Some(5) };
/// The tenant may do nothing.
const DECLINED: No = No { code: 603, retry_after_s: None };

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a call that came in is refused");
        NO_ROOM
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Refusal::TooManyCalls) => BUSY,
            Failure::Refused(Refusal::Unavailable) => NO_ROOM,
            failure => {
                tracing::error!(%failure, "a call that came in is refused");
                NO_ROOM
            }
        }
    }
}

/// A call that may be answered: under which key, and what is done then.
struct Answering {
    number: Number,
    trunk: TrunkPlan,
    key: ApiKey,
    action: Action,
}

/// What is done on a call that is answered.
enum Action {
    /// The application drives it.
    Webhook { url: String },
    /// The agent speaks.
    Agent(Box<Agent>),
    /// A sound is played, then it is hung up.
    Play { file: String, clip: Arc<media::Clip> },
    /// What is heard is said back.
    Echo,
}

impl Calls {
    /// Looks after one call: admits it or has it refused.
    async fn incoming(self: &Arc<Self>, incoming: Incoming) {
        let ticket = incoming.ticket;
        let now = clock::now();
        let admitted = match self.answering(&incoming, now).await {
            Ok(answering) => {
                self.admit_inbound(&incoming, &answering, now).await.map(|view| (answering, view))
            }
            Err(no) => Err(no),
        };
        let (answering, view) = match admitted {
            Ok(admitted) => admitted,
            Err(No { code, retry_after_s }) => {
                tracing::info!(code, trunk = %first_trunk(&incoming), "a call that came in is refused");
                // A caller that is gone needs no refusal.
                let _ = self.rooms.engine.receive(ticket, Reception::Refuse { code, retry_after_s }).await;
                return;
            }
        };
        let order = Arc::clone(&view.order);
        self.rooms.live.admit(view);
        let echo = matches!(answering.action, Action::Echo);
        let answer = Reception::Answer { order: Arc::clone(&order), echo };
        if let Err(error) = self.rooms.engine.receive(ticket, answer).await {
            tracing::info!(call = %order.id, %error, "a call that came in was over before it was answered");
            let gone = error == CommandError::UnknownCall;
            let reason = if gone { EndReason::Canceled } else { EndReason::TrunkFailure };
            self.end_unplaced(order.id, reason, clock::now().wall);
            return;
        }
        self.open_inbound(order, answering.action).await;
    }

    /// Whose number was called, and what is to be done.
    async fn answering(&self, incoming: &Incoming, now: Now) -> Result<Answering, No> {
        let limits = &self.rooms.config.limits;
        let full = self.rooms.engine.live_calls() >= limits.max_calls;
        if full || self.rooms.journal.lag() > limits.journal_lag_max || self.is_draining() {
            return Err(NO_ROOM);
        }
        let (number, trunk) = self.called(incoming).await?;
        let tenant = self.rooms.db.tenant(&number.tenant).await?;
        if tenant.is_none_or(|tenant| tenant.status == SUSPENDED) {
            return Err(DECLINED);
        }
        let (key, action) = match &number.on_call {
            OnCall::Nothing => return Err(NOBODY_THERE),
            OnCall::Webhook { url, key_id } => {
                let key = self.rooms.db.key_of_id(key_id).await?.filter(|key| lives(key, now));
                (key, Action::Webhook { url: url.clone() })
            }
            OnCall::Agent(agent) => {
                let found = self.rooms.db.agent(&number.tenant, AgentName::Public(agent)).await?;
                let agent = found.filter(|agent| agent.settings.active).ok_or(NOBODY_THERE)?;
                (self.oldest_key(&number.tenant, now).await?, Action::Agent(Box::new(agent)))
            }
            OnCall::Play(file) => {
                let key = self.oldest_key(&number.tenant, now).await?;
                let own = key.as_ref().map(|key| key.key_id.as_str());
                let clip = self.rooms.sounds.load(own, file).await.map_err(|error| {
                    tracing::warn!(number = %number.id, %file, %error, "the sound of a number cannot be played");
                    NOBODY_THERE
                })?;
                (key, Action::Play { file: file.clone(), clip })
            }
            OnCall::Echo => (self.oldest_key(&number.tenant, now).await?, Action::Echo),
        };
        let key = key.ok_or(NOBODY_THERE)?;
        Ok(Answering { number, trunk, key, action })
    }

    /// The number that was called and the trunk it was called by. A number with a trunk of its own is known on no other.
    async fn called(&self, incoming: &Incoming) -> Result<(Number, TrunkPlan), No> {
        for dialled in &incoming.dialled {
            for trunk in &incoming.trunks {
                for reading in readings(dialled, &trunk.profile.country_code) {
                    let Some(number) = self.rooms.db.number(&reading).await? else { continue };
                    let own =
                        number.trunk.as_ref().is_none_or(|name| format!("{name}-endpoint") == trunk.endpoint);
                    if own {
                        return Ok((number, TrunkPlan::clone(trunk)));
                    }
                }
            }
        }
        Err(UNKNOWN_NUMBER)
    }

    /// The oldest of a tenant's keys that lives; that of the programs on this machine only where there is no other.
    async fn oldest_key(&self, tenant: &str, now: Now) -> Result<Option<ApiKey>, StoreError> {
        self.rooms.db.oldest_key(tenant, LOCAL_KEY, now.wall).await
    }

    /// The one transaction of a call that comes in.
    async fn admit_inbound(
        &self,
        incoming: &Incoming,
        answering: &Answering,
        now: Now,
    ) -> Result<CallView, No> {
        let Answering { number, trunk, key, action } = answering;
        let id = placing::random_call_id()?;
        let (caller, from) = told_caller(incoming, &trunk.profile.country_code);
        let limits = &self.rooms.config.limits;
        let agent = match action {
            Action::Agent(agent) => Some(&agent.settings),
            Action::Webhook { .. } | Action::Play { .. } | Action::Echo => None,
        };
        let record = match agent {
            Some(agent) => Record::As(agent.record && key.recording != RecordingMode::Off),
            None => Record::AsKey(None),
        };
        let mut tx = self.rooms.db.begin().await?;
        policy::room_for_one(&mut tx, key).await?;
        let counter = tx.next_call_counter().await?;
        let order = CallOrder {
            id,
            kaphila_id: format!("{}.{counter}", now.wall.seconds()),
            surface: if agent.is_some() { Surface::Phony } else { Surface::Kaphila },
            key: key.id,
            tenant: key.tenant.clone(),
            submitted_number: caller,
            to: number.number.clone(),
            from,
            trunks: vec![trunk.clone()],
            redials_ms: Vec::new(),
            ring_timeout_ms: 0,
            max_duration_ms: placing::longest(
                agent.and_then(|agent| agent.max_call_duration_s),
                limits.max_call_duration_s,
            ),
            use_amd: false,
            record: record.decided(key.recording),
            record_channels: media::Channels::Mono,
            voice_name: agent.map_or_else(|| VOICE.to_owned(), |agent| agent.voice.clone()),
            webhook_url: match action {
                Action::Webhook { url } => Some(url.clone()),
                Action::Agent(_) | Action::Play { .. } | Action::Echo => None,
            },
            purpose: purpose(action),
            created_at: now.wall,
        };
        let view = CallView::new(Arc::new(order));
        tx.insert_call(&view).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// What an answered call does by itself.
    async fn open_inbound(self: &Arc<Self>, order: Arc<CallOrder>, action: Action) {
        match action {
            Action::Webhook { .. } | Action::Echo => {}
            Action::Play { file, clip } => {
                let playback = self.playback_id("play", &order.kaphila_id);
                let then = Then::HangUp { after_ms: LAST_WORDS_MS };
                let opening = Opening { playback, clip, text: None, file: Some(file), then };
                if let Err(error) = self.rooms.engine.command(order.id, Command::Open(opening)).await {
                    tracing::debug!(call = %order.id, %error, "the call was over before its sound began");
                }
            }
            // An agent that can hear and think, or an application in its place, says everything by itself.
            Action::Agent(agent) if self.rooms.converses || agent.settings.relay_url.is_some() => {}
            Action::Agent(agent) => {
                let script = agents::script(&agent, &self.rooms.config.agent);
                Arc::clone(self).prepare(order, script).await;
            }
        }
    }
}

fn first_trunk(incoming: &Incoming) -> &str {
    incoming.trunks.first().map_or("", |trunk| trunk.endpoint.as_str())
}

/// Whether calls are answered under a key.
fn lives(key: &ApiKey, now: Now) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now.wall)
}

/// What a call that came in is for.
fn purpose(action: &Action) -> Purpose {
    let inbound = Purpose { direction: Direction::Inbound, ..Purpose::default() };
    match action {
        Action::Webhook { .. } | Action::Echo => inbound,
        Action::Play { .. } => Purpose { mode: Mode::Announce, ..inbound },
        Action::Agent(agent) => Purpose {
            mode: Mode::Agent,
            agent: Some(agent.id),
            context: agent.settings.context.clone(),
            ..inbound
        },
    }
}

/// What may be meant by a number as carriers write it, the likeliest first: international with `+` or `00`, international
/// without, and national where the trunk's country is known (FIELD 3.2.2 "Number format").
fn readings(text: &str, country: &str) -> Vec<PhoneNumber> {
    let text = text.trim();
    let plain = PhoneNumber::parse_lenient(text);
    if country.is_empty() || text.starts_with('+') || text.starts_with("00") {
        return plain.into_iter().collect();
    }
    let Some(plain) = plain else { return Vec::new() };
    let digits = plain.digits();
    let national = format!("{country}{}", digits.strip_prefix('0').unwrap_or(digits));
    let national = PhoneNumber::from_digits(&national);
    if digits.starts_with(country) {
        std::iter::once(plain).chain(national).collect()
    } else {
        national.into_iter().chain([plain]).collect()
    }
}

/// Who calls: as customers are told it, and as a caller id.
fn told_caller(incoming: &Incoming, country: &str) -> (String, Option<CallerId>) {
    if incoming.anonymous {
        return (CallerId::Anonymous.user().to_owned(), Some(CallerId::Anonymous));
    }
    let given = incoming.caller.as_str();
    let international = given.starts_with('+') || given.starts_with("00");
    let national = !country.is_empty() && given.starts_with('0') && !international;
    let number = if international || national { readings(given, country).into_iter().next() } else { None };
    let text = number.map_or_else(|| given.to_owned(), |number| number.e164());
    let id = CallerId::parse(&text);
    (if text.is_empty() { "unknown".to_owned() } else { text }, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_carriers_write_them() {
        for (text, country, read) in [
            ("+14155550100", "", &["14155550100"][..]),
            ("0014155550100", "49", &["14155550100"]),
            ("14155550100", "", &["14155550100"]),
            ("14155550100", "1", &["14155550100", "114155550100"]),
            ("4155550100", "1", &["14155550100", "4155550100"]),
            ("030123456", "49", &["4930123456", "030123456"]),
            ("030123456", "", &["030123456"]),
            ("alice", "49", &[]),
            ("", "49", &[]),
            ("+1-415-555-0100", "", &["14155550100"]),
        ] {
            let found = readings(text, country);
            let found: Vec<&str> = found.iter().map(PhoneNumber::digits).collect();
            assert_eq!(found, read, "{text} in {country:?}");
        }
    }

    #[test]
    fn callers_are_told_in_one_form_where_it_can_be_known() {
        for (given, anonymous, country, told, id) in [
            ("+14155550123", false, "", "+14155550123", Some("+14155550123")),
            ("004930123456", false, "", "+4930123456", Some("+4930123456")),
            ("030123456", false, "49", "+4930123456", Some("+4930123456")),
            ("030123456", false, "", "030123456", Some("030123456")),
            ("14155550123", false, "1", "14155550123", Some("14155550123")),
            ("alice", false, "1", "alice", None),
            ("", false, "", "unknown", None),
            ("+14155550123", true, "", "anonymous", Some("anonymous")),
        ] {
            let incoming = Incoming {
                ticket: sip::SessionId(1),
                trunks: Vec::new(),
                dialled: Vec::new(),
                caller: given.into(),
                anonymous,
            };
            let (text, found) = told_caller(&incoming, country);
            assert_eq!((text.as_str(), found.as_ref().map(CallerId::user)), (told, id), "{given}");
        }
    }
}

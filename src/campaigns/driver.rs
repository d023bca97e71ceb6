//! The task that has campaigns call: it looks at those that are active a few times a second, asks [`super::hours`] and
//! [`super::course`] whether and how many calls may begin, and has each placed under the campaign's key, as any call is.
//! The call takes its contact in its own transaction; where another process was quicker, nothing is placed. This file
//! decides nothing that must hold after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::course::{Course, Pace};
use super::{Days, Hours};
use crate::clock;
use crate::control::agents::{Errand, bound_by_plan, call_by_agent, idle};
use crate::control::{Caller, Calls, Failure, Refusal, Rooms};
use crate::model::account::ApiKey;
use crate::model::agent::Agent;
use crate::model::call::{CallState, CallView, Command, EndReason, Surface};
use crate::model::{CallerId, Timestamp};
use crate::store::StoreError;
use crate::store::agents::AgentName;
use crate::store::audit::By;
use crate::store::campaign_contacts::{CampaignContact, Untaken};
use crate::store::campaigns::{Campaign, Status};
use crate::store::history::DAY_MS;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Contacts looked at in one round beyond those that may be called: some may not be called now.
const LOOK_FURTHER: u32 = 200;

/// Whether a campaign is over is asked no more often than this, milliseconds.
const OVER_EVERY_MS: i64 = 500;

/// What this process knows of a campaign at work.
#[derive(Default)]
struct AtWork {
    course: Course,
    /// Its calls that this process placed and that are not known to be over.
    calls: Vec<watch::Receiver<Arc<CallView>>>,
    /// A round is under way.
    busy: bool,
    /// Whether it is over is asked next.
    over_at: Timestamp,
}

/// What came of a round.
struct Round {
    campaign: String,
    begun: Vec<(Timestamp, Option<watch::Receiver<Arc<CallView>>>)>,
    /// A call was refused: when and for how many seconds at least.
    refused: Option<(Timestamp, Option<u64>)>,
    /// Nobody was due.
    idle: bool,
    /// The campaign was stopped, or others have as many of its calls as there may be: it is looked at again soon.
    shut: bool,
}

/// Who calls for a campaign.
struct Crew {
    key: ApiKey,
    agent: Agent,
    from: CallerId,
}

/// Starts the task; it ends when it is aborted. Calls under way go on.
pub fn start(rooms: Rooms, calls: Arc<Calls>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch::default();
        loop {
            ticks.tick().await;
            if let Err(error) = watch.look(&rooms, &calls).await {
                tracing::warn!(%error, "the campaigns cannot be read");
            }
        }
    })
}

/// What the task remembers from one look to the next.
#[derive(Default)]
pub(crate) struct Watch {
    at_work: BTreeMap<String, AtWork>,
    rounds: JoinSet<Round>,
}

impl Watch {
    /// Has each campaign that may call now begin a round, unless one of its own is under way.
    pub(crate) async fn look(&mut self, rooms: &Rooms, calls: &Arc<Calls>) -> Result<(), StoreError> {
        while let Some(round) = self.rounds.try_join_next() {
            self.finish(round);
        }
        let now = clock::now().wall;
        let at_work = &mut self.at_work;
        at_work.values_mut().for_each(|known| known.notice(now));
        hang_up_cancelled(rooms).await?;
        let campaigns = rooms.db.campaigns_at_work(now).await?;
        let ids: Vec<&str> = campaigns.iter().map(|campaign| campaign.id.as_str()).collect();
        at_work.retain(|id, known| known.busy || !known.calls.is_empty() || ids.contains(&id.as_str()));
        let up = rooms.db.dialing(&ids).await?;
        for campaign in &campaigns {
            let known = at_work.entry(campaign.id.clone()).or_default();
            let up = up.get(&campaign.id).copied().unwrap_or(0);
            if up == 0 && !known.busy && now >= known.over_at {
                known.over_at = now.plus_ms(OVER_EVERY_MS);
                if rooms.db.complete_campaign(&campaign.id, now).await? {
                    tracing::info!(campaign = campaign.id, "a campaign has called everybody");
                    continue;
                }
            }
            let about = &campaign.about;
            let pace = Pace { concurrent: about.max_concurrent, per_second: about.calls_per_second };
            let room = known.course.room(now, pace, up);
            if known.busy || room == 0 {
                continue;
            }
            known.busy = true;
            let (rooms, calls, campaign) = (rooms.clone(), Arc::clone(calls), campaign.clone());
            self.rounds.spawn(async move { round(&rooms, &calls, &campaign, room).await });
        }
        Ok(())
    }

    fn finish(&mut self, round: Result<Round, JoinError>) {
        match round {
            Ok(round) => take(&mut self.at_work, round),
            Err(error) => {
                tracing::error!(%error, "a round of a campaign was cut off");
                self.at_work.values_mut().for_each(|known| known.busy = false);
            }
        }
    }

    /// Waits until every round is over.
    #[cfg(test)]
    pub(crate) async fn settle(&mut self) {
        while let Some(round) = self.rounds.join_next().await {
            self.finish(round);
        }
    }
}

/// Takes in what came of a round.
fn take(at_work: &mut BTreeMap<String, AtWork>, round: Round) {
    let known = at_work.entry(round.campaign).or_default();
    known.busy = false;
    for (at, call) in round.begun {
        known.course.begun(at);
        known.calls.extend(call);
    }
    if let Some((at, after_s)) = round.refused {
        known.course.refused(at, after_s);
    } else if round.idle {
        // Nobody is due: there is no need to look five times a second.
        known.course.refused(clock::now().wall, None);
    }
}

impl AtWork {
    /// Takes in which of its calls are over.
    fn notice(&mut self, now: Timestamp) {
        let course = &mut self.course;
        self.calls.retain(|call| {
            let view = call.borrow();
            let Some(end) = view.end else { return true };
            course.ended(now, end.reason == EndReason::TrunkFailure && view.ringing_at.is_none());
            false
        });
    }
}

/// Calls of campaigns that were called off stop ringing.
async fn hang_up_cancelled(rooms: &Rooms) -> Result<(), StoreError> {
    let unanswered = |view: &Arc<CallView>| view.state < CallState::Answered;
    let of_campaign = |view: &Arc<CallView>| view.order.purpose.campaign.is_some();
    let ringing: Vec<_> = rooms.live.all().into_iter().filter(|v| unanswered(v) && of_campaign(v)).collect();
    let ids: BTreeSet<String> =
        ringing.iter().filter_map(|view| view.order.purpose.campaign.clone()).collect();
    let off = rooms.db.cancelled(&ids).await?;
    for view in ringing {
        if view.order.purpose.campaign.as_ref().is_some_and(|id| off.contains(id)) {
            let hang_up = Command::HangUp { drain: false };
            if let Err(error) = rooms.engine.command(view.order.id, hang_up).await {
                tracing::debug!(call = %view.order.id, %error, "hanging up a call of a campaign that is off");
            }
        }
    }
    Ok(())
}

/// Has at most `room` calls of a campaign placed, one after the other.
async fn round(rooms: &Rooms, calls: &Arc<Calls>, campaign: &Campaign, room: u32) -> Round {
    let id = campaign.id.clone();
    let mut round = Round { campaign: id, begun: Vec::new(), refused: None, idle: false, shut: false };
    if let Err(error) = call_some(rooms, calls, campaign, room, &mut round).await {
        tracing::warn!(campaign = campaign.id, %error, "a campaign could not go on; it is tried again");
        round.refused = Some((clock::now().wall, None));
    }
    round
}

async fn call_some(
    rooms: &Rooms,
    calls: &Arc<Calls>,
    campaign: &Campaign,
    room: u32,
    round: &mut Round,
) -> Result<(), StoreError> {
    let now = clock::now().wall;
    let hours = hours_of(campaign);
    let zone = TimeZone::get(&campaign.about.timezone).unwrap_or(TimeZone::UTC);
    // While it is shut where the campaign is, only those are called who live elsewhere.
    let elsewhere = !hours.open(now, &zone);
    let limit = room.saturating_add(LOOK_FURTHER);
    let due = rooms.db.due_contacts(&campaign.id, now, elsewhere, limit).await?;
    round.idle = due.is_empty();
    if due.is_empty() {
        return Ok(());
    }
    let Some(crew) = crew(rooms, campaign, now).await? else { return Ok(()) };
    let phones: Vec<_> = due.iter().map(|contact| contact.phone.clone()).collect();
    let dnc = rooms.db.not_to_be_called(&campaign.tenant, &phones).await?;
    for contact in due {
        let full = round.begun.len() >= usize::try_from(room).unwrap_or(usize::MAX);
        if full || round.refused.is_some() || round.shut {
            break;
        }
        let now = clock::now().wall;
        let theirs = if contact.timezone.is_empty() { None } else { TimeZone::get(&contact.timezone).ok() };
        let zone = theirs.as_ref().unwrap_or(&zone);
        if dnc.contains(&contact.phone) {
            rooms.db.skip_contact(&campaign.id, contact.position, "dnc").await?;
        } else if !hours.open(now, zone) {
            if theirs.is_none() {
                break;
            }
            let until = hours.next_open(now, zone).unwrap_or(now.plus_ms(DAY_MS));
            rooms.db.put_off(&campaign.id, contact.position, until).await?;
        } else if let Some(until) = too_often(rooms, campaign, &contact, now).await? {
            rooms.db.put_off(&campaign.id, contact.position, until).await?;
        } else {
            call(rooms, calls, (campaign, &crew), &contact, round).await?;
        }
    }
    Ok(())
}

/// When a campaign may call.
pub(super) fn hours_of(campaign: &Campaign) -> Hours {
    Hours { span: campaign.about.span, days: Days::from_bits(campaign.about.days).unwrap_or(Days::ALL) }
}

/// When a number that campaigns have called as often as they may in a day may be called again.
pub(super) async fn too_often(
    rooms: &Rooms,
    campaign: &Campaign,
    contact: &CampaignContact,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(most) = campaign.about.number_per_day else { return Ok(None) };
    let since = now.plus_ms(-DAY_MS);
    let (calls, first) = rooms.db.campaign_calls_to(&campaign.tenant, &contact.phone, since).await?;
    Ok((calls >= most).then(|| first.unwrap_or(now).plus_ms(DAY_MS)))
}

/// Key, agent and number of a campaign. Where one of them is gone the campaign is paused: it does not go on by itself
/// when somebody makes another.
async fn crew(rooms: &Rooms, campaign: &Campaign, now: Timestamp) -> Result<Option<Crew>, StoreError> {
    let live = |key: &ApiKey| {
        key.revoked_at.is_none() && !key.suspended && key.expires_at.is_none_or(|end| end > now)
    };
    let key = rooms.db.key(campaign.key).await?.filter(live);
    let agent = rooms.db.agent(&campaign.tenant, AgentName::Row(campaign.about.agent)).await?;
    let agent = agent.filter(|agent| idle(agent).is_none());
    let number = rooms.db.number_of_id(&campaign.tenant, &campaign.about.number).await?;
    if let (Some(mut key), Some(agent), Some(number)) = (key, agent, number) {
        bound_by_plan(&mut key, &rooms.config.plans);
        return Ok(Some(Crew { key, agent, from: CallerId::Number(number.number.e164()) }));
    }
    tracing::warn!(campaign = campaign.id, "its key, agent or number is gone; the campaign is paused");
    let pause = |campaign: &mut Campaign| {
        if campaign.status == Status::Active {
            campaign.status = Status::Paused;
        }
        Ok::<(), ()>(())
    };
    drop(rooms.db.change_campaign(&campaign.tenant, &campaign.id, pause, By::server(now)).await?);
    Ok(None)
}

/// Has one contact called.
async fn call(
    rooms: &Rooms,
    calls: &Arc<Calls>,
    (campaign, crew): (&Campaign, &Crew),
    contact: &CampaignContact,
    round: &mut Round,
) -> Result<(), StoreError> {
    let mut context = contact.variables.clone();
    if !contact.name.is_empty() {
        context.insert("name".to_owned(), contact.name.clone().into());
    }
    let errand = Errand {
        surface: Surface::VoxForge,
        to: contact.phone.clone(),
        from: Some(crew.from.clone()),
        campaign: Some(campaign.id.clone()),
        contact: Some(contact.contact.clone()),
        context,
    };
    let asked = call_by_agent(&crew.agent, errand, &crew.key, &rooms.config.agent);
    let caller = Caller { key: crew.key.clone(), ip: None };
    let placed = calls.queue(caller, asked).await;
    let now = clock::now().wall;
    match placed {
        Ok(queued) => {
            let watching = rooms.live.subscribe(queued.view.order.id);
            round.begun.push((now, watching));
        }
        Err(Failure::Refused(refusal)) => match after(&refusal) {
            After::Skip(why) => rooms.db.skip_contact(&campaign.id, contact.position, why).await?,
            After::Wait(seconds) => {
                tracing::debug!(campaign = campaign.id, ?refusal, "a campaign has to wait");
                round.refused = Some((now, seconds));
            }
        },
        Err(Failure::Untaken(Untaken::Elsewhere)) => {}
        Err(Failure::Untaken(Untaken::Shut)) => round.shut = true,
        Err(Failure::Untaken(Untaken::TooOften(until))) => {
            rooms.db.put_off(&campaign.id, contact.position, until).await?;
        }
        Err(failure) => {
            tracing::warn!(campaign = campaign.id, error = %failure, "a call of a campaign could not be placed");
            round.refused = Some((now, None));
        }
    }
    Ok(())
}

/// What follows from a refused call.
enum After {
    /// This contact is never called.
    Skip(&'static str),
    /// Nobody is called for a while, so many seconds at least where it was said.
    Wait(Option<u64>),
}

fn after(refusal: &Refusal) -> After {
    match refusal {
        Refusal::NumberNotAllowed | Refusal::DestinationNotAllowed => After::Skip("not_allowed"),
        Refusal::RateLimited { retry_after_s }
        | Refusal::TooFast { retry_after_s }
        | Refusal::CircuitOpen { retry_after_s } => After::Wait(Some(*retry_after_s)),
        Refusal::MissingKey
        | Refusal::InvalidKey
        | Refusal::Forbidden
        | Refusal::CallerIdNotAllowed
        | Refusal::DayIsSpent
        | Refusal::UnknownCall
        | Refusal::NotAnswered
        | Refusal::GatherInProgress
        | Refusal::QueueFull
        | Refusal::Transferring
        | Refusal::Attended
        | Refusal::NoActiveRecording
        | Refusal::InvalidSound
        | Refusal::SoundNotFound
        | Refusal::TooManyCalls
        | Refusal::NoCredits
        | Refusal::NoTrunks
        | Refusal::TrunksBusy
        | Refusal::OriginationFailed { .. }
        | Refusal::Unavailable
        | Refusal::RequestInProgress
        | Refusal::IdempotencyKeyReused => After::Wait(None),
    }
}

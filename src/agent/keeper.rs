//! Puts agents on their calls: whenever a call that an agent is to talk on begins to be dialled, or comes in, it is
//! attended, whichever surface it is of. Only where a recogniser and a language model are configured; otherwise such
//! calls say their first words and listen for silence, as the engine does by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Manner;
use super::driver::{self, Assignment, Minds};
use crate::control::apology::apologise;
use crate::control::{Caller, Calls, Rooms};
use crate::journal::{Notice, Told};
use crate::model::agent::Agent;
use crate::model::call::{CallView, CommandError};
use crate::model::event::CallEvent;
use crate::model::purpose::Mode;
use crate::store::StoreError;
use crate::store::agents::AgentName;

/// Notices that may wait; far more than ever do.
const NOTICES_MAX: usize = 100_000;
/// So much speech in a row is meant as an interruption (FIELD need 5).
const CONFIRM: Duration = Duration::from_millis(450);
/// The farewell takes so long, and a call that may not last much longer has none.
const FAREWELL_TAKES: Duration = Duration::from_secs(8);
const FAREWELL_FROM: Duration = Duration::from_secs(30);

/// Starts putting agents on calls. Ends when aborted.
pub fn start(rooms: Rooms, calls: Arc<Calls>, minds: Minds) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut told = rooms.journal.feed().listen(None, None, NOTICES_MAX);
            while let Some(told) = told.recv().await {
                if let Some(view) = answered(&told) {
                    tokio::spawn(attend(rooms.clone(), Arc::clone(&calls), minds.clone(), view));
                }
            }
            tracing::error!("agents were not put on their calls in time; calls may have been left silent");
        }
    })
}

/// The call that has just been answered and wants an agent.
fn answered(told: &Told) -> Option<Arc<CallView>> {
    match &told.notice {
        Notice::Fact(view, CallEvent::Answered) => {
            let talks = matches!(view.order.purpose.mode, Mode::Agent | Mode::Conversation);
            talks.then(|| Arc::clone(view))
        }
        Notice::Fact(..) | Notice::Saying { .. } | Notice::Mishap { .. } => None,
    }
}

async fn attend(rooms: Rooms, calls: Arc<Calls>, minds: Minds, view: Arc<CallView>) {
    let order = Arc::clone(&view.order);
    let found = async {
        let agent = match order.purpose.agent {
            Some(row) => {
                rooms.db.agent_ever(&order.tenant, AgentName::Row(row)).await?.map(|(agent, _)| agent)
            }
            None => None,
        };
        Ok::<_, StoreError>((agent, rooms.db.key_of_row(order.key).await?))
    };
    let (agent, key) = match found.await {
        Ok((agent, Some(key))) => (agent, key),
        Ok((_, None)) => return,
        Err(error) => return tracing::error!(call = %order.id, %error, "an agent could not be read"),
    };
    // An application talks in its place.
    if agent.as_ref().is_some_and(|agent| agent.settings.relay_url.is_some()) {
        return;
    }
    let overheard = match rooms.engine.attend(order.id).await {
        Ok(overheard) => overheard,
        Err(CommandError::Attended | CommandError::UnknownCall | CommandError::Transferring) => return,
        Err(error) => {
            tracing::warn!(call = %order.id, %error, "a call could not be attended");
            return apologise(&rooms, order.id, &order.voice_name).await;
        }
    };
    let manner = manner(&rooms, &view, agent.as_ref());
    let language = agent.map_or_else(|| "en-US".to_owned(), |agent| agent.settings.language);
    let caller = Caller { key, ip: None };
    driver::run(Assignment { rooms, calls, minds, caller, order, overheard, manner, language }).await;
}

/// How an agent behaves on this call.
pub(crate) fn manner(rooms: &Rooms, view: &CallView, agent: Option<&Agent>) -> Manner {
    let settings = &rooms.config.agent;
    let brief = view.order.purpose.brief.as_ref();
    let own = agent.map(|agent| &agent.settings);
    let longest = Duration::from_millis(view.order.max_duration_ms.into());
    Manner {
        prompt: own
            .map(|own| own.system_prompt.clone())
            .or_else(|| brief.map(|brief| brief.prompt.clone()))
            .unwrap_or_default(),
        first_message: own
            .and_then(|own| own.first_message.clone())
            .or_else(|| brief.and_then(|brief| brief.first_message.clone())),
        fallback: settings.fallback_text.clone(),
        nudge: settings.nudge_text.clone(),
        farewell: settings.farewell_text.clone(),
        silence: Duration::from_secs(settings.silence_s.into()),
        silences: settings.silence_repeats.max(1),
        confirm: CONFIRM,
        longest: longest.checked_sub(FAREWELL_TAKES).filter(|_| longest >= FAREWELL_FROM),
        voicemail: own.map(|own| own.voicemail.clone()).unwrap_or_default(),
        tools: own.map(|own| own.tools.clone()).unwrap_or_default(),
    }
}

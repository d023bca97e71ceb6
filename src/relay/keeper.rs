//! Connects agents' applications: whenever a call of an agent with a `relay_url` is answered, whichever surface placed
//! it, the application is opened and attends it (CONTRACT 1.2 `/relay/ws` use c).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::attend::{self, Attendance};
use super::socket;
use crate::control::Rooms;
use crate::journal::{Notice, Told};
use crate::model::agent::Agent;
use crate::model::call::{CallView, CommandError};
use crate::model::event::CallEvent;
use crate::store::agents::AgentName;

/// Notices that may wait; far more than ever do.
const NOTICES_MAX: usize = 100_000;
/// An application that cannot be reached is asked once more after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Starts connecting. Ends when aborted.
pub fn start(rooms: Rooms, client: reqwest::Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut told = rooms.journal.feed().listen(None, None, NOTICES_MAX);
            while let Some(told) = told.recv().await {
                if let Some(view) = answered(&told) {
                    tokio::spawn(connect(rooms.clone(), client.clone(), view));
                }
            }
            tracing::error!("relay applications were not connected in time; calls may have been left silent");
        }
    })
}

/// The call of an agent's that has just been answered.
fn answered(told: &Told) -> Option<Arc<CallView>> {
    match &told.notice {
        Notice::Fact(view, CallEvent::Answered) if view.order.purpose.agent.is_some() => {
            Some(Arc::clone(view))
        }
        Notice::Fact(..) | Notice::Saying { .. } | Notice::Mishap { .. } => None,
    }
}

async fn connect(rooms: Rooms, client: reqwest::Client, view: Arc<CallView>) {
    let order = &view.order;
    let Some(row) = order.purpose.agent else { return };
    let agent = match rooms.db.agent_ever(&order.tenant, AgentName::Row(row)).await {
        Ok(Some((agent, _))) => agent,
        Ok(None) => return,
        Err(error) => return tracing::error!(call = %order.id, %error, "an agent could not be read"),
    };
    let Agent { settings, .. } = agent;
    let Some(url) = settings.relay_url else { return };
    let overheard = match rooms.engine.attend(order.id).await {
        Ok(overheard) => overheard,
        // Another application was quicker, or the call is over or not on a line of ours.
        Err(CommandError::Attended | CommandError::UnknownCall) => return,
        Err(error) => return tracing::warn!(call = %order.id, %error, "a call could not be attended"),
    };
    tracing::info!(call = %order.id, "no speech recogniser is configured: the relay application gets keys and no prompts");
    let mut opened = socket::open(&client, &url, &rooms.config).await;
    if opened.is_err() {
        tokio::time::sleep(AGAIN_AFTER).await;
        opened = socket::open(&client, &url, &rooms.config).await;
    }
    match opened {
        Ok(socket) => {
            let keeps = settings.relay_keeps;
            let until = Box::pin(std::future::pending());
            let attendance = Attendance { rooms, client, view, overheard, keeps, until };
            attend::run(attendance, socket).await;
        }
        Err(error) => {
            tracing::warn!(call = %order.id, %error, "the relay application cannot be reached");
            let (tenant, call, at) = (order.tenant.clone(), order.id, crate::clock::now().wall);
            let message = "The relay application cannot be reached".to_owned();
            let notice = Notice::Mishap { code: "relay_unreachable", message };
            rooms.journal.feed().tell(Told { tenant, call, at, notice });
            attend::apologise(&rooms, order.id, &order.voice_name).await;
        }
    }
}

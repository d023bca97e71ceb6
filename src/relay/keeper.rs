//! Connects agents' applications: whenever a call of an agent with a `relay_url` is answered, whichever surface placed
//! it, the application is opened and attends it (CONTRACT 1.2 `/relay/ws` use c).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use url::Url;

use super::attend::{self, Attendance};
use super::line::Line;
use super::options::Options;
use super::park::{Returned, Whence};
use super::{Desk, socket};
use crate::control::apology::apologise;
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
pub fn start(desk: Desk) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut told = desk.rooms.journal.feed().listen(None, None, NOTICES_MAX);
            while let Some(told) = told.recv().await {
                if let Some(view) = answered(&told) {
                    tokio::spawn(connect(desk.clone(), view));
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

async fn connect(desk: Desk, view: Arc<CallView>) {
    let order = &view.order;
    let Some(row) = order.purpose.agent else { return };
    let agent = match desk.rooms.db.agent_ever(&order.tenant, AgentName::Row(row)).await {
        Ok(Some((agent, _))) => agent,
        Ok(None) => return,
        Err(error) => return tracing::error!(call = %order.id, %error, "an agent could not be read"),
    };
    let Agent { settings, .. } = agent;
    let Some(url) = settings.relay_url else { return };
    let overheard = match desk.rooms.engine.attend(order.id).await {
        Ok(overheard) => overheard,
        // Another application was quicker, or the call is over, put through, or not on a line of ours.
        Err(CommandError::Attended | CommandError::UnknownCall | CommandError::Transferring) => return,
        Err(error) => {
            tracing::warn!(call = %order.id, %error, "a call could not be attended");
            return apologise(&desk.rooms, order.id, &order.voice_name).await;
        }
    };
    let options = options(&url);
    let mut opened = socket::open(&desk.means.client, &url, &desk.rooms.config).await;
    if opened.is_err() {
        tokio::time::sleep(AGAIN_AFTER).await;
        opened = socket::open(&desk.means.client, &url, &desk.rooms.config).await;
    }
    match opened {
        Ok(socket) => {
            let (keeps, language) = (settings.relay_keeps, settings.language);
            let until = Box::pin(std::future::pending());
            let whence = Whence::Goes { url, options: options.clone() };
            let attendance = Attendance { desk, view, overheard, keeps, language, whence };
            attend::run(attendance, Returned { socket, until, options }).await;
        }
        Err(error) => {
            tracing::warn!(call = %order.id, %error, "the relay application cannot be reached");
            let line = Line::new(desk, &view);
            line.mishap("relay_unreachable", "The relay application cannot be reached");
            drop(overheard);
            line.apologise().await;
        }
    }
}

/// How the application wants its session held. One that cannot be understood has it as usual.
fn options(url: &str) -> Options {
    let query = Url::parse(url).ok();
    let pairs: Vec<(String, String)> =
        query.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default();
    let read = Options::read(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    read.unwrap_or_else(|name| {
        tracing::warn!(name, "a parameter of a relay_url cannot be understood; its session is held as usual");
        Options::default()
    })
}

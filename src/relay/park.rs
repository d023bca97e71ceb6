//! Calls whose application went away without a word: the caller hears music for a while, and the application may come
//! back, either by itself or because we go to it again (FIELD 3.1.3). Owns who may take such a call, and for how long.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::options::Options;
use super::socket::{self, Socket};
use super::{Desk, Until};
use crate::model::CallId;

/// An application that came to us may come again for so long.
const WAIT: Duration = Duration::from_secs(8);
/// One that we went to is gone to again after each of these.
const AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];

/// An application that came back.
pub struct Returned {
    /// Its connection.
    pub socket: Socket,
    /// It may talk until then.
    pub until: Until,
    /// How it wants the session held.
    pub options: Options,
}

/// The parked calls. Clones are the same.
#[derive(Clone, Default)]
pub struct Parking(Arc<DashMap<CallId, oneshot::Sender<Returned>>>);

/// A call's place, until it is dropped.
struct Place {
    parking: Parking,
    call: CallId,
    returned: oneshot::Receiver<Returned>,
}

impl Parking {
    /// Whoever sends by what is given here has the call.
    pub fn claim(&self, call: CallId) -> Option<oneshot::Sender<Returned>> {
        self.0.remove(&call).map(|(_, place)| place)
    }

    fn place(&self, call: CallId) -> Place {
        let (place, returned) = oneshot::channel();
        self.0.insert(call, place);
        Place { parking: self.clone(), call, returned }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.parking.0.remove(&self.call);
    }
}

/// Where an application is.
pub enum Whence {
    /// It comes to us.
    Comes,
    /// We go to it.
    Goes {
        /// Its address.
        url: String,
        /// How its session is held.
        options: Options,
    },
}

/// A call that waits for its application.
pub(super) struct Waiting<'a> {
    whence: &'a Whence,
    place: Option<Place>,
}

impl Whence {
    /// From here on the application may come back.
    pub(super) fn wait(&self, desk: &Desk, call: CallId) -> Waiting<'_> {
        let place = match self {
            Self::Comes => Some(desk.parking.place(call)),
            Self::Goes { .. } => None,
        };
        Waiting { whence: self, place }
    }
}

impl Waiting<'_> {
    /// Waits for the application; `None` when that is waited for no longer.
    pub(super) async fn back(mut self, desk: &Desk, call: CallId) -> Option<Returned> {
        if let Some(place) = &mut self.place {
            return timeout(WAIT, &mut place.returned).await.ok()?.ok();
        }
        let Whence::Goes { url, options } = self.whence else { return None };
        for pause in AGAIN_AFTER {
            sleep(pause).await;
            match socket::open(&desk.means.client, url, &desk.rooms.config).await {
                Ok(socket) => {
                    let until = Box::pin(std::future::pending());
                    return Some(Returned { socket, until, options: options.clone() });
                }
                Err(error) => tracing::debug!(%call, %error, "the relay application is not back"),
            }
        }
        None
    }
}

//! The live feed: what happens to calls, told to whoever listens at the moment it is on disk, besides what is told and
//! never kept (half a sentence, a mishap). Owns the listeners and their bounded queues; never waits for one, and drops
//! who falls behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::model::call::CallView;
use crate::model::event::{CallEvent, Speaker};
use crate::model::{CallId, Timestamp};

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Something happened; with what is true of the call after it.
    Fact(Arc<CallView>, CallEvent),
    /// So far somebody has said this; the whole follows as a fact.
    Saying {
        /// Who.
        by: Speaker,
        /// The words so far.
        text: String,
        /// Which turn of the call.
        turn: u32,
    },
    /// Something went wrong on the call.
    Mishap {
        /// A word for programs.
        code: &'static str,
        /// In words.
        message: String,
    },
}

/// A notice with its call and its moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whose call.
    pub tenant: String,
    /// The call.
    pub call: CallId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub notice: Notice,
}

#[derive(Debug)]
struct Listener {
    tenant: Option<String>,
    call: Option<CallId>,
    queue: mpsc::Sender<Arc<Told>>,
}

#[derive(Debug, Default)]
struct Shared {
    listeners: Mutex<BTreeMap<u64, Listener>>,
    /// How many there are: most of the time nobody, and then nothing is done.
    count: AtomicUsize,
    next: AtomicUsize,
}

/// Handle on the feed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// Listens to the calls of a tenant (`None`: of all), or to one of them. The queue holds `frames`; it ends where it
    /// is full when something more is told.
    pub fn listen(
        &self,
        tenant: Option<&str>,
        call: Option<CallId>,
        frames: usize,
    ) -> mpsc::Receiver<Arc<Told>> {
        let (queue, told) = mpsc::channel(frames.max(1));
        let name = self.shared.next.fetch_add(1, Ordering::Relaxed) as u64;
        let mut listeners = self.listeners();
        listeners.insert(name, Listener { tenant: tenant.map(str::to_owned), call, queue });
        self.shared.count.store(listeners.len(), Ordering::Relaxed);
        told
    }

    /// Tells everybody whom it concerns. Never blocks.
    pub fn tell(&self, told: Told) {
        if self.shared.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let told = Arc::new(told);
        let mut listeners = self.listeners();
        listeners.retain(|_, listener| {
            if listener.tenant.as_ref().is_some_and(|tenant| *tenant != told.tenant)
                || listener.call.is_some_and(|call| call != told.call)
            {
                return !listener.queue.is_closed();
            }
            listener.queue.try_send(Arc::clone(&told)).is_ok()
        });
        self.shared.count.store(listeners.len(), Ordering::Relaxed);
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<u64, Listener>> {
        // Nothing panics while it is held; if something did, the listeners are still whole.
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tenant: &str, call: u128) -> Told {
        let notice = Notice::Mishap { code: "x", message: String::new() };
        Told { tenant: tenant.into(), call: CallId(call), at: Timestamp(0), notice }
    }

    #[test]
    fn everybody_hears_what_concerns_them() {
        let feed = Feed::default();
        feed.tell(told("a", 1));
        let mut of_a = feed.listen(Some("a"), None, 10);
        let mut of_two = feed.listen(Some("a"), Some(CallId(2)), 10);
        let mut of_all = feed.listen(None, None, 10);
        for (tenant, call) in [("a", 1), ("a", 2), ("b", 3)] {
            feed.tell(told(tenant, call));
        }
        let calls = |queue: &mut mpsc::Receiver<Arc<Told>>| {
            std::iter::from_fn(|| queue.try_recv().ok()).map(|told| told.call.0).collect::<Vec<_>>()
        };
        assert_eq!(calls(&mut of_a), [1, 2]);
        assert_eq!(calls(&mut of_two), [2]);
        assert_eq!(calls(&mut of_all), [1, 2, 3]);
    }

    #[test]
    fn who_falls_behind_is_dropped_and_nobody_else() {
        let feed = Feed::default();
        let mut slow = feed.listen(None, None, 2);
        let mut quick = feed.listen(None, None, 10);
        for call in 0..4 {
            feed.tell(told("a", call));
        }
        assert_eq!(slow.try_recv().map(|told| told.call.0), Ok(0));
        assert_eq!(slow.try_recv().map(|told| told.call.0), Ok(1));
        assert!(slow.is_closed(), "the queue has ended");
        assert_eq!(quick.len(), 4);
        drop(quick.try_recv());
        drop(quick);
        feed.tell(told("a", 9));
        assert_eq!(feed.shared.count.load(Ordering::Relaxed), 0);
    }
}

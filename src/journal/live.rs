//! The live views: what is true of each call that is up, now. Written by the journal alone (and by
//! [`Live::admit`] when a call is placed), read by everybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;

use crate::model::call::{CallOrder, CallState, CallView};
use crate::model::event::{CallEvent, Stamped};
use crate::model::{CallId, Timestamp};

/// Handle on the live views. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: DashMap<CallId, watch::Sender<Arc<CallView>>>,
    by_kaphila: DashMap<String, CallId>,
    /// Calls that are up, by key and by tenant, in the order of their placing: who lists his own calls does not look at
    /// those of all others. Nobody who holds an entry here waits for one of `calls`.
    by_key: DashMap<i64, BTreeSet<(Timestamp, CallId)>>,
    by_tenant: DashMap<String, BTreeSet<(Timestamp, CallId)>>,
    up: AtomicUsize,
}

impl Shared {
    fn is_up(&self, order: &CallOrder) {
        let at = (order.created_at, order.id);
        self.by_key.entry(order.key).or_default().insert(at);
        self.by_tenant.entry(order.tenant.clone()).or_default().insert(at);
        self.up.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self, order: &CallOrder) {
        let at = (order.created_at, order.id);
        if let Some(mut calls) = self.by_key.get_mut(&order.key) {
            calls.remove(&at);
        }
        self.by_key.remove_if(&order.key, |_, calls| calls.is_empty());
        if let Some(mut calls) = self.by_tenant.get_mut(&order.tenant) {
            calls.remove(&at);
        }
        self.by_tenant.remove_if(&order.tenant, |_, calls| calls.is_empty());
        self.up.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of folding an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Folded {
    /// The view after it.
    Now(Arc<CallView>),
    /// The call is not in the map (any more).
    NotLive,
    /// A second end: the first is final, this one is nothing.
    Nothing,
}

impl Live {
    /// Shows a call just placed. The same call again changes nothing.
    pub fn admit(&self, view: CallView) {
        let id = view.order.id;
        let ended = view.state == CallState::Ended;
        self.shared.by_kaphila.insert(view.order.kaphila_id.clone(), id);
        let entry = self.shared.calls.entry(id);
        if let dashmap::Entry::Vacant(vacant) = entry {
            let order = Arc::clone(&view.order);
            let _held = vacant.insert(watch::Sender::new(Arc::new(view)));
            if !ended {
                self.shared.is_up(&order);
            }
        }
    }

    /// The call's view. An ended call is still found until its end is on disk, at most for a moment.
    pub fn get(&self, id: CallId) -> Option<Arc<CallView>> {
        self.shared.calls.get(&id).map(|entry| entry.borrow().clone())
    }

    /// The same by Kaphila's form of the id.
    pub fn by_kaphila(&self, kaphila_id: &str) -> Option<Arc<CallView>> {
        let id = *self.shared.by_kaphila.get(kaphila_id)?;
        self.get(id)
    }

    /// The calls of a key that have not ended, oldest first.
    pub fn of_key(&self, key: i64) -> Vec<Arc<CallView>> {
        let calls = self.shared.by_key.get(&key).map(|calls| calls.clone());
        self.still_up(calls)
    }

    /// The calls of a tenant that have not ended, oldest first.
    pub fn of_tenant(&self, tenant: &str) -> Vec<Arc<CallView>> {
        let calls = self.shared.by_tenant.get(tenant).map(|calls| calls.clone());
        self.still_up(calls)
    }

    fn still_up(&self, calls: Option<BTreeSet<(Timestamp, CallId)>>) -> Vec<Arc<CallView>> {
        let views = calls.into_iter().flatten().filter_map(|(_, id)| self.get(id));
        views.filter(|view| view.state != CallState::Ended).collect()
    }

    /// Every call that has not ended, oldest first.
    pub fn all(&self) -> Vec<Arc<CallView>> {
        let views = self.shared.calls.iter().map(|entry| entry.borrow().clone());
        let mut up: Vec<_> = views.filter(|view| view.state != CallState::Ended).collect();
        up.sort_by_key(|view| (view.order.created_at, view.order.id));
        up
    }

    /// Calls that have not ended.
    pub fn count(&self) -> usize {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Follows a call. The receiver stays readable after the call has left the map.
    pub fn subscribe(&self, id: CallId) -> Option<watch::Receiver<Arc<CallView>>> {
        self.shared.calls.get(&id).map(|entry| entry.subscribe())
    }

    /// Takes an event into the view, shows it and hands it on. For the journal. Nobody else folds an event of the
    /// call before `then` is done, so events are written in the order in which they were folded, whoever records them.
    pub(super) fn fold(&self, stamped: Stamped, then: impl FnOnce(Stamped, Folded)) {
        let Some(entry) = self.shared.calls.get_mut(&stamped.call) else {
            return then(stamped, Folded::NotLive);
        };
        let before = entry.borrow().clone();
        if before.end.is_some() && matches!(stamped.event, CallEvent::Ended { .. }) {
            return then(stamped, Folded::Nothing);
        }
        let mut view = (*before).clone();
        view.apply(stamped.at, &stamped.event);
        if before.state != CallState::Ended && view.state == CallState::Ended {
            self.shared.is_over(&view.order);
        }
        let view = Arc::new(view);
        entry.send_replace(view.clone());
        then(stamped, Folded::Now(view));
    }

    /// Drops a call whose end is on disk. For the journal.
    pub(super) fn forget(&self, id: CallId) {
        if let Some((_, entry)) = self.shared.calls.remove(&id) {
            self.shared.by_kaphila.remove(&entry.borrow().order.kaphila_id);
        }
    }
}

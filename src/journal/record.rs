//! One group of events, written: event log, call rows, recordings, money and promised webhooks in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::subscribers;
use crate::model::CallId;
use crate::model::call::CallView;
use crate::model::event::{CallEvent, Stamped};
use crate::store::calls::outcome;
use crate::store::endpoints::Subscribed;
use crate::store::outbox::NewDelivery;
use crate::store::recordings::{RecordingEnd, RecordingState};
use crate::store::rows::event_data;
use crate::store::{Db, StoreError, Tx};
use crate::webhook::Format;

/// What a committed group leaves to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Calls whose end is on disk now.
    pub ended: Vec<CallId>,
    /// Webhooks promised.
    pub deliveries: usize,
}

/// Writes events with all that follows from them.
pub struct Recorder {
    db: Db,
    formats: Vec<&'static dyn Format>,
    /// The form of endpoints that tenants subscribe.
    subscribed: Option<&'static dyn Format>,
    /// Writes of calls that this process has, and leaves those alone that were taken from it.
    own: bool,
}

/// The views of one group as they grow, and what must be saved of them at its end.
#[derive(Default)]
struct Group {
    views: BTreeMap<CallId, Arc<CallView>>,
    unsaved: BTreeSet<CallId>,
    written: Written,
    subscribed: Subscribed,
}

impl Recorder {
    /// `formats` holds one entry for each surface that sends webhooks.
    pub fn new(db: Db, formats: Vec<&'static dyn Format>) -> Self {
        let subscribed = formats.iter().find(|format| format.has_endpoints()).copied();
        Self { db, formats, subscribed, own: true }
    }

    /// For calls that no process has any more.
    pub(super) fn of_nobodys_calls(db: Db, formats: Vec<&'static dyn Format>) -> Self {
        Self { own: false, ..Self::new(db, formats) }
    }

    /// Writes the events in order in one transaction. Each comes with its call's view after it, or without where
    /// the call is no longer live; that view is then the saved one with the event applied.
    pub async fn write(&self, batch: &[(Stamped, Option<Arc<CallView>>)]) -> Result<Written, StoreError> {
        // Asked before anything is locked: a second connection is never waited for with locks held.
        let subscribed = match self.subscribed {
            Some(_) => self.db.subscribed().await?,
            None => Subscribed::default(),
        };
        let written = |mut tx| async move {
            let written = self.write_in(&mut tx, subscribed, batch).await;
            (tx, written)
        };
        self.db.write(written).await
    }

    async fn write_in(
        &self,
        tx: &mut Tx,
        subscribed: Subscribed,
        batch: &[(Stamped, Option<Arc<CallView>>)],
    ) -> Result<Written, StoreError> {
        let mut group = Group { subscribed, ..Group::default() };
        let taken = self.lock(tx, batch).await?;
        for (stamped, view) in batch {
            if taken.contains(&stamped.call) {
                tracing::warn!(call = %stamped.call, event = stamped.event.name(), "another process has closed it");
                if matches!(stamped.event, CallEvent::Ended { .. }) {
                    group.written.ended.push(stamped.call);
                }
                continue;
            }
            let view = match view {
                Some(view) => view.clone(),
                None => match Self::saved(tx, &group, stamped).await {
                    Ok(Some(view)) => view,
                    Ok(None) => {
                        tracing::error!(call = %stamped.call, event = stamped.event.name(), "not an event of a call");
                        continue;
                    }
                    // No repetition heals it, and all other calls wait behind it.
                    Err(error @ StoreError::Unreadable(_)) => {
                        tracing::error!(call = %stamped.call, event = stamped.event.name(), %error, "event dropped");
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            self.write_one(tx, &mut group, stamped, view).await?;
        }
        for call in &group.unsaved {
            if let Some(view) = group.views.get(call)
                && !tx.save_call(view).await?
            {
                tracing::error!(call = %call, "event of a call that has no row");
            }
        }
        Ok(group.written)
    }

    /// Keeps other processes out of all that the group will change, in the order that everybody keeps to. The calls
    /// that were taken from this process.
    async fn lock(
        &self,
        tx: &mut Tx,
        batch: &[(Stamped, Option<Arc<CallView>>)],
    ) -> Result<BTreeSet<CallId>, StoreError> {
        let moves_money = |event: &CallEvent| matches!(event, CallEvent::Answered | CallEvent::Ended { .. });
        let paying = batch.iter().filter(|(stamped, _)| moves_money(&stamped.event));
        let keys: BTreeSet<i64> = paying.filter_map(|(_, view)| Some(view.as_ref()?.order.key)).collect();
        tx.lock_keys(keys).await?;
        let taken = tx.taken_away(batch.iter().map(|(stamped, _)| stamped.call).collect()).await?;
        Ok(if self.own { taken } else { BTreeSet::new() })
    }

    /// The view of a call that has left the live map, after the event. `None` if there is no such call, and for a
    /// second end.
    async fn saved(
        tx: &mut Tx,
        group: &Group,
        stamped: &Stamped,
    ) -> Result<Option<Arc<CallView>>, StoreError> {
        let before = match group.views.get(&stamped.call) {
            Some(view) => Some((**view).clone()),
            None => tx.call(stamped.call).await?,
        };
        let second_end =
            |view: &CallView| view.end.is_some() && matches!(stamped.event, CallEvent::Ended { .. });
        Ok(before.filter(|view| !second_end(view)).map(|mut view| {
            view.apply(stamped.at, &stamped.event);
            Arc::new(view)
        }))
    }

    async fn write_one(
        &self,
        tx: &mut Tx,
        group: &mut Group,
        stamped: &Stamped,
        view: Arc<CallView>,
    ) -> Result<(), StoreError> {
        if matches!(stamped.event, CallEvent::Ended { .. }) {
            group.written.ended.push(stamped.call);
        }
        if !tx.insert_event(stamped, view.events, &event_data(&stamped.event)).await? {
            return Ok(());
        }
        keep_recording(tx, stamped, &view).await?;
        move_money(tx, stamped, &view).await?;
        if matches!(stamped.event, CallEvent::Ended { .. }) {
            tx.finish_contact(&view, stamped.at).await?;
        }
        if let CallEvent::Digit { digit, .. } = stamped.event {
            tx.opt_out(&view, digit, stamped.at).await?;
        }
        group.written.deliveries += self.promise(tx, stamped, &view).await?;
        if let Some(format) = self.subscribed {
            let endpoints = group.subscribed.of(&view.order.tenant);
            let promised = subscribers::promise(endpoints, tx, format, stamped, &view).await?;
            group.written.deliveries += promised;
        }
        group.unsaved.insert(stamped.call);
        group.views.insert(stamped.call, view);
        Ok(())
    }

    /// Enqueues the webhook of the surface that the call came in by.
    async fn promise(&self, tx: &mut Tx, stamped: &Stamped, view: &CallView) -> Result<usize, StoreError> {
        let order = &view.order;
        let Some(url) = &order.webhook_url else { return Ok(0) };
        if matches!(stamped.event, CallEvent::Ended { .. }) {
            tx.expire_live(order.id, stamped.at).await?;
        }
        let Some(format) = self.formats.iter().find(|format| format.name() == order.surface.as_str()) else {
            return Ok(0);
        };
        // Of most events this surface is silent.
        if format.render(stamped, view, 1).is_empty() {
            return Ok(0);
        }
        let sequence = tx.bodies(order.id, url).await? + 1;
        let bodies = format.render(stamped, view, sequence);
        let promised = bodies.len();
        for rendered in bodies {
            tx.enqueue(&NewDelivery {
                call: order.id,
                key: order.key,
                dialect: format.name(),
                event: rendered.event,
                terminal: format.terminal(rendered.event),
                url: url.clone(),
                body: rendered.body,
                at: stamped.at,
            })
            .await?;
        }
        Ok(promised)
    }
}

/// One credit for an answered call, none for any other (CONTRACT 1.1): taken at the answer, set free at an end
/// that came without one.
async fn move_money(tx: &mut Tx, stamped: &Stamped, view: &CallView) -> Result<(), StoreError> {
    match &stamped.event {
        CallEvent::Answered => tx.capture_hold(stamped.call).await,
        CallEvent::Ended { .. } => {
            tx.release_hold(stamped.call).await?;
            tx.finish_counters(view.order.key, outcome(view) == "completed").await
        }
        CallEvent::Queued
        | CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
        | CallEvent::Ringing
        | CallEvent::Screened(_)
        | CallEvent::RecordingStarted { .. }
        | CallEvent::RecordingStopped { .. }
        | CallEvent::RecordingPaused { .. }
        | CallEvent::RecordingResumed { .. }
        | CallEvent::RecordingCompleted { .. }
        | CallEvent::RecordingFailed { .. }
        | CallEvent::Digit { .. }
        | CallEvent::GatherStarted { .. }
        | CallEvent::GatherProgress { .. }
        | CallEvent::GatherComplete { .. }
        | CallEvent::GatherTimeout { .. }
        | CallEvent::Played { .. }
        | CallEvent::Said { .. }
        | CallEvent::TurnTimed(_)
        | CallEvent::ContextChanged { .. }
        | CallEvent::HandedOff { .. }
        | CallEvent::TransferStarted { .. }
        | CallEvent::TransferFailed { .. }
        | CallEvent::Unheard { .. }
        | CallEvent::Transferred => Ok(()),
    }
}

async fn keep_recording(tx: &mut Tx, stamped: &Stamped, view: &CallView) -> Result<(), StoreError> {
    let (recording, state, end) = match &stamped.event {
        CallEvent::RecordingStarted { recording } => {
            (recording, RecordingState::Active, RecordingEnd::default())
        }
        CallEvent::RecordingStopped { recording } => {
            (recording, RecordingState::Finalising, RecordingEnd::default())
        }
        CallEvent::RecordingCompleted { recording, size, sha256 } => {
            let end = RecordingEnd { size: Some(size), sha256: Some(*sha256), reason: None };
            (recording, RecordingState::Done, end)
        }
        CallEvent::RecordingFailed { recording, size, reason } => {
            let end = RecordingEnd { size: Some(size), sha256: None, reason: Some(reason) };
            (recording, RecordingState::Failed, end)
        }
        CallEvent::Queued
        | CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
        | CallEvent::Ringing
        | CallEvent::Answered
        | CallEvent::Screened(_)
        | CallEvent::RecordingPaused { .. }
        | CallEvent::RecordingResumed { .. }
        | CallEvent::Digit { .. }
        | CallEvent::GatherStarted { .. }
        | CallEvent::GatherProgress { .. }
        | CallEvent::GatherComplete { .. }
        | CallEvent::GatherTimeout { .. }
        | CallEvent::Played { .. }
        | CallEvent::Said { .. }
        | CallEvent::TurnTimed(_)
        | CallEvent::ContextChanged { .. }
        | CallEvent::HandedOff { .. }
        | CallEvent::TransferStarted { .. }
        | CallEvent::TransferFailed { .. }
        | CallEvent::Unheard { .. }
        | CallEvent::Transferred
        | CallEvent::Ended { .. } => return Ok(()),
    };
    tx.upsert_recording(&view.order, recording, state, &end, stamped.at).await
}

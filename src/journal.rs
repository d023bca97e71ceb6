//! The journal: everything that happened goes through here once. Each event is folded into the live view at once
//! and then written, together with the money it moves and the webhooks it promises, in one transaction. Events
//! that wait while a commit is under way share the next one.
//!
//! This room never decides what happens to a call, never sends anything and never blocks the engine: while the
//! database fails, events wait in order and are tried again. What customers are told is rendered by the dialects
//! ([`Format`]).

mod analysed;
mod feed;
mod live;
mod record;
mod recover;
mod subscribers;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock;
use crate::model::call::CallView;
use crate::model::event::Stamped;
use crate::store::Db;
use crate::webhook::Format;

pub use analysed::keep_analysis;
pub use feed::{Feed, Notice, Told};
pub use live::{Folded, Live};
pub use record::Recorder;
pub use recover::{RecoverReport, recover, recover_others};
pub use tally::{Facts, Tally};

/// Events in one transaction at most, so that a long queue still becomes visible step by step.
const BATCH_MAX: usize = 512;

/// The first pause after a failed commit; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// An event on its way to the database, with the view as it was after it.
struct Entry {
    stamped: Stamped,
    /// `None`: the call had left the live map, its view is read from the database.
    view: Option<Arc<CallView>>,
}

enum Message {
    Event(Entry),
    Flush(oneshot::Sender<()>),
}

/// What the engine holds of the journal. Cheap to clone; the journal ends when the last one is gone.
#[derive(Clone, Debug)]
pub struct JournalHandle {
    live: Live,
    entries: mpsc::UnboundedSender<Message>,
    lag: Arc<AtomicUsize>,
    error: watch::Receiver<Option<String>>,
    feed: Feed,
    tally: Arc<Tally>,
}

impl JournalHandle {
    /// Takes an event in: the live view shows it when this returns, the database soon after. Never blocks; the
    /// queue is as long as [`JournalHandle::lag`] says, and admission refuses new calls above a limit of it.
    pub fn record(&self, stamped: Stamped) {
        self.live.fold(stamped, |stamped, folded| self.enqueue(stamped, folded));
    }

    /// Queues an event for the database, while its call admits no other.
    fn enqueue(&self, stamped: Stamped, folded: Folded) {
        let view = match folded {
            Folded::Now(view) => Some(view),
            Folded::NotLive => None,
            Folded::Nothing => {
                tracing::error!(call = %stamped.call, "a call ended twice; the first end stands");
                return;
            }
        };
        self.lag.fetch_add(1, Ordering::Relaxed);
        if self.entries.send(Message::Event(Entry { stamped, view })).is_err() {
            self.lag.fetch_sub(1, Ordering::Relaxed);
            tracing::error!("an event came after the journal had ended");
        }
    }

    /// Where what happens is told to whoever listens, once it is committed.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What has been committed so far, counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Events recorded and not yet committed.
    pub fn lag(&self) -> usize {
        self.lag.load(Ordering::Relaxed)
    }

    /// Returns when everything recorded before is committed.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.entries.send(Message::Flush(done)).is_ok() {
            // The journal ends only after its queue is empty, so an error here means that all is written.
            let _ = wait.await;
        }
    }

    /// Why the last try to commit failed; `None` while all is well.
    pub fn last_error(&self) -> Option<String> {
        self.error.borrow().clone()
    }
}

/// Starts the journal.
pub struct Journal;

impl Journal {
    /// Starts folding and writing. `wake` is told after each commit that promised webhooks. The task ends when all
    /// handles are dropped and everything is written.
    pub fn start(
        db: Db,
        live: Live,
        formats: Vec<&'static dyn Format>,
        wake: Arc<Notify>,
    ) -> (JournalHandle, JoinHandle<()>) {
        let (sender, entries) = mpsc::unbounded_channel();
        let (error_told, error) = watch::channel(None);
        let lag = Arc::new(AtomicUsize::new(0));
        let committer = Committer {
            recorder: Recorder::new(db, formats),
            live: live.clone(),
            wake,
            lag: lag.clone(),
            error: error_told,
            feed: Feed::default(),
            tally: Arc::default(),
        };
        let (feed, tally) = (committer.feed.clone(), Arc::clone(&committer.tally));
        let task = tokio::spawn(committer.run(entries));
        (JournalHandle { live, entries: sender, lag, error, feed, tally }, task)
    }
}

/// Writes groups of events, in order, until each is committed.
struct Committer {
    recorder: Recorder,
    live: Live,
    wake: Arc<Notify>,
    lag: Arc<AtomicUsize>,
    error: watch::Sender<Option<String>>,
    feed: Feed,
    tally: Arc<Tally>,
}

impl Committer {
    async fn run(mut self, mut entries: mpsc::UnboundedReceiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH_MAX);
        while entries.recv_many(&mut messages, BATCH_MAX).await > 0 {
            let mut batch = Vec::with_capacity(messages.len());
            let mut waiting = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Event(entry) => batch.push((entry.stamped, entry.view)),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            self.commit(&batch).await;
            for done in waiting {
                // Nobody waits any more: fine.
                let _ = done.send(());
            }
        }
    }

    /// Tries until the batch is committed. A try that fails leaves no trace, and one whose answer was lost is
    /// recognised by the event log.
    async fn commit(&mut self, batch: &[(Stamped, Option<Arc<CallView>>)]) {
        if batch.is_empty() {
            return;
        }
        let mut pause = RETRY_MIN;
        let mut begun = clock::now().mono;
        let written = loop {
            match self.recorder.write(batch).await {
                Ok(written) => break written,
                Err(error) => {
                    tracing::error!(%error, events = batch.len(), "the journal cannot write; it tries again");
                    self.error.send_replace(Some(error.to_string()));
                    self.tally.count_failure();
                    tokio::time::sleep(pause).await;
                    begun = clock::now().mono;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        };
        self.error.send_replace(None);
        let took = clock::now().mono.duration_since(begun);
        self.tally.count(took, batch.iter().map(|(stamped, view)| (stamped, view.as_deref())));
        self.lag.fetch_sub(batch.len(), Ordering::Relaxed);
        for call in &written.ended {
            self.live.forget(*call);
        }
        for (stamped, view) in batch {
            if let Some(view) = view {
                let Stamped { call, at, event } = stamped.clone();
                let (tenant, notice) = (view.order.tenant.clone(), Notice::Fact(Arc::clone(view), event));
                self.feed.tell(Told { tenant, call, at, notice });
            }
        }
        if written.deliveries > 0 {
            self.wake.notify_one();
        }
    }
}

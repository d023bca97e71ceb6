//! The worker: the thin shell that claims due rows, sends them and writes down what `schedule` and `circuit` decide.
//! One task claims and settles, one short task for each attempt talks to the receiver. What is under way is known in
//! memory alone: after a crash those rows are simply due again, under the same `webhook-id`.
//!
//! A due row that cannot go, because its host has all the attempts it may have or its receiver's circuit is open, is
//! set aside in a queue of that name, and let back as there is room. So what is claimed is always what can go: one
//! slow or dead receiver fills no claim, however much waits for it. Redeliveries come after first deliveries and leave
//! half of each host's share to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::attempt::{Attempt, Made, client};
use super::circuit::{self, Circuits, Gate};
use super::schedule::{After, Patience, UnderWay, outlived};
use super::{Figures, Format, Outcome, purge};
use crate::clock;
use crate::config::Webhooks;
use crate::model::Timestamp;
use crate::model::cidr::NotCidr;
use crate::store::deliveries::AttemptRow;
use crate::store::outbox::{Delivery, Settled, Settlement};
use crate::store::{Db, StoreError, Tx};

/// The pause after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// The longest sleep: a guard against a lost wake-up, and how soon a redelivery is seen that the command line orders.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How long [`WorkerHandle::stop`] waits for attempts under way.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Redeliveries are looked for no more often than this while some wait, and so many at once.
const AGAIN_LOOK: Duration = Duration::from_millis(250);
const AGAIN_PAGE: usize = 64;

/// A redelivery that was taken and not settled is due again after this time: whoever took it is gone.
const AGAIN_LEASE: Duration = Duration::from_secs(60);

/// Rows that wait for a dead receiver and are looked through for those that have waited too long, at each probe.
const ASIDE_PAGE: usize = 1000;

/// Everything that was set aside is let back as often, in case whoever set it aside is gone.
const SWEEP: Duration = Duration::from_secs(300);

/// Why rows were given up without an attempt.
const CALL_ENDED: &str = "the call ended first";
const NOT_REACHED: &str = "the receiver could not be reached";

/// Why the worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// `webhooks.allow_cidrs`.
    #[error("webhooks.allow_cidrs: {0}")]
    Cidr(#[from] NotCidr),
    /// `webhooks.resolver`.
    #[error("webhooks.resolver: {0:?} is not an address like 127.0.0.1:53")]
    ResolverAddress(String),
    /// `webhooks.time_scale`.
    #[error("webhooks.time_scale must be a number from 0 up")]
    TimeScale,
    /// The HTTP client.
    #[error("webhook client: {0}")]
    Client(#[from] reqwest::Error),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    purge: JoinHandle<()>,
    figures: Arc<Figures>,
}

impl WorkerHandle {
    /// What became of attempts since the start.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Begins no more attempts, waits a few seconds for those under way and returns. What is left waits in the
    /// outbox for the next start.
    pub async fn stop(self) {
        self.purge.abort();
        // An error means that the task is gone already.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// One delivery on its way. `made`: it is a redelivery, tried so often since it was asked for.
#[derive(Clone)]
struct Job {
    delivery: Delivery,
    made: Option<u32>,
}

/// An attempt that is over. Without an outcome it was never made, because the database could not be read.
struct Finished {
    job: Job,
    made: Option<Made>,
}

/// What becomes of a due row.
enum Fate {
    Go,
    /// Into the queue of that name.
    Aside(String),
    GivenUp(Settlement, &'static str),
}

/// What is to be written down of one look at what is due.
#[derive(Default)]
struct Moves {
    aside: BTreeMap<String, Vec<i64>>,
    given_up: Vec<Settled>,
}

/// Sends what the outbox holds.
pub struct Worker {
    formats: Vec<&'static dyn Format>,
    attempt: Attempt,
    under_way: UnderWay,
    circuits: Circuits,
    /// Queues that hold rows, each with its host.
    aside: BTreeMap<String, String>,
    finished: Vec<Finished>,
    /// Redeliveries are looked for next.
    again_at: Timestamp,
    sweep_at: Timestamp,
    chance: ChaCha8Rng,
    figures: Arc<Figures>,
}

impl Worker {
    /// Starts the worker, and the removal of what is old. `wake` is told when rows were enqueued.
    pub fn start(
        db: Db,
        formats: Vec<&'static dyn Format>,
        config: &Webhooks,
        wake: Arc<Notify>,
    ) -> Result<WorkerHandle, WorkerError> {
        if !(config.time_scale.is_finite() && config.time_scale >= 0.0) {
            return Err(WorkerError::TimeScale);
        }
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|_| WorkerError::Random)?;
        let purge = purge::run(db.clone(), config.keep_days);
        let worker = Self {
            formats,
            attempt: Attempt { db, client: client(config)?, config: config.clone() },
            under_way: UnderWay::new(config.max_concurrent, config.max_concurrent_per_host),
            circuits: Circuits::new(config.time_scale),
            aside: BTreeMap::new(),
            finished: Vec::new(),
            again_at: Timestamp(0),
            sweep_at: Timestamp(0),
            chance: ChaCha8Rng::from_seed(seed),
            figures: Arc::default(),
        };
        let figures = Arc::clone(&worker.figures);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.run(wake, stopped));
        Ok(WorkerHandle { stop, task, purge: tokio::spawn(purge), figures })
    }

    async fn run(mut self, wake: Arc<Notify>, mut stopped: oneshot::Receiver<()>) {
        let most = self.attempt.config.max_concurrent.max(1);
        let (done, mut results) = mpsc::channel(most);
        loop {
            let sleep = self.turn(&done).await;
            self.figures.set_under_way(self.under_way.len());
            tokio::select! {
                _ = &mut stopped => break,
                _ = results.recv_many(&mut self.finished, most) => {}
                () = wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
        let finish = async {
            // The last events of a call wait behind one another: each that is delivered lets the next one go.
            loop {
                self.turn(&done).await;
                if self.under_way.is_empty() {
                    break;
                }
                if results.recv_many(&mut self.finished, most).await == 0 {
                    break;
                }
            }
        };
        if tokio::time::timeout(STOP_TIME, finish).await.is_err() {
            tracing::warn!("webhook attempts were cut off by the stop; they are due again at the next start");
        }
    }

    /// Writes down what is over, begins what may begin, and says how long nothing more is due.
    async fn turn(&mut self, done: &mpsc::Sender<Finished>) -> Duration {
        let unread = self.finished.iter().any(|finished| finished.made.is_none());
        let result = match self.settle().await {
            Ok(()) if unread => return DATABASE_PAUSE,
            Ok(()) => self.go_on(done).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::error!(%error, "the webhook worker cannot use the database; it tries again");
                DATABASE_PAUSE
            }
        }
    }

    async fn go_on(&mut self, done: &mpsc::Sender<Finished>) -> Result<Duration, StoreError> {
        self.let_back().await?;
        let seen = self.fill(done).await?;
        self.fill_again(done, seen).await?;
        // After the moment of the last look, not after this one: what fell due in between was not seen.
        let next = [self.attempt.db.next_due(seen).await?, self.circuits.next(seen), Some(self.again_at)];
        let next = next.into_iter().flatten().min();
        Ok(next.map_or(LONGEST_SLEEP, |next| sleep_until(seen, next)))
    }

    /// One transaction for all attempts that are over. On an error nothing is forgotten.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.finished.is_empty() {
            return Ok(());
        }
        let now = clock::now().wall;
        let db = self.attempt.db.clone();
        let this = &mut *self;
        let settling = |mut tx| async move {
            let settled = this.settle_in(&mut tx, now).await;
            (tx, settled)
        };
        let settlements: Vec<Settlement> = db.write(settling).await?;
        settlements.iter().for_each(|settlement| self.figures.count_settlement(*settlement));
        for Finished { job, made } in std::mem::take(&mut self.finished) {
            self.under_way.end(job.delivery.id);
            if let Some(made) = &made {
                self.figures.count_attempt(&made.outcome, made.took);
            }
            let outcome = made.as_ref().map(|made| &made.outcome);
            let receiver = self.receiver(&job.delivery);
            if self.circuits.over(&receiver, outcome, now) {
                tracing::info!(host = %job.delivery.host, "a webhook receiver answers again");
            }
            self.count_given_up(&job, &receiver, outcome, now);
        }
        Ok(())
    }

    async fn settle_in(&mut self, tx: &mut Tx, now: Timestamp) -> Result<Vec<Settlement>, StoreError> {
        tx.lock_calls(self.finished.iter().map(|finished| finished.job.delivery.call)).await?;
        let mut settlements = Vec::with_capacity(self.finished.len());
        for Finished { job, made } in &self.finished {
            let Some(made) = made else { continue };
            let settlement = {
                let arrived = made.outcome.is_success();
                let call_ended = !arrived && job.made.is_none() && tx.call_ended(job.delivery.call).await?;
                let chance = f64::from(self.chance.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
                let time_scale = self.attempt.config.time_scale;
                // A redelivery has the schedule before it that a first delivery has.
                let delivery =
                    Delivery { attempts: job.made.unwrap_or(job.delivery.attempts), ..job.delivery.clone() };
                let outcome = &made.outcome;
                let after = After { delivery: &delivery, outcome, call_ended, now, time_scale, chance };
                let format = format_of(&self.formats, &delivery.dialect);
                format.map_or(Settlement::Failed, |format| after.settlement(format))
            };
            settlements.push(settlement);
            let settled = settled(&job.delivery, settlement, &made.outcome);
            match job.made {
                None => tx.settle(&settled, now).await?,
                Some(before) => tx.settle_redelivery(&settled, before + 1, now).await?,
            }
            let took_ms = u32::try_from(made.took.as_millis()).unwrap_or(u32::MAX);
            let Settled { attempts: number, status, result, .. } = settled;
            tx.log_attempt(job.delivery.id, &AttemptRow { number, at: made.at, took_ms, status, result })
                .await?;
        }
        Ok(settlements)
    }

    /// Where a dialect judges its receivers by deliveries that came to nothing, counts one that did, or did not.
    fn count_given_up(&mut self, job: &Job, receiver: &str, outcome: Option<&Outcome>, now: Timestamp) {
        let format = format_of(&self.formats, &job.delivery.dialect);
        let Some((format, most)) = format.and_then(|format| Some((format, format.breaks_after()?))) else {
            return;
        };
        let failures = job.made.unwrap_or(job.delivery.attempts) + 1;
        match outcome {
            Some(outcome) if outcome.is_success() => self.circuits.arrived(receiver),
            Some(outcome) if format.retry_after(&job.delivery.event, failures, outcome).is_none() => {
                self.circuits.gave_up(receiver, most, now);
            }
            Some(_) | None => {}
        }
    }

    /// What a delivery's circuit goes by.
    fn receiver(&self, delivery: &Delivery) -> String {
        let format = format_of(&self.formats, &delivery.dialect);
        circuit::receiver(delivery, format.is_some_and(|format| format.breaks_after().is_some()))
    }

    /// Lets rows back that were set aside, as many as there is room for, and one for each probe that is due. Those
    /// that have waited too long for a dead receiver are given up.
    async fn let_back(&mut self) -> Result<(), StoreError> {
        let now = clock::now().wall;
        if now >= self.sweep_at {
            let mut tx = self.attempt.db.begin().await?;
            tx.let_all_back().await?;
            tx.commit().await?;
            self.sweep_at = later(now, SWEEP);
            self.aside.clear();
        }
        let probes = self.circuits.to_probe(now);
        let shut = |queue: &str| matches!(self.circuits.gate(queue, now), Gate::Shut(_));
        let room = self.aside.iter().filter(|(queue, _)| !shut(queue) && !probes.contains(queue));
        let room: Vec<(String, usize)> = room
            .map(|(queue, host)| (queue.clone(), self.under_way.free_to(host)))
            .filter(|(_, free)| *free > 0)
            .collect();
        if probes.is_empty() && room.is_empty() {
            return Ok(());
        }
        let mut moves = Moves::default();
        for receiver in &probes {
            for delivery in self.attempt.db.aside(receiver, ASIDE_PAGE).await? {
                if let Some((settlement, why)) = self.gives_up(&delivery, now) {
                    moves.given_up.push(untried(&delivery, settlement, why));
                }
            }
        }
        let mut tx = self.attempt.db.begin().await?;
        tx.lock_calls(moves.given_up.iter().map(|settled| settled.call)).await?;
        for settled in &moves.given_up {
            tx.settle(settled, now).await?;
        }
        let mut empty = BTreeSet::new();
        let one_each = probes.iter().map(|receiver| (receiver.clone(), 1));
        for (queue, limit) in one_each.chain(room) {
            if tx.let_back(&queue, limit).await? < limit {
                empty.insert(queue);
            }
        }
        tx.commit().await?;
        for queue in empty {
            self.aside.remove(&queue);
            if probes.contains(&queue) {
                self.circuits.forget(&queue);
            }
        }
        Ok(())
    }

    /// Begins first deliveries until nothing more is due or a cap is reached; says when it last looked.
    async fn fill(&mut self, done: &mpsc::Sender<Finished>) -> Result<Timestamp, StoreError> {
        let mut now = clock::now().wall;
        while !self.under_way.is_full() {
            now = clock::now().wall;
            let page = self.under_way.page();
            let due = self.attempt.db.claim_beside(now, page, &self.under_way.ids()).await?;
            let whole = due.len() < page;
            let mut moves = Moves::default();
            let mut begun = 0;
            for delivery in due {
                if self.under_way.contains(delivery.id) {
                    continue;
                }
                match self.fate(&delivery, now) {
                    Fate::Go => begun += usize::from(self.begin(Job { delivery, made: None }, done)),
                    Fate::GivenUp(settlement, why) => {
                        moves.given_up.push(untried(&delivery, settlement, why));
                    }
                    Fate::Aside(queue) => {
                        self.aside.insert(queue.clone(), delivery.host);
                        moves.aside.entry(queue).or_default().push(delivery.id);
                    }
                }
            }
            // What was moved may have let go what waited behind it.
            let moved = self.apply(&moves, now).await?;
            if !moved && (begun == 0 || whole) {
                break;
            }
        }
        Ok(now)
    }

    /// Begins redeliveries in the room that first deliveries leave.
    async fn fill_again(&mut self, done: &mpsc::Sender<Finished>, now: Timestamp) -> Result<(), StoreError> {
        if now < self.again_at {
            return Ok(());
        }
        let busy = self.under_way.busy_hosts();
        let due = self.attempt.db.due_redeliveries(now, AGAIN_PAGE, &busy).await?;
        self.again_at = later(now, if due.is_empty() { LONGEST_SLEEP } else { AGAIN_LOOK });
        let mut off = Vec::new();
        let mut jobs = Vec::new();
        for (delivery, made) in due {
            if self.under_way.is_busy(&delivery.host) {
                continue;
            }
            match self.circuits.gate(&self.receiver(&delivery), now) {
                Gate::Open if self.admit(&delivery) => jobs.push(Job { delivery, made: Some(made) }),
                Gate::Open => {}
                Gate::Shut(until) => off.push((delivery, made, until.unwrap_or(later(now, AGAIN_LOOK)))),
            }
        }
        if off.is_empty() && jobs.is_empty() {
            return Ok(());
        }
        let taken = self.take(&jobs, &off, now).await;
        for job in jobs {
            if taken.as_ref().is_ok_and(|taken| taken.contains(&job.delivery.id)) {
                self.send(job, done);
            } else {
                self.under_way.end(job.delivery.id);
                self.circuits.over(&self.receiver(&job.delivery), None, now);
            }
        }
        taken.map(drop)
    }

    /// Takes redeliveries for this process, puts those off whose receiver is dead, and gives up what has waited too long
    /// for it. Says which are taken.
    async fn take(
        &self,
        jobs: &[Job],
        off: &[(Delivery, u32, Timestamp)],
        now: Timestamp,
    ) -> Result<BTreeSet<i64>, StoreError> {
        let mut taken = BTreeSet::new();
        let mut tx = self.attempt.db.begin().await?;
        for Job { delivery, .. } in jobs {
            if tx.take_redelivery(delivery.id, now, later(now, AGAIN_LEASE)).await? {
                taken.insert(delivery.id);
            }
        }
        for (delivery, made, until) in off {
            match self.patience_over(delivery, now) {
                Some(settlement) => {
                    let settled = untried(delivery, settlement, NOT_REACHED);
                    tx.settle_redelivery(&settled, *made, now).await?;
                }
                None => drop(tx.take_redelivery(delivery.id, now, *until).await?),
            }
        }
        tx.commit().await?;
        Ok(taken)
    }

    fn fate(&self, delivery: &Delivery, now: Timestamp) -> Fate {
        if outlived(delivery) {
            return Fate::GivenUp(Settlement::Dropped, CALL_ENDED);
        }
        let receiver = self.receiver(delivery);
        if matches!(self.circuits.gate(&receiver, now), Gate::Shut(_)) {
            return match self.gives_up(delivery, now) {
                Some((settlement, why)) => Fate::GivenUp(settlement, why),
                None => Fate::Aside(receiver),
            };
        }
        if self.under_way.free_to(&delivery.host) == 0 {
            return Fate::Aside(format!("host:{}", delivery.host));
        }
        Fate::Go
    }

    /// Whether a row whose receiver is dead is not worth waiting with.
    fn gives_up(&self, delivery: &Delivery, now: Timestamp) -> Option<(Settlement, &'static str)> {
        if !delivery.terminal && delivery.call_ended {
            return Some((Settlement::Dropped, CALL_ENDED));
        }
        self.patience_over(delivery, now).map(|settlement| (settlement, NOT_REACHED))
    }

    fn patience_over(&self, delivery: &Delivery, now: Timestamp) -> Option<Settlement> {
        let patience = Patience { time_scale: self.attempt.config.time_scale };
        patience.over(delivery, format_of(&self.formats, &delivery.dialect)?, now)
    }

    /// Writes down rows that were set aside or given up; whether there were any.
    async fn apply(&self, moves: &Moves, now: Timestamp) -> Result<bool, StoreError> {
        if moves.aside.is_empty() && moves.given_up.is_empty() {
            return Ok(false);
        }
        let mut tx = self.attempt.db.begin().await?;
        tx.lock_calls(moves.given_up.iter().map(|settled| settled.call)).await?;
        for settled in &moves.given_up {
            tx.settle(settled, now).await?;
        }
        for (queue, ids) in &moves.aside {
            tx.set_aside(ids, queue).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    fn begin(&mut self, job: Job, done: &mpsc::Sender<Finished>) -> bool {
        let admitted = self.admit(&job.delivery);
        if admitted {
            self.send(job, done);
        }
        admitted
    }

    /// Takes a row in among those under way, if it may go.
    fn admit(&mut self, delivery: &Delivery) -> bool {
        let admitted = self.under_way.begin(delivery);
        if admitted {
            self.circuits.begun(&self.receiver(delivery));
        }
        admitted
    }

    fn send(&self, job: Job, done: &mpsc::Sender<Finished>) {
        let format = format_of(&self.formats, &job.delivery.dialect);
        let (attempt, done) = (self.attempt.clone(), done.clone());
        tokio::spawn(async move {
            let made = attempt.make(&job.delivery, format).await;
            // The worker has stopped: the row is due again at the next start.
            let _ = done.send(Finished { job, made }).await;
        });
    }
}

fn format_of(formats: &[&'static dyn Format], dialect: &str) -> Option<&'static dyn Format> {
    formats.iter().find(|format| format.name() == dialect).copied()
}

fn settled(delivery: &Delivery, settlement: Settlement, outcome: &Outcome) -> Settled {
    Settled {
        id: delivery.id,
        call: delivery.call,
        url: delivery.url.clone(),
        attempts: delivery.attempts + 1,
        settlement,
        status: outcome.status(),
        result: outcome.describe(),
    }
}

/// A row that is given up without an attempt.
fn untried(delivery: &Delivery, settlement: Settlement, why: &str) -> Settled {
    Settled {
        id: delivery.id,
        call: delivery.call,
        url: delivery.url.clone(),
        attempts: delivery.attempts,
        settlement,
        status: None,
        result: why.to_owned(),
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.plus_ms(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

fn sleep_until(now: Timestamp, next: Timestamp) -> Duration {
    let ms = u64::try_from(next.0.saturating_sub(now.0)).unwrap_or(0);
    Duration::from_millis(ms).min(LONGEST_SLEEP)
}

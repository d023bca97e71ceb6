//! Requests that may be repeated without being done twice (CONTRACT 0.5). The first request of a name is done, and
//! its answer kept for a day; a repeat is given that answer. Which requests are under way is known to this process,
//! and where several share a database, to that: with the name of the process, so that what a crash cut off leaves no
//! name taken for long. Its calls are ended by recovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::{DashMap, Entry};
use sha2::{Digest, Sha256};

use super::{Failure, Refusal};
use crate::model::Timestamp;
use crate::store::Db;
use crate::store::idempotency::{KeptAnswer, RequestName};

/// Answers are kept so long.
pub const KEPT_MS: i64 = 24 * 3600 * 1000;

/// The digests of the bodies of requests under way.
type Running = Arc<DashMap<RequestName, String>>;

/// Knows which requests have been answered and which are under way.
#[derive(Clone, Debug)]
pub struct Idempotency {
    db: Db,
    running: Running,
    tickets: Arc<AtomicI64>,
}

/// What a request turns out to be.
#[derive(Debug)]
pub enum Begun {
    /// The first: it is to be done.
    First(Claim),
    /// A repeat: this was answered.
    Repeat(KeptAnswer),
}

/// The right to do a request. As long as it is there, no other request of that name is done.
#[derive(Debug)]
pub struct Claim {
    db: Db,
    running: Running,
    request: RequestName,
    digest: String,
    /// Which of this process's claims it is, where the database has to know.
    ticket: Option<i64>,
}

impl Idempotency {
    /// Over this database, with nothing under way.
    pub fn new(db: Db) -> Self {
        Self { db, running: Running::default(), tickets: Arc::default() }
    }

    /// Says what a request with this body is, and claims its name if it is the first.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyKeyReused`] for another body under the same name; [`Refusal::RequestInProgress`] while
    /// the first is under way.
    pub async fn begin(&self, request: RequestName, body: &[u8], now: Timestamp) -> Result<Begun, Failure> {
        let digest = format!("{:x}", Sha256::digest(body));
        if let Some(answer) = self.kept(&request, &digest, now).await? {
            return Ok(Begun::Repeat(answer));
        }
        let mut claim = self.claim(request, digest)?;
        if self.db.is_shared() {
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            // Before the question: its answer may be lost.
            claim.ticket = Some(ticket);
            if let Some(running) = self.db.claim_request(&claim.request, &claim.digest, ticket).await? {
                claim.ticket = None;
                let same = running == claim.digest;
                let refusal = if same { Refusal::RequestInProgress } else { Refusal::IdempotencyKeyReused };
                return Err(refusal.into());
            }
        }
        // The first may have been answered, and its claim given back, since we looked.
        match self.kept(&claim.request, &claim.digest, now).await? {
            Some(answer) => Ok(Begun::Repeat(answer)),
            None => Ok(Begun::First(claim)),
        }
    }

    async fn kept(
        &self,
        request: &RequestName,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<KeptAnswer>, Failure> {
        match self.db.kept_answer(request, now.plus_ms(-KEPT_MS)).await? {
            Some(answer) if answer.digest != digest => Err(Refusal::IdempotencyKeyReused.into()),
            kept => Ok(kept),
        }
    }

    fn claim(&self, request: RequestName, digest: String) -> Result<Claim, Refusal> {
        match self.running.entry(request.clone()) {
            Entry::Occupied(running) if *running.get() == digest => Err(Refusal::RequestInProgress),
            Entry::Occupied(_) => Err(Refusal::IdempotencyKeyReused),
            Entry::Vacant(vacant) => {
                vacant.insert(digest.clone());
                Ok(Claim {
                    db: self.db.clone(),
                    running: Arc::clone(&self.running),
                    request,
                    digest,
                    ticket: None,
                })
            }
        }
    }
}

impl Claim {
    /// Keeps the answer for repeats. Without this the name is free again once the claim is dropped.
    ///
    /// # Errors
    /// A database that failed.
    pub async fn keep(&self, status: u16, body: String, now: Timestamp) -> Result<(), Failure> {
        let answer = KeptAnswer { digest: self.digest.clone(), status, body };
        self.db.keep_answer(&self.request, &answer, now, now.plus_ms(-KEPT_MS)).await?;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.running.remove(&self.request);
        let (Some(ticket), Ok(runtime)) = (self.ticket, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (db, request) = (self.db.clone(), self.request.clone());
        runtime.spawn(async move {
            // What cannot be removed is this process's to take again, and nobody's once the process has ended.
            if let Err(error) = db.release_request(&request, ticket).await {
                tracing::warn!(%error, "the name of a request that is over stays taken for other processes");
            }
        });
    }
}

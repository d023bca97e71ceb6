//! Transactions that share a commit. A commit on SQLite waits for the disk, and there is one writer: were each call placed,
//! each group of events and each group of webhooks a transaction of its own, the disk would decide how many calls there
//! are in a second. So whoever comes while a commit is under way is written in the next one, each behind a savepoint of
//! its own, and is told that it is done when that commit is. Nothing is weaker than before: who fails is rolled back to
//! its savepoint alone, and nobody goes on before what it wrote is on the disk. With PostgreSQL, which groups commits by
//! itself, each has a transaction of its own.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

use super::{Db, StoreError, Tx};

/// What is shared: the transaction that is open, if one is.
#[derive(Debug, Default)]
pub(super) struct Group {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// It is out while somebody writes.
    tx: Option<Tx>,
    /// Who waits for its commit.
    members: Vec<oneshot::Sender<()>>,
}

impl Db {
    /// Runs `job` in a transaction and returns once that is committed. The job is given the transaction and gives it back
    /// with its result; where that is an error nothing of the job stays. It must ask nothing of the database but by the
    /// transaction, or by what only reads.
    ///
    /// # Errors
    /// The job's; those of the database; [`StoreError::NotCommitted`] where it is not known whether it was committed.
    pub async fn write<T, E, F>(&self, job: impl FnOnce(Tx) -> F) -> Result<T, E>
    where
        E: From<StoreError>,
        F: Future<Output = (Tx, Result<T, E>)>,
    {
        if self.is_shared() {
            let (tx, done) = job(self.begin().await?).await;
            let done = done?;
            tx.commit().await?;
            return Ok(done);
        }
        let (told, committed) = oneshot::channel();
        let done = {
            let mut open = self.group.open.lock().await;
            let mut tx = match open.tx.take() {
                Some(tx) => tx,
                None => self.begin_group(&mut open).await?,
            };
            tx.lend().script("SAVEPOINT job").await?;
            let (mut tx, done) = job(tx).await;
            let done = match done {
                Ok(_) if tx.held.is_some() => Err(StoreError::HoldWithoutCall.into()),
                done => done,
            };
            let end = if done.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
            (tx.held, tx.lane) = (None, None);
            // Where the database has ended the transaction by itself, nothing of it stays, and its members are not told.
            match tx.lend().script(end).await {
                Ok(()) => open.tx = Some(tx),
                Err(error) => return done.and(Err(error.into())),
            }
            let done = done?;
            open.members.push(told);
            done
        };
        committed.await.map_err(|_| StoreError::NotCommitted)?;
        Ok(done)
    }

    /// Begins a transaction, and has it committed when all those who wait now have written.
    async fn begin_group(&self, open: &mut Open) -> Result<Tx, StoreError> {
        // Of a transaction that was lost with whoever had it.
        open.members.clear();
        let tx = self.begin().await?;
        let group = Arc::clone(&self.group);
        // The lock is fair: this waits behind whoever waits already, and those who come later wait behind this.
        tokio::spawn(async move { group.commit().await });
        Ok(tx)
    }
}

impl Group {
    async fn commit(&self) {
        let mut open = self.open.lock().await;
        let members = std::mem::take(&mut open.members);
        let Some(tx) = open.tx.take() else { return };
        match tx.commit().await {
            Ok(()) => {
                for member in members {
                    // Whoever has gone need not be told.
                    let _ = member.send(());
                }
            }
            Err(error) => tracing::error!(%error, jobs = members.len(), "a commit failed"),
        }
    }
}

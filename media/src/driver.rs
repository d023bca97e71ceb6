//! The driver of the media: worker threads that own sockets and the clock, and the threads that write recordings.
//!
//! Owns everything of this crate that touches the system. A bridge lives on one worker from its first command to its
//! end (its id modulo the number of workers), so nothing in the path of a packet is shared or locked. Nobody waits
//! for a worker and a worker waits for nobody: commands and events go through bounded queues. It decides nothing
//! about calls: that is [`crate::Bridge`]'s and its user's.

mod clock;
pub(crate) mod disk;
mod events;
mod metrics;
pub(crate) mod repair;
mod worker;
mod writer;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use crate::Command;
use worker::Worker;

pub use disk::free_bytes;
pub use events::EventReceiver;
pub use metrics::Metrics;

/// Commands that may wait for one worker.
const COMMANDS_MAX: usize = 4096;
/// Events that may wait for the user.
const EVENTS_MAX: usize = 4096;

/// Called from media threads whenever events have come: must be quick and must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// How the media run.
#[derive(Default)]
pub struct MediaConfig {
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Each worker stays on a core of its own, counted from the first.
    pub pin: bool,
    /// No recording begins on a disk with less room than this, in bytes; 0: any does.
    pub min_free_bytes: u64,
    /// Told when there are events to fetch.
    pub wake: Option<Wake>,
}

impl fmt::Debug for MediaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaConfig")
            .field("workers", &self.workers)
            .field("pin", &self.pin)
            .field("min_free_bytes", &self.min_free_bytes)
            .finish_non_exhaustive()
    }
}

/// A worker cannot take a command now: its queue is full, or it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the media worker takes no more commands")]
pub struct Full;

/// The running media. Dropping it ends all bridges, finishes all recordings and waits for the threads.
pub struct Media {
    workers: Vec<SyncSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    metrics: Arc<metrics::Counters>,
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Media {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: MediaConfig) -> io::Result<(Self, EventReceiver)> {
        let count = match config.workers {
            0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        let wake: Arc<Wake> = Arc::new(config.wake.unwrap_or_else(|| Box::new(|| ())));
        let (sender, receiver) = events::channel(EVENTS_MAX, wake);
        let mut media = Self {
            workers: Vec::with_capacity(count),
            threads: Vec::with_capacity(count + 2),
            stop: Arc::new(AtomicBool::new(false)),
            metrics: Arc::new(metrics::Counters::default()),
        };
        let (recordings, writing) = writer::start(&sender, config.min_free_bytes)?;
        media.threads.extend(writing);
        for number in 0..count {
            let (commands, queue) = sync_channel(COMMANDS_MAX);
            let worker = Worker::new(
                count as u64,
                queue,
                recordings.clone(),
                sender.clone(),
                media.metrics.clone(),
                media.stop.clone(),
            );
            let pin = config.pin.then_some(number);
            let thread =
                thread::Builder::new().name(format!("media-{number}")).spawn(move || worker.run(pin))?;
            media.workers.push(commands);
            // Workers first, so that the writer is waited for after them.
            media.threads.insert(number, thread);
        }
        Ok((media, receiver))
    }

    /// Gives a command to the worker of its bridge. Never waits.
    ///
    /// # Errors
    /// [`Full`]; the command is lost then.
    pub fn send(&self, command: Command) -> Result<(), Full> {
        let worker = (command.bridge().0 % self.workers.len() as u64) as usize;
        self.workers[worker].try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Full,
        })
    }

    /// How punctual the workers are, since the start.
    pub fn metrics(&self) -> Metrics {
        self.metrics.read()
    }

    /// The same for whoever does not have the media.
    pub fn punctuality(&self) -> Punctuality {
        Punctuality(Arc::clone(&self.metrics))
    }
}

/// Tells any thread how punctual the workers are, also after their end.
#[derive(Clone, Debug, Default)]
pub struct Punctuality(Arc<metrics::Counters>);

impl Punctuality {
    /// Since the start.
    pub fn read(&self) -> Metrics {
        self.0.read()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media thread ended by a panic");
            }
        }
    }
}

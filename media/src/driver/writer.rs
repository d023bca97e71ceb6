//! The threads that write recordings: one writes all files, one waits for the disk when a file is done.
//!
//! Owns the files. A file appears under its name with a whole header, and whoever opens it at any moment finds sizes
//! that cover only samples already written: samples first, then the sizes, twice a second. So a crash costs at most a
//! second of sound, and never the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clock;
use super::events::EventSender;
use crate::recorder::{RingReader, Started};
use crate::wav::{self, HEADER};
use crate::{BridgeId, Heard, RecordingId, frames_ms};

/// How often the rings are looked at.
const ROUND: Duration = Duration::from_millis(50);
/// Frames that are worth a write: half a second.
const WORTH_FRAMES: usize = 25;
/// Frames written at once: bounds the buffer at 160 KiB.
const WRITE_FRAMES: u64 = 512;
/// Recordings that may begin between two rounds.
const JOBS_MAX: usize = 1024;
/// Files that may wait for the disk.
const DONE_MAX: usize = 1024;

/// A recording that has begun.
pub(super) struct Job {
    pub(super) bridge: BridgeId,
    pub(super) started: Started,
}

/// Starts both threads; they end when the last sender of jobs is gone and all files are done.
pub(super) fn start(events: &EventSender) -> io::Result<(SyncSender<Job>, [JoinHandle<()>; 2])> {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let (done, finished) = sync_channel(DONE_MAX);
    let (writing, syncing) = (events.clone(), events.clone());
    let writer = Writer {
        jobs,
        done,
        events: writing,
        files: Vec::new(),
        buffer: Vec::new(),
        waiting: VecDeque::new(),
    };
    let threads = [
        thread::Builder::new().name("media-writer".to_owned()).spawn(move || writer.run())?,
        thread::Builder::new().name("media-sync".to_owned()).spawn(move || sync(&finished, syncing))?,
    ];
    Ok((sender, threads))
}

struct Writer {
    jobs: Receiver<Job>,
    done: SyncSender<Recorded>,
    events: EventSender,
    files: Vec<Recorded>,
    buffer: Vec<u8>,
    /// Files that are done while the thread that waits for the disk has no room.
    waiting: VecDeque<Recorded>,
}

impl Writer {
    fn run(mut self) {
        let mut open = true;
        while open || !self.files.is_empty() || !self.waiting.is_empty() {
            open = open && self.take_jobs();
            if !open {
                clock::sleep_until(clock::now() + ROUND);
            }
            self.round();
            self.hand_over();
            self.events.flush();
        }
    }

    /// Waits for the next round; false when nobody is left to begin a recording.
    fn take_jobs(&mut self) -> bool {
        let round = clock::now() + ROUND;
        loop {
            match self.jobs.recv_timeout(round.saturating_duration_since(clock::now())) {
                Ok(job) => self.begin(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let Job { bridge, started: Started { recording, path, reader } } = job;
        match create(&path) {
            Ok(file) => {
                self.files.push(Recorded { bridge, recording, file, reader, data: 0, silent: 0 });
                self.events.send(bridge, Heard::RecordingStarted { recording });
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a recording could not begin");
                let reason = error.to_string();
                self.events
                    .send(bridge, Heard::RecordingFailed { recording, reason, bytes: 0, duration_ms: 0 });
            }
        }
        self.events.flush();
    }

    fn round(&mut self) {
        let mut at = 0;
        while let Some(file) = self.files.get_mut(at) {
            match file.round(&mut self.buffer) {
                Ok(false) => at += 1,
                Ok(true) => self.waiting.push_back(self.files.swap_remove(at)),
                Err(error) => {
                    let mut file = self.files.swap_remove(at);
                    file.give_up();
                    tracing::error!(bridge = file.bridge.0, %error, "a recording failed");
                    self.events.send(file.bridge, file.failed(&error));
                }
            }
        }
    }

    fn hand_over(&mut self) {
        while let Some(file) = self.waiting.pop_front() {
            match self.done.try_send(file) {
                Ok(()) => {}
                Err(TrySendError::Full(file) | TrySendError::Disconnected(file)) => {
                    self.waiting.push_front(file);
                    return;
                }
            }
        }
    }
}

/// A disk may take its time to say that a file is safe; the other recordings do not wait for that.
fn sync(finished: &Receiver<Recorded>, mut events: EventSender) {
    loop {
        match finished.recv_timeout(ROUND) {
            Ok(file) => {
                let heard = match file.file.sync_all() {
                    Ok(()) => file.ended(),
                    Err(error) => file.failed(&error),
                };
                events.send(file.bridge, heard);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        events.flush();
    }
}

/// A file under its final name that is a whole WAV file from its first moment on.
fn create(path: &Path) -> io::Result<File> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part)?;
    let named = file.write_all_at(&wav::header(0), 0).and_then(|()| std::fs::rename(&part, path));
    if let Err(error) = named {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    Ok(file)
}

/// A file being written.
struct Recorded {
    bridge: BridgeId,
    recording: RecordingId,
    file: File,
    reader: RingReader,
    /// Bytes of samples in the file.
    data: u64,
    /// Frames of silence among them that stand for missed ones.
    silent: u64,
}

impl Recorded {
    /// Writes what is worth writing; true when the recording is over and the file whole.
    fn round(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        if self.reader.waiting() < WORTH_FRAMES && !self.reader.is_closed() {
            return Ok(false);
        }
        loop {
            buffer.clear();
            let took = self.reader.read(buffer, WRITE_FRAMES);
            if self.data + buffer.len() as u64 > wav::DATA_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.file.write_all_at(buffer, HEADER + self.data)?;
            self.data += buffer.len() as u64;
            self.silent += took.silent;
            if took.finished || took.frames < WRITE_FRAMES {
                self.file.write_all_at(&wav::header(self.data), 0)?;
                return Ok(took.finished);
            }
        }
    }

    /// After an error: the sizes in the header are made to match the samples that are surely there. The header's
    /// bytes exist already, so this needs no room on the disk; should it fail as well, the sizes of the last round
    /// stand, and they are covered too.
    fn give_up(&mut self) {
        let _ = self.file.set_len(HEADER + self.data);
        let _ = self.file.write_all_at(&wav::header(self.data), 0);
        let _ = self.file.sync_all();
    }

    fn ended(&self) -> Heard {
        Heard::RecordingEnded {
            recording: self.recording,
            bytes: HEADER + self.data,
            duration_ms: wav::duration_ms(self.data),
            degraded_ms: frames_ms(self.silent),
        }
    }

    fn failed(&self, error: &io::Error) -> Heard {
        Heard::RecordingFailed {
            recording: self.recording,
            reason: error.to_string(),
            bytes: HEADER + self.data,
            duration_ms: wav::duration_ms(self.data),
        }
    }
}

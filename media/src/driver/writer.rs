//! The threads that write recordings: one writes all files, one waits for the disk when a file is done.
//!
//! Owns the files. A file appears under its name with a whole header, and whoever opens it at any moment finds sizes
//! that cover only samples already written: samples first, then the sizes, twice a second. So a crash costs at most a
//! second of sound, and never the file. A recording is over when its bytes and its name are safe on the disk and its
//! checksum is known.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::events::EventSender;
use super::{clock, disk};
use crate::recorder::{RingReader, Started};
use crate::wav::{self, HEADER};
use crate::{BridgeId, Channels, Heard, RecordFault, RecordingId, frames_ms};

/// How often the rings are looked at.
const ROUND: Duration = Duration::from_millis(50);
/// Frames that are worth a write: half a second.
const WORTH_FRAMES: usize = 25;
/// Frames written at once: bounds the buffer at 320 KiB.
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
pub(super) fn start(
    events: &EventSender,
    min_free_bytes: u64,
) -> io::Result<(SyncSender<Job>, [JoinHandle<()>; 2])> {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let (done, finished) = sync_channel(DONE_MAX);
    let (writing, syncing) = (events.clone(), events.clone());
    let writer = Writer {
        jobs,
        done,
        events: writing,
        min_free_bytes,
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
    /// Room that a disk must have for a recording to begin on it.
    min_free_bytes: u64,
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
        let channels = reader.channels();
        match room(&path, self.min_free_bytes).and_then(|()| create(&path, channels)) {
            Ok(file) => {
                self.files.push(Recorded {
                    bridge,
                    recording,
                    path,
                    file,
                    reader,
                    channels,
                    data: 0,
                    silent: 0,
                });
                self.events.send(bridge, Heard::RecordingStarted { recording });
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a recording could not begin");
                self.events.send(bridge, Heard::never_recorded(recording, fault(&error), error.to_string()));
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
    let mut buffer = vec![0; disk::READ_BYTES];
    loop {
        match finished.recv_timeout(ROUND) {
            Ok(file) => {
                let heard = match file.settle(&mut buffer) {
                    Ok(sha256) => file.ended(sha256),
                    Err(error) => {
                        tracing::error!(bridge = file.bridge.0, %error, "a recording failed at its end");
                        file.failed(&error)
                    }
                };
                events.send(file.bridge, heard);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        events.flush();
    }
}

/// Whether the disk has more room than is to be kept free.
fn room(path: &Path, min_free_bytes: u64) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if min_free_bytes > 0 && disk::free_bytes(folder)? < min_free_bytes {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has too little room left"));
    }
    Ok(())
}

/// What an error means for the one who wanted the recording.
fn fault(error: &io::Error) -> RecordFault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RecordFault::DiskFull,
        io::ErrorKind::NotFound => RecordFault::FileGone,
        io::ErrorKind::FileTooLarge => RecordFault::TooLong,
        _ => RecordFault::WriteError,
    }
}

/// A file under its final name that is a whole WAV file from its first moment on. Nobody else may read it.
fn create(path: &Path, channels: Channels) -> io::Result<File> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let named = file.write_all_at(&wav::header(channels, 0), 0).and_then(|()| std::fs::rename(&part, path));
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
    path: PathBuf,
    file: File,
    reader: RingReader,
    channels: Channels,
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
                self.file.write_all_at(&wav::header(self.channels, self.data), 0)?;
                return Ok(took.finished);
            }
        }
    }

    /// After an error: the sizes in the header are made to match the samples that are surely there. The header's
    /// bytes exist already, so this needs no room on the disk; should it fail as well, the sizes of the last round
    /// stand, and they are covered too.
    fn give_up(&mut self) {
        let _ = self.file.set_len(HEADER + self.data);
        let _ = self.file.write_all_at(&wav::header(self.channels, self.data), 0);
        let _ = self.file.sync_all();
    }

    /// Waits until the file and its name are safe, and reads all of it back for its checksum.
    fn settle(&self, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
        self.file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        // What somebody has deleted, or put in its place, is not what was recorded.
        let (ours, named) = (self.file.metadata()?, std::fs::symlink_metadata(&self.path)?);
        if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name"));
        }
        disk::sha256(&self.file, HEADER + self.data, buffer)
    }

    fn ended(&self, sha256: [u8; 32]) -> Heard {
        Heard::RecordingEnded {
            recording: self.recording,
            bytes: HEADER + self.data,
            duration_ms: wav::duration_ms(self.channels, self.data),
            degraded_ms: frames_ms(self.silent),
            sha256,
        }
    }

    fn failed(&self, error: &io::Error) -> Heard {
        Heard::RecordingFailed {
            recording: self.recording,
            fault: fault(error),
            reason: error.to_string(),
            bytes: HEADER + self.data,
            duration_ms: wav::duration_ms(self.channels, self.data),
        }
    }
}

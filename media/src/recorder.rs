//! The way of recorded sound from a media thread to the thread that writes files.
//!
//! Owns a ring of 4 s of frames per recording: one writer, one reader, no lock, no allocation after it is made. When
//! the ring is full because the disk is slow, frames are counted instead, and the reader gets as much silence in their
//! place: the time line of a recording stays true. A recording has one channel or two; two go through one ring, so
//! that nothing can move one against the other. It never touches a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{FRAME, Frame, RecordingId};

/// Frames the ring holds: 4 s.
pub const RING_FRAMES: usize = 200;
/// Bytes of one frame of one channel in a file: 16-bit little-endian samples.
pub const FRAME_BYTES: usize = FRAME * 2;
/// Four samples in a word.
const WORDS: usize = FRAME / 4;
/// Two samples of either channel in a word.
const PAIRS: usize = 2;

/// How many sounds a recording keeps apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Channels {
    /// One, with everybody in it.
    #[default]
    Mono,
    /// Two, left and right, of one time line.
    Stereo,
}

impl Channels {
    /// Their number, as the header of a file has it.
    pub const fn count(self) -> u16 {
        match self {
            Self::Mono => 1,
            Self::Stereo => 2,
        }
    }

    /// Reads [`Channels::count`].
    pub const fn from_count(count: u16) -> Option<Self> {
        match count {
            1 => Some(Self::Mono),
            2 => Some(Self::Stereo),
            _ => None,
        }
    }

    /// Words of a frame in the ring.
    const fn words(self) -> usize {
        WORDS * self.count() as usize
    }

    /// Bytes of a frame in a file, all channels of it.
    pub const fn frame_bytes(self) -> usize {
        FRAME_BYTES * self.count() as usize
    }
}

/// A recording that a bridge has begun: somebody has to write what `reader` gives into `path`.
#[derive(Debug)]
pub struct Started {
    /// Which.
    pub recording: RecordingId,
    /// The file.
    pub path: PathBuf,
    /// Where the sound comes from.
    pub reader: RingReader,
}

#[derive(Debug)]
struct Shared {
    channels: Channels,
    /// A slot is a frame and, after it, the number of frames missed before it.
    slots: Box<[AtomicU64]>,
    /// Frames put in and taken out so far.
    put: AtomicU64,
    taken: AtomicU64,
    /// Frames missed after the last one put in; true once `closed`.
    missed: AtomicU64,
    closed: AtomicBool,
    abandoned: AtomicBool,
}

impl Shared {
    fn slot(&self, number: u64) -> &[AtomicU64] {
        let slot = self.channels.words() + 1;
        let at = (number % RING_FRAMES as u64) as usize * slot;
        &self.slots[at..at + slot]
    }
}

/// A new ring: its two ends.
pub fn ring(channels: Channels) -> (RingWriter, RingReader) {
    let shared = Arc::new(Shared {
        channels,
        slots: (0..RING_FRAMES * (channels.words() + 1)).map(|_| AtomicU64::new(0)).collect(),
        put: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        missed: AtomicU64::new(0),
        closed: AtomicBool::new(false),
        abandoned: AtomicBool::new(false),
    });
    (RingWriter { shared: shared.clone(), missed: 0 }, RingReader { shared, silence: 0 })
}

/// The media thread's end. Dropping it ends the recording.
#[derive(Debug)]
pub struct RingWriter {
    shared: Arc<Shared>,
    /// Frames missed since the last one put in.
    missed: u64,
}

impl RingWriter {
    /// Records a frame, in every channel; counts it as missed when the ring is full.
    pub fn push(&mut self, frame: &Frame) {
        match self.shared.channels {
            Channels::Mono => self.put(frame.as_chunks::<4>().0.iter().map(|four| pack(*four))),
            Channels::Stereo => self.push_pair(frame, frame),
        }
    }

    /// Records a frame of either channel; a ring of one channel keeps the left. Counts them as missed when the ring
    /// is full.
    pub fn push_pair(&mut self, left: &Frame, right: &Frame) {
        if self.shared.channels == Channels::Mono {
            return self.push(left);
        }
        let (left, right) = (left.as_chunks::<PAIRS>().0, right.as_chunks::<PAIRS>().0);
        self.put(left.iter().zip(right).map(|(l, r)| pack([l[0], r[0], l[1], r[1]])));
    }

    fn put(&mut self, packed: impl Iterator<Item = u64>) {
        // Only this end changes `put`. The slot is free once the reader's count says so, hence Acquire; the reader
        // sees the slot's words once `put` says so, hence Release.
        let put = self.shared.put.load(Ordering::Relaxed);
        if put - self.shared.taken.load(Ordering::Acquire) >= RING_FRAMES as u64 {
            self.missed += 1;
            return;
        }
        let (missed, words) = self.shared.slot(put).split_last().expect("a slot is never empty");
        for (word, packed) in words.iter().zip(packed) {
            word.store(packed, Ordering::Relaxed);
        }
        missed.store(std::mem::take(&mut self.missed), Ordering::Relaxed);
        self.shared.put.store(put + 1, Ordering::Release);
    }

    /// Time went by without a frame: the recording has silence there.
    pub fn skip(&mut self, frames: u32) {
        self.missed += u64::from(frames);
    }

    /// The reader is gone: the recording has failed.
    pub fn is_abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }
}

/// Four samples as the eight bytes they are in a file.
fn pack(samples: [i16; 4]) -> u64 {
    samples.iter().rev().fold(0, |word, sample| word << 16 | u64::from(*sample as u16))
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.shared.missed.store(self.missed, Ordering::Relaxed);
        self.shared.closed.store(true, Ordering::Release);
    }
}

/// The file thread's end.
#[derive(Debug)]
pub struct RingReader {
    shared: Arc<Shared>,
    /// Silent frames to be given before the next one.
    silence: u64,
}

/// What one [`RingReader::read`] gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// Frames, silent ones included.
    pub frames: u64,
    /// Of these, silence in place of missed frames.
    pub silent: u64,
    /// The recording has ended and this was all of it.
    pub finished: bool,
}

impl RingReader {
    /// How many channels come interleaved.
    pub fn channels(&self) -> Channels {
        self.shared.channels
    }

    /// Frames waiting, without the silence in place of missed ones.
    pub fn waiting(&self) -> usize {
        let put = self.shared.put.load(Ordering::Acquire);
        (put - self.shared.taken.load(Ordering::Relaxed)) as usize
    }

    /// The recording has ended, though frames may still wait.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Appends at most `max` frames to `out`, as little-endian bytes.
    pub fn read(&mut self, out: &mut Vec<u8>, max: u64) -> Taken {
        let mut took = Taken::default();
        let words = self.shared.channels.words();
        // Asked before the frames are counted: nothing is put in after the end.
        let closed = self.is_closed();
        let put = self.shared.put.load(Ordering::Acquire);
        let mut at = self.shared.taken.load(Ordering::Relaxed);
        // The count of missed frames stands in the slot of the frame after them: it is taken over before the frame.
        let mut counted = false;
        while took.frames < max {
            if at < put && !counted {
                self.silence = self.shared.slot(at)[words].swap(0, Ordering::Relaxed).max(self.silence);
                counted = true;
            } else if at == put && closed {
                self.silence += self.shared.missed.swap(0, Ordering::Relaxed);
            }
            if self.silence > 0 {
                let silent = self.silence.min(max - took.frames);
                out.resize(out.len() + silent as usize * self.shared.channels.frame_bytes(), 0);
                self.silence -= silent;
                took.silent += silent;
                took.frames += silent;
            } else if at < put {
                for word in &self.shared.slot(at)[..words] {
                    out.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
                at += 1;
                took.frames += 1;
                counted = false;
                self.shared.taken.store(at, Ordering::Release);
            } else {
                took.finished = closed;
                break;
            }
        }
        took
    }
}

impl Drop for RingReader {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: i16) -> Frame {
        std::array::from_fn(|i| if i == 0 { n } else { -(i as i16) })
    }

    /// The first sample of each frame.
    fn numbers(bytes: &[u8]) -> Vec<i16> {
        assert_eq!(bytes.len() % FRAME_BYTES, 0);
        bytes.chunks(FRAME_BYTES).map(|frame| i16::from_le_bytes([frame[0], frame[1]])).collect()
    }

    #[test]
    fn frames_come_out_as_little_endian_samples() {
        let (mut writer, mut reader) = ring(Channels::Mono);
        writer.push(&numbered(-2));
        let mut bytes = Vec::new();
        assert_eq!(reader.read(&mut bytes, 10), Taken { frames: 1, silent: 0, finished: false });
        let samples: Vec<i16> = bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(samples, numbered(-2));
    }

    #[test]
    fn two_channels_come_out_interleaved_and_miss_together() {
        let (mut writer, mut reader) = ring(Channels::Stereo);
        for n in 1..=RING_FRAMES as i16 + 2 {
            writer.push_pair(&numbered(n), &[-n; FRAME]);
        }
        let mut bytes = Vec::new();
        assert_eq!(reader.read(&mut bytes, 1), Taken { frames: 1, silent: 0, finished: false });
        let samples: Vec<i16> = bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        let (left, right): (Vec<i16>, Vec<i16>) = samples.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
        assert_eq!((left.as_slice(), right.as_slice()), (&numbered(1)[..], &[-1; FRAME][..]));
        writer.push(&[7; FRAME]);
        drop(writer);
        bytes.clear();
        let took = reader.read(&mut bytes, 1000);
        assert_eq!(took, Taken { frames: 199 + 2 + 1, silent: 2, finished: true });
        assert_eq!(bytes.len(), 202 * Channels::Stereo.frame_bytes());
        let last = &bytes[201 * Channels::Stereo.frame_bytes()..];
        assert!(last.chunks(2).all(|sample| sample == [7, 0]), "one sound for both goes into both");
    }

    #[test]
    fn missed_frames_become_silence_in_their_place() {
        let (mut writer, mut reader) = ring(Channels::Mono);
        for n in 1..=RING_FRAMES as i16 + 3 {
            writer.push(&numbered(n));
        }
        let mut bytes = Vec::new();
        assert_eq!(reader.waiting(), RING_FRAMES);
        reader.read(&mut bytes, 10);
        assert_eq!(numbers(&bytes), (1..=10).collect::<Vec<_>>());
        writer.push(&numbered(500));
        writer.skip(2);
        drop(writer);
        bytes.clear();
        let took = reader.read(&mut bytes, 1000);
        assert_eq!(took, Taken { frames: 190 + 3 + 1 + 2, silent: 5, finished: true });
        let numbers = numbers(&bytes);
        assert_eq!(numbers[189..], [200, 0, 0, 0, 500, 0, 0]);
    }

    #[test]
    fn silence_is_given_in_bounded_portions() {
        let (mut writer, mut reader) = ring(Channels::Mono);
        writer.skip(1000);
        writer.push(&numbered(7));
        let mut bytes = Vec::new();
        assert_eq!(reader.read(&mut bytes, 300), Taken { frames: 300, silent: 300, finished: false });
        assert_eq!(reader.read(&mut bytes, 300).silent, 300);
        drop(writer);
        assert_eq!(reader.read(&mut bytes, 300).silent, 300);
        assert_eq!(reader.read(&mut bytes, 300), Taken { frames: 101, silent: 100, finished: true });
        assert_eq!(numbers(&bytes).iter().position(|n| *n != 0), Some(1000));
    }

    #[test]
    fn two_threads_lose_nothing() {
        let (mut writer, mut reader) = ring(Channels::Mono);
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut took = Taken::default();
            while !took.finished {
                let more = reader.read(&mut bytes, 64);
                took = Taken { silent: took.silent + more.silent, ..more };
            }
            (bytes, took.silent)
        });
        for n in 1..=20_000 {
            writer.push(&numbered(n));
        }
        drop(writer);
        let (bytes, silent) = reading.join().unwrap();
        let numbers = numbers(&bytes);
        assert_eq!(numbers.len(), 20_000);
        assert_eq!(numbers.iter().filter(|n| **n == 0).count() as u64, silent);
        assert!(numbers.iter().zip(1..).all(|(got, n)| *got == n || *got == 0));
    }

    #[test]
    fn a_reader_that_is_gone_is_noticed() {
        let (writer, reader) = ring(Channels::Mono);
        assert!(!writer.is_abandoned());
        drop(reader);
        assert!(writer.is_abandoned());
    }
}

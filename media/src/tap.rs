//! A leg's sound for whoever listens to it outside the media threads, a recogniser for instance: frames of 20 ms in a
//! bounded queue without locks. It never waits: where nobody takes them in time, the oldest are dropped.

use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::Frame;

/// Frames that may wait: two seconds.
const WAITING_MAX: usize = 100;

/// Both ends of the queue; clones are the same queue.
#[derive(Clone)]
pub struct Tap {
    frames: Arc<ArrayQueue<Frame>>,
}

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}

impl Tap {
    /// A queue with nothing in it.
    pub fn new() -> Self {
        Self { frames: Arc::new(ArrayQueue::new(WAITING_MAX)) }
    }

    /// Puts a frame in; where there is no room, the oldest goes.
    pub fn push(&self, frame: &Frame) {
        self.frames.force_push(*frame);
    }

    /// The oldest frame.
    pub fn pop(&self) -> Option<Frame> {
        self.frames.pop()
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("waiting", &self.frames.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FRAME;

    #[test]
    fn the_oldest_frames_make_room() {
        let tap = Tap::new();
        for n in 0..150 {
            tap.push(&[n; FRAME]);
        }
        let taken: Vec<i16> = std::iter::from_fn(|| tap.pop()).map(|frame| frame[0]).collect();
        assert_eq!(taken, (50..150).collect::<Vec<i16>>());
    }
}

//! The queue from the media threads to their user: bounded, never waited for. What does not fit waits with its
//! sender, in order; only reports of who speaks are dropped, because the next one makes up for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::Wake;
use crate::{BridgeId, Event, Heard};

/// Events one sender keeps while the queue is full. Digits of thousands of calls fit; beyond, the user is dead.
const KEPT_MAX: usize = 65_536;

/// A queue of at most `bound` events.
pub(super) fn channel(bound: usize, wake: Arc<Wake>) -> (EventSender, EventReceiver) {
    let (sender, receiver) = sync_channel(bound);
    (EventSender { sender, kept: VecDeque::new(), wake, sent: false }, EventReceiver { receiver })
}

/// One thread's end. A clone keeps its own overflow.
pub(super) struct EventSender {
    sender: SyncSender<Event>,
    kept: VecDeque<Event>,
    wake: Arc<Wake>,
    sent: bool,
}

impl Clone for EventSender {
    fn clone(&self) -> Self {
        let (sender, wake) = (self.sender.clone(), self.wake.clone());
        Self { sender, kept: VecDeque::new(), wake, sent: false }
    }
}

impl EventSender {
    /// Sends or keeps an event. [`EventSender::flush`] has to follow.
    pub(super) fn send(&mut self, bridge: BridgeId, heard: Heard) {
        let event = Event { bridge, heard };
        if self.kept.is_empty() {
            match self.sender.try_send(event) {
                Ok(()) => self.sent = true,
                Err(TrySendError::Full(event)) => self.keep(event),
                Err(TrySendError::Disconnected(_)) => {}
            }
        } else {
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Event) {
        if !matches!(event.heard, Heard::Talk { .. }) && self.kept.len() < KEPT_MAX {
            self.kept.push_back(event);
        }
    }

    /// Tries what was kept, and wakes the user if anything was sent since the last time.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.kept.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => self.sent = true,
                Err(TrySendError::Full(event)) => {
                    self.kept.push_front(event);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => self.kept.clear(),
            }
        }
        if std::mem::take(&mut self.sent) {
            (self.wake)();
        }
    }
}

/// The user's end: what the media threads have to say, in order per bridge.
#[derive(Debug)]
pub struct EventReceiver {
    receiver: Receiver<Event>,
}

impl EventReceiver {
    /// The next event if there is one. Never waits.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// The next event; waits for it at most so long. `None` as well when the media are gone and all was fetched.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{DigitSource, LegId, TalkChange};

    fn digit(digit: char) -> Heard {
        Heard::Digit { leg: LegId(0), digit, source: DigitSource::Rfc4733 }
    }

    #[test]
    fn digits_survive_a_full_queue_in_order_and_talk_does_not() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let wake: Wake = Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (mut sender, mut receiver) = channel(2, Arc::new(wake));
        for key in "12345".chars() {
            sender.send(BridgeId(1), digit(key));
            sender.send(BridgeId(1), Heard::Talk { leg: LegId(0), change: TalkChange::Started });
        }
        sender.flush();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let mut got = Vec::new();
        for _ in 0..5 {
            got.extend(std::iter::from_fn(|| receiver.try_recv()).map(|event| event.heard));
            sender.flush();
        }
        let talk = Heard::Talk { leg: LegId(0), change: TalkChange::Started };
        assert_eq!(got, [digit('1'), talk, digit('2'), digit('3'), digit('4'), digit('5')]);
        sender.flush();
        assert_eq!(receiver.recv_timeout(Duration::ZERO), None);
        drop(receiver);
        sender.send(BridgeId(1), digit('6'));
        sender.flush();
    }
}

//! One session: a task that takes frames, leads them to a recogniser and tells what it understood. It ends when either
//! end of it is dropped, or no recogniser is left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use media::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use super::cutter::Cutter;
use super::posted::Posted;
use super::socketed::{Dialogue, Outgoing, Socketed};
use super::{HearingError, HearingEvent, Listening, Recogniser, Seat, told};
use crate::provider::Trouble;
use crate::provider::socket::{Incoming, Socket};

/// How long a recogniser may take for its last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// A connection is asked for a sign of life so often, and is dead when none came between two.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Before a broken connection is made anew.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// Utterances that may wait to be posted; the oldest is given up for a new one.
const UTTERANCES: usize = 8;
/// Utterances in a row that a service may fail on before the next one is asked.
const FAILURES: u32 = 2;
/// Silence after an utterance that is sent at once, so that it ends: 0.6 s.
const SILENT_FRAMES: usize = 30;

/// What flows through a session.
struct Flow {
    listening: Listening,
    frames: mpsc::Receiver<Frame>,
    tell: mpsc::Sender<HearingEvent>,
    cutter: Cutter,
    /// Utterances that no service has understood yet.
    waiting: VecDeque<Vec<i16>>,
}

/// How a recogniser's turn ended.
enum End {
    /// The session is over.
    Over,
    /// The recogniser failed; whether it was of use before.
    Failed(Trouble, bool),
}

/// Runs a session to its end.
pub(super) async fn run(
    seats: Arc<Vec<Seat>>,
    listening: Listening,
    frames: mpsc::Receiver<Frame>,
    tell: mpsc::Sender<HearingEvent>,
) {
    let closed = tell.clone();
    let waiting = VecDeque::new();
    let flow = Flow { listening, frames, tell, cutter: Cutter::new(), waiting };
    tokio::select! {
        () = closed.closed() => {}
        () = along(&seats, flow) => {}
    }
}

/// Goes along the line of recognisers.
async fn along(seats: &[Seat], mut flow: Flow) {
    let now = Instant::now();
    let fresh: Vec<&Seat> = seats.iter().filter(|seat| !seat.bench.is_out(now)).collect();
    let line = if fresh.is_empty() { seats.iter().collect() } else { fresh };
    let mut error = HearingError::None;
    for seat in line {
        let name = seat.recogniser.name();
        let trouble = match &seat.recogniser {
            Recogniser::Posted(posted) => match flow.post(posted).await {
                End::Over => return seat.bench.well(),
                End::Failed(trouble, _) => trouble,
            },
            Recogniser::Socketed(socketed) => match flow.connect(socketed).await {
                None => return seat.bench.well(),
                Some(trouble) => trouble,
            },
        };
        seat.bench.failed(Instant::now());
        tracing::warn!(recogniser = name, %trouble, "a recogniser failed");
        error = HearingError::Service { name, trouble };
    }
    // Nobody listens: nobody needs to know.
    let _ = flow.tell.send(HearingEvent::Failed { error }).await;
}

impl Flow {
    async fn tell(&self, event: HearingEvent) {
        if let HearingEvent::Partial { .. } = event {
            // The next one replaces it.
            let _ = self.tell.try_send(event);
            return;
        }
        // When nobody listens the session ends by itself.
        let _ = self.tell.send(event).await;
    }

    /// Listens to a frame for the beginning of speech; an utterance that is whole waits to be posted.
    async fn hear(&mut self, frame: &Frame, keep: bool) {
        let cut = self.cutter.hear(frame);
        if cut.started {
            self.tell(HearingEvent::SpeechStarted).await;
        }
        if let Some(utterance) = cut.utterance.filter(|_| keep) {
            if self.waiting.len() >= UTTERANCES {
                self.waiting.pop_front();
                tracing::warn!("an utterance was given up: the recogniser is too slow");
            }
            self.waiting.push_back(utterance);
        }
    }

    /// Posts utterances, one after another, while the next is listened to.
    async fn post(&mut self, posted: &Posted) -> End {
        let mut failures = 0;
        let mut open = true;
        let mut useful = false;
        while open || !self.waiting.is_empty() {
            let Some(utterance) = self.waiting.front().cloned() else {
                let frame = self.frames.recv().await;
                open = self.take(frame).await;
                continue;
            };
            let listening = self.listening.clone();
            let work = posted.transcribe(&utterance, &listening);
            tokio::pin!(work);
            let said = loop {
                tokio::select! {
                    said = &mut work => break said,
                    frame = self.frames.recv(), if open => open = self.take(frame).await,
                }
            };
            match said {
                Ok(text) => {
                    (failures, useful) = (0, true);
                    self.waiting.pop_front();
                    if let Some(text) = told(&text) {
                        self.tell(HearingEvent::Final { text }).await;
                    }
                }
                Err(trouble) => {
                    failures += 1;
                    // It stays where it is, for the next attempt or the next service.
                    if failures >= FAILURES {
                        return End::Failed(trouble, useful);
                    }
                }
            }
        }
        End::Over
    }

    /// Takes a frame; `false` at the end of them.
    async fn take(&mut self, frame: Option<Frame>) -> bool {
        if let Some(frame) = frame {
            self.hear(&frame, true).await;
            return true;
        }
        self.waiting.extend(self.cutter.finish());
        false
    }

    /// Talks to a recogniser over connections: a second one where the first breaks, and more as long as each was of
    /// use. `None` when the session is over.
    async fn connect(&mut self, socketed: &Socketed) -> Option<Trouble> {
        let mut again = true;
        loop {
            let (trouble, useful) = match self.converse(socketed).await {
                End::Over => return None,
                End::Failed(trouble, useful) => (trouble, useful),
            };
            if !again && !useful {
                return Some(trouble);
            }
            again = useful;
            tracing::debug!(recogniser = socketed.name(), %trouble, "a connection is made anew");
            sleep(RECONNECT_AFTER).await;
        }
    }

    async fn converse(&mut self, socketed: &Socketed) -> End {
        let url = socketed.address(&self.listening);
        let mut socket = match Socket::open(&url, socketed.headers()).await {
            Ok(socket) => socket,
            Err(trouble) => return End::Failed(trouble, false),
        };
        let mut dialogue = socketed.dialogue();
        let mut useful = false;
        let end = match self.begin(&mut socket, socketed, &mut dialogue).await {
            Ok(()) => self.flow(&mut socket, &mut dialogue, &mut useful).await,
            Err(trouble) => Err(trouble),
        };
        match end {
            Ok(()) => {
                // Whatever it still says after this, nobody waits for.
                let _ = timeout(LAST_WORDS, self.last_words(&mut socket, &mut dialogue)).await;
                socket.close().await;
                End::Over
            }
            Err(trouble) => End::Failed(trouble, useful),
        }
    }

    /// The first words, and what another recogniser did not understand.
    async fn begin(
        &mut self,
        socket: &mut Socket,
        socketed: &Socketed,
        dialogue: &mut Dialogue,
    ) -> Result<(), Trouble> {
        send_all(socket, socketed.opening(&self.listening)).await?;
        // It is forgotten when it was sent whole: another connection, or another recogniser, gets it otherwise.
        while let Some(utterance) = self.waiting.front() {
            let mut frame: Frame = [0; media::FRAME];
            let silence = std::iter::repeat_n(&[][..], SILENT_FRAMES);
            for piece in utterance.chunks(media::FRAME).chain(silence) {
                frame.fill(0);
                frame[..piece.len()].copy_from_slice(piece);
                send_all(socket, dialogue.hear(&frame)).await?;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Sound out, words in, until there is no more sound.
    async fn flow(
        &mut self,
        socket: &mut Socket,
        dialogue: &mut Dialogue,
        useful: &mut bool,
    ) -> Result<(), Trouble> {
        let mut pings = interval(PING_EVERY);
        pings.tick().await;
        let mut alive = true;
        let mut sounded = true;
        loop {
            tokio::select! {
                frame = self.frames.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    sounded = true;
                    self.hear(&frame, false).await;
                    send_all(socket, dialogue.hear(&frame)).await?;
                }
                incoming = socket.next() => {
                    alive = true;
                    match incoming? {
                        None => return Err(Trouble::Broken),
                        Some(Incoming::Sign) => {}
                        Some(Incoming::Text(text)) => {
                            if let Some(event) = dialogue.read(&text)? {
                                *useful = true;
                                self.tell(event).await;
                            }
                        }
                    }
                }
                _ = pings.tick() => {
                    if !std::mem::take(&mut alive) {
                        return Err(Trouble::Late);
                    }
                    socket.ping().await?;
                    if !std::mem::take(&mut sounded) {
                        send_all(socket, dialogue.keepalive()).await?;
                    }
                }
            }
        }
    }

    async fn last_words(&mut self, socket: &mut Socket, dialogue: &mut Dialogue) -> Result<(), Trouble> {
        let closing = dialogue.closing();
        send_all(socket, closing).await?;
        while let Some(incoming) = socket.next().await? {
            let Incoming::Text(text) = incoming else { continue };
            let event = dialogue.read(&text)?;
            let last = dialogue.is_last(event.as_ref());
            if let Some(event) = event {
                self.tell(event).await;
            }
            if last {
                break;
            }
        }
        Ok(())
    }
}

async fn send_all(socket: &mut Socket, messages: impl IntoIterator<Item = Outgoing>) -> Result<(), Trouble> {
    for message in messages {
        match message {
            Outgoing::Text(text) => socket.text(text).await?,
            Outgoing::Binary(bytes) => socket.binary(bytes).await?,
        }
    }
    Ok(())
}

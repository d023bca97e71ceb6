//! The engine's driver: the one task that owns the [`Engine`], its SIP sockets and its media workers. It reads the
//! clock, waits, performs outputs, and decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sip::SessionId;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Engine, Input, Output};
use crate::clock;
use crate::model::call::{Accepted, CallOrder, Command, CommandError, Overheard};
use crate::model::event::{CallEvent, Stamped};
use crate::model::incoming::{Directory, Incoming, Reception};
use crate::model::ladder::{CallName, Ladder};
use crate::model::trunk::{TrunkNews, TrunkWatch};
use crate::model::{CallId, Now};

/// Requests that may wait for the engine.
const REQUESTS_MAX: usize = 1024;
/// SIP messages and media events taken in one round before requests and timers get their turn.
const ROUND_MAX: usize = 256;
/// After so many SIP messages the sockets are looked at again, so that what belongs to calls overtakes what is new.
const LOOK_EVERY: usize = 16;
/// After the last forced BYE its answer and the recordings' files are waited for this long.
const CLOSING_CEILING: Duration = Duration::from_secs(2);
/// A socket that only fails is not asked again at once.
const SOCKET_PAUSE: Duration = Duration::from_millis(10);
/// When a caller shall try again whom the rooms above have no time for, seconds.
const RETRY_AFTER_S: u32 = 5;
/// What may wait for whoever attends a call. Who falls behind further attends no longer.
const OVERHEARD_MAX: usize = 256;
/// Far longer than any timer; stands for "no timer" in the wait.
const IDLE: Duration = Duration::from_secs(3600);

/// What takes the news of a trunk, by its endpoint name.
pub type TakesNews = Box<dyn Fn(&str, &TrunkNews) + Send>;

/// What takes a call that came in; `false`: there is no room for it.
pub type TakesCalls = Box<dyn Fn(Incoming) -> bool + Send>;

/// What the driver is given besides the engine.
pub struct Parts {
    /// The SIP sockets.
    pub sockets: sip::tokio::Sockets,
    /// The media workers.
    pub media: media::Media,
    /// What they hear.
    pub heard: media::EventReceiver,
    /// Woken by the workers when something was heard.
    pub heard_wake: Arc<Notify>,
    /// Takes each event, in order; must not block.
    pub events: Box<dyn Fn(Stamped) + Send>,
    /// Takes what became of a trunk, by its endpoint name, apart from any call; must not block.
    pub trunks: TakesNews,
    /// Takes each call that came in, to be answered by [`EngineHandle::receive`]; must not block.
    pub incoming: TakesCalls,
    /// How long a drain waits before it hangs up.
    pub drain: Duration,
}

enum Request {
    Originate(Arc<CallOrder>, oneshot::Sender<Result<(), CommandError>>),
    Command(CallId, Command, oneshot::Sender<Result<Accepted, CommandError>>),
    Receive(SessionId, Reception, oneshot::Sender<Result<(), CommandError>>),
    Ladder(CallName, oneshot::Sender<Result<Ladder, CommandError>>),
    Attend(CallId, oneshot::Sender<Result<mpsc::Receiver<Overheard>, CommandError>>),
    Watch(Vec<TrunkWatch>),
    Direct(Arc<Directory>),
    Drain(oneshot::Sender<()>),
}

/// How rooms above speak to the engine: down as orders and commands, each answered at once.
#[derive(Clone)]
pub struct EngineHandle {
    requests: mpsc::Sender<Request>,
    live: Arc<AtomicUsize>,
    sound: Arc<Sound>,
    workers: media::Punctuality,
}

/// What the calls that are over carried, in all their legs.
#[derive(Debug, Default)]
pub struct Sound {
    /// RTP packets taken.
    pub packets_in: AtomicU64,
    /// RTP packets sent.
    pub packets_out: AtomicU64,
    /// Packets that never came.
    pub lost: AtomicU64,
    /// Packets that came too late to be played.
    pub late: AtomicU64,
    /// Frames of sound made up for missing ones.
    pub concealed: AtomicU64,
    /// RTP from somebody else than the far end.
    pub strangers: AtomicU64,
}

impl Sound {
    fn count(&self, leg: &media::LegStats) {
        for (sum, new) in [
            (&self.packets_in, leg.packets_in),
            (&self.packets_out, leg.packets_out),
            (&self.lost, leg.lost),
            (&self.late, leg.late),
            (&self.concealed, leg.concealed),
            (&self.strangers, leg.strangers),
        ] {
            sum.fetch_add(new, Ordering::Relaxed);
        }
    }
}

impl EngineHandle {
    /// Hands a call over.
    ///
    /// # Errors
    /// [`CommandError::Unavailable`]: full, draining or gone. Nothing has been dialled then.
    pub async fn originate(&self, order: Arc<CallOrder>) -> Result<(), CommandError> {
        self.ask(|answer| Request::Originate(order, answer)).await
    }

    /// Asks something of a live call.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn command(&self, call: CallId, command: Command) -> Result<Accepted, CommandError> {
        self.ask(|answer| Request::Command(call, command, answer)).await
    }

    /// What becomes of a call that came in.
    ///
    /// # Errors
    /// As [`Engine::receive`].
    pub async fn receive(&self, ticket: SessionId, reception: Reception) -> Result<(), CommandError> {
        self.ask(|answer| Request::Receive(ticket, reception, answer)).await
    }

    /// The trunks that may bring calls from here on. `false`: the engine is too busy to hear it, or gone.
    pub fn direct(&self, directory: Arc<Directory>) -> bool {
        self.requests.try_send(Request::Direct(directory)).is_ok()
    }

    /// Attends a call: hears what happens on its line, and speaks in its place, until what is given back is dropped.
    /// It ends with the call, and where it is not read in time.
    ///
    /// # Errors
    /// [`CommandError::Attended`]; [`CommandError::UnknownCall`] for one that is over.
    pub async fn attend(&self, call: CallId) -> Result<mpsc::Receiver<Overheard>, CommandError> {
        self.ask(|answer| Request::Attend(call, answer)).await
    }

    /// The SIP messages of a call that is up here, or ended no long time ago.
    ///
    /// # Errors
    /// [`CommandError::UnknownCall`], [`CommandError::Unavailable`].
    pub async fn ladder(&self, name: CallName) -> Result<Ladder, CommandError> {
        self.ask(|answer| Request::Ladder(name, answer)).await
    }

    /// Keeps registrations at these trunks and asks for them now and then; at no others from here on. `false`: the
    /// engine is too busy to hear it, or gone.
    pub fn watch(&self, trunks: Vec<TrunkWatch>) -> bool {
        self.requests.try_send(Request::Watch(trunks)).is_ok()
    }

    /// Takes no more calls, lets the live ones end for a while, hangs up the rest, and returns when nothing is left.
    pub async fn drain(&self) {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Drain(answer)).await.is_ok() {
            // An engine that is gone has nothing left to drain.
            let _ = answered.await;
        }
    }

    /// Calls that have not ended.
    pub fn live_calls(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// What the calls that are over carried.
    pub fn sound(&self) -> &Sound {
        &self.sound
    }

    /// How punctual the media workers are.
    pub fn punctuality(&self) -> media::Metrics {
        self.workers.read()
    }

    /// The engine's task runs.
    pub fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// A handle onto an engine that a test plays itself: each order and each command goes to these functions.
    #[cfg(test)]
    pub(crate) fn scripted(
        mut originate: impl FnMut(Arc<CallOrder>) -> Result<(), CommandError> + Send + 'static,
        mut command: impl FnMut(CallId, Command) -> Result<Accepted, CommandError> + Send + 'static,
    ) -> Self {
        let (requests, mut waiting) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(async move {
            while let Some(request) = waiting.recv().await {
                // A requester that has gone away needs no answer.
                match request {
                    Request::Originate(order, answer) => drop(answer.send(originate(order))),
                    Request::Command(id, asked, answer) => drop(answer.send(command(id, asked))),
                    Request::Receive(_, _, answer) => drop(answer.send(Err(CommandError::UnknownCall))),
                    Request::Attend(_, answer) => drop(answer.send(Err(CommandError::Unavailable))),
                    Request::Ladder(_, answer) => drop(answer.send(Err(CommandError::UnknownCall))),
                    Request::Watch(_) | Request::Direct(_) => {}
                    Request::Drain(answer) => drop(answer.send(())),
                }
            }
        });
        Self { requests, live: Arc::default(), sound: Arc::default(), workers: media::Punctuality::default() }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Request,
    ) -> Result<T, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|_| CommandError::Unavailable)?;
        answered.await.unwrap_or(Err(CommandError::Unavailable))
    }
}

/// Starts the engine's task.
pub fn start(engine: Engine, parts: Parts) -> (EngineHandle, JoinHandle<()>) {
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let (live, sound) = (Arc::<AtomicUsize>::default(), Arc::<Sound>::default());
    let workers = parts.media.punctuality();
    let driver = Driver {
        engine,
        parts,
        live: live.clone(),
        sound: sound.clone(),
        draining: None,
        unclosed: Vec::new(),
        ears: BTreeMap::new(),
    };
    let task = tokio::spawn(driver.run(waiting));
    (EngineHandle { requests, live, sound, workers }, task)
}

/// The life of a call in three lines of the log; numbers, words and digits are nobody's business there.
fn log(stamped: &Stamped) {
    let call = stamped.call;
    if let CallEvent::Dialing { trunk, attempt } = &stamped.event {
        tracing::info!(%call, %trunk, attempt, "dialing");
    } else if let CallEvent::AttemptFailed { trunk, code, reason, elapsed_ms, .. } = &stamped.event {
        tracing::info!(%call, %trunk, code, %reason, elapsed_ms, "the attempt came to nothing");
    } else if let CallEvent::Ended { reason, q850, .. } = &stamped.event {
        tracing::info!(%call, reason = reason.as_str(), q850, "ended");
    } else {
        tracing::debug!(%call, "{}", stamped.event.name());
    }
}

fn log_news(trunk: &str, news: &TrunkNews) {
    match news {
        TrunkNews::Registered { for_s } => tracing::debug!(%trunk, for_s, "registered"),
        TrunkNews::RegisterFailed { code, reason, again_in_s } => {
            tracing::warn!(%trunk, code, %reason, again_in_s, "the registration failed");
        }
        TrunkNews::Unregistered => tracing::debug!(%trunk, "unregistered"),
        TrunkNews::Pinged { code, elapsed_ms } => {
            tracing::debug!(%trunk, code, elapsed_ms, "OPTIONS answered");
        }
        TrunkNews::PingMissed => tracing::warn!(%trunk, "OPTIONS unanswered"),
    }
}

/// Errors that repeating the datagram does not mend. All others, such as a full buffer or table of the system,
/// lose it as the network does, and RFC 3261's timers repeat it.
fn leads_nowhere(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, HostUnreachable, InvalidInput, NetworkUnreachable, QuotaExceeded, TimedOut,
        Unsupported,
    };
    let network = [AddrNotAvailable, HostUnreachable, NetworkUnreachable, TimedOut];
    let lasting = [network.as_slice(), &[InvalidInput, QuotaExceeded, Unsupported]].concat();
    lasting.contains(&error.kind()) || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// A drain under way.
struct Draining {
    answer: oneshot::Sender<()>,
    /// Live calls are hung up then.
    hang_up_at: Option<Instant>,
    /// Nothing is waited for any longer then.
    give_up_at: Instant,
}

struct Driver {
    engine: Engine,
    parts: Parts,
    live: Arc<AtomicUsize>,
    sound: Arc<Sound>,
    draining: Option<Draining>,
    /// Bridges whose closing found its worker's queue full: asked again each round.
    unclosed: Vec<media::BridgeId>,
    /// Who attends which call.
    ears: BTreeMap<CallId, mpsc::Sender<Overheard>>,
}

impl Driver {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let heard_wake = self.parts.heard_wake.clone();
        loop {
            self.perform();
            if self.drained() {
                return;
            }
            let wait = self.deadline();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                arrived = self.parts.sockets.wait() => match arrived {
                    Ok(()) => self.arrivals(),
                    Err(error) => {
                        tracing::warn!(%error, "receiving SIP");
                        tokio::time::sleep(SOCKET_PAUSE).await;
                    }
                },
                () = heard_wake.notified() => {}
                () = tokio::time::sleep_until(wait.into()) => {
                    self.engine.handle(clock::now(), Input::Timeout);
                }
            }
            self.heard();
            let workers = &self.parts.media;
            self.unclosed.retain(|bridge| workers.send(media::Command::Close { bridge: *bridge }).is_err());
        }
    }

    fn deadline(&self) -> Instant {
        let drain = self.draining.as_ref().map(|d| d.hang_up_at.unwrap_or(d.give_up_at));
        let idle = clock::now().mono + IDLE;
        [self.engine.poll_timeout(), drain].into_iter().flatten().min().unwrap_or(idle)
    }

    /// Takes what has come in, within bounds.
    fn arrivals(&mut self) {
        for taken in 1..=ROUND_MAX {
            let Some(arrival) = self.parts.sockets.take() else { return };
            let input = match &arrival {
                sip::tokio::Arrival::Message(from, bytes) => Input::Datagram(*from, bytes),
                sip::tokio::Arrival::Excess(from, bytes) => Input::Excess(*from, bytes),
                sip::tokio::Arrival::Unreachable(peer) => Input::Unreachable(*peer),
            };
            self.engine.handle(clock::now(), input);
            self.perform();
            if taken % LOOK_EVERY == 0 {
                self.parts.sockets.fill();
            }
        }
    }

    fn heard(&mut self) {
        for _ in 0..ROUND_MAX {
            let Some(event) = self.parts.heard.try_recv() else { return };
            if let media::Heard::Closed { stats } = &event.heard {
                stats.iter().for_each(|(_, leg)| self.sound.count(leg));
            }
            self.engine.handle(clock::now(), Input::Heard(event));
            self.perform();
        }
        self.parts.heard_wake.notify_one();
    }

    fn request(&mut self, request: Request) {
        let now = clock::now();
        // A requester that has gone away does not undo what was asked.
        match request {
            Request::Originate(_, answer) if self.draining.is_some() => {
                let _ = answer.send(Err(CommandError::Unavailable));
            }
            Request::Originate(order, answer) => {
                let placed = self.engine.originate(now, order);
                self.perform();
                let _ = answer.send(placed);
            }
            Request::Command(id, command, answer) => {
                let taken = self.engine.command(now, id, command);
                // Its events first: who asks next sees what was done.
                self.perform();
                let _ = answer.send(taken);
            }
            Request::Receive(ticket, reception, answer) => {
                let received = self.engine.receive(now, ticket, reception);
                self.perform();
                let _ = answer.send(received);
            }
            Request::Direct(directory) => self.engine.direct(directory),
            Request::Ladder(name, answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.engine.ladder(&name).ok_or(CommandError::UnknownCall));
            }
            Request::Attend(id, answer) => {
                // Whoever asked may be gone: the next thing overheard finds that out.
                let _ = answer.send(self.attend(now, id));
            }
            // Who stops is not registered again.
            Request::Watch(_) if self.draining.is_some() => {}
            Request::Watch(trunks) => self.engine.watch(now, trunks),
            Request::Drain(answer) => {
                self.engine.watch(now, Vec::new());
                self.engine.close_doors(now);
                let hang_up_at = now.mono + self.parts.drain;
                let give_up_at = hang_up_at + CLOSING_CEILING;
                self.draining = Some(Draining { answer, hang_up_at: Some(hang_up_at), give_up_at });
            }
        }
    }

    fn attend(&mut self, now: Now, id: CallId) -> Result<mpsc::Receiver<Overheard>, CommandError> {
        if self.ears.get(&id).is_some_and(|ear| !ear.is_closed()) {
            return Err(CommandError::Attended);
        }
        self.engine.command(now, id, Command::Attend { on: true })?;
        let (ear, overheard) = mpsc::channel(OVERHEARD_MAX);
        self.ears.insert(id, ear);
        self.perform();
        Ok(overheard)
    }

    fn overheard(&mut self, id: CallId, what: Overheard) {
        let Some(ear) = self.ears.get(&id) else { return };
        if ear.try_send(what).is_err() {
            self.ears.remove(&id);
            // A call that is over needs no word.
            let _ = self.engine.command(clock::now(), id, Command::Attend { on: false });
        }
    }

    /// Whether a drain is under way and finished; hangs up when its patience is over.
    fn drained(&mut self) -> bool {
        let Some(draining) = &mut self.draining else { return false };
        let now = clock::now();
        if draining.hang_up_at.take_if(|at| *at <= now.mono).is_some() {
            self.engine.shut_down(now);
            self.perform();
        }
        let (calls, sip) = self.engine.residue();
        let Some(mut draining) = self.draining.take() else { return false };
        if calls == 0 {
            draining.hang_up_at = None;
            draining.give_up_at = draining.give_up_at.min(now.mono + CLOSING_CEILING);
        }
        // A BYE or CANCEL that was lost is repeated: nobody is left in a call that is over for us.
        let done = calls == 0 && sip.waiting == 0;
        if !done && draining.give_up_at > now.mono {
            self.draining = Some(draining);
            return false;
        }
        // Whoever asked may be gone.
        let _ = draining.answer.send(());
        true
    }

    /// Performs all outputs: the one invariant of use.
    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => {
                    log(&event);
                    let over = matches!(event.event, CallEvent::Ended { .. }).then_some(event.call);
                    (self.parts.events)(event);
                    // Afterwards: whose ear is closed and who then looks finds that the call is over.
                    if let Some(call) = over {
                        self.ears.remove(&call);
                    }
                }
                Output::Overheard(call, what) => self.overheard(call, what),
                Output::Trunk(trunk, news) => {
                    log_news(&trunk, &news);
                    (self.parts.trunks)(&trunk, &news);
                }
                Output::Incoming(incoming) => {
                    let ticket = incoming.ticket;
                    if !(self.parts.incoming)(incoming) {
                        let refused = Reception::Refuse { code: 503, retry_after_s: Some(RETRY_AFTER_S) };
                        // A caller that is gone already needs no refusal.
                        let _ = self.engine.receive(clock::now(), ticket, refused);
                    }
                }
                Output::Transmit(transmit) => self.transmit(&transmit),
                Output::Media(command) => self.media(command),
            }
        }
        self.live.store(self.engine.live_calls(), Ordering::Relaxed);
    }

    fn transmit(&mut self, transmit: &sip::Transmit) {
        let name = self.engine.server_name(transmit.to);
        // A full socket buffer loses the datagram like the network does; RFC 3261's timers repeat it.
        let Err(error) = self.parts.sockets.send(transmit, name) else { return };
        tracing::debug!(to = %transmit.to.addr, %error, "sending SIP");
        if leads_nowhere(&error) {
            self.engine.handle(clock::now(), Input::Unreachable(transmit.to));
        }
    }

    fn media(&mut self, command: media::Command) {
        let bridge = command.bridge();
        let closes = matches!(command, media::Command::Close { .. });
        if self.parts.media.send(command).is_ok() {
            return;
        }
        if closes {
            self.unclosed.push(bridge);
        } else {
            let error = "the media worker does not keep up".to_owned();
            let heard = media::Heard::Failed { leg: media::LegId(0), error };
            self.engine.handle(clock::now(), Input::Heard(media::Event { bridge, heard }));
        }
    }
}

//! Attends a call in an application's name: one task between the WebSocket, the line and the pure [`Session`]. An
//! application that goes away without a word may come back while the caller hears music; one that does not is
//! apologised for. It decides nothing that [`Session`] could.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at};

use super::Desk;
use super::frames::{self, Setup};
use super::line::{Line, News};
use super::options::{Options, Sensitivity};
use super::park::{Returned, Waiting, Whence};
use super::session::{Act, Session, close};
use super::socket::{Frame, Gone, Socket};
use crate::clock;
use crate::hearing::HearingEvent;
use crate::model::call::{CallView, Command, Overheard};
use crate::model::event::CallEvent;

/// The peer is asked so often whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Where it wants to know how long a round trip takes, so often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// And is gone when nothing was heard of it for so long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// How often the far end's sound is led to the recogniser: a frame's length.
const FRAME: Duration = Duration::from_millis(20);
/// An application that is lost so often does not come back any more.
const LOST_MAX: u32 = 5;
/// Codes of closings that are meant: what was wanted is done, or no reason is given (RFC 6455 §7.4.1).
const MEANT: [u16; 2] = [close::NORMAL, 1005];

/// How a session ended.
enum Ended {
    /// The application said `end`, and all was heard.
    Done,
    /// The call is over, or somebody else has it: nothing is left to do.
    Over(u16, &'static str),
    /// The application broke the rules, or closed.
    Lost(u16, &'static str),
    /// It went away without a word.
    Broken(&'static str),
}

/// A call attended by an application.
pub struct Attendance {
    /// What it is attended with.
    pub desk: Desk,
    /// The call as it was when the attendance began.
    pub view: Arc<CallView>,
    /// What happens on its line.
    pub overheard: mpsc::Receiver<Overheard>,
    /// The call goes on when the application is done.
    pub keeps: bool,
    /// What is listened to where the session's options do not say, BCP 47.
    pub language: String,
    /// Where the application is, for when it is lost.
    pub whence: Whence,
}

struct Work {
    desk: Desk,
    view: Arc<CallView>,
    overheard: mpsc::Receiver<Overheard>,
    language: String,
    line: Line,
    session: Session,
    hints: Vec<String>,
    frames: Interval,
    /// When the application was asked whether it lives, until it answers.
    asked: Option<Instant>,
}

/// Attends until the application is done, one of both is gone for good, or the call is over.
pub async fn run(attendance: Attendance, returned: Returned) {
    let Attendance { desk, view, overheard, keeps, language, whence } = attendance;
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let Returned { mut socket, mut until, options } = returned;
    let mut work = Work {
        line: Line::new(desk.clone(), &view),
        session: Session::new(setup(&view), heard_with(&desk, options.clone()), &language),
        desk,
        view,
        overheard,
        language,
        hints: Vec::new(),
        frames,
        asked: None,
    };
    work.begin(options, false);
    let mut lost = 0;
    let ended = loop {
        let ended = tokio::select! {
            ended = work.talk(&mut socket) => ended,
            () = &mut until => Ended::Over(close::POLICY, "The key is no longer accepted."),
        };
        let Ended::Broken(why) = ended else { break ended };
        lost += 1;
        let waiting = whence.wait(&work.desk, work.view.order.id);
        work.left(why).await;
        let back = if lost < LOST_MAX { work.park(waiting).await } else { Ok(None) };
        match back {
            Ok(Some(returned)) => {
                let options = returned.options;
                (socket, until) = (returned.socket, returned.until);
                work.line.command(Command::StopPlayback).await;
                work.begin(options, true);
            }
            Ok(None) => {
                work.line.apologise().await;
                return;
            }
            Err(over) => break over,
        }
    };
    work.end(ended, socket, keeps).await;
}

/// Who is not listened to cannot be waited for to say a word.
fn heard_with(desk: &Desk, mut options: Options) -> Options {
    if !desk.means.hearing.is_available() {
        options.sensitivity = Sensitivity::High;
    }
    options
}

impl Work {
    /// A session begins, the first or another one with the application that came back.
    fn begin(&mut self, options: Options, again: bool) {
        self.hints.clone_from(&options.hints);
        self.line.clear(options.voice.clone());
        self.asked = None;
        if again {
            let setup = setup(&self.view);
            self.session = self.session.anew(setup, heard_with(&self.desk, options), &self.language);
        }
    }

    async fn talk(&mut self, socket: &mut Socket) -> Ended {
        let every = if self.session.tells_round_trips() { MEASURE_EVERY } else { PING_EVERY };
        let mut pings = interval_at(Instant::now() + every, every);
        let mut alive = Instant::now();
        let mut acts = if self.line.is_answered() { self.session.begin() } else { Vec::new() };
        loop {
            match self.perform(&mut acts, socket).await {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(Gone::Broken) => return Ended::Broken("The application has gone."),
                Err(Gone::Slow) => return Ended::Lost(close::TRY_LATER, "The application does not read."),
            }
            acts = tokio::select! {
                what = self.overheard.recv() => match what {
                    Some(what) => self.session.overheard(&what, Line::number),
                    None => return self.unheard(),
                },
                frame = socket.receive() => {
                    alive = Instant::now();
                    match self.frame(frame) {
                        Ok(acts) => acts,
                        Err(ended) => return ended,
                    }
                }
                news = self.line.news() => match news {
                    News::Prepared(number, length) => self.session.prepared(number, length),
                    News::Heard(event) => self.heard(event),
                },
                _ = self.frames.tick() => {
                    self.line.hear();
                    Vec::new()
                }
                _ = pings.tick() => {
                    if alive.elapsed() > SILENT_MAX || socket.ping().is_err() {
                        return Ended::Broken("The application is silent.");
                    }
                    self.asked = Some(Instant::now());
                    Vec::new()
                }
            };
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<Vec<Act>, Ended> {
        match frame {
            Frame::Text(text) => Ok(self.session.frame(&text)),
            // What is no text is no message.
            Frame::Other => Ok(self.session.frame("")),
            Frame::Ping => Ok(Vec::new()),
            Frame::Pong => {
                let asked = self.asked.take();
                Ok(asked.map(|at| self.session.round_trip(at.elapsed().as_millis())).unwrap_or_default())
            }
            Frame::TooLarge => Err(Ended::Lost(close::TOO_LARGE, "A frame is too large.")),
            Frame::Closed(code) if MEANT.contains(&code) => {
                Err(Ended::Lost(close::NORMAL, "The application has gone."))
            }
            Frame::Closed(_) => Err(Ended::Broken("The application has gone.")),
        }
    }

    fn heard(&mut self, event: HearingEvent) -> Vec<Act> {
        match event {
            // Our own detector has told of it.
            HearingEvent::SpeechStarted => Vec::new(),
            HearingEvent::Partial { text } => self.session.understood(&text, false),
            HearingEvent::Final { text } => self.session.understood(&text, true),
            HearingEvent::Failed { error } => {
                tracing::error!(call = %self.view.order.id, %error, "no recogniser is left: no more prompts are sent");
                self.line.deaf();
                vec![Act::Send(frames::error("Speech is not recognised any more"))]
            }
        }
    }

    async fn perform(&mut self, acts: &mut Vec<Act>, socket: &Socket) -> Result<Option<Ended>, Gone> {
        let mut waiting: Vec<Act> = std::mem::take(acts);
        while !waiting.is_empty() {
            let mut more = Vec::new();
            for act in waiting.drain(..) {
                match act {
                    Act::Send(text) => socket.send(text)?,
                    Act::Speak(number, words, language) => self.line.speak(number, words, language),
                    Act::Fetch(number, source) => self.line.fetch(number, source),
                    Act::Play(number) => {
                        if let Err(why) = self.line.play(number).await {
                            more.extend(self.session.prepared(number, Err(why)));
                        }
                    }
                    Act::Cut => self.line.command(Command::StopPlayback).await,
                    Act::Press(digits) => self.line.command(Command::SendDigits { digits }).await,
                    Act::Listen(language) => self.listen(language).await,
                    Act::Saying(by, text, turn) => self.line.saying(by, text, turn),
                    Act::Said(by, text, turn) => {
                        self.line.record(CallEvent::Said { by, text, turn, span: None });
                    }
                    Act::HandOff(data) => self.line.record(CallEvent::HandedOff { data }),
                    Act::Done => return Ok(Some(Ended::Done)),
                    Act::Close(code @ close::NORMAL, reason) => return Ok(Some(Ended::Over(code, reason))),
                    Act::Close(code, reason) => return Ok(Some(Ended::Lost(code, reason))),
                }
            }
            waiting = more;
        }
        Ok(None)
    }

    async fn listen(&mut self, language: String) {
        if let Err(error) = self.line.listen(language, self.hints.clone()).await {
            tracing::info!(call = %self.view.order.id, %error, "the relay application gets keys and no prompts");
        }
    }

    /// The line says nothing more: the call is over, or this task was too slow for it.
    fn unheard(&self) -> Ended {
        if self.line.is_live() {
            return Ended::Lost(close::TRY_LATER, "The session is too slow.");
        }
        Ended::Over(close::NORMAL, "The call is over.")
    }

    /// Nobody talks on the call any more: it is said so.
    async fn left(&mut self, why: &str) {
        tracing::warn!(call = %self.view.order.id, why, "the relay application is lost");
        self.line.mishap("relay_lost", why);
        for act in self.session.leave() {
            if let Act::Said(by, text, turn) = act {
                self.line.record(CallEvent::Said { by, text, turn, span: None });
            }
        }
        self.line.command(Command::StopPlayback).await;
    }

    /// The caller hears music until the application is back, or nobody waits for it any more.
    async fn park(&mut self, waiting: Waiting<'_>) -> Result<Option<Returned>, Ended> {
        self.line.clear(None);
        let name = self.line.music_name();
        let mut plays = self.line.is_answered() && self.line.music().await;
        let desk = self.desk.clone();
        let back = waiting.back(&desk, self.view.order.id);
        tokio::pin!(back);
        loop {
            tokio::select! {
                returned = &mut back => return Ok(returned),
                what = self.overheard.recv() => match what {
                    Some(Overheard::Played { playback, completed: true, .. }) if plays && playback == name => {
                        plays = self.line.music().await;
                    }
                    Some(Overheard::Transferred) => {
                        return Err(Ended::Over(close::NORMAL, "The call was transferred."));
                    }
                    Some(_) => {}
                    None => return Err(self.unheard()),
                },
            }
        }
    }

    async fn end(mut self, ended: Ended, socket: Socket, keeps: bool) {
        match ended {
            Ended::Done => {
                // From here on the call is nobody's, or ends.
                self.overheard.close();
                socket.close(close::NORMAL, "");
                if !keeps {
                    self.line.command(Command::HangUp { drain: true }).await;
                }
            }
            Ended::Over(code, reason) => socket.close(code, reason),
            Ended::Lost(code, reason) => {
                socket.close(code, reason);
                self.left(reason).await;
                self.overheard.close();
                self.line.apologise().await;
            }
            // That is no end.
            Ended::Broken(_) => {}
        }
    }
}

fn setup(view: &CallView) -> Setup {
    let order = &view.order;
    let sid = |prefix: &str, of: &str| {
        let hash = Sha256::digest(of.as_bytes());
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{prefix}{hex}")
    };
    let shown = order.from.as_ref().map(|from| from.user().to_owned()).unwrap_or_default();
    Setup {
        session: sid("VX", &format!("{}/{}", order.id.hex(), clock::now().wall.0)),
        account: sid("AC", &order.tenant),
        call: order.id.call_sid(),
        from: shown,
        to: order.to.e164(),
        direction: order.purpose.direction.as_str(),
        parameters: frames::parameters(&order.purpose.context),
    }
}

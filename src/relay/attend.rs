//! Attends a call in an application's name: one task between the WebSocket, the line and the pure [`Session`]. It makes
//! words into sound, fetches sounds, tells the feed what is said, and ends the call when the application is done or
//! gone. It decides nothing that [`Session`] could.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use super::frames::{self, Setup};
use super::session::{Act, Session, close};
use super::socket::{Frame, Gone, Socket};
use super::{PLAYBACK, Until, fetch};
use crate::clock;
use crate::control::Rooms;
use crate::journal::{Notice, Told};
use crate::model::CallId;
use crate::model::call::{CallState, CallView, Command, Overheard};
use crate::model::event::{CallEvent, PlayTo, Speaker, Stamped};

/// The peer is asked so often whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// And is gone when nothing was heard of it for so long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Words must be sound in this time.
const SPEECH_WITHIN: Duration = Duration::from_secs(10);

/// How an attendance ended.
enum Ended {
    /// The application said `end`, and all was heard.
    Done,
    /// The call is over, or somebody else has it: nothing is left to do.
    Over(u16, &'static str),
    /// The application went away, or broke the rules.
    Lost(u16, &'static str),
}

/// A call attended by an application.
pub struct Attendance {
    /// The rooms below.
    pub rooms: Rooms,
    /// Fetches sounds.
    pub client: reqwest::Client,
    /// The call as it was when the attendance began.
    pub view: Arc<CallView>,
    /// What happens on its line.
    pub overheard: mpsc::Receiver<Overheard>,
    /// The call goes on when the application is done.
    pub keeps: bool,
    /// The application may talk until then; the call goes on without it.
    pub until: Until,
}

type Prepared = (u64, Result<Arc<media::Clip>, String>);

struct Work {
    rooms: Rooms,
    client: reqwest::Client,
    call: CallId,
    tenant: String,
    voice: String,
    kaphila_id: String,
    clips: BTreeMap<u64, Arc<media::Clip>>,
    preparing: JoinSet<Prepared>,
}

/// Attends until the application is done, one of both is gone, or the call is over.
pub async fn run(attendance: Attendance, mut socket: Socket) {
    let Attendance { rooms, client, view, mut overheard, keeps, mut until } = attendance;
    let order = &view.order;
    let mut work = Work {
        client,
        call: order.id,
        tenant: order.tenant.clone(),
        voice: order.voice_name.clone(),
        kaphila_id: order.kaphila_id.clone(),
        clips: BTreeMap::new(),
        preparing: JoinSet::new(),
        rooms,
    };
    let answered = work.rooms.live.get(order.id).is_some_and(|view| view.state == CallState::Answered);
    let mut session = Session::new(setup(&view));
    let ended = tokio::select! {
        ended = talk(&mut work, &mut session, &mut socket, &mut overheard, answered) => ended,
        () = &mut until => Ended::Over(close::POLICY, "The key is no longer accepted."),
    };
    // From here on the call is nobody's, or ends.
    drop(overheard);
    match ended {
        Ended::Done => {
            socket.close(close::NORMAL, "").await;
            if !keeps {
                work.hang_up().await;
            }
        }
        Ended::Over(code, reason) => socket.close(code, reason).await,
        Ended::Lost(code, reason) => {
            work.lost(reason).await;
            socket.close(code, reason).await;
        }
    }
}

async fn talk(
    work: &mut Work,
    session: &mut Session,
    socket: &mut Socket,
    overheard: &mut mpsc::Receiver<Overheard>,
    answered: bool,
) -> Ended {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let mut alive = Instant::now();
    let mut acts = if answered { session.begin() } else { Vec::new() };
    loop {
        match work.perform(&mut acts, session, socket).await {
            Ok(None) => {}
            Ok(Some(ended)) => return ended,
            Err(Gone) => return Ended::Lost(close::TRY_LATER, "The application does not read."),
        }
        acts = tokio::select! {
            what = overheard.recv() => match what {
                Some(what) => {
                    let named = |name: &str| name.rsplit_once('-')?.1.parse().ok();
                    session.overheard(&what, named)
                }
                None => return work.unheard(),
            },
            frame = socket.receive() => match frame {
                Some(frame) => {
                    alive = Instant::now();
                    match frame {
                        Frame::Text(text) => session.frame(&text),
                        Frame::Other => session.frame(""),
                        Frame::Pong => Vec::new(),
                        Frame::TooLarge => return Ended::Lost(close::TOO_LARGE, "A frame is too large."),
                    }
                }
                None => return Ended::Lost(close::NORMAL, "The application has gone."),
            },
            Some(prepared) = work.preparing.join_next() => match prepared {
                Ok((number, Ok(clip))) => {
                    let length = clip.duration_ms();
                    work.clips.insert(number, clip);
                    session.prepared(number, Ok(length))
                }
                Ok((number, Err(why))) => session.prepared(number, Err(why)),
                // A preparation that crashed said so in the log.
                Err(_) => Vec::new(),
            },
            _ = pings.tick() => {
                if alive.elapsed() > SILENT_MAX || socket.ping().await.is_err() {
                    return Ended::Lost(close::POLICY, "The application is silent.");
                }
                Vec::new()
            }
        };
    }
}

impl Work {
    async fn perform(
        &mut self,
        acts: &mut Vec<Act>,
        session: &mut Session,
        socket: &mut Socket,
    ) -> Result<Option<Ended>, Gone> {
        let mut waiting: Vec<Act> = std::mem::take(acts);
        while !waiting.is_empty() {
            let mut more = Vec::new();
            for act in waiting.drain(..) {
                match act {
                    Act::Send(text) => socket.send(text).await?,
                    Act::Speak(number, words) => self.speak(number, words),
                    Act::Fetch(number, source) => self.fetch(number, source),
                    Act::Play(number) => more.extend(self.play(number, session).await),
                    Act::Cut => self.command(Command::StopPlayback).await,
                    Act::Press(digits) => self.command(Command::SendDigits { digits }).await,
                    Act::Saying(text, turn) => {
                        self.tell(Notice::Saying { by: Speaker::Agent, text, turn });
                    }
                    Act::Said(text, turn) => {
                        self.record(CallEvent::Said { by: Speaker::Agent, text, turn });
                    }
                    Act::HandOff(data) => self.record(CallEvent::HandedOff { data }),
                    Act::Done => return Ok(Some(Ended::Done)),
                    Act::Close(code @ close::NORMAL, reason) => return Ok(Some(Ended::Over(code, reason))),
                    Act::Close(code, reason) => return Ok(Some(Ended::Lost(code, reason))),
                }
            }
            waiting = more;
        }
        Ok(None)
    }

    fn speak(&mut self, number: u64, words: String) {
        let (speech, voice) = (self.rooms.speech.clone(), self.voice.clone());
        self.preparing.spawn(async move {
            let spoken = tokio::time::timeout(SPEECH_WITHIN, speech.say(&words, &voice)).await;
            let clip = match spoken {
                Ok(Ok(clip)) => Ok(clip),
                Ok(Err(error)) => Err(format!("The text could not be spoken: {error}")),
                Err(_) => Err("The text could not be spoken in time".to_owned()),
            };
            (number, clip)
        });
    }

    fn fetch(&mut self, number: u64, source: String) {
        let (client, rooms) = (self.client.clone(), self.rooms.clone());
        self.preparing.spawn(async move {
            let sound = fetch::sound(&client, &source, &rooms.config.webhooks, &rooms.sounds).await;
            (number, sound.map_err(|error| format!("The sound cannot be played: {error}")))
        });
    }

    async fn play(&mut self, number: u64, session: &mut Session) -> Vec<Act> {
        let Some(clip) = self.clips.get(&number).cloned() else { return Vec::new() };
        // Those before it were heard, and are not heard again.
        self.clips = self.clips.split_off(&number.saturating_sub(2));
        let playback = format!("{PLAYBACK}{}-{number}", self.kaphila_id);
        let play = Command::Play { playback, clip, text: None, file: None, to: PlayTo::Bridge };
        match self.rooms.engine.command(self.call, play).await {
            Ok(_) => Vec::new(),
            Err(error) => session.prepared(number, Err(format!("It cannot be played: {error}"))),
        }
    }

    async fn command(&self, command: Command) {
        if let Err(error) = self.rooms.engine.command(self.call, command).await {
            tracing::debug!(call = %self.call, %error, "an application's wish came too late");
        }
    }

    async fn hang_up(&self) {
        self.command(Command::HangUp { drain: true }).await;
    }

    fn record(&self, event: CallEvent) {
        self.rooms.journal.record(Stamped { call: self.call, at: clock::now().wall, event });
    }

    fn tell(&self, notice: Notice) {
        let (tenant, call, at) = (self.tenant.clone(), self.call, clock::now().wall);
        self.rooms.journal.feed().tell(Told { tenant, call, at, notice });
    }

    /// The line says nothing more: the call is over, or this task was too slow for it.
    fn unheard(&self) -> Ended {
        let live = self.rooms.live.get(self.call).is_some_and(|view| view.state != CallState::Ended);
        if live {
            return Ended::Lost(close::TRY_LATER, "The session is too slow.");
        }
        Ended::Over(close::NORMAL, "The call is over.")
    }

    /// Nobody talks on the call any more: it is said so, and the caller is not left alone.
    async fn lost(&mut self, why: &str) {
        tracing::warn!(call = %self.call, why, "the relay application is lost");
        self.tell(Notice::Mishap { code: "relay_lost", message: why.to_owned() });
        apologise(&self.rooms, self.call, &self.voice).await;
    }
}

/// Says that nothing can be done, and ends the call when that was heard.
pub async fn apologise(rooms: &Rooms, call: CallId, voice: &str) {
    let words = &rooms.config.agent.fallback_text;
    let spoken = tokio::time::timeout(SPEECH_WITHIN, rooms.speech.say(words, voice)).await;
    if let Ok(Ok(clip)) = spoken {
        let (playback, text) = (format!("tts-{}-fallback", call.hex()), Some(words.clone()));
        let play = Command::Play { playback, clip, text, file: None, to: PlayTo::Bridge };
        for command in [Command::StopPlayback, play] {
            if rooms.engine.command(call, command).await.is_err() {
                break;
            }
        }
    }
    if let Err(error) = rooms.engine.command(call, Command::HangUp { drain: true }).await {
        tracing::debug!(%call, %error, "the call was over");
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

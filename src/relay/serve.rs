//! A ConversationRelay platform that is not ours connects, and we are its application (CONTRACT 1.2 `/relay/ws` use a).
//! What is said is told by the platform and kept as turns of the call; the agent answers in text, thinking with the
//! configured language model. Where there is none it says its fallback, and nothing is invented.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval_at, sleep_until};

use super::frames::{self, FromPlatform, Malformed};
use super::session::close;
use super::socket::{Frame, Gone, Socket};
use super::{Desk, Until};
use crate::agent::keeper;
use crate::agent::writing::{Ending, Writer, Written};
use crate::clock;
use crate::control::adopt::Adopted;
use crate::control::{Caller, Rooms};
use crate::journal::{Notice, Told};
use crate::model::agent::{Agent, AgentSettings};
use crate::model::call::CallView;
use crate::model::event::{CallEvent, DigitSource, Speaker, Stamped};
use crate::model::purpose::Direction;
use crate::model::{CallId, CallerId, PhoneNumber};
use crate::store::agents::AgentName;
use crate::store::numbers::OnCall;

/// `setup` must come in this time.
const SETUP_WITHIN: Duration = Duration::from_secs(5);
/// The platform is asked so often whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// And is gone when nothing was heard of it for so long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// A platform that was told the end closes in this time.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Malformed frames in a row that end a session.
const MALFORMED_MAX: u8 = 10;
/// A number where the platform tells none that can be one.
const NOBODY: &str = "000";

/// How a session ends.
type Closing = (u16, &'static str);

struct Conversation {
    rooms: Rooms,
    view: Arc<CallView>,
    settings: Option<AgentSettings>,
    /// Who thinks; nobody where no language model is configured.
    writer: Option<Writer>,
    turn: u32,
    malformed: u8,
    /// The platform was told the end, and closes by then.
    ending: Option<Instant>,
}

/// Serves one platform's connection until either side is done, or `until` ends. `caller`: whose key it showed, where it
/// showed one.
pub async fn run(desk: Desk, caller: Option<Caller>, mut socket: Socket, mut until: Until) {
    let first = match tokio::time::timeout(SETUP_WITHIN, socket.receive()).await {
        Ok(Frame::Text(text)) => FromPlatform::read(&text).ok(),
        Ok(_) | Err(_) => None,
    };
    let Some(FromPlatform::Setup { call, from, to, inbound, parameters }) = first else {
        return socket.close(close::POLICY, "The first message must be setup.");
    };
    let to = PhoneNumber::parse_lenient(&to).or_else(|| PhoneNumber::from_digits(NOBODY));
    let Some(to) = to else { return };
    let named = parameters.get("agent_id").and_then(|id| id.as_str()).map(str::to_owned);
    let caller = match caller {
        Some(caller) => Some(caller),
        None => desk.calls.caller_of_platform(named.as_deref(), &to).await.unwrap_or_else(|error| {
            tracing::error!(%error, "whose a platform's call is could not be looked up");
            None
        }),
    };
    let Some(caller) = caller else {
        return socket.close(close::POLICY, "The number is nobody's here.");
    };
    let agent = agent(&desk.rooms, &caller.key.tenant, named.as_deref(), &to).await;
    let adopted = Adopted {
        id: CallId::from_call_sid(&call),
        direction: if inbound { Direction::Inbound } else { Direction::Outbound },
        from: CallerId::parse(&from),
        to,
        agent: agent.as_ref().map(|agent| agent.id),
        voice_name: agent.as_ref().map(|agent| agent.settings.voice.clone()).unwrap_or_default(),
        context: parameters,
    };
    let view = match desk.calls.adopt(&caller, adopted).await {
        Ok(view) => view,
        Err(error) => {
            tracing::warn!(%error, "a platform's call could not be taken in");
            return socket.close(close::TRY_LATER, "The call cannot be taken.");
        }
    };
    let id = view.order.id;
    let writer = writer(&desk, &view, agent.as_ref());
    let (rooms, settings) = (desk.rooms.clone(), agent.map(|agent| agent.settings));
    let mut conversation =
        Conversation { rooms, view, settings, writer, turn: 0, malformed: 0, ending: None };
    let (code, reason) = tokio::select! {
        closing = conversation.talk(&mut socket) => closing,
        () = &mut until => (close::POLICY, "The key is no longer accepted."),
    };
    if let Some(writer) = conversation.writer.take() {
        writer.finish();
    }
    desk.calls.give_up(id);
    socket.close(code, reason);
}

/// Who thinks on this call.
fn writer(desk: &Desk, view: &CallView, agent: Option<&Agent>) -> Option<Writer> {
    let Some(llm) = desk.means.llm.clone() else {
        tracing::info!(call = %view.order.id, "no language model is configured: the agent says its fallback");
        return None;
    };
    let manner = keeper::manner(&desk.rooms, view, agent);
    let (rooms, asks, order) = (desk.rooms.clone(), desk.means.client.clone(), Arc::clone(&view.order));
    Some(Writer::new(rooms, llm, asks, order, manner))
}

/// The agent by the name that the platform was told, else by the number that was called.
async fn agent(rooms: &Rooms, tenant: &str, named: Option<&str>, to: &PhoneNumber) -> Option<Agent> {
    let name = match named {
        Some(name) => name.to_owned(),
        None => {
            match rooms.db.number(to).await.ok().flatten().filter(|number| number.tenant == tenant)?.on_call {
                OnCall::Agent(name) => name,
                OnCall::Nothing | OnCall::Webhook { .. } | OnCall::Play(_) | OnCall::Echo => return None,
            }
        }
    };
    rooms.db.agent(tenant, AgentName::Public(&name)).await.ok().flatten()
}

/// What the agent writes next. Never ends where nobody thinks, or nothing more is wanted.
async fn written(writer: Option<&mut Writer>) -> Vec<Written> {
    match writer {
        Some(writer) => writer.next().await,
        None => std::future::pending().await,
    }
}

impl Conversation {
    async fn talk(&mut self, socket: &mut Socket) -> Closing {
        let longest = self.rooms.config.limits.max_call_duration_s;
        let own = self.settings.as_ref().and_then(|settings| settings.max_call_duration_s);
        let longest = own.map_or(longest, |own| own.min(longest));
        let over = Instant::now() + Duration::from_secs(longest.into());
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut alive = Instant::now();
        let mut done = self.begin(socket);
        loop {
            if done.is_err() {
                return (close::TRY_LATER, "The platform does not read.");
            }
            let until = self.ending.unwrap_or(over).min(over);
            let writer = self.writer.as_mut().filter(|_| self.ending.is_none());
            done = tokio::select! {
                frame = socket.receive() => {
                    alive = Instant::now();
                    match self.came(socket, frame) {
                        Ok(done) => done,
                        Err(closing) => return closing,
                    }
                }
                written = written(writer) => self.write(socket, written),
                _ = pings.tick() => {
                    if alive.elapsed() > SILENT_MAX || socket.ping().is_err() {
                        return (close::POLICY, "The platform is silent.");
                    }
                    Ok(())
                }
                () = sleep_until(until) => {
                    let ended = self.ending.is_some();
                    return (close::NORMAL, if ended { "" } else { "The call is too long." });
                }
            };
        }
    }

    /// The agent's own first words.
    fn begin(&mut self, socket: &Socket) -> Result<(), Gone> {
        if let Some(writer) = &mut self.writer {
            let written = writer.begin();
            return self.write(socket, written);
        }
        let greeting = self.settings.as_ref().and_then(|settings| settings.first_message.clone());
        greeting.map_or(Ok(()), |greeting| self.say(socket, &greeting))
    }

    fn came(&mut self, socket: &Socket, frame: Frame) -> Result<Result<(), Gone>, Closing> {
        let text = match frame {
            Frame::Text(text) => text,
            // What is no text is no message.
            Frame::Other => String::new(),
            Frame::Ping | Frame::Pong => return Ok(Ok(())),
            Frame::TooLarge => return Err((close::TOO_LARGE, "A frame is too large.")),
            Frame::Closed(_) => return Err((close::NORMAL, "")),
        };
        let frame = match FromPlatform::read(&text) {
            Ok(FromPlatform::Setup { .. }) => {
                Err(Malformed("Invalid message received: a second setup".into()))
            }
            read => read,
        };
        match frame {
            Ok(frame) => {
                self.malformed = 0;
                Ok(self.told(socket, frame))
            }
            Err(Malformed(told)) => {
                self.malformed += 1;
                let sent = socket.send(frames::error(&told));
                if self.malformed >= MALFORMED_MAX {
                    return Err((close::POLICY, "Too many consecutive malformed messages."));
                }
                Ok(sent)
            }
        }
    }

    fn told(&mut self, socket: &Socket, frame: FromPlatform) -> Result<(), Gone> {
        if self.ending.is_some() {
            return Ok(());
        }
        match frame {
            FromPlatform::Prompt { text, last: false } => {
                match &self.writer {
                    Some(writer) => writer.saying(text),
                    None => {
                        let (by, turn) = (Speaker::Caller, self.turn + 1);
                        self.tell(Notice::Saying { by, text, turn });
                    }
                }
                Ok(())
            }
            FromPlatform::Prompt { text, last: true } => match &mut self.writer {
                Some(writer) => {
                    let written = writer.said(text);
                    self.write(socket, written)
                }
                None => self.answer(socket, text),
            },
            FromPlatform::Dtmf(digit) => {
                self.record(CallEvent::Digit { digit, source: DigitSource::Info });
                let written = self.writer.as_mut().map(|writer| writer.pressed(digit));
                self.write(socket, written.unwrap_or_default())
            }
            FromPlatform::Interrupt { heard } => {
                let written = self.writer.as_mut().map(|writer| writer.interrupted(heard));
                self.write(socket, written.unwrap_or_default())
            }
            FromPlatform::Error(description) => {
                // Its words may quote what was said.
                let bytes = description.len();
                tracing::warn!(call = %self.view.order.id, bytes, "the platform complains");
                Ok(())
            }
            FromPlatform::Setup { .. } | FromPlatform::Info => Ok(()),
        }
    }

    /// What the agent writes goes out.
    fn write(&mut self, socket: &Socket, written: Vec<Written>) -> Result<(), Gone> {
        for written in written {
            if self.ending.is_some() {
                break;
            }
            match written {
                Written::Token { text, last } => socket.send(frames::text(&text, last))?,
                Written::Press(digits) => socket.send(frames::send_digits(&digits))?,
                Written::End(ending) => {
                    let handoff = match ending {
                        Ending::HangUp => json!({ "reasonCode": "hang_up" }),
                        Ending::Transfer(to) => json!({ "reasonCode": "transfer", "to": to.e164() }),
                    };
                    self.record(CallEvent::HandedOff { data: handoff.to_string() });
                    socket.send(frames::end(&handoff))?;
                    self.ending = Some(Instant::now() + CLOSE_WITHIN);
                }
            }
        }
        Ok(())
    }

    /// Nobody thinks: what was said is kept, and answered by the fallback.
    fn answer(&mut self, socket: &Socket, text: String) -> Result<(), Gone> {
        self.turn += 1;
        self.record(CallEvent::Said { by: Speaker::Caller, text, turn: self.turn, span: None });
        let answer = self.rooms.config.agent.fallback_text.clone();
        self.say(socket, &answer)
    }

    fn say(&mut self, socket: &Socket, words: &str) -> Result<(), Gone> {
        socket.send(frames::text(words, true))?;
        self.turn += 1;
        let (by, turn) = (Speaker::Agent, self.turn);
        self.tell(Notice::Saying { by, text: words.to_owned(), turn });
        self.record(CallEvent::Said { by, text: words.to_owned(), turn, span: None });
        Ok(())
    }

    fn record(&self, event: CallEvent) {
        let (call, at) = (self.view.order.id, clock::now().wall);
        self.rooms.journal.record(Stamped { call, at, event });
    }

    fn tell(&self, notice: Notice) {
        let order = &self.view.order;
        let (tenant, call, at) = (order.tenant.clone(), order.id, clock::now().wall);
        self.rooms.journal.feed().tell(Told { tenant, call, at, notice });
    }
}

//! A ConversationRelay platform that is not ours connects, and we are its application (CONTRACT 1.2 `/relay/ws` use a).
//! What is said is told by the platform and kept as turns of the call; the agent answers in text. While no language
//! model is configured it says its fallback, and nothing is invented.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep_until};

use super::frames::{self, FromPlatform, Malformed};
use super::session::close;
use super::socket::{Frame, Gone, Socket};
use super::{Desk, Until};
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
/// Malformed frames in a row that end a session.
const MALFORMED_MAX: u8 = 10;
/// A number where the platform tells none that can be one.
const NOBODY: &str = "000";

struct Conversation {
    rooms: Rooms,
    view: Arc<CallView>,
    settings: Option<AgentSettings>,
    turn: u32,
    malformed: u8,
}

/// Serves one platform's connection until either side is done, or `until` ends. `caller`: whose key it showed, where it
/// showed one.
pub async fn run(desk: Desk, caller: Option<Caller>, mut socket: Socket, mut until: Until) {
    let Desk { rooms, calls, .. } = desk;
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
        None => calls.caller_of_platform(named.as_deref(), &to).await.unwrap_or_else(|error| {
            tracing::error!(%error, "whose a platform's call is could not be looked up");
            None
        }),
    };
    let Some(caller) = caller else {
        return socket.close(close::POLICY, "The number is nobody's here.");
    };
    let agent = agent(&rooms, &caller.key.tenant, named.as_deref(), &to).await;
    let adopted = Adopted {
        id: CallId::from_call_sid(&call),
        direction: if inbound { Direction::Inbound } else { Direction::Outbound },
        from: CallerId::parse(&from),
        to,
        agent: agent.as_ref().map(|agent| agent.id),
        voice_name: agent.as_ref().map(|agent| agent.settings.voice.clone()).unwrap_or_default(),
        context: parameters,
    };
    let view = match calls.adopt(&caller, adopted).await {
        Ok(view) => view,
        Err(error) => {
            tracing::warn!(%error, "a platform's call could not be taken in");
            return socket.close(close::TRY_LATER, "The call cannot be taken.");
        }
    };
    tracing::info!(call = %view.order.id, "no language model is configured: the agent says its fallback");
    let id = view.order.id;
    let settings = agent.map(|agent| agent.settings);
    let mut conversation = Conversation { rooms, view, settings, turn: 0, malformed: 0 };
    let (code, reason) = tokio::select! {
        closing = conversation.talk(&mut socket) => closing,
        () = &mut until => (close::POLICY, "The key is no longer accepted."),
    };
    calls.give_up(id);
    socket.close(code, reason);
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

impl Conversation {
    async fn talk(&mut self, socket: &mut Socket) -> (u16, &'static str) {
        let longest = self.rooms.config.limits.max_call_duration_s;
        let own = self.settings.as_ref().and_then(|settings| settings.max_call_duration_s);
        let longest = own.map_or(longest, |own| own.min(longest));
        let over = Instant::now() + Duration::from_secs(longest.into());
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut alive = Instant::now();
        let greeting = self.settings.as_ref().and_then(|settings| settings.first_message.clone());
        if let Some(greeting) = greeting
            && self.say(socket, &greeting).is_err()
        {
            return (close::NORMAL, "");
        }
        loop {
            tokio::select! {
                frame = socket.receive() => {
                    alive = Instant::now();
                    let text = match frame {
                        Frame::Text(text) => text,
                        Frame::Other => String::new(),
                        Frame::Ping | Frame::Pong => continue,
                        Frame::TooLarge => return (close::TOO_LARGE, "A frame is too large."),
                        Frame::Closed(_) => return (close::NORMAL, ""),
                    };
                    match self.frame(socket, &text) {
                        Ok(true) => {}
                        Ok(false) => return (close::POLICY, "Too many consecutive malformed messages."),
                        Err(Gone) => return (close::NORMAL, ""),
                    }
                }
                _ = pings.tick() => {
                    if alive.elapsed() > SILENT_MAX || socket.ping().is_err() {
                        return (close::POLICY, "The platform is silent.");
                    }
                }
                () = sleep_until(over) => return (close::NORMAL, "The call is too long."),
            }
        }
    }

    /// `false`: too much of what came cannot be read.
    fn frame(&mut self, socket: &Socket, text: &str) -> Result<bool, Gone> {
        let frame = match FromPlatform::read(text) {
            Ok(FromPlatform::Setup { .. }) => {
                Err(Malformed("Invalid message received: a second setup".into()))
            }
            read => read,
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(Malformed(told)) => {
                self.malformed += 1;
                socket.send(frames::error(&told))?;
                return Ok(self.malformed < MALFORMED_MAX);
            }
        };
        self.malformed = 0;
        match frame {
            FromPlatform::Prompt { text, last: false } => {
                let turn = self.turn + 1;
                self.tell(Notice::Saying { by: Speaker::Caller, text, turn });
            }
            FromPlatform::Prompt { text, last: true } => {
                self.turn += 1;
                self.record(CallEvent::Said { by: Speaker::Caller, text, turn: self.turn, span: None });
                let answer = self.rooms.config.agent.fallback_text.clone();
                self.say(socket, &answer)?;
            }
            FromPlatform::Dtmf(digit) => {
                self.record(CallEvent::Digit { digit, source: DigitSource::Info });
            }
            FromPlatform::Error(description) => {
                // Its words may quote what was said.
                tracing::warn!(call = %self.view.order.id, bytes = description.len(), "the platform complains");
            }
            FromPlatform::Setup { .. } | FromPlatform::Interrupt { .. } | FromPlatform::Info => {}
        }
        Ok(true)
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

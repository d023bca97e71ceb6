//! Where Phony's WebSockets begin: who may open one, how many, and for which call (CONTRACT 0.2, 1.2). `/events/ws` is
//! written here; `/relay/ws` is handed to [`crate::relay`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, OriginalUri, RawQuery, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use dashmap::DashMap;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, interval_at};

use super::{call_of, feed};
use crate::api::App;
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::clock;
use crate::control::admission::Credentials;
use crate::control::{Caller, Named, Refusal};
use crate::journal::Told;
use crate::model::CallId;
use crate::model::call::CallState;
use crate::relay::Until;
use crate::relay::attend::{self, Attendance};
use crate::relay::options::Options;
use crate::relay::park::{Returned, Whence};
use crate::relay::serve;
use crate::relay::session::close;
use crate::relay::socket::{FRAME_MAX, Frame, QUEUE, Socket, is_signed};
use crate::store::agents::AgentName;

/// WebSockets of one key at once.
const PER_KEY: u32 = 10;
/// A refused client may ask again after so many seconds.
const RETRY_S: u64 = 5;
/// Largest frame that a listener may send, bytes: it has nothing to say.
const LISTENER_FRAME_MAX: usize = 4096;
/// A listener is asked so often whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// And is gone when nothing was heard of it for so long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether the key is still good.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What is listened to where no agent says it, BCP 47.
const LANGUAGE: &str = "en-US";
/// The subprotocol by which a browser shows its key.
const BEARER: &str = "bearer";

/// How many WebSockets each key has.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<DashMap<i64, u32>>);

/// One WebSocket's place, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    key: i64,
}

impl Places {
    fn take(&self, key: i64) -> Option<Place> {
        let mut count = self.0.entry(key).or_default();
        if *count >= PER_KEY {
            return None;
        }
        *count += 1;
        drop(count);
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut count) = self.places.0.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
        self.places.0.remove_if(&self.key, |_, count| *count == 0);
    }
}

/// The paths of both sockets.
pub(super) fn routes() -> [(&'static str, MethodRouter<App>); 4] {
    [
        ("/events/ws", get(events)),
        ("/api/events/ws", get(events)),
        ("/relay/ws", get(relay)),
        ("/api/relay/ws", get(relay)),
    ]
}

/// What a request for a WebSocket shows.
struct Knock {
    headers: HeaderMap,
    peer: SocketAddr,
    query: Query,
    uri: Uri,
}

/// The key as the subprotocol has it: `bearer, KEY`.
fn spoken_key(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let (word, key) = text.split_once(',')?;
    word.trim().eq_ignore_ascii_case(BEARER).then(|| key.trim())
}

impl Knock {
    /// Who asks, with a place; the key may stand in the header, the query or the subprotocol, but only here.
    async fn admit(&self, app: &App) -> Result<(Caller, Place), Fault> {
        let shown: Vec<Option<&str>> =
            self.headers.get_all(header::AUTHORIZATION).iter().map(|value| value.to_str().ok()).collect();
        let other = self.query.text("api_key").or_else(|| self.query.text("token"));
        let other = other.or_else(|| spoken_key(&self.headers)).map(|key| format!("Bearer {key}"));
        let authorization = if shown.is_empty() { vec![other.as_deref()] } else { shown };
        let authorization = if authorization == [None] { Vec::new() } else { authorization };
        let forwarded = self.headers.get_all("x-forwarded-for").iter();
        let forwarded_for = forwarded.map(|v| v.to_str().unwrap_or("?")).collect();
        let shown = Credentials { authorization, peer: Some(self.peer), forwarded_for };
        let caller = app.admission.identify(&shown, Some("phony"), Some("calls"), clock::now()).await?;
        let place = app.sockets.take(caller.key.id);
        let place = place.ok_or(Refusal::RateLimited { retry_after_s: RETRY_S })?;
        Ok((caller, place))
    }

    /// The call that the query names, if it names one.
    fn call(&self) -> Result<Option<CallId>, Fault> {
        self.query.text("call_sid").map(call_of).transpose()
    }
}

/// The upgrade itself, which is looked at last: who may not come in is told so, whatever was asked.
fn upgrade(
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    most: usize,
) -> Result<WebSocketUpgrade, Fault> {
    let upgrading = upgrading.map_err(|_| Fault::Bad("A WebSocket upgrade is needed here".into()))?;
    Ok(upgrading.protocols([BEARER]).max_message_size(most).max_frame_size(most))
}

/// `GET /events/ws`.
async fn events(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    OriginalUri(uri): OriginalUri,
    RawQuery(query): RawQuery,
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let knock = Knock { headers, peer, query: Query::read(query.as_deref()), uri };
    listening(app, knock, upgrading).await.unwrap_or_else(IntoResponse::into_response)
}

async fn listening(
    app: App,
    knock: Knock,
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Fault> {
    let (caller, place) = knock.admit(&app).await?;
    let call = knock.call()?;
    if let Some(id) = call {
        app.calls.live(&caller, Named::OfTenant(id))?;
    }
    let upgrading = upgrade(upgrading, LISTENER_FRAME_MAX)?;
    // From here on nothing is missed: what happens while the upgrade is under way waits in the queue.
    let frames = app.rooms.config.limits.ws_queue_frames;
    let told = app.rooms.journal.feed().listen(Some(&caller.key.tenant), call, frames);
    Ok(upgrading.on_upgrade(move |socket| async move {
        // What may wait is the feed's to say.
        let (code, reason, socket) = tell(&app, &caller, told, Socket::served(socket, 1)).await;
        socket.close(code, reason);
        drop(place);
    }))
}

/// Tells what happens until the listener is gone, too slow, or no longer allowed.
async fn tell(
    app: &App,
    caller: &Caller,
    mut told: mpsc::Receiver<Arc<Told>>,
    mut socket: Socket,
) -> (u16, &'static str, Socket) {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let mut looks = interval(LOOK_EVERY);
    let mut alive = Instant::now();
    loop {
        tokio::select! {
            told = told.recv() => {
                let Some(told) = told else { return (close::TRY_LATER, "The reader is too slow.", socket) };
                for frame in feed::frames(&told) {
                    if socket.send_patiently(frame).await.is_err() {
                        return (close::TRY_LATER, "The reader is too slow.", socket);
                    }
                }
            }
            frame = socket.receive() => match frame {
                Frame::Text(_) | Frame::Ping | Frame::Pong | Frame::Other => alive = Instant::now(),
                Frame::TooLarge => return (close::TOO_LARGE, "A frame is too large.", socket),
                Frame::Closed(_) => return (close::NORMAL, "", socket),
            },
            _ = looks.tick() => {
                if !still_good(app, caller).await {
                    return (close::POLICY, "The key is no longer accepted.", socket);
                }
            }
            _ = pings.tick() => {
                if alive.elapsed() > SILENT_MAX || socket.ping().is_err() {
                    return (close::POLICY, "The reader is silent.", socket);
                }
            }
        }
    }
}

/// Whether a key would still be let in here.
async fn still_good(app: &App, caller: &Caller) -> bool {
    app.admission.still(caller, Some("phony"), Some("calls"), clock::now()).await
}

/// Waits until the key is no longer good.
async fn revoked(app: App, caller: Caller) {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if !still_good(&app, &caller).await {
            return;
        }
    }
}

/// `GET /relay/ws`.
async fn relay(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    OriginalUri(uri): OriginalUri,
    RawQuery(query): RawQuery,
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let knock = Knock { headers, peer, query: Query::read(query.as_deref()), uri };
    relaying(app, knock, upgrading).await.unwrap_or_else(IntoResponse::into_response)
}

async fn relaying(
    app: App,
    knock: Knock,
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Fault> {
    let Some(text) = knock.query.text("call_sid") else { return platform(app, knock, upgrading).await };
    let (caller, place) = knock.admit(&app).await?;
    let id = call_of(text)?;
    let view = app.calls.live(&caller, Named::OfTenant(id))?;
    let upgrading = upgrade(upgrading, FRAME_MAX)?;
    if view.state == CallState::Ended {
        return Err(Refusal::UnknownCall.into());
    }
    let options = Options::read(knock.query.pairs())
        .map_err(|name| Fault::Bad(format!("{name} cannot have this value")))?;
    let returned = move |app: App, socket| Returned {
        socket: Socket::served(socket, QUEUE),
        until: while_good(app, caller, place),
        options,
    };
    // An application that went away without a word finds its call where it left it.
    if let Some(parked) = app.relay.parking.claim(id) {
        return Ok(upgrading.on_upgrade(move |socket| async move {
            if let Err(late) = parked.send(returned(app, socket)) {
                late.socket.close(close::TRY_LATER, "The call is no longer there.");
            }
        }));
    }
    let overheard = app.rooms.engine.attend(id).await.map_err(Refusal::from)?;
    let agent = match view.order.purpose.agent {
        Some(row) => {
            let agent = app.rooms.db.agent_ever(&view.order.tenant, AgentName::Row(row)).await;
            agent.ok().flatten().map(|(agent, _)| agent.settings)
        }
        None => None,
    };
    let keeps = agent.as_ref().is_some_and(|agent| agent.relay_keeps);
    let language = agent.map_or_else(|| LANGUAGE.to_owned(), |agent| agent.language);
    Ok(upgrading.on_upgrade(move |socket| async move {
        let (desk, whence) = (app.relay.clone(), Whence::Comes);
        let attendance = Attendance { desk, view, overheard, keeps, language, whence };
        attend::run(attendance, returned(app, socket)).await;
    }))
}

/// Ends when the key is no longer good; its place is held until then, or until that is no longer waited for.
fn while_good(app: App, caller: Caller, place: Place) -> Until {
    Box::pin(async move {
        revoked(app, caller).await;
        drop(place);
    })
}

/// A platform comes with a call of its own: by its signature, where Twilio's token is configured, else by a key.
async fn platform(
    app: App,
    knock: Knock,
    upgrading: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Fault> {
    let is_signed = knock.is_signed(&app.rooms.config.twilio.auth_token.0);
    if is_signed == Some(false) {
        return Err(Refusal::InvalidKey.into());
    }
    // Twilio cannot show a key: whose call it is is found out by the agent or the number that it names.
    let (caller, until): (Option<Caller>, Until) = if is_signed == Some(true) && !knock.shows_key() {
        (None, Box::pin(std::future::pending()))
    } else {
        let (caller, place) = knock.admit(&app).await?;
        (Some(caller.clone()), while_good(app.clone(), caller, place))
    };
    let upgrading = upgrade(upgrading, FRAME_MAX)?;
    let desk = app.relay.clone();
    Ok(upgrading.on_upgrade(move |socket| serve::run(desk, caller, Socket::served(socket, QUEUE), until)))
}

impl Knock {
    /// Whether a key was shown, good or bad.
    fn shows_key(&self) -> bool {
        let asked = self.query.text("api_key").or_else(|| self.query.text("token"));
        self.headers.contains_key(header::AUTHORIZATION)
            || asked.is_some()
            || spoken_key(&self.headers).is_some()
    }

    /// Whether Twilio's signature of the address that was dialled was shown (FIELD 3.1); `None` where no token is
    /// configured. What a proxy changed of the address is tried: its scheme, its port, its host, a slash at its end.
    fn is_signed(&self, token: &str) -> Option<bool> {
        if token.is_empty() {
            return None;
        }
        let text =
            |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let shown = text("x-twilio-signature");
        let uri = self.uri.path_and_query().map_or("", |path| path.as_str());
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let hosts = [text("host"), text("x-forwarded-host")];
        let hosts = hosts.into_iter().filter(|host| !host.is_empty()).flat_map(|host| {
            let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
            [host.to_owned(), bare.to_owned(), format!("{bare}:443")]
        });
        let mut addresses = hosts.flat_map(|host| {
            ["wss", "https", "ws"].into_iter().flat_map(move |scheme| {
                let host = host.clone();
                ["", "/"].into_iter().map(move |slash| format!("{scheme}://{host}{path}{slash}"))
            })
        });
        Some(addresses.any(|address| is_signed(token, &format!("{address}{query}"), shown)))
    }
}

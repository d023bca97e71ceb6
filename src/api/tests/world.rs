//! The whole router in this process: a real database and journal in a folder of the test's own, and an engine that
//! the test plays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::api::{self, App};
use crate::clock;
use crate::config::Config;
use crate::control::Rooms;
use crate::control::routing::Resolver;
use crate::engine::driver::EngineHandle;
use crate::journal::{Journal, JournalHandle, Live};
use crate::model::Secret;
use crate::model::call::{Accepted, CallOrder, Command, CommandError};
use crate::model::event::{CallEvent, Stamped};
use crate::model::trunk::TrunkProfile;
use crate::recordings::Recordings;
use crate::relay;
use crate::speech::{Sounds, Speech};
use crate::store::Db;
use crate::store::accounts::{NewKey, TrunkChoice};
use crate::store::trunks::NewTrunk;
use crate::webhook;

/// What the played engine makes of an order: the events that follow, or a no.
pub(super) type Script = fn(&CallOrder) -> Result<Vec<CallEvent>, CommandError>;

pub(super) struct World {
    pub(super) app: App,
    pub(super) router: Router,
    pub(super) db: Db,
    pub(super) journal: JournalHandle,
    pub(super) orders: Arc<Mutex<Vec<Arc<CallOrder>>>>,
    pub(super) commands: Arc<Mutex<Vec<String>>>,
    pub(super) recordings: PathBuf,
    folder: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An answer as a client sees it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A trunk takes the call at once and it rings.
pub(super) fn rings(order: &CallOrder) -> Result<Vec<CallEvent>, CommandError> {
    let trunk = order.trunks[0].endpoint.clone();
    Ok(vec![CallEvent::Queued, CallEvent::Dialing { trunk, attempt: 1 }, CallEvent::Ringing])
}

/// As [`rings`], and it is answered.
pub(super) fn answers(order: &CallOrder) -> Result<Vec<CallEvent>, CommandError> {
    let mut events = rings(order)?;
    events.push(CallEvent::Answered);
    Ok(events)
}

impl World {
    pub(super) async fn new(script: Script) -> Self {
        Self::with(script, |_| {}).await
    }

    pub(super) async fn with(script: Script, change: fn(&mut Config)) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("trunkline-api-{}-{n}", std::process::id()));
        let recordings = folder.join("recordings");
        std::fs::create_dir_all(&recordings).unwrap();
        let mut config = Config::default();
        config.paths.recordings.clone_from(&recordings);
        config.paths.sounds = folder.join("sounds");
        change(&mut config);

        let db = Db::open(&format!("sqlite://{}", folder.join("test.db").display())).await.unwrap();
        let live = Live::default();
        let formats = api::FORMATS.to_vec();
        let (journal, _) = Journal::start(db.clone(), live.clone(), formats, Arc::new(Notify::new()));
        let orders = Arc::new(Mutex::new(Vec::new()));
        let commands = Arc::new(Mutex::new(Vec::new()));
        let engine = played_engine(script, journal.clone(), Arc::clone(&orders), Arc::clone(&commands));
        let speech = Speech::new(&config.speech).unwrap();
        let sounds = Sounds::new(config.paths.sounds.clone());
        let resolver = Arc::new(Resolver::new(config.sip.udp.ip(), ""));
        let kept = Recordings::open(&config, db.clone()).await.unwrap();
        let client = webhook::client(&config.webhooks).unwrap();
        let means = relay::Means { client, hearing: Default::default(), llm: None };
        let rooms = Rooms {
            config: Arc::new(config),
            db: db.clone(),
            live,
            journal: journal.clone(),
            engine,
            speech,
            sounds: Arc::new(sounds),
            recordings: Arc::new(kept),
            fleet: Arc::default(),
            resolver,
            converses: false,
            turns: Arc::default(),
        };
        let app = App::new(rooms, means);
        let router = api::router(app.clone());
        Self { app, router, db, journal, orders, commands, recordings, folder }
    }

    /// Makes trunks of these names and a key that has them all.
    pub(super) async fn key(&self, name: &str, trunks: &[&str], change: impl FnOnce(&mut NewKey)) -> String {
        for trunk in trunks {
            let new = NewTrunk {
                name: (*trunk).to_owned(),
                proxy: "sip:127.0.0.1:5999".into(),
                username: String::new(),
                password: Secret::default(),
                dial_prefix: "00".into(),
                caller_id: None,
                codecs: vec!["PCMU".into()],
                no_response_timeout_ms: 2000,
                profile: TrunkProfile::default(),
            };
            self.db.upsert_trunk(&new).await.unwrap();
        }
        let mut new = NewKey::named(name);
        new.trunks = TrunkChoice::Names(trunks.iter().map(|t| (*t).to_owned()).collect());
        change(&mut new);
        self.db.create_key(new, clock::now().wall).await.unwrap().secret
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub(super) async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str, key: &str) -> Answer {
        self.ask(Method::GET, path, Some(key), "").await
    }

    pub(super) async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.ask(Method::POST, path, Some(key), body).await
    }

    /// Places a call and gives its id.
    pub(super) async fn call(&self, key: &str) -> String {
        let answer = self.post("/makecall", key, r#"{"number":"14155550100"}"#).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self.journal.flush().await;
        answer.json()["callId"].as_str().unwrap().to_owned()
    }

    /// Something happens to the latest call; returns when it is on disk.
    pub(super) async fn happens(&self, event: CallEvent) {
        let call = self.orders.lock().unwrap().last().unwrap().id;
        self.journal.record(Stamped { call, at: clock::now().wall, event });
        self.journal.flush().await;
    }
}

fn played_engine(
    script: Script,
    journal: JournalHandle,
    orders: Arc<Mutex<Vec<Arc<CallOrder>>>>,
    commands: Arc<Mutex<Vec<String>>>,
) -> EngineHandle {
    let originate = move |order: Arc<CallOrder>| {
        let events = script(&order)?;
        for event in events {
            journal.record(Stamped { call: order.id, at: clock::now().wall, event });
        }
        orders.lock().unwrap().push(order);
        Ok(())
    };
    let command = move |_, command: Command| {
        let (word, answer) = match command {
            Command::Play { playback, text, file, to, .. } => {
                let what = text.or(file).unwrap_or_default();
                (format!("play {playback} {what} {}", to.as_str()), Ok(Accepted::Done))
            }
            Command::Gather(order) => (
                format!("gather {} {} {:?}", order.num_digits, order.timeout_ms, order.finish_on_key),
                Ok(Accepted::Done),
            ),
            Command::Open(opening) => (format!("open {:?}", opening.text), Ok(Accepted::Done)),
            Command::HangUp { drain } => (format!("hang up {drain}"), Ok(Accepted::Done)),
            Command::SendDigits { digits } => (format!("press {digits}"), Ok(Accepted::Done)),
            Command::PausePlayback { on } => (format!("pause playback {on}"), Ok(Accepted::Done)),
            Command::Listen { .. } => ("listen".to_owned(), Ok(Accepted::Done)),
            Command::StopPlayback => ("stop playback".to_owned(), Ok(Accepted::Done)),
            Command::Attend { on } => (format!("attend {on}"), Ok(Accepted::Done)),
            Command::Transfer(order) => (format!("transfer {}", order.to.e164()), Ok(Accepted::Done)),
            Command::StopRecording => ("stop recording".to_owned(), Err(CommandError::NoActiveRecording)),
            Command::PauseRecording { on } => {
                (format!("pause recording {on}"), Err(CommandError::NoActiveRecording))
            }
        };
        commands.lock().unwrap().push(word);
        answer
    };
    EngineHandle::scripted(originate, command)
}

//! The running server: starts every room on a configuration, in an order in which nothing can be asked of a room
//! that is not there yet, and stops them the other way round.

mod sockets;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::agent;
use crate::agent::analyst;
use crate::agent::driver::Minds;
use crate::api::{self, App};
use crate::campaigns;
use crate::clock;
use crate::config::Config;
use crate::control::Rooms;
use crate::control::admission::{self, LOCAL_KEY};
use crate::control::inbound;
use crate::control::routing::Resolver;
use crate::control::trunks::{Fleet, keeper};
use crate::engine::driver::{self, EngineHandle, Parts};
use crate::engine::{Engine, Settings};
use crate::hearing::{Hearing, HearingError};
use crate::http::{ListenError, Listener, Serving};
use crate::journal::{self, Journal, JournalHandle, Live, RecoverReport};
use crate::llm::{Llm, LlmError};
use crate::model::incoming::Incoming;
use crate::recordings::{self, Recordings, RecordingsError};
use crate::relay;
use crate::speech::{Sounds, Speech, SpeechError};
use crate::store::nodes::Serving as ServingNode;
use crate::store::trunks::{NewTrunk, TrunkInvalid};
use crate::store::{Db, StoreError, without_password};
use crate::webhook::{self, Worker, WorkerError, WorkerHandle};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be opened.
    #[error("cannot listen on {what} {address}: {source}")]
    Listen {
        /// The protocol.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP listener.
    #[error(transparent)]
    Http(#[from] ListenError),
    /// A recogniser's settings lead nowhere.
    #[error(transparent)]
    Hearing(#[from] HearingError),
    /// The language model's settings lead nowhere.
    #[error(transparent)]
    Llm(#[from] LlmError),
    /// A folder could not be made.
    #[error("cannot use folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The media threads could not be started.
    #[error("cannot start the media workers: {0}")]
    Media(std::io::Error),
    /// An address in the configuration cannot be read.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] sip::tokio::TlsError),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The voice.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// The webhook settings.
    #[error(transparent)]
    Webhooks(#[from] WorkerError),
    /// The settings of recordings.
    #[error(transparent)]
    Recordings(#[from] RecordingsError),
    /// A `[[trunk]]` of the configuration.
    #[error(transparent)]
    Trunk(#[from] TrunkInvalid),
}

/// A running server.
pub struct Server {
    http: Vec<SocketAddr>,
    https: bool,
    sip: SocketAddr,
    engine: EngineHandle,
    journal: JournalHandle,
    webhooks: WorkerHandle,
    app: App,
    actors: Vec<JoinHandle<()>>,
    archivist: JoinHandle<()>,
    serving: Serving,
    db: Db,
    /// Keeps the right to serve for as long as the server runs.
    node: JoinHandle<()>,
}

impl Server {
    /// Starts everything, closes what a crash left open, and listens.
    ///
    /// # Errors
    /// Names what could not be opened.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        make_folders(&config)?;
        // Sockets first, then the database for this process alone: a second server beside this one stops here,
        // before it takes this one's calls for a crash's.
        let listener = Listener::bind(&config.http).await?;
        let (http, https) = (listener.addresses(), !config.http.tls_cert.as_os_str().is_empty());
        let sockets = sockets::open(&config).await?;
        let speech = Speech::new(&config.speech)?;
        let sounds = Sounds::new(config.paths.sounds.clone());
        let (db, node) = open_database(&config).await?;

        let live = Live::default();
        let wake = Arc::new(Notify::new());
        let (journal, _) = Journal::start(db.clone(), live.clone(), api::FORMATS.to_vec(), wake.clone());
        let webhooks = Worker::start(db.clone(), api::FORMATS.to_vec(), &config.webhooks, wake.clone())?;
        let bench = Duration::from_secs(config.limits.trunk_bench_s.into());
        let fleet = Arc::new(Fleet::new(bench));
        let (knock, knocking) = inbound::queue();
        let (engine, sip) = start_engine(&config, journal.clone(), Arc::clone(&fleet), sockets, knock)?;

        let resolver = Arc::new(Resolver::new(config.sip.udp.ip(), &config.sip.resolver));
        let recordings = Arc::new(Recordings::open(&config, db.clone()).await?);
        let archivist = recordings::keep(Arc::clone(&recordings));
        let watch = watch::Watch {
            db: db.clone(),
            live: live.clone(),
            engine: engine.clone(),
            wake: wake.clone(),
            recordings: config.paths.recordings.clone(),
        };
        let node = tokio::spawn(watch.run(node));
        let means = means(&config)?;
        let minds = minds(&means);
        let rooms = Rooms {
            config,
            db: db.clone(),
            live,
            journal: journal.clone(),
            engine: engine.clone(),
            speech,
            sounds: Arc::new(sounds),
            recordings,
            fleet,
            resolver,
            converses: minds.is_some(),
            turns: Arc::default(),
        };
        let app = App::new(rooms, means).telling_of(webhooks.figures());
        let actors = start_actors(&app, minds, knocking, wake);
        let serving = listener.serve(&api::router(app.clone()));
        Ok(Self { http, https, sip, engine, journal, webhooks, app, actors, archivist, serving, db, node })
    }

    /// Where HTTP is served: the first address of the configuration.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.first().copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Where SIP is spoken.
    pub fn sip_addr(&self) -> SocketAddr {
        self.sip
    }

    /// Whether anybody has made a key: the first log lines say how to make one.
    pub async fn has_keys(&self) -> bool {
        self.db.keys().await.is_ok_and(|keys| keys.iter().any(|key| key.key_id != LOCAL_KEY))
    }

    /// Stops: no new calls, a while for the live ones, BYE to the rest, files closed, events committed, webhooks
    /// given a last chance (what remains is sent after the next start).
    pub async fn stop(self) {
        self.app.drain();
        self.actors.iter().for_each(JoinHandle::abort);
        self.engine.drain().await;
        self.journal.flush().await;
        self.webhooks.stop().await;
        // An upload that is cut off is done anew after the next start.
        self.archivist.abort();
        self.serving.stop(Duration::from_millis(500)).await;
        // Calls whose sound is elsewhere end with their connections, and those ended just now.
        self.journal.flush().await;
        self.node.abort();
        self.db.close().await;
    }
}

/// The database, this process's to serve from, with what the configuration puts into it, and nothing open in it.
async fn open_database(config: &Config) -> Result<(Db, ServingNode), StartError> {
    let db = Db::open(&config.database.url).await?;
    let node = db.claim_for_serving().await?;
    for trunk in &config.trunk {
        db.upsert_trunk(&NewTrunk::try_from(trunk)?).await?;
    }
    if config.claude_phone.enabled {
        db.ensure_key(LOCAL_KEY, admission::local_key(), clock::now().wall).await?;
    }
    let recovered =
        journal::recover(&db, api::FORMATS.to_vec(), &config.paths.recordings, clock::now().wall).await?;
    if recovered != RecoverReport::default() {
        tracing::warn!(?recovered, "closed what the last run left open");
    }
    Ok((db, node))
}

/// What is understood and thought with, as far as it is configured.
fn means(config: &Config) -> Result<relay::Means, StartError> {
    Ok(relay::Means {
        client: webhook::client(&config.webhooks)?,
        hearing: Hearing::new(&config.speech)?,
        llm: Llm::new(&config.llm)?,
    })
}

/// What agents understand and think with; `None` unless both are configured.
fn minds(means: &relay::Means) -> Option<Minds> {
    let hearing = means.hearing.clone();
    let whole = means.llm.clone().filter(|_| hearing.is_available()).map(|llm| Minds {
        hearing,
        llm,
        asks: means.client.clone(),
    });
    if whole.is_none() {
        tracing::info!(
            "no recogniser (speech.stt) or no language model (llm.base_url): agents say their first words and listen for silence"
        );
    }
    whole
}

/// What acts by itself: looks after trunks, has campaigns call, talks for agents.
fn start_actors(
    app: &App,
    minds: Option<Minds>,
    knocking: mpsc::Receiver<Incoming>,
    wake: Arc<Notify>,
) -> Vec<JoinHandle<()>> {
    let (rooms, calls) = (&app.rooms, &app.calls);
    let mut actors = vec![
        inbound::start(Arc::clone(calls), knocking),
        keeper::start(rooms.clone()),
        campaigns::driver::start(rooms.clone(), Arc::clone(calls)),
        campaigns::farewell::start(rooms.clone()),
        relay::keeper::start(app.relay.clone()),
    ];
    if let Some(llm) = app.relay.means.llm.clone().filter(|_| rooms.config.agent.analysis) {
        actors.push(analyst::start(rooms.clone(), llm, api::FORMATS.to_vec(), wake));
    }
    actors.extend(minds.map(|minds| agent::keeper::start(rooms.clone(), Arc::clone(calls), minds)));
    actors
}

/// The folders of sounds and recordings. What calls leave behind is nobody else's to hear.
fn make_folders(config: &Config) -> Result<(), StartError> {
    for (folder, mode) in [(&config.paths.recordings, 0o700), (&config.paths.sounds, 0o755)] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)
            .map_err(|source| StartError::Folder { path: folder.clone(), source })?;
    }
    Ok(())
}

fn start_engine(
    config: &Config,
    journal: JournalHandle,
    fleet: Arc<Fleet>,
    sockets: sip::tokio::Sockets,
    knock: mpsc::Sender<Incoming>,
) -> Result<(EngineHandle, SocketAddr), StartError> {
    let bound = sockets.local_addr(sip::Transport::Udp).unwrap_or(config.sip.udp);
    let told = sockets::told(&config.sip.external_address, &config.sip.external_ipv6, bound.ip())?;

    let heard_wake = Arc::new(Notify::new());
    let wake = heard_wake.clone();
    let media_config = media::MediaConfig {
        workers: config.rtp.workers,
        min_free_bytes: config.recordings.min_free_bytes,
        wake: Some(Box::new(move || wake.notify_one())),
        ..media::MediaConfig::default()
    };
    let (media, heard) = media::Media::start(media_config).map_err(StartError::Media)?;

    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
    let sip_config = sockets::endpoint(config, &sockets, bound, told);
    let engine = Engine::new(settings(config, told, bound.ip())?, sip_config, seed);
    let news = Arc::clone(&fleet);
    let parts = Parts {
        sockets,
        media,
        heard,
        heard_wake,
        events: Box::new(move |event| {
            fleet.heard(&event);
            journal.record(event);
        }),
        trunks: Box::new(move |trunk, told| news.news(trunk, told)),
        incoming: Box::new(move |incoming| knock.try_send(incoming).is_ok()),
        drain: Duration::from_secs(config.limits.drain_s.into()),
    };
    let (handle, task) = driver::start(engine, parts);
    tokio::spawn(async move {
        if task.await.is_err() {
            // Without its engine the server is worth nothing; whoever started it starts it again, and that start
            // closes what this one leaves open.
            tracing::error!("the engine died");
            std::process::abort();
        }
    });
    Ok((handle, SocketAddr::new(told.first, bound.port())))
}

fn settings(config: &Config, told: sockets::Told, bound: IpAddr) -> Result<Settings, StartError> {
    let rtp = &config.rtp;
    let media = sockets::told(&rtp.external_address, &config.sip.external_ipv6, rtp.bind)?;
    let initial_silence = match config.amd.initial_silence.as_str() {
        "human" => media::amd::InitialSilence::Human,
        "unknown" => media::amd::InitialSilence::Unknown,
        _ => media::amd::InitialSilence::Machine,
    };
    Ok(Settings {
        sip_address: told.first,
        sip_address_other: told.other,
        media_address: media.first,
        media_address_other: media.other,
        local_nets: sockets::local_nets(config, bound)?,
        rtp_bind: config.rtp.bind,
        rtp_ports: (config.rtp.port_min, config.rtp.port_max),
        leg: media::LegSettings {
            media_timeout: Some(Duration::from_secs(config.limits.media_timeout_s.into())),
            ..media::LegSettings::default()
        },
        recordings: config.paths.recordings.clone(),
        playback_queue_max: config.limits.playback_queue_max,
        max_calls: config.limits.max_calls,
        amd: media::AmdConfig { initial_silence, ..media::AmdConfig::default() },
    })
}

/// Prints the first lines an operator sees.
pub async fn announce(server: &Server, config: &Config) {
    let scheme = if server.https { "https" } else { "http" };
    for address in &server.http {
        tracing::info!("HTTP on {scheme}://{address}, described at {scheme}://{address}/docs");
    }
    tracing::info!("SIP on udp {}", server.sip_addr());
    tracing::info!(
        "database {}, sounds {}, recordings {}",
        without_password(&config.database.url),
        config.paths.sounds.display(),
        config.paths.recordings.display()
    );
    if config.claude_phone.enabled {
        tracing::info!(
            "programs on this machine may call by POST /api/outbound-call without a key (claude_phone)"
        );
    }
    let first = if server.has_keys().await { "" } else { "there is no API key yet: " };
    tracing::info!("{first}`trunkline keys create NAME --trunks all` makes one");
}

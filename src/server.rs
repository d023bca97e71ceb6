//! The running server: starts every room on a configuration, in an order in which nothing can be asked of a room
//! that is not there yet, and stops them the other way round.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::api::{self, App};
use crate::clock;
use crate::config::Config;
use crate::engine::driver::{self, EngineHandle, Parts};
use crate::engine::{Engine, Settings};
use crate::journal::{self, Journal, JournalHandle, Live, RecoverReport};
use crate::speech::{Sounds, Speech, SpeechError};
use crate::store::trunks::{NewTrunk, TrunkInvalid};
use crate::store::{Db, StoreError};
use crate::webhook::{Worker, WorkerError, WorkerHandle};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be opened.
    #[error("cannot listen on {what} {address}: {source}")]
    Listen {
        /// `HTTP` or `SIP`.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
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
    /// A `[[trunk]]` of the configuration.
    #[error(transparent)]
    Trunk(#[from] TrunkInvalid),
}

/// A running server.
pub struct Server {
    http: SocketAddr,
    sip: SocketAddr,
    engine: EngineHandle,
    journal: JournalHandle,
    webhooks: WorkerHandle,
    app: App,
    stop_http: oneshot::Sender<()>,
    http_task: JoinHandle<()>,
    db: Db,
    /// Held for as long as the server runs.
    _claim: File,
}

impl Server {
    /// Starts everything, closes what a crash left open, and listens.
    ///
    /// # Errors
    /// Names what could not be opened.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        // What calls leave behind is nobody else's to hear.
        for (folder, mode) in [(&config.paths.recordings, 0o700), (&config.paths.sounds, 0o755)] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(folder)
                .map_err(|source| StartError::Folder { path: folder.clone(), source })?;
        }
        // Sockets first, then the database for this process alone: a second server beside this one stops here,
        // before it takes this one's calls for a crash's.
        let listen = config.http.listen;
        let refused = |source| StartError::Listen { what: "HTTP", address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let http = listener.local_addr().map_err(refused)?;
        let refused = |source| StartError::Listen { what: "SIP", address: config.sip.udp, source };
        let socket = sip::tokio::UdpTransport::bind(config.sip.udp).await.map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        let speech = Speech::new(&config.speech)?;
        let sounds = Sounds::new(config.paths.sounds.clone());
        let db = Db::open(&config.database.url).await?;
        let claim = db.claim_for_serving()?;
        for trunk in &config.trunk {
            db.upsert_trunk(&NewTrunk::try_from(trunk)?).await?;
        }
        let recovered =
            journal::recover(&db, api::FORMATS.to_vec(), &config.paths.recordings, clock::now().wall).await?;
        if recovered != RecoverReport::default() {
            tracing::warn!(?recovered, "closed what the last run left open");
        }

        let live = Live::default();
        let wake = Arc::new(Notify::new());
        let (journal, _) = Journal::start(db.clone(), live.clone(), api::FORMATS.to_vec(), wake.clone());
        let webhooks = Worker::start(db.clone(), api::FORMATS.to_vec(), &config.webhooks, wake)?;
        let (engine, sip) = start_engine(&config, journal.clone(), socket, bound)?;

        let app = App::new(config, db.clone(), live, engine.clone(), journal.clone(), speech, sounds);
        let (stop_http, stopped) = oneshot::channel::<()>();
        let router = api::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let http_task = tokio::spawn(async move {
            let stop = async {
                // A dropped sender stops the listener too.
                let _ = stopped.await;
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "the HTTP listener ended");
            }
        });
        Ok(Self { http, sip, engine, journal, webhooks, app, stop_http, http_task, db, _claim: claim })
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where SIP is spoken.
    pub fn sip_addr(&self) -> SocketAddr {
        self.sip
    }

    /// Whether any key exists: the first log lines say how to make one.
    pub async fn has_keys(&self) -> bool {
        self.db.keys().await.is_ok_and(|keys| !keys.is_empty())
    }

    /// Stops: no new calls, a while for the live ones, BYE to the rest, files closed, events committed, webhooks
    /// given a last chance (what remains is sent after the next start).
    pub async fn stop(self) {
        self.app.drain();
        self.engine.drain().await;
        self.journal.flush().await;
        self.webhooks.stop().await;
        // The task may have ended already.
        let _ = self.stop_http.send(());
        let _ = tokio::time::timeout(Duration::from_millis(500), self.http_task).await;
        self.db.close().await;
    }
}

fn start_engine(
    config: &Config,
    journal: JournalHandle,
    socket: sip::tokio::UdpTransport,
    bound: SocketAddr,
) -> Result<(EngineHandle, SocketAddr), StartError> {
    let address = our_address(&config.sip.external_address, bound.ip())?;

    let heard_wake = Arc::new(Notify::new());
    let wake = heard_wake.clone();
    let media_config = media::MediaConfig {
        workers: config.rtp.workers,
        wake: Some(Box::new(move || wake.notify_one())),
        ..media::MediaConfig::default()
    };
    let (media, heard) = media::Media::start(media_config).map_err(StartError::Media)?;

    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
    let sip_config = sip::Config {
        user_agent: concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
        max_sessions: config.limits.max_calls.saturating_mul(2),
        ..sip::Config::new(SocketAddr::new(address, bound.port()))
    };
    let engine = Engine::new(settings(config, address)?, sip_config, seed);
    let parts = Parts {
        socket,
        media,
        heard,
        heard_wake,
        events: Box::new(move |event| journal.record(event)),
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
    Ok((handle, SocketAddr::new(address, bound.port())))
}

fn settings(config: &Config, sip_address: IpAddr) -> Result<Settings, StartError> {
    let initial_silence = match config.amd.initial_silence.as_str() {
        "human" => media::amd::InitialSilence::Human,
        "unknown" => media::amd::InitialSilence::Unknown,
        _ => media::amd::InitialSilence::Machine,
    };
    Ok(Settings {
        sip_address,
        media_address: our_address(&config.rtp.external_address, config.rtp.bind)?,
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

/// The address others are told: the configured one, the bound one, or that of the interface that leads outside
/// (asked of the routing table by connecting an unused socket; nothing is sent).
fn our_address(external: &str, bound: IpAddr) -> Result<IpAddr, StartError> {
    if !external.is_empty() {
        return external.parse().map_err(|_| StartError::Address(external.to_owned()));
    }
    if !bound.is_unspecified() {
        return Ok(bound);
    }
    let routed = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // TEST-NET-1 (RFC 5737): any address outside will do.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    Ok(routed().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// Prints the first lines an operator sees.
pub async fn announce(server: &Server, config: &Config) {
    tracing::info!("HTTP on http://{}", server.http_addr());
    tracing::info!("SIP on udp {}", server.sip_addr());
    tracing::info!(
        "database {}, sounds {}, recordings {}",
        config.database.url,
        config.paths.sounds.display(),
        config.paths.recordings.display()
    );
    let first = if server.has_keys().await { "" } else { "there is no API key yet: " };
    tracing::info!("{first}`trunkline keys create NAME --trunks all` makes one");
}

//! Running media and a far end on the loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use media::sdp::{Direction, Remote};
use media::*;

pub(crate) const BRIDGE: BridgeId = BridgeId(6);
pub(crate) const LEG: LegId = LegId(0);
/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A loopback address that no other test process and no other test uses.
pub(crate) fn host(test: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 64, low, test).into()
}

/// The media with one worker, one bridge with one leg at port 4000 of the test's address, and its far end.
pub(crate) struct Live {
    pub(crate) media: Media,
    pub(crate) events: EventReceiver,
    pub(crate) far: UdpSocket,
}

impl Live {
    /// A bridge with one leg, its socket bound.
    pub(crate) fn start(test: u8) -> Self {
        Self::start_with(test, MediaConfig::default())
    }

    /// The same, of media with other settings.
    pub(crate) fn start_with(test: u8, config: MediaConfig) -> Self {
        let (media, events) = Media::start(MediaConfig { workers: 1, ..config }).unwrap();
        let far = UdpSocket::bind((host(test), 5000)).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut live = Self { media, events, far };
        let local = SocketAddr::new(host(test), 4000);
        let settings = LegSettings::default();
        live.send(Command::Open { bridge: BRIDGE, leg: LEG, local, settings, seed: 1 });
        let remote = Remote {
            address: live.far.local_addr().unwrap(),
            codec: Codec::Pcmu,
            payload_type: 0,
            event_payload_type: Some(101),
            direction: Direction::SendRecv,
            ptime_ms: 20,
            srtp: None,
        };
        live.send(Command::Connect { bridge: BRIDGE, leg: LEG, remote });
        assert_eq!(live.heard(), Heard::Opened { leg: LEG });
        live
    }

    pub(crate) fn send(&self, command: Command) {
        self.media.send(command).unwrap();
    }

    pub(crate) fn record(&self, id: u64, path: &Path) {
        let (recording, path) = (RecordingId(id), path.to_owned());
        self.send(Command::Record { bridge: BRIDGE, recording, path, what: RecordWhat::Mix });
    }

    pub(crate) fn stop(&self, id: u64) {
        self.send(Command::StopRecording { bridge: BRIDGE, recording: RecordingId(id) });
    }

    /// The next event of the bridge.
    pub(crate) fn heard(&mut self) -> Heard {
        let event = self.events.recv_timeout(PATIENCE).expect("an event was due");
        assert_eq!(event.bridge, BRIDGE);
        event.heard
    }

    /// Receives so many datagrams of the bridge: waits for real time to pass.
    pub(crate) fn receive(&self, datagrams: usize) {
        let mut buffer = [0; 2000];
        for _ in 0..datagrams {
            self.far.recv(&mut buffer).expect("RTP was due");
        }
    }
}

/// A new folder for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("trunkline-media-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

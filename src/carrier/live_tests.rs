//! The far end over real sockets in real time: what can only be heard. Each test is one call of a few seconds; they
//! run side by side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::dtmf::DigitSource;
use media::sdp::{self, Direction, Local, OfferConfig};
use media::tone::{Tone, power_at};
use media::{
    BridgeId, Clip, Codec, Command, Event, EventReceiver, Heard, LegId, LegSettings, LegStats, Media,
};
use media::{MediaConfig, PlayTo, PlaybackId, RecordWhat, RecordingId};
use sip::tokio::UdpTransport;
use sip::{Config, Endpoint, Peer, SessionEvent, SessionId, Target, Uri};
use tokio::sync::oneshot;

use super::serve;
use crate::clock;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const BRIDGE: BridgeId = BridgeId(1);
const LEG: LegId = LegId(0);
/// The longest any call here may take.
const LONGEST: Duration = Duration::from_secs(20);

/// A caller of the same libraries, on a socket of its own.
struct Caller {
    transport: UdpTransport,
    endpoint: Endpoint,
    call: SessionId,
    media: Media,
    heard: EventReceiver,
    config: OfferConfig,
    ended: bool,
    /// Everything heard since the answer, with its time.
    events: Vec<(Instant, Heard)>,
}

impl Caller {
    async fn dial(digits: &str, far_end: SocketAddr) -> Self {
        let transport = UdpTransport::bind(SocketAddr::new(LOOPBACK, 0)).await.unwrap();
        let local = transport.local_addr().unwrap();
        let mut endpoint = Endpoint::new(Config::new(local), [3; 32]);
        let (media, heard) = Media::start(MediaConfig { workers: 1, ..MediaConfig::default() }).unwrap();
        let config =
            OfferConfig { codecs: vec![Codec::Pcmu], telephone_event: true, ..OfferConfig::default() };
        let port = even_port();
        let settings = LegSettings::default();
        let socket = SocketAddr::new(LOOPBACK, port);
        media.send(Command::Open { bridge: BRIDGE, leg: LEG, local: socket, settings, seed: 5 }).unwrap();
        let offer = sdp::offer(
            &Local { address: LOOPBACK, port, session_id: 1, version: 1 },
            &config,
            Direction::SendRecv,
        );
        let target = Target::new(Uri::sip(digits, far_end), Uri::sip("100", local), Peer::udp(far_end));
        let call = endpoint.invite(clock::now().mono, target, offer.into()).unwrap();
        Self { transport, endpoint, call, media, heard, config, ended: false, events: Vec::new() }
    }

    /// Carries on until `done`, looked at after each input.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = clock::now().mono + LONGEST;
        let mut buffer = vec![0; 65_535];
        while !done(self) {
            let now = clock::now().mono;
            assert!(now < deadline, "{what} did not happen; heard {:?}", self.events);
            while let Some(transmit) = self.endpoint.poll_transmit() {
                // A socket that is not ready yet loses what is sent, which is then sent again.
                let _ = self.transport.try_send(&transmit);
            }
            let due = self.endpoint.poll_timeout().unwrap_or(deadline).min(now + Duration::from_millis(10));
            tokio::select! {
                received = self.transport.recv(&mut buffer) => {
                    let (length, from) = received.unwrap();
                    self.endpoint.handle_datagram(clock::now().mono, from, &buffer[..length]);
                }
                () = tokio::time::sleep_until(due.into()) => self.endpoint.handle_timeout(clock::now().mono),
            }
            while let Some((_, event)) = self.endpoint.poll_event() {
                self.signalled(event);
            }
            while let Some(Event { heard, .. }) = self.heard.try_recv() {
                self.events.push((clock::now().mono, heard));
            }
        }
    }

    fn signalled(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Progress { sdp: Some(answer), .. }
            | SessionEvent::Answered { sdp: Some(answer) } => {
                let remote = sdp::read_answer(&self.config, &answer).unwrap();
                self.media.send(Command::Connect { bridge: BRIDGE, leg: LEG, remote }).unwrap();
            }
            SessionEvent::Terminated(_) => self.ended = true,
            _ => {}
        }
    }

    /// Plays a second and a half of tone into the call.
    fn prompt(&self) {
        let mut samples = vec![0; 12_000];
        Tone::new(&[(350.0, -15.0)]).fill(&mut samples);
        let clip = Arc::new(Clip::from_samples(samples));
        let to = PlayTo::Bridge;
        self.media
            .send(Command::Play { bridge: BRIDGE, playback: PlaybackId(1), clip, to, looped: false })
            .unwrap();
    }

    fn digits(&self) -> Vec<(Instant, char, DigitSource)> {
        let digit = |(at, heard): &(Instant, Heard)| match heard {
            Heard::Digit { digit, source, .. } => Some((*at, *digit, *source)),
            _ => None,
        };
        self.events.iter().filter_map(digit).collect()
    }

    fn at(&self, wanted: impl Fn(&Heard) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, heard)| wanted(heard)).map(|(at, _)| *at)
    }

    async fn hang_up(mut self) -> LegStats {
        self.endpoint.session(self.call).unwrap().hang_up(clock::now().mono, None);
        self.media.send(Command::Close { bridge: BRIDGE }).unwrap();
        let closed = |heard: &Heard| matches!(heard, Heard::Closed { .. });
        self.until("the end", |caller| caller.ended && caller.at(closed).is_some()).await;
        let stats = self.events.iter().find_map(|(_, heard)| match heard {
            Heard::Closed { stats } => stats.first().map(|(_, stats)| *stats),
            _ => None,
        });
        stats.unwrap()
    }
}

fn even_port() -> u16 {
    loop {
        let port = UdpSocket::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port();
        if port.is_multiple_of(2) {
            return port;
        }
    }
}

/// Runs a call against a far end of its own.
async fn trial(digits: &str, call: impl AsyncFnOnce(Caller)) {
    let transport = UdpTransport::bind(SocketAddr::new(LOOPBACK, 0)).await.unwrap();
    let far_end = transport.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(transport, None, None, async move { drop(stopped.await) }));
    call(Caller::dial(digits, far_end).await).await;
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

const FIRST: fn(&Heard) -> bool = |heard| matches!(heard, Heard::FirstPacket { .. });

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_person_presses_keys_after_the_prompt() {
    trial("0110", async |mut caller| {
        caller.until("the answer", |caller| caller.at(FIRST).is_some()).await;
        caller.prompt();
        caller.until("four keys", |caller| caller.digits().len() == 4).await;
        let digits = caller.digits();
        assert_eq!(digits.iter().map(|(_, digit, _)| *digit).collect::<String>(), "1234");
        assert!(digits.iter().all(|(_, _, source)| *source == DigitSource::Rfc4733));
        let prompt_ended =
            caller.at(|heard| matches!(heard, Heard::PlaybackEnded { completed: true, .. })).unwrap();
        let wait = digits[0].0 - prompt_ended;
        assert!((700..1300).contains(&wait.as_millis()), "pressed {wait:?} after the prompt");
        let between = digits[3].0 - digits[0].0;
        assert!((800..1000).contains(&between.as_millis()), "{between:?} for three gaps of 300 ms");
        caller.hang_up().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_presses_in_band() {
    trial("0112", async |mut caller| {
        caller.until("the answer", |caller| caller.at(FIRST).is_some()).await;
        caller.prompt();
        caller.until("a key", |caller| !caller.digits().is_empty()).await;
        assert_eq!(caller.digits()[0].1, '5');
        assert_eq!(caller.digits()[0].2, DigitSource::Inband, "its SDP offers no events");
        caller.hang_up().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_plays_a_tone_and_one_sends_nothing() {
    let path = std::env::temp_dir().join(format!("trunkline-milliwatt-{}.wav", std::process::id()));
    trial("0501", async |mut caller| {
        let what = RecordWhat::Heard(LEG);
        let recording = RecordingId(1);
        caller.media.send(Command::Record { bridge: BRIDGE, recording, path: path.clone(), what }).unwrap();
        caller.until("the answer", |caller| caller.at(FIRST).is_some()).await;
        let answered = clock::now().mono;
        caller.until("a second", |_| clock::now().mono - answered > Duration::from_secs(1)).await;
        caller.media.send(Command::StopRecording { bridge: BRIDGE, recording }).unwrap();
        let ended = |heard: &Heard| matches!(heard, Heard::RecordingEnded { .. });
        caller.until("the recording", |caller| caller.at(ended).is_some()).await;
        let stats = caller.hang_up().await;
        assert!(stats.packets_in >= 45, "{stats:?}");
    })
    .await;
    let mut wav = hound::WavReader::open(&path).unwrap();
    let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
    let last = &samples[samples.len() - 4000..];
    let level = power_at(last, 1004.0);
    assert!((level + 16.0).abs() < 0.5, "{level} dBm0 at 1004 Hz");
    std::fs::remove_file(path).unwrap();

    trial("0502", async |mut caller| {
        let start = clock::now().mono;
        caller.until("three seconds", |_| clock::now().mono - start > Duration::from_secs(3)).await;
        assert_eq!(caller.hang_up().await.packets_in, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_echoes() {
    trial("0500", async |mut caller| {
        caller.media.send(Command::ListenTalk { bridge: BRIDGE, leg: LEG, on: true }).unwrap();
        caller.until("the answer", |caller| caller.at(FIRST).is_some()).await;
        caller.prompt();
        let stopped =
            |heard: &Heard| matches!(heard, Heard::Talk { change: media::TalkChange::Stopped { .. }, .. });
        caller.until("the echo", |caller| caller.at(stopped).is_some()).await;
        let spoke = caller.events.iter().find_map(|(_, heard)| match heard {
            Heard::Talk { change: media::TalkChange::Stopped { spoke_ms, .. }, .. } => Some(*spoke_ms),
            _ => None,
        });
        assert!((1300..1800).contains(&spoke.unwrap()), "{spoke:?} ms of 1500 came back");
        caller.hang_up().await;
    })
    .await;
}

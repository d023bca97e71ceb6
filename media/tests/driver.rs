//! The worker threads over real sockets.

#![expect(clippy::unwrap_used, reason = "tests")]

mod live;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use live::*;
use media::rtp::{self, Packet};
use media::*;

#[test]
fn packets_flow_both_ways_by_the_clock() {
    let mut live = Live::start(1);
    live.send(Command::Echo { bridge: BRIDGE, leg: LEG, on: true });
    let mut buffer = [0; 2000];
    let (mut echoed, mut last) = (0, None);
    for n in 0..60_u16 {
        let (len, from) = live.far.recv_from(&mut buffer).unwrap();
        assert_eq!(from, SocketAddr::new(host(1), 4000));
        let got = rtp::parse(&buffer[..len]).unwrap();
        assert_eq!(got.marker, n == 0);
        if let Some((sequence, timestamp)) = last {
            assert_eq!(got.sequence, u16::wrapping_add(sequence, 1));
            let elapsed = got.timestamp.wrapping_sub(timestamp);
            assert!(elapsed >= 160 && elapsed % 160 == 0);
        }
        last = Some((got.sequence, got.timestamp));
        echoed += u32::from(got.payload == [0x8a; FRAME]);
        let (sequence, timestamp) = (n, u32::from(n) * 160);
        let packet =
            Packet { payload_type: 0, marker: n == 0, sequence, timestamp, ssrc: 5, payload: &[0x8a; FRAME] };
        let mut datagram = [0; 200];
        let len = rtp::write(&packet, &mut datagram).unwrap();
        live.far.send_to(&datagram[..len], from).unwrap();
    }
    assert!(echoed > 40, "{echoed} frames came back");
    assert_eq!(live.heard(), Heard::FirstPacket { leg: LEG });
    let metrics = live.media.metrics();
    // A tick is counted when it is over: that of the last packet may not be yet.
    assert!(metrics.ticks >= 59 && metrics.faults == 0, "{metrics:?}");
}

#[test]
fn a_port_that_is_taken_or_odd_fails_and_close_is_always_answered() {
    let mut live = Live::start(2);
    let _taken = UdpSocket::bind((host(2), 6000)).unwrap();
    for (leg, port) in [(1, 6000), (2, 6001), (3, 0)] {
        let (leg, local) = (LegId(leg), SocketAddr::new(host(2), port));
        let settings = LegSettings::default();
        live.send(Command::Open { bridge: BRIDGE, leg, local, settings, seed: 1 });
        let Heard::Failed { leg: failed, error } = live.heard() else { panic!() };
        assert_eq!(failed, leg);
        assert!(error.contains(&local.to_string()), "{error}");
    }
    live.receive(3);
    live.send(Command::Close { bridge: BRIDGE });
    assert!(matches!(live.heard(), Heard::Closed { stats } if stats.len() == 1));
    live.send(Command::Close { bridge: BRIDGE });
    assert_eq!(live.heard(), Heard::Closed { stats: vec![] });
    let folder = folder("driver");
    live.record(1, &folder.join("call.wav"));
    assert!(matches!(live.heard(), Heard::RecordingFailed { bytes: 0, .. }));
    live.stop(1);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir_all(folder).unwrap();
    // The socket is free again at once.
    UdpSocket::bind((host(2), 4000)).unwrap();
}

#[test]
fn the_user_is_woken_when_something_happened() {
    let (sender, woken) = channel();
    let wake: Box<dyn Fn() + Send + Sync> = Box::new(move || {
        let _ = sender.send(());
    });
    let config = MediaConfig { workers: 2, wake: Some(wake), ..MediaConfig::default() };
    let (media, mut events) = Media::start(config).unwrap();
    for bridge in (0..8).map(BridgeId) {
        media.send(Command::Close { bridge }).unwrap();
    }
    let mut closed = vec![];
    while closed.len() < 8 {
        woken.recv_timeout(Duration::from_secs(20)).unwrap();
        closed.extend(std::iter::from_fn(|| events.try_recv()).map(|event| event.bridge.0));
    }
    closed.sort_unstable();
    assert_eq!(closed, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_refuses_and_never_waits() {
    let (media, events) = Media::start(MediaConfig { workers: 1, ..MediaConfig::default() }).unwrap();
    // The worker takes 512 commands in 5 ms; this is far faster.
    let refused = (0..1_000_000).any(|_| media.send(Command::Close { bridge: BRIDGE }) == Err(Full));
    assert!(refused);
    drop((media, events));
}

#[test]
fn bridges_of_all_slots_and_workers_play_side_by_side() {
    let config = MediaConfig { workers: 2, ..MediaConfig::default() };
    let (media, mut events) = Media::start(config).unwrap();
    let far = UdpSocket::bind((host(5), 5000)).unwrap();
    let clip = Arc::new(Clip::from_samples(vec![100; 8000]));
    for number in 0..16 {
        let bridge = BridgeId(number);
        let local = SocketAddr::new(host(5), 4000 + number as u16 * 2);
        let settings = LegSettings::default();
        media.send(Command::Open { bridge, leg: LEG, local, settings, seed: number }).unwrap();
        let remote = sdp::Remote {
            address: far.local_addr().unwrap(),
            codec: Codec::Pcma,
            payload_type: 8,
            event_payload_type: None,
            direction: sdp::Direction::SendRecv,
            ptime_ms: 20,
            srtp: None,
        };
        media.send(Command::Connect { bridge, leg: LEG, remote }).unwrap();
        let (playback, clip) = (PlaybackId(number), clip.clone());
        media.send(Command::Play { bridge, playback, clip, to: PlayTo::Bridge, looped: false }).unwrap();
    }
    let mut ended = vec![];
    while ended.len() < 16 {
        let event = events.recv_timeout(Duration::from_secs(20)).expect("all end after a second");
        if let Heard::PlaybackEnded { playback, completed, played_ms } = event.heard {
            assert_eq!((playback.0, completed, played_ms), (event.bridge.0, true, 1000));
            ended.push(event.bridge.0);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, (0..16).collect::<Vec<_>>());
}

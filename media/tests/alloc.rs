//! The path of packets and frames allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::recorder::{self, RingReader};
use media::rtp::{self, Packet};
use media::sdp::{Direction, Remote};
use media::srtp::{Keys, MASTER, MasterKey, Sealer, Suite};
use media::*;

thread_local! {
    static ALLOCATIONS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Counts on the thread that asked for it.
struct Counting;

#[expect(unsafe_code, reason = "an allocator that counts has no other form")]
// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get().map(|n| n + 1)));
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn counted(run: impl FnOnce()) -> u64 {
    ALLOCATIONS.set(Some(0));
    run();
    ALLOCATIONS.take().unwrap_or_default()
}

const BRIDGE: BridgeId = BridgeId(1);
const A: LegId = LegId(0);
const B: LegId = LegId(1);

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    Instant::now()
}

fn address(leg: LegId) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, leg.0], 4000))
}

/// Of the second leg, whose packets are sealed.
const KEYS: Keys = Keys { suite: Suite::Tag80, ours: MasterKey([1; MASTER]), theirs: MasterKey([2; MASTER]) };

/// Two legs with every listener, keys and a tone being sent, a playback and a recording.
fn prepare(bridge: &mut Bridge, now: Instant) -> [RingReader; 2] {
    let mut command = |command| bridge.command(now, command);
    for leg in [A, B] {
        let settings = LegSettings { detect_inband: InbandMode::Always, ..LegSettings::default() };
        command(Command::Open { bridge: BRIDGE, leg, local: address(leg), settings, seed: 7 });
        let remote = Remote {
            address: address(leg),
            codec: Codec::Pcmu,
            payload_type: 0,
            event_payload_type: Some(101),
            direction: Direction::SendRecv,
            ptime_ms: 20,
            srtp: (leg == B).then_some(KEYS),
        };
        command(Command::Connect { bridge: BRIDGE, leg, remote });
        command(Command::ListenTalk { bridge: BRIDGE, leg, on: true });
        command(Command::ListenAmd { bridge: BRIDGE, leg, config: AmdConfig::default() });
    }
    let mode = DigitMode::Rfc4733;
    let digits = "0123456789".repeat(5);
    command(Command::SendDigits { bridge: BRIDGE, leg: A, digits, mode, on_ms: 100, gap_ms: 100 });
    command(Command::Tone { bridge: BRIDGE, leg: B, tone: Some(ToneSpec { parts: vec![(440.0, -20.0)] }) });
    let clip = Arc::new(Clip::from_samples(vec![1000; 12_345]));
    let playback = PlaybackId(1);
    command(Command::Play { bridge: BRIDGE, playback, clip, to: PlayTo::Bridge, looped: true });
    let recording = RecordingId(1);
    let what = RecordWhat::Mix;
    command(Command::Record { bridge: BRIDGE, recording, path: "unused".into(), what });
    let (sides, what) = (RecordingId(2), RecordWhat::Sides(A));
    command(Command::Record { bridge: BRIDGE, recording: sides, path: "unused".into(), what });
    std::array::from_fn(|_| bridge.poll_recording().expect("a recording was begun").reader)
}

#[test]
fn a_thousand_ticks_allocate_nothing() {
    assert_ne!(counted(|| drop(std::hint::black_box(vec![1_u8; 100]))), 0, "the counter counts");
    let mut now = origin();
    let mut bridge = Bridge::new(BRIDGE);
    let mut readers = prepare(&mut bridge, now);
    let mut bytes = Vec::with_capacity(recorder::FRAME_BYTES * 2 * 3);
    let mut heard = Vec::with_capacity(4096);
    let mut sent = 0;
    let mut datagram = [0; 200];
    let mut sealer = Sealer::new(KEYS.suite, KEYS.theirs);
    let allocations = counted(|| {
        for n in 0..1000_u32 {
            for (leg, ssrc) in [(A, 1), (B, 2)] {
                // Some packets are lost, some late, some twice, some are keys.
                let number = if leg == A && n % 37 == 5 { n.saturating_sub(9) } else { n };
                let key = (n / 10) % 9 == 3;
                let event = [n as u8 / 90 % 10, 10, 0, 160];
                let payload: &[u8] = if key { &event } else { &[0x95; 160] };
                let packet = Packet {
                    payload_type: if key { 101 } else { 0 },
                    marker: false,
                    sequence: number as u16,
                    timestamp: if key { n / 10 * 1600 } else { number * 160 },
                    ssrc,
                    payload,
                };
                let mut len = rtp::write(&packet, &mut datagram).unwrap();
                if leg == B {
                    len = sealer.seal(&mut datagram, len).unwrap();
                }
                if n % 23 != 7 {
                    bridge.handle_packet(now, leg, address(leg), &datagram[..len]);
                }
            }
            now += Duration::from_millis(20);
            bridge.tick(now);
            while bridge.poll_transmit().is_some() {
                sent += 1;
            }
            while let Some(event) = bridge.poll_event() {
                heard.push(event);
            }
            bytes.clear();
            for reader in &mut readers {
                reader.read(&mut bytes, 2);
            }
        }
    });
    assert_eq!(allocations, 0);
    assert!(sent >= 2000 && heard.len() > 10, "{sent} sent, {heard:?}");
}

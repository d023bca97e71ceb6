//! How many calls one core carries: bridges with a far end each, an endless playback and a recording, on one pinned
//! worker; a far end on the other core sends 50 packets a second per call and looks when ours arrive, by the
//! kernel's own timestamps.
//!
//! `cargo bench --bench density -- [--calls N] [--seconds S]`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use media::rtp::{self, Packet};
use media::sdp::{Direction, Remote};
use media::*;

mod kernel;

/// The anchor: what Asterisk 22 holds on a machine like this, calls on one core and MiB for each.
const ASTERISK_CALLS: f64 = 150.0;
const ASTERISK_MIB: f64 = 0.60;
const STEPS: [u64; 5] = [150, 300, 500, 750, 1000];
const LEG: LegId = LegId(0);
/// The first RTP port; below the ports the system gives out by itself.
const FIRST_PORT: u16 = 10_000;
const FAR_SOCKETS: usize = 4;
const WARM_UP: Duration = Duration::from_secs(2);

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

fn sleep_until(deadline: Instant) {
    #[expect(clippy::disallowed_methods, reason = "the far end keeps a clock of its own")]
    thread::sleep(deadline.saturating_duration_since(now()));
}

fn near(call: u64) -> SocketAddr {
    SocketAddr::from(([127, 9, 9, 9], FIRST_PORT + call as u16 * 2))
}

/// Sends 50 packets a second to each call, spread evenly, until told to stop.
fn talk(sockets: &[UdpSocket], calls: u64, stop: &AtomicBool) {
    let mut datagram = [0; 200];
    let mut due = now();
    for slot in 0_u64.. {
        let frame = slot / 20;
        for call in (0..calls).filter(|call| call % 20 == slot % 20) {
            let payload = [0x90 + (frame % 16) as u8; FRAME];
            let packet = Packet {
                payload_type: 0,
                marker: frame == 0,
                sequence: frame as u16,
                timestamp: frame as u32 * 160,
                ssrc: call as u32 + 1,
                payload: &payload,
            };
            let len = rtp::write(&packet, &mut datagram).unwrap_or_default();
            // A packet the kernel does not take is missed by the other side, which says so.
            let _ = sockets[call as usize % FAR_SOCKETS].send_to(&datagram[..len], near(call));
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        due += Duration::from_millis(1);
        sleep_until(due);
    }
}

/// When packets arrived, by call, in nanoseconds of the kernel's clock.
fn listen(sockets: &[UdpSocket], calls: u64, stop: &AtomicBool) -> Vec<Vec<u64>> {
    let mut arrivals = vec![Vec::new(); calls as usize];
    let mut batch = kernel::Batch::new();
    while !stop.load(Ordering::Relaxed) {
        for socket in sockets {
            batch.receive(socket, |port, nanos| {
                let call = usize::from(port.saturating_sub(FIRST_PORT) / 2);
                if let Some(arrivals) = arrivals.get_mut(call) {
                    arrivals.push(nanos);
                }
            });
        }
        sleep_until(now() + Duration::from_millis(2));
    }
    arrivals
}

fn open(media: &Media, calls: u64, far: &[UdpSocket], folder: &Path) -> Result<(), Box<dyn Error>> {
    // A second of a quiet tone for all.
    let mut samples = vec![0; 8000];
    tone::Tone::new(&[(440.0, -20.0)]).fill(&mut samples);
    let clip = Arc::new(Clip::from_samples(samples));
    for call in 0..calls {
        let bridge = BridgeId(call);
        let settings = LegSettings::default();
        media.send(Command::Open { bridge, leg: LEG, local: near(call), settings, seed: call })?;
        let remote = Remote {
            address: far[call as usize % FAR_SOCKETS].local_addr()?,
            codec: Codec::Pcmu,
            payload_type: 0,
            event_payload_type: Some(101),
            direction: Direction::SendRecv,
            ptime_ms: 20,
            srtp: None,
        };
        media.send(Command::Connect { bridge, leg: LEG, remote })?;
        let (playback, clip) = (PlaybackId(1), clip.clone());
        media.send(Command::Play { bridge, playback, clip, to: PlayTo::Bridge, looped: true })?;
        let path = folder.join(format!("{call}.wav"));
        media.send(Command::Record { bridge, recording: RecordingId(1), path, what: RecordWhat::Mix })?;
        // The queue of a worker has its bound, and takes a thousand calls a second at most.
        if call % 100 == 99 {
            sleep_until(now() + Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The result of one run.
struct Figures {
    p50_ms: f64,
    p99_ms: f64,
    worst_call_p99_ms: f64,
    short_percent: f64,
}

fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
}

fn figures(arrivals: &[Vec<u64>], from: u64, to: u64) -> Figures {
    let mut all = Vec::new();
    let mut worst: f64 = 0.0;
    let mut packets = 0;
    for arrivals in arrivals {
        let within: Vec<u64> = arrivals.iter().copied().filter(|at| (from..to).contains(at)).collect();
        packets += within.len();
        let mut gaps: Vec<u64> = within.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        gaps.sort_unstable();
        worst = worst.max(percentile(&gaps, 99));
        all.extend(gaps);
    }
    all.sort_unstable();
    let due = arrivals.len() as f64 * 50.0 * (to - from) as f64 / 1e9;
    Figures {
        p50_ms: percentile(&all, 50),
        p99_ms: percentile(&all, 99),
        worst_call_p99_ms: worst,
        short_percent: (1.0 - packets as f64 / due).max(0.0) * 100.0,
    }
}

/// What must not happen: failures, and recordings with gaps.
fn troubles(events: &mut EventReceiver) -> (u64, u64) {
    let (mut failures, mut degraded) = (0, 0);
    while let Some(event) = events.try_recv() {
        match event.heard {
            Heard::Failed { .. } | Heard::RecordingFailed { .. } => failures += 1,
            Heard::RecordingEnded { degraded_ms, .. } => degraded += u64::from(degraded_ms > 0),
            _ => {}
        }
    }
    (failures, degraded)
}

fn run(calls: u64, seconds: u64) -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("trunkline-density-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let far: Vec<UdpSocket> =
        (0..FAR_SOCKETS).map(|_| kernel::timestamped_socket()).collect::<Result<_, _>>()?;
    let memory = kernel::resident_bytes("self");
    let (media, mut events) = Media::start(MediaConfig { workers: 1, pin: true, ..MediaConfig::default() })?;
    open(&media, calls, &far, &folder)?;
    let stop = AtomicBool::new(false);
    let (arrivals, from, to, cpu, memory, metrics) = thread::scope(|scope| {
        let talking = scope.spawn(|| {
            kernel::pin(1);
            talk(&far, calls, &stop);
        });
        let listening = scope.spawn(|| {
            kernel::pin(1);
            listen(&far, calls, &stop)
        });
        sleep_until(now() + WARM_UP);
        let (from, before) = (kernel::wall_nanos(), kernel::thread_seconds("self"));
        sleep_until(now() + Duration::from_secs(seconds));
        let (to, after) = (kernel::wall_nanos(), kernel::thread_seconds("self"));
        let memory = kernel::resident_bytes("self").saturating_sub(memory);
        let metrics = media.metrics();
        stop.store(true, Ordering::Relaxed);
        let cpu: BTreeMap<String, f64> = after
            .into_iter()
            .map(|(name, spent)| {
                let share = (spent - before.get(&name).unwrap_or(&0.0)) / seconds as f64 * 100.0;
                (name, share)
            })
            .collect();
        let _ = talking.join();
        (listening.join().unwrap_or_default(), from, to, cpu, memory, metrics)
    });
    drop(media);
    let (troubles, degraded) = troubles(&mut events);
    std::fs::remove_dir_all(folder)?;
    let f = figures(&arrivals, from, to);
    let share = |name: &str| cpu.get(name).copied().unwrap_or(f64::NAN);
    let mib = memory as f64 / calls as f64 / (1024.0 * 1024.0);
    println!(
        "{calls:5} calls  gap p50 {:6.2} ms  p99 {:6.2} ms  worst call's p99 {:6.2} ms  short {:6.3} %",
        f.p50_ms, f.p99_ms, f.worst_call_p99_ms, f.short_percent
    );
    println!(
        "             worker {:.0} % of its core, writer {:.0} %; slots late p50 {} us, p99 {} us, max {} us, skipped {}",
        share("media-0"),
        share("media-writer"),
        metrics.lateness_p50_us,
        metrics.lateness_p99_us,
        metrics.lateness_max_us,
        metrics.skipped
    );
    let good = f.p99_ms < 25.0 && f.short_percent < 0.1;
    println!(
        "             {mib:.3} MiB per call ({:.2} of Asterisk's); {:.1} times Asterisk's calls per core: {}; \
         {troubles} failures, {degraded} recordings with gaps, {} sends refused",
        mib / ASTERISK_MIB,
        calls as f64 / ASTERISK_CALLS,
        if good { "held" } else { "NOT held" },
        metrics.send_errors
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut calls = None;
    let mut seconds = 10;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--calls" => calls = Some(arguments.next().ok_or("--calls wants a number")?.parse()?),
            "--seconds" => seconds = arguments.next().ok_or("--seconds wants a number")?.parse()?,
            // What cargo itself adds.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    kernel::raise_file_limit();
    println!(
        "one worker on core 0, far end on core 1; held means p99 < 25 ms and < 0.1 % short of 50 packets/s"
    );
    for calls in calls.map_or(STEPS.to_vec(), |calls| vec![calls]) {
        run(calls, seconds)?;
    }
    Ok(())
}

//! What a call costs in signalling alone: INVITE, 100, 200, ACK, BYE, 200 between our caller and our callee.
//!
//! (a) in memory, one thread for both ends; (b) over loopback UDP, the callee on a pinned core of its own. Then the memory
//! of calls that stand, and what one more call costs beside 100, 1,000 and 20,000 of them: it must be the same, since
//! nothing may search through all calls.
//!
//! `cargo bench --bench signalling -- [--calls N]`

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{Config, Endpoint, Inbound, Peer, SessionEvent, SessionId, Target, Timers, Transmit, Uri};

/// The goals, by which the printed figures are judged.
const GOAL_CALLS: f64 = 5_000.0;
const GOAL_CPU_MS: f64 = 0.1;
const GOAL_KIB: f64 = 12.0;
const STANDING: usize = 10_000;
const BESIDE: [usize; 3] = [100, 1_000, 20_000];
const SAMPLE: usize = 2_000;
/// Calls under way at once in the run over sockets.
const WINDOW: usize = 200;
const SDP: &[u8] = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n";

/// Counts what is allocated, so that memory per call is not a guess.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator cannot be written without it; this one only counts")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn config(local: SocketAddr) -> Config {
    Config {
        inbound: Inbound::Anyone,
        max_sessions: 200_000,
        max_transactions: 2_000_000,
        // The lingering of transactions is part of the cost, but not 32 s of it in a run of a few seconds.
        timers: Timers { t1: Duration::from_millis(100), ..Timers::default() },
        ..Config::new(local)
    }
}

fn target(to: SocketAddr, from: SocketAddr) -> Target {
    Target::new(Uri::sip("14155550100", to), Uri::sip("trunkline", from), Peer::udp(to))
}

/// Two endpoints and no network between them.
struct Memory {
    now: Instant,
    ends: [(SocketAddr, Endpoint); 2],
    answered: VecDeque<SessionId>,
    ended: usize,
}

impl Memory {
    fn new() -> Self {
        let addr = |last: u8| SocketAddr::from(([192, 0, 2, last], 5060));
        let end = |last: u8| (addr(last), Endpoint::new(config(addr(last)), [last; 32]));
        Self { now: now(), ends: [end(1), end(2)], answered: VecDeque::new(), ended: 0 }
    }

    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            for at in [0, 1] {
                while let Some(Transmit { bytes, .. }) = self.ends[at].1.poll_transmit() {
                    let from = Peer::udp(self.ends[at].0);
                    self.ends[1 - at].1.handle_datagram(self.now, from, &bytes);
                    quiet = false;
                }
                while let Some((id, event)) = self.ends[at].1.poll_event() {
                    quiet = false;
                    match event {
                        SessionEvent::Invited(_) => {
                            if let Some(mut session) = self.ends[at].1.session(id) {
                                session.answer(self.now, Bytes::from_static(SDP));
                            }
                        }
                        SessionEvent::Answered { .. } => self.answered.push_back(id),
                        SessionEvent::Terminated(_) => self.ended += 1,
                        _ => {}
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.ends.iter().filter_map(|(_, endpoint)| endpoint.poll_timeout()).min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for (_, endpoint) in &mut self.ends {
                endpoint.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
    }

    fn call(&mut self) -> Result<(), Box<dyn Error>> {
        let (to, from) = (self.ends[1].0, self.ends[0].0);
        self.ends[0].1.invite(self.now, target(to, from), Bytes::from_static(SDP))?;
        self.drain();
        Ok(())
    }

    fn hang_up(&mut self) {
        if let Some(id) = self.answered.pop_front()
            && let Some(mut session) = self.ends[0].1.session(id)
        {
            session.hang_up(self.now, None);
        }
        self.drain();
    }

    /// Whole calls, one after another, at 2,000 a second of the endpoints' own time.
    fn complete(&mut self, calls: usize) -> Result<Duration, Box<dyn Error>> {
        let before = cpu();
        for _ in 0..calls {
            self.call()?;
            self.hang_up();
            self.pass(Duration::from_micros(500));
        }
        Ok(cpu() - before)
    }
}

fn per_call_ms(time: Duration, calls: usize) -> f64 {
    time.as_secs_f64() * 1_000.0 / calls as f64
}

fn verdict(good: bool) -> &'static str {
    if good { "good" } else { "MISSED" }
}

fn in_memory(calls: usize) -> Result<(), Box<dyn Error>> {
    let mut memory = Memory::new();
    memory.complete(calls / 10)?;
    let (start, spent) = (now(), memory.complete(calls)?);
    let rate = calls as f64 / start.elapsed().as_secs_f64();
    let each = per_call_ms(spent, calls);
    println!(
        "in memory, both ends:   {rate:>8.0} calls/s   {each:.4} ms CPU a call   ({:.4} ms an end)",
        each / 2.0
    );
    Ok(())
}

fn standing() -> Result<(), Box<dyn Error>> {
    let mut memory = Memory::new();
    let empty = HELD.load(Ordering::Relaxed);
    for _ in 0..STANDING {
        memory.call()?;
    }
    let fresh = HELD.load(Ordering::Relaxed) - empty;
    memory.pass(Duration::from_secs(60));
    let settled = HELD.load(Ordering::Relaxed) - empty;
    // Both ends are held here.
    let kib = |bytes: usize| bytes as f64 / 1_024.0 / STANDING as f64 / 2.0;
    println!(
        "memory of {STANDING} calls:   {:.1} KiB each end just answered, {:.1} KiB a while later   {} (goal {GOAL_KIB})",
        kib(fresh),
        kib(settled),
        verdict(kib(fresh) <= GOAL_KIB)
    );
    Ok(())
}

fn beside() -> Result<(), Box<dyn Error>> {
    let mut costs = Vec::new();
    for many in BESIDE {
        let mut memory = Memory::new();
        for _ in 0..many {
            memory.call()?;
        }
        memory.complete(SAMPLE)?;
        let each = per_call_ms(memory.complete(SAMPLE)?, SAMPLE);
        println!("one more beside {many:>6}: {each:.4} ms CPU a call, both ends");
        costs.push(each);
    }
    let (least, most) =
        costs.iter().fold((f64::MAX, 0.0_f64), |(least, most), cost| (least.min(*cost), most.max(*cost)));
    println!("flat:                   {:.2} times the least   {}", most / least, verdict(most / least < 2.0));
    Ok(())
}

/// An endpoint on a socket of its own, as a driver would have it; ends when told.
struct Wire {
    socket: UdpSocket,
    endpoint: Endpoint,
    buffer: Vec<u8>,
}

impl Wire {
    fn new(seed: u8) -> Result<Self, Box<dyn Error>> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let endpoint = Endpoint::new(config(socket.local_addr()?), [seed; 32]);
        Ok(Self { socket, endpoint, buffer: vec![0; sip::parse::MAX_MESSAGE] })
    }

    /// Takes what is there; gives back whether there was anything.
    fn round(&mut self, mut told: impl FnMut(&mut Endpoint, SessionId, SessionEvent)) -> bool {
        let mut busy = false;
        for _ in 0..64 {
            if let Ok((length, from)) = self.socket.recv_from(&mut self.buffer) {
                self.endpoint.handle_datagram(now(), Peer::udp(from), &self.buffer[..length]);
                busy = true;
            }
            if self.endpoint.poll_timeout().is_some_and(|at| at <= now()) {
                self.endpoint.handle_timeout(now());
            }
            while let Some((id, event)) = self.endpoint.poll_event() {
                told(&mut self.endpoint, id, event);
            }
            while let Some(Transmit { to, bytes }) = self.endpoint.poll_transmit() {
                // What the kernel does not take is lost, and repeated.
                let _ = self.socket.send_to(&bytes, to.addr);
            }
            if !busy {
                break;
            }
        }
        busy
    }
}

#[expect(unsafe_code, reason = "there is no safe way to choose a core")]
fn pin(core: usize) {
    // SAFETY: the set is a plain value of the size that is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

fn rest() {
    #[expect(clippy::disallowed_methods, reason = "an idle end lets the other have the core")]
    thread::sleep(Duration::from_micros(50));
}

fn callee(stop: &AtomicBool, address: &mpsc::Sender<SocketAddr>) -> Duration {
    pin(0);
    let Ok(mut wire) = Wire::new(2) else { return Duration::ZERO };
    if let Ok(addr) = wire.socket.local_addr() {
        // The caller is there until it has been told.
        let _ = address.send(addr);
    }
    let before = cpu();
    while !stop.load(Ordering::Relaxed) {
        let busy = wire.round(|endpoint, id, event| {
            if let SessionEvent::Invited(_) = event
                && let Some(mut session) = endpoint.session(id)
            {
                session.answer(now(), Bytes::from_static(SDP));
            }
        });
        if !busy {
            rest();
        }
    }
    cpu() - before
}

fn over_loopback(calls: usize) -> Result<(), Box<dyn Error>> {
    let stop = AtomicBool::new(false);
    let (sender, addresses) = mpsc::channel();
    let (elapsed, spent, lost) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let far = scope.spawn(|| callee(&stop, &sender));
        let to = addresses.recv()?;
        pin(1);
        let mut wire = Wire::new(1)?;
        let from = wire.socket.local_addr()?;
        let (start, mut begun, mut over, mut lost) = (now(), 0, 0, 0);
        while over < calls {
            while begun < calls && begun - over < WINDOW {
                wire.endpoint.invite(now(), target(to, from), Bytes::from_static(SDP))?;
                begun += 1;
            }
            let busy = wire.round(|endpoint, id, event| match event {
                SessionEvent::Answered { .. } => {
                    if let Some(mut session) = endpoint.session(id) {
                        session.hang_up(now(), None);
                    }
                }
                SessionEvent::Terminated(end) => {
                    over += 1;
                    lost += usize::from(end.cause != sip::TerminationCause::Bye);
                }
                _ => {}
            });
            if !busy {
                rest();
            }
        }
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let spent = far.join().map_err(|_| "the callee died")?;
        Ok((elapsed, spent, lost))
    })?;
    let (rate, each) = (calls as f64 / elapsed.as_secs_f64(), per_call_ms(spent, calls));
    println!(
        "over loopback UDP:      {rate:>8.0} calls/s   {each:.4} ms CPU a call at the callee   {lost} lost   {} (goals {GOAL_CALLS}, {GOAL_CPU_MS} ms)",
        verdict(rate >= GOAL_CALLS && each <= GOAL_CPU_MS)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut calls = 20_000;
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--calls" {
            calls = given.next().ok_or("--calls needs a number")?.parse()?;
        }
    }
    in_memory(calls)?;
    over_loopback(calls)?;
    standing()?;
    beside()
}

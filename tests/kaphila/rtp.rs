//! The sound of one call at the tests' own far end: 20 ms packets of PCMU (silence unless told otherwise), key
//! presses by RFC 4733, and everything heard, packet by packet.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::audio::{HEARD_DBM0, dbm0, from_ulaw, to_ulaw};

const FRAME: usize = 160;
const SILENCE: u8 = 0xff;
/// What a stream begins with.
const FIRST_SEQUENCE: u16 = 1000;
const FIRST_TIMESTAMP: u32 = 5000;
/// Its source.
pub(crate) const SSRC: u32 = 0x0bad_cafe;
/// Event packets before the end packets: 100 ms of key.
const EVENT_PACKETS: u16 = 5;

/// One packet as it came.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) at: Instant,
    pub(crate) payload_type: u8,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// Whether somebody is heard in it.
    pub(crate) fn heard(&self) -> bool {
        let samples: Vec<f64> = self.payload.iter().map(|&octet| from_ulaw(octet)).collect();
        self.payload_type == 0 && dbm0(&samples) > HEARD_DBM0
    }
}

#[derive(Default)]
struct State {
    heard: Vec<Packet>,
    speech: VecDeque<u8>,
    keys: VecDeque<(u8, u16)>,
    pressed: Vec<Instant>,
    mute: bool,
    /// Where the program wants its RTP, once that is known.
    remote: Option<SocketAddr>,
    sent: u16,
}

/// The sound of one call.
pub(crate) struct Sound {
    socket: UdpSocket,
    event_type: u8,
    state: Mutex<State>,
}

struct Sender {
    sequence: u16,
    timestamp: u32,
    event: Option<(u8, u16, u16, u32)>,
}

impl Sound {
    /// Opens a socket for an offer and starts to send and to listen.
    pub(crate) async fn start(offer: &str) -> Arc<Self> {
        let mapped = offer.lines().find(|line| line.contains("telephone-event/8000"));
        let event_type =
            mapped.and_then(|line| line.trim().strip_prefix("a=rtpmap:")?.split(' ').next()?.parse().ok());
        let sound = Self::open(event_type.unwrap_or(101)).await;
        sound.connect(offer);
        sound
    }

    /// Opens a socket that listens, and sends nothing before it is told where to. Its answer may be an offer until then.
    pub(crate) async fn open(event_type: u8) -> Arc<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let sound = Arc::new(Self { socket, event_type, state: Mutex::default() });
        tokio::spawn(speak(Arc::downgrade(&sound)));
        tokio::spawn(listen(Arc::downgrade(&sound)));
        sound
    }

    /// Sends to where a session description says.
    pub(crate) fn connect(&self, description: &str) {
        let remote = audio_of(description);
        self.state(|state| state.remote = Some(remote));
    }

    /// Where the program wants its RTP.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.state(|state| state.remote).expect("the sound has been connected")
    }

    /// The session description that answers.
    pub(crate) fn answer(&self) -> String {
        let port = self.socket.local_addr().expect("a bound socket has an address").port();
        let event = self.event_type;
        format!(
            "v=0\r\no=far 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0 {event}\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:{event} telephone-event/8000\r\n\
             a=fmtp:{event} 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().expect("no test panics here"))
    }

    /// Everything heard so far.
    pub(crate) fn heard(&self) -> Vec<Packet> {
        self.state(|state| state.heard.clone())
    }

    /// When somebody was last heard, if ever.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.state(|state| state.heard.iter().rev().find(|packet| packet.heard()).map(|packet| packet.at))
    }

    /// What was heard in PCMU packets from a moment on, joined.
    pub(crate) fn samples_since(&self, since: Instant) -> Vec<f64> {
        let spoken = |packet: &&Packet| packet.payload_type == 0 && packet.at >= since;
        self.state(|state| {
            let packets = state.heard.iter().filter(spoken);
            packets.flat_map(|packet| packet.payload.iter().map(|&octet| from_ulaw(octet))).collect()
        })
    }

    /// Says this after what is being said.
    pub(crate) fn say(&self, samples: &[i16]) {
        self.state(|state| state.speech.extend(samples.iter().map(|&sample| to_ulaw(sample))));
    }

    /// Presses a key for 100 ms, its end told `ends` times.
    pub(crate) fn press(&self, key: char, ends: u16) {
        let code = "0123456789*#ABCD".find(key).and_then(|at| u8::try_from(at).ok()).expect("a key");
        self.state(|state| state.keys.push_back((code, ends)));
    }

    /// When each key's first packet was sent.
    pub(crate) fn pressed(&self) -> Vec<Instant> {
        self.state(|state| state.pressed.clone())
    }

    /// Sends nothing more.
    pub(crate) fn mute(&self) {
        self.state(|state| state.mute = true);
    }

    /// The sequence number of the next packet.
    pub(crate) fn next_sequence(&self) -> u16 {
        self.state(|state| FIRST_SEQUENCE.wrapping_add(state.sent))
    }

    fn next_packet(&self, sender: &mut Sender) -> Option<Vec<u8>> {
        self.state(|state| {
            if state.mute || state.remote.is_none() {
                return None;
            }
            if sender.event.is_none() {
                sender.event = state.keys.pop_front().map(|(code, ends)| (code, ends, 0, sender.timestamp));
            }
            let packet = match &mut sender.event {
                Some((code, ends, sent, timestamp)) => {
                    *sent += 1;
                    if *sent == 1 {
                        state.pressed.push(Instant::now());
                    }
                    let end = *sent > EVENT_PACKETS;
                    let duration = FRAME as u16 * (*sent).min(EVENT_PACKETS);
                    let [high, low] = duration.to_be_bytes();
                    let payload = [*code, if end { 0x80 | 10 } else { 10 }, high, low];
                    let marker = if *sent == 1 { 0x80 } else { 0 };
                    let packet = packet(marker | self.event_type, sender.sequence, *timestamp, &payload);
                    if *sent == EVENT_PACKETS + *ends {
                        sender.event = None;
                    }
                    packet
                }
                None => {
                    let mut payload = [SILENCE; FRAME];
                    for octet in &mut payload {
                        *octet = state.speech.pop_front().unwrap_or(SILENCE);
                    }
                    packet(0, sender.sequence, sender.timestamp, &payload)
                }
            };
            sender.sequence = sender.sequence.wrapping_add(1);
            state.sent = state.sent.wrapping_add(1);
            sender.timestamp = sender.timestamp.wrapping_add(FRAME as u32);
            Some(packet)
        })
    }
}

/// Where a session description wants its sound.
fn audio_of(sdp: &str) -> SocketAddr {
    let line =
        |prefix: &str| sdp.lines().find_map(|line| line.trim().strip_prefix(prefix)).unwrap_or_default();
    let port = line("m=audio ").split(' ').next().and_then(|port| port.parse().ok());
    let host = line("c=IN IP4 ").trim().parse().ok();
    let (host, port): (Ipv4Addr, u16) =
        host.zip(port).unwrap_or_else(|| panic!("no audio in description:\n{sdp}"));
    SocketAddr::from((host, port))
}

/// The timestamp that goes with a sequence number.
pub(crate) fn timestamp_of(sequence: u16) -> u32 {
    FIRST_TIMESTAMP + u32::from(sequence.wrapping_sub(FIRST_SEQUENCE)) * FRAME as u32
}

/// An RTP packet (RFC 3550 §5.1) of the far end's source.
pub(crate) fn packet(marker_and_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    packet_of(SSRC, marker_and_type, sequence, timestamp, payload)
}

/// An RTP packet of any source.
pub(crate) fn packet_of(
    ssrc: u32,
    marker_and_type: u8,
    sequence: u16,
    timestamp: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x80, marker_and_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

async fn speak(sound: Weak<Sound>) {
    let mut tick = interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sender = Sender { sequence: FIRST_SEQUENCE, timestamp: FIRST_TIMESTAMP, event: None };
    loop {
        tick.tick().await;
        let Some(sound) = sound.upgrade() else { return };
        if let Some(packet) = sound.next_packet(&mut sender) {
            // The port may be closed already.
            let _ = sound.socket.send_to(&packet, sound.remote()).await;
        }
    }
}

async fn listen(sound: Weak<Sound>) {
    let mut buffer = [0; 2048];
    while let Some(sound) = sound.upgrade() {
        // Waits only so long that a call that nobody holds any more is let go.
        let next =
            tokio::time::timeout(Duration::from_millis(200), sound.socket.recv_from(&mut buffer)).await;
        let Ok(Ok((length, _))) = next else { continue };
        if length >= 12 {
            let payload_type = buffer[1] & 0x7f;
            let packet = Packet { at: Instant::now(), payload_type, payload: buffer[12..length].to_vec() };
            sound.state(|state| state.heard.push(packet));
        }
    }
}

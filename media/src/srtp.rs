//! SRTP (RFC 3711): packets of one leg sealed and opened in place, with the two suites that carriers speak.
//!
//! Owns session keys, the rollover counter of each stream and the window against replays. The cipher and the hash are
//! RustCrypto's. It allocates nothing per packet, never touches a socket, and knows no SDP: how keys are exchanged is
//! [`crate::sdp`]'s. RTCP is neither sent nor listened to here, so SRTCP has no place.

mod window;

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use window::{Stream, Streams};

/// Octets of a master key and its salt, as `inline:` carries them (RFC 4568 §6.1).
pub const MASTER: usize = 30;
/// Octets of the longest authentication tag.
pub const TAG_MAX: usize = 10;
/// Octets of the fixed RTP header.
const HEADER: usize = 12;
const KEY: usize = 16;
const SALT: usize = 14;

/// How packets are protected: AES in counter mode with HMAC-SHA1 (RFC 4568 §6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`, the one that everybody must have.
    Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`.
    Tag32,
}

/// Every suite, the preferred one first.
pub const SUITES: [Suite; 2] = [Suite::Tag80, Suite::Tag32];

impl Suite {
    /// The name in `a=crypto`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Tag32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of that name; capitals do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        SUITES.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Octets of the tag behind each packet.
    pub fn tag(self) -> usize {
        match self {
            Self::Tag80 => 10,
            Self::Tag32 => 4,
        }
    }
}

/// A master key with its salt. Its text is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MasterKey(pub [u8; MASTER]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// What both sides of a leg protect their packets with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// For both directions.
    pub suite: Suite,
    /// For what we send.
    pub ours: MasterKey,
    /// For what we receive.
    pub theirs: MasterKey,
}

/// The keys of one direction, derived from its master key (RFC 3711 §4.3).
struct Session {
    suite: Suite,
    cipher: Aes128,
    hash: Hmac<Sha1>,
    salt: [u8; SALT],
}

impl Session {
    fn new(suite: Suite, master: &MasterKey) -> Self {
        let (key, salt) = master.0.split_at(KEY);
        let cipher = Aes128::new_from_slice(key).expect("16 octets are a key of AES-128");
        let derive = |label: u8, out: &mut [u8]| {
            let mut counter = [0; 16];
            counter[..SALT].copy_from_slice(salt);
            counter[7] ^= label;
            keystream(&cipher, counter, out);
        };
        let (mut cipher_key, mut hash_key, mut session_salt) = ([0; KEY], [0; 20], [0; SALT]);
        derive(0, &mut cipher_key);
        derive(1, &mut hash_key);
        derive(2, &mut session_salt);
        Self {
            suite,
            cipher: Aes128::new(&cipher_key.into()),
            hash: <Hmac<Sha1> as Mac>::new_from_slice(&hash_key).expect("HMAC takes a key of any length"),
            salt: session_salt,
        }
    }

    /// Enciphers or deciphers the payload (RFC 3711 §4.1.1).
    fn apply(&self, ssrc: u32, index: u64, payload: &mut [u8]) {
        let mut counter = [0; 16];
        counter[..SALT].copy_from_slice(&self.salt);
        for (octet, ssrc) in counter[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *octet ^= ssrc;
        }
        for (octet, index) in counter[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *octet ^= index;
        }
        keystream(&self.cipher, counter, payload);
    }

    /// The hash of a packet and its rollover counter (RFC 3711 §4.2); the tag is its beginning.
    fn hash(&self, packet: &[u8], rollover: u32) -> Hmac<Sha1> {
        let mut hash = self.hash.clone();
        hash.update(packet);
        hash.update(&rollover.to_be_bytes());
        hash
    }
}

/// XORs the key stream that begins at a counter into `data`.
fn keystream(cipher: &Aes128, counter: [u8; 16], data: &mut [u8]) {
    for (number, chunk) in (0_u16..).zip(data.chunks_mut(16)) {
        let mut block = counter;
        block[14..].copy_from_slice(&number.to_be_bytes());
        let block = &mut block.into();
        cipher.encrypt_block(block);
        for (octet, key) in chunk.iter_mut().zip(block.iter()) {
            *octet ^= key;
        }
    }
}

/// What a header says of the payload's place; `None` for what is no RTP packet.
struct Shape {
    sequence: u16,
    ssrc: u32,
    payload: usize,
}

impl Shape {
    /// The header with contributing sources and extension (RFC 3550 §5.1, §5.3.1), which stay readable.
    fn of(packet: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = packet.first_chunk()?;
        if head[0] >> 6 != 2 {
            return None;
        }
        let mut payload = HEADER + usize::from(head[0] & 0x0f) * 4;
        if head[0] & 0x10 != 0 {
            let words: &[u8; 4] = packet.get(payload..)?.first_chunk()?;
            payload += 4 + usize::from(u16::from_be_bytes([words[2], words[3]])) * 4;
        }
        let sequence = u16::from_be_bytes([head[2], head[3]]);
        let ssrc = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        (payload <= packet.len()).then_some(Self { sequence, ssrc, payload })
    }
}

/// Seals what one stream sends.
pub struct Sealer {
    session: Session,
    master: MasterKey,
    rollover: u32,
    last: Option<u16>,
}

impl Sealer {
    /// Nothing sent yet.
    pub fn new(suite: Suite, master: MasterKey) -> Self {
        Self { session: Session::new(suite, &master), master, rollover: 0, last: None }
    }

    /// Whether it seals with that already.
    pub fn is_for(&self, suite: Suite, master: &MasterKey) -> bool {
        self.session.suite == suite && self.master == *master
    }

    /// Seals the packet of `len` octets at the beginning of `buffer`, in place; packets come in the order of their
    /// sequence numbers. Answers the new length, or `None` where the tag has no room or it is no RTP packet.
    pub fn seal(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let shape = Shape::of(buffer.get(..len)?)?;
        let tag = self.session.suite.tag();
        let whole = buffer.get_mut(..len + tag)?;
        if self.last.is_some_and(|last| shape.sequence < last) {
            self.rollover = self.rollover.wrapping_add(1);
        }
        self.last = Some(shape.sequence);
        let (packet, room) = whole.split_at_mut(len);
        let index = u64::from(self.rollover) << 16 | u64::from(shape.sequence);
        self.session.apply(shape.ssrc, index, &mut packet[shape.payload..]);
        let hash = self.session.hash(packet, self.rollover).finalize().into_bytes();
        room.copy_from_slice(&hash[..tag]);
        Some(len + tag)
    }
}

/// Opens what comes from a far end.
pub struct Opener {
    session: Session,
    master: MasterKey,
    streams: Streams,
}

impl Opener {
    /// Nothing received yet.
    pub fn new(suite: Suite, master: MasterKey) -> Self {
        Self { session: Session::new(suite, &master), master, streams: Streams::default() }
    }

    /// Whether it opens that already.
    pub fn is_for(&self, suite: Suite, master: &MasterKey) -> bool {
        self.session.suite == suite && self.master == *master
    }

    /// Opens a packet in place. `None`, and nothing remembered, for one that is forged, damaged, a repetition, or too
    /// old to tell (RFC 3711 §3.3).
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let split = packet.len().checked_sub(self.session.suite.tag())?;
        let (packet, tag) = packet.split_at_mut(split);
        let shape = Shape::of(packet)?;
        let mut stream =
            self.streams.get(shape.ssrc).unwrap_or_else(|| Stream::new(shape.ssrc, shape.sequence));
        let index = stream.guess(shape.sequence);
        let rollover = u32::try_from(index >> 16).ok()?;
        if !stream.is_new(index) {
            return None;
        }
        self.session.hash(packet, rollover).verify_truncated_left(tag).ok()?;
        stream.take(index);
        self.streams.put(stream);
        self.session.apply(shape.ssrc, index, &mut packet[shape.payload..]);
        Some(packet)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("suite", &self.session.suite)
            .field("rollover", &self.rollover)
            .finish()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("suite", &self.session.suite).field("streams", &self.streams).finish()
    }
}

#[cfg(test)]
mod tests;

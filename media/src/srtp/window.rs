//! Which packet of a stream this is, and whether it was there before (RFC 3711 §3.3.1 and §3.3.2).

/// Streams of one far end remembered at once: it changes its own when it transfers or restarts.
const STREAMS: usize = 4;
/// Packets behind the newest that are still told apart.
const WINDOW: u64 = 64;

/// One synchronisation source: the highest index that was authentic, and those just behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stream {
    ssrc: u32,
    highest: u64,
    /// Bit n: the packet n behind the highest was there.
    seen: u64,
}

impl Stream {
    /// A stream of which nothing was there before this packet; its rollover counter is 0 (RFC 3711 §3.3.1).
    pub(super) fn new(ssrc: u32, sequence: u16) -> Self {
        Self { ssrc, highest: sequence.into(), seen: 0 }
    }

    /// The index of a packet: the one nearest to the highest that ends in this sequence number.
    pub(super) fn guess(&self, sequence: u16) -> u64 {
        const HALF: u64 = 1 << 15;
        let turn = self.highest & !0xffff;
        let index = turn | u64::from(sequence);
        if index + HALF < self.highest {
            index + (1 << 16)
        } else if index > self.highest + HALF {
            index.checked_sub(1 << 16).unwrap_or(index)
        } else {
            index
        }
    }

    /// Whether it was not there before, and is not too old to tell.
    pub(super) fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(behind) => behind < WINDOW && self.seen & (1 << behind) == 0,
        }
    }

    /// It was authentic.
    pub(super) fn take(&mut self, index: u64) {
        match index.checked_sub(self.highest) {
            Some(ahead) if ahead > 0 => {
                self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
                self.highest = index;
            }
            _ => self.seen |= 1 << (self.highest - index).min(WINDOW - 1),
        }
    }
}

/// The streams of one far end, the one that was heard last first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streams {
    known: [Option<Stream>; STREAMS],
}

impl Streams {
    pub(super) fn get(&self, ssrc: u32) -> Option<Stream> {
        self.known.iter().flatten().find(|stream| stream.ssrc == ssrc).copied()
    }

    /// Remembers an authentic stream; the one heard longest ago makes room.
    pub(super) fn put(&mut self, stream: Stream) {
        let at = self.known.iter().position(|known| known.is_none_or(|known| known.ssrc == stream.ssrc));
        let at = at.unwrap_or(STREAMS - 1);
        self.known[..=at].rotate_right(1);
        self.known[0] = Some(stream);
    }
}

//! The ring of samples behind the jitter buffer: written and read at 64-bit positions, with one bit a sample that says
//! whether it is there. It knows nothing of packets, order or time.

const SIZE: usize = 8192;
const WORDS: usize = SIZE / 64;

/// Just over a second of samples. Positions further apart than that must not be in use at the same time.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    samples: [i16; SIZE],
    present: [u64; WORDS],
}

fn slot(position: i64) -> usize {
    position.rem_euclid(SIZE as i64) as usize
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { samples: [0; SIZE], present: [0; WORDS] }
    }

    pub(super) fn write(&mut self, position: i64, pcm: &[i16]) {
        for (index, &sample) in pcm.iter().take(SIZE).enumerate() {
            let at = slot(position + index as i64);
            self.samples[at] = sample;
            self.present[at / 64] |= 1 << (at % 64);
        }
    }

    pub(super) fn get(&self, position: i64) -> Option<i16> {
        let at = slot(position);
        (self.present[at / 64] & (1 << (at % 64)) != 0).then_some(self.samples[at])
    }

    /// Reads whether or not the samples are there.
    pub(super) fn read(&self, position: i64, out: &mut [i16]) {
        let start = slot(position);
        let first = out.len().min(SIZE - start);
        let (head, tail) = out.split_at_mut(first);
        head.copy_from_slice(&self.samples[start..start + first]);
        tail.copy_from_slice(&self.samples[..tail.len()]);
    }

    /// How many of `count` samples from `position` on are there.
    pub(super) fn present(&self, position: i64, count: usize) -> usize {
        let mut found = 0;
        Self::words(position, count.min(SIZE), |word, mask| {
            found += (self.present[word] & mask).count_ones() as usize;
        });
        found
    }

    pub(super) fn clear(&mut self, from: i64, to: i64) {
        let count = usize::try_from(to - from).unwrap_or(0).min(SIZE);
        Self::words(from, count, |word, mask| self.present[word] &= !mask);
    }

    /// Calls with each word of the bit map and the bits of it that belong to the range.
    fn words(position: i64, count: usize, mut visit: impl FnMut(usize, u64)) {
        let mut at = slot(position);
        let mut left = count;
        while left > 0 {
            let bit = at % 64;
            let taken = left.min(64 - bit);
            let mask = (u64::MAX >> (64 - taken)) << bit;
            visit(at / 64, mask);
            at = (at + taken) % SIZE;
            left -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_until_cleared() {
        let mut ring = Ring::new();
        for position in [0, 63, 8100, 123_456_789, -50] {
            let pcm: Vec<i16> = (0..200).collect();
            ring.write(position, &pcm);
            assert_eq!(ring.present(position, 200), 200);
            assert_eq!(ring.present(position - 10, 20), 10);
            assert_eq!(ring.get(position + 7), Some(7));
            let mut out = [0; 200];
            ring.read(position, &mut out);
            assert_eq!(out.as_slice(), pcm);
            ring.clear(position + 50, position + 60);
            assert_eq!(ring.present(position, 200), 190);
            assert_eq!(ring.get(position + 55), None);
            ring.clear(position, position + 200);
            assert_eq!(ring.present(position, 200), 0);
        }
        assert!(ring.present.iter().all(|&word| word == 0));
    }

    #[test]
    fn a_range_beyond_the_ring_is_the_whole_ring() {
        let mut ring = Ring::new();
        ring.write(5, &[1; SIZE + 100]);
        assert_eq!(ring.present(0, SIZE * 2), SIZE);
        ring.clear(0, i64::MAX / 2);
        assert_eq!(ring.present(0, SIZE), 0);
        ring.clear(10, 5);
    }
}

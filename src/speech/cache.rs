//! Clips in memory, bounded by their bytes; what was used longest ago goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use media::Clip;

/// What an entry costs besides its samples: keys, counters and the clip's own header, roughly.
const ENTRY_BYTES: usize = 256;

/// A least-recently-used store of clips.
#[derive(Debug)]
pub(super) struct Lru<K> {
    entries: BTreeMap<K, Entry>,
    /// Age to key; the first is the oldest.
    ages: BTreeMap<u64, K>,
    next_age: u64,
    bytes: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    clip: Arc<Clip>,
    age: u64,
}

fn cost(clip: &Clip) -> usize {
    size_of_val(clip.samples()) + ENTRY_BYTES
}

impl<K: Ord + Clone> Lru<K> {
    /// An empty one for `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), ages: BTreeMap::new(), next_age: 0, bytes: 0, capacity }
    }

    /// The clip, which becomes the youngest.
    pub(super) fn get(&mut self, key: &K) -> Option<Arc<Clip>> {
        let entry = self.entries.get_mut(key)?;
        self.ages.remove(&entry.age);
        entry.age = self.next_age;
        self.ages.insert(entry.age, key.clone());
        self.next_age += 1;
        Some(entry.clip.clone())
    }

    /// Remembers a clip; one larger than the whole store is not worth emptying it for.
    pub(super) fn put(&mut self, key: K, clip: Arc<Clip>) {
        let cost = cost(&clip);
        if cost > self.capacity {
            return;
        }
        self.remove(&key);
        while self.bytes + cost > self.capacity {
            let Some((_, oldest)) = self.ages.pop_first() else { break };
            self.remove(&oldest);
        }
        self.ages.insert(self.next_age, key.clone());
        self.entries.insert(key, Entry { clip, age: self.next_age });
        self.next_age += 1;
        self.bytes += cost;
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.ages.remove(&entry.age);
            self.bytes -= cost(&entry.clip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(samples: usize) -> Arc<Clip> {
        Arc::new(Clip::from_samples(vec![0; samples]))
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let mut lru = Lru::new(3 * (2 * 1000 + ENTRY_BYTES));
        for key in 1..=3 {
            lru.put(key, clip(1000));
        }
        assert!(lru.get(&1).is_some());
        lru.put(4, clip(1000));
        assert!(lru.get(&2).is_none());
        assert!(lru.get(&1).is_some() && lru.get(&3).is_some() && lru.get(&4).is_some());
    }

    #[test]
    fn the_bytes_are_bounded_and_counted_right() {
        let mut lru = Lru::new(100_000);
        for round in 0..1000_usize {
            lru.put(round % 37, clip((round * 7919) % 20_000));
            let held: usize = lru.entries.values().map(|entry| cost(&entry.clip)).sum();
            assert_eq!(held, lru.bytes);
            assert!(lru.bytes <= lru.capacity);
            assert_eq!(lru.ages.len(), lru.entries.len());
        }
        assert!(lru.bytes > 50_000);
    }

    #[test]
    fn what_is_too_large_leaves_the_others_alone() {
        let mut lru = Lru::new(5000);
        lru.put("small", clip(100));
        lru.put("large", clip(10_000));
        assert!(lru.get(&"small").is_some());
        assert!(lru.get(&"large").is_none());
        let mut none = Lru::new(0);
        none.put(1, clip(0));
        assert!(none.get(&1).is_none());
    }
}

//! The jitter buffer against a scripted network. Time is virtual: arrivals and ticks are sorted and played.

use std::time::Duration;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

/// Every 10 ms of the stream has a value of its own, so that a frame tells where it came from.
fn code(block: usize) -> u8 {
    0x80 + (block % 0x50) as u8
}

fn value(block: usize) -> i16 {
    let mut pcm = [0];
    Codec::Pcmu.decode(&[code(block)], &mut pcm);
    pcm[0]
}

struct Script {
    buffer: JitterBuffer,
    start: Instant,
    arrivals: Vec<(u64, Arrival)>,
}

#[derive(Clone)]
struct Arrival {
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    marker: bool,
    payload: Vec<u8>,
}

const SSRC: u32 = 77;

impl Script {
    fn new(config: JitterConfig) -> Self {
        Self { buffer: JitterBuffer::new(config), start: epoch(), arrivals: Vec::new() }
    }

    /// Packet `index` of a stream of `ms` packets beginning at `base`, arriving at `at_us`.
    fn packet(&mut self, at_us: u64, index: usize, ms: usize, base: (u16, u32)) -> &mut Arrival {
        let blocks = ms / 10;
        let payload = (0..blocks).flat_map(|block| [code(index * blocks + block); 80]).collect();
        self.arrivals.push((
            at_us,
            Arrival {
                sequence: base.0.wrapping_add(index as u16),
                timestamp: base.1.wrapping_add((index * ms * 8) as u32),
                ssrc: SSRC,
                marker: false,
                payload,
            },
        ));
        &mut self.arrivals.last_mut().unwrap().1
    }

    /// Ticks at 10, 30, 50 … ms; packets arrive in between.
    fn run(&mut self, ticks: usize) -> Vec<(Popped, Frame)> {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        arrivals.sort_by_key(|(at, _)| *at);
        let mut arrivals = arrivals.into_iter().peekable();
        (0..ticks as u64)
            .map(|tick| {
                let tick_us = 10_000 + tick * 20_000;
                while let Some((at, a)) = arrivals.next_if(|(at, _)| *at <= tick_us) {
                    let p = Packet {
                        payload_type: 0,
                        marker: a.marker,
                        sequence: a.sequence,
                        timestamp: a.timestamp,
                        ssrc: a.ssrc,
                        payload: &a.payload,
                    };
                    self.buffer.push(self.start + Duration::from_micros(at), &p, Codec::Pcmu);
                }
                let mut frame = [1; FRAME];
                let popped = self.buffer.pop(self.start + Duration::from_micros(tick_us), &mut frame);
                (popped, frame)
            })
            .collect()
    }
}

fn is_frame(frame: &Frame, index: usize) -> bool {
    frame[..80] == [value(2 * index); 80] && frame[80..] == [value(2 * index + 1); 80]
}

fn ends_as_frame(frame: &Frame, index: usize) -> bool {
    frame[80..] == [value(2 * index + 1); 80]
}

fn kinds(frames: &[(Popped, Frame)]) -> String {
    frames
        .iter()
        .map(|(popped, _)| match popped {
            Popped::Audio => 'a',
            Popped::Concealed => 'c',
            Popped::Silence => '.',
        })
        .collect()
}

#[test]
fn a_clean_stream_is_played_bit_by_bit_after_40_ms() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..50 {
        script.packet(index * 20_000, index as usize, 20, (65_520, u32::MAX - 1600));
    }
    let played = script.run(52);
    assert_eq!(kinds(&played), format!("..{}", "a".repeat(50)));
    for (index, (_, frame)) in played[2..].iter().enumerate() {
        assert!(is_frame(frame, index), "{index}");
    }
    let stats = script.buffer.stats();
    assert_eq!((stats.received, stats.lost, stats.late, stats.concealed), (50, 0, 0, 0));
    assert!(stats.jitter_ms < 0.01);
}

#[test]
fn packets_of_10_to_60_ms_become_frames_of_20() {
    for ms in [10usize, 20, 30, 40, 60] {
        let mut script = Script::new(JitterConfig::default());
        let count = 1200 / ms;
        for index in 0..count {
            // A packet leaves when its last sample was spoken.
            script.packet(((index + 1) * ms * 1000) as u64, index, ms, (9, 1000));
        }
        let played = script.run(70);
        let audio: Vec<&Frame> =
            played.iter().filter(|(kind, _)| *kind == Popped::Audio).map(|(_, f)| f).collect();
        assert_eq!(audio.len(), 60, "{ms}: {}", kinds(&played));
        assert!(!kinds(&played).trim_end_matches(['c', '.']).contains('c'), "{ms}: {}", kinds(&played));
        assert!(audio.iter().enumerate().all(|(index, frame)| is_frame(frame, index)), "{ms}");
    }
}

#[test]
fn disorder_and_duplicates_change_nothing() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..40usize {
        let swapped = if index % 4 == 1 {
            index + 1
        } else if index % 4 == 2 {
            index - 1
        } else {
            index
        };
        script.packet(index as u64 * 20_000, swapped, 20, (0, 0));
        script.packet(index as u64 * 20_000 + 1, swapped, 20, (0, 0));
    }
    let played = script.run(42);
    assert_eq!(kinds(&played), format!("..{}", "a".repeat(40)));
    assert!(played[2..].iter().enumerate().all(|(index, (_, frame))| is_frame(frame, index)));
    let stats = script.buffer.stats();
    assert_eq!((stats.received, stats.duplicates, stats.lost), (40, 40, 0));
}

#[test]
fn a_stream_that_begins_in_disorder_loses_nothing() {
    let mut script = Script::new(JitterConfig::default());
    for (at, index) in [(0, 1), (1, 0), (20_000, 2), (40_000, 3)] {
        script.packet(at, index, 20, (100, 100));
    }
    let played = script.run(5);
    assert!(
        played
            .iter()
            .filter(|(kind, _)| *kind == Popped::Audio)
            .enumerate()
            .all(|(i, (_, f))| is_frame(f, i))
    );
    assert_eq!(script.buffer.stats().lost, 0);
}

#[test]
fn a_lost_packet_is_one_concealed_frame_and_no_more_delay() {
    for start_ms in [20, 40, 80] {
        let mut script = Script::new(JitterConfig { start_ms, ..JitterConfig::default() });
        for index in (0..40).filter(|index| index % 10 != 5) {
            script.packet(index * 20_000, index as usize, 20, (0, 0));
        }
        let lead = usize::from(start_ms) / 20;
        let played = script.run(40 + lead);
        let expected: String = (0..40).map(|index| if index % 10 == 5 { 'c' } else { 'a' }).collect();
        assert_eq!(kinds(&played), format!("{}{expected}", ".".repeat(lead)));
        for (index, (kind, frame)) in played[lead..].iter().enumerate() {
            assert!(*kind == Popped::Concealed || ends_as_frame(frame, index), "{start_ms}: {index}");
        }
        let stats = script.buffer.stats();
        assert_eq!((stats.lost, stats.concealed, stats.stretched), (4, 4, 0));
    }
}

#[test]
fn a_burst_of_losses_costs_as_many_frames_as_were_lost() {
    let mut script = Script::new(JitterConfig::default());
    for index in (0..40u64).filter(|index| !(10..15).contains(index)) {
        script.packet(index * 20_000, index as usize, 20, (0, 0));
    }
    let played = script.run(42);
    assert_eq!(kinds(&played), format!("..{}ccccc{}", "a".repeat(10), "a".repeat(25)));
    assert!(ends_as_frame(&played[17].1, 15));
}

#[test]
fn a_late_network_is_waited_for_at_once() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..100u64 {
        let delay = if index >= 20 { 70_000 } else { 0 };
        script.packet(index * 20_000 + delay, index as usize, 20, (0, 0));
    }
    let played = script.run(104);
    let order: Vec<&Frame> =
        played.iter().filter(|(kind, _)| *kind == Popped::Audio).map(|(_, f)| f).collect();
    assert_eq!(order.len(), 100, "nothing is thrown away: {}", kinds(&played));
    assert!(order.iter().enumerate().all(|(index, frame)| ends_as_frame(frame, index)));
    let stats = script.buffer.stats();
    assert_eq!((stats.late, stats.lost), (0, 0));
    assert!((1..=3).contains(&stats.stretched), "{stats:?}");
}

#[test]
fn in_fixed_mode_what_is_late_is_lost() {
    let mut script = Script::new(JitterConfig { adaptive: false, ..JitterConfig::default() });
    for index in 0..30u64 {
        let delay = if index == 20 { 70_000 } else { 0 };
        script.packet(index * 20_000 + delay, index as usize, 20, (0, 0));
    }
    let played = script.run(32);
    assert_eq!(kinds(&played), format!("..{}c{}", "a".repeat(20), "a".repeat(9)));
    assert_eq!(script.buffer.stats().late, 1);
}

#[test]
fn the_delay_shrinks_in_silence_only() {
    for loud in [false, true] {
        let mut script = Script::new(JitterConfig { start_ms: 120, ..JitterConfig::default() });
        for index in 0..600u64 {
            let arrival = script.packet(index * 20_000, index as usize, 20, (0, 0));
            if !loud && index % 50 >= 40 {
                arrival.payload.fill(0xFF);
            }
        }
        script.run(600);
        let stats = script.buffer.stats();
        if loud {
            assert_eq!((stats.left_out, stats.delay_ms), (0, 120), "{stats:?}");
        } else {
            assert!(stats.delay_ms <= 40, "{stats:?}");
            assert_eq!(stats.concealed, 0);
        }
    }
}

#[test]
fn ten_minutes_of_clock_drift_stay_bounded() {
    for ppm in [-300i64, 300] {
        for silent in [true, false] {
            let mut script = Script::new(JitterConfig::default());
            for index in 0..30_000u64 {
                let at = (index as i64 * (20_000_000_000 + ppm * 20_000) / 1_000_000) as u64;
                let arrival = script.packet(at, index as usize, 20, (0, 0));
                if silent && index % 100 >= 60 {
                    arrival.payload.fill(0xFF);
                }
            }
            script.run(29_990);
            let stats = script.buffer.stats();
            assert!(stats.delay_ms <= 220, "{ppm} {silent}: {stats:?}");
            // 300 ppm of ten minutes are 180 ms: nine frames.
            assert!(stats.concealed <= 10 && stats.skipped == 0, "{ppm} {silent}: {stats:?}");
            assert_eq!(stats.late, 0);
        }
    }
}

#[test]
fn jitter_of_60_ms_settles_without_further_gaps() {
    let mut script = Script::new(JitterConfig::default());
    let mut state = 5u32;
    let mut last = 0;
    for index in 0..1500u64 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // A queue delays but does not reorder.
        last = last.max(index * 20_000 + u64::from(state >> 16) % 60_000);
        script.packet(last, index as usize, 20, (0, 0));
    }
    let played = script.run(1500);
    let settled = kinds(&played[150..]);
    assert!(settled.matches('c').count() <= 5, "{}", settled.matches('c').count());
    let stats = script.buffer.stats();
    assert!(stats.delay_ms <= 140 && stats.jitter_ms > 5.0, "{stats:?}");
}

#[test]
fn another_source_starts_anew() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..10u64 {
        script.packet(index * 20_000, index as usize, 20, (5, 5000));
        script.packet(200_000 + index * 20_000, index as usize, 20, (40_000, 9_000_000)).ssrc = 78;
    }
    let played = script.run(25);
    let tail = kinds(&played);
    assert!(tail.starts_with("..aaaaaaaa..aaaaaaaaaa"), "{tail}");
    assert!(is_frame(&played[14].1, 2));
    assert_eq!(script.buffer.stats().restarts, 1);
}

#[test]
fn a_leap_of_the_timestamp_moves_the_base() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..10u64 {
        script.packet(index * 20_000, index as usize, 20, (0, 0));
        script.packet(200_000 + index * 20_000, index as usize, 20, (10, 3_000_000_000));
    }
    let played = script.run(22);
    assert_eq!(kinds(&played), "..aaaaaaaa..aaaaaaaaaa");
    assert_eq!(script.buffer.stats().lost, 0);
}

#[test]
fn a_long_pause_is_silence_and_ends_with_the_start_delay() {
    for advance in [0u32, 100_000] {
        let mut script = Script::new(JitterConfig::default());
        for index in 0..10u64 {
            script.packet(index * 20_000, index as usize, 20, (0, 0));
            script.packet(2_000_000 + index * 20_000, index as usize, 20, (10, 1600 + advance));
        }
        let played = script.run(115);
        let text = kinds(&played);
        assert!(text.starts_with("..aaaaaaaaaacccccccccc"), "{text}");
        let resumed = text.rfind("..").unwrap() + 2;
        assert_eq!(resumed, 102, "{text}");
        assert!(ends_as_frame(&played[102].1, 0));
    }
}

#[test]
fn a_marker_after_a_short_pause_sets_the_delay_anew() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..10u64 {
        script.packet(index * 20_000, index as usize, 20, (0, 0));
        script.packet(340_000 + index * 20_000, index as usize, 20, (10, 1600)).marker = index == 0;
    }
    let text = kinds(&script.run(29));
    assert_eq!(text, "..aaaaaaaaaaccccc..aaaaaaaaaa");
}

#[test]
fn markers_on_every_packet_disturb_nothing() {
    let mut script = Script::new(JitterConfig::default());
    for index in (0..40u64).filter(|index| index % 7 != 3) {
        script.packet(index * 20_000, index as usize, 20, (0, 0)).marker = true;
    }
    script.run(42);
    assert_eq!(script.buffer.stats().restarts, 0);
}

#[test]
fn a_flood_after_an_outage_does_not_become_delay() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..200u64 {
        let at = if (50..120).contains(&index) { 2_395_000 + index } else { index * 20_000 };
        script.packet(at, index as usize, 20, (0, 0));
    }
    script.run(200);
    let stats = script.buffer.stats();
    assert!(stats.delay_ms <= 260, "{stats:?}");
    assert!(stats.skipped > 0);
}

#[test]
fn events_between_audio_are_not_lost_audio() {
    let start = epoch();
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    for sequence in 0..20u16 {
        let p = Packet {
            payload_type: 0,
            marker: false,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 1,
            payload: &[0xFF; 160],
        };
        let now = start + Duration::from_millis(20 * u64::from(sequence));
        if (5..10).contains(&sequence) { buffer.note(now, &p) } else { buffer.push(now, &p, Codec::Pcmu) }
    }
    assert_eq!((buffer.stats().lost, buffer.stats().received), (0, 20));
}

#[test]
fn a_packet_that_was_on_its_way_for_two_seconds_is_only_late() {
    let mut script = Script::new(JitterConfig::default());
    for index in 0..150u64 {
        script.packet(if index == 30 { 2_400_000 } else { index * 20_000 }, index as usize, 20, (0, 0));
    }
    let played = script.run(152);
    assert_eq!(kinds(&played), format!("..{}c{}", "a".repeat(30), "a".repeat(119)));
    let stats = script.buffer.stats();
    assert_eq!((stats.late, stats.lost, stats.restarts), (1, 0, 0));
}

#[test]
fn empty_and_oversized_payloads_are_counted_and_dropped() {
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    for payload in [&[][..], &[0; MAX_PACKET + 1]] {
        let p = Packet { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: 0, payload };
        buffer.push(epoch(), &p, Codec::Pcmu);
    }
    assert_eq!((buffer.stats().malformed, buffer.stats().received), (2, 0));
    assert_eq!(buffer.pop(epoch(), &mut [0; FRAME]), Popped::Silence);
}

proptest::proptest! {
    #[test]
    fn no_order_of_packets_panics(
        config in (0u16..600, 0u16..600, 0u16..600, proptest::bool::ANY),
        steps in proptest::collection::vec(
            (proptest::num::u8::ANY, proptest::num::u16::ANY, proptest::num::u32::ANY, 0usize..1100, 0u8..4), 0..300),
    ) {
        let (start_ms, min_ms, max_ms, adaptive) = config;
        let mut buffer = JitterBuffer::new(JitterConfig { start_ms, min_ms, max_ms, adaptive });
        let start = epoch();
        for (index, (kind, sequence, timestamp, length, ssrc)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(index as u64 * 7);
            let near = kind % 4 != 0;
            let p = Packet {
                payload_type: 0,
                marker: kind & 1 != 0,
                sequence: if near { index as u16 + sequence % 5 } else { sequence },
                timestamp: if near { (index as u32 * 160).wrapping_add(timestamp % 2000) } else { timestamp },
                ssrc: if near { 0 } else { u32::from(ssrc) },
                payload: &vec![kind; if near { length % 500 } else { length }],
            };
            buffer.push(now, &p, Codec::Pcma);
            if kind % 3 != 0 {
                buffer.pop(now, &mut [0; FRAME]);
            }
            proptest::prop_assert!(buffer.stats().delay_ms <= 1000);
        }
    }
}

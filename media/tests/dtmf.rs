//! Keys over the whole way: sent as events and received with losses, and heard in-band against the criteria of Q.24.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use media::codec::Codec;
use media::dtmf::{DigitSender, EventReceiver, EventTick, InbandDetector};
use media::rtp::Packet;
use media::tone::{Tone, dbm0_to_amplitude, dtmf_tone};
use proptest::prelude::*;

const KEYS: &str = "1234567890*#ABCD";
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYPAD: [&str; 4] = ["123A", "456B", "789C", "*0#D"];

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sent {
    at_ms: u64,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: [u8; 4],
}

/// The event packets of some keys, as a stream with audio in between would number them.
fn sent(digits: &str, sequence: u16, timestamp: u32) -> Vec<Sent> {
    let mut sender = DigitSender::default();
    assert!(sender.queue(digits));
    let (mut packets, mut sequence, mut clock) = (Vec::new(), sequence, timestamp);
    for tick in 0.. {
        match sender.tick(clock) {
            EventTick::Idle => break,
            EventTick::Gap => sequence = sequence.wrapping_add(1),
            EventTick::Event { payload, event_timestamp, marker, copies } => {
                for _ in 0..copies {
                    packets.push(Sent {
                        at_ms: tick * 20,
                        sequence,
                        timestamp: event_timestamp,
                        marker,
                        payload,
                    });
                    sequence = sequence.wrapping_add(1);
                }
            }
        }
        clock = clock.wrapping_add(160);
    }
    packets
}

fn received(packets: &[Sent]) -> String {
    let start = epoch();
    let mut receiver = EventReceiver::new();
    packets
        .iter()
        .filter_map(|sent| {
            let now = start + Duration::from_millis(sent.at_ms);
            receiver.timeout(now);
            receiver.packet(now, &packet(sent))
        })
        .collect()
}

fn packet(sent: &Sent) -> Packet<'_> {
    Packet {
        payload_type: 101,
        marker: sent.marker,
        sequence: sent.sequence,
        timestamp: sent.timestamp,
        ssrc: 9,
        payload: &sent.payload,
    }
}

fn report(event: u8, end: bool, duration: u16) -> [u8; 4] {
    let [high, low] = duration.to_be_bytes();
    [event, if end { 0x8A } else { 0x0A }, high, low]
}

#[test]
fn every_key_arrives_once_and_in_order() {
    // Sequence and timestamp wrap within the digits.
    for (sequence, timestamp) in [(0, 0), (65_500, u32::MAX - 4000), (u16::MAX, u32::MAX)] {
        assert_eq!(received(&sent(KEYS, sequence, timestamp)), KEYS);
        assert_eq!(received(&sent("1111", sequence, timestamp)), "1111");
    }
}

#[test]
fn the_loss_of_any_packet_loses_no_digit() {
    let packets = sent("11#9", 65_530, u32::MAX - 500);
    for lost in 0..packets.len() {
        let mut rest = packets.clone();
        rest.remove(lost);
        assert_eq!(received(&rest), "11#9", "{lost}");
    }
}

#[test]
fn any_one_packet_of_a_key_is_enough() {
    let packets = sent("55", 100, 100);
    let (first, second) = packets.split_at(packets.len() / 2);
    for one in first {
        for other in second {
            assert_eq!(received(&[*one, *other]), "55", "{one:?} {other:?}");
        }
    }
}

#[test]
fn three_ends_and_repeated_packets_are_one_digit() {
    let mut packets = sent("7", 0, 0);
    assert_eq!(packets.iter().filter(|sent| sent.payload[1] & 0x80 != 0).count(), 3);
    packets = packets.iter().flat_map(|sent| [*sent, *sent]).collect();
    assert_eq!(received(&packets), "7");
}

#[test]
fn late_packets_of_an_earlier_key_are_no_digits() {
    let mut packets = sent("12", 65_530, 0);
    let late = packets.remove(3);
    packets.push(Sent { at_ms: 420, ..late });
    assert_eq!(received(&packets), "12");
}

#[test]
fn disorder_within_a_key_changes_nothing() {
    let mut packets = sent("3", 10, 10);
    packets.reverse();
    assert_eq!(received(&packets), "3");
}

#[test]
fn a_phone_that_moves_the_timestamp_with_every_packet() {
    let mut packets = Vec::new();
    for press in 0..2u16 {
        for index in 0..8u16 {
            let end = index >= 5;
            packets.push(Sent {
                at_ms: u64::from(press * 20 + index) * 20,
                sequence: press * 30 + index,
                timestamp: u32::from(press * 20 + index) * 160,
                marker: index == 0,
                payload: report(4, end, 160 * (index.min(5) + 1)),
            });
        }
    }
    assert_eq!(received(&packets), "44");
    for lost in 0..packets.len() {
        let mut rest = packets.clone();
        rest.remove(lost);
        assert_eq!(received(&rest), "44", "{lost}");
    }
}

#[test]
fn two_presses_of_a_key_with_all_ends_lost() {
    let packets: Vec<Sent> =
        sent("88", 0, 0).into_iter().filter(|sent| sent.payload[1] & 0x80 == 0).collect();
    assert_eq!(received(&packets), "88");
    let unmarked: Vec<Sent> = packets.into_iter().map(|sent| Sent { marker: false, ..sent }).collect();
    assert_eq!(received(&unmarked), "88");
}

#[test]
fn a_key_held_for_twelve_seconds_is_one_digit() {
    let mut packets = Vec::new();
    let (mut begin, mut duration) = (0u32, 0u32);
    for index in 0..600u16 {
        duration += 160;
        if duration > 0xFFFF {
            (begin, duration) = (begin + 0xFFFF, duration - 0xFFFF);
        }
        packets.push(Sent {
            at_ms: u64::from(index) * 20,
            sequence: index,
            timestamp: begin,
            marker: index == 0,
            payload: report(6, false, u16::try_from(duration).unwrap()),
        });
    }
    assert_eq!(received(&packets), "6");
}

#[test]
fn a_key_without_an_end_is_released_by_the_clock() {
    let start = epoch();
    let mut receiver = EventReceiver::new();
    let packets = sent("2", 0, 0);
    assert_eq!(receiver.packet(start, &packet(&packets[0])), Some('2'));
    receiver.timeout(start + Duration::from_millis(149));
    assert_eq!(receiver.pressed(), Some('2'));
    receiver.timeout(start + Duration::from_millis(150));
    assert_eq!(receiver.pressed(), None);
    assert_eq!(receiver.packet(start + Duration::from_millis(160), &packet(&packets[1])), None);
    assert_eq!(receiver.pressed(), Some('2'), "it was held after all");
}

#[test]
fn a_source_that_starts_again_is_heard() {
    let start = epoch();
    let mut receiver = EventReceiver::new();
    let first =
        Sent { at_ms: 0, sequence: 500, timestamp: 90_000, marker: true, payload: report(1, true, 800) };
    assert_eq!(receiver.packet(start, &packet(&first)), Some('1'));
    let again = Sent { sequence: 10, timestamp: 5, payload: report(1, false, 0), ..first };
    assert_eq!(receiver.packet(start + Duration::from_millis(900), &packet(&again)), Some('1'));
    let other = Packet { ssrc: 10, ..packet(&again) };
    assert_eq!(receiver.packet(start + Duration::from_millis(950), &other), Some('1'));
}

#[test]
fn what_is_no_key_is_no_digit() {
    for payload in [&[1, 0, 0][..], &[], &[16, 0, 0, 160], &[255, 255, 255, 255]] {
        let p = Packet { payload_type: 101, marker: true, sequence: 0, timestamp: 0, ssrc: 0, payload };
        assert_eq!(EventReceiver::new().packet(epoch(), &p), None);
    }
}

proptest! {
    #[test]
    fn any_payloads_are_taken_without_panic(
        packets in proptest::collection::vec(
            (any::<u16>(), any::<u32>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..8)), 0..60),
    ) {
        let start = epoch();
        let mut receiver = EventReceiver::new();
        for (index, (sequence, timestamp, marker, payload)) in packets.iter().enumerate() {
            let p = Packet {
                payload_type: 101, marker: *marker, sequence: *sequence, timestamp: *timestamp, ssrc: 1, payload,
            };
            receiver.packet(start + Duration::from_millis(index as u64), &p);
            receiver.timeout(start + Duration::from_millis(index as u64 * 3));
        }
    }

    #[test]
    fn random_losses_never_double_a_digit(digits in "[0-9*#A-D]{1,10}", mask: u64, sequence: u16, timestamp: u32) {
        let packets = sent(&digits, sequence, timestamp);
        let kept: Vec<Sent> =
            packets.into_iter().enumerate().filter(|(index, _)| mask >> (index % 61) & 1 == 1).map(|(_, s)| s).collect();
        let keys: BTreeSet<u32> = kept.iter().map(|sent| sent.timestamp).collect();
        prop_assert_eq!(received(&kept).len(), keys.len());
    }
}

/// A steady stream of pseudo-random numbers, the same on every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Roughly normal, variance one.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.next()).sum::<f32>() - 6.0
    }
}

fn frequencies(key: char) -> (f32, f32) {
    let row = KEYPAD.iter().position(|keys| keys.contains(key)).unwrap();
    (ROWS[row], COLUMNS[KEYPAD[row].find(key).unwrap()])
}

/// A line being composed, in ms and dBm0.
struct Line {
    pcm: Vec<f32>,
    noise: Noise,
}

impl Line {
    fn new(seed: u64) -> Self {
        let mut line = Self { pcm: Vec::new(), noise: Noise(seed) };
        // An odd lead, so that digits fall anywhere between the blocks of the detector.
        let lead = 400 + (line.noise.next() * 160.0) as usize;
        line.pcm.resize(lead, 0.0);
        line
    }

    fn tones(&mut self, parts: &[(f32, f32)], ms: f32) -> &mut Self {
        let count = (ms * 8.0).round() as usize;
        let phases: Vec<f32> = parts.iter().map(|_| self.noise.next() * std::f32::consts::TAU).collect();
        for at in 0..count {
            let sum = parts.iter().zip(&phases).map(|(&(freq, dbm0), phase)| {
                (std::f32::consts::TAU * freq * at as f32 / 8000.0 + phase).sin() * dbm0_to_amplitude(dbm0)
            });
            self.pcm.push(sum.sum());
        }
        self
    }

    fn key(&mut self, key: char, ms: f32, dbm0: f32) -> &mut Self {
        let (row, column) = frequencies(key);
        self.tones(&[(row, dbm0), (column, dbm0)], ms)
    }

    fn quiet(&mut self, ms: f32) -> &mut Self {
        self.pcm.resize(self.pcm.len() + (ms * 8.0) as usize, 0.0);
        self
    }

    /// White noise over everything, so many dB below a key of two tones at `dbm0` each.
    fn noisy(&mut self, dbm0: f32, snr: f32) -> &mut Self {
        let sigma = dbm0_to_amplitude(dbm0) * 10f32.powf(-snr / 20.0);
        for sample in &mut self.pcm {
            *sample += self.noise.normal() * sigma;
        }
        self
    }

    fn heard_by(&mut self, codec: Codec) -> String {
        self.quiet(200.0);
        let pcm: Vec<i16> =
            self.pcm.iter().map(|&sample| sample.round().clamp(-32768.0, 32767.0) as i16).collect();
        let mut detector = InbandDetector::new();
        let mut digits = String::new();
        for chunk in pcm.chunks_exact(160) {
            let (mut bytes, mut frame) = ([0; 160], [0; 160]);
            codec.encode(chunk, &mut bytes);
            codec.decode(&bytes, &mut frame);
            digits.extend(detector.frame(&frame, false));
        }
        digits
    }

    fn heard(&mut self) -> String {
        self.heard_by(Codec::Pcmu)
    }
}

fn each_key(repeats: u64) -> impl Iterator<Item = (char, u64)> {
    (0..repeats)
        .flat_map(|round| KEYS.chars().enumerate().map(move |(index, key)| (key, round * 16 + index as u64)))
}

#[test]
fn t1_every_key_in_both_laws() {
    for (key, seed) in each_key(10) {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            assert_eq!(Line::new(seed).key(key, 50.0, -10.0).heard_by(codec), key.to_string());
        }
    }
}

#[test]
fn t2_frequency_deviation() {
    for (key, seed) in each_key(6) {
        let (row, column) = frequencies(key);
        for sign in [-1.0, 1.0] {
            let off = |freq: f32, share: f32, hz: f32| freq + sign * (freq * share + hz);
            for (low, high) in [
                (off(row, 0.015, 2.0), column),
                (row, off(column, 0.015, 2.0)),
                (off(row, 0.015, 2.0), off(column, 0.015, 2.0)),
            ] {
                let heard = Line::new(seed).tones(&[(low, -10.0), (high, -10.0)], 50.0).heard();
                assert_eq!(heard, key.to_string(), "{low} {high}");
            }
            for share in [0.035, 0.04, 0.05] {
                for (low, high) in [(off(row, share, 0.0), column), (row, off(column, share, 0.0))] {
                    let heard = Line::new(seed).tones(&[(low, -10.0), (high, -10.0)], 100.0).heard();
                    assert_eq!(heard, "", "{key} {low} {high}");
                }
            }
        }
    }
}

#[test]
fn t3_twist() {
    for (key, seed) in each_key(6) {
        let (row, column) = frequencies(key);
        let heard = |low: f32, high: f32| Line::new(seed).tones(&[(row, low), (column, high)], 50.0).heard();
        for accepted in [(-6.0, -14.0), (-6.0, -12.0), (-10.0, -6.0), (-12.0, -6.0)] {
            assert_eq!(heard(accepted.0, accepted.1), key.to_string(), "{accepted:?}");
        }
        for refused in [(-6.0, -18.5), (-6.0, -21.0), (-16.5, -6.0), (-20.0, -6.0)] {
            assert_eq!(heard(refused.0, refused.1), "", "{refused:?}");
        }
    }
}

#[test]
fn t4_level() {
    for (key, seed) in each_key(3) {
        for dbm0 in [-3.0, -10.0, -20.0, -30.0] {
            assert_eq!(Line::new(seed).key(key, 50.0, dbm0).heard(), key.to_string(), "{dbm0}");
        }
        // Two tones at 0 dBm0 each add up to more than full scale: the line clips them.
        assert_eq!(Line::new(seed).key(key, 50.0, 0.0).heard(), key.to_string());
        assert_eq!(Line::new(seed).key(key, 100.0, -55.5).heard(), "");
    }
}

#[test]
fn t5_shortest_and_longest_refused_tone() {
    for (key, seed) in each_key(20) {
        assert_eq!(Line::new(seed).key(key, 40.0, -15.0).heard(), key.to_string());
        for ms in [10.0, 20.0, 23.0] {
            assert_eq!(Line::new(seed).key(key, ms, -15.0).heard(), "", "{key} {ms}");
        }
    }
}

#[test]
fn t6_breaks_are_bridged_and_pauses_are_not() {
    for (key, seed) in each_key(8) {
        for ms in [2.0, 5.0, 8.0, 10.0, 15.0, 20.0] {
            let heard = Line::new(seed).key(key, 60.0, -10.0).quiet(ms).key(key, 60.0, -10.0).heard();
            assert_eq!(heard, key.to_string(), "{ms}");
        }
        let heard = Line::new(seed).key(key, 60.0, -10.0).quiet(40.0).key(key, 60.0, -10.0).heard();
        assert_eq!(heard, format!("{key}{key}"));
    }
}

#[test]
fn t7_rate() {
    for seed in 0..20 {
        let (mut fast, mut seamless) = (Line::new(seed), Line::new(seed + 100));
        for key in KEYS.chars() {
            fast.key(key, 40.0, -10.0).quiet(40.0);
            seamless.key(key, 50.0, -10.0);
        }
        assert_eq!(fast.heard(), KEYS);
        assert_eq!(seamless.heard(), KEYS);
    }
}

#[test]
fn t8_noise() {
    let missed = |snr: f32, ms: f32| {
        each_key(30)
            .filter(|&(key, seed)| {
                Line::new(seed).key(key, ms, -15.0).noisy(-15.0, snr).heard() != key.to_string()
            })
            .count()
    };
    assert_eq!(missed(14.0, 50.0), 0);
    assert!(missed(10.0, 50.0) <= 4, "{} of 480", missed(10.0, 50.0));
    assert_eq!(missed(10.0, 100.0), 0);
}

#[test]
fn t9_dial_tone_under_the_digits() {
    for (key, seed) in each_key(6) {
        let (row, column) = frequencies(key);
        let dial = [(350.0, -15.0), (440.0, -15.0)];
        let mut line = Line::new(seed);
        line.tones(&dial, 300.0)
            .tones(&[dial[0], dial[1], (row, -15.0), (column, -15.0)], 60.0)
            .tones(&dial, 100.0);
        assert_eq!(line.heard(), key.to_string());
    }
}

#[test]
fn t10_echo_of_20_ms() {
    for (key, seed) in each_key(6) {
        let mut line = Line::new(seed);
        line.key(key, 50.0, -10.0).quiet(50.0).key(key, 50.0, -10.0).quiet(50.0);
        let clean = line.pcm.clone();
        for at in 160..clean.len() {
            line.pcm[at] += clean[at - 160] * 0.316;
        }
        assert_eq!(line.heard(), format!("{key}{key}"));
    }
}

#[test]
fn t11_lost_frames_neither_split_nor_lose_a_digit() {
    for (key, _) in each_key(1) {
        for lost in 0..6usize {
            let mut tone = dtmf_tone(key).unwrap();
            let mut detector = InbandDetector::new();
            let mut digits = String::new();
            for index in 0..20usize {
                let mut frame = [0; 160];
                if (4..9).contains(&index) {
                    tone.fill(&mut frame);
                }
                let is_lost = index == 3 + lost;
                digits.extend(detector.frame(if is_lost { &[0; 160] } else { &frame }, is_lost));
            }
            assert_eq!(digits, key.to_string(), "{lost}");
        }
    }
}

#[test]
fn t13_overdriven_lines() {
    for (key, seed) in each_key(4) {
        for dbm0 in [0.1, 3.1, 6.1] {
            assert_eq!(Line::new(seed).key(key, 50.0, dbm0).heard(), key.to_string(), "{dbm0}");
        }
    }
}

#[test]
fn t14_single_tones_are_no_digits() {
    for step in 0..158u16 {
        let freq = 200.0 + f32::from(step) * 20.0;
        assert_eq!(Line::new(u64::from(step)).tones(&[(freq, -5.0)], 500.0).heard(), "", "{freq}");
    }
}

#[test]
fn call_progress_tones_are_no_digits() {
    for parts in [
        &[(350.0, -13.0), (440.0, -13.0)][..],
        &[(440.0, -19.0), (480.0, -19.0)],
        &[(480.0, -24.0), (620.0, -24.0)],
    ] {
        assert_eq!(Line::new(1).tones(parts, 2000.0).heard(), "");
    }
    let special = [(913.8, -24.0), (1370.6, -24.0), (1776.7, -24.0)];
    let mut line = Line::new(2);
    for part in special {
        line.tones(&[part], 380.0);
    }
    assert_eq!(line.heard(), "");
}

/// Not speech, but harder than much of it: gliding voices of many harmonics with formants where the keys are.
#[test]
fn twenty_minutes_of_gliding_harmonics_are_no_digits() {
    let mut noise = Noise(7);
    let mut detector = InbandDetector::new();
    let mut digits = String::new();
    for _ in 0..2400 {
        // Half a second of a vowel.
        let (begin, glide) = (80.0 + noise.next() * 220.0, 0.8 + noise.next() * 0.4);
        let formants: [(f32, f32); 3] =
            [(300.0 + noise.next() * 700.0, 90.0), (900.0 + noise.next() * 1000.0, 110.0), (2500.0, 160.0)];
        let level = dbm0_to_amplitude(-18.0 + noise.next() * 8.0);
        let mut phase = 0.0f32;
        for frame_index in 0..25 {
            let pitch = begin * (1.0 + (glide - 1.0) * frame_index as f32 / 25.0);
            let gains: Vec<f32> = (1..(3400.0 / pitch) as usize)
                .map(|harmonic| {
                    let freq = pitch * harmonic as f32;
                    formants
                        .iter()
                        .map(|(centre, width)| 1.0 / (1.0 + ((freq - centre) / width).powi(2)))
                        .sum()
                })
                .collect();
            let frame: [i16; 160] = std::array::from_fn(|_| {
                phase = (phase + std::f32::consts::TAU * pitch / 8000.0) % std::f32::consts::TAU;
                let sum: f32 =
                    gains.iter().enumerate().map(|(at, gain)| gain * (phase * (at + 1) as f32).sin()).sum();
                (sum * level).clamp(-32768.0, 32767.0) as i16
            });
            digits.extend(detector.frame(&frame, false));
        }
    }
    assert!(digits.is_empty(), "{} false digits", digits.len());
}

#[test]
fn a_sent_tone_is_heard() {
    for key in KEYS.chars() {
        let mut detector = InbandDetector::new();
        let mut tone: Tone = dtmf_tone(key).unwrap();
        let mut digits = String::new();
        for _ in 0..5 {
            let mut frame = [0; 160];
            tone.fill(&mut frame);
            digits.extend(detector.frame(&frame, false));
        }
        assert_eq!((digits, detector.pressed()), (key.to_string(), Some(key)));
        for _ in 0..3 {
            detector.frame(&[0; 160], false);
        }
        assert_eq!(detector.pressed(), None);
    }
}

//! The bridge in virtual time: who hears whom, what is recorded, what is sent.

#![expect(clippy::unwrap_used, reason = "tests")]

mod room;

use std::time::Duration;

use media::sdp::Direction;
use media::*;
use room::*;

fn started(id: u64) -> Heard {
    Heard::PlaybackStarted { playback: PlaybackId(id) }
}

fn ended(id: u64, completed: bool, played_ms: u32) -> Heard {
    Heard::PlaybackEnded { playback: PlaybackId(id), completed, played_ms }
}

fn stats(room: &mut Room) -> Vec<(LegId, LegStats)> {
    room.command(Command::Close { bridge: BRIDGE });
    match room.heard.pop() {
        Some(Heard::Closed { stats }) => stats,
        other => panic!("the last word is Closed, not {other:?}"),
    }
}

/// Both far ends speak, with different codes, for 40 frames.
fn talk(room: &mut Room) {
    let (mut a, mut b) = (Far::new(A), Far::new(B));
    for n in 0..40 {
        a.say(room, 0x90 + n % 16);
        b.say(room, 0xb0 + n % 16);
        room.tick();
    }
}

#[test]
fn two_legs_hear_each_other_bit_exact_and_never_themselves() {
    let mut room = Room::with(&[A, B]);
    talk(&mut room);
    for (leg, others, own) in [(A, 0xb0, 0x90), (B, 0x90, 0xb0)] {
        let frames: Vec<_> = room.sent.iter().filter(|sent| sent.leg == leg).collect();
        assert!(frames.iter().all(|sent| sent.to == address(leg)));
        let codes: Vec<u8> =
            frames.iter().map(|sent| sent.payload[0]).skip_while(|code| *code == 0xff).collect();
        assert!(codes.len() >= 30, "at most 200 ms of delay");
        let expected: Vec<u8> = (0..codes.len() as u8).map(|n| others + n % 16).collect();
        assert_eq!(codes, expected);
        assert!(frames.iter().all(|sent| sent.payload.iter().all(|code| !(own..own + 16).contains(code))));
    }
}

#[test]
fn a_recording_has_both_sides_in_step() {
    let mut room = Room::with(&[A, B]);
    let mut mix = room.record(1, RecordWhat::Mix);
    let mut only_b = room.record(2, RecordWhat::Heard(B));
    talk(&mut room);
    let (mix, only_b) = (recorded(&mut mix), recorded(&mut only_b));
    assert_eq!((mix.len(), only_b.len()), (40 * FRAME, 40 * FRAME), "one frame per tick");
    let first = mix.iter().position(|sample| *sample != 0).unwrap() / FRAME;
    for (n, frame) in mix.chunks(FRAME).skip(first).enumerate() {
        let code = n as u8 % 16;
        let sum = i32::from(linear(0x90 + code)) + i32::from(linear(0xb0 + code));
        assert_eq!(frame[80], mixer::limit(sum), "frame {n}");
        assert_eq!(only_b[(first + n) * FRAME + 80], linear(0xb0 + code));
    }
}

#[test]
fn a_recording_of_two_sides_holds_each_party_alone_on_one_time_line() {
    let mut room = Room::with(&[A, B]);
    let mut sides = room.record(1, RecordWhat::Sides(A));
    let played = linear(0x95);
    room.play(1, vec![played; FRAME * 4], PlayTo::Bridge);
    room.play(2, vec![linear(0x99); FRAME * 60], PlayTo::Leg(A));
    room.ticks(6);
    talk(&mut room);
    let both = recorded(&mut sides);
    let (left, right): (Vec<i16>, Vec<i16>) = both.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    assert_eq!((left.len(), right.len()), (46 * FRAME, 46 * FRAME));
    assert_eq!(values(&right[..6 * FRAME]), [vec![played; 4], vec![0; 2]].concat());
    assert!(left[..6 * FRAME].iter().all(|sample| *sample == 0));
    // Both began to talk in the same tick: what they said is in the same frames.
    let first = left.iter().position(|sample| *sample != 0).unwrap() / FRAME;
    for (n, (a, b)) in left.chunks(FRAME).zip(right.chunks(FRAME)).skip(first).enumerate() {
        let code = n as u8 % 16;
        assert_eq!((a[80], b[80]), (linear(0x90 + code), linear(0xb0 + code)), "frame {n}");
    }
}

#[test]
fn a_pause_is_silence_of_its_own_length_and_nothing_said_in_it_is_kept() {
    for what in [RecordWhat::Mix, RecordWhat::Heard(A), RecordWhat::Sides(A)] {
        let mut room = Room::with(&[A]);
        let mut reader = room.record(1, what);
        let mut far = Far::new(A);
        let (open, secret, later) = (0x90, 0xa0, 0xb0);
        let mut say = |room: &mut Room, code, ticks| {
            for _ in 0..ticks {
                far.say(room, code);
                room.tick();
            }
        };
        let pause = |room: &mut Room, on| {
            room.command(Command::PauseRecording { bridge: BRIDGE, recording: RecordingId(1), on });
        };
        say(&mut room, open, 20);
        pause(&mut room, true);
        say(&mut room, secret, 25);
        pause(&mut room, true);
        say(&mut room, secret, 5);
        pause(&mut room, false);
        pause(&mut room, false);
        say(&mut room, later, 20);
        let all = recorded(&mut reader);
        let count = if what == RecordWhat::Sides(A) { 2 } else { 1 };
        assert_eq!(all.len(), 70 * FRAME * count, "{what:?}: the time line goes on");
        let left: Vec<i16> = all.chunks(count).map(|block| block[0]).collect();
        assert!(!left.contains(&linear(secret)), "{what:?}");
        let frames = values(&left);
        // The jitter buffer holds back two frames, at the beginning as at the end.
        let expected = [vec![0; 2], vec![linear(open); 18], vec![0; 30 + 2], vec![linear(later); 18]];
        assert_eq!(frames, expected.concat(), "{what:?}");
    }
}

#[test]
fn bridge_playback_reaches_all_legs_and_the_recording_and_leg_playback_that_leg_alone() {
    let mut room = Room::with(&[A, B]);
    let mut mix = room.record(1, RecordWhat::Mix);
    let (everywhere, private) = (linear(0x95), linear(0xa5));
    room.play(1, vec![everywhere; FRAME * 5], PlayTo::Bridge);
    room.ticks(8);
    room.play(2, vec![private; FRAME * 5], PlayTo::Leg(A));
    room.ticks(8);
    let played = |value| [vec![0; 0], vec![value; 5], vec![0; 3]].concat();
    assert_eq!(values(&room.sound(A)), [played(everywhere), played(private)].concat());
    assert_eq!(values(&room.sound(B)), [played(everywhere), vec![0; 8]].concat());
    assert_eq!(values(&recorded(&mut mix)), [played(everywhere), vec![0; 8]].concat());
    assert_eq!(room.heard, [started(1), ended(1, true, 100), started(2), ended(2, true, 100)]);
}

#[test]
fn playbacks_queue_and_a_cut_one_fades() {
    let mut room = Room::with(&[A]);
    room.play(1, vec![8000; 8000], PlayTo::Bridge);
    room.play(2, vec![4000; 320], PlayTo::Bridge);
    room.play(3, vec![2000; 320], PlayTo::Bridge);
    room.ticks(5);
    let stop = |playback| Command::StopPlayback { bridge: BRIDGE, playback: Some(PlaybackId(playback)) };
    room.command(stop(3));
    room.command(stop(1));
    assert_eq!(room.heard, [started(1), ended(3, false, 0)]);
    room.forget();
    room.ticks(4);
    assert_eq!(room.heard, [ended(1, false, 105), started(2), ended(2, true, 40)]);
    let sound = room.sound(A);
    assert!(sound[..40].windows(2).all(|pair| pair[0] >= pair[1]) && sound[0] > 7000 && sound[39] < 500);
    assert!(sound[40..FRAME].iter().all(|sample| *sample == 0));
    assert!(sound[FRAME..3 * FRAME].iter().all(|sample| (3900..4100).contains(sample)));
    assert!(sound[3 * FRAME..].iter().all(|sample| *sample == 0));
}

#[test]
fn playback_waits_for_somebody_to_hear_it() {
    let mut room = Room::new();
    room.open(A, LegSettings::default());
    room.play(1, vec![5000; FRAME], PlayTo::Bridge);
    room.play(2, vec![5000; FRAME], PlayTo::Leg(A));
    room.play(3, vec![5000; FRAME], PlayTo::Leg(B));
    room.ticks(50);
    assert_eq!(room.heard, [ended(3, false, 0)], "there is no leg B; the others wait");
    assert!(room.sent.is_empty(), "nothing is sent before the far end's address is known");
    room.connect(remote(A), A);
    room.ticks(1);
    assert_eq!(room.heard.len(), 5);
    assert!(room.sound(A).iter().all(|sample| *sample > 8000), "both at once, mixed");
}

#[test]
fn a_connected_leg_is_sent_silence_without_pause() {
    let mut room = Room::with(&[A]);
    room.open(B, LegSettings::default());
    room.connect(sdp::Remote { codec: Codec::Pcma, payload_type: 8, ..remote(B) }, B);
    room.ticks(100);
    for (leg, payload_type, silence) in [(A, 0, 0xff), (B, 8, 0xd5)] {
        let sent: Vec<_> = room.sent.iter().filter(|sent| sent.leg == leg).collect();
        assert_eq!(sent.len(), 100);
        assert!(
            sent.iter().all(|sent| sent.payload_type == payload_type && sent.payload == [silence; FRAME])
        );
    }
}

#[test]
fn numbers_run_on_and_the_marker_stands_at_a_beginning_only() {
    let mut room = Room::with(&[A]);
    room.ticks(10);
    let hold = |direction| sdp::Remote { direction, ..remote(A) };
    for direction in [Direction::SendOnly, Direction::Inactive] {
        room.connect(hold(direction), A);
        room.ticks(10);
    }
    assert_eq!(room.sent.len(), 10, "nothing is sent while the far end does not receive");
    for direction in [Direction::RecvOnly, Direction::SendRecv] {
        room.connect(hold(direction), A);
        room.ticks(5);
    }
    room.command(Command::Mute { bridge: BRIDGE, leg: A, on: true });
    room.ticks(7);
    room.command(Command::Mute { bridge: BRIDGE, leg: A, on: false });
    room.ticks(3);
    let first = &room.sent[0];
    let ticks: Vec<u32> = (0..10).chain(30..40).chain(47..50).collect();
    assert_eq!(room.sent.len(), ticks.len());
    for (n, (sent, tick)) in room.sent.iter().zip(ticks).enumerate() {
        assert_eq!(sent.ssrc, first.ssrc);
        assert_eq!(sent.sequence, first.sequence.wrapping_add(n as u16));
        assert_eq!(sent.timestamp, first.timestamp.wrapping_add(tick * 160));
        assert_eq!(sent.marker, [0, 30, 47].contains(&tick));
    }
}

#[test]
fn lost_packets_leave_the_time_line_whole() {
    let mut room = Room::with(&[A]);
    let mut mix = room.record(1, RecordWhat::Mix);
    let mut a = Far::new(A);
    for n in 0..100 {
        if n % 10 == 9 {
            a.lose();
        } else {
            a.say(&mut room, 0x90);
        }
        room.tick();
    }
    let sound = recorded(&mut mix);
    assert_eq!(sound.len(), 100 * FRAME);
    assert!(values(&sound).iter().filter(|value| **value == linear(0x90)).count() > 70);
    let (_, stats) = stats(&mut room)[0];
    assert_eq!(stats.packets_in, 90);
    assert!((8..=10).contains(&stats.lost), "{stats:?}");
    assert!((8..=12).contains(&stats.concealed), "{stats:?}");
}

#[test]
fn a_stranger_is_neither_heard_nor_recorded_nor_answered() {
    let mut room = Room::with(&[A]);
    let mut mix = room.record(1, RecordWhat::Mix);
    let mut a = Far::new(A);
    let stranger = "203.0.113.66:4000".parse().unwrap();
    let mut other = Far { from: stranger, ssrc: 666, ..Far::new(A) };
    let mut same_host = Far { from: "192.0.2.1:4002".parse().unwrap(), ssrc: 667, ..Far::new(A) };
    for _ in 0..200 {
        a.say(&mut room, 0xa0);
        other.say(&mut room, 0x81);
        other.say(&mut room, 0x81);
        same_host.say(&mut room, 0x82);
        room.tick();
    }
    assert!(recorded(&mut mix).iter().all(|sample| [0, linear(0xa0)].contains(sample)));
    assert!(room.sent.iter().all(|sent| sent.to == address(A)));
    let (_, stats) = stats(&mut room)[0];
    assert_eq!((stats.packets_in, stats.strangers), (200, 600));
}

#[test]
fn a_far_end_behind_nat_is_heard_and_answered_where_it_is() {
    let mut room = Room::with(&[A]);
    let real = "198.51.100.9:50000".parse().unwrap();
    let mut a = Far { from: real, ..Far::new(A) };
    for _ in 0..20 {
        a.say(&mut room, 0xa0);
        room.tick();
    }
    assert_eq!(room.heard, [Heard::FirstPacket { leg: A }]);
    assert!(room.sent[..2].iter().all(|sent| sent.to == address(A)));
    assert!(room.sent[2..].iter().all(|sent| sent.to == real));
}

#[test]
fn a_moved_far_end_is_followed_after_a_new_description() {
    let mut room = Room::with(&[A]);
    let mut a = Far::new(A);
    a.say(&mut room, 0xa0);
    room.tick();
    let moved = "192.0.2.50:7000".parse().unwrap();
    room.connect(sdp::Remote { address: moved, ..remote(A) }, A);
    a.from = moved;
    room.forget();
    a.say(&mut room, 0xa0);
    room.ticks(3);
    assert!(room.sent.iter().all(|sent| sent.to == moved));
    assert_eq!(stats(&mut room)[0].1.strangers, 0);
}

#[test]
fn garbage_is_dropped_and_counted() {
    let mut room = Room::with(&[A]);
    let mut a = Far::new(A);
    for garbage in [&[][..], &[0x80], &[0xff; 12], &[0; 1500], b"OPTIONS sip:x SIP/2.0\r\n\r\n"] {
        room.bridge.handle_packet(room.now, A, address(A), garbage);
    }
    // A payload type never agreed to; RTCP, which is no garbage but nothing to us; another leg.
    a.send(&mut room, 96, &[1; 160]);
    room.bridge.handle_packet(room.now, A, address(A), &[0x80, 200, 0, 1, 0, 0, 0, 1]);
    room.bridge.handle_packet(room.now, LegId(9), address(A), &[0x80; 20]);
    room.tick();
    assert_eq!(room.heard, []);
    let (_, stats) = stats(&mut room)[0];
    assert_eq!((stats.packets_in, stats.garbage), (0, 6));
}

/// Keys from one bridge to another, over their packets.
fn send_keys(keys: &str, mode: DigitMode, events: Option<u8>) -> (Room, Room) {
    let remote = sdp::Remote { event_payload_type: events, ..remote(A) };
    let mut rooms = [Room::new(), Room::new()];
    for room in &mut rooms {
        room.open(A, LegSettings::default());
        room.connect(remote.clone(), A);
    }
    let [mut near, mut far] = rooms;
    let digits = keys.to_owned();
    near.command(Command::SendDigits { bridge: BRIDGE, leg: A, digits, mode, on_ms: 100, gap_ms: 100 });
    for _ in 0..keys.len() * 12 + 20 {
        for sent in near.tick() {
            far.bridge.handle_packet(far.now, A, address(A), &sent.datagram);
        }
        far.tick();
    }
    (near, far)
}

#[test]
fn keys_travel_as_events() {
    let keys = "0123456789*#ABCD11";
    let (near, far) = send_keys(keys, DigitMode::Rfc4733, Some(96));
    assert_eq!(far.digits(), keys);
    assert_eq!(near.heard, [Heard::DigitsSent { leg: A }]);
    // One sequence for all; audio keeps the clock; no sound while a key is down.
    for pair in near.sent.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    let first = &near.sent[0];
    let audio: Vec<u32> = near
        .sent
        .iter()
        .filter(|s| s.payload_type == 0)
        .map(|s| s.timestamp.wrapping_sub(first.timestamp))
        .collect();
    assert!(audio.iter().all(|ticks| ticks % 160 == 0));
    let markers = near.sent.iter().filter(|sent| sent.payload_type == 96 && sent.marker).count();
    assert_eq!(markers, keys.len(), "each key's first packet");
    assert!(near.sent.iter().filter(|sent| sent.payload_type == 0 && sent.marker).count() == 1);
}

#[test]
fn keys_travel_as_tones_where_no_events_were_agreed() {
    for mode in [DigitMode::Inband, DigitMode::Rfc4733] {
        let (near, far) = send_keys("159#D", mode, None);
        assert_eq!(far.digits(), "159#D");
        assert!(
            far.heard.iter().all(|heard| !matches!(heard, Heard::Digit { source: DigitSource::Rfc4733, .. }))
        );
        assert_eq!(near.heard, [Heard::DigitsSent { leg: A }]);
    }
}

#[test]
fn tones_are_not_looked_for_where_events_were_agreed() {
    let (_, far) = send_keys("123", DigitMode::Inband, Some(101));
    assert_eq!(far.digits(), "");
}

#[test]
fn requests_for_keys_are_answered_one_by_one_and_nonsense_at_once() {
    let mut room = Room::with(&[A]);
    let send = |room: &mut Room, digits: &str| {
        let digits = digits.to_owned();
        let mode = DigitMode::Inband;
        room.command(Command::SendDigits { bridge: BRIDGE, leg: A, digits, mode, on_ms: 40, gap_ms: 40 });
    };
    send(&mut room, "x!");
    assert_eq!(room.heard, [Heard::DigitsSent { leg: A }]);
    send(&mut room, "1");
    send(&mut room, "2");
    assert_eq!(room.heard.len(), 1);
    room.ticks(7);
    assert_eq!(room.heard.len(), 2);
    room.ticks(7);
    assert_eq!(room.heard.len(), 3);
}

#[test]
fn an_answering_machine_is_told_by_its_silence() {
    let mut room = Room::with(&[A]);
    room.command(Command::ListenAmd { bridge: BRIDGE, leg: A, config: AmdConfig::default() });
    let mut a = Far::new(A);
    for _ in 0..150 {
        a.say(&mut room, 0xff);
        room.tick();
    }
    let verdicts: Vec<_> = room
        .heard
        .iter()
        .filter_map(|heard| if let Heard::Amd { verdict, .. } = heard { Some(verdict) } else { None })
        .collect();
    assert_eq!(verdicts.len(), 1, "{:?}", room.heard);
    assert_eq!((verdicts[0].status, verdicts[0].cause), (AmdStatus::Machine, AmdCause::InitialSilence));
    room.forget();
    room.command(Command::ListenAmd { bridge: BRIDGE, leg: A, config: AmdConfig::default() });
    room.command(Command::StopAmd { bridge: BRIDGE, leg: A });
    room.ticks(300);
    assert_eq!(room.heard, [], "a stopped detector says nothing");
    room.command(Command::ListenAmd { bridge: BRIDGE, leg: A, config: AmdConfig::default() });
    room.ticks(3);
    room.command(Command::Close { bridge: BRIDGE });
    let cause = room
        .heard
        .iter()
        .find_map(|h| if let Heard::Amd { verdict, .. } = h { Some(verdict.cause) } else { None });
    assert_eq!(cause, Some(AmdCause::Hangup), "an end in the middle is a verdict too");
}

#[test]
fn who_speaks_is_reported_when_asked() {
    let mut room = Room::with(&[A]);
    room.command(Command::ListenTalk { bridge: BRIDGE, leg: A, on: true });
    let mut a = Far::new(A);
    for n in 0..150 {
        // Half a second of a loud square wave in the middle.
        let loud = (50..75).contains(&n);
        let payload: Vec<u8> = (0..160)
            .map(|i| {
                if !loud {
                    0xff
                } else if i % 16 < 8 {
                    0x95
                } else {
                    0x15
                }
            })
            .collect();
        a.send(&mut room, 0, &payload);
        room.tick();
    }
    let talk: Vec<_> = room
        .heard
        .iter()
        .filter_map(|heard| if let Heard::Talk { change, .. } = heard { Some(*change) } else { None })
        .collect();
    assert!(matches!(talk[..], [TalkChange::Started, TalkChange::Stopped { .. }]), "{talk:?}");
}

#[test]
fn missing_media_is_said_once_and_not_on_hold() {
    let settings = || LegSettings { media_timeout: Some(Duration::from_secs(30)), ..LegSettings::default() };
    let mut room = Room::new();
    room.open(A, settings());
    room.ticks(2000);
    assert_eq!(room.heard, [], "not before the leg is connected");
    room.connect(remote(A), A);
    room.ticks(1499);
    assert_eq!(room.heard, []);
    room.ticks(1);
    assert_eq!(room.heard, [Heard::MediaTimeout { leg: A }]);
    room.ticks(3000);
    assert_eq!(room.heard.len(), 1);
    // A sign of life, and it counts anew; hold stops the count, in both forms.
    room.forget();
    Far::new(A).say(&mut room, 0xff);
    room.ticks(1400);
    room.command(Command::Hold { bridge: BRIDGE, leg: A, on: true });
    room.ticks(2000);
    room.command(Command::Hold { bridge: BRIDGE, leg: A, on: false });
    room.ticks(1400);
    room.connect(sdp::Remote { direction: Direction::Inactive, ..remote(A) }, A);
    room.ticks(2000);
    assert_eq!(room.heard, [Heard::FirstPacket { leg: A }]);
    room.connect(remote(A), A);
    room.ticks(1500);
    assert_eq!(room.heard.len(), 2);
}

#[test]
fn echo_and_tone_go_to_their_leg() {
    let mut room = Room::with(&[A, B]);
    let mut mix = room.record(1, RecordWhat::Mix);
    room.command(Command::Echo { bridge: BRIDGE, leg: A, on: true });
    let tone = Some(ToneSpec { parts: vec![(1004.0, -10.0)] });
    room.command(Command::Tone { bridge: BRIDGE, leg: B, tone });
    let mut a = Far::new(A);
    for _ in 0..50 {
        a.say(&mut room, 0x9a);
        room.tick();
    }
    assert!(values(&room.sound(A)[25 * FRAME..]).iter().all(|value| *value == linear(0x9a)));
    let level = tone::power_at(&room.sound(B), 1004.0);
    assert!((level + 10.0).abs() < 0.5, "{level}");
    assert!(tone::power_at(&recorded(&mut mix), 1004.0) < -40.0);
    room.forget();
    room.command(Command::Echo { bridge: BRIDGE, leg: A, on: false });
    room.command(Command::Tone { bridge: BRIDGE, leg: B, tone: None });
    room.ticks(30);
    assert!(room.sound(A).iter().all(|sample| *sample == 0));
}

#[test]
fn closing_ends_everything_and_says_so_last() {
    let mut room = Room::with(&[A, B]);
    let reader = room.record(1, RecordWhat::Mix);
    room.play(1, vec![1; 8000], PlayTo::Bridge);
    room.play(2, vec![1; 8000], PlayTo::Leg(B));
    room.ticks(3);
    room.forget();
    assert!(!reader.is_closed());
    let stats = stats(&mut room);
    assert_eq!(
        stats.iter().map(|(leg, stats)| (*leg, stats.packets_out)).collect::<Vec<_>>(),
        [(A, 3), (B, 3)]
    );
    assert_eq!(stats[0].1.bytes_out, 3 * 172);
    assert_eq!(room.heard, [ended(1, false, 60), ended(2, false, 60)]);
    assert!(reader.is_closed() && room.bridge.is_closed());
    assert_eq!(room.tick(), []);
}

#[test]
fn what_cannot_be_taken_is_answered() {
    let mut room = Room::with(&[A]);
    room.open(A, LegSettings::default());
    assert!(matches!(room.heard.pop(), Some(Heard::Failed { leg: A, .. })));
    let _first = room.record(1, RecordWhat::Mix);
    let path = "unused".into();
    room.command(Command::Record { bridge: BRIDGE, recording: RecordingId(1), path, what: RecordWhat::Mix });
    assert!(matches!(room.heard.pop(), Some(Heard::RecordingFailed { bytes: 0, .. })));
    for id in 0..=playback::QUEUE_MAX as u64 {
        room.play(id, vec![0; 1600], PlayTo::Bridge);
    }
    assert_eq!(room.heard, [ended(playback::QUEUE_MAX as u64, false, 0)]);
}

#[test]
fn skipped_ticks_leave_numbers_and_recordings_right() {
    let mut room = Room::with(&[A]);
    let mut mix = room.record(1, RecordWhat::Mix);
    let before = room.tick();
    room.bridge.skip(room.now, 9);
    let after = room.tick();
    assert_eq!(after[0].timestamp, before[0].timestamp.wrapping_add(1600));
    assert_eq!(after[0].sequence, before[0].sequence.wrapping_add(1));
    assert_eq!(recorded(&mut mix).len(), 11 * FRAME);
}

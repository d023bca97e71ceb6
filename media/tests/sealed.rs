//! Legs whose packets are sealed: two bridges that speak with each other by SRTP, in virtual time.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the tests of bridges, and this one uses its own part of it")]
mod room;

use media::srtp::{Keys, MASTER, MasterKey, Suite};
use media::*;
use room::*;

fn stats(room: &mut Room) -> Vec<(LegId, LegStats)> {
    room.command(Command::Close { bridge: BRIDGE });
    match room.heard.pop() {
        Some(Heard::Closed { stats }) => stats,
        other => panic!("the last word is Closed, not {other:?}"),
    }
}

#[test]
fn a_leg_with_keys_hears_and_says_only_what_is_sealed() {
    let (one, other) = (MasterKey([1; MASTER]), MasterKey([2; MASTER]));
    let suite = Suite::Tag80;
    let mut near = Room::new();
    let mut far = Room::new();
    for (room, ours, theirs) in [(&mut near, one, other), (&mut far, other, one)] {
        room.open(A, LegSettings::default());
        room.connect(sdp::Remote { srtp: Some(Keys { suite, ours, theirs }), ..remote(A) }, A);
    }
    let mut stranger = Far::new(A);
    stranger.say(&mut far, 0xa0);
    near.play(1, vec![8_000; 4_000], PlayTo::Bridge);
    let mut reader = far.record(1, RecordWhat::Heard(A));
    for _ in 0..30 {
        for sent in near.tick() {
            assert_eq!(sent.datagram.len(), 12 + 160 + 10);
            far.bridge.handle_packet(far.now, A, address(A), &sent.datagram);
            far.bridge.handle_packet(far.now, A, address(A), &sent.datagram);
        }
        far.tick();
    }
    let loud = recorded(&mut reader).iter().filter(|sample| **sample > 7_000).count();
    assert!((3_900..=4_100).contains(&loud), "{loud} samples of 4000 were heard");
    let (_, stats) = stats(&mut far)[0];
    assert_eq!((stats.packets_in, stats.garbage), (30, 31), "what is plain or comes again is nothing");
}

#[test]
fn new_keys_in_the_middle_are_taken_and_the_same_ones_change_nothing() {
    let keyed = |octet| {
        let (ours, theirs) = (MasterKey([octet; MASTER]), MasterKey([octet; MASTER]));
        sdp::Remote { srtp: Some(Keys { suite: Suite::Tag80, ours, theirs }), ..remote(A) }
    };
    let mut rooms = [Room::new(), Room::new()];
    rooms.iter_mut().for_each(|room| room.open(A, LegSettings::default()));
    for octet in [1, 1, 2] {
        for room in &mut rooms {
            room.connect(keyed(octet), A);
        }
        let [near, far] = &mut rooms;
        for _ in 0..5 {
            for sent in near.tick() {
                far.bridge.handle_packet(far.now, A, address(A), &sent.datagram);
            }
            far.tick();
        }
    }
    let (_, stats) = stats(&mut rooms[1])[0];
    assert_eq!((stats.packets_in, stats.garbage), (15, 0));
}

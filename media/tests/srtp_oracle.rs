//! SRTP against an implementation that is not ours: each reads what the other wrote, over a turn of the sequence numbers.

#![expect(clippy::unwrap_used, reason = "tests")]

use media::rtp::{self, Packet};
use media::srtp::{MASTER, MasterKey, Opener, SUITES, Sealer, Suite, TAG_MAX};
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

fn master() -> MasterKey {
    MasterKey(std::array::from_fn(|at| (at * 37 + 11) as u8))
}

fn oracle(suite: Suite) -> Context {
    let profile = match suite {
        Suite::Tag80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::Tag32 => ProtectionProfile::Aes128CmHmacSha1_32,
    };
    let (key, salt) = (&master().0[..16], &master().0[16..MASTER]);
    Context::new(key, salt, profile, Some(srtp_replay_protection(64)), None).unwrap()
}

fn plain(sequence: u16) -> Vec<u8> {
    let payload: Vec<u8> = (0..160_u32).map(|at| (at * u32::from(sequence)) as u8).collect();
    let packet = Packet {
        payload_type: 8,
        marker: sequence.is_multiple_of(5),
        sequence,
        timestamp: u32::from(sequence).wrapping_mul(160),
        ssrc: 0xDEAD_BEEF,
        payload: &payload,
    };
    let mut out = vec![0; 200];
    let len = rtp::write(&packet, &mut out).unwrap();
    out.truncate(len);
    out
}

fn sequences() -> impl Iterator<Item = u16> {
    (0..400_u16).map(|n| n.wrapping_sub(200))
}

#[test]
fn what_we_seal_it_opens() {
    for suite in SUITES {
        let (mut ours, mut theirs) = (Sealer::new(suite, master()), oracle(suite));
        for sequence in sequences() {
            let plain = plain(sequence);
            let mut sealed = plain.clone();
            sealed.resize(plain.len() + TAG_MAX, 0);
            let len = ours.seal(&mut sealed, plain.len()).unwrap();
            assert_eq!(theirs.decrypt_rtp(&sealed[..len]).unwrap(), plain, "{suite:?} {sequence}");
        }
    }
}

#[test]
fn what_it_seals_we_open() {
    for suite in SUITES {
        let (mut ours, mut theirs) = (Opener::new(suite, master()), oracle(suite));
        for sequence in sequences() {
            let plain = plain(sequence);
            let mut sealed = theirs.encrypt_rtp(&plain).unwrap().to_vec();
            assert_eq!(ours.open(&mut sealed), Some(plain.as_slice()), "{suite:?} {sequence}");
        }
    }
}

//! The vectors of RFC 3711's appendix B, and packets that were damaged, repeated, late or forged. An implementation that
//! is not ours reads and writes the same packets in `tests/srtp_oracle.rs`.

use super::*;
use crate::rtp::{self, Packet};

const OURS: MasterKey = MasterKey([7; MASTER]);

fn hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

fn packet(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 400];
    let packet = Packet { payload_type: 0, marker: false, sequence, timestamp: 160, ssrc, payload };
    let len = rtp::write(&packet, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn sealed(sealer: &mut Sealer, sequence: u16, ssrc: u32) -> Vec<u8> {
    let plain = packet(sequence, ssrc, &[0x55; 160]);
    let mut buffer = plain.clone();
    buffer.resize(plain.len() + TAG_MAX, 0);
    let len = sealer.seal(&mut buffer, plain.len()).unwrap();
    buffer.truncate(len);
    assert_eq!(buffer[..HEADER], plain[..HEADER], "the header stays readable");
    assert_ne!(buffer[HEADER..plain.len()], plain[HEADER..]);
    buffer
}

#[test]
fn key_stream_of_appendix_b_2() {
    let cipher = Aes128::new(&hex::<16>("2B7E151628AED2A6ABF7158809CF4F3C").into());
    let mut out = [0; 48];
    keystream(&cipher, hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"), &mut out);
    let expected =
        "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(out, hex::<48>(expected));
}

#[test]
fn keys_of_appendix_b_3() {
    let mut master = [0; MASTER];
    master[..KEY].copy_from_slice(&hex::<KEY>("E1F97A0D3E018BE0D64FA32C06DE4139"));
    master[KEY..].copy_from_slice(&hex::<SALT>("0EC675AD498AFEEBB6960B3AABE6"));
    let session = Session::new(Suite::Tag80, &MasterKey(master));
    assert_eq!(session.salt, hex::<SALT>("30CBBC08863D8C85D49DB34A9AE1"));
    let mut block = [0; 16].into();
    session.cipher.encrypt_block(&mut block);
    let mut expected = [0; 16].into();
    Aes128::new(&hex::<KEY>("C61E7A93744F39EE10734AFE3FF7A087").into()).encrypt_block(&mut expected);
    assert_eq!(block, expected);
    let hash_key: [u8; 20] = hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
    let mut expected = <Hmac<Sha1> as Mac>::new_from_slice(&hash_key).unwrap();
    expected.update(&[1, 2, 3, 0, 0, 0, 9]);
    assert_eq!(session.hash(&[1, 2, 3], 9).finalize().into_bytes(), expected.finalize().into_bytes());
}

#[test]
fn what_is_sealed_is_opened_once() {
    for suite in SUITES {
        let (mut sealer, mut opener) = (Sealer::new(suite, OURS), Opener::new(suite, OURS));
        for sequence in [65_533, 65_534, 65_535, 0, 1, 2] {
            let mut bytes = sealed(&mut sealer, sequence, 9);
            let mut again = bytes.clone();
            assert_eq!(
                opener.open(&mut bytes),
                Some(packet(sequence, 9, &[0x55; 160]).as_slice()),
                "{sequence}"
            );
            assert_eq!(opener.open(&mut again), None, "a repetition");
        }
    }
}

#[test]
fn order_does_not_matter_within_the_window() {
    let (mut sealer, mut opener) = (Sealer::new(Suite::Tag80, OURS), Opener::new(Suite::Tag80, OURS));
    let mut all: Vec<_> = (0..200_u16).map(|n| sealed(&mut sealer, n.wrapping_sub(100), 1)).collect();
    let late = all.remove(20);
    let mut first = all[0].clone();
    assert!(opener.open(&mut first).is_some());
    for pair in all[1..].chunks_mut(2) {
        for bytes in pair.iter_mut().rev() {
            assert!(opener.open(bytes).is_some());
        }
    }
    assert_eq!(opener.open(&mut late.clone()), None, "too old to tell");
}

#[test]
fn whatever_was_touched_is_refused() {
    let (mut sealer, mut opener) = (Sealer::new(Suite::Tag80, OURS), Opener::new(Suite::Tag80, OURS));
    let good = sealed(&mut sealer, 5, 3);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert_eq!(opener.open(&mut bytes), None, "octet {at}");
    }
    for len in 0..good.len() {
        assert_eq!(opener.open(&mut good.clone()[..len]), None, "{len} octets");
    }
    let mut other = Opener::new(Suite::Tag80, MasterKey([8; MASTER]));
    assert_eq!(other.open(&mut good.clone()), None, "another key");
    assert!(opener.open(&mut good.clone()).is_some(), "and nothing of that was remembered");
}

#[test]
fn a_far_end_may_change_its_stream() {
    let mut opener = Opener::new(Suite::Tag32, OURS);
    for ssrc in 1..=6 {
        let mut sealer = Sealer::new(Suite::Tag32, OURS);
        for sequence in 65_534..=65_535 {
            assert!(opener.open(&mut sealed(&mut sealer, sequence, ssrc)).is_some());
        }
        assert!(opener.open(&mut sealed(&mut sealer, 0, ssrc)).is_some(), "its counter is its own");
    }
}

#[test]
fn extensions_and_sources_stay_readable() {
    let mut plain = vec![0x90 | 2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    plain.extend([1; 8]);
    plain.extend([0xBE, 0xDE, 0, 1, 9, 9, 9, 9]);
    let header = plain.len();
    plain.extend([0x77; 20]);
    let mut bytes = plain.clone();
    bytes.resize(plain.len() + TAG_MAX, 0);
    let len = Sealer::new(Suite::Tag80, OURS).seal(&mut bytes, plain.len()).unwrap();
    assert_eq!(bytes[..header], plain[..header]);
    assert_ne!(bytes[header..plain.len()], plain[header..]);
    assert_eq!(Opener::new(Suite::Tag80, OURS).open(&mut bytes[..len]), Some(plain.as_slice()));
}

#[test]
fn keys_are_not_shown() {
    let keys = Keys { suite: Suite::Tag80, ours: MasterKey([231; MASTER]), theirs: MasterKey([231; MASTER]) };
    let sealer = Sealer::new(keys.suite, keys.ours);
    let text = format!("{keys:?} {sealer:?} {:?}", Opener::new(keys.suite, keys.theirs));
    assert!(!text.contains("231"), "{text}");
}

//! Properties of reading and writing, on random bytes and on damaged messages of the corpus: reading never panics, and what
//! has been read is written so that it reads the same. An endpoint outlives all of it, and a stranger's bytes cost nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::*;
use proptest::prelude::*;
use sip::frame::Framer;
use sip::parse::parse;
use sip::{Config, Counts, NameAddr, Uri};

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
});

/// A message of the corpus with bytes changed, cut out, doubled and put in.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let wound = (0..4u8, any::<prop::sample::Index>(), 1..40usize, any::<u8>());
    (0..CORPUS.len(), prop::collection::vec(wound, 0..8)).prop_map(|(at, wounds)| {
        let mut bytes = CORPUS[at].clone();
        for (kind, index, len, byte) in wounds {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            let end = (at + len).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.insert(at, b"\r\n:;,<>\"@% =\0\\"[usize::from(byte) % 14]),
            }
        }
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..600), damaged()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn reading_is_total_and_writing_is_stable(bytes in any_bytes()) {
        let mut framer = Framer::new();
        framer.push(&bytes);
        while let Ok(Some(_)) = framer.next_message() {}
        if let Ok(message) = parse(&bytes) {
            let written = message.to_bytes();
            let again = parse(&written);
            prop_assert!(again.is_ok(), "{:?} of {}", again, String::from_utf8_lossy(&written));
            prop_assert_eq!(again.unwrap().to_bytes(), written);
        }
    }

    #[test]
    fn a_stranger_costs_nothing(messages in prop::collection::vec(any_bytes(), 1..4)) {
        let mut bench = Bench::with(Config::new(US.parse().unwrap()));
        for message in messages {
            bench.feed_from("203.0.113.9:5060", &message);
        }
        prop_assert_eq!(bench.endpoint.counts(), Counts::default());
        prop_assert_eq!(bench.endpoint.poll_timeout(), None);
    }

    #[test]
    fn whoever_may_call_may_send_anything(messages in prop::collection::vec(any_bytes(), 1..6)) {
        let mut bench = Bench::new();
        for message in messages {
            bench.feed(message);
        }
        let ids: Vec<_> = bench.events.iter().map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(mut session) = bench.endpoint.session(id) {
                session.hang_up(bench.now, None);
            }
            bench.drain();
        }
        bench.assert_empties();
    }

    #[test]
    fn uris_and_addresses_come_back(text in "(sip|sips|tel|x-y):[a-z0-9%.@:;=?\\[\\]+&$,!~*'()-]{0,40}") {
        if let Ok(uri) = text.parse::<Uri>() {
            let written = uri.to_string();
            prop_assert_eq!(written.parse::<Uri>().map(|uri| uri.to_string()), Ok(written.clone()));
            let address = NameAddr { display: Some(text), ..NameAddr::new(uri) }.with_tag("t");
            prop_assert_eq!(address.to_string().parse::<NameAddr>(), Ok(address));
        }
    }
}

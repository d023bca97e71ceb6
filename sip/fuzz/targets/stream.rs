//! `cargo +nightly fuzz run stream`: see [`fuzz::stream`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::stream(data);
});

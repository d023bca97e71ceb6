//! `cargo +nightly fuzz run sdp`: see [`fuzz::sdp`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::sdp(data);
});

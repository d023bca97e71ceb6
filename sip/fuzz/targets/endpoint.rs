//! `cargo +nightly fuzz run endpoint`: see [`fuzz::endpoint`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::endpoint(data);
});

//! `cargo +nightly fuzz run message`: see [`fuzz::message`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzz::message(data);
});

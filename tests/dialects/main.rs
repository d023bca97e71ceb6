//! The other surfaces from outside: the real program, real sockets on loopback, far ends that are SIPp, the built-in
//! carrier or the tests' own, and a webhook receiver. Nothing of the program's inside is used. A test's number is that
//! of the contract's black-box list (`t151_…`). The harness is that of the Kaphila tests, taken over file by file.
//!
//! Needs the `sipp` program; `tests/run` sees to it.

#![expect(dead_code, reason = "the harness is shared, and this binary uses its own part of it")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../kaphila/api.rs"]
mod api;
#[path = "../kaphila/audio.rs"]
mod audio;
#[path = "../kaphila/carrier.rs"]
mod carrier;
#[path = "../kaphila/harness.rs"]
mod harness;
#[path = "../kaphila/receiver.rs"]
mod receiver;
#[path = "../kaphila/rtp.rs"]
mod rtp;
#[path = "../agent/sipp.rs"]
mod sipp;
#[path = "../kaphila/uas.rs"]
mod uas;

mod claude_phone;

#[path = "../providers/server.rs"]
mod services;

mod conversation;

mod hamming;

mod minds;

mod phony;

mod relay;
mod relay_prompts;
mod relay_rules;
mod relay_served;

mod sockets;

mod talk;

mod voxforge;

mod campaigns;
mod voxforge_calls;

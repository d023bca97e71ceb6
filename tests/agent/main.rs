//! The user agent from outside: the real program on loopback, and far ends that others wrote (SIPp, baresip, Kamailio)
//! or that the tests play by hand. The harness is that of the Kaphila tests, taken over file by file.
//!
//! Needs the `sipp`, `baresip` and `kamailio` programs; `tests/run` sees to them.

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
#[path = "../kaphila/uas.rs"]
mod uas;

mod sipp;
mod uac;

mod dialog;
mod field;
mod inbound;
mod ladder;
mod nat;
mod peers;
mod registration;
mod torture;
mod transport;
mod trunks;

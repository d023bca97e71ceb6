//! The Kaphila surface from outside: the real program, real sockets on loopback, far ends that are SIPp, the built-in
//! carrier or the tests' own, and a webhook receiver. Nothing of the program's inside is used. A test's number is
//! that of the contract's black-box list (`t26_…`, `x16_…`).
//!
//! Needs the `sipp` program, and what `tests/clients/install` fetches; `tests/run` sees to both.

mod api;
mod audio;
mod carrier;
mod harness;
mod receiver;
mod rtp;
#[path = "../agent/sipp.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod sipp;
mod uas;

mod basics;
mod clients;
mod control;
mod gather;
mod history;
mod hostile;
mod idempotency;
mod keeping;
mod logs;
mod messages;
mod money;
mod recordings;
mod restart;
mod speech;
mod trunks;

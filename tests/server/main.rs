//! The engine's own surface from outside: the real program, its command line and its sockets on loopback. Nothing of
//! the program's inside is used.

#![expect(dead_code, reason = "the harness is shared, and this binary uses its own part of it")]

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

mod admin;
mod backup;
mod openapi;
mod policies;
mod webhooks;

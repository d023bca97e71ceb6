//! What a phone system must survive: being killed at any moment, a full disk, a database that goes away. The real
//! program over real sockets; what must hold afterwards is asked of it from outside and of its database.

#[path = "../kaphila/api.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod api;
#[path = "../kaphila/audio.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod audio;
#[path = "../kaphila/carrier.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod carrier;
#[path = "../kaphila/harness.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod harness;
#[path = "../kaphila/receiver.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod receiver;
#[path = "../kaphila/rtp.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod rtp;
#[path = "../kaphila/uas.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod uas;

mod campaign;
mod credits;
mod customers;
mod database;
mod invariants;
mod kills;
mod storage;

//! SIPp as a far end that others wrote: the scenarios are in `tests/sipp`. A run is good when SIPp itself says that
//! every call went as its scenario says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Process, free_port, home, until, wait_bound};

/// A running SIPp.
pub(crate) struct Sipp {
    pub(crate) addr: SocketAddr,
    process: Process,
    messages: PathBuf,
}

impl Sipp {
    /// Runs a scenario that waits for calls over UDP, for this many of them. RTP is echoed.
    pub(crate) async fn start(scenario: &str, calls: u32) -> Self {
        Self::start_with(scenario, calls, &[]).await
    }

    /// The same with further arguments of SIPp.
    pub(crate) async fn start_with(scenario: &str, calls: u32, more: &[&str]) -> Self {
        let mut sipp = Self::run(scenario, calls, more);
        if !more.contains(&"t1") {
            wait_bound(sipp.addr, &mut sipp.process).await;
        }
        sipp
    }

    /// Runs a scenario that calls this user at an address, once.
    pub(crate) async fn call(scenario: &str, at: SocketAddr, user: &str) -> Self {
        let mut sipp = Self::run(scenario, 1, &["-s", user, &at.to_string()]);
        sipp.process.must_run();
        sipp
    }

    fn run(scenario: &str, calls: u32, more: &[&str]) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let folder = home(scenario);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(format!("{scenario}.xml"));
        let messages = folder.join("messages.log");
        let mut command = Command::new("sipp");
        command.current_dir(&folder).arg("-sf").arg(file);
        command.args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", &addr.port().to_string()]);
        command.args(["-mp", &free_port().to_string(), "-rtp_echo", "-m", &calls.to_string()]);
        command.args(["-nostdin", "-timeout", "60", "-timeout_error", "-trace_msg", "-message_file"]);
        command.arg(&messages).args(["-trace_err", "-error_file"]).arg(folder.join("errors.log"));
        command.args(more);
        let process = Process::start("sipp", &mut command, folder.join("sipp.log"));
        Self { addr, process, messages }
    }

    /// Waits until all calls are over; they must have gone as the scenario says.
    pub(crate) async fn went_well(&mut self) {
        let status = self.process.exited(40.0).await;
        assert!(status.success(), "SIPp is not content ({status}):\n{}", self.messages());
    }

    /// Waits until a text stands in a message that was sent or received.
    pub(crate) async fn said(&self, text: &str) {
        until(15.0, &format!("SIPp's messages hold {text:?}"), async || {
            self.messages().contains(text).then_some(())
        })
        .await;
    }

    /// Everything sent and received.
    pub(crate) fn messages(&self) -> String {
        std::fs::read_to_string(&self.messages).unwrap_or_default()
    }
}

//! SIPp as a far end that others wrote: the scenarios are in `tests/sipp`. A run is good when SIPp itself says that
//! every call went as its scenario says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Process, free_port, home, wait_bound};

/// A running SIPp.
pub(crate) struct Sipp {
    pub(crate) addr: SocketAddr,
    process: Process,
    messages: PathBuf,
}

impl Sipp {
    /// Runs a scenario for this many calls. RTP is echoed.
    pub(crate) async fn start(scenario: &str, calls: u32) -> Self {
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
        let mut process = Process::start("sipp", &mut command, folder.join("sipp.log"));
        wait_bound(addr, &mut process).await;
        Self { addr, process, messages }
    }

    /// Waits until all calls are over; they must have gone as the scenario says.
    pub(crate) async fn went_well(&mut self) {
        let status = self.process.exited(30.0).await;
        assert!(status.success(), "SIPp is not content ({status}):\n{}", self.messages());
    }

    /// Everything sent and received.
    pub(crate) fn messages(&self) -> String {
        std::fs::read_to_string(&self.messages).unwrap_or_default()
    }
}

//! Who may read the server's figures.

use serde::Deserialize;

/// `[metrics]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// `/metrics` is served.
    pub enabled: bool,
    /// Peers that need no key, beside this machine's own programs (CIDRs).
    pub allow_cidrs: Vec<String>,
    /// Names of this server that requests without a key may be sent to, beside `localhost` and addresses.
    pub allow_hosts: Vec<String>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { enabled: true, allow_cidrs: Vec::new(), allow_hosts: Vec::new() }
    }
}

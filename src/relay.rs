//! ConversationRelay (CONTRACT 1.2 `/relay/ws`, FIELD 3.1): an application talks on a call over a WebSocket, by text
//! instead of sound. This room owns the frames and the session; it never decides who may talk.

pub mod attend;
mod clauses;
mod fetch;
pub mod frames;
pub mod keeper;
pub mod serve;
pub mod session;
pub mod socket;

use std::pin::Pin;

use url::Url;

use crate::config::Webhooks;
use crate::webhook::guard::{self, UrlRefused};

/// What the names of an application's playbacks begin with: what it says is told by turns, not by playbacks.
pub const PLAYBACK: &str = "relay-";

/// Ends when whoever opened a WebSocket may no longer have it.
pub type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads an application's `wss://` URL, and refuses what the guard of webhooks refuses; `ws://` only where that lets
/// `http://` through.
///
/// # Errors
/// As [`guard::check_url`].
pub fn check_url(text: &str, config: &Webhooks) -> Result<Url, UrlRefused> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlRefused::Malformed)?;
    let carried = match scheme.to_ascii_lowercase().as_str() {
        "wss" => "https",
        "ws" => "http",
        _ => return Err(UrlRefused::Scheme),
    };
    guard::check_url(&format!("{carried}://{rest}"), config)
}

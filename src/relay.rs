//! ConversationRelay (CONTRACT 1.2 `/relay/ws`, FIELD 3.1): an application talks on a call over a WebSocket, by text
//! instead of sound. This room owns the frames and the session; it never decides who may talk.

pub mod attend;
mod fetch;
pub mod frames;
pub mod keeper;
mod line;
pub mod options;
pub mod park;
pub mod serve;
pub mod session;
pub mod socket;

use std::pin::Pin;
use std::sync::Arc;

use url::Url;

use crate::config::Webhooks;
use crate::control::{Calls, Rooms};
use crate::hearing::Hearing;
use crate::llm::Llm;
use crate::webhook::guard::{self, UrlRefused};

/// What the names of an application's playbacks begin with: what it says is told by turns, not by playbacks.
pub const PLAYBACK: &str = "relay-";

/// Ends when whoever opened a WebSocket may no longer have it.
pub type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What sessions need beside the rooms below.
#[derive(Clone)]
pub struct Means {
    /// Goes to addresses that customers name, and so must be guarded.
    pub client: reqwest::Client,
    /// Sound to text, for prompts; there may be no recogniser.
    pub hearing: Hearing,
    /// Text to text, for agents whose line a platform has.
    pub llm: Option<Llm>,
}

/// What sessions are held with. Clones share it.
#[derive(Clone)]
pub struct Desk {
    /// The rooms below.
    pub rooms: Rooms,
    /// The verbs of calls.
    pub calls: Arc<Calls>,
    /// The rest.
    pub means: Means,
    /// Calls whose application may come back.
    pub parking: park::Parking,
}

impl Desk {
    /// One for these rooms.
    pub fn new(rooms: Rooms, calls: Arc<Calls>, means: Means) -> Self {
        Self { rooms, calls, means, parking: park::Parking::default() }
    }
}

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

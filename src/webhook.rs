//! Webhooks on their way out: what a dialect must say about its events ([`Format`]) and the worker that claims
//! rows of the outbox, signs them, sends them and decides what follows from the answer.
//!
//! This room owns the HTTP client, the guard against addresses that customers must not reach, the retry clock, the
//! circuits of dead receivers, redeliveries and the removal of what is old. It never renders a body (the journal does, once, at the event) and never changes a call or its money.
//! Rules: CONTRACT 0.6 and 0.7; Standard Webhooks 1.0.

pub mod ask;
mod attempt;
pub mod circuit;
pub mod dns;
pub mod figures;
pub mod guard;
pub mod purge;
pub mod schedule;
pub mod sign;
pub mod verify;
pub mod worker;

use std::time::Duration;

use crate::model::analysis::Analysis;
use crate::model::call::CallView;
use crate::model::event::Stamped;
use crate::model::{Secret, Timestamp};

pub use attempt::client;
pub use figures::Figures;
pub use worker::{Worker, WorkerError, WorkerHandle};

/// One webhook body as a dialect writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The event's name on this surface, e.g. `call.ended`.
    pub event: &'static str,
    /// The bytes of every attempt: UTF-8 JSON.
    pub body: Vec<u8>,
}

/// What came of one attempt to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with this status.
    Answered {
        /// HTTP status, 100 to 599.
        status: u16,
        /// Its `Retry-After`, from now, where it sent a readable one.
        retry_after: Option<Duration>,
    },
    /// No connection: the name was not found, or TCP or TLS failed. The receiver cannot have seen the request.
    Unreachable,
    /// The guard kept us from dialling a forbidden address. The receiver cannot have seen the request.
    Refused,
    /// The time was over while the request was sent or the answer awaited: it may have been processed.
    TimedOut,
    /// The connection broke after the request went out, or the answer was no HTTP: it may have been processed.
    Broken,
}

impl Outcome {
    /// Delivered: any 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// 410: this receiver wants no more (CONTRACT 0.6).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Answered { status: 410, .. })
    }

    /// The receiver cannot have acted on it: no connection, or 429, 502, 503, 504 (CONTRACT 0.6, live events).
    pub fn cannot_have_been_processed(&self) -> bool {
        match self {
            Self::Answered { status, .. } => matches!(status, 429 | 502..=504),
            Self::Unreachable | Self::Refused => true,
            Self::TimedOut | Self::Broken => false,
        }
    }

    /// The HTTP status, where there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            Self::Unreachable | Self::Refused | Self::TimedOut | Self::Broken => None,
        }
    }

    /// A word for the delivery log; holds nothing of the receiver's answer but the status.
    pub fn describe(&self) -> String {
        match self {
            Self::Answered { status, .. } => format!("status {status}"),
            Self::Unreachable => "no connection".to_owned(),
            Self::Refused => "forbidden address".to_owned(),
            Self::TimedOut => "timed out".to_owned(),
            Self::Broken => "connection broke".to_owned(),
        }
    }
}

/// What a surface decides about its webhooks. Implemented once by each dialect, handed in by `lib.rs`.
pub trait Format: Send + Sync {
    /// The surface's word, equal to [`crate::model::call::Surface::as_str`].
    fn name(&self) -> &'static str;

    /// The bodies for one event, in order; none where this surface is silent on it. `view` is the call after the
    /// event; `sequence` is the number of the first, counting the bodies of this call to this URL from 1.
    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered>;

    /// The body that tells of a call's transcript of so many turns, once the call is over, where this surface does.
    fn transcript(&self, _at: Timestamp, _view: &CallView, _turns: u32, _sequence: u32) -> Option<Rendered> {
        None
    }

    /// The body that tells what is said of a call that is over, where this surface does.
    fn analysis(
        &self,
        _at: Timestamp,
        _view: &CallView,
        _analysis: &Analysis,
        _sequence: u32,
    ) -> Option<Rendered> {
        None
    }

    /// Whether this is the form of the endpoints that tenants subscribe for all their calls.
    fn has_endpoints(&self) -> bool {
        false
    }

    /// A header of this surface's own that signs a body, beside those of Standard Webhooks: its name and value.
    fn own_signature(&self, _newest: &Secret, _body: &[u8]) -> Option<(&'static str, String)> {
        None
    }

    /// Whether `event` (a name that [`Format::render`] gave) belongs to the terminal class of CONTRACT 0.6.
    fn terminal(&self, event: &str) -> bool;

    /// The `User-Agent` header.
    fn user_agent(&self) -> &'static str;

    /// The delay before the next attempt after `failures` failed ones (1 and up), before `time_scale` and jitter;
    /// `None` to give up.
    fn retry_after(&self, event: &str, failures: u32, outcome: &Outcome) -> Option<Duration>;

    /// The time one attempt may take in all.
    fn timeout(&self) -> Duration;

    /// How many deliveries in a row, given up after all their tries, open the circuit of their URL; `None`: only
    /// receivers that are not there have one.
    fn breaks_after(&self) -> Option<u32> {
        None
    }

    /// Whether a 410 stops the rest of the call's events to that URL.
    fn gone_stops_call(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_sorted_by_what_the_receiver_may_have_done() {
        let answered = |status| Outcome::Answered { status, retry_after: None };
        for (outcome, success, unprocessed) in [
            (answered(200), true, false),
            (answered(299), true, false),
            (answered(302), false, false),
            (answered(410), false, false),
            (answered(429), false, true),
            (answered(500), false, false),
            (answered(502), false, true),
            (answered(503), false, true),
            (answered(504), false, true),
            (Outcome::Unreachable, false, true),
            (Outcome::Refused, false, true),
            (Outcome::TimedOut, false, false),
            (Outcome::Broken, false, false),
        ] {
            assert_eq!(outcome.is_success(), success, "{outcome:?}");
            assert_eq!(outcome.cannot_have_been_processed(), unprocessed, "{outcome:?}");
            assert_eq!(outcome.is_gone(), outcome == answered(410), "{outcome:?}");
        }
    }
}

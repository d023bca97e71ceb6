//! What is asked of the HTTP surfaces, counted: requests by route, status and time taken, and refusals by reason. Routes
//! are those of the router, never what a client wrote, so their number is bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::http::Method;
use dashmap::DashMap;

use super::fault::Fault;
use crate::control::Refusal;
use crate::model::histogram::{Counts, Histogram};

/// Stands for a path that no route has.
const NO_ROUTE: &str = "none";

/// Stands for a method that no route has.
const NO_METHOD: &str = "OTHER";

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// Requests of one method on one route.
type Route = (&'static str, String);

/// The figures of all surfaces.
#[derive(Debug, Default)]
pub struct Traffic {
    routes: DashMap<Route, Asked>,
    refused: DashMap<&'static str, AtomicU64>,
}

/// What was asked of one route.
#[derive(Debug, Default)]
struct Asked {
    took: Histogram,
    statuses: BTreeMap<u16, u64>,
}

impl Traffic {
    /// Counts a request that was answered.
    pub fn count(&self, method: &Method, route: Option<&MatchedPath>, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| method == known).unwrap_or(NO_METHOD);
        let route = route.map_or(NO_ROUTE, MatchedPath::as_str);
        let mut asked = self.routes.entry((method, route.to_owned())).or_default();
        asked.took.count(took);
        *asked.statuses.entry(status).or_default() += 1;
    }

    /// Counts what a request was refused for.
    pub fn refused(&self, fault: &Fault) {
        if let Fault::Refused(refusal) = fault {
            self.refused.entry(reason(refusal)).or_default().fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests by method and route: how often with which status, and how long they took.
    pub fn routes(&self) -> BTreeMap<Route, (BTreeMap<u16, u64>, Counts)> {
        let read = |asked: &Asked| (asked.statuses.clone(), asked.took.read());
        self.routes.iter().map(|entry| (entry.key().clone(), read(entry.value()))).collect()
    }

    /// Refusals by reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.iter().map(|entry| (*entry.key(), entry.value().load(Ordering::Relaxed))).collect()
    }
}

/// The word that a refusal is counted by.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::MissingKey => "missing_key",
        Refusal::InvalidKey => "invalid_key",
        Refusal::Forbidden => "forbidden",
        Refusal::CallerIdNotAllowed => "caller_id_not_allowed",
        Refusal::RateLimited { .. } => "rate_limited",
        Refusal::NumberNotAllowed => "number_not_allowed",
        Refusal::DestinationNotAllowed => "destination_not_allowed",
        Refusal::TooFast { .. } => "too_many_calls_a_minute",
        Refusal::CircuitOpen { .. } => "circuit_open",
        Refusal::DayIsSpent => "daily_credits",
        Refusal::UnknownCall => "unknown_call",
        Refusal::NotAnswered => "not_answered",
        Refusal::GatherInProgress => "gather_in_progress",
        Refusal::QueueFull => "queue_full",
        Refusal::NoActiveRecording => "no_active_recording",
        Refusal::InvalidSound => "invalid_sound",
        Refusal::SoundNotFound => "sound_not_found",
        Refusal::TooManyCalls => "too_many_calls",
        Refusal::NoCredits => "no_credits",
        Refusal::NoTrunks => "no_trunks",
        Refusal::TrunksBusy => "trunks_busy",
        Refusal::OriginationFailed { .. } => "origination_failed",
        Refusal::Transferring => "transferring",
        Refusal::Attended => "attended",
        Refusal::Unavailable => "unavailable",
        Refusal::RequestInProgress => "request_in_progress",
        Refusal::IdempotencyKeyReused => "idempotency_key_reused",
    }
}

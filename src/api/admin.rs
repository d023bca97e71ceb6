//! The engine's own surface, `/admin/v1` (CONTRACT 0.1): what operators set up and look after while the server runs.
//! Every route needs a key of the scope `admin`, whatever surfaces that key is enabled for. Refusals wear the envelope
//! of [`kaphila`], which has every path that no other surface claims; resources are printed bare, lists with their
//! `total`. `null` in a PATCH takes a setting back to its default. What is changed is written to the audit log in the
//! transaction that changes it; secrets are shown once, when they are made.

pub mod audit;
pub mod callbacks;
pub mod deliveries;
pub mod keys;
pub mod ladder;
pub mod numbers;
pub mod sounds;
pub mod tenants;
pub mod trunks;
pub mod turns;
pub mod voices;

use std::ops::RangeInclusive;

use axum::extract;
use axum::response::Response;

use super::fault::{self, Fault};
use super::gate::Gate;
use super::idempotency::Once;
use super::openapi::{Route, Routes, route};
use super::{App, Dialect, kaphila};
use crate::clock;
use crate::control::Caller;
use crate::control::admission::Counted;
use crate::store::StoreError;
use crate::store::audit::By;

/// The engine's own row.
pub const DIALECT: Dialect = Dialect {
    name: "admin",
    mounts: &["/admin/v1"],
    prefixes: &["/admin"],
    routes,
    envelope: kaphila::envelope,
    format: None,
};

/// The scope of every route here.
const SCOPE: &str = "admin";

/// Rows of a list where the request does not say.
const ROWS: u32 = 100;

/// Most rows of a list.
const ROWS_MAX: u32 = 1000;

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// A part of a path, percent-decoded once.
type Part = Result<extract::Path<String>, extract::rejection::PathRejection>;

fn routes(app: &App) -> Routes {
    let once = Once { app: app.clone(), envelope: kaphila::envelope };
    let gate =
        Gate { app: app.clone(), surface: None, scope: Some(SCOPE), counted: Counted::Not, body_max: None };
    let groups = [
        keys::routes(),
        tenants::routes(&once),
        trunks::routes(),
        numbers::routes(&once),
        audit::routes(),
        callbacks::routes(),
        deliveries::routes(),
        ladder::routes(),
        voices::routes(),
        turns::routes(),
    ];
    let uploads = Gate { body_max: Some(sounds::BYTES_MAX), ..gate.clone() };
    Routes::new::<kaphila::Refused>()
        .guarded(&gate, groups.into_iter().flatten())
        .guarded(&uploads, sounds::routes())
}

/// Who asks, as the audit log names them.
pub fn by(caller: &Caller) -> By {
    By::key(&caller.key.key_id, caller.ip, clock::now().wall)
}

/// A fault for what the store refused.
pub fn stored(error: StoreError) -> Fault {
    let text = error.to_string();
    match error {
        StoreError::UnknownKey(_) => Fault::Missing("Key not found"),
        StoreError::UnknownTenant(_) => Fault::Missing("Tenant not found"),
        StoreError::UnknownNumber(_) => Fault::Missing("Number not found"),
        StoreError::UnknownTrunks(_) | StoreError::UnknownAgent(_) => Fault::Bad(text),
        StoreError::Taken(..)
        | StoreError::UnlimitedCredits(_)
        | StoreError::BelowHeld(_)
        | StoreError::OwnTenant => Fault::Conflict(text),
        error => fault::broken("the database", &error),
    }
}

/// A part of a path, or a fault that says what it does not name.
///
/// # Errors
/// [`Fault::Missing`] for what is no text.
pub fn part(part: Part, missing: &'static str) -> Result<String, Fault> {
    part.map(|extract::Path(text)| text).map_err(|_| Fault::Missing(missing))
}

/// The query of a request. Of duplicate names the last wins.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark.
    pub fn read(text: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// A value, if there is one that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All names with their values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// [`Fault::Bad`] for anything else.
    pub fn number(&self, name: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        let read = text.parse::<i64>().ok().filter(|n| plain && bounds.contains(n));
        let wrong = || format!("{name} must be an integer from {} to {}", bounds.start(), bounds.end());
        read.map(Some).ok_or_else(|| Fault::Bad(wrong()))
    }

    /// How many rows, and after how many.
    ///
    /// # Errors
    /// [`Fault::Bad`].
    pub fn window(&self) -> Result<(u32, u32), Fault> {
        self.window_of(ROWS)
    }

    /// The same where it is `rows` that are given unless said.
    ///
    /// # Errors
    /// [`Fault::Bad`].
    pub fn window_of(&self, rows: u32) -> Result<(u32, u32), Fault> {
        let limit = self.number("limit", 1..=i64::from(ROWS_MAX))?.and_then(|n| u32::try_from(n).ok());
        let offset = self.number("offset", 0..=i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok());
        Ok((limit.unwrap_or(rows), offset.unwrap_or(0)))
    }
}

//! The contacts of VoxForge's campaigns (CONTRACT 1.3, 3 S18): lists that are brought, what has come of each, and whom a
//! campaign would call.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::campaigns::{KIND, counts, find};
use super::{Answer, Segment, Wrong, contacts, named, window};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::campaigns::import::{self, CONTACTS_MAX, Imported, RowError, Unreadable};
use crate::campaigns::preflight;
use crate::clock;
use crate::control::Caller;
use crate::model::Timestamp;
use crate::store::campaign_contacts::CampaignContact;
use crate::store::campaigns::Campaign;

/// Largest body that brings contacts.
pub(super) const BYTES_MAX: usize = 10 * 1024 * 1024;

/// Row errors that are told one by one.
const ERRORS_TOLD: usize = 1000;

/// What was taken of a list of contacts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeImport)]
pub(super) struct Import {
    /// New to the campaign.
    imported: usize,
    /// There already, or twice in the list.
    duplicates: usize,
    /// Rows that are no contacts, at most a thousand of them.
    errors: Vec<Row>,
    /// All of them.
    errors_total: usize,
}

/// A row that is no contact.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeImportError)]
struct Row {
    /// From 1, the first row of data.
    row: usize,
    /// Why.
    error: String,
}

/// Contacts in a body.
#[derive(ToSchema)]
#[schema(as = VoxForgeContactsInput)]
pub struct ContactsInput {
    /// Whom to call.
    #[schema(value_type = Vec<contacts::Input>, max_items = 100000)]
    contacts: Imported,
}

/// A contact of a campaign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeCampaignContact)]
struct Member {
    /// The contact's id.
    id: String,
    /// In E.164 form.
    phone: String,
    /// For people.
    name: String,
    /// `pending`, `dialing`, `done`, `failed` or `skipped`.
    state: String,
    /// Calls so far.
    attempts: i64,
    /// What the last call came to, or why there was none.
    #[schema(examples("no_answer"))]
    last_outcome: Option<String>,
    /// Not called before; while pending.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
}

/// Contacts of a campaign.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeCampaignContacts)]
struct Members {
    /// In the order in which they are called.
    contacts: Vec<Member>,
    /// How many there are.
    total: i64,
    /// As asked, or 1000.
    limit: u32,
    /// As asked, or 0.
    offset: u32,
}

/// What a campaign would do now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgePreflight)]
struct Preflight {
    /// Contacts.
    total: i64,
    /// Those that it would call.
    will_call: i64,
    /// Those that it would not, by the reason.
    skipped: Vec<Skipped>,
    /// When it may call next.
    #[schema(format = DateTime)]
    opens_at: Option<String>,
    /// Until when, from then on; null: for ever.
    #[schema(format = DateTime)]
    closes_at: Option<String>,
    /// What keeps it from calling anybody.
    problems: Vec<&'static str>,
}

/// Contacts that would not be called.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeSkipped)]
struct Skipped {
    /// `finished`, `dialing`, `dnc`, `not_allowed`, `too_often` or `never_open`.
    reason: String,
    /// How many.
    count: i64,
}

impl From<CampaignContact> for Member {
    fn from(contact: CampaignContact) -> Self {
        let pending = contact.state == "pending";
        Self {
            id: contact.contact,
            phone: contact.phone.e164(),
            name: contact.name,
            state: contact.state,
            attempts: contact.attempts,
            last_outcome: contact.last_outcome,
            next_attempt_at: pending.then(|| contact.next_at.iso_ms()),
        }
    }
}

/// The contacts of a JSON body, if it has any.
pub(super) fn contacts_of(fields: &Fields) -> Result<Option<Imported>, Fault> {
    let many = |error: Unreadable| Fault::Bad(error.to_string());
    let rows = fields.list("contacts", CONTACTS_MAX)?;
    rows.map(|rows| import::json(rows).map_err(many)).transpose()
}

/// Adds what was read of a list.
pub(super) async fn bring(app: &App, campaign: &Campaign, read: Imported) -> Result<Import, Wrong> {
    let there = usize::try_from(counts(app, &campaign.id).await?.total()).unwrap_or(usize::MAX);
    if there.saturating_add(read.contacts.len()) > CONTACTS_MAX {
        return Err(Wrong::bad(format!("A campaign has at most {CONTACTS_MAX} contacts")));
    }
    let added = app.rooms.db.add_contacts(campaign, &read.contacts, clock::now().wall).await?;
    let added = added.ok_or_else(|| Wrong::bad("The campaign is over"))?;
    let errors_total = read.errors.len();
    let row = |RowError { row, error }| Row { row, error };
    Ok(Import {
        imported: added.imported,
        duplicates: added.duplicates + read.duplicates,
        errors: read.errors.into_iter().take(ERRORS_TOLD).map(row).collect(),
        errors_total,
    })
}

/// `POST /api/v1/campaigns/:id/contacts`: JSON or CSV.
///
/// # Errors
/// A list that cannot be read; [`Wrong::NoSuch`]; a 400 for a campaign that is over, and for too many.
#[utoipa::path(
    post, path = "/api/v1/campaigns/{id}/contacts", tag = "VoxForge: campaigns",
    operation_id = "voxforgeImportContacts",
    summary = "Bring contacts",
    description = "`{\"contacts\": […]}`, or `text/csv` with a header row: `phone` is needed, `name` and `timezone` are \
                   known, every other column is a variable. A row that is no contact costs no other.",
    params(("id" = String, Path, description = "Its id")),
    request_body(content((ContactsInput = "application/json"), (String = "text/csv"))),
    responses(
        (status = 200, description = "What was taken", body = Import),
        (status = 400, description = "The list cannot be read, or is too long"),
        (status = 404, description = "There is no such campaign"),
    )
)]
pub async fn import_contacts(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let campaign = find(&app, &caller, named(KIND, id)?).await?;
    if campaign.status.is_final() {
        return Err(Wrong::bad(format!("The campaign is {}", campaign.status.as_str())));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_csv = kind.trim_start().get(..8).is_some_and(|kind| kind.eq_ignore_ascii_case("text/csv"));
    let read = if is_csv {
        import::csv(&body).map_err(|error| Fault::Bad(error.to_string()))?
    } else {
        let contacts = contacts_of(&Fields::read(&body)?)?;
        let contacts = contacts.ok_or_else(|| Fault::Bad("contacts is required".into()))?;
        ContactsInput { contacts }.contacts
    };
    Ok(json(StatusCode::OK, &bring(&app, &campaign, read).await?))
}

/// `GET /api/v1/campaigns/:id/contacts`.
///
/// # Errors
/// A bad `limit` or `offset`; [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/campaigns/{id}/contacts", tag = "VoxForge: campaigns",
    operation_id = "voxforgeListCampaignContacts",
    summary = "A campaign's contacts, and what has come of each",
    params(
        ("id" = String, Path, description = "The campaign's id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Contacts skipped"),
    ),
    responses((status = 200, description = "The contacts", body = Members), (status = 404, description = "There is no such campaign"))
)]
pub async fn list_contacts(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let campaign = find(&app, &caller, named(KIND, id)?).await?;
    let (contacts, total) = app.rooms.db.campaign_contacts(&campaign.id, limit, offset).await?;
    let contacts = contacts.into_iter().map(Member::from).collect();
    Ok(json(StatusCode::OK, &Members { contacts, total, limit, offset }))
}

/// `GET /api/v1/campaigns/:id/preflight`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/campaigns/{id}/preflight", tag = "VoxForge: campaigns",
    operation_id = "voxforgePreflightCampaign",
    summary = "Whom a campaign would call now, whom not, and why",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "What it would do", body = Preflight), (status = 404, description = "There is no such campaign"))
)]
pub async fn show_preflight(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
) -> Answer {
    let campaign = find(&app, &caller, named(KIND, id)?).await?;
    let found = preflight::preflight(&app.rooms, &campaign, clock::now().wall).await?;
    let skipped: Vec<Skipped> =
        found.skipped.into_iter().map(|(reason, count)| Skipped { reason, count }).collect();
    let body = Preflight {
        total: found.will_call + skipped.iter().map(|some| some.count).sum::<i64>(),
        will_call: found.will_call,
        skipped,
        opens_at: found.opens_at.map(Timestamp::iso_ms),
        closes_at: found.closes_at.map(Timestamp::iso_ms),
        problems: found.problems,
    };
    Ok(json(StatusCode::OK, &body))
}

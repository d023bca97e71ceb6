//! VoxForge's contacts (CONTRACT 1.3, 3 S18): whom campaigns call and appointments are made with.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Answer, Deleted, Segment, Wrong, array, deleted, named, text_within, window};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::campaigns::hours::zone_of;
use crate::clock;
use crate::control::Caller;
use crate::model::{PhoneNumber, forms};
use crate::store::contacts::{Contact, NewContact};

/// What a 404 calls it.
pub(super) const KIND: &str = "Contact";

/// Longest name, characters.
const NAME_MAX: usize = 200;

/// Largest variables of one contact, bytes of JSON.
const VARIABLES_MAX: usize = 16 * 1024;

/// A contact.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeContact)]
struct Shown {
    /// Its id.
    id: String,
    /// In E.164 form.
    #[schema(examples("+15551234567"))]
    phone: String,
    /// For people.
    name: String,
    /// What agents may want to know.
    variables: Map<String, Value>,
    /// Where they live, an IANA zone; `null`: not known.
    timezone: Option<String>,
    /// They asked not to be called.
    dnc: bool,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Contact> for Shown {
    fn from(contact: Contact) -> Self {
        let NewContact { phone, name, variables, timezone, dnc } = contact.about;
        Self {
            id: contact.id,
            phone: phone.e164(),
            name,
            variables,
            timezone: Some(timezone).filter(|zone| !zone.is_empty()),
            dnc,
            created_at: contact.created_at.iso_ms(),
        }
    }
}

/// What a body says of a contact.
#[derive(Default, ToSchema)]
#[schema(as = VoxForgeContactInput, rename_all = "camelCase")]
pub struct Input {
    /// In E.164 form; needed to make one.
    #[schema(value_type = Option<String>, examples("+15551234567"))]
    phone: Option<PhoneNumber>,
    /// For people.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// What agents may want to know.
    variables: Option<Map<String, Value>>,
    /// Where they live, an IANA zone: their campaign's hours are told by its clocks. Empty: not known.
    #[schema(examples("America/New_York"))]
    timezone: Option<String>,
    /// They asked not to be called.
    dnc: Option<bool>,
}

impl Input {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let phone = fields.text("phone")?.map(|text| {
            forms::e164(text).ok_or_else(|| Fault::Bad("phone must be a number in E.164 form".into()))
        });
        let variables = fields.map("variables")?;
        if variables.is_some_and(|map| serde_json::to_vec(map).map_or(0, |text| text.len()) > VARIABLES_MAX) {
            return Err(Fault::Bad("variables must be at most 16 KiB".into()));
        }
        let timezone = fields.text("timezone")?;
        if timezone.is_some_and(|zone| !zone.is_empty() && zone_of(zone).is_none()) {
            return Err(Fault::Bad("timezone must be an IANA time zone".into()));
        }
        Ok(Self {
            phone: phone.transpose()?,
            name: fields.text("name")?.map(|text| text_within("name", text, 0, NAME_MAX)).transpose()?,
            variables: variables.cloned(),
            timezone: timezone.map(str::to_owned),
            dnc: fields.flag("dnc")?,
        })
    }

    fn apply(self, about: &mut NewContact) {
        about.phone = self.phone.unwrap_or(about.phone.clone());
        about.name = self.name.unwrap_or(std::mem::take(&mut about.name));
        about.variables = self.variables.unwrap_or(std::mem::take(&mut about.variables));
        about.timezone = self.timezone.unwrap_or(std::mem::take(&mut about.timezone));
        about.dnc = self.dnc.unwrap_or(about.dnc);
    }
}

/// The tenant's contact of that id.
async fn find(app: &App, caller: &Caller, id: String) -> Result<Contact, Wrong> {
    app.rooms.db.contact(&caller.key.tenant, &id).await?.ok_or(Wrong::NoSuch(KIND, id))
}

/// `GET /api/v1/contacts`.
///
/// # Errors
/// A bad `limit` or `offset`.
#[utoipa::path(
    get, path = "/api/v1/contacts", tag = "VoxForge: contacts", operation_id = "voxforgeListContacts",
    summary = "The contacts, newest first",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Contacts skipped"),
    ),
    responses((status = 200, description = "The contacts; `X-Total-Count` says how many there are", body = [Shown]))
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let (contacts, total) = app.rooms.db.contacts(&caller.key.tenant, limit, offset).await?;
    let contacts: Vec<Shown> = contacts.into_iter().map(Shown::from).collect();
    Ok(array(&contacts, total))
}

/// `POST /api/v1/contacts`.
///
/// # Errors
/// A bad field.
#[utoipa::path(
    post, path = "/api/v1/contacts", tag = "VoxForge: contacts", operation_id = "voxforgeCreateContact",
    summary = "Make a contact",
    request_body = Input,
    responses((status = 201, description = "It is made", body = Shown), (status = 400, description = "A field is wrong"))
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    fields.required_text("phone")?;
    let input = Input::read(&fields)?;
    let phone = input.phone.clone().ok_or_else(|| Wrong::bad("phone is required"))?;
    let mut about =
        NewContact { phone, name: String::new(), variables: Map::new(), timezone: String::new(), dnc: false };
    input.apply(&mut about);
    let made = app.rooms.db.create_contact(&caller.key.tenant, about, clock::now().wall).await?;
    Ok(json(StatusCode::CREATED, &Shown::from(made)))
}

/// `GET /api/v1/contacts/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/contacts/{id}", tag = "VoxForge: contacts", operation_id = "voxforgeShowContact",
    summary = "A contact",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The contact", body = Shown), (status = 404, description = "There is none"))
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let contact = find(&app, &caller, named(KIND, id)?).await?;
    Ok(json(StatusCode::OK, &Shown::from(contact)))
}

/// `PATCH /api/v1/contacts/:id`: what is said changes, all else stays.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`].
#[utoipa::path(
    patch, path = "/api/v1/contacts/{id}", tag = "VoxForge: contacts", operation_id = "voxforgeChangeContact",
    summary = "Change a contact",
    params(("id" = String, Path, description = "Its id")),
    request_body = Input,
    responses(
        (status = 200, description = "The contact as it is now", body = Shown),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    body: Bytes,
) -> Answer {
    let id = named(KIND, id)?;
    let input = Input::read(&Fields::read_optional(&body)?)?;
    let changed = app.rooms.db.change_contact(&caller.key.tenant, &id, |about| input.apply(about)).await?;
    Ok(json(StatusCode::OK, &Shown::from(changed.ok_or(Wrong::NoSuch(KIND, id))?)))
}

/// `DELETE /api/v1/contacts/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    delete, path = "/api/v1/contacts/{id}", tag = "VoxForge: contacts", operation_id = "voxforgeDeleteContact",
    summary = "Forget a contact",
    description = "Campaigns that have the contact still call it; to keep them from that set `dnc` instead.",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It is gone", body = Deleted), (status = 404, description = "There is none"))
)]
pub async fn delete(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let id = named(KIND, id)?;
    if app.rooms.db.delete_contact(&caller.key.tenant, &id).await? {
        Ok(deleted(id))
    } else {
        Err(Wrong::NoSuch(KIND, id))
    }
}

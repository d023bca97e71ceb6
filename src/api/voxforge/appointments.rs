//! VoxForge's appointments (CONTRACT 1.3, 3 S21). They may overlap, last at most a day, and nobody is reminded of them.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, DAY_MS, Segment, Wrong, array, contacts, named, span, text_within, window};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::model::Timestamp;
use crate::store::appointments::{Appointment, AppointmentFilter, NewAppointment, STATUSES};

/// What a 404 calls it.
const KIND: &str = "Appointment";

/// Longest title and notes, characters.
const TITLE_MAX: usize = 200;
const NOTES_MAX: usize = 5000;

/// An appointment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeAppointment)]
struct Shown {
    /// Its id.
    id: String,
    /// With whom.
    contact_id: String,
    /// Begins.
    #[schema(format = DateTime)]
    start_time: String,
    /// Ends.
    #[schema(format = DateTime)]
    end_time: String,
    /// For people.
    title: String,
    /// For people.
    notes: Option<String>,
    /// `confirmed`, `cancelled`, `completed` or `no_show`.
    status: String,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Appointment> for Shown {
    fn from(appointment: Appointment) -> Self {
        let about = appointment.about;
        Self {
            id: appointment.id,
            contact_id: about.contact,
            start_time: about.starts_at.iso_ms(),
            end_time: about.ends_at.iso_ms(),
            title: about.title,
            notes: about.notes,
            status: about.status,
            created_at: appointment.created_at.iso_ms(),
        }
    }
}

/// What a body says of an appointment.
#[derive(Default, ToSchema)]
#[schema(as = VoxForgeAppointmentInput, rename_all = "camelCase")]
pub struct Input {
    /// With whom; needed to make one.
    contact_id: Option<String>,
    /// Begins, with its offset; needed to make one.
    #[schema(value_type = Option<String>, format = DateTime)]
    start_time: Option<Timestamp>,
    /// Ends, later and at most a day later; needed to make one.
    #[schema(value_type = Option<String>, format = DateTime)]
    end_time: Option<Timestamp>,
    /// For people; needed to make one.
    #[schema(max_length = 200)]
    title: Option<String>,
    /// For people.
    #[schema(max_length = 5000)]
    notes: Option<String>,
    /// `confirmed`, `cancelled`, `completed` or `no_show`.
    status: Option<String>,
}

impl Input {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let text = |name: &str, least, most| -> Result<Option<String>, Fault> {
            fields.text(name)?.map(|text| text_within(name, text, least, most)).transpose()
        };
        let moment = |name: &str| -> Result<Option<Timestamp>, Fault> {
            let Some(text) = fields.text(name)? else { return Ok(None) };
            let read = Timestamp::from_iso(text).filter(|_| text.len() > 10);
            read.map(Some)
                .ok_or_else(|| Fault::Bad(format!("{name} must be an ISO 8601 moment with its offset")))
        };
        Ok(Self {
            contact_id: text("contactId", 1, 64)?,
            start_time: moment("startTime")?,
            end_time: moment("endTime")?,
            title: text("title", 1, TITLE_MAX)?,
            notes: text("notes", 0, NOTES_MAX)?,
            status: fields.text("status")?.map(status).transpose()?,
        })
    }

    fn apply(self, about: &mut NewAppointment) -> Result<(), Fault> {
        about.contact = self.contact_id.unwrap_or(std::mem::take(&mut about.contact));
        about.starts_at = self.start_time.unwrap_or(about.starts_at);
        about.ends_at = self.end_time.unwrap_or(about.ends_at);
        about.title = self.title.unwrap_or(std::mem::take(&mut about.title));
        about.notes = self.notes.or(about.notes.take());
        about.status = self.status.unwrap_or(std::mem::take(&mut about.status));
        if about.ends_at <= about.starts_at {
            return Err(Fault::Bad("endTime must be later than startTime".into()));
        }
        if about.ends_at > about.starts_at.plus_ms(DAY_MS) {
            return Err(Fault::Bad("endTime must be at most a day later than startTime".into()));
        }
        Ok(())
    }
}

fn status(word: &str) -> Result<String, Fault> {
    let known = STATUSES.contains(&word).then(|| word.to_owned());
    known.ok_or_else(|| Fault::Bad(format!("status must be one of {}", STATUSES.join(", "))))
}

/// A contact that a body names must be one of the tenant's.
async fn known(app: &App, caller: &Caller, contact: &str) -> Result<(), Wrong> {
    let found = app.rooms.db.contact(&caller.key.tenant, contact).await?;
    found.map(drop).ok_or_else(|| Wrong::NoSuch(contacts::KIND, contact.to_owned()))
}

/// `GET /api/v1/appointments`.
///
/// # Errors
/// A bad parameter.
#[utoipa::path(
    get, path = "/api/v1/appointments", tag = "VoxForge: appointments", operation_id = "voxforgeListAppointments",
    summary = "The appointments in their order",
    params(
        ("status" = Option<String>, Query, description = "Only those of this status"),
        ("from" = Option<String>, Query, description = "Only those that begin then or later: a moment or a day"),
        ("to" = Option<String>, Query, description = "Only those that begin then or earlier; a day counts whole"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Appointments skipped"),
    ),
    responses(
        (status = 200, description = "The appointments; `X-Total-Count` says how many there are", body = [Shown]),
        (status = 400, description = "A parameter is wrong"),
    )
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = window(&query)?;
    let (from, to) = span(&query)?;
    let status = query.text("status").map(status).transpose()?;
    let filter = AppointmentFilter { status, from, to };
    let (found, total) = app.rooms.db.appointments(&caller.key.tenant, &filter, limit, offset).await?;
    let found: Vec<Shown> = found.into_iter().map(Shown::from).collect();
    Ok(array(&found, total))
}

/// `POST /api/v1/appointments`.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`] for the contact.
#[utoipa::path(
    post, path = "/api/v1/appointments", tag = "VoxForge: appointments",
    operation_id = "voxforgeCreateAppointment",
    summary = "Make an appointment",
    request_body = Input,
    responses(
        (status = 201, description = "It is made", body = Shown),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "There is no such contact"),
    )
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    for name in ["contactId", "startTime", "endTime", "title"] {
        fields.required_text(name)?;
    }
    let mut about = NewAppointment {
        contact: String::new(),
        starts_at: Timestamp(0),
        ends_at: Timestamp(0),
        title: String::new(),
        notes: None,
        status: "confirmed".into(),
    };
    Input::read(&fields)?.apply(&mut about)?;
    known(&app, &caller, &about.contact).await?;
    let made = app.rooms.db.create_appointment(&caller.key.tenant, about, clock::now().wall).await?;
    Ok(json(StatusCode::CREATED, &Shown::from(made)))
}

/// `GET /api/v1/appointments/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/appointments/{id}", tag = "VoxForge: appointments",
    operation_id = "voxforgeShowAppointment",
    summary = "An appointment",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The appointment", body = Shown), (status = 404, description = "There is none"))
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let id = named(KIND, id)?;
    let found = app.rooms.db.appointment(&caller.key.tenant, &id).await?;
    Ok(json(StatusCode::OK, &Shown::from(found.ok_or(Wrong::NoSuch(KIND, id))?)))
}

/// `PATCH /api/v1/appointments/:id`: what is said changes, all else stays.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`].
#[utoipa::path(
    patch, path = "/api/v1/appointments/{id}", tag = "VoxForge: appointments",
    operation_id = "voxforgeChangeAppointment",
    summary = "Change an appointment",
    params(("id" = String, Path, description = "Its id")),
    request_body = Input,
    responses(
        (status = 200, description = "The appointment as it is now", body = Shown),
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
    if let Some(contact) = &input.contact_id {
        known(&app, &caller, contact).await?;
    }
    let (tenant, at) = (&caller.key.tenant, clock::now().wall);
    let changed = app.rooms.db.change_appointment(tenant, &id, at, |about| input.apply(about)).await?;
    Ok(json(StatusCode::OK, &Shown::from(changed.ok_or(Wrong::NoSuch(KIND, id))??)))
}

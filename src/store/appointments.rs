//! Appointments with contacts (CONTRACT 1.3, 3 S21). They are kept and listed, nothing more: nobody is reminded.

use super::sql::{Row, Statement, column, sql};
use super::{Db, StoreError, ids};
use crate::model::Timestamp;

/// Every status of an appointment.
pub const STATUSES: &[&str] = &["confirmed", "cancelled", "completed", "no_show"];

/// An appointment of a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appointment {
    /// `^c[a-z0-9]{24}$`
    pub id: String,
    /// What was agreed.
    pub about: NewAppointment,
    /// Made.
    pub created_at: Timestamp,
}

/// What is agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAppointment {
    /// The contact's id.
    pub contact: String,
    /// Begins.
    pub starts_at: Timestamp,
    /// Ends, later than it begins.
    pub ends_at: Timestamp,
    /// For people.
    pub title: String,
    /// For people.
    pub notes: Option<String>,
    /// A word of [`STATUSES`].
    pub status: String,
}

/// Which appointments are wanted; what is `None` is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppointmentFilter {
    /// A word of [`STATUSES`].
    pub status: Option<String>,
    /// Beginning at that moment or later.
    pub from: Option<Timestamp>,
    /// Beginning before that moment.
    pub to: Option<Timestamp>,
}

impl AppointmentFilter {
    fn narrow(&self, statement: &mut Statement) {
        if let Some(status) = &self.status {
            statement.push(" AND status = ").push_bind(status);
        }
        if let Some(from) = self.from {
            statement.push(" AND starts_at >= ").push_bind(from.0);
        }
        if let Some(to) = self.to {
            statement.push(" AND starts_at < ").push_bind(to.0);
        }
    }
}

impl Db {
    /// Makes an appointment. Whether the contact exists is for the caller to know.
    pub async fn create_appointment(
        &self,
        tenant: &str,
        about: NewAppointment,
        at: Timestamp,
    ) -> Result<Appointment, StoreError> {
        let made = Appointment { id: ids::cuid()?, about, created_at: at };
        let about = &made.about;
        let insert =
            sql("INSERT INTO appointments (id, tenant, contact, starts_at, ends_at, title, notes, status, \
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)")
            .bind(&made.id)
            .bind(tenant)
            .bind(&about.contact)
            .bind(about.starts_at.0)
            .bind(about.ends_at.0)
            .bind(&about.title)
            .bind(about.notes.as_deref())
            .bind(&about.status)
            .bind(at.0);
        let mut tx = self.begin().await?;
        tx.run(insert).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// One of a tenant's appointments.
    pub async fn appointment(&self, tenant: &str, id: &str) -> Result<Option<Appointment>, StoreError> {
        let one = sql("SELECT * FROM appointments WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        self.optional(one).await?.as_ref().map(read_appointment).transpose()
    }

    /// A page of a tenant's appointments in their order, and how many there are in all.
    pub async fn appointments(
        &self,
        tenant: &str,
        filter: &AppointmentFilter,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Appointment>, i64), StoreError> {
        let mut page = sql("SELECT * FROM appointments WHERE tenant = $1").bind(tenant);
        let mut total = sql("SELECT COUNT(*) FROM appointments WHERE tenant = $1").bind(tenant);
        filter.narrow(&mut page);
        filter.narrow(&mut total);
        page.push(" ORDER BY starts_at, id LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
        let rows = self.all(page).await?;
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read_appointment).collect::<Result<_, _>>()?, total))
    }

    /// Writes an appointment as it is after `change`, which may refuse: then nothing is written. `None` if there is no
    /// such appointment.
    pub async fn change_appointment<E>(
        &self,
        tenant: &str,
        id: &str,
        at: Timestamp,
        change: impl FnOnce(&mut NewAppointment) -> Result<(), E>,
    ) -> Result<Option<Result<Appointment, E>>, StoreError> {
        let mut tx = self.begin().await?;
        let lock = sql("UPDATE appointments SET updated_at = $3 WHERE id = $1 AND tenant = $2");
        tx.run(lock.bind(id).bind(tenant).bind(at.0)).await?;
        let one = sql("SELECT * FROM appointments WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        let found = tx.optional(one).await?.as_ref().map(read_appointment).transpose()?;
        let Some(mut found) = found else { return Ok(None) };
        if let Err(refused) = change(&mut found.about) {
            return Ok(Some(Err(refused)));
        }
        let about = &found.about;
        let update = sql("UPDATE appointments SET contact = $2, starts_at = $3, ends_at = $4, title = $5, \
             notes = $6, status = $7 WHERE id = $1")
        .bind(id)
        .bind(&about.contact)
        .bind(about.starts_at.0)
        .bind(about.ends_at.0)
        .bind(&about.title)
        .bind(about.notes.as_deref())
        .bind(&about.status);
        tx.run(update).await?;
        tx.commit().await?;
        Ok(Some(Ok(found)))
    }
}

fn read_appointment(row: &Row) -> Result<Appointment, StoreError> {
    Ok(Appointment {
        id: column(row, "id")?,
        about: NewAppointment {
            contact: column(row, "contact")?,
            starts_at: Timestamp(column(row, "starts_at")?),
            ends_at: Timestamp(column(row, "ends_at")?),
            title: column(row, "title")?,
            notes: column(row, "notes")?,
            status: column(row, "status")?,
        },
        created_at: Timestamp(column(row, "created_at")?),
    })
}

//! Contacts: people that campaigns call and appointments are made with (CONTRACT 1.3, 3 S18). One number may be in
//! several contacts; who asked not to be called is not called under any of them.

use serde_json::{Map, Value};

use super::sql::{Row, column, flag, sql};
use super::{Db, StoreError, Tx, ids, rows};
use crate::model::{PhoneNumber, Timestamp};

/// Rows written by one statement, and numbers asked for by one: far below what either database takes.
pub const ROWS_AT_ONCE: usize = 500;

/// A contact of a tenant's.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact {
    /// `^c[a-z0-9]{24}$`
    pub id: String,
    /// What is known of them.
    pub about: NewContact,
    /// Made.
    pub created_at: Timestamp,
}

/// What is known of a contact.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContact {
    /// Their number.
    pub phone: PhoneNumber,
    /// For people; may be empty.
    pub name: String,
    /// What agents may want to know of them.
    pub variables: Map<String, Value>,
    /// Where they live, an IANA zone; empty: not known.
    pub timezone: String,
    /// They asked not to be called.
    pub dnc: bool,
}

impl Db {
    /// Makes a contact.
    pub async fn create_contact(
        &self,
        tenant: &str,
        about: NewContact,
        at: Timestamp,
    ) -> Result<Contact, StoreError> {
        let contact = Contact { id: ids::cuid()?, about, created_at: at };
        let mut tx = self.begin().await?;
        tx.insert_contacts(tenant, std::slice::from_ref(&contact)).await?;
        tx.commit().await?;
        Ok(contact)
    }

    /// One of a tenant's contacts.
    pub async fn contact(&self, tenant: &str, id: &str) -> Result<Option<Contact>, StoreError> {
        let one = sql("SELECT * FROM contacts WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        self.optional(one).await?.as_ref().map(read_contact).transpose()
    }

    /// A page of a tenant's contacts, newest first, and how many there are in all.
    pub async fn contacts(
        &self,
        tenant: &str,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Contact>, i64), StoreError> {
        let page = sql(
            "SELECT * FROM contacts WHERE tenant = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3",
        );
        let rows = self.all(page.bind(tenant).bind(limit).bind(offset)).await?;
        let total = sql("SELECT COUNT(*) FROM contacts WHERE tenant = $1").bind(tenant);
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read_contact).collect::<Result<_, _>>()?, total))
    }

    /// Changes a contact: `change` is given what is known of it. `None` if there is no such contact.
    pub async fn change_contact(
        &self,
        tenant: &str,
        id: &str,
        change: impl FnOnce(&mut NewContact),
    ) -> Result<Option<Contact>, StoreError> {
        let mut tx = self.begin().await?;
        // An update that changes nothing locks the row, whichever the database.
        let lock = sql("UPDATE contacts SET name = name WHERE id = $1 AND tenant = $2");
        tx.run(lock.bind(id).bind(tenant)).await?;
        let one = sql("SELECT * FROM contacts WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        let found = tx.optional(one).await?.as_ref().map(read_contact).transpose()?;
        let Some(mut contact) = found else { return Ok(None) };
        change(&mut contact.about);
        let about = &contact.about;
        let update =
            sql("UPDATE contacts SET phone = $2, name = $3, variables = $4, timezone = $5, dnc = $6 \
             WHERE id = $1")
            .bind(id)
            .bind(about.phone.e164())
            .bind(&about.name)
            .bind(rows::write_object(&about.variables))
            .bind(&about.timezone)
            .bind(about.dnc);
        tx.run(update).await?;
        tx.commit().await?;
        Ok(Some(contact))
    }

    /// Forgets a contact; campaigns that have it keep what they need of it. `false` if there is no such contact.
    pub async fn delete_contact(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let gone = sql("DELETE FROM contacts WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        let gone = tx.run(gone).await? > 0;
        tx.commit().await?;
        Ok(gone)
    }
}

impl Tx {
    /// Writes contacts that are new, at most [`ROWS_AT_ONCE`].
    pub(super) async fn insert_contacts(
        &mut self,
        tenant: &str,
        contacts: &[Contact],
    ) -> Result<(), StoreError> {
        if contacts.is_empty() {
            return Ok(());
        }
        let mut insert = sql(
            "INSERT INTO contacts (id, tenant, phone, name, variables, timezone, dnc, created_at) VALUES ",
        );
        for (index, Contact { id, about, created_at }) in contacts.iter().enumerate() {
            insert.push(if index == 0 { "(" } else { ", (" }).push_bind(id);
            insert.push(", ").push_bind(tenant);
            insert.push(", ").push_bind(about.phone.e164());
            insert.push(", ").push_bind(&about.name);
            insert.push(", ").push_bind(rows::write_object(&about.variables));
            insert.push(", ").push_bind(&about.timezone);
            insert.push(", ").push_bind(about.dnc);
            insert.push(", ").push_bind(created_at.0).push(")");
        }
        self.run(insert).await?;
        Ok(())
    }
}

/// Reads a number as it is stored, in E.164 form.
pub(super) fn read_phone(row: &Row, name: &'static str) -> Result<PhoneNumber, StoreError> {
    let text: String = column(row, name)?;
    text.strip_prefix('+').and_then(PhoneNumber::from_digits).ok_or(StoreError::Unreadable("phone"))
}

fn read_contact(row: &Row) -> Result<Contact, StoreError> {
    Ok(Contact {
        id: column(row, "id")?,
        about: NewContact {
            phone: read_phone(row, "phone")?,
            name: column(row, "name")?,
            variables: rows::read_object(&column::<String>(row, "variables")?)?,
            timezone: column(row, "timezone")?,
            dnc: flag(row, "dnc")?,
        },
        created_at: Timestamp(column(row, "created_at")?),
    })
}

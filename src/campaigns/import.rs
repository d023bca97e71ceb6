//! Lists of contacts as customers hand them in: CSV with a header row, or JSON. Each row is a contact or an error that
//! says why it is none; one bad row costs no other (CONTRACT 1.3, 3 S18). Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::hours::zone_of;
use crate::model::forms;
use crate::store::contacts::NewContact;

/// Contacts of one campaign.
pub const CONTACTS_MAX: usize = 100_000;

/// Columns of a CSV, and bytes of one row's variables.
const COLUMNS_MAX: usize = 100;
const VARIABLES_MAX: usize = 16 * 1024;

/// Longest name, characters.
const NAME_MAX: usize = 200;

/// A row that is no contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// From 1, the first row of data.
    pub row: usize,
    /// Why.
    pub error: String,
}

/// What a list holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Contacts, each number once.
    pub contacts: Vec<NewContact>,
    /// Rows whose number came before.
    pub duplicates: usize,
    /// Rows that are no contacts.
    pub errors: Vec<RowError>,
}

/// Why a list cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is no header, or it names no `phone`.
    #[error("the first row must name the columns, one of them phone")]
    Header,
    /// More than a campaign takes.
    #[error("at most {CONTACTS_MAX} contacts")]
    TooMany,
    /// More columns than make sense.
    #[error("at most {COLUMNS_MAX} columns")]
    Columns,
    /// UTF-16 with half a character in it.
    #[error("the text is neither UTF-8 nor UTF-16")]
    Encoding,
}

impl Imported {
    fn take(&mut self, seen: &mut BTreeSet<String>, row: usize, read: Result<NewContact, String>) {
        match read {
            Ok(contact) if seen.insert(contact.phone.digits().to_owned()) => self.contacts.push(contact),
            Ok(_) => self.duplicates += 1,
            Err(error) => self.errors.push(RowError { row, error }),
        }
    }
}

/// A row's own values, whatever they were written in.
struct Row {
    phone: String,
    name: String,
    timezone: String,
    variables: Map<String, Value>,
    dnc: bool,
}

fn contact(row: Row) -> Result<NewContact, String> {
    let phone = forms::e164(row.phone.trim()).ok_or("phone must be a number in E.164 form")?;
    let name = row.name;
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(format!("name must be at most {NAME_MAX} characters, on one line"));
    }
    if !(row.timezone.is_empty() || zone_of(&row.timezone).is_some()) {
        return Err("timezone must be an IANA time zone".to_owned());
    }
    let size = row.variables.iter().map(|(name, value)| name.len() + value.to_string().len());
    if size.sum::<usize>() > VARIABLES_MAX {
        return Err("variables must be at most 16 KiB".to_owned());
    }
    Ok(NewContact { phone, name, variables: row.variables, timezone: row.timezone, dnc: row.dnc })
}

/// Reads a CSV (RFC 4180): a header row with `phone`; `name` and `timezone` are known, every other column is a variable.
///
/// # Errors
/// [`Unreadable`]; what is wrong with single rows is told beside the contacts.
pub fn csv(bytes: &[u8]) -> Result<Imported, Unreadable> {
    let text;
    let bytes = match bytes {
        [0xff, 0xfe, rest @ ..] => {
            text = utf16(rest, u16::from_le_bytes)?;
            text.as_bytes()
        }
        [0xfe, 0xff, rest @ ..] => {
            text = utf16(rest, u16::from_be_bytes)?;
            text.as_bytes()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => rest,
        other => other,
    };
    let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.byte_headers().map_err(|_| Unreadable::Header)?;
    if header.len() > COLUMNS_MAX {
        return Err(Unreadable::Columns);
    }
    let columns: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    if !columns.iter().any(|name| name == "phone") {
        return Err(Unreadable::Header);
    }
    let mut imported = Imported::default();
    let mut seen = BTreeSet::new();
    for (index, record) in reader.byte_records().enumerate() {
        if index >= CONTACTS_MAX {
            return Err(Unreadable::TooMany);
        }
        let read = record.map_err(|error| error.to_string()).and_then(|record| csv_row(&columns, &record));
        imported.take(&mut seen, index + 1, read);
    }
    Ok(imported)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Unreadable> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
    text.ok_or(Unreadable::Encoding)
}

fn csv_row(columns: &[String], record: &::csv::ByteRecord) -> Result<NewContact, String> {
    if record.len() > columns.len() {
        return Err(format!("{} values for {} columns", record.len(), columns.len()));
    }
    let mut row = Row {
        phone: String::new(),
        name: String::new(),
        timezone: String::new(),
        variables: Map::new(),
        dnc: false,
    };
    for (column, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value).map_err(|_| format!("{column} is not UTF-8"))?;
        match column.as_str() {
            "phone" => row.phone = value.to_owned(),
            "name" => row.name = value.to_owned(),
            "timezone" => row.timezone = value.trim().to_owned(),
            "" => {}
            other => drop(row.variables.insert(other.to_owned(), Value::String(value.to_owned()))),
        }
    }
    contact(row)
}

/// Reads a JSON list of `{phone, name, variables, timezone, dnc}`.
///
/// # Errors
/// [`Unreadable::TooMany`]; what is wrong with single rows is told beside the contacts.
pub fn json(rows: &[Value]) -> Result<Imported, Unreadable> {
    if rows.len() > CONTACTS_MAX {
        return Err(Unreadable::TooMany);
    }
    let mut imported = Imported::default();
    let mut seen = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        imported.take(&mut seen, index + 1, json_row(row));
    }
    Ok(imported)
}

fn json_row(row: &Value) -> Result<NewContact, String> {
    let row = row.as_object().ok_or("a contact must be an object")?;
    let given = |name: &str| row.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match given(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{name} must be a string")),
    };
    let variables = match given("variables") {
        None => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err("variables must be an object".to_owned()),
    };
    let dnc = match given("dnc") {
        None => false,
        Some(Value::Bool(dnc)) => *dnc,
        Some(_) => return Err("dnc must be a boolean".to_owned()),
    };
    if given("phone").is_none() {
        return Err("phone is required".to_owned());
    }
    contact(Row { phone: text("phone")?, name: text("name")?, timezone: text("timezone")?, variables, dnc })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    fn phones(imported: &Imported) -> Vec<String> {
        imported.contacts.iter().map(|contact| contact.phone.e164()).collect()
    }

    fn rows(imported: &Imported) -> Vec<usize> {
        imported.errors.iter().map(|error| error.row).collect()
    }

    #[test]
    fn a_csv_is_read_as_spreadsheets_write_it() {
        let text = "\u{feff}phone,name,plan,note\r\n\
                    +15551234567,\"Lovelace, Ada\",gold,\"two\nlines\"\r\n\
                    =1+1,Formula,,\r\n\
                    +1 (555) 123-4567,Again,,\r\n\
                    5551234568,No plus,,\r\n\
                    +15551234569,=cmd(),silver,\"a \"\"b\"\"\"\r\n";
        let imported = csv(text.as_bytes()).unwrap();
        assert_eq!(phones(&imported), ["+15551234567", "+15551234569"]);
        assert_eq!((rows(&imported), imported.duplicates), (vec![2, 4], 1));
        let first = &imported.contacts[0];
        assert_eq!(first.name, "Lovelace, Ada");
        assert_eq!(Value::Object(first.variables.clone()), value!({"plan": "gold", "note": "two\nlines"}));
        assert_eq!(imported.contacts[1].variables["note"], "a \"b\"");
    }

    #[test]
    fn other_encodings_are_read_or_told() {
        let text = "phone,name\n+15551234567,Zoë\n";
        let units: Vec<u16> = std::iter::once(0xfeff).chain(text.encode_utf16()).collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [&little, &big] {
            assert_eq!(csv(bytes).unwrap().contacts[0].name, "Zoë");
        }
        assert_eq!(csv(&little[..little.len() - 1]), Err(Unreadable::Encoding));
        let latin = csv(b"phone,name\n+15551234567,Zo\xeb\n+15551234568,Ada\n").unwrap();
        assert_eq!((phones(&latin), rows(&latin)), (vec!["+15551234568".to_owned()], vec![1]));
        assert_eq!(csv("phone\n".as_bytes()).unwrap(), Imported::default());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "name,plan\nAda,gold\n", "+15551234567\n+15551234568\n"] {
            assert_eq!(csv(text.as_bytes()), Err(Unreadable::Header), "{text:?}");
        }
        let wide = (0..101).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(csv(wide.as_bytes()), Err(Unreadable::Columns));
        let many = "phone\n".to_owned() + &"+1\n".repeat(CONTACTS_MAX + 1);
        assert_eq!(csv(many.as_bytes()), Err(Unreadable::TooMany));
        let ragged = csv(b"phone,name\n+15551234567,a,b,c\n+15551234568\n").unwrap();
        assert_eq!((phones(&ragged), rows(&ragged)), (vec!["+15551234568".to_owned()], vec![1]));
    }

    #[test]
    fn json_rows_are_read_one_by_one() {
        let list = value!([
            {"phone": "+15551234567", "name": "Ada", "variables": {"n": 1}, "timezone": "Europe/Berlin"},
            {"phone": "+15551234567"},
            {"phone": 15551234567_u64},
            {"name": "Nobody"},
            "x",
            {"phone": "+15551234568", "variables": []},
            {"phone": "+15551234569", "timezone": "Mars/X"},
            {"phone": "+15551234570", "dnc": true, "name": null},
            {"phone": "+15551234571", "name": "a\nb"},
        ]);
        let imported = json(list.as_array().unwrap()).unwrap();
        assert_eq!(phones(&imported), ["+15551234567", "+15551234570"]);
        assert_eq!((rows(&imported), imported.duplicates), (vec![3, 4, 5, 6, 7, 9], 1));
        assert!(imported.contacts[1].dnc && !imported.contacts[0].dnc);
        assert_eq!(json(&vec![Value::Null; CONTACTS_MAX + 1]), Err(Unreadable::TooMany));
    }
}

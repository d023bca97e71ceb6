//! Request bodies, read field by field from one JSON object, so that each wrong type is a 400 that names its field
//! (CONTRACT 0.4). Nothing is coerced; `null` for an optional field means absent; of duplicate names the last wins.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::fault::Fault;
use crate::config::Webhooks;
use crate::model::CallerId;
use crate::webhook::guard;

/// Deepest nesting of a body.
const NESTING_MAX: usize = 64;

/// A body's fields.
#[derive(Debug, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body that must be a JSON object.
    ///
    /// # Errors
    /// [`Fault::Bad`] `Invalid JSON body` for anything else, and for nesting deeper than 64.
    pub fn read(body: &[u8]) -> Result<Self, Fault> {
        let invalid = || Fault::Bad("Invalid JSON body".into());
        if nested_deeper_than(body, NESTING_MAX) {
            return Err(invalid());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) | Err(_) => Err(invalid()),
        }
    }

    /// As [`Fields::read`], for routes where no field is required: there an empty body is an empty object.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn read_optional(body: &[u8]) -> Result<Self, Fault> {
        if body.is_empty() { Ok(Self::default()) } else { Self::read(body) }
    }

    /// Whether a field is there, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(name.to_owned()));
        self.0.contains_key(name)
    }

    /// An object inside of this one.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type.
    pub fn object(&self, name: &str) -> Result<Option<Self>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields.clone()))),
            Some(_) => Err(Fault::Bad(format!("{name} must be an object"))),
        }
    }

    /// The object itself.
    pub fn into_object(self) -> Map<String, Value> {
        self.0
    }

    /// A list of strings, at most `most`.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type, and for a longer list.
    pub fn texts(&self, name: &str, most: usize) -> Result<Option<Vec<&str>>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let texts = value.as_array().filter(|list| list.len() <= most);
        let texts = texts.and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| Fault::Bad(format!("{name} must be a list of at most {most} strings")))
    }

    /// A list of anything.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type, and for more than `most`.
    pub fn list(&self, name: &str, most: usize) -> Result<Option<&[Value]>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() <= most);
        list.map(|list| Some(list.as_slice()))
            .ok_or_else(|| Fault::Bad(format!("{name} must be a list of at most {most}")))
    }

    /// An object with names of the customer's own.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type.
    pub fn map(&self, name: &str) -> Result<Option<&Map<String, Value>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(Fault::Bad(format!("{name} must be an object"))),
        }
    }

    /// An integer that may be negative, within bounds.
    ///
    /// # Errors
    /// As [`Fields::integer`].
    pub fn signed(&self, name: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || format!("{name} must be an integer from {} to {}", bounds.start(), bounds.end());
        let read = value.as_i64().filter(|n| bounds.contains(n));
        read.map(Some).ok_or_else(|| Fault::Bad(wrong()))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(name.to_owned()));
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::Bad(format!("{name} must be a string"))),
        }
    }

    /// A string that must be there and not be empty.
    ///
    /// # Errors
    /// [`Fault::Bad`].
    pub fn required_text(&self, name: &str) -> Result<&str, Fault> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::Bad(format!("{name} is required")))
    }

    /// A URL that webhooks may be sent to.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type, and for what the guard refuses by its form.
    pub fn webhook_url(&self, name: &str, webhooks: &Webhooks) -> Result<Option<String>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let url = guard::check_url(text, webhooks);
        let url = url.map_err(|_| Fault::Bad(format!("{name} must be an https URL")))?;
        Ok(Some(url.into()))
    }

    /// Who the callee shall see.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type or form.
    pub fn caller_id(&self, name: &str) -> Result<Option<CallerId>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || format!("{name} must be 3 to 15 digits, with or without a plus, or anonymous");
        CallerId::parse(text).map(Some).ok_or_else(|| Fault::Bad(wrong()))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Fault::Bad(format!("{name} must be a boolean"))),
        }
    }

    /// An integer within bounds.
    ///
    /// # Errors
    /// [`Fault::Bad`] for another type, a fraction (also one of value zero), or a value out of bounds.
    pub fn integer(&self, name: &str, bounds: RangeInclusive<u32>) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let read = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| bounds.contains(n));
        let wrong = || format!("{name} must be an integer from {} to {}", bounds.start(), bounds.end());
        read.map(Some).ok_or_else(|| Fault::Bad(wrong()))
    }
}

#[cfg(test)]
thread_local! {
    static ASKED: std::cell::RefCell<std::collections::BTreeSet<String>> = const {
        std::cell::RefCell::new(std::collections::BTreeSet::new())
    };
}

/// Holds a body's documentation against its parser: the properties of the one are the fields that the other asks for,
/// no more and no fewer. `body` is one that is taken.
#[cfg(test)]
pub(super) fn documented_as_read<B: utoipa::ToSchema, R>(
    body: &str,
    read: impl FnOnce(&[u8]) -> Result<R, Fault>,
) {
    let schema = serde_json::to_value(B::schema()).unwrap();
    let documented: std::collections::BTreeSet<String> =
        schema["properties"].as_object().into_iter().flat_map(|members| members.keys().cloned()).collect();
    ASKED.take();
    assert!(read(body.as_bytes()).is_ok(), "{body}");
    assert_eq!(documented, ASKED.take(), "{}", B::name());
}

/// Whether brackets outside of strings nest deeper than `max`; done before parsing, which recurses.
fn nested_deeper_than(body: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::read(text.as_bytes()).unwrap()
    }

    fn bad(text: &str) -> Fault {
        Fault::Bad(text.into())
    }

    #[test]
    fn only_json_objects_are_bodies() {
        let deep_arrays = format!("{{\"a\":{}", "[".repeat(10_000));
        let too_deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        let bodies: [&[u8]; 14] = [
            b"",
            b"   ",
            b"{\"number\":",
            b"[]",
            b"\"x\"",
            b"null",
            b"1",
            b"{\"a\":NaN}",
            b"{\"a\":1e999}",
            b"{}{}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\xfe\"}",
            deep_arrays.as_bytes(),
            too_deep.as_bytes(),
        ];
        for body in bodies {
            assert_eq!(Fields::read(body).unwrap_err(), bad("Invalid JSON body"), "{:?}", body.get(..20));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
        assert!(Fields::read(deep.as_bytes()).is_ok());
        let in_text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(1000));
        assert!(Fields::read(in_text.as_bytes()).is_ok());
        assert!(Fields::read_optional(b"").is_ok());
        assert!(Fields::read_optional(b"[]").is_err());
    }

    #[test]
    fn fields_keep_their_types() {
        let body = fields(
            r#"{"t":"x","e":"","b":true,"n":30,"f":30.0,"s":"30","z":null,"big":99999999999999999999}"#,
        );
        assert_eq!(body.text("t"), Ok(Some("x")));
        assert_eq!(body.text("z"), Ok(None));
        assert_eq!(body.text("absent"), Ok(None));
        assert_eq!(body.text("n"), Err(bad("n must be a string")));
        for name in ["e", "z", "absent"] {
            assert_eq!(body.required_text(name), Err(bad(&format!("{name} is required"))));
        }
        assert_eq!(body.flag("b"), Ok(Some(true)));
        assert_eq!(body.flag("n"), Err(bad("n must be a boolean")));
        assert_eq!(body.integer("n", 5..=120), Ok(Some(30)));
        assert_eq!(body.integer("z", 5..=120), Ok(None));
        for name in ["f", "s", "b", "big"] {
            let error = bad(&format!("{name} must be an integer from 5 to 120"));
            assert_eq!(body.integer(name, 5..=120), Err(error));
        }
        for out in ["4", "121", "-30", "1.5", "3e1"] {
            assert!(fields(&format!("{{\"n\":{out}}}")).integer("n", 5..=120).is_err(), "{out}");
        }
    }

    #[test]
    fn the_last_of_duplicate_names_wins() {
        assert_eq!(fields(r#"{"a":"1","a":"2"}"#).text("a"), Ok(Some("2")));
        assert_eq!(fields(r#"{"a":"1","a":null}"#).text("a"), Ok(None));
    }
}

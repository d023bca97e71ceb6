//! The form of trunks in the document: the settings of `[[trunk]]` with their words, as they are asked for and as they are
//! shown.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, RefBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::Health;
use crate::config::TrunkConfig;

/// A trunk as it is shown, by [`describe`](crate::store::trunks::describe): its settings without the password, and what only this server knows.
pub(super) struct TrunkBody;

/// A trunk as it is asked for: its settings, each of which may be `null`, and whether it is in use.
pub(super) struct TrunkAsked;

/// The settings of `[[trunk]]` by their names in JSON; those that `empty` accepts may be `null`.
fn settings_schema(empty: impl Fn(&str) -> bool) -> ObjectBuilder {
    let mut all = ObjectBuilder::new();
    let RefOr::T(Schema::Object(settings)) = TrunkConfig::schema() else {
        return all;
    };
    for (name, mut setting) in settings.properties {
        let nullable = empty(&name);
        if let (true, RefOr::T(Schema::Object(plain))) = (nullable, &mut setting)
            && let SchemaType::Type(kind) = plain.schema_type.clone()
        {
            plain.schema_type = SchemaType::from_iter([kind, Type::Null]);
        }
        if let (true, RefOr::T(Schema::Array(list))) = (nullable, &mut setting) {
            list.schema_type = SchemaType::from_iter([Type::Array, Type::Null]);
        }
        all = all.property(name, setting);
    }
    all
}

fn described(kind: Type, words: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).description(Some(words))
}

impl PartialSchema for TrunkAsked {
    fn schema() -> RefOr<Schema> {
        let enabled = described(Type::Boolean, "Whether calls may go by it; yes unless said.");
        settings_schema(|_| true).property("enabled", enabled).into()
    }
}

impl ToSchema for TrunkAsked {
    fn name() -> Cow<'static, str> {
        "AdminTrunkAsked".into()
    }
}

/// Settings that are shown as `null` where there is nothing.
const NULL_WHERE_EMPTY: [&str; 4] = ["callerId", "callerIdFormat", "externalAddress", "mediaAddress"];

impl PartialSchema for TrunkBody {
    fn schema() -> RefOr<Schema> {
        let all = settings_schema(|name| NULL_WHERE_EMPTY.contains(&name))
            .property("id", described(Type::Integer, "Its number."))
            .property("endpoint", described(Type::String, "Its name in what is told of calls."))
            .property("hasPassword", described(Type::Boolean, "Whether it has a password."))
            .property("enabled", described(Type::Boolean, "Whether calls may go by it."))
            .property(
                "health",
                RefBuilder::new()
                    .ref_location_from_schema_name(Health::name())
                    .description(Some("How it does.")),
            );
        let mut all = all.build();
        all.properties.remove("password");
        all.required = all.properties.keys().cloned().collect();
        all.into()
    }
}

impl ToSchema for TrunkBody {
    fn name() -> Cow<'static, str> {
        "AdminTrunk".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Health::name().into_owned(), Health::schema()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::Secret;
    use crate::model::account::Trunk;
    use crate::store::trunks::describe;

    /// What is shown is what is documented, and what is documented to be asked for is what is read.
    #[test]
    fn trunks_are_documented_as_they_are() {
        let names = |schema: RefOr<Schema>| {
            let schema = serde_json::to_value(schema).unwrap();
            let names = schema["properties"].as_object().unwrap().keys().cloned();
            names.collect::<BTreeSet<_>>()
        };
        let config =
            TrunkConfig { name: "a".into(), proxy: "sip:127.0.0.1".into(), ..TrunkConfig::default() };
        let trunk = Trunk {
            id: 1,
            name: config.name.clone(),
            proxy: config.proxy.clone(),
            username: String::new(),
            password: Secret(String::new()),
            dial_prefix: String::new(),
            caller_id: None,
            codecs: config.codecs.clone(),
            no_response_timeout_ms: 2000,
            profile: config.profile().unwrap(),
            enabled: true,
        };
        let shown = describe(&trunk);
        let mut shown: BTreeSet<String> = shown.as_object().unwrap().keys().cloned().collect();
        shown.insert("health".into());
        assert_eq!(names(TrunkBody::schema()), shown);
        let mut asked: Vec<String> = names(TrunkAsked::schema())
            .iter()
            .map(|name| super::super::snake(name))
            .filter(|name| name != "enabled")
            .collect();
        let mut read = TrunkConfig::SETTINGS.to_vec();
        asked.sort();
        read.sort_unstable();
        assert_eq!(asked, read);
    }
}

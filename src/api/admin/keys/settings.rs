//! The settings of a key as a body names them: read once, then laid over a key to be made or a key that is. `null`
//! stands for a setting's default. Pure.

use utoipa::ToSchema;

use super::Trunks;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::model::account::{ApiKey, RecordingMode};
use crate::model::cidr::Cidr;
use crate::model::{CallerId, Timestamp, forms};
use crate::store::accounts::{KEEP_DAYS_MAX, NewKey, PLANS, SCOPES, SURFACES, TrunkChoice};

/// Most entries of a list.
const LIST_MAX: usize = 100;

/// Highest number of a limit.
const LIMIT_MAX: u32 = 1_000_000_000;

/// What a body says; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, ToSchema)]
#[schema(as = AdminKeyAsked, rename_all = "camelCase")]
pub(super) struct Changes {
    /// Whom it belongs to; cannot be changed later. `default` unless said.
    pub(super) tenant: Option<String>,
    /// `"all"`, or names in the order in which they are tried.
    #[schema(value_type = Option<Trunks>)]
    pub(super) trunks: Option<TrunkChoice>,
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 100, examples("shop"))]
    name: Option<String>,
    /// Balance; `null` or `"unlimited"`: unlimited.
    #[schema(value_type = Option<i64>, minimum = 0)]
    credits: Option<Option<i64>>,
    /// Requests in each window; `null`: 100.
    #[schema(value_type = Option<u32>, minimum = 1)]
    rate_limit: Option<Option<u32>>,
    /// `starter`, `professional`, `business` or `enterprise`.
    plan: Option<String>,
    /// Calls at once.
    #[schema(minimum = 1)]
    max_concurrent: Option<u32>,
    /// `always`, `off` or `on_request`.
    #[schema(value_type = Option<String>, pattern = "^(always|off|on_request)$")]
    recording: Option<RecordingMode>,
    /// Days that its recordings are kept, 0: for ever; `null`: as configured.
    #[schema(value_type = Option<u32>, maximum = 36500)]
    keep_days: Option<Option<u32>>,
    /// Caller ids it may show; empty: any.
    #[schema(value_type = Option<Vec<String>>)]
    caller_ids: Option<Vec<CallerId>>,
    /// Networks it may be shown from; empty: any.
    ip_allow: Option<Vec<String>>,
    /// What it may do; empty: everything but `admin`.
    scopes: Option<Vec<String>>,
    /// Surfaces it may use; empty: all.
    surfaces: Option<Vec<String>>,
    /// Country calling codes it may dial; empty: all.
    countries: Option<Vec<String>>,
    /// May dial premium-rate numbers.
    #[schema(rename = "allowPremium")]
    premium: Option<bool>,
    /// May dial emergency numbers.
    #[schema(rename = "allowEmergency")]
    emergency: Option<bool>,
    /// Most credits on one UTC day; `null`: no cap.
    #[schema(value_type = Option<u32>)]
    daily_credits: Option<Option<u32>>,
    /// Most calls in one minute; `null`: no cap.
    #[schema(value_type = Option<u32>)]
    calls_per_minute: Option<Option<u32>>,
    /// When it stops working, an ISO 8601 moment or day ahead; `null`: never.
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<Timestamp>>,
}

/// Lays what is named over the fields of the same names.
macro_rules! lay {
    ($changes:ident over $($field:ident),+ in $target:expr) => {
        $(if let Some(value) = $changes.$field {
            $target.$field = value;
        })+
    };
}

impl Changes {
    /// Reads a body; `now` is for what must lie ahead.
    pub(super) fn read(fields: &Fields, now: Timestamp) -> Result<Self, Fault> {
        let defaults = NewKey::named("");
        let list =
            |name: &'static str, good: &dyn Fn(&str) -> bool, wanted: &str| words(fields, name, good, wanted);
        let network = |text: &str| text.parse::<Cidr>().is_ok();
        let caller_ids = list("callerIds", &|text| CallerId::parse(text).is_some(), "caller ids")?;
        let scopes = list("scopes", &|text| SCOPES.contains(&text), &SCOPES.join(", "))?;
        Ok(Self {
            tenant: word(fields, "tenant", forms::is_tenant, "1 to 64 of A-Z a-z 0-9 - _")?,
            trunks: trunks(fields)?,
            name: word(fields, "name", forms::is_label, "1 to 100 characters")?,
            credits: or_default(fields, "credits", None, credits)?,
            rate_limit: limit(fields, "rateLimit", 1)?,
            plan: word(fields, "plan", |text| PLANS.contains(&text), &PLANS.join(", "))?,
            max_concurrent: or_default(fields, "maxConcurrent", defaults.max_concurrent, |fields, name| {
                fields.integer(name, 1..=LIMIT_MAX)
            })?,
            recording: or_default(fields, "recording", defaults.recording, recording)?,
            keep_days: or_default(fields, "keepDays", None, |fields, name| {
                Ok(Some(fields.integer(name, 0..=KEEP_DAYS_MAX)?))
            })?,
            caller_ids: caller_ids.map(|ids| ids.iter().filter_map(|id| CallerId::parse(id)).collect()),
            ip_allow: list("ipAllow", &network, "networks such as 10.0.0.0/8")?,
            // No scopes at all would be a key for nothing: `null` and `[]` mean the default.
            scopes: scopes.map(|words| if words.is_empty() { defaults.scopes } else { words }),
            surfaces: list("surfaces", &|text| SURFACES.contains(&text), &SURFACES.join(", "))?,
            countries: list("countries", &forms::is_leading_digits, "country calling codes such as 49")?,
            premium: or_default(fields, "allowPremium", false, Fields::flag)?,
            emergency: or_default(fields, "allowEmergency", false, Fields::flag)?,
            daily_credits: limit(fields, "dailyCredits", 0)?,
            calls_per_minute: limit(fields, "callsPerMinute", 0)?,
            expires_at: or_default(fields, "expiresAt", None, |fields, name| moment(fields, name, now))?,
        })
    }

    /// The key to be made.
    pub(super) fn into_new(self) -> Result<NewKey, Fault> {
        let name = self.name.clone().ok_or_else(|| Fault::Bad("name is required".into()))?;
        let mut new = NewKey::named(&name);
        let changes = self;
        lay!(changes over tenant, trunks, credits, rate_limit, plan, max_concurrent, recording, keep_days in new);
        lay!(changes over caller_ids, ip_allow, scopes, surfaces, expires_at in new);
        lay!(changes over countries, premium, emergency, daily_credits, calls_per_minute in new.policy);
        Ok(new)
    }

    /// Over a key that is; its tenant and its trunks are not among its fields.
    pub(super) fn onto(self, key: &mut ApiKey) {
        let changes = self;
        lay!(changes over name, credits, rate_limit, plan, max_concurrent, recording, keep_days in key);
        lay!(changes over caller_ids, ip_allow, scopes, surfaces, expires_at in key);
        lay!(changes over countries, premium, emergency, daily_credits, calls_per_minute in key.policy);
    }
}

/// The default for a `null`, what `read` reads for anything else, nothing where the field is not there.
fn or_default<T>(
    fields: &Fields,
    name: &'static str,
    default: T,
    read: impl FnOnce(&Fields, &str) -> Result<Option<T>, Fault>,
) -> Result<Option<T>, Fault> {
    if !fields.has(name) {
        return Ok(None);
    }
    Ok(Some(read(fields, name)?.unwrap_or(default)))
}

/// A text of a certain form; `null` says nothing.
fn word(
    fields: &Fields,
    name: &str,
    good: impl Fn(&str) -> bool,
    wanted: &str,
) -> Result<Option<String>, Fault> {
    match fields.text(name)? {
        None => Ok(None),
        Some(text) if good(text) => Ok(Some(text.to_owned())),
        Some(_) => Err(Fault::Bad(format!("{name} must be {wanted}"))),
    }
}

/// A list of texts of a certain form, each kept once.
fn words(
    fields: &Fields,
    name: &'static str,
    good: &dyn Fn(&str) -> bool,
    wanted: &str,
) -> Result<Option<Vec<String>>, Fault> {
    or_default(fields, name, Vec::new(), |fields, name| {
        let Some(texts) = fields.texts(name, LIST_MAX)? else { return Ok(None) };
        let mut kept: Vec<String> = Vec::with_capacity(texts.len());
        for text in texts {
            if !good(text) {
                return Err(Fault::Bad(format!("{name} must hold only {wanted}")));
            }
            if !kept.iter().any(|known| known == text) {
                kept.push(text.to_owned());
            }
        }
        Ok(Some(kept))
    })
}

/// A number that has no default but "none".
fn limit(fields: &Fields, name: &'static str, least: u32) -> Result<Option<Option<u32>>, Fault> {
    or_default(fields, name, None, |fields, name| Ok(Some(fields.integer(name, least..=LIMIT_MAX)?)))
}

/// A balance: an integer from 0, or `"unlimited"`.
fn credits(fields: &Fields, name: &str) -> Result<Option<Option<i64>>, Fault> {
    if fields.text(name) == Ok(Some("unlimited")) {
        return Ok(Some(None));
    }
    Ok(Some(fields.signed(name, 0..=i64::from(LIMIT_MAX))?))
}

fn recording(fields: &Fields, name: &str) -> Result<Option<RecordingMode>, Fault> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    let wrong = || Fault::Bad(format!("{name} must be always, off or on_request"));
    RecordingMode::from_text(text).map(Some).ok_or_else(wrong)
}

fn moment(fields: &Fields, name: &str, now: Timestamp) -> Result<Option<Option<Timestamp>>, Fault> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    let at = Timestamp::from_iso(text).filter(|at| *at > now);
    let wrong = || Fault::Bad(format!("{name} must be an ISO 8601 moment or day in the future"));
    at.map(|at| Some(Some(at))).ok_or_else(wrong)
}

/// `"all"` or a list of names; `null`: none.
pub(super) fn trunks(fields: &Fields) -> Result<Option<TrunkChoice>, Fault> {
    or_default(fields, "trunks", TrunkChoice::None, |fields, name| {
        if let Ok(Some(text)) = fields.text(name) {
            let wrong = || Fault::Bad(format!("{name} must be \"all\" or a list of names"));
            return (text == "all").then_some(Some(TrunkChoice::All)).ok_or_else(wrong);
        }
        let Some(names) = fields.texts(name, LIST_MAX)? else { return Ok(None) };
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        Ok(Some(if names.is_empty() { TrunkChoice::None } else { TrunkChoice::Names(names) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    const NOW: Timestamp = Timestamp(1_771_322_520_000);

    fn read(body: &str) -> Result<Changes, Fault> {
        Changes::read(&Fields::read(body.as_bytes()).unwrap(), NOW)
    }

    fn made(body: &str) -> NewKey {
        read(body).unwrap().into_new().unwrap()
    }

    #[test]
    fn a_name_is_enough() {
        assert_eq!(made(r#"{"name":"shop"}"#), NewKey::named("shop"));
        let all_null = r#"{"name":"shop","tenant":null,"trunks":null,"credits":null,"rateLimit":null,"plan":null,
            "maxConcurrent":null,"recording":null,"keepDays":null,"callerIds":null,"ipAllow":null,"scopes":null,"surfaces":null,
            "countries":null,"allowPremium":null,"allowEmergency":null,"dailyCredits":null,"callsPerMinute":null,
            "expiresAt":null}"#;
        assert_eq!(made(all_null), NewKey::named("shop"));
        assert!(read("{}").unwrap().into_new().is_err());
    }

    #[test]
    fn every_setting_is_read() {
        let key = made(
            r#"{"name":"shop","tenant":"TA","trunks":["a","b"],"credits":10,"rateLimit":7,"plan":"starter",
            "maxConcurrent":3,"recording":"off","keepDays":14,"callerIds":["+14155550100","anonymous"],"ipAllow":["10.0.0.0/8"],
            "scopes":["calls"],"surfaces":["kaphila"],"countries":["49","1","49"],"allowPremium":true,
            "allowEmergency":true,"dailyCredits":5,"callsPerMinute":6,"expiresAt":"2026-03-01"}"#,
        );
        assert_eq!((key.tenant.as_str(), key.credits, key.rate_limit), ("TA", Some(10), Some(7)));
        assert_eq!(key.trunks, TrunkChoice::Names(vec!["a".into(), "b".into()]));
        assert_eq!((key.plan.as_str(), key.max_concurrent), ("starter", 3));
        assert_eq!((key.recording, key.keep_days), (RecordingMode::Off, Some(14)));
        assert_eq!(key.caller_ids.len(), 2);
        assert_eq!(
            (key.ip_allow.as_slice(), key.scopes.as_slice()),
            (&["10.0.0.0/8".to_owned()][..], &["calls".to_owned()][..])
        );
        assert_eq!(key.policy.countries, ["49", "1"]);
        assert!(key.policy.premium && key.policy.emergency);
        assert_eq!((key.policy.daily_credits, key.policy.calls_per_minute), (Some(5), Some(6)));
        assert_eq!(key.expires_at, Timestamp::from_iso("2026-03-01"));
        assert_eq!(made(r#"{"name":"a","trunks":"all","credits":"unlimited"}"#).trunks, TrunkChoice::All);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (name, value) in [
            ("name", r#""""#),
            ("name", "1"),
            ("tenant", r#""a b""#),
            ("trunks", r#""some""#),
            ("trunks", "[1]"),
            ("credits", "-1"),
            ("credits", "1.5"),
            ("credits", r#""many""#),
            ("rateLimit", "0"),
            ("plan", r#""gold""#),
            ("maxConcurrent", "0"),
            ("recording", r#""maybe""#),
            ("keepDays", "-1"),
            ("keepDays", "36501"),
            ("callerIds", r#"["abc"]"#),
            ("callerIds", r#""+14155550100""#),
            ("ipAllow", r#"["10.0.0.0/99"]"#),
            ("scopes", r#"["everything"]"#),
            ("surfaces", r#"["telex"]"#),
            ("countries", r#"["+49"]"#),
            ("allowPremium", r#""yes""#),
            ("dailyCredits", "-1"),
            ("callsPerMinute", "-1"),
            ("expiresAt", r#""2020-01-01""#),
            ("expiresAt", r#""soon""#),
        ] {
            match read(&format!(r#"{{"{name}":{value}}}"#)) {
                Err(Fault::Bad(text)) => assert!(text.starts_with(name), "{text}"),
                other => panic!("{name} {value}: {other:?}"),
            }
        }
    }

    #[test]
    fn bodies_are_documented_as_they_are_read() {
        documented_as_read::<Changes, _>("{}", |body| Changes::read(&Fields::read(body)?, NOW));
    }
}

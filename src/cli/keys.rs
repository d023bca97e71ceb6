//! `trunkline keys create|set|list|revoke|rotate|credit`.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, table};
use crate::model::account::{ApiKey, Policy, RecordingMode};
use crate::model::cidr::Cidr;
use crate::model::{CallerId, Timestamp, forms};
use crate::store::Db;
use crate::store::accounts::{CreatedKey, KEEP_DAYS_MAX, NewKey, SCOPES, SURFACES, TrunkChoice};

/// API keys.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum KeysCommand {
    /// Make a key; its secret is printed once.
    Create(Box<CreateArgs>),
    /// Change a key's settings; what is not said stays.
    Set {
        /// `key_…`
        key_id: String,
        /// Days that its recordings are kept, 0 for ever, or `default` for what the configuration says.
        #[arg(long)]
        keep_days: KeepDays,
    },
    /// Print every key, without secrets.
    List,
    /// End a key now; calls under way go on.
    Revoke {
        /// `key_…`
        key_id: String,
    },
    /// Give a key a new secret and a new webhook secret; the old ones work for 24 hours more.
    Rotate {
        /// `key_…`
        key_id: String,
    },
    /// Add to a key's credits, or take from them.
    Credit {
        /// `key_…`
        key_id: String,
        /// `+N` or `-N`
        #[arg(allow_negative_numbers = true)]
        delta: i64,
    },
}

#[derive(Clone, Debug, Args)]
struct CreateArgs {
    /// A name for people.
    #[arg(value_parser = parse_name)]
    name: String,
    /// Answered calls it may make: a number, or `unlimited`.
    #[arg(long, default_value = "unlimited")]
    credits: Credits,
    /// Requests an hour on the call routes (100 unless said).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,
    /// Trunks in the order they are tried, or `all`; none unless said.
    #[arg(long, value_delimiter = ',')]
    trunks: Vec<String>,
    /// A tenant's id or subdomain; made where it is missing.
    #[arg(long, default_value = "default", value_parser = parse_tenant)]
    tenant: String,
    /// Plan limits of `/api/v1`.
    #[arg(long, default_value = "enterprise", value_parser = ["starter", "professional", "business", "enterprise"])]
    plan: String,
    /// Live calls at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: u32,
    /// Which calls are recorded: `always`, `off` or `on_request`.
    #[arg(long, default_value = "always", value_parser = parse_recording)]
    recording: RecordingMode,
    /// Days that its recordings are kept, 0 for ever; what the configuration says unless said.
    #[arg(long, default_value = "default")]
    keep_days: KeepDays,
    /// Caller ids it may show; any unless said.
    #[arg(long, value_delimiter = ',', value_parser = parse_caller)]
    caller_ids: Vec<CallerId>,
    /// A network it may come from; may be repeated; anywhere unless said.
    #[arg(long, value_delimiter = ',', value_parser = parse_network)]
    ip_allow: Vec<String>,
    /// What it may do; all but `admin` unless said.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(SCOPES))]
    scopes: Vec<String>,
    /// Add the scope `admin`.
    #[arg(long)]
    admin: bool,
    /// Surfaces it is good for; all unless said.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(SURFACES))]
    surfaces: Vec<String>,
    /// Country calling codes that it may call; any unless said.
    #[arg(long, value_delimiter = ',', value_parser = parse_country)]
    countries: Vec<String>,
    /// It may call premium-rate numbers.
    #[arg(long)]
    allow_premium: bool,
    /// It may call emergency numbers.
    #[arg(long)]
    allow_emergency: bool,
    /// Credits that its calls of one UTC day may take.
    #[arg(long)]
    daily_credits: Option<u32>,
    /// Calls that it may place in any 60 seconds.
    #[arg(long)]
    calls_per_minute: Option<u32>,
    /// Not accepted from then on: a moment such as 2027-01-01T12:00:00Z, or a day.
    #[arg(long, value_parser = parse_moment)]
    expires: Option<Timestamp>,
}

/// A balance: a number from 0, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credits(Option<i64>);

impl FromStr for Credits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let number = text.parse().ok().filter(|number: &i64| *number >= 0);
        number.map(|number| Self(Some(number))).ok_or_else(|| "a number from 0, or `unlimited`".to_owned())
    }
}

/// How long recordings are kept: days, 0 for ever, or as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeepDays(Option<u32>);

impl FromStr for KeepDays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Self(None));
        }
        let days = text.parse().ok().filter(|days: &u32| *days <= KEEP_DAYS_MAX);
        days.map(|days| Self(Some(days))).ok_or_else(|| format!("0 to {KEEP_DAYS_MAX}, or `default`"))
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    forms::is_label(text).then(|| text.to_owned()).ok_or_else(|| "1 to 100 characters".to_owned())
}

pub(super) fn parse_tenant(text: &str) -> Result<String, String> {
    forms::is_tenant(text).then(|| text.to_owned()).ok_or_else(|| "1 to 64 of A-Z a-z 0-9 - _".to_owned())
}

fn parse_country(text: &str) -> Result<String, String> {
    let code = text.strip_prefix('+').unwrap_or(text);
    forms::is_leading_digits(code).then(|| code.to_owned()).ok_or_else(|| "digits such as 49".to_owned())
}

fn parse_moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_iso(text).ok_or_else(|| "an ISO 8601 moment or day".to_owned())
}

fn parse_recording(text: &str) -> Result<RecordingMode, String> {
    RecordingMode::from_text(text).ok_or_else(|| "`always`, `off` or `on_request`".to_owned())
}

fn parse_caller(text: &str) -> Result<CallerId, String> {
    CallerId::parse(text).ok_or_else(|| "3 to 15 digits, with or without `+`, or `anonymous`".to_owned())
}

fn parse_network(text: &str) -> Result<String, String> {
    text.parse::<Cidr>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl CreateArgs {
    fn into_new_key(self) -> NewKey {
        let defaults = NewKey::named(&self.name);
        let mut scopes = if self.scopes.is_empty() { defaults.scopes.clone() } else { self.scopes };
        if self.admin && !scopes.iter().any(|scope| scope == "admin") {
            scopes.push("admin".to_owned());
        }
        let names: Vec<String> = self.trunks.into_iter().filter(|name| !name.is_empty()).collect();
        let trunks = match names.as_slice() {
            [] => TrunkChoice::None,
            [all] if all == "all" => TrunkChoice::All,
            _ => TrunkChoice::Names(names),
        };
        NewKey {
            tenant: self.tenant,
            credits: self.credits.0,
            rate_limit: self.rate_limit,
            trunks,
            max_concurrent: self.max_concurrent,
            recording: self.recording,
            keep_days: self.keep_days.0,
            caller_ids: self.caller_ids,
            ip_allow: self.ip_allow,
            scopes,
            surfaces: self.surfaces,
            policy: Policy {
                countries: self.countries,
                premium: self.allow_premium,
                emergency: self.allow_emergency,
                daily_credits: self.daily_credits,
                calls_per_minute: self.calls_per_minute,
            },
            expires_at: self.expires,
            plan: self.plan,
            ..defaults
        }
    }
}

/// Does what was asked and returns what is to be printed.
pub(super) async fn run(args: KeysArgs, db: &Db, at: Timestamp) -> Result<String, CliError> {
    let json = args.json;
    match args.command {
        KeysCommand::Create(create) => {
            let created = db.create_key(create.into_new_key(), at).await?;
            let trunks = db.trunk_names(created.key.id).await?;
            Ok(show_secret(&created, &trunks, json))
        }
        KeysCommand::Rotate { key_id } => {
            let rotated = db.rotate_key(&key_id, at).await?;
            let trunks = db.trunk_names(rotated.key.id).await?;
            Ok(show_secret(&rotated, &trunks, json))
        }
        KeysCommand::Set { key_id, keep_days: KeepDays(days) } => {
            let key = db.change_key(&key_id, at, |key| key.keep_days = days, None).await?;
            let trunks = db.trunk_names(key.id).await?;
            let text = format!("{key_id} keeps its recordings: {}", kept_text(&key));
            Ok(if json { describe(&key, &trunks).to_string() } else { text })
        }
        KeysCommand::List => list(db, json).await,
        KeysCommand::Revoke { key_id } => {
            db.revoke_key(&key_id, at).await?;
            let text = format!("{key_id} is revoked");
            Ok(if json { json!({ "keyId": key_id, "revoked": true }).to_string() } else { text })
        }
        KeysCommand::Credit { key_id, delta } => {
            let credits = db.add_credit(&key_id, delta, at).await?;
            let text = format!("{key_id} has {credits} credits");
            Ok(if json { json!({ "keyId": key_id, "credits": credits }).to_string() } else { text })
        }
    }
}

async fn list(db: &Db, json: bool) -> Result<String, CliError> {
    let mut keys = Vec::new();
    for key in db.keys().await? {
        let trunks = db.trunk_names(key.id).await?;
        keys.push((key, trunks));
    }
    if json {
        let all = keys.iter().map(|(key, trunks)| describe(key, trunks)).collect();
        return Ok(Value::Array(all).to_string());
    }
    if keys.is_empty() {
        return Ok("no keys yet: trunkline keys create NAME --trunks all".to_owned());
    }
    let heading = ["KEY ID", "NAME", "TENANT", "CREDITS", "CALLS", "TRUNKS", "RECORDINGS KEPT", "STATE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|(key, trunks)| {
        let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
        vec![
            key.key_id.clone(),
            key.name.clone(),
            key.tenant.clone(),
            credits_text(key),
            key.total_calls.to_string(),
            trunks_text(trunks),
            kept_text(key),
            state.to_owned(),
        ]
    }));
    Ok(table(&rows))
}

/// A key with its secrets, the one time that they are shown.
fn show_secret(created: &CreatedKey, trunks: &TrunkChoice, json: bool) -> String {
    let key = &created.key;
    if json {
        let mut value = describe(key, trunks);
        value["key"] = json!(created.secret);
        value["webhookSecret"] = json!(key.webhook_secret.0);
        return value.to_string();
    }
    let rows = [
        ("key", created.secret.clone()),
        ("webhook secret", key.webhook_secret.0.clone()),
        ("key id", key.key_id.clone()),
        ("name", key.name.clone()),
        ("tenant", key.tenant.clone()),
        ("credits", credits_text(key)),
        ("trunks", trunks_text(trunks)),
    ];
    let lines = table(&rows.map(|(what, value)| vec![what.to_owned(), value]));
    format!("{lines}\n\nThe key and the webhook secret are not shown again.")
}

fn describe(key: &ApiKey, trunks: &TrunkChoice) -> Value {
    let trunks = match trunks {
        TrunkChoice::None => json!([]),
        TrunkChoice::All => json!("all"),
        TrunkChoice::Names(names) => json!(names),
    };
    let callers: Vec<&str> = key.caller_ids.iter().map(CallerId::user).collect();
    json!({
        "id": key.id,
        "keyId": key.key_id,
        "name": key.name,
        "tenant": key.tenant,
        "credits": key.credits,
        "rateLimit": key.rate_limit,
        "maxConcurrent": key.max_concurrent,
        "recording": key.recording.as_str(),
        "keepDays": key.keep_days,
        "trunks": trunks,
        "callerIds": callers,
        "ipAllow": key.ip_allow,
        "scopes": key.scopes,
        "surfaces": key.surfaces,
        "plan": key.plan,
        "countries": key.policy.countries,
        "allowPremium": key.policy.premium,
        "allowEmergency": key.policy.emergency,
        "dailyCredits": key.policy.daily_credits,
        "callsPerMinute": key.policy.calls_per_minute,
        "expiresAt": key.expires_at.map(Timestamp::iso_ms),
        "totalCalls": key.total_calls,
        "successfulCalls": key.successful_calls,
        "createdAt": key.created_at.iso_ms(),
        "lastUsed": key.last_used.map(Timestamp::iso_ms),
        "revokedAt": key.revoked_at.map(Timestamp::iso_ms),
    })
}

fn credits_text(key: &ApiKey) -> String {
    key.credits.map_or_else(|| "unlimited".to_owned(), |credits| credits.to_string())
}

fn kept_text(key: &ApiKey) -> String {
    match key.keep_days {
        None => "as configured".to_owned(),
        Some(0) => "for ever".to_owned(),
        Some(days) => format!("{days} days"),
    }
}

fn trunks_text(trunks: &TrunkChoice) -> String {
    match trunks {
        TrunkChoice::None => "none".to_owned(),
        TrunkChoice::All => "all".to_owned(),
        TrunkChoice::Names(names) => names.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keys: KeysArgs,
    }

    fn parse(words: &[&str]) -> Result<KeysArgs, clap::Error> {
        Line::try_parse_from(["keys"].iter().chain(words)).map(|line| line.keys)
    }

    fn new_key(words: &[&str]) -> NewKey {
        match parse(words).unwrap().command {
            KeysCommand::Create(create) => create.into_new_key(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        assert_eq!(new_key(&["create", "shop"]), NewKey::named("shop"));
    }

    #[test]
    fn every_option_is_read() {
        let key = new_key(&[
            "create",
            "shop",
            "--credits",
            "10",
            "--rate-limit",
            "7",
            "--trunks",
            "a,b",
            "--tenant",
            "TA",
            "--plan",
            "starter",
            "--max-concurrent",
            "3",
            "--recording",
            "on_request",
            "--keep-days=90",
            "--caller-ids",
            "+14155550100,anonymous",
            "--ip-allow",
            "10.0.0.0/8",
            "--ip-allow",
            "::1",
            "--scopes",
            "calls,recordings",
            "--admin",
            "--surfaces",
            "kaphila,phony",
            "--countries",
            "1,+49",
            "--allow-premium",
            "--allow-emergency",
            "--daily-credits",
            "20",
            "--calls-per-minute",
            "5",
            "--expires",
            "2027-01-01",
            "--json",
        ]);
        assert_eq!(
            key,
            NewKey {
                name: "shop".into(),
                tenant: "TA".into(),
                credits: Some(10),
                rate_limit: Some(7),
                trunks: TrunkChoice::Names(vec!["a".into(), "b".into()]),
                max_concurrent: 3,
                recording: RecordingMode::OnRequest,
                keep_days: Some(90),
                caller_ids: vec![CallerId::Number("+14155550100".into()), CallerId::Anonymous],
                ip_allow: vec!["10.0.0.0/8".into(), "::1".into()],
                scopes: vec!["calls".into(), "recordings".into(), "admin".into()],
                surfaces: vec!["kaphila".into(), "phony".into()],
                policy: Policy {
                    countries: vec!["1".into(), "49".into()],
                    premium: true,
                    emergency: true,
                    daily_credits: Some(20),
                    calls_per_minute: Some(5),
                },
                expires_at: Timestamp::from_iso("2027-01-01"),
                plan: "starter".into(),
            }
        );
        assert_eq!(new_key(&["create", "a", "--trunks", "all"]).trunks, TrunkChoice::All);
    }

    #[test]
    fn wrong_values_are_refused() {
        for words in [
            &["create"][..],
            &["create", "a", "--credits", "-1"],
            &["create", "a", "--credits", "many"],
            &["create", "a", "--rate-limit", "0"],
            &["create", "a", "--plan", "gold"],
            &["create", "a", "--recording", "maybe"],
            &["create", "a", "--keep-days", "-1"],
            &["create", "a", "--keep-days", "36501"],
            &["set", "key_1"],
            &["create", "a", "--caller-ids", "abc"],
            &["create", "a", "--ip-allow", "10.0.0.0/99"],
            &["create", "a", "--scopes", "everything"],
            &["create", "a", "--surfaces", "telex"],
            &["create", "a", "--countries", "0"],
            &["create", "a", "--daily-credits", "-1"],
            &["create", "a", "--calls-per-minute", "few"],
            &["create", "a", "--expires", "soon"],
            &["create", "a", "--tenant", "a b"],
            &["create", "a\nb"],
            &["credit", "key_1", "lots"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    /// A database that goes when the test ends.
    struct Scratch(std::path::PathBuf, Db);

    impl Scratch {
        async fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("trunkline-cli-keys-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let db = Db::open(&format!("sqlite://{}", dir.join("test.db").display())).await.unwrap();
            Self(dir, db)
        }

        async fn json(&self, words: &[&str]) -> Result<Value, CliError> {
            let args = parse(&[words, &["--json"]].concat()).unwrap();
            let text = run(args, &self.1, Timestamp(1_771_322_520_000)).await?;
            Ok(serde_json::from_str(&text).unwrap())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_key_lives_through_every_command() {
        let scratch = Scratch::new().await;
        let made = scratch.json(&["create", "shop", "--credits", "10"]).await.unwrap();
        let (id, key) = (made["keyId"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert!(made["id"] == 1 && key.starts_with("ak_") && key.len() == 35, "{made}");
        assert!(made["webhookSecret"].as_str().unwrap().starts_with("whsec_"));
        assert_eq!(
            (&made["name"], &made["tenant"], &made["credits"]),
            (&json!("shop"), &json!("default"), &json!(10))
        );

        let credited = scratch.json(&["credit", id, "-3"]).await.unwrap();
        assert_eq!(credited, json!({ "keyId": id, "credits": 7 }));
        assert_eq!(made["keepDays"], Value::Null);
        for (days, shown) in [("14", json!(14)), ("0", json!(0)), ("default", Value::Null), ("7", json!(7))] {
            let set = scratch.json(&["set", id, "--keep-days", days]).await.unwrap();
            assert_eq!((&set["keepDays"], &set["credits"]), (&shown, &json!(7)));
        }
        assert!(scratch.json(&["set", "key_none", "--keep-days", "1"]).await.is_err());
        let rotated = scratch.json(&["rotate", id]).await.unwrap();
        assert!(rotated["keyId"] == made["keyId"] && rotated["key"] != made["key"]);
        assert_ne!(rotated["webhookSecret"], made["webhookSecret"]);
        assert_eq!(scratch.json(&["revoke", id]).await.unwrap(), json!({ "keyId": id, "revoked": true }));
        let list = scratch.json(&["list"]).await.unwrap();
        assert_eq!((list[0]["credits"].as_i64(), list[0]["revokedAt"].is_string()), (Some(7), true));
        assert!(list[0].get("key").is_none() && list[0].get("webhookSecret").is_none(), "{list}");

        let unknown = scratch.json(&["create", "x", "--trunks", "nine,ten"]).await.unwrap_err();
        assert_eq!(unknown.to_string(), "unknown trunk: nine, ten");
        let text = run(parse(&["list"]).unwrap(), &scratch.1, Timestamp(0)).await.unwrap();
        assert!(text.contains("shop") && text.contains("7 days") && text.contains("revoked"), "{text}");
    }

    #[test]
    fn credits_move_both_ways() {
        for (text, wanted) in [("+5", 5), ("-3", -3), ("7", 7)] {
            match parse(&["credit", "key_1", text]).unwrap().command {
                KeysCommand::Credit { delta, .. } => assert_eq!(delta, wanted),
                other => panic!("{other:?}"),
            }
        }
    }
}

//! Trunks and which keys may dial by them.

use serde_json::{Value, json};

use super::audit::By;
use super::sql::{Row, column, flag, join, split, sql};
use super::{Db, StoreError, Tx};
use crate::config::TrunkConfig;
use crate::model::account::Trunk;
use crate::model::proxy::Proxy;
use crate::model::trunk::{NumberFormat, Policy, TrunkProfile};
use crate::model::{CallerId, Secret};

/// A trunk to be made or changed; its name says which.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTrunk {
    /// 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// `sip:host[:port][;transport=udp|tcp|tls] or sips:host[:port]`.
    pub proxy: String,
    /// Digest user; empty: none.
    pub username: String,
    /// Digest password.
    pub password: Secret,
    /// Put before the number: digits, `+`, `*`, `#`, at most 16.
    pub dial_prefix: String,
    /// Shown where the call has no caller id.
    pub caller_id: Option<CallerId>,
    /// SDP names in order.
    pub codecs: Vec<String>,
    /// No response in this time: next trunk.
    pub no_response_timeout_ms: u32,
    /// How it wants to be dialled.
    pub profile: TrunkProfile,
}

/// A trunk setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trunk {name:?}: {what}")]
pub struct TrunkInvalid {
    /// The trunk.
    pub name: String,
    /// The setting and what is wrong with it.
    pub what: String,
}

impl TryFrom<&TrunkConfig> for NewTrunk {
    type Error = TrunkInvalid;

    fn try_from(config: &TrunkConfig) -> Result<Self, TrunkInvalid> {
        let wrong = |what: &str| TrunkInvalid { name: config.name.clone(), what: what.to_owned() };
        let require = |good: bool, what: &str| if good { Ok(()) } else { Err(wrong(what)) };
        require(is_name(&config.name), "name must be 1 to 64 of A-Z a-z 0-9 _ . -")?;
        require(
            is_proxy(&config.proxy),
            "proxy must be sip:host[:port][;transport=udp|tcp|tls] or sips:host[:port]",
        )?;
        require(is_printable(&config.username), "username must be printable ASCII")?;
        let prefix = config.dial_prefix.len() <= 16
            && config.dial_prefix.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b));
        require(prefix, "dial_prefix must be at most 16 digits")?;
        let codec = |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        require(!config.codecs.is_empty() && config.codecs.iter().all(codec), "codecs must be SDP names")?;
        let caller_id = match config.caller_id.as_str() {
            "" => None,
            text => Some(CallerId::parse(text).ok_or_else(|| wrong("caller_id must be 3 to 15 digits"))?),
        };
        let profile = config.profile().map_err(|error| wrong(&error.to_string()))?;
        Ok(Self {
            profile,
            name: config.name.clone(),
            proxy: config.proxy.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            dial_prefix: config.dial_prefix.clone(),
            caller_id,
            codecs: config.codecs.clone(),
            no_response_timeout_ms: config.no_response_timeout_ms,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_printable(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// The form only; the name in it is resolved when a call is placed.
fn is_proxy(text: &str) -> bool {
    Proxy::read(text).is_some()
}

impl Db {
    /// Makes a trunk, or changes the one of that name and enables it: the configuration file speaks.
    pub async fn upsert_trunk(&self, new: &NewTrunk) -> Result<Trunk, StoreError> {
        self.save_trunk(new, true, By::config(crate::clock::now().wall)).await
    }

    /// Makes a trunk, or changes the one of that name. What changes nothing is not written down.
    pub async fn save_trunk(
        &self,
        new: &NewTrunk,
        enabled: bool,
        by: impl Into<By>,
    ) -> Result<Trunk, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let known = tx.optional(sql("SELECT * FROM trunks WHERE name = $1").bind(&new.name)).await?;
        let before = known.as_ref().map(read_trunk).transpose()?;
        let id = match &before {
            Some(trunk) => trunk.id,
            None => tx.count("trunks").await?,
        };
        let row = tx
            .one(
                sql("INSERT INTO trunks (id, name, proxy, username, password, dial_prefix, caller_id, codecs, \
                 no_response_timeout_ms, profile, enabled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                 ON CONFLICT (name) DO UPDATE SET proxy = excluded.proxy, username = excluded.username, \
                 password = excluded.password, dial_prefix = excluded.dial_prefix, \
                 caller_id = excluded.caller_id, codecs = excluded.codecs, \
                 no_response_timeout_ms = excluded.no_response_timeout_ms, profile = excluded.profile, \
                 enabled = excluded.enabled RETURNING *")
                .bind(id)
                .bind(&new.name)
                .bind(&new.proxy)
                .bind(&new.username)
                .bind(&new.password.0)
                .bind(&new.dial_prefix)
                .bind(new.caller_id.as_ref().map(CallerId::user))
                .bind(join(&new.codecs))
                .bind(i64::from(new.no_response_timeout_ms))
                .bind(write_profile(&new.profile)?)
                .bind(enabled),
            )
            .await?;
        let trunk = read_trunk(&row)?;
        if before.as_ref() != Some(&trunk) {
            let action = if before.is_some() { "trunk.change" } else { "trunk.create" };
            tx.audit(&by, action, &trunk.name, &changed(before.as_ref(), &trunk)).await?;
        }
        tx.commit().await?;
        Ok(trunk)
    }

    /// Every trunk, oldest first.
    pub async fn trunks(&self) -> Result<Vec<Trunk>, StoreError> {
        let rows = self.all(sql("SELECT * FROM trunks ORDER BY id")).await?;
        rows.iter().map(read_trunk).collect()
    }

    /// Removes a trunk and its place in every key's list; `false` if there is none of that name.
    pub async fn remove_trunk(&self, name: &str, by: impl Into<By>) -> Result<bool, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let done = tx.run(sql("DELETE FROM trunks WHERE name = $1").bind(name)).await?;
        if done > 0 {
            tx.audit(&by, "trunk.remove", name, &json!({})).await?;
        }
        tx.commit().await?;
        Ok(done > 0)
    }

    /// The trunk of a name.
    pub async fn trunk(&self, name: &str) -> Result<Option<Trunk>, StoreError> {
        let row = self.optional(sql("SELECT * FROM trunks WHERE name = $1").bind(name)).await?;
        row.as_ref().map(read_trunk).transpose()
    }

    /// Which of a key's trunks comes first.
    pub async fn trunk_policy(&self, key: i64) -> Result<Policy, StoreError> {
        let row = self.optional(sql("SELECT trunk_policy FROM api_keys WHERE id = $1").bind(key)).await?;
        let Some(row) = row else { return Ok(Policy::default()) };
        Policy::from_text(&column::<String>(&row, "trunk_policy")?)
            .ok_or(StoreError::Unreadable("api_keys.trunk_policy"))
    }

    /// Changes which of a key's trunks comes first, by the key's id as `keys list` prints it; `false` if there is
    /// none of that id.
    pub async fn set_trunk_policy(
        &self,
        key_id: &str,
        policy: Policy,
        by: impl Into<By>,
    ) -> Result<bool, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let statement = sql("UPDATE api_keys SET trunk_policy = $2 WHERE key_id = $1");
        let done = tx.run(statement.bind(key_id).bind(policy.as_str())).await?;
        if done > 0 {
            tx.audit(&by, "key.change", key_id, &json!({ "trunkPolicy": policy.as_str() })).await?;
        }
        tx.commit().await?;
        Ok(done > 0)
    }

    /// The enabled trunks of a key in its order; a key made for all trunks sees all, oldest first.
    pub async fn key_trunks(&self, key: i64) -> Result<Vec<Trunk>, StoreError> {
        let rows = self
            .all(
                sql("SELECT t.* FROM trunks t JOIN api_keys k ON k.id = $1 \
             LEFT JOIN key_trunks kt ON kt.trunk = t.id AND kt.api_key = k.id \
             WHERE t.enabled = 1 AND (k.all_trunks = 1 OR kt.trunk IS NOT NULL) \
             ORDER BY COALESCE(kt.position, 0), t.id")
                .bind(key),
            )
            .await?;
        rows.iter().map(read_trunk).collect()
    }

    /// What `keys list` prints of a key's trunks: `all`, or the names in order.
    pub async fn trunk_names(&self, key: i64) -> Result<super::accounts::TrunkChoice, StoreError> {
        use super::accounts::TrunkChoice;
        let all = self.optional(sql("SELECT all_trunks FROM api_keys WHERE id = $1").bind(key)).await?;
        if let Some(row) = all
            && flag(&row, "all_trunks")?
        {
            return Ok(TrunkChoice::All);
        }
        let rows = self
            .all(
                sql("SELECT t.name FROM key_trunks kt JOIN trunks t ON t.id = kt.trunk \
             WHERE kt.api_key = $1 ORDER BY kt.position")
                .bind(key),
            )
            .await?;
        let names: Vec<String> = rows.iter().map(|row| column(row, "name")).collect::<Result<_, _>>()?;
        Ok(if names.is_empty() { TrunkChoice::None } else { TrunkChoice::Names(names) })
    }
}

impl Tx {
    /// Gives a key these trunks in this order; all unknown names are told at once.
    pub(super) async fn assign_trunks(&mut self, key: i64, names: &[String]) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        for (position, name) in (0_i64..).zip(names) {
            let done = self.optional(sql(
                "INSERT INTO key_trunks (api_key, trunk, position) SELECT $1, id, $3 FROM trunks WHERE name = $2 \
                 ON CONFLICT (api_key, trunk) DO UPDATE SET position = key_trunks.position RETURNING trunk",
            )
            .bind(key)
            .bind(name)
            .bind(position))
            .await?;
            if done.is_none() {
                unknown.push(name.clone());
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::UnknownTrunks(unknown)) }
    }
}

fn read_trunk(row: &Row) -> Result<Trunk, StoreError> {
    Ok(Trunk {
        id: column(row, "id")?,
        name: column(row, "name")?,
        proxy: column(row, "proxy")?,
        username: column(row, "username")?,
        password: Secret(column(row, "password")?),
        dial_prefix: column(row, "dial_prefix")?,
        caller_id: column::<Option<String>>(row, "caller_id")?.as_deref().and_then(CallerId::parse),
        codecs: split(&column::<String>(row, "codecs")?),
        no_response_timeout_ms: u32::try_from(column::<i64>(row, "no_response_timeout_ms")?)
            .map_err(|_| StoreError::Unreadable("trunks.no_response_timeout_ms"))?,
        profile: serde_json::from_str(&column::<String>(row, "profile")?)
            .map_err(|_| StoreError::Unreadable("trunks.profile"))?,
        enabled: flag(row, "enabled")?,
    })
}

/// A trunk as operators see it, without its password: every setting by its name in camel case (CONTRACT 0.8).
pub fn describe(trunk: &Trunk) -> Value {
    let profile = &trunk.profile;
    json!({
        "id": trunk.id,
        "name": trunk.name,
        "endpoint": format!("{}-endpoint", trunk.name),
        "proxy": trunk.proxy,
        "username": trunk.username,
        "hasPassword": !trunk.password.0.is_empty(),
        "dialPrefix": trunk.dial_prefix,
        "callerId": trunk.caller_id.as_ref().map(CallerId::user),
        "codecs": trunk.codecs,
        "noResponseTimeoutMs": trunk.no_response_timeout_ms,
        "maxCalls": profile.max_calls,
        "callsPerSecond": profile.calls_per_second,
        "sourceCidrs": profile.source_cidrs,
        "register": profile.register,
        "registerExpiresS": profile.register_expires_s,
        "authInbound": profile.auth_inbound,
        "srtp": profile.srtp.as_str(),
        "dtmf": profile.dtmf.as_str(),
        "numberFormat": profile.number_format.as_str(),
        "countryCode": profile.country_code,
        "callerIdFormat": profile.caller_id_format.as_ref().map(NumberFormat::as_str),
        "fromUser": profile.from_user,
        "fromDomain": profile.from_domain,
        "identity": profile.identity,
        "diversion": profile.diversion,
        "priority": profile.priority,
        "weight": profile.weight,
        "externalAddress": profile.external_address,
        "mediaAddress": profile.media_address,
        "allowRedirects": profile.allow_redirects,
        "optionsIntervalS": profile.options_interval_s,
        "enabled": trunk.enabled,
    })
}

/// The settings that a trunk was made from, its password with them.
impl From<&Trunk> for TrunkConfig {
    fn from(trunk: &Trunk) -> Self {
        let profile = &trunk.profile;
        let address = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        Self {
            name: trunk.name.clone(),
            proxy: trunk.proxy.clone(),
            username: trunk.username.clone(),
            password: trunk.password.clone(),
            dial_prefix: trunk.dial_prefix.clone(),
            caller_id: trunk.caller_id.as_ref().map(CallerId::user).unwrap_or_default().to_owned(),
            codecs: trunk.codecs.clone(),
            no_response_timeout_ms: trunk.no_response_timeout_ms,
            max_calls: profile.max_calls,
            calls_per_second: profile.calls_per_second,
            source_cidrs: profile.source_cidrs.clone(),
            register: profile.register,
            register_expires_s: profile.register_expires_s,
            auth_inbound: profile.auth_inbound,
            srtp: profile.srtp.as_str().into(),
            dtmf: profile.dtmf.as_str().into(),
            number_format: profile.number_format.as_str().into(),
            country_code: profile.country_code.clone(),
            caller_id_format: profile.caller_id_format.as_ref().map_or("", NumberFormat::as_str).into(),
            from_user: profile.from_user.clone(),
            from_domain: profile.from_domain.clone(),
            identity: profile.identity.iter().map(|identity| identity.as_str().to_owned()).collect(),
            diversion: profile.diversion.clone(),
            priority: profile.priority,
            weight: profile.weight,
            external_address: address(profile.external_address),
            media_address: address(profile.media_address),
            allow_redirects: profile.allow_redirects,
            options_interval_s: profile.options_interval_s,
        }
    }
}

/// The settings that differ, by name, as they are now. Whether the password is among them is said, never what it is.
fn changed(before: Option<&Trunk>, after: &Trunk) -> Value {
    let old = before.map(describe);
    let mut news = serde_json::Map::new();
    if let Value::Object(members) = describe(after) {
        let is_new = |name: &str, value: &Value| old.as_ref().is_none_or(|old| old[name] != *value);
        news.extend(members.into_iter().filter(|(name, value)| is_new(name, value)));
    }
    if before.is_some_and(|before| before.password != after.password) {
        news.insert("password".to_owned(), json!("changed"));
    }
    Value::Object(news)
}

fn write_profile(profile: &TrunkProfile) -> Result<String, StoreError> {
    serde_json::to_string(profile).map_err(|_| StoreError::Unreadable("trunks.profile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, proxy: &str) -> TrunkConfig {
        TrunkConfig { name: name.into(), proxy: proxy.into(), ..TrunkConfig::default() }
    }

    #[test]
    fn proxies_are_checked_by_form() {
        for (proxy, good) in [
            ("sip:127.0.0.1:5070;transport=udp", true),
            ("sip:carrier.example", true),
            ("sip:carrier.example:5060", true),
            ("sip:[::1]:5060", true),
            ("sip:[::1]", true),
            ("sip:", false),
            ("sips:carrier.example", true),
            ("sip:user@carrier.example", false),
            ("sip:carrier.example:0", false),
            ("sip:carrier.example:70000", false),
            ("sip:carrier.example;transport=tls", true),
            ("sip:a b", false),
            ("sip:a\r\nb", false),
            ("sip:[::zz]", false),
            ("http://carrier.example", false),
        ] {
            assert_eq!(NewTrunk::try_from(&config("t", proxy)).is_ok(), good, "{proxy}");
        }
    }

    #[test]
    fn other_settings_are_checked_too() {
        let good = config("t", "sip:c");
        for wrong in [
            TrunkConfig { name: "a,b".into(), ..good.clone() },
            TrunkConfig { name: String::new(), ..good.clone() },
            TrunkConfig { caller_id: "abc".into(), ..good.clone() },
            TrunkConfig { codecs: Vec::new(), ..good.clone() },
            TrunkConfig { dial_prefix: "00@x".into(), ..good.clone() },
            TrunkConfig { username: "a\r\nb".into(), ..good.clone() },
        ] {
            assert!(NewTrunk::try_from(&wrong).is_err(), "{wrong:?}");
        }
        let caller = TrunkConfig { caller_id: "+14155550100".into(), ..good };
        let caller_id = NewTrunk::try_from(&caller).unwrap().caller_id;
        assert_eq!(caller_id, Some(CallerId::Number("+14155550100".into())));
    }
}

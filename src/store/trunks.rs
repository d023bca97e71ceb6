//! Trunks and which keys may dial by them.

use sqlx::sqlite::SqliteRow;

use super::{Db, StoreError, Tx, column, flag, join, split};
use crate::config::TrunkConfig;
use crate::model::account::Trunk;
use crate::model::{CallerId, Secret};

/// A trunk to be made or changed; its name says which.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTrunk {
    /// 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// `sip:host[:port][;transport=udp]`.
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
}

/// A trunk setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trunk {name:?}: {what}")]
pub struct TrunkInvalid {
    /// The trunk.
    pub name: String,
    /// The setting and what is wrong with it.
    pub what: &'static str,
}

impl TryFrom<&TrunkConfig> for NewTrunk {
    type Error = TrunkInvalid;

    fn try_from(config: &TrunkConfig) -> Result<Self, TrunkInvalid> {
        let wrong = |what| TrunkInvalid { name: config.name.clone(), what };
        let require = |good: bool, what| if good { Ok(()) } else { Err(wrong(what)) };
        require(is_name(&config.name), "name must be 1 to 64 of A-Z a-z 0-9 _ . -")?;
        require(is_proxy(&config.proxy), "proxy must be sip:host[:port][;transport=udp]")?;
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
        Ok(Self {
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
    let Some(rest) = text.strip_prefix("sip:") else { return false };
    let (address, parameters) = rest.split_once(';').unwrap_or((rest, "transport=udp"));
    let bracketed = address.strip_prefix('[').and_then(|tail| tail.split_once(']'));
    let (host_ok, port) = match bracketed {
        Some((host, "")) => (host.parse::<std::net::Ipv6Addr>().is_ok(), None),
        Some((host, tail)) => {
            (host.parse::<std::net::Ipv6Addr>().is_ok(), Some(tail.trim_start_matches(':')))
        }
        None => {
            let (host, port) = address.split_once(':').map_or((address, None), |(h, p)| (h, Some(p)));
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            ((1..=253).contains(&host.len()) && host.bytes().all(legal), port)
        }
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
    host_ok && port_ok && parameters.eq_ignore_ascii_case("transport=udp")
}

impl Db {
    /// Makes a trunk, or changes the one of that name and enables it.
    pub async fn upsert_trunk(&self, new: &NewTrunk) -> Result<Trunk, StoreError> {
        let mut tx = self.begin().await?;
        let known = sqlx::query("SELECT id FROM trunks WHERE name = $1")
            .bind(&new.name)
            .fetch_optional(&mut *tx.inner)
            .await?;
        let id = match known {
            Some(row) => column(&row, "id")?,
            None => tx.count("trunks").await?,
        };
        let row = sqlx::query(
            "INSERT INTO trunks (id, name, proxy, username, password, dial_prefix, caller_id, codecs, \
             no_response_timeout_ms, enabled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1) \
             ON CONFLICT (name) DO UPDATE SET proxy = excluded.proxy, username = excluded.username, \
             password = excluded.password, dial_prefix = excluded.dial_prefix, caller_id = excluded.caller_id, \
             codecs = excluded.codecs, no_response_timeout_ms = excluded.no_response_timeout_ms, enabled = 1 \
             RETURNING *",
        )
        .bind(id)
        .bind(&new.name)
        .bind(&new.proxy)
        .bind(&new.username)
        .bind(&new.password.0)
        .bind(&new.dial_prefix)
        .bind(new.caller_id.as_ref().map(CallerId::user))
        .bind(join(&new.codecs))
        .bind(i64::from(new.no_response_timeout_ms))
        .fetch_one(&mut *tx.inner)
        .await?;
        let trunk = read_trunk(&row)?;
        tx.commit().await?;
        Ok(trunk)
    }

    /// Every trunk, oldest first.
    pub async fn trunks(&self) -> Result<Vec<Trunk>, StoreError> {
        let rows = sqlx::query("SELECT * FROM trunks ORDER BY id").fetch_all(&self.readers).await?;
        rows.iter().map(read_trunk).collect()
    }

    /// Removes a trunk and its place in every key's list; `false` if there is none of that name.
    pub async fn remove_trunk(&self, name: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("DELETE FROM trunks WHERE name = $1").bind(name).execute(&mut *tx.inner).await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// The enabled trunks of a key in its order; a key made for all trunks sees all, oldest first.
    pub async fn key_trunks(&self, key: i64) -> Result<Vec<Trunk>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.* FROM trunks t JOIN api_keys k ON k.id = $1 \
             LEFT JOIN key_trunks kt ON kt.trunk = t.id AND kt.api_key = k.id \
             WHERE t.enabled = 1 AND (k.all_trunks = 1 OR kt.trunk IS NOT NULL) \
             ORDER BY COALESCE(kt.position, 0), t.id",
        )
        .bind(key)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_trunk).collect()
    }

    /// What `keys list` prints of a key's trunks: `all`, or the names in order.
    pub async fn trunk_names(&self, key: i64) -> Result<super::accounts::TrunkChoice, StoreError> {
        use super::accounts::TrunkChoice;
        let all = sqlx::query("SELECT all_trunks FROM api_keys WHERE id = $1")
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        if let Some(row) = all
            && flag(&row, "all_trunks")?
        {
            return Ok(TrunkChoice::All);
        }
        let rows = sqlx::query(
            "SELECT t.name FROM key_trunks kt JOIN trunks t ON t.id = kt.trunk \
             WHERE kt.api_key = $1 ORDER BY kt.position",
        )
        .bind(key)
        .fetch_all(&self.readers)
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
            let done = sqlx::query(
                "INSERT INTO key_trunks (api_key, trunk, position) SELECT $1, id, $3 FROM trunks WHERE name = $2 \
                 ON CONFLICT (api_key, trunk) DO UPDATE SET position = key_trunks.position RETURNING trunk",
            )
            .bind(key)
            .bind(name)
            .bind(position)
            .fetch_optional(&mut *self.inner)
            .await?;
            if done.is_none() {
                unknown.push(name.clone());
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::UnknownTrunks(unknown)) }
    }
}

fn read_trunk(row: &SqliteRow) -> Result<Trunk, StoreError> {
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
        enabled: flag(row, "enabled")?,
    })
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
            ("sips:carrier.example", false),
            ("sip:user@carrier.example", false),
            ("sip:carrier.example:0", false),
            ("sip:carrier.example:70000", false),
            ("sip:carrier.example;transport=tls", false),
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

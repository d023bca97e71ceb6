//! Who may ask at all: the key, where it comes from, what it is for, and how fast it asks (CONTRACT 0.2, 0.3). The
//! key is compared in the store by its hash; this room sees it once and keeps nothing of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::rate::{Limiter, Minutes, Rate, Windows};
use super::{Caller, Failure, Refusal};
use crate::config::Config;
use crate::model::account::ApiKey;
use crate::model::cidr::Cidr;
use crate::model::{Now, Timestamp};
use crate::store::Db;
use crate::store::accounts::{NewKey, TrunkChoice};

/// Requests an hour for a key that names no number of its own (CONTRACT 1.1).
pub const DEFAULT_RATE_LIMIT: u32 = 100;

/// The public id of the key in whose name Claude Phone is used without one (CONTRACT 1.5).
pub const LOCAL_KEY: &str = "local";

/// Calls of that key at once, and in an hour (CONTRACT 2.1 C4).
const LOCAL_CALLS: u32 = 5;
const LOCAL_CALLS_AN_HOUR: u32 = 60;

/// That key as it is made at the first start: on all trunks, for nothing but placing calls on that surface.
pub fn local_key() -> NewKey {
    NewKey {
        trunks: TrunkChoice::All,
        max_concurrent: LOCAL_CALLS,
        rate_limit: Some(LOCAL_CALLS_AN_HOUR),
        scopes: vec!["calls".to_owned()],
        surfaces: vec!["claude-phone".to_owned()],
        ..NewKey::named(LOCAL_KEY)
    }
}

/// Longest key that is looked up.
const KEY_MAX_CHARS: usize = 256;

/// Hops of `X-Forwarded-For` that are looked at, from the right.
const FORWARDED_MAX_HOPS: usize = 16;

/// The window in which a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// None.
    Not,
    /// Kaphila's six routes (CONTRACT 1.1).
    Kaphila,
    /// Phony's minute and hour (CONTRACT 1.2).
    Phony,
    /// The minute of the key's plan (CONTRACT 1.3).
    Plan,
}

/// What a request shows of its sender.
#[derive(Clone, Debug, Default)]
pub struct Credentials<'a> {
    /// Every `Authorization` header, in order; `None` for one that is not text.
    pub authorization: Vec<Option<&'a str>>,
    /// The TCP peer.
    pub peer: Option<SocketAddr>,
    /// Every `X-Forwarded-For` header, in order.
    pub forwarded_for: Vec<&'a str>,
}

/// The door of every surface.
pub struct Admission {
    config: Arc<Config>,
    db: Db,
    trusted_proxies: Vec<Cidr>,
    guard: Limiter,
    kaphila: Windows,
    plans: Minutes,
    phony_minute: Windows,
    phony_hour: Windows,
}

impl Admission {
    /// A door with empty windows. A trusted proxy that is no network is believed by nobody.
    pub fn new(config: Arc<Config>, db: Db) -> Self {
        let trusted_proxies =
            config.http.trusted_proxies.iter().filter_map(|text| text.parse::<Cidr>().ok()).collect();
        let window = Duration::from_secs(config.ratelimit.kaphila_window_s.max(1));
        let guard = Limiter::new(Duration::from_secs(1));
        let kaphila = Windows::new(db.clone(), "kaphila", window);
        let plans = Minutes::new(db.clone());
        let phony_minute = Windows::new(db.clone(), "phony_minute", Duration::from_secs(60));
        let phony_hour = Windows::new(db.clone(), "phony", Duration::from_secs(3600));
        Self { config, db, trusted_proxies, guard, kaphila, plans, phony_minute, phony_hour }
    }

    /// Finds out who asks, and whether they may do what needs `scope`, on this surface and from where they are.
    pub async fn identify(
        &self,
        shown: &Credentials<'_>,
        surface: Option<&str>,
        scope: Option<&str>,
        now: Now,
    ) -> Result<Caller, Failure> {
        let presented = bearer(&shown.authorization)?;
        let key = self.db.find_key_at(presented, now.wall).await?.ok_or(Refusal::InvalidKey)?;
        self.judged(key, shown, (surface, scope), now)
    }

    /// The same for whoever needs no key, in the name of the one of this public id.
    ///
    /// # Errors
    /// As [`Admission::identify`]; a key that is gone is one that was not shown.
    pub async fn stand_in(
        &self,
        key_id: &str,
        shown: &Credentials<'_>,
        surface: Option<&str>,
        scope: Option<&str>,
        now: Now,
    ) -> Result<Caller, Failure> {
        let good = |key: &ApiKey| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now.wall);
        let key = self.db.key_of_id(key_id).await?.filter(good).ok_or(Refusal::MissingKey)?;
        self.judged(key, shown, (surface, scope), now)
    }

    /// Whether who was let in would be let in now, by the key as it is by now. A database that cannot say so takes
    /// nothing from anybody.
    pub async fn still(&self, caller: &Caller, surface: Option<&str>, scope: Option<&str>, now: Now) -> bool {
        let past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.wall);
        match self.db.key(caller.key.id).await {
            Ok(Some(key)) => {
                !past(key.revoked_at) && !past(key.expires_at) && may_do(&key, (surface, scope), caller.ip)
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Where a request comes from, as far as it can be known.
    pub fn origin(&self, shown: &Credentials<'_>) -> Option<IpAddr> {
        client_ip(shown.peer, &shown.forwarded_for, &self.trusted_proxies)
    }

    /// Whether a good key may do what it asks for, from where it is.
    fn judged(
        &self,
        key: ApiKey,
        shown: &Credentials<'_>,
        (surface, scope): (Option<&str>, Option<&str>),
        now: Now,
    ) -> Result<Caller, Failure> {
        let ip = self.origin(shown);
        if !may_do(&key, (surface, scope), ip) {
            return Err(Refusal::Forbidden.into());
        }
        let guard = self.guard.take(key.id, self.config.limits.requests_per_second_per_key, now.mono);
        if !guard.allowed {
            return Err(Refusal::RateLimited { retry_after_s: guard.retry_after_s() }.into());
        }
        Ok(Caller { key, ip })
    }

    /// Counts one request in its window; `None` where it has none.
    ///
    /// # Errors
    /// A database that failed.
    pub async fn count(&self, counted: Counted, caller: &Caller, now: Now) -> Result<Option<Rate>, Failure> {
        let key = &caller.key;
        Ok(match counted {
            Counted::Not => None,
            Counted::Kaphila => {
                let limit = key.rate_limit.unwrap_or(DEFAULT_RATE_LIMIT);
                Some(self.kaphila.take(key.id, limit, now.mono).await?)
            }
            Counted::Phony => Some(self.count_phony(key.id, now).await?),
            Counted::Plan => match self.config.plans.limits(&key.plan).requests_per_minute {
                Some(limit) => Some(self.plans.take(key.id, limit, now.wall).await?),
                None => None,
            },
        })
    }

    /// Phony's two windows. What is told is the hour's, but for the wait of a request that the minute has no room for.
    async fn count_phony(&self, key: i64, now: Now) -> Result<Rate, Failure> {
        let limits = &self.config.ratelimit;
        let minute = self.phony_minute.take(key, limits.phony_per_minute, now.mono).await?;
        if !minute.allowed {
            return Ok(Rate { limit: limits.phony_per_hour, remaining: 0, ..minute });
        }
        Ok(self.phony_hour.take(key, limits.phony_per_hour, now.mono).await?)
    }
}

/// Whether a key that is good may do this, from there.
fn may_do(key: &ApiKey, (surface, scope): (Option<&str>, Option<&str>), ip: Option<IpAddr>) -> bool {
    let in_scope = scope.is_none_or(|scope| key.scopes.iter().any(|s| s == scope));
    let surfaces = &key.surfaces;
    let on_surface = surface.is_none_or(|name| surfaces.is_empty() || surfaces.iter().any(|s| s == name));
    in_scope && on_surface && !key.suspended && may_come_from(&key.ip_allow, ip)
}

/// The key in an `Authorization` header: the word Bearer in any case, spaces, one token of visible ASCII
/// (RFC 6750 §2.1, CONTRACT 0.2).
fn bearer<'a>(headers: &[Option<&'a str>]) -> Result<&'a str, Refusal> {
    let text = match headers {
        [] => return Err(Refusal::MissingKey),
        [Some(text)] => *text,
        _ => return Err(Refusal::InvalidKey),
    };
    let (scheme, token) = text.trim().split_once(' ').ok_or(Refusal::InvalidKey)?;
    let token = token.trim_start_matches(' ');
    let plain = (1..=KEY_MAX_CHARS).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(token) } else { Err(Refusal::InvalidKey) }
}

/// The address a request came from: the TCP peer, or, where that is a trusted proxy, the right-most hop of
/// `X-Forwarded-For` that is not one. `None` where a trusted proxy names a hop that is no address.
fn client_ip(peer: Option<SocketAddr>, forwarded_for: &[&str], trusted: &[Cidr]) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let hops = forwarded_for.iter().rev().flat_map(|header| header.rsplit(',')).take(FORWARDED_MAX_HOPS);
    let mut client = peer;
    for hop in hops {
        if !is_trusted(client) {
            break;
        }
        client = hop.trim().parse::<IpAddr>().ok()?.to_canonical();
    }
    Some(client)
}

/// Whether a key with this list may come from `ip`. A list with a line that cannot be read lets nobody in by it.
fn may_come_from(ip_allow: &[String], ip: Option<IpAddr>) -> bool {
    let Some(ip) = ip else { return ip_allow.is_empty() };
    ip_allow.is_empty()
        || ip_allow.iter().filter_map(|text| text.parse::<Cidr>().ok()).any(|n| n.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_their_header() {
        for (headers, read) in [
            (vec![], Err(Refusal::MissingKey)),
            (vec![Some("Bearer ak_1")], Ok("ak_1")),
            (vec![Some("bearer   ak_1")], Ok("ak_1")),
            (vec![Some("BEARER ak_1 ")], Ok("ak_1")),
            (vec![Some("Token ak_1")], Err(Refusal::InvalidKey)),
            (vec![Some("ak_1")], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer")], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer ")], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer a b")], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer a\tb")], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer é")], Err(Refusal::InvalidKey)),
            (vec![None], Err(Refusal::InvalidKey)),
            (vec![Some("Bearer a"), Some("Bearer b")], Err(Refusal::InvalidKey)),
        ] {
            assert_eq!(bearer(&headers), read, "{headers:?}");
        }
        let long = format!("Bearer {}", "a".repeat(256));
        assert!(bearer(&[Some(&long)]).is_ok());
        let longer = format!("Bearer {}", "a".repeat(257));
        assert_eq!(bearer(&[Some(&longer)]), Err(Refusal::InvalidKey));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".parse::<Cidr>().unwrap()];
        for (peer, forwarded, client) in [
            ("203.0.113.1:5", vec!["192.0.2.7"], Some("203.0.113.1")),
            ("10.0.0.1:5", vec![], Some("10.0.0.1")),
            ("10.0.0.1:5", vec!["192.0.2.7"], Some("192.0.2.7")),
            ("10.0.0.1:5", vec!["198.51.100.9, 192.0.2.7"], Some("192.0.2.7")),
            ("10.0.0.1:5", vec!["192.0.2.7, 10.0.0.2"], Some("192.0.2.7")),
            ("10.0.0.1:5", vec!["192.0.2.6", "192.0.2.7"], Some("192.0.2.7")),
            ("10.0.0.1:5", vec!["spoofed"], None),
            ("[::ffff:10.0.0.1]:5", vec!["2001:db8::1"], Some("2001:db8::1")),
        ] {
            let peer = Some(peer.parse().unwrap());
            assert_eq!(
                client_ip(peer, &forwarded, &trusted),
                client.map(|c| c.parse().unwrap()),
                "{forwarded:?}"
            );
        }
    }

    #[test]
    fn an_address_list_is_kept_to() {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let ip: Option<IpAddr> = Some("192.0.2.7".parse().unwrap());
        assert!(may_come_from(&[], ip));
        assert!(may_come_from(&[], None));
        assert!(may_come_from(&list(&["198.51.100.1", "192.0.2.0/24"]), ip));
        assert!(!may_come_from(&list(&["198.51.100.0/24"]), ip));
        assert!(!may_come_from(&list(&["192.0.2.0/24"]), None));
        assert!(!may_come_from(&list(&["nonsense"]), ip));
    }
}

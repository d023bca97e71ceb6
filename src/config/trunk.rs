//! What may stand in a trunk's settings, wherever they come from: the file, the command line or the administration.
//! Reads texts into a [`TrunkProfile`] or says which setting is wrong and why; touches nothing.

use std::net::IpAddr;

use super::TrunkConfig;
use crate::model::CallerId;
use crate::model::cidr::Cidr;
use crate::model::trunk::{Dtmf, Identity, NumberFormat, Srtp, TrunkProfile};

/// Networks that one trunk may name.
const NETWORKS_MAX: usize = 64;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {reason}")]
pub struct SettingInvalid {
    /// Its name in the file.
    pub setting: &'static str,
    /// What it must be.
    pub reason: &'static str,
}

fn wrong(setting: &'static str, reason: &'static str) -> SettingInvalid {
    SettingInvalid { setting, reason }
}

fn must(holds: bool, setting: &'static str, reason: &'static str) -> Result<(), SettingInvalid> {
    if holds { Ok(()) } else { Err(wrong(setting, reason)) }
}

impl TrunkConfig {
    /// Every setting by its name in the file.
    pub const SETTINGS: &[&str] = &[
        "name",
        "proxy",
        "username",
        "password",
        "dial_prefix",
        "caller_id",
        "codecs",
        "no_response_timeout_ms",
        "max_calls",
        "calls_per_second",
        "source_cidrs",
        "register",
        "register_expires_s",
        "auth_inbound",
        "srtp",
        "dtmf",
        "number_format",
        "country_code",
        "caller_id_format",
        "from_user",
        "from_domain",
        "identity",
        "diversion",
        "priority",
        "weight",
        "external_address",
        "media_address",
        "allow_redirects",
        "options_interval_s",
    ];

    /// Takes one setting, by its name in the file, from another trunk. An unknown name changes nothing.
    pub fn take(&mut self, setting: &str, other: &Self) {
        match setting {
            "name" => self.name.clone_from(&other.name),
            "proxy" => self.proxy.clone_from(&other.proxy),
            "username" => self.username.clone_from(&other.username),
            "password" => self.password.clone_from(&other.password),
            "dial_prefix" => self.dial_prefix.clone_from(&other.dial_prefix),
            "caller_id" => self.caller_id.clone_from(&other.caller_id),
            "codecs" => self.codecs.clone_from(&other.codecs),
            "no_response_timeout_ms" => self.no_response_timeout_ms = other.no_response_timeout_ms,
            "max_calls" => self.max_calls = other.max_calls,
            "calls_per_second" => self.calls_per_second = other.calls_per_second,
            "source_cidrs" => self.source_cidrs.clone_from(&other.source_cidrs),
            "register" => self.register = other.register,
            "register_expires_s" => self.register_expires_s = other.register_expires_s,
            "auth_inbound" => self.auth_inbound = other.auth_inbound,
            "srtp" => self.srtp.clone_from(&other.srtp),
            "dtmf" => self.dtmf.clone_from(&other.dtmf),
            "number_format" => self.number_format.clone_from(&other.number_format),
            "country_code" => self.country_code.clone_from(&other.country_code),
            "caller_id_format" => self.caller_id_format.clone_from(&other.caller_id_format),
            "from_user" => self.from_user.clone_from(&other.from_user),
            "from_domain" => self.from_domain.clone_from(&other.from_domain),
            "identity" => self.identity.clone_from(&other.identity),
            "diversion" => self.diversion.clone_from(&other.diversion),
            "priority" => self.priority = other.priority,
            "weight" => self.weight = other.weight,
            "external_address" => self.external_address.clone_from(&other.external_address),
            "media_address" => self.media_address.clone_from(&other.media_address),
            "allow_redirects" => self.allow_redirects = other.allow_redirects,
            "options_interval_s" => self.options_interval_s = other.options_interval_s,
            _ => {}
        }
    }

    /// Settings none of which is the default.
    #[cfg(test)]
    pub fn unlike_default() -> Self {
        let text = || "x".to_owned();
        Self {
            name: text(),
            proxy: text(),
            username: text(),
            password: crate::model::Secret(text()),
            dial_prefix: text(),
            caller_id: text(),
            codecs: vec![text()],
            no_response_timeout_ms: 1,
            max_calls: 1,
            calls_per_second: 1,
            source_cidrs: vec![text()],
            register: true,
            register_expires_s: 1,
            auth_inbound: true,
            srtp: text(),
            dtmf: text(),
            number_format: text(),
            country_code: text(),
            caller_id_format: text(),
            from_user: text(),
            from_domain: text(),
            identity: vec![text()],
            diversion: text(),
            priority: 1,
            weight: 2,
            external_address: text(),
            media_address: text(),
            allow_redirects: true,
            options_interval_s: 1,
        }
    }

    /// Everything beyond address, password, prefix and codecs.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn profile(&self) -> Result<TrunkProfile, SettingInvalid> {
        self.check()?;
        let number_format =
            NumberFormat::parse(&self.number_format).ok_or_else(|| wrong("number_format", FORMATS))?;
        let caller_id_format = match self.caller_id_format.as_str() {
            "" => None,
            text => Some(NumberFormat::parse(text).ok_or_else(|| wrong("caller_id_format", FORMATS))?),
        };
        let national =
            number_format.is_national() || caller_id_format.as_ref().is_some_and(NumberFormat::is_national);
        must(!national || !self.country_code.is_empty(), "country_code", "must be set for {national}")?;
        let identity = self.identity.iter().map(|word| Identity::from_text(word)).collect::<Option<Vec<_>>>();
        Ok(TrunkProfile {
            max_calls: self.max_calls,
            calls_per_second: self.calls_per_second,
            source_cidrs: self.source_cidrs.clone(),
            register: self.register,
            register_expires_s: self.register_expires_s,
            auth_inbound: self.auth_inbound,
            srtp: Srtp::from_text(&self.srtp)
                .ok_or_else(|| wrong("srtp", "must be never, optional or required"))?,
            dtmf: Dtmf::from_text(&self.dtmf)
                .ok_or_else(|| wrong("dtmf", "must be auto, rfc4733, info or inband"))?,
            number_format,
            country_code: self.country_code.clone(),
            caller_id_format,
            from_user: self.from_user.clone(),
            from_domain: self.from_domain.clone(),
            identity: identity.ok_or_else(|| wrong("identity", "must hold pai, ppi or rpid"))?,
            diversion: self.diversion.clone(),
            priority: self.priority,
            weight: self.weight,
            external_address: address("external_address", &self.external_address)?,
            media_address: address("media_address", &self.media_address)?,
            allow_redirects: self.allow_redirects,
            options_interval_s: self.options_interval_s,
        })
    }

    fn check(&self) -> Result<(), SettingInvalid> {
        must(self.max_calls <= 100_000, "max_calls", "must be at most 100000")?;
        must(self.calls_per_second <= 1000, "calls_per_second", "must be at most 1000")?;
        let networks = self.source_cidrs.len() <= NETWORKS_MAX
            && self.source_cidrs.iter().all(|text| text.parse::<Cidr>().is_ok());
        must(networks, "source_cidrs", "must hold at most 64 networks such as 192.0.2.0/24")?;
        let expires = (30..=86_400).contains(&self.register_expires_s);
        must(expires, "register_expires_s", "must be 30 to 86400")?;
        let named = !self.username.is_empty();
        must(!self.register || named, "register", "needs a username")?;
        must(!self.auth_inbound || named, "auth_inbound", "needs a username")?;
        let country = self.country_code.len() <= 3 && self.country_code.bytes().all(|b| b.is_ascii_digit());
        must(country, "country_code", "must be at most 3 digits")?;
        let user = self.from_user.len() <= 64 && self.from_user.bytes().all(is_user);
        must(user, "from_user", "must be at most 64 of A-Z a-z 0-9 + - _ . *")?;
        let domain = self.from_domain.len() <= 253
            && self.from_domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        must(domain, "from_domain", "must be a host name or an address")?;
        let diversion = self.diversion.is_empty()
            || matches!(CallerId::parse(&self.diversion), Some(CallerId::Number(_)));
        must(diversion, "diversion", "must be 3 to 15 digits, with or without a plus")?;
        must(self.priority <= 1000, "priority", "must be at most 1000")?;
        must(self.weight <= 1000, "weight", "must be at most 1000")?;
        let interval = self.options_interval_s == 0 || (1..=3600).contains(&self.options_interval_s);
        must(interval, "options_interval_s", "must be 0 to 3600")
    }
}

/// What a number format may be.
const FORMATS: &str = "must be prefix, e164, plus or a template of 0-9 + * # with {number} or {national}";

fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-_.*".contains(&byte)
}

fn address(setting: &'static str, text: &str) -> Result<Option<IpAddr>, SettingInvalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = text.parse().map_err(|_| wrong(setting, "must be an IP address or empty"))?;
    Ok(Some(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_default_profile() {
        assert_eq!(TrunkConfig::default().profile(), Ok(TrunkProfile::default()));
    }

    #[test]
    fn each_wrong_setting_is_named() {
        let with = |change: fn(&mut TrunkConfig)| {
            let mut config = TrunkConfig::default();
            change(&mut config);
            config.profile().map_err(|error| error.setting)
        };
        assert_eq!(with(|c| c.source_cidrs = vec!["x".into()]), Err("source_cidrs"));
        assert_eq!(with(|c| c.register = true), Err("register"));
        assert_eq!(with(|c| c.register_expires_s = 5), Err("register_expires_s"));
        assert_eq!(with(|c| c.auth_inbound = true), Err("auth_inbound"));
        assert_eq!(with(|c| c.srtp = "sometimes".into()), Err("srtp"));
        assert_eq!(with(|c| c.dtmf = "tones".into()), Err("dtmf"));
        assert_eq!(with(|c| c.number_format = "{number}@x".into()), Err("number_format"));
        assert_eq!(with(|c| c.number_format = "0{national}".into()), Err("country_code"));
        assert_eq!(with(|c| c.country_code = "x".into()), Err("country_code"));
        assert_eq!(with(|c| c.caller_id_format = "x".into()), Err("caller_id_format"));
        assert_eq!(with(|c| c.from_user = "a>\r\nb".into()), Err("from_user"));
        assert_eq!(with(|c| c.from_domain = "a@b".into()), Err("from_domain"));
        assert_eq!(with(|c| c.identity = vec!["passport".into()]), Err("identity"));
        assert_eq!(with(|c| c.diversion = "anonymous".into()), Err("diversion"));
        assert_eq!(with(|c| c.weight = 1001), Err("weight"));
        assert_eq!(with(|c| c.external_address = "here".into()), Err("external_address"));
        assert_eq!(with(|c| c.media_address = "there".into()), Err("media_address"));
        assert_eq!(with(|c| c.options_interval_s = 3601), Err("options_interval_s"));
        let good = with(|c| {
            c.number_format = "0{national}".into();
            c.country_code = "44".into();
            c.identity = vec!["pai".into(), "rpid".into()];
            c.external_address = "2001:db8::1".into();
        });
        assert_eq!(good.map(|profile| profile.identity), Ok(vec![Identity::Pai, Identity::Rpid]));
    }
}

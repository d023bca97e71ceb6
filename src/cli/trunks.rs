//! `trunkline trunks list|add|remove|test|policy`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, table};
use crate::config::TrunkConfig;
use crate::control::trunks::probe::{Probe, probe};
use crate::model::account::Trunk;
use crate::model::trunk::Policy;
use crate::model::{Secret, Timestamp};
use crate::store::Db;
use crate::store::trunks::{NewTrunk, describe};

/// Trunks: the carriers that calls are dialled through.
#[derive(Clone, Debug, Args)]
pub struct TrunksArgs {
    #[command(subcommand)]
    command: TrunksCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum TrunksCommand {
    /// Print every trunk, without passwords.
    List,
    /// Make a trunk, or change the one of that name.
    Add(Box<AddArgs>),
    /// Remove a trunk, also from the keys that use it.
    Remove {
        /// Its name.
        name: String,
    },
    /// Ask a trunk whether it is there, by OPTIONS.
    Test {
        /// Its name.
        name: String,
    },
    /// Say which of a key's trunks comes first.
    Policy {
        /// The key's id, as `keys list` prints it.
        key: String,
        /// `round_robin`: each call starts one trunk further; `priority`: lower first; `weighted`: by weight.
        policy: String,
    },
}

/// One option for each setting of `[[trunk]]`.
#[derive(Clone, Debug, Args)]
struct AddArgs {
    /// Its name; customers see `NAME-endpoint`.
    name: String,
    /// `sip:host[:port][;transport=udp]`
    #[arg(long)]
    proxy: String,
    /// Digest user.
    #[arg(long, default_value = "")]
    username: String,
    /// Digest password.
    #[arg(long, default_value = "", hide_default_value = true)]
    password: String,
    /// Put before the number.
    #[arg(long, default_value = "00")]
    dial_prefix: String,
    /// Shown where the call has no caller id.
    #[arg(long, default_value = "")]
    caller_id: String,
    /// SDP names in order.
    #[arg(long, value_delimiter = ',', default_values = ["PCMU", "PCMA"])]
    codecs: Vec<String>,
    /// Without a response in this time the next trunk is tried, milliseconds.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    no_response_timeout_ms: u32,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    numbers: NumberArgs,
}

#[derive(Clone, Debug, Args)]
struct LimitArgs {
    /// Calls at once; 0: no limit.
    #[arg(long, default_value_t = 0)]
    max_calls: u32,
    /// INVITEs in any second; 0: no limit.
    #[arg(long, default_value_t = 0)]
    calls_per_second: u32,
    /// Further networks from which the carrier signals.
    #[arg(long, value_delimiter = ',')]
    source_cidrs: Vec<String>,
    /// Keep a registration at the proxy.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    register: bool,
    /// How long a registration shall hold, seconds.
    #[arg(long, default_value_t = 300)]
    register_expires_s: u32,
    /// Calls that come in must show username and password.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    auth_inbound: bool,
    /// Encryption of the sound: `never` is all there is.
    #[arg(long, default_value = "never")]
    srtp: String,
    /// How digits travel: `auto`, `rfc4733`, `info` or `inband`.
    #[arg(long, default_value = "auto")]
    dtmf: String,
    /// Lower comes first for keys of the policy `priority`.
    #[arg(long, default_value_t = 0)]
    priority: u32,
    /// Share of first places for keys of the policy `weighted`.
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// Follow a 3xx to addresses of the trunk's own networks.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    allow_redirects: bool,
    /// Seconds between OPTIONS; 0: none.
    #[arg(long, default_value_t = 0)]
    options_interval_s: u32,
}

#[derive(Clone, Debug, Args)]
struct NumberArgs {
    /// How the callee's number is written: `prefix`, `e164`, `plus` or a template with `{number}` or `{national}`.
    #[arg(long, default_value = "prefix")]
    number_format: String,
    /// The trunk's country code, for `{national}`.
    #[arg(long, default_value = "")]
    country_code: String,
    /// How the caller's number is written: likewise; empty: as given.
    #[arg(long, default_value = "")]
    caller_id_format: String,
    /// User part of From in place of the caller id.
    #[arg(long, default_value = "")]
    from_user: String,
    /// Host of From in place of our address.
    #[arg(long, default_value = "")]
    from_domain: String,
    /// Headers that tell who calls: `pai`, `ppi`, `rpid`.
    #[arg(long, value_delimiter = ',')]
    identity: Vec<String>,
    /// Number in a Diversion header.
    #[arg(long, default_value = "")]
    diversion: String,
    /// What Via and Contact say to this trunk.
    #[arg(long, default_value = "")]
    external_address: String,
    /// What the session description says to this trunk.
    #[arg(long, default_value = "")]
    media_address: String,
}

impl AddArgs {
    fn into_config(self) -> TrunkConfig {
        let (limits, numbers) = (self.limits, self.numbers);
        TrunkConfig {
            name: self.name,
            proxy: self.proxy,
            username: self.username,
            password: Secret(self.password),
            dial_prefix: self.dial_prefix,
            caller_id: self.caller_id,
            codecs: self.codecs,
            no_response_timeout_ms: self.no_response_timeout_ms,
            max_calls: limits.max_calls,
            calls_per_second: limits.calls_per_second,
            source_cidrs: limits.source_cidrs,
            register: limits.register,
            register_expires_s: limits.register_expires_s,
            auth_inbound: limits.auth_inbound,
            srtp: limits.srtp,
            dtmf: limits.dtmf,
            number_format: numbers.number_format,
            country_code: numbers.country_code,
            caller_id_format: numbers.caller_id_format,
            from_user: numbers.from_user,
            from_domain: numbers.from_domain,
            identity: numbers.identity,
            diversion: numbers.diversion,
            priority: limits.priority,
            weight: limits.weight,
            external_address: numbers.external_address,
            media_address: numbers.media_address,
            allow_redirects: limits.allow_redirects,
            options_interval_s: limits.options_interval_s,
        }
    }
}

/// Does what was asked and returns what is to be printed.
pub(super) async fn run(args: TrunksArgs, db: &Db, at: Timestamp) -> Result<String, CliError> {
    match args.command {
        TrunksCommand::List => {
            let trunks = db.trunks().await?;
            Ok(if args.json {
                Value::Array(trunks.iter().map(describe).collect()).to_string()
            } else {
                list(&trunks)
            })
        }
        TrunksCommand::Add(add) => {
            let new = NewTrunk::try_from(&add.into_config())?;
            let trunk = db.save_trunk(&new, true, at).await?;
            let text = format!("trunk {} goes to {}", trunk.name, trunk.proxy);
            Ok(if args.json { describe(&trunk).to_string() } else { text })
        }
        TrunksCommand::Remove { name } => {
            if !db.remove_trunk(&name, at).await? {
                return Err(CliError::UnknownTrunk(name));
            }
            let text = format!("trunk {name} is removed");
            Ok(if args.json { json!({ "name": name, "removed": true }).to_string() } else { text })
        }
        TrunksCommand::Test { name } => {
            let trunk = db.trunk(&name).await?.ok_or(CliError::UnknownTrunk(name))?;
            let found = probe(&trunk).await;
            let text = if args.json { tested(&trunk, &found).to_string() } else { found.words.clone() };
            if found.alive { Ok(text) } else { Err(CliError::Failed(text)) }
        }
        TrunksCommand::Policy { key, policy } => {
            let known = Policy::from_text(&policy).ok_or(CliError::UnknownPolicy(policy))?;
            if !db.set_trunk_policy(&key, known, at).await? {
                return Err(CliError::UnknownKey(key));
            }
            let word = known.as_str();
            let text = format!("the trunks of {key} are taken {word}");
            Ok(if args.json { json!({ "keyId": key, "policy": word }).to_string() } else { text })
        }
    }
}

fn tested(trunk: &Trunk, found: &Probe) -> Value {
    json!({
        "name": trunk.name, "alive": found.alive, "address": found.address, "code": found.code,
        "elapsedMs": found.elapsed_ms, "words": found.words,
    })
}

fn list(trunks: &[Trunk]) -> String {
    if trunks.is_empty() {
        return "no trunks yet: trunkline trunks add NAME --proxy sip:HOST".to_owned();
    }
    let head = ["NAME", "PROXY", "NUMBERS", "CODECS", "CALLS", "STATE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(trunks.iter().map(|trunk| {
        let state = if trunk.enabled { "enabled" } else { "disabled" };
        let numbers = trunk.profile.number_format.apply("…", &trunk.dial_prefix, &trunk.profile.country_code);
        let calls = if trunk.profile.max_calls == 0 {
            "no limit".to_owned()
        } else {
            trunk.profile.max_calls.to_string()
        };
        let (name, proxy) = (trunk.name.clone(), trunk.proxy.clone());
        vec![name, proxy, numbers, trunk.codecs.join(","), calls, state.to_owned()]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        trunks: TrunksArgs,
    }

    fn add(options: &[&str]) -> TrunkConfig {
        let line = ["trunks", "add", "t", "--proxy", "sip:127.0.0.1:5070"].iter().chain(options);
        let line = Line::try_parse_from(line).unwrap();
        let TrunksCommand::Add(add) = line.trunks.command else { panic!("not add") };
        add.into_config()
    }

    #[test]
    fn defaults_are_those_of_the_configuration() {
        let expected =
            TrunkConfig { name: "t".into(), proxy: "sip:127.0.0.1:5070".into(), ..TrunkConfig::default() };
        assert_eq!(add(&[]), expected);
    }

    #[test]
    fn every_setting_has_its_option() {
        for line in crate::config::load::SAMPLE.lines().skip_while(|line| !line.starts_with("#[[trunk]]")) {
            let Some((setting, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else {
                continue;
            };
            if setting.starts_with(' ') || setting == "name" {
                continue;
            }
            let option = format!("--{}", setting.replace('_', "-"));
            let read = Line::try_parse_from(["trunks", "add", "t", "--proxy", "sip:h", &option, "1"]);
            let unknown = read.is_err_and(|e| e.kind() == clap::error::ErrorKind::UnknownArgument);
            assert!(!unknown, "{option}");
        }
        assert!(add(&["--register"]).register && add(&["--register", "true"]).register);
        assert_eq!(add(&["--source-cidrs", "10.0.0.0/8,192.0.2.1"]).source_cidrs.len(), 2);
    }

    #[test]
    fn a_proxy_is_required() {
        assert!(Line::try_parse_from(["trunks", "add", "t"]).is_err());
    }
}

//! `trunkline trunks list|add|remove`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, table};
use crate::config::TrunkConfig;
use crate::model::account::Trunk;
use crate::model::{CallerId, Secret};
use crate::store::Db;
use crate::store::trunks::NewTrunk;

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
}

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
}

impl AddArgs {
    fn into_config(self) -> TrunkConfig {
        TrunkConfig {
            name: self.name,
            proxy: self.proxy,
            username: self.username,
            password: Secret(self.password),
            dial_prefix: self.dial_prefix,
            caller_id: self.caller_id,
            codecs: self.codecs,
            no_response_timeout_ms: self.no_response_timeout_ms,
        }
    }
}

/// Does what was asked and returns what is to be printed.
pub(super) async fn run(args: TrunksArgs, db: &Db) -> Result<String, CliError> {
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
            let trunk = db.upsert_trunk(&NewTrunk::try_from(&add.into_config())?).await?;
            let text = format!("trunk {} goes to {}", trunk.name, trunk.proxy);
            Ok(if args.json { describe(&trunk).to_string() } else { text })
        }
        TrunksCommand::Remove { name } => {
            if !db.remove_trunk(&name).await? {
                return Err(CliError::UnknownTrunk(name));
            }
            let text = format!("trunk {name} is removed");
            Ok(if args.json { json!({ "name": name, "removed": true }).to_string() } else { text })
        }
    }
}

fn list(trunks: &[Trunk]) -> String {
    if trunks.is_empty() {
        return "no trunks yet: trunkline trunks add NAME --proxy sip:HOST".to_owned();
    }
    let mut rows = vec![["NAME", "PROXY", "PREFIX", "CODECS", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(trunks.iter().map(|trunk| {
        let state = if trunk.enabled { "enabled" } else { "disabled" };
        let (name, proxy, prefix) = (trunk.name.clone(), trunk.proxy.clone(), trunk.dial_prefix.clone());
        vec![name, proxy, prefix, trunk.codecs.join(","), state.to_owned()]
    }));
    table(&rows)
}

fn describe(trunk: &Trunk) -> Value {
    json!({
        "id": trunk.id,
        "name": trunk.name,
        "endpoint": format!("{}-endpoint", trunk.name),
        "proxy": trunk.proxy,
        "username": trunk.username,
        "dialPrefix": trunk.dial_prefix,
        "callerId": trunk.caller_id.as_ref().map(CallerId::user),
        "codecs": trunk.codecs,
        "noResponseTimeoutMs": trunk.no_response_timeout_ms,
        "enabled": trunk.enabled,
    })
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

    #[test]
    fn defaults_are_those_of_the_configuration() {
        let line = Line::try_parse_from(["trunks", "add", "t", "--proxy", "sip:127.0.0.1:5070"]).unwrap();
        let TrunksCommand::Add(add) = line.trunks.command else { panic!("not add") };
        let config = add.into_config();
        let expected =
            TrunkConfig { name: "t".into(), proxy: "sip:127.0.0.1:5070".into(), ..TrunkConfig::default() };
        assert_eq!(NewTrunk::try_from(&config).unwrap(), NewTrunk::try_from(&expected).unwrap());
    }

    #[test]
    fn a_proxy_is_required() {
        assert!(Line::try_parse_from(["trunks", "add", "t"]).is_err());
    }
}

//! `trunkline numbers add|list|remove` (CONTRACT 0.8).

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::keys::parse_tenant;
use super::{CliError, table};
use crate::config::Webhooks;
use crate::model::{PhoneNumber, Timestamp, forms};
use crate::store::Db;
use crate::store::numbers::{NewNumber, Number, OnCall};
use crate::webhook::guard;

/// Most numbers that are printed.
const LIST_MAX: u32 = 1_000_000;

/// Numbers that can be called.
#[derive(Clone, Debug, Args)]
pub struct NumbersArgs {
    #[command(subcommand)]
    command: NumbersCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum NumbersCommand {
    /// Import a number, and say what happens on a call to it; with nothing said it answers 480.
    Add(Box<AddArgs>),
    /// Print every number.
    List,
    /// Forget a number; calls to it are answered 404.
    Remove {
        /// In E.164 form.
        #[arg(value_parser = parse_number)]
        number: PhoneNumber,
    },
}

#[derive(Clone, Debug, Args)]
struct AddArgs {
    /// In E.164 form.
    #[arg(value_parser = parse_number)]
    number: PhoneNumber,
    /// A tenant's id or subdomain; made where it is missing.
    #[arg(long, default_value = "default", value_parser = parse_tenant)]
    tenant: String,
    /// A name for people; the number itself unless said.
    #[arg(long, default_value = "", value_parser = parse_label)]
    name: String,
    /// The trunk that its calls come by; any unless said.
    #[arg(long)]
    trunk: Option<String>,
    /// Answer at once under `--key` and tell this URL, whose application drives the call.
    #[arg(long, requires = "key", group = "on_call")]
    webhook: Option<String>,
    /// The key that calls to `--webhook` belong to.
    #[arg(long, requires = "webhook")]
    key: Option<String>,
    /// An agent talks; its id.
    #[arg(long, group = "on_call", value_parser = parse_agent)]
    agent: Option<String>,
    /// Play this sound and hang up.
    #[arg(long, group = "on_call", value_parser = parse_sound)]
    play: Option<String>,
    /// Say back what is heard, for trials.
    #[arg(long, group = "on_call")]
    echo: bool,
}

fn parse_number(text: &str) -> Result<PhoneNumber, String> {
    forms::public_number(text).ok_or_else(|| "a number such as +14155550100".to_owned())
}

fn parse_label(text: &str) -> Result<String, String> {
    let good = text.is_empty() || forms::is_label(text);
    good.then(|| text.to_owned()).ok_or_else(|| "1 to 100 characters".to_owned())
}

fn parse_agent(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_owned()).ok_or_else(|| "the id of an agent".to_owned())
}

fn parse_sound(text: &str) -> Result<String, String> {
    forms::is_sound(text).then(|| text.to_owned()).ok_or_else(|| "the name of a sound".to_owned())
}

impl AddArgs {
    fn into_new(self, webhooks: &Webhooks) -> Result<NewNumber, CliError> {
        let on_call = match (self.webhook, self.key, self.agent, self.play) {
            (Some(url), Some(key_id), _, _) => {
                let url = guard::check_url(&url, webhooks).map_err(|_| CliError::WebhookUrl)?;
                OnCall::Webhook { url: url.into(), key_id }
            }
            (_, _, Some(agent), _) => OnCall::Agent(agent),
            (_, _, _, Some(sound)) => OnCall::Play(sound),
            _ if self.echo => OnCall::Echo,
            _ => OnCall::Nothing,
        };
        Ok(NewNumber {
            number: self.number,
            tenant: self.tenant,
            friendly_name: self.name,
            trunk: self.trunk,
            on_call,
        })
    }
}

/// Does what was asked and returns what is to be printed.
pub(super) async fn run(
    args: NumbersArgs,
    db: &Db,
    webhooks: &Webhooks,
    at: Timestamp,
) -> Result<String, CliError> {
    match args.command {
        NumbersCommand::Add(add) => {
            let number = db.add_number(&add.into_new(webhooks)?, at).await?;
            let text = format!("{} belongs to {}: {}", number.number.e164(), number.tenant, says(&number));
            Ok(if args.json { brief(&number).to_string() } else { text })
        }
        NumbersCommand::List => {
            let (numbers, _) = db.numbers(None, LIST_MAX, 0).await?;
            Ok(if args.json {
                Value::Array(numbers.iter().map(describe).collect()).to_string()
            } else {
                list(&numbers)
            })
        }
        NumbersCommand::Remove { number } => {
            db.remove_number(&number, at).await?;
            let e164 = number.e164();
            let text = format!("{e164} is removed");
            Ok(if args.json { json!({ "phone_number": e164, "removed": true }).to_string() } else { text })
        }
    }
}

fn list(numbers: &[Number]) -> String {
    if numbers.is_empty() {
        return "no numbers yet: trunkline numbers add E164".to_owned();
    }
    let mut rows = vec![["NUMBER", "TENANT", "TRUNK", "ON A CALL", "NAME"].map(str::to_owned).to_vec()];
    rows.extend(numbers.iter().map(|number| {
        let trunk = number.trunk.clone().unwrap_or_else(|| "any".to_owned());
        let name = number.friendly_name.clone();
        vec![number.number.e164(), number.tenant.clone(), trunk, says(number), name]
    }));
    table(&rows)
}

/// What happens on a call, in words.
fn says(number: &Number) -> String {
    match &number.on_call {
        OnCall::Nothing => "480".to_owned(),
        OnCall::Webhook { url, key_id } => format!("webhook {url} under {key_id}"),
        OnCall::Agent(agent) => format!("agent {agent}"),
        OnCall::Play(sound) => format!("play {sound}"),
        OnCall::Echo => "echo".to_owned(),
    }
}

/// What `numbers add --json` prints.
fn brief(number: &Number) -> Value {
    json!({
        "id": number.id,
        "phone_number": number.number.e164(),
        "twilio_sid": number.sid,
        "tenant": number.tenant,
    })
}

fn describe(number: &Number) -> Value {
    let mut value = brief(number);
    value["friendly_name"] = json!(number.friendly_name);
    value["trunk"] = json!(number.trunk);
    value["on_call"] = json!(number.on_call.as_str());
    match &number.on_call {
        OnCall::Webhook { url, key_id } => {
            value["webhook"] = json!(url);
            value["key"] = json!(key_id);
        }
        OnCall::Agent(agent) => value["agent"] = json!(agent),
        OnCall::Play(sound) => value["play"] = json!(sound),
        OnCall::Nothing | OnCall::Echo => {}
    }
    value["created_at"] = json!(number.created_at.iso_ms());
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::agent::{AgentKind, AgentSettings, Voicemail};
    use crate::store::accounts::NewKey;
    use clap::Parser;
    use serde_json::Map;

    const AT: Timestamp = Timestamp(1_771_322_520_000);

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        numbers: NumbersArgs,
    }

    fn parse(words: &[&str]) -> Result<NumbersArgs, clap::Error> {
        Line::try_parse_from(["numbers"].iter().chain(words)).map(|line| line.numbers)
    }

    #[test]
    fn wrong_words_are_refused() {
        for words in [
            &["add"][..],
            &["add", "me"],
            &["add", "+014155550100"],
            &["add", "+14155550100", "--tenant", "a b"],
            &["add", "+14155550100", "--webhook", "https://a.example"],
            &["add", "+14155550100", "--key", "key_1"],
            &["add", "+14155550100", "--echo", "--play", "a"],
            &["add", "+14155550100", "--agent", "a", "--play", "a"],
            &["add", "+14155550100", "--play", "../a"],
            &["remove"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn numbers_come_and_go() {
        let dir = std::env::temp_dir().join(format!("trunkline-cli-numbers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let db = Db::open(&format!("sqlite://{}", dir.join("test.db").display())).await.unwrap();
        let key = db.create_key(NewKey { tenant: "TA".into(), ..NewKey::named("k") }, AT).await.unwrap().key;
        let ask = async |words: &[&str]| {
            let args = parse(&[words, &["--json"]].concat()).unwrap();
            let text = run(args, &db, &Webhooks::default(), AT).await?;
            Ok::<Value, CliError>(serde_json::from_str(&text).unwrap())
        };
        let made = ask(&["add", "+1 415 555 0100"]).await.unwrap();
        let names: Vec<&String> = made.as_object().unwrap().keys().collect();
        assert_eq!(names, ["id", "phone_number", "tenant", "twilio_sid"]);
        assert_eq!((&made["phone_number"], &made["tenant"]), (&json!("+14155550100"), &json!("default")));
        let sid = made["twilio_sid"].as_str().unwrap();
        assert!(sid.len() == 34 && sid.starts_with("PN") && sid[2..].bytes().all(|b| b.is_ascii_hexdigit()));

        let hook = ["--tenant", "TA", "--webhook", "https://a.example/x", "--key", &key.key_id];
        ask(&[&["add", "+14155550101"][..], &hook].concat()).await.unwrap();
        ask(&["add", "+14155550102", "--echo"]).await.unwrap();
        ask(&["add", "+14155550103", "--play", "custom/welcome"]).await.unwrap();
        let agent = AgentSettings {
            name: "A".into(),
            kind: AgentKind::Inbound,
            active: true,
            system_prompt: "P".into(),
            first_message: None,
            voice: "alloy".into(),
            language: "en-US".into(),
            max_call_duration_s: None,
            record: false,
            context: Map::new(),
            relay_url: None,
            relay_keeps: false,
            voicemail: Voicemail::default(),
            tools: Vec::new(),
        };
        db.create_agent("default", agent, None, AT).await.unwrap();
        ask(&["add", "+14155550104", "--agent", "agent_1"]).await.unwrap();
        let list = ask(&["list"]).await.unwrap();
        let actions: Vec<&Value> = list.as_array().unwrap().iter().map(|row| &row["on_call"]).collect();
        assert_eq!(actions, ["nothing", "webhook", "echo", "play", "agent"]);
        assert_eq!((&list[1]["key"], &list[3]["play"]), (&json!(key.key_id), &json!("custom/welcome")));

        let refused = async |words: &[&str]| ask(words).await.unwrap_err().to_string();
        assert_eq!(refused(&["add", "+14155550100"]).await, "number +14155550100 is taken");
        assert_eq!(refused(&["add", "+1415555", "--trunk", "x"]).await, "unknown trunk: x");
        assert_eq!(refused(&["add", "+1415555", "--agent", "agent_2"]).await, "no such agent: agent_2");
        let elsewhere = ["add", "+1415555", "--tenant", "TA", "--agent", "agent_1"];
        assert_eq!(refused(&elsewhere).await, "no such agent: agent_1");
        let foreign = ["add", "+1415555", "--webhook", "https://a.example", "--key", &key.key_id];
        assert_eq!(refused(&foreign).await, format!("no such key: {}", key.key_id));
        let open = ["add", "+1415555", "--webhook", "http://127.0.0.1", "--key", &key.key_id];
        assert_eq!(refused(&open).await, "--webhook must be an https URL");
        let text = run(parse(&["list"]).unwrap(), &db, &Webhooks::default(), AT).await.unwrap();
        assert!(text.contains("play custom/welcome"), "{text}");
        assert_eq!(ask(&["remove", "+14155550100"]).await.unwrap()["removed"], true);
        assert_eq!(refused(&["remove", "+14155550100"]).await, "no such number: +14155550100");
        let _ = std::fs::remove_dir_all(&dir);
    }
}

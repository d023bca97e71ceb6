//! `trunkline tenants list|create|suspend|resume`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, table};
use crate::model::{Timestamp, forms};
use crate::store::tenants::{NewTenant, SUSPENDED, Tenant};
use crate::store::{Db, StoreError};

/// Most tenants that are printed.
const LIST_MAX: u32 = 100_000;

/// Tenants: who keys and numbers belong to.
#[derive(Clone, Debug, Args)]
pub struct TenantsArgs {
    #[command(subcommand)]
    command: TenantsCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum TenantsCommand {
    /// Print every tenant.
    List,
    /// Make a tenant; `keys create --tenant` makes one too where it is missing.
    Create(CreateArgs),
    /// Refuse all its keys; calls under way go on.
    Suspend {
        /// Its id or subdomain.
        tenant: String,
    },
    /// Let its keys in again.
    Resume {
        /// Its id or subdomain.
        tenant: String,
    },
}

#[derive(Clone, Debug, Args)]
struct CreateArgs {
    /// A name for people.
    #[arg(value_parser = parse_name)]
    name: String,
    /// A label of a host name, unique.
    #[arg(long, value_parser = parse_subdomain)]
    subdomain: String,
    /// Agents it may have; any number unless said.
    #[arg(long)]
    max_agents: Option<u32>,
    /// Live calls of all its keys together; any number unless said.
    #[arg(long)]
    max_concurrent_calls: Option<u32>,
    /// Where bills go.
    #[arg(long, default_value = "", value_parser = parse_email)]
    billing_email: String,
}

fn parse_name(text: &str) -> Result<String, String> {
    forms::is_label(text).then(|| text.to_owned()).ok_or_else(|| "1 to 100 characters".to_owned())
}

fn parse_subdomain(text: &str) -> Result<String, String> {
    forms::is_subdomain(text).then(|| text.to_owned()).ok_or_else(|| "1 to 63 of a-z 0-9 -".to_owned())
}

fn parse_email(text: &str) -> Result<String, String> {
    let good = text.is_empty() || forms::is_email(text);
    good.then(|| text.to_owned()).ok_or_else(|| "an address".to_owned())
}

/// Does what was asked and returns what is to be printed.
pub(super) async fn run(args: TenantsArgs, db: &Db, at: Timestamp) -> Result<String, CliError> {
    let (tenant, done) = match args.command {
        TenantsCommand::List => return list(db, args.json).await,
        TenantsCommand::Create(new) => (db.create_tenant(&new.into_new(), at).await?, "is made"),
        TenantsCommand::Suspend { tenant } => (set_status(db, &tenant, SUSPENDED, at).await?, "is suspended"),
        TenantsCommand::Resume { tenant } => (set_status(db, &tenant, "active", at).await?, "is active"),
    };
    let text = format!("tenant {} ({}) {done}", tenant.id, tenant.name);
    Ok(if args.json { describe(&tenant).to_string() } else { text })
}

impl CreateArgs {
    fn into_new(self) -> NewTenant {
        NewTenant {
            name: self.name,
            subdomain: self.subdomain,
            status: "active",
            max_agents: self.max_agents,
            max_concurrent_calls: self.max_concurrent_calls,
            billing_email: self.billing_email,
        }
    }
}

async fn set_status(db: &Db, tenant: &str, status: &str, at: Timestamp) -> Result<Tenant, StoreError> {
    db.change_tenant(tenant, at, |tenant| status.clone_into(&mut tenant.status)).await
}

async fn list(db: &Db, json: bool) -> Result<String, CliError> {
    let (tenants, _) = db.tenants(LIST_MAX, 0).await?;
    if json {
        return Ok(Value::Array(tenants.iter().map(describe).collect()).to_string());
    }
    let limit = |limit: Option<u32>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    let mut rows = vec![["ID", "NAME", "SUBDOMAIN", "STATUS", "AGENTS", "CALLS"].map(str::to_owned).to_vec()];
    rows.extend(tenants.into_iter().map(|tenant| {
        let (agents, calls) = (limit(tenant.max_agents), limit(tenant.max_concurrent_calls));
        vec![tenant.id, tenant.name, tenant.subdomain, tenant.status, agents, calls]
    }));
    Ok(table(&rows))
}

fn describe(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "subdomain": tenant.subdomain,
        "status": tenant.status,
        "maxAgents": tenant.max_agents,
        "maxConcurrentCalls": tenant.max_concurrent_calls,
        "billingEmail": tenant.billing_email,
        "createdAt": tenant.created_at.iso_ms(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tenants: TenantsArgs,
    }

    fn parse(words: &[&str]) -> Result<TenantsArgs, clap::Error> {
        Line::try_parse_from(["tenants"].iter().chain(words)).map(|line| line.tenants)
    }

    #[tokio::test]
    async fn a_tenant_is_made_suspended_and_resumed() {
        let dir = std::env::temp_dir().join(format!("trunkline-cli-tenants-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let db = Db::open(&format!("sqlite://{}", dir.join("test.db").display())).await.unwrap();
        let ask = async |words: &[&str]| {
            let args = parse(&[words, &["--json"]].concat()).unwrap();
            let text = run(args, &db, Timestamp(1_771_322_520_000)).await?;
            Ok::<Value, CliError>(serde_json::from_str(&text).unwrap())
        };
        let made = ask(&["create", "Acme Ltd", "--subdomain", "acme", "--max-agents", "3"]).await.unwrap();
        assert!(made["id"].as_str().unwrap().starts_with("tenant_"), "{made}");
        assert_eq!((&made["maxAgents"], &made["maxConcurrentCalls"]), (&json!(3), &Value::Null));
        assert_eq!(ask(&["suspend", "acme"]).await.unwrap()["status"], "suspended");
        assert_eq!(ask(&["resume", "acme"]).await.unwrap()["status"], "active");
        assert_eq!(ask(&["list"]).await.unwrap().as_array().unwrap().len(), 2);
        let twice = ask(&["create", "Other", "--subdomain", "acme"]).await.unwrap_err();
        assert_eq!(twice.to_string(), "subdomain acme is taken");
        assert_eq!(ask(&["suspend", "nobody"]).await.unwrap_err().to_string(), "no such tenant: nobody");
        let text = run(parse(&["list"]).unwrap(), &db, Timestamp(0)).await.unwrap();
        assert!(text.contains("Acme Ltd"), "{text}");
        for words in
            [&["create", "a"][..], &["create", "a", "--subdomain", "A"], &["create", "", "--subdomain", "a"]]
        {
            assert!(parse(words).is_err(), "{words:?}");
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
}

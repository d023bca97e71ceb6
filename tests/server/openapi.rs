//! The document as it is served: the one that is kept beside this file, and true of the server, as Schemathesis, a
//! program that is not ours, finds by asking every operation in thousands of ways.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::admin::Admin;
use crate::api::{Key, bare, send};
use crate::carrier::Carrier;
use crate::harness::{Server, free_port, go, go_within, home, number, until, world};
use crate::receiver::Receiver;

/// Writes the document down anew after a change that is meant.
const UPDATE: &str = "UPDATE_OPENAPI=1 cargo test --test server openapi::the_document";

/// It asks thousands of times, on whatever machine.
const LONGEST: Duration = Duration::from_secs(300);

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server").join(name)
}

#[test]
fn the_document_is_the_one_that_is_kept() {
    go(async {
        let served = send(bare(world().await.server.http, Method::GET, "/openapi.json")).await;
        assert_eq!(served.header("content-type"), "application/json; charset=utf-8");
        let served = served.expect(200);
        let (kept, text) =
            (beside("openapi.json"), serde_json::to_string_pretty(&served).expect("JSON") + "\n");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&kept, &text).expect("the sources can be written");
        }
        let known = std::fs::read_to_string(&kept).unwrap_or_default();
        let known: Value = serde_json::from_str(&known).unwrap_or_default();
        differ(&known, &served, "");
    });
}

/// Fails at the first place where two values differ, so that the whole need not be read.
fn differ(known: &Value, served: &Value, at: &str) {
    if let (Value::Object(known), Value::Object(served)) = (known, served) {
        for name in known.keys().chain(served.keys()) {
            let at = format!("{at}/{name}");
            differ(known.get(name).unwrap_or(&Value::Null), served.get(name).unwrap_or(&Value::Null), &at);
        }
        return;
    }
    assert_eq!(known, served, "{at} is not as it was; if that is meant: {UPDATE}");
}

#[test]
fn the_page_is_for_everybody() {
    go(async {
        let page = send(bare(world().await.server.http, Method::GET, "/docs")).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        let text = String::from_utf8(page.body).expect("text");
        for known in ["id=\"makecall\"", "/recordings/{callId}/download", "/admin/v1/keys", "curl -s -X POST"]
        {
            assert!(text.contains(known), "{known}");
        }
    });
}

/// A server to be asked anything, with a far end of its own.
struct Asked {
    server: Server,
    _carrier: Carrier,
    folder: PathBuf,
}

impl Asked {
    async fn start() -> Self {
        let folder = home("schemathesis");
        let carrier = Carrier::start(&folder.join("carrier"), false).await;
        // Names that it is given lead nowhere: no question leaves this machine.
        let nowhere = format!("127.0.0.1:{}", free_port());
        let settings = [
            ("SIP__RESOLVER", nowhere.as_str()),
            ("WEBHOOKS__RESOLVER", &nowhere),
            ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "100000"),
            ("RATELIMIT__PHONY_PER_MINUTE", "1000000"),
            ("RATELIMIT__PHONY_PER_HOUR", "1000000"),
        ];
        let server = Server::start("documented", &settings).await;
        server.trunk("carrier", carrier.addr, &[]);
        Self { server, _carrier: carrier, folder }
    }

    fn key(&self) -> Key {
        self.server.key(&["--admin", "--trunks", "carrier", "--rate-limit", "1000000"])
    }

    /// Asks all operations that `arguments` choose with this key. `known` has values for parts of paths: how the path
    /// begins, the part's name in the document, the value.
    async fn ask(&self, key: &Key, known: &[(&str, &str, String)], arguments: &[&str]) {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients/venv/bin/schemathesis");
        assert!(program.exists(), "{} is not there; run tests/run", program.display());
        let parameters: String = known
            .iter()
            .map(|(path, name, value)| {
                let value = json!(value);
                format!("[[operations]]\ninclude-path-regex = \"^{path}\"\nparameters = {{ \"path.{name}\" = {value} }}\n")
            })
            .collect();
        let config = self.folder.join("schemathesis.toml");
        let hooks = json!(beside("openapi_checks.py"));
        std::fs::write(&config, format!("hooks = {hooks}\n{parameters}")).expect("writable");
        let mut command = Command::new(program);
        command.current_dir(&self.folder).arg("--config-file").arg(&config).arg("run");
        command.arg(format!("http://{}/openapi.json", self.server.http));
        command.arg("--header").arg(format!("Authorization: Bearer {}", key.key));
        command.args(["--seed", "1", "--generation-database", "none", "--no-color", "--continue-on-failure"]);
        command.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20", "--checks"]);
        command.arg(
            "nothing_breaks,status_code_conformance,content_type_conformance,response_schema_conformance,\
             response_headers_conformance",
        );
        command.args(arguments);
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        let output = spawn_blocking(move || command.output()).await.expect("a task").expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{failed}");
        println!("{}", said.rsplit("SUMMARY").next().unwrap_or_default());
        let count = |what: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap_or_default();
            line.trim().split(['/', ' ']).next().and_then(|number| number.parse::<u32>().ok())
        };
        let (selected, tested) = (count("Selected:"), count("Tested:"));
        assert!(selected.is_some_and(|selected| selected > 0) && selected == tested, "{said}");
    }

    /// Nothing broke that no answer told of.
    async fn is_well(&self) {
        let health = send(bare(self.server.http, Method::GET, "/health")).await.expect(200);
        assert_eq!(health["status"], "healthy", "{health}");
        for fault in ["a request handler panicked", "panicked at", " ERROR "] {
            assert!(!self.server.process.said(fault), "the log says `{fault}`");
        }
    }
}

/// No answer is a fault, of a status or type that is not documented, or of another form than its schema.
#[test]
fn every_operation_answers_as_it_is_documented() {
    go_within(LONGEST, async {
        let asked = Asked::start().await;
        let customers = ["--exclude-path-regex", "^/admin/", "--max-examples", "15"];
        asked.ask(&asked.key(), &[], &customers).await;
        // Last, because it changes and removes what it finds.
        let operators = ["--include-path-regex", "^/admin/", "--max-examples", "10"];
        asked.ask(&asked.key(), &[], &operators).await;
        asked.is_well().await;
    });
}

/// The same of things that are there: a live call with its recording, and one of everything an operator makes.
#[test]
fn every_operation_on_what_is_there_answers_as_it_is_documented() {
    go_within(LONGEST, async {
        let asked = Asked::start().await;
        let (key, admin) = (asked.key(), Admin::of(&asked.server));
        let hooks = Receiver::start().await;
        let call = key.answered_call(&json!({"number": number("0501"), "webhookUrl": hooks.url()})).await;
        let recording = until(20.0, "the call is recorded", async || {
            let found = key.get(&format!("/recordings/{call}")).await;
            (found.status == 200).then(|| found.json())
        })
        .await;
        let delivery = until(20.0, "a webhook is in the log", async || {
            admin.get("/deliveries?limit=1").await["deliveries"][0]["id"].as_i64()
        })
        .await;
        let made = admin.post("/keys", json!({"name": "spare"})).await.expect(201);
        asked.server.trunk("spare", ([127, 0, 0, 1], free_port()).into(), &[]);
        let tenant = admin.post("/tenants", json!({"name": "Spare", "subdomain": "spare"})).await.expect(201);
        let body = json!({"phoneNumber": "+14155550177"});
        let routed = admin.post("/numbers", body).await.expect(201);
        asked.server.put_sound("spare.wav", &crate::audio::chirp(0.2));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let made_at = async |path: &str, body: Value| text(&key.post(path, &body).await.expect(201)["id"]);
        let agent = json!({"name": "Spare", "system_prompt": "Be kind.", "type": "outbound"});
        let voxforge = json!({"name": "Spare", "systemPrompt": "Be kind."});
        let contact = json!({"name": "Spare", "phone": "+14155550178"});
        let (tenant, routed) = (text(&tenant["id"]), text(&routed["phoneNumber"]));
        let known = [
            ("/", "callId", call),
            ("/recordings/", "filename", text(&recording["filename"])),
            ("/recordings/", "recordingId", text(&recording["recordingId"])),
            ("/admin/v1/keys/", "key", text(&made["keyId"])),
            ("/admin/v1/trunks/", "trunk", "spare".to_owned()),
            ("/admin/v1/tenants/", "tenant", tenant.clone()),
            ("/admin/v1/numbers/", "number", routed.clone()),
            ("/admin/v1/deliveries/", "delivery", delivery.to_string()),
            ("/admin/v1/sounds/", "file", "spare.wav".to_owned()),
            ("/api/", "agent", made_at("/api/agents", agent).await),
            ("/api/phone-numbers/", "number", routed),
            ("/tenants/", "tenant", tenant),
            ("/api/v1/agents/", "id", made_at("/api/v1/agents", voxforge).await),
            ("/api/v1/contacts/", "id", made_at("/api/v1/contacts", contact).await),
        ];
        let those = ["--include-path-regex", "[{]", "--exclude-method", "DELETE", "--max-examples", "10"];
        asked.ask(&key, &known, &those).await;
        asked.is_well().await;
    });
}

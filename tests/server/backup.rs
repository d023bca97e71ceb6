//! `trunkline backup`, `restore` and `doctor` from outside, and databases of earlier versions.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::task::spawn_blocking;

use crate::api::Key;
use crate::carrier::Carrier;
use crate::harness::postgres::Database;
use crate::harness::{Server, TRUNKLINE, go, home, number, until};

/// A place for a database and folders, without a server. The database is a file here or one of a PostgreSQL.
struct Place(PathBuf, Option<Database>);

impl Place {
    fn new(name: &str) -> Self {
        Self(home(name), None)
    }

    fn on_postgres(name: &str) -> Self {
        Self(home(name), Some(Database::new()))
    }

    fn url(&self) -> String {
        let file = || format!("sqlite://{}/trunkline.db", self.0.display());
        self.1.as_ref().map_or_else(file, Database::url)
    }

    /// A server on what is here.
    async fn serve(&self) -> Server {
        let (url, sounds, recordings) = (self.url(), self.path("sounds"), self.path("recordings"));
        let settings =
            [("DATABASE__URL", &*url), ("PATHS__SOUNDS", &*sounds), ("PATHS__RECORDINGS", &*recordings)];
        Server::start("restored", &settings).await
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Runs a command on it.
    async fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        let mut command = Command::new(TRUNKLINE);
        command.args(arguments).arg("--json").current_dir(&self.0);
        command.env("TRUNKLINE_DATABASE__URL", self.url());
        command.env("TRUNKLINE_PATHS__SOUNDS", self.path("sounds"));
        command.env("TRUNKLINE_PATHS__RECORDINGS", self.path("recordings"));
        for (name, value) in settings {
            command.env(format!("TRUNKLINE_{name}"), value);
        }
        spawn_blocking(move || command.output()).await.expect("a task").expect("the program starts")
    }

    async fn done(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments, &[]).await;
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    }

    /// Fills the database as the program of schema 4 left one.
    async fn of_schema_4(&self) {
        let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/schemas/0004.sql");
        let dump = std::fs::read_to_string(dump).expect("the dump is there");
        let options = SqliteConnectOptions::new().filename(self.0.join("trunkline.db"));
        let options = options.create_if_missing(true).foreign_keys(false);
        let mut connection = options.connect().await.expect("a new file");
        sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&mut connection).await.expect("the dump is SQL");
        sqlx::Connection::close(connection).await.expect("it closes");
    }
}

/// What a customer can see of its past.
async fn seen(key: &Key, call: &str) -> (Value, Vec<u8>) {
    let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
    let events = key.get(&format!("/calls/{call}/events")).await.expect(200);
    let recordings = key.get("/recordings").await.expect(200);
    let sound = key.get(&format!("/recordings/{call}/download")).await;
    assert_eq!(sound.status, 200);
    let credits = key.credits().await;
    (json!([logs, events, recordings, credits]), sound.body)
}

/// Saved beside a running server, then from one database into the next: SQLite, SQLite, PostgreSQL, SQLite.
#[test]
fn a_backup_brings_everything_back_on_whichever_database() {
    go(async {
        let folder = home("backup");
        let carrier = Carrier::start(&folder.join("carrier"), false).await;
        let server = Server::start("saved", &[]).await;
        server.trunk("carrier", carrier.addr, &[]);
        server.put_sound("custom/welcome.wav", &[1000; 800]);
        let key = server.key(&["--credits", "5", "--trunks", "carrier", "--keep-days", "9"]);
        let call = key.call(&json!({"number": number("0400")})).await;
        until(20.0, "the call is over and recorded", async || {
            let events = key.get(&format!("/calls/{call}/events")).await.expect(200).to_string();
            (events.contains("ended") && events.contains("recording_completed")).then_some(())
        })
        .await;
        let before = seen(&key, &call).await;

        let mut file = folder.join("all.tar").display().to_string();
        let saved = server.cli(&["backup", &file, "--with-recordings"]);
        assert_eq!((&saved["sounds"], &saved["recordingsCopied"]), (&json!(1), &json!(1)), "{saved}");
        let mode = PermissionsExt::mode(&std::fs::metadata(&file).expect("a file").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let left: Vec<_> =
            std::fs::read_dir(&folder).expect("a folder").flatten().map(|e| e.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains(".partial")), "{left:?}");
        let in_use = server.run(&["restore", &file, "--force"]);
        let in_use = String::from_utf8_lossy(&in_use.stderr);
        assert!(in_use.contains("another trunkline serves from"), "{in_use}");

        let last = Place::new("back");
        for place in [&Place::new("first"), &Place::on_postgres("second"), &last] {
            let restored = place.done(&["restore", &file]).await;
            assert_eq!((&restored["rows"], &restored["recordingsMissing"]), (&saved["rows"], &json!(0)));
            place.done(&["backup", "again.tar", "--with-recordings"]).await;
            let again = place.path("again.tar");
            assert_eq!(held(Path::new(&again)), held(Path::new(&file)));
            let server = place.serve().await;
            assert!(place.0.join("sounds/custom/welcome.wav").exists());
            let key = Key { base: format!("http://{}", server.http), ..key.clone() };
            assert_eq!(seen(&key, &call).await, before);
            let keys = server.cli(&["keys", "list"]);
            let kept =
                keys.as_array().into_iter().flatten().find(|listed| listed["keyId"] == json!(key.key_id));
            assert_eq!(kept.map(|listed| &listed["keepDays"]), Some(&json!(9)), "{keys}");
            // Counters go on where they were: the next call and the next key are new ones.
            let next = key.call(&json!({"number": number("0400")})).await;
            assert_ne!(next.split('.').next_back(), call.split('.').next_back());
            server.key(&[]);
            let in_use = place.refused(&["restore", &file, "--force"]).await;
            assert!(in_use.contains("another trunkline serves from"), "{in_use}");
            drop(server);
            let not_empty = place.refused(&["restore", &file]).await;
            assert!(not_empty.contains("--force"), "{not_empty}");
            file = again;
        }
    });
}

#[test]
fn what_is_not_whole_is_refused_and_changes_nothing() {
    go(async {
        let place = Place::new("whole");
        place.done(&["keys", "create", "first"]).await;
        place.done(&["backup", "a.tar"]).await;
        let keys = place.done(&["keys", "list"]).await;
        let not_empty = place.refused(&["restore", "a.tar"]).await;
        assert!(not_empty.contains("--force"), "{not_empty}");

        let whole = std::fs::read(place.0.join("a.tar")).expect("a backup");
        // Past the header of an entry in the middle: within what the rows say.
        let at = whole.windows(5).position(|window| window == b"first").expect("the key's name is in it");
        let mut changed = whole.clone();
        changed[at] = b'F';
        let cut = whole[..whole.len() / 2].to_vec();
        for (name, bytes) in
            [("changed", changed), ("cut", cut), ("empty", Vec::new()), ("text", b"no tar".to_vec())]
        {
            std::fs::write(place.0.join(name), bytes).expect("writable");
            let refused = place.refused(&["restore", name, "--force"]).await;
            assert!(refused.contains("not a whole backup"), "{name}: {refused}");
        }
        let missing = place.refused(&["restore", "nowhere.tar"]).await;
        assert!(missing.contains("nowhere.tar"), "{missing}");
        assert_eq!(place.done(&["keys", "list"]).await, keys);

        place.done(&["keys", "create", "second"]).await;
        place.done(&["restore", "a.tar", "--force"]).await;
        assert_eq!(place.done(&["keys", "list"]).await, keys);
        // Restored twice is the same as once, and a second backup holds the same rows.
        place.done(&["backup", "b.tar"]).await;
        assert_eq!(held(&place.0.join("a.tar")), held(&place.0.join("b.tar")));
    });
}

/// What a backup holds, by its entries: rows, sounds and recordings.
fn held(path: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).expect("a backup"));
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("it is whole");
        (name, String::from_utf8_lossy(&bytes).into_owned())
    });
    entries.filter(|(name, _)| !["manifest.json", "end.json"].contains(&name.as_str())).collect()
}

#[test]
fn databases_of_schema_4_are_read_saved_and_restored() {
    go(async {
        let old = Place::new("old");
        old.of_schema_4().await;
        // Saved as it is, without being brought up to date.
        old.done(&["backup", "old.tar"]).await;
        let file = old.path("old.tar");
        let restored = [Place::new("new"), Place::on_postgres("moved")];
        for place in &restored {
            assert_eq!(place.done(&["restore", &file]).await["recordingsMissing"], 1);
        }
        for place in restored.iter().chain([&old]) {
            let keys = place.done(&["keys", "list"]).await.to_string();
            assert!(keys.contains("first key") && keys.contains("key_7c07695da2"), "{keys}");
            let server = place.serve().await;
            let health = crate::api::bare(server.http, reqwest::Method::GET, "/health");
            assert_eq!(crate::api::send(health).await.status, 200);
            let key = server.key(&[]);
            assert_eq!(key.get("/api/me").await.status, 200);
        }
    });
}

#[test]
fn a_schema_that_is_newer_is_refused() {
    go(async {
        let place = Place::new("newer");
        let manifest = json!({
            "format": 1, "program": "trunkline 99", "made_at": "", "schema": [[9999, "00"]], "tables": [],
            "with_recordings": false,
        });
        let manifest = manifest.to_string();
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, text: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len().try_into().expect("short"));
            builder.append_data(&mut header, name, text.as_bytes()).expect("an entry");
        };
        add("manifest.json", &manifest);
        let sum = <sha2::Sha256 as sha2::Digest>::digest(manifest.as_bytes());
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        let end = json!([{"name": "manifest.json", "bytes": manifest.len(), "sha256": sum}]);
        add("end.json", &end.to_string());
        std::fs::write(place.0.join("a.tar"), builder.into_inner().expect("a tar")).expect("writable");
        let refused = place.refused(&["restore", "a.tar"]).await;
        assert!(refused.contains("migration 9999 was made by a newer version"), "{refused}");
    });
}

#[test]
fn the_doctor_says_what_is_well_and_what_is_broken() {
    go(async {
        let server = Server::start("doctor", &[]).await;
        let carrier = Carrier::start(&server.home.join("carrier"), false).await;
        server.trunk("carrier", carrier.addr, &[]);
        server.key(&[]);
        let said = server.cli(&["doctor"]);
        assert_eq!(said["ok"], true, "{said}");
        let found = |what: &str| {
            let checks = said["checks"].as_array().expect("a list").iter();
            let found: Vec<_> =
                checks.filter(|check| check["what"].as_str().is_some_and(|w| w.starts_with(what))).collect();
            assert_eq!(found.len(), 1, "{what}: {said}");
            found[0]["detail"].as_str().expect("words").to_owned()
        };
        assert!(found("HTTP").contains("a server answers: healthy"));
        assert!(found("trunk carrier").contains("answers 200 OK"));
        assert!(found("keys").starts_with("1 can be used"));

        let place = Place::new("sick");
        std::fs::write(place.0.join("trunkline.db"), "no database at all, but text of some length")
            .expect("writable");
        std::fs::write(place.0.join("recordings"), "a file").expect("writable");
        let ports = [("HTTP__LISTEN", "127.0.0.1:0"), ("SIP__UDP", "127.0.0.1:0")];
        let sick = place.run(&["doctor"], &ports).await;
        assert_eq!(sick.status.code(), Some(1));
        let said: Value = serde_json::from_slice(&sick.stdout).expect("JSON");
        let broken: Vec<_> = said["checks"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|c| c["finding"] == "broken")
            .map(|c| c["what"].as_str().expect("text"))
            .collect();
        assert_eq!(broken, ["recordings", "database"], "{said}");

        let unread = place.run(&["doctor"], &[("NOTHING__LIKE_IT", "1")]).await;
        assert_eq!(unread.status.code(), Some(1));
        let said: Value = serde_json::from_slice(&unread.stdout).expect("JSON");
        assert_eq!(
            (said["ok"].as_bool(), &said["checks"][0]["what"]),
            (Some(false), &json!("configuration"))
        );
    });
}

//! A database that cannot be written for a while, because another holds it or its disk is full: calls and speech go on, what waits is said, nothing is lost and
//! nothing is done twice when it comes back.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use crate::api::bare;
use crate::harness::{Server, go, home, number, until};
use crate::invariants::{every_end_arrives, money_is_exact, one_end_each, settled};
use crate::receiver::Receiver;
use crate::uas::Uas;

/// Takes the write lock of a server's database, as a runaway backup would.
async fn lock(server: &Server) -> SqliteConnection {
    let url = format!("sqlite://{}/trunkline.db", server.home.display());
    let mut connection = SqliteConnection::connect(&url).await.expect("the database opens");
    until(10.0, "the write lock is free", async || {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.ok()
    })
    .await;
    connection
}

#[test]
fn a_database_that_cannot_be_written_holds_up_no_call_and_loses_none() {
    go(async {
        let server = Server::start("locked", &[]).await;
        let far_end = Uas::answering().await;
        let (key, _) = server.key_on("10", &[far_end.addr]);
        let hooks = Receiver::start().await;
        let first = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let second = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;

        let locked = lock(&server).await;
        // The live views and the verbs need no database.
        key.post("/voice", &json!({"callId": first, "text": "Still here."})).await.expect(200);
        key.hang_up(&first).await;
        far_end.wait("BYE").await;
        until(60.0, "the health page says what is wrong", async || problem(&server).await).await;
        assert_eq!(hooks.count("call.ended"), 0, "nothing is told that is not written down");
        key.get(&format!("/calls/{second}")).await.expect(200);
        key.hang_up(&second).await;
        locked.close().await.expect("the lock is let go");

        let past = settled(&key).await;
        hooks.wait_nth("call.ended", 2).await;
        assert_eq!(past.len(), 2);
        one_end_each(&past);
        money_is_exact(&key, 10, &past).await;
        every_end_arrives(&key, &hooks, &past).await;
        until(10.0, "the health page is content again", async || healthy(&server).await).await;
    });
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(bytes: &str) -> Self {
        let path = home("small-disk");
        let size = format!("size={bytes}");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(&path).status().expect("mount can be run");
        assert!(mounted.success(), "a tmpfs can be mounted; run this as root");
        Self(path)
    }

    /// Takes all that is free; given back when the file is removed.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("there is room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server that is killed beside this may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_under_the_database_holds_up_no_call_and_loses_none() {
    go(async {
        let disk = SmallDisk::mount("8m");
        let url = format!("sqlite://{}/trunkline.db", disk.0.display());
        let server = Server::start("full", &[("DATABASE__URL", &url)]).await;
        let far_end = Uas::answering().await;
        let (key, _) = server.key_on("10", &[far_end.addr]);
        let hooks = Receiver::start().await;
        let first = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let second = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;

        let filler = disk.fill();
        for text in ["Nothing more fits.", "And still we speak.", "To the end."] {
            key.post("/voice", &json!({"callId": first, "text": text})).await.expect(200);
        }
        key.hang_up(&first).await;
        far_end.wait("BYE").await;
        until(30.0, "the health page says what is wrong", async || problem(&server).await).await;
        assert_eq!(hooks.count("call.ended"), 0, "nothing is told that is not written down");
        let refused = key.post("/makecall", &json!({"number": number("0100")})).await;
        assert!(refused.status >= 500, "no call that cannot be written down: {}", refused.status);
        key.get(&format!("/calls/{second}")).await.expect(200);

        std::fs::remove_file(filler).expect("the filler can be removed");
        key.hang_up(&second).await;
        let past = settled(&key).await;
        one_end_each(&past);
        money_is_exact(&key, 10, &past).await;
        every_end_arrives(&key, &hooks, &past).await;
        until(10.0, "the health page is content again", async || healthy(&server).await).await;
    });
}

async fn health(server: &Server) -> Option<Value> {
    bare(server.http, Method::GET, "/health").send().await.ok()?.json().await.ok()
}

/// What the health page complains of.
async fn problem(server: &Server) -> Option<Value> {
    let health = health(server).await?;
    let said = health["status"] == "degraded" && !health["problems"].as_array()?.is_empty();
    said.then_some(health)
}

async fn healthy(server: &Server) -> Option<()> {
    (health(server).await?["status"] == "healthy").then_some(())
}

//! Money where two servers share one PostgreSQL: of many requests that come to both at once exactly as many are granted
//! as there are credits.

use std::time::Duration;

use serde_json::json;

use crate::api::Key;
use crate::carrier::Carrier;
use crate::database;
use crate::harness::postgres::Database;
use crate::harness::{Server, go_within, home, number, until};

/// Requests at once, and credits for half of them.
const REQUESTS: usize = 200;
const CREDITS: usize = 100;

#[test]
fn two_servers_spend_no_credit_twice() {
    let _alone = database::alone();
    go_within(Duration::from_secs(180), async {
        let database = Database::new();
        let url = database.url();
        let recordings = home("credits-recordings");
        let settings = [
            ("DATABASE__URL", url.as_str()),
            ("PATHS__RECORDINGS", recordings.to_str().expect("a plain path")),
            ("LIMITS__REQUESTS_PER_SECOND_PER_KEY", "100000"),
        ];
        let carrier = Carrier::start(&home("credits-carrier"), false).await;
        let servers =
            [Server::start("credits-a", &settings).await, Server::start("credits-b", &settings).await];
        servers[0].trunk("carrier", carrier.addr, &[]);
        let credits = CREDITS.to_string();
        let options = ["--credits", &credits, "--trunks", "carrier", "--max-concurrent", "1000"];
        let key = servers[0].key(&[&options[..], &["--rate-limit", "100000", "--recording", "off"]].concat());
        let keys =
            servers.each_ref().map(|server| Key { base: format!("http://{}", server.http), ..key.clone() });
        let requests: Vec<_> = (0..REQUESTS)
            .map(|n| {
                let (key, order) = (keys[n % 2].clone(), json!({"number": number("0100")}));
                tokio::spawn(async move { key.post("/makecall", &order).await.status })
            })
            .collect();
        let mut granted = [0; 2];
        for (n, request) in requests.into_iter().enumerate() {
            match request.await.expect("no request panics") {
                200 => granted[n % 2] += 1,
                status => assert_eq!(status, 402),
            }
        }
        println!("{granted:?} of {REQUESTS} granted");
        assert_eq!(granted.iter().sum::<usize>(), CREDITS);
        assert!(granted.iter().all(|granted| *granted > 0), "both servers grant: {granted:?}");
        // All are answered and paid for, each by one credit.
        until(30.0, "every credit is spent", async || (keys[1].credits().await == 0).then_some(())).await;
        for key in &keys {
            let live = key.get("/calls").await.expect(200);
            for call in live["calls"].as_array().expect("a list") {
                let over = key.post("/hangup", &json!({"callId": call["callId"]})).await.status;
                // The list shows calls of the other server, too; they are hung up there.
                assert!(matches!(over, 200 | 404 | 409 | 503), "{over}");
            }
        }
        let wanted = CREDITS;
        until(30.0, "the far end has seen every call", async || {
            (carrier.lines().len() >= wanted).then_some(())
        })
        .await;
        assert_eq!(carrier.lines().len(), CREDITS, "no call that was not paid for");
        assert_eq!(keys[0].credits().await, 0);
    });
}

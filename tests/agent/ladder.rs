//! `GET /admin/v1/calls/:id/sip`: what was said about calls, over several trunks, in both directions, and for whoever a call
//! is put through to; and that neither passwords nor pressed keys are shown.

use serde_json::{Value, json};

use crate::api::Key;
use crate::harness::{Server, go, number, until};
use crate::receiver::Receiver;
use crate::sipp::Sipp;
use crate::uas::{Script, Uas};

async fn ladder(admin: &Key, call: &str) -> Value {
    admin.get(&format!("/admin/v1/calls/{call}/sip")).await.expect(200)
}

/// Direction, peer and summary of each message, without what stands behind the first words.
fn words(ladder: &Value) -> Vec<(String, String, String)> {
    let text = |message: &Value, name: &str| message[name].as_str().expect("text").to_owned();
    let short = |summary: String| {
        let status = summary.starts_with(|c: char| c.is_ascii_digit());
        if status { summary } else { summary.split(' ').next().unwrap_or_default().to_owned() }
    };
    let messages = ladder["messages"].as_array().expect("messages");
    let row = |m: &Value| (text(m, "direction"), text(m, "peer"), short(text(m, "summary")));
    messages.iter().map(row).collect()
}

fn has(ladder: &Value, direction: &str, peer: &str, summary: &str) -> bool {
    words(ladder).contains(&(direction.to_owned(), peer.to_owned(), summary.to_owned()))
}

/// By the engine's id, drawn, and by nobody but an operator.
async fn shown_to_operators(admin: &Key, key: &Key, shown: &Value) {
    let path = format!("/admin/v1/calls/{}/sip", shown["id"].as_str().expect("an id"));
    assert_eq!(admin.get(&path).await.expect(200)["callId"], shown["callId"]);
    let drawn = admin.get(&format!("{path}?format=text")).await;
    let page = String::from_utf8(drawn.body.clone()).expect("text");
    assert_eq!((drawn.status, drawn.header("content-type")), (200, "text/plain; charset=utf-8"));
    let peer = shown["messages"][0]["peer"].as_str().expect("a peer");
    for part in
        ["|--INVITE (SDP)---", "|<-", "--503 Service Unavailable---", &format!("{peer}/udp"), "[masked]"]
    {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    let asked = admin.request(reqwest::Method::GET, &path).header("accept", "text/plain");
    assert!(crate::api::send(asked).await.header("content-type").starts_with("text/plain"));
    assert_eq!(admin.get(&format!("{path}?format=xml")).await.status, 400);
    assert_eq!(key.get(&path).await.status, 403);
    assert_eq!(admin.get("/admin/v1/calls/1.1/sip").await.status, 404);
}

#[test]
fn a_call_over_two_trunks_with_a_password_and_keys() {
    go(async {
        let server = Server::start("ladder-out", &[]).await;
        let tired = Uas::start(Script::Final("503 Service Unavailable", "")).await;
        let mut sipp = Sipp::start("info_keys", 1).await;
        let asking = Uas::start(Script::Final(
            "407 Proxy Authentication Required",
            "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n",
        ))
        .await;
        let login = ["--username", "alice", "--password", "opensesame"];
        server.trunk("asking", asking.addr, &login);
        server.trunk("tired", tired.addr, &[]);
        server.trunk("well", sipp.addr, &[]);
        let key = server.key(&["--credits", "10", "--trunks", "asking,tired,well"]);
        let admin = server.key(&["--admin"]);
        let hooks = Receiver::start().await;
        let body = json!({"number": number("0100"), "webhookUrl": hooks.url()});
        let call = key.answered_call(&body).await;
        hooks.wait_nth("dtmf.received", 3).await;

        let shown = ladder(&admin, &call).await;
        assert_eq!(
            (&shown["callId"], &shown["live"], &shown["leftOut"]),
            (&json!(call), &json!(true), &json!(0))
        );
        let [asking, tired, well] = [asking.addr, tired.addr, sipp.addr].map(|addr| addr.to_string());
        for (direction, peer, summary) in [
            ("sent", &asking, "INVITE"),
            ("received", &asking, "407 Proxy Authentication Required (INVITE)"),
            ("sent", &asking, "ACK"),
            ("sent", &tired, "INVITE"),
            ("received", &tired, "503 Service Unavailable (INVITE)"),
            ("sent", &well, "INVITE"),
            ("received", &well, "200 OK (INVITE)"),
            ("received", &well, "INFO"),
            ("sent", &well, "200 OK (INFO)"),
        ] {
            assert!(
                has(&shown, direction, peer, summary),
                "{direction} {peer} {summary}: {:?}",
                words(&shown)
            );
        }
        let text = shown.to_string();
        assert!(text.contains("Proxy-Authorization: Digest [masked]"), "{text}");
        assert!(
            !text.contains("opensesame") && !text.contains("response=") && !text.contains("Signal"),
            "{text}"
        );

        shown_to_operators(&admin, &key, &shown).await;

        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        sipp.went_well().await;
        until(5.0, "the BYE's answer is there, too", async || {
            let shown = ladder(&admin, &call).await;
            has(&shown, "received", &well, "200 OK (BYE)").then(|| assert_eq!(shown["live"], false))
        })
        .await;
    });
}

#[test]
fn a_call_that_comes_in_with_a_password() {
    go(async {
        let server = Server::start("ladder-in", &[]).await;
        let login = ["--username", "alice", "--password", "opensesame", "--auth-inbound"];
        server.trunk("carrier", "127.0.0.1:9".parse().expect("an address"), &login);
        let key = server.key(&["--trunks", "carrier", "--rate-limit", "10000"]);
        let admin = server.key(&["--admin"]);
        let (hooks, number) = (Receiver::start().await, number("0042"));
        let e164 = format!("+{number}");
        server.cli(&["numbers", "add", &e164, "--webhook", &hooks.url(), "--key", &key.key_id]);
        let mut caller = Sipp::call("uac_password", server.sip, &number).await;
        let call = hooks.wait("call.answered").await.json["callId"].as_str().expect("an id").to_owned();
        caller.went_well().await;
        hooks.wait("call.ended").await;

        let shown = ladder(&admin, &call).await;
        let they = caller.addr.to_string();
        let wanted = [
            ("received", "INVITE"),
            ("sent", "100 Trying (INVITE)"),
            ("sent", "401 Unauthorized (INVITE)"),
            ("received", "ACK"),
            ("received", "INVITE"),
            ("sent", "100 Trying (INVITE)"),
            ("sent", "200 OK (INVITE)"),
            ("received", "ACK"),
            ("received", "BYE"),
            ("sent", "200 OK (BYE)"),
        ];
        let first: Vec<_> = words(&shown).into_iter().filter(|(_, peer, _)| *peer == they).collect();
        let first: Vec<_> = first.iter().map(|(way, _, what)| (way.as_str(), what.as_str())).collect();
        assert_eq!(first, wanted);
        let text = shown.to_string();
        assert!(text.contains("Authorization: Digest [masked]") && !text.contains("response="), "{text}");
    });
}

#[test]
fn whoever_a_call_is_put_through_to_is_in_its_ladder() {
    go(async {
        let server = Server::start("ladder-second", &[]).await;
        let far = Uas::answering().await;
        let (key, _) = server.key_on("10", &[far.addr]);
        let admin = server.key(&["--admin"]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let id = ladder(&admin, &call).await["id"].as_str().expect("an id").to_owned();
        let target = number("0043");
        let transfer = json!({"call_sid": format!("CA{id}"), "target": format!("+{target}")});
        key.post("/api/override/transfer", &transfer).await.expect(200);
        until(10.0, "both are there", async || (far.sounds().len() == 2).then_some(())).await;
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        let byes = until(5.0, "both are hung up", async || {
            let shown = ladder(&admin, &call).await;
            let byes = words(&shown).iter().filter(|(way, _, what)| way == "sent" && what == "BYE").count();
            (byes == 2).then_some(shown)
        })
        .await;
        let messages = byes["messages"].as_array().expect("messages");
        let invites: Vec<_> = messages
            .iter()
            .filter(|message| message["summary"].as_str().is_some_and(|text| text.starts_with("INVITE ")))
            .collect();
        assert_eq!(invites.len(), 2, "{byes}");
        assert_ne!(invites[0]["sipCallId"], invites[1]["sipCallId"]);
        assert!(invites[1]["summary"].as_str().is_some_and(|text| text.contains(&target)), "{byes}");
    });
}

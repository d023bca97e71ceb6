//! Registrations from outside: at Kamailio, which lets only the registered call, and at a registrar of the tests' own
//! that shows when what is sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::harness::{Process, Server, free_port, go, home, number, until, wait_bound};
use crate::uas::{Message, Uas, response};

/// Takes REGISTER and INVITE with alice's password alone, and INVITE only while she is registered; relays it.
const KAMAILIO: &str = r#"
debug=2
log_stderror=yes
fork=no
children=2
auto_aliases=no
listen=udp:LISTEN
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("registrar", "min_expires", 30)
request_route {
    if (has_totag()) { loose_route(); t_relay(); exit; }
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("sip.test", "wonderland", "0")) { www_challenge("sip.test", "1"); exit; }
        save("location");
        exit;
    }
    if (!pv_proxy_authenticate("sip.test", "wonderland", "0")) { proxy_challenge("sip.test", "1"); exit; }
    consume_credentials();
    if (!registered("location", "sip:alice@LISTEN_HOST")) { sl_send_reply("403", "Register first"); exit; }
    record_route();
    $du = "sip:FAR_END";
    t_relay();
}
"#;

async fn kamailio(far_end: SocketAddr) -> (Process, SocketAddr) {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let folder = home("kamailio");
    let config = KAMAILIO.replace("LISTEN_HOST", "127.0.0.1").replace("LISTEN", &addr.to_string());
    let file = folder.join("kamailio.cfg");
    std::fs::write(&file, config.replace("FAR_END", &far_end.to_string()))
        .expect("the folder can be written");
    let mut command = Command::new("kamailio");
    command.args(["-DD", "-E", "-m", "16", "-M", "4", "-Y"]).arg(&folder).arg("-f").arg(&file);
    let mut process = Process::start_group("kamailio", &mut command, folder.join("kamailio.log"));
    wait_bound(addr, &mut process).await;
    (process, addr)
}

async fn health(server: &Server, trunk: &str) -> Value {
    let admin = server.key(&["--admin"]);
    admin.get(&format!("/admin/v1/trunks/{trunk}")).await.expect(200)["health"].clone()
}

#[test]
fn a_trunk_is_registered_at_kamailio_and_called_through_it() {
    go(async {
        let far = Uas::answering().await;
        let (_kamailio, proxy) = kamailio(far.addr).await;
        let server = Server::start("registered", &[]).await;
        let credentials = ["--username", "alice", "--password", "wonderland"];
        server.trunk("silent", proxy, &credentials);
        let key = server.key(&["--trunks", "silent"]);
        let failed = key.post("/makecall", &json!({"number": number("0100")})).await.expect(500);
        assert_eq!(failed["code"], "ORIGINATION_FAILED");

        let asked = ["--register", "--register-expires-s", "60", "--options-interval-s", "1"];
        server.trunk("registered", proxy, &[&credentials[..], &asked].concat());
        let known = until(15.0, "the trunk is registered and answers OPTIONS", async || {
            let health = health(&server, "registered").await;
            let known = health["registeredUntil"].is_string() && health["pingMs"].is_u64();
            known.then_some(health)
        })
        .await;
        assert_eq!(known["registerError"], Value::Null);
        let key = server.key(&["--trunks", "registered"]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        key.hang_up(&call).await;
        far.wait("BYE").await;
        assert_eq!(key.wait_ended(&call).await["status"], "completed");

        server.trunk("wrong", proxy, &["--username", "alice", "--password", "looking glass", "--register"]);
        let refused = until(15.0, "the wrong password is told", async || {
            health(&server, "wrong").await["registerError"].as_str().map(str::to_owned)
        })
        .await;
        assert!(refused.starts_with("401 Unauthorized; again in "), "{refused}");
    });
}

/// What a registrar of the tests' own was sent.
type Log = Arc<Mutex<Vec<Message>>>;

/// Challenges, then grants 4 seconds.
async fn registrar() -> (SocketAddr, Log) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
    let addr = socket.local_addr().expect("a bound socket has an address");
    let log = Log::default();
    let kept = log.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let message = Message { at: Instant::now(), from, text };
            let answer = if message.header("Authorization").is_empty() {
                let challenge =
                    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256\r\n";
                response(&message, addr, "401 Unauthorized", challenge, "")
            } else {
                response(&message, addr, "200 OK", "Expires: 4\r\n", "")
            };
            kept.lock().expect("no test panics here").push(message);
            socket.send_to(answer.as_bytes(), from).await.expect("loopback takes it");
        }
    });
    (addr, log)
}

#[test]
fn a_registration_is_refreshed_in_time_and_given_up_at_the_end() {
    go(async {
        let (addr, log) = registrar().await;
        let mut server = Server::start("refreshed", &[]).await;
        server.trunk("r", addr, &["--username", "bob", "--password", "builder", "--register"]);
        let granted = || -> Vec<Message> {
            let log = log.lock().expect("no test panics here");
            log.iter().filter(|m| !m.header("Authorization").is_empty()).cloned().collect()
        };
        until(20.0, "two refreshes", async || (granted().len() >= 3).then_some(())).await;
        let sent = granted();
        for (at, message) in sent.iter().take(3).enumerate() {
            let shown = message.header("Authorization");
            assert!(shown.contains(&format!("nc={:08x}", at + 1)) && !shown.contains("builder"), "{shown}");
            assert_eq!(message.header("Call-ID"), sent[0].header("Call-ID"));
            assert!(message.header("Contact").starts_with("<sip:bob@127.0.0.1:"), "{}", message.text);
        }
        let waited = sent[2].at - sent[1].at;
        assert!((Duration::from_millis(1900)..Duration::from_millis(3500)).contains(&waited), "{waited:?}");

        server.process.signal("TERM");
        server.process.exited(20.0).await;
        let last = granted().pop().expect("there were some");
        assert_eq!(last.header("Expires"), "0");
    });
}

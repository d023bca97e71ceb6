//! Programs of others as peers: baresip answers a call and is spoken with, Kamailio stands in the middle, stays in the path
//! and forks.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::api::Key;
use crate::audio::{chirp, likeness, read_wav, read_wav_file, split_tone, tone, write_wav};
use crate::harness::{Process, Server, free_port, go, home, number, unique, until, wait_bound};
use crate::receiver::Receiver;
use crate::sipp::Sipp;
use crate::uas::{Script, Uas};

/// Answers by itself, sends 440 Hz, and writes down what it hears.
const BARESIP: &str = "sip_listen LISTEN
module_path /usr/lib/baresip/modules
module srtp.so
module account.so
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module_app menu.so
audio_source aufile,FOLDER/tone.wav
audio_player aubridge,sink
rtp_ports FIRST-LAST
snd_path FOLDER
";

/// Stays in the path and rings two far ends at once.
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
loadmodule "corex.so"
request_route {
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (has_totag()) {
        if (loose_route()) { t_relay(); exit; }
        if (is_method("ACK")) { t_relay(); exit; }
        sl_send_reply("481", "No route");
        exit;
    }
    record_route();
    $ru = "sip:one@FIRST";
    append_branch("sip:two@SECOND");
    t_relay();
}
"#;

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Starts it for calls to one number, as a trunk dials it. `encryption` is its own word: empty, `srtp`, `srtp-mand`.
async fn baresip(number: &str, encryption: &str) -> (Process, SocketAddr, PathBuf) {
    let addr = loopback();
    let account = format!("<sip:00{number}@{addr}>;regint=0;answermode=auto;mediaenc={encryption}\n");
    baresip_at(addr, account, &[]).await
}

/// Starts it with this account.
async fn baresip_at(addr: SocketAddr, account: String, arguments: &[&str]) -> (Process, SocketAddr, PathBuf) {
    let folder = home("baresip");
    let rtp = free_port() & !1;
    let config = BARESIP
        .replace("LISTEN", &addr.to_string())
        .replace("FIRST", &rtp.to_string())
        .replace("LAST", &rtp.saturating_add(20).to_string())
        .replace("FOLDER", &folder.display().to_string());
    for (name, text) in [("config", config), ("accounts", account), ("contacts", String::new())] {
        std::fs::write(folder.join(name), text).expect("the folder can be written");
    }
    write_wav(&folder.join("tone.wav"), &tone(440.0, 60.0, 8000.0));
    let mut command = Command::new("baresip");
    command.arg("-f").arg(&folder).args(arguments).current_dir(&folder);
    let mut process = Process::start("baresip", &mut command, folder.join("baresip.log"));
    wait_bound(addr, &mut process).await;
    (process, addr, folder)
}

async fn kamailio(first: SocketAddr, second: SocketAddr) -> (Process, SocketAddr) {
    let addr = loopback();
    let folder = home("kamailio-fork");
    let config = KAMAILIO.replace("LISTEN", &addr.to_string());
    let config = config.replace("FIRST", &first.to_string()).replace("SECOND", &second.to_string());
    let file = folder.join("kamailio.cfg");
    std::fs::write(&file, config).expect("the folder can be written");
    let mut command = Command::new("kamailio");
    command.args(["-DD", "-E", "-m", "16", "-M", "4", "-Y"]).arg(&folder).arg("-f").arg(&file);
    let mut process = Process::start_group("kamailio", &mut command, folder.join("kamailio.log"));
    wait_bound(addr, &mut process).await;
    (process, addr)
}

/// The tag of a message's `To`.
fn to_tag(message: &str) -> &str {
    let to = message.lines().find(|line| line.starts_with("To:")).unwrap_or_default();
    to.split_once(";tag=").map_or("", |(_, tag)| tag)
}

#[test]
fn baresip_answers_and_sound_goes_both_ways() {
    speaks_with_baresip("", "never");
}

/// FIELD 5.14: where encryption is not demanded it is offered beside plain RTP.
#[test]
fn sound_is_encrypted_where_baresip_can() {
    speaks_with_baresip("srtp", "optional");
}

#[test]
fn sound_is_encrypted_where_both_demand_it() {
    speaks_with_baresip("srtp-mand", "required");
}

#[test]
fn who_demands_encryption_does_not_speak_with_who_has_none() {
    go(async {
        for (theirs, ours) in [("srtp-mand", "never"), ("", "required")] {
            let number = number("0100");
            let (_baresip, addr, _) = baresip(&number, theirs).await;
            let server = Server::start("baresip-plain", &[]).await;
            let key = key_with(&server, addr, ours);
            let hooks = Receiver::start().await;
            let answer = key.post("/makecall", &json!({"number": number, "webhookUrl": hooks.url()})).await;
            if answer.status == 200 {
                let call = answer.json()["callId"].as_str().unwrap().to_owned();
                assert_ne!(key.wait_ended(&call).await["status"], "completed");
            }
            assert!(hooks.count("call.answered") == 0, "{theirs:?} and {ours}");
        }
    });
}

fn key_with(server: &Server, addr: SocketAddr, srtp: &str) -> Key {
    let name = unique("secure");
    server.trunk(&name, addr, &["--srtp", srtp]);
    server.key(&["--credits", "10", "--trunks", &name, "--rate-limit", "10000"])
}

fn speaks_with_baresip(theirs: &str, ours: &str) {
    go(async {
        let number = number("0100");
        let (_baresip, addr, folder) = baresip(&number, theirs).await;
        let server = Server::start("baresip-caller", &[]).await;
        server.put_sound("custom/chirp.wav", &chirp(1.0));
        let key = key_with(&server, addr, ours);
        let hooks = Receiver::start().await;
        let call = key.answered_call(&json!({"number": number, "webhookUrl": hooks.url()})).await;
        two_seconds_recorded(&server).await;
        key.post("/play", &json!({"callId": call, "file": "custom/chirp", "playTo": "channel"}))
            .await
            .expect(200);
        // What is said after it has been heard when the sound has, too.
        key.post("/voice", &json!({"callId": call, "text": "Bye.", "playTo": "channel"})).await.expect(200);
        hooks.wait("tts.played").await;
        key.hang_up(&call).await;
        hooks.wait("recording.completed").await;
        let log = std::fs::read_to_string(folder.join("baresip.log")).expect("it has a log");
        assert_eq!(log.contains("SRTP is Enabled (cryptosuite=AES_CM_128_HMAC_SHA1_80)"), !theirs.is_empty());
        let download = key.get(&format!("/recordings/{call}/download")).await;
        assert_eq!(download.status, 200);
        holds_the_tone(&download.body);
        heard_by_baresip(&folder).await;
    });
}

/// What baresip heard holds the sound that was played.
async fn heard_by_baresip(folder: &Path) {
    let theirs = until(10.0, "baresip has written what it heard", async || {
        let files = std::fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
        files.into_iter().find(|path| path.to_string_lossy().ends_with("-dec.wav"))
    })
    .await;
    let template: Vec<f64> = chirp(1.0).iter().map(|sample| f64::from(*sample)).collect();
    until(10.0, "the file holds the sound that was played", async || {
        (likeness(&template, &read_wav_file(&theirs)) > 0.9).then_some(())
    })
    .await;
}

/// A recording of ours: a sine and little else.
fn holds_the_tone(recording: &[u8]) {
    let heard = read_wav(recording);
    let (level, rest) = split_tone(&heard[8000..16_000], 440.0);
    assert!(level > -20.0 && level > rest + 20.0, "440 Hz at {level:.1} dBm0, the rest at {rest:.1}");
}

/// Waits until a server has recorded two seconds.
async fn two_seconds_recorded(server: &Server) {
    until(10.0, "two seconds are recorded", async || {
        let files = std::fs::read_dir(server.recordings()).ok()?.flatten();
        let written = files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>();
        // Two bytes a sample behind a header.
        (written > 2 * 16_000 + 44).then_some(())
    })
    .await;
}

/// Debian's baresip knows MD5 alone, and gives up where it is offered anything else beside it.
#[test]
fn baresip_calls_with_a_password_and_sound_goes_both_ways() {
    go(async {
        let server = Server::start("baresip-called", &[("SIP__INBOUND_SHA256", "false")]).await;
        server.put_sound("custom/chirp.wav", &chirp(1.0));
        let login = ["--username", "alice", "--password", "opensesame", "--auth-inbound"];
        server.trunk("carrier", loopback(), &login);
        let key = server.key(&["--trunks", "carrier"]);
        let (hooks, number) = (Receiver::start().await, number("0101"));
        let e164 = format!("+{number}");
        server.cli(&["numbers", "add", &e164, "--webhook", &hooks.url(), "--key", &key.key_id]);
        let account = format!("<sip:alice@{}>;auth_user=alice;auth_pass=opensesame;regint=0\n", server.sip);
        let dial = format!("/dial sip:{number}@{}", server.sip);
        let (_baresip, _, folder) = baresip_at(loopback(), account, &["-e", &dial]).await;
        let call = hooks.wait("call.answered").await.json["callId"].as_str().expect("an id").to_owned();
        two_seconds_recorded(&server).await;
        key.post("/play", &json!({"callId": call, "file": "custom/chirp", "playTo": "channel"}))
            .await
            .expect(200);
        key.post("/voice", &json!({"callId": call, "text": "Bye.", "playTo": "channel"})).await.expect(200);
        hooks.wait("tts.played").await;
        key.hang_up(&call).await;
        hooks.wait("recording.completed").await;
        let download = key.get(&format!("/recordings/{call}/download")).await;
        assert_eq!(download.status, 200);
        holds_the_tone(&download.body);
        heard_by_baresip(&folder).await;
    });
}

/// FIELD 5.4: requests inside a dialog go by the route set, here through a proxy that both sides must use.
#[test]
fn kamailio_forks_stays_in_the_path_and_routes_what_follows() {
    go(async {
        let mut one = Sipp::start("proxied", 1).await;
        let two = Uas::start(Script::Ring).await;
        let (_kamailio, proxy) = kamailio(one.addr, two.addr).await;
        let server = Server::start("proxied-caller", &[]).await;
        let (key, _) = server.key_on("10", &[proxy]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        // The far end holds and resumes through the proxy.
        one.said("CSeq: 2 ACK").await;
        let live = key.get("/calls").await.expect(200);
        assert_eq!(live["activeCalls"], 1, "{live}");
        key.hang_up(&call).await;
        assert_eq!(key.wait_ended(&call).await["status"], "completed");
        one.went_well().await;
        assert_eq!(two.count("CANCEL"), 1, "the fork that only rang is cancelled");
        assert_eq!(two.count("BYE"), 0);

        // What went over our own wire, which leads to the proxy alone: two that rang, one that answered, a hold and its
        // end, and a BYE by the route set.
        let admin = server.key(&["--admin"]);
        let ladder = admin.get(&format!("/admin/v1/calls/{call}/sip")).await.expect(200);
        let messages = ladder["messages"].as_array().expect("messages");
        let texts = |direction: &str, begin: &str| -> Vec<&str> {
            let of = messages.iter().filter(|message| message["direction"] == direction);
            let texts = of.filter_map(|message| message["text"].as_str());
            texts.filter(|text| text.starts_with(begin)).collect()
        };
        let tags: BTreeSet<_> = texts("received", "SIP/2.0 180 ").into_iter().map(to_tag).collect();
        assert_eq!(tags.len(), 2, "{tags:?}");
        let answers = texts("received", "SIP/2.0 200 ");
        let answered: BTreeSet<_> =
            answers.iter().filter(|text| text.contains(" INVITE\r\n")).map(|text| to_tag(text)).collect();
        assert!(answered.len() == 1 && answered.is_subset(&tags), "{answered:?} of {tags:?}");
        assert_eq!(texts("received", "INVITE ").len(), 2, "hold and resume");
        let bye = texts("sent", "BYE ").first().copied().expect("we hang up");
        assert!(bye.contains(&format!("Route: <sip:{proxy};lr")), "{bye}");
        assert!(bye.starts_with(&format!("BYE sip:{}", one.addr)), "{bye}");
        assert!(messages.iter().all(|message| message["peer"] == proxy.to_string()), "{ladder}");
    });
}

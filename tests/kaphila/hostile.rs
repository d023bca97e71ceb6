//! Bad input from every side: paths, bodies, SIP, RTP, webhook addresses. The program lives, says no, and other
//! calls are not disturbed.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::api::{raw, raw_get};
use crate::audio::{read_wav, split_tone, to_ulaw, tone};
use crate::harness::{Server, go, number, until, world};
use crate::rtp::{SSRC, packet_of, timestamp_of};
use crate::uas::{Message, Script, Uas, response};

#[test]
fn x1_no_path_leads_out_of_the_recordings() {
    go(async {
        let server = &world().await.server;
        let key = world().await.key("10");
        let recordings = server.home.join("recordings");
        std::os::unix::fs::symlink("/etc/passwd", recordings.join("linked.wav"))
            .expect("the folder can be written");
        std::fs::write(recordings.join("stray.wav"), "nobody's").expect("the folder can be written");
        let forbidden = [
            "..%2f..%2fetc%2fpasswd.wav",
            "%2e%2e%2fx.wav",
            "..\\x.wav",
            "a%00.wav",
            "%2fetc%2fpasswd.wav",
            "a%2fb.wav",
            "...wav",
            "a..wav",
            "%5c..%5cx.wav",
            "a%0d%0ab.wav",
            "x.wav%00",
        ];
        for name in forbidden {
            let path = format!("/recordings/file/{name}/download");
            let (status, body) = raw(server.http, &raw_get(&path, &key.key)).await;
            assert_eq!(status, 400, "{name}: {}", String::from_utf8_lossy(&body));
        }
        for name in ["%252e%252e.wav", "linked.wav", "stray.wav", "../../../etc/passwd.wav"] {
            let path = format!("/recordings/file/{name}/download");
            let (status, body) = raw(server.http, &raw_get(&path, &key.key)).await;
            assert!([400, 404].contains(&status), "{name}: {status}");
            let text = String::from_utf8_lossy(&body);
            assert!(!text.contains("root:") && !text.contains("nobody's"), "{name}: {text}");
        }
    });
}

#[test]
fn x4_x5_bad_bodies_are_refused_in_the_envelope() {
    go(async {
        let server = &world().await.server;
        let key = world().await.key("10");
        let nested = "[".repeat(10_000) + &"]".repeat(10_000);
        let deep = format!("{{\"number\":{}1{}}}", "{\"a\":".repeat(100), "}".repeat(100));
        let bodies: [&[u8]; 12] = [
            b"{\"number\":",
            b"[]",
            b"\"x\"",
            b"null",
            b"",
            b"\xff\xfe{}",
            nested.as_bytes(),
            deep.as_bytes(),
            b"{}{}",
            b"{\"number\":NaN}",
            b"{\"number\":\"\\ud800\"}",
            b"17",
        ];
        for path in ["/makecall", "/batchcall", "/hangup", "/voice", "/play", "/gather"] {
            for body in bodies {
                let answer = key.post_bytes(path, body.to_vec()).await;
                let shown = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
                assert_eq!(answer.status, 400, "{path} {shown}");
                answer.refused(400);
            }
        }
        // Duplicate keys: the last wins.
        let twice = key.post_bytes("/makecall", "{\"number\":\"14155550100\",\"number\":\"x\"}").await;
        assert_eq!(twice.refused(400), "Invalid phone number format");
        key.post_bytes("/voice", vec![b'x'; 300 * 1024]).await.refused(413);

        // A body without a length that never ends is cut at the limit.
        let head = format!(
            "POST /makecall HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            key.key
        );
        let mut endless = head.into_bytes();
        for _ in 0..64 {
            endless.extend(b"10000\r\n");
            endless.extend(vec![b' '; 0x10000]);
            endless.extend(b"\r\n");
        }
        let (status, _) = raw(server.http, &endless).await;
        assert!([0, 413].contains(&status), "{status}");
        for garbage in
            [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
        {
            let (status, _) = raw(server.http, garbage).await;
            assert!(status == 0 || (400..600).contains(&status), "{status}");
        }
        key.get("/api/me").await.expect(200);
    });
}

/// A small generator of numbers that look random (xorshift): the same garbage in every run.
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.next() as usize % most;
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// One bad SIP datagram.
    fn sip(&mut self, to: SocketAddr) -> Vec<u8> {
        let n = self.next();
        let invite = format!(
            "INVITE sip:00{n}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n\
             From: <sip:x@127.0.0.1>;tag={n}\r\nTo: <sip:00{n}@{to}>\r\nCall-ID: {n}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:x@127.0.0.1:9>\r\n"
        );
        match n % 10 {
            0 => self.bytes(1400),
            1 => invite.into_bytes(),
            2 => format!("{invite}Content-Length: 99999\r\n\r\nshort").into_bytes(),
            3 => format!("{invite}Content-Length: -1\r\n\r\n").into_bytes(),
            4 => invite.replace("Via: SIP/2.0/UDP 127.0.0.1:9", "Nothing: 1").into_bytes(),
            5 => format!("{invite}X-Long: {}\r\n\r\n", "y".repeat(60_000)).into_bytes(),
            6 => {
                format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {to};branch=z9hG4bK{n}\r\nCSeq: 1 INVITE\r\n\r\n")
                    .into_bytes()
            }
            7 => invite.as_bytes()[..n as usize / 10 % invite.len()].to_vec(),
            8 => {
                let mut bytes = format!("{invite}\r\n").into_bytes();
                let at = self.next() as usize % bytes.len();
                bytes[at] = self.next() as u8;
                bytes
            }
            _ => format!("{invite}CSeq: 4294967296000 INVITE\r\nContent-Length: 3\r\n\r\nv=0").into_bytes(),
        }
    }
}

#[test]
fn x21_ten_thousand_bad_datagrams_disturb_nobody() {
    go(async {
        let mut server = Server::start("garbage", &[]).await;
        let (far, later) = (Uas::answering().await, Uas::answering().await);
        let (key, _) = server.key_on("10", &[far.addr]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let sound = far.sound().await;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let mut garbage = Garbage(0x9e37_79b9_7f4a_7c15);
        for n in 0..10_000_u32 {
            let (datagram, to) = match n % 3 {
                0 => (garbage.sip(server.sip), server.sip),
                1 => (garbage.bytes(1400), sound.remote()),
                _ => {
                    let port =
                        server.rtp.0 + (garbage.next() % u64::from(server.rtp.1 - server.rtp.0)) as u16;
                    (garbage.bytes(200), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                }
            };
            // A closed port may be reported here.
            let _ = socket.send_to(&datagram, to).await;
            if n % 500 == 0 {
                server.process.must_run();
                tokio::task::yield_now().await;
            }
        }
        let before = Instant::now();
        key.post("/voice", &json!({"callId": call, "text": "Still here, and still heard."}))
            .await
            .expect(200);
        until(5.0, "the old call is heard", async || sound.last_heard().filter(|at| *at > before)).await;
        assert_eq!(key.get("/calls").await.expect(200)["totalCalls"], 1, "garbage makes no calls");
        let (other, _) = server.key_on("10", &[later.addr]);
        let new = other.answered_call(&json!({"number": number("0100")})).await;
        other.hang_up(&new).await;
        key.hang_up(&call).await;
        far.wait("BYE").await;
        later.wait("BYE").await;
        server.process.must_run();
        assert!(!server.process.said("panicked"), "nothing panicked");
    });
}

fn hostile_answers(invite: &Message) -> Vec<Vec<u8>> {
    let sdp =
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";
    let good = response(invite, invite.from, "200 OK", "", sdp);
    vec![
        b"SIP/2.0 200 OK\r\n\r\n".to_vec(),
        good.replace("Via:", "Vai:").into_bytes(),
        good.replace(" INVITE\r\n", " BYE\r\n").into_bytes(),
        good.replace("SIP/2.0 200 OK", "SIP/2.0 2000 OK").into_bytes(),
        good.replace("SIP/2.0 200 OK", "SIP/2.0 -1 No").into_bytes(),
        format!("{}X: {}\r\n\r\n", good.split("\r\n\r\n").next().unwrap_or(""), "z".repeat(60_000))
            .into_bytes(),
        response(invite, invite.from, "486 Busy Here", "Content-Length: 70000\r\n", "").into_bytes(),
        response(invite, invite.from, "603 Decline", "", "").into_bytes(),
    ]
}

#[test]
fn x21_a_trunk_that_talks_nonsense_fails_its_own_call_only() {
    go(async {
        let far = Uas::start(Script::Raw(hostile_answers)).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await;
        assert!([200, 500].contains(&answer.status), "{}", answer.json());
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        let call = logs["logs"][0]["call_id"].as_str().expect("a row").to_owned();
        let ended = key.wait_ended(&call).await;
        assert!(["failed", "busy"].contains(&ended["status"].as_str().unwrap_or_default()), "{ended}");
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn x23_a_strangers_sound_is_not_heard() {
    go(async {
        let far = Uas::answering().await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let sound = far.sound().await;
        until(3.0, "sound flows", async || (sound.heard().len() > 10).then_some(())).await;
        let loud: Vec<u8> = tone(700.0, 0.02, 20_000.0).into_iter().map(to_ulaw).collect();
        // First a source of its own on the far end's host, then the true source from another host (a telephone may
        // move to another port of its host, so the true source from there proves nothing).
        for (host, ssrc) in [(Ipv4Addr::LOCALHOST, 0x1234_5678), (Ipv4Addr::new(127, 0, 0, 2), SSRC)] {
            let stranger = UdpSocket::bind((host, 0)).await.expect("loopback has free ports");
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            for _ in 0..50 {
                ticks.tick().await;
                let sequence = sound.next_sequence();
                let packet = packet_of(ssrc, 0, sequence, timestamp_of(sequence), &loud);
                stranger.send_to(&packet, sound.remote()).await.expect("loopback takes it");
            }
            let before = sound.heard().len();
            until(2.0, "the far end is still spoken to", async || {
                (sound.heard().len() > before + 10).then_some(())
            })
            .await;
            assert!(stranger.try_recv_from(&mut [0; 2048]).is_err(), "the stranger is not spoken to");
        }
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        let recorded = read_wav(&crate::recordings::finished(&key, &call).await);
        for window in recorded.chunks_exact(800) {
            let (level, _) = split_tone(window, 700.0);
            assert!(level < -45.0, "the stranger is in the recording at {level} dBm0");
        }
    });
}

#[test]
fn x9_webhooks_into_the_house_are_refused() {
    go(async {
        let server = Server::start("guard", &[("WEBHOOKS__ALLOW_CIDRS", "")]).await;
        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let hosts = [
            "127.0.0.1",
            "[::1]",
            "0.0.0.0",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "169.254.169.254",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::ffff:10.0.0.1]",
            "[fe80::1]",
            "[fd00::1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[::]",
            "user@example.com",
        ];
        for host in hosts {
            for scheme in ["http", "https"] {
                let body = json!({"number": number("0304"), "webhookUrl": format!("{scheme}://{host}/hook")});
                let answer = key.post("/makecall", &body).await;
                assert_eq!(answer.status, 400, "{scheme}://{host}: {}", answer.json());
            }
        }
        // Other names are looked at when they are dialled; these can lead nowhere else.
        for name in ["localhost", "localhost.", "LOCALHOST"] {
            let body = json!({"number": number("0304"), "webhookUrl": format!("http://{name}:9/hook")});
            assert_eq!(key.post("/makecall", &body).await.status, 400, "{name}");
        }
    });
}

#[test]
fn x9_plain_http_needs_to_be_allowed() {
    go(async {
        let server = Server::start("https", &[("WEBHOOKS__ALLOW_HTTP", "false")]).await;
        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let body = json!({"number": number("0304"), "webhookUrl": "http://example.com/hook"});
        let error = key.post("/makecall", &body).await.refused(400);
        assert_eq!(error, "webhookUrl must be an https URL");
    });
}

#[test]
fn x26_an_invite_from_elsewhere_makes_no_call() {
    go(async {
        let world = world().await;
        let key = world.key("10");
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let from = stranger.local_addr().expect("a bound socket has an address");
        let to = world.server.sip;
        for method in ["INVITE", "REGISTER", "BYE", "CANCEL"] {
            let request = format!(
                "{method} sip:14155550100@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:x@{from}>;tag=1\r\nTo: <sip:14155550100@{to}>\r\nCall-ID: {method}-{from}\r\n\
                 CSeq: 1 {method}\r\nContact: <sip:x@{from}>\r\nContent-Length: 0\r\n\r\n"
            );
            stranger.send_to(request.as_bytes(), to).await.expect("loopback takes it");
        }
        let mut buffer = [0; 4096];
        let mut answered = String::new();
        while let Ok(Ok((length, _))) =
            tokio::time::timeout(Duration::from_secs(1), stranger.recv_from(&mut buffer)).await
        {
            answered += &String::from_utf8_lossy(&buffer[..length]);
        }
        assert!(!answered.contains("SIP/2.0 2") && !answered.contains("SIP/2.0 18"), "{answered}");
        assert_eq!(key.get("/calls").await.expect(200)["totalCalls"], 0);
    });
}

#[test]
fn x33_keys_and_digits_are_not_in_the_logs() {
    go(async {
        let server = Server::start("privacy", &[("LOG", "debug")]).await;
        let far = Uas::answering().await;
        let (key, _) = server.key_on("10", &[far.addr]);
        let hooks = crate::receiver::Receiver::start().await;
        let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let text = "Say the word abracadabra and press keys.";
        let body = json!({"callId": call, "text": text, "numDigits": 8});
        key.post("/gather", &body).await.expect(200);
        let sound = far.sound().await;
        for press in "73910462".chars() {
            sound.press(press, 3);
        }
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "73910462");
        key.hang_up(&call).await;
        hooks.wait("recording.completed").await;
        for secret in [&key.key, &key.webhook_secret[6..], "73910462", "abracadabra"] {
            assert!(!server.process.said(secret), "the log tells {secret}");
        }
    });
}

//! Behind a router that masquerades, over a wire that loses and delays: network namespaces of the test's own, the real
//! server and the built-in far end in them. The signalling must find its way in both directions, and each side must
//! hear the other.
//!
//! ```text
//! inside 10.77.0.2 --- router 10.77.0.1, 192.0.2.1 ~~~ lossy wire ~~~ outside 192.0.2.2
//! ```

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::json;

use crate::audio;
use crate::carrier::Carrier;
use crate::harness::{Process, Server, TRUNKLINE, go, home, number, until};

const INSIDE: &str = "10.77.0.2";
const ROUTER: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

/// Runs a program that must succeed.
fn run(words: &str) {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap()).args(parts).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Three namespaces, the router's rules, and a cable from each host to where the test runs, for its requests alone.
struct Net {
    name: String,
    cables: u8,
    wire: Option<Child>,
}

impl Net {
    /// `forwarded`: UDP ports at the router that lead to the host inside, as `first-last`.
    fn new(forwarded: &[&str], loss_percent: u8, jitter_ms: u8) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let cables = NEXT.fetch_add(4, Ordering::Relaxed);
        sweep();
        let name = format!("tl{}x{cables}", std::process::id());
        // From here on whatever fails is cleaned up behind.
        let mut net = Self { name: name.clone(), cables, wire: None };
        for place in ["in", "router", "out"] {
            run(&format!("ip netns add {name}-{place}"));
            run(&format!("ip -n {name}-{place} link set lo up"));
        }
        run(&format!("ip -n {name}-in link add lan type veth peer name lan netns {name}-router"));
        for (place, address) in [("in", "10.77.0.2/24"), ("router", "10.77.0.1/24")] {
            run(&format!("ip -n {name}-{place} addr add {address} dev lan"));
            run(&format!("ip -n {name}-{place} link set lan up"));
        }
        run(&format!("ip -n {name}-in route add default via 10.77.0.1"));
        run(&format!("ip netns exec {name}-router sysctl -qw net.ipv4.ip_forward=1"));
        net.wire = Some(Self::wire(&name, loss_percent, jitter_ms));
        let rules = |rule: &str| run(&format!("ip netns exec {name}-router nft {rule}"));
        rules("add table ip nat");
        rules("add chain ip nat post { type nat hook postrouting priority 100 ; }");
        rules("add chain ip nat pre { type nat hook prerouting priority -100 ; }");
        rules("add rule ip nat post oifname wan masquerade");
        for ports in forwarded {
            rules(&format!("add rule ip nat pre iifname wan udp dport {ports} dnat to {INSIDE}"));
        }
        net
    }

    fn wire(name: &str, loss_percent: u8, jitter_ms: u8) -> Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/wire.py");
        let (router, outside) = (format!("{name}-router"), format!("{name}-out"));
        let (loss, jitter) = (loss_percent.to_string(), jitter_ms.to_string());
        let words = [script, &router, "192.0.2.1/24", &outside, "192.0.2.2/24", &loss, &jitter, "7"];
        let mut wire =
            Command::new("python3").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(wire.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "up\n", "the wire between the namespaces");
        wire
    }

    fn place(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// The address at which the test reaches a host by a cable of its own.
    fn reach(&self, place: &str) -> Ipv4Addr {
        let (pid, cable) = (std::process::id(), self.cables + u8::from(place == "out"));
        let net = format!("10.{}.{}", 100 + pid % 100, cable);
        let (ours, theirs) = (format!("tl{pid}c{cable}"), self.place(place));
        run(&format!("ip link add {ours} type veth peer name admin netns {theirs}"));
        run(&format!("ip addr add {net}.1/30 dev {ours}"));
        run(&format!("ip link set {ours} up"));
        run(&format!("ip -n {theirs} addr add {net}.2/30 dev admin"));
        run(&format!("ip -n {theirs} link set admin up"));
        format!("{net}.2").parse().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The wire ends with its input; cables and rules go with their namespaces.
        if let Some(mut wire) = self.wire.take() {
            let _ = wire.kill();
            let _ = wire.wait();
        }
        for place in ["in", "router", "out"] {
            let _ = Command::new("ip").args(["netns", "del", &self.place(place)]).status();
        }
    }
}

/// Removes the namespaces of runs that were ended in the middle.
fn sweep() {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let run = name.strip_prefix("tl").and_then(|rest| rest.split_once('x')?.0.parse::<u32>().ok());
        if run.is_some_and(|run| !Path::new("/proc").join(run.to_string()).exists()) {
            // Another run may be removing it too.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// What the far end is heard to say in a recording of two sides: it is on the left.
fn left_side(file: &Path) -> Option<Vec<f64>> {
    let reader = hound::WavReader::open(file).ok()?;
    assert_eq!(reader.spec().channels, 2, "{}", file.display());
    Some(reader.into_samples::<i16>().step_by(2).map_while(Result::ok).map(f64::from).collect())
}

/// A server in a namespace, where it is asked at this address.
async fn server_in(name: &str, namespace: &str, asked_at: Ipv4Addr, settings: &[(&str, &str)]) -> Server {
    let wrapper = ["ip", "netns", "exec", namespace].map(str::to_owned).to_vec();
    Server::start_wrapped(home(name), settings, false, (wrapper, asked_at)).await
}

/// A carrier in a namespace, at an address there.
async fn carrier_in(folder: &Path, namespace: &str, addr: SocketAddr) -> Carrier {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, TRUNKLINE, "carrier", "--listen", &addr.to_string()]);
    command.arg("--record").arg(folder);
    let mut process = Process::start("carrier", &mut command, folder.with_extension("log"));
    until(10.0, "the carrier listens", async || {
        process.must_run();
        process.said("far end: SIP on udp").then_some(())
    })
    .await;
    Carrier::running(process, addr, folder)
}

/// Speaks into an answered call, presses nothing, and checks by both recordings that each side heard the other; then
/// hangs up and waits until the far end has understood.
async fn both_hear(server: &Server, carrier: &Carrier, far_end: &str) {
    let proxy: SocketAddr = far_end.parse().unwrap();
    let (key, _) = server.key_on("5", &[proxy]);
    let to = number("0120");
    let placed =
        key.post("/makecall", &json!({ "number": to, "recordChannels": "stereo" })).await.expect(200);
    let call = placed["callId"].as_str().unwrap().to_owned();
    until(15.0, "the call is answered", async || {
        let shown = key.get(&format!("/calls/{call}")).await;
        (shown.status == 200 && shown.json()["hasBridge"] == true).then_some(())
    })
    .await;
    let text = "Your order has left our warehouse and will be with you tomorrow morning.";
    key.post("/voice", &json!({ "callId": call, "text": text })).await.expect(200);
    until(20.0, "the speech was heard to its end", async || {
        let events = key.get(&format!("/calls/{call}/events")).await.json();
        events.to_string().contains("\"played\"").then_some(())
    })
    .await;
    key.post("/hangup", &json!({ "callId": call })).await.expect(200);
    let far = carrier.call(&to).await;
    let spoken = audio::heard_seconds(&far.heard());
    assert!(spoken > 1.5, "the far end heard {spoken} s of the speech");

    let recordings = server.recordings();
    let file = until(10.0, "the recording is there", async || {
        std::fs::read_dir(&recordings)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&call)))
    })
    .await;
    // "Hello?" and "John speaking."
    until(10.0, "the far end is heard for half a second", async || {
        let heard = audio::heard_seconds(&left_side(&file)?);
        (heard > 0.5).then_some(())
    })
    .await;
}

#[test]
fn a_server_behind_a_router_calls_and_is_heard() {
    go(async {
        let net = Net::new(&["5060"], 0, 0);
        let at = net.reach("in");
        let settings = [
            ("SIP__UDP", "0.0.0.0:5060"),
            ("RTP__BIND", "0.0.0.0"),
            ("SIP__EXTERNAL_ADDRESS", ROUTER),
            ("RTP__EXTERNAL_ADDRESS", ROUTER),
        ];
        let server = server_in("nat-server", &net.place("in"), at, &settings).await;
        let folder = home("nat-carrier");
        let far_end = format!("{OUTSIDE}:5070");
        let carrier = carrier_in(&folder, &net.place("out"), far_end.parse().unwrap()).await;
        both_hear(&server, &carrier, &far_end).await;
        drop((server, carrier));
    });
}

#[test]
fn a_far_end_behind_a_router_is_heard_over_a_bad_wire() {
    go(async {
        // Of 100 packets 5 are lost, and the others arrive up to 100 ms late, one before the other.
        let net = Net::new(&["5070"], 5, 100);
        let at = net.reach("out");
        let settings = [
            ("SIP__UDP", "0.0.0.0:5060"),
            ("RTP__BIND", "0.0.0.0"),
            ("SIP__EXTERNAL_ADDRESS", OUTSIDE),
            ("RTP__EXTERNAL_ADDRESS", OUTSIDE),
        ];
        let server = server_in("nat-far", &net.place("out"), at, &settings).await;
        let folder = home("nat-far-carrier");
        let inside: SocketAddr = format!("{INSIDE}:5070").parse().unwrap();
        let carrier = carrier_in(&folder, &net.place("in"), inside).await;
        both_hear(&server, &carrier, &format!("{ROUTER}:5070")).await;
        drop((server, carrier));
    });
}

#[test]
fn hosts_of_the_local_network_are_told_our_own_address() {
    go(async {
        let net = Net::new(&[], 0, 0);
        let at = net.reach("in");
        // The external address leads nowhere: a far end that is told it cannot send us anything.
        let settings = [
            ("SIP__UDP", "0.0.0.0:5060"),
            ("RTP__BIND", "0.0.0.0"),
            ("SIP__EXTERNAL_ADDRESS", "203.0.113.9"),
            ("RTP__EXTERNAL_ADDRESS", "203.0.113.9"),
            ("SIP__LOCAL_NETS", "10.77.0.0/24"),
        ];
        let server = server_in("nat-local", &net.place("in"), at, &settings).await;
        let folder = home("nat-local-carrier");
        let neighbour: SocketAddr = "10.77.0.1:5070".parse().unwrap();
        let carrier = carrier_in(&folder, &net.place("router"), neighbour).await;
        both_hear(&server, &carrier, "10.77.0.1:5070").await;
        drop((server, carrier));
    });
}

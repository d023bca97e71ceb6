//! A far end of the tests' own: raw SIP over UDP with a clock on every message, and plain RTP. It shares no code
//! with the program. One socket takes any number of calls; a call's sound runs in its own task.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::until;
use crate::rtp::Sound;

/// One SIP message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) at: Instant,
    pub(crate) from: SocketAddr,
    pub(crate) text: String,
}

impl Message {
    /// The first word: a method, or `SIP/2.0`.
    pub(crate) fn method(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// The request URI's user part.
    pub(crate) fn dialled(&self) -> &str {
        let uri = self.text.split(' ').nth(1).unwrap_or_default();
        uri.trim_start_matches("sip:").split('@').next().unwrap_or_default()
    }

    /// The first header of this name.
    pub(crate) fn header<'a>(&'a self, name: &'a str) -> &'a str {
        self.headers(name).next().unwrap_or_default()
    }

    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        head.split("\r\n").skip(1).filter_map(move |line| {
            let (field, value) = line.split_once(':')?;
            field.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// What follows the empty line.
    pub(crate) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn is_response(&self) -> bool {
        self.method() == "SIP/2.0"
    }
}

/// What it does with an INVITE.
#[derive(Clone)]
pub(crate) enum Script {
    /// 180, then 200 after this long.
    Answer(Duration),
    /// 200 with this session description instead of its own.
    AnswerWith(String),
    /// 180 and nothing more.
    Ring,
    /// 100 and nothing more.
    Trying,
    /// A final response: the status with its phrase, and further header lines.
    Final(&'static str, &'static str),
    /// These datagrams.
    Raw(fn(&Message) -> Vec<Vec<u8>>),
}

struct Shared {
    socket: UdpSocket,
    addr: SocketAddr,
    script: Script,
    log: Mutex<Vec<Message>>,
    sounds: Mutex<Vec<Arc<Sound>>>,
}

/// A running far end.
pub(crate) struct Uas {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Uas {
    /// Starts one.
    pub(crate) async fn start(script: Script) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let (log, sounds) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { socket, addr, script, log, sounds });
        let task = tokio::spawn(serve(shared.clone()));
        Self { addr, shared, task }
    }

    /// A far end that answers at once.
    pub(crate) async fn answering() -> Self {
        Self::start(Script::Answer(Duration::from_millis(200))).await
    }

    /// Every message so far.
    pub(crate) fn log(&self) -> Vec<Message> {
        self.shared.log.lock().expect("no test panics here").clone()
    }

    /// Messages of a method so far, retransmissions counted once.
    pub(crate) fn count(&self, method: &str) -> usize {
        let mut texts: Vec<_> =
            self.log().into_iter().filter(|m| m.method() == method).map(|m| m.text).collect();
        texts.sort();
        texts.dedup();
        texts.len()
    }

    /// Waits for the first message of a method.
    pub(crate) async fn wait(&self, method: &str) -> Message {
        let find = async || self.log().into_iter().find(|message| message.method() == method);
        until(15.0, &format!("the far end gets {method}"), find).await
    }

    /// Waits for the first answered call's sound.
    pub(crate) async fn sound(&self) -> Arc<Sound> {
        let first = async || self.sounds().first().cloned();
        until(15.0, "the far end has answered", first).await
    }

    /// The sound of every answered call, in their order.
    pub(crate) fn sounds(&self) -> Vec<Arc<Sound>> {
        self.shared.sounds.lock().expect("no test panics here").clone()
    }

    /// Hangs up the first call.
    pub(crate) async fn bye(&self) {
        let invite = self.wait("INVITE").await;
        let contact = invite.header("Contact");
        let target = contact.split(['<', '>']).nth(1).unwrap_or(contact);
        let text = format!(
            "BYE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKbye{}\r\nMax-Forwards: 70\r\n\
             From: {};tag={TAG}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n",
            self.addr,
            self.addr.port(),
            invite.header("To"),
            invite.header("From"),
            invite.header("Call-ID"),
        );
        self.send(invite.from, text.as_bytes()).await;
    }

    /// Sends any bytes from the far end's socket.
    pub(crate) async fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.shared.socket.send_to(bytes, to).await.expect("loopback takes it");
    }
}

impl Drop for Uas {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const TAG: &str = "far-end";

/// A response to a request, with this status, further header lines and body.
pub(crate) fn response(request: &Message, to: SocketAddr, status: &str, more: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for via in request.headers("Via") {
        text += &format!("Via: {via}\r\n");
    }
    let tag = if request.header("To").contains("tag=") || status.starts_with("100") {
        String::new()
    } else {
        format!(";tag={TAG}")
    };
    text += &format!("From: {}\r\nTo: {}{tag}\r\n", request.header("From"), request.header("To"));
    text += &format!("Call-ID: {}\r\nCSeq: {}\r\n", request.header("Call-ID"), request.header("CSeq"));
    text += &format!("Contact: <sip:far@{to}>\r\n{more}");
    if !body.is_empty() {
        text += "Content-Type: application/sdp\r\n";
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

async fn serve(shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error from an earlier datagram is reported here and means nothing.
        let Ok((length, from)) = shared.socket.recv_from(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let message = Message { at: Instant::now(), from, text };
        let known = {
            let mut log = shared.log.lock().expect("no test panics here");
            log.push(message.clone());
            log.iter().filter(|m| m.text == message.text).count() > 1
        };
        if message.is_response() {
            continue;
        }
        match message.method() {
            "INVITE" if !known => invited(&shared, &message).await,
            "CANCEL" => canceled(&shared, &message).await,
            "BYE" | "OPTIONS" => reply(&shared, &message, "200 OK", "", "").await,
            _ => {}
        }
    }
}

async fn reply(shared: &Shared, request: &Message, status: &str, more: &str, body: &str) {
    let text = response(request, shared.addr, status, more, body);
    shared.socket.send_to(text.as_bytes(), request.from).await.expect("loopback takes it");
}

async fn invited(shared: &Arc<Shared>, invite: &Message) {
    match &shared.script {
        Script::Answer(after) => {
            reply(shared, invite, "180 Ringing", "", "").await;
            let (shared, invite, after) = (shared.clone(), invite.clone(), *after);
            tokio::spawn(async move {
                sleep(after).await;
                answer(&shared, &invite).await;
            });
        }
        Script::AnswerWith(body) => reply(shared, invite, "200 OK", "", body).await,
        Script::Ring => reply(shared, invite, "180 Ringing", "", "").await,
        Script::Trying => reply(shared, invite, "100 Trying", "", "").await,
        Script::Final(status, more) => reply(shared, invite, status, more, "").await,
        Script::Raw(datagrams) => {
            for datagram in datagrams(invite) {
                shared.socket.send_to(&datagram, invite.from).await.expect("loopback takes it");
            }
        }
    }
}

async fn canceled(shared: &Shared, cancel: &Message) {
    if matches!(shared.script, Script::Trying) {
        return;
    }
    reply(shared, cancel, "200 OK", "", "").await;
    let invite = {
        let log = shared.log.lock().expect("no test panics here");
        let same = |m: &&Message| m.method() == "INVITE" && m.header("Call-ID") == cancel.header("Call-ID");
        log.iter().rfind(same).cloned()
    };
    let Some(invite) = invite else { return };
    reply(shared, &invite, "487 Request Terminated", "", "").await;
}

async fn answer(shared: &Shared, invite: &Message) {
    let sound = Sound::start(invite.body()).await;
    let body = sound.answer();
    shared.sounds.lock().expect("no test panics here").push(sound);
    reply(shared, invite, "200 OK", "", &body).await;
}

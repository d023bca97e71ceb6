//! A caller of the tests' own: raw SIP over UDP and plain RTP. It shares no code with the program. What it sends is
//! repeated as RFC 3261 §17.1.1.2 wants until something comes back, and what it is asked is answered 200.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::until;
use crate::rtp::Sound;
use crate::uas::{Message, response};

/// A telephone.
pub(crate) struct Uac {
    pub(crate) addr: SocketAddr,
    server: SocketAddr,
    socket: Arc<UdpSocket>,
    log: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Drop for Uac {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A call of its own making.
pub(crate) struct Dialog<'a> {
    uac: &'a Uac,
    pub(crate) call_id: String,
    invite: String,
    branch: String,
    pub(crate) sound: Arc<Sound>,
}

impl Uac {
    /// One at this address that calls that server.
    pub(crate) async fn on(ip: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind((ip, 0)).await.expect("loopback has free ports"));
        let addr = socket.local_addr().expect("a bound socket has an address");
        let log: Arc<Mutex<Vec<Message>>> = Arc::default();
        let task = tokio::spawn(listen(Arc::clone(&socket), Arc::clone(&log), addr));
        Self { addr, server, socket, log, task }
    }

    /// One on the usual address.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, server).await
    }

    /// Everything that came.
    pub(crate) fn log(&self) -> Vec<Message> {
        self.log.lock().expect("no test panics here").clone()
    }

    /// Sends any bytes.
    pub(crate) async fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).await.expect("loopback takes it");
    }

    /// An INVITE to a number with these further header lines, and its parts that matter: Call-ID and branch.
    pub(crate) fn invite(&self, number: &str, more: &str, body: &str) -> (String, String, String) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let (call_id, branch) = (format!("uac-{}-{nth}", self.addr.port()), format!("z9hG4bKuac{nth}"));
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let from =
            if more.contains("From: ") { "" } else { "From: <sip:+14155550123@caller.example>;tag=uac\r\n" };
        let text = format!(
            "INVITE sip:{number}@{} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\n\
             {from}To: <sip:{number}@{}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:uac@{}>\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
            self.server,
            self.addr,
            self.server,
            self.addr,
            body.len()
        );
        (text, call_id, branch)
    }

    /// Calls a number, repeats the INVITE until there is an answer of any kind, and gives the final one.
    pub(crate) async fn call(&self, number: &str, more: &str) -> (Dialog<'_>, Message) {
        let sound = Sound::open(101).await;
        let offer = sound.answer();
        self.call_with(number, more, &offer, sound).await
    }

    /// The same with any body.
    pub(crate) async fn call_with(
        &self,
        number: &str,
        more: &str,
        body: &str,
        sound: Arc<Sound>,
    ) -> (Dialog<'_>, Message) {
        let (invite, call_id, branch) = self.invite(number, more, body);
        let dialog = Dialog { uac: self, call_id, invite, branch, sound };
        let mut repeat = Instant::now();
        let answer = until(15.0, "the INVITE is answered", async || {
            if dialog.responses("INVITE").is_empty() && repeat <= Instant::now() {
                self.send(dialog.invite.as_bytes()).await;
                repeat = Instant::now() + Duration::from_millis(400);
            }
            dialog.final_response("INVITE")
        })
        .await;
        if !answer.text.starts_with("SIP/2.0 2") {
            dialog.acknowledge(&answer, &dialog.branch.clone(), "").await;
        }
        (dialog, answer)
    }

    /// Calls a number, which must be answered; sound flows from then on.
    pub(crate) async fn answered(&self, number: &str, more: &str) -> Dialog<'_> {
        let (dialog, answer) = self.call(number, more).await;
        assert!(answer.text.starts_with("SIP/2.0 200 "), "{}", answer.text);
        dialog.sound.connect(answer.body());
        dialog.acknowledge(&answer, &format!("{}ack", dialog.branch), "").await;
        dialog
    }

    /// The status that a call to a number is refused with.
    pub(crate) async fn refused(&self, number: &str) -> String {
        let (_, answer) = self.call(number, "").await;
        status(&answer).to_owned()
    }
}

/// The status line without its version.
pub(crate) fn status(response: &Message) -> &str {
    response.text.lines().next().unwrap_or_default().trim_start_matches("SIP/2.0 ")
}

impl Dialog<'_> {
    /// All responses to requests of this method in this call.
    pub(crate) fn responses(&self, method: &str) -> Vec<Message> {
        let ours = |message: &Message| {
            message.method() == "SIP/2.0"
                && message.header("Call-ID") == self.call_id
                && message.header("CSeq").ends_with(method)
        };
        self.uac.log().into_iter().filter(ours).collect()
    }

    fn final_response(&self, method: &str) -> Option<Message> {
        self.responses(method).into_iter().find(|message| !message.text.starts_with("SIP/2.0 1"))
    }

    fn answer(&self) -> Message {
        self.final_response("INVITE").expect("the call has been answered")
    }

    fn request(&self, method: &str, cseq: u32, branch: &str, answer: Option<&Message>, body: &str) -> String {
        let header = |name: &str| {
            let line = self.invite.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.trim_end().to_owned()
        };
        let contact = answer.map(|answer| answer.header("Contact")).unwrap_or_default();
        let own = self.invite.split(' ').nth(1).unwrap_or_default();
        let target = contact.split(['<', '>']).nth(1).unwrap_or(own);
        let to = answer.map_or_else(|| header("To:"), |answer| format!("To: {}", answer.header("To")));
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\n{}\r\n{to}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\nContact: <sip:uac@{}>\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            self.uac.addr,
            header("From:"),
            self.call_id,
            self.uac.addr,
            body.len()
        )
    }

    /// ACK, with a body or without.
    pub(crate) async fn acknowledge(&self, answer: &Message, branch: &str, body: &str) {
        self.uac.send(self.request("ACK", 1, branch, Some(answer), body).as_bytes()).await;
    }

    /// Describes itself anew in the middle of the call; the answer, which is acknowledged.
    pub(crate) async fn reinvite(&self, cseq: u32, body: &str) -> Message {
        let (first, method) = (self.answer(), format!("{cseq} INVITE"));
        let request = |method: &str, branch: &str, body: &str| {
            self.request(method, cseq, &format!("{}{branch}{cseq}", self.branch), Some(&first), body)
        };
        self.uac.send(request("INVITE", "re", body).as_bytes()).await;
        let answer = until(5.0, "the re-INVITE is answered", async || self.final_response(&method)).await;
        self.uac.send(request("ACK", "reack", "").as_bytes()).await;
        answer
    }

    /// Hangs up.
    pub(crate) async fn bye(&self) {
        let branch = format!("{}bye", self.branch);
        self.uac.send(self.request("BYE", 9, &branch, Some(&self.answer()), "").as_bytes()).await;
        until(5.0, "the BYE is answered", async || self.final_response("BYE")).await;
    }

    /// Waits until the other side hangs up.
    pub(crate) async fn bye_comes(&self) -> Message {
        self.bye_comes_to(self.uac).await
    }

    /// The same where its requests go by somebody else.
    pub(crate) async fn bye_comes_to(&self, there: &Uac) -> Message {
        let find = async || {
            let all = there.log();
            all.into_iter().find(|m| m.method() == "BYE" && m.header("Call-ID") == self.call_id)
        };
        until(20.0, "the caller gets BYE", find).await
    }

    /// Waits until something is heard, and listens for so long.
    pub(crate) async fn listen(&self, since: Instant, seconds: f64) -> Vec<f64> {
        until(10.0, "the caller hears something", async || self.sound.last_heard().filter(|at| *at >= since))
            .await;
        sleep(Duration::from_secs_f64(seconds)).await;
        self.sound.samples_since(since)
    }
}

async fn listen(socket: Arc<UdpSocket>, log: Arc<Mutex<Vec<Message>>>, addr: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error from an earlier datagram is reported here and means nothing.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let message = Message { at: Instant::now(), from, text };
        log.lock().expect("no test panics here").push(message.clone());
        if !matches!(message.method(), "SIP/2.0" | "ACK") {
            let answer = response(&message, addr, "200 OK", "", "");
            socket.send_to(answer.as_bytes(), from).await.expect("loopback takes it");
        }
    }
}

//! Webhook receivers of every temper, and a DNS server that says what it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

/// How a receiver answers.
#[derive(Clone, Debug)]
pub(crate) enum Temper {
    /// With this status and these header lines.
    Answer(u16, &'static str),
    /// Reads and says nothing.
    Hang,
    /// Accepts and closes.
    Close,
    /// A 200 whose body comes a byte at a time.
    Drip,
    /// A 200 with ten megabytes.
    Huge,
    /// Headers without end.
    EndlessHeaders,
    /// Headers a byte at a time.
    DripHead,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A number of the body, be it written as text.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let value = &body[name];
        value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    requests: Vec<Request>,
    written: u64,
    script: Vec<Temper>,
}

/// A receiver. Tempers are used up one a request; the last one stays.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Receiver {
    pub(crate) async fn new(ip: Ipv4Addr, script: &[Temper]) -> Self {
        Self::at(SocketAddr::from((ip, 0)), script).await
    }

    pub(crate) async fn at(address: SocketAddr, script: &[Temper]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { script: script.to_vec(), ..State::default() }));
        let serving = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.lock().unwrap().connections += 1;
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    /// Stops listening; nobody is at its address from then on.
    pub(crate) async fn gone(self) -> SocketAddr {
        self.task.abort();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        self.address
    }

    pub(crate) async fn local(script: &[Temper]) -> Self {
        Self::new(Ipv4Addr::LOCALHOST, script).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(crate) fn written(&self) -> u64 {
        self.state.lock().unwrap().written
    }

    /// The names of the events that came, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let event = |request: &Request| {
            let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            body["event"].as_str().unwrap().to_owned()
        };
        self.requests().iter().map(event).collect()
    }
}

fn next_temper(state: &Mutex<State>) -> Temper {
    let mut state = state.lock().unwrap();
    if state.script.len() > 1 { state.script.remove(0) } else { state.script[0].clone() }
}

async fn serve(state: Arc<Mutex<State>>, mut stream: TcpStream) {
    while let Some(request) = read_request(&mut stream).await {
        state.lock().unwrap().requests.push(request);
        if answer(&state, &mut stream).await.is_none() {
            return;
        }
    }
}

async fn answer(state: &Mutex<State>, stream: &mut TcpStream) -> Option<()> {
    match next_temper(state) {
        Temper::Answer(status, headers) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n{headers}\r\n{{}}");
            stream.write_all(head.as_bytes()).await.ok()
        }
        Temper::Close => None,
        Temper::Hang => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            None
        }
        Temper::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.ok()?;
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.write_all(b".").await.ok()?;
            }
        }
        Temper::DripHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").await.ok()?;
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.write_all(b"z").await.ok()?;
            }
        }
        Temper::Huge => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n").await.ok()?;
            for _ in 0..1024 {
                stream.write_all(&[b'x'; 10_240]).await.ok()?;
                state.lock().unwrap().written += 10_240;
            }
            Some(())
        }
        Temper::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok()?;
            loop {
                stream.write_all(format!("X-{}: y\r\n", "a".repeat(1000)).as_bytes()).await.ok()?;
                state.lock().unwrap().written += 1006;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0_u8; 4096];
        let len = stream.read(&mut chunk).await.ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let request = Request { head: head.to_owned(), body: body.to_owned() };
        let wanted: usize = request.header("content-length").unwrap_or("0").parse().ok()?;
        if request.body.len() >= wanted {
            return Some(request);
        }
    }
}

/// A DNS server that answers every A question with `answer` and has no AAAA.
pub(crate) async fn dns_server(answer: Ipv4Addr) -> SocketAddr {
    dns_script(&[answer]).await.address
}

/// A running [`dns_script`].
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    questions: Arc<AtomicUsize>,
}

impl Dns {
    /// A questions so far.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// A DNS server that answers A questions with one address after the other, the last one for ever, and has no AAAA.
pub(crate) async fn dns_script(answers: &[Ipv4Addr]) -> Dns {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let questions = Arc::new(AtomicUsize::new(0));
    let (answers, counted) = (answers.to_vec(), questions.clone());
    tokio::spawn(async move {
        let mut buffer = [0_u8; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let mut reply = buffer[..len].to_vec();
            let is_a = reply[len - 4..] == [0, 1, 0, 1];
            reply[2] = 0x81;
            reply[3] = 0x80;
            reply[7] = u8::from(is_a);
            if is_a {
                let asked = counted.fetch_add(1, Ordering::SeqCst);
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                reply.extend(answers[asked.min(answers.len() - 1)].octets());
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    Dns { address, questions }
}

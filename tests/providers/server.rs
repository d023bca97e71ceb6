//! An HTTP server that does what a test tells it, byte by byte, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A gate that a test opens.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.add_permits(1000);
    }

    pub(crate) async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

/// What the server does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes.
    Write(Vec<u8>),
    /// Writes in pieces of so many bytes, each a packet of its own.
    Pieces(Vec<u8>, usize),
    /// Waits so long.
    Pause(Duration),
    /// Waits for the test.
    Wait(Gate),
    /// Waits for the client to go away, then opens the gate.
    Gone(Gate),
}

/// The head of an answer whose body ends with the connection.
pub(crate) fn head(status: u16, kind: &str) -> Step {
    let text = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
    Step::Write(text.into_bytes())
}

/// A whole answer.
pub(crate) fn answer(status: u16, kind: &str, body: &[u8]) -> Vec<Step> {
    vec![head(status, kind), Step::Write(body.to_vec())]
}

/// The server; stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers the nth request (from 0) as the script says.
    pub(crate) async fn start(script: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), seen.clone());
        let count = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let (script, log, count) = (script.clone(), log.clone(), count.clone());
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    log.lock().unwrap().push(request.clone());
                    let nth = count.fetch_add(1, Ordering::SeqCst);
                    act(&mut stream, script(nth, &request)).await;
                });
            }
        });
        Self { addr, seen, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end);
    while body.len() < length {
        let mut piece = [0; 65_536];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        body.extend_from_slice(&piece[..n]);
    }
    Some(Request { path, head, body })
}

async fn act(stream: &mut TcpStream, steps: Vec<Step>) {
    stream.set_nodelay(true).unwrap();
    for step in steps {
        // The client may be gone, which is what some tests are about.
        match step {
            Step::Write(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Step::Pieces(bytes, size) => {
                for piece in bytes.chunks(size) {
                    let _ = stream.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Wait(gate) => gate.pass().await,
            Step::Gone(gate) => {
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
                gate.open();
            }
        }
    }
    let _ = stream.shutdown().await;
}

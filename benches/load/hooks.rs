//! Receivers of webhooks on sixteen addresses of the loopback, as of sixteen customers: each request is answered 200 at
//! once and remembered by what it told of which call.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Failed;
use crate::kernel;

/// Receivers.
const RECEIVERS: u8 = 16;

/// What was told.
#[derive(Default)]
pub(crate) struct Heard {
    /// Deliveries by event.
    pub(crate) events: BTreeMap<String, u64>,
    /// When the end of each call was told, nanoseconds, by the call's id.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Ends told twice.
    pub(crate) twice: u64,
}

/// The receivers.
pub(crate) struct Hooks {
    addresses: Vec<SocketAddr>,
    heard: Arc<Mutex<Heard>>,
}

impl Hooks {
    /// Opens them on the runtime of the caller.
    pub(crate) async fn start() -> Result<Self, Failed> {
        let heard = Arc::<Mutex<Heard>>::default();
        let mut addresses = Vec::new();
        for last in 1..=RECEIVERS {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 12, last), 0)).await?;
            addresses.push(listener.local_addr()?);
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&heard)));
                }
            });
        }
        Ok(Self { addresses, heard })
    }

    /// Where the events of a call go.
    pub(crate) fn url(&self, call: usize) -> String {
        format!("http://{}/", self.addresses[call % self.addresses.len()])
    }

    /// Looks at what was told.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> Result<T, Failed> {
        Ok(look(&mut *self.heard.lock().map_err(|_| "a receiver panicked")?))
    }
}

/// The length that a request's head announces, with its own.
fn lengths(held: &[u8]) -> Option<(usize, usize)> {
    let head = held.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&held[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some((head, length))
}

/// The text value of a field of flat JSON.
fn field<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let at = body.find(&format!("\"{name}\":\""))? + name.len() + 4;
    body[at..].split('"').next()
}

async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Heard>>) -> Option<()> {
    let mut held = Vec::new();
    loop {
        while let Some((head, length)) = lengths(&held).filter(|(head, length)| held.len() >= head + length) {
            let body = std::str::from_utf8(&held[head..head + length]).ok()?;
            let event = field(body, "event")?.to_owned();
            {
                let mut heard = heard.lock().ok()?;
                if event == "call.ended" {
                    let again = heard.ended.insert(field(body, "callId")?.to_owned(), kernel::wall_nanos());
                    heard.twice += u64::from(again.is_some());
                }
                *heard.events.entry(event).or_default() += 1;
            }
            held.drain(..head + length);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        }
        let mut chunk = [0_u8; 4096];
        let len = stream.read(&mut chunk).await.ok().filter(|len| *len > 0)?;
        held.extend_from_slice(&chunk[..len]);
    }
}

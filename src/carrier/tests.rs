//! The far end against a caller of the same user agent: signalling in virtual time and in memory, media for real.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::sdp::{self, Direction, Local, OfferConfig};
use media::{Codec, EventReceiver, Media, MediaConfig};
use serde_json::Value;
use sip::{Config, Endpoint, Peer, SessionEvent, SessionId, Target, TerminationCause, Uri};

use super::exchange::{Exchange, Setup};
use super::record::Records;
use super::sounds::Sounds;
use crate::clock;
use crate::model::Now;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CALLER: SocketAddr = SocketAddr::new(LOOPBACK, 5060);
const FAR_END: SocketAddr = SocketAddr::new(LOOPBACK, 5070);

/// Lines made so far: each has a folder of its own.
static LINES: AtomicU32 = AtomicU32::new(0);

/// A caller and the far end, with nothing lost between them.
struct Line {
    folder: PathBuf,
    start: Instant,
    now: Now,
    caller: Endpoint,
    far_end: Exchange,
    heard: EventReceiver,
    call: SessionId,
    /// What the caller saw, with its milliseconds.
    seen: Vec<(u128, String)>,
}

impl Line {
    async fn dial(digits: &str) -> Self {
        let number = LINES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("trunkline-far-end-{}-{number}", std::process::id()));
        let (media, heard) = Media::start(MediaConfig { workers: 1, ..MediaConfig::default() }).unwrap();
        let records = Some(Records::open(&folder).unwrap());
        let sounds = Sounds::make(None).await;
        let far_end =
            Exchange::new(Setup { local: FAR_END, bind: LOOPBACK, media, sounds, records, seed: [7; 32] });
        let mut caller = Endpoint::new(Config::new(CALLER), [9; 32]);
        let now = clock::now();
        let target = Target::new(
            Uri::sip(&format!("001415555{digits}"), FAR_END),
            Uri::sip("100", CALLER),
            Peer::udp(FAR_END),
        );
        let call = caller.invite(now.mono, target, description(Direction::SendRecv)).unwrap();
        let mut line = Self { folder, start: now.mono, now, caller, far_end, heard, call, seen: Vec::new() };
        line.exchange();
        line
    }

    /// Carries datagrams and events until neither side has any.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(transmit) = self.caller.poll_transmit() {
                quiet = false;
                self.far_end.datagram(self.now, Peer::udp(CALLER), &transmit.bytes);
            }
            while let Some(transmit) = self.far_end.poll_transmit() {
                quiet = false;
                self.caller.handle_datagram(self.now.mono, Peer::udp(FAR_END), &transmit.bytes);
            }
            while let Some((call, event)) = self.caller.poll_event() {
                quiet = false;
                self.see(call, event);
            }
            if quiet {
                return;
            }
        }
    }

    fn see(&mut self, call: SessionId, event: SessionEvent) {
        let words = match event {
            SessionEvent::Trying => "100".to_owned(),
            SessionEvent::Progress { code, sdp, .. } => {
                format!("{code}{}", sdp.map_or("", |_| " with media"))
            }
            SessionEvent::Answered { sdp } => format!("200{}", sdp.map_or(" without media", |_| "")),
            SessionEvent::Offer { sdp } => {
                let offer = String::from_utf8(sdp.unwrap().to_vec()).unwrap();
                let held = offer.contains("a=sendonly");
                let answer = description(if held { Direction::RecvOnly } else { Direction::SendRecv });
                self.caller.session(call).unwrap().answer_offer(self.now.mono, answer);
                if held { "held" } else { "resumed" }.to_owned()
            }
            SessionEvent::Terminated(end) => match end.cause {
                TerminationCause::Rejected { code, .. } => {
                    format!(
                        "{code}{}",
                        end.retry_after.map_or(String::new(), |after| format!(" after {after:?}"))
                    )
                }
                other => format!("{other:?} by {:?}", end.by),
            },
            other => format!("{other:?}"),
        };
        self.seen.push(((self.now.mono - self.start).as_millis(), words));
    }

    /// Lets time pass up to `ms` after the call began.
    fn until(&mut self, ms: u64) {
        let end = self.start + Duration::from_millis(ms);
        let due =
            |line: &Self| line.caller.poll_timeout().into_iter().chain(line.far_end.poll_timeout()).min();
        while let Some(at) = due(self).filter(|at| *at <= end) {
            self.now = self.now.plus(at.saturating_duration_since(self.now.mono));
            self.caller.handle_timeout(self.now.mono);
            self.far_end.timeout(self.now);
            self.exchange();
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
    }

    fn hang_up(&mut self) {
        self.caller.session(self.call).unwrap().hang_up(self.now.mono, None);
        self.exchange();
    }

    /// The line of the call, once the media, which runs in real time, has said its last word.
    fn record(&mut self) -> Value {
        while !self.far_end.is_idle() {
            let event =
                self.heard.recv_timeout(Duration::from_secs(10)).expect("the media closes what was opened");
            self.far_end.heard(self.now, &event);
        }
        let lines = std::fs::read_to_string(self.folder.join("calls.jsonl")).unwrap();
        serde_json::from_str(lines.trim_end()).unwrap()
    }

    fn seen(&self) -> Vec<(u128, &str)> {
        self.seen
            .iter()
            .filter(|(_, words)| words != "100")
            .map(|(at, words)| (*at, words.as_str()))
            .collect()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn description(direction: Direction) -> Bytes {
    let local = Local { address: LOOPBACK, port: 29_998, session_id: 1, version: 1 };
    sdp::offer(
        &local,
        &OfferConfig { codecs: vec![Codec::Pcmu], telephone_event: true, ..OfferConfig::default() },
        direction,
    )
    .into()
}

#[tokio::test]
async fn refusals_are_sent_and_written_down() {
    for (digits, seen, code) in [
        ("0300", "486", 486),
        ("0301", "603", 603),
        ("0302", "404", 404),
        ("0304", "480", 480),
        ("0305", "503 after 5s", 503),
        ("0306", "500", 500),
    ] {
        let mut line = Line::dial(digits).await;
        line.until(100);
        assert_eq!(line.seen(), [(0, seen)], "{digits}");
        let record = line.record();
        assert_eq!(record["finalCode"], code, "{digits}");
        assert_eq!(record["endedBy"], "us");
        assert_eq!(record["to"], format!("001415555{digits}"));
        assert_eq!(record["from"], "100");
        assert_eq!((&record["answeredAt"], &record["wav"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test]
async fn a_person_answers_and_what_was_heard_is_kept() {
    let mut line = Line::dial("0100").await;
    line.until(3000);
    assert_eq!(line.seen(), [(0, "180"), (1000, "200")]);
    line.hang_up();
    line.until(3500);
    let record = line.record();
    assert_eq!((&record["endedBy"], &record["finalCode"]), (&Value::from("them"), &Value::from(200)));
    assert_eq!(record["cancelled"], false);
    let wav = PathBuf::from(record["wav"].as_str().unwrap());
    assert_eq!(
        wav.file_name().unwrap().to_str().unwrap(),
        format!("{}.wav", record["callId"].as_str().unwrap())
    );
    assert_eq!(wav.parent().unwrap(), line.folder.canonicalize().unwrap());
    assert_eq!(&std::fs::read(wav).unwrap()[..4], b"RIFF");
}

#[tokio::test]
async fn early_media_comes_before_the_answer() {
    let mut line = Line::dial("0310").await;
    line.until(4000);
    assert_eq!(line.seen(), [(0, "183 with media"), (3000, "200")]);
}

#[tokio::test]
async fn some_hang_up_by_themselves() {
    for (digits, ms) in [("0400", 2000), ("0403", 4000)] {
        let mut line = Line::dial(digits).await;
        line.until(ms + 500);
        assert_eq!(line.seen(), [(0, "180"), (1000, "200"), (u128::from(ms), "Bye by Them")], "{digits}");
        assert_eq!(line.record()["endedBy"], "us", "{digits}");
    }
}

#[tokio::test]
async fn a_call_is_held_and_resumed() {
    let mut line = Line::dial("0503").await;
    line.until(8000);
    assert_eq!(line.seen(), [(0, "180"), (1000, "200"), (3000, "held"), (5000, "resumed")]);
}

#[tokio::test]
async fn a_cancel_is_obeyed_by_all_but_one() {
    let mut line = Line::dial("0303").await;
    line.until(5000);
    assert_eq!(line.seen(), [(0, "180")]);
    line.hang_up();
    line.until(5500);
    assert_eq!(line.seen().last(), Some(&(5000, "Cancelled by Us")));
    let record = line.record();
    assert_eq!((&record["cancelled"], &record["finalCode"]), (&Value::Bool(true), &Value::from(487)));
    assert_eq!(record["endedBy"], "them");

    let mut line = Line::dial("0504").await;
    line.until(5000);
    line.hang_up();
    line.until(20_000);
    let record = line.record();
    assert_eq!((&record["cancelled"], &record["finalCode"]), (&Value::Bool(true), &Value::from(200)));
    assert_ne!(record["answeredAt"], Value::Null);
    assert_eq!(record["endedBy"], "them", "the caller takes the answer back with a BYE");
}

#[tokio::test]
async fn one_answers_nothing_and_one_nothing_but_100() {
    let mut line = Line::dial("0307").await;
    line.until(5000);
    assert!(line.seen.is_empty());
    line.until(40_000);
    assert_eq!(line.seen(), [(10_000, "NoResponse by Nobody")]);
    assert_eq!(line.record()["finalCode"], Value::Null);

    let mut line = Line::dial("0308").await;
    line.until(5000);
    assert_eq!(line.seen.iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>(), ["100"]);
}

#[tokio::test]
async fn an_offer_that_cannot_be_met_is_refused_and_written_down() {
    let mut line = Line::dial("0100").await;
    line.hang_up();
    let target = Target::new(Uri::sip("0100", FAR_END), Uri::sip("100", CALLER), Peer::udp(FAR_END));
    let video = Bytes::from_static(
        b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 9 RTP/AVP 96\r\n",
    );
    line.seen.clear();
    line.call = line.caller.invite(line.now.mono, target, video).unwrap();
    line.exchange();
    assert!(line.seen.iter().any(|(_, words)| words == "488"), "{:?}", line.seen);
}

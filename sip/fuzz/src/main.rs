//! Fuzzing with a stable compiler: seeds are changed at random, and what does something new becomes a seed itself.
//!
//! `cargo run --release --manifest-path sip/fuzz/Cargo.toml -- [--seconds N] [--seed N] [--target NAME] [--out FOLDER]`
//!
//! A panic writes its input to the folder and ends the run with an error. The same seed and number of inputs repeat a run.

use std::collections::BTreeSet;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::{Named, SEPARATOR, TARGETS};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// Most seeds kept for one target.
const SEEDS_MAX: usize = 4_000;
/// Longest input, in bytes.
const INPUT_MAX: usize = 16 * 1_024;

/// Words that matter to the readers.
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    " ",
    "\t",
    ";",
    ",",
    "<",
    ">",
    "\"",
    "\\",
    "=",
    ":",
    "@",
    "%00",
    "%",
    "sip:",
    "sips:",
    "tel:",
    ";tag=",
    ";branch=z9hG4bK",
    ";lr",
    ";rport",
    ";received=",
    "Content-Length: ",
    "l: ",
    "Via: ",
    "v: ",
    "SIP/2.0",
    "INVITE ",
    "ACK ",
    "BYE ",
    "CANCEL ",
    "PRACK ",
    "UPDATE ",
    "REFER ",
    "INFO ",
    "NOTIFY ",
    "OPTIONS ",
    "100rel",
    "timer",
    "Require: ",
    "RSeq: ",
    "RAck: ",
    "Session-Expires: ",
    "Min-SE: ",
    "Retry-After: ",
    "Reason: ",
    "Record-Route: ",
    "Route: ",
    "Contact: ",
    "Replaces: ",
    "Refer-To: ",
    "4294967295",
    "4294967296",
    "-1",
    "0",
    "99999999999999999999",
    "[::1]",
    "[",
    "]",
    "a=rtpmap:",
    "m=audio ",
    "c=IN IP4 ",
    "a=sendonly",
    "@via",
    "@to",
    "@from",
    "@call",
    "@seq",
    "@method",
];

struct Arguments {
    seconds: u64,
    seed: u64,
    target: Option<String>,
    out: PathBuf,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut read = Arguments { seconds: 60, seed: 1, target: None, out: std::env::temp_dir() };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or("an option without its value")?;
        match name.as_str() {
            "--seconds" => read.seconds = value.parse()?,
            "--seed" => read.seed = value.parse()?,
            "--target" => read.target = Some(value),
            "--out" => read.out = value.into(),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(read)
}

fn torture() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/torture");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// A request to the endpoint, within a dialog of its own when `to` says so.
fn request(method: &str, seq: u32, to: &str, extra: &str) -> String {
    format!(
        "m{method} sip:me@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK{method}{seq}\r\nMax-Forwards: 70\r\n\
         From: <sip:them@x>;tag=them\r\nTo: {to}\r\nCall-ID: c1\r\nCSeq: {seq} {method}\r\nContact: <sip:them@192.0.2.2>\r\n{extra}\
         Content-Length: 0\r\n\r\n"
    )
}

fn response(code: u16, extra: &str) -> String {
    format!(
        "mSIP/2.0 {code} X\r\nVia: @via\r\nFrom: @from\r\nTo: @to;tag=t\r\nCall-ID: @call\r\nCSeq: @seq @method\r\n\
         Contact: <sip:bob@192.0.2.2>\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

/// Stories for the endpoint.
fn stories() -> Vec<Vec<u8>> {
    let new = "<sip:me@192.0.2.1>";
    let timer = "Supported: timer, 100rel\r\nSession-Expires: 90;refresher=uac\r\n";
    let all: Vec<Vec<String>> = vec![
        vec![
            "i".into(),
            response(100, ""),
            response(180, ""),
            response(200, ""),
            "h".into(),
            response(200, ""),
        ],
        vec![
            "i".into(),
            response(183, "Require: 100rel\r\nRSeq: 1\r\n"),
            response(200, ""),
            response(200, timer),
        ],
        vec![
            "i".into(),
            response(401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n"),
            response(486, ""),
        ],
        vec!["i".into(), response(422, "Min-SE: 1800\r\n"), response(302, ""), response(180, "")],
        vec!["i".into(), response(180, ""), "h".into(), response(200, ""), response(487, "")],
        vec!["i".into(), "u".into(), "i".into(), response(503, "Retry-After: 5\r\n")],
        vec![
            request("INVITE", 1, new, timer),
            "a".into(),
            request("ACK", 1, "@to", ""),
            request("BYE", 2, "@to", ""),
        ],
        vec![request("INVITE", 1, new, ""), request("CANCEL", 1, new, ""), request("ACK", 1, "@to", "")],
        vec![
            request("INVITE", 1, new, ""),
            "a".into(),
            request("ACK", 1, "@to", ""),
            request("INVITE", 2, "@to", ""),
            "o".into(),
            request("ACK", 2, "@to", ""),
            request("UPDATE", 3, "@to", timer),
            request("INFO", 4, "@to", ""),
            request("REFER", 5, "@to", "Refer-To: <sip:z@y>\r\n"),
            "h".into(),
        ],
        vec![
            request("OPTIONS", 1, new, ""),
            request("REGISTER", 1, new, ""),
            request("SUBSCRIBE", 1, new, ""),
        ],
    ];
    let join = |parts: &Vec<String>| parts.iter().map(String::as_bytes).collect::<Vec<_>>().join(&SEPARATOR);
    let mut all: Vec<Vec<u8>> = all.iter().map(join).collect();
    all.extend(torture().into_iter().map(|text| [b"m".to_vec(), text].concat()));
    all
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let sdp: &[&str] = &[
        "v=0\r\no=- 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
        "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\na=inactive\r\na=rtcp-mux\r\n",
        "v=0\r\no=- 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4 FEC_KEY=-\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz -X WSH=64\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 31\r\nm=audio 4000 RTP/SAVP 96\r\n\
         c=IN IP4 0.0.0.0\r\na=rtpmap:96 PCMU/8000\r\na=sendonly\r\n",
    ];
    match target {
        "sdp" => sdp.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "endpoint" => stories(),
        "stream" => {
            let mut all = torture();
            all.push(all.concat());
            all.push(b"\r\n\r\nA b SIP/2.0\r\nl: 3\r\n\r\nabc\r\n".to_vec());
            all
        }
        _ => torture(),
    }
}

struct Mutator {
    random: ChaCha8Rng,
}

impl Mutator {
    fn below(&mut self, bound: usize) -> usize {
        self.random.next_u32() as usize % bound.max(1)
    }

    /// A place and a length within an input.
    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(input.len() + 1);
        let most = (input.len() - from).min(if self.below(4) == 0 { input.len() } else { 16 });
        from..from + self.below(most + 1)
    }

    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        let range = self.range(input);
        match self.below(9) {
            0 if !input.is_empty() => {
                let at = self.below(input.len());
                input[at] ^= 1 << self.below(8);
            }
            1 if !input.is_empty() => {
                let at = self.below(input.len());
                input[at] = [0, b'\r', b'\n', b' ', b'"', b'<', b';', 0x7f, 0x80, SEPARATOR][self.below(10)];
            }
            2 => drop(input.drain(range)),
            3 => {
                let copy = input[range.clone()].to_vec();
                input.splice(range.end..range.end, copy);
            }
            4 | 5 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(range, word.bytes());
            }
            6 => {
                let other = &others[self.below(others.len())];
                let piece = self.range(other);
                input.splice(range, other[piece].to_vec());
            }
            7 => {
                let many = self.below(64);
                let byte = input.get(range.start).copied().unwrap_or(b'a');
                input.splice(range, std::iter::repeat_n(byte, many));
            }
            _ => input.truncate(range.end),
        }
        input.truncate(INPUT_MAX);
    }
}

/// Fuzzes one target; gives back how many inputs were tried.
fn run(target: &Named, arguments: &Arguments, share: Duration) -> Result<u64, Box<dyn Error>> {
    let (name, play) = target;
    let mut pool = seeds(name);
    if pool.is_empty() {
        return Err("no seeds".into());
    }
    let mut mutator = Mutator { random: ChaCha8Rng::seed_from_u64(arguments.seed) };
    let (start, mut tried, mut seen) = (Instant::now(), 0_u64, BTreeSet::new());
    let first = pool.len();
    while start.elapsed() < share {
        let mut input = match usize::try_from(tried) {
            Ok(at) if at < first => pool[at].clone(),
            _ => pool[mutator.below(pool.len())].clone(),
        };
        if tried >= first as u64 {
            for _ in 0..=mutator.below(6) {
                mutator.change(&mut input, &pool);
            }
        }
        tried += 1;
        let Ok(mark) = catch_unwind(AssertUnwindSafe(|| play(&input))) else {
            let path = arguments.out.join(format!("fuzz-{name}-{}-{tried}.bin", arguments.seed));
            std::fs::write(&path, &input)?;
            return Err(format!("{name}: input {tried} panics; it is in {}", path.display()).into());
        };
        if seen.insert(mark) && pool.len() < SEEDS_MAX {
            pool.push(input);
        }
    }
    println!(
        "{name}: {tried} inputs in {:.0} s, {} kinds of outcome",
        start.elapsed().as_secs_f64(),
        seen.len()
    );
    Ok(tried)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let wanted: Vec<&Named> = TARGETS
        .iter()
        .filter(|(name, _)| arguments.target.as_deref().is_none_or(|wanted| wanted == *name))
        .collect();
    let targets = u32::try_from(wanted.len())?;
    if targets == 0 {
        return Err("no such target".into());
    }
    let share = Duration::from_secs(arguments.seconds) / targets;
    let mut all = 0;
    for target in wanted {
        all += run(target, &arguments, share)?;
    }
    println!("{all} inputs, no panic");
    Ok(())
}

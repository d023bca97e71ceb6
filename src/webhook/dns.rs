//! A small stub resolver (RFC 1035): asks one server by UDP for the A and AAAA records of a name. Used where the
//! operator names a DNS server for webhooks; it keeps nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Longest datagram that is read; longer answers are cut and read as far as they go.
const ANSWER_MAX: usize = 4096;

/// Addresses taken from one answer at most.
const ADDRESSES_MAX: usize = 16;

/// Time for one try, and tries.
const TRY: Duration = Duration::from_millis(1000);
const TRIES: usize = 2;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The name cannot be written into a question.
    #[error("not a host name")]
    Name,
    /// The socket failed.
    #[error("dns: {0}")]
    Io(#[from] std::io::Error),
    /// Nobody answered in time.
    #[error("the DNS server did not answer")]
    TimedOut,
    /// The server answered that the name does not exist, or that it cannot say (RFC 1035 §4.1.1 RCODE).
    #[error("the DNS server answered with code {0}")]
    Code(u8),
    /// The answer makes no sense.
    #[error("the DNS server's answer is malformed")]
    Malformed,
    /// No random question id.
    #[error("no random bytes from the system")]
    Random,
}

/// The IPv4 and IPv6 addresses of a name, IPv4 first. An empty list: the name exists and has none.
pub async fn lookup(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, DnsError> {
    let (four, six) = tokio::join!(ask(server, name, TYPE_A), ask(server, name, TYPE_AAAA));
    match (four, six) {
        (Ok(mut four), Ok(six)) => {
            four.extend(six);
            Ok(four)
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.is_empty() => Ok(one),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

async fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<IpAddr>, DnsError> {
    let mut id = [0_u8; 2];
    getrandom::fill(&mut id).map_err(|_| DnsError::Random)?;
    let question = question(id, name, kind).ok_or(DnsError::Name)?;
    let local: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    for _ in 0..TRIES {
        socket.send(&question).await?;
        if let Ok(answer) = timeout(TRY, matching(&socket, &question, kind)).await {
            return answer;
        }
    }
    Err(DnsError::TimedOut)
}

/// Reads datagrams until one answers the question.
async fn matching(socket: &UdpSocket, question: &[u8], kind: u16) -> Result<Vec<IpAddr>, DnsError> {
    let mut buffer = [0_u8; ANSWER_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Some(answer) = addresses(&buffer[..len], question, kind) {
            return answer;
        }
    }
}

/// A query with recursion desired (RFC 1035 §4.1). `None`: the name does not fit.
fn question(id: [u8; 2], name: &str, kind: u16) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    let mut bytes = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        bytes.push(len);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    Some(bytes)
}

/// The addresses in an answer; `None` if the datagram answers another question (or none) and is to be passed over.
fn addresses(answer: &[u8], question: &[u8], kind: u16) -> Option<Result<Vec<IpAddr>, DnsError>> {
    let is_response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let echoed = answer.get(12..question.len())?;
    if !is_response || answer[..2] != question[..2] || !echoed.eq_ignore_ascii_case(&question[12..]) {
        return None;
    }
    let code = answer[3] & 0x0f;
    if code != 0 {
        return Some(Err(DnsError::Code(code)));
    }
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    Some(records(answer, question.len(), count, kind).ok_or(DnsError::Malformed))
}

/// Walks the answer section. Records of other types (CNAME on the way) are passed over; a recursive server has put
/// the end of the chain into the same section.
fn records(answer: &[u8], mut at: usize, count: u16, kind: u16) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    for _ in 0..count {
        if at >= answer.len() || found.len() == ADDRESSES_MAX {
            break;
        }
        at = skip_name(answer, at)?;
        let fixed: &[u8; 10] = answer.get(at..at + 10)?.try_into().ok()?;
        let [t0, t1, c0, c1, _, _, _, _, l0, l1] = *fixed;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let data = answer.get(at + 10..at + 10 + len)?;
        at += 10 + len;
        if u16::from_be_bytes([t0, t1]) != kind || u16::from_be_bytes([c0, c1]) != CLASS_IN {
            continue;
        }
        if let Ok(four) = <[u8; 4]>::try_from(data) {
            found.push(IpAddr::V4(four.into()));
        } else if let Ok(six) = <[u8; 16]>::try_from(data) {
            found.push(IpAddr::V6(six.into()));
        }
    }
    Some(found)
}

/// The place after a name: labels to a zero, or to a pointer, which is never followed (RFC 1035 §4.1.4).
fn skip_name(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *answer.get(at)?;
        match len {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(len),
            0xc0..=0xff => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(question: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2] = 0x81;
        bytes[3] = 0x80;
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn addresses_are_read_behind_aliases() {
        let asked = question([1, 2], "hooks.example.", TYPE_A).unwrap();
        let datagram = answer(&asked, &[(5, b"\x01a\xc0\x0c"), (1, &[192, 0, 2, 7])]);
        let found = addresses(&datagram, &asked, TYPE_A).unwrap().unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(addresses(&answer(&asked, &[]), &asked, TYPE_A).unwrap().unwrap().is_empty());
    }

    #[test]
    fn strangers_answers_are_passed_over() {
        let asked = question([1, 2], "hooks.example", TYPE_A).unwrap();
        let mut other = answer(&asked, &[(1, &[192, 0, 2, 7])]);
        other[0] ^= 1;
        assert!(addresses(&other, &asked, TYPE_A).is_none());
        assert!(addresses(&asked, &asked, TYPE_A).is_none());
        assert!(addresses(&[], &asked, TYPE_A).is_none());
        let wrong_name = question([1, 2], "hooks.exampla", TYPE_A).unwrap();
        assert!(addresses(&answer(&wrong_name, &[]), &asked, TYPE_A).is_none());
    }

    #[test]
    fn a_missing_name_is_an_error_with_its_code() {
        let asked = question([1, 2], "hooks.example", TYPE_A).unwrap();
        let mut datagram = answer(&asked, &[]);
        datagram[3] = 0x83;
        assert!(matches!(addresses(&datagram, &asked, TYPE_A), Some(Err(DnsError::Code(3)))));
    }

    #[test]
    fn impossible_names_are_not_asked() {
        assert!(question([0, 0], "", TYPE_A).is_none());
        assert!(question([0, 0], "a..b", TYPE_A).is_none());
        assert!(question([0, 0], &"a".repeat(64), TYPE_A).is_none());
        assert!(question([0, 0], &"a.".repeat(127), TYPE_A).is_some());
        assert!(question([0, 0], &"ab.".repeat(100), TYPE_A).is_none());
    }

    proptest! {
        #[test]
        fn no_datagram_panics(tail in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u8..9) {
            let asked = question([1, 2], "hooks.example", TYPE_AAAA).unwrap();
            let mut datagram = answer(&asked, &[]);
            datagram[7] = count;
            datagram.extend(tail);
            let _ = addresses(&datagram, &asked, TYPE_AAAA);
        }
    }
}

//! Draws a call's SIP messages the way engineers do on paper: ourselves on the left, each peer on a line of its own, an
//! arrow for each message, and the messages in full below. Decides nothing; what it is given is masked.

use std::fmt::Write;
use std::net::SocketAddr;

use super::transport;
use crate::model::ladder::{Ladder, Rung};

/// Peers with a line of their own; the rest share one.
const PEERS_MAX: usize = 5;
/// From one line to the next, characters.
const APART: usize = 34;
/// Before our own line: the time, and how long after the first.
const MARGIN: usize = 26;

/// The whole page.
pub(super) fn draw(ladder: &Ladder) -> String {
    let mut page = String::new();
    let state = if ladder.live { "up" } else { "over" };
    let _ = writeln!(page, "call {} ({}), {state}", ladder.kaphila_id, ladder.call.hex());
    if ladder.left_out > 0 {
        let _ = writeln!(page, "{} messages before these are not kept", ladder.left_out);
    }
    page.push('\n');
    let peers = peers(&ladder.rungs);
    head(&mut page, &peers);
    let first = ladder.rungs.first().map_or(0, |rung| rung.at.0);
    for (number, rung) in ladder.rungs.iter().enumerate() {
        let since = rung.at.0.saturating_sub(first);
        let mut line = format!("{}  +{}.{:03}", clock(rung), since / 1000, since % 1000);
        while line.chars().count() < MARGIN {
            line.push(' ');
        }
        line.push_str(&arrow(rung, &peers));
        let _ = write!(line, "  {}", number + 1);
        if rung.again > 0 {
            let later = rung.last_at.0.saturating_sub(rung.at.0);
            let _ = write!(line, " (again {}x, last +{}.{:03})", rung.again, later / 1000, later % 1000);
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
    for (number, rung) in ladder.rungs.iter().enumerate() {
        whole(&mut page, number + 1, rung);
    }
    page
}

type Peer = (sip::Transport, SocketAddr);

fn peers(rungs: &[Rung]) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for rung in rungs {
        let peer = (rung.transport, rung.peer);
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

/// The names above the lines.
fn head(page: &mut String, peers: &[Peer]) {
    let mut line = " ".repeat(MARGIN.saturating_sub(4)) + "trunkline";
    for (at, (by, addr)) in peers.iter().enumerate().take(PEERS_MAX) {
        let shared = at + 1 == PEERS_MAX && peers.len() > PEERS_MAX;
        let name = if shared { "others".to_owned() } else { format!("{addr}/{}", transport(*by)) };
        let middle = MARGIN + (at + 1) * APART;
        let begin = middle.saturating_sub(name.chars().count() / 2);
        while line.chars().count() < begin.max(line.trim_end().chars().count() + 1) {
            line.push(' ');
        }
        line.push_str(&name);
    }
    page.push_str(&line);
    page.push('\n');
}

/// A line of the drawing, from our own line on.
fn arrow(rung: &Rung, peers: &[Peer]) -> String {
    let place = peers.iter().position(|peer| *peer == (rung.transport, rung.peer)).unwrap_or(0);
    let (lines, place) = (peers.len().min(PEERS_MAX), place.min(PEERS_MAX - 1) + 1);
    let mut cells: Vec<char> = vec![' '; lines * APART + 1];
    for cell in cells.iter_mut().step_by(APART) {
        *cell = '|';
    }
    let end = place * APART;
    cells[1..end].fill('-');
    if rung.sent {
        cells[end - 1] = '>';
    } else {
        cells[1] = '<';
    }
    let mut label = label(rung);
    if rung.describes() {
        label.push_str(" (SDP)");
    }
    // In the last piece of the way, with a dash and the arrow's head on each side.
    let begin = end - APART + 3;
    for (cell, letter) in cells[begin..end - 2].iter_mut().zip(label.chars()) {
        *cell = letter;
    }
    cells.into_iter().collect()
}

/// The method, or the status.
fn label(rung: &Rung) -> String {
    let summary = rung.summary();
    let is_status = summary.starts_with(|c: char| c.is_ascii_digit());
    let short = if is_status { summary.split(" (").next() } else { summary.split(' ').next() };
    short.unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

fn clock(rung: &Rung) -> String {
    let iso = rung.at.iso_ms();
    iso.split_once('T').map_or(iso.clone(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

fn whole(page: &mut String, number: usize, rung: &Rung) {
    let way = if rung.sent { "sent to" } else { "received from" };
    let (peer, by, at) = (rung.peer, transport(rung.transport), rung.at.iso_ms());
    let _ = writeln!(page, "\n---- {number}: {way} {peer}/{by} at {at}, {} bytes", rung.size);
    for line in rung.text().lines() {
        // What peers send must not move the reader's cursor.
        page.extend(line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }));
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{CallId, Timestamp};

    fn rung(at: i64, sent: bool, peer: &str, text: &str) -> Rung {
        let peer = sip::Peer::udp(peer.parse().unwrap());
        Rung::new(Timestamp(at), sent, peer, text.len(), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_call_over_two_trunks() {
        let start = 1_795_298_400_123;
        let mut again =
            rung(start, true, "192.0.2.1:5060", "INVITE sip:1@a SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n");
        (again.again, again.last_at) = (2, Timestamp(start + 1500));
        let rungs = vec![
            again,
            rung(
                start + 2000,
                true,
                "[2001:db8::1]:5060",
                "INVITE sip:1@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n",
            ),
            rung(
                start + 2015,
                false,
                "[2001:db8::1]:5060",
                "SIP/2.0 183 Session Progress\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n\x1b[2J",
            ),
        ];
        let ladder = Ladder { call: CallId(7), kaphila_id: "1.7".into(), live: true, left_out: 0, rungs };
        let page = draw(&ladder);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[0], "call 1.7 (00000000000000000000000000000007), up");
        assert!(lines[2].contains("trunkline") && lines[2].contains("192.0.2.1:5060/udp"), "{page}");
        assert!(lines[2].contains("[2001:db8::1]:5060/udp"), "{page}");
        let dashes = |count: usize| "-".repeat(count);
        let drawn = [
            format!("|--INVITE (SDP){}>|{}|  1 (again 2x, last +1.500)", dashes(18), " ".repeat(33)),
            format!("|{}INVITE{}>|  2", dashes(36), dashes(24)),
            format!("|<{}183 Session Progress (SDP){}|  3", dashes(35), dashes(5)),
        ];
        for (line, wanted) in lines[3..6].iter().zip(&drawn) {
            assert_eq!(line.get(MARGIN..), Some(wanted.as_str()), "{page}");
        }
        assert!(lines[4].contains("+2.000"), "{page}");
        assert!(page.contains("---- 3: received from [2001:db8::1]:5060/udp at ") && !page.contains('\x1b'));
    }

    #[test]
    fn more_peers_than_lines_share_the_last() {
        let of = |n: usize| {
            rung(0, n.is_multiple_of(2), &format!("192.0.2.{n}:5060"), "BYE sip:a SIP/2.0\r\n\r\n")
        };
        let rungs = (1..12).map(of).collect();
        let page =
            draw(&Ladder { call: CallId(7), kaphila_id: "1.7".into(), live: false, left_out: 3, rungs });
        assert!(page.contains("others") && page.contains("3 messages before these"), "{page}");
        assert!(page.lines().all(|line| line.chars().count() < MARGIN + (PEERS_MAX + 1) * APART), "{page}");
    }
}

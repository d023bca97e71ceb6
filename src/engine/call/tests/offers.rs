//! Session descriptions inside a call: whose version grows, holds, moved ports, offers that are asked for.

use super::*;

#[test]
fn the_description_has_a_new_version_only_when_it_says_something_new() {
    let mut line = Line::answered(order(false));
    let mut version = |offer: &str| {
        let event = SessionEvent::Offer { sdp: Some(Bytes::from(offer.to_owned())) };
        let ((), steps) = line.steps(|call, ctx| call.signalled(ctx, event));
        let answer = steps.into_iter().find_map(|step| match step {
            Step::AnswerOffer(sdp) => Some(String::from_utf8(sdp.to_vec()).unwrap()),
            _ => None,
        });
        let answer = answer.unwrap();
        let origin = answer.lines().find(|line| line.starts_with("o=")).unwrap();
        origin.split(' ').nth(2).unwrap().parse::<u64>().unwrap()
    };
    let active = String::from_utf8(ANSWER.to_vec()).unwrap();
    let held = format!("{active}a=sendonly\r\n");
    let first = version(&active);
    assert_eq!(version(&active), first);
    assert_eq!(version(&held), first + 1);
    assert_eq!(version(&held), first + 1);
    assert_eq!(version(&active), first + 2);
}

/// What an offer inside the call leads to: the direction of our answer, where media goes from then on, and whether the
/// watchdog rests.
fn reoffered(line: &mut Line, offer: &str) -> (String, SocketAddr, bool) {
    let event = SessionEvent::Offer { sdp: Some(Bytes::from(offer.to_owned())) };
    let ((), steps) = line.steps(|call, ctx| call.signalled(ctx, event));
    let (mut direction, mut to, mut held) = (String::new(), None, None);
    for step in steps {
        match step {
            Step::AnswerOffer(sdp) => {
                let sdp = String::from_utf8(sdp.to_vec()).unwrap();
                let word = sdp
                    .lines()
                    .rev()
                    .find(|line| ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"].contains(line));
                direction = word.unwrap().to_owned();
            }
            Step::Media(media::Command::Connect { remote, .. }) => to = Some(remote.address),
            Step::Media(media::Command::Hold { on, .. }) => held = Some(on),
            _ => {}
        }
    }
    (direction, to.unwrap(), held.unwrap())
}

/// FIELD 5.11, 5.12, 5.26 and 5.32: a hold is answered by what was asked (RFC 3264 §6.1, and §8.4 for the old way with an
/// unspecified address), the watchdog rests meanwhile, and a moved port is followed.
#[test]
fn every_kind_of_hold_is_answered_and_a_moved_port_followed() {
    let mut line = Line::answered(order(false));
    let active = String::from_utf8(ANSWER.to_vec()).unwrap();
    let old = active.replace("c=IN IP4 10.0.0.1", "c=IN IP4 0.0.0.0");
    let moved =
        active.replace("m=audio 4000", "m=audio 4010").replace("c=IN IP4 10.0.0.1", "c=IN IP4 10.0.0.2");
    for (offer, direction, to, held) in [
        (format!("{active}a=sendonly\r\n"), "a=recvonly", "10.0.0.1:4000", true),
        (format!("{active}a=inactive\r\n"), "a=inactive", "10.0.0.1:4000", true),
        (format!("{active}a=recvonly\r\n"), "a=sendonly", "10.0.0.1:4000", true),
        (old, "a=recvonly", "0.0.0.0:4000", true),
        (active.clone(), "a=sendrecv", "10.0.0.1:4000", false),
        (moved, "a=sendrecv", "10.0.0.2:4010", false),
    ] {
        let got = reoffered(&mut line, &offer);
        assert_eq!(got, (direction.to_owned(), to.parse().unwrap(), held), "{offer}");
    }
}

/// FIELD 5.13 and 5.33: an offer that is asked for in the middle of a call is a whole one, and its port is even.
#[test]
fn who_asks_for_an_offer_gets_a_whole_one() {
    let mut line = Line::answered(order(false));
    let ((), steps) = line.steps(|call, ctx| call.signalled(ctx, SessionEvent::Offer { sdp: None }));
    let Some(Step::AnswerOffer(sdp)) = steps.into_iter().next() else { panic!() };
    let sdp = String::from_utf8(sdp.to_vec()).unwrap();
    assert!(sdp.contains("m=audio 10000 RTP/AVP 0 101\r\n") && sdp.contains("a=sendrecv\r\n"), "{sdp}");
    let moved = Bytes::from(String::from_utf8(ANSWER.to_vec()).unwrap().replace("4000", "4020"));
    let event = SessionEvent::OfferAnswered { sdp: Some(moved) };
    let ((), steps) = line.steps(|call, ctx| call.signalled(ctx, event));
    let to = steps.into_iter().find_map(|step| match step {
        Step::Media(media::Command::Connect { remote, .. }) => Some(remote.address.port()),
        _ => None,
    });
    assert_eq!(to, Some(4020));
}

/// An UPDATE before the answer is answered like one after it, and its media is heard.
#[test]
fn a_change_of_early_media_is_followed() {
    let mut line = Line::dialled(order(false));
    let sdp = Some(Bytes::from_static(ANSWER));
    line.signal(SessionEvent::Progress { code: 183, reason: String::new(), dialog: sip::EarlyId(0), sdp });
    let moved = String::from_utf8(ANSWER.to_vec()).unwrap().replace("4000", "4030");
    let (direction, to, held) = reoffered(&mut line, &moved);
    assert_eq!((direction.as_str(), to.port(), held), ("a=sendrecv", 4030, false));
}

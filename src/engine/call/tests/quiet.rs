//! A call that is answered and hears nothing says so by itself.

use super::*;

/// When the words are due.
const WITHIN: Duration = Duration::from_secs(5);

#[test]
fn an_answer_alone_sets_the_clock_and_the_words_come() {
    let mut line = Line::dialled(order(false));
    line.signal(SessionEvent::Answered { sdp: Some(Bytes::from_static(ANSWER)) });
    assert_eq!(line.call.deadline(), Some(line.now.mono + WITHIN));
    assert_eq!(names(&line.wait(WITHIN)), ["unheard"]);
    assert!(line.wait(WITHIN).is_empty(), "once is enough");
}

#[test]
fn sound_that_comes_stops_it() {
    let mut line = Line::dialled(order(false));
    line.signal(SessionEvent::Answered { sdp: Some(Bytes::from_static(ANSWER)) });
    line.hear(Heard::FirstPacket { leg: CALLEE });
    assert!(line.wait(WITHIN).is_empty());
}

#[test]
fn a_caller_that_was_made_an_offer_is_expected_from_its_answer_on() {
    let mut line = Line::new(order(false));
    let peer = Ipv4Addr::new(10, 0, 0, 1).into();
    line.call.came_in(Called { offer: None, echo: false, peer });
    line.hear(Heard::Opened { leg: CALLEE });
    assert!(line.wait(WITHIN).is_empty(), "nobody knows yet where it is");
    line.signal(SessionEvent::Confirmed { sdp: Some(Bytes::from_static(ANSWER)) });
    assert_eq!(names(&line.wait(WITHIN)), ["unheard"]);
}

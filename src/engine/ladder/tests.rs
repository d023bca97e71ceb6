//! What is kept, what is not, and for how long.

use super::*;

struct Bed {
    ladders: Ladders,
    now: Now,
}

fn message(first: &str, dialog: &str) -> String {
    format!("{first}\r\nVia: x\r\nCall-ID: {dialog}\r\nCSeq: 1 INVITE\r\n\r\n")
}

fn peer() -> sip::Peer {
    sip::Peer::udp("192.0.2.1:5060".parse().unwrap())
}

impl Bed {
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn new() -> Self {
        let now = Now { mono: Instant::now(), wall: Timestamp(1_800_000_000_000) };
        Self { ladders: Ladders::default(), now }
    }

    fn came(&mut self, first: &str, dialog: &str) {
        self.ladders.came(self.now, peer(), message(first, dialog).as_bytes());
    }

    fn goes(&mut self, first: &str, dialog: &str) {
        self.ladders.goes(&sip::Transmit { to: peer(), bytes: message(first, dialog).into() });
    }

    fn own(&mut self, call: u128, dialog: &str) {
        self.ladders.own(CallId(call), &format!("1.{call}"), dialog);
    }

    fn wait(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.ladders.at(self.now);
    }

    fn of(&self, call: u128) -> Option<Ladder> {
        let found = self.ladders.of(&CallName::Id(CallId(call)));
        let named = self.ladders.of(&CallName::Kaphila(format!("1.{call}")));
        assert_eq!(found.is_some(), named.is_some());
        found
    }

    fn words(&self, call: u128) -> Vec<(bool, String)> {
        let rungs = self.of(call).unwrap().rungs;
        rungs.iter().map(|rung| (rung.sent, rung.summary())).collect()
    }

    fn is_empty(&self) -> bool {
        let Ladders { kept, dialogs, calls, names, ending, bytes, .. } = &self.ladders;
        kept.is_empty()
            && dialogs.is_empty()
            && calls.is_empty()
            && names.is_empty()
            && ending.is_empty()
            && *bytes == 0
    }
}

#[test]
fn each_attempt_of_a_call_is_in_its_ladder_and_ten_minutes_more() {
    let mut bed = Bed::new();
    bed.goes("OPTIONS sip:a SIP/2.0", "options");
    bed.own(1, "one");
    bed.goes("INVITE sip:a SIP/2.0", "one");
    bed.came("SIP/2.0 503 No", "one");
    bed.own(1, "two");
    bed.own(2, "other");
    bed.goes("INVITE sip:b SIP/2.0", "two");
    bed.goes("INVITE sip:c SIP/2.0", "other");
    bed.came("SIP/2.0 200 OK", "two");
    let expected = [
        (true, "INVITE sip:a"),
        (false, "503 No (INVITE)"),
        (true, "INVITE sip:b"),
        (false, "200 OK (INVITE)"),
    ];
    let words = bed.words(1);
    assert_eq!(words.iter().map(|(sent, text)| (*sent, text.as_str())).collect::<Vec<_>>(), expected);
    assert!(bed.of(1).unwrap().live);
    bed.ladders.over(bed.now, CallId(1));
    // What follows the end belongs to it, too.
    bed.came("SIP/2.0 200 OK", "one");
    assert_eq!((bed.words(1).len(), bed.of(1).unwrap().live), (5, false));
    bed.wait(KEPT - Duration::from_millis(1));
    assert!(bed.of(1).is_some());
    bed.wait(Duration::from_millis(1));
    assert!(bed.of(1).is_none() && bed.of(2).is_some());
    bed.ladders.over(bed.now, CallId(2));
    bed.wait(KEPT);
    assert!(bed.is_empty());
}

#[test]
fn what_a_caller_said_before_it_was_let_in_is_kept_and_what_strangers_say_is_not() {
    let mut bed = Bed::new();
    bed.came("INVITE sip:us SIP/2.0", "stranger");
    bed.goes("SIP/2.0 403 No", "stranger");
    assert!(bed.is_empty());
    bed.came("INVITE sip:us SIP/2.0", "caller");
    bed.ladders.knocked(bed.now, "caller");
    bed.goes("SIP/2.0 401 Unauthorized", "caller");
    bed.came("INVITE sip:us;again SIP/2.0", "caller");
    bed.ladders.knocked(bed.now, "caller");
    bed.own(3, "caller");
    bed.wait(UNTAKEN * 2);
    assert_eq!(bed.words(3).len(), 3);

    bed.came("INVITE sip:us SIP/2.0", "refused");
    bed.ladders.knocked(bed.now, "refused");
    bed.wait(UNTAKEN);
    bed.ladders.over(bed.now, CallId(3));
    bed.wait(KEPT);
    assert!(bed.is_empty());
}

#[test]
fn the_latest_are_kept_and_repetitions_are_counted() {
    let mut bed = Bed::new();
    bed.own(1, "one");
    for n in 0..RUNGS_MAX + 6 {
        bed.goes(&format!("INFO sip:{n} SIP/2.0"), "one");
        bed.goes(&format!("INFO sip:{n} SIP/2.0"), "one");
    }
    let ladder = bed.of(1).unwrap();
    assert_eq!((ladder.rungs.len(), ladder.left_out), (RUNGS_MAX, 6));
    assert!(ladder.rungs.iter().all(|rung| rung.again == 1));
    assert_eq!(ladder.rungs[0].summary(), "INFO sip:6");
    let long = "x".repeat(3 * RUNG_MAX_BYTES);
    bed.goes(&format!("BYE sip:{long} SIP/2.0"), "one");
    // The Call-ID stands behind what is cut off.
    let last = bed.of(1).unwrap().rungs.pop().unwrap();
    assert_eq!(last.weight(), RUNG_MAX_BYTES);
    assert!(last.size > 3 * RUNG_MAX_BYTES);
}

#[test]
fn so_many_bytes_are_kept_and_calls_that_are_up_come_first() {
    let mut bed = Bed::new();
    let filler = "x".repeat(RUNG_MAX_BYTES);
    let fill = |bed: &mut Bed, call: u128| {
        bed.own(call, &format!("call{call}"));
        for n in 0..RUNGS_MAX {
            bed.goes(&format!("INFO sip:{n}{filler} SIP/2.0"), &format!("call{call}"));
        }
    };
    let whole = (MAX_BYTES / (RUNGS_MAX * RUNG_MAX_BYTES)) as u128;
    for call in 0..whole {
        fill(&mut bed, call);
        if call < 4 {
            bed.ladders.over(bed.now, CallId(call));
            bed.now = bed.now.plus(Duration::from_millis(1));
        }
    }
    assert!(bed.ladders.bytes <= MAX_BYTES);
    fill(&mut bed, whole);
    assert!(bed.of(0).is_none(), "the one that ended first makes room");
    assert!(bed.of(3).is_some() && bed.of(4).is_some());
    for call in whole + 1..whole + 6 {
        fill(&mut bed, call);
        assert!(bed.ladders.bytes <= MAX_BYTES);
    }
    let last = bed.of(whole + 5).unwrap();
    assert!(last.left_out > 0, "nothing is left that may be forgotten");
    assert_eq!(bed.of(4).unwrap().left_out, 0);
}

#[test]
fn a_call_id_is_found_wherever_it_stands() {
    for (message, id) in [
        ("INVITE x\r\nCall-ID: a@b\r\n\r\n", Some("a@b")),
        ("INVITE x\ncall-id :  a \n\n", Some("a")),
        ("INVITE x\r\nContact: y\r\nI: z\r\n\r\n", Some("z")),
        ("INVITE x\r\nIdentity: y\r\n\r\nCall-ID: body\r\n", None),
        ("Call-ID: first\r\n\r\n", None),
        ("INVITE x\r\nCall-ID:\r\n\r\n", None),
        ("INVITE x\r\nCall-ID", None),
        ("", None),
        ("\r\n\r\n", None),
    ] {
        assert_eq!(call_id(message.as_bytes()), id.map(str::as_bytes), "{message:?}");
    }
}

//! Sessions, frame by frame.

use super::super::options::Info;
use super::*;

fn session() -> Session {
    session_with(Options::default())
}

fn session_with(options: Options) -> Session {
    let setup = Setup {
        session: "VX1".into(),
        account: "AC1".into(),
        call: "CA1".into(),
        from: "+1".into(),
        to: "+2".into(),
        direction: "outbound",
        parameters: serde_json::Map::new(),
    };
    let mut session = Session::new(setup, options, "en-US");
    let begun = session.begin();
    assert!(matches!(begun.as_slice(), [Act::Send(setup), Act::Listen(_)] if setup.contains("\"setup\"")));
    session
}

fn say(session: &mut Session, token: &str, last: bool) -> Vec<Act> {
    session.frame(&frames::text(token, last))
}

fn played(session: &mut Session, number: u64, completed: bool, played_ms: u32) -> Vec<Act> {
    let what = Overheard::Played { playback: number.to_string(), completed, played_ms };
    session.overheard(&what, |name| name.parse().ok())
}

#[test]
fn words_are_spoken_in_order_and_told() {
    let mut session = session();
    assert_eq!(say(&mut session, "One. Two", false), [Act::Speak(0, "One.".into(), None)]);
    assert_eq!(say(&mut session, " three.", true), [Act::Speak(1, "Two three.".into(), None)]);
    // The second is ready first, and waits.
    assert_eq!(session.prepared(1, Ok(800)), []);
    assert_eq!(session.prepared(0, Ok(500)), [Act::Play(0), Act::Play(1)]);
    assert_eq!(played(&mut session, 0, true, 500), [Act::Saying(Speaker::Agent, "One.".into(), 1)]);
    let told = [
        Act::Saying(Speaker::Agent, "One. Two three.".into(), 1),
        Act::Said(Speaker::Agent, "One. Two three.".into(), 1),
    ];
    assert_eq!(played(&mut session, 1, true, 800), told);
    assert_eq!(session.frame(r#"{"type":"end","handoffData":"x"}"#), [Act::HandOff("x".into()), Act::Done]);
}

#[test]
fn whoever_speaks_is_let_speak() {
    let mut session = session();
    let _ = say(&mut session, "Your appointment is on Tuesday. And so on.", true);
    let _ = session.prepared(0, Ok(2000));
    let _ = session.prepared(1, Ok(1000));
    let talk = Overheard::Talk { on: true };
    assert_eq!(session.overheard(&talk, |_| None), [Act::Cut]);
    assert_eq!(session.overheard(&talk, |_| None), []);
    let acts = played(&mut session, 0, false, 1000);
    assert!(matches!(acts.as_slice(), [Act::Saying(..)]), "{acts:?}");
    let acts = played(&mut session, 1, false, 0);
    let [Act::Send(interrupt), Act::Said(Speaker::Agent, said, 1)] = acts.as_slice() else {
        panic!("{acts:?}")
    };
    let interrupt: serde_json::Value = serde_json::from_str(interrupt).unwrap();
    assert_eq!(interrupt["type"], "interrupt");
    assert_eq!(interrupt["durationUntilInterruptMs"], 1000);
    let heard = interrupt["utteranceUntilInterrupt"].as_str().unwrap();
    assert!("Your appointment is on Tuesday.".starts_with(heard) && heard.len() >= 14, "{heard}");
    assert_eq!(said, heard);
    // The next turn goes out as if nothing had been.
    assert_eq!(say(&mut session, "Sorry.", true), [Act::Speak(2, "Sorry.".into(), None)]);
}

#[test]
fn what_may_not_be_interrupted_is_not() {
    let mut session = session();
    let _ = session.frame(r#"{"type":"text","token":"Listen.","last":true,"interruptible":"dtmf"}"#);
    let _ = session.prepared(0, Ok(900));
    assert_eq!(session.overheard(&Overheard::Talk { on: true }, |_| None), []);
    let acts = session.overheard(&Overheard::Digit('5'), |_| None);
    assert_eq!(acts, [Act::Cut]);
    // The key is told after what it did.
    let acts = played(&mut session, 0, false, 450);
    let interrupt = Act::Send(frames::interrupt("Lis", 450));
    assert_eq!(
        acts[1..],
        [interrupt, Act::Said(Speaker::Agent, "Lis".into(), 1), Act::Send(frames::dtmf('5'))]
    );
}

#[test]
fn a_turn_that_may_be_preempted_is() {
    let mut session = session();
    let _ = session.frame(r#"{"type":"text","token":"Please wait.","last":true,"preemptible":true}"#);
    let _ = session.prepared(0, Ok(900));
    assert_eq!(say(&mut session, "Done.", true), [Act::Cut, Act::Speak(1, "Done.".into(), None)]);
    let told = played(&mut session, 0, false, 300);
    assert_eq!(told.last(), Some(&Act::Said(Speaker::Agent, "Plea".into(), 1)));
    assert_eq!(session.prepared(1, Ok(300)), [Act::Play(1)]);
    // The line tells in any order of what was cut.
    let mut session = self::session();
    let _ = session.frame(r#"{"type":"text","token":"One. Two.","last":true,"preemptible":true}"#);
    let _ = session.prepared(0, Ok(500));
    let _ = session.prepared(1, Ok(500));
    let _ = say(&mut session, "Done.", true);
    assert_eq!(played(&mut session, 1, false, 0), []);
    let told = [Act::Saying(Speaker::Agent, "One".into(), 1), Act::Said(Speaker::Agent, "One".into(), 1)];
    assert_eq!(played(&mut session, 0, false, 400), told);
}

#[test]
fn a_sound_is_played_as_often_as_asked() {
    let mut session = session();
    let acts = session.frame(r#"{"type":"play","source":"https://x/y.wav","loop":2}"#);
    assert_eq!(acts, [Act::Fetch(0, "https://x/y.wav".into())]);
    assert_eq!(session.prepared(0, Ok(300)), [Act::Play(0)]);
    assert_eq!(played(&mut session, 0, true, 300), [Act::Play(0)]);
    assert_eq!(played(&mut session, 0, true, 300), []);
    let _ = session.frame(r#"{"type":"play","source":"file:///x"}"#);
    assert_eq!(session.prepared(1, Err("no".into())), [Act::Send(frames::error("no"))]);
}

#[test]
fn ten_malformed_frames_in_a_row_end_it() {
    let mut session = session();
    for round in 0..2 {
        for _ in 0..9 {
            assert!(matches!(session.frame("{}").as_slice(), [Act::Send(_)]));
        }
        if round == 0 {
            assert_eq!(session.frame(r#"{"type":"sendDigits","digits":"1"}"#), [Act::Press("1".into())]);
        }
    }
    let acts = session.frame("nonsense");
    assert!(matches!(acts.as_slice(), [Act::Send(_), Act::Close(1008, _)]), "{acts:?}");
}

#[test]
fn nothing_is_said_before_the_answer() {
    let mut session = session();
    session.begun = false;
    let acts = say(&mut session, "Hello", true);
    assert_eq!(acts, [Act::Send(frames::error("The call is not answered yet"))]);
    let acts = session.overheard(&Overheard::Answered, |_| None);
    assert!(matches!(acts.as_slice(), [Act::Send(_), Act::Listen(_)]));
}

fn sent(acts: &[Act]) -> Vec<&str> {
    acts.iter()
        .filter_map(|act| if let Act::Send(frame) = act { Some(frame.as_str()) } else { None })
        .collect()
}

#[test]
fn only_what_is_alike_is_given_to_the_line_together() {
    let mut session = session();
    let _ = say(&mut session, "One.", true);
    let _ = session.frame(r#"{"type":"text","token":"Two.","last":true,"interruptible":"none"}"#);
    let _ = session.prepared(0, Ok(500));
    assert_eq!(session.prepared(1, Ok(500)), []);
    // Who interrupts the first does not cut the second.
    let talk = Overheard::Talk { on: true };
    assert_eq!(session.overheard(&talk, |_| None), [Act::Cut]);
    let acts = played(&mut session, 0, false, 100);
    assert_eq!(acts.last(), Some(&Act::Play(1)));
    assert_eq!(session.overheard(&talk, |_| None), []);
}

#[test]
fn what_is_repeated_keeps_the_next_waiting() {
    let mut session = session();
    let _ = session.frame(r#"{"type":"play","source":"https://x/y.wav","loop":2}"#);
    let _ = say(&mut session, "One.", true);
    let _ = session.prepared(1, Ok(300));
    assert_eq!(session.prepared(0, Ok(300)), [Act::Play(0)]);
    assert_eq!(played(&mut session, 0, true, 300), [Act::Play(0), Act::Play(1)]);
}

#[test]
fn words_that_were_understood_are_prompts() {
    let options = Options { partial: true, ..Options::default() };
    let mut session = session_with(options);
    let partial = session.understood("I want to", false);
    assert_eq!(
        partial,
        [
            Act::Send(frames::prompt("I want to", "en-US", false)),
            Act::Saying(Speaker::Caller, "I want to".into(), 1)
        ]
    );
    let whole = session.understood(" I want to move. ", true);
    assert_eq!(
        whole,
        [
            Act::Send(frames::prompt("I want to move.", "en-US", true)),
            Act::Said(Speaker::Caller, "I want to move.".into(), 1)
        ]
    );
    assert_eq!(session.understood("  ", true), []);
    // The agent's turn is the next one.
    let _ = say(&mut session, "Yes.", true);
    let _ = session.prepared(0, Ok(300));
    assert_eq!(played(&mut session, 0, true, 300).last(), Some(&Act::Said(Speaker::Agent, "Yes.".into(), 2)));
    // Unless they are asked for, words that are not whole are nobody's business.
    let mut session = session_with(Options::default());
    assert_eq!(session.understood("I want", false), [Act::Saying(Speaker::Caller, "I want".into(), 1)]);
}

#[test]
fn an_interruption_is_told_before_the_words_that_made_it() {
    let mut session = session();
    let _ = say(&mut session, "Your appointment is on ", false);
    let _ = say(&mut session, "Tuesday. Also, ", false);
    let _ = session.prepared(0, Ok(2000));
    assert_eq!(session.understood("Stop", true), [Act::Cut]);
    // What was written before the application knew is not said, even behind the interruption.
    assert_eq!(say(&mut session, "bring your papers.", false), []);
    let acts = played(&mut session, 0, false, 1000);
    let frames: Vec<serde_json::Value> =
        sent(&acts).iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    assert_eq!((&frames[0]["type"], &frames[1]["type"]), (&"interrupt".into(), &"prompt".into()));
    assert_eq!(frames[0]["utteranceUntilInterrupt"], "Your appointmen");
    assert_eq!(say(&mut session, "Yes?", true), [Act::Speak(1, "Yes?".into(), None)]);
}

#[test]
fn who_may_not_interrupt_is_not_reported_either() {
    let mut session = session();
    let _ = session.frame(r#"{"type":"text","token":"Listen.","last":true,"interruptible":"none"}"#);
    let _ = session.prepared(0, Ok(900));
    assert_eq!(session.overheard(&Overheard::Talk { on: true }, |_| None), []);
    assert_eq!(session.understood("Hello", true), []);
    assert_eq!(session.overheard(&Overheard::Digit('1'), |_| None), []);
    let _ = played(&mut session, 0, true, 900);
    // Whoever goes on after it is.
    assert_eq!(session.understood("Hello", true).len(), 2);
    assert_eq!(session.overheard(&Overheard::Digit('1'), |_| None), [Act::Send(frames::dtmf('1'))]);

    let mut session = session_with(Options { report: Interruptible::ANY, ..Options::default() });
    let _ = session.frame(r#"{"type":"text","token":"Listen.","last":true,"interruptible":false}"#);
    let _ = session.prepared(0, Ok(900));
    assert_eq!(session.overheard(&Overheard::Talk { on: true }, |_| None), []);
    assert_eq!(session.understood("Hello", true).len(), 2);
    assert_eq!(session.overheard(&Overheard::Digit('1'), |_| None), [Act::Send(frames::dtmf('1'))]);
}

#[test]
fn a_session_is_as_sensitive_as_it_is_set() {
    let talk = Overheard::Talk { on: true };
    for (sensitivity, by_sound, by_word) in [
        (Sensitivity::High, true, true),
        (Sensitivity::Medium, false, true),
        (Sensitivity::Low, false, false),
    ] {
        let playing = || {
            let mut session = session_with(Options { sensitivity, ..Options::default() });
            let _ = say(&mut session, "One.", true);
            let _ = session.prepared(0, Ok(500));
            session
        };
        assert_eq!(playing().overheard(&talk, |_| None).contains(&Act::Cut), by_sound);
        assert_eq!(playing().understood("well", false).contains(&Act::Cut), by_word);
        assert!(playing().understood("well no", false).contains(&Act::Cut));
        assert!(playing().understood("no", true).contains(&Act::Cut));
    }
}

#[test]
fn languages_change_from_here_on() {
    let mut session = session();
    assert_eq!(say(&mut session, "And in French:", false), []);
    let acts = session.frame(r#"{"type":"text","token":" bonjour.","last":true,"lang":"fr-FR"}"#);
    let french = Some("fr-FR".to_owned());
    assert_eq!(
        acts,
        [Act::Speak(0, "And in French:".into(), None), Act::Speak(1, "bonjour.".into(), french.clone())]
    );
    let acts = session.frame(r#"{"type":"language","ttsLanguage":"fr-FR","transcriptionLanguage":"de-DE"}"#);
    assert_eq!(acts, [Act::Listen("de-DE".into())]);
    assert_eq!(say(&mut session, "Oui.", true), [Act::Speak(2, "Oui.".into(), french)]);
    assert_eq!(session.understood("Ja", true)[0], Act::Send(frames::prompt("Ja", "de-DE", true)));
    let acts = session.frame(r#"{"type":"text","token":"No.","last":true,"lang":"es-ES"}"#);
    assert_eq!(acts, [Act::Speak(3, "No.".into(), Some("es-ES".into()))]);
}

#[test]
fn a_turn_whose_end_is_told_late_is_told_all_the_same() {
    let mut session = session();
    let _ = say(&mut session, "Hello. ", false);
    let _ = say(&mut session, "You", false);
    let _ = session.prepared(0, Ok(300));
    let _ = played(&mut session, 0, true, 300);
    let mut acts = say(&mut session, "", true);
    acts.extend(session.prepared(1, Ok(300)));
    acts.extend(played(&mut session, 1, true, 300));
    assert_eq!(acts.last(), Some(&Act::Said(Speaker::Agent, "Hello. You".into(), 1)));
    assert_eq!(say(&mut session, "Fine. ", false), [Act::Speak(2, "Fine.".into(), None)]);
    assert_eq!(say(&mut session, "Well", false), []);
    // The end of a session is the end of its last turn.
    let acts = session.frame(r#"{"type":"end"}"#);
    assert_eq!(acts, [Act::Speak(3, "Well".into(), None)]);
}

#[test]
fn those_who_ask_are_told_more() {
    let info = Info { speakers: true, tokens: true, round_trip: true };
    let mut session = session_with(Options { info, ..Options::default() });
    let _ = say(&mut session, "One.", true);
    let _ = session.prepared(0, Ok(500));
    let began = Overheard::Began { playback: "0".into() };
    let named = |name: &str| name.parse().ok();
    assert_eq!(sent(&session.overheard(&began, named)), [frames::info("agentSpeaking", "on")]);
    let acts = played(&mut session, 0, true, 500);
    assert_eq!(sent(&acts), [frames::info("tokensPlayed", "One."), frames::info("agentSpeaking", "off")]);
    let acts = session.overheard(&Overheard::Talk { on: false }, named);
    assert_eq!(sent(&acts), [frames::info("clientSpeaking", "off")]);
    assert_eq!(sent(&session.round_trip(148)), [frames::info("roundTripDelayMs", "148")]);
    assert_eq!(session_with(Options::default()).round_trip(148), []);
}

#[test]
fn who_comes_back_is_told_all_anew() {
    let mut session = session();
    let _ = say(&mut session, "One. Two.", true);
    let _ = session.prepared(0, Ok(500));
    let _ = played(&mut session, 0, true, 500);
    assert_eq!(session.leave(), [Act::Said(Speaker::Agent, "One.".into(), 1)]);
    let mut anew = session.anew(session.setup.clone(), Options::default(), "en-US");
    assert_eq!(anew.begin().len(), 2);
    // The old one's sounds mean nothing to it.
    assert_eq!(anew.prepared(1, Ok(500)), []);
    assert_eq!(say(&mut anew, "Again.", true), [Act::Speak(2, "Again.".into(), None)]);
}

#[test]
fn a_prefix_is_by_the_share_of_the_sound() {
    assert_eq!(prefix("Hello. ", 0, 600), "");
    assert_eq!(prefix("Hello. ", 100, 600), "H");
    assert_eq!(prefix("Hello. ", 599, 600), "Hello");
    assert_eq!(prefix("Hello. ", 600, 600), "Hello.");
    assert_eq!(prefix(" ééé", 200, 300), " éé");
    assert_eq!(prefix("Hello.", 5, 0), "");
}

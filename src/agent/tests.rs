//! Conversations in virtual time.

use super::*;

fn manner() -> Manner {
    Manner {
        prompt: "Be brief.".into(),
        first_message: Some("Hello, this is Anna.".into()),
        fallback: "I am sorry.".into(),
        nudge: "Are you still there?".into(),
        silence: Duration::from_secs(30),
        silences: 2,
        confirm: Duration::from_millis(400),
    }
}

/// A conversation and its clock.
struct Bed {
    agent: Agent,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        Self { agent: Agent::new(manner()), now }
    }

    fn after_ms(&mut self, ms: u64, sense: Sense) -> Vec<Act> {
        self.now += Duration::from_millis(ms);
        self.agent.sense(self.now, sense)
    }

    fn at_once(&mut self, sense: Sense) -> Vec<Act> {
        self.after_ms(0, sense)
    }

    /// A caller who has been greeted and has asked something; the generation of the answer.
    fn asked(text: &str) -> (Self, u32) {
        let mut bed = Self::new();
        bed.at_once(Sense::Answered);
        bed.at_once(Sense::Played(clause(1, 0), 1500, true));
        let acts = bed.after_ms(500, Sense::Final(text.into()));
        let Some(Act::Think(generation)) = acts.last() else { panic!("{acts:?}") };
        let generation = *generation;
        (bed, generation)
    }
}

fn clause(generation: u32, index: u32) -> ClauseId {
    ClauseId { generation, index }
}

fn caller(text: &str) -> Said {
    Said { role: Role::Caller, text: text.into() }
}

fn agent(text: &str) -> Said {
    Said { role: Role::Agent, text: text.into() }
}

#[test]
fn a_turn_goes_from_greeting_to_question_to_answer() {
    let mut bed = Bed::new();
    assert_eq!(bed.at_once(Sense::Answered), [Act::Speak(clause(1, 0), "Hello, this is Anna.".into())]);
    assert_eq!(bed.at_once(Sense::Began(clause(1, 0), 1500)), []);
    let greeted = Act::Turn(agent("Hello, this is Anna."));
    assert_eq!(bed.after_ms(1500, Sense::Played(clause(1, 0), 1500, true)), [greeted]);
    bed.after_ms(500, Sense::Talk(true));
    bed.after_ms(900, Sense::Talk(false));
    let acts = bed.after_ms(100, Sense::Final("When do you open?".into()));
    let [Act::Turn(said), Act::Think(generation)] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!(*said, caller("When do you open?"));
    let generation = *generation;
    let first = clause(generation, 0);
    assert_eq!(
        bed.at_once(Sense::Clause(generation, "At nine.".into())),
        [Act::Speak(first, "At nine.".into())]
    );
    assert_eq!(bed.at_once(Sense::Thought(generation)), []);
    assert_eq!(bed.after_ms(800, Sense::Played(first, 800, true)), [Act::Turn(agent("At nine."))]);
    let expected = [agent("Hello, this is Anna."), caller("When do you open?"), agent("At nine.")];
    assert_eq!(bed.agent.history(), expected);
}

#[test]
fn a_cough_holds_the_sentence_and_lets_it_go_on() {
    let (mut bed, generation) = Bed::asked("Tell me more.");
    bed.at_once(Sense::Clause(generation, "It is a long story.".into()));
    assert_eq!(bed.after_ms(300, Sense::Talk(true)), [Act::Hold(true)]);
    assert_eq!(bed.after_ms(200, Sense::Talk(false)), [Act::Hold(false)]);
    bed.at_once(Sense::Thought(generation));
    let acts = bed.after_ms(900, Sense::Played(clause(generation, 0), 900, true));
    assert_eq!(acts, [Act::Turn(agent("It is a long story."))]);
}

#[test]
fn who_goes_on_speaking_cuts_the_answer_and_the_history_holds_what_was_heard() {
    let (mut bed, generation) = Bed::asked("What do you have?");
    let first = clause(generation, 0);
    bed.at_once(Sense::Clause(generation, "We have apples and pears and plums.".into()));
    bed.at_once(Sense::Began(first, 3500));
    bed.at_once(Sense::Clause(generation, "And cherries.".into()));
    assert_eq!(bed.after_ms(1800, Sense::Talk(true)), [Act::Hold(true)]);
    let acts = bed.after_ms(400, Sense::Timeout);
    assert_eq!(acts, [Act::StopThinking, Act::Cut, Act::Hold(false)]);
    assert_eq!(bed.at_once(Sense::Clause(generation, "And more.".into())), [], "an old answer is not spoken");
    assert_eq!(bed.at_once(Sense::Played(clause(generation, 1), 0, false)), []);
    let heard = agent("We have apples and");
    assert_eq!(bed.at_once(Sense::Played(first, 1800, false)), [Act::Turn(heard.clone())]);
    let acts = bed.after_ms(700, Sense::Final("Only the pears.".into()));
    assert!(matches!(acts.as_slice(), [Act::Turn(_), Act::Think(_)]), "{acts:?}");
    assert_eq!(bed.agent.history()[2..], [heard, caller("Only the pears.")]);
}

#[test]
fn two_words_are_no_cough() {
    let (mut bed, generation) = Bed::asked("Tell me more.");
    bed.at_once(Sense::Clause(generation, "It is a long story.".into()));
    bed.at_once(Sense::Thought(generation));
    bed.after_ms(300, Sense::Talk(true));
    assert_eq!(bed.after_ms(50, Sense::Partial("um".into())), []);
    assert_eq!(bed.after_ms(50, Sense::Partial("um wait".into())), [Act::Cut, Act::Hold(false)]);
}

#[test]
fn what_is_said_while_the_model_thinks_is_one_question_with_what_was_said_before() {
    let (mut bed, generation) = Bed::asked("I would like");
    let acts = bed.after_ms(300, Sense::Final("two pears.".into()));
    assert!(matches!(acts.as_slice(), [Act::StopThinking, Act::Turn(_), Act::Think(_)]), "{acts:?}");
    assert_eq!(bed.agent.history().last(), Some(&caller("I would like two pears.")));
    assert_eq!(bed.at_once(Sense::Clause(generation, "Old.".into())), []);
}

#[test]
fn silence_is_asked_about_once_and_then_ends_the_call() {
    let mut bed = Bed::new();
    bed.at_once(Sense::Answered);
    bed.at_once(Sense::Played(clause(1, 0), 1500, true));
    let acts = bed.after_ms(30_000, Sense::Timeout);
    assert_eq!(acts, [Act::Speak(clause(2, 0), "Are you still there?".into())]);
    assert_eq!(bed.agent.deadline(), None, "while it speaks nobody is silent");
    bed.after_ms(1000, Sense::Played(clause(2, 0), 1000, true));
    assert_eq!(bed.after_ms(30_000, Sense::Timeout), [Act::HangUp]);
    assert_eq!(bed.at_once(Sense::Final("Wait!".into())), [], "it is over");
}

#[test]
fn keys_are_told_to_the_model_together() {
    let (mut bed, generation) = Bed::asked("I have a number.");
    bed.at_once(Sense::Clause(generation, "Please type it.".into()));
    assert_eq!(bed.at_once(Sense::Digit('4')), [Act::StopThinking, Act::Cut]);
    bed.at_once(Sense::Played(clause(generation, 0), 0, false));
    bed.after_ms(500, Sense::Digit('2'));
    assert_eq!(bed.after_ms(1000, Sense::Timeout), []);
    let acts = bed.after_ms(500, Sense::Timeout);
    assert!(matches!(acts.as_slice(), [Act::Turn(_), Act::Think(_)]), "{acts:?}");
    assert_eq!(bed.agent.history().last(), Some(&caller("I have a number. [The caller pressed 42]")));
}

#[test]
fn the_call_ends_after_the_last_word_and_a_transfer_too() {
    for (tool, act) in [
        (Tool::HangUp, Act::HangUp),
        (Tool::Transfer("+1415".into()), Act::Use(Tool::Transfer("+1415".into()))),
    ] {
        let (mut bed, generation) = Bed::asked("Goodbye.");
        bed.at_once(Sense::Clause(generation, "Goodbye!".into()));
        assert_eq!(bed.at_once(Sense::Tool(generation, tool)), []);
        assert_eq!(bed.at_once(Sense::Thought(generation)), []);
        let acts = bed.after_ms(700, Sense::Played(clause(generation, 0), 700, true));
        assert_eq!(acts, [Act::Turn(agent("Goodbye!")), act]);
    }
}

#[test]
fn a_model_that_fails_is_excused_twice() {
    let (mut bed, mut generation) = Bed::asked("Hello?");
    for round in 1..=3 {
        let acts = bed.at_once(Sense::Failed(generation));
        assert_eq!(acts, [Act::Speak(clause(generation, 0), "I am sorry.".into())]);
        let acts = bed.after_ms(600, Sense::Played(clause(generation, 0), 600, true));
        if round == 3 {
            assert_eq!(acts, [Act::Turn(agent("I am sorry.")), Act::HangUp]);
            return;
        }
        assert_eq!(acts, [Act::Turn(agent("I am sorry."))]);
        let acts = bed.after_ms(100, Sense::Final("Hello?".into()));
        let Some(Act::Think(next)) = acts.last() else { panic!("{acts:?}") };
        generation = *next;
    }
}

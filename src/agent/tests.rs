//! Conversations in virtual time.

use std::time::Instant;

use super::*;

fn manner() -> Manner {
    Manner {
        prompt: "Be brief.".into(),
        first_message: Some("Hello, this is Anna.".into()),
        fallback: "I am sorry.".into(),
        nudge: "Are you still there?".into(),
        farewell: "Our time is up.".into(),
        silence: Duration::from_secs(30),
        silences: 2,
        confirm: Duration::from_millis(400),
        longest: None,
        voicemail: Voicemail::Continue,
        tools: vec![AgentTool { name: "book".into(), ..AgentTool::default() }],
    }
}

/// A conversation and its clock.
struct Bed {
    agent: Agent,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        Self::of(manner())
    }

    fn of(manner: Manner) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        Self { agent: Agent::new(manner), now }
    }

    /// What follows but for half sentences.
    fn after_ms(&mut self, ms: u64, sense: Sense) -> Vec<Act> {
        let mut acts = self.all_after_ms(ms, sense);
        acts.retain(|act| !matches!(act, Act::Saying(_)));
        acts
    }

    fn all_after_ms(&mut self, ms: u64, sense: Sense) -> Vec<Act> {
        self.now += Duration::from_millis(ms);
        self.agent.sense(self.now, sense)
    }

    /// What was said, in the history.
    fn said(&self) -> Vec<Said> {
        let said = |line: &Line| match line {
            Line::Said(said) => Some(said.clone()),
            Line::Used(_) => None,
        };
        self.agent.history().filter_map(said).collect()
    }

    /// The functions that were used, in the history.
    fn used(&self) -> Vec<Used> {
        let used = |line: &Line| match line {
            Line::Said(_) => None,
            Line::Used(used) => Some(used.clone()),
        };
        self.agent.history().filter_map(used).collect()
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

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: format!("id of {name}"), name: name.into(), arguments: arguments.into() }
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
    assert_eq!(bed.said(), expected);
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
    assert_eq!(bed.said()[2..], [heard, caller("Only the pears.")]);
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
    assert_eq!(bed.said().last(), Some(&caller("I would like two pears.")));
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
    assert_eq!(bed.said().last(), Some(&caller("I have a number. [The caller pressed 42]")));
}

#[test]
fn the_call_ends_after_the_last_word_and_a_transfer_too() {
    for (tool, act) in [
        (call("hang_up", "{}"), Act::HangUp),
        (call("transfer", r#"{"to":"+1415"}"#), Act::Use(Tool::Transfer("+1415".into()))),
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

#[test]
fn a_function_of_the_customers_is_asked_and_the_model_is_told_what_it_gave() {
    let (mut bed, generation) = Bed::asked("A table for two.");
    let book = call("book", r#"{"people":2}"#);
    bed.at_once(Sense::Clause(generation, "One moment.".into()));
    assert_eq!(bed.at_once(Sense::Tool(generation, book.clone())), [Act::Ask(book.clone())]);
    assert_eq!(bed.at_once(Sense::Thought(generation)), []);
    // The sentence is over, and the function is not: nobody is silent.
    assert_eq!(bed.after_ms(700, Sense::Played(clause(generation, 0), 700, true)), []);
    assert_eq!(bed.agent.deadline(), None);
    let used = Used { call: book, result: "booked".into() };
    assert_eq!(bed.after_ms(900, Sense::Gave(used.clone())), [Act::Think(generation)]);
    assert_eq!((bed.used(), bed.agent.unfinished()), (vec![used], "One moment.".to_owned()));
    let second = clause(generation, 1);
    assert_eq!(
        bed.at_once(Sense::Clause(generation, "It is booked.".into())),
        [Act::Speak(second, "It is booked.".into())]
    );
    bed.at_once(Sense::Thought(generation));
    let whole = agent("One moment. It is booked.");
    assert_eq!(bed.after_ms(800, Sense::Played(second, 800, true)), [Act::Turn(whole)]);
}

#[test]
fn what_a_function_gives_too_late_is_remembered_and_nothing_follows() {
    let (mut bed, generation) = Bed::asked("A table for two.");
    let book = call("book", "{}");
    bed.at_once(Sense::Tool(generation, book.clone()));
    bed.at_once(Sense::Thought(generation));
    let acts = bed.after_ms(500, Sense::Final("No, for three.".into()));
    let Some(Act::Think(next)) = acts.last() else { panic!("{acts:?}") };
    assert_ne!(*next, generation);
    let used = Used { call: book, result: "booked".into() };
    assert_eq!(bed.after_ms(100, Sense::Gave(used.clone())), []);
    assert_eq!(bed.used(), [used]);
}

#[test]
fn the_model_is_asked_four_times_for_one_answer_and_no_more() {
    let (mut bed, generation) = Bed::asked("A table for two.");
    for round in 1..=4 {
        assert_eq!(bed.agent.may_use_tools(), round < 4, "{round}");
        let book = call("book", "{}");
        let acts = bed.at_once(Sense::Tool(generation, book.clone()));
        assert_eq!(acts.len(), usize::from(round < 4), "{round}: {acts:?}");
        bed.at_once(Sense::Thought(generation));
        let acts = bed.at_once(Sense::Gave(Used { call: book, result: "again".into() }));
        assert_eq!(acts, if round < 4 { vec![Act::Think(generation)] } else { vec![] }, "{round}");
    }
    assert!(bed.agent.deadline().is_some(), "it waits for the caller");
    // A call that cannot be read is told as such, and the model may mend it.
    let (mut bed, generation) = Bed::asked("A table for two.");
    bed.at_once(Sense::Tool(generation, call("launch", "{}")));
    assert_eq!(bed.at_once(Sense::Thought(generation)), [Act::Think(generation)]);
    assert_eq!(bed.used()[0].result, r#"{"error":"there is no such function"}"#);
}

#[test]
fn keys_are_gathered_for_the_model() {
    let gather = || call("gather_digits", r##"{"num_digits":4,"finish_on_key":"#","timeout_s":10}"##);
    let begin = || {
        let (mut bed, generation) = Bed::asked("I have a number.");
        bed.at_once(Sense::Clause(generation, "Please type it.".into()));
        assert_eq!(bed.at_once(Sense::Tool(generation, gather())), []);
        bed.at_once(Sense::Thought(generation));
        (bed, generation)
    };
    // The first key cuts the prompt, the fourth completes.
    let (mut bed, generation) = begin();
    assert_eq!(bed.at_once(Sense::Digit('1')), [Act::Cut]);
    bed.at_once(Sense::Played(clause(generation, 0), 0, false));
    bed.after_ms(2000, Sense::Digit('2'));
    bed.after_ms(2000, Sense::Digit('3'));
    assert_eq!(bed.after_ms(2000, Sense::Digit('4')), [Act::Think(generation)]);
    assert_eq!(bed.used()[0].result, r#"{"digits":"1234","ended":"complete"}"#);
    // The finishing key is none of them; time is told as such; who speaks instead is heard.
    let (mut bed, generation) = begin();
    bed.after_ms(800, Sense::Played(clause(generation, 0), 800, true));
    bed.after_ms(2000, Sense::Digit('7'));
    assert_eq!(bed.after_ms(2000, Sense::Digit('#')), [Act::Think(generation)]);
    assert_eq!(bed.used()[0].result, r#"{"digits":"7","ended":"complete"}"#);
    let (mut bed, generation) = begin();
    bed.after_ms(800, Sense::Played(clause(generation, 0), 800, true));
    assert_eq!(bed.after_ms(9999, Sense::Timeout), []);
    assert_eq!(bed.after_ms(1, Sense::Timeout), [Act::Think(generation)]);
    assert_eq!(bed.used()[0].result, r#"{"digits":"","ended":"no more keys in time"}"#);
    let (mut bed, generation) = begin();
    bed.after_ms(800, Sense::Played(clause(generation, 0), 800, true));
    let acts = bed.after_ms(2000, Sense::Final("I have lost it.".into()));
    assert!(matches!(acts.as_slice(), [Act::Turn(_), Act::Think(_)]), "{acts:?}");
    assert_eq!(bed.used()[0].result, r#"{"digits":"","ended":"the caller spoke instead"}"#);
}

#[test]
fn a_message_is_left_after_the_greeting_of_a_machine() {
    let voicemail = Voicemail::Message("Please call us back.".into());
    let mut bed = Bed::of(Manner { voicemail, ..manner() });
    bed.at_once(Sense::Answered);
    bed.after_ms(300, Sense::Talk(true));
    assert_eq!(bed.after_ms(3000, Sense::Machine), [Act::Cut, Act::Hold(false)]);
    bed.at_once(Sense::Played(clause(1, 0), 0, false));
    assert_eq!(
        bed.after_ms(100, Sense::Final("Please leave a message.".into())),
        [],
        "nobody is talked with"
    );
    bed.after_ms(2000, Sense::Talk(false));
    let acts = bed.after_ms(1500, Sense::Timeout);
    let [Act::Speak(first, text)] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!(text, "Please call us back.");
    // It was a pause within the greeting: the message begins anew after it.
    let first = *first;
    assert_eq!(bed.after_ms(200, Sense::Talk(true)), [Act::Cut]);
    bed.at_once(Sense::Played(first, 100, false));
    bed.after_ms(2000, Sense::Talk(false));
    let acts = bed.after_ms(1500, Sense::Timeout);
    let [Act::Speak(again, _)] = acts.as_slice() else { panic!("{acts:?}") };
    let said = Act::Turn(agent("Please call us back."));
    assert_eq!(bed.after_ms(2000, Sense::Played(*again, 2000, true)), [said, Act::HangUp]);
    let mut bed = Bed::of(Manner { voicemail: Voicemail::HangUp, ..manner() });
    bed.at_once(Sense::Answered);
    assert_eq!(bed.after_ms(3000, Sense::Machine), [Act::Cut, Act::HangUp]);
}

#[test]
fn a_call_that_may_not_last_longer_ends_with_a_farewell_that_nobody_interrupts() {
    let longest = Some(Duration::from_secs(60));
    let mut bed = Bed::of(Manner { longest, silence: Duration::from_secs(300), ..manner() });
    bed.at_once(Sense::Answered);
    bed.after_ms(1500, Sense::Played(clause(1, 0), 1500, true));
    let acts = bed.after_ms(57_000, Sense::Final("Tell me all.".into()));
    let Some(Act::Think(generation)) = acts.last() else { panic!("{acts:?}") };
    let generation = *generation;
    bed.at_once(Sense::Clause(generation, "It is a long story.".into()));
    assert_eq!(bed.agent.deadline(), Some(bed.now + Duration::from_millis(1500)));
    let acts = bed.after_ms(1500, Sense::Timeout);
    let [Act::StopThinking, Act::Cut, Act::Speak(last, text)] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!(text, "Our time is up.");
    let last = *last;
    bed.at_once(Sense::Played(clause(generation, 0), 0, false));
    for sense in [Sense::Talk(true), Sense::Final("But".into()), Sense::Digit('1'), Sense::Talk(false)] {
        assert_eq!(bed.after_ms(100, sense), []);
    }
    let said = Act::Turn(agent("Our time is up."));
    assert_eq!(bed.after_ms(1000, Sense::Played(last, 1400, true)), [said, Act::HangUp]);
}

#[test]
fn half_sentences_are_told_as_they_come() {
    let (mut bed, generation) = Bed::asked("Tell me more.");
    bed.at_once(Sense::Clause(generation, "One.".into()));
    bed.at_once(Sense::Clause(generation, "Two.".into()));
    let acts = bed.all_after_ms(500, Sense::Played(clause(generation, 0), 500, true));
    assert_eq!(acts, [Act::Saying(agent("One."))]);
    let acts = bed.all_after_ms(10, Sense::Partial("so".into()));
    assert_eq!(acts, [Act::Saying(caller("so"))]);
}

#[test]
fn what_was_being_said_when_the_call_ended_was_said() {
    let (mut bed, generation) = Bed::asked("What do you have?");
    let first = clause(generation, 0);
    bed.at_once(Sense::Clause(generation, "We have apples and pears and plums.".into()));
    bed.at_once(Sense::Began(first, 3500));
    let over = bed.now + Duration::from_millis(1800);
    assert_eq!(bed.agent.finish(over), [Act::Turn(agent("We have apples and"))]);
    assert_eq!(bed.agent.finish(over), []);
}

/// Whatever comes, and in whatever order: no clause of an answer that was given up is ever given to the mouth.
#[test]
fn nothing_of_an_older_answer_is_ever_spoken() {
    use rand_core::{RngCore, SeedableRng};
    for seed in 0..300 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut bed = Bed::new();
        bed.at_once(Sense::Answered);
        let mut newest = 1;
        let mut given: Vec<ClauseId> = Vec::new();
        for _ in 0..200 {
            let pick = |random: &mut rand_chacha::ChaCha8Rng, n: u32| random.next_u32() % n;
            let generation = newest.max(1) - pick(&mut random, 3).min(newest - 1);
            let sense = match pick(&mut random, 11) {
                0 => Sense::Talk(true),
                1 => Sense::Talk(false),
                2 => Sense::Final("Yes, please.".into()),
                3 => Sense::Partial("yes please".into()),
                4 => Sense::Clause(generation, "Here you are.".into()),
                5 => Sense::Thought(generation),
                6 => Sense::Failed(generation),
                7 => Sense::Digit('1'),
                8 => Sense::Tool(generation, call("book", "{}")),
                9 => Sense::Timeout,
                _ => match given.pop() {
                    Some(id) => Sense::Played(id, 500, pick(&mut random, 2) == 0),
                    None => Sense::Gave(Used { call: call("book", "{}"), result: String::new() }),
                },
            };
            let told = sense.clone();
            let wait = u64::from(pick(&mut random, 700));
            for act in bed.after_ms(wait, sense) {
                match act {
                    Act::Think(generation) => newest = generation,
                    Act::Speak(id, _) => {
                        assert!(id.generation >= newest, "seed {seed}: {id:?} after {newest}, {told:?}");
                        newest = id.generation;
                        given.push(id);
                    }
                    Act::Cut => given.clear(),
                    _ => {}
                }
            }
        }
    }
}

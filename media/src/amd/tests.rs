//! Every cause of the state machine, and its exact borders in frames of 20 ms.

use super::*;

/// Who, why, and after how many ms.
type Told = (AmdStatus, AmdCause, u32);

const VOICE: Frame = [1000; 160];
const QUIET: Frame = [0; 160];

/// Plays stretches of voice (positive) and silence (negative) in ms and answers the first verdict.
fn verdict(config: AmdConfig, stretches: &[i32]) -> Option<Verdict> {
    let mut amd = Amd::new(config);
    let mut found = None;
    for &ms in stretches {
        let frame = if ms > 0 { &VOICE } else { &QUIET };
        for _ in 0..ms.unsigned_abs() / 20 {
            let heard = amd.hear(frame, Popped::Audio);
            assert!(heard.is_none() || found.is_none(), "one verdict only");
            found = found.or(heard);
        }
    }
    found
}

fn told(stretches: &[i32]) -> Option<Told> {
    verdict(AmdConfig::default(), stretches).map(|v| (v.status, v.cause, v.latency_ms))
}

#[test]
fn each_cause_at_its_border() {
    use AmdCause as C;
    use AmdStatus::{Human, Machine, Unknown};
    let table: [(&[i32], Option<Told>); 17] = [
        (&[-2480], None),
        (&[-2500], Some((Machine, C::InitialSilence, 2500))),
        // A word shorter than 100 ms does not end the initial silence, but its silence begins again.
        (&[-1000, 80, -2480], None),
        (&[-1000, 80, -2500], Some((Machine, C::InitialSilence, 3580))),
        // "Hello?", then silence.
        (&[-400, 400, -780], None),
        (&[-400, 400, -800], Some((Human, C::Human, 1600))),
        (&[100, -800], Some((Human, C::Human, 900))),
        // Long greeting: 1,500 ms of voice, pauses left out.
        (&[-400, 700, -300, 780], None),
        (&[-400, 700, -300, 800], Some((Machine, C::LongGreeting, 2200))),
        // Three words: the third is the machine's once it has lasted 100 ms.
        (&[-200, 200, -100, 200, -100, 80], None),
        (&[-200, 200, -100, 200, -100, 100], Some((Machine, C::MaxWords, 900))),
        // 40 ms of silence do not part words, 60 do.
        (&[-200, 200, -40, 200, -40, 200, -200], None),
        (&[-200, 200, -60, 200, -60, 100], Some((Machine, C::MaxWords, 820))),
        // It begins inside a word: a first utterance without silence before it is not counted.
        (&[200, -100, 200, -100, 200, -100], None),
        (&[200, -100, 200, -100, 200, -100, 100], Some((Machine, C::MaxWords, 1000))),
        // Never a word, never silence for long.
        (&[-2000, 60, -2000, 60, -800, 60], None),
        (&[-2000, 60, -2000, 60, -800, 80], Some((Unknown, C::TooLong, 5000))),
    ];
    for (stretches, expected) in table {
        assert_eq!(told(stretches), expected, "{stretches:?}");
    }
}

#[test]
fn one_endless_word_is_a_machine() {
    let config = AmdConfig { greeting_ms: 10_000, max_word_ms: 2000, ..AmdConfig::default() };
    let found = verdict(config, &[-200, 3000]).unwrap();
    assert_eq!((found.cause, found.latency_ms), (AmdCause::MaxWordLength, 2200));
}

#[test]
fn what_initial_silence_means_is_a_setting() {
    let meanings = [
        (InitialSilence::Machine, AmdStatus::Machine),
        (InitialSilence::Human, AmdStatus::Human),
        (InitialSilence::Unknown, AmdStatus::Unknown),
    ];
    for (initial_silence, status) in meanings {
        let config = AmdConfig { initial_silence, ..AmdConfig::default() };
        let found = verdict(config, &[-2500]).unwrap();
        assert_eq!((found.status, found.cause), (status, AmdCause::InitialSilence));
    }
}

#[test]
fn without_packets_only_the_clock_goes_on() {
    let mut amd = Amd::new(AmdConfig::default());
    for _ in 0..249 {
        assert_eq!(amd.hear(&QUIET, Popped::Silence), None);
    }
    let found = amd.hear(&QUIET, Popped::Silence).unwrap();
    assert_eq!(
        (found.status, found.cause, found.latency_ms),
        (AmdStatus::Unknown, AmdCause::NoAudioData, 5000)
    );
    assert_eq!(amd.hear(&VOICE, Popped::Audio), None);

    let mut amd = Amd::new(AmdConfig::default());
    amd.hear(&QUIET, Popped::Concealed);
    let found = (0..250).find_map(|_| amd.hear(&QUIET, Popped::Silence)).unwrap();
    assert_eq!(found.cause, AmdCause::TooLong);
}

#[test]
fn hanging_up_ends_the_analysis_once() {
    let mut amd = Amd::new(AmdConfig::default());
    amd.hear(&VOICE, Popped::Audio);
    let found = amd.hangup().unwrap();
    assert_eq!((found.status, found.cause, found.latency_ms), (AmdStatus::Unknown, AmdCause::Hangup, 20));
    assert_eq!(amd.hangup(), None);
    assert_eq!(amd.hear(&VOICE, Popped::Audio), None);
}

#[test]
fn the_threshold_is_the_mean_absolute_sample() {
    let config = AmdConfig { initial_silence_ms: 20, ..AmdConfig::default() };
    let alternating = |level: i16| std::array::from_fn(|at| if at % 2 == 0 { level } else { -level });
    assert!(Amd::new(config).hear(&alternating(255), Popped::Audio).is_some());
    assert!(Amd::new(config).hear(&alternating(256), Popped::Audio).is_none());
    assert!(Amd::new(config).hear(&[i16::MIN; 160], Popped::Audio).is_none());
}

#[test]
fn the_table_of_causes_is_in_the_order_of_the_causes() {
    for (cause, word, confidence) in CONFIDENCE {
        assert_eq!(cause.row().0, cause);
        assert_eq!(cause.as_str(), word);
        assert!((0.0..=1.0).contains(&confidence));
    }
    assert_eq!(AmdStatus::Human.as_str(), "HUMAN");
}

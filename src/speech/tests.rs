//! The voices as calls use them: real speech, remembered, shared and bounded.

use super::*;

fn speech() -> Speech {
    Speech::new(&config::Speech::default()).unwrap()
}

fn rms(clip: &Clip) -> f64 {
    let power: f64 = clip.samples().iter().map(|s| f64::from(*s).powi(2)).sum();
    (power / clip.samples().len() as f64).sqrt()
}

/// A provider that is a shell script; what it prints is its WAV.
fn script(name: &str, body: &str) -> (Provider, Scratch) {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("trunkline-speech-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("voice");
    std::fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{body}\n", folder.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (Provider::Program(Arc::new(Program::at(path))), Scratch(folder))
}

struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing hangs on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn words_become_sound() {
    let clip = speech().say("Hello, this is a test of the telephone.", "en-US-Neural2-A").await.unwrap();
    assert!((1500..6000).contains(&clip.duration_ms()), "{clip:?}");
    // −20 dBm0 of active speech; the pauses make the mean a little lower.
    assert!((900.0..1800.0).contains(&rms(&clip)), "{}", rms(&clip));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
async fn half_a_minute_of_speech_is_ready_at_once() {
    let text = "Thank you for calling. Your appointment is on Tuesday the third of March at half past nine. "
        .repeat(6);
    let begun = std::time::Instant::now();
    let clip = speech().say(&text, "en-US-Neural2-C").await.unwrap();
    let took = begun.elapsed();
    assert!(clip.duration_ms() >= 28_000, "{clip:?}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[tokio::test]
async fn every_name_speaks_and_names_differ() {
    let speech = speech();
    let mut heard = Vec::new();
    for name in [
        "en-US-Neural2-A",
        "en-US-Neural2-C",
        "en-US-Neural2-D",
        "en-GB-Wavenet-F",
        "alloy",
        "onyx",
        "de-DE-Neural2-B",
        "?",
    ] {
        let clip = speech.say("One two three.", name).await.unwrap();
        assert!(!heard.contains(&clip), "{name} sounds like another");
        heard.push(clip);
    }
    for variant in ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "Z"] {
        speech.say("Yes.", &format!("en-US-Neural2-{variant}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_text_is_spoken_once() {
    let (provider, folder) = script("once", "cat >/dev/null; echo x >>runs; cat sound.wav");
    std::fs::write(folder.0.join("sound.wav"), tone()).unwrap();
    let speech = Speech::with(vec![provider], BTreeMap::new(), 1 << 20);
    let (a, b, c) = tokio::join!(speech.say("a", "x"), speech.say("a", "x"), speech.say(" a\n", "x"));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
    assert!(Arc::ptr_eq(&a, &speech.say("a", "x").await.unwrap()));
    let runs = || std::fs::read_to_string(folder.0.join("runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    speech.say("b", "x").await.unwrap();
    speech.say("a", "en-US-Neural2-C").await.unwrap();
    assert_eq!(runs(), 3);
    assert!(speech.0.memory().flights.is_empty());
}

#[tokio::test]
async fn one_who_goes_away_does_not_stop_the_others() {
    let (provider, folder) =
        script("away", "cat >/dev/null; until [ -e go ]; do sleep 0.01; done; cat sound.wav");
    std::fs::write(folder.0.join("sound.wav"), tone()).unwrap();
    let speech = Speech::with(vec![provider], BTreeMap::new(), 1 << 20);
    let (first, second) = (speech.clone(), speech.clone());
    let first = tokio::spawn(async move { first.say("a", "x").await });
    while speech.0.memory().flights.is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(async move { second.say("a", "x").await });
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    std::fs::write(folder.0.join("go"), "").unwrap();
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_next_voice_speaks_when_one_fails() {
    let (broken, _one) = script("broken", "exit 1");
    let (silent, _two) = script("silent", "cat >/dev/null");
    let (good, folder) = script("good", "cat >/dev/null; cat sound.wav");
    std::fs::write(folder.0.join("sound.wav"), tone()).unwrap();
    let speech = Speech::with(vec![broken.clone(), silent, good], BTreeMap::new(), 1 << 20);
    assert!(speech.say("a", "x").await.is_ok());
    let alone = Speech::with(vec![broken], BTreeMap::new(), 1 << 20);
    assert!(matches!(alone.say("a", "x").await, Err(SpeechError::Failed(_))));
    // A failure is not remembered.
    assert!(alone.0.memory().flights.is_empty());
}

#[tokio::test]
async fn strange_text_is_spoken_or_refused_but_never_a_crash() {
    let speech = speech();
    let digits = "9".repeat(600);
    let capitals = "WXYZ ".repeat(100);
    let one_word = "a".repeat(1000);
    let brackets = "[".repeat(5000);
    for text in [
        "<speak><break time='10s'/>Hi &amp; bye</speak>",
        "\u{1}100S\u{1}5P fast",
        "[[h@l'oU]]",
        "…",
        "!!!",
        "😀😀",
        "你好，世界",
        "Grüße an die Straße",
        "مرحبا",
        "a\u{300}\u{301}\u{302}",
        "\u{202e}reversed",
        "1e308 0x7f 3.14159 $1,000,000.00 50% 10:30 +1-415-555-0100",
        "http://example.com/?a=b&c=d#e user@example.com",
        "a",
        "-",
        &digits,
        &capitals,
        &one_word,
        &brackets,
    ] {
        let start: String = text.chars().take(20).collect();
        match speech.say(text, "en-US-Neural2-A").await {
            Ok(clip) => assert!(!clip.samples().is_empty(), "{start}"),
            Err(error) => {
                let crashed = SpeechError::Failed("it crashed".to_owned());
                assert_ne!(error, crashed, "{start}");
            }
        }
    }
}

#[tokio::test]
async fn text_is_checked_first() {
    let speech = speech();
    assert_eq!(speech.say("", "x").await, Err(SpeechError::Empty));
    assert_eq!(speech.say("\n\t", "x").await, Err(SpeechError::Empty));
    assert_eq!(speech.say(&"x".repeat(5001), "x").await, Err(SpeechError::TooLong));
}

fn named(names: &[&str]) -> config::Speech {
    config::Speech { tts: names.iter().map(|name| (*name).to_owned()).collect(), ..config::Speech::default() }
}

#[test]
fn voices_that_cannot_be_used_are_named() {
    assert!(matches!(Speech::new(&named(&[])), Err(SpeechError::NoVoice(_))));
    let missing = Program::find("flite").is_err();
    if missing {
        let error = Speech::new(&named(&["flite"])).unwrap_err().to_string();
        assert_eq!(error, "no voice can be used: flite: the program flite is not installed");
    }
    // A service without its key is passed over, and the built-in voice comes last without being named.
    let speech = Speech::new(&named(&["google", "openai"])).unwrap();
    assert_eq!(speech.providers(), ["openai", "embedded-espeak"]);
    let speech = Speech::new(&named(&["google", "embedded"])).unwrap();
    assert_eq!(speech.name(), "embedded-espeak");
    assert_eq!(speech.resolve("de-DE-Neural2-A").to_string(), "en-us+m1");
}

#[test]
fn names_of_voices_are_resolved() {
    let config = config::Speech {
        voices: vec!["en-US-Neural2-A=openai:af_bella".into(), " nova = embedded:en-US-Neural2-C".into()],
        ..named(&["openai", "elevenlabs", "embedded"])
    };
    let speech = Speech::new(&config).unwrap();
    let listed = |name: &str| {
        let voice = speech.listed(name).unwrap();
        (voice.provider, voice.speaks_as)
    };
    // As the configuration maps it, and in the service's own words.
    assert_eq!(listed("en-US-Neural2-A"), ("openai", "af_bella".to_owned()));
    // A provider that is named comes first, one that is not configured is no hindrance.
    assert_eq!(listed("embedded:en-US-Neural2-C"), ("embedded-espeak", "en-us+f1".to_owned()));
    assert_eq!(listed("nova"), ("embedded-espeak", "en-us+f1".to_owned()));
    assert_eq!(listed("elevenlabs:alloy"), ("openai", "alloy".to_owned()));
    assert_eq!(listed("en-US-Neural2-D"), ("openai", "echo".to_owned()));
    assert_eq!(listed("shimmer"), ("openai", "shimmer".to_owned()));
    let all = speech.voices();
    assert!(all.len() > 40 && all.iter().all(|voice| !voice.speaks_as.is_empty()));
    let plain = Speech::new(&named(&["embedded"])).unwrap();
    let heard = plain.listed("de-DE-Neural2-B").unwrap();
    assert_eq!((heard.speaks_as.as_str(), heard.known), ("en-us+m5", false));
}

#[tokio::test]
async fn what_is_whole_is_streamed_in_one_piece() {
    let speech = speech();
    let mut stream = speech.stream("Hello there.", "alloy").await.unwrap();
    let clip = stream.next().await.unwrap().unwrap();
    assert!(clip.duration_ms() > 300);
    assert!(stream.next().await.is_none());
    // It is not remembered, but what is remembered is used.
    assert!(!Arc::ptr_eq(&clip, &speech.say("Hello there.", "alloy").await.unwrap()));
    let said = speech.say("Hello there.", "alloy").await.unwrap();
    let again = speech.stream("Hello there.", "alloy").await.unwrap().next().await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&said, &again));
    assert_eq!(speech.stream(" ", "alloy").await.err(), Some(SpeechError::Empty));
}

/// A WAV of half a second of tone.
fn tone() -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut out = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut out, spec).unwrap();
    for n in 0..8000_u16 {
        writer.write_sample(((f32::from(n) * 0.3).sin() * 8000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
    out.into_inner()
}

//! The shipped sounds are made here: tones and music by arithmetic, prompts by the embedded voice, all 8 kHz mono
//! 16-bit at about −20 dBm0. The tests compare the files in `sounds/` with what this makes;
//! `MAKE_SOUNDS=1 cargo test --test sounds` writes them anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::f64::consts::TAU;
use std::path::PathBuf;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

const RATE: usize = 8000;
/// A sine at full scale is +3.17 dBm0 (G.711, Table 5).
const FULL_SCALE_DBM0: f64 = 3.17;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sounds")
}

/// The peak of a sine of this level.
fn peak(dbm0: f64) -> f64 {
    32_767.0 * 10_f64.powf((dbm0 - FULL_SCALE_DBM0) / 20.0)
}

fn sine(hz: f64, n: usize) -> f64 {
    (TAU * hz * n as f64 / RATE as f64).sin()
}

fn whole(sample: f64) -> i16 {
    sample.round() as i16
}

/// Sines together at −20 dBm0, then silence; edges of 5 ms, so that nothing clicks.
fn tone(parts: &[f64], on_ms: usize, off_ms: usize) -> Vec<i16> {
    let (on, off, edge) = (on_ms * 8, off_ms * 8, 40);
    // Powers add: each of several is softer.
    let each = peak(-20.0 - 10.0 * (parts.len() as f64).log10());
    let sample = |n: usize| {
        let fade = (n.min(on - 1 - n) as f64 / edge as f64).min(1.0);
        whole(each * fade * parts.iter().map(|hz| sine(*hz, n)).sum::<f64>())
    };
    (0..on).map(sample).chain(std::iter::repeat_n(0, off)).collect()
}

/// Four bars of broken chords over a slow bass, 9.6 s, whose last notes ring on into the first bar: it loops.
fn music() -> Vec<i16> {
    const BEAT: usize = RATE * 3 / 10;
    // Half tones above the C below middle C.
    const BARS: [[i32; 5]; 4] =
        [[-12, 12, 16, 19, 23], [-15, 9, 16, 19, 24], [-19, 9, 12, 17, 21], [-17, 11, 14, 19, 23]];
    const FIGURE: [usize; 8] = [1, 2, 3, 4, 3, 2, 3, 2];
    let length = BARS.len() * FIGURE.len() * BEAT;
    let mut mix = vec![0.0; length];
    let mut pluck = |start: usize, note: i32, loud: f64, decay_s: f64| {
        let hz = 130.81 * 2_f64.powf(f64::from(note) / 12.0);
        for n in 0..RATE * 2 {
            let t = n as f64 / RATE as f64;
            let shape = (t / 0.004).min(1.0) * (-t / decay_s).exp();
            // A little of the octave and the twelfth above makes it a string.
            let sound = sine(hz, n) + 0.3 * sine(2.0 * hz, n) + 0.1 * sine(3.0 * hz, n);
            mix[(start + n) % length] += loud * shape * sound;
        }
    };
    for (bar, notes) in BARS.iter().enumerate() {
        let start = bar * FIGURE.len() * BEAT;
        // A telephone cuts the bass itself off; its octave is heard.
        pluck(start, notes[0] + 12, 0.8, 1.2);
        for (beat, step) in FIGURE.iter().enumerate() {
            pluck(start + beat * BEAT, notes[*step], 0.6, 0.5);
        }
    }
    let power: f64 = mix.iter().map(|s| s * s).sum::<f64>() / length as f64;
    let gain = peak(-20.0) / (2.0 * power).sqrt();
    mix.into_iter().map(|s| whole(s * gain)).collect()
}

/// Name and samples of each sound that is arithmetic.
fn made() -> Vec<(&'static str, Vec<i16>)> {
    vec![
        ("tones/beep", tone(&[1000.0], 500, 0)),
        // The tones of North America (ITU-T E.180 Supplement 2).
        ("tones/ringback", tone(&[440.0, 480.0], 2000, 4000)),
        ("tones/busy", tone(&[480.0, 620.0], 500, 500)),
        ("music/hold", music()),
    ]
}

const PROMPTS: [(&str, &str); 2] = [
    ("custom/welcome", "Welcome. Thank you for calling. Please listen carefully to the following options."),
    ("custom/goodbye", "Thank you for calling. Goodbye."),
];

fn read(name: &str) -> Vec<i16> {
    let mut file = WavReader::open(root().join(format!("{name}.wav"))).unwrap();
    let spec = file.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8000, 16), "{name}");
    assert_eq!(spec.sample_format, SampleFormat::Int);
    file.samples::<i16>().map(Result::unwrap).collect()
}

fn write(name: &str, samples: &[i16]) {
    let spec =
        WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let path = root().join(format!("{name}.wav"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = WavWriter::create(path, spec).unwrap();
    for sample in samples {
        file.write_sample(*sample).unwrap();
    }
    file.finalize().unwrap();
}

/// The file and what is made agree; the sine of another system may differ in the last bit.
fn check(name: &str, made: &[i16]) {
    if std::env::var_os("MAKE_SOUNDS").is_some() {
        write(name, made);
    }
    let file = read(name);
    assert_eq!(file.len(), made.len(), "{name}");
    let apart = file.iter().zip(made).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(apart <= 2, "{name} differs by {apart}");
}

/// Level of what is louder than a pause, in dBm0.
fn level(samples: &[i16]) -> f64 {
    let power = |frame: &[i16]| frame.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / frame.len() as f64;
    let powers: Vec<f64> = samples.chunks_exact(80).map(power).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    let active: Vec<f64> = powers.into_iter().filter(|power| *power > loudest / 3000.0).collect();
    let mean = active.iter().sum::<f64>() / active.len() as f64;
    10.0 * (2.0 * mean / 32_767.0_f64.powi(2)).log10() + FULL_SCALE_DBM0
}

#[test]
fn tones_and_music_are_as_made() {
    for (name, samples) in made() {
        check(name, &samples);
        let heard = level(&samples);
        assert!((heard + 20.0).abs() < 1.0, "{name}: {heard} dBm0");
    }
}

#[test]
fn music_loops_without_a_click() {
    let music = music();
    let step = |a: i16, b: i16| a.abs_diff(b);
    let largest = music.windows(2).map(|pair| step(pair[0], pair[1])).max().unwrap();
    assert!(step(music[music.len() - 1], music[0]) <= largest);
}

#[cfg(feature = "embedded-voice")]
#[tokio::test]
async fn prompts_are_as_spoken() {
    let speech = trunkline::speech::Speech::new(&trunkline::config::Speech::default()).unwrap();
    for (name, text) in PROMPTS {
        let clip = speech.say(text, "en-US-Neural2-C").await.unwrap();
        check(name, clip.samples());
        let heard = level(clip.samples());
        assert!((heard + 20.0).abs() < 1.0, "{name}: {heard} dBm0");
    }
}

#[tokio::test]
async fn every_shipped_sound_can_be_played() {
    let sounds = trunkline::speech::Sounds::new(root());
    let names = made().into_iter().map(|(name, _)| name).chain(PROMPTS.map(|(name, _)| name));
    for name in names {
        let clip = sounds.load(Some("key_0123456789"), name).await.unwrap();
        assert!(clip.duration_ms() >= 500, "{name}");
        // Nothing is lost on the way: what is played is what lies in the file.
        let apart = clip.samples().iter().zip(read(name)).map(|(a, b)| a.abs_diff(b)).max().unwrap();
        assert!(apart <= 1, "{name} differs by {apart}");
    }
}

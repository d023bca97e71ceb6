//! Measures sound: WAV files, G.711 μ-law, levels, tones, likeness. Written apart from the code under test.

use std::f64::consts::PI;
use std::ops::Range;
use std::path::Path;

/// Samples a second of everything here.
pub(crate) const RATE: usize = 8000;
/// Above this level, in dBm0, somebody is heard.
pub(crate) const HEARD_DBM0: f64 = -45.0;

/// Reads a WAV, which must be 8 kHz mono 16 bit.
pub(crate) fn read_wav(bytes: &[u8]) -> Vec<f64> {
    let reader = hound::WavReader::new(std::io::Cursor::new(bytes)).expect("a WAV header");
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8000, 16));
    reader.into_samples::<i16>().map(|sample| f64::from(sample.expect("a whole sample"))).collect()
}

/// Reads a WAV file.
pub(crate) fn read_wav_file(path: &Path) -> Vec<f64> {
    read_wav(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Writes an 8 kHz mono WAV.
pub(crate) fn write_wav(path: &Path, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a WAV can be written");
    for &sample in samples {
        writer.write_sample(sample).expect("a WAV can be written");
    }
    writer.finalize().expect("a WAV can be written");
}

/// Sizes told by a RIFF header: of the whole (less 8) and of the data; and the offset of the data.
pub(crate) fn wav_sizes(bytes: &[u8]) -> (usize, usize, usize) {
    let size = |at: usize| {
        let four: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(four) as usize
    };
    assert_eq!((&bytes[0..4], &bytes[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    let mut at = 12;
    while &bytes[at..at + 4] != b"data" {
        at += 8 + size(at + 4).next_multiple_of(2);
    }
    (size(4), size(at + 4), at + 8)
}

/// The level of some samples: a full-scale sine is +3.17 dBm0.
pub(crate) fn dbm0(samples: &[f64]) -> f64 {
    let power = samples.iter().map(|s| s * s).sum::<f64>() / samples.len().max(1) as f64;
    10.0 * (power * 2.0 / (32768.0 * 32768.0)).max(1e-12).log10() + 3.17
}

/// Splits off a sine of this frequency: its level and the level of what remains (least squares).
pub(crate) fn split_tone(samples: &[f64], hertz: f64) -> (f64, f64) {
    let step = 2.0 * PI * hertz / RATE as f64;
    let (mut cc, mut ss, mut cs, mut xc, mut xs) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (n, x) in samples.iter().enumerate() {
        let (s, c) = (step * n as f64).sin_cos();
        cc += c * c;
        ss += s * s;
        cs += c * s;
        xc += x * c;
        xs += x * s;
    }
    let det = cc * ss - cs * cs;
    let (a, b) = ((xc * ss - xs * cs) / det, (xs * cc - xc * cs) / det);
    let tone = |n: usize| {
        let (s, c) = (step * n as f64).sin_cos();
        a * c + b * s
    };
    let fitted: Vec<f64> = (0..samples.len()).map(tone).collect();
    let rest: Vec<f64> = samples.iter().zip(&fitted).map(|(x, t)| x - t).collect();
    (dbm0(&fitted), dbm0(&rest))
}

/// Windows of 20 ms in which somebody is heard, joined where the pause is shorter than 300 ms, as sample ranges.
pub(crate) fn bursts(samples: &[f64]) -> Vec<Range<usize>> {
    let window = RATE / 50;
    let mut found: Vec<Range<usize>> = Vec::new();
    for (index, chunk) in samples.chunks(window).enumerate() {
        if dbm0(chunk) < HEARD_DBM0 {
            continue;
        }
        let start = index * window;
        match found.last_mut() {
            Some(last) if start <= last.end + RATE * 3 / 10 => last.end = start + chunk.len(),
            _ => found.push(start..start + chunk.len()),
        }
    }
    found
}

/// Seconds in which somebody is heard.
pub(crate) fn heard_seconds(samples: &[f64]) -> f64 {
    bursts(samples).iter().map(|burst| burst.len() as f64 / RATE as f64).sum()
}

/// The best normalised correlation of a template at any place of a longer signal.
pub(crate) fn likeness(template: &[f64], signal: &[f64]) -> f64 {
    let energy = |s: &[f64]| s.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norm = energy(template);
    let places = signal.windows(template.len());
    let score = |place: &[f64]| {
        let dot: f64 = place.iter().zip(template).map(|(a, b)| a * b).sum();
        dot / (norm * energy(place)).max(1.0)
    };
    places.map(score).fold(0.0, f64::max)
}

/// A sound unlike any other: a rising tone with a beat, at about −12 dBm0.
pub(crate) fn chirp(seconds: f64) -> Vec<i16> {
    let count = (seconds * RATE as f64) as usize;
    let sample = |n: usize| {
        let t = n as f64 / RATE as f64;
        let rising = (2.0 * PI * (400.0 * t + 300.0 * t * t)).sin();
        (5500.0 * rising * (0.7 + 0.3 * (2.0 * PI * 3.0 * t).sin())) as i16
    };
    (0..count).map(sample).collect()
}

/// A pure tone, peak `amplitude`.
pub(crate) fn tone(hertz: f64, seconds: f64, amplitude: f64) -> Vec<i16> {
    let count = (seconds * RATE as f64) as usize;
    (0..count).map(|n| (amplitude * (2.0 * PI * hertz * n as f64 / RATE as f64).sin()) as i16).collect()
}

/// One μ-law octet to linear (ITU-T G.711), 16 bit.
pub(crate) fn from_ulaw(octet: u8) -> f64 {
    let code = !octet;
    let exponent = i32::from(code >> 4 & 7);
    let magnitude = ((i32::from(code & 15) * 8 + 132) << exponent) - 132;
    f64::from(if code & 0x80 == 0 { magnitude } else { -magnitude })
}

/// Linear to the nearest μ-law octet.
pub(crate) fn to_ulaw(sample: i16) -> u8 {
    let magnitude = (i32::from(sample).abs() + 132).min(32_767);
    let exponent = (24 - magnitude.leading_zeros().cast_signed()).max(0);
    let mantissa = magnitude >> (exponent + 3) & 15;
    let code = u8::try_from(exponent << 4 | mantissa).expect("seven bits");
    !(code | if sample < 0 { 0x80 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measuring_itself_is_right() {
        for octet in 0..=255_u8 {
            let linear = from_ulaw(octet);
            let again = from_ulaw(to_ulaw(linear as i16));
            assert!((linear - again).abs() < 0.5, "{octet}: {linear} {again}");
        }
        let full: Vec<f64> = tone(1004.0, 1.0, 32767.0).into_iter().map(f64::from).collect();
        assert!((dbm0(&full) - 3.17).abs() < 0.05, "{}", dbm0(&full));
        let (level, rest) = split_tone(&full, 1004.0);
        assert!((level - 3.17).abs() < 0.05 && rest < -60.0, "{level} {rest}");
        let template: Vec<f64> = chirp(0.5).into_iter().map(f64::from).collect();
        let signal: Vec<f64> = [vec![0.0; 800], template.clone(), vec![0.0; 800]].concat();
        assert!(likeness(&template, &signal) > 0.999);
        assert!(likeness(&template, &full) < 0.5);
        assert_eq!(bursts(&signal).len(), 1);
    }
}

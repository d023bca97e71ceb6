//! G.711 against the tables of the Recommendation, worked out here from its decision values and not from the code.
#![expect(clippy::unwrap_used, reason = "tests")]

use media::codec::Codec;

/// Decision values of one sign: where each of the 128 intervals begins. mu-law in 14-bit units (G.711 table 2): sixteen
/// steps a segment, the first interval half as wide, steps of 2 doubling with each segment.
fn mu_law_decisions() -> Vec<i32> {
    let mut decisions = vec![0, 1];
    for segment in 0..8 {
        for _ in 0..16 {
            let last = *decisions.last().unwrap();
            decisions.push(last + (2 << segment));
        }
        if segment == 0 {
            // The first segment has only fifteen steps of full width.
            decisions.pop();
        }
    }
    decisions.truncate(128);
    decisions
}

/// A-law in 13-bit units (G.711 table 1, with values of 12 bits and sign): two segments of step 2, then doubling.
fn a_law_decisions() -> Vec<i32> {
    let mut decisions = vec![0];
    for segment in 0..8 {
        let step = if segment == 0 { 2 } else { 2 << (segment - 1) };
        for _ in 0..16 {
            let last = *decisions.last().unwrap();
            decisions.push(last + step);
        }
    }
    decisions.truncate(128);
    decisions
}

fn interval(decisions: &[i32], magnitude: i32) -> u8 {
    u8::try_from(decisions.partition_point(|&begin| begin <= magnitude) - 1).unwrap()
}

fn encoded(codec: Codec, sample: i16) -> u8 {
    let mut out = [0];
    codec.encode(&[sample], &mut out);
    out[0]
}

fn decoded(codec: Codec, code: u8) -> i16 {
    let mut out = [0];
    codec.decode(&[code], &mut out);
    out[0]
}

#[test]
fn mu_law_encodes_every_sample_as_the_table_says() {
    let decisions = mu_law_decisions();
    assert_eq!(decisions[..5], [0, 1, 3, 5, 7]);
    assert_eq!((decisions[16], decisions[32], decisions[112], decisions[127]), (31, 95, 4063, 7903));
    for sample in i16::MIN..=i16::MAX {
        let folded = if sample < 0 { !i32::from(sample) } else { i32::from(sample) };
        let sign = if sample < 0 { 0x00 } else { 0x80 };
        let code = (0x7F - interval(&decisions, folded >> 2)) | sign;
        assert_eq!(encoded(Codec::Pcmu, sample), code, "{sample}");
    }
}

#[test]
fn a_law_encodes_every_sample_as_the_table_says() {
    let decisions = a_law_decisions();
    assert_eq!(
        (decisions[16], decisions[32], decisions[48], decisions[112], decisions[127]),
        (32, 64, 128, 2048, 3968)
    );
    for sample in i16::MIN..=i16::MAX {
        let folded = if sample < 0 { !i32::from(sample) } else { i32::from(sample) };
        let sign = if sample < 0 { 0x00 } else { 0x80 };
        let code = (interval(&decisions, folded >> 3) | sign) ^ 0x55;
        assert_eq!(encoded(Codec::Pcma, sample), code, "{sample}");
    }
}

#[test]
fn every_code_decodes_to_the_middle_of_its_interval() {
    let (mu, a) = (mu_law_decisions(), a_law_decisions());
    for number in 0..128u8 {
        let index = usize::from(number);
        // The last interval ends at the virtual decision value 8159 (mu-law) or 4096 (A-law).
        let mu_end = mu.get(index + 1).copied().unwrap_or(8159);
        let middle = if number == 0 { 0 } else { (mu[index] + mu_end) / 2 };
        let value = i16::try_from(middle * 4).unwrap();
        assert_eq!(decoded(Codec::Pcmu, (0x7F - number) | 0x80), value, "mu {number}");
        assert_eq!(decoded(Codec::Pcmu, 0x7F - number), -value, "mu -{number}");
        let a_end = a.get(index + 1).copied().unwrap_or(4096);
        let value = i16::try_from((a[index] + a_end) * 4).unwrap();
        assert_eq!(decoded(Codec::Pcma, (number | 0x80) ^ 0x55), value, "A {number}");
        assert_eq!(decoded(Codec::Pcma, number ^ 0x55), -value, "A -{number}");
    }
}

#[test]
fn known_values_of_the_recommendation() {
    assert_eq!(decoded(Codec::Pcmu, 0x80), 32124);
    assert_eq!(decoded(Codec::Pcmu, 0x00), -32124);
    assert_eq!(decoded(Codec::Pcmu, 0xFF), 0);
    assert_eq!(decoded(Codec::Pcma, 0xD5), 8);
    assert_eq!(decoded(Codec::Pcma, 0x55), -8);
    assert_eq!(decoded(Codec::Pcma, 0xAA), 32256);
    assert_eq!(decoded(Codec::Pcma, 0x2A), -32256);
}

#[test]
fn a_code_survives_decoding_and_encoding() {
    for code in 0..=255u8 {
        assert_eq!(encoded(Codec::Pcma, decoded(Codec::Pcma, code)), code);
        // mu-law has two zeros, and linear samples have one.
        let expected = if code == 0x7F { 0xFF } else { code };
        assert_eq!(encoded(Codec::Pcmu, decoded(Codec::Pcmu, code)), expected);
    }
}

/// The digital milliwatt: these eight codes over and over are a 1 kHz sine of 0 dBm0 (G.711 tables 5 and 6).
#[test]
fn the_digital_milliwatt_is_0_dbm0() {
    let rows = [
        (Codec::Pcma, [0x34, 0x21, 0x21, 0x34, 0xB4, 0xA1, 0xA1, 0xB4]),
        (Codec::Pcmu, [0x1E, 0x0B, 0x0B, 0x1E, 0x9E, 0x8B, 0x8B, 0x9E]),
    ];
    for (codec, codes) in rows {
        let mut pcm = [0; 800];
        for period in pcm.chunks_mut(8) {
            codec.decode(&codes, period);
        }
        let level = media::tone::level_dbm0(&pcm);
        assert!(level.abs() < 0.1, "{codec:?}: {level}");
        assert!(media::tone::power_at(&pcm, 1000.0).abs() < 0.1);
    }
}

//! The two laws of ITU-T G.711 as tables made at compile time.
//!
//! Owns the arithmetic of G.711 §3 at a 16-bit scale, with the rounding of the ITU-T software library (G.191): negative
//! samples are folded by one's complement. mu-law looks at the upper 14 bits of a sample and A-law at the upper 12, so
//! the tables are indexed by those bits and are exact for all 65,536 samples.

const MU_BITS: usize = 1 << 14;
const A_BITS: usize = 1 << 12;

static MU_LAW_BYTES: [u8; MU_BITS] = mu_law_bytes();
static A_LAW_BYTES: [u8; A_BITS] = a_law_bytes();

/// The sample of each mu-law byte (G.711 table 2), scaled to 16 bits: the 14-bit values times four.
pub(super) static MU_LAW_SAMPLES: [i16; 256] = mu_law_samples();

/// The sample of each A-law byte (G.711 table 1), scaled to 16 bits: the 13-bit values times eight.
pub(super) static A_LAW_SAMPLES: [i16; 256] = a_law_samples();

/// The mu-law byte of a sample.
#[inline]
pub(super) fn mu_law_byte(sample: i16) -> u8 {
    MU_LAW_BYTES[usize::from(sample.cast_unsigned() >> 2)]
}

/// The A-law byte of a sample.
#[inline]
pub(super) fn a_law_byte(sample: i16) -> u8 {
    A_LAW_BYTES[usize::from(sample.cast_unsigned() >> 4)]
}

const fn mu_law_bytes() -> [u8; MU_BITS] {
    let mut table = [0; MU_BITS];
    let mut index = 0;
    while index < MU_BITS {
        let negative = index >= MU_BITS / 2;
        let magnitude = if negative { MU_BITS - 1 - index } else { index };
        // The bias of 33 turns the segment borders into powers of two.
        let biased = if magnitude + 33 > 0x1FFF { 0x1FFF } else { magnitude + 33 };
        let segment = biased.ilog2() - 5;
        let step = (biased >> (segment + 1)) & 0x0F;
        let code = ((segment << 4) as u8) | step as u8 | if negative { 0x80 } else { 0 };
        table[index] = !code;
        index += 1;
    }
    table
}

const fn a_law_bytes() -> [u8; A_BITS] {
    let mut table = [0; A_BITS];
    let mut index = 0;
    while index < A_BITS {
        let negative = index >= A_BITS / 2;
        let magnitude = if negative { A_BITS - 1 - index } else { index };
        // The first two segments share one step size, so the segment number of small values is zero.
        let code = if magnitude < 16 {
            magnitude
        } else {
            let segment = magnitude.ilog2() as usize - 3;
            (segment << 4) | ((magnitude >> (segment - 1)) & 0x0F)
        };
        // Even bits are inverted on the line (G.711 §3.2).
        table[index] = (code as u8 | if negative { 0 } else { 0x80 }) ^ 0x55;
        index += 1;
    }
    table
}

const fn mu_law_samples() -> [i16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let code = !(index as u8);
        let segment = (code >> 4) & 0x07;
        let step = (code & 0x0F) as i16;
        let magnitude = (((2 * step + 33) << segment) - 33) * 4;
        table[index] = if code & 0x80 != 0 { -magnitude } else { magnitude };
        index += 1;
    }
    table
}

const fn a_law_samples() -> [i16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let code = (index as u8) ^ 0x55;
        let segment = (code >> 4) & 0x07;
        let step = (code & 0x0F) as i16;
        let magnitude = if segment == 0 { 16 * step + 8 } else { (16 * step + 264) << (segment - 1) };
        table[index] = if code & 0x80 != 0 { magnitude } else { -magnitude };
        index += 1;
    }
    table
}

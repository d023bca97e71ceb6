//! Codecs: the table of what can be spoken on a leg, and the way from linear samples to payload bytes and back.
//!
//! Owns names, static payload types (RFC 3551 §6) and clock rates. Never looks at a packet header and never allocates:
//! both directions work into the caller's buffer.

mod g711;

/// An audio codec a leg may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

/// One row of [`CODECS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodecInfo {
    /// The codec described by this row.
    pub codec: Codec,
    /// Encoding name of `a=rtpmap` (RFC 3551 §6).
    pub name: &'static str,
    /// Static payload type (RFC 3551 §6).
    pub payload_type: u8,
    /// RTP clock in Hz.
    pub clock: u32,
}

/// Every codec, in the order in which it is offered by default.
pub const CODECS: [CodecInfo; 2] = [
    CodecInfo { codec: Codec::Pcmu, name: "PCMU", payload_type: 0, clock: 8000 },
    CodecInfo { codec: Codec::Pcma, name: "PCMA", payload_type: 8, clock: 8000 },
];

impl Codec {
    /// The table row of this codec.
    pub fn info(self) -> &'static CodecInfo {
        match self {
            Self::Pcmu => &CODECS[0],
            Self::Pcma => &CODECS[1],
        }
    }

    /// The encoding name of `a=rtpmap`, in capitals.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The static payload type (RFC 3551 §6).
    pub fn payload_type(self) -> u8 {
        self.info().payload_type
    }

    /// The codec of that encoding name; capitals do not matter (RFC 8866 §6.6).
    pub fn from_name(name: &str) -> Option<Self> {
        CODECS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.codec)
    }

    /// The codec of that static payload type (RFC 3551 §6).
    pub fn from_payload_type(payload_type: u8) -> Option<Self> {
        CODECS.iter().find(|row| row.payload_type == payload_type).map(|row| row.codec)
    }

    /// Encodes 16-bit linear samples, one byte a sample. The shorter of the two slices decides how many.
    pub fn encode(self, pcm: &[i16], out: &mut [u8]) {
        let law = match self {
            Self::Pcmu => g711::mu_law_byte,
            Self::Pcma => g711::a_law_byte,
        };
        for (byte, &sample) in out.iter_mut().zip(pcm) {
            *byte = law(sample);
        }
    }

    /// Decodes payload bytes to 16-bit linear samples. The shorter of the two slices decides how many.
    pub fn decode(self, payload: &[u8], out: &mut [i16]) {
        let table = match self {
            Self::Pcmu => &g711::MU_LAW_SAMPLES,
            Self::Pcma => &g711::A_LAW_SAMPLES,
        };
        for (sample, &byte) in out.iter_mut().zip(payload) {
            *sample = table[usize::from(byte)];
        }
    }

    /// The byte that decodes to the quietest positive sample: what a silent leg sends.
    pub fn silence(self) -> u8 {
        match self {
            Self::Pcmu => 0xFF,
            Self::Pcma => 0xD5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_methods() {
        for row in &CODECS {
            assert_eq!(row.codec.info(), row);
            assert_eq!(Codec::from_name(&row.name.to_lowercase()), Some(row.codec));
            assert_eq!(Codec::from_payload_type(row.payload_type), Some(row.codec));
        }
        assert_eq!(Codec::from_name("G729"), None);
        assert_eq!(Codec::from_payload_type(18), None);
    }

    #[test]
    fn silence_is_what_zero_encodes_to() {
        for row in &CODECS {
            let mut out = [0];
            row.codec.encode(&[0], &mut out);
            assert_eq!(out[0], row.codec.silence());
        }
    }

    #[test]
    fn unequal_slices_are_cut_to_the_shorter() {
        let mut out = [7i16; 4];
        Codec::Pcmu.decode(&[0xFF, 0x80], &mut out);
        assert_eq!(out, [0, 32124, 7, 7]);
        let mut bytes = [1u8; 1];
        Codec::Pcma.encode(&[0, 0, 0], &mut bytes);
        assert_eq!(bytes, [0xD5]);
    }
}

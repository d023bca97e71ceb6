//! RTP packets (RFC 3550 §5.1), read from and written into the caller's buffer.
//!
//! Owns nothing but the shape of a packet. Never allocates, never keeps state, and takes what is plainly RTCP on the
//! same port (RFC 5761 §4) for no packet at all. The octets themselves are read and written by `rtp-rs`.

use rtp_rs::{RtpPacketBuilder, RtpReader, Seq};

/// The length of the fixed header: what [`write()`] adds to a payload.
pub const HEADER: usize = 12;

/// One RTP packet without header extension or contributing sources; the payload borrows from the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number; wraps.
    pub sequence: u16,
    /// Timestamp in units of the codec's clock; wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
}

/// Reads a datagram. Header extensions and contributing sources are stepped over, padding is cut off.
/// `None` for anything that is not RTP version 2, is cut short, or is RTCP (RFC 5761 §4).
pub fn parse(datagram: &[u8]) -> Option<Packet<'_>> {
    // RTCP packet types 192..=223 lie where RTP has its marker and payload types 64..=95, which nobody may use.
    if matches!(datagram.get(1), Some(192..=223)) {
        return None;
    }
    let reader = RtpReader::new(datagram).ok()?;
    Some(Packet {
        payload_type: reader.payload_type(),
        marker: reader.mark(),
        sequence: reader.sequence_number().into(),
        timestamp: reader.timestamp(),
        ssrc: reader.ssrc(),
        payload: reader.payload(),
    })
}

/// Writes a packet and answers its length in octets, or `None` when `out` is too small or the payload type above 127.
pub fn write(packet: &Packet<'_>, out: &mut [u8]) -> Option<usize> {
    RtpPacketBuilder::new()
        .payload_type(packet.payload_type)
        .marked(packet.marker)
        .sequence(Seq::from(packet.sequence))
        .timestamp(packet.timestamp)
        .ssrc(packet.ssrc)
        .payload(packet.payload)
        .build_into(out)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_is_written_as_rfc_3550_draws_it() {
        let packet = Packet {
            payload_type: 8,
            marker: true,
            sequence: 0x0102,
            timestamp: 0x0304_0506,
            ssrc: 0x0708_090A,
            payload: &[0xD5, 0x55],
        };
        let mut out = [0; 32];
        assert_eq!(write(&packet, &mut out), Some(14));
        assert_eq!(out[..14], [0x80, 0x88, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xD5, 0x55]);
        assert_eq!(parse(&out[..14]), Some(packet));
    }

    #[test]
    fn a_small_buffer_and_a_wide_payload_type_are_refused() {
        let mut packet =
            Packet { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: 0, payload: &[0; 20] };
        assert_eq!(write(&packet, &mut [0; 31]), None);
        packet.payload_type = 128;
        assert_eq!(write(&packet, &mut [0; 64]), None);
    }

    #[test]
    fn extension_sources_and_padding_are_stepped_over() {
        let mut datagram = vec![0x80 | 0x20 | 0x10 | 2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        datagram.extend([0; 8]);
        datagram.extend([0xBE, 0xDE, 0, 1, 9, 9, 9, 9]);
        datagram.extend([42, 43, 0, 0, 3]);
        assert_eq!(parse(&datagram).unwrap().payload, [42, 43]);
    }

    #[test]
    fn rtcp_and_other_versions_are_no_packets() {
        for packet_type in 200..=204 {
            let mut datagram = [0u8; 28];
            datagram[0] = 0x80;
            datagram[1] = packet_type;
            assert_eq!(parse(&datagram), None);
        }
        assert_eq!(parse(&[0x40; 20]), None);
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0x80; 11]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&datagram);
        }

        #[test]
        fn what_is_written_is_read_back(
            payload_type in 0u8..=127, marker: bool, sequence: u16, timestamp: u32, ssrc: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assume!(!(marker && (64..=95).contains(&payload_type)));
            let packet = Packet { payload_type, marker, sequence, timestamp, ssrc, payload: &payload };
            let mut out = [0; 256];
            let length = write(&packet, &mut out).unwrap();
            prop_assert_eq!(length, HEADER + payload.len());
            prop_assert_eq!(parse(&out[..length]), Some(packet));
        }
    }
}

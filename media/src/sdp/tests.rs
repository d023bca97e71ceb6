//! Offers and answers in tables: directions, holds, payload types, refused lines, and what peers get wrong.

use super::*;
use proptest::prelude::*;

fn local() -> Local {
    Local { address: "192.0.2.1".parse().unwrap(), port: 4000, session_id: 42, version: 7 }
}

fn both() -> OfferConfig {
    OfferConfig::default()
}

fn lines(sdp: &[u8]) -> Vec<String> {
    let text = String::from_utf8(sdp.to_vec()).unwrap();
    assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
    text.lines().map(str::to_owned).collect()
}

/// A plain description with the lines given after its head.
fn peer(rest: &str) -> Vec<u8> {
    format!("v=0\r\no=- 1 1 IN IP4 198.51.100.2\r\ns=-\r\nc=IN IP4 198.51.100.2\r\nt=0 0\r\n{rest}")
        .into_bytes()
}

#[test]
fn an_offer_line_by_line() {
    let expected = [
        "v=0",
        "o=- 42 7 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
    ];
    assert_eq!(lines(&offer(&local(), &both(), Direction::SendRecv)), expected);
    let six = Local { address: "2001:db8::1".parse().unwrap(), ..local() };
    let plain = OfferConfig { codecs: vec![Codec::Pcma], telephone_event: false };
    let text = lines(&offer(&six, &plain, Direction::SendOnly)).join("\n");
    assert!(text.contains("c=IN IP6 2001:db8::1\n") && text.contains("m=audio 4000 RTP/AVP 8\n"));
    assert!(text.ends_with("a=sendonly") && !text.contains("telephone-event"));
}

#[test]
fn our_own_offer_answered_by_ourselves() {
    let theirs = Local { address: "198.51.100.9".parse().unwrap(), port: 6000, session_id: 1, version: 1 };
    for config in [both(), OfferConfig { codecs: vec![Codec::Pcma, Codec::Pcmu], telephone_event: false }] {
        let offered = offer(&local(), &config, Direction::SendRecv);
        let (answered, caller) = answer(&theirs, &both(), &offered, Direction::SendRecv).unwrap();
        let callee = read_answer(&config, &answered).unwrap();
        assert_eq!(caller.address.to_string(), "192.0.2.1:4000");
        assert_eq!(callee.address.to_string(), "198.51.100.9:6000");
        for side in [&caller, &callee] {
            assert_eq!(side.codec, config.codecs[0]);
            assert_eq!(side.payload_type, config.codecs[0].payload_type());
            assert_eq!(side.event_payload_type, config.telephone_event.then_some(101));
            assert_eq!((side.direction, side.ptime_ms), (Direction::SendRecv, 20));
        }
    }
}

#[test]
fn every_direction_offered_and_wanted() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    let table = [
        (SendRecv, SendRecv, SendRecv),
        (SendRecv, SendOnly, SendOnly),
        (SendRecv, RecvOnly, RecvOnly),
        (SendRecv, Inactive, Inactive),
        (SendOnly, SendRecv, RecvOnly),
        (SendOnly, SendOnly, Inactive),
        (SendOnly, RecvOnly, RecvOnly),
        (SendOnly, Inactive, Inactive),
        (RecvOnly, SendRecv, SendOnly),
        (RecvOnly, SendOnly, SendOnly),
        (RecvOnly, RecvOnly, Inactive),
        (RecvOnly, Inactive, Inactive),
        (Inactive, SendRecv, Inactive),
        (Inactive, SendOnly, Inactive),
        (Inactive, RecvOnly, Inactive),
        (Inactive, Inactive, Inactive),
    ];
    for (offered, want, expected) in table {
        let sdp = offer(&local(), &both(), offered);
        let (text, remote) = answer(&local(), &both(), &sdp, want).unwrap();
        assert_eq!(remote.direction, offered);
        assert_eq!(lines(&text).last().unwrap(), &format!("a={}", expected.as_str()), "{offered:?} {want:?}");
        assert_eq!(offered.reversed().reversed(), offered);
    }
    assert_eq!((SendOnly.reversed(), SendRecv.reversed()), (RecvOnly, SendRecv));
}

#[test]
fn old_and_new_forms_of_hold() {
    let table = [
        ("c=IN IP4 0.0.0.0\r\na=sendrecv\r\n", Direction::SendOnly, "a=recvonly"),
        ("c=IN IP4 0.0.0.0\r\n", Direction::SendOnly, "a=recvonly"),
        ("c=IN IP4 0.0.0.0\r\na=recvonly\r\n", Direction::Inactive, "a=inactive"),
        ("c=IN IP6 ::\r\na=inactive\r\n", Direction::Inactive, "a=inactive"),
        ("a=sendonly\r\n", Direction::SendOnly, "a=recvonly"),
        ("a=SendOnly\r\n", Direction::SendOnly, "a=recvonly"),
        ("a=inactive\r\n", Direction::Inactive, "a=inactive"),
    ];
    for (rest, direction, answered) in table {
        let sdp = peer(&format!("m=audio 5000 RTP/AVP 0\r\n{rest}"));
        let (text, remote) = answer(&local(), &both(), &sdp, Direction::SendRecv).unwrap();
        assert_eq!(remote.direction, direction, "{rest}");
        assert_eq!(lines(&text).last().unwrap(), answered, "{rest}");
    }
    let session_level = peer("a=sendonly\r\nm=audio 5000 RTP/AVP 0\r\n");
    assert_eq!(read_answer(&both(), &session_level).unwrap().direction, Direction::SendOnly);
    let overridden = peer("a=sendonly\r\nm=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n");
    assert_eq!(read_answer(&both(), &overridden).unwrap().direction, Direction::SendRecv);
}

#[test]
fn other_lines_are_refused_in_their_places() {
    let sdp = peer(concat!(
        "m=video 5002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        "m=audio 5004 RTP/SAVP 0\r\n",
        "m=audio 5006 RTP/AVP 18\r\n",
        "m=audio 5008/2 RTP/AVP 18 8 110 0\r\na=rtpmap:110 telephone-event/8000\r\na=ptime:30\r\n",
        "m=image 5010 udptl t38\r\n",
        "m=audio 5012 RTP/AVP 0\r\n",
    ));
    let (text, remote) = answer(&local(), &both(), &sdp, Direction::SendRecv).unwrap();
    let media: Vec<String> = lines(&text).into_iter().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        media,
        [
            "m=video 0 RTP/AVP 96",
            "m=audio 0 RTP/SAVP 0",
            "m=audio 0 RTP/AVP 18",
            "m=audio 4000 RTP/AVP 8 110",
            "m=image 0 udptl t38",
            "m=audio 0 RTP/AVP 0",
        ]
    );
    assert_eq!(remote.address.to_string(), "198.51.100.2:5008");
    assert_eq!((remote.codec, remote.payload_type, remote.event_payload_type), (Codec::Pcma, 8, Some(110)));
    assert_eq!(remote.ptime_ms, 30);
}

#[test]
fn payload_types_are_theirs() {
    let sdp = peer(
        "m=audio 5000 RTP/AVP 97 98 0\r\na=rtpmap:97 pcma/8000/1\r\na=rtpmap:98 TELEPHONE-EVENT/8000\r\n",
    );
    let remote = read_answer(&both(), &sdp).unwrap();
    assert_eq!((remote.codec, remote.payload_type, remote.event_payload_type), (Codec::Pcma, 97, Some(98)));
    let (text, _) = answer(&local(), &both(), &sdp, Direction::SendRecv).unwrap();
    assert!(lines(&text).contains(&"a=rtpmap:97 PCMA/8000".to_owned()));
    // A static number that was given another meaning, and events on another clock.
    let sdp = peer(
        "m=audio 5000 RTP/AVP 0 8 101\r\na=rtpmap:0 L16/44100\r\na=rtpmap:101 telephone-event/16000\r\n",
    );
    let remote = read_answer(&both(), &sdp).unwrap();
    assert_eq!((remote.codec, remote.event_payload_type), (Codec::Pcma, None));
}

#[test]
fn what_peers_leave_out_or_write_strangely() {
    let loose = b"v=0\nc=IN IP4 198.51.100.2\nb=broken\nk=\nm=audio 5000 RTP/AVP 0 \na=rtpmap\na=ptime:200\n";
    let remote = read_answer(&both(), loose).unwrap();
    assert_eq!((remote.codec, remote.ptime_ms), (Codec::Pcmu, 60));
    let by_line = peer("m=audio 5000 rtp/avp 0\r\nc=IN IP4 203.0.113.5/127\r\na=ptime:x\r\n");
    let remote = read_answer(&both(), &by_line).unwrap();
    assert_eq!((remote.address.to_string().as_str(), remote.ptime_ms), ("203.0.113.5:5000", 20));
}

#[test]
fn what_cannot_be_used_says_why() {
    let many = "m=audio 0 RTP/AVP 0\r\n".repeat(17);
    let table: [(Vec<u8>, SdpError); 13] = [
        (b"".to_vec(), SdpError::Syntax),
        (b"hello".to_vec(), SdpError::Syntax),
        (peer("m=audio -5 RTP/AVP 0\r\n"), SdpError::Syntax),
        (peer("m=audio 70000 RTP/AVP 0\r\n"), SdpError::Syntax),
        (peer("m=audio\r\n"), SdpError::Syntax),
        (peer(""), SdpError::NoAudio),
        (peer("m=audio 0 RTP/AVP 0\r\n"), SdpError::NoAudio),
        (peer("m=video 5000 RTP/AVP 96\r\n"), SdpError::NoAudio),
        (peer("m=audio 5000 RTP/AVP 18\r\n"), SdpError::NoCodec),
        (peer("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 sip.example.com\r\n"), SdpError::Address),
        (peer("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 224.1.2.3/127\r\n"), SdpError::Address),
        (peer(&many), SdpError::TooLarge),
        (vec![b'v'; 20_000], SdpError::TooLarge),
    ];
    for (sdp, error) in table {
        let text = String::from_utf8_lossy(&sdp).into_owned();
        assert_eq!(read_answer(&both(), &sdp), Err(error), "{text}");
        assert_eq!(
            answer(&local(), &both(), &sdp, Direction::SendRecv).map(|(_, r)| r),
            Err(error),
            "{text}"
        );
    }
}

#[test]
fn the_version_is_the_callers() {
    let offered = offer(&local(), &both(), Direction::SendRecv);
    for version in [7, 8, u64::MAX] {
        let text = answer(&Local { version, ..local() }, &both(), &offered, Direction::SendRecv).unwrap().0;
        assert_eq!(lines(&text)[1], format!("o=- 42 {version} IN IP4 192.0.2.1"));
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_without_panic(sdp in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = answer(&local(), &both(), &sdp, Direction::SendRecv);
    }

    #[test]
    fn any_lines_are_read_without_panic(
        rest in proptest::collection::vec("(m=audio [0-9]{1,6}|c=IN IP[46]|a=rtpmap:|a=ptime:|m=|a=)[ -~]{0,30}", 0..12),
    ) {
        let sdp = peer(&rest.join("\n"));
        if let Ok((text, _)) = answer(&local(), &both(), &sdp, Direction::SendRecv) {
            let count = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
            prop_assert_eq!(count(&String::from_utf8(text).unwrap()), count(&rest.join("\n")));
        }
    }
}

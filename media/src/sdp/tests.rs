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
    let plain = OfferConfig { codecs: vec![Codec::Pcma], telephone_event: false, ..OfferConfig::default() };
    let text = lines(&offer(&six, &plain, Direction::SendOnly)).join("\n");
    assert!(text.contains("c=IN IP6 2001:db8::1\n") && text.contains("m=audio 4000 RTP/AVP 8\n"));
    assert!(text.ends_with("a=sendonly") && !text.contains("telephone-event"));
}

#[test]
fn our_own_offer_answered_by_ourselves() {
    let theirs = Local { address: "198.51.100.9".parse().unwrap(), port: 6000, session_id: 1, version: 1 };
    for config in [
        both(),
        OfferConfig {
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            telephone_event: false,
            ..OfferConfig::default()
        },
    ] {
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

const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

fn keyed(security: Security) -> OfferConfig {
    OfferConfig { security, ..both() }
}

fn master(octet: u8) -> MasterKey {
    MasterKey([octet; crate::srtp::MASTER])
}

#[test]
fn keys_are_offered_beside_plain_rtp_or_demanded() {
    let text = |security| lines(&offer(&local(), &keyed(security), Direction::SendRecv)).join("\n");
    let ours = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD\n";
    let (optional, required) = (text(Security::Optional(master(3))), text(Security::Required(master(3))));
    assert!(optional.contains("m=audio 4000 RTP/AVP 0 8 101\n") && optional.contains(ours), "{optional}");
    assert!(required.contains("m=audio 4000 RTP/SAVP 0 8 101\n") && required.contains(ours), "{required}");
    assert!(!text(Security::Never).contains("crypto"));
}

#[test]
fn who_encrypts_with_whom() {
    use Security::{Never, Optional, Required};
    let (a, b) = (master(1), master(2));
    let table = [
        (Never, Never, Ok(false)),
        (Never, Optional(b), Ok(false)),
        (Never, Required(b), Err(SdpError::Encryption)),
        (Optional(a), Never, Ok(false)),
        (Optional(a), Optional(b), Ok(true)),
        (Optional(a), Required(b), Ok(true)),
        (Required(a), Never, Err(SdpError::NoAudio)),
        (Required(a), Optional(b), Ok(true)),
        (Required(a), Required(b), Ok(true)),
    ];
    for (caller, callee, expected) in table {
        let offered = offer(&local(), &keyed(caller), Direction::SendRecv);
        let answered = answer(&local(), &keyed(callee), &offered, Direction::SendRecv);
        let outcome = answered.map(|(text, heard)| {
            let proto = |sdp: &[u8]| lines(sdp)[5].split(' ').nth(2).map(str::to_owned);
            assert_eq!(proto(&text), proto(&offered), "the transport of the offer is that of the answer");
            let said = read_answer(&keyed(caller), &text).unwrap();
            if let (Some(heard), Some(said)) = (heard.srtp, said.srtp) {
                assert_eq!((heard.ours, heard.theirs), (b, a));
                assert_eq!((said.ours, said.theirs), (a, b));
            }
            assert_eq!(heard.srtp.is_some(), said.srtp.is_some());
            said.srtp.is_some()
        });
        assert_eq!(outcome, expected, "{caller:?} calls {callee:?}");
    }
}

#[test]
fn an_answer_without_keys_is_none_where_they_are_demanded() {
    let plain = peer("m=audio 6000 RTP/AVP 0\r\n");
    assert_eq!(read_answer(&keyed(Security::Required(master(1))), &plain), Err(SdpError::Encryption));
    assert_eq!(read_answer(&keyed(Security::Optional(master(1))), &plain).unwrap().srtp, None);
}

#[test]
fn only_lines_that_are_understood_give_a_key() {
    let table = [
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), true),
        (format!("7 aes_cm_128_hmac_sha1_32 INLINE:{KEY}|2^20"), true),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} -NEW=1 WSH=64"), true),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4"), false),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY};inline:{KEY}"), false),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"), false),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=1"), false),
        (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"), false),
        (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", &KEY[..36]), false),
        (format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), false),
        ("1 AES_CM_128_HMAC_SHA1_80".to_owned(), false),
        (String::new(), false),
    ];
    for (line, taken) in table {
        let offered = peer(&format!("m=audio 6000 RTP/SAVP 0\r\na=crypto:{line}\r\n"));
        let answered = answer(&local(), &keyed(Security::Optional(master(1))), &offered, Direction::SendRecv);
        assert_eq!(answered.is_ok(), taken, "{line}");
    }
}

#[test]
fn the_first_line_that_is_understood_is_answered_by_its_tag() {
    let offered = peer(&format!(
        "m=audio 6000 RTP/SAVP 0\r\na=crypto:1 AEAD_AES_256_GCM inline:{KEY}\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}\r\n"
    ));
    let config = keyed(Security::Required(master(1)));
    let (text, remote) = answer(&local(), &config, &offered, Direction::SendRecv).unwrap();
    let line = lines(&text).into_iter().find(|line| line.starts_with("a=crypto")).unwrap();
    assert!(line.starts_with("a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:"), "{line}");
    assert_eq!(remote.srtp.unwrap().suite, crate::srtp::Suite::Tag32);
}

//! Recordings: listed, downloaded while they grow and after, stopped, and measured.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Key, send};
use crate::audio::{HEARD_DBM0, RATE, bursts, dbm0, read_wav, split_tone, wav_sizes};
use crate::carrier::seconds;
use crate::harness::{go, number, until, world};
use crate::receiver::Receiver;

/// The finished recording of a call that has ended.
pub(crate) async fn finished(key: &Key, call: &str) -> Vec<u8> {
    // Until the file is final on disk a download is a snapshot; only final files can be asked for in parts.
    let answer = until(5.0, "the recording is final", async || {
        let answer = key.get(&format!("/recordings/{call}/download")).await;
        assert_eq!(answer.status, 200);
        (answer.header("accept-ranges") == "bytes").then_some(answer)
    })
    .await;
    assert_eq!(key.get(&format!("/recordings/{call}")).await.expect(200)["active"], false);
    let (riff, data, at) = wav_sizes(&answer.body);
    assert_eq!((riff + 8, at + data), (answer.body.len(), answer.body.len()), "the header's sizes are right");
    answer.body
}

#[test]
fn t62_t63_a_live_recording_can_be_fetched() {
    go(async {
        let key = world().await.key("10");
        let call = key.answered_call(&json!({"number": number("0501")})).await;
        let about = key.get(&format!("/recordings/{call}")).await.expect(200);
        assert_eq!((&about["active"], &about["callId"]), (&json!(true), &json!(call)));
        let id = about["recordingId"].as_str().expect("an id");
        assert_eq!(about["filename"], format!("{id}.wav"));
        let stamp = id.strip_prefix(&format!("call-{call}-")).expect("the call's id");
        assert!(stamp.len() == 13 && stamp.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        let list = key.get("/recordings").await.expect(200);
        assert_eq!(
            list["active"],
            json!([{"callId": call, "filename": format!("{id}.wav"), "recordingId": id, "active": true}])
        );

        let grown = until(5.0, "there is sound in the file", async || {
            let live = key.get(&format!("/recordings/{call}/download")).await;
            assert_eq!((live.status, live.header("content-type")), (200, "audio/wav"));
            let (riff, data, at) = wav_sizes(&live.body);
            assert_eq!((riff + 8, at + data), (live.body.len(), live.body.len()));
            assert_eq!(live.header("content-length"), live.body.len().to_string());
            (data > RATE).then_some(data)
        })
        .await;
        until(5.0, "the file grows", async || {
            let live = key.get(&format!("/recordings/{call}/download")).await;
            (wav_sizes(&live.body).1 > grown).then_some(())
        })
        .await;
        key.hang_up(&call).await;
    });
}

#[test]
fn t64_t70_a_finished_recording_is_as_long_as_the_talk() {
    go(async {
        let world = world().await;
        let (key, stranger, to) = (world.key("10"), world.key("10"), number("0403"));
        let call = key.call(&json!({"number": to})).await;
        key.wait_ended(&call).await;
        let wav = finished(&key, &call).await;
        let far = world.carrier.call(&to).await;
        let talk = seconds(far.time("answeredAt"), far.time("endedAt"));
        let length = read_wav(&wav).len() as f64 / RATE as f64;
        assert!((length - talk).abs() < 0.3, "{length} s recorded of {talk} s");

        let files = key.get("/recordings").await.expect(200)["files"].clone();
        let name = files[0]["filename"].as_str().expect("a file").to_owned();
        assert_eq!((files.as_array().map(Vec::len), &files[0]["size"]), (Some(1), &json!(wav.len())));
        assert!(files[0]["createdAt"].as_str().is_some_and(|time| time.len() == 24), "{files}");
        assert_eq!(stranger.get("/recordings").await.expect(200)["files"], json!([]));

        let path = format!("/recordings/file/{name}/download");
        let by_name = key.get(&path).await;
        assert_eq!((by_name.status, &by_name.body), (200, &wav));
        assert_eq!(by_name.header("content-disposition"), format!("attachment; filename=\"{name}\""));
        assert_eq!(by_name.header("accept-ranges"), "bytes");
        let part = send(key.request(Method::GET, &path).header("range", "bytes=44-143")).await;
        assert_eq!((part.status, &part.body[..]), (206, &wav[44..144]));
        assert_eq!(part.header("content-range"), format!("bytes 44-143/{}", wav.len()));
        let tail = send(key.request(Method::GET, &path).header("range", "bytes=-100")).await;
        assert_eq!((tail.status, &tail.body[..]), (206, &wav[wav.len() - 100..]));
        let beyond = send(key.request(Method::GET, &path).header("range", "bytes=99999999-")).await;
        assert_eq!(beyond.status, 416);
    });
}

#[test]
fn t65_both_directions_are_recorded() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0501"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let text = "Both of us are in this recording.";
        key.post("/voice", &json!({"callId": call, "text": text})).await.expect(200);
        hooks.wait("tts.played").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        key.hang_up(&call).await;
        let recorded = read_wav(&finished(&key, &call).await);
        let heard = world.carrier.call(&to).await.heard();
        let spoken = bursts(&heard);
        let (first, last) = (spoken.first().expect("speech").start, spoken.last().expect("speech").end);
        assert!(last - first > RATE / 2, "the far end heard us");

        let window = RATE / 10;
        let levels: Vec<_> = recorded.chunks_exact(window).map(|chunk| split_tone(chunk, 1004.0)).collect();
        let before = &levels[2..(first / window).saturating_sub(2)];
        assert!(!before.is_empty());
        for (tone, rest) in before {
            assert!((tone + 16.0).abs() < 2.0, "the far end's tone is at {tone} dBm0");
            assert!(*rest < -38.0, "nothing else is there before we speak: {rest} dBm0");
        }
        let during = &levels[first / window..(last / window).min(levels.len())];
        let ours = during.iter().filter(|(_, rest)| *rest > -35.0).count();
        assert!(ours * 2 > during.len(), "our speech beside the tone: {during:?}");
        let theirs = during.iter().filter(|(tone, _)| (tone + 16.0).abs() < 4.0).count();
        assert!(theirs * 2 > during.len(), "the tone beside our speech: {during:?}");
    });
}

#[test]
fn t66_what_goes_to_the_channel_is_heard_and_not_recorded() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0100"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        // The person at the far end says something first.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for play_to in ["channel", "bridge"] {
            let body =
                json!({"callId": call, "text": "Only one of these two is recorded.", "playTo": play_to});
            assert_eq!(key.post("/voice", &body).await.expect(200)["method"], play_to);
            let nth = if play_to == "channel" { 1 } else { 2 };
            assert_eq!(hooks.wait_nth("tts.played", nth).await.json["method"], play_to);
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        key.hang_up(&call).await;
        let recorded = read_wav(&finished(&key, &call).await);
        let heard = world.carrier.call(&to).await.heard();
        let spoken = bursts(&heard);
        assert_eq!(spoken.len(), 2, "{spoken:?}");
        let level =
            |range: &std::ops::Range<usize>| dbm0(&recorded[range.start..range.end.min(recorded.len())]);
        assert!(level(&spoken[0]) < HEARD_DBM0, "to the channel: {} dBm0 recorded", level(&spoken[0]));
        assert!(level(&spoken[1]) > HEARD_DBM0 + 10.0, "to the bridge: {} dBm0 recorded", level(&spoken[1]));
    });
}

#[test]
fn t67_bad_names_of_files() {
    go(async {
        let key = world().await.key("10");
        let bad = key.get("/recordings/file/x.mp3/download").await;
        assert_eq!(bad.refused(400), "Invalid filename");
        let none = key.get("/recordings/file/none.wav/download").await;
        assert_eq!(none.refused(404), "File not found");
        assert_eq!(key.get("/recordings/1720012345.88").await.refused(404), "Recording not found");
        key.get("/recordings/1720012345.88/download").await.refused(404);
    });
}

#[test]
fn t68_t69_a_recording_is_stopped_and_the_call_goes_on() {
    go(async {
        let world = world().await;
        let (key, hooks) = (world.key("10"), Receiver::start().await);
        let call = key.answered_call(&json!({"number": number("0501"), "webhookUrl": hooks.url()})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let path = format!("/recordings/{call}/stop");
        let stopped = key.post(&path, &json!({})).await.expect(200);
        let about = key.get(&format!("/recordings/{call}")).await.expect(200);
        let expected = json!({
            "success": true, "message": "Recording stopped successfully", "filename": about["filename"],
            "recordingId": about["recordingId"],
        });
        assert_eq!(stopped, expected);
        let wav = finished(&key, &call).await;
        let completed = hooks.wait("recording.completed").await.json;
        assert_eq!(completed["size"], wav.len());
        assert!(
            hooks.events().ends_with(&["recording.stopped".into(), "recording.completed".into()]),
            "{:?}",
            hooks.events()
        );
        assert_eq!(key.post(&path, &json!({})).await.refused(404), "No active recording");
        let live = key.get(&format!("/calls/{call}")).await.expect(200);
        assert_eq!(live["status"], "answered");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(finished(&key, &call).await, wav, "the file does not grow any more");
        let length = read_wav(&wav).len() as f64 / RATE as f64;
        assert!((0.8..2.5).contains(&length), "{length}");
        key.hang_up(&call).await;
        hooks.wait("call.ended").await;
        assert_eq!((hooks.count("recording.completed"), hooks.count("recording.stopped")), (1, 1));
    });
}

#[test]
fn a_key_may_record_nothing_or_only_what_it_asks_for() {
    go(async {
        let server = &world().await.server;
        let cases = [
            ("off", json!(null), false),
            ("on_request", json!(null), false),
            ("on_request", json!(true), true),
        ];
        for (mode, record, expected) in cases {
            let key = server.key(&["--credits", "10", "--trunks", "carrier", "--recording", mode]);
            let hooks = Receiver::start().await;
            let body = json!({"number": number("0400"), "webhookUrl": hooks.url(), "record": record});
            let call = key.call(&body).await;
            let ended = hooks.wait("call.ended").await.json;
            assert_eq!(ended["recording"] != Value::Null, expected, "{mode} {record}");
            assert_eq!(hooks.count("recording.started"), usize::from(expected));
            key.get(&format!("/recordings/{call}")).await.expect(if expected { 200 } else { 404 });
        }
    });
}

#[test]
fn a_download_is_whole_at_every_moment_of_a_recordings_end() {
    go(async {
        let key = world().await.key("100");
        for round in 0..4 {
            let call = key.answered_call(&json!({"number": number("0501")})).await;
            let name = key.get(&format!("/recordings/{call}")).await.expect(200)["filename"].clone();
            let name = name.as_str().expect("a name");
            tokio::time::sleep(Duration::from_millis(150)).await;
            if round % 2 == 0 {
                key.post(&format!("/recordings/{call}/stop"), &json!({})).await.expect(200);
            } else {
                key.hang_up(&call).await;
            }
            for n in 0..40 {
                let by_name = format!("/recordings/file/{name}/download");
                let path = if n % 2 == 0 { format!("/recordings/{call}/download") } else { by_name };
                let answer = key.get(&path).await;
                let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(100)]);
                assert_eq!(answer.status, 200, "round {round}, {n}: {path}: {text}");
                let (riff, data, at) = wav_sizes(&answer.body);
                assert_eq!(
                    (riff + 8, at + data),
                    (answer.body.len(), answer.body.len()),
                    "round {round}, {n}"
                );
            }
            if round % 2 == 0 {
                key.hang_up(&call).await;
            }
        }
    });
}

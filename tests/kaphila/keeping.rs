//! Recordings as a product: two channels, pauses, checksums, links, a full disk, a second place.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{CLIENT, Key, send};
use crate::audio::{RATE, dbm0, read_wav, split_tone, wav_sizes};
use crate::carrier::seconds;
use crate::harness::{Server, go, number, until, world};
use crate::receiver::Receiver;
use crate::recordings::finished;

/// Left and right of a stereo file.
fn sides(wav: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let reader = hound::WavReader::new(std::io::Cursor::new(wav)).expect("a WAV header");
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 8000));
    let samples: Vec<f64> = reader.into_samples::<i16>().map(|s| f64::from(s.expect("whole"))).collect();
    samples.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip()
}

/// By how many samples `later` follows `earlier`, as the best likeness says.
fn lag(earlier: &[f64], later: &[f64], longest: usize) -> usize {
    let alike = |lag: usize| earlier.iter().zip(&later[lag..]).map(|(a, b)| a * b).sum::<f64>();
    (0..longest).max_by(|a, b| alike(*a).total_cmp(&alike(*b))).expect("there are lags")
}

/// Stretches of digital silence of at least a fifth of a second, after the first sound.
fn silences(samples: &[f64]) -> Vec<usize> {
    let first = samples.iter().position(|sample| *sample != 0.0).unwrap_or(samples.len());
    let runs = samples[first..].split(|sample| *sample != 0.0).map(<[f64]>::len);
    runs.filter(|length| *length >= RATE / 5).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_stereo_recording_has_each_party_on_its_side_and_both_in_step() {
    go(async {
        let world = world().await;
        let (key, hooks) = (world.key("10"), Receiver::start().await);
        let refused =
            key.post("/makecall", &json!({"number": number("0500"), "recordChannels": "left"})).await;
        assert_eq!(refused.refused(400), "recordChannels must be mono or stereo");
        // The far end sends back what it hears: the left side is the right one, later.
        let body = json!({"number": number("0500"), "webhookUrl": hooks.url(), "recordChannels": "stereo"});
        let call = key.answered_call(&body).await;
        for nth in 1..=2 {
            key.post("/play", &json!({"callId": call, "file": "custom/welcome"})).await.expect(200);
            tokio::time::sleep(Duration::from_millis(1600 * nth)).await;
        }
        let live = key.get(&format!("/recordings/{call}/download")).await;
        let (riff, data, at) = wav_sizes(&live.body);
        assert_eq!((riff + 8, at + data, data % 4), (live.body.len(), live.body.len(), 0));
        key.hang_up(&call).await;
        let (left, right) = sides(&finished(&key, &call).await);
        assert_eq!(left.len(), right.len());
        let sounding =
            |from: usize| from + right[from..].iter().position(|s| s.abs() > 500.0).expect("a chirp");
        let first = sounding(0);
        let second = sounding(first + RATE + RATE / 4);
        let lags = [first, second].map(|at| lag(&right[at..at + RATE], &left[at..], RATE / 2));
        assert!((RATE / 50..RATE * 3 / 10).contains(&lags[0]), "the echo is {lags:?} samples late");
        assert!(lags[0].abs_diff(lags[1]) <= RATE / 25, "and as late each time: {lags:?}");
        let quiet = &left[..first.saturating_sub(RATE / 50).min(first)];
        assert!(dbm0(quiet) < -60.0, "nothing of ours is on their side");
        assert_eq!(key.get(&format!("/recordings/{call}")).await.expect(200)["channels"], 2);
    });
}

#[test]
fn a_pause_is_silence_of_its_length_and_told() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0501"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        hooks.wait("recording.started").await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let path = |verb: &str| format!("/recordings/{call}/{verb}");
        let paused = key.post(&path("pause"), &json!({})).await.expect(200);
        let from = tokio::time::Instant::now();
        let about = key.get(&format!("/recordings/{call}")).await.expect(200);
        let expected = json!({
            "success": true, "message": "Recording paused successfully", "filename": about["filename"],
            "recordingId": about["recordingId"],
        });
        assert_eq!((paused, &about["paused"], &about["active"]), (expected, &json!(true), &json!(true)));
        key.post(&path("pause"), &json!({})).await.expect(200);
        let stranger = world.key("1");
        assert_eq!(stranger.post(&path("resume"), &json!({})).await.refused(404), "No active recording");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let lasted = from.elapsed().as_secs_f64();
        let resumed = key.post(&path("resume"), &json!({})).await.expect(200);
        assert_eq!(resumed["message"], "Recording resumed successfully");
        key.post(&path("resume"), &json!({})).await.expect(200);
        assert_eq!(key.get(&format!("/recordings/{call}")).await.expect(200).get("paused"), None);
        tokio::time::sleep(Duration::from_millis(800)).await;
        key.hang_up(&call).await;

        let recorded = read_wav(&finished(&key, &call).await);
        let found = silences(&recorded);
        assert_eq!(found.len(), 1, "one pause: {found:?}");
        let silent = found[0] as f64 / RATE as f64;
        assert!(
            (lasted - 0.03..lasted + 0.25).contains(&silent),
            "{silent} s of silence, paused for {lasted} s"
        );
        assert_eq!(recorded.len() % 160, 0);
        let far = world.carrier.call(&to).await;
        let talk = seconds(far.time("answeredAt"), far.time("endedAt"));
        let length = recorded.len() as f64 / RATE as f64;
        assert!((length - talk).abs() < 0.3, "the time line goes on: {length} s recorded of {talk} s");
        let end = &recorded[recorded.len() - RATE / 2..recorded.len() - RATE / 10];
        assert!((split_tone(end, 1004.0).0 + 16.0).abs() < 2.0, "the tone is back");

        hooks.wait("recording.completed").await;
        let told: Vec<String> =
            hooks.events().into_iter().filter(|event| event.starts_with("recording.")).collect();
        let names = ["started", "paused", "resumed", "completed"].map(|name| format!("recording.{name}"));
        assert_eq!(told, names);
        assert_eq!(key.post(&path("pause"), &json!({})).await.refused(404), "No active recording");
    });
}

#[test]
fn a_finished_recording_has_one_checksum_everywhere() {
    go(async {
        let (key, hooks) = (world().await.key("10"), Receiver::start().await);
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        let completed = hooks.wait("recording.completed").await.json;
        let path = format!("/recordings/{call}/download");
        let (one, two) = tokio::join!(key.get(&path), key.get(&path));
        assert_eq!((one.status, &one.body), (200, &two.body), "two at once are the same");
        let sum = Sha256::digest(&one.body);
        assert_eq!(completed["recording"]["sha256"], hex(&sum));
        let about = key.get(&format!("/recordings/{call}")).await.expect(200);
        assert_eq!((&about["sha256"], &about["size"]), (&json!(hex(&sum)), &json!(one.body.len())));
        let tag = format!("\"{}\"", hex(&sum));
        assert_eq!(one.header("etag"), tag);
        assert_eq!(one.header("repr-digest"), format!("sha-256=:{}:", STANDARD.encode(sum)));
        let known = send(key.request(Method::GET, &path).header("if-none-match", &tag)).await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        let rest = key.request(Method::GET, &path).header("range", "bytes=44-").header("if-range", &tag);
        let rest = send(rest).await;
        assert_eq!((rest.status, &rest.body[..]), (206, &one.body[44..]));
    });
}

#[test]
fn a_link_needs_no_key_and_cannot_be_forged() {
    go(async {
        let world = world().await;
        let (key, stranger, hooks) = (world.key("10"), world.key("1"), Receiver::start().await);
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        hooks.wait("recording.completed").await;
        let path = format!("/recordings/{call}/link");
        for (body, words) in [
            (json!({"expiresIn": 59}), 400),
            (json!({"expiresIn": 604_801}), 400),
            (json!({"expiresIn": "60"}), 400),
        ] {
            assert_eq!(key.post(&path, &body).await.status, words, "{body}");
        }
        assert_eq!(stranger.post(&path, &json!({})).await.refused(404), "Recording not found");
        let made = key.post(&path, &json!({"expiresIn": 60})).await.expect(200);
        let url = made["url"].as_str().expect("a url").to_owned();
        assert!(made["expiresAt"].as_str().is_some_and(|time| time.len() == 24), "{made}");
        let wav = finished(&key, &call).await;
        let open = send(CLIENT.get(&url)).await;
        assert_eq!((open.status, &open.body), (200, &wav));
        let part = send(CLIENT.get(&url).header("range", "bytes=0-43")).await;
        assert_eq!((part.status, &part.body[..]), (206, &wav[..44]));

        let (address, query) = url.split_once('?').expect("a query");
        let (expires, signature) = query.split_once('&').expect("two parts");
        let second: i64 = expires.trim_start_matches("expires=").parse().expect("a number");
        let other = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        hooks.wait_nth("recording.completed", 2).await;
        let theirs = key.get(&format!("/recordings/{other}")).await.expect(200)["recordingId"].clone();
        let base = address.rsplit_once('/').expect("a path").0;
        let flipped = signature.replace(['a', '1'], "0");
        for forged in [
            format!("{address}?expires={}&{signature}", second + 1),
            format!("{address}?{expires}&{flipped}0"),
            format!("{address}?{expires}&signature="),
            format!("{address}?{expires}"),
            format!("{address}?{signature}"),
            address.to_owned(),
            format!("{}/{}?{query}", base, theirs.as_str().expect("an id")),
            format!("{address}?expires=99999999999999999999&{signature}"),
        ] {
            let answer = send(CLIENT.get(&forged)).await;
            assert_eq!(answer.refused(403), "Link is not valid", "{forged}");
        }
        world.server.cli(&["keys", "revoke", &key.key_id]);
        let dead = send(CLIENT.get(&url)).await;
        assert_eq!(dead.refused(404), "Recording not found", "the link dies with its key");
    });
}

/// Writes into a folder until the disk is full.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).expect("the folder can be written");
    let block = [0; 4096];
    while file.write_all(&block).is_ok() {}
}

async fn health(server: &Server) -> Value {
    send(CLIENT.get(format!("http://{}/health", server.http))).await.expect(200)
}

async fn hears_us(key: &Key, hooks: &Receiver, call: &str, nth: usize) {
    key.post("/voice", &json!({"callId": call, "text": "Still here."})).await.expect(200);
    assert_eq!(hooks.wait_nth("tts.played", nth).await.json["completed"], true);
}

#[test]
fn a_full_disk_ends_recordings_and_no_calls_and_heals() {
    go(async {
        let settings = [("RECORDINGS__MIN_FREE_BYTES", "1048576")];
        let server = Server::start_on_disk_of("disk", 3 * 1024 * 1024, &settings).await;
        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let hooks = Receiver::start().await;
        assert_eq!(health(&server).await["status"], "healthy");
        let body = |to: String| json!({"number": to, "webhookUrl": hooks.url()});
        let first = key.answered_call(&body(number("0501"))).await;
        hooks.wait("recording.started").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        fill(&server.recordings());
        let failed = hooks.wait("recording.failed").await.json;
        assert_eq!((&failed["reason"], &failed["callId"]), (&json!("disk_full"), &json!(first)));
        let kept = key.get(&format!("/recordings/{first}/download")).await;
        let (riff, data, at) = wav_sizes(&kept.body);
        assert_eq!((riff + 8, at + data), (kept.body.len(), kept.body.len()), "what was kept can be played");
        assert_eq!(failed["size"], kept.body.len());
        assert!(read_wav(&kept.body).len() > RATE / 4);
        assert_eq!(key.get(&format!("/recordings/{first}")).await.expect(200)["reason"], "disk_full");
        hears_us(&key, &hooks, &first, 1).await;

        let sick = health(&server).await;
        assert_eq!(sick["status"], "degraded");
        let problem = json!(["the disk is almost full: calls are not recorded"]);
        assert_eq!(sick["problems"], problem);
        let second = key.call(&body(number("0501"))).await;
        key.wait_status(&second, "answered").await;
        let refused = hooks.wait_nth("recording.failed", 2).await.json;
        assert_eq!((&refused["reason"], &refused["size"]), (&json!("disk_full"), &json!(0)));
        hears_us(&key, &hooks, &second, 2).await;

        std::fs::remove_file(server.recordings().join("filler")).expect("it is there");
        until(5.0, "the server is well again", async || {
            (health(&server).await["status"] == "healthy").then_some(())
        })
        .await;
        let third = key.answered_call(&body(number("0501"))).await;
        hooks.wait_nth("recording.started", 2).await;
        for call in [&first, &second, &third] {
            key.hang_up(call).await;
        }
        assert_eq!(hooks.wait("recording.completed").await.json["callId"], json!(third));
        hooks.wait_nth("call.ended", 3).await;
        assert_eq!((hooks.count("recording.failed"), hooks.count("recording.completed")), (2, 1));
    });
}

#[test]
fn an_uploaded_recording_is_fetched_from_where_it_lies() {
    go(async {
        let there = crate::harness::home("there");
        let url = format!("file://{}", there.display());
        let settings = [("RECORDINGS__UPLOAD__URL", &*url), ("RECORDINGS__UPLOAD__DELETE_LOCAL", "true")];
        let server = Server::start("upload", &settings).await;
        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let hooks = Receiver::start().await;
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        let completed = hooks.wait("recording.completed").await.json;
        let name = completed["recording"]["filename"].as_str().expect("a name").to_owned();
        until(10.0, "the file lies there and no longer here", async || {
            (there.join(&name).exists() && !server.recordings().join(&name).exists()).then_some(())
        })
        .await;
        let wav = std::fs::read(there.join(&name)).expect("it lies there");
        assert_eq!(completed["recording"]["sha256"], hex(&Sha256::digest(&wav)));
        let path = format!("/recordings/{call}/download");
        let whole = key.get(&path).await;
        assert_eq!((whole.status, &whole.body), (200, &wav));
        assert_eq!(whole.header("content-length"), wav.len().to_string());
        let part = send(key.request(Method::GET, &path).header("range", "bytes=44-143")).await;
        assert_eq!((part.status, &part.body[..]), (206, &wav[44..144]));
        assert_eq!(part.header("content-range"), format!("bytes 44-143/{}", wav.len()));
        std::fs::remove_file(there.join(&name)).expect("it lies there");
        assert_eq!(key.get(&path).await.refused(404), "Recording not found");
    });
}

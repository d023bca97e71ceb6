//! Recordings on disk: whole at every moment, true in time, and repaired after a crash.

#![expect(clippy::unwrap_used, reason = "tests")]

mod live;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use live::*;
use media::wav::{self, RepairError, Repaired, repair};
use media::*;
use sha2::{Digest, Sha256};

/// The channels of a stereo file, read likewise.
fn sides(path: &Path) -> (Vec<i16>, Vec<i16>) {
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, RATE));
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    samples.chunks(2).map(|pair| (pair[0], pair[1])).unzip()
}

/// The samples of a file, read by somebody else's reader, which minds the sizes in the header.
fn samples(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (1, RATE));
    reader.samples::<i16>().map(Result::unwrap).collect()
}

#[test]
fn a_recording_can_be_read_at_every_moment_and_is_whole_at_its_end() {
    let folder = folder("whole");
    let path = folder.join("call.wav");
    let mut live = Live::start(1);
    let clip = Arc::new(Clip::from_samples((1..=100).collect::<Vec<i16>>()));
    let playback = PlaybackId(1);
    live.send(Command::Play { bridge: BRIDGE, playback, clip, to: PlayTo::Bridge, looped: true });
    live.record(1, &path);
    let started = [live.heard(), live.heard()];
    assert!(started.contains(&Heard::RecordingStarted { recording: RecordingId(1) }), "{started:?}");
    let mut last = 0;
    let mut lengths = 0;
    while lengths < 4 {
        let samples = samples(&path);
        assert!(samples.len() >= last);
        lengths += u32::from(samples.len() > last);
        last = samples.len();
        live.receive(1);
    }
    live.stop(1);
    let Heard::RecordingEnded { recording, bytes, duration_ms, degraded_ms, sha256 } = live.heard() else {
        panic!()
    };
    assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(std::fs::read(&path).unwrap())));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "nobody else may hear it");
    let samples = samples(&path);
    assert_eq!(recording, RecordingId(1));
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(bytes, wav::HEADER + samples.len() as u64 * 2);
    assert_eq!(duration_ms, samples.len() as u64 / 8);
    assert!(samples.len() >= last && samples.len().is_multiple_of(FRAME));
    // All that was played is there, in order: the clip has no seam. Only a worker that was kept from its work for
    // longer than it makes up for leaves silence, and says how much.
    let begin = samples.iter().position(|sample| *sample != 0).unwrap();
    let (silent, sound): (Vec<&[i16]>, Vec<&[i16]>) =
        samples[begin..].chunks(FRAME).partition(|frame| frame.iter().all(|sample| *sample == 0));
    assert!(sound.concat().windows(2).all(|pair| pair[1] == pair[0] % 100 + 1));
    assert!(silent.len() as u64 * 20 <= degraded_ms);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn closing_the_bridge_finishes_its_recordings() {
    let folder = folder("close");
    let mut live = Live::start(2);
    for id in 1..=3 {
        live.record(id, &folder.join(format!("{id}.wav")));
        assert_eq!(live.heard(), Heard::RecordingStarted { recording: RecordingId(id) });
    }
    live.receive(10);
    live.send(Command::Close { bridge: BRIDGE });
    let mut ended = 0;
    let mut closed = 0;
    while ended < 3 || closed < 1 {
        match live.heard() {
            Heard::RecordingEnded { recording, duration_ms, .. } => {
                ended += 1;
                let samples = samples(&folder.join(format!("{}.wav", recording.0)));
                assert_eq!(duration_ms, samples.len() as u64 / 8);
            }
            Heard::Closed { stats } => {
                closed += 1;
                assert!(stats[0].1.packets_out >= 10);
            }
            other => panic!("{other:?}"),
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn dropping_the_media_finishes_recordings_too() {
    let folder = folder("drop");
    let path = folder.join("call.wav");
    let mut live = Live::start(3);
    live.record(1, &path);
    live.heard();
    live.receive(30);
    let Live { media, mut events, .. } = live;
    drop(media);
    let heard: Vec<Heard> = std::iter::from_fn(|| events.try_recv()).map(|event| event.heard).collect();
    assert!(matches!(heard[..], [Heard::Closed { .. }, Heard::RecordingEnded { .. }]), "{heard:?}");
    assert!(samples(&path).len() >= 28 * FRAME);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_recording_that_cannot_begin_fails_and_the_call_goes_on() {
    let folder = folder("cannot");
    let mut live = Live::start(4);
    let full = folder.join("full.wav");
    // What is written there meets a full disk.
    std::os::unix::fs::symlink("/dev/full", folder.join("full.wav.part")).unwrap();
    for (id, path) in [(1, folder.join("missing/call.wav")), (2, full.clone())] {
        live.record(id, &path);
        let Heard::RecordingFailed { recording, fault, reason, bytes, duration_ms } = live.heard() else {
            panic!()
        };
        assert_eq!((recording, bytes, duration_ms), (RecordingId(id), 0, 0));
        assert_eq!(fault, if id == 1 { RecordFault::FileGone } else { RecordFault::DiskFull });
        assert!(!reason.is_empty());
        live.stop(id);
        assert!(!path.exists());
    }
    live.receive(20);
    live.send(Command::Close { bridge: BRIDGE });
    assert!(matches!(live.heard(), Heard::Closed { .. }), "nothing more is said of the failed ones");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn torn_files_are_made_whole() {
    let folder = folder("torn");
    let path = folder.join("call.wav");
    let body: Vec<u8> = (0..4000).map(|n| n as u8).collect();
    for (claimed, there, kept) in
        [(0, 4000, 4000), (4000, 3000, 3000), (1000, 1001, 1000), (2, 1, 0), (9, 0, 0)]
    {
        let file = [wav::header(Channels::Mono, claimed).as_slice(), &body[..there]].concat();
        std::fs::write(&path, &file).unwrap();
        let (bytes, duration_ms) = (44 + kept as u64, kept as u64 / 16);
        let whole = Repaired { bytes, duration_ms, channels: Channels::Mono, changed: true };
        assert_eq!(repair(&path).unwrap(), whole);
        let expected: Vec<i16> =
            body[..kept].chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(samples(&path), expected);
        assert_eq!(repair(&path).unwrap(), Repaired { changed: false, ..whole });
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_torn_file_of_two_channels_keeps_both_equally_long() {
    let folder = folder("torn-stereo");
    let path = folder.join("call.wav");
    for (there, kept) in [(4003, 4000), (4002, 4000), (3, 0), (8, 8)] {
        let file = [wav::header(Channels::Stereo, 2).as_slice(), &vec![9; there]].concat();
        std::fs::write(&path, &file).unwrap();
        let (bytes, duration_ms) = (44 + kept, kept / 32);
        let whole = Repaired { bytes, duration_ms, channels: Channels::Stereo, changed: true };
        assert_eq!(repair(&path).unwrap(), whole);
        let (left, right) = sides(&path);
        assert_eq!((left.len() as u64, right.len() as u64), (kept / 4, kept / 4));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_stereo_file_holds_each_side_and_a_pause_in_both() {
    let folder = folder("sides");
    let path = folder.join("call.wav");
    let mut live = Live::start(5);
    let clip = Arc::new(Clip::from_samples(vec![5000; 100]));
    let (playback, recording) = (PlaybackId(1), RecordingId(1));
    live.send(Command::Play { bridge: BRIDGE, playback, clip, to: PlayTo::Bridge, looped: true });
    let what = RecordWhat::Sides(LEG);
    live.send(Command::Record { bridge: BRIDGE, recording, path: path.clone(), what });
    live.heard();
    live.heard();
    live.receive(20);
    live.send(Command::PauseRecording { bridge: BRIDGE, recording, on: true });
    live.receive(20);
    live.send(Command::PauseRecording { bridge: BRIDGE, recording, on: false });
    live.receive(20);
    live.stop(1);
    let Heard::RecordingEnded { bytes, duration_ms, degraded_ms, .. } = live.heard() else { panic!() };
    let (left, right) = sides(&path);
    assert_eq!((bytes, duration_ms), (44 + left.len() as u64 * 4, left.len() as u64 / 8));
    assert!(left.iter().all(|sample| *sample == 0), "nobody spoke on that side");
    let silent = right.chunks(FRAME).filter(|frame| **frame == [0; FRAME]).count() as u64;
    let degraded = degraded_ms / 20;
    assert!((19..=24).contains(&(silent - degraded)), "{silent} silent frames, {degraded} of them degraded");
    assert!(right.chunks(FRAME).filter(|frame| **frame == [5000; FRAME]).count() >= 36);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_somebody_took_away_has_failed() {
    let folder = folder("gone");
    let mut live = Live::start(6);
    for (id, replaced) in [(1, false), (2, true)] {
        let path = folder.join("call.wav");
        live.record(id, &path);
        assert_eq!(live.heard(), Heard::RecordingStarted { recording: RecordingId(id) });
        live.receive(5);
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::write(&path, b"something else").unwrap();
        }
        live.stop(id);
        let Heard::RecordingFailed { recording, fault, .. } = live.heard() else { panic!() };
        assert_eq!((recording, fault), (RecordingId(id), RecordFault::FileGone));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_disk_below_its_floor_takes_no_recording_and_the_call_goes_on() {
    let folder = folder("floor");
    let mut live = Live::start_with(7, MediaConfig { min_free_bytes: u64::MAX, ..MediaConfig::default() });
    let path = folder.join("call.wav");
    live.record(1, &path);
    let Heard::RecordingFailed { fault, bytes, .. } = live.heard() else { panic!() };
    assert_eq!((fault, bytes), (RecordFault::DiskFull, 0));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    live.receive(20);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_no_recording_stays_as_it_is() {
    let folder = folder("other");
    let path = folder.join("call.wav");
    let mut torn = wav::header(Channels::Mono, 0).to_vec();
    torn[22] = 2;
    for content in [b"".to_vec(), b"RIFF".to_vec(), vec![b'x'; 100], torn] {
        std::fs::write(&path, &content).unwrap();
        assert!(matches!(repair(&path), Err(RepairError::NotARecording)));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert!(matches!(repair(&folder.join("none.wav")), Err(RepairError::Io(_))));
    std::fs::remove_dir_all(folder).unwrap();
}

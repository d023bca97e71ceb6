//! A disk that fills up in the middle of a recording. A process of its own: its files may not grow beyond a limit.

#![expect(clippy::unwrap_used, reason = "tests")]

mod live;

use live::*;
use media::*;

const LIMIT: u64 = 30_001;

#[expect(unsafe_code, reason = "the standard library cannot limit the size of files")]
fn limit_files() {
    // SAFETY: both calls take plain values; without the signal a write beyond the limit is an error only.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_call_and_tears_nothing() {
    limit_files();
    let folder = folder("disk-full");
    let path = folder.join("call.wav");
    let mut live = Live::start(1);
    live.record(1, &path);
    assert_eq!(live.heard(), Heard::RecordingStarted { recording: RecordingId(1) });
    let Heard::RecordingFailed { fault, reason, bytes, duration_ms, .. } = live.heard() else { panic!() };
    // What the system says of a file that may not grow.
    assert_eq!(fault, RecordFault::TooLong);
    assert!(!reason.is_empty());
    let reader = hound::WavReader::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    assert_eq!(u64::from(reader.len()), duration_ms * 8);
    assert!(bytes <= LIMIT && duration_ms >= 400, "{bytes} bytes, {duration_ms} ms");
    live.receive(100);
    live.stop(1);
    live.send(Command::Close { bridge: BRIDGE });
    assert!(matches!(live.heard(), Heard::Closed { .. }));
    std::fs::remove_dir_all(folder).unwrap();
}

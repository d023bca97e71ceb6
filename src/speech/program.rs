//! Voices that are programs of the system: `espeak-ng` and `flite`. Each text is one run, so that a crash costs one
//! prompt. Text goes in by standard input, never as an argument that others can list; sound comes out as WAV.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::voices::Gender;
use super::{SPEECH_MAX_S, SpeechError, Voice, decode};

/// A run that takes longer is killed; the customer's request has gone away by then.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Most bytes taken from a run: the longest speech at 24 kHz.
const OUTPUT_MAX: u64 = SPEECH_MAX_S as u64 * 24_000 * 2;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Espeak,
    Flite,
}

/// A program that speaks.
#[derive(Debug)]
pub(super) struct Program {
    kind: Kind,
    path: PathBuf,
}

impl Program {
    /// Looks for the program that the configuration calls `name`.
    ///
    /// # Errors
    /// What is missing, for the operator.
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let (kind, program) = match name {
            "flite" => (Kind::Flite, "flite"),
            _ => (Kind::Espeak, "espeak-ng"),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file());
        found.map(|path| Self { kind, path }).ok_or_else(|| format!("the program {program} is not installed"))
    }

    /// A program at this place that is spoken to like `espeak-ng`.
    #[cfg(test)]
    pub(super) fn at(path: PathBuf) -> Self {
        Self { kind: Kind::Espeak, path }
    }

    /// The configuration's word for it.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Espeak => "espeak",
            Kind::Flite => "flite",
        }
    }

    /// Whether it has no other language.
    pub(super) fn only_english(&self) -> bool {
        self.kind == Kind::Flite
    }

    /// Runs the program on a text; blocks.
    pub(super) fn speak(&self, text: &str, voice: &Voice) -> Result<(Vec<f32>, u32), SpeechError> {
        let mut words = arguments(self.kind, voice);
        let wav = match self.kind {
            Kind::Espeak => run(&self.path, &words, text, KILL_AFTER)?,
            Kind::Flite => {
                // flite goes back to write the length into the header, which a pipe does not let it.
                let file = Scratch::new()?;
                words.push(file.0.display().to_string());
                run(&self.path, &words, text, KILL_AFTER)?;
                file.read()?
            }
        };
        let sound = decode::wav(wav, SPEECH_MAX_S).map_err(|error| match error {
            decode::DecodeError::TooLong => SpeechError::TooLong,
            decode::DecodeError::Bad(reason) => SpeechError::Failed(reason),
        })?;
        Ok((sound.samples, sound.rate))
    }
}

/// A file that only this user can read, gone when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, SpeechError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("trunkline-spoken-{}-{number}.wav", std::process::id()));
        // One left behind by an earlier process of the same number is not ours to write through.
        let _ = std::fs::remove_file(&path);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Self(path))
    }

    fn read(&self) -> Result<Vec<u8>, SpeechError> {
        let mut wav = Vec::new();
        let file = File::open(&self.0).map_err(failed)?;
        file.take(OUTPUT_MAX + 1).read_to_end(&mut wav).map_err(failed)?;
        if wav.len() as u64 > OUTPUT_MAX { Err(SpeechError::TooLong) } else { Ok(wav) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left costs disk, not a call.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: io::Error) -> SpeechError {
    SpeechError::Failed(error.to_string())
}

fn arguments(kind: Kind, voice: &Voice) -> Vec<String> {
    match kind {
        Kind::Espeak => {
            let (pitch, pace) = (voice.pitch.to_string(), voice.pace.to_string());
            let given = ["--stdin", "--stdout", "-b", "1", "-v"].map(str::to_owned);
            let more = [voice.to_string(), "-p".to_owned(), pitch, "-s".to_owned(), pace];
            given.into_iter().chain(more).collect()
        }
        Kind::Flite => {
            let name = match voice.gender {
                Gender::Male => "rms",
                Gender::Female => "slt",
            };
            let stretch = format!("duration_stretch={:.3}", 170.0 / f64::from(voice.pace));
            let given = ["-voice", name, "--setf", &stretch, "-f", "-", "-o"];
            given.map(str::to_owned).into()
        }
    }
}

/// Runs a program with `text` as its input and gives what it wrote. It is killed when it is late, and always waited
/// for: no process is left behind.
fn run(path: &Path, arguments: &[String], text: &str, within: Duration) -> Result<Vec<u8>, SpeechError> {
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    let text = format!("{text}\n");
    std::thread::scope(|scope| {
        // Two pipes, two threads: a program may write before it has read all.
        scope.spawn(move || {
            if let Some(mut input) = input {
                // A program that ended early shows in its status.
                let _ = input.write_all(text.as_bytes());
            }
        });
        let (tell, told) = mpsc::channel();
        scope.spawn(move || {
            let mut wav = Vec::new();
            let read = output.map(|output| output.take(OUTPUT_MAX + 1).read_to_end(&mut wav));
            // Nobody listens when it was late.
            let _ = tell.send(read.unwrap_or(Ok(0)).map(|_| wav));
        });
        let Ok(wav) = told.recv_timeout(within) else {
            end(&mut child);
            return Err(SpeechError::Late);
        };
        let wav = wav.map_err(failed)?;
        if wav.len() as u64 > OUTPUT_MAX {
            end(&mut child);
            return Err(SpeechError::TooLong);
        }
        let status = child.wait().map_err(failed)?;
        if status.success() { Ok(wav) } else { Err(SpeechError::Failed(format!("it ended with {status}"))) }
    })
}

fn end(child: &mut Child) {
    // It may have ended by itself in this moment.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, text: &str, within: Duration) -> Result<Vec<u8>, SpeechError> {
        run(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], text, within)
    }

    #[test]
    fn text_goes_in_and_sound_comes_out() {
        let long = "many words ".repeat(50_000);
        let out = shell("cat", &long, Duration::from_secs(60)).unwrap();
        assert_eq!(out, format!("{long}\n").into_bytes());
    }

    #[test]
    fn a_late_program_is_killed() {
        // `exec`: the process killed is the one that sleeps.
        let late = shell("exec sleep 600", "x", Duration::from_millis(50));
        assert_eq!(late, Err(SpeechError::Late));
    }

    #[test]
    fn a_failing_program_is_an_error() {
        let failed = shell("exit 3", "x", Duration::from_secs(60));
        assert!(matches!(&failed, Err(SpeechError::Failed(reason)) if reason.contains('3')), "{failed:?}");
        let missing = run(Path::new("/nonexistent"), &[], "x", Duration::from_secs(1));
        assert!(matches!(missing, Err(SpeechError::Failed(_))));
    }

    #[test]
    fn what_flite_writes_is_read_and_removed() {
        let file = Scratch::new().unwrap();
        let path = file.0.clone();
        std::fs::write(&path, b"RIFF").unwrap();
        assert_eq!(file.read().unwrap(), b"RIFF");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_program_is_named() {
        let program = Program { kind: Kind::Espeak, path: "/bin/false".into() };
        assert!(matches!(program.speak("x", &Voice::named("alloy")), Err(SpeechError::Failed(_))));
    }

    #[test]
    fn the_voice_is_in_the_arguments_and_the_text_is_not() {
        let voice = Voice::named("de-DE-Neural2-C");
        let words = arguments(Kind::Espeak, &voice);
        assert!(words.windows(2).any(|pair| pair == ["-v", "de+f1"]), "{words:?}");
        assert!(words.contains(&"--stdin".to_owned()));
        let words = arguments(Kind::Flite, &voice);
        assert!(words.windows(2).any(|pair| pair == ["-voice", "slt"]), "{words:?}");
        assert_eq!(words.last().map(String::as_str), Some("-o"));
    }
}

//! The voice in the binary: the espeak-ng port with its English data.
//!
//! The port reads its data from a folder each time it speaks, so the data that the binary carries is laid out once
//! in a private folder under the system's temporary one, shared by all processes of this user and version. GPL-3.0
//! or later: the feature `embedded-voice` leaves all of it out.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use espeak_ng::{EspeakNg, Parameter};

use super::{SpeechError, Voice};

/// Of the port and its data.
pub(super) const VERSION: &str = "espeak-ng 0.2.0";

/// The port gives 16-bit samples.
const FULL_SCALE: f32 = 32_768.0;
/// Without these the port cannot speak; the last is written last.
const NEEDED: [&str; 5] = ["phontab", "phonindex", "phondata", "intonations", "en_dict"];

/// The embedded voice.
#[derive(Debug)]
pub(super) struct Embedded {
    /// Where the data lies; it may move when somebody cleans the temporary folder.
    data: Mutex<PathBuf>,
}

impl Embedded {
    /// Lays out the data.
    ///
    /// # Errors
    /// What went wrong, for the operator.
    pub(super) fn new() -> Result<Self, String> {
        let data =
            lay_out(&std::env::temp_dir()).map_err(|error| format!("cannot lay out its data: {error}"))?;
        Ok(Self { data: Mutex::new(data) })
    }

    /// Speaks; blocks for about a thousandth of the speech's own length.
    pub(super) fn speak(&self, text: &str, voice: &Voice) -> Result<(Vec<f32>, u32), SpeechError> {
        let data = self.data().map_err(|error| SpeechError::Failed(error.to_string()))?;
        // Errors of the port name files and voices, never text.
        let failed = |error: espeak_ng::Error| SpeechError::Failed(error.to_string());
        let mut engine = EspeakNg::with_data_dir(&voice.to_string(), &data).map_err(failed)?;
        engine.set_parameter(Parameter::Pitch, i32::from(voice.pitch));
        engine.set_parameter(Parameter::Rate, i32::from(voice.pace));
        let (samples, rate) = engine.synth(text).map_err(failed)?;
        Ok((samples.into_iter().map(|s| f32::from(s) / FULL_SCALE).collect(), rate))
    }

    /// The data's folder, laid out anew if it was cleaned away under a running server.
    fn data(&self) -> io::Result<PathBuf> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_whole(&data) {
            *data = lay_out(&std::env::temp_dir())?;
        }
        Ok(data.clone())
    }
}

fn is_whole(data: &Path) -> bool {
    NEEDED.iter().all(|file| data.join(file).is_file())
}

/// Lays the data out in a folder of ours under `parent`: first under a name of this process, then, whole, under the
/// name that others look for.
fn lay_out(parent: &Path) -> io::Result<PathBuf> {
    let ours = private_folder(parent)?;
    let data = ours.join("data");
    if is_whole(&data) {
        return Ok(data);
    }
    let mine = fresh_folder(&ours, "making")?;
    espeak_ng::install_bundled_languages(&mine, &["en"])?;
    if std::fs::rename(&mine, &data).is_ok() {
        return Ok(data);
    }
    if is_whole(&data) {
        // Another process was faster. What is left behind costs a few megabytes at worst.
        let _ = std::fs::remove_dir_all(&mine);
        return Ok(data);
    }
    // Half of an older one is in the way: this process uses its own.
    Ok(mine)
}

/// A folder that only this user can write to. One of that name which somebody else laid out first is not touched:
/// data from a stranger must not be read.
fn private_folder(parent: &Path) -> io::Result<PathBuf> {
    let folder = parent.join(format!("trunkline-voice-{}", VERSION.replace(' ', "-")));
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => return Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = std::fs::symlink_metadata(&folder)?;
    // A folder of our own making tells who we are.
    let probe = fresh_folder(parent, "trunkline-voice")?;
    let us = std::fs::metadata(&probe)?.uid();
    if found.is_dir() && found.uid() == us && found.mode() & 0o077 == 0 {
        std::fs::remove_dir(&probe)?;
        return Ok(folder);
    }
    Ok(probe)
}

/// A new folder that only this user can enter.
fn fresh_folder(parent: &Path, name: &str) -> io::Result<PathBuf> {
    for attempt in 0..1000 {
        let folder = parent.join(format!("{name}-{}-{attempt}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name for a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(fresh_folder(&std::env::temp_dir(), &format!("trunkline-test-{name}")).unwrap())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // Nothing hangs on it.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn data_is_laid_out_once_and_again_when_it_is_gone() {
        let scratch = Scratch::new("layout");
        let data = lay_out(&scratch.0).unwrap();
        assert!(is_whole(&data));
        assert_eq!(std::fs::metadata(data.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(lay_out(&scratch.0).unwrap(), data);
        std::fs::remove_dir_all(&data).unwrap();
        assert_eq!(lay_out(&scratch.0).unwrap(), data);
        std::fs::remove_file(data.join("en_dict")).unwrap();
        let other = lay_out(&scratch.0).unwrap();
        assert!(is_whole(&other));
        assert_ne!(other, data);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        let scratch = Scratch::new("foreign");
        let folder = private_folder(&scratch.0).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_ne!(private_folder(&scratch.0).unwrap(), folder);
        std::fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/tmp", &folder).unwrap();
        assert_ne!(private_folder(&scratch.0).unwrap(), folder);
    }

    #[test]
    fn a_running_voice_survives_the_loss_of_its_data() {
        let voice = Embedded::new().unwrap();
        let scratch = Scratch::new("lost");
        *voice.data.lock().unwrap() = scratch.0.join("gone");
        assert!(!voice.speak("hello", &Voice::named("alloy")).unwrap().0.is_empty());
    }
}

//! Sounds by name: files under one folder, decoded once and remembered.
//!
//! A key's own folder (`<root>/<key id>/`) comes before the shared sounds. A name is a path without dots, so it
//! cannot climb out; a link that leads out is refused all the same, and so is another key's folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use media::Clip;
use tokio::sync::Semaphore;

use super::cache::Lru;
use super::library::Lengths;
use super::{decode, resample, shape};
use crate::model::forms;

/// Tried in this order.
pub(super) const EXTENSIONS: [&str; 6] = ["wav", "mp3", "ogg", "flac", "ulaw", "alaw"];
/// Largest file, bytes.
const FILE_MAX: u64 = 20 * 1024 * 1024;
/// Longest sound, seconds.
const LENGTH_MAX_S: usize = 600;
/// Decoded sounds that are remembered, bytes.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Files decoded at once.
const WORKERS: usize = 2;
/// What the folders of keys begin with.
pub(super) const KEY_FOLDER: &str = "key_";

/// Why a sound is not played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoundError {
    /// Not the name of a sound: `^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`, at most 128 characters.
    #[error("not the name of a sound")]
    Invalid,
    /// There is no such sound.
    #[error("there is no such sound")]
    NotFound,
    /// There is a file, but no sound in it.
    #[error("the sound cannot be decoded: {0}")]
    Undecodable(String),
    /// Above 20 MiB or 10 minutes.
    #[error("the sound is too long")]
    TooLong,
}

/// The folder of sounds. Clones share what they remember.
#[derive(Clone, Debug)]
pub struct Sounds(Arc<Inner>);

/// What clones share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    cache: Mutex<Lru<Version>>,
    pub(super) lengths: Mutex<Lengths>,
    workers: Arc<Semaphore>,
}

/// One state of one file: changing the file is enough to hear the change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) path: PathBuf,
    pub(super) changed: Option<SystemTime>,
    pub(super) bytes: u64,
}

impl Sounds {
    /// The sounds under `root`. The folder need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        let cache = Mutex::new(Lru::new(CACHE_BYTES));
        let lengths = Mutex::new(Lengths::new());
        Self(Arc::new(Inner { root, cache, lengths, workers: Arc::new(Semaphore::new(WORKERS)) }))
    }

    /// The sound of this name as a clip: from the key's folder if it has one of that name, else from the shared
    /// ones.
    ///
    /// # Errors
    /// See [`SoundError`]. A file that cannot be read counts as not there.
    pub async fn load(&self, key_folder: Option<&str>, name: &str) -> Result<Arc<Clip>, SoundError> {
        if !is_name(name) || key_folder.is_some_and(|folder| !is_name(folder) || folder.contains('/')) {
            return Err(SoundError::Invalid);
        }
        let (folder, name) = (key_folder.map(str::to_owned), name.to_owned());
        self.working(move |inner| inner.load(folder.as_deref(), &name)).await
    }

    /// Decodes a sound that came from elsewhere, by the ending of its name.
    ///
    /// # Errors
    /// [`SoundError::Undecodable`], [`SoundError::TooLong`]; [`SoundError::Invalid`] for an ending that is none of ours.
    pub async fn decode(&self, bytes: Vec<u8>, extension: &str) -> Result<Arc<Clip>, SoundError> {
        let known = EXTENSIONS.into_iter().find(|known| extension.eq_ignore_ascii_case(known));
        let extension = known.ok_or(SoundError::Invalid)?;
        self.working(move |_| clip(bytes, extension).map(Arc::new)).await
    }

    /// Does what blocks where it may block, a few at once.
    pub(super) async fn working<T, E>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SoundError> + Send + 'static,
    {
        let inner = self.0.clone();
        // Never closed, so this cannot fail; if it did, there would be no sound.
        let permit = self.0.workers.clone().acquire_owned().await.map_err(|_| SoundError::NotFound)?;
        let work = move || {
            // Held until the work is really done, even when nobody waits any longer.
            let _permit = permit;
            work(&inner)
        };
        let crashed = |_| SoundError::Undecodable("the decoder crashed".to_owned());
        tokio::task::spawn_blocking(work).await.map_err(crashed)?
    }
}

impl Inner {
    fn load(&self, folder: Option<&str>, name: &str) -> Result<Arc<Clip>, SoundError> {
        let (path, extension) = self.find(folder, name).ok_or(SoundError::NotFound)?;
        let file = File::open(&path).map_err(|_| SoundError::NotFound)?;
        let about = file.metadata().map_err(|_| SoundError::NotFound)?;
        let version = Version { path, changed: about.modified().ok(), bytes: about.len() };
        if let Some(clip) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&version) {
            return Ok(clip);
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|_| SoundError::NotFound)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(SoundError::TooLong);
        }
        let clip = Arc::new(clip(bytes, extension)?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(version, clip.clone());
        Ok(clip)
    }

    /// The file of a name, free of links, and its extension.
    fn find(&self, folder: Option<&str>, name: &str) -> Option<(PathBuf, &'static str)> {
        let root = self.root.canonicalize().ok()?;
        let own = folder.and_then(|folder| in_folder(&root.join(folder), name));
        own.or_else(|| in_folder(&root, name).filter(|(path, _)| is_shared(&root, path)))
    }
}

/// The first file of that name in `base`; whatever links there are, it must lie under `base`.
pub(super) fn in_folder(base: &Path, name: &str) -> Option<(PathBuf, &'static str)> {
    let base = base.canonicalize().ok()?;
    EXTENSIONS.iter().find_map(|extension| {
        let path = base.join(format!("{name}.{extension}")).canonicalize().ok()?;
        (path.starts_with(&base) && path.is_file()).then_some((path, *extension))
    })
}

/// Whether a file under `root` is for everybody.
fn is_shared(root: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(root).ok().and_then(|inside| inside.components().next());
    inside.is_some_and(|first| !first.as_os_str().to_string_lossy().starts_with(KEY_FOLDER))
}

/// The name of a sound.
pub(super) fn is_name(name: &str) -> bool {
    forms::is_sound(name)
}

/// Decodes a file of this extension.
pub(super) fn clip(bytes: Vec<u8>, extension: &str) -> Result<Clip, SoundError> {
    let sound = decode::file(bytes, extension, LENGTH_MAX_S).map_err(|error| match error {
        decode::DecodeError::TooLong => SoundError::TooLong,
        decode::DecodeError::Bad(reason) => SoundError::Undecodable(reason),
    })?;
    let unfit = || SoundError::Undecodable("its sample rate cannot be used".to_owned());
    let samples = resample::to_8k(sound.samples, sound.rate).ok_or_else(unfit)?;
    let samples: Vec<i16> = samples.into_iter().map(|s| shape::to_i16(f64::from(s))).collect();
    Ok(Clip::from_samples(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trunkline-sounds-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Writes a raw µ-law file of so many bytes.
        fn put(&self, name: &str, bytes: usize) {
            self.put_bytes(name, &vec![0x80; bytes]);
        }

        fn put_bytes(&self, name: &str, bytes: &[u8]) {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // Nothing hangs on it.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn samples(sounds: &Sounds, folder: Option<&str>, name: &str) -> Result<usize, SoundError> {
        Ok(sounds.load(folder, name).await?.samples().len())
    }

    #[tokio::test]
    async fn the_keys_folder_comes_first() {
        let scratch = Scratch::new("order");
        let sounds = Sounds::new(scratch.0.clone());
        scratch.put("custom/welcome.ulaw", 100);
        scratch.put("key_1/custom/welcome.ulaw", 200);
        scratch.put("key_2/secret.ulaw", 300);
        assert_eq!(samples(&sounds, Some("key_1"), "custom/welcome").await, Ok(200));
        assert_eq!(samples(&sounds, Some("key_2"), "custom/welcome").await, Ok(100));
        assert_eq!(samples(&sounds, None, "custom/welcome").await, Ok(100));
        assert_eq!(samples(&sounds, Some("key_2"), "secret").await, Ok(300));
        for (folder, name) in
            [(Some("key_1"), "secret"), (Some("key_1"), "key_2/secret"), (None, "key_2/secret")]
        {
            assert_eq!(samples(&sounds, folder, name).await, Err(SoundError::NotFound), "{name}");
        }
    }

    #[tokio::test]
    async fn wav_comes_first_where_several_share_a_name() {
        let scratch = Scratch::new("kinds");
        let sounds = Sounds::new(scratch.0.clone());
        scratch.put("a.alaw", 10);
        assert_eq!(samples(&sounds, None, "a").await, Ok(10));
        scratch.put("a.ulaw", 20);
        assert_eq!(samples(&sounds, None, "a").await, Ok(20));
        scratch.put_bytes("a.wav", b"no wav at all");
        let refused = samples(&sounds, None, "a").await;
        assert!(matches!(refused, Err(SoundError::Undecodable(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn names_cannot_climb_out() {
        let scratch = Scratch::new("climb");
        scratch.put("outside.ulaw", 10);
        scratch.put("root/inside.ulaw", 10);
        scratch.put("root/key_2/theirs.ulaw", 10);
        let root = scratch.0.join("root");
        std::os::unix::fs::symlink(scratch.0.join("outside.ulaw"), root.join("link.ulaw")).unwrap();
        std::os::unix::fs::symlink(root.join("key_2/theirs.ulaw"), root.join("theirs.ulaw")).unwrap();
        std::os::unix::fs::symlink(root.join("inside.ulaw"), root.join("alias.ulaw")).unwrap();
        let sounds = Sounds::new(root);
        assert_eq!(samples(&sounds, None, "alias").await, Ok(10));
        for name in ["link", "theirs", "none", "key_2"] {
            assert_eq!(samples(&sounds, None, name).await, Err(SoundError::NotFound), "{name}");
        }
        let long = "a".repeat(129);
        for name in
            ["", "/", "..", "../outside", "a/../b", "/etc/passwd", "a//b", "a/", "a.ulaw", "a\0b", "ä", &long]
        {
            assert_eq!(samples(&sounds, None, name).await, Err(SoundError::Invalid), "{name:?}");
        }
        for folder in ["..", "a/b", ""] {
            assert_eq!(samples(&sounds, Some(folder), "x").await, Err(SoundError::Invalid), "{folder:?}");
        }
        assert_eq!(samples(&sounds, None, &"a".repeat(128)).await, Err(SoundError::NotFound));
    }

    #[tokio::test]
    async fn size_and_length_are_bounded() {
        let scratch = Scratch::new("bounds");
        let sounds = Sounds::new(scratch.0.clone());
        scratch.put("long.ulaw", 8000 * 600 + 1);
        scratch.put("just.ulaw", 8000 * 600);
        let file = File::create(scratch.0.join("huge.wav")).unwrap();
        file.set_len(FILE_MAX + 1).unwrap();
        assert_eq!(samples(&sounds, None, "long").await, Err(SoundError::TooLong));
        assert_eq!(samples(&sounds, None, "huge").await, Err(SoundError::TooLong));
        assert_eq!(samples(&sounds, None, "just").await, Ok(4_800_000));
    }

    #[tokio::test]
    async fn a_sound_is_decoded_once_until_it_changes() {
        let scratch = Scratch::new("once");
        let sounds = Sounds::new(scratch.0.clone());
        scratch.put("a.ulaw", 10);
        let first = sounds.load(None, "a").await.unwrap();
        assert!(Arc::ptr_eq(&first, &sounds.clone().load(None, "a").await.unwrap()));
        scratch.put("a.ulaw", 11);
        assert_eq!(sounds.load(None, "a").await.unwrap().samples().len(), 11);
    }

    #[tokio::test]
    async fn a_missing_folder_is_a_missing_sound() {
        let sounds = Sounds::new("/nonexistent/sounds".into());
        assert_eq!(samples(&sounds, Some("key_1"), "a").await, Err(SoundError::NotFound));
    }
}

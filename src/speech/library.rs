//! The folder of sounds as something that can be looked after while calls play from it: what there is, what comes in,
//! what goes. A file is decoded before it is kept and put in place by a rename, so that no call ever meets half of one
//! or one that cannot be played. Blocks; asked by way of [`Sounds`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::sounds::{EXTENSIONS, Inner, KEY_FOLDER, SoundError, Sounds, Version, clip, in_folder, is_name};

/// Sounds of one folder, at most; what is beyond is neither listed nor taken in.
const SOUNDS_MAX: usize = 10_000;
/// Folders inside of folders.
const DEPTH_MAX: usize = 16;
/// Lengths that are remembered.
const LENGTHS_MAX: usize = 20_000;
/// Samples a millisecond.
const PER_MS: usize = 8;

/// Lengths of files in milliseconds; `None` for those that cannot be decoded.
pub(super) type Lengths = BTreeMap<Version, Option<u64>>;

/// One sound of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// As `/play` takes it.
    pub name: String,
    /// The extension of the file that is played.
    pub format: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its length; `None` where it cannot be decoded.
    pub duration_ms: Option<u64>,
    /// When it was written, where the system knows.
    pub changed: Option<SystemTime>,
}

/// Why a sound cannot be taken in or given up.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Its name, its format, or what is in it.
    #[error(transparent)]
    Sound(#[from] SoundError),
    /// The folder holds as many as it may.
    #[error("there are {SOUNDS_MAX} sounds already")]
    Full,
    /// The folder cannot be read or written.
    #[error("the folder of sounds: {0}")]
    Folder(#[from] io::Error),
}

/// A file that was decoded and waits beside its place. Removed when dropped before [`Upload::place`].
#[derive(Debug)]
pub struct Upload {
    waiting: PathBuf,
    place: PathBuf,
    /// The same sound in other formats: these would be played before or after it, so they go.
    others: Vec<PathBuf>,
    /// Length of the sound.
    pub duration_ms: u64,
    /// A sound of that name was there.
    pub replaces: bool,
}

impl Upload {
    /// Puts the file in its place, over what was there.
    ///
    /// # Errors
    /// The system's.
    pub fn place(self) -> io::Result<()> {
        fs::rename(&self.waiting, &self.place)?;
        for other in &self.others {
            match fs::remove_file(other) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already if it was put in its place.
        let _ = fs::remove_file(&self.waiting);
    }
}

/// Splits `name.ext` into a sound's name and one of the known extensions.
pub fn split_file(file: &str) -> Option<(&str, &'static str)> {
    let (name, extension) = file.rsplit_once('.')?;
    let known = EXTENSIONS.iter().find(|known| **known == extension)?;
    is_name(name).then_some((name, *known))
}

impl Sounds {
    /// The sounds of a key's folder, or the shared ones, by name: so many after so many, and how many there are.
    ///
    /// # Errors
    /// [`ShelfError::Folder`]. A folder that is not there is empty.
    pub async fn list(
        &self,
        key_folder: Option<&str>,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<Listed>, usize), ShelfError> {
        let folder = key_folder.map(str::to_owned);
        self.working(move |inner| inner.list(folder.as_deref(), limit, offset)).await
    }

    /// Decodes a file and keeps it beside its place.
    ///
    /// # Errors
    /// [`ShelfError`]; nothing is kept then.
    pub async fn take_in(
        &self,
        key_folder: Option<&str>,
        name: &str,
        format: &'static str,
        bytes: Vec<u8>,
    ) -> Result<Upload, ShelfError> {
        let (folder, name) = (key_folder.map(str::to_owned), name.to_owned());
        self.working(move |inner| inner.take_in(folder.as_deref(), &name, format, &bytes)).await
    }

    /// The files of a sound: of one format, or of every.
    ///
    /// # Errors
    /// [`SoundError::Invalid`], [`SoundError::NotFound`].
    pub async fn files(
        &self,
        key_folder: Option<&str>,
        name: &str,
        format: Option<&'static str>,
    ) -> Result<Vec<PathBuf>, ShelfError> {
        let (folder, name) = (key_folder.map(str::to_owned), name.to_owned());
        self.working(move |inner| inner.files(folder.as_deref(), &name, format)).await
    }
}

impl Inner {
    /// Where the sounds of a key, or of everybody, lie.
    fn base(&self, folder: Option<&str>) -> Result<PathBuf, SoundError> {
        match folder {
            None => Ok(self.root.clone()),
            Some(folder) if is_name(folder) && !folder.contains('/') && folder.starts_with(KEY_FOLDER) => {
                Ok(self.root.join(folder))
            }
            Some(_) => Err(SoundError::Invalid),
        }
    }

    fn list(
        &self,
        folder: Option<&str>,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<Listed>, usize), ShelfError> {
        let base = self.base(folder)?;
        let names = names(&base, folder.is_none())?;
        let listed = |name: &String| self.listed(&base, name);
        let page = names.iter().skip(offset).take(limit).filter_map(listed).collect();
        Ok((page, names.len()))
    }

    fn listed(&self, base: &Path, name: &str) -> Option<Listed> {
        let (path, format) = in_folder(base, name)?;
        let about = fs::metadata(&path).ok()?;
        let version = Version { path, changed: about.modified().ok(), bytes: about.len() };
        let known = self.lengths.lock().unwrap_or_else(PoisonError::into_inner).get(&version).copied();
        let duration_ms = match known {
            Some(length) => length,
            None => self.measured(&version, format),
        };
        Some(Listed {
            name: name.to_owned(),
            format,
            bytes: version.bytes,
            duration_ms,
            changed: version.changed,
        })
    }

    /// Decodes a file for its length and remembers it.
    fn measured(&self, version: &Version, format: &'static str) -> Option<u64> {
        let samples = fs::read(&version.path).ok().and_then(|bytes| clip(bytes, format).ok());
        let length = samples.map(|clip| milliseconds(clip.samples().len()));
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        if lengths.len() >= LENGTHS_MAX {
            lengths.clear();
        }
        lengths.insert(version.clone(), length);
        length
    }

    fn take_in(
        &self,
        folder: Option<&str>,
        name: &str,
        format: &'static str,
        bytes: &[u8],
    ) -> Result<Upload, ShelfError> {
        let base = self.base(folder)?;
        // A shared sound in a key's folder would be that key's alone.
        if !is_name(name) || (folder.is_none() && name.starts_with(KEY_FOLDER)) {
            return Err(SoundError::Invalid.into());
        }
        let duration_ms = milliseconds(clip(bytes.to_vec(), format)?.samples().len());
        if duration_ms == 0 {
            return Err(SoundError::Undecodable("it is empty".to_owned()).into());
        }
        let file = base.join(format!("{name}.{format}"));
        let parent = file.parent().unwrap_or(&base);
        fs::create_dir_all(parent)?;
        // Whatever links there are, it must lie under its folder.
        let parent = parent.canonicalize()?;
        if !parent.starts_with(base.canonicalize()?) {
            return Err(SoundError::Invalid.into());
        }
        let replaces = in_folder(&base, name).is_some();
        if !replaces && names(&base, folder.is_none())?.len() >= SOUNDS_MAX {
            return Err(ShelfError::Full);
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        let beside = |extension: &str| parent.join(format!("{last}.{extension}"));
        let others = EXTENSIONS.iter().filter(|other| **other != format).map(|other| beside(other)).collect();
        let waiting = waiting(&parent, bytes)?;
        Ok(Upload { waiting, place: beside(format), others, duration_ms, replaces })
    }

    fn files(
        &self,
        folder: Option<&str>,
        name: &str,
        format: Option<&'static str>,
    ) -> Result<Vec<PathBuf>, ShelfError> {
        let base = self.base(folder)?;
        if !is_name(name) || (folder.is_none() && name.starts_with(KEY_FOLDER)) {
            return Err(SoundError::Invalid.into());
        }
        let wanted = EXTENSIONS.iter().filter(|known| format.is_none_or(|format| format == **known));
        let files: Vec<PathBuf> = wanted
            .map(|extension| base.join(format!("{name}.{extension}")))
            .filter(|path| path.symlink_metadata().is_ok_and(|about| !about.is_dir()))
            .collect();
        if files.is_empty() { Err(SoundError::NotFound.into()) } else { Ok(files) }
    }
}

fn milliseconds(samples: usize) -> u64 {
    u64::try_from(samples / PER_MS).unwrap_or(u64::MAX)
}

/// Writes the bytes beside their place, on the disk when this returns. The name begins with a dot, as no sound's does.
fn waiting(folder: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".upload-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = folder.join(name);
    let mut file = fs::File::options().write(true).create(true).truncate(true).open(&path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // What is half there is of no use; the error is told either way.
        let _ = fs::remove_file(&path);
    }
    written.map(|()| path)
}

/// The names of all sounds under a folder. The shared ones are not those of the keys' folders.
fn names(base: &Path, shared: bool) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut folders = vec![(base.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if shared && depth == 0 && name.starts_with(KEY_FOLDER) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                if depth < DEPTH_MAX && is_name(&name) {
                    folders.push((entry.path(), format!("{prefix}{name}/"), depth + 1));
                }
            } else if let Some((sound, _)) = split_file(&name)
                && is_name(&format!("{prefix}{sound}"))
            {
                names.insert(format!("{prefix}{sound}"));
                if names.len() >= SOUNDS_MAX {
                    return Ok(names);
                }
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trunkline-library-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn left(&self) -> Vec<String> {
            let all = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut all: Vec<String> = all.collect();
            all.sort();
            all
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn put(
        sounds: &Sounds,
        folder: Option<&str>,
        file: &str,
        bytes: usize,
    ) -> Result<Upload, ShelfError> {
        let (name, format) = split_file(file).unwrap();
        sounds.take_in(folder, name, format, vec![0x80; bytes]).await
    }

    #[tokio::test]
    async fn a_sound_comes_in_and_takes_the_place_of_its_other_formats() {
        let scratch = Scratch::new("in");
        let sounds = Sounds::new(scratch.0.clone());
        let upload = put(&sounds, None, "custom/welcome.ulaw", 8000).await.unwrap();
        assert_eq!((upload.duration_ms, upload.replaces), (1000, false));
        assert!(sounds.load(None, "custom/welcome").await.is_err(), "it is not there before it is placed");
        upload.place().unwrap();
        assert_eq!(sounds.load(None, "custom/welcome").await.unwrap().samples().len(), 8000);

        let upload = put(&sounds, None, "custom/welcome.alaw", 16_000).await.unwrap();
        assert!(upload.replaces);
        upload.place().unwrap();
        assert_eq!(sounds.load(None, "custom/welcome").await.unwrap().samples().len(), 16_000);
        let (list, total) = sounds.list(None, 10, 0).await.unwrap();
        assert_eq!((list.len(), total), (1, 1));
        assert_eq!(
            (list[0].name.as_str(), list[0].format, list[0].bytes),
            ("custom/welcome", "alaw", 16_000)
        );
        assert_eq!(list[0].duration_ms, Some(2000));
        let files = sounds.files(None, "custom/welcome", None).await.unwrap();
        assert_eq!(files.len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_sound_leaves_nothing_behind() {
        let scratch = Scratch::new("refused");
        let sounds = Sounds::new(scratch.0.clone());
        let garbage = sounds.take_in(None, "a", "wav", b"no wav at all".to_vec()).await;
        assert!(matches!(garbage, Err(ShelfError::Sound(SoundError::Undecodable(_)))), "{garbage:?}");
        assert!(put(&sounds, None, "empty.ulaw", 0).await.is_err());
        drop(put(&sounds, None, "dropped.ulaw", 80).await.unwrap());
        assert!(scratch.left().is_empty(), "{:?}", scratch.left());
        for (folder, name) in [(None, "../a"), (None, "key_1/a"), (Some(".."), "a"), (Some("shared"), "a")] {
            let refused = sounds.take_in(folder, name, "ulaw", vec![0x80; 80]).await;
            assert!(matches!(refused, Err(ShelfError::Sound(SoundError::Invalid))), "{folder:?} {name}");
        }
        for file in ["a", "a.exe", ".wav", "a.b.wav", "a/.wav", "../a.wav"] {
            assert_eq!(split_file(file), None, "{file}");
        }
    }

    #[tokio::test]
    async fn folders_of_keys_are_their_own() {
        let scratch = Scratch::new("keys");
        let sounds = Sounds::new(scratch.0.clone());
        put(&sounds, Some("key_1"), "mine.ulaw", 80).await.unwrap().place().unwrap();
        put(&sounds, None, "ours.ulaw", 80).await.unwrap().place().unwrap();
        fs::write(scratch.0.join("broken.wav"), b"nothing").unwrap();
        fs::write(scratch.0.join("notes.txt"), b"nothing").unwrap();
        let names = async |folder: Option<&str>| {
            let (list, total) = sounds.list(folder, 10, 0).await.unwrap();
            assert_eq!(list.len(), total);
            list.into_iter().map(|sound| (sound.name, sound.duration_ms)).collect::<Vec<_>>()
        };
        assert_eq!(names(None).await, [("broken".to_owned(), None), ("ours".to_owned(), Some(10))]);
        assert_eq!(names(Some("key_1")).await, [("mine".to_owned(), Some(10))]);
        assert!(names(Some("key_2")).await.is_empty());
        let (page, total) = sounds.list(None, 1, 1).await.unwrap();
        assert_eq!((page[0].name.as_str(), total), ("ours", 2));
        assert!(sounds.files(None, "mine", None).await.is_err());
    }
}

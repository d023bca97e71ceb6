//! `trunkline backup FILE` and `trunkline restore FILE` (CONTRACT 0.8): everything that a server needs to go on, in one
//! tar file: the database's rows, the sounds, and the list of recordings with their sizes and checksums (the files
//! themselves with `--with-recordings`). A backup is made beside a running server, under another name until it is
//! whole, and for nobody else's eyes: it holds what the database holds. A restore reads the whole file and checks every
//! checksum before it changes anything; the database changes in one transaction at the very end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::CliError;
use crate::config::Config;
use crate::model::Timestamp;
use crate::store::backup::{Applied, BackupError, Loader, Saver};

/// The form of the file. One that is changed so that older programs cannot read it gets the next number.
const FORMAT: u32 = 1;

/// The first entry.
const MANIFEST: &str = "manifest.json";

/// The last entry; a file without it is not whole.
const END: &str = "end.json";

/// The list of recordings.
const RECORDINGS: &str = "recordings.jsonl";

/// Largest manifest or list of entries, bytes.
const LIST_MAX: u64 = 256 * 1024 * 1024;

/// How deep folders of sounds may lie.
const DEPTH_MAX: usize = 16;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Save everything into one file.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// The file to make; one that is there is replaced when the new one is whole.
    file: PathBuf,
    /// Put the recordings themselves into it too.
    #[arg(long)]
    with_recordings: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Bring back what was saved. The server must not run.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The file that `trunkline backup` made.
    file: PathBuf,
    /// Replace everything in a database that is in use.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    program: String,
    made_at: String,
    schema: Vec<Applied>,
    tables: Vec<String>,
    with_recordings: bool,
}

/// One entry as the last one lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// What was saved or brought back.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    rows: u64,
    sounds: usize,
    recordings: usize,
    recordings_copied: usize,
    recordings_missing: usize,
}

impl Done {
    fn told(&self, what: &str, file: &Path, json: bool) -> String {
        if json {
            let mut told = serde_json::to_value(self).unwrap_or_default();
            told["file"] = json!(file.display().to_string());
            return told.to_string();
        }
        let Self { rows, sounds, recordings, recordings_copied, recordings_missing } = self;
        let missing = match recordings_missing {
            0 => String::new(),
            missing => format!("\n{missing} of the recordings are not in the recordings folder"),
        };
        format!(
            "{what} {}: {rows} rows, {sounds} sounds, {recordings} recordings ({recordings_copied} with their \
             files){missing}",
            file.display()
        )
    }
}

/// Makes a backup; what to print.
pub(super) async fn backup(args: &BackupArgs, config: &Config, now: Timestamp) -> Result<String, CliError> {
    let mut saver = Saver::open(&config.database.url).await?;
    let partial = beside(&args.file, ".partial");
    let spool = beside(&args.file, ".rows");
    let made = save(args, config, &mut saver, now, &partial, &spool).await;
    // It may not be there any more.
    let _ = std::fs::remove_file(&spool);
    let done = match made {
        Ok(done) => done,
        Err(error) => {
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
    };
    std::fs::rename(&partial, &args.file).map_err(|error| named(&args.file, &error))?;
    if let Some(folder) = args.file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(done.told("saved", &args.file, args.json))
}

async fn save(
    args: &BackupArgs,
    config: &Config,
    saver: &mut Saver,
    now: Timestamp,
    partial: &Path,
    spool: &Path,
) -> Result<Done, CliError> {
    let mut packer = Packer::new(partial, now)?;
    let manifest = Manifest {
        format: FORMAT,
        program: format!("trunkline {}", env!("CARGO_PKG_VERSION")),
        made_at: now.iso_ms(),
        schema: saver.applied().to_vec(),
        tables: saver.tables().to_vec(),
        with_recordings: args.with_recordings,
    };
    packer.text(MANIFEST, &manifest)?;
    let mut done = Done::default();
    let mut recordings = Vec::new();
    for table in saver.tables().to_vec() {
        // A tar entry begins with its size, so the rows are written beside it first.
        let mut rows = private(spool)?;
        let mut out = BufWriter::new(&mut rows);
        done.rows += saver
            .save(&table, &mut out, |row| {
                if table == "recordings" {
                    recordings.extend(recording(row));
                }
            })
            .await?;
        out.flush()?;
        drop(out);
        packer.file(&format!("database/{table}.jsonl"), &mut rows)?;
    }
    for (name, path) in sounds(&config.paths.sounds)? {
        packer.file(&format!("sounds/{name}"), &mut File::open(&path).map_err(|e| named(&path, &e))?)?;
        done.sounds += 1;
    }
    index(args, config, &recordings, spool, &mut packer, &mut done)?;
    packer.finish()?;
    Ok(done)
}

/// One recording of the database: its file, and the checksum that is known of it.
struct Recorded {
    filename: String,
    sha256: Option<String>,
}

fn recording(row: &Map<String, Value>) -> Option<Recorded> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let filename = text("filename")?.to_owned();
    Some(Recorded { filename, sha256: text("sha256").map(str::to_owned) })
}

/// The list of recordings, and their files where they are asked for.
fn index(
    args: &BackupArgs,
    config: &Config,
    recordings: &[Recorded],
    spool: &Path,
    packer: &mut Packer,
    done: &mut Done,
) -> Result<(), CliError> {
    let mut list = private(spool)?;
    let mut out = BufWriter::new(&mut list);
    let mut present = Vec::new();
    for Recorded { filename, sha256 } in recordings {
        let path = config.paths.recordings.join(filename);
        // What is written at this moment is as long as it is now.
        let line = match File::open(&path) {
            Ok(mut file) => {
                let bytes = file.metadata()?.len();
                let sha256 = match sha256 {
                    Some(known) => known.clone(),
                    None => copy(&mut Read::by_ref(&mut file).take(bytes), &mut io::sink())?.1,
                };
                present.push((filename, path));
                json!({"filename": filename, "bytes": bytes, "sha256": sha256})
            }
            Err(_) => {
                done.recordings_missing += 1;
                json!({"filename": filename, "bytes": null, "sha256": sha256})
            }
        };
        writeln!(out, "{line}")?;
        done.recordings += 1;
    }
    out.flush()?;
    drop(out);
    packer.file(RECORDINGS, &mut list)?;
    for (filename, path) in present.into_iter().filter(|_| args.with_recordings) {
        packer
            .file(&format!("recordings/{filename}"), &mut File::open(&path).map_err(|e| named(&path, &e))?)?;
        done.recordings_copied += 1;
    }
    Ok(())
}

/// The file while it is being made.
struct Packer {
    tar: tar::Builder<BufWriter<File>>,
    entries: Vec<Entry>,
    at_s: u64,
}

impl Packer {
    fn new(path: &Path, now: Timestamp) -> Result<Self, CliError> {
        let tar = tar::Builder::new(BufWriter::new(private(path).map_err(|e| named(path, &e))?));
        Ok(Self { tar, entries: Vec::new(), at_s: u64::try_from(now.0 / 1000).unwrap_or(0) })
    }

    fn text(&mut self, name: &str, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_vec(value).map_err(io::Error::from)?;
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.entry(name, bytes, text.as_slice())
    }

    /// A file from its beginning, as long as it is now.
    fn file(&mut self, name: &str, file: &mut File) -> Result<(), CliError> {
        file.seek(SeekFrom::Start(0))?;
        let bytes = file.metadata()?.len();
        self.entry(name, bytes, file.take(bytes))
    }

    fn entry(&mut self, name: &str, bytes: u64, from: impl Read) -> Result<(), CliError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(self.at_s);
        let mut from = Hashed { from, bytes: 0, digest: Sha256::new() };
        self.tar.append_data(&mut header, name, &mut from)?;
        if from.bytes != bytes {
            return Err(io::Error::other(format!("{name} was changed while it was read")).into());
        }
        self.entries.push(Entry { name: name.to_owned(), bytes, sha256: hex(from.digest) });
        Ok(())
    }

    fn finish(mut self) -> Result<(), CliError> {
        let entries = std::mem::take(&mut self.entries);
        self.text(END, &entries)?;
        let mut out = self.tar.into_inner()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(())
    }
}

/// Brings back a backup; what to print.
pub(super) async fn restore(args: &RestoreArgs, config: &Config) -> Result<String, CliError> {
    let manifest = verified(&args.file)?;
    let mut loader = Loader::open(&config.database.url, &manifest.schema, args.force).await?;
    let mut done = Done::default();
    let mut archive = opened(&args.file)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry_name(&entry)?;
        if let Some(table) = name.strip_prefix("database/").and_then(|name| name.strip_suffix(".jsonl")) {
            done.rows += loader.load(table, &mut BufReader::new(entry)).await?;
        } else if let Some(sound) = name.strip_prefix("sounds/") {
            put(&config.paths.sounds, sound, &mut entry, 0o644)?;
            done.sounds += 1;
        } else if name == RECORDINGS {
            for line in BufReader::new(entry).lines() {
                let line: Value = serde_json::from_str(&line?).map_err(|_| damaged(RECORDINGS))?;
                done.recordings += 1;
                let filename = line["filename"].as_str().ok_or_else(|| damaged(RECORDINGS))?;
                let there =
                    relative(filename).is_some_and(|path| config.paths.recordings.join(path).exists());
                done.recordings_missing += usize::from(!there);
            }
        } else if let Some(recording) = name.strip_prefix("recordings/") {
            let new = relative(recording).is_some_and(|path| !config.paths.recordings.join(path).exists());
            if new {
                put(&config.paths.recordings, recording, &mut entry, 0o600)?;
                done.recordings_missing = done.recordings_missing.saturating_sub(1);
            }
            done.recordings_copied += 1;
        }
    }
    loader.finish().await?;
    Ok(done.told("restored", &args.file, args.json))
}

fn opened(path: &Path) -> Result<tar::Archive<BufReader<File>>, CliError> {
    Ok(tar::Archive::new(BufReader::new(File::open(path).map_err(|error| named(path, &error))?)))
}

/// Reads the whole file once: every entry must be there with its checksum, in the order in which it was written.
fn verified(path: &Path) -> Result<Manifest, CliError> {
    let mut archive = opened(path)?;
    let mut manifest = None;
    let mut found = Vec::new();
    for entry in archive.entries().map_err(|_| damaged("no entries"))? {
        let mut entry = entry.map_err(|_| damaged("it is cut off"))?;
        let name = entry_name(&entry)?;
        if name == END {
            let mut text = Vec::new();
            entry.take(LIST_MAX).read_to_end(&mut text).map_err(|_| damaged("it is cut off"))?;
            let listed: Vec<Entry> = serde_json::from_slice(&text).map_err(|_| damaged(END))?;
            if listed != found {
                return Err(damaged("an entry is not as it was written"));
            }
            return manifest.ok_or_else(|| damaged("it has no manifest"));
        }
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(LIST_MAX).read_to_end(&mut text).map_err(|_| damaged("it is cut off"))?;
            let read: Manifest = serde_json::from_slice(&text).map_err(|_| damaged(MANIFEST))?;
            if read.format != FORMAT {
                let newer = format!("its form is {}, and this program reads {FORMAT}", read.format);
                return Err(damaged(&newer));
            }
            let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
            found.push(Entry { name, bytes, sha256: hex(Sha256::new_with_prefix(&text)) });
            manifest = Some(read);
            continue;
        }
        let (bytes, sha256) = copy(&mut entry, &mut io::sink()).map_err(|_| damaged("it is cut off"))?;
        found.push(Entry { name, bytes, sha256 });
    }
    Err(damaged("its end is missing"))
}

fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, CliError> {
    let path = entry.path().map_err(|_| damaged("an entry has no name"))?;
    let name = path.to_str().ok_or_else(|| damaged("an entry's name is no text"))?;
    if entry.header().entry_type() != tar::EntryType::Regular || relative(name).is_none() {
        return Err(damaged("an entry is no plain file"));
    }
    Ok(name.to_owned())
}

/// A path that stays below the folder it is joined to.
fn relative(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    (stays && !name.is_empty() && !name.contains('\0')).then_some(path)
}

/// Writes a file below a folder, whole or not at all.
fn put(folder: &Path, name: &str, from: &mut impl Read, mode: u32) -> Result<(), CliError> {
    let path = folder.join(relative(name).ok_or_else(|| damaged("an entry leads elsewhere"))?);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| named(parent, &error))?;
    }
    let partial = beside(&path, ".partial");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(&partial);
    let mut file = file.map_err(|error| named(&partial, &error))?;
    copy(from, &mut file)?;
    file.sync_all()?;
    std::fs::rename(&partial, &path).map_err(|error| named(&path, &error))?;
    Ok(())
}

/// Every plain file below a folder, by its path there, sorted. Links are left out.
fn sounds(folder: &Path) -> Result<BTreeMap<String, PathBuf>, CliError> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((folder, before, depth)) = waiting.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(named(&folder, &error)),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < DEPTH_MAX {
                waiting.push((entry.path(), format!("{before}{name}/"), depth + 1));
            } else if kind.is_file() {
                found.insert(format!("{before}{name}"), entry.path());
            }
        }
    }
    Ok(found)
}

/// A reader that counts and sums up what it gives.
struct Hashed<R> {
    from: R,
    bytes: u64,
    digest: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        self.digest.update(&buf[..read]);
        self.bytes += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

/// Copies all; how much, and its checksum.
fn copy(from: &mut impl Read, into: &mut impl Write) -> io::Result<(u64, String)> {
    let mut from = Hashed { from, bytes: 0, digest: Sha256::new() };
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            return Ok((from.bytes, hex(from.digest)));
        }
        into.write_all(&chunk[..read])?;
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new file that no other user may read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The path with something behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn named(path: &Path, error: &io::Error) -> CliError {
    io::Error::new(error.kind(), format!("{}: {error}", path.display())).into()
}

fn damaged(what: &str) -> CliError {
    BackupError::Damaged(what.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_their_folder() {
        for good in ["a", "a/b.wav", "custom/welcome.wav"] {
            assert!(relative(good).is_some(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../a", "a/../../b", "./a", "a\0b"] {
            assert!(relative(bad).is_none(), "{bad:?}");
        }
    }
}

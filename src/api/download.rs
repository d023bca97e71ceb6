//! Files on their way out: whole ones, from here or from where they were uploaded to, with single byte ranges and
//! validators (RFC 9110 §13, §14), and snapshots of recordings that are
//! still being written, under a header that is true of the bytes sent. Streams; never reads a file into memory, and
//! never follows a link out of its folder.

use std::io::{self, Cursor, SeekFrom};
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::App;
use super::fault::{self, Fault};
use crate::model::event::Checksum;
use crate::recordings::upload::{Remote, RemoteError};
use crate::store::recordings::{RecordingRow, RecordingState};

/// Bytes read from a file at once.
const CHUNK: usize = 64 * 1024;

/// The digest of the whole, of which a range may be a part (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// What stands before the path of a link: as configured, or as the request reached us.
pub fn link_base(app: &App, headers: &HeaderMap) -> String {
    match app.rooms.config.recordings.link_base.trim_end_matches('/') {
        "" => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            format!("http://{}", host.unwrap_or("localhost"))
        }
        base => base.to_owned(),
    }
}

/// Opens `filename` in `folder`, with its size; `None` where there is no such plain file. The last component is
/// never followed if it is a link, and a name with a slash is no file's.
///
/// # Errors
/// Whatever else the system says.
pub async fn open(folder: &Path, filename: &str) -> io::Result<Option<(File, u64)>> {
    if filename.is_empty() || filename.contains(['/', '\\', '\0']) || filename.contains("..") {
        return Ok(None);
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(filename)).await;
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata().await?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

/// A finished file to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Its name.
    pub filename: &'a str,
    /// Its checksum, where it is known: the validator of conditional requests, and told to the client.
    pub sha256: Option<Checksum>,
}

/// A finished file, or the range of it that is asked for. `None` where it is gone.
///
/// # Errors
/// [`Fault::BadRange`]; a file that cannot be read.
pub async fn whole(
    folder: &Path,
    sent: Finished<'_>,
    headers: &HeaderMap,
) -> Result<Option<Response>, Fault> {
    let opened = open(folder, sent.filename).await;
    let Some((mut file, size)) = opened.map_err(|e| fault::broken("a recording", &e))? else {
        return Ok(None);
    };
    let Some((first, length)) = sent.asked(headers, size)? else {
        return Ok(Some(sent.not_modified()));
    };
    file.seek(SeekFrom::Start(first)).await.map_err(|e| fault::broken("a recording", &e))?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK));
    Ok(Some(sent.response(body, (first, length), size)))
}

/// The same of a file that lies where recordings are uploaded to.
///
/// # Errors
/// [`Fault::BadRange`]; a place that does not answer.
pub async fn uploaded(
    remote: &Remote,
    sent: Finished<'_>,
    headers: &HeaderMap,
) -> Result<Option<Response>, Fault> {
    let broken = |error: RemoteError| fault::broken("an uploaded recording", &error);
    let Some(size) = remote.size(sent.filename).await.map_err(broken)? else { return Ok(None) };
    let Some((first, length)) = sent.asked(headers, size)? else {
        return Ok(Some(sent.not_modified()));
    };
    let found = remote.read(sent.filename, first, length).await.map_err(broken)?;
    Ok(Some(sent.response(Body::from_stream(found.into_stream()), (first, length), size)))
}

/// The bytes of a recording: the file, here or where it was uploaded to; of one that is not whole what there is of
/// it. `None` where there is none.
///
/// # Errors
/// [`Fault::BadRange`]; a file or a place that cannot be read.
pub async fn recorded(app: &App, row: &RecordingRow, headers: &HeaderMap) -> Result<Option<Response>, Fault> {
    let (folder, filename) = (app.rooms.recordings.folder(), row.filename.as_str());
    if row.state != RecordingState::Done {
        return snapshot(folder, filename).await;
    }
    let sent = Finished { filename, sha256: row.sha256 };
    let here = whole(folder, sent, headers).await?;
    match app.rooms.recordings.remote().filter(|_| here.is_none() && row.uploaded) {
        Some(remote) => uploaded(remote, sent, headers).await,
        None => Ok(here),
    }
}

impl Finished<'_> {
    /// `"…"` around the checksum (RFC 9110 §8.8.3).
    fn entity_tag(&self) -> Option<String> {
        self.sha256.map(|sum| format!("\"{}\"", sum.hex()))
    }

    /// What of so many bytes is to be sent, as first byte and length; `None` where the client has them already.
    fn asked(&self, headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Fault> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let tag = self.entity_tag();
        let ours = |given: &str| {
            let mut tags = given.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
            given.trim() == "*" || tags.any(|given| Some(given) == tag.as_deref())
        };
        if tag.is_some() && text(header::IF_NONE_MATCH).is_some_and(ours) {
            return Ok(None);
        }
        // A range of what is no longer the same would be worth nothing: then the whole is sent (RFC 9110 §13.1.5).
        let same = match headers.get(header::IF_RANGE) {
            None => true,
            Some(given) => given.to_str().is_ok_and(|given| Some(given.trim()) == tag.as_deref()),
        };
        match range(text(header::RANGE).filter(|_| same), size) {
            Asked::Whole => Ok(Some((0, size))),
            Asked::Part { first, length } => Ok(Some((first, length))),
            Asked::Outside => Err(Fault::BadRange(size)),
        }
    }

    fn response(&self, body: Body, (first, length): (u64, u64), size: u64) -> Response {
        let mut response = wav(self.filename, length, body);
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        self.describe(headers);
        if length < size {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let part = format!("bytes {first}-{}/{size}", first + length - 1);
            if let Ok(part) = HeaderValue::from_str(&part) {
                response.headers_mut().insert(header::CONTENT_RANGE, part);
            }
        }
        response
    }

    fn not_modified(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.describe(response.headers_mut());
        response
    }

    /// The checksum as entity tag and as digest of the whole (RFC 9530 §3).
    fn describe(&self, headers: &mut HeaderMap) {
        let (Some(tag), Some(Checksum(sum))) = (self.entity_tag(), self.sha256) else { return };
        let digest = format!("sha-256=:{}:", STANDARD.encode(sum));
        for (name, value) in [(header::ETAG, tag), (REPR_DIGEST, digest)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// What there is of a recording that is still being written, as a WAV of its own. `None` where it is gone.
///
/// # Errors
/// A file that cannot be read.
pub async fn snapshot(folder: &Path, filename: &str) -> Result<Option<Response>, Fault> {
    let opened = open(folder, filename).await;
    let Some((mut file, size)) = opened.map_err(|e| fault::broken("a recording", &e))? else {
        return Ok(None);
    };
    let offset = media::wav::HEADER;
    let mut found = [0; media::wav::HEADER as usize];
    // A file without a whole header, or with another program's, has no sound of ours.
    let header = file.read_exact(&mut found).await.ok().and_then(|_| media::wav::channels_of(&found));
    let channels = header.unwrap_or_default();
    let data = size.saturating_sub(offset).min(media::wav::DATA_MAX);
    let data = if header.is_some() { data - data % media::wav::block(channels) } else { 0 };
    file.seek(SeekFrom::Start(offset)).await.map_err(|e| fault::broken("a recording", &e))?;
    let bytes = Cursor::new(media::wav::header(channels, data)).chain(file.take(data));
    let body = Body::from_stream(ReaderStream::with_capacity(bytes, CHUNK));
    Ok(Some(wav(filename, offset + data, body)))
}

fn wav(filename: &str, length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("audio/wav"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(attachment) = HeaderValue::from_str(&format!("attachment; filename=\"{filename}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, attachment);
    }
    response
}

/// What a `Range` header asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part { first: u64, length: u64 },
    Outside,
}

/// Reads a `Range` header. One that is absent, malformed, of another unit or of several parts asks for the whole,
/// as RFC 9110 §14.2 permits.
fn range(header: Option<&str>, size: u64) -> Asked {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let spec = header.and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Asked::Whole };
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => return Asked::Whole,
            Some(0) => return Asked::Outside,
            Some(suffix) => (size.saturating_sub(suffix), u64::MAX),
        },
        (first, "") => match number(first) {
            None => return Asked::Whole,
            Some(first) => (first, u64::MAX),
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => return Asked::Whole,
        },
    };
    if first >= size {
        return Asked::Outside;
    }
    Asked::Part { first, length: last.min(size - 1) - first + 1 }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http_body_util::BodyExt;
    use media::Channels;

    use super::*;

    #[test]
    fn ranges_are_read() {
        for (header, asked) in [
            (None, Asked::Whole),
            (Some("bytes=0-9"), Asked::Part { first: 0, length: 10 }),
            (Some("bytes=90-"), Asked::Part { first: 90, length: 10 }),
            (Some("bytes=90-1000"), Asked::Part { first: 90, length: 10 }),
            (Some("bytes=-10"), Asked::Part { first: 90, length: 10 }),
            (Some("bytes=-1000"), Asked::Part { first: 0, length: 100 }),
            (Some("bytes=99-99"), Asked::Part { first: 99, length: 1 }),
            (Some("bytes=100-"), Asked::Outside),
            (Some("bytes=-0"), Asked::Outside),
            (Some("bytes=99999999999999999999-"), Asked::Outside),
            (Some("bytes=9-0"), Asked::Whole),
            (Some("bytes=0-1,5-6"), Asked::Whole),
            (Some("bytes=-"), Asked::Whole),
            (Some("bytes=+1-2"), Asked::Whole),
            (Some("lines=0-9"), Asked::Whole),
            (Some("nonsense"), Asked::Whole),
        ] {
            assert_eq!(range(header, 100), asked, "{header:?}");
        }
        assert_eq!(range(Some("bytes=0-"), 0), Asked::Outside);
    }

    const A: Finished<'_> = Finished { filename: "a.wav", sha256: None };

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trunkline-download-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            std::fs::write(self.0.join(name), bytes).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn bytes(response: Response) -> Vec<u8> {
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn only_plain_files_of_the_folder_are_opened() {
        let folder = Folder::new("open");
        folder.write("a.wav", b"abc");
        std::fs::create_dir_all(folder.0.join("dir.wav")).unwrap();
        std::os::unix::fs::symlink(folder.0.join("a.wav"), folder.0.join("link.wav")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.0.join("etc")).unwrap();
        assert_eq!(open(&folder.0, "a.wav").await.unwrap().map(|(_, size)| size), Some(3));
        for name in
            ["link.wav", "dir.wav", "none.wav", "../a.wav", "etc/passwd", "/etc/passwd", "a.wav\0", "", "etc"]
        {
            assert!(open(&folder.0, name).await.unwrap().is_none(), "{name:?}");
        }
    }

    #[tokio::test]
    async fn whole_files_come_whole_or_by_range() {
        let folder = Folder::new("whole");
        folder.write("a.wav", b"0123456789");
        let all = whole(&folder.0, A, &HeaderMap::new()).await.unwrap().unwrap();
        assert_eq!(all.status(), StatusCode::OK);
        assert_eq!(all.headers()[header::CONTENT_TYPE], "audio/wav");
        assert_eq!(all.headers()[header::CONTENT_LENGTH], "10");
        assert_eq!(all.headers()[header::ACCEPT_RANGES], "bytes");
        assert_eq!(all.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"a.wav\"");
        assert_eq!(bytes(all).await, b"0123456789");

        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=2-4"));
        let part = whole(&folder.0, A, &headers).await.unwrap().unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(bytes(part).await, b"234");

        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"x\""));
        let all = whole(&folder.0, A, &headers).await.unwrap().unwrap();
        assert_eq!(all.status(), StatusCode::OK);

        headers.remove(header::IF_RANGE);
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=10-"));
        let outside = whole(&folder.0, A, &headers).await;
        assert_eq!(outside.err(), Some(Fault::BadRange(10)));
        assert!(whole(&folder.0, Finished { filename: "gone.wav", ..A }, &headers).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_checksum_is_told_and_asked_for() {
        let folder = Folder::new("checksum");
        folder.write("a.wav", b"0123456789");
        let sent = Finished { sha256: Some(Checksum([0xab; 32])), ..A };
        let tag = format!("\"{}\"", "ab".repeat(32));
        let all = whole(&folder.0, sent, &HeaderMap::new()).await.unwrap().unwrap();
        assert_eq!(all.headers()[header::ETAG], tag);
        assert_eq!(all.headers()["repr-digest"], "sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:");

        let ask = async |headers: &[(HeaderName, &str)]| {
            let headers = headers.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap()));
            whole(&folder.0, sent, &headers.collect()).await.unwrap().unwrap()
        };
        for known in [tag.clone(), "*".into(), format!("\"x\", W/{tag}")] {
            let same = ask(&[(header::IF_NONE_MATCH, &known)]).await;
            assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(same.headers()[header::ETAG], tag);
            assert!(bytes(same).await.is_empty());
        }
        assert_eq!(ask(&[(header::IF_NONE_MATCH, "\"x\"")]).await.status(), StatusCode::OK);
        let part = [(header::RANGE, "bytes=2-4"), (header::IF_RANGE, &tag)];
        assert_eq!(ask(&part).await.status(), StatusCode::PARTIAL_CONTENT);
        let other = [(header::RANGE, "bytes=2-4"), (header::IF_RANGE, "\"x\"")];
        assert_eq!(ask(&other).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_snapshot_of_two_channels_has_whole_samples() {
        let folder = Folder::new("stereo");
        let mut growing = media::wav::header(Channels::Stereo, 0).to_vec();
        growing.extend([1, 2, 3, 4, 5, 6, 7]);
        folder.write("a.wav", &growing);
        let sent = bytes(snapshot(&folder.0, "a.wav").await.unwrap().unwrap()).await;
        assert_eq!(sent[..44], media::wav::header(Channels::Stereo, 4));
        assert_eq!(sent[44..], [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_snapshot_has_a_header_that_is_true() {
        let folder = Folder::new("snapshot");
        let mut growing = media::wav::header(Channels::Mono, 0).to_vec();
        growing.extend([1, 2, 3, 4, 5]);
        folder.write("a.wav", &growing);
        let response = snapshot(&folder.0, "a.wav").await.unwrap().unwrap();
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "48");
        assert!(!response.headers().contains_key(header::ACCEPT_RANGES));
        let sent = bytes(response).await;
        assert_eq!(sent[..44], media::wav::header(Channels::Mono, 4));
        assert_eq!(sent[44..], [1, 2, 3, 4]);
        // A file that has no whole header yet holds no samples.
        folder.write("b.wav", b"RIFF");
        let sent = bytes(snapshot(&folder.0, "b.wav").await.unwrap().unwrap()).await;
        assert_eq!(sent, media::wav::header(Channels::Mono, 0));
    }
}

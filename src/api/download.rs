//! Files on their way out: whole ones, with single byte ranges (RFC 9110 §14), and snapshots of recordings that are
//! still being written, under a header that is true of the bytes sent. Streams; never reads a file into memory, and
//! never follows a link out of its folder.

use std::io::{self, Cursor, SeekFrom};
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::fault::{self, Fault};

/// Bytes read from a file at once.
const CHUNK: usize = 64 * 1024;

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

/// A finished file, or the range of it that is asked for. `None` where it is gone.
///
/// # Errors
/// [`Fault::BadRange`]; a file that cannot be read.
pub async fn whole(folder: &Path, filename: &str, headers: &HeaderMap) -> Result<Option<Response>, Fault> {
    let Some((mut file, size)) =
        open(folder, filename).await.map_err(|e| fault::broken("a recording", &e))?
    else {
        return Ok(None);
    };
    // There are no validators that a conditional range could name, so such a request gets the whole.
    let asked = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE));
    let asked = asked.and_then(|value| value.to_str().ok());
    let (first, length) = match range(asked, size) {
        Asked::Whole => (0, size),
        Asked::Part { first, length } => (first, length),
        Asked::Outside => return Err(Fault::BadRange(size)),
    };
    file.seek(SeekFrom::Start(first)).await.map_err(|e| fault::broken("a recording", &e))?;
    let mut response = wav(filename, length, file.take(length));
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if length < size {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = format!("bytes {first}-{}/{size}", first + length - 1);
        if let Ok(part) = HeaderValue::from_str(&part) {
            response.headers_mut().insert(header::CONTENT_RANGE, part);
        }
    }
    Ok(Some(response))
}

/// What there is of a recording that is still being written, as a WAV of its own. `None` where it is gone.
///
/// # Errors
/// A file that cannot be read.
pub async fn snapshot(folder: &Path, filename: &str) -> Result<Option<Response>, Fault> {
    let Some((mut file, size)) =
        open(folder, filename).await.map_err(|e| fault::broken("a recording", &e))?
    else {
        return Ok(None);
    };
    let offset = media::wav::HEADER;
    let data = size.saturating_sub(offset).min(media::wav::DATA_MAX) & !1;
    file.seek(SeekFrom::Start(offset)).await.map_err(|e| fault::broken("a recording", &e))?;
    let bytes = Cursor::new(media::wav::header(data)).chain(file.take(data));
    Ok(Some(wav(filename, offset + data, bytes)))
}

fn wav(filename: &str, length: u64, bytes: impl AsyncRead + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(bytes, CHUNK)));
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
        let all = whole(&folder.0, "a.wav", &HeaderMap::new()).await.unwrap().unwrap();
        assert_eq!(all.status(), StatusCode::OK);
        assert_eq!(all.headers()[header::CONTENT_TYPE], "audio/wav");
        assert_eq!(all.headers()[header::CONTENT_LENGTH], "10");
        assert_eq!(all.headers()[header::ACCEPT_RANGES], "bytes");
        assert_eq!(all.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"a.wav\"");
        assert_eq!(bytes(all).await, b"0123456789");

        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=2-4"));
        let part = whole(&folder.0, "a.wav", &headers).await.unwrap().unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(bytes(part).await, b"234");

        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"x\""));
        let all = whole(&folder.0, "a.wav", &headers).await.unwrap().unwrap();
        assert_eq!(all.status(), StatusCode::OK);

        headers.remove(header::IF_RANGE);
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=10-"));
        let outside = whole(&folder.0, "a.wav", &headers).await;
        assert_eq!(outside.err(), Some(Fault::BadRange(10)));
        assert!(whole(&folder.0, "gone.wav", &headers).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_snapshot_has_a_header_that_is_true() {
        let folder = Folder::new("snapshot");
        let mut growing = media::wav::header(0).to_vec();
        growing.extend([1, 2, 3, 4, 5]);
        folder.write("a.wav", &growing);
        let response = snapshot(&folder.0, "a.wav").await.unwrap().unwrap();
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "48");
        assert!(!response.headers().contains_key(header::ACCEPT_RANGES));
        let sent = bytes(response).await;
        assert_eq!(sent[..44], media::wav::header(4));
        assert_eq!(sent[44..], [1, 2, 3, 4]);
        // A file that has no whole header yet holds no samples.
        folder.write("b.wav", b"RIFF");
        let sent = bytes(snapshot(&folder.0, "b.wav").await.unwrap().unwrap()).await;
        assert_eq!(sent, media::wav::header(0));
    }
}

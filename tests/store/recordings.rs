//! What becomes of finished recordings: their time, their second place, their links.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use sha2::{Digest, Sha256};
use trunkline::config::Config;
use trunkline::model::account::ApiKey;
use trunkline::model::call::CallOrder;
use trunkline::model::event::{Checksum, RecordingSize};
use trunkline::model::{Secret, Timestamp};
use trunkline::recordings::Recordings;
use trunkline::store::Db;
use trunkline::store::recordings::{RecordingEnd, RecordingState, UploadResult};

use crate::{Scratch, T0, key, order, place};

const DAY_MS: i64 = 86_400_000;

fn days(n: i64) -> Timestamp {
    T0.plus_ms(n * DAY_MS)
}

/// A database, a folder of recordings, and calls that left some.
struct Kept {
    scratch: Scratch,
    db: Db,
    config: Config,
}

impl Kept {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let db = scratch.db().await;
        let mut config = Config::default();
        config.paths.recordings = scratch.path().join("recordings");
        std::fs::create_dir_all(&config.paths.recordings).unwrap();
        Self { scratch, db, config }
    }

    async fn open(&self) -> Recordings {
        Recordings::open(&self.config, self.db.clone()).await.unwrap()
    }

    fn file(&self, recording: &str) -> PathBuf {
        self.config.paths.recordings.join(format!("{recording}.wav"))
    }

    async fn call(&self, key: i64, id: u128) -> CallOrder {
        let order = order(key, id, None);
        assert!(place(&self.db, &order).await);
        order
    }

    /// A recording of this state, begun then and a second long, with its file.
    async fn recording(&self, order: &CallOrder, name: &str, state: RecordingState, at: Timestamp) {
        let bytes = vec![7; 16_044];
        std::fs::write(self.file(name), &bytes).unwrap();
        let size = RecordingSize { bytes: 16_044, duration_ms: 1000 };
        let over = matches!(state, RecordingState::Done | RecordingState::Failed);
        let sha256 = (state == RecordingState::Done).then(|| Checksum(Sha256::digest(&bytes).into()));
        let end = RecordingEnd { size: over.then_some(&size), sha256, reason: None };
        let mut tx = self.db.begin().await.unwrap();
        tx.upsert_recording(order, name, RecordingState::Active, &RecordingEnd::default(), at).await.unwrap();
        tx.upsert_recording(order, name, state, &end, at.plus_ms(1000)).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn listed(&self, key: i64) -> Vec<String> {
        let rows = self.db.recordings(key, 1000, 0).await.unwrap();
        rows.into_iter().map(|row| row.recording).collect()
    }
}

#[tokio::test]
async fn recordings_go_when_their_time_is_over_and_their_rows_stay() {
    let mut kept = Kept::new().await;
    let owner = key(&kept.db, None).await.id;
    let call = kept.call(owner, 1).await;
    for (name, state, begun) in [
        ("old", RecordingState::Done, days(0)),
        ("broken", RecordingState::Failed, days(0)),
        ("running", RecordingState::Active, days(0)),
        ("closing", RecordingState::Finalising, days(0)),
        ("young", RecordingState::Done, days(3)),
    ] {
        kept.recording(&call, name, state, begun).await;
    }
    kept.config.recordings.retention_days = 0;
    assert_eq!(kept.open().await.sweep(days(1000)).await.unwrap(), 0, "kept for ever");
    kept.config.recordings.retention_days = 3;
    let recordings = kept.open().await;
    assert_eq!(recordings.sweep(days(3)).await.unwrap(), 0, "its time counts from its end");
    assert_eq!(recordings.sweep(days(3).plus_ms(1000)).await.unwrap(), 2);
    assert_eq!(recordings.sweep(days(4)).await.unwrap(), 0, "once");
    assert!(!kept.file("old").exists() && !kept.file("broken").exists());
    assert!(kept.file("running").exists() && kept.file("closing").exists() && kept.file("young").exists());
    assert_eq!(kept.listed(owner).await, ["young", "running", "closing"]);
    assert!(kept.db.recording_by_filename(owner, "old.wav").await.unwrap().is_none());
    assert!(kept.db.recording_of_valid_key("old", days(4)).await.unwrap().is_none());
    assert_eq!(kept.db.open_recordings().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_has_its_own_time_and_what_cannot_be_removed_is_tried_again() {
    let mut kept = Kept::new().await;
    kept.config.recordings.retention_days = 10;
    let mut calls = Vec::new();
    for (id, days) in [(1, None), (2, Some(2)), (3, Some(0))] {
        let key = key(&kept.db, None).await;
        let keep = |key: &mut ApiKey| key.keep_days = days;
        let changed = kept.db.change_key(&key.key_id, T0, keep, None).await.unwrap();
        assert_eq!(changed.keep_days, days);
        calls.push(kept.call(key.id, id).await);
        kept.recording(&calls[id as usize - 1], &format!("of-{id}"), RecordingState::Done, days_ago()).await;
    }
    let recordings = kept.open().await;
    assert_eq!(recordings.sweep(days(5)).await.unwrap(), 1);
    assert!(kept.file("of-1").exists() && !kept.file("of-2").exists() && kept.file("of-3").exists());
    // A folder in the place of the file cannot be removed as one.
    std::fs::remove_file(kept.file("of-1")).unwrap();
    std::fs::create_dir(kept.file("of-1")).unwrap();
    assert_eq!(recordings.sweep(days(50)).await.unwrap(), 0);
    assert_eq!(kept.listed(calls[0].key).await, ["of-1"]);
    std::fs::remove_dir(kept.file("of-1")).unwrap();
    assert_eq!(recordings.sweep(days(50)).await.unwrap(), 1, "gone is as good as removed");
    assert_eq!(recordings.sweep(days(36_000)).await.unwrap(), 0, "for ever");
}

fn days_ago() -> Timestamp {
    days(0)
}

#[tokio::test]
async fn more_than_one_portion_is_swept_in_one_go() {
    let mut kept = Kept::new().await;
    kept.config.recordings.retention_days = 1;
    let call = kept.call(key(&kept.db, None).await.id, 1).await;
    for n in 0..230 {
        kept.recording(&call, &format!("call-{n:03}"), RecordingState::Done, T0.plus_ms(n / 7)).await;
    }
    assert_eq!(kept.open().await.sweep(days(2)).await.unwrap(), 230);
    assert!(kept.listed(call.key).await.is_empty());
    assert_eq!(std::fs::read_dir(&kept.config.paths.recordings).unwrap().count(), 0);
}

#[tokio::test]
async fn links_are_the_same_for_all_who_share_the_database_and_die_with_their_key() {
    let kept = Kept::new().await;
    let owner = key(&kept.db, None).await;
    let call = kept.call(owner.id, 1).await;
    kept.recording(&call, "call-1", RecordingState::Done, T0).await;
    let (one, other) = (kept.open().await, kept.open().await);
    let link = one.links().sign("call-1", T0, 3600);
    assert!(other.links().is_good("call-1", &link, T0));
    let elsewhere = Kept::new().await;
    assert!(!elsewhere.open().await.links().is_good("call-1", &link, T0));
    let found = kept.db.recording_of_valid_key("call-1", T0).await.unwrap().unwrap();
    assert_eq!((found.recording.as_str(), found.key), ("call-1", owner.id));
    kept.db.revoke_key(&owner.key_id, T0).await.unwrap();
    assert!(kept.db.recording_of_valid_key("call-1", T0).await.unwrap().is_none());
    let made = |name: &'static str, text: &'static str| {
        let db = kept.db.clone();
        async move { db.server_secret(name, &Secret(text.into())).await.unwrap().0 }
    };
    assert_eq!((made("a", "first").await, made("a", "second").await), ("first".into(), "first".into()));
}

#[tokio::test]
async fn a_folder_takes_uploads_once_and_gives_them_back() {
    let mut kept = Kept::new().await;
    let there = kept.scratch.path().join("there");
    kept.config.recordings.upload.url = format!("file://{}", there.display());
    kept.config.recordings.upload.delete_local = true;
    kept.config.recordings.retention_days = 1;
    let owner = key(&kept.db, None).await.id;
    let call = kept.call(owner, 1).await;
    kept.recording(&call, "one", RecordingState::Done, T0).await;
    kept.recording(&call, "two", RecordingState::Done, T0.plus_ms(1)).await;
    kept.recording(&call, "broken", RecordingState::Failed, T0).await;
    kept.recording(&call, "running", RecordingState::Active, T0.plus_ms(DAY_MS)).await;
    std::fs::remove_file(kept.file("two")).unwrap();
    let recordings = kept.open().await;
    assert_eq!(recordings.upload_due(|| T0).await.unwrap(), 2);
    assert_eq!(recordings.upload_due(|| days(1)).await.unwrap(), 0, "once; what is gone is hopeless");
    assert_eq!(std::fs::read(there.join("one.wav")).unwrap(), vec![7; 16_044]);
    assert!(!kept.file("one").exists() && kept.file("broken").exists() && kept.file("running").exists());
    let uploaded = |name: &'static str| {
        let db = kept.db.clone();
        async move { db.recording_by_filename(owner, name).await.unwrap().unwrap().uploaded }
    };
    assert!(uploaded("one.wav").await && !uploaded("two.wav").await && !uploaded("broken.wav").await);
    let remote = recordings.remote().unwrap();
    assert_eq!(remote.size("one.wav").await.unwrap(), Some(16_044));
    assert_eq!(remote.size("two.wav").await.unwrap(), None);
    assert_eq!(remote.read("one.wav", 10, 5).await.unwrap().bytes().await.unwrap(), vec![7; 5]);
    assert_eq!(recordings.sweep(days(1).plus_ms(1000)).await.unwrap(), 2);
    assert!(!there.join("one.wav").exists(), "its time is over there as well");
}

#[tokio::test]
async fn an_upload_that_fails_is_tried_again_later_by_one_process_at_a_time() {
    let mut kept = Kept::new().await;
    let there = kept.scratch.path().join("there");
    kept.config.recordings.upload.url = format!("file://{}", there.display());
    let call = kept.call(key(&kept.db, None).await.id, 1).await;
    kept.recording(&call, "one", RecordingState::Done, T0).await;
    let (first, second) = (kept.open().await, kept.open().await);
    // What lies where the file should go.
    std::fs::create_dir_all(there.join("one.wav/x")).unwrap();
    assert_eq!(first.upload_due(|| T0).await.unwrap(), 1);
    assert!(first.uploads_fail() && !second.uploads_fail());
    assert_eq!(second.upload_due(|| T0.plus_ms(4_999)).await.unwrap(), 0);
    assert_eq!(second.upload_due(|| T0.plus_ms(5_000)).await.unwrap(), 1);
    assert_eq!(second.upload_due(|| T0.plus_ms(14_999)).await.unwrap(), 0, "twice as long");
    std::fs::remove_dir_all(there.join("one.wav")).unwrap();
    // A process took it and died.
    let lease = T0.plus_ms(60_000);
    assert!(kept.db.claim_upload(T0.plus_ms(15_000), lease).await.unwrap().is_some());
    assert!(kept.db.claim_upload(T0.plus_ms(15_000), lease).await.unwrap().is_none());
    let again = kept.open().await;
    assert_eq!(again.upload_due(|| T0.plus_ms(59_999)).await.unwrap(), 0);
    assert_eq!(again.upload_due(|| lease).await.unwrap(), 1, "and another takes it over after a restart");
    assert!(!again.uploads_fail() && there.join("one.wav").is_file() && kept.file("one").exists());
    kept.db.settle_upload("one", UploadResult::Again(T0)).await.unwrap();
    assert_eq!(again.upload_due(|| lease).await.unwrap(), 1, "the same bytes again do no harm");
}

/// What a server of the S3 kind has been given. Every request must be signed (AWS Signature Version 4) for the bytes
/// that came with it.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<u32, Vec<u8>>,
    requests: Vec<String>,
    refuse: u32,
}

type Shared = Arc<Mutex<Bucket>>;

fn answer(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).header("etag", "\"tag\"").body(body.into()).unwrap()
}

fn signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let digest = Checksum(Sha256::digest(body).into()).hex();
    let claims =
        ["AWS4-HMAC-SHA256 Credential=the-access-key/", "/eu-test/s3/aws4_request", "SignedHeaders="];
    let proof = text("authorization").split("Signature=").nth(1).unwrap_or_default();
    claims.iter().all(|claim| text("authorization").contains(claim))
        && proof.len() == 64
        && !text("x-amz-date").is_empty()
        && text("x-amz-content-sha256") == digest
}

async fn serve(
    State(bucket): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut bucket = bucket.lock().unwrap();
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    bucket.requests.push(format!("{method} {path}?{query}"));
    if !signed(&headers, &body) {
        return answer(StatusCode::FORBIDDEN, "<Error><Code>SignatureDoesNotMatch</Code></Error>");
    }
    if bucket.refuse > 0 {
        bucket.refuse -= 1;
        return answer(StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>");
    }
    let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).map(|n| n.parse().unwrap());
    match (method, part) {
        (Method::PUT, Some(part)) => {
            bucket.parts.insert(part, body.to_vec());
            answer(StatusCode::OK, "")
        }
        (Method::PUT, None) => {
            bucket.objects.insert(path, body.to_vec());
            answer(StatusCode::OK, "")
        }
        (Method::POST, _) if query.starts_with("uploads") => answer(
            StatusCode::OK,
            "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
        ),
        (Method::POST, _) => {
            let whole = std::mem::take(&mut bucket.parts).into_values().flatten().collect();
            bucket.objects.insert(path, whole);
            let done = "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>";
            answer(StatusCode::OK, done)
        }
        (Method::DELETE, _) => {
            bucket.objects.remove(&path);
            answer(StatusCode::NO_CONTENT, "")
        }
        _ => match bucket.objects.get(&path) {
            None => answer(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>"),
            Some(bytes) => object(bytes, &headers),
        },
    }
}

/// An object, or the range of it that is asked for.
fn object(bytes: &[u8], headers: &HeaderMap) -> Response<Body> {
    let range = headers.get("range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let mut response = match range.and_then(|range| range.split_once('-')) {
        None => answer(StatusCode::OK, bytes.to_vec()),
        Some((first, last)) => {
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let mut part = answer(StatusCode::PARTIAL_CONTENT, bytes[first..=last].to_vec());
            let told = format!("bytes {first}-{last}/{}", bytes.len());
            part.headers_mut().insert("content-range", told.parse().unwrap());
            part
        }
    };
    let modified = "Tue, 17 Feb 2026 11:22:00 GMT".parse().unwrap();
    response.headers_mut().insert("last-modified", modified);
    response
}

#[tokio::test]
async fn a_bucket_takes_small_and_large_recordings_and_gives_them_back() {
    let bucket = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let limit = axum::extract::DefaultBodyLimit::disable();
    let service = Router::new().fallback(serve).layer(limit).with_state(Arc::clone(&bucket));
    let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });

    let mut kept = Kept::new().await;
    kept.config.recordings.retention_days = 1;
    let upload = &mut kept.config.recordings.upload;
    upload.url = "s3://my-bucket/calls/2026".into();
    (upload.endpoint, upload.region) = (endpoint, "eu-test".into());
    (upload.access_key, upload.secret_key) = (Secret("the-access-key".into()), Secret("the-secret".into()));
    let call = kept.call(key(&kept.db, None).await.id, 1).await;
    kept.recording(&call, "small", RecordingState::Done, T0).await;
    kept.recording(&call, "large", RecordingState::Done, T0.plus_ms(1)).await;
    let large: Vec<u8> = (0..20_000_001_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(kept.file("large"), &large).unwrap();

    let recordings = kept.open().await;
    bucket.lock().unwrap().refuse = 2;
    assert_eq!(recordings.upload_due(|| T0).await.unwrap(), 2);
    assert!(recordings.uploads_fail() && bucket.lock().unwrap().objects.is_empty());
    assert_eq!(recordings.upload_due(|| T0.plus_ms(5_000)).await.unwrap(), 2);
    assert!(!recordings.uploads_fail(), "{:?}", bucket.lock().unwrap().requests);
    {
        let bucket = bucket.lock().unwrap();
        assert_eq!(bucket.objects["/my-bucket/calls/2026/small.wav"], vec![7; 16_044]);
        assert!(bucket.objects["/my-bucket/calls/2026/large.wav"] == large, "three parts, in order");
        let parts = bucket.requests.iter().filter(|request| request.contains("partNumber=")).count();
        assert_eq!(parts, 3, "{:?}", bucket.requests);
    }
    let remote = recordings.remote().unwrap();
    assert_eq!(remote.size("large.wav").await.unwrap(), Some(20_000_001));
    let part = remote.read("large.wav", 9_000_000, 100).await.unwrap().bytes().await.unwrap();
    assert_eq!(part, large[9_000_000..9_000_100]);
    assert_eq!(remote.size("none.wav").await.unwrap(), None);
    assert_eq!(recordings.sweep(days(2)).await.unwrap(), 2);
    assert!(bucket.lock().unwrap().objects.is_empty(), "{:?}", bucket.lock().unwrap().requests);
    server.abort();
}

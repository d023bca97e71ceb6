//! `/admin/v1/sounds`: the sounds that `/play` finds, a key's own (`?key=key_…`) and the shared ones. An upload is the
//! file itself as the request's body, at most 10 MiB, under `name.ext` with an extension of wav, mp3, ogg, flac, ulaw
//! or alaw; it is decoded before it is kept. Calls that play a sound while it is replaced play it to its end.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::json as object;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, by, part, route, stored};
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::control::Caller;
use crate::model::{Timestamp, forms};
use crate::speech::{Listed, ShelfError, SoundError, split_file};

/// Largest upload.
pub const BYTES_MAX: usize = 10 * 1024 * 1024;

/// The fault of a path that names no sound.
const MISSING: &str = "Sound not found";

/// The routes of sounds.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list), route(__path_keep, keep), route(__path_remove, remove)]
}

/// A sound.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminSound)]
struct SoundBody {
    /// Its name.
    name: String,
    /// The file's format.
    format: &'static str,
    /// Bytes of the file.
    bytes: u64,
    /// How long it plays.
    duration_ms: Option<u64>,
    /// The key's public name.
    key_id: Option<String>,
    /// When it was last changed.
    #[schema(format = DateTime)]
    changed_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AdminSounds)]
struct SoundList {
    /// The rows of the page.
    sounds: Vec<SoundBody>,
    /// Rows of all pages.
    total: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AdminSoundRemoved)]
struct Removed {
    /// How many files are gone.
    removed: usize,
}

fn refused(error: ShelfError) -> Fault {
    match error {
        ShelfError::Sound(SoundError::NotFound) => Fault::Missing(MISSING),
        ShelfError::Sound(SoundError::Invalid) => Fault::Bad("Invalid file".into()),
        ShelfError::Sound(error) => Fault::Bad(error.to_string()),
        error @ ShelfError::Full => Fault::Conflict(error.to_string()),
        error @ ShelfError::Folder(_) => fault::broken("the folder of sounds", &error),
    }
}

/// The key whose folder is meant; nothing for the shared ones. Only keys whose folder is nobody else's have one.
async fn folder(app: &App, query: &Query) -> Result<Option<String>, Fault> {
    let Some(key_id) = query.text("key") else { return Ok(None) };
    let missing = || Fault::Missing("Key not found");
    let key = app.rooms.db.key_of_id(key_id).await.map_err(stored)?.ok_or_else(missing)?;
    Ok(Some(key.key_id))
}

/// `GET /sounds?key=&limit=&offset=`, by name.
#[utoipa::path(
    get, path = "/sounds", tag = "Admin: sounds", operation_id = "adminListSounds",
    summary = "The sounds that can be played",
    params(
        ("key" = Option<String>, Query, description = "The key whose own sounds are meant; the shared ones unless said"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = SoundList),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let folder = folder(&app, &query).await?;
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let found = app.rooms.sounds.list(folder.as_deref(), count(limit), count(offset)).await;
    let (sounds, total) = found.map_err(refused)?;
    let sounds = sounds.into_iter().map(|sound| shown(sound, folder.as_ref())).collect();
    Ok(json(StatusCode::OK, &SoundList { sounds, total }))
}

fn shown(sound: Listed, folder: Option<&String>) -> SoundBody {
    let since = sound.changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let at = since.and_then(|since| i64::try_from(since.as_millis()).ok()).map(Timestamp);
    SoundBody {
        name: sound.name,
        format: sound.format,
        bytes: sound.bytes,
        duration_ms: sound.duration_ms,
        key_id: folder.cloned(),
        changed_at: at.map(Timestamp::iso_ms),
    }
}

/// `PUT /sounds/:name.:ext?key=`: 201 for a new sound, 200 for one that was replaced, whatever its format was.
#[utoipa::path(
    put, path = "/sounds/{*file}", tag = "Admin: sounds", operation_id = "adminPutSound",
    summary = "Upload a sound",
    description = "The body is the file itself, at most 10 MiB; it is decoded before it is kept.",
    request_body(content = crate::api::openapi::Bytes, content_type = "application/octet-stream"),
    params(
        ("file" = String, Path, description = "Its name, with an ending of wav, mp3, ogg, flac, ulaw or alaw"),
        ("key" = Option<String>, Query, description = "The key whose own sounds are meant; the shared ones unless said"),
    ),
    responses(
        (status = 200, description = "It takes the place of another", body = SoundBody),
        (status = 201, description = "It is new", body = SoundBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
        (status = 409, description = "The folder is full"),
    )
)]
async fn keep(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    file: Part,
    body: Bytes,
) -> Answer {
    let file = part(file, MISSING)?;
    let wrong = || Fault::Bad("Invalid file: a name and one of wav, mp3, ogg, flac, ulaw, alaw".into());
    let (name, format) = split_file(&file).ok_or_else(wrong)?;
    let folder = folder(&app, &Query::read(query.as_deref())).await?;
    let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let upload = app.rooms.sounds.take_in(folder.as_deref(), name, format, body.to_vec()).await;
    let upload = upload.map_err(refused)?;
    let (duration_ms, replaces) = (upload.duration_ms, upload.replaces);
    let told = object!({ "key": folder, "format": format, "bytes": bytes, "durationMs": duration_ms });
    let mut tx = app.rooms.db.begin().await.map_err(stored)?;
    tx.audit(&by(&caller), "sound.put", name, &told).await.map_err(stored)?;
    upload.place().map_err(|error| fault::broken("the folder of sounds", &error))?;
    tx.commit().await.map_err(stored)?;
    let shown = SoundBody {
        name: name.to_owned(),
        format,
        bytes,
        duration_ms: Some(duration_ms),
        key_id: folder,
        changed_at: Some(by(&caller).at.iso_ms()),
    };
    Ok(json(if replaces { StatusCode::OK } else { StatusCode::CREATED }, &shown))
}

/// `DELETE /sounds/:name?key=`, or `:name.:ext` for one format alone.
#[utoipa::path(
    delete, path = "/sounds/{*file}", tag = "Admin: sounds", operation_id = "adminRemoveSound",
    summary = "Remove a sound",
    description = "All formats of the name, or with an ending that one alone.",
    params(
        ("file" = String, Path, description = "The sound's name, which may hold slashes"),
        ("key" = Option<String>, Query, description = "The key whose own sounds are meant; the shared ones unless said"),
    ),
    responses(
        (status = 200, description = "It is gone", body = Removed),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Sound not found`"),
    )
)]
async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    file: Part,
) -> Answer {
    let file = part(file, MISSING)?;
    let (name, format) = match split_file(&file) {
        Some((name, format)) => (name, Some(format)),
        None if forms::is_sound(&file) => (file.as_str(), None),
        None => return Err(Fault::Bad("Invalid file".into())),
    };
    let folder = folder(&app, &Query::read(query.as_deref())).await?;
    let files = app.rooms.sounds.files(folder.as_deref(), name, format).await.map_err(refused)?;
    let told = object!({ "key": folder, "format": format });
    let mut tx = app.rooms.db.begin().await.map_err(stored)?;
    tx.audit(&by(&caller), "sound.remove", name, &told).await.map_err(stored)?;
    let mut removed = 0;
    for path in &files {
        match tokio::fs::remove_file(path).await {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault::broken("the folder of sounds", &error)),
        }
    }
    tx.commit().await.map_err(stored)?;
    Ok(json(StatusCode::OK, &Removed { removed }))
}

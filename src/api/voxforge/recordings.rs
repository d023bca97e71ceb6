//! The recordings that VoxForge's calls name: links that give the file to whoever has them, for an hour, and the same
//! path for a key of the tenant's.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::HeaderMap;

use super::{Answer, DIALECT, Segment, Wrong, named};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::{App, download, gate};
use crate::clock;
use crate::model::Timestamp;
use crate::recordings::links::Signed;
use crate::store::recordings::RecordingRow;

/// What a 404 calls it.
const KIND: &str = "Recording";

/// A link ends after this time.
const LINK_S: u32 = 3600;

/// A link to a recording, from now for an hour.
pub(super) fn link(app: &App, headers: &HeaderMap, recording: &str, now: Timestamp) -> String {
    let Signed { expires, signature } = app.rooms.recordings.links().sign(recording, now, LINK_S);
    let base = download::link_base(app, headers);
    format!("{base}/api/v1/recordings/{recording}?exp={expires}&sig={signature}")
}

/// `GET /api/v1/recordings/:id?exp=&sig=`.
///
/// # Errors
/// [`Fault::BadLink`]; without a link those of a key; [`Wrong::NoSuch`] where recording or key are gone.
#[utoipa::path(
    get, path = "/api/v1/recordings/{id}", tag = "VoxForge: calls", operation_id = "voxforgeFollowRecordingLink",
    summary = "The file that a recordingUrl leads to",
    description = "A link proves itself; without `exp` and `sig` a key of the tenant's is asked for.",
    params(
        ("id" = String, Path, description = "The recording's id"),
        ("exp" = Option<String>, Query, description = "Of the link"),
        ("sig" = Option<String>, Query, description = "Of the link"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 401, description = "Neither link nor key"),
        (status = 403, description = "The link was changed, or is over"),
        (status = 404, description = "The recording is gone, or its key is"),
        (status = 416, description = "The range lies outside of the file"),
        (status = 500, description = "Something broke; the log says what"),
    )
)]
pub async fn follow(
    State(app): State<App>,
    id: Segment,
    RawQuery(query): RawQuery,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
) -> Answer {
    let id = named(KIND, id)?;
    let now = clock::now();
    let query = Query::read(query.as_deref());
    let row: Option<RecordingRow> = match (query.text("exp"), query.text("sig")) {
        (None, None) => {
            let peer = peer.map(|Extension(ConnectInfo(peer))| peer);
            let shown = gate::credentials(&headers, peer);
            let scope = Some("recordings");
            let caller = app.admission.identify(&shown, Some(DIALECT.name), scope, now).await?;
            app.rooms.db.recording_of_tenant(&caller.key.tenant, &id).await?
        }
        (exp, sig) => {
            let expires = exp.and_then(|text| text.parse().ok()).ok_or(Fault::BadLink)?;
            let link = Signed { expires, signature: sig.unwrap_or_default().to_owned() };
            if !app.rooms.recordings.links().is_good(&id, &link, now.wall) {
                return Err(Fault::BadLink.into());
            }
            app.rooms.db.recording_of_valid_key(&id, now.wall).await?
        }
    };
    let Some(row) = row else { return Err(Wrong::NoSuch(KIND, id)) };
    download::recorded(&app, &row, &headers).await?.ok_or(Wrong::NoSuch(KIND, id))
}

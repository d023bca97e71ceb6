//! What is said of a conversation when it is over: kept with the webhooks that tell of it, in one transaction.

use super::subscribers;
use crate::model::Timestamp;
use crate::model::analysis::Analysis;
use crate::model::call::CallView;
use crate::store::{Db, StoreError};
use crate::webhook::Format;

/// Keeps an analysis, once, and promises its webhooks; how many.
///
/// # Errors
/// The database; nothing was kept.
pub async fn keep_analysis(
    db: &Db,
    formats: &[&'static dyn Format],
    view: &CallView,
    analysis: &Analysis,
    at: Timestamp,
) -> Result<usize, StoreError> {
    let subscribed = db.subscribed().await?;
    let mut tx = db.begin().await?;
    if !tx.keep_analysis(view.order.id, analysis, at).await? {
        return Ok(0);
    }
    let mut promised = 0;
    if let Some(format) = formats.iter().find(|format| format.has_endpoints()) {
        for endpoint in subscribed.of(&view.order.tenant) {
            let sequence = tx.bodies(view.order.id, &endpoint.about.url).await? + 1;
            let body = format.analysis(at, view, analysis, sequence);
            let body = body.filter(|body| endpoint.about.events.iter().any(|wanted| wanted == body.event));
            if let Some(body) = body {
                subscribers::enqueue(&mut tx, *format, endpoint, &view.order, body, at).await?;
                promised += 1;
            }
        }
    }
    tx.commit().await?;
    Ok(promised)
}

//! The endpoints that a tenant has subscribed (CONTRACT 1.3, 2.1 C11): each event of any of its calls is promised to all
//! that want it, in the form of the surface that has endpoints, in the transaction that writes the event. Whether a
//! tenant has any is known from memory; for one that has none nothing is asked of the database.

use crate::model::Timestamp;
use crate::model::call::{CallOrder, CallView};
use crate::model::event::{CallEvent, Stamped};
use crate::store::endpoints::Endpoint;
use crate::store::outbox::NewDelivery;
use crate::store::{StoreError, Tx};
use crate::webhook::{Format, Rendered};

/// Promises an event; how many deliveries came of it.
pub(super) async fn promise(
    endpoints: &[Endpoint],
    tx: &mut Tx,
    format: &'static dyn Format,
    stamped: &Stamped,
    view: &CallView,
) -> Result<usize, StoreError> {
    let order = &view.order;
    let mut turns = None;
    let mut promised = 0;
    for endpoint in endpoints {
        let sequence = tx.bodies(order.id, &endpoint.about.url).await? + 1;
        let mut bodies = format.render(stamped, view, sequence);
        bodies.retain(|body| endpoint.about.events.iter().any(|wanted| wanted == body.event));
        if matches!(stamped.event, CallEvent::Ended { .. }) && view.answered_at.is_some() {
            let turns = match turns {
                Some(turns) => turns,
                None => *turns.insert(tx.turns(order.id).await?),
            };
            let told = u32::try_from(bodies.len()).unwrap_or(0);
            let transcript = (turns > 0).then(|| format.transcript(stamped.at, view, turns, sequence + told));
            let transcript = transcript.flatten();
            bodies.extend(
                transcript.filter(|body| endpoint.about.events.iter().any(|wanted| wanted == body.event)),
            );
        }
        for rendered in bodies {
            enqueue(tx, format, endpoint, order, rendered, stamped.at).await?;
            promised += 1;
        }
    }
    Ok(promised)
}

/// Promises one body to one endpoint.
pub(super) async fn enqueue(
    tx: &mut Tx,
    format: &'static dyn Format,
    endpoint: &Endpoint,
    order: &CallOrder,
    rendered: Rendered,
    at: Timestamp,
) -> Result<(), StoreError> {
    let new = NewDelivery {
        call: order.id,
        key: order.key,
        dialect: format.name(),
        event: rendered.event,
        terminal: format.terminal(rendered.event),
        url: endpoint.about.url.clone(),
        body: rendered.body,
        at,
    };
    let delivery = tx.enqueue(&new).await?;
    tx.deliver_for(delivery, &endpoint.id).await
}

//! The task that has the engine keep registrations and send OPTIONS for the trunks that want it: it looks at the
//! table of trunks now and then, finds their addresses, and tells the engine when something has changed. Owns no
//! trunk; a change of the table is seen within two seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use crate::clock;
use crate::control::Rooms;
use crate::control::routing::{self, Resolver};
use crate::model::account::Trunk;
use crate::model::trunk::TrunkWatch;

/// Time between two looks at the table.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the task; it ends when it is aborted.
pub fn start(rooms: Rooms) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            match rooms.db.trunks().await {
                Ok(trunks) => {
                    let endpoints: BTreeSet<String> = trunks.iter().map(routing::endpoint).collect();
                    rooms.fleet.keep(&endpoints);
                    let wanted = watches(&rooms, trunks, &told).await;
                    if wanted != told && rooms.engine.watch(wanted.clone()) {
                        told = wanted;
                    }
                }
                Err(error) => tracing::warn!(%error, "the trunks cannot be read"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

/// The trunks to be watched, by name. One whose address cannot be found now stays as it was told before.
async fn watches(rooms: &Rooms, trunks: Vec<Trunk>, told: &[TrunkWatch]) -> Vec<TrunkWatch> {
    let now = clock::now().mono;
    let mut asked = JoinSet::new();
    let wanting = trunks
        .into_iter()
        .filter(|trunk| trunk.enabled && (trunk.profile.register || trunk.profile.options_interval_s > 0));
    for trunk in wanting {
        let resolver = rooms.resolver.clone();
        asked.spawn(async move {
            let found = watch(&resolver, &trunk, now).await;
            (routing::endpoint(&trunk), found)
        });
    }
    let mut wanted = Vec::new();
    while let Some(found) = asked.join_next().await {
        let Ok((endpoint, found)) = found else { continue };
        let before = || told.iter().find(|watch| watch.endpoint == endpoint).cloned();
        wanted.extend(found.or_else(before));
    }
    wanted.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    wanted
}

async fn watch(resolver: &Resolver, trunk: &Trunk, now: std::time::Instant) -> Option<TrunkWatch> {
    let plan = resolver.plan(trunk, now).await?;
    let hop = plan.hops.first()?.clone();
    let profile = &trunk.profile;
    Some(TrunkWatch {
        endpoint: plan.endpoint,
        host: plan.host,
        port: plan.port,
        hop,
        username: plan.username,
        password: plan.password,
        register: profile.register,
        register_expires_s: profile.register_expires_s,
        options_interval_s: profile.options_interval_s,
        external_address: profile.external_address,
    })
}

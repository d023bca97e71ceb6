//! The task that has the engine keep registrations and send OPTIONS for the trunks that want it, and take the calls of
//! all that are enabled: it looks at the table of trunks now and then, finds their addresses, and tells the engine when
//! something has changed. Owns no trunk; a change of the table is seen within a second or so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use crate::clock;
use crate::control::Rooms;
use crate::control::routing;
use crate::model::account::Trunk;
use crate::model::call::TrunkPlan;
use crate::model::incoming::Directory;
use crate::model::trunk::TrunkWatch;

/// Time between two looks at the table.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the engine was told last.
#[derive(Default)]
struct Told {
    watches: Vec<TrunkWatch>,
    directory: Arc<Directory>,
}

/// Starts the task; it ends when it is aborted.
pub fn start(rooms: Rooms) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut told = Told::default();
        loop {
            match rooms.db.trunks().await {
                Ok(trunks) => {
                    let endpoints: BTreeSet<String> = trunks.iter().map(routing::endpoint).collect();
                    rooms.fleet.keep(&endpoints);
                    tell(&rooms, trunks, &mut told).await;
                }
                Err(error) => tracing::warn!(%error, "the trunks cannot be read"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

async fn tell(rooms: &Rooms, trunks: Vec<Trunk>, told: &mut Told) {
    let plans = plans(rooms, trunks, &told.directory).await;
    let watches: Vec<TrunkWatch> = plans.iter().filter_map(watch).collect();
    if watches != told.watches && rooms.engine.watch(watches.clone()) {
        told.watches = watches;
    }
    let directory = Arc::new(Directory::new(plans));
    if directory != told.directory && rooms.engine.direct(Arc::clone(&directory)) {
        told.directory = directory;
    }
}

/// Where the enabled trunks are, by name. One whose address cannot be found now stays where it was before.
async fn plans(rooms: &Rooms, trunks: Vec<Trunk>, before: &Directory) -> Vec<TrunkPlan> {
    let now = clock::now().mono;
    let mut asked = JoinSet::new();
    for trunk in trunks.into_iter().filter(|trunk| trunk.enabled) {
        let resolver = Arc::clone(&rooms.resolver);
        asked.spawn(async move {
            let found = resolver.plan(&trunk, now).await;
            (routing::endpoint(&trunk), found)
        });
    }
    let mut plans = Vec::new();
    while let Some(found) = asked.join_next().await {
        let Ok((endpoint, found)) = found else { continue };
        let known = || before.trunks().iter().find(|plan| plan.endpoint == endpoint);
        plans.extend(found.or_else(|| known().map(|plan| TrunkPlan::clone(plan))));
    }
    plans.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    plans
}

/// What is to be kept up with a trunk beside its calls; `None` where nothing is.
fn watch(plan: &TrunkPlan) -> Option<TrunkWatch> {
    let profile = &plan.profile;
    if !profile.register && profile.options_interval_s == 0 {
        return None;
    }
    Some(TrunkWatch {
        endpoint: plan.endpoint.clone(),
        host: plan.host.clone(),
        port: plan.port,
        hop: plan.hops.first()?.clone(),
        username: plan.username.clone(),
        password: plan.password.clone(),
        register: profile.register,
        register_expires_s: profile.register_expires_s,
        options_interval_s: profile.options_interval_s,
        external_address: profile.external_address,
    })
}

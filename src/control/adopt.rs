//! Calls whose sound is elsewhere: a ConversationRelay platform has the line, and tells what is said on it (CONTRACT 1.2
//! `/relay/ws` use a). Such a call is a row like any other, answered from the start; it takes no credit, no trunk and no
//! place of the engine's, and the verbs of lines do not know it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::admission::LOCAL_KEY;
use super::calls::Calls;
use super::{Caller, Failure, Refusal};
use crate::clock;
use crate::model::call::{CallOrder, CallView, EndReason, Surface};
use crate::model::event::{CallEvent, Stamped};
use crate::model::purpose::{Direction, Mode, Purpose};
use crate::model::{CallId, CallerId, PhoneNumber};
use crate::store::tenants::SUSPENDED;

/// Q.850: normal clearing.
const NORMAL: u16 = 16;

/// A call as its platform tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopted {
    /// Its id there, where it has our form.
    pub id: Option<CallId>,
    /// Which way it goes, seen from here.
    pub direction: Direction,
    /// Who calls.
    pub from: Option<CallerId>,
    /// Who is called.
    pub to: PhoneNumber,
    /// Who talks.
    pub agent: Option<i64>,
    /// As the agent has it.
    pub voice_name: String,
    /// What is remembered of it.
    pub context: Map<String, Value>,
}

impl Calls {
    /// Under which key a platform's call is that shows none, by the agent that it names, else by the number that was
    /// called: the oldest of the tenant's that lives, as for calls that come in. `None`: it is nobody's.
    ///
    /// # Errors
    /// A database that failed.
    pub async fn caller_of_platform(
        &self,
        agent: Option<&str>,
        to: &PhoneNumber,
    ) -> Result<Option<Caller>, Failure> {
        let db = &self.rooms.db;
        let tenant = match agent {
            Some(agent) => db.tenant_of_agent(agent).await?,
            None => db.number(to).await?.map(|number| number.tenant),
        };
        let Some(tenant) = tenant else { return Ok(None) };
        let suspended = db.tenant(&tenant).await?.is_none_or(|tenant| tenant.status == SUSPENDED);
        if suspended {
            return Ok(None);
        }
        let key = db.oldest_key(&tenant, LOCAL_KEY, clock::now().wall).await?;
        Ok(key.map(|key| Caller { key, ip: None }))
    }

    /// Takes a call in that is up elsewhere.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] while the server stops; a database that failed.
    pub async fn adopt(&self, caller: &Caller, adopted: Adopted) -> Result<Arc<CallView>, Failure> {
        if self.is_draining() {
            return Err(Refusal::Unavailable.into());
        }
        let now = clock::now();
        let db = &self.rooms.db;
        let free = match adopted.id {
            Some(id) => db.call(id).await?.is_none().then_some(id),
            None => None,
        };
        let id = match free {
            Some(id) => id,
            None => super::placing::random_call_id()?,
        };
        let mut tx = db.begin().await?;
        let counter = tx.next_call_counter().await?;
        let order = CallOrder {
            id,
            kaphila_id: format!("{}.{counter}", now.wall.seconds()),
            surface: Surface::Phony,
            key: caller.key.id,
            tenant: caller.key.tenant.clone(),
            submitted_number: adopted.to.e164(),
            to: adopted.to,
            from: adopted.from,
            trunks: Vec::new(),
            redials_ms: Vec::new(),
            ring_timeout_ms: 0,
            max_duration_ms: 0,
            use_amd: false,
            record: false,
            record_channels: media::Channels::Mono,
            voice_name: adopted.voice_name,
            webhook_url: None,
            purpose: Purpose {
                direction: adopted.direction,
                mode: Mode::Agent,
                agent: adopted.agent,
                campaign: None,
                contact: None,
                context: adopted.context,
                brief: None,
            },
            created_at: now.wall,
        };
        let view = CallView::new(Arc::new(order));
        tx.insert_call(&view).await?;
        tx.commit().await?;
        self.rooms.live.admit(view.clone());
        for event in [CallEvent::Queued, CallEvent::Answered] {
            self.rooms.journal.record(Stamped { call: id, at: now.wall, event });
        }
        Ok(self.rooms.live.get(id).unwrap_or_else(|| Arc::new(view)))
    }

    /// A call that was taken in is over.
    pub fn give_up(&self, call: CallId) {
        let event = CallEvent::Ended { reason: EndReason::NormalHangup, q850: NORMAL, sip_code: None };
        self.rooms.journal.record(Stamped { call, at: clock::now().wall, event });
    }
}

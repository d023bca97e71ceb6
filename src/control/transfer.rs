//! What a supervisor does to a call of the tenant's: speaks into it, presses keys, remembers things, puts it through to
//! somebody else (CONTRACT 1.2 override, context). Each checks what may be checked here and hands the rest to the
//! engine; what then happens is told by events.

use std::sync::PoisonError;

use serde_json::{Map, Value};

use super::calls::{Calls, Named};
use super::{Caller, Failure, Refusal, policy};
use crate::clock;
use crate::model::call::{Command, TransferOrder};
use crate::model::event::{CallEvent, PlayTo, Stamped};
use crate::model::purpose::Direction;
use crate::model::{CallerId, PhoneNumber};

/// Largest context of a call, bytes of JSON.
pub const CONTEXT_MAX_BYTES: usize = 64 * 1024;

/// Seconds that whoever a call is put through to has to answer.
const TRANSFER_RING_S: u32 = 30;

/// What a merged context may not become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextTooLarge;

impl Calls {
    /// Speaks into a call in the place of what is being said.
    ///
    /// # Errors
    /// As [`Calls::say`].
    pub async fn interject(&self, caller: &Caller, call: Named<'_>, text: &str) -> Result<(), Failure> {
        let view = self.answered(caller, call)?;
        let clip = self.spoken(text, &view.order.voice_name).await?;
        let playback = self.playback_id("tts", &view.order.kaphila_id);
        let engine = &self.rooms.engine;
        engine.command(view.order.id, Command::StopPlayback).await?;
        let (text, to) = (Some(text.to_owned()), PlayTo::Bridge);
        engine.command(view.order.id, Command::Play { playback, clip, text, file: None, to }).await?;
        Ok(())
    }

    /// Presses keys on a call's line.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`], [`Refusal::NotAnswered`].
    pub async fn press(&self, caller: &Caller, call: Named<'_>, digits: String) -> Result<(), Failure> {
        let view = self.answered(caller, call)?;
        self.rooms.engine.command(view.order.id, Command::SendDigits { digits }).await?;
        Ok(())
    }

    /// Puts a call through: dials a second party over the caller's trunks, by the rules of any call but for the credit,
    /// and joins both when it answers.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`], [`Refusal::NotAnswered`], [`Refusal::Transferring`]; what the key's policy says of the
    /// number; trunks that are missing or busy.
    pub async fn put_through(
        &self,
        caller: &Caller,
        call: Named<'_>,
        to: PhoneNumber,
    ) -> Result<(), Failure> {
        policy::may_call(&caller.key.policy, &to)?;
        let view = self.answered(caller, call)?;
        let trunks = self.ways(caller).await?;
        let order = &view.order;
        let from = match order.purpose.direction {
            Direction::Outbound => order.from.clone(),
            Direction::Inbound => Some(CallerId::Number(order.to.e164())),
        };
        let order = TransferOrder { to, from, trunks, ring_timeout_ms: TRANSFER_RING_S * 1000 };
        self.rooms.engine.command(view.order.id, Command::Transfer(Box::new(order))).await?;
        Ok(())
    }

    /// Merges into what is remembered of a live call: each member takes the place of its namesake, `null` removes it.
    /// The whole is given back.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`]; in the inner result, a whole that is too large: nothing was changed.
    pub fn remember(
        &self,
        caller: &Caller,
        call: Named<'_>,
        changes: Map<String, Value>,
    ) -> Result<Result<Map<String, Value>, ContextTooLarge>, Refusal> {
        // Two that come together are merged one after the other.
        let _one = self.remembering.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.live(caller, call)?;
        let mut context = view.order.purpose.context.clone();
        for (name, value) in changes {
            if value.is_null() {
                context.remove(&name);
            } else {
                context.insert(name, value);
            }
        }
        if Value::Object(context.clone()).to_string().len() > CONTEXT_MAX_BYTES {
            return Ok(Err(ContextTooLarge));
        }
        let event = CallEvent::ContextChanged { context: context.clone() };
        self.rooms.journal.record(Stamped { call: view.order.id, at: clock::now().wall, event });
        Ok(Ok(context))
    }
}

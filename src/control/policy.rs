//! What a key may do with a call: where it may go, who may seem to call, how many and how dear (CONTRACT 3 S22, S42).
//! The same for every surface. Where it decides it is pure; what must hold whatever comes together is asked of the
//! store inside the placing transaction ([`caps`](fn@caps)).

use super::admission::LOCAL_KEY;
use super::numbers::{self, Kind};
use super::{Failure, Refusal};
use crate::model::account::{ApiKey, Policy};
use crate::model::call::Surface;
use crate::model::{CallerId, PhoneNumber, Timestamp, forms};
use crate::store::{Tx, caps};

/// Whether a key may call a number. Emergency and premium-rate numbers are closed unless the key opens them, countries
/// are open unless the key names some; an emergency short code is of no country.
///
/// # Errors
/// [`Refusal::NumberNotAllowed`], [`Refusal::DestinationNotAllowed`].
pub fn may_call(policy: &Policy, number: &PhoneNumber) -> Result<(), Refusal> {
    let open = match numbers::kind(number) {
        Kind::Emergency => return if policy.emergency { Ok(()) } else { Err(Refusal::NumberNotAllowed) },
        Kind::Premium => policy.premium,
        Kind::Ordinary => true,
    };
    if !open {
        return Err(Refusal::NumberNotAllowed);
    }
    if numbers::leads_to(number, &policy.countries) { Ok(()) } else { Err(Refusal::DestinationNotAllowed) }
}

/// Where a caller id that was asked for must come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The key's list, if it has one; a key without a list may show anything.
    ListIfAny,
    /// The key's list or the tenant's numbers, always; `owned` says whether it is one of the tenant's.
    Enforced {
        /// The one that was asked for is a number of the tenant's.
        owned: bool,
    },
}

/// The caller id of an order: the one asked for where the key may show it, else the key's first.
///
/// # Errors
/// [`Refusal::CallerIdNotAllowed`].
pub fn caller_id(
    own: &[CallerId],
    asked: Option<&CallerId>,
    ownership: Ownership,
) -> Result<Option<CallerId>, Refusal> {
    let Some(asked) = asked else { return Ok(own.first().cloned()) };
    let bare = |id: &CallerId| id.user().trim_start_matches('+').to_owned();
    let listed = own.iter().any(|id| bare(id) == bare(asked));
    let allowed = match ownership {
        Ownership::ListIfAny => own.is_empty() || listed,
        Ownership::Enforced { owned } => owned || listed,
    };
    if allowed { Ok(Some(asked.clone())) } else { Err(Refusal::CallerIdNotAllowed) }
}

/// The number that a caller id shows, if it is one that could be somebody's.
pub fn shown_number(id: &CallerId) -> Option<PhoneNumber> {
    match id {
        CallerId::Number(text) => forms::public_number(text),
        CallerId::Anonymous => None,
    }
}

/// What a surface permits each key beside the key's own caps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    /// So many calls in a span of so many milliseconds.
    calls: Option<(u32, i64)>,
    /// Live calls at once.
    live: Option<u32>,
    /// After so many calls in a row that failed by their trunks, none for so many milliseconds, then one.
    breaker: Option<(u32, i64)>,
}

/// The pace of a surface (CONTRACT 1.4, 1.5, 2.1 C4 and C22).
fn pace(surface: Surface, key: &ApiKey) -> Pace {
    match surface {
        Surface::Hamming => Pace { calls: Some((1, 500)), live: Some(20), breaker: Some((3, 30_000)) },
        Surface::ClaudePhone if key.key_id == LOCAL_KEY => {
            Pace { calls: key.rate_limit.map(|most| (most, caps::HOUR_MS)), ..Pace::default() }
        }
        Surface::Kaphila | Surface::Phony | Surface::VoxForge | Surface::ClaudePhone => Pace::default(),
    }
}

/// Delays after which a call of a surface is dialled again by all its trunks when all have failed, milliseconds
/// (CONTRACT 1.4).
pub fn redials_ms(surface: Surface) -> &'static [u32] {
    match surface {
        Surface::Hamming => &[1000, 2000, 4000],
        Surface::Kaphila | Surface::Phony | Surface::VoxForge | Surface::ClaudePhone => &[],
    }
}

/// Takes a place for one call of this key, and a credit for it: the surface's pace, calls a minute, calls at once,
/// credits of the day, the balance. Whatever is refused, nothing stays when the transaction is dropped.
///
/// # Errors
/// [`Refusal::TooFast`], [`Refusal::CircuitOpen`], [`Refusal::TooManyCalls`], [`Refusal::NoCredits`],
/// [`Refusal::DayIsSpent`].
pub async fn caps(tx: &mut Tx, key: &ApiKey, surface: Surface, at: Timestamp) -> Result<(), Failure> {
    // Holding first: it locks the key's row, so that what is counted next cannot change any more.
    let held = tx.hold_credit(key.id).await?;
    keeps_pace(tx, key, surface, at).await?;
    if let Some(most) = key.policy.calls_per_minute
        && let Some(next) = tx.next_call_at(key.id, None, (most, caps::MINUTE_MS), at).await?
    {
        return Err(Refusal::TooFast { retry_after_s: seconds_until(next, at) }.into());
    }
    room_for_one(tx, key).await?;
    if !held {
        return Err(Refusal::NoCredits.into());
    }
    if !tx.count_daily_credit(key.id, key.policy.daily_credits, at).await? {
        return Err(Refusal::DayIsSpent.into());
    }
    Ok(())
}

/// Whether one more call of this key may be up, whichever way it goes: its own limit and that of its tenant. Nobody else
/// is given the same place while the transaction is open.
///
/// # Errors
/// [`Refusal::TooManyCalls`].
pub async fn room_for_one(tx: &mut Tx, key: &ApiKey) -> Result<(), Failure> {
    if tx.active_count(key.id).await? >= i64::from(key.max_concurrent) {
        return Err(Refusal::TooManyCalls.into());
    }
    if let Some(most) = key.tenant_calls
        && tx.active_of_tenant(&key.tenant).await? >= i64::from(most)
    {
        return Err(Refusal::TooManyCalls.into());
    }
    Ok(())
}

async fn keeps_pace(tx: &mut Tx, key: &ApiKey, surface: Surface, at: Timestamp) -> Result<(), Failure> {
    let pace = pace(surface, key);
    if let Some(calls) = pace.calls
        && let Some(next) = tx.next_call_at(key.id, Some(surface), calls, at).await?
    {
        return Err(Refusal::TooFast { retry_after_s: seconds_until(next, at) }.into());
    }
    if let Some((most, pause_ms)) = pace.breaker
        && let Some(since) = tx.failing_since(key.id, surface, most).await?
    {
        let until = since.plus_ms(pause_ms);
        // After the pause one call is the probe, and the next waits for what becomes of it.
        if at < until || tx.active_on(key.id, surface).await? > 0 {
            return Err(Refusal::CircuitOpen { retry_after_s: seconds_until(until, at) }.into());
        }
    }
    if let Some(most) = pace.live
        && tx.active_on(key.id, surface).await? >= i64::from(most)
    {
        return Err(Refusal::TooManyCalls.into());
    }
    Ok(())
}

/// Whole seconds from `at` until `next`, rounded up, at least 1.
fn seconds_until(next: Timestamp, at: Timestamp) -> u64 {
    let ms = u64::try_from(next.0.saturating_sub(at.0)).unwrap_or(0);
    ms.div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> PhoneNumber {
        PhoneNumber::parse_lenient(text).unwrap()
    }

    #[test]
    fn emergency_and_premium_numbers_are_closed_until_opened() {
        let closed = Policy::default();
        let countries = Policy { countries: vec!["44".into()], ..Policy::default() };
        let open = Policy { premium: true, emergency: true, ..countries.clone() };
        let (no, abroad) = (Err(Refusal::NumberNotAllowed), Err(Refusal::DestinationNotAllowed));
        for (policy, text, expected) in [
            (&closed, "+14155550100", Ok(())),
            (&closed, "112", no.clone()),
            (&closed, "+19005550100", no.clone()),
            (&countries, "+442079460000", Ok(())),
            (&countries, "+14155550100", abroad.clone()),
            (&countries, "+449098790000", no.clone()),
            (&open, "112", Ok(())),
            (&open, "+449098790000", Ok(())),
            (&open, "+19005550100", abroad),
        ] {
            assert_eq!(may_call(policy, &number(text)), expected, "{text}");
        }
    }

    #[test]
    fn caller_ids_are_the_keys_or_the_tenants() {
        let id = |text: &str| CallerId::parse(text).unwrap();
        let list = [id("+14155550100"), id("anonymous")];
        let (free, owned, foreign) =
            (Ownership::ListIfAny, Ownership::Enforced { owned: true }, Ownership::Enforced { owned: false });
        for (own, asked, ownership, allowed) in [
            (&list[..0], "+15005550006", free, true),
            (&list[..], "+15005550006", free, false),
            (&list[..], "14155550100", free, true),
            (&list[..0], "+15005550006", foreign, false),
            (&list[..0], "+15005550006", owned, true),
            (&list[..], "14155550100", foreign, true),
            (&list[..], "anonymous", foreign, true),
            (&list[..1], "anonymous", foreign, false),
        ] {
            let chosen = caller_id(own, Some(&id(asked)), ownership);
            let expected = if allowed { Ok(Some(id(asked))) } else { Err(Refusal::CallerIdNotAllowed) };
            assert_eq!(chosen, expected, "{asked} {ownership:?}");
        }
        for ownership in [free, owned, foreign] {
            assert_eq!(caller_id(&list, None, ownership), Ok(Some(list[0].clone())));
            assert_eq!(caller_id(&[], None, ownership), Ok(None));
        }
        assert_eq!(shown_number(&id("+14155550100")), Some(number("14155550100")));
        assert_eq!(shown_number(&CallerId::Anonymous), None);
    }

    #[test]
    fn waiting_is_told_in_whole_seconds() {
        for (ms, seconds) in [(-5, 1), (0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(seconds_until(Timestamp(7 + ms), Timestamp(7)), seconds, "{ms}");
        }
    }
}

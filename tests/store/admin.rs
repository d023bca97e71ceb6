//! What operators change, what is written down of it, and caps that hold whatever comes together.

use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::control::{Failure, Refusal, policy};
use trunkline::model::account::{ApiKey, Policy};
use trunkline::model::call::{CallView, EndReason, Surface};
use trunkline::model::{CallId, PhoneNumber, Timestamp};
use trunkline::store::accounts::{NewKey, TrunkChoice};
use trunkline::store::audit::{AuditFilter, By};
use trunkline::store::keys::KeyFilter;
use trunkline::store::numbers::{NewNumber, OnCall};
use trunkline::store::tenants::NewTenant;
use trunkline::store::{Db, StoreError};

use crate::{Scratch, T0, key, order};

/// Milliseconds of a UTC day.
const DAY_MS: i64 = 86_400_000;

/// Action, subject and detail of every row, newest first.
async fn told(db: &Db) -> Vec<(String, String, Value)> {
    let rows = db.audit_rows(&AuditFilter::default(), 1000).await.unwrap();
    rows.into_iter()
        .map(|row| (row.action, row.subject, serde_json::from_str(&row.detail).unwrap()))
        .collect()
}

/// Places a call under the key's caps, as control does.
async fn place(db: &Db, key: &ApiKey, id: u128, at: Timestamp) -> Result<(), Refusal> {
    let mut tx = db.begin().await.unwrap();
    match policy::caps(&mut tx, key, Surface::Kaphila, at).await {
        Err(Failure::Refused(refusal)) => return Err(refusal),
        other => other.unwrap(),
    }
    let mut order = order(key.id, id, None);
    order.created_at = at;
    tx.insert_call(&CallView::new(Arc::new(order))).await.unwrap();
    tx.commit().await.unwrap();
    Ok(())
}

/// A call that was never answered ends.
async fn end(db: &Db, id: u128) {
    let mut view = db.call(CallId(id)).await.unwrap().unwrap();
    let ended = crate::at(id, 1000, crate::ended(EndReason::NoAnswer));
    view.apply(ended.at, &ended.event);
    let mut tx = db.begin().await.unwrap();
    tx.save_call(&view).await.unwrap();
    tx.release_hold(CallId(id)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn capped(db: &Db, policy: Policy) -> ApiKey {
    db.create_key(NewKey { policy, ..NewKey::named("capped") }, T0).await.unwrap().key
}

#[tokio::test]
async fn every_change_of_a_key_is_told_without_its_secrets() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let by = By::key("key_admin", Some("192.0.2.7".parse().unwrap()), T0);
    let made = db.create_key(NewKey { credits: Some(5), ..NewKey::named("shop") }, by.clone()).await.unwrap();
    let id = made.key.key_id.clone();
    let changed = db.change_key(&id, by.clone(), |key| key.rate_limit = Some(7), None).await.unwrap();
    assert_eq!(changed, ApiKey { rate_limit: Some(7), ..made.key.clone() });
    db.change_key(&id, by.clone(), |_| {}, None).await.unwrap();
    db.change_key(&id, by.clone(), |_| {}, Some(&TrunkChoice::All)).await.unwrap();
    assert_eq!(db.trunk_names(made.key.id).await.unwrap(), TrunkChoice::All);
    db.add_credit(&id, 3, by.clone()).await.unwrap();
    let rotated = db.rotate_key(&id, by.clone()).await.unwrap();
    db.revoke_key(&id, by.clone()).await.unwrap();
    db.revoke_key(&id, by).await.unwrap();

    let told = told(&db).await;
    let actions: Vec<&str> = told.iter().map(|(action, _, _)| action.as_str()).collect();
    let expected = ["key.revoke", "key.rotate", "key.credit", "key.update", "key.update", "key.create"];
    assert_eq!(actions, expected);
    assert_eq!(told[2].2, json!({ "delta": 3, "credits": 8 }));
    assert_eq!(told[3].2, json!({ "trunks": "all" }));
    assert_eq!(told[4].2, json!({ "rateLimit": [null, 7] }));
    assert!(told.iter().all(|(_, subject, _)| *subject == id));
    let text = serde_json::to_string(&told.iter().map(|row| &row.2).collect::<Vec<_>>()).unwrap();
    for secret in [&made.secret, &rotated.secret, &made.key.webhook_secret.0, &rotated.key.webhook_secret.0] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
    let row = &db.audit_rows(&AuditFilter::default(), 1).await.unwrap()[0];
    assert_eq!((row.actor.as_str(), row.ip.as_deref(), row.at), ("key_admin", Some("192.0.2.7"), T0));
}

#[tokio::test]
async fn what_is_refused_leaves_neither_change_nor_row() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = db.create_key(NewKey { credits: Some(2), ..NewKey::named("k") }, T0).await.unwrap().key;
    assert!(crate::place(&db, &order(key.id, 1, None)).await);
    let before = told(&db).await.len();
    let unknown = TrunkChoice::Names(vec!["nine".into()]);
    let name = |key: &mut ApiKey| key.name = "other".into();
    let refused = db.change_key(&key.key_id, T0, name, Some(&unknown)).await;
    assert!(matches!(refused, Err(StoreError::UnknownTrunks(_))), "{refused:?}");
    let refused = db.change_key(&key.key_id, T0, |key| key.credits = Some(0), None).await;
    assert!(matches!(refused, Err(StoreError::BelowHeld(_))), "{refused:?}");
    let refused = db.change_key("key_0", T0, |_| {}, None).await;
    assert!(matches!(refused, Err(StoreError::UnknownKey(_))), "{refused:?}");
    assert!(db.create_key(NewKey { trunks: unknown, ..NewKey::named("x") }, T0).await.is_err());
    assert!(db.add_credit(&key.key_id, -2, T0).await.is_err());
    assert_eq!(told(&db).await.len(), before);
    assert_eq!(db.key(key.id).await.unwrap().unwrap().name, "k");
}

#[tokio::test]
async fn rows_are_found_by_who_what_and_when() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    for (n, actor) in (0..).zip(["key_a", "key_b", "key_a"]) {
        let by = By::key(actor, None, T0.plus_ms(n * 1000));
        db.create_key(NewKey { tenant: format!("T{n}"), ..NewKey::named("k") }, by).await.unwrap();
    }
    let ids = async |filter: AuditFilter| {
        let rows = db.audit_rows(&filter, 100).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = AuditFilter::default;
    assert_eq!(ids(all()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(ids(AuditFilter { actor: Some("key_b".into()), ..all() }).await, [4, 3]);
    assert_eq!(ids(AuditFilter { action: Some("key".into()), ..all() }).await, [6, 4, 2]);
    assert_eq!(ids(AuditFilter { action: Some("tenant.create".into()), ..all() }).await, [5, 3, 1]);
    assert!(ids(AuditFilter { action: Some("ke".into()), ..all() }).await.is_empty());
    assert_eq!(ids(AuditFilter { subject: Some("T1".into()), ..all() }).await, [3]);
    let middle = AuditFilter { from: Some(T0.plus_ms(1000)), to: Some(T0.plus_ms(2000)), ..all() };
    assert_eq!(ids(middle).await, [4, 3]);
    assert_eq!(ids(AuditFilter { before: Some(3), ..all() }).await, [2, 1]);
}

#[tokio::test]
async fn keys_are_listed_by_tenant_and_state() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    for tenant in ["A", "A", "B"] {
        db.create_key(NewKey { tenant: tenant.into(), ..NewKey::named("k") }, T0).await.unwrap();
    }
    let first = db.keys().await.unwrap()[0].key_id.clone();
    db.revoke_key(&first, T0).await.unwrap();
    let ids = async |tenant: Option<&str>, revoked, limit, offset| {
        let filter = KeyFilter { tenant: tenant.map(str::to_owned), revoked };
        let (keys, total) = db.keys_page(&filter, limit, offset).await.unwrap();
        (keys.iter().map(|key| key.id).collect::<Vec<_>>(), total)
    };
    assert_eq!(ids(None, None, 10, 0).await, (vec![1, 2, 3], 3));
    assert_eq!(ids(None, None, 1, 1).await, (vec![2], 3));
    assert_eq!(ids(Some("A"), Some(false), 10, 0).await, (vec![2], 1));
    assert_eq!(ids(None, Some(true), 10, 0).await, (vec![1], 1));
}

#[tokio::test]
async fn a_suspended_tenant_marks_its_keys() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let new = NewTenant {
        name: "Acme".into(),
        subdomain: "acme".into(),
        status: "active",
        max_agents: Some(50),
        max_concurrent_calls: Some(1),
        billing_email: String::new(),
    };
    let acme = db.create_tenant(&new, T0).await.unwrap();
    assert!(matches!(db.create_tenant(&new, T0).await, Err(StoreError::Taken("subdomain", _))));
    let of_acme = |name: &str| NewKey { tenant: "acme".into(), ..NewKey::named(name) };
    let (one, two) =
        (db.create_key(of_acme("1"), T0).await.unwrap(), db.create_key(of_acme("2"), T0).await.unwrap());
    assert_eq!(one.key.tenant, acme.id);
    // All keys of a tenant share its calls.
    assert_eq!(place(&db, &one.key, 1, T0).await, Ok(()));
    let mut second = order(two.key.id, 2, None);
    second.tenant.clone_from(&acme.id);
    assert_eq!(db.key(two.key.id).await.unwrap().unwrap().tenant_calls, Some(1));

    db.change_tenant("acme", T0, |tenant| tenant.status = "suspended".into()).await.unwrap();
    assert!(db.find_key_at(&one.secret, T0).await.unwrap().unwrap().suspended);
    db.change_tenant(&acme.id, T0, |tenant| tenant.status = "active".into()).await.unwrap();
    assert!(!db.find_key_at(&one.secret, T0).await.unwrap().unwrap().suspended);
    let taken = db.change_tenant("acme", T0, |tenant| tenant.subdomain = "default".into()).await;
    assert!(matches!(taken, Err(StoreError::Taken("subdomain", _))), "{taken:?}");
    assert!(matches!(db.change_tenant("x", T0, |_| {}).await, Err(StoreError::UnknownTenant(_))));
}

#[tokio::test]
async fn numbers_belong_to_one_tenant() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = db.create_key(NewKey { tenant: "A".into(), ..NewKey::named("k") }, T0).await.unwrap().key;
    let number = PhoneNumber::parse_lenient("+14155550100").unwrap();
    let hook = OnCall::Webhook { url: "https://a.example/?token=hunter2".into(), key_id: key.key_id.clone() };
    let new = NewNumber {
        number: number.clone(),
        tenant: "A".into(),
        friendly_name: String::new(),
        trunk: None,
        on_call: hook.clone(),
    };
    let made = db.add_number(&new, T0).await.unwrap();
    assert_eq!((made.friendly_name.as_str(), &made.on_call), ("+14155550100", &hook));
    assert_eq!(db.number(&number).await.unwrap().as_ref(), Some(&made));
    assert!(db.owns_number("A", &number).await.unwrap());
    assert!(!db.owns_number("default", &number).await.unwrap());
    let again =
        db.add_number(&NewNumber { tenant: "B".into(), on_call: OnCall::Echo, ..new.clone() }, T0).await;
    assert!(matches!(again, Err(StoreError::Taken("number", _))), "{again:?}");
    assert!(db.tenant("B").await.unwrap().is_none(), "nothing of what was refused stays");
    let foreign = NewNumber {
        number: PhoneNumber::parse_lenient("+14155550101").unwrap(),
        tenant: "B".into(),
        ..new.clone()
    };
    assert!(matches!(db.add_number(&foreign, T0).await, Err(StoreError::UnknownKey(_))));

    let other =
        OnCall::Webhook { url: "https://a.example/?token=hunter3".into(), key_id: key.key_id.clone() };
    let turned = db.change_number(&number, T0, |number| number.on_call = other.clone()).await.unwrap();
    assert_eq!(turned.on_call, other);
    let rows = told(&db).await;
    assert_eq!((rows[0].0.as_str(), &rows[0].2), ("number.update", &json!({ "target": "changed" })));
    assert!(rows.iter().all(|(_, _, detail)| !detail.to_string().contains("hunter")), "{rows:?}");

    let change = |number: &mut trunkline::store::numbers::Number| {
        number.on_call = OnCall::Play("custom/welcome".into());
        number.tenant = "B".into();
    };
    let changed = db.change_number(&number, T0, change).await.unwrap();
    assert_eq!((changed.tenant.as_str(), changed.on_call), ("A", OnCall::Play("custom/welcome".into())));
    assert_eq!(db.numbers(Some("A"), 10, 0).await.unwrap().1, 1);
    assert_eq!(db.numbers(Some("default"), 10, 0).await.unwrap(), (Vec::new(), 0));
    db.remove_number(&number, T0).await.unwrap();
    assert!(matches!(db.remove_number(&number, T0).await, Err(StoreError::UnknownNumber(_))));
    assert!(db.number(&number).await.unwrap().is_none());
}

#[tokio::test]
async fn a_minute_slides() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = capped(&db, Policy { calls_per_minute: Some(2), ..Policy::default() }).await;
    let at = |ms: i64| T0.plus_ms(ms);
    let wait = |retry_after_s| Err(Refusal::TooFast { retry_after_s });
    assert_eq!(place(&db, &key, 1, at(0)).await, Ok(()));
    assert_eq!(place(&db, &key, 2, at(20_000)).await, Ok(()));
    assert_eq!(place(&db, &key, 3, at(20_001)).await, wait(40));
    assert_eq!(place(&db, &key, 3, at(59_999)).await, wait(1));
    assert_eq!(place(&db, &key, 3, at(60_000)).await, Ok(()));
    assert_eq!(place(&db, &key, 4, at(60_001)).await, wait(20));
    assert_eq!(place(&db, &key, 4, at(80_000)).await, Ok(()));
    assert_eq!(db.active_count(key.id).await.unwrap(), 4);
}

#[tokio::test]
async fn a_day_has_its_credits_and_gets_back_what_was_not_used() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = capped(&db, Policy { daily_credits: Some(2), ..Policy::default() }).await;
    let tomorrow = Timestamp((T0.0.div_euclid(DAY_MS) + 1) * DAY_MS);
    let late = tomorrow.plus_ms(-1);
    assert_eq!(place(&db, &key, 1, late).await, Ok(()));
    assert_eq!(place(&db, &key, 2, late).await, Ok(()));
    assert_eq!(place(&db, &key, 3, late).await, Err(Refusal::DayIsSpent));
    assert_eq!(db.credits_of_day(key.id, late).await.unwrap(), 2, "what was refused is not counted");
    // Another day begins at midnight, and what ends in it goes back to the day it was placed in.
    assert_eq!(place(&db, &key, 3, tomorrow).await, Ok(()));
    end(&db, 2).await;
    assert_eq!(db.credits_of_day(key.id, late).await.unwrap(), 1);
    assert_eq!(db.credits_of_day(key.id, tomorrow).await.unwrap(), 1);
    assert_eq!(place(&db, &key, 4, late).await, Ok(()));
    assert_eq!(place(&db, &key, 5, late).await, Err(Refusal::DayIsSpent));

    // What was taken stays taken.
    let mut tx = db.begin().await.unwrap();
    tx.capture_hold(CallId(1)).await.unwrap();
    tx.release_hold(CallId(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.credits_of_day(key.id, late).await.unwrap(), 2);
}

#[tokio::test]
async fn caps_hold_whatever_comes_together() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.db().await, scratch.db().await);
    let day = Policy { daily_credits: Some(5), ..Policy::default() };
    let minute = Policy { calls_per_minute: Some(5), ..Policy::default() };
    for (n, policy) in (0_u128..).zip([day, minute]) {
        let key = capped(&one, policy).await;
        let mut tasks = tokio::task::JoinSet::new();
        for call in 0..40_u128 {
            let (db, key) = (if call % 2 == 0 { one.clone() } else { two.clone() }, key.clone());
            tasks.spawn(async move { place(&db, &key, n * 100 + call + 1, T0).await });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5);
        assert_eq!(one.active_count(key.id).await.unwrap(), 5);
        assert_eq!(one.credits_of_day(key.id, T0).await.unwrap(), 5);
    }
}

#[tokio::test]
async fn a_key_without_caps_is_counted_all_the_same() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await;
    for id in 1..=3 {
        assert_eq!(place(&db, &key, id, T0).await, Ok(()));
    }
    assert_eq!(db.credits_of_day(key.id, T0).await.unwrap(), 3);
    let none = capped(&db, Policy { calls_per_minute: Some(0), ..Policy::default() }).await;
    assert_eq!(place(&db, &none, 9, T0).await, Err(Refusal::TooFast { retry_after_s: 60 }));
}

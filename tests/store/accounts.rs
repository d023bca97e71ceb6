//! Keys, trunks, counters.

use trunkline::config::TrunkConfig;
use trunkline::store::StoreError;
use trunkline::store::accounts::{NewKey, ROTATION_MS, TrunkChoice};
use trunkline::store::trunks::NewTrunk;

use crate::{Scratch, T0, key};

fn trunk(name: &str) -> NewTrunk {
    let config =
        TrunkConfig { name: name.into(), proxy: "sip:127.0.0.1:5070".into(), ..TrunkConfig::default() };
    NewTrunk::try_from(&config).unwrap()
}

fn named(trunks: &[&str]) -> NewKey {
    let names = trunks.iter().map(|name| (*name).to_owned()).collect();
    NewKey { trunks: TrunkChoice::Names(names), ..NewKey::named("test") }
}

#[tokio::test]
async fn a_key_is_found_by_its_secret_until_it_is_revoked() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let made = db.create_key(NewKey::named("shop"), T0).await.unwrap();
    assert_eq!(made.key.id, 1);
    assert_eq!(db.find_key_at(&made.secret, T0).await.unwrap(), Some(made.key.clone()));
    assert_eq!(db.find_key(&made.secret).await.unwrap(), Some(made.key.clone()));
    for wrong in ["", "ak_", &made.secret[..34], &made.secret.to_lowercase(), &made.key.key_id] {
        assert_eq!(db.find_key_at(wrong, T0).await.unwrap(), None, "{wrong}");
    }
    db.revoke_key(&made.key.key_id, T0.plus_ms(5)).await.unwrap();
    assert_eq!(db.find_key_at(&made.secret, T0).await.unwrap(), None);
    assert_eq!(db.key(1).await.unwrap().unwrap().revoked_at, Some(T0.plus_ms(5)));
    assert!(matches!(db.revoke_key("key_0", T0).await, Err(StoreError::UnknownKey(_))));
    assert!(matches!(db.rotate_key(&made.key.key_id, T0).await, Err(StoreError::UnknownKey(_))));
}

#[tokio::test]
async fn a_rotated_key_lives_on_for_a_day() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let first = db.create_key(NewKey::named("shop"), T0).await.unwrap();
    let second = db.rotate_key(&first.key.key_id, T0).await.unwrap();
    assert_ne!(first.secret, second.secret);
    assert_eq!((second.key.id, &second.key.key_id), (first.key.id, &first.key.key_id));
    let last = T0.plus_ms(ROTATION_MS - 1);
    let after = T0.plus_ms(ROTATION_MS);
    for (secret, before_valid, after_valid) in [(&first.secret, true, false), (&second.secret, true, true)] {
        assert_eq!(db.find_key_at(secret, last).await.unwrap().is_some(), before_valid);
        assert_eq!(db.find_key_at(secret, after).await.unwrap().is_some(), after_valid);
    }
    let both = [second.key.webhook_secret.clone(), first.key.webhook_secret.clone()];
    assert_eq!(db.webhook_secrets(first.key.id, last).await.unwrap(), both);
    assert_eq!(db.webhook_secrets(first.key.id, after).await.unwrap(), both[..1]);

    let third = db.rotate_key(&first.key.key_id, T0.plus_ms(1)).await.unwrap();
    assert!(
        db.find_key_at(&first.secret, T0.plus_ms(2)).await.unwrap().is_none(),
        "two keys live at once, not three"
    );
    assert!(db.find_key_at(&second.secret, T0.plus_ms(2)).await.unwrap().is_some());
    assert!(db.find_key_at(&third.secret, T0.plus_ms(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn another_process_is_seen_at_once_and_everything_is_kept() {
    let scratch = Scratch::new();
    let server = scratch.db().await;
    let command_line = scratch.db().await;
    let made = command_line.create_key(NewKey::named("shop"), T0).await.unwrap();
    assert!(server.find_key_at(&made.secret, T0).await.unwrap().is_some());
    command_line.revoke_key(&made.key.key_id, T0).await.unwrap();
    assert!(server.find_key_at(&made.secret, T0).await.unwrap().is_none());
    server.close().await;
    command_line.close().await;
    let again = scratch.db().await;
    assert_eq!(again.keys().await.unwrap().len(), 1);
    again.ping().await.unwrap();
}

#[tokio::test]
async fn unknown_trunks_are_named_and_nothing_is_made() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    db.upsert_trunk(&trunk("a")).await.unwrap();
    match db.create_key(named(&["x", "a", "y"]), T0).await {
        Err(StoreError::UnknownTrunks(names)) => assert_eq!(names, ["x", "y"]),
        other => panic!("{other:?}"),
    }
    assert!(db.keys().await.unwrap().is_empty());
    assert_eq!(key(&db, None).await.key_id, db.keys().await.unwrap()[0].key_id);
}

#[tokio::test]
async fn a_key_sees_its_trunks_in_its_order() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    for name in ["a", "b", "c"] {
        db.upsert_trunk(&trunk(name)).await.unwrap();
    }
    let names = async |key: i64| {
        let trunks = db.key_trunks(key).await.unwrap();
        trunks.into_iter().map(|trunk| trunk.name).collect::<Vec<_>>().join(",")
    };
    let mine = db.create_key(named(&["c", "a"]), T0).await.unwrap().key.id;
    let all =
        db.create_key(NewKey { trunks: TrunkChoice::All, ..NewKey::named("x") }, T0).await.unwrap().key.id;
    let none = key(&db, None).await.id;
    assert_eq!(
        (names(mine).await, names(all).await, names(none).await),
        ("c,a".into(), "a,b,c".into(), "".into())
    );

    let changed = NewTrunk { proxy: "sip:127.0.0.2".into(), ..trunk("b") };
    assert_eq!(db.upsert_trunk(&changed).await.unwrap().id, 2);
    assert_eq!(db.trunks().await.unwrap()[1].proxy, "sip:127.0.0.2");
    assert!(db.remove_trunk("c", T0).await.unwrap());
    assert!(!db.remove_trunk("c", T0).await.unwrap());
    assert_eq!((names(mine).await, names(all).await), ("a".into(), "a,b".into()));
    assert_eq!(db.trunk_names(all).await.unwrap(), TrunkChoice::All);
    assert_eq!(db.trunk_names(mine).await.unwrap(), TrunkChoice::Names(vec!["a".into()]));
    assert_eq!(db.trunk_names(none).await.unwrap(), TrunkChoice::None);
}

#[tokio::test]
async fn a_balance_never_falls_below_what_is_held() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, Some(3)).await;
    assert!(crate::place(&db, &crate::order(key.id, 1, None)).await);
    assert_eq!(db.add_credit(&key.key_id, 7, T0).await.unwrap(), 10);
    assert!(matches!(db.add_credit(&key.key_id, -10, T0).await, Err(StoreError::BelowHeld(_))));
    assert_eq!(db.add_credit(&key.key_id, -9, T0).await.unwrap(), 1);
    let free = crate::key(&db, None).await;
    assert!(matches!(db.add_credit(&free.key_id, 1, T0).await, Err(StoreError::UnlimitedCredits(_))));
    assert!(matches!(db.add_credit("key_0", 1, T0).await, Err(StoreError::UnknownKey(_))));
}

#[tokio::test]
async fn last_used_is_written_at_most_once_a_second() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let id = key(&db, None).await.id;
    for (ms, seen) in [(0, 0), (999, 0), (1000, 1000), (1500, 1000), (9000, 9000)] {
        db.touch_key(id, T0.plus_ms(ms)).await.unwrap();
        assert_eq!(db.key(id).await.unwrap().unwrap().last_used, Some(T0.plus_ms(seen)), "{ms}");
    }
}

#[tokio::test]
async fn numbers_are_never_given_twice() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let id = key(&db, None).await.id;
    for wanted in 1..=3 {
        let mut tx = db.begin().await.unwrap();
        assert_eq!(tx.next_call_counter().await.unwrap(), wanted);
        assert_eq!(tx.next_trunk_cursor(id).await.unwrap(), u64::try_from(wanted).unwrap() - 1);
        tx.commit().await.unwrap();
    }
    db.close().await;
    let db = scratch.db().await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(tx.next_call_counter().await.unwrap(), 4);
}

#[tokio::test]
async fn only_files_are_opened() {
    for url in ["sqlite::memory:", "mysql://localhost/x", "trunkline.db", "sqlite://x?mode=memory"] {
        assert!(matches!(trunkline::store::Db::open(url).await, Err(StoreError::Url(_))), "{url}");
    }
}

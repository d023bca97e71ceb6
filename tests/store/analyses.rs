//! Conversations that wait to be summed up: which of them, claimed by one at a time, kept once.

use std::sync::Arc;

use tokio::sync::Notify;
use trunkline::journal::{Journal, Live, keep_analysis};
use trunkline::model::CallId;
use trunkline::model::analysis::{Analysis, Sentiment};
use trunkline::model::call::{CallView, EndReason};
use trunkline::model::event::{CallEvent, Speaker};
use trunkline::model::purpose::Mode;
use trunkline::model::turn::{Span, TurnTimes};
use trunkline::store::Db;

use crate::{Scratch, T0, at, ended, formats, key, order, place};

fn said(by: Speaker, text: &str, turn: u32, from_ms: i64) -> CallEvent {
    let span = Span { from: T0.plus_ms(from_ms), until: T0.plus_ms(from_ms + 500) };
    CallEvent::Said { by, text: text.into(), turn, span: Some(span) }
}

/// Four calls that are over: a conversation, one in which only the agent spoke, one that an application drove, and one
/// that nobody answered.
async fn over(db: &Db) {
    let key = key(db, None).await.id;
    let live = Live::default();
    let (journal, task) = Journal::start(db.clone(), live.clone(), formats(), Arc::new(Notify::new()));
    for (id, mode) in [(1, Mode::Agent), (2, Mode::Conversation), (3, Mode::Control), (4, Mode::Agent)] {
        let mut order = order(key, id, None);
        order.purpose.mode = mode;
        assert!(place(db, &order).await);
        live.admit(CallView::new(Arc::new(order)));
    }
    let times = TurnTimes { turn: 2, total_ms: Some(900), own_ms: Some(9), ..TurnTimes::default() };
    for (call, ms, event) in [
        (1, 0, CallEvent::Answered),
        (1, 700, said(Speaker::Agent, "Hello.", 1, 100)),
        (1, 1700, said(Speaker::Caller, "A table, please.", 2, 1000)),
        (1, 1800, CallEvent::TurnTimed(Box::new(times))),
        (1, 5000, ended(EndReason::NormalHangup)),
        // What was being said when the call ended is told a moment later.
        (1, 5010, said(Speaker::Agent, "With", 3, 4500)),
        (2, 0, CallEvent::Answered),
        (2, 700, said(Speaker::Agent, "Hello.", 1, 100)),
        (2, 5000, ended(EndReason::NormalHangup)),
        (3, 0, CallEvent::Answered),
        (3, 700, said(Speaker::Caller, "Hello.", 1, 100)),
        (3, 5000, ended(EndReason::NormalHangup)),
        (4, 5000, ended(EndReason::Busy)),
    ] {
        journal.record(at(call, ms, event));
    }
    drop(journal);
    task.await.unwrap();
}

#[tokio::test]
async fn a_conversation_waits_is_claimed_once_and_is_summed_up_once() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    over(&db).await;
    let now = T0.plus_ms(10_000);
    assert_eq!(db.queue_analyses(T0, T0.plus_ms(4999)).await.unwrap(), 0, "none had ended");
    assert_eq!(db.queue_analyses(T0, now).await.unwrap(), 1);
    assert_eq!(db.queue_analyses(T0, now).await.unwrap(), 0, "it waits already");
    let call = CallId(1);
    assert_eq!(db.claim_analysis(now, now.plus_ms(1000)).await.unwrap(), Some(call));
    assert_eq!(db.claim_analysis(now, now.plus_ms(1000)).await.unwrap(), None, "it is claimed");
    // Whoever claimed it may have died.
    let later = now.plus_ms(2000);
    assert_eq!(db.claim_analysis(later, later.plus_ms(1000)).await.unwrap(), Some(call));
    db.put_analysis_off(call, later, 3).await.unwrap();
    assert_eq!(db.claim_analysis(later, later).await.unwrap(), Some(call));

    let view = db.call(call).await.unwrap().unwrap();
    let turns = db.transcript(call, view.answered_at).await.unwrap();
    let texts: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
    assert_eq!(texts, ["Hello.", "A table, please.", "With"]);
    assert_eq!((turns[1].span.from, turns[1].span.until), (T0.plus_ms(1000), T0.plus_ms(1500)));
    let times = db.turn_times(call).await.unwrap();
    assert_eq!((times.len(), times[0].turn, times[0].own_ms), (1, 2, Some(9)));
    for name in [view.order.kaphila_id.clone(), call.call_sid(), call.hex()] {
        assert_eq!(db.call_named(&name).await.unwrap(), Some(call), "{name}");
    }
    assert_eq!(db.call_named("CA1").await.unwrap(), None);

    let analysis = Analysis { summary: "A table was wanted.".into(), sentiment: Sentiment::Neutral };
    keep_analysis(&db, &formats(), &view, &analysis, later).await.unwrap();
    let other = Analysis { summary: "Something else.".into(), sentiment: Sentiment::Negative };
    assert_eq!(keep_analysis(&db, &formats(), &view, &other, later).await.unwrap(), 0);
    let tenant = view.order.tenant.clone();
    let kept = db.tenant_call(&tenant, call).await.unwrap().unwrap();
    assert_eq!(kept.analysis, Some(analysis));
    assert_eq!(db.tenant_call(&tenant, CallId(2)).await.unwrap().unwrap().analysis, None);
    assert_eq!(db.claim_analysis(later.plus_ms(99_999), later).await.unwrap(), None);
}

#[tokio::test]
async fn what_fails_three_times_is_left_alone() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    over(&db).await;
    let now = T0.plus_ms(10_000);
    db.queue_analyses(T0, now).await.unwrap();
    for _ in 0..3 {
        assert_eq!(db.claim_analysis(now, now.plus_ms(1)).await.unwrap(), Some(CallId(1)));
        db.put_analysis_off(CallId(1), now, 3).await.unwrap();
    }
    assert_eq!(db.claim_analysis(now.plus_ms(1_000_000), now).await.unwrap(), None);
    assert_eq!(db.queue_analyses(T0, now).await.unwrap(), 0);
}

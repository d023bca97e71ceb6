//! The history of calls: pages, filters, whose it is.

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{go, number, world};

#[test]
fn t73_t74_t75_calls_are_listed_in_pages_newest_first() {
    go(async {
        let world = world().await;
        let (key, stranger) = (world.key("100"), world.key("10"));
        let empty = key.post_bytes("/api/call-logs", "").await.expect(200);
        assert_eq!((&empty["logs"], &empty["total_count"]), (&json!([]), &json!(0)));
        assert_eq!(empty["pagination"], json!({"page": 1, "page_size": 20, "total_pages": 0}));

        let mut tasks = JoinSet::new();
        for n in 0..25 {
            // One in five is busy, the others are not there.
            let (key, body) =
                (key.clone(), json!({"number": number(if n % 5 == 0 { "0300" } else { "0304" })}));
            tasks.spawn(async move { key.call(&body).await });
        }
        for call in tasks.join_all().await {
            key.wait_ended(&call).await;
        }
        let page = async |body: serde_json::Value| key.post("/api/call-logs", &body).await.expect(200);
        let first = page(json!({})).await;
        let second = page(json!({"page": 2, "page_size": 20})).await;
        let rows = |page: &serde_json::Value| page["logs"].as_array().expect("rows").clone();
        assert_eq!((rows(&first).len(), rows(&second).len()), (20, 5));
        assert_eq!((&first["total_count"], &first["pagination"]["total_pages"]), (&json!(25), &json!(2)));
        assert_eq!(page(json!({"page": 3})).await["logs"], json!([]));
        let all = [rows(&first), rows(&second)].concat();
        let times: Vec<_> = all.iter().map(|row| row["created_at"].as_str().expect("a time")).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
        let mut ids: Vec<_> = all.iter().map(|row| row["call_id"].as_str().expect("an id")).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 25, "no row is on two pages");
        let documented = ["amd_status", "call_id", "created_at", "duration", "number", "status"];
        assert!(all[0].as_object().expect("a row").keys().eq(documented), "{}", all[0]);

        let busy = page(json!({"status": "busy", "page_size": 3})).await;
        assert_eq!((rows(&busy).len(), &busy["total_count"]), (3, &json!(5)));
        assert!(rows(&busy).iter().all(|row| row["status"] == "busy"), "{busy}");
        assert_eq!(busy["pagination"], json!({"page": 1, "page_size": 3, "total_pages": 2}));
        assert_eq!(page(json!({"status": "nonsense"})).await["total_count"], 0);
        assert_eq!(stranger.post("/api/call-logs", &json!({})).await.expect(200)["total_count"], 0);
    });
}

#[test]
fn t76_bad_pages_are_refused() {
    go(async {
        let key = world().await.key("10");
        let bad = [
            json!({"page": 0}),
            json!({"page_size": 0}),
            json!({"page_size": 101}),
            json!({"page": "x"}),
            json!({"page": 1.5}),
            json!({"status": 7}),
        ];
        for body in bad {
            key.post("/api/call-logs", &body).await.refused(400);
        }
    });
}

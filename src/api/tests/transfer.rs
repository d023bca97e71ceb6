//! Calls that are put through, as far as the rooms above the engine are concerned.

use axum::http::StatusCode;

use super::world::{World, answers};
use crate::clock;

#[tokio::test]
async fn a_transfer_leaves_the_place_of_the_call_that_is_up_alone() {
    let world = World::new(answers).await;
    let key = world.key("A", &["a"], |_| {}).await;
    world.call(&key).await;
    let call = world.orders.lock().unwrap().last().unwrap().id;
    let on = || world.app.rooms.fleet.report(clock::now(), "a-endpoint").active_calls;
    assert_eq!(on(), 1);
    let body = format!(r#"{{"call_sid":"{}","target":"+14155550199"}}"#, call.call_sid());
    let answer = world.post("/api/override/transfer", &key, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(world.commands.lock().unwrap().last().unwrap(), "transfer +14155550199");
    assert_eq!(on(), 1, "the live call still has its place");
}

//! What nobody may do to themselves or to others by way of a surface: keys that spend what their maker may not, agents
//! that are taken from campaigns, numbers on agents that do not exist, tenants that lock themselves out.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{World, rings};
use crate::clock;
use crate::model::PhoneNumber;
use crate::store::numbers::{NewNumber, OnCall};

#[tokio::test]
async fn a_key_that_is_bounded_by_the_day_makes_none_that_is_not() {
    let world = World::new(rings).await;
    for (name, credits, daily, child) in [
        ("unlimited", None, None, None),
        ("daily", None, Some(5), Some(0)),
        ("bounded", Some(7), None, Some(0)),
        ("both", Some(7), Some(5), Some(0)),
    ] {
        let key =
            world.key(name, &[], |new| (new.credits, new.policy.daily_credits) = (credits, daily)).await;
        let made = world.post("/api/v1/api-keys", &key, r#"{"name":"child"}"#).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
        let keys = world.db.keys().await.unwrap();
        let newest = keys.iter().max_by_key(|key| key.id).unwrap();
        assert_eq!((newest.name.as_str(), newest.credits), ("child", child), "{name}");
        assert_eq!(newest.policy.daily_credits, daily, "{name}");
    }
}

#[tokio::test]
async fn a_tenant_has_a_hundred_keys_at_most() {
    let world = World::new(rings).await;
    let key = world.key("A", &[], |_| {}).await;
    for n in 1..100 {
        let made = world.post("/api/v1/api-keys", &key, &json!({"name": format!("k{n}")}).to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{n}: {}", made.text());
    }
    let more = world.post("/api/v1/api-keys", &key, r#"{"name":"more"}"#).await;
    assert_eq!((more.status.as_u16(), &more.json()["error"]["code"]), (422, &json!("LIMIT_REACHED")));
}

#[tokio::test]
async fn an_agent_that_a_campaign_wants_stays_on_either_surface() {
    let world = World::new(rings).await;
    let key = world.key("A", &["t"], |_| {}).await;
    let agent = json!({"name": "A", "systemPrompt": "P", "firstMessage": "Hello.", "record": false});
    let agent = world.post("/api/v1/agents", &key, &agent.to_string()).await.json();
    let new = NewNumber {
        number: PhoneNumber::from_digits("14155550177").unwrap(),
        tenant: "default".into(),
        friendly_name: String::new(),
        trunk: None,
        on_call: OnCall::Nothing,
    };
    world.db.add_number(&new, clock::now().wall).await.unwrap();
    let numbers = world.get("/api/v1/phone-numbers", &key).await.json();
    let campaign = json!({"name": "C", "agentId": agent["id"], "phoneNumberId": numbers[0]["id"]});
    let campaign = world.post("/api/v1/campaigns", &key, &campaign.to_string()).await.json();
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    for (path, status) in [("/api/agents", 409), ("/api/v1/agents", 400)] {
        let refused = world.ask(Method::DELETE, &format!("{path}/{}", id(&agent)), Some(&key), "").await;
        assert_eq!(refused.status.as_u16(), status, "{}", refused.text());
        assert!(refused.text().contains("Agent is in a campaign"), "{}", refused.text());
    }
    let path = format!("/api/v1/campaigns/{}", id(&campaign));
    let over = world.ask(Method::PATCH, &path, Some(&key), r#"{"status":"completed"}"#).await;
    assert_eq!(over.status, StatusCode::OK, "{}", over.text());
    let gone = world.ask(Method::DELETE, &format!("/api/agents/{}", id(&agent)), Some(&key), "").await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.text());
}

#[tokio::test]
async fn admins_are_told_what_they_must_not() {
    let world = World::new(rings).await;
    let admin = world.key("ops", &[], |new| new.scopes.push("admin".to_owned())).await;
    for path in ["/tenants/default", "/admin/v1/tenants/default"] {
        let refused = world.ask(Method::PATCH, path, Some(&admin), r#"{"status":"suspended"}"#).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{path}: {}", refused.text());
        assert!(refused.text().contains("A key cannot suspend its own tenant"), "{}", refused.text());
        assert_eq!(world.get("/admin/v1/tenants/default", &admin).await.json()["status"], "active");
    }
    let number = json!({"phoneNumber": "+14155550188", "onCall": {"action": "agent", "agent": "agent_77"}});
    let refused = world.post("/admin/v1/numbers", &admin, &number.to_string()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text().contains("onCall.agent must be an agent"), "{}", refused.text());
}

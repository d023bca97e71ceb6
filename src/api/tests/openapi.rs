//! The document against the router, in this process.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::Value;

use super::world::{World, rings};
use crate::api::DIALECTS;

/// Every documented path has exactly its documented methods, wherever it is mounted.
#[tokio::test]
async fn documented_methods_are_the_served_ones() {
    let world = World::new(rings).await;
    let document = world.ask(Method::GET, "/openapi.json", None, "").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 20, "{}", paths.len());
    for (path, item) in paths {
        let mut documented: Vec<String> =
            item.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        if documented.contains(&"GET".to_owned()) {
            documented.push("HEAD".to_owned());
        }
        documented.sort();
        let filled = path.replace(['{', '}'], "");
        let answer = world.ask(Method::TRACE, &filled, None, "").await;
        assert_eq!(answer.status, 405, "{path}");
        let mut allowed: Vec<String> =
            answer.header("allow").unwrap().split(',').map(|method| method.trim().to_owned()).collect();
        allowed.sort();
        allowed.dedup();
        assert_eq!(allowed, documented, "{path}");
    }
}

/// Two surfaces may use one name for one thing only.
#[tokio::test]
async fn no_two_schemas_share_a_name() {
    let world = World::new(rings).await;
    let mut known = BTreeMap::<String, Value>::new();
    for dialect in DIALECTS {
        let (_, document) = (dialect.routes)(&world.app).into_parts();
        let document = serde_json::to_value(document).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let first = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(first, schema, "{name} has two meanings");
        }
    }
}

/// Whatever is referred to is there, every operation has its own id, a summary and a tag, and every field its words.
#[tokio::test]
async fn the_document_is_whole() {
    let world = World::new(rings).await;
    let document = world.ask(Method::GET, "/openapi.json", None, "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            assert!(ids.insert(id.to_owned()), "{id} is used twice");
            for needed in ["summary", "responses"] {
                assert!(operation.get(needed).is_some(), "{method} {path} has no {needed}");
            }
            assert!(operation["tags"][0].is_string(), "{method} {path} has no tag");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, about) in schema["properties"].as_object().into_iter().flatten() {
            let words =
                [&about["description"], &about["oneOf"][0]["description"], &about["oneOf"][1]["description"]];
            assert!(words.iter().any(|words| words.is_string()), "{name}.{field} has no words");
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(reference) if name == "$ref" => references.push(reference.clone()),
                    _ => collect(member, references),
                }
            }
        }
        Value::Array(members) => members.iter().for_each(|member| collect(member, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_page_shows_every_operation_and_loads_nothing() {
    let world = World::new(rings).await;
    let document = world.ask(Method::GET, "/openapi.json", None, "").await.json();
    let page = world.ask(Method::GET, "/docs", None, "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let text = page.text();
    for (_, item) in document["paths"].as_object().unwrap() {
        for (_, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(text.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
    for loading in ["src=", "@import", "url(", "fetch(", "<link"] {
        assert!(!text.contains(loading), "{loading}");
    }
}

//! The rules that keep the sources as the README says they are, as tests: each rule holds for every file, and each
//! rule can fail.

#![expect(clippy::unwrap_used, reason = "tests")]

mod rules;
mod source;

use std::path::{Path, PathBuf};

use rules::{RULES, left_over};
use source::Source;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under these folders of the repository, sorted.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        let hidden =
            path.file_name().is_some_and(|name| name == "target" || name == ".git" || name == "node_modules");
        if path.is_dir() && !hidden {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| extensions.iter().any(|e| found == *e)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

fn sources() -> Vec<Source> {
    let files = files(&["src", "sip", "media", "tests", "benches"], &["rs"]);
    files.iter().map(|path| Source::new(&relative(path), &std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_rule_holds_everywhere() {
    let sources = sources();
    assert!(sources.len() > 80, "only {} sources were found", sources.len());
    let mut wrong = Vec::new();
    for (rule, check) in RULES {
        for source in &sources {
            wrong.extend(check(source).into_iter().map(|what| format!("{rule}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    let folders = ["src", "sip", "media", "tests", "benches", "migrations"];
    let mut texts = files(&folders, &["rs", "toml", "md", "sql", "sh", "xml"]);
    texts.extend(
        ["README.md", "CHANGELOG.md", "Cargo.toml", "tests/run", ".ci/run"].map(|name| root().join(name)),
    );
    let wrong: Vec<String> = texts
        .iter()
        .flat_map(|path| left_over(&relative(path), &std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Numbers of the contract's black-box list that have a test each, `t07_…` or, with others, `t06_t07_…`.
const LISTED: &[std::ops::RangeInclusive<u32>] = &[1..=84, 164..=164, 166..=166];

#[test]
fn every_number_of_the_contract_has_its_test() {
    let sources = sources();
    let tests = sources.iter().filter(|source| source.path.starts_with("tests/"));
    let functions = tests.flat_map(|source| source.code.lines().filter_map(|line| line.strip_prefix("fn t")));
    let numbers = |name: &str| -> Vec<u32> {
        let words = name.split('_').map(|word| word.strip_prefix('t').unwrap_or(word).parse().ok());
        words.map_while(|number| number).collect()
    };
    let tested: std::collections::BTreeSet<u32> = functions.flat_map(numbers).collect();
    let missing: Vec<u32> = LISTED.iter().cloned().flatten().filter(|n| !tested.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_top_of_the_repository_stays_small() {
    let expected = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "media",
        "migrations",
        "recordings",
        "sip",
        "sounds",
        "src",
        "tests",
    ];
    let tracked = std::process::Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let listed = String::from_utf8(tracked.stdout).unwrap();
    let tops = listed.lines().map(|line| line.split('/').next().unwrap()).filter(|top| !top.starts_with('.'));
    let strange: Vec<&str> = tops.filter(|top| !expected.contains(top)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// What the rule of this name says of a file.
fn says(rule: &str, path: &str, text: &str) -> usize {
    let (_, check) = RULES.iter().find(|(name, _)| *name == rule).expect("the rule exists");
    check(&Source::new(path, text)).len()
}

/// The rule refuses the first and takes the second.
fn tells_apart(rule: &str, path: &str, bad: &str, good: &str) {
    assert_ne!(says(rule, path, bad), 0, "{rule} takes\n{bad}");
    assert_eq!(says(rule, path, good), 0, "{rule} refuses\n{good}");
}

#[test]
fn documents_lengths_and_exceptions_can_fail() {
    tells_apart("a file says first what it owns", "src/a.rs", "// A\nfn a() {}", "//! A\nfn a() {}");
    tells_apart("files are short", "src/a.rs", &"\n".repeat(601), &"\n".repeat(600));
    let function = |lines: usize| format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2));
    tells_apart("functions are short", "src/a.rs", &function(71), &function(70));
    let rule = "exceptions are said, not hidden";
    tells_apart(rule, "src/a.rs", "#[allow(dead_code)]", "#[expect(dead_code, reason = \"x\")]");
    tells_apart("no test is skipped", "tests/a.rs", "#[test]\n#[ignore]\nfn a() {}", "#[test]\nfn a() {}");
}

#[test]
fn upward_imports_fail() {
    let rule = "rooms import downward";
    let path = "src/store/calls.rs";
    tells_apart(rule, path, "use crate::control::Calls;", "use crate::model::CallId;");
    tells_apart(rule, path, "use crate::{model, api};", "use crate::store::Db;");
    tells_apart(rule, path, "fn a() { crate::api::b() }", "fn a() { /* crate::api::b() */ }");
    tells_apart(rule, path, "mod tests {\n    use crate::engine::Engine;\n}", "use super::super::Db;");
    tells_apart(rule, "src/store.rs", "use super::api;", "mod tests {\n    use super::*;\n}");
    tells_apart(rule, "src/nowhere.rs", "use crate::model::CallId;", "use crate::nowhere::A;");
    tells_apart(rule, "src/engine/call.rs", "use crate::clock;", "use crate::model::Now;");
    assert_eq!(says(rule, "src/engine/driver.rs", "use crate::clock;"), 0);
    assert_eq!(says(rule, "src/lib.rs", "use crate::api;"), 0);
    assert_eq!(says(rule, "sip/src/dialog.rs", "use crate::{Peer, Transport};"), 0);
}

#[test]
fn impure_cores_fail() {
    let rule = "cores are pure";
    for bad in [
        "fn a() { Instant::now() }",
        "fn a() { std::time::SystemTime::now() }",
        "fn a() { std::fs::read(x) }",
        "fn a() { tokio::spawn(x) }",
        "async fn a() { b().await }",
        "use std::collections::HashMap;",
        "use std::sync::Mutex;",
        "fn a() { getrandom::fill(x) }",
    ] {
        for path in [
            "sip/src/dialog.rs",
            "media/src/bridge.rs",
            "src/engine.rs",
            "src/engine/call.rs",
            "src/model/call.rs",
        ] {
            tells_apart(rule, path, bad, "fn a(now: Instant) -> BTreeMap<u8, u8> { b(now) }");
        }
        assert_eq!(says(rule, "sip/src/tokio.rs", bad), 0);
        assert_eq!(says(rule, "media/src/driver/worker.rs", bad), 0);
        assert_eq!(says(rule, "src/engine/driver.rs", bad), 0);
        assert_eq!(says(rule, "src/api.rs", bad), 0);
        assert_eq!(says(rule, "src/engine.rs", &format!("#[cfg(test)]\nmod tests {{ {bad} }}")), 0);
    }
}

#[test]
fn panics_and_wildcards_fail() {
    let rule = "nothing may panic";
    tells_apart(rule, "src/a.rs", "fn a() { b.unwrap() }", "fn a() { b.unwrap_or(c) }");
    tells_apart(rule, "sip/src/a.rs", "fn a() { panic!() }", "fn a() { c(\".unwrap()\") } // panic!");
    tells_apart(
        rule,
        "media/src/a.rs",
        "fn a() { todo!() }",
        "#[cfg(test)]\nmod tests { fn a() { b.unwrap() } }",
    );
    let rule = "no arm swallows a new case";
    let path = "src/api/kaphila/events.rs";
    tells_apart(
        rule,
        path,
        "match e { CallEvent::A => 1, _ => 2 }",
        "match e { CallEvent::A => 1, CallEvent::B(_) => 2 }",
    );
    tells_apart(
        rule,
        path,
        "match e { EndReason::A | EndReason::B => { 1 } _ if c => 2, x => 3 }",
        "match e { 1 => 1, _ => 2 }",
    );
    tells_apart(
        rule,
        path,
        "match (a { b }) { Refusal::A { x: _ } => match y { 1 => 2 }, _ => 3 }",
        "match e { Heard::A(_) => match y { _ => 2 } }",
    );
}

#[test]
fn routes_without_words_fail() {
    let rule = "every route is documented";
    let (bad, good) = ("fn a() { Router::new().route(b, get(c)) }", "fn a() { vec![route(__path_b, b)] }");
    tells_apart(rule, "src/api/phony.rs", bad, good);
    assert_eq!(says(rule, "src/api/openapi.rs", bad) + says(rule, "src/demo.rs", bad), 0);
}

#[test]
fn words_left_over_fail() {
    assert_eq!(left_over("a", concat!("x\n// TO", "DO: y\n")), [concat!("a:2: TO", "DO")]);
    assert_eq!(left_over("a", concat!("see /wo", "rk/main")).len(), 1);
    assert!(left_over("a", "what is to do, and framework/main").is_empty());
}

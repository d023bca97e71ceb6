//! The rules. Each takes a file and gives what is wrong with it.

use crate::source::{Source, functions, matches, words};

/// Longest file and longest function, in lines.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// A rule.
pub(crate) type Rule = fn(&Source) -> Vec<String>;

/// All rules for Rust sources.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("a file says first what it owns", module_doc),
    ("files are short", short_files),
    ("functions are short", short_functions),
    ("rooms import downward", downward_imports),
    ("cores are pure", pure_cores),
    ("nothing may panic", no_panics),
    ("no arm swallows a new case", no_wildcards),
    ("exceptions are said, not hidden", no_allow),
    ("no test is skipped", no_skipped_tests),
    ("every route is documented", documented_routes),
];

/// Which rooms a room may import, besides itself. What is not listed may import nothing.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("clock", &["model"]),
    ("engine", &["model"]),
    (
        "agent",
        &[
            "model", "config", "clock", "store", "journal", "speech", "hearing", "llm", "engine", "control",
            "webhook",
        ],
    ),
    ("store", &["model", "config", "clock"]),
    ("webhook", &["model", "config", "clock", "store"]),
    (
        "relay",
        &[
            "model", "config", "clock", "store", "journal", "speech", "hearing", "llm", "engine", "control",
            "webhook", "agent",
        ],
    ),
    ("http", &["config"]),
    ("journal", &["model", "clock", "store", "webhook"]),
    ("provider", &[]),
    ("speech", &["model", "config", "clock", "provider"]),
    ("hearing", &["model", "config", "provider"]),
    ("llm", &["model", "config", "provider"]),
    ("recordings", &["model", "config", "clock", "store"]),
    ("control", &["model", "config", "clock", "store", "journal", "speech", "engine", "recordings"]),
    ("campaigns", &["model", "clock", "store", "journal", "control"]),
    (
        "api",
        &[
            "model",
            "config",
            "clock",
            "store",
            "journal",
            "speech",
            "engine",
            "control",
            "campaigns",
            "webhook",
            "recordings",
            "relay",
        ],
    ),
    (
        "cli",
        &["model", "config", "clock", "store", "webhook", "control", "provider", "speech", "hearing", "llm"],
    ),
    ("carrier", &["model", "config", "clock", "speech"]),
    ("demo", &["model", "config", "clock", "carrier", "store", "server"]),
    (
        "server",
        &[
            "agent",
            "model",
            "config",
            "clock",
            "store",
            "journal",
            "speech",
            "engine",
            "control",
            "campaigns",
            "webhook",
            "api",
            "hearing",
            "llm",
            "http",
            "recordings",
            "relay",
        ],
    ),
];

/// Files of the cores that drive them, and may touch the world.
const DRIVERS: &[&str] = &["sip/src/tokio", "media/src/driver", "src/engine/driver.rs"];
/// Drivers may import the clock beside what their room may.
const ENGINE_DRIVER: &str = "src/engine/driver.rs";

/// What a core must not do, by the word that does it.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "OsRng",
    "getrandom",
    "thread_rng",
    "spawn",
    ".await",
    "std::fs",
    "tokio::fs",
    "File",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "HashMap",
    "HashSet",
    "Mutex",
    "RwLock",
    "println!",
    "std::env",
];

/// What panics.
const PANICS: &[&str] =
    &[".unwrap()", ".unwrap_err()", "panic!", "todo!", "unimplemented!", "unreachable!", "dbg!"];

/// Enumerations whose every case is decided where it is used.
const DECIDED: &[&str] = &["CallEvent::", "EndReason::", "Heard::", "Refusal::"];

fn module_doc(source: &Source) -> Vec<String> {
    let fine = source.text.starts_with("//! ") || source.text.starts_with("//!\n");
    if fine { Vec::new() } else { vec![format!("{} does not begin with `//!`", source.path)] }
}

fn short_files(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let fine = lines <= FILE_LINES;
    if fine { Vec::new() } else { vec![format!("{} has {lines} lines", source.path)] }
}

fn short_functions(source: &Source) -> Vec<String> {
    let long = functions(&source.code).into_iter().filter_map(|(name, body)| {
        let lines = source.code[body.clone()].lines().count();
        let line = source.line(body.start);
        (lines > FUNCTION_LINES).then(|| format!("{}:{line}: `{name}` has {lines} lines", source.path))
    });
    long.collect()
}

fn downward_imports(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("src/") else { return Vec::new() };
    let room = inside.split(['/', '.']).next().unwrap_or("");
    if matches!(room, "lib" | "main") {
        return Vec::new();
    }
    let may = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, may)| may);
    let mut wrong = Vec::new();
    let mut say = |at: usize, what: String| {
        wrong.push(format!("{}:{}: {what}", source.path, source.line(at)));
    };
    for at in words(&source.code, "crate") {
        let Some(path) = source.code[at..].strip_prefix("crate::") else { continue };
        let to: String = path.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let driver = source.path == ENGINE_DRIVER && to == "clock";
        if to.is_empty() {
            say(at, "rooms are imported one a line, by name".to_owned());
        } else if to != room && !may.contains(&to.as_str()) && !driver {
            say(at, format!("{room} must not import {to}"));
        }
    }
    // In a room's root file, `super` is the crate.
    if !inside.contains('/') && !source.is_test_file() {
        let climbs = source
            .code
            .lines()
            .position(|line| line.starts_with("use super::") || line.starts_with("pub use super::"));
        if let Some(line) = climbs {
            wrong.push(format!("{}:{}: rooms are imported by `crate::`", source.path, line + 1));
        }
    }
    wrong
}

fn is_core(path: &str) -> bool {
    let core = ["sip/src/", "media/src/", "src/engine", "src/model"];
    let drives = DRIVERS.iter().any(|driver| path.starts_with(driver));
    core.iter().any(|core| path.starts_with(core)) && !drives
}

fn pure_cores(source: &Source) -> Vec<String> {
    if is_core(&source.path) { found(source, IMPURE) } else { Vec::new() }
}

fn no_panics(source: &Source) -> Vec<String> {
    found(source, PANICS)
}

/// Where one of these stands in the code that is not for tests.
fn found(source: &Source, banned: &[&str]) -> Vec<String> {
    let code = source.product();
    let places = banned.iter().flat_map(|banned| words(&code, banned).map(move |at| (at, banned)));
    places.map(|(at, banned)| format!("{}:{}: {banned}", source.path, source.line(at))).collect()
}

fn no_wildcards(source: &Source) -> Vec<String> {
    let code = source.product();
    let decided = |pattern: &String| {
        DECIDED.iter().any(|name| pattern.trim_start_matches('|').trim().starts_with(name))
    };
    let wild = |pattern: &String| pattern == "_" || pattern.starts_with("_ if");
    let wrong =
        matches(&code).into_iter().filter(|(_, arms)| arms.iter().any(decided) && arms.iter().any(wild));
    wrong
        .map(|(at, _)| {
            format!("{}:{}: `_` in a match over what must be decided", source.path, source.line(at))
        })
        .collect()
}

fn no_allow(source: &Source) -> Vec<String> {
    let hidden = ["#[allow(", "#![allow("].into_iter().flat_map(|word| source.code.match_indices(word));
    hidden
        .map(|(at, word)| {
            format!("{}:{}: {word}…)] instead of #[expect(…, reason)]", source.path, source.line(at))
        })
        .collect()
}

fn no_skipped_tests(source: &Source) -> Vec<String> {
    let skipped = source.code.match_indices("#[ignore");
    skipped.map(|(at, _)| format!("{}:{}: a skipped test", source.path, source.line(at))).collect()
}

/// Where routes are made, each with its documentation.
const ROUTES: &str = "src/api/openapi.rs";

fn documented_routes(source: &Source) -> Vec<String> {
    let surface = source.path.starts_with("src/api") && source.path != ROUTES;
    if !surface {
        return Vec::new();
    }
    let code = source.product();
    let made = [".route(", ".route_service(", ".nest_service("]
        .into_iter()
        .flat_map(|word| code.match_indices(word));
    made.map(|(at, word)| format!("{}:{}: {word}…) beside {ROUTES}", source.path, source.line(at))).collect()
}

/// Words that tell of a workplace or of work left over. In any text of ours, written here in two halves each.
const LEFT_OVER: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp", "/w/"),
    concat!("/tmp", "/brief"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("HA", "CK:"),
    concat!("ChatG", "PT"),
    concat!("Co-Auth", "ored"),
];

/// Words that no text may hold.
pub(crate) fn left_over(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let word = LEFT_OVER.iter().find(|word| content.contains(**word));
        wrong.extend(word.map(|word| format!("{path}:{}: {word}", line + 1)));
    }
    wrong
}

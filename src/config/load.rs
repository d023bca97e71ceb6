//! Reads the configuration: defaults, then the file, then the environment, each over the one before.
//!
//! The sample file is the list of all settings and of their types, so that a name that is not in it is an error,
//! wherever it comes from. This file owns reading; what values make sense is decided in `check`. No error ever
//! prints a value that could be a secret.

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::config::Config;
use crate::model::Secret;

/// The sample file: every setting with its default, and what it means.
pub const SAMPLE: &str = include_str!("sample.toml");

/// What every variable of ours begins with.
const PREFIX: &str = "TRUNKLINE_";
/// Variables with our prefix that are no settings: the log filter, and the seed of the simulated tests.
const NOT_SETTINGS: [&str; 2] = ["TRUNKLINE_LOG", "TRUNKLINE_SEED"];
/// Largest configuration file, and largest file named by `${file:…}`, bytes.
const FILE_MAX: u64 = 1024 * 1024;
/// Most trunks that can be set from the environment.
const ENV_TRUNKS_MAX: usize = 100;

/// Why a configuration was not taken. Each names the setting or the file at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than a configuration can be.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The file is not TOML.
    #[error("{path}, line {line}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the reader said; never the text itself, which may hold a password.
        message: String,
    },
    /// The file has a setting that does not exist.
    #[error("unknown setting `{0}`")]
    Unknown(String),
    /// The environment has a setting that does not exist.
    #[error("unknown setting: the variable {0} names none")]
    UnknownVariable(String),
    /// A value of the wrong kind.
    #[error("`{setting}` must be {wanted}")]
    Type {
        /// The setting's path.
        setting: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// `${env:NAME}` names a variable that is not set.
    #[error("`{setting}` wants the variable {name}, which is not set")]
    NoVariable {
        /// The setting's path.
        setting: String,
        /// The variable.
        name: String,
    },
    /// `${…` without an end, or of a kind that does not exist.
    #[error("`{0}` has a `${{…}}` that is neither ${{env:NAME}} nor ${{file:PATH}}")]
    Reference(String),
    /// A value that cannot be.
    #[error("`{setting}` {reason}")]
    Invalid {
        /// The setting's path.
        setting: String,
        /// Why not.
        reason: String,
    },
    /// A value that its setting cannot hold.
    #[error("{0}")]
    Value(String),
}

/// Reads the configuration. `env` is the process's environment, given by the caller so that tests need not change
/// their own.
///
/// # Errors
/// The first thing that is wrong, by name.
pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let env: BTreeMap<String, String> = env.collect();
    let mut table = match path {
        Some(path) => read_file(path)?,
        None => Table::new(),
    };
    let schema = schema();
    overlay_environment(&mut table, &env, &schema)?;
    for (section, value) in &mut table {
        let known = schema.get(section).ok_or_else(|| ConfigError::Unknown(section.clone()))?;
        settle(value, known, section, &env)?;
    }
    let config: Config = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        // Kinds are right by now; what is left are addresses and ranges, and `error` says at which key.
        ConfigError::Value(error.to_string().trim().replace('\n', " "))
    })?;
    check::check(&config)?;
    Ok(config)
}

/// Reads a text setting that must never be printed.
///
/// # Errors
/// Whatever the deserializer says of a value that is no text.
pub fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret)
}

/// The sample with its optional part switched on: every setting with a value of its kind. Comments have a blank
/// after the `#`, settings have none.
fn schema() -> Table {
    let on: Vec<&str> = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            Some(_) | None => line,
        })
        .collect();
    on.join("\n").parse().expect("the sample is TOML, which its own test checks")
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = read_text(path)?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes().iter().take(start).filter(|b| **b == b'\n').count() + 1;
        ConfigError::Syntax { path: path.to_owned(), line, message: error.message().to_owned() }
    })
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let refused = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(refused)?.len() > FILE_MAX {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(refused)
}

/// Puts each `TRUNKLINE_…` variable where its path says. Values stay text; [`settle`] gives them their kind.
fn overlay_environment(
    table: &mut Table,
    env: &BTreeMap<String, String>,
    schema: &Table,
) -> Result<(), ConfigError> {
    for (name, value) in env {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        if NOT_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        let unknown = || ConfigError::UnknownVariable(name.clone());
        let path = path.to_ascii_lowercase();
        let steps: Vec<&str> = path.split("__").collect();
        let place = match (steps.as_slice(), schema.get(*steps.first().unwrap_or(&""))) {
            ([section, setting], Some(Value::Table(known))) if known.contains_key(*setting) => {
                let section = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
                Some((section, *setting))
            }
            ([section, row, setting], Some(Value::Array(known))) => {
                let exists = known.first().is_some_and(|row| row.get(*setting).is_some());
                let row =
                    row.parse().ok().filter(|row| exists && *row < ENV_TRUNKS_MAX).ok_or_else(unknown)?;
                let rows = table.entry(*section).or_insert_with(|| Value::Array(Vec::new()));
                nth_row(rows, row).map(|place| (place, *setting))
            }
            ([section, part, setting], Some(Value::Table(known))) => {
                let exists = known.get(*part).is_some_and(|part| part.get(*setting).is_some());
                let section = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
                let part = section
                    .as_table_mut()
                    .filter(|_| exists)
                    .map(|section| section.entry(*part).or_insert_with(|| Value::Table(Table::new())));
                part.map(|part| (part, *setting))
            }
            (_, _) => None,
        };
        let (section, setting) = place.ok_or_else(unknown)?;
        let Value::Table(section) = section else {
            return Err(ConfigError::Type { setting: steps.join("."), wanted: "in a section" });
        };
        section.insert(setting.to_owned(), Value::String(value.clone()));
    }
    Ok(())
}

/// The row of this number. Rows below that nobody names stay empty, and the check of trunks refuses them.
fn nth_row(rows: &mut Value, row: usize) -> Option<&mut Value> {
    let rows = rows.as_array_mut()?;
    while rows.len() <= row {
        rows.push(Value::Table(Table::new()));
    }
    rows.get_mut(row)
}

/// Gives `value` the kind that `known` has, with its `${…}` filled in; unknown names inside are errors.
fn settle(
    value: &mut Value,
    known: &Value,
    at: &str,
    env: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    if let Value::String(text) = value {
        let text = fill_in(text, at, env)?;
        *value = typed(text, known, at)?;
        return Ok(());
    }
    match (&mut *value, known) {
        (Value::Table(table), Value::Table(known)) => {
            for (name, value) in table {
                let at = format!("{at}.{name}");
                let known = known.get(name).ok_or_else(|| ConfigError::Unknown(at.clone()))?;
                settle(value, known, &at, env)?;
            }
            Ok(())
        }
        (Value::Array(rows), Value::Array(known)) => {
            let text = Value::String(String::new());
            let known = known.first().unwrap_or(&text);
            let several = rows.iter_mut().enumerate();
            several.into_iter().try_for_each(|(row, value)| settle(value, known, &format!("{at}.{row}"), env))
        }
        (Value::Integer(whole), Value::Float(_)) => {
            // `time_scale = 1` is what people write. Settings are far below 2^53.
            *value = Value::Float(*whole as f64);
            Ok(())
        }
        (given, known) if given.same_type(known) => Ok(()),
        (_, known) => Err(ConfigError::Type { setting: at.to_owned(), wanted: kind(known) }),
    }
}

/// A text as the kind that `known` has.
fn typed(text: String, known: &Value, at: &str) -> Result<Value, ConfigError> {
    let word = text.trim();
    let value = match known {
        Value::String(_) => Some(Value::String(text)),
        Value::Integer(_) => word.parse().ok().map(Value::Integer),
        Value::Float(_) => word.parse().ok().map(Value::Float),
        Value::Boolean(_) => word.parse().ok().map(Value::Boolean),
        // Rows of tables have no text form.
        Value::Array(rows) if rows.iter().all(|row| !row.is_table()) => {
            let parts = word.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => None,
    };
    value.ok_or_else(|| ConfigError::Type { setting: at.to_owned(), wanted: kind(known) })
}

fn kind(known: &Value) -> &'static str {
    match known {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time",
        Value::Array(rows) if rows.iter().any(Value::is_table) => "rows of settings, [[…]]",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section, […]",
    }
}

/// Replaces `${env:NAME}` and `${file:PATH}`. What comes in is not looked at again.
fn fill_in(text: &str, at: &str, env: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, after) =
            after.split_once('}').ok_or_else(|| ConfigError::Reference(at.to_owned()))?;
        match reference.split_once(':') {
            Some(("env", name)) => {
                let missing = || ConfigError::NoVariable { setting: at.to_owned(), name: name.to_owned() };
                out.push_str(env.get(name).ok_or_else(missing)?);
            }
            Some(("file", path)) => {
                let text = read_text(Path::new(path))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                out.push_str(text.strip_suffix('\r').unwrap_or(text));
            }
            Some(_) | None => return Err(ConfigError::Reference(at.to_owned())),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests;

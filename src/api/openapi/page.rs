//! The document as a page for people: one file that loads nothing, complete without scripts, made once at start.
//! Every text is escaped; the script only filters what is there already.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// The page around the operations.
const PAGE: &str = include_str!("../docs.html");

/// Deepest nesting of a schema that is shown, so that one that holds itself ends.
const DEPTH_MAX: usize = 6;

/// Methods in the order in which they are shown.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The whole page.
pub(super) fn render(document: &Value) -> String {
    let mut groups: Vec<(&str, String)> = Vec::new();
    for (path, item) in members(&document["paths"]) {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let group = operation["tags"][0].as_str().unwrap_or("Other");
            let shown = show_operation(document, path, method, operation);
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, operations)) => operations.push_str(&shown),
                None => groups.push((group, shown)),
            }
        }
    }
    groups.sort_by_key(|(name, _)| *name);
    let mut body = String::new();
    for (name, operations) in groups {
        put(&mut body, format_args!("<section><h2>{}</h2>\n{operations}</section>\n", escaped(name)));
    }
    let text = |pointer: &str| escaped(document.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    PAGE.replace("{{version}}", &text("/info/version"))
        .replace("{{description}}", &marked(document["info"]["description"].as_str().unwrap_or_default()))
        .replace("{{operations}}", &body)
}

fn show_operation(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let mut out = String::new();
    let id = operation["operationId"].as_str().unwrap_or_default();
    put(
        &mut out,
        format_args!(
            "<details class=\"operation\" id=\"{}\"><summary><b class=\"{method}\">{}</b> <code>{}</code> <span>{}</span></summary>\n",
            escaped(id),
            method.to_uppercase(),
            escaped(path),
            marked(operation["summary"].as_str().unwrap_or_default()),
        ),
    );
    if let Some(text) = operation["description"].as_str() {
        put(&mut out, format_args!("<p>{}</p>\n", marked(text)));
    }
    if operation.get("security").is_none() {
        out.push_str("<p>Needs no key.</p>\n");
    }
    show_parameters(&mut out, operation);
    let body = operation.pointer("/requestBody/content/application~1json/schema");
    if let Some(schema) = body {
        out.push_str("<h3>Body</h3>\n");
        show_fields(&mut out, document, schema);
    }
    show_responses(&mut out, document, operation);
    let curl = curl(document, path, method, operation);
    put(&mut out, format_args!("<h3>Example</h3>\n<pre>{}</pre>\n</details>\n", escaped(&curl)));
    out
}

fn show_parameters(out: &mut String, operation: &Value) {
    let parameters = items(&operation["parameters"]);
    if parameters.is_empty() {
        return;
    }
    out.push_str("<h3>Parameters</h3>\n<table><tr><th>name</th><th>in</th><th>type</th><th></th></tr>\n");
    for parameter in parameters {
        let text = |name: &str| parameter[name].as_str().unwrap_or_default();
        let required = if parameter["required"] == json!(true) { " required" } else { "" };
        put(
            out,
            format_args!(
                "<tr><td><code>{}</code>{required}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escaped(text("name")),
                escaped(text("in")),
                kind(&parameter["schema"]),
                marked(text("description")),
            ),
        );
    }
    out.push_str("</table>\n");
}

fn show_responses(out: &mut String, document: &Value, operation: &Value) {
    out.push_str("<h3>Answers</h3>\n<dl>\n");
    for (status, response) in members(&operation["responses"]) {
        let description = response["description"].as_str().unwrap_or_default();
        put(out, format_args!("<dt>{}</dt><dd>{}\n", escaped(status), marked(description)));
        if status.starts_with('2') {
            for (kind, content) in members(&response["content"]) {
                put(out, format_args!("<code>{}</code>\n", escaped(kind)));
                show_fields(out, document, &content["schema"]);
            }
        }
        out.push_str("</dd>\n");
    }
    out.push_str("</dl>\n");
}

fn show_fields(out: &mut String, document: &Value, schema: &Value) {
    let mut rows = Vec::new();
    collect_fields(document, schema, "", 0, &mut rows);
    if rows.is_empty() {
        return;
    }
    out.push_str("<table><tr><th>field</th><th>type</th><th></th></tr>\n");
    for row in rows {
        out.push_str(&row);
    }
    out.push_str("</table>\n");
}

/// One row for each field, inner ones below the outer one with its name before theirs.
fn collect_fields(document: &Value, schema: &Value, before: &str, depth: usize, rows: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolved(document, schema);
    for part in items(&schema["allOf"]).iter().chain(items(&schema["oneOf"])) {
        collect_fields(document, part, before, depth + 1, rows);
    }
    if schema.get("items").is_some() {
        return collect_fields(document, &schema["items"], before, depth + 1, rows);
    }
    let required = items(&schema["required"]);
    for (name, field) in members(&schema["properties"]) {
        let needed = if required.contains(&json!(name)) { " required" } else { "" };
        let path = format!("{before}{name}");
        let parts = items(&field["oneOf"]).iter().map(|part| &part["description"]);
        let description = std::iter::once(&field["description"]).chain(parts).find_map(Value::as_str);
        let description = description.unwrap_or_default();
        rows.push(format!(
            "<tr><td><code>{}</code>{needed}</td><td>{}</td><td>{}{}</td></tr>\n",
            escaped(&path),
            kind(field),
            marked(description),
            bounds(field),
        ));
        let inner = if kind(field) == "list" { format!("{path}[].") } else { format!("{path}.") };
        collect_fields(document, field, &inner, depth + 1, rows);
    }
}

/// What may be in a field, in a word.
fn kind(schema: &Value) -> &'static str {
    let names = match &schema["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    match names.iter().find(|name| **name != "null") {
        Some(&"string") => "text",
        Some(&"integer") => "whole number",
        Some(&"number") => "number",
        Some(&"boolean") => "true or false",
        Some(&"array") => "list",
        _ => "object",
    }
}

fn bounds(field: &Value) -> String {
    let mut parts = Vec::new();
    if let (Some(least), Some(most)) = (field.get("minimum"), field.get("maximum")) {
        parts.push(format!("{least} to {most}"));
    }
    if let Some(most) = field.get("maxLength") {
        parts.push(format!("at most {most} characters"));
    }
    if let Some(usual) = field.get("default") {
        parts.push(format!("unless said: {usual}"));
    }
    if parts.is_empty() { String::new() } else { format!(" <small>({})</small>", escaped(&parts.join("; "))) }
}

/// A command that can be pasted.
fn curl(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let mut line = String::from("curl -s");
    if method != "get" {
        put(&mut line, format_args!(" -X {}", method.to_uppercase()));
    }
    put(&mut line, format_args!(" http://127.0.0.1:3000{path}"));
    if operation.get("security").is_some() {
        line.push_str(" \\\n     -H \"Authorization: Bearer $KEY\"");
    }
    let body = operation.pointer("/requestBody/content/application~1json/schema");
    if let Some(schema) = body {
        let example = example(document, schema, 0);
        put(&mut line, format_args!(" \\\n     -H 'Content-Type: application/json' \\\n     -d '{example}'"));
    }
    line
}

/// A body with the fields that must be there, and those that have an example.
fn example(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolved(document, schema);
    if let Some(given) = schema.get("examples").and_then(|all| all.get(0)).or_else(|| schema.get("example")) {
        return given.clone();
    }
    let whole = items(&schema["oneOf"]).iter().find(|part| part["type"] != "null");
    if let (Some(part), true) = (whole, depth < DEPTH_MAX) {
        return example(document, part, depth + 1);
    }
    match kind(schema) {
        "text" => json!("…"),
        "whole number" | "number" => {
            schema.get("default").or(schema.get("minimum")).cloned().unwrap_or(json!(1))
        }
        "true or false" => json!(true),
        "list" => json!([]),
        _ => {
            let required = items(&schema["required"]);
            let wanted = |name: &str, field: &Value| {
                required.contains(&json!(name)) || field.get("examples").is_some()
            };
            let fields = members(&schema["properties"]).filter(|(name, field)| wanted(name, field));
            let depth_left = depth < DEPTH_MAX;
            let fields = fields.filter(|_| depth_left);
            let fields = fields.map(|(name, field)| (name.clone(), example(document, field, depth + 1)));
            Value::Object(fields.collect::<Map<String, Value>>())
        }
    }
}

/// What a reference refers to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Text that may stand in HTML, in an attribute too.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped text in which `x` is code.
fn marked(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in escaped(text).split('`').enumerate() {
        if index % 2 == 1 {
            put(&mut out, format_args!("<code>{part}</code>"));
        } else {
            out.push_str(part);
        }
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_code_is_marked() {
        assert_eq!(marked("a `b<c>` & \"d\""), "a <code>b&lt;c&gt;</code> &amp; &quot;d&quot;");
        let document = json!({
            "info": {"version": "1", "description": "<script>"},
            "paths": {"/a/{b}": {"get": {
                "operationId": "x", "tags": ["T<"], "summary": "S", "responses": {"200": {"description": "<i>"}},
            }}},
        });
        let page = render(&document);
        assert!(
            page.contains("&lt;script&gt;") && page.contains("<h2>T&lt;</h2>") && page.contains("&lt;i&gt;")
        );
        assert!(page.contains("curl -s http://127.0.0.1:3000/a/{b}") && !page.contains("{{"));
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let document = json!({"components": {"schemas": {"A": {
            "type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/components/schemas/A"}},
        }}}});
        let schema = json!({"$ref": "#/components/schemas/A"});
        let mut out = String::new();
        show_fields(&mut out, &document, &schema);
        assert_eq!(out.matches("<tr>").count(), DEPTH_MAX + 2);
        assert!(example(&document, &schema, 0).is_object());
    }
}

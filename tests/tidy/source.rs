//! Just enough of Rust's grammar to look at sources without a compiler: text without comments and literals, braces,
//! functions, matches, and what is compiled for tests only.

use std::ops::Range;

/// One source file.
pub(crate) struct Source {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// The same length and lines, with comments and the insides of literals blanked.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// The code without what is compiled for tests only.
    pub(crate) fn product(&self) -> String {
        if self.is_test_file() {
            return String::new();
        }
        let mut code = self.code.clone();
        while let Some(at) = code.find("#[cfg(test)]") {
            let end = item_end(&code, at);
            code.replace_range(at..end, &blanks(&code[at..end]));
        }
        code
    }

    /// Whether the whole file is a test or a bench, by its folder or its name.
    pub(crate) fn is_test_file(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.contains("benches/")
            || file == "tests.rs"
            || file.ends_with("_tests.rs")
    }

    /// The number of the line that holds this byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

fn blanks(text: &str) -> String {
    text.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect()
}

/// Blanks comments and the insides of strings and characters; bytes stay where they are.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if end > at + 1 {
            out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        at = end;
    }
    String::from_utf8(out).expect("whole tokens were blanked")
}

/// Where the comment or literal that begins here ends; the next byte if none does.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let inside_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + find(rest, b"*/").map_or(rest.len(), |end| end + 2);
    }
    if rest[0] == b'"' {
        return at + quoted(rest, b'"');
    }
    if rest[0] == b'r' && (!inside_word || bytes[at - 1] == b'b') {
        let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let mut close = vec![b'"'];
            close.extend(vec![b'#'; hashes]);
            let from = 2 + hashes;
            return at + find(&rest[from..], &close).map_or(rest.len(), |end| from + end + close.len());
        }
    }
    if rest[0] == b'\'' {
        let escaped = rest.get(1) == Some(&b'\\');
        let width = std::str::from_utf8(rest.get(1..rest.len().min(5)).unwrap_or(&[]))
            .or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]))
            .ok()
            .and_then(|text| text.chars().next())
            .map_or(1, char::len_utf8);
        // `'a` alone is a lifetime.
        if escaped || rest.get(1 + width) == Some(&b'\'') {
            return at + quoted(rest, b'\'');
        }
    }
    at + 1
}

/// The length of a literal in these quotes, with both.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The end of the item that begins here: its closing brace, or its semicolon.
fn item_end(code: &str, at: usize) -> usize {
    let bytes = code.as_bytes();
    let mut depth = 0_i32;
    for (n, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return n + 1;
                }
            }
            b';' if depth == 0 => return n + 1,
            _ => {}
        }
    }
    code.len()
}

/// Where a word stands alone. What begins or ends with a sign is alone there anyway.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let (first, last) = (word.as_bytes().first(), word.as_bytes().last());
    let both = move |one: Option<&u8>, other: Option<&u8>| one.is_some_and(part) && other.is_some_and(part);
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| code.as_bytes().get(before));
        let after = code.as_bytes().get(at + word.len());
        !both(before, first) && !both(last, after)
    })
}

/// The functions with a body: name, and from `fn` to the closing brace.
pub(crate) fn functions(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = item_end(code, at);
        if !name.is_empty() && code[..end].ends_with('}') {
            found.push((name, at..end));
        }
    }
    found
}

/// The matches: where each begins, and the patterns of its arms.
pub(crate) fn matches(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in words(code, "match") {
        let Some(open) = open_brace(&code[at..]) else { continue };
        let end = item_end(code, at + open);
        let inside = &code[at + open + 1..end.saturating_sub(1).max(at + open + 1)];
        found.push((at, arms(inside)));
    }
    found
}

/// The brace that opens a body, past what stands in parentheses before it.
fn open_brace(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (n, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(n),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn arms(inside: &str) -> Vec<String> {
    let mut patterns = Vec::new();
    let mut rest = inside;
    while let Some(arrow) = at_depth_zero(rest, "=>") {
        patterns.push(rest[..arrow].trim().to_owned());
        let body = rest[arrow + 2..].trim_start();
        rest = if body.starts_with('{') {
            body[item_end(body, 0)..].trim_start().trim_start_matches(',')
        } else {
            at_depth_zero(body, ",").map_or("", |comma| &body[comma + 1..])
        };
    }
    patterns
}

fn at_depth_zero(code: &str, what: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (n, byte) in code.bytes().enumerate() {
        if depth == 0 && code.as_bytes()[n..].starts_with(what.as_bytes()) {
            return Some(n);
        }
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "a // b\n\"c\\\"d\" e 'f' '\\'' &'g h r#\"i\"j\"# b\"k\" /* l\nm */ n 'é' o";
    let code = blanked(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "e", "&'g", "h", "b", "n", "o"]);
    assert_eq!(code.matches('\n').count(), 2);
}

#[test]
fn what_is_for_tests_only_is_left_out() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\nfn c() {}\n#[cfg(test)]\nmod more;\n";
    let code = Source::new("src/a.rs", text).product();
    assert!(code.contains("fn a") && code.contains("fn c"));
    assert!(!code.contains("unwrap") && !code.contains("more"));
    assert_eq!(Source::new("src/a/tests.rs", "fn a() {}").product(), "");
}

#[test]
fn functions_and_arms_are_found() {
    let code = "trait T { fn a(); fn b() { if x {} } }\nfn c<F: Fn(u8)>(f: F) -> u8 where F: X { 1 }";
    let names: Vec<String> = functions(code).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "c"]);
    let code = "match f(x) { A::B { c, .. } => d(e, f), A::G | A::H if i => { j } _ => k }";
    assert_eq!(matches(code)[0].1, ["A::B { c, .. }", "A::G | A::H if i", "_"]);
}

//! Prometheus' text format (version 0.0.4): a head for each name, then its lines. Label values are escaped as the format
//! wants it; names and help are words of this program.

use std::fmt::{Display, Write as _};

use crate::model::histogram::{Counts, EDGES_US};

/// A label: name and value.
type Label<'a> = (&'a str, &'a str);

/// The text as it grows.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
}

impl Text {
    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Begins a figure; its lines follow. `kind`: `counter`, `gauge` or `histogram`.
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One line.
    pub(super) fn line(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.put(format_args!("{name}{} {value}\n", written(labels)));
    }

    /// A gauge without labels, or with.
    pub(super) fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'a [Label<'a>], f64)>,
    ) {
        self.head(name, "gauge", help);
        for (labels, value) in values {
            self.line(name, labels, value);
        }
    }

    /// A counter.
    pub(super) fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'a [Label<'a>], u64)>,
    ) {
        self.head(name, "counter", help);
        for (labels, value) in values {
            self.line(name, labels, value);
        }
    }

    /// A histogram.
    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'a [Label<'a>], Counts)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, counts) in values {
            self.buckets(name, labels, &counts);
        }
    }

    /// The lines of one histogram: what is at most as long as each edge, then all, their sum and their number.
    pub(super) fn buckets(&mut self, name: &str, labels: &[Label<'_>], counts: &Counts) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (edge, count) in EDGES_US.iter().zip(&counts.buckets) {
            below += count;
            let edge = (*edge as f64 / 1e6).to_string();
            self.line(&bucket, &[labels, &[("le", edge.as_str())]].concat(), below);
        }
        let total = counts.total();
        self.line(&bucket, &[labels, &[("le", "+Inf")]].concat(), total);
        self.line(&format!("{name}_sum"), labels, counts.sum_us as f64 / 1e6);
        self.line(&format!("{name}_count"), labels, total);
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // A string takes whatever is written.
        let _ = self.out.write_fmt(text);
    }
}

/// `{name="value",…}`, or nothing.
fn written(labels: &[Label<'_>]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        out.push(if out.is_empty() { '{' } else { ',' });
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        // As above.
        let _ = write!(out, "{name}=\"{value}\"");
    }
    if !out.is_empty() {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::histogram::Histogram;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.line("a_total", &[("trunk", "x\"y\\z\n"), ("code", "503")], 7);
        assert_eq!(text.finish(), "a_total{trunk=\"x\\\"y\\\\z\\n\",code=\"503\"} 7\n");
    }

    #[test]
    fn buckets_hold_all_that_is_shorter() {
        let histogram = Histogram::default();
        for ms in [1, 3, 3, 70_000] {
            histogram.count(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        text.histogram("t_seconds", "T.", [(&[("a", "b")] as &[_], histogram.read())]);
        let text = text.finish();
        assert!(text.starts_with("# HELP t_seconds T.\n# TYPE t_seconds histogram\n"), "{text}");
        for line in [
            "t_seconds_bucket{a=\"b\",le=\"0.0005\"} 0",
            "t_seconds_bucket{a=\"b\",le=\"0.001\"} 1",
            "t_seconds_bucket{a=\"b\",le=\"0.005\"} 3",
            "t_seconds_bucket{a=\"b\",le=\"10\"} 3",
            "t_seconds_bucket{a=\"b\",le=\"+Inf\"} 4",
            "t_seconds_sum{a=\"b\"} 70.007",
            "t_seconds_count{a=\"b\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}

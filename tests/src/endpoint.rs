//! Relevo's HTTP endpoint as a scraper sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long the endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub code: u16,
    /// The headers, as they stand.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// Gets a path; `None` when nobody answers in time.
pub async fn get(port: u16, path: &str) -> Option<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        // HTTP 1.0: the answer ends with the connection and is never chunked.
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (headers, body) = answer.split_once("\r\n\r\n")?;
        let code = headers.split_whitespace().nth(1)?.parse().ok()?;
        Some(Response { code, headers: headers.to_owned(), body: body.to_owned() })
    };
    tokio::time::timeout(TIMEOUT, exchange).await.ok().flatten()
}

/// One sample of `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, such as `relevo_replication_lag_bytes`.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// What `/metrics` said.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    helped: Vec<String>,
}

impl Metrics {
    /// Reads Prometheus' text format. Panics on what is not.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                metrics.helped.extend(help.split(' ').next().map(str::to_owned));
            } else if !line.starts_with('#') {
                metrics.samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}")));
            }
        }
        metrics
    }

    /// The sum of all samples of that name with these labels (and possibly others); `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
        };
        self.samples.iter().filter(wanted).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The sum of all samples of that name; panics when there is none.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        self.sum(name, &[]).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Whether the metric has a `# HELP` line.
    #[must_use]
    pub fn has_help(&self, name: &str) -> bool {
        self.helped.iter().any(|helped| helped == name)
    }

    /// All samples.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

/// `name{label="value",…} 1.5`; a label's value may hold escaped quotes.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let name = line[..end].to_owned();
    let mut labels = BTreeMap::new();
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?;
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().ok()? };
    Some(Sample { name, labels, value })
}

/// Reads up to the closing quote; yields the text and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read_with_escapes_and_infinities() {
        let text = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"}\"} 2\n\
                    a_total{x=\"2\"} 3.5\nb_bucket{le=\"+Inf\"} 4\nb +Inf 1700000000\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.samples().len(), 4);
        assert!((metrics.value("a_total") - 5.5).abs() < f64::EPSILON);
        assert_eq!(metrics.sum("a_total", &[("y", "q\"}")]), Some(2.0));
        assert_eq!(metrics.sum("a_total", &[("x", "9")]), None);
        assert!(metrics.value("b").is_infinite());
        assert!(metrics.has_help("a_total") && !metrics.has_help("b"));
    }
}

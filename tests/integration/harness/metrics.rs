//! Reads Prometheus' text format.

use std::collections::BTreeMap;

/// One scrape of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads a scrape.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            samples
                .map(|line| {
                    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
                    (normal(series), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
                })
                .collect(),
        )
    }

    /// Returns the value of `name{label="value",…}`, whatever the order of the labels.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.0.get(&normal(series)).copied()
    }

    /// Returns the value of a series that must be there.
    pub fn get(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no series {series} among {:#?}", self.0.keys()))
    }

    /// Returns the sum over all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| series == name || series.starts_with(&format!("{name}{{"));
        self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    /// Returns all series.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns what the books are off by: accepted − (committed + duplicate + quarantined + in flight).
    pub fn books_are_off_by(&self) -> f64 {
        self.sum("forebay_events_accepted_total")
            - self.get("forebay_events_committed_total")
            - self.get("forebay_events_duplicate_total")
            - self.sum("forebay_events_quarantined_total")
            - self.get("forebay_events_in_flight")
    }
}

/// Sorts the labels of a series, so that two spellings of it are one.
fn normal(series: &str) -> String {
    let Some((name, labels)) = series.strip_suffix('}').and_then(|series| series.split_once('{')) else {
        return series.to_owned();
    };
    let mut labels: Vec<&str> = labels.split_inclusive("\",").map(|label| label.trim_end_matches(',')).collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

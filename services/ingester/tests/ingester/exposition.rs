//! Prometheus text in, samples out, or what is wrong with it by the rules of the format (version 0.0.4) and of naming.

use std::collections::{BTreeMap, BTreeSet};

/// A scrape that follows the rules.
#[derive(Debug)]
pub struct Scrape {
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    /// The value of a series, named with some of its labels; panics where not exactly one fits.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }

    /// The values of all series with these labels.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let fits = |series: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| series.get(*label).is_some_and(|held| held == value))
        };
        let of_name = self.samples.iter().filter(|((sample, series), _)| sample == name && fits(series));
        of_name.map(|(_, value)| *value).collect()
    }

    pub fn labels(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, String>)> {
        self.samples.keys().map(|(name, labels)| (name, labels))
    }
}

/// The endings of names that tell the unit, or that there is none to tell.
const ENDINGS: [&str; 13] = [
    "_seconds",
    "_bytes",
    "_total",
    "_entries",
    "_transactions",
    "_info",
    "_status",
    "_unready",
    "_following",
    "_paused",
    "_refused",
    "_members",
    "_tenants",
];

/// Reads a scrape strictly.
pub fn parse(text: &str) -> Result<Scrape, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let (mut samples, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(format!("no help: {line}"))?;
            helped = name.to_owned();
            if help.trim().is_empty() || !seen.insert(helped.clone()) {
                return Err(format!("{name} has no help, or comes twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            if name != helped {
                return Err(format!("{name} has no help before its type"));
            }
            (family, kind) = (name.to_owned(), of.to_owned());
            check_name(&family, &kind)?;
        } else {
            let (name, labels, value) = sample(line)?;
            let suffix =
                name.strip_prefix(&family).ok_or(format!("{name} stands in the family of {family}"))?;
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !allowed.contains(&suffix) {
                return Err(format!("{name} is no sample of the {kind} {family}"));
            }
            if samples.insert((name.clone(), labels), value).is_some() {
                return Err(format!("the series {line} comes twice"));
            }
        }
    }
    check_histograms(&samples)?;
    Ok(Scrape { samples })
}

fn check_name(name: &str, kind: &str) -> Result<(), String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !plain || !["counter", "gauge", "histogram"].contains(&kind) {
        return Err(format!("{name} is no name, or {kind} no type"));
    }
    if (kind == "counter") != name.ends_with("_total") {
        return Err(format!("{name} is a {kind}"));
    }
    if name.starts_with("posduif_") && !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Err(format!("{name} names no base unit"));
    }
    Ok(())
}

type Sample = (String, BTreeMap<String, String>, f64);

fn sample(line: &str) -> Result<Sample, String> {
    let bad = || format!("not a sample: {line}");
    let (series, value) = line.rsplit_once(' ').ok_or_else(bad)?;
    let value: f64 = value.parse().map_err(|_| bad())?;
    let Some((name, rest)) = series.split_once('{') else {
        return Ok((series.to_owned(), BTreeMap::new(), value));
    };
    let mut labels = BTreeMap::new();
    for label in rest.strip_suffix('}').ok_or_else(bad)?.split("\",") {
        let (key, value) = label.trim_end_matches('"').split_once("=\"").ok_or_else(bad)?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("a label comes twice: {line}"));
        }
    }
    Ok((name.to_owned(), labels, value))
}

/// Buckets grow up to +Inf, which is the count.
fn check_histograms(samples: &BTreeMap<(String, BTreeMap<String, String>), f64>) -> Result<(), String> {
    for ((name, labels), count) in samples {
        let Some(family) = name.strip_suffix("_count") else { continue };
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|((other, _), _)| *other == format!("{family}_bucket"))
            .filter_map(|((_, of), value)| {
                let mut rest = of.clone();
                let bound = rest.remove("le")?.parse().ok()?;
                (rest == *labels).then_some((bound, *value))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        if !grows || buckets.last() != Some(&(f64::INFINITY, *count)) {
            return Err(format!("the buckets of {family} do not grow to its count"));
        }
    }
    Ok(())
}

#[test]
fn a_scrape_that_breaks_a_rule_is_refused() {
    let good = "# HELP posduif_a_total A.\n# TYPE posduif_a_total counter\nposduif_a_total{t=\"x\"} 1\n";
    assert_eq!(parse(good).unwrap().value("posduif_a_total", &[("t", "x")]), 1.0);
    let histogram = "# HELP b_seconds B.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"1\"} 2\n\
                     b_seconds_bucket{le=\"+Inf\"} 3\nb_seconds_sum 4\nb_seconds_count 3\n";
    assert!(parse(histogram).is_ok());
    let twice = format!("{good}posduif_a_total{{t=\"x\"}} 1\n");
    for (bad, why) in [
        (good.replace("# HELP posduif_a_total A.\n", ""), "no help"),
        (good.replace("# TYPE posduif_a_total counter\n", ""), "no type"),
        (good.replace("posduif_a_total", "posduif_a"), "no unit"),
        (good.replace("counter", "gauge"), "a gauge that is a total"),
        (good.trim_end().to_owned(), "no end of line"),
        (twice, "a series twice"),
        (format!("{good}{good}"), "a family twice"),
        (histogram.replace("b_seconds_count 3", "b_seconds_count 4"), "a count that is not +Inf"),
    ] {
        assert!(parse(&bad).is_err(), "accepted: {why}\n{bad}");
    }
}

//! Reading counters from Prometheus text.

/// One sample: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Stats(Vec<Sample>);

impl Stats {
    /// Reads the text format; lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// Sum of the samples of `name` that carry all `labels`; 0 when there is none.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum: f64 = self
            .0
            .iter()
            .filter(|(n, found, _)| {
                n == name
                    && labels
                        .iter()
                        .all(|(k, v)| found.iter().any(|(a, b)| a == k && b == v))
            })
            .map(|(_, _, value)| value)
            .sum();
        // Counters of a test are small whole numbers.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = sum as u64;
        whole
    }

    /// Names and labels of all samples.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &[(String, String)])> {
        self.0
            .iter()
            .map(|(name, labels, _)| (name.as_str(), labels.as_slice()))
    }

    /// Names and label sets, for seeing what there is.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, labels, _)| {
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            format!("{name}{{{}}}", labels.join(","))
        })
    }

    /// The samples whose names start with `prefix` and are not zero, one a line.
    pub fn lines(&self, prefix: &str) -> Vec<String> {
        self.names()
            .zip(&self.0)
            .filter(|(_, (name, _, value))| name.starts_with(prefix) && *value != 0.0)
            .map(|(shown, (_, _, value))| format!("{} {value}", shown.replace("{}", "")))
            .collect()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, value) = line.rsplit_once(' ')?;
    let (name, labels) = match name.split_once('{') {
        None => (name, vec![]),
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
    };
    Some((name.to_owned(), labels, value.parse().ok()?))
}

/// Labels whose values hold no quotes and no commas, as all of ours and those of Envoy here.
fn labels(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((
                key.to_owned(),
                value.strip_prefix('"')?.strip_suffix('"')?.to_owned(),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_samples_that_match() {
        let stats = Stats::parse(
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\"} 4\na_total 9\na{x=\"2\"} 5\nb 0\n\n",
        );
        assert_eq!(stats.counter("a", &[]), 12);
        assert_eq!(stats.counter("a", &[("x", "1")]), 7);
        assert_eq!(stats.counter("a", &[("x", "1"), ("y", "2")]), 3);
        assert_eq!(stats.counter("c", &[]), 0);
        assert_eq!(stats.lines("a_"), ["a_total 9"]);
        assert_eq!(stats.lines("b"), [""; 0]);
    }
}

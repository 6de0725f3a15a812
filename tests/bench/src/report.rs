//! What is printed: the machine, a table of medians for each route, and the targets beside the measured values.
use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::load::Figures;

/// The figures of one server on one route, one entry per round.
pub struct Series {
    pub name: &'static str,
    pub rounds: Vec<Figures>,
}

impl Series {
    pub fn new(name: &'static str) -> Series {
        Series {
            name,
            rounds: Vec::new(),
        }
    }

    pub fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second))
    }

    /// The requests per second of this series divided by those of `other`: the median of the rounds' ratios, because
    /// the machine's speed changes from one round to the next.
    pub fn ratio_to(&self, other: &Series) -> f64 {
        median(self.ratios_to(other))
    }

    /// The same ratio for each round.
    pub fn ratios_to(&self, other: &Series) -> impl Iterator<Item = f64> {
        let rounds = self.rounds.iter().zip(&other.rounds);
        rounds.map(|(ours, theirs)| ours.per_second / theirs.per_second)
    }

    pub fn p50(&self) -> Option<Duration> {
        self.median_time(|round| round.p50)
    }

    pub fn p99(&self) -> Option<Duration> {
        self.median_time(|round| round.p99)
    }

    /// The 99th percentile of the latency divided by its median: the median of the rounds' ratios.
    pub fn p99_to_p50(&self) -> f64 {
        let ratios = self
            .rounds
            .iter()
            .map(|round| match (round.p50, round.p99) {
                (Some(p50), Some(p99)) => p99.as_secs_f64() / p50.as_secs_f64(),
                _ => f64::NAN,
            });
        median(ratios)
    }

    fn median_time(&self, of: impl Fn(&Figures) -> Option<Duration>) -> Option<Duration> {
        let times: Option<Vec<f64>> = self
            .rounds
            .iter()
            .map(|round| of(round).map(|time| time.as_secs_f64()))
            .collect();
        times.map(|times| Duration::from_secs_f64(median(times.into_iter())))
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.rounds.last().and_then(|round| round.resident_bytes)
    }
}

/// The middle value, or the mean of the two middle ones; 0 if there are no values.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().saturating_sub(1) / 2;
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => 0.0,
    }
}

/// Prints the processor and the commit that the figures belong to.
pub fn print_machine() -> anyhow::Result<()> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("?", |model| model.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let commit = std::env::var("BENCH_COMMIT").context("BENCH_COMMIT is not set")?;
    println!(
        "{cores} cores of {model}, shared with the load generator and PostgreSQL; commit {commit}"
    );
    Ok(())
}

/// Prints the table of one route. `ratio` is the rate of the first series divided by that of the row.
pub fn print_route(route: &str, statements_per_request: Option<f64>, table: &[Series]) {
    let Some(first) = table.first() else {
        return;
    };
    let statements = statements_per_request.map_or(String::new(), |statements| {
        format!("   ({statements:.2} statements per request)")
    });
    println!("\n{route}{statements}");
    println!(
        "  {:<28} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "", "requests/s", "p50 ms", "p99 ms", "MiB", "ratio"
    );
    for series in table {
        let milliseconds = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| {
                format!("{:.2}", time.as_secs_f64() * 1e3)
            })
        };
        let memory = series.resident_bytes().map_or("-".to_owned(), |bytes| {
            format!("{:.1}", bytes as f64 / f64::from(1 << 20))
        });
        println!(
            "  {:<28} {:>10.0} {:>9} {:>9} {memory:>9} {:>8.2}",
            series.name,
            series.per_second(),
            milliseconds(series.p50()),
            milliseconds(series.p99()),
            first.ratio_to(series),
        );
    }
}

/// A limit that a measured value has to keep.
pub struct Target {
    description: String,
    value: f64,
    limit: f64,
    is_minimum: bool,
}

impl Target {
    pub fn at_least(description: impl Into<String>, value: f64, limit: f64) -> Target {
        Target {
            description: description.into(),
            value,
            limit,
            is_minimum: true,
        }
    }

    pub fn at_most(description: impl Into<String>, value: f64, limit: f64) -> Target {
        Target {
            description: description.into(),
            value,
            limit,
            is_minimum: false,
        }
    }

    fn is_met(&self) -> bool {
        if self.is_minimum {
            self.value >= self.limit
        } else {
            self.value <= self.limit
        }
    }
}

pub fn print_targets(targets: &[Target]) {
    println!("\n  {:<62} {:>8}", "target", "measured");
    for target in targets {
        let required = if target.is_minimum {
            "at least"
        } else {
            "at most"
        };
        println!(
            "  {:<62} {:>8.3}   {required} {}: {}",
            target.description,
            target.value,
            (target.limit * 1e3).round() / 1e3,
            if target.is_met() { "met" } else { "NOT MET" },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}

//! What is printed: the machine, a table of medians, and the ratios that were promised beside what was read.
use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::load::Figures;

/// The rounds of one subject.
pub struct Series {
    pub subject: &'static str,
    pub rounds: Vec<Figures>,
}

impl Series {
    pub fn new(subject: &'static str) -> Series {
        Series {
            subject,
            rounds: Vec::new(),
        }
    }

    pub fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second))
    }

    /// How many times another's rate this one's is, round by round: the machine's speed changes from one to the next.
    pub fn times(&self, other: &Series) -> f64 {
        let rounds = self.rounds.iter().zip(&other.rounds);
        median(rounds.map(|(ours, theirs)| ours.per_second / theirs.per_second))
    }

    pub fn p50(&self) -> Option<Duration> {
        self.median_time(|round| round.p50)
    }

    pub fn p99(&self) -> Option<Duration> {
        self.median_time(|round| round.p99)
    }

    /// How many times the median latency the 99th percentile is, round by round.
    pub fn tail(&self) -> f64 {
        median(
            self.rounds
                .iter()
                .map(|round| match (round.p50, round.p99) {
                    (Some(p50), Some(p99)) => p99.as_secs_f64() / p50.as_secs_f64(),
                    _ => f64::NAN,
                }),
        )
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

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2);
    middle.copied().unwrap_or_default()
}

/// What the figures were read on.
pub fn print_machine() -> anyhow::Result<()> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("?", |model| model.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let commit = std::env::var("BENCH_COMMIT").context("BENCH_COMMIT")?;
    println!("{cores} cores of {model}, the load and PostgreSQL on them too; commit {commit}");
    Ok(())
}

/// One route's subjects, the first being the service; the ratio is the service's rate to theirs.
pub fn print_route(route: &str, statements: Option<f64>, table: &[Series]) {
    let Some(ours) = table.first() else {
        return;
    };
    let counted = statements.map_or(String::new(), |each| {
        format!("   ({each:.2} statements a request)")
    });
    println!("\n{route}{counted}");
    println!(
        "  {:<28} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "", "requests/s", "p50 ms", "p99 ms", "MiB", "ratio"
    );
    for series in table {
        let time = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| {
                format!("{:.2}", time.as_secs_f64() * 1e3)
            })
        };
        let memory = series.resident_bytes();
        println!(
            "  {:<28} {:>10.0} {:>9} {:>9} {:>9} {:>8.2}",
            series.subject,
            series.per_second(),
            time(series.p50()),
            time(series.p99()),
            memory.map_or("-".to_owned(), |bytes| format!(
                "{:.1}",
                bytes as f64 / f64::from(1 << 20)
            )),
            ours.times(series),
        );
    }
}

/// What was promised of a figure, and whether this run kept it.
pub struct Verdict {
    pub what: String,
    pub read: f64,
    pub bound: f64,
    pub is_least: bool,
}

impl Verdict {
    pub fn at_least(what: impl Into<String>, read: f64, bound: f64) -> Verdict {
        Verdict {
            what: what.into(),
            read,
            bound,
            is_least: true,
        }
    }

    pub fn at_most(what: impl Into<String>, read: f64, bound: f64) -> Verdict {
        Verdict {
            what: what.into(),
            read,
            bound,
            is_least: false,
        }
    }
}

pub fn print_verdicts(verdicts: &[Verdict]) {
    println!("\n  {:<58} {:>7}   {:<14}", "aim", "read", "");
    for Verdict {
        what,
        read,
        bound,
        is_least,
    } in verdicts
    {
        let (word, is_met) = if *is_least {
            ("at least", read >= bound)
        } else {
            ("at most", read <= bound)
        };
        let met = if is_met { "met" } else { "NOT MET" };
        let bound = (bound * 1e3).round() / 1e3;
        println!("  {:<58} {read:>7.2}   {word} {bound}: {met}", what);
    }
}

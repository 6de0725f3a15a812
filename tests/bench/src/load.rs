//! One measurement: wrk with the load of one route on one server, or pgbench with its statement.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::database::Database;

/// Who asks: users of these ids.
#[derive(Clone, Copy)]
pub struct Users {
    pub first: i64,
    pub last: i64,
    /// Movies on the shelf of each.
    pub movies: i64,
}

/// What one measurement gave. Latencies are those that wrk saw; pgbench tells none that can be compared.
#[derive(Clone, Copy)]
pub struct Figures {
    pub requests: u64,
    pub per_second: f64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    pub resident_bytes: Option<u64>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The figures of this route's load on the server at `base`. `fresh` is the first of the movies made to be deleted.
///
/// # Errors
/// If wrk is missing, or any answer was not a good one.
pub fn run_wrk(
    database: &Database,
    base: &str,
    route: &str,
    users: Users,
    connections: usize,
    seconds: u64,
    fresh: i64,
) -> anyhow::Result<Figures> {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--timeout", "10s", "--latency"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(folder().join("load.lua"))
        .args([base, "--", route])
        .arg(&database.tokens)
        .args(
            [
                users.first,
                users.last,
                database.users,
                users.movies,
                fresh,
            ]
            .map(|number| number.to_string()),
        )
        .output()
        .context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("figures "));
    let Some(line) = line else {
        bail!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
    let [requests, microseconds, p50, p99, wrong] = numbers?[..] else {
        bail!("wrk: {line}");
    };
    // rouille's own server breaks a connection now and then: that is said, and is no reason to measure nothing.
    ensure!(
        requests > 0 && wrong * 1000 <= requests,
        "{route}: {wrong} of {requests} requests went wrong"
    );
    if wrong > 0 {
        eprintln!("{base} {route}: {wrong} of {requests} requests went wrong");
    }
    Ok(Figures {
        requests,
        per_second: requests as f64 / Duration::from_micros(microseconds).as_secs_f64(),
        p50: Some(Duration::from_micros(p50)),
        p99: Some(Duration::from_micros(p99)),
        resident_bytes: None,
    })
}

/// The figures of the plain statement in `sql/NAME.sql`, prepared, on as many connections as the service has, with its
/// parameters set by these lines of pgbench's own language.
pub fn run_pgbench(
    database: &Database,
    name: &str,
    parameters: &[(&str, &str)],
    seconds: u64,
) -> anyhow::Result<Figures> {
    let programs = std::env::var("POSTGRES").context("POSTGRES")?;
    let mut statement = std::fs::read_to_string(folder().join(format!("sql/{name}.sql")))?;
    let mut script = String::new();
    for (place, (parameter, value)) in parameters.iter().enumerate() {
        // A text is written as it is, a number is drawn anew for every statement.
        let filling = match value.strip_prefix('\'') {
            Some(_) => (*value).to_owned(),
            None => {
                script += &format!("\\set {parameter} {value}\n");
                format!(":{parameter}")
            }
        };
        statement = statement.replace(&format!("${}::", place + 1), &format!("{filling}::"));
    }
    let lines = statement.lines().filter(|line| !line.starts_with("--"));
    script += &lines.collect::<Vec<_>>().join("\n");
    script.push(';');
    let file = database.tokens.with_file_name(format!("{name}.pgbench"));
    std::fs::write(&file, script)?;
    let output = Command::new(Path::new(&programs).join("pgbench"))
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=8",
            "--jobs=1",
        ])
        .arg(format!("--time={seconds}"))
        .arg(format!("--file={}", file.display()))
        .arg(&database.url)
        .output()
        .context("pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number_after = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.and_then(|line| line.trim().split([' ', '/']).next())
    };
    let (Some(requests), Some(per_second)) = (
        number_after("number of transactions actually processed:"),
        number_after("tps ="),
    ) else {
        bail!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Figures {
        requests: requests.parse()?,
        per_second: per_second.parse()?,
        p50: None,
        p99: None,
        resident_bytes: None,
    })
}

//! One measurement: wrk sends the requests of one route to one server, or pgbench executes the statement of one route.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::database::Database;

/// The users whose requests are sent: those with the ids `first..=last`.
#[derive(Clone, Copy)]
pub struct Users {
    pub first: i64,
    pub last: i64,
    /// Movies that each of them has.
    pub movies: i64,
}

/// The result of one measurement. The latencies are wrk's; pgbench prints no percentiles.
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

/// Sends the requests that load.lua has for `route` to the server at `base_url`. DELETE requests begin with the movie
/// `first_deletable`; other routes ignore it.
///
/// # Errors
/// If wrk cannot be run, or if more than one request in a thousand failed or got a response other than 2xx.
pub fn run_wrk(
    database: &Database,
    base_url: &str,
    route: &str,
    users: Users,
    connections: usize,
    seconds: u64,
    first_deletable: i64,
) -> anyhow::Result<Figures> {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--timeout", "10s", "--latency"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(folder().join("load.lua"))
        .args([base_url, "--", route])
        .arg(&database.tokens)
        .args(
            [
                users.first,
                users.last,
                database.users,
                users.movies,
                first_deletable,
            ]
            .map(|number| number.to_string()),
        )
        .output()
        .context("wrk cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("figures "));
    let Some(line) = line else {
        bail!(
            "wrk failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
    let [requests, microseconds, p50, p99, failed] = numbers?[..] else {
        bail!("wrk printed other figures than expected: {line}");
    };
    // A few failures are only reported: rouille's own server sometimes closes a connection early.
    ensure!(
        requests > 0 && failed * 1000 <= requests,
        "{route}: {failed} of {requests} requests failed"
    );
    if failed > 0 {
        eprintln!("{base_url} {route}: {failed} of {requests} requests failed");
    }
    Ok(Figures {
        requests,
        per_second: requests as f64 / Duration::from_micros(microseconds).as_secs_f64(),
        p50: Some(Duration::from_micros(p50)),
        p99: Some(Duration::from_micros(p99)),
        resident_bytes: None,
    })
}

/// Executes the statement in `tests/bench/sql/NAME.sql`, prepared, on eight connections. The parameters are listed in the
/// order of the statement's `$1`, `$2`, ...; each value is a text in quotes or an expression of pgbench's `\set`.
pub fn run_pgbench(
    database: &Database,
    name: &str,
    parameters: &[(&str, &str)],
    seconds: u64,
) -> anyhow::Result<Figures> {
    let programs = std::env::var("POSTGRES").context("POSTGRES is not set")?;
    let mut statement = std::fs::read_to_string(folder().join(format!("sql/{name}.sql")))?;
    let mut script = String::new();
    for (index, (parameter, value)) in parameters.iter().enumerate() {
        // Texts become literals; the other expressions are evaluated for every execution.
        let value = if value.starts_with('\'') {
            (*value).to_owned()
        } else {
            script += &format!("\\set {parameter} {value}\n");
            format!(":{parameter}")
        };
        statement = statement.replace(&format!("${}::", index + 1), &format!("{value}::"));
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
        .context("pgbench cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number_after = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.and_then(|line| line.trim().split([' ', '/']).next())
    };
    let (Some(requests), Some(per_second)) = (
        number_after("number of transactions actually processed:"),
        number_after("tps ="),
    ) else {
        bail!(
            "pgbench failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    Ok(Figures {
        requests: requests.parse()?,
        per_second: per_second.parse()?,
        p50: None,
        p99: None,
        resident_bytes: None,
    })
}

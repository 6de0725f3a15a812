//! How much slower requests are while the dead rows and pending pages of 100,000 creates are not vacuumed: searches,
//! first pages and reads right after the creates, with autovacuum on, beside the same right after a manual vacuum.
use std::path::Path;

use anyhow::ensure;

use crate::Rounds;
use crate::database::Database;
use crate::report::{Target, median};
use crate::routes::send_load;
use crate::server::Server;

const CREATES: u64 = 100_000;

const ROUTES: [&str; 3] = ["search", "list_first", "read"];

/// Requests per second after a vacuum, divided by those after the creates.
const MAX_SLOWDOWN: f64 = 1.35;

/// Measures the routes before and after the vacuum of each round, and prints the medians and their ratios.
pub fn measure(
    database: &mut Database,
    binary: &Path,
    rounds: Rounds,
    targets: &mut Vec<Target>,
) -> anyhow::Result<()> {
    let service = Server::start_binary("movies-api", binary, &database.url)?;
    let naptime = database.set_autovacuum(true)?;
    println!("\ndecay: {CREATES} creates, with autovacuum on and autovacuum_naptime = {naptime}");
    let mut series = ROUTES.map(|_| Vec::new());
    for _ in 0..rounds.rounds {
        let mut created = 0;
        while created < CREATES {
            created += send_load(database, &service, "create", rounds.seconds, 0)?.requests;
        }
        let state = database.vacuum_state()?;
        let before = measure_rates(database, &service, rounds)?;
        database.vacuum()?;
        let after = measure_rates(database, &service, rounds)?;
        ensure!(
            before.len() == series.len() && after.len() == series.len(),
            "a route was not measured"
        );
        for ((pairs, before), after) in series.iter_mut().zip(before).zip(after) {
            pairs.push((before, after));
        }
        println!("  {created} created; {state}");
        database.tidy()?;
    }
    database.set_autovacuum(false)?;
    println!(
        "  {:<28} {:>16} {:>16} {:>8}",
        "requests/s", "after creates", "after a vacuum", "ratio"
    );
    for (route, pairs) in ROUTES.iter().zip(&series) {
        let before = median(pairs.iter().map(|(before, _)| *before));
        let after = median(pairs.iter().map(|(_, after)| *after));
        // The median of the rounds' ratios, because the machine's speed changes from one round to the next.
        let slowdown = median(pairs.iter().map(|(before, after)| after / before));
        println!("  {route:<28} {before:>16.0} {after:>16.0} {slowdown:>8.2}");
        targets.push(Target::at_most(
            format!("{route}: requests/s after a vacuum, ratio to after creates"),
            slowdown,
            MAX_SLOWDOWN,
        ));
    }
    Ok(())
}

/// The requests per second of each route.
fn measure_rates(
    database: &Database,
    service: &Server,
    rounds: Rounds,
) -> anyhow::Result<Vec<f64>> {
    let rates = ROUTES.iter().map(|route| {
        let figures = send_load(database, service, route, rounds.seconds, 0)?;
        Ok(figures.per_second)
    });
    rates.collect()
}

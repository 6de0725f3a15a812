//! What creations leave to be vacuumed: searches, first pages and reads right after 100,000 of them, with autovacuum on,
//! beside the same right after a vacuum of the same data.
use anyhow::ensure;

use crate::Rounds;
use crate::database::Database;
use crate::report::{Verdict, median};
use crate::routes::run;
use crate::subjects::Subject;

const CREATIONS: u64 = 100_000;

/// The routes, and how many times slower each may be than right after a vacuum.
const ROUTES: &[(&str, f64)] = &[("search", 1.35), ("list_first", 1.35), ("read", 1.35)];

/// Measures the routes in each round before and after the vacuum, and prints the medians and their ratios.
pub fn measure(
    database: &mut Database,
    rounds: Rounds,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<()> {
    let service = Subject::product(&database.url)?;
    let naptime = database.set_autovacuum(true)?;
    println!(
        "\ndecay: {CREATIONS} creations, with autovacuum on and autovacuum_naptime = {naptime}"
    );
    let mut series = ROUTES.iter().map(|_| Vec::new()).collect::<Vec<_>>();
    for _ in 0..rounds.rounds {
        let mut created = 0;
        while created < CREATIONS {
            created += run(database, &service, "create", rounds.seconds, 0)?.requests;
        }
        let state = database.vacuum_state()?;
        let before = rates(database, &service, rounds)?;
        database.vacuum()?;
        let after = rates(database, &service, rounds)?;
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
        "requests/s", "after creations", "after a vacuum", "ratio"
    );
    for ((route, most), pairs) in ROUTES.iter().zip(&series) {
        let before = median(pairs.iter().map(|(before, _)| *before));
        let after = median(pairs.iter().map(|(_, after)| *after));
        // Round by round, since the machine's speed changes from one to the next.
        let slower = median(pairs.iter().map(|(before, after)| after / before));
        println!("  {route:<28} {before:>16.0} {after:>16.0} {slower:>8.2}");
        verdicts.push(Verdict::at_most(
            format!("{route}: times slower after creations than after a vacuum"),
            slower,
            *most,
        ));
    }
    Ok(())
}

fn rates(database: &Database, service: &Subject, rounds: Rounds) -> anyhow::Result<Vec<f64>> {
    let rates = ROUTES.iter().map(|(route, _)| {
        let figures = run(database, service, route, rounds.seconds, 0)?;
        Ok(figures.per_second)
    });
    rates.collect()
}

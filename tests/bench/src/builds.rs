//! `--peer BINARY`: this build of the service beside another build of it, for example that of the commit before.
//!
//! Each build runs on a database of its own, which its own migrations made and which is filled with the same rows, so
//! that the two may differ in their schema. Both get the same settings and the same load, in turns.
use std::path::Path;

use anyhow::ensure;

use crate::Rounds;
use crate::database::Database;
use crate::report::{Series, Target, print_route, print_targets};
use crate::routes::{is_api_route, run_turn};
use crate::server::{Server, service_binary};

/// The routes that are measured unless `--only` names others.
const DEFAULT_ROUTES: [&str; 4] = ["read", "list_first", "search", "create"];

/// Requests per second of this build, as a share of the peer's.
const MIN_RATIO: f64 = 0.97;

struct Build {
    database: Database,
    server: Server,
}

impl Build {
    fn start(name: &'static str, database_name: &str, binary: &Path) -> anyhow::Result<Build> {
        let database = Database::with_equal_lists(database_name, binary)?;
        let server = Server::start_binary(name, binary, &database.url)?;
        Ok(Build { database, server })
    }
}

/// Measures both builds on the `routes`, or on the default ones if there are none, and prints a table for each route.
pub fn measure(peer: &Path, rounds: Rounds, routes: &[String]) -> anyhow::Result<()> {
    let wanted: Vec<&str> = match routes {
        [] => DEFAULT_ROUTES.to_vec(),
        routes => routes.iter().map(String::as_str).collect(),
    };
    for route in &wanted {
        ensure!(is_api_route(route), "--peer does not measure {route}");
    }
    // With a slash in it, the name is never searched for on PATH.
    let peer = std::path::absolute(peer)?;
    println!("this build beside the peer {}", peer.display());
    let mut builds = [
        Build::start("this build", "bench", &service_binary()?)?,
        Build::start("peer", "bench_peer", &peer)?,
    ];
    let mut targets = Vec::new();
    for route in wanted {
        targets.push(measure_route(&mut builds, route, rounds)?);
    }
    print_targets(&targets);
    Ok(())
}

fn measure_route(builds: &mut [Build; 2], route: &str, rounds: Rounds) -> anyhow::Result<Target> {
    let mut table = builds
        .each_ref()
        .map(|build| Series::new(build.server.name));
    for round in 0..rounds.rounds {
        let mut turns: Vec<_> = builds.iter_mut().zip(&mut table).collect();
        // Every other round in the opposite order, so that neither build always follows the other.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (build, series) in turns {
            let figures = run_turn(&mut build.database, &build.server, route, rounds.seconds)?;
            series.rounds.push(figures);
        }
    }
    print_route(route, None, &table);
    let [this, peer] = &table;
    let ratios = this.ratios_to(peer).map(|ratio| format!("{ratio:.3}"));
    println!(
        "  ratio of each round: {}",
        ratios.collect::<Vec<_>>().join(" ")
    );
    Ok(Target::at_least(
        format!("{route}: requests/s, ratio to the peer"),
        this.ratio_to(peer),
        MIN_RATIO,
    ))
}

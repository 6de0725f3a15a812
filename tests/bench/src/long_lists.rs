//! `--rows`: the list of a user who has 30 % of all movies beside the list of a user who has 100, to show which times
//! grow with the length of a list.
use crate::Rounds;
use crate::database::{Database, SHORT_LIST};
use crate::load::{Users, run_wrk};
use crate::report::{Series, Target, print_targets};
use crate::server::{Server, service_binary};

/// A route on the long list, a route on the short one, and the greatest ratio of their median latencies.
const COMPARISONS: [(&str, &str, f64); 5] = [
    ("list_first", "list_first", 2.0),
    ("list_last", "list_last", 3.0),
    ("list_middle", "list_first", 20.0),
    ("search_rare", "search_rare", 5.0),
    ("create", "create", 2.0),
];

/// One client, which the targets are for, and eight that compete.
const CONNECTIONS: [usize; 2] = [1, 8];

/// Measures both lists in turns, and prints the latencies and their ratios.
pub fn measure(mut database: Database, rounds: Rounds) -> anyhow::Result<()> {
    let service = Server::start_binary("movies-api", &service_binary()?, &database.url)?;
    let long = Users {
        first: 1,
        last: 1,
        movies: database.movies * 3 / 10,
    };
    let short = Users {
        first: 2,
        last: 2,
        movies: SHORT_LIST,
    };
    println!(
        "\n{} movies; user 1 has {}, user 2 has {}",
        database.movies, long.movies, short.movies
    );
    println!(
        "  {:<14} {:>11} {:>14} {:>14}",
        "", "connections", "long p50 ms", "short p50 ms"
    );
    let mut targets = Vec::new();
    for (long_route, short_route, max_ratio) in COMPARISONS {
        for connections in CONNECTIONS {
            let mut series = [Series::new("long"), Series::new("short")];
            for _ in 0..rounds.rounds {
                let lists = [(long, long_route), (short, short_route)];
                for (series, (users, route)) in series.iter_mut().zip(lists) {
                    let figures = run_wrk(
                        &database,
                        &service.base_url,
                        route,
                        users,
                        connections,
                        rounds.seconds,
                        0,
                    )?;
                    series.rounds.push(figures);
                    if long_route == "create" {
                        database.tidy()?;
                    }
                }
            }
            let [long, short] = series.map(|series| {
                series
                    .p50()
                    .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
            });
            println!("  {long_route:<14} {connections:>11} {long:>14.3} {short:>14.3}");
            if connections == 1 {
                targets.push(Target::at_most(
                    format!("{long_route}: p50 on the long list, ratio to the short list"),
                    long / short,
                    max_ratio,
                ));
            }
        }
    }
    print_targets(&targets);
    Ok(())
}

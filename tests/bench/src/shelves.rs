//! A shelf of three tenths of all movies beside a shelf of a hundred: what grows with the data, and what does not.
use crate::Rounds;
use crate::database::Database;
use crate::load::{Users, run_wrk};
use crate::report::{Series, Verdict, print_verdicts};
use crate::subjects::Subject;

/// What is asked of the heavy shelf, of the light one, and how many times longer the first may take.
const COMPARISONS: &[(&str, &str, f64)] = &[
    ("list_first", "list_first", 2.0),
    ("list_last", "list_last", 3.0),
    ("list_middle", "list_first", 20.0),
    ("search_rare", "search_rare", 5.0),
    ("create", "create", 2.0),
];

/// One client, and as many as the service has connections to the database.
const CONNECTIONS: &[usize] = &[1, 8];

/// Measures both shelves in turns and prints what each took, and the ratios.
pub fn measure(mut database: Database, rounds: Rounds) -> anyhow::Result<()> {
    let service = Subject::product(&database.url)?;
    let heavy = Users {
        first: 1,
        last: 1,
        movies: database.movies * 3 / 10,
    };
    let light = Users {
        first: 2,
        last: 2,
        movies: 100,
    };
    println!(
        "\n{} movies; user 1 has {}, user 2 has {}",
        database.movies, heavy.movies, light.movies
    );
    println!(
        "  {:<14} {:>11} {:>14} {:>14}",
        "", "connections", "heavy p50 ms", "light p50 ms"
    );
    let mut verdicts = Vec::new();
    for (heavy_route, light_route, aim) in COMPARISONS {
        for connections in CONNECTIONS {
            let mut series = [Series::new("heavy"), Series::new("light")];
            for _ in 0..rounds.rounds {
                for (series, (users, route)) in series
                    .iter_mut()
                    .zip([(heavy, heavy_route), (light, light_route)])
                {
                    let figures = run_wrk(
                        &database,
                        &service.base,
                        route,
                        users,
                        *connections,
                        rounds.seconds,
                        0,
                    )?;
                    series.rounds.push(figures);
                    if *heavy_route == "create" {
                        database.tidy()?;
                    }
                }
            }
            let [heavy, light] = series.map(|series| {
                series
                    .p50()
                    .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
            });
            println!("  {heavy_route:<14} {connections:>11} {heavy:>14.3} {light:>14.3}");
            if *connections == 1 {
                verdicts.push(Verdict::at_most(
                    format!("{heavy_route}: heavy shelf to light shelf"),
                    heavy / light,
                    *aim,
                ));
            }
        }
    }
    print_verdicts(&verdicts);
    Ok(())
}

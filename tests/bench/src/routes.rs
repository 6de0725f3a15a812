//! The routes of the service, each beside its peers: 32 keep-alive connections, a hundred thousand movies.
use anyhow::{Context, ensure};

use crate::Rounds;
use crate::database::Database;
use crate::decay;
use crate::load::{Users, Figures, run_pgbench, run_wrk};
use crate::report::{Series, Verdict, print_route, print_verdicts};
use crate::subjects::Subject;

const CONNECTIONS: usize = 32;

/// Movies made for a second of deletions; more than any server here deletes.
const DELETIONS_PER_SECOND: i64 = 25_000;

/// PostgreSQL's own limit for a route: the plain statement and how its parameters are drawn.
struct Limit {
    statement: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

struct Route {
    name: &'static str,
    limit: Option<Limit>,
    /// At least so many times the axum peer, and so much of PostgreSQL's own limit.
    aims: (Option<f64>, Option<f64>),
    /// At most so many times its p50 is the service's p99.
    tail: Option<f64>,
}

const ROUTES: &[Route] = &[
    Route {
        name: "read",
        limit: Some(Limit {
            statement: "read",
            parameters: &[
                ("user_id", "random(1, 1000)"),
                ("movie", ":user_id + 1000 * random(0, 99)"),
            ],
        }),
        aims: (Some(1.5), Some(0.6)),
        tail: None,
    },
    Route {
        name: "list_first",
        limit: Some(Limit {
            statement: "list_first",
            parameters: &[("user_id", "random(1, 1000)"), ("size", "10")],
        }),
        aims: (Some(1.5), None),
        tail: None,
    },
    Route {
        name: "list_deep",
        limit: None,
        aims: (None, None),
        tail: None,
    },
    Route {
        name: "search",
        limit: None,
        aims: (Some(1.0), None),
        tail: None,
    },
    Route {
        name: "create",
        limit: Some(Limit {
            statement: "create",
            parameters: &[
                ("user_id", "random(1, 1000)"),
                ("title", "'some film'"),
                ("genre", "'Drama'"),
                ("year", "random(1950, 2025)"),
            ],
        }),
        aims: (Some(1.5), None),
        tail: Some(2.5),
    },
    Route {
        name: "update",
        limit: Some(Limit {
            statement: "update",
            parameters: &[
                ("user_id", "random(1, 1000)"),
                ("movie", ":user_id + 1000 * random(0, 99)"),
                ("title", "'another film'"),
                ("genre", "'Drama'"),
                ("year", "random(1950, 2025)"),
            ],
        }),
        aims: (None, None),
        tail: None,
    },
    Route {
        name: "delete",
        limit: None,
        aims: (None, None),
        tail: None,
    },
];

/// Measures every route, or those named, and prints a table and the aims.
pub fn measure(mut database: Database, rounds: Rounds, only: &[String]) -> anyhow::Result<()> {
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let mut verdicts = Vec::new();
    for (name, aim) in [("answer_100", 2.3), ("answer_2000", 30.0)] {
        if is_wanted(name) {
            measure_answer(&database, rounds, name, aim, &mut verdicts)?;
        }
    }
    let servers = [
        Subject::product(&database.url)?,
        Subject::own("axum peer", "peer", &database.url)?,
        Subject::own("  without batches", "unbatched", &database.url)?,
        Subject::own("  under rouille's own server", "rouille", &database.url)?,
    ];
    for route in ROUTES.iter().filter(|route| is_wanted(route.name)) {
        measure_route(&mut database, &servers, route, rounds, &mut verdicts)?;
    }
    if is_wanted("decay") {
        drop(servers);
        decay::measure(&mut database, rounds, &mut verdicts)?;
    }
    print_verdicts(&verdicts);
    Ok(())
}

/// The same handler, which costs nothing, under the service's server and under rouille's own.
fn measure_answer(
    database: &Database,
    rounds: Rounds,
    name: &str,
    aim: f64,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<()> {
    let servers = [
        Subject::own("a handler alone", "alone", &database.url)?,
        Subject::own(
            "  under rouille's own server",
            "alone-rouille",
            &database.url,
        )?,
    ];
    let mut table: Vec<Series> = servers
        .iter()
        .map(|server| Series::new(server.name))
        .collect();
    for _ in 0..rounds.rounds {
        for (server, series) in servers.iter().zip(&mut table) {
            series
                .rounds
                .push(run(database, server, name, rounds.seconds, 0)?);
        }
    }
    print_route(name, None, &table);
    let [ours, rouille] = &table[..] else {
        return Ok(());
    };
    let ratio = ours.times(rouille);
    verdicts.push(Verdict::at_least(
        format!("{name}: times rouille's own server"),
        ratio,
        aim,
    ));
    let p99 = ours.p99().map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    verdicts.push(Verdict::at_most(format!("{name}: p99 in ms"), p99, 5.0));
    Ok(())
}

/// The figures of 32 connections from all users.
pub fn run(
    database: &Database,
    server: &Subject,
    route: &str,
    seconds: u64,
    fresh: i64,
) -> anyhow::Result<Figures> {
    let users = Users {
        first: 1,
        last: database.users,
        movies: database.movies / database.users,
    };
    let figures = run_wrk(
        database,
        &server.base,
        route,
        users,
        CONNECTIONS,
        seconds,
        fresh,
    )
    .with_context(|| server.name.trim())?;
    Ok(Figures {
        resident_bytes: Some(server.resident_bytes()?),
        ..figures
    })
}

fn measure_route(
    database: &mut Database,
    servers: &[Subject],
    route: &Route,
    rounds: Rounds,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<()> {
    let mut table: Vec<Series> = servers
        .iter()
        .map(|server| Series::new(server.name))
        .collect();
    let mut limit = Series::new("PostgreSQL alone (pgbench)");
    let (mut statements, mut requests) = (0, 0);
    let writes = ["create", "update", "delete"].contains(&route.name);
    for round in 0..rounds.rounds {
        // To and fro, so that none always comes after the same other one.
        let mut turns: Vec<_> = servers.iter().zip(&mut table).enumerate().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (place, (server, series)) in turns {
            let fresh = match route.name {
                "delete" => database
                    .add_fresh_movies(DELETIONS_PER_SECOND * i64::try_from(rounds.seconds)?)?,
                _ => 0,
            };
            database.take_statements()?;
            let figures = run(database, server, route.name, rounds.seconds, fresh)?;
            if place == 0 {
                statements += database.take_statements()?;
                requests += figures.requests;
            }
            series.rounds.push(figures);
            if writes {
                database.tidy()?;
            }
        }
        if let Some(Limit {
            statement,
            parameters,
        }) = &route.limit
        {
            limit.rounds.push(run_pgbench(
                database,
                statement,
                parameters,
                rounds.seconds,
            )?);
            if writes {
                database.tidy()?;
            }
        }
    }
    ensure!(statements > 0, "{}: no statement was counted", route.name);
    let statements_each = statements as f64 / requests as f64;
    let has_limit = !limit.rounds.is_empty();
    if has_limit {
        table.push(limit);
    }
    print_route(route.name, Some(statements_each), &table);
    let times = |place: usize| match (table.first(), table.get(place)) {
        (Some(ours), Some(theirs)) => ours.times(theirs),
        _ => f64::NAN,
    };
    if let Some(aim) = route.aims.0 {
        verdicts.push(Verdict::at_least(
            format!("{}: times the axum peer", route.name),
            times(1),
            aim,
        ));
    }
    if let (Some(aim), true) = (route.aims.1, has_limit) {
        verdicts.push(Verdict::at_least(
            format!("{}: of PostgreSQL alone", route.name),
            times(4),
            aim,
        ));
    }
    if let (Some(most), Some(ours)) = (route.tail, table.first()) {
        verdicts.push(Verdict::at_most(
            format!("{}: p99 to p50", route.name),
            ours.tail(),
            most,
        ));
    }
    // Of each connection's last request, wrk may have gone before the answer that the statement was for.
    let unheard = (CONNECTIONS * rounds.rounds) as f64 / requests as f64;
    let most = if route.name == "read" { 0.5 } else { 1.0 };
    verdicts.push(Verdict::at_most(
        format!("{}: statements a request", route.name),
        statements_each,
        most + unheard,
    ));
    Ok(())
}

//! The routes of the service beside its peers: 32 keep-alive connections, 100,000 movies of 1,000 users.
use std::path::Path;

use anyhow::{Context, ensure};

use crate::Rounds;
use crate::database::Database;
use crate::decay;
use crate::load::{Figures, Users, run_pgbench, run_wrk};
use crate::report::{Series, Target, print_route, print_targets};
use crate::server::{Server, service_binary};

/// Everything that `--only` can name.
pub const NAMES: [&str; 10] = [
    "response_100",
    "response_2000",
    "read",
    "list_first",
    "list_deep",
    "search",
    "create",
    "update",
    "delete",
    "decay",
];

const CONNECTIONS: usize = 32;

/// The movies that are made for one second of DELETE requests: more than any of the servers deletes in a second.
const DELETABLE_PER_SECOND: i64 = 25_000;

struct Route {
    /// Its name in load.lua and for `--only`.
    name: &'static str,
    /// If pgbench measures PostgreSQL alone on `sql/NAME.sql`: the statement's parameters, and how pgbench sets them.
    pgbench_parameters: Option<&'static [(&'static str, &'static str)]>,
    /// Requests per second of the service, divided by those of the axum peer.
    min_ratio_to_axum: Option<f64>,
    /// Requests per second of the service, divided by pgbench's transactions per second.
    min_ratio_to_postgres: Option<f64>,
    /// The service's 99th percentile of the latency, divided by its median.
    max_p99_to_p50: Option<f64>,
}

impl Route {
    /// A route without pgbench and without targets.
    const fn named(name: &'static str) -> Route {
        Route {
            name,
            pgbench_parameters: None,
            min_ratio_to_axum: None,
            min_ratio_to_postgres: None,
            max_p99_to_p50: None,
        }
    }
}

const ROUTES: [Route; 7] = [
    Route {
        pgbench_parameters: Some(&[
            ("user_id", "random(1, 1000)"),
            ("movie", ":user_id + 1000 * random(0, 99)"),
        ]),
        min_ratio_to_axum: Some(1.5),
        min_ratio_to_postgres: Some(0.6),
        ..Route::named("read")
    },
    Route {
        pgbench_parameters: Some(&[("user_id", "random(1, 1000)"), ("size", "10")]),
        min_ratio_to_axum: Some(1.5),
        ..Route::named("list_first")
    },
    Route::named("list_deep"),
    Route {
        min_ratio_to_axum: Some(1.0),
        ..Route::named("search")
    },
    Route {
        pgbench_parameters: Some(&[
            ("user_id", "random(1, 1000)"),
            ("title", "'some film'"),
            ("genre", "'Drama'"),
            ("year", "random(1950, 2025)"),
        ]),
        min_ratio_to_axum: Some(1.5),
        max_p99_to_p50: Some(2.5),
        ..Route::named("create")
    },
    Route {
        pgbench_parameters: Some(&[
            ("user_id", "random(1, 1000)"),
            ("movie", ":user_id + 1000 * random(0, 99)"),
            ("title", "'another film'"),
            ("genre", "'Drama'"),
            ("year", "random(1950, 2025)"),
        ]),
        ..Route::named("update")
    },
    Route::named("delete"),
];

/// Whether `name` is a route of the API, which every build of the service has.
pub fn is_api_route(name: &str) -> bool {
    ROUTES.iter().any(|route| route.name == name)
}

/// Measures everything, or what `only` names, and prints a table for each route and the targets.
pub fn measure(rounds: Rounds, only: &[String]) -> anyhow::Result<()> {
    let binary = service_binary()?;
    let mut database = Database::with_equal_lists("bench", &binary)?;
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let mut targets = Vec::new();
    for (name, min_ratio) in [("response_100", 2.3), ("response_2000", 30.0)] {
        if is_wanted(name) {
            measure_fixed_response(&database, rounds, name, min_ratio, &mut targets)?;
        }
    }
    let servers = Servers::start(&binary, &database.url)?;
    for route in ROUTES.iter().filter(|route| is_wanted(route.name)) {
        measure_route(&mut database, &servers, route, rounds, &mut targets)?;
    }
    if is_wanted("decay") {
        drop(servers);
        decay::measure(&mut database, &binary, rounds, &mut targets)?;
    }
    print_targets(&targets);
    Ok(())
}

/// The same handler, which returns a response of fixed size, under the service's server and under rouille's own.
fn measure_fixed_response(
    database: &Database,
    rounds: Rounds,
    name: &str,
    min_ratio: f64,
    targets: &mut Vec<Target>,
) -> anyhow::Result<()> {
    let service = Server::start_role("a fixed response", "fixed-response", &database.url)?;
    let rouille = Server::start_role(UNDER_ROUILLE, "fixed-response-rouille", &database.url)?;
    let mut table = [&service, &rouille].map(|server| Series::new(server.name));
    for _ in 0..rounds.rounds {
        for (server, series) in [&service, &rouille].into_iter().zip(&mut table) {
            let figures = send_load(database, server, name, rounds.seconds, 0)?;
            series.rounds.push(figures);
        }
    }
    print_route(name, None, &table);
    let [service, rouille] = &table;
    targets.push(Target::at_least(
        format!("{name}: requests/s, ratio to rouille's own server"),
        service.ratio_to(rouille),
        min_ratio,
    ));
    let p99 = service
        .p99()
        .map_or(f64::NAN, |p99| p99.as_secs_f64() * 1e3);
    targets.push(Target::at_most(format!("{name}: p99 in ms"), p99, 5.0));
    Ok(())
}

const UNDER_ROUILLE: &str = "  under rouille's own server";

/// The servers that every route is measured on.
struct Servers {
    service: Server,
    axum: Server,
    unbatched: Server,
    under_rouille: Server,
}

impl Servers {
    fn start(binary: &Path, database_url: &str) -> anyhow::Result<Servers> {
        Ok(Servers {
            service: Server::start_binary("movies-api", binary, database_url)?,
            axum: Server::start_role("axum peer", "axum", database_url)?,
            unbatched: Server::start_role("  without batches", "unbatched", database_url)?,
            under_rouille: Server::start_role(UNDER_ROUILLE, "rouille", database_url)?,
        })
    }

    fn all(&self) -> [&Server; 4] {
        let Servers {
            service,
            axum,
            unbatched,
            under_rouille,
        } = self;
        [service, axum, unbatched, under_rouille]
    }
}

fn measure_route(
    database: &mut Database,
    servers: &Servers,
    route: &Route,
    rounds: Rounds,
    targets: &mut Vec<Target>,
) -> anyhow::Result<()> {
    let mut table = servers.all().map(|server| Series::new(server.name));
    let mut postgres = Series::new("PostgreSQL alone (pgbench)");
    let (mut statements, mut requests) = (0, 0);
    for round in 0..rounds.rounds {
        let mut turns: Vec<_> = servers.all().into_iter().zip(&mut table).collect();
        // Every other round in the opposite order, so that no server always follows the same one.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (server, series) in turns {
            let figures = run_turn(database, server, route.name, rounds.seconds)?;
            let turn_statements = database.take_statements()?;
            if server.name == servers.service.name {
                statements += turn_statements;
                requests += figures.requests;
            }
            series.rounds.push(figures);
        }
        if let Some(parameters) = route.pgbench_parameters {
            let figures = run_pgbench(database, route.name, parameters, rounds.seconds)?;
            postgres.rounds.push(figures);
            if is_write(route.name) {
                database.tidy()?;
            }
        }
    }
    ensure!(statements > 0, "{}: no statement was counted", route.name);
    let statements_per_request = statements as f64 / requests as f64;
    let [service, axum, unbatched, under_rouille] = table;
    let ratio_to_axum = service.ratio_to(&axum);
    let ratio_to_postgres = service.ratio_to(&postgres);
    let p99_to_p50 = service.p99_to_p50();
    let mut rows = vec![service, axum, unbatched, under_rouille];
    if route.pgbench_parameters.is_some() {
        rows.push(postgres);
    }
    print_route(route.name, Some(statements_per_request), &rows);
    let name = route.name;
    targets.extend(route.min_ratio_to_axum.map(|limit| {
        let description = format!("{name}: requests/s, ratio to the axum peer");
        Target::at_least(description, ratio_to_axum, limit)
    }));
    targets.extend(route.min_ratio_to_postgres.map(|limit| {
        let description = format!("{name}: requests/s, ratio to PostgreSQL alone");
        Target::at_least(description, ratio_to_postgres, limit)
    }));
    targets.extend(route.max_p99_to_p50.map(|limit| {
        let description = format!("{name}: p99, ratio to p50");
        Target::at_most(description, p99_to_p50, limit)
    }));
    // A statement may serve the last request of a connection, whose response wrk no longer counts.
    let uncounted = CONNECTIONS as f64 * f64::from(rounds.rounds) / requests as f64;
    let limit = if name == "read" { 0.5 } else { 1.0 };
    targets.push(Target::at_most(
        format!("{name}: statements per request"),
        statements_per_request,
        limit + uncounted,
    ));
    Ok(())
}

/// One measurement of a route of the API; afterwards the database is as it was before.
///
/// The statements that it ran stay counted for `Database::take_statements`.
pub fn run_turn(
    database: &mut Database,
    server: &Server,
    route: &str,
    seconds: u64,
) -> anyhow::Result<Figures> {
    let first_deletable = match route {
        "delete" => {
            database.add_deletable_movies(DELETABLE_PER_SECOND * i64::try_from(seconds)?)?
        }
        _ => 0,
    };
    database.take_statements()?;
    let figures = send_load(database, server, route, seconds, first_deletable)?;
    if is_write(route) {
        database.tidy()?;
    }
    Ok(figures)
}

fn is_write(route: &str) -> bool {
    ["create", "update", "delete"].contains(&route)
}

/// The figures of a route under requests of all users. DELETE requests begin with the movie `first_deletable`.
pub fn send_load(
    database: &Database,
    server: &Server,
    route: &str,
    seconds: u64,
    first_deletable: i64,
) -> anyhow::Result<Figures> {
    let users = Users {
        first: 1,
        last: database.users,
        movies: database.movies / database.users,
    };
    let figures = run_wrk(
        database,
        &server.base_url,
        route,
        users,
        CONNECTIONS,
        seconds,
        first_deletable,
    )
    .with_context(|| format!("{} was measured", server.name.trim()))?;
    Ok(Figures {
        resident_bytes: Some(server.resident_bytes()?),
        ..figures
    })
}

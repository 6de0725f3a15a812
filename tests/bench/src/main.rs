//! `./run.sh bench`: measures the service and the servers that it is compared with, in turns within one run.
mod axum_peer;
mod builds;
mod database;
mod decay;
mod load;
mod long_lists;
mod report;
mod roles;
mod routes;
mod server;
mod token;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use crate::database::Database;

/// Measures movies-api beside rouille's own server, a server made with axum, and PostgreSQL itself.
#[derive(Parser)]
#[command(bin_name = "./run.sh bench", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    rounds: Rounds,
    /// Measure only this build and another build of movies-api, each on a database that its own migrations made:
    /// read, list_first, search and create, or the routes of --only
    #[arg(long, value_name = "BINARY", conflicts_with = "rows")]
    peer: Option<PathBuf>,
    /// Compare the list of a user who has 30 % of ROWS movies with the list of a user who has 100; at least 1000 rows
    #[arg(long, conflicts_with = "only", value_parser = clap::value_parser!(i64).range(1000..))]
    rows: Option<i64>,
    /// Measure only these routes, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(routes::NAMES))]
    only: Vec<String>,
}

/// How often and how long each server is measured on each route. The servers take turns in every round, and each
/// figure is the median of its rounds.
#[derive(Clone, Copy, clap::Args)]
pub struct Rounds {
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// The servers that this program can be. It starts itself in these roles.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Role {
    /// The movie routes on axum
    #[command(hide = true)]
    Axum,
    /// The handlers of movies-api under rouille's own server
    #[command(hide = true)]
    Rouille,
    /// movies-api with one input per statement
    #[command(hide = true)]
    Unbatched,
    /// A response of fixed size under the server of movies-api
    #[command(hide = true)]
    FixedResponse,
    /// A response of fixed size under rouille's own server
    #[command(hide = true)]
    FixedResponseRouille,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let rounds = arguments.rounds;
    match arguments.role {
        Some(Role::Axum) => return axum_peer::serve(axum_peer::Options::from_environment()?),
        Some(Role::Rouille) => return roles::serve_handlers_under_rouille(),
        Some(Role::Unbatched) => return roles::serve_unbatched(),
        Some(Role::FixedResponse) => return roles::serve_fixed_response(),
        Some(Role::FixedResponseRouille) => return roles::serve_fixed_response_under_rouille(),
        None => report::print_machine()?,
    }
    if let Some(peer) = arguments.peer {
        builds::measure(&peer, rounds, &arguments.only)
    } else if let Some(rows) = arguments.rows {
        long_lists::measure(Database::with_long_list(rows)?, rounds)
    } else {
        routes::measure(rounds, &arguments.only)
    }
}

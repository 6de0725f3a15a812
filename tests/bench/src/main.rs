//! `./run.sh bench`: the service beside rouille's own server, an axum peer and PostgreSQL itself, as ratios in one run.
mod database;
mod decay;
mod load;
mod peer;
mod product;
mod report;
mod routes;
mod shelves;
mod subjects;
mod token;

use clap::{Parser, Subcommand};

use crate::database::Database;

/// Measures movies-api beside rouille's own server, an axum peer and PostgreSQL itself.
#[derive(Parser)]
#[command(name = "./run.sh bench")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    rounds: Rounds,
    /// Instead of the routes, a shelf of three tenths of so many movies beside one of a hundred; at least 1000
    #[arg(long, value_parser = clap::value_parser!(i64).range(1000..))]
    rows: Option<i64>,
    /// Only these routes, separated by commas: answer_100, answer_2000, read, list_first, list_deep, search, create, update, delete, decay
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// How long is measured. Every figure is the median of its rounds, in which all subjects take turns.
#[derive(Clone, Copy, clap::Args)]
pub struct Rounds {
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one measurement in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// What a process that this program starts of itself is.
#[derive(Clone, Copy, Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// The axum peer
    Peer,
    /// The product's handler under rouille's own server
    Rouille,
    /// The product with batches of one
    Unbatched,
    /// A handler that costs nothing under the product's server
    Alone,
    /// A handler that costs nothing under rouille's own server
    AloneRouille,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Peer) => peer::serve(peer::Options::from_environment()?),
        Some(Role::Rouille) => product::serve_handler_by_rouille(),
        Some(Role::Unbatched) => product::serve_unbatched(),
        Some(Role::Alone) => product::serve_alone(),
        Some(Role::AloneRouille) => product::serve_alone_by_rouille(),
        None => {
            report::print_machine()?;
            match arguments.rows {
                Some(rows) => shelves::measure(Database::with_shelves(rows)?, arguments.rounds),
                None => {
                    routes::measure(Database::with_movies()?, arguments.rounds, &arguments.only)
                }
            }
        }
    }
}

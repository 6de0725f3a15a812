//! `recount`: compares the counts that the database maintains with its rows, and corrects them.
use anyhow::{bail, ensure};
use clap::Args;
use serde::Serialize;

use super::common::{CONNECT_TIMEOUT, CommonArguments};
use crate::db;
use crate::db::counts::{self, Counts};

/// The arguments of `recount`.
#[derive(Args, Debug)]
pub struct Recount {
    /// Change nothing, and exit with 1 if a count is wrong
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Serialize)]
struct Recounted {
    /// Before the correction.
    #[serde(flatten)]
    counts: Counts,
    are_right: bool,
    /// Whether wrong counts were corrected.
    is_corrected: bool,
}

/// Corrects wrong counts. With `--check`, changes nothing.
///
/// # Errors
/// If the schema is not complete, or with `--check` if a count is wrong.
pub fn recount(arguments: &Recount) -> anyhow::Result<()> {
    let is_check = arguments.check;
    let database = &arguments.common.database.database_url;
    let state = db::inspect(database, CONNECT_TIMEOUT)?;
    ensure!(
        state.is_current(),
        "the schema is not this version's: `check` lists the differences, `migrate` brings it up to date"
    );
    let counts = if is_check {
        counts::check(database, CONNECT_TIMEOUT)?
    } else {
        counts::recount(database, CONNECT_TIMEOUT)?
    };
    let are_right = counts.are_right();
    let lines = describe(&counts, is_check);
    let recounted = Recounted {
        counts,
        are_right,
        is_corrected: !are_right && !is_check,
    };
    arguments.common.output.print(&recounted, &lines)?;
    if is_check && !are_right {
        bail!("counts are wrong: `recount` corrects them");
    }
    Ok(())
}

fn describe(counts: &Counts, is_check: bool) -> Vec<String> {
    let mut lines = vec![format!(
        "{} users and {} movies counted",
        counts.users, counts.movies
    )];
    if counts.are_right() {
        lines.push("all counts are correct".to_owned());
        return lines;
    }
    let verb = if is_check { "found" } else { "corrected" };
    if counts.kept_total != counts.movies {
        lines.push(format!(
            "{verb}: the number of all movies, which was {}",
            counts.kept_total
        ));
    }
    for (wrong, what) in [
        (counts.wrong_users, "users with a wrong number of movies"),
        (counts.wrong_lists, "long lists with wrong counts of ranges"),
        (counts.sequences_behind, "sequences behind existing ids"),
    ] {
        if wrong > 0 {
            lines.push(format!("{verb}: {wrong} {what}"));
        }
    }
    lines
}

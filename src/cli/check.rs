//! `check`: says whether the service would start with these settings on this database. Changes nothing.
use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::common::{CONNECT_TIMEOUT, Output};
use crate::auth::bcrypt_cost::check_cost;
use crate::config::Settings;
use crate::db::{self, SchemaState};

/// The arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    output: Output,
}

/// Prints the state of the database, notes (what the service works without, and `warnings` about settings), and problems
/// that prevent the service from starting or from keeping its API.
///
/// # Errors
/// If there is a problem, or a setting that this machine cannot satisfy.
pub fn check(arguments: &Check, warnings: Vec<String>) -> anyhow::Result<()> {
    let settings = &arguments.settings;
    check_cost(settings.passwords.bcrypt_cost)?;
    let mut notes = warnings;
    let inspected = db::inspect(&settings.database.database_url, CONNECT_TIMEOUT);
    let mut lines = vec!["settings    good".to_owned()];
    // The state is `None` if the database could not be reached.
    let (problems, database) = match inspected {
        Ok(state) => {
            lines.extend(describe(&state));
            notes.extend(state.notes());
            (state.problems(), Some(state))
        }
        Err(error) => (vec![error.to_string()], None),
    };
    lines.extend(notes.iter().map(|note| format!("note        {note}")));
    for problem in &problems {
        lines.push(format!("problem     {problem}"));
    }
    let checked = json!({
        "is_ready": problems.is_empty(),
        "problems": problems,
        "notes": notes,
        "database": database,
    });
    arguments.output.print(&checked, &lines)?;
    match problems.first() {
        None => Ok(()),
        Some(problem) => bail!("not ready: {problem}"),
    }
}

fn describe(state: &SchemaState) -> Vec<String> {
    let installed = state
        .extensions
        .iter()
        .filter(|(_, is_installed)| **is_installed);
    let names: Vec<_> = installed.map(|(name, _)| name.as_str()).collect();
    vec![
        format!("database    PostgreSQL {}", state.version),
        format!("locale      {}, {}", state.locale, state.encoding),
        format!("extensions  {}", or_none(names.join(", "))),
        format!(
            "migrations  {} applied, {} pending",
            state.applied.len(),
            or_none(state.pending.join(", "))
        ),
    ]
}

fn or_none(names: String) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names
}

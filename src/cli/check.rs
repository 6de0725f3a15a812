//! `check`: says whether the service would start with these settings on this database. Changes nothing.
use anyhow::bail;
use serde::Serialize;

use super::common::{BadSetting, CONNECT_TIMEOUT, Output};
use crate::auth::bcrypt_cost::check_cost;
use crate::config::Settings;
use crate::db::{self, SchemaState};

#[derive(Serialize)]
struct Checked {
    is_ready: bool,
    /// What prevents the service from starting or from keeping its API.
    problems: Vec<String>,
    /// What the service works without, and warnings about settings.
    notes: Vec<String>,
    /// `None` if the database could not be reached.
    database: Option<SchemaState>,
}

/// Prints the state of the database, notes and problems.
///
/// # Errors
/// If there is a problem, or a setting that this machine cannot satisfy.
pub fn check(settings: &Settings, warnings: &[String], output: &Output) -> anyhow::Result<()> {
    check_cost(settings.passwords.bcrypt_cost).map_err(BadSetting)?;
    let mut notes = warnings.to_vec();
    let inspected = db::inspect(&settings.database.database_url, CONNECT_TIMEOUT);
    let mut lines = vec!["settings    good".to_owned()];
    let (problems, database) = match inspected {
        Ok(state) => {
            lines.extend(describe(&state));
            notes.extend(state.notes());
            (state.problems(), Some(state))
        }
        Err(error) => (vec![error.to_string()], None),
    };
    lines.extend(notes.iter().map(|note| format!("note        {note}")));
    let first_problem = problems.first().cloned();
    let checked = Checked {
        is_ready: problems.is_empty(),
        problems,
        notes,
        database,
    };
    let problems = checked.problems.iter();
    lines.extend(problems.map(|problem| format!("problem     {problem}")));
    output.print(&checked, &lines)?;
    match first_problem {
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
        format!("extensions  {}", list(&names)),
        format!(
            "migrations  {} applied, {} pending",
            state.history.applied.len(),
            list(&state.history.pending)
        ),
    ]
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

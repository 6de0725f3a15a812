//! `migrate`: the database's schema brought up to date.
use serde::Serialize;

use super::{Output, START_DEADLINE};
use crate::settings::DatabaseSettings;
use crate::store;

#[derive(Serialize)]
struct Migrated {
    applied: Vec<String>,
}

pub fn migrate(database: &DatabaseSettings, output: &Output) -> anyhow::Result<()> {
    let applied = store::migrate(&database.database_url, START_DEADLINE)?;
    let lines: Vec<_> = match applied.as_slice() {
        [] => vec!["nothing to apply".to_owned()],
        names => names.iter().map(|name| format!("{name} applied")).collect(),
    };
    output.print(&Migrated { applied }, &lines)
}

//! `migrate`: brings the database's schema up to date.
use serde::Serialize;

use super::common::{CONNECT_TIMEOUT, Output};
use crate::config::DatabaseSettings;
use crate::db;

#[derive(Serialize)]
struct Migrated {
    applied: Vec<String>,
}

pub fn migrate(database: &DatabaseSettings, output: &Output) -> anyhow::Result<()> {
    let applied = db::migrate(&database.database_url, CONNECT_TIMEOUT)?;
    let lines: Vec<_> = match applied.as_slice() {
        [] => vec!["nothing to apply".to_owned()],
        names => names.iter().map(|name| format!("{name} applied")).collect(),
    };
    output.print(&Migrated { applied }, &lines)
}

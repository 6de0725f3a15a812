//! `migrate`: brings the database's schema up to date.
use serde_json::json;

use super::common::{CONNECT_TIMEOUT, CommonArguments};
use crate::db;

pub fn migrate(arguments: &CommonArguments) -> anyhow::Result<()> {
    let applied = db::migrate(&arguments.database.database_url, CONNECT_TIMEOUT)?;
    let lines: Vec<_> = match applied.as_slice() {
        [] => vec!["nothing to apply".to_owned()],
        names => names.iter().map(|name| format!("{name} applied")).collect(),
    };
    let migrated = json!({ "applied": applied });
    arguments.output.print(&migrated, &lines)
}
